//! Where HTTP comes in: plain or by TLS, within limits.
//!
//! Promises that a connection that says nothing, sends its head slowly, or does not take its answer is
//! closed; that handshakes are not made on the way of accepting others; and that there are at most
//! [`CONNECTIONS_MAX`] connections, [`OF_ADDRESS_MAX`] of them from one address. Who may ask what is the
//! guard's.

use std::collections::HashMap;
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context as TaskContext, Poll, ready};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use axum::Router;
use hyper::body::Incoming;
use hyper::service::Service as _;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpListener;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::Sleep;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::{Peer, lock};
use crate::identity::write_secret;

/// Most connections at once.
const CONNECTIONS_MAX: usize = 1024;
/// Most of them from one address: a county office may sit behind one.
const OF_ADDRESS_MAX: usize = 256;
/// Most TLS handshakes at once.
const HANDSHAKES_MAX: usize = 64;
/// How long a handshake may take.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the head of a request may take, and how long a connection may be idle between two.
const HEAD_TIMEOUT: Duration = Duration::from_secs(20);
/// How long an answer may not be taken any further.
const WRITE_TIMEOUT: Duration = Duration::from_secs(60);
/// Longest head of a request, in bytes, and most lines in it.
const HEAD_BYTES_MAX: usize = 32 * 1024;
const HEAD_LINES_MAX: usize = 64;
/// What is waited after an accept that failed: with no file descriptor left it fails at once again.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What a listening socket bears.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) connections: usize,
    pub(super) of_address: usize,
    pub(super) handshake: Duration,
    pub(super) head: Duration,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            connections: CONNECTIONS_MAX,
            of_address: OF_ADDRESS_MAX,
            handshake: HANDSHAKE_TIMEOUT,
            head: HEAD_TIMEOUT,
        }
    }
}

/// A listening socket.
pub struct HttpListener {
    tcp: TcpListener,
    tls: Option<TlsAcceptor>,
    limits: Limits,
    connections: Arc<Semaphore>,
    handshakes: Arc<Semaphore>,
    by_address: Arc<Mutex<HashMap<IpAddr, usize>>>,
}

/// A place among the connections, given back when dropped.
struct Place {
    address: IpAddr,
    by_address: Arc<Mutex<HashMap<IpAddr, usize>>>,
    _permit: OwnedSemaphorePermit,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut by_address = lock(&self.by_address);
        if let Some(count) = by_address.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                by_address.remove(&self.address);
            }
        }
    }
}

impl HttpListener {
    /// Listens on `address`.
    ///
    /// # Errors
    /// If it cannot be bound.
    pub async fn bind(address: SocketAddr, tls: Option<Arc<ServerConfig>>) -> Result<HttpListener> {
        HttpListener::bind_with(address, tls, Limits::default()).await
    }

    pub(super) async fn bind_with(
        address: SocketAddr,
        tls: Option<Arc<ServerConfig>>,
        limits: Limits,
    ) -> Result<HttpListener> {
        let tcp = TcpListener::bind(address).await.with_context(|| {
            format!(
                "cannot listen on {address}: free the address or choose another with --http-addr"
            )
        })?;
        Ok(HttpListener {
            tcp,
            tls: tls.map(TlsAcceptor::from),
            limits,
            connections: Arc::new(Semaphore::new(limits.connections)),
            handshakes: Arc::new(Semaphore::new(HANDSHAKES_MAX)),
            by_address: Arc::default(),
        })
    }

    /// Where it listens.
    ///
    /// # Errors
    /// What the system says.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.tcp.local_addr()
    }

    fn place(&self, address: IpAddr) -> Option<Place> {
        let permit = self.connections.clone().try_acquire_owned().ok()?;
        let mut by_address = lock(&self.by_address);
        let count = by_address.entry(address).or_default();
        if *count >= self.limits.of_address {
            return None;
        }
        *count += 1;
        drop(by_address);
        Some(Place { address, by_address: self.by_address.clone(), _permit: permit })
    }

    /// Serves until told to stop; then lets every request that is being answered come to its end.
    pub async fn run(self, router: Router, mut stopped: watch::Receiver<bool>) {
        let mut running = tokio::task::JoinSet::new();
        loop {
            let accepted = tokio::select! {
                accepted = self.tcp.accept() => accepted,
                () = crate::intake::told(&mut stopped) => break,
                Some(_) = running.join_next() => continue,
            };
            let (stream, from) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "an HTTP connection could not be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let Some(place) = self.place(from.ip()) else {
                tracing::debug!(%from, "too many HTTP connections");
                continue;
            };
            let (router, stopped, head) = (router.clone(), stopped.clone(), self.limits.head);
            let connection = Connection { router, from, stopped, head };
            match &self.tls {
                None => {
                    running.spawn(async move {
                        let _place = place;
                        connection.serve(stream).await;
                    });
                }
                Some(tls) => {
                    let Ok(turn) = self.handshakes.clone().try_acquire_owned() else { continue };
                    let (tls, limit) = (tls.clone(), self.limits.handshake);
                    running.spawn(async move {
                        let _place = place;
                        let shaken = tokio::time::timeout(limit, tls.accept(stream));
                        let shaken = shaken.await;
                        drop(turn);
                        match shaken {
                            Ok(Ok(stream)) => connection.serve(Box::new(stream)).await,
                            Ok(Err(error)) => tracing::debug!(%from, %error, "TLS handshake"),
                            Err(_) => tracing::debug!(%from, "TLS handshake: too slow"),
                        }
                    });
                }
            }
        }
        while running.join_next().await.is_some() {}
    }
}

struct Connection {
    router: Router,
    from: SocketAddr,
    stopped: watch::Receiver<bool>,
    head: Duration,
}

impl Connection {
    async fn serve(mut self, stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) {
        let peer = Peer { address: self.from.ip() };
        let router = TowerToHyperService::new(self.router);
        let answer = hyper::service::service_fn(move |mut request: hyper::Request<Incoming>| {
            request.extensions_mut().insert(peer);
            router.call(request)
        });
        let mut builder = hyper::server::conn::http1::Builder::new();
        builder
            .timer(TokioTimer::new())
            .header_read_timeout(self.head)
            .max_buf_size(HEAD_BYTES_MAX)
            .max_headers(HEAD_LINES_MAX);
        let io = TokioIo::new(Taken { io: stream, waiting: None });
        let mut connection = std::pin::pin!(builder.serve_connection(io, answer));
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            () = crate::intake::told(&mut self.stopped) => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = ended {
            tracing::trace!(from = %self.from, %error, "an HTTP connection ended");
        }
    }
}

/// A stream whose writing fails when the other end does not take what is written.
struct Taken<I> {
    io: I,
    waiting: Option<Pin<Box<Sleep>>>,
}

impl<I: Unpin> Taken<I> {
    fn in_time<T>(
        &mut self,
        context: &mut TaskContext<'_>,
        done: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if done.is_ready() {
            self.waiting = None;
            return done;
        }
        let waiting =
            self.waiting.get_or_insert_with(|| Box::pin(tokio::time::sleep(WRITE_TIMEOUT)));
        ready!(waiting.as_mut().poll(context));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<I: AsyncRead + Unpin> AsyncRead for Taken<I> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut TaskContext<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(context, into)
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for Taken<I> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut TaskContext<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let done = Pin::new(&mut self.io).poll_write(context, bytes);
        self.in_time(context, done)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut TaskContext<'_>) -> Poll<io::Result<()>> {
        let done = Pin::new(&mut self.io).poll_flush(context);
        self.in_time(context, done)
    }

    fn poll_shutdown(
        mut self: Pin<&mut Self>,
        context: &mut TaskContext<'_>,
    ) -> Poll<io::Result<()>> {
        let done = Pin::new(&mut self.io).poll_shutdown(context);
        self.in_time(context, done)
    }
}

/// TLS 1.2 and 1.3 with a certificate chain and key in PEM files.
///
/// # Errors
/// If a file cannot be read or holds none.
pub fn tls_config(certificate: &Path, key: &Path) -> Result<Arc<ServerConfig>> {
    let reading = |path: &Path| format!("reading {}", path.display());
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_file_iter(certificate)
        .and_then(Iterator::collect)
        .with_context(|| reading(certificate))?;
    if chain.is_empty() {
        bail!("{} holds no certificate in PEM form", certificate.display());
    }
    let key = PrivateKeyDer::from_pem_file(key).with_context(|| reading(key))?;
    let provider = Arc::new(tokio_rustls::rustls::crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .context("certificate and key do not belong together")?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// The certificate the centre makes for itself, once, for these names and addresses; its SHA-256 is what
/// people compare in their browser.
///
/// # Errors
/// A name that is none, or what the disk says.
pub fn self_made(dir: &Path, names: &[String]) -> Result<(Arc<ServerConfig>, String)> {
    let folder = dir.join("access");
    let (certificate, key) = (folder.join("http-cert.pem"), folder.join("http-key.pem"));
    if !certificate.exists() || !key.exists() {
        std::fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
        let mut params = rcgen::CertificateParams::new(names.to_vec())
            .with_context(|| format!("{} are no host names or addresses", names.join(", ")))?;
        let mut name = rcgen::DistinguishedName::new();
        name.push(rcgen::DnType::CommonName, "Banyan");
        params.distinguished_name = name;
        let pair = rcgen::KeyPair::generate().context("making a key")?;
        let made = params.self_signed(&pair).context("making a certificate")?;
        write_secret(&key, pair.serialize_pem().as_bytes())?;
        write_secret(&certificate, made.pem().as_bytes())?;
    }
    let config = tls_config(&certificate, &key)?;
    let first = CertificateDer::from_pem_file(&certificate).context("reading the certificate")?;
    let sum = banyan_shared::keys::sha256(&[&first]);
    let hex: Vec<String> = sum.iter().map(|byte| format!("{byte:02X}")).collect();
    Ok((config, hex.join(":")))
}
