//! Alcor's own routes under `/alcor/v1`: what each host really has. Read-only; the answers come from the NCM through
//! [`HostDirectory`].

use std::{
    future::{Future, ready},
    pin::Pin,
};

use alcor_model::{
    Id, Port,
    effective::{GatewayLine, HostState, HostSummary, PortState},
    trace::{Trace, TraceError, TraceQuestion},
};
use axum::{
    Json,
    extract::{Path, State},
    response::{IntoResponse, Response},
};
use http::StatusCode;
use serde_json::json;

use crate::{auth::Who, authorize::authorize_on, error::ApiError, parse, state::ApiState};

/// A boxed future, as traits without generics need.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Where effective state is asked for.
pub trait HostDirectory: Send + Sync + 'static {
    /// Every host that ever registered, by name.
    fn hosts(&self) -> BoxFuture<'_, Vec<HostSummary>>;
    /// All about one host.
    fn host<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Option<HostState>>;
    /// Every gateway that the NCM knows; none: it does not answer, and nothing is known of any.
    fn gateways(&self) -> BoxFuture<'_, Option<Vec<GatewayLine>>>;
    /// How a port's last change travelled.
    fn port(&self, id: Id<Port>) -> BoxFuture<'_, Option<PortState>>;
    /// What would become of a packet.
    fn trace(&self, question: TraceQuestion) -> BoxFuture<'_, Result<Trace, TraceError>>;
}

/// A directory without hosts, for a controller without an NCM in the process and for tests.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoHosts;

impl HostDirectory for NoHosts {
    fn hosts(&self) -> BoxFuture<'_, Vec<HostSummary>> {
        Box::pin(ready(Vec::new()))
    }
    fn host<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Option<HostState>> {
        Box::pin(ready(None))
    }
    fn gateways(&self) -> BoxFuture<'_, Option<Vec<GatewayLine>>> {
        Box::pin(ready(None))
    }
    fn port(&self, _: Id<Port>) -> BoxFuture<'_, Option<PortState>> {
        Box::pin(ready(None))
    }
    fn trace(&self, question: TraceQuestion) -> BoxFuture<'_, Result<Trace, TraceError>> {
        Box::pin(ready(Err(TraceError::UnknownPort(question.from))))
    }
}

/// The rule for these routes.
pub(crate) const RULE: &str = "alcor_admin";

/// `GET /alcor/v1/hosts`
///
/// # Errors
/// 403 for callers who are not admins.
pub async fn hosts(State(api): State<ApiState>, who: Who) -> Result<Response, ApiError> {
    authorize_on(&api, &who, RULE, &())?;
    Ok(Json(json!({"hosts": api.hosts().hosts().await})).into_response())
}

/// `GET /alcor/v1/hosts/{name}`
///
/// # Errors
/// 403 for callers who are not admins, 404 for a host that never registered.
pub async fn host(
    State(api): State<ApiState>,
    who: Who,
    Path(name): Path<String>,
) -> Result<Response, ApiError> {
    authorize_on(&api, &who, RULE, &())?;
    match api.hosts().host(&name).await {
        Some(state) => Ok(Json(state).into_response()),
        None => Err(ApiError::new(
            StatusCode::NOT_FOUND,
            "HostNotFound",
            format!("Host {} could not be found.", parse::cut(&name)),
        )),
    }
}

/// `GET /alcor/v1/ports/{id}/status`
///
/// # Errors
/// 403 for callers who are not admins, 404 for a port that is not there.
pub async fn port_status(
    State(api): State<ApiState>,
    who: Who,
    Path(id): Path<String>,
) -> Result<Response, ApiError> {
    authorize_on(&api, &who, RULE, &())?;
    let state = match id.parse() {
        Ok(port) => api.hosts().port(port).await,
        Err(_) => None,
    };
    state
        .map(|state| Json(state).into_response())
        .ok_or_else(|| crate::query::not_found("port", &id))
}

/// What these routes take and answer.
pub(crate) mod doc {
    use serde_json::{Value, json};

    use crate::openapi::{
        Operation,
        schema::{ip, list, nullable, object, reference, uuid},
    };

    pub(crate) fn text() -> Value {
        json!({"type": "string"})
    }

    pub(crate) fn number() -> Value {
        json!({"type": "integer", "minimum": 0})
    }

    fn summary() -> Vec<(&'static str, Value)> {
        vec![
            ("name", text()),
            ("tunnel_ip", nullable(ip())),
            ("alive", json!({"type": "boolean"})),
            (
                "last_seen_at",
                nullable(json!({"type": "string", "format": "date-time"})),
            ),
            (
                "started_at",
                nullable(json!({"type": "string", "format": "date-time"})),
            ),
            ("dataplane", nullable(text())),
            ("ports", number()),
            ("pending", number()),
            ("errors", number()),
            ("stale", json!({"type": "boolean"})),
        ]
    }

    fn timing() -> Value {
        nullable(object([
            ("committed_us", number()),
            ("sent_us", number()),
            ("received_us", number()),
            ("visible_us", number()),
        ]))
    }

    /// The neighbours of one network on one host or gateway.
    pub(crate) fn neighbour() -> Value {
        object([
            ("network_id", uuid()),
            ("intended", number()),
            ("intended_revision", number()),
            ("applied_revision", nullable(number())),
            ("timing", timing()),
        ])
    }

    pub(crate) fn hosts() -> Operation {
        Operation::new("Lists the hosts")
            .component("Host", object(summary()))
            .answers(200, object([("hosts", list(reference("Host")))]))
    }

    pub(crate) fn host() -> Operation {
        let resource = object([
            ("kind", text()),
            ("id", text()),
            ("intended_revision", number()),
            ("applied_revision", nullable(number())),
            ("error", nullable(text())),
            ("timing", timing()),
        ]);
        let mut members = summary();
        members.extend([
            ("incarnation", nullable(number())),
            ("queued", number()),
            ("resyncs", number()),
            ("resources", list(resource)),
            ("neighbours", list(neighbour())),
        ]);
        Operation::new("Shows what a host really has")
            .component("HostState", object(members))
            .answers(200, reference("HostState"))
    }

    pub(crate) fn port_status() -> Operation {
        let state = object([
            ("port_id", uuid()),
            ("host", nullable(text())),
            ("status", text()),
            ("reason", nullable(text())),
            ("host_alive", json!({"type": "boolean"})),
            ("intended_revision", number()),
            ("applied_revision", nullable(number())),
            ("timing", timing()),
            ("stale", json!({"type": "boolean"})),
        ]);
        Operation::new("Shows how a port's last change travelled")
            .component("PortState", state)
            .answers(200, reference("PortState"))
    }
}
