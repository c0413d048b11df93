//! Enrolment by file, hundreds at once and by a stick; recording before the first contact.

use std::fmt::Write as _;
use std::path::Path;

use banyan_agent::command::{Command, Draft, Reply};
use banyan_agent::identity::Identity;
use banyan_agent::{Core, Options};
use banyan_shared::wire::EnrolmentFile;
use serde_json::json;

use crate::small::{Small, UNITS, json_of, record, run, settle, sync};

/// How many of the agents talk to the centre at the same time.
const AT_ONCE: usize = 24;

/// Enrols an agent of the library from a file, with no line, and records a day.
fn enrol_and_record(dir: &Path, file: &Path, day: &str, visits: usize) {
    let file = EnrolmentFile::from_bytes(&std::fs::read(file).unwrap()).unwrap();
    Identity::from_file(dir, &file, &file.offers[0]).unwrap();
    let mut core = Core::open(Options::new(dir)).unwrap();
    let draft = Draft {
        form: "vc_daily".to_owned(),
        period: day.to_owned(),
        values: vec![
            ("open_days".to_owned(), "1".to_owned()),
            ("total_visits".to_owned(), visits.to_string()),
        ],
        ..Draft::default()
    };
    let reply = core.handle(Command::Save { drafts: vec![draft], together: true });
    let Reply::Saved { saved, refused } = reply else { panic!("{reply:?}") };
    assert_eq!((saved.len(), refused.len()), (1, 0), "{refused:?}");
}

#[test]
fn three_hundred_agents_enrol_from_files_without_a_line_and_are_all_counted() {
    const AGENTS: usize = 300;
    /// So many of them are real programs.
    const REAL: usize = 4;
    let mut units = String::from(
        "code,name,kind,parent,opened,closed,status,succeeded_by\nP,省,province,,,,,\n\
         S,市,city,P,,,,\nK,县,county,S,,,,\nT,镇,township,K,,,,\n",
    );
    for n in 1..=AGENTS {
        writeln!(units, "V{n},{n}村,village,T,,,,\nV{n}-VC,{n}村卫生室,village_clinic,V{n},,,,")
            .unwrap();
    }
    let small = Small::with(&units, &[]);
    let folder = small.world.dir().join("files");
    let args =
        ["enroll", "--each", "--below", "K", "--kind", "village_clinic", "--expires", "30d", "-o"];
    small.ok(&[&args[..], &[folder.to_str().unwrap()]].concat());

    let mut codes = csv::Reader::from_path(folder.join("codes.csv")).unwrap();
    assert_eq!(codes.headers().unwrap(), vec!["unit", "name", "path", "code", "expires"]);
    assert_eq!(codes.records().map(Result::unwrap).count(), AGENTS);
    let slips = std::fs::read_to_string(folder.join("slips.html")).unwrap();
    assert!(slips.contains("300村卫生室"));
    assert_eq!(std::fs::read_dir(&folder).unwrap().count(), AGENTS + 2);

    // No line: everything up to here must do without.
    small.world.link.cut();
    let day = "2026-01-05";
    let dir = |n: usize| small.world.agent(&format!("a{n}")).dir().to_owned();
    let file = |n: usize| folder.join(format!("V{n}-VC.banyan"));
    for n in 1..=REAL {
        let agent = small.world.agent(&format!("a{n}"));
        run(&agent, &["enroll", file(n).to_str().unwrap()]).exits(0);
        record(&agent, day, &["open_days=1", &format!("total_visits={n}")]);
    }
    for n in REAL + 1..=AGENTS {
        enrol_and_record(&dir(n), &file(n), day, n);
    }
    run(&small.world.agent("a1"), &["sync", "--timeout", "1s"]).exits(3);
    small.world.link.restore();
    for n in 1..=REAL {
        sync(&small.world.agent(&format!("a{n}")));
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut running = tokio::task::JoinSet::new();
        for n in REAL + 1..=AGENTS {
            if running.len() == AT_ONCE {
                running.join_next().await.unwrap().unwrap();
            }
            let dir = dir(n);
            running.spawn(async move { settle(Options::new(&dir)).await });
        }
        while let Some(done) = running.join_next().await {
            done.unwrap();
        }
    });
    let visits = small.element("K", day, "total_visits");
    assert_eq!(visits["value"], AGENTS * (AGENTS + 1) / 2);
    assert_eq!((&visits["reports"], &visits["expected"]), (&json!(AGENTS), &json!(AGENTS)));
    let fleet = small.json(&["fleet"]);
    assert_eq!(fleet["summary"], json!({ "active": AGENTS }));
}

#[test]
fn of_a_stick_each_installer_picks_one_facility_once() {
    let small = Small::new();
    let path = small.world.dir().join("stick.banyan");
    let stick = path.to_str().unwrap();
    let args = ["enroll", "--stick", "--below", "T1", "--kind", "village_clinic", "--uses", "5"];
    small.ok(&[&args[..], &["-o", stick]].concat());
    let [first, second, third] = ["first", "second", "third"].map(|name| small.world.agent(name));

    // Without a choice the list is shown, and nothing is made.
    let list = run(&first, &["enroll", stick, "--lang", "en"]).exits(2);
    assert!(list.out.contains("V1-VC") && list.out.contains("二村卫生室"), "{}", list.out);
    run(&first, &["enroll", stick, "--facility", "V4-VC"]).exits(2);
    run(&first, &["enroll", stick, "--facility", "V1-VC"]).exits(0);
    run(&second, &["enroll", stick, "--facility", "二村卫生室"]).exits(0);
    run(&third, &["enroll", stick, "--facility", "V1-VC"]).exits(0);
    for (agent, visits) in [(&first, 1), (&second, 2), (&third, 4)] {
        record(agent, "2026-01-05", &[&format!("total_visits={visits}")]);
    }
    sync(&first);
    sync(&second);
    let told = run(&third, &["sync", "--timeout", "20s"]).exits(3);
    assert!(
        told.err.contains("认领待管理员核准") && told.err.contains("[waiting]"),
        "{}",
        told.err
    );
    let told = run(&third, &["sync", "--timeout", "20s", "--lang", "en"]).exits(3);
    assert!(told.err.contains("waits for an operator's approval"), "{}", told.err);
    assert_eq!(json_of(&third, &["status"])["waiting"], 1, "what it recorded is kept");
    assert_eq!(small.element("T1", "2026-01-05", "total_visits")["value"], 3);
    // The same file again into the same place is refused.
    let again = run(&first, &["enroll", stick, "--facility", "V2-VC", "--lang", "en"]).exits(1);
    assert!(again.err.contains("already_enrolled"), "{}", again.err);
}

#[test]
fn a_code_serves_once_and_a_wrong_one_is_told() {
    let small = Small::with(UNITS, &[]);
    let code = small.code(&["V1-VC"]);
    let [first, second, third] = ["first", "second", "third"].map(|name| small.world.agent(name));
    run(&first, &["enroll", &code]).exits(0);
    let used = run(&second, &["enroll", &code, "--lang", "en", "--timeout", "20s"]).exits(1);
    assert!(used.err.contains("[used]"), "{}", used.err);
    // The second goes on with a code of its own.
    run(&second, &["enroll", &small.code(&["V2-VC"])]).exits(0);
    let wrong = run(&third, &["enroll", "NOT-A-CODE", "--lang", "en"]).exits(2);
    assert!(!wrong.err.is_empty());
    let unknown = small.run(&["enroll", "V99-VC", "--lang", "en"]).exits(2);
    assert!(unknown.err.contains("V99-VC"), "{}", unknown.err);
}
