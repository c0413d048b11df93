//! Users and API tokens, in `DIR/access/accounts.json`, which only the service's user can read.
//!
//! Promises that a change is on disk before it is in force, and that a file that does not read lets nobody
//! in. Passwords are argon2id hashes, tokens SHA-256 of 256 random bits.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use banyan_shared::ids::Millis;
use banyan_shared::limits::PERSON_BYTES_MAX;
use data_encoding::HEXLOWER;
use serde::{Deserialize, Serialize};

use super::{LOOPBACK, Role, SERVER, Scope, password};
use crate::identity::{random, write_secret};
use crate::ledger::{Member, make_dir};
use crate::service::usage;

/// Most users.
pub const USERS_MAX: usize = 10_000;
/// Most API tokens.
pub const TOKENS_MAX: usize = 10_000;
/// What tokens begin with, so that one found somewhere is known for what it is.
const TOKEN_BEGINS: &str = "banyan_";
const FORMAT: u32 = 1;
const FILE: &str = "accounts.json";
const MEMBER: &str = "access/accounts.json";

/// A user.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct User {
    pub(super) name: String,
    pub(super) role: Role,
    pub(super) scope: Scope,
    /// A PHC string.
    pub(super) password: String,
    /// Another for another user of the same name, and after a change of password: sessions hold it.
    pub(super) serial: u64,
    pub(super) made_at: Millis,
    pub(super) made_by: String,
}

/// An API token.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Token {
    pub(super) name: String,
    pub(super) role: Role,
    pub(super) scope: Scope,
    hash: String,
    pub(super) expires_at: Millis,
    pub(super) made_at: Millis,
    pub(super) made_by: String,
}

/// A user as administrators see it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct UserRow {
    /// The name.
    pub name: String,
    /// What they may do.
    pub role: Role,
    /// To whom: a code, or `*` for everything.
    pub scope: String,
    /// When it was made.
    pub made_at: String,
    /// By whom.
    pub made_by: String,
}

/// A token as administrators see it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct TokenRow {
    /// The name.
    pub name: String,
    /// What its holder may do.
    pub role: Role,
    /// To whom: a code, or `*` for everything.
    pub scope: String,
    /// When it expires.
    pub expires_at: String,
    /// Whether it has.
    pub expired: bool,
    /// When it was made.
    pub made_at: String,
    /// By whom.
    pub made_by: String,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    format: u32,
    users: Vec<User>,
    tokens: Vec<Token>,
}

/// All of them.
#[derive(Debug)]
pub(super) struct Accounts {
    path: PathBuf,
    file: File,
}

/// What a backup carries of the accounts, if there are any.
pub(super) fn member(folder: &Path) -> Result<Option<Member>> {
    let path = folder.join(FILE);
    match std::fs::read(&path) {
        Ok(bytes) => Ok(Some(Member { name: MEMBER.to_owned(), bytes })),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("reading {}", path.display())),
    }
}

/// Puts the accounts of a backup in place, if it has any.
pub(super) fn restore(folder: &Path, members: &[Member]) -> Result<()> {
    let Some(member) = members.iter().find(|member| member.name == MEMBER) else { return Ok(()) };
    make_dir(folder)?;
    write_secret(&folder.join(FILE), &member.bytes)
}

/// Removes the accounts.
pub(super) fn clear(folder: &Path) -> Result<()> {
    let path = folder.join(FILE);
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("removing {}", path.display()))
        }
        _ => Ok(()),
    }
}

fn hash(secret: &str) -> String {
    HEXLOWER.encode(&banyan_shared::keys::sha256(&[secret.as_bytes()]))
}

/// Checks a name of a user or token.
fn acceptable(name: &str) -> Result<()> {
    let good = !name.is_empty()
        && name.len() <= PERSON_BYTES_MAX
        && !name.chars().any(|c| c.is_whitespace() || c.is_control() || c == ':');
    if !good {
        return Err(usage(format!(
            "名称“{name}”须为 1 至 {PERSON_BYTES_MAX} 字节，不含空格和冒号 / a name has 1 to {PERSON_BYTES_MAX} bytes, no space and no colon: {name:?}"
        )));
    }
    if [SERVER, LOOPBACK].contains(&name) {
        return Err(usage(format!(
            "名称“{name}”已为系统保留 / the name {name:?} is taken by the system itself"
        )));
    }
    Ok(())
}

fn missing(zh: &str, en: &str, name: &str) -> anyhow::Error {
    usage(format!("没有{zh}“{name}” / there is no {en} {name:?}"))
}

impl Accounts {
    pub(super) fn open(folder: &Path) -> Result<Accounts> {
        let path = folder.join(FILE);
        let file = match std::fs::read(&path) {
            Ok(bytes) => {
                let file: File = serde_json::from_slice(&bytes).with_context(|| {
                    format!(
                        "{} is damaged: put back a copy of it, or move it away and make the users anew",
                        path.display()
                    )
                })?;
                let whole = |user: &User| password::is_hash(&user.password);
                if file.format != FORMAT || !file.users.iter().all(whole) {
                    bail!("{} is of a format this program does not know", path.display());
                }
                file
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                File { format: FORMAT, users: Vec::new(), tokens: Vec::new() }
            }
            Err(error) => {
                return Err(error).with_context(|| format!("reading {}", path.display()));
            }
        };
        Ok(Accounts { path, file })
    }

    /// On disk first, then in force.
    fn change(&mut self, change: impl FnOnce(&mut File) -> Result<()>) -> Result<()> {
        let mut next = self.file.clone();
        change(&mut next)?;
        if let Some(folder) = self.path.parent() {
            std::fs::create_dir_all(folder)
                .with_context(|| format!("making {}", folder.display()))?;
        }
        write_secret(&self.path, &serde_json::to_vec_pretty(&next)?)?;
        self.file = next;
        Ok(())
    }

    pub(super) fn has_users(&self) -> bool {
        !self.file.users.is_empty()
    }

    pub(super) fn users(&self) -> &[User] {
        &self.file.users
    }

    pub(super) fn tokens(&self) -> &[Token] {
        &self.file.tokens
    }

    pub(super) fn user(&self, name: &str) -> Option<&User> {
        self.file.users.iter().find(|user| user.name == name)
    }

    /// The token with this secret, expired or not.
    pub(super) fn token(&self, secret: &str) -> Option<&Token> {
        let hash = hash(secret);
        // What is compared is a hash: the time it takes tells nothing of the secret.
        self.file.tokens.iter().find(|token| token.hash == hash)
    }

    pub(super) fn token_named(&self, name: &str) -> Option<&Token> {
        self.file.tokens.iter().find(|token| token.name == name)
    }

    /// Whether a user may be made under this name.
    pub(super) fn may_add_user(&self, name: &str) -> Result<()> {
        acceptable(name)?;
        if self.user(name).is_some() {
            return Err(usage(format!(
                "已有用户“{name}”；改密码用 user passwd / there is a user {name:?} already; user passwd changes the password"
            )));
        }
        if self.file.users.len() >= USERS_MAX {
            return Err(usage(format!(
                "用户已达 {USERS_MAX} 个 / there are {USERS_MAX} users already"
            )));
        }
        Ok(())
    }

    pub(super) fn add_user(&mut self, user: User) -> Result<()> {
        self.may_add_user(&user.name)?;
        self.change(|file| {
            file.users.push(user);
            Ok(())
        })
    }

    pub(super) fn set_password(&mut self, name: &str, password: String) -> Result<()> {
        let serial = fresh_serial()?;
        self.change(|file| {
            let user = file.users.iter_mut().find(|user| user.name == name);
            let user = user.ok_or_else(|| missing("用户", "user", name))?;
            user.password = password;
            user.serial = serial;
            Ok(())
        })
    }

    pub(super) fn remove_user(&mut self, name: &str) -> Result<()> {
        self.change(|file| {
            let before = file.users.len();
            file.users.retain(|user| user.name != name);
            if file.users.len() == before { Err(missing("用户", "user", name)) } else { Ok(()) }
        })
    }

    /// Makes a token; its secret is shown once and never kept.
    pub(super) fn add_token(
        &mut self,
        (name, role, scope): (String, Role, Scope),
        (made_at, expires_at): (Millis, Millis),
        made_by: String,
    ) -> Result<String> {
        acceptable(&name)?;
        if self.token_named(&name).is_some() {
            return Err(usage(format!("已有令牌“{name}” / there is a token {name:?} already")));
        }
        if self.file.tokens.len() >= TOKENS_MAX {
            return Err(usage(format!(
                "令牌已达 {TOKENS_MAX} 个，请先删除过期的 / there are {TOKENS_MAX} tokens already: remove those that have expired"
            )));
        }
        let secret = format!("{TOKEN_BEGINS}{}", HEXLOWER.encode(&random::<32>()?));
        let token = Token { name, role, scope, hash: hash(&secret), expires_at, made_at, made_by };
        self.change(|file| {
            file.tokens.push(token);
            Ok(())
        })?;
        Ok(secret)
    }

    pub(super) fn remove_token(&mut self, name: &str) -> Result<()> {
        self.change(|file| {
            let before = file.tokens.len();
            file.tokens.retain(|token| token.name != name);
            if file.tokens.len() == before { Err(missing("令牌", "token", name)) } else { Ok(()) }
        })
    }
}

/// A number no other user, past or present, has.
pub(super) fn fresh_serial() -> Result<u64> {
    Ok(u64::from_le_bytes(random()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(name: &str) -> User {
        User {
            name: name.into(),
            role: Role::Viewer,
            scope: Scope::Unit("520502".parse().unwrap()),
            password: "$argon2id$v=19$m=8,t=1,p=1$AAAAAAAAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA".into(),
            serial: 1,
            made_at: Millis(0),
            made_by: "server".into(),
        }
    }

    #[test]
    fn what_was_said_is_there_after_a_restart_and_secrets_are_not() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("access");
        let mut accounts = Accounts::open(&folder).unwrap();
        assert!(!accounts.has_users());
        accounts.add_user(user("王医生")).unwrap();
        assert!(accounts.add_user(user("王医生")).is_err());
        let of = ("his".to_owned(), Role::Operator, Scope::Everything);
        let secret = accounts.add_token(of, (Millis(0), Millis(10)), "server".into()).unwrap();
        let text = std::fs::read_to_string(folder.join(FILE)).unwrap();
        assert!(!text.contains(&secret[TOKEN_BEGINS.len()..]), "{text}");
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let mode = std::fs::metadata(folder.join(FILE)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
        }
        let again = Accounts::open(&folder).unwrap();
        assert_eq!(again.user("王医生").unwrap().scope, Scope::Unit("520502".parse().unwrap()));
        assert_eq!(again.token(&secret).unwrap().name, "his");
        assert!(again.token("banyan_").is_none() && again.token("").is_none());

        let mut again = again;
        let before = again.user("王医生").unwrap().serial;
        again.set_password("王医生", user("x").password).unwrap();
        assert_ne!(again.user("王医生").unwrap().serial, before, "older sessions are out");
        again.remove_user("王医生").unwrap();
        assert!(again.remove_user("王医生").is_err() && !again.has_users());
        again.remove_token("his").unwrap();
        assert!(Accounts::open(&folder).unwrap().token(&secret).is_none());
    }

    #[test]
    fn a_damaged_file_lets_nobody_in() {
        let dir = tempfile::tempdir().unwrap();
        for text in ["", "{}", "[]", r#"{"format":2,"users":[],"tokens":[]}"#] {
            std::fs::write(dir.path().join(FILE), text).unwrap();
            assert!(Accounts::open(dir.path()).is_err(), "{text}");
        }
    }

    #[test]
    fn names_are_short_and_not_the_systems_own() {
        for wrong in ["", "a b", "a:b", "server", "loopback", &"x".repeat(33), "a\n"] {
            assert!(acceptable(wrong).is_err(), "{wrong:?}");
        }
        for good in ["admin", "王医生", "li.wei-2"] {
            acceptable(good).unwrap();
        }
    }
}
