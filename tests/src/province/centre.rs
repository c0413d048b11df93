//! The centre of a simulated history: judges, folds in and, on a thread of its own, commits, as the service
//! does, at the moments it is told.

use std::sync::mpsc::{SyncSender, sync_channel};

use anyhow::{Context, Result, anyhow, bail};
use banyan_aggregator::act::{Act, Below, NewCode, SignedAct, secret_hash};
use banyan_aggregator::identity::Identity;
use banyan_aggregator::ledger::{Ledger, NewRow, SUBMISSION_ROWS_MAX};
use banyan_aggregator::state::{Judgement, State};
use banyan_shared::ids::{ContextNumber, Millis, Position, UnitCode};
use banyan_shared::keys::{PublicKey, SigningKey, sha256};
use banyan_shared::period::Date;
use banyan_shared::wire::{EnrolRequest, HashedBatch, encode};

use super::desk::Sent;
use super::{SENDING, Summary};

/// Codes of one act, as `enroll --each` makes them.
const CODES_AT_A_TIME: usize = 200;

/// An agent to be enrolled.
#[derive(Clone, Debug)]
pub(crate) struct Applicant {
    /// The facility it reports for.
    pub(crate) home: UnitCode,
    /// What it reports for by proxy.
    pub(crate) below: Vec<Below>,
    /// Its key.
    pub(crate) key: PublicKey,
}

impl Applicant {
    /// One that reports for its own facility only.
    pub(crate) fn alone(home: UnitCode, key: &SigningKey) -> Applicant {
        Applicant { home, below: Vec::new(), key: key.public() }
    }
}

/// Rows for the ledger, when they are received, and at which position they begin.
type Group = (Vec<NewRow>, Millis, Position);

/// The centre: judges, folds in and, on a thread of its own, commits.
pub(crate) struct Centre {
    pub(crate) state: State,
    pub(crate) identity: Identity,
    position: Position,
    newest: Millis,
    acts: u64,
    groups: SyncSender<Group>,
    ledger: std::thread::JoinHandle<Result<()>>,
}

impl Centre {
    pub(crate) fn new(state: State, identity: Identity, mut ledger: Ledger) -> Centre {
        let position = state.position;
        let newest = state.newest.unwrap_or_default();
        let (groups, received) = sync_channel::<Group>(4);
        let ledger = std::thread::spawn(move || -> Result<()> {
            for (rows, at, first) in received {
                let committed = ledger.commit_now(&rows, at)?;
                if committed.positions.start != first || committed.received_at != at {
                    bail!("committed at {:?}, folded in at {first}", committed.positions);
                }
            }
            Ok(())
        });
        Centre { state, identity, position, newest, acts: position, groups, ledger }
    }

    /// The moment, moved on where it would fall behind what is stored.
    fn moment(&mut self, at: Millis) -> Millis {
        self.newest = at.max(self.newest);
        self.newest
    }

    fn commit(&mut self, rows: Vec<NewRow>, at: Millis) -> Result<()> {
        let first = self.position + 1;
        self.position += rows.len() as u64;
        let gone = self.groups.send((rows, at, first)).is_err();
        if gone { Err(anyhow!("the ledger has failed")) } else { Ok(()) }
    }

    pub(crate) fn act(&mut self, act: Act, at: Millis) -> Result<()> {
        self.act_all(vec![act], at)
    }

    fn act_all(&mut self, acts: Vec<Act>, at: Millis) -> Result<()> {
        let at = self.moment(at);
        let mut rows = Vec::with_capacity(acts.len());
        let mut position = self.position;
        for act in acts {
            let signed = SignedAct { by: "service".to_owned(), at, act };
            rows.push(NewRow::act(signed.seal(&self.identity.key)));
            position += 1;
            self.state.apply_act(&signed, position, at)?;
        }
        self.acts += rows.len() as u64;
        self.commit(rows, at)
    }

    /// Makes a code for every applicant and admits it; gives each the number of its context and the facilities
    /// in it.
    pub(crate) fn enrol(
        &mut self,
        applicants: &[Applicant],
        seed: u64,
        at: Millis,
    ) -> Result<Vec<(ContextNumber, Vec<UnitCode>)>> {
        let day = self.state.catalogue.day_at(at).plus(1);
        let first = self.state.next_context(1, applicants.len())?;
        let secret = |number: u32| -> [u8; 10] {
            let digest = sha256(&[b"secret", &seed.to_le_bytes(), &number.to_le_bytes()]);
            let mut secret = [0; 10];
            secret.copy_from_slice(&digest[..10]);
            secret
        };
        let mut granted = Vec::with_capacity(applicants.len());
        for (some, first) in
            applicants.chunks(CODES_AT_A_TIME).zip((first..).step_by(CODES_AT_A_TIME))
        {
            let mut codes = Vec::with_capacity(some.len());
            for (applicant, number) in some.iter().zip(first..) {
                // Places in the registry are those of the day: this one knows of no later change.
                let home = self.state.organisation.unit(applicant.home.as_str());
                let home =
                    home.with_context(|| format!("{} is in the registry", applicant.home))?;
                let context = self.state.context(number, &[home], &applicant.below, day)?;
                granted.push((number, context.facilities.clone()));
                codes.push(NewCode {
                    number,
                    secret: secret_hash(number, &secret(number)),
                    contexts: vec![context],
                    uses: 1,
                    expires: at.plus(30 * 86_400_000),
                });
            }
            self.act(Act::Codes(codes), at)?;
            let mut admissions = Vec::with_capacity(some.len());
            for (applicant, number) in some.iter().zip(first..) {
                let request = EnrolRequest {
                    key: applicant.key,
                    code: number,
                    secret: secret(number),
                    facility: None,
                    machine: u64::from(number),
                };
                let act = self.state.admission(&request, at).map_err(|why| anyhow!("{why}"))?;
                admissions.push(act.context("a fresh agent is admitted")?);
            }
            self.act_all(admissions, at)?;
        }
        Ok(granted)
    }

    /// Takes in what was sent on a day, in the order of the day.
    pub(super) fn take(
        &mut self,
        date: Date,
        mut sent: Vec<Sent>,
        summary: &mut Summary,
    ) -> Result<()> {
        sent.sort_by_key(|sent| sent.moment);
        let mut sent = sent.into_iter().peekable();
        while let Some(minute) = sent.peek().map(|sent| sent.moment) {
            let of_day = |part: u16| u8::try_from(part).unwrap_or(0);
            let hour = of_day(SENDING[minute].0 / 60);
            let at = self.state.catalogue.moment(date, hour, of_day(SENDING[minute].0 % 60));
            let at = self.moment(at);
            let mut rows = Vec::new();
            while rows.len() < SUBMISSION_ROWS_MAX
                && let Some(one) = sent.next_if(|one| one.moment == minute)
            {
                rows.push(self.judge(one, at, rows.len(), summary)?);
            }
            self.commit(rows, at)?;
        }
        Ok(())
    }

    fn judge(
        &mut self,
        one: Sent,
        at: Millis,
        row: usize,
        summary: &mut Summary,
    ) -> Result<NewRow> {
        let Sent { batch, bytes, reports, counts, .. } = one;
        let batch = HashedBatch::from(batch);
        let Judgement::Answer { store: true, refused, reused } = self.state.judge(&batch) else {
            bail!("a batch of {} was not taken", batch.agent);
        };
        if !reused.is_empty() {
            bail!("{} used {reused:?} twice", batch.agent);
        }
        summary.batches += 1;
        summary.batch_bytes += bytes.len() as u64;
        summary.versions += batch.entries.len() as u64;
        summary.reports += reports;
        summary.counts += counts;
        let added = self.state.hold(&batch, &refused);
        let position = self.position + 1 + row as u64;
        let stored = if refused.is_empty() { Vec::new() } else { encode(&refused) };
        self.state.apply_batch(batch, &added, &refused, position, at);
        Ok(NewRow { refused: stored, ..NewRow::batch(bytes) })
    }

    /// Ends the ledger; gives what is counted at `end`.
    pub(crate) fn close(mut self, end: Millis) -> Result<(State, u64)> {
        drop(self.groups);
        self.ledger.join().map_err(|_| anyhow!("the ledger's thread panicked"))??;
        self.state.rejudge(end);
        Ok((self.state, self.acts))
    }
}
