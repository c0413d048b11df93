//! The whole way in, over real sockets: every route, every command, every sort of visitor.

mod past;
mod routes;
mod scopes;
mod sessions;
mod sockets;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use banyan_shared::ids::Millis;
use serde_json::{Value, json};
use tokio::sync::watch;

use super::listener::Limits;
use super::*;
use crate::front_door::Counters;
use crate::http::{Counted, Request};
use crate::pages::Site;
use crate::query::fixture::{CATALOGUE, MEMBERS, NETWORKS, UNITS};
use crate::service::{Running, Service};

const ADMIN_TOKEN: &str = "the server's own token, forty-eight digits";
const PASSWORD: &str = "correct horse battery";
const LOCAL: Listening = Listening { tls: false, local: true, only_server: false };
/// Like an address others reach, without the TLS that ureq here does not speak.
const REMOTE: Listening = Listening { local: false, ..LOCAL };

fn counted() -> Counted {
    Counted { door: Arc::new(Counters::default()), external: None }
}

/// A serving centre of the fixture's country on 10 February 2026.
struct Centre {
    service: Arc<Service>,
    site: Arc<Site>,
    clock: Arc<AtomicI64>,
    runtime: tokio::runtime::Runtime,
    stop: watch::Sender<bool>,
    _running: Running,
    _dir: tempfile::TempDir,
}

impl Centre {
    fn new() -> Centre {
        Centre::with([UNITS, NETWORKS, MEMBERS])
    }

    /// With these tables of units, networks and members.
    fn with([units, networks, members]: [&str; 3]) -> Centre {
        let dir = tempfile::tempdir().unwrap();
        let home = dir.path().join("data");
        let write = |name: &str, text: &str| {
            let path = dir.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let sources = crate::init::Sources {
            catalogue: Some(write("catalogue.toml", CATALOGUE)),
            tables: vec![
                ("units.csv", write("units.csv", units)),
                ("networks.csv", write("networks.csv", networks)),
                ("members.csv", write("members.csv", members)),
            ],
        };
        let catalogue = crate::query::fixture::catalogue();
        let at = |day: &str| catalogue.moment(day.parse().unwrap(), 9, 0);
        crate::init::init_at(&home, &sources, "县中心", Lang::Zh, at("2025-12-01")).unwrap();
        let clock = Arc::new(AtomicI64::new(at("2026-02-10").0));
        let now = clock.clone();
        let now = Arc::new(move || Millis(now.load(Ordering::Relaxed)));
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let (service, running) = runtime.block_on(Service::open(&home, now, None)).unwrap();
        let site = Arc::new(Site::new(service.clone()));
        let stop = watch::channel(false).0;
        Centre { service, site, clock, runtime, stop, _running: running, _dir: dir }
    }

    fn later(&self, ms: i64) {
        self.clock.fetch_add(ms, Ordering::Relaxed);
    }

    fn serve(&self, listening: Listening) -> Browser {
        self.serve_with(listening, None, Limits::default())
    }

    fn serve_with(
        &self,
        listening: Listening,
        tls: Option<Arc<tokio_rustls::rustls::ServerConfig>>,
        limits: Limits,
    ) -> Browser {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let bound = self.runtime.block_on(HttpListener::bind_with(any, tls, limits)).unwrap();
        let address = bound.local_addr().unwrap();
        let routes = crate::http::routes(&self.site, counted(), ADMIN_TOKEN, listening);
        self.runtime.spawn(bound.run(routes, self.stop.subscribe()));
        Browser { address, headers: Vec::new() }
    }

    fn call(&self, request: Value) -> Value {
        let request: Request = serde_json::from_value(request).unwrap();
        let who = Who::server();
        let answer = self.runtime.block_on(crate::http::handle(&self.service, &who, request));
        answer.unwrap().into_value().unwrap()
    }

    fn user(&self, name: &str, role: &str, scope: &str) {
        self.call(json!({ "command": "user_add", "name": name, "role": role, "scope": scope,
            "password": PASSWORD }));
    }

    fn token(&self, role: &str, scope: &str) -> String {
        let name = format!("{role}-{scope}");
        let made = self.call(json!({ "command": "token_add", "name": name, "role": role,
            "scope": scope, "expires_s": 3600 }));
        made["token"].as_str().unwrap().to_owned()
    }

    fn log(&self, kind: Option<&str>) -> Vec<Value> {
        let answer = self.call(json!({ "command": "audit", "kind": kind }));
        answer["records"].as_array().unwrap().clone()
    }
}

#[derive(Clone)]
struct Browser {
    address: SocketAddr,
    headers: Vec<(String, String)>,
}

struct Answer {
    status: u16,
    body: String,
    headers: Vec<(String, String)>,
}

impl Answer {
    fn header(&self, name: &str) -> &str {
        let found = self.headers.iter().find(|(n, _)| n == name);
        found.map_or("", |(_, value)| value)
    }
}

impl Browser {
    fn with(&self, name: &str, value: &str) -> Browser {
        let mut one = self.clone();
        one.headers.retain(|(n, _)| n != name);
        one.headers.push((name.to_owned(), value.to_owned()));
        one
    }

    fn bearer(&self, token: &str) -> Browser {
        self.with("authorization", &format!("Bearer {token}"))
    }

    fn origin(&self) -> String {
        format!("http://{}", self.address)
    }

    fn send(&self, method: &str, path: &str, body: &str) -> Answer {
        let agent: ureq::Agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .allow_non_standard_methods(true)
            .timeout_global(Some(Duration::from_secs(60)))
            .build()
            .into();
        let mut request = ureq::http::Request::builder()
            .method(method)
            .uri(format!("http://{}{path}", self.address));
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        let mut answer = match method {
            "GET" => agent.run(request.body(()).unwrap()),
            _ => agent.run(request.body(body.to_owned()).unwrap()),
        }
        .unwrap();
        let headers = answer.headers().iter();
        let text = |value: &ureq::http::HeaderValue| value.to_str().unwrap().to_owned();
        Answer {
            status: answer.status().as_u16(),
            headers: headers.map(|(name, value)| (name.to_string(), text(value))).collect(),
            body: answer.body_mut().read_to_string().unwrap(),
        }
    }

    fn get(&self, path: &str) -> Answer {
        self.send("GET", path, "")
    }

    fn call(&self, request: &Value) -> Answer {
        self.with("content-type", "application/json").send("POST", "/v1/call", &request.to_string())
    }

    fn form(&self, path: &str, fields: &[(&str, &str)]) -> Answer {
        let mut body = String::new();
        for (name, value) in fields {
            if !body.is_empty() {
                body.push('&');
            }
            body.push_str(name);
            body.push('=');
            crate::pages::encode(value, &mut body);
        }
        let kind = "application/x-www-form-urlencoded";
        self.with("content-type", kind).send("POST", path, &body)
    }

    /// Logged in as this user.
    fn log_in(&self, name: &str) -> Browser {
        let fields = [("name", name), ("password", PASSWORD), ("next", "/")];
        let answer = self.with("origin", &self.origin()).form("/login", &fields);
        assert_eq!(answer.status, 303, "{}", answer.body);
        let cookie = answer.header("set-cookie").split(';').next().unwrap().to_owned();
        self.with("cookie", &cookie)
    }

    /// The token that a page of this session's forms carries.
    fn csrf(&self) -> String {
        let page = self.get("/password").body;
        let rest = page.split("name=\"csrf\" value=\"").nth(1).expect("a form");
        rest.split('"').next().unwrap().to_owned()
    }
}
