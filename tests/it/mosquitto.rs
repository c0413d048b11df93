//! An external broker: agents and the centre through a real mosquitto, set up by the files `broker-acl` writes.
//! And public clients, mosquitto's own and paho, with an agent's certificate, at that broker and at the front
//! door: whoever has a valid certificate gets at its own topics and nowhere else.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use banyan_agent::identity::Identity;
use banyan_aggregator::identity::Identity as Centre;
use banyan_shared::ids::AgentId;
use banyan_shared::topic;
use banyan_shared::wire::{Batch, Beacon, Envelope, Hello, Receipt};
use banyan_tests::{Agent, Process, kept_address, until};
use serde_json::{Value, json};

use crate::small::{SOON, Small, json_of, record, run, sync};

/// How long agents may need to find their way again: some waits of their back-off.
const SETTLED_WITHIN: Duration = Duration::from_secs(180);
/// How long a public client waits for a message or for the end of a refusal.
const CLIENT_WAITS_S: &str = "15";

/// A mosquitto with the files `broker-acl` wrote.
struct Mosquitto {
    dir: PathBuf,
    address: SocketAddr,
    process: Option<Process>,
}

impl Mosquitto {
    /// Has the files written and starts it.
    fn new(small: &Small) -> Mosquitto {
        let dir = small.world.dir().join("mosquitto");
        let mut mosquitto = Mosquitto { dir, address: kept_address().unwrap(), process: None };
        mosquitto.write_files(small);
        mosquitto.start();
        mosquitto
    }

    fn write_files(&self, small: &Small) {
        let port = self.address.port().to_string();
        let args = ["broker-acl", "mosquitto", "--port", &port, "--host", "broker.example.org"];
        small.ok(&[&args[..], &["-o", self.dir.to_str().unwrap()]].concat());
    }

    fn log(&self) -> PathBuf {
        self.dir.join("log")
    }

    fn start(&mut self) {
        // As root it would become another user, who may not read what root has written.
        let settings = fs::read_to_string(self.dir.join("mosquitto.conf")).unwrap();
        let own = self.dir.join("own.conf");
        fs::write(&own, format!("{settings}\nuser root\nlog_type all\n")).unwrap();
        let mut command = Command::new("mosquitto");
        command.arg("-c").arg(own).current_dir(&self.dir);
        let process = Process::start(&mut command, &self.log()).unwrap();
        until("mosquitto listens", SOON, || {
            process.check()?;
            Ok(TcpStream::connect(self.address).ok())
        })
        .unwrap();
        self.process = Some(process);
    }

    /// `kill -9`; nothing of what it knew is left on the disk.
    fn kill9(&mut self) {
        self.process.take().unwrap().kill9().unwrap();
        let mut left: Vec<String> = fs::read_dir(&self.dir)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        left.sort();
        let files = [
            "acl",
            "ca.crt",
            "log",
            "mosquitto.conf",
            "own.conf",
            "revoked.crl",
            "server.crt",
            "server.key",
        ];
        assert_eq!(left, files, "mosquitto keeps no state");
    }

    fn reload(&self) {
        signal(self.process.as_ref().unwrap(), "-HUP");
    }

    /// How often `text` stands in its log.
    fn logged(&self, text: &str) -> usize {
        String::from_utf8_lossy(&fs::read(self.log()).unwrap()).matches(text).count()
    }

    /// `serve` anew, with this broker beside the door, or with none.
    fn serve(&self, small: &mut Small, with_broker: bool) {
        let served = small.served.take().unwrap();
        let (mqtt, http) = (served.mqtt(), served.http());
        served.stop().unwrap();
        small.world.serve_with.clear();
        if with_broker {
            let url = format!("mqtts://{}", self.address);
            small.world.serve_with = vec!["--broker".to_owned(), url];
        }
        small.served = Some(small.world.serve_at(mqtt, http).unwrap());
        if with_broker {
            connected(small);
        }
    }
}

fn signal(process: &Process, signal: &str) {
    let status = Command::new("kill").args([signal, &process.id().to_string()]).status().unwrap();
    assert!(status.success());
}

fn counters(small: &Small) -> Value {
    serde_json::from_str(&small.served().get("/v1/counters").unwrap().body).unwrap()
}

fn connected(small: &Small) {
    let up = || Ok((counters(small)["broker"]["connected"] == 1).then_some(()));
    until("the centre is connected to the broker", SETTLED_WITHIN, up).unwrap();
}

/// A centre with a mosquitto beside its door.
fn with_mosquitto() -> (Small, Mosquitto) {
    let mut small = Small::new();
    let mosquitto = Mosquitto::new(&small);
    mosquitto.serve(&mut small, true);
    (small, mosquitto)
}

/// The broker an agent has been told of.
fn told(agent: &Agent) -> Option<String> {
    let bytes = fs::read(agent.dir().join("identity.json")).unwrap();
    let identity: Value = serde_json::from_slice(&bytes).unwrap();
    identity["broker"].as_str().map(str::to_owned)
}

fn id_of(agent: &Agent) -> AgentId {
    Identity::open(agent.dir()).unwrap().unwrap().agent()
}

/// A certificate and its key in PEM, for a public client.
#[derive(Clone)]
struct Shown {
    ca: PathBuf,
    certificate: PathBuf,
    key: PathBuf,
}

impl Shown {
    fn new(small: &Small, name: &str, certificate: &[u8], key: &[u8]) -> Shown {
        let pem = |kind: &str, label: &str, der: &[u8]| {
            let text = data_encoding::BASE64.encode(der);
            small.file(
                &format!("{name}.{kind}"),
                format!("-----BEGIN {label}-----\n{text}\n-----END {label}-----\n"),
            )
        };
        Shown {
            ca: small.world.centre().join("keys/ca.crt"),
            certificate: pem("crt", "CERTIFICATE", certificate),
            key: pem("key", "PRIVATE KEY", key),
        }
    }

    /// What an agent has in its data directory.
    fn of(small: &Small, agent: &Agent) -> Shown {
        let identity = Identity::open(agent.dir()).unwrap().unwrap();
        let certificate = &identity.issued().expect("it has one").certificate;
        let name = identity.agent().to_string();
        Shown::new(small, &name, certificate, &identity.key().pkcs8_v1())
    }

    /// What the centre shows a broker.
    fn of_centre(small: &Small) -> Shown {
        let identity = Centre::open(&small.world.centre()).unwrap();
        let (certificate, key) = identity.ca.client(jiff::Timestamp::now().into()).unwrap();
        // Back to the form that OpenSSL reads.
        let key = banyan_shared::keys::SigningKey::from_pkcs8(key.secret_der()).unwrap();
        Shown::new(small, "centre", &certificate, &key.pkcs8_v1())
    }

    fn command(&self, program: &str, at: SocketAddr, arguments: &[&str]) -> Command {
        let mut command = Command::new(program);
        command
            .args(["-V", "mqttv311", "-h", &at.ip().to_string(), "-p", &at.port().to_string()])
            .args(["--tls-version", "tlsv1.3", "--cafile"])
            .arg(&self.ca)
            .arg("--cert")
            .arg(&self.certificate)
            .arg("--key")
            .arg(&self.key)
            .args(arguments);
        command
    }

    fn run(&self, program: &str, at: SocketAddr, arguments: &[&str]) -> Output {
        self.command(program, at, arguments).stdin(Stdio::null()).output().unwrap()
    }

    /// Publishes with QoS 1; whether that was acknowledged, as far as the client knows.
    fn publishes(&self, at: SocketAddr, id: &str, topic: &str, file: &Path) -> bool {
        let file = file.to_str().unwrap();
        let arguments = ["-i", id, "-t", topic, "-q", "1", "-f", file];
        self.run("mosquitto_pub", at, &arguments).status.success()
    }
}

/// `mosquitto_sub` that goes on; what it hears stands in a file, topic and payload.
struct Listener {
    process: Process,
    heard: PathBuf,
}

impl Listener {
    /// Subscribed when this returns.
    fn new(small: &Small, shown: &Shown, at: SocketAddr, name: &str, topics: &[&str]) -> Listener {
        let heard = small.world.dir().join(format!("{name}.heard"));
        let mut arguments = vec!["-i", name, "-q", "1", "-v", "-d"];
        for topic in topics {
            arguments.extend(["-t", topic]);
        }
        // Line by line, whoever reads it.
        let inner = shown.command("mosquitto_sub", at, &arguments);
        let mut command = Command::new("stdbuf");
        command.arg("-oL").arg(inner.get_program()).args(inner.get_args());
        let process = Process::start(&mut command, &heard).unwrap();
        let listener = Listener { process, heard };
        until("the subscription is granted", SOON, || {
            listener.process.check()?;
            Ok(listener.text().contains("Subscribed (mid:").then_some(()))
        })
        .unwrap();
        listener
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.heard).unwrap()).into_owned()
    }

    /// The topics it has heard anything on, in order.
    fn topics(&self) -> Vec<String> {
        let text = self.text();
        let topic = |line: &str| {
            let (_, rest) = line.split_once("received PUBLISH (")?;
            rest.split('\'').nth(1).map(str::to_owned)
        };
        text.lines().filter_map(topic).collect()
    }

    /// Waits until it has heard something on `topic`.
    fn hears(&self, topic: &str) {
        let heard = || Ok(self.topics().iter().any(|heard| heard == topic).then_some(()));
        until(&format!("{topic} is heard"), SOON, heard)
            .unwrap_or_else(|error| panic!("{error}: {}", self.text()));
    }
}

/// A hello of this agent, signed: what the centre answers with a receipt.
fn hello(agent: &Agent, nonce: u64) -> Vec<u8> {
    let identity = Identity::open(agent.dir()).unwrap().unwrap();
    let (_, epoch) = identity.used();
    let batch = Batch {
        agent: identity.agent(),
        epoch: epoch.unwrap(),
        context: identity.present().unwrap(),
        hello: Some(Hello { nonce, beacon: Beacon::default(), operating: None }),
        entries: Vec::new(),
    };
    batch.seal(identity.key())
}

/// Says hello by paho, in one connection with the subscription, and holds the answer to be a receipt for it.
fn is_receipted(small: &Small, at: SocketAddr, agent: &Agent, nonce: u64) {
    let shown = Shown::of(small, agent);
    let id = id_of(agent);
    let file = small.file("hello", hello(agent, nonce));
    // Debian's own: its package of paho belongs to it.
    let mut command = Command::new("/usr/bin/python3");
    command
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/paho/ask.py"))
        .args([at.ip().to_string(), at.port().to_string()])
        .args([&shown.ca, &shown.certificate, &shown.key])
        .arg(id.to_string())
        .arg(file)
        .args([topic::up(id), topic::down(id)]);
    let answer = command.output().unwrap();
    assert!(answer.status.success(), "{}", String::from_utf8_lossy(&answer.stderr));
    let identity = Identity::open(agent.dir()).unwrap().unwrap();
    let key = identity.certificate().unwrap().key;
    let receipt = Receipt::open(&Envelope::read(&answer.stdout).unwrap(), &key).unwrap();
    assert_eq!(receipt.answers, Some(nonce));
    assert!(receipt.complete && !receipt.lives.is_empty(), "{receipt:?}");
}

#[test]
fn nothing_is_lost_through_a_broker_that_is_killed_and_forgets() {
    const CLINICS: [(&str, &str); 3] = [("a", "V1-VC"), ("b", "V2-VC"), ("c", "V5-VC")];
    let (small, mut mosquitto) = with_mosquitto();
    let agents = CLINICS.map(|(name, unit)| small.agent(name, &[unit]));
    let url = format!("mqtts://{}", mosquitto.address);
    for agent in &agents {
        assert_eq!(told(agent).as_ref(), Some(&url), "told with its certificate");
    }
    // From here on the broker is the only way.
    small.world.link.cut();
    let running: Vec<Process> = agents.iter().map(|agent| agent.start(&["run"]).unwrap()).collect();
    let settled = |limit: Duration| {
        let done = |agent: &Agent| {
            let status = json_of(agent, &["status"]);
            status["waiting"] == 0 && status["received"].as_u64() > Some(0)
        };
        until("every entry has its receipt", limit, || {
            running.iter().try_for_each(Process::check)?;
            Ok(agents.iter().all(done).then_some(()))
        })
        .unwrap_or_else(|error| panic!("{error}: {}\n{}", counters(&small), running[0].log_end()));
    };
    for agent in &agents {
        record(agent, "2026-01-01", &["open_days=1", "total_visits=1"]);
    }
    settled(SETTLED_WITHIN);

    let mut lost = 0;
    for round in 2..=7 {
        let days = format!("2026-01-{round:02}..2026-01-{:02}", round + 20);
        let visits = format!("total_visits={round}");
        if round % 2 == 0 {
            // The broker acknowledges what the centre has no chance to take, and dies with it.
            signal(small.served().process(), "-STOP");
        }
        let before = mosquitto.logged("Received PUBLISH from");
        for agent in &agents {
            record(agent, &days, &["open_days=1", &visits]);
        }
        until("the broker has taken something", SETTLED_WITHIN, || {
            Ok((mosquitto.logged("Received PUBLISH from") > before).then_some(()))
        })
        .unwrap();
        let acknowledged = mosquitto.logged("Received PUBLISH from") - before;
        mosquitto.kill9();
        if round % 2 == 0 {
            lost += acknowledged;
            signal(small.served().process(), "-CONT");
        }
        mosquitto.start();
        // What was answered before the broker died is settled without a new connection.
        until("the centre is back at the broker", SETTLED_WITHIN, || {
            let connections = counters(&small)["broker"]["connections"].as_u64();
            Ok((connections >= Some(round)).then_some(()))
        })
        .unwrap();
        settled(SETTLED_WITHIN);
    }
    assert!(lost >= 3, "{lost} batches were acknowledged and lost");
    // The last to write a day counts, once: 1 on the first, then 2 to 6 for a day each, 7 to the 27th.
    let expected = 1 + (2..=6).sum::<u64>() + 7 * 21;
    for (_, unit) in CLINICS {
        assert_eq!(small.element(unit, "2026-01", "total_visits")["value"], expected, "{unit}");
    }
    assert_eq!(small.json(&["fleet"])["summary"], json!({ "active": 3 }));
    small.ok(&["verify", "--all"]);
}

#[test]
fn at_the_broker_a_certificate_opens_its_own_topics_only() {
    let (mut small, mosquitto) = with_mosquitto();
    let (one, other) = (small.agent("one", &["V1-VC"]), small.agent("other", &["V2-VC"]));
    let at = mosquitto.address;
    let shown = Shown::of(&small, &one);
    let (own, foreign) = (id_of(&one), id_of(&other));
    let foreign_id = foreign.to_string();
    record(&one, "2026-01-04", &["total_visits=1"]);
    sync(&one);
    is_receipted(&small, at, &one, 77);

    // It listens to everything there is, under another's id; the other's receipts come and go.
    let foreign_down = topic::down(foreign);
    let all = ["#", "$SYS/#", "banyan/v1/+/down", "+/+/+/+", &foreign_down];
    let spy = Listener::new(&small, &shown, at, &foreign_id, &all);
    record(&other, "2026-01-05", &["open_days=1", "total_visits=3"]);
    sync(&other);
    assert_eq!(small.element("V2-VC", "2026-01-05", "total_visits")["value"], 3);
    spy.process.check().unwrap();

    // With the centre away its place can be taken, to see what gets through and to answer.
    small.served.take().unwrap().stop().unwrap();
    let centre = Shown::of_centre(&small);
    let note = small.file("note", b"x");
    for agent in [foreign, own] {
        assert!(centre.publishes(at, "anyone", &topic::down(agent), &note));
    }
    spy.hears(&topic::down(own));
    assert_eq!(spy.topics(), [topic::down(own)], "{}", spy.text());

    let ears = Listener::new(&small, &centre, at, "centre", &["#"]);
    let mouths = [
        topic::up(foreign),
        topic::down(own),
        topic::down(foreign),
        "banyan/v1/banyan-aggregator/up".to_owned(),
        format!("{}/more", topic::up(own)),
        "elsewhere".to_owned(),
    ];
    for mouth in &mouths {
        // MQTT 3.1.1 has no word for it: the broker acknowledges and throws away.
        shown.publishes(at, &foreign_id, mouth, &note);
    }
    let retained = ["-t", &topic::up(own), "-q", "1", "-r", "-m", "x"];
    assert!(!shown.run("mosquitto_pub", at, &retained).status.success(), "retained messages");
    assert!(shown.publishes(at, &foreign_id, &topic::up(own), &note));
    ears.hears(&topic::up(own));
    assert_eq!(ears.topics(), [topic::up(own)], "{}", ears.text());
    assert_eq!(spy.topics(), [topic::down(own)], "{}", spy.text());

    // No certificate, one of its own making, one of another centre.
    let strange = Small::new();
    let stranger = Shown::of(&strange, &strange.agent("stranger", &["V1-VC"]));
    let stranger = Shown { ca: shown.ca.clone(), ..stranger };
    assert!(!stranger.publishes(at, "x", &topic::up(own), &note));
    let host = ["-h", "127.0.0.1", "-p", &at.port().to_string(), "--cafile"];
    let mut bare = Command::new("mosquitto_pub");
    bare.args(host).arg(&shown.ca).args(["-t", &topic::up(own), "-q", "1", "-m", "x"]);
    assert!(!bare.output().unwrap().status.success());
    assert_eq!(ears.topics().len(), 1, "{}", ears.text());
}

#[test]
fn who_is_revoked_is_out_at_the_broker_and_learns_why_at_the_door() {
    let (small, mosquitto) = with_mosquitto();
    let (out, stays) = (small.agent("out", &["V1-VC"]), small.agent("stays", &["V2-VC"]));
    let shown = Shown::of(&small, &out);
    let id = id_of(&out);
    let note = small.file("note", b"x");
    record(&out, "2026-01-05", &["total_visits=1"]);
    sync(&out);
    small.ok(&["revoke", &id.to_string()]);
    // The centre takes nothing of it any more, whatever the broker thinks.
    let revoked = counters(&small)["intake"]["revoked"].as_u64().unwrap();
    let sent = small.file("hello", hello(&out, 5));
    assert!(shown.publishes(mosquitto.address, "any", &topic::up(id), &sent));
    until("it is told so", SOON, || {
        Ok((counters(&small)["intake"]["revoked"].as_u64() == Some(revoked + 1)).then_some(()))
    })
    .unwrap();
    // With the files made anew, the broker hears and lets in nobody of that name; who is connected stays so,
    // and is not heard.
    let spy = Listener::new(&small, &shown, mosquitto.address, "spy", &[&topic::down(id)]);
    mosquitto.write_files(&small);
    mosquitto.reload();
    until("the certificate is refused", SOON, || {
        Ok((!shown.publishes(mosquitto.address, "any", &topic::up(id), &note)).then_some(()))
    })
    .unwrap();
    spy.process.check().unwrap();
    assert_eq!(spy.topics(), Vec::<String>::new());
    // Its own program finds out at the door, the others go on.
    small.world.link.cut();
    record(&stays, "2026-01-05", &["total_visits=4"]);
    sync(&stays);
    small.world.link.restore();
    record(&out, "2026-01-06", &["total_visits=9"]);
    let told = run(&out, &["sync", "--timeout", "60s"]).exits(1);
    assert!(told.err.contains("[agent_revoked]"), "{}", told.err);
    assert_eq!(small.element("T1", "2026-01", "total_visits")["value"], 5);
}

#[test]
fn without_the_broker_agents_come_to_the_door_and_back() {
    let mut small = Small::new();
    let clinic = small.agent("clinic", &["V1-VC"]);
    let mut mosquitto = Mosquitto::new(&small);
    mosquitto.serve(&mut small, true);
    // Enrolled before there was a broker: told at the door, there at the next connection.
    assert_eq!(told(&clinic), None);
    let through_broker = || counters(&small)["broker"]["messages_up"].as_u64().unwrap();
    sync(&clinic);
    assert!(told(&clinic).is_some());
    assert_eq!(through_broker(), 0);
    record(&clinic, "2026-01-05", &["total_visits=1"]);
    sync(&clinic);
    let first = through_broker();
    assert!(first > 0);

    // The broker is gone: the door serves.
    mosquitto.kill9();
    record(&clinic, "2026-01-06", &["total_visits=2"]);
    sync(&clinic);
    assert_eq!(through_broker(), first);
    assert!(told(&clinic).is_some());
    mosquitto.start();
    connected(&small);
    record(&clinic, "2026-01-07", &["total_visits=4"]);
    sync(&clinic);
    assert!(through_broker() > first);

    // It is given up for good: agents forget it.
    mosquitto.kill9();
    mosquitto.serve(&mut small, false);
    record(&clinic, "2026-01-08", &["total_visits=8"]);
    sync(&clinic);
    assert_eq!(told(&clinic), None);
    assert_eq!(small.element("V1-VC", "2026-01", "total_visits")["value"], 15);
}

#[test]
fn at_the_door_a_public_client_gets_at_its_own_topics_and_nowhere_else() {
    let small = Small::new();
    let (one, other) = (small.agent("one", &["V1-VC"]), small.agent("other", &["V2-VC"]));
    let at = small.served().mqtt();
    let shown = Shown::of(&small, &one);
    let (own, foreign) = (id_of(&one), id_of(&other));
    let own_id = own.to_string();
    record(&one, "2026-01-05", &["total_visits=1"]);
    sync(&one);
    is_receipted(&small, at, &one, 78);

    let refused = |cause: &str| counters(&small)["door"]["refused"][cause].as_u64().unwrap_or(0);
    // Counted once the client has been told.
    let is_refused = |cause: &str, act: &dyn Fn()| {
        let before = refused(cause);
        act();
        until(cause, SOON, || Ok((refused(cause) == before + 1).then_some(()))).unwrap();
    };
    let note = small.file("note", b"x");
    // Each is closed with its cause counted, or refused filter by filter.
    for topic in [topic::up(foreign), topic::down(own), topic::down(foreign), "x".to_owned()] {
        is_refused("topic", &|| assert!(!shown.publishes(at, &own_id, &topic, &note), "{topic}"));
    }
    for (option, cause) in [(&["-r"][..], "retain"), (&["-q", "2"][..], "qos")] {
        let up = topic::up(own);
        let arguments = [&["-i", &own_id, "-t", &up, "-m", "x"][..], option].concat();
        is_refused(cause, &|| {
            shown.run("mosquitto_pub", at, &arguments);
        });
    }
    let foreign_down = topic::down(foreign);
    for filter in ["#", "$SYS/#", "banyan/v1/+/down", "+/+/+/+", &foreign_down] {
        let arguments = ["-i", &own_id, "-t", filter, "-W", CLIENT_WAITS_S];
        let answer = shown.run("mosquitto_sub", at, &arguments);
        let said = String::from_utf8_lossy(&answer.stderr).into_owned();
        assert!(said.contains("subscription requests were denied"), "{filter}: {said}");
        assert!(answer.stdout.is_empty(), "{filter}");
    }
    // Under another's id, with no certificate, with a will: CONNACK says 5, not authorised.
    let foreign_id = foreign.to_string();
    let will = ["-i", &own_id, "--will-topic", &topic::up(own), "--will-payload", "x"];
    let up = topic::up(foreign);
    for (arguments, cause) in [(&["-i", &foreign_id][..], "anothers_id"), (&will[..], "will")] {
        let arguments = [arguments, &["-t", &up, "-m", "x"]].concat();
        is_refused(cause, &|| {
            let answer = shown.run("mosquitto_pub", at, &arguments);
            let said = String::from_utf8_lossy(&answer.stderr).into_owned();
            assert!(said.to_lowercase().contains("not authorised"), "{said}");
        });
    }
    // And both are served as before.
    is_receipted(&small, at, &one, 79);
    record(&other, "2026-01-05", &["total_visits=2"]);
    sync(&other);
    assert_eq!(small.element("T1", "2026-01-05", "total_visits")["value"], 3);
}
