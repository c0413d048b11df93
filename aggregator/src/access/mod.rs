//! Who may ask the centre what: users, API tokens, sessions, scopes, and the log of what they did.
//!
//! Promises that nobody is let in without a password, a token or, while no user has been made, a connection
//! of this very machine; that everyone is held to a role and a scope, command by command and place by place
//! ([`rules`]); that secrets are kept as hashes only; that every list here has a limit; and that logins,
//! reads of single sites, exports and changes are on the log before the answer leaves. Leaves what the
//! answers say to `service`, and the agents' side to `front_door`.

mod accounts;
mod audit;
mod calls;
mod guard;
mod listener;
mod login;
mod password;
mod record;
mod rules;
mod sessions;
#[cfg(test)]
mod tests;
mod throttle;

use std::net::IpAddr;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock};

use anyhow::Result;
use banyan_shared::catalogue::Lang;
use banyan_shared::ids::{AgentId, Millis, NetworkCode, UnitCode};
use serde::{Deserialize, Serialize};

pub use accounts::{TOKENS_MAX, TokenRow, USERS_MAX, UserRow};
pub use audit::{AuditCall, Kind as AuditKind, Record};
pub use calls::{Password, TokenAdd, TokenMade, UserAdd, UserPassword};
pub(crate) use calls::{
    read_audit, token_add, token_list, token_remove, user_add, user_list, user_passwd, user_remove,
};
pub(crate) use guard::{CSRF_FIELD, Gate, Routes};
pub use guard::{Listening, Peer};
pub use listener::{HttpListener, self_made, tls_config};
pub(crate) use login::routes as login_routes;
pub(crate) use record::{described, kind_of};
pub(crate) use rules::{Inside, Past, asked_of, check, shows_sites, whole};

use crate::front_door::Contest;
use crate::ledger::Member;
use accounts::Accounts;
use audit::Audit;
use sessions::Sessions;
use throttle::Throttle;

/// What someone may do. A later one may do all an earlier one may.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, clap::ValueEnum,
)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Reads figures, reports and lists.
    Viewer,
    /// Enrols and revokes agents, corrects, returns, approves, signs off, locks, extends, imports.
    Operator,
    /// Looks after users and tokens; of everything: registry, catalogue, verification, the log.
    Admin,
}

impl Role {
    /// As it stands in files and arguments.
    pub fn code(self) -> &'static str {
        match self {
            Role::Viewer => "viewer",
            Role::Operator => "operator",
            Role::Admin => "admin",
        }
    }
}

/// Whose figures someone may see and change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// Everyone's.
    Everything,
    /// Those of a unit and of what is below it.
    Unit(UnitCode),
    /// Those of a network's members.
    Network(NetworkCode),
}

impl std::fmt::Display for Scope {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Scope::Everything => out.write_str("*"),
            Scope::Unit(code) => code.fmt(out),
            Scope::Network(code) => code.fmt(out),
        }
    }
}

/// How someone got in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Via {
    /// By the file only the service's own user can read: the command line on this machine.
    Server,
    /// From this machine, while no user has been made.
    Open,
    /// By password.
    Session,
    /// By an API token.
    Token,
}

/// Who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Who {
    /// The user's or token's name.
    pub name: String,
    /// What they may do.
    pub role: Role,
    /// To whom.
    pub scope: Scope,
    /// How they got in.
    pub via: Via,
    /// From where.
    pub address: Option<IpAddr>,
    /// What every form of their session carries.
    pub(crate) csrf: Option<String>,
}

/// Where it all lies, in the data directory.
const FOLDER: &str = "access";

/// The name of whoever works on the server itself.
pub const SERVER: &str = "server";
/// The name of whoever reads from this machine while no user has been made.
pub const LOOPBACK: &str = "loopback";

impl Who {
    /// Whoever works on the server itself.
    pub fn server() -> Who {
        Who {
            name: SERVER.into(),
            role: Role::Admin,
            scope: Scope::Everything,
            via: Via::Server,
            address: None,
            csrf: None,
        }
    }

    /// Whoever reads from this machine while no user has been made.
    pub(crate) fn open(address: Option<IpAddr>) -> Who {
        let (name, role, via) = (LOOPBACK.into(), Role::Viewer, Via::Open);
        Who { name, role, via, address, ..Who::server() }
    }

    /// Whether all places are theirs.
    pub(crate) fn sees_everything(&self) -> bool {
        self.scope == Scope::Everything
    }

    /// As acts of the ledger name them.
    pub fn by(&self) -> String {
        match self.via {
            Via::Token => format!("token:{}", self.name),
            _ => self.name.clone(),
        }
    }
}

/// Why someone may not.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{zh} / {en}")]
pub struct Denied {
    /// In Chinese.
    pub zh: String,
    /// In English.
    pub en: String,
}

impl Denied {
    pub(crate) fn new(zh: impl Into<String>, en: impl Into<String>) -> Denied {
        Denied { zh: zh.into(), en: en.into() }
    }

    /// In the asker's language.
    pub fn text(&self, lang: Lang) -> &str {
        match lang {
            Lang::Zh => &self.zh,
            Lang::En => &self.en,
        }
    }
}

/// What came of a login.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Login {
    /// Good: the session's id.
    In(String),
    /// Wrong name or password; which is not told.
    Wrong,
    /// Too many wrong ones: not before so many seconds.
    Wait(i64),
    /// Too many at once.
    Busy,
}

/// Users, tokens, sessions, throttle and log of a centre.
#[derive(Debug)]
pub struct Access {
    accounts: RwLock<Accounts>,
    sessions: Mutex<Sessions>,
    throttle: Mutex<Throttle>,
    audit: Audit,
    hashing: password::Bench,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Access {
    /// Opens what `DIR/access` holds; without it there is no user.
    ///
    /// # Errors
    /// If the accounts are damaged (then nobody is let in), or what the disk says.
    pub fn open(dir: &Path) -> Result<Access> {
        let folder = dir.join(FOLDER);
        Ok(Access {
            accounts: RwLock::new(Accounts::open(&folder)?),
            sessions: Mutex::default(),
            throttle: Mutex::default(),
            audit: Audit::new(&folder),
            hashing: password::Bench::new(),
        })
    }

    /// What a backup carries of users and tokens, if there are any: their secrets only as hashes.
    ///
    /// # Errors
    /// What the disk says.
    pub(crate) fn member(dir: &Path) -> Result<Option<Member>> {
        accounts::member(&dir.join(FOLDER))
    }

    /// Puts users and tokens of a backup in place.
    ///
    /// # Errors
    /// What the disk says.
    pub(crate) fn restore(dir: &Path, members: &[Member]) -> Result<()> {
        accounts::restore(&dir.join(FOLDER), members)
    }

    /// Removes the users and tokens that a restore which was cut short has put in place.
    ///
    /// # Errors
    /// What the disk says.
    pub(crate) fn clear(dir: &Path) -> Result<()> {
        accounts::clear(&dir.join(FOLDER))
    }

    fn accounts(&self) -> std::sync::RwLockReadGuard<'_, Accounts> {
        self.accounts.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn accounts_mut(&self) -> std::sync::RwLockWriteGuard<'_, Accounts> {
        self.accounts.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a user has been made.
    pub fn has_users(&self) -> bool {
        self.accounts().has_users()
    }

    /// Puts something on the log.
    ///
    /// # Errors
    /// What the disk says: what cannot be logged is not done, except by whoever mends the server.
    pub(crate) fn record(&self, who: &Who, record: Record) -> Result<()> {
        // Refusals cost their cause nothing: so many that they wash the log away are left out.
        let written = match record.kind {
            AuditKind::Refused => self.audit.write_within_limit(&record),
            _ => self.audit.write(&record),
        };
        match written {
            Err(error) if who.via == Via::Server => {
                tracing::warn!("the audit log could not be written: {error:#}");
                Ok(())
            }
            other => other,
        }
    }

    /// Puts on the log that an agent's identity is used in two places.
    pub(crate) fn note_contest(&self, agent: AgentId, at: Millis, contest: &Contest) {
        let addresses: Vec<String> = contest.addresses.iter().map(ToString::to_string).collect();
        let record = Record {
            at,
            kind: AuditKind::Agent,
            user: String::new(),
            via: None,
            address: contest.addresses.last().copied(),
            what: "contested".into(),
            of: agent.to_string(),
            outcome: format!("{} take-overs: {}", contest.take_overs, addresses.join(" ")),
        };
        if let Err(error) = self.audit.write_within_limit(&record) {
            tracing::error!("the audit log could not be written: {error:#}");
        }
    }

    /// Checks a name and a password and begins a session.
    pub(crate) async fn login(
        &self,
        name: &str,
        password: &str,
        from: IpAddr,
        now: Millis,
    ) -> Login {
        if let Some(wait) = lock(&self.throttle).wait_s(name, from, now) {
            self.note_login(name, from, now, "throttled");
            return Login::Wait(wait);
        }
        let known = self.accounts().user(name).map(|user| user.password.clone());
        let Some(good) = self.hashing.check(password, known).await else { return Login::Busy };
        if !good {
            lock(&self.throttle).failed(name, from, now);
            self.note_login(name, from, now, "wrong");
            return Login::Wrong;
        }
        lock(&self.throttle).succeeded(name, from);
        // Read again: the user may have gone while the hash was computed.
        let Some(serial) = self.accounts().user(name).map(|user| user.serial) else {
            return Login::Wrong;
        };
        let Ok(id) = lock(&self.sessions).begin(name, serial, now) else { return Login::Busy };
        self.note_login(name, from, now, "ok");
        Login::In(id)
    }

    fn note_login(&self, name: &str, from: IpAddr, now: Millis, outcome: &str) {
        let record = Record {
            at: now,
            kind: AuditKind::Login,
            user: name.chars().take(64).collect(),
            via: None,
            address: Some(from),
            what: "login".into(),
            of: String::new(),
            outcome: outcome.into(),
        };
        let written = match outcome {
            "ok" => self.audit.write(&record),
            _ => self.audit.write_within_limit(&record),
        };
        if let Err(error) = written {
            tracing::error!("the audit log could not be written: {error:#}");
        }
    }

    /// Whose session this is, if it goes on.
    pub(crate) fn session(&self, id: &str, from: IpAddr, now: Millis) -> Option<Who> {
        let (name, serial, csrf) = lock(&self.sessions).touch(id, now)?;
        let accounts = self.accounts();
        let user = accounts.user(&name).filter(|user| user.serial == serial)?;
        Some(Who {
            name,
            role: user.role,
            scope: user.scope.clone(),
            via: Via::Session,
            address: Some(from),
            csrf: Some(csrf),
        })
    }

    /// Ends a session.
    pub(crate) fn logout(&self, id: &str) {
        lock(&self.sessions).end(id);
    }

    /// Whose token this is; `expired` or `wrong` if it is not in force.
    pub(crate) fn token(
        &self,
        secret: &str,
        from: IpAddr,
        now: Millis,
    ) -> std::result::Result<Who, &'static str> {
        let accounts = self.accounts();
        let token = accounts.token(secret).ok_or("wrong")?;
        if token.expires_at <= now {
            return Err("expired");
        }
        Ok(Who {
            name: token.name.clone(),
            role: token.role,
            scope: token.scope.clone(),
            via: Via::Token,
            address: Some(from),
            csrf: None,
        })
    }

    /// Changes the password of someone who knows the old one; ends their other sessions.
    ///
    /// # Errors
    /// What is wrong with the new one, or what the disk says.
    pub(crate) async fn change_own_password(
        &self,
        who: &Who,
        old: &str,
        new: Password,
        now: Millis,
    ) -> Result<Login> {
        let from = who.address.unwrap_or(IpAddr::from([127, 0, 0, 1]));
        if let Some(wait) = lock(&self.throttle).wait_s(&who.name, from, now) {
            return Ok(Login::Wait(wait));
        }
        let known = self.accounts().user(&who.name).map(|user| user.password.clone());
        let Some(good) = self.hashing.check(old, known).await else { return Ok(Login::Busy) };
        if !good {
            lock(&self.throttle).failed(&who.name, from, now);
            return Ok(Login::Wrong);
        }
        self.set_password(&who.name, new).await?;
        let serial = self.accounts().user(&who.name).map(|user| user.serial);
        let Some(serial) = serial else { return Ok(Login::Wrong) };
        Ok(Login::In(lock(&self.sessions).begin(&who.name, serial, now)?))
    }

    /// Gives a user another password and ends their sessions.
    ///
    /// # Errors
    /// What is wrong with it, that there is no such user, or what the disk says.
    pub(crate) async fn set_password(&self, name: &str, password: Password) -> Result<()> {
        let hash = self.hashing.hash(password).await?;
        self.accounts_mut().set_password(name, hash)?;
        lock(&self.sessions).end_all_of(name);
        Ok(())
    }
}
