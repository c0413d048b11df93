//! The lists behind a reconciliation: which facilities make up a line, and what each adds to it.
//!
//! Listed are those that add something to the line over the period, and those that stand in it on the map, or
//! on the last day of the period where each period has its own: whoever has not reported is listed too.

use std::collections::{BTreeMap, HashSet};

use banyan_shared::catalogue::{Class, Lang, NetworkKindIx};
use banyan_shared::figures::ReconciliationLine;
use banyan_shared::organisation::{Found, NetworkIx, UnitIx};
use banyan_shared::period::Date;
use maud::{Markup, html};

use super::{Page, Problem, View, fitted, layout, selectors};
use crate::query::grouped;

/// A line of the reconciliation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Which {
    /// Members of any of the networks.
    Groups,
    /// Members of several.
    Repeated,
    /// Members that lie outside the area.
    Outside,
    /// In the area and in none of the networks.
    None,
    /// All of the area.
    Total,
}

impl Which {
    const ALL: [Which; 5] =
        [Which::Groups, Which::Repeated, Which::Outside, Which::None, Which::Total];

    /// As it stands in an address.
    pub(super) fn code(self) -> &'static str {
        match self {
            Which::Groups => "groups",
            Which::Repeated => "repeated",
            Which::Outside => "outside",
            Which::None => "none",
            Which::Total => "total",
        }
    }

    fn line(self) -> ReconciliationLine {
        match self {
            Which::Groups => ReconciliationLine::Groups,
            Which::Repeated => ReconciliationLine::Repeated,
            Which::Outside => ReconciliationLine::Outside,
            Which::None => ReconciliationLine::None,
            Which::Total => ReconciliationLine::Total,
        }
    }

    fn title(self, view: &View<'_>) -> &'static str {
        match self {
            Which::Groups => view.tr("任一网络的成员机构", "Facilities in any of the networks"),
            Which::Repeated => view.tr("加入多个网络的机构", "Facilities in several networks"),
            Which::Outside => view.tr("辖区以外的成员机构", "Member facilities outside the area"),
            Which::None => view.tr("未入任何网络的机构", "Facilities in none of the networks"),
            Which::Total => view.tr("辖区全部机构", "All facilities of the area"),
        }
    }
}

/// A facility of the list.
struct Listed {
    unit: UnitIx,
    networks: Vec<NetworkIx>,
}

pub(super) fn page(view: &View<'_>, text: &str, which: &str) -> Result<Page, Problem> {
    let known = |which: &str| Which::ALL.into_iter().find(|one| one.code() == which);
    let which = known(which).ok_or_else(|| {
        let names: Vec<&str> = Which::ALL.iter().map(|one| one.code()).collect();
        unknown(view, ("名单", "list"), which, &names)
    })?;
    let (found, span) = view.place_and_span(text)?;
    let Found::Unit(area) = found else {
        return Err(Problem::bad_request(
            view.tr(
                "名单按行政区列出，请选县、市或省",
                "lists are of places: choose a county, city or province",
            )
            .to_owned(),
        ));
    };
    let day = view.map_day().unwrap_or(span.last_day());
    let org = &view.organisation;
    let catalogue = &view.catalogue;
    let asked = match view.params.groups.as_deref() {
        None => None,
        Some(code) => Some(catalogue.network_kind(code).ok_or_else(|| {
            let known = catalogue.network_kinds.iter().map(|kind| kind.code.as_str());
            unknown(view, ("网络类型", "kind of network"), code, &known.collect::<Vec<_>>())
        })?),
    };
    let of_place = || super::place::network_kinds(view, area, day).into_iter().next();
    let Some(kind) = asked.or_else(of_place) else {
        return Err(Problem::bad_request(
            view.tr("这里没有任何网络", "there is no network here").to_owned(),
        ));
    };
    view.allow(found, Some(span))?;
    let beyond = !matches!(which, Which::None | Which::Total);
    if beyond && !view.allows_networks_of(area, kind, span) {
        return Err(view.outside(view.catalogue.network_kinds[kind.at()].code.as_ref()));
    }
    view.note_read(&format!("{} {} {span}", view.code(found), which.code()))?;
    let only = match view.params.kind.as_deref() {
        None => None,
        Some(code) => Some(catalogue.kind(code).ok_or_else(|| {
            let known = catalogue.kinds.iter().map(|kind| kind.code.as_str());
            unknown(view, ("机构类型", "kind of facility"), code, &known.collect::<Vec<_>>())
        })?),
    };
    let mut place = List {
        view,
        area,
        kind,
        day,
        which,
        period: span.to_string(),
        list: facilities(view, area, kind, day, which),
    };
    let values = place.values()?;
    let listed: HashSet<UnitIx> = place.list.iter().map(|one| one.unit).collect();
    for unit in values.keys().filter_map(|code| org.unit(code)) {
        if !listed.contains(&unit) {
            place.list.push(Listed { unit, networks: org.networks_of(unit, day, Some(kind)) });
        }
    }
    // Who was of that kind while it reported is in the line too, whatever it is on that day.
    let adds = |unit: UnitIx| values.contains_key(org.code(unit).as_str());
    place
        .list
        .retain(|one| only.is_none_or(|only| adds(one.unit) || org.kind_on(one.unit, day) == only));
    fitted(view, |rows| Ok(place.render(&values, rows)))
}

/// A code that names nothing, and those that do. `what` is its sort, in Chinese and English.
fn unknown(view: &View<'_>, what: (&str, &str), code: &str, known: &[&str]) -> Problem {
    Problem::bad_request(match view.lang {
        Lang::Zh => format!("没有“{code}”这种{}；可用：{}", what.0, known.join("、")),
        Lang::En => format!("there is no {} {code:?}; there are {}", what.1, known.join(", ")),
    })
}

/// The facilities of a line, in administrative order.
fn facilities(
    view: &View<'_>,
    area: UnitIx,
    kind: NetworkKindIx,
    day: Date,
    which: Which,
) -> Vec<Listed> {
    let org = &view.organisation;
    let facility = |unit: &UnitIx| org.class(*unit) == Class::Facility;
    let inside: Vec<UnitIx> =
        org.facilities_below(area, day).into_iter().filter(facility).collect();
    let networks = |unit: UnitIx| org.networks_of(unit, day, Some(kind));
    if matches!(which, Which::None | Which::Total) {
        let listed = |unit: UnitIx| Listed { unit, networks: networks(unit) };
        let all = inside.into_iter().map(listed);
        return all.filter(|one| which == Which::Total || one.networks.is_empty()).collect();
    }
    // The networks that serve the area or have a member in it, with all their members.
    let mut touching: Vec<NetworkIx> = inside.iter().flat_map(|unit| networks(*unit)).collect();
    let serves =
        |n: &NetworkIx| org.network_info(*n).area.iter().any(|unit| org.is_below(*unit, area, day));
    touching.extend(org.networks_of_kind_on(kind, day).into_iter().filter(serves));
    touching.sort_unstable();
    touching.dedup();
    let mut units: Vec<UnitIx> =
        touching.iter().flat_map(|n| org.facilities_in(*n, day)).filter(facility).collect();
    units.sort_unstable();
    units.dedup();
    units
        .into_iter()
        .map(|unit| {
            let mut networks = networks(unit);
            networks.retain(|n| touching.contains(n));
            Listed { unit, networks }
        })
        .filter(|one| match which {
            Which::Repeated => one.networks.len() > 1,
            Which::Outside => !org.is_below(one.unit, area, day),
            _ => true,
        })
        .collect()
}

/// A list and what it is of.
struct List<'v> {
    view: &'v View<'v>,
    area: UnitIx,
    kind: NetworkKindIx,
    day: Date,
    which: Which,
    period: String,
    list: Vec<Listed>,
}

impl List<'_> {
    fn code(&self) -> String {
        self.view.organisation.code(self.area).to_string()
    }

    fn kind_code(&self) -> &str {
        self.view.catalogue.network_kinds[self.kind.at()].code.as_str()
    }

    /// The element shown, if it is one.
    fn element(&self) -> Option<&str> {
        let code = self.view.params.show.as_deref()?;
        self.view.catalogue.element(code).map(|_| code)
    }

    /// What each facility adds to the line of the element shown; of the kind shown, if it is one.
    fn values(&self) -> Result<BTreeMap<String, u64>, Problem> {
        let view = self.view;
        let Some(element) = self.element() else { return Ok(BTreeMap::new()) };
        let mut call = view.question(&self.code(), &self.period);
        call.network = Some(self.kind_code().to_owned());
        call.element = vec![element.to_owned()];
        let kind = view.params.kind.as_deref();
        view.service.reconciled(&call, self.which.line(), kind).map_err(Problem::request)
    }

    fn link(&self, which: Which, kind: Option<&str>, from: usize) -> String {
        let from = (from > 0).then(|| from.to_string());
        let code = self.code();
        self.view.url(
            &["list", &code, which.code()],
            &[
                ("period", Some(&self.period)),
                ("groups", Some(self.kind_code())),
                ("show", self.view.params.show.as_deref()),
                ("kind", kind),
                ("from", from.as_deref()),
            ],
        )
    }

    /// How many there are of each kind, in the catalogue's order.
    fn by_kind(&self) -> Vec<(usize, usize)> {
        let org = &self.view.organisation;
        let mut counts = vec![0; self.view.catalogue.kinds.len()];
        for one in &self.list {
            counts[org.kind_on(one.unit, self.day).at()] += 1;
        }
        counts.into_iter().enumerate().filter(|(_, n)| *n > 0).collect()
    }

    fn render(&self, values: &BTreeMap<String, u64>, rows: usize) -> Markup {
        let view = self.view;
        let org = &view.organisation;
        let window = layout::window(view, self.list.len(), rows);
        let area = org.name_on(self.area, self.day, view.lang);
        let network = view.catalogue.network_kinds[self.kind.at()].name.get(view.lang);
        let only = view.params.kind.as_deref();
        let element = self.element();
        let path = view.trail(Found::Unit(self.area), self.day);
        let back = view.url(
            &["place", &self.code()],
            &[
                ("period", Some(&self.period)),
                ("groups", Some(self.kind_code())),
                ("show", view.params.show.as_deref()),
            ],
        );
        let place = |unit: UnitIx| {
            let above = org.path(unit, self.day);
            let names = above.iter().take(above.len().saturating_sub(1));
            names.map(|u| org.name_on(*u, self.day, view.lang)).collect::<Vec<_>>().join(" › ")
        };
        // What is listed is all of the line, and nothing is left out of the sum: it is the line's own.
        let sum = values.values().fold(0_u64, |sum, n| sum.saturating_add(*n));
        let content = html! {
            (layout::trail(view, &path, &self.period))
            h1 { (self.which.title(view)) " " small { (area) " · " (network) " · " (self.period) } }
            (selectors::notice(view, &view.usual_url(&["list", &self.code(), self.which.code()], &self.params())))
            p.dim {
                (view.tr("归属取 ", "Membership on ")) (self.day) " · "
                a href=(format!("{back}#reconciliation")) { (view.tr("返回对账", "back to the reconciliation")) }
            }
            p.jump {
                @for which in Which::ALL {
                    @if which == self.which && only.is_none() { b { (which.title(view)) } " " }
                    @else { a href=(self.link(which, None, 0)) { (which.title(view)) } " " }
                }
            }
            @if only.is_none() && self.list.len() > 1 {
                p { (view.tr("按类型：", "By kind: "))
                    @for (at, n) in self.by_kind() {
                        @let kind = &view.catalogue.kinds[at];
                        a href=(self.link(self.which, Some(kind.code.as_str()), 0)) { (kind.name.get(view.lang)) } " " b { (n) } " "
                    }
                }
            }
            @if let Some(element) = element {
                p { (view.element_name(element)) (view.tr("：", ": ")) b { (grouped(sum)) } " " span.dim {
                    @if only.is_some() { (view.tr("（该类型在本行中的数）", "(of this kind in the line)")) }
                    @else { (view.tr("（与对账中的这一行相同）", "(the line of the reconciliation)")) }
                } }
            }
            @if self.list.is_empty() {
                p.none { (view.tr("没有这样的机构", "There is no such facility")) }
            } @else {
                div.wide { table.list {
                    thead { tr {
                        th scope="col" { (view.tr("机构", "Facility")) } th scope="col" { (view.tr("类型", "Kind")) }
                        th scope="col" { (view.tr("所在", "Where")) } th scope="col" { (network) }
                        @if let Some(element) = element {
                            th.n scope="col" { (view.element_name(element)) }
                        }
                    } }
                    tbody {
                        @for one in &self.list[window.clone()] {
                            @let code = org.code(one.unit).as_str();
                            tr {
                                td { a href=(view.place_url(code, Some(&self.period))) title=(code) { (org.name_on(one.unit, self.day, view.lang)) } }
                                td { (view.catalogue.kinds[org.kind_on(one.unit, self.day).at()].name.get(view.lang)) }
                                td.dim { (place(one.unit)) }
                                td {
                                    @for (at, n) in one.networks.iter().enumerate() {
                                        @if at > 0 { (view.tr("、", ", ")) }
                                        a href=(view.place_url(org.network_code(*n).as_str(), Some(&self.period))) { (org.network_info(*n).name) }
                                    }
                                    @if one.networks.is_empty() { span.dim { (view.tr("无", "none")) } }
                                }
                                @if element.is_some() { td.n { @match values.get(code) {
                                    Some(value) => span.big { (grouped(*value)) },
                                    None => span.none { (view.tr("— 无数", "— no number")) },
                                } } }
                            }
                        }
                    }
                } }
                (layout::pager(view, window, self.list.len(), |from| self.link(self.which, only, from)))
            }
        };
        let title = format!("{} {area} {}", self.which.title(view), self.period);
        layout::frame(view, &title, &self.other_lang(), content)
    }

    fn other_lang(&self) -> String {
        let code = self.code();
        layout::other_lang(self.view, &["list", &code, self.which.code()], &self.params())
    }

    /// What this list was asked for.
    fn params(&self) -> [(&str, Option<&str>); 4] {
        [
            ("period", Some(&self.period)),
            ("groups", Some(self.kind_code())),
            ("show", self.view.params.show.as_deref()),
            ("kind", self.view.params.kind.as_deref()),
        ]
    }
}
