//! `[metrics]`: where Prometheus scrapes this process.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use serde::{Deserialize, Serialize};

use crate::roles::Roles;

/// Where a controller listens when nothing is said.
const CONTROLLER_PORT: u16 = 9698;
/// Where an agent alone does, so that all find room on one machine.
const AGENT_PORT: u16 = 9699;
/// Where an NCM alone does.
const NCM_PORT: u16 = 9700;
/// Where a gateway does.
const GATEWAY_PORT: u16 = 9701;

/// `[metrics]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MetricsConfig {
    /// Whether there is an endpoint.
    pub enabled: bool,
    /// Where `GET /metrics` is answered, to anybody who gets there. Default: loopback, port 9698, or 9699 for an agent
    /// alone, 9700 for an NCM and 9701 for a gateway; when that is taken, there is a warning and no endpoint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub listen: Option<SocketAddr>,
}

impl Default for MetricsConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            listen: None,
        }
    }
}

impl MetricsConfig {
    /// The address, and whether somebody asked for it.
    pub fn address(&self, roles: Roles) -> (SocketAddr, bool) {
        let port = match (roles.controller, roles.ncm) {
            (true, _) => CONTROLLER_PORT,
            (false, true) => NCM_PORT,
            (false, false) if roles.gateway => GATEWAY_PORT,
            (false, false) => AGENT_PORT,
        };
        let default = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port);
        (self.listen.unwrap_or(default), self.listen.is_some())
    }
}
