//! What every handler has: the region, the hosts, the settings; and who asks.

use std::{sync::Arc, time::Duration};

use alcor_region::{Region, command::Caller};
use axum::extract::FromRequestParts;
use http::request::Parts;

use crate::{admin::HostDirectory, error::ApiError};

/// Most resources in one bulk creation, unless the configuration says less.
pub const MAX_BULK: usize = 10_000;

/// Settings of the API.
#[derive(Clone, Debug)]
pub struct ApiConfig {
    /// Who asks, as long as nobody has to say who they are.
    pub caller: Caller,
    /// Largest body of a request in bytes; more is refused with 413 and never held in memory.
    pub max_body_bytes: usize,
    /// Most resources in one bulk creation.
    pub max_bulk: usize,
    /// Most rows in one page, also when the client names no limit; the rest is behind the `next` link.
    pub max_page: usize,
    /// Most connections; more wait to be accepted. HTTP/1.1 has one request a connection at a time, so this bounds
    /// requests in progress too.
    pub max_connections: usize,
    /// Longest time for one request.
    pub request_timeout: Duration,
}

impl ApiConfig {
    /// Defaults, for a caller who sees and changes everything and owns what it makes in `project_id`.
    pub fn noauth(project_id: impl Into<String>) -> Self {
        Self {
            caller: Caller {
                project_id: project_id.into(),
                is_admin: true,
            },
            max_body_bytes: 8 << 20,
            max_bulk: MAX_BULK,
            max_page: 10_000,
            max_connections: 4_096,
            request_timeout: Duration::from_secs(30),
        }
    }
}

struct Inner {
    region: Region,
    hosts: Arc<dyn HostDirectory>,
    config: ApiConfig,
    caller: Arc<Caller>,
}

/// Shared by all requests. Cheap to clone.
#[derive(Clone)]
pub struct ApiState(Arc<Inner>);

impl ApiState {
    /// Puts the parts together.
    pub fn new(region: Region, hosts: Arc<dyn HostDirectory>, config: ApiConfig) -> Self {
        let caller = Arc::new(config.caller.clone());
        Self(Arc::new(Inner {
            region,
            hosts,
            config,
            caller,
        }))
    }

    /// The region.
    pub fn region(&self) -> &Region {
        &self.0.region
    }

    /// The hosts.
    pub fn hosts(&self) -> &dyn HostDirectory {
        &*self.0.hosts
    }

    /// The settings.
    pub fn config(&self) -> &ApiConfig {
        &self.0.config
    }
}

/// Who asks: the one place where a request gets a caller. Headers that name a project are not read, because
/// nothing proves them.
pub struct Identity(pub Arc<Caller>);

impl FromRequestParts<ApiState> for Identity {
    type Rejection = ApiError;

    async fn from_request_parts(_: &mut Parts, state: &ApiState) -> Result<Self, ApiError> {
        Ok(Self(Arc::clone(&state.0.caller)))
    }
}
