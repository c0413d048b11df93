//! The cube: every accepted version of every report, laid out for reading whole columns.
//!
//! Promises that its answers are a function of the set of versions applied (and of locks, approvals and
//! lineage): never of their order, and applying one twice changes nothing. A normal report, written once,
//! costs four bytes a value and about twenty for its identity; one with a history keeps all of it. The cube
//! holds nothing the ledger does not: it can be thrown away and rebuilt at any time ([`Cube::digest`] tells
//! whether two are equal). It leaves duty, due times and sets to the query layer, storing to the ledger.

mod block;
mod column;
mod decision;
mod digest;
mod form;
mod minutes;
mod month;
mod pack;

use std::collections::BTreeSet;
use std::sync::Arc;

use banyan_shared::catalogue::{Catalogue, CatalogueHash, FormIx};
use banyan_shared::ids::{
    AgentId, ElementCode, Epoch, FormCode, Millis, Position, Seq, UnitCode, VersionId,
};
use banyan_shared::period::Period;
use banyan_shared::report::{Content, Lineage, Reason, Value, VersionVector};
use foldhash::{HashMap, HashSet};
use serde::{Deserialize, Serialize};

use crate::act::Stage;

pub use block::{Block, BlockRef, Report, Stored};
pub use column::{Column, Scan};
pub use decision::{Decided, Decision};
pub use digest::Digest;
pub use form::FormStore;
pub use month::Month;
pub use pack::Damaged;

/// A facility by its number in one cube: given out in order of first appearance, never changed.
pub type FacilityNo = u32;
/// A facility's place in the columns of one form.
pub type Slot = u32;

/// A version the ledger has accepted, on its way into the cube.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AcceptedVersion {
    /// The facility it is about.
    pub facility: UnitCode,
    /// The form, in the catalogue it was written under.
    pub form: FormIx,
    /// The period.
    pub period: Period,
    /// Its identity.
    pub id: VersionId,
    /// What it says; the values stand in the order of the form's lines.
    pub content: Content,
    /// When the ledger received it.
    pub received_at: Millis,
    /// Where its batch stands in the ledger.
    pub position: Position,
}

/// Why a version does not fit the catalogue it claims.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CubeError {
    /// The form number is outside the catalogue.
    #[error("catalogue {catalogue} has no form number {form}")]
    UnknownForm {
        /// The catalogue's version.
        catalogue: String,
        /// The number.
        form: u16,
    },
    /// The number of values is not the form's number of lines.
    #[error("a report of form {form} has {values} values; catalogue {catalogue} asks {lines}")]
    WrongLength {
        /// The form.
        form: FormCode,
        /// The catalogue's version.
        catalogue: String,
        /// How many values came.
        values: usize,
        /// How many lines the form has.
        lines: usize,
    },
    /// The period is of another type than the form's.
    #[error("period {period} is of the wrong type for form {form}")]
    WrongPeriodType {
        /// The form.
        form: FormCode,
        /// The period.
        period: Period,
    },
}

/// Where the months are that are not in memory.
pub trait Older: Send + Sync + std::fmt::Debug {
    /// One form's blocks of one month, by the form's place in the cube. What was put aside is always had
    /// again, however long it takes.
    fn month(&self, form: usize, month: Period) -> Arc<Month>;

    /// Counts up before any month changes that was put aside earlier: whoever reads from a copy of the cube
    /// taken before sees by it that the copy may not be had whole any more.
    fn rewritten(&self) -> u64;
}

/// Who wrote a version, without its number: repeated in every report, so held once.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Author {
    pub(crate) writer: AgentId,
    pub(crate) epoch: Epoch,
    pub(crate) how: banyan_shared::report::How,
    pub(crate) entered_by: Option<String>,
    pub(crate) doubtful: bool,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Authors {
    list: Vec<Author>,
    numbers: HashMap<Author, u32>,
}

impl Authors {
    /// The author's number; only a new one changes anything.
    fn number(this: &mut Arc<Authors>, author: Author) -> u32 {
        if let Some(&number) = this.numbers.get(&author) {
            return number;
        }
        let authors = Arc::make_mut(this);
        let number =
            u32::try_from(authors.list.len()).expect("fewer than 2^32 agents and persons write");
        authors.list.push(author.clone());
        authors.numbers.insert(author, number);
        number
    }

    /// The author of a number. A copy of the cube that reads an older month which has changed since meets
    /// numbers it does not know: what is worked out from it is thrown away ([`Older::rewritten`]), whoever the
    /// author is said to be.
    pub(crate) fn get(&self, number: u32) -> &Author {
        static NOBODY: Author = Author {
            writer: AgentId([0; 6]),
            epoch: Epoch { counter: 0, random: 0 },
            how: banyan_shared::report::How::Direct,
            entered_by: None,
            doubtful: true,
        };
        self.list.get(number as usize).unwrap_or(&NOBODY)
    }
}

/// A form's store, and the column of each line.
type Mapping = (usize, Vec<usize>);

/// Which report: a facility, a form (by its number in the cube) and a period.
type ReportKey = (usize, Period, Slot);

/// The facilities by number.
#[derive(Clone, Debug, Default)]
struct Facilities {
    list: Vec<UnitCode>,
    numbers: HashMap<UnitCode, FacilityNo>,
}

impl Facilities {
    fn number(this: &mut Arc<Facilities>, code: &UnitCode) -> FacilityNo {
        if let Some(&number) = this.numbers.get(code) {
            return number;
        }
        let facilities = Arc::make_mut(this);
        let number = u32::try_from(facilities.list.len()).expect("fewer than 2^32 facilities");
        facilities.list.push(code.clone());
        facilities.numbers.insert(code.clone(), number);
        number
    }
}

/// Every accepted version of every report. See the module's promises.
///
/// A copy costs little: it shares what is large with the original, and whichever is changed first copies
/// what it changes, block by block.
#[derive(Clone, Debug, Default)]
pub struct Cube {
    facilities: Arc<Facilities>,
    authors: Arc<Authors>,
    forms: Vec<FormStore>,
    form_numbers: Arc<HashMap<FormCode, usize>>,
    /// For a form of a catalogue version: its number here and the column of each line.
    mappings: Arc<HashMap<(CatalogueHash, FormIx), Arc<Mapping>>>,
    lineage: Arc<Lineage>,
    /// The reports with a history each writer has a version in.
    contested: Arc<HashMap<AgentId, HashSet<ReportKey>>>,
    /// The reports that stand returned.
    returned: Arc<BTreeSet<ReportKey>>,
    /// Versions that came to count only after their receipt, and when.
    held_back: Arc<HashMap<VersionId, Millis>>,
    /// By form and period: the latest of those moments.
    held_until: Arc<HashMap<(usize, Period), Millis>>,
    /// Where the blocks are that are not in memory.
    older: Option<Arc<dyn Older>>,
}

/// All of a cube but its blocks: what the numbers in them stand for.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Frame {
    facilities: Vec<UnitCode>,
    authors: Vec<Author>,
    forms: Vec<FormFrame>,
    lineage: Lineage,
    contested: Vec<(AgentId, Vec<ReportKey>)>,
    returned: Vec<ReportKey>,
    held_back: Vec<(VersionId, Millis)>,
    held_until: Vec<((usize, Period), Millis)>,
}

/// All of a form but its blocks.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct FormFrame {
    code: FormCode,
    columns: Vec<ElementCode>,
    slots: Vec<FacilityNo>,
    periods: Vec<Period>,
    decisions: decision::Decisions,
}

impl Cube {
    /// An empty cube with the catalogue's forms.
    pub fn new(catalogue: &Catalogue) -> Cube {
        let mut cube = Cube::default();
        cube.learn(catalogue);
        cube
    }

    /// Adds the forms and elements of a further catalogue version. Columns are kept by element code, so
    /// nothing already held moves.
    pub fn learn(&mut self, catalogue: &Catalogue) {
        for form in (0u16..).take(catalogue.forms.len()) {
            self.mapping(catalogue, FormIx(form)).expect("the form stands in this catalogue");
        }
    }

    fn mapping(
        &mut self,
        catalogue: &Catalogue,
        form: FormIx,
    ) -> Result<Arc<(usize, Vec<usize>)>, CubeError> {
        if let Some(mapping) = self.mappings.get(&(catalogue.hash, form)) {
            return Ok(mapping.clone());
        }
        let model = catalogue.forms.get(form.at()).ok_or_else(|| CubeError::UnknownForm {
            catalogue: catalogue.version.clone(),
            form: form.0,
        })?;
        let form_numbers = Arc::make_mut(&mut self.form_numbers);
        let number = *form_numbers.entry(model.code.clone()).or_insert_with(|| {
            let mut form = FormStore::new(self.forms.len(), model.code.clone());
            if let Some(older) = &self.older {
                form.set_older(older.clone());
            }
            self.forms.push(form);
            self.forms.len() - 1
        });
        let store = &mut self.forms[number];
        let columns = model
            .lines
            .iter()
            .map(|line| store.learn(&catalogue.elements[line.element.at()].code))
            .collect();
        let mapping = Arc::new((number, columns));
        Arc::make_mut(&mut self.mappings).insert((catalogue.hash, form), mapping.clone());
        Ok(mapping)
    }

    /// Gives facilities their places in a form's columns, in this order, so that neighbours on the map are
    /// neighbours in memory. Those that have a place keep it.
    pub fn reserve<'a>(
        &mut self,
        form: &FormCode,
        facilities: impl IntoIterator<Item = &'a UnitCode>,
    ) {
        let Some(&number) = self.form_numbers.get(form) else { return };
        for code in facilities {
            let facility = Facilities::number(&mut self.facilities, code);
            self.forms[number].slot_or_new(facility);
        }
    }

    /// Takes one accepted version in. Taking it in again changes nothing; the order plays no part.
    pub fn apply(
        &mut self,
        catalogue: &Catalogue,
        version: AcceptedVersion,
    ) -> Result<(), CubeError> {
        let mapping = self.mapping(catalogue, version.form)?;
        let (number, columns) = &*mapping;
        let model = &catalogue.forms[version.form.at()];
        if version.content.values.len() != columns.len() {
            return Err(CubeError::WrongLength {
                form: model.code.clone(),
                catalogue: catalogue.version.clone(),
                values: version.content.values.len(),
                lines: columns.len(),
            });
        }
        if version.period.kind() != model.period_type {
            return Err(CubeError::WrongPeriodType {
                form: model.code.clone(),
                period: version.period,
            });
        }
        let facility = Facilities::number(&mut self.facilities, &version.facility);
        let mut content = version.content;
        let identity = columns.iter().enumerate().all(|(at, column)| at == *column);
        if !identity || self.forms[*number].columns().len() != columns.len() {
            let mut values = vec![Value::Missing; self.forms[*number].columns().len()];
            for (value, column) in content.values.iter().zip(columns) {
                values[*column] = *value;
            }
            content.values = values;
        }
        let stored = Stored {
            id: version.id,
            received_at: version.received_at,
            position: version.position,
            content,
        };
        let form = &mut self.forms[*number];
        let slot = form.slot_or_new(facility);
        let lock = form.lock(version.period, slot);
        let (writer, slots) = (stored.id.writer, form.slots().len());
        let others = form.block_mut(version.period).insert(
            slot,
            slots,
            stored,
            &mut self.authors,
            &self.lineage,
            lock.as_ref(),
        );
        let key = (*number, version.period, slot);
        if let Some(others) = others {
            self.note_contested(key, others.into_iter().chain([writer]));
        }
        self.note_returned(key);
        Ok(())
    }

    /// Whether a version was known at a moment and counted then: received by then, and not held back any more.
    pub fn counted_by(&self, version: &Stored, at: Millis) -> bool {
        version.received_at <= at
            && self.held_back.get(&version.id).is_none_or(|until| *until <= at)
    }

    /// Notes that a version counts only since `until`: a question for what was known before leaves it out.
    pub fn held_back(&mut self, form: &FormCode, period: Period, id: VersionId, until: Millis) {
        let Some(&number) = self.form_numbers.get(form) else { return };
        Arc::make_mut(&mut self.held_back).insert(id, until);
        let held_until = Arc::make_mut(&mut self.held_until);
        let latest = held_until.entry((number, period)).or_insert(until);
        *latest = until.max(*latest);
    }

    /// Notes that `newer` took over from `older`, and judges again what that may change: reports in which
    /// `newer` has a version, or one who took over from it.
    pub fn succeeds(&mut self, newer: AgentId, older: AgentId) {
        Arc::make_mut(&mut self.lineage).succeeds(newer, older);
        let heir = |writer: &AgentId| *writer == newer || self.lineage.came_after(*writer, newer);
        let of_heirs = self.contested.iter().filter(|(writer, _)| heir(writer));
        let keys: BTreeSet<ReportKey> = of_heirs.flat_map(|(_, keys)| keys).copied().collect();
        self.judge_again(keys);
    }

    /// Notes what the first entry of a writer's life says of its earlier lives, and judges again what
    /// that may change.
    pub fn begins(&mut self, writer: AgentId, epoch: Epoch, earlier: Vec<(Epoch, Seq)>) {
        Arc::make_mut(&mut self.lineage).begins(writer, epoch, earlier);
        let keys = self.contested.get(&writer).into_iter().flatten().copied().collect();
        self.judge_again(keys);
    }

    /// Judges reports again. Only what comes to say something else is taken into memory and counts as changed.
    fn judge_again(&mut self, keys: BTreeSet<ReportKey>) {
        for (number, period, slot) in keys {
            let store = &mut self.forms[number];
            let lock = store.lock(period, slot);
            let other =
                |block: BlockRef<'_>| block.would_change(slot, &self.lineage, lock.as_ref());
            if !store.block(period).is_some_and(other) {
                continue;
            }
            if let Some(block) = store.block_if(period) {
                block.judge(slot, &self.lineage, lock.as_ref());
            }
            self.note_returned((number, period, slot));
        }
    }

    /// Notes whether a report stands returned now.
    fn note_returned(&mut self, key: ReportKey) {
        let (number, period, slot) = key;
        let store = &self.forms[number];
        if !store.decisions().ever_returned(period, slot) {
            return;
        }
        let report = store.block(period).and_then(|block| block.report(slot, &self.authors));
        let stands = report.is_none_or(|report| report.current.is_none());
        if stands != self.returned.contains(&key) {
            let returned = Arc::make_mut(&mut self.returned);
            let _ = if stands { returned.insert(key) } else { returned.remove(&key) };
        }
    }

    /// Notes that reports of one form and period reached a stage: which facilities' reports, and what was
    /// seen of them.
    pub fn stage(
        &mut self,
        (form, period): (&FormCode, Period),
        what: (Decided, Stage, String),
        facilities: &[&UnitCode],
        seen: &[(&UnitCode, AgentId, Epoch, Seq)],
    ) {
        let Some(&number) = self.form_numbers.get(form) else { return };
        let numbers: Vec<FacilityNo> =
            facilities.iter().map(|code| Facilities::number(&mut self.facilities, code)).collect();
        let seen: Vec<(FacilityNo, AgentId, Epoch, Seq)> = seen
            .iter()
            .map(|(code, w, e, s)| (Facilities::number(&mut self.facilities, code), *w, *e, *s))
            .collect();
        let store = &mut self.forms[number];
        let slots: Vec<Slot> = numbers.into_iter().map(|f| store.slot_or_new(f)).collect();
        let seen = seen.into_iter().map(|(f, w, e, s)| (store.slot_or_new(f), w, e, s)).collect();
        store.decisions_mut(period).stage(period, what, slots.clone(), seen);
        self.decided(number, period, &slots);
    }

    /// Notes that a report was returned for correction: everything up to `seen`.
    pub fn returned(
        &mut self,
        (facility, form, period): (&UnitCode, &FormCode, Period),
        decided: Decided,
        reason: Reason,
        seen: VersionVector,
    ) {
        let Some((number, slot)) = self.place_or_new(facility, form) else { return };
        let decisions = self.forms[number].decisions_mut(period);
        decisions.returned((period, slot), decided, reason, seen);
        self.decided(number, period, &[slot]);
    }

    /// Notes that versions of a report were approved.
    pub fn approved(
        &mut self,
        (facility, form, period): (&UnitCode, &FormCode, Period),
        decided: Decided,
        reason: Reason,
        versions: Vec<VersionId>,
    ) {
        let Some((number, slot)) = self.place_or_new(facility, form) else { return };
        let decisions = self.forms[number].decisions_mut(period);
        decisions.approved((period, slot), decided, reason, versions);
        self.decided(number, period, &[slot]);
    }

    fn place_or_new(&mut self, facility: &UnitCode, form: &FormCode) -> Option<(usize, Slot)> {
        let number = *self.form_numbers.get(form)?;
        let facility = Facilities::number(&mut self.facilities, facility);
        Some((number, self.forms[number].slot_or_new(facility)))
    }

    /// Judges anew the reports that a decision may have changed.
    fn decided(&mut self, number: usize, period: Period, slots: &[Slot]) {
        for &slot in slots {
            let store = &mut self.forms[number];
            let length = store.slots().len();
            let lock = store.lock(period, slot);
            let key = (number, period, slot);
            let moved = |block: BlockRef<'_>| !block.is_unmoved(slot, &self.authors, lock.as_ref());
            if store.block(period).is_some_and(moved)
                && let Some(block) = store.block_if(period)
            {
                let writers = block.expand(slot, length, &self.authors);
                block.judge(slot, &self.lineage, lock.as_ref());
                self.note_contested(key, writers.into_iter());
            }
            self.note_returned(key);
        }
    }

    /// Notes that a report with a history has versions of these writers.
    fn note_contested(&mut self, key: ReportKey, writers: impl Iterator<Item = AgentId>) {
        for writer in writers {
            if !self.contested.get(&writer).is_some_and(|keys| keys.contains(&key)) {
                let contested = Arc::make_mut(&mut self.contested);
                contested.entry(writer).or_default().insert(key);
            }
        }
    }

    /// The identities of the versions in a slot of a form's block that do not wait for an approval.
    pub(crate) fn admitted(
        &self,
        store: &FormStore,
        (period, slot): (Period, Slot),
        block: &Block,
    ) -> Vec<VersionId> {
        let mut ids = block.ids(slot, &self.authors);
        if let Some(lock) = store.lock(period, slot) {
            ids.retain(|id| lock.admits(*id));
        }
        ids
    }

    /// Whether a version waits for an approval: behind a lock, or returned.
    pub fn waits(
        &self,
        facility: &UnitCode,
        form: &FormCode,
        period: Period,
        id: VersionId,
    ) -> bool {
        self.lock_of(facility, form, period, None).is_some_and(|lock| !lock.admits(id))
    }

    fn lock_of(
        &self,
        facility: &UnitCode,
        form: &FormCode,
        period: Period,
        at: Option<Millis>,
    ) -> Option<decision::Lock> {
        let (number, slot) = self.place(facility, form)?;
        self.forms[number].decisions().lock(period, slot, at)
    }

    /// Everything decided about a report by `at` (none: until now), in order.
    pub fn decisions(
        &self,
        facility: &UnitCode,
        form: &FormCode,
        period: Period,
        at: Option<Millis>,
    ) -> Vec<Decision> {
        let Some((number, slot)) = self.place(facility, form) else { return Vec::new() };
        self.forms[number].decisions().trace(period, slot, at)
    }

    /// The reports that stood returned at `at` (none: now): nothing of them counts, and nothing else has come
    /// since. What was entered again and withdrawn is missing for another reason.
    pub fn returned_reports(&self, at: Option<Millis>) -> Vec<(&UnitCode, &FormCode, Period)> {
        let name = |form: &'_ FormStore, slot: Slot| form.slots()[slot as usize];
        let Some(at) = at else {
            let each = self.returned.iter().map(|&(number, period, slot)| {
                let form = &self.forms[number];
                (self.facility_code(name(form, slot)), form.code(), period)
            });
            return each.collect();
        };
        let mut found = Vec::new();
        for form in &self.forms {
            // In order of periods: a block of the past is made once, however many of its reports it is about.
            let mut places = form.decisions().returned_places(at).peekable();
            while let Some(&(period, _)) = places.peek() {
                let block = self.block_at(form, period, Some(at));
                while let Some((_, slot)) = places.next_if(|(of, _)| *of == period) {
                    let report = block.as_ref().and_then(|block| block.report(slot, &self.authors));
                    if report.is_none_or(|report| report.current.is_none()) {
                        let facility = self.facility_code(name(form, slot));
                        found.push((facility, form.code(), period));
                    }
                }
            }
        }
        found
    }

    /// How far the review of a report had come at `at` (none: now).
    pub fn stage_of(
        &self,
        facility: &UnitCode,
        form: &FormCode,
        period: Period,
        at: Option<Millis>,
    ) -> Stage {
        let place = self.place(facility, form);
        place.map_or(Stage::Open, |(number, slot)| self.forms[number].stage(period, slot, at))
    }

    /// Whether a version waits for approval behind a lock, by the decisions known at `at` (none: now).
    pub fn pending(
        &self,
        facility: &UnitCode,
        form: &FormCode,
        period: Period,
        id: VersionId,
        at: Option<Millis>,
    ) -> bool {
        let waits = |lock: decision::Lock| !lock.admits(id) && !lock.is_returned(id);
        self.lock_of(facility, form, period, at).is_some_and(waits)
    }

    fn place(&self, facility: &UnitCode, form: &FormCode) -> Option<(usize, Slot)> {
        let number = *self.form_numbers.get(form)?;
        let facility = *self.facilities.numbers.get(facility)?;
        Some((number, self.forms[number].slot(facility)?))
    }

    /// Every version of a report, in order of identity; the values stand in the order of
    /// [`FormStore::columns`].
    pub fn versions(&self, facility: &UnitCode, form: &FormCode, period: Period) -> Vec<Stored> {
        self.known(facility, form, period).0
    }

    /// Every version of a report, as [`Cube::versions`] has them, and what they come to.
    pub fn known(
        &self,
        facility: &UnitCode,
        form: &FormCode,
        period: Period,
    ) -> (Vec<Stored>, Option<Report>) {
        let Some((number, slot)) = self.place(facility, form) else { return Default::default() };
        let Some(block) = self.forms[number].block(period) else { return Default::default() };
        let mut versions = block.versions(slot, &self.authors);
        for version in &mut versions {
            version.content.values.resize(self.forms[number].columns().len(), Value::Missing);
        }
        (versions, block.report(slot, &self.authors))
    }

    /// What is counted of a report now; none if nothing was ever accepted for it.
    pub fn report(&self, facility: &UnitCode, form: &FormCode, period: Period) -> Option<Report> {
        let (number, slot) = self.place(facility, form)?;
        self.forms[number].block(period)?.report(slot, &self.authors)
    }

    /// The form's columns and blocks.
    pub fn form(&self, form: &FormCode) -> Option<&FormStore> {
        self.form_numbers.get(form).map(|&number| &self.forms[number])
    }

    /// The forms, in order of first appearance.
    pub fn forms(&self) -> &[FormStore] {
        &self.forms
    }

    /// A facility's number here, if anything was reserved or applied for it.
    pub fn facility(&self, code: &UnitCode) -> Option<FacilityNo> {
        self.facilities.numbers.get(code).copied()
    }

    /// The code of a facility's number.
    pub fn facility_code(&self, number: FacilityNo) -> &UnitCode {
        &self.facilities.list[number as usize]
    }

    /// How many facilities have a number.
    pub fn facility_count(&self) -> usize {
        self.facilities.list.len()
    }

    /// The block as it stood at `at`: the one held when nothing came later, rebuilt otherwise.
    pub fn block_at<'a>(
        &'a self,
        form: &'a FormStore,
        period: Period,
        at: Option<Millis>,
    ) -> Option<BlockRef<'a>> {
        let block = form.block(period)?;
        let number = self.form_numbers.get(form.code());
        let held = number.and_then(|number| self.held_until.get(&(*number, period)));
        Some(match at {
            Some(at)
                if block.newest() > at
                    || form.decisions().newest(period) > at
                    || held.is_some_and(|until| *until > at) =>
            {
                // Only where something was held back is it worth looking who wrote each row.
                let until = held.map(|_| &*self.held_back);
                let decided = form.decisions().newest(period) > at;
                let lock = |slot| form.decisions().lock(period, slot, Some(at));
                let past = block.as_of(at, until, &self.authors, &self.lineage, decided, lock);
                BlockRef::Loaded(Arc::new(past))
            }
            _ => block,
        })
    }

    /// What is known of writers' histories.
    pub fn lineage(&self) -> &Lineage {
        &self.lineage
    }

    pub(crate) fn authors(&self) -> &Authors {
        &self.authors
    }
}

impl Cube {
    /// All of it but the blocks, to be kept beside them.
    pub(crate) fn frame(&self) -> Frame {
        let Cube {
            facilities,
            authors,
            forms,
            form_numbers: _,
            mappings: _,
            lineage,
            contested,
            returned,
            held_back,
            held_until,
            older: _,
        } = self;
        // In order, so that the same cube always gives the same frame.
        let keys = |(writer, keys): (&AgentId, &HashSet<ReportKey>)| {
            let mut keys: Vec<ReportKey> = keys.iter().copied().collect();
            keys.sort_unstable();
            (*writer, keys)
        };
        let mut contested: Vec<_> = contested.iter().map(keys).collect();
        contested.sort_unstable();
        let mut held_back: Vec<_> = held_back.iter().map(|(id, at)| (*id, *at)).collect();
        held_back.sort_unstable();
        let mut held_until: Vec<_> = held_until.iter().map(|(of, at)| (*of, *at)).collect();
        held_until.sort_unstable();
        Frame {
            facilities: facilities.list.clone(),
            authors: authors.list.clone(),
            forms: forms.iter().map(FormStore::frame).collect(),
            lineage: Lineage::clone(lineage),
            contested,
            returned: returned.iter().copied().collect(),
            held_back,
            held_until,
        }
    }

    /// The cube of a frame, every block with the older ones.
    pub(crate) fn of_frame(frame: Frame, older: Arc<dyn Older>) -> Cube {
        let Frame {
            facilities,
            authors,
            forms,
            lineage,
            contested,
            returned,
            held_back,
            held_until,
        } = frame;
        let facility_numbers = facilities.iter().cloned().zip(0..).collect();
        let author_numbers = authors.iter().cloned().zip(0..).collect();
        let forms: Vec<FormStore> = forms
            .into_iter()
            .enumerate()
            .map(|(number, form)| FormStore::of_frame(number, form, older.clone()))
            .collect();
        Cube {
            facilities: Arc::new(Facilities { list: facilities, numbers: facility_numbers }),
            authors: Arc::new(Authors { list: authors, numbers: author_numbers }),
            form_numbers: Arc::new(forms.iter().map(|form| form.code().clone()).zip(0..).collect()),
            forms,
            mappings: Arc::default(),
            lineage: Arc::new(lineage),
            returned: Arc::new(returned.into_iter().collect()),
            held_back: Arc::new(held_back.into_iter().collect()),
            held_until: Arc::new(held_until.into_iter().collect()),
            contested: Arc::new(
                contested
                    .into_iter()
                    .map(|(writer, keys)| (writer, keys.into_iter().collect()))
                    .collect(),
            ),
            older: Some(older),
        }
    }

    /// The same cube without its blocks.
    pub(crate) fn without_blocks(&self) -> Cube {
        let forms = self.forms.iter().map(FormStore::without_blocks).collect();
        Cube { forms, older: None, ..self.clone() }
    }

    /// Takes a month of a form into memory, as it was put aside.
    pub(crate) fn bring(&mut self, form: usize, month: Month) {
        self.forms[form].bring(month);
    }

    /// Puts a month of a form aside; it must be had again from [`Cube::set_older`]'s. Returns what was in
    /// memory, to be dropped when no lock is held.
    pub(crate) fn put_aside(&mut self, form: usize, month: Period) -> Vec<Arc<Block>> {
        self.forms[form].put_aside(month)
    }

    /// Bytes of the blocks in memory whose periods end before a month.
    pub(crate) fn bytes_before(&self, month: Period) -> usize {
        self.forms.iter().map(|form| form.bytes_before(month)).sum()
    }

    /// Whether any block of a form's month is in memory.
    pub(crate) fn has_here(&self, form: usize, month: Period) -> bool {
        self.forms[form].has_here(month)
    }

    /// See [`Older::rewritten`].
    pub(crate) fn older_rewritten(&self) -> u64 {
        self.older.as_ref().map_or(0, |older| older.rewritten())
    }

    /// From where months are had that are not in memory.
    pub(crate) fn set_older(&mut self, older: Arc<dyn Older>) {
        self.forms.iter_mut().for_each(|form| form.set_older(older.clone()));
        self.older = Some(older);
    }

    /// A month of another cube with the same reports, in the numbers of this one.
    pub(crate) fn adopt(&self, other: &Cube, form: usize, month: Period) -> Month {
        let mut adopted = Month::default();
        let store = &self.forms[form];
        let Some(theirs) = other.form(store.code()) else { return adopted };
        let columns: Vec<Option<usize>> =
            theirs.columns().iter().map(|element| store.column(element.as_str())).collect();
        let (mut authors, slots) = (self.authors.clone(), store.slots().len());
        for (period, block) in theirs.month(month) {
            let mut own = Block::default();
            for slot in block.present_slots() {
                let code = other.facility_code(theirs.slots()[slot as usize]);
                let Some(slot_here) = self.facility(code).and_then(|number| store.slot(number))
                else {
                    continue;
                };
                for mut stored in block.versions(slot, other.authors()) {
                    let mut values = vec![Value::Missing; store.columns().len()];
                    for (value, column) in stored.content.values.iter().zip(&columns) {
                        if let Some(column) = column {
                            values[*column] = *value;
                        }
                    }
                    stored.content.values = values;
                    let lock = store.lock(period, slot_here);
                    let lock = lock.as_ref();
                    own.insert(slot_here, slots, stored, &mut authors, &self.lineage, lock);
                }
            }
            adopted.insert(period, own);
        }
        adopted
    }
}

#[cfg(test)]
mod tests;
