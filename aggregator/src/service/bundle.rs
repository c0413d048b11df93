//! Taking in bundles: an agent's messages that came in a file.
//!
//! Whoever brings a bundle lends it nothing: every message in it is judged by its own signature, as over a
//! line, and may come again over either way. The answer is as signed as any.

use std::sync::Arc;

use anyhow::{Context, Result, bail};
use banyan_shared::catalogue::Lang;
use banyan_shared::ids::AgentId;
use banyan_shared::limits::BUNDLE_BYTES_MAX;
use banyan_shared::wire::{Answer, Bundle, EnrolRefusal, Envelope, Kind, Message, Way, WireError};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use super::{Service, say, usage};
use crate::intake::{Ask, BundleRequest, Delivered};

/// Most bytes of messages in one request: nothing else is taken in meanwhile.
const REQUEST_BYTES_MAX: usize = 4 << 20;
/// Most bytes of messages in an answer: half of what an agent reads, lengths and all.
const ANSWER_BYTES_MAX: usize = BUNDLE_BYTES_MAX / 2;

/// Messages of a bundle, all of them or a part.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BundleCall {
    /// The file's name, for the log.
    pub file: String,
    /// The messages in order, base64.
    pub messages: Vec<Message>,
    /// Language of messages.
    #[serde(default)]
    pub lang: Lang,
}

impl BundleCall {
    /// Whose messages they say they are, and which way they go.
    ///
    /// # Errors
    /// As [`Bundle::heading`].
    pub(crate) fn heading(&self) -> Result<(AgentId, Way), WireError> {
        Bundle::heading_of(self.messages.iter().map(|Message(bytes)| bytes.as_slice()))
    }
}

/// What came of messages of a bundle.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct BundleTaken {
    /// The agent.
    pub agent: String,
    /// Its home, if it is known here.
    pub home: Option<String>,
    /// The home's name.
    pub name: Option<String>,
    /// Entries put into the ledger.
    pub new: u64,
    /// Entries that had come before.
    pub known: u64,
    /// Entries refused.
    pub refused: u64,
    /// Entries whose number is held with other content: two machines use one identity.
    pub reused: u64,
    /// Messages left aside: malformed, or not signed by whom they name.
    pub left_aside: u64,
    /// Whether the agent is not known here, and nothing in the bundle makes it known.
    pub unknown: bool,
    /// Why the agent is not accepted.
    pub refusal: Option<EnrolRefusal>,
    /// Batches of scopes the agent has no grant for here, and brought none.
    pub without_grant: u64,
    /// Answers that had no room.
    pub unsaid: u64,
    /// Messages for the agent, base64.
    pub answer: Vec<Message>,
}

impl BundleTaken {
    /// Adds what came of the next part of the same bundle.
    pub fn merge(&mut self, later: BundleTaken) {
        self.new += later.new;
        self.known += later.known;
        self.refused += later.refused;
        self.reused += later.reused;
        self.left_aside += later.left_aside;
        self.unknown |= later.unknown;
        self.refusal = self.refusal.or(later.refusal);
        self.without_grant += later.without_grant;
        self.unsaid += later.unsaid;
        let mut bytes: usize = self.answer.iter().map(|Message(bytes)| bytes.len()).sum();
        for message in later.answer {
            bytes += message.0.len();
            if bytes > ANSWER_BYTES_MAX {
                self.unsaid += 1;
            } else {
                self.answer.push(message);
            }
        }
        (self.agent, self.home, self.name) = (later.agent, later.home, later.name);
    }

    /// Whether all of it was taken in.
    pub fn is_whole(&self) -> bool {
        let all = [self.left_aside, self.without_grant, self.unsaid] == [0; 3];
        all && !self.unknown && self.refusal.is_none()
    }
}

impl Service {
    /// Takes in messages of a bundle, and gives what there is to say to its agent.
    ///
    /// # Errors
    /// [`super::Usage`] if this is no agent's bundle, or that it could not be stored: what was not is not
    /// receipted.
    pub async fn import_bundle(self: &Arc<Self>, call: &BundleCall) -> Result<BundleTaken> {
        let (agent, way) = call.heading().map_err(|error| usage(error.to_string()))?;
        let bytes: usize = call.messages.iter().map(|Message(bytes)| bytes.len()).sum();
        if bytes > REQUEST_BYTES_MAX {
            return Err(usage(say(
                call.lang,
                format!("一次请求最多 {REQUEST_BYTES_MAX} 字节消息，本次 {bytes}；请分几次提交"),
                format!(
                    "one request takes {REQUEST_BYTES_MAX} bytes of messages, not {bytes}: send them in parts"
                ),
            )));
        }
        if way == Way::Down {
            return Err(usage(say(
                call.lang,
                "这是给终端的回复，请在诊所用 banyan-agent bundle import 读入",
                "this is the answer to an agent: take it in at the clinic with banyan-agent bundle import",
            )));
        }
        let messages =
            call.messages.iter().map(|Message(bytes)| Bytes::copy_from_slice(bytes)).collect();
        let (reply, done) = oneshot::channel();
        let request = BundleRequest { agent, messages, reply };
        if self.acts.send(Ask::Bundle(request)).await.is_err() {
            bail!("the service is stopping");
        }
        let delivered = done.await.context("the service is stopping")?;
        if delivered.count("failed_commits") > 0 {
            bail!(say(
                call.lang,
                "账本写入失败（磁盘？），未给出回执；排除故障后可再导入同一文件",
                "the ledger could not be written (the disk?), and nothing of it was receipted; import the same file \
                 again once mended",
            ));
        }
        let state = self.state.read();
        let known = state.agents.get(&agent);
        let context = known.and_then(|known| state.contexts.get(&known.newest));
        let home = context.and_then(|context| context.facilities.first());
        let name = home.and_then(|home| state.organisation.unit(home.as_str())).map(|unit| {
            let day = state.catalogue.day_at(self.now());
            state.organisation.name_on(unit, day, call.lang).to_owned()
        });
        Ok(BundleTaken {
            agent: agent.to_string(),
            home: home.map(ToString::to_string),
            name,
            new: delivered.count("entries"),
            known: delivered.count("repeated"),
            refused: delivered.count("refused"),
            reused: delivered.count("reused"),
            left_aside: delivered.count("malformed") + delivered.count("bad_signature"),
            without_grant: known.map_or(0, |_| delivered.count("unknown_agent")),
            unsaid: delivered.count("not_taken"),
            unknown: known.is_none(),
            refusal: self.refusal_in(&delivered),
            // Whoever is not known here believes nothing that is said here.
            answer: match known {
                None if self.refusal_in(&delivered).is_none() => Vec::new(),
                _ => delivered.answer.iter().map(|message| Message(message.to_vec())).collect(),
            },
        })
    }

    /// Why the agent was told that it is not accepted, if it was.
    fn refusal_in(&self, delivered: &Delivered) -> Option<EnrolRefusal> {
        delivered.answer.iter().find_map(|message| {
            let envelope = Envelope::read(message).ok()?;
            if envelope.kind != Kind::Answer {
                return None;
            }
            match Answer::open(&envelope, &self.identity.root).ok()?.0 {
                Answer::NotEnrolled { refusal } => Some(refusal),
                _ => None,
            }
        })
    }
}
