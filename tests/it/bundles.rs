//! Delivery by a USB stick: real programs, and files carried between them.
//!
//! What must hold: nothing is lost and nothing counted twice, whatever is repeated, overtaken by the line, cut,
//! killed or mixed up; nobody speaks for an agent, and a stick lets nobody do so; the answer does what the same
//! words over a line would do.

use std::fs;
use std::path::{Path, PathBuf};

use banyan_shared::keys::{SigningKey, sha256};
use banyan_shared::wire::{Bundle, Envelope, Kind, seal};
use banyan_tests::{Agent, until};
use serde_json::{Value, json};

use crate::keys::{country, roll};
use crate::small::{Done, SOON, Small, json_of, record, run, sync};

const DAY: &str = "2026-01-05";

/// A folder that stands for a stick.
fn stick(small: &Small, name: &str) -> PathBuf {
    let path = small.world.dir().join(name);
    fs::create_dir_all(&path).unwrap();
    path
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Writes a bundle onto a stick; what the command says of it.
#[track_caller]
fn export(agent: &Agent, to: &Path) -> Value {
    json_of(agent, &["bundle", "export", text(to)])
}

/// Takes everything on a stick in at the centre, which must be whole; the rows.
#[track_caller]
fn take_in(small: &Small, from: &Path) -> Vec<Value> {
    small.json(&["bundle", "import", text(from)])["bundles"].as_array().unwrap().clone()
}

/// Takes the answer on a stick in at the clinic, which must be good.
#[track_caller]
fn bring(agent: &Agent, from: &Path) -> Value {
    let taken = json_of(agent, &["bundle", "import", text(from)]);
    taken.as_array().unwrap().last().unwrap().clone()
}

fn waiting(agent: &Agent) -> Value {
    json_of(agent, &["status"])["waiting"].clone()
}

#[track_caller]
fn visits(small: &Small, unit: &str) -> Value {
    small.element(unit, "2026-01", "total_visits")["value"].clone()
}

/// A clinic enrolled from a file, which has never had a line.
fn by_file(small: &Small, name: &str, home: &str) -> Agent {
    let folder = stick(small, &format!("files-{name}"));
    let parent = home.split('-').next().unwrap();
    let made = ["enroll", "--each", "--below", parent, "--kind", "village_clinic", "-o"];
    small.ok(&[&made[..], &[text(&folder)]].concat());
    let agent = small.world.agent(name);
    run(&agent, &["enroll", text(&folder.join(format!("{home}.banyan")))]).exits(0);
    agent
}

#[test]
fn a_clinic_that_never_has_a_line_is_enrolled_counted_and_receipted_by_stick() {
    let small = Small::new();
    small.world.link.cut();
    let clinic = by_file(&small, "clinic", "V1-VC");
    record(&clinic, "2026-01-05..2026-01-09", &["open_days=1", "total_visits=12"]);
    let usb = stick(&small, "usb");
    let written = export(&clinic, &usb);
    assert_eq!((&written["entries"], &written["complete"]), (&json!(5), &json!(true)), "{written}");
    assert_eq!(written["file"], text(&usb.join("V1-VC.bundle")));
    assert_eq!(waiting(&clinic), 5, "writing it delivers nothing");
    let rows = take_in(&small, &usb);
    let [row] = rows.as_slice() else { panic!("{rows:?}") };
    assert_eq!((&row["new"], &row["known"], &row["refused"]), (&json!(5), &json!(0), &json!(0)));
    assert_eq!((&row["home"], &row["name"]), (&json!("V1-VC"), &json!("一村卫生室")));
    assert_eq!(row["answer"], text(&usb.join("V1-VC.answer")));
    assert_eq!(visits(&small, "V1-VC"), 60);
    let came = bring(&clinic, &usb);
    let expected = json!({ "received": 5, "newest": true, "certified": true, "left_aside": 0,
        "waiting": 0, "refused": 0, "unknown": false, "refusal": null });
    for (name, value) in expected.as_object().unwrap() {
        assert_eq!(&came[name], value, "{name} of {came}");
    }
    let status = json_of(&clinic, &["status"]);
    assert_eq!((&status["waiting"], &status["received"]), (&json!(0), &json!(5)));
    assert!(status["last_receipt"].is_string() && status["clock_offset_ms"].is_null(), "{status}");

    // The next round says what is new, and learns what has changed: a refusal, a scope.
    record(&clinic, DAY, &["total_visits=13", "--reason", "typo"]);
    small.ok(&["assign", status["agent"].as_str().unwrap(), "V2-VC"]);
    assert_eq!(export(&clinic, &usb)["entries"], 1);
    assert_eq!(take_in(&small, &usb)[0]["new"], 1);
    bring(&clinic, &usb);
    assert_eq!(json_of(&clinic, &["status"])["facilities"], json!(["V1-VC", "V2-VC"]));
    record(&clinic, DAY, &["total_visits=1", "--facility", "V2-VC"]);
    // Written by a stranger to the name of a file: nothing of anybody's is overwritten.
    let others = small.file("letter.txt", "dear county");
    let refused = run(&clinic, &["bundle", "export", text(&others), "--lang", "en"]).exits(1);
    assert!(refused.err.contains("[file_exists]"), "{}", refused.err);
    assert_eq!(fs::read_to_string(&others).unwrap(), "dear county");
    // With a line after all, the certificate it was brought serves at once.
    small.world.link.restore();
    sync(&clinic);
    assert_eq!(visits(&small, "K1"), 61 + 1);
    let counters: Value =
        serde_json::from_str(&small.served().get("/v1/counters").unwrap().body).unwrap();
    assert_eq!(counters["intake"]["unknown_agent"], 0, "{counters}");
    small.ok(&["verify", "--all"]);
}

#[test]
fn a_code_typed_without_a_line_is_answered_by_stick() {
    let small = Small::new();
    let (used, usb) = (small.code(&["V1-VC"]), stick(&small, "usb"));
    small.world.link.cut();
    let clinic = small.world.agent("clinic");
    run(&clinic, &["enroll", &used, "--timeout", "1s"]).exits(3);
    let written = export(&clinic, &usb);
    assert_eq!((&written["home"], &written["entries"]), (&Value::Null, &json!(0)));
    let row = &take_in(&small, &usb)[0];
    assert_eq!((&row["outcome"], &row["home"]), (&json!("taken"), &json!("V1-VC")));
    assert_eq!(bring(&clinic, &usb)["grants"], 1);
    record(&clinic, DAY, &["total_visits=7"]);
    fs::remove_file(written["file"].as_str().unwrap()).unwrap();
    export(&clinic, &usb);
    assert_eq!(take_in(&small, &usb)[0]["new"], 1);
    assert_eq!(bring(&clinic, &usb)["waiting"], 0);

    // The code is used up: whoever copied the first stick gets nowhere with it.
    let second = small.world.agent("second");
    run(&second, &["enroll", &used, "--timeout", "1s"]).exits(3);
    let usb = stick(&small, "usb2");
    export(&second, &usb);
    let row = small.run(&["bundle", "import", text(&usb), "--format", "json"]).exits(1);
    assert!(row.out.contains("\"outcome\": \"used\""), "{}", row.out);
    let told = run(&second, &["bundle", "import", text(&usb), "--lang", "en"]).exits(1);
    assert!(told.err.contains("[used]"), "{}", told.err);
}

#[test]
fn repeated_overtaken_and_in_the_wrong_order_nothing_is_lost_or_counted_twice() {
    let small = Small::new();
    let clinic = small.agent("clinic", &["V1-VC"]);
    let [one, two, three] = ["one", "two", "three"].map(|name| stick(&small, name));
    small.world.link.cut();
    record(&clinic, DAY, &["total_visits=10"]);
    export(&clinic, &one);
    record(&clinic, "2026-01-06", &["total_visits=20"]);
    // Every bundle holds all that waits.
    assert_eq!(export(&clinic, &two)["entries"], 2);
    assert_eq!(take_in(&small, &two)[0]["new"], 2);
    let again = &take_in(&small, &two)[0];
    assert_eq!((&again["new"], &again["known"]), (&json!(0), &json!(2)));
    let late = &take_in(&small, &one)[0];
    assert_eq!((&late["new"], &late["known"]), (&json!(0), &json!(1)));
    assert_eq!(visits(&small, "V1-VC"), 30);
    // The older answer first: it was asked first and is believed; then the newer; then both once more.
    let expected = [(&one, true), (&two, true), (&one, false), (&two, false)];
    for (at, newest) in expected {
        assert_eq!(bring(&clinic, at)["newest"], newest, "{}", at.display());
        record(&clinic, "2026-01-07", &["total_visits=1"]);
    }
    // Overtaken by the line: what comes by hand afterwards is known already, and can only add.
    export(&clinic, &three);
    small.world.link.restore();
    sync(&clinic);
    record(&clinic, "2026-01-08", &["total_visits=2"]);
    sync(&clinic);
    let late = &take_in(&small, &three)[0];
    assert_eq!((&late["new"], &late["outcome"]), (&json!(0), &json!("taken")), "{late}");
    let came = run(&clinic, &["bundle", "import", text(&three), "--lang", "en"]).exits(0);
    assert!(came.err.contains("could only add"), "{}", came.err);
    assert_eq!(waiting(&clinic), 0, "an old answer takes nothing back");
    assert_eq!(visits(&small, "V1-VC"), 10 + 20 + 1 + 2);
    let fleet = small.json(&["fleet"]);
    assert_eq!(fleet["agents"][0]["waiting"], 0, "an old bundle says nothing of what waits now");
    small.ok(&["verify", "--all"]);
}

#[test]
fn killed_between_export_and_import_and_in_the_middle_of_either() {
    let mut small = Small::new();
    let clinic = small.agent("clinic", &["V1-VC"]);
    let usb = stick(&small, "usb");
    small.world.link.cut();
    record(&clinic, "2025-01-01..2025-12-31", &["total_visits=1"]);
    record(&clinic, "2026-01-05..2026-01-30", &["total_visits=2"]);
    // Written while the service runs, and before it is killed.
    let service = clinic.start(&["run"]).unwrap();
    let running = || Ok(clinic.dir().join("run/local.json").exists().then_some(()));
    until("the service runs", SOON, running).unwrap();
    let all = 365 + 26;
    assert_eq!(export(&clinic, &usb)["entries"], all);
    service.kill9().unwrap();
    assert_eq!(waiting(&clinic), all);
    let file = usb.join("V1-VC.bundle");
    let whole = fs::read(&file).unwrap();
    // Killed at any moment of the writing, the file on the stick is the old one or the new.
    for _ in 0..8 {
        let mut command = clinic.command(&["bundle", "export", text(&file)]);
        let mut child = command.spawn().unwrap();
        let begun = || {
            Ok((fs::read(&file).is_ok_and(|now| now != whole)
                || usb.join("V1-VC.bundle.new").exists()
                || child.try_wait()?.is_some())
            .then_some(()))
        };
        until("it is being written", SOON, begun).unwrap();
        let _ = child.kill();
        child.wait().unwrap();
        assert!(Bundle::from_bytes(&fs::read(&file).unwrap()).is_ok());
    }
    export(&clinic, &usb);

    // The centre dies while it takes the stick in: the command fails, nothing is half done.
    let (mqtt, http) = (small.served().mqtt(), small.served().http());
    let mut command = small.world.command();
    let position = || -> Value {
        let health = small.served().get("/v1/health").unwrap().body;
        serde_json::from_str::<Value>(&health).unwrap()["position"].clone()
    };
    let before = position();
    let mut taking = command.args(["bundle", "import", text(&usb)]).spawn().unwrap();
    until("some of it is in", SOON, || Ok((position() != before).then_some(()))).unwrap();
    small.served.take().unwrap().kill9().unwrap();
    taking.wait().unwrap();
    small.served = Some(small.world.serve_at(mqtt, http).unwrap());
    let row = take_in(&small, &usb)[0].clone();
    assert_eq!(row["new"].as_u64().unwrap() + row["known"].as_u64().unwrap(), all, "{row}");
    // And with no service at all: the command opens the store itself.
    small.served.take().unwrap().stop().unwrap();
    assert_eq!(take_in(&small, &usb)[0]["known"], all);
    small.ok(&["verify", "--all"]);
    small.served = Some(small.world.serve_at(mqtt, http).unwrap());

    // The service that takes the answer in is another than the one that wrote the bundle, and dies after it.
    let service = clinic.start(&["run"]).unwrap();
    let alive =
        || Ok(run(&clinic, &["status", "--format", "json"]).out.contains("offline").then_some(()));
    until("the service runs", SOON, alive).unwrap();
    let came = bring(&clinic, &usb);
    assert_eq!((&came["received"], &came["newest"]), (&json!(all), &json!(true)), "{came}");
    service.kill9().unwrap();
    assert_eq!(waiting(&clinic), 0, "what a receipt has proved outlives the kill");
    assert_eq!(visits(&small, "V1-VC"), 52);
}

#[test]
fn foreign_revoked_spliced_cut_and_flipped_bundles_get_nothing_in() {
    let small = Small::new();
    let clinic = small.agent("clinic", &["V1-VC"]);
    let other = small.agent("other", &["V2-VC"]);
    let (usb, far) = (stick(&small, "usb"), stick(&small, "far"));
    record(&clinic, DAY, &["total_visits=10"]);
    record(&other, DAY, &["total_visits=100"]);
    let file = usb.join("V1-VC.bundle");
    export(&clinic, &usb);
    export(&other, &far);
    let good = fs::read(&file).unwrap();
    let import = |file: &Path| -> Done {
        small.run(&["bundle", "import", text(file), "--lang", "en", "--format", "json"])
    };
    let bad = |bytes: &[u8], outcome: &str| {
        let path = small.file("bad.bundle", bytes);
        let done = import(&path).exits(1);
        assert!(
            done.out.contains(&format!("\"outcome\": \"{outcome}\"")),
            "{}\n{}",
            done.out,
            done.err
        );
        done
    };
    // Cut at any place, or with a bit the other way: the sum tells.
    for at in (0..good.len()).step_by(good.len() / 9) {
        bad(&good[..at], "damaged");
        let mut flipped = good.clone();
        flipped[at] ^= 1;
        bad(&flipped, "damaged");
    }
    // By hand, with the sum put right: the signatures tell.
    let bundle = Bundle::from_bytes(&good).unwrap();
    let is = |kind: Kind| move |m: &&Vec<u8>| Envelope::read(m).unwrap().kind == kind;
    let last = bundle.messages.len() - 1;
    let mut forged = bundle.clone();
    let middle = forged.messages[last].len() / 2;
    forged.messages[last][middle] ^= 1;
    bad(&forged.to_bytes(), "left_aside");
    // Two agents' messages in one file are no bundle; another's counts under this one's name are not signed.
    let others = Bundle::from_bytes(&fs::read(far.join("V2-VC.bundle")).unwrap()).unwrap();
    let mixed = [&bundle.messages[..], &others.messages].concat();
    bad(&Bundle { messages: mixed }.to_bytes(), "damaged");
    let mut spliced = bundle.clone();
    let mut stolen = others.messages.last().unwrap().clone();
    stolen[2..8].copy_from_slice(&bundle.messages[last][2..8]);
    spliced.messages.push(stolen);
    // Whatever of it is signed goes in; that is not: the clinic's own count, nothing of the other's.
    bad(&spliced.to_bytes(), "left_aside");
    assert_eq!((visits(&small, "V1-VC"), visits(&small, "V2-VC")), (json!(10), Value::Null));
    bad(&Bundle::default().to_bytes(), "damaged");
    // A stranger's key, with a grant of its own making.
    let stranger = SigningKey::from_seed(&[9; 32]).unwrap();
    let introduction = bundle.messages.iter().find(is(Kind::Introduce)).unwrap();
    let body = Envelope::read(introduction).unwrap().unverified_body().to_vec();
    let agent = stranger.public().agent_id();
    let own = seal(Kind::Introduce, agent, &body, &stranger);
    let strangers = Bundle { messages: vec![own] }.to_bytes();
    // The answer that stands there is the clinic's: another's does not take its place.
    let done = bad(&strangers, "not_answered");
    assert!(done.out.contains("no answer to this agent"), "{}", done.out);
    let answer = Bundle::from_bytes(&fs::read(small.world.dir().join("bad.answer")).unwrap());
    let whose = answer.unwrap().heading().unwrap().0.to_string();
    assert_eq!(whose, json_of(&clinic, &["status"])["agent"]);
    let done = import(&small.file("stranger.bundle", &strangers)).exits(1);
    assert!(done.out.contains("\"outcome\": \"unknown_agent\""), "{}", done.out);
    assert!(done.out.contains("enrolled at another one"), "{}", done.out);
    assert!(!small.world.dir().join("stranger.answer").exists());

    // Another centre's agent, and the other centre's answer.
    let elsewhere = Small::new();
    let foreign = elsewhere.agent("foreign", &["V1-VC"]);
    record(&foreign, DAY, &["total_visits=5"]);
    let abroad = stick(&elsewhere, "abroad");
    export(&foreign, &abroad);
    let done = import(&abroad.join("V1-VC.bundle")).exits(1);
    assert!(done.out.contains("unknown_agent"), "{}", done.out);
    assert!(!abroad.join("V1-VC.answer").exists(), "there is nothing to say to it");
    take_in(&elsewhere, &abroad);
    let wrong =
        run(&clinic, &["bundle", "import", text(&abroad.join("V1-VC.answer")), "--lang", "en"]);
    assert!(wrong.exits(1).err.contains("[others_answer]"));

    // An answer that was altered, or signed by somebody else, releases nothing.
    take_in(&small, &usb);
    let answer = Bundle::from_bytes(&fs::read(usb.join("V1-VC.answer")).unwrap()).unwrap();
    record(&clinic, "2026-01-06", &["total_visits=1"]);
    let before = waiting(&clinic);
    let mut altered = answer.clone();
    for message in &mut altered.messages {
        let id = Envelope::read(message).unwrap().agent;
        let body = Envelope::read(message).unwrap().unverified_body().to_vec();
        let kind = Envelope::read(message).unwrap().kind;
        *message = seal(kind, id, &body, &stranger);
    }
    let path = small.file("altered.answer", altered.to_bytes());
    let told = run(&clinic, &["bundle", "import", text(&path), "--lang", "en"]).exits(1);
    assert!(told.err.contains("[answer_unusable]"), "{}", told.err);
    let cut = small.file("cut.answer", &answer.to_bytes()[..200]);
    let told = run(&clinic, &["bundle", "import", text(&cut), "--lang", "en"]).exits(1);
    assert!(told.err.contains("[bundle_damaged]"), "{}", told.err);
    let told = run(&clinic, &["bundle", "import", text(&file), "--lang", "en"]).exits(1);
    assert!(told.err.contains("[not_an_answer]"), "{}", told.err);
    let told = import(&usb.join("V1-VC.answer")).exits(1);
    assert!(told.out.contains("answer to an agent"), "{}", told.out);
    assert_eq!(waiting(&clinic), before);
    // The good one of an agent that is out.
    let id = json_of(&clinic, &["status"])["agent"].as_str().unwrap().to_owned();
    small.ok(&["revoke", &id]);
    export(&clinic, &usb);
    let done = import(&usb).exits(1);
    assert!(done.out.contains("\"outcome\": \"agent_revoked\""), "{}", done.out);
    assert_eq!(visits(&small, "V1-VC"), 10, "nothing more of it");
    let told = run(&clinic, &["bundle", "import", text(&usb), "--lang", "en"]).exits(1);
    assert!(told.err.contains("[agent_revoked]"), "{}", told.err);
    assert_eq!(waiting(&clinic), before, "what it holds stays with it");
    small.ok(&["verify", "--all"]);
}

#[test]
fn a_stick_holds_counts_and_nothing_to_speak_with() {
    let small = Small::new();
    let code = small.code(&["V1-VC"]);
    let clinic = small.world.agent("clinic");
    run(&clinic, &["enroll", &code]).exits(0);
    record(&clinic, DAY, &["total_visits=10", "--by", "w07"]);
    let usb = stick(&small, "usb");
    export(&clinic, &usb);
    take_in(&small, &usb);
    let key = fs::read(clinic.dir().join("agent.key")).unwrap();
    let seed = &key[16..48];
    assert_eq!(SigningKey::from_pkcs8(&key).unwrap().pkcs8_v1()[16..], *seed, "this is the seed");
    let operating = fs::read(small.world.centre().join("keys/operating.key")).unwrap();
    let secret = code.parse::<banyan_shared::wire::EnrolCode>().unwrap().secret;
    let holds = |bytes: &[u8], secret: &[u8]| bytes.windows(secret.len()).any(|w| w == secret);
    for name in ["V1-VC.bundle", "V1-VC.answer"] {
        let bytes = fs::read(usb.join(name)).unwrap();
        assert!(
            !holds(&bytes, seed) && !holds(&bytes, &operating[16..48]) && !holds(&bytes, &secret)
        );
        // What is packed too.
        for message in Bundle::from_bytes(&bytes).unwrap().messages {
            let envelope = Envelope::read(&message).unwrap();
            assert_ne!(
                envelope.kind,
                Kind::Enrol,
                "an enrolment that is answered is not asked again"
            );
        }
    }
    // Whoever has it can put nothing of their own into it.
    let bundle = Bundle::from_bytes(&fs::read(usb.join("V1-VC.bundle")).unwrap()).unwrap();
    let batch = bundle.messages.last().unwrap();
    let envelope = Envelope::read(batch).unwrap();
    let thief = SigningKey::from_seed(&sha256(&[b"thief"])).unwrap();
    let forged = seal(Kind::Batch, envelope.agent, envelope.unverified_body(), &thief);
    let path = small.file("thief.bundle", Bundle { messages: vec![forged] }.to_bytes());
    small.run(&["bundle", "import", text(&path)]).exits(1);
}

#[test]
fn an_agent_offline_for_two_roll_overs_learns_the_key_by_stick() {
    let (mut small, file, code) = country();
    let clinic = small.agent("clinic", &["V1-VC"]);
    record(&clinic, DAY, &["total_visits=1"]);
    sync(&clinic);
    let [early, usb] = ["early", "usb"].map(|name| stick(&small, name));
    record(&clinic, "2026-01-06", &["total_visits=2"]);
    export(&clinic, &early);
    take_in(&small, &early);
    roll(&mut small, &file, &code, &[]);
    roll(&mut small, &file, &code, &[]);
    small.world.link.cut();
    record(&clinic, "2026-01-07", &["total_visits=4"]);
    export(&clinic, &usb);
    let row = &take_in(&small, &usb)[0];
    assert_eq!((&row["new"], &row["known"]), (&json!(1), &json!(1)), "{row}");
    let came = bring(&clinic, &usb);
    assert_eq!((&came["received"], &came["left_aside"]), (&json!(2), &json!(0)), "{came}");
    // An answer from before a roll-over proves nothing any more.
    let told = run(&clinic, &["bundle", "import", text(&early), "--lang", "en"]).exits(1);
    assert!(told.err.contains("[answer_unusable]"), "{}", told.err);
    assert_eq!(waiting(&clinic), 0);
    assert_eq!(visits(&small, "V1-VC"), 7);
    export(&clinic, &usb);
    take_in(&small, &usb);
    let shown = small.json(&["keys", "show"]);
    assert_eq!((&shown["operating"]["serial"], &shown["agents_knowing"]), (&json!(3), &json!(1)));
    small.ok(&["verify", "--all"]);
}

#[test]
fn a_restored_centre_gets_back_by_stick_what_it_lost() {
    let mut small = Small::new();
    let clinic = small.agent("clinic", &["V1-VC"]);
    record(&clinic, DAY, &["total_visits=1"]);
    sync(&clinic);
    let backup = small.world.dir().join("backup");
    small.ok(&["backup", text(&backup), "--identity"]);
    let later = small.agent("later", &["V2-VC"]);
    record(&clinic, "2026-01-06", &["total_visits=2"]);
    record(&later, DAY, &["total_visits=8"]);
    for agent in [&clinic, &later] {
        sync(agent);
    }
    let before = small.figures("S", "2026-01");
    let (mqtt, http) = (small.served().mqtt(), small.served().http());
    small.served.take().unwrap().kill9().unwrap();
    fs::rename(small.world.centre(), small.world.dir().join("lost")).unwrap();
    small.ok(&["restore", text(&backup)]);
    small.served = Some(small.world.serve_at(mqtt, http).unwrap());
    small.world.link.cut();
    assert_eq!(visits(&small, "S"), Value::Null);
    // The first round says what is lost, the second brings it. One of the two is not even known any more.
    for round in 0..2 {
        let usb = stick(&small, &format!("usb{round}"));
        for agent in [&clinic, &later] {
            export(agent, &usb);
        }
        assert_eq!(take_in(&small, &usb).len(), 2);
        for (agent, lost) in [(&clinic, 2), (&later, 1)] {
            let came = bring(agent, &usb);
            assert_eq!(came["waiting"], if round == 0 { lost } else { 0 }, "{came}");
        }
    }
    assert_eq!(small.figures("S", "2026-01"), before);
    small.ok(&["verify", "--all"]);
}

#[test]
fn who_may_take_a_bundle_in_and_what_is_on_the_log() {
    let small = Small::new();
    small.world.link.cut();
    let clinic = by_file(&small, "clinic", "V1-VC");
    record(&clinic, DAY, &["total_visits=3"]);
    let usb = stick(&small, "usb");
    export(&clinic, &usb);
    let bundle = Bundle::from_bytes(&fs::read(usb.join("V1-VC.bundle")).unwrap()).unwrap();
    let messages: Vec<String> =
        bundle.messages.iter().map(|m| data_encoding::BASE64.encode(m)).collect();
    let request =
        json!({ "command": "bundle_import", "file": "V1-VC.bundle", "messages": messages });
    let token = |role: &str, scope: &str| {
        let name = format!("{role}-{scope}");
        let made = json!({ "command": "token_add", "name": name, "role": role, "scope": scope, "expires_s": 3600 });
        small.served().call(&made).unwrap()["token"].as_str().unwrap().to_owned()
    };
    let ask = |token: &str| -> (u16, String) {
        let agent: ureq::Agent =
            ureq::Agent::config_builder().http_status_as_error(false).build().into();
        let url = format!("http://{}/v1/call", small.served().http());
        let bearer = format!("Bearer {token}");
        let mut answer =
            agent.post(url).header("authorization", bearer).send_json(&request).unwrap();
        (answer.status().as_u16(), answer.body_mut().read_to_string().unwrap())
    };
    // Not yet enrolled: the code in it speaks of county K1.
    for (role, scope) in [("viewer", "K1"), ("operator", "K2")] {
        let (status, body) = ask(&token(role, scope));
        assert_eq!(status, 403, "{role} of {scope}: {body}");
    }
    assert_eq!(visits(&small, "V1-VC"), Value::Null);
    let own = token("operator", "K1");
    let (status, body) = ask(&own);
    assert_eq!(status, 200, "{body}");
    assert_eq!(visits(&small, "V1-VC"), 3);
    assert_eq!(ask(&own).0, 200);
    assert_eq!(ask(&token("operator", "T3")).0, 403, "known now, and another's all the same");
    let log = small.json(&["audit"]);
    let of = |kind: &str, user: &str| {
        let records = log["records"].as_array().unwrap();
        records.iter().filter(|r| r["kind"] == kind && r["user"] == user).count()
    };
    assert_eq!(of("change", "operator-K1"), 2, "{log}");
    assert_eq!((of("refused", "viewer-K1"), of("refused", "operator-K2")), (1, 1), "{log}");
    let agent = json_of(&clinic, &["status"])["agent"].as_str().unwrap().to_owned();
    let named =
        |r: &&Value| r["what"] == "bundle import" && r["of"] == format!("{agent} V1-VC.bundle");
    assert!(log["records"].as_array().unwrap().iter().filter(named).count() >= 4, "{log}");
    for help in [vec!["bundle", "import", "--help"], vec!["bundle", "--help"]] {
        let said = small.ok(&help);
        assert!(said.contains("import"), "{said}");
    }
    for verb in ["export", "import"] {
        let said = run(&clinic, &["bundle", verb, "--help"]).exits(0).out;
        assert!(said.contains("Examples"), "{said}");
    }
    let nothing = stick(&small, "nothing");
    let told = small.run(&["bundle", "import", text(&nothing), "--lang", "en"]).exits(2);
    assert!(told.err.contains("no bundle in"), "{}", told.err);
    let told = run(&clinic, &["bundle", "import", text(&nothing)]).exits(1);
    assert!(told.err.contains("[no_answer_here]"), "{}", told.err);
    let stranger = small.world.agent("stranger");
    let told = run(&stranger, &["bundle", "export", text(&nothing)]).exits(1);
    assert!(told.err.contains("[not_enrolled]"), "{}", told.err);
}
