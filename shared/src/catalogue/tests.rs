use super::expr::{Counted, Expr, Rational};
use super::indicator::{Formula, Level};
use super::rule::{RuleScope, Severity};
use super::*;
use crate::report::Value;

const SEED: &[u8] = include_bytes!("../../../seeds/catalogue.toml");

fn load(text: &str) -> Result<Catalogue, Vec<CatalogueError>> {
    Catalogue::load(text.as_bytes())
}

fn seed() -> Catalogue {
    Catalogue::load(SEED).unwrap_or_else(|errors| {
        let errors: Vec<String> = errors.iter().map(CatalogueError::to_string).collect();
        panic!("the seed catalogue has faults:\n{}", errors.join("\n"))
    })
}

#[test]
fn the_seed_catalogue_holds_the_core_set() {
    let catalogue = seed();
    assert_eq!(catalogue.elements.len(), 80);
    assert_eq!(catalogue.reserved.len(), 32);
    assert_eq!(catalogue.forms.len(), 10);
    let rules: Vec<&str> = catalogue.rules.iter().map(|rule| rule.code.as_str()).collect();
    let wanted: Vec<String> = (1..=30).map(|n| format!("V{n:02}")).collect();
    assert_eq!(rules, wanted);
    assert_eq!(catalogue.indicators.len(), 59);
    assert_eq!(catalogue.time_zone.iana_name(), Some("Asia/Shanghai"));
    let lines: Vec<(&str, usize)> =
        catalogue.forms.iter().map(|f| (f.code.as_str(), f.lines.len())).collect();
    assert_eq!(
        lines,
        [
            ("vc_daily", 7),
            ("vc_monthly", 6),
            ("thc_daily", 13),
            ("thc_monthly", 23),
            ("chc_daily", 13),
            ("chc_monthly", 19),
            ("hosp_monthly", 49),
            ("rc_monthly", 5),
            ("county_monthly", 8),
            ("county_annual", 3),
        ]
    );
}

#[test]
fn the_village_daily_form_is_the_seven_elements_in_order() {
    let catalogue = seed();
    let form = &catalogue.forms[catalogue.form("vc_daily").unwrap().at()];
    let codes: Vec<&str> =
        form.lines.iter().map(|l| catalogue.elements[l.element.at()].code.as_str()).collect();
    assert_eq!(
        codes,
        [
            "open_days",
            "total_visits",
            "home_visits",
            "tcm_visits",
            "referrals_up_out",
            "remote_requests_sent",
            "chronic_followups"
        ]
    );
    assert_eq!(
        (form.due.days, form.due.hour, form.due.minute, form.grace_minutes),
        (1, 10, 0, 3 * 24 * 60)
    );
    assert_eq!(form.lines[1].max, 500, "a village clinic's day, not a city hospital's month");
}

#[test]
fn conditional_lines_are_asked_of_those_they_concern() {
    let catalogue = seed();
    let form = &catalogue.forms[catalogue.form("hosp_monthly").unwrap().at()];
    let day = Date::new(2026, 1, 31).unwrap();
    let line = |code: &str| {
        &form.lines[form.line_of(catalogue.element(code).unwrap()).expect("on the form")]
    };
    let mut facts = Facts {
        kind: catalogue.kind("county_hospital").unwrap(),
        roles: vec![],
        attributes: vec![],
    };
    assert!(line("total_visits").asks(&facts, day));
    assert!(line("new_tech_items").asks(&facts, day));
    assert!(!line("remote_path").asks(&facts, day));
    assert!(!line("support_rules_improved").asks(&facts, day));
    let asked = form.lines.iter().filter(|line| line.asks(&facts, day)).count();
    assert_eq!(asked, 49 - 14 - 3);
    for network in ["remote_network", "county_community"] {
        facts.roles = vec![(
            catalogue.role("shared_centre").unwrap(),
            catalogue.network_kind(network).unwrap(),
        )];
        assert!(line("remote_path").asks(&facts, day));
    }
    facts.attributes = vec![(catalogue.attribute("assisted").unwrap(), "yes".to_owned())];
    assert!(line("support_rules_improved").asks(&facts, day));
    facts.kind = catalogue.kind("regional_centre").unwrap();
    assert!(!line("new_tech_items").asks(&facts, day), "a regional centre's stands on rc_monthly");
}

#[test]
fn indicators_carry_filters_levels_and_definitions() {
    let catalogue = seed();
    let indicator = |code: &str| &catalogue.indicators[catalogue.indicator(code).unwrap().at()];
    let day = Date::new(2026, 1, 31).unwrap();
    let share = indicator("primary_visit_share");
    let definition = share.definition_on(day);
    assert_eq!(
        (definition.factor, definition.pair_min, definition.version.as_str()),
        (100, 800, "1")
    );
    let Formula::Ratio { numerator: Expr::Term(term), .. } = &definition.formula else {
        panic!("a ratio of a term")
    };
    assert_eq!(term.what, Counted::Element(catalogue.element("total_visits").unwrap()));
    assert_eq!(term.filter.kinds.len(), 3);
    assert!(
        share.levels.contains(&Level::Network(catalogue.network_kind("county_community").unwrap()))
    );
    let Formula::RegistryShare { meets, .. } =
        &indicator("grid_coverage").definition_on(day).formula
    else {
        panic!("a share by the registry")
    };
    assert_eq!(meets.roles[0].len(), 2 * catalogue.roles.len(), "any role in either network");
}

fn values(catalogue: &Catalogue, form: FormIx, given: &[(&str, u64)]) -> Vec<Value> {
    let form = &catalogue.forms[form.at()];
    let mut values = vec![Value::Missing; form.lines.len()];
    for (code, n) in given {
        values[form.line_of(catalogue.element(code).unwrap()).unwrap()] = Value::Number(*n);
    }
    values
}

fn broken(
    catalogue: &Catalogue,
    form: &str,
    given: &[(&str, u64)],
    before: Option<&[(&str, u64)]>,
    period: &str,
) -> Vec<(String, Severity)> {
    let form = catalogue.form(form).unwrap();
    let now = values(catalogue, form, given);
    let before = before.map(|given| values(catalogue, form, given));
    check_report(catalogue, form, &now, before.as_deref(), period.parse().unwrap())
        .into_iter()
        .map(|b| (b.part(catalogue).code.to_string(), b.severity))
        .collect()
}

#[test]
fn rules_speak_where_their_operands_are_known_and_only_there() {
    let catalogue = seed();
    let check = |form, given: &[(&str, u64)], period| broken(&catalogue, form, given, None, period);
    let day = "2026-01-31";
    let e = |code: &str| (code.to_owned(), Severity::Error);
    let w = |code: &str| (code.to_owned(), Severity::Warning);
    assert_eq!(check("vc_daily", &[], day), []);
    assert_eq!(check("vc_daily", &[("open_days", 1), ("total_visits", 20)], day), []);
    assert_eq!(
        check("vc_daily", &[("open_days", 0), ("total_visits", 5), ("home_visits", 6)], day),
        [e("V02b"), w("V03b")]
    );
    assert_eq!(
        check(
            "thc_daily",
            &[("outpatient_visits", 8), ("emergency_visits", 3), ("total_visits", 10)],
            day
        ),
        [e("V01")]
    );
    // 31 days × 10 beds × 1.1 = 341.
    let beds = [("beds_actual", 10), ("bed_days_open", 341)];
    assert_eq!(check("hosp_monthly", &beds, "2026-01"), []);
    assert_eq!(check("hosp_monthly", &beds, "2026-02"), [w("V08")]);
    assert_eq!(
        check("hosp_monthly", &[("drg_cases", 10), ("drg_weight_milli", 2_000)], "2026-01"),
        [w("V14c")]
    );
    // The 2387万 of the seed text: more discharges than bed-days.
    let impossible = [("discharges", 90_000), ("bed_days_open", 126_000)];
    assert_eq!(check("hosp_monthly", &impossible, "2026-01"), []);
    let impossible = [("discharges", 99_000), ("bed_days_open", 98_000)];
    assert_eq!(check("hosp_monthly", &impossible, "2026-01"), [e("V30c")]);
}

#[test]
fn rules_look_back_one_period() {
    let catalogue = seed();
    let now = [("inpatients_end", 12), ("admissions", 5), ("discharges", 2)];
    let check = |before| broken(&catalogue, "thc_daily", &now, before, "2026-01-31");
    assert_eq!(check(None), [], "no previous report: not evaluated");
    assert_eq!(check(Some(&[("inpatients_end", 9)])), []);
    assert_eq!(check(Some(&[("inpatients_end", 10)])).len(), 1);
    let kinds = |before: u64, period| {
        broken(
            &catalogue,
            "hosp_monthly",
            &[("disease_types_ytd", 50)],
            Some(&[("disease_types_ytd", before)]),
            period,
        )
    };
    assert_eq!(kinds(60, "2026-02")[0].0, "V15a");
    assert_eq!(kinds(60, "2026-01"), [], "the count starts again in January");
}

#[test]
fn not_applicable_counts_as_absent() {
    let catalogue = seed();
    let form = catalogue.form("vc_monthly").unwrap();
    let mut now = values(&catalogue, form, &[("ecg_device_working", 1)]);
    let at = now.iter().position(|v| v.is_answer()).unwrap();
    now[at] = Value::NotApplicable;
    assert_eq!(check_report(&catalogue, form, &now, None, "2026-01".parse().unwrap()), []);
}

#[test]
fn rules_of_other_scopes_and_reserved_elements_wait() {
    let catalogue = seed();
    let rule = |code: &str| &catalogue.rules[catalogue.rule(code).unwrap().at()];
    assert!(rule("V27").parts.iter().all(|p| p.scope == RuleScope::CrossSite && p.expr.is_some()));
    assert!(rule("V28").parts.iter().all(|p| p.network_kind.is_some()));
    assert!(rule("V29").parts.iter().all(|p| p.scope == RuleScope::History));
    for code in ["V04", "V05", "V12", "V17", "V22"] {
        assert!(rule(code).parts.iter().all(|p| p.expr.is_none() && !p.waits_for.is_empty()));
    }
    let severity = |code: &str| rule(code).parts[0].severity;
    for code in ["V01", "V02", "V04", "V05", "V10", "V11", "V12", "V16", "V17", "V18", "V20"] {
        assert_eq!(severity(code), Severity::Error, "{code}");
    }
    for code in ["V03", "V06", "V07", "V08", "V09", "V13", "V14", "V15", "V19", "V24", "V30"] {
        assert_eq!(severity(code), Severity::Warning, "{code}");
    }
}

#[test]
fn targets_name_things_that_exist() {
    let catalogue = seed();
    let text = include_str!("../../../seeds/targets.csv");
    let mut rows = csv::Reader::from_reader(text.as_bytes());
    let header: Vec<String> = rows.headers().unwrap().iter().map(str::to_owned).collect();
    assert_eq!(
        header.join(","),
        "indicator,unit,level,attribute,direction,low,high,from,to,source,status"
    );
    let mut count = 0;
    for row in rows.records() {
        let row = row.unwrap();
        assert!(catalogue.indicator(&row[0]).is_some(), "{row:?}");
        assert!(row[1].is_empty() || row[2].is_empty(), "unit or level: {row:?}");
        let level = &row[2];
        let known = level.is_empty()
            || level == "facility"
            || catalogue.kind(level).is_some()
            || catalogue.network_kind(level).is_some();
        assert!(known, "{row:?}");
        for pair in row[3].split(';').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').expect("name=value");
            let attribute = &catalogue.attributes[catalogue.attribute(name).unwrap().at()];
            assert!(attribute.values.iter().any(|(v, _)| v == value), "{row:?}");
        }
        assert!(["up", "down", "within", "watch"].contains(&&row[4]), "{row:?}");
        let bound = |text: &str| text.is_empty() || text.parse::<f64>().is_ok();
        assert!(bound(&row[5]) && bound(&row[6]) && (row[5].len() + row[6].len() > 0), "{row:?}");
        for date in [&row[7], &row[8]] {
            assert!(date.is_empty() || date.parse::<Date>().is_ok(), "{row:?}");
        }
        assert!(!row[9].is_empty(), "{row:?}");
        assert!(["official", "seed", "draft", "proposal", "own"].contains(&&row[10]), "{row:?}");
        count += 1;
    }
    assert!(count >= 25, "{count} rows");
}

mod foreign;
mod refused;

#[test]
fn medians_are_exact() {
    use super::rule::{deviation, median};
    let shown = |n: Option<Rational>| n.map(|n| (n.numerator(), n.denominator()));
    for (numbers, middle, apart) in [
        (&[][..], None, None),
        (&[7], Some((7, 1)), Some((0, 1))),
        (&[4, 1], Some((5, 2)), Some((3, 2))),
        (&[9, 1, 5], Some((5, 1)), Some((4, 1))),
        // Distances from 3/2: 3/2, 1/2, 1/2, 17/2.
        (&[10, 1, 2, 0], Some((3, 2)), Some((1, 1))),
    ] {
        assert_eq!(shown(median(numbers)), middle, "{numbers:?}");
        assert_eq!(shown(deviation(numbers)), apart, "{numbers:?}");
    }
    // Of the largest numbers too: nothing wraps.
    assert_eq!(shown(median(&[u64::MAX, u64::MAX - 1])), Some((2 * i128::from(u64::MAX) - 1, 2)));
    assert_eq!(shown(deviation(&[u64::MAX, 0])), Some((i128::from(u64::MAX), 2)));
    assert_eq!(deviation(&[u64::MAX, 0, 0]), None, "twice a distance is beyond 64 bits");
}
