//! Networks in which hosts ask: what changes cost there, whatever their size, and whom they reach.

use std::time::Duration;

use alcor_dataplane::{Row, RowChange, RowKey};
use alcor_model::MacAddr;
use alcor_proto::v1;
use alcor_southbound::convert::{
    decode_id, decode_row, encode_ip,
    resolve::{Question, Verdict},
};

use super::{
    super::*,
    sim::receipt,
    world::{World, id},
};
use crate::directory::Asked;

/// Hosts of a large network.
const HOSTS: u32 = 100;
/// Those of them that are connected.
const CONNECTED: u32 = 6;

/// A large network, settled.
struct Big {
    ncm: Ncm,
    world: World,
    template: Port,
    now: Now,
    /// Deltas that were sent and not receipted.
    sent: BTreeMap<SessionId, VecDeque<v1::Delta>>,
}

fn network() -> Id<Network> {
    id(1000)
}

fn address(number: u32) -> IpAddr {
    IpAddr::from((0x0a00_0000 + number).to_be_bytes())
}

impl Big {
    /// So many ports, one after the other on each of the hosts.
    fn new(ports: u32) -> Self {
        let mut world = World::default();
        let mut changes = vec![world.network(0)];
        let Change::Put(Resource::Port(template)) = world.port(0, 0, None, 0) else {
            unreachable!()
        };
        world.ports.clear();
        let mut big = Self {
            ncm: Ncm::new(Options::default()),
            world,
            template: Port::clone(&template),
            now: Now::default(),
            sent: BTreeMap::new(),
        };
        for host in 0..HOSTS {
            changes.push(big.host(host));
        }
        changes.extend((0..ports).map(|port| big.port(port, port % HOSTS)));
        big.tell(changes);
        for host in 0..CONNECTED {
            let hello = v1::Hello {
                host: format!("h{host}"),
                incarnation: 1,
                tunnel_ip: encode_ip(IpAddr::from((10 << 24 | host).to_be_bytes())),
                filters: true,
                ..v1::Hello::default()
            };
            let session = u64::from(host);
            big.step(Event::Hello { session, hello });
        }
        big.take_all();
        big
    }

    fn host(&mut self, number: u32) -> Change {
        self.world.revision = self.world.revision.next();
        Change::Put(Resource::Host(Arc::new(Host {
            name: format!("h{number}"),
            revision: self.world.revision,
            tunnel_ip: IpAddr::from((10 << 24 | number).to_be_bytes()),
            created_at: jiff::Timestamp::UNIX_EPOCH,
            admin_state_up: true,
            description: String::new(),
            availability_zone: "nova".into(),
            external_networks: BTreeSet::new(),
        })))
    }

    fn port(&mut self, number: u32, host: u32) -> Change {
        self.world.revision = self.world.revision.next();
        let mut port = self.template.clone();
        port.id = id(u128::from(number) + 5000);
        port.revision = self.world.revision;
        port.binding.host_id = format!("h{host}");
        let [_, high, middle, low] = number.to_be_bytes();
        port.mac_address = MacAddr([2, 1, 0, high, middle, low]);
        port.fixed_ips[0].ip_address = address(number);
        Change::Put(Resource::Port(Arc::new(port)))
    }

    fn delete(&mut self, number: u32) -> Change {
        self.world.revision = self.world.revision.next();
        Change::Delete {
            key: ResourceKey::Port(id(u128::from(number) + 5000)),
            revision: self.world.revision,
        }
    }

    fn step(&mut self, event: Event) -> Work {
        let (actions, work) = self.ncm.step(self.now, event);
        for action in actions {
            if let Action::Send { session, message } = action
                && let Some(v1::ncm_message::Body::Delta(delta)) = message.read().unwrap().body
            {
                self.sent.entry(session).or_default().push_back(delta);
            }
        }
        work
    }

    fn tell(&mut self, changes: Vec<Change>) -> Work {
        let committed_us = 1;
        self.step(Event::Changes {
            changes,
            committed_us,
        })
    }

    /// Everything arrives; gives what each host was sent.
    fn take_all(&mut self) -> BTreeMap<SessionId, Vec<v1::Delta>> {
        let mut taken: BTreeMap<SessionId, Vec<v1::Delta>> = BTreeMap::new();
        loop {
            let next = self
                .sent
                .iter_mut()
                .find_map(|(session, deltas)| Some((*session, deltas.pop_front()?)));
            let Some((session, delta)) = next else {
                return taken;
            };
            let body = v1::agent_message::Body::Receipt(receipt(delta.sequence));
            self.step(Event::Message { session, body });
            taken.entry(session).or_default().push(delta);
        }
    }

    /// The rows that each host was sent.
    fn rows(&mut self) -> BTreeMap<SessionId, Vec<RowChange>> {
        let rows = |delta: &v1::Delta| {
            let network = decode_id("network", &delta.network_id).unwrap();
            let rows = delta.rows.iter();
            rows.map(|row| decode_row(network, row).unwrap().1)
                .collect::<Vec<_>>()
        };
        let taken = self.take_all().into_iter();
        taken
            .map(|(session, deltas)| (session, deltas.iter().flat_map(rows).collect()))
            .collect()
    }

    fn ask(&self, host: u32, network: Id<Network>, number: u32, port: Option<u32>) -> (Verdict, Asked) {
        let directory = self.ncm.directory();
        let asker = directory.asker(&format!("h{host}"), host.into()).unwrap();
        let question = Question {
            network,
            ip: address(number),
            port: port.map(|port| id(u128::from(port) + 5000)),
        };
        let (answers, asked) = directory.resolve(self.now.since_start, &asker, &[question]);
        (answers[0].verdict, asked)
    }

    /// Heartbeats and ticks for so long.
    fn pass(&mut self, time: Duration) {
        let until = self.now.since_start + time;
        while self.now.since_start < until {
            self.now.since_start += Duration::from_secs(5);
            for session in 0..CONNECTED {
                let body = v1::agent_message::Body::Heartbeat(v1::Heartbeat::default());
                let session = session.into();
                self.step(Event::Message { session, body });
            }
            self.step(Event::Tick);
        }
    }
}

fn neighbour(change: &RowChange) -> Option<(IpAddr, bool)> {
    match change {
        RowChange::Put(Row::Neighbour(row)) => Some((row.host, row.forward)),
        _ => None,
    }
}

fn tunnel(host: u32) -> IpAddr {
    IpAddr::from((10 << 24 | host).to_be_bytes())
}

/// A port is created, updated and deleted: its own host is told, whatever the size of the network. A host that comes
/// into the network gets its own rows. A question looks at one row. (`bench_resolve` asserts the same of 1,000,000 ports.)
#[test]
fn changes_cost_the_same_whatever_the_size() {
    let of_size = |ports: u32| {
        let mut big = Big::new(ports);
        assert!(big.ncm.networks[&network()].learned);
        let mut works = Vec::new();
        let created = big.port(ports, 1);
        works.push(big.tell(vec![created]));
        let moved = big.port(ports, 2);
        works.push(big.tell(vec![moved]));
        let deleted = big.delete(ports);
        works.push(big.tell(vec![deleted]));
        let (host, port) = (big.host(HOSTS), big.port(ports + 1, HOSTS));
        works.push(big.tell(vec![host]));
        big.take_all();
        let hello = v1::Hello {
            host: format!("h{HOSTS}"),
            incarnation: 1,
            tunnel_ip: encode_ip(tunnel(HOSTS)),
            filters: true,
            ..v1::Hello::default()
        };
        let session = HOSTS.into();
        works.push(big.step(Event::Hello { session, hello }));
        works.push(big.tell(vec![port]));
        let (verdict, asked) = big.ask(3, network(), 17, None);
        assert!(matches!(verdict, Verdict::Route(..)));
        assert_eq!((asked.questions, asked.rows_looked_at), (1, 1));
        works
    };
    let (few, many) = (of_size(2_000), of_size(100_000));
    let bytes = |works: &[Work]| works.iter().map(|work| work.bytes).collect::<Vec<_>>();
    let rest = |works: Vec<Work>| {
        let rest = works.into_iter().map(|work| Work { bytes: 0, ..work });
        rest.collect::<Vec<_>>()
    };
    for (few, many) in bytes(&few).into_iter().zip(bytes(&many)) {
        assert!(
            many <= few + 16,
            "{few} bytes, and {many}: only revisions take more"
        );
    }
    let (few, many) = (rest(few), rest(many));
    assert_eq!(few, many);
    for work in &few {
        assert!(work.rows_looked_at <= 10 && work.rows_sent <= 10, "{work:?}");
        assert_eq!((work.networks_looked_at, work.switches), (0, 0), "{work:?}");
    }
    let touched: Vec<_> = few.iter().map(|work| work.hosts_touched).collect();
    assert_eq!(
        touched,
        [1, 2, 2, 0, 0, 1],
        "the second is told what has left the first"
    );
}

/// A port moves twice: every learner is told each time and nobody else, and both hosts that it left pass on what still comes for
/// it, for a lease; the first has nothing else in the network and forgets it then.
#[test]
fn a_port_that_moves_is_followed() {
    let mut big = Big::new(2_000);
    // The first hosts have one port more, and the first nothing else.
    let others = (0..2_000)
        .step_by(HOSTS as usize)
        .map(|number| big.delete(number));
    let others: Vec<_> = others.collect();
    big.tell(others);
    let moving = big.port(5_000, 0);
    big.tell(vec![moving]);
    big.take_all();
    for learner in [3, 4] {
        let (verdict, _) = big.ask(learner, network(), 5_000, None);
        assert!(matches!(verdict, Verdict::Route(_, row) if row.host == tunnel(0)));
    }
    let key = RowKey::Neighbour(network(), address(5_000));

    let moved = big.port(5_000, 1);
    let work = big.tell(vec![moved]);
    assert_eq!((work.hosts_touched, work.learners_told), (4, 2));
    let rows = big.rows();
    assert_eq!(rows.keys().copied().collect::<Vec<_>>(), [0, 1, 3, 4]);
    for learner in [3, 4] {
        assert_eq!(
            rows[&learner].iter().map(neighbour).collect::<Vec<_>>(),
            [Some((tunnel(1), false))]
        );
    }
    assert!(
        rows[&0]
            .iter()
            .any(|row| neighbour(row) == Some((tunnel(1), true)))
    );
    assert_eq!(
        big.ask(0, network(), 5_000, None).0,
        Verdict::Deny,
        "it has no port there any more"
    );

    big.pass(Duration::from_secs(200));
    big.rows();
    let moved = big.port(5_000, 2);
    big.tell(vec![moved]);
    let rows = big.rows();
    assert_eq!(rows.keys().copied().collect::<Vec<_>>(), [0, 1, 2, 3, 4]);
    for left in [0, 1] {
        assert!(
            rows[&left]
                .iter()
                .any(|row| neighbour(row) == Some((tunnel(2), true))),
            "{left}"
        );
    }
    assert!(rows[&2].contains(&RowChange::Remove(key)));

    big.pass(Duration::from_secs(150));
    let taken = big.take_all();
    assert_eq!(
        taken.keys().copied().collect::<Vec<_>>(),
        [0],
        "nobody else is concerned"
    );
    assert_eq!(taken[&0][0].snapshot(), v1::SnapshotPhase::Forget);

    let gone = big.delete(5_000);
    let work = big.tell(vec![gone]);
    assert_eq!(work.learners_told, 2);
    let rows = big.rows();
    assert_eq!(rows[&3], [RowChange::Remove(key)]);
    assert!(!rows.contains_key(&0));
    assert_eq!(big.ask(3, network(), 5_000, None).0, Verdict::Unknown);
}

/// A network becomes learned: its hosts are told one row, and go on being told of what they have.
#[test]
fn the_switch_costs_a_row_a_host_and_misses_nothing() {
    let mut big = Big::new(600);
    assert!(!big.ncm.networks[&network()].learned);
    let before = big.port(7, 8);
    big.tell(vec![before]);
    big.take_all();
    let grown: Vec<_> = (600..700)
        .map(|number| big.port(number, number % HOSTS))
        .collect();
    let work = big.tell(grown);
    assert_eq!(work.switches, 1);
    assert!(big.ncm.networks[&network()].learned);
    for rows in big.rows().values() {
        let on_demand = |row: &RowChange| matches!(row, RowChange::Put(Row::Network(row)) if row.on_demand);
        assert_eq!(rows.iter().filter(|row| on_demand(row)).count(), 1);
    }
    let moved = big.port(7, 9);
    let work = big.tell(vec![moved]);
    assert_eq!(work.hosts_touched, u64::from(CONNECTED), "they had it");
    assert!(
        big.rows()
            .values()
            .all(|rows| neighbour(&rows[0]) == Some((tunnel(9), false)))
    );
    let late = big.port(699, 98);
    assert_eq!(
        big.tell(vec![late]).hosts_touched,
        0,
        "they were never told of it"
    );

    let shrunk: Vec<_> = (0..700)
        .filter(|number| number % 2 == 0)
        .map(|number| big.delete(number))
        .collect();
    let work = big.tell(shrunk);
    assert_eq!((work.switches, big.ncm.networks[&network()].learned), (1, false));
    let rows = big.rows();
    assert_eq!(
        rows.len(),
        CONNECTED as usize,
        "also those that have no ports any more"
    );
    assert!(
        rows[&1].contains(&RowChange::Put(Row::Network(match &rows[&1][0] {
            RowChange::Put(Row::Network(row)) => alcor_dataplane::NetworkRow {
                on_demand: false,
                ..row.clone()
            },
            other => panic!("{other:?}"),
        })))
    );
}

/// What an agent says that is not so changes nothing for anybody.
#[test]
fn lies_change_nothing() {
    let mut big = Big::new(2_000);
    let elsewhere = big.world.network(1);
    big.tell(vec![elsewhere]);
    assert_eq!(
        big.ask(3, id(1001), 17, None).0,
        Verdict::Deny,
        "a network of others"
    );
    assert_eq!(
        big.ask(3, network(), 17, Some(4)).0,
        Verdict::Deny,
        "a port of others"
    );
    assert_eq!(
        big.ask(3, network(), 17, Some(9_999_999)).0,
        Verdict::Deny,
        "no port"
    );
    assert_eq!(
        big.ask(3, network(), 3, None).0,
        Verdict::Unknown,
        "its own address"
    );
    assert!(big.ncm.directory().asker("nobody", 3).is_none());
    let asker = big.ncm.directory().asker("h4", 3).unwrap();
    let question = Question {
        network: network(),
        ip: address(17),
        port: None,
    };
    let (answers, _) = big
        .ncm
        .directory()
        .resolve(big.now.since_start, &asker, &[question]);
    assert_eq!(answers[0].verdict, Verdict::Busy, "the session of another host");
    for body in [
        v1::agent_message::Body::Receipt(receipt(99)),
        v1::agent_message::Body::Resolve(v1::Resolve::default()),
    ] {
        let work = big.step(Event::Message { session: 3, body });
        assert_eq!((work.receipts, work.deltas), (0, 0));
    }
    let moved = big.port(17, 18);
    let work = big.tell(vec![moved]);
    assert_eq!((work.hosts_touched, work.learners_told), (0, 0));
}
