//! The command line's way to the service: by loopback HTTP if one runs, else by opening the store itself.

use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::access::Who;
use crate::http::{Failure, Request, handle};
use crate::serve::{Addresses, token};
use crate::service::{Running, Service, Usage, system_clock};

/// How long a running service may take to say that it is there.
const HELLO_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a request may take: a verification of years of counts reads them all.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(3600);
/// Largest answer taken, in bytes.
const ANSWER_BYTES_MAX: u64 = 1 << 30;

/// The running service has not answered in time: exit code 3. What was asked for may still come about.
#[derive(Debug, thiserror::Error)]
#[error("the running service has not answered within {} s; it may still be doing what was asked: look at its log and ask again", .0.as_secs())]
pub struct Late(pub Duration);

/// Where requests go.
pub enum Client {
    /// To a running service.
    Remote {
        /// Its HTTP address.
        base: String,
        /// The administrator's token.
        token: String,
        /// The HTTP client.
        agent: ureq::Agent,
    },
    /// To the store itself, held for as long as the command runs.
    Local {
        /// The runtime the service lives in.
        runtime: tokio::runtime::Runtime,
        /// The service.
        service: Arc<Service>,
        /// What is stopped at the end.
        running: Running,
    },
}

fn http_agent(timeout: Duration) -> ureq::Agent {
    ureq::Agent::config_builder()
        .timeout_global(Some(timeout))
        .http_status_as_error(false)
        .build()
        .into()
}

/// Why a request got no answer that reads.
fn asked(agent: &ureq::Agent, error: ureq::Error) -> anyhow::Error {
    match (error, agent.config().timeouts().global) {
        (ureq::Error::Timeout(_), Some(limit)) => Late(limit).into(),
        (error, _) => anyhow::Error::from(error).context("asking the running service"),
    }
}

impl Client {
    /// Finds the running service of `dir`, or opens the store.
    ///
    /// # Errors
    /// If there is no store, or a service holds it but does not answer.
    pub fn connect(dir: &Path) -> Result<Client> {
        if let (Some(addresses), Some(token)) = (Addresses::read(dir), token(dir)) {
            let base = format!("http://{}", addresses.command.as_ref().unwrap_or(&addresses.http));
            // With the token: another directory's service may have taken the address since.
            let hello = http_agent(HELLO_TIMEOUT)
                .get(format!("{base}/v1/counters"))
                .header("authorization", format!("Bearer {token}"))
                .call();
            match hello {
                Ok(answer) if answer.status().is_success() => {
                    return Ok(Client::Remote { base, token, agent: http_agent(REQUEST_TIMEOUT) });
                }
                // It is there, and holds the store.
                Err(ureq::Error::Timeout(_)) => return Err(Late(HELLO_TIMEOUT).into()),
                _ => {}
            }
        }
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        let (service, running) = runtime.block_on(Service::open(dir, system_clock(), None))?;
        Ok(Client::Local { runtime, service, running })
    }

    /// Sends a request and reads its JSON answer.
    ///
    /// # Errors
    /// [`Usage`] if the request is wrong, or what failed.
    pub fn call<T: DeserializeOwned>(&self, request: &Request) -> Result<T> {
        serde_json::from_value(self.json(request)?).context("the service's answer does not read")
    }

    /// As [`Client::call`], unread.
    ///
    /// # Errors
    /// As [`Client::call`].
    pub fn json(&self, request: &Request) -> Result<Value> {
        match self {
            Client::Local { runtime, service, .. } => {
                runtime.block_on(handle(service, &Who::server(), request.clone()))?.into_value()
            }
            Client::Remote { base, token, agent } => {
                let mut answer = agent
                    .post(format!("{base}/v1/call"))
                    .header("authorization", format!("Bearer {token}"))
                    .send_json(request)
                    .map_err(|error| asked(agent, error))?;
                let status = answer.status();
                let body = answer.body_mut().with_config().limit(ANSWER_BYTES_MAX);
                if status.is_success() {
                    return body.read_json().map_err(|error| asked(agent, error));
                }
                let failure: Failure = body
                    .read_json()
                    .map_err(|error| asked(agent, error).context(format!("HTTP {status}")))?;
                if failure.usage {
                    return Err(Usage(failure.error).into());
                }
                bail!("{}", failure.error)
            }
        }
    }

    /// Lets go of the store.
    ///
    /// # Errors
    /// If the store could not be closed.
    pub fn close(self) -> Result<()> {
        if let Client::Local { runtime, service, running } = self {
            drop(service);
            runtime.block_on(running.stop())?;
        }
        Ok(())
    }
}

/// Prints a value as JSON.
///
/// # Errors
/// If it cannot be written.
pub fn print_json(value: &impl Serialize) -> Result<()> {
    let text = serde_json::to_string_pretty(value)?;
    // A reader that has gone away (`| head`) is no failure.
    let _ = writeln!(std::io::stdout(), "{text}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn a_service_that_does_not_answer_is_late() {
        let silent = TcpListener::bind("127.0.0.1:0").unwrap();
        let base = format!("http://{}", silent.local_addr().unwrap());
        let holder = std::thread::spawn(move || {
            let (mut connection, _) = silent.accept().unwrap();
            // Reads until the client has given up.
            std::io::copy(&mut connection, &mut std::io::sink())
        });
        let limit = Duration::from_millis(300);
        let client = Client::Remote { base, token: "t".into(), agent: http_agent(limit) };
        let error = client.json(&Request::Verify { all: true }).unwrap_err();
        assert_eq!(error.downcast_ref::<Late>().map(|late| late.0), Some(limit), "{error:#}");
        drop(client);
        let _ = holder.join().unwrap();
    }
}
