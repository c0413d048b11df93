//! `export csv`: the counts known of a set and a stretch of time, in the long format that imports read.
//!
//! The file is written part by part, one form and period at a time, each under a short look at the state; all
//! parts are of one moment, so what comes in meanwhile is in none of them.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use banyan_shared::catalogue::{Catalogue, Class, Form, FormIx, KindIx, Lang, OverUnits};
use banyan_shared::figures::{PublicCell, withheld};
use banyan_shared::ids::Millis;
use banyan_shared::input::guarded;
use banyan_shared::organisation::{Found, Lookup, Organisation, UnitIx};
use banyan_shared::period::{Date, Period, Span};
use banyan_shared::report::Value;
use serde::{Deserialize, Serialize};

use super::refused;
use crate::cube::{BlockRef, Stored};
use crate::query::QueryError;
use crate::service::figures::moment;
use crate::service::{Service, say, usage};
use crate::state::State;

/// A file of counts asked for.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ExportCall {
    /// A unit or network.
    pub unit: String,
    /// The period or range.
    pub period: String,
    /// `facility` (also if none), a kind of facility, or a kind of administrative unit: then sums.
    pub level: Option<String>,
    /// As known at this moment (RFC 3339).
    pub as_of: Option<String>,
    /// For the public: small numbers of some elements are withheld, and who entered what is left out.
    pub public: bool,
    /// The file to write, on the service's disk.
    pub path: String,
    /// Language of messages.
    pub lang: Lang,
}

/// What was written.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exported {
    /// The file.
    pub path: String,
    /// Reports in it, or sums of one form, period and unit.
    pub reports: u64,
    /// Rows below the header.
    pub rows: u64,
    /// Its length in bytes.
    pub bytes: u64,
    /// Elements left out because they cannot be added over facilities.
    pub not_additive: Vec<String>,
    /// Facilities below no unit of the level, which stand for themselves.
    pub themselves: u64,
    /// Values withheld from the public.
    pub withheld: u64,
    /// Whether the rows are of single sites.
    pub sites: bool,
}

/// What a row is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Level {
    /// Each facility.
    Facility,
    /// Each facility of a kind.
    OfKind(KindIx),
    /// Sums for each unit of an administrative kind.
    Sums(KindIx),
}

/// The set, and the model it was found in.
struct Set {
    catalogue: Arc<Catalogue>,
    organisation: Arc<Organisation>,
    place: Found,
    level: Level,
    public: bool,
    at: Millis,
}

/// Rows of one form and period, and what was met on the way.
#[derive(Default)]
struct Part {
    reports: u64,
    rows: Vec<[String; 8]>,
    /// For the public: the counts among the rows, with their units and lines.
    counts: Vec<Count>,
    withheld: u64,
    not_additive: Vec<String>,
    themselves: Vec<UnitIx>,
}

/// A count that may have to be withheld.
struct Count {
    row: usize,
    unit: UnitIx,
    day: Date,
    line: usize,
    value: u64,
}

impl Service {
    /// Writes a file of counts.
    ///
    /// # Errors
    /// [`super::super::Usage`] if there is no such set or period, or what the disk says; no file is then left.
    pub fn export_counts(&self, call: &ExportCall) -> Result<Exported> {
        let lang = call.lang;
        let span: Span =
            call.period.parse().map_err(|reason| refused(QueryError::Period { reason }, lang))?;
        let as_of = moment(call.as_of.as_deref(), lang)?;
        // The ledger's moments never fall, even where the clock was set back.
        let now = self.state.read().newest.unwrap_or_default().max(self.now());
        let at = as_of.unwrap_or(now).min(now);
        let set = Set::find(self.model_at(at, lang)?, call, span, at)?;
        let path = Path::new(&call.path);
        let mut name = path.file_name().unwrap_or_default().to_owned();
        name.push(".new");
        let fresh = path.with_file_name(name);
        let written = self.write(&set, span, &fresh).and_then(|mut written| {
            std::fs::rename(&fresh, path)?;
            written.path.clone_from(&call.path);
            Ok(written)
        });
        if written.is_err() {
            // Half a file is worse than none; that it may not be there is all right.
            let _ = std::fs::remove_file(&fresh);
        }
        written.with_context(|| format!("writing {}", call.path))
    }

    fn write(&self, set: &Set, span: Span, path: &Path) -> Result<Exported> {
        let mut file = File::create(path)?;
        let mut writer = csv::Writer::from_writer(BufWriter::new(&mut file));
        writer.write_record([
            "facility",
            "form",
            "period",
            "element",
            "value",
            "how",
            "entered_by",
            "reason",
        ])?;
        let sites = !matches!(set.level, Level::Sums(_));
        let mut written = Exported { sites, ..Exported::default() };
        let mut themselves = std::collections::BTreeSet::new();
        for (form, model) in (0u16..).map(FormIx).zip(&set.catalogue.forms) {
            for period in span.parts(model.period_type) {
                let part = set.part(&self.state.read(), form, period);
                written.reports += part.reports;
                written.rows += part.rows.len() as u64;
                written.withheld += part.withheld;
                for row in part.rows {
                    writer.write_record(row)?;
                }
                written.not_additive.extend(part.not_additive);
                themselves.extend(part.themselves);
            }
        }
        written.not_additive.sort_unstable();
        written.not_additive.dedup();
        written.themselves = themselves.len() as u64;
        let mut inner = writer.into_inner().map_err(|error| error.into_error())?;
        inner.flush()?;
        drop(inner);
        file.sync_all()?;
        written.bytes = file.metadata()?.len();
        Ok(written)
    }
}

impl Set {
    fn find(
        (catalogue, organisation): (Arc<Catalogue>, Arc<Organisation>),
        call: &ExportCall,
        span: Span,
        at: Millis,
    ) -> Result<Set> {
        let place = match organisation.find(&call.unit, span.last_day()) {
            Lookup::One(found) => found,
            Lookup::Candidates(candidates) => {
                let text = call.unit.clone();
                return Err(refused(QueryError::Place { text, candidates }, call.lang));
            }
        };
        let level = match call.level.as_deref() {
            None | Some("facility") => Level::Facility,
            Some(text) => level(&catalogue, text, call.lang)?,
        };
        Ok(Set { catalogue, organisation, place, level, public: call.public, at })
    }

    /// The set's facilities in `period`, each with its duty day, as it was then.
    fn facilities(&self, period: Period) -> Vec<(UnitIx, Date)> {
        match self.place {
            Found::Unit(unit) => self.organisation.facilities_below_in(unit, period),
            Found::Network(network) => self.organisation.facilities_in_during(network, period),
        }
    }

    /// The rows of one form and period.
    fn part(&self, state: &State, form: FormIx, period: Period) -> Part {
        let mut part = Part::default();
        let model = &self.catalogue.forms[form.at()];
        let Some(store) = state.cube.form(&model.code) else { return part };
        let Some(block) = state.cube.block_at(store, period, Some(self.at)) else { return part };
        let columns: Vec<Option<usize>> = model
            .lines
            .iter()
            .map(|line| store.column(self.catalogue.elements[line.element.at()].code.as_str()))
            .collect();
        let mut sums: BTreeMap<UnitIx, Vec<Sum>> = BTreeMap::new();
        for (unit, day) in self.facilities(period) {
            let code = self.organisation.code(unit);
            let Some(slot) = state.cube.facility(code).and_then(|number| store.slot(number)) else {
                continue;
            };
            let kind = self.organisation.kind_on(unit, day);
            let wanted = !matches!(self.level, Level::OfKind(wanted) if wanted != kind);
            if !block.present(slot) || !wanted {
                continue;
            }
            let value = |line: usize| {
                columns[line].map_or(Value::Missing, |column| block.value(column, slot))
            };
            if let Level::Sums(level) = self.level {
                let to = self.organisation.ancestor_of_kind(unit, level, day);
                if to.is_none() {
                    part.themselves.push(unit);
                }
                let sums = sums
                    .entry(to.unwrap_or(unit))
                    .or_insert_with(|| vec![Sum::default(); model.lines.len()]);
                (0..model.lines.len()).for_each(|line| sums[line].add(value(line)));
                continue;
            }
            part.reports += 1;
            let counted = counted(state, &block, slot).filter(|_| !self.public);
            let (how, by, reason) = counted.as_ref().map_or(("", "", ""), |version| {
                let content = &version.content;
                (
                    content.how.code(),
                    content.entered_by.as_deref().unwrap_or(""),
                    content.reason.map_or("", |reason| reason.code()),
                )
            });
            let facts = self.organisation.facts_on(unit, day);
            for (at, line) in model.lines.iter().enumerate() {
                let value = value(at);
                if value.is_answer() || line.asks(&facts, day) {
                    let text = value_text(value);
                    part.note(unit, day, at, value.number());
                    part.rows.push(self.row(unit, form, period, at, text, [how, by, reason]));
                }
            }
        }
        for (unit, sums) in sums {
            part.reports += 1;
            for (at, sum) in sums.iter().enumerate() {
                let element = &self.catalogue.elements[model.lines[at].element.at()];
                if element.over_units == OverUnits::None && sum.givers > 1 {
                    part.not_additive.push(element.code.to_string());
                } else if let Some(text) = sum.text() {
                    let value = (sum.givers > 0).then(|| u64::try_from(sum.total).ok()).flatten();
                    part.note(unit, period.last_day(), at, value);
                    part.rows.push(self.row(unit, form, period, at, text, ["", "", ""]));
                }
            }
        }
        if self.public {
            self.withhold(model, &mut part);
        }
        part
    }

    /// Withholds the small numbers of a part, element by element.
    fn withhold(&self, model: &Form, part: &mut Part) {
        let org = &self.organisation;
        for (at, line) in model.lines.iter().enumerate() {
            let Some(below) = self.catalogue.elements[line.element.at()].withhold_below else {
                continue;
            };
            let counts: Vec<&Count> = part.counts.iter().filter(|count| count.line == at).collect();
            let cell = |count: &&Count| {
                // Every place above it has a total somebody may know, and so has the whole.
                let above = org.upwards(count.unit, count.day).filter(|unit| *unit != count.unit);
                let sets = above.map(|unit| unit.0).chain([u32::MAX]).collect();
                PublicCell { value: count.value, sets }
            };
            let cells: Vec<PublicCell> = counts.iter().map(cell).collect();
            for (count, _) in counts.iter().zip(withheld(&cells, below)).filter(|(_, is)| *is) {
                WITHHELD.clone_into(&mut part.rows[count.row][VALUE]);
                part.withheld += 1;
            }
        }
    }

    fn row(
        &self,
        unit: UnitIx,
        form: FormIx,
        period: Period,
        line: usize,
        value: String,
        [how, by, reason]: [&str; 3],
    ) -> [String; 8] {
        let model = &self.catalogue.forms[form.at()];
        let element = &self.catalogue.elements[model.lines[line].element.at()].code;
        [
            guarded(self.organisation.code(unit).as_str()).into_owned(),
            guarded(model.code.as_str()).into_owned(),
            period.to_string(),
            guarded(element.as_str()).into_owned(),
            value,
            how.to_owned(),
            guarded(by).into_owned(),
            reason.to_owned(),
        ]
    }
}

/// What stands for a number withheld.
const WITHHELD: &str = "*";
/// Where a row's value stands.
const VALUE: usize = 4;

impl Part {
    /// Notes a count of the row written next.
    fn note(&mut self, unit: UnitIx, day: Date, line: usize, value: Option<u64>) {
        let row = self.rows.len();
        self.counts.extend(value.map(|value| Count { row, unit, day, line, value }));
    }
}

/// The version counted of a report.
fn counted(state: &State, block: &BlockRef<'_>, slot: crate::cube::Slot) -> Option<Stored> {
    let current = block.report(slot, state.cube.authors())?.current?;
    let versions = block.versions(slot, state.cube.authors());
    versions.into_iter().find(|version| version.id == current)
}

fn level(catalogue: &Catalogue, text: &str, lang: Lang) -> Result<Level> {
    let kind =
        catalogue.kind(text).filter(|kind| catalogue.kinds[kind.at()].class != Class::External);
    let Some(kind) = kind else {
        let known = catalogue.kinds.iter().filter(|kind| kind.class != Class::External);
        let known: Vec<&str> = known.map(|kind| kind.code.as_str()).collect();
        return Err(usage(say(
            lang,
            format!("没有“{text}”这一级；可用：facility、{}", known.join("、")),
            format!("there is no level {text:?}; there are facility, {}", known.join(", ")),
        )));
    };
    Ok(match catalogue.kinds[kind.at()].class {
        Class::Administrative => Level::Sums(kind),
        _ => Level::OfKind(kind),
    })
}

fn value_text(value: Value) -> String {
    match value {
        Value::Number(n) => n.to_string(),
        Value::NotApplicable => "NA".to_owned(),
        Value::Missing => String::new(),
    }
}

/// Values of one element added over a unit's facilities.
#[derive(Clone, Copy, Default)]
struct Sum {
    total: u128,
    givers: u64,
    not_applicable: u64,
    missing: u64,
}

impl Sum {
    fn add(&mut self, value: Value) {
        match value {
            Value::Number(n) => {
                self.total += u128::from(n);
                self.givers += 1;
            }
            Value::NotApplicable => self.not_applicable += 1,
            Value::Missing => self.missing += 1,
        }
    }

    /// What stands in the file: the sum; `NA` where nobody gave a number and somebody said so.
    fn text(&self) -> Option<String> {
        if self.givers > 0 {
            Some(self.total.to_string())
        } else if self.not_applicable > 0 {
            Some("NA".to_owned())
        } else {
            (self.missing > 0).then(String::new)
        }
    }
}
