//! Enrolment codes: used again, too late, guessed.

use std::time::Duration;

use banyan_shared::topic;
use banyan_shared::wire::{EnrolCode, EnrolRequest};
use banyan_tests::raw::{Card, SOON, publish, read_packet, subscribe};
use banyan_tests::until;
use serde_json::json;
use tokio::io::AsyncWriteExt;

use super::Scene;
use super::scene::{key, now};

/// Requests the door takes on one connection before it hangs up.
const TAKEN: u64 = 32;
/// Requests sent on one connection.
const GUESSES: u64 = 40;

impl Scene {
    fn code(&self, unit: &str, expires_s: u32) -> EnrolCode {
        let request = json!({ "command": "enrol", "units": [unit], "expires_s": expires_s });
        let made = self.small.served().call(&request).unwrap();
        made["code"].as_str().unwrap().parse().unwrap()
    }

    /// Sends requests as a stranger on one connection, the same again or with other secrets.
    async fn ask(&self, seed: u16, code: &EnrolCode, secret: impl Fn(u64) -> [u8; 10], n: u64) {
        let card = Card::own(key(seed)).unwrap();
        let config = self.ground.config(&card);
        let agent = card.agent();
        let mut stream = self.ground.enter(&config, agent).await;
        let mut bytes = subscribe(&[(&topic::down(agent), 0)]);
        for guess in 0..n {
            let request = EnrolRequest {
                key: card.key.public(),
                code: code.number,
                secret: secret(guess),
                facility: None,
                machine: 1,
            };
            bytes.extend(publish(&topic::up(agent), 1, &request.seal(&card.key)));
        }
        stream.write_all(&bytes).await.unwrap();
        stream.flush().await.unwrap();
        // Above the limit the door hangs up, below it each request is answered.
        let told = async {
            let mut answers = 0;
            while n > TAKEN || answers < n {
                match read_packet(&mut stream).await {
                    Ok((first, _)) => answers += u64::from(first >> 4 == 3),
                    Err(_) if n > TAKEN => break,
                    Err(error) => panic!("{answers} answers to {n} requests: {error}"),
                }
            }
        };
        tokio::time::timeout(SOON, told).await.expect("an answer, or the end");
    }
}

#[test]
fn codes_are_not_reused_not_late_and_not_guessed() {
    let scene = Scene::new();
    let used = scene.code("V6-VC", 3600);
    // No code is made for less than a minute.
    let late = scene.code("T3-TH", 60);
    let late_from = now().plus(60_000);
    let fresh = scene.code("K1-CN", 3600);
    let agents = || {
        let fleet = scene.small.json(&["fleet"]);
        fleet["agents"].as_array().unwrap().len()
    };
    scene.runtime.block_on(scene.ask(1, &used, |_| used.secret, 1));
    let enrolled = 4;
    until("the code is used", SOON, || Ok((agents() == enrolled).then_some(()))).unwrap();
    until("the code is late", Duration::from_secs(90), || Ok((now() > late_from).then_some(())))
        .unwrap();
    let refused = scene.intake("enrolments_refused");
    scene.attack("a code used again, one too late, guesses", async {
        scene.ask(2, &used, |_| used.secret, 1).await;
        scene.ask(3, &late, |_| late.secret, 1).await;
        let wrong = |guess: u64| {
            let mut secret = fresh.secret;
            secret[..8].copy_from_slice(&guess.to_le_bytes());
            secret
        };
        for seed in 10..20 {
            scene.ask(seed, &fresh, wrong, GUESSES).await;
        }
    });
    // So many of each connection's guesses came through; the door has hung up on every one.
    scene.until_intake("enrolments_refused", refused + 2 + 10 * TAKEN);
    scene.until_refused("first_contact", 10);
    scene.is_logged("enrolment refused");
    assert_eq!(agents(), enrolled, "nobody came in by it");
    // The code that was guessed at is as good as before.
    scene.small.world.agent("late").ask(&["enroll", &fresh.to_string()]).unwrap();
    scene.ends_well();
}
