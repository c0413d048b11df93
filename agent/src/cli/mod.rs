//! The command line: reads arguments, asks the agent, shows the answer.
//!
//! Data goes to stdout, messages to stderr. Exit: 0 done, 1 failed, 2 wrong usage, 3 not finished in time.

mod args;
mod bundle;
mod enroll;
mod import;
mod show;
pub(crate) mod sync;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use banyan_shared::catalogue::Lang;
use clap::Parser;

use crate::command::{Command, Draft, Reply};
use crate::core::{Core, Options};
use crate::driver::Driver;
use crate::local;
use crate::note::{Note, note};
use args::{Args, BundleVerb, Format, QueueVerb, Verb};

/// How long a command waits for a data directory that another one has open.
const LOCKED_WAIT: Duration = Duration::from_secs(10);

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    Done,
    Failed,
    Usage,
    Late,
}

impl Exit {
    fn code(self) -> u8 {
        match self {
            Exit::Done => 0,
            Exit::Failed => 1,
            Exit::Usage => 2,
            Exit::Late => 3,
        }
    }
}

/// A line to stderr; a closed pipe is nobody's fault.
pub(crate) fn err_line(text: &str) {
    use std::io::Write;
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// A note to stderr.
pub(crate) fn tell(lang: Lang, note: &Note) {
    use crate::note::Level;
    let head = match (note.level, lang) {
        (Level::Error, Lang::Zh) => "错误：",
        (Level::Error, Lang::En) => "error: ",
        (Level::Warning, Lang::Zh) => "提示：",
        (Level::Warning, Lang::En) => "warning: ",
        (Level::Info, _) => "",
    };
    err_line(&format!("{head}{}", note.text(lang)));
}

/// What every command needs to know.
pub(crate) struct Ui {
    pub(crate) lang: Lang,
    pub(crate) format: Format,
    pub(crate) data_dir: PathBuf,
}

impl Ui {
    /// A message to stderr.
    pub(crate) fn say(&self, zh: &str, en: &str) {
        err_line(if self.lang == Lang::Zh { zh } else { en });
    }

    /// A note to stderr.
    pub(crate) fn tell(&self, note: &Note) {
        tell(self.lang, note);
    }

    fn fail(&self, note: &Note) -> Exit {
        self.tell(note);
        Exit::Failed
    }
}

/// The agent a command talks to.
pub(crate) enum Agent {
    /// The one that is running.
    Running(PathBuf),
    /// Opened by this command.
    Own(Box<Core>),
}

impl Agent {
    /// The running agent if there is one; else the data directory is opened, after waiting a little for
    /// another command to finish with it.
    pub(crate) fn reach(data_dir: &Path) -> Result<Agent, Note> {
        let deadline = Instant::now() + LOCKED_WAIT;
        loop {
            if local::ask(data_dir, &Command::SyncState).is_some() {
                return Ok(Agent::Running(data_dir.to_owned()));
            }
            match Core::open(Options::new(data_dir)) {
                Ok(mut core) => {
                    core.set_link("not_running");
                    return Ok(Agent::Own(Box::new(core)));
                }
                Err(note) if note.code == "locked" && Instant::now() < deadline => {
                    std::thread::sleep(Duration::from_millis(100));
                }
                Err(note) => return Err(note),
            }
        }
    }

    /// Asks it.
    pub(crate) fn ask(&mut self, command: Command) -> Reply {
        match self {
            Agent::Own(core) => core.handle(command),
            Agent::Running(data_dir) => match local::ask(data_dir, &command) {
                Some(reply) => reply,
                // It stopped meanwhile.
                None => match Agent::reach(data_dir) {
                    Ok(agent) => {
                        *self = agent;
                        self.ask_once(command)
                    }
                    Err(note) => Reply::Failed(note),
                },
            },
        }
    }

    fn ask_once(&mut self, command: Command) -> Reply {
        match self {
            Agent::Own(core) => core.handle(command),
            Agent::Running(data_dir) => {
                local::ask(data_dir, &command).unwrap_or_else(|| Reply::Failed(no_answer()))
            }
        }
    }
}

/// What to say where the running service does not answer.
fn no_answer() -> Note {
    note!(
        Error,
        "no_answer",
        "正在运行的终端没有应答，请稍后重试",
        "the running agent does not answer: try again later"
    )
}

/// Runs the program with the process's arguments.
pub fn main() -> ExitCode {
    ExitCode::from(run_args(std::env::args_os().collect()))
}

/// Runs the program with these arguments, the first being its name; gives the exit code.
pub fn run_args(args: Vec<OsString>) -> u8 {
    let args = match Args::try_parse_from(args) {
        Ok(args) => args,
        Err(error) => {
            let exit = if error.use_stderr() { Exit::Usage } else { Exit::Done };
            // A closed pipe is nobody's fault.
            let _ = error.print();
            return exit.code();
        }
    };
    let level = match args.global.verbose {
        0 => tracing::Level::WARN,
        1 => tracing::Level::INFO,
        _ => tracing::Level::DEBUG,
    };
    // By level only: a filter language would bring a regex engine, a tenth of the program. In a process
    // that runs several commands the first one's log stays.
    let _ = tracing_subscriber::fmt()
        .with_max_level(level)
        .with_writer(std::io::stderr)
        // To tell of a line that cannot be written it would write to stderr, and panic where that is full too.
        .log_internal_errors(false)
        .try_init();
    let ui = Ui {
        lang: args.global.lang.into(),
        format: args.global.format,
        data_dir: args.global.data_dir.clone().unwrap_or_else(default_data_dir),
    };
    run(&ui, args.verb).code()
}

/// Where an agent lives unless told otherwise: the user's own directory for data.
fn default_data_dir() -> PathBuf {
    let from = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    #[cfg(windows)]
    let base = from("LOCALAPPDATA").or_else(|| from("APPDATA")).map(|dir| dir.join("Banyan"));
    #[cfg(not(windows))]
    let base = from("XDG_DATA_HOME")
        .or_else(|| from("HOME").map(|home| home.join(".local").join("share")))
        .map(|dir| dir.join("banyan"));
    base.unwrap_or_else(|| PathBuf::from("banyan-data")).join("agent")
}

fn run(ui: &Ui, verb: Verb) -> Exit {
    match verb {
        Verb::Enroll(enroll) => enroll::run(ui, &enroll),
        Verb::Run => sync::serve(ui),
        Verb::Sync(sync) => sync::run(ui, sync.timeout.0),
        Verb::Record(record) => save(ui, record.draft()),
        Verb::Withdraw(withdraw) => save(ui, withdraw.draft()),
        Verb::Import(import) => import::run(ui, &import),
        Verb::Status => with_agent(ui, |agent| match agent.ask(Command::Status) {
            Reply::Status(status) => show::status(ui, &status),
            other => show::unexpected(ui, other),
        }),
        Verb::Bundle { verb: BundleVerb::Export { file } } => bundle::export(ui, &file),
        Verb::Bundle { verb: BundleVerb::Import { file } } => bundle::import(ui, &file),
        Verb::Queue { verb: QueueVerb::Ls } => {
            with_agent(ui, |agent| match agent.ask(Command::Queue) {
                Reply::Queue(rows) => show::queue(ui, &rows),
                other => show::unexpected(ui, other),
            })
        }
        Verb::Queue { verb: QueueVerb::Show { entry } } => {
            with_agent(ui, |agent| match agent.ask(Command::Show { entry: entry.clone() }) {
                Reply::Shown(shown) => show::entry(ui, &shown),
                other => show::unexpected(ui, other),
            })
        }
    }
}

fn with_agent(ui: &Ui, f: impl FnOnce(&mut Agent) -> Exit) -> Exit {
    match Agent::reach(&ui.data_dir) {
        Ok(mut agent) => f(&mut agent),
        Err(note) => ui.fail(&note),
    }
}

fn save(ui: &Ui, draft: Result<Draft, Note>) -> Exit {
    let draft = match draft {
        Ok(draft) => draft,
        Err(note) => {
            ui.tell(&note);
            return Exit::Usage;
        }
    };
    with_agent(ui, |agent| match agent.ask(Command::Save { drafts: vec![draft], together: true }) {
        Reply::Saved { saved, refused } => show::saved(ui, &saved, &refused),
        other => show::unexpected(ui, other),
    })
}

/// A runtime for one agent: little of everything.
pub(crate) fn runtime() -> Result<tokio::runtime::Runtime, Note> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(4)
        .build()
        .map_err(|error| note!(Error, "runtime", "程序无法启动：{error}", "cannot start: {error}"))
}

/// Opens a driver, waiting a little for another command to finish with the data directory.
pub(crate) fn open_driver(data_dir: &Path) -> Result<Driver, Note> {
    patiently(|| Driver::open(Options::new(data_dir)))
}

/// Does what needs the data directory, waiting a little for another command to finish with it.
pub(crate) fn patiently<T>(mut f: impl FnMut() -> Result<T, Note>) -> Result<T, Note> {
    let deadline = Instant::now() + LOCKED_WAIT;
    loop {
        match f() {
            Err(note) if note.code == "locked" && Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(100));
            }
            result => return result,
        }
    }
}
