//! Where the centre is, as codes, files and people write it: `[mqtt://|mqtts://]host:port`.
//!
//! Without a scheme a loopback address means plain MQTT and any other MQTT over TLS. Plain MQTT goes to
//! loopback addresses only: to tests, or to a TLS terminator on the same machine.

use std::net::IpAddr;
use std::str::FromStr;

const PLAIN: &str = "mqtt://";
const SECURE: &str = "mqtts://";

/// An MQTT address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MqttAddress {
    /// Whether MQTT goes over TLS.
    pub tls: bool,
    /// A name or an IP address, an IPv6 one without brackets.
    pub host: String,
    /// The port, from 1 on.
    pub port: u16,
}

/// Why a text is no MQTT address; the fix is to write `host:port`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// There is no `:port`.
    #[error("has no port（缺少端口）")]
    NoPort,
    /// There is no host.
    #[error("has no host（缺少主机）")]
    NoHost,
    /// `::1:1883` could be read in two ways.
    #[error("is an IPv6 address without brackets（IPv6 地址须加方括号）")]
    NoBrackets,
    /// The port is none.
    #[error("has no port number from 1 to 65535（端口须为 1–65535）")]
    Port,
    /// Plain MQTT to another machine.
    #[error(
        "asks for plain MQTT to another machine: write mqtts://（明文 MQTT 只限本机，请改用 mqtts://）"
    )]
    Plain,
}

/// Whether a host can only be this machine.
pub fn is_loopback(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost")
        || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

impl FromStr for MqttAddress {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<MqttAddress, AddressError> {
        let (asked, rest) = match (text.strip_prefix(PLAIN), text.strip_prefix(SECURE)) {
            (Some(rest), _) => (Some(false), rest),
            (_, Some(rest)) => (Some(true), rest),
            _ => (None, text),
        };
        let (host, port) = rest.rsplit_once(':').ok_or(AddressError::NoPort)?;
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let host = match bare {
            Some(host) => host,
            None if host.contains(':') => return Err(AddressError::NoBrackets),
            None => host,
        };
        if host.is_empty() {
            return Err(AddressError::NoHost);
        }
        let port: u16 = port.parse().map_err(|_| AddressError::Port)?;
        if port == 0 {
            return Err(AddressError::Port);
        }
        let near = is_loopback(host);
        let tls = asked.unwrap_or(!near);
        if !tls && !near {
            return Err(AddressError::Plain);
        }
        Ok(MqttAddress { tls, host: host.to_owned(), port })
    }
}

impl std::fmt::Display for MqttAddress {
    /// The shortest text that reads back: codes are typed by hand.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.tls == is_loopback(&self.host) {
            f.write_str(if self.tls { SECURE } else { PLAIN })?;
        }
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_read_back_and_faults_have_a_reason() {
        for (text, tls, host, port) in [
            ("example.org:8883", true, "example.org", 8883),
            ("127.0.0.1:1883", false, "127.0.0.1", 1883),
            ("localhost:1883", false, "localhost", 1883),
            ("mqtts://127.0.0.1:1", true, "127.0.0.1", 1),
            ("[::1]:1", false, "::1", 1),
            ("mqtts://[::1]:65535", true, "::1", 65535),
            ("[2001:db8::1]:8883", true, "2001:db8::1", 8883),
        ] {
            let address: MqttAddress = text.parse().unwrap();
            assert_eq!((address.tls, address.host.as_str(), address.port), (tls, host, port));
            assert_eq!(address.to_string(), text);
        }
        assert_eq!("mqtts://a:1".parse::<MqttAddress>().unwrap().to_string(), "a:1");
        for (bad, why) in [
            ("example.org", AddressError::NoPort),
            (":1883", AddressError::NoHost),
            ("[]:1883", AddressError::NoHost),
            ("::1:1883", AddressError::NoBrackets),
            ("a:0", AddressError::Port),
            ("a:65536", AddressError::Port),
            ("a:", AddressError::Port),
            ("mqtt://example.org:1883", AddressError::Plain),
            ("mqtt://10.0.0.1:1883", AddressError::Plain),
        ] {
            assert_eq!(bad.parse::<MqttAddress>(), Err(why), "{bad}");
        }
    }
}
