//! Bytes: a batch's entries packed in columns, beside JSON and a row a report (postcard).

use std::time::Duration;

use anyhow::{Result, ensure};
use banyan_shared::period::Period;
use banyan_shared::report::Content;
use banyan_shared::wire::{Body, Entry, decode, encode, pack, unpack};
use banyan_tests::model::shipped;

use super::data::{JsonReport, Size, entries, fleet, numbers};
use super::measure::{Bench, Of, print, time};

pub(crate) const PART: &str = "codec";
/// Repetitions of one round: a single one would be too short for the clock.
const TIMES: usize = 100;

/// A report as a row: what a batch would hold without columns.
type Row = (u64, u32, u16, Period, Content);

fn rows(entries: &[Entry]) -> Vec<Row> {
    let row = |entry: &Entry| match &entry.body {
        Body::Report { facility, form, period, content } => {
            Some((entry.seq, *facility, *form, *period, content.clone()))
        }
        _ => None,
    };
    entries.iter().filter_map(row).collect()
}

fn repeated<T>(mut work: impl FnMut() -> Result<T>) -> Result<Duration> {
    time(|| {
        for _ in 0..TIMES {
            std::hint::black_box(work()?);
        }
        Ok(())
    })
}

pub(crate) fn run(bench: &mut Bench) -> Result<()> {
    for (reports, what) in [(30, "30 reports"), (1, "one report")] {
        let (_dir, made) = fleet(Size(1, reports, reports))?;
        let entries = entries(&made.batches[0].1)?;
        let counts = numbers(&entries) as f64;
        let (packed, rows) = (pack(&entries), rows(&entries));
        let json = JsonReport::all(&shipped()?.0, "520502105203-VC", &entries)?;
        let (row_bytes, text) = (encode(&rows), serde_json::to_vec(&json)?);
        ensure!(unpack(&packed)? == entries && decode::<Vec<Row>>(&row_bytes)? == rows);
        let of = Of(counts * TIMES as f64, "count");
        bench.line(
            (PART, &format!("pack {what}")),
            of,
            &mut || repeated(|| Ok(pack(&entries))),
            &mut [
                ("rows", &mut || repeated(|| Ok(encode(&rows)))),
                ("JSON", &mut || repeated(|| Ok(serde_json::to_vec(&json)?))),
            ],
        )?;
        bench.line(
            (PART, &format!("unpack {what}")),
            of,
            &mut || repeated(|| Ok(unpack(&packed)?)),
            &mut [
                ("rows", &mut || repeated(|| Ok(decode::<Vec<Row>>(&row_bytes)?))),
                ("JSON", &mut || {
                    repeated(|| Ok(serde_json::from_slice::<Vec<JsonReport>>(&text)?))
                }),
            ],
        )?;
        let size = |bytes: usize| format!("{:.2} bytes a count", bytes as f64 / counts);
        for (name, other) in [("rows", row_bytes.len()), ("JSON", text.len())] {
            let ratio = other as f64 / packed.len() as f64;
            let ours = size(packed.len());
            print(
                (PART, &format!("size of {what}, unsigned")),
                &ours,
                Some((name, &size(other), ratio)),
            );
        }
    }
    Ok(())
}
