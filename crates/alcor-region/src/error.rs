//! Why the region refuses, in Neutron's words: every refusal has the exception type that Neutron's clients know.

use std::{net::IpAddr, time::Duration};

use alcor_model::{Id, MacAddr, Network, Port, Subnet};
use thiserror::Error;

/// A refusal of one resource's rules, in that resource's own words.
///
/// Each group of resources has an enum of its own; `?` makes a [`RegionError`] of it.
pub trait Refusal: std::error::Error + Send + Sync + 'static {
    /// Neutron's exception type.
    fn neutron_type(&self) -> &'static str;
    /// The class of the refusal.
    fn class(&self) -> ErrorClass;
}

impl<R: Refusal> From<R> for RegionError {
    fn from(refusal: R) -> Self {
        Self::Refused(Box::new(refusal))
    }
}

/// A refusal. Nothing was changed.
#[derive(Debug, Error)]
pub enum RegionError {
    /// A rule of one resource.
    #[error("{0}")]
    Refused(Box<dyn Refusal>),
    /// No such row, or the caller may not see it.
    #[error("{resource} {id} could not be found.")]
    NotFound {
        /// Neutron's exception type (`RouterNotFound`).
        exception: &'static str,
        /// The word for people (`Router`).
        resource: &'static str,
        /// What was asked for.
        id: String,
    },
    /// No such network, or the caller may not see it.
    #[error("Network {0} could not be found.")]
    NetworkNotFound(Id<Network>),
    /// No such subnet, or the caller may not see it.
    #[error("Subnet {0} could not be found.")]
    SubnetNotFound(Id<Subnet>),
    /// No such port, or the caller may not see it.
    #[error("Port {0} could not be found.")]
    PortNotFound(Id<Port>),
    /// Ports are left.
    #[error(
        "Unable to complete operation on network {0}. There are one or more ports still in use on the network."
    )]
    NetworkInUse(Id<Network>),
    /// Ports have addresses of it.
    #[error("Unable to complete operation on subnet {subnet}: {reason}.")]
    SubnetInUse {
        /// The subnet.
        subnet: Id<Subnet>,
        /// What holds it.
        reason: String,
    },
    /// The address is taken.
    #[error("IP address {ip} already allocated in subnet {subnet}")]
    IpAddressInUse {
        /// The address.
        ip: IpAddr,
        /// Its subnet.
        subnet: Id<Subnet>,
    },
    /// The MAC is taken.
    #[error("Unable to complete operation for network {network}. The mac address {mac} is in use.")]
    MacAddressInUse {
        /// The network.
        network: Id<Network>,
        /// The address.
        mac: MacAddr,
    },
    /// No address is left.
    #[error("No more IP addresses available on network {0}.")]
    IpAddressGenerationFailure(Id<Network>),
    /// No MAC address is left.
    #[error("Unable to generate unique mac on network {0}.")]
    MacAddressGenerationFailure(Id<Network>),
    /// No id with a device name of its own was found.
    #[error("Unable to generate a port id whose device name is unique.")]
    DeviceNameGenerationFailure,
    /// The VNI is taken.
    #[error("Unable to create the network. The tunnel ID {0} is in use.")]
    TunnelIdInUse(u32),
    /// No VNI is left.
    #[error("Unable to create the network. No available network found in maximum allowed attempts.")]
    NoNetworkAvailable,
    /// The caller's fault, in words.
    #[error("Invalid input for operation: {0}.")]
    InvalidInput(String),
    /// A subnet's gateway lies in a pool.
    #[error("Gateway ip {ip} conflicts with allocation pool {pool}.")]
    GatewayConflictWithAllocationPools {
        /// The gateway.
        ip: IpAddr,
        /// The pool.
        pool: String,
    },
    /// Two pools overlap.
    #[error("Found overlapping allocation pools: {pool_1} {pool_2} for subnet {subnet_cidr}.")]
    OverlappingAllocationPools {
        /// One.
        pool_1: String,
        /// The other.
        pool_2: String,
        /// The block.
        subnet_cidr: String,
    },
    /// A pool leaves the block.
    #[error("The allocation pool {pool} spans beyond the subnet cidr {subnet_cidr}.")]
    OutOfBoundsAllocationPool {
        /// The pool.
        pool: String,
        /// The block.
        subnet_cidr: String,
    },
    /// A pool that is not a range.
    #[error("The allocation pool {0} is not valid.")]
    InvalidAllocationPool(String),
    /// The address is not inside the named subnet.
    #[error("IP address {ip} is not a valid IP for the specified subnet.")]
    InvalidIpForSubnet {
        /// The address.
        ip: IpAddr,
    },
    /// The address is not inside any subnet of the network.
    #[error("IP address {ip} is not a valid IP for any of the subnets on the specified network.")]
    InvalidIpForNetwork {
        /// The address.
        ip: IpAddr,
    },
    /// Allowed address pairs on a port without port security.
    #[error("Port Security must be enabled in order to have allowed address pairs on a port.")]
    AddressPairAndPortSecurityRequired,
    /// More allowed address pairs than the limit.
    #[error("The number of allowed address pairs exceeds the maximum {0}.")]
    AddressPairsExhausted(usize),
    /// Other projects have ports on a network that is to be shared no more.
    #[error("Unable to reconfigure sharing settings for network {0}. Multiple tenants are using it.")]
    InvalidSharedSetting(Id<Network>),
    /// Too many.
    #[error("Quota exceeded for resources: ['{0}'].")]
    OverQuota(&'static str),
    /// Not allowed for this caller.
    #[error("({action} is disallowed by policy)")]
    Forbidden {
        /// What was tried.
        action: String,
    },
    /// `If-Match` names another revision.
    #[error("Constrained to {expected}, but current revision is {current}")]
    RevisionNumberConstraintFailed {
        /// What the client had.
        expected: u64,
        /// What there is.
        current: u64,
    },
    /// The store cannot write; reads go on.
    #[error("Changes cannot be stored at present: {reason}. Reads still work; retry after {} s.", retry_after.as_secs())]
    StoreUnavailable {
        /// What the store says.
        reason: String,
        /// When it makes sense to ask again.
        retry_after: Duration,
    },
}

/// The class of a refusal, which an API turns into a status code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorClass {
    /// 400
    BadRequest,
    /// 403
    Forbidden,
    /// 404
    NotFound,
    /// 409
    Conflict,
    /// 412
    PreconditionFailed,
    /// 503
    Unavailable,
}

impl RegionError {
    /// Neutron's exception type, as in the `type` of its error body.
    pub fn neutron_type(&self) -> &'static str {
        match self {
            Self::Refused(refusal) => refusal.neutron_type(),
            Self::NotFound { exception, .. } => exception,
            Self::NetworkNotFound(_) => "NetworkNotFound",
            Self::SubnetNotFound(_) => "SubnetNotFound",
            Self::PortNotFound(_) => "PortNotFound",
            Self::NetworkInUse(_) => "NetworkInUse",
            Self::SubnetInUse { .. } => "SubnetInUse",
            Self::IpAddressInUse { .. } => "IpAddressAlreadyAllocated",
            Self::MacAddressInUse { .. } => "MacAddressInUse",
            Self::IpAddressGenerationFailure(_) => "IpAddressGenerationFailure",
            Self::MacAddressGenerationFailure(_) => "MacAddressGenerationFailure",
            Self::DeviceNameGenerationFailure => "DeviceNameGenerationFailure",
            Self::TunnelIdInUse(_) => "TunnelIdInUse",
            Self::NoNetworkAvailable => "NoNetworkAvailable",
            Self::InvalidInput(_) => "InvalidInput",
            Self::GatewayConflictWithAllocationPools { .. } => "GatewayConflictWithAllocationPools",
            Self::OverlappingAllocationPools { .. } => "OverlappingAllocationPools",
            Self::OutOfBoundsAllocationPool { .. } => "OutOfBoundsAllocationPool",
            Self::InvalidAllocationPool(_) => "InvalidAllocationPool",
            Self::InvalidIpForSubnet { .. } => "InvalidIpForSubnet",
            Self::InvalidIpForNetwork { .. } => "InvalidIpForNetwork",
            Self::AddressPairAndPortSecurityRequired => "AddressPairAndPortSecurityRequired",
            Self::AddressPairsExhausted(_) => "AllowedAddressPairExhausted",
            Self::InvalidSharedSetting(_) => "InvalidSharedSetting",
            Self::OverQuota(_) => "OverQuota",
            Self::Forbidden { .. } => "PolicyNotAuthorized",
            Self::RevisionNumberConstraintFailed { .. } => "RevisionNumberConstraintFailed",
            Self::StoreUnavailable { .. } => "ServiceUnavailable",
        }
    }

    /// The class of the refusal.
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::Refused(refusal) => refusal.class(),
            Self::NotFound { .. } => ErrorClass::NotFound,
            Self::NetworkNotFound(_) | Self::SubnetNotFound(_) | Self::PortNotFound(_) => {
                ErrorClass::NotFound
            }
            Self::NetworkInUse(_)
            | Self::SubnetInUse { .. }
            | Self::IpAddressInUse { .. }
            | Self::MacAddressInUse { .. }
            | Self::IpAddressGenerationFailure(_)
            | Self::TunnelIdInUse(_)
            | Self::GatewayConflictWithAllocationPools { .. }
            | Self::OverlappingAllocationPools { .. }
            | Self::AddressPairAndPortSecurityRequired
            | Self::InvalidSharedSetting(_)
            | Self::OverQuota(_) => ErrorClass::Conflict,
            Self::InvalidInput(_)
            | Self::OutOfBoundsAllocationPool { .. }
            | Self::InvalidAllocationPool(_)
            | Self::InvalidIpForSubnet { .. }
            | Self::AddressPairsExhausted(_)
            | Self::InvalidIpForNetwork { .. } => ErrorClass::BadRequest,
            Self::Forbidden { .. } => ErrorClass::Forbidden,
            Self::RevisionNumberConstraintFailed { .. } => ErrorClass::PreconditionFailed,
            Self::MacAddressGenerationFailure(_)
            | Self::DeviceNameGenerationFailure
            | Self::NoNetworkAvailable
            | Self::StoreUnavailable { .. } => ErrorClass::Unavailable,
        }
    }
}
