//! Looking after the store: verify, back up, restore.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, bail};
use banyan_shared::ids::Millis;
use banyan_shared::keys::PublicKey;
use banyan_shared::wire::Envelope;
use serde::{Deserialize, Serialize};

use super::{Service, ledger_dir};
use crate::access::Access;
use crate::derived::Derived;
use crate::fold::{Limits, fold_aside};
use crate::identity::{self, Begun, Identity, make_home};
use crate::intake::verify_act;
use crate::ledger::{
    BackupSummary, LedgerError, Member, RowKind, check_backup, make_dir, restore_with,
};
use crate::state::{State, StateError, signer_at};

/// What a verification found.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct VerifyReport {
    /// Whether everything agrees.
    pub agrees: bool,
    /// The last position looked at.
    pub position: u64,
    /// The first position whose signature was checked.
    pub signatures_from: u64,
    /// How many signatures were checked.
    pub signatures: u64,
    /// Reports counted.
    pub reports: u64,
    /// What disagrees, the first things first.
    pub differences: Vec<String>,
}

/// Most differences listed.
const DIFFERENCES_MAX: usize = 20;

enum Found {
    State(StateError),
    Ledger(LedgerError),
}

impl From<LedgerError> for Found {
    fn from(error: LedgerError) -> Found {
        Found::Ledger(error)
    }
}

impl From<StateError> for Found {
    fn from(error: StateError) -> Found {
        Found::State(error)
    }
}

impl Service {
    /// Checks the chain, every signature since the last verified position (`all`: of everything), and
    /// that the counts are what the ledger says.
    ///
    /// # Errors
    /// What the disk says; a disagreement is in the report.
    pub async fn verify(self: &std::sync::Arc<Self>, all: bool) -> Result<VerifyReport> {
        // One at a time: each holds a copy of the state.
        let _turn = self.verifying.lock().await;
        let service = self.clone();
        let (report, remember) =
            tokio::task::spawn_blocking(move || service.verify_now(all)).await??;
        if let Some((position, hash)) = remember {
            self.ledger.remember_verified(position, hash).await?;
        }
        Ok(report)
    }

    fn verify_now(&self, all: bool) -> Result<(VerifyReport, Option<(u64, crate::ledger::Hash)>)> {
        // The copy reads its older months from the file: it must stay as it is, from before the copy is made.
        let _stay = self.keeper.stay();
        let mut live = tokio::runtime::Handle::current().block_on(self.between_commits())?;
        let reader = self.ledger.reader()?;
        let from = if all { 1 } else { reader.verified()?.map_or(1, |(position, _)| position + 1) };
        let mut report = VerifyReport {
            agrees: true,
            position: 0,
            signatures_from: from,
            signatures: 0,
            reports: 0,
            differences: Vec::new(),
        };
        let chain = if all { reader.verify_chain(1) } else { reader.verify_new() };
        let remember = match chain {
            Ok(chain) => Some((chain.through, chain.hash)),
            Err(error) => {
                report.differences.push(error.to_string());
                None
            }
        };
        self.signatures(&reader, from, &mut report)?;
        // The service goes on meanwhile: compare at one position.
        let now = self.now();
        live.rejudge(now);
        let scratch = Derived::scratch(&self.dir);
        match fold_aside(&reader, live.position, now, &scratch, Limits::default()) {
            Ok(again) => {
                report.position = again.position;
                report.reports = reports_in(&again.cube);
                if again.cube.digest() != live.cube.digest() {
                    for (unit, form, period) in again.cube.differences(&live.cube, DIFFERENCES_MAX)
                    {
                        report.differences.push(format!(
                            "the count of {unit} {form} {period} is not what the ledger says"
                        ));
                    }
                    if report.differences.is_empty() {
                        report.differences.push("the counts are not what the ledger says".into());
                    }
                }
                let inboxes = |state: &State| -> BTreeMap<_, _> {
                    state.agents.iter().map(|(id, agent)| (*id, agent.inbox.clone())).collect()
                };
                if inboxes(&again) != inboxes(&live) {
                    report.differences.push("an agent's inbox is not what the ledger says".into());
                }
            }
            Err(error) => report.differences.push(error.to_string()),
        }
        report.agrees = report.differences.is_empty();
        let remember = remember.filter(|_| report.agrees);
        Ok((report, remember))
    }

    fn signatures(
        &self,
        reader: &crate::ledger::LedgerReader,
        from: u64,
        report: &mut VerifyReport,
    ) -> Result<()> {
        let own = self.identity.key.public();
        let (keys, changes): (BTreeMap<_, PublicKey>, _) = {
            let state = self.state.read();
            report.differences.extend(state.key_faults(&self.identity.root, own));
            let keys = state.agents.iter().map(|(id, agent)| (*id, agent.key)).collect();
            (keys, state.key_changes.clone())
        };
        let result = reader.read_from::<Found>(from, |row| {
            report.signatures += 1;
            report.position = row.position;
            let verdict = match row.kind {
                RowKind::Act => {
                    let signer = signer_at(&changes, row.position, own);
                    verify_act(row.bytes, &signer).map_err(|e| e.to_string())
                }
                RowKind::Batch => {
                    Envelope::read(row.bytes).map_err(|e| e.to_string()).and_then(|e| {
                        // It may have been admitted since.
                        let late = || Some(self.state.read().agents.get(&e.agent)?.key);
                        let key = keys.get(&e.agent).copied().or_else(late);
                        let key = key.ok_or("of an agent not known")?;
                        e.open(&key).map(|_| ()).map_err(|e| e.to_string())
                    })
                }
            };
            if let Err(why) = verdict
                && report.differences.len() < DIFFERENCES_MAX
            {
                report.differences.push(format!("position {}: {why}", row.position));
            }
            Ok(())
        });
        match result {
            Ok(_) => Ok(()),
            Err(Found::Ledger(error)) => Err(error.into()),
            Err(Found::State(error)) => Err(error.into()),
        }
    }

    /// Writes a backup while serving: everything, or only what makes the centre itself again.
    ///
    /// # Errors
    /// What the disk says, or a ledger that does not hold.
    pub async fn backup(&self, path: &Path, identity: bool) -> Result<BackupSummary> {
        // One at a time, each reads the whole ledger; to its end, also if whoever asked goes away.
        let turn = self.backing_up.clone().lock_owned().await;
        let mut members = Identity::members(&self.dir)?;
        members.extend(Access::member(&self.dir)?);
        let reader = self.ledger.reader()?;
        let now = self.now();
        let path = path.to_owned();
        let summary = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            if identity {
                reader.identity_backup(&path, &members, now)
            } else {
                reader.backup(&path, &members, now)
            }
        });
        Ok(summary.await??)
    }
}

/// How many reports a cube holds.
fn reports_in(cube: &crate::cube::Cube) -> u64 {
    let in_form = |form: &crate::cube::FormStore| {
        let slots = u32::try_from(form.slots().len()).unwrap_or(u32::MAX);
        form.blocks()
            .map(|(_, block)| (0..slots).filter(|s| block.present(*s)).count())
            .sum::<usize>()
    };
    let reports: usize = cube.forms().iter().map(in_form).sum();
    u64::try_from(reports).unwrap_or(u64::MAX)
}

/// Puts a backup into an empty data directory.
///
/// The ledger comes last, under its name in one step: until then nothing serves from the directory, and a
/// restore that was cut short is repeated. So there is never a centre without the users it had.
///
/// # Errors
/// If the directory holds a ledger or keys, the backup is damaged, or what the disk says.
pub fn restore(file: &Path, dir: &Path, now: Millis) -> Result<BackupSummary> {
    restore_by_steps(file, dir, now, |_| Ok(()))
}

/// As [`restore`]; `done` hears of each step that is on disk.
fn restore_by_steps(
    file: &Path,
    dir: &Path,
    now: Millis,
    done: impl Fn(&'static str) -> Result<()>,
) -> Result<BackupSummary> {
    let summary = check_backup(file).with_context(|| format!("reading {}", file.display()))?;
    let found = Identity::found_in(dir)?;
    let again = found == identity::Found::Unfinished(Begun::Restore);
    if ledger_dir(dir).join("ledger.db").exists() || found != identity::Found::Nothing && !again {
        bail!(
            "{0} 不是空目录：请恢复到新目录，或先移走原有内容 / {0} is not empty: restore into a new directory, or move the old one away first",
            dir.display()
        );
    }
    make_home(dir)?;
    make_dir(&dir.join("keys"))?;
    done("directory")?;
    Identity::mark(dir, Begun::Restore)?;
    done("mark")?;
    if again {
        // Of another backup perhaps.
        Access::clear(dir)?;
        Identity::clear_to_mark(dir)?;
    }
    let put = |members: &[Member]| {
        done("rows")?;
        Access::restore(dir, members)?;
        done("accounts")?;
        Identity::restore(dir, members)?;
        done("keys")
    };
    restore_with(file, &ledger_dir(dir), now, put)?;
    done("ledger")?;
    Identity::finished(dir)?;
    Ok(summary)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::service::reports::tests::centre::{Centre, LATER};

    const STEPS: [&str; 6] = ["directory", "mark", "rows", "accounts", "keys", "ledger"];

    /// A centre with accounts, and a backup of it.
    fn backed_up() -> (Centre, std::path::PathBuf) {
        let centre = Centre::new();
        let home = centre.dir.path().join("data");
        fs::create_dir_all(home.join("access")).unwrap();
        fs::write(home.join("access/accounts.json"), r#"{"format":1,"users":[],"tokens":[]}"#)
            .unwrap();
        let file = centre.dir.path().join("a.bak");
        centre.runtime.block_on(centre.service.backup(&file, false)).unwrap();
        (centre, file)
    }

    fn whole(centre: &Centre, home: &Path) {
        let from = centre.dir.path().join("data");
        for name in ["keys/operating.key", "keys/ca.key", "access/accounts.json"] {
            assert_eq!(fs::read(home.join(name)).unwrap(), fs::read(from.join(name)).unwrap());
        }
        assert_eq!(Identity::found_in(home).unwrap(), identity::Found::Keys, "and no mark");
        let clock: crate::intake::Clock = std::sync::Arc::new(|| LATER);
        let opened = centre.runtime.block_on(Service::open(home, clock, None));
        let (service, running) = opened.unwrap();
        assert!(centre.runtime.block_on(service.verify(true)).unwrap().agrees);
        drop(service);
        centre.runtime.block_on(running.stop()).unwrap();
    }

    #[test]
    fn a_restore_cut_short_anywhere_is_repeated_and_is_no_centre_before() {
        let (centre, file) = backed_up();
        let clock: crate::intake::Clock = std::sync::Arc::new(|| LATER);
        for stop in STEPS {
            let home = centre.dir.path().join(stop);
            let cut = |step| if step == stop { bail!("cut at {step}") } else { Ok(()) };
            let error = restore_by_steps(&file, &home, LATER, cut).unwrap_err();
            assert_eq!(error.to_string(), format!("cut at {stop}"));
            if stop == "ledger" {
                restore(&file, &home, LATER).unwrap_err();
                // Whole but for the mark, which goes when the centre is opened.
                let opened = Service::open(&home, clock.clone(), None);
                let (service, running) = centre.runtime.block_on(opened).unwrap();
                drop(service);
                centre.runtime.block_on(running.stop()).unwrap();
            } else {
                let opened = centre.runtime.block_on(Service::open(&home, clock.clone(), None));
                assert!(opened.is_err(), "a centre after {stop}");
                restore(&file, &home, LATER).unwrap();
            }
            whole(&centre, &home);
        }
    }

    #[test]
    fn a_restore_leaves_keys_of_others_and_takes_nothing_of_another_backup() {
        let (centre, file) = backed_up();
        let home = centre.dir.path().join("keys-alone");
        Identity::create(&home, LATER).unwrap();
        let key = fs::read(home.join("keys/operating.key")).unwrap();
        restore(&file, &home, LATER).unwrap_err();
        assert_eq!(fs::read(home.join("keys/operating.key")).unwrap(), key);
        // The first of two backups had users, the second had none.
        let bare = centre.dir.path().join("bare.bak");
        fs::remove_file(centre.dir.path().join("data/access/accounts.json")).unwrap();
        centre.runtime.block_on(centre.service.backup(&bare, true)).unwrap();
        let home = centre.dir.path().join("two");
        let cut = |step| if step == "keys" { bail!("cut") } else { Ok(()) };
        restore_by_steps(&file, &home, LATER, cut).unwrap_err();
        fs::write(home.join("keys/left.new"), "half").unwrap();
        restore(&bare, &home, LATER).unwrap();
        assert!(!home.join("access/accounts.json").exists());
        assert!(!home.join("keys/left.new").exists());
    }
}
