//! "North": from a tenant to the outside.

use std::net::{IpAddr, Ipv4Addr};

use alcor_dataplane_abi::{
    connection::{Direction, Segment, Tracking},
    flow::{Identity, Sides, identify},
    gateway_layout::{NatKey, VXLAN_OVERHEAD},
};
use alcor_model::{Id, Router};

use super::{
    GatewayModel, GatewayVerdict,
    nat::Fragment,
    outside::{Arrived, south, too_long},
    translate::{End, Packet, Part},
    underlay::Tunnelled,
};
use crate::{DropReason, packet::ETH_LEN};

/// Stage 5 of "From the underlay".
pub(super) fn north(
    gateway: &mut GatewayModel,
    tunnelled: &Tunnelled<'_>,
) -> Result<GatewayVerdict, DropReason> {
    // Bytes behind the datagram are carried along.
    let inner = tunnelled.packet.get(VXLAN_OVERHEAD + ETH_LEN..);
    let mut packet = Packet::read(inner.unwrap_or_default())?;
    let network = gateway
        .rows
        .network(tunnelled.network)
        .ok_or(DropReason::UnknownVni)?;
    let destination = IpAddr::V4(packet.destination());
    let mut blocks = network.underlay.iter().flatten();
    if destination == gateway.tunnel_ip || blocks.any(|block| block.contains(&destination)) {
        return Err(DropReason::NoRoute);
    }
    let (vni, source) = (network.vni.get(), packet.source());
    let came = packet.clone();
    if let Some(row) = gateway.rows.floating(tunnelled.network, source).copied() {
        if !gateway.rows.is_owned(row.router_id, gateway.tunnel_ip) {
            return Err(DropReason::NotOwner);
        }
        packet.float_out(&row)?;
    } else {
        let router = gateway.rows.router(tunnelled.network, source);
        let router = router.ok_or(DropReason::NoRoute)?;
        if !gateway.rows.is_owned(router, gateway.tunnel_ip) {
            return Err(DropReason::NotOwner);
        }
        let way_out = gateway.rows.way_out(router).filter(|way_out| way_out.enable_snat);
        let address = way_out.and_then(|way_out| way_out.address);
        let address = address.ok_or(DropReason::NoRoute)?;
        source_nat(gateway, vni, &mut packet, router, address)?;
    }
    if let Some(external) = gateway.owned_external(packet.destination()) {
        return south(gateway, Packet::read(&packet.bytes)?, Arrived::Inside, external);
    }
    if packet.total_len > usize::from(gateway.way_mtu) {
        return too_long(gateway, tunnelled.network, &came);
    }
    Ok(GatewayVerdict::Outside(packet.bytes.into()))
}

/// The key of a connection between two addresses.
pub(super) const fn key(vni: u32, own: Ipv4Addr, other: Ipv4Addr, sides: &Sides) -> NatKey {
    NatKey {
        vni,
        own: own.octets(),
        other: other.octets(),
        local: sides.local,
        remote: sides.remote,
        protocol: sides.protocol,
        asks: sides.asks,
        pad: 0,
    }
}

fn source_nat(
    gateway: &mut GatewayModel,
    vni: u32,
    packet: &mut Packet,
    router: Id<Router>,
    address: Ipv4Addr,
) -> Result<(), DropReason> {
    let now = gateway.now_ns();
    let fragment = Fragment {
        router,
        address,
        vni: 0,
    };
    let fragment_key = packet.fragment_key(vni);
    if packet.part == Part::Later {
        let known = gateway.nat.expected(&fragment_key, now);
        let known = known.filter(|known| (known.router, known.address) == (router, address));
        known.ok_or(DropReason::UnknownFragment)?;
        packet.set_address(End::Source, address);
        return Ok(());
    }
    match identify(&packet.upper, Direction::Egress) {
        Identity::Tracked {
            sides,
            tracking,
            begins,
        } if tracking != Tracking::Other => {
            let segment = Segment {
                direction: Direction::Egress,
                tracking,
                tcp: packet.upper.tcp,
                label: 0,
            };
            let key = key(vni, packet.source(), packet.destination(), &sides);
            let port = gateway.nat.north(key, (router, address), &segment, begins, now)?;
            if packet.part == Part::First {
                gateway.nat.expect(fragment_key, fragment, now);
            }
            packet.set_address(End::Source, address);
            packet.set_port(End::Source, port);
        }
        Identity::Error => {
            let quote = packet.quote().ok_or(DropReason::NoTranslation)?;
            let Identity::Tracked { sides, .. } = identify(&quote.upper, Direction::Ingress) else {
                return Err(DropReason::NoTranslation);
            };
            let key = key(vni, packet.source(), quote.source, &sides);
            let port = gateway
                .nat
                .port(&key, address, now)
                .filter(|_| quote.destination == packet.source());
            let port = port.ok_or(DropReason::NoTranslation)?;
            packet.set_quoted_address(End::Destination, address);
            packet.set_quoted_port(End::Destination, port);
            packet.set_address(End::Source, address);
        }
        _ => return Err(DropReason::NoTranslation),
    }
    Ok(())
}
