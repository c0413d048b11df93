//! Commands about the centre's keys.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use banyan_shared::keys::SigningKey;
use clap::{Args, Subcommand};

use super::Global;
use super::access::{Prompt, secret};
use crate::client::{Client, print_json};
use crate::http::Request;
use crate::identity::recovery::{RecoveryError, RecoveryFile};
use crate::identity::{RollOver, roll_over};
use crate::service::{Format, KeysShown, Service, say, system_clock, usage};

const EXAMPLES: &str = "\
示例 Examples:
  banyan-aggregator keys show
  banyan-aggregator keys roll --recovery /media/stick/root.recovery              停止服务后执行；恢复码从终端输入
  banyan-aggregator keys roll --recovery F --keep-ca < 恢复码文件                 the code from a file";

#[derive(Subcommand)]
#[command(after_help = EXAMPLES)]
pub(super) enum Keys {
    /// 查看密钥 The keys in force and before, and which agents know them
    Show,
    /// 更换操作密钥 Replace the operating key and the CA; the service must be stopped
    Roll(Roll),
}

#[derive(Args)]
pub(super) struct Roll {
    /// 恢复文件 The recovery file; its code or passphrase comes from the terminal or stdin
    #[arg(long, value_name = "FILE")]
    recovery: PathBuf,
    /// 保留 CA Keep the CA: not after a theft. Agents need no new certificates, brokers no new ca.crt
    #[arg(long)]
    keep_ca: bool,
    /// 序号 The new key's serial, if the next one is not high enough: agents know a later key
    #[arg(long, value_name = "N")]
    serial: Option<u32>,
}

/// Largest recovery file read, in bytes.
const FILE_BYTES_MAX: u64 = 64 * 1024;

pub(super) fn show(global: &Global, client: &Client) -> Result<()> {
    let shown: KeysShown = client.call(&Request::Keys)?;
    match global.format {
        Format::Json => print_json(&shown),
        format => {
            let rows: Vec<_> = std::iter::once(&shown.operating).chain(&shown.earlier).collect();
            let answer = serde_json::json!({ "keys": rows });
            super::show(&answer, "keys", format, &["serial", "key", "issued_at", "from_position"])?;
            if format == Format::Table {
                let lang = global.lang;
                let KeysShown { agents_knowing, agents_told, agents_unheard, root, .. } = &shown;
                let text = say(
                    lang,
                    format!(
                        "根 {root}\n启动以来：{agents_knowing} 个终端已知现用密钥，{agents_told} 个刚被告知，{agents_unheard} 个尚未联系"
                    ),
                    format!(
                        "root {root}\nsince the start: {agents_knowing} agents know the key in force, {agents_told} were just told it, {agents_unheard} were not heard"
                    ),
                );
                tell!("{text}");
                for path in &shown.recovery_here {
                    eprintln!(
                        "{}",
                        say(
                            lang,
                            format!("{path}：请拷走锁好并从本机删除"),
                            format!("{path}: take it off this machine and lock it away")
                        )
                    );
                }
            }
            Ok(())
        }
    }
}

pub(super) fn roll(roll: &Roll, dir: &Path, global: &Global) -> Result<ExitCode> {
    let lang = global.lang;
    // The lock of the store says whether a service runs, before anybody is asked for a code.
    opened(dir)?;
    let root = root_of(&roll.recovery, global)?;
    let how = RollOver { serial: roll.serial, keep_ca: roll.keep_ca };
    let (before, after) = roll_over(dir, &root, how, system_clock()())?;
    // Opening the store again puts it into the ledger.
    opened(dir).context("the new key is in force; the next start of the service records it")?;
    if global.format == Format::Json {
        print_json(&serde_json::json!({
            "serial": after.serial, "before": before.serial, "ca": !roll.keep_ca,
        }))?;
    }
    eprintln!(
        "{}",
        say(
            lang,
            format!(
                "操作密钥已更换：序号 {} → {}。请启动服务；各终端下次联系时自动获知，离线的不受影响。请立即重新备份（含 --identity）：旧备份只有旧密钥。",
                before.serial, after.serial
            ),
            format!(
                "the operating key is replaced: serial {} → {}. Start the service; agents learn it at their next contact, whenever that is. Back up now (--identity too): older backups hold the old key only.",
                before.serial, after.serial
            ),
        )
    );
    Ok(ExitCode::SUCCESS)
}

/// Opens the store and lets go of it again.
fn opened(dir: &Path) -> Result<()> {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        let (service, running) = Service::open(dir, system_clock(), None).await.context(
            "更换密钥前须停止服务 / the service has to be stopped before its key is replaced",
        )?;
        drop(service);
        running.stop().await
    })
}

/// The root's secret in a recovery file, or in a `root.key` as earlier versions left it.
fn root_of(path: &Path, global: &Global) -> Result<SigningKey> {
    let reading = || format!("reading {}", path.display());
    let size = std::fs::metadata(path).with_context(reading)?.len();
    if size > FILE_BYTES_MAX {
        return Err(RecoveryError::NotOne).with_context(reading);
    }
    let bytes = std::fs::read(path).with_context(reading)?;
    if let Ok(plain) = SigningKey::from_pkcs8(&bytes) {
        return Ok(plain);
    }
    let file = RecoveryFile::read(&bytes).with_context(reading)?;
    let prompt = if file.wants_code() {
        Prompt { zh: "恢复码：", en: "Recovery code: ", twice: false }
    } else {
        Prompt { zh: "口令：", en: "Passphrase: ", twice: false }
    };
    let typed = secret(global, &prompt)?;
    file.open(&typed).map_err(|error| match error {
        RecoveryError::Mistyped | RecoveryError::Wrong => usage(error.to_string()),
        other => other.into(),
    })
}
