//! Sheets: one form over a bundle of its periods, folded by slot.
//!
//! A *bundle* is a period that holds whole periods of a form: a month for a daily form, the period itself for
//! any other. A [`Sheet`] keeps for each slot and line what the bundle's reports come to: so a month of a
//! county is read as one period. It is folded in chunks of slots, each when first asked for, and depends on
//! the plans, the blocks and the number of periods that have ended; it is thrown away when one of these
//! changes (`Stamp`). Who belongs to a set is left to the rosters, what the numbers mean to `figures`.

use std::sync::atomic::AtomicU64;
use std::sync::{Arc, OnceLock};

use banyan_shared::catalogue::FormIx;
use banyan_shared::figures::{self, Timing};
use banyan_shared::ids::Millis;
use banyan_shared::period::{Period, PeriodType};
use banyan_shared::report::{How, Value};

use super::Engine;
use super::plan::{FormMap, Plan};
use super::tally::When;
use crate::cube::Slot;

/// How many slots are folded at once.
pub(super) const CHUNK: usize = 256;
/// Most periods in a bundle: the unanswered ones are kept as bits.
const PERIODS_MAX: usize = 31;

/// How many periods before a span tell what a facility usually comes to.
pub(super) const USUAL_PERIODS: i32 = 12;

/// One number for each slot of a chunk.
type Small = [u8; CHUNK];

/// One line's values, by slot of the chunk.
pub(super) struct Line {
    /// Form-periods owed that ask the line, ended or not.
    pub(super) asked: Small,
    /// Of them: ended.
    pub(super) owed: Small,
    /// Of those ended: answered with a number or "not applicable".
    pub(super) answered: Small,
    /// Of those ended: answered "not applicable".
    pub(super) not_applicable: Small,
    /// Reports with a number, owed or not.
    pub(super) numbers: Small,
    /// The sum of the numbers.
    pub(super) sum: Box<[u64; CHUNK]>,
    /// Stocks: the newest answer.
    pub(super) last: Option<Box<[Value; CHUNK]>>,
    /// The sum over working days, where a formula asks for it.
    pub(super) working: Option<Box<[u64; CHUNK]>>,
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
    pub(super) pending: Box<[u16; CHUNK]>,
    /// Owed and unanswered, a bit for each ended period of the bundle.
    pub(super) open: Box<[u32; CHUNK]>,
    /// The newest receipt; the least moment for none.
    pub(super) newest: Box<[Millis; CHUNK]>,
}

/// A chunk of slots, folded.
pub(super) struct Chunk {
    pub(super) lines: Box<[Line]>,
    pub(super) reports: Reports,
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
    chunks: Box<[OnceLock<Box<Chunk>>]>,
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

    /// The chunk a slot lies in, folded now if it was not yet.
    pub(super) fn chunk(&self, engine: &Engine<'_>, when: When, number: usize) -> &Chunk {
        self.chunks[number].get_or_init(|| Box::new(fold(engine, self, when, number)))
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
            && sheet.stamp.slots == slots.units.len()
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
        let stamp = Stamp { generation, slots: slots.units.len(), ended };
        let chunks = slots.units.len().div_ceil(CHUNK);
        let chunks = std::iter::repeat_with(OnceLock::new).take(chunks).collect();
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

fn small<const N: usize>() -> [u8; N] {
    [0; N]
}

fn fold(engine: &Engine<'_>, sheet: &Sheet, when: When, number: usize) -> Chunk {
    let model = &engine.catalogue.forms[sheet.form.at()];
    let first = number * CHUNK;
    let len = sheet.slots.units.len().saturating_sub(first).min(CHUNK);
    let on_working_days = engine.plans.on_working_days(engine.catalogue);
    let mut lines: Box<[Line]> = model
        .lines
        .iter()
        .map(|line| {
            let element = &engine.catalogue.elements[line.element.at()];
            let stock = element.over_time.is_stock();
            let working = on_working_days.contains(&line.element);
            Line {
                asked: small(),
                owed: small(),
                answered: small(),
                not_applicable: small(),
                numbers: small(),
                sum: Box::new([0; CHUNK]),
                last: stock.then(|| Box::new([Value::Missing; CHUNK])),
                working: working.then(|| Box::new([0; CHUNK])),
            }
        })
        .collect();
    let mut reports = Reports {
        duty: small(),
        on_time: small(),
        late: small(),
        late_by_network: small(),
        incomplete: small(),
        proxy: small(),
        corrected: small(),
        unexpected: small(),
        conflicts: small(),
        restated: small(),
        pending: Box::new([0; CHUNK]),
        open: Box::new([0; CHUNK]),
        newest: Box::new([Millis(i64::MIN); CHUNK]),
    };
    let columns: Vec<Option<usize>> =
        model.lines.iter().map(|line| engine.column(sheet.form, line.element)).collect();
    for (at, (period, plan)) in sheet.periods.iter().zip(&sheet.plans).enumerate() {
        let has_ended = at < sheet.ended;
        let block = has_ended.then(|| engine.block(sheet.form, *period, when.past)).flatten();
        let works = |place: usize| {
            let unit = sheet.slots.units[first + place];
            unit.is_some_and(|unit| works_on(engine, unit, *period))
        };
        for ((line, asked), column) in lines.iter_mut().zip(&plan.asked).zip(&columns) {
            let mask = &asked[first..first + len];
            for (total, one) in line.asked.iter_mut().zip(mask) {
                *total += one;
            }
            if !has_ended {
                continue;
            }
            for (total, one) in line.owed.iter_mut().zip(mask) {
                *total += one;
            }
            let (Some(block), Some(column)) = (&block, column) else { continue };
            let column = block.column(*column);
            for place in 0..len {
                let slot = (first + place) as Slot;
                let value = column.value(slot);
                match value {
                    Value::Missing => continue,
                    Value::NotApplicable => line.not_applicable[place] += mask[place],
                    Value::Number(n) => {
                        line.numbers[place] += 1;
                        line.sum[place] = line.sum[place].saturating_add(n);
                        if let Some(working) = &mut line.working
                            && works(place)
                        {
                            working[place] = working[place].saturating_add(n);
                        }
                    }
                }
                line.answered[place] += mask[place];
                if let Some(last) = &mut line.last {
                    last[place] = value;
                }
            }
        }
        if has_ended {
            fold_reports(engine, sheet, when, at, (first, len), &mut reports);
        }
    }
    Chunk { lines, reports }
}

/// Whether a one-day period is a working day of the unit; longer ones are no days.
pub(super) fn works_on(
    engine: &Engine<'_>,
    unit: banyan_shared::organisation::UnitIx,
    period: Period,
) -> bool {
    period.kind() == PeriodType::Day && engine.organisation.is_working_day(unit, period.first_day())
}

fn fold_reports(
    engine: &Engine<'_>,
    sheet: &Sheet,
    when: When,
    at: usize,
    (first, len): (usize, usize),
    reports: &mut Reports,
) {
    let plan = &sheet.plans[at];
    let owed = engine.owed_of(sheet, at, when);
    for place in 0..len {
        let slot = (first + place) as Slot;
        let Some(block) = owed.block.as_deref() else {
            reports.duty[place] += plan.duty[slot as usize];
            reports.open[place] |= u32::from(plan.duty[slot as usize]) << at;
            continue;
        };
        if plan.duty[slot as usize] == 0 {
            reports.unexpected[place] += u8::from(block.answered(slot));
        } else {
            reports.duty[place] += 1;
            match engine.received(&owed, slot) {
                None => reports.open[place] |= 1 << at,
                Some(one) => {
                    match one.timing {
                        Timing::OnTime => reports.on_time[place] += 1,
                        _ => reports.late[place] += 1,
                    }
                    reports.late_by_network[place] += u8::from(one.late_by_network);
                    reports.incomplete[place] += u8::from(one.incomplete);
                    reports.proxy[place] += u8::from(one.proxy);
                    reports.corrected[place] += u8::from(one.corrected);
                }
            }
        }
        if let Some(newest) = block.received(slot) {
            reports.newest[place] = reports.newest[place].max(newest);
        }
    }
    if let Some(block) = owed.block.as_deref() {
        let range = first as Slot..(first + len) as Slot;
        for (slot, report) in block.histories(range) {
            let place = slot as usize - first;
            reports.conflicts[place] += u8::from(report.heads > 1);
            reports.restated[place] += u8::from(report.restated);
            let pending = u16::try_from(report.pending).unwrap_or(u16::MAX);
            reports.pending[place] = reports.pending[place].saturating_add(pending);
        }
    }
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
type Volumes = Box<[[u64; CHUNK]]>;

/// What each slot's reports came to in the periods before a span, by line: flows added, stocks their values
/// added. Folded in chunks from sheets, and thrown away with them.
pub(super) struct Usual {
    stamps: Vec<Stamp>,
    sheets: Vec<Arc<Sheet>>,
    chunks: Box<[OnceLock<Volumes>]>,
}

impl std::fmt::Debug for Usual {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Usual({:?})", self.stamps)
    }
}

impl Usual {
    /// What a slot came to in a line.
    pub(super) fn of(&self, engine: &Engine<'_>, when: When, line: usize, slot: Slot) -> u64 {
        let (number, place) = Sheet::place(slot);
        // No period of the form lies in the periods before.
        let Some(chunk) = self.chunks.get(number) else { return 0 };
        let chunk = chunk.get_or_init(|| {
            let lines = self
                .sheets
                .first()
                .map_or(0, |sheet| engine.catalogue.forms[sheet.form.at()].lines.len());
            let mut sums = vec![[0_u64; CHUNK]; lines].into_boxed_slice();
            for sheet in &self.sheets {
                let chunk = sheet.chunk(engine, when, number);
                for (sums, line) in sums.iter_mut().zip(&chunk.lines) {
                    match &line.last {
                        None => {
                            for (sum, more) in sums.iter_mut().zip(line.sum.iter()) {
                                *sum = sum.saturating_add(*more);
                            }
                        }
                        Some(last) => {
                            for (sum, value) in sums.iter_mut().zip(last.iter()) {
                                *sum = sum.saturating_add(value.number().unwrap_or(0));
                            }
                        }
                    }
                }
            }
            sums
        });
        chunk[line][place]
    }
}

impl Engine<'_> {
    pub(super) fn usual_of(
        &self,
        form: FormIx,
        first: Period,
        sheets: Vec<Arc<Sheet>>,
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
        let usual = Arc::new(Usual { stamps, sheets, chunks });
        if when.past.is_none() {
            self.plans.keep_usual(form, first, usual.clone());
        }
        usual
    }
}
