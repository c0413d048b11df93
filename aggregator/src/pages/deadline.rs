//! The next moments by which reports of a place are due.

use std::collections::BTreeMap;

use banyan_shared::figures;
use banyan_shared::ids::Millis;
use banyan_shared::organisation::{Found, UnitIx};
use banyan_shared::period::{Date, Period, PeriodType};
use banyan_shared::tables::registry::ExtensionDue;

use super::View;

/// How many periods back a due time is looked for: the newest period ended is due first.
const PERIODS_BACK: i32 = 3;
/// Most deadlines shown.
const SHOWN_MAX: usize = 2;

/// A time by which a form's reports are due, and how many are in.
pub(super) struct Next {
    /// The form.
    pub(super) form: String,
    /// Of which period.
    pub(super) period: Period,
    /// When.
    pub(super) due: String,
    /// How many have answered.
    pub(super) received: u64,
    /// How many owe it; none yet where the period still runs.
    pub(super) expected: u64,
}

/// The next deadline of each type of period, the soonest first. By the calendar and the extensions of the
/// place itself: a part of it may have been given more time.
pub(super) fn next(view: &View<'_>, found: Found, forms: &[String]) -> Vec<Next> {
    let org = &view.organisation;
    let unit: Option<UnitIx> = match found {
        Found::Unit(unit) => Some(unit),
        Found::Network(network) => org.network_info(network).area.first().copied(),
    };
    let now = view.service.now();
    let mut soonest: BTreeMap<PeriodType, (Millis, String, Period)> = BTreeMap::new();
    for code in forms {
        let Some(form) = view.catalogue.form(code) else { continue };
        let form = &view.catalogue.forms[form.at()];
        let current = Period::containing(form.period_type, view.today);
        for period in (0..=PERIODS_BACK).rev().map(|n| current.plus(-n)) {
            let granted = unit.and_then(|u| org.extension(form.code.as_str(), u, period));
            let until = match granted.map(|extension| extension.due) {
                Some(ExtensionDue::Waived) => continue,
                Some(ExtensionDue::At { date, hour, minute }) => {
                    Some(view.catalogue.due_at(date, hour, minute))
                }
                None => None,
            };
            // Without a unit there is no calendar but the week's.
            let working =
                |day: Date| unit.map_or(day.weekday() < 5, |unit| org.is_working_day(unit, day));
            let due = figures::deadline(&view.catalogue, form, period, working, until).due;
            if due < now || !form.in_force(period) {
                continue;
            }
            let one = (due, form.code.to_string(), period);
            match soonest.get_mut(&form.period_type) {
                Some(held) if held.0 <= due => {}
                Some(held) => *held = one,
                None => {
                    soonest.insert(form.period_type, one);
                }
            }
            break;
        }
    }
    let mut list: Vec<_> = soonest.into_values().collect();
    list.sort();
    list.truncate(SHOWN_MAX);
    let code = view.code(found);
    list.into_iter()
        .map(|(due, form, period)| {
            let mut call = view.completeness(&code, &period.to_string());
            call.form = Some(form.clone());
            // A place that does not exist in that period has nothing due.
            let counts = view.service.complete(&call).map(|a| a.completeness).unwrap_or_default();
            Next {
                form,
                period,
                due: super::selectors::moment_text(&view.catalogue, due),
                received: counts.received,
                expected: counts.expected,
            }
        })
        .collect()
}
