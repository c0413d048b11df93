//! F4 in columns: counting elements over sets of slots and stretches of time.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;

use banyan_shared::catalogue::{Class, ElementIx, FormIx, KindIx, OverTime, Scope as ElementScope};
use banyan_shared::figures::{self, Cell, Reconciler, Reconciliation, Tally};
use banyan_shared::ids::Millis;
use banyan_shared::organisation::UnitIx;
use banyan_shared::period::{Date, Period, Span};
use banyan_shared::report::Value;

use super::Engine;
use super::plan::{FormMap, Plan};
use super::request::Dims;
use super::sets::{Key, Part, Parts, Scope};
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

/// One period of a form, with everything that is read of it.
struct Sheet<'a> {
    plan: Arc<Plan>,
    parts: Arc<Parts>,
    /// None where nothing was accepted, and for a period that has not ended.
    block: Option<crate::cube::BlockRef<'a>>,
    ended: bool,
}

/// The rows' figures.
pub(super) type Counts = BTreeMap<Key, BTreeMap<ElementIx, Count>>;

/// The slots of a row in one form, all its parts together, in a dense local order.
struct Local {
    ranges: Vec<Range<Slot>>,
    starts: Vec<usize>,
    len: usize,
}

impl Local {
    fn new<'a>(parts: impl Iterator<Item = &'a Part>) -> Local {
        let mut all: Vec<Range<Slot>> =
            parts.flat_map(|part| part.ranges.iter().cloned()).collect();
        all.sort_unstable_by_key(|range| (range.start, range.end));
        let mut ranges: Vec<Range<Slot>> = Vec::new();
        for range in all {
            match ranges.last_mut() {
                Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
                _ => ranges.push(range),
            }
        }
        let mut len = 0;
        let starts = ranges
            .iter()
            .map(|range| {
                let start = len;
                len += range.len();
                start
            })
            .collect();
        Local { ranges, starts, len }
    }

    /// Where a range that lies in these slots begins.
    fn offset(&self, range: &Range<Slot>) -> usize {
        let at = self.ranges.partition_point(|mine| mine.end <= range.start);
        self.starts[at] + (range.start - self.ranges[at].start) as usize
    }

    fn slots(&self) -> impl Iterator<Item = Slot> {
        self.ranges.iter().cloned().flatten()
    }
}

impl<'e> Engine<'e> {
    /// Counts `wanted` elements over `span`, for every row of the set.
    pub(super) fn count(
        &self,
        scope: Scope,
        dims: &Dims,
        span: Span,
        wanted: &[bool],
        when: When,
    ) -> Counts {
        let mut counts = Counts::new();
        for form in self.form_indices() {
            let model = &self.catalogue.forms[form.at()];
            if !model.lines.iter().any(|line| wanted[line.element.at()]) {
                continue;
            }
            if span.parts(model.period_type).len() == 0 {
                self.note_longer(scope, dims, span, form, wanted, when, &mut counts);
                continue;
            }
            let sheets: Vec<Sheet<'_>> = span
                .parts(model.period_type)
                .map(|period| self.sheet(scope, dims, form, period, when))
                .collect();
            self.count_flows(form, span, &sheets, wanted, when, &mut counts);
            let stock = |line: &banyan_shared::catalogue::Line| {
                wanted[line.element.at()]
                    && self.catalogue.elements[line.element.at()].over_time.is_stock()
            };
            if model.lines.iter().any(stock) {
                let last = self.parts(scope, dims, when.map, form, day_of(span));
                self.count_stocks(form, span, &sheets, &last, wanted, when, &mut counts);
            }
        }
        for row in counts.values_mut() {
            for (element, count) in row.iter_mut() {
                self.finish(*element, count);
            }
        }
        counts
    }

    fn sheet(
        &self,
        scope: Scope,
        dims: &Dims,
        form: FormIx,
        period: Period,
        when: When,
    ) -> Sheet<'e> {
        let map = self.plans.map(self.catalogue, self.organisation, self.cube, form);
        let plan = self.plans.plan(self.catalogue, self.organisation, &map, form, period);
        let ended = plan.ends <= when.now;
        let block = ended.then(|| self.block(form, period, when.past)).flatten();
        Sheet { parts: self.parts(scope, dims, when.map, form, period), plan, block, ended }
    }

    /// A form's block, as it stood at `past` where given.
    pub(super) fn block(
        &self,
        form: FormIx,
        period: Period,
        past: Option<Millis>,
    ) -> Option<crate::cube::BlockRef<'e>> {
        let store = self.cube.form(&self.catalogue.forms[form.at()].code)?;
        self.cube.block_at(store, period, past)
    }

    /// A form whose periods are all longer than the span: notes for whom it is asked all the same.
    #[allow(clippy::too_many_arguments)]
    fn note_longer(
        &self,
        scope: Scope,
        dims: &Dims,
        span: Span,
        form: FormIx,
        wanted: &[bool],
        when: When,
        counts: &mut Counts,
    ) {
        let model = &self.catalogue.forms[form.at()];
        let period = Period::containing(model.period_type, span.last_day());
        let map = self.plans.map(self.catalogue, self.organisation, self.cube, form);
        let plan = self.plans.plan(self.catalogue, self.organisation, &map, form, period);
        let parts = self.parts(scope, dims, when.map, form, day_of(span));
        let flag = figures::period_flags(model, span);
        for (at, line) in model.lines.iter().enumerate().filter(|(_, l)| wanted[l.element.at()]) {
            for part in &parts.0 {
                if asked_in(&plan.asked[at], part) > 0 {
                    let count =
                        counts.entry(part.key).or_default().entry(line.element).or_default();
                    count.tally.too_fine = true;
                    count.flags.extend(flag.clone());
                }
            }
        }
    }

    fn count_flows(
        &self,
        form: FormIx,
        span: Span,
        sheets: &[Sheet<'_>],
        wanted: &[bool],
        when: When,
        counts: &mut Counts,
    ) {
        let model = &self.catalogue.forms[form.at()];
        let keys: BTreeSet<Key> = distinct(sheets).flat_map(|parts| parts.keys()).collect();
        for key in keys {
            let local = Local::new(distinct(sheets).flat_map(|parts| parts.of(&key)));
            for (at, line) in model.lines.iter().enumerate() {
                let element = &self.catalogue.elements[line.element.at()];
                if !wanted[line.element.at()] || element.over_time.is_stock() {
                    continue;
                }
                let mut count = Count::default();
                let of = |sheet: &Sheet<'_>| sheet.parts.clone();
                let (numbers, expected) =
                    self.scan(form, at, &key, &local, sheets, of, when, &mut count);
                self.note_units(form, &local, &numbers, &expected, &mut count);
                add(counts, key, line.element, count, figures::period_flags(model, span));
            }
        }
    }

    /// Scans one line over all sheets: sums, expectations and, by local place, numbers and reports expected.
    #[allow(clippy::too_many_arguments)]
    fn scan(
        &self,
        form: FormIx,
        at: usize,
        key: &Key,
        local: &Local,
        sheets: &[Sheet<'_>],
        of: impl Fn(&Sheet<'_>) -> Arc<Parts>,
        when: When,
        count: &mut Count,
    ) -> (Vec<u16>, Vec<u16>) {
        let element = self.catalogue.forms[form.at()].lines[at].element;
        let column = self.column(form, element);
        let mut numbers = vec![0u16; local.len];
        let mut expected = vec![0u16; local.len];
        let now = when.now;
        for sheet in sheets {
            let asked = &sheet.plan.asked[at];
            let parts = of(sheet);
            for part in parts.of(key) {
                let kind = count.kinds.entry(part.kind).or_default();
                for range in &part.ranges {
                    let from = local.offset(range);
                    let mask = &asked[range.start as usize..range.end as usize];
                    let here = from..from + mask.len();
                    let mut owed: u64 = mask.iter().map(|one| u64::from(*one)).sum();
                    if sheet.ended {
                        for (total, one) in expected[here.clone()].iter_mut().zip(mask) {
                            *total += u16::from(*one);
                        }
                    }
                    let mut late = match (sheet.ended, sheet.plan.all_late(now)) {
                        (false, _) | (true, Some(false)) => 0,
                        (true, Some(true)) => owed,
                        (true, None) => late_in(&sheet.plan, mask, range, now),
                    };
                    if let (Some(block), Some(column)) = (&sheet.block, column) {
                        let scan = block.scan(column, range.start, &mut numbers[here.clone()]);
                        count.tally.sum += scan.sum;
                        count.tally.reports += scan.numbers;
                        count.tally.not_applicable += scan.not_applicable;
                        kind.1 += scan.numbers;
                        if scan.not_applicable > 0 {
                            for (slot, place) in range.clone().zip(here.clone()) {
                                if asked[slot as usize] == 1
                                    && block.value(column, slot) == Value::NotApplicable
                                {
                                    expected[place] -= 1;
                                    owed -= 1;
                                    late -= u64::from(now > sheet.plan.late_after(slot));
                                }
                            }
                        }
                    }
                    kind.0 += owed;
                    count.tally.asked += owed;
                    count.tally.overdue += late;
                }
            }
        }
        count.tally.expected += expected.iter().map(|n| u64::from(*n)).sum::<u64>();
        (numbers, expected)
    }

    /// Notes which units gave a number and which were expected to.
    fn note_units(
        &self,
        form: FormIx,
        local: &Local,
        numbers: &[u16],
        expected: &[u16],
        count: &mut Count,
    ) {
        let map = self.plans.map(self.catalogue, self.organisation, self.cube, form);
        for (slot, (number, expected)) in local.slots().zip(numbers.iter().zip(expected)) {
            if *number == 0 && *expected == 0 {
                continue;
            }
            let Some(unit) = map.units[slot as usize] else { continue };
            if *number > 0 {
                count.givers.push(unit);
            }
            if *expected > 0 {
                count.expected_of.push(unit);
            }
        }
    }

    #[allow(clippy::too_many_arguments)]
    fn count_stocks(
        &self,
        form: FormIx,
        span: Span,
        sheets: &[Sheet<'_>],
        last: &Arc<Parts>,
        wanted: &[bool],
        when: When,
        counts: &mut Counts,
    ) {
        let model = &self.catalogue.forms[form.at()];
        for key in last.keys() {
            let local = Local::new(last.of(&key).iter());
            for (at, line) in model.lines.iter().enumerate() {
                let element = &self.catalogue.elements[line.element.at()];
                if !wanted[line.element.at()] || !element.over_time.is_stock() {
                    continue;
                }
                let mut count = Count::default();
                let of = |_: &Sheet<'_>| last.clone();
                let (_, expected) = self.scan(form, at, &key, &local, sheets, of, when, &mut count);
                self.note_units(form, &local, &vec![0; local.len], &expected, &mut count);
                // The sum is of the newest values only.
                count.tally.sum = 0;
                count.kinds.values_mut().for_each(|kind| kind.1 = 0);
                self.newest_values(form, at, span, last.of(&key), when, &mut count);
                add(counts, key, line.element, count, figures::period_flags(model, span));
            }
        }
    }

    /// Finds the newest answered value of every unit of `parts` in the span (for `latest`, some months
    /// before it too).
    fn newest_values(
        &self,
        form: FormIx,
        at: usize,
        span: Span,
        parts: &[Part],
        when: When,
        count: &mut Count,
    ) {
        let model = &self.catalogue.forms[form.at()];
        let element = model.lines[at].element;
        let Some(column) = self.column(form, element) else { return };
        let map = self.plans.map(self.catalogue, self.organisation, self.cube, form);
        let over_time = self.catalogue.elements[element.at()].over_time;
        let mut open: Vec<(Slot, KindIx)> = parts
            .iter()
            .flat_map(|part| part.ranges.iter().cloned().flatten().map(|slot| (slot, part.kind)))
            .collect();
        for period in look_back(model.period_type, span, over_time) {
            if open.is_empty() {
                break;
            }
            if figures::ended_at(self.catalogue, period) > when.now {
                continue;
            }
            let Some(block) = self.block(form, period, when.past) else { continue };
            open.retain(|(slot, kind)| {
                let value = block.value(column, *slot);
                if !value.is_answer() {
                    return true;
                }
                if let Some(unit) = map.units[*slot as usize] {
                    count.stock.push((unit, period.last_day(), *kind, value));
                }
                false
            });
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
        area: Scope,
        networks: &Dims,
        span: Span,
        elements: &[ElementIx],
        when: When,
    ) -> Vec<(ElementIx, Reconciliation)> {
        let whole = Dims::default();
        let mut out = Vec::new();
        for &element in elements {
            let model = &self.catalogue.elements[element.at()];
            if model.scope == ElementScope::Area
                || model.over_units == banyan_shared::catalogue::OverUnits::None
            {
                continue;
            }
            let mut sum = Reconciler::default();
            let mut stock: BTreeMap<UnitIx, (Date, Cell)> = BTreeMap::new();
            for form in self.form_indices() {
                let form_model = &self.catalogue.forms[form.at()];
                let (Some(at), Some(column)) =
                    (form_model.line_of(element), self.column(form, element))
                else {
                    continue;
                };
                let map = self.plans.map(self.catalogue, self.organisation, self.cube, form);
                let places = |period: Period, each: &mut dyn FnMut(Slot, Cell)| {
                    let inside = self.parts(area, &whole, when.map, form, period);
                    let groups = self.parts(area, networks, when.map, form, period);
                    let mut cells: BTreeMap<Slot, Cell> = BTreeMap::new();
                    for (parts, in_area) in [(&inside, true), (&groups, false)] {
                        for part in &parts.0 {
                            for slot in part.ranges.iter().cloned().flatten() {
                                let Some(unit) = map.units[slot as usize] else { continue };
                                let cell = cells.entry(slot).or_insert(Cell {
                                    facility: unit.0,
                                    kind: part.kind,
                                    in_area: false,
                                    groups: 0,
                                    value: 0,
                                });
                                cell.in_area |= in_area;
                                cell.groups += u32::from(!in_area);
                            }
                        }
                    }
                    cells.into_iter().for_each(|(slot, cell)| each(slot, cell));
                };
                if !model.over_time.is_stock() {
                    for period in span.parts(form_model.period_type) {
                        if figures::ended_at(self.catalogue, period) > when.now {
                            continue;
                        }
                        let Some(block) = self.block(form, period, when.past) else { continue };
                        places(period, &mut |slot, cell| {
                            if let Some(value) = block.value(column, slot).number() {
                                sum.add(Cell { value, ..cell });
                            }
                        });
                    }
                    continue;
                }
                places(day_of(span), &mut |slot, cell| {
                    let ranges = std::iter::once(slot..slot + 1).collect();
                    let part = Part { key: Key::default(), kind: cell.kind, ranges };
                    let mut count = Count::default();
                    self.newest_values(form, at, span, &[part], when, &mut count);
                    for (unit, day, _, value) in count.stock {
                        let newer = stock.get(&unit).is_none_or(|(held, _)| *held < day);
                        if newer {
                            let value = value.number().unwrap_or(0);
                            stock.insert(unit, (day, Cell { value, ..cell }));
                        }
                    }
                });
            }
            stock.into_values().for_each(|(_, cell)| sum.add(cell));
            out.push((element, sum.finish()));
        }
        out
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

/// The last day of a span, as a period: the day whose set a stock is taken over.
pub(super) fn day_of(span: Span) -> Period {
    Period::day(span.last_day())
}

/// The periods whose values a stock may take, newest first.
fn look_back(
    kind: banyan_shared::period::PeriodType,
    span: Span,
    over_time: OverTime,
) -> Box<dyn Iterator<Item = Period>> {
    let inside: Vec<Period> = span.parts(kind).collect();
    let OverTime::Latest { carry_months } = over_time else {
        return Box::new(inside.into_iter().rev());
    };
    let month = Period::containing(banyan_shared::period::PeriodType::Month, span.last_day());
    // At most so many months old: the value's own last day against the span's.
    let oldest = month.plus(-i32::from(carry_months)).first_day();
    let mut last = Period::containing(kind, span.last_day());
    if last.last_day() > span.last_day() {
        last = last.plus(-1);
    }
    Box::new(
        std::iter::successors(Some(last), |period| Some(period.plus(-1)))
            .take_while(move |period| period.last_day() >= oldest),
    )
}

/// The divisions of the sheets, each once where neighbours share one.
fn distinct<'s>(sheets: &'s [Sheet<'_>]) -> impl Iterator<Item = &'s Parts> {
    let mut last: Option<&Arc<Parts>> = None;
    sheets.iter().filter_map(move |sheet| {
        let new = last.is_none_or(|last| !Arc::ptr_eq(last, &sheet.parts));
        last = Some(&sheet.parts);
        new.then_some(&*sheet.parts)
    })
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
    count.flags.extend(flag);
}

fn asked_in(asked: &[u8], part: &Part) -> u64 {
    let owed = |range: &Range<Slot>| -> u64 {
        asked[range.start as usize..range.end as usize].iter().map(|one| u64::from(*one)).sum()
    };
    part.ranges.iter().map(owed).sum()
}

fn late_in(plan: &Plan, mask: &[u8], range: &Range<Slot>, now: Millis) -> u64 {
    let late = |(slot, one): (Slot, &u8)| u64::from(*one == 1 && now > plan.late_after(slot));
    range.clone().zip(mask).map(late).sum()
}
