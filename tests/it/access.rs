//! Users, tokens and the log, through the real programs.

use std::io::Write;
use std::process::Stdio;

use serde_json::json;

use crate::small::{Done, Small, record, sync};

const PASSWORD: &str = "correct horse battery";

/// A command that reads a password from its input.
fn with_password(small: &Small, arguments: &[&str], password: &str) -> Done {
    let mut command = small.world.command();
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    writeln!(child.stdin.take().unwrap(), "{password}").unwrap();
    child.wait_with_output().unwrap().into()
}

fn user(small: &Small, name: &str, role: &str, scope: &[&str]) {
    let arguments = [&["user", "add", name, "--role", role], scope].concat();
    with_password(small, &arguments, PASSWORD).exits(0);
}

/// The status of a GET with these headers, and what came.
fn get(small: &Small, path: &str, headers: &[(&str, &str)]) -> (u16, String) {
    let agent: ureq::Agent =
        ureq::Agent::config_builder().http_status_as_error(false).max_redirects(0).build().into();
    let mut request = agent.get(format!("http://{}{path}", small.served().http()));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let mut answer = request.call().unwrap();
    (answer.status().as_u16(), answer.body_mut().read_to_string().unwrap())
}

#[test]
fn the_first_user_closes_the_pages_and_everyone_sees_their_own_county() {
    let small = Small::new();
    let agent = small.agent("V1", &["V1-VC"]);
    record(&agent, "2026-01-05", &["total_visits=7"]);
    sync(&agent);
    assert_eq!(get(&small, "/place/V1-VC?period=2026-01", &[]).0, 200, "nobody has been made");
    assert_eq!(get(&small, "/v1/query?unit=K1&period=2026-01", &[]).0, 200);

    let short = with_password(&small, &["user", "add", "root", "--role", "admin"], "short");
    assert!(short.exits(2).err.contains("10"), "says how long");
    user(&small, "root", "admin", &[]);
    user(&small, "li", "viewer", &["--scope", "甲县"]);
    let users = small.json(&["user", "list"]);
    assert_eq!(users["users"][1]["scope"], "K1", "{users}");
    assert_eq!(get(&small, "/place/V1-VC?period=2026-01", &[]).0, 303);
    assert_eq!(get(&small, "/v1/query?unit=K1&period=2026-01", &[]).0, 401);
    // The command line goes on, beside the service and with a token of its own.
    assert_eq!(small.element("K1", "2026-01", "total_visits")["value"], 7);

    let token = |arguments: &[&str]| {
        let out = small.ok(&[&["token", "add"], arguments].concat());
        out.lines().last().unwrap().to_owned()
    };
    let own = token(&["his", "--role", "viewer", "--scope", "K1"]);
    let other = token(&["his2", "--role", "operator", "--scope", "K2", "--expires", "1h"]);
    let bearer = |token: &str| format!("Bearer {token}");
    for (path, expected) in [
        ("/v1/query?unit=K1&period=2026-01", (200, 403)),
        ("/v1/query?unit=K2&period=2026-01", (403, 200)),
        ("/v1/query?unit=S&period=2026-01", (403, 403)),
        ("/v1/query?unit=CC-K1&period=2026-01", (200, 403)),
        ("/v1/report?facility=V1-VC&form=vc_daily&period=2026-01-05", (200, 403)),
        ("/report/V1-VC/vc_daily/2026-01-05", (200, 403)),
        ("/place/V5-VC?period=2026-01", (403, 200)),
        ("/batch/3", (403, 403)),
    ] {
        let of = |token: &str| get(&small, path, &[("authorization", &bearer(token))]).0;
        assert_eq!((of(&own), of(&other)), expected, "{path}");
    }
    small.ok(&["token", "remove", "his"]);
    let gone = get(&small, "/v1/query?unit=K1&period=2026-01", &[("authorization", &bearer(&own))]);
    assert_eq!(gone.0, 401);

    // The log has it, after a kill as well.
    let mut small = small;
    let (mqtt, http) = (small.served().mqtt(), small.served().http());
    small.served.take().unwrap().kill9().unwrap();
    small.served = Some(small.world.serve_at(mqtt, http).unwrap());
    let log = small.json(&["audit", "--kind", "refused"]);
    let refused = log["records"].as_array().unwrap();
    assert!(refused.iter().any(|r| r["user"] == "his" && r["of"] == "K2 2026-01"), "{log}");
    let log = small.json(&["audit", "--kind", "read", "--user", "his"]);
    let reads = log["records"].as_array().unwrap();
    assert!(reads.iter().any(|r| r["of"] == "V1-VC vc_daily 2026-01-05"), "{log}");
    let log = small.json(&["audit", "--kind", "change"]);
    let made: Vec<_> = log["records"].as_array().unwrap().iter().map(|r| &r["what"]).collect();
    assert!(made.contains(&&json!("user add")) && made.contains(&&json!("token remove")), "{log}");
    assert!(!log.to_string().contains(PASSWORD));

    // A backup brings users back, so that a restored centre is no more open than it was.
    let file = small.world.dir().join("backup");
    small.ok(&["backup", file.to_str().unwrap(), "--identity"]);
    let again = small.world.dir().join("again");
    let mut restore = std::process::Command::new(&small.world.binaries().aggregator);
    restore.arg("--data-dir").arg(&again).args(["restore", file.to_str().unwrap()]);
    Done::from(restore.output().unwrap()).exits(0);
    let accounts = |dir: &std::path::Path| std::fs::read(dir.join("access/accounts.json")).unwrap();
    assert_eq!(accounts(&again), accounts(&small.world.centre()));
}

#[test]
fn an_address_of_others_needs_tls_and_a_user() {
    let mut small = Small::new();
    small.served.take().unwrap().stop().unwrap();
    let any = "0.0.0.0:0";
    let serve = |more: &[&str]| {
        let start = ["serve", "--mqtt-addr", "127.0.0.1:0", "--http-addr", any];
        small.run(&[&start[..], more].concat())
    };
    let refused = serve(&[]).exits(1);
    assert!(refused.err.contains("--http-cert"), "{}", refused.err);
    let refused = serve(&["--http-self-made-cert", "127.0.0.1"]).exits(1);
    assert!(refused.err.contains("user add"), "{}", refused.err);
    serve(&["--http-cert", "only.pem"]).exits(2);

    user(&small, "root", "admin", &[]);
    let mut command = small.world.command();
    command
        .args(["serve", "--mqtt-addr", "127.0.0.1:0", "--http-addr", any])
        .args(["--http-self-made-cert", "127.0.0.1"]);
    let log = small.world.dir().join("logs/tls.log");
    let process = banyan_tests::Process::start(&mut command, &log).unwrap();
    let addresses = small.world.centre().join("run/addresses.json");
    let addresses: serde_json::Value =
        banyan_tests::until("it is ready", crate::small::SOON, || {
            process.check()?;
            let Ok(bytes) = std::fs::read(&addresses) else { return Ok(None) };
            Ok(Some(serde_json::from_slice(&bytes)?))
        })
        .unwrap();
    let port = addresses["http"].as_str().unwrap().rsplit(':').next().unwrap();
    // Plain text gets no answer there; the command line has its own way in.
    let agent: ureq::Agent = ureq::Agent::config_builder().build().into();
    assert!(agent.get(format!("http://127.0.0.1:{port}/v1/health")).call().is_err());
    assert_eq!(small.json(&["user", "list"])["users"][0]["name"], "root");
    assert!(process.terminate(crate::small::SOON).unwrap().success());
}
