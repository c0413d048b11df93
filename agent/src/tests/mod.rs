//! The agent against a small centre made of the real [`Inbox`], without a network: every message goes through
//! the same bytes.

mod beyond;
mod capture;
mod centre;
mod damage;
mod delivery;
mod elsewhere;
mod lines;
mod programs;
mod running;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use banyan_shared::ids::Millis;

use crate::clock::Clock;
use crate::command::{Command, Draft, Refused, Reply, Saved};
use crate::core::{Core, Options};
use crate::identity::Identity;
pub(crate) use centre::Centre;

/// 2026-03-10 12:00 in Shanghai.
pub(crate) const NOW: Millis = Millis(1_773_115_200_000);
pub(crate) const DAY_MS: i64 = 86_400_000;

/// A clock the test sets.
#[derive(Debug)]
pub(crate) struct TestClock(AtomicI64);

impl TestClock {
    pub(crate) fn set(&self, at: Millis) {
        self.0.store(at.0, Ordering::Relaxed);
    }
}

impl Clock for TestClock {
    fn now(&self) -> Millis {
        Millis(self.0.load(Ordering::Relaxed))
    }
    fn steady(&self) -> Millis {
        self.now()
    }
}

pub(crate) fn options(dir: &Path, machine: u64) -> (Options, Arc<TestClock>) {
    let clock = Arc::new(TestClock(AtomicI64::new(NOW.0)));
    let options = Options { machine: Some(machine), clock: clock.clone(), ..Options::new(dir) };
    (options, clock)
}

/// An agent enrolled by file, not yet certified.
pub(crate) fn enrolled(dir: &Path, centre: &Centre) -> (Core, Arc<TestClock>) {
    let file = centre.file();
    Identity::from_file(dir, &file, &file.offers[0]).unwrap();
    let (options, clock) = options(dir, 1);
    (Core::open(options).unwrap(), clock)
}

pub(crate) fn draft(form: &str, period: &str, values: &[&str]) -> Draft {
    let pair = |text: &&str| {
        let (element, value) = text.split_once('=').unwrap();
        (element.to_owned(), value.to_owned())
    };
    Draft {
        form: form.to_owned(),
        period: period.to_owned(),
        values: values.iter().map(pair).collect(),
        ..Draft::default()
    }
}

pub(crate) fn save_all(core: &mut Core, drafts: Vec<Draft>) -> (Vec<Saved>, Vec<Refused>) {
    match core.handle(Command::Save { drafts, together: true }) {
        Reply::Saved { saved, refused } => (saved, refused),
        other => panic!("{other:?}"),
    }
}

/// Saves a draft that must be good.
pub(crate) fn save(core: &mut Core, draft: Draft) -> Saved {
    let (mut saved, refused) = save_all(core, vec![draft]);
    assert!(refused.is_empty(), "{refused:?}");
    saved.pop().unwrap()
}

/// Copies a directory with all that is in it.
pub(crate) fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// The codes of what is wrong with a draft that must be bad.
pub(crate) fn faults(core: &mut Core, draft: Draft) -> Vec<String> {
    let before = status(core).waiting;
    let (saved, refused) = save_all(core, vec![draft]);
    assert!(saved.is_empty() && refused.len() == 1, "{saved:?}");
    assert_eq!(status(core).waiting, before, "nothing of it was kept");
    for fault in &refused[0].faults {
        assert!(!fault.zh.is_empty() && !fault.en.is_empty());
    }
    refused[0].faults.iter().map(|fault| fault.code.clone()).collect()
}

pub(crate) fn status(core: &mut Core) -> crate::command::Status {
    match core.handle(Command::Status) {
        Reply::Status(status) => *status,
        other => panic!("{other:?}"),
    }
}

pub(crate) fn queue(core: &mut Core) -> Vec<crate::command::QueueRow> {
    match core.handle(Command::Queue) {
        Reply::Queue(rows) => rows,
        other => panic!("{other:?}"),
    }
}
