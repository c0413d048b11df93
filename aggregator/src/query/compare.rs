//! Two answers over the same counts: who owes what under one registry and under another.

use banyan_shared::catalogue::FormIx;
use banyan_shared::ids::UnitCode;
use banyan_shared::period::Period;

use super::Engine;

impl<'e> Engine<'e> {
    /// The units that owe a form's report of a period, in order of their codes.
    pub fn owing(&self, form: FormIx, period: Period) -> Vec<&'e UnitCode> {
        let slots = self.slots(form);
        let plan = self.plans.plan(self.catalogue, self.organisation, &slots, form, period);
        let owed = slots.units.iter().zip(plan.duty.iter()).filter(|(_, duty)| **duty == 1);
        let mut units: Vec<&UnitCode> =
            owed.filter_map(|(unit, _)| unit.map(|unit| self.organisation.code(unit))).collect();
        units.sort_unstable();
        units
    }
}
