//! Certificates that ran out, agents that were away for years, and a PC whose clock says 2009.

use std::fs;
use std::sync::Arc;

use banyan_agent::Options;
use banyan_agent::clock::{Clock, SystemClock};
use banyan_agent::identity::{Identity as Agents, Issued};
use banyan_aggregator::act::Act;
use banyan_aggregator::identity::{GRACE_MS, Identity, VALIDITY_MS};
use banyan_aggregator::init::{Sources, init_at};
use banyan_aggregator::service::{EnrolEach, Service};
use banyan_shared::catalogue::Lang;
use banyan_shared::ids::Millis;
use banyan_shared::wire::{EnrolmentFile, Grant, SignedGrant};
use banyan_tests::{Agent, World, until};
use serde_json::json;

use crate::small::{SOON, Small, UNITS, json_of, record, run, settle, sync};

const DAY_MS: i64 = 86_400_000;

fn now() -> Millis {
    SystemClock::default().now()
}

/// Gives an agent, in place of its certificate, one issued so many days ago.
fn aged(small: &Small, agent: &Agent, days: i64) {
    let centre = Identity::open(&small.world.centre()).unwrap();
    let mut own = Agents::open(agent.dir()).unwrap().unwrap();
    let issued = centre.ca.certify(&own.key().public(), now().plus(-days * DAY_MS)).unwrap();
    let (renew_from, expires) = (issued.renew_from, issued.expires);
    let issued = Issued { renew_from, expires, certificate: issued.certificate };
    assert!(own.set_issued(issued).unwrap());
}

fn expires(agent: &Agent) -> Millis {
    Agents::open(agent.dir()).unwrap().unwrap().issued().unwrap().expires
}

#[test]
fn an_expired_certificate_is_renewed_within_its_grace_and_after_it_by_a_first_contact() {
    let small = Small::new();
    let clinic = small.agent("clinic", &["V1-VC"]);
    let validity = VALIDITY_MS / DAY_MS;
    let grace = GRACE_MS / DAY_MS;
    for (day, age) in
        [("05", validity - 1), ("06", validity + grace - 1), ("07", validity + grace + 1)]
    {
        aged(&small, &clinic, age);
        let before = expires(&clinic);
        record(&clinic, &format!("2026-01-{day}"), &["total_visits=5"]);
        // The next one is asked for on the receipt, with which a sync may hang up.
        until("renewed", SOON, || {
            sync(&clinic);
            Ok((expires(&clinic) > now().plus(VALIDITY_MS - DAY_MS)).then_some(()))
        })
        .unwrap_or_else(|error| panic!("{error}; {age} days: {before:?}"));
    }
    assert_eq!(small.element("V1-VC", "2026-01", "total_visits")["value"], 15);
}

#[test]
fn an_agent_away_for_longer_than_its_grace_needs_a_new_code_and_loses_nothing() {
    let away = VALIDITY_MS + GRACE_MS + 10 * DAY_MS;
    let then = now().plus(-away);
    let world = World::new(None).unwrap();
    let units = world.dir().join("units.csv");
    fs::write(&units, UNITS).unwrap();
    let sources = Sources { catalogue: None, tables: vec![("units.csv", units)] };
    init_at(&world.centre(), &sources, "long ago", Lang::En, then).unwrap();
    let agent = world.agent("clinic");
    // Enrolled and last heard of then, as the ledger has it.
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let clock: banyan_aggregator::intake::Clock = Arc::new(move || then);
        let (service, running) = Service::open(&world.centre(), clock, None).await.unwrap();
        let each = EnrolEach { units: vec!["V1-VC".to_owned()], expires_s: 86_400, lang: Lang::En };
        let made = service.enrol_each("test", each).await.unwrap().remove(0);
        let bytes = data_encoding::BASE64.decode(made.file.as_bytes()).unwrap();
        let file = EnrolmentFile::from_bytes(&bytes).unwrap();
        let offer = file.offers[0].clone();
        let mut own = Agents::from_file(agent.dir(), &file, &offer).unwrap();
        let (key, context, code) = (own.key().public(), offer.context, file.code.number);
        let admitted = Act::Admitted { key, code, context, machine: 0, succeeds: None };
        service.act("test", Box::new(move |_| Ok(vec![admitted]))).await.unwrap();
        let centre = service.identity();
        let grant = Grant { key, offer, issued_at: then, succeeds: None };
        let grant = SignedGrant::sign(&grant, &centre.key, &centre.certificate);
        assert!(own.accept(&grant, None).unwrap());
        drop((service, centre));
        running.stop().await.unwrap();
    });
    let mut small = Small { served: None, init: String::new(), world };
    small.served = Some(small.world.serve().unwrap());
    // The centre is elsewhere by now; that is not what is tried here.
    let address = small.world.told_address();
    let identity = agent.dir().join("identity.json");
    let text = fs::read_to_string(&identity).unwrap();
    let old: serde_json::Value = serde_json::from_str(&text).unwrap();
    fs::write(&identity, text.replace(old["address"].as_str().unwrap(), &address)).unwrap();

    record(&agent, "2026-01-05", &["total_visits=5"]);
    let told = run(&agent, &["sync", "--timeout", "20s", "--lang", "en"]).exits(1);
    assert!(told.err.contains("[lapsed]") && told.err.contains("a new code"), "{}", told.err);
    let status = json_of(&agent, &["status"]);
    assert_eq!((&status["refusal"], &status["waiting"]), (&json!("lapsed"), &json!(1)), "{status}");
    let shown = run(&agent, &["status", "--lang", "zh"]).exits(0);
    assert!(shown.out.contains("请用新注册码重新注册"), "{}", shown.out);

    run(&agent, &["enroll", &small.code(&["V1-VC"])]).exits(0);
    sync(&agent);
    assert_eq!(json_of(&agent, &["status"])["refusal"], json!(null));
    assert_eq!(small.element("V1-VC", "2026-01-05", "total_visits")["value"], 5);
    assert_eq!(small.json(&["fleet"])["summary"], json!({ "active": 1 }), "the same agent");
    small.ok(&["verify", "--all"]);
}

/// A clock that runs, from 2009 on.
struct Of2009(SystemClock);

impl Clock for Of2009 {
    fn now(&self) -> Millis {
        // 2009-01-01T00:00Z.
        Millis(1_230_768_000_000).plus(self.0.steady().0)
    }

    fn steady(&self) -> Millis {
        self.0.steady()
    }
}

#[test]
fn a_pc_whose_clock_says_2009_connects_syncs_and_learns_the_time() {
    let small = Small::new();
    let clinic = small.world.agent("clinic");
    let code = small.code(&["V1-VC"]).parse().unwrap();
    Agents::begin(clinic.dir(), &code, None).unwrap();
    let clock = Arc::new(Of2009(SystemClock::default()));
    let options = || Options { clock: clock.clone(), ..Options::new(clinic.dir()) };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let settled = || runtime.block_on(settle(options()));
    // First contact, certificate, hello: all at a time before any certificate was valid.
    settled();
    record(&clinic, "2026-01-05", &["total_visits=5"]);
    settled();
    assert_eq!(small.element("V1-VC", "2026-01-05", "total_visits")["value"], 5);
    let fleet = small.json(&["fleet"]);
    let ahead = fleet["agents"][0]["clock_ahead_minutes"].as_i64().unwrap();
    assert!(ahead < -16 * 365 * 1440, "{fleet}");
    // Learnt, and kept over a restart.
    let mut core = banyan_agent::Core::open(options()).unwrap();
    let reply = core.handle(banyan_agent::command::Command::Status);
    let banyan_agent::command::Reply::Status(status) = reply else { panic!("{reply:?}") };
    let offset = status.clock_offset_ms.unwrap();
    assert!((now().0 - clock.now().0 - offset).abs() < 60_000, "{offset}");
    let heard: jiff::Timestamp = status.last_receipt.unwrap().parse().unwrap();
    assert!((now().0 - Millis::from(heard).0).abs() < 60_000, "{heard}");
}
