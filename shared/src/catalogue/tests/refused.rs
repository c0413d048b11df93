//! Every fault the checker knows, each from a sound catalogue changed in one place.

use super::*;
use crate::limits::CATALOGUE_BYTES_MAX;

const SOUND: &str = r#"version = "1"
time_zone = "Asia/Shanghai"
name = { zh = "例", en = "example" }
reserved = ["later"]
unit = [
  { code = "visit", name = { zh = "人次", en = "visits" } },
  { code = "day", name = { zh = "天", en = "days" } },
]
kind = [
  { code = "county", class = "administrative", name = { zh = "县", en = "county" } },
  { code = "clinic", class = "facility", name = { zh = "诊所", en = "clinic" } },
  { code = "hospital", class = "facility", name = { zh = "医院", en = "hospital" } },
  { code = "desk", class = "desk", name = { zh = "岗", en = "desk" } },
]
network_kind = [{ code = "community", exclusive = true, name = { zh = "医共体", en = "community" } }]
role = [{ code = "lead", name = { zh = "牵头", en = "lead" } }]
attribute = [
  { code = "assisted", name = { zh = "受援", en = "assisted" }, value = [
    { code = "yes", name = { zh = "是", en = "yes" } },
    { code = "no", name = { zh = "否", en = "no" } },
  ] },
]

[[element]]
code = "visits"
name = { zh = "诊疗", en = "visits" }
unit = "visit"

[[element]]
code = "night"
name = { zh = "夜诊", en = "night visits" }
unit = "visit"
part_of = "visits"

[[element]]
code = "kinds_seen"
name = { zh = "病种", en = "diseases" }
unit = "visit"
over_time = "last_ytd"
over_units = "none"

[[element]]
code = "outside"
name = { zh = "县外", en = "outside" }
unit = "visit"
scope = "area"

[[form]]
code = "daily"
name = { zh = "日报", en = "daily" }
kinds = ["clinic"]
period_type = "day"
due = { days = 1, time = "10:00" }
grace = "3d"
line = [
  { element = "visits" },
  { element = "night", asked_of = "assisted=yes; role=lead@community" },
]

[[form]]
code = "monthly"
name = { zh = "月报", en = "monthly" }
kinds = ["hospital"]
period_type = "month"
due = { days = 5, time = "23:59" }
from = 2020-01-01
line = [
  { element = "visits" },
  { element = "kinds_seen" },
]

[[form]]
code = "desk_monthly"
name = { zh = "县月报", en = "desk" }
kinds = ["desk"]
period_type = "month"
due = { days = 5, time = "23:59" }
line = [{ element = "outside" }]

[[rule]]
code = "R1"
severity = "error"
message = { zh = "夜诊过多", en = "too many at night" }
forms = ["daily"]
when = "night <= visits"

[[indicator]]
code = "share"
name = { zh = "占比", en = "share" }
unit = "visit"
direction = "up"
levels = ["county"]
[[indicator.definition]]
version = "1"
kind = "ratio"
numerator = "visits[kind=clinic]"
denominator = "visits"
"#;

fn faults(text: &str) -> Vec<CatalogueError> {
    load(text).expect_err("a fault was made")
}

/// The faults after replacing `old` by `new`, as (code, entry).
fn after(old: &str, new: &str) -> Vec<(String, String)> {
    assert_eq!(SOUND.matches(old).count(), 1, "{old:?} must stand once in the sound catalogue");
    let faults = faults(&SOUND.replace(old, new));
    for fault in &faults {
        assert!(fault.line.is_some(), "{fault}");
        for lang in [Lang::Zh, Lang::En] {
            assert!(fault.text(lang).len() > 20, "{fault}");
        }
    }
    faults.iter().map(|fault| (fault.code().to_owned(), fault.entry.clone())).collect()
}

fn one(code: &str, entry: &str) -> Vec<(String, String)> {
    vec![(code.to_owned(), entry.to_owned())]
}

#[test]
fn the_sound_catalogue_is_sound() {
    load(SOUND).unwrap();
}

#[test]
fn each_fault_is_named_with_its_entry() {
    let cases: &[(&str, &str, &str, &str)] = &[
        // (what stands, what is put there, code, entry)
        ("version = \"1\"\ntime", "versoin = \"1\"\nversion = \"1\"\ntime", "unknown_key", ""),
        ("version = \"1\"\ntime", "version = 1\ntime", "wrong_type", ""),
        ("Asia/Shanghai", "Asia/Shangai", "bad_time_zone", ""),
        (
            "{ zh = \"县\", en = \"county\" }",
            "{ zh = \"县\" }",
            "missing_key",
            "[[kind]] county name",
        ),
        ("zh = \"县\"", "zh = \" \"", "empty", "[[kind]] county name"),
        ("over_units = \"none\"", "over_units = \"nil\"", "not_allowed", "[[element]] kinds_seen"),
        ("code = \"day\", name", "code = \"visit\", name", "duplicate", "[[unit]] visit"),
        ("code = \"share\"", "code = \"a share\"", "bad_code", "[[indicator]] a share"),
        (
            "attribute = [",
            "attribute = [\n{ code = \"kind\", name = { zh = \"a\", en = \"b\" } },",
            "reserved_word",
            "[[attribute]] kind",
        ),
        ("reserved = [\"later\"]", "reserved = [\"outside\"]", "reserved", "[[element]] outside"),
        (
            "[[form]]\ncode = \"daily\"",
            "[[element]]\ncode = \"implies\"\nname = { zh = \"a\", en = \"b\" }\nunit = \"day\"\n[[form]]\ncode = \"daily\"",
            "reserved_word",
            "[[element]] implies",
        ),
        ("part_of = \"visits\"", "part_of = \"visit\"", "unknown", "[[element]] night"),
        (
            "part_of = \"visits\"",
            "part_of = \"kinds_seen\"",
            "part_of_mismatch",
            "[[element]] night",
        ),
        (
            "over_time = \"last_ytd\"",
            "over_time = \"latest\"",
            "carry_months",
            "[[element]] kinds_seen",
        ),
        (
            "over_time = \"last_ytd\"",
            "over_time = \"last\"\ncarry_months = 3",
            "carry_months",
            "[[element]] kinds_seen",
        ),
        ("scope = \"area\"", "scope = \"area\"\nmax = 0", "out_of_range", "[[element]] outside"),
        ("scope = \"area\"", "", "wrong_scope", "[[form]] desk_monthly line 1"),
        (
            "over_units = \"none\"",
            "over_units = \"none\"\nscope = \"area\"",
            "wrong_scope",
            "[[form]] monthly line 2",
        ),
        (
            "kinds = [\"clinic\"]",
            "kinds = [\"clinic\", \"county\"]",
            "kind_not_reporting",
            "[[form]] daily",
        ),
        (
            "kinds = [\"clinic\"]",
            "kinds = [\"clinic\", \"desk\"]",
            "mixed_classes",
            "[[form]] daily",
        ),
        ("kinds = [\"clinic\"]", "kinds = [\"clinic\", \"ward\"]", "unknown", "[[form]] daily"),
        ("grace = \"3d\"", "grace = \"3 days\"", "bad_duration", "[[form]] daily"),
        ("time = \"10:00\"", "time = \"24:00\"", "bad_time", "[[form]] daily due"),
        ("days = 1, time", "time", "missing_key", "[[form]] daily due"),
        (
            "from = 2020-01-01",
            "from = 2020-01-01\ndays = \"all\"",
            "days_not_daily",
            "[[form]] monthly",
        ),
        ("from = 2020-01-01", "from = \"2026-02-31\"", "bad_date", "[[form]] monthly"),
        (
            "from = 2020-01-01",
            "from = 2020-01-01\nto = 2020-01-01",
            "dates_reversed",
            "[[form]] monthly",
        ),
        (
            "{ element = \"kinds_seen\" }",
            "{ element = \"kinds_seen\", to = 2019-01-01 }",
            "outside_form",
            "[[form]] monthly line 2",
        ),
        (
            "{ element = \"kinds_seen\" }",
            "{ element = \"kind_seen\" }",
            "unknown",
            "[[form]] monthly line 2",
        ),
        (
            "{ element = \"kinds_seen\" }",
            "{ element = \"visits\" }",
            "repeated_line",
            "[[form]] monthly line 2",
        ),
        (
            "{ element = \"kinds_seen\" }",
            "{ element = \"kinds_seen\", max = 10000000000000000 }",
            "out_of_range",
            "[[form]] monthly line 2",
        ),
        (
            "kinds = [\"hospital\"]",
            "kinds = [\"hospital\", \"clinic\"]",
            "two_homes",
            "[[form]] monthly line 1",
        ),
        ("assisted=yes; role", "asisted=yes; role", "unknown", "[[form]] daily line 2"),
        ("assisted=yes; role", "assisted=maybe; role", "unknown", "[[form]] daily line 2"),
        (
            "assisted=yes; role",
            "assisted=yes; assisted=no; role",
            "repeated_filter_key",
            "[[form]] daily line 2",
        ),
        ("assisted=yes; role", "kind=hospital; role", "admits_none", "[[form]] daily line 2"),
        ("role=lead@community", "role=lead", "role_shape", "[[form]] daily line 2"),
        ("role=lead@community", "role=lead@comunity", "unknown", "[[form]] daily line 2"),
        ("role=lead@community", "role=", "expression", "[[form]] daily line 2"),
        ("when = \"night <= visits\"", "", "no_parts", "[[rule]] R1"),
        ("when = \"night <= visits\"", "when = \"night <=\"", "expression", "[[rule]] R1"),
        (
            "when = \"night <= visits\"",
            "when = \"night + visits\"",
            "needs_condition",
            "[[rule]] R1",
        ),
        ("when = \"night <= visits\"", "when = \"nigth <= visits\"", "unknown", "[[rule]] R1"),
        ("when = \"night <= visits\"", "when = \"1 <= 2\"", "no_terms", "[[rule]] R1"),
        (
            "when = \"night <= visits\"",
            "when = \"kinds_seen <= visits\"",
            "not_on_form",
            "[[rule]] R1",
        ),
        (
            "when = \"night <= visits\"",
            "when = \"night <= ytd(visits)\"",
            "function_not_here",
            "[[rule]] R1",
        ),
        (
            "when = \"night <= visits\"",
            "when = \"night <= visits[kind=clinic]\"",
            "filter_not_here",
            "[[rule]] R1",
        ),
        (
            "when = \"night <= visits\"",
            "when = \"night <= visits\"\nscope = \"cross_site\"",
            "network_kind",
            "[[rule]] R1",
        ),
        (
            "when = \"night <= visits\"",
            "when = \"night <= visits\"\npart = [{ when = \"night >= 0\" }]",
            "when_and_parts",
            "[[rule]] R1",
        ),
        ("forms = [\"daily\"]", "forms = [\"dailly\", \"daily\"]", "unknown", "[[rule]] R1"),
        ("forms = [\"daily\"]", "", "missing_key", "[[rule]] R1"),
        ("levels = [\"county\"]", "levels = [\"clinic\"]", "unknown_level", "[[indicator]] share"),
        (
            "unit = \"visit\"\ndirection",
            "unit = \"percent\"\ndirection",
            "unknown",
            "[[indicator]] share",
        ),
        (
            "numerator = \"visits[kind=clinic]\"",
            "",
            "missing_key",
            "[[indicator]] share definition 1",
        ),
        (
            "visits[kind=clinic]",
            "visits[kind=desk]",
            "admits_none",
            "[[indicator]] share definition 1",
        ),
        ("visits[kind=clinic]", "visits <= 1", "needs_number", "[[indicator]] share definition 1"),
        ("visits[kind=clinic]", "kinds_seen", "not_additive", "[[indicator]] share definition 1"),
        (
            "visits[kind=clinic]",
            "prev(visits)",
            "function_not_here",
            "[[indicator]] share definition 1",
        ),
        (
            "visits[kind=clinic]",
            "cumulative(visits)",
            "cumulative_from",
            "[[indicator]] share definition 1",
        ),
        ("visits[kind=clinic]", "later", "unknown", "[[indicator]] share definition 1"),
        ("visits[kind=clinic]", "12", "no_terms", "[[indicator]] share definition 1"),
        (
            "denominator = \"visits\"",
            "denominator = \"visits\"\nmeets = \"visits > 1\"",
            "key_not_for_kind",
            "[[indicator]] share definition 1",
        ),
        (
            "denominator = \"visits\"",
            "denominator = \"visits\"\npair_min = 1.5",
            "not_allowed",
            "[[indicator]] share definition 1",
        ),
    ];
    let mut wrong = Vec::new();
    for (old, new, code, entry) in cases {
        let found = after(old, new);
        if found != one(code, entry) {
            wrong.push(format!("{old:?} → {new:?}: {found:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn circles_of_parts_are_named() {
    let text = SOUND.replacen("unit = \"visit\"\n", "unit = \"visit\"\npart_of = \"night\"\n", 1);
    let faults = faults(&text);
    assert_eq!(faults.len(), 2, "each member of the circle: {faults:?}");
    assert!(faults[0].to_string().contains("visits → night → visits"), "{}", faults[0]);
}

#[test]
fn two_homes_may_be_parted_by_dates_kinds_and_attributes() {
    let both = SOUND.replace("kinds = [\"hospital\"]", "kinds = [\"hospital\", \"clinic\"]");
    assert_eq!(faults(&both)[0].code(), "two_homes");
    let line = "{ element = \"visits\" },\n  { element = \"kinds_seen\" }";
    for asked in ["asked_of = \"kind=hospital\"", "to = 2021-01-01"] {
        let parted = both.replace(
            line,
            &format!("{{ element = \"visits\", {asked} }},\n  {{ element = \"kinds_seen\" }}"),
        );
        let parted = parted.replace("grace = \"3d\"", "grace = \"3d\"\nfrom = 2021-01-01");
        load(&parted).unwrap_or_else(|e| panic!("{asked}: {e:?}"));
    }
    let parted = SOUND.replace(
        "{ element = \"kinds_seen\" }",
        "{ element = \"night\", asked_of = \"assisted=no\" }",
    );
    load(&parted.replace("kinds = [\"hospital\"]", "kinds = [\"hospital\", \"clinic\"]").replace(
        "{ element = \"visits\" },\n  { element = \"night\", asked_of = \"assisted=no\" }",
        "{ element = \"visits\", asked_of = \"kind=hospital\" },\n  { element = \"night\", asked_of = \"assisted=no\" }",
    ))
    .unwrap();
}

#[test]
fn shares_and_definitions_are_checked() {
    let with = |definition: &str| {
        let start = SOUND.find("[[indicator.definition]]").unwrap();
        load(&format!("{}{definition}", &SOUND[..start]))
    };
    let codes = |result: Result<Catalogue, Vec<CatalogueError>>| {
        let errors = result.expect_err("a fault was made");
        errors.iter().map(CatalogueError::code).collect::<Vec<_>>()
    };
    let share = |of: &str, meets: &str| {
        with(&format!(
            "definition = [{{ version = \"1\", kind = \"share\", of = \"{of}\", meets = \"{meets}\" }}]"
        ))
    };
    share("kind=hospital", "kinds_seen >= 100").unwrap();
    assert_eq!(codes(share("assisted=yes", "visits >= 1")), ["share_classes"]);
    assert_eq!(codes(share("kind=hospital|desk", "visits >= 1")), ["share_classes"]);
    assert_eq!(codes(share("kind=hospital", "facilities >= 1")), ["function_not_here"]);
    with("definition = [{ version = \"1\", kind = \"registry_share\", of = \"kind=county\", meets = \"role=*@community\" }]").unwrap();
    let two = |second: &str| {
        with(&format!(
            "definition = [{{ version = \"1\", from = 2020-01-01, kind = \"count\", value = \"visits\" }}, {second}]"
        ))
    };
    two("{ version = \"2\", from = 2021-01-01, kind = \"growth\", value = \"visits\" }").unwrap();
    assert_eq!(
        codes(two("{ version = \"2\", kind = \"count\", value = \"visits\" }")),
        ["definition_order"]
    );
    assert_eq!(
        codes(two("{ version = \"1\", from = 2021-01-01, kind = \"count\", value = \"visits\" }")),
        ["duplicate"]
    );
    assert_eq!(codes(with("")), ["empty"]);
}

#[test]
fn all_faults_come_at_once_in_order_of_lines() {
    let text = SOUND
        .replace("class = \"desk\"", "class = \"office\"")
        .replace("grace = \"3d\"", "grace = \"3x\"")
        .replace("when = \"night <= visits\"", "when = \"night <= vists + 1.5\"")
        .replace("denominator = \"visits\"", "denominator = \"vists\"\nextra = 1");
    let faults = faults(&text);
    let codes: Vec<&str> = faults.iter().map(CatalogueError::code).collect();
    // The desk's class falls back to facility, so its form is faulted too: for the area element.
    assert_eq!(
        codes,
        ["not_allowed", "bad_duration", "wrong_scope", "expression", "unknown", "unknown_key"]
    );
    assert!(faults.windows(2).all(|pair| pair[0].line <= pair[1].line));
    let rule = &faults[3];
    assert_eq!(rule.column, Some(18), "{rule}");
    assert_eq!(
        rule.text(Lang::En),
        "line 85: [[rule]] R1, character 18: the expression \"night <= vists + 1.5\": expected a whole number \
         below 2^64 (write 10 * a <= 13 * b instead of a <= b * 1.3) [expression]"
    );
}

#[test]
fn what_is_no_catalogue_is_refused_whole() {
    let code = |bytes: &[u8]| Catalogue::load(bytes).unwrap_err()[0].code();
    assert_eq!(code(b"\xff"), "not_utf8");
    assert_eq!(code(b"a = = 1"), "syntax");
    assert_eq!(code(&vec![b'#'; CATALOGUE_BYTES_MAX + 1]), "too_large");
    assert_eq!(code(b""), "missing_key");
    let many: String = (0..ENTRIES_MAX + 1)
        .map(|n| format!("{{ code = \"r{n}\", name = {{ zh = \"a\", en = \"b\" }} }},\n"))
        .collect();
    let text = SOUND.replace("role = [{ code", &format!("role = [{many}{{ code"));
    assert_eq!(faults(&text)[0].code(), "too_many");
}

#[test]
fn the_hash_is_of_the_bytes() {
    let again = SOUND.replace("version = \"1\"\ntime", "version = \"1\" \ntime");
    assert_ne!(load(SOUND).unwrap().hash, load(&again).unwrap().hash);
    assert_eq!(load(SOUND).unwrap().hash, load(SOUND).unwrap().hash);
}

proptest::proptest! {
    #[test]
    fn no_bytes_panic(cut in 0..SOUND.len(), byte: u8) {
        let mut bytes = SOUND.as_bytes().to_vec();
        bytes[cut] = byte;
        let _either = Catalogue::load(&bytes);
        let _either = Catalogue::load(&bytes[..cut]);
    }
}
