//! Floods of connections: from one address, from several, of silence and of whole handshakes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use banyan_tests::raw::{Card, enter, tcp, tls};
use rustls::ClientConfig;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::scene::{Ground, key};
use super::{Scene, times};

/// More than the door holds of one address before they have proved who they are.
const ONE_ADDRESS: usize = 3_500;
/// More than it holds of all.
const ALL_ADDRESSES: usize = 7_500;
/// How long handshakes are made.
const STORM: Duration = Duration::from_secs(5);

fn address(last: u8) -> Option<[u8; 4]> {
    Some([127, 0, 0, last])
}

/// Holds `n` silent sockets from these addresses in turn.
async fn hold(ground: &Ground, n: usize, addresses: &[u8]) -> Vec<TcpStream> {
    let mut held = Vec::with_capacity(n);
    for number in 0..n {
        let from = address(addresses[number % addresses.len()]);
        held.push(tcp(ground.door, from).await.unwrap());
    }
    held
}

#[test]
fn whoever_floods_the_door_gives_way_to_others() {
    let scene = Scene::new();
    let ground = scene.ground.clone();
    let (agent, config) = ground.issued(1);
    let served = async |from: Option<[u8; 4]>| {
        let begun = Instant::now();
        let entered = enter(ground.door, &config, &agent.to_string(), from).await;
        assert_eq!(entered.unwrap().1, 0);
        scene.is_within(Duration::from_secs(2), begun, Instant::now(), "until it is let in");
    };
    scene.attack(&format!("{ONE_ADDRESS} silent sockets from one address"), async {
        let held = hold(&ground, ONE_ADDRESS, &[9]).await;
        served(address(10)).await;
        // Behind that very address too: the oldest of the silent ones has to go.
        served(address(9)).await;
        held
    });
    scene.until_refused("address_full", (ONE_ADDRESS - 3_000) as u64);
    scene.is_logged("address_full");
    let what = format!("{ALL_ADDRESSES} silent sockets from three addresses, another comes");
    scene.attack(&what, async {
        let held = hold(&ground, ALL_ADDRESSES, &[11, 12, 13]).await;
        for _ in 0..20 {
            served(address(14)).await;
        }
        held
    });
    scene.until_refused("unproven_full", (ALL_ADDRESSES - 6_000) as u64);
    scene.is_logged("unproven_full");
    scene.ends_well();
}

/// First contacts one after the other until told to stop; how many came through.
async fn storm(ground: Arc<Ground>, seed: u16, stop: Arc<AtomicBool>) -> usize {
    let card = Card::own(key(seed)).unwrap();
    let id = card.agent().to_string();
    let mut through = 0;
    while !stop.load(Ordering::SeqCst) {
        // A configuration without a memory: whole handshakes.
        let config: Arc<ClientConfig> = ground.config(&card);
        let from = address(20 + (seed % 4) as u8);
        through += usize::from(enter(ground.door, &config, &id, from).await.is_ok());
    }
    through
}

#[test]
fn a_storm_of_handshakes_leaves_the_others_their_share() {
    let scene = Scene::new();
    let ground = scene.ground.clone();
    let through = scene.attack("handshakes of strangers without a pause", async {
        let stop = Arc::new(AtomicBool::new(false));
        let mut storms = JoinSet::new();
        for seed in 0..32 {
            storms.spawn(storm(ground.clone(), seed, stop.clone()));
        }
        tokio::time::sleep(STORM).await;
        stop.store(true, Ordering::SeqCst);
        storms.join_all().await.into_iter().sum::<usize>()
    });
    assert!(through > 100, "{through}");
    println!("{:.0} handshakes a second", through as f64 / STORM.as_secs_f64());
    scene.ends_well();
}

#[test]
fn new_keys_all_the_time_cost_the_client_its_connection_at_most() {
    let scene = Scene::new();
    let ground = scene.ground.clone();
    let n = times();
    scene.attack(&format!("{n} key updates on one session"), async {
        let (agent, config) = ground.issued(1);
        let mut stream = ground.enter(&config, agent).await;
        for _ in 0..n {
            if stream.get_mut().1.refresh_traffic_keys().is_err() {
                break;
            }
            if tokio::io::AsyncWriteExt::flush(&mut stream).await.is_err() {
                break;
            }
        }
        // And handshakes that end after the first flight.
        for _ in 0..n / 10 {
            let (_, config) = ground.issued(2);
            let stream = tcp(ground.door, None).await.unwrap();
            drop(tokio::time::timeout(Duration::from_micros(300), tls(stream, &config)).await);
        }
    });
    scene.ends_well();
}
