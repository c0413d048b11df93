//! The names of things: codes from the catalogue and the registry, and the short ids of the wire.
//!
//! A value of these types is always well formed; nothing here says whether the thing exists.
//! Codes are opaque: no place, kind or parent is ever read out of one.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// Longest code, in bytes.
pub const CODE_BYTES_MAX: usize = 64;

/// Why a text is not a code or an id.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} {text:?}: {reason}")]
pub struct InvalidId {
    /// What was being read, for example `unit code`.
    pub what: &'static str,
    /// The text as it stood.
    pub text: String,
    /// Why it was refused.
    pub reason: &'static str,
}

/// Characters that separate or quote codes in files, topics and expressions.
const RESERVED: &str = ",;\"'=|&<>[](){}/+#$*%?!@:\\";

fn check_code(what: &'static str, text: &str) -> Result<(), InvalidId> {
    let reason = if text.is_empty() {
        "is empty"
    } else if text.len() > CODE_BYTES_MAX {
        "is longer than 64 bytes"
    } else if text.chars().any(|c| c.is_whitespace() || c.is_control()) {
        "holds a space or control character"
    } else if text.chars().any(|c| RESERVED.contains(c)) {
        "holds a character kept for separators: , ; \" ' = | & < > [ ] ( ) { } / + # $ * % ? ! @ : \\"
    } else {
        return Ok(());
    };
    Err(InvalidId { what, text: text.to_owned(), reason })
}

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident, $what:literal;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(Arc<str>);

        impl $name {
            /// The code as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }
        impl FromStr for $name {
            type Err = InvalidId;
            fn from_str(text: &str) -> Result<Self, InvalidId> {
                check_code($what, text)?;
                Ok(Self(Arc::from(text)))
            }
        }
        impl TryFrom<String> for $name {
            type Error = InvalidId;
            fn try_from(text: String) -> Result<Self, InvalidId> {
                text.parse()
            }
        }
        impl From<$name> for String {
            fn from(code: $name) -> String {
                code.0.as_ref().to_owned()
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(self.as_str(), f)
            }
        }
        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }
        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }
        impl PartialEq<str> for $name {
            fn eq(&self, other: &str) -> bool {
                &*self.0 == other
            }
        }
        impl PartialEq<&str> for $name {
            fn eq(&self, other: &&str) -> bool {
                &*self.0 == *other
            }
        }
    )*};
}

codes! {
    /// An administrative unit or a facility, for example `520502` or `520502105-TH`.
    UnitCode, "unit code";
    /// A network of facilities, for example `CC-520502`.
    NetworkCode, "network code";
    /// A kind of unit, for example `village_clinic`.
    KindCode, "kind";
    /// A kind of network, for example `county_community`.
    NetworkKindCode, "network kind";
    /// A role a unit holds in a network, for example `lead`.
    RoleCode, "role";
    /// An attribute of units, for example `hospital_type`.
    AttributeCode, "attribute";
    /// A data element, for example `total_visits`.
    ElementCode, "element code";
    /// A report form, for example `vc_daily`.
    FormCode, "form code";
    /// A validation rule, for example `V01`.
    RuleCode, "rule code";
    /// A derived indicator, for example `primary_visit_share`.
    IndicatorCode, "indicator code";
}

/// An agent (or another writer of versions): the first six bytes of the SHA-256 of its public key.
///
/// Shown as twelve hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct AgentId(pub [u8; 6]);

impl fmt::Display for AgentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&data_encoding::HEXLOWER.encode(&self.0))
    }
}
impl fmt::Debug for AgentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
impl FromStr for AgentId {
    type Err = InvalidId;
    fn from_str(text: &str) -> Result<Self, InvalidId> {
        data_encoding::HEXLOWER_PERMISSIVE
            .decode(text.as_bytes())
            .ok()
            .and_then(|bytes| <[u8; 6]>::try_from(bytes).ok())
            .map(Self)
            .ok_or_else(|| InvalidId {
                what: "agent id",
                text: text.to_owned(),
                reason: "is not twelve hexadecimal digits",
            })
    }
}

/// One life of an agent's numbering: a counter, raised at every new life, and 32 random bits that
/// keep two copies of one disk apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Epoch {
    /// 1 for the first life; larger for every later one; 0 for what is written at a centre.
    pub counter: u32,
    /// Drawn when the life begins.
    pub random: u32,
}

impl Epoch {
    /// The numbering of what is written at a centre, one for each incarnation of its ledger: what was
    /// numbered after a backup was made is never given a second meaning by the restored ledger. No agent's
    /// life has a counter of 0.
    pub fn centre(incarnation: u32) -> Epoch {
        Epoch { counter: 0, random: incarnation }
    }

    /// Whether it numbers what is written at a centre.
    pub fn is_centre(self) -> bool {
        self.counter == 0
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{:08x}", self.counter, self.random)
    }
}

/// The number of an entry within its epoch: 1, 2, 3…
pub type Seq = u64;

/// Where a batch stands in the ledger: 1, 2, 3… in commit order, without gaps.
pub type Position = u64;

/// The number of a context: what an agent's short facility, form and element numbers mean.
/// Unique in one aggregator's history and never reused.
pub type ContextNumber = u32;

/// The identity of one version of a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct VersionId {
    /// Who wrote it.
    pub writer: AgentId,
    /// In which life of the writer's numbering.
    pub epoch: Epoch,
    /// Its number in that life.
    pub seq: Seq,
}

impl fmt::Display for VersionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.writer, self.epoch, self.seq)
    }
}

/// A moment: milliseconds since 1970-01-01T00:00:00Z.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Millis(pub i64);

impl Millis {
    /// This moment moved by `ms` milliseconds, stopping at the ends of the range.
    pub fn plus(self, ms: i64) -> Self {
        Self(self.0.saturating_add(ms))
    }

    /// The same moment in whole minutes since 1970, rounded down; 0 for anything earlier.
    pub fn minute(self) -> u32 {
        u32::try_from(self.0.div_euclid(60_000)).unwrap_or(0)
    }

    /// As `jiff`'s timestamp; moments outside its range are moved to its ends.
    pub fn timestamp(self) -> jiff::Timestamp {
        jiff::Timestamp::from_millisecond(self.0).unwrap_or(if self.0 < 0 {
            jiff::Timestamp::MIN
        } else {
            jiff::Timestamp::MAX
        })
    }
}

impl From<jiff::Timestamp> for Millis {
    fn from(at: jiff::Timestamp) -> Self {
        Self(at.as_millisecond())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_keep_separators_out() {
        assert!("520502105-TH".parse::<UnitCode>().is_ok());
        assert!("某村".parse::<UnitCode>().is_ok());
        for bad in ["", "a b", "a,b", "a/b", "a+", "#", "x\u{0}", &"x".repeat(65)] {
            assert!(bad.parse::<UnitCode>().is_err(), "{bad:?}");
        }
        let error = "a b".parse::<UnitCode>().unwrap_err();
        assert_eq!(error.to_string(), "unit code \"a b\": holds a space or control character");
    }

    #[test]
    fn agent_ids_read_what_they_print() {
        let id = AgentId([0, 1, 2, 0xab, 0xcd, 0xef]);
        assert_eq!(id.to_string(), "000102abcdef");
        assert_eq!(id.to_string().parse(), Ok(id));
        assert!("000102".parse::<AgentId>().is_err());
    }
}
