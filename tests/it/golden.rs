//! Outputs compared with files in `tests/it/golden`; `BANYAN_GOLDEN=write` writes them anew.

use std::path::PathBuf;

use banyan_tests::Agent;
use serde_json::Value;

use crate::small::{SOON, Small, json_of, record, run, sync};

/// Compares `text`, freed of what differs from run to run, with the golden file `name`.
#[track_caller]
pub(crate) fn golden(name: &str, text: &str, hidden: &[(String, &str)]) {
    let mut text = mask_times(text);
    for (secret, shown) in hidden {
        text = text.replace(secret, shown);
    }
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("it/golden").join(name);
    if std::env::var("BANYAN_GOLDEN").is_ok_and(|value| value == "write") {
        std::fs::create_dir_all(path.parent().expect("a file has a folder")).unwrap();
        std::fs::write(&path, text).unwrap();
        return;
    }
    let known = std::fs::read_to_string(&path).unwrap_or_else(|error| {
        panic!("{}: {error}; write it with BANYAN_GOLDEN=write", path.display())
    });
    assert!(
        text == known,
        "{} differs; if that is meant, write it anew with BANYAN_GOLDEN=write\n--- now\n{text}\n--- known\n{known}",
        path.display()
    );
}

/// Replaces every moment (`2026-02-10T09:00:00+08:00`) by underlines of the same length, so that tables keep
/// their shape.
fn mask_times(text: &str) -> String {
    let shape = b"dddd-dd-ddTdd:dd";
    let mut bytes = text.as_bytes().to_vec();
    let mut at = 0;
    while at + shape.len() <= bytes.len() {
        let fits = |offset: usize, wanted: u8| match wanted {
            b'd' => bytes[at + offset].is_ascii_digit(),
            exact => bytes[at + offset] == exact || exact == b'T' && bytes[at + offset] == b' ',
        };
        if shape.iter().enumerate().all(|(offset, wanted)| fits(offset, *wanted)) {
            let more = bytes[at + shape.len()..]
                .iter()
                .take_while(|byte| byte.is_ascii_digit() || matches!(byte, b':' | b'+'))
                .count();
            bytes[at..at + shape.len() + more].fill(b'_');
        }
        at += 1;
    }
    String::from_utf8(bytes).expect("ASCII was replaced by ASCII")
}

/// The small country with a day or two of everything: reports, a proxy, a conflict, a parked report, a gap.
fn country() -> (Small, Agent, Agent, Vec<(String, &'static str)>) {
    let small = Small::new();
    let clinic = small.agent("clinic", &["V1-VC"]);
    let township = small.agent("township", &["T1-TH", "V1-VC", "V2-VC", "V3-VC"]);
    let week = ["open_days=1", "total_visits=12", "home_visits=2", "tcm_visits=3"];
    record(&clinic, "2026-01-05..2026-01-11", &week);
    record(&clinic, "2026-01-12", &["--closed", "--by", "w07"]);
    record(&clinic, "2026-01-05", &["total_visits=13", "--reason", "typo", "--by", "w07"]);
    record(&township, "2026-01-05", &["total_visits=40", "--facility", "V1-VC"]);
    record(&township, "2026-01-05..2026-01-06", &["total_visits=5", "--facility", "V2-VC"]);
    record(&township, "2026-01-20", &["total_visits=1", "--facility", "V3-VC"]);
    sync(&clinic);
    sync(&township);
    let mut hidden = Vec::new();
    let trace = small.json(&["report", "V1-VC", "vc_daily", "2026-01-05", "--history"]);
    let names = ["<version 1>", "<version 2>", "<version 3>"];
    for (version, name) in trace["history"].as_array().unwrap().iter().zip(names) {
        hidden.push((version["version"].as_str().unwrap().to_owned(), name));
    }
    for (agent, name) in [(&clinic, "<clinic>"), (&township, "<townsh>")] {
        hidden.push((json_of(agent, &["status"])["agent"].as_str().unwrap().to_owned(), name));
    }
    let entries = json_of(&township, &["queue", "ls"]);
    hidden.push((entries[0]["entry"].as_str().unwrap().to_owned(), "<the entry>"));
    (small, clinic, township, hidden)
}

#[test]
fn what_programs_and_people_read_is_as_it_was() {
    let (small, clinic, township, hidden) = country();
    let centre = |name: &str, args: &[&str]| golden(name, &small.ok(args), &hidden);
    let two = ["--element", "total_visits,home_visits"];
    let with = |args: &[&'static str]| [args, &two].concat();
    centre("query.json", &with(&["query", "K1", "2026-01", "--format", "json"]));
    centre("query.csv", &with(&["query", "K1", "2026-01", "--by", "facility", "--format", "csv"]));
    centre("query.zh.txt", &with(&["query", "K1", "2026-01", "--by", "children"]));
    centre("query.en.txt", &with(&["query", "K1", "2026-01", "--by", "children", "--lang", "en"]));
    centre("community.json", &with(&["query", "CC-K1", "2026-01-05", "--format", "json"]));
    let form = ["--form", "vc_daily"];
    let with = |args: &[&'static str]| [args, &form].concat();
    centre("completeness.json", &with(&["completeness", "K1", "2026-01", "--format", "json"]));
    centre(
        "completeness.csv",
        &with(&["completeness", "K1", "2026-01", "--by", "children", "--format", "csv"]),
    );
    centre("completeness.zh.txt", &with(&["completeness", "K1", "2026-01", "--by", "children"]));
    centre(
        "report.json",
        &["report", "V1-VC", "vc_daily", "2026-01-05", "--history", "--format", "json"],
    );
    centre("report.zh.txt", &["report", "V1-VC", "vc_daily", "2026-01-05", "--history"]);
    centre("parked.csv", &["parked", "--format", "csv"]);
    centre("parked.en.txt", &["parked", "--lang", "en"]);
    centre(
        "units.csv",
        &["units", "K1", "--kind", "village_clinic", "--date", "2026-01-15", "--format", "csv"],
    );

    let agent = |name: &str, agent: &Agent, args: &[&str]| {
        golden(name, &run(agent, args).exits(0).out, &hidden);
    };
    agent("agent-queue.zh.txt", &township, &["queue", "ls"]);
    agent("agent-queue.csv", &township, &["queue", "ls", "--format", "csv"]);
    agent("agent-record.zh.txt", &clinic, &["record", "vc_daily", "2026-01-14", "total_visits=3"]);
    agent(
        "agent-record.en.txt",
        &clinic,
        &["record", "vc_daily", "2026-01-14", "total_visits=4", "home_visits=1", "--lang", "en"],
    );
    agent(
        "agent-record.json",
        &clinic,
        &["record", "vc_daily", "2026-01-14", "total_visits=", "--format", "json"],
    );
}

#[test]
fn the_headers_of_csv_are_the_contracts() {
    let (small, clinic, _, _) = country();
    let header = |args: &[&str]| {
        let text = small.ok(&[args, &["--format", "csv"]].concat());
        text.lines().next().unwrap().to_owned()
    };
    assert_eq!(
        header(&["query", "K1", "2026-01"]),
        "unit,name,path,kind,network,period,item,item_type,value,state,numerator,denominator,reports,expected,\
         facilities,facilities_expected,target,met,definition,flags"
    );
    assert_eq!(
        header(&["completeness", "K1", "2026-01"]),
        "unit,name,path,form,period,expected,received,on_time,late,late_by_network,not_yet_due,missing,\
         incomplete,proxy,returned,refused,parked,not_enrolled,backlog_known,silent,not_entered"
    );
    let status = json_of(&clinic, &["status"]);
    let names: Vec<&str> = status.as_object().unwrap().keys().map(String::as_str).collect();
    let mut contract = [
        "agent",
        "home",
        "facilities",
        "waiting",
        "received",
        "refused",
        "parked",
        "returned",
        "oldest_waiting",
        "next_due",
        "last_receipt",
        "clock_offset_ms",
        "link",
    ];
    contract.sort_unstable();
    let mut names_sorted = names.clone();
    names_sorted.sort_unstable();
    assert_eq!(names_sorted, contract);
    let answer = small.query("K1", "2026-01");
    for name in [
        "unit",
        "name",
        "path",
        "view",
        "period",
        "membership",
        "map_date",
        "as_of",
        "catalogue",
        "stage",
        "provisional",
        "restated",
        "pending_after_lock",
        "conflicts",
        "rows",
        "completeness",
        "freshness",
        "reconciliation",
    ] {
        assert!(answer.get(name).is_some(), "no {name} in {answer}");
    }
}

#[test]
fn options_stand_anywhere_and_exit_codes_tell_what_happened() {
    let (small, clinic, township, _) = country();
    let before = small.ok(&[
        "--format",
        "csv",
        "--lang",
        "en",
        "query",
        "--element",
        "total_visits",
        "K1",
        "2026-01",
    ]);
    let after = small.ok(&[
        "query",
        "K1",
        "2026-01",
        "--element",
        "total_visits",
        "--lang",
        "en",
        "--format",
        "csv",
    ]);
    assert_eq!(before, after);
    // A name that is unique will do, also one that several bear if there is only one of the kind asked.
    let by_name = small.json(&["query", "甲县", "2026-01-05"]);
    assert_eq!(by_name["unit"], "K1");
    let twice = small.run(&["query", "东村卫生室", "2026-01", "--lang", "en"]).exits(2);
    assert!(twice.err.contains("V5-VC") && twice.err.contains("V6-VC"), "{}", twice.err);
    assert!(
        twice.err.contains("五村") && twice.err.contains("三镇"),
        "with their paths: {}",
        twice.err
    );
    assert!(twice.out.is_empty(), "messages go to stderr");
    for wrong in [
        &["query", "nowhere", "2026-01"][..],
        &["query", "K1", "2026-02-31"],
        &["query", "K1", "2026-13"],
        &["query", "K1", "2026-01", "--element", "no_such"],
        &["query", "K1", "2026-01", "--by", "no_such"],
        &["query", "K1"],
        &["query", "K1", "2026-01", "--as-of", "yesterday"],
        &["report", "V1-VC", "no_form", "2026-01-05"],
        &["no_such_command"],
        &["enroll"],
    ] {
        let done = small.run(wrong).exits(2);
        assert!(!done.err.trim().is_empty() && done.out.is_empty(), "{wrong:?}: {done:?}");
    }
    for (arguments, code, said) in [
        (&["record", "vc_daily", "2026-02-31", "total_visits=1"][..], 1, "2026-02-31"),
        (&["record", "vc_daily", "2026-01", "total_visits=1"], 1, "2026-01"),
        (&["record", "vc_daily", "2026-01-20", "total_visits=-1"], 1, "[negative]"),
        (&["record", "vc_daily", "2026-01-20", "total_visits=1.5"], 1, "[decimal]"),
        (&["record", "vc_daily", "2026-01-20", "total_visits=1万"], 1, "[ten_thousand]"),
        (
            &["record", "vc_daily", "2026-01-20", "total_visits=99999999999999999999"],
            1,
            "[above_maximum]",
        ),
        (&["record", "vc_daily", "2026-01-20", "no_such=1"], 1, "no_such"),
        (&["record", "vc_daily", "2026-01-20", "beds_actual=1"], 1, "beds_actual"),
        (
            &["record", "vc_daily", "2026-01-20", "total_visits=1", "--facility", "V2-VC"],
            2,
            "V2-VC",
        ),
        (&["record", "thc_daily", "2026-01-20", "total_visits=1"], 1, "thc_daily"),
        (&["record", "vc_daily", "2026-01-20", "total_visits"], 2, "total_visits"),
        (&["record", "vc_daily", "2026-01-20", "total_visits=1", "home_visits=2"], 1, "[V02"),
        (&["record", "vc_daily"], 2, "PERIOD"),
        (&["withdraw", "vc_daily", "2026-01-20", "--reason", "typo"], 1, "[nothing_to_withdraw]"),
        (&["withdraw", "vc_daily", "2026-01-05", "--reason", "no_such"], 2, "no_such"),
        (&["sync", "--timeout", "200ms"], 2, "200ms"),
        (&["queue", "show", "no_such"], 1, "no_such"),
        (&["no_such_command"], 2, "no_such_command"),
    ] {
        for lang in ["zh", "en"] {
            let done = run(&clinic, &[arguments, &["--lang", lang]].concat());
            assert_eq!(done.code, code, "{arguments:?}: {done:?}");
            assert!(done.err.contains(said), "{arguments:?} should say {said}: {}", done.err);
        }
    }
    assert_eq!(json_of(&clinic, &["status"])["waiting"], 0, "nothing of that was saved");
    // An agent that was never enrolled says what to do.
    let nobody = small.world.agent("nobody");
    for arguments in
        [&["status"][..], &["record", "vc_daily", "2026-01-20", "total_visits=1"], &["sync"]]
    {
        let done = run(&nobody, arguments).exits(1);
        assert!(done.err.contains("enroll"), "{}", done.err);
    }
    // A service that runs answers the same commands, and ends when asked to.
    let service = township.start(&["run"]).unwrap();
    banyan_tests::until("the service is connected", SOON, || {
        let status: Value = township.status()?;
        Ok((status["link"] == "connected").then_some(()))
    })
    .unwrap();
    record(&township, "2026-01-21", &["total_visits=2", "--facility", "V2-VC"]);
    run(&township, &["sync", "--timeout", "20s"]).exits(0);
    assert_eq!(small.element("V2-VC", "2026-01-21", "total_visits")["value"], 2);
    assert!(service.terminate(SOON).unwrap().success());
    assert_eq!(json_of(&township, &["status"])["link"], "not_running");
}
