//! Changing the registry: tables are checked whole, then replace the ones before in one act; due times are
//! granted and reports waived one by one.

mod diff;
mod moves;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result};
use banyan_shared::catalogue::{Catalogue, Lang};
use banyan_shared::ids::{Millis, Position, UnitCode};
use banyan_shared::keys::sha256;
use banyan_shared::organisation::Organisation;
use banyan_shared::period::{Date, Period, PeriodType, Span};
use banyan_shared::tables::registry::ExtensionDue;
use banyan_shared::tables::{RowError, TableName};
use banyan_shared::wire::{deflate, inflate};
use serde::{Deserialize, Serialize};

use super::enrol::find_unit;
use super::figures::CompletenessCall;
use super::{Service, few_periods, say, usage};
use crate::act::{Act, Extended, TableFile};
use crate::query::{CompletenessFigure, Engine, Plans, SiteStates};
use crate::state::{
    Files, State, TABLE_BYTES_MAX, build_organisation, park_reason, read_extended, read_tables,
};

pub use diff::RegistryChange;
pub use moves::{DutiesMoved, Moved};
pub(super) use moves::{duties, months_with_data, moved};

/// A table given by an operator.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct GivenTable {
    /// Its file name; the table is told by it.
    pub file: String,
    /// The bytes, as base64.
    pub bytes: String,
}

/// Tables to be looked at or put in force.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ImportUnits {
    /// The tables.
    pub tables: Vec<GivenTable>,
    /// Whether to put them in force.
    pub apply: bool,
    /// The months whose figures are compared; none for every month of this and the past year with data.
    pub months: Option<Vec<String>>,
    /// Language of messages and names.
    pub lang: Lang,
}

/// What an import changes.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ImportReport {
    /// Whether it was put in force.
    pub applied: bool,
    /// For each table: rows added, rows taken away.
    pub tables: BTreeMap<String, (usize, usize)>,
    /// How many changes of each sort.
    pub summary: BTreeMap<String, usize>,
    /// The changes by meaning, at most [`CHANGES_MAX`].
    pub changes: Vec<RegistryChange>,
    /// Changes not listed.
    pub changes_left_out: usize,
    /// What is accepted and probably not meant.
    pub warnings: Vec<String>,
    /// The months that can be compared.
    pub months: Vec<String>,
    /// The figures that move, of the months compared.
    pub figures: Vec<Moved>,
    /// Duties that come and go in them.
    pub duties: Vec<DutiesMoved>,
    /// The units and networks compared.
    pub places: Vec<String>,
    /// Units and networks that may move too and were not compared.
    pub places_left_out: usize,
    /// Parked entries the change releases.
    pub released: usize,
}

/// Most changes listed.
pub const CHANGES_MAX: usize = 5000;
/// Most warnings listed.
const WARNINGS_MAX: usize = 200;
/// Most extensions that no longer cover anything listed.
const EXTENSIONS_GONE_MAX: usize = 20;
/// Longest reason of an extension, in characters.
const REASON_CHARS_MAX: usize = 200;

/// Which table a file is, by its name.
pub(super) fn table_of(file: &str) -> Option<TableName> {
    let base = file.rsplit(['/', '\\']).next().unwrap_or(file);
    TableName::ALL.into_iter().find(|table| table.file_name() == base)
}

fn texts(errors: &[RowError], lang: Lang) -> String {
    errors.iter().map(|error| error.text(lang)).collect::<Vec<_>>().join("\n")
}

/// A row's text, without what an editor leaves at its end.
fn lines(bytes: &[u8]) -> Vec<String> {
    String::from_utf8_lossy(bytes).lines().map(|line| line.trim_end().to_owned()).collect()
}

/// A registry worked out against the one in force.
struct Prepared {
    files: Vec<TableFile>,
    organisation: Arc<Organisation>,
    plans: Arc<Plans>,
    report: ImportReport,
    months: Vec<Period>,
}

/// What a preparation was made from: the tables and the registry in force.
type Key = ([u8; 32], Position);

/// The registry looked at last: asked month by month, it is worked out once.
#[derive(Default)]
pub(super) struct Imports(Mutex<Option<(Key, Arc<Prepared>)>>);

/// What is in force, to be looked at without holding the state.
struct Present {
    position: Position,
    catalogue: Arc<Catalogue>,
    organisation: Arc<Organisation>,
    files: Files,
    extended: Vec<Extended>,
}

impl Service {
    fn present(&self) -> Present {
        let state = self.state.read();
        let recorded = state.recorded(Millis(i64::MAX));
        Present {
            position: recorded.map_or(0, |recorded| recorded.position),
            catalogue: state.catalogue.clone(),
            organisation: state.organisation.clone(),
            files: state.tables.clone(),
            extended: state.history.extended(),
        }
    }

    /// Checks tables against the rest of the registry, says what they change and which figures move, and
    /// puts them in force if `apply`. Each table replaces the one before as a whole.
    ///
    /// # Errors
    /// [`super::Usage`] with every error of the tables, or what the disk says.
    pub async fn import_units(
        self: &Arc<Self>,
        by: &str,
        call: ImportUnits,
    ) -> Result<ImportReport> {
        let lang = call.lang;
        let service = self.clone();
        let apply = call.apply;
        let work = move || {
            let prepared = service.prepared(&call)?;
            let mut report = prepared.report.clone();
            service.compare(&prepared, &call, &mut report)?;
            Ok::<_, anyhow::Error>((prepared, report))
        };
        let (prepared, mut report) =
            tokio::task::spawn_blocking(work).await.context("the comparison panicked")??;
        if !apply {
            return Ok(report);
        }
        let before = self.state.read().parked.len();
        let files = prepared.files.clone();
        // Checked once more against what is in force when its turn comes: an act that cannot be folded in
        // must never be stored.
        let check = move |state: &State| {
            let mut tables = state.tables.clone();
            tables.extend(files.iter().map(|file| (file.table, Arc::new(file.clone()))));
            let extended = state.extended_under(files.iter().map(|file| file.table));
            build_organisation(&state.catalogue, &tables, &extended)
                .map_err(|errors| usage(texts(&errors, lang)))?;
            Ok(vec![Act::Tables(files)])
        };
        self.act(by, Box::new(check)).await?;
        report.applied = true;
        report.released = before.saturating_sub(self.state.read().parked.len());
        Ok(report)
    }

    fn prepared(&self, call: &ImportUnits) -> Result<Arc<Prepared>> {
        let present = self.present();
        let lang: &[u8] = if call.lang == Lang::Zh { b"zh" } else { b"en" };
        let mut parts: Vec<&[u8]> = vec![b"banyan/v1/import\0", lang];
        for table in &call.tables {
            parts.extend([table.file.as_bytes(), &[0], table.bytes.as_bytes(), &[0]]);
        }
        let key = (sha256(&parts), present.position);
        let lock = || self.imports.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, known)) = lock().as_ref().filter(|(known, _)| *known == key) {
            return Ok(known.clone());
        }
        let prepared = Arc::new(self.prepare(&present, call)?);
        *lock() = Some((key, prepared.clone()));
        Ok(prepared)
    }

    fn prepare(&self, present: &Present, call: &ImportUnits) -> Result<Prepared> {
        let lang = call.lang;
        let now = self.now();
        let mut files: Vec<TableFile> = Vec::new();
        let mut tables = present.files.clone();
        let mut rows = BTreeMap::new();
        // By table: the lines that stood there before, and the new ones in order.
        let mut texts_of: HashMap<TableName, (BTreeSet<String>, Vec<String>)> = HashMap::new();
        for table in &call.tables {
            let name = table_of(&table.file).ok_or_else(|| {
                let known: Vec<&str> = TableName::ALL.iter().map(|t| t.file_name()).collect();
                usage(say(
                    lang,
                    format!("不认识的文件 {}；可导入：{}", table.file, known.join("、")),
                    format!("{} is no table; known: {}", table.file, known.join(", ")),
                ))
            })?;
            if files.iter().any(|file| file.table == name) {
                return Err(usage(say(
                    lang,
                    format!("{} 给了两次", name.file_name()),
                    format!("{} was given twice", name.file_name()),
                )));
            }
            let bytes = data_encoding::BASE64
                .decode(table.bytes.as_bytes())
                .map_err(|_| usage("the table's bytes are not base64"))?;
            let old = present.files.get(&name);
            let old = old.and_then(|file| inflate(&file.bytes, TABLE_BYTES_MAX).ok());
            let (old, new) = (lines(&old.unwrap_or_default()), lines(&bytes));
            let (was, is): (BTreeSet<String>, BTreeSet<&String>) =
                (old.into_iter().collect(), new.iter().collect());
            let added = is.iter().filter(|line| !was.contains(**line)).count();
            let gone = was.iter().filter(|line| !is.contains(line)).count();
            rows.insert(name.file_name().to_owned(), (added, gone));
            texts_of.insert(name, (was, new));
            let file = TableFile { table: name, file: table.file.clone(), bytes: deflate(&bytes) };
            tables.insert(name, Arc::new(file.clone()));
            files.push(file);
        }
        let replaces_extensions = files.iter().any(|file| file.table == TableName::Extensions);
        let extended = if replaces_extensions { &[][..] } else { &present.extended };
        let refused = |errors: Vec<RowError>| usage(texts(&errors, lang));
        let granted = read_extended(extended).map_err(refused)?;
        let mut read = read_tables(&tables).map_err(refused)?;
        let mut organisation = Organisation::build(&present.catalogue, &read).map_err(refused)?;
        organisation.extend(&granted);
        let gone = extensions_gone(&present.organisation, &organisation, extended, lang);
        read.extensions.extend(granted);
        let mut before = read_tables(&present.files).map_err(refused)?;
        before.extensions.extend(read_extended(&present.extended).map_err(refused)?);
        let today = present.catalogue.day_at(now);
        let old = diff::Side { tables: &before, organisation: &present.organisation };
        let new = diff::Side { tables: &read, organisation: &organisation };
        let both = (&*present.catalogue, &*present.catalogue);
        let mut changes = diff::diff(both, old, new, today, lang);
        let mut summary: BTreeMap<String, usize> = BTreeMap::new();
        for change in &changes {
            *summary.entry(change.what.clone()).or_default() += 1;
        }
        let state = self.state.read();
        let months = months_with_data(&state, now);
        let days: Vec<Date> = months.iter().map(|month| month.last_day()).chain([today]).collect();
        let sides = [&*present.organisation, &organisation];
        let (places, places_left_out) = moves::places(&changes, sides, &days);
        let mut warnings = warnings(&state, &organisation, &texts_of, &changes, lang);
        warnings.extend(gone);
        let released = state.parked.values().filter(|parked| {
            state.catalogues.get(&parked.catalogue).is_some_and(|held| {
                let (form, period) = (parked.version.form, parked.version.period);
                let under = (&*present.catalogue, &organisation);
                park_reason(under, &held.catalogue, &parked.facility, form, period, today).is_none()
            })
        });
        let released = released.count();
        drop(state);
        let changes_left_out = changes.len().saturating_sub(CHANGES_MAX);
        changes.truncate(CHANGES_MAX);
        let report = ImportReport {
            applied: false,
            tables: rows,
            summary,
            changes,
            changes_left_out,
            warnings,
            months: months.iter().map(ToString::to_string).collect(),
            figures: Vec::new(),
            duties: Vec::new(),
            places: places.into_iter().map(|place| place.code).collect(),
            places_left_out,
            released,
        };
        let (organisation, plans) = (Arc::new(organisation), Arc::new(Plans::default()));
        Ok(Prepared { files, organisation, plans, report, months })
    }

    /// Asks for the figures of each month twice: under the registry in force and under the new one.
    fn compare(
        &self,
        prepared: &Prepared,
        call: &ImportUnits,
        report: &mut ImportReport,
    ) -> Result<()> {
        let months: Vec<Period> = match &call.months {
            None => prepared.months.clone(),
            Some(asked) => asked
                .iter()
                .map(|text| text.parse::<Period>().map_err(|error| usage(error.to_string())))
                .collect::<Result<_>>()?,
        };
        if report.changes.is_empty() {
            return Ok(());
        }
        let now = self.now();
        let sites = SiteStates::default();
        for month in months {
            // The state is let go of between places, so that reports go on coming in.
            for (at, place) in report.places.iter().enumerate() {
                let state = self.state.read();
                let plans = self.plans.plans(&state);
                let old = Engine {
                    catalogue: &state.catalogue,
                    organisation: &state.organisation,
                    cube: &state.cube,
                    sites: &sites,
                    plans: &plans,
                };
                let new =
                    Engine { organisation: &prepared.organisation, plans: &prepared.plans, ..old };
                if at == 0 && month.kind() == PeriodType::Month {
                    report.duties.extend(duties(&old, &new, month));
                }
                moved(&old, &new, place, month, now, &mut report.figures);
            }
        }
        Ok(())
    }
}

/// Extensions granted one by one that cover nothing any more, their unit having been taken out.
fn extensions_gone(
    old: &Organisation,
    new: &Organisation,
    extended: &[Extended],
    lang: Lang,
) -> Vec<String> {
    let gone = extended.iter().filter(|row| {
        let unit = row.unit.as_str();
        old.unit(unit).is_some() && new.unit(unit).is_none()
    });
    let mut out: Vec<String> =
        gone.clone().take(EXTENSIONS_GONE_MAX).map(|row| extension_gone(row, lang)).collect();
    let left_out = gone.count() - out.len();
    if left_out > 0 {
        out.push(say(lang, format!("另有 {left_out} 条"), format!("and {left_out} more")));
    }
    out
}

/// Says that an extension covers nothing any more.
pub(super) fn extension_gone(row: &Extended, lang: Lang) -> String {
    let Extended { form, unit, period, due, .. } = row;
    say(
        lang,
        format!("{unit} 的 {form} {period} 曾获延期或免报（{due}），单位或报表删除后不再有效"),
        format!(
            "{form} {period} of {unit} was extended or waived ({due}): with the unit or form gone it covers nothing"
        ),
    )
}

/// What is accepted and probably not meant: the checker's warnings about new rows, and units taken out of the
/// registry that have reports or agents.
fn warnings(
    state: &State,
    organisation: &Organisation,
    texts_of: &HashMap<TableName, (BTreeSet<String>, Vec<String>)>,
    changes: &[RegistryChange],
    lang: Lang,
) -> Vec<String> {
    let mut out = Vec::new();
    for (code, change) in changes.iter().filter_map(|c| Some((c.subject.first()?, c))) {
        if change.what != "unit_removed" {
            continue;
        }
        let reports = reports_of(state, code);
        if reports > 0 {
            out.push(say(
                lang,
                format!("{code} 已有 {reports} 张报表，删除登记后不再计入：如已停业，请改填 closed"),
                format!("{code} has {reports} reports, which no longer count once it is taken out: if it has closed, give the date in `closed`"),
            ));
        }
        let agents = state.agents.values().filter(|agent| agent.revoked.is_none());
        let serves = |context: &u32| {
            let context = state.contexts.get(context);
            context.is_some_and(|context| context.facilities.iter().any(|f| f.as_str() == code))
        };
        let agents = agents.filter(|agent| serves(&agent.newest)).count();
        if agents > 0 {
            out.push(say(
                lang,
                format!("{code} 还有 {agents} 个终端在用"),
                format!("{code} still has {agents} agents"),
            ));
        }
    }
    for warning in organisation.warnings() {
        let table = texts_of.iter().find(|(table, _)| {
            let base = warning.file.rsplit(['/', '\\']).next().unwrap_or(&warning.file);
            table.file_name() == base
        });
        let Some((_, (was, is))) = table else { continue };
        let line = usize::try_from(warning.line).unwrap_or(usize::MAX).checked_sub(1);
        let line = line.and_then(|at| is.get(at));
        if line.is_some_and(|line| !was.contains(line)) {
            out.push(warning.text(lang));
        }
    }
    let left_out = out.len().saturating_sub(WARNINGS_MAX);
    out.truncate(WARNINGS_MAX);
    if left_out > 0 {
        out.push(say(lang, format!("另有 {left_out} 条"), format!("and {left_out} more")));
    }
    out
}

/// How many reports of a facility are counted.
fn reports_of(state: &State, code: &str) -> usize {
    let Some(facility) = code.parse::<UnitCode>().ok().and_then(|code| state.cube.facility(&code))
    else {
        return 0;
    };
    let of_form = |form: &crate::cube::FormStore| {
        let Some(slot) = form.slot(facility) else { return 0 };
        form.blocks().filter(|(_, block)| block.present(slot)).count()
    };
    state.cube.forms().iter().map(of_form).sum()
}

/// A later due time, or a waiver.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ExtendCall {
    /// The form.
    pub form: String,
    /// The unit at or below which it holds, by code or unique name.
    pub unit: String,
    /// The period or range.
    pub period: String,
    /// The local date-time until which the reports are on time; none waives them.
    pub due: Option<String>,
    /// Why.
    pub reason: String,
    /// Language of messages.
    pub lang: Lang,
}

/// What an extension or waiver did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExtendReport {
    /// The form.
    pub form: String,
    /// The unit's code.
    pub unit: String,
    /// Its name.
    pub name: String,
    /// The period or range.
    pub period: String,
    /// The new due time, or `waived`.
    pub due: String,
    /// Why.
    pub reason: String,
    /// How many reports it covers.
    pub reports: usize,
    /// Completeness of the form there before.
    pub before: CompletenessFigure,
    /// And after.
    pub after: CompletenessFigure,
}

/// An extension found to be in order.
struct Extending {
    row: Extended,
    name: String,
    reports: usize,
    /// The act that put in force the catalogue and tables it was checked against.
    model: Position,
}

impl Service {
    /// Grants a later due time for the reports of a form at and below a unit, or waives them.
    ///
    /// # Errors
    /// [`super::Usage`] if form, unit, period or time is wrong or no report is due there, or what the disk
    /// says.
    pub async fn extend(self: &Arc<Self>, by: &str, call: ExtendCall) -> Result<ExtendReport> {
        let now = self.now();
        let lang = call.lang;
        let Extending { row, name, reports, model } = {
            let state = self.state.read();
            extending(&state, &self.plans.plans(&state), &call, now)?
        };
        let ask = CompletenessCall {
            unit: row.unit.to_string(),
            period: row.period.clone(),
            form: Some(row.form.to_string()),
            lang: call.lang,
            ..CompletenessCall::default()
        };
        let before = self.complete(&ask)?.completeness;
        let granted = row.clone();
        let build = move |state: &State| {
            // Everything was checked before its turn; only that it still holds is looked at here.
            if state.history.model_position() != model {
                return Err(usage(say(
                    lang,
                    "登记册或目录刚刚更新，请重试",
                    "the registry or catalogue has just changed: ask again",
                )));
            }
            Ok(vec![Act::Extended(vec![granted])])
        };
        self.act(by, Box::new(build)).await?;
        let after = self.complete(&ask)?.completeness;
        Ok(ExtendReport {
            form: row.form.to_string(),
            unit: row.unit.to_string(),
            name,
            period: row.period,
            due: row.due,
            reason: row.reason,
            reports,
            before,
            after,
        })
    }
}

/// Checks an extension against what is in force.
fn extending(state: &State, plans: &Plans, call: &ExtendCall, now: Millis) -> Result<Extending> {
    let lang = call.lang;
    let form_ix = state.catalogue.form(&call.form).ok_or_else(|| {
        let known: Vec<&str> = state.catalogue.forms.iter().map(|f| f.code.as_str()).collect();
        usage(say(
            lang,
            format!("没有报表 {}；可用：{}", call.form, known.join("、")),
            format!("there is no form {}; known: {}", call.form, known.join(", ")),
        ))
    })?;
    let form = &state.catalogue.forms[form_ix.at()];
    let unit = find_unit(state, &call.unit, now, lang)?;
    let reason = call.reason.trim();
    if reason.chars().count() > REASON_CHARS_MAX || reason.chars().any(char::is_control) {
        return Err(usage(say(
            lang,
            format!("原因不能超过 {REASON_CHARS_MAX} 字，也不能换行"),
            format!("a reason has at most {REASON_CHARS_MAX} characters and no line break"),
        )));
    }
    let mut row = Extended {
        form: form.code.clone(),
        unit: state.organisation.code(unit).clone(),
        period: call.period.trim().to_owned(),
        due: call.due.as_deref().map_or("waived", str::trim).to_owned(),
        reason: reason.to_owned(),
    };
    let read = read_extended(std::slice::from_ref(&row));
    let read = read.map_err(|errors| usage(texts(&errors, lang)))?;
    let [parsed] = &read[..] else {
        return Err(usage(say(
            lang,
            "统计期和截止时间各只能写一个，不能换行",
            "period and due are one value each, without a line break",
        )));
    };
    let span: Span = parsed.period;
    // What is read again at every start is what was understood, not what was typed.
    (row.period, row.due) = (span.to_string(), parsed.due.to_string());
    let periods = few_periods(span, form.period_type, lang)?;
    let Some(last) = periods.last() else {
        let of = form.period_type;
        return Err(usage(say(
            lang,
            format!("{span} 中没有报表 {} 的统计期（{of}）", form.code),
            format!("{span} holds no whole period of form {} ({of})", form.code),
        )));
    };
    if let ExtensionDue::At { date, .. } = parsed.due
        && date <= last.last_day()
    {
        return Err(usage(say(
            lang,
            format!("截止时间 {} 不晚于统计期最后一天 {}", row.due, last.last_day()),
            format!("due {} is not after the last day of the period, {}", row.due, last.last_day()),
        )));
    }
    let engine = Engine {
        catalogue: &state.catalogue,
        organisation: &state.organisation,
        cube: &state.cube,
        sites: &SiteStates::default(),
        plans,
    };
    let below = |code: &UnitCode, period: Period| {
        let at = state.organisation.unit(code.as_str());
        at.is_some_and(|at| {
            let day = state.organisation.duty_day(at, period).unwrap_or(period.last_day());
            state.organisation.path(at, day).contains(&unit)
        })
    };
    let covered = |period: &Period| {
        engine.owing(form_ix, *period).into_iter().filter(|code| below(code, *period)).count()
    };
    let reports: usize = periods.iter().map(covered).sum();
    if reports == 0 {
        return Err(usage(say(
            lang,
            format!("{} 及其下没有 {} {span} 的应报报表", row.unit, form.code),
            format!("no report {} {span} is due at {} or below it", form.code, row.unit),
        )));
    }
    let name = state.organisation.name_on(unit, state.catalogue.day_at(now), lang).to_owned();
    Ok(Extending { row, name, reports, model: state.history.model_position() })
}
