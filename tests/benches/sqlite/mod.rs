//! The peer: every current value as a row of a SQLite table, clustered by facility and indexed by element.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result};
use banyan_aggregator::state::State;
use banyan_shared::organisation::UnitIx;
use banyan_shared::period::{Date, Period, PeriodType, Span};
use rusqlite::{Connection, OpenFlags, params};

/// `unit` carries what a question may group or choose by, on the last day; units are numbered in administrative
/// order, so that an area is a stretch of the clustered table. A period is its first day.
const SCHEMA: &str = "
PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; PRAGMA cache_size = -1000000;
CREATE TABLE unit (unit INTEGER PRIMARY KEY, code TEXT, child TEXT, county TEXT, city TEXT) STRICT;
CREATE TABLE member (network TEXT, unit INTEGER, PRIMARY KEY (network, unit)) STRICT, WITHOUT ROWID;
CREATE TABLE element (element INTEGER PRIMARY KEY, code TEXT) STRICT;
CREATE TABLE form (form INTEGER PRIMARY KEY, type TEXT) STRICT;
CREATE TABLE current (
    form INTEGER, period INTEGER, unit INTEGER, element INTEGER, value INTEGER,
    PRIMARY KEY (unit, period, form, element)
) STRICT, WITHOUT ROWID;
";
const INDEXES: &str = "
CREATE INDEX unit_county ON unit (county);
CREATE INDEX unit_city ON unit (city);
CREATE INDEX by_element ON current (element, period, unit, value);
ANALYZE;
";

/// Sums of all elements, or of one, over an area and a span.
pub(crate) struct Grouped {
    span: Span,
    area: Option<(&'static str, String)>,
    element: Option<String>,
    by: Option<&'static str>,
    every: Option<PeriodType>,
}

impl Grouped {
    pub(crate) fn of(span: &str) -> Grouped {
        let span = span.parse().expect("the span was written by us");
        Grouped { span, area: None, element: None, by: None, every: None }
    }

    pub(crate) fn in_county(self, code: &str) -> Grouped {
        Grouped { area: Some(("county", code.to_owned())), ..self }
    }

    pub(crate) fn in_city(self, code: &str) -> Grouped {
        Grouped { area: Some(("city", code.to_owned())), ..self }
    }

    pub(crate) fn in_network(self, code: &str) -> Grouped {
        Grouped { area: Some(("network", code.to_owned())), ..self }
    }

    pub(crate) fn element(self, code: &str) -> Grouped {
        Grouped { element: Some(code.to_owned()), ..self }
    }

    /// A column of `unit`.
    pub(crate) fn by(self, column: &'static str) -> Grouped {
        Grouped { by: Some(column), ..self }
    }

    pub(crate) fn by_day(self) -> Grouped {
        Grouped { every: Some(PeriodType::Day), ..self }
    }

    pub(crate) fn by_month(self) -> Grouped {
        Grouped { every: Some(PeriodType::Month), ..self }
    }

    fn sql(&self) -> String {
        let group = match (self.by, self.every) {
            (Some(column), _) => format!("u.{column}"),
            (None, Some(PeriodType::Day)) => "c.period".to_owned(),
            (None, Some(_)) => "strftime('%Y-%m', c.period * 86400, 'unixepoch')".to_owned(),
            (None, None) => "NULL".to_owned(),
        };
        let mut from = "current c".to_owned();
        let mut and = String::new();
        match &self.area {
            Some(("network", _)) => {
                from = "member m JOIN current c ON c.unit = m.unit".to_owned();
                and.push_str(" AND m.network = ?3");
            }
            Some((column, _)) => {
                from = "unit u JOIN current c ON c.unit = u.unit".to_owned();
                and.push_str(&format!(" AND u.{column} = ?3"));
            }
            None if self.by.is_some() => {
                from = "unit u JOIN current c ON c.unit = u.unit".to_owned()
            }
            // Otherwise all four parameters would not be named.
            None => and.push_str(" AND ?3 IS NULL"),
        }
        if self.by.is_some() && self.area.is_none() {
            and.push_str(" AND ?3 IS NULL");
        }
        match &self.element {
            Some(_) => {
                and.push_str(" AND c.element = (SELECT element FROM element WHERE code = ?4)")
            }
            None => and.push_str(" AND ?4 IS NULL"),
        }
        if self.every == Some(PeriodType::Day) {
            and.push_str(" AND c.form IN (SELECT form FROM form WHERE type = 'day')");
        }
        format!(
            "SELECT {group}, c.element, SUM(c.value), COUNT(*) FROM {from}
             WHERE c.period BETWEEN ?1 AND ?2{and} GROUP BY 1, 2"
        )
    }
}

/// The group (none for the whole), the element, the sum and how many values.
pub(crate) type Sum = (Option<String>, String, u64, u64);

pub(crate) struct Table {
    connection: Connection,
    elements: BTreeMap<i64, String>,
}

impl Table {
    /// Opens the table, which is made if it is not there.
    pub(crate) fn open(path: &Path, state: &State, day: Date) -> Result<Table> {
        if !path.exists() {
            let unfinished = path.with_extension("unfinished");
            match std::fs::remove_file(&unfinished) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(error.into());
                }
                _ => {}
            }
            fill(&unfinished, state, day)?;
            std::fs::rename(&unfinished, path)?;
        }
        let connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
        connection.execute_batch("PRAGMA cache_size = -1000000; PRAGMA mmap_size = 8000000000;")?;
        let mut select = connection.prepare("SELECT element, code FROM element")?;
        let elements = select
            .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?
            .collect::<Result<_, rusqlite::Error>>()?;
        drop(select);
        Ok(Table { connection, elements })
    }

    pub(crate) fn rows(&self) -> Result<u64> {
        Ok(self.connection.query_row("SELECT COUNT(*) FROM current", [], |row| row.get(0))?)
    }

    pub(crate) fn sums(&self, asked: &Grouped) -> Result<Vec<Sum>> {
        let mut select = self.connection.prepare_cached(&asked.sql())?;
        let (first, last) = (asked.span.first_day().days(), asked.span.last_day().days());
        let area = asked.area.as_ref().map(|(_, code)| code);
        let mut rows = select.query(params![first, last, area, asked.element])?;
        let mut sums = Vec::new();
        while let Some(row) = rows.next()? {
            let group = match row.get::<_, rusqlite::types::Value>(0)? {
                rusqlite::types::Value::Null => None,
                rusqlite::types::Value::Integer(day) => {
                    let date = Date::from_days(i32::try_from(day)?).context("a day")?;
                    Some(Period::day(date).to_string())
                }
                rusqlite::types::Value::Text(text) => Some(text),
                other => anyhow::bail!("{other:?} is no group"),
            };
            let element = self.elements[&row.get::<_, i64>(1)?].clone();
            sums.push((group, element, row.get(2)?, row.get(3)?));
        }
        Ok(sums)
    }
}

fn fill(path: &Path, state: &State, day: Date) -> Result<()> {
    let (organisation, catalogue) = (&state.organisation, &state.catalogue);
    let mut connection = Connection::open(path)?;
    connection.execute_batch(SCHEMA)?;
    let transaction = connection.transaction()?;
    let above = |unit: UnitIx, kind: &str| {
        let kind = catalogue.kind(kind)?;
        organisation.ancestor_of_kind(unit, kind, day)
    };
    for (at, element) in catalogue.elements.iter().enumerate() {
        transaction.execute(
            "INSERT INTO element VALUES (?1, ?2)",
            params![at as i64, element.code.as_str()],
        )?;
    }
    for network in organisation.networks() {
        for unit in organisation.facilities_in(network, day) {
            let code = organisation.network_code(network).as_str();
            transaction.execute("INSERT INTO member VALUES (?1, ?2)", params![code, unit.0])?;
        }
    }
    let mut units = transaction.prepare("INSERT INTO unit VALUES (?1, ?2, ?3, ?4, ?5)")?;
    let mut values = transaction.prepare("INSERT INTO current VALUES (?1, ?2, ?3, ?4, ?5)")?;
    let forms: Vec<_> = state.cube.forms().iter().collect();
    for (at, form) in forms.iter().enumerate() {
        let ix =
            catalogue.form(form.code().as_str()).context("the cube's forms are the catalogue's")?;
        let every = catalogue.forms[ix.at()].period_type.name();
        transaction.execute("INSERT INTO form VALUES (?1, ?2)", params![at as i64, every])?;
    }
    for unit in organisation.reporters() {
        let code = organisation.code(*unit);
        let text = |unit: Option<UnitIx>| unit.map(|unit| organisation.code(unit).to_string());
        let path = organisation.path(*unit, day);
        let child = above(*unit, "county")
            .and_then(|county| path.iter().skip_while(|at| **at != county).nth(1).copied());
        let (county, city) = (text(above(*unit, "county")), text(above(*unit, "city")));
        units.execute(params![unit.0, code.as_str(), text(child), county, city])?;
        let Some(facility) = state.cube.facility(code) else { continue };
        // In the order of the clustered table: filling it is writing it once.
        let mut rows: Vec<(i32, usize, usize, u64)> = Vec::new();
        for (at, form) in forms.iter().enumerate() {
            let Some(slot) = form.slot(facility) else { continue };
            let columns: Vec<usize> = form
                .columns()
                .iter()
                .map(|code| {
                    catalogue.element(code.as_str()).map_or(usize::MAX, |element| element.at())
                })
                .collect();
            for (period, block) in form.blocks() {
                for (column, element) in columns.iter().enumerate() {
                    if let Some(n) = block.value(column, slot).number() {
                        rows.push((period.first_day().days(), at, *element, n));
                    }
                }
            }
        }
        rows.sort_unstable();
        for (period, form, element, value) in rows {
            values.execute(params![form as i64, period, unit.0, element as i64, value])?;
        }
    }
    drop((units, values));
    transaction.commit()?;
    connection.execute_batch(INDEXES)?;
    connection.close().map_err(|(_, error)| error)?;
    Ok(())
}
