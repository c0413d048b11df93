//! The recovery file: the root's secret, encrypted, to be kept away from the server.
//!
//! Whoever holds the file and the code or passphrase can certify operating keys; the file alone is worth
//! nothing. The key is argon2id of what was typed, the cipher ChaCha20-Poly1305 with the file's head as
//! associated data; a CRC tells damage from a wrong passphrase. Layout: `docs/formats.md`.

use std::fmt;
use std::str::FromStr;
use std::sync::LazyLock;

use argon2::{Algorithm, Argon2, Params, Version};
use banyan_shared::keys::{PublicKey, SigningKey, sha256};
use data_encoding::{Encoding, Specification};
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};

use super::random;

const MAGIC: &[u8; 16] = b"BANYAN-RECOVERY\n";
const VERSION: u8 = 1;
const SALT_BYTES: usize = 16;
/// Magic, version, kind, three costs, salt, nonce, root, length of what is sealed.
const HEAD_BYTES: usize = 16 + 2 + 12 + SALT_BYTES + NONCE_LEN + 32 + 2;
const CRC_BYTES: usize = 4;
/// Longest recovery file read, in bytes; ours have about 200.
const FILE_BYTES_MAX: usize = 4096;
/// Fewest characters of a passphrase: it must withstand guessing by whoever finds the stick.
pub const PASSPHRASE_CHARS_MIN: usize = 14;

/// Memory in KiB, passes, lanes of argon2id.
type Cost = [u32; 3];
/// A code has 128 random bits, which no cost could add to.
const COST_CODE: Cost = [8 * 1024, 1, 1];
/// A passphrase is typed once in years and guessed as often as the thief likes.
const COST_PASSPHRASE: Cost = [128 * 1024, 4, 1];
/// What a file may ask for: more would be a way to keep a machine busy.
const COST_MAX: Cost = [1024 * 1024, 16, 4];

/// Why a recovery file does not open.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecoveryError {
    /// Other bytes.
    #[error("不是恢复文件 / this is not a recovery file")]
    NotOne,
    /// Of a later program.
    #[error(
        "恢复文件版本 {0} 较新，请升级本程序 / version {0} of the recovery file is not known here: update this program"
    )]
    Version(u8),
    /// Its check sum is wrong.
    #[error(
        "恢复文件已损坏，请用另一份副本 / the recovery file is damaged: use another copy of it"
    )]
    Damaged,
    /// The code's own check sum is wrong.
    #[error(
        "恢复码有误或不完整，请逐字核对 / the recovery code has a typing error or is not complete: compare it once more"
    )]
    Mistyped,
    /// Nothing is wrong with the file, but this does not open it.
    #[error(
        "口令或恢复码不对，或属于另一份恢复文件 / the wrong passphrase or recovery code, or that of another recovery file"
    )]
    Wrong,
    /// Too short to be one.
    #[error(
        "口令至少 {PASSPHRASE_CHARS_MIN} 个字符 / a passphrase has at least {PASSPHRASE_CHARS_MIN} characters"
    )]
    TooShort,
    /// Argon2 or the random source.
    #[error("{0}")]
    Failed(String),
}

static BASE32: LazyLock<Encoding> = LazyLock::new(|| {
    let mut specification = Specification::new();
    specification.symbols.push_str("0123456789ABCDEFGHJKMNPQRSTVWXYZ");
    specification.translate.from.push_str("abcdefghjkmnpqrstvwxyzOoIiLl");
    specification.translate.to.push_str("ABCDEFGHJKMNPQRSTVWXYZ001111");
    specification.ignore.push_str("- \t\r\n");
    specification.encoding().expect("the alphabet has 32 different characters")
});

/// A recovery code: 128 random bits and two bytes of check sum, 29 letters and digits of Crockford's
/// alphabet.
#[derive(Clone, PartialEq, Eq)]
pub struct RecoveryCode([u8; 16]);

impl fmt::Debug for RecoveryCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RecoveryCode(…)")
    }
}

fn check_sum(secret: &[u8]) -> [u8; 2] {
    let digest = sha256(&[b"banyan/v1/recovery-code\0", secret]);
    [digest[0], digest[1]]
}

impl RecoveryCode {
    /// A new one.
    ///
    /// # Errors
    /// If the system gives no random bytes.
    pub fn generate() -> anyhow::Result<RecoveryCode> {
        Ok(RecoveryCode(random()?))
    }
}

impl fmt::Display for RecoveryCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = BASE32.encode(&[&self.0[..], &check_sum(&self.0)].concat());
        for (at, digit) in text.chars().enumerate() {
            if at > 0 && at % 5 == 0 {
                f.write_str("-")?;
            }
            write!(f, "{digit}")?;
        }
        Ok(())
    }
}

impl FromStr for RecoveryCode {
    type Err = RecoveryError;

    /// Reads a code; case, dashes and spaces do not matter, and O, I, L read as 0, 1, 1.
    fn from_str(text: &str) -> Result<RecoveryCode, RecoveryError> {
        let bytes = BASE32.decode(text.as_bytes()).map_err(|_| RecoveryError::Mistyped)?;
        match bytes.split_first_chunk::<16>() {
            Some((secret, sum)) if sum == check_sum(secret) => Ok(RecoveryCode(*secret)),
            _ => Err(RecoveryError::Mistyped),
        }
    }
}

/// What opens a recovery file.
#[derive(Clone, PartialEq, Eq)]
pub enum RecoverySecret {
    /// What somebody thought of.
    Passphrase(String),
    /// What was drawn and shown once.
    Code(RecoveryCode),
}

impl fmt::Debug for RecoverySecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RecoverySecret(…)")
    }
}

impl RecoverySecret {
    fn kind(&self) -> u8 {
        match self {
            RecoverySecret::Passphrase(_) => 0,
            RecoverySecret::Code(_) => 1,
        }
    }

    fn cost(&self) -> Cost {
        match self {
            RecoverySecret::Passphrase(_) => COST_PASSPHRASE,
            RecoverySecret::Code(_) => COST_CODE,
        }
    }

    fn bytes(&self) -> &[u8] {
        match self {
            RecoverySecret::Passphrase(text) => text.as_bytes(),
            RecoverySecret::Code(code) => &code.0,
        }
    }
}

fn key_of(secret: &[u8], salt: &[u8], cost: Cost) -> Result<LessSafeKey, RecoveryError> {
    let wrong = |error: argon2::Error| RecoveryError::Failed(format!("argon2: {error}"));
    let params = Params::new(cost[0], cost[1], cost[2], Some(32)).map_err(wrong)?;
    let mut key = [0; 32];
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
        .hash_password_into(secret, salt, &mut key)
        .map_err(wrong)?;
    let key = UnboundKey::new(&CHACHA20_POLY1305, &key);
    Ok(LessSafeKey::new(key.map_err(|_| RecoveryError::Failed("cipher".to_owned()))?))
}

/// The file of a root's secret, for `secret`.
///
/// # Errors
/// A passphrase that is too short, or no random bytes or memory.
pub fn seal_root(root: &SigningKey, secret: &RecoverySecret) -> Result<Vec<u8>, RecoveryError> {
    if let RecoverySecret::Passphrase(text) = secret
        && text.chars().count() < PASSPHRASE_CHARS_MIN
    {
        return Err(RecoveryError::TooShort);
    }
    let failed = |error: anyhow::Error| RecoveryError::Failed(error.to_string());
    let salt = random::<SALT_BYTES>().map_err(failed)?;
    let nonce = random::<NONCE_LEN>().map_err(failed)?;
    let cost = secret.cost();
    let key = key_of(secret.bytes(), &salt, cost)?;
    let length = root.pkcs8().len() + CHACHA20_POLY1305.tag_len();
    let length = u16::try_from(length).map_err(|_| RecoveryError::Damaged)?;
    let mut file = MAGIC.to_vec();
    file.extend([VERSION, secret.kind()]);
    cost.iter().for_each(|part| file.extend(part.to_le_bytes()));
    file.extend(salt);
    file.extend(nonce);
    file.extend(root.public().0);
    file.extend(length.to_le_bytes());
    let mut sealed = root.pkcs8().to_vec();
    key.seal_in_place_append_tag(
        Nonce::assume_unique_for_key(nonce),
        Aad::from(&file),
        &mut sealed,
    )
    .map_err(|_| RecoveryError::Failed("cipher".to_owned()))?;
    file.extend(sealed);
    file.extend(crc32fast::hash(&file).to_le_bytes());
    Ok(file)
}

/// A recovery file taken apart, not yet opened.
#[derive(Clone, Debug)]
pub struct RecoveryFile<'a> {
    head: &'a [u8],
    sealed: &'a [u8],
    kind: u8,
    cost: Cost,
    /// Whose secret it holds.
    pub root: PublicKey,
}

fn array<const N: usize>(bytes: &mut &[u8]) -> Result<[u8; N], RecoveryError> {
    let (array, rest) = bytes.split_first_chunk::<N>().ok_or(RecoveryError::Damaged)?;
    *bytes = rest;
    Ok(*array)
}

impl<'a> RecoveryFile<'a> {
    /// Reads the outside of a file.
    ///
    /// # Errors
    /// [`RecoveryError`] if it is none, of a later version or damaged.
    pub fn read(bytes: &'a [u8]) -> Result<RecoveryFile<'a>, RecoveryError> {
        let mut rest = bytes.strip_prefix(MAGIC).ok_or(RecoveryError::NotOne)?;
        let [version] = array(&mut rest)?;
        if version != VERSION {
            return Err(RecoveryError::Version(version));
        }
        let body = bytes.len().checked_sub(CRC_BYTES).filter(|_| bytes.len() <= FILE_BYTES_MAX);
        let (body, mut sum) = bytes.split_at(body.ok_or(RecoveryError::Damaged)?);
        if u32::from_le_bytes(array(&mut sum)?) != crc32fast::hash(body) {
            return Err(RecoveryError::Damaged);
        }
        let (head, sealed) = body.split_at_checked(HEAD_BYTES).ok_or(RecoveryError::Damaged)?;
        let [kind] = array(&mut rest)?;
        let mut cost = [0; 3];
        for part in &mut cost {
            *part = u32::from_le_bytes(array(&mut rest)?);
        }
        let _: [u8; SALT_BYTES + NONCE_LEN] = array(&mut rest)?;
        let root = PublicKey(array(&mut rest)?);
        let length = u16::from_le_bytes(array(&mut rest)?);
        let sane = cost.iter().zip(COST_MAX).all(|(cost, max)| (1..=max).contains(cost));
        if kind > 1 || !sane || usize::from(length) != sealed.len() {
            return Err(RecoveryError::Damaged);
        }
        Ok(RecoveryFile { head, sealed, kind, cost, root })
    }

    /// Whether a code opens it, and no passphrase.
    pub fn wants_code(&self) -> bool {
        self.kind == 1
    }

    /// The root's secret, if what was typed opens the file.
    ///
    /// # Errors
    /// [`RecoveryError`] if it does not.
    pub fn open(&self, typed: &str) -> Result<SigningKey, RecoveryError> {
        let secret = if self.wants_code() {
            RecoverySecret::Code(typed.parse()?)
        } else {
            RecoverySecret::Passphrase(typed.to_owned())
        };
        let mut at = &self.head[MAGIC.len() + 2 + 12..];
        let salt: [u8; SALT_BYTES] = array(&mut at)?;
        let nonce = Nonce::assume_unique_for_key(array(&mut at)?);
        let key = key_of(secret.bytes(), &salt, self.cost)?;
        let mut sealed = self.sealed.to_vec();
        let pkcs8 = key
            .open_in_place(nonce, Aad::from(self.head), &mut sealed)
            .map_err(|_| RecoveryError::Wrong)?;
        let root = SigningKey::from_pkcs8(pkcs8).map_err(|_| RecoveryError::Damaged)?;
        if root.public() == self.root { Ok(root) } else { Err(RecoveryError::Damaged) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root() -> SigningKey {
        SigningKey::from_seed(&[5; 32]).unwrap()
    }

    fn code() -> RecoveryCode {
        RecoveryCode([7; 16])
    }

    #[test]
    fn what_was_sealed_opens_with_its_code_or_passphrase_only() {
        let file = seal_root(&root(), &RecoverySecret::Code(code())).unwrap();
        let read = RecoveryFile::read(&file).unwrap();
        assert!(read.wants_code() && read.root == root().public());
        let typed = code().to_string().to_lowercase().replace('-', " ").replace('0', "o");
        assert_eq!(read.open(&typed).unwrap().public(), root().public());
        let other = RecoveryCode([8; 16]).to_string();
        assert_eq!(read.open(&other).unwrap_err(), RecoveryError::Wrong);
        assert_eq!(read.open(&other[..20]).unwrap_err(), RecoveryError::Mistyped);
        assert!(!file.windows(16).any(|part| root().pkcs8().windows(16).any(|own| own == part)));

        let words = "correct horse battery";
        let file = seal_root(&root(), &RecoverySecret::Passphrase(words.to_owned())).unwrap();
        let read = RecoveryFile::read(&file).unwrap();
        assert!(!read.wants_code());
        assert_eq!(read.open(words).unwrap().public(), root().public());
        assert_eq!(read.open("correct horse batter").unwrap_err(), RecoveryError::Wrong);
        let short = RecoverySecret::Passphrase("short".to_owned());
        assert_eq!(seal_root(&root(), &short).unwrap_err(), RecoveryError::TooShort);
    }

    #[test]
    fn one_wrong_letter_of_a_code_is_told_as_such() {
        let text = code().to_string();
        assert_eq!(text.len(), 29 + 5);
        for at in (0..text.len()).filter(|at| &text[*at..=*at] != "-") {
            let other = if &text[at..=at] == "7" { "8" } else { "7" };
            let wrong = format!("{}{other}{}", &text[..at], &text[at + 1..]);
            assert_eq!(wrong.parse::<RecoveryCode>(), Err(RecoveryError::Mistyped), "{wrong}");
        }
    }

    #[test]
    fn damage_anywhere_is_told_and_never_opens() {
        let file = seal_root(&root(), &RecoverySecret::Code(code())).unwrap();
        let typed = code().to_string();
        for at in 0..file.len() {
            let mut bad = file.clone();
            bad[at] ^= 0x10;
            let told = RecoveryFile::read(&bad).unwrap_err();
            let expected = match at {
                0..16 => RecoveryError::NotOne,
                16 => RecoveryError::Version(VERSION ^ 0x10),
                _ => RecoveryError::Damaged,
            };
            assert_eq!(told, expected, "byte {at}");
        }
        for length in 0..file.len() {
            assert!(RecoveryFile::read(&file[..length]).is_err());
        }
        // A check sum put right by whoever changed the bytes helps nothing.
        for at in [17, 18, 40, 60, 80, HEAD_BYTES + 3] {
            let mut bad = file[..file.len() - CRC_BYTES].to_vec();
            bad[at] ^= 1;
            bad.extend(crc32fast::hash(&bad).to_le_bytes());
            let opened = RecoveryFile::read(&bad).and_then(|read| read.open(&typed));
            assert!(opened.is_err(), "byte {at}");
        }
        assert_eq!(RecoveryFile::read(b"").unwrap_err(), RecoveryError::NotOne);
    }
}
