//! The path of a packet: what every data plane does with a frame, stage by stage. This text is the
//! specification; the model implements it, the kernel programs are compared with the model.
//!
//! # Lookups
//! - `port(device)`: the port row whose device it came from.
//! - `local(network, mac)`: a port row of this host. `fdb(network, mac)`: `local`, else the neighbour with this MAC.
//! - `neigh(network, ip)`: a local port's fixed IP, else the neighbour row. Local wins over remote.
//! - *Unknown* is an address that these do not find. In a network that is on demand it is `Unresolved`: punted with the
//!   address and the whole frame, for whoever asks for it and releases the frame then. A frame that was released and is unknown still,
//!   and any frame in another network: dropped as `UnknownDestination`. The neighbour row that a frame of a port is
//!   answered with (stages 4 and 6) or sent by (8 and 9) is *used*, whatever a filter says then; a lookup by MAC uses every row with this MAC.
//! - *By a gateway*: a network that is on demand and whose row names gateways does not make a frame wait that was not held before.
//!   An IP packet whose own destination is unknown in the network that it is in (not the next hop of a route: the gateway looks for the
//!   packet's destination) is sent to one of them, chosen by its addresses ([`alcor_dataplane_abi::gateway::choose`]); ARP and ND for an
//!   address of one of the network's subnets are answered with [`ON_DEMAND_MAC`](alcor_model::net::ON_DEMAND_MAC), which no station has.
//!   Whoever asks for addresses is told then too (`Unresolved`, with an empty frame: nothing waits), so that the next packets go the direct way.
//!   It may be told less often than that happens. Everything else that is unknown is held as above.
//! - `gateway(network, ip)`: the subnet row whose `gateway_ip` this is, or a router row of the network that is up and one
//!   of whose interfaces, in whichever network, has this address: all of them are one station. `link-local gateway`:
//!   `fe80::` EUI-64 of the gateway MAC; it exists in networks that have an IPv6 subnet with a gateway.
//! - `gateway_mac`: [`alcor_model::net::GATEWAY_MAC`] in every subnet row, for now the same for all;
//!   the path compares with and answers with that constant.
//! - `route(network, ip)`: where a routed packet goes, as (*its network*, *next hop*). In a subnet of the network that has a
//!   gateway: (the network, the address itself). Else the longest match among the interfaces and routes of the router rows of the
//!   network that are up. An interface: (its network, the address itself); a route: (its network, its next hop). Matches of one
//!   length: interfaces first, then by the next hop, the id of the router, of the network.
//! - `way out(network, source)`: of the router rows of the network that are up and have an `external` with an address, one that has an
//!   interface in this network whose block has the source: the longest block, of equals the lowest id, as gateways choose. One of the
//!   gateways that its `external` names owns all that faces the outside for that router: `choose` by the router's id.
//! - A floating IP row is *of this host* if its `host` is this host's tunnel address and the host has a device for its external network
//!   ([`Uplinks`](crate::Uplinks)), as long as its router has a row in its network that is up and has an interface there. All others mean nothing here.
//! - `floating(network, ip)`: of the rows of this host in the network, the one with this fixed IP. `external(device, ip)`: of the rows of this
//!   host whose external network has this device, the one with this floating IP. Of several the first by network and id.
//! - `translate(from, to, label)`: what a label of network *from* is in network *to*: the same one when they are the same;
//!   the lowest label of *to* whose row has the same set of groups as the row of *from*; 0 when there is no such row.
//!
//! # From a port
//! 1. No port row, or no device tied to it: `UnknownPort` (counted for no port). Port or network down: `PortDown`.
//! 2. Shorter than an Ethernet header: `Malformed`. Source MAC not the port's or of an allowed pair (with port
//!    security), or a group address (always): `SpoofedMac`.
//! 3. EtherType ARP, IPv4, IPv6: on. All others, VLAN tags too: `UnsupportedEtherType`.
//! 4. **ARP**: shorter than 28 bytes, not Ethernet/IPv4 (1, 0x0800, 6, 4): `Malformed`. Not a request (op 1):
//!    `ArpIgnored`. With port security: sender MAC equals the Ethernet source, sender IP is 0.0.0.0 or allowed, else
//!    `SpoofedArp`. Target is a fixed IP of the port itself: `OwnAddress`. Target is a gateway: reply with
//!    its MAC. `neigh` knows it: reply with that MAC. Else by a gateway, but for a probe (sender IP 0.0.0.0 or the
//!    target itself, which asks whether anybody else has the address): reply with `ON_DEMAND_MAC`. Else unknown. The reply is
//!    exactly 42 bytes: Ethernet header to the requester from the answered MAC, op 2.
//! 5. **IPv4**: version 4, IHL >= 5, header within the frame, IHL*4 <= total length <= bytes present, else
//!    `Malformed`. UDP of a first or only fragment with less than 8 bytes up to the total length: `Malformed`. A DHCP message is UDP of a first or only fragment, source port 68, destination port 67; whatever the
//!    addresses, it is punted (`Dhcp4`) if the port has an IPv4 fixed IP in a subnet with DHCP, else `NoFlood` if
//!    stage 7 would say so, else as any packet. UDP from port 67 to port 68, with port security: `DhcpServer`.
//!    With port security: source is allowed, else `SpoofedIp` (0.0.0.0 is allowed for DHCP only).
//! 6. **IPv6**: version 6, 40 bytes present, payload length within the frame, else `Malformed`. Extension headers (hop-by-hop,
//!    routing, destination options, fragment) are walked, at most 4, else `Malformed`; a truncated one: `Malformed`. With port
//!    security, an ND message (ICMPv6 types 133-137) behind any extension header: `SpoofedNd`. For a fragment that is not the first the
//!    upper layer is unknown and what follows the fragment header is not looked at. A known upper layer that is ICMPv6 or UDP with less
//!    than 8 bytes up to the payload length: `Malformed`, before anything else here (a first fragment must hold the whole header chain, RFC 7112). Everything here
//!    ends at the payload length; bytes of the frame behind it are carried along but not looked at.
//!    Hop limit 255 is required for types 133-137 (without extension headers), else `Malformed`. Types 133, 135 and 136 behind an
//!    extension header (no port security) are packets as any other; 134 and 137 are dropped as below there too.
//!    - Type 133 (RS): punt (`RouterSolicitation`) when the port has an IPv6 fixed IP in a subnet with `enable_dhcp`, else `NoFlood`.
//!    - Type 134 (RA), 137 (redirect): `RouterAdvertisement`, with or without port security.
//!    - Type 135 (NS): at least 24 bytes of ICMPv6, else `Malformed`. With port security: source is `::`, allowed, or the link-local
//!      address of the port's MAC, else `SpoofedNd`; a source-link-layer option in first place (type 1, length 1) whose MAC differs from the
//!      Ethernet source: `SpoofedNd`. Target is own (fixed IP or own link-local): `OwnAddress`. Target is a gateway or the
//!      link-local gateway: NA with the router flag. `neigh` knows it, or it is the EUI-64 link-local address of a MAC that `fdb`
//!      knows: NA without the router flag. Else by a gateway, but for an NS from `::` or its target (duplicate address detection): NA with
//!      `ON_DEMAND_MAC`, without the router flag. Else unknown.
//!      The NA is exactly 86 bytes: Ethernet (to the requester's source MAC, from the answered MAC), IPv6 (hop limit 255, flow label
//!      and traffic class 0, from the target to the requester, or to ff02::1 when the NS came from `::`), ICMPv6 type 136 with flags R as above, S (not when to
//!      ff02::1), O; the target; option 2 with the MAC. When to ff02::1 the Ethernet destination is 33:33:00:00:00:01.
//!    - Type 136 (NA): `NdIgnored`.
//!    - UDP from port 547 to 546, with port security: `DhcpServer`.
//!    - With port security, the source is allowed or the link-local address of the port's MAC, else `SpoofedIp` (`::` is for ND only).
//! 7. Ethernet destination is a group address, or the IP destination is multicast or 255.255.255.255: `NoFlood`.
//! 8. Ethernet destination is the gateway MAC: **route**. Destination is a gateway (or the link-local gateway): an ICMP or
//!    ICMPv6 echo request (type 8 or 128, any code, at least 8 bytes; unfragmented, no IPv4 options, no extension headers) is
//!    answered (`Reply`): MACs and addresses swapped, type 0 or 129, TTL/hop limit 64, checksums adjusted incrementally
//!    (`csum_replace`, one word for TTL and protocol, one for type and code), all else as it was; anything else `ToGateway`.
//!    IPv6 link-local source or destination: `NoRoute`. TTL/hop limit <= 1: punt (`TtlExceeded`). `route` finds nothing: **out**, if the
//!    packet is IPv4. `floating(network, source)`, and the frame was not held before: to one of the network's underlay blocks: `NoRoute`, tenants do not
//!    reach hosts; else the packet stays in its network, TTL - 1, on to stage 10, and [this host](#floating-ips) leads it out. Without, if the network has a way out for its source: its owner is none, as it names no gateways: `NoGateway`; else the packet stays in its
//!    network, TTL - 1, both MACs = gateway MAC, which tells the owner that it goes out; on to stage 10. Else, or when `route` finds a
//!    network that is not on this host: `NoRoute`. That network is down: `PortDown`. The source need not be checked again. `neigh` of that
//!    network does not know the next hop: by a gateway, else unknown in that network. Else TTL/hop limit - 1, source MAC = gateway MAC,
//!    destination MAC = the neighbour's, or `ON_DEMAND_MAC` by a gateway, on to stage 10. The packet has left its sender's network for the
//!    one that the route tells.
//! 9. Else **switch**: `fdb(network, destination MAC)`. Not found: whoever `neigh` says has the IP destination now, and the
//!    destination MAC becomes its: the sender's cache is older than the port that has the address, and as nothing floods, nothing
//!    else would tell it before the cache ends. A gateway's address: `UnknownDestination`; nobody's: by a gateway, the destination
//!    MAC becomes `ON_DEMAND_MAC`, else unknown. It is the port itself: `Loop`.
//! 10. **Filter out**: [the filter](#the-filter) of the sender, egress, with the label of the peer: a local port's own, else the
//!     neighbour row's, translated into the sender's network; 0 for the gateway's answer of stage 8, by a gateway and out. A ping to the
//!     gateway is filtered like any packet, its answer is not. By a gateway nobody knows whom the packet goes to: if the rules say no to
//!     label 0, nothing is remembered of that, and the packet is unknown (held) as if there were no gateways; they are asked again
//!     about the packet that is released.
//! 11. **Send**: the frame without its Ethernet header (not the length the IP header tells) is longer than the MTU of the network that it
//!     is in now (and not a GSO packet whose segments fit): routed by stage 8, and IPv6 or IPv4 that must not be fragmented: punt (`TooBig`, with
//!     that MTU), so that its sender learns it; else `Oversize`, as nobody fragments. A local port: down or without a device: `PortDown`. Remote:
//!     `Tunnel` with that network's VNI and the sender's label, translated into that network; out: with label 0, or by this host.
//! 12. **Filter in**, for a local port: the filter of the receiver, ingress, with the sender's label, translated as in stage 11. Then
//!     `Deliver` (routed back to the sender itself: delivered too).
//!
//! Without port security the source checks are skipped where it says so; group source MACs, RAs and what has no
//! destination are dropped all the same. "Allowed" sources: the port's fixed IPs, and allowed pairs (the source MAC and address both match a pair).
//! What is answered or handed to the agent before stage 10 (ARP, ND, RS, DHCP, an expired TTL) is never filtered, nor is what the agent injects, the answer to what is too big too.
//!
//! # From the tunnel
//! 1. No network row with this VNI: `UnknownVni`. The outer source is in none of the network's underlay blocks (when it has any said):
//!    `UnknownUnderlay`, so a label is only believed from a host. Network down: `PortDown`. Shorter than an Ethernet header: `Malformed`.
//! 2. Destination MAC is a group address: `NoFlood`. `local(network, mac)` does not know it: stage 3. Port down or without a
//!    device: `PortDown`. The filter of the receiver, ingress, with the label of the tunnel header. Else `Deliver`, unchanged.
//! 3. **Passed on**: a neighbour row with `forward` has this MAC (its port was here until lately), and the packet was not passed on
//!    already: `Tunnel` to its host, unchanged, with the label that the packet came with and the mark that it was passed on. No
//!    filter: the receiver's host has it. Else `NoLocalPort`. Nothing else goes from a tunnel into a tunnel, and nothing twice.
//!
//! Drops from a port are counted for the port, drops from the tunnel for no port, except `PortDown` of a receiver
//! (for the receiver; a network that is down has none) and what the receiver's filter drops.
//!
//! # Floating IPs
//! Those of this host are translated here, one to one, and nothing is remembered of it: addresses, checksums, fragments and what ICMP errors quote as
//! [gateways](crate::gateway::path) do ("Packets that are translated"), with the same reasons to drop.
//!
//! **Out**, behind stage 11: the floating IP becomes the source. Is the destination `external(device, ip)` then, on as *in*, at once. Else `External`: out of
//! the device, to the destination itself if the row's `cidr` has it, else to its `nexthop`; there is none: `NoRoute`. The packet is longer than the device's MTU (and not a
//! GSO packet whose segments fit): punt (`TooBig`, with that MTU) as it came when it must not be fragmented, else `Oversize`. The kernel makes the Ethernet
//! header, and asks for the MAC where it does not know it.
//!
//! **From a device** that leads to an external network. What is *passed* is left to the host's own stack, unchanged.
//! 1. A VLAN tag, neither ARP nor IPv4, shorter than a header: passed.
//! 2. ARP request (Ethernet and IPv4) for an address that is `external(device, ip)`: a reply with the device's MAC, of the same length. Probes and announcements of
//!    others are answered too: the address is in use. All else of ARP: passed.
//! 3. IPv4 to another MAC than the device's, or whose destination is not `external(device, ip)`: passed. A wrong header checksum, a total length
//!    below the header's or beyond the bytes present: `Malformed`. The row's address and network are where the packet goes: *in*.
//!
//! **In**: TTL 0 or 1: *told* "time exceeded", else `Loop`. An ICMP error about a packet that is not from the floating IP: `NoTranslation`. The network is down: `PortDown`.
//! The frame without its Ethernet header is longer than its MTU (and not a GSO packet whose segments fit): *told* "fragmentation needed" with that MTU when it must not be
//! fragmented, else `Oversize`. No local port has the fixed
//! IP: `UnknownDestination`. Port down or without a device: `PortDown`. Else the fixed IP becomes the destination, TTL - 1, source MAC = gateway MAC, destination MAC = the
//! port's; the filter of the receiver, ingress, with label 0; `Deliver`.
//!
//! *Told*: a reply as gateways make it (["Told", to the outside](crate::gateway::path)), with their limits, from the floating IP, out of the device, to the MAC that sent the frame.
//! Not of what came from a port. All that are sent pass one [meter](alcor_dataplane_abi::gateway_layout::IcmpMeter) of the host: too many lately: `IcmpLimit`.
//!
//! A drop is counted for whoever sends from a port, for no port when it came from a device, but for the receiver from its `PortDown` on.
//!
//! # Labels and rules
//! A label row says which groups a label of the network means; a policy row has the rules of one group. A port has one label (`Some(0)` is no
//! group). **A port without a label, or without port security, is not filtered**, sends with label 0 and is nobody's member. The rules of a port are those of
//! all groups of its label; a label or group without a row allows nothing. For each port a rule row is in force as a whole or not at all, for all packets
//! from one moment on; one that does not fit ([`crate::compiled`] has the limits) is refused and the old one stays. So whatever order rows come
//! in, each decision of a filter is one that the rows before a change or after it would make, or stricter.
//!
//! A rule matches a packet that goes in its direction, in its family, whose protocol and *point* (destination port; ICMP type and code; 0 in
//! other protocols) are in its service, and whose other side is in one of its prefixes (by address) or has its group in the label's set. A port's
//! filter knows labels of its own network only: those of other networks are translated before it is asked, so that both directions of a
//! connection between networks are judged by one set and one table of labels. Nothing else allows; nothing denies. Every group of the port stateful: connections are tracked as follows. One that is not: each
//! packet must match a rule of its own direction.
//!
//! # The filter
//! 1. Not filtered: it passes. Neither IPv4 nor IPv6: `UnsupportedEtherType`. Not as stages 5 and 6 want it, or an upper layer cut short in a
//!    packet or first fragment (20 bytes of TCP; 8 of UDP, UDP-Lite, SCTP, DCCP, ICMP, ICMPv6): `Malformed`.
//! 2. **Fragments**: a later fragment is judged with the upper layer of the first one (without TCP flags), which must have passed this filter in the last
//!    [`FRAGMENT`](alcor_dataplane_abi::connection::FRAGMENT); else, or where it would overlap a TCP header: `UnknownFragment`. The key is addresses, id and (IPv4)
//!    protocol. When too many packets wait, the one that began first is forgotten.
//! 3. ICMPv6 of types 133-137: `SpoofedNd`: discovery never crosses the network.
//! 4. [`identify`](alcor_dataplane_abi::flow::identify): the packet is of a connection (own address, other address, protocol, ports or query), an error, or
//!    single. Single, or an answer to a query that nobody asked: the rules decide.
//! 5. An **ICMP error** that quotes a packet of a known connection, which the error's receiver sent: as [`related`](alcor_dataplane_abi::connection::related)
//!    says. Any other: the rules decide.
//! 6. A packet of a **connection**: as [`step`](alcor_dataplane_abi::connection::step) says. The first packet asks the rules; what belongs to
//!    an allowed connection passes in both directions; TCP without a SYN may begin one too (nobody has seen the SYN of what moved here). When the
//!    rules of the port, or the label of the other side, are others than when it was last judged, the rules are asked again **about its
//!    beginning**. If they say no, the connection is *revoked*: its packets are dropped in both directions (though the answering side might be allowed
//!    to begin one) until it is forgotten, the rules change again or a SYN begins a new one.
//!    The label of a packet that goes out counts only when this side began: it is the row's, and may be older than what the other side says itself.
//! 7. Rules that say no: `IngressDenied` or `EgressDenied`; nothing is remembered of what never was allowed. No room: entries over their time
//!    go, then one that is not answered, closed or revoked; all answered: `ConnectionLimit`. Each port has room of its own. A data plane may keep
//!    fewer entries of those that are not answered, closed or revoked, and forget an answered one that was not used for long instead of refusing.
//!
//! Where two rows could answer (two neighbours with one MAC), they agree on the host and on `forward`; a data plane may take either.
