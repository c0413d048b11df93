//! The arguments. Names and meaning are a contract: `docs/` and other programs rely on them.

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use banyan_shared::catalogue::Lang;
use banyan_shared::report::{How, Override, Reason};
use clap::{Args as ClapArgs, Parser, Subcommand, ValueEnum};

use crate::command::Draft;
use crate::note::{Note, note};

/// Banyan 终端：录入业务数、可靠保存、联网上报。The clinic's end: capture, keep, send.
#[derive(Debug, Parser)]
#[command(
    name = "banyan-agent",
    version,
    after_help = "例 / Examples:\n  banyan-agent enroll 七星关.banyan\n  banyan-agent record vc_daily 2026-01-31 \
                  total_visits=12 open_days=1\n  banyan-agent sync --timeout 60s\n  banyan-agent \
                  status --format json\n\n退出码 / Exit: 0 完成 done, 1 失败 failed, 2 用法错误 wrong \
                  usage, 3 未及时完成 not finished in time"
)]
pub(crate) struct Args {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Global {
    /// 数据目录 where everything is kept
    #[arg(long, global = true, env = "BANYAN_DATA_DIR", value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
    /// 输出格式 form of the output
    #[arg(long, global = true, value_enum, default_value_t = Format::Table)]
    pub(crate) format: Format,
    /// 语言 language of messages
    #[arg(long, global = true, env = "BANYAN_LANG", value_enum, default_value_t = LangArg::Zh)]
    pub(crate) lang: LangArg,
    /// 更多日志 more log, twice for all
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub(crate) verbose: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    Table,
    Json,
    Csv,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum LangArg {
    Zh,
    En,
}

impl From<LangArg> for Lang {
    fn from(lang: LangArg) -> Lang {
        match lang {
            LangArg::Zh => Lang::Zh,
            LangArg::En => Lang::En,
        }
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// 注册本机：用注册码（需联网）或注册文件（可离线）enrol with a code (needs a line) or a file (does not)
    Enroll(Enroll),
    /// 作为服务运行，直至停止 run as a service until stopped
    Run,
    /// 立即联网上报，直至全部收到回执 send now, until everything has a receipt
    Sync(Sync),
    /// 录入或更正报表；未写的数据元保持原值 enter or correct a report; elements not named keep their value
    #[command(
        after_help = "例 / Examples:\n  record vc_daily 2026-01-31 total_visits=12 open_days=1\n  \
                            record vc_daily 2026-01-31 total_visits=13 --reason typo\n  record vc_daily \
                            2026-02-16..2026-02-22 --closed\n  record vc_daily 2026-01-31 home_visits= \
                            (空值=缺报 empty = missing)\n  record vc_daily 2026-01-31 total_visits=3 --facility \
                            520502105001-VC --how paper_later"
    )]
    Record(Record),
    /// 撤回报表 take a report back
    Withdraw(Withdraw),
    /// 导入CSV（长表或宽表）；有被拒的行时退出码为1 import counts; exit 1 if any row was refused
    #[command(
        after_help = "好的行保存，被拒的行写入同目录的 NAME.errors.csv，改好后可直接再导入。\nGood rows are \
                            saved; refused ones go to NAME.errors.csv beside the input, which can be mended and \
                            imported as it is. Exit 1 if any row was refused.\n\n例 / Examples:\n  import \
                            一月.csv\n  import counts.csv --empty missing"
    )]
    Import(Import),
    /// 本机状况 how this agent is
    Status,
    /// 无网络时用U盘上报并取回回执 deliver by a USB stick where there is no line
    #[command(
        after_help = "一圈 / The round:\n  1. 诊所 clinic:  banyan-agent bundle export E:\\\n  2. 县中心 centre: \
                            banyan-aggregator bundle import E:\\\n  3. 诊所 clinic:  banyan-agent bundle import \
                            E:\\\n\n导出不改变任何数据：收到回执前，报表一直保留在本机。U盘上只有签名的业务数，没有密钥。\n\
                            Writing a bundle changes nothing: entries stay here until the answer brings their \
                            receipts. A stick holds signed counts and no key."
    )]
    Bundle {
        #[command(subcommand)]
        verb: BundleVerb,
    },
    /// 队列：待发、被拒、暂存的报表 the queue: waiting, refused and parked reports
    Queue {
        #[command(subcommand)]
        verb: QueueVerb,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum BundleVerb {
    /// 把全部待上报数据写入文件 write all that waits into a file
    #[command(
        after_help = "例 / Examples:\n  bundle export E:\\            (写入 writes E:\\机构代码.bundle)\n  \
                            bundle export /media/usb/clinic.bundle\n\n服务运行时也可使用；可随时重复，内容重叠无妨。\n\
                            Works while the service runs; may be repeated at any time, overlaps do no harm."
    )]
    Export {
        /// 文件或目录 a file, or a directory
        #[arg(value_name = "F|DIR")]
        file: PathBuf,
    },
    /// 读入县中心的回复 take in the centre's answer
    #[command(
        after_help = "例 / Examples:\n  bundle import E:\\            (目录中所有给本终端的回复 every answer in it for this \
                            agent)\n  bundle import /media/usb/clinic.answer"
    )]
    Import {
        /// 文件或目录 a file, or a directory
        #[arg(value_name = "F|DIR")]
        file: PathBuf,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum QueueVerb {
    /// 列出 list
    Ls,
    /// 一条的全部内容 one entry in full
    Show {
        /// 条目编号，见 queue ls; the entry, as queue ls shows it
        entry: String,
    },
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Enroll {
    /// 注册码或 .banyan 文件 a code, or a .banyan file
    #[arg(value_name = "CODE|FILE", required = true, num_args = 1..)]
    pub(crate) code: Vec<String>,
    /// 安装介质上要选的机构 the facility to pick from a stick
    #[arg(long, value_name = "F")]
    pub(crate) facility: Option<String>,
    /// 最多等多久 how long to wait for the centre
    #[arg(long, default_value = "60s", value_name = "TIME")]
    pub(crate) timeout: Span,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Sync {
    /// 最多等多久，如60s、5m how long to wait at most
    #[arg(long, default_value = "60s", value_name = "TIME")]
    pub(crate) timeout: Span,
}

/// A span of time: `90`, `90s`, `5m`, `1h`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Span(pub(crate) Duration);

impl FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Span, String> {
        let wrong = || format!("{text:?}: 90s, 5m, 1h");
        let at = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let (number, unit) = text.split_at(at);
        let number: u64 = number.parse().map_err(|_| wrong())?;
        let factor = match unit {
            "" | "s" => 1,
            "m" => 60,
            "h" => 3600,
            _ => return Err(wrong()),
        };
        // A year is for ever, and far from any overflow of the clock.
        Ok(Span(Duration::from_secs(number.saturating_mul(factor).min(365 * 86_400))))
    }
}

/// One of a coded list, by its code.
macro_rules! coded_arg {
    ($name:ident, $of:ty) => {
        fn $name(text: &str) -> Result<$of, String> {
            <$of>::from_code(text).ok_or_else(|| {
                let codes: Vec<String> = <$of>::ALL
                    .iter()
                    .map(|value| format!("{value} {}", value.text(Lang::Zh)))
                    .collect();
                format!("one of: {}", codes.join(", "))
            })
        }
    };
}
coded_arg!(reason, Reason);
coded_arg!(override_code, Override);

/// The ways a person may name; `direct` and `operator` follow by themselves.
fn how(text: &str) -> Result<How, String> {
    match How::from_code(text) {
        Some(how @ (How::Proxy | How::PaperLater | How::Import)) => Ok(how),
        _ => Err("one of: proxy 代报, paper_later 纸质补录, import 文件导入".to_owned()),
    }
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Record {
    /// 报表代码 the form
    form: String,
    /// 统计期，或范围 the period, or a range FROM..TO
    #[arg(value_name = "PERIOD|FROM..TO")]
    period: String,
    /// 数据元=数值、=NA 或 = （缺报）
    #[arg(value_name = "ELEMENT=N|NA")]
    values: Vec<String>,
    /// 未开诊：open_days及其他各数为0 not open: open_days and every other number 0
    #[arg(long)]
    closed: bool,
    /// 机构，默认为本机构 the facility, home by default
    #[arg(long, value_name = "F")]
    facility: Option<String>,
    /// 录入方式 proxy|paper_later|import
    #[arg(long, value_parser = how, value_name = "HOW")]
    how: Option<How>,
    /// 更正原因代码 why it is corrected
    #[arg(long, value_parser = reason, value_name = "CODE")]
    reason: Option<Reason>,
    /// 违反规则仍保存的理由代码 why it is saved against a rule
    #[arg(long = "override", value_parser = override_code, value_name = "CODE")]
    override_code: Option<Override>,
    /// 填报人工号 staff code of who entered it
    #[arg(long, value_name = "PERSON")]
    by: Option<String>,
}

impl Record {
    pub(crate) fn draft(self) -> Result<Draft, Note> {
        let values = self.values.iter().map(|text| match text.split_once(['=', '＝']) {
            Some((element, value)) => Ok((element.trim().to_owned(), value.to_owned())),
            None => Err(note!(
                Error,
                "not_a_pair",
                "“{text}”应写成 数据元=数值",
                "{text:?} must be written ELEMENT=NUMBER"
            )),
        });
        Ok(Draft {
            facility: self.facility,
            form: self.form,
            period: self.period,
            values: values.collect::<Result<_, _>>()?,
            closed: self.closed,
            how: self.how,
            reason: self.reason,
            override_code: self.override_code,
            by: self.by,
            ..Draft::default()
        })
    }
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Withdraw {
    /// 报表代码 the form
    form: String,
    /// 统计期，或范围 the period, or a range
    period: String,
    /// 机构，默认为本机构 the facility, home by default
    #[arg(long, value_name = "F")]
    facility: Option<String>,
    /// 原因代码 why
    #[arg(long, value_parser = reason, value_name = "CODE")]
    reason: Reason,
}

impl Withdraw {
    pub(crate) fn draft(self) -> Result<Draft, Note> {
        Ok(Draft {
            facility: self.facility,
            form: self.form,
            period: self.period,
            withdraw: true,
            reason: Some(self.reason),
            ..Draft::default()
        })
    }
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Import {
    /// CSV文件，UTF-8或GB18030 a CSV file, UTF-8 or GB18030
    #[arg(value_name = "F")]
    pub(crate) file: PathBuf,
    /// 空单元格：保持原值或改为缺报 empty cells keep the value, or make it missing
    #[arg(long, value_enum, default_value_t = Empty::Keep)]
    pub(crate) empty: Empty,
}

/// What an empty cell means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Empty {
    Keep,
    Missing,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_arguments_are_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn options_stand_before_or_after() {
        for line in [
            "banyan-agent record vc_daily 2026-01-31 a=1 --by w1 --lang en --data-dir /x",
            "banyan-agent --data-dir /x --lang en record --by w1 vc_daily 2026-01-31 a=1",
            "banyan-agent record vc_daily --by w1 2026-01-31 --lang en --data-dir /x a=1",
        ] {
            let args = Args::try_parse_from(line.split(' ')).unwrap();
            assert_eq!(args.global.lang, LangArg::En);
            assert_eq!(args.global.data_dir, Some(PathBuf::from("/x")));
            let Verb::Record(record) = args.verb else { panic!() };
            let draft = record.draft().unwrap();
            assert_eq!(draft.by.as_deref(), Some("w1"));
            assert_eq!(draft.values, [("a".to_owned(), "1".to_owned())]);
        }
    }
}
