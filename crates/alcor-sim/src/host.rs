//! The two kinds of hosts of a simulation, and what both have in common: names and addresses by number.

pub(crate) mod full;
pub(crate) mod light;
mod plane;

use std::net::{IpAddr, Ipv4Addr};

use bytes::Bytes;

/// Tunnel addresses begin here.
const FIRST_TUNNEL_IP: u32 = 0x0a00_0001;

/// What a tunnel carries.
#[derive(Clone, Debug)]
pub(crate) struct Carried {
    /// The network.
    pub(crate) vni: u32,
    /// The sender's, in that network.
    pub(crate) label: u16,
    /// It was passed on by a host that the port has left.
    pub(crate) forwarded: bool,
    pub(crate) frame: Bytes,
}

/// The name of a host.
pub(crate) fn name(host: u32) -> String {
    format!("h{host}")
}

/// The number of a host by its name.
pub(crate) fn number(name: &str) -> Option<u32> {
    name.strip_prefix('h')?.parse().ok()
}

/// The tunnel address of a host.
pub(crate) fn tunnel_ip(host: u32) -> IpAddr {
    Ipv4Addr::from(FIRST_TUNNEL_IP.saturating_add(host)).into()
}

/// The host that has a tunnel address.
pub(crate) fn of_tunnel_ip(ip: IpAddr) -> Option<u32> {
    match ip {
        IpAddr::V4(ip) => u32::from(ip).checked_sub(FIRST_TUNNEL_IP),
        IpAddr::V6(_) => None,
    }
}
