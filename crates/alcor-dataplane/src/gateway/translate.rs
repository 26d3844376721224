//! "Packets that are translated": one IPv4 packet, what is looked at of it, and the changes that keep its checksums as right or wrong as
//! they were.

use std::net::Ipv4Addr;

use alcor_dataplane_abi::{
    connection::Direction,
    csum_replace,
    flow::{
        Identity, PROTO_DCCP, PROTO_ICMP, PROTO_TCP, PROTO_UDP, PROTO_UDPLITE, Upper, has_ports, identify,
    },
    gateway_layout::FragmentKey,
};

use super::underlay::{DESTINATION, FRAGMENT, FRAGMENT_OFFSET, SOURCE};
use crate::{
    DropReason, FloatingIpRow,
    packet::{IPV4_LEN, array, put, replace_word, u8_at, u16_at},
};

const HEADER_CHECKSUM: usize = 10;
const TCP_LEN: usize = 20;
/// Of UDP, UDP-Lite, SCTP, DCCP, ICMP: what must be there, and what an error quotes.
const UPPER_LEN: usize = 8;
/// Where an ICMP message has its checksum, in the packet.
const ICMP_CHECKSUM: usize = IPV4_LEN + 2;
/// Where the packet that an ICMP error quotes starts, in the packet.
const QUOTE: usize = IPV4_LEN + UPPER_LEN;
/// "Must not be fragmented."
const DONT_FRAGMENT: u16 = 0x4000;

/// Which of a packet's two ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Source,
    Destination,
}

impl End {
    /// Where its address is in a header.
    const fn address(self) -> usize {
        match self {
            Self::Source => SOURCE,
            Self::Destination => DESTINATION,
        }
    }

    /// Where its port is in an upper layer; of an ICMP query the identifier.
    const fn port(self, protocol: u8) -> usize {
        match self {
            _ if protocol == PROTO_ICMP => 4,
            Self::Source => 0,
            Self::Destination => 2,
        }
    }
}

/// Which part of a packet a fragment is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    Whole,
    First,
    Later,
}

/// The packet as it is now.
#[derive(Clone, Debug)]
pub(crate) struct Packet {
    /// From its header to the end of the frame.
    pub(crate) bytes: Vec<u8>,
    pub(crate) total_len: usize,
    pub(crate) part: Part,
    /// Of a later fragment only the protocol.
    pub(crate) upper: Upper,
}

/// The packet that an ICMP error quotes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Quote {
    pub(crate) source: Ipv4Addr,
    pub(crate) destination: Ipv4Addr,
    pub(crate) upper: Upper,
}

/// What an upper layer says, as far as its first 8 bytes.
fn upper_of(protocol: u8, bytes: &[u8]) -> Option<Upper> {
    let (source, point) = match protocol {
        PROTO_ICMP => (u16_at(bytes, 4)?, u16_at(bytes, 0)?),
        _ if has_ports(protocol) => (u16_at(bytes, 0)?, u16_at(bytes, 2)?),
        _ => (0, 0),
    };
    Some(Upper {
        source,
        point,
        protocol,
        tcp: 0,
    })
}

impl Packet {
    /// Reads a packet whose lengths were compared with the bytes present.
    pub(crate) fn read(bytes: &[u8]) -> Result<Self, DropReason> {
        Self::parse(bytes).ok_or(DropReason::Malformed)
    }

    fn parse(bytes: &[u8]) -> Option<Self> {
        let total_len = usize::from(u16_at(bytes, 2)?);
        let layer = bytes.get(IPV4_LEN..total_len)?;
        let fragment = u16_at(bytes, 6)?;
        let protocol = u8_at(bytes, 9)?;
        let part = match (fragment & FRAGMENT, fragment & FRAGMENT_OFFSET) {
            (0, _) => Part::Whole,
            (_, 0) => Part::First,
            _ => Part::Later,
        };
        let mut upper = Upper {
            protocol,
            ..Upper::default()
        };
        if part != Part::Later {
            let least = match protocol {
                PROTO_TCP => TCP_LEN,
                PROTO_ICMP => UPPER_LEN,
                _ if has_ports(protocol) => UPPER_LEN,
                _ => 0,
            };
            layer.get(..least)?;
            upper = upper_of(protocol, layer)?;
            if protocol == PROTO_TCP {
                upper.tcp = u8_at(layer, 13)?;
            }
        }
        (u8_at(bytes, 0)? == 0x45).then(|| Self {
            bytes: bytes.to_vec(),
            total_len,
            part,
            upper,
        })
    }

    /// True for an ICMP error, or the first fragment of one.
    pub(crate) fn is_error(&self) -> bool {
        self.part != Part::Later && identify(&self.upper, Direction::Egress) == Identity::Error
    }

    /// The floating IP becomes the source.
    pub(crate) fn float_out(&mut self, row: &FloatingIpRow) -> Result<(), DropReason> {
        if self.is_error() {
            let quote = self.quote().ok_or(DropReason::NoTranslation)?;
            if quote.destination != row.fixed_ip {
                return Err(DropReason::NoTranslation);
            }
            self.set_quoted_address(End::Destination, row.floating_ip);
        }
        self.set_address(End::Source, row.floating_ip);
        Ok(())
    }

    /// Whether a floating IP that is the destination can be translated.
    pub(crate) fn may_float_in(&self, row: &FloatingIpRow) -> Result<(), DropReason> {
        let quoted = self.quote().map(|quote| quote.source);
        match self.is_error() && quoted != Some(row.floating_ip) {
            true => Err(DropReason::NoTranslation),
            false => Ok(()),
        }
    }

    /// The fixed IP, or whichever the tenant's address is, becomes the destination.
    pub(crate) fn float_in(&mut self, address: Ipv4Addr) {
        if self.is_error() {
            self.set_quoted_address(End::Source, address);
        }
        self.set_address(End::Destination, address);
    }

    fn address(&self, at: usize) -> Ipv4Addr {
        array::<4>(&self.bytes, at).unwrap_or_default().into()
    }

    pub(crate) fn source(&self) -> Ipv4Addr {
        self.address(SOURCE)
    }

    pub(crate) fn destination(&self) -> Ipv4Addr {
        self.address(DESTINATION)
    }

    pub(crate) fn ttl(&self) -> u8 {
        u8_at(&self.bytes, 8).unwrap_or_default()
    }

    /// What later fragments of the packet have in common with it, in the network with this VNI or outside (0).
    pub(super) fn fragment_key(&self, vni: u32) -> FragmentKey {
        FragmentKey {
            vni,
            source: self.source().octets(),
            destination: self.destination().octets(),
            id: u16_at(&self.bytes, 4).unwrap_or_default(),
            protocol: self.upper.protocol,
            pad: 0,
        }
    }

    pub(crate) fn must_not_be_fragmented(&self) -> bool {
        u16_at(&self.bytes, 6).is_some_and(|fragment| fragment & DONT_FRAGMENT != 0)
    }

    /// Where the upper layer's checksum covers addresses and ports, if it does and is there.
    fn upper_checksum(&self) -> Option<usize> {
        let at = match self.upper.protocol {
            PROTO_TCP => IPV4_LEN + 16,
            PROTO_UDP | PROTO_UDPLITE | PROTO_DCCP => IPV4_LEN + 6,
            _ => return None,
        };
        let is_absent = self.upper.protocol == PROTO_UDP && u16_at(&self.bytes, at) == Some(0);
        (self.part != Part::Later && !is_absent).then_some(at)
    }

    /// A word that the upper layer's checksum covers was `old` and is `new`.
    fn covered(&mut self, old: u16, new: u16) {
        let Some(at) = self.upper_checksum() else {
            return;
        };
        let mut checksum = csum_replace(u16_at(&self.bytes, at).unwrap_or_default(), old, new);
        if self.upper.protocol == PROTO_UDP && checksum == 0 {
            // 0 says that there is none.
            checksum = 0xffff;
        }
        put(&mut self.bytes, at, &checksum.to_be_bytes());
    }

    pub(crate) fn set_address(&mut self, end: End, new: Ipv4Addr) {
        let [a, b, c, d] = new.octets();
        for (at, word) in [(0, u16::from_be_bytes([a, b])), (2, u16::from_be_bytes([c, d]))] {
            let at = end.address() + at;
            self.covered(u16_at(&self.bytes, at).unwrap_or_default(), word);
            replace_word(&mut self.bytes, at, HEADER_CHECKSUM, word);
        }
    }

    /// Changes a port of TCP or UDP, or the identifier of an ICMP query.
    pub(crate) fn set_port(&mut self, end: End, new: u16) {
        let at = IPV4_LEN + end.port(self.upper.protocol);
        if self.upper.protocol == PROTO_ICMP {
            replace_word(&mut self.bytes, at, ICMP_CHECKSUM, new);
            return;
        }
        self.covered(u16_at(&self.bytes, at).unwrap_or_default(), new);
        put(&mut self.bytes, at, &new.to_be_bytes());
    }

    /// One hop more.
    pub(crate) fn age(&mut self) {
        if let Some(word) = u16_at(&self.bytes, 8) {
            replace_word(&mut self.bytes, 8, HEADER_CHECKSUM, word.wrapping_sub(0x0100));
        }
    }

    /// What an ICMP error quotes, if it can be read.
    pub(crate) fn quote(&self) -> Option<Quote> {
        let quoted = self.bytes.get(QUOTE..self.total_len)?;
        let upper = quoted.get(IPV4_LEN..).filter(|upper| upper.len() >= UPPER_LEN)?;
        let is_plain = u8_at(quoted, 0) == Some(0x45) && u16_at(quoted, 6)? & FRAGMENT_OFFSET == 0;
        if self.part != Part::Whole || !is_plain {
            return None;
        }
        Some(Quote {
            source: array::<4>(quoted, SOURCE)?.into(),
            destination: array::<4>(quoted, DESTINATION)?.into(),
            upper: upper_of(u8_at(quoted, 9)?, upper)?,
        })
    }

    /// Changes an address of the packet that is quoted.
    pub(crate) fn set_quoted_address(&mut self, end: End, new: Ipv4Addr) {
        let [a, b, c, d] = new.octets();
        for (at, word) in [(0, u16::from_be_bytes([a, b])), (2, u16::from_be_bytes([c, d]))] {
            let at = QUOTE + end.address() + at;
            let (Some(old), Some(sum)) = (
                u16_at(&self.bytes, at),
                u16_at(&self.bytes, QUOTE + HEADER_CHECKSUM),
            ) else {
                return;
            };
            replace_word(&mut self.bytes, at, ICMP_CHECKSUM, word);
            let sum = csum_replace(sum, old, word);
            replace_word(&mut self.bytes, QUOTE + HEADER_CHECKSUM, ICMP_CHECKSUM, sum);
        }
    }

    /// Changes a port of the packet that is quoted; its own checksum stays, nobody looks at it.
    pub(crate) fn set_quoted_port(&mut self, end: End, new: u16) {
        let protocol = u8_at(&self.bytes, QUOTE + 9).unwrap_or_default();
        let at = QUOTE + IPV4_LEN + end.port(protocol);
        replace_word(&mut self.bytes, at, ICMP_CHECKSUM, new);
    }
}
