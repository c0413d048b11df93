//! Reports the centre cannot count yet: held back, shown at both ends with reasons, counted once it can.

use std::sync::Arc;

use banyan_agent::clock::Clock;
use banyan_agent::command::{Command, Draft, Reply};
use banyan_agent::{Core, Options};
use banyan_shared::ids::Millis;
use banyan_tests::Agent;
use serde_json::{Value, json};

use crate::small::{Small, UNITS, json_of, record, run, sync};

/// The rows `parked` gives: code, facility and period of each.
fn parked(small: &Small) -> Vec<(String, String, String)> {
    let answer = small.json(&["parked"]);
    let text = |row: &Value, name: &str| row[name].as_str().unwrap().to_owned();
    let mut rows: Vec<_> = answer["entries"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| {
            assert_eq!(row["state"], "parked", "{row}");
            (text(row, "code"), text(row, "facility"), text(row, "period"))
        })
        .collect();
    rows.sort();
    rows
}

fn is_parked(small: &Small, code: &str, facility: &str, period: &str) {
    assert_eq!(parked(small), [(code.to_owned(), facility.to_owned(), period.to_owned())]);
}

/// That both ends show the one parked report, in both languages.
#[track_caller]
fn is_shown(small: &Small, agent: &Agent, code: &str, zh: &str, en: &str) {
    let id = json_of(agent, &["status"])["agent"].clone();
    let fleet = small.json(&["fleet"]);
    let row = fleet["agents"].as_array().unwrap().iter().find(|row| row["agent"] == id).unwrap();
    assert_eq!(row["parked"], 1, "{row}");
    let status = json_of(agent, &["status"]);
    assert_eq!((&status["parked"], &status["waiting"]), (&json!(1), &json!(0)), "{status}");
    for (lang, text) in [("zh", zh), ("en", en)] {
        let at_the_agent = run(agent, &["queue", "ls", "--lang", lang]).exits(0).out;
        assert!(at_the_agent.contains(text) && at_the_agent.contains(code), "{at_the_agent}");
        let at_the_centre = small.ok(&["parked", "--lang", lang]);
        assert!(at_the_centre.contains(text) && at_the_centre.contains(code), "{at_the_centre}");
    }
    let rows = json_of(agent, &["queue", "ls"]);
    assert_eq!((&rows[0]["state"], &rows[0]["reason"]), (&json!("parked"), &json!(code)), "{rows}");
}

/// After the centre has counted it the agent learns so at its next hello.
#[track_caller]
fn is_released(agent: &Agent) {
    sync(agent);
    assert_eq!(json_of(agent, &["status"])["parked"], 0);
    assert_eq!(json_of(agent, &["queue", "ls"]), json!([]));
}

#[test]
fn a_facility_the_registry_does_not_know_yet() {
    let small = Small::new();
    let township = small.agent("township", &["T1-TH", "V1-VC", "V2-VC"]);
    let without: String =
        UNITS.lines().filter(|l| !l.starts_with("V2-VC,")).map(|l| format!("{l}\n")).collect();
    let path = small.file("units.csv", &without);
    let preview = small.json(&["import-units", path.to_str().unwrap()]);
    assert_eq!(preview["applied"], false);
    assert_eq!(small.put_units(&without)["applied"], true);
    record(&township, "2026-01-05", &["total_visits=7", "--facility", "V2-VC"]);
    record(&township, "2026-01-05", &["total_visits=12", "--facility", "V1-VC"]);
    sync(&township);
    is_parked(&small, "unknown_facility", "V2-VC", "2026-01-05");
    is_shown(
        &small,
        &township,
        "unknown_facility",
        "登记册中尚无该机构",
        "the facility is not in the registry yet",
    );
    assert_eq!(small.element("T1", "2026-01-05", "total_visits")["value"], 12);

    let report = small.put_units(UNITS);
    assert_eq!(report["released"], 1, "{report}");
    assert_eq!(parked(&small), []);
    assert_eq!(small.element("T1", "2026-01-05", "total_visits")["value"], 19);
    is_released(&township);
    small.ok(&["verify", "--all"]);
}

#[test]
fn a_day_before_the_facility_was_registered() {
    let small = Small::new();
    let clinic = small.agent("clinic", &["V3-VC"]);
    let told =
        run(&clinic, &["record", "vc_daily", "2026-02-20", "total_visits=7", "--lang", "en"]);
    let told = told.exits(0);
    assert!(told.err.contains("[not_open]"), "{}", told.err);
    record(&clinic, "2026-03-01", &["total_visits=1"]);
    sync(&clinic);
    is_parked(&small, "not_yet_registered", "V3-VC", "2026-02-20");
    is_shown(
        &small,
        &clinic,
        "not_yet_registered",
        "该日期机构尚未登记",
        "the facility is not registered for that date yet",
    );
    assert_eq!(small.element("T1", "2026-02", "total_visits")["value"], json!(null));
    // Registered late: it had been open since February.
    let earlier = UNITS.replace("V3,2026-03-01,,,", "V3,2026-02-01,,,");
    assert_ne!(earlier, UNITS);
    assert_eq!(small.put_units(&earlier)["released"], 1);
    assert_eq!(small.element("T1", "2026-02", "total_visits")["value"], 7);
    is_released(&clinic);
}

#[test]
fn a_day_after_the_facility_was_closed() {
    let small = Small::with(&UNITS.replace("V4,,2026-02-01,,", "V4,,,,"), &[]);
    let clinic = small.agent("clinic", &["V4-VC"]);
    small.put_units(UNITS);
    record(&clinic, "2026-02-10", &["total_visits=7"]);
    record(&clinic, "2026-01-31", &["total_visits=2"]);
    sync(&clinic);
    is_parked(&small, "facility_closed", "V4-VC", "2026-02-10");
    is_shown(
        &small,
        &clinic,
        "facility_closed",
        "该日期机构已关闭",
        "the facility is closed on that date",
    );
    assert_eq!(small.element("T2", "2026-01", "total_visits")["value"], 2);
    small.put_units(&UNITS.replace("V4,,2026-02-01,,", "V4,,2026-03-01,,"));
    assert_eq!(small.element("T2", "2026-02", "total_visits")["value"], 7);
    is_released(&clinic);
}

/// A clock that stands still.
struct Stopped(Millis);

impl Clock for Stopped {
    fn now(&self) -> Millis {
        self.0
    }

    fn steady(&self) -> Millis {
        Millis(0)
    }
}

#[test]
fn a_period_in_the_future_from_a_clock_that_is_wrong() {
    let small = Small::new();
    let clinic = small.agent("clinic", &["V1-VC"]);
    let day = "2099-01-05";
    let right = run(&clinic, &["record", "vc_daily", day, "total_visits=7"]).exits(1);
    assert!(right.err.contains("[future_period]"), "{}", right.err);
    // The battery is flat: the agent cannot know that the day is to come, and saves it with a warning.
    {
        let options = Options {
            clock: Arc::new(Stopped(Millis(946_684_800_000))),
            ..Options::new(clinic.dir())
        };
        let mut core = Core::open(options).unwrap();
        let draft = Draft {
            form: "vc_daily".to_owned(),
            period: day.to_owned(),
            values: vec![("total_visits".to_owned(), "7".to_owned())],
            ..Draft::default()
        };
        let reply = core.handle(Command::Save { drafts: vec![draft], together: true });
        let Reply::Saved { saved, .. } = reply else { panic!("{reply:?}") };
        assert!(saved[0].warnings.iter().any(|note| note.code == "future_period"), "{saved:?}");
    }
    sync(&clinic);
    is_parked(&small, "future_period", "V1-VC", day);
    is_shown(&small, &clinic, "future_period", "统计期尚未开始", "the period has not begun yet");
    // Taken back where it was entered, nothing is held for the clinic any more.
    run(&clinic, &["withdraw", "vc_daily", day, "--reason", "wrong_period"]).exits(0);
    is_released(&clinic);
}
