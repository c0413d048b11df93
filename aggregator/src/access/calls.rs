//! Looking after users, tokens and the log, as the command line and the API ask for it.

use anyhow::Result;
use banyan_shared::catalogue::Lang;
use banyan_shared::ids::Millis;
use banyan_shared::organisation::{Found, Lookup};
use banyan_shared::period::Date;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::accounts::{TokenRow, User, UserRow, fresh_serial};
use super::audit::{AuditCall, ROWS_MAX, Wanted};
use super::{Access, Denied, Role, Scope, Via, Who, password};
use crate::service::{Service, rfc3339, say, usage};
use crate::state::State;

/// Lines of the log told when nothing else is asked for.
const AUDIT_ROWS_USUAL: usize = 1_000;
/// Longest life of a token, in seconds.
const TOKEN_LIFE_MAX_S: i64 = 2 * 366 * 86_400;

/// A password on its way: never printed.
#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Password(String);

impl Password {
    /// Wraps one.
    pub fn new(text: impl Into<String>) -> Password {
        Password(text.into())
    }

    pub(super) fn text(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for Password {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("Password")
    }
}

/// A new user.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UserAdd {
    /// The name.
    pub name: String,
    /// What they may do.
    pub role: Role,
    /// To whom: a unit or network by code or unique name; none for everything.
    #[serde(default)]
    pub scope: Option<String>,
    /// The password.
    pub password: Password,
    /// Language of messages.
    #[serde(default)]
    pub lang: Lang,
}

/// Another password for a user.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UserPassword {
    /// The user.
    pub name: String,
    /// The password.
    pub password: Password,
}

/// A new API token.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenAdd {
    /// The name.
    pub name: String,
    /// What its holder may do.
    pub role: Role,
    /// To whom; none for everything.
    #[serde(default)]
    pub scope: Option<String>,
    /// How long it is in force, in seconds.
    pub expires_s: i64,
    /// Language of messages.
    #[serde(default)]
    pub lang: Lang,
}

/// A token made.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct TokenMade {
    /// The token: shown now and never again.
    pub token: String,
    /// Its name.
    pub name: String,
    /// To whom.
    pub scope: String,
    /// When it expires.
    pub expires_at: String,
}

/// What a scope's text means.
fn scope(state: &State, text: Option<&str>, now: Millis, lang: Lang) -> Result<Scope> {
    let Some(text) = text.map(str::trim).filter(|text| !text.is_empty() && *text != "*") else {
        return Ok(Scope::Everything);
    };
    let org = &state.organisation;
    match org.find(text, state.catalogue.day_at(now)) {
        Lookup::One(Found::Unit(unit)) => Ok(Scope::Unit(org.code(unit).clone())),
        Lookup::One(Found::Network(network)) => {
            Ok(Scope::Network(org.network_code(network).clone()))
        }
        Lookup::Candidates(all) => {
            let lines: Vec<String> =
                all.iter().map(|c| format!("  {}  {}", c.code, c.path.join(" › "))).collect();
            Err(usage(format!(
                "{}\n{}",
                say(
                    lang,
                    format!("范围“{text}”不能唯一确定一个地区、机构或网络"),
                    format!("the scope {text:?} names no single unit or network"),
                ),
                lines.join("\n")
            )))
        }
    }
}

/// Refuses to give anyone more than one has.
fn may_give(state: &State, who: &Who, role: Role, to: &Scope, now: Millis) -> Result<()> {
    let held = who.role >= role && super::rules::covers(state, &who.scope, to, now);
    if held {
        return Ok(());
    }
    Err(Denied::new(
        format!("超出您的范围（{}）", who.scope),
        format!("this is beyond your own scope ({})", who.scope),
    )
    .into())
}

/// Makes a user.
pub(crate) async fn user_add(service: &Service, who: &Who, call: UserAdd) -> Result<Value> {
    let now = service.now();
    let access = service.access();
    let to = {
        let state = service.state().read();
        let to = scope(&state, call.scope.as_deref(), now, call.lang)?;
        may_give(&state, who, call.role, &to, now)?;
        to
    };
    access.accounts().may_add_user(&call.name)?;
    let hash = access.hashing.hash(call.password).await?;
    let user = User {
        name: call.name.clone(),
        role: call.role,
        scope: to.clone(),
        password: hash,
        serial: fresh_serial()?,
        made_at: now,
        made_by: who.by(),
    };
    access.accounts_mut().add_user(user)?;
    Ok(json!({ "name": call.name, "role": call.role, "scope": to.to_string() }))
}

impl Access {
    /// Refuses to touch a user whom one could not have made.
    fn may_touch(&self, service: &Service, who: &Who, name: &str) -> Result<()> {
        let Some((role, to)) = self.accounts().user(name).map(|u| (u.role, u.scope.clone())) else {
            if who.sees_everything() {
                // Whoever looks is told by the change itself.
                return Ok(());
            }
            return Err(Denied::new("没有这样的用户", "there is no such user in your scope").into());
        };
        may_give(&service.state().read(), who, role, &to, service.now())
    }
}

/// Gives a user another password.
pub(crate) async fn user_passwd(service: &Service, who: &Who, call: UserPassword) -> Result<Value> {
    let access = service.access();
    access.may_touch(service, who, &call.name)?;
    password::acceptable(call.password.text())?;
    access.set_password(&call.name, call.password).await?;
    Ok(json!({ "name": call.name }))
}

/// The users in one's scope.
pub(crate) fn user_list(service: &Service, who: &Who) -> Value {
    let now = service.now();
    let state = service.state().read();
    let accounts = service.access().accounts();
    let mine = |user: &&User| super::rules::covers(&state, &who.scope, &user.scope, now);
    let row = |user: &User| UserRow {
        name: user.name.clone(),
        role: user.role,
        scope: user.scope.to_string(),
        made_at: rfc3339(&state, user.made_at),
        made_by: user.made_by.clone(),
    };
    let users: Vec<UserRow> = accounts.users().iter().filter(mine).map(row).collect();
    json!({ "users": users })
}

/// Removes a user.
pub(crate) fn user_remove(service: &Service, who: &Who, name: &str) -> Result<Value> {
    let access = service.access();
    access.may_touch(service, who, name)?;
    access.accounts_mut().remove_user(name)?;
    super::lock(&access.sessions).end_all_of(name);
    Ok(json!({ "name": name, "removed": true, "users_left": access.accounts().users().len() }))
}

/// Makes a token.
pub(crate) fn token_add(service: &Service, who: &Who, call: TokenAdd) -> Result<TokenMade> {
    let now = service.now();
    let state = service.state().read();
    let to = scope(&state, call.scope.as_deref(), now, call.lang)?;
    may_give(&state, who, call.role, &to, now)?;
    let expires_at = now.plus(call.expires_s.clamp(60, TOKEN_LIFE_MAX_S) * 1000);
    let of = (call.name.clone(), call.role, to.clone());
    let token = service.access().accounts_mut().add_token(of, (now, expires_at), who.by())?;
    let expires_at = rfc3339(&state, expires_at);
    Ok(TokenMade { token, name: call.name, scope: to.to_string(), expires_at })
}

/// The tokens in one's scope.
pub(crate) fn token_list(service: &Service, who: &Who) -> Value {
    let now = service.now();
    let state = service.state().read();
    let accounts = service.access().accounts();
    let tokens: Vec<TokenRow> = accounts
        .tokens()
        .iter()
        .filter(|token| super::rules::covers(&state, &who.scope, &token.scope, now))
        .map(|token| TokenRow {
            name: token.name.clone(),
            role: token.role,
            scope: token.scope.to_string(),
            expires_at: rfc3339(&state, token.expires_at),
            expired: token.expires_at <= now,
            made_at: rfc3339(&state, token.made_at),
            made_by: token.made_by.clone(),
        })
        .collect();
    json!({ "tokens": tokens })
}

/// Removes a token; it is out at once.
pub(crate) fn token_remove(service: &Service, who: &Who, name: &str) -> Result<Value> {
    let access = service.access();
    let of = access.accounts().token_named(name).map(|token| (token.role, token.scope.clone()));
    if let Some((role, to)) = of {
        may_give(&service.state().read(), who, role, &to, service.now())?;
    } else if !who.sees_everything() {
        return Err(Denied::new("没有这样的令牌", "there is no such token in your scope").into());
    }
    access.accounts_mut().remove_token(name)?;
    Ok(json!({ "name": name, "removed": true }))
}

/// A moment, or the beginning of a day in the catalogue's zone.
fn since(service: &Service, text: &str, lang: Lang) -> Result<Millis> {
    if let Ok(at) = text.parse::<jiff::Timestamp>() {
        return Ok(at.into());
    }
    let day: Date = text.parse().map_err(|_| {
        usage(say(
            lang,
            format!("“{text}”不是时刻：请写 2026-02-10 或 2026-02-10T09:00:00+08:00"),
            format!("{text:?} is no moment: write 2026-02-10 or 2026-02-10T09:00:00+08:00"),
        ))
    })?;
    Ok(service.state().read().catalogue.moment(day, 0, 0))
}

/// Lines of the log, the oldest first.
pub(crate) fn read_audit(service: &Service, call: &AuditCall) -> Result<Value> {
    let since = call.since.as_deref().map(|text| since(service, text, call.lang)).transpose()?;
    let wanted = Wanted {
        user: call.user.as_deref(),
        since,
        kind: call.kind,
        limit: call.limit.unwrap_or(AUDIT_ROWS_USUAL).clamp(1, ROWS_MAX),
    };
    let (records, damaged) = service.access().audit.read(&wanted)?;
    let state = service.state().read();
    let via = |via: Option<Via>| via.and_then(|via| serde_json::to_value(via).ok());
    let row = |record: &super::Record| {
        json!({
            "at": rfc3339(&state, record.at), "kind": record.kind, "user": record.user,
            "via": via(record.via), "address": record.address, "what": record.what,
            "of": record.of, "outcome": record.outcome,
        })
    };
    let rows: Vec<Value> = records.iter().map(row).collect();
    Ok(json!({ "records": rows, "unreadable": damaged }))
}
