//! One identity on two machines, and one history on two machines one after the other.

use banyan_agent::command::{Command, Draft, Reply};
use banyan_agent::identity::Identity;
use banyan_agent::{Core, Options};
use banyan_tests::Agent;
use banyan_tests::harness::copy;
use serde_json::{Value, json};

use crate::small::{Small, json_of, record, run, settle, sync};

/// The agent of a home in `fleet`, in this state.
fn fleet_row(small: &Small, agent: &str) -> Value {
    let fleet = small.json(&["fleet"]);
    let rows = fleet["agents"].as_array().unwrap();
    rows.iter().find(|row| row["agent"] == agent).unwrap().clone()
}

/// A PC with an agent's data directory.
struct Pc {
    agent: Agent,
    /// What the PC says which machine it is; none for this one, by real programs.
    machine: Option<u64>,
}

impl Pc {
    fn options(&self) -> Options {
        Options { machine: self.machine, ..Options::new(self.agent.dir()) }
    }

    fn record(&self, day: &str, visits: u64) {
        let visits = visits.to_string();
        if self.machine.is_none() {
            record(&self.agent, day, &[&format!("total_visits={visits}")]);
            return;
        }
        let draft = Draft {
            form: "vc_daily".to_owned(),
            period: day.to_owned(),
            values: vec![("total_visits".to_owned(), visits)],
            ..Draft::default()
        };
        let mut core = Core::open(self.options()).unwrap();
        let reply = core.handle(Command::Save { drafts: vec![draft], together: true });
        let Reply::Saved { saved, refused } = reply else { panic!("{reply:?}") };
        assert_eq!((saved.len(), refused.len()), (1, 0), "{refused:?}");
    }

    fn sync(&self) {
        if self.machine.is_none() {
            sync(&self.agent);
            return;
        }
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        runtime.block_on(settle(self.options()));
    }

    /// The agent's id.
    fn id(&self) -> String {
        Core::open(self.options()).unwrap().identity().agent().to_string()
    }
}

/// A clinic and the same on a copy of its disk, taken after the 5th of January was received.
fn twins(first: Option<u64>, second: Option<u64>) {
    let mut small = Small::new();
    let clinic = Pc { agent: small.world.agent("clinic"), machine: first };
    let code = small.code(&["V1-VC"]);
    match first {
        None => drop(run(&clinic.agent, &["enroll", &code]).exits(0)),
        Some(_) => {
            Identity::begin(clinic.agent.dir(), &code.parse().unwrap(), None).unwrap();
            clinic.sync();
        }
    }
    clinic.record("2026-01-05", 10);
    clinic.sync();
    let id = clinic.id();
    let twin = Pc { agent: small.world.agent("twin"), machine: second };
    copy(clinic.agent.dir(), twin.agent.dir()).unwrap();
    assert_eq!(fleet_row(&small, &id)["state"], "active");
    clinic.record("2026-01-06", 6);
    twin.record("2026-01-06", 60);
    twin.record("2026-01-07", 7);
    for pc in [&clinic, &twin, &clinic, &twin] {
        pc.sync();
    }
    clinic.record("2026-01-08", 8);
    twin.record("2026-01-09", 9);
    for pc in [&twin, &clinic] {
        pc.sync();
    }

    // Nothing is lost and nothing counted twice; what both say of one day is a conflict, of which one counts.
    let visits = |day: &str| small.element("V1-VC", day, "total_visits")["value"].clone();
    for (day, value) in [("05", 10), ("07", 7), ("08", 8), ("09", 9)] {
        assert_eq!(visits(&format!("2026-01-{day}")), value, "{day}");
    }
    let both = visits("2026-01-06");
    assert!(both == 6 || both == 60, "{both}");
    let month = small.query("V1-VC", "2026-01");
    assert_eq!(month["conflicts"], 1);
    let trace = small.json(&["report", "V1-VC", "vc_daily", "2026-01-06", "--history"]);
    assert_eq!((&trace["heads"], trace["history"].as_array().map(Vec::len)), (&json!(2), Some(2)));

    // It is shown, after a restart too: the ledger says it.
    let row = fleet_row(&small, &id);
    assert_eq!(row["state"], "duplicate_identity", "{row}");
    assert!(row["lives"].as_u64().unwrap() >= 2, "{row}");
    let served = small.served.take().unwrap();
    let (mqtt, http) = (served.mqtt(), served.http());
    served.stop().unwrap();
    small.served = Some(small.world.serve_at(mqtt, http).unwrap());
    assert_eq!(fleet_row(&small, &id)["state"], "duplicate_identity");
    small.ok(&["verify", "--all"]);
}

#[test]
fn a_copied_disk_is_noticed_by_sums_and_both_sides_reports_are_kept() {
    twins(None, None);
}

#[test]
fn a_disk_copied_to_another_machine_is_noticed_once_both_have_written() {
    twins(Some(1), Some(2));
}

#[test]
fn a_disk_moved_to_another_machine_is_no_clone() {
    let small = Small::new();
    let mut clinic = Pc { agent: small.world.agent("clinic"), machine: Some(1) };
    let code = small.code(&["V1-VC"]).parse().unwrap();
    Identity::begin(clinic.agent.dir(), &code, None).unwrap();
    clinic.sync();
    clinic.record("2026-01-05", 10);
    clinic.sync();
    clinic.record("2026-01-06", 6);
    clinic.machine = Some(2);
    clinic.record("2026-01-05", 11);
    clinic.sync();
    let row = fleet_row(&small, &clinic.id());
    assert_eq!(row["state"], "active", "{row}");
    assert!(row["lives"].as_u64().unwrap() >= 2, "{row}");
    let month = small.query("V1-VC", "2026-01");
    assert_eq!(month["conflicts"], 0);
    assert_eq!(month["rows"][0]["elements"]["total_visits"]["value"], 17);
}

#[test]
fn a_new_pc_goes_on_with_the_history_and_the_old_one_can_still_deliver() {
    let small = Small::new();
    let old = small.agent("old", &["V1-VC", "V2-VC"]);
    record(&old, "2026-01-05", &["total_visits=10"]);
    sync(&old);
    let id = json_of(&old, &["status"])["agent"].as_str().unwrap().to_owned();
    // Recorded and not sent when the PC breaks down.
    record(&old, "2026-01-05", &["total_visits=12", "--reason", "recount"]);
    record(&old, "2026-01-06", &["total_visits=6"]);

    let unknown = small.run(&["enroll", "--replaces", "000000000000", "--lang", "en"]).exits(2);
    assert!(unknown.err.contains("there is no agent"), "{}", unknown.err);
    let code = small.ok(&["enroll", "--replaces", &id]);
    let new = small.world.agent("new");
    run(&new, &["enroll", code.trim()]).exits(0);
    let status = json_of(&new, &["status"]);
    assert_eq!(
        (&status["home"], &status["facilities"]),
        (&json!("V1-VC"), &json!(["V1-VC", "V2-VC"]))
    );
    // What the old one reported is not known there: only a report in full takes its place.
    let part = ["record", "vc_daily", "2026-01-05", "total_visits=11", "--lang", "en"];
    let part = run(&new, &part).exits(1);
    assert!(
        part.err.contains("[partial_report]") && part.err.contains("tcm_visits"),
        "{}",
        part.err
    );
    let rest = [
        "open_days=",
        "home_visits=",
        "tcm_visits=",
        "referrals_up_out=",
        "remote_requests_sent=",
        "chronic_followups=",
    ];
    record(&new, "2026-01-05", &[&["total_visits=11"], &rest[..]].concat());
    record(&new, "2026-01-07", &[&["total_visits=7"], &rest[..]].concat());
    sync(&new);
    let visits = |small: &Small| small.element("V1-VC", "2026-01", "total_visits")["value"].clone();
    let month = small.query("V1-VC", "2026-01");
    assert_eq!((&month["conflicts"], visits(&small)), (&json!(0), json!(18)), "{month}");

    // The old disk is got to run once more: what it had not sent comes in, and replaces nothing newer.
    sync(&old);
    let month = small.query("V1-VC", "2026-01");
    assert_eq!((&month["conflicts"], visits(&small)), (&json!(0), json!(24)), "{month}");
    let trace = small.json(&["report", "V1-VC", "vc_daily", "2026-01-05", "--history"]);
    assert_eq!(trace["history"].as_array().map(Vec::len), Some(3), "{trace}");
    let newer = status["agent"].as_str().unwrap();
    let row = fleet_row(&small, &id);
    assert_eq!((&row["state"], &row["replaced_by"]), (&json!("replaced"), &json!(newer)), "{row}");
    assert_eq!(fleet_row(&small, newer)["succeeds"], id.as_str());
    small.ok(&["revoke", &id]);
    run(&old, &["sync", "--timeout", "20s"]).exits(1);
    assert_eq!(fleet_row(&small, &id)["state"], "revoked");
    assert_eq!(visits(&small), 24);
    small.ok(&["verify", "--all"]);
}
