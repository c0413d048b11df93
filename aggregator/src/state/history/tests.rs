//! An answer given at a moment is given again, whatever has been recorded since.

use banyan_shared::ids::Seq;
use banyan_shared::report::Value;
use banyan_shared::wire::{Batch, Body, HashedBatch, deflate};
use proptest::prelude::*;
use serde_json::{Value as Json, json};

use super::super::tests::{NOW, act, batch, key, report, state, table};
use super::super::{Judgement, State};
use super::*;
use crate::act::{Act, Extended, NewContext};
use crate::query::{
    CompletenessRequest, Engine, Membership, Plans, QueryError, QueryRequest, fixture,
};
use crate::service::site_states;

const HOUR: i64 = 3_600_000;
/// Agent 1 reports for these.
const FACILITIES: [&str; 9] = ["A", "B", "M", "K", "N", "D", "NEW", "PL", "H1"];
const DAYS: [&str; 7] = [
    "2026-01-09",
    "2026-01-31",
    "2026-02-01",
    "2026-02-10",
    "2026-02-11",
    "2026-02-20",
    "2026-03-02",
];
const MONTHS: [&str; 3] = ["2026-01", "2026-02", "2026-03"];

/// What may happen.
#[derive(Clone, Debug)]
enum Event {
    /// A report of a facility, a form and a period, by their numbers.
    Report(usize, usize, usize, u64),
    /// An entry that is refused.
    Refused,
    /// Everything refused so far is settled.
    Void,
    Units(usize),
    Members(usize),
    Networks(usize),
    Duties(usize),
    Extensions(usize),
    /// A due time granted or a report waived by an act of its own.
    Extended(bool),
    Catalogue(usize),
    Scope(bool),
    Revoked,
    /// The service looks around.
    Tick,
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        12 => (0..9usize, 0..3usize, 0..7usize, 1..500u64)
            .prop_map(|(u, f, p, n)| Event::Report(u, f, p, n)),
        1 => Just(Event::Refused),
        1 => Just(Event::Void),
        4 => (0..UNITS_MAX).prop_map(Event::Units),
        1 => (0..3usize).prop_map(Event::Members),
        1 => (0..2usize).prop_map(Event::Networks),
        1 => (0..2usize).prop_map(Event::Duties),
        2 => (0..4usize).prop_map(Event::Extensions),
        3 => any::<bool>().prop_map(Event::Extended),
        2 => (0..3usize).prop_map(Event::Catalogue),
        1 => any::<bool>().prop_map(Event::Scope),
        1 => Just(Event::Revoked),
        2 => Just(Event::Tick),
    ]
}

const UNITS_MAX: usize = 8;

fn units(at: usize) -> String {
    let units = fixture::UNITS;
    match at {
        1 => format!("{units}NEW,新,clinic,T1,2026-02-03,,,,\n"),
        2 => format!("{units}NEW,新,hospital,T1,2026-01-01,,,,\n"),
        3 => units.replace("A,甲诊所,clinic,T1,,,,,", "A,甲诊所,clinic,T1,,2026-02-01,,B,"),
        4 => units.replace("K,闭诊所,clinic,T2,,2026-01-11,,A,", "K,闭诊所,clinic,T2,,,,,"),
        5 => units.replace("2026-01-01,,planned", "2026-01-01,,active"),
        6 => units.replace("2026-03-01", "2026-02-01"),
        7 => units.replace("D,丁诊所,clinic,T3", "D,丁改名,clinic,T1"),
        _ => units.to_owned(),
    }
}

fn members(at: usize) -> String {
    let members = fixture::MEMBERS;
    match at {
        1 => members.replace("L2,D,member,,", "L2,D,member,2026-02-01,"),
        2 => members.replace("G1,C1,member,,\n", "G1,T1,member,,\n"),
        _ => members.to_owned(),
    }
}

fn extensions(at: usize) -> &'static str {
    match at {
        1 => "form,unit,period,due,reason\ndaily,C1,2026-02,waived,雪\n",
        2 => "form,unit,period,due,reason\ndaily,A,2026-02-01..2026-02-10,2026-03-05 18:00,网\n",
        3 => "form,unit,period,due,reason\nmonthly,P,2026-01,2026-02-20 12:00,\n",
        _ => "form,unit,period,due,reason\n",
    }
}

fn catalogue(at: usize) -> String {
    let text = fixture::CATALOGUE;
    let daily = "[[form.line]]\nelement = \"home_visits\"\nrequired = false\n";
    match at {
        1 => text.replacen("t.1", "t.2", 1).replacen(
            daily,
            &format!("{daily}[[form.line]]\nelement = \"led\"\nrequired = false\n"),
            1,
        ),
        2 => text.replacen("t.1", "t.3", 1).replacen("days = 3", "days = 9", 1),
        _ => text.to_owned(),
    }
}

/// A state on its way through time.
struct World {
    state: State,
    now: Millis,
    seq: Seq,
}

impl World {
    fn act(&mut self, new: Act) {
        let position = self.state.position + 1;
        self.state.apply_act(&act(new), position, self.now).unwrap();
    }

    fn table(&mut self, name: TableName, text: &str) {
        self.act(Act::Tables(vec![table(name, text)]));
    }

    fn send(&mut self, body: Body) {
        self.seq += 1;
        self.put(batch(vec![(self.seq, body)]));
    }

    fn put(&mut self, sent: Batch) {
        let sent = HashedBatch::from(sent);
        let Judgement::Answer { store: true, refused, .. } = self.state.judge(&sent) else {
            return;
        };
        let added = self.state.hold(&sent, &refused);
        let position = self.state.position + 1;
        self.state.apply_batch(sent, &added, &refused, position, self.now);
    }

    fn happen(&mut self, event: &Event) {
        match event {
            Event::Report(unit, form, period, n) => {
                let (form, period) = match form {
                    0 => (0, DAYS[*period]),
                    1 => (1, MONTHS[*period % 3]),
                    _ => (2, MONTHS[*period % 3]),
                };
                let mut values = vec![Value::Number(*n); if form == 2 { 4 } else { 2 }];
                if n % 5 == 0 {
                    values[1] = Value::Missing;
                }
                let unit = u32::try_from(*unit).unwrap();
                self.send(report(unit, form, period, values));
            }
            Event::Refused => self.send(report(0, 0, "2026-01-31", vec![])),
            Event::Void => {
                let ids: Vec<VersionId> = self.state.refused.keys().copied().collect();
                let voids: Vec<_> = ids.iter().map(|id| (id.seq, Body::Void)).collect();
                if !voids.is_empty() {
                    self.put(batch(voids));
                }
            }
            Event::Units(at) => self.table(TableName::Units, &units(*at)),
            Event::Members(at) => self.table(TableName::Members, &members(*at)),
            Event::Networks(0) => self.table(TableName::Networks, fixture::NETWORKS),
            Event::Networks(_) => {
                let later = fixture::NETWORKS.replace(
                    "G1,一县医共体,community,C1,,,",
                    "G1,一县医共体,community,C1,2026-02-01,,",
                );
                self.table(TableName::Networks, &later);
            }
            Event::Duties(0) => self.table(TableName::Duties, "form,unit,from,to\n"),
            Event::Duties(_) => {
                self.table(TableName::Duties, "form,unit,from,to\ndaily,C1,2026-02-05,\n");
            }
            Event::Extensions(at) => self.table(TableName::Extensions, extensions(*at)),
            Event::Extended(waived) => {
                let due = if *waived { "waived" } else { "2026-03-06 18:00" };
                self.act(Act::Extended(vec![Extended {
                    form: "daily".parse().unwrap(),
                    unit: if *waived { "T1" } else { "C1" }.parse().unwrap(),
                    period: "2026-02-01..2026-02-11".into(),
                    due: due.into(),
                    reason: "雪, \"大\"".into(),
                }]));
            }
            Event::Catalogue(at) => {
                self.act(Act::Catalogue { toml: deflate(catalogue(*at).as_bytes()) });
            }
            Event::Scope(all) => {
                let number = self.state.next_context(1, 1).unwrap();
                let facilities = if *all { &FACILITIES[..] } else { &FACILITIES[..4] };
                let facilities = facilities.iter().map(|f| f.parse().unwrap()).collect();
                let context = NewContext { number, facilities, below: vec![] };
                let agent = key(1).public().agent_id();
                self.act(Act::Scope { agent, context });
            }
            Event::Revoked => {
                // A second agent, so that the first goes on reporting.
                let agent = key(2).public().agent_id();
                if self.state.agents.contains_key(&agent) {
                    self.act(Act::Revoked { agent });
                } else {
                    let key = key(2).public();
                    self.act(Act::Admitted {
                        key,
                        code: 7,
                        context: 1,
                        machine: 0,
                        succeeds: None,
                    });
                }
            }
            Event::Tick => {
                self.state.rejudge(self.now);
            }
        }
    }

    /// Answers to a round of questions, as known at `at`, the present or a moment of the past.
    fn answers(&self, at: Millis) -> Vec<Json> {
        let past = Some(at).filter(|at| *at < self.now);
        let recorded = self.state.recorded(at).unwrap();
        let organisation = match past {
            Some(_) if !recorded.current => Arc::new(recorded.organisation().unwrap()),
            _ => self.state.organisation.clone(),
        };
        let catalogue =
            if past.is_some() { recorded.catalogue } else { self.state.catalogue.clone() };
        let (sites, plans) = (site_states(&self.state, past), Plans::default());
        let engine = Engine {
            catalogue: &catalogue,
            organisation: &organisation,
            cube: &self.state.cube,
            sites: &sites,
            plans: &plans,
        };
        let mut answers = Vec::new();
        let mut take = |answer: Result<Json, QueryError>| {
            let mut answer = answer.unwrap_or_else(|error| json!(format!("{error:?}")));
            forget_beacons(&mut answer);
            answers.push(answer);
        };
        let json = |answer| serde_json::to_value(answer).unwrap();
        let whole = |answer| serde_json::to_value(answer).unwrap();
        for (place, period, by, membership) in [
            ("P", "2026-01..2026-03", "facility", Membership::AsItWas),
            ("P", "2026-02", "county,kind", Membership::Today),
            ("C1", "2026-02", "day", Membership::AsItWas),
            ("C1", "2026-01", "network", Membership::Today),
            ("G1", "2026-02", "facility", Membership::On("2026-02-15".parse().unwrap())),
        ] {
            let request = QueryRequest {
                place: place.into(),
                period: period.into(),
                by: by.split(',').map(Into::into).collect(),
                network: (by == "network").then(|| "community".into()),
                membership,
                as_of: past,
                names: true,
                ..QueryRequest::default()
            };
            take(engine.query(&request, self.now).map(json));
        }
        for (period, by) in [("2026-01..2026-02", "facility"), ("2026-02", "kind")] {
            let request = CompletenessRequest {
                place: "P".into(),
                period: period.into(),
                by: vec![by.into()],
                as_of: past,
                ..CompletenessRequest::default()
            };
            take(engine.completeness(&request, self.now).map(whole));
        }
        for facility in ["A", "NEW"] {
            let trace = engine.report(facility, "daily", "2026-02-01", true, past, self.now);
            take(trace.map(|trace| serde_json::to_value(trace).unwrap()));
        }
        answers
    }
}

/// Beacons are no history: what rests on them is folded into `not_entered`.
fn forget_beacons(value: &mut Json) {
    match value {
        Json::Object(object) => {
            if object.contains_key("not_entered") {
                let of = |key: &str| object.get(key).and_then(Json::as_u64).unwrap_or(0);
                let sum = of("not_entered") + of("silent") + of("backlog_known");
                object.insert("not_entered".into(), sum.into());
                object.remove("silent");
                object.remove("backlog_known");
            }
            for key in ["sites_with_backlog", "sites_silent"] {
                object.remove(key);
            }
            if let Some(why) = object.get_mut("missing_why")
                && matches!(why.as_str(), Some("silent" | "backlog_known"))
            {
                *why = "not_entered".into();
            }
            object.values_mut().for_each(forget_beacons);
        }
        Json::Array(list) => list.iter_mut().for_each(forget_beacons),
        _ => {}
    }
}

fn world() -> World {
    World { state: state(&FACILITIES), now: NOW, seq: 0 }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    #[test]
    fn an_answer_given_live_is_given_again_as_of_its_moment(
        events in proptest::collection::vec((event(), 1..60i64), 4..24)
    ) {
        let mut world = world();
        let mut given = Vec::new();
        for (event, hours) in &events {
            world.now = world.now.plus(hours * HOUR);
            world.happen(event);
            // The service looks around each minute.
            world.now = world.now.plus(60_000);
            world.state.rejudge(world.now);
            given.push((world.now, world.answers(world.now)));
        }
        world.now = world.now.plus(HOUR);
        for (at, answers) in given {
            for (then, now) in answers.iter().zip(world.answers(at)) {
                prop_assert_eq!(then, &now, "as of {}", at.timestamp());
            }
        }
    }
}

#[test]
fn an_entry_parked_then_and_released_later_did_not_count_then() {
    let mut world = world();
    let new = u32::try_from(FACILITIES.iter().position(|f| *f == "NEW").unwrap()).unwrap();
    world.send(report(new, 0, "2026-02-01", vec![Value::Number(7), Value::Number(1)]));
    let parked_at = world.now;
    world.now = NOW.plus(48 * HOUR);
    world.table(TableName::Units, &units(1).replace("2026-02-03", "2026-02-01"));
    let released_at = world.now;
    world.now = NOW.plus(72 * HOUR);
    let visits = |world: &World, at: Millis| {
        let answers = world.answers(at);
        (answers[0]["rows"].to_string().contains("NEW"), answers[6].clone())
    };
    assert!(!visits(&world, parked_at.plus(1)).0, "the registry of then does not know it");
    assert!(!visits(&world, released_at.plus(-1)).0);
    assert!(visits(&world, released_at).0);
    let released = &world.state.history.released;
    assert_eq!(released.len(), 1);
    assert_eq!((released[0].received_at, released[0].released_at), (parked_at, released_at));
}

#[test]
fn what_the_day_alone_releases_counts_from_midnight_whenever_it_is_noticed() {
    let mut world = world();
    world.send(report(0, 0, "2026-02-12", vec![Value::Number(7), Value::Number(1)]));
    assert_eq!(world.state.parked.len(), 1);
    world.now = NOW.plus(72 * HOUR);
    world.table(TableName::Units, &units(3));
    let released = &world.state.history.released;
    let midnight = world.state.catalogue.moment("2026-02-12".parse().unwrap(), 0, 0);
    assert_eq!(released[0].released_at, midnight);
}

#[test]
fn versions_of_the_registry_share_the_tables_that_did_not_change() {
    let mut world = world();
    for at in 0..4 {
        world.now = world.now.plus(HOUR);
        world.table(TableName::Extensions, extensions(at));
    }
    let History { pool, models, .. } = &world.state.history;
    let units = |at: usize| models[at].files[&TableName::Units];
    let last = models.len() - 1;
    assert_eq!(units(last), units(last - 3), "held once");
    assert_eq!(pool.len(), 3 + 4, "three tables, and four of extensions");
    let now = world.state.history.tables();
    assert!(now.iter().all(|(table, file)| Arc::ptr_eq(file, &world.state.tables[table])));
}

#[test]
fn of_extensions_the_newest_counts_and_a_new_table_takes_their_place() {
    let mut world = world();
    let extension = |world: &World| {
        let unit = world.state.organisation.unit("A").unwrap();
        let period = "2026-02-01".parse().unwrap();
        world.state.organisation.extension("daily", unit, period).map(|e| e.reason.to_string())
    };
    world.table(TableName::Extensions, extensions(2));
    assert_eq!(extension(&world).as_deref(), Some("网"));
    world.now = world.now.plus(HOUR);
    world.happen(&Event::Extended(true));
    assert_eq!(extension(&world).as_deref(), Some("雪, \"大\""));
    // Another table leaves them in force; the table of extensions takes their place.
    world.now = world.now.plus(HOUR);
    world.table(TableName::Units, &units(1));
    assert_eq!(extension(&world).as_deref(), Some("雪, \"大\""));
    let before = world.now;
    world.now = world.now.plus(HOUR);
    world.table(TableName::Extensions, extensions(1));
    assert_eq!(extension(&world).as_deref(), Some("雪"));
    let then = world.state.recorded(before).unwrap();
    assert!(!then.current);
    let unit = then.organisation().unwrap();
    let period = "2026-02-01".parse().unwrap();
    let then = unit.extension("daily", unit.unit("A").unwrap(), period).unwrap();
    assert_eq!(&*then.reason, "雪, \"大\"");
}
