//! The intake: signed batches taken in, verified, judged, committed, counted and receipted, in process. First each
//! step by itself on one core, in rounds as the intake has them; then the real service behind the real broker, from
//! the first batch handed over to the last receipt. Beside it the same reports as JSON, unsigned, put into an indexed
//! SQLite table with as durable a commit for as many messages.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use banyan_aggregator::broker::{Broker, BrokerConfig, DownError, Downlink};
use banyan_aggregator::front_door::Registry;
use banyan_aggregator::identity::{Identity, store_id};
use banyan_aggregator::ledger::{Ledger, NewRow};
use banyan_aggregator::service::{Service, fold, ledger_dir, system_clock};
use banyan_aggregator::state::{Judgement, State};
use banyan_shared::ids::AgentId;
use banyan_shared::wire::{Batch, Envelope, HashedBatch, Receipt};
use banyan_tests::fleet::{Signed, Usage};
use banyan_tests::harness::copy;
use banyan_tests::model::shipped;
use bytes::Bytes;
use rusqlite::{Connection, params};
use tokio::sync::Notify;

use super::data::{JsonReport, Size, entries, fleet};
use super::measure::{Bench, print, rate, scratch, timed};

pub(crate) const PART: &str = "intake";
/// Messages of a round: as many as the intake takes at once.
const ROUND: usize = 2_048;
/// How long the last receipt may take.
const WITHIN: Duration = Duration::from_secs(300);

pub(crate) fn run(bench: &mut Bench) -> Result<()> {
    let sizes = if bench.is_small() {
        [("30 reports a batch", Size(20, 30, 30)), ("a report a batch", Size(20, 10, 1))]
    } else {
        [("30 reports a batch", Size(4_000, 180, 30)), ("a report a batch", Size(2_000, 40, 1))]
    };
    for (what, size) in sizes {
        let (_dir, made) = fleet(size)?;
        let peer = json_into_sqlite(&made)?;
        let peer = (rate(made.counts, peer.as_secs_f64(), "counts"), peer);
        steps(what, &made, &peer)?;
        whole(what, &made, &peer)?;
    }
    Ok(())
}

/// How long the steps took.
#[derive(Default)]
struct Steps(Vec<(&'static str, Duration)>);

impl Steps {
    fn add<T>(&mut self, step: &'static str, work: impl FnOnce() -> Result<T>) -> Result<T> {
        let (done, took) = timed(work)?;
        match self.0.iter_mut().find(|(name, _)| *name == step) {
            Some((_, sum)) => *sum += took,
            None => self.0.push((step, took)),
        }
        Ok(done)
    }
}

/// Every step of the intake's, one after the other on this thread.
fn steps(what: &str, made: &Signed, (peer, peer_took): &(String, Duration)) -> Result<()> {
    let dir = scratch()?;
    copy(&made.centre, dir.path())?;
    let clock = system_clock();
    let identity = Identity::open(dir.path())?;
    let mut ledger = Ledger::open(&ledger_dir(dir.path()))?;
    let mut state = fold(&ledger.reader()?, clock())?;
    let store = store_id(&ledger.identity());
    let mut steps = Steps::default();
    for round in made.batches.chunks(ROUND) {
        let envelopes: Vec<Envelope<'_>> = steps.add("verify", || {
            let open = |(agent, bytes): &'_ (AgentId, Bytes)| -> Result<()> {
                let known = state.agents.get(agent).context("the agents are enrolled")?;
                Envelope::read(bytes)?.open(&known.key)?;
                Ok(())
            };
            round.iter().try_for_each(open)?;
            round.iter().map(|(_, bytes)| Ok(Envelope::read(bytes)?)).collect()
        })?;
        let batches: Vec<Batch> = steps.add("decode", || {
            envelopes.iter().map(|envelope| Ok(Batch::read(envelope)?)).collect()
        })?;
        let batches: Vec<HashedBatch> =
            steps.add("hash", || Ok(batches.into_iter().map(HashedBatch::from).collect()))?;
        let added = steps.add("judge", || {
            let judge = |batch: &HashedBatch| match state.judge(batch) {
                Judgement::Answer { store: true, refused, .. } if refused.is_empty() => {
                    Ok(state.hold(batch, &refused))
                }
                other => bail!("a batch was judged {other:?}"),
            };
            batches.iter().map(judge).collect::<Result<Vec<_>>>()
        })?;
        let committed = steps.add("commit", || {
            let rows: Vec<NewRow> =
                round.iter().map(|(_, bytes)| NewRow::batch(bytes.to_vec())).collect();
            Ok(ledger.commit_now(&rows, clock())?)
        })?;
        let asked: Vec<_> = batches
            .iter()
            .map(|batch| {
                let sent: Vec<_> = batch.hashed().map(|(entry, hash)| (entry.seq, hash)).collect();
                (batch.agent, batch.epoch, sent)
            })
            .collect();
        steps.add("count", || {
            for ((batch, added), position) in
                batches.into_iter().zip(&added).zip(committed.positions)
            {
                state.apply_batch(batch, added, &Vec::new(), position, committed.received_at);
            }
            Ok(())
        })?;
        steps.add("receipt", || {
            for (id, epoch, sent) in asked {
                let agent = state.agents.get(&id).context("the agents are enrolled")?;
                let receipt = Receipt {
                    store,
                    position: state.position,
                    lives: vec![agent.inbox.of(epoch, &sent)],
                    complete: false,
                    answers: agent.nonce,
                    time: clock(),
                    credit: 4,
                };
                std::hint::black_box(receipt.seal(id, &identity.key));
            }
            Ok(())
        })?;
    }
    all_counted(&state, made)?;
    let sum: Duration = steps.0.iter().map(|(_, took)| *took).sum();
    for (step, took) in &steps.0 {
        let share = took.as_secs_f64() / sum.as_secs_f64() * 100.0;
        let ns = took.as_secs_f64() * 1e9 / made.counts as f64;
        let us = took.as_secs_f64() * 1e6 / made.batches.len() as f64;
        let text = format!("{ns:.0} ns a count, {us:.1} µs a batch, {share:.0} %");
        print((PART, &format!("{what}: {step}")), &text, None);
    }
    let ours = rate(made.counts, sum.as_secs_f64(), "counts");
    let ratio = peer_took.as_secs_f64() / sum.as_secs_f64();
    let line = format!("{what}: all steps, one core");
    print((PART, &line), &ours, Some(("JSON into SQLite", peer, ratio)));
    Ok(())
}

/// Whether every number is counted once.
fn all_counted(state: &State, made: &Signed) -> Result<()> {
    let mut counts = 0;
    for form in state.cube.forms() {
        let slots = u32::try_from(form.slots().len())?;
        for (_, block) in form.blocks() {
            for column in 0..form.columns().len() {
                let numbers =
                    (0..slots).filter(|slot| block.value(column, *slot).number().is_some());
                counts += numbers.count() as u64;
            }
        }
    }
    ensure!(counts == made.counts, "{counts} of {} numbers are counted", made.counts);
    Ok(())
}

/// Counts what is sent down, and tells when it is all: nobody is connected.
struct Sent {
    left: AtomicU64,
    all: Notify,
}

impl Downlink for Sent {
    fn publish_down(&self, _: AgentId, _: Bytes) -> Result<(), DownError> {
        if self.left.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.all.notify_one();
        }
        Ok(())
    }
}

/// The real service behind the real broker.
fn whole(what: &str, made: &Signed, (peer, peer_took): &(String, Duration)) -> Result<()> {
    let dir = scratch()?;
    copy(&made.centre, dir.path())?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let (took, used) = runtime.block_on(serve(dir.path(), made))?;
    let ours = rate(made.counts, took.as_secs_f64(), "counts");
    let ratio = peer_took.as_secs_f64() / took.as_secs_f64();
    let line =
        format!("{what}: broker to visible, {}", rate(made.reports, took.as_secs_f64(), "reports"));
    print((PART, &line), &ours, Some(("JSON into SQLite", peer, ratio)));
    let core = rate(made.counts, used, "counts");
    print((PART, &format!("{what}: the same, for a second of CPU")), &core, None);
    Ok(())
}

async fn serve(dir: &Path, made: &Signed) -> Result<(Duration, f64)> {
    let (broker, incoming) = Broker::start(BrokerConfig::default(), Arc::new(Registry::default()))?;
    let left = AtomicU64::new(made.batches.len() as u64);
    let sent = Arc::new(Sent { left, all: Notify::new() });
    let (service, running) =
        Service::open(dir, system_clock(), Some((incoming, sent.clone()))).await?;
    let (uplink, batches) = (broker.uplink(), made.batches.clone());
    let pid = std::process::id();
    let (before, begun) = (Usage::of(pid)?, Instant::now());
    let sending = tokio::spawn(async move {
        for (agent, bytes) in batches {
            uplink.send(agent, bytes, None).await?;
        }
        anyhow::Ok(())
    });
    sending.await??;
    let all = tokio::time::timeout(WITHIN, sent.all.notified()).await;
    ensure!(all.is_ok(), "not all is answered: {:?}", service.counters().values());
    let took = begun.elapsed();
    let used = Usage::of(pid)?.since(&before).cpu_s();
    all_counted(&service.state().read(), made)?;
    drop(service);
    broker.stop().await;
    running.stop().await?;
    Ok((took, used))
}

const SCHEMA: &str = "
PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA cache_size = -1000000;
CREATE TABLE current (
    facility INTEGER, period TEXT, form INTEGER, element INTEGER, value INTEGER, at INTEGER,
    PRIMARY KEY (facility, period, form, element)
) STRICT, WITHOUT ROWID;
";
const UPSERT: &str = "
INSERT INTO current VALUES (?1, ?2, ?3, ?4, ?5, ?6) ON CONFLICT (facility, period, form, element)
DO UPDATE SET value = excluded.value, at = excluded.at WHERE current.at <= excluded.at
";

/// The numbers of codes, given out as they come.
#[derive(Default)]
struct Numbers(HashMap<String, i64>);

impl Numbers {
    fn of(&mut self, code: &str) -> i64 {
        if let Some(number) = self.0.get(code) {
            return *number;
        }
        let number = self.0.len() as i64;
        self.0.insert(code.to_owned(), number);
        number
    }
}

/// The same batches as JSON, read and put into a table: how long it takes.
fn json_into_sqlite(made: &Signed) -> Result<Duration> {
    let (catalogue, _) = shipped()?;
    let mut messages = Vec::with_capacity(made.batches.len());
    for (agent, bytes) in &made.batches {
        // The code of a facility is as long.
        let facility = format!("{agent}-VC");
        let reports = JsonReport::all(&catalogue, &facility, &entries(bytes)?)?;
        messages.push(serde_json::to_vec(&reports)?);
    }
    let dir = scratch()?;
    let mut connection = Connection::open(dir.path().join("current.sqlite"))?;
    connection.execute_batch(SCHEMA)?;
    let (mut facilities, mut codes) = (Numbers::default(), Numbers::default());
    let ((), took) = timed(|| {
        for round in messages.chunks(ROUND) {
            let transaction = connection.transaction()?;
            {
                let mut upsert = transaction.prepare_cached(UPSERT)?;
                for message in round {
                    for report in serde_json::from_slice::<Vec<JsonReport>>(message)? {
                        let (facility, form) =
                            (facilities.of(&report.facility), codes.of(&report.form));
                        for (element, value) in &report.values {
                            let element = codes.of(element);
                            upsert.execute(params![
                                facility,
                                report.period,
                                form,
                                element,
                                value,
                                report.at
                            ])?;
                        }
                    }
                }
            }
            transaction.commit()?;
        }
        Ok(())
    })?;
    let rows: u64 = connection.query_row("SELECT count(*) FROM current", [], |row| row.get(0))?;
    ensure!(rows == made.counts, "{rows} of {} numbers are in the table", made.counts);
    Ok(took)
}
