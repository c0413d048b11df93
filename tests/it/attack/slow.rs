//! Silence, slowness, and connections that break off in the middle of everything.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use banyan_shared::topic;
use banyan_tests::raw::{connect, publish, read_packet, tcp, tls, will_reset};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;

use super::scene::{Ground, each};
use super::{Scene, times};

/// Slow ones of each kind.
const SLOW: usize = 100;
/// How long the door may leave a stranger its connection: 10 s from when it takes it, and the system may offer
/// it one of a thousand at once only after its fifth try, 31 s later.
const LONG: Duration = Duration::from_secs(60);

/// Writes a byte now and then until the other end closes.
async fn dribble(stream: &mut (impl AsyncRead + AsyncWrite + Unpin), bytes: &[u8]) {
    for byte in bytes {
        if stream.write_all(&[*byte]).await.is_err() || stream.flush().await.is_err() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

async fn closed(stream: &mut (impl AsyncRead + Unpin)) {
    let read = async { while matches!(stream.read(&mut [0; 64]).await, Ok(1..)) {} };
    tokio::time::timeout(LONG, read).await.expect("the door closes");
}

#[test]
fn silence_and_slowness_keep_nobody_waiting() {
    let scene = Scene::new();
    let ground = scene.ground.clone();
    let silent = times();
    let what = format!("{silent} silent sockets, {SLOW} slow handshakes, CONNECTs and packets");
    scene.attack(&what, async move {
        let mut held = JoinSet::new();
        for n in 0..silent + 2 * SLOW {
            let ground = ground.clone();
            held.spawn(async move {
                let mut stream = tcp(ground.door, None).await.unwrap();
                if n < SLOW {
                    dribble(&mut stream, &client_hello(&ground)).await;
                } else if n < 2 * SLOW {
                    let (agent, config) = ground.issued(n as u16);
                    let mut stream = tls(stream, &config).await.unwrap();
                    dribble(&mut stream, &connect(&agent.to_string())).await;
                    return closed(&mut stream).await;
                }
                closed(&mut stream).await;
            });
        }
        // A packet has minutes, since lines are slow: whoever begins one holds its own session only.
        let mut slow = Vec::new();
        for n in 0..SLOW {
            let (agent, config) = ground.issued(1000 + n as u16);
            let mut stream = ground.enter(&config, agent).await;
            let bytes = publish(&topic::up(agent), 1, &[0; 100_000]);
            stream.write_all(&bytes[..bytes.len() / 2]).await.unwrap();
            slow.push(stream);
        }
        while let Some(done) = held.join_next().await {
            done.unwrap();
        }
        for stream in &mut slow {
            stream.write_all(&[0]).await.unwrap();
        }
    });
    scene.until_refused("connect_timeout", (silent + 2 * SLOW) as u64);
    scene.is_logged("connect_timeout");
    scene.ends_well();
}

/// The first flight of a client.
fn client_hello(ground: &Ground) -> Vec<u8> {
    let (_, config) = ground.issued(0);
    let name = ServerName::try_from("127.0.0.1").unwrap();
    let mut connection = rustls::ClientConnection::new(config, name).unwrap();
    let mut bytes = Vec::new();
    connection.write_tls(&mut bytes).unwrap();
    bytes
}

/// A stream that lets so many bytes out, then none.
struct Cut {
    stream: TcpStream,
    left: usize,
    written: usize,
}

impl AsyncRead for Cut {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Cut {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        if self.left == 0 {
            return Poll::Ready(Err(std::io::ErrorKind::BrokenPipe.into()));
        }
        let some = &bytes[..bytes.len().min(self.left)];
        let written = Pin::new(&mut self.stream).poll_write(context, some);
        if let Poll::Ready(Ok(n)) = written {
            self.left -= n;
            self.written += n;
        }
        written
    }

    fn poll_flush(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

/// Handshake and CONNECT up to a byte, then a reset; how many bytes went out, and whether it got its CONNACK.
async fn broken_off(ground: &Ground, after: usize) -> (usize, bool) {
    // A new configuration each time: every handshake is a whole one.
    let (agent, config) = ground.issued(7);
    let stream = tcp(ground.door, None).await.unwrap();
    will_reset(&stream).unwrap();
    let cut = Cut { stream, left: after, written: 0 };
    let name = ServerName::try_from("127.0.0.1").unwrap();
    match TlsConnector::from(config).connect(name, cut).await {
        Ok(mut stream) => {
            let connack = async {
                stream.write_all(&connect(&agent.to_string())).await?;
                stream.flush().await?;
                read_packet(&mut stream).await
            };
            let accepted = connack.await.is_ok();
            (stream.get_ref().0.written, accepted)
        }
        Err(_) => (after, false),
    }
}

#[test]
fn a_reset_at_any_byte_of_handshake_and_connect_harms_nobody() {
    let scene = Scene::new();
    let ground = scene.ground.clone();
    let cuts = scene.attack("a reset at every byte of handshake and CONNECT", async move {
        let (all, accepted) = broken_off(&ground, usize::MAX).await;
        assert!(accepted && all > 500, "{all}");
        // Signatures and their encoding may take a byte more or less.
        each(all + 8, 8, move |after| {
            let ground: Arc<Ground> = ground.clone();
            async move {
                broken_off(&ground, after).await;
            }
        })
        .await;
        all
    });
    assert!(scene.door("accepted") >= cuts as u64);
    scene.ends_well();
}
