//! Reading TOML entries key by key: every fault is reported with entry and line, none stops the reading.

use std::cell::RefCell;
use std::str::FromStr;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::Text;
use super::error::{CatalogueError, Problem};
use crate::ids::InvalidId;
use crate::period::Date;

/// Most faults reported at once.
pub(super) const ERRORS_MAX: usize = 500;
/// Longest text of any key, in characters.
pub(super) const TEXT_CHARS_MAX: usize = 2_000;

/// The document being read and the faults found so far.
pub(super) struct Document {
    /// Byte offsets at which lines begin.
    starts: Vec<usize>,
    errors: RefCell<Vec<CatalogueError>>,
}

impl Document {
    pub(super) fn new(text: &str) -> Document {
        let mut starts = vec![0];
        starts.extend(text.bytes().enumerate().filter(|(_, b)| *b == b'\n').map(|(at, _)| at + 1));
        Document { starts, errors: RefCell::default() }
    }

    pub(super) fn line(&self, at: usize) -> usize {
        self.starts.partition_point(|start| *start <= at)
    }

    pub(super) fn report(&self, place: &Place, column: Option<usize>, problem: Problem) {
        let mut errors = self.errors.borrow_mut();
        if errors.len() < ERRORS_MAX {
            errors.push(CatalogueError {
                entry: place.entry.clone(),
                line: place.line,
                column,
                problem,
            });
        }
    }

    pub(super) fn into_errors(self) -> Vec<CatalogueError> {
        let mut errors = self.errors.into_inner();
        errors.sort_by_key(|error| error.line);
        errors.dedup();
        errors
    }

    pub(super) fn has_errors(&self) -> bool {
        !self.errors.borrow().is_empty()
    }
}

/// Where something stands: for messages.
#[derive(Clone, Debug, Default)]
pub(super) struct Place {
    pub(super) entry: String,
    pub(super) line: Option<usize>,
}

/// One table being read. Keys asked for are the known ones; [`Fields::finish`] reports all others.
pub(super) struct Fields<'a> {
    pub(super) doc: &'a Document,
    pub(super) place: Place,
    table: &'a DeTable<'a>,
    known: RefCell<Vec<&'static str>>,
}

fn sort_of(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "string",
        DeValue::Integer(_) => "integer",
        DeValue::Float(_) => "float",
        DeValue::Boolean(_) => "boolean",
        DeValue::Datetime(_) => "date",
        DeValue::Array(_) => "array",
        DeValue::Table(_) => "table",
    }
}

impl<'a> Fields<'a> {
    pub(super) fn new(doc: &'a Document, table: &'a DeTable<'a>, place: Place) -> Fields<'a> {
        Fields { doc, place, table, known: RefCell::default() }
    }

    pub(super) fn report(&self, problem: Problem) {
        self.doc.report(&self.place, None, problem);
    }

    /// Reports a fault in the value of `key`, at that value's line.
    pub(super) fn report_at(&self, key: &str, column: Option<usize>, problem: Problem) {
        let mut place = self.place.clone();
        if let Some(value) = self.table.get(key) {
            place.line = Some(self.doc.line(value.span().start));
        }
        self.doc.report(&place, column, problem);
    }

    pub(super) fn has(&self, key: &'static str) -> bool {
        self.raw(key).is_some()
    }

    fn raw(&self, key: &'static str) -> Option<&'a Spanned<DeValue<'a>>> {
        self.known.borrow_mut().push(key);
        self.table.get(key)
    }

    fn wrong(&self, key: &'static str, value: &DeValue<'_>, wanted: &'static str) {
        let found = sort_of(value);
        self.report_at(key, None, Problem::WrongType { key: key.to_owned(), found, wanted });
    }

    fn missing(&self, key: &'static str) {
        self.report(Problem::MissingKey { key: key.to_owned() });
    }

    /// A text that may be left out; an empty one is reported.
    pub(super) fn text(&self, key: &'static str) -> Option<&'a str> {
        let value = self.raw(key)?.get_ref();
        let Some(text) = value.as_str() else {
            self.wrong(key, value, "a string");
            return None;
        };
        if text.trim().is_empty() {
            self.report_at(key, None, Problem::Empty { key: key.to_owned() });
            return None;
        }
        if text.chars().count() > TEXT_CHARS_MAX {
            self.report_at(
                key,
                None,
                Problem::TooMany { what: "characters", limit: TEXT_CHARS_MAX },
            );
            return None;
        }
        Some(text)
    }

    /// A text that must be there.
    pub(super) fn need_text(&self, key: &'static str) -> Option<&'a str> {
        let found = self.text(key);
        if !self.has(key) {
            self.missing(key);
        }
        found
    }

    /// A code that must be there.
    pub(super) fn code<C: FromStr<Err = InvalidId>>(&self, key: &'static str) -> Option<C> {
        let text = self.need_text(key)?;
        match text.parse() {
            Ok(code) => Some(code),
            Err(error) => {
                let error: InvalidId = error;
                self.report_at(
                    key,
                    None,
                    Problem::BadCode {
                        key: key.to_owned(),
                        reason: format!("{text:?} {}", error.reason),
                    },
                );
                None
            }
        }
    }

    /// A name in both languages, which must be there.
    pub(super) fn name(&self, key: &'static str) -> Text {
        let Some(value) = self.raw(key) else {
            self.missing(key);
            return Text::default();
        };
        let Some(table) = value.get_ref().as_table() else {
            self.wrong(key, value.get_ref(), "a table { zh = \"…\", en = \"…\" }");
            return Text::default();
        };
        let entry = join(&self.place.entry, key);
        let line = Some(self.doc.line(value.span().start));
        let fields = Fields::new(self.doc, table, Place { entry, line });
        let text = |key| fields.need_text(key).unwrap_or_default().to_owned();
        let name = Text { zh: text("zh"), en: text("en") };
        fields.finish();
        name
    }

    pub(super) fn flag(&self, key: &'static str, default: bool) -> bool {
        let Some(value) = self.raw(key) else { return default };
        value.get_ref().as_bool().unwrap_or_else(|| {
            self.wrong(key, value.get_ref(), "true or false");
            default
        })
    }

    /// A whole number from `low` to `high`, if there.
    pub(super) fn number(&self, key: &'static str, low: u64, high: u64) -> Option<u64> {
        let value = self.raw(key)?.get_ref();
        let Some(integer) = value.as_integer() else {
            self.wrong(key, value, "a whole number");
            return None;
        };
        let number = u64::from_str_radix(integer.as_str(), integer.radix()).ok();
        let number = number.filter(|n| (low..=high).contains(n));
        if number.is_none() {
            self.report_at(key, None, Problem::OutOfRange { key: key.to_owned(), low, high });
        }
        number
    }

    /// A share from 0 to 1 with up to three decimals, in thousandths, if there.
    pub(super) fn thousandths(&self, key: &'static str) -> Option<u16> {
        let value = self.raw(key)?.get_ref();
        let text = match value {
            DeValue::Float(float) => float.as_str(),
            DeValue::Integer(integer) if integer.radix() == 10 => integer.as_str(),
            other => {
                self.wrong(key, other, "a number from 0 to 1");
                return None;
            }
        };
        let (whole, decimals) = text.split_once('.').unwrap_or((text, "0"));
        let digits = decimals.len() <= 3 && decimals.bytes().all(|b| b.is_ascii_digit());
        let found = format!("{whole}{decimals:0<3}").parse::<u16>().ok();
        let found = found.filter(|&n| digits && n <= 1000);
        if found.is_none() {
            let (value, allowed) = (text.to_owned(), "0 – 1, 0.001".to_owned());
            self.report_at(key, None, Problem::NotAllowed { key: key.to_owned(), value, allowed });
        }
        found
    }

    /// A day, as a TOML date or a string, if there.
    pub(super) fn date(&self, key: &'static str) -> Option<Date> {
        let value = self.raw(key)?.get_ref();
        let text = match value {
            DeValue::Datetime(datetime) => datetime.to_string(),
            DeValue::String(text) => text.to_string(),
            other => {
                self.wrong(key, other, "a date such as 2026-01-31");
                return None;
            }
        };
        text.parse()
            .map_err(|error: crate::period::PeriodError| {
                let reason = error.to_string();
                self.report_at(key, None, Problem::BadDate { key: key.to_owned(), reason });
            })
            .ok()
    }

    /// `from` and `to`, in order.
    pub(super) fn dates(&self) -> (Option<Date>, Option<Date>) {
        let (from, to) = (self.date("from"), self.date("to"));
        if let (Some(from), Some(to)) = (from, to)
            && to <= from
        {
            let (from, to) = (from.to_string(), to.to_string());
            self.report_at("to", None, Problem::DatesReversed { from, to });
        }
        (from, to)
    }

    /// One of the given words, if there.
    pub(super) fn choice<T: Copy>(&self, key: &'static str, choices: &[(&str, T)]) -> Option<T> {
        let text = self.text(key)?;
        let found = choices.iter().find(|(name, _)| *name == text).map(|(_, value)| *value);
        if found.is_none() {
            let allowed: Vec<&str> = choices.iter().map(|(name, _)| *name).collect();
            let (value, allowed) = (text.to_owned(), allowed.join(", "));
            self.report_at(key, None, Problem::NotAllowed { key: key.to_owned(), value, allowed });
        }
        found
    }

    /// One of the given words, which must be there.
    pub(super) fn need_choice<T: Copy>(
        &self,
        key: &'static str,
        choices: &[(&str, T)],
    ) -> Option<T> {
        if !self.has(key) {
            self.missing(key);
        }
        self.choice(key, choices)
    }

    /// A list of texts; nothing where it is left out.
    pub(super) fn texts(&self, key: &'static str) -> Vec<&'a str> {
        let Some(value) = self.raw(key) else { return Vec::new() };
        let Some(array) = value.get_ref().as_array() else {
            self.wrong(key, value.get_ref(), "an array of strings");
            return Vec::new();
        };
        let mut texts = Vec::new();
        for item in array.iter() {
            match item.get_ref().as_str() {
                Some(text) if !texts.contains(&text) => texts.push(text),
                Some(text) => {
                    self.report_at(key, None, Problem::Duplicate { code: text.to_owned() })
                }
                None => self.wrong(key, item.get_ref(), "an array of strings"),
            }
        }
        texts
    }

    /// A table of texts; nothing where it is left out.
    pub(super) fn pairs(&self, key: &'static str) -> Vec<(String, String)> {
        let Some(value) = self.raw(key) else { return Vec::new() };
        let Some(table) = value.get_ref().as_table() else {
            self.wrong(key, value.get_ref(), "a table of strings");
            return Vec::new();
        };
        let mut pairs = Vec::new();
        for (name, value) in table {
            match value.get_ref().as_str() {
                Some(text) => pairs.push((name.get_ref().to_string(), text.to_owned())),
                None => self.wrong(key, value.get_ref(), "a table of strings"),
            }
        }
        pairs
    }

    /// A table, if there.
    pub(super) fn table(&self, key: &'static str) -> Option<Fields<'a>> {
        let value = self.raw(key)?;
        let Some(table) = value.get_ref().as_table() else {
            self.wrong(key, value.get_ref(), "a table");
            return None;
        };
        let line = Some(self.doc.line(value.span().start));
        Some(Fields::new(self.doc, table, Place { entry: join(&self.place.entry, key), line }))
    }

    /// The tables of an array of at most `limit`, each named by its code at the top (`[[form]] vc_daily`)
    /// and by its place below (`line 3`).
    pub(super) fn tables(&self, key: &'static str, limit: usize) -> Vec<Fields<'a>> {
        let Some(value) = self.raw(key) else { return Vec::new() };
        let Some(array) = value.get_ref().as_array() else {
            self.wrong(key, value.get_ref(), "an array of tables");
            return Vec::new();
        };
        if array.len() > limit {
            self.report_at(key, None, Problem::TooMany { what: key, limit });
        }
        let mut tables = Vec::new();
        for (n, item) in array.iter().take(limit).enumerate() {
            let Some(table) = item.get_ref().as_table() else {
                self.wrong(key, item.get_ref(), "an array of tables");
                continue;
            };
            let code = table.get("code").and_then(|code| code.get_ref().as_str());
            let entry = match (self.place.entry.is_empty(), code) {
                (true, Some(code)) => format!("[[{key}]] {code}"),
                (true, None) => format!("[[{key}]] #{}", n + 1),
                (false, _) => format!("{} {key} {}", self.place.entry, n + 1),
            };
            let line = Some(self.doc.line(item.span().start));
            tables.push(Fields::new(self.doc, table, Place { entry, line }));
        }
        tables
    }

    /// Reports every key nobody asked for.
    pub(super) fn finish(&self) {
        let mut known = self.known.borrow().clone();
        known.sort_unstable();
        known.dedup();
        for (name, value) in self.table {
            if !known.contains(&name.get_ref().as_ref()) {
                let (key, known) = (name.get_ref().to_string(), known.join(", "));
                let line = Some(self.doc.line(value.span().start));
                let place = Place { entry: self.place.entry.clone(), line };
                self.doc.report(&place, None, Problem::UnknownKey { key, known });
            }
        }
    }
}

fn join(entry: &str, key: &str) -> String {
    if entry.is_empty() { key.to_owned() } else { format!("{entry} {key}") }
}
