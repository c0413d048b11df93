//! Loading `[[indicator]]` entries.

use super::error::Problem;
use super::expr::{Counted, Expr, Fact, Over};
use super::indicator::{
    Definition, Direction, Formula, Indicator, Level, PAIR_MIN_DEFAULT, Reporting,
};
use super::load::{ENTRIES_MAX, once, unknown};
use super::read::Fields;
use super::resolve::Names;
use super::{Catalogue, Class, Filter, OverUnits, Term};
use crate::ids::IndicatorCode;

/// Most definitions of one indicator.
const DEFINITIONS_MAX: usize = 100;

/// The sorts of formula, by their names in files.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Sort {
    Ratio,
    Share,
    RegistryShare,
    Growth,
    Count,
    Reporting,
}

const SORTS: [(&str, Sort); 6] = [
    ("ratio", Sort::Ratio),
    ("share", Sort::Share),
    ("registry_share", Sort::RegistryShare),
    ("growth", Sort::Growth),
    ("count", Sort::Count),
    ("reporting", Sort::Reporting),
];

pub(super) fn indicators(top: &Fields<'_>, catalogue: &Catalogue) -> Vec<Indicator> {
    let mut indicators: Vec<Indicator> = Vec::new();
    for fields in top.tables("indicator", ENTRIES_MAX) {
        let code: Option<IndicatorCode> = fields.code("code");
        let name = fields.name("name");
        let unit = fields.need_text("unit").unwrap_or_default();
        if !unit.is_empty() && !catalogue.units.contains_key(unit) {
            fields.report_at("unit", None, unknown("[[unit]]", unit));
        }
        let directions = Direction::ALL.map(|direction| (direction.name(), direction));
        let levels = levels(&fields, catalogue);
        let mut indicator = Indicator {
            code: match &code {
                Some(code) => code.clone(),
                None => continue,
            },
            name,
            unit: unit.to_owned(),
            direction: fields.need_choice("direction", &directions).unwrap_or(Direction::Watch),
            decimals: fields
                .number("decimals", 0, 6)
                .and_then(|n| u8::try_from(n).ok())
                .unwrap_or(1),
            levels,
            source: fields.text("source").unwrap_or_default().to_owned(),
            definitions: Vec::new(),
        };
        let entries = fields.tables("definition", DEFINITIONS_MAX);
        if entries.is_empty() {
            fields.report(Problem::Empty { key: "definition".to_owned() });
        }
        let mut sound = !entries.is_empty();
        for (n, entry) in entries.iter().enumerate() {
            match definition(entry, catalogue, &indicator.levels) {
                Some(definition) => {
                    let before = indicator.definitions.last().map(|d: &Definition| d.from);
                    let later = before.is_none_or(|before| definition.from > before);
                    let again =
                        indicator.definitions.iter().any(|d| d.version == definition.version);
                    if n > 0 && (!later || definition.from.is_none()) {
                        let version = definition.version.clone();
                        entry.report(Problem::DefinitionOrder { version });
                    }
                    once(entry, again, &definition.version);
                    indicator.definitions.push(definition);
                }
                None => sound = false,
            }
            entry.finish();
        }
        fields.finish();
        let taken = indicators.iter().any(|other| other.code == indicator.code);
        if once(&fields, taken, indicator.code.as_str()) && sound {
            indicators.push(indicator);
        }
    }
    indicators
}

fn levels(fields: &Fields<'_>, catalogue: &Catalogue) -> Vec<Level> {
    let mut levels = Vec::new();
    for text in fields.texts("levels") {
        let level = catalogue.level(text);
        match level {
            Some(level) => levels.push(level),
            None => {
                let value = text.to_owned();
                fields.report_at("levels", None, Problem::UnknownLevel { value });
            }
        }
    }
    levels
}

fn definition(fields: &Fields<'_>, catalogue: &Catalogue, levels: &[Level]) -> Option<Definition> {
    let names = Names { catalogue };
    let version = fields.need_text("version");
    let from = fields.date("from");
    let factor = fields.number("factor", 1, 1_000_000).unwrap_or(1);
    let pair_min = fields.thousandths("pair_min").unwrap_or(PAIR_MIN_DEFAULT);
    let sort = fields.need_choice("kind", &SORTS);
    // Every key is asked for, so that `finish` does not call a misplaced one unknown.
    let wanted: &[&str] = match sort {
        Some(Sort::Ratio) => &["numerator", "denominator"],
        Some(Sort::Share | Sort::RegistryShare) => &["of", "meets"],
        Some(Sort::Growth | Sort::Count) => &["value"],
        Some(Sort::Reporting) => &["measure"],
        None => &[],
    };
    for key in ["numerator", "denominator", "of", "meets", "value", "measure"] {
        let there = fields.has(key);
        if wanted.contains(&key) {
            if !there {
                fields.report(Problem::MissingKey { key: key.to_owned() });
            }
        } else if let (true, Some(sort)) = (there, sort) {
            let kind = SORTS.iter().find(|(_, s)| *s == sort).map_or("", |(name, _)| name);
            let (key, kind) = (key.to_owned(), kind.to_owned());
            fields.report(Problem::KeyNotForKind { key, kind });
        }
    }
    let number = |key: &'static str| {
        let text = fields.text(key)?;
        let expr = expression(fields, &names, key, text, false)?;
        check(fields, catalogue, key, &expr, levels, from.is_some());
        Some(expr)
    };
    let filter = |key: &'static str| {
        let text = fields.text(key)?;
        names.filter_text(fields, key, text)
    };
    let formula = match sort? {
        Sort::Ratio => {
            let (numerator, denominator) = (number("numerator"), number("denominator"));
            Formula::Ratio { numerator: numerator?, denominator: denominator? }
        }
        Sort::Growth => Formula::Growth { value: number("value")? },
        Sort::Count => Formula::Count { value: number("value")? },
        Sort::Share => {
            let of = filter("of");
            if let Some(of) = &of {
                one_class(fields, catalogue, of, &[Class::Facility]);
            }
            let text = fields.text("meets")?;
            let meets = expression(fields, &names, "meets", text, true)?;
            // A condition is judged facility by facility: what must not be added may be asked.
            check(fields, catalogue, "meets", &meets, &[Level::Facility], from.is_some());
            Formula::Share { of: of?, meets }
        }
        Sort::RegistryShare => {
            let (of, meets) = (filter("of"), filter("meets"));
            if let Some(of) = &of {
                one_class(fields, catalogue, of, &[Class::Facility, Class::Administrative]);
            }
            Formula::RegistryShare { of: of?, meets: meets? }
        }
        Sort::Reporting => {
            let measures = Reporting::ALL.map(|measure| (measure.name(), measure));
            Formula::Reporting(fields.choice("measure", &measures)?)
        }
    };
    Some(Definition {
        version: version?.to_owned(),
        from,
        formula,
        factor: u32::try_from(factor).unwrap_or(u32::MAX),
        pair_min,
    })
}

/// An indicator's expression: reserved elements are no excuse here, the indicator is left out until
/// they are collected.
fn expression(
    fields: &Fields<'_>,
    names: &Names<'_>,
    key: &'static str,
    text: &str,
    condition: bool,
) -> Option<Expr<Term>> {
    let resolved = names.expression(fields, key, text, condition)?;
    for code in &resolved.waits_for {
        fields.report_at(key, None, unknown("[[element]]", code.as_str()));
    }
    resolved.expr
}

fn one_class(fields: &Fields<'_>, catalogue: &Catalogue, of: &Filter, allowed: &[Class]) {
    let mut classes = of.kinds.iter().map(|kind| catalogue.kinds[kind.at()].class);
    let first = classes.next();
    let one = first.is_some_and(|first| allowed.contains(&first) && classes.all(|c| c == first));
    if !one {
        fields.report_at("of", None, Problem::ShareClasses {});
    }
}

fn check(
    fields: &Fields<'_>,
    catalogue: &Catalogue,
    key: &'static str,
    expr: &Expr<Term>,
    levels: &[Level],
    has_from: bool,
) {
    let not_here = |name: &str| {
        let function = name.to_owned();
        fields.report_at(key, None, Problem::FunctionNotHere { function, place: "indicator" });
    };
    let single = !levels.is_empty() && levels.iter().all(|level| *level == Level::Facility);
    let condition = expr.is_condition();
    let mut counts = false;
    expr.walk(&mut |part| {
        let term = match part {
            Expr::Over(over, term) => {
                match over {
                    Over::Previous => not_here(over.name()),
                    Over::Cumulative if !has_from => {
                        fields.report_at(key, None, Problem::CumulativeFrom {});
                    }
                    _ => {}
                }
                term
            }
            Expr::Fact(fact) => {
                match fact {
                    Fact::Days | Fact::WorkingDays => counts = true,
                    _ => not_here(fact.name()),
                }
                return;
            }
            Expr::Term(term) => term,
            _ => return,
        };
        counts = true;
        match term.what {
            Counted::Facilities if condition => not_here(super::expr::FACILITIES),
            Counted::Facilities => {}
            Counted::Element(element) => {
                let element = &catalogue.elements[element.at()];
                if element.over_units == OverUnits::None && !single {
                    let element = element.code.to_string();
                    fields.report_at(key, None, Problem::NotAdditive { element });
                }
            }
        }
    });
    if !counts {
        fields.report_at(key, None, Problem::NoTerms { key: key.to_owned() });
    }
}
