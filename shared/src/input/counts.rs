//! Files of counts, long (a row a cell) or wide (a row a report).

use std::collections::HashMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::value::{Bad, unguarded, unknown_element};
use super::{Reporters, Standing, parse_cell};
use crate::catalogue::{Catalogue, FormIx, Lang};
use crate::ids::UnitCode;
use crate::limits::PERSON_BYTES_MAX;
use crate::period::{Date, Period, PeriodError, PeriodType};
use crate::report::{How, Reason, Value};
use crate::tables::{ERRORS_MAX, Fault, Row, RowError, Table, read_open_table, read_table};

const KEY: [&str; 3] = ["facility", "form", "period"];
const LONG: [&str; 5] = ["facility", "form", "period", "element", "value"];
/// Columns of a file of refused rows beside the original ones; passed over when it is read again.
const REFUSED: [&str; 3] = ["error_line", "error_code", "error_reason"];
const LONG_OPTIONAL: [&str; 6] =
    ["how", "entered_by", "reason", REFUSED[0], REFUSED[1], REFUSED[2]];

/// What a file is read against.
#[derive(Clone, Copy, Debug)]
pub struct Reading<'a> {
    /// The catalogue in force.
    pub catalogue: &'a Catalogue,
    /// For whom counts are taken.
    pub enrolled: &'a dyn Reporters,
    /// Today, as far as known.
    pub today: Date,
    /// Whether the clock is trusted; else a future period is only a warning.
    pub clock_trusted: bool,
}

/// The counts of one report, as far as the file names them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CountsReport {
    /// Whom it is about.
    pub facility: UnitCode,
    /// The form.
    pub form: FormIx,
    /// The period, of the form's type.
    pub period: Period,
    /// (place of the line in the form, value), by place; an empty cell is [`Value::Missing`].
    pub cells: Vec<(usize, Value)>,
    /// How it was entered, if the file says.
    pub how: Option<How>,
    /// Who entered it, if the file says.
    pub entered_by: Option<String>,
    /// The reason of a correction, if the file says.
    pub reason: Option<Reason>,
    /// The first line that speaks of it.
    pub line: u32,
}

/// A row that was not taken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefusedRow {
    /// Its line.
    pub line: u32,
    /// Its cells as they stood.
    pub cells: Vec<String>,
    /// Everything wrong with it.
    pub errors: Vec<RowError>,
}

/// What a file holds.
#[derive(Clone, Debug)]
pub struct CountsFile {
    /// The reports of the good rows, in the order of their first lines.
    pub reports: Vec<CountsReport>,
    /// The rows refused, by line.
    pub refused: Vec<RefusedRow>,
    /// Errors of the file beside those of its rows, for example that it breaks off.
    pub errors: Vec<RowError>,
    /// What was accepted and should be looked at.
    pub warnings: Vec<RowError>,
    header: Vec<String>,
}

impl CountsFile {
    /// Every error of the file and its rows, by line; at most [`ERRORS_MAX`].
    pub fn all_errors(&self) -> Vec<&RowError> {
        let mut all: Vec<&RowError> =
            self.errors.iter().chain(self.refused.iter().flat_map(|row| &row.errors)).collect();
        all.sort_by_key(|error| error.line);
        all.truncate(ERRORS_MAX);
        all
    }

    /// The refused rows as a CSV file (UTF-8 with BOM, CRLF): the original columns, then `error_line`,
    /// `error_code` and `error_reason` in `lang`. None when no row was refused.
    ///
    /// Mended in place, the file can be read again as it is: those three columns are passed over.
    pub fn refused_csv(&self, lang: Lang) -> Option<Vec<u8>> {
        (!self.refused.is_empty()).then(|| refused_csv(&self.header, &self.refused, lang))
    }
}

/// Refused rows under their header as a CSV file; see [`CountsFile::refused_csv`].
pub fn refused_csv(header: &[String], refused: &[RefusedRow], lang: Lang) -> Vec<u8> {
    let mut writer = csv::WriterBuilder::new()
        .terminator(csv::Terminator::CRLF)
        .flexible(true)
        .from_writer(vec![0xef, 0xbb, 0xbf]);
    let kept: Vec<usize> =
        (0..header.len()).filter(|&at| !REFUSED.contains(&header[at].as_str())).collect();
    let names = kept.iter().map(|&at| header[at].as_str()).chain(REFUSED);
    writer.write_record(names).expect("a vector takes every write");
    for row in refused {
        let mut record: Vec<String> =
            kept.iter().map(|&at| row.cells.get(at).cloned().unwrap_or_default()).collect();
        let codes: Vec<&str> = row.errors.iter().map(|error| error.code.code()).collect();
        let said = row.errors.iter().map(|error| {
            let colon = if lang == Lang::Zh { "：" } else { ": " };
            let column = if error.column.is_empty() { "" } else { colon };
            format!("{}{column}{}", error.column, error.message.get(lang))
        });
        let between = if lang == Lang::Zh { "；" } else { "; " };
        record.push(row.line.to_string());
        record.push(codes.join(";"));
        record.push(said.collect::<Vec<_>>().join(between));
        // A row of too many cells keeps them all, after those that have a column.
        record.extend(row.cells.iter().skip(header.len()).cloned());
        writer.write_record(&record).expect("a vector takes every write");
    }
    writer.into_inner().expect("a vector takes every write")
}

/// Reads a file of counts, long or wide; which one, its header tells.
///
/// # Errors
/// Every error of the file as a whole: encoding, header (a wide file's unknown elements among them), limits.
/// Errors of single rows are in the result.
pub fn read_counts(
    bytes: &[u8],
    file: &str,
    reading: Reading<'_>,
) -> Result<CountsFile, Vec<RowError>> {
    let header_end = bytes.iter().position(|&b| b == b'\n').map_or(bytes.len(), |at| at + 1);
    let header = read_open_table(&bytes[..header_end], file, &[]).map(|table| table.header);
    let long = header.is_ok_and(|h| h.iter().any(|name| name == "element" || name == "value"));
    let table = if long {
        read_table(bytes, file, &LONG, &LONG_OPTIONAL)?
    } else {
        read_open_table(bytes, file, &KEY)?
    };
    read_rows(&table, long, reading)
}

/// Reads counts from rows taken apart before, each with its line: a part of a file that holds all rows of
/// the reports in it.
///
/// # Errors
/// As [`read_counts`].
pub fn read_counts_rows(
    file: &str,
    header: Vec<String>,
    rows: Vec<(u32, Vec<String>)>,
    reading: Reading<'_>,
) -> Result<CountsFile, Vec<RowError>> {
    let long = header.iter().any(|name| name == "element" || name == "value");
    let table = if long {
        Table::of_rows(file, header, rows, &LONG, |name| LONG_OPTIONAL.contains(&name))?
    } else {
        Table::of_rows(file, header, rows, &KEY, |_| true)?
    };
    read_rows(&table, long, reading)
}

fn read_rows(table: &Table, long: bool, reading: Reading<'_>) -> Result<CountsFile, Vec<RowError>> {
    if !long {
        check_elements(table, reading.catalogue)?;
    }
    let mut reader = Reader::new(table, reading);
    for row in table.rows() {
        if long { reader.long(row) } else { reader.wide(row) }
    }
    Ok(reader.finish())
}

fn check_elements(table: &Table, catalogue: &Catalogue) -> Result<(), Vec<RowError>> {
    let unknown = |name: &&String| {
        let name = name.as_str();
        !KEY.contains(&name) && !REFUSED.contains(&name) && catalogue.element(name).is_none()
    };
    let errors: Vec<RowError> = table
        .header
        .iter()
        .filter(unknown)
        .map(|name| {
            let bad = unknown_element(catalogue, name);
            RowError::new((&table.file, 1, name), name, bad.code, bad.message.zh, bad.message.en)
        })
        .collect();
    if errors.is_empty() { Ok(()) } else { Err(errors) }
}

type Key = (UnitCode, FormIx, Period);

struct Reader<'t, 'a> {
    table: &'t Table,
    reading: Reading<'a>,
    reports: Vec<CountsReport>,
    /// Where each report stands in `reports`, and what its facility is then.
    places: HashMap<Key, (usize, Standing)>,
    /// The line each cell was read from: (report, line of the form) → line of the file.
    read_from: HashMap<(usize, usize), u32>,
    refused: Vec<RefusedRow>,
    warnings: Vec<RowError>,
}

impl<'t, 'a> Reader<'t, 'a> {
    fn new(table: &'t Table, reading: Reading<'a>) -> Self {
        Reader {
            table,
            reading,
            reports: Vec::new(),
            places: HashMap::new(),
            read_from: HashMap::new(),
            refused: Vec::new(),
            warnings: Vec::new(),
        }
    }

    fn bad(&self, row: Row<'_>, column: &str, value: &str, bad: Bad) -> RowError {
        let place = (&self.table.file, row.line(), column);
        RowError::new(place, value, bad.code, bad.message.zh, bad.message.en)
    }

    fn refuse(&mut self, row: Row<'_>, errors: Vec<RowError>) {
        let cells = row.cells().map(str::to_owned).collect();
        self.refused.push(RefusedRow { line: row.line(), cells, errors });
    }

    /// Facility, form and period of a row, and what the facility is then.
    fn key(&self, row: Row<'_>, errors: &mut Vec<RowError>) -> Option<(Key, Standing)> {
        let catalogue = self.reading.catalogue;
        let [facility, form, period] = KEY.map(|name| self.table.column(name));
        let code = match unguarded(row.cell(facility)).parse::<UnitCode>() {
            Ok(code) => Some(code),
            Err(_) => row.required::<UnitCode>(facility, Fault::BadCode, errors),
        };
        let code = code.and_then(|code| {
            let known = self.reading.enrolled.facility(code.as_str());
            known.map_err(|bad| errors.push(self.bad(row, KEY[0], code.as_str(), bad))).ok()
        });
        let form_text = unguarded(row.cell(form));
        let form_ix = catalogue.form(form_text);
        if form_ix.is_none() {
            let codes: Vec<&str> = catalogue.forms.iter().map(|f| f.code.as_str()).collect();
            let (fault, codes) = match form_text {
                "" => (Fault::Empty, codes.join(" ")),
                _ => (Fault::UnknownForm, codes.join(" ")),
            };
            errors.push(row.error(
                form,
                fault,
                format!("目录中没有该报表，请从以下代码中选择：{codes}"),
                format!("the catalogue has no such form: choose one of {codes}"),
            ));
        }
        let when = match row.cell(period).parse::<Period>() {
            Ok(when) => Some(when),
            Err(error) => {
                errors.push(self.bad(row, KEY[2], row.cell(period), bad_period(&error)));
                None
            }
        };
        if let (Some(ix), Some(when)) = (form_ix, when) {
            let wanted = catalogue.forms[ix.at()].period_type;
            if when.kind() != wanted {
                let (zh, example) = describe(wanted);
                errors.push(row.error(
                    period,
                    Fault::WrongPeriodType,
                    format!("报表 {form_text} 按{zh}填报，统计期请写作 {example} 的样式"),
                    format!(
                        "form {form_text} is reported by {wanted}: write the period like {example}"
                    ),
                ));
                return None;
            }
        }
        if let Some(when) =
            when.filter(|when| self.reading.clock_trusted && when.first_day() > self.reading.today)
        {
            errors.push(row.error(
                period,
                Fault::FuturePeriod,
                format!("统计期 {when} 尚未开始（今天是 {}），请核对日期", self.reading.today),
                format!("{when} has not begun (today is {}): check the date", self.reading.today),
            ));
            return None;
        }
        let (code, ix, when) = (code?, form_ix?, when?);
        let key = (code, ix, when);
        if let Some((_, standing)) = self.places.get(&key) {
            return Some((key, standing.clone()));
        }
        let standing = self.reading.enrolled.standing(catalogue, key.0.as_str(), when)?;
        if !standing.open && self.reading.enrolled.at_centre() {
            errors.push(row.error(
                period,
                Fault::FacilityClosed,
                format!("{} 在 {when} 没有开业的日子，请核对机构和统计期，或先更新登记册", key.0),
                format!(
                    "{} has no day on which it is open in {when}: check facility and period, or mend the registry first",
                    key.0
                ),
            ));
            return None;
        }
        let kinds = &catalogue.forms[ix.at()].kinds;
        if standing.facts.as_ref().is_some_and(|facts| !kinds.contains(&facts.kind)) {
            errors.push(row.error(
                form,
                Fault::FormNotForKind,
                format!("{} 该类机构不填报表 {form_text}，请核对机构和报表", standing.day),
                format!("this kind of facility does not report {form_text} on {}: check facility and form", standing.day),
            ));
            return None;
        }
        Some((key, standing))
    }

    /// Where the report of `key` stands, made and warned about when it is new.
    fn report(&mut self, row: Row<'_>, key: Key, standing: Standing) -> usize {
        if let Some((at, _)) = self.places.get(&key) {
            return *at;
        }
        let at = self.reports.len();
        let (facility, form, period) = key.clone();
        if !standing.open {
            self.warnings.push(row.error(
                self.table.column(KEY[2]),
                Fault::FacilityClosed,
                format!("{facility} 在 {period} 未开业或未登记：已保存，但在中心登记之前不计入汇总"),
                format!("{facility} is not open in {period}: kept, but not counted until the centre's registry says so"),
            ));
        }
        if period.first_day() > self.reading.today {
            self.warnings.push(row.error(
                self.table.column(KEY[2]),
                Fault::FuturePeriod,
                format!("按本机时钟，{period} 尚未开始；时钟不可靠，请核对日期"),
                format!("by this machine's clock {period} has not begun; the clock is in doubt, check the date"),
            ));
        }
        let line = row.line();
        self.reports.push(CountsReport {
            facility,
            form,
            period,
            cells: Vec::new(),
            how: None,
            entered_by: None,
            reason: None,
            line,
        });
        self.places.insert(key, (at, standing));
        at
    }

    fn long(&mut self, row: Row<'_>) {
        let [element, value] = [LONG[3], LONG[4]].map(|name| self.table.column(name));
        let name = unguarded(row.cell(element));
        let mut errors = Vec::new();
        let key = self.key(row, &mut errors);
        let (how, entered_by, reason) = self.circumstances(row, &mut errors);
        let mut cell = None;
        if let Some((key, standing)) = &key {
            let catalogue = self.reading.catalogue;
            match parse_cell(catalogue, key.1, standing, name, row.cell(value)) {
                Ok(read) => cell = Some(read),
                Err(bad) => {
                    let about_element = matches!(
                        bad.code,
                        Fault::UnknownElement | Fault::NotInForm | Fault::NotAsked
                    );
                    let column = if about_element { element } else { value };
                    errors.push(self.bad(row, row.name(column), row.cell(column), bad));
                }
            }
        } else {
            // Whatever else is wrong is said now, not after the first mistake is mended.
            if self.reading.catalogue.element(name).is_none() {
                let bad = unknown_element(self.reading.catalogue, name);
                errors.push(self.bad(row, LONG[3], name, bad));
            }
            if let Err(bad) = super::parse_value(row.cell(value)) {
                errors.push(self.bad(row, LONG[4], row.cell(value), bad));
            }
        }
        if let (Some((key, _)), Some((at, _))) = (&key, &cell) {
            self.check_repeat(row, key, *at, (how, &entered_by, reason), &mut errors);
        }
        match (key, cell) {
            (Some((key, standing)), Some((place, value))) if errors.is_empty() => {
                let at = self.report(row, key, standing);
                self.read_from.insert((at, place), row.line());
                let report = &mut self.reports[at];
                report.cells.push((place, value));
                report.how = report.how.or(how);
                report.reason = report.reason.or(reason);
                report.entered_by = report.entered_by.take().or(entered_by);
            }
            _ => self.refuse(row, errors),
        }
    }

    /// Whether a row of a long file says what an earlier one said, or other circumstances of the same report.
    fn check_repeat(
        &self,
        row: Row<'_>,
        key: &Key,
        place: usize,
        (how, entered_by, reason): (Option<How>, &Option<String>, Option<Reason>),
        errors: &mut Vec<RowError>,
    ) {
        let Some((at, _)) = self.places.get(key) else { return };
        if let Some(first) = self.read_from.get(&(*at, place)) {
            errors.push(duplicate(row, self.table, LONG[3], *first));
        }
        let report = &self.reports[*at];
        let differs = [
            ("how", how.is_some() && report.how.is_some() && how != report.how),
            (
                "entered_by",
                entered_by.is_some()
                    && report.entered_by.is_some()
                    && *entered_by != report.entered_by,
            ),
            ("reason", reason.is_some() && report.reason.is_some() && reason != report.reason),
        ];
        for (name, _) in differs.iter().filter(|(_, differs)| *differs) {
            errors.push(row.error(
                self.table.column(name),
                Fault::Conflict,
                format!("同一报表的 {name} 与第{}行起的各行不同，请改为一致", report.line),
                format!(
                    "{name} differs from the same report's on line {}: make them agree",
                    report.line
                ),
            ));
        }
    }

    fn circumstances(
        &self,
        row: Row<'_>,
        errors: &mut Vec<RowError>,
    ) -> (Option<How>, Option<String>, Option<Reason>) {
        let [how, by, reason] = ["how", "entered_by", "reason"].map(|name| self.table.column(name));
        let choices = |codes: Vec<&str>| codes.join(" ");
        let taken = |how: &How| *how != How::Operator || self.reading.enrolled.at_centre();
        let read_how = match row.cell(how) {
            "" => None,
            text => How::from_code(text).filter(taken).or_else(|| {
                let codes = How::ALL.iter().filter(|how| taken(how));
                let codes = choices(codes.map(|how| how.code()).collect());
                errors.push(row.error(
                    how,
                    Fault::BadChoice,
                    format!("请从以下代码中选择：{codes}"),
                    format!("choose one of {codes}"),
                ));
                None
            }),
        };
        let read_reason = match row.cell(reason) {
            "" => None,
            text => Reason::from_code(text).or_else(|| {
                let codes = choices(Reason::ALL.iter().map(|reason| reason.code()).collect());
                errors.push(row.error(
                    reason,
                    Fault::BadChoice,
                    format!("请从以下代码中选择：{codes}"),
                    format!("choose one of {codes}"),
                ));
                None
            }),
        };
        let read_by = Some(unguarded(row.cell(by))).filter(|text| !text.is_empty());
        if read_by.is_some_and(|text| text.len() > PERSON_BYTES_MAX) {
            errors.push(row.error(
                by,
                Fault::TooLarge,
                format!("录入人代码超过 {PERSON_BYTES_MAX} 字节，请缩短"),
                format!("the staff code is longer than {PERSON_BYTES_MAX} bytes: shorten it"),
            ));
        }
        (read_how, read_by.map(str::to_owned), read_reason)
    }

    fn wide(&mut self, row: Row<'_>) {
        let catalogue = self.reading.catalogue;
        let mut errors = Vec::new();
        let key = self.key(row, &mut errors);
        let mut cells = Vec::new();
        for (at, name) in self.table.header.iter().enumerate() {
            if KEY.contains(&name.as_str()) || REFUSED.contains(&name.as_str()) {
                continue;
            }
            let text = row.cell_at(at);
            let read = match &key {
                Some((key, standing)) => {
                    match parse_cell(catalogue, key.1, standing, name, text) {
                        // A file for several forms has empty cells where a form has no such element.
                        Err(bad) if bad.code == Fault::NotInForm && text.is_empty() => continue,
                        read => read.map(Some),
                    }
                }
                None => super::parse_value(text).map(|_| None),
            };
            match read {
                Ok(cell) => cells.extend(cell),
                Err(bad) => errors.push(self.bad(row, name, text, bad)),
            }
        }
        if let Some((at, _)) = key.as_ref().and_then(|(key, _)| self.places.get(key)) {
            errors.push(duplicate(row, self.table, "", self.reports[*at].line));
        }
        match key {
            Some((key, standing)) if errors.is_empty() => {
                let at = self.report(row, key, standing);
                self.reports[at].cells = cells;
            }
            _ => self.refuse(row, errors),
        }
    }

    fn finish(mut self) -> CountsFile {
        for report in &mut self.reports {
            report.cells.sort_unstable_by_key(|(place, _)| *place);
        }
        // Rows of the wrong shape: the table has their errors in the same order, up to its limit.
        let mut errors = Vec::new();
        let mut rest = self.table.errors.iter().peekable();
        for (line, cells) in &self.table.refused {
            while let Some(error) = rest.next_if(|error| error.line < *line) {
                errors.push(error.clone());
            }
            let own = rest.next_if(|error| error.line == *line).cloned().unwrap_or_else(|| {
                RowError::new(
                    (&self.table.file, *line, ""),
                    "",
                    Fault::CellCount,
                    "此行的格式与表头不符，请检查逗号和引号",
                    "the row does not fit the header: check commas and quotes",
                )
            });
            self.refused.push(RefusedRow { line: *line, cells: cells.clone(), errors: vec![own] });
        }
        errors.extend(rest.cloned());
        self.refused.sort_by_key(|row| row.line);
        CountsFile {
            reports: self.reports,
            refused: self.refused,
            errors,
            warnings: self.warnings,
            header: self.table.header.clone(),
        }
    }
}

fn duplicate(row: Row<'_>, table: &Table, column: &str, first: u32) -> RowError {
    let value = if column.is_empty() { "" } else { row.cell(table.column(column)) };
    let file: &Arc<str> = &table.file;
    RowError::new(
        (file, row.line(), column),
        value,
        Fault::Duplicate,
        format!(
            "与第{first}行重复：同一机构、报表、统计期的同一项只能出现一次，已采用第{first}行，请核对后删去一行"
        ),
        format!(
            "repeats line {first}, which was taken: one facility, form, period and element may stand once only; check both and delete one"
        ),
    )
}

fn describe(kind: PeriodType) -> (&'static str, &'static str) {
    match kind {
        PeriodType::Day => ("日", "2026-01-31"),
        PeriodType::Week => ("周", "2026W05"),
        PeriodType::Month => ("月", "2026-01"),
        PeriodType::Quarter => ("季", "2026Q1"),
        PeriodType::Half => ("半年", "2026S1"),
        PeriodType::Year => ("年", "2026"),
    }
}

fn bad_period(error: &PeriodError) -> Bad {
    let zh = match error {
        PeriodError::Impossible { text, .. } => {
            format!("日历上没有 {text}，请核对年、月、日")
        }
        _ => "不是统计期，请写作 2026-01-31、2026W05、2026-01、2026Q1、2026S1 或 2026 的样式"
            .to_owned(),
    };
    Bad::new(
        Fault::BadDate,
        zh,
        format!(
            "{error}; write a period like 2026-01-31, 2026W05, 2026-01, 2026Q1, 2026S1 or 2026"
        ),
    )
}
