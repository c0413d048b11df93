//! A centre with thousands of enrolled agents that have reported nothing yet: who comes back all at once when
//! a cable is mended.

use std::path::Path;

use anyhow::{Result, bail};
use banyan_aggregator::identity::Identity;
use banyan_aggregator::init::{Sources, init_at};
use banyan_aggregator::ledger::Ledger;
use banyan_aggregator::service::{fold, ledger_dir};
use banyan_shared::catalogue::Lang;
use banyan_shared::ids::{ContextNumber, Millis};
use banyan_shared::keys::SigningKey;
use banyan_shared::organisation::UnitIx;

use crate::province::centre::{Applicant, Centre as History};

const DAY_MS: i64 = 86_400_000;

/// An enrolled agent.
pub struct Member {
    /// Its key.
    pub key: SigningKey,
    /// The context it reports under.
    pub context: ContextNumber,
}

impl std::fmt::Debug for Member {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Member").field("agent", &self.key.public().agent_id()).finish()
    }
}

/// A key that follows from a number.
///
/// # Errors
/// None that a seed could cause.
pub fn key(number: u32) -> Result<SigningKey> {
    let mut seed = [0x3c; 32];
    seed[..4].copy_from_slice(&number.to_le_bytes());
    Ok(SigningKey::from_seed(&seed)?)
}

/// Makes a data directory with the registry of Guizhou and `n` agents, each of one facility.
///
/// # Errors
/// What the disk says, or that there are not so many facilities.
pub fn enrolled(dir: &Path, n: usize) -> Result<Vec<Member>> {
    let now: Millis = jiff::Timestamp::now().into();
    let founded = now.plus(-2 * DAY_MS);
    let sources = Sources { catalogue: None, tables: Vec::new() };
    init_at(dir, &sources, "贵州省（模拟）", Lang::Zh, founded)?;
    let ledger = Ledger::open(&ledger_dir(dir))?;
    let state = fold(&ledger.reader()?, founded)?;
    let day = state.catalogue.day_at(now);
    let organisation = state.organisation.clone();
    let open = organisation.reporters().iter().filter(|unit| organisation.is_open(**unit, day));
    let homes: Vec<UnitIx> = open.copied().take(n).collect();
    if homes.len() < n {
        bail!("the registry has {} facilities, not {n}", homes.len());
    }
    let keys: Vec<SigningKey> = (0..u32::try_from(n)?).map(key).collect::<Result<_>>()?;
    let applicants: Vec<Applicant> = homes
        .iter()
        .zip(&keys)
        .map(|(home, key)| Applicant::alone(organisation.code(*home).clone(), key))
        .collect();
    let mut history = History::new(state, Identity::open(dir)?, ledger);
    let granted = history.enrol(&applicants, 0, founded.plus(DAY_MS))?;
    history.close(now)?;
    let contexts = granted.into_iter().map(|(context, _)| context);
    Ok(keys.into_iter().zip(contexts).map(|(key, context)| Member { key, context }).collect())
}
