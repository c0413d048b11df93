use banyan_shared::catalogue::Lang;
use banyan_shared::ids::Seq;
use banyan_shared::input::CountsReport;
use banyan_shared::keys::sha256;
use banyan_shared::report::{How, Reason, Value};
use proptest::prelude::*;

use super::*;
use crate::act::{Act, SignedAct, Stage};
use crate::cube::{AcceptedVersion, Cube};
use crate::query::TraceValue;
use crate::state::tests::{NOW, act, batch, counted, key, report, state, take, two};

/// The operating key's id and the ledger's numbering.
fn writer() -> Writer {
    Writer { id: key(31).public().agent_id(), epoch: Epoch::centre(1) }
}

/// Signs acts, reads them back as a fold does, and puts them in force.
fn put(state: &mut State, acts: Vec<Act>, at: Millis) {
    for one in acts {
        let signed = SignedAct { by: "operator".into(), at, act: one };
        let read = SignedAct::read(&signed.seal(&key(31))).unwrap();
        assert_eq!(read, signed);
        let position = state.position + 1;
        state.apply_act(&read, position, at).unwrap();
    }
}

fn asked(values: &[&str], withdraw: bool, now: Millis) -> change::Asked {
    change::Asked {
        values: values.iter().map(ToString::to_string).collect(),
        withdraw,
        reason: Reason::Typo,
        override_code: None,
        by: "stat".into(),
        now,
        lang: Lang::En,
    }
}

fn change(
    state: &mut State,
    (facility, form, period): (&str, &str, &str),
    asked: &change::Asked,
) -> Result<Changed> {
    let subject = subject(state, (facility, form, period), asked.now, Lang::En)?;
    let (acts, changed) = change::plan(state, &subject, asked, writer())?;
    put(state, acts, asked.now);
    Ok(changed)
}

fn correct(state: &mut State, place: (&str, &str, &str), values: &[&str]) -> Result<Changed> {
    change(state, place, &asked(values, false, NOW.plus(1000)))
}

fn refusal(result: Result<Changed>) -> String {
    let error = result.unwrap_err();
    assert!(error.downcast_ref::<crate::service::Usage>().is_some());
    error.to_string()
}

fn said(state: &mut State, seq: Seq, period: &str, values: Vec<Value>) {
    assert!(take(state, batch(vec![(seq, report(0, 0, period, values))])).0);
}

const A: (&str, &str, &str) = ("A", "daily", "2026-02-01");

#[test]
fn a_correction_keeps_what_it_does_not_name_and_outranks_what_it_was_shown() {
    let mut state = state(&["A"]);
    said(&mut state, 1, "2026-02-01", two(12, 3));
    let changed = correct(&mut state, A, &["visits=15"]).unwrap();
    let change = &changed.changes[..];
    assert_eq!(change.len(), 1);
    assert_eq!(
        (&*change[0].element, &change[0].before, &change[0].after),
        ("visits", &TraceValue::Number(12), &TraceValue::Number(15))
    );
    assert_eq!(changed.replaced.len(), 1);
    let known = state.known(&"A".parse().unwrap(), FormIx(0), "2026-02-01".parse().unwrap());
    let now = known.counted().unwrap();
    assert_eq!(known.values(now), two(15, 3));
    assert_eq!(now.content.how, How::Operator);
    assert_eq!(now.content.entered_by.as_deref(), Some("stat"));
    assert_eq!(now.received_at, NOW.plus(1000), "recorded when the ledger received it");
    // What the facility says afterwards, not knowing of it, stands beside it until someone decides.
    said(&mut state, 2, "2026-02-01", two(13, 3));
    assert_eq!(counted_by(&state), (15, 2));
    let settled = correct(&mut state, A, &["visits=13"]).unwrap();
    assert_eq!(settled.replaced.len(), 2, "every version that stood is named");
    assert_eq!(counted_by(&state), (13, 1));
    // Saying what is counted already changes nothing.
    let again = correct(&mut state, A, &["visits=13"]).unwrap();
    assert!(!again.saved && again.changes.is_empty() && again.version.is_none());
}

/// What is counted of A's report, and how many versions stand.
fn counted_by(state: &State) -> (u64, usize) {
    let (code, period) = ("A".parse().unwrap(), "2026-02-01".parse().unwrap());
    let known = state.known(&code, FormIx(0), period);
    let value = known.values(known.counted().unwrap())[0].number().unwrap();
    (value, known.report.as_ref().unwrap().heads)
}

#[test]
fn a_withdrawal_returns_everything_to_missing_and_a_correction_begins_anew() {
    let mut state = state(&["A"]);
    let none = refusal(change(&mut state, A, &asked(&[], true, NOW)));
    assert!(none.contains("no report daily 2026-02-01 of A to withdraw"), "{none}");
    said(&mut state, 1, "2026-02-01", two(12, 3));
    let gone = change(&mut state, A, &asked(&[], true, NOW.plus(1))).unwrap();
    assert!(gone.withdrawn && gone.saved);
    assert_eq!(gone.changes.len(), 2);
    let (code, period) = ("A".parse().unwrap(), "2026-02-01".parse().unwrap());
    let report = state.cube.report(&code, &"daily".parse().unwrap(), period).unwrap();
    assert!(!report.answered);
    let anew = change(&mut state, A, &asked(&["visits=4"], false, NOW.plus(2))).unwrap();
    assert_eq!(anew.changes.len(), 1);
    assert_eq!(anew.changes[0].before, TraceValue::Missing(None));
    let known = state.known(&code, FormIx(0), period);
    assert_eq!(
        known.values(known.counted().unwrap()),
        [Value::Number(4), Value::Missing],
        "what was withdrawn stays so"
    );
}

#[test]
fn what_cannot_be_corrected_is_refused_with_every_reason() {
    let mut state = state(&["A"]);
    let mut refused = |place, values: &[&str]| refusal(correct(&mut state, place, values));
    let all = refused(
        A,
        &["visits=1000000000001", "home_visit=1", "beds=2", "visits=x", "home_visits=-1"],
    );
    for part in [
        "1000000000000",
        "did you mean home_visits",
        "form daily has no element beds",
        "not a whole number",
        "never negative",
    ] {
        assert!(all.contains(part), "{part}: {all}");
    }
    assert_eq!(all.lines().count(), 5, "{all}");
    for (place, part) in [
        (("Z", "daily", "2026-02-01"), "no unit is called Z"),
        (("诊所", "daily", "2026-02-01"), "names several units"),
        (("T1", "daily", "2026-02-01"), "name a facility or desk"),
        (("A", "dail", "2026-02-01"), "did you mean daily"),
        (("A", "daily", "2026-02"), "periods of type day"),
        (("A", "daily", "2026-02-30"), "2026-02-30"),
        (("A", "daily", "2026-02-11"), "has not begun"),
        (("K", "daily", "2026-01-11"), "closed"),
        (("H1", "daily", "2026-02-01"), "not asked of this kind"),
    ] {
        let text = refused(place, &["visits=1"]);
        assert!(text.contains(part), "{place:?} {part}: {text}");
    }
    let text = refused(("H2", "hospital_monthly", "2026-01"), &["led=1"]);
    assert!(text.contains("led is not asked"), "H2 leads no community in January: {text}");
    let twice = refused(A, &["visits=1", "visits=2"]);
    assert!(twice.contains("given twice"), "{twice}");
    assert_eq!(state.cube.forms().iter().map(|f| f.blocks().count()).sum::<usize>(), 0);
    for (code, part) in [("typing", "typo"), ("", "recount")] {
        let text = reason(code, Lang::Zh).unwrap_err().to_string();
        assert!(text.contains(part), "{text}");
    }
    assert!(person("two words", Lang::En).is_err() && person("王医生", Lang::En).is_ok());
}

fn row(
    line: u32,
    facility: &str,
    period: &str,
    visits: Option<u64>,
    home: Option<u64>,
) -> CountsReport {
    let cell = |n: Option<u64>| n.map_or(Value::Missing, Value::Number);
    CountsReport {
        facility: facility.parse().unwrap(),
        form: FormIx(0),
        period: period.parse().unwrap(),
        cells: vec![(0, cell(visits)), (1, cell(home))],
        how: None,
        entered_by: None,
        reason: None,
        line,
    }
}

fn import(state: &mut State, reports: Vec<CountsReport>) -> Imported {
    let asked = import::Asked {
        reports,
        empty_missing: false,
        by: "operator".into(),
        now: NOW,
        lang: Lang::En,
    };
    let (planned, imported) = import::plan(state, &asked, writer());
    let reports = planned.into_iter().map(|(_, report)| report).collect();
    let first = state.next_number(writer().id, writer().epoch);
    let number = (writer().id, writer().epoch, first);
    let acts = crate::act::Reports::pack(number, state.catalogue.hash, reports);
    put(state, acts.into_iter().map(Act::Reports).collect(), NOW);
    imported
}

#[test]
fn a_file_stands_behind_what_was_typed_or_corrected_and_says_nothing_twice() {
    let mut state = state(&["A", "B"]);
    said(&mut state, 1, "2026-02-01", two(12, 3));
    correct(&mut state, ("B", "daily", "2026-02-01"), &["visits=7"]).unwrap();
    let file = || {
        vec![
            row(2, "A", "2026-02-01", Some(99), None),
            row(3, "A", "2025-02-01", Some(5), Some(1)),
            row(4, "B", "2026-02-01", Some(8), None),
            row(5, "B", "2025-02-01", None, None),
        ]
    };
    let first = import(&mut state, file());
    assert_eq!((first.new, first.replaced, first.unchanged), (1, 2, 1));
    assert_eq!(first.not_counted, 1, "{:?}", first.examples);
    assert!(first.examples[0].contains("line 2 A daily 2026-02-01"), "{:?}", first.examples);
    assert_eq!(counted_by(&state), (12, 2), "the facility's own counts, the conflict shows");
    assert_eq!(counted(&state, "A", "daily", "2025-02-01"), Some(5));
    let (code, period) = ("B".parse().unwrap(), "2026-02-01".parse().unwrap());
    let known = state.known(&code, FormIx(0), period);
    assert_eq!(
        known.values(known.counted().unwrap())[0],
        Value::Number(8),
        "an operator who filled a gap stands behind a file"
    );
    let digest = state.cube.digest();
    let again = import(&mut state, file());
    assert_eq!((again.new, again.replaced, again.unchanged), (0, 0, 4));
    assert_eq!(state.cube.digest(), digest);
    // A mended file takes the place of the first one; empty cells leave what it said.
    let mended = import(&mut state, vec![row(2, "A", "2025-02-01", Some(6), None)]);
    assert_eq!((mended.replaced, mended.not_counted), (1, 0));
    let known = state.known(&"A".parse().unwrap(), FormIx(0), "2025-02-01".parse().unwrap());
    assert_eq!(known.values(known.counted().unwrap()), two(6, 1));
    assert_eq!(known.report.unwrap().heads, 1);
    // What was corrected after the file stays so, whatever the file says later.
    correct(&mut state, ("A", "daily", "2025-02-01"), &["visits=4"]).unwrap();
    let late = import(&mut state, vec![row(2, "A", "2025-02-01", Some(9), None)]);
    assert_eq!((late.replaced, late.not_counted), (1, 1));
    let known = state.known(&"A".parse().unwrap(), FormIx(0), "2025-02-01".parse().unwrap());
    assert_eq!(known.values(known.counted().unwrap())[0], Value::Number(4));
}

#[test]
fn many_reports_are_several_acts_below_the_largest_row_and_read_back() {
    let facility = |n: usize| format!("F{}", n % 700).parse().unwrap();
    let content = |n: usize| banyan_shared::report::Content {
        values: vec![Value::Number(n as u64 % 40), Value::NotApplicable],
        how: How::Import,
        entered_by: None,
        reason: None,
        override_code: None,
        withdrawn: false,
        entered_at: banyan_shared::report::EnteredAt { minute: 1, doubtful: false },
        replaces: vec![],
    };
    let reports: Vec<crate::act::NewReport> = (0..20_000)
        .map(|n| crate::act::NewReport {
            facility: facility(n),
            form: FormIx(0),
            period: Period::day(
                banyan_shared::period::Date::new(2025, 1, 1).unwrap().plus(n as i32 / 700),
            ),
            content: content(n),
        })
        .collect();
    let number = (writer().id, writer().epoch, 5);
    let hash = banyan_shared::catalogue::CatalogueHash(sha256(&[b"x"]));
    let acts = crate::act::Reports::pack(number, hash, reports.clone());
    assert_eq!(acts.len(), 3);
    let bytes: usize = acts.iter().map(|act| banyan_shared::wire::encode(act).len()).sum();
    assert!(bytes < 20_000 * 4, "{bytes} bytes for 20,000 reports");
    let read: Vec<_> = acts.iter().flat_map(|act| act.unpack().unwrap()).collect();
    assert_eq!(read.len(), reports.len());
    for (n, ((id, one), given)) in read.iter().zip(&reports).enumerate() {
        assert_eq!((id.seq, one), (5 + n as u64, given));
    }
    // A hospital's widest form in every row: still below the largest row of the ledger.
    let wide: Vec<crate::act::NewReport> = (0..6000u64)
        .map(|n| crate::act::NewReport {
            facility: facility(n as usize),
            form: FormIx(1),
            period: "2025-01".parse().unwrap(),
            content: banyan_shared::report::Content {
                values: (0..512u64)
                    .map(|v| Value::Number((n * 7919 + v * 104_729) << 20))
                    .collect(),
                ..content(0)
            },
        })
        .collect();
    let acts = crate::act::Reports::pack(number, hash, wide);
    let largest = acts.iter().map(|act| banyan_shared::wire::encode(act).len()).max().unwrap();
    assert!(largest < crate::ledger::ROW_BYTES_MAX / 2, "{largest}");
    assert_eq!(acts.iter().map(|act| act.unpack().unwrap().len()).sum::<usize>(), 6000);
}

/// What someone does to one of A's or B's reports.
#[derive(Clone, Debug)]
enum Deed {
    Typed(u32, u8, u64),
    Corrected(u32, u8, u64),
    Withdrawn(u32, u8),
    Imported(u32, u8, u64),
}

impl Deed {
    /// The facility's number and the day it is about.
    fn place(&self) -> (u32, u8) {
        match *self {
            Deed::Typed(f, d, _)
            | Deed::Corrected(f, d, _)
            | Deed::Withdrawn(f, d)
            | Deed::Imported(f, d, _) => (f, d),
        }
    }
}

fn deeds() -> impl Strategy<Value = Vec<Deed>> {
    prop::collection::vec(deed(), 1..25)
}

fn deed() -> impl Strategy<Value = Deed> {
    let place = || (0u32..2, 1u8..4);
    prop_oneof![
        (place(), 0u64..5).prop_map(|((f, d), n)| Deed::Typed(f, d, n)),
        (place(), 0u64..5).prop_map(|((f, d), n)| Deed::Corrected(f, d, n)),
        place().prop_map(|(f, d)| Deed::Withdrawn(f, d)),
        (place(), 0u64..5).prop_map(|((f, d), n)| Deed::Imported(f, d, n)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever agents and operators do, the cube is a function of the set of versions: taken in in any
    /// order it is the same, and a version never carries two meanings.
    #[test]
    fn replay_in_any_order_gives_the_same(deeds in deeds(), seed in any::<u64>()) {
        let mut state = state(&["A", "B"]);
        let mut seq = 0;
        for deed in deeds {
            let name = |f: u32| ["A", "B"][f as usize];
            let day = |d: u8| format!("2026-02-{d:02}");
            let now = NOW.plus(i64::try_from(state.position).unwrap());
            // A withdrawal of nothing is refused, which is no matter here.
            match deed {
                Deed::Typed(f, d, n) => {
                    seq += 1;
                    take(&mut state, batch(vec![(seq, report(f, 0, &day(d), two(n, 0)))]));
                }
                Deed::Corrected(f, d, n) => {
                    let values = format!("visits={n}");
                    let asked = asked(&[&values], false, now);
                    change(&mut state, (name(f), "daily", &day(d)), &asked).unwrap();
                }
                Deed::Withdrawn(f, d) => {
                    let _ = change(&mut state, (name(f), "daily", &day(d)), &asked(&[], true, now));
                }
                Deed::Imported(f, d, n) => {
                    import(&mut state, vec![row(2, name(f), &day(d), Some(n), None)]);
                }
            }
        }
        let form = state.catalogue.form("daily").unwrap();
        let mut all = Vec::new();
        for facility in ["A", "B"] {
            for day in 1..4u8 {
                let (code, period) = (facility.parse().unwrap(), format!("2026-02-{day:02}").parse().unwrap());
                for stored in state.cube.versions(&code, &"daily".parse().unwrap(), period) {
                    let crate::cube::Stored { id, received_at, position, content } = stored;
                    let facility = code.clone();
                    all.push(AcceptedVersion { facility, form, period, id, content, received_at, position });
                }
            }
        }
        let ids: std::collections::BTreeSet<_> = all.iter().map(|version| version.id).collect();
        prop_assert_eq!(ids.len(), all.len(), "one number, one version");
        all.sort_by_key(|version| {
            sha256(&[&seed.to_le_bytes(), version.id.to_string().as_bytes()])
        });
        let mut cube = Cube::new(&state.catalogue);
        for version in all {
            cube.apply(&state.catalogue, version).unwrap();
        }
        prop_assert_eq!(cube.digest(), state.cube.digest());
    }
}

#[test]
fn folding_the_acts_again_gives_the_same_state() {
    let mut live = state(&["A", "B"]);
    let mut again = live.clone();
    said(&mut live, 1, "2026-02-01", two(12, 3));
    let subject = subject(&live, A, NOW, Lang::En).unwrap();
    let (acts, _) =
        change::plan(&live, &subject, &asked(&["visits=1"], false, NOW), writer()).unwrap();
    put(&mut live, acts.clone(), NOW);
    // From an identity backup the acts come back first, the agents' reports later, at other positions:
    // what names what still holds.
    put(&mut again, acts, NOW);
    said(&mut again, 1, "2026-02-01", two(12, 3));
    assert_eq!(counted_by(&again), counted_by(&live));
    assert_eq!(again.numbered, live.numbered);
    assert_eq!(again.next_number(writer().id, writer().epoch), 2);
    let revoked = act(Act::Revoked { agent: key(1).public().agent_id() });
    live.apply_act(&revoked, 99, NOW).unwrap();
    assert_eq!(counted_by(&live), (1, 1), "the centre needs no agent");
}

/// When the tests of whole centres play: after whatever day they are run on, since `init` looks at the clock.
const LATER: Millis = Millis(4_000_000_000_000);

/// A centre of the fixture's country in a folder that goes with it.
struct Centre {
    dir: tempfile::TempDir,
    runtime: tokio::runtime::Runtime,
    service: std::sync::Arc<crate::service::Service>,
    running: crate::service::Running,
}

impl Centre {
    fn new() -> Centre {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            let path = dir.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        use crate::query::fixture;
        let sources = crate::init::Sources {
            catalogue: Some(file("catalogue.toml", fixture::CATALOGUE)),
            tables: vec![
                ("units.csv", file("units.csv", fixture::UNITS)),
                ("networks.csv", file("networks.csv", fixture::NETWORKS)),
                ("members.csv", file("members.csv", fixture::MEMBERS)),
            ],
        };
        crate::init::init(&dir.path().join("data"), &sources, "test", Lang::En).unwrap();
        Centre::open(dir)
    }

    fn open(dir: tempfile::TempDir) -> Centre {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let clock: crate::intake::Clock = std::sync::Arc::new(|| LATER);
        let data = dir.path().join("data");
        let opened = crate::service::Service::open(&data, clock, None);
        let (service, running) = runtime.block_on(opened).unwrap();
        Centre { dir, runtime, service, running }
    }

    /// Opens the same folder again.
    fn again(self) -> Centre {
        let Centre { dir, runtime, service, running } = self;
        drop(service);
        runtime.block_on(running.stop()).unwrap();
        Centre::open(dir)
    }

    fn import(&self, text: &str) -> Imported {
        let mut reader = csv::ReaderBuilder::new().flexible(true).from_reader(text.as_bytes());
        let header = reader.headers().unwrap().iter().map(str::to_owned).collect();
        let rows = (2..).zip(reader.records().map(Result::unwrap));
        let rows = rows.map(|(line, row)| (line, row.iter().map(str::to_owned).collect()));
        let call = ImportCall {
            file: "f.csv".into(),
            header,
            rows: rows.collect(),
            ..ImportCall::default()
        };
        self.runtime.block_on(self.service.import_counts("operator", call)).unwrap()
    }

    fn correct(&self, facility: &str, form: &str, period: &str, value: &str) -> Changed {
        let call = ChangeCall {
            facility: facility.into(),
            form: form.into(),
            period: period.into(),
            values: vec![value.into()],
            reason: "recount".into(),
            ..ChangeCall::default()
        };
        self.runtime.block_on(self.service.correct("operator", call)).unwrap()
    }

    fn export(&self, unit: &str, period: &str, level: Option<&str>) -> (Exported, String) {
        let path = self.dir.path().join("out.csv").display().to_string();
        let call = ExportCall {
            unit: unit.into(),
            period: period.into(),
            level: level.map(Into::into),
            path: path.clone(),
            lang: Lang::En,
            ..ExportCall::default()
        };
        let written = self.service.export_counts(&call).unwrap();
        let text = std::fs::read_to_string(path).unwrap();
        assert_eq!(written.bytes, text.len() as u64);
        assert_eq!(written.rows, text.lines().count() as u64 - 1);
        (written, text)
    }

    fn figures(&self, unit: &str, period: &str, by: &str) -> serde_json::Value {
        let call = crate::service::QueryCall {
            unit: unit.into(),
            period: period.into(),
            by: vec![by.into()],
            ..Default::default()
        };
        serde_json::to_value(self.service.figures(&call).unwrap().rows).unwrap()
    }
}

const COUNTS: &str = "\
facility,form,period,element,value,how,entered_by,reason
A,daily,2026-01-05,visits,12,direct,W01,
A,daily,2026-01-05,home_visits,NA,direct,W01,
A,daily,2026-01-06,visits,0,proxy,王医生,
B,daily,2026-01-05,visits,9007199254740991,paper_later,'-x,recount
M,daily,2026-01-31,visits,3,,,
H1,hospital_monthly,2026-01,visits,500,,,
H1,hospital_monthly,2026-01,types_ytd,40,,,
H2,hospital_monthly,2026-01,visits,300,,,
H2,hospital_monthly,2026-01,types_ytd,30,,,
B1,desk_monthly,2026-01,payer_visits,77,,,
";

#[test]
fn an_export_read_into_an_empty_centre_gives_the_same_figures() {
    let centre = Centre::new();
    let counts = COUNTS.replace("9007199254740991", "1000000000000");
    let taken = centre.import(&counts);
    assert!(taken.refused.is_empty(), "{:?}", taken.refused);
    assert_eq!(taken.new, 7);
    assert_eq!(centre.import(&counts).unchanged, 7);
    centre.correct("A", "daily", "2026-01-05", "visits=13");
    centre.correct("D", "daily", "2026-01-07", "visits=2");
    let (written, text) = centre.export("P", "2026-01", None);
    assert_eq!(written.reports, 8);
    let lines: Vec<&str> = text.lines().collect();
    for line in [
        "A,daily,2026-01-05,visits,13,operator,operator,recount",
        "A,daily,2026-01-05,home_visits,NA,operator,operator,recount",
        "A,daily,2026-01-06,visits,0,proxy,王医生,",
        "A,daily,2026-01-06,home_visits,,proxy,王医生,",
        "B,daily,2026-01-05,visits,1000000000000,paper_later,'-x,recount",
        "H1,hospital_monthly,2026-01,led,,import,operator,",
    ] {
        assert!(lines.contains(&line), "{line}\n{text}");
    }
    assert!(!text.contains("H2,hospital_monthly,2026-01,led"), "not asked, not answered: {text}");
    let empty = Centre::new();
    let taken = empty.import(&text);
    assert!(taken.refused.is_empty(), "{:?}", taken.refused);
    for by in ["facility", "county", "day"] {
        assert_eq!(empty.figures("P", "2026-01", by), centre.figures("P", "2026-01", by), "{by}");
    }
    let (again, second) = empty.export("P", "2026-01", None);
    assert_eq!((again.rows, second), (written.rows, text), "to the last cell");
    // A fold from the disk says the same.
    let figures = centre.figures("P", "2026-01", "facility");
    let centre = centre.again();
    assert_eq!(centre.figures("P", "2026-01", "facility"), figures);
    let report = centre.runtime.block_on(centre.service.verify(true)).unwrap();
    assert!(report.agrees, "{:?}", report.differences);
}

#[test]
fn an_export_is_of_one_set_one_level_and_one_moment() {
    let centre = Centre::new();
    centre.import(&COUNTS.replace("9007199254740991", "8"));
    let (_, kind) = centre.export("P", "2026-01", Some("hospital"));
    assert_eq!(kind.lines().skip(1).filter(|line| !line.starts_with('H')).count(), 0);
    let (county, text) = centre.export("P", "2026-01", Some("county"));
    assert!(text.contains("C1,daily,2026-01-05,visits,20,,,\n"), "{text}");
    assert!(text.contains("C1,daily,2026-01-05,home_visits,NA,,,\n"), "{text}");
    assert!(text.contains("C1,hospital_monthly,2026-01,types_ytd,40,,,\n"), "one gave it: {text}");
    assert!(county.not_additive.is_empty());
    let (province, text) = centre.export("P", "2026-01", Some("province"));
    assert_eq!(province.not_additive, ["types_ytd"]);
    assert!(!text.contains("types_ytd"), "{text}");
    let (_, network) = centre.export("L2", "2026-01", None);
    assert!(network.contains("A,daily,2026-01-05") && !network.contains("B,daily"), "{network}");
    for (unit, period, level, part) in [
        ("诊所", "2026-01", None, "does not name one thing"),
        ("P", "2026-13", None, "2026-13"),
        ("P", "2026-01", Some("clinics"), "there are facility, province"),
    ] {
        let call = ExportCall {
            unit: unit.into(),
            period: period.into(),
            level: level.map(Into::into),
            path: centre.dir.path().join("no.csv").display().to_string(),
            lang: Lang::En,
            ..ExportCall::default()
        };
        let error = format!("{:#}", centre.service.export_counts(&call).unwrap_err());
        assert!(error.contains(part), "{error}");
        assert!(!centre.dir.path().join("no.csv").exists());
    }
    let before = ExportCall {
        unit: "P".into(),
        period: "2026-01".into(),
        as_of: Some("2026-02-01T00:00:00+08:00".into()),
        path: centre.dir.path().join("before.csv").display().to_string(),
        ..ExportCall::default()
    };
    assert_eq!(centre.service.export_counts(&before).unwrap().rows, 0, "nothing was known then");
}

/// Decides about A's or B's daily reports and puts it in force.
fn decide(
    state: &mut State,
    (facility, form, period): (&str, &str, &str),
    what: &str,
    at: Millis,
) -> Result<Vec<Act>> {
    let mut acts = Vec::new();
    match what {
        "return" | "approve" => {
            let subject = subject(state, (facility, form, period), at, Lang::En)?;
            let report = stages::one_report(state, &subject, Reason::Recount, "stat".into());
            let plan = if what == "return" { stages::plan_return } else { stages::plan_approval };
            acts.push(plan(state, &subject, report, Lang::En)?.0);
        }
        _ => {
            let stage = match what {
                "sign" => Stage::Signed,
                "lock" => Stage::Locked,
                _ => Stage::Open,
            };
            let call = StageCall {
                unit: facility.into(),
                form: form.into(),
                period: period.into(),
                lang: Lang::En,
                ..StageCall::default()
            };
            acts = stages::plan_stage(state, &call, stage, "stat".into(), at)?.0;
        }
    }
    put(state, acts.clone(), at);
    Ok(acts)
}

fn of_a(state: &State) -> crate::cube::Report {
    let (code, period) = ("A".parse().unwrap(), "2026-02-01".parse().unwrap());
    state.cube.report(&code, &"daily".parse().unwrap(), period).unwrap()
}

fn value_of_a(state: &State, at: Option<Millis>) -> Value {
    let form = state.cube.form(&"daily".parse().unwrap()).unwrap();
    let slot = form.slot(state.cube.facility(&"A".parse().unwrap()).unwrap()).unwrap();
    let block = state.cube.block_at(form, "2026-02-01".parse().unwrap(), at).unwrap();
    block.value(0, slot)
}

#[test]
fn behind_a_lock_later_versions_wait_until_an_approval_names_them() {
    let mut state = state(&["A", "B"]);
    said(&mut state, 1, "2026-02-01", two(12, 3));
    let county = ("C1", "daily", "2026-02-01");
    assert_eq!(decide(&mut state, county, "lock", NOW.plus(10)).unwrap().len(), 1);
    assert!(decide(&mut state, county, "lock", NOW.plus(11)).unwrap().is_empty(), "locked already");
    let text = decide(&mut state, county, "sign", NOW.plus(11)).unwrap_err().to_string();
    assert!(text.contains("locked already"), "{text}");
    said(&mut state, 2, "2026-02-01", two(20, 3));
    assert_eq!((value_of_a(&state, None), of_a(&state).pending), (Value::Number(12), 1));
    // A correction waits as well, and is told to.
    let changed = change(&mut state, A, &asked(&["visits=15"], false, NOW.plus(20))).unwrap();
    assert!(changed.pending && changed.saved);
    assert_eq!((value_of_a(&state, None), of_a(&state).pending), (Value::Number(12), 2));
    // Another facility's first report of the locked day waits too.
    take(&mut state, batch(vec![(3, report(1, 0, "2026-02-01", two(5, 0)))]));
    let b: UnitCode = "B".parse().unwrap();
    let daily = "daily".parse().unwrap();
    let of_b = state.cube.report(&b, &daily, "2026-02-01".parse().unwrap()).unwrap();
    assert!(!of_b.answered && of_b.pending == 1);
    decide(&mut state, A, "approve", NOW.plus(30)).unwrap();
    let now = of_a(&state);
    assert_eq!((value_of_a(&state, None), now.pending), (Value::Number(15), 0));
    assert!(now.restated && now.corrected);
    let nothing = decide(&mut state, A, "approve", NOW.plus(31)).unwrap_err().to_string();
    assert!(nothing.contains("waits for an approval"), "{nothing}");
    // As known then.
    for (at, value) in [(10, 12), (20, 12), (29, 12), (30, 15)] {
        assert_eq!(value_of_a(&state, Some(NOW.plus(at))), Value::Number(value), "{at}");
    }
    decide(&mut state, county, "unlock", NOW.plus(40)).unwrap();
    let of_b = state.cube.report(&b, &daily, "2026-02-01".parse().unwrap()).unwrap();
    assert!(of_b.answered && of_b.restated && !of_b.corrected, "it was not there to be corrected");
    let kinds: Vec<_> =
        state.cube.decisions(&"A".parse().unwrap(), &daily, A.2.parse().unwrap(), None);
    assert_eq!(kinds.len(), 3, "{kinds:?}");
    assert_eq!(kinds[0].decided().by, "stat");
}

#[test]
fn after_a_sign_off_corrections_count_and_restate() {
    let mut state = state(&["A"]);
    said(&mut state, 1, "2026-02-01", two(12, 3));
    decide(&mut state, ("T1", "daily", "2026-02-01..2026-02-03"), "sign", NOW.plus(10)).unwrap();
    assert!(!of_a(&state).restated);
    said(&mut state, 2, "2026-02-01", two(13, 3));
    assert!(of_a(&state).corrected && of_a(&state).pending == 0);
    assert_eq!(value_of_a(&state, None), Value::Number(13));
    said(&mut state, 3, "2026-02-02", two(1, 1));
    let (code, period) = ("A".parse().unwrap(), "2026-02-02".parse().unwrap());
    let late = state.cube.report(&code, &"daily".parse().unwrap(), period).unwrap();
    assert!(late.restated && !late.corrected);
    for (place, what, part) in [
        (("C1", "daily", "2026-02-10"), "sign", "has not ended"),
        (("C1", "daily", "2026"), "lock", "has not ended"),
        (("C1", "monthly", "2026-01-05"), "lock", "periods of type month"),
        (("C9", "daily", "2026-02-01"), "lock", "no unit or network"),
        (("H1", "daily", "2026-02-01"), "lock", "no facility of H1 reports daily"),
    ] {
        let text = decide(&mut state, place, what, NOW).unwrap_err().to_string();
        assert!(text.contains(part), "{part}: {text}");
    }
}

#[test]
fn what_is_returned_does_not_count_until_it_is_entered_again_or_approved() {
    let mut state = state(&["A"]);
    let text = decide(&mut state, A, "return", NOW).unwrap_err().to_string();
    assert!(text.contains("no report daily 2026-02-01 of A to return"), "{text}");
    said(&mut state, 1, "2026-02-01", two(12, 3));
    decide(&mut state, A, "return", NOW.plus(10)).unwrap();
    let report = of_a(&state);
    assert!(report.returned && !report.answered && report.pending == 0);
    assert_eq!(value_of_a(&state, None), Value::Missing);
    assert_eq!(state.cube.returned_reports(None).len(), 1);
    assert_eq!(value_of_a(&state, Some(NOW.plus(9))), Value::Number(12), "as known before");
    let again = decide(&mut state, A, "return", NOW.plus(11)).unwrap_err().to_string();
    assert!(again.contains("stands returned already"), "{again}");
    let mut approved = state.clone();
    decide(&mut approved, A, "approve", NOW.plus(20)).unwrap();
    assert_eq!(value_of_a(&approved, None), Value::Number(12));
    assert!(!of_a(&approved).returned);
    said(&mut state, 2, "2026-02-01", two(10, 3));
    assert!(!of_a(&state).returned);
    assert_eq!(value_of_a(&state, None), Value::Number(10));
}

/// A decision at any time about any day.
fn decisions() -> impl Strategy<Value = Vec<(Deed, usize)>> {
    prop::collection::vec((deed(), 0usize..5), 1..30)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    /// Decisions hold wherever they stand among the versions: after a restore from the acts alone, which
    /// come back before the agents' reports, the same versions count and wait; and taken in in any order
    /// they give the same cube.
    #[test]
    fn decisions_hold_whatever_comes_first(deeds in decisions(), seed in any::<u64>()) {
        let mut live = state(&["A", "B"]);
        let mut acts_first = live.clone();
        let (mut seq, mut acts, mut batches) = (0, Vec::new(), Vec::new());
        for (deed, decision) in deeds {
            let now = NOW.plus(i64::try_from(live.position).unwrap());
            let (f, d) = deed.place();
            let place = (["A", "B"][f as usize], format!("2026-02-{d:02}"));
            let before = live.position;
            let mut note = |done: Vec<Act>| acts.extend((before + 1..).zip(done).map(|(p, a)| (p, now, a)));
            match deed {
                Deed::Typed(f, d, n) => {
                    seq += 1;
                    let sent = batch(vec![(seq, report(f, 0, &format!("2026-02-{d:02}"), two(n, 0)))]);
                    take(&mut live, sent.clone());
                    batches.push(sent);
                }
                Deed::Corrected(_, _, n) => {
                    let asked = asked(&[&format!("visits={n}")], false, now);
                    let subject = subject(&live, (place.0, "daily", &place.1), now, Lang::En).unwrap();
                    let done = change::plan(&live, &subject, &asked, writer()).unwrap().0;
                    put(&mut live, done.clone(), now);
                    note(done);
                }
                _ => {}
            }
            let (unit, what) = [(place.0, "return"), (place.0, "approve"), ("T1", "sign"), ("C1", "lock"), ("P", "unlock")][decision];
            let before = live.position;
            // Some of it is refused: nothing to return, nothing that waits, locked already.
            if let Ok(done) = decide(&mut live, (unit, "daily", &place.1), what, now) {
                acts.extend((before + 1..).zip(done).map(|(p, a)| (p, now, a)));
            }
        }
        for (_, at, act) in &acts {
            put(&mut acts_first, vec![act.clone()], *at);
        }
        for sent in batches {
            take(&mut acts_first, sent);
        }
        let daily: banyan_shared::ids::FormCode = "daily".parse().unwrap();
        let mut cube = Cube::new(&live.catalogue);
        let mut pieces: Vec<(u64, Option<AcceptedVersion>)> = Vec::new();
        for facility in ["A", "B"] {
            for day in 1..4u8 {
                let (code, period): (UnitCode, Period) = (facility.parse().unwrap(), format!("2026-02-{day:02}").parse().unwrap());
                let what = |state: &State| state.cube.report(&code, &daily, period).map(|r| {
                    (r.current, r.answered, r.heads, r.pending, r.returned, r.restated, r.corrected, r.versions)
                });
                prop_assert_eq!(what(&acts_first), what(&live), "{} {}", facility, period);
                for stored in live.cube.versions(&code, &daily, period) {
                    let crate::cube::Stored { id, received_at, position, content } = stored;
                    let (facility, form) = (code.clone(), FormIx(0));
                    pieces.push((0, Some(AcceptedVersion { facility, form, period, id, content, received_at, position })));
                }
            }
        }
        // Versions anywhere among the decisions, these in their order.
        let decided: Vec<_> = acts.iter().filter(|(_, _, act)| !matches!(act, Act::Reports(_))).collect();
        pieces.extend(decided.iter().map(|_| (0, None)));
        for (at, piece) in pieces.iter_mut().enumerate() {
            let digest = sha256(&[&seed.to_le_bytes(), &at.to_le_bytes()]);
            piece.0 = u64::from_le_bytes(digest[..8].try_into().unwrap());
        }
        pieces.sort_by_key(|(key, _)| *key);
        let mut next = decided.into_iter();
        for (_, piece) in pieces {
            match piece {
                Some(version) => cube.apply(&live.catalogue, version).unwrap(),
                None => {
                    let (position, at, act) = next.next().unwrap();
                    apply_decision(&mut cube, act, *position, *at);
                }
            }
        }
        prop_assert_eq!(cube.digest(), live.cube.digest());
    }
}

/// Folds a decision into a cube alone, as the state does.
fn apply_decision(cube: &mut Cube, act: &Act, position: u64, at: Millis) {
    let decided = crate::cube::Decided { by: "stat".into(), at, position };
    let place = |report: &crate::act::OneReport| {
        (report.facility.clone(), report.form.clone(), report.period)
    };
    match act {
        Act::Returned { report, seen } => {
            let (facility, form, period) = place(report);
            cube.returned((&facility, &form, period), decided, report.reason, seen.clone());
        }
        Act::Approved { report, versions } => {
            let (facility, form, period) = place(report);
            cube.approved((&facility, &form, period), decided, report.reason, versions.clone());
        }
        Act::Stage(change) => crate::state::apply_stage(cube, change, position, at).unwrap(),
        _ => unreachable!("only decisions are given"),
    }
}

impl Centre {
    fn stage(&self, stage: Stage, unit: &str, form: &str, period: &str) -> Staged {
        let call = StageCall {
            unit: unit.into(),
            form: form.into(),
            period: period.into(),
            ..StageCall::default()
        };
        self.runtime.block_on(self.service.stage("operator", stage, call)).unwrap()
    }

    fn decision(&self, facility: &str, form: &str, period: &str) -> DecisionCall {
        DecisionCall {
            facility: facility.into(),
            form: form.into(),
            period: period.into(),
            reason: "recount".into(),
            by: Some("W09".into()),
            ..DecisionCall::default()
        }
    }

    fn answer(&self, unit: &str) -> crate::query::QueryAnswer {
        let call = crate::service::QueryCall {
            unit: unit.into(),
            period: "2026-01".into(),
            ..Default::default()
        };
        self.service.figures(&call).unwrap()
    }
}

#[test]
fn figures_say_how_far_their_review_has_come_and_whether_they_were_restated() {
    let centre = Centre::new();
    centre.import(&COUNTS.replace("9007199254740991", "8"));
    let said = |unit: &str| {
        let answer = centre.answer(unit);
        (answer.stage, answer.provisional, answer.restated, answer.pending_after_lock)
    };
    let open = ("open".to_owned(), true, false, 0);
    assert_eq!(said("A"), open);
    let signed = centre.stage(Stage::Signed, "T1", "daily", "2026-01");
    assert!(signed.saved && signed.answered == 4 && signed.covered > 60, "{signed:?}");
    assert_eq!(said("A"), open, "its monthly report is not signed off");
    centre.stage(Stage::Signed, "A", "monthly", "2026-01");
    assert_eq!(said("A"), ("signed".to_owned(), true, false, 0));
    assert_eq!(said("B"), open);
    centre.correct("A", "daily", "2026-01-05", "visits=14");
    assert_eq!(said("A"), ("signed".to_owned(), true, true, 0));
    for form in ["daily", "monthly"] {
        centre.stage(Stage::Locked, "A", form, "2026-01");
    }
    assert_eq!(said("A"), ("locked".to_owned(), false, true, 0));
    let waits = centre.correct("A", "daily", "2026-01-06", "visits=9");
    assert!(waits.pending);
    assert_eq!(said("A"), ("locked".to_owned(), false, true, 1));
    let approve = centre.service.approve("operator", centre.decision("A", "daily", "2026-01-06"));
    let approved = centre.runtime.block_on(approve).unwrap();
    assert_eq!(approved.changes[0].after, TraceValue::Number(9));
    assert_eq!(said("A").3, 0);
    // Returned: missing for that reason, until it is entered again.
    let missing = || centre.answer("D").completeness.missing_why.returned;
    centre.correct("D", "daily", "2026-01-07", "visits=2");
    let place = centre.decision("D", "daily", "2026-01-07");
    let returned =
        centre.runtime.block_on(centre.service.return_report("operator", place)).unwrap();
    assert_eq!(returned.changes[0].before, TraceValue::Number(2));
    assert_eq!(missing(), 1);
    let call = crate::service::ReportCall {
        facility: "D".into(),
        form: "daily".into(),
        period: "2026-01-07".into(),
        history: true,
        ..Default::default()
    };
    let trace = centre.service.trace(&call).unwrap();
    assert_eq!((trace.missing_why.as_deref(), trace.returned), (Some("returned"), true));
    let [decision] = &trace.decisions[..] else { panic!("{trace:?}") };
    assert_eq!((&*decision.decision, &*decision.by), ("returned", "W09"));
    assert_eq!(decision.reason.as_deref(), Some("recount"));
    centre.correct("D", "daily", "2026-01-07", "visits=3");
    assert_eq!(missing(), 0);
    // Folded again from the disk.
    let before: Vec<_> =
        ["A", "B", "D"].map(|unit| serde_json::to_value(centre.answer(unit)).unwrap()).into();
    let centre = centre.again();
    let after: Vec<_> =
        ["A", "B", "D"].map(|unit| serde_json::to_value(centre.answer(unit)).unwrap()).into();
    assert_eq!(after, before);
    assert!(centre.runtime.block_on(centre.service.verify(true)).unwrap().agrees);
}
