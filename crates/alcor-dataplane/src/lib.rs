//! What a data plane is to the agent: rows in, receipts and events out; and the model data plane, the
//! reference that every other one is tested against.
//!
//! Not here: how rows reach the host, which revision is newer (the agent decides that before it calls), how
//! a DHCP answer looks. A data plane takes desired *rows*, never flows or commands.
//!
//! The path of a packet is specified in [`path`]; the model implements it in plain Rust.

pub mod choice;
pub mod compiled;
mod connections;
pub mod gateway;
pub mod model;
pub mod packet;
pub mod path;
pub mod probe;
pub mod row;
pub mod rules;
pub mod security;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
pub mod trace;
pub mod uplinks;

use std::{
    collections::BTreeMap,
    fmt,
    net::{IpAddr, Ipv4Addr},
};

pub use alcor_dataplane_abi::{DropReason, PuntReason};
use alcor_model::{Id, MacAddr, Network, Port};
use bytes::Bytes;
pub use connections::{ConnectionEntry, ConnectionState, MAX_LISTED_CONNECTIONS};
pub use gateway::GatewayReport;
pub use model::Model;
pub use row::{
    ExternalRow, FloatingIpRow, InterfaceRow, NeighbourRow, NetworkRow, PortRow, RouteRow, RouterRow, Row,
    RowChange, RowKey, SubnetRow,
};
pub use security::{LabelRow, PolicyRow};
use thiserror::Error;
use tokio::sync::mpsc;
pub use uplinks::Uplinks;

/// How many events may wait for the agent; more are dropped and counted by the data plane.
pub const EVENT_QUEUE: usize = 4096;

/// A host's data plane. One owner calls it; calls may block for as long as system calls take.
pub trait Dataplane: Send {
    /// A short name for logs and the API (`model`, `ebpf`).
    fn name(&self) -> &'static str;

    /// Whether it filters by security groups. What does not is not given labels and policies.
    fn filters(&self) -> bool;

    /// Brings the rows into force, in the order given. One outcome per change, same order: `Ok` means that
    /// packets that arrive from now on see it. One refused change does not stop the others.
    fn apply(&mut self, changes: &[RowChange]) -> Vec<Result<(), DataplaneError>>;

    /// Ties a device to a port; replaces an earlier device. The port row may come before or after, and may go
    /// and come again: the device stays tied.
    ///
    /// # Errors
    /// When the device is not there, is tied to another port or cannot be programmed; the port then has no
    /// device.
    fn attach(&mut self, _port: Id<Port>, _device: &str) -> Result<(), DataplaneError> {
        Err(DataplaneError::Unsupported {
            dataplane: self.name(),
            what: "ports",
        })
    }

    /// Unties the port's device. Nothing happens when there is none.
    ///
    /// # Errors
    /// When the kernel refuses; the device may still carry packets then.
    fn detach(&mut self, _port: Id<Port>) -> Result<(), DataplaneError> {
        Ok(())
    }

    /// The rows in force and the devices attached: what an agent that starts again finds.
    ///
    /// # Errors
    /// When the state in the kernel cannot be read.
    fn snapshot(&mut self) -> Result<Snapshot, DataplaneError>;

    /// Sends a frame to the port's device, as if it came from the network.
    ///
    /// # Errors
    /// [`DataplaneError::NoDevice`] when the port has none.
    fn inject(&mut self, port: Id<Port>, _frame: &[u8]) -> Result<(), DataplaneError> {
        Err(DataplaneError::NoDevice(port))
    }

    /// Sends a frame that was held ([`Event::Unresolved`]) on its way, from the beginning, as if the port sent it now. One
    /// that still goes to an unknown address is dropped (`UnknownDestination`): nothing is held twice.
    ///
    /// # Errors
    /// [`DataplaneError::NoDevice`] when the port has none.
    fn release(&mut self, port: Id<Port>, _frame: &[u8]) -> Result<(), DataplaneError> {
        Err(DataplaneError::NoDevice(port))
    }

    /// For each address: whether a packet, or an answer to ARP or neighbour discovery, has used its neighbour row since
    /// the last call about it, or since the row came. False for addresses without a row.
    ///
    /// # Errors
    /// When the state in the kernel cannot be read.
    fn take_used(&mut self, keys: &[(Id<Network>, IpAddr)]) -> Result<Vec<bool>, DataplaneError> {
        Ok(vec![false; keys.len()])
    }

    /// The event stream; the first call gets it, later calls get `None`.
    fn events(&mut self) -> Option<mpsc::Receiver<Event>> {
        None
    }

    /// The connections of a port that are tracked now, sorted, at most [`MAX_LISTED_CONNECTIONS`]; none for a port that
    /// is not filtered or not here. For people who look at a host; reading them all takes milliseconds.
    ///
    /// # Errors
    /// When the tables in the kernel cannot be read.
    fn connections(&mut self, _port: Id<Port>) -> Result<Vec<ConnectionEntry>, DataplaneError> {
        Ok(Vec::new())
    }

    /// What a gateway says of itself; `None` from a host's data plane, which is none. Waits for nobody: what another thread is at
    /// work on is told as it was told last.
    ///
    /// # Errors
    /// When the counters in the kernel cannot be read.
    fn gateway(&mut self) -> Result<Option<GatewayReport>, DataplaneError> {
        Ok(None)
    }

    /// Packets dropped so far, by port and reason.
    ///
    /// # Errors
    /// When the counters in the kernel cannot be read.
    fn drops(&mut self) -> Result<Drops, DataplaneError>;
}

/// What a data plane tells without being asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A packet of a port that the agent answers.
    Punt {
        /// The port that sent it.
        port: Id<Port>,
        /// Why it was handed up.
        reason: PuntReason,
        /// The whole frame.
        frame: Bytes,
    },
    /// A router has brought a packet of a port into a network, or to a device that leads to an external one, that it is too long for, and it
    /// must not be fragmented: its sender is to learn the MTU.
    TooBig {
        /// The port that sent it.
        port: Id<Port>,
        /// What is taken there: bytes of a packet, without an Ethernet header.
        mtu: u16,
        /// The frame as it came, or the beginning of a long one.
        frame: Bytes,
    },
    /// A port sent to an address that no row knows, in a network where such addresses are asked for. Whoever takes this
    /// holds the packet, and asks for the address.
    Unresolved {
        /// The port that sent.
        port: Id<Port>,
        /// The network in which the address is looked for: the port's, or one that a router leads to.
        network: Id<Network>,
        /// The address it looked for.
        address: IpAddr,
        /// The whole frame. Empty: there is nothing to hold, as a gateway has it already.
        frame: Bytes,
    },
    /// As [`Event::Unresolved`], but the frame is longer than what can be handed up, and is lost.
    TooLong {
        /// The port that sent.
        port: Id<Port>,
        /// As in [`Event::Unresolved`].
        network: Id<Network>,
        /// As in [`Event::Unresolved`].
        address: IpAddr,
    },
}

/// What was in force when the agent asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// Rows, sorted by key.
    pub rows: Vec<Row>,
    /// Device name of each port that has one.
    pub devices: BTreeMap<Id<Port>, String>,
}

/// Dropped packets. `None` as port: packets that belong to no port (unknown network, unknown device).
pub type Drops = BTreeMap<(Option<Id<Port>>, DropReason), u64>;

/// Why a data plane refused.
#[derive(Debug, Error)]
pub enum DataplaneError {
    /// The row refers to a network that is not there.
    #[error("network {0} is not on this host; send the network row first")]
    UnknownNetwork(Id<Network>),
    /// Another network has this VNI.
    #[error("VNI {vni} belongs to network {owner} already")]
    VniInUse {
        /// The number.
        vni: alcor_model::Vni,
        /// Who has it.
        owner: Id<Network>,
    },
    /// Another port of the network has this MAC.
    #[error("MAC {mac} belongs to port {owner} of the same network already")]
    MacInUse {
        /// The address.
        mac: alcor_model::MacAddr,
        /// Who has it.
        owner: Id<Port>,
    },
    /// A limit of the data plane is reached.
    #[error("the data plane has no room for one more {what} (limit {limit})")]
    Full {
        /// What there is too much of.
        what: &'static str,
        /// The limit.
        limit: usize,
    },
    /// This data plane cannot do what the row asks for, and does not act as if it could.
    #[error("the {dataplane} data plane has no {what}")]
    Unsupported {
        /// Its name.
        dataplane: &'static str,
        /// What it has not.
        what: &'static str,
    },
    /// The port has no device.
    #[error("port {0} has no device on this host")]
    NoDevice(Id<Port>),
    /// The device cannot be used.
    #[error("device {device} cannot be used: {reason}")]
    Device {
        /// Its name.
        device: String,
        /// What is wrong.
        reason: String,
    },
    /// The kernel refused.
    #[error("{action} failed")]
    Kernel {
        /// What was tried.
        action: String,
        /// What the kernel said.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// Where a frame came into the data plane.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ingress {
    /// From the device of a local port.
    Port(Id<Port>),
    /// From another host, out of a VXLAN packet.
    Tunnel {
        /// Outer source address.
        source: IpAddr,
        /// The VXLAN network identifier; not checked yet.
        vni: u32,
        /// Group-based policy label; 0 is none.
        label: u16,
        /// A host passed it on that the receiver has left (the header's "don't learn" bit).
        forwarded: bool,
    },
    /// From a device that leads to an external network.
    External {
        /// Its name.
        device: String,
        /// Its MAC.
        mac: MacAddr,
    },
}

/// What becomes of one frame.
#[derive(Clone, PartialEq, Eq)]
pub enum Verdict {
    /// To the device of a local port.
    Deliver {
        /// The receiver.
        port: Id<Port>,
        /// The frame as it leaves.
        frame: Bytes,
    },
    /// Into a tunnel.
    Tunnel {
        /// The other host's tunnel address.
        host: IpAddr,
        /// The VXLAN network identifier.
        vni: alcor_model::Vni,
        /// Group-based policy label.
        label: u16,
        /// Passed on, because the receiver has left this host (the header's "don't learn" bit).
        forwarded: bool,
        /// The inner frame as it leaves.
        frame: Bytes,
    },
    /// Out of a device that leads to an external network; its Ethernet header is the kernel's to make.
    External {
        /// The device.
        device: String,
        /// Whose MAC the kernel looks for.
        nexthop: Ipv4Addr,
        /// From the IPv4 header on.
        packet: Bytes,
    },
    /// From an external network, and not this data plane's: left to the host's own stack, unchanged.
    Pass,
    /// Answered: this goes back to the port, or the external device, that it came from.
    Reply {
        /// The answer.
        frame: Bytes,
    },
    /// Handed to the agent unchanged.
    Punt(PuntReason),
    /// Gone, counted.
    Drop(DropReason),
}

impl fmt::Debug for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hex = |frame: &Bytes| frame.iter().map(|b| format!("{b:02x}")).collect::<String>();
        match self {
            Self::Deliver { port, frame } => write!(f, "Deliver({port}, {})", hex(frame)),
            Self::Tunnel {
                host,
                vni,
                label,
                forwarded,
                frame,
            } => {
                let passed_on = if *forwarded { ", forwarded" } else { "" };
                write!(
                    f,
                    "Tunnel({host}, vni {vni}, label {label}{passed_on}, {})",
                    hex(frame)
                )
            }
            Self::External {
                device,
                nexthop,
                packet,
            } => write!(f, "External({device}, to {nexthop}, {})", hex(packet)),
            Self::Pass => f.write_str("Pass"),
            Self::Reply { frame } => write!(f, "Reply({})", hex(frame)),
            Self::Punt(reason) => write!(f, "Punt({})", reason.as_str()),
            Self::Drop(reason) => write!(f, "Drop({})", reason.as_str()),
        }
    }
}
