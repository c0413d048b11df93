//! From the ledger's rows to a state.
//!
//! Promises:
//! - The same rows give the same state, whatever is put aside meanwhile.
//! - A fold that puts aside holds the months a service holds and [`OLDER_BYTES`] beside, however many years the ledger
//!   has: a start after a restore, and a check beside a service, fit into the memory that serving takes.
//!
//! What a row means is [`State`]'s; where months are put aside is [`Derived`]'s.

use std::sync::Arc;

use banyan_shared::ids::{Millis, Position};

use crate::act::{Act, SignedAct};
use crate::derived::{Derived, first_here};
use crate::ledger::{LedgerReader, RowKind, RowRef};
use crate::state::{State, StateError};

/// Bytes of older months in memory after which they are put aside. More than a service's own measure: each time the
/// months of the present are written too.
const OLDER_BYTES: usize = 256 << 20;

/// When months are put aside.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// After how many bytes of rows it is looked: counts of past years come in rows of thousands of reports.
    pub(crate) row_bytes: usize,
    /// At how many bytes of older months in memory.
    pub(crate) older_bytes: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { row_bytes: 4 << 20, older_bytes: OLDER_BYTES }
    }
}

/// Folds the ledger from its first row to its end, all of it in memory.
///
/// # Errors
/// [`StateError`] where a row does not read.
pub fn fold(reader: &LedgerReader, now: Millis) -> Result<State, StateError> {
    Fold::default().until(reader, Position::MAX, now)
}

/// Folds the ledger from its first row up to `end`, included, all of it in memory.
#[cfg(test)]
pub(crate) fn fold_until(
    reader: &LedgerReader,
    end: Position,
    now: Millis,
) -> Result<State, StateError> {
    Fold::default().until(reader, end, now)
}

/// Folds the ledger from its first row up to `end`, included, putting months aside in `derived`.
///
/// # Errors
/// [`StateError`] where a row does not read.
pub(crate) fn fold_aside(
    reader: &LedgerReader,
    end: Position,
    now: Millis,
    derived: &Arc<Derived>,
    limits: Limits,
) -> Result<State, StateError> {
    let aside = Some(Aside::new(reader, derived, limits)?);
    Fold { aside, ..Fold::default() }.until(reader, end, now)
}

/// The state at the ledger's end: what `derived` held, `kept`, and the rows after it, or every row.
///
/// # Errors
/// [`StateError`] where a row does not read.
pub(crate) fn resume(
    reader: &LedgerReader,
    now: Millis,
    (derived, kept): (&Arc<Derived>, Option<State>),
) -> Result<State, StateError> {
    if let Some(state) = kept {
        let begun = std::time::Instant::now();
        let from = state.position + 1;
        let aside = Some(Aside::new(reader, derived, Limits::default())?);
        let mut fold = Fold { state: Some(state), aside, first: Vec::new() };
        match reader.read_from::<StateError>(from, |row| fold.row(&row)) {
            Ok(to) => {
                tracing::info!(from, to, took = ?begun.elapsed(), "rows folded");
                return fold.end(now);
            }
            Err(error) => {
                tracing::warn!("derived.db is made anew from the ledger: {error}");
                derived.distrust();
            }
        }
    }
    fold_aside(reader, Position::MAX, now, derived, Limits::default())
}

/// Rows folded one after the other.
#[derive(Default)]
struct Fold {
    /// The acts before there is a catalogue.
    first: Vec<SignedAct>,
    state: Option<State>,
    aside: Option<Aside>,
}

impl Fold {
    /// Every row up to `end`.
    fn until(
        mut self,
        reader: &LedgerReader,
        end: Position,
        now: Millis,
    ) -> Result<State, StateError> {
        // What comes after it has been committed since it was looked up: a few rows.
        reader.read_from::<StateError>(1, |row| {
            if row.position > end { Ok(()) } else { self.row(&row) }
        })?;
        self.end(now)
    }

    fn row(&mut self, row: &RowRef<'_>) -> Result<(), StateError> {
        if let Some(state) = &mut self.state {
            state.apply_row(row)?;
            if let Some(aside) = &mut self.aside {
                aside.row_bytes += row.bytes.len();
                aside.look(state)?;
            }
            return Ok(());
        }
        if row.kind == RowKind::Act {
            let wire = |source| StateError::Wire { position: row.position, source };
            let signed = SignedAct::read(row.bytes).map_err(wire)?;
            let catalogue = matches!(signed.act, Act::Catalogue { .. });
            self.first.push(signed);
            if catalogue {
                let mut begun = State::begin(&self.first)?;
                for signed in &self.first {
                    begun.apply_act(signed, row.position, row.received_at)?;
                }
                self.state = Some(begun);
            }
        }
        Ok(())
    }

    fn end(self, now: Millis) -> Result<State, StateError> {
        let mut state = self.state.ok_or(StateError::NoCatalogue)?;
        state.rejudge(now);
        if let Some(aside) = self.aside {
            state.cube.set_older(aside.derived);
        }
        Ok(state)
    }
}

/// Puts older months aside while rows are folded.
struct Aside {
    derived: Arc<Derived>,
    /// Asked where commits end.
    reader: LedgerReader,
    /// Bytes of rows since the last look.
    row_bytes: usize,
    /// Whether months are to be put aside at the next end of a commit.
    due: bool,
    limits: Limits,
}

impl Aside {
    fn new(
        reader: &LedgerReader,
        derived: &Arc<Derived>,
        limits: Limits,
    ) -> Result<Aside, StateError> {
        let (derived, reader) = (derived.clone(), reader.another()?);
        Ok(Aside { derived, reader, row_bytes: 0, due: false, limits })
    }

    fn look(&mut self, state: &mut State) -> Result<(), StateError> {
        if !self.due && self.row_bytes >= self.limits.row_bytes {
            self.row_bytes = 0;
            self.due = state.cube.bytes_before(first_here(state)) >= self.limits.older_bytes;
        }
        if !self.due {
            return Ok(());
        }
        // Only what ends with a commit can be kept.
        let Some(chain) = self.reader.hash_at(state.position)? else { return Ok(()) };
        self.due = false;
        if let Err(error) = self.derived.write(state, self.reader.identity(), chain) {
            tracing::warn!("older months stay in memory while the ledger is folded: {error}");
            // Nothing is gained by filling a full disk again and again.
            self.limits.older_bytes = usize::MAX;
            return Ok(());
        }
        state.cube.set_older(self.derived.clone());
        let first = first_here(state);
        for (form, month) in self.derived.stay().to_put_aside(&state.cube, first) {
            drop(state.cube.put_aside(form, month));
        }
        tracing::info!(through = state.position, "older months put aside");
        Ok(())
    }
}
