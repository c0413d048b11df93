//! Pages for people, server-rendered, without anything from elsewhere.

use std::sync::Arc;

use axum::Router;
use axum::extract::State as Extract;
use axum::response::Html;
use axum::routing::get;
use maud::{DOCTYPE, html};

use crate::service::Service;

/// The routes.
pub fn routes(service: Arc<Service>) -> Router {
    Router::new().route("/", get(home)).with_state(service)
}

async fn home(Extract(service): Extract<Arc<Service>>) -> Html<String> {
    let name = service.state().read().name.clone();
    Html(html! { (DOCTYPE) html { head { meta charset="utf-8"; title { (name) } } body { h1 { (name) } } } }.into_string())
}
