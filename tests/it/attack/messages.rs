//! Packets and messages that are too large, malformed, or out of place.

use banyan_shared::limits::{PACKET_BYTES_MAX, PACKET_CONNECT_BYTES_MAX, PAYLOAD_BYTES_MAX};
use banyan_shared::topic;
use banyan_tests::raw::{
    SOON, connect, connect_with, packet, publish, publish_with, subscribe, tcp, tls,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::scene::each;
use super::{Scene, times};

#[test]
fn oversize_and_malformed_packets_end_their_connection_alone() {
    let scene = Scene::new();
    let (agent, _) = scene.ground.issued(0);
    let (id, up) = (agent.to_string(), topic::up(agent));
    let down = topic::down(agent);
    let first = vec![
        (packet(0x10, &vec![0; PACKET_CONNECT_BYTES_MAX + 1]), "too_large"),
        (vec![0x10, 0xff, 0xff, 0xff, 0x7f], "too_large"),
        (vec![0x10, 0xff, 0xff, 0xff, 0xff, 0x7f], "malformed"),
        (vec![0x11, 0], "malformed"),
        (connect_with(4, 3, 60, &id), "malformed"),
        (connect_with(4, 0b100, 60, &id), "malformed"),
        (connect_with(4, 0, 60, &id), "persistent_session"),
        (vec![0x00, 0], "malformed"),
        (vec![0xf0, 0], "malformed"),
        (vec![0x20, 2, 0, 0], "unexpected"),
        (b"GET / HTTP/1.1\r\n\r\n".to_vec(), "malformed"),
    ];
    let many: Vec<(&str, u8)> = vec![(down.as_str(), 0); 9];
    let then = vec![
        (publish(&up, 1, &vec![0; PAYLOAD_BYTES_MAX + 1]), "too_large"),
        (publish(&up, 1, &vec![0; PACKET_BYTES_MAX]), "too_large"),
        (vec![0x32, 0xff, 0xff, 0xff, 0x7f], "too_large"),
        (publish_with(0x34, &up, Some(1), b"x"), "qos"),
        (publish_with(0x36, &up, Some(1), b"x"), "malformed"),
        (publish_with(0x32, &up, Some(0), b"x"), "malformed"),
        (packet(0x32, &[0xff, 0xff, 0]), "malformed"),
        (packet(0x30, &[0, 2, 0xff, 0xfe]), "malformed"),
        (packet(0x82, &[0, 1]), "malformed"),
        (packet(0x82, &[0, 0, 0, 1, b'#', 0]), "malformed"),
        (packet(0x80, &[0, 1, 0, 1, b'#', 0]), "malformed"),
        (subscribe(&many), "filters"),
        (packet(0xa2, &[0, 1]), "malformed"),
        (packet(0x62, &[0, 1]), "unexpected"),
        (packet(0x50, &[0, 1]), "unexpected"),
        (packet(0x90, &[0, 1, 0]), "unexpected"),
        (packet(0xd0, &[]), "unexpected"),
        (connect(&id), "unexpected"),
    ];
    let cases: Vec<(Vec<u8>, &str)> = first
        .into_iter()
        .chain(then.into_iter().map(|(bytes, cause)| ([connect(&id), bytes].concat(), cause)))
        .collect();
    let causes: Vec<&str> = cases.iter().map(|(_, cause)| *cause).collect();
    let rounds = times().div_ceil(cases.len());
    let ground = scene.ground.clone();
    scene.attack(&format!("{} wrong packets", rounds * cases.len()), async {
        // One after the other, since all are of one id.
        let (_, config) = ground.issued(0);
        let cases = std::sync::Arc::new(cases);
        each(rounds * cases.len(), 1, |number| {
            let (ground, config, cases) = (ground.clone(), config.clone(), cases.clone());
            async move {
                let (bytes, cause) = &cases[number % cases.len()];
                let mut stream = tls(tcp(ground.door, None).await.unwrap(), &config).await.unwrap();
                // The door may hang up before it has read all of it.
                let talk = async {
                    stream.write_all(bytes).await.ok();
                    stream.flush().await.ok();
                    stream.read_to_end(&mut Vec::new()).await.ok();
                };
                let done = tokio::time::timeout(SOON, talk).await;
                assert!(done.is_ok(), "the door does not close: {cause}, {:?}", &bytes[..8]);
            }
        })
        .await;
    });
    for cause in causes.iter().collect::<std::collections::BTreeSet<_>>() {
        let expected = rounds * causes.iter().filter(|one| one == &cause).count();
        scene.until_refused(cause, expected as u64);
        assert_eq!(scene.refused(cause), expected as u64, "{cause}");
        scene.is_logged(cause);
    }
    scene.ends_well();
}
