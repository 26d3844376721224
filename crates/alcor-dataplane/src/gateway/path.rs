//! The path of a packet through a gateway, stage by stage. This text is the specification; the model implements it, the kernel program is
//! compared with the model.
//!
//! # Lookups
//! - The gateway has one *tunnel address* (IPv4), and devices that lead to the underlay, to the outside, or to both.
//! - `peer(network, ip)`: the neighbour row.
//! - `owned(router)`: a row of the router that is up has a way out, and of the gateways that it names this one is chosen
//!   ([`choose`](alcor_dataplane_abi::gateway::choose), key: the router's id). Rows of a router in different networks say the same; where
//!   they do not yet, the first by network counts.
//! - `floating(network, ip)`: the floating IP row with this fixed IP. `external(ip)`: the floating IP row with this address whose `host` is
//!   none, or the router whose way out has it. A row with a host is that host's to answer for: here it is translated by only what the host
//!   still sent this way.
//! - `router(network, ip)`: of the routers of the network that are up and have a way out with an address, one that has an interface in
//!   this network whose block has the address: the longest block, of equals the lowest id.
//!
//! What is *passed* is left to the node's own stack, unchanged. What is sent *into the underlay* or *to the outside* goes where the
//! node's routes lead, out of a device of that kind only; there is no such route: `NoRoute`; the packet is longer than the way
//! takes: a tenant whose packet must not be fragmented is *told* "fragmentation needed", else `Oversize`, as the gateway never fragments; the next hop's MAC is not known: the node's own stack asks for it and forwards. A *reply* goes out of the device that its
//! question came from, to the MAC that sent it. Nothing is ever held, and nothing flooded.
//!
//! # Where a frame belongs
//! From a device to the underlay, IPv4 to the tunnel address: *from the underlay*. From a device to the outside, ARP, IPv4, or a VLAN tag: *from the outside*.
//! Anything else, and what is shorter than the headers that tell: passed. Bytes behind the end of a packet, or of the datagram that it came in, are carried along.
//!
//! # From the underlay
//! 1. Not UDP, or a later fragment: passed. A header with options, or without room for UDP's: `Malformed`. Neither to the port of
//!    VXLAN nor to that of probes (where probes are answered): passed. A first fragment: `UnknownFragment`. 8 <= UDP length, header
//!    and UDP length <= total length <= bytes present, and the header's checksum is right, else `Malformed`.
//! 2. **Probe**: its source port is that of probes or of VXLAN: `Loop`, as two gateways would send it to and fro for ever. Else a reply: addresses and ports
//!    change places, TTL 64, payload as it came.
//! 3. **VXLAN**: less than 8 bytes, or no identifier: `Malformed`. No network row with this VNI: `UnknownVni`. The outer source is in none of
//!    the network's underlay blocks (when it has any said): `UnknownUnderlay`. Network down: `PortDown`. Shorter than an Ethernet header: `Malformed`. Inner
//!    destination MAC is a group address: `NoFlood`. Neither IPv4 nor IPv6: `UnsupportedEtherType`: ARP and ND of the overlay are the hosts' job.
//!    IPv4: version 4, IHL >= 5, IHL*4 <= total length <= bytes of the datagram; IPv6: version 6, 40 bytes and the payload length there; else
//!    `Malformed`. To a group of stations: `NoFlood`.
//! 4. **East-west**, inner destination MAC is not the gateway MAC: no `peer`: `UnknownDestination`. Its host is this gateway or the one that the
//!    packet came from: `Loop`. Else into the underlay: outer source is the tunnel address, outer destination the host, TTL 64, UDP checksum 0 (RFC 6935), inner
//!    destination MAC the neighbour's; all else as it came, the label and all flags too.
//! 5. **North**, to the gateway MAC: IPv6: `NoRoute`. IPv4: the rest of this text calls the inner packet *the packet*; it must be as "Packets that
//!    are translated" says. To the tunnel address or one of the network's underlay blocks: `NoRoute`, tenants do not reach hosts.
//!    `floating(network, source)`: of a router that is not `owned`: `NotOwner`; else the floating IP becomes the source. No floating IP: no
//!    `router(network, source)`: `NoRoute`; not `owned`: `NotOwner`; no source NAT: `NoRoute`; else source NAT. Then, if the destination is an
//!    `external` address of a router that is `owned`: as from the outside, at once, but nothing is answered (a *hairpin*). Else to the outside. The TTL stays: the
//!    host has counted.
//!
//! # From the outside
//! 1. **ARP**: a request (Ethernet and IPv4) for an `external` address of a router that is `owned`: a reply with the device's MAC, of the same length. Else passed.
//! 2. IPv4 to an address that is not `external`, or of a router that is not `owned`: passed, unless the device leads to the outside only. From there the
//!    node's own stack, which forwards for the gateway, would carry what hosts take for the gateway's own word: from the tunnel address: `OutsideDenied`;
//!    what the node would send on by anything but a device that leads to the outside only: `OutsideDenied` too. A VLAN tag of number 0, behind which the stack
//!    sees what this text does not: `UnsupportedEtherType`. All else never reaches the node's own stack: a header with
//!    a wrong checksum, a total length below the header's or beyond the bytes present: `Malformed`; and as "Packets that are translated" says.
//! 3. An echo request to a router's own address, whole: a reply with TTL 64.
//! 4. TTL 0 or 1: *told* "time exceeded", else `Loop`. Of a floating IP: the fixed IP becomes the destination. Of a router: the connection's inside, or `NoTranslation`.
//!    The network of it is not there: `NoTranslation`; is down: `PortDown`. Longer than the network's MTU: *told* "fragmentation needed" when it must not be fragmented, else
//!    `Oversize`. No `peer`: `UnknownDestination`; it is on this gateway: `Loop`.
//! 5. TTL - 1, Ethernet header from the gateway MAC to the neighbour's, VXLAN with the network's VNI and no label, UDP from [`tunnel_port`](alcor_dataplane_abi::gateway_layout::tunnel_port) of
//!    the addresses, checksum 0, IPv4 from the tunnel address with TTL 64, the packet's TOS, not to be fragmented: into the underlay.
//!
//! *Told*: ICMP about a packet, with the header and the next 8 bytes of the packet as it came, TTL 64, not to be fragmented. To the outside: a reply, from the packet's
//! destination to its source. To a tenant: from the address that the `router` of the tenant has in that block (there is none: `Oversize`), into the tunnel as stages 4
//! and 5 say, with this TTL. Not of a hairpin, of a later fragment, of a packet of less than 28 bytes, of an ICMP message that is not a request or answer of a
//! query, nor to a source that is no single station (0/8, 127/8, 224/3). All that are sent pass one [meter](alcor_dataplane_abi::gateway_layout::IcmpMeter): too many
//! lately: `IcmpLimit`.
//!
//! # Packets that are translated
//! A header with options: `Malformed`. A whole packet or a first fragment whose upper layer is cut short (20 bytes of TCP; 8 of UDP, UDP-Lite, SCTP, DCCP, ICMP):
//! `Malformed`. An address that changes is changed in the header's checksum and in those of TCP, UDP (unless it is 0), UDP-Lite and DCCP, by the difference (RFC 1624): what was wrong
//! stays wrong. Of later fragments only the header is changed.
//!
//! **Floating IPs** are one to one and remember nothing. An ICMP error quotes a packet of the other direction, in which the same address is changed; the
//! quoted packet has no such address, or cannot be read: `NoTranslation`.
//!
//! **Source NAT** remembers connections (TCP, UDP, ICMP queries; other protocols: `NoTranslation`), as [`identify`](alcor_dataplane_abi::flow::identify) and
//! [`step`](alcor_dataplane_abi::connection::step) say; what goes north is egress. The key is the network, both addresses, the tenant's and the other side's port or the query. From inside: a
//! connection that is known, with the router's present address, keeps its outside port; one that has another address of before is forgotten. A new one, which not every packet may begin (an answer to a query does not), takes
//! the first port of [`nat_port`](alcor_dataplane_abi::gateway_layout::nat_port) that no connection of this address with the same other side has, in [`NAT_PORT_TRIES`](alcor_dataplane_abi::gateway_layout::NAT_PORT_TRIES) turns: none:
//! `NatPortsExhausted`. The router has as many connections as it may have
//! ([`nat_limit`](alcor_dataplane_abi::gateway_layout::nat_limit) of what is free for all routers): `NatConnectionLimit`. From outside: only what `step` passes of a connection that lives; nothing from
//! outside begins anything, else `NoTranslation`. A connection that is over keeps its port until it is swept, which happens some time after it expired; what its
//! beginner sends before that begins it anew, with the same port. An ICMP error belongs to the connection that it quotes, and keeps nothing alive. Connections of a
//! network go with it, and those of a router with its last row. A first fragment goes the way of its connection, and the addresses that it gets are remembered for
//! [`FRAGMENT`](alcor_dataplane_abi::connection::FRAGMENT) by network (from outside: none), addresses as it came, identification and protocol, for the newest
//! [`MAX_NAT_FRAGMENTS`](alcor_dataplane_abi::gateway_layout::MAX_NAT_FRAGMENTS) packets; later fragments get the same, while the router is the same one and has
//! the same address. Those that nothing is remembered for, or that come before the first: `UnknownFragment`. The identification stays: two tenants behind one address
//! whose packets to one station have the same one at the same time are mixed up there, and what they carry has a wrong checksum.
//!
//! An error (ICMP 3, 4, 11, 12) counts as one only when it is whole and quotes an IPv4 header without options that is no later fragment's, and 8 bytes more; else `NoTranslation`.
