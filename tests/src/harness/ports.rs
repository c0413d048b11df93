//! Addresses that a program can leave and come back to.
//!
//! A port asked for as 0 is anybody's again as soon as it is let go of: in the second that a killed program
//! takes to start again, a neighbour may be given it. The ports here lie below those that systems give away.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Result, bail};

/// Systems give away ports from 32,768 (Linux) or 49,152 on; below this, those of well-known services lie.
const FIRST: u32 = 10_000;
const COUNT: u32 = 22_000;
/// How far apart two test programs begin that run at once.
const STRIDE: u32 = 547;

static TAKEN: AtomicU32 = AtomicU32::new(0);

/// An address of this machine that nothing listens on, and that no one is given who asks for any: this
/// process gives each of them once.
///
/// # Errors
/// There is none.
pub fn kept_address() -> Result<SocketAddr> {
    for _ in 0..COUNT {
        let next = TAKEN.fetch_add(1, Ordering::Relaxed);
        let begin = std::process::id().wrapping_mul(STRIDE);
        let offset = begin.wrapping_add(next) % COUNT;
        let port = u16::try_from(FIRST + offset)?;
        // On all addresses: some programs cannot be told to listen on one only.
        if TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).is_ok() {
            return Ok((Ipv4Addr::LOCALHOST, port).into());
        }
    }
    bail!("no port from {FIRST} on is free")
}
