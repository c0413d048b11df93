//! What the system says of processes, and how numbers are summed up.

use std::fs;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde::Serialize;

use super::life::Latency;

/// How often processes are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// Most moments kept in the result.
const MOMENTS_MAX: usize = 40;
/// Clock ticks a second in `/proc/PID/stat`: the same on every Linux.
const TICKS_A_SECOND: f64 = 100.0;

/// What `/proc` says of a process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Usage {
    /// Seconds of CPU in the program.
    pub user_s: f64,
    /// Seconds of CPU in the kernel for it.
    pub system_s: f64,
    /// Bytes sent to the disk.
    pub written_bytes: u64,
}

impl Usage {
    /// What it has used by now.
    ///
    /// # Errors
    /// There is no such process, or no `/proc`.
    pub fn of(pid: u32) -> Result<Usage> {
        let read = |file: &str| {
            let path = format!("/proc/{pid}/{file}");
            fs::read_to_string(&path).with_context(|| format!("reading {path}"))
        };
        let stat = read("stat")?;
        // The name in brackets may hold anything.
        let (_, rest) = stat.rsplit_once(')').context("stat has a name")?;
        let field = |at: usize| -> Result<f64> {
            let text = rest.split_whitespace().nth(at).context("stat is too short")?;
            Ok(text.parse::<f64>()? / TICKS_A_SECOND)
        };
        Ok(Usage {
            user_s: field(11)?,
            system_s: field(12)?,
            written_bytes: number(&read("io")?, "write_bytes:")?,
        })
    }

    /// CPU in all.
    pub fn cpu_s(&self) -> f64 {
        self.user_s + self.system_s
    }

    /// What came on top of `before`.
    #[must_use]
    pub fn since(&self, before: &Usage) -> Usage {
        Usage {
            user_s: self.user_s - before.user_s,
            system_s: self.system_s - before.system_s,
            written_bytes: self.written_bytes.saturating_sub(before.written_bytes),
        }
    }
}

fn number(text: &str, name: &str) -> Result<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let word = line.and_then(|line| line.split_whitespace().next());
    Ok(word.with_context(|| format!("no {name}"))?.parse()?)
}

/// Memory of a process in MiB: now, and at most so far.
pub fn memory_mib(pid: u32) -> Result<(f64, f64)> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).context("reading its status")?;
    let mib = |name: &str| Ok::<f64, anyhow::Error>(number(&text, name)? as f64 / 1024.0);
    Ok((mib("VmRSS:")?, mib("VmHWM:")?))
}

/// How much memory both processes had at a moment, and how far the agents were.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Moment {
    /// Seconds since the measured time began.
    pub at_s: f64,
    /// Of this process, with all agents.
    pub agents_mib: f64,
    /// Of the aggregator.
    pub centre_mib: f64,
    /// Reports with a receipt.
    pub receipts: u64,
    /// Connections.
    pub connections: u64,
}

/// Memory in MiB.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Memory {
    /// This process, with all agents, at most.
    pub agents_peak_mib: f64,
    /// The aggregator at most, until the last receipt.
    pub centre_peak_mib: f64,
    /// For each agent, of what came on top while they connected and sent.
    pub centre_kib_per_agent: f64,
    /// Over time.
    pub moments: Vec<Moment>,
}

/// Looks at both processes until told to stop.
pub(super) fn watch(
    pid: u32,
    begun: Instant,
    stop: &AtomicBool,
    (receipts, open): (&AtomicU64, &AtomicU64),
    seen: impl Fn(&Moment),
) -> Vec<Moment> {
    let mut moments = Vec::new();
    let own = std::process::id();
    while !stop.load(Ordering::Relaxed) {
        if let (Ok(agents), Ok(centre)) = (memory_mib(own), memory_mib(pid)) {
            let moment = Moment {
                at_s: begun.elapsed().as_secs_f64(),
                agents_mib: agents.0.round(),
                centre_mib: centre.0.round(),
                receipts: receipts.load(Ordering::Relaxed),
                connections: open.load(Ordering::Relaxed),
            };
            seen(&moment);
            moments.push(moment);
        }
        std::thread::park_timeout(LOOK_EVERY);
    }
    thin(moments)
}

fn thin(moments: Vec<Moment>) -> Vec<Moment> {
    let every = moments.len().div_ceil(MOMENTS_MAX).max(1);
    let last = moments.len().saturating_sub(1);
    let kept = |at: usize| at.is_multiple_of(every) || at == last;
    moments.into_iter().enumerate().filter(|(at, _)| kept(*at)).map(|(_, one)| one).collect()
}

/// Percentiles, in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Percentiles {
    /// Of how many.
    pub n: u64,
    /// Half are below.
    pub p50: f64,
    /// Nine in ten are below.
    pub p90: f64,
    /// All but one in a hundred are below.
    pub p99: f64,
    /// The largest.
    pub max: f64,
}

impl Percentiles {
    /// Of latencies in µs, each of some reports.
    pub(super) fn of(mut latencies: Vec<Latency>) -> Percentiles {
        latencies.sort_unstable();
        let n: u64 = latencies.iter().map(|(_, reports)| u64::from(*reports)).sum();
        let at = |share: f64| -> f64 {
            let wanted = (n as f64 * share).ceil() as u64;
            let mut before = 0;
            let found = latencies.iter().find(|(_, reports)| {
                before += u64::from(*reports);
                before >= wanted
            });
            found.map_or(0.0, |(micros, _)| f64::from(*micros) / 1000.0)
        };
        Percentiles { n, p50: at(0.5), p90: at(0.9), p99: at(0.99), max: at(1.0) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_weigh_reports() {
        let of = Percentiles::of(vec![(3_000, 1), (1_000, 98), (2_000, 1)]);
        assert_eq!((of.n, of.p50, of.p90, of.p99, of.max), (100, 1.0, 1.0, 2.0, 3.0));
        assert_eq!(Percentiles::of(Vec::new()), Percentiles::default());
    }

    #[test]
    fn this_process_has_used_something() {
        let before = Usage::of(std::process::id()).unwrap();
        let mut sum = 0u64;
        while Usage::of(std::process::id()).unwrap().since(&before).cpu_s() == 0.0 {
            sum = std::hint::black_box(sum.wrapping_add(1));
        }
        let (now, most) = memory_mib(std::process::id()).unwrap();
        assert!(now > 1.0 && most >= now);
    }
}
