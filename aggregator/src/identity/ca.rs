//! The CA: certifies the centre's TLS server and the agents' keys.
//!
//! Its key is `DIR/keys/ca.key`; the operating key vouches for it in every server certificate
//! ([`CaStatement`]). `DIR/keys/ca.crt` is the same in PEM, for clients and brokers that are not ours. What
//! the CA issues is not recorded: who may connect, the state says.

use std::path::Path;

use anyhow::{Context, Result};
use banyan_shared::ids::Millis;
use banyan_shared::keys::{PublicKey, SigningKey, sha256};
use banyan_shared::pin::CaStatement;
use rcgen::string::Ia5String;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DistinguishedName,
    DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose,
    PKCS_ED25519, PublicKeyData, RevokedCertParams, SanType, SerialNumber, SignatureAlgorithm,
    date_time_ymd,
};
use ring::rand::SystemRandom;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::{Identity, write_secret};

/// The file of the CA's secret key.
pub(super) const CA_SECRET: &str = "ca.key";
/// The file of its certificate, in PEM.
pub(super) const CA_CERTIFICATE: &str = "ca.crt";

const DAY_MS: i64 = 24 * 3600 * 1000;
/// How long a certificate is valid: as long as agents keep what they sent.
pub const VALIDITY_MS: i64 = 400 * DAY_MS;
/// How long after that an agent is still let in, to fetch the next one.
pub const GRACE_MS: i64 = 400 * DAY_MS;
/// From when on an agent asks for the next one, after it was issued.
const RENEW_AFTER_MS: i64 = VALIDITY_MS / 2;

/// Under which name the centre shows itself to an external broker: no agent's id.
pub const CENTRE_NAME: &str = "banyan-aggregator";
/// How far back a list of revocations begins, for brokers whose clocks are behind.
const REVOCATIONS_SINCE_MS: i64 = DAY_MS;

/// The CA in memory.
pub struct Ca {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
    public: PublicKey,
}

/// A certificate for an agent.
pub struct IssuedCertificate {
    /// X.509 in DER.
    pub certificate: Vec<u8>,
    /// From when on the next one should be asked for.
    pub renew_from: Millis,
    /// When it expires.
    pub expires: Millis,
}

/// A key to be certified, as `rcgen` wants it.
struct Subject<'a>(&'a PublicKey);

impl PublicKeyData for Subject<'_> {
    fn der_bytes(&self) -> &[u8] {
        &self.0.0
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &PKCS_ED25519
    }
}

/// The number of every certificate over a key, so that revoking the key needs no record of certificates.
fn serial_of(key: &PublicKey) -> SerialNumber {
    // At most 20 bytes, and not negative.
    let mut serial = sha256(&[&key.0])[..20].to_vec();
    serial[0] &= 0x7f;
    SerialNumber::from(serial)
}

fn named(name: &str) -> DistinguishedName {
    let mut distinguished = DistinguishedName::new();
    distinguished.push(DnType::CommonName, name);
    distinguished
}

fn since_1970(moment: Millis) -> std::time::Duration {
    std::time::Duration::from_secs(u64::try_from(moment.0 / 1000).unwrap_or(0))
}

/// A block of a PEM file.
pub(crate) fn pem(label: &str, der: &[u8]) -> String {
    let text = data_encoding::BASE64.encode(der);
    let lines: Vec<&str> =
        text.as_bytes().chunks(64).filter_map(|line| str::from_utf8(line).ok()).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}

/// A certificate valid from long ago, so that a clock set back locks nobody out, until `until`.
fn params(name: &str, until: Millis) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = named(name);
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = date_time_ymd(1970, 1, 1) + since_1970(until);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.use_authority_key_identifier_extension = true;
    params
}

impl Ca {
    /// Makes a CA and writes its files into the folder `keys`.
    pub(super) fn create(keys: &Path) -> Result<Ca> {
        let key = SigningKey::generate(&SystemRandom::new())?;
        Ca::put(keys, &key)
    }

    /// Writes the files of the CA with this key into the folder `keys`.
    pub(super) fn put(keys: &Path, key: &SigningKey) -> Result<Ca> {
        let ca = Ca::from_key(key)?;
        write_secret(&keys.join(CA_CERTIFICATE), ca.pem().as_bytes())?;
        write_secret(&keys.join(CA_SECRET), key.pkcs8())?;
        Ok(ca)
    }

    /// Reads the CA in the folder `keys`; makes one where there is none.
    pub(super) fn open(keys: &Path) -> Result<Ca> {
        let path = keys.join(CA_SECRET);
        match std::fs::read(&path) {
            Ok(pkcs8) => {
                let key = SigningKey::from_pkcs8(&pkcs8);
                Ca::from_key(&key.with_context(|| format!("reading {}", path.display()))?)
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ca::create(keys),
            Err(error) => Err(error).with_context(|| format!("reading {}", path.display())),
        }
    }

    /// The certificate follows from the key alone, so that no clock and no second file can part the two.
    pub(super) fn from_key(key: &SigningKey) -> Result<Ca> {
        let pair = KeyPair::from_pkcs8_der_and_sign_algo(&key.pkcs8().into(), &PKCS_ED25519)?;
        let mut params = CertificateParams::default();
        params.distinguished_name = named(&format!("Banyan CA {}", key.public().agent_id()));
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(2100, 1, 1);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate = params.self_signed(&pair)?.der().clone();
        Ok(Ca { issuer: Issuer::new(params, pair), certificate, public: key.public() })
    }

    /// The CA's key.
    pub fn public(&self) -> PublicKey {
        self.public
    }

    /// Its certificate, signed by itself.
    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// The same in PEM.
    pub fn pem(&self) -> String {
        pem("CERTIFICATE", &self.certificate)
    }

    /// Certifies an agent's key.
    ///
    /// # Errors
    /// If it cannot be signed.
    pub fn certify(&self, key: &PublicKey, now: Millis) -> Result<IssuedCertificate> {
        let expires = now.plus(VALIDITY_MS);
        let mut params = params(&key.agent_id().to_string(), expires);
        params.serial_number = Some(serial_of(key));
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let certificate = params.signed_by(&Subject(key), &self.issuer)?;
        let renew_from = now.plus(RENEW_AFTER_MS);
        Ok(IssuedCertificate { certificate: certificate.der().to_vec(), renew_from, expires })
    }

    /// A new key for the centre as a broker's client and its certificate, in [`CENTRE_NAME`].
    ///
    /// # Errors
    /// If the system gives no random bytes.
    pub fn client(&self, now: Millis) -> Result<(CertificateDer<'static>, PrivateKeyDer<'static>)> {
        let key = SigningKey::generate(&SystemRandom::new())?;
        let mut params = params(CENTRE_NAME, now.plus(VALIDITY_MS));
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let certificate = params.signed_by(&Subject(&key.public()), &self.issuer)?;
        Ok((certificate.der().clone(), PrivateKeyDer::Pkcs8(key.pkcs8().to_vec().into())))
    }

    /// The list, in PEM, of what brokers must no longer take: every certificate over one of these keys. It
    /// holds as long as a server's certificate; a broker takes nobody by a list that is out of date.
    ///
    /// # Errors
    /// If it cannot be signed.
    pub fn revocations(&self, keys: &[PublicKey], now: Millis) -> Result<String> {
        let at = date_time_ymd(1970, 1, 1) + since_1970(now);
        let revoked = |key| RevokedCertParams {
            serial_number: serial_of(key),
            revocation_time: at,
            reason_code: None,
            invalidity_date: None,
        };
        let list = CertificateRevocationListParams {
            this_update: at - std::time::Duration::from_millis(REVOCATIONS_SINCE_MS.unsigned_abs()),
            next_update: date_time_ymd(1970, 1, 1) + since_1970(now.plus(VALIDITY_MS)),
            crl_number: SerialNumber::from(since_1970(now).as_secs()),
            issuing_distribution_point: None,
            revoked_certs: keys.iter().map(revoked).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        Ok(pem("X509 CRL", list.signed_by(&self.issuer)?.der()))
    }

    /// A new key for the TLS server and its certificate, for the names agents dial.
    ///
    /// # Errors
    /// If a name is none, or the system gives no random bytes.
    pub fn server(
        &self,
        identity: &Identity,
        names: &[String],
        now: Millis,
    ) -> Result<(CertificateDer<'static>, PrivateKeyDer<'static>)> {
        let key = SigningKey::generate(&SystemRandom::new())?;
        let certificate = self.certify_server(&key.public(), identity, names, now)?;
        Ok((certificate, PrivateKeyDer::Pkcs8(key.pkcs8().to_vec().into())))
    }

    /// A certificate over the key of a TLS server, for the names agents dial.
    ///
    /// # Errors
    /// If a name is none.
    pub fn certify_server(
        &self,
        key: &PublicKey,
        identity: &Identity,
        names: &[String],
        now: Millis,
    ) -> Result<CertificateDer<'static>> {
        let name = names.first().context("a server has a name")?;
        let mut params = params(name, now.plus(VALIDITY_MS));
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.subject_alt_names = names
            .iter()
            .map(|name| match name.parse() {
                Ok(address) => Ok(SanType::IpAddress(address)),
                Err(_) => Ia5String::try_from(name.as_str())
                    .map(SanType::DnsName)
                    .with_context(|| format!("{name:?} is no name of a host")),
            })
            .collect::<Result<Vec<SanType>>>()?;
        let Identity { key: operating, certificate, root, .. } = identity;
        let statement = CaStatement::sign(self.public, operating, certificate, *root);
        params.subject_alt_names.push(SanType::URI(Ia5String::try_from(statement.to_uri())?));
        Ok(params.signed_by(&Subject(key), &self.issuer)?.der().clone())
    }
}
