//! The path of a packet through a gateway, stage by stage. This text is the specification; the model implements it, the kernel program is
//! compared with the model.
//!
//! # Lookups
//! - The gateway has one *tunnel address* (IPv4), and devices that lead to the underlay, to the outside, or to both.
//! - `peer(network, ip)`: the neighbour row.
//! - `owned(router)`: a row of the router that is up has a way out, and of the gateways that it names this one is chosen
//!   ([`choose`](alcor_dataplane_abi::gateway::choose), key: the router's id). Rows of a router in different networks say the same; where
//!   they do not yet, the first by network counts.
//! - `floating(network, ip)`: the floating IP row with this fixed IP. `external(ip)`: the floating IP row with this address, or
//!   the router whose way out has it.
//! - `router(network, ip)`: of the routers of the network that are up and have a way out with an address, one that has an interface in
//!   this network whose block has the address: the longest block, of equals the lowest id.
//!
//! What is *passed* is left to the node's own stack, unchanged. What is sent *into the underlay* or *to the outside* goes where the
//! node's routes lead, out of a device of that kind only; there is no such route: `NoRoute`; the packet is longer than the way
//! takes: `Oversize`; the next hop's MAC is not known: the node's own stack asks for it and forwards. A *reply* goes out of the device that its
//! question came from, to the MAC that sent it. Nothing is ever held, and nothing flooded.
//!
//! # Where a frame belongs
//! From a device to the underlay, IPv4 to the tunnel address: *from the underlay*. From a device to the outside, ARP or IPv4: *from the outside*.
//! Anything else, and what is shorter than the headers that tell: passed.
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
//! 5. **North**, to the gateway MAC: IPv6: `NoRoute`. IPv4 as below.
