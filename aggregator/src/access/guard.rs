//! The guard before every route: finds out who asks, or sends them away.
//!
//! Promises that a route reached through [`Routes::guarded`] runs only with a [`Who`], that what changes
//! anything by a session carries the session's own token and comes from a page of this very site, and that
//! every answer carries the headers that keep a browser from being used against its owner. What each may
//! ask is in [`super::rules`].

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Form, FromRequest, Request, State as Extract};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::MethodRouter;
use axum::{Json, Router};

use super::{AuditKind, Denied, Record, Via, Who};
use crate::http::Failure;
use crate::service::Service;

/// What no page may do: load, run or post anything elsewhere, or be shown within another.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'";
/// The field of a form that carries the session's token.
pub(crate) const CSRF_FIELD: &str = "csrf";
/// The header that may carry it instead.
const CSRF_HEADER: &str = "x-csrf-token";
/// Largest form, in bytes, and how long it may take to come.
const FORM_BYTES_MAX: usize = 16 * 1024;
const FORM_TIMEOUT: Duration = Duration::from_secs(10);

/// Where a request came from; every connection puts it into its requests.
#[derive(Clone, Copy, Debug)]
pub struct Peer {
    /// The address.
    pub address: IpAddr,
}

/// What is known of a listening socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listening {
    /// Whether it speaks TLS.
    pub tls: bool,
    /// Whether only this machine reaches it.
    pub local: bool,
    /// Whether it is there for the command line alone.
    pub only_server: bool,
}

/// What the guard knows.
#[derive(Clone)]
pub(crate) struct Gate {
    pub(crate) service: Arc<Service>,
    /// What opens everything on this machine: `DIR/run/admin.token`.
    pub(crate) token: Arc<str>,
    pub(crate) listening: Listening,
}

/// A site's routes, each with whether anyone may come.
#[derive(Default)]
pub(crate) struct Routes {
    open: Router,
    guarded: Router,
    /// Every path, for the test that walks them all.
    pub(crate) listed: Vec<(&'static str, bool)>,
}

impl Routes {
    /// A route for anyone.
    pub(crate) fn open(mut self, path: &'static str, methods: MethodRouter) -> Routes {
        self.open = self.open.route(path, methods);
        self.listed.push((path, true));
        self
    }

    /// A route for those the guard lets in.
    pub(crate) fn guarded(mut self, path: &'static str, methods: MethodRouter) -> Routes {
        self.guarded = self.guarded.route(path, methods);
        self.listed.push((path, false));
        self
    }

    /// The router. What is no route is for nobody without a name either.
    pub(crate) fn finish(self, gate: Gate) -> Router {
        let guarded = self
            .guarded
            .fallback(|| async { StatusCode::NOT_FOUND })
            .layer(middleware::from_fn_with_state(gate.clone(), guard));
        let tls = gate.listening.tls;
        self.open
            .layer(middleware::from_fn_with_state(gate, not_beside_the_command_line))
            .merge(guarded)
            .layer(middleware::map_response(move |answer| with_headers(answer, tls)))
    }
}

async fn with_headers(mut answer: Response, tls: bool) -> Response {
    let headers = answer.headers_mut();
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "same-origin"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::CACHE_CONTROL, "no-store"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    if tls {
        let year = HeaderValue::from_static("max-age=31536000");
        headers.insert(header::STRICT_TRANSPORT_SECURITY, year);
    }
    answer
}

async fn not_beside_the_command_line(
    Extract(gate): Extract<Gate>,
    request: Request,
    next: Next,
) -> Response {
    if gate.listening.only_server {
        return StatusCode::NOT_FOUND.into_response();
    }
    next.run(request).await
}

/// Whether a `Host` header names this machine itself.
pub(super) fn is_loopback(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    name.eq_ignore_ascii_case("localhost")
        || name.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// The cookie's name: under TLS one that browsers take from nobody else.
pub(super) fn cookie_name(tls: bool) -> &'static str {
    if tls { "__Host-banyan_session" } else { "banyan_session" }
}

/// The session's id in a request's cookies.
pub(super) fn session_id(headers: &HeaderMap, tls: bool) -> Option<&str> {
    let cookies = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    cookies
        .flat_map(|line| line.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .find(|(name, _)| *name == cookie_name(tls))
        .map(|(_, id)| id)
}

pub(super) fn peer_of(request: &Request) -> IpAddr {
    let peer = request.extensions().get::<Peer>();
    peer.map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |peer| peer.address)
}

/// Whether a request comes from a page of this site. Browsers say so by `Origin`, older ones by `Referer`.
pub(super) fn from_own_page(headers: &HeaderMap, tls: bool) -> bool {
    let text = |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    let Some(host) = text(header::HOST) else { return false };
    let Some(from) = text(header::ORIGIN).or_else(|| text(header::REFERER)) else { return false };
    let rest = match from.strip_prefix("https://") {
        Some(rest) => rest,
        // Beside TLS nothing of ours is served.
        None if !tls => match from.strip_prefix("http://") {
            Some(rest) => rest,
            None => return false,
        },
        None => return false,
    };
    rest.split('/').next().is_some_and(|of| of.eq_ignore_ascii_case(host))
}

enum Found {
    Who(Who),
    /// Nobody known; what is wrong, if anything was shown.
    Nobody(Option<&'static str>),
    /// Not under this name.
    OtherName,
}

impl Gate {
    fn find(&self, request: &Request) -> Found {
        let headers = request.headers();
        let from = peer_of(request);
        let (access, now) = (self.service.access(), self.service.now());
        let given = headers.get(header::AUTHORIZATION).map(|v| v.to_str().unwrap_or_default());
        if let Some(given) = given {
            let secret = given.strip_prefix("Bearer ").unwrap_or_default();
            // Compared by hash, so that the time taken tells nothing of how much was right.
            let hash = |text: &str| banyan_shared::keys::sha256(&[text.as_bytes()]);
            if self.listening.local && hash(secret) == hash(&self.token) {
                return Found::Who(Who { address: Some(from), ..Who::server() });
            }
            if self.listening.only_server {
                return Found::Nobody(Some("wrong"));
            }
            return match access.token(secret, from, now) {
                Ok(who) => Found::Who(who),
                Err(why) => {
                    self.note_token(from, why);
                    Found::Nobody(Some(why))
                }
            };
        }
        if self.listening.only_server {
            return Found::Nobody(None);
        }
        if let Some(who) =
            session_id(headers, self.listening.tls).and_then(|id| access.session(id, from, now))
        {
            return Found::Who(who);
        }
        if self.listening.local && !access.has_users() {
            // A page from elsewhere could read figures by pointing its own name at this machine.
            let host = headers.get(header::HOST).map(|host| host.to_str().unwrap_or_default());
            if host.is_some_and(|host| !is_loopback(host)) {
                return Found::OtherName;
            }
            if is_reading(request.method()) {
                return Found::Who(Who::open(Some(from)));
            }
        }
        Found::Nobody(None)
    }

    fn note_token(&self, from: IpAddr, why: &str) {
        let record = Record {
            at: self.service.now(),
            kind: AuditKind::Login,
            user: String::new(),
            via: Some(Via::Token),
            address: Some(from),
            what: "token".into(),
            of: String::new(),
            outcome: why.into(),
        };
        if let Err(error) = self.service.access().audit.write_within_limit(&record) {
            tracing::error!("the audit log could not be written: {error:#}");
        }
    }
}

fn is_reading(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD)
}

fn is_api(path: &str) -> bool {
    path.starts_with("/v1/")
}

/// A refusal in JSON for programs, in plain text for people.
pub(super) fn refusal(api: bool, status: StatusCode, text: String) -> Response {
    if api {
        return (status, Json(Failure { error: text, usage: false })).into_response();
    }
    (status, text + "\n").into_response()
}

fn nobody(request: &Request, why: Option<&'static str>) -> Response {
    let path = request.uri().path();
    if !is_api(path) && is_reading(request.method()) && why.is_none() {
        let asked = request.uri().path_and_query().map_or("/", |asked| asked.as_str());
        let mut to = String::from("/login?next=");
        crate::pages::encode(asked, &mut to);
        return Redirect::to(&to).into_response();
    }
    let text = match why {
        Some("expired") => {
            "令牌已过期，请用 token add 重新发放 / the token has expired: make another with `token add`"
        }
        Some(_) => "令牌无效 / wrong token",
        None => {
            "请先登录，或发送 `Authorization: Bearer 令牌` / missing login or token: send `Authorization: Bearer …` with a token (`token add`), or on the server itself DIR/run/admin.token"
        }
    };
    let mut answer = refusal(is_api(path), StatusCode::UNAUTHORIZED, text.to_owned());
    answer.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    answer
}

async fn guard(Extract(gate): Extract<Gate>, request: Request, next: Next) -> Response {
    let who = match gate.find(&request) {
        Found::Who(who) => who,
        Found::Nobody(why) => return nobody(&request, why),
        Found::OtherName => {
            let text = "open this page as http://localhost or http://127.0.0.1";
            return refusal(is_api(request.uri().path()), StatusCode::FORBIDDEN, text.to_owned());
        }
    };
    let mut request = request;
    if who.via == Via::Session && !is_reading(request.method()) {
        let api = is_api(request.uri().path());
        request = match own_form(&who, request, gate.listening.tls).await {
            Ok(request) => request,
            Err(denied) => return refusal(api, StatusCode::FORBIDDEN, denied.to_string()),
        };
    }
    request.extensions_mut().insert(who);
    next.run(request).await
}

/// A request with its whole body, if that is small and comes in time.
pub(super) async fn small(request: Request) -> Result<Request, Response> {
    let (parts, body) = request.into_parts();
    let read = axum::body::to_bytes(body, FORM_BYTES_MAX);
    match tokio::time::timeout(FORM_TIMEOUT, read).await {
        Ok(Ok(bytes)) => Ok(Request::from_parts(parts, Body::from(bytes))),
        Ok(Err(_)) => Err(StatusCode::PAYLOAD_TOO_LARGE.into_response()),
        Err(_) => Err(StatusCode::REQUEST_TIMEOUT.into_response()),
    }
}

/// A request that changes something, if it is by a form or program of the session itself.
async fn own_form(who: &Who, request: Request, tls: bool) -> Result<Request, Denied> {
    let refused = || {
        Denied::new(
            "请求不是从本站页面发出的，请重新打开页面再试",
            "this does not come from a page of this site: open the page again and try once more",
        )
    };
    if !from_own_page(request.headers(), tls) {
        return Err(refused());
    }
    let hash = |text: &str| banyan_shared::keys::sha256(&[text.as_bytes()]);
    let own = |given: &str| who.csrf.as_deref().is_some_and(|own| hash(own) == hash(given));
    if let Some(given) = request.headers().get(CSRF_HEADER) {
        return if own(given.to_str().unwrap_or_default()) { Ok(request) } else { Err(refused()) };
    }
    let Ok(request) = small(request).await else { return Err(refused()) };
    let (parts, body) = request.into_parts();
    let Ok(bytes) = axum::body::to_bytes(body, FORM_BYTES_MAX).await else { return Err(refused()) };
    let copy = Request::from_parts(parts.clone(), Body::from(bytes.clone()));
    let form = Form::<Vec<(String, String)>>::from_request(copy, &()).await;
    let given = form.ok().and_then(|Form(fields)| {
        fields.into_iter().find(|(name, _)| name == CSRF_FIELD).map(|(_, value)| value)
    });
    match given {
        Some(given) if own(&given) => Ok(Request::from_parts(parts, Body::from(bytes))),
        _ => Err(refused()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_names_are_taken_without_users() {
        for own in ["localhost", "LOCALHOST:80", "127.0.0.1:8080", "[::1]:8080", "127.1.2.3"] {
            assert!(is_loopback(own), "{own}");
        }
        for other in ["evil.example", "localhost.evil.example", "10.0.0.1", "", "[::2]", "[::1"] {
            assert_eq!(is_loopback(other), other == "[::1", "{other}");
        }
    }

    #[test]
    fn a_page_of_this_site_is_told_by_origin_or_else_by_referer() {
        let said = |pairs: &[(HeaderName, &str)], tls: bool| {
            let mut headers = HeaderMap::new();
            headers.insert(header::HOST, HeaderValue::from_static("county.example:8443"));
            for (name, value) in pairs {
                headers.insert(name.clone(), HeaderValue::from_str(value).unwrap());
            }
            from_own_page(&headers, tls)
        };
        assert!(said(&[(header::ORIGIN, "https://county.example:8443")], true));
        assert!(said(&[(header::REFERER, "https://County.example:8443/login?x")], true));
        assert!(said(&[(header::ORIGIN, "http://county.example:8443")], false));
        for (name, value) in [
            (header::ORIGIN, "null"),
            (header::ORIGIN, "https://evil.example"),
            (header::ORIGIN, "https://county.example:8443.evil.example"),
            (header::ORIGIN, "https://county.example"),
            (header::ORIGIN, "http://county.example:8443"),
            (header::REFERER, "https://evil.example/https://county.example:8443"),
            (header::REFERER, ""),
        ] {
            assert!(!said(&[(name, value)], true), "{value}");
        }
        assert!(!said(&[], true), "whoever says nothing is not let in");
        let both = [
            (header::ORIGIN, "https://evil.example"),
            (header::REFERER, "https://county.example:8443/"),
        ];
        assert!(!said(&both, true), "Origin decides");
    }

    #[test]
    fn the_session_is_found_among_other_cookies_and_by_its_name_only() {
        let of = |line: &'static str, tls| {
            let mut headers = HeaderMap::new();
            headers.insert(header::COOKIE, HeaderValue::from_static(line));
            session_id(&headers, tls).map(str::to_owned)
        };
        assert_eq!(of("a=1; banyan_session=xyz; b=2", false).as_deref(), Some("xyz"));
        assert_eq!(of("banyan_session=xyz", true), None, "under TLS only the one TLS set");
        assert_eq!(of("__Host-banyan_session=xyz", true).as_deref(), Some("xyz"));
        assert_eq!(of("xbanyan_session=1; =; ;;", false), None);
    }
}
