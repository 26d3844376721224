//! Map keys and values of a gateway's kernel program, and what it shares with the model: ports, limits, and how an outside
//! port is looked for.
//!
//! As in [`crate::layout`], every type is `repr(C)`, without padding and valid for any bytes. A change of anything here, or
//! of a map's size, needs a new [`GATEWAY_LAYOUT`].

use crate::{
    connection::{Connection, SECOND},
    gateway::key,
    layout::layouts,
};

/// Number of this layout. Pinned maps of another layout are not reused.
pub const GATEWAY_LAYOUT: u32 = 4;

/// UDP port of VXLAN (RFC 7348).
pub const VXLAN_PORT: u16 = 4789;
/// UDP port of probes, which gateways send back to whoever sent them (BFD echo, RFC 5881, section 4).
pub const PROBE_PORT: u16 = 3785;
/// Bytes before the inner frame: IPv4, UDP and VXLAN headers.
pub const VXLAN_OVERHEAD: usize = 20 + 8 + 8;
/// First byte of a VXLAN header: the identifier is there.
pub const VXLAN_HAS_VNI: u8 = 0x08;
/// TTL of what a gateway sends into the underlay, and of its own answers.
pub const GATEWAY_TTL: u8 = 64;

/// Neighbours on a gateway, all networks together and for each family, unless the loader is told otherwise.
pub const MAX_GATEWAY_NEIGHBOURS: u32 = 1 << 21;
/// Networks on a gateway.
pub const MAX_GATEWAY_NETWORKS: u32 = 1 << 16;
/// Routers on a gateway; numbers of routers are below.
pub const MAX_GATEWAY_ROUTERS: u32 = 1 << 14;
/// Devices of a gateway.
pub const MAX_GATEWAY_DEVICES: u32 = 64;
/// Blocks of tunnel addresses on a gateway, all networks together.
pub const MAX_GATEWAY_UNDERLAY: u32 = 1 << 19;
/// External addresses on a gateway: floating IPs and routers' own.
pub const MAX_EXTERNAL_ADDRESSES: u32 = 1 << 17;
/// Blocks behind routers that have a way out, all networks together.
pub const MAX_NAT_BLOCKS: u32 = 1 << 17;
/// Connections that a gateway translates, all routers together.
pub const MAX_NAT_CONNECTIONS: u32 = 1 << 20;
/// Most connections that are translated for one router, unless the loader is told otherwise.
pub const NAT_CONNECTIONS_PER_ROUTER: u64 = 1 << 16;
/// A router may have this part of the connections that are free, so that no few of them take all.
pub const NAT_SHARE: u64 = 4;
/// Connections that a router may have however few are free, as long as there is one: what all routers together may have.
pub const NAT_FLOOR: u64 = MAX_NAT_CONNECTIONS as u64 / MAX_GATEWAY_ROUTERS as u64;
/// Fragmented packets behind source NAT whose later fragments are waited for, of all routers together; those that nothing was heard of for
/// longest go first.
pub const MAX_NAT_FRAGMENTS: u32 = 1 << 14;
/// ICMP errors that a gateway sends per second in the long run (RFC 1812, section 4.3.2.8, wants a limit).
pub const ICMP_ERRORS_PER_S: u64 = 1000;
/// ICMP errors that a gateway sends at once.
pub const ICMP_ERROR_BURST: u64 = 1000;
/// Where counters by number of the router have all routers together; no router has this number.
pub const NAT_ALL: u32 = 0;
/// The least outside port that is given to a connection.
pub const NAT_FIRST_PORT: u16 = 1024;
/// Outside ports that are tried for a connection before it is refused.
pub const NAT_PORT_TRIES: u32 = 32;

/// [`DeviceValue::flags`]: hosts are there.
pub const DEVICE_UNDERLAY: u32 = 1;
/// [`DeviceValue::flags`]: the outside is there.
pub const DEVICE_EXTERNAL: u32 = 1 << 1;

/// [`RouterValue::flags`]: this gateway is the one that translates for it.
pub const ROUTER_OWNED: u32 = 1;
/// [`RouterValue::flags`]: tenants' addresses are hidden behind the router's.
pub const ROUTER_SNAT: u32 = 1 << 1;

/// [`ExternalValue::kind`]: the router's own address.
pub const EXTERNAL_ROUTER: u32 = 1;
/// [`ExternalValue::kind`]: a floating IP.
pub const EXTERNAL_FLOATING: u32 = 2;

/// `kind` of a verdict that a traced program returns (high 16 bits; low 16: the reason of a drop, else the program's own).
pub mod verdict {
    /// Dropped.
    pub const DROP: u32 = 1;
    /// Left to the node's own stack.
    pub const PASS: u32 = 2;
    /// Sent back.
    pub const REPLY: u32 = 3;
    /// To a host.
    pub const UNDERLAY: u32 = 4;
    /// To the outside.
    pub const OUTSIDE: u32 = 5;
}

layouts! {
    /// A device; the key is the interface index.
    DeviceValue(12) {
        /// `DEVICE_*`.
        flags: u32,
        /// Its MAC.
        mac: [u8; 6],
        /// Zero.
        pad: [u8; 2],
    }
    /// An IPv4 address in a network. As key of a prefix trie the prefix counts from the network.
    Ipv4Key(8) {
        /// Handle of the network.
        network: u32,
        /// The address.
        ip: [u8; 4],
    }
    /// An IPv6 address in a network.
    Ipv6Key(20) {
        /// Handle of the network.
        network: u32,
        /// The address.
        ip: [u8; 16],
    }
    /// A network; the key is its VNI.
    VniValue(12) {
        /// Its handle.
        network: u32,
        /// `NETWORK_*`.
        flags: u32,
        /// Largest IP packet, in bytes.
        mtu: u32,
    }
    /// Where an address of a tenant is.
    PeerValue(16) {
        /// The host's tunnel address.
        host: [u8; 4],
        /// MAC of the neighbour.
        mac: [u8; 6],
        /// Label of its security groups.
        label: u16,
        /// `NEIGHBOUR_FORWARD`; kept for who asks, not looked at.
        flags: u16,
        /// Zero.
        pad: u16,
    }
    /// A router that has a way out; the key is its number.
    RouterValue(8) {
        /// Its address outside, or 0.
        address: [u8; 4],
        /// `ROUTER_*`; 0: it has no way out, or is down.
        flags: u32,
    }
    /// A block of a network behind a router; the key is the block.
    BlockValue(8) {
        /// Number of the router.
        router: u32,
        /// The router's address in it.
        address: [u8; 4],
    }
    /// What an external address leads to; the key is the address.
    ExternalValue(16) {
        /// `EXTERNAL_*`.
        kind: u32,
        /// Number of the router.
        router: u32,
        /// Of floating IPs: VNI of the network of the fixed IP.
        vni: u32,
        /// Of floating IPs: the fixed IP.
        fixed_ip: [u8; 4],
    }
    /// The floating IP of a fixed IP; the key is the fixed IP in its network.
    FloatingValue(8) {
        /// The floating IP.
        address: [u8; 4],
        /// Number of the router.
        router: u32,
    }
    /// A translated connection, from one of its two sides. From inside: the network, and the tenant's address and port are
    /// `own`. From outside: the router's address and the port that the connection was given are `own`, the VNI is 0.
    NatKey(20) {
        /// VNI of the network, or 0.
        vni: u32,
        /// Address of the inside.
        own: [u8; 4],
        /// Address of the outside.
        other: [u8; 4],
        /// As in `Sides`.
        local: u16,
        /// As in `Sides`.
        remote: u16,
        /// IP protocol.
        protocol: u8,
        /// As in `Sides`.
        asks: u8,
        /// Zero.
        pad: u16,
    }
    /// A translated connection; the key is its inside.
    NatValue(32) {
        /// What is known of it.
        connection: Connection,
        /// The router's address, which it has outside.
        address: [u8; 4],
        /// Number of the router.
        router: u32,
        /// The port that it has outside.
        port: u16,
        /// Zero.
        pad: [u8; 6],
    }
    /// Whose an outside port is; the key is the connection's outside.
    NatBack(12) {
        /// VNI of the tenant's network.
        vni: u32,
        /// The tenant's address.
        own: [u8; 4],
        /// The tenant's port.
        local: u16,
        /// Zero.
        pad: u16,
    }
    /// A fragmented packet behind source NAT, as it came.
    FragmentKey(16) {
        /// VNI of the tenant's network; of packets from outside 0.
        vni: u32,
        /// Its source.
        source: [u8; 4],
        /// Its destination.
        destination: [u8; 4],
        /// Its identification.
        id: u16,
        /// IP protocol.
        protocol: u8,
        /// Zero.
        pad: u8,
    }
    /// How later fragments of a packet are translated.
    FragmentValue(24) {
        /// When it is forgotten.
        expires_ns: u64,
        /// The router's address, which becomes the source; of packets from outside the tenant's, which becomes the destination.
        address: [u8; 4],
        /// Of packets from outside: VNI of the tenant's network. Else 0.
        vni: u32,
        /// Number of the router.
        router: u32,
        /// Zero.
        pad: u32,
    }
    /// How many ICMP errors were sent lately. Zeroes: none.
    IcmpMeter(16) {
        /// When the count was last lowered, in ns.
        last_ns: u64,
        /// The count: of errors sent, less what time has given back.
        count: u64,
    }
    /// Packets and bytes that went through, whole frames as they came.
    Load(64) {
        /// Packets from host to host.
        east_west_packets: u64,
        /// Their bytes.
        east_west_bytes: u64,
        /// Packets to the outside.
        north_packets: u64,
        /// Their bytes.
        north_bytes: u64,
        /// Packets from the outside.
        south_packets: u64,
        /// Their bytes.
        south_bytes: u64,
        /// Answers: ARP, ICMP.
        replies: u64,
        /// Probes that were sent back.
        probes: u64,
    }
}

impl IcmpMeter {
    /// Counts one error more, if it may be sent now: the meter then.
    #[inline(always)]
    pub const fn admit(self, now: u64) -> Option<Self> {
        let given_back = now.saturating_sub(self.last_ns) / (SECOND / ICMP_ERRORS_PER_S);
        let meter = if given_back > 0 {
            Self {
                last_ns: now,
                count: self.count.saturating_sub(given_back),
            }
        } else {
            self
        };
        if meter.count >= ICMP_ERROR_BURST {
            return None;
        }
        Some(Self {
            count: meter.count + 1,
            ..meter
        })
    }
}

impl NatKey {
    /// The outside of a connection whose inside this is.
    #[inline(always)]
    pub const fn outside(&self, address: [u8; 4], port: u16) -> Self {
        Self {
            vni: 0,
            own: address,
            other: self.other,
            local: port,
            remote: self.remote,
            protocol: self.protocol,
            asks: self.asks,
            pad: 0,
        }
    }

    /// The inside of a connection whose outside this is.
    #[inline(always)]
    pub const fn inside(&self, back: &NatBack) -> Self {
        Self {
            vni: back.vni,
            own: back.own,
            other: self.other,
            local: back.local,
            remote: self.remote,
            protocol: self.protocol,
            asks: self.asks,
            pad: 0,
        }
    }

    /// Where the search for an outside port begins.
    #[inline(always)]
    pub const fn port_seed(&self) -> u64 {
        let (a, b, n) = (self.own, self.other, self.vni.to_be_bytes());
        key(&[
            a[0],
            a[1],
            a[2],
            a[3],
            b[0],
            b[1],
            b[2],
            b[3],
            n[0],
            n[1],
            n[2],
            n[3],
            (self.remote >> 8) as u8,
            self.remote as u8,
            (self.local >> 8) as u8,
            self.local as u8,
        ])
    }
}

/// How many connections a router may have that may have `most` where there is room, while so many are free for all routers.
#[inline(always)]
pub const fn nat_limit(most: u64, free: u64) -> u64 {
    if free == 0 {
        return 0;
    }
    let share = free / NAT_SHARE;
    let share = if share < NAT_FLOOR { NAT_FLOOR } else { share };
    if share < most { share } else { most }
}

/// The outside port that is tried at this turn (from 0): first the tenant's own, then others, all of them between
/// [`NAT_FIRST_PORT`] and `last`.
#[inline(always)]
pub const fn nat_port(local: u16, seed: u64, turn: u32, last: u16) -> u16 {
    if turn == 0 && local >= NAT_FIRST_PORT && local <= last {
        return local;
    }
    let room = (last as u64 + 1).saturating_sub(NAT_FIRST_PORT as u64);
    if room == 0 {
        return last;
    }
    // An odd step visits many different ports: the whole room is 63 times a power of 2.
    let (begin, step) = (seed & 0xffff_ffff, (seed >> 32) | 1);
    NAT_FIRST_PORT + ((begin + turn as u64 * step) % room) as u16
}

/// The UDP source port of a VXLAN packet whose inner packet has this key: of the dynamic range (RFC 6335), so that paths
/// share the flows.
#[inline(always)]
pub const fn tunnel_port(flow: u64) -> u16 {
    0xc000 | (flow as u16 & 0x3fff)
}
