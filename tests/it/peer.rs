//! The peer pipeline beside Banyan in small: both hold the same counts, and every sum asked of both is equal. Figures
//! of so small a run say nothing.

use std::fs;
use std::path::Path;
use std::process::Command;

use banyan_tests::binaries;
use serde_json::Value;

#[test]
fn both_hold_the_same_counts_and_say_the_same_sums() {
    let aggregator = binaries().unwrap().aggregator;
    // Beside this test: cargo builds a package's programs before its tests.
    let programs = Path::new(env!("CARGO_BIN_EXE_fleet")).parent().unwrap();
    assert_eq!(aggregator.parent(), Some(programs));
    // On a disk, and where PostgreSQL's own user may look.
    let dir = tempfile::tempdir_in("/var/tmp").unwrap();
    let figures = dir.path().join("figures.json");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("peer/run");
    let output = Command::new(script)
        .args(["--small", "--programs"])
        .arg(programs)
        .arg("--json")
        .arg(&figures)
        // What it makes goes there, to be looked for afterwards.
        .env("TMPDIR", dir.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let figures: Value = serde_json::from_slice(&fs::read(&figures).unwrap()).unwrap();
    let [ours, theirs] = ["/banyan/batches/counts", "/peer/counts"].map(|at| {
        figures.pointer(at).and_then(Value::as_u64).unwrap_or_else(|| panic!("no {at}: {figures}"))
    });
    assert!(ours > 20_000 && ours == theirs, "{ours} {theirs}");
    assert!(figures["equal_sums"].as_u64().unwrap() > 50, "{figures}");
    for run in ["batches", "lone", "paced"] {
        assert_eq!(figures["banyan"][run]["passed"], true, "{figures}");
    }
    let left: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left, ["figures.json"], "it leaves nothing behind");
}
