//! The ledger's promises, each shown on a real file.

use std::io::{BufRead, BufReader, Write as _};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicI64, Ordering};

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;

const STORE: [u8; 16] = *b"sixteen bytes id";

fn clock() -> impl Fn() -> Millis + Send + 'static {
    let now = AtomicI64::new(1_000);
    move || Millis(now.fetch_add(1, Ordering::Relaxed))
}

fn all(reader: &LedgerReader) -> Vec<Row> {
    let mut rows = Vec::new();
    reader
        .read_from(1, |row| {
            rows.push(row.to_row());
            Ok::<_, LedgerError>(())
        })
        .unwrap();
    rows
}

fn sample(dir: &std::path::Path) -> Ledger {
    let mut ledger = Ledger::create(dir, STORE).unwrap();
    for commit in 0..4_u8 {
        let rows: Vec<_> = (0..3_u8)
            .map(|n| NewRow {
                kind: if n == 1 { RowKind::Act } else { RowKind::Batch },
                refused: vec![n; usize::from(n)],
                bytes: vec![commit * 16 + n; 40],
            })
            .collect();
        ledger.commit_now(&rows, Millis(i64::from(commit) * 10)).unwrap();
    }
    ledger
}

#[test]
fn positions_are_dense_and_time_never_falls() {
    let dir = TempDir::new().unwrap();
    let mut ledger = Ledger::create(dir.path(), STORE).unwrap();
    let one = ledger.commit_now(&[NewRow::batch(b"a".to_vec())], Millis(50)).unwrap();
    assert_eq!(one, Committed { positions: 1..2, received_at: Millis(50) });
    let two = ledger
        .commit_now(&[NewRow::act(b"b".to_vec()), NewRow::batch(b"c".to_vec())], Millis(20))
        .unwrap();
    assert_eq!(two, Committed { positions: 2..4, received_at: Millis(50) });
    assert_eq!(ledger.commit_now(&[], Millis(60)).unwrap().positions, 4..4);
    let reader = ledger.reader().unwrap();
    assert_eq!(reader.head().unwrap(), ledger.head());
    assert_eq!(reader.row(2).unwrap().unwrap().bytes, b"b");
    assert_eq!(reader.row(4).unwrap(), None);
    assert_eq!(reader.acts().unwrap().len(), 1);
    let last = reader.read_from(4, |_| Ok::<_, LedgerError>(())).unwrap();
    assert_eq!(last, 3);
    assert_eq!(ledger.identity(), StoreIdentity { store_id: STORE, incarnation: 1 });
}

#[test]
fn one_process_at_a_time_and_only_a_ledger() {
    let dir = TempDir::new().unwrap();
    assert!(matches!(Ledger::open(dir.path()), Err(LedgerError::Absent { .. })));
    let ledger = Ledger::create(dir.path(), STORE).unwrap();
    assert!(matches!(Ledger::open(dir.path()), Err(LedgerError::Locked { .. })));
    drop(ledger);
    assert!(matches!(Ledger::create(dir.path(), STORE), Err(LedgerError::Exists { .. })));
    let ledger = Ledger::open(dir.path()).unwrap();
    ledger.connection().pragma_update(None, "user_version", 9).unwrap();
    drop(ledger);
    assert!(matches!(Ledger::open(dir.path()), Err(LedgerError::Newer { found: 9, .. })));
    let other = TempDir::new().unwrap();
    std::fs::write(other.path().join("ledger.db"), "a letter, long enough to be no header at all")
        .unwrap();
    assert!(matches!(Ledger::open(other.path()), Err(LedgerError::NotALedger { .. })));
}

#[test]
fn limits_are_told() {
    let dir = TempDir::new().unwrap();
    let mut ledger = Ledger::create(dir.path(), STORE).unwrap();
    let large = NewRow::batch(vec![0; ROW_BYTES_MAX + 1]);
    assert!(matches!(ledger.commit_now(&[large], Millis(0)), Err(LedgerError::TooLarge { .. })));
    let many = vec![NewRow::batch(Vec::new()); SUBMISSION_ROWS_MAX + 1];
    assert!(matches!(ledger.commit_now(&many, Millis(0)), Err(LedgerError::TooLarge { .. })));
    assert_eq!(ledger.head().position, 0);
    let writer = LedgerWriter::start(ledger, clock()).unwrap();
    assert!(matches!(writer.handle().submit(many), Err(CommitError::Failed(_))));
}

#[test]
fn a_change_of_any_byte_is_named() {
    let changes = [
        (
            "UPDATE batch SET bytes = CAST(x'ff' || substr(bytes, 2) AS BLOB) WHERE position = ?1",
            true,
        ),
        ("UPDATE batch SET bytes = CAST(bytes || x'00' AS BLOB) WHERE position = ?1", true),
        ("UPDATE batch SET refused = x'07' WHERE position = ?1", true),
        ("UPDATE batch SET received_at = received_at + 1 WHERE position = ?1", true),
        ("UPDATE batch SET kind = 3 - kind WHERE position = ?1", true),
        ("UPDATE batch SET kind = 7 WHERE position = ?1", true),
        ("DELETE FROM batch WHERE position = ?1", true),
        ("DELETE FROM chain WHERE position >= ?1 AND position < ?1 + 3", false),
        ("UPDATE chain SET hash = zeroblob(32) WHERE position >= ?1 AND position < ?1 + 3", false),
    ];
    for (change, exact) in changes {
        for position in 1..=12_u64 {
            let dir = TempDir::new().unwrap();
            let ledger = sample(dir.path());
            let reader = ledger.reader().unwrap();
            assert_eq!(reader.verify_chain(1).unwrap().through, 12);
            assert_eq!(ledger.connection().execute(change, [position]).unwrap(), 1);
            let error = reader.verify_chain(1).unwrap_err();
            let named = error.position().unwrap();
            if exact {
                assert_eq!(named, position, "{change}: {error}");
            } else {
                assert!(named <= 12, "{change}: {error}");
            }
        }
    }
}

#[test]
fn a_change_in_the_list_of_acts_is_named() {
    let dir = TempDir::new().unwrap();
    let ledger = sample(dir.path());
    ledger.connection().execute("DELETE FROM act WHERE position = 5", []).unwrap();
    assert_eq!(ledger.reader().unwrap().verify_chain(1).unwrap_err().position(), Some(5));
}

#[test]
fn rows_beyond_the_head_keep_the_ledger_closed() {
    let dir = TempDir::new().unwrap();
    let ledger = sample(dir.path());
    ledger.connection().execute("INSERT INTO batch VALUES (13, 99, 1, x'', x'00')", []).unwrap();
    drop(ledger);
    assert!(matches!(Ledger::open(dir.path()), Err(LedgerError::Damaged { .. })));
}

#[test]
fn a_check_goes_on_where_the_last_ended() {
    let dir = TempDir::new().unwrap();
    let mut ledger = sample(dir.path());
    let reader = ledger.reader().unwrap();
    assert_eq!(reader.verify_new().unwrap().from, 1);
    let report = ledger.verify_chain(1).unwrap();
    assert_eq!((report.from, report.through, report.commits), (1, 12, 4));
    ledger.commit_now(&[NewRow::batch(b"more".to_vec())], Millis(99)).unwrap();
    assert_eq!(ledger.reader().unwrap().verify_new().unwrap().from, 13);
    assert_eq!(reader.verify_chain(5).unwrap().from, 4);
    // The change of a verified row is the business of a full check.
    ledger.connection().execute("UPDATE batch SET bytes = x'00' WHERE position = 2", []).unwrap();
    assert!(reader.verify_new().is_ok());
    assert_eq!(ledger.verify_chain(1).unwrap_err().position(), Some(2));
    ledger
        .connection()
        .execute("UPDATE chain SET hash = zeroblob(32) WHERE position = 12", [])
        .unwrap();
    assert!(reader.verify_new().is_err());
}

#[test]
fn acts_log_equals_the_ledger_whatever_was_left() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("acts.log");
    drop(sample(dir.path()));
    let good = std::fs::read(&path).unwrap();
    let entry = 8 + 16 + 40;
    assert_eq!(good.len(), 8 + 4 * entry);
    // Cut anywhere, the missing tail comes back from the ledger.
    for length in 0..good.len() {
        std::fs::write(&path, &good[..length]).unwrap();
        let ledger = Ledger::open(dir.path()).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), good, "cut to {length}");
        let whole = length.saturating_sub(8) / entry;
        assert_eq!(ledger.acts_report().appended, 4 - whole as u64);
        assert_eq!(ledger.acts_report().set_aside, None);
    }
    // A torn tail is cut.
    let mut torn = good.clone();
    torn.extend_from_slice(&good[8..8 + entry - 1]);
    std::fs::write(&path, &torn).unwrap();
    let ledger = Ledger::open(dir.path()).unwrap();
    assert_eq!(ledger.acts_report().cut_bytes, entry as u64 - 1);
    assert_eq!(ledger.acts_report().set_aside, None);
    drop(ledger);
    assert_eq!(std::fs::read(&path).unwrap(), good);
    // Any flipped byte is repaired.
    for at in 0..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 0x10;
        std::fs::write(&path, &bad).unwrap();
        drop(Ledger::open(dir.path()).unwrap());
        assert_eq!(std::fs::read(&path).unwrap(), good, "flipped at {at}");
    }
}

#[test]
fn acts_the_ledger_never_had_are_kept_aside() {
    let dir = TempDir::new().unwrap();
    let newer = {
        let mut ledger = sample(dir.path());
        ledger.commit_now(&[NewRow::act(b"later".to_vec())], Millis(99)).unwrap();
        drop(ledger);
        std::fs::read(dir.path().join("acts.log")).unwrap()
    };
    let old = TempDir::new().unwrap();
    drop(sample(old.path()));
    std::fs::write(old.path().join("acts.log"), &newer).unwrap();
    let ledger = Ledger::open(old.path()).unwrap();
    let aside = ledger.acts_report().set_aside.clone().unwrap();
    assert_eq!(std::fs::read(aside).unwrap(), newer);
    assert_eq!(ledger.acts_report().cut_bytes, 8 + 16 + 5);
}

#[test]
fn a_full_disk_acknowledges_nothing_and_the_writer_goes_on() {
    let dir = TempDir::new().unwrap();
    let mut ledger = sample(dir.path());
    let pages: i64 =
        ledger.connection().query_row("PRAGMA page_count", [], |row| row.get(0)).unwrap();
    let full =
        |ledger: &Ledger| ledger.connection().pragma_update(None, "max_page_count", pages).unwrap();
    full(&ledger);
    let acts = std::fs::read(dir.path().join("acts.log")).unwrap();
    let large = || vec![NewRow::act(b"act".to_vec()), NewRow::batch(vec![7; 100_000])];
    assert!(matches!(ledger.commit_now(&large(), Millis(500)), Err(LedgerError::DiskFull { .. })));
    assert_eq!(ledger.head().position, 12);
    assert_eq!(std::fs::read(dir.path().join("acts.log")).unwrap(), acts);
    assert_eq!(ledger.commit_now(&large(), Millis(500)).unwrap().positions, 13..15);
    // The same by the writing thread, which stays alive.
    let pages: i64 =
        ledger.connection().query_row("PRAGMA page_count", [], |row| row.get(0)).unwrap();
    ledger.connection().pragma_update(None, "max_page_count", pages).unwrap();
    let writer = LedgerWriter::start(ledger, clock()).unwrap();
    let handle = writer.handle();
    let error = handle.submit(large()).unwrap().wait().unwrap_err();
    assert!(
        matches!(&error, CommitError::Failed(e) if matches!(**e, LedgerError::DiskFull { .. })),
        "{error}"
    );
    assert_eq!(*handle.committed().borrow(), 14);
    assert_eq!(handle.submit(large()).unwrap().wait().unwrap().positions, 15..17);
    let mut ledger = writer.stop().unwrap();
    assert_eq!(ledger.verify_chain(1).unwrap().through, 16);
    assert!(matches!(handle.submit(large()), Err(CommitError::Stopped)));
}

#[test]
fn a_failed_act_log_fails_the_commit() {
    let dir = TempDir::new().unwrap();
    let mut ledger = sample(dir.path());
    // A log that cannot be written: the file is open for reading only.
    ledger.break_acts_log();
    assert!(ledger.commit_now(&[NewRow::act(b"x".to_vec())], Millis(99)).is_err());
    assert_eq!(ledger.reader().unwrap().head().unwrap().position, 12);
    assert_eq!(
        ledger.commit_now(&[NewRow::act(b"x".to_vec())], Millis(99)).unwrap().positions,
        13..14
    );
    assert_eq!(ledger.reader().unwrap().acts().unwrap().len(), 5);
}

#[test]
fn many_submitters_share_commits_and_keep_their_rows() {
    let dir = TempDir::new().unwrap();
    let ledger = Ledger::create(dir.path(), STORE).unwrap();
    let writer = LedgerWriter::start(ledger, clock()).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
    let answers = runtime.block_on(async {
        let tasks: Vec<_> = (0..500_u32)
            .map(|n| {
                let handle = writer.handle();
                tokio::spawn(async move {
                    let rows =
                        (0..n % 4).map(|k| NewRow::batch(vec![n as u8, (n >> 8) as u8, k as u8]));
                    (n, handle.commit(rows.collect()).await.unwrap())
                })
            })
            .collect();
        let mut answers = Vec::new();
        for task in tasks {
            answers.push(task.await.unwrap());
        }
        answers
    });
    let handle = writer.handle();
    let mut ledger = writer.stop().unwrap();
    let report = ledger.verify_chain(1).unwrap();
    assert_eq!(report.through, 750);
    assert!(report.commits < 500, "{} commits for 500 submissions", report.commits);
    assert_eq!(*handle.committed().borrow(), 750);
    let reader = ledger.reader().unwrap();
    for (n, committed) in answers {
        for (k, position) in committed.positions.enumerate() {
            let row = reader.row(position).unwrap().unwrap();
            assert_eq!(row.bytes, [n as u8, (n >> 8) as u8, k as u8]);
            assert_eq!(row.received_at, committed.received_at);
        }
    }
}

#[test]
fn a_full_queue_says_busy_and_waiters_get_in() {
    let dir = TempDir::new().unwrap();
    let ledger = Ledger::create(dir.path(), STORE).unwrap();
    // The writer waits for its clock, so the queue fills.
    let (go, wait) = std::sync::mpsc::channel::<()>();
    let writer = LedgerWriter::start(ledger, move || {
        let _ = wait.recv();
        Millis(1)
    })
    .unwrap();
    let handle = writer.handle();
    let row = || vec![NewRow::batch(vec![1; 12 << 20])];
    let mut pending = Vec::new();
    let busy = loop {
        match handle.try_submit(row()) {
            Ok(one) => pending.push(one),
            Err(error) => break error,
        }
    };
    assert!(matches!(busy, CommitError::Busy));
    assert_eq!(pending.len(), QUEUE_BYTES_MAX / (12 << 20) - 1);
    let blocked = std::thread::spawn(move || handle.submit(row()).and_then(PendingCommit::wait));
    drop(go);
    for one in pending {
        one.wait().unwrap();
    }
    blocked.join().unwrap().unwrap();
    assert_eq!(writer.stop().unwrap().head().position, 8);
}

#[test]
fn a_backup_made_while_writing_restores_to_the_same_rows() {
    let dir = TempDir::new().unwrap();
    let writer = LedgerWriter::start(sample(&dir.path().join("a")), clock()).unwrap();
    let handle = writer.handle();
    let (stop, stopped) = std::sync::mpsc::channel::<()>();
    let feeder = std::thread::spawn(move || {
        let mut n = 0_u32;
        while stopped.try_recv() == Err(std::sync::mpsc::TryRecvError::Empty) {
            n += 1;
            let rows = vec![NewRow::batch(n.to_le_bytes().repeat(30)), NewRow::act(vec![n as u8])];
            handle.submit(rows).unwrap().wait().unwrap();
        }
    });
    let handle = writer.handle();
    let mut progress = handle.committed();
    while *progress.borrow_and_update() < 100 {
        std::thread::yield_now();
    }
    let members = vec![
        Member { name: "keys/root.key".to_owned(), bytes: vec![9; 64] },
        Member { name: "organisation.toml".to_owned(), bytes: Vec::new() },
    ];
    let reader = handle.reader().unwrap();
    let file = dir.path().join("full.bak");
    let summary = reader.backup(&file, &members, Millis(5_000)).unwrap();
    let identity_file = dir.path().join("identity.bak");
    let identity = reader.identity_backup(&identity_file, &members, Millis(5_000)).unwrap();
    stop.send(()).unwrap();
    feeder.join().unwrap();
    assert!(summary.last_position >= 100);
    assert_eq!(check_backup(&file).unwrap(), summary);
    assert_eq!(summary.bytes, std::fs::metadata(&file).unwrap().len());
    let original = all(&reader);

    let full = restore(&file, &dir.path().join("b"), Millis(7_000)).unwrap();
    assert_eq!(full.members, members);
    assert_eq!(full.ledger.identity(), StoreIdentity { store_id: STORE, incarnation: 7 });
    let rows = all(&full.ledger.reader().unwrap());
    assert_eq!(rows[..], original[..rows.len()]);
    assert_eq!(rows.len() as u64, summary.last_position);
    let mut restored = full.ledger;
    assert_eq!(restored.verify_chain(1).unwrap().through, summary.last_position);
    let next = restored.commit_now(&[NewRow::batch(vec![1])], Millis(0)).unwrap();
    assert_eq!(next.positions.start, summary.last_position + 1);

    let bare = restore(&identity_file, &dir.path().join("c"), Millis(0)).unwrap();
    assert_eq!(bare.members, members);
    assert_eq!(bare.ledger.identity(), StoreIdentity { store_id: STORE, incarnation: 2 });
    let acts = all(&bare.ledger.reader().unwrap());
    assert_eq!(acts.len() as u64, identity.rows);
    let first_acts = original.iter().filter(|row| row.kind == RowKind::Act);
    for ((act, was), position) in acts.iter().zip(first_acts).zip(1..) {
        assert_eq!(
            (act.position, &act.bytes, act.received_at),
            (position, &was.bytes, was.received_at)
        );
    }
    assert_eq!(bare.ledger.reader().unwrap().acts().unwrap(), acts);
}

#[test]
fn a_damaged_backup_restores_nothing() {
    let dir = TempDir::new().unwrap();
    let ledger = sample(&dir.path().join("a"));
    let file = dir.path().join("a.bak");
    let members = [Member { name: "k".to_owned(), bytes: vec![1, 2, 3] }];
    ledger.reader().unwrap().backup(&file, &members, Millis(0)).unwrap();
    let good = std::fs::read(&file).unwrap();
    let target = dir.path().join("b");
    for at in 0..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 1;
        std::fs::write(&file, &bad).unwrap();
        assert!(matches!(check_backup(&file), Err(LedgerError::Backup { .. })), "flipped at {at}");
        std::fs::write(&file, &good[..at]).unwrap();
        assert!(matches!(check_backup(&file), Err(LedgerError::Backup { .. })), "cut to {at}");
    }
    assert!(restore(&file, &target, Millis(0)).is_err());
    assert!(!target.exists());
    std::fs::write(&file, [&good[..], b"x"].concat()).unwrap();
    assert!(check_backup(&file).is_err());
    // A directory that holds something is left alone.
    std::fs::write(&file, &good).unwrap();
    std::fs::create_dir(&target).unwrap();
    std::fs::write(target.join("letter"), "mine").unwrap();
    assert!(matches!(restore(&file, &target, Millis(0)), Err(LedgerError::NotEmpty { .. })));
    // What an interrupted restore leaves is no obstacle.
    std::fs::remove_file(target.join("letter")).unwrap();
    std::fs::write(target.join("ledger.db.new"), "half").unwrap();
    assert_eq!(restore(&file, &target, Millis(0)).unwrap().ledger.head(), ledger.head());
    for name in ["", "/etc/x", "a/../b", "..", "a//b", "a b", "a\\b"] {
        let member = [Member { name: name.to_owned(), bytes: Vec::new() }];
        let answer = ledger.reader().unwrap().identity_backup(&file, &member, Millis(0));
        assert!(matches!(answer, Err(LedgerError::MemberName { .. })), "{name:?}");
    }
    assert_eq!(std::fs::read(&file).unwrap(), good, "a failed backup leaves the older one");
    let names = std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name());
    assert!(!names.into_iter().any(|name| name.to_string_lossy().contains("part")), "and no part");
}

#[test]
fn a_backup_tells_when_its_last_act_was() {
    let dir = TempDir::new().unwrap();
    let mut ledger = sample(&dir.path().join("a"));
    ledger.commit_now(&[NewRow::batch(vec![1])], Millis(500)).unwrap();
    let file = dir.path().join("a.bak");
    let reader = ledger.reader().unwrap();
    for summary in [
        reader.backup(&file, &[], Millis(900)).unwrap(),
        check_backup(&file).unwrap(),
        reader.identity_backup(&file, &[], Millis(900)).unwrap(),
        check_backup(&file).unwrap(),
    ] {
        assert_eq!(summary.last_act_at, Some(Millis(30)), "{:?}", summary.kind);
    }
    let empty = Ledger::create(&dir.path().join("b"), STORE).unwrap();
    let summary = empty.reader().unwrap().backup(&file, &[], Millis(900)).unwrap();
    assert_eq!((summary.last_act_at, check_backup(&file).unwrap()), (None, summary));
}

#[test]
fn a_damaged_ledger_is_not_backed_up_over_a_good_backup() {
    let dir = TempDir::new().unwrap();
    let ledger = sample(&dir.path().join("a"));
    let file = dir.path().join("a.bak");
    let reader = ledger.reader().unwrap();
    reader.backup(&file, &[], Millis(0)).unwrap();
    ledger.connection().execute("UPDATE batch SET bytes = x'00' WHERE position = 3", []).unwrap();
    let error = reader.backup(&file, &[], Millis(0)).unwrap_err();
    assert!(matches!(&error, LedgerError::Chain(e) if e.position() == Some(3)), "{error}");
    assert!(check_backup(&file).is_ok());
}

/// On a disk that is full: what the copy of acts is first written to leads to a device that always is.
#[cfg(target_os = "linux")]
#[test]
fn acts_set_aside_on_a_full_disk_leave_nothing_and_are_kept_once_there_is_room() {
    let dir = TempDir::new().unwrap();
    let ledger = sample(dir.path());
    let newer = std::fs::read(dir.path().join("acts.log")).unwrap();
    drop(ledger);
    // An older ledger beside a newer log.
    let older = TempDir::new().unwrap();
    drop(Ledger::create(older.path(), STORE).unwrap());
    std::fs::write(older.path().join("acts.log"), &newer).unwrap();
    let aside = || {
        let names = std::fs::read_dir(older.path()).unwrap().map(|entry| entry.unwrap());
        let names = names.map(|entry| entry.file_name().into_string().unwrap());
        names.filter(|name| name.starts_with("acts-set-aside")).collect::<Vec<_>>()
    };
    for _ in 0..3 {
        let copy = older.path().join("acts-set-aside.log.new");
        std::os::unix::fs::symlink("/dev/full", copy).unwrap();
        assert!(matches!(Ledger::open(older.path()), Err(LedgerError::DiskFull { .. })));
        assert!(aside().is_empty(), "{:?}", aside());
        assert_eq!(std::fs::read(older.path().join("acts.log")).unwrap(), newer);
    }
    let ledger = Ledger::open(older.path()).unwrap();
    let kept = older.path().join("acts-set-aside-1.log");
    assert_eq!(ledger.acts_report().set_aside.as_ref(), Some(&kept));
    assert_eq!(std::fs::read(&kept).unwrap(), newer);
    assert_eq!(aside(), ["acts-set-aside-1.log"]);
}

const CHILD: &str = "BANYAN_LEDGER_CRASH_CHILD";

/// The child: commits for ever from several threads and prints what was acknowledged.
fn crash_child(dir: &std::path::Path) -> ! {
    let ledger = Ledger::open(dir).unwrap();
    let writer = LedgerWriter::start(ledger, clock()).unwrap();
    let threads: Vec<_> = (0..4_u8)
        .map(|thread| {
            let handle = writer.handle();
            std::thread::spawn(move || {
                for n in 0_u32.. {
                    let content = [&[thread][..], &n.to_le_bytes(), &[thread; 90]].concat();
                    let row =
                        if n % 5 == 0 { NewRow::act(content) } else { NewRow::batch(content) };
                    let committed = handle.submit(vec![row]).unwrap().wait().unwrap();
                    let line = format!("acked {} {thread} {n}\n", committed.positions.start);
                    // One write a line: the parent never sees half of one for a whole.
                    std::io::stdout().lock().write_all(line.as_bytes()).unwrap();
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
    unreachable!("the threads go on until they are killed")
}

#[test]
fn kill_nine_loses_nothing_acknowledged() {
    if let Some(dir) = std::env::var_os(CHILD) {
        crash_child(dir.as_ref());
    }
    let dir = TempDir::new().unwrap();
    drop(Ledger::create(dir.path(), STORE).unwrap());
    let mut total = 0;
    for round in 0..20_usize {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "ledger::tests::kill_nine_loses_nothing_acknowledged", "--nocapture"])
            .env(CHILD, dir.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut acked = Vec::new();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        let enough = 1 + round * 37;
        while acked.len() < enough {
            let line = lines.next().expect("the child goes on until it is killed");
            acked.extend(acknowledged(&line));
        }
        child.kill().unwrap();
        acked.extend(lines.filter_map(|line| acknowledged(&line)));
        child.wait().unwrap();
        let mut ledger = Ledger::open(dir.path()).unwrap();
        let report = ledger.verify_chain(1).unwrap();
        assert!(report.through >= total + acked.len() as u64);
        let reader = ledger.reader().unwrap();
        for &(position, thread, n) in &acked {
            let row = reader.row(position).unwrap().expect("an acknowledged row");
            assert_eq!(row.bytes[..5], [&[thread][..], &n.to_le_bytes()].concat());
        }
        total += acked.len() as u64;
        drop(ledger);
        let again = Ledger::open(dir.path()).unwrap();
        assert_eq!(again.acts_report(), &ActsReport::default());
    }
}

fn acknowledged(line: &str) -> Option<(Position, u8, u32)> {
    let (_, rest) = line.split_once("acked ")?;
    let mut parts = rest.split(' ');
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

#[derive(Clone, Debug)]
enum Step {
    Commit(Vec<(bool, Vec<u8>, Vec<u8>)>, i64),
    Reopen,
    ReopenWithoutActsLog,
    Restore,
}

fn step() -> impl Strategy<Value = Step> {
    let bytes = || prop::collection::vec(any::<u8>(), 0..60);
    let large = prop_oneof![8 => bytes().boxed(), 1 => Just(vec![5; 40_000]).boxed()];
    let row = (any::<bool>(), bytes(), large);
    prop_oneof![
        6 => (prop::collection::vec(row, 0..6), -100..1_000_i64).prop_map(|(rows, at)| Step::Commit(rows, at)),
        1 => Just(Step::Reopen),
        1 => Just(Step::ReopenWithoutActsLog),
        1 => Just(Step::Restore),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

    #[test]
    fn any_history_equals_its_model(steps in prop::collection::vec(step(), 1..16)) {
        let root = TempDir::new().unwrap();
        let mut dir = root.path().join("0");
        let mut ledger = Ledger::create(&dir, STORE).unwrap();
        let mut model: Vec<Row> = Vec::new();
        for (n, step) in steps.into_iter().enumerate() {
            match step {
                Step::Commit(rows, at) => {
                    let rows: Vec<_> = rows
                        .into_iter()
                        .map(|(act, refused, bytes)| NewRow {
                            kind: if act { RowKind::Act } else { RowKind::Batch },
                            refused,
                            bytes,
                        })
                        .collect();
                    let committed = ledger.commit_now(&rows, Millis(at)).unwrap();
                    let last = model.last().map_or(i64::MIN, |row| row.received_at.0);
                    prop_assert_eq!(committed.received_at, Millis(at.max(last)));
                    for (row, position) in rows.into_iter().zip(committed.positions.clone()) {
                        prop_assert_eq!(position, model.len() as u64 + 1);
                        model.push(Row {
                            position,
                            received_at: committed.received_at,
                            kind: row.kind,
                            refused: row.refused,
                            bytes: row.bytes,
                        });
                    }
                }
                Step::Reopen => {
                    drop(ledger);
                    ledger = Ledger::open(&dir).unwrap();
                }
                Step::ReopenWithoutActsLog => {
                    drop(ledger);
                    std::fs::remove_file(dir.join("acts.log")).unwrap();
                    ledger = Ledger::open(&dir).unwrap();
                }
                Step::Restore => {
                    let file = root.path().join("backup");
                    ledger.reader().unwrap().backup(&file, &[], Millis(0)).unwrap();
                    let before = ledger.identity().incarnation;
                    dir = root.path().join(format!("{}", n + 1));
                    ledger = restore(&file, &dir, Millis(0)).unwrap().ledger;
                    prop_assert_eq!(ledger.identity().incarnation, before + 1);
                }
            }
            let reader = ledger.reader().unwrap();
            prop_assert_eq!(&all(&reader), &model);
            let acts: Vec<_> = model.iter().filter(|row| row.kind == RowKind::Act).cloned().collect();
            prop_assert_eq!(reader.acts().unwrap(), acts);
            prop_assert_eq!(ledger.verify_chain(1).unwrap().through, model.len() as u64);
        }
    }
}

#[test]
fn a_child_process_being_started_does_not_hold_the_lock() {
    let dir = TempDir::new().unwrap();
    drop(Ledger::create(dir.path(), STORE).unwrap());
    let (stop, stopped) = std::sync::mpsc::channel::<()>();
    let spawner = std::thread::spawn(move || {
        while stopped.try_recv() == Err(std::sync::mpsc::TryRecvError::Empty) {
            let exe = std::env::current_exe().unwrap();
            Command::new(exe).arg("--list").stdout(Stdio::null()).status().unwrap();
        }
    });
    for _ in 0..300 {
        drop(Ledger::open(dir.path()).unwrap());
    }
    stop.send(()).unwrap();
    spawner.join().unwrap();
}
