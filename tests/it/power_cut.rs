//! Power cuts: an image of the file system as the disk holds it at one moment, mounted as after a cut.
//!
//! A writer process saves entries into a store on a small ext4 on a loop device and notes outside it what it
//! was told is saved. At a random moment it is stopped, the backing file is copied (it holds what reached the
//! disk, not what the kernel still keeps in memory), and the copy is mounted and opened: everything noted
//! must be there. The next round goes on from that copy. The same is done to sled with nothing but its own
//! `flush()`, which must be caught losing entries.
//!
//! Needs root, `losetup`, `mkfs.ext4`, `mount`; run with `--features power-cut`.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use banyan_agent::queue::{NewEntry, Queue, QueueError, State};
use banyan_aggregator::ledger::{Ledger, NewRow};
use banyan_shared::ids::{Epoch, Millis, Seq};
use banyan_shared::period::Date;
use banyan_tests::until;

use crate::small::SOON;

/// Says to a process of this binary which store to write; without it the writer's test does nothing.
const STORE: &str = "BANYAN_POWER_CUT_STORE";
const DIR: &str = "BANYAN_POWER_CUT_DIR";
const NOTE: &str = "BANYAN_POWER_CUT_NOTE";

/// A store whose promise is tested: what `save` returned is there after a cut.
trait Durable {
    /// Saves entries `first..first + many` and returns when they are safe.
    fn save(&mut self, first: u64, many: u64) -> Result<(), String>;
    /// How many of the entries `1..=through` are gone or changed.
    fn lost(&mut self, through: u64) -> u64;
}

fn content(n: u64) -> Vec<u8> {
    let mut bytes = n.to_be_bytes().to_vec();
    bytes.extend((0..150).map(|i| (n.wrapping_mul(31).wrapping_add(i) % 251) as u8));
    bytes
}

impl Durable for Queue {
    fn save(&mut self, first: u64, many: u64) -> Result<(), String> {
        let entries: Vec<NewEntry> = (first..first + many)
            .map(|n| NewEntry {
                payload: content(n),
                hash: n,
                day: Date::from_days(20_000).unwrap(),
            })
            .collect();
        let seqs = self.append(&entries).map_err(|error| format!("{error:?}"))?;
        assert_eq!(seqs.first(), Some(&first));
        let epoch = self.epoch();
        if first.is_multiple_of(5) {
            // Receipts come in between: packing and freeing of segments must not cost anything either.
            self.confirm(epoch, &[(1, first - first % 3)]).map_err(|error| format!("{error:?}"))?;
        }
        Ok(())
    }

    fn lost(&mut self, through: u64) -> u64 {
        let epoch = self.epoch();
        let good = |seq: Seq| {
            self.get(epoch, seq).unwrap().is_some_and(|entry| entry.payload == content(seq))
        };
        (1..=through).filter(|&seq| !good(seq)).count() as u64
    }
}

/// The centre's ledger: what a commit has answered may be receipted.
impl Durable for Ledger {
    fn save(&mut self, first: u64, many: u64) -> Result<(), String> {
        let rows: Vec<NewRow> = (first..first + many).map(|n| NewRow::batch(content(n))).collect();
        let now = Millis(i64::try_from(first).unwrap());
        let committed = self.commit_now(&rows, now).map_err(|error| error.to_string())?;
        assert_eq!(committed.positions, first..first + many);
        Ok(())
    }

    fn lost(&mut self, through: u64) -> u64 {
        self.verify_chain(1).unwrap();
        let reader = self.reader().unwrap();
        let good = |n: u64| reader.row(n).unwrap().is_some_and(|row| row.bytes == content(n));
        (1..=through).filter(|&n| !good(n)).count() as u64
    }
}

/// sled as its manual has it: insert, then `flush()`.
struct PlainSled(sled::Db);

impl Durable for PlainSled {
    fn save(&mut self, first: u64, many: u64) -> Result<(), String> {
        for n in first..first + many {
            self.0.insert(n.to_be_bytes(), content(n)).map_err(|error| error.to_string())?;
        }
        self.0.flush().map(drop).map_err(|error| error.to_string())
    }

    fn lost(&mut self, through: u64) -> u64 {
        let good = |n: u64| matches!(self.0.get(n.to_be_bytes()), Ok(Some(bytes)) if bytes[..] == content(n)[..]);
        (1..=through).filter(|&n| !good(n)).count() as u64
    }
}

fn open(store: &str, dir: &Path) -> (Box<dyn Durable>, u64) {
    match store {
        "queue" => {
            let (queue, damage) =
                Queue::open(dir, |counter| Epoch { counter, random: 1 }, Millis(0)).unwrap();
            assert_eq!(damage, None, "a power cut is no damage");
            let issued = queue.issued(queue.epoch());
            (Box::new(queue), issued)
        }
        "ledger" => {
            let ledger = if dir.join("ledger.db").exists() {
                Ledger::open(dir).unwrap()
            } else {
                Ledger::create(dir, [7; 16]).unwrap()
            };
            let issued = ledger.head().position;
            (Box::new(ledger), issued)
        }
        "plain sled" => {
            let db = sled::Config::new()
                .path(dir)
                .segment_size(64 * 1024)
                .flush_every_ms(None)
                .open()
                .unwrap();
            let last = db
                .last()
                .unwrap()
                .map_or(0, |(key, _)| u64::from_be_bytes(key[..].try_into().unwrap()));
            (Box::new(PlainSled(db)), last)
        }
        other => panic!("no store {other}"),
    }
}

/// The writer: checks what was noted in earlier rounds, then saves and notes until it is killed.
#[test]
fn writer() {
    let Ok(store) = std::env::var(STORE) else { return };
    let dir = PathBuf::from(std::env::var(DIR).unwrap());
    let note =
        std::fs::File::options().read(true).write(true).open(std::env::var(NOTE).unwrap()).unwrap();
    let mut out = std::io::stdout();
    let (mut durable, issued) = open(&store, &dir);
    let lost = durable.lost(noted(&note));
    writeln!(out, "\nlost {lost}").unwrap();
    if lost > 0 {
        return;
    }
    let mut next = issued + 1;
    loop {
        let many = 1 + next % 7;
        if let Err(error) = durable.save(next, many) {
            writeln!(out, "\nfailed {error}").unwrap();
            return;
        }
        next += many;
        note.write_all_at(&(next - 1).to_be_bytes(), 0).unwrap();
    }
}

fn noted(note: &std::fs::File) -> u64 {
    let mut bytes = [0; 8];
    note.read_exact_at(&mut bytes, 0).unwrap();
    u64::from_be_bytes(bytes)
}

fn run(program: &str, args: &[&str]) -> String {
    let output = Command::new(program)
        .args(args)
        .output()
        .unwrap_or_else(|error| panic!("{program} is needed: {error}"));
    assert!(
        output.status.success(),
        "{program} {args:?} (root is needed): {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// A mounted image; unmounted when dropped.
struct Mounted {
    at: PathBuf,
}

impl Mounted {
    fn new(image: &Path, at: &Path) -> Mounted {
        std::fs::create_dir_all(at).unwrap();
        // `loop` frees the device by itself on unmounting.
        run("mount", &["-o", "loop", image.to_str().unwrap(), at.to_str().unwrap()]);
        Mounted { at: at.to_owned() }
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // Whoever was killed may hold it a moment longer.
        let unmounted = until("unmounted", SOON, || {
            let done = Command::new("umount").arg(&self.at).status()?;
            Ok(done.success().then_some(()))
        });
        if !std::thread::panicking() {
            unmounted.unwrap_or_else(|error| panic!("{}: {error}", self.at.display()));
        }
    }
}

fn fresh_image(path: &Path, bytes: u64) {
    std::fs::File::create(path).unwrap().set_len(bytes).unwrap();
    run("mkfs.ext4", &["-q", "-F", path.to_str().unwrap()]);
}

/// A writer process; killed when dropped.
struct Writer {
    child: Child,
    lines: std::io::Lines<BufReader<ChildStdout>>,
}

impl Writer {
    fn start(store: &str, dir: &Path, note: &Path) -> Writer {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "power_cut::writer", "--nocapture"])
            .env(STORE, store)
            .env(DIR, dir)
            .env(NOTE, note)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Writer { child, lines }
    }

    /// The rest of the first line that begins so; `None` when the process ended without it.
    fn say(&mut self, start: &str) -> Option<String> {
        self.lines.by_ref().find_map(|line| line.ok()?.strip_prefix(start).map(str::to_owned))
    }

    /// Stops the process wherever it is, even between a write and its sync.
    fn stop(&self) {
        let pid = self.child.id().to_string();
        run("kill", &["-STOP", &pid]);
        let tasks = format!("/proc/{pid}/task");
        let stopped = |task: std::fs::DirEntry| {
            let stat = std::fs::read_to_string(task.path().join("stat")).unwrap_or_default();
            stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('T'))
        };
        let started = Instant::now();
        while !std::fs::read_dir(&tasks).unwrap().all(|task| stopped(task.unwrap())) {
            assert!(started.elapsed() < SOON, "the writer does not stop");
            std::thread::yield_now();
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What came of a series of cuts.
struct Outcome {
    rounds: u32,
    saved: u64,
    lost: u64,
    not_opened: u32,
}

/// Cuts the power until `enough` (rounds, entries saved) or, when `until_loss`, until the first loss.
fn cut(store: &str, enough: (u32, u64), until_loss: bool) -> Outcome {
    // The ledger's log grows to some 32 MB before it is folded in; cuts are to meet that too.
    const IMAGE_BYTES: u64 = 96 * 1024 * 1024;
    let work = tempfile::tempdir().unwrap();
    let mut image = work.path().join("image-0");
    fresh_image(&image, IMAGE_BYTES);
    let note_path = work.path().join("note");
    std::fs::write(&note_path, [0; 8]).unwrap();
    let note = std::fs::File::open(&note_path).unwrap();
    let mut outcome = Outcome { rounds: 0, saved: 0, lost: 0, not_opened: 0 };
    loop {
        let mounted = Mounted::new(&image, &work.path().join("mount"));
        let mut writer = Writer::start(store, &mounted.at.join("store"), &note_path);
        match writer.say("lost ") {
            Some(lost) => outcome.lost += lost.parse::<u64>().unwrap(),
            None => outcome.not_opened += 1,
        }
        let failed = outcome.lost > 0 || outcome.not_opened > 0;
        if failed || (outcome.rounds >= enough.0 && outcome.saved >= enough.1) {
            return outcome;
        }
        assert!(
            !until_loss || outcome.rounds < enough.0,
            "nothing was lost: the test sees nothing"
        );
        // Run until at least something more is saved, then for a while that differs from round to round.
        let before = noted(&note);
        let pause = Duration::from_micros(50_000 + u64::from(outcome.rounds) * 7_919 % 200_000);
        let started = Instant::now();
        let per_round = enough.1 / u64::from(enough.0);
        while started.elapsed() < pause || noted(&note) < before + per_round {
            assert!(started.elapsed() < Duration::from_secs(60), "the writer does not get on");
            std::thread::sleep(Duration::from_micros(700));
        }
        writer.stop();
        outcome.rounds += 1;
        outcome.saved = noted(&note);
        let next = work.path().join(format!("image-{}", outcome.rounds));
        run("cp", &["--sparse=always", image.to_str().unwrap(), next.to_str().unwrap()]);
        drop(writer);
        drop(mounted);
        std::fs::remove_file(&image).unwrap();
        image = next;
    }
}

#[test]
fn the_queue_loses_nothing_that_was_saved() {
    let outcome = cut("queue", (40, 6_000), false);
    eprintln!("queue: {} cuts, {} entries saved", outcome.rounds, outcome.saved);
    assert!(outcome.rounds >= 30 && outcome.saved >= 5_000);
    assert_eq!((outcome.lost, outcome.not_opened), (0, 0));
}

#[test]
fn the_ledger_loses_nothing_that_was_committed() {
    let outcome = cut("ledger", (40, 6_000), false);
    eprintln!("ledger: {} cuts, {} rows committed", outcome.rounds, outcome.saved);
    assert!(outcome.rounds >= 30 && outcome.saved >= 5_000);
    assert_eq!((outcome.lost, outcome.not_opened), (0, 0));
}

#[test]
fn the_same_test_catches_plain_flush() {
    let outcome = cut("plain sled", (10, 500), true);
    eprintln!(
        "plain sled: after {} cuts {} of {} entries lost, {} times it did not open",
        outcome.rounds, outcome.lost, outcome.saved, outcome.not_opened
    );
    assert!(outcome.lost > 0 || outcome.not_opened > 0);
}

#[test]
fn a_full_disk_is_said_and_got_over() {
    let work = tempfile::tempdir().unwrap();
    let image = work.path().join("image");
    fresh_image(&image, 24 * 1024 * 1024);
    let mounted = Mounted::new(&image, &work.path().join("mount"));
    // After an end that was not orderly, opening takes room for a copy of the store.
    let filler = mounted.at.join("filler");
    std::fs::write(&filler, vec![7; 13 * 1024 * 1024]).unwrap();
    let dir = mounted.at.join("store");
    let reopen = || Queue::open(&dir, |counter| Epoch { counter, random: 1 }, Millis(0));
    let (mut queue, _) = reopen().unwrap();
    let mut saved: u64 = 0;
    let error = loop {
        let entries: Vec<NewEntry> = (saved + 1..=saved + 50)
            .map(|n| NewEntry {
                payload: content(n),
                hash: n,
                day: Date::from_days(20_000).unwrap(),
            })
            .collect();
        match queue.append(&entries) {
            Ok(_) => saved += 50,
            Err(error) => break error,
        }
    };
    assert!(matches!(error, QueueError::DiskFull { .. }), "{error:?}");
    drop(queue);
    // While it is still full it either opens or says so again.
    if let Err(error) = reopen() {
        assert!(matches!(error, QueueError::DiskFull { .. }), "{error:?}");
    }
    std::fs::remove_file(filler).unwrap();
    let (mut queue, damage) = reopen().unwrap();
    assert_eq!(damage, None);
    let epoch = queue.epoch();
    assert_eq!(queue.lost(saved), 0);
    assert_eq!(queue.state(epoch, saved), Some(State::Waiting));
    let next = queue.issued(epoch) + 1;
    queue.save(next, 3).unwrap();
    drop(queue);
    drop(mounted);
}
