//! `[gateway]`: a gateway's name, its set, and the devices that it forwards between.

use std::{
    net::{IpAddr, Ipv4Addr},
    path::PathBuf,
};

use serde::{Deserialize, Serialize};

use super::kernel_host_name;

/// `[gateway]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GatewayConfig {
    /// This gateway's name, unique among gateways and hosts. Default: the kernel's host name.
    pub name: String,
    /// The set that it is in: the members of a set share its networks.
    pub set: String,
    /// This gateway's address in the underlay, where hosts send packets to it; IPv4.
    pub tunnel_ip: IpAddr,
    /// The device that leads to the hosts.
    pub underlay: String,
    /// The devices that lead to the outside; none: it forwards between hosts only.
    pub external: Vec<String>,
    /// The NCM to connect to.
    pub ncm: String,
    /// Data plane to drive.
    pub dataplane: GatewayDataplane,
    /// Neighbours that the kernel's tables have room for, all networks together.
    pub max_neighbours: u32,
    /// The local socket, where `alcor show drops --socket` asks.
    pub socket: PathBuf,
}

/// The data planes of gateways.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum GatewayDataplane {
    /// Kernel programs.
    Xdp,
    /// In memory, no packets: for trying the control plane.
    Model,
}

impl Default for GatewayConfig {
    fn default() -> Self {
        Self {
            name: kernel_host_name(),
            set: "default".into(),
            tunnel_ip: IpAddr::V4(Ipv4Addr::LOCALHOST),
            underlay: "eth0".into(),
            external: Vec::new(),
            ncm: "http://127.0.0.1:9697".into(),
            dataplane: GatewayDataplane::Xdp,
            max_neighbours: alcor_dataplane_ebpf::MAX_GATEWAY_NEIGHBOURS,
            socket: "/run/alcor/gateway.sock".into(),
        }
    }
}

impl GatewayConfig {
    /// Whether it makes sense.
    ///
    /// # Errors
    /// For names that cannot be.
    pub fn check(&self) -> anyhow::Result<()> {
        for (key, text) in [("gateway.name", &self.name), ("gateway.set", &self.set)] {
            anyhow::ensure!((1..=255).contains(&text.len()), "{key} must have 1 to 255 bytes");
        }
        anyhow::ensure!(
            !self.underlay.is_empty() && self.external.iter().all(|device| !device.is_empty()),
            "gateway.underlay and gateway.external are names of devices; one is empty"
        );
        Ok(())
    }
}
