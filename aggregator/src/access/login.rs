//! Logging in and out, and one's own password: the pages with forms.

use axum::extract::{Extension, Form, FromRequest, Query, Request, State as Extract};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{Html, IntoResponse, Redirect, Response};
use axum::routing::{get, post};
use banyan_shared::catalogue::Lang;
use maud::{DOCTYPE, Markup, PreEscaped, html};
use serde::Deserialize;

use super::guard::{
    CSRF_FIELD, Gate, Routes, cookie_name, from_own_page, peer_of, refusal, session_id, small,
};
use super::{AuditKind, Login, Password, Record, Via, Who};
use crate::service::say;

/// Longest address to go on to, in bytes.
const NEXT_BYTES_MAX: usize = 1000;

/// Adds the routes.
pub(crate) fn routes(routes: Routes, gate: &Gate) -> Routes {
    routes
        .open("/login", get(show).post(log_in).with_state(gate.clone()))
        .guarded("/logout", post(log_out).with_state(gate.clone()))
        .guarded("/password", get(ask_password).post(change_password).with_state(gate.clone()))
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Params {
    next: String,
    lang: String,
}

#[derive(Deserialize)]
struct LoginForm {
    name: String,
    password: Password,
    #[serde(default)]
    next: String,
    #[serde(default)]
    lang: String,
}

#[derive(Deserialize)]
struct PasswordForm {
    old: Password,
    new: Password,
    again: Password,
    #[serde(default)]
    lang: String,
}

fn lang_of(text: &str) -> Lang {
    if text == "en" { Lang::En } else { Lang::Zh }
}

/// An address on this site to go on to; the home page instead of anything else.
fn own_address(next: &str) -> &str {
    let good = next.starts_with('/')
        && !next.starts_with("//")
        && next.len() <= NEXT_BYTES_MAX
        && next.bytes().all(|byte| (0x21..0x7f).contains(&byte) && byte != b'\\');
    if good { next } else { "/" }
}

fn page(lang: Lang, title: &str, content: &Markup) -> String {
    html! {
        (DOCTYPE)
        html lang=(say(lang, "zh-CN", "en")) {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { (title) " · 榕树 Banyan" }
                style { (PreEscaped(crate::pages::STYLE)) }
            }
            body {
                div.top { a.brand href="/" { "榕树 Banyan" } }
                div.main { h1 { (title) } (content) }
            }
        }
    }
    .into_string()
}

fn login_page(gate: &Gate, lang: Lang, next: &str, wrong: Option<&str>) -> String {
    let other = if lang == Lang::En { "" } else { "&lang=en" };
    let mut to_other = String::from("/login?next=");
    crate::pages::encode(next, &mut to_other);
    to_other.push_str(other);
    let none = !gate.service.access().has_users();
    let content = html! {
        @if let Some(wrong) = wrong { div.note role="alert" { (wrong) } }
        @if none {
            p { (say(lang,
                "还没有用户。请在服务器上运行：banyan-aggregator user add 姓名 --role admin",
                "There is no user yet. On the server run: banyan-aggregator user add NAME --role admin")) }
        }
        form action="/login" method="post" {
            input type="hidden" name="next" value=(next);
            @if lang == Lang::En { input type="hidden" name="lang" value="en"; }
            p { label { (say(lang, "用户名", "User name")) " "
                input type="text" name="name" maxlength="32" autocomplete="username" autofocus; } }
            p { label { (say(lang, "密码", "Password")) " "
                input type="password" name="password" maxlength="1024" autocomplete="current-password"; } }
            p { button type="submit" { (say(lang, "登录", "Log in")) } }
        }
        p { a href=(to_other) { (say(lang, "English", "中文")) } }
    };
    page(lang, &say(lang, "登录", "Log in"), &content)
}

async fn show(Extract(gate): Extract<Gate>, Query(params): Query<Params>) -> Response {
    Html(login_page(&gate, lang_of(&params.lang), own_address(&params.next), None)).into_response()
}

/// A form's fields, if it is small and comes in time.
async fn form<T: serde::de::DeserializeOwned>(request: Request) -> Result<T, Response> {
    let request = small(request).await?;
    Form::<T>::from_request(request, &())
        .await
        .map(|Form(fields)| fields)
        .map_err(IntoResponse::into_response)
}

async fn log_in(Extract(gate): Extract<Gate>, request: Request) -> Response {
    let from = peer_of(&request);
    if !from_own_page(request.headers(), gate.listening.tls) {
        let text = "请从登录页面登录 / log in from the login page";
        return refusal(false, StatusCode::FORBIDDEN, text.to_owned());
    }
    let fields: LoginForm = match form(request).await {
        Ok(fields) => fields,
        Err(answer) => return answer,
    };
    let lang = lang_of(&fields.lang);
    let next = own_address(&fields.next);
    let (access, now) = (gate.service.access(), gate.service.now());
    let login = access.login(&fields.name, fields.password.text(), from, now).await;
    told(&gate, login, next, |wrong| login_page(&gate, lang, next, Some(wrong)), lang)
}

/// What came of a password: a session and on to `next`, or the form again.
fn told(
    gate: &Gate,
    login: Login,
    next: &str,
    again: impl FnOnce(&str) -> String,
    lang: Lang,
) -> Response {
    let (status, text, wait) = match login {
        Login::In(id) => {
            let mut answer = Redirect::to(next).into_response();
            answer.headers_mut().insert(header::SET_COOKIE, cookie(gate, &id));
            return answer;
        }
        Login::Wrong => (
            StatusCode::UNAUTHORIZED,
            say(lang, "用户名或密码不对", "Wrong user name or password"),
            None,
        ),
        Login::Wait(seconds) => (
            StatusCode::TOO_MANY_REQUESTS,
            say(
                lang,
                format!("密码错误次数过多，请在 {seconds} 秒后再试"),
                format!("Too many wrong passwords: try again in {seconds} seconds"),
            ),
            Some(seconds),
        ),
        Login::Busy => (
            StatusCode::SERVICE_UNAVAILABLE,
            say(lang, "正在登录的人过多，请稍后再试", "Too many are logging in: try again soon"),
            Some(5),
        ),
    };
    let mut answer = (status, Html(again(&text))).into_response();
    if let Some(seconds) = wait {
        answer.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    answer
}

fn cookie(gate: &Gate, id: &str) -> HeaderValue {
    let tls = gate.listening.tls;
    let secure = if tls { "; Secure" } else { "" };
    let text = format!("{}={id}; Path=/; HttpOnly; SameSite=Strict{secure}", cookie_name(tls));
    // Hexadecimal digits and the fixed text around them.
    HeaderValue::from_str(&text).unwrap_or(HeaderValue::from_static(""))
}

async fn log_out(
    Extract(gate): Extract<Gate>,
    Extension(who): Extension<Who>,
    request: Request,
) -> Response {
    let access = gate.service.access();
    if let Some(id) = session_id(request.headers(), gate.listening.tls) {
        access.logout(id);
    }
    let record = Record {
        at: gate.service.now(),
        kind: AuditKind::Login,
        user: who.name.clone(),
        via: Some(who.via),
        address: who.address,
        what: "logout".into(),
        of: String::new(),
        outcome: "ok".into(),
    };
    if let Err(error) = access.record(&who, record) {
        tracing::error!("the audit log could not be written: {error:#}");
    }
    let mut answer = Redirect::to("/login").into_response();
    let mut gone = cookie(&gate, "").to_str().unwrap_or_default().to_owned();
    gone.push_str("; Max-Age=0");
    if let Ok(gone) = HeaderValue::from_str(&gone) {
        answer.headers_mut().insert(header::SET_COOKIE, gone);
    }
    answer
}

fn password_page(who: &Who, lang: Lang, wrong: Option<&str>) -> String {
    let field = |zh: &str, en: &str, name: &str, complete: &str| {
        html! { p { label { (say(lang, zh, en)) " "
        input type="password" name=(name) maxlength="1024" autocomplete=(complete); } } }
    };
    let content = html! {
        @if let Some(wrong) = wrong { div.note role="alert" { (wrong) } }
        @match (who.via, &who.csrf) {
            (Via::Session, Some(csrf)) => form action="/password" method="post" {
                input type="hidden" name=(CSRF_FIELD) value=(csrf);
                @if lang == Lang::En { input type="hidden" name="lang" value="en"; }
                p { (say(lang, "用户：", "User: ")) b { (who.name) } }
                (field("现在的密码", "Present password", "old", "current-password"))
                (field("新密码", "New password", "new", "new-password"))
                (field("再输一遍新密码", "New password again", "again", "new-password"))
                p { button type="submit" { (say(lang, "修改密码", "Change password")) } }
            },
            _ => p { (say(lang, "只有用密码登录的用户才能在此修改密码", "Only who has logged in with a password changes it here")) },
        }
        p { a href="/" { (say(lang, "返回首页", "Back to the home page")) } }
    };
    page(lang, &say(lang, "修改密码", "Change password"), &content)
}

async fn ask_password(
    Extension(who): Extension<Who>,
    Query(params): Query<Params>,
) -> Html<String> {
    Html(password_page(&who, lang_of(&params.lang), None))
}

async fn change_password(
    Extract(gate): Extract<Gate>,
    Extension(who): Extension<Who>,
    request: Request,
) -> Response {
    let fields: PasswordForm = match form(request).await {
        Ok(fields) => fields,
        Err(answer) => return answer,
    };
    let lang = lang_of(&fields.lang);
    let again = |text: &str| {
        (StatusCode::BAD_REQUEST, Html(password_page(&who, lang, Some(text)))).into_response()
    };
    if who.via != Via::Session {
        return again(&say(lang, "没有密码可改", "There is no password to change"));
    }
    if fields.new.text() != fields.again.text() {
        return again(&say(lang, "两次输入的新密码不同", "The new passwords differ"));
    }
    let (access, now) = (gate.service.access(), gate.service.now());
    let changed = access.change_own_password(&who, fields.old.text(), fields.new, now).await;
    let login = match changed {
        Ok(login) => login,
        Err(error) => return again(&error.to_string()),
    };
    let outcome = if matches!(login, Login::In(_)) { "ok" } else { "wrong" };
    let record = Record {
        at: now,
        kind: AuditKind::Change,
        user: who.name.clone(),
        via: Some(who.via),
        address: who.address,
        what: "own password".into(),
        of: who.name.clone(),
        outcome: outcome.into(),
    };
    if let Err(error) = access.record(&who, record) {
        tracing::error!("the audit log could not be written: {error:#}");
    }
    told(&gate, login, "/", |wrong| password_page(&who, lang, Some(wrong)), lang)
}

#[cfg(test)]
mod tests {
    use super::own_address;

    #[test]
    fn a_login_leads_nowhere_else() {
        for own in ["/", "/place/520502?period=2026-01&lang=en", "/place/%E4%B8%83"] {
            assert_eq!(own_address(own), own);
        }
        for other in [
            "",
            "//evil.example",
            "https://evil.example",
            "/\\evil.example",
            "\\/evil",
            "/a b",
            "/\r\nSet-Cookie: x=1",
            "/七星关",
        ] {
            assert_eq!(own_address(other), "/", "{other:?}");
        }
    }
}
