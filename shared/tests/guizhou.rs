//! The shipped registry of Guizhou, read and built as an aggregator would: the facts the seeds promise.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use banyan_shared::catalogue::{Catalogue, Class, Lang};
use banyan_shared::organisation::{Found, Lookup, NetworkIx, Organisation, UnitIx};
use banyan_shared::period::{Date, Period};
use banyan_shared::tables::{TableName, Tables};

macro_rules! seed {
    ($name:literal) => {
        include_bytes!(concat!("../../seeds/", $name)).as_slice()
    };
}

fn files() -> [(TableName, &'static str, &'static [u8]); 9] {
    [
        (TableName::Units, "units.csv", seed!("guizhou/units.csv")),
        (TableName::Attributes, "attributes.csv", seed!("guizhou/attributes.csv")),
        (TableName::Networks, "networks.csv", seed!("guizhou/networks.csv")),
        (TableName::Members, "members.csv", seed!("guizhou/members.csv")),
        (TableName::Duties, "duties.csv", seed!("guizhou/duties.csv")),
        (TableName::Calendar, "calendar.csv", seed!("guizhou/calendar.csv")),
        (TableName::Targets, "targets.csv", seed!("targets.csv")),
        (TableName::Codes, "codes.csv", seed!("guizhou/codes.csv")),
        (TableName::Contacts, "contacts.csv", seed!("guizhou/contacts.csv")),
    ]
}

fn seeds() -> &'static (Catalogue, Organisation) {
    static SEEDS: OnceLock<(Catalogue, Organisation)> = OnceLock::new();
    SEEDS.get_or_init(|| {
        let catalogue = Catalogue::load(seed!("catalogue.toml")).expect("the shipped catalogue");
        let tables = Tables::parse(&files()).expect("the shipped registry");
        let organisation = Organisation::build(&catalogue, &tables).expect("the shipped map");
        (catalogue, organisation)
    })
}

fn date(text: &str) -> Date {
    text.parse().unwrap()
}
fn unit(code: &str) -> UnitIx {
    seeds().1.unit(code).unwrap_or_else(|| panic!("no {code}"))
}
fn networks(kind: &str, day: &str) -> Vec<NetworkIx> {
    let (catalogue, o) = seeds();
    o.networks_of_kind_on(catalogue.network_kind(kind).unwrap(), date(day))
}
fn kind(u: UnitIx, day: &str) -> &'static str {
    let (catalogue, o) = seeds();
    catalogue.kinds[o.kind_on(u, date(day)).at()].code.as_str()
}
fn by_kind(units: &[UnitIx], day: &str) -> BTreeMap<&'static str, usize> {
    let mut counts = BTreeMap::new();
    for u in units {
        *counts.entry(kind(*u, day)).or_default() += 1;
    }
    counts
}

#[test]
fn the_province_has_what_the_registry_has() {
    let (_, o) = seeds();
    let day = "2026-01-15";
    assert!(o.warnings().is_empty());
    let places: Vec<UnitIx> = o.units().filter(|u| o.class(*u) == Class::Administrative).collect();
    let counts = by_kind(&places, day);
    assert_eq!(
        counts,
        [("city", 9), ("county", 88), ("province", 1), ("township", 1510), ("village", 17964)]
            .into()
    );
    let all = o.facilities_below(unit("52"), date(day));
    let counts = by_kind(&all, day);
    assert_eq!(counts["village_clinic"], 17_964);
    assert_eq!(counts["township_health_centre"], 831 + 314);
    assert_eq!(counts["community_health_centre"], 365);
    assert_eq!(counts["maternal_child_hospital"], 88);
    assert_eq!(counts["county_desk"], 88);
    assert_eq!(counts["county_hospital"], 88 + 13 + 1);
    assert_eq!(counts["city_hospital"], 7 + 3 + 2);
    assert_eq!(counts["regional_centre"], 5, "the planned one is not open");
    for (city, counties, townships, villages) in [
        ("5201", 10, 146, 1629),
        ("5202", 4, 92, 1152),
        ("5203", 14, 254, 2093),
        ("5204", 6, 92, 1231),
        ("5205", 8, 279, 3716),
        ("5206", 10, 181, 2947),
        ("5223", 8, 140, 1294),
        ("5226", 16, 217, 2438),
        ("5227", 12, 109, 1464),
    ] {
        let below = by_kind(&o.facilities_below(unit(city), date(day)), day);
        let primary = below["township_health_centre"] + below["community_health_centre"];
        assert_eq!(
            (below["county_desk"], primary, below["village_clinic"]),
            (counties, townships, villages),
            "{city}"
        );
    }
}

#[test]
fn five_city_groups_have_152_members() {
    let (catalogue, o) = seeds();
    let day = "2026-01-15";
    let lead = catalogue.role("lead").unwrap();
    let groups = networks("city_group", day);
    assert_eq!(groups.len(), 5);
    let members: Vec<_> = groups.iter().flat_map(|n| o.members_on(*n, date(day))).collect();
    assert_eq!(members.len(), 152);
    assert_eq!(members.iter().filter(|m| m.roles.has(lead)).count(), 5);
    let counts = by_kind(&members.iter().map(|m| m.unit).collect::<Vec<_>>(), day);
    assert_eq!((counts["city_hospital"], counts["county_hospital"]), (5, 21));
    assert_eq!(counts["township_health_centre"] + counts["community_health_centre"], 126);
    let mut once: Vec<UnitIx> = members.iter().map(|m| m.unit).collect();
    once.sort_unstable();
    once.dedup();
    assert_eq!(once.len(), 152, "each once");
}

#[test]
fn every_primary_facility_is_in_one_community_or_group() {
    let (catalogue, o) = seeds();
    let day = date("2026-01-15");
    let community = catalogue.network_kind("county_community").unwrap();
    let group = catalogue.network_kind("city_group").unwrap();
    assert_eq!(networks("county_community", "2026-01-15").len(), 89);
    for u in o.facilities_below(unit("52"), day) {
        let of = |kind| o.networks_of(u, day, Some(kind)).len();
        let (communities, groups) = (of(community), of(group));
        assert!(communities <= 1 && groups <= 1, "{}", o.code(u));
        if matches!(
            kind(u, "2026-01-15"),
            "village_clinic" | "township_health_centre" | "community_health_centre"
        ) {
            assert_eq!(communities + groups, 1, "{}", o.code(u));
        }
    }
    for n in networks("county_community", "2026-01-15") {
        let lead = catalogue.role("lead").unwrap();
        let leads = o.members_on(n, day).iter().filter(|m| m.roles.has(lead)).count();
        assert_eq!(leads, 1, "{}", o.network_code(n));
    }
    let of = |code: &str| -> Vec<String> {
        let networks = o.networks_of(unit(code), day, None);
        networks.iter().map(|n| o.network_code(*n).to_string()).collect()
    };
    assert!(of("520502105218-VC").contains(&"CC-520502".to_owned()));
    assert!(of("520502105-TH").contains(&"CC-520502".to_owned()));
    assert!(of("520502107-TH").contains(&"CC-520502-2".to_owned()));
    assert_eq!(of("520303110-TH"), ["CC-520303"], "taken out of the grid");
    assert_eq!(of("520303102-TH"), ["CG-5203-2"]);
    assert_eq!(
        of("520303-CN"),
        ["CC-520303", "CG-5203-2"],
        "the district's lead is in the grid too"
    );
}

#[test]
fn the_108_sub_centres_reach_three_to_five_townships() {
    let (catalogue, o) = seeds();
    let day = "2026-01-15";
    let township = catalogue.kind("township").unwrap();
    let subcentre = catalogue.role("subcentre").unwrap();
    let all = networks("subcentre_catchment", day);
    assert_eq!(all.len(), 108);
    for n in all {
        let members = o.members_on(n, date(day));
        let centres: Vec<_> = members.iter().filter(|m| m.roles.has(subcentre)).collect();
        assert_eq!(centres.len(), 1);
        assert_eq!(kind(centres[0].unit, day), "township_health_centre");
        let mut towns: Vec<_> = members
            .iter()
            .filter_map(|m| o.ancestor_of_kind(m.unit, township, date(day)))
            .collect();
        towns.sort_unstable();
        towns.dedup();
        assert!((3..=5).contains(&towns.len()), "{}", o.network_code(n));
    }
}

#[test]
fn external_members_are_in_the_alliance_and_in_no_total() {
    let (_, o) = seeds();
    let day = date("2026-01-15");
    let alliance = o.network("SA-520502-1").unwrap();
    let external = |u: &UnitIx| o.class(*u) == Class::External;
    let members: Vec<UnitIx> = o.members_on(alliance, day).iter().map(|m| m.unit).collect();
    assert_eq!(members.iter().copied().filter(|u| external(u)).count(), 4);
    assert_eq!(members.len(), 1 + 8 + 4);
    assert_eq!(o.facilities_in(alliance, day).len(), 1 + 8);
    assert!(!o.reporters().iter().any(external));
    let programme = o.network("RP-52").unwrap();
    assert_eq!(o.members_on(programme, day).len(), 6);
    assert_eq!(o.facilities_in(programme, day).len(), 5);
    assert_eq!(o.duty_day(unit("52-RC"), "2026".parse().unwrap()), None);
}

#[test]
fn a_township_becomes_a_street_on_the_first_of_march() {
    let (_, o) = seeds();
    let (u, town) = (unit("520502101-TH"), unit("520502101"));
    assert_eq!(kind(u, "2026-02-28"), "township_health_centre");
    assert_eq!(kind(u, "2026-03-01"), "community_health_centre");
    assert_eq!(o.name_on(town, date("2026-02-28"), Lang::Zh), "梨树镇");
    assert_eq!(o.name_on(town, date("2026-03-01"), Lang::Zh), "梨树街道（示例）");
    for month in ["2026-02", "2026-03"] {
        let period: Period = month.parse().unwrap();
        assert_eq!(o.duty_day(u, period), Some(period.last_day()));
    }
    assert_eq!(
        o.networks_of(u, date("2026-02-28"), None),
        o.networks_of(u, date("2026-03-01"), None)
    );
}

#[test]
fn a_merged_clinic_closes_and_hands_on() {
    let (_, o) = seeds();
    let heir = unit("520502103001-VC");
    let closed: Vec<UnitIx> = o
        .facilities_below(unit("520502103"), date("2026-01-31"))
        .into_iter()
        .filter(|u| !o.is_open(*u, date("2026-02-01")))
        .collect();
    assert_eq!(closed.len(), 1);
    assert_eq!(o.successor_on(closed[0], date("2026-02-01")), Some(heir));
    assert_eq!(o.duty_day(closed[0], "2026-02".parse().unwrap()), None);
}

#[test]
fn the_calendar_of_2026_knows_holidays_and_the_days_worked_instead() {
    let (_, o) = seeds();
    let u = unit("520502105-TH");
    let working = (1..=12).flat_map(|month| {
        Period::month(2026, month).unwrap().parts(banyan_shared::period::PeriodType::Day)
    });
    let working = working.filter(|day| o.is_working_day(u, day.first_day())).count();
    // 261 weekdays, less 19 of the holidays' 33 days falling on weekdays, plus 6 weekend days worked.
    assert_eq!(working, 248);
    assert!(o.is_working_day(u, date("2026-02-28")) && !o.is_working_day(u, date("2026-02-16")));
}

#[test]
fn names_find_units_and_networks() {
    let (_, o) = seeds();
    let day = date("2026-01-15");
    let one = |text: &str| o.find(text, day);
    assert_eq!(one("七星关区"), Lookup::One(Found::Unit(unit("520502"))));
    assert_eq!(one("浙江省人民医院毕节医院"), Lookup::One(Found::Unit(unit("520502-RC"))));
    let Lookup::Candidates(candidates) = one("龙场镇") else {
        panic!("龙场镇 is five townships")
    };
    assert_eq!(candidates.len(), 5);
    assert!(candidates.iter().all(|c| c.path.len() == 4 && c.path[0] == "贵州省"));
}
