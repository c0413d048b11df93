//! A fuzzer on the door, for a time: noise before TLS, inside TLS, packets right and nearly so, messages signed
//! by a real key with anything inside.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use banyan_shared::topic;
use banyan_shared::wire::{Batch, Body, Entry, Kind, seal};
use banyan_tests::raw::{
    AUTH, DISCONNECT, PINGREQ, connect, connect_with, hello, packet, puback, publish, publish_with,
    subscribe, tcp, tls, will_reset,
};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::task::JoinSet;

use super::scene::{Ground, Known};
use super::{Scene, number_in};

/// Fuzzers at a time.
const AT_ONCE: u64 = 6;
/// Identities they use.
const IDENTITIES: u16 = 64;

fn noise(random: &mut StdRng, most: usize) -> Vec<u8> {
    let n = random.random_range(0..most);
    (0..n).map(|_| random.random()).collect()
}

/// Changes some bytes, cuts some off, says some twice.
fn mutate(random: &mut StdRng, bytes: &mut Vec<u8>) {
    for _ in 0..random.random_range(0..4) {
        if bytes.is_empty() {
            return;
        }
        let at = random.random_range(0..bytes.len());
        match random.random_range(0..5) {
            0 => bytes[at] = random.random(),
            1 => bytes[at] ^= 1 << random.random_range(0..8),
            2 => bytes.truncate(at),
            3 => {
                let again = bytes[at..].to_vec();
                bytes.extend(again);
            }
            _ => {
                bytes.remove(at);
            }
        }
    }
}

/// A message under a real key: a batch with anything in it, or anything at all.
fn message(random: &mut StdRng, bad: &Known) -> Vec<u8> {
    let mut entries = Vec::new();
    for _ in 0..random.random_range(0..4) {
        entries.push(Entry { seq: random.random_range(0..100), body: Body::Void });
    }
    let good = Batch {
        entries,
        context: if random.random_bool(0.8) { bad.context } else { random.random() },
        ..hello(bad.agent, bad.context, random.random())
    }
    .seal(&bad.key);
    if random.random_bool(0.3) {
        return good;
    }
    let kinds = [Kind::Batch, Kind::Enrol, Kind::Introduce, Kind::Receipt, Kind::Act];
    let mut body = if random.random_bool(0.5) {
        good[8..good.len() - 64].to_vec()
    } else {
        noise(random, 300)
    };
    mutate(random, &mut body);
    seal(*kinds.choose(random).unwrap(), bad.agent, &body, &bad.key)
}

fn some_packet(random: &mut StdRng, known: &Known, id: &str) -> Vec<u8> {
    let up = topic::up(known.agent);
    match random.random_range(0..12) {
        0 => connect(id),
        1 => connect_with(random.random(), random.random(), random.random(), id),
        2..=5 => publish(&up, random.random(), &message(random, known)),
        6 => {
            let payload = noise(random, 2000);
            publish_with(random.random_range(0x30..0x40), &up, Some(random.random()), &payload)
        }
        7 => subscribe(&[(&topic::down(known.agent), random.random_range(0..3))]),
        8 => puback(random.random()),
        9 => [&PINGREQ[..], &AUTH, &DISCONNECT].choose(random).unwrap().to_vec(),
        10 => packet(random.random(), &noise(random, 40)),
        _ => noise(random, 60),
    }
}

async fn say(random: &mut StdRng, mut stream: impl AsyncRead + AsyncWrite + Unpin, bytes: &[u8]) {
    let piece = random.random_range(1..=bytes.len().max(1));
    for some in bytes.chunks(piece) {
        if stream.write_all(some).await.is_err() || stream.flush().await.is_err() {
            return;
        }
    }
    let patience = Duration::from_millis(random.random_range(0..20));
    let read = async { while matches!(stream.read(&mut [0; 4096]).await, Ok(1..)) {} };
    tokio::time::timeout(patience, read).await.ok();
}

async fn fuzz(ground: Arc<Ground>, known: Known, seed: u64, until: Instant, said: Arc<AtomicU64>) {
    let mut random = StdRng::seed_from_u64(seed);
    let identities: Vec<_> = (0..IDENTITIES).map(|n| ground.issued(n)).collect();
    let bad = ground.config(&known.card());
    while Instant::now() < until {
        let stream = tcp(ground.door, None).await.unwrap();
        if random.random_bool(0.3) {
            will_reset(&stream).unwrap();
        }
        said.fetch_add(1, Ordering::Relaxed);
        if random.random_bool(0.1) {
            let bytes = noise(&mut random, 600);
            say(&mut random, stream, &bytes).await;
            continue;
        }
        // As an agent that is known, or as one of many.
        let (agent, config) = match random.random_bool(0.5) {
            true => (known.agent, &bad),
            false => {
                let (agent, config) = identities.choose(&mut random).unwrap();
                (*agent, config)
            }
        };
        let Ok(stream) = tls(stream, config).await else { continue };
        let id = agent.to_string();
        let mut bytes = if random.random_bool(0.8) { connect(&id) } else { Vec::new() };
        for _ in 0..random.random_range(0..8) {
            bytes.extend(some_packet(&mut random, &known, &id));
        }
        if random.random_bool(0.5) {
            mutate(&mut random, &mut bytes);
        }
        say(&mut random, stream, &bytes).await;
    }
}

#[test]
fn no_bytes_upset_the_service() {
    let scene = Scene::new();
    let seconds = number_in("BANYAN_ATTACK_SECONDS", 20);
    let seed = jiff::Timestamp::now().as_microsecond() as u64;
    let said = Arc::new(AtomicU64::new(0));
    scene.attack(&format!("{seconds} s of a fuzzer with seed {seed}"), async {
        let until = Instant::now() + Duration::from_secs(seconds as u64);
        let mut fuzzers = JoinSet::new();
        for n in 0..AT_ONCE {
            let (ground, bad) = (scene.ground.clone(), scene.bad.clone());
            fuzzers.spawn(fuzz(ground, bad, seed.wrapping_add(n), until, said.clone()));
        }
        fuzzers.join_all().await;
    });
    println!("{} connections; {}", said.load(Ordering::Relaxed), scene.counters());
    assert!(said.load(Ordering::Relaxed) > 10 * seconds as u64);
    assert!(scene.refused("malformed") > 0 && scene.intake("malformed") > 0);
    scene.ends_well();
}
