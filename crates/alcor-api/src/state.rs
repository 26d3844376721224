//! What every handler has: the region, the hosts, the settings; and who asks.

use std::{sync::Arc, time::Duration};

use alcor_policy::{Credentials, Policy};
use alcor_region::{Region, command::Caller};
use axum::{extract::FromRequestParts, response::Response};
use http::request::Parts;

use crate::{
    admin::HostDirectory,
    auth::{Authentication, Who},
    wait::Waits,
};

/// Most resources in one bulk creation, unless the configuration says less.
pub const MAX_BULK: usize = 10_000;

/// Settings of the API.
#[derive(Clone, Debug)]
pub struct ApiConfig {
    /// How callers prove who they are.
    pub authentication: Authentication,
    /// Who may do what.
    pub policy: Arc<Policy>,
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
    /// Longest time that a reply waits for hosts, whatever `Prefer: wait=N` says; less than `request_timeout`.
    pub max_wait: Duration,
}

impl ApiConfig {
    /// Defaults, for a caller who sees and changes everything and owns what it makes in `project_id`.
    pub fn noauth(project_id: impl Into<String>) -> Self {
        Self::new(Authentication::NoAuth(Caller {
            project_id: project_id.into(),
            is_admin: true,
        }))
    }

    /// Defaults, with Neutron's rules.
    pub fn new(authentication: Authentication) -> Self {
        Self {
            authentication,
            // The defaults can be read, as tests prove; if not, nobody may do anything.
            policy: Arc::new(Policy::load(None).unwrap_or_default()),
            max_body_bytes: 8 << 20,
            max_bulk: MAX_BULK,
            max_page: 10_000,
            max_connections: 4_096,
            request_timeout: Duration::from_secs(30),
            max_wait: Duration::from_secs(20),
        }
    }
}

struct Inner {
    region: Region,
    hosts: Arc<dyn HostDirectory>,
    config: ApiConfig,
    noauth: Who,
    waits: Waits,
}

/// Shared by all requests. Cheap to clone.
#[derive(Clone)]
pub struct ApiState(Arc<Inner>);

impl ApiState {
    /// Puts the parts together.
    pub fn new(region: Region, hosts: Arc<dyn HostDirectory>, config: ApiConfig) -> Self {
        let noauth = match &config.authentication {
            Authentication::NoAuth(caller) => Who::noauth(&config.policy, caller),
            Authentication::Keystone { .. } => Who::new(&config.policy, Credentials::default()),
        };
        Self(Arc::new(Inner {
            region,
            hosts,
            config,
            noauth,
            waits: Waits::default(),
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

    /// Who waits for hosts.
    pub(crate) fn waits(&self) -> &Waits {
        &self.0.waits
    }

    /// Who may do what.
    pub fn policy(&self) -> &Policy {
        &self.0.config.policy
    }

    /// Who everybody is without authentication.
    pub(crate) fn noauth(&self) -> Who {
        self.0.noauth.clone()
    }

    /// The settings.
    pub fn config(&self) -> &ApiConfig {
        &self.0.config
    }
}

/// Who asks, as the region sees it; [`Who`] is all that is known. Headers that name a project are not read, because
/// nothing proves them.
pub struct Identity(pub Arc<Caller>);

impl FromRequestParts<ApiState> for Identity {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, api: &ApiState) -> Result<Self, Response> {
        let who = Who::from_request_parts(parts, api).await?;
        Ok(Self(who.caller))
    }
}
