//! F3 over sets: completeness and freshness.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use banyan_shared::catalogue::{Class, FormIx};
use banyan_shared::figures::{self, Completeness, MissingFacts, MissingWhy, Standing, Timing};
use banyan_shared::ids::{FormCode, Millis, UnitCode};
use banyan_shared::organisation::UnitIx;
use banyan_shared::period::{Period, Span};
use banyan_shared::report::{How, Value};

use super::Engine;
use super::answer::Freshness;
use super::plan::{FormMap, Plan};
use super::request::Dims;
use super::sets::{Key, Scope};
use super::tally::{When, day_of};
use crate::cube::{Block, Slot};

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
    /// By report.
    pub marks: HashMap<(UnitCode, FormCode, Period), Mark>,
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
    /// The newest receipt.
    pub(super) newest: Option<Millis>,
}

/// One form and period, ready to judge its reports.
pub(super) struct Owed<'a> {
    form: FormIx,
    period: Period,
    pub(super) plan: Arc<Plan>,
    slots: Arc<FormMap>,
    pub(super) block: Option<crate::cube::BlockRef<'a>>,
    /// The cube's column of each line.
    columns: Vec<Option<usize>>,
    /// How many columns the cube has for the form.
    width: usize,
}

impl Engine<'_> {
    /// Counts the reports owed over `span`, for every row and form.
    pub(super) fn complete(
        &self,
        scope: Scope,
        dims: &Dims,
        span: Span,
        only: Option<FormIx>,
        when: When,
        remarks: &mut Remarks,
    ) -> BTreeMap<(Key, FormIx), Completeness> {
        let mut out: BTreeMap<(Key, FormIx), Completeness> = BTreeMap::new();
        for form in self.form_indices().filter(|form| only.is_none_or(|only| only == *form)) {
            let model = &self.catalogue.forms[form.at()];
            for period in span.parts(model.period_type) {
                if figures::ended_at(self.catalogue, period) > when.now {
                    continue;
                }
                let sheet = self.owed(form, period, when);
                let parts = self.parts(scope, dims, when.map, form, period);
                for part in &parts.0 {
                    let counts = out.entry((part.key, form)).or_default();
                    for range in &part.ranges {
                        for slot in range.clone() {
                            if sheet.plan.duty[slot as usize] == 1 {
                                counts.add(self.standing(&sheet, slot, when));
                            } else {
                                let answered =
                                    sheet.block.as_ref().is_some_and(|b| b.answered(slot));
                                counts.unexpected += u64::from(answered);
                            }
                        }
                        if let Some(block) = &sheet.block {
                            for (_, report) in block.histories(range.clone()) {
                                remarks.conflicts += u64::from(report.heads > 1);
                                remarks.pending += report.pending as u64;
                            }
                            // Only a block newer than what was found can hold a newer receipt.
                            if remarks.newest.is_none_or(|newest| block.newest() > newest) {
                                let newest =
                                    range.clone().filter_map(|slot| block.received(slot)).max();
                                remarks.newest = remarks.newest.max(newest);
                            }
                        }
                    }
                }
            }
        }
        out.retain(|_, counts| counts.expected() > 0 || counts.unexpected > 0);
        out
    }

    /// Everything needed to judge the reports of one form and period.
    pub(super) fn owed(&self, form: FormIx, period: Period, when: When) -> Owed<'_> {
        let slots = self.slots(form);
        let model = &self.catalogue.forms[form.at()];
        Owed {
            form,
            period,
            plan: self.plans.plan(self.catalogue, self.organisation, &slots, form, period),
            slots,
            block: self.block(form, period, when.past),
            columns: model.lines.iter().map(|line| self.column(form, line.element)).collect(),
            width: self.cube.form(&model.code).map_or(0, |store| store.columns().len()),
        }
    }

    /// Judges one report owed.
    pub(super) fn standing(&self, sheet: &Owed<'_>, slot: Slot, when: When) -> Standing {
        let late_after = sheet.plan.late_after(slot);
        let block = sheet.block.as_deref();
        let report = block.filter(|block| block.answered(slot)).and_then(|block| {
            let answer = self.answer_of(sheet, block, slot);
            answer.answered.then_some((block, answer))
        });
        let Some((block, answer)) = report else {
            let timing = figures::judge(None, late_after, when.now);
            let why = match timing {
                Timing::Missing => self.why(sheet, slot, when),
                _ => MissingWhy::NotEntered,
            };
            return Standing {
                timing,
                incomplete: false,
                proxy: false,
                late_by_network: false,
                why,
            };
        };
        let timing = figures::judge(block.arrived(slot), late_after, when.now);
        let authors = self.cube.authors();
        let in_time = |minute: u32| i64::from(minute) * 60_000 <= late_after.0;
        Standing {
            timing,
            incomplete: !answer.complete,
            proxy: block.how(slot, authors) == Some(How::Proxy),
            late_by_network: timing == Timing::Late
                && block
                    .report(slot, authors)
                    .and_then(|report| report.entered)
                    .is_some_and(|entered| !entered.doubtful && in_time(entered.minute)),
            why: MissingWhy::NotEntered,
        }
    }

    /// Whether the slot's report answers what it was asked.
    fn answer_of(&self, sheet: &Owed<'_>, block: &Block, slot: Slot) -> figures::Answer {
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

    fn why(&self, sheet: &Owed<'_>, slot: Slot, when: When) -> MissingWhy {
        let Some(unit) = sheet.slots.units[slot as usize] else { return MissingWhy::NotEntered };
        let code = self.organisation.code(unit);
        let (form, period) = (&self.catalogue.forms[sheet.form.at()].code, sheet.period);
        let mark = if self.sites.marks.is_empty() {
            Mark::default()
        } else {
            self.sites.marks.get(&(code.clone(), form.clone(), period)).copied().unwrap_or_default()
        };
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
        scope: Scope,
        span: Span,
        when: When,
        newest: Option<Millis>,
    ) -> Freshness {
        let live = when.past.is_none();
        let mut out = Freshness {
            newest_receipt: newest.map(|at| self.time_text(at)),
            ..Freshness::default()
        };
        let mut units: Vec<UnitIx> =
            self.members(scope, when.map, day_of(span)).into_iter().map(|at| at.unit).collect();
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
