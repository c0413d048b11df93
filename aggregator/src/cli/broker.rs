//! `broker-acl`: the files of an external broker.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Args;

use super::Global;
use crate::broker_files::{BrokerFiles, BrokerKind, Revoked, write};
use crate::client::{Client, print_json};
use crate::http::Request;
use crate::identity::Identity;
use crate::service::{Format, say, usage};

const EXAMPLES: &str = "\
示例 Examples:
  banyan-aggregator broker-acl mosquitto --host mqtt.example.org -o /etc/banyan-broker
  mosquitto -c /etc/banyan-broker/mosquitto.conf
  banyan-aggregator serve --broker mqtt.example.org:8883 --mqtt-addr 0.0.0.0:8884 --public-mqtt-addr …

再次运行即更新证书和注销名单，随后让代理重新加载（mosquitto：SIGHUP）。
Run it again after `revoke`, and once a month; then have the broker read its files anew (mosquitto: SIGHUP).";

#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct BrokerAcl {
    /// 消息代理 For which broker
    #[arg(value_enum)]
    broker: BrokerKind,
    /// 代理的主机名或地址 A name or IP address by which the broker is dialled (may be repeated; this machine's
    /// are always among them)
    #[arg(long, value_name = "NAME")]
    host: Vec<String>,
    /// 端口 The port it listens on
    #[arg(long, default_value_t = 8883)]
    port: u16,
    /// 输出目录 Where to write
    #[arg(short, long, value_name = "DIR")]
    output: PathBuf,
    /// 文件在代理机器上的目录 Where the files will lie for the broker, if elsewhere
    #[arg(long, value_name = "DIR")]
    place: Option<String>,
}

impl BrokerAcl {
    pub(super) fn run(self, global: &Global, client: &Client) -> Result<ExitCode> {
        let lang = global.lang;
        let place = match self.place {
            Some(place) => place,
            None => {
                let place = std::path::absolute(&self.output)?;
                place.into_os_string().into_string().map_err(|path| {
                    let path = path.display();
                    usage(say(
                        lang,
                        format!("路径 {path} 不是 UTF-8：请用 --place 指明"),
                        format!("the path {path} is not UTF-8: name it with --place"),
                    ))
                })?
            }
        };
        let mut hosts = self.host;
        for own in ["localhost", "127.0.0.1", "::1"] {
            if !hosts.iter().any(|host| host == own) {
                hosts.push(own.to_owned());
            }
        }
        let revoked: Vec<Revoked> = client.call(&Request::Revocations)?;
        let identity = Identity::open(&global.data_dir)?;
        let files = BrokerFiles {
            kind: self.broker,
            hosts: &hosts,
            port: self.port,
            place: &place,
            revoked: &revoked,
        };
        let names = write(&self.output, &files, &identity, jiff::Timestamp::now().into())?;
        let out = self.output.display();
        if global.format == Format::Json {
            print_json(
                &serde_json::json!({ "folder": self.output, "files": names, "hosts": hosts,
                "revoked": revoked.len() }),
            )?;
            return Ok(ExitCode::SUCCESS);
        }
        eprintln!(
            "{}",
            say(
                lang,
                format!(
                    "已写入 {out}：证书用于 {}；已注销终端 {} 个。server.key 须能被代理的账户读取，且仅限该账户",
                    hosts.join("、"),
                    revoked.len()
                ),
                format!(
                    "written into {out}: the certificate is for {}; {} agents are revoked. The broker's account, \
                     and no other, must be able to read server.key",
                    hosts.join(", "),
                    revoked.len()
                ),
            )
        );
        let mut stdout = std::io::stdout();
        for name in names {
            writeln!(stdout, "{}", self.output.join(name).display()).context("printing")?;
        }
        Ok(ExitCode::SUCCESS)
    }
}
