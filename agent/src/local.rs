//! The local interface of a running agent: other programs of the same user ask it over loopback.
//!
//! `run/local.json` (readable by its owner only) names port and token. One line of JSON in, one line out, one
//! request a connection. Sizes and times are bounded; a wrong token gets no answer.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use ring::rand::{SecureRandom, SystemRandom};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::command::{Command, Reply};
use crate::driver::Handle;
use crate::files;

/// Longest line either way, in bytes.
const LINE_BYTES_MAX: u64 = 8 << 20;
/// Most requests at a time.
const REQUESTS_MAX: usize = 16;
/// How long a request may take to come in, and an answer to be taken.
const LINE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long an answer to the question whether anybody is there is waited for.
const PROBE_TIMEOUT: Duration = Duration::from_secs(5);
/// How long the asking side waits for another answer: saving hundreds of reports on a slow disk.
const REPLY_TIMEOUT: Duration = Duration::from_secs(120);

#[derive(Serialize, Deserialize)]
struct Address {
    port: u16,
    token: String,
}

#[derive(Serialize, Deserialize)]
struct Request {
    token: String,
    #[serde(flatten)]
    command: Command,
}

fn path(data_dir: &Path) -> PathBuf {
    data_dir.join("run").join("local.json")
}

/// Asks the agent that is running on `data_dir`; none if none is.
pub(crate) fn ask(data_dir: &Path, command: &Command) -> Option<Reply> {
    let bytes = files::read(&path(data_dir), 4096).ok()??;
    let address: Address = serde_json::from_slice(&bytes).ok()?;
    let socket = SocketAddr::from((Ipv4Addr::LOCALHOST, address.port));
    let mut stream = TcpStream::connect_timeout(&socket, Duration::from_secs(2)).ok()?;
    let probe = matches!(command, Command::SyncState);
    stream.set_read_timeout(Some(if probe { PROBE_TIMEOUT } else { REPLY_TIMEOUT })).ok()?;
    stream.set_write_timeout(Some(LINE_TIMEOUT)).ok()?;
    let request = Request { token: address.token, command: command.clone() };
    let mut line = serde_json::to_vec(&request).ok()?;
    line.push(b'\n');
    stream.write_all(&line).ok()?;
    let mut answer = String::new();
    BufReader::new(stream.take(LINE_BYTES_MAX)).read_line(&mut answer).ok()?;
    serde_json::from_str(&answer).ok()
}

/// The local interface while it is open; its file goes when it does.
pub(crate) struct Local {
    listener: TcpListener,
    token: String,
    path: PathBuf,
}

impl Local {
    /// Opens it on a free port.
    pub(crate) async fn open(data_dir: &Path) -> std::io::Result<Local> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let mut random = [0; 16];
        SystemRandom::new()
            .fill(&mut random)
            .map_err(|_| std::io::Error::other("the system gives no random bytes"))?;
        let token = random.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let address = Address { port: listener.local_addr()?.port(), token: token.clone() };
        let path = path(data_dir);
        let json = serde_json::to_vec(&address).map_err(std::io::Error::other)?;
        files::write(&path, &json, true)?;
        Ok(Local { listener, token, path })
    }

    /// Answers until dropped.
    pub(crate) async fn serve(&self, handle: Handle) {
        let room = std::sync::Arc::new(tokio::sync::Semaphore::new(REQUESTS_MAX));
        loop {
            let Ok(permit) = room.clone().acquire_owned().await else { return };
            let Ok((stream, _)) = self.listener.accept().await else {
                // Out of descriptors: others must close theirs first.
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            };
            let (handle, token) = (handle.clone(), self.token.clone());
            tokio::spawn(async move {
                let _permit = permit;
                if let Err(error) = answer(stream, handle, &token).await {
                    tracing::debug!(%error, "a local request failed");
                }
            });
        }
    }
}

impl Drop for Local {
    fn drop(&mut self) {
        // A file left behind is only tried in vain; one written since is another's.
        let address = files::read(&self.path, 4096).ok().flatten();
        let address = address.and_then(|bytes| serde_json::from_slice::<Address>(&bytes).ok());
        if address.is_some_and(|address| address.token == self.token) {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

async fn answer(
    mut stream: tokio::net::TcpStream,
    handle: Handle,
    token: &str,
) -> std::io::Result<()> {
    let (read, mut write) = stream.split();
    let mut line = String::new();
    let mut reader = tokio::io::BufReader::new(read.take(LINE_BYTES_MAX));
    tokio::time::timeout(LINE_TIMEOUT, reader.read_line(&mut line)).await??;
    let request: Request = serde_json::from_str(&line)?;
    // Compared by digest, so that the time taken tells nothing of the token.
    let digest = |text: &str| banyan_shared::keys::sha256(&[text.as_bytes()]);
    if digest(&request.token) != digest(token) {
        return Err(std::io::ErrorKind::PermissionDenied.into());
    }
    let mut answer = serde_json::to_vec(&handle.handle(request.command).await)?;
    answer.push(b'\n');
    tokio::time::timeout(LINE_TIMEOUT, write.write_all(&answer)).await??;
    write.shutdown().await
}
