//! The kernel data plane: loads the programs in `programs/`, keeps their maps in step with the rows, ties
//! them to devices.
//!
//! Maps and links are pinned, so packets go on while nobody runs this code; [`EbpfDataplane::open`] finds them
//! again. The path of a packet is [`alcor_dataplane::path`]. Not here: which row is newer, DHCP, anything
//! that waits for somebody else.

mod announce;
mod checksum;
mod dataplane;
mod device;
mod entry;
mod error;
mod events;
mod gateway;
mod inject;
mod kept;
mod kernel;
mod layout;
mod lists;
mod memory;
mod neighbours;
mod netlink;
mod object;
mod pins;
mod release;
mod sets;
mod skb;
mod syscall;
mod tables;
#[cfg(feature = "tracing-run")]
mod trace;

use std::path::PathBuf;

use alcor_dataplane::Uplinks;
/// The usual [`EbpfConfig::max_neighbours`].
pub use alcor_dataplane_abi::layout::MAX_NEIGHBOURS;
pub use dataplane::EbpfDataplane;
pub use gateway::{
    Attachment, GatewayConfig, MAX_GATEWAY_NEIGHBOURS, ROUTE_METRIC, ROUTE_PROTOCOL, XdpGateway,
};

/// Where a data plane lives.
#[derive(Clone, Debug)]
pub struct EbpfConfig {
    /// Name that tells this host's maps from those of other agents on the same kernel; letters, digits and `-`.
    pub instance: String,
    /// Where the BPF file system is or will be mounted. An agent must see the same mount when it starts again.
    pub bpffs: PathBuf,
    /// Name of the tunnel device, made if it is not there.
    pub tunnel_device: String,
    /// Neighbours that the host has room for, all networks together. Tables that are found keep their size.
    pub max_neighbours: u32,
    /// External networks that the host reaches by devices of its own; these must be there.
    pub uplinks: Uplinks,
    /// For tests: the programs tell their verdict and do not meter events.
    pub trace: bool,
}

impl EbpfConfig {
    /// The usual places.
    pub fn new(instance: impl Into<String>) -> Self {
        Self {
            instance: instance.into(),
            bpffs: PathBuf::from("/sys/fs/bpf"),
            tunnel_device: "alcor0".to_owned(),
            max_neighbours: MAX_NEIGHBOURS,
            uplinks: Uplinks::default(),
            trace: false,
        }
    }
}
