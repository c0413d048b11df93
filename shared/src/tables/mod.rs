//! CSV text input: bytes to rows, with every error of a file at once.
//!
//! Promises that a header is exact, that each error names file, line, column, value, reason and remedy in
//! both languages, and that good rows are kept beside the bad ones. Reads UTF-8 (with or without BOM) or
//! GB18030, LF or CRLF. Leaves the meaning of the rows to others: the typed rows of the registry are in
//! [`registry`], whether their references resolve is [`crate::organisation`]'s.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::catalogue::{Lang, Text};

pub mod registry;
pub use registry::{TableName, Tables};

/// Largest text file read at once, in bytes.
pub const FILE_BYTES_MAX: usize = 128 << 20;
/// Most data rows in one file.
pub const ROWS_MAX: usize = 2_000_000;
/// Most columns in one file.
pub const COLUMNS_MAX: usize = 512;
/// Longest single cell, in bytes.
pub const CELL_BYTES_MAX: usize = 4096;
/// Most errors listed for one file; the last one then says that more were left out.
pub const ERRORS_MAX: usize = 10_000;

/// Codes of everything that can be wrong with a table; the list is in `docs/formats.md`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    /// The file or a part of it is larger than its limit.
    TooLarge,
    /// The bytes are neither UTF-8 nor GB18030.
    Encoding,
    /// There is no header row.
    NoHeader,
    /// A column the file must have is not there.
    MissingColumn,
    /// A column nobody knows.
    UnknownColumn,
    /// A column that stands twice.
    DuplicateColumn,
    /// A row with more or fewer cells than the header.
    CellCount,
    /// A cell with a line break or a control character.
    ControlCharacter,
    /// A cell that must be filled in.
    Empty,
    /// A code that is badly formed.
    BadCode,
    /// A date or period that is badly formed or not in the calendar.
    BadDate,
    /// A date span that ends before or when it begins.
    BadSpan,
    /// A number that is badly formed.
    BadNumber,
    /// A value outside the fixed list of its column.
    BadChoice,
    /// A reference to something that does not exist.
    Unknown,
    /// The same thing said twice.
    Duplicate,
    /// Two rows that cannot both hold on one day.
    Conflict,
    /// A unit among its own ancestors.
    Cycle,
    /// A parent of a class that cannot have children, or a parent where there may be none.
    BadParent,
    /// An element the catalogue does not have.
    UnknownElement,
    /// A form the catalogue does not have.
    UnknownForm,
    /// A facility this agent may not report for.
    NotEnrolled,
    /// A period of another type than the form's.
    WrongPeriodType,
    /// A period that has not begun.
    FuturePeriod,
    /// A form this kind of facility does not report.
    FormNotForKind,
    /// An element that is not in the form.
    NotInForm,
    /// An element that is not asked of this facility then.
    NotAsked,
    /// A count below zero.
    Negative,
    /// A count with decimals.
    Decimal,
    /// A count in units of ten thousand (万) or more.
    TenThousand,
    /// A count above what a report may hold.
    AboveMaximum,
    /// A count in full-width digits.
    FullWidth,
    /// The mark `*` of public exports, which is no count.
    Withheld,
    /// A facility that is not open then: accepted, and parked at the centre.
    FacilityClosed,
    /// Accepted, but probably not what was meant.
    Warning,
}

impl Fault {
    /// The code used in files and JSON, for example `unknown_column`.
    pub fn code(self) -> &'static str {
        match self {
            Fault::TooLarge => "too_large",
            Fault::Encoding => "encoding",
            Fault::NoHeader => "no_header",
            Fault::MissingColumn => "missing_column",
            Fault::UnknownColumn => "unknown_column",
            Fault::DuplicateColumn => "duplicate_column",
            Fault::CellCount => "cell_count",
            Fault::ControlCharacter => "control_character",
            Fault::Empty => "empty",
            Fault::BadCode => "bad_code",
            Fault::BadDate => "bad_date",
            Fault::BadSpan => "bad_span",
            Fault::BadNumber => "bad_number",
            Fault::BadChoice => "bad_choice",
            Fault::Unknown => "unknown",
            Fault::Duplicate => "duplicate",
            Fault::Conflict => "conflict",
            Fault::Cycle => "cycle",
            Fault::BadParent => "bad_parent",
            Fault::UnknownElement => "unknown_element",
            Fault::UnknownForm => "unknown_form",
            Fault::NotEnrolled => "not_enrolled",
            Fault::WrongPeriodType => "wrong_period_type",
            Fault::FuturePeriod => "future_period",
            Fault::FormNotForKind => "form_not_for_kind",
            Fault::NotInForm => "not_in_form",
            Fault::NotAsked => "not_asked",
            Fault::Negative => "negative",
            Fault::Decimal => "decimal",
            Fault::TenThousand => "ten_thousand",
            Fault::AboveMaximum => "above_maximum",
            Fault::FullWidth => "full_width",
            Fault::Withheld => "withheld",
            Fault::FacilityClosed => "facility_closed",
            Fault::Warning => "warning",
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.code())
    }
}

/// One thing wrong with one cell, row or file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RowError {
    /// The file's name as it was given.
    pub file: Arc<str>,
    /// The line it stands on, the first being 1; 0 for the file as a whole.
    pub line: u32,
    /// The column's name; empty for the row as a whole.
    pub column: String,
    /// The value as it stood, shortened to 80 characters.
    pub value: String,
    /// What kind of error.
    pub code: Fault,
    /// The reason and what to do.
    pub message: Text,
}

impl RowError {
    /// An error of `code` with its reason and remedy in both languages.
    pub fn new(
        place: (&Arc<str>, u32, &str),
        value: &str,
        code: Fault,
        zh: impl Into<String>,
        en: impl Into<String>,
    ) -> RowError {
        let (file, line, column) = place;
        RowError {
            file: Arc::clone(file),
            line,
            column: column.to_owned(),
            value: value.chars().take(80).collect(),
            code,
            message: Text { zh: zh.into(), en: en.into() },
        }
    }

    /// The whole error as one line of text.
    pub fn text(&self, lang: Lang) -> String {
        let mut out = self.file.to_string();
        let (line, column, value, stop) = match lang {
            Lang::Zh => ("第", "列", "值", "："),
            Lang::En => ("line ", "column ", "value ", ": "),
        };
        if self.line > 0 {
            out += &match lang {
                Lang::Zh => format!(" {line}{}行", self.line),
                Lang::En => format!(" {line}{}", self.line),
            };
        }
        if !self.column.is_empty() {
            out += &format!(" {column} {}", self.column).replace("  ", " ");
        }
        if !self.value.is_empty() {
            out += &format!(" {value} {:?}", self.value).replace("  ", " ");
        }
        out += stop;
        out += self.message.get(lang);
        out += &format!(" [{}]", self.code);
        out
    }
}

impl fmt::Display for RowError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text(Lang::En))
    }
}

/// A file's rows under a checked header.
#[derive(Clone, Debug)]
pub struct Table {
    /// The file's name as it was given.
    pub file: Arc<str>,
    /// The header as it stood, in file order.
    pub header: Vec<String>,
    /// Rows of the wrong shape, which are not among [`Table::rows`].
    pub errors: Vec<RowError>,
    /// The text of the rows of the wrong shape, with their lines, for an error file.
    pub refused: Vec<(u32, Vec<String>)>,
    rows: Vec<(u32, csv::StringRecord)>,
}

/// One row of a [`Table`].
#[derive(Clone, Copy, Debug)]
pub struct Row<'t> {
    table: &'t Table,
    line: u32,
    record: &'t csv::StringRecord,
}

/// A column's place, from [`Table::column`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Column(Option<usize>);

impl Table {
    /// A table of rows taken apart before, each with its line, under the columns `required` and any others
    /// that `optional` lets in.
    ///
    /// # Errors
    /// Every error of the header. Rows of the wrong shape are in [`Table::errors`] of the result.
    pub fn of_rows(
        file: &str,
        header: Vec<String>,
        rows: Vec<(u32, Vec<String>)>,
        required: &[&str],
        optional: impl Fn(&str) -> bool,
    ) -> Result<Table, Vec<RowError>> {
        let file: Arc<str> = file.into();
        check_header(&file, &header, required, optional)?;
        let (errors, refused) = (Vec::new(), Vec::new());
        let mut table = Table { file, header, errors, refused, rows: Vec::new() };
        for (line, cells) in rows {
            table.take(line, cells.into());
        }
        Ok(table)
    }

    /// Takes a row in, among the good ones or the refused.
    fn take(&mut self, line: u32, record: csv::StringRecord) {
        match check_shape(self, line, &record) {
            None => self.rows.push((line, record)),
            Some(error) => {
                self.refused.push((line, record.iter().map(str::to_owned).collect()));
                if self.errors.len() < ERRORS_MAX {
                    self.errors.push(error);
                }
            }
        }
    }

    /// How many rows there are.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The rows in file order.
    pub fn rows(&self) -> impl Iterator<Item = Row<'_>> {
        self.rows.iter().map(|(line, record)| Row { table: self, line: *line, record })
    }

    /// Where the column stands; cells of a column that was left out read as empty.
    pub fn column(&self, name: &str) -> Column {
        Column(self.header.iter().position(|h| h == name))
    }
}

impl<'t> Row<'t> {
    /// The line the row begins on.
    pub fn line(self) -> u32 {
        self.line
    }

    /// The cell without surrounding blanks; empty if the column was left out.
    pub fn cell(self, column: Column) -> &'t str {
        column.0.and_then(|at| self.record.get(at)).unwrap_or("").trim()
    }

    /// The cell of the column at `at` in the header.
    pub fn cell_at(self, at: usize) -> &'t str {
        self.record.get(at).unwrap_or("").trim()
    }

    /// Every cell as it stood.
    pub fn cells(self) -> impl Iterator<Item = &'t str> {
        self.record.iter()
    }

    /// The column's name.
    pub fn name(self, column: Column) -> &'t str {
        column.0.map_or("", |at| &self.table.header[at])
    }

    /// An error about one cell.
    pub fn error(
        self,
        column: Column,
        code: Fault,
        zh: impl Into<String>,
        en: impl Into<String>,
    ) -> RowError {
        let value = self.cell(column);
        RowError::new((&self.table.file, self.line, self.name(column)), value, code, zh, en)
    }

    /// The cell as a `T`, with an error of `code` if it is empty or not a `T`.
    pub fn required<T: FromStr<Err: fmt::Display>>(
        self,
        column: Column,
        code: Fault,
        errors: &mut Vec<RowError>,
    ) -> Option<T> {
        if self.cell(column).is_empty() {
            errors.push(self.error(
                column,
                Fault::Empty,
                "不能为空，请填写",
                "must not be empty: fill it in",
            ));
            return None;
        }
        self.optional(column, code, errors)
    }

    /// The cell as a `T`; none if it is empty, none and an error of `code` if it is not a `T`.
    pub fn optional<T: FromStr<Err: fmt::Display>>(
        self,
        column: Column,
        code: Fault,
        errors: &mut Vec<RowError>,
    ) -> Option<T> {
        let text = self.cell(column);
        if text.is_empty() {
            return None;
        }
        match text.parse() {
            Ok(value) => Some(value),
            Err(error) => {
                let zh = match code {
                    Fault::BadDate => {
                        "不是有效的日期或统计期，请按 2026-01-31 的格式填写日历上存在的日期"
                    }
                    Fault::BadCode => "不是有效的代码：不能为空、超过64字节，或含空格与分隔符号",
                    Fault::BadNumber => "不是数字，请只用数字填写",
                    _ => "不是本列允许的值",
                };
                errors.push(self.error(column, code, zh, error.to_string()));
                None
            }
        }
    }
}

/// Reads a table whose columns are exactly `required` and any of `optional`.
///
/// # Errors
/// Every error of the file as a whole (encoding, header, limits). Errors of single rows are in
/// [`Table::errors`] of the result.
pub fn read_table(
    bytes: &[u8],
    file: &str,
    required: &[&str],
    optional: &[&str],
) -> Result<Table, Vec<RowError>> {
    read(bytes, file, required, |name| optional.contains(&name))
}

/// Reads a table with the columns `required` and any others, whose names the caller checks
/// (for example element codes, by [`Table::header`]).
///
/// # Errors
/// As [`read_table`].
pub fn read_open_table(
    bytes: &[u8],
    file: &str,
    required: &[&str],
) -> Result<Table, Vec<RowError>> {
    read(bytes, file, required, |_| true)
}

/// The file's text: UTF-8 with or without BOM, or GB18030.
///
/// # Errors
/// If it is neither, names the line of the first bytes that are wrong.
pub fn decode_text<'b>(
    bytes: &'b [u8],
    file: &Arc<str>,
) -> Result<std::borrow::Cow<'b, str>, RowError> {
    let fail = |line: usize, zh: &str, en: &str| {
        let line = u32::try_from(line).unwrap_or(u32::MAX);
        RowError::new((file, line, ""), "", Fault::Encoding, zh, en)
    };
    let line_at =
        |at: usize| bytes[..at.min(bytes.len())].iter().filter(|b| **b == b'\n').count() + 1;
    if bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]) {
        return Err(fail(
            0,
            "文件是 UTF-16 编码，请另存为“CSV UTF-8”",
            "the file is UTF-16: save it as CSV UTF-8",
        ));
    }
    if let Some(rest) = bytes.strip_prefix(&[0xef, 0xbb, 0xbf]) {
        return std::str::from_utf8(rest).map(Into::into).map_err(|e| {
            fail(
                line_at(e.valid_up_to() + 3),
                "文件开头标明是 UTF-8，但此行有不是 UTF-8 的字节，请重新保存为“CSV UTF-8”",
                "the file is marked as UTF-8 but this line holds other bytes: save it again as CSV UTF-8",
            )
        });
    }
    match std::str::from_utf8(bytes) {
        Ok(text) => Ok(text.into()),
        Err(e) => encoding_rs::GB18030
            .decode_without_bom_handling_and_without_replacement(bytes)
            .ok_or_else(|| {
                fail(
                    line_at(e.valid_up_to()),
                    "此行既不是 UTF-8 也不是 GB18030 编码，请另存为“CSV UTF-8”",
                    "this line is neither UTF-8 nor GB18030: save the file as CSV UTF-8",
                )
            }),
    }
}

/// What is said of a file of more than [`FILE_BYTES_MAX`].
pub fn too_large(file: &Arc<str>) -> RowError {
    let mib = FILE_BYTES_MAX >> 20;
    RowError::new(
        (file, 0, ""),
        "",
        Fault::TooLarge,
        format!("文件超过 {mib} MiB，请拆分成几个文件"),
        format!("the file is larger than {mib} MiB: split it"),
    )
}

fn read(
    bytes: &[u8],
    file: &str,
    required: &[&str],
    optional: impl Fn(&str) -> bool,
) -> Result<Table, Vec<RowError>> {
    let file: Arc<str> = file.into();
    let whole = |code, zh: String, en: String| RowError::new((&file, 0, ""), "", code, zh, en);
    if bytes.len() > FILE_BYTES_MAX {
        return Err(vec![too_large(&file)]);
    }
    let text = decode_text(bytes, &file).map_err(|e| vec![e])?;
    let mut reader =
        csv::ReaderBuilder::new().has_headers(false).flexible(true).from_reader(text.as_bytes());
    let mut record = csv::StringRecord::new();
    let broken = |e: &csv::Error| {
        let line = e.position().map_or(0, |p| u32::try_from(p.line()).unwrap_or(u32::MAX));
        RowError::new(
            (&file, line, ""),
            "",
            Fault::Encoding,
            "无法读取此行，请检查引号",
            format!("this line cannot be read ({e}): check the quotes"),
        )
    };
    match reader.read_record(&mut record) {
        Ok(true) if !(record.len() == 1 && record[0].trim().is_empty()) => {}
        Ok(_) => {
            return Err(vec![whole(
                Fault::NoHeader,
                format!("文件没有表头，第一行应为 {}", required.join(",")),
                format!("the file has no header: the first line must be {}", required.join(",")),
            )]);
        }
        Err(e) => return Err(vec![broken(&e)]),
    }
    let header: Vec<String> = record.iter().map(|cell| cell.trim().to_owned()).collect();
    check_header(&file, &header, required, optional)?;

    let mut table = Table {
        file: Arc::clone(&file),
        header,
        errors: Vec::new(),
        refused: Vec::new(),
        rows: Vec::new(),
    };
    loop {
        match reader.read_record(&mut record) {
            Ok(true) => {}
            Ok(false) => break,
            Err(e) => {
                table.errors.push(broken(&e));
                break;
            }
        }
        // A spreadsheet leaves rows of nothing but commas behind.
        if record.iter().all(|cell| cell.trim().is_empty()) {
            continue;
        }
        let line = line_of(&text, &record);
        if table.rows.len() + table.refused.len() >= ROWS_MAX {
            table.errors.push(RowError::new(
                (&file, line, ""),
                "",
                Fault::TooLarge,
                format!("行数超过 {ROWS_MAX}，此行及以后未读，请拆分文件"),
                format!(
                    "more than {ROWS_MAX} rows: this row and the rest were not read, split the file"
                ),
            ));
            break;
        }
        table.take(line, record.clone());
    }
    Ok(table)
}

/// The line a record begins on. The reader's own position is before the line ends it skips first.
fn line_of(text: &str, record: &csv::StringRecord) -> u32 {
    let Some(position) = record.position() else { return 0 };
    let start = usize::try_from(position.byte()).unwrap_or(usize::MAX).min(text.len());
    let skipped = text.as_bytes()[start..].iter().take_while(|b| matches!(b, b'\r' | b'\n'));
    let lines = position.line() + skipped.filter(|b| **b == b'\n').count() as u64;
    u32::try_from(lines).unwrap_or(u32::MAX)
}

fn check_header(
    file: &Arc<str>,
    header: &[String],
    required: &[&str],
    optional: impl Fn(&str) -> bool,
) -> Result<(), Vec<RowError>> {
    let mut errors = Vec::new();
    if header.len() > COLUMNS_MAX {
        errors.push(RowError::new(
            (file, 1, ""),
            "",
            Fault::TooLarge,
            format!("表头有 {} 列，最多 {COLUMNS_MAX} 列", header.len()),
            format!("the header has {} columns, at most {COLUMNS_MAX} are read", header.len()),
        ));
        return Err(errors);
    }
    for (at, name) in header.iter().enumerate() {
        let place = (file, 1, name.as_str());
        if header[..at].contains(name) {
            errors.push(RowError::new(
                place,
                name,
                Fault::DuplicateColumn,
                format!("列“{name}”出现两次，请删去一列"),
                format!("column {name:?} stands twice: delete one"),
            ));
        } else if name.is_empty() || !(required.contains(&name.as_str()) || optional(name)) {
            errors.push(RowError::new(
                place,
                name,
                Fault::UnknownColumn,
                format!(
                    "没有名为“{name}”的列，请删去或改正列名；必需的列为 {}",
                    required.join(",")
                ),
                format!(
                    "there is no column {name:?}: delete it or correct its name; required are {}",
                    required.join(",")
                ),
            ));
        }
    }
    for name in required {
        if !header.iter().any(|h| h == name) {
            errors.push(RowError::new(
                (file, 1, name),
                "",
                Fault::MissingColumn,
                format!("缺少列“{name}”，请在表头中加上"),
                format!("column {name:?} is missing: add it to the header"),
            ));
        }
    }
    if errors.is_empty() { Ok(()) } else { Err(errors) }
}

fn check_shape(table: &Table, line: u32, record: &csv::StringRecord) -> Option<RowError> {
    let row = Row { table, line, record };
    let (have, want) = (record.len(), table.header.len());
    // Empty cells beyond the header are a spreadsheet's habit, not a mistake.
    let surplus = record.iter().skip(want).any(|cell| !cell.trim().is_empty());
    if have < want || surplus {
        return Some(RowError::new(
            (&table.file, line, ""),
            "",
            Fault::CellCount,
            format!("此行有 {have} 格，表头有 {want} 列，请检查逗号和引号"),
            format!("the row has {have} cells, the header {want}: check commas and quotes"),
        ));
    }
    for at in 0..want {
        let (column, cell) = (Column(Some(at)), row.cell_at(at));
        if cell.len() > CELL_BYTES_MAX {
            return Some(row.error(
                column,
                Fault::TooLarge,
                format!("单元格超过 {CELL_BYTES_MAX} 字节，请检查引号是否成对"),
                format!(
                    "the cell is longer than {CELL_BYTES_MAX} bytes: check that quotes are in pairs"
                ),
            ));
        }
        if cell.chars().any(char::is_control) {
            return Some(row.error(
                column,
                Fault::ControlCharacter,
                "单元格内有换行或控制字符，请检查引号是否成对",
                "the cell holds a line break or control character: check that quotes are in pairs",
            ));
        }
    }
    None
}

#[cfg(test)]
mod tests;
