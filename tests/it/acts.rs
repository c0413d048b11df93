//! Operators' acts about registry and catalogue, through real programs: previews, extensions, a new catalogue,
//! claims; and what was known before each of them.

use serde_json::{Value, json};

use crate::small::{Small, UNITS, json_of, record, run, sync};

const CATALOGUE: &str = include_str!("../../seeds/catalogue.toml");

/// The seeds' catalogue under another version.
fn catalogue(version: &str) -> String {
    CATALOGUE.replacen("\"2026.1\"", &format!("\"{version}\""), 1)
}

/// The catalogue with one element more on the clinics' daily form.
fn with_checks(version: &str) -> String {
    let element = "[[element]]\ncode = \"drug_checks\"\nname = { zh = \"处方核对\", en = \"checks\" }\n\
                   unit = \"visit\"\nsource = \"P\"\n\n";
    let line = "  { element = \"chronic_followups\", max = 1000 },\n";
    let text = catalogue(version).replacen("[[form]]", &format!("{element}[[form]]"), 1);
    let daily = text.find("code = \"vc_daily\"").unwrap();
    let (before, form) = text.split_at(daily);
    let more = format!("{line}  {{ element = \"drug_checks\", required = false }},\n");
    format!("{before}{}", form.replacen(line, &more, 1))
}

/// An answer without what only the present knows: the moment it was given, and beacons.
fn lasting(mut answer: Value) -> Value {
    fn forget(value: &mut Value) {
        match value {
            Value::Object(object) => {
                for key in ["as_of", "sites_with_backlog", "sites_silent", "missing_why"] {
                    object.remove(key);
                }
                object.values_mut().for_each(forget);
            }
            Value::Array(list) => list.iter_mut().for_each(forget),
            _ => {}
        }
    }
    forget(&mut answer);
    answer
}

/// What is said of a place now or as of a moment: figures under two maps, completeness, a trace.
fn told(small: &Small, as_of: Option<&str>) -> Vec<Value> {
    let asked: [&[&str]; 5] = [
        &["query", "S", "2026-01", "--by", "facility"],
        &["query", "K1", "2026-01", "--by", "township", "--membership", "today"],
        &["query", "CC-K1", "2026-01"],
        &["completeness", "S", "2026-01", "--by", "facility"],
        &["report", "V1-VC", "vc_daily", "2026-01-05", "--history"],
    ];
    let past: Vec<&str> = as_of.map_or(Vec::new(), |at| vec!["--as-of", at]);
    asked.iter().map(|one| lasting(small.json(&[one, &past[..]].concat()))).collect()
}

fn now() -> String {
    jiff::Timestamp::now().to_string()
}

#[test]
fn what_was_told_before_an_act_is_told_again_as_of_then() {
    let small = Small::new();
    let clinic = small.agent("clinic", &["V1-VC", "V2-VC"]);
    record(&clinic, "2026-01-05", &["total_visits=12"]);
    sync(&clinic);
    let mut moments = vec![(now(), told(&small, None))];
    let mut then = |small: &Small| moments.push((now(), told(small, None)));

    let moved = UNITS.replace("V1,一村,village,T1,,,,", "V1,一村,village,T2,,,,");
    small.put_units(&moved);
    then(&small);
    small.ok(&["waive", "vc_daily", "T1", "2026-01-05", "--reason", "雪"]);
    then(&small);
    let path = small.file("catalogue.toml", with_checks("2026.2"));
    small.ok(&["catalogue", "publish", path.to_str().unwrap()]);
    then(&small);
    record(&clinic, "2026-01-05", &["total_visits=15"]);
    record(&clinic, "2026-01-06", &["total_visits=4", "--facility", "V2-VC"]);
    sync(&clinic);
    then(&small);
    let after_all = told(&small, None);
    for (at, before) in &moments {
        assert_eq!(&told(&small, Some(at)), before, "as of {at}");
    }
    assert_ne!(moments[0].1, after_all, "something has changed at all");
    let early = small
        .run(&["query", "S", "2026-01", "--as-of", "2020-01-01T00:00:00Z", "--lang", "en"])
        .exits(2);
    assert!(early.err.contains("nothing was recorded here before"), "{}", early.err);
    small.ok(&["verify", "--all"]);
}

#[test]
fn a_preview_says_what_changes_by_meaning_and_which_figures_move() {
    let small = Small::new();
    let clinic = small.agent("clinic", &["V1-VC", "V2-VC"]);
    record(&clinic, "2026-01-05", &["total_visits=12"]);
    record(&clinic, "2026-01-05", &["total_visits=3", "--facility", "V2-VC"]);
    sync(&clinic);
    let units = UNITS
        .replace("V1,一村,village,T1,,,,", "V1,一村,village,T2,,,,")
        .replace("T1-TH,一镇卫生院", "T1-TH,一镇中心卫生院")
        .replace(
            "V2-VC,二村卫生室,village_clinic,V2,,",
            "V2-VC,二村卫生室,village_clinic,V2,,2026-01-20",
        );
    let path = small.file("units.csv", &units);
    let preview = small.json(&["import-units", path.to_str().unwrap()]);
    assert_eq!(preview["applied"], false);
    assert_eq!(
        preview["summary"],
        json!({ "unit_closed": 1, "unit_moved": 1, "unit_renamed": 1 }),
        "{preview}"
    );
    let change = |what: &str| {
        let changes = preview["changes"].as_array().unwrap().iter();
        changes.clone().find(|change| change["what"] == what).unwrap().clone()
    };
    assert_eq!(change("unit_closed")["from"], "2026-01-20");
    assert_eq!(change("unit_moved")["before"], "T1");
    assert_eq!(change("unit_moved")["after"], "T2");
    let moved = |unit: &str, item: &str, membership: &str| {
        let figures = preview["figures"].as_array().unwrap().iter();
        let mut of = figures
            .filter(|f| f["unit"] == unit && f["item"] == item && f["membership"] == membership);
        of.next().map(|f| (f["before"].clone(), f["after"].clone()))
    };
    assert_eq!(moved("T1", "total_visits", "as_it_was"), Some((json!(15.0), json!(3.0))));
    assert_eq!(moved("T2", "total_visits", "as_it_was"), Some((json!(null), json!(12.0))));
    assert_eq!(moved("K1", "total_visits", "as_it_was"), None, "a county keeps its total");
    let duties = preview["duties"].as_array().unwrap();
    let daily = duties.iter().find(|d| d["form"] == "vc_daily").unwrap();
    assert_eq!(
        (&daily["appear"], &daily["vanish"]),
        (&json!(0), &json!(12)),
        "the 20th to the 31st"
    );
    assert_eq!(small.element("T1", "2026-01", "total_visits")["value"], 15, "nothing has changed");

    let shown = small.ok(&["import-units", path.to_str().unwrap(), "--lang", "en"]);
    for part in ["moved", "closed", "T1 → T2", "12 are no longer due"] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    assert_eq!(small.put_units(&units)["applied"], true);
    assert_eq!(small.element("T1", "2026-01", "total_visits")["value"], 3);

    // All errors at once, and nothing put in force.
    let wrong = units
        .replace("V1,一村,village,T2", "V1,一村,village,T9")
        .replace("T1-TH,一镇中心卫生院,township_health_centre", "T1-TH,一镇中心卫生院,castle");
    let path = small.file("units.csv", &wrong);
    let refused =
        small.run(&["import-units", path.to_str().unwrap(), "--apply", "--lang", "en"]).exits(2);
    assert!(refused.err.contains("T9") && refused.err.contains("castle"), "{}", refused.err);
    assert_eq!(small.element("T1", "2026-01", "total_visits")["value"], 3);

    // A unit with reports is closed, not taken out.
    let without: String =
        units.lines().filter(|l| !l.starts_with("V1-VC,")).map(|l| format!("{l}\n")).collect();
    let path = small.file("units.csv", &without);
    let preview = small.json(&["import-units", path.to_str().unwrap(), "--lang", "en"]);
    let warnings = preview["warnings"].to_string();
    assert!(warnings.contains("V1-VC has 1 reports"), "{warnings}");
}

#[test]
fn due_times_are_granted_and_reports_waived_each_by_an_act() {
    let small = Small::new();
    let standing = |day: &str| {
        let answer = small.json(&["completeness", "T1", day, "--form", "vc_daily"]);
        let whole = &answer["completeness"];
        ["expected", "missing", "not_yet_due"].map(|part| whole[part].as_u64().unwrap())
    };
    assert_eq!(standing("2026-01-05"), [2, 2, 0]);
    let report = small.json(&["waive", "vc_daily", "V1-VC", "2026-01-05..2026-01-06"]);
    assert_eq!(report["due"], "waived");
    assert_eq!(report["reports"], 2);
    assert_eq!(report["before"]["expected"], 2);
    assert_eq!(report["after"]["expected"], 0);
    assert_eq!(standing("2026-01-05"), [1, 1, 0]);
    let due = "2126-02-10 18:00";
    let report =
        small.json(&["extend", "vc_daily", "T1", "2026-01-05", "--due", due, "--reason", "断网"]);
    assert_eq!((&report["reports"], &report["after"]["not_yet_due"]), (&json!(1), &json!(2)));
    assert_eq!(standing("2026-01-05"), [2, 0, 2], "the newest counts, for the waived one too");
    assert_eq!(standing("2026-01-06"), [1, 1, 0]);
    let trace = small.json(&["report", "V2-VC", "vc_daily", "2026-01-05"]);
    assert!(trace["due"].as_str().unwrap().starts_with("2126-02-10T18:00"), "{trace}");

    let refused = |arguments: &[&str], part: &str| {
        let done = small.run(&[arguments, &["--lang", "en"]].concat()).exits(2);
        assert!(done.err.contains(part), "{part}: {}", done.err);
    };
    refused(
        &["extend", "vc_daily", "T1", "2026-01", "--due", "2026-01-10"],
        "is not after the last day",
    );
    refused(&["extend", "daily", "T1", "2026-01", "--due", "2026-02-10"], "there is no form daily");
    refused(&["extend", "vc_daily", "T1", "2026-01", "--due", "soon"], "local date-time");
    refused(&["waive", "vc_monthly", "T1", "2026-01-05"], "holds no whole period");
    refused(&["waive", "hosp_monthly", "V1-VC", "2026-01"], "is due at V1-VC");
    refused(&["waive", "vc_daily", "东村卫生室", "2026-01"], "names several units");
    small.ok(&["verify", "--all"]);
}

#[test]
fn a_published_catalogue_reaches_agents_by_itself_and_loses_nothing_queued() {
    let small = Small::new();
    let clinic = small.agent("clinic", &["V1-VC"]);
    record(&clinic, "2026-01-05", &["total_visits=12"]);
    sync(&clinic);
    // Queued under the catalogue of now, sent under the next.
    record(&clinic, "2026-01-06", &["total_visits=7"]);
    let version = |small: &Small| small.query("P", "2026-01")["catalogue"].clone();

    let path = small.file("catalogue.toml", with_checks("2026.2"));
    let path = path.to_str().unwrap();
    let preview = small.json(&["catalogue", "publish", path, "--dry-run"]);
    assert_eq!((&preview["published"], &preview["agents"]), (&json!(false), &json!(1)));
    let changes = preview["changes"].as_array().unwrap();
    let added: Vec<(&str, &str)> = changes
        .iter()
        .filter(|change| change["what"] == "added")
        .map(|change| (change["list"].as_str().unwrap(), change["code"].as_str().unwrap()))
        .collect();
    assert_eq!(added, [("element", "drug_checks"), ("line", "vc_daily.drug_checks")]);
    assert_eq!(version(&small), "2026.1");
    assert_eq!(small.json(&["catalogue", "publish", path])["published"], true);
    assert_eq!(version(&small), "2026.2");
    let again = small.json(&["catalogue", "publish", path]);
    assert_eq!((&again["published"], &again["changes"]), (&json!(false), &json!([])));

    sync(&clinic);
    assert_eq!(small.element("V1-VC", "2026-01-06", "total_visits")["value"], 7);
    record(&clinic, "2026-01-07", &["total_visits=5", "drug_checks=3"]);
    record(&clinic, "2026-01-05", &["drug_checks=9"]);
    sync(&clinic);
    assert_eq!(small.element("V1-VC", "2026-01", "drug_checks")["value"], 12);
    assert_eq!(small.element("V1-VC", "2026-01", "total_visits")["value"], 24, "12 kept, 7, 5");
    small.ok(&["verify", "--all"]);

    // What would change the meaning of what is here is refused, everything at once.
    let refused = |toml: String, parts: &[&str]| {
        let path = small.file("wrong.toml", toml);
        let arguments = ["catalogue", "publish", path.to_str().unwrap(), "--lang", "en"];
        let done = small.run(&arguments).exits(2);
        for part in parts {
            assert!(done.err.contains(part), "{part}: {}", done.err);
        }
    };
    let checks = "code = \"drug_checks\"\n";
    let wrong = with_checks("2026.3")
        .replacen(checks, &format!("{checks}over_units = \"none\"\n"), 1)
        .replacen("name = { zh = \"村卫生室月报\"", "name = { zh = \"村卫生室季报\"", 1);
    let monthly = wrong.find("code = \"vc_monthly\"").unwrap();
    let (before, rest) = wrong.split_at(monthly);
    let rest = rest.replacen("period_type = \"month\"", "period_type = \"quarter\"", 1);
    refused(
        format!("{before}{rest}"),
        &["drug_checks: over_units", "vc_monthly: its period type changes from month to quarter"],
    );
    refused(
        format!("{CATALOGUE}# the same version, other bytes\n"),
        &["version 2026.1 is another catalogue's", "drug_checks has data and cannot be removed"],
    );
    refused(with_checks("2026.4").replace("[[kind]]", "[[sort]]"), &["sort"]);
    assert_eq!(version(&small), "2026.2");
}

#[test]
fn a_second_claim_is_decided_by_an_operator_and_a_new_pc_goes_on_with_the_history() {
    let small = Small::new();
    let path = small.world.dir().join("stick.banyan");
    let stick = path.to_str().unwrap();
    let args = ["enroll", "--stick", "--below", "T1", "--kind", "village_clinic", "--uses", "9"];
    small.ok(&[&args[..], &["-o", stick]].concat());
    let names = ["first", "second", "third", "fourth"];
    let [first, second, third, fourth] = names.map(|name| small.world.agent(name));
    for (agent, visits) in [(&first, 1), (&second, 2), (&third, 4), (&fourth, 8)] {
        run(agent, &["enroll", stick, "--facility", "V1-VC"]).exits(0);
        record(agent, "2026-01-05", &[&format!("total_visits={visits}")]);
    }
    sync(&first);
    let list = || small.json(&["enroll", "--claims"])["claims"].clone();
    assert_eq!(list(), json!([]));
    for waiting in [&second, &third, &fourth] {
        run(waiting, &["sync", "--timeout", "20s"]).exits(3);
        // Asking again makes no second claim.
        run(waiting, &["sync", "--timeout", "20s"]).exits(3);
    }
    let id = |agent| json_of(agent, &["status"])["agent"].as_str().unwrap().to_owned();
    let claims = list();
    assert_eq!(claims.as_array().unwrap().len(), 3);
    assert_eq!(claims[0]["agent"], id(&second).as_str());
    assert_eq!(claims[0]["facility"], "V1-VC");
    assert_eq!(claims[0]["holder"], id(&first).as_str());

    // Refused: it is told so, and its key is not asked about again.
    small.ok(&["enroll", "--claims", "--refuse", &id(&fourth)]);
    let told = run(&fourth, &["sync", "--timeout", "20s", "--lang", "en"]).exits(1);
    assert!(told.err.contains("[claim_refused]"), "{}", told.err);
    // Beside the first: both report, and what they say of one day is a conflict.
    small.ok(&["enroll", "--claims", "--approve", &id(&second), "--beside"]);
    sync(&second);
    assert_eq!(small.query("V1-VC", "2026-01-05")["conflicts"], 1);
    // In the second's place, which is out now; its version is replaced by the third's.
    let decided = small.json(&["enroll", "--claims", "--approve", &id(&third)]);
    assert_eq!(decided["holder"], id(&second).as_str());
    sync(&third);
    let out = run(&second, &["sync", "--timeout", "20s"]).exits(1);
    assert!(out.err.contains("[agent_revoked]"), "{}", out.err);
    assert_eq!(small.query("V1-VC", "2026-01-05")["conflicts"], 1, "the first's is its own");
    let unknown =
        small.run(&["enroll", "--claims", "--approve", &id(&third), "--lang", "en"]).exits(2);
    assert!(unknown.err.contains("claims nothing"), "{}", unknown.err);
    small.ok(&["verify"]);
}

#[test]
fn a_stick_that_asks_for_approval_gives_nothing_by_itself() {
    let small = Small::new();
    let path = small.world.dir().join("stick.banyan");
    let stick = path.to_str().unwrap();
    let args = ["enroll", "--stick", "--below", "T1", "--kind", "village_clinic", "--uses", "5"];
    small.ok(&[&args[..], &["--approve", "-o", stick]].concat());
    let agent = small.world.agent("first");
    run(&agent, &["enroll", stick, "--facility", "V1-VC"]).exits(0);
    record(&agent, "2026-01-05", &["total_visits=3"]);
    run(&agent, &["sync", "--timeout", "20s"]).exits(3);
    let claims = small.json(&["enroll", "--claims"]);
    assert_eq!(claims["claims"][0]["holder"], json!(null));
    let id = claims["claims"][0]["agent"].as_str().unwrap().to_owned();
    assert_eq!(small.element("V1-VC", "2026-01-05", "total_visits")["value"], json!(null));
    small.ok(&["enroll", "--claims", "--approve", &id]);
    sync(&agent);
    assert_eq!(small.element("V1-VC", "2026-01-05", "total_visits")["value"], 3);
    small.ok(&["verify"]);
}
