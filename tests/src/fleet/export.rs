//! What is typed, for other systems: the JSON a clinic would publish, a report a line, in the order of days.
//!
//! Files: `reports.jsonl`, and `facilities.csv` (facility, county, city). Cells without a number are left out.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use anyhow::{Context, Result};
use banyan_shared::organisation::Organisation;
use banyan_shared::period::Date;
use banyan_shared::report::Content;
use banyan_shared::wire::Body;
use serde::Serialize;
use serde_json::{Map, Value};

use super::world::Made;

/// Above a facility, what others group by.
const AREAS: [&str; 2] = ["county", "city"];

/// A report.
#[derive(Serialize)]
struct Line<'a> {
    facility: &'a str,
    form: &'a str,
    period: String,
    /// When it was typed, in seconds since 1970: the newest one about a period counts.
    at: u64,
    values: Map<String, Value>,
}

/// Writes what all agents' notebooks hold into `dir`, which is made.
///
/// # Errors
/// What the disk says.
pub(super) fn write(dir: &Path, made: &Made) -> Result<()> {
    std::fs::create_dir_all(dir).with_context(|| format!("making {}", dir.display()))?;
    let mut order: Vec<(Date, usize, u64)> = Vec::new();
    for (at, agent) in made.agents.iter().enumerate() {
        let days =
            (1..=agent.notebook.len()).filter_map(|seq| Some((agent.notebook.day(seq)?, at, seq)));
        order.extend(days);
    }
    order.sort_unstable();
    let last = order.last().map_or(Date::MIN, |(day, ..)| *day);
    facilities(&dir.join("facilities.csv"), made, last)?;
    let path = dir.join("reports.jsonl");
    let create = || File::create(&path).with_context(|| format!("making {}", path.display()));
    let mut file = BufWriter::new(create()?);
    for (_, at, seq) in order {
        let notebook = &made.agents[at].notebook;
        let Some(Body::Report { period, content, .. }) = notebook.body(seq) else { continue };
        let line = Line {
            facility: notebook.home.as_str(),
            form: made.catalogue.forms[made.form.at()].code.as_str(),
            period: period.to_string(),
            at: u64::from(content.entered_at.minute) * 60,
            values: numbers(made, &content),
        };
        serde_json::to_writer(&mut file, &line)?;
        file.write_all(b"\n")?;
    }
    Ok(file.flush()?)
}

fn numbers(made: &Made, content: &Content) -> Map<String, Value> {
    let lines = made.catalogue.forms[made.form.at()].lines.iter().zip(&content.values);
    lines
        .filter_map(|(line, value)| {
            let element = &made.catalogue.elements[line.element.at()];
            Some((element.code.to_string(), value.number()?.into()))
        })
        .collect()
}

fn facilities(path: &Path, made: &Made, day: Date) -> Result<()> {
    let organisation: &Organisation = &made.organisation;
    let mut writer =
        csv::Writer::from_path(path).with_context(|| format!("making {}", path.display()))?;
    writer.write_record(["facility"].iter().chain(&AREAS))?;
    for home in &made.homes {
        let unit = organisation.unit(home.as_str()).context("a home is in the registry")?;
        let mut record = vec![home.as_str()];
        for area in AREAS {
            let kind = made.catalogue.kind(area).with_context(|| format!("no kind {area}"))?;
            let above = organisation.ancestor_of_kind(unit, kind, day);
            let above = above.with_context(|| format!("{home} is in no {area}"))?;
            record.push(organisation.code(above).as_str());
        }
        writer.write_record(record)?;
    }
    Ok(writer.flush()?)
}
