//! F4 in columns: counting elements over sets of facilities and stretches of time.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;

use banyan_shared::catalogue::{Class, ElementIx, FormIx, KindIx, OverTime};
use banyan_shared::figures::{self, Tally};
use banyan_shared::ids::Millis;
use banyan_shared::organisation::UnitIx;
use banyan_shared::period::{Date, Period, Span};
use banyan_shared::report::Value;

use super::Engine;
use super::asked::{Asked, Got};
use super::given::Given;
use super::marks::Marks;
use super::plan::FormMap;
use super::request::Dims;
use super::sets::{Group, Key, Roster, Scope, Wanderer};
use super::span::days_of;
use crate::cube::BlockRef;

/// Rows of a set up to which what was read for one is kept for its formulas.
pub(super) const ROWS_KEPT: usize = 64;

/// Units counted once each. Those that no other form and no other row part can name again are only counted.
#[derive(Clone, Debug, Default)]
struct Units {
    alone: u64,
    /// Of them: facilities.
    facilities: u64,
    list: Vec<UnitIx>,
}

impl Units {
    fn join(&mut self, more: Units) {
        self.alone += more.alone;
        self.facilities += more.facilities;
        self.list.extend(more.list);
    }

    fn is_empty(&self) -> bool {
        self.alone == 0 && self.list.is_empty()
    }

    /// How many there are, and how many of them are facilities.
    fn count(&mut self, is_facility: impl Fn(UnitIx) -> bool) -> (u64, u64) {
        self.list.sort_unstable();
        self.list.dedup();
        let facilities = self.list.iter().filter(|unit| is_facility(**unit)).count() as u64;
        (self.alone + self.list.len() as u64, self.facilities + facilities)
    }
}

/// What was counted of one element for one row.
#[derive(Clone, Debug, Default)]
pub(super) struct Count {
    pub(super) tally: Tally,
    /// For each kind asked: reports owed, less "not applicable", and numbers.
    kinds: BTreeMap<KindIx, (u64, u64)>,
    givers: Units,
    expected_of: Units,
    /// Stocks of units that more than one form may speak of: the newest value by each form.
    stock: Vec<(UnitIx, Date, KindIx, Value)>,
    pub(super) flags: BTreeSet<String>,
}

/// The rows' figures.
pub(super) type Counts = BTreeMap<Key, BTreeMap<ElementIx, Count>>;

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
        let last = asked.roster(scope, dims, (span.last_day(), span.last_day()));
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
            if span.parts(model.period_type).len() == 0 && (flows.len() + stocks.len()) > 0 {
                self.note_longer(asked, &last, span, form, wanted, &mut counts);
            } else if !flows.is_empty() {
                self.count_flows(asked, &roster, (form, span), &flows, &mut counts);
            }
            // A stock asked rarely may still stand from before.
            if !stocks.is_empty() {
                self.count_stocks(asked, &last, (form, span), &stocks, &mut counts);
            }
            if roster.rows.len() > ROWS_KEPT {
                asked.forget_row();
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
        lines: &[usize],
        counts: &mut Counts,
    ) {
        let model = &self.catalogue.forms[form.at()];
        let flag = figures::period_flags(model, span);
        for (key, groups) in &roster.rows {
            let mut list = vec![Count::default(); lines.len()];
            for group in groups.iter().filter(|group| model.kinds.contains(&group.kind)) {
                let marks = self.marks_of_flows(asked, group, (form, span));
                for (count, line) in list.iter_mut().zip(lines) {
                    let given = self.count_group(asked, group, (form, *line), span, count);
                    count.tally.sum += given.sum.iter().map(|n| u128::from(*n)).sum::<u128>();
                    count.flags.extend(marks.of(*line).flags());
                }
            }
            for (count, line) in list.into_iter().zip(lines) {
                add(counts, *key, model.lines[*line].element, count, flag.clone());
            }
        }
        let map = asked.slots(form);
        for wanderer in roster.wanderers.iter().filter(|w| map.slot(w.unit).is_some()) {
            for key in keys_of(wanderer) {
                for line in lines {
                    let mut count = Count::default();
                    for sheet in asked.sheets(form, span).iter() {
                        for stay in wanderer.stays.iter().filter(|stay| stay.keys.contains(&key)) {
                            let here = |day: Date| stay.first <= day && day <= stay.last;
                            let got = asked.read_some(sheet, *line, wanderer.unit, here);
                            count.take(wanderer.unit, stay.kind, got);
                        }
                    }
                    add(counts, key, model.lines[*line].element, count, flag.clone());
                }
            }
        }
    }

    /// Whether no other form can speak of an element of the units of a kind that have always been of it.
    fn is_only_home(&self, kind: KindIx, element: ElementIx) -> bool {
        self.plans.formulas(self.catalogue).homes(kind, element).len() == 1
    }

    /// Adds up the reports of steady units of one kind in one line. What they say is given back.
    fn count_group(
        &self,
        asked: &Asked<'_>,
        group: &Group,
        (form, line): (FormIx, usize),
        span: Span,
        count: &mut Count,
    ) -> Rc<Given> {
        let given = asked.given(group, form, line, span);
        let all = |list: &[u16]| list.iter().map(|n| u64::from(*n)).sum::<u64>();
        let not_applicable = all(given.not_applicable());
        let (asks, numbers) = (all(given.asked()) - not_applicable, all(given.numbers()));
        let tally = &mut count.tally;
        tally.reports += numbers;
        tally.not_applicable += not_applicable;
        tally.expected += all(given.owed()) - not_applicable;
        tally.asked += asks;
        let kind = count.kinds.entry(group.kind).or_default();
        kind.0 += asks;
        kind.1 += numbers;
        let element = self.catalogue.forms[form.at()].lines[line].element;
        let alone = self.is_only_home(group.kind, element);
        let facilities = self.catalogue.kinds[group.kind.at()].class == Class::Facility;
        let note = |units: &mut Units, is_one: &dyn Fn(usize) -> bool| {
            let unit = |at: &usize| group.units[*at];
            if !alone {
                units
                    .list
                    .extend((0..group.units.len()).filter(|at| is_one(*at)).map(|at| unit(&at)));
                return;
            }
            let changing: Vec<usize> =
                group.changing.iter().copied().filter(|at| is_one(*at)).collect();
            let all = (0..group.units.len()).filter(|at| is_one(*at)).count();
            let number = (all - changing.len()) as u64;
            units.alone += number;
            units.facilities += if facilities { number } else { 0 };
            units.list.extend(changing.iter().map(unit));
        };
        note(&mut count.givers, &|at| given.numbers()[at] > 0);
        note(&mut count.expected_of, &|at| given.owed()[at] > given.not_applicable()[at]);
        // Whether anything is overdue is asked only where nobody gave a number.
        if count.tally.reports == 0 && count.tally.asked > 0 {
            count.tally.overdue += self.overdue(asked, group, (form, line), span);
        }
        given
    }

    /// Form-periods of the units that ask a line, are not answered, and whose time has passed.
    fn overdue(
        &self,
        asked: &Asked<'_>,
        group: &Group,
        (form, line): (FormIx, usize),
        span: Span,
    ) -> u64 {
        let map = asked.slots(form);
        let column = self.column(form, self.catalogue.forms[form.at()].lines[line].element);
        let mut late = 0;
        for sheet in asked.sheets(form, span).iter() {
            for (at, plan) in sheet.plans[..sheet.ended].iter().enumerate() {
                if plan.all_late(asked.when.now) == Some(false) {
                    continue;
                }
                let block = self.block(form, sheet.periods[at], asked.when.past);
                for slot in group.units.iter().filter_map(|unit| map.slot(*unit)) {
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
        lines: &[usize],
        counts: &mut Counts,
    ) {
        let model = &self.catalogue.forms[form.at()];
        let flag = figures::period_flags(model, span);
        for (key, groups) in &last.rows {
            for &line in lines {
                let element = model.lines[line].element;
                let mut count = Count::default();
                let mut valued = false;
                for group in groups {
                    // Of another kind's form only those can speak that were of that kind once.
                    if model.kinds.contains(&group.kind) || !group.changing.is_empty() {
                        valued |= self.count_stock(asked, group, (form, line), span, &mut count);
                        let marks = self.marks_of_stock(asked, group, (form, line), span);
                        count.flags.extend(marks.flags());
                    }
                }
                // After a last "not applicable", here or on another kind's form, earlier numbers are no value:
                // what is overdue tells the state.
                if count.tally.reports > 0 && !valued {
                    for group in groups {
                        count.tally.overdue += self.overdue(asked, group, (form, line), span);
                    }
                }
                add(counts, *key, element, count, flag.clone());
            }
        }
    }

    /// Adds the newest values of a group's units; whether one of them is a number that no other form can
    /// replace.
    fn count_stock(
        &self,
        asked: &Asked<'_>,
        group: &Group,
        (form, line): (FormIx, usize),
        span: Span,
        count: &mut Count,
    ) -> bool {
        let element = self.catalogue.forms[form.at()].lines[line].element;
        let (givers, kinds) = (count.givers.clone(), count.kinds.clone());
        let in_span = self.count_group(asked, group, (form, line), span, count);
        // Not who reported gives a stock, but whose newest answer is a number.
        count.givers = givers;
        for (kind, (_, numbers)) in &mut count.kinds {
            *numbers = kinds.get(kind).map_or(0, |kept| kept.1);
        }
        let over_time = self.catalogue.elements[element.at()].over_time;
        let given = match over_time {
            OverTime::Latest { carry_months } => {
                asked.standing(group, (form, line), span, carry_months)
            }
            _ => in_span,
        };
        let Some(newest) = &given.newest else { return false };
        let alone = self.is_only_home(group.kind, element);
        let facility = self.catalogue.kinds[group.kind.at()].class == Class::Facility;
        let (mut sum, mut numbers) = (0_u128, 0);
        let mut valued = false;
        for (at, unit) in group.units.iter().enumerate() {
            let value = newest.of(at);
            if !value.is_answer() {
                continue;
            }
            let changes = group.changing.binary_search(&at).is_ok();
            valued |= !changes && value.number().is_some();
            if !alone || changes {
                let day = self.day_of_newest(asked, (form, line), *unit, span, over_time);
                count.stock.push((*unit, day, group.kind, value));
            } else if let Some(n) = value.number() {
                sum += u128::from(n);
                numbers += 1;
            }
        }
        count.tally.sum += sum;
        count.givers.alone += numbers;
        count.givers.facilities += if facility { numbers } else { 0 };
        count.kinds.entry(group.kind).or_default().1 += numbers;
        valued
    }

    /// The last day of the bundle a unit's newest answer is of.
    fn day_of_newest(
        &self,
        asked: &Asked<'_>,
        (form, line): (FormIx, usize),
        unit: UnitIx,
        span: Span,
        over_time: OverTime,
    ) -> Date {
        let periods = self.bundles_of_stock(form, span, over_time);
        let slot = asked.slots(form).slot(unit);
        let answered = |bundle: &Period| {
            let sheet = asked.sheet(form, *bundle);
            slot.is_some_and(|slot| asked.read(&sheet, line, slot).last.is_answer())
        };
        periods.into_iter().find(answered).map_or(span.last_day(), |bundle| bundle.last_day())
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
                count.givers.list.push(unit);
                count.kinds.entry(kind).or_default().1 += 1;
            }
        }
        let facility = |unit: UnitIx| self.organisation.class(unit) == Class::Facility;
        (count.tally.givers, count.tally.facilities) = count.givers.count(facility);
        (_, count.tally.facilities_expected) = count.expected_of.count(facility);
        let carried =
            matches!(self.catalogue.elements[element.at()].over_time, OverTime::Latest { .. });
        if carried && count.tally.givers > 0 {
            // A value that stands is in, however long the periods of its form.
            count.flags.retain(|flag| !flag.starts_with("without:"));
        }
        if count.tally.givers > 0 {
            for (kind, (owed, numbers)) in &count.kinds {
                if *owed > 0 && *numbers == 0 {
                    count.flags.insert(format!("absent:{}", self.catalogue.kinds[kind.at()].code));
                }
            }
        }
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
            self.givers.list.push(unit);
        }
        if got.owed > got.not_applicable {
            self.expected_of.list.push(unit);
        }
        self.flags.extend(Marks::of(&got).flags());
    }
}

/// The rows a wanderer is ever in.
fn keys_of(wanderer: &Wanderer) -> BTreeSet<Key> {
    wanderer.stays.iter().flat_map(|stay| stay.keys.iter().copied()).collect()
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
    count.givers.join(one.givers);
    count.expected_of.join(one.expected_of);
    count.stock.extend(one.stock);
    count.flags.extend(one.flags);
}

fn add(counts: &mut Counts, key: Key, element: ElementIx, one: Count, flag: Option<String>) {
    if one.tally.asked == 0
        && one.tally.reports == 0
        && one.tally.not_applicable == 0
        && one.stock.is_empty()
        // What is asked rarely may stand where nothing is asked.
        && one.givers.is_empty()
    {
        return;
    }
    let count = counts.entry(key).or_default().entry(element).or_default();
    join(count, one);
    count.flags.extend(flag);
}
