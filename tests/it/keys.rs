//! The root's recovery file, and roll-overs of the operating key: no clinic is visited.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use banyan_tests::until;
use serde_json::json;

use crate::small::{Done, SOON, Small, json_of, record, run, sync};

/// A centre whose recovery file was taken off the server, that file, and its code.
pub(crate) fn country() -> (Small, PathBuf, String) {
    let small = Small::new();
    let code = code_in(&small.init).expect("init shows a code");
    let away = small.world.dir().join("stick.recovery");
    fs::rename(small.world.centre().join("root.recovery"), &away).unwrap();
    (small, away, code)
}

/// The recovery code among what was said: it stands alone on a line.
fn code_in(said: &str) -> Option<String> {
    let is_code = |line: &&str| line.len() == 34 && line.split('-').count() == 6;
    said.lines().map(str::trim).find(is_code).map(str::to_owned)
}

/// Runs a command of the centre with a line on its stdin.
fn typed(small: &Small, arguments: &[&str], line: &str) -> Done {
    let mut command = small.world.command();
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    // A command that refuses before it reads closes the pipe.
    let _ = writeln!(child.stdin.take().unwrap(), "{line}");
    child.wait_with_output().unwrap().into()
}

/// Stops the centre, rolls its key over, and starts it again where it was.
pub(crate) fn roll(small: &mut Small, file: &Path, code: &str, further: &[&str]) {
    let served = small.served.take().unwrap();
    let (mqtt, http) = (served.mqtt(), served.http());
    served.stop().unwrap();
    let arguments = [&["keys", "roll", "--recovery", file.to_str().unwrap()], further].concat();
    typed(small, &arguments, code).exits(0);
    small.served = Some(small.world.serve_at(mqtt, http).unwrap());
}

#[test]
fn the_roots_secret_is_in_the_recovery_file_only_and_opens_with_its_code_only() {
    let (mut small, file, code) = country();
    assert!(!small.world.centre().join("keys/root.key").exists());
    let elsewhere = small.world.dir().join("elsewhere");
    let (there, stick) = (elsewhere.to_str().unwrap(), file.to_str().unwrap());
    let taken = ["init", "--data-dir", there, "--recovery", stick, "--lang", "en"];
    let taken = small.run(&taken).exits(2);
    assert!(taken.err.contains("exists already"), "{}", taken.err);
    let passphrase = ["init", "--data-dir", there, "--recovery-passphrase"];
    typed(&small, &passphrase, "too short").exits(2);
    let made = typed(&small, &passphrase, "six words that nobody would guess").exits(0);
    assert_eq!((made.out.as_str(), code_in(&made.err)), ("", None), "all is said on stderr");

    let roll = ["keys", "roll", "--lang", "en", "--recovery", file.to_str().unwrap()];
    let running = typed(&small, &roll, &code).exits(1);
    assert!(running.err.contains("has to be stopped"), "{}", running.err);
    small.served.take().unwrap().stop().unwrap();
    let slip = format!("{}{}", &code[..33], if code.ends_with('0') { "1" } else { "0" });
    let mistyped = typed(&small, &roll, &slip).exits(2);
    assert!(mistyped.err.contains("typing error"), "{}", mistyped.err);
    let others = elsewhere.join("root.recovery");
    let foreign = ["keys", "roll", "--lang", "en", "--recovery", others.to_str().unwrap()];
    let wrong = typed(&small, &foreign, "six words that somebody guessed").exits(2);
    assert!(wrong.err.contains("wrong passphrase"), "{}", wrong.err);
    let foreign = typed(&small, &foreign, "six words that nobody would guess").exits(1);
    assert!(foreign.err.contains("another centre"), "{}", foreign.err);
    let mut bytes = fs::read(&file).unwrap();
    bytes[70] ^= 1;
    let damaged = small.file("damaged", &bytes);
    let damaged = ["keys", "roll", "--lang", "en", "--recovery", damaged.to_str().unwrap()];
    let damaged = typed(&small, &damaged, &code).exits(1);
    assert!(damaged.err.contains("is damaged"), "{}", damaged.err);
    // None of it has changed anything.
    let shown = small.json(&["keys", "show"]);
    assert_eq!((&shown["operating"]["serial"], &shown["earlier"]), (&json!(1), &json!([])));
    typed(&small, &roll, &code).exits(0);
    let shown = small.json(&["keys", "show"]);
    assert_eq!(shown["operating"]["serial"], 2);
    assert_eq!(shown["earlier"][0]["serial"], 1);
    small.ok(&["verify", "--all"]);
}

#[test]
fn agents_learn_a_new_key_whenever_they_come_back_and_the_old_one_never_returns() {
    let (mut small, file, code) = country();
    let [near, away, late] = [("near", "V1-VC"), ("away", "V2-VC"), ("late", "V5-VC")]
        .map(|(name, home)| small.agent(name, &[home]));
    for agent in [&near, &away, &late] {
        record(agent, "2026-01-05", &["total_visits=10"]);
        sync(agent);
    }
    let correct = ["correct", "V1-VC", "vc_daily", "2026-01-05", "total_visits=11"];
    small.ok(&[&correct[..], &["--reason", "typo"]].concat());
    // What a thief of the server's disk has.
    let stolen = small.world.dir().join("stolen");
    fs::create_dir(&stolen).unwrap();
    let keys = small.world.centre().join("keys");
    for entry in fs::read_dir(&keys).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), stolen.join(entry.file_name())).unwrap();
    }
    record(&away, "2026-01-06", &["total_visits=20"]);
    record(&late, "2026-01-06", &["total_visits=30"]);

    roll(&mut small, &file, &code, &[]);
    record(&near, "2026-01-06", &["total_visits=1"]);
    sync(&near);
    let shown = small.json(&["keys", "show"]);
    assert_eq!((&shown["operating"]["serial"], &shown["agents_unheard"]), (&json!(2), &json!(2)));
    // Offline during the first, and then during both.
    record(&away, "2026-01-07", &["total_visits=2"]);
    sync(&away);
    roll(&mut small, &file, &code, &["--keep-ca"]);
    for agent in [&late, &away, &near] {
        record(agent, "2026-01-08", &["total_visits=3"]);
        sync(agent);
        sync(agent);
    }
    let shown = small.json(&["keys", "show"]);
    assert_eq!((&shown["operating"]["serial"], &shown["agents_knowing"]), (&json!(3), &json!(3)));
    assert_eq!(shown["agents_told"], 0);

    // Acts of both keys hold and go on with each other.
    let correct = ["correct", "V1-VC", "vc_daily", "2026-01-05", "total_visits=12"];
    small.ok(&[&correct[..], &["--reason", "typo"]].concat());
    let trace = small.json(&["report", "V1-VC", "vc_daily", "2026-01-05", "--history"]);
    assert_eq!((&trace["heads"], &trace["values"]["total_visits"]), (&json!(1), &json!(12)));
    assert_eq!(trace["history"].as_array().map(Vec::len), Some(3), "{trace}");
    let visits = small.element("S", "2026-01", "total_visits");
    assert_eq!(visits["value"], 12 + 10 + 10 + 20 + 30 + 1 + 2 + 3 * 3);
    small.ok(&["verify", "--all"]);

    // The thief's machine in the centre's place, with the first key: nobody speaks to it.
    let served = small.served.take().unwrap();
    let (mqtt, http) = (served.mqtt(), served.http());
    served.stop().unwrap();
    let present = small.world.dir().join("present");
    fs::rename(&keys, &present).unwrap();
    fs::rename(&stolen, &keys).unwrap();
    small.served = Some(small.world.serve_at(mqtt, http).unwrap());
    record(&late, "2026-01-09", &["total_visits=4"]);
    until("it is told so", SOON, || {
        let told = run(&late, &["sync", "--timeout", "6s", "--lang", "en"]).exits(3);
        Ok(told.err.contains("outdated").then_some(()))
    })
    .unwrap();
    assert_eq!(json_of(&late, &["status"])["waiting"], 1);
    small.served.take().unwrap().stop().unwrap();
    let lies = small.run(&["verify", "--all"]).exits(1);
    assert!(lies.out.contains("not that of the last roll-over"), "{}", lies.out);

    // The centre comes back from a backup of before: another roll-over, and all is well.
    fs::remove_dir_all(&keys).unwrap();
    fs::rename(&present, &keys).unwrap();
    small.served = Some(small.world.serve_at(mqtt, http).unwrap());
    sync(&late);
    assert_eq!(small.element("S", "2026-01-09", "total_visits")["value"], 4);
}

#[test]
fn a_centre_restored_from_before_a_roll_over_rolls_over_again() {
    let (mut small, file, code) = country();
    let clinic = small.agent("clinic", &["V1-VC"]);
    record(&clinic, "2026-01-05", &["total_visits=10"]);
    sync(&clinic);
    let backup = small.world.dir().join("backup");
    small.ok(&["backup", backup.to_str().unwrap(), "--identity"]);
    roll(&mut small, &file, &code, &[]);
    let late = small.agent("late", &["V2-VC"]);
    for agent in [&clinic, &late] {
        record(agent, "2026-01-06", &["total_visits=1"]);
        sync(agent);
    }
    let served = small.served.take().unwrap();
    let (mqtt, http) = (served.mqtt(), served.http());
    served.kill9().unwrap();
    fs::rename(small.world.centre(), small.world.dir().join("lost")).unwrap();
    small.ok(&["restore", backup.to_str().unwrap()]);
    small.served = Some(small.world.serve_at(mqtt, http).unwrap());
    run(&clinic, &["sync", "--timeout", "5s"]).exits(3);
    // Serial 2 again, issued later: it is believed.
    roll(&mut small, &file, &code, &[]);
    assert_eq!(small.json(&["keys", "show"])["operating"]["serial"], 2);
    sync(&clinic);
    assert_eq!(small.element("V1-VC", "2026-01", "total_visits")["value"], 11);
    // Only grants of the lost key know of this one; it is told what to do, and keeps what it has.
    let told = run(&late, &["sync", "--timeout", "20s", "--lang", "en"]).exits(1);
    assert!(told.err.contains("[outdated_grant]"), "{}", told.err);
    run(&late, &["enroll", &small.code(&["V2-VC"])]).exits(0);
    sync(&late);
    assert_eq!(small.element("V2-VC", "2026-01", "total_visits")["value"], 1);
    small.ok(&["verify", "--all"]);
}
