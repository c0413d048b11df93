//! What holds for whoever asks the service: acts and what follows from them, extensions.

use banyan_shared::catalogue::Lang;
use banyan_shared::ids::AgentId;
use banyan_shared::tables::TableName;
use banyan_shared::wire::deflate;

use super::reports::tests::centre::{Centre, LATER};
use super::*;
use crate::act::{Below, NewCode, NewContext};
use crate::query::fixture;
use crate::state::tests::{batch, key, report, table, two};

impl Centre {
    fn put(&self, acts: Vec<Act>) -> Result<()> {
        self.runtime.block_on(self.service.act("operator", Box::new(|_| Ok(acts))))
    }

    fn extend(&self, unit: &str, period: &str, due: Option<&str>) -> Result<ExtendReport> {
        let call = ExtendCall {
            form: "daily".into(),
            unit: unit.into(),
            period: period.into(),
            due: due.map(Into::into),
            reason: "雪".into(),
            lang: Lang::En,
        };
        self.runtime.block_on(self.service.extend("operator", call))
    }
}

#[test]
fn an_act_that_cannot_be_folded_ends_the_intake_and_shows_at_the_next_start() {
    let centre = Centre::new();
    let broken = || vec![Act::Tables(vec![table(TableName::Units, "code,name\n")])];
    let error = format!("{:#}", centre.put(broken()).unwrap_err());
    assert!(error.contains("could not be put in force"), "{error}");
    let after = centre.put(vec![Act::Revoked { agent: AgentId([1; 6]) }]).unwrap_err();
    assert!(format!("{after:#}").contains("stopping"), "nothing is judged on top of it: {after:#}");
    assert!(centre.runtime.block_on(centre.service.checkpoint()).is_err());
    let Centre { dir, runtime, service, mut running } = centre;
    runtime.block_on(running.intake_ended());
    drop(service);
    let error = format!("{:#}", runtime.block_on(running.stop()).unwrap_err());
    assert!(error.contains("cannot be folded"), "{error}");
    let clock: Clock = Arc::new(|| LATER);
    let opened = runtime.block_on(Service::open(&dir.path().join("data"), clock, None));
    let error = format!("{:#}", opened.err().expect("the error must not be hidden"));
    assert!(error.contains("the registry has"), "{error}");
}

#[test]
fn a_service_told_to_end_does_not_wait_for_a_verification() {
    let Centre { dir: _dir, runtime, service, mut running } = Centre::new();
    running.rows_kept = 0;
    let keeper = service.keeper.clone();
    let verifying = keeper.stay();
    let limit = std::time::Duration::from_secs(60);
    let in_time = async { tokio::time::timeout(limit, service.checkpoint()).await };
    let error = runtime.block_on(in_time).expect("no wait").unwrap_err();
    assert!(error.to_string().contains("verified"), "{error:#}");
    drop(service);
    let in_time = async { tokio::time::timeout(limit, running.stop()).await };
    runtime.block_on(in_time).expect("no wait").unwrap();
    drop(verifying);
}

#[test]
fn a_claim_of_who_is_out_is_not_approved() {
    let centre = Centre::new();
    let context = NewContext { number: 1, facilities: vec!["A".parse().unwrap()], below: vec![] };
    let code = NewCode {
        number: 7,
        secret: [0; 16],
        contexts: vec![context],
        uses: 9,
        expires: LATER.plus(1000),
    };
    let (holder, out) = (key(1).public(), key(2).public());
    let admitted = |key| Act::Admitted { key, code: 7, context: 1, machine: 0, succeeds: None };
    let acts = vec![
        Act::Codes(vec![code]),
        admitted(out),
        Act::Revoked { agent: out.agent_id() },
        admitted(holder),
        // Judged before it was out, stored after.
        Act::Claimed { key: out, code: 7, context: 1, machine: 0 },
    ];
    centre.put(acts).unwrap();
    let decide = |approve| {
        let agent = out.agent_id().to_string();
        let call = DecideClaim { agent, approve, beside: false, lang: Lang::En };
        centre.runtime.block_on(centre.service.decide_claim("operator", call))
    };
    let error = decide(true).unwrap_err();
    assert!(error.is::<Usage>() && error.to_string().contains("revoked"), "{error:#}");
    let is_in = |key: banyan_shared::keys::PublicKey| {
        centre.service.state().read().agents[&key.agent_id()].revoked.is_none()
    };
    assert!(is_in(holder) && !is_in(out));
    assert_eq!(decide(false).unwrap().state, "refused");
    assert!(is_in(holder));
}

#[test]
fn backups_take_turns() {
    let centre = Centre::new();
    let file = centre.dir.path().join("a.bak");
    let turn = centre.runtime.block_on(centre.service.backing_up.clone().lock_owned());
    let tasks: Vec<_> = (0..4)
        .map(|n| {
            let (service, file) = (centre.service.clone(), file.clone());
            centre.runtime.spawn(async move { service.backup(&file, n % 2 == 0).await })
        })
        .collect();
    drop(turn);
    for task in tasks {
        centre.runtime.block_on(task).unwrap().unwrap();
    }
    crate::ledger::check_backup(&file).unwrap();
    let names = std::fs::read_dir(centre.dir.path()).unwrap().map(|e| e.unwrap().file_name());
    assert!(!names.into_iter().any(|name| name.to_string_lossy().contains(".part")));
    // Whoever asked goes away while it is being written: the next one still waits for its end.
    let asked = centre.service.backup(&file, false);
    let mut asked = Box::pin(asked);
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    let _in_runtime = centre.runtime.enter();
    let _ = asked.as_mut().poll(&mut context);
    drop(asked);
    centre.runtime.block_on(centre.service.backup(&file, true)).unwrap();
    let kind = crate::ledger::check_backup(&file).unwrap().kind;
    assert_eq!(kind, crate::ledger::BackupKind::Identity, "the later one stands");
}

#[test]
fn agents_get_what_an_act_puts_in_force_whether_anybody_waits_for_it_or_not() {
    let centre = Centre::new();
    let below = Below { unit: "T1".parse().unwrap(), kind: None };
    let context =
        NewContext { number: 1, facilities: vec!["A".parse().unwrap()], below: vec![below] };
    let code = NewCode {
        number: 7,
        secret: [0; 16],
        contexts: vec![context],
        uses: 9,
        expires: LATER.plus(1000),
    };
    let admitted = |n| {
        let key = key(n).public();
        Act::Admitted { key, code: 7, context: 1, machine: 0, succeeds: None }
    };
    let has = |n| {
        let state = centre.service.state().read();
        let agent = &state.agents[&key(n).public().agent_id()];
        let context = &state.contexts[&agent.newest];
        let facilities = context.facilities.iter().map(ToString::to_string).collect::<Vec<_>>();
        (facilities.join(" "), context.catalogue == state.catalogue.hash)
    };
    centre.put(vec![Act::Codes(vec![code]), admitted(1)]).unwrap();
    assert_eq!(has(1), ("A B".to_owned(), true), "the facilities under the rule today");
    let units = format!("{}NEW,新,clinic,T1,,,,,\n", fixture::UNITS);
    // As if whoever asked had gone away: nothing but the act reaches the intake.
    centre.put(vec![Act::Tables(vec![table(TableName::Units, &units)])]).unwrap();
    assert_eq!(has(1), ("A B NEW".to_owned(), true));
    let catalogue = fixture::CATALOGUE.replacen("version = \"", "version = \"next-", 1);
    centre.put(vec![Act::Catalogue { toml: deflate(catalogue.as_bytes()) }]).unwrap();
    assert_eq!(has(1), ("A B NEW".to_owned(), true));
    // What was granted says of A that it is a clinic of T1 without a role.
    let context_of = |n| {
        let state = centre.service.state().read();
        let newest = state.agents[&key(n).public().agent_id()].newest;
        (newest, state.offer(newest).unwrap().facilities)
    };
    let (before, told) = context_of(1);
    assert!(told.iter().all(|facility| facility.roles.iter().all(|role| role.role != "lead")));
    let elsewhere = units.replace("D,丁诊所", "D,丁卫生所");
    centre.put(vec![Act::Tables(vec![table(TableName::Units, &elsewhere)])]).unwrap();
    assert_eq!(context_of(1).0, before, "another's facility has changed");
    let members = format!("{}L2,B,lead,,\n", fixture::MEMBERS);
    centre.put(vec![Act::Tables(vec![table(TableName::Members, &members)])]).unwrap();
    let (after, told) = context_of(1);
    assert_ne!(after, before);
    assert!(told[1].roles.iter().any(|role| role.role == "lead"), "{:?}", told[1]);
    assert_eq!(has(1), ("A B NEW".to_owned(), true));
    // With a code made under the earlier catalogue.
    centre.put(vec![admitted(2)]).unwrap();
    assert_eq!(has(2), ("A B NEW".to_owned(), true));
}

#[test]
fn an_extension_is_kept_as_it_was_understood() {
    let centre = Centre::new();
    let refused = |period: &str, due: Option<&str>| {
        format!("{:#}", centre.extend("D", period, due).unwrap_err())
    };
    let two = "2026-03-01T18:00,x\ndaily,A,2026-02-02,waived";
    let text = refused("2026-02-01", Some(two));
    assert!(text.contains("one value each"), "{text}");
    let two = "2026-02-01,waived,x\ndaily,A,2026-02-02";
    assert!(refused(two, None).contains("one value each"));
    assert!(refused("2024-01-01..2025-12-31", None).contains("731 periods, at most 400"));
    assert!(centre.service.state().read().history.extended().is_empty());
    let done = centre.extend("D", " 2026-02-01..2026-02-28", Some("2026-03-01 18:00:30")).unwrap();
    assert_eq!(
        (&*done.period, &*done.due, done.reports),
        ("2026-02-01..2026-02-28", "2026-03-01T18:00", 28)
    );
    let kept = centre.service.state().read().history.extended();
    assert_eq!((&*kept[0].period, &*kept[0].due), ("2026-02-01..2026-02-28", "2026-03-01T18:00"));
}

#[test]
fn a_unit_taken_out_takes_what_was_granted_to_it_along_and_the_import_says_so() {
    let centre = Centre::new();
    centre.extend("D", "2026-02-01", None).unwrap();
    centre.extend("A", "2026-02-01", None).unwrap();
    let units = fixture::UNITS.replace("D,丁诊所,clinic,T3,,,,,\n", "");
    let members = fixture::MEMBERS.replace("L2,D,member,,\n", "");
    let given = |file: &str, text: &str| GivenTable {
        file: file.into(),
        bytes: data_encoding::BASE64.encode(text.as_bytes()),
    };
    let call = ImportUnits {
        tables: vec![given("units.csv", &units), given("members.csv", &members)],
        apply: true,
        months: Some(vec![]),
        lang: Lang::En,
    };
    let report = centre.runtime.block_on(centre.service.import_units("operator", call)).unwrap();
    assert!(report.applied);
    let said: Vec<_> =
        report.warnings.iter().filter(|text| text.contains("covers nothing")).collect();
    assert_eq!(said.len(), 1, "{:?}", report.warnings);
    assert!(said[0].contains("daily 2026-02-01 of D"), "{said:?}");
    // The other one still holds.
    let state = centre.service.state().read();
    let unit = state.organisation.unit("A").unwrap();
    assert!(state.organisation.extension("daily", unit, "2026-02-01".parse().unwrap()).is_some());
}

/// What agents are told.
type Said = std::sync::mpsc::Receiver<(AgentId, bytes::Bytes)>;

/// The way down to agents, as seen from its other end.
struct Down(std::sync::mpsc::Sender<(AgentId, bytes::Bytes)>);

impl Downlink for Down {
    fn publish_down(&self, agent: AgentId, payload: bytes::Bytes) -> Result<(), DownError> {
        self.0.send((agent, payload)).map_err(|_| DownError::Closed)
    }
}

/// How long anything may take that is waited for.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(60);

/// A message of the agent of key 1.
fn message(batch: banyan_shared::wire::Batch) -> Incoming {
    Incoming {
        agent: batch.agent,
        payload: batch.seal(&key(1)).into(),
        permit: crate::broker::Permit::alone(),
    }
}

impl Centre {
    /// Admits the agent of key 1, for A under context 1.
    fn admit(&self) {
        let context =
            NewContext { number: 1, facilities: vec!["A".parse().unwrap()], below: vec![] };
        let code = NewCode {
            number: 7,
            secret: [0; 16],
            contexts: vec![context],
            uses: 1,
            expires: LATER.plus(1000),
        };
        let key = key(1).public();
        let admitted = Act::Admitted { key, code: 7, context: 1, machine: 0, succeeds: None };
        self.put(vec![Act::Codes(vec![code]), admitted]).unwrap();
    }

    /// The same again, with a way in and a way down.
    fn on_a_line(self) -> (Centre, mpsc::Sender<Incoming>, Said) {
        let Centre { dir, runtime, service, running } = self;
        drop(service);
        runtime.block_on(running.stop()).unwrap();
        let (send, incoming) = mpsc::channel(1);
        let (down, said) = std::sync::mpsc::channel();
        let clock: Clock = Arc::new(|| LATER);
        let lines = Some((incoming, Arc::new(Down(down)) as Arc<dyn Downlink>));
        let (service, running) =
            runtime.block_on(Service::open(&dir.path().join("data"), clock, lines)).unwrap();
        (Centre { dir, runtime, service, running }, send, said)
    }
}

#[test]
fn while_a_question_is_worked_out_a_batch_commits_and_is_receipted() {
    let centre = Centre::new();
    centre.admit();
    let (centre, send, receipts) = centre.on_a_line();
    let Centre { dir: _dir, runtime, service, running } = centre;
    let visits = |answer: &crate::query::QueryAnswer| {
        answer.rows[0].elements.get("visits").and_then(|figure| figure.value)
    };
    let question = crate::query::QueryRequest {
        place: "C1".into(),
        period: "2026-01".into(),
        ..Default::default()
    };
    let before = service.state().read().position;
    let ((begun, has_begun), (go_on, held)) =
        (std::sync::mpsc::channel(), std::sync::mpsc::channel::<()>());
    std::thread::scope(|scope| {
        let (asked, asking) = (&service, &question);
        let long = scope.spawn(move || {
            asked.ask(Lang::En, None, ("C1", "2026-01"), |engine, now| {
                begun.send(()).unwrap();
                held.recv_timeout(PATIENCE).unwrap();
                engine.query(asking, now)
            })
        });
        has_begun.recv_timeout(PATIENCE).unwrap();
        let report = batch(vec![(1, report(0, 0, "2026-01-05", two(7, 1)))]);
        send.blocking_send(message(report)).unwrap();
        let (to, bytes) = receipts.recv_timeout(PATIENCE).expect("a receipt while it is held");
        assert_eq!(to, key(1).public().agent_id());
        let envelope = banyan_shared::wire::Envelope::read(&bytes).unwrap();
        let receipt =
            banyan_shared::wire::Receipt::open(&envelope, &service.identity().key.public());
        assert!(receipt.unwrap().position > before);
        // Another one sees it already; the first is of its own moment throughout.
        let (other, model) = service
            .ask(Lang::En, None, ("C1", "2026-01"), |e, now| e.query(&question, now))
            .unwrap();
        assert_eq!((visits(&other), model.position), (Some(7), before + 1));
        go_on.send(()).unwrap();
        let (answer, model) = long.join().unwrap().unwrap();
        assert_eq!((visits(&answer), model.position), (None, before));
    });
    drop((send, service));
    runtime.block_on(running.stop()).unwrap();
}

#[test]
fn a_newer_context_is_offered_before_the_receipt_and_behind_it_if_it_did_not_arrive() {
    use banyan_shared::wire::{Answer, Batch, Beacon, Envelope, Hello, Kind};
    let centre = Centre::new();
    centre.admit();
    let catalogue = fixture::CATALOGUE.replacen("version = \"", "version = \"next-", 1);
    centre.put(vec![Act::Catalogue { toml: deflate(catalogue.as_bytes()) }]).unwrap();
    let (centre, send, told) = centre.on_a_line();
    // What is said to a batch written under the first context, up to the receipt.
    let said = |seq, day| {
        let report = batch(vec![(seq, report(0, 0, day, two(7, 1)))]);
        send.blocking_send(message(report)).unwrap();
        let mut said = Vec::new();
        loop {
            let (_, bytes) = told.recv_timeout(PATIENCE).expect("an answer");
            let kind = Envelope::read(&bytes).unwrap().kind;
            said.push((kind, bytes));
            if kind == Kind::Receipt {
                return said;
            }
        }
    };
    let first = said(1, "2026-01-05");
    let [(Kind::Answer, grant), (Kind::Receipt, _)] = &first[..] else {
        panic!("a grant, then the receipt");
    };
    let root = centre.service.identity().root;
    let (answer, _) = Answer::open(&Envelope::read(grant).unwrap(), &root).unwrap();
    assert!(matches!(answer, Answer::Granted { catalogue: Some(_), .. }), "{answer:?}");
    let second = said(2, "2026-01-06");
    assert!(matches!(second[..], [(Kind::Receipt, _)]), "it stays connected: told once");
    // It comes again, and still does not know it.
    let comes_again = |nonce| {
        let hello = Hello { nonce, beacon: Beacon::default(), operating: None };
        let batch = Batch { hello: Some(hello), ..batch(vec![]) };
        send.blocking_send(message(batch)).unwrap();
        let told = || told.recv_timeout(PATIENCE).expect("an answer").1;
        [told(), told()].map(|bytes| Envelope::read(&bytes).unwrap().kind)
    };
    assert_eq!(comes_again(1), [Kind::Receipt, Kind::Answer], "the line may be too bad for it");
    assert_eq!(comes_again(2), [Kind::Answer, Kind::Receipt], "it may have hung up");
    assert_eq!(comes_again(3), [Kind::Receipt, Kind::Answer]);
    let Centre { dir: _dir, runtime, service, running } = centre;
    drop((send, service));
    runtime.block_on(running.stop()).unwrap();
}

/// Older months that change while they are read.
#[derive(Debug, Default)]
struct Changing(std::sync::atomic::AtomicU64);

impl crate::cube::Older for Changing {
    fn month(&self, _: usize, _: Period) -> Arc<crate::cube::Month> {
        Arc::default()
    }

    fn rewritten(&self) -> u64 {
        self.0.load(std::sync::atomic::Ordering::SeqCst)
    }
}

#[test]
fn a_question_whose_older_months_change_under_it_is_worked_out_again() {
    let centre = Centre::new();
    let older = Arc::new(Changing::default());
    centre.service.state().write().cube.set_older(older.clone());
    for (changes, expected) in [(0, Some(1)), (1, Some(2)), (2, Some(3)), (3, None)] {
        let tried = std::cell::Cell::new(0);
        let answer = centre.service.ask(Lang::En, None, ("C1", "2026-01"), |_, _| {
            tried.set(tried.get() + 1);
            if tried.get() <= changes {
                older.0.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            }
            Ok(tried.get())
        });
        let answer = answer.map(|(tried, _)| tried);
        match expected {
            Some(times) => assert_eq!(answer.unwrap(), times),
            None => assert!(answer.unwrap_err().downcast_ref::<Busy>().is_some()),
        }
    }
}

#[test]
fn answers_are_made_ready_while_nobody_asks_until_the_service_stops() {
    let centre = Centre::new();
    let form = centre.service.state().read().catalogue.form("daily").unwrap();
    let version = crate::cube::AcceptedVersion {
        facility: "A".parse().unwrap(),
        form,
        period: "2026-01-05".parse().unwrap(),
        id: banyan_shared::ids::VersionId {
            writer: AgentId([1; 6]),
            epoch: banyan_shared::ids::Epoch { counter: 1, random: 1 },
            seq: 1,
        },
        content: banyan_shared::report::Content {
            values: two(7, 1),
            how: banyan_shared::report::How::Direct,
            entered_by: None,
            reason: None,
            override_code: None,
            withdrawn: false,
            entered_at: banyan_shared::report::EnteredAt {
                minute: LATER.minute(),
                doubtful: false,
            },
            replaces: vec![],
        },
        received_at: LATER,
        position: 9,
    };
    {
        let mut state = centre.service.state().write();
        let catalogue = state.catalogue.clone();
        state.cube.apply(&catalogue, version).unwrap();
    }
    let counter = |name: &str| {
        centre.service.ready().into_iter().find(|(of, _)| *of == name).map(|(_, n)| n).unwrap()
    };
    let (stop, stopped) = watch::channel(false);
    let task = centre.runtime.spawn(keep_ready(centre.service.clone(), stopped));
    let over = async {
        while counter("rounds") == 0 {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    centre.runtime.block_on(async { tokio::time::timeout(PATIENCE, over).await }).unwrap();
    // Three places and four networks, of one month.
    assert_eq!(counter("made"), 6, "one network begins later");
    let bytes = counter("bytes");
    let call = QueryCall { unit: "C1".into(), period: "2026-01".into(), ..QueryCall::default() };
    let answer = centre.service.figures(&call).unwrap();
    assert_eq!(answer.rows[0].elements.get("visits").and_then(|figure| figure.value), Some(7));
    assert_eq!(counter("bytes"), bytes, "what was kept was answered");
    stop.send_replace(true);
    centre
        .runtime
        .block_on(async { tokio::time::timeout(PATIENCE, task).await })
        .expect("it ends when told to")
        .unwrap();
}

#[test]
fn an_identity_used_in_two_places_is_on_the_log_of_who_did_what() {
    let centre = Centre::new();
    let roll = centre.service.entrance().roll;
    let key = banyan_shared::keys::SigningKey::from_seed(&[3; 32]).unwrap().public();
    let agent = key.agent_id();
    roll.put(agent, crate::roll::Standing::Admitted(key));
    let (stop, stopped) = watch::channel(false);
    let log = crate::serve::log_contests(centre.service.clone(), stopped);
    let task = centre.runtime.spawn(log);
    let addresses: Vec<std::net::IpAddr> = vec![[10, 0, 0, 1].into(), [10, 0, 0, 2].into()];
    let contest = crate::front_door::Contest { addresses: addresses.clone(), take_overs: 4 };
    roll.contest(agent, LATER, contest);
    let call = crate::access::AuditCall {
        kind: Some(crate::access::AuditKind::Agent),
        ..crate::access::AuditCall::default()
    };
    let written = || crate::access::read_audit(&centre.service, &call).unwrap();
    let found = centre.runtime.block_on(async {
        let found = async {
            loop {
                let found = written();
                if found["records"].as_array().is_some_and(|records| !records.is_empty()) {
                    return found;
                }
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(std::time::Duration::from_secs(30), found).await.unwrap()
    });
    assert_eq!(found["records"].as_array().unwrap().len(), 1);
    let record = &found["records"][0];
    assert_eq!((&record["kind"], &record["what"]), (&"agent".into(), &"contested".into()));
    assert_eq!(record["of"], agent.to_string());
    assert_eq!(record["address"], "10.0.0.2");
    assert_eq!(record["outcome"], "4 take-overs: 10.0.0.1 10.0.0.2");
    stop.send_replace(true);
    centre.runtime.block_on(task).unwrap();
}
