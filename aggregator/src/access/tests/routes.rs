//! Every route and every command, by every sort of visitor.

use super::*;

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
    ("/v1/anomalies", "GET", Some("/v1/anomalies?unit=A&period=2026-01")),
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
    let listed = crate::http::listed(&centre.site, counted(), &gate).listed;
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
        (json!({ "command": "anomalies", "unit": "T1", "period": "2026-01" }), Viewer, CountyOne),
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
        (
            json!({ "command": "bundle_import", "file": "x.bundle", "messages": [strangers_hello()] }),
            Operator,
            Everything,
        ),
        (json!({ "command": "revocations" }), Admin, Everything),
        (json!({ "command": "status" }), Viewer, Everything),
        (json!({ "command": "keys" }), Admin, Everything),
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

/// The hello of an agent that is not known.
fn strangers_hello() -> String {
    use banyan_shared::wire::{Batch, Beacon, Hello};
    let key = banyan_shared::keys::SigningKey::from_seed(&[9; 32]).unwrap();
    let hello = Hello { nonce: 1, beacon: Beacon::default(), operating: None };
    let batch = Batch {
        agent: key.public().agent_id(),
        epoch: banyan_shared::ids::Epoch { counter: 1, random: 1 },
        context: 1,
        hello: Some(hello),
        entries: Vec::new(),
    };
    data_encoding::BASE64.encode(&batch.seal(&key))
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
