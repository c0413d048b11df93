//! The HTTP API under `/v1`, and the pages.
//!
//! Every request of the command line is one JSON document to `/v1/call`; reading has routes of its own for
//! programs. Who asks is found out by `access` before anything here runs; [`handle`] holds them to their role
//! and scope and puts on the log what belongs there.

use std::sync::Arc;

use anyhow::{Context, Result};
use axum::Json;
use axum::Router;
use axum::extract::{Extension, Query, RawQuery, Request as HttpRequest, State as Extract};
use axum::http::{StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use banyan_shared::catalogue::Lang;
use banyan_shared::period::Date;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::access::{
    self, AuditCall, AuditKind, Denied, Gate, Inside, Listening, Record, Role, Routes, TokenAdd,
    UserAdd, UserPassword, Who,
};
use crate::act::Stage;
use crate::broker::external::ExternalCounters;
use crate::front_door::Counters;
use crate::pages::Site;
use crate::service::{
    Answer, Busy, EnrolEach, EnrolOne, EnrolStick, RETRY_AFTER_S, Service, Usage, fleet_summary,
    usage,
};

/// Largest request by role, in bytes: a province's registry as base64 fits an administrator's, a part of a
/// file of counts an operator's.
const fn request_bytes_max(role: Role) -> usize {
    match role {
        Role::Viewer => 64 << 10,
        Role::Operator => 32 << 20,
        Role::Admin => 128 << 20,
    }
}

/// How long a request may take to come.
const REQUEST_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(600);

/// What can be asked.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// A code for one agent.
    Enrol(EnrolOne),
    /// A file for each facility.
    EnrolEach(EnrolEach),
    /// One file for many facilities.
    EnrolStick(EnrolStick),
    /// The codes of the facilities under rules.
    Expand {
        /// All under these.
        below: Vec<String>,
        /// Only these kinds.
        kinds: Vec<String>,
        /// Language of messages.
        lang: Lang,
    },
    /// More or fewer facilities for an agent.
    Assign {
        /// The agent.
        agent: String,
        /// Which facilities.
        scope: EnrolOne,
        /// Whether to take them away.
        remove: bool,
    },
    /// Puts an agent out.
    Revoke {
        /// The agent.
        agent: String,
        /// Language of messages.
        lang: Lang,
    },
    /// The agents.
    Fleet {
        /// Language of names.
        lang: Lang,
    },
    /// Entries that do not count.
    Parked {
        /// Language of reasons.
        lang: Lang,
    },
    /// Units of the registry.
    Units {
        /// Below which unit; none for the top.
        unit: Option<String>,
        /// All of this kind, not only the next level.
        kind: Option<String>,
        /// On which day; none for today.
        date: Option<String>,
        /// Language of names.
        lang: Lang,
    },
    /// New tables of the registry.
    ImportUnits(crate::service::ImportUnits),
    /// A later due time, or a waiver.
    Extend(crate::service::ExtendCall),
    /// A new catalogue.
    Publish(crate::service::PublishCall),
    /// Claims of facilities.
    Claims {
        /// Language of names.
        lang: Lang,
    },
    /// Approves or refuses a claim.
    DecideClaim(crate::service::DecideClaim),
    /// The centre's keys.
    Keys,
    /// Checks chain, signatures and counts.
    Verify {
        /// From the first position on.
        all: bool,
    },
    /// Writes a backup on the service's disk.
    Backup {
        /// Where to.
        path: String,
        /// Only what makes the centre itself again.
        identity: bool,
    },
    /// Figures.
    Query(crate::service::QueryCall),
    /// How complete they are.
    Completeness(crate::service::CompletenessCall),
    /// The rules that reports and networks break.
    Anomalies(crate::service::AnomaliesCall),
    /// The trace of a number.
    Report(crate::service::ReportCall),
    /// Corrects a report.
    Correct(crate::service::ChangeCall),
    /// Withdraws a report.
    Withdraw(crate::service::ChangeCall),
    /// Returns a report for correction.
    Return(crate::service::DecisionCall),
    /// Approves the versions of a report that wait.
    Approve(crate::service::DecisionCall),
    /// Signs off the reports of a place.
    Signoff(crate::service::StageCall),
    /// Locks them.
    Lock(crate::service::StageCall),
    /// Opens them again.
    Unlock(crate::service::StageCall),
    /// Takes in a part of a file of counts.
    ImportCounts(crate::service::ImportCall),
    /// Writes a file of counts on the service's disk.
    ExportCounts(crate::service::ExportCall),
    /// Takes in messages of a bundle.
    BundleImport(crate::service::BundleCall),
    /// The agents put out, with their keys.
    Revocations,
    /// How the service is.
    Status,
    /// Makes a user.
    UserAdd(UserAdd),
    /// Gives a user another password.
    UserPassword(UserPassword),
    /// The users.
    UserList,
    /// Removes a user.
    UserRemove {
        /// The user.
        name: String,
    },
    /// Makes an API token.
    TokenAdd(TokenAdd),
    /// The tokens.
    TokenList,
    /// Removes a token.
    TokenRemove {
        /// The token.
        name: String,
    },
    /// Lines of the log.
    Audit(AuditCall),
}

/// A refused request.
#[derive(Debug, Serialize, Deserialize)]
pub struct Failure {
    /// What is wrong.
    pub error: String,
    /// Whether the request itself is wrong (exit code 2).
    pub usage: bool,
}

/// Carries out a request for someone who may make it, and puts it on the log before it is answered.
///
/// # Errors
/// [`Denied`] if they may not, [`Usage`] if the request is wrong, or what failed.
pub async fn handle(service: &Arc<Service>, who: &Who, request: Request) -> Result<Answer> {
    let (request, judged, kind) = judge(service, who, request).await?;
    let (what, of) = access::described(&request);
    if let Err(denied) = judged {
        note(service, who, (AuditKind::Refused, what, of), denied.en.clone()).await?;
        return Err(denied.into());
    }
    let result = carry_out(service, who, request).await;
    if let Some(kind) = kind {
        let outcome = match &result {
            Ok(_) => "ok".to_owned(),
            Err(error) => format!("{error:#}"),
        };
        note(service, who, (kind, what, of), outcome).await?;
    }
    result
}

type Judged = (Request, std::result::Result<(), Denied>, Option<AuditKind>);

/// Whether someone may make a request, and as what it goes on the log.
async fn judge(service: &Arc<Service>, who: &Who, request: Request) -> Result<Judged> {
    let now = service.now();
    let look = move |service: &Service, who: &Who, request: Request| {
        let model = match access::asked_of(&request) {
            Some(asked) => service.model_asked(asked.as_of, now, asked.lang)?,
            None => None,
        };
        let past = model.as_ref().map(|model| access::Past {
            catalogue: &model.catalogue,
            organisation: &model.organisation,
            at: model.at,
        });
        let state = service.state().read();
        let judged = access::check(&state, now, who, &request, past);
        let kind = access::kind_of(&state, now, &request, past);
        Ok((request, judged, kind))
    };
    let of_now = access::asked_of(&request).is_none_or(|asked| asked.as_of.is_none());
    if who.scope == access::Scope::Everything && of_now {
        return look(service, who, request);
    }
    // A scope is looked up facility by facility, and a registry of the past may have to be made first: not on
    // a thread that serves others.
    let (service, who) = (service.clone(), who.clone());
    tokio::task::spawn_blocking(move || look(&service, &who, request))
        .await
        .context("looking up the scope panicked")?
}

async fn note(
    service: &Arc<Service>,
    who: &Who,
    (kind, what, of): (AuditKind, &'static str, String),
    outcome: String,
) -> Result<()> {
    let record = Record {
        at: service.now(),
        kind,
        user: who.name.clone(),
        via: Some(who.via),
        address: who.address,
        what: what.to_owned(),
        of,
        outcome,
    };
    let (service, who) = (service.clone(), who.clone());
    let noted = move || service.access().record(&who, record);
    tokio::task::spawn_blocking(noted).await.context("the audit log panicked")?
}

async fn carry_out(service: &Arc<Service>, who: &Who, request: Request) -> Result<Answer> {
    let by = &*who.by();
    let agent_id =
        |text: &str| text.parse().map_err(|e: banyan_shared::ids::InvalidId| usage(e.to_string()));
    Ok(Answer::Value(match request {
        Request::Enrol(one) => serde_json::to_value(service.enrol_one(by, one).await?)?,
        Request::EnrolEach(each) => serde_json::to_value(service.enrol_each(by, each).await?)?,
        Request::EnrolStick(stick) => serde_json::to_value(service.enrol_stick(by, stick).await?)?,
        Request::Expand { below, kinds, lang } => {
            serde_json::to_value(service.expand(&below, &kinds, lang)?)?
        }
        Request::Assign { agent, scope, remove } => {
            let facilities = service.assign(by, agent_id(&agent)?, scope, remove).await?;
            json!({ "agent": agent, "facilities": facilities })
        }
        Request::Revoke { agent, lang } => {
            service.revoke(by, agent_id(&agent)?, lang).await?;
            json!({ "agent": agent, "revoked": true })
        }
        Request::Fleet { lang } => {
            let mut agents = service.fleet(lang);
            let inside = |i: &Inside<'_>| agents.retain(|row| i.entry(&row.home, "", &row.agent));
            within(service, who, inside);
            json!({ "summary": fleet_summary(&agents), "agents": agents })
        }
        Request::Parked { lang } => {
            let mut entries = service.parked(lang);
            within(service, who, |inside| {
                entries.retain(|row| inside.entry(&row.facility, &row.period, &row.agent));
            });
            json!({ "entries": entries })
        }
        Request::Units { unit, kind, date, lang } => {
            let date: Option<Date> = date
                .map(|text| text.parse())
                .transpose()
                .map_err(|e: banyan_shared::period::PeriodError| usage(e.to_string()))?;
            let list = service.units(unit.as_deref(), kind.as_deref(), date, lang)?;
            serde_json::to_value(list)?
        }
        Request::ImportUnits(call) => serde_json::to_value(service.import_units(by, call).await?)?,
        Request::Extend(call) => serde_json::to_value(service.extend(by, call).await?)?,
        Request::Publish(call) => serde_json::to_value(service.publish(by, call).await?)?,
        Request::Claims { lang } => {
            let mut claims = service.claims(lang);
            within(service, who, |inside| claims.retain(|row| inside.entry(&row.facility, "", "")));
            json!({ "claims": claims })
        }
        Request::DecideClaim(call) => serde_json::to_value(service.decide_claim(by, call).await?)?,
        Request::Keys => serde_json::to_value(service.keys())?,
        Request::Verify { all } => serde_json::to_value(service.verify(all).await?)?,
        Request::Backup { path, identity } => {
            let summary = service.backup(path.as_ref(), identity).await?;
            json!({ "path": path, "identity": identity, "rows": summary.rows,
                    "last_position": summary.last_position, "bytes": summary.bytes })
        }
        Request::Query(call) => return blocking(service, move |s| s.query(&call)).await,
        Request::Completeness(call) => blocking(service, move |s| s.completeness(&call)).await?,
        Request::Anomalies(call) => blocking(service, move |s| s.anomalies(&call)).await?,
        Request::Report(call) => blocking(service, move |s| s.report(&call)).await?,
        Request::Correct(call) => serde_json::to_value(service.correct(by, call).await?)?,
        Request::Withdraw(call) => serde_json::to_value(service.withdraw(by, call).await?)?,
        Request::Return(call) => serde_json::to_value(service.return_report(by, call).await?)?,
        Request::Approve(call) => serde_json::to_value(service.approve(by, call).await?)?,
        Request::Signoff(call) => {
            serde_json::to_value(service.stage(by, Stage::Signed, call).await?)?
        }
        Request::Lock(call) => serde_json::to_value(service.stage(by, Stage::Locked, call).await?)?,
        Request::Unlock(call) => serde_json::to_value(service.stage(by, Stage::Open, call).await?)?,
        Request::ImportCounts(call) => {
            serde_json::to_value(service.import_counts(by, call).await?)?
        }
        Request::ExportCounts(call) => {
            let export = move |s: &Service| Ok(serde_json::to_value(s.export_counts(&call)?)?);
            blocking(service, export).await?
        }
        Request::BundleImport(call) => serde_json::to_value(service.import_bundle(&call).await?)?,
        Request::Revocations => serde_json::to_value(service.revocations())?,
        Request::Status => service.status(),
        Request::UserAdd(call) => access::user_add(service, who, call).await?,
        Request::UserPassword(call) => access::user_passwd(service, who, call).await?,
        Request::UserList => access::user_list(service, who),
        Request::UserRemove { name } => access::user_remove(service, who, &name)?,
        Request::TokenAdd(call) => serde_json::to_value(access::token_add(service, who, call)?)?,
        Request::TokenList => access::token_list(service, who),
        Request::TokenRemove { name } => access::token_remove(service, who, &name)?,
        Request::Audit(call) => {
            blocking(service, move |service| access::read_audit(service, &call)).await?
        }
    }))
}

/// Leaves of a list what lies in someone's scope.
fn within(service: &Service, who: &Who, keep: impl FnOnce(&Inside<'_>)) {
    if who.scope != access::Scope::Everything {
        keep(&Inside::new(&service.state().read(), service.now(), who, None));
    }
}

async fn blocking<T: Send + 'static>(
    service: &Arc<Service>,
    work: impl FnOnce(&Service) -> Result<T> + Send + 'static,
) -> Result<T> {
    let service = service.clone();
    tokio::task::spawn_blocking(move || work(&service)).await.context("the query panicked")?
}

impl IntoResponse for Answer {
    fn into_response(self) -> Response {
        match self {
            Answer::Value(value) => Json(value).into_response(),
            Answer::Json(text) => {
                ([(header::CONTENT_TYPE, "application/json")], text).into_response()
            }
        }
    }
}

struct ApiError(anyhow::Error);

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let usage = self.0.downcast_ref::<Usage>().is_some();
        let denied = self.0.downcast_ref::<Denied>().is_some();
        let busy = self.0.downcast_ref::<Busy>().is_some();
        let status = match (usage, denied, busy) {
            (true, ..) => StatusCode::BAD_REQUEST,
            (_, true, _) => StatusCode::FORBIDDEN,
            (.., true) => StatusCode::SERVICE_UNAVAILABLE,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
        if status == StatusCode::INTERNAL_SERVER_ERROR {
            tracing::error!(error = format!("{:#}", self.0), "request failed");
        }
        let failure = Failure { error: format!("{:#}", self.0), usage };
        let mut answer = (status, Json(failure)).into_response();
        if busy {
            answer.headers_mut().insert(header::RETRY_AFTER, RETRY_AFTER_S.into());
        }
        answer
    }
}

/// What is counted outside the service.
#[derive(Clone)]
pub struct Counted {
    /// By the front door.
    pub door: Arc<Counters>,
    /// By the client of an external broker, if there is one.
    pub external: Option<Arc<ExternalCounters>>,
}

#[derive(Clone)]
struct App {
    service: Arc<Service>,
    counted: Counted,
}

/// The routes of one listening socket. `token` is the server's own, in `DIR/run/admin.token`.
pub fn routes(site: &Arc<Site>, counted: Counted, token: &str, listening: Listening) -> Router {
    let service = site.service().clone();
    let gate = Gate { service, token: token.into(), listening };
    listed(site, counted, &gate).finish(gate)
}

/// The same, still with the list of their paths.
pub(crate) fn listed(site: &Arc<Site>, counted: Counted, gate: &Gate) -> Routes {
    let app = App { service: site.service().clone(), counted };
    let routes = Routes::default()
        .open("/v1/health", get(health).with_state(app.clone()))
        .guarded("/v1/call", post(call).with_state(app.clone()))
        .guarded("/v1/query", get(query).with_state(app.clone()))
        .guarded("/v1/completeness", get(completeness).with_state(app.clone()))
        .guarded("/v1/anomalies", get(anomalies).with_state(app.clone()))
        .guarded("/v1/report", get(report).with_state(app.clone()))
        .guarded("/v1/counters", get(counters).with_state(app));
    crate::pages::routes(access::login_routes(routes, gate), site)
}

async fn health(Extract(app): Extract<App>) -> Json<Value> {
    let state = app.service.state().read();
    Json(
        json!({ "name": state.name, "version": env!("CARGO_PKG_VERSION"), "position": state.position }),
    )
}

async fn call(
    Extract(app): Extract<App>,
    Extension(who): Extension<Who>,
    request: HttpRequest,
) -> std::result::Result<Answer, Response> {
    let limit = request_bytes_max(who.role);
    let read = axum::body::to_bytes(request.into_body(), limit);
    let bytes = match tokio::time::timeout(REQUEST_TIMEOUT, read).await {
        Ok(Ok(bytes)) => bytes,
        Ok(Err(_)) => {
            let error = format!(
                "请求不完整，或超过 {limit} 字节 / the request is cut off or longer than {limit} bytes"
            );
            let failure = Json(Failure { error, usage: true });
            return Err((StatusCode::PAYLOAD_TOO_LARGE, failure).into_response());
        }
        Err(_) => return Err(StatusCode::REQUEST_TIMEOUT.into_response()),
    };
    let request = serde_json::from_slice(&bytes).map_err(|error| usage(error.to_string()));
    drop(bytes);
    let answer = match request {
        Ok(request) => handle(&app.service, &who, request).await,
        Err(error) => Err(error),
    };
    answer.map_err(|error| ApiError(error).into_response())
}

/// The question of a query string: lists are divided by commas.
///
/// # Errors
/// [`Usage`] saying what does not read.
pub fn request_of_query(command: &str, query: &str) -> Result<Request> {
    let uri: Uri = format!("/?{query}").parse().map_err(|_| usage("the query does not read"))?;
    let Query(parameters) = Query::<Vec<(String, String)>>::try_from_uri(&uri)
        .map_err(|rejection| usage(rejection.body_text()))?;
    let mut object = crate::service::parameters(parameters)?;
    // Last, so that no parameter can make another command of it.
    object.insert("command".into(), command.into());
    serde_json::from_value(Value::Object(object)).map_err(|error| usage(error.to_string()))
}

async fn read(app: App, who: Who, command: &str, query: Option<String>) -> Response {
    let result = match request_of_query(command, &query.unwrap_or_default()) {
        Ok(request) => handle(&app.service, &who, request).await,
        Err(error) => Err(error),
    };
    match result {
        // A table or CSV comes as text.
        Ok(Answer::Value(Value::String(text))) => {
            ([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], text).into_response()
        }
        Ok(answer) => answer.into_response(),
        Err(error) => ApiError(error).into_response(),
    }
}

async fn query(
    Extract(app): Extract<App>,
    Extension(who): Extension<Who>,
    RawQuery(query): RawQuery,
) -> Response {
    read(app, who, "query", query).await
}

async fn completeness(
    Extract(app): Extract<App>,
    Extension(who): Extension<Who>,
    RawQuery(query): RawQuery,
) -> Response {
    read(app, who, "completeness", query).await
}

async fn anomalies(
    Extract(app): Extract<App>,
    Extension(who): Extension<Who>,
    RawQuery(query): RawQuery,
) -> Response {
    read(app, who, "anomalies", query).await
}

async fn report(
    Extract(app): Extract<App>,
    Extension(who): Extension<Who>,
    RawQuery(query): RawQuery,
) -> Response {
    read(app, who, "report", query).await
}

async fn counters(Extract(app): Extract<App>, Extension(who): Extension<Who>) -> Response {
    if let Err(denied) = access::whole(&who) {
        return ApiError(denied.into()).into_response();
    }
    let named = |values: Vec<(&'static str, u64)>| -> serde_json::Map<String, Value> {
        values.into_iter().map(|(name, value)| (name.into(), value.into())).collect()
    };
    let intake = named(app.service.counters().values());
    let door = app.counted.door.values();
    let refused: serde_json::Map<String, Value> =
        door.refused.iter().map(|(cause, n)| (cause.code().into(), (*n).into())).collect();
    let mut told = named(door.named());
    told.insert("refused".into(), refused.into());
    let ready = named(app.service.ready().to_vec());
    let mut counted = json!({ "intake": intake, "door": told, "ready": ready });
    if let Some(external) = &app.counted.external {
        counted["broker"] = named(external.values()).into();
    }
    Json(counted).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_finds_too_many_before_them_is_told_when_to_come_again() {
        let answer = ApiError(Busy.into()).into_response();
        assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(answer.headers()[header::RETRY_AFTER], RETRY_AFTER_S.to_string().as_str());
    }
}
