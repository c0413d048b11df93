//! The agent's queue: an entry saved, and released, durably; beside sled as it comes, whose flush is no fsync.

use std::time::Duration;

use anyhow::Result;
use banyan_agent::queue::{NewEntry, Queue};
use banyan_shared::ids::{Epoch, Seq};
use banyan_shared::period::Date;
use banyan_shared::wire::encode;

use super::data::{Size, entries, fleet};
use super::measure::{Bench, Of, scratch, time};

pub(crate) const PART: &str = "queue";
/// Entries of one append where many come at once, as from a file.
const MANY: usize = 300;

/// sled with the queue's settings.
struct Plain {
    db: sled::Db,
    next: u64,
}

impl Plain {
    fn open(dir: &std::path::Path) -> Result<Plain> {
        let config = sled::Config::new().path(dir).flush_every_ms(None);
        Ok(Plain {
            db: config.segment_size(64 * 1024).cache_capacity(1024 * 1024).open()?,
            next: 0,
        })
    }

    fn insert(&mut self, payload: &[u8], flush: bool) -> Result<Duration> {
        self.next += 1;
        time(|| {
            self.db.insert(self.next.to_be_bytes(), payload)?;
            if flush {
                self.db.flush()?;
            }
            Ok(())
        })
    }

    fn remove(&mut self, flush: bool) -> Result<Duration> {
        // What is removed was saved as well as that, before the clock starts.
        self.insert(&[0; 64], flush)?;
        time(|| {
            self.db.remove(self.next.to_be_bytes())?;
            if flush {
                self.db.flush()?;
            }
            Ok(())
        })
    }
}

pub(crate) fn run(bench: &mut Bench) -> Result<()> {
    let (_made, fleet) = fleet(Size(1, 1, 1))?;
    let payload = encode(&entries(&fleet.batches[0].1)?[0].body);
    let dir = scratch()?;
    let new = |n: usize| vec![NewEntry { payload: payload.clone(), hash: 7, day: Date::MIN }; n];
    let opened = |name: &str| -> Result<Queue> {
        let epoch = |counter| Epoch { counter, random: 7 };
        Ok(Queue::open(&dir.path().join(name), epoch, banyan_shared::ids::Millis(0))?.0)
    };
    let (one, many) = (new(1), new(MANY));
    let mut plain = Plain::open(&dir.path().join("flush"))?;
    let mut lazy = Plain::open(&dir.path().join("lazy"))?;
    // Kept small by releasing: a queue holds at most so many that wait.
    let mut queue = opened("append")?;
    bench.line(
        (PART, "append a report, on disk"),
        Of(1.0, "report"),
        &mut || {
            let (seqs, took) = super::measure::timed(|| Ok(queue.append(&one)?))?;
            release(&mut queue, &seqs)?;
            Ok(took)
        },
        &mut [
            ("sled, flush without fsync", &mut || plain.insert(&payload, true)),
            ("sled without flush", &mut || lazy.insert(&payload, false)),
        ],
    )?;
    let mut queue = opened("many")?;
    bench.line(
        (PART, "append 300 reports at once, on disk"),
        Of(MANY as f64, "report"),
        &mut || {
            let (seqs, took) = super::measure::timed(|| Ok(queue.append(&many)?))?;
            release(&mut queue, &seqs)?;
            Ok(took)
        },
        &mut [("sled, flush without fsync", &mut || {
            let mut sum = Duration::ZERO;
            for at in 1..=MANY {
                sum += plain.insert(&payload, at == MANY)?;
            }
            Ok(sum)
        })],
    )?;
    let mut queue = opened("confirm")?;
    bench.line(
        (PART, "confirm a report by a receipt, on disk"),
        Of(1.0, "report"),
        &mut || {
            let seqs = queue.append(&one)?;
            time(|| release(&mut queue, &seqs))
        },
        &mut [
            ("sled, flush without fsync", &mut || plain.remove(true)),
            ("sled without flush", &mut || lazy.remove(false)),
        ],
    )
}

fn release(queue: &mut Queue, seqs: &[Seq]) -> Result<()> {
    let (Some(first), Some(last)) = (seqs.first(), seqs.last()) else { return Ok(()) };
    queue.confirm(queue.epoch(), &[(*first, *last)])?;
    Ok(())
}
