//! What kernel programs, their loader, the model data plane and tests must agree on, to the byte: reasons,
//! map keys and values, and small pure helpers (addresses, checksums).
//!
//! `no_std`, no dependencies, no allocation: it is compiled for the bpf target too. It decides nothing: the
//! path of a packet is written twice on purpose (model and kernel programs) and compared by tests.
#![no_std]

pub mod connection;
pub mod flow;
pub mod gateway;
pub mod gateway_layout;
pub mod icmp;
pub mod layout;

/// Declares a `u32` enum whose variants have a stable snake_case text for counters, logs and the API.
macro_rules! reasons {
    ($(#[$meta:meta])* $name:ident { $($variant:ident = $value:literal => $text:literal),+ $(,)? }) => {
        $(#[$meta])*
        #[repr(u32)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name { $(#[doc = $text] $variant = $value),+ }
        impl $name {
            /// All variants.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];
            /// Stable text.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text),+ }
            }
            /// Reads the number that a map or an event carries.
            pub const fn from_u32(value: u32) -> Option<Self> {
                match value { $($value => Some(Self::$variant),)+ _ => None }
            }
        }
    };
}

reasons! {
    /// Why a packet was dropped. Numbers are part of the map layout: add at the end, never reuse.
    DropReason {
        UnknownPort = 1 => "unknown_port",
        PortDown = 2 => "port_down",
        Malformed = 3 => "malformed",
        SpoofedMac = 4 => "spoofed_mac",
        SpoofedIp = 5 => "spoofed_ip",
        SpoofedArp = 6 => "spoofed_arp",
        SpoofedNd = 7 => "spoofed_nd",
        DhcpServer = 8 => "dhcp_server",
        RouterAdvertisement = 9 => "router_advertisement",
        UnsupportedEtherType = 10 => "unsupported_ethertype",
        NoFlood = 11 => "no_flood",
        OwnAddress = 12 => "own_address",
        UnknownDestination = 13 => "unknown_destination",
        NoRoute = 14 => "no_route",
        ToGateway = 15 => "to_gateway",
        Oversize = 16 => "oversize",
        UnknownVni = 17 => "unknown_vni",
        NoLocalPort = 18 => "no_local_port",
        ArpIgnored = 19 => "arp_ignored",
        NdIgnored = 20 => "nd_ignored",
        PuntLimit = 21 => "punt_limit",
        Internal = 22 => "internal",
        Loop = 23 => "loop",
        EgressDenied = 24 => "egress_denied",
        IngressDenied = 25 => "ingress_denied",
        UnknownFragment = 26 => "unknown_fragment",
        ConnectionLimit = 27 => "connection_limit",
        UnknownUnderlay = 28 => "unknown_underlay",
        NoGateway = 29 => "no_gateway",
        NotOwner = 30 => "not_owner",
        NoTranslation = 31 => "no_translation",
        NatPortsExhausted = 32 => "nat_ports_exhausted",
        NatConnectionLimit = 33 => "nat_connection_limit",
        OutsideDenied = 34 => "outside_denied",
        IcmpLimit = 35 => "icmp_limit",
    }
}

reasons! {
    /// Why a packet goes to the agent instead of on its way.
    PuntReason {
        Dhcp4 = 1 => "dhcp4",
        RouterSolicitation = 2 => "router_solicitation",
        TtlExceeded = 3 => "ttl_exceeded",
        Unresolved = 4 => "unresolved",
        TooBig = 5 => "too_big",
    }
}

/// Room for drop counters: one more than the largest [`DropReason`], rounded up.
pub const DROP_REASONS: usize = 64;

/// The fold of the Internet checksum (RFC 1071): adds the carries back until 16 bits are left.
#[inline(always)]
pub const fn csum_fold(mut sum: u32) -> u16 {
    sum = (sum & 0xffff) + (sum >> 16);
    sum = (sum & 0xffff) + (sum >> 16);
    !(sum as u16)
}

/// The checksum after one 16-bit word changed from `old` to `new` (RFC 1624, equation 3).
#[inline(always)]
pub const fn csum_replace(check: u16, old: u16, new: u16) -> u16 {
    csum_fold((!check as u32 & 0xffff) + (!old as u32 & 0xffff) + new as u32)
}

/// The fe80::/64 address that a station with this MAC forms by EUI-64 (RFC 4291, appendix A).
#[inline(always)]
pub const fn link_local(mac: [u8; 6]) -> [u8; 16] {
    [
        0xfe,
        0x80,
        0,
        0,
        0,
        0,
        0,
        0,
        mac[0] ^ 2,
        mac[1],
        mac[2],
        0xff,
        0xfe,
        mac[3],
        mac[4],
        mac[5],
    ]
}
