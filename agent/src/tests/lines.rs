//! The driver on real connections, with a broker in front of the test's centre.

use std::sync::Mutex;
use std::sync::atomic::AtomicUsize;
use std::time::{Duration, Instant};

use banyan_shared::topic;
use banyan_shared::wire::Envelope;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::Driver;
use crate::driver::Pace;

/// What a broker does with what is published.
#[derive(Clone)]
enum Behind {
    /// Takes it, and nobody is behind.
    Nobody,
    /// The centre, whose answers to one message are the last there is on that connection.
    CentreOnce(Arc<Mutex<Centre>>),
}

/// One packet: its first byte, and what follows the length.
async fn packet(stream: &mut TcpStream) -> std::io::Result<(u8, Vec<u8>)> {
    let first = stream.read_u8().await?;
    let mut length = 0;
    for shift in (0..).step_by(7) {
        let byte = stream.read_u8().await?;
        length |= usize::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            break;
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await?;
    Ok((first, body))
}

/// A PUBLISH with QoS 0.
fn publish(topic: &str, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0x30];
    let mut length = 2 + topic.len() + payload.len();
    while length > 0x7f {
        bytes.push((length & 0x7f) as u8 | 0x80);
        length >>= 7;
    }
    bytes.push(length as u8);
    bytes.extend_from_slice(&(topic.len() as u16).to_be_bytes());
    [bytes.as_slice(), topic.as_bytes(), payload].concat()
}

async fn talk(mut stream: TcpStream, behind: Behind) -> std::io::Result<()> {
    loop {
        let (first, body) = packet(&mut stream).await?;
        match first & 0xf0 {
            0x10 => stream.write_all(&[0x20, 2, 0, 0]).await?,
            0x80 => stream.write_all(&[0x90, 3, body[0], body[1], 0]).await?,
            0xc0 => stream.write_all(&[0xd0, 0]).await?,
            0x30 => {
                let at = 2 + usize::from(u16::from_be_bytes([body[0], body[1]]));
                stream.write_all(&[0x40, 2, body[at], body[at + 1]]).await?;
                let Behind::CentreOnce(centre) = &behind else { continue };
                let message = &body[at + 2..];
                let down = topic::down(Envelope::read(message).unwrap().agent);
                let answers = centre.lock().unwrap().handle(message);
                for answer in answers {
                    stream.write_all(&publish(&down, &answer)).await?;
                }
                stream.shutdown().await?;
                // Closed with something unread, the line would be reset and the answers lost.
                while stream.read(&mut [0; 256]).await? > 0 {}
                return Ok(());
            }
            _ => return Ok(()),
        }
    }
}

/// A broker; its address, and how many have come.
async fn broker(behind: Behind) -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let came = Arc::new(AtomicUsize::new(0));
    let count = came.clone();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            count.fetch_add(1, Ordering::Relaxed);
            tokio::spawn(talk(stream, behind.clone()));
        }
    });
    (address, came)
}

/// An agent enrolled by a file that names `address`.
fn enrolled_at(dir: &Path, centre: &Centre, address: &str) -> Options {
    let mut file = centre.file();
    file.code.address = address.to_owned();
    Identity::from_file(dir, &file, &file.offers[0]).unwrap();
    options(dir, 1).0
}

async fn soon(done: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !done() {
        assert!(Instant::now() < deadline, "it never came");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_broker_behind_which_nobody_answers_is_left_and_home_is_tried() {
    let dir = tempfile::tempdir().unwrap();
    let mut centre = Centre::new();
    let (home, at_home) = broker(Behind::Nobody).await;
    let (away, at_broker) = broker(Behind::Nobody).await;
    let options = enrolled_at(dir.path(), &centre, &format!("mqtt://{home}"));
    let mut core = Core::open(options.clone()).unwrap();
    centre.connect(&mut core);
    drop(core);
    let mut identity = Identity::open(dir.path()).unwrap().unwrap();
    identity.set_broker(Some(format!("mqtt://{away}"))).unwrap();
    let pace = Pace { answer_timeout: Duration::from_millis(200), ..Pace::default() };
    let driver = Driver::open(options).unwrap().without_local().with_pace(pace);
    let count = |of: &AtomicUsize| of.load(Ordering::Relaxed);
    driver.run(soon(|| count(&at_home) > 0)).await.unwrap();
    assert_eq!(count(&at_broker), 1, "the broker came first");
}

#[tokio::test]
async fn a_link_that_ends_right_after_each_receipt_is_not_made_anew_ever_faster() {
    let centre = Arc::new(Mutex::new(Centre::new()));
    let (address, _) = broker(Behind::CentreOnce(centre.clone())).await;
    let dir = tempfile::tempdir().unwrap();
    let enrolled = enrolled_at(dir.path(), &centre.lock().unwrap(), &format!("mqtt://{address}"));
    // How many failures the waits were made for, and what had been answered by then.
    let waits = async |steady: Duration, count: usize, visits: Option<&str>| {
        let waits = Arc::new(Mutex::new(Vec::new()));
        let seen = waits.clone();
        let wait = move |attempt| {
            seen.lock().unwrap().push(attempt);
            Duration::ZERO
        };
        let pace = Pace { steady, wait: Arc::new(wait), ..Pace::default() };
        let driver = Driver::open(enrolled.clone()).unwrap().without_local().with_pace(pace);
        let handle = driver.handle();
        if let Some(visits) = visits {
            let drafts = vec![draft("daily", "2026-03-09", &[visits])];
            let saved = handle.handle(Command::Save { drafts, together: true }).await;
            assert!(matches!(saved, Reply::Saved { .. }), "{saved:?}");
        }
        driver.run(soon(|| waits.lock().unwrap().len() >= count)).await.unwrap();
        assert!(handle.hellos().await >= 3, "hellos were answered");
        let mut waits = waits.lock().unwrap().clone();
        waits.truncate(count);
        waits
    };
    let minute = Duration::from_secs(60);
    assert_eq!(waits(minute, 6, None).await, [1, 2, 3, 4, 5, 6]);
    // One that stands for as long as it must is a success, and so is one on which something got through.
    assert_eq!(waits(Duration::ZERO, 4, None).await, [0, 0, 0, 0]);
    assert_eq!(waits(minute, 4, Some("visits=3")).await, [0, 1, 2, 3]);
}

#[tokio::test]
async fn a_fault_of_this_machine_is_told_as_one() {
    let centre = Arc::new(Mutex::new(Centre::new()));
    let (address, _) = broker(Behind::CentreOnce(centre.clone())).await;
    let dir = tempfile::tempdir().unwrap();
    let options = enrolled_at(dir.path(), &centre.lock().unwrap(), &format!("mqtt://{address}"));
    let driver = Driver::open(options).unwrap().without_local();
    let handle = driver.handle();
    // The grant that comes cannot be kept.
    let (contexts, aside) = (dir.path().join("contexts"), dir.path().join("aside"));
    std::fs::rename(&contexts, &aside).unwrap();
    std::fs::write(&contexts, b"in the way").unwrap();
    let stop = async {
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            let Reply::Sync(state) = handle.handle(Command::SyncState).await else { panic!() };
            if let Some(fault) = state.fault {
                assert_eq!(fault.code, "file");
                break;
            }
            assert!(Instant::now() < deadline, "it was never told");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        std::fs::remove_file(&contexts).unwrap();
        std::fs::rename(&aside, &contexts).unwrap();
        while !handle.is_settled(0).await {
            assert!(Instant::now() < deadline, "it never got over it");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let Reply::Sync(state) = handle.handle(Command::SyncState).await else { panic!() };
        assert_eq!(state.fault, None);
    };
    driver.run(stop).await.unwrap();
}
