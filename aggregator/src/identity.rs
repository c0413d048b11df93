//! Who the centre is: its keys, in files only the service's user may read.
//!
//! `DIR/keys/operating.key` signs receipts, grants and acts and stays on the server; the [`Ca`] beside it
//! signs TLS certificates. The root only certifies operating keys: its secret lies encrypted in the recovery
//! file ([`recovery`]), which belongs on a stick in a safe, and nothing here needs it but a [`roll`]-over.

mod ca;
pub mod recovery;
mod roll;

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use banyan_shared::ids::Millis;
use banyan_shared::keys::{Certificate, PublicKey, SigningKey};
use banyan_shared::wire::{StoreId, decode, encode};
use ring::rand::{SecureRandom, SystemRandom};

pub(crate) use ca::pem;
use ca::{CA_CERTIFICATE, CA_SECRET};
pub use ca::{CENTRE_NAME, Ca, GRACE_MS, IssuedCertificate, VALIDITY_MS};
pub use roll::{RollOver, roll_over};

use crate::ledger::{Member, StoreIdentity, make_dir};

const FOLDER: &str = "keys";
const OPERATING: &str = "operating.key";
const CERTIFICATE: &str = "certificate";
const ROOT_PUBLIC: &str = "root.pub";
/// The mark of a founding or a restore that has begun and is not finished: without it keys are never removed.
const UNFINISHED: &str = "unfinished";
const MARK_INIT: &[u8] = b"init\n";
/// The recovery file is being written into the data directory.
const MARK_INIT_RECOVERY: &[u8] = b"init root.recovery\n";
const MARK_RESTORE: &[u8] = b"restore\n";

/// The centre's identity in memory.
pub struct Identity {
    /// Signs receipts, grants and acts.
    pub key: SigningKey,
    /// The root's word for it.
    pub certificate: Certificate,
    /// The root.
    pub root: PublicKey,
    /// Certifies TLS.
    pub ca: Ca,
    /// What was in force before, while a roll-over is not in the ledger yet.
    pub before: Option<Certificate>,
}

/// Random bytes from the system.
///
/// # Errors
/// If the system gives none.
pub fn random<const N: usize>() -> Result<[u8; N]> {
    let mut bytes = [0; N];
    match SystemRandom::new().fill(&mut bytes) {
        Ok(()) => Ok(bytes),
        Err(_) => bail!("the system gave no random bytes"),
    }
}

/// Writes a file that only its owner can read, durably: temporary file, fsync, rename, fsync of the folder.
///
/// # Errors
/// What the disk says.
pub fn write_secret(path: &Path, bytes: &[u8]) -> Result<()> {
    let fresh = path.with_extension("new");
    let mut options = fs::OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(&fresh).with_context(|| format!("writing {}", fresh.display()))?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&fresh, path).with_context(|| format!("writing {}", path.display()))?;
    path.parent().map_or(Ok(()), sync_folder)
}

/// Makes a data directory that only its owner can enter, whatever the umask: the ledger in it holds the counts of
/// single sites. One that is there stays as it is.
///
/// # Errors
/// What the disk says.
pub(crate) fn make_home(dir: &Path) -> Result<()> {
    if !dir.is_dir() {
        if let Some(parent) = dir.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            make_dir(parent)?;
        }
        let mut builder = fs::DirBuilder::new();
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        match builder.create(dir) {
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            made => made.with_context(|| format!("making {}", dir.display()))?,
        }
    }
    // Its name is durable as well.
    Ok(make_dir(dir)?)
}

/// The mode of a data directory that others than its owner can enter, read or change.
pub(crate) fn open_to_others(dir: &Path) -> Option<u32> {
    #[cfg(unix)]
    {
        let found = fs::metadata(dir).ok()?;
        let mode = std::os::unix::fs::PermissionsExt::mode(&found.permissions()) & 0o777;
        (mode & 0o077 != 0).then_some(mode)
    }
    #[cfg(not(unix))]
    {
        let _ = dir;
        None
    }
}

/// Makes the names in a folder durable.
fn sync_folder(folder: &Path) -> Result<()> {
    // Windows has no handle to flush for a directory; NTFS journals its names.
    #[cfg(unix)]
    fs::File::open(folder)
        .and_then(|folder| folder.sync_all())
        .with_context(|| format!("writing {}", folder.display()))?;
    #[cfg(not(unix))]
    let _ = folder;
    Ok(())
}

/// What is being made of a data directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Begun {
    /// A centre is being founded.
    Init {
        /// Whether the recovery file is being written into the data directory.
        recovery_here: bool,
    },
    /// A backup is being put in place.
    Restore,
}

/// What stands in the place of the keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// Nothing.
    Nothing,
    /// What was left by something cut short.
    Unfinished(Begun),
    /// A centre's keys, or what may be left of them.
    Keys,
}

fn folder(dir: &Path) -> PathBuf {
    dir.join(FOLDER)
}

impl Identity {
    /// Makes new keys in `dir`, for a centre whose root nobody keeps: its operating key is its only one.
    ///
    /// # Errors
    /// As [`Identity::found`].
    pub fn create(dir: &Path, now: Millis) -> Result<Identity> {
        Ok(Identity::found(dir, now, |_| Ok(()))?.0)
    }

    /// Makes new keys in `dir`. What `keep` makes of the root's secret is done before anything here says
    /// that there is a centre.
    ///
    /// # Errors
    /// If there are keys already, what `keep` says, or what the disk says.
    pub fn found<T>(
        dir: &Path,
        now: Millis,
        keep: impl FnOnce(&SigningKey) -> Result<T>,
    ) -> Result<(Identity, T)> {
        let folder = folder(dir);
        if Identity::found_in(dir)? != Found::Nothing {
            bail!("{} exists already: this directory has been initialised", folder.display());
        }
        fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
        let random_source = SystemRandom::new();
        let root = SigningKey::generate(&random_source)?;
        let key = SigningKey::generate(&random_source)?;
        let certificate = Certificate::issue(&root, key.public(), 1, now);
        let kept = keep(&root)?;
        write_secret(&folder.join(ROOT_PUBLIC), &root.public().0)?;
        write_secret(&folder.join(CERTIFICATE), &encode(&certificate))?;
        write_secret(&folder.join(OPERATING), key.pkcs8())?;
        let ca = Ca::create(&folder)?;
        Ok((Identity { key, certificate, root: root.public(), ca, before: None }, kept))
    }

    /// What stands in `dir` in the place of the keys.
    ///
    /// # Errors
    /// What the disk says.
    pub(crate) fn found_in(dir: &Path) -> Result<Found> {
        let folder = folder(dir);
        match fs::read(folder.join(UNFINISHED)).as_deref() {
            Ok(MARK_INIT) => return Ok(Found::Unfinished(Begun::Init { recovery_here: false })),
            Ok(MARK_INIT_RECOVERY) => {
                return Ok(Found::Unfinished(Begun::Init { recovery_here: true }));
            }
            Ok(MARK_RESTORE) => return Ok(Found::Unfinished(Begun::Restore)),
            // Not one of ours.
            Ok(_) => return Ok(Found::Keys),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => bail!("reading {}: {error}", folder.display()),
        }
        let names = match fs::read_dir(&folder) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Ok(Found::Nothing);
            }
            names => names.with_context(|| format!("reading {}", folder.display()))?,
        };
        for name in names {
            // What is left of a mark that was not written.
            if name?.path() != folder.join(UNFINISHED).with_extension("new") {
                return Ok(Found::Keys);
            }
        }
        Ok(Found::Nothing)
    }

    /// Notes on the disk, in the folder of the keys, that something has begun.
    ///
    /// # Errors
    /// What the disk says.
    pub(crate) fn mark(dir: &Path, begun: Begun) -> Result<()> {
        let text = match begun {
            Begun::Init { recovery_here: true } => MARK_INIT_RECOVERY,
            Begun::Init { recovery_here: false } => MARK_INIT,
            Begun::Restore => MARK_RESTORE,
        };
        write_secret(&folder(dir).join(UNFINISHED), text)?;
        sync_folder(dir)
    }

    /// Takes the mark away: what was begun is finished.
    ///
    /// # Errors
    /// What the disk says.
    pub(crate) fn finished(dir: &Path) -> Result<()> {
        let path = folder(dir).join(UNFINISHED);
        match fs::remove_file(&path) {
            Ok(()) => sync_folder(&folder(dir)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error).with_context(|| format!("removing {}", path.display())),
        }
    }

    /// Removes what something cut short has left among the keys, but for its mark.
    ///
    /// # Errors
    /// What the disk says.
    pub(crate) fn clear_to_mark(dir: &Path) -> Result<()> {
        let folder = folder(dir);
        let clear = || -> std::io::Result<()> {
            for entry in fs::read_dir(&folder)? {
                let entry = entry?;
                if entry.file_name() != UNFINISHED {
                    fs::remove_file(entry.path())?;
                }
            }
            Ok(())
        };
        clear().with_context(|| format!("clearing {}", folder.display()))?;
        sync_folder(&folder)
    }

    /// Removes the folder of keys that something cut short has left, its mark last.
    ///
    /// # Errors
    /// What the disk says.
    pub(crate) fn clear_unfinished(dir: &Path) -> Result<()> {
        Identity::clear_to_mark(dir)?;
        let folder = folder(dir);
        fs::remove_dir_all(&folder).with_context(|| format!("clearing {}", folder.display()))?;
        sync_folder(dir)
    }

    /// Reads the keys in `dir`, those of a roll-over that was cut short too: from the moment they are on disk
    /// they are in force. A directory from before there was a CA gets one.
    ///
    /// # Errors
    /// If they are missing, damaged or do not belong together.
    pub fn open(dir: &Path) -> Result<Identity> {
        let folder = folder(dir);
        let read = |name: &str| {
            let path = folder.join(name);
            fs::read(&path).with_context(|| {
                format!(
                    "reading {} (run `banyan-aggregator init` first, or `restore`)",
                    path.display()
                )
            })
        };
        let next = roll::read(&folder)?;
        let (key, certificate, before) = match &next {
            Some(next) => (next.key()?, next.certificate.clone(), Some(next.before.clone())),
            None => {
                let key = SigningKey::from_pkcs8(&read(OPERATING)?)?;
                (key, decode(&read(CERTIFICATE)?)?, None)
            }
        };
        let root = <[u8; 32]>::try_from(read(ROOT_PUBLIC)?.as_slice())
            .map(PublicKey)
            .ok()
            .context("keys/root.pub is damaged")?;
        certificate.verify(&root).context("keys/certificate is not by keys/root.pub")?;
        if certificate.key != key.public() {
            bail!("keys/certificate is for another operating key");
        }
        let ca = match next.and_then(|next| next.ca) {
            Some(pkcs8) => Ca::from_key(&SigningKey::from_pkcs8(&pkcs8)?)?,
            None => Ca::open(&folder)?,
        };
        Ok(Identity { key, certificate, root, ca, before })
    }

    /// Whether a certificate speaks for an operating key that has been replaced.
    pub fn is_outdated(&self, certificate: &Certificate) -> bool {
        certificate.rank() < self.certificate.rank()
    }

    /// What a backup has to carry to bring the identity back. The root's secret is never among it.
    ///
    /// # Errors
    /// What the disk says.
    pub fn members(dir: &Path) -> Result<Vec<Member>> {
        [OPERATING, CERTIFICATE, ROOT_PUBLIC, CA_SECRET, CA_CERTIFICATE]
            .into_iter()
            .map(|name| {
                let bytes = fs::read(folder(dir).join(name))?;
                Ok(Member { name: format!("{FOLDER}/{name}"), bytes })
            })
            .collect()
    }

    /// Puts the identity of a backup into `dir`.
    ///
    /// # Errors
    /// If a member is missing or damaged, or what the disk says.
    pub fn restore(dir: &Path, members: &[Member]) -> Result<Identity> {
        let folder = folder(dir);
        fs::create_dir_all(&folder)?;
        for name in [OPERATING, CERTIFICATE, ROOT_PUBLIC, CA_SECRET, CA_CERTIFICATE] {
            let full = format!("{FOLDER}/{name}");
            match members.iter().find(|member| member.name == full) {
                Some(member) => write_secret(&folder.join(name), &member.bytes)?,
                // A backup from before there was a CA: a new one is made, and agents come to know it.
                None if [CA_SECRET, CA_CERTIFICATE].contains(&name) => {}
                None => bail!("the backup lacks {full}"),
            }
        }
        Identity::open(dir)
    }
}

/// What receipts call the ledger: a restored one has another incarnation, so no older receipt speaks for it.
pub fn store_id(ledger: &StoreIdentity) -> StoreId {
    let mut id = [0; 8];
    id.copy_from_slice(&ledger.store_id[..8]);
    StoreId { ledger: id, incarnation: ledger.incarnation }
}
