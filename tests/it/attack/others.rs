//! Speaking for another: its id, its topics, its messages, its receipts and grants.

use std::sync::Arc;

use banyan_agent::identity::Identity;
use banyan_shared::ids::AgentId;
use banyan_shared::topic;
use banyan_shared::wire::{Batch, Body, Entry, Introduction, Kind, seal};
use banyan_tests::raw::{
    Card, SOON, enter, hello, payload, publish, publish_with, read_packet, subscribe,
};
use rustls::ClientConfig;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use super::Scene;
use super::scene::{Ground, Known, key};

/// The next packet of a kind.
async fn next(stream: &mut TlsStream<TcpStream>, first: u8) -> Vec<u8> {
    let found = async {
        loop {
            let (got, body) = read_packet(stream).await.unwrap();
            if got == first {
                return body;
            }
        }
    };
    tokio::time::timeout(SOON, found).await.expect("an answer in time")
}

/// Sends `bytes` as an agent that has entered, and waits until the door hangs up.
async fn hangs_up(ground: &Ground, config: &Arc<ClientConfig>, agent: AgentId, bytes: &[u8]) {
    let mut stream = ground.enter(config, agent).await;
    stream.write_all(bytes).await.unwrap();
    let mut rest = Vec::new();
    let end = stream.read_to_end(&mut rest);
    tokio::time::timeout(SOON, end).await.expect("the door hangs up").ok();
}

#[test]
fn an_id_is_nothing_without_its_key() {
    let scene = Scene::new();
    let (ground, witness, bad) = (scene.ground.clone(), scene.witness.clone(), scene.bad.clone());
    scene.attack("a stolen id without its key", async {
        let id = witness.agent.to_string();
        let none = Card { key: key(1), certificate: None };
        // The certificate of the agent itself is no secret; without its key there is no handshake.
        let foreign_key = Card { certificate: witness.card().certificate, key: key(2) };
        assert!(foreign_key.config(&ground.ca).is_err());
        let cards = [
            (&bad.card(), "anothers_id"),
            (&Card::own(key(3)).unwrap(), "anothers_id"),
            (&none, "no_certificate"),
        ];
        for _ in 0..20 {
            for (card, _) in &cards {
                let config = ground.config(card);
                let (_, code) = enter(ground.door, &config, &id, None).await.unwrap();
                assert_eq!(code, 5);
            }
        }
    });
    scene.until_refused("anothers_id", 40);
    scene.until_refused("no_certificate", 20);
    scene.is_logged("anothers_id");
    scene.ends_well();
}

#[test]
fn nobody_listens_to_or_publishes_for_others() {
    let scene = Scene::new();
    let (ground, witness, bad) = (scene.ground.clone(), scene.witness.clone(), scene.bad.clone());
    let (theirs_up, theirs_down) = (topic::up(witness.agent), topic::down(witness.agent));
    let own_down = topic::down(bad.agent);
    scene.attack("wildcards and foreign topics", async {
        let config = ground.config(&bad.card());
        let filters = ["#", "+/+/+/down", "banyan/v1/+/down", "$SYS/#", &theirs_down, &theirs_up];
        let filters: Vec<(&str, u8)> = filters.iter().map(|filter| (*filter, 1)).collect();
        let mut stream = ground.enter(&config, bad.agent).await;
        stream.write_all(&subscribe(&filters)).await.unwrap();
        assert_eq!(next(&mut stream, 0x90).await, [0, 9, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80]);
        // The witness is answered all the time: nothing of it comes here.
        let heard =
            tokio::time::timeout(std::time::Duration::from_secs(1), read_packet(&mut stream));
        assert!(heard.await.is_err(), "silence");
        drop(stream);
        let topics = [theirs_up.as_str(), &theirs_down, &own_down, "banyan/v1/+/up", "#", "$SYS/x"];
        for topic in topics {
            let message = hello(witness.agent, witness.context, 1).seal(&bad.key);
            hangs_up(&ground, &config, bad.agent, &publish(topic, 1, &message)).await;
        }
        let retained = publish_with(0x31, &topic::up(bad.agent), None, b"x");
        hangs_up(&ground, &config, bad.agent, &retained).await;
    });
    scene.until_refused("topic", 6);
    scene.until_refused("retain", 1);
    assert_eq!(scene.door("filters_refused"), 6);
    scene.ends_well();
}

/// A batch with one entry of no meaning.
fn batch(of: &Known, seq: u64) -> Batch {
    let entries = vec![Entry { seq, body: Body::Void }];
    Batch { hello: None, entries, ..hello(of.agent, of.context, 0) }
}

#[test]
fn messages_of_others_are_worth_nothing() {
    let scene = Scene::new();
    let (ground, witness, bad) = (scene.ground.clone(), scene.witness.clone(), scene.bad.clone());
    let grants = Identity::open(scene.small.world.agent("witness").dir()).unwrap().unwrap();
    let grants = grants.grants(&[witness.context]);
    assert_eq!(grants.len(), 1);
    let before = scene.intake("malformed");
    let (bad_signatures, batches) = (scene.intake("bad_signature"), scene.intake("batches"));
    // One of the witness's own, sent once by itself: what somebody on the line or at the broker could keep.
    let kept = batch(&witness, 1).seal(&witness.key);
    let receipt = scene.runtime.block_on(async {
        let mut link = witness.link(ground.door).await;
        link.publish(kept.clone()).await.unwrap();
        let heard = async {
            loop {
                if let Some(banyan_agent::link::LinkEvent::Message(message)) =
                    link.events.recv().await
                    && witness.receipt(&message).is_some()
                {
                    return message;
                }
            }
        };
        let receipt = tokio::time::timeout(SOON, heard).await.unwrap();
        link.close().await;
        receipt
    });
    let own = batch(&bad, 1).seal(&bad.key);
    // The head of one with the body of the other, and so on: nothing fits the signature.
    let spliced = |at: usize, kept: &[u8], own: &[u8]| [&own[..at], &kept[at..]].concat();
    let mut malformed = vec![
        kept.clone(),
        receipt.clone(),
        Introduction { grants: grants.clone(), nonce: 1 }.seal(&bad.key),
        Introduction { grants: Vec::new(), nonce: 1 }.seal(&bad.key),
        seal(Kind::Answer, bad.agent, b"granted", &bad.key),
        seal(Kind::Act, bad.agent, b"revoke", &bad.key),
        seal(Kind::Notice, bad.agent, b"", &bad.key),
        seal(Kind::Receipt, bad.agent, b"", &bad.key),
        // The receipt with the attacker's own name on it.
        [&own[..1], &receipt[1..2], &own[2..8], &receipt[8..]].concat(),
    ];
    malformed.push(spliced(2, &kept, &own));
    let forged = vec![
        spliced(8, &kept, &own),
        spliced(own.len() - 64, &kept, &own),
        // Signed by the attacker under the domain of another kind.
        [&own[..1], &[Kind::Batch as u8], &seal(Kind::Enrol, bad.agent, b"", &bad.key)[2..]]
            .concat(),
    ];
    let twice = vec![own.clone(), own.clone(), own.clone()];
    let sent = [malformed.clone(), forged.clone(), twice.clone()].concat();
    scene.attack("replayed and spliced batches, receipts, grants", async {
        let config = ground.config(&bad.card());
        let up = topic::up(bad.agent);
        let mut stream = ground.enter(&config, bad.agent).await;
        stream.write_all(&subscribe(&[(&topic::down(bad.agent), 0)])).await.unwrap();
        for message in &sent {
            stream.write_all(&publish(&up, 1, message)).await.unwrap();
        }
        // Three receipts for the one batch that is its own, and for nothing else.
        for _ in 0..3 {
            let body = next(&mut stream, 0x30).await;
            let receipt = bad.receipt(payload(&body).unwrap()).expect("a receipt for this agent");
            assert!(receipt.lives.iter().all(|life| life.refused.is_empty()));
        }
    });
    scene.until_intake("malformed", before + malformed.len() as u64);
    scene.until_intake("bad_signature", bad_signatures + forged.len() as u64);
    // The witness's and the attacker's own, once each.
    scene.until_intake("duplicates", 2);
    assert_eq!(scene.intake("batches"), batches + 2);
    assert_eq!(scene.intake("malformed"), before + malformed.len() as u64);
    assert_eq!(scene.intake("bad_signature"), bad_signatures + forged.len() as u64);

    // What the witness said comes once more on its own topic, as from a broker that repeats it.
    scene.runtime.block_on(async {
        let link = witness.link(ground.door).await;
        link.publish(kept.clone()).await.unwrap();
        link.close().await;
    });
    scene.until_intake("duplicates", 3);
    assert_eq!(scene.intake("batches"), batches + 2);
    scene.ends_well();
}
