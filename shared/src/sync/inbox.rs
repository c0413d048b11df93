//! What the centre holds of one agent: which numbers of which life, with which hashes.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::codes::{ParkReason, Refusal};
use crate::ids::{Epoch, Seq};
use crate::limits::{LIVES_MAX, RECEIPT_RANGES_MAX, RECEIPT_REASONS_MAX};
use crate::wire::{LifeReceipt, RangeSum};

/// What becomes of an arriving entry, before its content is judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Not held yet: judge it, store it, then [`Inbox::hold`] or [`Inbox::refuse`] it.
    New,
    /// Held already, the very same: only receipt it again.
    Duplicate,
    /// The number is held with other content: two machines use one identity.
    Reused,
    /// Refused before, and still the same: repeat the refusal, whatever was put in its place since.
    StillRefused(Refusal),
    /// Of a life whose first entry is not held: nothing is done, the agent will send that one too.
    Early,
}

/// The hashes of numbers without gaps, eight bytes each and little more: a province's year has seven
/// million. Kept as plain bytes: there is nothing in a hash to make smaller.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Hashes(Vec<u64>);

impl Hashes {
    fn push(&mut self, hash: u64) {
        self.make_room(1);
        self.0.push(hash);
    }

    fn append(&mut self, after: &Hashes) {
        self.make_room(after.0.len());
        self.0.extend_from_slice(&after.0);
    }

    /// Grows by an eighth, not to double the size: there are tens of thousands of these.
    fn make_room(&mut self, more: usize) {
        if self.0.capacity() - self.0.len() < more {
            self.0.reserve_exact(more.max(self.0.len() / 8 + 2));
        }
    }
}

impl Serialize for Hashes {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let bytes: Vec<u8> = self.0.iter().flat_map(|hash| hash.to_le_bytes()).collect();
        serializer.serialize_bytes(&bytes)
    }
}

impl<'de> Deserialize<'de> for Hashes {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Hashes, D::Error> {
        let bytes = <&[u8]>::deserialize(deserializer)?;
        let (hashes, rest) = bytes.as_chunks::<8>();
        if rest.is_empty() {
            Ok(Hashes(hashes.iter().map(|hash| u64::from_le_bytes(*hash)).collect()))
        } else {
            Err(serde::de::Error::custom("a hash has eight bytes"))
        }
    }
}

/// Numbers without gaps: `first`, and the hashes from there on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Life {
    runs: BTreeMap<Seq, Hashes>,
    /// With the hash of what was refused: a void may stand there since, or another machine's entry come.
    refused: BTreeMap<Seq, (u64, Refusal)>,
    parked: BTreeMap<Seq, ParkReason>,
}

fn len(run: &Hashes) -> u64 {
    u64::try_from(run.0.len()).unwrap_or(u64::MAX)
}

fn sum(hashes: &Hashes) -> u64 {
    hashes.0.iter().fold(0, |sum, hash| sum.wrapping_add(*hash))
}

impl Life {
    fn hash(&self, seq: Seq) -> Option<u64> {
        let (first, run) = self.runs.range(..=seq).next_back()?;
        run.0.get(usize::try_from(seq - first).ok()?).copied()
    }

    fn hold(&mut self, seq: Seq, hash: u64) {
        if self.hash(seq).is_some() {
            return;
        }
        let before = self.runs.range(..seq).next_back().map(|(first, run)| (*first, len(run)));
        let at = match before {
            Some((first, length)) if first + length == seq => first,
            _ => seq,
        };
        self.runs.entry(at).or_default().push(hash);
        if let Some(after) = seq.checked_add(1).and_then(|next| self.runs.remove(&next)) {
            self.runs.entry(at).or_default().append(&after);
        }
    }

    fn forget(&mut self, seq: Seq) {
        let Some((&first, run)) = self.runs.range_mut(..=seq).next_back() else { return };
        let Some(at) = usize::try_from(seq - first).ok().filter(|at| *at < run.0.len()) else {
            return;
        };
        let after = run.0.split_off(at);
        if at == 0 {
            self.runs.remove(&first);
        }
        if after.len() > 1 {
            self.runs.insert(seq + 1, Hashes(after[1..].to_vec()));
        }
    }

    /// What is refused and not voided yet.
    fn refusals(&self) -> impl Iterator<Item = (Seq, Refusal)> + '_ {
        let open = self.refused.iter().filter(|(seq, _)| self.hash(**seq).is_none());
        open.map(|(seq, (_, refusal))| (*seq, *refusal))
    }

    fn ranges(&self) -> impl Iterator<Item = RangeSum> + '_ {
        self.runs.iter().map(|(first, run)| RangeSum {
            first: *first,
            last: first + (len(run) - 1),
            sum: sum(run),
        })
    }
}

/// What the centre holds of one agent. A copy shares the content until either changes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inbox {
    lives: Arc<BTreeMap<Epoch, Life>>,
}

impl Inbox {
    fn life(&mut self, epoch: Epoch) -> &mut Life {
        Arc::make_mut(&mut self.lives).entry(epoch).or_default()
    }

    /// What is to be done with an entry, given the first entries that came with it: `begins_here` says
    /// whether number 1 of the life is in the same batch.
    pub fn fate(&self, epoch: Epoch, seq: Seq, hash: u64, begins_here: bool) -> Fate {
        let life = self.lives.get(&epoch);
        let begun = epoch.counter <= 1 || begins_here || life.is_some_and(|l| l.hash(1).is_some());
        if !begun {
            return Fate::Early;
        }
        let Some(life) = life else { return Fate::New };
        match (life.hash(seq), life.refused.get(&seq)) {
            (Some(held), _) if held == hash => Fate::Duplicate,
            (_, Some((refused, refusal))) if *refused == hash => Fate::StillRefused(*refusal),
            (Some(_), _) => Fate::Reused,
            // A void, or what another machine made of the number: judged for itself.
            (None, _) => Fate::New,
        }
    }

    /// Whether another life can be opened for `epoch`: agents begin few, and memory is bounded.
    pub fn has_room(&self, epoch: Epoch) -> bool {
        self.lives.contains_key(&epoch) || self.lives.len() < LIVES_MAX
    }

    /// Notes that the ledger holds the entry. The first content of a number stays, and what was refused
    /// stays refused.
    pub fn hold(&mut self, epoch: Epoch, seq: Seq, hash: u64) {
        let life = self.life(epoch);
        if life.refused.get(&seq).is_none_or(|(refused, _)| *refused != hash) {
            life.hold(seq, hash);
        }
    }

    /// Undoes [`Inbox::hold`] of an entry, or else [`Inbox::refuse`], for a commit that failed.
    pub fn forget(&mut self, epoch: Epoch, seq: Seq) {
        let Some(life) = Arc::make_mut(&mut self.lives).get_mut(&epoch) else { return };
        if life.hash(seq).is_some() {
            life.forget(seq);
            life.parked.remove(&seq);
        } else {
            life.refused.remove(&seq);
        }
        if *life == Life::default() {
            Arc::make_mut(&mut self.lives).remove(&epoch);
        }
    }

    /// Notes that the entry with this hash was refused.
    pub fn refuse(&mut self, epoch: Epoch, seq: Seq, hash: u64, refusal: Refusal) {
        self.life(epoch).refused.insert(seq, (hash, refusal));
    }

    /// Notes that a held entry is not counted for now, or (with `None`) that it is.
    pub fn park(&mut self, epoch: Epoch, seq: Seq, reason: Option<ParkReason>) {
        let Some(life) = Arc::make_mut(&mut self.lives).get_mut(&epoch) else { return };
        match reason {
            Some(reason) => life.parked.insert(seq, reason),
            None => life.parked.remove(&seq),
        };
    }

    /// The hash of a held entry.
    pub fn hash(&self, epoch: Epoch, seq: Seq) -> Option<u64> {
        self.lives.get(&epoch)?.hash(seq)
    }

    /// How many entries are held, refused and parked.
    pub fn counts(&self) -> (u64, u64, u64) {
        self.lives.values().fold((0, 0, 0), |(held, refused, parked), life| {
            (
                held + life.runs.values().map(len).sum::<u64>(),
                refused + u64::try_from(life.refusals().count()).unwrap_or(u64::MAX),
                parked + u64::try_from(life.parked.len()).unwrap_or(u64::MAX),
            )
        })
    }

    /// The lives held, with the highest number of each.
    pub fn lives(&self) -> impl Iterator<Item = (Epoch, Seq)> + '_ {
        self.lives.iter().map(|(epoch, life)| {
            let last =
                life.runs.iter().next_back().map_or(0, |(first, run)| first + (len(run) - 1));
            (*epoch, last)
        })
    }

    /// All that is held, for the answer to a hello, and whether it is complete within the limits of a
    /// receipt.
    pub fn all(&self) -> (Vec<LifeReceipt>, bool) {
        let mut complete = self.lives.len() <= LIVES_MAX;
        let lives = self.lives.iter().take(LIVES_MAX).map(|(epoch, life)| {
            complete &= life.runs.len() <= RECEIPT_RANGES_MAX;
            LifeReceipt {
                epoch: Some(*epoch),
                ranges: life.ranges().take(RECEIPT_RANGES_MAX).collect(),
                refused: life.refusals().take(RECEIPT_REASONS_MAX).collect(),
                parked: life
                    .parked
                    .iter()
                    .map(|(s, r)| (*s, *r))
                    .take(RECEIPT_REASONS_MAX)
                    .collect(),
            }
        });
        let lives = lives.collect();
        (lives, complete)
    }

    /// What is to be told of the entries in `sent` (number and hash, rising): what is held of their numbers, run
    /// by run, and no more, so that an agent with only these can check the sums; and what was refused.
    ///
    /// Where another entry is held the number is a run of its own: the machine it is of hears the receipt too,
    /// and must find its own proven whatever the other one sent beside. A late copy of what was refused gets its
    /// refusal alone: whoever has put something in its place has that proven otherwise, and to who has not (its
    /// disk was restored) a sum of it would speak of a twin.
    pub fn of(&self, epoch: Epoch, sent: &[(Seq, u64)]) -> LifeReceipt {
        let mut receipt = LifeReceipt { epoch: Some(epoch), ..LifeReceipt::default() };
        let Some(life) = self.lives.get(&epoch) else { return receipt };
        // Whether the run shown last may go on.
        let mut open = false;
        for &(seq, hash) in sent {
            let held = life.hash(seq);
            let earlier = life.refused.get(&seq).filter(|(refused, _)| *refused == hash);
            let refusal = match (held, earlier) {
                (Some(held), _) if held == hash => None,
                (_, Some((_, refusal))) => Some(*refusal),
                (Some(_), None) => Some(Refusal::SeqReused),
                (None, None) => life.refused.get(&seq).map(|(_, refusal)| *refusal),
            };
            let alone = refusal == Some(Refusal::SeqReused);
            if let Some(held) = held.filter(|_| refusal.is_none() || alone) {
                let room = receipt.ranges.len() < RECEIPT_RANGES_MAX;
                match receipt.ranges.last_mut() {
                    Some(range) if open && !alone && range.last + 1 == seq => {
                        range.last = seq;
                        range.sum = range.sum.wrapping_add(held);
                    }
                    _ if room => receipt.ranges.push(RangeSum { first: seq, last: seq, sum: held }),
                    _ => {}
                }
            }
            open = !alone;
            if let Some(refusal) = refusal
                && receipt.refused.len() < RECEIPT_REASONS_MAX
            {
                receipt.refused.push((seq, refusal));
            }
            if let Some(reason) = life.parked.get(&seq)
                && receipt.parked.len() < RECEIPT_REASONS_MAX
            {
                receipt.parked.push((seq, *reason));
            }
        }
        receipt
    }
}
