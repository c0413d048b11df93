use std::time::Duration;

use banyan_shared::ids::AgentId;
use banyan_shared::limits::{PACKET_BYTES_MAX, PAYLOAD_BYTES_MAX};
use banyan_shared::topic;
use bytes::{BufMut, Bytes, BytesMut};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use rumqttc::{AsyncClient, Event, EventLoop, LastWill, MqttOptions, Packet, QoS};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::*;
use crate::broker::{Broker, BrokerConfig, Downlink, Incoming};

/// How long anything may take that is waited for.
const PATIENCE: Duration = Duration::from_secs(60);

fn agent(n: u8) -> AgentId {
    AgentId([0xab, 0, 0, 0, 0, n])
}

/// Anyone on this machine.
fn plain() -> Entrance {
    Entrance { roll: Arc::default(), tls: None, clock: crate::service::system_clock() }
}

/// A door with its broker and an intake that answers every message with its own bytes.
struct House {
    addr: SocketAddr,
    broker: Broker,
    registry: Arc<Registry>,
    stop: oneshot::Sender<()>,
    door: JoinHandle<()>,
}

/// Looks at a condition until it holds.
async fn until(registry: &Registry, what: &str, condition: impl Fn() -> bool) {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while !condition() {
        let values = registry.counters().values();
        assert!(tokio::time::Instant::now() < deadline, "not in time: {what}; {values:?}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

impl House {
    async fn open(config: DoorConfig) -> Self {
        Self::behind(config, plain()).await
    }

    async fn behind(config: DoorConfig, entrance: Entrance) -> Self {
        // Some tests hold hundreds of connections, both ends of each, and run at once.
        crate::descriptors::raise().unwrap();
        let registry = Registry::new(Arc::default());
        let (broker, incoming) =
            Broker::start(BrokerConfig::default(), Arc::clone(&registry)).unwrap();
        tokio::spawn(echo(incoming, broker.downlink()));
        let addr = "127.0.0.1:0".parse().unwrap();
        let door = FrontDoor::bind(addr, config, broker.uplink(), Arc::clone(&registry), entrance)
            .await
            .unwrap();
        let addr = door.local_addr();
        let (stop, stopped) = oneshot::channel();
        let door = tokio::spawn(door.run(async {
            stopped.await.ok();
        }));
        Self { addr, broker, registry, stop, door }
    }

    fn refused(&self, cause: Cause) -> u64 {
        self.registry.counters().refused(cause)
    }

    fn client(&self, id: &str) -> (AsyncClient, EventLoop) {
        AsyncClient::new(self.options(id), 10)
    }

    fn options(&self, id: &str) -> MqttOptions {
        let mut options = MqttOptions::new(id, "127.0.0.1", self.addr.port());
        options.set_max_packet_size(PACKET_BYTES_MAX, 2 * PACKET_BYTES_MAX);
        options
    }

    /// What "alive" means: a fresh client connects, subscribes, publishes, is acknowledged and answered.
    async fn serves(&self, agent: AgentId) {
        let (client, mut events) = self.client(&agent.to_string());
        client.subscribe(topic::down(agent), QoS::AtLeastOnce).await.unwrap();
        let payload = format!("hello from {agent}").into_bytes();
        let (mut acknowledged, mut answered) = (false, false);
        let round = async {
            while !(acknowledged && answered) {
                match events.poll().await.unwrap() {
                    Event::Incoming(Packet::SubAck(ack)) => {
                        let granted = rumqttc::SubscribeReasonCode::Success(QoS::AtMostOnce);
                        assert_eq!(ack.return_codes, [granted]);
                        client
                            .publish(topic::up(agent), QoS::AtLeastOnce, false, payload.clone())
                            .await
                            .unwrap();
                    }
                    Event::Incoming(Packet::PubAck(_)) => acknowledged = true,
                    Event::Incoming(Packet::Publish(answer)) => {
                        assert_eq!(
                            (answer.topic, answer.payload),
                            (topic::down(agent), payload.clone().into())
                        );
                        answered = true;
                    }
                    _ => {}
                }
            }
        };
        timeout(PATIENCE, round).await.expect("a fresh client is served");
        client.disconnect().await.unwrap();
        while events.poll().await.is_ok() {}
    }

    async fn until(&self, what: &str, condition: impl Fn(&Self) -> bool) {
        until(&self.registry, what, || condition(self)).await;
    }

    async fn close(self) {
        assert_eq!(self.registry.counters().values().panics, 0);
        assert_eq!((self.broker.up().skipped, self.broker.down().skipped), (0, 0));
        self.stop.send(()).unwrap();
        self.door.await.unwrap();
        assert!(self.registry.is_empty());
        self.broker.stop().await;
    }
}

async fn echo(mut incoming: mpsc::Receiver<Incoming>, down: Arc<dyn Downlink>) {
    while let Some(message) = incoming.recv().await {
        down.publish_down(message.agent, message.payload).ok();
    }
}

/// Packets by hand, so that they can be wrong.
fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    let mut out = vec![first];
    let mut rest = body.len();
    loop {
        let byte = (rest % 128) as u8;
        rest /= 128;
        out.push(if rest > 0 { byte | 0x80 } else { byte });
        if rest == 0 {
            break;
        }
    }
    out.extend_from_slice(body);
    out
}

fn text(out: &mut Vec<u8>, text: &str) {
    out.put_u16(text.len() as u16);
    out.extend_from_slice(text.as_bytes());
}

fn connect_with(name: &str, level: u8, flags: u8, keep_alive: u16, id: &str) -> Vec<u8> {
    let mut body = Vec::new();
    text(&mut body, name);
    body.extend([level, flags]);
    body.put_u16(keep_alive);
    if level == 5 {
        body.push(0); // no properties
    }
    text(&mut body, id);
    packet(0x10, &body)
}

fn connect(id: &str) -> Vec<u8> {
    connect_with("MQTT", 4, 0b10, 60, id)
}

fn publish(first: u8, topic: &str, packet_id: Option<u16>, payload: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    text(&mut body, topic);
    if let Some(packet_id) = packet_id {
        body.put_u16(packet_id);
    }
    body.extend_from_slice(payload);
    packet(first, &body)
}

fn subscribe(filters: &[(&str, u8)]) -> Vec<u8> {
    let mut body = vec![0, 9];
    for (filter, qos) in filters {
        text(&mut body, filter);
        body.push(*qos);
    }
    packet(0x82, &body)
}

const ACCEPTED: &[u8] = &[0x20, 2, 0, 0];

/// Sends `bytes` and reads until the door closes.
async fn answer(addr: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(addr).await.unwrap();
    let mut answer = Vec::new();
    let talk = async {
        // The door may close before it has read all of it.
        stream.write_all(bytes).await.ok();
        stream.read_to_end(&mut answer).await.ok();
    };
    timeout(PATIENCE, talk).await.expect("the door closes");
    answer
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_report_goes_up_and_its_answer_comes_down() {
    let house = House::open(DoorConfig::default()).await;
    for n in 0..3 {
        house.serves(agent(n)).await;
    }
    let values = house.registry.counters().values();
    assert_eq!((values.accepted, values.messages_up, values.messages_down), (3, 3, 3));
    assert!(values.bytes_in > 0 && values.bytes_out > 0);
    assert_eq!(values.refused, []);
    // The largest message of all, both ways.
    let me = agent(9);
    let (client, mut events) = house.client(&me.to_string());
    client.subscribe(topic::down(me), QoS::AtMostOnce).await.unwrap();
    let large = vec![0x5a; PAYLOAD_BYTES_MAX];
    client.publish(topic::up(me), QoS::AtLeastOnce, false, large.clone()).await.unwrap();
    let back = async {
        loop {
            if let Event::Incoming(Packet::Publish(back)) = events.poll().await.unwrap() {
                return back.payload;
            }
        }
    };
    assert_eq!(timeout(PATIENCE, back).await.unwrap(), large);
    house.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_accepted_is_refused_with_its_code_and_harms_nobody() {
    let house = House::open(DoorConfig::default()).await;
    let me = agent(1);
    let id = me.to_string();
    let (up, down) = (topic::up(me), topic::down(me));
    let joined = |packets: &[&[u8]]| [&[connect(&id).as_slice()], packets].concat().concat();
    let close: &[u8] = &[];
    let after_connect = |packets: &[&[u8]], cause| (joined(packets), ACCEPTED, cause);
    let too_large = publish(0x30, &up, None, &vec![0; PAYLOAD_BYTES_MAX + 1]);
    let far_too_large = publish(0x30, &up, None, &vec![0; PAYLOAD_BYTES_MAX + 100]);
    let many: Vec<(&str, u8)> = vec![(down.as_str(), 0); 9];
    let cases: Vec<(Vec<u8>, &[u8], Cause)> = vec![
        // Versions.
        (connect_with("MQTT", 5, 2, 60, &id), &[0x20, 2, 0, 1], Cause::ProtocolVersion),
        (connect_with("MQTT", 3, 2, 60, &id), &[0x20, 2, 0, 1], Cause::ProtocolVersion),
        (connect_with("MQIsdp", 3, 2, 60, &id), &[0x20, 2, 0, 1], Cause::ProtocolVersion),
        (connect_with("XXXX", 4, 2, 60, &id), close, Cause::Malformed),
        (connect_with("MQTT", 4, 3, 60, &id), close, Cause::Malformed),
        // Ids.
        (connect(""), &[0x20, 2, 0, 2], Cause::ClientId),
        (connect("AB0000000001"), &[0x20, 2, 0, 2], Cause::ClientId),
        (connect("ab0000/+/#01"), &[0x20, 2, 0, 2], Cause::ClientId),
        (connect("$share/x"), &[0x20, 2, 0, 2], Cause::ClientId),
        // Sessions and wills.
        (connect_with("MQTT", 4, 0, 60, &id), &[0x20, 2, 0, 5], Cause::PersistentSession),
        // First packets.
        (vec![0x10, 0xff, 0xff, 0x7f], close, Cause::TooLarge),
        (vec![0x10, 0xff, 0xff, 0xff, 0xff, 0x7f], close, Cause::Malformed),
        (vec![0xc0, 0], close, Cause::Unexpected),
        (vec![0xf0, 0], close, Cause::Malformed),
        (b"GET / HTTP/1.1\r\n\r\n".to_vec(), close, Cause::Malformed),
        (vec![0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3], close, Cause::Malformed),
        // Publishing.
        after_connect(&[&publish(0x30, &topic::up(agent(2)), None, b"x")], Cause::Topic),
        after_connect(&[&publish(0x30, &down, None, b"x")], Cause::Topic),
        after_connect(&[&publish(0x30, "banyan/v1/+/up", None, b"x")], Cause::Topic),
        after_connect(&[&publish(0x30, "#", None, b"x")], Cause::Topic),
        after_connect(&[&publish(0x34, &up, Some(1), b"x")], Cause::Qos),
        after_connect(&[&publish(0x36, &up, Some(1), b"x")], Cause::Malformed),
        after_connect(&[&publish(0x32, &up, Some(0), b"x")], Cause::Malformed),
        after_connect(&[&publish(0x31, &up, None, b"x")], Cause::Retain),
        after_connect(&[&too_large], Cause::TooLarge),
        after_connect(&[&far_too_large], Cause::TooLarge),
        // The rest.
        after_connect(&[&connect(&id)], Cause::Unexpected),
        after_connect(&[ACCEPTED], Cause::Unexpected),
        after_connect(&[&packet(0x62, &[0, 1])], Cause::Unexpected),
        after_connect(&[&packet(0x80, &[0, 1])], Cause::Malformed),
        after_connect(&[&packet(0x82, &[0, 1])], Cause::Malformed),
        after_connect(&[&packet(0xa2, &[0, 1])], Cause::Malformed),
        after_connect(&[&subscribe(&many)], Cause::Filters),
    ];
    for (number, (bytes, expected, cause)) in cases.into_iter().enumerate() {
        let before = house.refused(cause);
        let got = answer(house.addr, &bytes).await;
        // A close with bytes unread may take the answer with it on the way.
        let cut = got.is_empty() && matches!(cause, Cause::TooLarge | Cause::Malformed);
        assert!(got == expected || cut, "case {number}, {cause:?}: {got:?}");
        house.until("counted", |house| house.refused(cause) == before + 1).await;
    }
    house.serves(agent(3)).await;
    house.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_will_is_refused_and_foreign_filters_fail_one_by_one() {
    let house = House::open(DoorConfig::default()).await;
    let me = agent(1);
    let mut options = house.options(&me.to_string());
    options.set_last_will(LastWill::new(topic::up(me), "gone", QoS::AtMostOnce, false));
    let (_client, mut events) = AsyncClient::new(options, 10);
    let refused = timeout(PATIENCE, events.poll()).await.unwrap().unwrap_err();
    let not_authorised = rumqttc::ConnectReturnCode::NotAuthorized;
    assert!(
        matches!(refused, rumqttc::ConnectionError::ConnectionRefused(code) if code == not_authorised),
        "{refused:?}"
    );
    house.until("counted", |house| house.refused(Cause::Will) == 1).await;

    let (own, other) = (topic::down(me), topic::down(agent(2)));
    let up = topic::up(me);
    let filters: Vec<(&str, u8)> = vec![
        (&own, 0),
        (&other, 0),
        ("#", 0),
        ("banyan/v1/+/down", 1),
        (&up, 0),
        (&own, 1),
        (&own, 2),
    ];
    let bytes = [connect(&me.to_string()), subscribe(&filters), vec![0xe0, 0]].concat();
    let expected = [ACCEPTED, &[0x90, 9, 0, 9, 0, 0x80, 0x80, 0x80, 0x80, 0, 0x80]].concat();
    assert_eq!(answer(house.addr, &bytes).await, expected);
    assert_eq!(house.registry.counters().values().filters_refused, 5);
    house.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn resets_before_connack_leave_the_door_open() {
    let house = House::open(DoorConfig::default()).await;
    for round in 0..200u8 {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_zero_linger().unwrap();
        let mut stream = socket.connect(house.addr).await.unwrap();
        let id = agent(round % 20).to_string();
        stream.write_all(&connect(&id)).await.unwrap();
        // No lingering: closing resets.
        drop(stream);
    }
    // One dealt with later than its agent's next connection would take that over, as the newer of the two.
    let all_dealt_with = |house: &House| {
        let values = house.registry.counters().values();
        (values.accepted, values.connections) == (200, 0)
    };
    house.until("every reset is dealt with", all_dealt_with).await;
    for n in 0..20 {
        house.serves(agent(n)).await;
    }
    house.until("all gone", |house| house.registry.is_empty()).await;
    house.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_session_an_agent_however_many_connect_at_once() {
    let house = House::open(DoorConfig::default()).await;
    let me = agent(1);
    for _ in 0..3 {
        let mut connecting = Vec::new();
        for _ in 0..200 {
            let addr = house.addr;
            connecting.push(tokio::spawn(async move {
                let mut stream = TcpStream::connect(addr).await.unwrap();
                stream.write_all(&connect(&me.to_string())).await.unwrap();
                let mut connack = [0; 4];
                let accepted = stream.read_exact(&mut connack).await.is_ok();
                (accepted && connack == ACCEPTED).then_some(stream)
            }));
        }
        let mut streams = Vec::new();
        for task in connecting {
            streams.extend(timeout(PATIENCE, task).await.unwrap().unwrap());
        }
        assert!(!streams.is_empty());
        house.until("one left", |house| house.registry.counters().values().connections <= 1).await;
        // The newcomer is served, whoever holds the place.
        house.serves(me).await;
    }
    house.until("all gone", |house| house.registry.is_empty()).await;
    assert!(house.registry.counters().values().taken_over > 0);
    house.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bursts_and_acks_of_nothing_do_not_reach_the_router() {
    let house = House::open(DoorConfig::default()).await;
    // One alone would be slowed.
    for n in 0..20 {
        let me = agent(n);
        let mut bytes = connect(&me.to_string());
        bytes.extend(subscribe(&[(&topic::down(me), 0)]));
        for _ in 0..1_000 {
            bytes.extend(publish(0x32, &topic::up(me), Some(1), b"burst"));
        }
        bytes.extend(packet(0x40, &[0, 77]));
        bytes.extend([0xe0, 0]);
        answer(house.addr, &bytes).await;
    }
    let values = house.registry.counters().values();
    assert_eq!((values.messages_up, values.acks_unsolicited), (20_000, 20));
    house.until("all through", |house| house.broker.up().delivered == 20_000).await;
    house.serves(agent(2)).await;
    house.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_does_not_read_is_cut_off_and_delays_nobody() {
    let mut config = DoorConfig::default();
    config.timeouts.write = Duration::from_secs(2);
    config.timeouts.close = Duration::from_millis(100);
    let house = House::open(config).await;
    let me = agent(1);
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let mut deaf = socket.connect(house.addr).await.unwrap();
    deaf.write_all(&connect(&me.to_string())).await.unwrap();
    deaf.write_all(&subscribe(&[(&topic::down(me), 0)])).await.unwrap();
    house.until("entered", |house| house.registry.holds(me)).await;
    let large = Bytes::from(vec![0; 200_000]);
    let fill = async {
        while house.refused(Cause::WriteTimeout) == 0 {
            // More than waits for one session, and less than the broker has room for.
            for _ in 0..2 * DOWN_QUEUE_MESSAGES {
                house.broker.publish_down(me, large.clone()).ok();
            }
            house.serves(agent(2)).await;
        }
    };
    timeout(PATIENCE, fill).await.unwrap();
    assert!(house.registry.counters().values().down_dropped > 0);
    house.until("gone", |house| !house.registry.holds(me)).await;
    house.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silence_ends_a_connection() {
    let mut config = DoorConfig::default();
    config.timeouts.connect = Duration::from_millis(100);
    let house = House::open(config).await;
    assert!(answer(house.addr, &[]).await.is_empty());
    // A CONNECT byte by byte does not stretch the time.
    assert!(answer(house.addr, &connect("ab0000000001")[..9]).await.is_empty());
    assert_eq!(house.refused(Cause::ConnectTimeout), 2);
    house.close().await;
    // Whoever has to be let in first has the usual time for it.
    let house = House::open(DoorConfig::default()).await;
    let started = tokio::time::Instant::now();
    let bytes = connect_with("MQTT", 4, 2, 1, &agent(1).to_string());
    assert_eq!(answer(house.addr, &bytes).await, ACCEPTED);
    assert!(started.elapsed() >= Duration::from_millis(1500));
    assert_eq!(house.refused(Cause::Silent), 1);
    house.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn caps_hold_and_free_again() {
    let none = DoorConfig::default();
    for (config, proved, cause) in [
        (DoorConfig { connections_max: 5, ..none.clone() }, true, Cause::DoorFull),
        (DoorConfig { unproven_max: 5, ..none.clone() }, false, Cause::UnprovenFull),
        (DoorConfig { unproven_per_address_max: 5, ..none }, false, Cause::AddressFull),
    ] {
        let house = House::open(config).await;
        let hold = async |n: u8| {
            let mut stream = TcpStream::connect(house.addr).await.unwrap();
            stream.write_all(&connect(&agent(n).to_string())).await.unwrap();
            let mut connack = [0; 4];
            stream.read_exact(&mut connack).await.unwrap();
            stream
        };
        let mut held = Vec::new();
        // Whoever has proved who it is does not count among the others.
        for n in 0..if proved { 5 } else { 10 } {
            held.push(hold(n).await);
        }
        if proved {
            assert!(answer(house.addr, &[]).await.is_empty());
        } else {
            assert_eq!(house.registry.counters().values().unproven, 0);
            let before = house.registry.counters().values().bytes_in;
            for _ in 0..5 {
                let mut stream = TcpStream::connect(house.addr).await.unwrap();
                stream.write_all(&[0x10]).await.unwrap();
                held.push(stream);
            }
            // Each has been read from: it is the door that waits for them.
            let taken = |house: &House| {
                let values = house.registry.counters().values();
                (values.unproven, values.bytes_in) == (5, before + 5)
            };
            house.until("taken", taken).await;
            // Nobody is shut out by silence: the oldest of the silent ones gives way.
            let newcomer = async {
                let newcomer = hold(20).await;
                let oldest = held[10].read_to_end(&mut Vec::new()).await;
                assert_eq!(oldest.unwrap_or(0), 0);
                newcomer
            };
            let newcomer = timeout(PATIENCE, newcomer).await.unwrap();
            held.push(newcomer);
        }
        house.until("counted", |house| house.refused(cause) == 1).await;
        drop(held);
        let free = |house: &House| {
            let values = house.registry.counters().values();
            (values.connections, values.unproven) == (0, 0)
        };
        house.until("free", free).await;
        house.serves(agent(1)).await;
        house.close().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_packet_begun_has_to_be_finished() {
    let mut config = DoorConfig::default();
    config.timeouts.packet = Duration::from_millis(300);
    let house = House::open(config).await;
    let me = agent(1);
    let whole = publish(0x32, &topic::up(me), Some(1), b"counts");
    let mut stream = TcpStream::connect(house.addr).await.unwrap();
    stream.write_all(&connect(&me.to_string())).await.unwrap();
    // A byte now and then is not silence, and does not stretch the time either.
    let dribble = async {
        for byte in &whole[..whole.len() - 1] {
            if stream.write_all(&[*byte]).await.is_err() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        stream.read_to_end(&mut Vec::new()).await.ok();
    };
    timeout(PATIENCE, dribble).await.unwrap();
    house.until("counted", |house| house.refused(Cause::PacketTimeout) == 1).await;
    assert_eq!(house.registry.counters().values().messages_up, 0);
    house.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_sends_too_fast_is_slowed_and_loses_nothing() {
    let rates = Rates { packets: 50, packets_burst: 20, bytes: 1 << 20, bytes_burst: 1 << 20 };
    let house = House::open(DoorConfig { rates, ..DoorConfig::default() }).await;
    let me = agent(1);
    let burst = |n: usize| {
        let mut bytes = connect(&me.to_string());
        for _ in 0..n {
            bytes.extend(publish(0x32, &topic::up(me), Some(1), b"counts"));
        }
        [bytes, vec![0xe0, 0]].concat()
    };
    let begun = Instant::now();
    let slowed = || house.registry.counters().values().slowed;
    let acknowledged = async |n: usize| (answer(house.addr, &burst(n)).await.len() - 4) / 4;
    assert_eq!(acknowledged(20).await, 20);
    assert_eq!(slowed(), 0, "a burst is free");
    // A new connection is no new burst: of 60 packets in all, 40 have to wait, but for the time there was.
    for _ in 0..4 {
        assert_eq!(acknowledged(9).await, 9);
    }
    assert!(begun.elapsed() >= Duration::from_millis(400), "{:?}", begun.elapsed());
    assert_eq!(house.registry.counters().values().messages_up, 56);
    let before = slowed();
    assert!(before > 0);
    // Another does not wait for it.
    house.serves(agent(2)).await;
    assert_eq!(slowed(), before);
    house.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_has_no_more_than_its_share_on_the_way_and_others_go_on() {
    const SENT: usize = 3 * SHARE_MESSAGES;
    let registry = Registry::new(Arc::default());
    let (broker, mut incoming) =
        Broker::start(BrokerConfig::default(), Arc::clone(&registry)).unwrap();
    let rates =
        Rates { packets: 1 << 20, packets_burst: 1 << 20, bytes: 1 << 30, bytes_burst: 1 << 30 };
    let config = DoorConfig { rates, ..DoorConfig::default() };
    let any = "127.0.0.1:0".parse().unwrap();
    let door = FrontDoor::bind(any, config, broker.uplink(), Arc::clone(&registry), plain());
    let door = door.await.unwrap();
    let addr = door.local_addr();
    let (stop, stopped) = oneshot::channel();
    let door = tokio::spawn(door.run(async {
        stopped.await.ok();
    }));
    let flood = |me: AgentId, numbers: std::ops::Range<usize>| {
        let mut bytes = connect(&me.to_string());
        for n in numbers {
            bytes.extend(publish(0x32, &topic::up(me), Some(1), &n.to_be_bytes()));
        }
        bytes
    };
    let up = || registry.counters().values().messages_up as usize;
    let held_back = || registry.counters().values().held_back;
    // The intake is behind: it takes nothing.
    let mut loud = TcpStream::connect(addr).await.unwrap();
    loud.write_all(&flood(agent(1), 0..SENT)).await.unwrap();
    until(&registry, "the share is used up", || held_back() == 1).await;
    assert_eq!(up(), SHARE_MESSAGES);
    assert!(broker.up().credit_used_bytes < BrokerConfig::default().credit_up_bytes as u64 / 16);
    // Another is let in at once, and a new connection of the same agent has no share of its own.
    let mut quiet = TcpStream::connect(addr).await.unwrap();
    quiet.write_all(&flood(agent(2), 0..1)).await.unwrap();
    until(&registry, "the other is let in", || up() == SHARE_MESSAGES + 1).await;
    drop(loud);
    let mut loud = TcpStream::connect(addr).await.unwrap();
    loud.write_all(&flood(agent(1), SHARE_MESSAGES..SENT)).await.unwrap();
    until(&registry, "it is held back again", || held_back() == 2).await;
    assert_eq!(up(), SHARE_MESSAGES + 1);
    // The intake goes on: everything comes, in order, and as soon as there is room.
    let mut numbers = Vec::new();
    while numbers.len() < SENT {
        let message = timeout(PATIENCE, incoming.recv()).await.unwrap().unwrap();
        if message.agent == agent(1) {
            numbers.push(usize::from_be_bytes(message.payload[..].try_into().unwrap()));
        }
    }
    assert_eq!(numbers, (0..SENT).collect::<Vec<_>>(), "nothing is lost by waiting");
    drop((loud, quiet));
    until(&registry, "gone", || registry.is_empty()).await;
    stop.send(()).unwrap();
    door.await.unwrap();
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_that_push_each_other_off_are_told_of() {
    let entrance = plain();
    let me = agent(1);
    let key = banyan_shared::keys::SigningKey::from_seed(&[3; 32]).unwrap();
    entrance.roll.put(me, Standing::Admitted(key.public()));
    let roll = Arc::clone(&entrance.roll);
    let mut told = roll.contests();
    let house = House::behind(DoorConfig::default(), entrance).await;
    let mut before = None;
    for round in 0..6u8 {
        assert_eq!(roll.contest_of(me).is_some(), round > 4, "round {round}");
        let socket = TcpSocket::new_v4().unwrap();
        let address = [127, 0, 0, 1 + round % 2];
        socket.bind(SocketAddr::from((address, 0))).unwrap();
        let mut stream = socket.connect(house.addr).await.unwrap();
        stream.write_all(&connect(&me.to_string())).await.unwrap();
        let mut connack = [0; 4];
        stream.read_exact(&mut connack).await.unwrap();
        assert_eq!(connack, ACCEPTED);
        drop(before.replace(stream));
    }
    assert_eq!(told.try_recv(), Ok(me));
    let (_, contest) = roll.contest_of(me).unwrap();
    let addresses = [[127, 0, 0, 2], [127, 0, 0, 1]].map(IpAddr::from);
    assert_eq!(contest, Contest { addresses: addresses.to_vec(), take_overs: 4 });
    assert_eq!(house.registry.counters().values().contested, 1);
    drop(before);
    house.until("gone", |house| house.registry.is_empty()).await;
    house.close().await;
}

#[tokio::test]
async fn plain_mqtt_is_for_loopback_addresses_only() {
    let registry = Registry::new(Arc::default());
    let (broker, _incoming) =
        Broker::start(BrokerConfig::default(), Arc::clone(&registry)).unwrap();
    for addr in ["0.0.0.0:0", "[::]:0", "192.168.1.1:1883"] {
        let bound = FrontDoor::bind(
            addr.parse().unwrap(),
            DoorConfig::default(),
            broker.uplink(),
            Arc::clone(&registry),
            plain(),
        );
        let error = bound.await.err().unwrap();
        assert!(matches!(error, DoorError::NotLoopback { .. }), "{error}");
    }
    broker.stop().await;
}

/// Any packet a client may send, right or nearly so.
fn some_packet() -> impl Strategy<Value = Vec<u8>> {
    let me = agent(1);
    prop_oneof![
        Just(connect(&me.to_string())),
        (any::<u8>(), any::<u8>())
            .prop_map(|(level, flags)| { connect_with("MQTT", level, flags, 10, "ab0000000001") }),
        (0x30u8..0x40, any::<u16>(), prop::collection::vec(any::<u8>(), 0..40)).prop_map(
            move |(first, id, payload)| publish(first, &topic::up(me), Some(id), &payload)
        ),
        (any::<u8>()).prop_map(move |qos| subscribe(&[(&topic::down(me), qos)])),
        (any::<u8>(), prop::collection::vec(any::<u8>(), 0..20))
            .prop_map(|(first, body)| packet(first, &body)),
        prop::collection::vec(any::<u8>(), 0..30),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn no_bytes_upset_the_frame_reader(
        packets in prop::collection::vec(some_packet(), 1..6),
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
    ) {
        let mut bytes = packets.concat();
        for (at, value) in flips {
            if !bytes.is_empty() {
                let at = at.index(bytes.len());
                bytes[at] = value;
            }
        }
        let mut buffer = BytesMut::from(&bytes[..]);
        loop {
            let before = buffer.len();
            match frame::read(&mut buffer, 1000) {
                // Every packet takes at least two bytes, so this ends.
                Ok(Some(_)) => prop_assert!(buffer.len() + 2 <= before),
                Ok(None) => {
                    prop_assert_eq!(buffer.len(), before);
                    break;
                }
                Err(_) => break,
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_bytes_upset_a_session() {
    let house = House::open(DoorConfig::default()).await;
    let registry = Arc::clone(&house.registry);
    let shared = Shared::new(DoorConfig::default(), house.broker.uplink(), registry, plain());
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let strategy = prop::collection::vec(some_packet(), 0..8);
    for round in 0..500 {
        let mut bytes = if round % 4 == 0 { Vec::new() } else { connect(&agent(1).to_string()) };
        bytes.extend(strategy.new_tree(&mut runner).unwrap().current().concat());
        // The same session over another stream: this is where TLS goes.
        let (mut client, server) = tokio::io::duplex(64);
        let talk = async {
            let (mut reader, mut writer) = tokio::io::split(&mut client);
            let mut sink = tokio::io::sink();
            let write = async {
                writer.write_all(&bytes).await.ok();
                writer.shutdown().await.ok();
            };
            tokio::join!(write, tokio::io::copy(&mut reader, &mut sink)).1.ok();
        };
        let peer = Peer::plain(Instant::now() + PATIENCE);
        let session = session::serve(server, &peer, &shared);
        timeout(PATIENCE, async { tokio::join!(session, talk) }).await.expect("it ends");
    }
    house.serves(agent(2)).await;
    house.close().await;
}

mod over_tls;
