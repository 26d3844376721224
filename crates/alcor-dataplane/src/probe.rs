//! Packets that nobody sent: for asking a data plane what it would do. A probe is the first packet of a connection, as a
//! station with this address would send it.
//!
//! Nothing on the path looks at checksums of the upper layer; they are zero.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use alcor_dataplane_abi::flow::{PROTO_ICMP, PROTO_ICMPV6, PROTO_TCP, has_ports};
use alcor_model::MacAddr;

use crate::packet::{
    ETH_LEN, ETHERTYPE_ARP, ETHERTYPE_IPV4, ETHERTYPE_IPV6, Ethernet, IPV4_LEN, IPV6_LEN, put, word_sum,
};

/// TTL and hop limit of a probe.
const TTL: u8 = 64;
/// Of Ethernet and IPv4.
const ARP_LEN: usize = 28;
/// What neighbour discovery must have.
const DISCOVERY_HOP_LIMIT: u8 = 255;
const TCP_SYN: u8 = 2;
const TCP_LEN: usize = 20;
/// Ports, length, checksum; ICMP: type, code, checksum, id, sequence.
const UPPER_LEN: usize = 8;
const SOLICITATION: u8 = 135;
const SOLICITATION_LEN: usize = 24;

/// What a probe carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Payload {
    /// IP protocol number.
    pub protocol: u8,
    /// Source port, of protocols that have ports.
    pub source_port: u16,
    /// Destination port, of protocols that have ports; ICMP type * 256 + code of ICMP and ICMPv6.
    pub point: u16,
}

impl Payload {
    fn bytes(&self) -> Vec<u8> {
        let [high, low] = self.point.to_be_bytes();
        if matches!(self.protocol, PROTO_ICMP | PROTO_ICMPV6) {
            // An identifier that is none would be as good as any other.
            return vec![high, low, 0, 0, 0, 1, 0, 1];
        }
        if !has_ports(self.protocol) {
            return Vec::new();
        }
        let is_tcp = self.protocol == PROTO_TCP;
        let mut bytes = vec![0; if is_tcp { TCP_LEN } else { UPPER_LEN }];
        put(&mut bytes, 0, &self.source_port.to_be_bytes());
        put(&mut bytes, 2, &[high, low]);
        if is_tcp {
            put(&mut bytes, 12, &[5 << 4, TCP_SYN]);
        } else {
            put(&mut bytes, 4, &(UPPER_LEN as u16).to_be_bytes());
        }
        bytes
    }
}

/// A packet from one address to another; `None` when they are of different families.
pub fn packet(
    macs: (MacAddr, MacAddr),
    source: IpAddr,
    destination: IpAddr,
    payload: &Payload,
) -> Option<Vec<u8>> {
    let upper = payload.bytes();
    match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            Some(ipv4(macs, (source, destination), payload.protocol, &upper))
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            Some(ipv6(macs, (source, destination), payload.protocol, TTL, &upper))
        }
        _ => None,
    }
}

/// The question who has an address: ARP or a neighbour solicitation.
pub fn question(mac: MacAddr, source: IpAddr, target: IpAddr) -> Option<Vec<u8>> {
    match (source, target) {
        (IpAddr::V4(source), IpAddr::V4(target)) => {
            let mut frame = vec![0; ETH_LEN + ARP_LEN];
            put(&mut frame, 0, &ethernet((mac, MacAddr([0xff; 6])), ETHERTYPE_ARP));
            put(&mut frame, ETH_LEN, &[0, 1, 8, 0, 6, 4, 0, 1]);
            put(&mut frame, ETH_LEN + 8, &mac.0);
            put(&mut frame, ETH_LEN + 14, &source.octets());
            put(&mut frame, ETH_LEN + 24, &target.octets());
            Some(frame)
        }
        (IpAddr::V6(source), IpAddr::V6(target)) => {
            let mut upper = vec![0; SOLICITATION_LEN];
            put(&mut upper, 0, &[SOLICITATION]);
            put(&mut upper, 8, &target.octets());
            let [.., a, b, c] = target.octets();
            let group = MacAddr([0x33, 0x33, 0xff, a, b, c]);
            let to = Ipv6Addr::from([0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, a, b, c]);
            Some(ipv6(
                (mac, group),
                (source, to),
                PROTO_ICMPV6,
                DISCOVERY_HOP_LIMIT,
                &upper,
            ))
        }
        _ => None,
    }
}

/// Sender first.
fn ethernet((source, destination): (MacAddr, MacAddr), ethertype: u16) -> [u8; ETH_LEN] {
    Ethernet {
        destination,
        source,
        ethertype,
    }
    .bytes()
}

fn ipv4(macs: (MacAddr, MacAddr), ips: (Ipv4Addr, Ipv4Addr), protocol: u8, upper: &[u8]) -> Vec<u8> {
    let mut header = [0; IPV4_LEN];
    let length = u16::try_from(IPV4_LEN + upper.len()).unwrap_or(u16::MAX);
    put(&mut header, 0, &[0x45]);
    put(&mut header, 2, &length.to_be_bytes());
    put(&mut header, 8, &[TTL, protocol]);
    put(&mut header, 12, &ips.0.octets());
    put(&mut header, 16, &ips.1.octets());
    let sum = word_sum(&header);
    let folded = (sum & 0xffff) + (sum >> 16);
    let folded = (folded & 0xffff) + (folded >> 16);
    put(&mut header, 10, &(!(folded as u16)).to_be_bytes());
    [&ethernet(macs, ETHERTYPE_IPV4)[..], &header, upper].concat()
}

fn ipv6(
    macs: (MacAddr, MacAddr),
    ips: (Ipv6Addr, Ipv6Addr),
    protocol: u8,
    hop_limit: u8,
    upper: &[u8],
) -> Vec<u8> {
    let mut header = [0; IPV6_LEN];
    let length = u16::try_from(upper.len()).unwrap_or(u16::MAX);
    put(&mut header, 0, &[0x60]);
    put(&mut header, 4, &length.to_be_bytes());
    put(&mut header, 6, &[protocol, hop_limit]);
    put(&mut header, 8, &ips.0.octets());
    put(&mut header, 24, &ips.1.octets());
    [&ethernet(macs, ETHERTYPE_IPV6)[..], &header, upper].concat()
}
