//! For whom counts may be given, and what a facility was on a day; for an agent, from what its grant tells.

use std::collections::HashMap;

use super::Bad;
use crate::catalogue::{Catalogue, Facts};
use crate::ids::UnitCode;
use crate::period::{Date, Period};
use crate::tables::Fault;
use crate::wire::FacilityScope;

/// What a facility is for one period.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// The last day of the period on which it is open, or else the period's last day.
    pub day: Date,
    /// Whether it is open on any day of the period.
    pub open: bool,
    /// Its kind, roles and attributes on [`Standing::day`]; the kind of the nearest spell when it is not
    /// open. None when the catalogue does not know the kind.
    pub facts: Option<Facts>,
}

/// For whom counts may be given: the facilities of an agent's grant, or all of the centre's registry.
pub trait Reporters: std::fmt::Debug {
    /// The facility with this code.
    ///
    /// # Errors
    /// Why counts of it are not taken.
    fn facility(&self, code: &str) -> Result<UnitCode, Bad>;

    /// What the facility is for `period`; none if counts of it are not taken.
    fn standing(&self, catalogue: &Catalogue, code: &str, period: Period) -> Option<Standing>;

    /// Whether this is the centre itself, whose registry is right: what it does not hold as open is an
    /// error, and operators' own entries may be read back.
    fn at_centre(&self) -> bool {
        false
    }
}

/// The facilities an agent is enrolled for.
#[derive(Clone, Debug)]
pub struct Enrolled<'a> {
    by_code: HashMap<&'a str, &'a FacilityScope>,
}

fn has(from: Option<Date>, to: Option<Date>, day: Date) -> bool {
    from.is_none_or(|from| from <= day) && to.is_none_or(|to| day < to)
}

impl<'a> Enrolled<'a> {
    /// The facilities of an offer.
    pub fn new(facilities: &'a [FacilityScope]) -> Enrolled<'a> {
        Enrolled { by_code: facilities.iter().map(|f| (f.code.as_str(), f)).collect() }
    }
}

impl Reporters for Enrolled<'_> {
    fn facility(&self, code: &str) -> Result<UnitCode, Bad> {
        self.by_code.get(code).map(|scope| scope.code.clone()).ok_or_else(|| {
            Bad::new(
                Fault::NotEnrolled,
                "本终端未获准代该机构填报，请核对代码，或请县级统计岗分配该机构",
                "this agent is not enrolled for the facility: check its code, or ask the county desk to assign it",
            )
        })
    }

    fn standing(&self, catalogue: &Catalogue, code: &str, period: Period) -> Option<Standing> {
        let scope = self.by_code.get(code)?;
        let (first, last) = (period.first_day(), period.last_day());
        let open_until = |from: Option<Date>, to: Option<Date>| {
            let end = to.map_or(last, |to| to.plus(-1).min(last));
            (end >= first && from.is_none_or(|from| from <= end)).then_some(end)
        };
        let last_open = scope.spells.iter().filter_map(|s| open_until(s.from, s.to)).max();
        let day = last_open.unwrap_or(last);
        // Of a closed facility: the last spell that began before, or else the first there is.
        let spell = scope
            .spells
            .iter()
            .find(|s| has(s.from, s.to, day))
            .or_else(|| {
                let begun = scope.spells.iter().filter(|s| s.from.is_none_or(|from| from <= day));
                begun.max_by_key(|s| s.from)
            })
            .or_else(|| scope.spells.iter().min_by_key(|s| s.from));
        let facts = spell.and_then(|s| catalogue.kind(&s.kind)).map(|kind| Facts {
            kind,
            roles: scope
                .roles
                .iter()
                .filter(|r| has(r.from, r.to, day))
                .filter_map(|r| {
                    Some((catalogue.role(&r.role)?, catalogue.network_kind(&r.network_kind)?))
                })
                .collect(),
            attributes: scope
                .attributes
                .iter()
                .filter(|a| has(a.from, a.to, day))
                .filter_map(|a| Some((catalogue.attribute(&a.attribute)?, a.value.clone())))
                .collect(),
        });
        Some(Standing { day, open: last_open.is_some(), facts })
    }
}
