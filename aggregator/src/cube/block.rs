//! One form and period: the columns, and for every slot the versions behind them.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use banyan_shared::figures;
use banyan_shared::ids::{AgentId, Millis, Position, VersionId};
use banyan_shared::report::{Content, EnteredAt, How, Lineage, Value, Version, choices};
use foldhash::HashMap;
use serde::{Deserialize, Serialize};

use super::column::{Column, Scan};
use super::decision::Lock;
use super::minutes::Minutes;
use super::{Author, Authors, Slot};

/// A version as the cube holds it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stored {
    /// Its identity.
    pub id: VersionId,
    /// When the ledger received it.
    pub received_at: Millis,
    /// Where its batch stands in the ledger.
    pub position: Position,
    /// What it says; the values stand in the order of the form's columns.
    pub content: Content,
}

impl Stored {
    /// It as a version among others.
    pub(crate) fn as_version(&self) -> Version {
        let Content { how, replaces, .. } = &self.content;
        Version { id: self.id, how: *how, replaces: replaces.clone() }
    }
}

/// What is counted of one report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// The version counted; none while every version is pending.
    pub current: Option<VersionId>,
    /// How that version was entered.
    pub how: How,
    /// Whether it answers anything.
    pub answered: bool,
    /// Since which receipt it has been answered without a break.
    pub arrived: Option<Millis>,
    /// When the version that arrived then was entered, as its agent believed.
    pub entered: Option<EnteredAt>,
    /// How many versions stand: more than one is a conflict.
    pub heads: usize,
    /// How many versions wait for approval behind a lock.
    pub pending: usize,
    /// Whether it stands returned: what was there does not count, and nothing else has come.
    pub returned: bool,
    /// Whether something else is counted than when it was first signed off or locked.
    pub restated: bool,
    /// The columns whose values were others when it was first signed off or locked.
    pub changed: Box<[u16]>,
    /// Whether it was there when it was first signed off or locked, and has been changed since.
    pub corrected: bool,
    /// How many versions there are.
    pub versions: usize,
}

/// For how many more elements a list of a form's slots makes room when it grows to `length`. Agents that come
/// for the first time add a slot each, to every period's lists: without some to spare each would move them all.
pub(super) fn room(now: usize, length: usize) -> usize {
    (length - now).max(now / 8 + 64)
}

/// Lengthens a list of slots to at least `length`, with some to spare.
pub(super) fn grow<T: Clone + Default>(list: &mut Vec<T>, length: usize) {
    if list.len() < length {
        list.reserve_exact(room(list.len(), length));
        list.resize(length, T::default());
    }
}

pub(super) const PRESENT: u8 = 1;
/// The versions stand in `histories`.
pub(super) const HISTORY: u8 = 2;
const ANSWERED: u8 = 4;
/// Every column of the block is answered.
const FULL: u8 = 8;

/// Earliest entry time held in the compact form: so many minutes after the receipt (a fast clock).
const ENTERED_AHEAD_MINUTES: i64 = 1_024;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Rows {
    pub(super) flags: Vec<u8>,
    pub(super) author: Vec<u32>,
    pub(super) seq: Vec<u32>,
    pub(super) position: Vec<u32>,
    pub(super) received_s: Vec<u32>,
    pub(super) received_ms: Vec<u16>,
    /// Minutes from entry to receipt, plus [`ENTERED_AHEAD_MINUTES`].
    pub(super) entered: Minutes,
}

impl Rows {
    pub(super) fn grow(&mut self, length: usize) {
        grow(&mut self.flags, length);
        grow(&mut self.author, length);
        grow(&mut self.seq, length);
        grow(&mut self.position, length);
        grow(&mut self.received_s, length);
        grow(&mut self.received_ms, length);
        self.entered.grow(length);
    }

    fn received_at(&self, at: usize) -> Millis {
        Millis(i64::from(self.received_s[at]) * 1_000 + i64::from(self.received_ms[at]))
    }

    fn entered_at(&self, at: usize, doubtful: bool) -> EnteredAt {
        let received = self.received_at(at).0.div_euclid(60_000);
        let minute = received + ENTERED_AHEAD_MINUTES - i64::from(self.entered.get(at));
        EnteredAt { minute: u32::try_from(minute).unwrap_or(0), doubtful }
    }
}

/// The numbers of a version that fits the compact form.
struct Compact {
    seq: u32,
    position: u32,
    received_s: u32,
    received_ms: u16,
    entered: u32,
}

fn compact(stored: &Stored) -> Option<Compact> {
    let content = &stored.content;
    let plain = content.replaces.is_empty()
        && !content.withdrawn
        && content.reason.is_none()
        && content.override_code.is_none();
    if !plain {
        return None;
    }
    let received_minute = stored.received_at.0.div_euclid(60_000);
    let entered = received_minute - i64::from(content.entered_at.minute) + ENTERED_AHEAD_MINUTES;
    Some(Compact {
        seq: u32::try_from(stored.id.seq).ok()?,
        position: u32::try_from(stored.position).ok()?,
        received_s: u32::try_from(stored.received_at.0.div_euclid(1_000)).ok()?,
        received_ms: u16::try_from(stored.received_at.0.rem_euclid(1_000)).ok()?,
        entered: u32::try_from(entered).ok()?,
    })
}

/// The versions of a report that needs more than the compact form, and what they come to.
#[derive(Clone, Debug)]
pub(super) struct History {
    /// In order of identity.
    pub(super) versions: Vec<Stored>,
    pub(super) report: Report,
    /// What is needed to go on without looking at all versions; none if they are no [`Line`], or if nobody has
    /// looked since they were read.
    line: Option<Line>,
}

impl PartialEq for History {
    fn eq(&self, other: &History) -> bool {
        (&self.versions, &self.report) == (&other.versions, &other.report)
    }
}

impl Eq for History {}

impl Report {
    /// What no version comes to.
    fn nothing() -> Report {
        Report {
            current: None,
            how: How::Direct,
            answered: false,
            arrived: None,
            entered: None,
            heads: 0,
            pending: 0,
            returned: false,
            restated: false,
            changed: Box::default(),
            corrected: false,
            versions: 0,
        }
    }
}

/// Since when a report has been answered, and when that was entered; none while it is not.
type Answered = Option<(Millis, EnteredAt)>;

/// Versions of one life, none naming another, received in the order of their numbers, about which nothing was
/// decided: the usual history. The last one counts, each replaced the one before, and another like it changes
/// nothing of what the earlier ones come to. So a writer who corrects one report ten thousand times costs ten
/// thousand steps and not their square.
#[derive(Clone, Copy, Debug)]
struct Line {
    /// As it stood before the moment at which the last one was received: those received in one moment count as
    /// one.
    before: Answered,
    now: Answered,
}

impl Line {
    /// That of these versions, if they are one.
    fn of(versions: &[Stored]) -> Option<Line> {
        let (first, rest) = versions.split_first()?;
        let mut line = Line { before: None, now: answered_by(first) };
        if !goes_on(first, first) {
            return None;
        }
        let mut last = first;
        for next in rest {
            line = line.then(last, next)?;
            last = next;
        }
        Some(line)
    }

    /// With one more version; none if it does not go on.
    fn then(self, last: &Stored, next: &Stored) -> Option<Line> {
        if next.id <= last.id || !goes_on(last, next) {
            return None;
        }
        let before = if next.received_at > last.received_at { self.now } else { self.before };
        let now = answered_by(next).map(|own| before.unwrap_or(own));
        Some(Line { before, now })
    }
}

fn answered_by(version: &Stored) -> Answered {
    let content = &version.content;
    content.is_answer().then_some((version.received_at, content.entered_at))
}

/// Whether `next` is of the life of `last`, names nothing, and was not received before it.
fn goes_on(last: &Stored, next: &Stored) -> bool {
    let life = |version: &Stored| (version.id.writer, version.id.epoch);
    life(last) == life(next)
        && !next.id.epoch.is_centre()
        && next.content.replaces.is_empty()
        && last.received_at <= next.received_at
}

/// One form and period.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Block {
    pub(super) columns: Vec<Column>,
    pub(super) rows: Rows,
    pub(super) histories: BTreeMap<Slot, History>,
    pub(super) newest: Millis,
}

/// A block to read: one held in memory, or one made or loaded for the reader.
#[derive(Clone, Debug)]
pub enum BlockRef<'a> {
    /// Held.
    Here(&'a Block),
    /// Made or loaded.
    Loaded(Arc<Block>),
}

impl std::ops::Deref for BlockRef<'_> {
    type Target = Block;
    fn deref(&self) -> &Block {
        match self {
            BlockRef::Here(block) => block,
            BlockRef::Loaded(block) => block,
        }
    }
}

static EMPTY: std::sync::LazyLock<Column> = std::sync::LazyLock::new(Column::default);

impl Block {
    /// The values of one column.
    pub fn column(&self, column: usize) -> &Column {
        self.columns.get(column).unwrap_or(&EMPTY)
    }

    /// The value at a column and slot.
    pub fn value(&self, column: usize, slot: Slot) -> Value {
        self.column(column).value(slot)
    }

    /// Adds up a range of a column; see [`Column::scan`].
    pub fn scan(&self, column: usize, first: Slot, numbers: &mut [u16]) -> Scan {
        self.column(column).scan(first, numbers)
    }

    /// The newest receipt of any version ever applied.
    pub fn newest(&self) -> Millis {
        self.newest
    }

    /// Whether the counted version of the slot's report answers anything.
    pub fn answered(&self, slot: Slot) -> bool {
        self.flags(slot) & ANSWERED != 0
    }

    /// Whether the counted version certainly answers all of a form with `columns` columns. May say no
    /// where a closer look at the cells says yes.
    pub fn full(&self, slot: Slot, columns: usize) -> bool {
        self.columns.len() >= columns && self.flags(slot) & FULL != 0
    }

    /// Whether anything was ever accepted for the slot.
    pub fn present(&self, slot: Slot) -> bool {
        self.flags(slot) & PRESENT != 0
    }

    fn flags(&self, slot: Slot) -> u8 {
        self.rows.flags.get(slot as usize).copied().unwrap_or(0)
    }

    /// Since which receipt the slot's report has been answered without a break.
    pub fn arrived(&self, slot: Slot) -> Option<Millis> {
        match self.flags(slot) {
            flags if flags & ANSWERED == 0 => None,
            flags if flags & HISTORY != 0 => self.histories.get(&slot)?.report.arrived,
            _ => Some(self.rows.received_at(slot as usize)),
        }
    }

    /// How the counted version of an answered report was entered.
    pub(crate) fn how(&self, slot: Slot, authors: &Authors) -> Option<How> {
        match self.flags(slot) {
            flags if flags & ANSWERED == 0 => None,
            flags if flags & HISTORY != 0 => self.histories.get(&slot).map(|h| h.report.how),
            _ => Some(authors.get(self.rows.author[slot as usize]).how),
        }
    }

    /// How many versions of the slot's report wait for an approval.
    pub fn pending(&self, slot: Slot) -> usize {
        if self.flags(slot) & HISTORY == 0 {
            return 0;
        }
        self.histories.get(&slot).map_or(0, |history| history.report.pending)
    }

    /// Whether the slot's report was there when it was first signed off or locked and has been changed since.
    pub fn corrected(&self, slot: Slot) -> bool {
        self.flags(slot) & HISTORY != 0
            && self.histories.get(&slot).is_some_and(|history| history.report.corrected)
    }

    /// The newest receipt of the slot's versions.
    pub fn received(&self, slot: Slot) -> Option<Millis> {
        match self.flags(slot) {
            flags if flags & PRESENT == 0 => None,
            flags if flags & HISTORY != 0 => {
                self.histories.get(&slot)?.versions.iter().map(|v| v.received_at).max()
            }
            _ => Some(self.rows.received_at(slot as usize)),
        }
    }

    /// The slots in `range` whose reports have a history, with what they come to.
    pub fn histories(&self, range: Range<Slot>) -> impl Iterator<Item = (Slot, &Report)> {
        self.histories.range(range).map(|(slot, history)| (*slot, &history.report))
    }

    /// What is counted of the slot's report.
    pub(crate) fn report(&self, slot: Slot, authors: &Authors) -> Option<Report> {
        let flags = self.flags(slot);
        if flags & PRESENT == 0 {
            return None;
        }
        if flags & HISTORY != 0 {
            return self.histories.get(&slot).map(|history| history.report.clone());
        }
        let at = slot as usize;
        let author = authors.get(self.rows.author[at]);
        let answered = flags & ANSWERED != 0;
        Some(Report {
            current: Some(self.id(at, author)),
            how: author.how,
            answered,
            arrived: answered.then(|| self.rows.received_at(at)),
            entered: answered.then(|| self.rows.entered_at(at, author.doubtful)),
            heads: 1,
            versions: 1,
            ..Report::nothing()
        })
    }

    fn id(&self, at: usize, author: &Author) -> VersionId {
        VersionId { writer: author.writer, epoch: author.epoch, seq: u64::from(self.rows.seq[at]) }
    }

    /// Every version of the slot's report, in order of identity.
    pub(crate) fn versions(&self, slot: Slot, authors: &Authors) -> Vec<Stored> {
        let flags = self.flags(slot);
        if flags & PRESENT == 0 {
            return Vec::new();
        }
        if flags & HISTORY != 0 {
            return self.histories.get(&slot).map(|h| h.versions.clone()).unwrap_or_default();
        }
        vec![self.single(slot, authors)]
    }

    fn single(&self, slot: Slot, authors: &Authors) -> Stored {
        let at = slot as usize;
        let author = authors.get(self.rows.author[at]);
        Stored {
            id: self.id(at, author),
            received_at: self.rows.received_at(at),
            position: u64::from(self.rows.position[at]),
            content: Content {
                values: self.columns.iter().map(|column| column.value(slot)).collect(),
                how: author.how,
                entered_by: author.entered_by.clone(),
                reason: None,
                override_code: None,
                withdrawn: false,
                entered_at: self.rows.entered_at(at, author.doubtful),
                replaces: Vec::new(),
            },
        }
    }

    /// The identities of every version of the slot's report.
    pub(crate) fn ids(&self, slot: Slot, authors: &Authors) -> Vec<VersionId> {
        let flags = self.flags(slot);
        if flags & HISTORY != 0 {
            let history = self.histories.get(&slot);
            return history.map_or_else(Vec::new, |h| h.versions.iter().map(|v| v.id).collect());
        }
        let single = || self.id(slot as usize, authors.get(self.rows.author[slot as usize]));
        (flags & PRESENT != 0).then(single).into_iter().collect()
    }

    /// Every slot with a report, in order.
    pub(crate) fn present_slots(&self) -> impl Iterator<Item = Slot> {
        (0u32..)
            .zip(&self.rows.flags)
            .filter(|(_, flags)| **flags & PRESENT != 0)
            .map(|(slot, _)| slot)
    }

    /// Takes a version in. Returns, when the report has just come to need a history or its history has
    /// grown, the writers of its other versions.
    pub(super) fn insert(
        &mut self,
        slot: Slot,
        slots: usize,
        stored: Stored,
        authors: &mut Arc<Authors>,
        lineage: &Lineage,
        lock: Option<&Lock>,
    ) -> Option<Vec<AgentId>> {
        let at = slot as usize;
        self.rows.grow(slots.max(at + 1));
        self.newest = self.newest.max(stored.received_at);
        let flags = self.rows.flags[at];
        if flags & PRESENT == 0 && is_plain(lock, stored.id) {
            if let Some(row) = compact(&stored) {
                self.write_row(slot, slots, &stored, row, authors);
                return None;
            }
        } else if flags & (PRESENT | HISTORY) == PRESENT {
            let held = self.single(slot, authors);
            if held.id == stored.id {
                // The same version again, perhaps from an earlier place in the ledger.
                if stored.position < held.position
                    && let Some(row) = compact(&stored)
                {
                    self.write_row(slot, slots, &stored, row, authors);
                }
                return None;
            }
        }
        let mut others = self.expand(slot, slots, authors);
        let history = self.histories.entry(slot).or_insert_with(History::empty);
        let line = history.line.zip(history.versions.last());
        if lock.is_none()
            && let Some(line) = line.and_then(|(line, last)| line.then(last, &stored))
        {
            let writer = stored.id.writer;
            history.go_on(line, stored);
            self.show(slot);
            return Some(vec![writer]);
        }
        match history.versions.binary_search_by_key(&stored.id, |v| v.id) {
            Ok(at) if stored.position < history.versions[at].position => {
                history.versions[at] = stored
            }
            Ok(_) => return None,
            Err(at) => history.versions.insert(at, stored),
        }
        others.extend(history.versions.iter().map(|v| v.id.writer));
        // In order of identity: a writer's stand together.
        others.dedup();
        self.rows.flags[at] |= PRESENT | HISTORY;
        self.judge(slot, lineage, lock);
        Some(others)
    }

    fn write_row(
        &mut self,
        slot: Slot,
        slots: usize,
        stored: &Stored,
        row: Compact,
        authors: &mut Arc<Authors>,
    ) {
        let at = slot as usize;
        let content = &stored.content;
        self.rows.author[at] = Authors::number(
            authors,
            Author {
                writer: stored.id.writer,
                epoch: stored.id.epoch,
                how: content.how,
                entered_by: content.entered_by.clone(),
                doubtful: content.entered_at.doubtful,
            },
        );
        self.rows.seq[at] = row.seq;
        self.rows.position[at] = row.position;
        self.rows.received_s[at] = row.received_s;
        self.rows.received_ms[at] = row.received_ms;
        self.rows.entered.set(at, row.entered);
        self.rows.flags[at] = PRESENT | if content.is_answer() { ANSWERED } else { 0 };
        self.write_cells(slot, slots, &content.values);
    }

    /// Writes a slot's cells; its other flags stand already.
    fn write_cells(&mut self, slot: Slot, slots: usize, values: &[Value]) {
        if self.columns.len() < values.len() {
            self.columns.resize_with(values.len(), Column::default);
            self.rows.flags.iter_mut().for_each(|flags| *flags &= !FULL);
        }
        if values.len() == self.columns.len() && values.iter().all(|value| value.is_answer()) {
            self.rows.flags[slot as usize] |= FULL;
        }
        for (at, column) in self.columns.iter_mut().enumerate() {
            column.set(slot, slots, values.get(at).copied().unwrap_or(Value::Missing));
        }
    }

    /// Gives a compact report a history of its own. Returns the writers in it, if it was compact.
    pub(super) fn expand(&mut self, slot: Slot, slots: usize, authors: &Authors) -> Vec<AgentId> {
        let at = slot as usize;
        self.rows.grow(slots.max(at + 1));
        if self.rows.flags[at] & (PRESENT | HISTORY) != PRESENT {
            return Vec::new();
        }
        let single = self.single(slot, authors);
        let writer = single.id.writer;
        let mut history = History::empty();
        history.versions.push(single);
        self.histories.insert(slot, history);
        self.rows.flags[at] |= HISTORY;
        vec![writer]
    }

    /// Whether decisions change nothing about the slot: no report, or one of a single version they admit.
    pub(super) fn is_unmoved(&self, slot: Slot, authors: &Authors, lock: Option<&Lock>) -> bool {
        let flags = self.flags(slot);
        let single = || self.id(slot as usize, authors.get(self.rows.author[slot as usize]));
        flags & PRESENT == 0 || flags & HISTORY == 0 && is_plain(lock, single())
    }

    /// Whether judging a report with a history again would say something else.
    pub(super) fn would_change(&self, slot: Slot, lineage: &Lineage, lock: Option<&Lock>) -> bool {
        self.histories
            .get(&slot)
            .is_some_and(|history| decide(&history.versions, lineage, lock) != history.report)
    }

    /// Decides anew what is counted of a report with a history, and writes its cells.
    pub(super) fn judge(&mut self, slot: Slot, lineage: &Lineage, lock: Option<&Lock>) {
        let Some(history) = self.histories.get_mut(&slot) else { return };
        history.report = decide(&history.versions, lineage, lock);
        history.line = if lock.is_none() { Line::of(&history.versions) } else { None };
        self.show(slot);
    }

    /// Writes what a report with a history comes to into its cells.
    fn show(&mut self, slot: Slot) {
        let Some(history) = self.histories.get(&slot) else { return };
        let counted = history.report.current.and_then(|id| {
            let at = history.versions.binary_search_by_key(&id, |version| version.id).ok()?;
            Some(&history.versions[at].content)
        });
        let values = counted
            .filter(|content| !content.withdrawn)
            .map(|content| content.values.clone())
            .unwrap_or_default();
        let answered = history.report.answered;
        let slots = self.rows.flags.len();
        self.rows.flags[slot as usize] = PRESENT | HISTORY | if answered { ANSWERED } else { 0 };
        self.write_cells(slot, slots, &values);
    }

    /// The block as it stood at `at`: only the versions received by then and not held back any more. `decided`:
    /// whether later decisions bear on it.
    pub(super) fn as_of(
        &self,
        at: Millis,
        held_back: Option<&HashMap<VersionId, Millis>>,
        authors: &Authors,
        lineage: &Lineage,
        decided: bool,
        lock: impl Fn(Slot) -> Option<Lock>,
    ) -> Block {
        let mut past = self.clone();
        let held = |id: &VersionId| {
            held_back.and_then(|held| held.get(id)).is_some_and(|until| *until > at)
        };
        for slot in self.present_slots() {
            let row = slot as usize;
            if self.rows.flags[row] & HISTORY == 0 {
                let id = || self.id(row, authors.get(self.rows.author[row]));
                if self.rows.received_at(row) > at || held_back.is_some() && held(&id()) {
                    past.clear(slot);
                }
                continue;
            }
            let Some(history) = past.histories.get_mut(&slot) else { continue };
            let before = history.versions.len();
            history.versions.retain(|version| version.received_at <= at && !held(&version.id));
            match history.versions.len() {
                0 => {
                    past.histories.remove(&slot);
                    past.clear(slot);
                }
                n if n < before || decided => past.judge(slot, lineage, lock(slot).as_ref()),
                _ => {}
            }
        }
        past.newest =
            past.present_slots().filter_map(|slot| past.received(slot)).max().unwrap_or_default();
        past
    }

    fn clear(&mut self, slot: Slot) {
        self.rows.flags[slot as usize] = 0;
        self.write_cells(slot, 0, &[]);
    }

    /// Bytes held on the heap by columns and identities.
    pub fn heap_bytes(&self) -> usize {
        self.columns.iter().map(Column::heap_bytes).sum::<usize>()
            + self.rows.flags.capacity() * (19 + self.rows.entered.width())
            + self.histories.values().map(|h| 200 + h.versions.len() * 250).sum::<usize>()
    }
}

impl History {
    /// One that was read: nobody has looked yet how its versions follow each other.
    pub(super) fn read(versions: Vec<Stored>, report: Report) -> History {
        History { versions, report, line: None }
    }

    /// Takes in a version that goes on where the last one ended.
    fn go_on(&mut self, line: Line, stored: Stored) {
        let content = &stored.content;
        self.report = Report {
            current: Some(stored.id),
            how: content.how,
            answered: line.now.is_some(),
            arrived: line.now.map(|(arrived, _)| arrived),
            entered: line.now.map(|(_, entered)| entered),
            heads: 1,
            versions: self.versions.len() + 1,
            ..Report::nothing()
        };
        self.versions.push(stored);
        self.line = Some(line);
    }

    fn empty() -> History {
        History { line: None, versions: Vec::new(), report: Report::nothing() }
    }
}

/// Whether decisions about a report leave one of a single version as if nothing were decided.
fn is_plain(lock: Option<&Lock>, id: VersionId) -> bool {
    lock.is_none_or(|lock| lock.is_plain_for(id))
}

/// What a set of versions comes to.
fn decide(versions: &[Stored], lineage: &Lineage, lock: Option<&Lock>) -> Report {
    #[cfg(test)]
    tests::LOOKED_AT.set(tests::LOOKED_AT.get() + versions.len());
    let admits = |at: &usize| lock.is_none_or(|lock| lock.admits(versions[*at].id));
    let places: Vec<usize> = (0..versions.len()).filter(admits).collect();
    let returned =
        lock.map_or(0, |lock| versions.iter().filter(|v| lock.is_returned(v.id)).count());
    let list: Vec<Version> = places.iter().map(|&at| versions[at].as_version()).collect();
    let since: Vec<Millis> = places.iter().map(|&at| versions[at].received_at).collect();
    // What was counted from each moment on at which something came.
    let steps = choices(&list, &since, lineage);
    let counted = steps.last().map(|choice| (places[choice.at], choice.heads));
    let is_answer = |at: usize| versions[places[at]].content.is_answer();
    let answered = steps.last().is_some_and(|choice| is_answer(choice.at));
    let (mut arrived, mut entered) = (None, None);
    if answered {
        arrived = figures::arrived(steps.iter().map(|step| (step.since, is_answer(step.at))));
        let arrival = steps.iter().find(|step| Some(step.since) == arrived);
        entered = arrival.map(|step| versions[places[step.at]].content.entered_at);
    }
    let current = counted.map(|(at, _)| versions[at].id);
    let restated = lock.filter(|lock| lock.is_restated(current));
    let changed = restated.map(|lock| {
        let then = counted_then(versions, lineage, lock);
        changed(then.map(|at| &versions[at]), counted.map(|(at, _)| &versions[at]))
    });
    Report {
        current,
        how: counted.map_or(How::Direct, |(at, _)| versions[at].content.how),
        answered,
        arrived,
        entered,
        heads: counted.map_or(0, |(_, heads)| heads),
        pending: versions.len() - places.len() - returned,
        returned: returned > 0 && current.is_none(),
        restated: restated.is_some(),
        changed: changed.unwrap_or_default(),
        corrected: restated.is_some_and(Lock::was_signed),
        versions: versions.len(),
    }
}

/// The place of the version counted when the report was first signed off or locked.
fn counted_then(versions: &[Stored], lineage: &Lineage, lock: &Lock) -> Option<usize> {
    let places: Vec<usize> =
        (0..versions.len()).filter(|at| lock.was_seen(versions[*at].id)).collect();
    let list: Vec<Version> = places.iter().map(|&at| versions[at].as_version()).collect();
    let since: Vec<Millis> = places.iter().map(|&at| versions[at].received_at).collect();
    choices(&list, &since, lineage).last().map(|choice| places[choice.at])
}

/// The columns in which two versions say something else; none, or a withdrawal, says nothing.
fn changed(then: Option<&Stored>, now: Option<&Stored>) -> Box<[u16]> {
    fn said(version: Option<&Stored>) -> &[Value] {
        let content = version.map(|version| &version.content).filter(|content| !content.withdrawn);
        content.map_or(&[], |content| &content.values)
    }
    let (then, now) = (said(then), said(now));
    let value =
        |values: &[Value], at: u16| values.get(usize::from(at)).copied().unwrap_or(Value::Missing);
    let columns = u16::try_from(then.len().max(now.len())).unwrap_or(u16::MAX);
    (0..columns).filter(|at| value(then, *at) != value(now, *at)).collect()
}

#[cfg(test)]
mod tests;
