//! Tables stay bounded, and full ones hurt only their owner.

use alcor_dataplane::{
    Dataplane, DataplaneError,
    DropReason::ConnectionLimit,
    Row, RowChange,
    model::Limits,
    security::{
        Family::{Ipv4, Ipv6},
        MAX_GROUPS_PER_LABEL, MAX_RULES, Remote, Rule, Service,
    },
};

use crate::rules::*;

fn rig(connections_per_port: usize) -> Rig {
    let limits = Limits {
        connections_per_port,
        fragments_per_port: 2,
        ..Limits::default()
    };
    let mut rig = Rig::with(&[11, 13, 12], limits);
    rig.policy(policy(1, anything(), anything()));
    rig.label(1, &[1]);
    for number in [11, 12, 13] {
        rig.set_label(number, Some(1));
    }
    rig
}

#[test]
fn a_scan_does_not_push_out_what_is_answered() {
    let mut rig = rig(8);
    let talk = Talk::v4(11, 12);
    assert_eq!(rig.send(11, &talk.tcp((5000, 80), 2)), Ok(12));
    assert_eq!(rig.send(12, &talk.back().tcp((80, 5000), 0x12)), Ok(11));
    for point in 1000..1100 {
        assert_eq!(rig.send(11, &talk.tcp((6000, point), 2)), Ok(12));
        assert!(rig.connections(11) <= 8 && rig.connections(12) <= 8);
    }
    assert_eq!(rig.send(12, &talk.back().tcp((80, 5000), 0x10)), Ok(11));
    // Another port's connections are its own.
    assert_eq!(rig.send(13, &Talk::v4(13, 11).tcp((5000, 80), 2)), Ok(11));
    assert_eq!(rig.connections(13), 1);
}

#[test]
fn a_table_full_of_answered_connections_takes_no_more() {
    let mut rig = rig(4);
    let talk = Talk::v4(11, 12);
    for port in 0..4 {
        assert_eq!(rig.send(11, &talk.udp((port, 53))), Ok(12));
        assert_eq!(rig.send(12, &talk.back().udp((53, port))), Ok(11));
    }
    assert_eq!(rig.send(11, &talk.udp((9, 53))), Err(ConnectionLimit));
    assert_eq!(rig.models[0].drop_count(Some(id(11)), ConnectionLimit), 1);
    for port in 0..4 {
        assert_eq!(rig.send(12, &talk.back().udp((53, port))), Ok(11));
    }
    rig.advance(std::time::Duration::from_secs(180));
    assert_eq!(rig.send(11, &talk.udp((9, 53))), Ok(12));
}

#[test]
fn fragments_that_wait_are_bounded() {
    let mut rig = rig(8);
    let talk = Talk::v4(11, 12);
    let fragment = |protocol: u8, field: u16| {
        let mut header = talk.header();
        header.fragment = field;
        talk.frame(&header, protocol, &[0; 16])
    };
    // Three first fragments of different protocols; the first one is forgotten.
    for protocol in [47, 50, 51] {
        assert_eq!(rig.send(11, &fragment(protocol, 0x2000)), Ok(12));
        rig.advance(std::time::Duration::from_secs(1));
    }
    assert!(rig.send(11, &fragment(47, 2)).is_err());
    assert_eq!(rig.send(11, &fragment(50, 2)), Ok(12));
    assert_eq!(rig.send(11, &fragment(51, 2)), Ok(12));
}

fn outcome(rig: &mut Rig, row: Row) -> Result<(), DataplaneError> {
    rig.models[0].apply(&[RowChange::Put(row)]).remove(0)
}

#[test]
fn what_does_not_fit_is_refused_and_what_was_stays() {
    let mut rig = rig(8);
    let service = |first: u16| rule(Ipv4, Some(Service::ports(TCP, first, first)), Remote::Any);
    let talk = Talk::v4(13, 11);
    assert_eq!(rig.send(13, &talk.tcp((1, 5), 2)), Ok(11));
    // 3,000 single ports with gaps are 3,001 classes.
    let too_many: Vec<Rule> = (0..3000).map(|number| service(number * 2 + 1)).collect();
    for ingress in [too_many.clone(), vec![service(1); MAX_RULES + 1]] {
        let refused = outcome(&mut rig, Row::Policy(policy(1, ingress, vec![])));
        assert!(matches!(refused, Err(DataplaneError::Full { .. })), "{refused:?}");
        assert_eq!(rig.send(13, &talk.tcp((1, 5), 2)), Ok(11), "as before");
    }
    // Fits alone; not together with what a label adds, and not for a port that would get it.
    rig.put_on(0, Row::Policy(policy(2, too_many[..1500].to_vec(), vec![])));
    rig.put_on(0, Row::Policy(policy(3, too_many[1500..].to_vec(), vec![])));
    rig.put_on(0, Row::Label(label(9, &[2])));
    let mut row = port(11, RED, &[(1, "10.0.0.11"), (4, "fd00:a::b")]);
    row.label = Some(9);
    rig.put_on(0, Row::Port(row.clone()));
    let refused = outcome(&mut rig, Row::Label(label(9, &[2, 3])));
    assert!(matches!(refused, Err(DataplaneError::Full { .. })), "{refused:?}");
    assert_eq!(
        rig.send(13, &talk.tcp((1, 1), 2)),
        Ok(11),
        "label 9 is still group 2"
    );
    rig.put_on(0, Row::Label(label(10, &[2, 3])));
    row.label = Some(10);
    let refused = outcome(&mut rig, Row::Port(row));
    assert!(matches!(refused, Err(DataplaneError::Full { .. })), "{refused:?}");
    let still = rig.send(13, &talk.tcp((1, 3001), 2));
    assert!(still.is_err(), "still under label 9");
    let groups: Vec<u128> = (0..=MAX_GROUPS_PER_LABEL as u128).collect();
    let refused = outcome(&mut rig, Row::Label(label(11, &groups)));
    assert!(matches!(refused, Err(DataplaneError::Full { .. })), "{refused:?}");
}

#[test]
fn ten_thousand_rules_of_one_service_fit() {
    let mut rig = rig(8);
    let from = |block: u32| {
        let ip = std::net::Ipv4Addr::from(0x0b00_0000 + (block << 8));
        let block = ipnet::IpNet::new(ip.into(), 24).unwrap();
        rule(
            Ipv4,
            Some(Service::ports(TCP, 80, 80)),
            Remote::Prefixes(vec![block]),
        )
    };
    let mut rules: Vec<Rule> = (0..10_000).map(from).collect();
    rig.policy(policy(1, rules.clone(), anything()));
    let talk = Talk::v4(11, 13);
    assert!(rig.send(11, &talk.tcp((1, 80), 2)).is_err());
    let own = Remote::Prefixes(vec!["10.0.0.11/32".parse().unwrap()]);
    rules.push(rule(Ipv4, Some(Service::ports(TCP, 80, 80)), own));
    rules.push(rule(Ipv6, None, Remote::Any));
    rig.policy(policy(1, rules, anything()));
    assert_eq!(rig.send(11, &talk.tcp((1, 80), 2)), Ok(13));
    assert!(rig.send(11, &talk.tcp((1, 81), 2)).is_err());
}
