//! How an agent becomes known: requests, grants, enrolment files, and what the centre answers.

use serde::{Deserialize, Serialize};

use super::{Envelope, Kind, WireError, decode, deflate, encode, inflate, seal};
use crate::catalogue::CatalogueHash;
use crate::ids::{AgentId, ContextNumber, Millis, UnitCode};
use crate::keys::{Certificate, Domain, PublicKey, SigningKey, sha256};
use crate::limits::{CATALOGUE_BYTES_MAX, CONTEXT_FACILITIES_MAX};
use crate::period::Date;
use crate::report::coded;

/// A stretch of days a facility is open with one kind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScopeSpell {
    /// First day; none = always.
    pub from: Option<Date>,
    /// First day no longer; none = for ever.
    pub to: Option<Date>,
    /// The kind's code.
    pub kind: String,
}

/// A role a facility holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScopeRole {
    /// The role's code.
    pub role: String,
    /// The network kind's code.
    pub network_kind: String,
    /// First day; none = always.
    pub from: Option<Date>,
    /// First day no longer; none = for ever.
    pub to: Option<Date>,
}

/// An attribute of a facility.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScopeAttribute {
    /// The attribute's code.
    pub attribute: String,
    /// Its value.
    pub value: String,
    /// First day; none = always.
    pub from: Option<Date>,
    /// First day no longer; none = for ever.
    pub to: Option<Date>,
}

/// What an agent knows of a facility it may report for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FacilityScope {
    /// The facility's code.
    pub code: UnitCode,
    /// Its name.
    pub name: String,
    /// Its place, as names from the top, joined by spaces.
    pub place: String,
    /// When it was open, and of which kind.
    pub spells: Vec<ScopeSpell>,
    /// Its roles.
    pub roles: Vec<ScopeRole>,
    /// Its attributes.
    pub attributes: Vec<ScopeAttribute>,
}

/// A context: what an agent's short numbers mean, and for whom it may report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offer {
    /// The context's number.
    pub context: ContextNumber,
    /// The catalogue its form numbers refer to.
    pub catalogue: CatalogueHash,
    /// The facilities its facility numbers refer to. The first is the agent's home.
    pub facilities: Vec<FacilityScope>,
}

impl Offer {
    fn check(&self) -> Result<(), WireError> {
        match self.facilities.len() {
            0 => Err(WireError::Malformed("a context without a facility")),
            n if n > CONTEXT_FACILITIES_MAX => Err(WireError::TooMany {
                what: "facilities in a context",
                max: CONTEXT_FACILITIES_MAX,
            }),
            _ => Ok(()),
        }
    }
}

/// The centre's signed word that it knows an agent. The agent keeps every grant it was given: a centre
/// restored from an old backup, or empty but for its keys, knows it again by them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    /// The agent's key; its id follows from it.
    pub key: PublicKey,
    /// For whom it may report.
    pub offer: Offer,
    /// When it was granted.
    pub issued_at: Millis,
    /// The agent whose history it continues, if its PC was replaced.
    pub succeeds: Option<AgentId>,
}

/// A grant with the operating key's signature and the root's word for that key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignedGrant {
    grant: Vec<u8>,
    signature: Vec<u8>,
    /// The operating key that signed it.
    pub certificate: Certificate,
}

impl SignedGrant {
    /// Signs a grant.
    pub fn sign(grant: &Grant, key: &SigningKey, certificate: &Certificate) -> SignedGrant {
        let bytes = encode(grant);
        let signature = key.sign(Domain::Grant, &bytes).to_vec();
        SignedGrant { grant: bytes, signature, certificate: certificate.clone() }
    }

    /// The grant, if it goes back to `root`.
    ///
    /// # Errors
    /// [`WireError`] if a signature is wrong or the grant malformed.
    pub fn open(&self, root: &PublicKey) -> Result<Grant, WireError> {
        self.certificate.verify(root)?;
        self.certificate.key.verify(Domain::Grant, &self.grant, &self.signature)?;
        let grant: Grant = decode(&self.grant)?;
        grant.offer.check()?;
        Ok(grant)
    }

    /// The grant without looking at its signatures: for one that was opened before it was stored.
    ///
    /// # Errors
    /// [`WireError`] if the bytes are not exactly one grant.
    pub fn unverified(&self) -> Result<Grant, WireError> {
        decode(&self.grant)
    }
}

/// A new agent asks to be enrolled with a code or file. Signed by the key it asks to have certified.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EnrolRequest {
    /// The agent's key.
    pub key: PublicKey,
    /// The code's number.
    pub code: u32,
    /// The code's secret.
    pub secret: [u8; 10],
    /// The facility picked from a stick.
    pub facility: Option<UnitCode>,
    /// A fingerprint of the machine, to tell copies apart.
    pub machine: u64,
}

impl EnrolRequest {
    /// Signs the request.
    pub fn seal(&self, key: &SigningKey) -> Vec<u8> {
        seal(Kind::Enrol, self.key.agent_id(), &encode(self), key)
    }

    /// Reads a request and verifies that the key it names signed it and is the sender's.
    ///
    /// # Errors
    /// [`WireError`] if not.
    pub fn open(envelope: &Envelope<'_>) -> Result<EnrolRequest, WireError> {
        if envelope.kind != Kind::Enrol {
            return Err(WireError::Kind(envelope.kind as u8));
        }
        let request: EnrolRequest = decode(envelope.unverified_body())?;
        envelope.open(&request.key)?;
        if request.key.agent_id() != envelope.agent {
            return Err(WireError::Malformed("the key is another agent's"));
        }
        Ok(request)
    }
}

/// An agent shows the grants it holds, because the centre asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Introduction {
    /// The grants.
    pub grants: Vec<SignedGrant>,
    /// The nonce of the connection, which the centre's request repeated.
    pub nonce: u64,
}

impl Introduction {
    /// Signs the introduction.
    pub fn seal(&self, key: &SigningKey) -> Vec<u8> {
        seal(Kind::Introduce, key.public().agent_id(), &encode(self), key)
    }

    /// Reads an introduction; every grant must go back to `root` and name the sender's key, which must
    /// have signed the message.
    ///
    /// # Errors
    /// [`WireError`] if not.
    pub fn open(
        envelope: &Envelope<'_>,
        root: &PublicKey,
    ) -> Result<Vec<(Grant, SignedGrant)>, WireError> {
        if envelope.kind != Kind::Introduce {
            return Err(WireError::Kind(envelope.kind as u8));
        }
        let introduction: Introduction = decode(envelope.unverified_body())?;
        let mut grants = Vec::with_capacity(introduction.grants.len().min(64));
        for signed in introduction.grants {
            let grant = signed.open(root)?;
            if grant.key.agent_id() != envelope.agent {
                return Err(WireError::Malformed("a grant is another agent's"));
            }
            envelope.open(&grant.key)?;
            grants.push((grant, signed));
        }
        if grants.is_empty() {
            return Err(WireError::Malformed("an introduction without a grant"));
        }
        Ok(grants)
    }
}

coded! {
    /// Why an enrolment was refused.
    EnrolRefusal {
        /// No such code, or a wrong secret.
        UnknownCode = "unknown_code", "注册码无效，请核对后重试", "the code is not valid: check it and try again";
        /// The code's time is over.
        Expired = "expired", "注册码已过期，请向县级管理员索取新码", "the code has expired: ask the county desk for a new one";
        /// The code has been used.
        Used = "used", "注册码已被使用", "the code has been used";
        /// The facility is not on the stick's list.
        NotOffered = "not_offered", "该机构不在安装介质名单内", "the facility is not on this stick's list";
        /// An operator must decide: another agent has the facility, or the stick asks for approval.
        Waiting = "waiting", "认领待管理员核准", "the claim waits for an operator's approval";
        /// The agent has been revoked.
        AgentRevoked = "agent_revoked", "本终端已被注销", "this agent has been revoked";
        /// An operator has refused the claim.
        ClaimRefused = "claim_refused", "管理员未核准本终端认领该机构", "an operator has refused this agent's claim to the facility";
        /// The agent was not heard of for longer than a certificate and its grace last.
        Lapsed = "lapsed", "本终端停用过久，证书已失效，请用新注册码重新注册", "this agent was not heard of for too long and its certificate has lapsed: enrol it with a new code";
        /// It is not known here, and its grants are by an operating key that has been replaced.
        OutdatedGrant = "outdated_grant", "中心已更换密钥且无本终端的登记，请用新注册码重新注册", "the centre has replaced its key and does not know this agent: enrol it with a new code";
    }
}

/// What the centre tells an agent beside receipts. Signed by the operating key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// A grant: after an enrolment, or because the scope or catalogue has changed.
    Granted {
        /// The grant.
        grant: SignedGrant,
        /// The catalogue's TOML, compressed, if the agent may not have it.
        catalogue: Option<Vec<u8>>,
    },
    /// The enrolment was refused.
    NotEnrolled {
        /// Why.
        refusal: EnrolRefusal,
    },
    /// The centre does not know this agent or one of its contexts: introduce yourself.
    WhoAreYou {
        /// The contexts it lacks; empty for the agent as a whole.
        contexts: Vec<ContextNumber>,
    },
    /// A TLS certificate over the agent's key: after an enrolment or an introduction.
    Certified {
        /// The certificate, X.509 in DER.
        certificate: Vec<u8>,
        /// From when on, by the centre's clock, the agent should ask for the next by introducing itself.
        renew_from: Millis,
        /// When it expires.
        expires: Millis,
    },
    /// The centre takes messages elsewhere too, and would rather have the agent's next connection there. Said
    /// once a connection to whoever is at its own door.
    Elsewhere {
        /// The address, as in a code.
        address: String,
    },
}

/// The answer as it travels: the root key and the operating key's certificate go with it, since an agent
/// enrolling with a code knows only the root's fingerprint.
#[derive(Serialize, Deserialize)]
struct CertifiedAnswer {
    root: PublicKey,
    certificate: Certificate,
    answer: Answer,
}

impl Answer {
    /// Signs the answer for `agent` with the operating key, which `root` has certified.
    pub fn seal(
        &self,
        agent: AgentId,
        key: &SigningKey,
        certificate: &Certificate,
        root: &PublicKey,
    ) -> Vec<u8> {
        let certified =
            CertifiedAnswer { root: *root, certificate: certificate.clone(), answer: self.clone() };
        seal(Kind::Answer, agent, &encode(&certified), key)
    }

    /// Reads an answer that goes back to `root`.
    ///
    /// # Errors
    /// [`WireError`] if a signature is wrong.
    pub fn open(
        envelope: &Envelope<'_>,
        root: &PublicKey,
    ) -> Result<(Answer, Certificate), WireError> {
        let (answer, certificate, _) = Answer::open_pinned(envelope, &root.fingerprint())?;
        certificate.verify(root)?;
        Ok((answer, certificate))
    }

    /// Reads an answer that goes back to a root with this fingerprint, and gives the root key too.
    ///
    /// # Errors
    /// [`WireError`] if a signature is wrong or the root is another one.
    pub fn open_pinned(
        envelope: &Envelope<'_>,
        fingerprint: &[u8; 16],
    ) -> Result<(Answer, Certificate, PublicKey), WireError> {
        if envelope.kind != Kind::Answer {
            return Err(WireError::Kind(envelope.kind as u8));
        }
        let certified: CertifiedAnswer = decode(envelope.unverified_body())?;
        if certified.root.fingerprint() != *fingerprint {
            return Err(WireError::Malformed("the answer is another centre's"));
        }
        certified.certificate.verify(&certified.root)?;
        envelope.open(&certified.certificate.key)?;
        Ok((certified.answer, certified.certificate, certified.root))
    }
}

/// Something to know or do, numbered and acknowledged. Reserved: later kinds are added as variants.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Notice {
    /// A word of any kind, by code and arguments.
    Plain {
        /// Its number among the agent's notices.
        number: u64,
        /// What it is.
        code: u16,
        /// Its arguments.
        arguments: Vec<u64>,
    },
}

/// What a `.banyan` file holds: enough to start recording before the first contact.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EnrolmentFile {
    /// The code to show at first contact.
    pub code: super::EnrolCode,
    /// The centre's root key.
    pub root: PublicKey,
    /// The operating key in force.
    pub certificate: Certificate,
    /// One context, or one for each facility an installer may pick.
    pub offers: Vec<Offer>,
    /// The catalogue's TOML, compressed.
    pub catalogue: Vec<u8>,
    /// When the code expires.
    pub expires: Millis,
}

const FILE_MAGIC: &[u8] = b"BANYAN-ENROL-1\n";

impl EnrolmentFile {
    /// The file's bytes, signed by the operating key.
    pub fn to_bytes(&self, key: &SigningKey) -> Vec<u8> {
        let body = deflate(&encode(self));
        let signature = key.sign(Domain::EnrolmentFile, &body);
        [FILE_MAGIC, &signature, &body].concat()
    }

    /// Whether these bytes claim to be such a file.
    pub fn is_one(bytes: &[u8]) -> bool {
        bytes.starts_with(FILE_MAGIC)
    }

    /// Reads a file; the root it carries must have certified the key that signed it, and the code in it
    /// must pin that root.
    ///
    /// # Errors
    /// [`WireError`] if it is damaged or a signature is wrong.
    pub fn from_bytes(bytes: &[u8]) -> Result<EnrolmentFile, WireError> {
        let rest = bytes
            .strip_prefix(FILE_MAGIC)
            .ok_or(WireError::Malformed("this is not an enrolment file"))?;
        let (signature, body) = rest.split_at_checked(64).ok_or(WireError::Truncated)?;
        let file: EnrolmentFile = decode(&inflate(body, 64 * 1024 * 1024)?)?;
        file.certificate.verify(&file.root)?;
        file.certificate.key.verify(Domain::EnrolmentFile, body, signature)?;
        if file.root.fingerprint() != file.code.root {
            return Err(WireError::Malformed("the code in the file pins another root"));
        }
        file.offers.iter().try_for_each(Offer::check)?;
        Ok(file)
    }

    /// The catalogue's TOML.
    ///
    /// # Errors
    /// [`WireError`] if it is damaged or is not the one the offers name.
    pub fn catalogue_toml(&self) -> Result<Vec<u8>, WireError> {
        let toml = inflate(&self.catalogue, CATALOGUE_BYTES_MAX)?;
        let hash = CatalogueHash(sha256(&[&toml]));
        if self.offers.iter().any(|offer| offer.catalogue != hash) {
            return Err(WireError::Malformed("the file carries another catalogue than it names"));
        }
        Ok(toml)
    }
}
