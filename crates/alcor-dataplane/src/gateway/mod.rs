//! Gateways: nodes that forward for hosts that do not know a neighbour yet, and between networks and the outside. The path of a
//! packet through one is specified in [`path`]; [`GatewayModel`] implements it in plain Rust and is what the kernel program is
//! compared with.
//!
//! Not here: which gateways there are, which networks they serve, and whether they live. That is told by rows.

mod model;
mod nat;
mod north;
pub(crate) mod outside;
pub mod path;
mod report;
mod rows;
pub(crate) mod translate;
mod underlay;

use std::fmt;

use bytes::Bytes;
pub use model::GatewayModel;
pub use nat::NatLimits;
pub use report::{AttachMode, GatewayDevice, GatewayLoad, GatewayReport, RouterNat};
pub use rows::{External, Rows};

use crate::DropReason;

/// Where a frame came into a gateway. A device that leads both to the underlay and to the outside has both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Side {
    /// Hosts are there.
    pub underlay: bool,
    /// The outside is there.
    pub external: bool,
    /// MAC of the device.
    pub mac: alcor_model::MacAddr,
}

/// What becomes of one frame.
#[derive(Clone, PartialEq, Eq)]
pub enum GatewayVerdict {
    /// Into the underlay, to the outer destination of this packet, which begins with its IPv4 header.
    Underlay(Bytes),
    /// To the outside, to the destination of this packet, which begins with its IPv4 header.
    Outside(Bytes),
    /// This frame goes out of the device that the question came from.
    Reply(Bytes),
    /// Left to the node's own stack, unchanged.
    Pass,
    /// Gone, counted.
    Drop(DropReason),
}

impl fmt::Debug for GatewayVerdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hex = |bytes: &Bytes| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
        match self {
            Self::Underlay(packet) => write!(f, "Underlay({})", hex(packet)),
            Self::Outside(packet) => write!(f, "Outside({})", hex(packet)),
            Self::Reply(frame) => write!(f, "Reply({})", hex(frame)),
            Self::Pass => f.write_str("Pass"),
            Self::Drop(reason) => write!(f, "Drop({})", reason.as_str()),
        }
    }
}

impl From<DropReason> for GatewayVerdict {
    fn from(reason: DropReason) -> Self {
        Self::Drop(reason)
    }
}
