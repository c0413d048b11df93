//! Who may enter: the client id of a CONNECT against what TLS has proved and how the agent stands here.

use banyan_shared::ids::AgentId;

use super::counters::Cause;
use super::tls::Proof;
use crate::roll::Standing;

/// What a session may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scope {
    /// Everything an agent does.
    Full,
    /// Be enrolled, or introduce itself, and be given a certificate.
    FirstContact,
}

/// Whether a client that has shown `proof` may be `agent`, which stands here as `standing`.
///
/// The id follows from the key, so that nobody can be an agent without its key. An agent that is not known
/// here and shows a certificate of ours is let in: a restored centre comes to know it again by its grant.
pub(crate) fn admit(agent: AgentId, proof: Proof, standing: Standing) -> Result<Scope, Cause> {
    let (key, scope) = match proof {
        // From this machine only; what counts is signed.
        Proof::Plain => return Ok(Scope::Full),
        Proof::Nothing => return Err(Cause::NoCertificate),
        Proof::Foreign => return Err(Cause::UnknownCertificate),
        Proof::Expired => return Err(Cause::ExpiredCertificate),
        Proof::Own(key) => (key, Scope::FirstContact),
        Proof::Issued(key) => (key, Scope::Full),
    };
    if key.agent_id() != agent {
        return Err(Cause::AnothersId);
    }
    match standing {
        Standing::Revoked => Err(Cause::Revoked),
        Standing::Admitted(known) if known != key => Err(Cause::AnothersId),
        Standing::Admitted(_) | Standing::Unknown => Ok(scope),
    }
}
