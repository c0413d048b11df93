//! Certificates that are revoked, expired, of another centre; old versions of TLS.

use std::time::{Duration, Instant};

use banyan_aggregator::identity::{GRACE_MS, Identity as Centre, VALIDITY_MS};
use banyan_tests::raw::{Card, SOON, enter, tcp};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::Scene;
use super::scene::{key, now};

#[test]
fn revoked_and_expired_certificates_are_out_also_on_resumed_sessions() {
    let scene = Scene::new();
    let (ground, bad) = (scene.ground.clone(), scene.bad.clone());
    let id = bad.agent.to_string();
    let config = ground.config(&bad.card());
    let mut live = scene.runtime.block_on(ground.enter(&config, bad.agent));
    let cut = scene.runtime.spawn(async move {
        live.read_to_end(&mut Vec::new()).await.ok();
        Instant::now()
    });
    scene.small.ok(&["revoke", &id]);
    let begun = Instant::now();
    scene.attack("a revoked certificate", async {
        let ended = tokio::time::timeout(SOON, cut).await.expect("it is cut").unwrap();
        scene.is_within(Duration::from_secs(1), begun, ended, "until it is cut");
        for _ in 0..20 {
            let (_, code) = enter(ground.door, &config, &id, None).await.unwrap();
            assert_eq!(code, 5);
        }
        let own = ground.config(&Card::own(bad.card().key).unwrap());
        let (_, code) = enter(ground.door, &own, &id, None).await.unwrap();
        assert_eq!(code, 5, "nor by a certificate of its own");
    });
    assert!(scene.door("resumed") >= 20, "{}", scene.counters());
    scene.until_refused("revoked", 22);
    scene.is_logged("revoked");

    let expired_for = |ms: i64| now().plus(-VALIDITY_MS - ms);
    scene.attack("expired certificates, certificates of another centre", async {
        let day = 86_400_000;
        let in_grace = ground.issued_at(key(1), expired_for(GRACE_MS - day));
        let (_, code) =
            enter(ground.door, &ground.config(&in_grace), &in_grace.agent().to_string(), None)
                .await
                .unwrap();
        assert_eq!(code, 0, "within its grace");
        let expired = ground.issued_at(key(2), expired_for(GRACE_MS + day));
        let config = ground.config(&expired);
        for _ in 0..20 {
            let (_, code) =
                enter(ground.door, &config, &expired.agent().to_string(), None).await.unwrap();
            assert_eq!(code, 5);
        }
        let elsewhere = tempfile::tempdir().unwrap();
        let other = Centre::create(elsewhere.path(), now()).unwrap();
        let forged = Card::issued(&other, key(3), now()).unwrap();
        let config = ground.config(&forged);
        let (_, code) =
            enter(ground.door, &config, &forged.agent().to_string(), None).await.unwrap();
        assert_eq!(code, 5);
    });
    scene.until_refused("expired_certificate", 20);
    scene.until_refused("unknown_certificate", 1);
    scene.ends_well();
}

/// A ClientHello of TLS 1.0, 1.1 or 1.2.
fn client_hello(minor: u8) -> Vec<u8> {
    let mut hello = vec![3, minor];
    hello.extend([7; 32]);
    hello.push(0);
    // ECDHE with ECDSA and AES.
    hello.extend([0, 4, 0xc0, 0x2b, 0xc0, 0x09, 1, 0]);
    let extensions = [&[0, 10, 0, 4, 0, 2, 0, 29][..], &[0, 13, 0, 6, 0, 4, 8, 7, 4, 3]].concat();
    hello.extend([0, extensions.len() as u8]);
    hello.extend(extensions);
    let mut record = vec![0x16, 3, 1, 0, hello.len() as u8 + 4, 1, 0, 0, hello.len() as u8];
    record.extend(hello);
    record
}

#[test]
fn older_versions_of_tls_are_refused() {
    let scene = Scene::new();
    let ground = scene.ground.clone();
    scene.attack("TLS 1.0, 1.1, 1.2, SSL 3 and HTTP", async {
        for minor in 0..=3 {
            let mut stream = tcp(ground.door, None).await.unwrap();
            stream.write_all(&client_hello(minor)).await.unwrap();
            let mut alert = Vec::new();
            stream.read_to_end(&mut alert).await.unwrap();
            assert_eq!(alert, [0x15, 3, 3, 0, 2, 2, 70], "protocol_version, for 3.{minor}");
        }
        let mut stream = tcp(ground.door, None).await.unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
        stream.read_to_end(&mut Vec::new()).await.ok();
    });
    scene.until_refused("tls", 5);
    scene.is_logged("the TLS handshake failed");
    scene.ends_well();
}
