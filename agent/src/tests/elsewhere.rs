//! The broker an agent is told of.

use banyan_shared::wire::Answer;

use super::*;

#[test]
fn the_broker_told_of_is_dialled_next_and_only_by_whom_it_takes() {
    let dir = tempfile::tempdir().unwrap();
    let mut centre = Centre::new();
    let (mut core, _clock) = enrolled(dir.path(), &centre);
    let home = core.identity().address().to_owned();
    let agent = core.identity().agent();
    let dialled = |core: &mut Core| core.link_config().unwrap().address;
    assert_eq!(dialled(&mut core), home);
    centre.connect(&mut core);

    let tell = |core: &mut Core, centre: &Centre, address: &str| {
        assert_eq!(dialled(core), home);
        core.connected().unwrap();
        let told = centre.answer(agent, &Answer::Elsewhere { address: address.to_owned() });
        core.received(&told).unwrap();
        core.disconnected().unwrap();
    };
    // What does not read is left aside.
    tell(&mut core, &centre, "nowhere");
    assert_eq!(core.identity().broker(), None);
    // One that speaks TLS wants a certificate by the centre, which this agent has not.
    tell(&mut core, &centre, "broker.example.org:8883");
    assert_eq!(core.identity().broker(), Some("broker.example.org:8883"));
    tell(&mut core, &centre, "mqtt://127.0.0.1:1884");
    drop(core);

    // It outlives a restart, and a broker that answers nothing leaves the next turn to the door.
    let mut core = Core::open(options(dir.path(), 1).0).unwrap();
    assert_eq!(dialled(&mut core), "mqtt://127.0.0.1:1884");
    core.not_authorised().unwrap();
    core.disconnected().unwrap();
    assert_eq!(core.refusal(), None, "a broker's word is not the centre's");
    assert_eq!(dialled(&mut core), home);
    core.disconnected().unwrap();
    assert_eq!(dialled(&mut core), "mqtt://127.0.0.1:1884");
    core.disconnected().unwrap();
    // The centre's door answers a hello and does not name it any more.
    assert_eq!(dialled(&mut core), home);
    centre.connect(&mut core);
    assert_eq!(core.identity().broker(), None);
}
