//! Pages for people: the home page, a page for every unit and network, the lists behind a reconciliation,
//! the trace of a report, and the row of the ledger it came in.
//!
//! Promises that a page comes whole from here (no script, nothing from elsewhere), that it shows a reason
//! where there is no number, that the map and the moment it was asked for go with every link, and that it is
//! at most [`PAGE_BYTES_MAX`] long: longer lists are turned like pages. Nothing in it knows a catalogue: what
//! comes first is chosen by what the figures say of themselves. Leaves the figures to `query`, and who may
//! come at all to `access`; a page of what lies outside the visitor's scope is refused here.

mod batch;
mod chart;
mod deadline;
mod headline;
mod heard;
mod home;
mod layout;
mod list;
mod place;
mod report;
mod selectors;
mod tables;
mod words;

use std::sync::Arc;

use axum::extract::{Extension, Path, Query, State as Extract};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::get;
use banyan_shared::catalogue::{Catalogue, Class, Lang, NetworkKindIx};
use banyan_shared::ids::Millis;
use banyan_shared::organisation::{Found, Lookup, Organisation, UnitIx};
use banyan_shared::period::{Date, Period, PeriodType, Span};
use heard::Heard;
pub(crate) use layout::STYLE;
use maud::Markup;
use serde::Deserialize;

use crate::access::{AuditKind, Denied, Inside, Past, Record, Routes, Who};
use crate::query::{Membership, span_of};
use crate::service::{CompletenessCall, QueryCall, Service};

/// Most rows of a list on one page.
pub const ROWS_MAX: usize = 100;
/// Longest page, in bytes.
pub const PAGE_BYTES_MAX: usize = 200 * 1024;
/// How many months back data are looked for when no period is asked for.
const MONTHS_BACK_MAX: i32 = 13;
/// Most places proposed where a text names none.
const PROPOSED_MAX: usize = 20;
/// Longest text looked for, in characters.
const SEARCH_CHARS_MAX: usize = 100;

/// The parameters of a page.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Params {
    /// The period or range.
    period: Option<String>,
    /// `zh` or `en`.
    lang: Option<String>,
    /// The element or indicator shown for each part of the place.
    show: Option<String>,
    /// The kind of network by which the place is divided.
    groups: Option<String>,
    /// The first row of the long list.
    from: Option<String>,
    /// What to look for.
    q: Option<String>,
    /// The map: `as_it_was`, `today`, a date, or `date` for the one in `day`.
    map: Option<String>,
    /// The day of the map.
    day: Option<String>,
    /// As known at this moment.
    as_of: Option<String>,
    /// Only this kind, in a list.
    kind: Option<String>,
}

/// What every page is made from.
struct View<'a> {
    service: &'a Service,
    heard: &'a Heard,
    params: &'a Params,
    who: &'a Who,
    lang: Lang,
    catalogue: Arc<Catalogue>,
    organisation: Arc<Organisation>,
    /// The centre's name.
    name: String,
    /// Today in the catalogue's zone; the day of the moment asked for, if one is.
    today: Date,
    /// On which map.
    membership: Membership,
    /// As known at this moment; none = now.
    as_of: Option<Millis>,
}

/// What a visitor gets.
#[derive(Debug)]
enum Page {
    Html(StatusCode, String),
    Elsewhere(String),
}

/// Why there is no such page.
#[derive(Debug)]
struct Problem {
    status: StatusCode,
    text: String,
    /// Places that may have been meant.
    proposed: Vec<Proposed>,
}

/// A place that may have been meant.
#[derive(Debug)]
struct Proposed {
    code: String,
    path: String,
}

impl Problem {
    fn bad_request(text: String) -> Problem {
        Problem { status: StatusCode::BAD_REQUEST, text, proposed: Vec::new() }
    }

    fn request(error: anyhow::Error) -> Problem {
        if error.downcast_ref::<crate::service::Usage>().is_some() {
            return Problem::bad_request(error.to_string());
        }
        if error.downcast_ref::<crate::service::Busy>().is_some() {
            return Problem {
                status: StatusCode::SERVICE_UNAVAILABLE,
                text: error.to_string(),
                proposed: Vec::new(),
            };
        }
        tracing::error!(error = format!("{error:#}"), "a page failed");
        Problem {
            status: StatusCode::INTERNAL_SERVER_ERROR,
            text: format!("{error:#}"),
            proposed: Vec::new(),
        }
    }
}

impl<'a> View<'a> {
    /// The view, and what is wrong with the map or moment asked for, which it then leaves out. At a moment of
    /// the past names and places are those recorded by then, as the figures are.
    fn new(site: &'a Site, who: &'a Who, params: &'a Params) -> (View<'a>, Option<Problem>) {
        let service = &*site.service;
        let now = service.now();
        let mut view = {
            // The lock is not held: every question takes it again.
            let state = service.state().read();
            View {
                service,
                heard: &site.heard,
                params,
                who,
                lang: if params.lang.as_deref() == Some("en") { Lang::En } else { Lang::Zh },
                today: state.catalogue.day_at(now),
                catalogue: state.catalogue.clone(),
                organisation: state.organisation.clone(),
                name: state.name.clone(),
                membership: Membership::default(),
                as_of: None,
            }
        };
        let problem = view.turn(now).err();
        (view, problem)
    }

    /// Turns to the map and the moment asked for.
    fn turn(&mut self, now: Millis) -> Result<(), Problem> {
        let wrong = |wrong: selectors::Wrong| Problem::bad_request(wrong.text(self.lang));
        let membership = selectors::membership(self.params).map_err(wrong)?;
        let as_of = selectors::moment(self.params, &self.catalogue).map_err(wrong)?;
        if let Some(at) = as_of.filter(|at| *at < now) {
            let model = self.service.model_at(at, self.lang).map_err(Problem::request)?;
            (self.catalogue, self.organisation) = model;
            self.today = self.catalogue.day_at(at);
            self.as_of = Some(at);
        }
        self.membership = membership;
        Ok(())
    }

    /// Refuses a place outside the visitor's scope.
    fn allow(&self, found: Found, span: Option<Span>) -> Result<(), Problem> {
        if self.allows(found, span) { Ok(()) } else { Err(self.outside(&self.code(found))) }
    }

    /// Whether a place is in the visitor's scope, with everyone on the map asked for; without one each period
    /// has its own.
    fn allows(&self, found: Found, span: Option<Span>) -> bool {
        let last = span.map_or(self.today, Span::last_day);
        self.inside(|inside| {
            inside.place(found, span)
                && self.map_day().is_none_or(|map| inside.on_map(found, map, last))
        })
    }

    /// Whether all networks by which an area would be divided are in the visitor's scope.
    fn allows_networks_of(&self, area: UnitIx, kind: NetworkKindIx, span: Span) -> bool {
        self.inside(|inside| inside.networks_of(area, Some(kind), Some(span), self.map_day()))
    }

    /// Looks at the visitor's scope, in the registry the page is made from.
    fn inside<T>(&self, look: impl FnOnce(&Inside<'_>) -> T) -> T {
        let past = self.as_of.map(|at| Past {
            catalogue: &self.catalogue,
            organisation: &self.organisation,
            at,
        });
        let state = self.service.state().read();
        look(&Inside::new(&state, self.service.now(), self.who, past))
    }

    fn outside(&self, what: &str) -> Problem {
        let denied = Denied::outside(self.who, what);
        self.refuse(what, &denied)
    }

    /// A refusal, put down.
    fn refuse(&self, what: &str, denied: &Denied) -> Problem {
        match self.note(AuditKind::Refused, what, &denied.en) {
            Ok(()) => Problem {
                status: StatusCode::FORBIDDEN,
                text: denied.text(self.lang).to_owned(),
                proposed: Vec::new(),
            },
            Err(problem) => problem,
        }
    }

    /// Puts down that the page shows figures of single sites.
    fn note_read(&self, what: &str) -> Result<(), Problem> {
        self.note(AuditKind::Read, what, "ok")
    }

    fn note(&self, kind: AuditKind, of: &str, outcome: &str) -> Result<(), Problem> {
        let record = Record {
            at: self.service.now(),
            kind,
            user: self.who.name.clone(),
            via: Some(self.who.via),
            address: self.who.address,
            what: "page".into(),
            of: of.to_owned(),
            outcome: outcome.to_owned(),
        };
        self.service.access().record(self.who, record).map_err(Problem::request)
    }

    /// A text in the visitor's language.
    fn tr<'t>(&self, zh: &'t str, en: &'t str) -> &'t str {
        match self.lang {
            Lang::Zh => zh,
            Lang::En => en,
        }
    }

    /// An address on this site; parameters without a value are left out; language, map and moment are kept.
    fn url(&self, path: &[&str], params: &[(&str, Option<&str>)]) -> String {
        self.url_in(self.lang, path, params)
    }

    /// The same in a language.
    fn url_in(&self, lang: Lang, path: &[&str], params: &[(&str, Option<&str>)]) -> String {
        let kept = self.kept(lang);
        let kept = kept.iter().map(|(name, value)| (*name, value.as_deref()));
        address(path, params.iter().copied().chain(kept))
    }

    /// What goes with every link and every form: map, moment and language.
    fn kept(&self, lang: Lang) -> [(&'static str, Option<String>); 3] {
        let lang = (lang == Lang::En).then(|| "en".to_owned());
        [("map", self.map_text()), ("as_of", self.as_of_text()), ("lang", lang)]
    }

    /// An address with the usual map, as known now.
    fn usual_url(&self, path: &[&str], params: &[(&str, Option<&str>)]) -> String {
        let lang = (self.lang == Lang::En).then_some("en");
        address(path, params.iter().copied().chain([("lang", lang)]))
    }

    /// The map as it stands in an address and in questions; none for each period's own.
    fn map_text(&self) -> Option<String> {
        match self.membership {
            Membership::AsItWas => None,
            Membership::Today => Some("today".to_owned()),
            Membership::On(date) => Some(date.to_string()),
        }
    }

    /// The day of the map, unless it is each period's own.
    fn map_day(&self) -> Option<Date> {
        match self.membership {
            Membership::AsItWas => None,
            Membership::Today => Some(self.today),
            Membership::On(date) => Some(date),
        }
    }

    /// The moment as it stands in an address and in questions.
    fn as_of_text(&self) -> Option<String> {
        Some(selectors::moment_text(&self.catalogue, self.as_of?))
    }

    /// A question for figures, on the map and as known when the page is asked for.
    fn question(&self, unit: &str, period: &str) -> QueryCall {
        QueryCall {
            unit: unit.to_owned(),
            period: period.to_owned(),
            membership: self.map_text(),
            as_of: self.as_of_text(),
            lang: self.lang,
            ..QueryCall::default()
        }
    }

    /// A question about completeness, likewise.
    fn completeness(&self, unit: &str, period: &str) -> CompletenessCall {
        CompletenessCall {
            unit: unit.to_owned(),
            period: period.to_owned(),
            membership: self.map_text(),
            as_of: self.as_of_text(),
            lang: self.lang,
            ..CompletenessCall::default()
        }
    }

    /// The address of a place.
    fn place_url(&self, code: &str, period: Option<&str>) -> String {
        self.url(&["place", code], &[("period", period)])
    }

    /// The first row of the long list.
    fn from(&self) -> usize {
        self.params.from.as_deref().and_then(|text| text.parse().ok()).unwrap_or(0)
    }

    /// What `text` names on `date`, or what it may have meant.
    fn find(&self, text: &str, date: Date) -> Result<Found, Problem> {
        let text: String = text.trim().chars().take(SEARCH_CHARS_MAX).collect();
        let candidates = match self.organisation.find(&text, date) {
            Lookup::One(found) => return Ok(found),
            Lookup::Candidates(candidates) => candidates,
        };
        let mut proposed: Vec<Proposed> = candidates
            .into_iter()
            .map(|c| Proposed { code: c.code, path: c.path.join(" › ") })
            .collect();
        if proposed.is_empty() {
            proposed = self.with_code_like(&text, date);
        }
        let text = match (proposed.is_empty(), self.lang) {
            (true, Lang::Zh) => format!("没有名称或代码为“{text}”的机构、地区或网络"),
            (true, Lang::En) => format!("No unit or network has the code or name “{text}”"),
            (false, Lang::Zh) => format!("“{text}”不能唯一确定。您要找的是："),
            (false, Lang::En) => format!("“{text}” does not name one place. Did you mean:"),
        };
        Err(Problem { status: StatusCode::NOT_FOUND, text, proposed })
    }

    /// The places whose code begins with `text`, or with its longest beginning that any code has.
    fn with_code_like(&self, text: &str, date: Date) -> Vec<Proposed> {
        const SHORTEST: usize = 4;
        let org = &self.organisation;
        let mut head = text.to_uppercase();
        while head.chars().count() >= SHORTEST {
            let units = org.units().filter(|u| org.code(*u).as_str().starts_with(&head));
            let networks =
                org.networks().filter(|n| org.network_code(*n).as_str().starts_with(&head));
            let found: Vec<Proposed> = networks
                .map(Found::Network)
                .chain(units.map(Found::Unit))
                .take(PROPOSED_MAX)
                .map(|found| {
                    let path = self.trail(found, date);
                    let names: Vec<String> = path.into_iter().map(|(_, name)| name).collect();
                    Proposed { code: self.code(found), path: names.join(" › ") }
                })
                .collect();
            if !found.is_empty() {
                return found;
            }
            head.pop();
        }
        Vec::new()
    }

    fn code(&self, found: Found) -> String {
        match found {
            Found::Unit(unit) => self.organisation.code(unit).to_string(),
            Found::Network(network) => self.organisation.network_code(network).to_string(),
        }
    }

    /// Whether it is a unit that reports.
    fn is_reporter(&self, found: Found) -> bool {
        let class = |unit| self.organisation.class(unit);
        matches!(found, Found::Unit(u) if matches!(class(u), Class::Facility | Class::Desk))
    }

    /// Codes and names from the top of the tree down to the place itself.
    fn trail(&self, found: Found, date: Date) -> Vec<(String, String)> {
        let org = &self.organisation;
        let above = match found {
            Found::Unit(unit) => org.path(unit, date),
            Found::Network(network) => match *org.network_info(network).area {
                [unit] => org.path(unit, date),
                _ => Vec::new(),
            },
        };
        let unit = |u| (org.code(u).to_string(), org.name_on(u, date, self.lang).to_owned());
        let mut trail: Vec<(String, String)> = above.into_iter().map(unit).collect();
        if let Found::Network(network) = found {
            let info = org.network_info(network);
            trail.push((info.code.to_string(), info.name.to_string()));
        }
        trail
    }

    /// The period or range a page is asked for, if it is asked for one.
    fn asked_span(&self) -> Result<Option<Span>, Problem> {
        let asked = self.params.period.as_deref().map(str::trim).filter(|text| !text.is_empty());
        let Some(text) = asked else { return Ok(None) };
        span_of(text).map(Some).map_err(|error| Problem::bad_request(error.text(self.lang)))
    }

    /// The place that `text` names and the span the page is about.
    fn place_and_span(&self, text: &str) -> Result<(Found, Span), Problem> {
        let asked = self.asked_span()?;
        let day = self.map_day().unwrap_or(asked.map_or(self.today, Span::last_day));
        let found = self.find(text, day)?;
        let span = match asked {
            Some(span) => span,
            None => Span::of(self.usual_period(&self.code(found))),
        };
        Ok((found, span))
    }

    /// The last whole month with data of the place, or else this month.
    fn usual_period(&self, code: &str) -> Period {
        let month = Period::containing(PeriodType::Month, self.today);
        let has_data = |period: &Period| {
            let answer = self.service.complete(&self.completeness(code, &period.to_string()));
            answer.is_ok_and(|answer| answer.freshness.newest_receipt.is_some())
        };
        // Months of which nothing at all has come in need not be asked for: a province's takes a while.
        let begun: Vec<Period> = {
            let state = self.service.state().read();
            let months = (1..=MONTHS_BACK_MAX).map(|n| month.plus(-n));
            let any = |month: &Period| {
                let mut periods = state.cube.forms().iter().flat_map(|form| form.periods());
                periods.any(|period| month.contains(period))
            };
            months.filter(any).collect()
        };
        begun.into_iter().find(has_data).unwrap_or(month)
    }
}

/// A path with the parameters that have a value.
fn address<'p>(path: &[&str], params: impl Iterator<Item = (&'p str, Option<&'p str>)>) -> String {
    let mut out = String::new();
    for part in path {
        out.push('/');
        encode(part, &mut out);
    }
    if path.is_empty() {
        out.push('/');
    }
    let mut mark = '?';
    for (name, value) in params {
        let Some(value) = value else { continue };
        out.push(mark);
        out.push_str(name);
        out.push('=');
        encode(value, &mut out);
        mark = '&';
    }
    out
}

/// Percent-encodes a part of an address.
pub(crate) fn encode(text: &str, out: &mut String) {
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
}

/// A page whose long list is cut until it fits.
fn fitted(
    view: &View<'_>,
    render: impl Fn(usize) -> Result<Markup, Problem>,
) -> Result<Page, Problem> {
    let mut rows = ROWS_MAX;
    while rows > 0 {
        let html = render(rows)?.into_string();
        if html.len() <= PAGE_BYTES_MAX {
            return Ok(Page::Html(StatusCode::OK, html));
        }
        rows /= 2;
    }
    Err(Problem {
        status: StatusCode::PAYLOAD_TOO_LARGE,
        text: view
            .tr("内容过多，无法在一页内显示，请缩小范围", "Too much for one page: narrow the place")
            .to_owned(),
        proposed: Vec::new(),
    })
}

/// Makes a page, or the page that says why there is none.
fn page(
    site: &Site,
    who: &Who,
    params: &Params,
    make: impl FnOnce(&View<'_>) -> Result<Page, Problem>,
) -> Page {
    let (view, wrong) = View::new(site, who, params);
    let made = match wrong {
        Some(problem) => Err(problem),
        None => make(&view),
    };
    made.unwrap_or_else(|problem| {
        Page::Html(problem.status, layout::problem(&view, &problem).into_string())
    })
}

impl IntoResponse for Page {
    fn into_response(self) -> Response {
        let headers = [(header::CONTENT_TYPE, "text/html; charset=utf-8")];
        match self {
            Page::Html(status @ StatusCode::SERVICE_UNAVAILABLE, html) => {
                let again = [(header::RETRY_AFTER, crate::service::RETRY_AFTER_S)];
                (status, headers, again, html).into_response()
            }
            Page::Html(status, html) => (status, headers, html).into_response(),
            Page::Elsewhere(to) => Redirect::to(&to).into_response(),
        }
    }
}

/// What the pages are made from, and what they keep.
pub struct Site {
    service: Arc<Service>,
    heard: Heard,
}

impl Site {
    /// The pages of a centre.
    pub fn new(service: Arc<Service>) -> Site {
        Site { service, heard: Heard::default() }
    }

    /// The centre.
    pub fn service(&self) -> &Arc<Service> {
        &self.service
    }
}

/// Adds the routes.
pub(crate) fn routes(routes: Routes, site: &Arc<Site>) -> Routes {
    routes
        .guarded("/", get(get_home).with_state(site.clone()))
        .guarded("/place/{code}", get(get_place).with_state(site.clone()))
        .guarded("/list/{code}/{which}", get(get_list).with_state(site.clone()))
        .guarded("/report/{facility}/{form}/{period}", get(get_report).with_state(site.clone()))
        .guarded("/batch/{position}", get(get_batch).with_state(site.clone()))
}

async fn blocking(
    site: Arc<Site>,
    who: Who,
    params: Params,
    make: impl FnOnce(&View<'_>) -> Result<Page, Problem> + Send + 'static,
) -> Response {
    let made = tokio::task::spawn_blocking(move || page(&site, &who, &params, make)).await;
    match made {
        Ok(page) => page.into_response(),
        Err(error) => {
            tracing::error!(%error, "a page ended abnormally");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

async fn get_home(
    Extract(site): Extract<Arc<Site>>,
    Extension(who): Extension<Who>,
    Query(params): Query<Params>,
) -> Response {
    blocking(site, who, params, home::page).await
}

async fn get_place(
    Extract(site): Extract<Arc<Site>>,
    Extension(who): Extension<Who>,
    Path(code): Path<String>,
    Query(params): Query<Params>,
) -> Response {
    blocking(site, who, params, move |view| place::page(view, &code)).await
}

async fn get_list(
    Extract(site): Extract<Arc<Site>>,
    Extension(who): Extension<Who>,
    Path((code, which)): Path<(String, String)>,
    Query(params): Query<Params>,
) -> Response {
    blocking(site, who, params, move |view| list::page(view, &code, &which)).await
}

async fn get_batch(
    Extract(site): Extract<Arc<Site>>,
    Extension(who): Extension<Who>,
    Path(position): Path<String>,
    Query(params): Query<Params>,
) -> Response {
    blocking(site, who, params, move |view| batch::page(view, &position)).await
}

async fn get_report(
    Extract(site): Extract<Arc<Site>>,
    Extension(who): Extension<Who>,
    Path((facility, form, period)): Path<(String, String, String)>,
    Query(params): Query<Params>,
) -> Response {
    blocking(site, who, params, move |view| report::page(view, &facility, &form, &period)).await
}

#[cfg(test)]
mod tests;
