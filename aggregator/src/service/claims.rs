//! Deciding claims: second claims of a facility on a stick, and claims by sticks that ask for approval.

use anyhow::Result;
use banyan_shared::catalogue::Lang;
use banyan_shared::ids::AgentId;
use serde::{Deserialize, Serialize};

use super::lists::rfc3339;
use super::{Service, say, usage};
use crate::act::Act;
use crate::state::State;

/// What an operator decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Decision {
    /// The claimant takes the place of whoever has the facility, and goes on with its history.
    Replace,
    /// The claimant reports beside whoever has the facility.
    Beside,
    /// The claim is refused.
    Refuse,
}

/// A claim that waits.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ClaimRow {
    /// The agent that asks.
    pub agent: String,
    /// The facility.
    pub facility: String,
    /// Its name.
    pub name: String,
    /// Its place, as names from the top.
    pub path: String,
    /// A fingerprint of the machine that asks.
    pub machine: String,
    /// When it asked.
    pub claimed_at: String,
    /// The agent that has the facility now; empty if none has.
    pub holder: String,
    /// When that one was last heard of.
    pub holder_last_receipt: Option<String>,
}

/// What became of a claim.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Decided {
    /// The agent that asked.
    pub agent: String,
    /// The facility.
    pub facility: String,
    /// Whether it was granted.
    pub granted: bool,
    /// The agent whose history it goes on with, which is out now; empty if none.
    pub replaced: String,
}

impl Service {
    /// The claims that wait, the oldest first.
    pub fn claims(&self, lang: Lang) -> Vec<ClaimRow> {
        let state = self.state.read();
        let day = state.catalogue.day_at(self.now());
        let mut claims: Vec<_> = state.claims.waiting.iter().collect();
        claims.sort_by_key(|(id, claim)| (claim.at, **id));
        let row = |(id, claim): (&AgentId, &crate::state::Claim)| {
            let home = state.home_of(claim.context);
            let unit = home.and_then(|home| state.organisation.unit(home.as_str()));
            let holder = home.and_then(|home| state.holder_of(home));
            let heard = holder.and_then(|holder| state.agents[&holder].last_receipt);
            ClaimRow {
                agent: id.to_string(),
                facility: home.map(ToString::to_string).unwrap_or_default(),
                name: unit.map_or_else(String::new, |unit| {
                    state.organisation.name_on(unit, day, lang).to_owned()
                }),
                path: unit.map_or_else(String::new, |unit| {
                    let path = state.organisation.path(unit, day).into_iter();
                    let names = path.map(|at| state.organisation.name_on(at, day, lang));
                    names.collect::<Vec<_>>().join(" › ")
                }),
                machine: format!("{:016x}", claim.machine),
                claimed_at: rfc3339(&state, claim.at),
                holder: holder.map(|holder| holder.to_string()).unwrap_or_default(),
                holder_last_receipt: heard.map(|at| rfc3339(&state, at)),
            }
        };
        claims.into_iter().map(row).collect()
    }

    /// Decides a claim that waits. The agent learns it when it asks again.
    ///
    /// # Errors
    /// [`super::Usage`] if no such claim waits, or what the disk says.
    pub async fn decide_claim(
        &self,
        by: &str,
        agent: AgentId,
        decision: Decision,
        lang: Lang,
    ) -> Result<Decided> {
        let (told, tell) = tokio::sync::oneshot::channel();
        let build = move |state: &State| {
            let Some(claim) = state.claims.waiting.get(&agent) else {
                return Err(usage(say(
                    lang,
                    format!("没有终端 {agent} 的待核准认领；用 enroll --claims 查看"),
                    format!("no claim of agent {agent} waits: see enroll --claims"),
                )));
            };
            let home = state.home_of(claim.context).cloned();
            let holder = home.as_ref().and_then(|home| state.holder_of(home));
            let replaced = holder.filter(|_| decision == Decision::Replace);
            let mut acts = Vec::new();
            if decision == Decision::Refuse {
                acts.push(Act::ClaimRefused { agent });
            } else {
                acts.push(Act::Admitted {
                    key: claim.key,
                    code: claim.code,
                    context: claim.context,
                    machine: claim.machine,
                    succeeds: replaced,
                });
                acts.extend(replaced.map(|agent| Act::Revoked { agent }));
            }
            // The receiver waits right below.
            let _ = told.send(Decided {
                agent: agent.to_string(),
                facility: home.map(|home| home.to_string()).unwrap_or_default(),
                granted: decision != Decision::Refuse,
                replaced: replaced.map(|agent| agent.to_string()).unwrap_or_default(),
            });
            Ok(acts)
        };
        self.act(by, Box::new(build)).await?;
        Ok(tell.await?)
    }
}
