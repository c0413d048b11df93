//! A clinic's way, from the code to the county's figure, with the real programs.

use serde_json::json;

use crate::small::{Small, json_of, record, run, sync};

#[test]
fn a_number_typed_at_a_clinic_is_in_the_county_and_the_community() {
    let small = Small::new();
    let code = small.ok(&["enroll", "V1-VC"]);
    let code = code.lines().last().unwrap();
    let clinic = small.world.agent("clinic");
    run(&clinic, &["enroll", code, "--lang", "en"]).exits(0);
    let values = [
        "open_days=1",
        "total_visits=12",
        "home_visits=2",
        "tcm_visits=3",
        "referrals_up_out=1",
        "remote_requests_sent=0",
        "chronic_followups=NA",
    ];
    record(&clinic, "2026-01-05", &values);
    assert_eq!(json_of(&clinic, &["status"])["waiting"], 1);
    sync(&clinic);
    let status = json_of(&clinic, &["status"]);
    assert_eq!((&status["waiting"], &status["received"]), (&json!(0), &json!(1)));
    assert_eq!((&status["home"], &status["parked"]), (&json!("V1-VC"), &json!(0)));

    let visits = small.element("V1-VC", "2026-01", "total_visits");
    let expected = json!({
        "value": 12, "state": "reported", "unit": "visit", "reports": 1, "expected": 31,
        "not_applicable": 0, "facilities": 1, "facilities_expected": 1, "definition": "1", "flags": [],
    });
    let known = |name: &str| visits[name].clone();
    for (name, value) in expected.as_object().unwrap() {
        if name != "flags" {
            assert_eq!(&known(name), value, "{name} of {visits}");
        }
    }
    // The county expects 31 reports of each of its three open clinics.
    for unit in ["K1", "CC-K1"] {
        let visits = small.element(unit, "2026-01", "total_visits");
        assert_eq!(visits["value"], 12, "{unit}");
        assert_eq!(visits["state"], "reported", "{unit}");
    }
    let chronic = small.element("V1-VC", "2026-01-05", "chronic_followups");
    assert_eq!(chronic["value"], json!(null));
    assert_eq!(
        (&chronic["state"], &chronic["not_applicable"]),
        (&json!("not_applicable"), &json!(1))
    );
    let zero = small.element("V1-VC", "2026-01", "remote_requests_sent");
    assert_eq!((&zero["value"], &zero["state"]), (&json!(0), &json!("reported")));
    let none = small.element("V2-VC", "2026-01", "total_visits");
    assert_eq!((&none["value"], &none["state"]), (&json!(null), &json!("missing")));
    let received = small.json(&["completeness", "V1-VC", "2026-01", "--form", "vc_daily"]);
    let completeness = &received["rows"][0];
    assert!(completeness.to_string().contains("\"received\":1"), "{received}");
    small.served.unwrap().stop().unwrap();
}

#[test]
fn a_later_entry_corrects_withdraws_and_keeps_what_it_does_not_name() {
    let small = Small::new();
    let clinic = small.agent("clinic", &["V1-VC"]);
    let day = "2026-01-05";
    record(&clinic, day, &["open_days=1", "total_visits=12", "home_visits=2", "tcm_visits=3"]);
    record(&clinic, day, &["referrals_up_out=1", "remote_requests_sent=4", "chronic_followups=5"]);
    let said = record(&clinic, day, &["total_visits=13", "--reason", "typo", "--by", "w07"]);
    assert!(said.contains("total_visits 12→13"), "{said}");
    sync(&clinic);
    let values = |day: &str| {
        let answer = small.query("V1-VC", day);
        let elements = answer["rows"][0]["elements"].clone();
        let codes = [
            "open_days",
            "total_visits",
            "home_visits",
            "tcm_visits",
            "referrals_up_out",
            "remote_requests_sent",
            "chronic_followups",
        ];
        codes.map(|code| elements[code]["value"].as_u64())
    };
    assert_eq!(values(day), [1, 13, 2, 3, 1, 4, 5].map(Some));

    let trace = small.json(&["report", "V1-VC", "vc_daily", day, "--history"]);
    let history = trace["history"].as_array().unwrap();
    assert_eq!(history.len(), 3, "{trace}");
    assert_eq!(trace["heads"], 1);
    let counted: Vec<bool> = history.iter().map(|v| v["counted"].as_bool().unwrap()).collect();
    assert_eq!(counted.iter().filter(|counted| **counted).count(), 1);
    let newest = history.iter().find(|version| version["counted"] == true).unwrap();
    assert_eq!(
        (&newest["reason"], &newest["entered_by"], &newest["how"]),
        (&json!("typo"), &json!("w07"), &json!("direct"))
    );
    assert_eq!(newest["values"]["total_visits"], 13);
    assert_eq!(newest["values"]["chronic_followups"], 5);

    // Not open is seven zeros, not seven gaps.
    record(&clinic, "2026-01-06", &["--closed"]);
    // Taken back: nothing is left of it.
    run(&clinic, &["withdraw", "vc_daily", day, "--reason", "wrong_period"]).exits(0);
    // Emptied: it is known that nothing is known.
    record(&clinic, "2026-01-07", &["total_visits=9"]);
    sync(&clinic);
    assert_eq!(values("2026-01-07")[1], Some(9));
    record(&clinic, "2026-01-07", &["total_visits="]);
    sync(&clinic);
    assert_eq!(values("2026-01-06"), [Some(0); 7]);
    assert_eq!(values(day), [None; 7]);
    assert_eq!(values("2026-01-07"), [None; 7]);
    let received = |day: &str| {
        let answer = small.query("V1-VC", day);
        (answer["completeness"]["received"].as_u64(), answer["completeness"]["missing"].as_u64())
    };
    assert_eq!(received("2026-01-06"), (Some(1), Some(0)));
    assert_eq!(received("2026-01-07"), (Some(0), Some(1)), "an empty report is not received");
    assert_eq!(received(day), (Some(0), Some(1)), "a withdrawn report is not received");
    let refused = run(&clinic, &["record", "vc_daily", "2026-01-08", "total_visits="]).exits(1);
    assert!(refused.err.contains("empty_report"), "{}", refused.err);
    // It can be entered again.
    record(&clinic, day, &["total_visits=1"]);
    sync(&clinic);
    assert_eq!(values(day), [None, Some(1), None, None, None, None, None]);
}

#[test]
fn of_two_writers_the_clinics_own_number_counts_and_the_conflict_is_shown() {
    let small = Small::new();
    let clinic = small.agent("clinic", &["V1-VC"]);
    let township = small.agent("township", &["T1-TH", "V1-VC", "V2-VC"]);
    let day = "2026-01-05";
    record(&clinic, day, &["open_days=1", "total_visits=12"]);
    record(&township, day, &["open_days=1", "total_visits=40", "--facility", "V1-VC"]);
    record(&township, day, &["open_days=1", "total_visits=7", "--facility", "V2-VC"]);
    sync(&clinic);
    // Last, and still not the one that counts.
    sync(&township);
    let answer = small.query("T1", day);
    assert_eq!(answer["conflicts"], 1, "{answer}");
    assert_eq!(answer["rows"][0]["elements"]["total_visits"]["value"], 19);
    assert_eq!(answer["completeness"]["proxy"], 1, "{answer}");
    let trace = small.json(&["report", "V1-VC", "vc_daily", day, "--history"]);
    assert_eq!(trace["heads"], 2);
    assert_eq!(trace["values"]["total_visits"], 12);
    let hows: Vec<&str> =
        trace["history"].as_array().unwrap().iter().map(|v| v["how"].as_str().unwrap()).collect();
    assert_eq!(hows, ["direct", "proxy"]);
}

#[test]
fn without_a_line_sync_says_so_and_loses_nothing() {
    let small = Small::new();
    let clinic = small.agent("clinic", &["V1-VC"]);
    record(&clinic, "2026-01-05", &["total_visits=12"]);
    small.world.link.cut();
    let begun = std::time::Instant::now();
    let late = run(&clinic, &["sync", "--timeout", "1s", "--lang", "en"]).exits(3);
    // Less than it waits unless told otherwise.
    assert!(begun.elapsed() < std::time::Duration::from_secs(60));
    assert!(late.err.contains("No line to the centre"), "{}", late.err);
    assert!(late.err.contains("1 entries wait"), "{}", late.err);
    let late = run(&clinic, &["sync", "--timeout", "1s"]).exits(3);
    assert!(late.err.contains("数据已安全保存在本机"), "{}", late.err);
    // It can still be worked with.
    record(&clinic, "2026-01-06", &["total_visits=3"]);
    let status = json_of(&clinic, &["status"]);
    assert_eq!((&status["waiting"], &status["received"]), (&json!(2), &json!(0)));
    small.world.link.restore();
    sync(&clinic);
    assert_eq!(small.element("V1-VC", "2026-01", "total_visits")["value"], 15);
}

#[test]
fn the_province_of_the_seeds_takes_a_clinics_number() {
    let world = banyan_tests::World::new(None).unwrap();
    world.init(&[]).unwrap();
    let served = world.serve().unwrap();
    let small = Small { world, served: Some(served), init: String::new() };
    let clinic = small.agent("clinic", &["520502105001-VC"]);
    record(&clinic, "2026-01-31", &["open_days=1", "total_visits=12"]);
    sync(&clinic);
    for (unit, path) in [
        ("520502", vec!["贵州省", "毕节市", "七星关区"]),
        ("七星关区", vec!["贵州省", "毕节市", "七星关区"]),
        ("5205", vec!["贵州省", "毕节市"]),
        ("52", vec!["贵州省"]),
    ] {
        let answer = small.query(unit, "2026-01-31");
        assert_eq!(answer["rows"][0]["elements"]["total_visits"]["value"], 12, "{unit}");
        assert_eq!(answer["path"], json!(path));
        assert_eq!(answer["view"], "administrative");
    }
    let community = small.query("CC-520502", "2026-01-31");
    assert_eq!(
        (&community["view"], &community["network_kind"]),
        (&json!("network"), &json!("county_community"))
    );
    assert_eq!(community["rows"][0]["elements"]["total_visits"]["value"], 12);
}
