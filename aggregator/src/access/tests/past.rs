//! Questions about a moment of the past, whose registry was another one: other units and networks, in another
//! order, with other members.

use std::collections::BTreeMap;

use banyan_shared::ids::{AgentId, Epoch, VersionId};
use banyan_shared::report::{Content, EnteredAt, How, Value as Cell};

use super::*;
use crate::cube::AcceptedVersion;
use crate::service::{GivenTable, ImportUnits};

/// What was in force on 1 February. `Z` was registered by mistake, `E` in the wrong county.
const THEN: [&str; 3] = [
    "code,name,kind,parent,opened,closed
P,省,province,,,
C1,一县,county,P,,
C2,二县,county,P,,
C3,三县,county,P,,
T1,一镇,township,C1,,
T2,二镇,township,C1,,
T3,三镇,township,C2,,
T4,四镇,township,C3,,
A,甲诊所,clinic,T1,,
B,乙诊所,clinic,T1,,
Z,撤诊所,clinic,T2,,
D,丁诊所,clinic,T3,,
E,误诊所,clinic,T4,,
U,戊诊所,clinic,T4,,
H1,一县医院,hospital,C1,,
H2,二县医院,hospital,C2,,
",
    "code,name,kind,area
G1,一县医共体,community,C1
L0,旧联盟,alliance,
L1,联盟一,alliance,
L3,联盟三,alliance,
L4,联盟四,alliance,
",
    "network,unit,role,from,to
G1,C1,member,,
L0,A,member,,
L0,D,member,,
L1,A,member,,
L1,H1,lead,,
L3,E,member,,
L3,U,member,,
L4,B,member,,
L4,Z,member,,
",
];

/// What is in force since: units and networks that come before the others in every order.
const SINCE: [(&str, &str); 3] = [
    (
        "units.csv",
        "code,name,kind,parent,opened,closed
P,省,province,,,
A0,新县,county,P,,
A00,新镇,township,A0,,
A000,新诊所,clinic,A00,,
A001,新二诊所,clinic,A00,,
C2,二县,county,P,,
T3,三镇,township,C2,,
D,丁诊所,clinic,T3,,
E,误诊所,clinic,T3,,
H2,二县医院,hospital,C2,,
C1,一县,county,P,,
C3,三县,county,P,,
T1,一镇,township,C1,,
T2,二镇,township,C1,,
T4,四镇,township,C3,,
A,甲诊所,clinic,T1,,
B,乙诊所,clinic,T1,,
U,戊诊所,clinic,T4,,
H1,一县医院,hospital,C1,,
",
    ),
    (
        "networks.csv",
        "code,name,kind,area
F0,新联盟,alliance,
F1,新医共体,community,C2
G1,一县医共体,community,C1
L1,联盟一,alliance,
",
    ),
    (
        "members.csv",
        "network,unit,role,from,to
F0,D,member,,
F0,H2,lead,,
F1,C2,member,,
G1,C1,member,,
L1,A,member,,
L1,H1,lead,,
",
    ),
];

/// What each reported for 5 January: four digits that stand nowhere else.
const COUNTS: [(&str, u64); 6] =
    [("A", 1901), ("B", 1902), ("Z", 1903), ("D", 2901), ("E", 3901), ("U", 3902)];

/// Every place of both moments.
const PLACES: [&str; 27] = [
    "P", "C1", "C2", "C3", "T1", "T2", "T3", "T4", "A", "B", "Z", "D", "E", "U", "H1", "H2", "G1",
    "L0", "L1", "L3", "L4", "A0", "A00", "A000", "A001", "F0", "F1",
];

/// Who may see what of January as known on 1 February: the places, and the facilities in them.
fn visible() -> BTreeMap<&'static str, Vec<&'static str>> {
    BTreeMap::from([
        ("C1", vec!["C1", "T1", "T2", "A", "B", "Z", "H1", "G1", "L1", "L4"]),
        ("C2", vec!["C2", "T3", "D", "H2"]),
        // What was counted as theirs then is another's now: nobody's but those who see both.
        ("C3", vec!["U"]),
        ("T1", vec!["T1", "A", "B"]),
        ("A", vec!["A"]),
        // Members of the community are the county's facilities.
        ("G1", vec!["C1", "T1", "T2", "A", "B", "Z", "H1", "G1", "L1", "L4"]),
        ("L1", vec!["A", "H1", "L1"]),
        // Not there then: what was theirs cannot be told.
        ("A0", vec![]),
        ("F0", vec![]),
        ("", PLACES[..21].to_vec()),
    ])
}

fn put(centre: &Centre, counts: &[(&str, u64)]) {
    let mut state = centre.service.state().write();
    let catalogue = state.catalogue.clone();
    let received_at = catalogue.moment("2026-01-10".parse().unwrap(), 8, 0);
    for (seq, (facility, count)) in (1..).zip(counts) {
        let content = Content {
            values: vec![Cell::Number(*count), Cell::Missing],
            how: How::Direct,
            entered_by: None,
            reason: None,
            override_code: None,
            withdrawn: false,
            entered_at: EnteredAt { minute: received_at.minute(), doubtful: false },
            replaces: vec![],
        };
        let version = AcceptedVersion {
            facility: facility.parse().unwrap(),
            form: catalogue.form("daily").unwrap(),
            period: "2026-01-05".parse().unwrap(),
            id: VersionId { writer: AgentId([7; 6]), epoch: Epoch { counter: 1, random: 1 }, seq },
            content,
            received_at,
            position: 1,
        };
        state.cube.apply(&catalogue, version).unwrap();
    }
}

/// A centre whose registry has become another since 1 February.
fn changed() -> Centre {
    let centre = Centre::with(THEN);
    put(&centre, &COUNTS);
    let table = |(file, text): &(&str, &str)| GivenTable {
        file: (*file).to_owned(),
        bytes: data_encoding::BASE64.encode(text.as_bytes()),
    };
    let call = ImportUnits {
        tables: SINCE.iter().map(table).collect(),
        apply: true,
        months: Some(Vec::new()),
        ..ImportUnits::default()
    };
    let report = centre.runtime.block_on(centre.service.import_units("admin", call)).unwrap();
    assert!(report.applied, "{report:?}");
    centre.later(86_400_000);
    centre
}

const MOMENT: &str = "2026-02-01T00:00:00%2B08:00";

/// Every way to look at a place.
fn addresses(place: &str) -> Vec<String> {
    let of_api = format!("unit={place}&period=2026-01&as_of={MOMENT}");
    let of_page = format!("?period=2026-01&as_of={MOMENT}");
    let mut all = Vec::new();
    for route in ["query", "completeness"] {
        for more in ["", "&by=children", "&by=facility", "&by=kind", "&by=role&network=community"] {
            all.push(format!("/v1/{route}?{of_api}{more}"));
        }
        for more in ["&format=csv", "&format=table", "&membership=today", "&membership=2026-01-15"]
        {
            all.push(format!("/v1/{route}?{of_api}&by=facility{more}"));
        }
    }
    all.push(format!("/v1/query?{of_api}&by=month&element=visits&names=true"));
    let day = format!("facility={place}&form=daily&period=2026-01-05&as_of={MOMENT}");
    for more in ["", "&history=true", "&format=csv"] {
        all.push(format!("/v1/report?{day}{more}"));
    }
    all.push(format!("/place/{place}{of_page}"));
    all.push(format!("/place/{place}{of_page}&show=visits&groups=alliance&map=today"));
    for which in ["none", "total", "groups", "outside"] {
        all.push(format!("/list/{place}/{which}{of_page}&groups=community&show=visits"));
    }
    all.push(format!("/report/{place}/daily/2026-01-05?as_of={MOMENT}"));
    all
}

/// The counts in a text, also where pages divide their thousands.
fn counts_in(body: &str) -> Vec<&'static str> {
    let plain: String = body.chars().filter(|c| !c.is_whitespace() && *c != '\u{2009}').collect();
    let told = |(_, count): &&(&str, u64)| plain.contains(&count.to_string());
    COUNTS.iter().filter(told).map(|(facility, _)| *facility).collect()
}

#[test]
fn of_the_past_too_nobody_sees_beyond_their_scope_by_any_route() {
    let centre = changed();
    centre.user("root", "admin", "");
    let site = centre.serve(REMOTE);
    for (scope, places) in visible() {
        let browser = site.bearer(&centre.token("viewer", scope));
        for place in PLACES {
            let may = places.contains(&place);
            let mut shown = 0;
            for path in addresses(place) {
                let answer = browser.get(&path);
                let head: String = answer.body.chars().take(200).collect();
                let told = format!("{scope:?} {path}: {} {head}", answer.status);
                assert!(answer.status < 500, "{told}");
                if may {
                    // Wrong questions are told so: lists are of places, reports of facilities. The network of
                    // a part has members elsewhere.
                    let beyond =
                        ["/groups", "/repeated", "/outside"].iter().any(|l| path.contains(l));
                    assert!(answer.status != 403 || beyond, "{told}");
                    shown += usize::from(answer.status == 200);
                } else {
                    assert_ne!(answer.status, 200, "{told}");
                }
                for facility in counts_in(&answer.body) {
                    assert!(places.contains(&facility), "{facility} shown to {told}");
                }
            }
            assert_eq!(shown > 3, may, "{shown} of {place} to {scope:?}");
        }
    }
}

#[test]
fn of_the_past_too_networks_are_shown_whole_or_not_at_all() {
    let centre = changed();
    centre.user("root", "admin", "");
    let site = centre.serve(REMOTE);
    let one = site.bearer(&centre.token("viewer", "C1"));
    let all = site.bearer(&centre.token("viewer", ""));
    let asked = |kind: &str| {
        format!("/v1/query?unit=C1&period=2026-01&by=network&network={kind}&as_of={MOMENT}")
    };
    // The old alliance has a member in another county; none of those there are now has.
    assert_eq!(one.get(&asked("alliance")).status, 403);
    assert_eq!(one.get(&asked("community")).status, 200);
    assert_eq!(one.get("/v1/query?unit=C1&period=2026-01&by=network&network=alliance").status, 200);
    let whole = all.get(&asked("alliance"));
    assert!(whole.status == 200 && whole.body.contains("L0"), "{}", whole.body);
    for which in ["groups", "repeated", "outside"] {
        let list = format!("/list/C1/{which}?period=2026-01&groups=alliance&as_of={MOMENT}");
        assert_eq!(one.get(&list).status, 403, "{which}");
        assert_eq!(all.get(&list).status, 200, "{which}");
    }
    let page = format!("/place/C1?period=2026-01&groups=alliance&show=visits&as_of={MOMENT}");
    assert!(!one.get(&page).body.contains("/place/L0"));
    assert!(all.get(&page).body.contains("/place/L0"));
    // A name means what it meant then.
    let named = |name: &str| format!("/v1/query?unit={name}&period=2026-01&as_of={MOMENT}");
    let encoded = |name: &str| {
        let mut out = String::new();
        crate::pages::encode(name, &mut out);
        out
    };
    for (name, status) in [("一县", 200), ("撤诊所", 200), ("二县", 403), ("旧联盟", 403)]
    {
        assert_eq!(one.get(&named(&encoded(name))).status, status, "{name}");
    }
    // Before there was anything nothing is answered.
    let before = "/v1/query?unit=C1&period=2026-01&as_of=2025-11-01T00:00:00Z";
    assert_eq!(one.get(before).status, 400);
}

#[test]
fn a_site_that_is_no_more_is_put_down_as_one() {
    let centre = changed();
    centre.user("li", "viewer", "C1");
    let li = centre.serve(LOCAL).log_in("li");
    for path in ["/v1/query?unit=Z&period=2026-01&", "/place/Z?period=2026-01&"] {
        let answer = li.get(&format!("{path}as_of={MOMENT}"));
        assert_eq!(answer.status, 200, "{path}: {}", answer.body);
    }
    let log = centre.log(Some("read"));
    let read: Vec<(&str, &str)> =
        log.iter().map(|r| (r["what"].as_str().unwrap(), r["of"].as_str().unwrap())).collect();
    assert_eq!(read, [("query", "Z 2026-01"), ("page", "Z 2026-01")]);
}

#[test]
fn a_trend_goes_no_further_back_than_the_scope() {
    let centre = Centre::new();
    put(&centre, &[("M", 1905)]);
    centre.user("root", "admin", "");
    let site = centre.serve(REMOTE);
    // The clinic moves to county two in March; its January is county one's.
    let page = |scope: &str| {
        let answer = site.bearer(&centre.token("viewer", scope)).get("/place/M?period=2026-03");
        assert_eq!(answer.status, 200, "{}", answer.body);
        answer.body.contains("1 905") || answer.body.contains("1905")
    };
    assert!(page("C1"), "a trend shows the months before");
    assert!(!page("C2"));
}
