//! The sequences that end `rumqttd`'s listener or its router for good, many times over.

use std::time::Duration;

use banyan_shared::topic;
use banyan_tests::raw::{
    AUTH, DISCONNECT, connect, connect_with, enter, hello, puback, publish, read_packet, subscribe,
    tcp, tls, will_reset,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::scene::each;
use super::{Scene, times};

/// Attackers at a time.
const AT_ONCE: usize = 8;
/// Connections under one id at the same moment.
const SAME_ID: usize = 100;

#[test]
fn resets_before_connack_wrong_ids_and_other_versions() {
    let scene = Scene::new();
    let n = times();
    let ground = scene.ground.clone();
    scene.attack(&format!("{n} resets before CONNACK"), async {
        each(n, AT_ONCE, |number| {
            let ground = ground.clone();
            async move {
                let (agent, config) = ground.issued(number as u16 % 20);
                let stream = tcp(ground.door, None).await.unwrap();
                will_reset(&stream).unwrap();
                let mut stream = tls(stream, &config).await.unwrap();
                stream.write_all(&connect(&agent.to_string())).await.unwrap();
                stream.flush().await.unwrap();
            }
        })
        .await;
    });
    let ground = scene.ground.clone();
    scene.attack(&format!("{n} ids with / + # $"), async {
        each(n, AT_ONCE, |number| {
            let ground = ground.clone();
            async move {
                let ids =
                    ["a/b", "+", "#", "$share/x/y", "$SYS", "banyan/v1/+/up", "", "ab\u{0}cd"];
                let (_, config) = ground.issued(number as u16 % 20);
                let id = ids[number % ids.len()];
                match enter(ground.door, &config, id, None).await {
                    Ok((_, code)) => assert_eq!(code, 2, "{id:?}"),
                    // A text with a zero is no text: the door hangs up.
                    Err(_) => assert!(id.contains('\u{0}'), "{id:?}"),
                }
            }
        })
        .await;
    });
    let ground = scene.ground.clone();
    scene.attack(&format!("{n} MQTT 5, AUTH and others first"), async {
        each(n, AT_ONCE, |number| {
            let ground = ground.clone();
            async move {
                let (agent, config) = ground.issued(number as u16 % 20);
                let id = agent.to_string();
                let (bytes, answer) = match number % 4 {
                    0 => (connect_with(5, 2, 60, &id), &[0x20, 2, 0, 1][..]),
                    1 => (AUTH.to_vec(), &[][..]),
                    2 => (publish(&topic::up(agent), 1, b"x"), &[][..]),
                    _ => ([connect(&id), AUTH.to_vec()].concat(), &[0x20, 2, 0, 0][..]),
                };
                let mut stream = tls(tcp(ground.door, None).await.unwrap(), &config).await.unwrap();
                stream.write_all(&bytes).await.unwrap();
                let mut got = Vec::new();
                // The door may close before it has read everything.
                stream.read_to_end(&mut got).await.ok();
                assert!(got == answer || got.is_empty(), "{number}: {got:?}");
            }
        })
        .await;
    });
    scene.until_refused("client_id", (n - n / 8 - 1) as u64);
    scene.until_refused("protocol_version", (n / 4) as u64);
    scene.until_refused("malformed", (n / 2) as u64);
    for word in ["client_id", "protocol_version", "malformed"] {
        scene.is_logged(word);
    }
    scene.ends_well();
}

#[test]
fn one_id_many_times_at_once() {
    let scene = Scene::new();
    let rounds = times().div_ceil(SAME_ID);
    let ground = scene.ground.clone();
    scene.attack(&format!("{rounds} × {SAME_ID} connections of one id at once"), async {
        let (agent, config) = ground.issued(1);
        for _ in 0..rounds {
            let (ground, config) = (ground.clone(), config.clone());
            each(SAME_ID, SAME_ID, move |_| {
                let (ground, config) = (ground.clone(), config.clone());
                async move {
                    // Whoever waits for its turn may be pushed off before it comes.
                    if let Ok((mut stream, code)) =
                        enter(ground.door, &config, &agent.to_string(), None).await
                    {
                        assert!(matches!(code, 0 | 3), "{code}");
                        // The last of them is left in peace.
                        let mut rest = [0; 8];
                        let pushed_off = stream.read(&mut rest);
                        tokio::time::timeout(Duration::from_millis(500), pushed_off).await.ok();
                    }
                }
            })
            .await;
        }
    });
    assert!(scene.door("taken_over") > 0);
    assert!(scene.door("contested") > 0);
    scene.is_logged("two connections push each other off");
    scene.ends_well();
}

#[test]
fn bursts_and_acknowledgements_of_nothing() {
    let scene = Scene::new();
    let n = times();
    let ground = scene.ground.clone();
    // Every fiftieth with a burst as it killed the router; each of another agent, since one would be slowed.
    let sent = scene.attack(&format!("{n} bursts and unsolicited PUBACKs"), async {
        each(n, AT_ONCE, |number| {
            let ground = ground.clone();
            async move {
                let (agent, config) = ground.issued(number as u16);
                let messages = burst(number);
                let mut stream = ground.enter(&config, agent).await;
                let mut bytes = subscribe(&[(&topic::down(agent), 0)]);
                for _ in 0..messages {
                    bytes.extend(publish(&topic::up(agent), 9, b"burst"));
                }
                bytes.extend(puback(77));
                bytes.extend(DISCONNECT);
                let (mut read, mut write) = tokio::io::split(stream);
                let answers = async {
                    let mut acknowledged = 0;
                    while let Ok((first, _)) = read_packet(&mut read).await {
                        acknowledged += usize::from(first == 0x40);
                    }
                    acknowledged
                };
                let sending = async {
                    write.write_all(&bytes).await.unwrap();
                    write.flush().await.unwrap();
                };
                let (acknowledged, ()) = tokio::join!(answers, sending);
                assert_eq!(acknowledged, messages);
                stream = read.unsplit(write);
                stream.shutdown().await.ok();
            }
        })
        .await;
        (0..n).map(burst).sum::<usize>()
    });
    scene.until_intake("malformed", sent as u64);
    assert_eq!(scene.door("acks_unsolicited"), n as u64);
    scene.is_logged("message dropped");
    scene.ends_well();
}

/// Messages of one burst.
fn burst(number: usize) -> usize {
    if number.is_multiple_of(50) { 1_000 } else { 10 }
}

#[test]
fn a_reader_that_does_not_read_is_pushed_off() {
    let scene = Scene::new();
    let n = times() / 4;
    let (ground, bad) = (scene.ground.clone(), scene.bad.clone());
    scene.attack(&format!("{n} × a deaf subscriber pushed off, its answers on the way"), async {
        let config = ground.config(&bad.card());
        let down = topic::down(bad.agent);
        for round in 0..n as u64 {
            let mut deaf = ground.enter(&config, bad.agent).await;
            let mut bytes = subscribe(&[(&down, 0)]);
            for packet in 0..4 {
                let message = hello(bad.agent, bad.context, 4 * round + packet).seal(&bad.key);
                bytes.extend(publish(&topic::up(bad.agent), 1, &message));
            }
            deaf.write_all(&bytes).await.unwrap();
            deaf.flush().await.unwrap();
            // The same id comes and goes; then the first one wakes up.
            let mut second = ground.enter(&config, bad.agent).await;
            second.write_all(&DISCONNECT).await.unwrap();
            second.shutdown().await.ok();
            deaf.read_to_end(&mut Vec::new()).await.ok();
        }
    });
    assert!(scene.door("taken_over") >= n as u64 / 2);
    scene.ends_well();
}
