//! Floating IPs of this host: which they are, out to their external networks, and in from there. What is done to a packet is
//! what gateways do to it.

use std::net::{IpAddr, Ipv4Addr};

use alcor_model::{Id, MacAddr, Port, net::GATEWAY_MAC};
use bytes::Bytes;

use super::{
    path::{End, Ended, Path},
    tables::{NetworkTables, Peer, Tables},
};
use crate::{
    DropReason, FloatingIpRow, Verdict,
    gateway::{
        outside::{TIME_EXCEEDED, TOO_LONG, arp_reply, asked, header_checked, told},
        translate::Packet,
    },
    packet::{ETH_LEN, ETHERTYPE_ARP, ETHERTYPE_IPV4, Ethernet, array},
    uplinks::nexthop,
};

/// Where an IPv4 header has the destination.
const DESTINATION: usize = 16;

/// The label of whoever is outside.
const OUTSIDE: u16 = 0;

/// Where a packet to a floating IP comes from.
#[derive(Clone, Copy)]
enum Origin<'a> {
    /// From a port, by its own floating IP: a hairpin.
    Port(Id<Port>),
    /// From outside, in this frame: it may be answered.
    Outside(&'a [u8]),
}

impl Origin<'_> {
    /// The port that a drop is counted for.
    const fn sender(self) -> Option<Id<Port>> {
        match self {
            Self::Port(port) => Some(port),
            Self::Outside(_) => None,
        }
    }
}

/// A drop, and the port that it is counted for.
type Refused = (Option<Id<Port>>, DropReason);

impl Tables {
    /// The device of a row that is of this host.
    fn device_of(&self, network: &NetworkTables, row: &FloatingIpRow) -> Option<&str> {
        let device = self.uplinks().device(row)?;
        network.has_interface_of(row.router_id).then_some(device)
    }

    /// `floating(network, ip)`, with its device.
    pub(super) fn floating<'a>(
        &'a self,
        network: &'a NetworkTables,
        ip: Ipv4Addr,
    ) -> Option<(&'a FloatingIpRow, &'a str)> {
        let mut rows = network.floating_ips().filter(|row| row.fixed_ip == ip);
        rows.find_map(|row| Some((row, self.device_of(network, row)?)))
    }

    /// `external(device, ip)`, with its network.
    fn external(&self, device: &str, ip: Ipv4Addr) -> Option<(&FloatingIpRow, &NetworkTables)> {
        let has_it = |network: &NetworkTables, row: &FloatingIpRow| {
            row.floating_ip == ip && self.device_of(network, row) == Some(device)
        };
        self.networks().find_map(|network| {
            let mut rows = network.floating_ips();
            rows.find(|row| has_it(network, row)).map(|row| (row, network))
        })
    }
}

impl Path<'_> {
    /// **Out**, behind stage 11.
    pub(super) fn float_out(
        &mut self,
        sender: Id<Port>,
        row: &FloatingIpRow,
        device: &str,
        frame: &[u8],
    ) -> Result<Verdict, End> {
        let mut packet = Packet::read(frame.get(ETH_LEN..).unwrap_or_default())?;
        packet.float_out(row)?;
        let destination = packet.destination();
        if let Some((row, network)) = self.tables.external(device, destination) {
            let packet = Packet::read(&packet.bytes)?;
            let came_in = self.float_in(Origin::Port(sender), row, network, packet);
            return came_in
                .map_err(|(at, reason)| at.map_or(End::Drop(reason), |at| End::DropAt(at, reason)));
        }
        let nexthop = nexthop(row, destination).ok_or(DropReason::NoRoute)?;
        if let Some(mtu) = self.mtus.get(device)
            && packet.bytes.len() > usize::from(*mtu)
        {
            return Err(match packet.must_not_be_fragmented() {
                true => End::TooBig(*mtu),
                false => DropReason::Oversize.into(),
            });
        }
        Ok(Verdict::External {
            device: device.to_owned(),
            nexthop,
            packet: packet.bytes.into(),
        })
    }

    /// The path "from a device" that leads to an external network.
    pub(super) fn of_external(&mut self, device: &str, mac: MacAddr, frame: &[u8]) -> Ended {
        match self.external_stages(device, mac, frame) {
            Ok(verdict) => Ended::quiet(verdict, None),
            Err((port, reason)) => Ended::quiet(Verdict::Drop(reason), port),
        }
    }

    fn external_stages(&mut self, device: &str, mac: MacAddr, frame: &[u8]) -> Result<Verdict, Refused> {
        let Some(ethernet) = Ethernet::read(frame) else {
            return Ok(Verdict::Pass);
        };
        if ethernet.ethertype == ETHERTYPE_ARP {
            let asked = asked(frame).filter(|ip| self.tables.external(device, *ip).is_some());
            return Ok(asked.map_or(Verdict::Pass, |ip| Verdict::Reply {
                frame: arp_reply(frame, mac, ip).into(),
            }));
        }
        let destination = array::<4>(frame, ETH_LEN + DESTINATION).map(Ipv4Addr::from);
        let destination =
            destination.filter(|_| ethernet.ethertype == ETHERTYPE_IPV4 && ethernet.destination == mac);
        let found = destination.and_then(|ip| self.tables.external(device, ip));
        let Some((row, network)) = found else {
            return Ok(Verdict::Pass);
        };
        let refuse = |reason| (None, reason);
        let bytes = header_checked(frame).map_err(refuse)?;
        let packet = Packet::read(bytes).map_err(refuse)?;
        self.float_in(Origin::Outside(frame), row, network, packet)
    }

    /// **In**.
    fn float_in(
        &mut self,
        origin: Origin<'_>,
        row: &FloatingIpRow,
        network: &NetworkTables,
        mut packet: Packet,
    ) -> Result<Verdict, Refused> {
        let refuse = |reason| (origin.sender(), reason);
        if packet.ttl() <= 1 {
            let told = self.tell(origin, &packet, (TIME_EXCEEDED, 0), DropReason::Loop);
            return told.map_err(refuse);
        }
        packet.may_float_in(row).map_err(refuse)?;
        if !network.row.admin_state_up {
            return Err(refuse(DropReason::PortDown));
        }
        if packet.bytes.len() > usize::from(network.row.mtu) {
            let oversize = DropReason::Oversize;
            let told = match packet.must_not_be_fragmented() {
                true => self.tell(origin, &packet, (TOO_LONG, network.row.mtu), oversize),
                false => Err(oversize),
            };
            return told.map_err(refuse);
        }
        let Some(Peer::Local(receiver)) = network.neigh(IpAddr::V4(row.fixed_ip)) else {
            return Err(refuse(DropReason::UnknownDestination));
        };
        packet.float_in(row.fixed_ip);
        packet.age();
        let ethernet = Ethernet {
            destination: receiver.mac,
            source: GATEWAY_MAC,
            ethertype: ETHERTYPE_IPV4,
        };
        let frame: Bytes = [&ethernet.bytes()[..], &packet.bytes].concat().into();
        self.hand_in(receiver, network, OUTSIDE, frame)
    }

    /// Answers a packet from outside with an ICMP error, if it may be answered with one; else it is dropped for this reason.
    fn tell(
        &mut self,
        origin: Origin<'_>,
        packet: &Packet,
        (kind, mtu): ([u8; 2], u16),
        reason: DropReason,
    ) -> Result<Verdict, DropReason> {
        let told = match origin {
            Origin::Outside(frame) => told(frame, packet, kind, mtu),
            Origin::Port(_) => None,
        };
        let frame = told.ok_or(reason)?.into();
        *self.icmp = self.icmp.admit(self.now).ok_or(DropReason::IcmpLimit)?;
        Ok(Verdict::Reply { frame })
    }
}
