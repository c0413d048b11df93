use super::*;
use crate::front_door::Counters;

fn agent(n: u8) -> AgentId {
    AgentId([n, 0, 0, 0, 0, n])
}

fn start(config: BrokerConfig) -> (Broker, mpsc::Receiver<Incoming>) {
    Broker::start(config, Registry::new(Arc::new(Counters::default()))).unwrap()
}

async fn until(what: &str, condition: impl Fn() -> bool) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(60);
    while !condition() {
        assert!(tokio::time::Instant::now() < deadline, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// The least credit and the least log that may hold it.
fn small() -> BrokerConfig {
    BrokerConfig {
        segment_bytes: 64 * 1024,
        segments: 7,
        credit_up_bytes: 300 * 1024,
        credit_down_bytes: 300 * 1024,
        ..BrokerConfig::default()
    }
}

#[test]
fn sizes_that_could_skip_are_refused() {
    let config = BrokerConfig { credit_up_bytes: 16 * 1024 * 1024 + 1, ..BrokerConfig::default() };
    let error = Broker::start(config, Registry::new(Arc::default())).err().unwrap();
    assert_eq!(
        error.to_string(),
        "broker: credit_up_bytes is 16777217 bytes, allowed are 262208 to 16777216"
    );
    // Less than one message of the largest size: it would wait for ever.
    let config = BrokerConfig { credit_down_bytes: 1000, ..BrokerConfig::default() };
    assert!(Broker::start(config, Registry::new(Arc::default())).is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_intake_skips_nothing() {
    const SENDERS: u8 = 4;
    const EACH: u32 = 30_000;
    let (broker, mut incoming) = start(small());
    for n in 0..SENDERS {
        let uplink = broker.uplink();
        tokio::spawn(async move {
            for number in 0..EACH {
                let mut payload = vec![n; 36];
                payload.extend(number.to_be_bytes());
                uplink.send(agent(n), payload.into(), None).await.unwrap();
            }
        });
    }
    let mut next = [0; SENDERS as usize];
    let mut behind_max = 0;
    for count in 0..u32::from(SENDERS) * EACH {
        let message = incoming.recv().await.unwrap();
        let n = message.payload[0];
        assert_eq!(message.agent, agent(n));
        assert_eq!(message.payload[36..], u32::to_be_bytes(next[usize::from(n)]));
        next[usize::from(n)] += 1;
        // Slower than the senders: they fill all the credit there is.
        if count % 2_000 == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
            behind_max = behind_max.max(broker.up().credit_used_bytes);
        }
    }
    assert_eq!(next, [EACH; SENDERS as usize]);
    let values = broker.up();
    assert_eq!((values.skipped, values.delivered), (0, 120_000));
    assert!(behind_max > 250 * 1024, "the intake was never behind: {behind_max}");
    until("all credit back", || broker.up().credit_used_bytes == 0).await;
    broker.stop().await;
}

/// The router and one lane, so that a test can reach inside.
fn router(
    config: &BrokerConfig,
) -> impl Fn(&'static str) -> Result<(LinkTx, LinkRx), BrokerError> + use<> {
    let router = Router::new(
        0,
        RouterConfig {
            max_connections: 5,
            max_outgoing_packet_count: READ_MESSAGES_MAX,
            max_segment_size: config.segment_bytes,
            max_segment_count: config.segments,
            initialized_filters: Some(vec![UP_FILTER.to_owned(), DOWN_FILTER.to_owned()]),
            ..RouterConfig::default()
        },
    )
    .spawn();
    move |link| {
        Ok(LinkBuilder::new(link, router.clone()).build().map(|(tx, rx, _)| (tx, rx)).unwrap())
    }
}

const HALF: Half =
    Half { publish_link: "in", drain_link: "out", filter: UP_FILTER, direction: Direction::Up };

#[tokio::test]
async fn a_skip_is_counted_and_its_credit_comes_back() {
    // Credit for far more than the log holds, and a reader that waits: what the checks forbid.
    let config = BrokerConfig { segment_bytes: 4096, segments: 2, ..BrokerConfig::default() };
    let fault = watch::Sender::new(None);
    let mut threads = Vec::new();
    let (go, wait) = std::sync::mpsc::channel::<()>();
    let mut waited = false;
    let lane = HALF
        .start(&router(&config), 1 << 20, &fault, &mut threads, move |_, _, permit| {
            if !waited {
                wait.recv().unwrap();
                waited = true;
            }
            drop(permit);
            true
        })
        .unwrap();
    let uplink = Uplink(lane.clone());
    for _ in 0..2_000 {
        uplink.send(agent(1), Bytes::from_static(&[7; 100]), None).await.unwrap();
    }
    until("all published", || lane.values().published == 2_000).await;
    go.send(()).unwrap();
    // One more, so that the reader meets the gap if it lies at the end.
    uplink.send(agent(1), Bytes::from_static(b"last"), None).await.unwrap();
    until("credit back", || lane.values().credit_used_bytes == 0).await;
    let values = lane.values();
    assert!(values.skipped > 0, "{values:?}");
    assert_eq!(values.skipped + values.delivered, 2_001);
    assert_eq!(*fault.borrow(), None);
    lane.queue.send(Item::Stop).await.unwrap();
    tokio::task::spawn_blocking(move || threads.into_iter().for_each(|t| t.join().unwrap()))
        .await
        .unwrap();
}

#[tokio::test]
async fn a_dead_router_is_a_fault() {
    let connect = router(&BrokerConfig::default());
    let fault = watch::Sender::new(None);
    let mut threads = Vec::new();
    let lane = HALF.start(&connect, 1 << 20, &fault, &mut threads, |_, _, _| true).unwrap();
    // The one known way to end a router: `ready` for a link that is gone.
    let (mut tx, rx) = connect("killer").unwrap();
    end_link(&mut tx);
    rx.ready().unwrap();
    let mut faults = fault.subscribe();
    let told = tokio::time::timeout(Duration::from_secs(10), faults.wait_for(Option::is_some));
    assert!(matches!(told.await.unwrap().unwrap().as_ref(), Some(BrokerFault::LinkGone(..))));
    // Nobody waits for ever on a lane that is gone.
    let uplink = Uplink(lane);
    while uplink.send(agent(1), Bytes::new(), None).await.is_ok() {}
}

#[tokio::test]
async fn the_watchdog_goes_round_and_notices_silence() {
    // Two rounds have to be longer than a busy machine leaves a thread waiting.
    let config = BrokerConfig { watchdog: Duration::from_secs(1), ..BrokerConfig::default() };
    let (broker, _incoming) = start(config);
    until("pings", || broker.up().pings > 1 && broker.down().pings > 1).await;
    assert_eq!(*broker.fault.borrow(), None);
    broker.stop().await;

    // A lane nothing comes out of.
    let (queue, _items) = mpsc::channel(4);
    let credit = Arc::new(Semaphore::new(1));
    let lane = Lane { queue, credit, credit_bytes: 1, counters: Arc::default() };
    let fault = watch::Sender::new(None);
    let (_running, stop) = std::sync::mpsc::channel();
    let told = fault.clone();
    tokio::task::spawn_blocking(move || {
        watch_router(&[lane], Duration::from_millis(5), &stop, &told);
    })
    .await
    .unwrap();
    assert_eq!(*fault.borrow(), Some(BrokerFault::Silent));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stopping_lets_out_what_was_handed_over() {
    let (broker, mut incoming) = start(BrokerConfig::default());
    let (uplink, downlink) = (broker.uplink(), broker.downlink());
    for n in 0..200 {
        uplink.send(agent(n), Bytes::copy_from_slice(&[n]), None).await.unwrap();
    }
    broker.stop().await;
    for n in 0..200 {
        let message = incoming.recv().await.unwrap();
        assert_eq!((message.agent, &message.payload[..]), (agent(n), &[n][..]));
    }
    assert!(incoming.recv().await.is_none());
    assert_eq!(uplink.send(agent(1), Bytes::new(), None).await, Err(BrokerEnded));
    assert_eq!(downlink.publish_down(agent(1), Bytes::new()), Err(DownError::Closed));
}

#[tokio::test]
async fn the_way_down_tells_when_it_is_full() {
    let config = small();
    let fault = watch::Sender::new(None);
    let mut threads = Vec::new();
    let (go, wait) = std::sync::mpsc::channel::<()>();
    let lane = HALF
        .start(&router(&config), config.credit_down_bytes, &fault, &mut threads, move |_, _, _| {
            // An error means that the test is over.
            wait.recv().is_ok()
        })
        .unwrap();
    let large = Bytes::from(vec![0; PAYLOAD_BYTES_MAX]);
    assert_eq!(publish_down(&lane, agent(1), large.clone()), Ok(()));
    assert_eq!(publish_down(&lane, agent(1), large.clone()), Err(DownError::Full));
    go.send(()).unwrap();
    until("credit back", || lane.values().credit_used_bytes == 0).await;
    assert_eq!(publish_down(&lane, agent(1), large), Ok(()));
    let larger = Bytes::from(vec![0; PAYLOAD_BYTES_MAX + 1]);
    assert_eq!(
        publish_down(&lane, agent(1), larger),
        Err(DownError::TooLarge { bytes: PAYLOAD_BYTES_MAX + 1 })
    );
}
