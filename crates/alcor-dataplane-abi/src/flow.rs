//! Which connection a packet belongs to, from the few numbers of its upper layer. Pure; nothing is read here.

use crate::connection::{Direction, Tracking};

/// IP protocol number of ICMP.
pub const PROTO_ICMP: u8 = 1;
/// IP protocol number of TCP.
pub const PROTO_TCP: u8 = 6;
/// IP protocol number of UDP.
pub const PROTO_UDP: u8 = 17;
/// IP protocol number of DCCP.
pub const PROTO_DCCP: u8 = 33;
/// IP protocol number of ICMPv6.
pub const PROTO_ICMPV6: u8 = 58;
/// IP protocol number of SCTP.
pub const PROTO_SCTP: u8 = 132;
/// IP protocol number of UDP-Lite.
pub const PROTO_UDPLITE: u8 = 136;

/// What of the upper layer counts. A later fragment has the numbers of its first one.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Upper {
    /// Source port; identifier of an ICMP query; else 0.
    pub source: u16,
    /// What rules match, the *point*: destination port; ICMP type (high byte) and code; else 0.
    pub point: u16,
    /// IP protocol.
    pub protocol: u8,
    /// TCP flags; else 0.
    pub tcp: u8,
}

impl Upper {
    /// What an upper layer says in its first 8 bytes, which is all but the flags of TCP.
    #[inline(always)]
    pub const fn beginning(protocol: u8, bytes: &[u8; 8]) -> Self {
        let [a, b, c, d, e, f, ..] = *bytes;
        let (source, point) = if protocol == PROTO_ICMP {
            (u16::from_be_bytes([e, f]), u16::from_be_bytes([a, b]))
        } else if has_ports(protocol) {
            (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]))
        } else {
            (0, 0)
        };
        Self {
            source,
            point,
            protocol,
            tcp: 0,
        }
    }
}

/// A connection of a port, without the addresses.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sides {
    /// Port number of the port's side; identifier of an ICMP query.
    pub local: u16,
    /// Port number of the other side; point of an ICMP query's request.
    pub remote: u16,
    /// IP protocol.
    pub protocol: u8,
    /// ICMP queries: 1 when the port's side asks. Else 0.
    pub asks: u8,
}

/// What a packet is to connection tracking.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Identity {
    /// Part of a connection, or its beginning.
    Tracked {
        /// Which.
        sides: Sides,
        /// How.
        tracking: Tracking,
        /// False for an answer to a query: it begins nothing.
        begins: bool,
    },
    /// An ICMP error: it belongs to the connection of the packet that it quotes.
    Error,
    /// It belongs to nothing: rules decide about each packet.
    Single,
}

/// True for protocols whose first four bytes are source and destination port.
#[inline(always)]
pub const fn has_ports(protocol: u8) -> bool {
    matches!(
        protocol,
        PROTO_TCP | PROTO_UDP | PROTO_DCCP | PROTO_SCTP | PROTO_UDPLITE
    )
}

/// What a packet that goes in `direction` is.
#[inline(always)]
pub const fn identify(upper: &Upper, direction: Direction) -> Identity {
    let tracking = match upper.protocol {
        PROTO_TCP => Tracking::Tcp,
        PROTO_UDP => Tracking::Udp,
        PROTO_ICMP => return icmp(upper, direction, request_v4(upper.point >> 8)),
        PROTO_ICMPV6 => return icmp(upper, direction, request_v6(upper.point >> 8)),
        _ => Tracking::Other,
    };
    let (local, remote) = match direction {
        Direction::Egress => (upper.source, upper.point),
        Direction::Ingress => (upper.point, upper.source),
    };
    Identity::Tracked {
        sides: Sides {
            local,
            remote,
            protocol: upper.protocol,
            asks: 0,
        },
        tracking,
        begins: true,
    }
}

/// What rules match of the packet that began a connection.
#[inline(always)]
pub const fn point_of(sides: &Sides, began: Direction) -> u16 {
    match (sides.protocol, began) {
        (PROTO_ICMP | PROTO_ICMPV6, _) | (_, Direction::Egress) => sides.remote,
        (_, Direction::Ingress) => sides.local,
    }
}

/// What a type of ICMP is.
enum Kind {
    Request,
    /// Answers requests of this type.
    Reply(u16),
    Error,
    Single,
}

#[inline(always)]
const fn request_v4(kind: u16) -> Kind {
    match kind {
        // Echo; timestamp; information; address mask.
        8 | 13 | 15 | 17 => Kind::Request,
        0 => Kind::Reply(8),
        14 | 16 | 18 => Kind::Reply(kind - 1),
        // Unreachable; source quench; time exceeded; parameter problem. Not redirect: it changes routes.
        3 | 4 | 11 | 12 => Kind::Error,
        _ => Kind::Single,
    }
}

#[inline(always)]
const fn request_v6(kind: u16) -> Kind {
    match kind {
        128 => Kind::Request,
        129 => Kind::Reply(128),
        // Unreachable; too big; time exceeded; parameter problem.
        1..=4 => Kind::Error,
        _ => Kind::Single,
    }
}

#[inline(always)]
const fn icmp(upper: &Upper, direction: Direction, kind: Kind) -> Identity {
    let is_egress = matches!(direction, Direction::Egress);
    let (request, asks, begins) = match kind {
        Kind::Request => (upper.point, is_egress, true),
        Kind::Reply(request) => ((request << 8) | (upper.point & 0xff), !is_egress, false),
        Kind::Error => return Identity::Error,
        Kind::Single => return Identity::Single,
    };
    Identity::Tracked {
        sides: Sides {
            local: upper.source,
            remote: request,
            protocol: upper.protocol,
            asks: asks as u8,
        },
        tracking: Tracking::Query,
        begins,
    }
}
