//! Bad input at the centre: whatever comes in by MQTT, the others are served, and it is counted.

use std::time::Duration;

use banyan_shared::ids::{AgentId, Epoch};
use banyan_shared::keys::SigningKey;
use banyan_shared::limits::PAYLOAD_BYTES_MAX;
use banyan_shared::topic;
use banyan_shared::wire::{Batch, Beacon, Body, Entry, Hello};
use banyan_tests::until;
use rumqttc::{Client, Event, MqttOptions, Packet, QoS};
use serde_json::Value;

use crate::small::{SOON, Small, json_of, record, run, sync};

/// Publishes `payloads` as `agent`, as any MQTT client can, until each is acknowledged or the door hangs up.
/// How many were acknowledged.
fn publish(small: &Small, agent: AgentId, payloads: &[Vec<u8>]) -> usize {
    let address = small.world.link.address();
    let mut options = MqttOptions::new(agent.to_string(), address.ip().to_string(), address.port());
    options.set_keep_alive(Duration::from_secs(10));
    options.set_max_packet_size(4 * PAYLOAD_BYTES_MAX, 4 * PAYLOAD_BYTES_MAX);
    let (client, mut connection) = Client::new(options, payloads.len().max(1));
    for payload in payloads {
        client.publish(topic::up(agent), QoS::AtLeastOnce, false, payload.clone()).unwrap();
    }
    let mut acknowledged = 0;
    while acknowledged < payloads.len() {
        match connection.recv_timeout(SOON).expect("an answer in time") {
            Ok(Event::Incoming(Packet::PubAck(_))) => acknowledged += 1,
            Ok(_) => {}
            Err(_) => break,
        }
    }
    acknowledged
}

fn counter(counters: &Value, name: &str) -> u64 {
    counters["intake"][name].as_u64().unwrap_or_else(|| panic!("no {name} in {counters}"))
}

/// A batch with a hello and one entry that takes the place of another.
fn batch(agent: AgentId, context: u32) -> Batch {
    Batch {
        agent,
        epoch: Epoch { counter: 1, random: 7 },
        context,
        hello: Some(Hello { nonce: 1, beacon: Beacon::default(), operating: None }),
        entries: vec![Entry { seq: 1, body: Body::Void }],
    }
}

#[test]
fn whatever_is_published_intake_goes_on_and_counts_it() {
    let small = Small::plain();
    let clinic = small.agent("clinic", &["V1-VC"]);
    let other = small.agent("other", &["V2-VC"]);
    let id: AgentId = json_of(&clinic, &["status"])["agent"].as_str().unwrap().parse().unwrap();
    let counters = || -> Value {
        serde_json::from_str(&small.served().get("/v1/counters").unwrap().body).unwrap()
    };
    let before = counters();

    // Noise, a message cut short, one with a flipped bit.
    let stranger = SigningKey::from_seed(&[9; 32]).unwrap();
    let good = batch(id, 1).seal(&stranger);
    let cut = good[..good.len() / 2].to_vec();
    assert_eq!(publish(&small, id, &[b"not a batch".to_vec(), Vec::new(), cut]), 3);
    // Signed by another key than the agent's; and by a key nobody knows.
    assert_eq!(publish(&small, id, std::slice::from_ref(&good)), 1);
    let unknown = stranger.public().agent_id();
    assert_eq!(publish(&small, unknown, &[batch(unknown, 1).seal(&stranger)]), 1);
    // A message in another's name.
    assert_eq!(publish(&small, unknown, &[good]), 1);
    // Larger than allowed: the door hangs up.
    assert_eq!(publish(&small, id, &[vec![0; PAYLOAD_BYTES_MAX + 4096]]), 0);

    let after = until("everything is counted", SOON, || {
        let now = counters();
        let done = counter(&now, "malformed") >= counter(&before, "malformed") + 4
            && counter(&now, "bad_signature") > counter(&before, "bad_signature")
            && counter(&now, "unknown_agent") > counter(&before, "unknown_agent")
            && now["door"]["refused"]["too_large"].as_u64() == Some(1);
        Ok(done.then_some(now))
    })
    .unwrap_or_else(|error| panic!("{error}: {}", counters()));
    assert_eq!(counter(&after, "malformed"), counter(&before, "malformed") + 4, "{after}");
    assert_eq!(counter(&after, "bad_signature"), counter(&before, "bad_signature") + 1, "{after}");
    assert_eq!(counter(&after, "batches"), 0, "nothing of it is in the ledger: {after}");

    // The one in whose name it came, and the others, are served.
    record(&clinic, "2026-01-05", &["total_visits=12"]);
    record(&other, "2026-01-05", &["total_visits=5"]);
    sync(&clinic);
    sync(&other);
    assert_eq!(small.element("T1", "2026-01-05", "total_visits")["value"], 17);
    small.ok(&["verify", "--all"]);
}

#[test]
fn a_revoked_agent_is_out_at_once_and_what_it_sent_stays() {
    let small = Small::new();
    let clinic = small.agent("clinic", &["V1-VC"]);
    let other = small.agent("other", &["V2-VC"]);
    record(&clinic, "2026-01-05", &["total_visits=12"]);
    sync(&clinic);
    let id = json_of(&clinic, &["status"])["agent"].as_str().unwrap().to_owned();
    small.ok(&["revoke", &id]);
    record(&clinic, "2026-01-06", &["total_visits=5"]);
    let out = run(&clinic, &["sync", "--timeout", "20s"]).exits(1);
    assert!(
        out.err.contains("本终端已被注销") && out.err.contains("[agent_revoked]"),
        "{}",
        out.err
    );
    record(&other, "2026-01-06", &["total_visits=3"]);
    sync(&other);
    assert_eq!(small.element("T1", "2026-01", "total_visits")["value"], 15);
    let fleet = small.json(&["fleet"]);
    let row = fleet["agents"].as_array().unwrap().iter().find(|row| row["agent"] == id.as_str());
    assert_eq!(row.unwrap()["state"], "revoked");
    small.run(&["revoke", "0102030405ff"]).exits(2);
}
