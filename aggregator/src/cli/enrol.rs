//! `enroll`: codes, files and sticks by which agents are enrolled, and claims of facilities.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::Args;

use super::{Global, registry, seconds};
use crate::client::{Client, print_json};
use crate::http::Request;
use crate::service::{EnrolEach, EnrolOne, EnrolStick, Enrolled, EnrolledFile, Format, say, usage};

pub(super) const EXAMPLES: &str = "\
示例 Examples:
  banyan-aggregator enroll 520502105001-VC                          一台电脑 one PC
  banyan-aggregator enroll --each --below 520502 --kind village_clinic -o DIR
  banyan-aggregator enroll --stick --below 520502105 --uses 12 --approve -o F.banyan
  banyan-aggregator enroll --replaces AGENT                         换新电脑 a new PC goes on with the history
  banyan-aggregator enroll --claims                                 待核准的认领 claims that wait
  banyan-aggregator enroll --claims --approve AGENT                 核准 approve one; --refuse AGENT 拒绝";

#[derive(Args)]
pub(super) struct Enroll {
    /// The facilities; the first is the agent's home, the others it reports for by proxy
    units: Vec<String>,
    /// All facilities under this unit, those registered later too
    #[arg(long)]
    below: Vec<String>,
    /// Only this kind under --below
    #[arg(long)]
    kind: Vec<String>,
    /// How long the code is valid, for example 12h (default 7d; with --each 30d, with --stick 3d)
    #[arg(long, value_parser = seconds)]
    expires: Option<i64>,
    /// One code and file for each facility under --below
    #[arg(long, conflicts_with = "stick")]
    each: bool,
    /// One file for all facilities under --below, of which each installer picks one
    #[arg(long)]
    stick: bool,
    /// How often a stick may be used
    #[arg(long, default_value_t = 1, requires = "stick", value_parser = clap::value_parser!(u32).range(1..))]
    uses: u32,
    /// With --stick: every claim waits. With --claims: the agent whose claim is approved
    #[arg(long, value_name = "AGENT", num_args = 0..=1, default_missing_value = "")]
    approve: Option<String>,
    /// Claims of facilities that wait for a decision
    #[arg(long, conflicts_with_all = ["each", "stick"])]
    claims: bool,
    /// With --claims: the agent whose claim is refused
    #[arg(long, value_name = "AGENT", requires = "claims", conflicts_with = "approve")]
    refuse: Option<String>,
    /// With --claims --approve: beside the agent that has the facility, not continuing its history
    #[arg(long, requires = "claims")]
    beside: bool,
    /// 更换电脑 The agent whose history the new one continues; without facilities it gets that one's
    #[arg(long, value_name = "AGENT", conflicts_with_all = ["each", "stick", "claims"])]
    replaces: Option<String>,
    /// Where to write: a folder with --each, a file with --stick
    #[arg(short, long)]
    output: Option<PathBuf>,
}

impl Enroll {
    /// How long its codes are valid, in seconds.
    fn lifetime_s(&self) -> i64 {
        let days = if self.each {
            30
        } else if self.stick {
            3
        } else {
            7
        };
        self.expires.unwrap_or(days * 86_400)
    }
}

/// Facilities asked for in one request of `--each`.
const EACH_AT_ONCE: usize = 200;

pub(super) fn run(enroll: Enroll, global: &Global, client: &Client) -> Result<()> {
    let lang = global.lang;
    let expires_s = enroll.lifetime_s();
    if enroll.claims {
        let claims = registry::Claims {
            approve: enroll.approve.as_deref(),
            refuse: enroll.refuse.as_deref(),
            beside: enroll.beside,
        };
        return registry::claims(claims, global, client);
    }
    if enroll.approve.is_some() && !enroll.stick {
        return Err(usage(say(
            lang,
            "--approve 只与 --stick 或 --claims 合用",
            "--approve goes with --stick or --claims",
        )));
    }
    if enroll.each {
        return each(&enroll, global, client);
    }
    if enroll.stick {
        let output = enroll
            .output
            .clone()
            .ok_or_else(|| usage(say(lang, "--stick 需要 -o 文件名", "--stick needs -o FILE")))?;
        let request = Request::EnrolStick(EnrolStick {
            below: enroll.below,
            kinds: enroll.kind,
            uses: enroll.uses,
            approve: enroll.approve.is_some(),
            expires_s,
            lang,
        });
        let made: EnrolledFile = client.call(&request)?;
        write_file(&output, &made.file)?;
        eprintln!("{} → {}", made.expires, output.display());
        tell!("{}", made.code);
        return Ok(());
    }
    if enroll.units.is_empty() && enroll.below.is_empty() && enroll.replaces.is_none() {
        return Err(usage(say(
            lang,
            "请给出机构代码，例如 enroll 520502105001-VC，或用 --below",
            "name a facility, for example enroll 520502105001-VC, or use --below",
        )));
    }
    let request = Request::Enrol(EnrolOne {
        units: enroll.units,
        below: enroll.below,
        kinds: enroll.kind,
        expires_s,
        replaces: enroll.replaces,
        lang,
    });
    let made: Enrolled = client.call(&request)?;
    if global.format == Format::Json {
        return print_json(&made);
    }
    let home = made.facilities.first().map(ToString::to_string).unwrap_or_default();
    eprintln!(
        "{}",
        say(
            lang,
            format!(
                "机构 {home} 等 {} 个，有效期至 {}。在诊所电脑上运行：banyan-agent enroll <注册码>",
                made.facilities.len(),
                made.expires
            ),
            format!(
                "{home} and others, {} in all, valid until {}. On the clinic's PC: banyan-agent enroll <code>",
                made.facilities.len(),
                made.expires
            ),
        )
    );
    tell!("{}", made.code);
    Ok(())
}

fn each(enroll: &Enroll, global: &Global, client: &Client) -> Result<()> {
    let lang = global.lang;
    let folder = enroll
        .output
        .clone()
        .ok_or_else(|| usage(say(lang, "--each 需要 -o 目录", "--each needs -o FOLDER")))?;
    if enroll.below.is_empty() {
        return Err(usage(say(lang, "--each 需要 --below 区划", "--each needs --below UNIT")));
    }
    let request = Request::Expand { below: enroll.below.clone(), kinds: enroll.kind.clone(), lang };
    let units: Vec<String> = client.call(&request)?;
    if units.is_empty() {
        return Err(usage(say(
            lang,
            "该区划下没有符合条件的机构",
            "there is no such facility below that unit",
        )));
    }
    std::fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
    let mut made: Vec<EnrolledFile> = Vec::with_capacity(units.len());
    for part in units.chunks(EACH_AT_ONCE) {
        let request = Request::EnrolEach(EnrolEach {
            units: part.to_vec(),
            expires_s: enroll.lifetime_s(),
            lang,
        });
        for mut file in client.call::<Vec<EnrolledFile>>(&request)? {
            write_file(&folder.join(format!("{}.banyan", file.unit)), &file.file)?;
            file.file.clear();
            made.push(file);
        }
        eprint!("\r{}/{}", made.len(), units.len());
    }
    eprintln!();
    let mut writer = csv::Writer::from_path(folder.join("codes.csv"))?;
    writer.write_record(["unit", "name", "path", "code", "expires"])?;
    for file in &made {
        writer.write_record([
            file.unit.as_str(),
            &file.name,
            &file.path,
            &file.code,
            &file.expires,
        ])?;
    }
    writer.flush()?;
    std::fs::write(folder.join("slips.html"), crate::slips::page(&made, lang))?;
    if global.format == Format::Json {
        let units: Vec<&str> = made.iter().map(|file| file.unit.as_str()).collect();
        return print_json(&serde_json::json!({ "folder": folder, "units": units }));
    }
    tell!("{}", folder.display());
    Ok(())
}

fn write_file(path: &Path, base64: &str) -> Result<()> {
    let bytes = data_encoding::BASE64.decode(base64.as_bytes()).context("the file is damaged")?;
    std::fs::write(path, bytes).with_context(|| format!("writing {}", path.display()))
}
