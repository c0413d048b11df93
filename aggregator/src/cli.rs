//! The command line of `banyan-aggregator`: arguments in, one request, its answer printed.

use std::io::{IsTerminal, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use banyan_shared::address::MqttAddress;
use banyan_shared::catalogue::{Catalogue, Lang};
use banyan_shared::ids::Millis;
use clap::{Args, Parser, Subcommand};
use serde_json::Value;

use crate::client::{Client, Late, print_json};
use crate::http::Request;
use crate::ledger::BackupSummary;
use crate::serve::{
    BrokerAt, HTTP_ADDR_DEFAULT, HttpTls, MQTT_ADDR_DEFAULT, MqttListen, ServeOptions,
};
use crate::service::{
    AnomaliesCall, CompletenessCall, EnrolOne, Format, GivenTable, QueryCall, ReportCall, Usage,
    VerifyReport, say,
};

/// Prints a line; a reader that has gone away (`| head`) is no failure.
macro_rules! tell {
    ($($text:tt)*) => {{
        let _ = writeln!(std::io::stdout(), $($text)*);
    }};
}

/// As `tell`, without the end of the line.
macro_rules! tell_part {
    ($($text:tt)*) => {{
        let _ = write!(std::io::stdout(), $($text)*);
    }};
}

mod access;
mod broker;
mod bundle;
mod enrol;
mod keys;
mod registry;
mod reports;

const EXAMPLES: &str = "\
示例 Examples:
  banyan-aggregator init                                     用贵州种子数据建库
  banyan-aggregator serve                                    启动服务
  banyan-aggregator enroll 520502105001-VC                   给一个村卫生室发注册码
  banyan-aggregator query 520502 2026-01                     七星关区一月汇总
  banyan-aggregator query 贵阳市 2026-01 --by network --network city_group
  banyan-aggregator completeness 520502 2026-01 --by children --format csv

Exit codes: 0 done, 1 failed, 2 wrong usage, 3 not finished in time.";

/// 榕树 Banyan：汇总端。接收、核验、保存各机构上报的数据，按县域医共体和城市医疗集团汇总。
#[derive(Parser)]
#[command(name = "banyan-aggregator", version, after_help = EXAMPLES)]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

#[derive(Args)]
struct Global {
    /// 数据目录 Data directory
    #[arg(long, global = true, env = "BANYAN_DATA_DIR", default_value = "banyan-data")]
    data_dir: PathBuf,
    /// 输出格式 Output format
    #[arg(long, global = true, value_enum, default_value = "table")]
    format: Format,
    /// 语言 Language: zh, en
    #[arg(long, global = true, env = "BANYAN_LANG", default_value = "zh", value_parser = lang)]
    lang: Lang,
    /// 详细日志 More log lines (repeat for more)
    #[arg(short, global = true, action = clap::ArgAction::Count)]
    v: u8,
}

fn lang(text: &str) -> Result<Lang, String> {
    match text {
        "zh" => Ok(Lang::Zh),
        "en" => Ok(Lang::En),
        _ => Err("zh or en".into()),
    }
}

#[derive(Subcommand)]
enum Command {
    /// 建库 Make keys and ledger from a registry and a catalogue (default: the Guizhou seeds)
    Init(Init),
    /// 启动服务 Serve agents and operators until stopped
    Serve {
        /// MQTT 地址 Where agents connect: [mqtt://|mqtts://]IP:PORT (port 0 for any); over TLS except on
        /// loopback addresses, unless said otherwise
        #[arg(long, default_value = MQTT_ADDR_DEFAULT)]
        mqtt_addr: MqttListen,
        /// HTTP 地址 Where the API and the pages are (port 0 for any)
        #[arg(long, default_value = HTTP_ADDR_DEFAULT)]
        http_addr: SocketAddr,
        /// HTTP 证书 Certificate chain of HTTPS, PEM
        #[arg(long, value_name = "FILE", requires = "http_key")]
        http_cert: Option<PathBuf>,
        /// HTTP 证书私钥 Its key, PEM
        #[arg(long, value_name = "FILE", requires = "http_cert")]
        http_key: Option<PathBuf>,
        /// 自制 HTTP 证书 HTTPS with a certificate made here, for these host names and addresses
        #[arg(long, value_name = "NAME", value_delimiter = ',', conflicts_with = "http_cert")]
        http_self_made_cert: Vec<String>,
        /// 终端所用的 MQTT 地址 HOST:PORT What agents are told, where it differs from --mqtt-addr
        #[arg(long, value_parser = public_address)]
        public_mqtt_addr: Option<MqttAddress>,
        /// TLS 证书名称 A further name or IP address agents dial (may be repeated)
        #[arg(long)]
        mqtt_name: Vec<String>,
        /// 外部消息代理 An MQTT broker agents connect to once they have a certificate:
        /// [mqtt://|mqtts://]HOST:PORT
        #[arg(long, value_name = "URL", env = "BANYAN_BROKER", value_parser = public_address)]
        broker: Option<MqttAddress>,
        /// 终端所用的代理地址 HOST:PORT Where agents reach that broker, where it differs from --broker
        #[arg(long, value_name = "HOST:PORT", requires = "broker", value_parser = public_address)]
        public_broker_addr: Option<MqttAddress>,
    },
    /// 发放注册码 Make enrolment codes, files or a stick; decide claims
    #[command(after_help = enrol::EXAMPLES)]
    Enroll(enrol::Enroll),
    /// 调整代报范围 Give an agent more facilities, or fewer
    Assign(Assign),
    /// 外部消息代理的配置 Write an external broker's settings, rules, certificates and list of revocations
    BrokerAcl(broker::BrokerAcl),
    /// 注销终端 Put an agent out
    Revoke {
        /// The agent's id
        agent: String,
    },
    /// 终端列表 List agents
    Fleet,
    /// 暂存与拒收 List entries that do not count, and why
    Parked,
    /// 机构与区划 List units
    Units {
        /// Below this unit (default: the top)
        unit: Option<String>,
        /// All of this kind, at any depth
        #[arg(long)]
        kind: Option<String>,
        /// On this day (default: today)
        #[arg(long)]
        date: Option<String>,
    },
    /// 查询汇总 Ask for figures
    Query(QueryArgs),
    /// 上报完整性 Ask how complete reporting is
    Completeness(CompletenessArgs),
    /// 审核异常 The rules that reports and networks break
    Anomalies(AnomaliesArgs),
    /// 追溯一张报表 The trace of a number: values, versions, who, when
    Report {
        /// The facility
        facility: String,
        /// The form
        form: String,
        /// The period
        period: String,
        /// With every version
        #[arg(long)]
        history: bool,
        /// As known at this time (RFC 3339)
        #[arg(long)]
        as_of: Option<String>,
    },
    /// Commands about reports
    #[command(flatten)]
    Reports(reports::Command),
    /// 目录 Check or publish a catalogue
    Catalogue {
        #[command(subcommand)]
        command: registry::Catalogue,
    },
    /// Commands about the registry
    #[command(flatten)]
    Registry(registry::Command),
    /// Commands about users, tokens and the log
    #[command(flatten)]
    Access(access::Command),
    /// 密钥 The centre's keys: show them, replace the operating key
    Keys {
        #[command(subcommand)]
        command: keys::Keys,
    },
    /// U盘上报 Take in what agents without a line have sent on a stick
    Bundle {
        #[command(subcommand)]
        command: bundle::Command,
    },
    /// 核验 Check the ledger's chain and signatures, and that the counts are what the ledger says
    Verify {
        /// From the first position on
        #[arg(long)]
        all: bool,
    },
    /// 备份 Write a backup while serving
    Backup {
        /// The file to write
        file: PathBuf,
        /// Only keys and acts: what agents cannot send again
        #[arg(long)]
        identity: bool,
    },
    /// 恢复 Make a data directory from a backup
    Restore {
        /// The backup
        file: PathBuf,
    },
}

#[derive(Args)]
struct Init {
    /// units.csv
    #[arg(long)]
    units: Option<PathBuf>,
    /// attributes.csv
    #[arg(long)]
    attributes: Option<PathBuf>,
    /// networks.csv
    #[arg(long)]
    networks: Option<PathBuf>,
    /// members.csv
    #[arg(long)]
    members: Option<PathBuf>,
    /// duties.csv
    #[arg(long)]
    duties: Option<PathBuf>,
    /// calendar.csv
    #[arg(long)]
    calendar: Option<PathBuf>,
    /// targets.csv
    #[arg(long)]
    targets: Option<PathBuf>,
    /// codes.csv
    #[arg(long)]
    codes: Option<PathBuf>,
    /// contacts.csv
    #[arg(long)]
    contacts: Option<PathBuf>,
    /// catalogue.toml
    #[arg(long)]
    catalogue: Option<PathBuf>,
    /// The centre's name
    #[arg(long, default_value = "榕树 Banyan")]
    name: String,
    /// 恢复文件 Where to write the root's recovery file, encrypted (default: DIR/root.recovery)
    #[arg(long, value_name = "FILE")]
    recovery: Option<PathBuf>,
    /// 口令 Encrypt it under a passphrase from the terminal or stdin, instead of a code shown once
    #[arg(long)]
    recovery_passphrase: bool,
}

#[derive(Args)]
struct Assign {
    /// The agent's id
    agent: String,
    /// The facilities
    #[arg(required_unless_present = "below")]
    units: Vec<String>,
    /// All facilities under this unit
    #[arg(long)]
    below: Vec<String>,
    /// Only this kind under --below
    #[arg(long)]
    kind: Vec<String>,
    /// Take them away
    #[arg(long)]
    remove: bool,
}

#[derive(Args)]
struct QueryArgs {
    /// A unit or network, by code or unique name
    unit: String,
    /// The period, for example 2026-01, 2026Q1, 2026-01..2026-03
    period: String,
    /// Rows by: children facility kind role network, county township…, day week month quarter half year
    #[arg(long, value_delimiter = ',')]
    by: Vec<String>,
    /// The kind of network meant by --by network or role
    #[arg(long)]
    network: Option<String>,
    /// Only this element
    #[arg(long, value_delimiter = ',')]
    element: Vec<String>,
    /// Only this indicator
    #[arg(long, value_delimiter = ',')]
    indicator: Vec<String>,
    /// as_it_was, today or a date
    #[arg(long)]
    membership: Option<String>,
    /// As known at this time (RFC 3339)
    #[arg(long)]
    as_of: Option<String>,
    /// Names and paths with every row
    #[arg(long)]
    names: bool,
}

#[derive(Args)]
struct CompletenessArgs {
    /// A unit or network, by code or unique name
    unit: String,
    /// The period
    period: String,
    /// Only this form
    #[arg(long)]
    form: Option<String>,
    /// Rows by
    #[arg(long, value_delimiter = ',')]
    by: Vec<String>,
    /// The kind of network meant by --by network or role
    #[arg(long)]
    network: Option<String>,
    /// as_it_was, today or a date
    #[arg(long)]
    membership: Option<String>,
    /// As known at this time (RFC 3339)
    #[arg(long)]
    as_of: Option<String>,
}

#[derive(Args)]
struct AnomaliesArgs {
    /// A unit or network, by code or unique name
    unit: String,
    /// The period
    period: String,
    /// Only this form
    #[arg(long)]
    form: Option<String>,
    /// Only this rule, or this part of one
    #[arg(long)]
    rule: Option<String>,
    /// Only rules of this scope: report, history or cross_site
    #[arg(long)]
    scope: Option<String>,
    /// As known at this time (RFC 3339)
    #[arg(long)]
    as_of: Option<String>,
}

/// Reads `7d`, `12h`, `30m` or `45s`.
fn seconds(text: &str) -> Result<i64, String> {
    let help = || "write a time like 7d, 12h or 30m".to_owned();
    let unit = text.chars().last().ok_or_else(help)?;
    let factor = match unit {
        'd' => 86_400,
        'h' => 3600,
        'm' => 60,
        's' => 1,
        _ => return Err(help()),
    };
    let number: i64 = text[..text.len() - 1].parse().map_err(|_| help())?;
    number.checked_mul(factor).filter(|s| *s > 0).ok_or_else(help)
}

/// Checks `HOST:PORT`.
fn public_address(text: &str) -> Result<MqttAddress, String> {
    text.parse().map_err(|error| format!("{error}; write HOST:PORT, for example 10.52.0.8:8883"))
}

/// Runs the program.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let level = match (cli.global.v, &cli.command) {
        (0, Command::Serve { .. }) => "info",
        (0, _) => "warn",
        (1, _) => "banyan_aggregator=debug,info",
        _ => "debug",
    };
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new(format!("{level},rumqttd=warn")));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        // To tell of a line that cannot be written it would write to stderr, and panic where that is full too.
        .log_internal_errors(false)
        .init();
    match run(cli.command, &cli.global) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("{}: {error:#}", say(cli.global.lang, "错误", "error"));
            ExitCode::from(match () {
                () if error.is::<Usage>() => 2,
                () if error.is::<Late>() => 3,
                () => 1,
            })
        }
    }
}

/// What was restored, and what has to be done by hand before it serves: nobody sends acts again.
fn restored(summary: &BackupSummary, dir: &Path, lang: Lang) -> String {
    let (dir, rows, last) = (dir.display(), summary.rows, summary.last_position);
    let at = |none: &str| {
        let moment = |at: Millis| at.timestamp().strftime("%Y-%m-%d %H:%M:%S UTC").to_string();
        summary.last_act_at.map_or_else(|| none.to_owned(), moment)
    };
    say(
        lang,
        format!(
            "已恢复到 {dir}：{rows} 条记录，截至第 {last} 位。\n备份中最后一项操作的时间：{}。此后的操作不在其中：请先重新注销（revoke）此后注销过的终端，再启动 serve；此后用过的注册码在到期前又可使用。\n启动 serve 后，各终端会自动补传缺少的数据。",
            at("无"),
        ),
        format!(
            "restored into {dir}: {rows} rows up to position {last}.\nThe last act in it: {}. What operators did later is not in it: before `serve`, revoke again whoever was revoked since; codes used since can be used again until they expire.\nStart `serve`: the agents send what is missing.",
            at("none"),
        ),
    )
}

fn run(command: Command, global: &Global) -> Result<ExitCode> {
    let dir = &global.data_dir;
    let lang = global.lang;
    match command {
        Command::Init(init) => {
            let passphrase = if init.recovery_passphrase {
                let prompt =
                    access::Prompt { zh: "恢复文件口令：", en: "Passphrase: ", twice: true };
                Some(access::secret(global, &prompt)?)
            } else {
                None
            };
            let kept = crate::init::RootKept { file: init.recovery.clone(), passphrase };
            let now = jiff::Timestamp::now().into();
            crate::init::init_keeping(dir, &init.sources(), &init.name, lang, now, &kept)?;
            return Ok(ExitCode::SUCCESS);
        }
        Command::Serve {
            mqtt_addr,
            http_addr,
            http_cert,
            http_key,
            http_self_made_cert,
            public_mqtt_addr,
            mqtt_name,
            broker,
            public_broker_addr,
        } => {
            let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
            let http_tls = match (http_cert, http_key) {
                (Some(certificate), Some(key)) => HttpTls::Files(certificate, key),
                _ if http_self_made_cert.is_empty() => HttpTls::None,
                _ => HttpTls::SelfMade(http_self_made_cert),
            };
            let options = ServeOptions {
                mqtt: mqtt_addr,
                http: http_addr,
                http_tls,
                public_mqtt: public_mqtt_addr,
                mqtt_names: mqtt_name,
                broker: broker.map(|address| BrokerAt { address, public: public_broker_addr }),
            };
            let serving = crate::serve::serve(dir, options);
            let served = runtime.block_on(serving);
            // A long query of someone still connected is not waited for.
            runtime.shutdown_timeout(std::time::Duration::from_secs(3));
            served?;
            return Ok(ExitCode::SUCCESS);
        }
        Command::Restore { file } => {
            let now = jiff::Timestamp::now().into();
            let summary = crate::service::restore(&file, dir, now)?;
            eprintln!("{}", restored(&summary, dir, lang));
            return Ok(ExitCode::SUCCESS);
        }
        Command::Catalogue { command: registry::Catalogue::Check { file } } => {
            return check_catalogue(&file, lang, global.format);
        }
        Command::Keys { command: keys::Keys::Roll(roll) } => {
            return keys::roll(&roll, dir, global);
        }
        _ => {}
    }
    let client = Client::connect(dir)?;
    let result = ask(command, global, &client);
    client.close()?;
    result
}

fn check_catalogue(file: &Path, lang: Lang, format: Format) -> Result<ExitCode> {
    let toml = std::fs::read(file).with_context(|| format!("reading {}", file.display()))?;
    let checked = Catalogue::load(&toml);
    if format == Format::Json {
        let errors = checked.as_ref().err().into_iter().flatten();
        print_json(&serde_json::json!({
            "file": file,
            "version": checked.as_ref().ok().map(|catalogue| catalogue.version.as_str()),
            "errors": errors.map(|error| error.text(lang)).collect::<Vec<_>>(),
        }))?;
        return Ok(if checked.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE });
    }
    match checked {
        Ok(catalogue) => {
            let text = format!(
                "{}: {} {} · {} {} · {} {}",
                file.display(),
                catalogue.elements.len(),
                say(lang, "个数据元", "elements"),
                catalogue.forms.len(),
                say(lang, "张报表", "forms"),
                catalogue.rules.len(),
                say(lang, "条规则", "rules"),
            );
            tell!("{text}");
            Ok(ExitCode::SUCCESS)
        }
        Err(errors) => {
            for error in &errors {
                tell!("{}: {}", file.display(), error.text(lang));
            }
            Ok(ExitCode::FAILURE)
        }
    }
}

fn ask(command: Command, global: &Global, client: &Client) -> Result<ExitCode> {
    let lang = global.lang;
    let format = global.format;
    match command {
        Command::Enroll(enroll) => enrol::run(enroll, global, client)?,
        Command::Assign(assign) => {
            let scope = EnrolOne {
                units: assign.units,
                below: assign.below,
                kinds: assign.kind,
                expires_s: 0,
                replaces: None,
                lang,
            };
            let request = Request::Assign { agent: assign.agent, scope, remove: assign.remove };
            print_json(&client.json(&request)?)?;
        }
        Command::BrokerAcl(command) => return command.run(global, client),
        Command::Revoke { agent } => print_json(&client.json(&Request::Revoke { agent, lang })?)?,
        Command::Fleet => {
            let answer = client.json(&Request::Fleet { lang })?;
            show(
                &answer,
                "agents",
                format,
                &[
                    "agent",
                    "home",
                    "name",
                    "facilities",
                    "state",
                    "waiting",
                    "received",
                    "refused",
                    "parked",
                    "last_receipt",
                ],
            )?;
        }
        Command::Parked => {
            let answer = client.json(&Request::Parked { lang })?;
            show(
                &answer,
                "entries",
                format,
                &[
                    "state",
                    "code",
                    "reason",
                    "facility",
                    "name",
                    "form",
                    "period",
                    "agent",
                    "received_at",
                ],
            )?;
        }
        Command::Units { unit, kind, date } => {
            let answer = client.json(&Request::Units { unit, kind, date, lang })?;
            show(
                &answer,
                "units",
                format,
                &["code", "name", "kind", "parent", "open", "networks"],
            )?;
        }
        Command::Registry(command) => return registry::run(command, global, client),
        Command::Access(command) => return access::run(command, global, client),
        Command::Catalogue { command: registry::Catalogue::Publish { file, dry_run } } => {
            return registry::publish(&file, dry_run, global, client);
        }
        Command::Keys { .. } => keys::show(global, client)?,
        Command::Verify { all } => {
            let report: VerifyReport = client.call(&Request::Verify { all })?;
            if format == Format::Json {
                print_json(&report)?;
            } else {
                for difference in &report.differences {
                    tell!("{difference}");
                }
                let text = if report.agrees {
                    say(
                        lang,
                        format!(
                            "一致：账本 {} 位，核验签名 {} 个，报表版本 {} 个",
                            report.position, report.signatures, report.reports
                        ),
                        format!(
                            "agrees: ledger position {}, {} signatures checked, {} versions counted",
                            report.position, report.signatures, report.reports
                        ),
                    )
                } else {
                    say(lang, "不一致", "does not agree")
                };
                tell!("{text}");
            }
            return Ok(if report.agrees { ExitCode::SUCCESS } else { ExitCode::FAILURE });
        }
        Command::Backup { file, identity } => {
            let path = std::path::absolute(&file)?.display().to_string();
            print_json(&client.json(&Request::Backup { path, identity })?)?;
        }
        Command::Query(args) => {
            let call = QueryCall {
                unit: args.unit,
                period: args.period,
                by: args.by,
                network: args.network,
                element: args.element,
                indicator: args.indicator,
                membership: args.membership,
                as_of: args.as_of,
                names: args.names,
                format,
                lang,
            };
            print_answer(&client.json(&Request::Query(call))?)?;
        }
        Command::Completeness(args) => {
            let call = CompletenessCall {
                unit: args.unit,
                period: args.period,
                form: args.form,
                by: args.by,
                network: args.network,
                membership: args.membership,
                as_of: args.as_of,
                format,
                lang,
            };
            print_answer(&client.json(&Request::Completeness(call))?)?;
        }
        Command::Anomalies(args) => {
            let AnomaliesArgs { unit, period, form, rule, scope, as_of } = args;
            let call = AnomaliesCall { unit, period, form, rule, scope, as_of, format, lang };
            print_answer(&client.json(&Request::Anomalies(call))?)?;
        }
        Command::Report { facility, form, period, history, as_of } => {
            let call = ReportCall { facility, form, period, history, as_of, format, lang };
            print_answer(&client.json(&Request::Report(call))?)?;
        }
        Command::Reports(command) => return reports::run(command, global, client),
        Command::Bundle { command: bundle::Command::Import(args) } => {
            return bundle::import(&args, global, client);
        }
        Command::Init(_)
        | Command::Serve { .. }
        | Command::Restore { .. }
        | Command::Catalogue { .. } => unreachable!("carried out before a client was needed"),
    }
    Ok(ExitCode::SUCCESS)
}

/// A table or CSV is one text; anything else is JSON.
fn print_answer(answer: &Value) -> Result<()> {
    match answer {
        Value::String(text) => {
            tell_part!("{text}");
            if !text.ends_with('\n') {
                tell!();
            }
            Ok(())
        }
        answer => print_json(answer),
    }
}

fn text_of(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Array(parts) => parts.iter().map(text_of).collect::<Vec<_>>().join(";"),
        other => other.to_string(),
    }
}

/// Prints the rows of `answer[list]` with these columns.
fn show(answer: &Value, list: &str, format: Format, columns: &[&str]) -> Result<()> {
    let rows = answer[list].as_array().map(Vec::as_slice).unwrap_or_default();
    match format {
        Format::Json => print_json(answer)?,
        Format::Csv => {
            let mut writer = csv::Writer::from_writer(std::io::stdout());
            writer.write_record(columns)?;
            for row in rows {
                writer.write_record(columns.iter().map(|column| text_of(&row[*column])))?;
            }
            writer.flush()?;
        }
        Format::Table => {
            let mut table = crate::query::table(columns);
            for row in rows {
                table.add_row(columns.iter().map(|column| text_of(&row[*column])));
            }
            let numbers = |column: &str| rows.iter().any(|row| row[column].is_number());
            let of_numbers = columns.iter().enumerate().filter(|(_, column)| numbers(column));
            crate::query::align(&mut table, of_numbers.map(|(at, _)| at));
            tell!("{}", table.trim_fmt());
        }
    }
    Ok(())
}

fn given(file: &Path) -> Result<GivenTable> {
    let bytes = std::fs::read(file).with_context(|| format!("reading {}", file.display()))?;
    Ok(GivenTable { file: file.display().to_string(), bytes: data_encoding::BASE64.encode(&bytes) })
}

impl Init {
    fn sources(&self) -> crate::init::Sources {
        let tables = [
            ("units.csv", &self.units),
            ("attributes.csv", &self.attributes),
            ("networks.csv", &self.networks),
            ("members.csv", &self.members),
            ("duties.csv", &self.duties),
            ("calendar.csv", &self.calendar),
            ("targets.csv", &self.targets),
            ("codes.csv", &self.codes),
            ("contacts.csv", &self.contacts),
        ];
        crate::init::Sources {
            catalogue: self.catalogue.clone(),
            tables: tables
                .into_iter()
                .filter_map(|(table, path)| path.clone().map(|path| (table, path)))
                .collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::{BackupKind, StoreIdentity};

    #[test]
    fn a_restore_says_from_when_on_acts_are_lost() {
        let mut summary = BackupSummary {
            kind: BackupKind::Full,
            identity: StoreIdentity { store_id: [0; 16], incarnation: 1 },
            made_at: Millis(1_700_000_900_000),
            members: Vec::new(),
            rows: 3,
            last_position: 3,
            last_act_at: Some(Millis(1_700_000_000_000)),
            bytes: 9,
        };
        for (lang, revoke) in [(Lang::Zh, "重新注销（revoke）"), (Lang::En, "revoke again")] {
            let text = restored(&summary, Path::new("new"), lang);
            assert!(text.contains("2023-11-14 22:13:20 UTC") && text.contains(revoke), "{text}");
        }
        summary.last_act_at = None;
        assert!(restored(&summary, Path::new("new"), Lang::En).contains("act in it: none"));
    }
}
