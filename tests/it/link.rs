//! The agent's link against the aggregator's front door: real sockets, the real router.

use std::sync::Arc;
use std::time::Duration;

use banyan_agent::link::{DownReason, Link, LinkConfig, LinkEvent};
use banyan_aggregator::broker::{Broker, BrokerConfig};
use banyan_aggregator::front_door::{DoorConfig, Entrance, FrontDoor, Registry};
use banyan_aggregator::service::system_clock;
use banyan_shared::ids::AgentId;
use banyan_shared::limits::PAYLOAD_BYTES_MAX;
use banyan_tests::kept_address;
use tokio::sync::oneshot;
use tokio::time::timeout;

async fn next(link: &mut Link) -> LinkEvent {
    timeout(Duration::from_secs(15), link.events.recv()).await.expect("in time").expect("an event")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_link_carries_messages_both_ways_and_ends_with_a_reason() {
    let registry = Registry::new(Arc::default());
    let (broker, mut incoming) =
        Broker::start(BrokerConfig::default(), Arc::clone(&registry)).unwrap();
    // Nobody else is given it once the door has gone.
    let addr = kept_address().unwrap();
    let entrance = Entrance { roll: Arc::default(), tls: None, clock: system_clock() };
    let config = DoorConfig::default();
    let door = FrontDoor::bind(addr, config, broker.uplink(), Arc::clone(&registry), entrance)
        .await
        .unwrap();
    let addr = door.local_addr().to_string();
    let (stop, stopped) = oneshot::channel::<()>();
    let door = tokio::spawn(door.run(async {
        stopped.await.ok();
    }));
    let down = broker.downlink();
    let echo = tokio::spawn(async move {
        while let Some(message) = incoming.recv().await {
            down.publish_down(message.agent, message.payload).unwrap();
        }
    });

    let agent = AgentId([1, 2, 3, 4, 5, 6]);
    let mut first = Link::connect(LinkConfig::new(&addr, agent)).unwrap();
    assert_eq!(next(&mut first).await, LinkEvent::Up);
    for bytes in [1, 1000, PAYLOAD_BYTES_MAX] {
        let payload = vec![0xa5; bytes];
        first.publish(payload.clone()).await.unwrap();
        assert_eq!(next(&mut first).await, LinkEvent::Message(payload));
    }

    // A second connection of the same agent takes the place of the first.
    let mut second = Link::connect(LinkConfig::new(&addr, agent)).unwrap();
    assert_eq!(next(&mut second).await, LinkEvent::Up);
    assert!(matches!(next(&mut first).await, LinkEvent::Down(DownReason::Network(_))));
    second.publish(b"still here".to_vec()).await.unwrap();
    assert_eq!(next(&mut second).await, LinkEvent::Message(b"still here".to_vec()));

    // The aggregator goes; the next link finds nobody.
    stop.send(()).unwrap();
    door.await.unwrap();
    assert!(matches!(next(&mut second).await, LinkEvent::Down(DownReason::Network(_))));
    let mut third = Link::connect(LinkConfig::new(&addr, agent)).unwrap();
    assert!(matches!(next(&mut third).await, LinkEvent::Down(DownReason::Network(_))));
    broker.stop().await;
    echo.await.unwrap();
}
