//! Signing and verifying: Ed25519 by `ring`, always under a domain, so that a signature made for one
//! purpose is worthless for another.
//!
//! The root key certifies an operating key ([`Certificate`]); the operating key signs receipts, grants,
//! notices and operators' acts; an agent's key signs its batches. Codes and grants pin the root.

use ring::rand::SystemRandom;
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use serde::{Deserialize, Serialize};

use crate::ids::{AgentId, Millis};

/// Bytes of a signature.
pub const SIGNATURE_BYTES: usize = 64;

/// What a signature is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Domain {
    /// An agent's batch.
    Batch,
    /// An agent's request to be enrolled.
    Enrol,
    /// An agent showing the grants it holds.
    Introduce,
    /// A receipt of the centre.
    Receipt,
    /// A grant, by which the centre knows an agent again.
    Grant,
    /// An enrolment file.
    EnrolmentFile,
    /// What the centre answers to an enrolment or asks of an agent.
    Answer,
    /// A notice of the centre.
    Notice,
    /// An operator's act.
    Act,
    /// The root's word for an operating key.
    Certificate,
    /// An operating key's word for the key that certifies TLS.
    Ca,
}

impl Domain {
    fn header(self) -> &'static [u8] {
        match self {
            Domain::Batch => b"banyan/v1/batch\0",
            Domain::Enrol => b"banyan/v1/enrol\0",
            Domain::Introduce => b"banyan/v1/introduce\0",
            Domain::Receipt => b"banyan/v1/receipt\0",
            Domain::Grant => b"banyan/v1/grant\0",
            Domain::EnrolmentFile => b"banyan/v1/enrolment-file\0",
            Domain::Answer => b"banyan/v1/answer\0",
            Domain::Notice => b"banyan/v1/notice\0",
            Domain::Act => b"banyan/v1/act\0",
            Domain::Certificate => b"banyan/v1/certificate\0",
            Domain::Ca => b"banyan/v1/ca\0",
        }
    }

    fn message(self, bytes: &[u8]) -> Vec<u8> {
        [self.header(), bytes].concat()
    }
}

/// Why a key or signature was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// The stored key does not read.
    #[error("the key file is damaged")]
    Damaged,
    /// The signature is not by that key over those bytes for that purpose.
    #[error("the signature does not verify")]
    Signature,
    /// The system gave no random bytes.
    #[error("the system gave no random bytes")]
    Random,
}

/// A public key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PublicKey(pub [u8; 32]);

/// What stands before an Ed25519 key in a SubjectPublicKeyInfo (RFC 8410, section 4).
const SPKI_PREFIX: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0];

impl PublicKey {
    /// The key as X.509 writes it: a SubjectPublicKeyInfo in DER.
    pub fn spki(&self) -> [u8; 44] {
        let mut spki = [0; 44];
        spki[..SPKI_PREFIX.len()].copy_from_slice(&SPKI_PREFIX);
        spki[SPKI_PREFIX.len()..].copy_from_slice(&self.0);
        spki
    }

    /// The key in a SubjectPublicKeyInfo; none if it holds no Ed25519 key.
    pub fn from_spki(spki: &[u8]) -> Option<PublicKey> {
        Some(PublicKey(spki.strip_prefix(&SPKI_PREFIX)?.try_into().ok()?))
    }

    /// Whether `signature` was made by this key for `domain` over `bytes`.
    ///
    /// # Errors
    /// [`KeyError::Signature`] if it was not.
    pub fn verify(&self, domain: Domain, bytes: &[u8], signature: &[u8]) -> Result<(), KeyError> {
        UnparsedPublicKey::new(&ED25519, &self.0)
            .verify(&domain.message(bytes), signature)
            .map_err(|_| KeyError::Signature)
    }

    /// The id of the agent that holds this key: the first six bytes of its SHA-256.
    pub fn agent_id(&self) -> AgentId {
        let mut id = [0; 6];
        id.copy_from_slice(&sha256(&[&self.0])[..6]);
        AgentId(id)
    }

    /// The first four bytes of the key's SHA-256, by which a hello says which operating key it knows.
    pub fn tag(&self) -> [u8; 4] {
        let mut tag = [0; 4];
        tag.copy_from_slice(&sha256(&[&self.0])[..4]);
        tag
    }

    /// The first sixteen bytes of the key's SHA-256, which codes pin.
    pub fn fingerprint(&self) -> [u8; 16] {
        let mut print = [0; 16];
        print.copy_from_slice(&sha256(&[&self.0])[..16]);
        print
    }
}

/// What stands before the seed in PKCS#8 v1 of an Ed25519 key (RFC 8410, section 7).
const PKCS8_V1_PREFIX: [u8; 16] =
    [0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20];

/// A key pair, held as PKCS#8 bytes.
pub struct SigningKey {
    pair: Ed25519KeyPair,
    pkcs8: Vec<u8>,
}

impl std::fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SigningKey({})", self.public().agent_id())
    }
}

impl SigningKey {
    /// A new key from the system's randomness, which the caller passes in.
    ///
    /// # Errors
    /// [`KeyError::Random`] if the system gives none.
    pub fn generate(random: &SystemRandom) -> Result<SigningKey, KeyError> {
        let document = Ed25519KeyPair::generate_pkcs8(random).map_err(|_| KeyError::Random)?;
        SigningKey::from_pkcs8(document.as_ref())
    }

    /// The key with this 32-byte seed: for tests and simulations that must repeat.
    ///
    /// # Errors
    /// [`KeyError::Damaged`] never in practice: every seed is a key.
    pub fn from_seed(seed: &[u8; 32]) -> Result<SigningKey, KeyError> {
        let pkcs8 = [PKCS8_V1_PREFIX.as_slice(), seed].concat();
        let pair =
            Ed25519KeyPair::from_pkcs8_maybe_unchecked(&pkcs8).map_err(|_| KeyError::Damaged)?;
        Ok(SigningKey { pair, pkcs8 })
    }

    /// The key stored as these PKCS#8 bytes.
    ///
    /// # Errors
    /// [`KeyError::Damaged`] if they are not one.
    pub fn from_pkcs8(pkcs8: &[u8]) -> Result<SigningKey, KeyError> {
        let pair =
            Ed25519KeyPair::from_pkcs8_maybe_unchecked(pkcs8).map_err(|_| KeyError::Damaged)?;
        Ok(SigningKey { pair, pkcs8: pkcs8.to_vec() })
    }

    /// The bytes to store, to be kept secret.
    pub fn pkcs8(&self) -> &[u8] {
        &self.pkcs8
    }

    /// The same as PKCS#8 of version 1, for programs that read no other, as OpenSSL.
    pub fn pkcs8_v1(&self) -> Vec<u8> {
        // In either version, as ring reads and writes them, the seed follows a head of this length.
        let seed = &self.pkcs8[PKCS8_V1_PREFIX.len()..][..32];
        [PKCS8_V1_PREFIX.as_slice(), seed].concat()
    }

    /// The public half.
    pub fn public(&self) -> PublicKey {
        let mut key = [0; 32];
        key.copy_from_slice(self.pair.public_key().as_ref());
        PublicKey(key)
    }

    /// Signs `bytes` for `domain`.
    pub fn sign(&self, domain: Domain, bytes: &[u8]) -> [u8; SIGNATURE_BYTES] {
        let mut signature = [0; SIGNATURE_BYTES];
        signature.copy_from_slice(self.pair.sign(&domain.message(bytes)).as_ref());
        signature
    }
}

/// How late a certificate is among those of its root: serial, and when it was issued.
pub type Rank = (u32, Millis);

/// The root's word that an operating key speaks for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Certificate {
    /// The operating key.
    pub key: PublicKey,
    /// Rises with every operating key; the highest known is in force.
    pub serial: u32,
    /// When it was issued.
    pub issued_at: Millis,
    /// The root's signature over the above.
    pub signature: Vec<u8>,
}

impl Certificate {
    fn signed_bytes(key: &PublicKey, serial: u32, issued_at: Millis) -> Vec<u8> {
        [key.0.as_slice(), &serial.to_le_bytes(), &issued_at.0.to_le_bytes()].concat()
    }

    /// Certifies `key` with `root`.
    pub fn issue(root: &SigningKey, key: PublicKey, serial: u32, issued_at: Millis) -> Certificate {
        let bytes = Certificate::signed_bytes(&key, serial, issued_at);
        let signature = root.sign(Domain::Certificate, &bytes).to_vec();
        Certificate { key, serial, issued_at, signature }
    }

    /// Checks that `root` issued it.
    ///
    /// # Errors
    /// [`KeyError::Signature`] if it did not.
    pub fn verify(&self, root: &PublicKey) -> Result<(), KeyError> {
        let bytes = Certificate::signed_bytes(&self.key, self.serial, self.issued_at);
        root.verify(Domain::Certificate, &bytes, &self.signature)
    }

    /// Of two certificates of one root the one of the higher rank is the later: that of the higher serial,
    /// and of one serial the one issued later. A centre restored from a backup made before a roll-over rolls
    /// over again without knowing which serials were given since.
    pub fn rank(&self) -> Rank {
        (self.serial, self.issued_at)
    }
}

/// SHA-256 of the parts joined.
pub fn sha256(parts: &[&[u8]]) -> [u8; 32] {
    let mut context = ring::digest::Context::new(&ring::digest::SHA256);
    for part in parts {
        context.update(part);
    }
    let mut digest = [0; 32];
    digest.copy_from_slice(context.finish().as_ref());
    digest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_serves_one_purpose_only() {
        let key = SigningKey::from_seed(&[7; 32]).unwrap();
        let signature = key.sign(Domain::Batch, b"counts");
        assert_eq!(key.public().verify(Domain::Batch, b"counts", &signature), Ok(()));
        assert!(key.public().verify(Domain::Receipt, b"counts", &signature).is_err());
        assert!(key.public().verify(Domain::Batch, b"count", &signature).is_err());
        let other = SigningKey::from_seed(&[8; 32]).unwrap();
        assert!(other.public().verify(Domain::Batch, b"counts", &signature).is_err());
    }

    #[test]
    fn keys_store_and_certificates_verify() {
        let root = SigningKey::generate(&SystemRandom::new()).unwrap();
        let again = SigningKey::from_pkcs8(root.pkcs8()).unwrap();
        assert_eq!(root.public(), again.public());
        assert_ne!(root.pkcs8_v1(), root.pkcs8(), "new keys are of version 2");
        assert_eq!(SigningKey::from_pkcs8(&root.pkcs8_v1()).unwrap().public(), root.public());
        let operating = SigningKey::from_seed(&[1; 32]).unwrap();
        assert_eq!(operating.pkcs8_v1(), operating.pkcs8());
        let mut certificate = Certificate::issue(&root, operating.public(), 3, Millis(5));
        assert_eq!(certificate.verify(&root.public()), Ok(()));
        certificate.serial = 4;
        assert!(certificate.verify(&root.public()).is_err());
        let later = |serial, at| Certificate::issue(&root, operating.public(), serial, Millis(at));
        assert!(later(2, 0).rank() > later(1, 9).rank() && later(2, 1).rank() > later(2, 0).rank());
        assert!(SigningKey::from_pkcs8(b"nonsense").is_err());
    }
}
