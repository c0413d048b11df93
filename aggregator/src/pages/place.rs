//! The page of a unit or network.

use std::collections::HashMap;

use banyan_shared::catalogue::{Class, NetworkKindIx};
use banyan_shared::figures::MissingWhy;
use banyan_shared::organisation::{Found, NetworkIx, UnitIx};
use banyan_shared::period::{Date, Period, PeriodType, Span};
use maud::{Markup, html};

use super::tables::{self, Part, moment};
use super::{Page, Problem, View, fitted, layout};
use crate::query::{CompletenessFigure, ElementFigure, QueryAnswer, QueryError, RowKey, Trace};
use crate::service::{CompletenessCall, QueryCall, ReportCall};

pub(super) fn page(view: &View<'_>, text: &str) -> Result<Page, Problem> {
    let asked = view.params.period.as_deref().map(str::trim).filter(|text| !text.is_empty());
    let span: Option<Span> = match asked {
        None => None,
        Some(period) => Some(period.parse().map_err(|reason| Problem {
            status: axum::http::StatusCode::BAD_REQUEST,
            text: QueryError::Period { reason }.text(view.lang),
            proposed: Vec::new(),
        })?),
    };
    let found = view.find(text, span.map_or(view.today, Span::last_day))?;
    let code = view.code(found);
    let span = span.unwrap_or_else(|| Span::of(view.usual_period(&code)));
    let place = Place { view, found, code, span, period: span.to_string() };
    let answer = view
        .service
        .figures(&QueryCall {
            unit: place.code.clone(),
            period: place.period.clone(),
            lang: view.lang,
            ..QueryCall::default()
        })
        .map_err(Problem::request)?;
    fitted(view, |rows| place.render(&answer, rows))
}

/// Most networks shown at the top of the tree without being asked for.
const NETWORKS_UNASKED_MAX: usize = 30;

/// The place and period of a page.
struct Place<'v> {
    view: &'v View<'v>,
    found: Found,
    code: String,
    span: Span,
    period: String,
}

/// What makes up the place, and how it is called.
struct Division {
    title: String,
    parts: Vec<Part>,
}

impl Place<'_> {
    fn day(&self) -> Date {
        self.span.last_day()
    }

    fn is_reporter(&self) -> bool {
        let class = |unit| self.view.organisation.class(unit);
        matches!(self.found, Found::Unit(u) if matches!(class(u), Class::Facility | Class::Desk))
    }

    /// This page with other parameters.
    fn link(&self, period: &str, show: Option<&str>, groups: Option<&str>, from: usize) -> String {
        let from = (from > 0).then(|| from.to_string());
        self.view.url(
            &["place", &self.code],
            &[
                ("period", Some(period)),
                ("show", show),
                ("groups", groups),
                ("from", from.as_deref()),
            ],
        )
    }

    fn here(&self, show: Option<&str>, groups: Option<&str>, from: usize) -> String {
        self.link(&self.period, show, groups, from)
    }

    /// The element shown for each part: the one asked for, or the first with a value.
    fn shown(&self, answer: &QueryAnswer) -> Option<String> {
        let asked = self.view.params.show.as_deref();
        if let Some(code) = asked.filter(|code| self.view.catalogue.element(code).is_some()) {
            return Some(code.to_owned());
        }
        let elements = &answer.rows.first()?.elements.0;
        let first = elements.iter().find(|(_, e)| e.value.is_some()).or(elements.first());
        first.map(|(code, _)| code.clone())
    }

    fn render(&self, answer: &QueryAnswer, rows: usize) -> Result<Markup, Problem> {
        let view = self.view;
        let trail = view.trail(self.found, self.day());
        let name = trail.last().map_or_else(|| self.code.clone(), |(_, name)| name.clone());
        let shown = self.shown(answer);
        let groups = self.groups_kind();
        let groups_code = groups.map(|kind| self.network_kind_code(kind));
        let params = (view.params.show.as_deref(), view.params.groups.as_deref());
        let reporter = self.is_reporter();
        let divide = |code: &str| format!("{}#parts", self.here(Some(code), params.1, 0));
        let divide: Option<&dyn Fn(&str) -> String> = if reporter { None } else { Some(&divide) };
        let none = crate::query::Ordered::default();
        let elements = answer.rows.first().map_or(&none, |row| &row.elements);
        let content = html! {
            div.path {
                @for (code, name) in &trail[..trail.len().saturating_sub(1)] {
                    a href=(view.place_url(code, Some(&self.period))) { (name) } " › "
                }
            }
            h1 { (name) " " small { (self.what()) " · " (self.code) } }
            (self.periods())
            (tables::state(view, answer))
            p.jump {
                a href="#elements" { (view.tr("数据", "Figures")) }
                a href="#parts" { @if reporter { (view.tr("报表", "Reports")) } @else { (view.tr("构成", "Parts")) } }
                @if groups.is_some() { a href="#groups" { (view.tr("网络与对账", "Networks and reconciliation")) } }
                a href="#forms" { (view.tr("各报表完整性", "Completeness by form")) }
            }
            @if reporter { (self.memberships()) (self.reports(rows)?) }
            (tables::elements(view, elements, divide))
            @if !reporter {
                (self.division(shown.as_deref(), rows)?)
                @if let Some(kind) = groups { (self.networks(kind, shown.as_deref(), rows)?) }
            }
            (tables::forms(view, &answer.completeness))
        };
        let other = layout::other_lang(
            view,
            &["place", &self.code],
            &[
                ("period", Some(&self.period)),
                ("show", params.0),
                ("groups", groups_code.filter(|_| params.1.is_some())),
            ],
        );
        Ok(layout::frame(view, &format!("{name} {}", self.period), &other, content))
    }

    /// The place's kind.
    fn what(&self) -> String {
        let org = &self.view.organisation;
        match self.found {
            Found::Unit(unit) => {
                let kind = org.kind_on(unit, self.day());
                self.view.catalogue.kinds[kind.at()].name.get(self.view.lang).to_owned()
            }
            Found::Network(network) => {
                let kind = org.network_info(network).kind;
                self.view.catalogue.network_kinds[kind.at()].name.get(self.view.lang).to_owned()
            }
        }
    }

    fn network_kind_code(&self, kind: NetworkKindIx) -> &str {
        self.view.catalogue.network_kinds[kind.at()].code.as_str()
    }

    /// Links to the periods around this one.
    fn periods(&self) -> Markup {
        let view = self.view;
        let show = view.params.show.as_deref();
        let groups = view.params.groups.as_deref();
        let link = |period: Period| self.link(&period.to_string(), show, groups, 0);
        let single = self.span.single();
        let wider: Vec<Period> = [PeriodType::Month, PeriodType::Quarter, PeriodType::Year]
            .into_iter()
            .map(|kind| Period::containing(kind, self.day()))
            .filter(|wide| single.is_some_and(|p| *wide != p && wide.contains(p)))
            .collect();
        html! {
            div.periods {
                @if let Some(period) = single { a rel="prev" href=(link(period.plus(-1))) { "← " (period.plus(-1)) } }
                b { (self.period) }
                @if let Some(next) = single.map(|p| p.plus(1)).filter(|p| p.first_day() <= view.today) {
                    a rel="next" href=(link(next)) { (next) " →" }
                }
                @for wide in wider { a href=(link(wide)) { (wide) } }
                form action=(view.url(&["place", &self.code], &[])) method="get" {
                    @if view.lang == banyan_shared::catalogue::Lang::En { input type="hidden" name="lang" value="en"; }
                    input type="text" name="period" size="18" maxlength="30" value=(self.period) title="2026-01  2026Q1  2026  2026-01..2026-03";
                    " " button type="submit" { (view.tr("换统计期", "Other period")) }
                }
            }
        }
    }

    /// The networks a facility is in.
    fn memberships(&self) -> Markup {
        let view = self.view;
        let org = &view.organisation;
        let Found::Unit(unit) = self.found else { return html! {} };
        let networks = org.memberships_on(unit, self.day(), None);
        html! {
            @if !networks.is_empty() {
                p {
                    span.dim { (view.tr("所在网络：", "Networks: ")) }
                    @for (at, (network, roles)) in networks.iter().enumerate() {
                        @if at > 0 { " · " }
                        a href=(view.place_url(org.network_code(*network).as_str(), Some(&self.period))) { (org.network_info(*network).name) }
                        " " span.dim { (self.role_names(*roles).join(view.tr("、", ", "))) }
                    }
                }
            }
        }
    }

    fn role_names(&self, roles: banyan_shared::organisation::RoleSet) -> Vec<String> {
        let catalogue = &self.view.catalogue;
        roles.iter().map(|r| catalogue.roles[r.at()].name.get(self.view.lang).to_owned()).collect()
    }

    /// The reports of a facility in the span.
    fn reports(&self, rows: usize) -> Result<Markup, Problem> {
        let view = self.view;
        let Found::Unit(unit) = self.found else { return Ok(html! {}) };
        let spells = &view.organisation.info(unit).spells;
        let mut asked: Vec<(String, Period)> = Vec::new();
        for form in &view.catalogue.forms {
            if !spells.iter().any(|spell| form.kinds.contains(&spell.kind)) {
                continue;
            }
            let mut periods: Vec<Period> = self.span.parts(form.period_type).collect();
            if periods.is_empty() {
                periods.push(Period::containing(form.period_type, self.day()));
            }
            asked.extend(periods.into_iter().map(|period| (form.code.to_string(), period)));
        }
        let window = layout::window(view, asked.len(), rows);
        let traces = asked[window.clone()]
            .iter()
            .map(|(form, period)| {
                let call = ReportCall {
                    facility: self.code.clone(),
                    form: form.clone(),
                    period: period.to_string(),
                    lang: view.lang,
                    ..ReportCall::default()
                };
                view.service.trace(&call).map_err(Problem::request)
            })
            .collect::<Result<Vec<Trace>, Problem>>()?;
        let told = |t: &&Trace| t.status != "not_expected" || t.versions > 0;
        let link = |from| format!("{}#parts", self.here(None, None, from));
        Ok(html! {
            h2 id="parts" { (view.tr("本期报表", "Reports of the period")) }
            table.list {
                thead { tr {
                    th { (view.tr("报表", "Form")) } th { (view.tr("统计期", "Period")) } th { (view.tr("状态", "Status")) }
                    th { (view.tr("截止", "Due")) } th { (view.tr("收到", "Arrived")) } th.n { (view.tr("版本", "Versions")) }
                } }
                tbody {
                    @for t in traces.iter().filter(told) {
                        tr {
                            td { (view.form_name(&t.form)) " " span.code { (t.form) } }
                            td.nowrap { a href=(view.url(&["report", &t.facility, &t.form, &t.period], &[])) { (t.period) } }
                            td { (status(view, t)) }
                            td.nowrap { @if let Some(due) = &t.due { (moment(due)) } }
                            td.nowrap { @if let Some(at) = &t.arrived { (moment(at)) } }
                            td.n { @if t.versions > 0 { (t.versions) } }
                        }
                    }
                }
            }
            (layout::pager(view, window, asked.len(), link))
        })
    }

    /// Children, or members.
    fn division(&self, shown: Option<&str>, rows: usize) -> Result<Markup, Problem> {
        let view = self.view;
        let division = match self.found {
            Found::Unit(unit) => self.children(unit, shown)?,
            Found::Network(network) => self.members(network, shown)?,
        };
        let window = layout::window(view, division.parts.len(), rows);
        let link = |from| {
            let params = (view.params.show.as_deref(), view.params.groups.as_deref());
            format!("{}#parts", self.here(params.0, params.1, from))
        };
        let area: &[UnitIx] = match self.found {
            Found::Network(network) => &view.organisation.network_info(network).area,
            Found::Unit(_) => &[],
        };
        let kind = match self.found {
            Found::Network(n) => {
                Some(self.network_kind_code(view.organisation.network_info(n).kind))
            }
            Found::Unit(_) => None,
        };
        Ok(html! {
            h2 id="parts" { (division.title) " " small { (division.parts.len()) } }
            @if !area.is_empty() {
                p {
                    span.dim { (view.tr("服务地区（网络与行政合计的对账在该页）：", "Area served (its page reconciles networks and total): ")) }
                    @for unit in area {
                        @let code = view.organisation.code(*unit).as_str();
                        a href=(format!("{}#groups", view.url(&["place", code], &[("period", Some(&self.period)), ("groups", kind)]))) {
                            (view.organisation.name_on(*unit, self.day(), view.lang))
                        } " "
                    }
                }
            }
            (tables::parts(view, &division.parts[window.clone()], &self.period, shown))
            (layout::pager(view, window, division.parts.len(), link))
        })
    }

    fn children(&self, unit: UnitIx, shown: Option<&str>) -> Result<Division, Problem> {
        let view = self.view;
        let mut found = self.divided("children", None, shown, |key| key.unit.clone())?;
        let mut parts: Vec<Part> = Vec::new();
        for child in view.organisation.children_on(unit, self.day()) {
            parts.push(self.unit_part(child, Vec::new(), &mut found));
        }
        self.add_others(&mut parts, found);
        Ok(Division { title: view.tr("下级", "Below").to_owned(), parts })
    }

    fn members(&self, network: NetworkIx, shown: Option<&str>) -> Result<Division, Problem> {
        let view = self.view;
        let mut found = self.divided("facility", None, shown, |key| key.unit.clone())?;
        let mut parts: Vec<Part> = Vec::new();
        for member in view.organisation.members_on(network, self.day()) {
            let roles = self.role_names(member.roles);
            parts.push(self.unit_part(member.unit, roles, &mut found));
        }
        self.add_others(&mut parts, found);
        Ok(Division { title: view.tr("成员", "Members").to_owned(), parts })
    }

    /// Parts of the period that are no longer there on its last day.
    fn add_others(&self, parts: &mut Vec<Part>, mut found: Divided) {
        let mut codes: Vec<String> =
            found.completeness.keys().chain(found.figures.keys()).cloned().collect();
        codes.sort_unstable();
        codes.dedup();
        for code in codes {
            if code == self.code {
                continue;
            }
            if let Some(unit) = self.view.organisation.unit(&code) {
                let left = self.view.tr("期末已不在", "no longer there at its end").to_owned();
                parts.push(self.unit_part(unit, vec![left], &mut found));
            }
        }
    }

    fn unit_part(&self, unit: UnitIx, mut more: Vec<String>, found: &mut Divided) -> Part {
        let org = &self.view.organisation;
        let code = org.code(unit).to_string();
        let kind = org.kind_on(unit, self.day());
        more.insert(0, self.view.catalogue.kinds[kind.at()].name.get(self.view.lang).to_owned());
        Part {
            name: org.name_on(unit, self.day(), self.view.lang).to_owned(),
            what: more,
            completeness: found.completeness.remove(&code),
            figure: found.figures.remove(&code),
            code,
        }
    }

    /// Completeness and one element of each part.
    fn divided(
        &self,
        by: &str,
        network: Option<&str>,
        shown: Option<&str>,
        code: impl Fn(&RowKey) -> Option<String>,
    ) -> Result<Divided, Problem> {
        let mut found = Divided::default();
        let call = CompletenessCall {
            unit: self.code.clone(),
            period: self.period.clone(),
            by: vec![by.to_owned()],
            network: network.map(str::to_owned),
            lang: self.view.lang,
            ..CompletenessCall::default()
        };
        for row in self.view.service.complete(&call).map_err(Problem::request)?.rows {
            if let Some(code) = code(&row.key) {
                found.completeness.insert(code, row.total);
            }
        }
        let Some(element) = shown else { return Ok(found) };
        let call = QueryCall {
            unit: self.code.clone(),
            period: self.period.clone(),
            by: vec![by.to_owned()],
            network: network.map(str::to_owned),
            element: vec![element.to_owned()],
            lang: self.view.lang,
            ..QueryCall::default()
        };
        let answer = self.view.service.figures(&call).map_err(Problem::request)?;
        for row in answer.rows {
            let figure = row.elements.0.into_iter().next();
            if let (Some(code), Some((_, figure))) = (code(&row.key), figure) {
                found.figures.insert(code, figure);
            }
        }
        found.reconciliation = answer.reconciliation;
        Ok(found)
    }

    /// The kinds of network that serve this unit or a part of it.
    fn network_kinds(&self) -> Vec<NetworkKindIx> {
        let org = &self.view.organisation;
        let Found::Unit(unit) = self.found else { return Vec::new() };
        if self.is_reporter() {
            return Vec::new();
        }
        let mut kinds: Vec<NetworkKindIx> = org
            .networks()
            .filter(|n| org.is_in_force(*n, self.day()))
            .map(|n| org.network_info(n))
            .filter(|info| info.area.iter().any(|area| org.is_below(*area, unit, self.day())))
            .map(|info| info.kind)
            .collect();
        kinds.sort_unstable();
        kinds.dedup();
        kinds
    }

    /// The kind of network by which the unit is divided: the one asked for, or the first.
    fn groups_kind(&self) -> Option<NetworkKindIx> {
        let kinds = self.network_kinds();
        let asked = self.view.params.groups.as_deref();
        let asked = asked.and_then(|code| self.view.catalogue.network_kind(code));
        asked.filter(|kind| kinds.contains(kind)).or(kinds.first().copied())
    }

    /// The networks of a unit, and how their sum leads to its total.
    fn networks(
        &self,
        kind: NetworkKindIx,
        shown: Option<&str>,
        rows: usize,
    ) -> Result<Markup, Problem> {
        let view = self.view;
        let code = self.network_kind_code(kind);
        let name = |kind: NetworkKindIx| {
            view.catalogue.network_kinds[kind.at()].name.get(view.lang).to_owned()
        };
        // A province's networks are a long list, and long to work out: shown when asked for.
        let top = matches!(self.found, Found::Unit(u) if view.organisation.parent_on(u, self.day()).is_none());
        let many =
            view.organisation.networks_of_kind_on(kind, self.day()).len() > NETWORKS_UNASKED_MAX;
        let unasked = view.params.groups.is_none() && top && many;
        let mut found = if unasked {
            Divided::default()
        } else {
            self.divided("network", Some(code), shown, |key| key.network.clone())?
        };
        let mut codes: Vec<String> = found.completeness.keys().cloned().collect();
        codes
            .extend(found.figures.keys().filter(|c| !found.completeness.contains_key(*c)).cloned());
        codes.sort_unstable();
        let all = codes.len();
        let parts: Vec<Part> = codes
            .into_iter()
            .take(rows)
            .map(|code| {
                let network = view.organisation.network(&code);
                Part {
                    name: network.map_or_else(
                        || code.clone(),
                        |n| view.organisation.network_info(n).name.to_string(),
                    ),
                    what: vec![name(kind)],
                    completeness: found.completeness.remove(&code),
                    figure: found.figures.remove(&code),
                    code,
                }
            })
            .collect();
        let line =
            shown.and_then(|element| Some((element, found.reconciliation.as_ref()?.get(element)?)));
        let show = view.params.show.as_deref();
        Ok(html! {
            h2 id="groups" {
                @if unasked { (view.tr("网络与对账", "Networks and reconciliation")) } @else { (name(kind)) " " small { (all) } }
            }
            p.jump {
                @for other in self.network_kinds() {
                    @if other == kind && !unasked { b { (name(other)) } " " } @else {
                        a href=(format!("{}#groups", self.here(show, Some(self.network_kind_code(other)), 0))) { (name(other)) } " "
                    }
                }
            }
            @if !unasked { (tables::parts(view, &parts, &self.period, shown)) }
            @if all > parts.len() { p.dim { "… " (all - parts.len()) } }
            @if let Some((element, line)) = line { (tables::reconciliation(view, element, line)) }
        })
    }
}

/// Completeness and figures by code.
#[derive(Default)]
struct Divided {
    completeness: HashMap<String, CompletenessFigure>,
    figures: HashMap<String, ElementFigure>,
    reconciliation: Option<crate::query::Ordered<crate::query::ReconciliationFigure>>,
}

/// The standing of a report in words.
pub(super) fn status(view: &View<'_>, trace: &Trace) -> Markup {
    let text = crate::query::status_text(&trace.status, view.lang);
    let class = match trace.status.as_str() {
        "on_time" => "good",
        "late" | "unexpected" => "part",
        "missing" => "bad",
        _ => "dim",
    };
    let why = trace.missing_why.as_deref().and_then(MissingWhy::from_code);
    html! {
        span class=(class) { (text) }
        @if let Some(why) = why { span.dim { " · " (why.text(view.lang)) } }
        @if trace.heads > 1 { " " span.bad { (view.tr("冲突", "conflict")) } }
    }
}
