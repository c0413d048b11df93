//! Whom an indicator waits for.

use std::collections::BTreeSet;

use banyan_shared::catalogue::{FormIx, KindIx};
use banyan_shared::figures;
use banyan_shared::ids::Millis;
use banyan_shared::organisation::UnitIx;
use banyan_shared::period::Period;

use super::run::Run;
use super::{WAITING_MAX, Waiting};
use crate::cube::Slot;
use crate::query::plan::extension;
use crate::query::sets::Wanderer;
use crate::query::sheet::Sheet;
use crate::query::span::{bundles, days_of};

impl Run<'_, '_> {
    /// Reports of the units that can still come in time, at most [`WAITING_MAX`], and how many
    /// there are; of a unit that is now here, now there, those of its time here; of one that changes kind, where
    /// kinds are given, those of its pairs of these kinds.
    pub(super) fn waiting<'w>(
        &self,
        units: impl Iterator<Item = (UnitIx, Option<&'w Wanderer>)>,
        kinds: Option<&[KindIx]>,
    ) -> (Vec<Waiting>, u64) {
        let engine = self.engine;
        let now = self.asked.when.now;
        let mut found: BTreeSet<(Waiting, Period)> = BTreeSet::new();
        let mut all = 0;
        for (unit, wanderer) in units {
            let is_elsewhere = |period: Period| {
                wanderer.is_some_and(|wanderer| {
                    let days = (period.first_day(), period.last_day());
                    let day = self.last_open(unit, days);
                    day.is_none_or(|day| wanderer.kind_in(&self.row, day).is_none())
                })
            };
            let kinds = kinds.filter(|_| engine.organisation.changes_kind(unit));
            let is_of_these = |grain: usize| {
                let day = || self.last_open(unit, days_of(self.grains[grain].span));
                let kind = |day| engine.organisation.kind_on(unit, day);
                kinds.is_none_or(|kinds| day().is_some_and(|day| kinds.contains(&kind(day))))
            };
            // Two elements may stand on one report.
            let mut own: BTreeSet<(Waiting, Period)> = BTreeSet::new();
            for input in self.element_inputs() {
                for (form, line) in self.ever_homes(input, unit) {
                    let model = &engine.catalogue.forms[form.at()];
                    let column = engine.column(form, model.lines[line].element);
                    let active = |grain: &usize| self.is_active(input, *grain);
                    for grain in (0..self.grains.len()).filter(active).filter(|g| is_of_these(*g)) {
                        let span = self.grains[grain].span;
                        let mut periods = bundles(model.period_type, span);
                        if periods.is_empty() {
                            periods.push(Period::containing(model.period_type, span.last_day()));
                        }
                        for bundle in periods {
                            let sheet = self.asked.sheet(form, bundle);
                            let Some(slot) = sheet.slots.slot(unit) else { continue };
                            for (at, period) in sheet.periods.iter().enumerate() {
                                let plan = &sheet.plans[at];
                                if plan.asked[line][slot as usize] != 1
                                    || now > plan.late_after(slot)
                                    || is_elsewhere(*period)
                                    || (at < sheet.ended
                                        && self.is_answered(&sheet, at, column, slot))
                                {
                                    continue;
                                }
                                let due = self.due(form, unit, *period);
                                own.insert((Waiting { due, form, unit }, *period));
                            }
                        }
                    }
                }
            }
            all += own.len() as u64;
            found.append(&mut own);
            while found.len() > WAITING_MAX {
                found.pop_last();
            }
        }
        (found.into_iter().map(|(one, _)| one).collect(), all)
    }

    fn is_answered(&self, sheet: &Sheet, at: usize, column: Option<usize>, slot: Slot) -> bool {
        let block = self.engine.block(sheet.form, sheet.periods[at], self.asked.when.past);
        match (block, column) {
            (Some(block), Some(column)) => block.value(column, slot).is_answer(),
            _ => false,
        }
    }

    fn due(&self, form: FormIx, unit: UnitIx, period: Period) -> Millis {
        let engine = self.engine;
        let model = &engine.catalogue.forms[form.at()];
        let (_, until) = extension(engine.catalogue, engine.organisation, model, unit, period);
        let working = |date| engine.organisation.is_working_day(unit, date);
        figures::deadline(engine.catalogue, model, period, working, until).due
    }
}
