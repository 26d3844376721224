//! Why a floating IP's or a port forwarding's change is refused.

use std::net::IpAddr;

use alcor_model::{FloatingIp, Id, Network, Port, PortForwarding, Subnet};
use thiserror::Error;

use crate::{ErrorClass, Refusal};

/// A refusal of the rules of floating IPs and port forwardings.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum FloatingIpError {
    /// What was asked for does not make sense for a floating IP.
    #[error("Bad floatingip request: {0}.")]
    BadRequest(String),
    /// What was asked for does not make sense for a port forwarding.
    #[error("Bad port_forwarding request: {0}.")]
    BadForwarding(String),
    /// The router named has no way out through the external network.
    #[error("{0}.")]
    RouterWithoutGateway(String),
    /// No router connects the port with the external network.
    #[error(
        "External network {network} is not reachable from subnet {subnet}.  Therefore, cannot associate Port {port} with a Floating IP."
    )]
    NoGateway {
        /// The external network.
        network: Id<Network>,
        /// The subnet inside.
        subnet: Id<Subnet>,
        /// The port inside.
        port: Id<Port>,
    },
    /// The address inside has a floating IP of the network, or the floating IP leads to a port already.
    #[error(
        "Cannot associate floating IP {address} ({floating_ip}) with port {port} using fixed IP {fixed_ip}, as that fixed IP already has a floating IP on external network {network}."
    )]
    AlreadyAssociated {
        /// The floating IP's address.
        address: IpAddr,
        /// The floating IP.
        floating_ip: Id<FloatingIp>,
        /// The port inside.
        port: Id<Port>,
        /// The address inside.
        fixed_ip: IpAddr,
        /// The external network.
        network: Id<Network>,
    },
    /// The external network gave no IPv4 address.
    #[error("Unable to find any IP address on external network {0}.")]
    AddressesExhausted(Id<Network>),
    /// Port forwardings use it.
    #[error("Floating IP {0} in use by Port Forwarding resources.")]
    InUseByForwarding(Id<FloatingIp>),
    /// A floating IP of its own leads to the port.
    #[error(
        "Cannot create port forwarding to floating IP {address} ({floating_ip}) with port {port} using fixed IP {fixed_ip}, as that port already has a binding floating IP."
    )]
    PortHasFloatingIp {
        /// The floating IP's address.
        address: IpAddr,
        /// The floating IP.
        floating_ip: Id<FloatingIp>,
        /// The port inside.
        port: Id<Port>,
        /// The address inside.
        fixed_ip: IpAddr,
    },
    /// No such port forwarding of this floating IP.
    #[error("Port Forwarding {0} could not be found.")]
    ForwardingNotFound(Id<PortForwarding>),
}

impl Refusal for FloatingIpError {
    fn neutron_type(&self) -> &'static str {
        match self {
            Self::BadRequest(_) | Self::BadForwarding(_) => "BadRequest",
            Self::RouterWithoutGateway(_) => "Conflict",
            Self::NoGateway { .. } => "ExternalGatewayForFloatingIPNotFound",
            Self::AlreadyAssociated { .. } => "FloatingIPPortAlreadyAssociated",
            Self::AddressesExhausted(_) => "ExternalIpAddressExhausted",
            Self::InUseByForwarding(_) => "FipInUseByPortForwarding",
            Self::PortHasFloatingIp { .. } => "PortHasBindingFloatingIP",
            Self::ForwardingNotFound(_) => "PortForwardingNotFound",
        }
    }

    fn class(&self) -> ErrorClass {
        match self {
            Self::BadRequest(_) | Self::BadForwarding(_) | Self::AddressesExhausted(_) => {
                ErrorClass::BadRequest
            }
            Self::NoGateway { .. } | Self::ForwardingNotFound(_) => ErrorClass::NotFound,
            Self::RouterWithoutGateway(_)
            | Self::AlreadyAssociated { .. }
            | Self::InUseByForwarding(_)
            | Self::PortHasFloatingIp { .. } => ErrorClass::Conflict,
        }
    }
}
