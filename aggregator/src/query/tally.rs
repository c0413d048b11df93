//! F4 in columns: counting elements over sets of facilities and stretches of time.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::rc::Rc;
use std::sync::Arc;

use banyan_shared::catalogue::{
    Class, ElementIx, FormIx, KindIx, OverTime, OverUnits, Scope as ElementScope,
};
use banyan_shared::figures::{self, Cell, Reconciler, Reconciliation, Tally};
use banyan_shared::ids::Millis;
use banyan_shared::organisation::UnitIx;
use banyan_shared::period::{Date, Period, PeriodType, Span};
use banyan_shared::report::Value;

use super::Engine;
use super::plan::FormMap;
use super::request::Dims;
use super::sets::{Group, Key, Roster, Scope, Wanderer};
use super::sheet::{Line, Sheet, USUAL_PERIODS, Usual, bundle_type, works_on};
use crate::cube::{BlockRef, Slot};

/// The flag of a figure some report of which stands in several versions.
pub(super) const CONFLICTS: &str = "conflicts";

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

/// What was counted of one element for one row.
#[derive(Clone, Debug, Default)]
pub(super) struct Count {
    pub(super) tally: Tally,
    /// For each kind asked: reports owed, less "not applicable", and numbers.
    kinds: BTreeMap<KindIx, (u64, u64)>,
    givers: Vec<UnitIx>,
    expected_of: Vec<UnitIx>,
    /// Stocks: the newest value of each unit.
    stock: Vec<(UnitIx, Date, KindIx, Value)>,
    pub(super) flags: BTreeSet<String>,
}

/// The rows' figures.
pub(super) type Counts = BTreeMap<Key, BTreeMap<ElementIx, Count>>;

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
        if later.last.is_answer() {
            self.last = later.last;
        }
    }

    pub(super) fn of(line: &Line, place: usize) -> Got {
        Got {
            asked: u32::from(line.asked[place]),
            owed: u32::from(line.owed[place]),
            answered: u32::from(line.answered[place]),
            not_applicable: u32::from(line.not_applicable[place]),
            numbers: u32::from(line.numbers[place]),
            late: 0,
            sum: line.sum[place],
            working: line.working.as_ref().map_or(0, |working| working[place]),
            last: line.last.as_ref().map_or(Value::Missing, |last| last[place]),
        }
    }
}

/// One question: the engine, its moment, and the sheets and rosters it has looked at.
pub(super) struct Asked<'e> {
    pub(super) engine: Engine<'e>,
    pub(super) when: When,
    sheets: RefCell<HashMap<(FormIx, Period), Arc<Sheet>>>,
    rosters: RefCell<Vec<(RosterAsked, Arc<Roster>)>>,
    dense: RefCell<HashMap<DenseAsked, Rc<[Got]>>>,
    usual: RefCell<HashMap<(FormIx, Period), Arc<Usual>>>,
}

type RosterAsked = (Scope, Dims, (Date, Date));

/// A group, by the place in memory it keeps while the question lasts; a form and line; a span.
type DenseAsked = (usize, FormIx, usize, Span);

impl<'e> Asked<'e> {
    pub(super) fn new(engine: Engine<'e>, when: When) -> Asked<'e> {
        Asked {
            engine,
            when,
            sheets: RefCell::default(),
            rosters: RefCell::default(),
            dense: RefCell::default(),
            usual: RefCell::default(),
        }
    }

    /// What each unit of a group, which must be of a roster of this question, gave in a line over a span.
    pub(super) fn dense(&self, group: &Group, form: FormIx, line: usize, span: Span) -> Rc<[Got]> {
        let key = (std::ptr::from_ref(group) as usize, form, line, span);
        if let Some(dense) = self.dense.borrow().get(&key) {
            return dense.clone();
        }
        let sheets = self.sheets(form, span);
        let slots = self.engine.slots(form);
        let of = |unit: &UnitIx| {
            let mut got = Got::default();
            if let Some(slot) = slots.slot(*unit) {
                for sheet in &sheets {
                    got.then(self.read(sheet, line, slot));
                }
            }
            got
        };
        let dense: Rc<[Got]> = group.units.iter().map(of).collect();
        self.dense.borrow_mut().insert(key, dense.clone());
        dense
    }

    /// Forgets what was read of the groups of a row: no other row has them.
    pub(super) fn forget_row(&self) {
        self.dense.borrow_mut().clear();
    }

    /// What a form's lines came to in the periods before `first`, by slot.
    pub(super) fn usual(&self, form: FormIx, first: Period) -> Arc<Usual> {
        if let Some(usual) = self.usual.borrow().get(&(form, first)) {
            return usual.clone();
        }
        let before = (-USUAL_PERIODS..0).map(|n| Span::of(first.plus(n)));
        let sheets: Vec<Arc<Sheet>> = before.flat_map(|span| self.sheets(form, span)).collect();
        let usual = self.engine.usual_of(form, first, sheets, self.when);
        self.usual.borrow_mut().insert((form, first), usual.clone());
        usual
    }

    /// The form's sheet of a bundle.
    pub(super) fn sheet(&self, form: FormIx, bundle: Period) -> Arc<Sheet> {
        let make = || self.engine.sheet_of(form, bundle, self.when);
        self.sheets.borrow_mut().entry((form, bundle)).or_insert_with(make).clone()
    }

    /// The form's sheets that together hold its periods inside a span.
    pub(super) fn sheets(&self, form: FormIx, span: Span) -> Vec<Arc<Sheet>> {
        let kind = self.engine.catalogue.forms[form.at()].period_type;
        bundles(kind, span).into_iter().map(|bundle| self.sheet(form, bundle)).collect()
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

    /// What the slot's reports of a sheet come to in a line.
    pub(super) fn read(&self, sheet: &Sheet, line: usize, slot: Slot) -> Got {
        let (chunk, place) = Sheet::place(slot);
        Got::of(&sheet.chunk(&self.engine, self.when, chunk).lines[line], place)
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

/// The bundles that together hold a form's periods inside a span.
pub(super) fn bundles(form: PeriodType, span: Span) -> Vec<Period> {
    let grain = bundle_type(form, PeriodType::Month);
    if grain == form {
        return span.parts(form).collect();
    }
    // Whole months, and the days before and after them.
    let months: Vec<Period> = span.parts(grain).collect();
    let (Some(first), Some(last)) = (months.first(), months.last()) else {
        return span.parts(form).collect();
    };
    let (begin, end) = (first.first_day(), last.last_day());
    let days = || span.parts(form);
    let before = days().take_while(|day| day.first_day() < begin);
    let after = days().filter(|day| day.first_day() > end);
    before.chain(months.iter().copied()).chain(after).collect()
}

/// A span's first and last day.
pub(super) fn days_of(span: Span) -> (Date, Date) {
    (span.first_day(), span.last_day())
}

impl<'e> Engine<'e> {
    /// Counts `wanted` elements over `span`, for every row of the set.
    pub(super) fn count(
        &self,
        asked: &Asked<'_>,
        scope: Scope,
        dims: &Dims,
        span: Span,
        wanted: &[bool],
    ) -> Counts {
        let roster = asked.roster(scope, dims, days_of(span));
        let end = (span.last_day(), span.last_day());
        let mut counts = Counts::new();
        for form in self.form_indices() {
            let model = &self.catalogue.forms[form.at()];
            let lines = |stock: bool| -> Vec<usize> {
                let of = |line: &&banyan_shared::catalogue::Line| {
                    wanted[line.element.at()]
                        && self.catalogue.elements[line.element.at()].over_time.is_stock() == stock
                };
                let lines = model.lines.iter().enumerate();
                lines.filter(|(_, line)| of(line)).map(|(at, _)| at).collect()
            };
            let (flows, stocks) = (lines(false), lines(true));
            if flows.is_empty() && stocks.is_empty() {
                continue;
            }
            if span.parts(model.period_type).len() == 0 {
                let roster = asked.roster(scope, dims, end);
                self.note_longer(asked, &roster, span, form, wanted, &mut counts);
                // A stock asked rarely may still stand from before.
                self.count_stocks(asked, &roster, (form, span), &[], &stocks, &mut counts);
                continue;
            }
            let sheets = asked.sheets(form, span);
            self.count_flows(asked, &roster, (form, span), &sheets, &flows, &mut counts);
            if !stocks.is_empty() {
                let last = asked.roster(scope, dims, end);
                self.count_stocks(asked, &last, (form, span), &sheets, &stocks, &mut counts);
            }
        }
        for row in counts.values_mut() {
            for (element, count) in row.iter_mut() {
                self.finish(*element, count);
            }
        }
        counts
    }

    /// A form's block, as it stood at `past` where given.
    pub(super) fn block(
        &self,
        form: FormIx,
        period: Period,
        past: Option<Millis>,
    ) -> Option<BlockRef<'e>> {
        let store = self.cube.form(&self.catalogue.forms[form.at()].code)?;
        // What was made for this question; the next one begins anew.
        let Some(at) = past else { return self.cube.block_at(store, period, None) };
        let key = (form, period, at);
        if let Some(block) = self.plans.past_block(&key) {
            return Some(BlockRef::Loaded(block));
        }
        let block = self.cube.block_at(store, period, past)?;
        if let BlockRef::Loaded(made) = &block {
            self.plans.keep_past_block(key, made.clone());
        }
        Some(block)
    }

    /// A form whose periods are all longer than the span: notes for whom it is asked all the same.
    fn note_longer(
        &self,
        asked: &Asked<'_>,
        roster: &Roster,
        span: Span,
        form: FormIx,
        wanted: &[bool],
        counts: &mut Counts,
    ) {
        let model = &self.catalogue.forms[form.at()];
        let sheet = asked.sheet(form, Period::containing(model.period_type, span.last_day()));
        let plan = &sheet.plans[0];
        let flag = figures::period_flags(model, span);
        for (at, line) in model.lines.iter().enumerate().filter(|(_, l)| wanted[l.element.at()]) {
            for (key, groups) in &roster.rows {
                let is_asked = |unit: &UnitIx| {
                    sheet.slots.slot(*unit).is_some_and(|slot| plan.asked[at][slot as usize] == 1)
                };
                if groups.iter().any(|group| group.units.iter().any(is_asked)) {
                    let count = counts.entry(*key).or_default().entry(line.element).or_default();
                    count.tally.too_fine = true;
                    count.flags.extend(flag.clone());
                }
            }
        }
    }

    fn count_flows(
        &self,
        asked: &Asked<'_>,
        roster: &Roster,
        (form, span): (FormIx, Span),
        sheets: &[Arc<Sheet>],
        lines: &[usize],
        counts: &mut Counts,
    ) {
        let model = &self.catalogue.forms[form.at()];
        if lines.is_empty() {
            return;
        }
        let map = self.slots(form);
        let flag = figures::period_flags(model, span);
        let mut each = |key: &Key, list: Vec<Count>| {
            for (count, line) in list.into_iter().zip(lines) {
                add(counts, *key, model.lines[*line].element, count, flag.clone());
            }
        };
        for (key, groups) in &roster.rows {
            let mut list = vec![Count::default(); lines.len()];
            for group in groups.iter().filter(|group| model.kinds.contains(&group.kind)) {
                self.count_group(asked, group, &map, sheets, lines, &mut list);
            }
            each(key, list);
        }
        for wanderer in &roster.wanderers {
            if map.slot(wanderer.unit).is_none() {
                continue;
            }
            for key in keys_of(wanderer) {
                let mut list = vec![Count::default(); lines.len()];
                for (count, line) in list.iter_mut().zip(lines) {
                    for sheet in sheets {
                        for stay in wanderer.stays.iter().filter(|stay| stay.keys.contains(&key)) {
                            let here = |day: Date| stay.first <= day && day <= stay.last;
                            let got = asked.read_some(sheet, *line, wanderer.unit, here);
                            count.take(wanderer.unit, stay.kind, got);
                        }
                    }
                }
                each(&key, list);
            }
        }
    }

    /// Adds up steady units of one kind, line by line.
    fn count_group(
        &self,
        asked: &Asked<'_>,
        group: &Group,
        map: &FormMap,
        sheets: &[Arc<Sheet>],
        lines: &[usize],
        list: &mut [Count],
    ) {
        #[derive(Clone, Copy, Default)]
        struct Sum {
            asked: u64,
            owed: u64,
            not_applicable: u64,
            numbers: u64,
            sum: u128,
        }
        let mut sums = vec![Sum::default(); lines.len()];
        // By line: numbers, and reports expected, of the unit at hand.
        let mut unit_numbers = vec![0u32; lines.len()];
        let mut unit_expected = vec![0u32; lines.len()];
        let mut conflicts = false;
        for unit in &group.units {
            let Some(slot) = map.slot(*unit) else { continue };
            let (number, place) = Sheet::place(slot);
            unit_numbers.fill(0);
            unit_expected.fill(0);
            for sheet in sheets {
                let chunk = sheet.chunk(&asked.engine, asked.when, number);
                conflicts |= chunk.reports.conflicts[place] > 0;
                for (at, line) in lines.iter().enumerate() {
                    let line = &chunk.lines[*line];
                    let numbers = line.numbers[place];
                    let na = line.not_applicable[place];
                    let owed = line.owed[place];
                    let sum = &mut sums[at];
                    sum.asked += u64::from(line.asked[place]);
                    sum.owed += u64::from(owed);
                    sum.not_applicable += u64::from(na);
                    sum.numbers += u64::from(numbers);
                    sum.sum += u128::from(line.sum[place]);
                    unit_numbers[at] += u32::from(numbers);
                    unit_expected[at] += u32::from(owed - na);
                }
            }
            for (at, count) in list.iter_mut().enumerate() {
                if unit_numbers[at] > 0 {
                    count.givers.push(*unit);
                }
                if unit_expected[at] > 0 {
                    count.expected_of.push(*unit);
                }
            }
        }
        for (count, sum) in list.iter_mut().zip(sums) {
            let tally = &mut count.tally;
            tally.sum += sum.sum;
            tally.reports += sum.numbers;
            tally.not_applicable += sum.not_applicable;
            tally.expected += sum.owed - sum.not_applicable;
            tally.asked += sum.asked - sum.not_applicable;
            let kind = count.kinds.entry(group.kind).or_default();
            kind.0 += sum.asked - sum.not_applicable;
            kind.1 += sum.numbers;
            if conflicts && sum.numbers > 0 {
                count.flags.insert(CONFLICTS.to_owned());
            }
        }
        // Whether anything is overdue is asked only where nobody gave a number.
        for (count, line) in list.iter_mut().zip(lines) {
            if count.tally.reports == 0 && count.tally.asked > 0 {
                count.tally.overdue += self.overdue(asked, &group.units, map, sheets, *line);
            }
        }
    }

    /// Form-periods of the units that ask a line, are not answered, and whose time has passed.
    fn overdue(
        &self,
        asked: &Asked<'_>,
        units: &[UnitIx],
        map: &FormMap,
        sheets: &[Arc<Sheet>],
        line: usize,
    ) -> u64 {
        let mut late = 0;
        for sheet in sheets {
            for (at, plan) in sheet.plans[..sheet.ended].iter().enumerate() {
                if plan.all_late(asked.when.now) == Some(false) {
                    continue;
                }
                let element = self.catalogue.forms[sheet.form.at()].lines[line].element;
                let column = self.column(sheet.form, element);
                let block = self.block(sheet.form, sheet.periods[at], asked.when.past);
                for slot in units.iter().filter_map(|unit| map.slot(*unit)) {
                    let answered = || match (&block, column) {
                        (Some(block), Some(column)) => block.value(column, slot).is_answer(),
                        _ => false,
                    };
                    late += u64::from(
                        plan.asked[line][slot as usize] == 1
                            && asked.when.now > plan.late_after(slot)
                            && !answered(),
                    );
                }
            }
        }
        late
    }

    fn count_stocks(
        &self,
        asked: &Asked<'_>,
        last: &Roster,
        (form, span): (FormIx, Span),
        sheets: &[Arc<Sheet>],
        lines: &[usize],
        counts: &mut Counts,
    ) {
        let model = &self.catalogue.forms[form.at()];
        let map = self.slots(form);
        let flag = figures::period_flags(model, span);
        for (key, groups) in &last.rows {
            for &line in lines {
                let element = model.lines[line].element;
                let over_time = self.catalogue.elements[element.at()].over_time;
                let mut count = Count::default();
                for group in groups {
                    let mut list = vec![Count::default()];
                    self.count_group(asked, group, &map, sheets, &[line], &mut list);
                    for one in list {
                        join(&mut count, one);
                    }
                    let slots =
                        group.units.iter().filter_map(|unit| Some((*unit, map.slot(*unit)?)));
                    let mut open: Vec<(UnitIx, Slot)> = slots.collect();
                    for sheet in sheets.iter().rev() {
                        open.retain(|(unit, slot)| {
                            let value = asked.read(sheet, line, *slot).last;
                            if value.is_answer() {
                                let day = sheet.bundle.last_day();
                                count.stock.push((*unit, day, group.kind, value));
                            }
                            !value.is_answer()
                        });
                    }
                    if let OverTime::Latest { carry_months } = over_time {
                        for period in carried(model.period_type, span, carry_months) {
                            if open.is_empty() {
                                break;
                            }
                            let sheet = asked.sheet(form, period);
                            open.retain(|(unit, slot)| {
                                let value = asked.read(&sheet, line, *slot).last;
                                if value.is_answer() {
                                    let day = period.last_day();
                                    count.stock.push((*unit, day, group.kind, value));
                                }
                                !value.is_answer()
                            });
                        }
                    }
                }
                // After a last "not applicable", here or on another kind's form, earlier numbers are no value:
                // what is overdue tells the state.
                let valued = count.stock.iter().any(|(unit, .., value)| {
                    let spells = &self.organisation.info(*unit).spells;
                    value.number().is_some() && spells.iter().all(|s| s.kind == spells[0].kind)
                });
                if count.tally.reports > 0 && !valued {
                    for group in groups {
                        count.tally.overdue +=
                            self.overdue(asked, &group.units, &map, sheets, line);
                    }
                }
                // The sum is of the newest values only.
                count.tally.sum = 0;
                count.givers.clear();
                count.kinds.values_mut().for_each(|kind| kind.1 = 0);
                add(counts, *key, element, count, flag.clone());
            }
        }
    }

    /// Adds up what the forms gave for one row and element.
    fn finish(&self, element: ElementIx, count: &mut Count) {
        let stock = self.catalogue.elements[element.at()].over_time.is_stock();
        if stock {
            // A unit that changed kind has two forms: its newest value counts.
            count.stock.sort_unstable_by_key(|(unit, day, _, _)| (*unit, *day));
            let mut newest: Vec<(UnitIx, Date, KindIx, Value)> =
                Vec::with_capacity(count.stock.len());
            for value in count.stock.drain(..) {
                match newest.last_mut() {
                    Some(last) if last.0 == value.0 => *last = value,
                    _ => newest.push(value),
                }
            }
            for (unit, _, kind, value) in newest {
                let Some(n) = value.number() else { continue };
                count.tally.sum += u128::from(n);
                count.givers.push(unit);
                count.kinds.entry(kind).or_default().1 += 1;
            }
        }
        let facilities = |units: &mut Vec<UnitIx>| {
            units.sort_unstable();
            units.dedup();
            let facility = |unit: &&UnitIx| self.organisation.class(**unit) == Class::Facility;
            (units.len() as u64, units.iter().filter(facility).count() as u64)
        };
        (count.tally.givers, count.tally.facilities) = facilities(&mut count.givers);
        (_, count.tally.facilities_expected) = facilities(&mut count.expected_of);
        if count.tally.givers > 0 {
            for (kind, (owed, numbers)) in &count.kinds {
                if *owed > 0 && *numbers == 0 {
                    count.flags.insert(format!("absent:{}", self.catalogue.kinds[kind.at()].code));
                }
            }
        }
    }

    /// The reconciliation of the networks' sums to the area's total, for each of `elements` (F5).
    pub(super) fn reconcile(
        &self,
        asked: &Asked<'_>,
        area: Scope,
        networks: &Dims,
        span: Span,
        elements: &[ElementIx],
    ) -> Vec<(ElementIx, Reconciliation)> {
        let mut out = Vec::new();
        for &element in elements {
            let model = &self.catalogue.elements[element.at()];
            if model.scope == ElementScope::Area || model.over_units == OverUnits::None {
                continue;
            }
            let mut sum = Reconciler::default();
            self.reconcile_cells(asked, area, networks, span, element, &mut |_, cell| {
                sum.add(cell)
            });
            out.push((element, sum.finish()));
        }
        out
    }

    /// The cells of a reconciliation: what each unit gave of `element` while its place in the area and its
    /// groups did not change.
    pub(super) fn reconcile_cells(
        &self,
        asked: &Asked<'_>,
        area: Scope,
        networks: &Dims,
        span: Span,
        element: ElementIx,
        each: &mut impl FnMut(UnitIx, Cell),
    ) {
        let stock = self.catalogue.elements[element.at()].over_time.is_stock();
        let days = if stock { (span.last_day(), span.last_day()) } else { days_of(span) };
        let inside = asked.roster(area, &Dims::default(), days);
        let groups = asked.roster(area, networks, days);
        for (unit, place) in places(&inside, &groups) {
            match place {
                Place::Steady { kind, in_area, groups } => {
                    if let Some(value) = self.value_of(asked, element, unit, span, |_| true) {
                        each(unit, Cell { facility: unit.0, kind, in_area, groups, value });
                    }
                }
                Place::Wanders(cuts) => {
                    for (first, last, kind, in_area, groups) in cuts {
                        let here = |day: Date| first <= day && day <= last;
                        if let Some(value) = self.value_of(asked, element, unit, span, here) {
                            each(unit, Cell { facility: unit.0, kind, in_area, groups, value });
                        }
                    }
                }
            }
        }
    }

    /// A unit's figure of an element over a span: a flow's sum over the periods whose duty day `counts`, a
    /// stock's newest value. None if it gave no number.
    fn value_of(
        &self,
        asked: &Asked<'_>,
        element: ElementIx,
        unit: UnitIx,
        span: Span,
        counts: impl Fn(Date) -> bool,
    ) -> Option<u64> {
        let over_time = self.catalogue.elements[element.at()].over_time;
        let mut got = Got::default();
        let mut newest: Option<(Date, Value)> = None;
        for form in self.form_indices() {
            let model = &self.catalogue.forms[form.at()];
            let Some(line) = model.line_of(element) else { continue };
            let Some(slot) = self.slots(form).slot(unit) else { continue };
            let whole = counts(span.first_day()) && counts(span.last_day());
            let mut bundles = bundles(model.period_type, span);
            if let OverTime::Latest { carry_months } = over_time {
                bundles.extend(carried(model.period_type, span, carry_months));
            }
            for bundle in bundles {
                let sheet = asked.sheet(form, bundle);
                let one = if over_time.is_stock() || whole {
                    asked.read(&sheet, line, slot)
                } else {
                    asked.read_some(&sheet, line, unit, &counts)
                };
                if one.last.is_answer() && newest.is_none_or(|(day, _)| day <= bundle.last_day()) {
                    newest = Some((bundle.last_day(), one.last));
                }
                got.then(one);
            }
        }
        if over_time.is_stock() {
            return newest.and_then(|(_, value)| value.number());
        }
        (got.numbers > 0).then_some(got.sum)
    }

    /// The cube's column of an element on a form.
    pub(super) fn column(&self, form: FormIx, element: ElementIx) -> Option<usize> {
        let store = self.cube.form(&self.catalogue.forms[form.at()].code)?;
        store.column(self.catalogue.elements[element.at()].code.as_str())
    }

    /// Every form.
    pub(super) fn form_indices(&self) -> impl Iterator<Item = FormIx> + use<> {
        (0u16..).take(self.catalogue.forms.len()).map(FormIx)
    }

    /// The form's slots.
    pub(super) fn slots(&self, form: FormIx) -> Arc<FormMap> {
        self.plans.map(self.catalogue, self.organisation, self.cube, form)
    }
}

/// How a unit stands to an area and its groups over some days.
enum Place {
    Steady {
        kind: KindIx,
        in_area: bool,
        groups: u32,
    },
    /// First and last day, kind, whether in the area, in how many groups.
    Wanders(Vec<(Date, Date, KindIx, bool, u32)>),
}

/// How every unit of the area or of a group stands to both.
fn places(inside: &Roster, groups: &Roster) -> BTreeMap<UnitIx, Place> {
    let mut out: BTreeMap<UnitIx, Place> = BTreeMap::new();
    for (roster, area) in [(inside, true), (groups, false)] {
        for group in roster.rows.values().flatten() {
            for unit in &group.units {
                let place = out.entry(*unit).or_insert(Place::Steady {
                    kind: group.kind,
                    in_area: false,
                    groups: 0,
                });
                if let Place::Steady { in_area, groups, .. } = place {
                    *in_area |= area;
                    *groups += u32::from(!area);
                }
            }
        }
    }
    let wander: BTreeSet<UnitIx> =
        inside.wanderers.iter().chain(&groups.wanderers).map(|w| w.unit).collect();
    for unit in wander {
        let of = |roster: &Roster| roster.wanderers.iter().find(|w| w.unit == unit).cloned();
        let (area, groups) = (of(inside), of(groups));
        let steady = match out.get(&unit) {
            Some(Place::Steady { kind, in_area, groups }) => Some((*kind, *in_area, *groups)),
            _ => None,
        };
        let mut days: BTreeSet<Date> = BTreeSet::new();
        let stays = || area.iter().chain(&groups).flat_map(|w| &w.stays);
        for stay in stays() {
            days.insert(stay.first);
            days.insert(stay.last.plus(1));
        }
        // Days on which neither wanders but one is steady lie outside every stay.
        if steady.is_some() {
            days.insert(Date::MIN);
            days.insert(Date::MAX);
        }
        let days: Vec<Date> = days.into_iter().collect();
        let mut cuts = Vec::new();
        for pair in days.windows(2) {
            let (first, last) = (pair[0], pair[1].plus(-1));
            let at = |w: &Option<Wanderer>| {
                let stays = w.iter().flat_map(|w| &w.stays);
                stays.into_iter().find(|s| s.first <= first && first <= s.last).cloned()
            };
            let (a, g) = (at(&area), at(&groups));
            let kind = a.as_ref().or(g.as_ref()).map(|stay| stay.kind);
            let Some(kind) = kind.or(steady.map(|(kind, _, _)| kind)) else { continue };
            let in_area = a.is_some() || (area.is_none() && steady.is_some_and(|(_, is, _)| is));
            let count = match (&g, &groups) {
                (Some(stay), _) => stay.keys.len() as u32,
                (None, Some(_)) => 0,
                (None, None) => steady.map_or(0, |(_, _, n)| n),
            };
            cuts.push((first, last, kind, in_area, count));
        }
        out.insert(unit, Place::Wanders(cuts));
    }
    out
}

impl Count {
    /// Takes in what one unit gave.
    fn take(&mut self, unit: UnitIx, kind: KindIx, got: Got) {
        let tally = &mut self.tally;
        tally.sum += u128::from(got.sum);
        tally.reports += u64::from(got.numbers);
        tally.not_applicable += u64::from(got.not_applicable);
        tally.expected += u64::from(got.owed - got.not_applicable);
        tally.asked += u64::from(got.asked - got.not_applicable);
        tally.overdue += u64::from(got.late);
        let entry = self.kinds.entry(kind).or_default();
        entry.0 += u64::from(got.asked - got.not_applicable);
        entry.1 += u64::from(got.numbers);
        if got.numbers > 0 {
            self.givers.push(unit);
        }
        if got.owed > got.not_applicable {
            self.expected_of.push(unit);
        }
    }
}

/// The rows a wanderer is ever in.
fn keys_of(wanderer: &Wanderer) -> BTreeSet<Key> {
    wanderer.stays.iter().flat_map(|stay| stay.keys.iter().copied()).collect()
}

/// The periods before the span's own whose values a stock asked rarely may still take, newest first: at most
/// so many months old, the value's own last day against the span's.
pub(super) fn carried(kind: PeriodType, span: Span, carry_months: u16) -> Vec<Period> {
    let month = Period::containing(PeriodType::Month, span.last_day());
    let oldest = month.plus(-i32::from(carry_months)).first_day();
    let mut last = Period::containing(kind, span.last_day());
    if last.last_day() > span.last_day() {
        last = last.plus(-1);
    }
    std::iter::successors(Some(last), |period| Some(period.plus(-1)))
        .take_while(move |period| period.last_day() >= oldest)
        .filter(|period| !span.contains(*period))
        .collect()
}

/// Adds a count of the same row and element.
fn join(count: &mut Count, one: Count) {
    let (tally, more) = (&mut count.tally, one.tally);
    tally.sum += more.sum;
    tally.reports += more.reports;
    tally.not_applicable += more.not_applicable;
    tally.expected += more.expected;
    tally.asked += more.asked;
    tally.overdue += more.overdue;
    for (kind, (owed, numbers)) in one.kinds {
        let entry = count.kinds.entry(kind).or_default();
        entry.0 += owed;
        entry.1 += numbers;
    }
    count.givers.extend(one.givers);
    count.expected_of.extend(one.expected_of);
    count.stock.extend(one.stock);
    count.flags.extend(one.flags);
}

fn add(counts: &mut Counts, key: Key, element: ElementIx, one: Count, flag: Option<String>) {
    if one.tally.asked == 0
        && one.tally.reports == 0
        && one.tally.not_applicable == 0
        && one.stock.is_empty()
    {
        return;
    }
    let count = counts.entry(key).or_default().entry(element).or_default();
    join(count, one);
    count.flags.extend(flag);
}
