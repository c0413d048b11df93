//! The page of a unit or network.

use std::collections::HashMap;

use banyan_shared::catalogue::{NetworkKindIx, Scope};
use banyan_shared::figures::MissingWhy;
use banyan_shared::organisation::{Found, NetworkIx, UnitIx};
use banyan_shared::period::{Date, Period, Span};
use maud::{Markup, html};

use super::list::Which;
use super::tables::{self, Figure, Part, moment};
use super::{Page, Problem, View, deadline, fitted, headline, layout, report, selectors};
use crate::query::{BrokenRow, CompletenessFigure, QueryAnswer, RowKey, Trace};
use crate::service::{AnomaliesCall, ReportCall};

pub(super) fn page(view: &View<'_>, text: &str) -> Result<Page, Problem> {
    let (found, span) = view.place_and_span(text)?;
    view.allow(found, Some(span))?;
    let code = view.code(found);
    if crate::access::shows_sites(&view.organisation, found, span.last_day()) {
        view.note_read(&format!("{code} {span}"))?;
    }
    let mut place = Place { view, found, code, span, period: span.to_string(), kinds: Vec::new() };
    if let Found::Unit(unit) = found
        && !view.is_reporter(found)
    {
        place.kinds = network_kinds(view, unit, place.day());
    }
    let call = view.question(&place.code, &place.period);
    let answer = view.service.figures(&call).map_err(Problem::request)?;
    let made = place.made(&answer)?;
    fitted(view, |rows| place.render(&answer, &made, rows))
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
    /// The kinds of network by which it can be divided.
    kinds: Vec<NetworkKindIx>,
}

/// What makes up the place, and how it is called.
struct Division {
    title: String,
    parts: Vec<Part>,
    /// Completeness of each form, of the whole.
    forms: Vec<(String, CompletenessFigure)>,
}

/// The networks of a unit, and how their sum leads to its total.
struct Networks {
    kind: NetworkKindIx,
    /// None where they are a long list nobody asked for.
    shown: Option<(Vec<Part>, Markup)>,
}

/// What the parts and forms of a place come to.
struct Parted {
    division: Option<Division>,
    /// Completeness of each form, of the whole.
    forms: Vec<(String, CompletenessFigure)>,
    /// What is due next.
    next: Vec<deadline::Next>,
}

/// Everything asked of the service for a page, however many rows of it are then shown.
struct Made {
    first: Markup,
    state: Markup,
    forms: Markup,
    division: Option<Division>,
    networks: Option<Networks>,
    /// What a network's facilities together break.
    broken: Vec<BrokenRow>,
    shown: Option<String>,
}

impl Place<'_> {
    /// The day whose map is shown.
    fn day(&self) -> Date {
        self.view.map_day().unwrap_or(self.span.last_day())
    }

    fn is_reporter(&self) -> bool {
        self.view.is_reporter(self.found)
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

    /// The figure shown for each part: the one asked for, or the element most are asked.
    fn shown(&self, answer: &QueryAnswer) -> Option<String> {
        let catalogue = &self.view.catalogue;
        let is_known =
            |code: &&str| catalogue.element(code).is_some() || catalogue.indicator(code).is_some();
        if let Some(code) = self.view.params.show.as_deref().filter(is_known) {
            return Some(code.to_owned());
        }
        let elements = &answer.rows.first()?.elements;
        // What most are asked, and of that the first of the catalogue.
        let most = elements.iter().map(|(_, e)| e.facilities_expected).max()?;
        let first = elements.iter().find(|(_, e)| e.facilities_expected == most);
        first.map(|(code, _)| code.to_owned())
    }

    fn shown_name<'c>(&'c self, code: &'c str) -> &'c str {
        if self.view.catalogue.element(code).is_some() {
            self.view.element_name(code)
        } else {
            self.view.indicator_name(code)
        }
    }

    fn made(&self, answer: &QueryAnswer) -> Result<Made, Problem> {
        let view = self.view;
        let shown = self.shown(answer);
        let reporter = self.is_reporter();
        let divided = |code: &str| {
            let anchor = if reporter { "" } else { "#parts" };
            format!("{}{anchor}", self.here(Some(code), view.params.groups.as_deref(), 0))
        };
        // What a province's parts come to and its trends are two questions of the longest: asked at once.
        let (parted, first) = std::thread::scope(|scope| {
            let parted = scope.spawn(|| self.parted(shown.as_deref()));
            let first = headline::cards(view, self.found, self.span, answer, &divided);
            (parted.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)), first)
        });
        let Parted { division, forms, next } = parted?;
        let networks = match self.groups_kind() {
            Some(kind) if !reporter && self.may_show_networks(kind) => {
                Some(self.networks(kind, shown.as_deref())?)
            }
            _ => None,
        };
        Ok(Made {
            first,
            state: tables::state(view, answer, &next),
            forms: tables::forms(view, &forms),
            division,
            networks,
            broken: self.broken()?,
            shown,
        })
    }

    /// The parts of the place, and what its forms come to.
    fn parted(&self, shown: Option<&str>) -> Result<Parted, Problem> {
        let view = self.view;
        let mut division = match self.found {
            _ if self.is_reporter() => None,
            Found::Unit(unit) => Some(self.children(unit, shown)?),
            Found::Network(network) => Some(self.members(network, shown)?),
        };
        let forms = match &mut division {
            Some(division) => std::mem::take(&mut division.forms),
            None => {
                let call = view.completeness(&self.code, &self.period);
                view.service.complete(&call).map_err(Problem::request)?.forms
            }
        };
        let codes: Vec<String> = forms.iter().map(|(form, _)| form.clone()).collect();
        // What comes next is asked of now, whatever the moment of the page.
        let next = match view.as_of {
            None => deadline::next(view, self.found, &codes),
            Some(_) => Vec::new(),
        };
        Ok(Parted { division, forms, next })
    }

    /// The rules over a network's facilities together that are broken.
    fn broken(&self) -> Result<Vec<BrokenRow>, Problem> {
        if !matches!(self.found, Found::Network(_)) {
            return Ok(Vec::new());
        }
        let call = AnomaliesCall {
            unit: self.code.clone(),
            period: self.period.clone(),
            scope: Some("cross_site".to_owned()),
            as_of: self.view.as_of_text(),
            lang: self.view.lang,
            ..AnomaliesCall::default()
        };
        Ok(self.view.service.broken(&call).map_err(Problem::request)?.rows)
    }

    fn render(&self, answer: &QueryAnswer, made: &Made, rows: usize) -> Result<Markup, Problem> {
        let view = self.view;
        let trail = view.trail(self.found, self.day());
        let name = trail.last().map_or_else(|| self.code.clone(), |(_, name)| name.clone());
        let (show, groups) = (view.params.show.as_deref(), view.params.groups.as_deref());
        let reporter = self.is_reporter();
        let divide = |code: &str| format!("{}#parts", self.here(Some(code), groups, 0));
        let divide: Option<&dyn Fn(&str) -> String> = if reporter { None } else { Some(&divide) };
        let row = answer.rows.first().cloned().unwrap_or_default();
        let row = &*row;
        let params = [("period", Some(self.period.as_str())), ("show", show), ("groups", groups)];
        let action = address(&self.code);
        let content = html! {
            (layout::trail(view, &trail[..trail.len().saturating_sub(1)], &self.period))
            h1 { (name) " " small { (self.what()) " · " (self.code) } }
            (selectors::line(view, self.span, &action, &[("show", show), ("groups", groups)], |period| self.link(period, show, groups, 0)))
            (selectors::notice(view, &view.usual_url(&["place", &self.code], &params)))
            (made.state)
            @if reporter { (self.memberships()) }
            (made.first)
            p.jump {
                @if reporter { a href="#parts" { (view.tr("本期报表", "Reports")) } }
                @if !row.indicators.is_empty() { a href="#indicators" { (view.tr("全部指标", "All indicators")) } }
                @if let Some(division) = &made.division { a href="#parts" { (division.title) } }
                @if made.networks.is_some() { a href="#groups" { (view.tr("网络与对账", "Networks and reconciliation")) } }
                a href="#elements" { (view.tr("数据元", "Elements")) }
                a href="#forms" { (view.tr("各报表完整性", "Completeness by form")) }
            }
            @if reporter { (self.reports(rows)?) }
            (report::broken(view, &made.broken))
            (headline::table(view, &row.indicators, divide))
            @if let Some(division) = &made.division { (self.division(division, made.shown.as_deref(), rows)) }
            @if let Some(networks) = &made.networks { (self.networks_shown(networks, made.shown.as_deref(), rows)) }
            (tables::elements(view, &row.elements, divide))
            (made.forms)
        };
        let other = layout::other_lang(view, &["place", &self.code], &params);
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

    /// Networks are shown whole, with their members elsewhere: not to those who may not see these.
    fn may_show_networks(&self, kind: NetworkKindIx) -> bool {
        match self.found {
            Found::Unit(unit) => self.view.allows_networks_of(unit, kind, self.span),
            Found::Network(_) => true,
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
        let (show, groups) = (view.params.show.as_deref(), view.params.groups.as_deref());
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
                    as_of: view.as_of_text(),
                    lang: view.lang,
                    ..ReportCall::default()
                };
                view.service.trace(&call).map_err(Problem::request)
            })
            .collect::<Result<Vec<Trace>, Problem>>()?;
        let told = |t: &&Trace| t.status != "not_expected" || t.versions > 0;
        let link = |from| format!("{}#parts", self.here(show, groups, from));
        Ok(html! {
            h2 id="parts" { (view.tr("本期报表", "Reports of the period")) }
            div.wide { table.list {
                thead { tr {
                    th scope="col" { (view.tr("报表", "Form")) } th scope="col" { (view.tr("统计期", "Period")) } th scope="col" { (view.tr("状态", "Status")) }
                    th scope="col" { (view.tr("截止", "Due")) } th scope="col" { (view.tr("收到", "Arrived")) } th.n scope="col" { (view.tr("版本", "Versions")) }
                } }
                tbody {
                    @for t in traces.iter().filter(told) {
                        tr {
                            td title=(t.form) { (view.form_name(&t.form)) }
                            td.nowrap { a href=(view.url(&["report", &t.facility, &t.form, &t.period], &[])) { (t.period) } }
                            td { (status(view, t)) }
                            td.nowrap { @if let Some(due) = &t.due { (moment(due)) } }
                            td.nowrap { @if let Some(at) = &t.arrived { (moment(at)) } }
                            td.n { @if t.versions > 0 { (t.versions) } }
                        }
                    }
                }
            } }
            (layout::pager(view, window, asked.len(), link))
        })
    }

    /// Children, or members.
    fn division(&self, division: &Division, shown: Option<&str>, rows: usize) -> Markup {
        let view = self.view;
        let window = layout::window(view, division.parts.len(), rows);
        let link = |from| {
            let params = (view.params.show.as_deref(), view.params.groups.as_deref());
            format!("{}#parts", self.here(params.0, params.1, from))
        };
        let (area, kind): (&[UnitIx], _) = match self.found {
            Found::Network(network) => {
                let info = view.organisation.network_info(network);
                (&info.area, Some(self.network_kind_code(info.kind)))
            }
            Found::Unit(_) => (&[], None),
        };
        let caption = self.caption(&division.title, shown);
        html! {
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
            (tables::parts(view, &caption, &division.parts[window.clone()], &self.period, shown.map(|code| self.shown_name(code))))
            (layout::pager(view, window, division.parts.len(), link))
        }
    }

    /// What a table of parts shows, for those who hear it.
    fn caption(&self, title: &str, shown: Option<&str>) -> String {
        let what = shown.map(|code| self.shown_name(code)).unwrap_or_default();
        let comma = self.view.tr("，", ", ");
        [title, self.period.as_str(), what]
            .iter()
            .filter(|t| !t.is_empty())
            .copied()
            .collect::<Vec<_>>()
            .join(comma)
    }

    fn children(&self, unit: UnitIx, shown: Option<&str>) -> Result<Division, Problem> {
        let view = self.view;
        let mut found = self.divided("children", None, shown, |key| key.unit.clone())?;
        let forms = std::mem::take(&mut found.forms);
        let mut parts: Vec<Part> = Vec::new();
        for child in view.organisation.children_on(unit, self.day()) {
            parts.push(self.unit_part(child, Vec::new(), &mut found));
        }
        self.add_others(&mut parts, found);
        self.hear(&mut parts);
        Ok(Division { title: view.tr("下级", "Below").to_owned(), parts, forms })
    }

    fn members(&self, network: NetworkIx, shown: Option<&str>) -> Result<Division, Problem> {
        let view = self.view;
        let mut found = self.divided("facility", None, shown, |key| key.unit.clone())?;
        let forms = std::mem::take(&mut found.forms);
        let mut parts: Vec<Part> = Vec::new();
        for member in view.organisation.members_on(network, self.day()) {
            let roles = self.role_names(member.roles);
            parts.push(self.unit_part(member.unit, roles, &mut found));
        }
        self.add_others(&mut parts, found);
        self.hear(&mut parts);
        Ok(Division { title: view.tr("成员", "Members").to_owned(), parts, forms })
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
            heard: None,
            code,
        }
    }

    /// Notes when the agents of each part were last heard of. Only of the present: beacons are no history.
    fn hear(&self, parts: &mut [Part]) {
        if self.view.as_of.is_some() {
            return;
        }
        let heard = self.view.heard.on(self.view, self.day());
        for part in parts {
            let unit = self.view.organisation.unit(&part.code);
            part.heard = unit.and_then(|unit| heard[unit.at()]);
        }
    }

    /// Completeness and one figure of each part.
    fn divided(
        &self,
        by: &str,
        network: Option<&str>,
        shown: Option<&str>,
        code: impl Fn(&RowKey) -> Option<String>,
    ) -> Result<Divided, Problem> {
        let mut found = Divided::default();
        let mut call = self.view.completeness(&self.code, &self.period);
        call.by = vec![by.to_owned()];
        call.network = network.map(str::to_owned);
        let complete = self.view.service.complete(&call).map_err(Problem::request)?;
        found.forms = complete.forms;
        for row in complete.rows {
            if let Some(code) = code(&row.key) {
                found.completeness.insert(code, row.total);
            }
        }
        let Some(shown) = shown else { return Ok(found) };
        let mut call = self.view.question(&self.code, &self.period);
        call.by = vec![by.to_owned()];
        call.network = network.map(str::to_owned);
        let wanted = vec![shown.to_owned()];
        if self.view.catalogue.element(shown).is_some() {
            call.element = wanted;
        } else {
            call.indicator = wanted;
        }
        let answer = self.view.service.figures(&call).map_err(Problem::request)?;
        for row in answer.rows {
            let Some(code) = code(&row.key) else { continue };
            let element = row.elements.get(shown).cloned().map(Figure::Element);
            let indicator = || {
                let figure = row.indicators.get(shown).cloned()?;
                Some(Figure::Indicator(shown.to_owned(), Box::new(figure)))
            };
            let figure = element.or_else(indicator);
            if let Some(figure) = figure {
                found.figures.insert(code, figure);
            }
        }
        found.reconciliation = answer.reconciliation;
        Ok(found)
    }

    /// The kind of network by which the unit is divided: the one asked for, or the first.
    fn groups_kind(&self) -> Option<NetworkKindIx> {
        let asked = self.view.params.groups.as_deref();
        let asked = asked.and_then(|code| self.view.catalogue.network_kind(code));
        asked.filter(|kind| self.kinds.contains(kind)).or(self.kinds.first().copied())
    }

    /// The networks of a unit, and how their sum leads to its total.
    fn networks(&self, kind: NetworkKindIx, shown: Option<&str>) -> Result<Networks, Problem> {
        let view = self.view;
        let kind_code = self.network_kind_code(kind);
        // A province's networks are a long list, and long to work out: shown when asked for.
        let top = matches!(self.found, Found::Unit(u) if view.organisation.parent_on(u, self.day()).is_none());
        let many =
            view.organisation.networks_of_kind_on(kind, self.day()).len() > NETWORKS_UNASKED_MAX;
        if view.params.groups.is_none() && top && many {
            return Ok(Networks { kind, shown: None });
        }
        let mut found =
            self.divided("network", Some(kind_code), shown, |key| key.network.clone())?;
        let mut codes: Vec<String> =
            found.completeness.keys().chain(found.figures.keys()).cloned().collect();
        codes.sort_unstable();
        codes.dedup();
        let name = view.catalogue.network_kinds[kind.at()].name.get(view.lang);
        let parts: Vec<Part> = codes
            .into_iter()
            .map(|code| Part {
                name: view.place_name(&code),
                what: vec![name.to_owned()],
                completeness: found.completeness.remove(&code),
                figure: found.figures.remove(&code),
                heard: None,
                code,
            })
            .collect();
        let link = |which: Which, only: Option<&str>| {
            view.url(
                &["list", &self.code, which.code()],
                &[
                    ("period", Some(&self.period)),
                    ("groups", Some(kind_code)),
                    ("show", shown),
                    ("kind", only),
                ],
            )
        };
        let sum =
            shown.and_then(|element| Some((element, found.reconciliation.as_ref()?.get(element)?)));
        let sum = html! {
            @if let Some((element, sum)) = sum {
                (tables::reconciliation(view, element, sum, &link))
            } @else {
                p.dim {
                    (self.why_no_sum(shown))
                    a href=(link(Which::None, None)) { (view.tr("未入任何网络的机构", "facilities in none of the networks")) }
                }
            }
        };
        Ok(Networks { kind, shown: Some((parts, sum)) })
    }

    /// Why there is no reconciliation of what is shown.
    fn why_no_sum(&self, shown: Option<&str>) -> &'static str {
        let view = self.view;
        let element = shown.and_then(|code| view.catalogue.element(code));
        match element.map(|element| &view.catalogue.elements[element.at()]) {
            Some(model) if model.scope == Scope::Area => view.tr(
                "县级填报的数属于整个辖区，不按机构相加；",
                "What the area's desk reports is of the whole area and not added over facilities; ",
            ),
            Some(_) => view.tr(
                "各机构的数不能相加，没有对账；",
                "Values of facilities must not be added, so there is nothing to reconcile; ",
            ),
            None => view.tr(
                "比率与指标不相加，没有对账；",
                "Ratios are not added, so there is nothing to reconcile; ",
            ),
        }
    }

    fn networks_shown(&self, networks: &Networks, shown: Option<&str>, rows: usize) -> Markup {
        let view = self.view;
        let show = view.params.show.as_deref();
        let name =
            |kind: NetworkKindIx| view.catalogue.network_kinds[kind.at()].name.get(view.lang);
        let title = name(networks.kind);
        html! {
            h2 id="groups" {
                @match &networks.shown {
                    None => (view.tr("网络与对账", "Networks and reconciliation")),
                    Some((parts, _)) => { (title) " " small { (parts.len()) } }
                }
            }
            p.jump {
                @for other in self.kinds.iter().copied() {
                    @if other == networks.kind && networks.shown.is_some() { b { (name(other)) } " " } @else {
                        a href=(format!("{}#groups", self.here(show, Some(self.network_kind_code(other)), 0))) { (name(other)) } " "
                    }
                }
            }
            @if let Some((parts, sum)) = &networks.shown {
                @let most = parts.len().min(rows);
                (tables::parts(view, &self.caption(title, shown), &parts[..most], &self.period, shown.map(|code| self.shown_name(code))))
                @if most < parts.len() { p.dim { "… " (parts.len() - most) } }
                (sum)
            }
        }
    }
}

/// This place's address, without parameters.
fn address(code: &str) -> String {
    super::address(&["place", code], std::iter::empty())
}

/// The kinds of network that serve a unit or a part of it; of those that serve no place, the kinds that have
/// a member in it.
pub(super) fn network_kinds(view: &View<'_>, unit: UnitIx, day: Date) -> Vec<NetworkKindIx> {
    let org = &view.organisation;
    let is_here = |n: &NetworkIx| match &*org.network_info(*n).area {
        [] => org
            .named_members_on(*n, day)
            .iter()
            .any(|named| org.is_below(*named, unit, day) || org.is_below(unit, *named, day)),
        area => area.iter().any(|area| org.is_below(*area, unit, day)),
    };
    let here = org.networks().filter(|n| org.is_in_force(*n, day)).filter(is_here);
    let mut kinds: Vec<NetworkKindIx> = here.map(|n| org.network_info(n).kind).collect();
    kinds.sort_unstable();
    kinds.dedup();
    kinds
}

/// Completeness and figures by code.
#[derive(Default)]
struct Divided {
    completeness: HashMap<String, CompletenessFigure>,
    /// Of the whole.
    forms: Vec<(String, CompletenessFigure)>,
    figures: HashMap<String, Figure>,
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
