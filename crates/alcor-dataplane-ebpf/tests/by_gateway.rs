//! A host and its gateways with real packets: what the tunnel carries, and what the agent hears. Needs root, iproute2 and the
//! kernel programs.
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[allow(dead_code, reason = "the scene has more than is used here")]
mod common;

use std::net::{IpAddr, UdpSocket};

use alcor_dataplane::{
    Dataplane, Event, ExternalRow, InterfaceRow, NeighbourRow, NetworkRow, RouterRow, Row, RowChange, RowKey,
};
use alcor_model::{
    Id,
    net::{GATEWAY_MAC, ON_DEMAND_MAC},
};
use common::{Lab, VNI, host_ip, mac, network_id, port_id, rows};
use uuid::Uuid;

/// No row tells it at first.
const PEER: [u8; 4] = [10, 0, 0, 77];
const OUTSIDE: [u8; 4] = [203, 0, 113, 9];
/// Where the inner frame begins, behind the VXLAN header.
const INNER: usize = 8;
const IPV4: [u8; 2] = [8, 0];

/// Host 0 in force, on demand, with host 1 as the only gateway; a socket stands for that one.
fn lab(name: &str) -> (Lab, UdpSocket) {
    let mut lab = Lab::new(name);
    lab.program();
    lab.dataplanes[1] = None;
    lab.hosts[1].run(&["ip", "link", "delete", "dev", "alcor0"]);
    let gateway = lab.hosts[1].inside(|| UdpSocket::bind((host_ip(1), 4789)).unwrap());
    let router = RouterRow {
        id: Id::from_uuid(Uuid::from_u128(7)),
        network_id: network_id(),
        admin_state_up: true,
        interfaces: vec![InterfaceRow {
            network_id: network_id(),
            cidr: "10.0.0.0/24".parse().unwrap(),
            address: [10, 0, 0, 1].into(),
        }],
        routes: Vec::new(),
        external: Some(ExternalRow {
            network_id: Id::from_uuid(Uuid::from_u128(8)),
            address: Some([203, 0, 113, 1].into()),
            enable_snat: true,
            gateways: vec![host_ip(1)],
        }),
    };
    // Of a lower id, but not for these sources.
    let other = RouterRow {
        id: Id::from_uuid(Uuid::from_u128(6)),
        interfaces: vec![InterfaceRow {
            network_id: network_id(),
            cidr: "10.0.1.0/24".parse().unwrap(),
            address: [10, 0, 1, 1].into(),
        }],
        external: router.external.clone().map(|external| ExternalRow {
            gateways: vec![[192, 0, 2, 250].into()],
            ..external
        }),
        ..router.clone()
    };
    let mut changes = Vec::from([other, router].map(|row| RowChange::Put(Row::Router(row))));
    for row in rows(0) {
        match row {
            Row::Network(row) => changes.push(RowChange::Put(Row::Network(NetworkRow {
                on_demand: true,
                gateways: vec![host_ip(1)],
                ..row
            }))),
            Row::Neighbour(row) => changes.push(RowChange::Remove(RowKey::Neighbour(row.network_id, row.ip))),
            _ => {}
        }
    }
    apply(&mut lab, &changes);
    (lab, gateway)
}

fn apply(lab: &mut Lab, changes: &[RowChange]) {
    for outcome in lab.dataplanes[0].as_mut().unwrap().apply(changes) {
        outcome.unwrap();
    }
}

/// VM 0 sends a datagram; the VXLAN packet that comes out for it. Others (the VM looks for routers too) are passed over.
fn sent(lab: &Lab, gateway: &UdpSocket, to: [u8; 4], text: &[u8]) -> Vec<u8> {
    lab.vms[0].inside(|| {
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        socket.send_to(text, (IpAddr::from(to), 9)).unwrap();
    });
    let mut packet = [0; 2000];
    loop {
        let (len, from) = gateway.recv_from(&mut packet).unwrap();
        assert_eq!(from.ip(), host_ip(0));
        let packet = &packet[..len];
        let is_ipv4 = packet[INNER + 12..INNER + 14] == IPV4;
        if is_ipv4 && packet[INNER + 30..INNER + 34] == to && packet.ends_with(text) {
            return packet.to_vec();
        }
    }
}

/// Inner MACs (destination, source) and the TTL.
fn inner(packet: &[u8]) -> ([u8; 6], [u8; 6], u8) {
    // Ports without groups have no label, and nothing was passed on.
    assert_eq!(packet[..4], [0x08, 0, 0, 0]);
    assert_eq!(packet[4..8], (VNI << 8).to_be_bytes());
    let macs = |at: usize| packet[INNER + at..INNER + at + 6].try_into().unwrap();
    (macs(0), macs(6), packet[INNER + 14 + 8])
}

#[test]
fn first_packets_reach_the_gateway_and_the_agent_hears_of_the_address() {
    let (mut lab, gateway) = lab("abg");
    let mut events = lab.dataplanes[0].as_mut().unwrap().events().unwrap();
    let first = sent(&lab, &gateway, PEER, b"first");
    assert_eq!(inner(&first), (ON_DEMAND_MAC.0, mac(0).0, 64));
    // The question and the packet: twice the address, never a frame. The VM may ask for others meanwhile.
    let mut told = 0;
    while told < 2 {
        if let Event::Unresolved {
            port,
            network,
            address,
            frame,
        } = events.blocking_recv().unwrap()
            && address == IpAddr::from(PEER)
        {
            assert_eq!((port, network, frame.len()), (port_id(0), network_id(), 0));
            told += 1;
        }
    }
    // The answer of whoever was asked. The VM goes on with the MAC that it has learned.
    let row = NeighbourRow {
        network_id: network_id(),
        ip: PEER.into(),
        mac: mac(77),
        host: host_ip(1),
        label: 0,
        forward: false,
    };
    apply(&mut lab, &[RowChange::Put(Row::Neighbour(row))]);
    let next = sent(&lab, &gateway, PEER, b"next");
    assert_eq!(inner(&next), (mac(77).0, mac(0).0, 64));
}

#[test]
fn what_leads_out_reaches_the_owner() {
    let (lab, gateway) = lab("abo");
    let out = sent(&lab, &gateway, OUTSIDE, b"out");
    assert_eq!(inner(&out), (GATEWAY_MAC.0, GATEWAY_MAC.0, 63));
}

#[test]
fn a_host_that_starts_again_goes_on_by_the_same_gateway() {
    let (mut lab, gateway) = lab("abr");
    sent(&lab, &gateway, PEER, b"before");
    lab.dataplanes[0] = None;
    let during = sent(&lab, &gateway, PEER, b"during");
    assert_eq!(inner(&during).0, ON_DEMAND_MAC.0, "nobody is needed for that");
    lab.open(0);
    let after = sent(&lab, &gateway, PEER, b"after");
    assert_eq!(inner(&after).0, ON_DEMAND_MAC.0);
}
