//! Commands about registry and catalogue: tables, due times, a new catalogue, claims of facilities.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use banyan_shared::catalogue::Lang;
use clap::{Args, Subcommand};
use serde_json::Value;

use super::{Global, given, show};
use crate::client::{Client, print_json};
use crate::http::Request;
use crate::query::{align, table};
use crate::service::{
    CatalogueChange, ClaimRow, DecideClaim, ExtendCall, ExtendReport, Format, ImportReport,
    ImportUnits, PublishCall, PublishReport, say, usage,
};

const IMPORT_EXAMPLES: &str = "\
示例 Examples:
  banyan-aggregator import-units members.csv                 预览 shows what changes and which figures move
  banyan-aggregator import-units units.csv members.csv --apply    生效 puts both in force as one act

每个文件整体替换原表 Each file replaces its table as a whole:
  units attributes networks members duties extensions calendar targets codes contacts (.csv)";

const EXTEND_EXAMPLES: &str = "\
示例 Examples:
  banyan-aggregator extend vc_daily 520502 2026-01-20..2026-01-22 --due \"2026-02-10 18:00\" --reason 大雪断网
  banyan-aggregator extend hosp_monthly 520502-RC1 2026-01 --due 2026-02-20";

const WAIVE_EXAMPLES: &str = "\
示例 Example:
  banyan-aggregator waive vc_daily 520502105 2026-02-16..2026-02-22 --reason 春节停诊";

const CHECK_EXAMPLES: &str = "\
示例 Example:
  banyan-aggregator catalogue check catalogue.toml";

const PUBLISH_EXAMPLES: &str = "\
示例 Examples:
  banyan-aggregator catalogue publish catalogue.toml --dry-run    只看变化 only shows what changes
  banyan-aggregator catalogue publish catalogue.toml              发布 puts it in force; agents get it by themselves";

/// Most changes, warnings and figures in a table; JSON has all.
const SHOWN_MAX: usize = 200;

#[derive(Subcommand)]
pub(super) enum Command {
    /// 更新登记册 Replace tables of the registry (without --apply: only shows what would change)
    #[command(after_help = IMPORT_EXAMPLES)]
    ImportUnits(Import),
    /// 延长截止时间 Grant a later due time
    #[command(after_help = EXTEND_EXAMPLES)]
    Extend(Extend),
    /// 免报 Waive reports: they are not expected
    #[command(after_help = WAIVE_EXAMPLES)]
    Waive(Waive),
}

#[derive(Args)]
pub(super) struct Import {
    /// The tables: units.csv, members.csv, …
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// Put them in force
    #[arg(long)]
    apply: bool,
}

#[derive(Args)]
pub(super) struct Extend {
    /// The form
    form: String,
    /// The unit: a facility, or all below a place
    unit: String,
    /// The period or range
    period: String,
    /// The new due time, local: "2026-02-10 18:00", or a day for its last minute
    #[arg(long)]
    due: String,
    /// Why
    #[arg(long, default_value = "")]
    reason: String,
}

#[derive(Args)]
pub(super) struct Waive {
    /// The form
    form: String,
    /// The unit: a facility, or all below a place
    unit: String,
    /// The period or range
    period: String,
    /// Why
    #[arg(long, default_value = "")]
    reason: String,
}

#[derive(Subcommand)]
pub(super) enum Catalogue {
    /// 检查 List every error of a catalogue file
    #[command(after_help = CHECK_EXAMPLES)]
    Check {
        /// The file
        file: PathBuf,
    },
    /// 发布 Put a catalogue in force for every agent
    #[command(after_help = PUBLISH_EXAMPLES)]
    Publish {
        /// The file
        file: PathBuf,
        /// Only show what changes
        #[arg(long)]
        dry_run: bool,
    },
}

/// What is done about claims.
#[derive(Clone, Copy)]
pub(super) struct Claims<'a> {
    pub(super) approve: Option<&'a str>,
    pub(super) refuse: Option<&'a str>,
    pub(super) beside: bool,
}

pub(super) fn run(command: Command, global: &Global, client: &Client) -> Result<ExitCode> {
    match command {
        Command::ImportUnits(import) => import_units(&import, global, client)?,
        Command::Extend(extend) => {
            let Extend { form, unit, period, due, reason } = extend;
            let call = ExtendCall { form, unit, period, due: Some(due), reason, lang: global.lang };
            extended(client, call, global)?;
        }
        Command::Waive(waive) => {
            let Waive { form, unit, period, reason } = waive;
            let call = ExtendCall { form, unit, period, due: None, reason, lang: global.lang };
            extended(client, call, global)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn print_rows(columns: &[&str], rows: &[Vec<String>], numbers: &[usize]) {
    let mut out = table(columns);
    for row in rows {
        out.add_row(row);
    }
    align(&mut out, numbers.iter().copied());
    let _ = writeln!(std::io::stdout(), "{}", out.trim_fmt());
}

fn csv_rows(columns: &[&str], rows: &[Vec<String>]) -> Result<()> {
    let mut writer = csv::Writer::from_writer(std::io::stdout());
    writer.write_record(columns)?;
    for row in rows {
        writer.write_record(row)?;
    }
    writer.flush()?;
    Ok(())
}

/// Prints the first lines of a list, and how many more there are.
fn print_lines(lines: impl ExactSizeIterator<Item = String>, left_out: usize, lang: Lang) {
    let more = lines.len().saturating_sub(SHOWN_MAX) + left_out;
    for line in lines.take(SHOWN_MAX) {
        let _ = writeln!(std::io::stdout(), "  {line}");
    }
    if more > 0 {
        eprintln!(
            "{}",
            say(
                lang,
                format!("  另有 {more} 项（--format json 有全部）"),
                format!("  and {more} more (all with --format json)")
            )
        );
    }
}

fn import_units(import: &Import, global: &Global, client: &Client) -> Result<()> {
    let lang = global.lang;
    let tables = import.files.iter().map(|file| given(file)).collect::<Result<Vec<_>>>()?;
    let ask = |months: Vec<String>, apply: bool| {
        let call = ImportUnits { tables: tables.clone(), apply, months: Some(months), lang };
        client.call::<ImportReport>(&Request::ImportUnits(call))
    };
    // First what changes; then the figures month by month, which takes its time in a province.
    let mut report = ask(Vec::new(), import.apply)?;
    if !import.apply && !report.changes.is_empty() {
        let months = report.months.clone();
        for (at, month) in months.iter().enumerate() {
            eprint!("\r{} {}/{} {month}", say(lang, "比较", "comparing"), at + 1, months.len());
            let part = ask(vec![month.clone()], false)?;
            report.figures.extend(part.figures);
            report.duties.extend(part.duties);
        }
        if !months.is_empty() {
            eprintln!();
        }
    }
    let number = |n: Option<f64>| n.map_or_else(String::new, |n| n.to_string());
    let figures: Vec<Vec<String>> = report
        .figures
        .iter()
        .map(|moved| {
            vec![
                moved.period.clone(),
                moved.membership.clone(),
                moved.unit.clone(),
                moved.name.clone(),
                moved.item.clone(),
                number(moved.before),
                number(moved.after),
            ]
        })
        .collect();
    let columns = ["period", "membership", "unit", "name", "item", "before", "after"];
    match global.format {
        Format::Json => return print_json(&report),
        Format::Csv => return csv_rows(&columns, &figures),
        Format::Table => {}
    }
    for (table, (added, gone)) in &report.tables {
        let _ = writeln!(std::io::stdout(), "{table}: +{added} -{gone}");
    }
    let changes = report.changes.iter().map(|change| change.text(lang));
    print_lines(changes, report.changes_left_out, lang);
    for warning in &report.warnings {
        eprintln!("{}: {warning}", say(lang, "警告", "warning"));
    }
    for moved in &report.duties {
        let text = say(
            lang,
            format!(
                "{} {}：新增应报 {}，减少应报 {}",
                moved.period, moved.form, moved.appear, moved.vanish
            ),
            format!(
                "{} {}: {} reports become due, {} are no longer due",
                moved.period, moved.form, moved.appear, moved.vanish
            ),
        );
        let _ = writeln!(std::io::stdout(), "{text}");
    }
    if !figures.is_empty() {
        print_rows(&columns, &figures[..figures.len().min(SHOWN_MAX)], &[5, 6]);
        let more = figures.len().saturating_sub(SHOWN_MAX);
        if more > 0 {
            eprintln!(
                "{}",
                say(
                    lang,
                    format!("另有 {more} 个指标值变化（--format json 有全部）"),
                    format!("and {more} more figures (all with --format json)")
                )
            );
        }
    }
    if report.places_left_out > 0 {
        let n = report.places_left_out;
        eprintln!(
            "{}",
            say(
                lang,
                format!("另有 {n} 个区划或网络未比较"),
                format!("{n} more places were not compared")
            )
        );
    }
    let done = if report.applied {
        say(
            lang,
            format!("已生效，释放暂存 {} 条", report.released),
            format!("in force; {} parked entries released", report.released),
        )
    } else {
        say(
            lang,
            format!("仅预览（将释放暂存 {} 条），加 --apply 生效", report.released),
            format!(
                "only a preview ({} parked entries would be released): add --apply to put it in force",
                report.released
            ),
        )
    };
    eprintln!("{done}");
    Ok(())
}

fn extended(client: &Client, call: ExtendCall, global: &Global) -> Result<()> {
    let lang = global.lang;
    let report: ExtendReport = client.call(&Request::Extend(call))?;
    let part = |what: &str, one: &crate::query::CompletenessFigure| {
        let mut row = vec![what.to_owned()];
        row.extend(
            [one.expected, one.on_time, one.late, one.not_yet_due, one.missing]
                .iter()
                .map(ToString::to_string),
        );
        row
    };
    let rows = [part("before", &report.before), part("after", &report.after)];
    let columns = ["", "expected", "on_time", "late", "not_yet_due", "missing"];
    match global.format {
        Format::Json => print_json(&report),
        Format::Csv => csv_rows(&columns, &rows),
        Format::Table => {
            let due = if report.due == "waived" {
                say(lang, "免报", "waived")
            } else {
                say(lang, format!("延至 {}", report.due), format!("due {}", report.due))
            };
            let _ = writeln!(
                std::io::stdout(),
                "{} {} {} {}: {due} ({})",
                report.form,
                report.unit,
                report.name,
                report.period,
                say(
                    lang,
                    format!("{} 张报表", report.reports),
                    format!("{} reports", report.reports)
                ),
            );
            print_rows(&columns, &rows, &[1, 2, 3, 4, 5]);
            Ok(())
        }
    }
}

/// Publishes a catalogue, or shows what that would do.
pub(super) fn publish(
    file: &Path,
    dry_run: bool,
    global: &Global,
    client: &Client,
) -> Result<ExitCode> {
    let lang = global.lang;
    let toml = std::fs::read(file).with_context(|| format!("reading {}", file.display()))?;
    let toml = data_encoding::BASE64.encode(&toml);
    let call = PublishCall { toml, dry_run, lang };
    let report: PublishReport = client.call(&Request::Publish(call))?;
    let rows: Vec<Vec<String>> = report
        .changes
        .iter()
        .map(|change| {
            let CatalogueChange { what, list, code, key, before, after } = change.clone();
            let text = |part: Option<String>| part.unwrap_or_default();
            vec![what, list, code, text(key), text(before), text(after)]
        })
        .collect();
    match global.format {
        Format::Json => print_json(&report)?,
        Format::Csv => csv_rows(&["what", "list", "code", "key", "before", "after"], &rows)?,
        Format::Table => {
            let _ = writeln!(std::io::stdout(), "{} → {}", report.from, report.version);
            print_lines(report.changes.iter().map(CatalogueChange::text), 0, lang);
        }
    }
    for warning in &report.warnings {
        eprintln!("{}: {warning}", say(lang, "警告", "warning"));
    }
    let agents = report.agents;
    let done = if report.published {
        say(
            lang,
            format!("已发布 {}；{agents} 个终端下次联系时自动更新", report.version),
            format!(
                "{} is in force; {agents} agents get it with their next message",
                report.version
            ),
        )
    } else if report.agents == 0 && report.changes.is_empty() {
        say(lang, "这份目录已在使用", "this catalogue is in force already")
    } else {
        say(
            lang,
            "仅预览，去掉 --dry-run 即发布",
            "only a preview: leave out --dry-run to publish it",
        )
    };
    eprintln!("{done}");
    Ok(ExitCode::SUCCESS)
}

/// Lists claims, or decides one.
pub(super) fn claims(claims: Claims<'_>, global: &Global, client: &Client) -> Result<()> {
    let lang = global.lang;
    let decided = match (claims.approve, claims.refuse) {
        (Some(""), None) => {
            return Err(usage(say(
                lang,
                "请给出终端：enroll --claims --approve 终端号",
                "name the agent: enroll --claims --approve AGENT",
            )));
        }
        (Some(agent), None) => Some((agent, true)),
        (None, Some(agent)) => Some((agent, false)),
        _ => None,
    };
    let Some((agent, approve)) = decided else {
        let answer: Value = client.json(&Request::Claims { lang })?;
        let columns =
            ["state", "agent", "facility", "name", "claimed_at", "holder", "holder_last_receipt"];
        return show(&answer, "claims", global.format, &columns);
    };
    let call = DecideClaim { agent: agent.to_owned(), approve, beside: claims.beside, lang };
    let row: ClaimRow = client.call(&Request::DecideClaim(call))?;
    if global.format == Format::Json {
        return print_json(&row);
    }
    let text = if approve {
        say(
            lang,
            format!("已核准：终端 {} 负责 {} {}", row.agent, row.facility, row.name),
            format!("approved: agent {} has {} {}", row.agent, row.facility, row.name),
        )
    } else {
        say(
            lang,
            format!("已拒绝：终端 {} 认领 {}", row.agent, row.facility),
            format!("refused: agent {} and {}", row.agent, row.facility),
        )
    };
    let _ = writeln!(std::io::stdout(), "{text}");
    Ok(())
}
