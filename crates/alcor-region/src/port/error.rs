//! Why the region refuses what is asked of a port, where no other resource has the same refusal.

use alcor_model::{Id, MacAddr, Port};
use thiserror::Error;

use crate::{ErrorClass, error::Refusal};

/// A refusal. Nothing was changed.
#[derive(Debug, Error)]
pub enum PortError {
    /// A bound port keeps its MAC: whoever is plugged has it already.
    #[error(
        "Unable to complete operation on port {port}, port is already bound, port type: {vif_type}, old_mac {old_mac}, new_mac {new_mac}."
    )]
    Bound {
        /// The port.
        port: Id<Port>,
        /// What it is bound as.
        vif_type: &'static str,
        /// The MAC it has.
        old_mac: MacAddr,
        /// The MAC it was to get.
        new_mac: MacAddr,
    },
    /// Only ports of servers have several bindings.
    #[error(
        "Bad port request: Invalid port {0}. Operation only valid on compute and shared filesystem ports."
    )]
    NotMovable(Id<Port>),
    /// There is no binding to that host.
    #[error("Binding for port {port} for host {host} could not be found.")]
    BindingNotFound {
        /// The port.
        port: Id<Port>,
        /// The host.
        host: String,
    },
    /// The port is there already.
    #[error("Binding for port {port} on host {host} is already active.")]
    BindingAlreadyActive {
        /// The port.
        port: Id<Port>,
        /// The host.
        host: String,
    },
    /// There is a binding to that host already.
    #[error("Binding for port {port} on host {host} already exists.")]
    BindingAlreadyExists {
        /// The port.
        port: Id<Port>,
        /// The host.
        host: String,
    },
    /// The host cannot plug the port.
    #[error("Binding for port {port} on host {host} could not be created or updated.")]
    BindingFailed {
        /// The port.
        port: Id<Port>,
        /// The host.
        host: String,
    },
}

impl Refusal for PortError {
    fn neutron_type(&self) -> &'static str {
        match self {
            Self::Bound { .. } => "PortBound",
            Self::NotMovable(_) => "BadRequest",
            Self::BindingNotFound { .. } => "PortBindingNotFound",
            Self::BindingAlreadyActive { .. } => "PortBindingAlreadyActive",
            Self::BindingAlreadyExists { .. } => "PortBindingAlreadyExists",
            Self::BindingFailed { .. } => "PortBindingError",
        }
    }

    fn class(&self) -> ErrorClass {
        match self {
            Self::NotMovable(_) => ErrorClass::BadRequest,
            Self::BindingNotFound { .. } => ErrorClass::NotFound,
            Self::Bound { .. }
            | Self::BindingAlreadyActive { .. }
            | Self::BindingAlreadyExists { .. }
            | Self::BindingFailed { .. } => ErrorClass::Conflict,
        }
    }
}
