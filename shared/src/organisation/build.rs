//! From tables to a checked [`Organisation`].

use std::collections::HashMap;
use std::sync::Arc;

use super::duties::{Duties, Extension};
use super::lookup::{Aliases, Found};
use super::networks::{Network, Networks, Row};
use super::targets::Target;
use super::{
    DEPTH_MAX, Days, Groups, NetworkIx, Organisation, ROLES_MAX, Spell, UNITS_MAX, Unit, UnitIx,
};
use crate::catalogue::{Catalogue, Class, KindIx};
use crate::ids::UnitCode;
use crate::period::Date;
use crate::tables::registry::{CodeType, DayKind, Status, TableName, Tables, UnitRow};
use crate::tables::{ERRORS_MAX, Fault, RowError};

/// Collects errors; the names of files are looked up once.
struct Check<'t> {
    catalogue: &'t Catalogue,
    files: HashMap<TableName, Arc<str>>,
    errors: Vec<RowError>,
    warnings: Vec<RowError>,
}

/// Where an error stands: table, line, column.
type Place = (TableName, u32, &'static str);

impl<'t> Check<'t> {
    fn new(catalogue: &'t Catalogue, tables: &Tables) -> Check<'t> {
        let files = TableName::ALL.into_iter().map(|name| (name, tables.file(name))).collect();
        Check { catalogue, files, errors: Vec::new(), warnings: Vec::new() }
    }

    fn make(&self, place: Place, value: &str, code: Fault, zh: String, en: String) -> RowError {
        let file = self.files.get(&place.0).expect("every table has a file name");
        RowError::new((file, place.1, place.2), value, code, zh, en)
    }

    fn error(&mut self, place: Place, value: &str, code: Fault, zh: String, en: String) {
        if self.errors.len() < ERRORS_MAX {
            self.errors.push(self.make(place, value, code, zh, en));
        }
    }

    fn warn(&mut self, place: Place, value: &str, zh: String, en: String) {
        if self.warnings.len() < ERRORS_MAX {
            self.warnings.push(self.make(place, value, Fault::Warning, zh, en));
        }
    }

    fn unknown(&mut self, place: Place, value: &str, what: (&str, &str), list: &str) {
        let (zh, en) = what;
        self.error(
            place,
            value,
            Fault::Unknown,
            format!("没有这个{zh}，请在{list}中补上或改正代码"),
            format!("there is no such {en}: add it to {list} or correct the code"),
        );
    }

    fn kind(&mut self, place: Place, code: &str) -> Option<KindIx> {
        let kind = self.catalogue.kind(code);
        if kind.is_none() {
            let known: Vec<&str> = self.catalogue.kinds.iter().map(|k| k.code.as_str()).collect();
            let known = known.join("、");
            self.error(
                place,
                code,
                Fault::Unknown,
                format!("目录中没有这个类别，可用的有 {known}"),
                format!("the catalogue has no such kind; it has {known}"),
            );
        }
        kind
    }
}

/// The units while they are put in order: `ix` holds places in file order until [`Draft::order`].
struct Draft {
    units: Vec<Unit>,
    /// The line of each spell, for errors.
    lines: Vec<Vec<u32>>,
    by_code: HashMap<UnitCode, UnitIx>,
}

pub(super) fn build(catalogue: &Catalogue, tables: &Tables) -> Result<Organisation, Vec<RowError>> {
    let mut check = Check::new(catalogue, tables);
    if tables.units.len() > UNITS_MAX {
        check.error(
            (TableName::Units, 0, ""),
            "",
            Fault::TooLarge,
            format!("单位超过 {UNITS_MAX} 行"),
            format!("more than {UNITS_MAX} rows of units"),
        );
        return Err(check.errors);
    }
    if catalogue.roles.len() > ROLES_MAX {
        check.error(
            (TableName::Members, 0, "role"),
            "",
            Fault::TooLarge,
            format!("目录中的角色超过 {ROLES_MAX} 个"),
            format!("the catalogue names more than {ROLES_MAX} roles"),
        );
        return Err(check.errors);
    }
    let mut draft = draft_units(&mut check, &tables.units);
    check_parents(&mut check, &draft);
    if !check.errors.is_empty() {
        // Without a sound tree everything below would be errors about errors; rows that only
        // name things are still checked.
        check_references(&mut check, &draft, tables);
        return Err(check.errors);
    }
    let end = draft.order();
    let Draft { units, by_code, .. } = draft;
    let len = units.len();

    let is_reporter = |unit: &Unit| matches!(unit.class, Class::Facility | Class::Desk);
    let mut reporters = Vec::new();
    let mut reporters_before = Vec::with_capacity(len + 1);
    for (at, unit) in units.iter().enumerate() {
        reporters_before.push(reporters.len() as u32);
        if is_reporter(unit) {
            reporters.push(UnitIx(at as u32));
        }
    }
    reporters_before.push(reporters.len() as u32);
    let all = || (0..len as u32).map(UnitIx);
    let root = |u: &UnitIx| units[u.at()].spells.iter().any(|s| s.parent.is_none());
    let mut pairs = Vec::with_capacity(len);
    let mut movers = Vec::new();
    for u in all() {
        let spells = &units[u.at()].spells;
        let newest = spells.last().and_then(|s| s.parent);
        if spells.iter().any(|s| s.parent != newest) {
            movers.push(u);
        }
        let mut parents: Vec<u32> = spells.iter().filter_map(|s| s.parent).map(|p| p.0).collect();
        parents.sort_unstable();
        parents.dedup();
        pairs.extend(parents.into_iter().map(|p| (p, u)));
    }
    let mut organisation = Organisation {
        roots: all().filter(|u| units[u.at()].class != Class::External).filter(root).collect(),
        closers: reporters
            .iter()
            .copied()
            .filter(|u| units[u.at()].spells.iter().any(|s| s.to.is_some()))
            .collect(),
        children: Groups::new(len, pairs),
        attributes: Groups::new(len, Vec::new()),
        networks: Networks {
            list: Vec::new(),
            by_code: HashMap::new(),
            by_unit: Groups::new(len, Vec::new()),
            units: Groups::new(0, Vec::new()),
        },
        duties: Duties::default(),
        aliases: HashMap::new(),
        targets: Groups::new(catalogue.indicators.len(), Vec::new()),
        changes: Vec::new(),
        warnings: Vec::new(),
        units,
        by_code,
        end,
        reporters,
        reporters_before,
        movers,
    };
    organisation.attributes = attributes(&mut check, &organisation, tables);
    organisation.networks = networks(&mut check, &organisation, tables);
    organisation.duties = duties(&mut check, &organisation, tables);
    organisation.aliases = aliases(&mut check, &organisation, tables);
    organisation.targets = targets(&mut check, &organisation, tables);
    contacts(&mut check, &organisation.by_code, tables);
    organisation.changes = changes(&organisation);
    if check.errors.is_empty() {
        organisation.warnings = check.warnings;
        Ok(organisation)
    } else {
        Err(check.errors)
    }
}

/// Every day from which on the map may be another one.
fn changes(organisation: &Organisation) -> Vec<Date> {
    let spells = organisation.units.iter().flat_map(|unit| unit.spells.iter().map(Spell::days));
    let attributes = organisation.attributes.items.iter().map(|(_, _, days)| *days);
    let mut days: Vec<Date> = spells
        .chain(attributes)
        .flat_map(|days| [days.from, days.to])
        .flatten()
        .chain(organisation.change_days())
        .collect();
    days.sort_unstable();
    days.dedup();
    days
}

fn targets(check: &mut Check<'_>, organisation: &Organisation, tables: &Tables) -> Groups<Target> {
    const TABLE: TableName = TableName::Targets;
    let catalogue = check.catalogue;
    let mut pairs = Vec::with_capacity(tables.targets.len());
    for row in &tables.targets {
        let place = |column| (TABLE, row.line, column);
        let indicator = catalogue.indicator(row.indicator.as_str());
        if indicator.is_none() {
            let code = row.indicator.as_str();
            check.unknown(place("indicator"), code, ("指标", "indicator"), "catalogue.toml");
        }
        let mut sound = true;
        let found = row.unit.as_ref().and_then(|code| {
            let unit = organisation.unit(code.as_str()).map(Found::Unit);
            let found = unit.or_else(|| organisation.network(code.as_str()).map(Found::Network));
            if found.is_none() {
                let what = ("单位或网络", "unit or network");
                check.unknown(place("unit"), code.as_str(), what, "units.csv / networks.csv");
                sound = false;
            }
            found
        });
        let level = row.level.as_ref().and_then(|code| {
            let level = catalogue.level(code.as_str());
            if level.is_none() {
                let what = ("层级", "level");
                check.unknown(place("level"), code.as_str(), what, "catalogue.toml");
                sound = false;
            }
            level
        });
        let attribute = row.attribute.as_ref().and_then(|(code, value)| {
            let attribute = catalogue.attribute(code.as_str());
            let Some(attribute) = attribute else {
                let what = ("属性", "attribute");
                check.unknown(place("attribute"), code.as_str(), what, "catalogue.toml");
                sound = false;
                return None;
            };
            let values = &catalogue.attributes[attribute.at()].values;
            if !values.is_empty() && !values.iter().any(|(known, _)| known == value) {
                let what = ("属性值", "attribute value");
                check.unknown(place("attribute"), value, what, "catalogue.toml");
                sound = false;
            }
            Some((attribute, value.as_str().into()))
        });
        let (Some(indicator), true) = (indicator, sound) else { continue };
        let target = Target {
            indicator,
            place: found,
            level,
            attribute,
            direction: row.direction.into(),
            low: row.low,
            high: row.high,
            days: Days { from: row.from, to: row.to },
            source: row.source.clone(),
            status: row.status,
        };
        pairs.push((u32::from(indicator.0), target));
    }
    Groups::new(catalogue.indicators.len(), pairs)
}

fn draft_units(check: &mut Check<'_>, rows: &[UnitRow]) -> Draft {
    const UNITS: TableName = TableName::Units;
    let mut by_code: HashMap<UnitCode, UnitIx> = HashMap::with_capacity(rows.len());
    let mut grouped: Vec<Vec<&UnitRow>> = Vec::with_capacity(rows.len());
    for row in rows {
        let next = UnitIx(grouped.len() as u32);
        let at = *by_code.entry(row.code.clone()).or_insert(next);
        if at == next {
            grouped.push(vec![row]);
        } else {
            grouped[at.at()].push(row);
        }
    }
    let mut units = Vec::with_capacity(grouped.len());
    let mut lines = Vec::with_capacity(grouped.len());
    for mut rows in grouped {
        rows.sort_by_key(|row| row.opened);
        let mut spells: Vec<Spell> = Vec::with_capacity(rows.len());
        let mut succeeded_by = Vec::new();
        let mut class = None;
        for row in &rows {
            let place = |column| (UNITS, row.line, column);
            let kind = check.kind(place("kind"), row.kind.as_str());
            let parent = row.parent.as_ref().and_then(|code| {
                let parent = by_code.get(code).copied();
                if parent.is_none() {
                    check.unknown(
                        place("parent"),
                        code.as_str(),
                        ("上级单位", "parent"),
                        "units.csv",
                    );
                }
                parent
            });
            for code in &row.succeeded_by {
                match by_code.get(code).copied() {
                    Some(u) if !succeeded_by.contains(&u) => succeeded_by.push(u),
                    Some(_) => {}
                    None => check.unknown(
                        place("succeeded_by"),
                        code.as_str(),
                        ("继任单位", "successor"),
                        "units.csv",
                    ),
                }
            }
            let days = Days { from: row.opened, to: row.closed };
            if let Some(at) = spells.iter().position(|s| s.days().meets(days)) {
                check.error(
                    place("opened"),
                    row.code.as_str(),
                    Fault::Conflict,
                    format!(
                        "与第{}行的有效期重叠，同一单位同一天只能有一行有效，请改正日期",
                        rows[at].line
                    ),
                    format!(
                        "overlaps line {}: one unit may have one row a day, correct the dates",
                        rows[at].line
                    ),
                );
            }
            let Some(kind) = kind else { continue };
            let this = check.catalogue.kinds[kind.at()].class;
            if *class.get_or_insert(this) != this {
                check.error(
                    place("kind"),
                    row.kind.as_str(),
                    Fault::Conflict,
                    "同一单位的类别不能从一大类变到另一大类，请用新的代码".to_owned(),
                    "a unit cannot change between places, facilities, desks and externals: use a new code"
                        .to_owned(),
                );
            }
            match (this, row.parent.is_some()) {
                (Class::External, true) => check.error(
                    place("parent"),
                    row.parent.as_ref().map_or("", |p| p.as_str()),
                    Fault::BadParent,
                    "域外单位不能有上级，请留空".to_owned(),
                    "an external unit has no parent: leave it empty".to_owned(),
                ),
                (Class::Facility | Class::Desk, false) => check.error(
                    place("parent"),
                    row.code.as_str(),
                    Fault::BadParent,
                    "机构必须有上级单位，请填写".to_owned(),
                    "a facility or desk needs a parent: fill it in".to_owned(),
                ),
                _ => {}
            }
            spells.push(Spell {
                from: row.opened,
                to: row.closed,
                name: row.name.clone(),
                name_en: row.name_en.clone(),
                kind,
                parent,
                status: row.status,
            });
        }
        let code = rows[0].code.clone();
        lines.push(rows.iter().map(|row| row.line).collect());
        units.push(Unit {
            code,
            class: class.unwrap_or(Class::Administrative),
            spells: spells.into(),
            succeeded_by: succeeded_by.into(),
        });
    }
    Draft { units, lines, by_code }
}

/// Parents must be places or facilities, and nobody is above himself on any day.
fn check_parents(check: &mut Check<'_>, draft: &Draft) {
    const UNITS: TableName = TableName::Units;
    if !check.errors.is_empty() {
        return;
    }
    // Only days on which some parent changes can differ from the day before.
    let mut days = vec![Date::MIN];
    for unit in &draft.units {
        let parents_differ = unit.spells.iter().any(|s| s.parent != unit.spells[0].parent);
        if parents_differ {
            days.extend(unit.spells.iter().filter_map(|s| s.from));
        }
    }
    days.sort_unstable();
    days.dedup();
    // What was told of, or hangs below what was told of.
    let mut bad = vec![false; draft.units.len()];
    for day in days {
        // The level of each unit on this day: 0 unknown, then 1 for the top.
        let mut level = vec![0_u8; draft.units.len()];
        for start in 0..draft.units.len() {
            walk_up(check, draft, start, day, &mut level, &mut bad);
        }
    }
    for (at, unit) in draft.units.iter().enumerate() {
        for (spell, line) in unit.spells.iter().zip(&draft.lines[at]) {
            let Some(parent) = spell.parent.map(|p| &draft.units[p.at()]) else { continue };
            let place = (UNITS, *line, "parent");
            if !matches!(parent.class, Class::Administrative | Class::Facility)
                || (unit.class == Class::Administrative && parent.class != Class::Administrative)
            {
                check.error(
                    place,
                    parent.code.as_str(),
                    Fault::BadParent,
                    "上级必须是行政区划单位（机构的上级也可以是机构），请改正".to_owned(),
                    "a parent must be an administrative unit (for a facility also a facility): correct it"
                        .to_owned(),
                );
            }
            // An opening of the child outside every spell of the parent is allowed, but rarely meant.
            let starts = spell.from.unwrap_or(Date::MIN);
            let last = spell.to.map_or(Date::MAX, |to| to.plus(-1));
            if parent.spell_in_force(starts).is_none() || parent.spell_in_force(last).is_none() {
                check.warn(
                    place,
                    parent.code.as_str(),
                    "该单位有效而其上级当时不在有效期内，请核对日期".to_owned(),
                    "the unit is in force on days on which its parent is not: check the dates"
                        .to_owned(),
                );
            }
        }
    }
}

/// Finds the level of `start` on `day`, and tells of a circle or of too many levels once.
fn walk_up(
    check: &mut Check<'_>,
    draft: &Draft,
    start: usize,
    day: Date,
    level: &mut [u8],
    bad: &mut [bool],
) {
    let mut tell = |unit: usize| {
        let spell = draft.units[unit].spell_on(day);
        let at = draft.units[unit].spells.iter().position(|s| s == spell).unwrap_or(0);
        let parent = spell.parent.map_or("", |p| draft.units[p.at()].code.as_str());
        check.error(
            (TableName::Units, draft.lines[unit][at], "parent"),
            parent,
            Fault::Cycle,
            format!("{day} 时该单位成为自己的上级，或层级超过 {DEPTH_MAX} 层，请改正上级"),
            format!("on {day} the unit is above itself or deeper than {DEPTH_MAX} levels: correct the parent"),
        );
    };
    let mut chain: Vec<usize> = Vec::new();
    let mut place: HashMap<usize, usize> = HashMap::new();
    let mut at = start;
    let base = loop {
        if bad[at] {
            chain.iter().for_each(|unit| bad[*unit] = true);
            return;
        }
        if level[at] > 0 {
            break usize::from(level[at]);
        }
        // Up to the limit no circle can have been missed for long; beyond it, look for one.
        if chain.len() >= DEPTH_MAX {
            if place.is_empty() {
                place.extend(chain.iter().enumerate().map(|(n, unit)| (*unit, n)));
            }
            if let Some(first) = place.get(&at) {
                chain[*first..].iter().for_each(|unit| tell(*unit));
                chain.iter().for_each(|unit| bad[*unit] = true);
                return;
            }
            place.insert(at, chain.len());
        }
        chain.push(at);
        match draft.units[at].spell_on(day).parent {
            Some(parent) => at = parent.at(),
            None => break 0,
        }
    };
    for (above, unit) in chain.iter().rev().enumerate() {
        let depth = base + above + 1;
        match u8::try_from(depth) {
            Ok(depth) if usize::from(depth) <= DEPTH_MAX => level[*unit] = depth,
            _ => bad[*unit] = true,
        }
    }
    if bad[start] {
        tell(start);
    }
}

impl Draft {
    /// Puts the units in administrative order (see [`UnitIx`]), renumbers every reference and returns where
    /// each unit's descendants end.
    fn order(&mut self) -> Vec<u32> {
        let len = self.units.len();
        let newest = |at: usize| self.units[at].spells.last().and_then(|s| s.parent);
        let mut by_code: Vec<u32> = (0..len as u32).collect();
        by_code.sort_by(|a, b| {
            self.units[*a as usize].code.as_str().cmp(self.units[*b as usize].code.as_str())
        });
        let pairs = by_code.iter().filter_map(|u| Some((newest(*u as usize)?.0, *u))).collect();
        let children = Groups::new(len, pairs);
        let mut new_ix = vec![0_u32; len];
        let mut end = vec![0_u32; len];
        let mut next = 0_u32;
        // Externals have no parent and come last: they are in nobody's range.
        let is_external = |u: u32| self.units[u as usize].class == Class::External;
        let mut tops: Vec<u32> =
            by_code.iter().copied().filter(|u| newest(*u as usize).is_none()).collect();
        tops.sort_by_key(|u| is_external(*u));
        let mut stack: Vec<(u32, bool)> = tops.into_iter().rev().map(|u| (u, false)).collect();
        while let Some((u, done)) = stack.pop() {
            if done {
                end[new_ix[u as usize] as usize] = next;
                continue;
            }
            new_ix[u as usize] = next;
            next += 1;
            stack.push((u, true));
            stack.extend(children.of(u as usize).iter().rev().map(|c| (*c, false)));
        }
        let moved = |u: UnitIx| UnitIx(new_ix[u.at()]);
        for unit in &mut self.units {
            for spell in &mut unit.spells {
                spell.parent = spell.parent.map(moved);
            }
            for u in &mut unit.succeeded_by {
                *u = moved(*u);
            }
        }
        for u in self.by_code.values_mut() {
            *u = moved(*u);
        }
        let mut placed: Vec<(u32, Unit)> =
            new_ix.iter().copied().zip(std::mem::take(&mut self.units)).collect();
        placed.sort_unstable_by_key(|(at, _)| *at);
        self.units = placed.into_iter().map(|(_, unit)| unit).collect();
        end
    }
}

fn unit_of(
    check: &mut Check<'_>,
    by_code: &HashMap<UnitCode, UnitIx>,
    place: Place,
    code: &UnitCode,
) -> Option<UnitIx> {
    let u = by_code.get(code).copied();
    if u.is_none() {
        check.unknown(place, code.as_str(), ("单位", "unit"), "units.csv");
    }
    u
}

/// The references of the other tables alone, when the units are not sound.
fn check_references(check: &mut Check<'_>, draft: &Draft, tables: &Tables) {
    let by_code = &draft.by_code;
    for row in &tables.attributes {
        unit_of(check, by_code, (TableName::Attributes, row.line, "unit"), &row.unit);
    }
    for row in &tables.members {
        unit_of(check, by_code, (TableName::Members, row.line, "unit"), &row.unit);
    }
    for row in &tables.duties {
        unit_of(check, by_code, (TableName::Duties, row.line, "unit"), &row.unit);
    }
    for row in &tables.extensions {
        unit_of(check, by_code, (TableName::Extensions, row.line, "unit"), &row.unit);
    }
    for row in &tables.calendar {
        unit_of(check, by_code, (TableName::Calendar, row.line, "unit"), &row.unit);
    }
    contacts(check, by_code, tables);
}

fn attributes(
    check: &mut Check<'_>,
    organisation: &Organisation,
    tables: &Tables,
) -> Groups<(crate::catalogue::AttributeIx, Box<str>, Days)> {
    const TABLE: TableName = TableName::Attributes;
    let mut pairs = Vec::with_capacity(tables.attributes.len());
    let mut lines = HashMap::new();
    for row in &tables.attributes {
        let unit = unit_of(check, &organisation.by_code, (TABLE, row.line, "unit"), &row.unit);
        let attribute = check.catalogue.attribute(row.attribute.as_str());
        let Some(attribute) = attribute else {
            let place = (TABLE, row.line, "attribute");
            check.unknown(place, row.attribute.as_str(), ("属性", "attribute"), "catalogue.toml");
            continue;
        };
        let values = &check.catalogue.attributes[attribute.at()].values;
        if !values.is_empty() && !values.iter().any(|(value, _)| **value == *row.value) {
            let known: Vec<&str> = values.iter().map(|(value, _)| value.as_str()).collect();
            let known = known.join("、");
            check.error(
                (TABLE, row.line, "value"),
                &row.value,
                Fault::BadChoice,
                format!("目录中该属性没有这个值，可用的有 {known}"),
                format!("the catalogue gives the attribute no such value; it has {known}"),
            );
        }
        let Some(unit) = unit else { continue };
        let days = Days { from: row.from, to: row.to };
        let held: &mut Vec<(Days, u32)> = lines.entry((unit, attribute)).or_default();
        if let Some((_, line)) = held.iter().find(|(other, _)| other.meets(days)) {
            check.error(
                (TABLE, row.line, "from"),
                row.unit.as_str(),
                Fault::Conflict,
                format!("与第{line}行重叠：一个属性同一天只能有一个值，请改正日期"),
                format!(
                    "overlaps line {line}: an attribute has one value a day, correct the dates"
                ),
            );
        }
        held.push((days, row.line));
        pairs.push((unit.0, (attribute, row.value.clone(), days)));
    }
    Groups::new(organisation.units.len(), pairs)
}

fn networks(check: &mut Check<'_>, organisation: &Organisation, tables: &Tables) -> Networks {
    const TABLE: TableName = TableName::Networks;
    let mut rows: Vec<_> = tables.networks.iter().collect();
    rows.sort_by(|a, b| a.code.as_str().cmp(b.code.as_str()));
    let mut list: Vec<Network> = Vec::with_capacity(rows.len());
    let mut by_code = HashMap::with_capacity(rows.len());
    for row in rows {
        let mut area = Vec::new();
        for code in &row.area {
            let place = (TABLE, row.line, "area");
            area.extend(unit_of(check, &organisation.by_code, place, code));
        }
        let Some(kind) = check.catalogue.network_kind(row.kind.as_str()) else {
            let place = (TABLE, row.line, "kind");
            check.unknown(
                place,
                row.kind.as_str(),
                ("网络类别", "kind of network"),
                "catalogue.toml",
            );
            continue;
        };
        if organisation.unit(row.code.as_str()).is_some() {
            check.error(
                (TABLE, row.line, "code"),
                row.code.as_str(),
                Fault::Duplicate,
                "已有单位使用这个代码，请换一个".to_owned(),
                "a unit has this code: choose another".to_owned(),
            );
        }
        if by_code.insert(row.code.clone(), NetworkIx(list.len() as u32)).is_some() {
            check.error(
                (TABLE, row.line, "code"),
                row.code.as_str(),
                Fault::Duplicate,
                "这个网络已在另一行，请删去一行".to_owned(),
                "the network stands on another line: delete one".to_owned(),
            );
        }
        list.push(Network {
            code: row.code.clone(),
            name: row.name.clone(),
            kind,
            exclusive: check.catalogue.network_kinds[kind.at()].exclusive,
            area: area.into(),
            days: Days { from: row.opened, to: row.closed },
            status: row.status,
        });
    }
    let members = members(check, organisation, tables, &list, &by_code);
    let mut pairs: Vec<(u32, UnitIx)> = members.iter().map(|r| (r.network.0, r.unit)).collect();
    pairs.sort_unstable();
    pairs.dedup();
    let units = Groups::new(list.len(), pairs);
    let pairs = members.into_iter().map(|row| (row.unit.0, row)).collect();
    Networks { list, by_code, by_unit: Groups::new(organisation.units.len(), pairs), units }
}

fn members(
    check: &mut Check<'_>,
    organisation: &Organisation,
    tables: &Tables,
    list: &[Network],
    by_code: &HashMap<crate::ids::NetworkCode, NetworkIx>,
) -> Vec<Row> {
    const TABLE: TableName = TableName::Members;
    let mut rows: Vec<(Row, u32)> = Vec::with_capacity(tables.members.len());
    let mut at_unit: HashMap<UnitIx, Vec<usize>> = HashMap::new();
    for row in &tables.members {
        let unit = unit_of(check, &organisation.by_code, (TABLE, row.line, "unit"), &row.unit);
        let network = by_code.get(&row.network).copied();
        if network.is_none() {
            let place = (TABLE, row.line, "network");
            check.unknown(place, row.network.as_str(), ("网络", "network"), "networks.csv");
        }
        let role = row.role.as_ref().map(|role| {
            let known = check.catalogue.role(role.as_str());
            if known.is_none() {
                let place = (TABLE, row.line, "role");
                check.unknown(place, role.as_str(), ("角色", "role"), "catalogue.toml");
            }
            known
        });
        let mut kinds = Vec::new();
        for kind in &row.kinds {
            kinds.extend(check.kind((TABLE, row.line, "kinds"), kind.as_str()));
        }
        for (column, date) in [("from", row.from), ("to", row.to)] {
            if let Some(date) = date
                && date.ymd().2 != 1
            {
                check.warn(
                    (TABLE, row.line, column),
                    &date.to_string(),
                    "成员变动不在月初：该月的月报按当月最后一日的归属统计".to_owned(),
                    "a membership changes inside a month: its monthly reports count where the unit is on the last day"
                        .to_owned(),
                );
            }
        }
        let (Some(unit), Some(network)) = (unit, network) else { continue };
        if role == Some(None) {
            continue;
        }
        let new = Row {
            network,
            unit,
            role: role.flatten(),
            days: Days { from: row.from, to: row.to },
            kinds: kinds.into(),
            primary: row.primary,
        };
        let others = at_unit.entry(unit).or_default();
        for (other, line) in others.iter().map(|at| &rows[*at]) {
            if let Some((zh, en)) = clash(list, other, &new) {
                check.error(
                    (TABLE, row.line, "network"),
                    row.network.as_str(),
                    Fault::Conflict,
                    format!("与第{line}行冲突：{zh}，请改正日期或类别"),
                    format!("conflicts with line {line}: {en}; correct the dates or kinds"),
                );
                break;
            }
        }
        others.push(rows.len());
        rows.push((new, row.line));
    }
    rows.into_iter().map(|(row, _)| row).collect()
}

/// Why two rows about one unit cannot both hold, if they cannot.
fn clash(list: &[Network], a: &Row, b: &Row) -> Option<(&'static str, &'static str)> {
    let (na, nb) = (&list[a.network.at()], &list[b.network.at()]);
    let kinds_meet =
        a.kinds.is_empty() || b.kinds.is_empty() || a.kinds.iter().any(|k| b.kinds.contains(k));
    if !a.days.meets(b.days) || !kinds_meet {
        return None;
    }
    if a.network == b.network {
        return if a.role == b.role {
            Some(("同一成员、同一角色重复", "the same unit in the same role twice"))
        } else if a.role.is_none() || b.role.is_none() {
            Some(("同一天既是成员又被移出（none）", "a member and taken out (none) on one day"))
        } else {
            None
        };
    }
    let both_active = na.status == Status::Active && nb.status == Status::Active;
    // A day all four spans share; pairwise meeting of intervals means a common day.
    let together = na.days.meets(nb.days) && na.days.meets(b.days) && nb.days.meets(a.days);
    (na.kind == nb.kind
        && na.exclusive
        && a.role.is_some()
        && b.role.is_some()
        && both_active
        && together
        && na.days.meets(a.days)
        && nb.days.meets(b.days))
    .then_some(("同一天属于两个互斥的同类网络", "in two networks of an exclusive kind on one day"))
}

fn duties(check: &mut Check<'_>, organisation: &Organisation, tables: &Tables) -> Duties {
    let mut duties = Duties::default();
    let form_of = |check: &mut Check<'_>, place, form: &crate::ids::FormCode| {
        let known = check.catalogue.form(form.as_str());
        if known.is_none() {
            check.unknown(place, form.as_str(), ("报表", "form"), "catalogue.toml");
        }
        known
    };
    for row in &tables.duties {
        let place = |column| (TableName::Duties, row.line, column);
        form_of(check, place("form"), &row.form);
        let unit = unit_of(check, &organisation.by_code, place("unit"), &row.unit);
        if let Some(unit) = unit {
            let days = Days { from: row.from, to: row.to };
            let units = duties.spans.entry(row.form.clone()).or_default();
            units.entry(unit).or_default().push(days);
        }
    }
    for row in &tables.extensions {
        let place = |column| (TableName::Extensions, row.line, column);
        let form = form_of(check, place("form"), &row.form);
        let unit = unit_of(check, &organisation.by_code, place("unit"), &row.unit);
        let Some(form) = form.map(|form| &check.catalogue.forms[form.at()]) else { continue };
        if row.period.parts(form.period_type).len() == 0 {
            let of = form.period_type;
            check.error(
                place("period"),
                &row.period.to_string(),
                Fault::BadDate,
                format!("其中没有该报表的统计期（{of}），请改正"),
                format!("holds no whole period of the form ({of}): correct it"),
            );
        }
        if let Some(unit) = unit {
            duties.extensions.entry(row.form.clone()).or_default().push(Extension {
                unit,
                span: row.period,
                due: row.due,
                reason: row.reason.clone(),
            });
        }
    }
    for row in &tables.calendar {
        let place = (TableName::Calendar, row.line, "unit");
        let Some(unit) = unit_of(check, &organisation.by_code, place, &row.unit) else { continue };
        let day = duties.calendar.entry(row.date).or_default();
        if day.iter().any(|(other, _, _)| *other == unit) {
            check.error(
                (TableName::Calendar, row.line, "date"),
                &row.date.to_string(),
                Fault::Duplicate,
                "该单位的这一天已在另一行，请删去一行".to_owned(),
                "the day stands on another line for this unit: delete one".to_owned(),
            );
        }
        day.push((unit, row.day == DayKind::Working, row.name.clone()));
    }
    duties
}

fn aliases(
    check: &mut Check<'_>,
    organisation: &Organisation,
    tables: &Tables,
) -> HashMap<Box<str>, Aliases> {
    let mut aliases: HashMap<Box<str>, Aliases> = HashMap::new();
    for row in &tables.codes {
        let place = (TableName::Codes, row.line, "code");
        let networks = &organisation.networks.by_code;
        let found = match row.of {
            CodeType::Unit => organisation.unit(&row.code).map(Found::Unit),
            CodeType::Network => networks.get(&*row.code).copied().map(Found::Network),
            CodeType::Element if check.catalogue.element(&row.code).is_some() => continue,
            CodeType::Form if check.catalogue.form(&row.code).is_some() => continue,
            CodeType::Element | CodeType::Form => None,
        };
        match found {
            None => check.unknown(
                place,
                &row.code,
                ("代码", row.of.code()),
                "units.csv、networks.csv、catalogue.toml",
            ),
            Some(found) if &*row.scheme == "alias" => {
                let known = aliases.entry(row.external.clone()).or_default();
                if !known.contains(&found) {
                    known.push(found);
                }
            }
            Some(_) => {}
        }
    }
    aliases
}

fn contacts(check: &mut Check<'_>, by_code: &HashMap<UnitCode, UnitIx>, tables: &Tables) {
    for row in &tables.contacts {
        unit_of(check, by_code, (TableName::Contacts, row.line, "unit"), &row.unit);
    }
}
