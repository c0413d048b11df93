//! TLS on the agent's side: whom it believes, and what it shows.
//!
//! The server is believed if its certificate has the name dialled and goes back to the pinned root
//! ([`CaStatement`]); signatures are all checked, dates are not: the PC's clock may stand in any year, and
//! the centre applies expiry. The agent shows the certificate it was given over its own key, or, while it
//! has none, one it signed itself: either proves the key, and the id follows from the key.

use std::fmt;
use std::sync::Arc;

use banyan_shared::keys::{PublicKey, Rank, SigningKey};
use banyan_shared::pin::CaStatement;
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, PKCS_ED25519};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{WebPkiSupportedAlgorithms, ring, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, TrustAnchor, UnixTime};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, OtherError, PeerIncompatible,
    SignatureScheme,
};
use webpki::{EndEntityCert, KeyUsage, ring as signatures};

/// What a connection shows the centre.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shown {
    /// A certificate the agent signed itself: enough to be enrolled or to introduce itself.
    Own,
    /// The certificate the centre issued.
    Issued,
}

/// Whom the agent believes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pin {
    /// Fingerprint of the root.
    pub root: [u8; 16],
    /// How late the newest operating key known is; earlier ones are not believed.
    pub newest: Rank,
}

/// Why TLS cannot be set up.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("TLS cannot be set up（无法建立 TLS）: {0}")]
pub struct TlsError(String);

/// A configuration for connections to the centre; keep it, so that sessions are resumed. `issued` is the
/// certificate the centre gave, in DER; without it the agent signs one itself.
///
/// # Errors
/// [`TlsError`] if the key or the certificate is damaged or they do not belong together.
pub fn client_config(
    key: &SigningKey,
    issued: Option<&[u8]>,
    pin: Pin,
) -> Result<Arc<ClientConfig>, TlsError> {
    let certificate = match issued {
        Some(der) => CertificateDer::from(der.to_vec()),
        None => own_certificate(key)?,
    };
    let provider = Arc::new(ring::default_provider());
    let verifier = Arc::new(Pinned { pin, algorithms: provider.signature_verification_algorithms });
    let secret = PrivateKeyDer::Pkcs8(key.pkcs8().to_vec().into());
    let config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|error| TlsError(error.to_string()))?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_client_auth_cert(vec![certificate], secret)
        .map_err(|error| TlsError(error.to_string()))?;
    Ok(Arc::new(config))
}

/// A certificate over the agent's key by that key, named by the agent's id.
fn own_certificate(key: &SigningKey) -> Result<CertificateDer<'static>, TlsError> {
    let failed = |error: rcgen::Error| TlsError(error.to_string());
    let pair = KeyPair::from_pkcs8_der_and_sign_algo(&key.pkcs8().into(), &PKCS_ED25519);
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    let id = key.public().agent_id().to_string();
    params.distinguished_name.push(DnType::CommonName, id);
    let certificate = params.self_signed(&pair.map_err(failed)?).map_err(failed)?;
    Ok(certificate.der().clone())
}

/// Whether `certificate` (DER) is over `key`.
pub(crate) fn is_over(certificate: &[u8], key: &PublicKey) -> bool {
    EndEntityCert::try_from(&CertificateDer::from(certificate))
        .is_ok_and(|read| read.subject_public_key_info().as_ref() == key.spki())
}

/// Believes a server by the pinned root and the name dialled.
struct Pinned {
    pin: Pin,
    algorithms: WebPkiSupportedAlgorithms,
}

impl fmt::Debug for Pinned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pinned").field("pin", &self.pin).finish_non_exhaustive()
    }
}

fn invalid(error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(error))))
}

impl Pinned {
    /// Checks the certificate's signature, purpose and constraints under the CA its statement names, at a
    /// time when it is valid.
    fn check_chain(&self, certificate: &EndEntityCert<'_>) -> Result<(), Error> {
        let mut statement = None;
        for uri in certificate.valid_uri_names() {
            statement = statement.or(CaStatement::from_uri(uri).map_err(invalid)?);
        }
        let statement =
            statement.ok_or(Error::InvalidCertificate(CertificateError::UnknownIssuer))?;
        let ca = statement.open(&self.pin.root, self.pin.newest).map_err(invalid)?;
        let spki = ca.spki();
        // An anchor holds what is inside the outer SEQUENCE: tag and one byte of length less.
        let anchors = [TrustAnchor {
            subject: certificate.issuer().into(),
            subject_public_key_info: spki[2..].into(),
            name_constraints: None,
        }];
        let at = |time: UnixTime| {
            certificate
                .verify_for_usage(
                    &[signatures::ED25519],
                    &anchors,
                    &[],
                    time,
                    KeyUsage::server_auth(),
                    None,
                    None,
                )
                .map(drop)
        };
        // The beginning of time is before every validity: the refusal tells when that begins.
        match at(UnixTime::since_unix_epoch(std::time::Duration::ZERO)) {
            Err(webpki::Error::CertNotValidYet { not_before, .. }) => at(not_before),
            result => result,
        }
        .map_err(invalid)
    }
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let certificate = EndEntityCert::try_from(end_entity).map_err(invalid)?;
        self.check_chain(&certificate)?;
        certificate.verify_is_valid_for_subject_name(server_name).map_err(invalid)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(PeerIncompatible::Tls12NotOfferedOrEnabled.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }
}
