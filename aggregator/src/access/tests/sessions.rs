//! Who is let in, for how long, and what is put down.

use super::*;

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
