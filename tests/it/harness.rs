//! The harness with the real aggregator: ready, killed, back on the same ports.

use banyan_tests::World;
use serde_json::json;

#[test]
fn an_aggregator_is_served_killed_and_served_again() {
    let world = World::new(None).unwrap();
    world.init(&[]).unwrap();
    let centre = world.serve().unwrap();
    let (mqtt, http) = (centre.mqtt(), centre.http());
    let one = json!({ "command": "enrol", "units": ["520502105-TH"], "expires_s": 3600 });
    let code = centre.call(&one).unwrap();
    let code: banyan_shared::wire::EnrolCode = code["code"].as_str().unwrap().parse().unwrap();
    assert_eq!(code.address, world.told_address(), "agents go by the line");
    assert!(centre.call(&json!({ "command": "no_such" })).is_err());
    centre.kill9().unwrap();

    let centre = world.serve_at(mqtt, http).unwrap();
    assert_eq!((centre.mqtt(), centre.http()), (mqtt, http));
    assert_eq!(centre.get("/v1/health").unwrap().status, 200);
    let verified = centre.call(&json!({ "command": "verify", "all": true })).unwrap();
    assert!(verified["agrees"] == true, "{verified}");
    centre.stop().unwrap();
}
