//! `import`: a file of counts, long or wide. Good rows are saved, refused ones go to a file beside the input.
//!
//! Twice the same file changes nothing the second time: what says what is known already is not saved again.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use banyan_shared::input::{CountsFile, CountsReport, Enrolled, Reading, RefusedRow, read_counts};
use banyan_shared::period::{Date, Period};
use banyan_shared::report::{How, Value};
use banyan_shared::tables::{Fault, RowError, read_open_table};

use super::args::{Empty, Format, Import};
use super::{Agent, Exit, Ui, err_line, show};
use crate::capture::value;
use crate::command::{Command, Draft, Refused, Reply};
use crate::identity::{Context, Identity};
use crate::note::{Note, note};

/// Reports saved at one stroke: each stroke is one wait for the disk.
const CHUNK: usize = 200;
/// Largest file read, in bytes; the tables' own limit is checked beyond it.
const FILE_BYTES_MAX: u64 = 256 << 20;

/// What came of a file.
#[derive(Debug, Default, serde::Serialize)]
struct Summary {
    /// Reports that were new.
    new: usize,
    /// Reports that replaced earlier ones.
    replaced: usize,
    /// Reports that said what was known.
    unchanged: usize,
    /// Rows refused.
    refused_rows: usize,
    /// Where they are.
    error_file: Option<PathBuf>,
}

pub(crate) fn run(ui: &Ui, import: &Import) -> Exit {
    match whole(ui, import) {
        Ok(exit) => exit,
        Err(note) => {
            ui.tell(&note);
            Exit::Failed
        }
    }
}

fn whole(ui: &Ui, import: &Import) -> Result<Exit, Note> {
    let name = import.file.display().to_string();
    let failed = |error: std::io::Error| {
        note!(
            Error,
            "file",
            "{name}：{error}，请检查路径和权限",
            "{name}: {error}; check path and permissions"
        )
    };
    let bytes = crate::files::read(&import.file, FILE_BYTES_MAX)
        .map_err(failed)?
        .ok_or_else(|| failed(std::io::ErrorKind::NotFound.into()))?;
    let mut identity = Identity::open(&ui.data_dir)?.ok_or_else(crate::core::not_enrolled)?;
    let present = identity.present().ok_or_else(crate::core::enrolment_open)?;
    let context = identity.context(present)?;
    let enrolled = Enrolled::new(&context.facilities);
    // Whether a period is still to come is judged where it is saved, by the agent's knowledge of the clock.
    let reading = Reading {
        catalogue: &context.catalogue,
        enrolled: &enrolled,
        today: Date::MAX,
        clock_trusted: false,
    };
    let mut file = match read_counts(&bytes, &name, reading) {
        Ok(file) => file,
        Err(errors) => {
            for error in &errors {
                err_line(&error.text(ui.lang));
            }
            ui.say("文件未导入。", "Nothing was imported.");
            return Ok(Exit::Failed);
        }
    };
    for warning in &file.warnings {
        err_line(&warning.text(ui.lang));
    }
    let (mut summary, refused) = save(ui, import, &context, &file)?;
    add_refused(&mut file, &bytes, &name, &context, refused);
    for error in file.all_errors() {
        err_line(&error.text(ui.lang));
    }
    summary.refused_rows = file.refused.len();
    let beside = error_path(&import.file);
    match file.refused_csv(ui.lang) {
        Some(csv) => {
            crate::files::write(&beside, &csv, false).map_err(|error| {
                let shown = beside.display();
                note!(
                    Error,
                    "error_file",
                    "好的行已保存，但错误文件{shown}写不了：{error}",
                    "good rows were saved, but the error file {shown} cannot be written: {error}"
                )
            })?;
            summary.error_file = Some(beside);
        }
        // An older error file would speak of rows that are right now.
        None => drop(std::fs::remove_file(&beside)),
    }
    print(ui, &summary);
    let clean = summary.refused_rows == 0 && file.errors.is_empty();
    Ok(if clean { Exit::Done } else { Exit::Failed })
}

/// `counts.csv` → `counts.errors.csv`.
fn error_path(file: &Path) -> PathBuf {
    let mut name = file.file_stem().unwrap_or_default().to_owned();
    name.push(".errors.csv");
    file.with_file_name(name)
}

fn draft(report: &CountsReport, context: &Context, empty: Empty) -> Draft {
    let catalogue = &context.catalogue;
    let form = &catalogue.forms[report.form.at()];
    let values = report
        .cells
        .iter()
        .filter(|(_, value)| empty == Empty::Missing || *value != Value::Missing)
        .map(|(line, value)| {
            let element = &catalogue.elements[form.lines[*line].element.at()];
            (element.code.to_string(), value::show(*value))
        });
    Draft {
        facility: Some(report.facility.to_string()),
        form: form.code.to_string(),
        period: report.period.to_string(),
        values: values.collect(),
        how: Some(report.how.unwrap_or(How::Import)),
        reason: report.reason,
        by: report.entered_by.clone(),
        tag: report.line,
        ..Draft::default()
    }
}

/// Saves what was read, in chunks; gives what the agent's own checks refused, by first line.
fn save(
    ui: &Ui,
    import: &Import,
    context: &Context,
    file: &CountsFile,
) -> Result<(Summary, Vec<Refused>), Note> {
    let mut summary = Summary::default();
    let mut refused_all = Vec::new();
    if file.reports.is_empty() {
        return Ok((summary, refused_all));
    }
    let mut agent = Agent::reach(&ui.data_dir)?;
    let mut done = 0;
    for chunk in file.reports.chunks(CHUNK) {
        let drafts = chunk.iter().map(|report| draft(report, context, import.empty)).collect();
        match agent.ask(Command::Save { drafts, together: false }) {
            Reply::Saved { saved, refused } => {
                for one in &saved {
                    match (one.saved, one.replaced) {
                        (false, _) => summary.unchanged += 1,
                        (true, true) => summary.replaced += 1,
                        (true, false) => summary.new += 1,
                    }
                    for warning in one.warnings.iter().filter(|note| note.code != "incomplete") {
                        let (line, unit) = (one.tag, &one.facility);
                        ui.say(
                            &format!("第{line}行 {unit} {}", warning.text(ui.lang)),
                            &format!("line {line} {unit} {}", warning.text(ui.lang)),
                        );
                    }
                }
                refused_all.extend(refused);
            }
            Reply::Failed(note) => {
                let kept = done;
                ui.say(
                    &format!("前{kept}份报表已保存；排除故障后可再次导入同一文件。"),
                    &format!("The first {kept} reports are saved; import the same file again once mended."),
                );
                return Err(note);
            }
            _ => return Err(crate::core::other_version()),
        }
        done += chunk.len();
        if file.reports.len() > CHUNK {
            let all = file.reports.len();
            ui.say(&format!("已处理 {done}/{all}"), &format!("{done} of {all} done"));
        }
    }
    Ok((summary, refused_all))
}

/// Puts the rows of refused reports among the file's refused ones.
fn add_refused(
    file: &mut CountsFile,
    bytes: &[u8],
    name: &str,
    context: &Context,
    refused: Vec<Refused>,
) {
    if refused.is_empty() {
        return;
    }
    let Ok(table) = read_open_table(bytes, name, &["facility", "form", "period"]) else { return };
    let columns = ["facility", "form", "period"].map(|column| table.column(column));
    let faults: BTreeMap<u32, Vec<Note>> =
        refused.into_iter().map(|refused| (refused.tag, refused.faults)).collect();
    let mut wanted: HashMap<(&str, &str, Period), u32> = HashMap::new();
    for report in file.reports.iter().filter(|report| faults.contains_key(&report.line)) {
        let form = context.catalogue.forms[report.form.at()].code.as_str();
        wanted.insert((report.facility.as_str(), form, report.period), report.line);
    }
    let known: Vec<u32> = file.refused.iter().map(|row| row.line).collect();
    let mut more = Vec::new();
    for row in table.rows() {
        let [facility, form, period] = columns.map(|column| row.cell(column));
        let Ok(period) = period.parse::<Period>() else { continue };
        let Some(line) = wanted.get(&(facility, form, period)) else { continue };
        if known.contains(&row.line()) {
            continue;
        }
        let errors = faults[line].iter().map(|fault| {
            let code = fault_code(fault);
            RowError::new(
                (&table.file, row.line(), ""),
                "",
                code,
                fault.zh.clone(),
                fault.en.clone(),
            )
        });
        more.push(RefusedRow {
            line: row.line(),
            cells: row.cells().map(str::to_owned).collect(),
            errors: errors.collect(),
        });
    }
    file.refused.extend(more);
    file.refused.sort_by_key(|row| row.line);
}

/// The tables' code for a fault of the agent's own checks; broken rules are conflicts between values.
fn fault_code(fault: &Note) -> Fault {
    match fault.code.as_str() {
        "future_period" => Fault::FuturePeriod,
        "form_not_for_kind" => Fault::FormNotForKind,
        "bad_person" => Fault::BadChoice,
        "empty_report" | "partial_report" => Fault::Empty,
        _ => Fault::Conflict,
    }
}

fn print(ui: &Ui, summary: &Summary) {
    if ui.format == Format::Json {
        show::json(summary);
        return;
    }
    let file =
        summary.error_file.as_ref().map_or_else(|| "-".to_owned(), |f| f.display().to_string());
    let row = vec![
        summary.new.to_string(),
        summary.replaced.to_string(),
        summary.unchanged.to_string(),
        summary.refused_rows.to_string(),
        file,
    ];
    let header = match (ui.format, ui.lang) {
        (Format::Table, banyan_shared::catalogue::Lang::Zh) => {
            ["新增报表", "更正报表", "无变化", "被拒行数", "错误文件"]
        }
        _ => ["new", "replaced", "unchanged", "refused_rows", "error_file"],
    };
    show::rows(ui, &header, &[row]);
}
