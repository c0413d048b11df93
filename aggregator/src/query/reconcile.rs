//! F5: how the sums of groups lead to the total of an area.

use std::collections::{BTreeMap, BTreeSet};

use banyan_shared::catalogue::{ElementIx, KindIx, OverTime, OverUnits, Scope as ElementScope};
use banyan_shared::figures::{Addend, Cell, Reconciler, Reconciliation, ReconciliationLine};
use banyan_shared::ids::Millis;
use banyan_shared::organisation::UnitIx;
use banyan_shared::period::{Date, Span};
use banyan_shared::report::Value;

use super::Engine;
use super::answer::{AddendFigure, NoneFigure, Ordered, ReconciliationFigure};
use super::asked::{Asked, Got};
use super::reading::span_of;
use super::request::{Dims, QueryError, QueryRequest, dims};
use super::sets::{Roster, Scope, Wanderer};
use super::span::{bundles, carried, days_of};

impl Engine<'_> {
    pub(super) fn reconciliation(
        &self,
        asked: &Asked<'_>,
        scope: Scope,
        dims: &Dims,
        span: Span,
        elements: &BTreeSet<ElementIx>,
    ) -> Option<Ordered<ReconciliationFigure>> {
        if !dims.network || !matches!(scope, Scope::Unit(_)) {
            return None;
        }
        // However else the rows are divided: the networks' sums over the whole span against the area's.
        let networks = Dims { network: true, network_kind: dims.network_kind, ..Dims::default() };
        let elements: Vec<ElementIx> = elements.iter().copied().collect();
        let number = |value: u128| u64::try_from(value).unwrap_or(u64::MAX);
        let addend = |a: &Addend| AddendFigure { facilities: a.facilities, value: number(a.value) };
        let lines = self.reconcile(asked, scope, &networks, span, &elements).into_iter().map(
            |(element, r)| {
                let kinds = r.in_none_by_kind.iter();
                let figure = ReconciliationFigure {
                    sum_of_groups: addend(&r.sum_of_groups),
                    more_than_once: addend(&r.more_than_once),
                    outside_area: addend(&r.outside_area),
                    in_none: NoneFigure {
                        facilities: r.in_none.facilities,
                        value: number(r.in_none.value),
                        by_kind: Ordered(
                            kinds
                                .map(|(k, a)| {
                                    (self.catalogue.kinds[k.at()].code.to_string(), addend(a))
                                })
                                .collect(),
                        ),
                    },
                    administrative_total: addend(&r.administrative_total),
                };
                (self.catalogue.elements[element.at()].code.to_string(), figure)
            },
        );
        Some(Ordered(lines.collect()))
    }

    /// What each facility adds to a line of the reconciliation of the one element asked for, by its code; where a
    /// kind is named, while it was of that kind. Facilities without a number are not among them.
    ///
    /// # Errors
    /// As [`Engine::query`].
    pub fn reconciled(
        &self,
        request: &QueryRequest,
        (line, kind): (ReconciliationLine, Option<&str>),
        now: Millis,
    ) -> Result<BTreeMap<String, u64>, QueryError> {
        let of_kind = |at: KindIx| {
            kind.is_none_or(|kind| self.catalogue.kinds[at.at()].code.as_str() == kind)
        };
        let span = span_of(&request.period)?;
        let when = self.when(request.membership, request.as_of, now);
        let place = self.place(&request.place, span, when.map)?;
        let network = ["network".to_owned()];
        let dims = dims(self.catalogue, &network, request.network.as_deref())?;
        let dims = self.with_network_kind(dims, place.scope)?;
        let elements = self.elements(&request.elements)?;
        self.wanted(elements.as_deref(), span)?;
        let asked = Asked::new(*self, when);
        let mut out: BTreeMap<String, u128> = BTreeMap::new();
        for element in elements.unwrap_or_default() {
            self.reconcile_cells(&asked, place.scope, &dims, span, element, &mut |unit, cell| {
                if let Some(value) = cell.adds_to(line).filter(|_| of_kind(cell.kind)) {
                    *out.entry(self.organisation.code(unit).to_string()).or_default() += value;
                }
            });
        }
        let number = |value: u128| u64::try_from(value).unwrap_or(u64::MAX);
        Ok(out.into_iter().map(|(code, value)| (code, number(value))).collect())
    }

    /// The reconciliation of the networks' sums to the area's total, for each of `elements` (F5).
    pub(super) fn reconcile(
        &self,
        asked: &Asked<'_>,
        area: Scope,
        networks: &Dims,
        span: Span,
        elements: &[ElementIx],
    ) -> Vec<(ElementIx, Reconciliation)> {
        let mut out = Vec::new();
        for &element in elements {
            let model = &self.catalogue.elements[element.at()];
            if model.scope == ElementScope::Area || model.over_units == OverUnits::None {
                continue;
            }
            let mut sum = Reconciler::default();
            self.reconcile_cells(asked, area, networks, span, element, &mut |_, cell| {
                sum.add(cell)
            });
            out.push((element, sum.finish()));
        }
        out
    }

    /// The cells of a reconciliation: what each unit gave of `element` while its place in the area and its
    /// groups did not change.
    pub(super) fn reconcile_cells(
        &self,
        asked: &Asked<'_>,
        area: Scope,
        networks: &Dims,
        span: Span,
        element: ElementIx,
        each: &mut impl FnMut(UnitIx, Cell),
    ) {
        let stock = self.catalogue.elements[element.at()].over_time.is_stock();
        let days = if stock { (span.last_day(), span.last_day()) } else { days_of(span) };
        let inside = asked.roster(area, &Dims::default(), days);
        let groups = asked.roster(area, networks, days);
        for (unit, place) in places(&inside, &groups) {
            match place {
                Place::Steady { kind, in_area, groups } => {
                    if let Some(value) = self.value_of(asked, element, unit, span, |_| true) {
                        each(unit, Cell { facility: unit.0, kind, in_area, groups, value });
                    }
                }
                Place::Wanders(cuts) => {
                    for (first, last, kind, in_area, groups) in cuts {
                        let here = |day: Date| first <= day && day <= last;
                        if let Some(value) = self.value_of(asked, element, unit, span, here) {
                            each(unit, Cell { facility: unit.0, kind, in_area, groups, value });
                        }
                    }
                }
            }
        }
    }

    /// A unit's figure of an element over a span: a flow's sum over the periods whose duty day `counts`, a
    /// stock's newest value. None if it gave no number.
    fn value_of(
        &self,
        asked: &Asked<'_>,
        element: ElementIx,
        unit: UnitIx,
        span: Span,
        counts: impl Fn(Date) -> bool,
    ) -> Option<u64> {
        let over_time = self.catalogue.elements[element.at()].over_time;
        let mut got = Got::default();
        let mut newest: Option<(Date, Value)> = None;
        for form in self.form_indices() {
            let model = &self.catalogue.forms[form.at()];
            let Some(line) = model.line_of(element) else { continue };
            let Some(slot) = self.slots(form).slot(unit) else { continue };
            let whole = counts(span.first_day()) && counts(span.last_day());
            let mut bundles = bundles(model.period_type, span);
            if let OverTime::Latest { carry_months } = over_time {
                bundles.extend(carried(model.period_type, span, carry_months));
            }
            for bundle in bundles {
                let sheet = asked.sheet(form, bundle);
                let one = if over_time.is_stock() || whole {
                    asked.read(&sheet, line, slot)
                } else {
                    asked.read_some(&sheet, line, unit, &counts)
                };
                if one.last.is_answer() && newest.is_none_or(|(day, _)| day <= bundle.last_day()) {
                    newest = Some((bundle.last_day(), one.last));
                }
                got.then(one);
            }
        }
        if over_time.is_stock() {
            return newest.and_then(|(_, value)| value.number());
        }
        (got.numbers > 0).then_some(got.sum)
    }
}

/// How a unit stands to an area and its groups over some days.
enum Place {
    Steady {
        kind: KindIx,
        in_area: bool,
        groups: u32,
    },
    /// First and last day, kind, whether in the area, in how many groups.
    Wanders(Vec<(Date, Date, KindIx, bool, u32)>),
}

/// How every unit of the area or of a group stands to both.
fn places(inside: &Roster, groups: &Roster) -> BTreeMap<UnitIx, Place> {
    let mut out: BTreeMap<UnitIx, Place> = BTreeMap::new();
    for (roster, area) in [(inside, true), (groups, false)] {
        for group in roster.rows.values().flatten() {
            for unit in &group.units {
                let place = out.entry(*unit).or_insert(Place::Steady {
                    kind: group.kind,
                    in_area: false,
                    groups: 0,
                });
                if let Place::Steady { in_area, groups, .. } = place {
                    *in_area |= area;
                    *groups += u32::from(!area);
                }
            }
        }
    }
    let wander: BTreeSet<UnitIx> =
        inside.wanderers.iter().chain(&groups.wanderers).map(|w| w.unit).collect();
    for unit in wander {
        let of = |roster: &Roster| roster.wanderers.iter().find(|w| w.unit == unit).cloned();
        let (area, groups) = (of(inside), of(groups));
        let steady = match out.get(&unit) {
            Some(Place::Steady { kind, in_area, groups }) => Some((*kind, *in_area, *groups)),
            _ => None,
        };
        let mut days: BTreeSet<Date> = BTreeSet::new();
        let stays = || area.iter().chain(&groups).flat_map(|w| &w.stays);
        for stay in stays() {
            days.insert(stay.first);
            days.insert(stay.last.plus(1));
        }
        // Days on which neither wanders but one is steady lie outside every stay.
        if steady.is_some() {
            days.insert(Date::MIN);
            days.insert(Date::MAX);
        }
        let days: Vec<Date> = days.into_iter().collect();
        let mut cuts = Vec::new();
        for pair in days.windows(2) {
            let (first, last) = (pair[0], pair[1].plus(-1));
            let at = |w: &Option<Wanderer>| {
                let stays = w.iter().flat_map(|w| &w.stays);
                stays.into_iter().find(|s| s.first <= first && first <= s.last).cloned()
            };
            let (a, g) = (at(&area), at(&groups));
            let kind = a.as_ref().or(g.as_ref()).map(|stay| stay.kind);
            let Some(kind) = kind.or(steady.map(|(kind, _, _)| kind)) else { continue };
            let in_area = a.is_some() || (area.is_none() && steady.is_some_and(|(_, is, _)| is));
            let count = match (&g, &groups) {
                (Some(stay), _) => stay.keys.len() as u32,
                (None, Some(_)) => 0,
                (None, None) => steady.map_or(0, |(_, _, n)| n),
            };
            cuts.push((first, last, kind, in_area, count));
        }
        out.insert(unit, Place::Wanders(cuts));
    }
    out
}
