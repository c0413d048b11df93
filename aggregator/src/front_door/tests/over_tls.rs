//! The door over TLS: who is let in, by what, and what becomes of whoever is not.

use std::sync::Mutex;

use banyan_shared::ids::Millis;
use banyan_shared::keys::SigningKey;
use banyan_shared::wire::{EnrolRequest, Kind, seal};
use rcgen::{CertificateParams, KeyPair, PKCS_ED25519};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::*;
use crate::identity::{GRACE_MS, Identity, VALIDITY_MS};
use crate::intake::Clock;
use crate::service::system_clock;

/// The present: clients here check dates as the public ones do.
static NOW: std::sync::LazyLock<Millis> = std::sync::LazyLock::new(|| system_clock()());

/// A centre's identity and a door with TLS behind it, by a clock that can be moved.
struct Gate {
    house: House,
    identity: Arc<Identity>,
    roll: Arc<Roll>,
    now: Arc<Mutex<Millis>>,
    _dir: tempfile::TempDir,
}

/// What a client shows.
struct Card {
    id: AgentId,
    chain: Option<(CertificateDer<'static>, PrivateKeyDer<'static>)>,
}

impl Card {
    fn config(&self, gate: &Gate) -> Arc<ClientConfig> {
        // As any public client does it: the CA's certificate as the root, names and dates checked.
        let mut roots = RootCertStore::empty();
        roots.add(gate.identity.ca.certificate().clone()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        Arc::new(match &self.chain {
            None => builder.with_no_client_auth(),
            Some((certificate, key)) => {
                builder.with_client_auth_cert(vec![certificate.clone()], key.clone_key()).unwrap()
            }
        })
    }
}

fn key(seed: u8) -> SigningKey {
    SigningKey::from_seed(&[seed; 32]).unwrap()
}

fn secret(key: &SigningKey) -> PrivateKeyDer<'static> {
    PrivateKeyDer::Pkcs8(key.pkcs8().to_vec().into())
}

/// A certificate `key` signs itself.
fn own(key: &SigningKey) -> Card {
    let pair = KeyPair::from_pkcs8_der_and_sign_algo(&key.pkcs8().into(), &PKCS_ED25519).unwrap();
    let certificate = CertificateParams::default().self_signed(&pair).unwrap();
    let chain = Some((certificate.der().clone(), secret(key)));
    Card { id: key.public().agent_id(), chain }
}

impl Gate {
    async fn open(config: DoorConfig) -> Gate {
        let dir = tempfile::tempdir().unwrap();
        let identity = Arc::new(Identity::create(dir.path(), *NOW).unwrap());
        let now = Arc::new(Mutex::new(*NOW));
        let told = Arc::clone(&now);
        let clock: Clock = Arc::new(move || *told.lock().unwrap());
        let roll = Arc::new(Roll::default());
        let names = vec!["127.0.0.1".to_owned(), "centre.example".to_owned()];
        let tls = DoorTls::new(identity.clone(), names, *NOW).unwrap();
        let entrance = Entrance { roll: roll.clone(), tls: Some(Arc::new(tls)), clock };
        let house = House::behind(config, entrance).await;
        Gate { house, identity, roll, now, _dir: dir }
    }

    /// An issued certificate.
    fn issued(&self, key: &SigningKey) -> Card {
        let now = *self.now.lock().unwrap();
        let issued = self.identity.ca.certify(&key.public(), now).unwrap();
        let chain = Some((issued.certificate.into(), secret(key)));
        Card { id: key.public().agent_id(), chain }
    }

    fn admit(&self, key: &SigningKey) {
        self.roll.put(key.public().agent_id(), Standing::Admitted(key.public()));
    }

    fn revoke(&self, key: &SigningKey) {
        self.roll.put(key.public().agent_id(), Standing::Revoked);
    }

    async fn dial(&self, config: Arc<ClientConfig>) -> std::io::Result<TlsStream<TcpStream>> {
        let stream = TcpStream::connect(self.house.addr).await?;
        let name = ServerName::try_from("127.0.0.1").unwrap();
        TlsConnector::from(config).connect(name, stream).await
    }

    /// What a CONNECT as `id` under this configuration is answered, and the stream.
    async fn enter(
        &self,
        config: Arc<ClientConfig>,
        id: AgentId,
    ) -> (Vec<u8>, TlsStream<TcpStream>) {
        let mut stream = self.dial(config).await.unwrap();
        stream.write_all(&connect(&id.to_string())).await.unwrap();
        let mut connack = vec![0; 4];
        let read = timeout(PATIENCE, stream.read_exact(&mut connack)).await.unwrap();
        if read.is_err() {
            connack.clear();
        }
        (connack, stream)
    }

    /// That whoever shows `card` is refused with `code` and `cause`.
    async fn refuses(&self, card: &Card, code: u8, cause: Cause) {
        let before = self.house.refused(cause);
        let (answer, mut stream) = self.enter(card.config(self), card.id).await;
        assert_eq!(answer, [0x20, 2, 0, code], "{cause:?}");
        assert_eq!(stream.read_to_end(&mut Vec::new()).await.unwrap_or(0), 0);
        self.house.until("counted", |house| house.refused(cause) == before + 1).await;
    }

    /// That whoever shows `card` is let in.
    async fn takes(&self, card: &Card) -> TlsStream<TcpStream> {
        let (answer, stream) = self.enter(card.config(self), card.id).await;
        assert_eq!(answer, ACCEPTED);
        stream
    }

    /// That an agent with an issued certificate gets its messages through, now.
    async fn serves(&self, key: &SigningKey) {
        let card = self.issued(key);
        let mut stream = self.takes(&card).await;
        stream.write_all(&publish(0x32, &topic::up(card.id), Some(7), b"counts")).await.unwrap();
        let mut puback = [0; 4];
        timeout(PATIENCE, stream.read_exact(&mut puback)).await.unwrap().unwrap();
        assert_eq!(puback, [0x40, 2, 0, 7]);
        stream.shutdown().await.ok();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_is_another_agent() {
    let gate = Gate::open(DoorConfig::default()).await;
    let (mine, other) = (key(1), key(2));
    gate.admit(&mine);
    gate.admit(&other);
    // The right key with either kind of certificate.
    gate.takes(&gate.issued(&mine)).await;
    gate.takes(&own(&mine)).await;
    // Another's id, by the wrong key, by no key, by a certificate of a CA with our CA's name.
    let id = other.public().agent_id();
    gate.refuses(&Card { id, ..gate.issued(&mine) }, 5, Cause::AnothersId).await;
    gate.refuses(&Card { id, ..own(&mine) }, 5, Cause::AnothersId).await;
    gate.refuses(&Card { id, chain: None }, 5, Cause::NoCertificate).await;
    let elsewhere = tempfile::tempdir().unwrap();
    let stranger = Identity::create(elsewhere.path(), *NOW).unwrap();
    let forged = stranger.ca.certify(&other.public(), *NOW).unwrap();
    let chain = Some((forged.certificate.into(), secret(&other)));
    gate.refuses(&Card { id, chain }, 5, Cause::UnknownCertificate).await;
    // An id of the right form that two keys might share: the key known here counts.
    let roll_key = key(9).public();
    gate.roll.put(id, Standing::Admitted(roll_key));
    gate.refuses(&gate.issued(&other), 5, Cause::AnothersId).await;
    gate.refuses(&own(&other), 5, Cause::AnothersId).await;
    // Ids that are none.
    let config = gate.issued(&mine).config(&gate);
    for bad in ["", "AB0000000001", "ab0000/+/#01", "$share/x"] {
        let mut stream = gate.dial(config.clone()).await.unwrap();
        stream.write_all(&connect(bad)).await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.ok();
        assert_eq!(answer, [0x20, 2, 0, 2], "{bad:?}");
    }
    gate.serves(&mine).await;
    gate.house.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_expire_after_their_grace() {
    let gate = Gate::open(DoorConfig::default()).await;
    let mine = key(1);
    gate.admit(&mine);
    let card = gate.issued(&mine);
    let config = card.config(&gate);
    let at = |after: i64| *gate.now.lock().unwrap() = NOW.plus(after);
    // The public client checks dates of the server too: this one is asked for what the door says.
    for after in [0, VALIDITY_MS - 1000, VALIDITY_MS + 1000, VALIDITY_MS + GRACE_MS - 2000] {
        at(after);
        let (answer, _) = gate.enter(config.clone(), card.id).await;
        assert_eq!(answer, ACCEPTED, "{after} ms after it was issued");
    }
    at(VALIDITY_MS + GRACE_MS + 2000);
    gate.refuses(&card, 5, Cause::ExpiredCertificate).await;
    // On a resumed session as well: the certificate is looked at anew.
    let resumed = gate.house.registry.counters().values().resumed;
    assert!(resumed >= 3, "{resumed}");
    let (answer, _) = gate.enter(config, card.id).await;
    assert_eq!(answer, [0x20, 2, 0, 5]);
    assert_eq!(gate.house.registry.counters().values().resumed, resumed + 1);
    // A first contact is open to it: it may ask for the next.
    gate.takes(&own(&mine)).await;
    // A clock set back years locks nobody out.
    at(-4 * VALIDITY_MS);
    gate.takes(&card).await;
    gate.house.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_is_revoked_is_out_at_once_and_stays_out() {
    let gate = Gate::open(DoorConfig::default()).await;
    let (mine, other) = (key(1), key(2));
    gate.admit(&mine);
    gate.admit(&other);
    let card = gate.issued(&mine);
    let config = card.config(&gate);
    let (answer, mut stream) = gate.enter(config.clone(), card.id).await;
    assert_eq!(answer, ACCEPTED);
    let mut elsewhere = gate.takes(&gate.issued(&other)).await;
    gate.revoke(&mine);
    let cut = timeout(PATIENCE, stream.read_to_end(&mut Vec::new())).await.unwrap();
    assert!(cut.is_ok_and(|bytes| bytes == 0));
    gate.house.until("counted", |house| house.refused(Cause::Revoked) == 1).await;
    // By its certificate, on a resumed session, or by a certificate of its own.
    gate.refuses(&card, 5, Cause::Revoked).await;
    let resumed = gate.house.registry.counters().values().resumed;
    let (answer, _) = gate.enter(config, card.id).await;
    assert_eq!(answer, [0x20, 2, 0, 5]);
    assert_eq!(gate.house.registry.counters().values().resumed, resumed + 1);
    gate.refuses(&own(&mine), 5, Cause::Revoked).await;
    // The other does not notice.
    elsewhere.write_all(&[0xc0, 0]).await.unwrap();
    let mut pong = [0; 2];
    elsewhere.read_exact(&mut pong).await.unwrap();
    assert_eq!(pong, [0xd0, 0]);
    gate.house.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_first_contact_can_only_become_known() {
    let gate = Gate::open(DoorConfig::default()).await;
    let mine = key(1);
    let card = own(&mine);
    let up = topic::up(card.id);
    let request =
        EnrolRequest { key: mine.public(), code: 1, secret: [0; 10], facility: None, machine: 0 }
            .seal(&mine);
    let batch = seal(Kind::Batch, card.id, b"counts", &mine);
    for refused in [batch, b"noise".to_vec(), Vec::new()] {
        let before = gate.house.refused(Cause::FirstContact);
        let mut stream = gate.takes(&card).await;
        stream.write_all(&publish(0x32, &up, Some(1), &refused)).await.unwrap();
        assert_eq!(stream.read_to_end(&mut Vec::new()).await.unwrap_or(0), 0);
        let counted = |house: &House| house.refused(Cause::FirstContact) == before + 1;
        gate.house.until("counted", counted).await;
    }
    assert_eq!(gate.house.registry.counters().values().messages_up, 0);
    // So many requests and no more: codes are not guessed on one connection.
    let mut stream = gate.takes(&card).await;
    for _ in 0..40 {
        stream.write_all(&publish(0x30, &up, None, &request)).await.ok();
    }
    assert_eq!(stream.read_to_end(&mut Vec::new()).await.unwrap_or(0), 0);
    gate.house.until("counted", |house| house.refused(Cause::FirstContact) == 4).await;
    assert_eq!(gate.house.registry.counters().values().messages_up, 32);
    // It counts among those that have proved nothing.
    let stream = gate.takes(&card).await;
    gate.house.until("held", |house| house.registry.counters().values().unproven == 1).await;
    drop(stream);
    gate.house.close().await;
    // And so long and no longer.
    let mut config = DoorConfig::default();
    config.timeouts.first_contact = Duration::from_millis(700);
    let gate = Gate::open(config).await;
    let mut stream = gate.takes(&card).await;
    assert_eq!(stream.read_to_end(&mut Vec::new()).await.unwrap_or(0), 0);
    gate.house.until("counted", |house| house.refused(Cause::FirstContact) == 1).await;
    gate.house.close().await;
}

/// As many as fit beside other tests where 1,024 descriptors are all there are; the attack suite has thousands.
const SILENT: u64 = 200;

impl Gate {
    /// Sockets that say nothing at all, or half a record.
    async fn silent(&self) -> Vec<TcpStream> {
        let mut held = Vec::new();
        for n in 0..SILENT {
            let mut stream = TcpStream::connect(self.house.addr).await.unwrap();
            if n % 3 == 1 {
                stream.write_all(&[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3]).await.unwrap();
            }
            held.push(stream);
        }
        held
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silent_sockets_and_noise_keep_nobody_waiting() {
    let mut config = DoorConfig::default();
    config.timeouts.connect = Duration::from_millis(500);
    let gate = Gate::open(config.clone()).await;
    let held = gate.silent().await;
    gate.house.until("let go", |house| house.refused(Cause::ConnectTimeout) == SILENT).await;
    drop(held);
    gate.house.close().await;
    // Whoever is served has to come while all of them are held.
    config.timeouts.connect = PATIENCE;
    let gate = Gate::open(config).await;
    let mine = key(1);
    gate.admit(&mine);
    let held = gate.silent().await;
    gate.house.until("held", |house| house.registry.counters().values().unproven == SILENT).await;
    gate.serves(&mine).await;
    assert_eq!(gate.house.refused(Cause::ConnectTimeout), 0, "served while all of them were held");
    drop(held);
    gate.house.until("gone", |house| house.registry.counters().values().connections == 0).await;
    for noise in [&connect(&mine.public().agent_id().to_string())[..], b"GET / HTTP/1.1\r\n\r\n"] {
        let before = gate.house.refused(Cause::Tls);
        answer(gate.house.addr, noise).await;
        gate.house.until("counted", |house| house.refused(Cause::Tls) == before + 1).await;
    }
    // Older versions of TLS, by their first message.
    for version in [1u8, 2, 3] {
        let before = gate.house.refused(Cause::Tls);
        let alert = answer(gate.house.addr, &client_hello(version)).await;
        assert_eq!(alert, [0x15, 3, 3, 0, 2, 2, 70], "TLS 1.{}", version - 1);
        gate.house.until("counted", |house| house.refused(Cause::Tls) == before + 1).await;
    }
    gate.serves(&mine).await;
    gate.house.close().await;
}

/// A ClientHello of TLS 1.0, 1.1 or 1.2, with no extension but the groups and signatures.
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_server_changes_its_certificate_while_it_serves() {
    let dir = tempfile::tempdir().unwrap();
    let identity = Arc::new(Identity::create(dir.path(), *NOW).unwrap());
    let tls = DoorTls::new(identity, vec!["localhost".to_owned()], *NOW).unwrap();
    assert!(!tls.renew(NOW.plus(VALIDITY_MS / 2 - 1)).unwrap());
    assert!(tls.renew(NOW.plus(VALIDITY_MS / 2)).unwrap());
    assert!(!tls.renew(NOW.plus(VALIDITY_MS / 2 + 1)).unwrap());
}
