//! A centre with its line and its agents' data directories, in one folder.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use banyan_shared::address::MqttAddress;
use serde_json::Value;
use tempfile::TempDir;

use super::{Binaries, Link, Process, binaries, kept_address, until};

/// How long the aggregator may take to be ready.
const READY_WITHIN: Duration = Duration::from_secs(60);
/// How long one HTTP request may take.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(120);
/// Largest answer read, in bytes.
const ANSWER_BYTES_MAX: u64 = 1 << 30;

/// A folder with a centre and agents; gone when dropped unless it was named.
#[derive(Debug)]
pub struct World {
    dir: PathBuf,
    /// Removes the folder at the end.
    _temporary: Option<TempDir>,
    binaries: Binaries,
    /// Whether agents connect over TLS.
    pub tls: bool,
    /// Further arguments of `serve`.
    pub serve_with: Vec<String>,
    /// The line by which agents reach the aggregator.
    pub link: Link,
}

impl World {
    /// A new one: in `dir`, which is kept, or in a folder that goes with it. Builds the programs.
    ///
    /// # Errors
    /// The build fails or the folder cannot be made.
    pub fn new(dir: Option<&Path>) -> Result<World> {
        World::of(binaries()?, dir)
    }

    /// As [`World::new`], of programs already built.
    ///
    /// # Errors
    /// The folder cannot be made.
    pub fn of(binaries: Binaries, dir: Option<&Path>) -> Result<World> {
        let (dir, temporary) = match dir {
            Some(dir) => (dir.to_owned(), None),
            None => {
                let made = tempfile::Builder::new().prefix("banyan-").tempdir()?;
                (made.path().to_owned(), Some(made))
            }
        };
        for part in ["agents", "logs"] {
            let path = dir.join(part);
            fs::create_dir_all(&path).with_context(|| format!("making {}", path.display()))?;
        }
        Ok(World {
            dir,
            _temporary: temporary,
            binaries,
            tls: true,
            serve_with: Vec::new(),
            link: Link::open()?,
        })
    }

    /// The folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The programs.
    pub fn binaries(&self) -> &Binaries {
        &self.binaries
    }

    /// The aggregator's data directory.
    pub fn centre(&self) -> PathBuf {
        self.dir.join("centre")
    }

    /// Makes the aggregator's data directory; `files` are further arguments of `init`. Gives what it said on
    /// stderr: the recovery code stands there.
    ///
    /// # Errors
    /// What `init` says.
    pub fn init(&self, files: &[&str]) -> Result<String> {
        let output = self.command_of(&self.centre()).arg("init").args(files).output()?;
        done("init", &output)?;
        Ok(String::from_utf8_lossy(&output.stderr).into_owned())
    }

    fn command_of(&self, dir: &Path) -> Command {
        let mut command = Command::new(&self.binaries.aggregator);
        command.arg("--data-dir").arg(dir).env_remove("BANYAN_LANG");
        command
    }

    /// A command of `banyan-aggregator` on the centre's data directory.
    pub fn command(&self) -> Command {
        self.command_of(&self.centre())
    }

    /// Starts the aggregator on free ports, which it can come back to; agents are told the line's address.
    ///
    /// # Errors
    /// It does not get ready.
    pub fn serve(&self) -> Result<Aggregator> {
        self.serve_at(kept_address()?, kept_address()?)
    }

    /// As [`World::serve`], on these addresses: after a kill, on the same as before.
    ///
    /// # Errors
    /// It does not get ready.
    pub fn serve_at(&self, mqtt: SocketAddr, http: SocketAddr) -> Result<Aggregator> {
        let addresses = self.centre().join("run/addresses.json");
        // A file of an earlier run would be taken for readiness.
        match fs::remove_file(&addresses) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(error).context("removing the addresses of the run before");
            }
            _ => {}
        }
        let mut command = self.command();
        let scheme = if self.tls { "mqtts" } else { "mqtt" };
        command
            .args(["serve", "--mqtt-addr", &format!("{scheme}://{mqtt}")])
            .args(["--http-addr", &http.to_string()])
            .args(["--public-mqtt-addr", &self.told_address()])
            .args(&self.serve_with);
        let process = Process::start(&mut command, &self.dir.join("logs/aggregator.log"))?;
        let (mqtt, http) = until("the aggregator is ready", READY_WITHIN, || {
            process.check()?;
            let Ok(bytes) = fs::read(&addresses) else { return Ok(None) };
            let json: Value = serde_json::from_slice(&bytes)?;
            let part = |name: &str| -> Result<SocketAddr> {
                let text = json[name].as_str().with_context(|| format!("no {name} in it"))?;
                Ok(text.parse()?)
            };
            Ok(Some((part("mqtt")?, part("http")?)))
        })?;
        let token = fs::read_to_string(self.centre().join("run/admin.token"))?;
        self.link.lead_to(mqtt);
        Ok(Aggregator { process, mqtt, http, token: token.trim().to_owned(), agent: http_agent() })
    }

    /// The address agents are told: the line's.
    pub fn told_address(&self) -> String {
        let (tls, address) = (self.tls, self.link.address());
        MqttAddress { tls, host: address.ip().to_string(), port: address.port() }.to_string()
    }

    /// The agent in the data directory `agents/NAME`, enrolled or not.
    pub fn agent(&self, name: &str) -> Agent {
        Agent {
            binary: self.binaries.agent.clone(),
            dir: self.dir.join("agents").join(name),
            log: self.dir.join("logs").join(format!("agent-{name}.log")),
        }
    }
}

fn http_agent() -> ureq::Agent {
    ureq::Agent::config_builder()
        .timeout_global(Some(REQUEST_TIMEOUT))
        .http_status_as_error(false)
        .build()
        .into()
}

/// What a command wrote to stdout.
fn done(what: &str, output: &Output) -> Result<String> {
    if !output.status.success() {
        let (out, err) =
            (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        bail!("{what}: {}\n{out}{err}", output.status);
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// A serving aggregator.
#[derive(Debug)]
pub struct Aggregator {
    process: Process,
    mqtt: SocketAddr,
    http: SocketAddr,
    token: String,
    agent: ureq::Agent,
}

/// An HTTP answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Its status.
    pub status: u16,
    /// Its body.
    pub body: String,
}

impl Aggregator {
    /// Where it takes agents (they go by the line).
    pub fn mqtt(&self) -> SocketAddr {
        self.mqtt
    }

    /// Where the API and the pages are.
    pub fn http(&self) -> SocketAddr {
        self.http
    }

    /// The process.
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// `kill -9`.
    ///
    /// # Errors
    /// What the system says.
    pub fn kill9(self) -> Result<()> {
        self.process.kill9()
    }

    /// SIGTERM, and waits for the clean end.
    ///
    /// # Errors
    /// It does not end, or not cleanly.
    pub fn stop(self) -> Result<()> {
        let status = self.process.terminate(Duration::from_secs(30))?;
        if status.success() { Ok(()) } else { Err(anyhow!("the aggregator ended with {status}")) }
    }

    /// Sends a request to `/v1/call` (`{"command": …}`) and gives its answer.
    ///
    /// # Errors
    /// What the aggregator says, or why it cannot be reached.
    pub fn call(&self, request: &Value) -> Result<Value> {
        let mut answer = self
            .agent
            .post(format!("http://{}/v1/call", self.http))
            .header("authorization", format!("Bearer {}", self.token))
            .send_json(request)?;
        let status = answer.status();
        let body: Value = answer
            .body_mut()
            .with_config()
            .limit(ANSWER_BYTES_MAX)
            .read_json()
            .context("the answer")?;
        if !status.is_success() {
            bail!("{}: {}", request["command"], body["error"].as_str().unwrap_or_default());
        }
        Ok(body)
    }

    /// GET of a path, with the administrator's token.
    ///
    /// # Errors
    /// It cannot be reached.
    pub fn get(&self, path: &str) -> Result<Answer> {
        let mut answer = self
            .agent
            .get(format!("http://{}{path}", self.http))
            .header("authorization", format!("Bearer {}", self.token))
            .call()?;
        let status = answer.status().as_u16();
        let body = answer.body_mut().with_config().limit(ANSWER_BYTES_MAX).read_to_string()?;
        Ok(Answer { status, body })
    }
}

/// A data directory of a real `banyan-agent`.
#[derive(Clone, Debug)]
pub struct Agent {
    binary: PathBuf,
    dir: PathBuf,
    log: PathBuf,
}

impl Agent {
    /// Its data directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// A command on it.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.binary);
        command.arg("--data-dir").arg(&self.dir).args(arguments).env_remove("BANYAN_LANG");
        command
    }

    /// Runs a command to its end, whatever that is.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn output(&self, arguments: &[&str]) -> Result<Output> {
        self.command(arguments).output().context("starting banyan-agent")
    }

    /// Runs a command that must succeed; gives what it wrote to stdout.
    ///
    /// # Errors
    /// It does not succeed: with what it wrote.
    pub fn ask(&self, arguments: &[&str]) -> Result<String> {
        done(&format!("banyan-agent {}", arguments.join(" ")), &self.output(arguments)?)
    }

    /// `status` as JSON.
    ///
    /// # Errors
    /// As [`Agent::ask`].
    pub fn status(&self) -> Result<Value> {
        Ok(serde_json::from_str(&self.ask(&["status", "--format", "json"])?)?)
    }

    /// Starts a command that goes on (`run`).
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start(&self, arguments: &[&str]) -> Result<Process> {
        Process::start(&mut self.command(arguments), &self.log)
    }
}
