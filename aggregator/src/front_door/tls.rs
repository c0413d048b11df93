//! TLS before a session: what the door shows, and what a client has proved by the handshake.
//!
//! TLS 1.3 only, with ring. The handshake takes any certificate over an Ed25519 key and so proves no more
//! than that the client has the key; whether it may enter is judged at CONNECT, where MQTT has codes for the
//! answer, and anew for every connection, resumed or not. Sessions are resumed from a table in memory: what
//! a client keeps is a number in it, worthless elsewhere and after a restart.
//!
//! Handshakes are what a stranger can make us compute. However many are open, so many are computed at a
//! time as leave a core for the rest, in the order they became ready; one that waits for its client holds
//! nothing.

use std::fmt;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::{Arc, PoisonError, RwLock};
use std::task::Poll;
use std::time::Duration;

use anyhow::{Context, Result};
use banyan_shared::ids::Millis;
use banyan_shared::keys::PublicKey;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{WebPkiSupportedAlgorithms, ring, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, TrustAnchor, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, PeerIncompatible,
    ServerConfig, SignatureScheme,
};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use webpki::{EndEntityCert, KeyUsage, ring as signatures};

use super::seats::Seat;
use super::sessions::Sessions;
use crate::identity::{GRACE_MS, Identity, VALIDITY_MS};

/// Sessions that can be resumed: every agent of a province, and some to spare. About 1 KB each.
const SESSIONS_MAX: usize = 32 * 1024;
/// Sessions a client is given to resume at a time: one connection, one session.
const SESSIONS_EACH: usize = 1;

/// What a client has shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Proof {
    /// Nothing: the connection is plain, from this machine.
    Plain,
    /// No certificate.
    Nothing,
    /// A certificate by another CA, or damaged.
    Foreign,
    /// One of ours whose grace is over.
    Expired,
    /// One the client signed itself: the key, and no more.
    Own(PublicKey),
    /// One of ours, at most in its grace.
    Issued(PublicKey),
}

/// The door's side of TLS.
pub struct DoorTls {
    acceptor: TlsAcceptor,
    server: Arc<ServerKey>,
    identity: Arc<Identity>,
    names: Vec<String>,
    computing: Semaphore,
}

impl fmt::Debug for DoorTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DoorTls").field("names", &self.names).finish_non_exhaustive()
    }
}

/// The server's present key with its certificate, and when it was made.
struct ServerKey {
    present: RwLock<(Arc<CertifiedKey>, Millis)>,
}

impl fmt::Debug for ServerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerKey").finish_non_exhaustive()
    }
}

impl ResolvesServerCert for ServerKey {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let present = self.present.read().unwrap_or_else(PoisonError::into_inner);
        Some(Arc::clone(&present.0))
    }
}

fn server_key(identity: &Identity, names: &[String], now: Millis) -> Result<Arc<CertifiedKey>> {
    let (certificate, key) = identity.ca.server(identity, names, now)?;
    let made = CertifiedKey::from_der(vec![certificate], key, &ring::default_provider());
    Ok(Arc::new(made.context("the server's certificate")?))
}

impl DoorTls {
    /// TLS for a server that agents dial by `names`. Its key lives in memory and is made anew at every
    /// start, so that there is no file that could be stolen or grow stale.
    ///
    /// # Errors
    /// If a name is none, or the system gives no random bytes.
    pub fn new(identity: Arc<Identity>, names: Vec<String>, now: Millis) -> Result<DoorTls> {
        let key = server_key(&identity, &names, now)?;
        let server = Arc::new(ServerKey { present: RwLock::new((key, now)) });
        let provider = Arc::new(ring::default_provider());
        let verifier = AnyKey { algorithms: provider.signature_verification_algorithms };
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_client_cert_verifier(Arc::new(verifier))
            .with_cert_resolver(server.clone());
        config.session_storage = Arc::new(Sessions::new(SESSIONS_MAX));
        config.send_tls13_tickets = SESSIONS_EACH;
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Ok(DoorTls {
            acceptor: TlsAcceptor::from(Arc::new(config)),
            server,
            identity,
            names,
            computing: Semaphore::new(cores.saturating_sub(1).max(1)),
        })
    }

    /// Makes the server's next key and certificate, if the present one has half its time behind it.
    ///
    /// # Errors
    /// As [`DoorTls::new`].
    pub fn renew(&self, now: Millis) -> Result<bool> {
        let made_at = self.server.present.read().unwrap_or_else(PoisonError::into_inner).1;
        if now < made_at.plus(VALIDITY_MS / 2) {
            return Ok(false);
        }
        let key = server_key(&self.identity, &self.names, now)?;
        *self.server.present.write().unwrap_or_else(PoisonError::into_inner) = (key, now);
        Ok(true)
    }

    /// The server's side of a handshake. The stream comes boxed: it is large, and a future that it is moved
    /// through has room for it at every step.
    ///
    /// # Errors
    /// [`Late`] if the client took longer than `patience`, of which the rest is left.
    pub(super) async fn accept<S>(
        &self,
        stream: S,
        seat: &Seat,
        patience: &mut Duration,
    ) -> Result<std::io::Result<Box<TlsStream<S>>>, Late>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let handshake = self.acceptor.accept(stream);
        let done = paced(&self.computing, handshake, |idle| seat.idle(idle), patience).await?;
        Ok(done.map(Box::new))
    }

    /// What the client at the other end has shown, as of `now`.
    pub(crate) fn proof<S>(&self, stream: &TlsStream<S>, now: Millis) -> Proof {
        match stream.get_ref().1.peer_certificates() {
            Some([certificate, ..]) => self.judge(certificate, now),
            _ => Proof::Nothing,
        }
    }

    fn judge(&self, certificate: &CertificateDer<'_>, now: Millis) -> Proof {
        let Some((read, key)) = read(certificate) else { return Proof::Foreign };
        let spki = self.identity.ca.public().spki();
        let Ok(own) = EndEntityCert::try_from(self.identity.ca.certificate()) else {
            return Proof::Foreign;
        };
        if read.issuer() != own.subject() {
            let by_itself = read.issuer() == read.subject();
            return if by_itself { Proof::Own(key) } else { Proof::Foreign };
        }
        // An anchor holds what is inside the outer SEQUENCE: tag and one byte of length less.
        let anchors = [TrustAnchor {
            subject: own.subject().into(),
            subject_public_key_info: spki[2..].into(),
            name_constraints: None,
        }];
        let at = |time: UnixTime| {
            let usage = KeyUsage::client_auth();
            read.verify_for_usage(&[signatures::ED25519], &anchors, &[], time, usage, None, None)
                .map(drop)
        };
        let seconds = u64::try_from(now.0 / 1000).unwrap_or(0);
        match at(UnixTime::since_unix_epoch(Duration::from_secs(seconds))) {
            Ok(()) => Proof::Issued(key),
            Err(webpki::Error::CertExpired { not_after, .. }) => {
                let grace = u64::try_from(GRACE_MS / 1000).unwrap_or(0);
                match at(not_after) {
                    Ok(()) if seconds <= not_after.as_secs().saturating_add(grace) => {
                        Proof::Issued(key)
                    }
                    Ok(()) => Proof::Expired,
                    Err(_) => Proof::Foreign,
                }
            }
            Err(_) => Proof::Foreign,
        }
    }
}

/// A certificate and the Ed25519 key it is over.
fn read<'a>(certificate: &'a CertificateDer<'_>) -> Option<(EndEntityCert<'a>, PublicKey)> {
    let read = EndEntityCert::try_from(certificate).ok()?;
    let key = PublicKey::from_spki(read.subject_public_key_info().as_ref())?;
    Some((read, key))
}

/// Takes every certificate over an Ed25519 key: that the client has the key, the handshake proves.
struct AnyKey {
    algorithms: WebPkiSupportedAlgorithms,
}

impl fmt::Debug for AnyKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AnyKey").finish_non_exhaustive()
    }
}

impl ClientCertVerifier for AnyKey {
    fn client_auth_mandatory(&self) -> bool {
        // Who shows none is told so at CONNECT.
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        match read(end_entity) {
            Some(_) => Ok(ClientCertVerified::assertion()),
            None => Err(Error::InvalidCertificate(CertificateError::BadEncoding)),
        }
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

/// The client took too long.
#[derive(Debug, thiserror::Error)]
#[error("the client took too long")]
pub(super) struct Late;

/// Runs `future` to its end, each step of it under a permit of `computing`, which is given back while the
/// future waits; `idle` is told when it begins and ends to wait. All its waiting together may take `patience`,
/// of which the rest is left; waiting for a permit is not its own.
async fn paced<F: Future>(
    computing: &Semaphore,
    future: F,
    idle: impl Fn(bool),
    patience: &mut Duration,
) -> Result<F::Output, Late> {
    let mut future = pin!(future);
    loop {
        // The semaphore is never closed.
        let permit = computing.acquire().await;
        let step = poll_fn(|context| Poll::Ready(future.as_mut().poll(context))).await;
        drop(permit);
        if let Poll::Ready(output) = step {
            return Ok(output);
        }
        // Whatever wakes the future wakes this task, and the next look goes on.
        idle(true);
        let begun = Instant::now();
        let mut woken = false;
        let wake = poll_fn(|_| {
            if std::mem::replace(&mut woken, true) { Poll::Ready(()) } else { Poll::Pending }
        });
        // Whether it was woken or the time was up, the clock tells.
        let _ = timeout(*patience, wake).await;
        *patience = patience.saturating_sub(begun.elapsed());
        if patience.is_zero() {
            return Err(Late);
        }
        idle(false);
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::sleep;

    use super::*;

    #[tokio::test]
    async fn waiting_for_a_turn_is_not_the_clients_time() {
        let computing = Semaphore::new(1);
        let held = computing.acquire().await.unwrap();
        let mut patience = Duration::from_secs(3);
        let client = async {
            sleep(Duration::from_millis(20)).await;
            sleep(Duration::from_millis(20)).await;
        };
        let handshake = paced(&computing, client, |_| {}, &mut patience);
        let turn = async {
            sleep(Duration::from_secs(4)).await;
            drop(held);
        };
        let (done, ()) = tokio::join!(handshake, turn);
        done.unwrap();
        assert!(patience <= Duration::from_millis(2_960), "{patience:?}");
    }

    #[tokio::test]
    async fn a_client_that_takes_its_time_piece_by_piece_runs_out_of_it() {
        let computing = Semaphore::new(1);
        let mut patience = Duration::from_millis(200);
        let client = async {
            for _ in 0..3 {
                sleep(Duration::from_millis(80)).await;
            }
        };
        paced(&computing, client, |_| {}, &mut patience).await.unwrap_err();
        assert_eq!((patience, computing.available_permits()), (Duration::ZERO, 1));
    }
}
