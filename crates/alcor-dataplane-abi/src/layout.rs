//! Map keys and values of the kernel data plane.
//!
//! Every type is `repr(C)`, without padding (asserted below) and valid for any bytes, so that a map entry is
//! the bytes of the value. A change of anything here, or of a map's size, needs a new [`LAYOUT`].

use crate::{connection::Direction, gateway::MAX_GATEWAYS};

/// Number of this layout. Pinned maps of another layout are not reused.
pub const LAYOUT: u32 = 9;

/// Networks on a host.
pub const MAX_NETWORKS: u32 = 4096;
/// Subnets on a host.
pub const MAX_SUBNETS: u32 = 16_384;
/// Subnets, and what routers lead to, all networks together.
pub const MAX_ROUTES: u32 = 1 << 17;
/// Sets of gateways on a host: one a network, and one that takes another one's place.
pub const MAX_GATEWAY_SETS: u32 = MAX_NETWORKS + 1;
/// Labels in terms of other networks' labels.
pub const MAX_TRANSLATIONS: u32 = 1 << 18;
/// Local ports on a host.
pub const MAX_PORTS: u32 = 4096;
/// Neighbours on a host, all networks together, unless the loader is told otherwise.
pub const MAX_NEIGHBOURS: u32 = 1 << 20;
/// Fixed IPs of all local ports.
pub const MAX_FIXED_IPS: u32 = 65_536;
/// Floating IPs that the host translates.
pub const MAX_FLOATING_IPS: u32 = 65_536;
/// Allowed address pairs of all local ports.
pub const MAX_PAIRS: u32 = 65_536;
/// Parts of rows kept for the agent that starts again: all rows but neighbours.
pub const MAX_ROW_PARTS: u32 = 1 << 20;
/// Bytes of one part.
pub const PART_BYTES: usize = 1008;
/// Parts of one row.
pub const MAX_PARTS_PER_ROW: u32 = 8192;
/// Blocks of tunnel addresses, all networks together.
pub const MAX_UNDERLAY: u32 = 65_536;
/// Services of all sets of rules together, as prefixes of (protocol, point).
pub const MAX_SERVICES: u32 = 1 << 19;
/// Prefixes of all sets of rules together.
pub const MAX_PREFIXES: u32 = 1 << 19;
/// Labels of all sets of rules together.
pub const MAX_LABELS: u32 = 1 << 18;
/// Words of bits of all sets of rules together.
pub const MAX_BITS: u32 = 1 << 18;
/// Connections of one port that were answered and are not over. One more, and the kernel forgets one that was not
/// used for long.
pub const ANSWERED_PER_PORT: u32 = 16_384;
/// Other connections of one port (opening, over, revoked) and packets whose later fragments are waited for; one
/// more, and the kernel forgets one that was not used for long. So a flood forgets the flood.
pub const PENDING_PER_PORT: u32 = 4096;
/// Bytes of a frame that is handed to the agent; what lies behind is cut off. Of a frame that would be held and is longer
/// the agent gets nothing but the address: more than this cannot be put back on its way.
pub const PUNT_BYTES: usize = 3072;
/// In [`EventHeader::kind`]: the frame is to an unresolved address and longer than [`PUNT_BYTES`]; it is not handed up, and lost.
pub const EVENT_TOO_LONG: u32 = 1 << 16;
/// Bytes of the ring that carries events to the agent; an event that finds it full is lost.
pub const EVENT_RING_BYTES: u32 = 1 << 21;
/// Packets that are handed up for a port per second, but for those of unresolved addresses.
pub const PUNTS_PER_SECOND: u64 = 200;
/// Such packets at once.
pub const PUNT_BURST: u64 = 400;
/// Packets to unresolved addresses that are handed up for a port per second.
pub const UNRESOLVED_PER_SECOND: u64 = 1000;
/// Such packets at once.
pub const UNRESOLVED_BURST: u64 = 2000;

/// Address family of [`IpKey`] and others: IPv4, the address is in the first four bytes, the rest is 0.
pub const IPV4: u32 = 4;
/// Address family: IPv6.
pub const IPV6: u32 = 6;

/// [`PortValue::flags`]: the port is up.
pub const PORT_UP: u16 = 1;
/// [`PortValue::flags`]: check sources.
pub const PORT_SECURITY: u16 = 1 << 1;
/// [`PortValue::flags`]: the agent answers its DHCPv4 messages.
pub const PORT_DHCP4: u16 = 1 << 2;
/// [`PortValue::flags`]: the agent answers its router solicitations.
pub const PORT_RA: u16 = 1 << 3;
/// [`PortValue::flags`]: it has allowed address pairs.
pub const PORT_PAIRS: u16 = 1 << 4;
/// [`PortValue::flags`], [`LocalMac::flags`]: the device is one end of a veth pair whose other end is in another
/// network namespace, so a packet may be put there directly.
pub const PORT_PEER: u16 = 1 << 5;

/// [`NetworkValue::flags`]: the network is up.
pub const NETWORK_UP: u32 = 1;
/// [`NetworkValue::flags`]: tunnel packets are believed from its underlay blocks only.
pub const NETWORK_UNDERLAY: u32 = 1 << 1;
/// [`NetworkValue::flags`]: addresses that no row tells are asked for.
pub const NETWORK_ON_DEMAND: u32 = 1 << 2;

/// [`FloatingOut::flags`]: it has a block.
pub const FLOATING_NEAR: u32 = 1;

/// [`NeighbourValue::flags`], [`RemoteMac::flags`]: the port was on this host; what still comes for it is passed on.
pub const NEIGHBOUR_FORWARD: u16 = 1;

/// Bit of the group-policy word of a packet that another host has passed on ("don't learn" of the header).
pub const GBP_FORWARDED: u32 = 1 << 22;

/// [`FilterValue::flags`]: connections are tracked.
pub const FILTER_STATEFUL: u16 = 1;

/// [`ConnectionKey::kind`]: a connection.
pub const KIND_CONNECTION: u8 = 0;
/// [`ConnectionKey::kind`]: the first fragment of a packet; the value is a [`FragmentValue`].
pub const KIND_FRAGMENT: u8 = 1;

/// Bits of a word of a set's rows.
pub const WORD_BITS: u32 = 64;
/// Words of a row: more than [`MAX_CLASSES`] bits.
pub const WORDS_PER_ROW: u32 = 32;
/// Classes of one table of rules.
pub const MAX_CLASSES: u32 = WORD_BITS * WORDS_PER_ROW;

/// Bits of a [`ServiceKey`].
pub const SERVICE_BITS: u32 = 64;
/// Bits of a [`ServiceKey`] before the point.
pub const SERVICE_SCOPE_BITS: u32 = 48;
/// Bits of a [`ServiceKey`] before the protocol.
pub const SERVICE_TABLE_BITS: u32 = 40;
/// Bits of a [`PrefixKey`] before the address.
pub const PREFIX_SCOPE_BITS: u32 = 64;

/// Which table of a set judges packets of this direction and family.
#[inline(always)]
pub const fn rule_table(direction: Direction, family: u32) -> u32 {
    direction as u32 * 2 + (family == IPV6) as u32
}

/// `kind` of a verdict that a traced program tells (high 16 bits of the first word; low 16: the reason).
pub mod verdict {
    /// Dropped.
    pub const DROP: u32 = 1;
    /// Handed to the agent.
    pub const PUNT: u32 = 2;
    /// Sent back.
    pub const REPLY: u32 = 3;
    /// Out of a local device.
    pub const DELIVER: u32 = 5;
    /// Into the tunnel.
    pub const TUNNEL: u32 = 6;
    /// Into the tunnel again, to where the receiver went.
    pub const FORWARD: u32 = 7;
    /// Out of a device that leads to an external network.
    pub const EXTERNAL: u32 = 8;
    /// Left to the host's own stack.
    pub const PASS: u32 = 9;
}

macro_rules! layouts {
    ($($(#[$meta:meta])* $name:ident ($size:literal) { $($(#[$field_meta:meta])* $field:ident: $type:ty,)+ })+) => {
        $(
            $(#[$meta])*
            #[repr(C)]
            #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
            pub struct $name { $($(#[$field_meta])* pub $field: $type),+ }
            const _: () = assert!(
                core::mem::size_of::<$name>() == $size && 0 $(+ core::mem::size_of::<$type>())+ == $size
            );
        )+
    };
}

pub(crate) use layouts;

layouts! {
    /// A MAC in a network, or of a port.
    MacKey(12) {
        /// Handle of the network or the port.
        scope: u32,
        /// The address.
        mac: [u8; 6],
        /// Zero.
        pad: [u8; 2],
    }
    /// An address in a network, or of a port. As key of a prefix trie the prefix counts from the scope.
    IpKey(24) {
        /// Handle of the network or the port.
        scope: u32,
        /// [`IPV4`] or [`IPV6`].
        family: u32,
        /// The address.
        ip: [u8; 16],
    }
    /// A MAC and an address that a port may send from; key of a prefix trie.
    PairKey(28) {
        /// Handle of the port.
        port: u32,
        /// The MAC.
        mac: [u8; 6],
        /// [`IPV4`] or [`IPV6`].
        family: u16,
        /// The address.
        ip: [u8; 16],
    }
    /// What a device's port is; the key is the interface index.
    PortValue(52) {
        /// The port's id.
        id: [u8; 16],
        /// Handle of its network.
        network: u32,
        /// Its own handle: 1 to [`MAX_PORTS`].
        port: u32,
        /// Its MAC.
        mac: [u8; 6],
        /// `PORT_*`.
        flags: u16,
        /// Its first IPv4 address, which is most ports' only one; 0 for none. All of them are in a table of their own.
        ipv4: [u8; 4],
        /// Its first IPv6 address, likewise.
        ipv6: [u8; 16],
    }
    /// A network; the key is its handle.
    NetworkValue(16) {
        /// Its number in the tunnel.
        vni: u32,
        /// Largest IP packet, in bytes.
        mtu: u32,
        /// `NETWORK_*`.
        flags: u32,
        /// Number of the set of its gateways; 0 for none.
        gateways: u32,
    }
    /// A way out; the key is the block of the sources that take it.
    WayOut(20) {
        /// Tunnel address of the gateway that owns it.
        owner: [u8; 16],
        /// Family of that; 0: it has no gateways.
        family: u32,
    }
    /// How packets of a fixed IP leave from its floating IP; the key is its address in its network.
    FloatingOut(24) {
        /// Interface index of the device that they leave by.
        ifindex: u32,
        /// The floating IP.
        address: [u8; 4],
        /// With [`FLOATING_NEAR`]: the block whose addresses are neighbours there.
        block: [u8; 4],
        /// Which bits of the block count.
        mask: [u8; 4],
        /// Where all else goes; zeroes: nowhere.
        nexthop: [u8; 4],
        /// [`FLOATING_NEAR`].
        flags: u32,
    }
    /// A floating IP, as the device that leads to its external network meets it.
    FloatingKey(8) {
        /// Interface index of the device.
        ifindex: u32,
        /// The floating IP.
        address: [u8; 4],
    }
    /// Where a floating IP leads.
    FloatingIn(16) {
        /// Handle of its network.
        network: u32,
        /// The fixed IP.
        fixed_ip: [u8; 4],
        /// MAC of the device.
        mac: [u8; 6],
        /// Zero.
        pad: [u8; 2],
    }
    /// A gateway of a set.
    GatewayMember(32) {
        /// Its key in the choice of a member.
        key: u64,
        /// Its tunnel address.
        host: [u8; 16],
        /// Family of that.
        family: u32,
        /// Zero.
        pad: u32,
    }
    /// A set of gateways, whichever networks have it; the key is its number.
    GatewaySet(520) {
        /// As rows name them; zeroes behind `count`.
        members: [GatewayMember; MAX_GATEWAYS],
        /// How many there are.
        count: u32,
        /// Zero.
        pad: u32,
    }
    /// Where a MAC of this host is.
    LocalMac(12) {
        /// Interface index; 0 when the port has no device.
        ifindex: u32,
        /// Handle of the port.
        port: u32,
        /// [`PORT_UP`], [`PORT_PEER`].
        flags: u32,
    }
    /// Whose a fixed IP of this host is.
    LocalIp(8) {
        /// The port's MAC.
        mac: [u8; 6],
        /// Zero.
        pad: [u8; 2],
    }
    /// Where a packet to the gateway goes; the key is its destination in its network.
    RouteValue(24) {
        /// Handle of the network in which it goes on; 0 for one that is not on this host.
        network: u32,
        /// Family of the next hop; 0: the destination itself.
        family: u32,
        /// The next hop.
        hop: [u8; 16],
    }
    /// A label in terms of another network. Each network has entries of its own for both ways.
    TranslationKey(12) {
        /// Handle of the network that packets come from.
        own: u32,
        /// Handle of the network that they go to.
        peer: u32,
        /// The label.
        label: u16,
        /// 0: a label of `own`, the value is one of `peer`; 1: the other way round.
        back: u16,
    }
    /// Where an address of another host is.
    NeighbourValue(32) {
        /// The other host's tunnel address.
        host: [u8; 16],
        /// Its family.
        family: u16,
        /// [`NEIGHBOUR_FORWARD`].
        flags: u16,
        /// MAC of the neighbour.
        mac: [u8; 6],
        /// Label of its security groups.
        label: u16,
        /// The time of use (the number in map `use_time`) when a packet used the row last; 0 for never. Programs write it
        /// once each such time, so that processors share the row.
        used: u32,
    }
    /// Where a MAC of another host is.
    RemoteMac(28) {
        /// The other host's tunnel address.
        host: [u8; 16],
        /// Its family.
        family: u16,
        /// [`NEIGHBOUR_FORWARD`].
        flags: u16,
        /// Label of its security groups.
        label: u16,
        /// Zero.
        pad: u16,
        /// As in [`NeighbourValue`], for all rows with this MAC.
        used: u32,
    }
    /// Key of a part of a kept row.
    KeptKey(44) {
        /// 1 network, 2 subnet, 3 port, 4 policy, 5 label, 6 router, 7 floating IP.
        kind: u32,
        /// The network that the row lies in.
        network: [u8; 16],
        /// The row's id in it.
        id: [u8; 16],
        /// Which writing of the row: another one each time. The newest that is whole counts.
        version: u32,
        /// Which part; the first one is written last.
        part: u32,
    }
    /// A part of a kept row, as the loader wrote it.
    KeptValue(1016) {
        /// Handle of the network or port.
        handle: u32,
        /// Bytes of the whole row.
        len: u32,
        /// The part.
        bytes: [u8; PART_BYTES],
    }
    /// How a port's packets are filtered; the key is the port's handle. No entry: they are not.
    FilterValue(8) {
        /// Number of the set of rules in force.
        epoch: u32,
        /// The port's own label.
        label: u16,
        /// [`FILTER_STATEFUL`].
        flags: u16,
    }
    /// What packets carry; key of a prefix trie, whose value is the class.
    ServiceKey(8) {
        /// Number of the set.
        epoch: u32,
        /// A [`rule_table`].
        table: u8,
        /// IP protocol.
        protocol: u8,
        /// The point, big end first.
        point: [u8; 2],
    }
    /// Who the other side is; key of a prefix trie, whose value is the number of a row of bits.
    PrefixKey(24) {
        /// Number of the set.
        epoch: u32,
        /// A [`rule_table`].
        table: u32,
        /// The address; IPv4 in the first four bytes.
        ip: [u8; 16],
    }
    /// The other side's label; the value is the number of a row of bits.
    LabelKey(8) {
        /// Number of the set.
        epoch: u32,
        /// A [`rule_table`].
        table: u16,
        /// The label.
        label: u16,
    }
    /// A word of a row of bits: one bit for each class that is allowed. Words that are 0 are missing.
    BitsKey(8) {
        /// Number of the set.
        epoch: u32,
        /// Number of the row times [`WORDS_PER_ROW`], plus the word's place.
        place: u32,
    }
    /// A connection of a port, or a packet whose later fragments are waited for.
    ConnectionKey(40) {
        /// The port's address. Of fragments: the source.
        own: [u8; 16],
        /// The other side's address. Of fragments: the destination.
        other: [u8; 16],
        /// As in `Sides`. Of fragments: the higher half of the packet's id.
        local: u16,
        /// As in `Sides`. Of fragments: the lower half.
        remote: u16,
        /// IP protocol; 0 for IPv6 fragments.
        protocol: u8,
        /// As in `Sides`.
        asks: u8,
        /// [`IPV4`] or [`IPV6`].
        family: u8,
        /// [`KIND_CONNECTION`] or [`KIND_FRAGMENT`].
        kind: u8,
    }
    /// What later fragments of a packet need of the first one.
    FragmentValue(16) {
        /// When they are not waited for any more.
        expires_ns: u64,
        /// As in `Upper`.
        source: u16,
        /// As in `Upper`.
        point: u16,
        /// As in `Upper`.
        protocol: u8,
        /// Zero.
        pad: [u8; 3],
    }
    /// What every event starts with.
    EventHeader(52) {
        /// A `PuntReason`, and [`EVENT_TOO_LONG`].
        kind: u32,
        /// Bytes of the frame that follows.
        len: u32,
        /// The port that sent.
        port: [u8; 16],
        /// Handle of its network, or of the one that the unresolved address is in.
        network: u32,
        /// Family of the address that is unresolved.
        family: u32,
        /// The address.
        ip: [u8; 16],
        /// What a packet that is too big must fit.
        mtu: u32,
    }
    /// A packet for the agent.
    PuntEvent(3124) {
        /// What it is.
        header: EventHeader,
        /// Its first bytes; the event ends behind them.
        frame: [u8; PUNT_BYTES],
    }
    /// Tokens of a port's events.
    Meter(16) {
        /// When tokens were last added, in ns since boot.
        last_ns: u64,
        /// How many there are.
        tokens: u64,
    }
    /// Drops of one port by `DropReason`.
    Counters(512) {
        /// By number of the reason.
        by_reason: [u64; crate::DROP_REASONS],
    }
}

impl PortValue {
    /// True for the first address of a family. So most packets' source is found without the table of all.
    #[inline(always)]
    pub fn is_first(&self, family: u32, ip: &[u8; 16]) -> bool {
        if family == IPV4 {
            let ip = [ip[0], ip[1], ip[2], ip[3]];
            self.ipv4 != [0; 4] && self.ipv4 == ip
        } else {
            self.ipv6 != [0; 16] && self.ipv6 == *ip
        }
    }
}
