//! A trace ends as the whole rule set says, and names a rule exactly where rules allow.
#![allow(clippy::unwrap_used)]

use std::{collections::BTreeMap, net::IpAddr};

use alcor_dataplane::{
    DropReason, PortRow, Row,
    compiled::Compiled,
    probe::Payload,
    security::Family,
    testing::{Scenario, rng::Rng},
    trace::{Probe, Stage, Way, trace},
};
use alcor_dataplane_abi::connection::Direction;

/// What the rules of a port say, compiled as a whole.
fn allows(
    rows: &[Row],
    port: &PortRow,
    direction: Direction,
    other: (IpAddr, u16),
    payload: &Payload,
) -> bool {
    let (mut labels, mut policies) = (BTreeMap::new(), BTreeMap::new());
    for row in rows {
        match row {
            Row::Label(row) => drop(labels.insert(row.label, row.clone())),
            Row::Policy(row) => drop(policies.insert(row.group_id, row.clone())),
            _ => {}
        }
    }
    let set = Compiled::new(port.filter().unwrap(), &labels, &policies).unwrap();
    let table = set.table(direction, Family::of(other.0));
    table.allows(other.0, other.1, payload.protocol, payload.point)
}

fn stage<'a>(way: &'a Way, name: &str) -> Option<&'a Stage> {
    way.stages.iter().find(|stage| stage.name == name)
}

fn check(
    rows: &[Row],
    sender: &PortRow,
    (to, label): (IpAddr, u16),
    receiver: Option<&PortRow>,
    payload: Payload,
) -> [usize; 2] {
    let way = trace(
        rows,
        None,
        &Probe {
            from: sender.id,
            to,
            payload,
        },
    );
    let last = way.stages.last().unwrap();
    assert_eq!(last.passes, way.delivered_to.is_some(), "{way:?}");
    let mut judged = [0, 0];
    let own = sender.filter().unwrap_or_default();
    let ways = [
        (
            "egress rules",
            Some(sender),
            Direction::Egress,
            (to, label),
            DropReason::EgressDenied,
        ),
        (
            "ingress rules",
            receiver,
            Direction::Ingress,
            (way.source.unwrap_or(to), own),
            DropReason::IngressDenied,
        ),
    ];
    for (place, (name, port, direction, other, denied)) in ways.into_iter().enumerate() {
        let (Some(stage), Some(port)) = (stage(&way, name), port) else {
            continue;
        };
        if port.filter().is_none() {
            assert!(stage.passes && stage.rule.is_none());
            continue;
        }
        judged[place] += 1;
        assert_eq!(
            stage.passes,
            allows(rows, port, direction, other, &payload),
            "{way:?}"
        );
        assert_eq!(stage.passes, stage.rule.is_some(), "{way:?}");
        assert_eq!(!stage.passes, way.dropped == Some(denied), "{way:?}");
    }
    judged
}

#[test]
fn a_trace_is_what_the_rules_say() {
    let mut judged = [0, 0];
    for seed in 0..150 {
        let scenario = Scenario::secured(seed);
        let mut rng = Rng::new(seed);
        let ports: Vec<&PortRow> = scenario
            .rows
            .iter()
            .filter_map(|row| match row {
                Row::Port(port) => Some(port),
                _ => None,
            })
            .collect();
        for sender in &ports {
            let in_network = |row: &&Row| row.key().network_id() == sender.network_id;
            let rows: Vec<Row> = scenario.rows.iter().filter(in_network).cloned().collect();
            let mut peers: Vec<((IpAddr, u16), Option<&PortRow>)> = Vec::new();
            for row in &rows {
                match row {
                    Row::Port(port) if port.id != sender.id => peers.extend(
                        port.fixed_ips
                            .iter()
                            .map(|fixed| ((fixed.ip_address, port.filter().unwrap_or_default()), Some(port))),
                    ),
                    Row::Neighbour(row) => peers.push(((row.ip, row.label), None)),
                    _ => {}
                }
            }
            for (peer, receiver) in peers {
                // Two rows may have one address or MAC, and the packet goes to the other one.
                let mac = rows.iter().find_map(|row| match row {
                    Row::Port(port) if Some(port.id) == receiver.map(|port| port.id) => Some(port.mac),
                    Row::Neighbour(row) if row.ip == peer.0 => Some(row.mac),
                    _ => None,
                });
                let same = rows.iter().filter(|row| match row {
                    Row::Port(port) => {
                        Some(port.mac) == mac || port.fixed_ips.iter().any(|fixed| fixed.ip_address == peer.0)
                    }
                    Row::Neighbour(row) => Some(row.mac) == mac || row.ip == peer.0,
                    _ => false,
                });
                if same.count() > 1 {
                    continue;
                }
                let (protocol, point) = match rng.below(4) {
                    0 => (6, [22, 80, 443][rng.below(3)]),
                    1 => (17, [53, 67, 5353][rng.below(3)]),
                    2 if peer.0.is_ipv4() => (1, 8 << 8),
                    2 => (58, 128 << 8),
                    _ => (132, 9),
                };
                let payload = Payload {
                    protocol,
                    source_port: 40_000,
                    point,
                };
                let more = check(&rows, sender, peer, receiver, payload);
                judged = [judged[0] + more[0], judged[1] + more[1]];
            }
        }
    }
    assert!(
        judged.iter().all(|count| *count > 100),
        "{judged:?} decisions were looked at"
    );
}
