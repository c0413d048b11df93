//! A service nobody looks after: it opens at last, and it goes on.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use super::*;
use crate::cli::sync::open_at_last;
use crate::identity::DirLock;
use crate::note::Note;
use crate::{Driver, local};

const AGAIN: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(3));

fn prepared() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let file = Centre::new().file();
    Identity::from_file(dir.path(), &file, &file.offers[0]).unwrap();
    dir
}

fn open(dir: &Path) -> impl Fn() -> Result<Driver, Note> + Clone + Send + use<> {
    let dir = dir.to_owned();
    move || Driver::open(Options::new(&dir))
}

/// Opens the agent in `dir` as `run` does; `tell` gets every failure.
fn open_with(
    dir: &Path,
    stop: impl Future<Output = ()>,
    tell: impl FnMut(Note, Duration),
) -> Result<Option<Driver>, Note> {
    let runtime = crate::cli::runtime().unwrap();
    let stop = std::pin::pin!(stop);
    runtime.block_on(open_at_last(open(dir), stop, AGAIN, tell))
}

#[test]
fn run_waits_for_whoever_has_the_directory_as_long_as_it_takes() {
    let dir = prepared();
    let mut lock = Some(DirLock::take(dir.path()).unwrap());
    let mut waits = Vec::new();
    let opened = open_with(dir.path(), std::future::pending(), |note, wait| {
        assert_eq!(note.code, "locked");
        waits.push(wait.as_millis());
        if waits.len() == 4 {
            lock = None;
        }
    });
    assert!(opened.unwrap().is_some());
    assert_eq!(waits, [1, 2, 3, 3], "they grow up to a bound");
}

#[test]
fn run_waits_for_a_disk_that_does_not_take_the_queue() {
    let dir = prepared();
    std::fs::write(dir.path().join("queue"), b"in the way").unwrap();
    let mut told = Vec::new();
    let opened = open_with(dir.path(), std::future::pending(), |note, _| {
        told.push(note.code);
        if told.len() == 2 {
            std::fs::remove_file(dir.path().join("queue")).unwrap();
        }
    });
    assert!(opened.unwrap().is_some());
    assert_eq!(told, ["queue", "queue"]);
}

#[test]
fn run_gives_up_where_only_a_person_can_help_and_stops_when_told() {
    let dir = tempfile::tempdir().unwrap();
    let nothing = |_: Note, _: Duration| panic!("it is not tried again");
    let refused = open_with(dir.path(), std::future::pending(), nothing);
    assert_eq!(refused.unwrap_err().code, "not_enrolled");
    let dir = prepared();
    std::fs::write(dir.path().join("identity.json"), b"torn").unwrap();
    let refused = open_with(dir.path(), std::future::pending(), nothing);
    assert_eq!(refused.unwrap_err().code, "identity_damaged");

    let dir = prepared();
    let _lock = DirLock::take(dir.path()).unwrap();
    let (tell, told) = tokio::sync::oneshot::channel::<()>();
    let mut tell = Some(tell);
    let stop = async { drop(told.await) };
    let stopped = open_with(dir.path(), stop, |_, _| drop(tell.take()));
    assert!(stopped.unwrap().is_none());
}

#[test]
fn a_local_interface_that_cannot_be_opened_stops_nothing_and_is_tried_again() {
    let dir = prepared();
    let run = dir.path().join("run");
    std::fs::write(&run, b"in the way").unwrap();
    let told = Arc::new(Mutex::new(Vec::new()));
    let tell = told.clone();
    let driver = open(dir.path())().unwrap();
    let driver = driver.telling(move |note| tell.lock().unwrap().push(note.clone()));
    let handle = driver.handle();
    let deadline = Instant::now() + Duration::from_secs(60);
    let soon = async |done: &dyn Fn() -> bool| {
        while !done() {
            assert!(Instant::now() < deadline, "it never came");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let stop = async {
        soon(&|| !told.lock().unwrap().is_empty()).await;
        let saved = handle
            .handle(Command::Save {
                drafts: vec![draft("daily", "2026-03-09", &["visits=3"])],
                together: true,
            })
            .await;
        assert!(matches!(saved, Reply::Saved { .. }), "{saved:?}");
        std::fs::remove_file(&run).unwrap();
        soon(&|| run.join("local.json").exists()).await;
        let dir = dir.path().to_owned();
        let asked = tokio::task::spawn_blocking(move || local::ask(&dir, &Command::Status));
        let Some(Reply::Status(status)) = asked.await.unwrap() else { panic!("no answer") };
        assert_eq!((status.waiting, status.link != "never"), (1, true), "it has tried to connect");
    };
    crate::cli::runtime().unwrap().block_on(driver.run(stop)).unwrap();
    let told = told.lock().unwrap();
    assert_eq!(told.len(), 1, "said once: {told:?}");
    assert_eq!(told[0].code, "local");
    assert!(!run.join("local.json").exists(), "it goes with the service");
}
