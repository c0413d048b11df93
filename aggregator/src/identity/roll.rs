//! Replacing the operating key, and with it the CA.
//!
//! The new keys are in force from the moment `keys/next` is on disk, all of them at once. The store, when it
//! is opened next, puts the roll-over into the ledger and the keys into their usual files
//! ([`Identity::settle`]); a power cut anywhere between leaves it to be done at the opening after.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};
use banyan_shared::ids::Millis;
use banyan_shared::keys::{Certificate, SigningKey};
use banyan_shared::wire::{decode, encode};
use ring::rand::SystemRandom;
use serde::{Deserialize, Serialize};

use super::ca::Ca;
use super::{CERTIFICATE, Identity, OPERATING, folder, write_secret};

/// The file of keys in force that are not in their usual files yet.
const NEXT: &str = "next";
const NEXT_VERSION: u8 = 1;

/// What `keys/next` holds after its version byte.
#[derive(Serialize, Deserialize)]
pub(super) struct Next {
    /// The operating key, PKCS#8.
    operating: Vec<u8>,
    pub(super) certificate: Certificate,
    /// The certificate that was in force before.
    pub(super) before: Certificate,
    /// The CA's key, PKCS#8, if that is new as well.
    pub(super) ca: Option<Vec<u8>>,
}

impl Next {
    pub(super) fn key(&self) -> Result<SigningKey> {
        Ok(SigningKey::from_pkcs8(&self.operating)?)
    }
}

/// The keys of a roll-over that is not settled, if there is one.
pub(super) fn read(keys: &Path) -> Result<Option<Next>> {
    let path = keys.join(NEXT);
    let bytes = match fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(|| format!("reading {}", path.display())),
    };
    match bytes.split_first() {
        Some((&NEXT_VERSION, body)) => {
            Ok(Some(decode(body).with_context(|| format!("{} is damaged", path.display()))?))
        }
        _ => bail!("{} is damaged, or of a later version", path.display()),
    }
}

/// How a roll-over is to be made.
#[derive(Clone, Copy, Debug, Default)]
pub struct RollOver {
    /// The new key's serial; the next one unless given.
    pub serial: Option<u32>,
    /// Whether the CA stays: certificates of agents and brokers hold on, also those a thief can make.
    pub keep_ca: bool,
}

/// Puts a new operating key, certified by `root`, in force in `dir`. Nobody may have the store open.
///
/// # Errors
/// If `root` is another centre's, the serial is not above the present one, or what the disk says.
pub fn roll_over(
    dir: &Path,
    root: &SigningKey,
    how: RollOver,
    now: Millis,
) -> Result<(Certificate, Certificate)> {
    let present = Identity::open(dir)?;
    if present.before.is_some() {
        bail!("the roll-over before this one is not settled: start the service once");
    }
    if root.public() != present.root {
        bail!("恢复文件属于另一个中心 / the recovery file is that of another centre");
    }
    let before = present.certificate;
    let serial = match how.serial.or(before.serial.checked_add(1)) {
        Some(serial) if serial > before.serial => serial,
        _ => bail!(
            "序号须大于现用的 {0} / the serial must be above the present one, {0}",
            before.serial
        ),
    };
    let random = SystemRandom::new();
    let key = SigningKey::generate(&random)?;
    // Of two with one serial the later counts, so that time must not stand still for it.
    let issued_at = now.max(before.issued_at.plus(1));
    let certificate = Certificate::issue(root, key.public(), serial, issued_at);
    let ca = if how.keep_ca { None } else { Some(SigningKey::generate(&random)?.pkcs8().to_vec()) };
    let next = Next {
        operating: key.pkcs8().to_vec(),
        certificate: certificate.clone(),
        before: before.clone(),
        ca,
    };
    let bytes = [&[NEXT_VERSION], encode(&next).as_slice()].concat();
    write_secret(&folder(dir).join(NEXT), &bytes)?;
    Ok((before, certificate))
}

impl Identity {
    /// Puts the keys of a roll-over, which is in the ledger by now, into their usual files.
    ///
    /// # Errors
    /// What the disk says.
    pub fn settle(dir: &Path) -> Result<()> {
        let folder = folder(dir);
        let Some(next) = read(&folder)? else { return Ok(()) };
        write_secret(&folder.join(OPERATING), &next.operating)?;
        write_secret(&folder.join(CERTIFICATE), &encode(&next.certificate))?;
        if let Some(pkcs8) = &next.ca {
            Ca::put(&folder, &SigningKey::from_pkcs8(pkcs8)?)?;
        }
        let path = folder.join(NEXT);
        fs::remove_file(&path).with_context(|| format!("removing {}", path.display()))?;
        #[cfg(unix)]
        fs::File::open(&folder)?.sync_all()?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn centre() -> (tempfile::TempDir, Vec<u8>) {
        let dir = tempfile::tempdir().unwrap();
        let keep = |root: &SigningKey| Ok(root.pkcs8().to_vec());
        let (_, root) = Identity::found(dir.path(), Millis(5), keep).unwrap();
        (dir, root)
    }

    #[test]
    fn a_new_key_is_in_force_at_once_and_stays_after_it_is_settled() {
        let (dir, root) = centre();
        let root = SigningKey::from_pkcs8(&root).unwrap();
        let first = Identity::open(dir.path()).unwrap();
        let (before, after) = roll_over(dir.path(), &root, RollOver::default(), Millis(3)).unwrap();
        assert_eq!(before, first.certificate);
        assert_eq!((after.serial, after.issued_at), (2, Millis(6)), "time does not run backwards");
        assert!(roll_over(dir.path(), &root, RollOver::default(), Millis(9)).is_err());
        let unsettled = Identity::open(dir.path()).unwrap();
        assert_eq!(unsettled.before.as_ref(), Some(&before));
        assert!(unsettled.is_outdated(&before) && !unsettled.is_outdated(&after));
        // Cut short in the middle of settling: the file of the new keys is still there.
        let next = fs::read(dir.path().join("keys/next")).unwrap();
        Identity::settle(dir.path()).unwrap();
        fs::write(dir.path().join("keys/next"), next).unwrap();
        Identity::settle(dir.path()).unwrap();
        let settled = Identity::open(dir.path()).unwrap();
        assert!(settled.before.is_none());
        assert_eq!(settled.certificate, after);
        assert_eq!(settled.key.public(), unsettled.key.public());
        assert_eq!(settled.ca.public(), unsettled.ca.public());
        assert_ne!(
            settled.ca.public(),
            first.ca.public(),
            "what was stolen certifies nothing more"
        );
        Identity::settle(dir.path()).unwrap();
    }

    #[test]
    fn a_roll_over_needs_the_own_root_and_a_higher_serial() {
        let (dir, root) = centre();
        let root = SigningKey::from_pkcs8(&root).unwrap();
        let stranger = SigningKey::from_seed(&[9; 32]).unwrap();
        let refused = roll_over(dir.path(), &stranger, RollOver::default(), Millis(9)).unwrap_err();
        assert!(refused.to_string().contains("another centre"), "{refused}");
        let same = RollOver { serial: Some(1), keep_ca: true };
        assert!(roll_over(dir.path(), &root, same, Millis(9)).is_err());
        let ca = Identity::open(dir.path()).unwrap().ca.public();
        let far = RollOver { serial: Some(7), keep_ca: true };
        assert_eq!(roll_over(dir.path(), &root, far, Millis(9)).unwrap().1.serial, 7);
        Identity::settle(dir.path()).unwrap();
        assert_eq!(Identity::open(dir.path()).unwrap().ca.public(), ca);
        fs::write(dir.path().join("keys/next"), [9, 9]).unwrap();
        assert!(Identity::open(dir.path()).is_err(), "never the old key by mistake");
    }
}
