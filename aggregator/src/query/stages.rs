//! How far the review of a set's reports has come.

use banyan_shared::period::Span;

use super::Engine;
use super::asked::When;
use super::sets::Scope;
use crate::act::Stage;

impl Engine<'_> {
    /// The stage that all reports owed by a set over `span` have reached: the least of theirs.
    pub(super) fn stage_of(&self, scope: Scope, span: Span, when: When) -> Stage {
        let touched = self.form_indices().any(|form| {
            let model = &self.catalogue.forms[form.at()];
            let store = self.cube.form(&model.code);
            store.is_some_and(|s| span.parts(model.period_type).any(|p| s.has_stages(p)))
        });
        // Nothing of it was ever signed off: the usual case, told without looking at any report.
        if !touched {
            return Stage::Open;
        }
        let mut least = None;
        for form in self.form_indices() {
            let model = &self.catalogue.forms[form.at()];
            let slots = self.slots(form);
            for period in span.parts(model.period_type) {
                let plan = self.plans.plan(self.catalogue, self.organisation, &slots, form, period);
                let store = self.cube.form(&model.code).filter(|store| store.has_stages(period));
                // On the map that the figures are read on.
                for at in self.members(scope, when.map, period) {
                    let Some(slot) = slots.slot(at.unit) else { continue };
                    if plan.duty[slot as usize] == 0 {
                        continue;
                    }
                    let stage = store.map_or(Stage::Open, |s| s.stage(period, slot, when.past));
                    if stage == Stage::Open {
                        return Stage::Open;
                    }
                    least = Some(least.map_or(stage, |least: Stage| least.min(stage)));
                }
            }
        }
        least.unwrap_or(Stage::Open)
    }
}
