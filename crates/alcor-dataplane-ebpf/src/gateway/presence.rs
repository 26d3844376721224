//! That the outside finds the addresses that this gateway owns: a gratuitous ARP where one is taken over, and a route, which says that it
//! is here. The route is a blackhole: the program takes what comes for the address before the node's own stack sees it, and where it does
//! not, nothing of the node shall. Its protocol number tells the gateway which routes are its own, its metric tells a routing daemon that shall
//! announce them and nothing else (FRR: `redistribute kernel`, which does not see protocols).

use std::{collections::BTreeSet, io, net::Ipv4Addr};

use alcor_model::MacAddr;
use netlink_packet_route::{
    AddressFamily,
    route::{RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteType},
};

use crate::{announce::Announcer, inject::Injector, netlink};

/// Who made our routes (`rtm_protocol`): a number that nobody has in iproute2's `rt_protos`.
pub const ROUTE_PROTOCOL: u8 = 172;
/// The metric of our routes, which nothing else on a node has by default.
pub const ROUTE_METRIC: u32 = 172;
/// Prefix length of one address.
const HOST_BITS: u8 = 32;

/// The addresses that this gateway has told of.
pub(super) struct Presence {
    announcer: Announcer,
    /// Interface index and MAC of each device that leads to the outside.
    devices: Vec<(u32, MacAddr)>,
    addresses: BTreeSet<Ipv4Addr>,
}

impl Presence {
    /// Finds the addresses that an earlier process has told of.
    pub(super) fn open(devices: Vec<(u32, MacAddr)>) -> io::Result<Self> {
        let routes = netlink::routes()?;
        Ok(Self {
            announcer: Announcer::start(Injector::open()?)?,
            devices,
            addresses: routes.iter().filter_map(address).collect(),
        })
    }

    /// Tells of these addresses, and of no others any more. What fails is tried again the next time.
    pub(super) fn bring(&mut self, wanted: &BTreeSet<Ipv4Addr>) {
        let gone: Vec<Ipv4Addr> = self.addresses.difference(wanted).copied().collect();
        let new: Vec<Ipv4Addr> = wanted.difference(&self.addresses).copied().collect();
        for address in gone {
            for (ifindex, _) in &self.devices {
                self.announcer.cease(*ifindex, address);
            }
            match netlink::set_route(route(address), false) {
                Ok(()) => {
                    self.addresses.remove(&address);
                }
                Err(error) => tracing::warn!(%address, %error, "the route of an address stays for now"),
            }
        }
        for address in new {
            match netlink::set_route(route(address), true) {
                Ok(()) => {
                    self.addresses.insert(address);
                }
                Err(error) => tracing::warn!(%address, %error, "an address of ours has no route for now"),
            }
            for (ifindex, mac) in &self.devices {
                self.announcer.announce(*ifindex, *mac, address);
            }
        }
    }
}

fn route(address: Ipv4Addr) -> RouteMessage {
    let mut route = RouteMessage::default();
    route.header.address_family = AddressFamily::Inet;
    route.header.destination_prefix_length = HOST_BITS;
    route.header.table = RouteHeader::RT_TABLE_MAIN;
    route.header.protocol = RouteProtocol::Other(ROUTE_PROTOCOL);
    route.header.kind = RouteType::BlackHole;
    let destination = RouteAttribute::Destination(RouteAddress::Inet(address));
    route.attributes.push(destination);
    route.attributes.push(RouteAttribute::Priority(ROUTE_METRIC));
    route
}

/// The address of a route of ours.
fn address(route: &RouteMessage) -> Option<Ipv4Addr> {
    let is_ours = route.header.protocol == RouteProtocol::Other(ROUTE_PROTOCOL)
        && route.header.kind == RouteType::BlackHole
        && route.header.table == RouteHeader::RT_TABLE_MAIN
        && route.header.destination_prefix_length == HOST_BITS
        && route.attributes.contains(&RouteAttribute::Priority(ROUTE_METRIC));
    route
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            RouteAttribute::Destination(RouteAddress::Inet(address)) => Some(*address),
            _ => None,
        })
        .filter(|_| is_ours)
}
