//! A log that cannot be written, as on a full disk: nobody is to notice but the log's reader.

use std::fs;
use std::io::Write as _;
use std::net::TcpStream;
use std::os::unix::fs::symlink;
use std::process::Stdio;

use banyan_tests::harness::until;

use crate::small::{SOON, Small, record, sync};

#[test]
fn a_full_log_ends_neither_the_door_nor_the_agent() {
    let mut small = Small::new();
    let agent = small.agent("clinic", &["V1-VC"]);
    record(&agent, "2026-01-06", &["total_visits=5"]);

    let served = small.served.take().expect("it is serving");
    let (mqtt, http) = (served.mqtt(), served.http());
    served.stop().unwrap();
    let log = small.world.dir().join("logs/aggregator.log");
    fs::remove_file(&log).unwrap();
    symlink("/dev/full", &log).unwrap();
    let served = small.world.serve_at(mqtt, http).unwrap();

    // What the door refuses it tells the log.
    let refused = || -> anyhow::Result<u64> {
        let counters = served.get("/v1/counters")?.body;
        let counters: serde_json::Value = serde_json::from_str(&counters)?;
        Ok(counters["door"]["refused"]["tls"].as_u64().unwrap_or(0))
    };
    let before = refused().unwrap();
    for _ in 0..3 {
        TcpStream::connect(mqtt).unwrap().write_all(b"not TLS at all").unwrap();
    }
    until("three are refused", SOON, || Ok((refused()? >= before + 3).then_some(()))).unwrap();

    sync(&agent);
    let full = Stdio::from(fs::OpenOptions::new().write(true).open("/dev/full").unwrap());
    let status = agent.command(&["-vv", "sync"]).stderr(full).status().unwrap();
    assert!(status.success(), "{status}");
    small.served = Some(served);
    assert_eq!(small.element("V1-VC", "2026-01", "total_visits")["value"], 5);
    // In order, and with its log still full.
    small.served.take().expect("it is serving").stop().unwrap();
}
