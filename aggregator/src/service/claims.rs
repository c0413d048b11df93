//! Claims of a stick's facilities: a second one, or one of a stick whose claims wait, is an operator's to decide.

use anyhow::Result;
use banyan_shared::catalogue::Lang;
use banyan_shared::ids::AgentId;
use serde::{Deserialize, Serialize};

use super::lists::rfc3339;
use super::{Service, say, usage};
use crate::act::Act;
use crate::state::{Claim, State};

/// A claim as operators see it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClaimRow {
    /// `waiting` or `refused`.
    pub state: String,
    /// The agent that claims.
    pub agent: String,
    /// The facility.
    pub facility: String,
    /// Its name.
    pub name: String,
    /// The number of the stick's code.
    pub code: u32,
    /// When it came.
    pub claimed_at: String,
    /// The agent that has the facility now.
    pub holder: Option<String>,
    /// When something of that one was last stored.
    pub holder_last_receipt: Option<String>,
    /// Whether that one is out.
    pub holder_revoked: bool,
}

/// What an operator decides about a claim.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DecideClaim {
    /// The agent that claims.
    pub agent: String,
    /// Whether it gets the facility.
    pub approve: bool,
    /// Whether it stands beside the agent that has the facility, instead of continuing its history.
    pub beside: bool,
    /// Language of messages.
    pub lang: Lang,
}

fn row(state: &State, agent: AgentId, claim: &Claim, lang: Lang) -> ClaimRow {
    let home = state.contexts.get(&claim.context).and_then(|context| context.facilities.first());
    let facility = home.map(ToString::to_string).unwrap_or_default();
    let day = state.catalogue.day_at(claim.claimed_at);
    let unit = state.organisation.unit(&facility);
    let holder = state.holder(claim.context).and_then(|id| Some((id, state.agents.get(&id)?)));
    ClaimRow {
        state: if claim.refused { "refused" } else { "waiting" }.to_owned(),
        agent: agent.to_string(),
        name: unit
            .map_or_else(String::new, |u| state.organisation.name_on(u, day, lang).to_owned()),
        facility,
        code: claim.code,
        claimed_at: rfc3339(state, claim.claimed_at),
        holder: holder.map(|(id, _)| id.to_string()),
        holder_last_receipt: holder
            .and_then(|(_, agent)| agent.last_receipt)
            .map(|at| rfc3339(state, at)),
        holder_revoked: holder.is_some_and(|(_, agent)| agent.revoked.is_some()),
    }
}

impl Service {
    /// Every claim that is not approved, those that wait first.
    pub fn claims(&self, lang: Lang) -> Vec<ClaimRow> {
        let state = self.state.read();
        let mut claims: Vec<_> = state.claims.iter().collect();
        claims.sort_by_key(|(_, claim)| (claim.refused, claim.claimed_at));
        claims.into_iter().map(|(agent, claim)| row(&state, *agent, claim, lang)).collect()
    }

    /// Approves or refuses a claim. The agent approved takes the place of the one that has the facility and
    /// goes on with its history, unless it is to stand beside it; it is told when it asks again.
    ///
    /// # Errors
    /// [`super::Usage`] if there is no such claim, or one to be approved is of an agent that is out, or what the
    /// disk says.
    pub async fn decide_claim(&self, by: &str, call: DecideClaim) -> Result<ClaimRow> {
        let lang = call.lang;
        let agent: AgentId =
            call.agent.parse().map_err(|e: banyan_shared::ids::InvalidId| usage(e.to_string()))?;
        let (told, tell) = tokio::sync::oneshot::channel();
        let build = move |state: &State| {
            let claim = state.claims.get(&agent).ok_or_else(|| {
                usage(say(
                    lang,
                    format!("没有终端 {agent} 的认领；用 enroll --claims 查看"),
                    format!("agent {agent} claims nothing: see enroll --claims"),
                ))
            })?;
            // Its admission would put the holder out and let nobody in.
            if call.approve && state.agents.get(&agent).is_some_and(|known| known.revoked.is_some())
            {
                return Err(usage(say(
                    lang,
                    format!("终端 {agent} 已注销，不能核准其认领；请在该机重新注册（新密钥）"),
                    format!(
                        "agent {agent} has been revoked, so its claim cannot be approved: enrol that PC anew, with a new key"
                    ),
                )));
            }
            let row = row(state, agent, claim, lang);
            let holder = state.holder(claim.context);
            // The receiver waits right below.
            let _ = told.send(row);
            if !call.approve {
                return Ok(vec![Act::ClaimRefused { agent }]);
            }
            let older = holder.filter(|holder| !call.beside && *holder != agent);
            let admitted = Act::Admitted {
                key: claim.key,
                code: claim.code,
                context: claim.context,
                machine: claim.machine,
                succeeds: older,
            };
            let out = older.map(|agent| Act::Revoked { agent });
            Ok([admitted].into_iter().chain(out).collect())
        };
        self.act(by, Box::new(build)).await?;
        let mut row = tell.await.map_err(|_| anyhow::anyhow!("the service is stopping"))?;
        row.state = if call.approve { "approved" } else { "refused" }.to_owned();
        Ok(row)
    }
}
