//! A state in parts, and a state put together from them.
//!
//! [`rest`] takes [`State`] apart field by field: a field added there does not compile here until someone has
//! said how it is kept, or why not.

use std::collections::BTreeMap;
use std::sync::Arc;

use banyan_shared::catalogue::CatalogueHash;
use banyan_shared::ids::{AgentId, ContextNumber, Epoch, Millis, Position, Seq, VersionId};
use banyan_shared::wire;
use serde::{Deserialize, Serialize};

use crate::cube::{Cube, Frame, Older};
use crate::state::{
    Agent, Claim, Code, Context, HeldCatalogue, History, KeyChange, Parked, RefusedEntry, State,
    build_organisation, load_catalogue,
};

/// The part of everything but agents and months.
pub(super) const REST: &str = "rest";
/// Into how many parts the agents are divided, by the first bits of their id: those of a part none of which
/// has sent anything are not written again.
const AGENT_PARTS: usize = 64;

#[derive(Serialize, Deserialize)]
pub(super) struct Rest {
    name: String,
    position: Position,
    newest: Option<Millis>,
    /// Compressed, in order of their hashes.
    catalogues: Vec<Vec<u8>>,
    catalogue: CatalogueHash,
    history: History,
    contexts: BTreeMap<ContextNumber, Arc<Context>>,
    codes: BTreeMap<u32, Code>,
    claims: BTreeMap<AgentId, Claim>,
    parked: BTreeMap<VersionId, Parked>,
    refused: BTreeMap<VersionId, RefusedEntry>,
    numbered: BTreeMap<(AgentId, Epoch), Seq>,
    key_changes: Vec<KeyChange>,
    cube: Frame,
}

/// Everything of a state but agents and the cube's blocks. The same state gives the same bytes.
pub(super) fn rest(state: &State) -> Vec<u8> {
    let State {
        name,
        heard: _, // since the start
        position,
        newest,
        catalogues,
        catalogue,
        tables: _,       // the newest of the history
        organisation: _, // built from the catalogue and the tables
        agents: _,       // parts of their own
        contexts,
        codes,
        claims,
        cube,
        parked,
        refused,
        history,
        numbered,
        key_changes,
    } = state;
    let in_order: BTreeMap<String, &HeldCatalogue> =
        catalogues.iter().map(|(hash, held)| (hash.to_string(), held)).collect();
    wire::encode(&Rest {
        name: name.clone(),
        position: *position,
        newest: *newest,
        catalogues: in_order.into_values().map(|held| held.compressed.clone()).collect(),
        catalogue: catalogue.hash,
        history: history.clone(),
        contexts: contexts.iter().map(|(number, context)| (*number, context.clone())).collect(),
        codes: codes.iter().map(|(number, code)| (*number, code.clone())).collect(),
        claims: claims.clone(),
        parked: parked.clone(),
        refused: refused.clone(),
        numbered: numbered.clone(),
        key_changes: key_changes.clone(),
        cube: cube.frame(),
    })
}

/// The state of a part made by [`rest`], without agents and with every month in `older`; none if it is not
/// one.
pub(super) fn read_rest(bytes: &[u8], older: Arc<dyn Older>) -> Option<State> {
    let Rest {
        name,
        position,
        newest,
        catalogues: compressed,
        catalogue,
        history,
        contexts,
        codes,
        claims,
        parked,
        refused,
        numbered,
        key_changes,
        cube,
    } = wire::decode(bytes).ok()?;
    let mut catalogues = std::collections::HashMap::new();
    for compressed in compressed {
        let catalogue = Arc::new(load_catalogue(&compressed).ok()?);
        catalogues.insert(catalogue.hash, HeldCatalogue { catalogue, compressed });
    }
    let catalogue = catalogues.get(&catalogue)?.catalogue.clone();
    let tables = history.tables();
    let organisation = build_organisation(&catalogue, &tables, &history.extended()).ok()?;
    let organisation = Arc::new(organisation);
    Some(State {
        name,
        heard: 0,
        position,
        newest,
        catalogues,
        catalogue,
        tables,
        organisation,
        agents: BTreeMap::new(),
        contexts: contexts.into_iter().collect(),
        codes: codes.into_iter().collect(),
        claims,
        cube: Cube::of_frame(cube, older),
        parked,
        refused,
        history,
        numbered,
        key_changes,
    })
}

fn agent_part(id: &AgentId) -> usize {
    usize::from(id.0[0]) * AGENT_PARTS / 256
}

/// The names of the agents' parts.
pub(super) fn agent_names() -> impl Iterator<Item = String> {
    (0..AGENT_PARTS).map(|number| format!("agents/{number}"))
}

/// The agents in their parts, one after the other.
pub(super) fn agents(state: &State) -> impl Iterator<Item = (String, Vec<u8>)> {
    agent_names().enumerate().map(|(number, name)| {
        let of_part: Vec<(&AgentId, &Agent)> =
            state.agents.iter().filter(|(id, _)| agent_part(id) == number).collect();
        (name, wire::encode(&of_part))
    })
}

/// The agents of a part; none if it is not one.
pub(super) fn read_agents(bytes: &[u8]) -> Option<Vec<(AgentId, Agent)>> {
    wire::decode(bytes).ok()
}

#[cfg(test)]
impl Rest {
    /// One of everything whose bytes are decided here.
    pub(super) fn example() -> Rest {
        use banyan_shared::codes::{ParkReason, Refusal};
        use banyan_shared::report::{Content, EnteredAt, How, Reason, Value};
        let id =
            VersionId { writer: AgentId([7; 6]), epoch: Epoch { counter: 1, random: 2 }, seq: 3 };
        let content = Content {
            values: vec![Value::Number(300), Value::Missing, Value::NotApplicable],
            how: How::Proxy,
            entered_by: Some("n1".into()),
            reason: Some(Reason::Typo),
            override_code: None,
            withdrawn: false,
            entered_at: EnteredAt { minute: 9, doubtful: true },
            replaces: vec![id],
        };
        let period = "2026-01-05".parse().unwrap();
        let version = crate::cube::AcceptedVersion {
            facility: "A".parse().unwrap(),
            form: banyan_shared::catalogue::FormIx(0),
            period,
            id,
            content,
            received_at: Millis(60_000),
            position: 4,
        };
        let catalogue = CatalogueHash([1; 32]);
        let parked = Parked {
            id,
            facility: "A".parse().unwrap(),
            version,
            catalogue,
            reason: ParkReason::FuturePeriod,
        };
        let refused = RefusedEntry {
            facility: None,
            form: Some("daily".into()),
            period: Some(period),
            refusal: Refusal::Malformed,
            received_at: Millis(5),
        };
        let below = crate::act::Below { unit: "T1".parse().unwrap(), kind: None };
        let context =
            Context { catalogue, facilities: vec!["A".parse().unwrap()], below: vec![below] };
        let code = Code {
            secret: [3; 16],
            contexts: vec![1],
            uses: 1,
            expires: Millis(8),
            used: vec![(id.writer, 1)],
            approve: true,
            replaces: Some(id.writer),
        };
        let signer = banyan_shared::keys::SigningKey::from_seed(&[5; 32]).unwrap();
        let key = signer.public();
        let certified =
            |serial| banyan_shared::keys::Certificate::issue(&signer, key, serial, Millis(5));
        let change = KeyChange {
            position: 3,
            at: Millis(7),
            certificate: certified(2),
            before: certified(1),
        };
        let claim =
            Claim { key, code: 1, context: 1, machine: 2, claimed_at: Millis(9), refused: false };
        Rest {
            name: "centre".into(),
            position: 4,
            newest: Some(Millis(60_000)),
            catalogues: vec![vec![1, 2]],
            catalogue,
            history: History::example(),
            contexts: [(1, Arc::new(context))].into(),
            codes: [(1, code)].into(),
            claims: [(id.writer, claim)].into(),
            parked: [(id, parked)].into(),
            refused: [(id, refused)].into(),
            numbered: [((id.writer, id.epoch), 3)].into(),
            key_changes: vec![change],
            cube: super::tests::cube().frame(),
        }
    }
}
