//! `import csv`: counts from a file, signed by the operator.
//!
//! The caller takes the file apart and sends it in parts, each with all rows of the reports in it, so that
//! a file of millions of rows needs little memory here and the intake serves the agents between two parts.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::Result;
use banyan_shared::catalogue::rule::{ReportView, check_view};
use banyan_shared::catalogue::{Catalogue, Lang};
use banyan_shared::ids::{Millis, VersionId};
use banyan_shared::input::{CountsReport, Reading, RefusedRow, read_counts_rows};
use banyan_shared::organisation::Organisation;
use banyan_shared::report::{Content, EnteredAt, How, Value, Version, current};
use banyan_shared::tables::RowError;
use serde::{Deserialize, Serialize};

use super::{Registry, Writer, working_days};
use crate::act::{Act, NewReport, Reports};
use crate::cube::Stored;
use crate::service::{Service, say, usage};
use crate::state::{Known, State};

/// Most rows in one part of a file.
pub const PART_ROWS_MAX: usize = 50_000;
/// Most rows that do not count listed by name.
const EXAMPLES_MAX: usize = 5;

/// A part of a file of counts, long or wide.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ImportCall {
    /// The file's name, for messages.
    pub file: String,
    /// Its header.
    pub header: Vec<String>,
    /// Rows, each with its line in the file.
    pub rows: Vec<(u32, Vec<String>)>,
    /// Whether an empty cell makes the value missing; else it leaves it as it was.
    pub empty_missing: bool,
    /// Only says what would happen.
    pub dry_run: bool,
    /// Language of messages.
    pub lang: Lang,
}

/// Rules broken by reports that were taken.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BrokenRule {
    /// In words.
    pub text: String,
    /// By how many reports.
    pub reports: u64,
    /// The line of the first.
    pub line: u32,
}

/// What came of a part of a file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Imported {
    /// Reports nothing was known of.
    pub new: u64,
    /// Reports of which something was known and that say something else.
    pub replaced: u64,
    /// Reports that say what is known already: nothing is stored of them.
    pub unchanged: u64,
    /// Of the stored ones: they stand behind what the facility typed or an operator corrected.
    pub not_counted: u64,
    /// Of the stored ones: they wait for an approval, the period being locked.
    pub pending: u64,
    /// Some of those that do not count, and why.
    pub examples: Vec<String>,
    /// Rules broken by stored reports, by code.
    pub broken: BTreeMap<String, BrokenRule>,
    /// Rows that were not taken.
    pub refused: Vec<RefusedRow>,
    /// What was taken and should be looked at.
    pub warnings: Vec<RowError>,
}

impl Imported {
    /// Adds what came of another part of the same file.
    pub fn merge(&mut self, other: Imported) {
        self.new += other.new;
        self.replaced += other.replaced;
        self.unchanged += other.unchanged;
        self.not_counted += other.not_counted;
        self.pending += other.pending;
        let room = EXAMPLES_MAX.saturating_sub(self.examples.len());
        self.examples.extend(other.examples.into_iter().take(room));
        for (code, broken) in other.broken {
            let mine = self
                .broken
                .entry(code)
                .or_insert_with(|| BrokenRule { reports: 0, ..broken.clone() });
            mine.reports += broken.reports;
        }
        self.refused.extend(other.refused);
        self.warnings.extend(other.warnings);
    }
}

/// What a plan needs beside the state.
pub(super) struct Asked {
    pub(super) reports: Vec<CountsReport>,
    pub(super) empty_missing: bool,
    pub(super) by: String,
    pub(super) now: Millis,
    pub(super) lang: Lang,
}

/// What a plan comes to: the reports to be stored, each with the line it stands on, and the sums.
pub(super) type Planned = (Vec<(u32, NewReport)>, Imported);

impl Service {
    /// Takes in a part of a file of counts, or says what would come of it.
    ///
    /// # Errors
    /// [`super::super::Usage`] with every error of the header, or what the disk says.
    pub async fn import_counts(self: &Arc<Self>, by: &str, call: ImportCall) -> Result<Imported> {
        let lang = call.lang;
        if call.rows.len() > PART_ROWS_MAX {
            return Err(usage(say(
                lang,
                format!("一次最多 {PART_ROWS_MAX} 行，请分批提交"),
                format!("at most {PART_ROWS_MAX} rows at once: send the file in parts"),
            )));
        }
        let (catalogue, organisation) = {
            let state = self.state.read();
            (state.catalogue.clone(), state.organisation.clone())
        };
        let now = self.now();
        let dry_run = call.dry_run;
        // Reading takes a while and needs no lock: catalogue and organisation are whole values.
        let read = {
            let (catalogue, organisation) = (catalogue.clone(), organisation.clone());
            let work = move || read(call, &catalogue, &organisation, now, lang);
            tokio::task::spawn_blocking(work).await??
        };
        let Read { reports, empty_missing, refused, warnings } = read;
        let by = by.to_owned();
        let asked = Asked { reports, empty_missing, by: by.clone(), now, lang };
        let writer = self.writer();
        let hash = catalogue.hash;
        let plan = move |state: &State| {
            if state.catalogue.hash != hash {
                return Err(usage(say(
                    lang,
                    "目录刚刚更新，请重新导入",
                    "the catalogue has just changed: import again",
                )));
            }
            Ok(plan(state, &asked, writer))
        };
        let (planned, mut imported) = if dry_run {
            plan(&self.state.read())?
        } else {
            let store = move |state: &State| {
                let (planned, imported) = plan(state)?;
                let first = state.next_number(writer.id, writer.epoch);
                let reports = planned.iter().map(|(_, report)| report.clone()).collect();
                let acts = Reports::pack((writer.id, writer.epoch, first), hash, reports);
                Ok((acts.into_iter().map(Act::Reports).collect(), (planned, imported)))
            };
            self.decide(&by, store).await?
        };
        let check = move || broken_rules(&catalogue, &organisation, &planned, lang);
        imported.broken = tokio::task::spawn_blocking(check).await?;
        (imported.refused, imported.warnings) = (refused, warnings);
        Ok(imported)
    }
}

/// A part read.
pub(super) struct Read {
    pub(super) reports: Vec<CountsReport>,
    empty_missing: bool,
    refused: Vec<RefusedRow>,
    warnings: Vec<RowError>,
}

pub(super) fn read(
    call: ImportCall,
    catalogue: &Catalogue,
    organisation: &Organisation,
    now: Millis,
    lang: Lang,
) -> Result<Read> {
    let today = catalogue.day_at(now);
    let registry = Registry { organisation, day: today };
    let reading = Reading { catalogue, enrolled: &registry, today, clock_trusted: true };
    let file = read_counts_rows(&call.file, call.header, call.rows, reading).map_err(|errors| {
        let lines: Vec<String> = errors.iter().map(|error| error.text(lang)).collect();
        usage(lines.join("\n"))
    })?;
    let banyan_shared::input::CountsFile { mut reports, refused, warnings, .. } = file;
    // Neighbours in the act look alike, so that its columns are short, and each month is needed once: only a
    // few of the older ones stay in memory.
    reports.sort_by(|a, b| {
        (a.form.at(), a.period, &a.facility).cmp(&(b.form.at(), b.period, &b.facility))
    });
    Ok(Read { reports, empty_missing: call.empty_missing, refused, warnings })
}

/// Plans what is to be stored of reports read from a file.
pub(super) fn plan(state: &State, asked: &Asked, writer: Writer) -> Planned {
    let mut stored = Vec::new();
    let mut sums = Imported::default();
    let mut seq = state.next_number(writer.id, writer.epoch);
    for report in &asked.reports {
        let known = state.known(&report.facility, report.form, report.period);
        let Some(content) = content(state, report, asked, &known) else {
            sums.unchanged += 1;
            continue;
        };
        if known.versions.is_empty() {
            sums.new += 1;
        } else {
            sums.replaced += 1;
        }
        let id = VersionId { writer: writer.id, epoch: writer.epoch, seq };
        note_rank(state, report, asked, &known, (id, &content), &mut sums);
        let (facility, form, period) = (report.facility.clone(), report.form, report.period);
        stored.push((report.line, NewReport { facility, form, period, content }));
        seq += 1;
    }
    (stored, sums)
}

/// What the file says of a report, completed from what is known; none if that is known already.
fn content(state: &State, report: &CountsReport, asked: &Asked, known: &Known) -> Option<Content> {
    let lines = state.catalogue.forms[report.form.at()].lines.len();
    let counted = known.counted();
    // What a file said before is what this one changes, also where something else is counted.
    let of_a_file =
        |version: &&Stored| version.id.epoch.is_centre() && version.content.how != How::Operator;
    let earlier = known.versions.iter().filter(of_a_file).max_by_key(|v| (v.position, v.id.seq));
    let base = earlier.or(counted).map(|version| known.values(version));
    let mut values = base.clone().unwrap_or_else(|| vec![Value::Missing; lines]);
    for (line, value) in &report.cells {
        if *value != Value::Missing || asked.empty_missing {
            values[*line] = *value;
        }
    }
    let says_nothing = known.versions.is_empty() && !values.iter().any(|v| v.is_answer());
    let is_counted = counted
        .is_some_and(|version| !version.content.withdrawn && known.values(version) == values);
    if says_nothing || base.as_ref() == Some(&values) || is_counted {
        return None;
    }
    let heads = known.heads(state.cube.lineage());
    Some(Content {
        values,
        // Only a correction ranks as an operator's: a file stands behind what was typed or corrected.
        how: report.how.filter(|how| *how != How::Operator).unwrap_or(How::Import),
        entered_by: report.entered_by.clone().or_else(|| Some(asked.by.clone())),
        reason: report.reason,
        override_code: None,
        withdrawn: false,
        entered_at: EnteredAt { minute: asked.now.minute(), doubtful: false },
        replaces: heads.into_iter().filter(of_a_file).map(|version| version.id).collect(),
    })
}

/// Notes whether a version about to be stored will be counted.
fn note_rank(
    state: &State,
    report: &CountsReport,
    asked: &Asked,
    known: &Known,
    (id, content): (VersionId, &Content),
    sums: &mut Imported,
) {
    let form = &state.catalogue.forms[report.form.at()].code;
    if state.cube.pending(&report.facility, form, report.period, id, None) {
        sums.pending += 1;
        return;
    }
    let mut list = known.list();
    list.push(Version { id, how: content.how, replaces: content.replaces.clone() });
    let chosen = current(&list, state.cube.lineage()).map(|(at, _)| at);
    let Some(other) = chosen.and_then(|at| known.versions.get(at)) else { return };
    sums.not_counted += 1;
    if sums.examples.len() < EXAMPLES_MAX {
        let (line, facility, period) = (report.line, &report.facility, report.period);
        let how = other.content.how.text(asked.lang);
        sums.examples.push(say(
            asked.lang,
            format!("第{line}行 {facility} {form} {period}：以已有版本为准（{how}）"),
            format!("line {line} {facility} {form} {period}: what is there counts ({how})"),
        ));
    }
}

/// The rules broken by stored reports. A broken rule refuses nothing here: history is what it is.
fn broken_rules(
    catalogue: &Catalogue,
    organisation: &Organisation,
    planned: &[(u32, NewReport)],
    lang: Lang,
) -> BTreeMap<String, BrokenRule> {
    let mut broken: BTreeMap<String, BrokenRule> = BTreeMap::new();
    for (line, report) in planned {
        let Some(unit) = organisation.unit(report.facility.as_str()) else { continue };
        let view = ReportView {
            form: report.form,
            values: &report.content.values,
            previous: None,
            period: report.period,
            working_days: working_days(organisation, unit, report.period),
        };
        for one in check_view(catalogue, &view) {
            let (rule, part) = (one.rule(catalogue), one.part(catalogue));
            let noted = broken.entry(part.code.to_string()).or_insert_with(|| BrokenRule {
                text: format!("{} ({})", rule.message.get(lang), part.text),
                reports: 0,
                line: *line,
            });
            noted.reports += 1;
            noted.line = noted.line.min(*line);
        }
    }
    broken
}
