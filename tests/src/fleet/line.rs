//! A line with faults, as a wrapper of the stream below TLS: it counts bytes, delays, slows, breaks in the
//! middle of a packet.

use std::io;
use std::pin::Pin;
use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep};

use super::random::Random;

/// Bytes a slow line takes at a time.
const PIECE_BYTES: usize = 512;
/// Bytes read at a time.
const READ_BYTES: usize = 4096;

/// What is wrong with a line.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Faults {
    /// How long every piece down is held back, and how long the line is busy after every piece up.
    pub delay: Duration,
    /// Bytes a second, each way; none for as fast as it goes.
    pub rate: Option<u32>,
    /// The share of reads and writes at which the connection is lost.
    pub lose: f64,
    /// The share of writes that go only in part, before the connection is lost.
    pub cut: f64,
    /// The share of messages delivered twice.
    pub twice: f64,
}

impl Faults {
    /// Whether there are none.
    pub fn is_perfect(&self) -> bool {
        *self == Faults::default()
    }
}

impl FromStr for Faults {
    type Err = String;

    fn from_str(text: &str) -> Result<Faults, String> {
        let ms = Duration::from_millis;
        match text {
            "perfect" => return Ok(Faults::default()),
            "2g" => {
                return Ok(Faults {
                    delay: ms(300),
                    rate: Some(4_000),
                    lose: 0.002,
                    cut: 0.002,
                    ..Faults::default()
                });
            }
            "satellite" => {
                return Ok(Faults { delay: ms(600), rate: Some(32_000), ..Faults::default() });
            }
            "bad" => {
                return Ok(Faults { delay: ms(2), rate: None, lose: 0.01, cut: 0.02, twice: 0.05 });
            }
            _ => {}
        }
        let mut faults = Faults::default();
        for part in text.split(',') {
            let (name, value) = part.split_once('=').ok_or_else(|| {
                format!(
                    "{part:?}: write perfect, 2g, satellite, bad, or parts as \
                     delay=200ms,rate=4000,lose=0.01,cut=0.01,twice=0.02"
                )
            })?;
            let share = || match value.parse::<f64>() {
                Ok(share) if (0.0..=1.0).contains(&share) => Ok(share),
                _ => Err(format!("{name}={value}: write a share from 0 to 1")),
            };
            match name {
                "delay" => {
                    let number = value.strip_suffix("ms").unwrap_or(value).parse();
                    faults.delay =
                        ms(number.map_err(|_| format!("delay={value}: write it as 200ms"))?);
                }
                "rate" => {
                    let rate = value.parse().ok().filter(|rate| *rate > 0);
                    faults.rate =
                        Some(rate.ok_or_else(|| format!("rate={value}: write bytes a second"))?);
                }
                "lose" => faults.lose = share()?,
                "cut" => faults.cut = share()?,
                "twice" => faults.twice = share()?,
                _ => return Err(format!("{name}: parts are delay, rate, lose, cut, twice")),
            }
        }
        Ok(faults)
    }
}

/// Bytes that went each way, in one layer.
#[derive(Debug, Default)]
pub(super) struct Ways {
    pub(super) up: AtomicU64,
    pub(super) down: AtomicU64,
}

impl Ways {
    pub(super) fn add_up(&self, bytes: usize) {
        self.up.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(super) fn add_down(&self, bytes: usize) {
        self.down.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// From nothing again.
    fn reset(&self) {
        self.up.store(0, Ordering::Relaxed);
        self.down.store(0, Ordering::Relaxed);
    }

    pub(super) fn values(&self) -> (u64, u64) {
        (self.up.load(Ordering::Relaxed), self.down.load(Ordering::Relaxed))
    }
}

/// What went over all lines, layer by layer.
#[derive(Debug, Default)]
pub(super) struct Traffic {
    /// In TCP: TLS records.
    pub(super) tls: Ways,
    /// In TLS: MQTT packets.
    pub(super) mqtt: Ways,
    /// In PUBLISH: signed messages.
    pub(super) payload: Ways,
    /// Messages published again on purpose.
    pub(super) twice: AtomicU64,
}

impl Traffic {
    /// Counts from nothing again: the measured time begins.
    pub(super) fn reset(&self) {
        [&self.tls, &self.mqtt, &self.payload].into_iter().for_each(Ways::reset);
        self.twice.store(0, Ordering::Relaxed);
    }
}

/// A piece held back on its way down.
struct Held {
    bytes: Vec<u8>,
    taken: usize,
    until: Pin<Box<Sleep>>,
}

/// What a faulty line remembers; a perfect one has none of it.
struct Faulty {
    faults: Faults,
    random: Random,
    broken: bool,
    held: Option<Held>,
    /// Until when the line is busy with what was written.
    busy: Option<Pin<Box<Sleep>>>,
}

/// A line over TCP.
pub(super) struct Line {
    stream: TcpStream,
    traffic: std::sync::Arc<Traffic>,
    faulty: Option<Box<Faulty>>,
}

fn lost() -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionReset, "the simulated line was lost")
}

impl Line {
    pub(super) fn new(
        stream: TcpStream,
        traffic: std::sync::Arc<Traffic>,
        faults: Faults,
        random: Random,
    ) -> Line {
        let faulty = (!faults.is_perfect())
            .then(|| Box::new(Faulty { faults, random, broken: false, held: None, busy: None }));
        Line { stream, traffic, faulty }
    }
}

impl Faulty {
    fn strikes(&mut self, share: f64) -> io::Result<()> {
        self.broken |= self.random.chance(share);
        if self.broken { Err(lost()) } else { Ok(()) }
    }

    /// How long the line needs for so many bytes.
    fn takes(&self, bytes: usize) -> Duration {
        let rate = self.faults.rate.map_or(0.0, |rate| bytes as f64 / f64::from(rate));
        self.faults.delay + Duration::from_secs_f64(rate)
    }
}

impl AsyncRead for Line {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let Some(faulty) = &mut this.faulty else {
            let before = buffer.filled().len();
            ready!(Pin::new(&mut this.stream).poll_read(context, buffer))?;
            this.traffic.tls.add_down(buffer.filled().len() - before);
            return Poll::Ready(Ok(()));
        };
        if faulty.broken {
            return Poll::Ready(Err(lost()));
        }
        if faulty.held.is_none() {
            let most = if faulty.faults.rate.is_some() { PIECE_BYTES } else { READ_BYTES };
            let mut bytes = vec![0; most];
            let mut piece = ReadBuf::new(&mut bytes);
            ready!(Pin::new(&mut this.stream).poll_read(context, &mut piece))?;
            let length = piece.filled().len();
            this.traffic.tls.add_down(length);
            bytes.truncate(length);
            if length > 0 {
                let share = faulty.faults.lose;
                faulty.strikes(share)?;
            }
            let until = Box::pin(tokio::time::sleep_until(Instant::now() + faulty.takes(length)));
            faulty.held = Some(Held { bytes, taken: 0, until });
        }
        if let Some(held) = &mut faulty.held {
            ready!(held.until.as_mut().poll(context));
            let rest = &held.bytes[held.taken..];
            let taken = rest.len().min(buffer.remaining());
            buffer.put_slice(&rest[..taken]);
            held.taken += taken;
            if held.taken == held.bytes.len() {
                faulty.held = None;
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Line {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        let mut length = bytes.len();
        if let Some(faulty) = &mut this.faulty {
            if faulty.broken {
                return Poll::Ready(Err(lost()));
            }
            if let Some(busy) = &mut faulty.busy {
                ready!(busy.as_mut().poll(context));
                faulty.busy = None;
            }
            if faulty.faults.rate.is_some() {
                length = length.min(PIECE_BYTES);
            }
            let (lose, cut) = (faulty.faults.lose, faulty.faults.cut);
            faulty.strikes(lose)?;
            if length > 1 && faulty.random.chance(cut) {
                // Some of it still goes out; then the line is gone for both ends.
                let part = 1 + faulty.random.below(length as u64 - 1) as usize;
                let written = Pin::new(&mut this.stream).poll_write(context, &bytes[..part]);
                faulty.broken = true;
                if let Poll::Ready(Ok(written)) = written {
                    this.traffic.tls.add_up(written);
                }
                return Poll::Ready(Err(lost()));
            }
        }
        let written = ready!(Pin::new(&mut this.stream).poll_write(context, &bytes[..length]))?;
        this.traffic.tls.add_up(written);
        if let Some(faulty) = &mut this.faulty {
            let takes = faulty.takes(written);
            if !takes.is_zero() {
                faulty.busy = Some(Box::pin(tokio::time::sleep(takes)));
            }
        }
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_named_or_put_together() {
        assert!("perfect".parse::<Faults>().unwrap().is_perfect());
        let put: Faults = "delay=200ms,rate=4000,lose=0.01,cut=0.5,twice=1".parse().unwrap();
        assert_eq!(put.delay, Duration::from_millis(200));
        assert_eq!((put.rate, put.lose, put.cut, put.twice), (Some(4000), 0.01, 0.5, 1.0));
        for bad in ["", "fast", "lose=2", "lose=x", "rate=0", "delay=s", "speed=1"] {
            assert!(bad.parse::<Faults>().is_err(), "{bad}");
        }
    }
}
