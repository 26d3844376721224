//! Router rows: addresses lie in their subnets, next hops are of their destination's family, nothing is longer than a data
//! plane takes.

use alcor_dataplane::{InterfaceRow, RouteRow, RouterRow, row::MAX_PREFIXES_PER_ROUTER};
use alcor_model::{Id, Network};
use alcor_proto::v1;

use super::{DecodeError, decode_id, decode_ip, decode_prefix, encode_id, encode_ip, encode_prefix};

pub(super) fn encode(row: &RouterRow) -> v1::Router {
    let interface = |to: &InterfaceRow| v1::Interface {
        network_id: encode_id(to.network_id),
        cidr: Some(encode_prefix(to.cidr)),
        address: encode_ip(to.address),
    };
    let route = |to: &RouteRow| v1::RouterRoute {
        destination: Some(encode_prefix(to.destination)),
        nexthop: encode_ip(to.nexthop),
        network_id: encode_id(to.network_id),
    };
    v1::Router {
        id: encode_id(row.id),
        admin_state_up: row.admin_state_up,
        interfaces: row.interfaces.iter().map(interface).collect(),
        routes: row.routes.iter().map(route).collect(),
    }
}

pub(super) fn decode(network: Id<Network>, message: &v1::Router) -> Result<RouterRow, DecodeError> {
    let count = message.interfaces.len() + message.routes.len();
    if count > MAX_PREFIXES_PER_ROUTER {
        return Err(DecodeError::Range {
            what: "the number of a router's interfaces and routes",
            got: count as u64,
        });
    }
    Ok(RouterRow {
        id: decode_id("the router's id", &message.id)?,
        network_id: network,
        admin_state_up: message.admin_state_up,
        interfaces: message
            .interfaces
            .iter()
            .map(decode_interface)
            .collect::<Result<_, _>>()?,
        routes: message
            .routes
            .iter()
            .map(decode_route)
            .collect::<Result<_, _>>()?,
    })
}

fn decode_interface(message: &v1::Interface) -> Result<InterfaceRow, DecodeError> {
    let interface = InterfaceRow {
        network_id: decode_id("an interface's network", &message.network_id)?,
        cidr: decode_prefix("an interface's subnet", message.cidr.as_ref())?,
        address: decode_ip("an interface's address", &message.address)?,
    };
    if !interface.cidr.contains(&interface.address) {
        return Err(DecodeError::Contradiction(
            "an interface's address and its subnet",
        ));
    }
    Ok(interface)
}

fn decode_route(message: &v1::RouterRoute) -> Result<RouteRow, DecodeError> {
    let route = RouteRow {
        destination: decode_prefix("a route's destination", message.destination.as_ref())?,
        nexthop: decode_ip("a route's next hop", &message.nexthop)?,
        network_id: decode_id("the network of a route's next hop", &message.network_id)?,
    };
    if route.destination.addr().is_ipv4() != route.nexthop.is_ipv4() {
        return Err(DecodeError::Contradiction(
            "a route's destination and its next hop",
        ));
    }
    Ok(route)
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;

    fn message(address: [u8; 4], nexthop: IpAddr) -> v1::Router {
        let id = Id::<Network>::from_uuid(uuid::Uuid::nil());
        let row = RouterRow {
            id: Id::from_uuid(uuid::Uuid::nil()),
            network_id: id,
            admin_state_up: true,
            interfaces: vec![InterfaceRow {
                network_id: id,
                cidr: ipnet::Ipv4Net::new_assert([10, 0, 1, 0].into(), 24).into(),
                address: address.into(),
            }],
            routes: vec![RouteRow {
                destination: ipnet::Ipv4Net::new_assert([172, 16, 0, 0].into(), 12).into(),
                nexthop,
                network_id: id,
            }],
        };
        encode(&row)
    }

    #[test]
    fn what_contradicts_itself_or_has_no_end_is_refused() {
        let network = Id::from_uuid(uuid::Uuid::nil());
        let hop = IpAddr::from([10, 0, 1, 9]);
        assert!(decode(network, &message([10, 0, 1, 1], hop)).is_ok());
        let foreign = decode(network, &message([10, 0, 2, 1], hop));
        let words = "an interface's address and its subnet";
        assert_eq!(foreign, Err(DecodeError::Contradiction(words)));
        let other_family = decode(network, &message([10, 0, 1, 1], IpAddr::from([0; 16])));
        let words = "a route's destination and its next hop";
        assert_eq!(other_family, Err(DecodeError::Contradiction(words)));
        let mut long = message([10, 0, 1, 1], hop);
        long.routes = vec![long.routes.remove(0); MAX_PREFIXES_PER_ROUTER];
        let got = MAX_PREFIXES_PER_ROUTER as u64 + 1;
        let what = "the number of a router's interfaces and routes";
        assert_eq!(decode(network, &long), Err(DecodeError::Range { what, got }));
    }
}
