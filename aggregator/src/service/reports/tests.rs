//! Operators' decisions about reports: what the plans promise, and whole centres that hold them.

pub(in crate::service) mod centre;
mod corrections;
mod decisions;
mod files;
mod laws;

use banyan_shared::catalogue::Lang;
use banyan_shared::ids::Seq;
use banyan_shared::input::CountsReport;
use banyan_shared::keys::sha256;
use banyan_shared::report::{How, Reason, Value};
use banyan_shared::tables::TableName;

use super::*;
use crate::act::{Act, SignedAct, Stage};
use crate::query::TraceValue;
use crate::state::tests::{NOW, act, batch, counted, key, report, state, table, take, two};

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

/// What is counted of A's report, and how many versions stand.
fn counted_by(state: &State) -> (u64, usize) {
    let (code, period) = ("A".parse().unwrap(), "2026-02-01".parse().unwrap());
    let known = state.known(&code, FormIx(0), period);
    let value = known.values(known.counted().unwrap())[0].number().unwrap();
    (value, known.report.as_ref().unwrap().heads)
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
