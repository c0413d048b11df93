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
