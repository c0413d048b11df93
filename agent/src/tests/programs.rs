//! The commands as a whole, in a directory, and a running agent asked over the local interface.

use std::time::{Duration, Instant};

use super::*;
use crate::cli::run_args;
use crate::{Driver, local};

/// Runs a command line and gives its exit code.
fn run(dir: &Path, line: &[&str]) -> u8 {
    let data = dir.join("data");
    let mut args = vec!["banyan-agent", "--data-dir", data.to_str().unwrap()];
    args.extend(line);
    run_args(args.into_iter().map(Into::into).collect())
}

fn write(dir: &Path, name: &str, bytes: &[u8]) -> String {
    let path = dir.join(name);
    std::fs::write(&path, bytes).unwrap();
    path.to_str().unwrap().to_owned()
}

fn enrol(dir: &Path) {
    let centre = Centre::new();
    let file = write(dir, "clinic.banyan", &centre.file_bytes(&centre.file()));
    assert_eq!(run(dir, &["enroll", &file]), 0);
}

#[test]
fn commands_end_with_the_code_of_the_contract() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(run(dir.path(), &["status"]), 1, "not enrolled");
    enrol(dir.path());
    assert_eq!(run(dir.path(), &["record", "daily", "2026-01-31", "visits=3"]), 0);
    assert_eq!(run(dir.path(), &["record", "daily", "2026-02-31", "visits=3"]), 1);
    assert_eq!(run(dir.path(), &["record", "daily", "2026-01-31", "visits"]), 2);
    assert_eq!(run(dir.path(), &["record", "daily"]), 2);
    let unknown = ["record", "daily", "2026-01-31", "visits=3", "--facility", "V-3"];
    assert_eq!(run(dir.path(), &unknown), 2);
    assert_eq!(run(dir.path(), &["withdraw", "daily", "2026-01-31"]), 2, "a reason is needed");
    assert_eq!(run(dir.path(), &["withdraw", "daily", "2026-01-31", "--reason", "typo"]), 0);
    assert_eq!(run(dir.path(), &["status", "--format", "json"]), 0);
    assert_eq!(run(dir.path(), &["queue", "ls"]), 0);
    assert_eq!(run(dir.path(), &["queue", "show", "1-0/99"]), 1);
    assert_eq!(run(dir.path(), &["enroll", "BANYAN-12345"]), 2, "not a code");
    // Nobody listens at the address of the test's centre.
    assert_eq!(run(dir.path(), &["sync", "--timeout", "1s"]), 3);
    // What the centre said last time is not what it says now.
    let mut identity = Identity::open(&dir.path().join("data")).unwrap().unwrap();
    identity.set_refusal(Some(banyan_shared::wire::EnrolRefusal::Expired)).unwrap();
    assert_eq!(run(dir.path(), &["sync", "--timeout", "1s"]), 3);
}

#[test]
fn a_stick_lets_the_installer_pick() {
    let dir = tempfile::tempdir().unwrap();
    let centre = Centre::new();
    let stick = write(dir.path(), "stick.banyan", &centre.file_bytes(&centre.stick()));
    assert_eq!(run(dir.path(), &["enroll", &stick]), 2);
    assert_eq!(run(dir.path(), &["enroll", &stick, "--facility", "V-13"]), 2);
    assert_eq!(run(dir.path(), &["enroll", &stick, "--facility", "V-12"]), 0);
    let identity = Identity::open(&dir.path().join("data")).unwrap().unwrap();
    assert_eq!(identity.present(), Some(12));
    assert_eq!(identity.code().unwrap().1.unwrap().as_str(), "V-12");
    assert_eq!(run(dir.path(), &["enroll", &stick, "--facility", "V-11"]), 1, "taken");
    let torn = write(dir.path(), "torn.banyan", &centre.file_bytes(&centre.stick())[..99]);
    let other = tempfile::tempdir().unwrap();
    assert_eq!(run(other.path(), &["enroll", &torn]), 1);
}

#[test]
fn good_rows_are_imported_and_refused_ones_can_be_mended() {
    let dir = tempfile::tempdir().unwrap();
    enrol(dir.path());
    let wide = "facility,form,period,open_days,visits,home_visits\n\
                V-1,daily,2026-01-01,1,5,\n\
                V-2,daily,2026-01-01,1,6,1\n\
                V-1,daily,2026-01-02,1,4,9\n\
                V-1,daily,2026-02-31,1,4,1\n\
                V-3,daily,2026-01-02,1,4,1\n\
                V-1,daily,2026-01-03,1,1.2万,1\n";
    let file = write(dir.path(), "jan.csv", wide.as_bytes());
    assert_eq!(run(dir.path(), &["import", &file]), 1);
    let errors = dir.path().join("jan.errors.csv");
    let text = std::fs::read_to_string(&errors).unwrap();
    for code in ["conflict", "bad_date", "not_enrolled", "ten_thousand"] {
        assert!(text.contains(code), "{code}: {text}");
    }
    assert_eq!(text.lines().count(), 5);
    let waiting = || {
        let mut core = Core::open(Options::new(dir.path().join("data"))).unwrap();
        status(&mut core).waiting
    };
    assert_eq!(waiting(), 2);
    // Mended in place and read again as it is; the good file again changes nothing.
    let mended = text
        .replace("2026-01-02,1,4,9", "2026-01-02,1,9,4")
        .replace("2026-02-31", "2026-01-31")
        .replace("V-3", "V-2")
        .replace("1.2万", "12");
    let mended = write(dir.path(), "mended.csv", mended.as_bytes());
    assert_eq!(run(dir.path(), &["import", &mended]), 0);
    assert_eq!(waiting(), 6);
    assert_eq!(run(dir.path(), &["import", &mended]), 0);
    assert_eq!(waiting(), 6);
    let long = "facility,form,period,element,value\nV-1,daily,2026-01-01,visits,\nV-1,daily,2026-01-01,followups,NA\n";
    let long = write(dir.path(), "long.csv", long.as_bytes());
    assert_eq!(run(dir.path(), &["import", &long]), 0);
    let mut core = Core::open(Options::new(dir.path().join("data"))).unwrap();
    let entry = queue(&mut core)[0].entry.clone();
    let Reply::Shown(shown) = core.handle(Command::Show { entry }) else { panic!() };
    assert!(shown.values.contains(&("visits".to_owned(), "5".to_owned())), "empty keeps");
    assert!(shown.values.contains(&("followups".to_owned(), "NA".to_owned())));
    drop(core);
    assert_eq!(run(dir.path(), &["import", &long, "--empty", "missing"]), 0);
    let mut core = Core::open(Options::new(dir.path().join("data"))).unwrap();
    let entry = queue(&mut core)[0].entry.clone();
    let Reply::Shown(shown) = core.handle(Command::Show { entry }) else { panic!() };
    assert!(!shown.values.iter().any(|(element, _)| element == "visits"), "empty is missing");
}

#[test]
fn commands_reach_the_running_agent() {
    let dir = tempfile::tempdir().unwrap();
    enrol(dir.path());
    let data = dir.path().join("data");
    let driver = Driver::open(Options::new(&data)).unwrap();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let service = std::thread::spawn(move || {
        let runtime = crate::cli::runtime().unwrap();
        runtime.block_on(driver.run(async move { drop(stopped.await) })).unwrap();
    });
    let deadline = Instant::now() + Duration::from_secs(30);
    while local::ask(&data, &Command::Status).is_none() {
        assert!(Instant::now() < deadline, "the local interface never opened");
        std::thread::yield_now();
    }
    assert_eq!(run(dir.path(), &["record", "daily", "2026-01-31", "visits=3"]), 0);
    let Some(Reply::Status(status)) = local::ask(&data, &Command::Status) else { panic!() };
    assert_eq!(status.waiting, 1);
    // Without the token there is no answer.
    let path = data.join("run").join("local.json");
    let address = std::fs::read_to_string(&path).unwrap();
    let token = serde_json::from_str::<serde_json::Value>(&address).unwrap()["token"].clone();
    std::fs::write(&path, address.replace(token.as_str().unwrap(), "0")).unwrap();
    assert!(local::ask(&data, &Command::Status).is_none());
    drop(stop);
    service.join().unwrap();
    assert!(path.exists(), "another's by now");
    assert_eq!(run(dir.path(), &["status"]), 0, "and without it they work as well");
}

#[test]
fn a_service_that_does_not_answer_is_late() {
    use std::io::{BufRead, BufReader, Write};
    let dir = tempfile::tempdir().unwrap();
    enrol(dir.path());
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::fs::create_dir(dir.path().join("data/run")).unwrap();
    write(
        dir.path(),
        "data/run/local.json",
        format!(r#"{{"port":{port},"token":"t"}}"#).as_bytes(),
    );
    // It takes the command, and then it is gone.
    let service = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut asked = String::new();
        BufReader::new(&stream).read_line(&mut asked).unwrap();
        let state = crate::command::SyncState {
            hellos: 0,
            waiting: 1,
            enrolled: true,
            link: "connecting".to_owned(),
            detail: None,
            fault: None,
            refusal: None,
        };
        serde_json::to_writer(&stream, &Reply::Sync(state)).unwrap();
        stream.write_all(b"\n").unwrap();
    });
    assert_eq!(run(dir.path(), &["sync", "--timeout", "1s"]), 3);
    service.join().unwrap();
}
