//! Frames from their parts, with right lengths and checksums unless asked otherwise.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use alcor_dataplane_abi::csum_fold;
use alcor_model::MacAddr;

use crate::packet::{
    ETHERTYPE_ARP, ETHERTYPE_IPV4, ETHERTYPE_IPV6, Ethernet, IPV4_LEN, PROTO_ICMP, PROTO_ICMPV6, PROTO_UDP,
    put, word_sum,
};

/// An Ethernet frame.
pub fn ethernet(source: MacAddr, destination: MacAddr, ethertype: u16, payload: &[u8]) -> Vec<u8> {
    [
        &Ethernet {
            destination,
            source,
            ethertype,
        }
        .bytes()[..],
        payload,
    ]
    .concat()
}

/// An ARP frame; `ethernet_pair` is source and destination of the Ethernet header.
pub fn arp(
    ethernet_pair: (MacAddr, MacAddr),
    operation: u16,
    sender: (MacAddr, Ipv4Addr),
    target: (MacAddr, Ipv4Addr),
) -> Vec<u8> {
    let mut message = vec![0, 1, 8, 0, 6, 4];
    message.extend(operation.to_be_bytes());
    message.extend(sender.0.0);
    message.extend(sender.1.octets());
    message.extend(target.0.0);
    message.extend(target.1.octets());
    ethernet(ethernet_pair.0, ethernet_pair.1, ETHERTYPE_ARP, &message)
}

/// What of an IP header is not the same in every packet.
#[derive(Clone, Debug)]
pub struct Ip {
    /// Source address; source and destination are of one family.
    pub source: IpAddr,
    /// Destination address.
    pub destination: IpAddr,
    /// TTL or hop limit.
    pub ttl: u8,
    /// IPv4: flags and offset as in the header.
    pub fragment: u16,
    /// IPv4: options, a multiple of 4 bytes, at most 40.
    pub options: Vec<u8>,
    /// IPv6: extension headers, each with its number.
    pub extensions: Vec<(u8, Vec<u8>)>,
}

impl Ip {
    /// An ordinary header.
    pub const fn new(source: IpAddr, destination: IpAddr, ttl: u8) -> Self {
        Self {
            source,
            destination,
            ttl,
            fragment: 0,
            options: Vec::new(),
            extensions: Vec::new(),
        }
    }

    /// The header, extension headers and `upper`, as the payload of the EtherType that is returned too.
    pub fn packet(&self, protocol: u8, upper: &[u8]) -> (u16, Vec<u8>) {
        match (self.source, self.destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => (
                ETHERTYPE_IPV4,
                self.packet_v4(source, destination, protocol, upper),
            ),
            (source, destination) => (
                ETHERTYPE_IPV6,
                self.packet_v6(v6(source), v6(destination), protocol, upper),
            ),
        }
    }

    /// The whole frame.
    pub fn frame(&self, source: MacAddr, destination: MacAddr, protocol: u8, upper: &[u8]) -> Vec<u8> {
        let (ethertype, packet) = self.packet(protocol, upper);
        ethernet(source, destination, ethertype, &packet)
    }

    fn packet_v4(&self, source: Ipv4Addr, destination: Ipv4Addr, protocol: u8, upper: &[u8]) -> Vec<u8> {
        let header_len = IPV4_LEN + self.options.len();
        let total_len = (header_len + upper.len()) as u16;
        let mut header = vec![0; IPV4_LEN];
        put(&mut header, 0, &[0x40 | (header_len / 4) as u8]);
        put(&mut header, 2, &total_len.to_be_bytes());
        put(&mut header, 6, &self.fragment.to_be_bytes());
        put(&mut header, 8, &[self.ttl, protocol]);
        put(&mut header, 12, &source.octets());
        put(&mut header, 16, &destination.octets());
        header.extend(&self.options);
        let checksum = csum_fold(word_sum(&header));
        put(&mut header, 10, &checksum.to_be_bytes());
        [&header, upper].concat()
    }

    fn packet_v6(&self, source: Ipv6Addr, destination: Ipv6Addr, protocol: u8, upper: &[u8]) -> Vec<u8> {
        let mut numbers = self
            .extensions
            .iter()
            .map(|(number, _)| *number)
            .chain([protocol]);
        let first = numbers.next().unwrap_or(protocol);
        let mut payload = Vec::new();
        for ((_, body), next) in self.extensions.iter().zip(numbers) {
            let start = payload.len();
            payload.extend(body);
            put(&mut payload, start, &[next]);
        }
        payload.extend(upper);
        let mut header = vec![0; 40];
        put(&mut header, 0, &[0x60]);
        put(&mut header, 4, &(payload.len() as u16).to_be_bytes());
        put(&mut header, 6, &[first, self.ttl]);
        put(&mut header, 8, &source.octets());
        put(&mut header, 24, &destination.octets());
        [header, payload].concat()
    }

    /// The checksum of an upper layer that has a pseudo header (RFC 768, RFC 8200 section 8.1).
    fn checksum(&self, protocol: u8, upper: &[u8]) -> u16 {
        let mut addresses = octets(self.source);
        addresses.extend(octets(self.destination));
        csum_fold(word_sum(&addresses) + u32::from(protocol) + upper.len() as u32 + word_sum(upper))
    }

    /// A UDP datagram with its checksum.
    pub fn udp(&self, ports: (u16, u16), payload: &[u8]) -> Vec<u8> {
        let len = (8 + payload.len()) as u16;
        let mut datagram = [
            &ports.0.to_be_bytes()[..],
            &ports.1.to_be_bytes(),
            &len.to_be_bytes(),
            &[0, 0],
            payload,
        ]
        .concat();
        let checksum = match self.checksum(PROTO_UDP, &datagram) {
            0 => 0xffff,
            checksum => checksum,
        };
        put(&mut datagram, 6, &checksum.to_be_bytes());
        datagram
    }

    /// A TCP SYN with its checksum.
    pub fn tcp(&self, ports: (u16, u16), payload: &[u8]) -> Vec<u8> {
        let mut segment = vec![0; 20];
        put(&mut segment, 0, &ports.0.to_be_bytes());
        put(&mut segment, 2, &ports.1.to_be_bytes());
        put(&mut segment, 12, &[0x50, 0x02]);
        segment.extend(payload);
        let checksum = self.checksum(6, &segment);
        put(&mut segment, 16, &checksum.to_be_bytes());
        segment
    }

    /// An ICMP or ICMPv6 message (by the family) with its checksum; `body` is all behind the checksum.
    pub fn icmp(&self, kind: u8, code: u8, body: &[u8]) -> (u8, Vec<u8>) {
        let mut message = [&[kind, code, 0, 0], body].concat();
        let (protocol, checksum) = match self.source {
            IpAddr::V4(_) => (PROTO_ICMP, csum_fold(word_sum(&message))),
            IpAddr::V6(_) => (PROTO_ICMPV6, self.checksum(PROTO_ICMPV6, &message)),
        };
        put(&mut message, 2, &checksum.to_be_bytes());
        (protocol, message)
    }
}

/// The address as IPv6; IPv4 as a mapped one.
fn v6(ip: IpAddr) -> Ipv6Addr {
    match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    }
}

fn octets(ip: IpAddr) -> Vec<u8> {
    match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    }
}
