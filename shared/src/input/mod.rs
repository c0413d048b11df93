//! Counts as people and other systems give them: files of counts, and `ELEMENT=VALUE` arguments.
//!
//! Promises that nothing unclear is taken for a number: each cell becomes a number, missing or not
//! applicable, or an error that says where, what, why and what to do, in both languages; that all errors of a
//! file are found at once; that good rows are kept and refused ones can be written out, mended and read again.
//! Leaves to others: the rules between elements, what an earlier report said, when it was entered.

mod counts;
mod enrolled;
mod value;

pub use counts::{
    CountsFile, CountsReport, Reading, RefusedRow, read_counts, read_counts_rows, refused_csv,
};
pub use enrolled::{Enrolled, Reporters, Standing};
pub use value::{Bad, guarded, parse_assignment, parse_cell, parse_value, unguarded};

#[cfg(test)]
mod tests;
