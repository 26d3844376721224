//! The external networks that a host reaches by devices of its own. What it does there is in [`crate::path`]; which floating IPs
//! are its own is told by rows.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr},
};

use alcor_model::{Id, Network};

use crate::FloatingIpRow;

/// External networks of one host, at most.
pub const MAX_UPLINKS: usize = 64;

/// The devices by which a host reaches external networks, at most [`MAX_UPLINKS`]. Two networks may share one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Uplinks {
    /// The host's tunnel address, as rows name it. Without one no floating IP is the host's.
    pub tunnel_ip: Option<IpAddr>,
    /// Device of each external network.
    pub devices: BTreeMap<Id<Network>, String>,
}

impl Uplinks {
    /// The device of a floating IP that is this host's; `None`: it is not.
    pub fn device(&self, row: &FloatingIpRow) -> Option<&str> {
        if row.host.is_none() || row.host != self.tunnel_ip {
            return None;
        }
        self.devices.get(&row.external_network_id).map(String::as_str)
    }
}

/// Whose MAC is looked for when a packet leaves from a floating IP; `None`: nothing leads there.
pub fn nexthop(row: &FloatingIpRow, destination: Ipv4Addr) -> Option<Ipv4Addr> {
    match row.cidr {
        Some(block) if block.contains(&destination) => Some(destination),
        _ => row.nexthop,
    }
}
