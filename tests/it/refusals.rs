//! Questions that cannot be answered: what people read, in both languages, on the command line and over HTTP.

use std::fmt::Write;

use crate::golden::golden;
use crate::small::{Small, UNITS};

const NETWORKS: &str = "\
code,name,kind,area,opened
CC-K1,甲县县域医共体,county_community,K1,
CC-K2,乙县县域医共体,county_community,K2,2026-02-01
";
const MEMBERS: &str = "network,unit,role,from,to\nCC-K1,K1,member,,\nCC-K2,K2,member,2026-02-01,\n";

/// Commands without an answer.
const REFUSED: &[&[&str]] = &[
    // Places: unknown, ambiguous, not in force then.
    &["query", "nowhere", "2026-01"],
    &["query", "东村卫生室", "2026-01"],
    &["query", "V3-VC", "2026-01"],
    &["query", "CC-K2", "2026-01"],
    &["query", "CC-K2", "2026-03", "--membership", "2026-01-15"],
    &["completeness", "CC-K2", "2026-01"],
    &["report", "K1", "vc_daily", "2026-01-05"],
    // Periods: impossible, the wrong way round, too long, of another type.
    &["query", "K1", "2026-02-31"],
    &["query", "K1", "2026-13"],
    &["query", "K1", "2026-03..2026-01"],
    &["query", "K1", "1900..2026"],
    &["report", "V1-VC", "vc_daily", "2026-01"],
    // Divisions: too coarse for the period, contradictory, unknown, without their kind.
    &["query", "K1", "2026-01", "--by", "quarter"],
    &["query", "K1", "2026-01", "--by", "children,facility"],
    &["query", "K1", "2026-01", "--by", "planet"],
    &["query", "K1", "2026-01", "--by", "network", "--network", "alliance"],
    // What the catalogue has not.
    &["query", "K1", "2026-01", "--element", "visits"],
    &["query", "K1", "2026-01", "--indicator", "visit_share"],
    &["completeness", "K1", "2026-01", "--form", "vc_dayly"],
    &["report", "V1-VC", "vc_dayly", "2026-01-05"],
    &["anomalies", "K1", "2026-01", "--rule", "V99"],
    &["anomalies", "K1", "2026-01", "--scope", "all"],
    // A number since 1 January over 1 January, named as an element and as an indicator's.
    &["query", "K1", "2025-12..2026-01", "--element", "disease_types_ytd"],
    &["query", "K1", "2025-12..2026-01", "--indicator", "clinics_renewed_ytd"],
    // Maps and moments.
    &["query", "K1", "2026-01", "--membership", "soon"],
    &["query", "K1", "2026-01", "--as-of", "yesterday"],
    &["query", "K1", "2026-01", "--as-of", "2001-01-01T00:00:00+08:00"],
];

#[test]
fn every_refusal_names_candidates_or_the_reason_in_both_languages() {
    let small = Small::with(UNITS, &[("networks", NETWORKS), ("members", MEMBERS)]);
    let mut all = String::new();
    for arguments in REFUSED {
        writeln!(all, "$ {}", arguments.join(" ")).unwrap();
        let mut said = Vec::new();
        for lang in ["zh", "en"] {
            let done = small.run(&[*arguments, &["--lang", lang]].concat()).exits(2);
            assert!(
                done.out.is_empty(),
                "{arguments:?}: an answer beside the refusal: {}",
                done.out
            );
            all.push_str(&done.err);
            said.push(done.err);
        }
        let chinese = |text: &str| text.chars().any(|c| ('\u{4e00}'..='\u{9fff}').contains(&c));
        assert!(chinese(&said[0]), "{arguments:?} in Chinese: {}", said[0]);
        assert_ne!(said[0], said[1], "{arguments:?}");
    }
    golden("refusals.txt", &all, &[]);
}

#[test]
fn over_http_a_refusal_is_400_with_the_same_words() {
    let small = Small::with(UNITS, &[("networks", NETWORKS), ("members", MEMBERS)]);
    for arguments in REFUSED {
        let (command, rest) = arguments.split_first().unwrap();
        let names: &[&str] = match *command {
            "report" => &["facility", "form", "period"],
            _ => &["unit", "period"],
        };
        let (given, options) = rest.split_at(names.len());
        let mut pairs: Vec<(String, &str)> =
            names.iter().map(|name| (*name).to_owned()).zip(given.iter().copied()).collect();
        for option in options.chunks(2) {
            let [name, value] = option else { panic!("{arguments:?}: an option and its value") };
            pairs.push((name.trim_start_matches("--").replace('-', "_"), value));
        }
        for lang in ["zh", "en"] {
            let query: Vec<String> = pairs
                .iter()
                .map(|(name, value)| format!("{name}={}", encoded(value)))
                .chain([format!("lang={lang}")])
                .collect();
            let answer = small.served().get(&format!("/v1/{command}?{}", query.join("&"))).unwrap();
            let line = small.run(&[*arguments, &["--lang", lang]].concat());
            assert_eq!(answer.status, 400, "{arguments:?}: {}", answer.body);
            let json: serde_json::Value = serde_json::from_str(&answer.body).unwrap();
            let text = json["error"].as_str().unwrap_or_else(|| panic!("no error in {json}"));
            assert!(line.err.contains(text), "{arguments:?}: {text}\n{}", line.err);
        }
    }
}

fn encoded(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' => out.push(byte.into()),
            _ => write!(out, "%{byte:02X}").unwrap(),
        }
    }
    out
}

#[test]
fn what_cannot_be_added_or_is_too_fine_has_no_number_and_says_so() {
    let small = Small::new();
    let state = |place: &str, period: &str, item: &[&str]| {
        let answer = small.json(&[&["query", place, period], item].concat());
        let row = &answer["rows"][0];
        let figures = [&row["elements"], &row["indicators"]];
        let of = figures.iter().find_map(|of| of.as_object()?.values().next());
        let figure = of.unwrap_or_else(|| panic!("no figure in {answer}")).clone();
        assert!(figure["value"].is_null(), "{figure}");
        figure["state"].as_str().unwrap().to_owned()
    };
    assert_eq!(state("K1", "2026-01-05", &["--element", "beds_actual"]), "too_fine");
    assert_eq!(state("K1", "2026-01-05", &["--indicator", "primary_visit_share"]), "too_fine");
    assert_eq!(
        state("V1-VC", "2026-01", &["--indicator", "primary_visit_share"]),
        "not_shown_here"
    );
    assert_eq!(state("V1-VC", "2026-01", &["--element", "beds_actual"]), "not_applicable");
}
