//! Traces name the rules that decide and say how far both hosts are.

use alcor_model::{
    Subnet,
    resource::Direction,
    trace::{Trace, TraceError, TraceQuestion},
};

use super::{
    super::*,
    sim::Sim,
    world::{id, standard},
};

fn subnet(revision: Revision) -> Change {
    Change::Put(Resource::Subnet(Arc::new(Subnet {
        id: id(1),
        revision,
        standard: standard(),
        network_id: id(1000),
        cidr: "10.0.0.0/8".parse().unwrap(),
        gateway_ip: None,
        allocation_pools: Vec::new(),
        dns_nameservers: Vec::new(),
        host_routes: Vec::new(),
        enable_dhcp: true,
        ipv6_address_mode: None,
        ipv6_ra_mode: None,
        subnetpool_id: None,
        service_types: Vec::new(),
        dns_publish_fixed_ip: false,
    })))
}

/// A rule of a group for TCP to this port.
fn rule(sim: &mut Sim, group: u16, port: u16, direction: Direction) -> Id<alcor_model::SecurityGroupRule> {
    let Change::Put(Resource::SecurityGroupRule(rule)) = sim.world.toggle_rule(group, port) else {
        unreachable!()
    };
    let mut rule = alcor_model::SecurityGroupRule::clone(&rule);
    rule.matches.direction = direction;
    let (rule, rule_id) = (Arc::new(rule.clone()), rule.id);
    sim.world.rules.insert(rule_id, Arc::clone(&rule));
    sim.untold.push(Change::Put(Resource::SecurityGroupRule(rule)));
    rule_id
}

fn ask(sim: &Sim, port: u16) -> Trace {
    let question = TraceQuestion {
        from: id(5000),
        to: IpAddr::from([10, 0, 2, 1]),
        protocol: 6,
        source_port: 40_000,
        point: port,
    };
    sim.ncm.trace_inputs(&question).unwrap().run()
}

/// A port on the first host and one on the second, each under a group of its own.
fn two_ports() -> Sim {
    let mut sim = Sim::new(Options::default());
    let put = subnet(Revision(1));
    sim.untold.push(put);
    for (number, host, bits) in [(0, 1, 1), (2, 2, 2)] {
        let changes = sim.world.port_under(number, 0, Some(host), 1, bits);
        sim.untold.extend(changes);
    }
    for host in [1, 2] {
        sim.connect(host);
    }
    sim
}

#[test]
fn a_trace_names_the_rules_on_both_hosts() {
    let mut sim = two_ports();
    let out = rule(&mut sim, 0, 22, Direction::Egress);
    sim.tell();
    while sim.deliver(1) | sim.deliver(2) {}
    sim.tell();
    while sim.deliver(1) | sim.deliver(2) {}

    let denied = ask(&sim, 22);
    assert_eq!(denied.dropped.as_deref(), Some("ingress_denied"), "{denied:?}");
    let egress = denied
        .stages
        .iter()
        .find(|stage| stage.stage == "egress rules")
        .unwrap();
    assert_eq!((egress.host.as_str(), egress.rule_id), ("h1", Some(out)));
    let last = denied.stages.last().unwrap();
    assert_eq!(
        (last.host.as_str(), last.stage.as_str(), last.rule_id),
        ("h2", "ingress rules", None)
    );
    assert_eq!(ask(&sim, 23).dropped.as_deref(), Some("egress_denied"));
    assert!(
        denied
            .hosts
            .iter()
            .all(|host| host.in_force && host.alive && host.filters),
        "{denied:?}"
    );

    // The rule that lets it in is on its way: the answer says so, and who does not have it.
    let into = rule(&mut sim, 1, 22, Direction::Ingress);
    sim.tell();
    let allowed = ask(&sim, 22);
    assert_eq!(allowed.delivered_to, Some(id(5002)), "{allowed:?}");
    let ingress = allowed
        .stages
        .iter()
        .find(|stage| stage.stage == "ingress rules")
        .unwrap();
    assert_eq!(ingress.rule_id, Some(into));
    let in_force: Vec<_> = allowed
        .hosts
        .iter()
        .map(|host| (host.name.as_str(), host.in_force))
        .collect();
    assert_eq!(in_force, [("h1", true), ("h2", false)]);
    sim.deliver(2);
    assert!(ask(&sim, 22).hosts.iter().all(|host| host.in_force));
}

#[test]
fn a_port_that_is_nowhere_has_no_trace() {
    let mut sim = two_ports();
    sim.tell();
    let question = |number| TraceQuestion {
        from: id(number),
        to: IpAddr::from([10, 0, 2, 1]),
        protocol: 6,
        source_port: 1,
        point: 22,
    };
    let unknown = sim.ncm.trace_inputs(&question(99)).unwrap_err();
    assert_eq!(unknown, TraceError::UnknownPort(id(99)));
    let changes = sim.world.port_under(0, 0, None, 1, 1);
    sim.untold.extend(changes);
    sim.tell();
    let nowhere = sim.ncm.trace_inputs(&question(5000)).unwrap_err();
    assert_eq!(nowhere, TraceError::NotBound(id(5000)));
}
