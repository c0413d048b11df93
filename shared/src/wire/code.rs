//! Enrolment codes: one line that a person copies, types or pastes.
//!
//! A code holds where the centre is, which root key it must have, its number and its secret, and a check
//! sum against typing errors. Letters and digits of Crockford's alphabet, in groups of five.

use serde::{Deserialize, Serialize};

use super::{decode, encode};
use crate::keys::sha256;

/// What a code says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EnrolCode {
    /// The centre's MQTT address, `host:port`.
    pub address: String,
    /// Fingerprint of the centre's root key.
    pub root: [u8; 16],
    /// The code's number.
    pub number: u32,
    /// Its secret; the centre keeps only a hash.
    pub secret: [u8; 10],
}

/// Why a text is not a code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CodeError {
    /// A character that no code holds.
    #[error(
        "character {0:?} is in no code: a code has the letters A-Z without I, L, O, U and digits"
    )]
    Character(char),
    /// The check sum is wrong.
    #[error("the code was not copied completely or has a typing error: compare it once more")]
    Check,
}

const PREFIX: &str = "BANYAN";
const ALPHABET: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
/// Longest code accepted, in characters.
const CODE_CHARS_MAX: usize = 400;

fn check_sum(bytes: &[u8]) -> [u8; 2] {
    let digest = sha256(&[b"banyan/v1/code\0", bytes]);
    [digest[0], digest[1]]
}

impl std::fmt::Display for EnrolCode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut bytes = encode(self);
        bytes.extend_from_slice(&check_sum(&bytes));
        f.write_str(PREFIX)?;
        let (mut pending, mut held, mut written) = (0u32, 0u32, 0usize);
        let mut put = |f: &mut std::fmt::Formatter<'_>, five: u32| {
            if written.is_multiple_of(5) {
                f.write_str("-")?;
            }
            written += 1;
            let at = usize::try_from(five & 31).unwrap_or(0);
            write!(f, "{}", char::from(ALPHABET[at]))
        };
        for byte in bytes {
            pending = (pending << 8) | u32::from(byte);
            held += 8;
            while held >= 5 {
                held -= 5;
                put(f, pending >> held)?;
            }
            pending &= (1 << held) - 1;
        }
        if held > 0 { put(f, pending << (5 - held)) } else { Ok(()) }
    }
}

impl std::str::FromStr for EnrolCode {
    type Err = CodeError;

    /// Reads a code; case, dashes and spaces do not matter, and O, I, L read as 0, 1, 1.
    fn from_str(text: &str) -> Result<EnrolCode, CodeError> {
        let upper: String = text
            .chars()
            .filter(|c| !c.is_whitespace() && !matches!(c, '-' | '–' | '—' | '－'))
            .take(CODE_CHARS_MAX + 1)
            .map(|c| c.to_ascii_uppercase())
            .collect();
        let digits = upper.strip_prefix(PREFIX).ok_or(CodeError::Check)?;
        if digits.len() > CODE_CHARS_MAX {
            return Err(CodeError::Check);
        }
        let (mut bytes, mut pending, mut held) = (Vec::new(), 0u32, 0u32);
        for c in digits.chars() {
            let plain = match c {
                'O' => '0',
                'I' | 'L' => '1',
                c => c,
            };
            let five = ALPHABET
                .iter()
                .position(|a| char::from(*a) == plain)
                .and_then(|at| u32::try_from(at).ok())
                .ok_or(CodeError::Character(c))?;
            pending = (pending << 5) | five;
            held += 5;
            if held >= 8 {
                held -= 8;
                bytes.push(u8::try_from(pending >> held & 0xff).unwrap_or(0));
                pending &= (1 << held) - 1;
            }
        }
        let (body, sum) =
            bytes.split_at_checked(bytes.len().saturating_sub(2)).ok_or(CodeError::Check)?;
        if check_sum(body) != sum || pending != 0 {
            return Err(CodeError::Check);
        }
        decode(body).map_err(|_| CodeError::Check)
    }
}
