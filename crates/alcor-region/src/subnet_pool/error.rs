//! What the rules of subnet pools refuse, in Neutron's terms.

use alcor_model::{
    Id, Subnet,
    resource::{AddressScope, SubnetPool},
};
use ipnet::IpNet;
use thiserror::Error;

use crate::{ErrorClass, Refusal};

/// A refusal.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum SubnetPoolError {
    /// None, or none that the caller sees.
    #[error("Subnet pool {0} could not be found.")]
    NotFound(Id<SubnetPool>),
    /// A pool has prefixes.
    #[error("Empty subnet pool prefix list.")]
    NoPrefixes,
    /// A pool has one family.
    #[error("Cannot mix IPv4 and IPv6 prefixes in a subnet pool.")]
    MixedFamilies,
    /// Lengths that contradict each other.
    #[error("Illegal prefix bounds: {what}={length}, {base}={base_length}.")]
    PrefixBounds {
        /// Which length.
        what: &'static str,
        /// As it is given.
        length: u64,
        /// The one that it contradicts.
        base: &'static str,
        /// What that one is.
        base_length: u64,
    },
    /// Prefixes are never taken from a pool by a change of the list, or while they are used.
    #[error("Illegal update to prefixes: {0}.")]
    PrefixUpdate(&'static str),
    /// Two pools of one scope have addresses in common.
    #[error(
        "Failed to associate address scope: subnetpools within an address scope must have unique prefixes."
    )]
    ScopeConflict,
    /// The scope is for the other family.
    #[error(
        "Illegal subnetpool association: subnetpool {pool} cannot associate with address scope {scope} because subnetpool ip_version is not {ip_version}."
    )]
    ScopeFamily {
        /// The pool.
        pool: Id<SubnetPool>,
        /// The scope.
        scope: Id<AddressScope>,
        /// Of the scope.
        ip_version: u8,
    },
    /// A pool in somebody else's scope is not changed.
    #[error(
        "Illegal subnetpool update : subnetpool {pool} cannot be updated when associated with shared address scope {scope}."
    )]
    ForeignScope {
        /// The pool.
        pool: Id<SubnetPool>,
        /// The scope.
        scope: Id<AddressScope>,
    },
    /// A subnet that is to come into the pool has addresses of one that is there.
    #[error(
        "Illegal subnetpool update : Onboarding subnet {subnet}: {cidr} conflicts with allocated prefixes in subnet pool {pool}."
    )]
    Onboarding {
        /// The subnet.
        subnet: Id<Subnet>,
        /// Its block.
        cidr: IpNet,
        /// The pool.
        pool: Id<SubnetPool>,
    },
    /// One default a family.
    #[error(
        "Invalid input for operation: A default subnetpool for this IP family has already been set. Only one default may exist per IP family."
    )]
    DefaultExists,
    /// Subnets are left.
    #[error("Unable to delete subnet pool: Subnet pool has existing allocations.")]
    InUse,
    /// The subnet would be too large.
    #[error("Unable to allocate subnet with prefix length {length}, minimum allowed prefix is {bound}.")]
    TooShort {
        /// Wanted.
        length: u8,
        /// Of the pool.
        bound: u8,
    },
    /// The subnet would be too small.
    #[error("Unable to allocate subnet with prefix length {length}, maximum allowed prefix is {bound}.")]
    TooLong {
        /// Wanted.
        length: u8,
        /// Of the pool.
        bound: u8,
    },
    /// The project has enough of this pool.
    #[error("Per-project subnet pool prefix quota exceeded.")]
    QuotaExceeded,
    /// Nothing fits.
    #[error("Failed to allocate subnet: {0}.")]
    Allocation(String),
    /// Subnets of one network and family come from one pool.
    #[error("Subnets hosted on the same network must be allocated from the same subnet pool.")]
    PoolAffinity,
    /// Subnets of one network and family are in one scope.
    #[error(
        "Subnets of the same address family hosted on the same network must all participate in the same address scope."
    )]
    ScopeAffinity,
    /// What a subnet's creation says does not fit together.
    #[error("Bad subnets request: {0}.")]
    Request(String),
}

impl Refusal for SubnetPoolError {
    fn neutron_type(&self) -> &'static str {
        match self {
            Self::NotFound(_) => "SubnetPoolNotFound",
            Self::NoPrefixes => "EmptySubnetPoolPrefixList",
            Self::MixedFamilies => "PrefixVersionMismatch",
            Self::PrefixBounds { .. } => "IllegalSubnetPoolPrefixBounds",
            Self::PrefixUpdate(_) => "IllegalSubnetPoolPrefixUpdate",
            Self::ScopeConflict => "AddressScopePrefixConflict",
            Self::ScopeFamily { .. } => "IllegalSubnetPoolIpVersionAssociationToAddressScope",
            Self::ForeignScope { .. } | Self::Onboarding { .. } => "IllegalSubnetPoolUpdate",
            Self::DefaultExists => "InvalidInput",
            Self::InUse => "SubnetPoolDeleteError",
            Self::TooShort { .. } => "MinPrefixSubnetAllocationError",
            Self::TooLong { .. } => "MaxPrefixSubnetAllocationError",
            Self::QuotaExceeded => "SubnetPoolQuotaExceeded",
            Self::Allocation(_) => "SubnetAllocationError",
            Self::PoolAffinity => "NetworkSubnetPoolAffinityError",
            Self::ScopeAffinity => "NetworkAddressScopeAffinityError",
            Self::Request(_) => "BadRequest",
        }
    }

    fn class(&self) -> ErrorClass {
        match self {
            Self::NotFound(_) => ErrorClass::NotFound,
            Self::ScopeConflict | Self::QuotaExceeded | Self::Allocation(_) => ErrorClass::Conflict,
            _ => ErrorClass::BadRequest,
        }
    }
}
