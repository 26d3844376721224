//! Rows of routers, their ways out and floating IPs: addresses lie in their subnets, next hops are of their destination's family, nothing is longer than a data
//! plane takes.

use std::net::{IpAddr, Ipv4Addr};

use alcor_dataplane::{
    ExternalRow, FloatingIpRow, InterfaceRow, RouteRow, RouterRow,
    row::{MAX_GATEWAYS, MAX_PREFIXES_PER_ROUTER},
};
use alcor_model::{Id, Network};
use alcor_proto::v1;
use ipnet::{IpNet, Ipv4Net};

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
        external: row.external.as_ref().map(encode_external),
    }
}

fn encode_external(row: &ExternalRow) -> v1::External {
    v1::External {
        network_id: encode_id(row.network_id),
        address: row
            .address
            .map(|address| encode_ip(address.into()))
            .unwrap_or_default(),
        enable_snat: row.enable_snat,
        gateways: row.gateways.iter().copied().map(encode_ip).collect(),
    }
}

pub(super) fn encode_floating_ip(row: &FloatingIpRow) -> v1::FloatingIp {
    v1::FloatingIp {
        id: encode_id(row.id),
        router_id: encode_id(row.router_id),
        floating_ip: encode_ip(row.floating_ip.into()),
        fixed_ip: encode_ip(row.fixed_ip.into()),
        external_network_id: encode_id(row.external_network_id),
        host: row.host.map(encode_ip).unwrap_or_default(),
        cidr: row.cidr.map(|cidr| encode_prefix(cidr.into())),
        nexthop: row
            .nexthop
            .map(|nexthop| encode_ip(nexthop.into()))
            .unwrap_or_default(),
    }
}

pub(super) fn decode_floating_ip(
    network: Id<Network>,
    message: &v1::FloatingIp,
) -> Result<FloatingIpRow, DecodeError> {
    Ok(FloatingIpRow {
        id: decode_id("the floating ip's id", &message.id)?,
        network_id: network,
        router_id: decode_id("the floating ip's router", &message.router_id)?,
        floating_ip: decode_ipv4("the floating ip", &message.floating_ip)?,
        fixed_ip: decode_ipv4("the fixed ip of a floating ip", &message.fixed_ip)?,
        external_network_id: decode_id("the floating ip's network", &message.external_network_id)?,
        host: match message.host.is_empty() {
            true => None,
            false => Some(decode_ip("a floating ip's host", &message.host)?),
        },
        cidr: decode_floating_block(message.cidr.as_ref())?,
        nexthop: match message.nexthop.is_empty() {
            true => None,
            false => Some(decode_ipv4("a floating ip's next hop", &message.nexthop)?),
        },
    })
}

fn decode_floating_block(message: Option<&v1::Prefix>) -> Result<Option<Ipv4Net>, DecodeError> {
    let what = "a floating ip's block";
    match message {
        None => Ok(None),
        Some(_) => match decode_prefix(what, message)? {
            IpNet::V4(block) => Ok(Some(block)),
            IpNet::V6(_) => Err(DecodeError::Length { what, got: 16 }),
        },
    }
}

fn decode_ipv4(what: &'static str, bytes: &[u8]) -> Result<Ipv4Addr, DecodeError> {
    let octets = <[u8; 4]>::try_from(bytes).map_err(|_| DecodeError::Length {
        what,
        got: bytes.len(),
    })?;
    Ok(octets.into())
}

/// Tunnel addresses of gateways: not more than a data plane takes, sorted, each once.
pub(super) fn decode_gateways(addresses: &[bytes::Bytes]) -> Result<Vec<IpAddr>, DecodeError> {
    if addresses.len() > MAX_GATEWAYS {
        return Err(DecodeError::Range {
            what: "the number of gateways",
            got: addresses.len() as u64,
        });
    }
    let addresses = addresses.iter();
    let gateways = addresses
        .map(|address| decode_ip("a gateway's address", address))
        .collect::<Result<Vec<_>, _>>()?;
    if !gateways.is_sorted_by(|a, b| a < b) {
        return Err(DecodeError::Contradiction(
            "the order of gateways and their addresses",
        ));
    }
    Ok(gateways)
}

fn decode_external(message: &v1::External) -> Result<ExternalRow, DecodeError> {
    let address = match message.address.is_empty() {
        true => None,
        false => Some(decode_ipv4("a router's external address", &message.address)?),
    };
    Ok(ExternalRow {
        network_id: decode_id("a router's external network", &message.network_id)?,
        address,
        enable_snat: message.enable_snat,
        gateways: decode_gateways(&message.gateways)?,
    })
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
        external: message.external.as_ref().map(decode_external).transpose()?,
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
            external: Some(ExternalRow {
                network_id: id,
                address: Some(Ipv4Addr::new(203, 0, 113, 1)),
                enable_snat: true,
                gateways: vec![IpAddr::from([192, 0, 2, 1]), IpAddr::from([192, 0, 2, 2])],
            }),
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

    #[test]
    fn a_way_out_and_a_floating_ip_arrive_as_they_left() {
        let network = Id::from_uuid(uuid::Uuid::nil());
        let sent = message([10, 0, 1, 1], IpAddr::from([10, 0, 1, 9]));
        let row = decode(network, &sent).unwrap();
        assert_eq!(encode(&row), sent);
        let row = FloatingIpRow {
            id: Id::from_uuid(uuid::Uuid::from_u128(1)),
            network_id: network,
            router_id: row.id,
            floating_ip: Ipv4Addr::new(203, 0, 113, 7),
            fixed_ip: Ipv4Addr::new(10, 0, 1, 7),
            external_network_id: network,
            host: None,
            cidr: None,
            nexthop: None,
        };
        assert_eq!(decode_floating_ip(network, &encode_floating_ip(&row)), Ok(row));
        let row = FloatingIpRow {
            host: Some(IpAddr::from([192, 0, 2, 9])),
            cidr: Some(Ipv4Net::new_assert([203, 0, 113, 0].into(), 24)),
            nexthop: Some(Ipv4Addr::new(203, 0, 113, 254)),
            ..row
        };
        let mut sent = encode_floating_ip(&row);
        assert_eq!(decode_floating_ip(network, &sent), Ok(row));
        sent.cidr = Some(encode_prefix("2001:db8::/64".parse().unwrap()));
        let what = "a floating ip's block";
        assert_eq!(
            decode_floating_ip(network, &sent),
            Err(DecodeError::Length { what, got: 16 })
        );
    }

    #[test]
    fn gateways_are_few_and_in_order() {
        let address = |last| encode_ip(IpAddr::from([192, 0, 2, last]));
        let twice = [address(2), address(2)];
        let words = "the order of gateways and their addresses";
        assert_eq!(decode_gateways(&twice), Err(DecodeError::Contradiction(words)));
        let many: Vec<_> = (0..17).map(address).collect();
        assert!(matches!(
            decode_gateways(&many),
            Err(DecodeError::Range { got: 17, .. })
        ));
        assert_eq!(decode_gateways(&many[..16]).map(|all| all.len()), Ok(16));
    }
}
