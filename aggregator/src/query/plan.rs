//! What is owed: for one form and period, by slot, whether the report is due, what it asks and until when.
//!
//! Plans depend on the catalogue, the organisation and the order of the cube's slots only, never on what was
//! reported or on the time of the question, so that they are kept ([`Plans`]) until one of those changes.

use std::collections::HashSet;
use std::hash::Hash;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, PoisonError, RwLock};

use banyan_shared::catalogue::{
    Catalogue, Class, Days, ElementIx, Facts, Form, FormIx, Indicator, KindIx, Line,
};
use banyan_shared::figures::indicators::{Compiled, on_working_days};
use banyan_shared::figures::{self, DutyFacts};
use banyan_shared::ids::Millis;
use banyan_shared::organisation::{Organisation, UnitIx};
use banyan_shared::period::{Date, Period};
use banyan_shared::tables::registry::ExtensionDue;
use foldhash::{HashMap, HashMapExt};

use super::items::Items;
use super::kept::KeptRows;
use super::sets::{Located, Roster, RosterKey, Scope};
use super::sheet::{CHUNK, Sheet, Usual};
use crate::cube::{Block, Cube, Slot};

/// Most plans kept; beyond it all are dropped and made anew as they are asked for.
const PLANS_MAX: usize = 50_000;
/// Most bytes of rosters kept: one of a province by township has a quarter of a megabyte, by facility four.
const ROSTERS_BYTES_MAX: usize = 64 << 20;
/// Most bytes kept of who lies where on a day: a province's have half a megabyte.
const LOCATED_BYTES_MAX: usize = 32 << 20;
/// What an entry takes beside its content, more or less.
const ENTRY_BYTES: usize = 512;
/// Most blocks of the past kept: one of a province's village clinics has a megabyte.
const PAST_BLOCKS_MAX: usize = 160;
/// Most sheets kept, of longer than a day: some four years of ten forms. All of a province's forms of a month,
/// asked for everywhere, have seven megabytes.
const SHEETS_MAX: usize = 500;

/// Most sums kept over the periods before one: those of a province's daily form have half a megabyte.
const USUAL_MAX: usize = 128;

/// No unit has so many slots before it.
const NO_SLOT: Slot = Slot::MAX;

/// Which unit stands at which slot of a form. Facilities that have never reported and have no reserved
/// slot get one here, behind the cube's own, where every column is missing.
#[derive(Debug)]
pub(super) struct FormMap {
    /// The unit at each slot; none for a facility the organisation does not know.
    pub(super) units: Vec<Option<UnitIx>>,
    /// The slot of each unit of the organisation; [`NO_SLOT`] for none.
    slot_of: Box<[Slot]>,
    /// How many slots the cube had: tells apart the maps of one organisation, since slots never move.
    pub(super) real: usize,
}

impl FormMap {
    fn build(
        catalogue: &Catalogue,
        organisation: &Organisation,
        cube: &Cube,
        form: FormIx,
    ) -> FormMap {
        let model = &catalogue.forms[form.at()];
        let store = cube.form(&model.code);
        let mut units: Vec<Option<UnitIx>> = store
            .map(|store| {
                let code = |facility: &u32| cube.facility_code(*facility).as_str();
                store.slots().iter().map(|facility| organisation.unit(code(facility))).collect()
            })
            .unwrap_or_default();
        let real = units.len();
        let mut slot_of = vec![NO_SLOT; organisation.len()].into_boxed_slice();
        for (slot, unit) in (0u32..).zip(&units) {
            if let Some(unit) = unit {
                slot_of[unit.at()] = slot;
            }
        }
        for unit in organisation.reporters() {
            if slot_of[unit.at()] != NO_SLOT || !ever_reports(organisation, *unit, model) {
                continue;
            }
            slot_of[unit.at()] = u32::try_from(units.len()).expect("fewer than 2^32 units");
            units.push(Some(*unit));
        }
        FormMap { units, slot_of, real }
    }

    pub(super) fn slot(&self, unit: UnitIx) -> Option<Slot> {
        self.slot_of.get(unit.at()).copied().filter(|slot| *slot != NO_SLOT)
    }
}

/// Whether a unit is ever of a kind that reports the form.
pub(super) fn ever_reports(organisation: &Organisation, unit: UnitIx, form: &Form) -> bool {
    organisation.info(unit).spells.iter().any(|spell| form.kinds.contains(&spell.kind))
}

/// What is owed of one form for one period.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Plan {
    /// 1 where the report is due.
    pub(super) duty: Arc<[u8]>,
    /// For each line of the form, 1 where it is due and asks the line; shared with `duty` where the line is
    /// asked of everyone.
    pub(super) asked: Vec<Arc<[u8]>>,
    /// Whether every line is asked wherever the report is due.
    pub(super) uniform: bool,
    /// The last moment in time, where `exceptions` says no other.
    late_after: Millis,
    exceptions: HashMap<Slot, Millis>,
    /// The last of all these moments.
    latest: Millis,
    /// When the period ends.
    pub(super) ends: Millis,
    /// Of which map its slots are: how many slots the cube had.
    real: usize,
}

impl Plan {
    /// The last moment at which the slot's report is on time.
    pub(super) fn late_after(&self, slot: Slot) -> Millis {
        self.exceptions.get(&slot).copied().unwrap_or(self.late_after)
    }

    /// Whether every slot's last moment lies before `now` (`Some(true)`), none does (`Some(false)`), or it
    /// takes a look at each.
    pub(super) fn all_late(&self, now: Millis) -> Option<bool> {
        let late = now > self.late_after;
        self.exceptions.values().all(|at| (now > *at) == late).then_some(late)
    }

    /// The first moment after `now` at which another report becomes late.
    pub(super) fn next_late(&self, now: Millis) -> Option<Millis> {
        if self.latest < now {
            return None;
        }
        let moments = self.exceptions.values().chain([&self.late_after]);
        moments.filter(|at| **at >= now).min().map(|at| Millis(at.0.saturating_add(1)))
    }

    /// `near`: the plan of a period on the same map, whose columns may be the same.
    fn build(
        catalogue: &Catalogue,
        organisation: &Organisation,
        map: &FormMap,
        form: &Form,
        p: Period,
        near: Option<&Plan>,
    ) -> Plan {
        let (duty, asked, uniform) = match near {
            Some(near) => (near.duty.clone(), near.asked.clone(), near.uniform),
            None => columns(catalogue, organisation, map, form, p),
        };
        let ends = figures::ended_at(catalogue, p);
        // One moment for all, unless calendars or extensions differ.
        if !form.due.next_working_day && !organisation.has_extensions(form.code.as_str()) {
            let late_after = figures::deadline(catalogue, form, p, |_| true, None).late_after;
            let exceptions = HashMap::new();
            return Plan {
                duty,
                asked,
                uniform,
                late_after,
                exceptions,
                latest: late_after,
                ends,
                real: map.real,
            };
        }
        let mut moments: HashMap<Slot, Millis> = HashMap::new();
        let mut votes: HashMap<Millis, usize> = HashMap::new();
        let mut of_day: HashMap<Date, Millis> = HashMap::new();
        for (slot, unit) in (0u32..).zip(&map.units) {
            let Some(unit) = unit.filter(|_| duty[slot as usize] == 1) else { continue };
            let working = |date: Date| organisation.is_working_day(unit, date);
            let late_after = match extension(catalogue, organisation, form, unit, p).1 {
                Some(until) => {
                    figures::deadline(catalogue, form, p, working, Some(until)).late_after
                }
                None => {
                    let day = figures::due_day(form, p, working);
                    *of_day.entry(day).or_insert_with(|| {
                        figures::deadline(catalogue, form, p, working, None).late_after
                    })
                }
            };
            moments.insert(slot, late_after);
            *votes.entry(late_after).or_default() += 1;
        }
        let late_after =
            votes.into_iter().max_by_key(|(at, n)| (*n, *at)).map_or(ends, |(at, _)| at);
        moments.retain(|_, at| *at != late_after);
        let latest = moments.values().copied().max().map_or(late_after, |at| at.max(late_after));
        Plan { duty, asked, uniform, late_after, exceptions: moments, latest, ends, real: map.real }
    }
}

/// For each line of a form, where it is asked.
type Columns = Vec<Arc<[u8]>>;

/// Where the report is due, and where it asks each line; whether every line is asked wherever it is due.
fn columns(
    catalogue: &Catalogue,
    organisation: &Organisation,
    map: &FormMap,
    form: &Form,
    p: Period,
) -> (Arc<[u8]>, Columns, bool) {
    let slots = map.units.len();
    let mut duty = vec![0u8; slots];
    let needs_facts = form
        .lines
        .iter()
        .any(|line| !line.asked_of.roles.is_empty() || !line.asked_of.attributes.is_empty());
    // A line asked of every kind of the form on every day needs no column of its own.
    let plain = |line: &Line| line.asked_of.is_empty() && line.from.is_none() && line.to.is_none();
    let own: Vec<usize> = (0..form.lines.len()).filter(|&at| !plain(&form.lines[at])).collect();
    let mut asked_own: Vec<Vec<u8>> = own.iter().map(|_| vec![0u8; slots]).collect();
    let in_force = form.in_force(p) && p.kind() == form.period_type;
    let mut facts = Facts { kind: KindIx(0), roles: Vec::new(), attributes: Vec::new() };
    for (slot, unit) in (0u32..).zip(&map.units) {
        let (true, Some(unit)) = (in_force, *unit) else { continue };
        let Some(day) = organisation.duty_day(unit, p) else { continue };
        let kind = organisation.kind_on(unit, day);
        if !form.kinds.contains(&kind) {
            continue;
        }
        let (waived, _) = extension(catalogue, organisation, form, unit, p);
        let about = DutyFacts {
            day,
            kind,
            active: organisation.is_open(unit, day),
            in_span: organisation.duty_in_span(form.code.as_str(), unit, day),
            working_day: organisation.is_working_day(unit, day),
            waived,
        };
        if !figures::duty(form, p, Some(&about)) {
            continue;
        }
        duty[slot as usize] = 1;
        if !own.is_empty() {
            if needs_facts {
                facts = organisation.facts_on(unit, day);
            } else {
                facts.kind = kind;
            }
            for (column, &line) in asked_own.iter_mut().zip(&own) {
                column[slot as usize] = u8::from(form.lines[line].asks(&facts, day));
            }
        }
    }
    let duty: Arc<[u8]> = duty.into();
    let mut asked: Vec<Arc<[u8]>> = vec![duty.clone(); form.lines.len()];
    let mut uniform = true;
    for (column, line) in asked_own.into_iter().zip(own) {
        if column[..] != duty[..] {
            uniform = false;
            asked[line] = column.into();
        }
    }
    (duty, asked, uniform)
}

/// Whether a form's columns are the same for two periods: nothing they depend on differs between their days.
fn same_columns(organisation: &Organisation, form: &Form, one: Period, other: Period) -> bool {
    let (first, last) = (one.min(other), one.max(other));
    let changes = |day: Option<Date>| {
        day.is_some_and(|day| first.first_day() < day && day <= last.last_day())
    };
    let code = form.code.as_str();
    form.days == Days::All
        && organisation.changes_in(first.first_day(), last.last_day()).is_empty()
        && !organisation.has_extensions(code)
        && !organisation.has_duty_spans(code)
        && !changes(form.from)
        && !changes(form.to)
        && !form.lines.iter().any(|line| changes(line.from) || changes(line.to))
}

/// Whether the report is waived, and the due time granted instead of the rule's, if any.
pub(super) fn extension(
    catalogue: &Catalogue,
    organisation: &Organisation,
    form: &Form,
    unit: UnitIx,
    p: Period,
) -> (bool, Option<Millis>) {
    match organisation.extension(form.code.as_str(), unit, p).map(|extension| extension.due) {
        None => (false, None),
        Some(ExtensionDue::Waived) => (true, None),
        Some(ExtensionDue::At { date, hour, minute }) => {
            (false, Some(catalogue.due_at(date, hour, minute)))
        }
    }
}

/// The catalogue's formulas, and where each kind is asked each element.
#[derive(Debug)]
pub(super) struct Formulas {
    /// By indicator, then by definition; none for formulas over the registry or over reporting.
    pub(super) compiled: Vec<Vec<Option<Compiled>>>,
    /// The elements some formula wants added up over working days only.
    on_working_days: HashSet<ElementIx>,
    /// By kind, then by element: the forms and lines by which it is asked.
    homes: Vec<Vec<Vec<(FormIx, usize)>>>,
}

impl Formulas {
    fn new(catalogue: &Catalogue) -> Formulas {
        let definitions = |indicator: &Indicator| {
            let each = indicator.definitions.iter();
            each.map(|definition| Compiled::new(catalogue, &definition.formula)).collect()
        };
        let compiled: Vec<Vec<Option<Compiled>>> =
            catalogue.indicators.iter().map(definitions).collect();
        let mut homes = vec![vec![Vec::new(); catalogue.elements.len()]; catalogue.kinds.len()];
        for (form, model) in (0u16..).map(FormIx).zip(&catalogue.forms) {
            for (at, line) in model.lines.iter().enumerate() {
                for kind in &model.kinds {
                    homes[kind.at()][line.element.at()].push((form, at));
                }
            }
        }
        let all = compiled.iter().flatten().flatten();
        Formulas { on_working_days: on_working_days(all), compiled, homes }
    }

    /// By which forms and lines a kind is asked an element.
    pub(super) fn homes(&self, kind: KindIx, element: ElementIx) -> &[(FormIx, usize)] {
        &self.homes[kind.at()][element.at()]
    }
}

/// How many working days units have in a stretch of days, by unit, in chunks counted when first asked for.
#[derive(Debug)]
pub(super) struct WorkingDays(Box<[OnceLock<[u16; CHUNK]>]>);

impl WorkingDays {
    /// Of one unit. The days must be those it was made for.
    pub(super) fn of(
        &self,
        organisation: &Organisation,
        unit: UnitIx,
        (first, last): (Date, Date),
    ) -> u64 {
        let (number, place) = (unit.at() / CHUNK, unit.at() % CHUNK);
        let chunk = self.0[number].get_or_init(|| {
            let mut days = [0; CHUNK];
            let from = number * CHUNK;
            for (at, days) in days.iter_mut().enumerate().take(organisation.len() - from) {
                let unit = UnitIx(u32::try_from(from + at).expect("fewer than 2^32 units"));
                if !matches!(organisation.class(unit), Class::Facility | Class::Desk) {
                    continue;
                }
                let each = (first.days()..=last.days()).filter_map(Date::from_days);
                let works = |day: &Date| {
                    organisation.is_open(unit, *day) && organisation.is_working_day(unit, *day)
                };
                *days = u16::try_from(each.filter(works).count()).unwrap_or(u16::MAX);
            }
            days
        });
        u64::from(chunk[place])
    }
}

/// A form's period and the moment it is looked at from.
type PastBlock = (FormIx, Period, Millis);

/// Plans and divisions made so far, for one catalogue and one organisation. Make a new one when either
/// changes.
#[derive(Debug, Default)]
pub struct Plans {
    maps: RwLock<HashMap<FormIx, Arc<FormMap>>>,
    plans: RwLock<HashMap<(FormIx, Period), Arc<Plan>>>,
    rosters: RwLock<Weighed<RosterKey, Roster>>,
    sheets: RwLock<HashMap<(FormIx, Period), Arc<Sheet>>>,
    usual: RwLock<HashMap<(FormIx, Period), Arc<Usual>>>,
    formulas: OnceLock<Formulas>,
    /// By kind: the units that are of it at any time.
    of_kind: OnceLock<HashMap<KindIx, Vec<UnitIx>>>,
    working_days: RwLock<HashMap<(Date, Date), Arc<WorkingDays>>>,
    past_blocks: RwLock<HashMap<PastBlock, Arc<Block>>>,
    /// Counts up with every look at a sheet.
    questions: AtomicU64,
    located: RwLock<Weighed<(Scope, Date), Vec<Located>>>,
    rows: KeptRows,
    items: Items,
}

fn kept<K: Eq + Hash, V>(cache: &RwLock<HashMap<K, Arc<V>>>, key: &K) -> Option<Arc<V>> {
    cache.read().unwrap_or_else(PoisonError::into_inner).get(key).cloned()
}

fn keep<K: Eq + Hash, V>(cache: &RwLock<HashMap<K, Arc<V>>>, most: usize, key: K, value: Arc<V>) {
    let mut cache = cache.write().unwrap_or_else(PoisonError::into_inner);
    if cache.len() >= most {
        cache.clear();
    }
    cache.insert(key, value);
}

/// What is kept up to so many bytes, and then made anew as it is asked for.
#[derive(Debug)]
struct Weighed<K, V> {
    entries: HashMap<K, Arc<V>>,
    bytes: usize,
}

impl<K, V> Default for Weighed<K, V> {
    fn default() -> Weighed<K, V> {
        Weighed { entries: HashMap::new(), bytes: 0 }
    }
}

/// What is kept under a key; made and kept if it is not there.
fn weighed<K: Eq + Hash, V>(
    cache: &RwLock<Weighed<K, V>>,
    most: usize,
    key: K,
    make: impl FnOnce() -> V,
    bytes: impl FnOnce(&V) -> usize,
) -> Arc<V> {
    let read = cache.read().unwrap_or_else(PoisonError::into_inner);
    if let Some(value) = read.entries.get(&key) {
        return value.clone();
    }
    drop(read);
    let value = Arc::new(make());
    let bytes = ENTRY_BYTES + bytes(&value);
    let mut cache = cache.write().unwrap_or_else(PoisonError::into_inner);
    let full =
        if cache.bytes + bytes > most { std::mem::take(&mut *cache) } else { Weighed::default() };
    if cache.entries.insert(key, value.clone()).is_none() {
        cache.bytes += bytes;
    }
    drop(cache);
    // Freed while nobody waits for the lock.
    drop(full);
    value
}

impl Plans {
    pub(super) fn map(
        &self,
        catalogue: &Catalogue,
        organisation: &Organisation,
        cube: &Cube,
        form: FormIx,
    ) -> Arc<FormMap> {
        let real =
            cube.form(&catalogue.forms[form.at()].code).map_or(0, |store| store.slots().len());
        if let Some(map) = kept(&self.maps, &form).filter(|map| map.real == real) {
            return map;
        }
        // The slots have grown: what was made for this form names places that have moved.
        let forget = |key: &FormIx| *key != form;
        self.plans.write().unwrap_or_else(PoisonError::into_inner).retain(|key, _| forget(&key.0));
        let map = Arc::new(FormMap::build(catalogue, organisation, cube, form));
        keep(&self.maps, PLANS_MAX, form, map.clone());
        map
    }

    pub(super) fn plan(
        &self,
        catalogue: &Catalogue,
        organisation: &Organisation,
        map: &FormMap,
        form: FormIx,
        p: Period,
    ) -> Arc<Plan> {
        if let Some(plan) = kept(&self.plans, &(form, p)).filter(|plan| plan.real == map.real) {
            return plan;
        }
        let model = &catalogue.forms[form.at()];
        let near = [p.plus(-1), p.plus(1)].into_iter().find_map(|near| {
            kept(&self.plans, &(form, near))
                .filter(|plan| plan.real == map.real)
                .filter(|_| same_columns(organisation, model, near, p))
        });
        let plan = Plan::build(catalogue, organisation, map, model, p, near.as_deref());
        let plan = Arc::new(plan);
        keep(&self.plans, PLANS_MAX, (form, p), plan.clone());
        plan
    }

    pub(super) fn roster(&self, key: RosterKey, make: impl FnOnce() -> Roster) -> Arc<Roster> {
        weighed(&self.rosters, ROSTERS_BYTES_MAX, key, make, Roster::bytes)
    }

    /// The sheet folded last for a form and bundle.
    pub(super) fn sheet(&self, form: FormIx, bundle: Period) -> Option<Arc<Sheet>> {
        let sheet = kept(&self.sheets, &(form, bundle))?;
        sheet.used.store(self.questions.fetch_add(1, Ordering::Relaxed), Ordering::Relaxed);
        Some(sheet)
    }

    /// Keeps a sheet. When there are too many, the half not asked for longest goes.
    pub(super) fn keep_sheet(&self, sheet: Arc<Sheet>) {
        sheet.used.store(self.questions.fetch_add(1, Ordering::Relaxed), Ordering::Relaxed);
        let mut sheets = self.sheets.write().unwrap_or_else(PoisonError::into_inner);
        if sheets.len() >= SHEETS_MAX {
            let mut used: Vec<u64> =
                sheets.values().map(|sheet| sheet.used.load(Ordering::Relaxed)).collect();
            used.sort_unstable();
            let oldest = used[used.len() / 2];
            sheets.retain(|_, sheet| sheet.used.load(Ordering::Relaxed) >= oldest);
        }
        let old = sheets.insert((sheet.form, sheet.bundle), sheet);
        drop(sheets);
        // Freed while nobody waits for the lock.
        drop(old);
    }

    /// A question of the past begins or ends: what was made for another may not hold any more, and takes room.
    pub fn forget_past(&self) {
        self.past_blocks.write().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// A block as it stood at a moment, made for an earlier look of the same question.
    pub(super) fn past_block(&self, key: &PastBlock) -> Option<Arc<Block>> {
        kept(&self.past_blocks, key)
    }

    pub(super) fn keep_past_block(&self, key: PastBlock, block: Arc<Block>) {
        keep(&self.past_blocks, PAST_BLOCKS_MAX, key, block);
    }

    /// What a form's slots usually came to before a period, as it was added up last.
    pub(super) fn usual(&self, form: FormIx, first: Period) -> Option<Arc<Usual>> {
        kept(&self.usual, &(form, first))
    }

    pub(super) fn keep_usual(&self, form: FormIx, first: Period, usual: Arc<Usual>) {
        keep(&self.usual, USUAL_MAX, (form, first), usual);
    }

    /// The units that are of a kind at any time.
    pub(super) fn ever_of_kind(&self, organisation: &Organisation, kind: KindIx) -> &[UnitIx] {
        let of_kind = self.of_kind.get_or_init(|| {
            let mut of_kind: HashMap<KindIx, Vec<UnitIx>> = HashMap::new();
            for unit in organisation.units() {
                for spell in &organisation.info(unit).spells {
                    of_kind.entry(spell.kind).or_default().push(unit);
                }
            }
            of_kind
        });
        of_kind.get(&kind).map_or(&[], Vec::as_slice)
    }

    /// The catalogue's formulas, compiled.
    pub(super) fn formulas(&self, catalogue: &Catalogue) -> &Formulas {
        self.formulas.get_or_init(|| Formulas::new(catalogue))
    }

    /// The working days of units in a stretch of days.
    pub(super) fn working_days(
        &self,
        organisation: &Organisation,
        days: (Date, Date),
    ) -> Arc<WorkingDays> {
        kept(&self.working_days, &days).unwrap_or_else(|| {
            let chunks = organisation.len().div_ceil(CHUNK);
            let empty = std::iter::repeat_with(OnceLock::new).take(chunks).collect();
            let counted = Arc::new(WorkingDays(empty));
            keep(&self.working_days, SHEETS_MAX, days, counted.clone());
            counted
        })
    }

    /// Rows worked out before.
    pub(super) fn rows(&self) -> &KeptRows {
        &self.rows
    }

    /// The bytes of the rows kept.
    pub fn kept_bytes(&self) -> usize {
        self.rows.bytes()
    }

    /// What figures have in common.
    pub(super) fn items(&self) -> &Items {
        &self.items
    }

    /// The elements some formula wants added up over working days only.
    pub(super) fn on_working_days(&self, catalogue: &Catalogue) -> &HashSet<ElementIx> {
        &self.formulas(catalogue).on_working_days
    }

    pub(super) fn located(
        &self,
        scope: Scope,
        date: Date,
        make: impl FnOnce() -> Vec<Located>,
    ) -> Arc<Vec<Located>> {
        let bytes = |list: &Vec<Located>| size_of_val(&list[..]);
        weighed(&self.located, LOCATED_BYTES_MAX, (scope, date), make, bytes)
    }
}

/// Gives every facility its slots in administrative order, so that neighbours on the map are neighbours in
/// memory. Call it before the first version is applied and after every change of the organisation.
pub fn reserve(cube: &mut Cube, catalogue: &Catalogue, organisation: &Organisation) {
    for form in &catalogue.forms {
        let units =
            organisation.reporters().iter().filter(|unit| ever_reports(organisation, **unit, form));
        cube.reserve(&form.code, units.map(|unit| organisation.code(*unit)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_by_weight_is_bounded_and_made_anew() {
        let cache = RwLock::<Weighed<usize, Vec<u8>>>::default();
        let made = std::cell::Cell::new(0);
        let get = |key: usize| {
            let make = || {
                made.set(made.get() + 1);
                vec![0; 10_000]
            };
            weighed(&cache, 100_000, key, make, Vec::len)
        };
        for key in 0..100 {
            get(key);
            get(key);
            let cache = cache.read().unwrap();
            assert!(cache.bytes <= 100_000 && cache.bytes == cache.entries.len() * 10_512);
        }
        assert_eq!(made.get(), 100);
        get(0);
        assert_eq!(made.get(), 101, "it was let go meanwhile");
    }
}
