//! Routers: who is told what, what it costs, and what a trace says of the way through one.

use alcor_dataplane::RowKey;
use alcor_model::{
    Subnet,
    resource::{Direction, FixedIp, HostRoute, PortStatus},
    trace::TraceQuestion,
};

use super::{
    super::*,
    sim::{HOSTS, Sim},
    world::{id, outside, standard},
};

/// Ports of the world say that they are in subnet 1, which is one of the first network.
fn subnet_id(network: u8) -> Id<Subnet> {
    id(u128::from(network) * 600 + 1)
}

fn subnet(network: u8) -> Change {
    Change::Put(Resource::Subnet(Arc::new(Subnet {
        id: subnet_id(network),
        revision: Revision(1),
        standard: standard(),
        network_id: id(u128::from(network) + 1000),
        cidr: format!("10.{network}.0.0/16").parse().unwrap(),
        gateway_ip: Some(IpAddr::from([10, network, 0, 1])),
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

/// The port of the first router in a network.
fn place(sim: &mut Sim, network: u8) -> Change {
    let Change::Put(Resource::Port(port)) = sim.world.port(0, network, None, 1) else {
        unreachable!()
    };
    sim.world.ports.remove(&port.id);
    let mut port = Port::clone(&port);
    port.id = id(u128::from(network) + 31_000);
    port.fixed_ips = vec![FixedIp {
        subnet_id: subnet_id(network),
        ip_address: IpAddr::from([10, network, 0, 1]),
    }];
    Change::Put(Resource::Port(Arc::new(port)))
}

/// Networks 0 to 2 with a port each, on hosts 1 to 3; a router between the first two.
fn routed() -> Sim {
    let mut sim = Sim::new(Options::default());
    let third = sim.world.network(2);
    sim.untold.push(third);
    for network in 0..3 {
        sim.untold.push(subnet(network));
        let bits = u16::from(network) + 1;
        let port = sim
            .world
            .port_under(network.into(), network, Some(network + 1), 9, bits);
        sim.untold.extend(port);
    }
    for host in 1..=HOSTS {
        sim.connect(host);
    }
    for network in 0..2 {
        let port = place(&mut sim, network);
        sim.untold.push(port);
    }
    sim.quiet();
    sim
}

fn keys(sim: &Sim, host: u8) -> Vec<RowKey> {
    sim.agents[&host]
        .has(&format!("h{host}"), &sim.world)
        .into_keys()
        .collect()
}

fn knows(sim: &Sim, host: u8, network: u128) -> bool {
    keys(sim, host)
        .iter()
        .any(|key| key.network_id() == id(network + 1000))
}

#[test]
fn only_hosts_of_its_networks_are_told_of_a_router() {
    let mut sim = routed();
    assert!(!knows(&sim, 1, 1) && !knows(&sim, 2, 0));
    sim.untold.extend(sim.world.router(0, 0b011, true));
    let work = sim.tell();
    assert_eq!(work.hosts_touched, 2, "{work:?}");
    sim.quiet();
    for (host, far, address) in [(1, 1, [10, 1, 1, 9]), (2, 0, [10, 0, 0, 9])] {
        let keys = keys(&sim, host);
        assert!(keys.contains(&RowKey::Router(id(1000), id(30_000))));
        assert!(keys.contains(&RowKey::Router(id(1001), id(30_000))));
        assert!(
            keys.contains(&RowKey::Neighbour(id(far + 1000), address.into())),
            "{keys:?}"
        );
        assert!(!knows(&sim, host, 2));
    }
    assert!(!knows(&sim, 3, 0) && !knows(&sim, 3, 1));

    // Down: one row in each network, on each host.
    sim.untold.extend(sim.world.router(0, 0b011, false));
    let work = sim.tell();
    assert_eq!(
        (work.hosts_touched, work.rows_sent, work.resyncs),
        (2, 4, 0),
        "{work:?}"
    );
    sim.quiet();

    // A port elsewhere in these networks is told to hosts of both; a host that comes gets snapshots of both.
    let port = sim.world.port_under(5, 1, Some(3), 9, 0);
    sim.untold.extend(port);
    let work = sim.tell();
    assert_eq!((work.hosts_touched, work.resyncs), (3, 2), "{work:?}");
    sim.quiet();
    assert!(knows(&sim, 3, 0));
    // Without any port there it forgets both.
    let gone = sim.world.delete_port(5);
    sim.untold.extend(gone);
    sim.quiet();
    assert!(!knows(&sim, 3, 0) && !knows(&sim, 3, 1));

    sim.untold.extend(sim.world.router(0, 0b001, true));
    sim.quiet();
    assert!(!knows(&sim, 1, 1) && !knows(&sim, 2, 0));
    assert!(keys(&sim, 1).contains(&RowKey::Router(id(1000), id(30_000))));
}

#[test]
fn a_change_of_what_nobody_routes_is_not_told() {
    let mut sim = routed();
    sim.untold.extend(sim.world.router(0, 0b011, true));
    sim.quiet();
    // A name.
    sim.untold.extend(sim.world.router(0, 0b011, true));
    let work = sim.tell();
    assert_eq!((work.hosts_touched, work.rows_sent), (0, 0), "{work:?}");
    // A router in networks without ports.
    sim.untold.extend(sim.world.router(1, 0b111_000, true));
    let work = sim.tell();
    assert_eq!((work.hosts_touched, work.rows_sent), (0, 0), "{work:?}");
}

fn rule(sim: &mut Sim, group: u16, direction: Direction) {
    let Change::Put(Resource::SecurityGroupRule(rule)) = sim.world.toggle_rule(group, 22) else {
        unreachable!()
    };
    let mut rule = alcor_model::SecurityGroupRule::clone(&rule);
    rule.matches.direction = direction;
    let change = Change::Put(Resource::SecurityGroupRule(Arc::new(rule)));
    sim.untold.push(change);
}

#[test]
fn a_trace_goes_through_routers_and_along_extra_routes() {
    let mut sim = routed();
    rule(&mut sim, 0, Direction::Egress);
    rule(&mut sim, 1, Direction::Ingress);
    sim.quiet();
    let ask = |sim: &Sim, to: [u8; 4]| {
        let question = TraceQuestion {
            from: id(5000),
            to: to.into(),
            protocol: 6,
            source_port: 40_000,
            point: 22,
        };
        sim.ncm.trace_inputs(&question).unwrap().run()
    };
    let (near, far) = ([10, 1, 1, 9], [192, 168, 1, 1]);
    assert_eq!(ask(&sim, near).dropped.as_deref(), Some("no_route"));

    let Some(Change::Put(Resource::Router(router))) = sim.world.router(0, 0b011, true) else {
        unreachable!()
    };
    let mut router = Router::clone(&router);
    router.routes = vec![HostRoute {
        destination: "192.168.0.0/16".parse().unwrap(),
        nexthop: near.into(),
    }];
    sim.untold.push(Change::Put(Resource::Router(Arc::new(router))));
    sim.quiet();
    for to in [near, far] {
        let trace = ask(&sim, to);
        assert_eq!(trace.delivered_to, Some(id(5001)), "{trace:?}");
        assert_eq!(trace.hosts.len(), 2);
        assert!(trace.hosts.iter().all(|host| host.in_force), "{trace:?}");
        assert!(trace.stages.iter().any(|stage| stage.stage == "router"));
    }
}

/// The port of the first router in a network.
fn port_of(network: u8) -> Id<Port> {
    id(u128::from(network) + 31_000)
}

impl Sim {
    /// What is said of routers' ports at the next tick.
    fn words(&mut self) -> Vec<(Id<Port>, PortStatus)> {
        let (actions, _) = self.ncm.step(self.now, Event::Tick);
        let words = actions.into_iter().filter_map(|action| match action {
            Action::ReportPort(report) => Some((report.port_id, report.status)),
            _ => None,
        });
        words.collect()
    }
}

#[test]
fn ports_of_routers_are_active_when_all_hosts_of_their_networks_have_them() {
    let mut sim = routed();
    sim.untold.extend(sim.world.router(0, 0b011, true));
    sim.tell();
    assert_eq!(sim.words(), [], "nobody has it yet");
    let both = |status| [0, 1].map(|network| (port_of(network), status));
    // What hosts say, and with it the next tick.
    let (active, down) = (both(PortStatus::Active), both(PortStatus::Down));
    while sim.deliver(1) {}
    assert_eq!(sim.words(), [], "both hosts are in both networks");
    while sim.deliver(2) {}
    assert_eq!(sim.words(), active);
    assert_eq!(sim.words(), [], "once");
    assert_eq!(sim.ncm.port_state(port_of(0)).unwrap().status, PortStatus::Active);

    sim.untold.extend(sim.world.router(0, 0b011, false));
    sim.tell();
    assert_eq!(sim.words(), down, "at once: that needs nobody's word");
    sim.quiet();
    // Whoever has no session has no ports that work.
    sim.disconnect(2);
    sim.untold.extend(sim.world.router(0, 0b011, true));
    sim.tell();
    assert_eq!(sim.words(), []);
    while sim.deliver(1) {}
    assert_eq!(sim.words(), active);

    // A port that is down is no place of the router: no host has a way by it.
    let Change::Put(Resource::Port(port)) = place(&mut sim, 1) else {
        unreachable!()
    };
    let mut port = Port::clone(&port);
    port.admin_state_up = false;
    port.revision = sim.world.revision.next();
    sim.world.revision = port.revision;
    sim.untold.push(Change::Put(Resource::Port(Arc::new(port))));
    sim.tell();
    assert_eq!(sim.words(), [(port_of(1), PortStatus::Down)]);
    let row = sim.ncm.router_row(id(1000), id(30_000)).unwrap();
    assert!(!format!("{row:?}").contains("10.1.0.1"), "{row:?}");
}

#[test]
fn where_there_is_no_host_nobody_s_word_is_needed() {
    let mut sim = routed();
    for network in 3..5 {
        let change = sim.world.network(network);
        let port = place(&mut sim, network);
        sim.untold.extend([change, subnet(network), port]);
    }
    sim.untold.extend(sim.world.router(1, 0b11_000, true));
    sim.tell();
    assert_eq!(
        sim.words(),
        [3, 4].map(|network| (port_of(network), PortStatus::Active))
    );
}

#[test]
fn a_gateway_port_is_active_while_gateways_lead_out() {
    let mut sim = routed();
    let gateway: Id<Port> = id(32_000);
    let external = outside();
    let Some(Change::Put(Resource::Router(router))) = sim.world.router_out(0, 0b011, true, true) else {
        unreachable!()
    };
    let Change::Put(Resource::Port(port)) = place(&mut sim, 2) else {
        unreachable!()
    };
    let mut port = Port::clone(&port);
    (port.id, port.network_id) = (gateway, external);
    let changes = [
        Resource::Port(Arc::new(port)),
        Resource::Router(Arc::clone(&router)),
    ];
    sim.untold.extend(changes.map(Change::Put));
    sim.quiet();
    sim.words();
    assert_eq!(sim.ncm.routing.said_of(gateway), Some(PortStatus::Down));
    let ways = vec![IpAddr::from([192, 0, 2, 200])];
    assert!(sim.ncm.routing.set_ways(router.id, ways));
    assert_eq!(sim.words(), [(gateway, PortStatus::Active)]);
    assert!(sim.ncm.routing.set_ways(router.id, Vec::new()));
    assert_eq!(sim.words(), [(gateway, PortStatus::Down)]);
}
