//! How an agent that knows the root knows the centre's TLS server: the operating key's word for the key
//! that certifies TLS (the *CA*), carried in the server's certificate as a URI among its names.
//!
//! So a certificate needs nothing beside it: a code's fingerprint of the root, the statement in the
//! certificate and the CA's signature over it are the whole chain, also before the first answer.

use serde::{Deserialize, Serialize};

use crate::keys::{Certificate, Domain, PublicKey, Rank, SigningKey};
use crate::wire::{WireError, decode, encode};

/// What the URI begins with; the rest is base64url of the statement.
const URI_PREFIX: &str = "urn:banyan:ca:";
/// Longest URI read, in characters; ours has about 350.
const URI_CHARS_MAX: usize = 1024;

/// The operating key's word for the CA, with the root's word for the operating key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CaStatement {
    root: PublicKey,
    certificate: Certificate,
    ca: PublicKey,
    signature: Vec<u8>,
}

impl CaStatement {
    /// Signs for `ca` with the operating key, which `root` has certified.
    pub fn sign(
        ca: PublicKey,
        key: &SigningKey,
        certificate: &Certificate,
        root: PublicKey,
    ) -> CaStatement {
        let signature = key.sign(Domain::Ca, &ca.0).to_vec();
        CaStatement { root, certificate: certificate.clone(), ca, signature }
    }

    /// As it stands in a certificate.
    pub fn to_uri(&self) -> String {
        format!("{URI_PREFIX}{}", data_encoding::BASE64URL_NOPAD.encode(&encode(self)))
    }

    /// Reads a statement, unchecked; none if the URI is another one.
    ///
    /// # Errors
    /// [`WireError`] if it is one and damaged.
    pub fn from_uri(uri: &str) -> Result<Option<CaStatement>, WireError> {
        let Some(text) = uri.strip_prefix(URI_PREFIX) else { return Ok(None) };
        if uri.len() > URI_CHARS_MAX {
            return Err(WireError::Malformed("the CA's statement is too long"));
        }
        let bytes = data_encoding::BASE64URL_NOPAD
            .decode(text.as_bytes())
            .map_err(|_| WireError::Malformed("the CA's statement is no base64"))?;
        decode(&bytes).map(Some)
    }

    /// The CA's key, if it goes back to a root with this fingerprint by an operating key that is not older
    /// than `newest`.
    ///
    /// # Errors
    /// [`WireError`] if it does not.
    pub fn open(&self, pinned: &[u8; 16], newest: Rank) -> Result<PublicKey, WireError> {
        if self.root.fingerprint() != *pinned {
            return Err(WireError::Malformed("the server is another centre's"));
        }
        self.certificate.verify(&self.root)?;
        if self.certificate.rank() < newest {
            return Err(WireError::Malformed("the server's operating key is outdated"));
        }
        self.certificate.key.verify(Domain::Ca, &self.ca.0, &self.signature)?;
        Ok(self.ca)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::Millis;

    fn key(seed: u8) -> SigningKey {
        SigningKey::from_seed(&[seed; 32]).unwrap()
    }

    #[test]
    fn a_statement_holds_under_its_root_and_serial_only() {
        let (root, operating, ca) = (key(1), key(2), key(3).public());
        let certificate = Certificate::issue(&root, operating.public(), 4, Millis(5));
        let good = CaStatement::sign(ca, &operating, &certificate, root.public());
        let pinned = root.public().fingerprint();
        let read = CaStatement::from_uri(&good.to_uri()).unwrap().unwrap();
        assert_eq!(read, good);
        assert_eq!(read.open(&pinned, certificate.rank()), Ok(ca));
        for newer in [(5, Millis(0)), (4, Millis(6))] {
            assert!(read.open(&pinned, newer).is_err(), "an operating key since replaced");
        }
        let never = (0, Millis(0));
        assert!(read.open(&key(9).public().fingerprint(), never).is_err(), "another root");

        // A root of the attacker's own, an operating key of theirs under the true root, another CA.
        let own = Certificate::issue(&key(9), operating.public(), 4, Millis(5));
        let forged = [
            CaStatement::sign(ca, &operating, &own, root.public()),
            CaStatement::sign(ca, &key(9), &certificate, root.public()),
            CaStatement { ca: key(9).public(), ..good.clone() },
            CaStatement { root: key(9).public(), ..good },
        ];
        for statement in forged {
            assert!(statement.open(&pinned, never).is_err(), "{statement:?}");
        }
    }

    #[test]
    fn other_uris_are_left_and_damaged_ones_told() {
        assert_eq!(CaStatement::from_uri("https://example.org/"), Ok(None));
        for bad in ["urn:banyan:ca:", "urn:banyan:ca:%%", "urn:banyan:ca:AAAA"] {
            assert!(CaStatement::from_uri(bad).is_err(), "{bad}");
        }
        assert!(CaStatement::from_uri(&format!("{URI_PREFIX}{}", "A".repeat(4096))).is_err());
    }

    #[test]
    fn keys_read_back_from_x509() {
        let key = key(7).public();
        assert_eq!(PublicKey::from_spki(&key.spki()), Some(key));
        assert_eq!(PublicKey::from_spki(&key.spki()[1..]), None);
        assert_eq!(PublicKey::from_spki(&[&key.spki()[..], &[0]].concat()), None);
    }
}
