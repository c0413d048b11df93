//! What the agent says of itself: `status`, `queue ls`, `queue show`.

use banyan_shared::figures::deadline;
use banyan_shared::ids::{Epoch, Millis, Seq};
use banyan_shared::period::{Date, Period};
use banyan_shared::wire::Body;

use super::{Core, enrolment_open};
use crate::capture::{Time, value};
use crate::command::{NextDue, QueueRow, QueueState, Shown, Status};
use crate::identity::Context;
use crate::note::{Note, note};
use crate::store::{EntryId, ReportKey, Store};

/// Most rows `queue ls` gives.
const QUEUE_ROWS_MAX: usize = 1000;

impl Core {
    pub(super) fn status(&mut self) -> Result<Status, Note> {
        let context = self.present()?;
        let time = self.time(&context);
        let next_due = self.next_due(&context, time)?;
        let parked = self.parked_count()?;
        let store = self.store()?;
        let moment = |at: Millis| {
            let zoned = at.timestamp().to_zoned(context.catalogue.time_zone.clone());
            zoned.strftime("%Y-%m-%dT%H:%M:%S%:z").to_string()
        };
        let minute = |minute: u32| moment(Millis(i64::from(minute) * 60_000));
        Ok(Status {
            agent: self.identity.agent().to_string(),
            home: context.home().code.to_string(),
            facilities: context.facilities.iter().map(|f| f.code.to_string()).collect(),
            waiting: store.outbox.waiting() as u64,
            received: store.received(),
            refused: store.refused().count() as u64,
            parked,
            returned: 0,
            oldest_waiting: store.oldest_waiting()?.map(minute),
            next_due: next_due.map(|(key, due)| NextDue {
                form: key.form.to_string(),
                unit: key.facility.to_string(),
                period: key.period.to_string(),
                due: moment(due),
            }),
            last_receipt: store.clock.receipt.map(moment),
            clock_offset_ms: store.clock.offset_ms,
            link: self.link.clone(),
            refusal: self.identity.refusal(),
        })
    }

    fn parked_count(&mut self) -> Result<u64, Note> {
        let store = self.store.as_ref().ok_or_else(enrolment_open)?;
        Ok(store.parked(&mut self.identity)?.len() as u64)
    }

    /// The report of ours that is due next and has not been entered.
    fn next_due(&self, context: &Context, time: Time) -> Result<Option<(ReportKey, Millis)>, Note> {
        let (store, catalogue) = (self.store()?, &context.catalogue);
        let mut next: Option<(ReportKey, Millis)> = None;
        let weekday = |date: Date| date.weekday() < 5;
        for facility in context.facilities.iter() {
            for form in &catalogue.forms {
                let mut period = Period::containing(form.period_type, time.today);
                // Back until what was due is past.
                for _ in 0..64 {
                    let due = deadline(catalogue, form, period, weekday, None).due;
                    if due < time.best {
                        break;
                    }
                    let owed = form.in_force(period)
                        && context.standing(facility, period).is_some_and(|standing| {
                            let kind = standing.facts.map(|facts| facts.kind);
                            standing.open && kind.is_some_and(|kind| form.kinds.contains(&kind))
                        });
                    let key = ReportKey {
                        facility: facility.code.clone(),
                        form: form.code.clone(),
                        period,
                    };
                    let sooner = next.as_ref().is_none_or(|(_, at)| due < *at);
                    if owed && sooner && store.newest(&key).is_none() {
                        next = Some((key, due));
                    }
                    period = period.plus(-1);
                }
            }
        }
        Ok(next)
    }

    pub(super) fn queue(&mut self) -> Result<Vec<QueueRow>, Note> {
        let store = self.store.as_ref().ok_or_else(enrolment_open)?;
        let mut rows = Vec::new();
        let row = |id: EntryId, key: &ReportKey, state: QueueState| QueueRow {
            entry: entry_text(id),
            facility: key.facility.to_string(),
            form: key.form.to_string(),
            period: key.period.to_string(),
            state,
        };
        for (id, key, refusal) in store.refused().take(QUEUE_ROWS_MAX) {
            rows.push(row(id, key, QueueState::Refused(refusal)));
        }
        for (id, key, reason) in store.parked(&mut self.identity)? {
            rows.push(row(id, &key, QueueState::Parked(reason)));
        }
        for id in store.waiting().into_iter().rev() {
            if rows.len() >= QUEUE_ROWS_MAX {
                break;
            }
            if let Some((payload, _)) = store.payload(id)?
                && let Some(key) = Store::key_of(&payload.body, payload.context, &mut self.identity)
            {
                rows.push(row(id, &key, QueueState::Waiting));
            }
        }
        rows.truncate(QUEUE_ROWS_MAX);
        Ok(rows)
    }

    pub(super) fn show(&mut self, entry: &str) -> Result<Shown, Note> {
        let unknown = || {
            note!(
                Error,
                "unknown_entry",
                "队列中没有条目“{entry}”，请用 queue ls 查看",
                "there is no entry {entry:?} in the queue: see queue ls"
            )
        };
        let store = self.store.as_ref().ok_or_else(enrolment_open)?;
        let id = parse_entry(entry).ok_or_else(unknown)?;
        let (payload, state) = store.payload(id)?.ok_or_else(unknown)?;
        let (body, refusal) = match payload.refused {
            Some((refusal, body)) => (body, Some(refusal)),
            None => (payload.body, None),
        };
        let key = Store::key_of(&body, payload.context, &mut self.identity).ok_or_else(unknown)?;
        let context = self.identity.context(payload.context)?;
        let Body::Report { form, content, .. } = body else { return Err(unknown()) };
        let form = &context.catalogue.forms[usize::from(form)];
        let values: Vec<(String, String)> = form
            .lines
            .iter()
            .zip(&content.values)
            .filter(|(_, value)| value.is_answer())
            .map(|(line, value)| {
                let element = &context.catalogue.elements[line.element.at()];
                (element.code.to_string(), value::show(*value))
            })
            .collect();
        let parked = store.parked(&mut self.identity)?;
        let parked = parked.into_iter().find(|(at, _, _)| *at == id).map(|(_, _, why)| why);
        let state = match (refusal, parked) {
            (Some(refusal), _) => QueueState::Refused(refusal),
            (None, Some(reason)) => QueueState::Parked(reason),
            (None, None) if state == crate::queue::State::Confirmed => QueueState::Received,
            (None, None) => QueueState::Waiting,
        };
        let verb = if content.withdrawn { "withdraw" } else { "record" };
        let mut again = format!("banyan-agent {verb} {} {}", key.form, key.period);
        for (element, value) in &values {
            again.push_str(&format!(" {element}={value}"));
        }
        if key.facility != context.home().code {
            again.push_str(&format!(" --facility {}", key.facility));
        }
        if let (true, Some(reason)) = (content.withdrawn, content.reason) {
            again.push_str(&format!(" --reason {reason}"));
        }
        Ok(Shown {
            row: QueueRow {
                entry: entry_text(id),
                facility: key.facility.to_string(),
                form: key.form.to_string(),
                period: key.period.to_string(),
                state,
            },
            values,
            how: content.how,
            by: content.entered_by,
            withdrawn: content.withdrawn,
            again,
        })
    }
}

/// `LIFE/NUMBER`, for example `1-0a1b2c3d/17`.
fn entry_text((epoch, seq): EntryId) -> String {
    format!("{epoch}/{seq}")
}

fn parse_entry(text: &str) -> Option<EntryId> {
    let (epoch, seq) = text.split_once('/')?;
    let (counter, random) = epoch.split_once('-')?;
    let epoch =
        Epoch { counter: counter.parse().ok()?, random: u32::from_str_radix(random, 16).ok()? };
    Some((epoch, seq.parse::<Seq>().ok()?))
}
