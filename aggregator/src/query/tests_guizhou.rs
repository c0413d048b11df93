//! The shipped catalogue and Guizhou's registry.

use banyan_shared::tables::registry::{TableName, Tables};

use super::fixture::World;
use super::*;

fn guizhou() -> World {
    let catalogue = Catalogue::load(include_bytes!("../../../seeds/catalogue.toml")).unwrap();
    let files: [(TableName, &str, &[u8]); 4] = [
        (TableName::Units, "units.csv", include_bytes!("../../../seeds/guizhou/units.csv")),
        (
            TableName::Attributes,
            "attributes.csv",
            include_bytes!("../../../seeds/guizhou/attributes.csv"),
        ),
        (
            TableName::Networks,
            "networks.csv",
            include_bytes!("../../../seeds/guizhou/networks.csv"),
        ),
        (TableName::Members, "members.csv", include_bytes!("../../../seeds/guizhou/members.csv")),
    ];
    let tables = Tables::parse(&files).unwrap();
    let organisation = Organisation::build(&catalogue, &tables).unwrap();
    let mut cube = Cube::new(&catalogue);
    reserve(&mut cube, &catalogue, &organisation);
    World {
        catalogue,
        organisation,
        cube,
        sites: SiteStates::default(),
        plans: Plans::default(),
        next: 1,
    }
}

fn ask(place: &str, period: &str, by: &str, element: &str) -> QueryRequest {
    QueryRequest {
        place: place.to_owned(),
        period: period.to_owned(),
        by: vec![by.to_owned()],
        elements: vec![element.to_owned()],
        ..QueryRequest::default()
    }
}

#[test]
fn the_five_city_groups_have_152_members_and_87_experts_are_a_stock() {
    let mut w = guizhou();
    let now = w.at("2026-06-01", 12);
    let request = QueryRequest {
        network: Some("city_group".to_owned()),
        ..ask("52", "2026-01", "network", "total_visits")
    };
    let answer = w.engine().query(&request, now).unwrap();
    let groups: Vec<u64> = answer
        .rows
        .iter()
        .map(|row| row.elements.get("total_visits").unwrap().facilities_expected)
        .collect();
    assert_eq!((groups.len(), groups.iter().sum::<u64>()), (5, 152));

    // The source's own check: 31 + 20 + 16 + 13 + 7 = 87 on site now. Reported every month, added never.
    let experts =
        [("5201-RC2", 31), ("520502-RC", 20), ("5201-RC3", 16), ("5201-RC", 13), ("5201-RC4", 7)];
    for month in ["2026-01", "2026-02", "2026-03"] {
        for (unit, n) in experts {
            let n = n.to_string();
            w.put(unit, "rc_monthly", month, &[&n, "1", "", "", ""], ("2026-04-05", 9));
        }
    }
    let quarter = w.engine().query(&ask("52", "2026Q1", "", "experts_on_site"), now).unwrap();
    let figure = quarter.rows[0].elements.get("experts_on_site").unwrap();
    assert_eq!((figure.value, figure.facilities, figure.reports), (Some(87), 5, 15));
    let flow = w.engine().query(&ask("52", "2026Q1", "", "experts_short_visits"), now).unwrap();
    assert_eq!(flow.rows[0].elements.get("experts_short_visits").unwrap().value, Some(15));
    // The planned sixth centre is neither expected nor counted.
    assert_eq!(figure.facilities_expected, 5);
    let cities = w.engine().query(&ask("52", "2026-03", "city", "experts_on_site"), now).unwrap();
    let sum: u64 = cities
        .rows
        .iter()
        .filter_map(|row| row.elements.get("experts_on_site").unwrap().value)
        .sum();
    assert_eq!(sum, 87);
}

/// Every report of January 2026 from below a place, each line answered.
fn report_january(w: &mut World, place: &str) {
    let month = span_of("2026-01").unwrap();
    let last = month.last_day();
    let place = w.organisation.unit(place).unwrap();
    let mut reports = Vec::new();
    for unit in w.organisation.facilities_below(place, last) {
        let kind = w.organisation.kind_on(unit, last);
        for form in w.catalogue.forms.iter().filter(|form| form.kinds.contains(&kind)) {
            for period in month.parts(form.period_type) {
                let (code, lines) = (form.code.to_string(), form.lines.len());
                let unit = w.organisation.code(unit).to_string();
                reports.push((unit, code, period.to_string(), lines));
            }
        }
    }
    for (unit, form, period, lines) in reports {
        w.put(&unit, &form, &period, &vec!["3"; lines], ("2026-02-02", 9));
    }
}

#[test]
fn a_province_years_counties_and_cities_are_kept_together() {
    let mut w = guizhou();
    report_january(&mut w, "520502");
    let now = w.at("2026-06-01", 12);
    let month = span_of("2026-01").unwrap();
    let ask = |w: &World, unit| {
        let request = QueryRequest {
            place: w.organisation.code(unit).to_string(),
            period: month.to_string(),
            ..QueryRequest::default()
        };
        let rows = w.engine().query(&request, now).unwrap().rows;
        rows.iter().map(|row| row.elements.len() + row.indicators.len()).sum::<usize>()
    };
    let reported = w.organisation.unit("520502").unwrap();
    let figures = ask(&w, reported);
    let bytes = w.plans.rows().bytes();
    assert!(bytes < 130 * figures, "{figures} figures of a month reported take {bytes} bytes");

    // Of the others nothing was reported: every indicator says what it lacks, and is as large as it gets.
    let kind = |code: &str| w.catalogue.kind(code).unwrap();
    let kinds = [kind("city"), kind("county")];
    let mut figures = figures;
    for unit in w.organisation.units() {
        if unit != reported && kinds.contains(&w.organisation.kind_on(unit, month.last_day())) {
            figures += ask(&w, unit);
        }
    }
    let bytes = w.plans.rows().bytes();
    assert!(12 * bytes < kept::BYTES_LEFT, "{figures} figures take {bytes} bytes");
}
