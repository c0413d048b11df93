//! The counts are what they promise: seeded, within the rules, mostly zero, and not all there.

use std::collections::BTreeMap;

use banyan_shared::catalogue::check_report;
use banyan_shared::catalogue::rule::Severity;
use banyan_shared::report::Value;

use super::*;
use crate::model::shipped;

/// That what is typed at first breaks no rule of severity "error".
#[track_caller]
fn keeps_the_rules(catalogue: &Catalogue, typed: &Typed) {
    if typed.reason.is_some() {
        return;
    }
    let form = &catalogue.forms[typed.form.at()];
    let mut values = vec![Value::Missing; form.lines.len()];
    for (line, value) in &typed.values {
        values[*line] = *value;
        let max = form.lines[*line].max;
        assert!(value.number().is_none_or(|n| n <= max), "{typed:?}");
    }
    let broken = check_report(catalogue, typed.form, &values, None, typed.period);
    let errors: Vec<_> = broken.iter().filter(|b| b.severity == Severity::Error).collect();
    assert!(errors.is_empty(), "{typed:?}: {errors:?}");
}

#[test]
fn the_counts_keep_the_rules_and_their_seed() {
    let (catalogue, organisation) = shipped().unwrap();
    let months: Vec<Period> = ["2026-09", "2026-10"].map(|m| m.parse().unwrap()).into();
    let area = |seed| Area {
        catalogue: &catalogue,
        organisation: &organisation,
        months: months.clone(),
        seed,
    };
    let county = organisation.unit("520502").unwrap();
    let plans = area(7).county(county);
    let again = area(7).county(county);
    let all = |plans: &[Plan]| plans.iter().flat_map(|p| p.typed.clone()).collect::<Vec<_>>();
    assert_eq!(all(&plans), all(&again), "the same seed, the same counts");
    assert_ne!(all(&plans), all(&area(8).county(county)));
    assert!(plans.len() > 300, "{} agents", plans.len());
    assert!(plans.iter().filter(|plan| plan.below.is_some()).count() > 30);

    let (mut zeros, mut numbers, mut not_applicable) = (0u32, 0u32, 0u32);
    let (mut withdrawn, mut corrected, mut closed) = (0u32, 0u32, 0u32);
    for typed in all(&plans) {
        withdrawn += u32::from(typed.withdraw);
        closed += u32::from(typed.closed);
        for (_, value) in &typed.values {
            numbers += 1;
            zeros += u32::from(*value == Value::Number(0));
            not_applicable += u32::from(*value == Value::NotApplicable);
        }
        corrected += u32::from(typed.reason.is_some());
        keeps_the_rules(&catalogue, &typed);
    }
    assert!(zeros * 100 > numbers * 50, "{zeros} zeros of {numbers}");
    assert!(not_applicable > 0 && withdrawn > 0 && corrected > 100 && closed > 100);
}

/// What is drawn for the months before today, as the demo does it, must not depend on what day that is.
#[test]
fn the_counts_keep_the_rules_in_any_two_months() {
    const EACH_KIND: usize = 4;
    let (catalogue, organisation) = shipped().unwrap();
    let months: Vec<Period> =
        (0..25).map(|n| format!("{}-{:02}", 2026 + n / 12, 1 + n % 12).parse().unwrap()).collect();
    let area = |months: &[Period]| Area {
        catalogue: &catalogue,
        organisation: &organisation,
        months: months.to_vec(),
        seed: 7,
    };
    let mut kinds: BTreeMap<String, Vec<UnitIx>> = BTreeMap::new();
    let county = organisation.unit("520502").unwrap();
    for unit in organisation.facilities_below(county, months[0].last_day()) {
        let some = kinds.entry(area(&months[..1]).kind(unit).to_owned()).or_default();
        if some.len() < EACH_KIND {
            some.push(unit);
        }
    }
    assert!(kinds.len() > 2, "{kinds:?}");
    let units: Vec<UnitIx> = kinds.into_values().flatten().collect();
    for two in months.windows(2) {
        let plans = area(two).facilities(&units);
        let typed: Vec<&Typed> = plans.iter().flat_map(|plan| &plan.typed).collect();
        assert!(typed.len() > 300, "{} reports in {two:?}", typed.len());
        typed.into_iter().for_each(|typed| keeps_the_rules(&catalogue, typed));
    }
}
