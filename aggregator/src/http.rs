//! The HTTP API under `/v1`, and the pages.
//!
//! Every request of the command line is one JSON document to `/v1/call` with the administrator's token;
//! reading has routes of its own for programs. Loopback only, until users and TLS are set up.

use std::sync::Arc;

use anyhow::{Context, Result};
use axum::Json;
use axum::Router;
use axum::extract::{DefaultBodyLimit, Query, Request as HttpRequest, State as Extract};
use axum::http::{StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use banyan_shared::catalogue::Lang;
use banyan_shared::period::Date;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::act::Stage;
use crate::front_door::Counters;
use crate::service::{EnrolEach, EnrolOne, EnrolStick, Service, Usage, usage};

/// Largest request, in bytes: a province's registry as base64 fits.
const REQUEST_BYTES_MAX: usize = 128 << 20;

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
    /// How the service is.
    Status,
}

/// A refused request.
#[derive(Debug, Serialize, Deserialize)]
pub struct Failure {
    /// What is wrong.
    pub error: String,
    /// Whether the request itself is wrong (exit code 2).
    pub usage: bool,
}

/// Carries out a request.
///
/// # Errors
/// [`Usage`] if the request is wrong, or what failed.
pub async fn handle(service: &Arc<Service>, by: &str, request: Request) -> Result<Value> {
    let agent_id =
        |text: &str| text.parse().map_err(|e: banyan_shared::ids::InvalidId| usage(e.to_string()));
    Ok(match request {
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
            json!({ "summary": service.fleet_summary(lang), "agents": service.fleet(lang) })
        }
        Request::Parked { lang } => json!({ "entries": service.parked(lang) }),
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
        Request::Claims { lang } => json!({ "claims": service.claims(lang) }),
        Request::DecideClaim(call) => serde_json::to_value(service.decide_claim(by, call).await?)?,
        Request::Verify { all } => serde_json::to_value(service.verify(all).await?)?,
        Request::Backup { path, identity } => {
            let summary = service.backup(path.as_ref(), identity).await?;
            json!({ "path": path, "identity": identity, "rows": summary.rows,
                    "last_position": summary.last_position, "bytes": summary.bytes })
        }
        Request::Query(call) => blocking(service, move |s| s.query(&call)).await?,
        Request::Completeness(call) => blocking(service, move |s| s.completeness(&call)).await?,
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
        Request::Status => service.status(),
    })
}

async fn blocking(
    service: &Arc<Service>,
    work: impl FnOnce(&Service) -> Result<Value> + Send + 'static,
) -> Result<Value> {
    let service = service.clone();
    tokio::task::spawn_blocking(move || work(&service)).await.context("the query panicked")?
}

struct ApiError(anyhow::Error);

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let usage = self.0.downcast_ref::<Usage>().is_some();
        let status =
            if usage { StatusCode::BAD_REQUEST } else { StatusCode::INTERNAL_SERVER_ERROR };
        if !usage {
            tracing::error!(error = format!("{:#}", self.0), "request failed");
        }
        (status, Json(Failure { error: format!("{:#}", self.0), usage })).into_response()
    }
}

#[derive(Clone)]
struct App {
    service: Arc<Service>,
    door: Arc<Counters>,
    token: Arc<str>,
}

/// The routes.
pub fn routes(service: Arc<Service>, door: Arc<Counters>, token: String) -> Router {
    let app = App { service: service.clone(), door, token: token.into() };
    let guarded = Router::new()
        .route("/v1/call", post(call))
        .route("/v1/query", get(query))
        .route("/v1/completeness", get(completeness))
        .route("/v1/report", get(report))
        .route("/v1/counters", get(counters))
        .route_layer(middleware::from_fn_with_state(app.clone(), guard))
        .layer(DefaultBodyLimit::max(REQUEST_BYTES_MAX));
    Router::new()
        .route("/v1/health", get(health))
        .merge(guarded)
        .with_state(app)
        .merge(crate::pages::routes(service))
}

/// Lets in who knows the administrator's token.
async fn guard(Extract(app): Extract<App>, request: HttpRequest, next: Next) -> Response {
    let given = request
        .headers()
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.strip_prefix("Bearer "))
        .unwrap_or_default();
    // Compared by hash, so that the time taken tells nothing of how much was right.
    let hash = |text: &str| banyan_shared::keys::sha256(&[text.as_bytes()]);
    if hash(given) == hash(&app.token) {
        return next.run(request).await;
    }
    let failure = Failure {
        error: "missing or wrong token: send `Authorization: Bearer …` with DIR/run/admin.token"
            .into(),
        usage: false,
    };
    (StatusCode::UNAUTHORIZED, Json(failure)).into_response()
}

async fn health(Extract(app): Extract<App>) -> Json<Value> {
    let state = app.service.state().read();
    Json(
        json!({ "name": state.name, "version": env!("CARGO_PKG_VERSION"), "position": state.position }),
    )
}

async fn call(
    Extract(app): Extract<App>,
    body: std::result::Result<Json<Request>, axum::extract::rejection::JsonRejection>,
) -> std::result::Result<Json<Value>, ApiError> {
    let Json(request) = body.map_err(|rejection| ApiError(usage(rejection.body_text())))?;
    handle(&app.service, "admin", request).await.map(Json).map_err(ApiError)
}

/// The parameters of a call as a query string carries them: lists are divided by commas.
type Parameters = Query<Vec<(String, String)>>;

async fn read(app: App, command: &str, parameters: Vec<(String, String)>) -> Response {
    let mut object = serde_json::Map::new();
    for (name, value) in parameters {
        let value = crate::service::parameter(&name, &value);
        object.insert(name, value);
    }
    // Last, so that no parameter can make another command of it.
    object.insert("command".into(), command.into());
    let request: Result<Request> =
        serde_json::from_value(Value::Object(object)).map_err(|error| usage(error.to_string()));
    let result = match request {
        Ok(request) => handle(&app.service, "admin", request).await,
        Err(error) => Err(error),
    };
    match result {
        // A table or CSV comes as text.
        Ok(Value::String(text)) => {
            ([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], text).into_response()
        }
        Ok(value) => Json(value).into_response(),
        Err(error) => ApiError(error).into_response(),
    }
}

async fn query(Extract(app): Extract<App>, Query(parameters): Parameters) -> Response {
    read(app, "query", parameters).await
}

async fn completeness(Extract(app): Extract<App>, Query(parameters): Parameters) -> Response {
    read(app, "completeness", parameters).await
}

async fn report(Extract(app): Extract<App>, Query(parameters): Parameters) -> Response {
    read(app, "report", parameters).await
}

async fn counters(Extract(app): Extract<App>) -> Json<Value> {
    let intake: serde_json::Map<String, Value> =
        app.service.counters().values().into_iter().map(|(k, v)| (k.into(), v.into())).collect();
    let door = app.door.values();
    let refused: serde_json::Map<String, Value> =
        door.refused.iter().map(|(cause, n)| (cause.code().into(), (*n).into())).collect();
    Json(json!({ "intake": intake, "door": { "refused": refused } }))
}
