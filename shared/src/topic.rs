//! MQTT topics, built and read in one place: `banyan/v1/{agent}/up` and `banyan/v1/{agent}/down`.

use crate::ids::AgentId;

/// The filter that holds every agent's upward topic.
pub const UP_FILTER: &str = "banyan/v1/+/up";
/// The filter that holds every agent's downward topic.
pub const DOWN_FILTER: &str = "banyan/v1/+/down";

/// Which way a message goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the agent.
    Up,
    /// To the agent.
    Down,
}

/// The topic `agent` publishes to.
pub fn up(agent: AgentId) -> String {
    format!("banyan/v1/{agent}/up")
}

/// The topic `agent` listens to.
pub fn down(agent: AgentId) -> String {
    format!("banyan/v1/{agent}/down")
}

/// Whose topic this is and which way it goes; none if it is not one of ours.
pub fn parse(topic: &str) -> Option<(AgentId, Direction)> {
    let (agent, way) = topic.strip_prefix("banyan/v1/")?.split_once('/')?;
    let direction = match way {
        "up" => Direction::Up,
        "down" => Direction::Down,
        _ => return None,
    };
    let id: AgentId = agent.parse().ok()?;
    // One spelling only: capital digits would be a second name for the same agent.
    (id.to_string() == agent).then_some((id, direction))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_reads_back_and_has_one_spelling() {
        let agent = AgentId([0xab, 1, 2, 3, 4, 5]);
        assert_eq!(parse(&up(agent)), Some((agent, Direction::Up)));
        assert_eq!(parse(&down(agent)), Some((agent, Direction::Down)));
        for bad in [
            "banyan/v1/AB0102030405/up",
            "banyan/v1/+/up",
            "banyan/v1/ab0102030405",
            "banyan/v2/ab0102030405/up",
            "banyan/v1/ab0102030405/up/x",
        ] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }
}
