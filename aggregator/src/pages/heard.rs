//! When the agents of places were last heard of.
//!
//! A province has twenty thousand sites: what they come to for every place above them is worked out once for
//! what is known of them and a day's map, and kept until one of these is another.

use std::sync::{Arc, Mutex, PoisonError};

use banyan_shared::ids::Millis;
use banyan_shared::organisation::Organisation;
use banyan_shared::period::Date;

use super::View;
use crate::query::SiteStates;

/// The newest sign of any agent in each unit and below, by unit; none where there was none.
pub(super) type ByUnit = Arc<[Option<Millis>]>;

/// What was worked out last.
#[derive(Default)]
pub(super) struct Heard(Mutex<Option<Kept>>);

struct Kept {
    sites: Arc<SiteStates>,
    organisation: Arc<Organisation>,
    day: Date,
    by_unit: ByUnit,
}

impl Heard {
    /// As known now, on the map of a day.
    pub(super) fn on(&self, view: &View<'_>, day: Date) -> ByUnit {
        let sites = view.service.sites();
        let organisation = &view.organisation;
        let kept = || self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(kept) = &*kept()
            && Arc::ptr_eq(&kept.sites, &sites)
            && Arc::ptr_eq(&kept.organisation, organisation)
            && kept.day == day
        {
            return kept.by_unit.clone();
        }
        let mut by_unit = vec![None; organisation.len()];
        for (code, site) in &sites.sites {
            let Some((heard, unit)) = site.last_heard.zip(organisation.unit(code.as_str())) else {
                continue;
            };
            for unit in organisation.upwards(unit, day) {
                by_unit[unit.at()] = by_unit[unit.at()].max(Some(heard));
            }
        }
        let by_unit: ByUnit = by_unit.into();
        let organisation = organisation.clone();
        *kept() = Some(Kept { sites, organisation, day, by_unit: by_unit.clone() });
        by_unit
    }
}
