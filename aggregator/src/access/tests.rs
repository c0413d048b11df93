//! The whole way in, over real sockets: every route, every command, every sort of visitor.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use banyan_shared::ids::Millis;
use serde_json::{Value, json};
use tokio::sync::watch;

use super::listener::Limits;
use super::*;
use crate::front_door::Counters;
use crate::http::Request;
use crate::pages::Site;
use crate::query::fixture::{CATALOGUE, MEMBERS, NETWORKS, UNITS};
use crate::service::{Running, Service};

const ADMIN_TOKEN: &str = "the server's own token, forty-eight digits";
const PASSWORD: &str = "correct horse battery";
const LOCAL: Listening = Listening { tls: false, local: true, only_server: false };
/// Like an address others reach, without the TLS that ureq here does not speak.
const REMOTE: Listening = Listening { local: false, ..LOCAL };

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
                ("units.csv", write("units.csv", UNITS)),
                ("networks.csv", write("networks.csv", NETWORKS)),
                ("members.csv", write("members.csv", MEMBERS)),
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
        let routes =
            crate::http::routes(&self.site, Arc::new(Counters::default()), ADMIN_TOKEN, listening);
        self.runtime.spawn(bound.run(routes, self.stop.subscribe()));
        Browser { address, headers: Vec::new() }
    }

    fn call(&self, request: Value) -> Value {
        let request: Request = serde_json::from_value(request).unwrap();
        self.runtime.block_on(crate::http::handle(&self.service, &Who::server(), request)).unwrap()
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

/// What a route takes, by hand: a new route is not guarded until someone has said here how it is tried.
/// For each its method, and an address of county one's (C1) whose figures nobody else may see, if any are.
const ROUTES: &[(&str, &str, Option<&str>)] = &[
    ("/v1/health", "GET", None),
    ("/login", "GET", None),
    ("/logout", "POST", None),
    ("/password", "GET", None),
    ("/v1/call", "POST", None),
    ("/v1/query", "GET", Some("/v1/query?unit=C1&period=2026-01")),
    ("/v1/completeness", "GET", Some("/v1/completeness?unit=A&period=2026-01")),
    ("/v1/report", "GET", Some("/v1/report?facility=A&form=daily&period=2026-01-05")),
    ("/v1/counters", "GET", None),
    ("/", "GET", None),
    ("/place/{code}", "GET", Some("/place/A?period=2026-01")),
    ("/list/{code}/{which}", "GET", Some("/list/C1/none?period=2026-01&groups=community")),
    ("/report/{facility}/{form}/{period}", "GET", Some("/report/A/daily/2026-01-05")),
    ("/batch/{position}", "GET", Some("/batch/1")),
];

#[test]
fn every_route_turns_away_whoever_it_must() {
    let centre = Centre::new();
    let gate = Gate { service: centre.service.clone(), token: "x".into(), listening: LOCAL };
    let listed = crate::http::listed(&centre.site, Arc::new(Counters::default()), &gate).listed;
    let mut have: Vec<&str> = listed.iter().map(|(path, _)| *path).collect();
    let mut tried: Vec<&str> = ROUTES.iter().map(|(path, ..)| *path).collect();
    have.sort_unstable();
    tried.sort_unstable();
    assert_eq!(have, tried, "every route is in the table and the other way round");
    let open: Vec<&str> = listed.iter().filter(|(_, open)| *open).map(|(path, _)| *path).collect();
    assert_eq!(open, ["/v1/health", "/login"], "open to anyone are only these");

    centre.user("root", "admin", "");
    let own = centre.token("viewer", "C1");
    let other = centre.token("viewer", "C2");
    let operator = centre.token("operator", "C2");
    let everything = centre.token("viewer", "");
    let old = centre.token("admin", "");
    let site = centre.serve(LOCAL);
    let session = site.log_in("root");
    for (path, method, of_county) in ROUTES {
        if open.contains(path) {
            assert_eq!(site.send(method, path, "").status, 200, "{path}");
            continue;
        }
        let example = of_county.unwrap_or(path);
        let api = path.starts_with("/v1/");
        let nobody = site.send(method, example, "");
        if api || *method == "POST" {
            assert_eq!(nobody.status, 401, "{example}");
        } else {
            assert_eq!(nobody.status, 303, "{example}");
            assert!(nobody.header("location").starts_with("/login?next=%2F"), "{example}");
        }
        for wrong in ["", "x", "banyan_", &own[..own.len() - 1], &format!("{own}0")] {
            assert_eq!(site.bearer(wrong).send(method, example, "").status, 401, "{wrong} {path}");
        }
        for (name, value) in [
            ("authorization", format!("Basic {own}")),
            ("cookie", "banyan_session=".to_owned()),
            ("cookie", format!("banyan_session={own}")),
        ] {
            let status = site.with(name, &value).send(method, example, "").status;
            assert!(matches!(status, 401 | 303), "{status} {name} {path}");
        }
        if of_county.is_some() {
            for (token, who) in [(&other, "viewer"), (&operator, "operator")] {
                let answer = site.bearer(token).send(method, example, "");
                assert_eq!(answer.status, 403, "a {who} of another county: {example}");
                assert!(answer.body.contains("C2"), "says whose scope: {}", answer.body);
            }
            // Acts of the ledger are nobody's but those who see everything.
            let good = if path.starts_with("/batch") { &everything } else { &own };
            let answer = site.bearer(good).send(method, example, "");
            assert_eq!(answer.status, 200, "{example}: {}", answer.body);
            assert_eq!(site.bearer(&everything).send(method, example, "").status, 200);
        }
        if *method == "POST" {
            let at = |browser: &Browser| browser.send(method, example, "").status;
            assert_eq!(at(&session), 403, "without origin and token: {path}");
            assert_eq!(at(&session.with("origin", &site.origin())), 403, "without token: {path}");
            let token = session.csrf();
            let foreign =
                session.with("x-csrf-token", &token).with("origin", "http://evil.example");
            assert_eq!(at(&foreign), 403, "from elsewhere: {path}");
            let wrong = session.with("x-csrf-token", "00").with("origin", &site.origin());
            assert_eq!(at(&wrong), 403, "with another token: {path}");
        }
    }
    // What is no route tells nobody so.
    assert_eq!(site.get("/v1/none").status, 401);
    assert_eq!(site.bearer(&everything).get("/v1/none").status, 404);
    // Expired, after all the others were tried: an hour is over.
    centre.later(3_600_001);
    for (path, method, _) in ROUTES.iter().filter(|(path, ..)| !open.contains(path)) {
        let answer = site.bearer(&old).send(method, path, "");
        assert_eq!(answer.status, 401, "{path}");
        assert!(answer.body.contains("expired"), "{}", answer.body);
    }
}

/// Over what a command's example needs a say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Of {
    /// Nothing: it leaves out what lies outside.
    Nothing,
    /// County one.
    CountyOne,
    /// Everything; also where nothing is known under the name, so that nobody learns that.
    Everything,
    /// The server's own files.
    Server,
}

/// Every command by hand, with the least role and an example within county one.
fn commands() -> Vec<(Value, Role, Of)> {
    use Of::{CountyOne, Everything, Nothing, Server};
    use Role::{Admin, Operator, Viewer};
    let report = json!({ "facility": "A", "form": "daily", "period": "2026-01-05",
        "reason": "typing_error" });
    let stage = json!({ "unit": "T1", "form": "daily", "period": "2026-01" });
    let agent = "AAAAAAAAAA";
    vec![
        (
            json!({ "command": "enrol", "units": ["A"], "below": ["T1"], "expires_s": 3600 }),
            Operator,
            CountyOne,
        ),
        (
            json!({ "command": "enrol_each", "units": ["A"], "expires_s": 3600 }),
            Operator,
            CountyOne,
        ),
        (
            json!({ "command": "enrol_stick", "below": ["T1"], "uses": 1, "expires_s": 3600 }),
            Operator,
            CountyOne,
        ),
        (
            json!({ "command": "expand", "below": ["T1"], "kinds": [], "lang": "en" }),
            Operator,
            CountyOne,
        ),
        (
            json!({ "command": "assign", "agent": agent, "scope": { "units": ["A"] }, "remove": false }),
            Operator,
            Everything,
        ),
        (json!({ "command": "revoke", "agent": agent, "lang": "en" }), Operator, Everything),
        (json!({ "command": "fleet", "lang": "en" }), Viewer, Nothing),
        (json!({ "command": "parked", "lang": "en" }), Viewer, Nothing),
        (json!({ "command": "units", "lang": "en" }), Viewer, Nothing),
        (json!({ "command": "import_units", "tables": [] }), Admin, Everything),
        (
            json!({ "command": "extend", "form": "daily", "unit": "T1", "period": "2026-01-05", "due": "2026-02-20", "reason": "" }),
            Operator,
            CountyOne,
        ),
        (json!({ "command": "publish", "toml": "" }), Admin, Everything),
        (json!({ "command": "claims", "lang": "en" }), Operator, Nothing),
        (
            json!({ "command": "decide_claim", "agent": agent, "approve": true }),
            Operator,
            Everything,
        ),
        (json!({ "command": "verify", "all": false }), Admin, Everything),
        (
            json!({ "command": "backup", "path": "/nowhere/at/all", "identity": true }),
            Admin,
            Server,
        ),
        (
            json!({ "command": "query", "unit": "C1", "period": "2026-01", "by": ["facility"] }),
            Viewer,
            CountyOne,
        ),
        (
            json!({ "command": "completeness", "unit": "T1", "period": "2026-01" }),
            Viewer,
            CountyOne,
        ),
        (
            json!({ "command": "report", "facility": "A", "form": "daily", "period": "2026-01-05" }),
            Viewer,
            CountyOne,
        ),
        (merged("correct", &report, json!({ "values": ["visits=3"] })), Operator, CountyOne),
        (merged("withdraw", &report, json!({})), Operator, CountyOne),
        (merged("return", &report, json!({})), Operator, CountyOne),
        (merged("approve", &report, json!({})), Operator, CountyOne),
        (merged("signoff", &stage, json!({})), Operator, CountyOne),
        (merged("lock", &stage, json!({})), Operator, CountyOne),
        (merged("unlock", &stage, json!({})), Operator, CountyOne),
        (
            json!({ "command": "import_counts", "file": "x.csv", "header": ["facility", "form", "period", "visits"],
            "rows": [[2, ["A", "daily", "2026-01-06", "4"]]] }),
            Operator,
            CountyOne,
        ),
        (
            json!({ "command": "export_counts", "unit": "A", "period": "2026-01", "path": "/nowhere/at/all" }),
            Admin,
            Server,
        ),
        (json!({ "command": "status" }), Viewer, Everything),
        (
            json!({ "command": "user_add", "name": "new", "role": "viewer", "scope": "T1", "password": PASSWORD }),
            Admin,
            CountyOne,
        ),
        (
            json!({ "command": "user_password", "name": "of-one", "password": PASSWORD }),
            Admin,
            CountyOne,
        ),
        (json!({ "command": "user_list" }), Admin, Nothing),
        (json!({ "command": "user_remove", "name": "of-one" }), Admin, CountyOne),
        (
            json!({ "command": "token_add", "name": "new", "role": "viewer", "scope": "A", "expires_s": 60 }),
            Admin,
            CountyOne,
        ),
        (json!({ "command": "token_list" }), Admin, Nothing),
        (json!({ "command": "token_remove", "name": "viewer-T1" }), Admin, CountyOne),
        (json!({ "command": "audit" }), Admin, Everything),
    ]
}

fn merged(command: &str, common: &Value, more: Value) -> Value {
    let mut all = json!({ "command": command });
    for part in [common, &more] {
        for (name, value) in part.as_object().unwrap() {
            all[name] = value.clone();
        }
    }
    all
}

#[test]
fn every_command_is_held_to_role_and_scope() {
    // The decoder names every command there is.
    let unknown = serde_json::from_value::<Request>(json!({ "command": "?" })).unwrap_err();
    let unknown = unknown.to_string();
    let mut have: Vec<&str> = unknown.split('`').skip(3).step_by(2).collect();
    let table = commands();
    let mut tried: Vec<&str> =
        table.iter().map(|(json, ..)| json["command"].as_str().unwrap()).collect();
    have.sort_unstable();
    tried.sort_unstable();
    assert_eq!(have, tried, "every command is in the table and the other way round");

    let centre = Centre::new();
    centre.user("root", "admin", "");
    let site = centre.serve(REMOTE);
    let mut visitors = Vec::new();
    for role in [Role::Viewer, Role::Operator, Role::Admin] {
        for scope in ["C1", "C2", "G2", "P", ""] {
            visitors.push((role, scope, centre.token(role.code(), scope)));
        }
    }
    for (request, least, of) in table {
        for (role, scope, token) in &visitors {
            let accounts = || centre.service.access().accounts();
            if accounts().user("of-one").is_none() {
                centre.user("of-one", "viewer", "T1");
            }
            if accounts().token_named("viewer-T1").is_none() {
                centre.token("viewer", "T1");
            }
            let may = *role >= least
                && match of {
                    Of::Nothing => true,
                    Of::CountyOne => ["C1", "P", ""].contains(scope),
                    Of::Everything => scope.is_empty(),
                    Of::Server => false,
                };
            let answer = site.bearer(token).call(&request);
            let told = format!("{request} by {role:?} of {scope:?}: {}", answer.body);
            assert_ne!(answer.status, 401, "{told}");
            assert_eq!(answer.status != 403, may, "{told}");
            assert!(answer.status < 500, "{told}");
        }
    }
    // Whatever was refused is on the log.
    let refused = centre.log(Some("refused"));
    assert!(refused.iter().any(|r| r["user"] == "viewer-C2" && r["what"] == "query"));
    // On this machine the server's own token may do it all; elsewhere it is a wrong one.
    let backup = json!({ "command": "backup", "path": "/nowhere/at/all", "identity": true });
    assert_eq!(site.bearer(ADMIN_TOKEN).call(&backup).status, 401);
    let local = centre.serve(LOCAL).bearer(ADMIN_TOKEN);
    assert_eq!(local.call(&backup).status, 500, "tried, and there is no such folder");
}

#[test]
fn scopes_hold_on_every_map_and_in_every_division() {
    let centre = Centre::new();
    centre.user("root", "admin", "");
    let site = centre.serve(REMOTE);
    let status = |scope: &str, question: Value| {
        let token = {
            let name = format!("viewer-{scope}");
            let removed = centre.service.access().accounts().token_named(&name).is_some();
            if removed {
                centre.call(json!({ "command": "token_remove", "name": name }));
            }
            centre.token("viewer", scope)
        };
        let mut request = json!({ "command": "query", "period": "2026-01" });
        for (name, value) in question.as_object().unwrap() {
            request[name] = value.clone();
        }
        let answer = site.bearer(&token).call(&request);
        assert!(matches!(answer.status, 200 | 403), "{request}: {}", answer.body);
        answer.status == 200
    };
    let of = |scope: &str, unit: &str| status(scope, json!({ "unit": unit }));
    for (scope, may, may_not) in [
        (
            "C1",
            vec!["C1", "T1", "A", "M", "K", "B1", "G1", "L1", "一县"],
            vec!["P", "C2", "D", "H2", "G2", "L2"],
        ),
        ("T1", vec!["T1", "A", "M"], vec!["C1", "T2", "H1", "G1", "L1"]),
        ("A", vec!["A"], vec!["B", "T1", "C1", "G1", "L1"]),
        // Members of the first alliance: a clinic and a hospital, and no place as a whole.
        ("L1", vec!["L1", "A", "H1"], vec!["L2", "B", "T1", "C1", "G1", "P"]),
        // All that reports in the third township is a member of the second.
        ("L2", vec!["L2", "A", "D", "T3"], vec!["L1", "B", "C2", "T1"]),
        ("", vec!["P", "C1", "D", "L2"], vec![]),
    ] {
        for unit in may {
            assert!(of(scope, unit), "{scope} sees {unit}");
        }
        for unit in may_not {
            assert!(!of(scope, unit), "{scope} does not see {unit}");
        }
    }
    // The clinic that moves to county two in March: its January is still county one's.
    let map = |scope: &str, unit: &str, membership: &str| {
        status(scope, json!({ "unit": unit, "membership": membership, "by": ["facility"] }))
    };
    assert!(map("C1", "C1", "as_it_was") && map("C1", "C1", "today"));
    assert!(map("C1", "C1", "2026-03-31"), "fewer of its own");
    assert!(!map("C2", "C2", "2026-03-31"), "January of another county's clinic");
    assert!(map("C2", "C2", "2026-02-01"));
    let moved = json!({ "unit": "M", "period": "2026-03" });
    assert!(status("C2", moved.clone()) && status("C1", moved), "its March is both's to see");
    assert!(!of("C2", "M"), "its January is not");
    // Networks are shown whole, with members elsewhere.
    let networks = |scope: &str, kind: &str| {
        status(scope, json!({ "unit": "C1", "by": ["network"], "network": kind }))
    };
    assert!(networks("C1", "community") && !networks("C1", "alliance"));
    assert!(networks("", "alliance"));
    let joined = json!({ "unit": "C1", "by": ["month, network"], "network": "alliance" });
    assert!(!status("C1", joined));
    // A moment of the past is asked for by code: names may have been another's.
    let past = |unit: &str| status("C1", json!({ "unit": unit, "as_of": "2026-01-15T00:00:00Z" }));
    assert!(past("C1") && !past("一县") && !past("C2"));
}

#[test]
fn lists_show_what_lies_in_the_scope() {
    let centre = Centre::new();
    centre.user("root", "admin", "");
    centre.user("one", "admin", "C1");
    centre.user("two", "viewer", "C2");
    let site = centre.serve(REMOTE);
    let names = |token: &str| -> Vec<String> {
        let answer = site.bearer(token).call(&json!({ "command": "user_list" }));
        let answer: Value = serde_json::from_str(&answer.body).unwrap();
        let names = answer["users"].as_array().unwrap().iter();
        names.map(|user| user["name"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(names(&centre.token("admin", "")), ["root", "one", "two"]);
    let of_one = centre.token("admin", "C1");
    assert_eq!(names(&of_one), ["one"]);
    // Nobody gives more than they have.
    for (role, scope) in [("admin", ""), ("viewer", "C2"), ("viewer", "P"), ("viewer", "L2")] {
        let call = json!({ "command": "user_add", "name": "x", "role": role, "scope": scope,
            "password": PASSWORD });
        assert_eq!(site.bearer(&of_one).call(&call).status, 403, "{role} {scope}");
    }
    let others = json!({ "command": "user_password", "name": "root", "password": PASSWORD });
    assert_eq!(site.bearer(&of_one).call(&others).status, 403);
}

#[test]
fn without_users_this_machine_reads_and_nobody_else_does_anything() {
    let centre = Centre::new();
    let local = centre.serve(LOCAL);
    let home = local.get("/");
    assert_eq!(home.status, 200);
    assert!(home.body.contains("user add"), "it says so");
    for path in ["/place/A?period=2026-01", "/v1/query?unit=P&period=2026-01"] {
        assert_eq!(local.get(path).status, 200, "{path}");
        // A page from elsewhere, pointing its own name here.
        assert_eq!(local.with("host", "evil.example").get(path).status, 403, "{path}");
    }
    let change =
        json!({ "command": "signoff", "unit": "T1", "form": "daily", "period": "2026-01" });
    assert_eq!(local.call(&change).status, 401, "reads only");
    assert_eq!(local.bearer(ADMIN_TOKEN).get("/v1/counters").status, 200);
    let remote = centre.serve(REMOTE);
    assert_eq!(remote.get("/place/A").status, 303);
    assert_eq!(remote.get("/v1/query?unit=P&period=2026-01").status, 401);
    // The first user closes it, in the same breath.
    centre.user("root", "admin", "");
    assert_eq!(local.get("/").status, 303);
    assert_eq!(local.get("/v1/query?unit=P&period=2026-01").status, 401);
    assert_eq!(local.bearer(ADMIN_TOKEN).get("/v1/counters").status, 200);
    // The socket beside TLS is the command line's alone.
    let command = centre.serve(Listening { tls: false, local: true, only_server: true });
    let token = centre.token("admin", "");
    assert_eq!(command.get("/login").status, 404);
    assert_eq!(command.bearer(&token).get("/v1/counters").status, 401);
    assert_eq!(command.bearer(ADMIN_TOKEN).get("/v1/counters").status, 200);
}

#[test]
fn a_session_begins_with_a_password_and_ends_in_many_ways() {
    let centre = Centre::new();
    centre.user("li", "operator", "C1");
    let site = centre.serve(LOCAL);
    let login = |password: &str| {
        let fields = [("name", "li"), ("password", password), ("next", "/place/C1?period=2026-01")];
        site.with("origin", &site.origin()).form("/login", &fields)
    };
    assert_eq!(login("correct horse battery?").status, 401);
    let answer = login(PASSWORD);
    assert_eq!(answer.status, 303);
    assert_eq!(answer.header("location"), "/place/C1?period=2026-01");
    let cookie = answer.header("set-cookie");
    assert!(cookie.ends_with("; Path=/; HttpOnly; SameSite=Strict"), "{cookie}");
    // From another page nobody is logged in unasked.
    let fields = [("name", "li"), ("password", PASSWORD)];
    assert_eq!(site.with("origin", "http://evil.example").form("/login", &fields).status, 403);
    assert_eq!(site.form("/login", &fields).status, 403);

    let li = site.log_in("li");
    let page = li.get("/place/C1?period=2026-01");
    assert_eq!(page.status, 200);
    assert!(page.body.contains("action=\"/logout\"") && page.body.contains(">li<"));
    assert_eq!(li.get("/place/C2?period=2026-01").status, 403);
    assert_eq!(li.get("/").header("location"), "/place/C1", "home is one's own place");
    // Logging out takes the session's token and an own page; then the cookie opens nothing.
    let csrf = li.csrf();
    let out = |browser: &Browser, csrf: &str| browser.form("/logout", &[("csrf", csrf)]).status;
    let own = li.with("origin", &site.origin());
    assert_eq!(out(&li, &csrf), 403);
    assert_eq!(out(&own, "x"), 403);
    assert_eq!(out(&li.with("referer", &format!("{}/password", site.origin())), "x"), 403);
    assert_eq!(out(&own, &csrf), 303);
    assert_eq!(li.get("/").status, 303);
    assert_eq!(li.get("/").header("location"), "/login?next=%2F");

    // A command by session, as a page of ours might send it.
    let li = site.log_in("li");
    let call = json!({ "command": "signoff", "unit": "T1", "form": "daily", "period": "2026-01" });
    assert_eq!(li.with("origin", &site.origin()).call(&call).status, 403);
    let own = li.with("origin", &site.origin()).with("x-csrf-token", &li.csrf());
    assert_eq!(own.call(&call).status, 200, "{}", own.call(&call).body);

    // Another password ends all other sessions.
    let other = site.log_in("li");
    let (csrf, fresh) = (li.csrf(), "another horse battery");
    let change = |old: &str| {
        let fields = [("csrf", csrf.as_str()), ("old", old), ("new", fresh), ("again", fresh)];
        li.with("origin", &site.origin()).form("/password", &fields)
    };
    assert_eq!(change("wrong").status, 401);
    let changed = change(PASSWORD);
    assert_eq!(changed.status, 303, "{}", changed.body);
    assert_eq!((li.get("/password").status, other.get("/password").status), (303, 303));
    let cookie = changed.header("set-cookie").split(';').next().unwrap().to_owned();
    let li = site.with("cookie", &cookie);
    assert_eq!(li.get("/password").status, 200);
    // Idleness does, and the end of the user.
    centre.later(29 * 60_000);
    assert_eq!(li.get("/password").status, 200);
    centre.later(31 * 60_000);
    assert_eq!(li.get("/password").status, 303);
    centre.user("zhang", "viewer", "C1");
    let zhang = site.log_in("zhang");
    assert_eq!(zhang.get("/password").status, 200);
    centre.call(json!({ "command": "user_remove", "name": "zhang" }));
    assert_eq!(zhang.get("/password").status, 303);
    centre.user("zhang", "viewer", "C1");
    assert_eq!(zhang.get("/password").status, 303, "another of the same name is another");
}

#[test]
fn wrong_passwords_make_the_next_wait_right_ones_too() {
    let centre = Centre::new();
    centre.user("li", "viewer", "");
    let site = centre.serve(LOCAL);
    let site = site.with("origin", &site.origin());
    let login =
        |name: &str, password: &str| site.form("/login", &[("name", name), ("password", password)]);
    for _ in 0..throttle::USER_FREE {
        assert_eq!(login("li", "not the one").status, 401);
    }
    let wait = login("li", PASSWORD);
    assert_eq!(wait.status, 429);
    let seconds: i64 = wait.header("retry-after").parse().unwrap();
    assert!((1..=3).contains(&seconds), "{seconds}");
    centre.later(seconds * 1000);
    assert_eq!(login("li", PASSWORD).status, 303);
    // A name that does not exist is answered as one that does.
    let (unknown, known) = (login("nobody", "not the one"), login("li", "not the one"));
    assert_eq!((unknown.status, &unknown.body), (known.status, &known.body));
    let log = centre.log(Some("login"));
    let outcomes: Vec<&str> = log.iter().map(|r| r["outcome"].as_str().unwrap()).collect();
    assert_eq!(outcomes[..7], ["wrong", "wrong", "wrong", "wrong", "wrong", "throttled", "ok"]);
    assert!(log.iter().all(|r| r["address"] == "127.0.0.1"));
}

#[test]
fn single_sites_are_put_down_once_a_page_and_sums_are_not() {
    let centre = Centre::new();
    centre.user("li", "viewer", "");
    let li = centre.serve(LOCAL).log_in("li");
    for path in [
        "/place/A?period=2026-01",
        "/place/P?period=2026-01",
        "/report/A/daily/2026-01-05",
        "/v1/query?unit=P&period=2026-01",
        "/v1/query?unit=P&period=2026-01&by=facility",
        "/v1/report?facility=A&form=daily&period=2026-01-05",
    ] {
        assert_eq!(li.get(path).status, 200, "{path}");
    }
    let log = centre.log(Some("read"));
    let read: Vec<(&str, &str)> =
        log.iter().map(|r| (r["what"].as_str().unwrap(), r["of"].as_str().unwrap())).collect();
    assert_eq!(
        read,
        [
            ("page", "A 2026-01"),
            ("page", "A daily 2026-01-05"),
            ("query", "P 2026-01 facility"),
            ("report", "A daily 2026-01-05"),
        ]
    );
    assert!(log.iter().all(|r| r["user"] == "li" && r["via"] == "session"));
}

#[test]
fn every_answer_carries_the_headers() {
    let centre = Centre::new();
    let site = centre.serve(LOCAL);
    for path in ["/", "/login", "/v1/health", "/place/none", "/nowhere", "/?q=A"] {
        let answer = site.get(path);
        let policy = answer.header("content-security-policy");
        assert!(policy.starts_with("default-src 'none'"), "{path}: {policy}");
        assert!(policy.contains("frame-ancestors 'none'") && !policy.contains("script"), "{path}");
        assert_eq!(answer.header("x-content-type-options"), "nosniff", "{path}");
        assert_eq!(answer.header("referrer-policy"), "same-origin", "{path}");
        assert_eq!(answer.header("cache-control"), "no-store", "{path}");
        assert_eq!(answer.header("strict-transport-security"), "", "{path}: not without TLS");
    }
}

/// What the other end says to these bytes until it closes.
fn raw(address: SocketAddr, bytes: &[u8]) -> String {
    let mut socket = TcpStream::connect(address).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    // It may close before it has read everything.
    let _ = socket.write_all(bytes);
    let mut said = Vec::new();
    let _ = socket.read_to_end(&mut said);
    String::from_utf8_lossy(&said).into_owned()
}

#[test]
fn oversized_and_crooked_requests_are_turned_away() {
    let centre = Centre::new();
    let site = centre.serve(LOCAL);
    let head = "GET /v1/health HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n";
    assert!(raw(site.address, format!("{head}\r\n").as_bytes()).starts_with("HTTP/1.1 200"));
    let long = format!("{head}x: {}\r\n\r\n", "a".repeat(64 << 10));
    assert!(!raw(site.address, long.as_bytes()).contains(" 200 "));
    let many: String = (0..100).map(|n| format!("x{n}: 1\r\n")).collect();
    assert!(!raw(site.address, format!("{head}{many}\r\n").as_bytes()).contains(" 200 "));
    let long = format!("GET /{} HTTP/1.1\r\nhost: localhost\r\n\r\n", "a".repeat(64 << 10));
    assert!(!raw(site.address, long.as_bytes()).contains(" 200 "));
    for path in [
        "/../../../../etc/passwd",
        "/place/..%2f..%2f..%2fetc%2fpasswd",
        "/place/%2e%2e/%2e%2e/etc/passwd",
        "/report/..%2f/..%5c/%00",
        "/list/C1/..%2f..%2fkeys%2foperating.key",
        "//etc/passwd",
        "/run/admin.token",
        "/access/accounts.json",
        "/place/%ff%fe",
    ] {
        let request =
            format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
        let said = raw(site.address, request.as_bytes());
        let status = said.split(' ').nth(1).unwrap_or_default();
        assert!(matches!(status, "400" | "404"), "{path}: {said}");
        assert!(!said.contains("root:") && !said.contains(ADMIN_TOKEN), "{path}");
    }
    // Bodies: by role, and nothing at all from nobody.
    let viewer = centre.token("viewer", "");
    let large = json!({ "command": "query", "unit": "x".repeat(100 << 10), "period": "2026-01" });
    assert_eq!(site.bearer(&viewer).call(&large).status, 413);
    let operator = centre.token("operator", "");
    assert_eq!(site.bearer(&operator).call(&large).status, 400);
    let name = "x".repeat(100 << 10);
    let form =
        site.with("origin", &site.origin()).form("/login", &[("name", &name), ("password", "")]);
    assert_eq!(form.status, 413);
    assert_eq!(site.get("/v1/health").status, 200, "and others are served");
}

#[test]
fn whoever_says_nothing_is_cut_off_and_others_are_served() {
    let centre = Centre::new();
    let head = Duration::from_millis(300);
    let limits = Limits { connections: 20, of_address: 10, head, handshake: head };
    let site = centre.serve_with(LOCAL, None, limits);
    let silent: Vec<TcpStream> =
        (0..10).map(|_| TcpStream::connect(site.address).unwrap()).collect();
    for mut socket in silent {
        // Slowly, a byte at a time, is no better than nothing.
        let _ = socket.write_all(b"GET");
        socket.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        let mut rest = Vec::new();
        let _ = socket.read_to_end(&mut rest);
        assert!(!String::from_utf8_lossy(&rest).contains(" 200 "));
    }
    assert_eq!(site.get("/v1/health").status, 200);
}

#[test]
fn tls_is_ours_to_end_and_old_versions_are_refused() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio_rustls::rustls;
    let centre = Centre::new();
    centre.user("root", "admin", "");
    let names = ["county.example".to_owned(), "127.0.0.1".to_owned()];
    let (config, fingerprint) = self_made(centre.service.dir(), &names).unwrap();
    assert_eq!(fingerprint.len(), 32 * 3 - 1);
    let again = self_made(centre.service.dir(), &names).unwrap().1;
    assert_eq!(again, fingerprint, "made once");
    let head = Duration::from_millis(300);
    let limits = Limits { head, handshake: head, ..Limits::default() };
    let listening = Listening { tls: true, local: false, only_server: false };
    let site = centre.serve_with(listening, Some(config), limits);
    // Silent in the handshake, TLS 1.0, and plain text: nothing comes of any.
    drop(TcpStream::connect(site.address).unwrap());
    let silent = TcpStream::connect(site.address).unwrap();
    let hello_of_1_0: &[u8] = &[
        0x16, 3, 1, 0, 0x2d, 1, 0, 0, 0x29, 3, 1, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14,
        15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31, 32, 0, 0, 2, 0, 0x2f,
        1, 0,
    ];
    let alert = raw(site.address, hello_of_1_0);
    assert!(alert.is_empty() || alert.as_bytes()[0] == 0x15, "{alert:?}");
    assert!(!raw(site.address, b"GET /v1/health HTTP/1.1\r\n\r\n").contains("HTTP"));

    let pem = std::fs::read(centre.service.dir().join("access/http-cert.pem")).unwrap();
    let mut roots = rustls::RootCertStore::empty();
    for one in
        <rustls::pki_types::CertificateDer as rustls::pki_types::pem::PemObject>::pem_slice_iter(
            &pem,
        )
    {
        roots.add(one.unwrap()).unwrap();
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let client = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let said = centre.runtime.block_on(async {
        let tcp = tokio::net::TcpStream::connect(site.address).await.unwrap();
        let name = "county.example".try_into().unwrap();
        let connector = tokio_rustls::TlsConnector::from(Arc::new(client));
        let mut tls = connector.connect(name, tcp).await.unwrap();
        let request = "GET /place/A HTTP/1.1\r\nhost: county.example\r\nconnection: close\r\n\r\n";
        tls.write_all(request.as_bytes()).await.unwrap();
        let mut said = Vec::new();
        // Some ends leave out the last word of TLS.
        let _ = tls.read_to_end(&mut said).await;
        String::from_utf8(said).unwrap()
    });
    assert!(said.starts_with("HTTP/1.1 303"), "{said}");
    assert!(said.contains("strict-transport-security: max-age="), "{said}");
    drop(silent);
}
