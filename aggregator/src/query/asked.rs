//! One question: its moment, and what it has looked at so far.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;

use banyan_shared::catalogue::FormIx;
use banyan_shared::ids::Millis;
use banyan_shared::organisation::UnitIx;
use banyan_shared::period::{Date, Period, Span};
use banyan_shared::report::Value;
use foldhash::HashMap;

use super::Engine;
use super::complete::{Complete, MissingAs};
use super::given::{Given, Run};
use super::plan::{FormMap, WorkingDays};
use super::request::Dims;
use super::sets::{Group, Roster, Scope};
use super::sheet::{Sheet, USUAL_PERIODS, Usual, works_on};
use super::span::bundles;
use crate::cube::Slot;

/// The moment a question is asked for.
#[derive(Clone, Copy, Debug)]
pub(super) struct When {
    /// As known at this moment.
    pub(super) now: Millis,
    /// Set if that moment is in the past, so that later versions must be left out.
    pub(super) past: Option<Millis>,
    /// The day whose map is used; none = each period's own.
    pub(super) map: Option<Date>,
}

/// What one unit's reports of some periods come to in one line.
#[derive(Clone, Copy, Debug)]
pub(super) struct Got {
    /// Form-periods owed that ask the line, ended or not.
    pub(super) asked: u32,
    /// Of them: ended.
    pub(super) owed: u32,
    /// Of those ended: answered.
    pub(super) answered: u32,
    /// Of those ended: answered "not applicable".
    pub(super) not_applicable: u32,
    /// Reports with a number.
    pub(super) numbers: u32,
    /// Of those owed and not answered "not applicable": past their time. Told only of a reading one by one.
    pub(super) late: u32,
    /// The sum of the numbers.
    pub(super) sum: u64,
    /// Their sum over working days.
    pub(super) working: u64,
    /// The newest answer, of stocks.
    pub(super) last: Value,
    /// Whether several versions stand of a report with a number. Told only of a reading one by one.
    pub(super) conflicts: bool,
    /// Whether a report had another value when it was first signed off or locked. Told only of a reading one
    /// by one.
    pub(super) restated: bool,
}

impl Default for Got {
    fn default() -> Got {
        Got {
            asked: 0,
            owed: 0,
            answered: 0,
            not_applicable: 0,
            numbers: 0,
            sum: 0,
            working: 0,
            last: Value::Missing,
            late: 0,
            conflicts: false,
            restated: false,
        }
    }
}

impl Got {
    /// Adds what a later stretch of time gave.
    pub(super) fn then(&mut self, later: Got) {
        self.asked += later.asked;
        self.owed += later.owed;
        self.answered += later.answered;
        self.not_applicable += later.not_applicable;
        self.numbers += later.numbers;
        self.late += later.late;
        self.sum = self.sum.saturating_add(later.sum);
        self.working = self.working.saturating_add(later.working);
        self.conflicts |= later.conflicts;
        self.restated |= later.restated;
        if later.last.is_answer() {
            self.last = later.last;
        }
    }
}

/// One question: the engine, its moment, and the sheets, rosters and columns it has looked at.
pub(super) struct Asked<'e> {
    pub(super) engine: Engine<'e>,
    pub(super) when: When,
    /// The day of that moment.
    pub(super) today: Date,
    slots: RefCell<HashMap<FormIx, Arc<FormMap>>>,
    sheets: RefCell<HashMap<(FormIx, Period), Arc<Sheet>>>,
    series: RefCell<HashMap<(FormIx, Span), Series>>,
    rosters: RefCell<Vec<(RosterAsked, Arc<Roster>)>>,
    usual: RefCell<HashMap<(FormIx, Period), UsualOf>>,
    volumes: RefCell<HashMap<VolumesAsked, Rc<[u64]>>>,
    runs: RefCell<HashMap<RunsAsked, Rc<[Run]>>>,
    given: RefCell<HashMap<GivenAsked, Rc<Given>>>,
    working: RefCell<HashMap<(Date, Date), Arc<WorkingDays>>>,
    complete: RefCell<Option<(CompleteAsked, Rc<Complete>)>>,
    missing: RefCell<HashMap<GroupAt, Rc<[Cell<MissingAs>]>>>,
}

/// The sheets of a form that together hold its periods inside a span.
pub(super) type Series = Rc<[Arc<Sheet>]>;

/// Sums over the periods before a span, and the sheets they are read from.
type UsualOf = (Arc<Usual>, Series);

type RosterAsked = (Scope, Dims, (Date, Date));

/// A set and its rows, a span, and the only form.
type CompleteAsked = (Scope, Dims, Span, Option<FormIx>);

/// A group, by the place in memory it keeps while the question lasts.
type GroupAt = usize;

/// A group; a form and line; a span; whether values are carried into it.
type GivenAsked = (GroupAt, FormIx, usize, Span, bool);

/// A group; a form and line; the period before which.
type VolumesAsked = (GroupAt, FormIx, usize, Period);

/// A group, and a form.
type RunsAsked = (GroupAt, FormIx);

fn place_of(group: &Group) -> GroupAt {
    std::ptr::from_ref(group) as usize
}

impl<'e> Asked<'e> {
    pub(super) fn new(engine: Engine<'e>, when: When) -> Asked<'e> {
        Asked {
            engine,
            when,
            today: engine.catalogue.day_at(when.now),
            slots: RefCell::default(),
            sheets: RefCell::default(),
            series: RefCell::default(),
            rosters: RefCell::default(),
            usual: RefCell::default(),
            volumes: RefCell::default(),
            runs: RefCell::default(),
            given: RefCell::default(),
            working: RefCell::default(),
            complete: RefCell::default(),
            missing: RefCell::default(),
        }
    }

    pub(super) fn kept_runs(
        &self,
        group: &Group,
        form: FormIx,
        make: impl FnOnce() -> Rc<[Run]>,
    ) -> Rc<[Run]> {
        let key = (place_of(group), form);
        if let Some(runs) = self.runs.borrow().get(&key) {
            return runs.clone();
        }
        let runs = make();
        self.runs.borrow_mut().insert(key, runs.clone());
        runs
    }

    pub(super) fn kept_given(
        &self,
        (group, form, line, span): (&Group, FormIx, usize, Span),
        carried: bool,
        make: impl FnOnce() -> Given,
    ) -> Rc<Given> {
        let key = (place_of(group), form, line, span, carried);
        if let Some(given) = self.given.borrow().get(&key) {
            return given.clone();
        }
        let given = Rc::new(make());
        self.given.borrow_mut().insert(key, given.clone());
        given
    }

    /// What was counted last, if it was the same.
    pub(super) fn kept_complete(
        &self,
        key: CompleteAsked,
        make: impl FnOnce() -> Complete,
    ) -> Rc<Complete> {
        if let Some((kept, complete)) = &*self.complete.borrow()
            && *kept == key
        {
            return complete.clone();
        }
        let complete = Rc::new(make());
        *self.complete.borrow_mut() = Some((key, complete.clone()));
        complete
    }

    /// As what reports of each of a group's units are missing, as far as that was found out.
    pub(super) fn missing_of(&self, group: &Group) -> Rc<[Cell<MissingAs>]> {
        let mut missing = self.missing.borrow_mut();
        let make = || vec![Cell::default(); group.units.len()].into();
        missing.entry(place_of(group)).or_insert_with(make).clone()
    }

    /// Forgets what was read of the groups of a row: no other row has them.
    pub(super) fn forget_row(&self) {
        self.given.borrow_mut().clear();
        self.runs.borrow_mut().clear();
        self.missing.borrow_mut().clear();
        self.volumes.borrow_mut().clear();
    }

    /// The form's slots.
    pub(super) fn slots(&self, form: FormIx) -> Arc<FormMap> {
        let make = || self.engine.slots(form);
        self.slots.borrow_mut().entry(form).or_insert_with(make).clone()
    }

    /// What the units of a group came to in a line in the periods before `first`.
    pub(super) fn volumes(
        &self,
        group: &Group,
        (form, line): (FormIx, usize),
        first: Period,
    ) -> Rc<[u64]> {
        let key = (place_of(group), form, line, first);
        if let Some(volumes) = self.volumes.borrow().get(&key) {
            return volumes.clone();
        }
        let (usual, sheets) = self.usual(form, first);
        let mut volumes = vec![0; group.units.len()];
        for run in self.runs(group, form).iter() {
            let sums = &mut volumes[run.at..run.at + run.len];
            let place = (run.chunk, run.place);
            usual.add_to((&self.engine, self.when), &sheets, line, place, sums);
        }
        let volumes: Rc<[u64]> = volumes.into();
        self.volumes.borrow_mut().insert(key, volumes.clone());
        volumes
    }

    /// The same of a unit alone.
    pub(super) fn volume(&self, unit: UnitIx, (form, line): (FormIx, usize), first: Period) -> u64 {
        let mut volume = [0];
        if let Some(slot) = self.slots(form).slot(unit) {
            let (usual, sheets) = self.usual(form, first);
            let place = Sheet::place(slot);
            usual.add_to((&self.engine, self.when), &sheets, line, place, &mut volume);
        }
        volume[0]
    }

    /// What a form's lines came to in the periods before `first`, by slot.
    fn usual(&self, form: FormIx, first: Period) -> UsualOf {
        if let Some(usual) = self.usual.borrow().get(&(form, first)) {
            return usual.clone();
        }
        let before = (-USUAL_PERIODS..0).map(|n| Span::of(first.plus(n)));
        let sheets: Series = before.flat_map(|span| self.sheets(form, span).to_vec()).collect();
        let usual = self.engine.usual_of(form, first, &sheets, self.when);
        self.usual.borrow_mut().insert((form, first), (usual.clone(), sheets.clone()));
        (usual, sheets)
    }

    /// The form's sheet of a bundle.
    pub(super) fn sheet(&self, form: FormIx, bundle: Period) -> Arc<Sheet> {
        let make = || self.engine.sheet_of(form, bundle, self.when);
        self.sheets.borrow_mut().entry((form, bundle)).or_insert_with(make).clone()
    }

    /// Every sheet looked at up to now.
    pub(super) fn each_sheet(&self, mut each: impl FnMut(&Sheet)) {
        self.sheets.borrow().values().for_each(|sheet| each(sheet));
    }

    /// The form's sheets that together hold its periods inside a span.
    pub(super) fn sheets(&self, form: FormIx, span: Span) -> Series {
        if let Some(series) = self.series.borrow().get(&(form, span)) {
            return series.clone();
        }
        let kind = self.engine.catalogue.forms[form.at()].period_type;
        let bundles = bundles(kind, span).into_iter();
        let series: Series = bundles.map(|bundle| self.sheet(form, bundle)).collect();
        self.series.borrow_mut().insert((form, span), series.clone());
        series
    }

    /// Who is in which row over some days.
    pub(super) fn roster(&self, scope: Scope, dims: &Dims, days: (Date, Date)) -> Arc<Roster> {
        let mut kept = self.rosters.borrow_mut();
        let same = |(one, _): &&(RosterAsked, Arc<Roster>)| {
            one.0 == scope && one.2 == days && one.1 == *dims
        };
        if let Some((_, roster)) = kept.iter().find(same) {
            return roster.clone();
        }
        let roster = self.engine.roster(scope, dims, self.when.map, days);
        kept.push(((scope, dims.clone(), days), roster.clone()));
        roster
    }

    /// How many working days of its calendar the unit is open on, from `first` to `last`.
    pub(super) fn working_days(&self, unit: UnitIx, days: (Date, Date)) -> u64 {
        let engine = &self.engine;
        let mut kept = self.working.borrow_mut();
        let counted = kept
            .entry(days)
            .or_insert_with(|| engine.plans.working_days(engine.organisation, days));
        counted.of(engine.organisation, unit, days)
    }

    /// What the slot's reports of a sheet come to in a line.
    pub(super) fn read(&self, sheet: &Sheet, line: usize, slot: Slot) -> Got {
        let (chunk, place) = Sheet::place(slot);
        let line = &sheet.lines(&self.engine, self.when, chunk)[line];
        let mut got = Got {
            asked: u32::from(line.asked[place]),
            owed: u32::from(line.owed[place]),
            ..Got::default()
        };
        if let Some(given) = &line.given {
            got.answered = u32::from(given.answered[place]);
            got.not_applicable = u32::from(given.not_applicable[place]);
            got.numbers = u32::from(given.numbers[place]);
            got.sum = given.sum.at(place);
            got.working = given.working.as_ref().map_or(0, |working| working.at(place));
            got.last = given.newest(place);
        }
        got
    }

    /// The same of those periods of the sheet for which `counts` says yes to the duty day, one by one.
    pub(super) fn read_some(
        &self,
        sheet: &Sheet,
        line: usize,
        unit: UnitIx,
        counts: impl Fn(Date) -> bool,
    ) -> Got {
        let mut got = Got::default();
        let Some(slot) = sheet.slots.slot(unit) else { return got };
        let element = self.engine.catalogue.forms[sheet.form.at()].lines[line].element;
        let column = self.engine.column(sheet.form, element);
        for (at, (period, plan)) in sheet.periods.iter().zip(&sheet.plans).enumerate() {
            let Some(day) = self.engine.organisation.duty_day(unit, *period) else { continue };
            if !counts(day) {
                continue;
            }
            let asked = u32::from(plan.asked[line][slot as usize]);
            got.asked += asked;
            if at >= sheet.ended {
                continue;
            }
            got.owed += asked;
            let late = if self.when.now > plan.late_after(slot) { asked } else { 0 };
            got.late += late;
            let block = self.engine.block(sheet.form, *period, self.when.past);
            let (Some(block), Some(column)) = (block, column) else { continue };
            let value = block.value(column, slot);
            for (_, report) in block.histories(slot..slot + 1) {
                got.conflicts |= report.heads > 1 && value.number().is_some();
                got.restated |= report.changed.iter().any(|c| usize::from(*c) == column);
            }
            match value {
                Value::Missing => continue,
                Value::NotApplicable => {
                    got.not_applicable += asked;
                    got.late -= late;
                }
                Value::Number(n) => {
                    got.numbers += 1;
                    got.sum = got.sum.saturating_add(n);
                    if works_on(&self.engine, unit, *period) {
                        got.working = got.working.saturating_add(n);
                    }
                }
            }
            got.answered += asked;
            got.last = value;
        }
        got
    }
}
