//! F3 over sets: completeness and freshness.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use banyan_shared::catalogue::{Class, FormIx};
use banyan_shared::figures::{self, Completeness, MissingFacts, MissingWhy, Standing, Timing};
use banyan_shared::ids::{FormCode, Millis, UnitCode};
use banyan_shared::organisation::UnitIx;
use banyan_shared::period::{Period, Span};
use banyan_shared::report::Value;
use foldhash::HashMap;

use super::Engine;
use super::answer::Freshness;
use super::asked::{Asked, When};
use super::plan::{FormMap, Plan};
use super::request::Dims;
use super::sets::{Group, Key, Scope, Wanderer};
use super::sheet::{CHUNK, Sheet};
use super::span::days_of;
use super::tally::ROWS_KEPT;
use crate::cube::{Block, BlockRef, Slot};

/// A site not heard of for this long counts as silent.
pub const SILENT_AFTER_MS: i64 = 3 * 24 * 3_600_000;

/// What is known of one site beside its reports. A facility served by several agents has the best of each.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SiteState {
    /// Since when an agent has been enrolled for it.
    pub enrolled: Option<Millis>,
    /// When an agent that serves it was last heard of.
    pub last_heard: Option<Millis>,
    /// How many of its reports wait at the site, by the newest beacon.
    pub backlog: u64,
}

/// What stands against a single report that is not counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mark {
    /// It stands returned for correction.
    pub returned: bool,
    /// A version of it was refused.
    pub refused: bool,
    /// A version of it is parked.
    pub parked: bool,
}

/// Everything known of sites.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SiteStates {
    /// By facility.
    pub sites: HashMap<UnitCode, SiteState>,
    /// By facility, then by report.
    pub marks: HashMap<UnitCode, BTreeMap<(FormCode, Period), Mark>>,
}

impl SiteStates {
    /// The mark of a report, to be set.
    pub fn mark_mut(&mut self, facility: &UnitCode, form: FormCode, period: Period) -> &mut Mark {
        self.marks.entry(facility.clone()).or_default().entry((form, period)).or_default()
    }

    fn marks_of(&self, facility: &UnitCode) -> Option<&BTreeMap<(FormCode, Period), Mark>> {
        if self.marks.is_empty() { None } else { self.marks.get(facility) }
    }

    fn mark(&self, facility: &UnitCode, form: &FormCode, period: Period) -> Mark {
        let marks = self.marks_of(facility);
        marks.and_then(|marks| marks.get(&(form.clone(), period))).copied().unwrap_or_default()
    }
}

impl SiteState {
    fn enrolled_at(&self, now: Millis) -> bool {
        self.enrolled.is_some_and(|since| since <= now)
    }

    fn silent_at(&self, now: Millis) -> bool {
        self.enrolled_at(now) && self.last_heard.is_none_or(|at| at.plus(SILENT_AFTER_MS) < now)
    }
}

/// What a set's reports come to, beside the counts.
#[derive(Clone, Debug, Default)]
pub(super) struct Remarks {
    /// Reports of which several versions stand.
    pub(super) conflicts: u64,
    /// Versions that wait for approval behind a lock.
    pub(super) pending: u64,
    /// Reports of which something else is counted than when they were first signed off or locked.
    pub(super) restated: u64,
    /// The newest receipt.
    pub(super) newest: Option<Millis>,
}

/// What a set's reports come to, for every row and form that has any.
#[derive(Clone, Debug, Default)]
pub(super) struct Complete {
    pub(super) by_form: BTreeMap<(Key, FormIx), Completeness>,
    pub(super) remarks: Remarks,
}

/// As what a unit's reports are missing.
#[derive(Clone, Copy, Debug, Default)]
pub(super) enum MissingAs {
    /// Not looked up yet.
    #[default]
    Unknown,
    /// All for one cause.
    All(MissingWhy),
    /// Something stands against some of them: one by one.
    Each,
}

/// One form and period, ready to judge its reports.
pub(super) struct Owed<'a> {
    form: FormIx,
    period: Period,
    pub(super) plan: Arc<Plan>,
    slots: Arc<FormMap>,
    pub(super) block: Option<BlockRef<'a>>,
    /// The cube's column of each line.
    columns: Vec<Option<usize>>,
    /// How many columns the cube has for the form.
    width: usize,
}

impl Engine<'_> {
    /// Counts the reports owed over `span`, for every row and form.
    pub(super) fn complete(
        &self,
        asked: &Asked<'_>,
        scope: Scope,
        dims: &Dims,
        span: Span,
        only: Option<FormIx>,
    ) -> Rc<Complete> {
        asked.kept_complete((scope, dims.clone(), span, only), || {
            let mut complete = Complete::default();
            let Complete { by_form, remarks } = &mut complete;
            self.count_reports(asked, (scope, dims, span), only, by_form, remarks);
            complete
        })
    }

    fn count_reports(
        &self,
        asked: &Asked<'_>,
        (scope, dims, span): (Scope, &Dims, Span),
        only: Option<FormIx>,
        out: &mut BTreeMap<(Key, FormIx), Completeness>,
        remarks: &mut Remarks,
    ) {
        let roster = asked.roster(scope, dims, days_of(span));
        for form in self.form_indices().filter(|form| only.is_none_or(|only| only == *form)) {
            let model = &self.catalogue.forms[form.at()];
            let sheets = asked.sheets(form, span);
            if sheets.is_empty() {
                continue;
            }
            for (key, groups) in &roster.rows {
                let counts = out.entry((*key, form)).or_default();
                for group in groups.iter().filter(|group| model.kinds.contains(&group.kind)) {
                    for sheet in sheets.iter() {
                        self.count_group_reports(asked, group, sheet, counts, remarks);
                    }
                }
            }
            if roster.rows.len() > ROWS_KEPT {
                asked.forget_row();
            }
            for wanderer in &roster.wanderers {
                let Some(slot) = sheets[0].slots.slot(wanderer.unit) else { continue };
                for sheet in sheets.iter() {
                    self.count_wanderer(asked, sheet, wanderer, slot, out, remarks);
                }
            }
        }
        out.retain(|_, counts| counts.expected() > 0 || counts.unexpected > 0);
    }

    /// Counts the reports of steady units of one sheet.
    fn count_group_reports(
        &self,
        asked: &Asked<'_>,
        group: &Group,
        sheet: &Sheet,
        counts: &mut Completeness,
        remarks: &mut Remarks,
    ) {
        let late = sheet.all_late(asked.when.now);
        let missing_as = asked.missing_of(group);
        for run in asked.runs(group, sheet.form).iter() {
            let reports = sheet.reports(&asked.engine, asked.when, run.chunk);
            let there = run.place..run.place + run.len;
            let all = |list: &[u8; CHUNK]| -> u64 {
                list[there.clone()].iter().map(|n| u64::from(*n)).sum()
            };
            counts.on_time += all(&reports.on_time);
            counts.late += all(&reports.late);
            counts.late_by_network += all(&reports.late_by_network);
            counts.incomplete += all(&reports.incomplete);
            counts.proxy += all(&reports.proxy);
            counts.corrected_after_signoff += all(&reports.corrected);
            counts.unexpected += all(&reports.unexpected);
            remarks.conflicts += all(&reports.conflicts);
            remarks.restated += all(&reports.restated);
            let pending = reports.pending[there.clone()].iter();
            remarks.pending += pending.map(|n| u64::from(*n)).sum::<u64>();
            let newest = reports.newest[there].iter().copied().max();
            remarks.newest = remarks.newest.max(newest.filter(|at| *at > Millis(i64::MIN)));
            for n in 0..run.len {
                let open = reports.open[run.place + n];
                if open == 0 {
                    continue;
                }
                let unit = group.units[run.at + n];
                let late = late.unwrap_or_else(|| {
                    let slot = (run.chunk * CHUNK + run.place + n) as Slot;
                    sheet.late_bits(slot, asked.when.now)
                });
                counts.not_yet_due += u64::from((open & !late).count_ones());
                let missing = open & late;
                if missing != 0 {
                    let why = &missing_as[run.at + n];
                    self.count_missing(asked, sheet, (unit, why), missing, counts);
                }
            }
        }
    }

    /// Adds a unit's missing reports of a sheet by cause; `missing` has a bit for each.
    fn count_missing(
        &self,
        asked: &Asked<'_>,
        sheet: &Sheet,
        (unit, known): (UnitIx, &Cell<MissingAs>),
        missing: u32,
        counts: &mut Completeness,
    ) {
        let code = self.organisation.code(unit);
        if matches!(known.get(), MissingAs::Unknown) {
            known.set(match self.sites.marks_of(code) {
                None => MissingAs::All(self.why(code, Mark::default(), asked.when)),
                Some(_) => MissingAs::Each,
            });
        }
        if let MissingAs::All(why) = known.get() {
            counts.missing_by[why as usize] += u64::from(missing.count_ones());
            return;
        }
        let form = &self.catalogue.forms[sheet.form.at()].code;
        for (at, period) in sheet.periods.iter().enumerate() {
            if missing & (1 << at) != 0 {
                let mark = self.sites.mark(code, form, *period);
                counts.missing_by[self.why(code, mark, asked.when) as usize] += 1;
            }
        }
    }

    /// Counts a wanderer's reports of one sheet, each in the rows it is in on its duty day.
    fn count_wanderer(
        &self,
        asked: &Asked<'_>,
        sheet: &Sheet,
        wanderer: &Wanderer,
        slot: Slot,
        out: &mut BTreeMap<(Key, FormIx), Completeness>,
        remarks: &mut Remarks,
    ) {
        for at in 0..sheet.ended {
            let day = self.organisation.duty_day(wanderer.unit, sheet.periods[at]);
            let Some(day) = day else { continue };
            let stay = wanderer.stays.iter().find(|stay| stay.first <= day && day <= stay.last);
            let Some(stay) = stay else { continue };
            let owed = self.owed_of(sheet, at, asked.when);
            let block = owed.block.as_deref();
            if let Some(block) = block {
                for (_, report) in block.histories(slot..slot + 1) {
                    remarks.conflicts += u64::from(report.heads > 1);
                    remarks.pending += report.pending as u64;
                    remarks.restated += u64::from(report.restated);
                }
                remarks.newest = remarks.newest.max(block.received(slot));
            }
            let is_owed = owed.plan.duty[slot as usize] == 1;
            let standing = is_owed.then(|| self.standing(&owed, slot, asked.when));
            let answered = block.is_some_and(|block| block.answered(slot));
            for key in &stay.keys {
                let counts = out.entry((*key, sheet.form)).or_default();
                match standing {
                    Some(standing) => counts.add(standing),
                    None => counts.unexpected += u64::from(answered),
                }
            }
        }
    }

    /// Everything needed to judge the reports of one of a sheet's periods.
    pub(super) fn owed_of(&self, sheet: &Sheet, at: usize, when: When) -> Owed<'_> {
        let model = &self.catalogue.forms[sheet.form.at()];
        Owed {
            form: sheet.form,
            period: sheet.periods[at],
            plan: sheet.plans[at].clone(),
            slots: sheet.slots.clone(),
            block: self.block(sheet.form, sheet.periods[at], when.past),
            columns: model.lines.iter().map(|line| self.column(sheet.form, line.element)).collect(),
            width: self.cube.form(&model.code).map_or(0, |store| store.columns().len()),
        }
    }

    /// Everything needed to judge the reports of one form and period.
    pub(super) fn owed(&self, form: FormIx, period: Period, when: When) -> Owed<'_> {
        self.owed_of(&self.sheet_of(form, period, when), 0, when)
    }

    /// Judges one report owed.
    pub(super) fn standing(&self, sheet: &Owed<'_>, slot: Slot, when: When) -> Standing {
        if let Some(one) = self.received(sheet, slot) {
            return Standing {
                timing: one.timing,
                incomplete: one.incomplete,
                proxy: one.proxy,
                corrected: one.corrected,
                late_by_network: one.late_by_network,
                why: MissingWhy::NotEntered,
            };
        }
        let timing = figures::judge(None, sheet.plan.late_after(slot), when.now);
        let unit = sheet.slots.units[slot as usize];
        let why = match (timing, unit) {
            (Timing::Missing, Some(unit)) => {
                let code = self.organisation.code(unit);
                let form = &self.catalogue.forms[sheet.form.at()].code;
                self.why(code, self.sites.mark(code, form, sheet.period), when)
            }
            _ => MissingWhy::NotEntered,
        };
        Standing {
            timing,
            incomplete: false,
            proxy: false,
            corrected: false,
            late_by_network: false,
            why,
        }
    }

    /// Whether the slot's report answers what it was asked.
    pub(super) fn answer_of(&self, sheet: &Owed<'_>, block: &Block, slot: Slot) -> figures::Answer {
        if sheet.plan.uniform && block.full(slot, sheet.width) {
            return figures::Answer { answered: true, complete: true };
        }
        figures::answer(
            &self.catalogue.forms[sheet.form.at()],
            false,
            |line| sheet.plan.asked[line][slot as usize] == 1,
            |line| sheet.columns[line].map_or(Value::Missing, |column| block.value(column, slot)),
        )
    }

    /// Why a report of the facility is missing.
    fn why(&self, code: &UnitCode, mark: Mark, when: When) -> MissingWhy {
        let site = self.sites.sites.get(code);
        let live = when.past.is_none();
        figures::missing_why(&MissingFacts {
            returned: mark.returned,
            refused: mark.refused,
            parked: mark.parked,
            enrolled: site.is_some_and(|site| site.enrolled_at(when.now)),
            backlog: live.then(|| site.is_some_and(|site| site.backlog > 0)),
            silent: live.then(|| site.is_some_and(|site| site.silent_at(when.now))),
        })
    }

    /// How fresh the figures of a set are.
    pub(super) fn freshness(
        &self,
        asked: &Asked<'_>,
        scope: Scope,
        span: Span,
        newest: Option<Millis>,
    ) -> Freshness {
        let when = asked.when;
        let live = when.past.is_none();
        let mut out = Freshness {
            newest_receipt: newest.map(|at| self.time_text(at)),
            ..Freshness::default()
        };
        let roster = asked.roster(scope, &Dims::default(), (span.last_day(), span.last_day()));
        let mut units: Vec<UnitIx> =
            roster.rows.values().flatten().flat_map(|group| group.units.iter().copied()).collect();
        units.retain(|unit| self.organisation.class(*unit) == Class::Facility);
        out.sites = units.len() as u64;
        let (mut backlog, mut silent) = (0, 0);
        for unit in units {
            let Some(site) = self.sites.sites.get(self.organisation.code(unit)) else { continue };
            out.sites_enrolled += u64::from(site.enrolled_at(when.now));
            backlog += u64::from(site.backlog > 0);
            silent += u64::from(site.silent_at(when.now));
        }
        out.sites_with_backlog = live.then_some(backlog);
        out.sites_silent = live.then_some(silent);
        out
    }
}
