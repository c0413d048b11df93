//! What operators decide about reports: in the figures, in the trace, in the ledger, after a restart and a
//! restore, and not before it was decided.

use std::process::Command;

use banyan_tests::until;
use serde_json::{Value, json};

use crate::small::{Done, SOON, Small, record, sync};

/// Runs the aggregator on another data directory.
fn elsewhere(small: &Small, dir: &str, arguments: &[&str]) -> Done {
    let mut command = Command::new(&small.world.binaries().aggregator);
    command.arg("--data-dir").arg(small.world.dir().join(dir)).args(arguments);
    command.env_remove("BANYAN_LANG").output().unwrap().into()
}

#[test]
fn a_correction_is_counted_traced_and_not_known_before_it_was_made() {
    let mut small = Small::new();
    let clinic = small.agent("clinic", &["V1-VC"]);
    record(&clinic, "2026-01-05", &["open_days=1", "total_visits=12", "home_visits=2"]);
    sync(&clinic);
    let place = ["V1-VC", "vc_daily", "2026-01-05"];
    // A moment in an answer has whole seconds: the report came in an earlier one than the question.
    let asked = || small.query("T1", "2026-01")["as_of"].as_str().unwrap().to_owned();
    let first = asked();
    let before = until("the next second", SOON, || Ok(Some(asked()).filter(|at| *at != first)));
    let before = before.unwrap();
    let correct = |values: &[&str], more: &[&str]| {
        small.run(&[&["correct"], &place[..], values, more, &["--lang", "en"]].concat())
    };
    let done = correct(&["total_visits=15"], &["--reason", "typo", "--by", "W07"]).exits(0);
    for part in ["V1-VC", "total_visits", "12", "15"] {
        assert!(done.out.contains(part), "{}", done.out);
    }
    assert!(done.err.contains("Corrected"), "{}", done.err);
    assert_eq!(small.element("T1", "2026-01", "total_visits")["value"], 15);
    assert_eq!(small.element("T1", "2026-01", "home_visits")["value"], 2);
    let past = small.json(&["query", "T1", "2026-01", "--as-of", &before]);
    assert_eq!(past["rows"][0]["elements"]["total_visits"]["value"], 12);
    let trace = small.json(&[&["report"], &place[..], &["--history"]].concat());
    let [typed, fixed] = trace["history"].as_array().unwrap().as_slice() else { panic!("{trace}") };
    assert_eq!((&fixed["how"], &fixed["entered_by"]), (&json!("operator"), &json!("W07")));
    assert_eq!((&fixed["reason"], &fixed["counted"]), (&json!("typo"), &json!(true)));
    assert_eq!(typed["replaced_by"], json!([fixed["version"]]));
    // Nothing new, nothing stored.
    let done = correct(&["total_visits=15"], &["--reason", "typo"]).exits(0);
    assert!(done.err.contains("Nothing changes"), "{}", done.err);
    // A broken rule needs a word for it.
    let done = correct(&["home_visits=99"], &["--reason", "recount"]).exits(2);
    assert!(done.err.contains("V02") && done.err.contains("--override"), "{}", done.err);
    correct(&["home_visits=99"], &["--reason", "recount", "--override", "verified"]).exits(0);
    for (values, more, part) in [
        (["total_visit=1"], ["--reason", "typo"], "did you mean total_visits"),
        (["beds_actual=1"], ["--reason", "typo"], "has no element beds_actual"),
        (["total_visits=99999999"], ["--reason", "typo"], "maximum"),
        (["total_visits=3"], ["--reason", "because"], "late_coding"),
    ] {
        let done = correct(&values, &more).exits(2);
        assert!(done.err.contains(part), "{part}: {}", done.err);
    }
    small.run(&["correct", "V1-VC", "vc_daily", "2026-01-05", "total_visits=1"]).exits(2);
    let done = small.run(&[
        "correct",
        "东村卫生室",
        "vc_daily",
        "2026-01-05",
        "total_visits=1",
        "--reason",
        "typo",
    ]);
    let done = done.exits(2);
    assert!(done.err.contains("V5-VC") && done.err.contains("V6-VC"), "{}", done.err);
    let args = ["withdraw", "V1-VC", "vc_daily", "2026-01-05", "--reason", "wrong_facility"];
    let gone = small.json(&args);
    assert_eq!((&gone["withdrawn"], &gone["saved"]), (&json!(true), &json!(true)));
    assert_eq!(small.element("T1", "2026-01", "total_visits")["value"], Value::Null);
    small.ok(&["verify", "--all"]);
    // A restart folds the same.
    let figures = small.figures("P", "2026-01");
    small.served.take().unwrap().stop().unwrap();
    assert_eq!(small.figures("P", "2026-01"), figures);
    small.ok(&["verify", "--all"]);
}

#[test]
fn a_file_of_a_past_year_is_counted_behind_what_was_typed_and_comes_back_with_the_acts() {
    let mut small = Small::new();
    let clinic = small.agent("clinic", &["V1-VC"]);
    record(&clinic, "2026-01-05", &["open_days=1", "total_visits=12"]);
    sync(&clinic);
    let file = "\
facility,form,period,open_days,total_visits,home_visits
V1-VC,vc_daily,2026-01-05,1,99,
V1-VC,vc_daily,2025-01-05,1,7,NA
V2-VC,vc_daily,2025-01-05,1,5,9
V3-VC,vc_daily,2025-01-05,1,5,
V9-VC,vc_daily,2025-01-05,1,5,
东村卫生室,vc_daily,2025-01-05,1,5,
V2-VC,vc_daily,2025-01-06,1,1.5,
V2-VC,vc_daily,2099-01-06,1,1,
V2-VC,vc_daily,2025-01-07,1
V5-VC,vc_daily,2025-01-05,1,4,1
";
    let path = small.file("past.csv", file);
    let path = path.to_str().unwrap();
    let preview = small.run(&["import", "csv", path, "--dry-run", "--lang", "en"]).exits(1);
    assert!(preview.err.contains("Only a preview"), "{}", preview.err);
    assert_eq!(small.element("P", "2025-01", "total_visits")["value"], Value::Null);
    let done = small.run(&["import", "csv", path, "--lang", "en", "--format", "json"]).exits(1);
    let sums: Value = serde_json::from_str(&done.out).unwrap();
    let told = |name: &str| sums[name].as_u64().unwrap();
    assert_eq!(
        (told("new"), told("replaced"), told("not_counted"), told("refused_rows")),
        (3, 1, 1, 6),
        "{sums}"
    );
    assert!(done.err.contains("line 2 V1-VC vc_daily 2026-01-05"), "{}", done.err);
    assert_eq!(
        sums["broken"]["V02b"]["reports"], 1,
        "home visits above visits are flagged: {sums}"
    );
    for part in ["line 5", "line 6", "line 7", "V5-VC", "line 8", "line 9", "line 10"] {
        assert!(done.err.contains(part), "{part}: {}", done.err);
    }
    let refused = std::fs::read_to_string(small.world.dir().join("past.errors.csv")).unwrap();
    assert_eq!(refused.lines().count(), 7, "{refused}");
    assert_eq!(small.element("P", "2025-01", "total_visits")["value"], 16);
    assert_eq!(small.element("P", "2026-01", "total_visits")["value"], 12);
    assert_eq!(small.query("P", "2026-01")["conflicts"], 1, "what stands behind shows");
    let history = small.json(&["report", "V1-VC", "vc_daily", "2025-01-05", "--history"]);
    assert_eq!(history["history"][0]["how"], "import");
    let done = small.run(&["import", "csv", path, "--lang", "en"]).exits(1);
    assert!(done.err.contains("Nothing new"), "{}", done.err);
    let mended = small.file("mended.csv", refused.replace(",1.5,", ",2,"));
    small.run(&["import", "csv", mended.to_str().unwrap()]).exits(1);
    assert_eq!(small.element("P", "2025-01", "total_visits")["value"], 18);
    let header =
        small.file("header.csv", "facility,form,period,visit\nV1-VC,vc_daily,2025-01-05,1\n");
    let done = small.run(&["import", "csv", header.to_str().unwrap(), "--lang", "en"]).exits(2);
    assert!(done.err.contains("visit"), "{}", done.err);
    small.ok(&["verify", "--all"]);
    // The acts alone bring it back, the same to the last version.
    let figures = small.figures("P", "2025-01");
    let backup = small.world.dir().join("identity.banyan");
    small.ok(&["backup", backup.to_str().unwrap(), "--identity"]);
    small.served.take().unwrap().stop().unwrap();
    elsewhere(&small, "again", &["restore", backup.to_str().unwrap()]).exits(0);
    let args = ["query", "P", "2025-01", "--by", "facility,day", "--format", "json"];
    let mut again: Value =
        serde_json::from_str(&elsewhere(&small, "again", &args).exits(0).out).unwrap();
    for part in ["as_of", "freshness"] {
        again.as_object_mut().unwrap().remove(part);
    }
    assert_eq!(again["rows"], figures["rows"]);
    // Whether a site is silent is no history; what has come in and when, is.
    assert_eq!(again["completeness"]["by_form"], figures["completeness"]["by_form"]);
    elsewhere(&small, "again", &["verify", "--all"]).exits(0);
}

#[test]
fn reports_are_returned_signed_off_locked_and_approved() {
    let mut small = Small::new();
    let clinic = small.agent("clinic", &["V1-VC"]);
    record(&clinic, "2026-01-05", &["open_days=1", "total_visits=12"]);
    record(&clinic, "2026-01-06", &["open_days=1", "total_visits=5"]);
    sync(&clinic);
    let place = ["V1-VC", "vc_daily", "2026-01-05"];
    let visits = || small.element("V1-VC", "2026-01", "total_visits")["value"].clone();
    // Returned: not counted, missing for that reason, until the clinic enters it again.
    small.run(&[&["return"], &place[..]].concat()).exits(2);
    let done =
        small.run(&[&["return"], &place[..], &["--reason", "recount", "--lang", "en"]].concat());
    let done = done.exits(0);
    assert!(done.out.contains("12") && done.err.contains("tell the facility"), "{done:?}");
    assert_eq!(visits(), 5);
    let returned =
        || small.query("V1-VC", "2026-01")["completeness"]["missing_why"]["returned"].clone();
    assert_eq!(returned(), 1);
    record(&clinic, "2026-01-05", &["total_visits=11"]);
    sync(&clinic);
    assert_eq!((visits(), returned()), (json!(16), json!(0)));
    // Signed off, then changed: restated.
    let staged = small.json(&["signoff", "K1", "vc_daily", "2026-01", "--by", "W01"]);
    assert_eq!((&staged["stage"], &staged["answered"]), (&json!("signed"), &json!(2)), "{staged}");
    small.run(&["signoff", "K1", "vc_daily", "2099-01"]).exits(2);
    record(&clinic, "2026-01-06", &["total_visits=6", "--reason", "recount"]);
    sync(&clinic);
    let answer = small.query("V1-VC", "2026-01");
    assert_eq!(
        (&answer["restated"], &answer["stage"]),
        (&json!(true), &json!("open")),
        "other forms are open"
    );
    let args = ["query", "V1-VC", "2026-01", "--indicator", "correction_rate"];
    let rate = small.json(&args)["rows"][0]["indicators"]["correction_rate"].clone();
    assert_eq!((&rate["numerator"], &rate["denominator"]), (&json!(1), &json!(2)), "{rate}");
    // Locked: what comes later waits.
    small.ok(&["lock", "T1", "vc_daily", "2026-01"]);
    record(&clinic, "2026-01-06", &["total_visits=7", "--reason", "recount"]);
    sync(&clinic);
    assert_eq!(visits(), 17);
    assert_eq!(small.query("V1-VC", "2026-01")["pending_after_lock"], 1);
    let trace = small.json(&["report", "V1-VC", "vc_daily", "2026-01-06", "--history"]);
    let stages: Vec<&str> = trace["decisions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|d| d["decision"].as_str().unwrap())
        .collect();
    assert_eq!(stages, ["signed", "locked"]);
    assert_eq!(trace["decisions"][0]["by"], "W01");
    assert_eq!(trace["history"][2]["pending"], true);
    let approve = ["approve", "V1-VC", "vc_daily", "2026-01-06", "--reason", "recount"];
    assert_eq!(small.json(&approve)["decision"], "approved");
    assert_eq!(visits(), 18);
    small.run(&approve).exits(2);
    small.ok(&["unlock", "T1", "vc_daily", "2026-01"]);
    let text =
        small.ok(&["report", "V1-VC", "vc_daily", "2026-01-06", "--history", "--lang", "en"]);
    assert!(text.contains("opened again") && text.contains("restated"), "{text}");
    small.ok(&["verify", "--all"]);
    let figures = small.figures("P", "2026-01");
    small.served.take().unwrap().stop().unwrap();
    assert_eq!(small.figures("P", "2026-01"), figures);
    let file = small.world.dir().join("out.csv");
    small.ok(&["export", "csv", "K1", "2026-01", "-o", file.to_str().unwrap()]);
    let text = std::fs::read_to_string(file).unwrap();
    assert!(text.contains("V1-VC,vc_daily,2026-01-06,total_visits,7,direct,,recount"), "{text}");
}
