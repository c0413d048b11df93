//! Sheets: one form over a bundle of its periods, folded by slot.
//!
//! A *bundle* is a period that holds whole periods of a form: a month for a daily form, the period itself for
//! any other. A [`Sheet`] keeps for each slot and line what the bundle's reports come to: so a month of a
//! county is read as one period. It is folded in chunks of slots, each when first asked for, and depends on
//! the plans, the blocks and the number of periods that have ended; it is thrown away when one of these
//! changes (`Stamp`). Who belongs to a set is left to the rosters, what the numbers mean to `figures`.

use std::sync::atomic::AtomicU64;
use std::sync::{Arc, OnceLock};

use banyan_shared::catalogue::{self, FormIx};
use banyan_shared::figures::{self, Timing};
use banyan_shared::ids::Millis;
use banyan_shared::period::{Period, PeriodType};
use banyan_shared::report::{How, Value};

use super::Engine;
use super::asked::When;
use super::plan::{FormMap, Plan};
use crate::cube::Slot;

/// How many slots are folded at once.
pub(super) const CHUNK: usize = 256;
/// Most periods in a bundle: the unanswered ones are kept as bits.
const PERIODS_MAX: usize = 31;

/// How many periods before a span tell what a facility usually comes to.
pub(super) const USUAL_PERIODS: i32 = 12;

/// One number for each slot of a chunk.
type Small = [u8; CHUNK];

/// Bits for each slot of a chunk: one for each period of the bundle.
pub(super) type Bits = [u32; CHUNK];

/// A number for each slot of a chunk, as narrow as they allow.
pub(super) enum Numbers {
    Zero,
    Narrow(Box<[u32; CHUNK]>),
    Wide(Box<[u64; CHUNK]>),
}

impl Numbers {
    fn of(wide: &[u64; CHUNK]) -> Numbers {
        if wide.iter().all(|n| *n == 0) {
            return Numbers::Zero;
        }
        let mut narrow = Box::new([0; CHUNK]);
        for (narrow, n) in narrow.iter_mut().zip(wide) {
            match u32::try_from(*n) {
                Ok(n) => *narrow = n,
                Err(_) => return Numbers::Wide(Box::new(*wide)),
            }
        }
        Numbers::Narrow(narrow)
    }

    /// The number at a place.
    pub(super) fn at(&self, place: usize) -> u64 {
        match self {
            Numbers::Zero => 0,
            Numbers::Narrow(list) => u64::from(list[place]),
            Numbers::Wide(list) => list[place],
        }
    }

    /// Adds the numbers from `place` on to a list of as many.
    pub(super) fn add_to(&self, place: usize, sums: &mut [u64]) {
        let range = place..place + sums.len();
        match self {
            Numbers::Zero => {}
            Numbers::Narrow(list) => {
                for (sum, n) in sums.iter_mut().zip(&list[range]) {
                    *sum = sum.saturating_add(u64::from(*n));
                }
            }
            Numbers::Wide(list) => {
                for (sum, n) in sums.iter_mut().zip(&list[range]) {
                    *sum = sum.saturating_add(*n);
                }
            }
        }
    }
}

/// One line's values, by slot of the chunk.
pub(super) struct Line {
    /// Form-periods owed that ask the line, ended or not.
    pub(super) asked: Arc<Small>,
    /// Of them: ended.
    pub(super) owed: Arc<Small>,
    /// Bundles of several periods: in which the line is asked.
    pub(super) asked_in: Option<Arc<Bits>>,
    /// What was answered; none where nobody answered anything.
    pub(super) given: Option<Box<GivenIn>>,
}

/// What was answered in one line, by slot of the chunk.
pub(super) struct GivenIn {
    /// Of the form-periods owed and ended: answered with a number or "not applicable".
    pub(super) answered: Small,
    /// Of them: answered "not applicable".
    pub(super) not_applicable: Small,
    /// Reports with a number, owed or not.
    pub(super) numbers: Small,
    /// The sum of the numbers.
    pub(super) sum: Numbers,
    /// The sum over working days, where a formula asks for it.
    pub(super) working: Option<Numbers>,
    /// Bundles of several periods: which ones.
    pub(super) which: Option<Box<Which>>,
    /// Stocks: the newest answer.
    newest: Option<Box<Newest>>,
}

/// Which periods of a bundle gave what, owed or not.
pub(super) struct Which {
    /// Those with a number.
    pub(super) numbers: Bits,
    /// Those answered "not applicable".
    pub(super) not_applicable: Bits,
}

/// The newest answer of a stock.
struct Newest {
    /// [`Value`]'s variants.
    answer: [Answer; CHUNK],
    /// The number; none in a bundle of one period, where it is the sum.
    number: Option<Numbers>,
}

/// What was answered, without the number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Answer {
    #[default]
    Missing,
    NotApplicable,
    Number,
}

impl GivenIn {
    /// What a stock's newest answer at a place is.
    pub(super) fn newest(&self, place: usize) -> Value {
        let Some(newest) = &self.newest else { return Value::Missing };
        match newest.answer[place] {
            Answer::Missing => Value::Missing,
            Answer::NotApplicable => Value::NotApplicable,
            Answer::Number => Value::Number(match &newest.number {
                None => self.sum.at(place),
                Some(number) => number.at(place),
            }),
        }
    }
}

/// What the reports themselves come to, by slot of the chunk.
pub(super) struct Reports {
    /// Reports owed, for ended periods.
    pub(super) duty: Small,
    /// Answered in time.
    pub(super) on_time: Small,
    /// Answered late.
    pub(super) late: Small,
    /// Of late: entered in time.
    pub(super) late_by_network: Small,
    /// Of received: incomplete.
    pub(super) incomplete: Small,
    /// Of received: by proxy.
    pub(super) proxy: Small,
    /// Of received: corrected since they were first signed off.
    pub(super) corrected: Small,
    /// Answered though not owed.
    pub(super) unexpected: Small,
    /// Reports of which several versions stand.
    pub(super) conflicts: Small,
    /// Reports of which something else is counted than when they were first signed off or locked.
    pub(super) restated: Small,
    /// Versions behind a lock.
    pub(super) pending: [u16; CHUNK],
    /// Owed and unanswered, a bit for each ended period of the bundle.
    pub(super) open: Bits,
    /// The newest receipt; the least moment for none.
    pub(super) newest: [Millis; CHUNK],
}

impl Default for Reports {
    fn default() -> Reports {
        let none: Small = [0; CHUNK];
        Reports {
            duty: none,
            on_time: none,
            late: none,
            late_by_network: none,
            incomplete: none,
            proxy: none,
            corrected: none,
            unexpected: none,
            conflicts: none,
            restated: none,
            pending: [0; CHUNK],
            open: [0; CHUNK],
            newest: [Millis(i64::MIN); CHUNK],
        }
    }
}

/// A report of whose values a reader should know more; lines by their number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Marked {
    /// Its slot's place in the chunk.
    pub(super) place: usize,
    pub(super) period: Period,
    /// Lines with a number, while several versions of the report stand.
    pub(super) conflicts: Box<[usize]>,
    /// Lines that had another value when the report was first signed off or locked.
    pub(super) restated: Box<[usize]>,
}

/// A chunk of slots: its parts are folded each when first asked for.
#[derive(Default)]
struct Chunk {
    lines: OnceLock<Box<[Line]>>,
    reports: OnceLock<Box<Reports>>,
    marked: OnceLock<Box<[Marked]>>,
}

/// What a sheet was folded from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Stamp {
    generation: u64,
    slots: usize,
    ended: usize,
}

/// See the module's text.
pub(super) struct Sheet {
    pub(super) form: FormIx,
    pub(super) bundle: Period,
    /// The form's periods in the bundle, in order of time.
    pub(super) periods: Vec<Period>,
    pub(super) plans: Vec<Arc<Plan>>,
    /// How many of them, the first ones, have ended.
    pub(super) ended: usize,
    pub(super) slots: Arc<FormMap>,
    stamp: Stamp,
    chunks: Box<[Chunk]>,
    /// When it was last asked for, in questions.
    pub(super) used: AtomicU64,
}

impl std::fmt::Debug for Sheet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Sheet({:?}, {}, {:?})", self.form, self.bundle, self.stamp)
    }
}

/// The bundle of a form's periods that holds `date`, inside a question's period of type `grain`.
pub(super) fn bundle_type(form: PeriodType, grain: PeriodType) -> PeriodType {
    let daily = form == PeriodType::Day;
    if daily && figures::indicators::length(grain) >= figures::indicators::length(PeriodType::Month)
    {
        PeriodType::Month
    } else {
        form
    }
}

impl Sheet {
    /// Where a slot is found: its chunk and its place there.
    pub(super) fn place(slot: Slot) -> (usize, usize) {
        (slot as usize / CHUNK, slot as usize % CHUNK)
    }

    /// The number of the content it was folded from.
    pub(super) fn generation(&self) -> u64 {
        self.stamp.generation
    }

    /// The first moment after `now` at which another of its periods ends or another report becomes late.
    pub(super) fn next_change(&self, now: Millis) -> Millis {
        let late = self.plans.iter().filter_map(|plan| plan.next_late(now));
        let ends = self.plans.get(self.ended).map(|plan| plan.ends);
        late.chain(ends).min().unwrap_or(Millis(i64::MAX))
    }

    /// The lines of a chunk, folded now if they were not yet.
    pub(super) fn lines(&self, engine: &Engine<'_>, when: When, number: usize) -> &[Line] {
        let fold = |number| fold_lines(engine, self, when, number);
        self.part(engine, number, |chunk| &chunk.lines, fold)
    }

    /// The reports of a chunk, folded now if they were not yet.
    pub(super) fn reports(&self, engine: &Engine<'_>, when: When, number: usize) -> &Reports {
        let fold = |number| Box::new(fold_reports(engine, self, when, number));
        self.part(engine, number, |chunk| &chunk.reports, fold)
    }

    /// The marked reports of a chunk, looked for now if they were not yet.
    pub(super) fn marked(&self, engine: &Engine<'_>, when: When, number: usize) -> &[Marked] {
        let find = |number| find_marked(engine, self, when, number);
        self.part(engine, number, |chunk| &chunk.marked, find)
    }

    /// A part of a chunk. Where blocks are not in memory, that of every chunk is folded with the first: reading
    /// a month again takes longer than folding all of it, and few months fit in at a time.
    fn part<T>(
        &self,
        engine: &Engine<'_>,
        number: usize,
        of: impl Fn(&Chunk) -> &OnceLock<T>,
        fold: impl Fn(usize) -> T,
    ) -> &T {
        let part = of(&self.chunks[number]);
        if part.get().is_none() && self.is_aside(engine) {
            for (number, chunk) in self.chunks.iter().enumerate() {
                of(chunk).get_or_init(|| fold(number));
            }
        }
        part.get_or_init(|| fold(number))
    }

    /// Whether any of its blocks is not in memory.
    fn is_aside(&self, engine: &Engine<'_>) -> bool {
        let form = engine.cube.form(&engine.catalogue.forms[self.form.at()].code);
        form.is_some_and(|form| self.periods.iter().any(|period| form.is_aside(*period)))
    }

    /// Bits of the ended periods whose last moment in time has passed for the slot.
    pub(super) fn late_bits(&self, slot: Slot, now: Millis) -> u32 {
        let mut bits = 0;
        for (at, plan) in self.plans[..self.ended].iter().enumerate() {
            bits |= u32::from(now > plan.late_after(slot)) << at;
        }
        bits
    }

    /// The same for all slots, where all agree.
    pub(super) fn all_late(&self, now: Millis) -> Option<u32> {
        let mut bits = 0;
        for (at, plan) in self.plans[..self.ended].iter().enumerate() {
            bits |= u32::from(plan.all_late(now)?) << at;
        }
        Some(bits)
    }
}

impl Engine<'_> {
    /// The form's sheet of a bundle, as known at `when`.
    pub(super) fn sheet_of(&self, form: FormIx, bundle: Period, when: When) -> Arc<Sheet> {
        let slots = self.slots(form);
        let model = &self.catalogue.forms[form.at()];
        let generation = self.cube.form(&model.code).map_or(0, |store| store.generation(bundle));
        let kept = match when.past {
            None => self.plans.sheet(form, bundle),
            Some(_) => None,
        };
        // How many periods have ended is told by the plans: they are the same as long as the slots are.
        if let Some(sheet) = kept
            && sheet.stamp.generation == generation
            && sheet.stamp.slots == slots.real
            && sheet.stamp.ended == ended(&sheet.plans, when.now)
        {
            return sheet;
        }
        let periods: Vec<Period> = if bundle.kind() == model.period_type {
            vec![bundle]
        } else {
            bundle.parts(model.period_type).take(PERIODS_MAX).collect()
        };
        let plans: Vec<Arc<Plan>> = periods
            .iter()
            .map(|p| self.plans.plan(self.catalogue, self.organisation, &slots, form, *p))
            .collect();
        let ended = ended(&plans, when.now);
        let stamp = Stamp { generation, slots: slots.real, ended };
        let chunks = slots.units.len().div_ceil(CHUNK);
        let chunks = std::iter::repeat_with(Chunk::default).take(chunks).collect();
        let used = AtomicU64::new(0);
        let sheet =
            Arc::new(Sheet { form, bundle, periods, plans, ended, slots, stamp, chunks, used });
        // Single days of a daily form are read as fast as they are kept.
        let worth = bundle.kind() != PeriodType::Day;
        if when.past.is_none() && worth {
            self.plans.keep_sheet(sheet.clone());
        }
        sheet
    }
}

fn ended(plans: &[Arc<Plan>], now: Millis) -> usize {
    plans.iter().take_while(|plan| plan.ends <= now).count()
}

/// The slots of a chunk that there are: the first one, and how many.
fn slots_of(sheet: &Sheet, number: usize) -> (usize, usize) {
    let first = number * CHUNK;
    (first, sheet.slots.units.len().saturating_sub(first).min(CHUNK))
}

/// Of a line: where it is asked, where it was owed, and in which periods.
type Asking = (Arc<Small>, Arc<Small>, Option<Arc<Bits>>);

/// Adds `mask` to the totals, and a bit to the periods of those it holds.
fn add_mask(totals: &mut Small, bits: &mut Bits, mask: &[u8], at: usize) {
    for ((total, bits), one) in totals.iter_mut().zip(bits.iter_mut()).zip(mask) {
        *total += one;
        *bits |= u32::from(*one) << at;
    }
}

/// Where each line is asked: of lines asked alike the very same list.
fn fold_asked(sheet: &Sheet, number: usize) -> Vec<Asking> {
    let (first, len) = slots_of(sheet, number);
    let lines = sheet.plans.first().map_or(0, |plan| plan.asked.len());
    let mut out: Vec<Asking> = Vec::with_capacity(lines);
    for line in 0..lines {
        let alike =
            |plan: &Arc<Plan>, other: usize| Arc::ptr_eq(&plan.asked[line], &plan.asked[other]);
        let same = (0..line).find(|other| sheet.plans.iter().all(|plan| alike(plan, *other)));
        if let Some(same) = same {
            out.push(out[same].clone());
            continue;
        }
        let (mut asked, mut owed): (Small, Small) = ([0; CHUNK], [0; CHUNK]);
        let mut bits: Bits = [0; CHUNK];
        for (at, plan) in sheet.plans.iter().enumerate() {
            if at == sheet.ended {
                owed = asked;
            }
            add_mask(&mut asked, &mut bits, &plan.asked[line][first..first + len], at);
        }
        let asked = Arc::new(asked);
        let all_ended = sheet.ended == sheet.plans.len();
        let owed = if all_ended { asked.clone() } else { Arc::new(owed) };
        out.push((asked, owed, (sheet.plans.len() > 1).then(|| Arc::new(bits))));
    }
    out
}

fn fold_lines(engine: &Engine<'_>, sheet: &Sheet, when: When, number: usize) -> Box<[Line]> {
    let model = &engine.catalogue.forms[sheet.form.at()];
    let (first, len) = slots_of(sheet, number);
    let blocks: Vec<_> = sheet.periods[..sheet.ended]
        .iter()
        .map(|period| engine.block(sheet.form, *period, when.past))
        .collect();
    let on_working_days = engine.plans.on_working_days(engine.catalogue);
    let lines = model.lines.iter().zip(fold_asked(sheet, number)).enumerate();
    let fold = |(at, (line, (asked, owed, asked_in))): (usize, (&catalogue::Line, Asking))| {
        let element = &engine.catalogue.elements[line.element.at()];
        let column = engine.column(sheet.form, line.element);
        let working = on_working_days.contains(&line.element);
        let mut fold = Fold::new(sheet.periods.len() > 1, element.over_time.is_stock(), working);
        for (period, block) in blocks.iter().enumerate() {
            let (Some(block), Some(column)) = (block, column) else { continue };
            let column = block.column(column);
            let mask = &sheet.plans[period].asked[at][first..first + len];
            for (place, mask) in mask.iter().enumerate() {
                let value = column.value((first + place) as Slot);
                if value != Value::Missing {
                    fold.take(place, period, value, *mask);
                    if let (Some(working), Value::Number(n)) = (&mut fold.working, value)
                        && let Some(unit) = sheet.slots.units[first + place]
                        && works_on(engine, unit, sheet.periods[period])
                    {
                        working[place] = working[place].saturating_add(n);
                    }
                }
            }
        }
        Line { asked, owed, asked_in, given: fold.finish() }
    };
    lines.map(fold).collect()
}

/// A line while it is folded.
struct Fold {
    any: bool,
    answered: Small,
    not_applicable: Small,
    numbers: Small,
    sum: [u64; CHUNK],
    working: Option<Box<[u64; CHUNK]>>,
    which: Option<Box<Which>>,
    newest: Option<Box<([Answer; CHUNK], [u64; CHUNK])>>,
    several: bool,
}

impl Fold {
    fn new(several: bool, stock: bool, working: bool) -> Fold {
        let which = || Box::new(Which { numbers: [0; CHUNK], not_applicable: [0; CHUNK] });
        Fold {
            any: false,
            answered: [0; CHUNK],
            not_applicable: [0; CHUNK],
            numbers: [0; CHUNK],
            sum: [0; CHUNK],
            working: working.then(|| Box::new([0; CHUNK])),
            which: several.then(which),
            newest: stock.then(|| Box::new(([Answer::Missing; CHUNK], [0; CHUNK]))),
            several,
        }
    }

    /// Takes in an answer of the bundle's period `at`; `owed` is 1 where it was owed.
    fn take(&mut self, place: usize, at: usize, value: Value, owed: u8) {
        self.any = true;
        self.answered[place] += owed;
        let (answer, number) = match value {
            Value::Missing => return,
            Value::NotApplicable => {
                self.not_applicable[place] += owed;
                (Answer::NotApplicable, 0)
            }
            Value::Number(n) => {
                self.numbers[place] += 1;
                self.sum[place] = self.sum[place].saturating_add(n);
                (Answer::Number, n)
            }
        };
        if let Some(which) = &mut self.which {
            match answer {
                Answer::Number => which.numbers[place] |= 1 << at,
                _ => which.not_applicable[place] |= 1 << at,
            }
        }
        if let Some(newest) = &mut self.newest {
            newest.0[place] = answer;
            newest.1[place] = number;
        }
    }

    fn finish(self) -> Option<Box<GivenIn>> {
        let several = self.several;
        self.any.then(|| {
            Box::new(GivenIn {
                answered: self.answered,
                not_applicable: self.not_applicable,
                numbers: self.numbers,
                sum: Numbers::of(&self.sum),
                working: self.working.map(|working| Numbers::of(&working)),
                which: self.which,
                newest: self.newest.map(|newest| {
                    let number = several.then(|| Numbers::of(&newest.1));
                    Box::new(Newest { answer: newest.0, number })
                }),
            })
        })
    }
}

/// Whether a one-day period is a working day of the unit; longer ones are no days.
pub(super) fn works_on(
    engine: &Engine<'_>,
    unit: banyan_shared::organisation::UnitIx,
    period: Period,
) -> bool {
    period.kind() == PeriodType::Day && engine.organisation.is_working_day(unit, period.first_day())
}

fn fold_reports(engine: &Engine<'_>, sheet: &Sheet, when: When, number: usize) -> Reports {
    let mut reports = Reports::default();
    for at in 0..sheet.ended {
        fold_period(engine, sheet, when, at, slots_of(sheet, number), &mut reports);
    }
    reports
}

fn fold_period(
    engine: &Engine<'_>,
    sheet: &Sheet,
    when: When,
    at: usize,
    (first, len): (usize, usize),
    reports: &mut Reports,
) {
    let plan = &sheet.plans[at];
    let owed = engine.owed_of(sheet, at, when);
    let duty = &plan.duty[first..first + len];
    for ((total, open), one) in reports.duty.iter_mut().zip(&mut reports.open).zip(duty) {
        *total += one;
        *open |= u32::from(*one) << at;
    }
    let Some(block) = owed.block.as_deref() else { return };
    for (place, owes) in duty.iter().enumerate() {
        let slot = (first + place) as Slot;
        if *owes == 0 {
            reports.unexpected[place] += u8::from(block.answered(slot));
        } else if let Some(one) = engine.received(&owed, slot) {
            reports.open[place] &= !(1 << at);
            match one.timing {
                Timing::OnTime => reports.on_time[place] += 1,
                _ => reports.late[place] += 1,
            }
            reports.late_by_network[place] += u8::from(one.late_by_network);
            reports.incomplete[place] += u8::from(one.incomplete);
            reports.proxy[place] += u8::from(one.proxy);
            reports.corrected[place] += u8::from(one.corrected);
        }
        if let Some(newest) = block.received(slot) {
            reports.newest[place] = reports.newest[place].max(newest);
        }
    }
    let range = first as Slot..(first + len) as Slot;
    for (slot, report) in block.histories(range) {
        let place = slot as usize - first;
        reports.conflicts[place] += u8::from(report.heads > 1);
        reports.restated[place] += u8::from(report.restated);
        let pending = u16::try_from(report.pending).unwrap_or(u16::MAX);
        reports.pending[place] = reports.pending[place].saturating_add(pending);
    }
}

fn find_marked(engine: &Engine<'_>, sheet: &Sheet, when: When, number: usize) -> Box<[Marked]> {
    let (first, len) = slots_of(sheet, number);
    let mut found = Vec::new();
    for period in &sheet.periods[..sheet.ended] {
        let Some(block) = engine.block(sheet.form, *period, when.past) else { continue };
        for (slot, report) in block.histories(first as Slot..(first + len) as Slot) {
            if report.heads < 2 && report.changed.is_empty() {
                continue;
            }
            let lines = engine.catalogue.forms[sheet.form.at()].lines.iter().enumerate();
            let columns: Vec<(usize, usize)> = lines
                .filter_map(|(at, line)| Some((at, engine.column(sheet.form, line.element)?)))
                .collect();
            let those = |is_one: &dyn Fn(usize) -> bool| {
                columns
                    .iter()
                    .filter(|(_, column)| is_one(*column))
                    .map(|(line, _)| *line)
                    .collect()
            };
            found.push(Marked {
                place: slot as usize - first,
                period: *period,
                conflicts: those(&|column| {
                    report.heads > 1 && block.value(column, slot).number().is_some()
                }),
                restated: those(&|column| report.changed.iter().any(|c| usize::from(*c) == column)),
            });
        }
    }
    found.into()
}

/// How a received report stands.
pub(super) struct Received {
    pub(super) timing: Timing,
    pub(super) incomplete: bool,
    pub(super) proxy: bool,
    pub(super) late_by_network: bool,
    pub(super) corrected: bool,
}

impl Engine<'_> {
    /// How a report owed stands, if it is answered.
    pub(super) fn received(
        &self,
        sheet: &super::complete::Owed<'_>,
        slot: Slot,
    ) -> Option<Received> {
        let block = sheet.block.as_deref().filter(|block| block.answered(slot))?;
        let answer = self.answer_of(sheet, block, slot);
        if !answer.answered {
            return None;
        }
        let late_after = sheet.plan.late_after(slot);
        // Once answered, the present moment plays no part.
        let timing = figures::judge(block.arrived(slot), late_after, Millis(i64::MIN));
        let authors = self.cube.authors();
        let in_time = |minute: u32| i64::from(minute) * 60_000 <= late_after.0;
        Some(Received {
            timing,
            incomplete: !answer.complete,
            proxy: block.how(slot, authors) == Some(How::Proxy),
            corrected: block.corrected(slot),
            late_by_network: timing == Timing::Late
                && block
                    .report(slot, authors)
                    .and_then(|report| report.entered)
                    .is_some_and(|entered| !entered.doubtful && in_time(entered.minute)),
        })
    }
}

/// A number for each slot of a chunk, by line.
type Volumes = Box<[Numbers]>;

/// What each slot's reports came to in the periods before a span, by line: flows added, stocks their values
/// added. Folded in chunks from sheets, which whoever asks has at hand: it does not hold on to them.
pub(super) struct Usual {
    stamps: Vec<Stamp>,
    chunks: Box<[OnceLock<Volumes>]>,
}

impl std::fmt::Debug for Usual {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Usual({:?})", self.stamps)
    }
}

impl Usual {
    /// What the slots from `place` of a chunk on came to in a line, added to a list of as many.
    pub(super) fn add_to(
        &self,
        (engine, when): (&Engine<'_>, When),
        sheets: &[Arc<Sheet>],
        line: usize,
        (number, place): (usize, usize),
        sums: &mut [u64],
    ) {
        // Without a chunk no period of the form lies in the periods before.
        if let Some(chunk) = self.chunks.get(number) {
            let chunk = chunk.get_or_init(|| fold_volumes(engine, sheets, when, number));
            chunk[line].add_to(place, sums);
        }
    }
}

fn fold_volumes(engine: &Engine<'_>, sheets: &[Arc<Sheet>], when: When, number: usize) -> Volumes {
    let form = sheets.first().map(|sheet| &engine.catalogue.forms[sheet.form.at()]);
    let mut sums = vec![[0_u64; CHUNK]; form.map_or(0, |form| form.lines.len())];
    for sheet in sheets {
        for (sums, line) in sums.iter_mut().zip(sheet.lines(engine, when, number)) {
            let Some(given) = &line.given else { continue };
            if given.newest.is_none() {
                given.sum.add_to(0, sums);
                continue;
            }
            for (place, sum) in sums.iter_mut().enumerate() {
                *sum = sum.saturating_add(given.newest(place).number().unwrap_or(0));
            }
        }
    }
    sums.iter().map(Numbers::of).collect()
}

impl Engine<'_> {
    pub(super) fn usual_of(
        &self,
        form: FormIx,
        first: Period,
        sheets: &[Arc<Sheet>],
        when: When,
    ) -> Arc<Usual> {
        let stamps: Vec<Stamp> = sheets.iter().map(|sheet| sheet.stamp).collect();
        let kept = match when.past {
            None => self.plans.usual(form, first),
            Some(_) => None,
        };
        if let Some(usual) = kept.filter(|usual| usual.stamps == stamps) {
            return usual;
        }
        let chunks = sheets.first().map_or(0, |sheet| sheet.chunks.len());
        let chunks = std::iter::repeat_with(OnceLock::new).take(chunks).collect();
        let usual = Arc::new(Usual { stamps, chunks });
        if when.past.is_none() {
            self.plans.keep_usual(form, first, usual.clone());
        }
        usual
    }
}
