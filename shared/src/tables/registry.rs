//! The typed rows of the registry's tables: units, attributes, networks, members, duties, extensions,
//! calendar, targets, codes, contacts.
//!
//! Promises that every cell is well formed; whether references resolve and rows agree with each other
//! is checked by [`crate::organisation::Organisation::build`]. Headers are those of `docs/formats.md`.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Column, Fault, Row, RowError, Table, read_table};
use crate::ids::{
    AttributeCode, FormCode, IndicatorCode, KindCode, NetworkCode, NetworkKindCode, RoleCode,
    UnitCode,
};
use crate::period::{Date, Span};

/// Separates several codes in one cell.
pub const LIST_SEPARATOR: char = ';';
/// The role that takes a unit out of a network it would otherwise be in.
pub const ROLE_NONE: &str = "none";

/// Which table a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TableName {
    /// `units.csv`
    Units,
    /// `attributes.csv`
    Attributes,
    /// `networks.csv`
    Networks,
    /// `members.csv`
    Members,
    /// `duties.csv`
    Duties,
    /// `extensions.csv`
    Extensions,
    /// `calendar.csv`
    Calendar,
    /// `targets.csv`
    Targets,
    /// `codes.csv`
    Codes,
    /// `contacts.csv`
    Contacts,
}

impl TableName {
    /// Every table, in the order they are read.
    pub const ALL: [TableName; 10] = [
        TableName::Units,
        TableName::Attributes,
        TableName::Networks,
        TableName::Members,
        TableName::Duties,
        TableName::Extensions,
        TableName::Calendar,
        TableName::Targets,
        TableName::Codes,
        TableName::Contacts,
    ];

    /// The usual file name, for example `units.csv`.
    pub fn file_name(self) -> &'static str {
        match self {
            TableName::Units => "units.csv",
            TableName::Attributes => "attributes.csv",
            TableName::Networks => "networks.csv",
            TableName::Members => "members.csv",
            TableName::Duties => "duties.csv",
            TableName::Extensions => "extensions.csv",
            TableName::Calendar => "calendar.csv",
            TableName::Targets => "targets.csv",
            TableName::Codes => "codes.csv",
            TableName::Contacts => "contacts.csv",
        }
    }

    /// The columns the file must have and those it may leave out.
    pub fn columns(self) -> (&'static [&'static str], &'static [&'static str]) {
        match self {
            TableName::Units => (
                &["code", "name", "kind", "parent", "opened", "closed"],
                &["status", "succeeded_by", "name_en"],
            ),
            TableName::Attributes => (&["unit", "attribute", "value", "from", "to"], &[]),
            TableName::Networks => {
                (&["code", "name", "kind", "area"], &["opened", "closed", "status"])
            }
            TableName::Members => {
                (&["network", "unit", "role", "from", "to"], &["kinds", "primary", "basis"])
            }
            TableName::Duties => (&["form", "unit", "from", "to"], &[]),
            TableName::Extensions => (&["form", "unit", "period", "due", "reason"], &[]),
            TableName::Calendar => (&["unit", "date", "day", "name"], &[]),
            TableName::Targets => (
                &[
                    "indicator",
                    "unit",
                    "level",
                    "attribute",
                    "direction",
                    "low",
                    "high",
                    "from",
                    "to",
                    "source",
                    "status",
                ],
                &[],
            ),
            TableName::Codes => (&["scheme", "type", "code", "external", "option"], &[]),
            TableName::Contacts => (&["unit", "name", "phone", "from", "to"], &[]),
        }
    }
}

macro_rules! choices {
    ($($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $code:literal,)* })*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(rename_all = "lowercase")]
        pub enum $name { $($(#[$vdoc])* $variant,)* }

        impl $name {
            /// The word used in files.
            pub fn code(self) -> &'static str {
                match self { $($name::$variant => $code,)* }
            }
            const CODES: &'static [&'static str] = &[$($code,)*];
            fn from_code(code: &str) -> Option<$name> {
                match code { $($code => Some($name::$variant),)* _ => None }
            }
        }
    )*};
}

choices! {
    /// Whether a unit or network works or is only planned.
    Status {
        /// In force between its dates.
        Active = "active",
        /// Visible, never expected and never in totals.
        Planned = "planned",
    }
    /// What a calendar row says of a day.
    DayKind {
        /// A working day.
        Working = "working",
        /// A day off.
        Off = "off",
    }
    /// Which way a target points.
    Direction {
        /// At least `low`.
        Up = "up",
        /// At most `high`.
        Down = "down",
        /// Between `low` and `high`.
        Within = "within",
        /// Only watched.
        Watch = "watch",
    }
    /// How far a target can be relied on.
    TargetStatus {
        /// Published by an authority.
        Official = "official",
        /// Taken from a source of the seeds.
        Seed = "seed",
        /// From a draft for comment.
        Draft = "draft",
        /// Proposed by this project.
        Proposal = "proposal",
        /// Set by the operator.
        Own = "own",
    }
    /// What kind of thing an external code names.
    CodeType {
        /// A unit.
        Unit = "unit",
        /// An element.
        Element = "element",
        /// A form.
        Form = "form",
        /// A network.
        Network = "network",
    }
}

/// A row of `units.csv`: one spell of a unit, or one dated name, kind or parent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnitRow {
    /// Line in the file.
    pub line: u32,
    /// The unit.
    pub code: UnitCode,
    /// Its name.
    pub name: Box<str>,
    /// Its kind.
    pub kind: KindCode,
    /// The unit above it.
    pub parent: Option<UnitCode>,
    /// First day in force; none = always.
    pub opened: Option<Date>,
    /// First day no longer in force; none = still.
    pub closed: Option<Date>,
    /// Whether it works.
    pub status: Status,
    /// The units that took over.
    pub succeeded_by: Vec<UnitCode>,
    /// Its English name; may be empty.
    pub name_en: Box<str>,
}

/// A row of `attributes.csv`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttributeRow {
    /// Line in the file.
    pub line: u32,
    /// The unit.
    pub unit: UnitCode,
    /// The attribute.
    pub attribute: AttributeCode,
    /// Its value.
    pub value: Box<str>,
    /// First day it holds; none = always.
    pub from: Option<Date>,
    /// First day it no longer holds; none = still.
    pub to: Option<Date>,
}

/// A row of `networks.csv`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkRow {
    /// Line in the file.
    pub line: u32,
    /// The network.
    pub code: NetworkCode,
    /// Its name.
    pub name: Box<str>,
    /// Its kind.
    pub kind: NetworkKindCode,
    /// The administrative units it serves.
    pub area: Vec<UnitCode>,
    /// First day in force; none = always.
    pub opened: Option<Date>,
    /// First day no longer in force; none = still.
    pub closed: Option<Date>,
    /// Whether it works.
    pub status: Status,
}

/// A row of `members.csv`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberRow {
    /// Line in the file.
    pub line: u32,
    /// The network.
    pub network: NetworkCode,
    /// A facility, or an administrative unit standing for the facilities below it.
    pub unit: UnitCode,
    /// The role; none where the row takes the unit out (`none`).
    pub role: Option<RoleCode>,
    /// First day it holds; none = always.
    pub from: Option<Date>,
    /// First day it no longer holds; none = still.
    pub to: Option<Date>,
    /// The kinds of facility it is limited to; empty = no limit.
    pub kinds: Vec<KindCode>,
    /// Whether published totals count the unit under this network first.
    pub primary: bool,
    /// The document it rests on; may be empty.
    pub basis: Box<str>,
}

/// A row of `duties.csv`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DutyRow {
    /// Line in the file.
    pub line: u32,
    /// The form.
    pub form: FormCode,
    /// The unit at or below which it is due.
    pub unit: UnitCode,
    /// First day it is due; none = always.
    pub from: Option<Date>,
    /// First day it is no longer due; none = still.
    pub to: Option<Date>,
}

/// What an extension grants.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ExtensionDue {
    /// A later due time: minute of a local day.
    At {
        /// The day.
        date: Date,
        /// Hour, 0–23.
        hour: u8,
        /// Minute, 0–59.
        minute: u8,
    },
    /// The report is not expected at all.
    Waived,
}

impl std::fmt::Display for ExtensionDue {
    /// As `extensions.csv` has it.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            ExtensionDue::At { date, hour, minute } => {
                f.pad(&format!("{date}T{hour:02}:{minute:02}"))
            }
            ExtensionDue::Waived => f.pad("waived"),
        }
    }
}

/// A row of `extensions.csv`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExtensionRow {
    /// Line in the file.
    pub line: u32,
    /// The form.
    pub form: FormCode,
    /// The unit at or below which it holds.
    pub unit: UnitCode,
    /// The periods it covers.
    pub period: Span,
    /// What it grants.
    pub due: ExtensionDue,
    /// Why; may be empty.
    pub reason: Box<str>,
}

/// A row of `calendar.csv`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CalendarRow {
    /// Line in the file.
    pub line: u32,
    /// The unit at or below which it holds.
    pub unit: UnitCode,
    /// The day.
    pub date: Date,
    /// What the day is.
    pub day: DayKind,
    /// What it is called.
    pub name: Box<str>,
}

impl From<Direction> for crate::catalogue::Direction {
    fn from(direction: Direction) -> crate::catalogue::Direction {
        match direction {
            Direction::Up => crate::catalogue::Direction::Up,
            Direction::Down => crate::catalogue::Direction::Down,
            Direction::Within => crate::catalogue::Direction::Within,
            Direction::Watch => crate::catalogue::Direction::Watch,
        }
    }
}

/// A row of `targets.csv`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TargetRow {
    /// Line in the file.
    pub line: u32,
    /// The indicator.
    pub indicator: IndicatorCode,
    /// The unit it holds for, if only one.
    pub unit: Option<UnitCode>,
    /// The kind of administrative unit or of network it holds for, if only one.
    pub level: Option<KindCode>,
    /// The attribute value it holds for, if only one.
    pub attribute: Option<(AttributeCode, String)>,
    /// Which way it points.
    pub direction: Direction,
    /// The lower bound.
    pub low: Option<f64>,
    /// The upper bound.
    pub high: Option<f64>,
    /// First day it holds; none = always.
    pub from: Option<Date>,
    /// First day it no longer holds; none = still.
    pub to: Option<Date>,
    /// Where it comes from.
    pub source: Box<str>,
    /// How far it can be relied on.
    pub status: TargetStatus,
}

/// A row of `codes.csv`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CodeRow {
    /// Line in the file.
    pub line: u32,
    /// Whose codes: `dhis2`, `nhc`, `uscc`, `alias`, or a system's name.
    pub scheme: Box<str>,
    /// What kind of thing is named.
    pub of: CodeType,
    /// Our code.
    pub code: Box<str>,
    /// Their code.
    pub external: Box<str>,
    /// Their option or category, where one is needed; may be empty.
    pub option: Box<str>,
}

/// A row of `contacts.csv`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContactRow {
    /// Line in the file.
    pub line: u32,
    /// The unit.
    pub unit: UnitCode,
    /// Who answers.
    pub name: Box<str>,
    /// At which number.
    pub phone: Box<str>,
    /// First day it holds; none = always.
    pub from: Option<Date>,
    /// First day it no longer holds; none = still.
    pub to: Option<Date>,
}

/// The registry's tables, in file order.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Tables {
    /// File names as given, for messages; a table not named here has its usual name.
    pub files: Vec<(TableName, Arc<str>)>,
    /// Units.
    pub units: Vec<UnitRow>,
    /// Attributes of units.
    pub attributes: Vec<AttributeRow>,
    /// Networks.
    pub networks: Vec<NetworkRow>,
    /// Memberships.
    pub members: Vec<MemberRow>,
    /// From when to when forms are due where.
    pub duties: Vec<DutyRow>,
    /// Extended and waived due times.
    pub extensions: Vec<ExtensionRow>,
    /// Working days and days off.
    pub calendar: Vec<CalendarRow>,
    /// Targets of indicators.
    pub targets: Vec<TargetRow>,
    /// Codes of other systems.
    pub codes: Vec<CodeRow>,
    /// Who to call.
    pub contacts: Vec<ContactRow>,
}

impl Tables {
    /// Reads several files; a table that is not given stays empty.
    ///
    /// # Errors
    /// Every error of every file.
    pub fn parse(files: &[(TableName, &str, &[u8])]) -> Result<Tables, Vec<RowError>> {
        let mut tables = Tables::default();
        let mut errors = Vec::new();
        for (table, file, bytes) in files {
            errors.extend(tables.add(*table, file, bytes));
        }
        if errors.is_empty() { Ok(tables) } else { Err(errors) }
    }

    /// Reads one file, adds its good rows and returns its errors.
    pub fn add(&mut self, table: TableName, file: &str, bytes: &[u8]) -> Vec<RowError> {
        let (required, optional) = table.columns();
        let mut read = match read_table(bytes, file, required, optional) {
            Ok(read) => read,
            Err(errors) => return errors,
        };
        let mut errors = std::mem::take(&mut read.errors);
        self.files.push((table, Arc::clone(&read.file)));
        match table {
            TableName::Units => each(&read, &mut errors, &mut self.units, unit_row),
            TableName::Attributes => each(&read, &mut errors, &mut self.attributes, attribute_row),
            TableName::Networks => each(&read, &mut errors, &mut self.networks, network_row),
            TableName::Members => each(&read, &mut errors, &mut self.members, member_row),
            TableName::Duties => each(&read, &mut errors, &mut self.duties, duty_row),
            TableName::Extensions => each(&read, &mut errors, &mut self.extensions, extension_row),
            TableName::Calendar => each(&read, &mut errors, &mut self.calendar, calendar_row),
            TableName::Targets => each(&read, &mut errors, &mut self.targets, target_row),
            TableName::Codes => each(&read, &mut errors, &mut self.codes, code_row),
            TableName::Contacts => each(&read, &mut errors, &mut self.contacts, contact_row),
        }
        errors
    }

    /// The file name a table was read from.
    pub fn file(&self, table: TableName) -> Arc<str> {
        self.files
            .iter()
            .find(|(name, _)| *name == table)
            .map_or_else(|| table.file_name().into(), |(_, file)| Arc::clone(file))
    }
}

/// Reads every row; a row with an error is left out.
fn each<T>(
    table: &Table,
    errors: &mut Vec<RowError>,
    rows: &mut Vec<T>,
    read: impl Fn(&Reader, Row<'_>, &mut Vec<RowError>) -> Option<T>,
) {
    let reader = Reader { table };
    rows.reserve(table.len());
    for row in table.rows() {
        let before = errors.len();
        let value = read(&reader, row, errors);
        if let (Some(value), true) = (value, errors.len() == before) {
            rows.push(value);
        }
    }
}

struct Reader<'t> {
    table: &'t Table,
}

impl Reader<'_> {
    fn at(&self, name: &str) -> Column {
        self.table.column(name)
    }

    fn dates(
        &self,
        row: Row<'_>,
        from: &str,
        to: &str,
        errors: &mut Vec<RowError>,
    ) -> (Option<Date>, Option<Date>) {
        let first = row.optional::<Date>(self.at(from), Fault::BadDate, errors);
        let end = row.optional::<Date>(self.at(to), Fault::BadDate, errors);
        if let (Some(a), Some(b)) = (first, end)
            && b <= a
        {
            errors.push(row.error(
                self.at(to),
                Fault::BadSpan,
                format!("{to} 是不再有效的第一天，必须晚于 {from}（{a}）"),
                format!("{to} is the first day no longer in force and must be after {from} ({a})"),
            ));
        }
        (first, end)
    }

    fn text(&self, row: Row<'_>, name: &str, errors: &mut Vec<RowError>) -> Option<Box<str>> {
        row.required::<String>(self.at(name), Fault::Empty, errors).map(Into::into)
    }

    fn list<T: std::str::FromStr<Err: std::fmt::Display>>(
        &self,
        row: Row<'_>,
        name: &str,
        errors: &mut Vec<RowError>,
    ) -> Vec<T> {
        let mut list = Vec::new();
        for part in row.cell(self.at(name)).split(LIST_SEPARATOR).map(str::trim) {
            match part.parse() {
                _ if part.is_empty() => {}
                Ok(code) => list.push(code),
                Err(e) => errors.push(row.error(
                    self.at(name),
                    Fault::BadCode,
                    format!("“{part}”不是有效的代码；多个代码用英文分号隔开"),
                    format!("{e}; separate several codes by semicolons"),
                )),
            }
        }
        list
    }

    fn choice<T>(
        &self,
        row: Row<'_>,
        name: &str,
        of: (&'static [&'static str], impl Fn(&str) -> Option<T>),
        errors: &mut Vec<RowError>,
    ) -> Option<T> {
        let choice = of.1(row.cell(self.at(name)));
        if choice.is_none() {
            errors.push(row.error(
                self.at(name),
                Fault::BadChoice,
                format!("只能是 {}", of.0.join("、")),
                format!("must be one of {}", of.0.join(", ")),
            ));
        }
        choice
    }

    /// A status; active where the cell is empty.
    fn status(&self, row: Row<'_>, errors: &mut Vec<RowError>) -> Option<Status> {
        if row.cell(self.at("status")).is_empty() {
            return Some(Status::Active);
        }
        self.choice(row, "status", (Status::CODES, Status::from_code), errors)
    }
}

fn unit_row(r: &Reader<'_>, row: Row<'_>, errors: &mut Vec<RowError>) -> Option<UnitRow> {
    let code = row.required(r.at("code"), Fault::BadCode, errors);
    let name = r.text(row, "name", errors);
    let kind = row.required(r.at("kind"), Fault::BadCode, errors);
    let parent = row.optional(r.at("parent"), Fault::BadCode, errors);
    let (opened, closed) = r.dates(row, "opened", "closed", errors);
    let status = r.status(row, errors);
    let succeeded_by = r.list(row, "succeeded_by", errors);
    Some(UnitRow {
        line: row.line(),
        code: code?,
        name: name?,
        kind: kind?,
        parent,
        opened,
        closed,
        status: status?,
        succeeded_by,
        name_en: row.cell(r.at("name_en")).into(),
    })
}

fn attribute_row(r: &Reader<'_>, row: Row<'_>, errors: &mut Vec<RowError>) -> Option<AttributeRow> {
    let unit = row.required(r.at("unit"), Fault::BadCode, errors);
    let attribute = row.required(r.at("attribute"), Fault::BadCode, errors);
    let value = r.text(row, "value", errors);
    let (from, to) = r.dates(row, "from", "to", errors);
    Some(AttributeRow {
        line: row.line(),
        unit: unit?,
        attribute: attribute?,
        value: value?,
        from,
        to,
    })
}

fn network_row(r: &Reader<'_>, row: Row<'_>, errors: &mut Vec<RowError>) -> Option<NetworkRow> {
    let code = row.required(r.at("code"), Fault::BadCode, errors);
    let name = r.text(row, "name", errors);
    let kind = row.required(r.at("kind"), Fault::BadCode, errors);
    let area = r.list(row, "area", errors);
    let (opened, closed) = r.dates(row, "opened", "closed", errors);
    let status = r.status(row, errors);
    Some(NetworkRow {
        line: row.line(),
        code: code?,
        name: name?,
        kind: kind?,
        area,
        opened,
        closed,
        status: status?,
    })
}

fn member_row(r: &Reader<'_>, row: Row<'_>, errors: &mut Vec<RowError>) -> Option<MemberRow> {
    let network = row.required(r.at("network"), Fault::BadCode, errors);
    let unit = row.required(r.at("unit"), Fault::BadCode, errors);
    let role = row.required::<RoleCode>(r.at("role"), Fault::BadCode, errors);
    let (from, to) = r.dates(row, "from", "to", errors);
    let kinds = r.list(row, "kinds", errors);
    let primary = match row.cell(r.at("primary")) {
        "" | "no" | "false" | "0" => Some(false),
        "yes" | "true" | "1" => Some(true),
        _ => r.choice(row, "primary", (&["yes", "no"], |_| None), errors),
    };
    Some(MemberRow {
        line: row.line(),
        network: network?,
        unit: unit?,
        role: Some(role?).filter(|role| role.as_str() != ROLE_NONE),
        from,
        to,
        kinds,
        primary: primary?,
        basis: row.cell(r.at("basis")).into(),
    })
}

fn duty_row(r: &Reader<'_>, row: Row<'_>, errors: &mut Vec<RowError>) -> Option<DutyRow> {
    let form = row.required(r.at("form"), Fault::BadCode, errors);
    let unit = row.required(r.at("unit"), Fault::BadCode, errors);
    let (from, to) = r.dates(row, "from", "to", errors);
    Some(DutyRow { line: row.line(), form: form?, unit: unit?, from, to })
}

fn extension_row(r: &Reader<'_>, row: Row<'_>, errors: &mut Vec<RowError>) -> Option<ExtensionRow> {
    let form = row.required(r.at("form"), Fault::BadCode, errors);
    let unit = row.required(r.at("unit"), Fault::BadCode, errors);
    let period = row.required(r.at("period"), Fault::BadDate, errors);
    let due = extension_due(row.cell(r.at("due")));
    if due.is_none() {
        errors.push(row.error(
            r.at("due"),
            Fault::BadDate,
            "应为当地时间，如 2026-02-10T18:00，或 waived（免报）",
            "must be a local date-time such as 2026-02-10T18:00, or waived",
        ));
    }
    Some(ExtensionRow {
        line: row.line(),
        form: form?,
        unit: unit?,
        period: period?,
        due: due?,
        reason: row.cell(r.at("reason")).into(),
    })
}

/// Reads `waived`, `2026-02-10T18:00`, `2026-02-10 18:00` (seconds allowed and dropped) or a day, which
/// means its last minute.
fn extension_due(text: &str) -> Option<ExtensionDue> {
    if text == "waived" {
        return Some(ExtensionDue::Waived);
    }
    let (date, time) = text.split_once(['T', ' ']).unwrap_or((text, "23:59"));
    let date = date.parse().ok()?;
    let mut parts = time.split(':');
    let mut number = |max: u8| {
        let part = parts.next()?;
        let ok = part.len() == 2 && part.bytes().all(|b| b.is_ascii_digit());
        part.parse::<u8>().ok().filter(|n| ok && *n <= max)
    };
    let (hour, minute) = (number(23)?, number(59)?);
    if time.len() > 5 {
        number(59)?;
    }
    (parts.next().is_none()).then_some(ExtensionDue::At { date, hour, minute })
}

fn calendar_row(r: &Reader<'_>, row: Row<'_>, errors: &mut Vec<RowError>) -> Option<CalendarRow> {
    let unit = row.required(r.at("unit"), Fault::BadCode, errors);
    let date = row.required(r.at("date"), Fault::BadDate, errors);
    let day = r.choice(row, "day", (DayKind::CODES, DayKind::from_code), errors);
    Some(CalendarRow {
        line: row.line(),
        unit: unit?,
        date: date?,
        day: day?,
        name: row.cell(r.at("name")).into(),
    })
}

fn target_row(r: &Reader<'_>, row: Row<'_>, errors: &mut Vec<RowError>) -> Option<TargetRow> {
    let indicator = row.required(r.at("indicator"), Fault::BadCode, errors);
    let unit = row.optional(r.at("unit"), Fault::BadCode, errors);
    let level = row.optional(r.at("level"), Fault::BadCode, errors);
    let text = row.cell(r.at("attribute"));
    let attribute = text.split_once('=').and_then(|(name, value)| {
        Some((name.trim().parse().ok()?, value.trim().to_owned())).filter(|(_, v)| !v.is_empty())
    });
    if attribute.is_none() && !text.is_empty() {
        errors.push(row.error(
            r.at("attribute"),
            Fault::BadChoice,
            "应写成 属性=值，如 hospital_type=tcm",
            "must be name=value, for example hospital_type=tcm",
        ));
    }
    let direction = r.choice(row, "direction", (Direction::CODES, Direction::from_code), errors);
    let mut number = |name: &str| {
        let n = row.optional::<f64>(r.at(name), Fault::BadNumber, errors);
        if n.is_some_and(|n| !n.is_finite()) {
            errors.push(row.error(
                r.at(name),
                Fault::BadNumber,
                "不是有限的数字",
                "is not a finite number",
            ));
        }
        n
    };
    let (low, high) = (number("low"), number("high"));
    if let (Some(low), Some(high)) = (low, high)
        && high < low
    {
        errors.push(row.error(
            r.at("high"),
            Fault::BadNumber,
            "上限低于下限",
            "the upper bound is below the lower",
        ));
    }
    let (from, to) = r.dates(row, "from", "to", errors);
    let status = r.choice(row, "status", (TargetStatus::CODES, TargetStatus::from_code), errors);
    Some(TargetRow {
        line: row.line(),
        indicator: indicator?,
        unit,
        level,
        attribute,
        direction: direction?,
        low,
        high,
        from,
        to,
        source: row.cell(r.at("source")).into(),
        status: status?,
    })
}

fn code_row(r: &Reader<'_>, row: Row<'_>, errors: &mut Vec<RowError>) -> Option<CodeRow> {
    let scheme = r.text(row, "scheme", errors);
    let of = r.choice(row, "type", (CodeType::CODES, CodeType::from_code), errors);
    let code = r.text(row, "code", errors);
    let external = r.text(row, "external", errors);
    Some(CodeRow {
        line: row.line(),
        scheme: scheme?,
        of: of?,
        code: code?,
        external: external?,
        option: row.cell(r.at("option")).into(),
    })
}

fn contact_row(r: &Reader<'_>, row: Row<'_>, errors: &mut Vec<RowError>) -> Option<ContactRow> {
    let unit = row.required(r.at("unit"), Fault::BadCode, errors);
    let name = r.text(row, "name", errors);
    let phone = r.text(row, "phone", errors);
    let (from, to) = r.dates(row, "from", "to", errors);
    Some(ContactRow { line: row.line(), unit: unit?, name: name?, phone: phone?, from, to })
}
