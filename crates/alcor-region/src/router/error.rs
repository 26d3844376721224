//! Why a router's change is refused.

use std::fmt::Write as _;

use alcor_model::{Id, Network, Port, Router, Subnet, resource::HostRoute};
use thiserror::Error;

use crate::{ErrorClass, Refusal};

/// A refusal of the rules of routers.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum RouterError {
    /// What was asked for does not make sense for a router.
    #[error("Bad router request: {0}.")]
    BadRequest(String),
    /// It has interfaces.
    #[error("Router {router} has ports still attached: {ports}")]
    InUse {
        /// The router.
        router: Id<Router>,
        /// Its ports, separated by commas.
        ports: String,
    },
    /// The port is none of its interfaces.
    #[error("Router {router} does not have an interface with id {port}")]
    InterfaceNotFound {
        /// The router.
        router: Id<Router>,
        /// The port.
        port: Id<Port>,
    },
    /// None of its interfaces has an address there.
    #[error("Router {router} has no interface on subnet {subnet}")]
    InterfaceNotFoundForSubnet {
        /// The router.
        router: Id<Router>,
        /// The subnet.
        subnet: Id<Subnet>,
    },
    /// The interface has no address of the subnet.
    #[error("Subnet on port {port} does not match the requested subnet {subnet}.")]
    SubnetMismatch {
        /// The port.
        port: Id<Port>,
        /// The subnet.
        subnet: Id<Subnet>,
    },
    /// A floating IP leads there.
    #[error(
        "Router interface for subnet {subnet} on router {router} cannot be deleted, as it is required by one or more floating IPs."
    )]
    InterfaceInUseByFloatingIp {
        /// The router.
        router: Id<Router>,
        /// The subnet.
        subnet: Id<Subnet>,
    },
    /// A route leads there.
    #[error(
        "Router interface for subnet {subnet} on router {router} cannot be deleted, as it is required by one or more routes."
    )]
    InterfaceInUseByRoute {
        /// The router.
        router: Id<Router>,
        /// The subnet.
        subnet: Id<Subnet>,
    },
    /// Floating IPs need the gateway.
    #[error(
        "Gateway cannot be updated for router {router}, since a gateway to external network {network} is required by one or more floating IPs."
    )]
    GatewayInUseByFloatingIp {
        /// The router.
        router: Id<Router>,
        /// The external network.
        network: Id<Network>,
    },
    /// Static routes that lead nowhere.
    #[error("Invalid format for routes: {routes}, {reason}")]
    InvalidRoutes {
        /// The routes, as Neutron writes them.
        routes: String,
        /// What is wrong.
        reason: &'static str,
    },
    /// Somebody uses the port.
    #[error(
        "Unable to complete operation on port {port} for network {network}. Port already has an attached device {device}."
    )]
    PortInUse {
        /// The port.
        port: Id<Port>,
        /// Its network.
        network: Id<Network>,
        /// Who uses it.
        device: String,
    },
    /// A router or a floating IP owns the port.
    #[error("Port {port} cannot be deleted directly via the port API: has device owner {owner}.")]
    ServicePortInUse {
        /// The port.
        port: Id<Port>,
        /// What kind of owner.
        owner: String,
    },
    /// A router or a floating IP owns the port, and it would no longer know it.
    #[error("Bad port request: {0}.")]
    BadPortRequest(String),
}

impl RouterError {
    /// Routes that lead nowhere.
    pub(super) fn routes(routes: &[HostRoute], reason: &'static str) -> Self {
        let mut text = String::new();
        for route in routes {
            let separator = if text.is_empty() { "" } else { ", " };
            // Writing to a String cannot fail.
            let _ = write!(
                text,
                "{separator}{{'destination': '{}', 'nexthop': '{}'}}",
                route.destination, route.nexthop
            );
        }
        Self::InvalidRoutes {
            routes: format!("[{text}]"),
            reason,
        }
    }
}

impl Refusal for RouterError {
    fn neutron_type(&self) -> &'static str {
        match self {
            Self::BadRequest(_) | Self::BadPortRequest(_) => "BadRequest",
            Self::InUse { .. } => "RouterInUse",
            Self::InterfaceNotFound { .. } => "RouterInterfaceNotFound",
            Self::InterfaceNotFoundForSubnet { .. } => "RouterInterfaceNotFoundForSubnet",
            Self::SubnetMismatch { .. } => "SubnetMismatchForPort",
            Self::InterfaceInUseByFloatingIp { .. } => "RouterInterfaceInUseByFloatingIP",
            Self::InterfaceInUseByRoute { .. } => "RouterInterfaceInUseByRoute",
            Self::GatewayInUseByFloatingIp { .. } => "RouterExternalGatewayInUseByFloatingIp",
            Self::InvalidRoutes { .. } => "InvalidRoutes",
            Self::PortInUse { .. } => "PortInUse",
            Self::ServicePortInUse { .. } => "ServicePortInUse",
        }
    }

    fn class(&self) -> ErrorClass {
        match self {
            Self::BadRequest(_)
            | Self::BadPortRequest(_)
            | Self::SubnetMismatch { .. }
            | Self::InvalidRoutes { .. } => ErrorClass::BadRequest,
            Self::InterfaceNotFound { .. } | Self::InterfaceNotFoundForSubnet { .. } => ErrorClass::NotFound,
            Self::InUse { .. }
            | Self::InterfaceInUseByFloatingIp { .. }
            | Self::InterfaceInUseByRoute { .. }
            | Self::GatewayInUseByFloatingIp { .. }
            | Self::PortInUse { .. }
            | Self::ServicePortInUse { .. } => ErrorClass::Conflict,
        }
    }
}
