//! Commands about users, API tokens and the log of who did what.

use std::io::{IsTerminal, Read, Write};
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Args, Subcommand};

use super::{Global, seconds, show};
use crate::access::{
    AuditCall, AuditKind, Password, Role, TokenAdd, TokenMade, UserAdd, UserPassword,
};
use crate::client::{Client, print_json};
use crate::http::Request;
use crate::service::{Format, say, usage};

const USER_EXAMPLES: &str = "\
示例 Examples:
  banyan-aggregator user add 王主任 --role admin                         密码从终端输入 the password is asked for
  banyan-aggregator user add li --role operator --scope 520502           七星关区及其下级 a county
  banyan-aggregator user add zhang --role viewer --scope CG-5201-1 < 密码文件 the password from a file
  banyan-aggregator user passwd li
  banyan-aggregator user list";

const TOKEN_EXAMPLES: &str = "\
示例 Examples:
  banyan-aggregator token add his --role viewer --scope 520502 --expires 365d    只显示一次 shown once
  curl -H \"Authorization: Bearer banyan_…\" \"https://…/v1/query?unit=520502&period=2026-01\"";

const AUDIT_EXAMPLES: &str = "\
示例 Examples:
  banyan-aggregator audit --since 2026-02-01 --kind login
  banyan-aggregator audit --user li --kind read --format json";

/// Longest password file read, in bytes.
const PASSWORD_BYTES_MAX: u64 = 4096;

#[derive(Subcommand)]
pub(super) enum Command {
    /// 用户 Users: who may log in, with which role, for which places
    #[command(after_help = USER_EXAMPLES)]
    User {
        #[command(subcommand)]
        command: User,
    },
    /// 令牌 API tokens for programs
    #[command(after_help = TOKEN_EXAMPLES)]
    Token {
        #[command(subcommand)]
        command: Token,
    },
    /// 审计日志 Who did what: logins, reads of single sites, exports, changes, refusals
    #[command(after_help = AUDIT_EXAMPLES)]
    Audit(Audit),
}

#[derive(Subcommand)]
pub(super) enum User {
    /// 新增用户 Make a user; the password comes from the terminal or stdin
    Add {
        /// The name
        name: String,
        /// What they may do
        #[arg(long, value_enum)]
        role: Role,
        /// 范围 A unit with all below it, or a network (default: everything)
        #[arg(long, value_name = "UNIT|NETWORK")]
        scope: Option<String>,
    },
    /// 改密码 Give a user another password; ends their sessions
    Passwd {
        /// The user
        name: String,
    },
    /// 列出用户 List users
    List,
    /// 删除用户 Remove a user; ends their sessions
    Remove {
        /// The user
        name: String,
    },
}

#[derive(Subcommand)]
pub(super) enum Token {
    /// 新增令牌 Make a token, shown once, alone on the last line
    Add {
        /// The name
        name: String,
        /// What its holder may do
        #[arg(long, value_enum)]
        role: Role,
        /// 范围 A unit with all below it, or a network (default: everything)
        #[arg(long, value_name = "UNIT|NETWORK")]
        scope: Option<String>,
        /// How long it is in force, for example 90d
        #[arg(long, value_parser = seconds, default_value = "90d")]
        expires: i64,
    },
    /// 列出令牌 List tokens
    List,
    /// 删除令牌 Remove a token; it is out at once
    Remove {
        /// The token's name
        name: String,
    },
}

#[derive(Args)]
pub(super) struct Audit {
    /// Only of this user or token
    #[arg(long)]
    user: Option<String>,
    /// Only from this moment on: 2026-02-10, or RFC 3339
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Only of this sort
    #[arg(long, value_enum)]
    kind: Option<AuditKind>,
    /// At most so many lines, the newest
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
}

pub(super) fn run(command: Command, global: &Global, client: &Client) -> Result<ExitCode> {
    match command {
        Command::User { command } => user(command, global, client)?,
        Command::Token { command } => token(command, global, client)?,
        Command::Audit(Audit { user, since, kind, limit }) => {
            let lang = global.lang;
            let call = AuditCall { user, since, kind, limit, lang };
            let answer = client.json(&Request::Audit(call))?;
            let columns = ["at", "kind", "user", "via", "address", "what", "of", "outcome"];
            show(&answer, "records", global.format, &columns)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn user(command: User, global: &Global, client: &Client) -> Result<()> {
    let lang = global.lang;
    match command {
        User::Add { name, role, scope } => {
            let password = new_password(global)?;
            let call = UserAdd { name, role, scope, password, lang };
            print_json(&client.json(&Request::UserAdd(call))?)
        }
        User::Passwd { name } => {
            let password = new_password(global)?;
            print_json(&client.json(&Request::UserPassword(UserPassword { name, password }))?)
        }
        User::List => {
            let answer = client.json(&Request::UserList)?;
            show(&answer, "users", global.format, &["name", "role", "scope", "made_at", "made_by"])
        }
        User::Remove { name } => {
            let answer = client.json(&Request::UserRemove { name })?;
            if answer["users_left"] == 0 {
                eprintln!(
                    "{}",
                    say(
                        lang,
                        "已没有用户：凡能使用本机的人又都能查看全部数据",
                        "no user is left: whoever can use this machine sees everything again"
                    )
                );
            }
            print_json(&answer)
        }
    }
}

fn token(command: Token, global: &Global, client: &Client) -> Result<()> {
    let lang = global.lang;
    match command {
        Token::Add { name, role, scope, expires } => {
            let call = TokenAdd { name, role, scope, expires_s: expires, lang };
            let made: TokenMade = client.call(&Request::TokenAdd(call))?;
            if global.format == Format::Json {
                return print_json(&made);
            }
            let (scope, until) = (&made.scope, &made.expires_at);
            eprintln!(
                "{}",
                say(
                    lang,
                    format!("令牌只显示这一次。范围 {scope}，有效期至 {until}"),
                    format!("shown this once; scope {scope}, in force until {until}"),
                )
            );
            tell!("{}", made.token);
            Ok(())
        }
        Token::List => {
            let answer = client.json(&Request::TokenList)?;
            let columns = ["name", "role", "scope", "expires_at", "expired", "made_at", "made_by"];
            show(&answer, "tokens", global.format, &columns)
        }
        Token::Remove { name } => print_json(&client.json(&Request::TokenRemove { name })?),
    }
}

fn new_password(global: &Global) -> Result<Password> {
    let prompt = Prompt { zh: "新密码：", en: "New password: ", twice: true };
    Ok(Password::new(secret(global, &prompt)?))
}

/// How somebody is asked for what nobody else should read.
pub(super) struct Prompt {
    pub(super) zh: &'static str,
    pub(super) en: &'static str,
    /// Whether it is new, and so asked for twice.
    pub(super) twice: bool,
}

/// What somebody types unseen on the terminal, else the first line of stdin. Never an argument, which others
/// on the machine could read.
pub(super) fn secret(global: &Global, prompt: &Prompt) -> Result<String> {
    let lang = global.lang;
    let mut stdin = std::io::stdin();
    if !stdin.is_terminal() {
        let mut text = String::new();
        stdin.by_ref().take(PASSWORD_BYTES_MAX).read_to_string(&mut text).context("stdin")?;
        return Ok(text.lines().next().unwrap_or_default().to_owned());
    }
    let ask = |zh: &str, en: &str| {
        rpassword::prompt_password(say(lang, zh, en)).context("reading from the terminal")
    };
    let first = ask(prompt.zh, prompt.en)?;
    if prompt.twice && first != ask("再输一遍：", "Again: ")? {
        return Err(usage(say(lang, "两次输入不同", "the two differ")));
    }
    Ok(first)
}
