//! Answers to what ports ask of the network: pure functions from rows and a frame to a frame.
//!
//! No state, no clocks; limits on how often somebody is answered are in [`crate::core`]. Frames come from tenants:
//! every byte is suspect, and what cannot be answered is refused with a reason that is counted.

pub mod dhcp;
pub mod frame;
pub mod icmp;
pub mod ra;

use std::{net::IpAddr, time::Duration};

use alcor_dataplane::{NetworkRow, PortRow, SubnetRow};

/// What an answer is made from: the port that asked, its network and the subnets of it.
#[derive(Clone, Debug)]
pub struct Context<'a> {
    /// The port.
    pub port: &'a PortRow,
    /// Its network.
    pub network: &'a NetworkRow,
    /// All subnets of the network.
    pub subnets: Vec<&'a SubnetRow>,
    /// DHCP lease time.
    pub lease: Duration,
}

impl<'a> Context<'a> {
    /// The port's addresses with the subnet each lies in.
    fn addresses(&self) -> impl Iterator<Item = (IpAddr, &'a SubnetRow)> {
        self.port.fixed_ips.iter().filter_map(|fixed| {
            let subnet = self.subnets.iter().find(|subnet| subnet.id == fixed.subnet_id)?;
            Some((fixed.ip_address, *subnet))
        })
    }
}

/// Why a packet that was handed up got no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Refusal {
    /// No row of the port, or of its network.
    UnknownPort,
    /// The frame is not what the reason of the punt says.
    Malformed,
    /// A message for another server, or that no server answers.
    NotForUs,
    /// The port has no address that could be given or answered from.
    NoAddress,
    /// Too many for now.
    RateLimited,
    /// The answer could not be given to the port's device.
    NoDevice,
}

impl Refusal {
    /// Stable text for counters.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::UnknownPort => "unknown_port",
            Self::Malformed => "malformed",
            Self::NotForUs => "not_for_us",
            Self::NoAddress => "no_address",
            Self::RateLimited => "rate_limited",
            Self::NoDevice => "no_device",
        }
    }
}
