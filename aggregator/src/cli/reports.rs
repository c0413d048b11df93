//! Commands about reports: corrections, withdrawals, returns, approvals, sign-offs and locks, counts from and
//! to files.

use std::collections::HashMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use banyan_shared::catalogue::Lang;
use banyan_shared::input::{RefusedRow, refused_csv};
use banyan_shared::period::Period;
use banyan_shared::tables::{ERRORS_MAX, RowError, Table, read_open_table};
use clap::{Args, Subcommand, ValueEnum};

use super::Global;
use crate::client::{Client, print_json};
use crate::http::Request;
use crate::service::{
    Change, ChangeCall, Changed, DecidedReport, DecisionCall, ExportCall, Exported, Format,
    ImportCall, Imported, StageCall, Staged, say, usage,
};

const CORRECT_EXAMPLES: &str = "\
示例 Examples:
  banyan-aggregator correct 520502105001-VC vc_daily 2026-01-05 total_visits=12 --reason typo
  banyan-aggregator correct 520502105001-VC vc_daily 2026-01-05 home_visits=NA tcm_visits= --reason recount
      NA 不适用 not applicable, 空 empty = 缺失 missing; elements not named keep their value

原因 Reasons: recount typo late_coding duplicate wrong_period wrong_facility returned other";

const WITHDRAW_EXAMPLES: &str = "\
示例 Example:
  banyan-aggregator withdraw 520502105001-VC vc_daily 2026-01-05 --reason wrong_facility

原因 Reasons: recount typo late_coding duplicate wrong_period wrong_facility returned other";

const IMPORT_EXAMPLES: &str = "\
示例 Examples:
  banyan-aggregator import csv counts-2025-01.csv --dry-run     只检查 only says what would happen
  banyan-aggregator import csv counts-2025-01.csv               导入 takes it in

文件 The file: facility,form,period,element,value + how,entered_by,reason  (long)
           or  facility,form,period,<element>,<element>,…               (wide)
被拒的行写入同目录 *.errors.csv，改正后可直接再导入。
Refused rows are written to *.errors.csv beside it; mended, that file can be imported as it is.";

const RETURN_EXAMPLES: &str = "\
示例 Example:
  banyan-aggregator return 520502105001-VC vc_daily 2026-01-05 --reason typo

退回后该报表不计入汇总，直至重新录入或 approve。
What is returned does not count until it is entered again, or approved.

原因 Reasons: recount typo late_coding duplicate wrong_period wrong_facility returned other";

const APPROVE_EXAMPLES: &str = "\
示例 Example:
  banyan-aggregator approve 520502105001-VC vc_daily 2026-01-05 --reason recount

原因 Reasons: recount typo late_coding duplicate wrong_period wrong_facility returned other";

const STAGE_EXAMPLES: &str = "\
示例 Examples:
  banyan-aggregator signoff 520502 vc_daily 2026-01     一个县一月的全部日报 a county's daily reports of a month
  banyan-aggregator lock 520502 thc_monthly 2026-01     之后的更改须 approve later versions wait for approve
  banyan-aggregator unlock 520502 thc_monthly 2026-01";

const EXPORT_EXAMPLES: &str = "\
示例 Examples:
  banyan-aggregator export csv 520502 2026-01 -o counts.csv                      每张报表 every report
  banyan-aggregator export csv 520502 2026-01 --level village_clinic -o vc.csv   只要村卫生室 one kind only
  banyan-aggregator export csv 52 2026-01 --level county -o counties.csv         按县合计 sums by county

格式 The file: facility,form,period,element,value,how,entered_by,reason；空 empty = 缺失 missing, NA 不适用
可用 import csv 读回 It can be read back by import csv.";

#[derive(Subcommand)]
pub(super) enum Command {
    /// 更正报表 Correct a report: values named change, the others stay
    #[command(after_help = CORRECT_EXAMPLES)]
    Correct(Correct),
    /// 撤回报表 Withdraw a report: everything returns to missing
    #[command(after_help = WITHDRAW_EXAMPLES)]
    Withdraw(Withdraw),
    /// 退回报表 Return a report for correction
    #[command(after_help = RETURN_EXAMPLES)]
    Return(Decide),
    /// 批准 Approve what waits: versions behind a lock, or returned
    #[command(after_help = APPROVE_EXAMPLES)]
    Approve(Decide),
    /// 签核 Sign off a form's reports of a unit or network: later changes restate the figures
    #[command(after_help = STAGE_EXAMPLES)]
    Signoff(StageArgs),
    /// 锁定 Lock a form's reports: later versions wait for an approval
    #[command(after_help = STAGE_EXAMPLES)]
    Lock(StageArgs),
    /// 解锁 Open a form's reports again
    #[command(after_help = STAGE_EXAMPLES)]
    Unlock(StageArgs),
    /// 导入数据文件 Take in counts from a file, past years too
    Import {
        #[command(subcommand)]
        command: Import,
    },
    /// 导出数据文件 Write the counts known to a file
    Export {
        #[command(subcommand)]
        command: Export,
    },
}

#[derive(Args)]
pub(super) struct Correct {
    /// The facility
    facility: String,
    /// The form
    form: String,
    /// The period
    period: String,
    /// What changes: ELEMENT=N, ELEMENT=NA or ELEMENT= (missing)
    #[arg(required = true)]
    values: Vec<String>,
    /// Why
    #[arg(long)]
    reason: String,
    /// Save it against a rule: verified, unusual, source
    #[arg(long = "override", value_name = "CODE")]
    override_code: Option<String>,
    /// Whose decision it is, by staff code
    #[arg(long, value_name = "PERSON")]
    by: Option<String>,
}

#[derive(Args)]
pub(super) struct Withdraw {
    /// The facility
    facility: String,
    /// The form
    form: String,
    /// The period
    period: String,
    /// Why
    #[arg(long)]
    reason: String,
    /// Whose decision it is, by staff code
    #[arg(long, value_name = "PERSON")]
    by: Option<String>,
}

#[derive(Args)]
pub(super) struct Decide {
    /// The facility
    facility: String,
    /// The form
    form: String,
    /// The period
    period: String,
    /// Why
    #[arg(long)]
    reason: String,
    /// Whose decision it is, by staff code
    #[arg(long, value_name = "PERSON")]
    by: Option<String>,
}

impl Decide {
    fn call(self, lang: Lang) -> DecisionCall {
        let Decide { facility, form, period, reason, by } = self;
        DecisionCall { facility, form, period, reason, by, lang }
    }
}

#[derive(Args)]
pub(super) struct StageArgs {
    /// A unit or network, by code or unique name
    unit: String,
    /// The form
    form: String,
    /// The period or range: every period of the form that lies whole in it
    period: String,
    /// Whose decision it is, by staff code
    #[arg(long, value_name = "PERSON")]
    by: Option<String>,
}

impl StageArgs {
    fn call(self, lang: Lang) -> StageCall {
        let StageArgs { unit, form, period, by } = self;
        StageCall { unit, form, period, by, lang }
    }
}

#[derive(Subcommand)]
pub(super) enum Import {
    /// CSV 文件 A CSV file of counts, long or wide
    #[command(after_help = IMPORT_EXAMPLES)]
    Csv(ImportCsv),
}

#[derive(Args)]
pub(super) struct ImportCsv {
    /// The file
    file: PathBuf,
    /// Only say what would happen
    #[arg(long)]
    dry_run: bool,
    /// What an empty cell does to an earlier value
    #[arg(long, value_enum, default_value_t = Empty::Keep)]
    empty: Empty,
}

#[derive(Subcommand)]
pub(super) enum Export {
    /// CSV 文件 A CSV file, a row a value
    #[command(after_help = EXPORT_EXAMPLES)]
    Csv(ExportCsv),
}

#[derive(Args)]
pub(super) struct ExportCsv {
    /// A unit or network, by code or unique name
    unit: String,
    /// The period, for example 2026-01, 2026Q1, 2026-01..2026-03
    period: String,
    /// The file to write
    #[arg(short, long)]
    output: PathBuf,
    /// facility, a kind of facility, or an administrative kind (sums)
    #[arg(long, value_name = "facility|KIND")]
    level: Option<String>,
    /// For the public: small numbers stand as `*`, and who entered what is left out
    #[arg(long)]
    public: bool,
    /// As known at this time (RFC 3339)
    #[arg(long)]
    as_of: Option<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Empty {
    /// Leaves it as it was
    Keep,
    /// Makes it missing
    Missing,
}

pub(super) fn run(command: Command, global: &Global, client: &Client) -> Result<ExitCode> {
    let lang = global.lang;
    match command {
        Command::Correct(args) => {
            let call = ChangeCall {
                facility: args.facility,
                form: args.form,
                period: args.period,
                values: args.values,
                reason: args.reason,
                override_code: args.override_code,
                by: args.by,
                lang,
            };
            print_changed(&client.call(&Request::Correct(call))?, global)?;
        }
        Command::Withdraw(args) => {
            let call = ChangeCall {
                facility: args.facility,
                form: args.form,
                period: args.period,
                reason: args.reason,
                by: args.by,
                lang,
                ..ChangeCall::default()
            };
            print_changed(&client.call(&Request::Withdraw(call))?, global)?;
        }
        Command::Return(args) => {
            print_decided(&client.call(&Request::Return(args.call(lang)))?, global)?;
        }
        Command::Approve(args) => {
            print_decided(&client.call(&Request::Approve(args.call(lang)))?, global)?;
        }
        Command::Signoff(args) => {
            print_staged(&client.call(&Request::Signoff(args.call(lang)))?, global)?;
        }
        Command::Lock(args) => {
            print_staged(&client.call(&Request::Lock(args.call(lang)))?, global)?;
        }
        Command::Unlock(args) => {
            print_staged(&client.call(&Request::Unlock(args.call(lang)))?, global)?;
        }
        Command::Import { command: Import::Csv(args) } => return import(&args, global, client),
        Command::Export { command: Export::Csv(args) } => export(args, global, client)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// The changes of a report, with what it is about.
fn print_changes(heading: [&str; 4], changes: &[Change], global: &Global) -> Result<()> {
    let lang = global.lang;
    if global.format == Format::Csv {
        let mut writer = csv::Writer::from_writer(std::io::stdout());
        writer.write_record(["element", "before", "after"])?;
        for change in changes {
            let (before, after) = (change.before.to_string(), change.after.to_string());
            writer.write_record([&change.element, &before, &after])?;
        }
        writer.flush()?;
        return Ok(());
    }
    let [facility, name, form, period] = heading;
    tell!("{facility} {name}  {form}  {period}");
    let columns =
        [say(lang, "数据元", "element"), say(lang, "原值", "before"), say(lang, "现值", "after")];
    let mut table = crate::query::table(&columns.each_ref().map(String::as_str));
    for change in changes {
        table.add_row([
            format!("{} {}", change.name, change.element),
            change.before.to_string(),
            change.after.to_string(),
        ]);
    }
    crate::query::align(&mut table, [1, 2]);
    if !changes.is_empty() {
        tell!("{}", table.trim_fmt());
    }
    Ok(())
}

fn print_decided(decided: &DecidedReport, global: &Global) -> Result<()> {
    if global.format == Format::Json {
        return print_json(decided);
    }
    let DecidedReport { facility, name, form, period, .. } = decided;
    print_changes([facility, name, form, period], &decided.changes, global)?;
    let (n, lang) = (decided.versions.len(), global.lang);
    let text = if decided.decision == "returned" {
        say(
            lang,
            format!(
                "已退回 {n} 个版本；重新录入或批准后计入汇总。各终端暂不会收到通知，请告知该机构。"
            ),
            format!(
                "{n} versions returned; nothing counts until it is entered again or approved. Agents are not told yet: tell the facility."
            ),
        )
    } else {
        say(lang, format!("已批准 {n} 个版本。"), format!("{n} versions approved."))
    };
    eprintln!("{text}");
    Ok(())
}

fn print_staged(staged: &Staged, global: &Global) -> Result<()> {
    let lang = global.lang;
    let Staged { unit, form, period, stage, saved, covered, answered, pending } = staged;
    match global.format {
        Format::Json => return print_json(staged),
        Format::Csv => {
            let mut writer = csv::Writer::from_writer(std::io::stdout());
            writer.write_record([
                "unit", "form", "period", "stage", "saved", "covered", "answered", "pending",
            ])?;
            let numbers = [covered.to_string(), answered.to_string(), pending.to_string()];
            let [covered, answered, pending] = &numbers;
            let saved = saved.to_string();
            writer.write_record([unit, form, period, stage, &saved, covered, answered, pending])?;
            writer.flush()?;
        }
        Format::Table => tell!(
            "{}",
            say(
                lang,
                format!(
                    "{unit}  {form}  {period}：{covered} 张报表，其中已报 {answered}，待批准版本 {pending}"
                ),
                format!(
                    "{unit}  {form}  {period}: {covered} reports, {answered} answered, {pending} versions await approval"
                ),
            )
        ),
    }
    let text = match (saved, stage.as_str()) {
        (false, _) => say(
            lang,
            "全部已处于该状态，未作更改。",
            "All of it is there already; nothing was stored.",
        ),
        (true, "signed") => say(lang, "已签核。", "Signed off."),
        (true, "locked") => say(
            lang,
            "已锁定：此后的版本须 approve 才计入。",
            "Locked: later versions count once approved.",
        ),
        (true, _) => say(lang, "已解锁。", "Opened again."),
    };
    eprintln!("{text}");
    Ok(())
}

fn print_changed(changed: &Changed, global: &Global) -> Result<()> {
    let lang = global.lang;
    if global.format == Format::Json {
        return print_json(changed);
    }
    let Changed { facility, name, form, period, .. } = changed;
    print_changes([facility, name, form, period], &changed.changes, global)?;
    for warning in &changed.warnings {
        eprintln!("{}{warning}", say(lang, "提示：", "warning: "));
    }
    for replaced in &changed.replaced {
        let by = replaced.entered_by.as_deref().unwrap_or("-");
        let (version, how, at) = (&replaced.version, &replaced.how, &replaced.received_at);
        eprintln!(
            "{}",
            say(
                lang,
                format!("取代版本 {version}（{how}，{by}，{at}）"),
                format!("replaces version {version} ({how}, {by}, {at})"),
            )
        );
    }
    let done = match (changed.saved, changed.withdrawn, changed.pending) {
        (false, _, _) => {
            say(lang, "与现有数据相同，未作更改。", "Nothing changes; nothing was stored.")
        }
        (true, _, true) => say(
            lang,
            "已保存；该统计期已锁定，批准（approve）后生效。",
            "Stored; the period is locked: it counts once approved (approve).",
        ),
        (true, true, false) => say(lang, "已撤回。", "Withdrawn."),
        (true, false, false) => say(lang, "已更正。", "Corrected."),
    };
    eprintln!("{done}");
    Ok(())
}

fn export(args: ExportCsv, global: &Global, client: &Client) -> Result<()> {
    let lang = global.lang;
    let path = std::path::absolute(&args.output)?.display().to_string();
    let ExportCsv { unit, period, level, public, as_of, .. } = args;
    let call = ExportCall { unit, period, level, public, as_of, path, lang };
    let written: Exported = client.call(&Request::ExportCounts(call))?;
    if global.format == Format::Json {
        return print_json(&written);
    }
    if public && written.sites {
        eprintln!(
            "{}",
            say(
                lang,
                "单个机构的数据依《统计法》属内部资料：对外发布请用 --level 汇总",
                "figures of single sites are internal by law: publish sums with --level",
            )
        );
    }
    if written.withheld > 0 {
        let n = written.withheld;
        eprintln!(
            "{}",
            say(lang, format!("隐藏小数 {n} 个（*）"), format!("{n} small numbers withheld (*)"))
        );
    }
    if !written.not_additive.is_empty() {
        let list = written.not_additive.join(", ");
        eprintln!(
            "{}",
            say(
                lang,
                format!("不能跨机构相加，未列出：{list}"),
                format!("left out, since they cannot be added over facilities: {list}"),
            )
        );
    }
    if written.themselves > 0 {
        let n = written.themselves;
        eprintln!(
            "{}",
            say(
                lang,
                format!("{n} 个机构不在该级区划之下，按本机构列出"),
                format!("{n} facilities are below no such unit and stand for themselves"),
            )
        );
    }
    let Exported { reports, rows, path, .. } = &written;
    eprintln!(
        "{}",
        say(
            lang,
            format!("{reports} 张报表，{rows} 行 → {path}"),
            format!("{reports} reports, {rows} rows → {path}"),
        )
    );
    tell!("{path}");
    Ok(())
}

/// Rows in one request, at most; all rows of a report go together.
const PART_ROWS: usize = 20_000;
/// Cells in one request, at most: a wide file's rows are long.
const PART_CELLS: usize = 400_000;

/// A file on its way, in parts.
struct Parts<'t> {
    table: &'t Table,
    /// Rows by report, in order of their first lines.
    groups: Vec<Vec<usize>>,
}

impl Parts<'_> {
    fn of(table: &Table) -> Parts<'_> {
        let columns = ["facility", "form", "period"].map(|name| table.column(name));
        let mut places: HashMap<(&str, &str, String), usize> = HashMap::new();
        let mut groups: Vec<Vec<usize>> = Vec::new();
        for (at, row) in table.rows().enumerate() {
            let [facility, form, period] = columns.map(|column| row.cell(column));
            // One period may be written in two ways.
            let period = period
                .parse::<Period>()
                .map_or_else(|_| period.to_owned(), |period| period.to_string());
            let place = *places.entry((facility, form, period)).or_insert_with(|| {
                groups.push(Vec::new());
                groups.len() - 1
            });
            groups[place].push(at);
        }
        Parts { table, groups }
    }

    /// The rows of each part.
    fn rows(self) -> impl Iterator<Item = Vec<(u32, Vec<String>)>> {
        let most = PART_ROWS.min(PART_CELLS / self.table.header.len().max(1)).max(1);
        let rows: Vec<_> = self.table.rows().collect();
        let mut groups = self.groups.into_iter().peekable();
        std::iter::from_fn(move || {
            let mut part: Vec<usize> = groups.next()?;
            while let Some(more) = groups.next_if(|group| part.len() + group.len() <= most) {
                part.extend(more);
            }
            let row = |at: usize| (rows[at].line(), rows[at].cells().map(str::to_owned).collect());
            Some(part.into_iter().map(row).collect())
        })
    }
}

fn import(args: &ImportCsv, global: &Global, client: &Client) -> Result<ExitCode> {
    let lang = global.lang;
    let file = args.file.display().to_string();
    let bytes = std::fs::read(&args.file).with_context(|| format!("reading {file}"))?;
    let table = read_open_table(&bytes, &file, &["facility", "form", "period"])
        .map_err(|errors| usage(texts(&errors, lang)))?;
    drop(bytes);
    let (all, mut done) = (table.len(), 0);
    let mut whole = Imported::default();
    for rows in Parts::of(&table).rows() {
        let rows_here = rows.len();
        let call = ImportCall {
            file: file.clone(),
            header: table.header.clone(),
            rows,
            empty_missing: args.empty == Empty::Missing,
            dry_run: args.dry_run,
            lang,
        };
        let part = client.call(&Request::ImportCounts(call)).inspect_err(|_| {
            if done > 0 && !args.dry_run {
                eprintln!(
                    "\n{}",
                    say(
                        lang,
                        format!("前 {done} 行已导入；排除故障后可再次导入同一文件，已导入的不会重复。"),
                        format!("{done} rows are in; import the same file again once mended, nothing is taken twice."),
                    )
                );
            }
        })?;
        whole.merge(part);
        done += rows_here;
        if all > PART_ROWS {
            eprint!("\r{done}/{all}");
        }
    }
    if all > PART_ROWS {
        eprintln!();
    }
    let stray = add_misshapen(&table, &mut whole);
    let error_file = write_refused(args, &table, &whole, lang)?;
    print_imported(&whole, &stray, error_file.as_deref(), args, global)?;
    let clean = whole.refused.is_empty() && stray.is_empty();
    Ok(if clean { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn texts(errors: &[RowError], lang: Lang) -> String {
    errors.iter().map(|error| error.text(lang)).collect::<Vec<_>>().join("\n")
}

/// Puts the rows that do not fit the header among the refused; gives the errors that are no row's.
fn add_misshapen(table: &Table, whole: &mut Imported) -> Vec<RowError> {
    let mut errors: HashMap<u32, Vec<RowError>> = HashMap::new();
    for error in &table.errors {
        errors.entry(error.line).or_default().push(error.clone());
    }
    for (line, cells) in &table.refused {
        let errors = errors.remove(line).unwrap_or_default();
        whole.refused.push(RefusedRow { line: *line, cells: cells.clone(), errors });
    }
    whole.refused.sort_by_key(|row| row.line);
    let mut stray: Vec<RowError> = errors.into_values().flatten().collect();
    stray.sort_by_key(|error| error.line);
    stray
}

/// Writes the refused rows to `counts.errors.csv` beside `counts.csv`, or takes an older such file away.
fn write_refused(
    args: &ImportCsv,
    table: &Table,
    whole: &Imported,
    lang: Lang,
) -> Result<Option<PathBuf>> {
    if args.dry_run {
        return Ok(None);
    }
    let mut name = args.file.file_stem().unwrap_or_default().to_owned();
    name.push(".errors.csv");
    let beside = args.file.with_file_name(name);
    if whole.refused.is_empty() {
        // An older one would speak of rows that are right now.
        match std::fs::remove_file(&beside) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("removing {}", beside.display()));
            }
            _ => return Ok(None),
        }
    }
    let csv = refused_csv(&table.header, &whole.refused, lang);
    std::fs::write(&beside, csv).with_context(|| format!("writing {}", beside.display()))?;
    Ok(Some(beside))
}

/// Errors and warnings shown on the screen; the error file has all of them.
const SHOWN_MAX: usize = 20;

fn print_imported(
    whole: &Imported,
    stray: &[RowError],
    error_file: Option<&Path>,
    args: &ImportCsv,
    global: &Global,
) -> Result<()> {
    let lang = global.lang;
    let refused = || whole.refused.iter().flat_map(|row| &row.errors).chain(stray);
    let lines: Vec<String> = refused()
        .take(ERRORS_MAX)
        .chain(&whole.warnings)
        .map(|error| error.text(lang))
        .chain(whole.examples.iter().cloned())
        .collect();
    for line in lines.iter().take(SHOWN_MAX) {
        eprintln!("{line}");
    }
    if lines.len() > SHOWN_MAX {
        let more = lines.len() - SHOWN_MAX;
        eprintln!("{}", say(lang, format!("……另有 {more} 条"), format!("… and {more} more")));
    }
    for (code, broken) in &whole.broken {
        let (text, reports, line) = (&broken.text, broken.reports, broken.line);
        eprintln!(
            "{}",
            say(
                lang,
                format!("提示 {code}：{reports} 张报表不符（首见第{line}行）：{text}"),
                format!(
                    "warning {code}: {reports} reports do not fulfil it (first on line {line}): {text}"
                ),
            )
        );
    }
    let file = error_file.map(|path| path.display().to_string());
    let sums = [
        ("new", "新增报表", whole.new),
        ("replaced", "更改报表", whole.replaced),
        ("unchanged", "无变化", whole.unchanged),
        ("not_counted", "其中不计入", whole.not_counted),
        ("pending", "其中待批准", whole.pending),
        ("refused_rows", "被拒行数", whole.refused.len() as u64),
    ];
    match global.format {
        Format::Json => {
            let mut object: serde_json::Map<String, serde_json::Value> =
                sums.iter().map(|(name, _, n)| ((*name).to_owned(), (*n).into())).collect();
            object.insert("dry_run".into(), args.dry_run.into());
            object.insert("error_file".into(), file.into());
            object.insert("broken".into(), serde_json::to_value(&whole.broken)?);
            return print_json(&object);
        }
        Format::Csv => {
            let mut writer = csv::Writer::from_writer(std::io::stdout());
            writer.write_record(sums.iter().map(|(name, _, _)| *name).chain(["error_file"]))?;
            let numbers = sums.iter().map(|(_, _, n)| n.to_string());
            writer.write_record(numbers.chain([file.unwrap_or_default()]))?;
            writer.flush()?;
        }
        Format::Table => {
            let names: Vec<&str> =
                sums.iter().map(|(en, zh, _)| if lang == Lang::Zh { *zh } else { *en }).collect();
            let mut table = crate::query::table(&names);
            table.add_row(sums.iter().map(|(_, _, n)| n.to_string()));
            crate::query::align(&mut table, 0..sums.len());
            tell!("{}", table.trim_fmt());
            if let Some(file) = file {
                eprintln!(
                    "{}",
                    say(
                        lang,
                        format!("被拒的行在 {file}，改正后可直接再导入。"),
                        format!("Refused rows are in {file}; mended, it can be imported as it is."),
                    )
                );
            }
        }
    }
    let stored = whole.new + whole.replaced;
    let text = match (args.dry_run, stored) {
        (true, _) => say(
            lang,
            "仅预览，去掉 --dry-run 即导入。",
            "Only a preview: leave out --dry-run to take it in.",
        ),
        (false, 0) => say(lang, "没有新的内容，未作更改。", "Nothing new: nothing changes."),
        (false, n) => say(lang, format!("已导入 {n} 张报表。"), format!("{n} reports taken in.")),
    };
    eprintln!("{text}");
    Ok(())
}
