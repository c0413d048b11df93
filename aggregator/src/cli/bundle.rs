//! `bundle import`: the centre's part of a stick's round.

use std::collections::HashSet;
use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use banyan_shared::catalogue::Lang;
use banyan_shared::ids::AgentId;
use banyan_shared::limits::BUNDLE_BYTES_MAX;
use banyan_shared::wire::{Bundle, Message, Way};
use clap::{Args, Subcommand};
use serde::Serialize;

use super::{Global, show};
use crate::client::{Client, print_json};
use crate::http::Request;
use crate::service::{BundleCall, BundleTaken, Format, Usage, say, usage};

const EXAMPLES: &str = "\
示例 Examples:
  banyan-aggregator bundle import /media/usb                    目录中全部数据包 every bundle in the directory
  banyan-aggregator bundle import V1.bundle V2.bundle -o answers

每个数据包旁写出回复 (NAME.answer)，随U盘带回诊所，用 banyan-agent bundle import 读入。可重复导入，不会重复计数。
An answer (NAME.answer) is written beside each bundle: it goes back to the clinic with the stick, for banyan-agent
bundle import. Taking a bundle in twice counts nothing twice.

退出码 Exit: 0 全部导入 all taken in, 1 有未导入的 some were not";

#[derive(Subcommand)]
pub(super) enum Command {
    /// 导入 Take bundles in and write the answers
    #[command(after_help = EXAMPLES)]
    Import(Import),
}

#[derive(Args)]
pub(super) struct Import {
    /// 数据包，或目录 Bundles, or directories of bundles
    #[arg(required = true, value_name = "F|DIR")]
    files: Vec<PathBuf>,
    /// 回复写到此目录 Where to write the answers, if not beside the bundles
    #[arg(short, long, value_name = "DIR")]
    output: Option<PathBuf>,
}

/// Bytes of messages in one request: between two of them the service attends to others.
const PART_BYTES: usize = 1 << 20;
/// Most files at once.
const FILES_MAX: usize = 100_000;

/// What came of a file.
#[derive(Serialize)]
struct Row {
    file: PathBuf,
    agent: Option<String>,
    home: Option<String>,
    name: Option<String>,
    new: u64,
    known: u64,
    refused: u64,
    /// Entries whose number is held with other content.
    reused: u64,
    /// `taken`, or why not all of it was.
    outcome: &'static str,
    /// In words, where it was not.
    why: Option<String>,
    answer: Option<PathBuf>,
}

pub(super) fn import(args: &Import, global: &Global, client: &Client) -> Result<ExitCode> {
    let lang = global.lang;
    let files = bundles(&args.files, lang)?;
    if let Some(folder) = &args.output {
        fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
    }
    let many = files.len();
    let mut rows = Vec::with_capacity(many);
    let mut written = HashSet::new();
    for (at, file) in files.into_iter().enumerate() {
        let row = one(file, args, &mut written, lang, client)?;
        if many > 1 {
            let shown = row.file.display();
            eprintln!("{}/{many} {shown}: {}", at + 1, row.why.as_deref().unwrap_or(row.outcome));
        }
        rows.push(row);
    }
    let failed = rows.iter().filter(|row| row.outcome != "taken").count();
    print(&rows, global)?;
    for row in rows.iter().filter(|row| many == 1 && row.why.is_some()) {
        eprintln!("{}", row.why.as_deref().unwrap_or_default());
    }
    eprintln!(
        "{}",
        say(
            lang,
            format!("{many} 个数据包，{failed} 个未能全部导入。请把 .answer 文件带回诊所。"),
            format!(
                "{many} bundles, {failed} not wholly taken in. Take the .answer files back to the clinics."
            ),
        )
    );
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The bundles that paths name: files as they are, and of directories every file that is a bundle on its way
/// up, whatever it is called.
fn bundles(paths: &[PathBuf], lang: Lang) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for path in paths {
        if !path.is_dir() {
            files.push(path.clone());
            continue;
        }
        let reading = || format!("reading {}", path.display());
        let mut inside = Vec::new();
        for entry in fs::read_dir(path).with_context(reading)? {
            let file = entry.with_context(reading)?.path();
            let named = |what: &str| file.extension().is_some_and(|extension| extension == what);
            // Answers lie on the same stick, and what was left of a file whose writing was cut off. One that
            // has lost even its beginning is told of if it has the name.
            let other = named("answer") || named("new");
            let claims = || named("bundle") || is_bundle(&file).unwrap_or(false);
            if file.is_file() && !other && claims() {
                inside.push(file);
            }
            if inside.len() > FILES_MAX {
                let shown = path.display();
                return Err(usage(say(
                    lang,
                    format!("{shown} 中数据包超过 {FILES_MAX} 个：请分目录导入"),
                    format!(
                        "there are more than {FILES_MAX} bundles in {shown}: import them from several directories"
                    ),
                )));
            }
        }
        if inside.is_empty() {
            let shown = path.display();
            return Err(usage(say(
                lang,
                format!("{shown} 中没有数据包"),
                format!("there is no bundle in {shown}"),
            )));
        }
        inside.sort();
        files.extend(inside);
    }
    Ok(files)
}

fn is_bundle(path: &Path) -> std::io::Result<bool> {
    let mut head = Vec::new();
    fs::File::open(path)?.take(Bundle::MAGIC_BYTES as u64).read_to_end(&mut head)?;
    Ok(Bundle::is_one(&head))
}

/// Takes one file in. What is wrong with it is told in its row and stops no other.
fn one(
    file: PathBuf,
    args: &Import,
    written: &mut HashSet<PathBuf>,
    lang: Lang,
    client: &Client,
) -> Result<Row> {
    let mut row = Row {
        file,
        agent: None,
        home: None,
        name: None,
        new: 0,
        known: 0,
        refused: 0,
        reused: 0,
        outcome: "damaged",
        why: None,
        answer: None,
    };
    let (bundle, agent) = match read(&row.file, lang) {
        Ok((bundle, agent)) => {
            row.agent = Some(agent.to_string());
            (bundle, agent)
        }
        Err(error) => {
            row.why = Some(format!("{error:#}"));
            return Ok(row);
        }
    };
    // Before anything is taken in: what cannot be answered is not half done.
    let place = answer_place(&row.file, args.output.as_deref());
    if let Err(error) = may_write(&place, agent, written, lang) {
        (row.outcome, row.why) = ("not_answered", Some(format!("{error:#}")));
        return Ok(row);
    }
    let mut taken = BundleTaken::default();
    for part in parts(&bundle) {
        let messages = part.iter().cloned().map(Message).collect();
        let name = row.file.display().to_string();
        let call = BundleCall { file: name, messages, lang };
        match client.call::<BundleTaken>(&Request::BundleImport(call)) {
            Ok(came) => taken.merge(came),
            Err(error) if error.downcast_ref::<Usage>().is_some() => {
                (row.outcome, row.why) = ("refused", Some(format!("{error:#}")));
                break;
            }
            // The service or its disk: the next file would fare no better.
            Err(error) => {
                let file = row.file.display();
                return Err(error.context(say(
                    lang,
                    format!("{file} 及其后的数据包未处理完；排除故障后再导入即可，不会重复计数"),
                    format!("{file} and what comes after it are not done: import again once mended, nothing counts twice"),
                )));
            }
        }
    }
    (row.home, row.name) = (taken.home.clone(), taken.name.clone());
    (row.new, row.known, row.refused) = (taken.new, taken.known, taken.refused);
    row.reused = taken.reused;
    if row.why.is_none() {
        (row.outcome, row.why) = judged(&taken, lang);
    }
    if !taken.answer.is_empty() {
        write_answer(&place, std::mem::take(&mut taken.answer))?;
        row.answer = Some(place);
    }
    Ok(row)
}

fn judged(taken: &BundleTaken, lang: Lang) -> (&'static str, Option<String>) {
    if taken.is_whole() {
        return ("taken", None);
    }
    if let Some(refusal) = taken.refusal {
        return (refusal.code(), Some(refusal.text(lang).to_owned()));
    }
    if taken.unknown {
        let text = say(
            lang,
            "本中心不认识此终端，数据包中也没有本中心的授权：是在别的中心注册的吗？未导入",
            "this centre does not know the agent, and nothing in the bundle is by this centre: was it enrolled at \
             another one? Nothing was taken in",
        );
        return ("unknown_agent", Some(text));
    }
    let n = taken.without_grant;
    if n > 0 {
        let text = say(
            lang,
            format!("{n} 批缺少本中心认可的授权，未导入；请把回复带回诊所，重新导出后再导入"),
            format!(
                "{n} batches come without a grant that is known here and were not taken in: take the answer back, \
                 export and import once more"
            ),
        );
        return ("without_grant", Some(text));
    }
    if taken.left_aside == 0 {
        let text = say(
            lang,
            "数据已导入，但回复太长，未能全部写下；请把回复带回诊所，重新导出后再导入",
            "the counts are in, but not all of the answer had room: take it back, export and import once more",
        );
        return ("partly_answered", Some(text));
    }
    let n = taken.left_aside;
    let text = say(
        lang,
        format!("{n} 条消息未通过核验，已略去；其余已导入"),
        format!("{n} messages do not verify and were left aside; the others are in"),
    );
    ("left_aside", Some(text))
}

fn read(file: &Path, lang: Lang) -> Result<(Bundle, AgentId)> {
    let size = fs::metadata(file)?.len();
    if size > BUNDLE_BYTES_MAX as u64 {
        bail!(say(
            lang,
            format!("文件有 {size} 字节，最多 {BUNDLE_BYTES_MAX}"),
            format!("the file has {size} bytes, at most {BUNDLE_BYTES_MAX} are read"),
        ));
    }
    let whole = Bundle::from_bytes(&fs::read(file)?);
    let read = whole.and_then(|bundle| Ok((bundle.heading()?, bundle)));
    let ((agent, way), bundle) = read.map_err(|error| {
        anyhow::anyhow!(say(
            lang,
            format!("不是完整的数据包（{error}），未导入；请重新导出或拷贝"),
            format!("no whole bundle ({error}), nothing was taken in: export or copy it again"),
        ))
    })?;
    if way == Way::Down {
        bail!(say(
            lang,
            "这是给终端的回复，请带回诊所用 banyan-agent bundle import 读入",
            "this is the answer to an agent: take it back to the clinic, for banyan-agent bundle import",
        ));
    }
    Ok((bundle, agent))
}

/// `V1-VC.bundle` → `V1-VC.answer`.
fn answer_place(file: &Path, folder: Option<&Path>) -> PathBuf {
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    let name = format!("{}.answer", name.strip_suffix(".bundle").unwrap_or(&name));
    folder.map_or_else(|| file.with_file_name(&name), |folder| folder.join(&name))
}

/// Refuses to write over anything but an earlier answer to the same agent, or one that is damaged.
fn may_write(
    place: &Path,
    agent: AgentId,
    written: &mut HashSet<PathBuf>,
    lang: Lang,
) -> Result<()> {
    let shown = place.display();
    if !written.insert(place.to_owned()) {
        bail!(say(
            lang,
            format!("两个数据包的回复同名（{shown}），未导入；请换个目录（-o）另行导入"),
            format!(
                "two answers would have one name ({shown}), it was not taken in: import it with another directory, -o"
            ),
        ));
    }
    // A damaged one of ours is nobody's loss.
    let whose = |bundle: Bundle| bundle.heading().ok();
    let other = fs::read(place).ok().and_then(|bytes| Bundle::from_bytes(&bytes).ok()).map(whose);
    let may = match other {
        Some(heading) => heading == Some((agent, Way::Down)),
        None => !place.exists() || is_bundle(place).unwrap_or(false),
    };
    if !may {
        bail!(say(
            lang,
            format!("{shown} 已存在，且不是给此终端的回复：未覆盖、未导入；请换个目录（-o）"),
            format!(
                "{shown} is there and no answer to this agent: it was left alone, and nothing taken in; take \
                 another directory, -o"
            ),
        ));
    }
    Ok(())
}

/// The messages in order, in parts.
fn parts(bundle: &Bundle) -> Vec<&[Vec<u8>]> {
    let (mut parts, mut from, mut bytes) = (Vec::new(), 0, 0);
    for (at, message) in bundle.messages.iter().enumerate() {
        if bytes + message.len() > PART_BYTES && at > from {
            parts.push(&bundle.messages[from..at]);
            (from, bytes) = (at, 0);
        }
        bytes += message.len();
    }
    parts.push(&bundle.messages[from..]);
    parts
}

/// Writes the answer beside its place and moves it there once it is on the stick.
fn write_answer(place: &Path, answer: Vec<Message>) -> Result<()> {
    let messages = answer.into_iter().map(|Message(bytes)| bytes).collect();
    let mut beside = place.as_os_str().to_owned();
    beside.push(".new");
    let beside = PathBuf::from(beside);
    let writing = || {
        format!(
            "writing {} (数据已入库，换个目录 -o 再导入一次即可 / the counts are in: import once more with another \
             directory, -o)",
            place.display()
        )
    };
    let mut out = fs::File::create(&beside).with_context(writing)?;
    out.write_all(&Bundle { messages }.to_bytes()).with_context(writing)?;
    out.sync_all().with_context(writing)?;
    fs::rename(&beside, place).with_context(writing)?;
    // The name too is on the stick before it is said to be.
    #[cfg(unix)]
    if let Some(folder) = place.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        fs::File::open(folder).and_then(|folder| folder.sync_all()).with_context(writing)?;
    }
    Ok(())
}

fn print(rows: &[Row], global: &Global) -> Result<()> {
    let answer = serde_json::json!({ "bundles": rows });
    match global.format {
        Format::Json => print_json(&answer),
        format => show(
            &answer,
            "bundles",
            format,
            &[
                "file", "agent", "home", "name", "new", "known", "refused", "reused", "outcome",
                "answer",
            ],
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_wholly_taken_in_is_called_taken() {
        let all = BundleTaken { new: 3, ..BundleTaken::default() };
        assert_eq!(judged(&all, Lang::En), ("taken", None));
        let cases = [
            (BundleTaken { left_aside: 1, ..all.clone() }, "left_aside"),
            (BundleTaken { without_grant: 1, left_aside: 1, ..all.clone() }, "without_grant"),
            (BundleTaken { unsaid: 1, ..all.clone() }, "partly_answered"),
            (BundleTaken { unknown: true, without_grant: 1, ..all }, "unknown_agent"),
        ];
        for (taken, outcome) in cases {
            let (told, why) = judged(&taken, Lang::En);
            assert!(told == outcome && why.is_some(), "{told}: {why:?}");
        }
    }
}
