//! Alcor's own routes under `/alcor/v1`: what each host really has. Read-only; the answers come from the NCM through
//! [`HostDirectory`].

use alcor_model::{
    Id, Port,
    effective::{HostState, HostSummary, PortState},
};
use axum::{
    Json,
    extract::{Path, State},
    response::{IntoResponse, Response},
};
use http::StatusCode;
use serde_json::json;

use crate::{
    error::ApiError,
    parse,
    state::{ApiState, Identity},
};

/// Where effective state is asked for. The methods answer from memory and do not block.
pub trait HostDirectory: Send + Sync + 'static {
    /// Every host that ever registered, by name.
    fn hosts(&self) -> Vec<HostSummary>;
    /// All about one host.
    fn host(&self, name: &str) -> Option<HostState>;
    /// How a port's last change travelled.
    fn port(&self, id: Id<Port>) -> Option<PortState>;
}

/// A directory without hosts, for a controller without an NCM in the process and for tests.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoHosts;

impl HostDirectory for NoHosts {
    fn hosts(&self) -> Vec<HostSummary> {
        Vec::new()
    }
    fn host(&self, _: &str) -> Option<HostState> {
        None
    }
    fn port(&self, _: Id<Port>) -> Option<PortState> {
        None
    }
}

fn only_admins(identity: &Identity, action: &str) -> Result<(), ApiError> {
    if identity.0.is_admin {
        return Ok(());
    }
    Err(ApiError::new(
        StatusCode::FORBIDDEN,
        "PolicyNotAuthorized",
        format!("({action} is disallowed by policy)"),
    ))
}

/// `GET /alcor/v1/hosts`
///
/// # Errors
/// 403 for callers who are not admins.
pub async fn hosts(State(api): State<ApiState>, identity: Identity) -> Result<Response, ApiError> {
    only_admins(&identity, "get_hosts")?;
    Ok(Json(json!({"hosts": api.hosts().hosts()})).into_response())
}

/// `GET /alcor/v1/hosts/{name}`
///
/// # Errors
/// 403 for callers who are not admins, 404 for a host that never registered.
pub async fn host(
    State(api): State<ApiState>,
    identity: Identity,
    Path(name): Path<String>,
) -> Result<Response, ApiError> {
    only_admins(&identity, "get_host")?;
    match api.hosts().host(&name) {
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
    identity: Identity,
    Path(id): Path<String>,
) -> Result<Response, ApiError> {
    only_admins(&identity, "get_port_status")?;
    let state = id.parse().ok().and_then(|port| api.hosts().port(port));
    state
        .map(|state| Json(state).into_response())
        .ok_or_else(|| crate::query::not_found("port", &id))
}
