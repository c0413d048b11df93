//! A centre under attack, and who is served meanwhile.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use banyan_agent::identity::Identity;
use banyan_agent::link::{Link, LinkConfig, LinkEvent};
use banyan_agent::tls::{Pin, client_config};
use banyan_aggregator::descriptors;
use banyan_aggregator::identity::Identity as Centre;
use banyan_shared::ids::{AgentId, ContextNumber, Millis};
use banyan_shared::keys::{PublicKey, SigningKey};
use banyan_shared::wire::{Envelope, Receipt};
use banyan_tests::raw::{Card, SOON, centre_of, enter, hello};
use banyan_tests::{Agent, until};
use rustls::ClientConfig;
use rustls::pki_types::CertificateDer;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tokio::task::JoinSet;
use tokio_rustls::client::TlsStream;

use crate::small::{Small, record, sync};

/// What "at once" means: a receipt in the middle of an attack, from a program built without optimisation on
/// two cores that the attackers use as well.
const AT_ONCE: Duration = Duration::from_secs(2);
/// How often the witness says hello.
const HELLO_EVERY: Duration = Duration::from_millis(25);
/// Descriptors the largest attack takes.
const DESCRIPTORS: u64 = 9_000;

/// How often whoever looks for stalls looks.
const LOOK_EVERY: Duration = Duration::from_millis(25);
/// A machine that stood still for longer than this excuses whoever was late.
const STALLED: Duration = Duration::from_millis(500);

/// One attack at a time: what is measured is the attack, not the neighbour.
static ONE: Mutex<()> = Mutex::new(());

/// The ground attackers stand on: what anyone near the centre can know, and keys of their own.
pub(super) struct Ground {
    pub(super) door: SocketAddr,
    pub(super) ca: CertificateDer<'static>,
    centre: Centre,
}

impl Ground {
    /// A key nobody has enrolled, with a certificate of this centre: as far as the door is concerned an agent
    /// that a restored centre has yet to learn of.
    pub(super) fn issued(&self, seed: u16) -> (AgentId, Arc<ClientConfig>) {
        let card = Card::issued(&self.centre, key(seed), now()).unwrap();
        (card.agent(), card.config(&self.ca).unwrap())
    }

    /// A certificate as of another moment.
    pub(super) fn issued_at(&self, key: SigningKey, at: Millis) -> Card {
        Card::issued(&self.centre, key, at).unwrap()
    }

    pub(super) fn config(&self, card: &Card) -> Arc<ClientConfig> {
        card.config(&self.ca).unwrap()
    }

    /// Connects and is let in.
    pub(super) async fn enter(
        &self,
        config: &Arc<ClientConfig>,
        agent: AgentId,
    ) -> TlsStream<TcpStream> {
        let (stream, code) = enter(self.door, config, &agent.to_string(), None).await.unwrap();
        assert_eq!(code, 0);
        stream
    }
}

/// A stranger's key.
pub(super) fn key(seed: u16) -> SigningKey {
    let mut bytes = [0x5a; 32];
    bytes[..2].copy_from_slice(&seed.to_le_bytes());
    SigningKey::from_seed(&bytes).unwrap()
}

pub(super) fn now() -> Millis {
    banyan_aggregator::service::system_clock()()
}

/// Runs `one` for each number below `n`, `at_once` at a time.
pub(super) async fn each<F>(n: usize, at_once: usize, one: impl Fn(usize) -> F)
where
    F: Future<Output = ()> + Send + 'static,
{
    let mut running = JoinSet::new();
    for number in 0..n {
        if running.len() == at_once {
            running.join_next().await.unwrap().unwrap();
        }
        running.spawn(one(number));
    }
    while let Some(done) = running.join_next().await {
        done.unwrap();
    }
}

/// An enrolled agent, as someone who has its data directory knows it.
#[derive(Clone)]
pub(super) struct Known {
    pub(super) agent: AgentId,
    pub(super) key: Arc<SigningKey>,
    pub(super) certificate: Vec<u8>,
    pub(super) context: ContextNumber,
    operating: PublicKey,
    pin: Pin,
}

impl Known {
    fn of(agent: &Agent) -> Known {
        let identity = Identity::open(agent.dir()).unwrap().unwrap();
        let operating = identity.certificate().unwrap();
        Known {
            agent: identity.agent(),
            key: Arc::new(SigningKey::from_pkcs8(identity.key().pkcs8()).unwrap()),
            certificate: identity.issued().unwrap().certificate.clone(),
            context: identity.present().unwrap(),
            operating: operating.key,
            pin: Pin { root: identity.pinned(), newest: operating.rank() },
        }
    }

    pub(super) fn card(&self) -> Card {
        let key = SigningKey::from_pkcs8(self.key.pkcs8()).unwrap();
        Card { key, certificate: Some(self.certificate.clone().into()) }
    }

    /// The receipt in a message, if it is one for this agent.
    pub(super) fn receipt(&self, message: &[u8]) -> Option<Receipt> {
        let envelope = Envelope::read(message).ok()?;
        if envelope.agent != self.agent {
            return None;
        }
        Receipt::open(&envelope, &self.operating).ok()
    }

    /// The agent's own link, up.
    pub(super) async fn link(&self, door: SocketAddr) -> Link {
        let tls = client_config(&self.key, Some(&self.certificate), self.pin).unwrap();
        let mut config = LinkConfig::new(format!("mqtts://{door}"), self.agent);
        config.tls = Some(tls);
        let mut link = Link::connect(config).unwrap();
        let event = tokio::time::timeout(SOON, link.events.recv()).await;
        assert_eq!(event.expect("a link in time"), Some(LinkEvent::Up));
        link
    }

    /// Says hello over a link and waits for the receipt that answers it.
    pub(super) async fn is_answered(&self, link: &mut Link, nonce: u64) -> Receipt {
        let message = hello(self.agent, self.context, nonce).seal(&self.key);
        link.publish(message).await.unwrap();
        let answered = async {
            loop {
                match link.events.recv().await {
                    Some(LinkEvent::Message(message)) => {
                        if let Some(receipt) = self.receipt(&message)
                            && receipt.answers == Some(nonce)
                        {
                            return receipt;
                        }
                    }
                    other => panic!("the witness was cut off: {other:?}"),
                }
            }
        };
        tokio::time::timeout(SOON, answered).await.expect("the witness gets its receipt")
    }
}

/// When the machine stood still: a thread that only sleeps wakes up late then too, which is not the centre's doing.
struct Stalls {
    seen: Arc<Mutex<Seen>>,
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

struct Seen {
    /// When it should have woken up, and when it did.
    late: Vec<(Instant, Instant)>,
    last: Instant,
}

impl Stalls {
    fn watch() -> Stalls {
        let seen = Arc::new(Mutex::new(Seen { late: Vec::new(), last: Instant::now() }));
        let over = Arc::new(AtomicBool::new(false));
        let (noted, told) = (seen.clone(), over.clone());
        let thread = std::thread::spawn(move || {
            while !told.load(Ordering::SeqCst) {
                let due = Instant::now() + LOOK_EVERY;
                std::thread::sleep(LOOK_EVERY);
                let mut seen = noted.lock().unwrap_or_else(PoisonError::into_inner);
                seen.last = Instant::now();
                if seen.last > due + LOOK_EVERY {
                    let late = (due, seen.last);
                    seen.late.push(late);
                }
            }
        });
        Stalls { seen, over, thread: Some(thread) }
    }

    /// Whether the machine stood still for longer than [`STALLED`], in all, between two moments.
    fn excuse(&self, from: Instant, to: Instant) -> bool {
        until("the watcher has woken up since", SOON, || {
            let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
            let within = |(due, woke): &(Instant, Instant)| {
                (*woke).min(to).saturating_duration_since((*due).max(from))
            };
            let stalled: Duration = seen.late.iter().map(within).sum();
            Ok((seen.last > to).then_some(stalled > STALLED))
        })
        .unwrap()
    }
}

impl Drop for Stalls {
    fn drop(&mut self) {
        self.over.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            // It only sleeps and notes.
            thread.join().ok();
        }
    }
}

/// A centre with three enrolled agents: the witness, one whose key an attacker has, and a real program.
pub(super) struct Scene {
    pub(super) small: Small,
    pub(super) ground: Arc<Ground>,
    pub(super) witness: Known,
    pub(super) bad: Known,
    pub(super) runtime: Runtime,
    real: Agent,
    reports: Mutex<u32>,
    begun: Instant,
    stalls: Stalls,
    _alone: MutexGuard<'static, ()>,
}

impl Scene {
    pub(super) fn new() -> Scene {
        let alone = ONE.lock().unwrap_or_else(PoisonError::into_inner);
        let most = descriptors::raise().unwrap();
        assert!(most >= DESCRIPTORS, "the limit of open files is {most}: {DESCRIPTORS} are needed");
        let small = Small::new();
        let witness = Known::of(&small.agent("witness", &["V1-VC"]));
        let bad = Known::of(&small.agent("bad", &["V5-VC"]));
        let real = small.agent("real", &["V2-VC"]);
        let centre = centre_of(&small.world.centre()).unwrap();
        let ca = centre.ca.certificate().clone();
        let ground = Arc::new(Ground { door: small.served().mqtt(), ca, centre });
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        let runtime = runtime.unwrap();
        let (reports, begun, stalls) = (Mutex::new(0), Instant::now(), Stalls::watch());
        Scene { small, ground, witness, bad, runtime, real, reports, begun, stalls, _alone: alone }
    }

    /// Lets an attack happen while the witness watches, and sees that everybody is served afterwards.
    #[track_caller]
    pub(super) fn attack<R>(&self, what: &str, attack: impl Future<Output = R>) -> R {
        let over = Arc::new(AtomicBool::new(false));
        let (known, door, told) = (self.witness.clone(), self.ground.door, over.clone());
        let (up, is_up) = tokio::sync::oneshot::channel();
        let watching = self.runtime.spawn(async move {
            let mut link = known.link(door).await;
            up.send(()).unwrap();
            let mut times = Vec::new();
            while !told.load(Ordering::SeqCst) || times.is_empty() {
                let begun = Instant::now();
                known.is_answered(&mut link, times.len() as u64).await;
                times.push((begun, begun.elapsed()));
                tokio::time::sleep(HELLO_EVERY).await;
            }
            link.close().await;
            times
        });
        let begun = Instant::now();
        let (result, measured) = self.runtime.block_on(async {
            is_up.await.expect("the witness is there first");
            let result = attack.await;
            over.store(true, Ordering::SeqCst);
            (result, watching.await.expect("the witness is served all the time"))
        });
        let took = begun.elapsed();
        self.small.served().process().check().unwrap();
        let fresh_from = Instant::now();
        let fresh = self.serves_a_fresh_connection();
        let mut times: Vec<Duration> = measured.iter().map(|(_, took)| *took).collect();
        times.sort_unstable();
        let at = |percent: usize| times[(times.len() * percent / 100).min(times.len() - 1)];
        println!(
            "{what}: {took:.1?}; meanwhile {} receipts, p50 {:.1?}, p99 {:.1?}, longest {:.1?}; \
             afterwards a new connection with its receipt in {fresh:.1?}",
            times.len(),
            at(50),
            at(99),
            at(100)
        );
        for (begun, took) in measured.into_iter().chain([(fresh_from, fresh)]) {
            self.is_within(AT_ONCE, begun, begun + took, &format!("{what}: the witness waited"));
        }
        result
    }

    /// That what went on between two moments did not last longer than `limit`, but for a stall of the machine, of
    /// which the centre can do nothing; longer than [`SOON`] in no case.
    #[track_caller]
    pub(super) fn is_within(&self, limit: Duration, begun: Instant, ended: Instant, what: &str) {
        let took = ended.saturating_duration_since(begun);
        assert!(
            took < limit || took < SOON && self.stalls.excuse(begun, ended),
            "{what}: {took:?}"
        );
    }

    /// How long the witness takes from nothing to a receipt.
    fn serves_a_fresh_connection(&self) -> Duration {
        let begun = Instant::now();
        self.runtime.block_on(async {
            let mut link = self.witness.link(self.ground.door).await;
            self.witness.is_answered(&mut link, u64::MAX).await;
            let took = begun.elapsed();
            link.close().await;
            took
        })
    }

    pub(super) fn counters(&self) -> Value {
        serde_json::from_str(&self.small.served().get("/v1/counters").unwrap().body).unwrap()
    }

    /// How often the door has refused for this reason.
    pub(super) fn refused(&self, cause: &str) -> u64 {
        self.counters()["door"]["refused"][cause].as_u64().unwrap_or(0)
    }

    pub(super) fn door(&self, name: &str) -> u64 {
        self.counters()["door"][name].as_u64().unwrap_or_else(|| panic!("no counter {name}"))
    }

    pub(super) fn intake(&self, name: &str) -> u64 {
        self.counters()["intake"][name].as_u64().unwrap_or_else(|| panic!("no counter {name}"))
    }

    /// Waits until the door has refused that often for this reason.
    #[track_caller]
    pub(super) fn until_refused(&self, cause: &str, at_least: u64) {
        let done = until(cause, SOON, || Ok((self.refused(cause) >= at_least).then_some(())));
        done.unwrap_or_else(|error| panic!("{error}: {}", self.counters()));
    }

    /// Waits until the intake has counted that.
    #[track_caller]
    pub(super) fn until_intake(&self, name: &str, at_least: u64) {
        let done = until(name, SOON, || Ok((self.intake(name) >= at_least).then_some(())));
        done.unwrap_or_else(|error| panic!("{error}: {}", self.counters()));
    }

    /// That the log tells of it.
    #[track_caller]
    pub(super) fn is_logged(&self, words: &str) {
        let log = std::fs::read_to_string(self.small.world.dir().join("logs/aggregator.log"));
        assert!(log.unwrap().contains(words), "the log does not tell of {words:?}");
    }

    /// That a real agent's report comes in and is counted, that the ledger is as it should be, nothing
    /// panicked, and the service ends in order.
    pub(super) fn ends_well(mut self) {
        let day = {
            let mut reports = self.reports.lock().unwrap();
            *reports += 1;
            format!("2026-01-{:02}", *reports)
        };
        record(&self.real, &day, &["total_visits=17"]);
        sync(&self.real);
        assert_eq!(self.small.element("T1", &day, "total_visits")["value"], 17);
        assert_eq!(self.door("panics"), 0);
        self.small.ok(&["verify", "--all"]);
        let log = std::fs::read_to_string(self.small.world.dir().join("logs/aggregator.log"));
        let log = log.unwrap();
        for word in ["panicked", "has failed", "skipped"] {
            assert!(!log.contains(word), "{word}: {log}");
        }
        // Whoever causes it cannot fill the disk with it: each cause is told once a second.
        let most = 256 * 1024 + 8 * 1024 * self.begun.elapsed().as_secs();
        assert!((log.len() as u64) < most, "{} bytes of log", log.len());
        self.small.served.take().unwrap().stop().unwrap();
    }
}
