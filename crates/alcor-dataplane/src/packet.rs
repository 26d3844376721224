//! Fields of frames at fixed offsets, read with bounds checked: no bytes can make a reader panic.
//!
//! Only what the path looks at. Not a packet library: tests build and parse frames with another one, so
//! that a mistake here is not made twice.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use alcor_model::MacAddr;

/// Length of an Ethernet header without tags.
pub const ETH_LEN: usize = 14;
/// EtherType of IPv4.
pub const ETHERTYPE_IPV4: u16 = 0x0800;
/// EtherType of ARP.
pub const ETHERTYPE_ARP: u16 = 0x0806;
/// EtherType of a VLAN tag (IEEE 802.1Q).
pub const ETHERTYPE_VLAN: u16 = 0x8100;
/// EtherType of a service VLAN tag (IEEE 802.1ad).
pub const ETHERTYPE_SERVICE_VLAN: u16 = 0x88a8;
/// EtherType of IPv6.
pub const ETHERTYPE_IPV6: u16 = 0x86dd;

/// Length of an IPv4 header without options.
pub const IPV4_LEN: usize = 20;
/// Length of an IPv6 header.
pub const IPV6_LEN: usize = 40;

/// IP protocol number of ICMP.
pub const PROTO_ICMP: u8 = 1;
/// IP protocol number of UDP.
pub const PROTO_UDP: u8 = 17;
/// IPv6 next header: hop-by-hop options.
pub const PROTO_HOP_BY_HOP: u8 = 0;
/// IPv6 next header: routing.
pub const PROTO_ROUTING: u8 = 43;
/// IPv6 next header: fragment.
pub const PROTO_FRAGMENT: u8 = 44;
/// IPv6 next header: ICMPv6.
pub const PROTO_ICMPV6: u8 = 58;
/// IPv6 next header: destination options.
pub const PROTO_DESTINATION_OPTIONS: u8 = 60;

/// `N` bytes from `at`, or `None` when they are not all there.
pub fn array<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at.checked_add(N)?)?.try_into().ok()
}

/// One byte.
pub fn u8_at(bytes: &[u8], at: usize) -> Option<u8> {
    bytes.get(at).copied()
}

/// A 16-bit number in network order.
pub fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    array(bytes, at).map(u16::from_be_bytes)
}

/// A MAC address.
pub fn mac_at(bytes: &[u8], at: usize) -> Option<MacAddr> {
    array(bytes, at).map(MacAddr)
}

/// An IPv4 address.
pub fn ipv4_at(bytes: &[u8], at: usize) -> Option<IpAddr> {
    array::<4>(bytes, at).map(|octets| Ipv4Addr::from(octets).into())
}

/// An IPv6 address.
pub fn ipv6_at(bytes: &[u8], at: usize) -> Option<IpAddr> {
    array::<16>(bytes, at).map(|octets| Ipv6Addr::from(octets).into())
}

/// Writes `value` at `at`; bytes that would lie behind the end are left out.
pub fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    for (to, from) in bytes.iter_mut().skip(at).zip(value) {
        *to = *from;
    }
}

/// The sum of 16-bit words for an Internet checksum (RFC 1071), not folded; an odd last byte is padded with
/// zero. Exact for up to 128 KiB.
pub fn word_sum(bytes: &[u8]) -> u32 {
    bytes
        .chunks(2)
        .map(|word| match *word {
            [high, low] => u32::from(u16::from_be_bytes([high, low])),
            [high] => u32::from(high) << 8,
            _ => 0,
        })
        .sum()
}

/// Changes one 16-bit word and the checksum that covers it (RFC 1624).
pub fn replace_word(bytes: &mut [u8], word_at: usize, checksum_at: usize, new: u16) {
    let (Some(old), Some(checksum)) = (u16_at(bytes, word_at), u16_at(bytes, checksum_at)) else {
        return;
    };
    put(bytes, word_at, &new.to_be_bytes());
    put(
        bytes,
        checksum_at,
        &alcor_dataplane_abi::csum_replace(checksum, old, new).to_be_bytes(),
    );
}

/// An Ethernet header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ethernet {
    /// Who it is for.
    pub destination: MacAddr,
    /// Who says to have sent it.
    pub source: MacAddr,
    /// What follows.
    pub ethertype: u16,
}

impl Ethernet {
    /// Reads the first 14 bytes.
    pub fn read(frame: &[u8]) -> Option<Self> {
        Some(Self {
            destination: mac_at(frame, 0)?,
            source: mac_at(frame, 6)?,
            ethertype: u16_at(frame, 12)?,
        })
    }

    /// The header as bytes.
    pub fn bytes(&self) -> [u8; ETH_LEN] {
        let mut header = [0; ETH_LEN];
        put(&mut header, 0, &self.destination.0);
        put(&mut header, 6, &self.source.0);
        put(&mut header, 12, &self.ethertype.to_be_bytes());
        header
    }
}
