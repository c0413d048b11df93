//! Taking in bundles: an agent's messages that came in a file.
//!
//! Whoever brings a bundle lends it nothing: every message in it is judged by its own signature, as over a
//! line, and may come again over either way. The answer is as signed as any.

use std::sync::Arc;

use anyhow::{Context, Result, bail};
use banyan_shared::catalogue::Lang;
use banyan_shared::wire::{Answer, Bundle, EnrolRefusal, Envelope, Kind, Way};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use super::{Service, say, usage};
use crate::intake::{Ask, BundleRequest, Delivered};

/// Messages of a bundle, all of them or a part.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BundleCall {
    /// The file's name, for the log.
    pub file: String,
    /// The messages in order, base64.
    pub messages: Vec<String>,
    /// Language of messages.
    #[serde(default)]
    pub lang: Lang,
}

impl BundleCall {
    /// The messages.
    ///
    /// # Errors
    /// [`super::Usage`] if they are not base64.
    pub(crate) fn bundle(&self) -> Result<Bundle> {
        let decode = |text: &String| data_encoding::BASE64.decode(text.as_bytes());
        let messages = self.messages.iter().map(decode).collect::<Result<_, _>>();
        Ok(Bundle { messages: messages.map_err(|error| usage(error.to_string()))? })
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
    /// Messages for the agent, base64.
    pub answer: Vec<String>,
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
        self.answer.extend(later.answer);
        (self.agent, self.home, self.name) = (later.agent, later.home, later.name);
    }

    /// Whether all of it was taken in.
    pub fn is_whole(&self) -> bool {
        self.left_aside == 0 && !self.unknown && self.refusal.is_none()
    }
}

impl Service {
    /// Takes in messages of a bundle, and gives what there is to say to its agent.
    ///
    /// # Errors
    /// [`super::Usage`] if this is no agent's bundle, or that it could not be stored: what was not is not
    /// receipted.
    pub async fn import_bundle(self: &Arc<Self>, call: &BundleCall) -> Result<BundleTaken> {
        let bundle = call.bundle()?;
        let (agent, way) = bundle.heading().map_err(|error| usage(error.to_string()))?;
        if way == Way::Down {
            return Err(usage(say(
                call.lang,
                "这是给终端的回复，请在诊所用 banyan-agent bundle import 读入",
                "this is the answer to an agent: take it in at the clinic with banyan-agent bundle import",
            )));
        }
        let messages = bundle.messages.into_iter().map(Bytes::from).collect();
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
            unknown: known.is_none(),
            refusal: self.refusal_in(&delivered),
            // Whoever is not known here believes nothing that is said here.
            answer: match known {
                None if self.refusal_in(&delivered).is_none() => Vec::new(),
                _ => delivered.answer.iter().map(|m| data_encoding::BASE64.encode(m)).collect(),
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
