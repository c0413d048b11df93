//! Loading: bytes to a checked [`Catalogue`], or every fault at once.

use std::collections::HashMap;

use jiff::tz::TimeZone;
use toml::de::DeTable;

use super::error::{CatalogueError, Problem};
use super::expr::{FACILITIES, WORDS};
use super::read::{Document, Fields, Place};
use super::resolve::Names;
use super::{
    Attribute, Catalogue, CatalogueHash, Class, Days, Due, Element, Form, FormIx, Kind, Line,
    NetworkKind, OverTime, OverUnits, Role, Scope, Text,
};
use crate::ids::ElementCode;
use crate::limits::{CATALOGUE_BYTES_MAX, REPORT_VALUES_MAX, VALUE_MAX};
use crate::period::PeriodType;

/// Most entries of one sort (kinds, elements, forms, rules…).
pub const ENTRIES_MAX: usize = 5_000;
/// Most parts of one rule, one a letter.
pub const RULE_PARTS_MAX: usize = 26;
/// Longest time after the due moment that may count as on time, in minutes: a year.
pub const GRACE_MINUTES_MAX: u32 = 366 * 24 * 60;

impl Catalogue {
    /// Reads and checks a catalogue file.
    ///
    /// Errors: every fault found, in the order of the file's lines (at most 500).
    pub fn load(toml_bytes: &[u8]) -> Result<Catalogue, Vec<CatalogueError>> {
        let whole = |problem| {
            vec![CatalogueError { entry: String::new(), line: None, column: None, problem }]
        };
        if toml_bytes.len() > CATALOGUE_BYTES_MAX {
            return Err(whole(Problem::TooLarge { limit: CATALOGUE_BYTES_MAX }));
        }
        let text = std::str::from_utf8(toml_bytes).map_err(|_| whole(Problem::NotUtf8 {}))?;
        let document = Document::new(text);
        let (root, faults) = DeTable::parse_recoverable(text);
        for fault in faults {
            let line = fault.span().map(|span| document.line(span.start));
            let place = Place { entry: String::new(), line };
            document.report(&place, None, Problem::Syntax { reason: fault.message().to_owned() });
        }
        if document.has_errors() {
            return Err(document.into_errors());
        }
        let mut hash = [0; 32];
        hash.copy_from_slice(ring::digest::digest(&ring::digest::SHA256, toml_bytes).as_ref());
        let catalogue =
            read(&Fields::new(&document, root.get_ref(), Place::default()), CatalogueHash(hash));
        if document.has_errors() { Err(document.into_errors()) } else { Ok(catalogue) }
    }
}

/// Reads every entry, in an order in which each finds what it refers to.
fn read(top: &Fields<'_>, hash: CatalogueHash) -> Catalogue {
    let mut catalogue = Catalogue {
        name: top.name("name"),
        version: top.need_text("version").unwrap_or_default().to_owned(),
        hash,
        time_zone: time_zone(top),
        units: HashMap::new(),
        kinds: Vec::new(),
        network_kinds: Vec::new(),
        roles: Vec::new(),
        attributes: Vec::new(),
        elements: Vec::new(),
        reserved: Vec::new(),
        forms: Vec::new(),
        rules: Vec::new(),
        indicators: Vec::new(),
    };
    for fields in top.tables("unit", ENTRIES_MAX) {
        let (code, name) = (fields.need_text("code"), fields.name("name"));
        if let Some(code) = code
            && catalogue.units.insert(code.to_owned(), name).is_some()
        {
            fields.report(Problem::Duplicate { code: code.to_owned() });
        }
        fields.finish();
    }
    kinds_and_networks(top, &mut catalogue);
    attributes(top, &mut catalogue);
    elements(top, &mut catalogue);
    for fields in top.tables("form", ENTRIES_MAX) {
        if let Some(form) = form(&fields, &catalogue) {
            catalogue.forms.push(form);
        }
        fields.finish();
    }
    two_homes(top, &catalogue);
    catalogue.rules = super::load_rules::rules(top, &catalogue);
    catalogue.indicators = super::load_indicators::indicators(top, &catalogue);
    top.finish();
    catalogue
}

fn time_zone(top: &Fields<'_>) -> TimeZone {
    let Some(name) = top.need_text("time_zone") else { return TimeZone::UTC };
    // The bundled table only: the same name means the same on every machine.
    jiff::tz::TimeZoneDatabase::bundled().get(name).unwrap_or_else(|_| {
        top.report_at("time_zone", None, Problem::BadTimeZone { value: name.to_owned() });
        TimeZone::UTC
    })
}

/// Reports a code that `taken` holds already.
pub(super) fn once(fields: &Fields<'_>, taken: bool, code: &str) -> bool {
    if taken {
        fields.report(Problem::Duplicate { code: code.to_owned() });
    }
    !taken
}

fn kinds_and_networks(top: &Fields<'_>, catalogue: &mut Catalogue) {
    const CLASSES: [(&str, Class); 4] = [
        ("administrative", Class::Administrative),
        ("facility", Class::Facility),
        ("desk", Class::Desk),
        ("external", Class::External),
    ];
    for fields in top.tables("kind", ENTRIES_MAX) {
        let kind: Option<crate::ids::KindCode> = fields.code("code");
        let name = fields.name("name");
        let class = fields.need_choice("class", &CLASSES).unwrap_or(Class::Facility);
        if let Some(code) = kind
            && once(&fields, catalogue.kind(code.as_str()).is_some(), code.as_str())
        {
            if code == "facility" {
                fields.report(Problem::ReservedWord { code: code.to_string() });
            }
            catalogue.kinds.push(Kind { code, name, class });
        }
        fields.finish();
    }
    for fields in top.tables("network_kind", ENTRIES_MAX) {
        let code: Option<crate::ids::NetworkKindCode> = fields.code("code");
        let name = fields.name("name");
        let exclusive = fields.flag("exclusive", false);
        if let Some(code) = code {
            // Levels name kinds of unit and of network side by side.
            let taken = catalogue.network_kind(code.as_str()).is_some()
                || catalogue.kind(code.as_str()).is_some();
            if once(&fields, taken, code.as_str()) {
                catalogue.network_kinds.push(NetworkKind { code, name, exclusive });
            }
        }
        fields.finish();
    }
    for fields in top.tables("role", ENTRIES_MAX) {
        let code: Option<crate::ids::RoleCode> = fields.code("code");
        let name = fields.name("name");
        if let Some(code) = code
            && once(&fields, catalogue.role(code.as_str()).is_some(), code.as_str())
        {
            if code == "none" {
                // In members.csv it takes a unit out.
                fields.report(Problem::ReservedWord { code: code.to_string() });
            }
            catalogue.roles.push(Role { code, name });
        }
        fields.finish();
    }
}

fn attributes(top: &Fields<'_>, catalogue: &mut Catalogue) {
    for fields in top.tables("attribute", ENTRIES_MAX) {
        let code: Option<crate::ids::AttributeCode> = fields.code("code");
        let name = fields.name("name");
        let mut values: Vec<(String, Text)> = Vec::new();
        for fields in fields.tables("value", ENTRIES_MAX) {
            let (value, name) = (fields.need_text("code"), fields.name("name"));
            if let Some(value) = value
                && once(&fields, values.iter().any(|(v, _)| v == value), value)
            {
                values.push((value.to_owned(), name));
            }
            fields.finish();
        }
        if let Some(code) = code
            && once(&fields, catalogue.attribute(code.as_str()).is_some(), code.as_str())
        {
            if code == "kind" || code == "role" {
                fields.report(Problem::ReservedWord { code: code.to_string() });
            }
            catalogue.attributes.push(Attribute { code, name, values });
        }
        fields.finish();
    }
}

fn elements(top: &Fields<'_>, catalogue: &mut Catalogue) {
    for text in top.texts("reserved") {
        match text.parse::<ElementCode>() {
            Ok(code) => catalogue.reserved.push(code),
            Err(error) => {
                let reason = format!("{text:?} {}", error.reason);
                top.report_at(
                    "reserved",
                    None,
                    Problem::BadCode { key: "reserved".to_owned(), reason },
                );
            }
        }
    }
    let entries = top.tables("element", ENTRIES_MAX);
    let mut part_of = Vec::new();
    for fields in &entries {
        if let Some((element, whole)) = element(fields, catalogue) {
            catalogue.elements.push(element);
            part_of.push((fields, whole));
        }
        fields.finish();
    }
    for (at, (fields, whole)) in part_of.iter().enumerate() {
        let Some(whole) = whole else { continue };
        match catalogue.element(whole) {
            None => fields.report_at("part_of", None, unknown("[[element]]", whole)),
            Some(ix) => {
                let (part, of) = (&catalogue.elements[at], &catalogue.elements[ix.at()]);
                let same = part.unit == of.unit && part.scope == of.scope;
                if !same || part.over_time != of.over_time {
                    let whole = (*whole).to_owned();
                    fields.report_at("part_of", None, Problem::PartOfMismatch { whole });
                }
                catalogue.elements[at].part_of = Some(ix);
            }
        }
    }
    for (at, (fields, _)) in part_of.iter().enumerate() {
        let mut names = vec![catalogue.elements[at].code.to_string()];
        let mut next = catalogue.elements[at].part_of;
        // One step more than there are elements means a circle; only its own members report it.
        while let Some(ix) = next
            && names.len() <= catalogue.elements.len()
        {
            names.push(catalogue.elements[ix.at()].code.to_string());
            if ix.at() == at {
                let cycle = names.join(" → ");
                fields.report_at("part_of", None, Problem::PartOfCycle { cycle });
                break;
            }
            next = catalogue.elements[ix.at()].part_of;
        }
    }
}

/// A reference to nothing.
pub(super) fn unknown(what: &'static str, code: &str) -> Problem {
    Problem::Unknown { what, code: code.to_owned() }
}

fn element<'a>(fields: &Fields<'a>, catalogue: &Catalogue) -> Option<(Element, Option<&'a str>)> {
    const SCOPES: [(&str, Scope); 2] = [("facility", Scope::Facility), ("area", Scope::Area)];
    const OVER_UNITS: [(&str, OverUnits); 2] = [("sum", OverUnits::Sum), ("none", OverUnits::None)];
    const OVER_TIME: [(&str, OverTime); 4] = [
        ("sum", OverTime::Sum),
        ("last", OverTime::Last),
        ("last_ytd", OverTime::LastYtd),
        ("latest", OverTime::Latest { carry_months: 0 }),
    ];
    let code: Option<ElementCode> = fields.code("code");
    let name = fields.name("name");
    let unit = fields.need_text("unit").unwrap_or_default();
    if !unit.is_empty() && !catalogue.units.contains_key(unit) {
        fields.report_at("unit", None, unknown("[[unit]]", unit));
    }
    let mut over_time = fields.choice("over_time", &OVER_TIME).unwrap_or(OverTime::Sum);
    let carry = fields.number("carry_months", 1, 120);
    let latest = matches!(over_time, OverTime::Latest { .. });
    if fields.has("carry_months") != latest {
        fields.report(Problem::CarryMonths {});
    }
    if let (OverTime::Latest { carry_months }, Some(months)) = (&mut over_time, carry) {
        *carry_months = u16::try_from(months).unwrap_or(u16::MAX);
    }
    let element = Element {
        code: code.clone()?,
        name,
        unit: unit.to_owned(),
        scope: fields.choice("scope", &SCOPES).unwrap_or(Scope::Facility),
        over_time,
        over_units: fields.choice("over_units", &OVER_UNITS).unwrap_or(OverUnits::Sum),
        part_of: None,
        dims: fields.pairs("dims"),
        max: fields.number("max", 1, VALUE_MAX).unwrap_or(VALUE_MAX),
        withhold_below: fields.number("withhold_below", 2, VALUE_MAX),
        definition: fields.text("definition").unwrap_or("1").to_owned(),
        source: fields.text("source").unwrap_or_default().to_owned(),
    };
    let part_of = fields.text("part_of");
    let code = code?;
    if WORDS.contains(&code.as_str()) || code == FACILITIES {
        fields.report(Problem::ReservedWord { code: code.to_string() });
    }
    if catalogue.reserved.contains(&code) {
        fields.report(Problem::Reserved { code: code.to_string() });
    }
    once(fields, catalogue.element(code.as_str()).is_some(), code.as_str())
        .then_some((element, part_of))
}

/// `3d`, `12h` or `90m` in minutes.
fn minutes(text: &str) -> Option<u32> {
    let unit = text.chars().last()?;
    let number: u32 = text.strip_suffix(unit)?.parse().ok()?;
    let minutes = match unit {
        'd' => number.checked_mul(24 * 60),
        'h' => number.checked_mul(60),
        'm' => Some(number),
        _ => None,
    };
    minutes.filter(|&minutes| minutes <= GRACE_MINUTES_MAX)
}

fn due(fields: &Fields<'_>) -> Due {
    let mut due = Due { days: 1, hour: 23, minute: 59, next_working_day: false };
    let Some(fields) = fields.table("due") else {
        if !fields.has("due") {
            fields.report(Problem::MissingKey { key: "due".to_owned() });
        }
        return due;
    };
    match fields.number("days", 0, 400) {
        Some(days) => due.days = u16::try_from(days).unwrap_or(u16::MAX),
        None if fields.has("days") => {}
        None => fields.report(Problem::MissingKey { key: "days".to_owned() }),
    }
    if let Some(time) = fields.need_text("time") {
        let two = |text: &str| (text.len() == 2).then(|| text.parse::<u8>().ok()).flatten();
        let parts = time.split_once(':').and_then(|(h, m)| Some((two(h)?, two(m)?)));
        match parts.filter(|&(hour, minute)| hour < 24 && minute < 60) {
            Some((hour, minute)) => (due.hour, due.minute) = (hour, minute),
            None => {
                let (key, value) = ("time".to_owned(), time.to_owned());
                fields.report_at("time", None, Problem::BadTime { key, value });
            }
        }
    }
    due.next_working_day = fields.flag("next_working_day", false);
    fields.finish();
    due
}

fn form(fields: &Fields<'_>, catalogue: &Catalogue) -> Option<Form> {
    let types = PeriodType::ALL.map(|kind| (kind.name(), kind));
    let code: Option<crate::ids::FormCode> = fields.code("code");
    let name = fields.name("name");
    let mut kinds = Vec::new();
    let mut class = None;
    let listed = fields.texts("kinds");
    for text in &listed {
        let Some(kind) = catalogue.kind(text) else {
            fields.report_at("kinds", None, unknown("[[kind]]", text));
            continue;
        };
        let its = catalogue.kinds[kind.at()].class;
        if !matches!(its, Class::Facility | Class::Desk) {
            fields.report_at("kinds", None, Problem::KindNotReporting { kind: (*text).to_owned() });
        } else if class.is_some_and(|class| class != its) {
            fields.report_at("kinds", None, Problem::MixedClasses {});
        } else {
            class = Some(its);
        }
        kinds.push(kind);
    }
    if !fields.has("kinds") {
        fields.report(Problem::MissingKey { key: "kinds".to_owned() });
    } else if listed.is_empty() {
        fields.report_at("kinds", None, Problem::Empty { key: "kinds".to_owned() });
    }
    let period_type = fields.need_choice("period_type", &types).unwrap_or(PeriodType::Month);
    let days = fields.choice("days", &[("all", Days::All), ("working", Days::Working)]);
    if days.is_some() && period_type != PeriodType::Day {
        fields.report_at("days", None, Problem::DaysNotDaily {});
    }
    let grace_minutes = fields.text("grace").map_or(0, |text| {
        minutes(text).unwrap_or_else(|| {
            let (key, value) = ("grace".to_owned(), text.to_owned());
            fields.report_at("grace", None, Problem::BadDuration { key, value });
            0
        })
    });
    let due = due(fields);
    let (from, to) = fields.dates();
    let mut form = Form {
        code: code.clone()?,
        name,
        kinds,
        period_type,
        days: days.unwrap_or(Days::All),
        due,
        grace_minutes,
        from,
        to,
        lines: Vec::new(),
    };
    let entries = fields.tables("line", REPORT_VALUES_MAX);
    if entries.is_empty() {
        fields.report(Problem::Empty { key: "line".to_owned() });
    }
    for entry in entries {
        if let Some(line) = line(&entry, catalogue, &form, class) {
            form.lines.push(line);
        }
        entry.finish();
    }
    let code = code?;
    once(fields, catalogue.form(code.as_str()).is_some(), code.as_str()).then_some(form)
}

fn line(
    fields: &Fields<'_>,
    catalogue: &Catalogue,
    form: &Form,
    class: Option<Class>,
) -> Option<Line> {
    let code = fields.need_text("element");
    let names = Names { catalogue };
    let asked_of = fields
        .text("asked_of")
        .and_then(|text| names.filter_text(fields, "asked_of", text))
        .unwrap_or_default();
    let (from, to) = fields.dates();
    let required = fields.flag("required", true);
    let max = fields.number("max", 1, VALUE_MAX);
    let code = code?;
    let Some(ix) = catalogue.element(code) else {
        fields.report_at("element", None, unknown("[[element]]", code));
        return None;
    };
    let element = &catalogue.elements[ix.at()];
    let fault = |problem| fields.report_at("element", None, problem);
    match (element.scope, class) {
        (Scope::Area, Some(Class::Facility)) => {
            fault(Problem::WrongScope {
                element: code.to_owned(),
                scope: "area",
                class: "facility",
            });
        }
        (Scope::Facility, Some(Class::Desk)) => {
            fault(Problem::WrongScope {
                element: code.to_owned(),
                scope: "facility",
                class: "desk",
            });
        }
        _ => {}
    }
    if max.is_some_and(|max| max > element.max) {
        let (key, high) = ("max".to_owned(), element.max);
        fields.report_at("max", None, Problem::OutOfRange { key, low: 1, high });
    }
    if form.line_of(ix).is_some() {
        fault(Problem::RepeatedLine { element: code.to_owned() });
        return None;
    }
    if !asked_of.kinds.is_empty() && !asked_of.kinds.iter().any(|kind| form.kinds.contains(kind)) {
        let filter = fields.text("asked_of").unwrap_or_default().to_owned();
        fields.report_at("asked_of", None, Problem::AdmitsNone { filter });
    }
    let ends_before =
        |to: Option<crate::period::Date>, from| to.zip(from).is_some_and(|(t, f)| t <= f);
    if ends_before(to, form.from) || ends_before(form.to, from) {
        fault(Problem::OutsideForm { element: code.to_owned() });
    }
    Some(Line { element: ix, required, asked_of, from, to, max: max.unwrap_or(element.max) })
}

/// Whether two stretches of days, each open at an end that is none, share a day.
fn meet(
    a: (Option<crate::period::Date>, Option<crate::period::Date>),
    b: (Option<crate::period::Date>, Option<crate::period::Date>),
) -> bool {
    let before = |to: Option<crate::period::Date>, from: Option<crate::period::Date>| {
        to.zip(from).is_some_and(|(to, from)| to <= from)
    };
    !before(a.1, b.0) && !before(b.1, a.0)
}

fn two_homes(top: &Fields<'_>, catalogue: &Catalogue) {
    let places: HashMap<String, Place> = top
        .tables("form", ENTRIES_MAX)
        .into_iter()
        .map(|fields| (fields.place.entry.clone(), fields.place))
        .collect();
    // (element, kind) → where it was asked so far.
    let mut homes: HashMap<(u16, u16), Vec<(FormIx, usize)>> = HashMap::new();
    for (at, form) in catalogue.forms.iter().enumerate() {
        let Ok(ix) = u16::try_from(at).map(FormIx) else { break };
        for (n, line) in form.lines.iter().enumerate() {
            for &kind in &form.kinds {
                if !line.asked_of.kinds.is_empty() && !line.asked_of.kinds.contains(&kind) {
                    continue;
                }
                let homes = homes.entry((line.element.0, kind.0)).or_default();
                let clash = homes.iter().find(|(other, at)| {
                    let other = &catalogue.forms[other.at()];
                    let theirs = &other.lines[*at];
                    meet((form.from, form.to), (other.from, other.to))
                        && meet((line.from, line.to), (theirs.from, theirs.to))
                        && meet((form.from, form.to), (theirs.from, theirs.to))
                        && meet((line.from, line.to), (other.from, other.to))
                        && !parted(&line.asked_of, &theirs.asked_of)
                });
                if let Some((other, _)) = clash {
                    let entry = format!("[[form]] {}", form.code);
                    let mut place = places.get(&entry).cloned().unwrap_or_default();
                    place.entry = format!("{entry} line {}", n + 1);
                    let problem = Problem::TwoHomes {
                        element: catalogue.elements[line.element.at()].code.to_string(),
                        kind: catalogue.kinds[kind.at()].code.to_string(),
                        other: catalogue.forms[other.at()].code.to_string(),
                    };
                    top.doc.report(&place, None, problem);
                }
                homes.push((ix, n));
            }
        }
    }
}

/// Whether no unit can pass both filters: some attribute may not have a value both want.
fn parted(a: &super::Filter, b: &super::Filter) -> bool {
    a.attributes.iter().any(|(attribute, values)| {
        b.attributes
            .iter()
            .any(|(other, theirs)| other == attribute && !values.iter().any(|v| theirs.contains(v)))
    })
}
