//! `bundle export` and `bundle import`: delivery by a stick.

use std::path::{Path, PathBuf};

use banyan_shared::catalogue::Lang;
use banyan_shared::limits::BUNDLE_BYTES_MAX;
use banyan_shared::wire::{Bundle, Message, Way, WireError};
use serde::Serialize;

use super::args::Format;
use super::{Agent, Exit, Ui, show};
use crate::command::{Brought, BundlePart, Command, Reply};
use crate::files;
use crate::note::{Note, note};

/// Bytes of messages handed to a running agent at a time.
const STROKE_BYTES: usize = 2 << 20;
/// Most files looked at in a directory.
const FILES_MAX: usize = 10_000;
/// Room in a bundle for the parts still to come: one part may be as large.
const LAST_PART_BYTES: usize = 4 << 20;

/// What was written.
#[derive(Debug, Serialize)]
struct Written {
    agent: String,
    home: Option<String>,
    file: PathBuf,
    bytes: usize,
    entries: u64,
    /// Whether entries were left for another bundle.
    complete: bool,
}

/// What came of an answer.
#[derive(Debug, Serialize)]
struct Taken {
    file: PathBuf,
    #[serde(flatten)]
    came: Brought,
}

pub(super) fn export(ui: &Ui, to: &Path) -> Exit {
    match write(ui, to) {
        Ok(written) => {
            tell_written(ui, &written);
            Exit::Done
        }
        Err(note) => ui.fail(&note),
    }
}

fn failed(path: &Path, error: &std::io::Error) -> Note {
    let shown = path.display();
    note!(
        Error,
        "file",
        "{shown}：{error}，请检查U盘、路径和权限",
        "{shown}: {error}; check the stick, the path and the permissions"
    )
}

fn write(ui: &Ui, to: &Path) -> Result<Written, Note> {
    let mut agent = Agent::reach(&ui.data_dir)?;
    let mut bundle = Bundle::default();
    let (mut from, mut bytes, mut entries, mut complete) = (None, 0, 0, true);
    let (id, home) = loop {
        let part = match agent.ask(Command::BundleExport { from }) {
            Reply::BundlePart(part) => part,
            Reply::Failed(note) => return Err(note),
            _ => return Err(crate::core::other_version()),
        };
        let BundlePart { agent: id, home, messages, next, .. } = part;
        entries += part.entries;
        bytes += messages.iter().map(|message| message.0.len() + 4).sum::<usize>();
        bundle.messages.extend(messages.into_iter().map(|message| message.0));
        from = next;
        if from.is_some() && bytes + LAST_PART_BYTES > BUNDLE_BYTES_MAX {
            complete = false;
            break (id, home);
        }
        if from.is_none() {
            break (id, home);
        }
    };
    let file = if to.is_dir() {
        to.join(format!("{}.bundle", home.as_deref().unwrap_or(&id)))
    } else {
        to.to_owned()
    };
    may_replace(&file, &id)?;
    let written = bundle.to_bytes();
    files::write(&file, &written, false).map_err(|error| failed(&file, &error))?;
    Ok(Written { agent: id, home, file, bytes: written.len(), entries, complete })
}

/// Refuses to write over anything but an earlier bundle of this agent, whole or cut off.
fn may_replace(file: &Path, agent: &str) -> Result<(), Note> {
    let there = match files::read(file, BUNDLE_BYTES_MAX as u64) {
        Ok(None) => return Ok(()),
        Ok(Some(bytes)) => bytes,
        Err(error) => return Err(failed(file, &error)),
    };
    let own = match Bundle::from_bytes(&there).and_then(|bundle| bundle.heading()) {
        Ok((of, way)) => way == Way::Up && of.to_string() == agent,
        Err(_) => Bundle::is_one(&there) || there.is_empty(),
    };
    if own {
        return Ok(());
    }
    let shown = file.display();
    Err(note!(
        Error,
        "file_exists",
        "{shown} 已存在，且不是本终端的数据包，未覆盖；请换一个文件名",
        "{shown} is there already and no bundle of this agent: it was left alone; take another name"
    ))
}

fn tell_written(ui: &Ui, written: &Written) {
    let Written { file, bytes, entries, .. } = written;
    match ui.format {
        Format::Json => show::json(written),
        Format::Csv => show::rows(
            ui,
            &["agent", "home", "file", "bytes", "entries", "complete"],
            &[vec![
                written.agent.clone(),
                written.home.clone().unwrap_or_default(),
                file.display().to_string(),
                bytes.to_string(),
                entries.to_string(),
                written.complete.to_string(),
            ]],
        ),
        Format::Table => show::print(&file.display().to_string()),
    }
    ui.say(
        &format!(
            "已写入{entries}条（{bytes}字节）。收到回复前，这些数据仍保留在本机；请把U盘送到县中心，再用 \
             banyan-agent bundle import 读入回复。"
        ),
        &format!(
            "{entries} entries written ({bytes} bytes). They stay on this machine until the answer comes: take the \
             stick to the centre, then banyan-agent bundle import."
        ),
    );
    if !written.complete {
        ui.say(
            "一个文件装不下全部数据：读入回复后请再导出一次。",
            "Not everything fits into one file: export again once the answer is taken in.",
        );
    }
}

pub(super) fn import(ui: &Ui, from: &Path) -> Exit {
    match take(ui, from) {
        Ok(taken) => tell_taken(ui, &taken),
        Err(note) => ui.fail(&note),
    }
}

/// The answers a path names: itself, or those of this agent in a directory, in order of their names.
fn answers(ui: &Ui, from: &Path, agent: &str) -> Result<Vec<(PathBuf, Bundle)>, Note> {
    if !from.is_dir() {
        return Ok(vec![(from.to_owned(), read(from, agent)?)]);
    }
    let entries = std::fs::read_dir(from).map_err(|error| failed(from, &error))?;
    let mut paths = Vec::new();
    for entry in entries.take(FILES_MAX) {
        paths.push(entry.map_err(|error| failed(from, &error))?.path());
    }
    paths.sort();
    let mut found = Vec::new();
    for path in paths.into_iter().filter(|path| looks_like_one(path)) {
        match read(&path, agent) {
            Ok(bundle) => found.push((path, bundle)),
            // Bundles on their way up, and other agents' answers, lie beside it on the same stick.
            Err(note) if note.code == "not_an_answer" || note.code == "others_answer" => {}
            Err(note) => ui.tell(&note),
        }
    }
    if found.is_empty() {
        let shown = from.display();
        return Err(note!(
            Error,
            "no_answer_here",
            "{shown} 中没有给本终端（{agent}）的回复",
            "there is no answer for this agent ({agent}) in {shown}"
        ));
    }
    Ok(found)
}

fn looks_like_one(path: &Path) -> bool {
    use std::io::Read;
    let mut head = [0; Bundle::MAGIC_BYTES];
    path.is_file()
        && std::fs::File::open(path).is_ok_and(|mut file| file.read_exact(&mut head).is_ok())
        && Bundle::is_one(&head)
}

fn read(path: &Path, agent: &str) -> Result<Bundle, Note> {
    let bytes = files::read(path, BUNDLE_BYTES_MAX as u64)
        .map_err(|error| failed(path, &error))?
        .ok_or_else(|| failed(path, &std::io::ErrorKind::NotFound.into()))?;
    let damaged = |error: WireError| {
        let shown = path.display();
        note!(
            Error,
            "bundle_damaged",
            "{shown} 不是完整的数据包（{error}），请重新拷贝，或请县中心再导入一次",
            "{shown} is no whole bundle ({error}): copy it again, or have the centre take the bundle in once more"
        )
    };
    let bundle = Bundle::from_bytes(&bytes).map_err(damaged)?;
    let (of, way) = bundle.heading().map_err(damaged)?;
    let shown = path.display();
    if way == Way::Up {
        return Err(note!(
            Error,
            "not_an_answer",
            "{shown} 是送往县中心的数据包，不是回复；请在县中心用 banyan-aggregator bundle import 导入",
            "{shown} is on its way to the centre and no answer: take it in there with banyan-aggregator bundle import"
        ));
    }
    if of.to_string() != agent {
        return Err(note!(
            Error,
            "others_answer",
            "{shown} 是给终端{of}的回复，本终端是{agent}",
            "{shown} is the answer to agent {of}; this is {agent}"
        ));
    }
    Ok(bundle)
}

fn take(ui: &Ui, from: &Path) -> Result<Vec<Taken>, Note> {
    let identity = crate::identity::Identity::open(&ui.data_dir)?;
    let identity = identity.ok_or_else(crate::core::not_enrolled)?;
    let found = answers(ui, from, &identity.agent().to_string())?;
    drop(identity);
    let mut agent = Agent::reach(&ui.data_dir)?;
    let mut taken = Vec::new();
    for (file, bundle) in found {
        let mut all = Brought::default();
        for messages in strokes(bundle) {
            match agent.ask(Command::BundleImport { messages }) {
                Reply::Brought(came) => all.add(came),
                Reply::Failed(note) => return Err(note),
                _ => return Err(crate::core::other_version()),
            }
        }
        taken.push(Taken { file, came: all });
    }
    Ok(taken)
}

/// The messages in order, as many at a time as one line of the local interface takes.
fn strokes(bundle: Bundle) -> Vec<Vec<Message>> {
    let mut strokes: Vec<Vec<Message>> = Vec::new();
    let mut room = 0;
    for message in bundle.messages {
        if room < message.len() {
            strokes.push(Vec::new());
            room = STROKE_BYTES.max(message.len());
        }
        room -= message.len();
        if let Some(stroke) = strokes.last_mut() {
            stroke.push(Message(message));
        }
    }
    strokes
}

impl Brought {
    /// Adds what later messages of the same answer came to.
    fn add(&mut self, later: Brought) {
        self.receipts += later.receipts;
        self.received += later.received;
        self.newest |= later.newest;
        self.grants += later.grants;
        self.certified |= later.certified;
        self.left_aside += later.left_aside;
        self.refusal = later.refusal.or(self.refusal);
        self.unknown |= later.unknown;
        (self.waiting, self.refused) = (later.waiting, later.refused);
    }

    /// Whether anything in it could be used.
    fn is_useful(&self) -> bool {
        self.receipts > 0 || self.grants > 0 || self.certified
    }
}

fn tell_taken(ui: &Ui, taken: &[Taken]) -> Exit {
    let header = ["file", "receipts", "received", "grants", "left_aside", "waiting", "refused"];
    let row = |one: &Taken| {
        let came = &one.came;
        let numbers = [
            came.receipts,
            came.received,
            came.grants,
            came.left_aside,
            came.waiting,
            came.refused,
        ];
        let numbers = numbers.iter().map(u64::to_string);
        std::iter::once(one.file.display().to_string()).chain(numbers).collect()
    };
    let rows: Vec<Vec<String>> = taken.iter().map(row).collect();
    match (ui.format, ui.lang) {
        (Format::Json, _) => show::json(&taken),
        (Format::Table, Lang::Zh) => {
            let header = ["文件", "回执", "新确认条数", "授权", "未采用", "仍待上报", "被拒报表"];
            show::rows(ui, &header, &rows);
        }
        _ => show::rows(ui, &header, &rows),
    }
    let mut exit = Exit::Done;
    for Taken { file, came } in taken {
        let shown = file.display();
        if let Some(refusal) = came.refusal {
            let (code, text) = (refusal.code(), refusal.text(ui.lang));
            ui.say(
                &format!("中心未接受本终端：{text} [{code}]"),
                &format!("The centre does not accept this agent: {text} [{code}]"),
            );
            exit = Exit::Failed;
        } else if came.unknown && came.receipts == 0 {
            ui.say(
                "中心不认识本终端，请联系县中心。 [unknown_agent]",
                "The centre does not know this agent: ask the county desk. [unknown_agent]",
            );
            exit = Exit::Failed;
        } else if !came.is_useful() {
            ui.tell(&note!(
                Error,
                "answer_unusable",
                "{shown} 中没有一条能通过核验：不是本终端所注册中心的回复，或早于中心更换密钥",
                "nothing in {shown} verifies: it is not by the centre this agent is enrolled at, or from before a \
                 newer key of the centre"
            ));
            exit = Exit::Failed;
        } else if came.receipts > 0 && !came.newest {
            ui.say(
                "此回复不是最新的（已读过，或之后已联网、已读入更新的回复），只补充了其中的回执。",
                "This answer is not the newest word (taken in before, or the line or a later answer came first): it \
                 could only add its receipts.",
            );
        }
    }
    if let Some(Taken { came, .. }) = taken.last()
        && exit == Exit::Done
    {
        match came.waiting {
            0 => ui.say("全部收到回执。", "Everything has a receipt."),
            waiting => ui.say(
                &format!("还有{waiting}条未收到回执，下次导出时一并带走。"),
                &format!(
                    "{waiting} entries have no receipt yet; the next bundle takes them along."
                ),
            ),
        }
    }
    exit
}
