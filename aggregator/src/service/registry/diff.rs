//! What a new registry changes, by meaning: units opened, moved, renamed, memberships begun, due times granted.
//!
//! Pure: two registries go in, the changes come out. A row that only moved to another line changes nothing; two
//! rows that say together what one said before change nothing either: stretches of days are compared.

use std::collections::{BTreeMap, BTreeSet};

use banyan_shared::catalogue::{Catalogue, Lang};
use banyan_shared::organisation::{Days, Organisation, UnitIx};
use banyan_shared::period::Date;
use banyan_shared::tables::Tables;
use banyan_shared::tables::registry::ExtensionDue;
use serde::{Deserialize, Serialize};

/// One change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegistryChange {
    /// What sort, for example `unit_opened`: the list is in `docs/formats.md`.
    pub what: String,
    /// What it is about: codes, the unit's or network's first.
    pub subject: Vec<String>,
    /// The name of the first.
    pub name: String,
    /// The first day it changes; none = always.
    pub from: Option<String>,
    /// The first day it no longer does; none = for ever.
    pub to: Option<String>,
    /// What stood before; none where nothing did.
    pub before: Option<String>,
    /// What stands now; none where nothing does.
    pub after: Option<String>,
}

/// The sorts of change with their words.
const WORDS: &[(&str, &str, &str)] = &[
    ("unit_added", "新登记", "registered"),
    ("unit_removed", "删除登记", "taken out of the registry"),
    ("unit_opened", "开业", "open"),
    ("unit_closed", "停业", "closed"),
    ("unit_status", "状态变更", "status changed"),
    ("unit_renamed", "改名", "renamed"),
    ("unit_moved", "变更上级", "moved"),
    ("unit_kind", "变更类别", "of another kind"),
    ("unit_succeeded", "由其承接", "succeeded by"),
    ("network_added", "新网络", "new network"),
    ("network_removed", "删除网络", "network taken out"),
    ("network_changed", "网络变更", "network changed"),
    ("member_begins", "加入", "joins"),
    ("member_ends", "退出", "leaves"),
    ("member_changed", "成员条件变更", "membership changed"),
    ("attribute_changed", "属性变更", "attribute changed"),
    ("duty_begins", "应报", "due"),
    ("duty_ends", "不再应报", "no longer due"),
    ("calendar_changed", "日历变更", "calendar changed"),
    ("extension_changed", "延期或免报变更", "extension changed"),
    ("target_changed", "目标变更", "target changed"),
    ("code_changed", "对照代码变更", "code changed"),
    ("contact_changed", "联系人变更", "contact changed"),
];

impl RegistryChange {
    /// The change as one line of text.
    pub fn text(&self, lang: Lang) -> String {
        let words = WORDS.iter().find(|(what, _, _)| *what == self.what);
        let what = words.map_or(self.what.as_str(), |(_, zh, en)| match lang {
            Lang::Zh => zh,
            Lang::En => en,
        });
        let mut text = format!("{what}  {}", self.subject.join(" "));
        if !self.name.is_empty() {
            text += &format!(" {}", self.name);
        }
        match (&self.before, &self.after) {
            (Some(before), Some(after)) => text += &format!("  {before} → {after}"),
            (None, Some(one)) => text += &format!("  + {one}"),
            (Some(one), None) => text += &format!("  - {one}"),
            (None, None) => {}
        }
        let of = |date: &Option<String>| date.clone().unwrap_or_else(|| "…".to_owned());
        if self.from.is_some() || self.to.is_some() {
            text += &format!("  [{}, {})", of(&self.from), of(&self.to));
        }
        text
    }
}

/// A registry, read and built.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Side<'a> {
    pub(crate) tables: &'a Tables,
    pub(crate) organisation: &'a Organisation,
}

/// Where two stretches of days differ: the days, what held and what holds. `old` and `new` hold one value
/// a day.
fn differences<T: PartialEq + Clone>(
    old: &[(Days, T)],
    new: &[(Days, T)],
) -> Vec<(Days, Option<T>, Option<T>)> {
    let mut cuts = BTreeSet::new();
    for (days, _) in old.iter().chain(new) {
        cuts.extend(days.from);
        cuts.extend(days.to);
    }
    let starts: Vec<Option<Date>> =
        std::iter::once(None).chain(cuts.into_iter().map(Some)).collect();
    let mut found: Vec<(Days, Option<T>, Option<T>)> = Vec::new();
    for (at, from) in starts.iter().enumerate() {
        let to = starts.get(at + 1).copied().flatten();
        let day = from.or(to.map(|to| to.plus(-1))).unwrap_or(Date::MIN);
        let on = |list: &[(Days, T)]| {
            list.iter().find(|(days, _)| days.has(day)).map(|(_, value)| value.clone())
        };
        let (before, after) = (on(old), on(new));
        if before == after {
            continue;
        }
        match found.last_mut() {
            Some((days, b, a)) if days.to == *from && at > 0 && *b == before && *a == after => {
                days.to = to;
            }
            _ => found.push((Days { from: *from, to }, before, after)),
        }
    }
    found
}

/// Stretches of days by key.
type Lines<T> = BTreeMap<Vec<String>, Vec<(Days, T)>>;

struct Diff<'a> {
    catalogue: (&'a Catalogue, &'a Catalogue),
    old: Side<'a>,
    new: Side<'a>,
    day: Date,
    lang: Lang,
    changes: Vec<RegistryChange>,
}

/// What a registry changes against the one before; names are those of `day`.
pub(crate) fn diff(
    catalogue: (&Catalogue, &Catalogue),
    old: Side<'_>,
    new: Side<'_>,
    day: Date,
    lang: Lang,
) -> Vec<RegistryChange> {
    let mut diff = Diff { catalogue, old, new, day, lang, changes: Vec::new() };
    diff.units();
    diff.networks();
    diff.members();
    diff.attributes();
    diff.duties();
    diff.calendar();
    diff.rest();
    diff.changes
}

fn choice<C: std::fmt::Display>(list: impl IntoIterator<Item = C>) -> String {
    list.into_iter().map(|item| item.to_string()).collect::<Vec<_>>().join(";")
}

impl Diff<'_> {
    fn name(&self, code: &str) -> String {
        for side in [&self.new, &self.old] {
            if let Some(unit) = side.organisation.unit(code) {
                return side.organisation.name_on(unit, self.day, self.lang).to_owned();
            }
            if let Some(network) = side.organisation.network(code) {
                return side.organisation.network_info(network).name.to_string();
            }
        }
        String::new()
    }

    fn push(
        &mut self,
        what: &str,
        subject: &[String],
        days: Days,
        before: Option<String>,
        after: Option<String>,
    ) {
        let name = subject.first().map_or_else(String::new, |code| self.name(code));
        self.changes.push(RegistryChange {
            what: what.to_owned(),
            subject: subject.to_vec(),
            name,
            from: days.from.map(|day| day.to_string()),
            to: days.to.map(|day| day.to_string()),
            before,
            after,
        });
    }

    /// Compares stretches of days key by key; `what` names a change by what stood and stands.
    fn lines<T: PartialEq + Clone>(
        &mut self,
        old: &Lines<T>,
        new: &Lines<T>,
        text: impl Fn(&T) -> String,
        what: impl Fn(Option<&T>, Option<&T>) -> &'static str,
    ) {
        let keys: BTreeSet<&Vec<String>> = old.keys().chain(new.keys()).collect();
        let none = Vec::new();
        for key in keys {
            let of = |lines: &'_ Lines<T>| lines.get(key).unwrap_or(&none).clone();
            for (days, before, after) in differences(&of(old), &of(new)) {
                let what = what(before.as_ref(), after.as_ref());
                let (before, after) = (before.as_ref().map(&text), after.as_ref().map(&text));
                self.push(what, key, days, before, after);
            }
        }
    }

    fn units(&mut self) {
        let codes: BTreeSet<String> = [&self.old, &self.new]
            .into_iter()
            .flat_map(|side| {
                side.organisation.units().map(|u| side.organisation.code(u).to_string())
            })
            .collect();
        let whole = Days { from: None, to: None };
        for code in codes {
            let (old, new) = (self.old.organisation.unit(&code), self.new.organisation.unit(&code));
            let subject = [code];
            match (old, new) {
                (Some(old), Some(new)) => self.unit(&subject, old, new),
                (None, Some(new)) => {
                    let (days, text) = self.what_is(self.new, self.catalogue.1, new);
                    self.push("unit_added", &subject, days, None, Some(text));
                }
                (Some(old), None) => {
                    let (_, text) = self.what_is(self.old, self.catalogue.0, old);
                    self.push("unit_removed", &subject, whole, Some(text), None);
                }
                (None, None) => {}
            }
        }
    }

    /// The days a unit is there at all, with its kind and what is above it.
    fn what_is(&self, side: Side<'_>, catalogue: &Catalogue, unit: UnitIx) -> (Days, String) {
        let spells = &side.organisation.info(unit).spells;
        let days = Days {
            from: spells.first().and_then(|spell| spell.from),
            to: spells.last().and_then(|spell| spell.to),
        };
        let last = spells.last();
        let kind = last.map_or("", |spell| catalogue.kinds[spell.kind.at()].code.as_str());
        let above = last.and_then(|spell| spell.parent);
        let above = above.map_or("", |above| side.organisation.code(above).as_str());
        (days, format!("{kind} {above}").trim_end().to_owned())
    }

    fn unit(&mut self, subject: &[String], old: UnitIx, new: UnitIx) {
        let facets = |side: Side<'_>, catalogue: &Catalogue, unit: UnitIx| {
            let spells = &side.organisation.info(unit).spells;
            let above = |parent: Option<UnitIx>| {
                parent.map_or_else(String::new, |p| side.organisation.code(p).to_string())
            };
            let each = spells.iter().map(|spell| {
                let kind = catalogue.kinds[spell.kind.at()].code.to_string();
                let name = spell.name.to_string();
                (spell.days(), [spell.status.code().to_owned(), name, kind, above(spell.parent)])
            });
            each.collect::<Vec<_>>()
        };
        let (before, after) =
            (facets(self.old, self.catalogue.0, old), facets(self.new, self.catalogue.1, new));
        let of = |spells: &[(Days, [String; 4])], facet: usize| -> Vec<(Days, String)> {
            spells.iter().map(|(days, values)| (*days, values[facet].clone())).collect()
        };
        for (facet, what) in ["", "unit_renamed", "unit_kind", "unit_moved"].iter().enumerate() {
            for (days, a, b) in differences(&of(&before, facet), &of(&after, facet)) {
                let what = match (facet, &a, &b) {
                    (0, None, Some(_)) => "unit_opened",
                    (0, Some(_), None) => "unit_closed",
                    (0, _, _) => "unit_status",
                    // Where it is not there on one side, it is opened or closed: said already.
                    (_, Some(_), Some(_)) => what,
                    _ => continue,
                };
                let shown = |text: Option<String>| {
                    text.filter(|_| what != "unit_opened" && what != "unit_closed")
                };
                self.push(what, subject, days, shown(a), shown(b));
            }
        }
        let successors = |side: Side<'_>, unit: UnitIx| {
            let list = side.organisation.info(unit).succeeded_by.iter();
            choice(list.map(|u| side.organisation.code(*u)))
        };
        let (a, b) = (successors(self.old, old), successors(self.new, new));
        if a != b {
            let some = |text: String| Some(text).filter(|text| !text.is_empty());
            self.push("unit_succeeded", subject, Days { from: None, to: None }, some(a), some(b));
        }
    }

    fn networks(&mut self) {
        let of = |tables: &Tables| {
            let each = tables.networks.iter().map(|row| {
                let days = Days { from: row.opened, to: row.closed };
                let facts = format!(
                    "{} {} {} {}",
                    row.name,
                    row.kind,
                    choice(&row.area),
                    row.status.code()
                );
                (vec![row.code.to_string()], vec![(days, facts)])
            });
            each.collect::<Lines<String>>()
        };
        let (old, new) = (of(self.old.tables), of(self.new.tables));
        let (had, has) = (old.clone(), new.clone());
        let keys: BTreeSet<&Vec<String>> = old.keys().chain(new.keys()).collect();
        for key in keys {
            let one = |lines: &Lines<String>| {
                lines.get(key).map(|line| {
                    let (days, text) = &line[0];
                    (*days, text.clone())
                })
            };
            match (one(&had), one(&has)) {
                (Some((_, text)), None) => {
                    let whole = Days { from: None, to: None };
                    self.push("network_removed", key, whole, Some(text), None);
                }
                (None, Some((days, text))) => {
                    self.push("network_added", key, days, None, Some(text));
                }
                (Some(before), Some(after)) => {
                    for (days, a, b) in differences(&[before], &[after]) {
                        self.push("network_changed", key, days, a, b);
                    }
                }
                (None, None) => {}
            }
        }
    }

    fn members(&mut self) {
        let of = |tables: &Tables| {
            let mut lines: Lines<String> = BTreeMap::new();
            for row in &tables.members {
                let role = row.role.as_ref().map_or("none", |role| role.as_str());
                let key = vec![row.network.to_string(), row.unit.to_string(), role.to_owned()];
                let primary = if row.primary { " primary" } else { "" };
                let facts = format!("{}{primary}", choice(&row.kinds)).trim().to_owned();
                let days = Days { from: row.from, to: row.to };
                lines.entry(key).or_default().push((days, facts));
            }
            lines
        };
        let (old, new) = (of(self.old.tables), of(self.new.tables));
        self.lines(&old, &new, Clone::clone, |before, after| match (before, after) {
            (None, _) => "member_begins",
            (_, None) => "member_ends",
            _ => "member_changed",
        });
    }

    fn attributes(&mut self) {
        let of = |tables: &Tables| {
            let mut lines: Lines<String> = BTreeMap::new();
            for row in &tables.attributes {
                let key = vec![row.unit.to_string(), row.attribute.to_string()];
                let days = Days { from: row.from, to: row.to };
                lines.entry(key).or_default().push((days, row.value.to_string()));
            }
            lines
        };
        let (old, new) = (of(self.old.tables), of(self.new.tables));
        self.lines(&old, &new, Clone::clone, |_, _| "attribute_changed");
    }

    fn duties(&mut self) {
        let of = |tables: &Tables| {
            let mut lines: Lines<()> = BTreeMap::new();
            for row in &tables.duties {
                let key = vec![row.unit.to_string(), row.form.to_string()];
                lines.entry(key).or_default().push((Days { from: row.from, to: row.to }, ()));
            }
            lines
        };
        let (old, new) = (of(self.old.tables), of(self.new.tables));
        self.lines(
            &old,
            &new,
            |()| String::new(),
            |before, _| match before {
                None => "duty_begins",
                Some(()) => "duty_ends",
            },
        );
    }

    fn calendar(&mut self) {
        let of = |tables: &Tables| {
            let each = tables.calendar.iter().map(|row| {
                let days = Days { from: Some(row.date), to: Some(row.date.plus(1)) };
                let text = format!("{} {}", row.day.code(), row.name).trim_end().to_owned();
                (vec![row.unit.to_string(), row.date.to_string()], vec![(days, text)])
            });
            each.collect::<Lines<String>>()
        };
        let (old, new) = (of(self.old.tables), of(self.new.tables));
        self.lines(&old, &new, Clone::clone, |_, _| "calendar_changed");
    }

    /// Rows that hold as they stand, by what they are about.
    fn rest(&mut self) {
        let days = |from: Option<Date>, to: Option<Date>| Days { from, to };
        let extensions = |tables: &Tables| {
            let mut lines: Lines<String> = BTreeMap::new();
            for row in &tables.extensions {
                let key = vec![row.unit.to_string(), row.form.to_string(), row.period.to_string()];
                let due = match row.due {
                    ExtensionDue::Waived => "waived".to_owned(),
                    ExtensionDue::At { date, hour, minute } => {
                        format!("{date}T{hour:02}:{minute:02}")
                    }
                };
                // Of several about the same the last one counts.
                let text = format!("{due} {}", row.reason).trim_end().to_owned();
                lines.insert(key, vec![(days(None, None), text)]);
            }
            lines
        };
        let targets = |tables: &Tables| {
            let mut lines: Lines<String> = BTreeMap::new();
            for row in &tables.targets {
                let mut key: Vec<String> = row.unit.iter().map(ToString::to_string).collect();
                key.extend(row.level.iter().map(ToString::to_string));
                key.extend(row.attribute.iter().map(|(name, value)| format!("{name}={value}")));
                key.push(row.indicator.to_string());
                let bound = |n: Option<f64>| n.map_or_else(String::new, |n| n.to_string());
                let text = format!(
                    "{} {}..{} {} {}",
                    row.direction.code(),
                    bound(row.low),
                    bound(row.high),
                    row.status.code(),
                    row.source
                );
                lines.entry(key).or_default().push((days(row.from, row.to), text));
            }
            lines
        };
        let codes = |tables: &Tables| {
            let mut lines: Lines<String> = BTreeMap::new();
            for row in &tables.codes {
                let key = [&*row.code, row.of.code(), &*row.scheme, &*row.external, &*row.option];
                let key = key.iter().filter(|part| !part.is_empty()).map(ToString::to_string);
                lines.insert(key.collect(), vec![(days(None, None), row.external.to_string())]);
            }
            lines
        };
        let contacts = |tables: &Tables| {
            let mut lines: Lines<String> = BTreeMap::new();
            for row in &tables.contacts {
                let key = vec![row.unit.to_string(), row.name.to_string()];
                lines.entry(key).or_default().push((days(row.from, row.to), row.phone.to_string()));
            }
            lines
        };
        let (old, new) = (self.old.tables, self.new.tables);
        self.lines(&extensions(old), &extensions(new), Clone::clone, |_, _| "extension_changed");
        self.lines(&targets(old), &targets(new), Clone::clone, |_, _| "target_changed");
        self.lines(&codes(old), &codes(new), Clone::clone, |_, _| "code_changed");
        self.lines(&contacts(old), &contacts(new), Clone::clone, |_, _| "contact_changed");
    }
}
