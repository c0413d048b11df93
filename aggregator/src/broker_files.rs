//! The door's rules as files for an external broker: `banyan-aggregator broker-acl`.
//!
//! An agent's certificate names it (its common name is its id), and the broker takes that name for user name
//! and client id: it publishes on its own `up` topic, hears its own `down` topic, and takes no other agent's
//! place. The centre has a name of its own ([`CENTRE_NAME`]), which is no agent's, and the opposite rights.
//!
//! Texts only; [`write`] puts them on the disk. Whoever runs the command again keeps the server's key and gets
//! all else anew.

use std::path::Path;

use anyhow::{Context, Result, bail};
use banyan_shared::ids::{AgentId, Millis};
use banyan_shared::keys::{PublicKey, SigningKey};
use banyan_shared::limits::{PACKET_BYTES_MAX, PAYLOAD_BYTES_MAX};
use banyan_shared::topic::{DOWN_FILTER, UP_FILTER, down, up};
use ring::rand::SystemRandom;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject;
use serde::{Deserialize, Serialize};

use crate::identity::{CENTRE_NAME, Identity, pem, write_secret};

/// Connections the broker takes, as the door does.
const CONNECTIONS_MAX: usize = 30_000;
/// Messages and bytes a broker keeps for one client that is behind; what is more is lost, and sent again.
const QUEUED_MESSAGES_MAX: usize = 20_000;
const QUEUED_BYTES_MAX: usize = 64 << 20;
const SERVER_KEY: &str = "server.key";

/// For which broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum BrokerKind {
    /// Eclipse mosquitto 2.0.
    Mosquitto,
    /// EMQX 5.
    Emqx,
}

/// An agent that was put out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revoked {
    /// Its id.
    pub agent: AgentId,
    /// Its key.
    pub key: PublicKey,
}

/// What the files are to say.
#[derive(Clone, Debug)]
pub struct BrokerFiles<'a> {
    /// For which broker.
    pub kind: BrokerKind,
    /// By which names and IP addresses it is dialled; at least one.
    pub hosts: &'a [String],
    /// On which port it listens.
    pub port: u16,
    /// Where the files lie for the broker, an absolute path.
    pub place: &'a str,
    /// Who was put out.
    pub revoked: &'a [Revoked],
}

const HEAD: &str =
    "Made by `banyan-aggregator broker-acl`, which makes it anew: changes here are lost.";

impl BrokerFiles<'_> {
    fn acl(&self) -> String {
        match self.kind {
            BrokerKind::Mosquitto => self.mosquitto_acl(),
            BrokerKind::Emqx => self.emqx_acl(),
        }
    }

    fn mosquitto_acl(&self) -> String {
        let mut text = format!(
            "# {HEAD}\n\
             # The centre hears every agent and answers each.\n\
             user {CENTRE_NAME}\n\
             topic read {UP_FILTER}\n\
             topic write {DOWN_FILTER}\n\n"
        );
        for Revoked { agent, .. } in self.revoked {
            let (up, down) = (up(*agent), down(*agent));
            text += &format!("user {agent}\ntopic deny {up}\ntopic deny {down}\n\n");
        }
        text += "# An agent has its own two topics. Its name is its certificate's.\n\
                 pattern write banyan/v1/%u/up\n\
                 pattern read banyan/v1/%u/down\n";
        text
    }

    fn emqx_acl(&self) -> String {
        let mut text = format!(
            "%% {HEAD}\n\
             %% The centre hears every agent and answers each.\n\
             {{allow, {{username, \"{CENTRE_NAME}\"}}, subscribe, [{{eq, \"{UP_FILTER}\"}}]}}.\n\
             {{allow, {{username, \"{CENTRE_NAME}\"}}, publish, [\"{DOWN_FILTER}\"]}}.\n"
        );
        for Revoked { agent, .. } in self.revoked {
            text += &format!("{{deny, {{username, \"{agent}\"}}, all, [\"#\"]}}.\n");
        }
        text += "%% An agent has its own two topics. Its name is its certificate's.\n\
                 {allow, all, publish, [\"banyan/v1/${username}/up\"]}.\n\
                 {allow, all, subscribe, [\"banyan/v1/${username}/down\"]}.\n\
                 {deny, all}.\n";
        text
    }

    fn settings(&self) -> String {
        let BrokerFiles { port, place, .. } = self;
        match self.kind {
            BrokerKind::Mosquitto => format!(
                "# {HEAD}\n\
                 # For mosquitto 2.0, as its only configuration: some of it holds for all listeners.\n\
                 per_listener_settings false\n\
                 allow_anonymous false\n\
                 allow_zero_length_clientid false\n\
                 acl_file {place}/acl\n\
                 # Nothing has to last: agents send again until the centre has it in its ledger.\n\
                 persistence false\n\
                 retain_available false\n\
                 max_packet_size {PACKET_BYTES_MAX}\n\
                 message_size_limit {PAYLOAD_BYTES_MAX}\n\
                 max_inflight_messages 256\n\
                 max_queued_messages {QUEUED_MESSAGES_MAX}\n\
                 max_queued_bytes {QUEUED_BYTES_MAX}\n\
                 set_tcp_nodelay true\n\n\
                 listener {port}\n\
                 max_connections {CONNECTIONS_MAX}\n\
                 max_qos 1\n\
                 tls_version tlsv1.3\n\
                 cafile {place}/ca.crt\n\
                 certfile {place}/server.crt\n\
                 keyfile {place}/{SERVER_KEY}\n\
                 crlfile {place}/revoked.crl\n\
                 require_certificate true\n\
                 # Who is who: user name and client id are the certificate's name, whatever a client says.\n\
                 use_identity_as_username true\n\
                 use_username_as_clientid true\n"
            ),
            BrokerKind::Emqx => format!(
                "# {HEAD}\n\
                 # For EMQX 5: what emqx.conf has to say beside its own. Not run by us; see docs/operations.md.\n\
                 listeners.tcp.default.enable = false\n\
                 listeners.ws.default.enable = false\n\
                 listeners.wss.default.enable = false\n\
                 listeners.ssl.default {{\n  \
                   bind = \"0.0.0.0:{port}\"\n  \
                   max_connections = {CONNECTIONS_MAX}\n  \
                   ssl_options {{\n    \
                     versions = [\"tlsv1.3\"]\n    \
                     cacertfile = \"{place}/ca.crt\"\n    \
                     certfile = \"{place}/server.crt\"\n    \
                     keyfile = \"{place}/{SERVER_KEY}\"\n    \
                     verify = verify_peer\n    \
                     fail_if_no_peer_cert = true\n  \
                   }}\n\
                 }}\n\
                 mqtt {{\n  \
                   # Who is who: user name and client id are the certificate's name, whatever a client says.\n  \
                   peer_cert_as_username = cn\n  \
                   peer_cert_as_clientid = cn\n  \
                   max_packet_size = {PACKET_BYTES_MAX}\n  \
                   max_qos_allowed = 1\n  \
                   retain_available = false\n  \
                   max_inflight = 256\n  \
                   max_mqueue_len = {QUEUED_MESSAGES_MAX}\n\
                 }}\n\
                 authorization {{\n  \
                   no_match = deny\n  \
                   deny_action = disconnect\n  \
                   sources = [{{type = file, enable = true, path = \"{place}/acl.conf\"}}]\n\
                 }}\n"
            ),
        }
    }

    /// Name and content of each file, the server's key last and apart.
    fn texts(
        &self,
        identity: &Identity,
        key: &PublicKey,
        now: Millis,
    ) -> Result<Vec<(&str, String)>> {
        if let Some(line) = self.place.chars().find(|c| c.is_control() || *c == '"') {
            bail!(
                "the path {:?} has a character {line:?}, which the broker would not read",
                self.place
            );
        }
        let certificate = identity.ca.certify_server(key, identity, self.hosts, now)?;
        let (settings, acl) = match self.kind {
            BrokerKind::Mosquitto => ("mosquitto.conf", "acl"),
            BrokerKind::Emqx => ("emqx.conf", "acl.conf"),
        };
        let mut texts = vec![
            (settings, self.settings()),
            (acl, self.acl()),
            ("ca.crt", identity.ca.pem()),
            ("server.crt", pem("CERTIFICATE", &certificate)),
        ];
        if self.kind == BrokerKind::Mosquitto {
            let keys: Vec<PublicKey> = self.revoked.iter().map(|revoked| revoked.key).collect();
            texts.push(("revoked.crl", identity.ca.revocations(&keys, now)?));
        }
        Ok(texts)
    }
}

/// The server's key in `dir`, or a new one.
fn server_key(dir: &Path) -> Result<SigningKey> {
    let path = dir.join(SERVER_KEY);
    match PrivateKeyDer::from_pem_file(&path) {
        Ok(PrivateKeyDer::Pkcs8(key)) => SigningKey::from_pkcs8(key.secret_pkcs8_der())
            .with_context(|| format!("reading {}", path.display())),
        Err(rustls::pki_types::pem::Error::Io(error))
            if error.kind() == std::io::ErrorKind::NotFound =>
        {
            Ok(SigningKey::generate(&SystemRandom::new())?)
        }
        Ok(_) => bail!("{}: not a key of ours; move it away", path.display()),
        Err(error) => Err(error).with_context(|| format!("reading {}", path.display())),
    }
}

/// Writes the files into `dir` and gives their names. Each is replaced as a whole; the server's key is written
/// once, so that it and the certificate always fit.
///
/// # Errors
/// If a host is none or a path cannot stand in a broker's settings, or what the disk says.
pub fn write(
    dir: &Path,
    files: &BrokerFiles<'_>,
    identity: &Identity,
    now: Millis,
) -> Result<Vec<String>> {
    std::fs::create_dir_all(dir).with_context(|| format!("making {}", dir.display()))?;
    let key = server_key(dir)?;
    let mut names = Vec::new();
    let texts = files.texts(identity, &key.public(), now)?;
    let secret = (SERVER_KEY, pem("PRIVATE KEY", &key.pkcs8_v1()));
    for (name, text) in std::iter::once(secret).chain(texts) {
        let path = dir.join(name);
        if name == SERVER_KEY {
            // Whoever may read it now (the broker's account) shall go on.
            if !path.exists() {
                write_secret(&path, text.as_bytes())?;
            }
        } else {
            let fresh = dir.join(format!("{name}.new"));
            let put = std::fs::write(&fresh, text).and_then(|()| std::fs::rename(&fresh, &path));
            put.with_context(|| format!("writing {}", path.display()))?;
        }
        names.push(name.to_owned());
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Millis = Millis(1_770_000_000_000);

    fn revoked(seed: u8) -> Revoked {
        let key = SigningKey::from_seed(&[seed; 32]).unwrap().public();
        Revoked { agent: key.agent_id(), key }
    }

    #[test]
    fn rules_name_each_side_and_whoever_is_out_first() {
        let out = [revoked(1), revoked(2)];
        let hosts = ["broker.example.org".to_owned()];
        let files = |kind| BrokerFiles {
            kind,
            hosts: &hosts,
            port: 8883,
            place: "/etc/banyan",
            revoked: &out,
        };
        let acl = files(BrokerKind::Mosquitto).acl();
        let place = |text: &str| acl.find(text).unwrap_or_else(|| panic!("{text} in {acl}"));
        assert!(place("user banyan-aggregator\ntopic read banyan/v1/+/up\n") < place("pattern"));
        let id = out[1].agent;
        place(&format!(
            "user {id}\ntopic deny banyan/v1/{id}/up\ntopic deny banyan/v1/{id}/down\n"
        ));
        assert!(acl.ends_with("pattern write banyan/v1/%u/up\npattern read banyan/v1/%u/down\n"));

        // Terms of Erlang are read from the first down: who is out must stand before what all may.
        let acl = files(BrokerKind::Emqx).acl();
        let place = |text: &str| acl.find(text).unwrap_or_else(|| panic!("{text} in {acl}"));
        assert!(
            place(&format!("{{deny, {{username, \"{id}\"}}, all, [\"#\"]}}."))
                < place("{allow, all")
        );
        assert!(acl.ends_with("{deny, all}.\n"));
        for line in acl.lines().filter(|line| !line.starts_with("%%")) {
            assert!(line.starts_with('{') && line.ends_with("}."), "{line}");
            let count = |c: char| line.chars().filter(|at| *at == c).count();
            for (open, close) in [('{', '}'), ('[', ']')] {
                assert_eq!(count(open), count(close), "{line}");
            }
        }
    }

    #[test]
    fn made_again_the_key_stays_and_the_certificate_is_new() {
        let dir = tempfile::tempdir().unwrap();
        let identity = Identity::create(&dir.path().join("centre"), NOW).unwrap();
        let out = dir.path().join("broker");
        let hosts = ["127.0.0.1".to_owned(), "broker.example.org".to_owned()];
        let files = BrokerFiles {
            kind: BrokerKind::Mosquitto,
            hosts: &hosts,
            port: 8883,
            place: "/etc/banyan",
            revoked: &[revoked(1)],
        };
        let names = write(&out, &files, &identity, NOW).unwrap();
        let read = |name: &str| std::fs::read_to_string(out.join(name)).unwrap();
        let all = ["server.key", "mosquitto.conf", "acl", "ca.crt", "server.crt", "revoked.crl"];
        assert_eq!(names, all);
        let before = [read("server.key"), read("server.crt"), read("revoked.crl")];
        write(&out, &files, &identity, NOW.plus(86_400_000)).unwrap();
        assert_eq!(read("server.key"), before[0]);
        assert_ne!(read("server.crt"), before[1]);
        assert_ne!(read("revoked.crl"), before[2]);
        assert_eq!(std::fs::read_dir(&out).unwrap().count(), all.len(), "nothing is left lying");

        let wrong = BrokerFiles { place: "/etc/\nuser x", ..files.clone() };
        assert!(write(&out, &wrong, &identity, NOW).is_err());
        std::fs::write(out.join("server.key"), "nonsense").unwrap();
        assert!(write(&out, &files, &identity, NOW).is_err(), "a key is never thrown away");
    }
}
