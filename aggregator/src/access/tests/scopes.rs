//! What lies in whose scope.

use super::*;

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
    // Of a moment of the past a name means what it meant then.
    let past = |unit: &str| status("C1", json!({ "unit": unit, "as_of": "2026-01-15T00:00:00Z" }));
    assert!(past("C1") && past("一县") && !past("C2") && !past("二县"));
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
