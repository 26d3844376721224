//! A gateway's agent: it says what it is, probes the others that rows name, and says who does not answer.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a panic is how a test says no"
)]

mod common;

use std::{net::IpAddr, time::Duration};

use alcor_agent::{
    core::{Action, Agent, BACKOFF_MAX_GATEWAY, Event, LoadRead, Now},
    delta::{Delta, FromNcm, Phase},
    probe::{MISSES_MAX, PROBE_EVERY, Probe},
};
use alcor_dataplane::{
    DropReason, Drops, GatewayReport, Row, RowChange, Snapshot,
    gateway::{AttachMode, GatewayDevice, GatewayLoad, RouterNat},
};
use alcor_model::{Id, Revision};
use alcor_ncm::core::GRACE;
use alcor_proto::v1::{self, agent_message::Body};
use alcor_southbound::{
    client::CONNECT_TIMEOUT_GATEWAY,
    convert::load::{LoadWord, NatTotals, ROUTERS_MAX, decode_load},
};
use common::{Key, network_id, row, settings};
use uuid::Uuid;

/// The gateway, and what it said.
struct Gateway {
    agent: Agent,
    now: Duration,
    session: u64,
    hello: Option<v1::Hello>,
    heartbeats: Vec<v1::Heartbeat>,
    probes: Vec<Probe>,
    /// How often it has asked for its load, which the data plane tells when the test says so.
    loads_asked: usize,
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// The row of a network whose gateways are these and this one.
fn named(gateways: &[&str]) -> Row {
    let Row::Network(mut network) = row(Key::Network(0), 1) else {
        unreachable!()
    };
    network.gateways = gateways.iter().map(|text| ip(text)).collect();
    network.gateways.push(settings().tunnel_ip);
    Row::Network(network)
}

impl Gateway {
    fn new(rows: Vec<Row>) -> Self {
        let mut settings = settings();
        settings.gateway_set = Some("edge".to_owned());
        let snapshot = Snapshot {
            rows,
            ..Snapshot::default()
        };
        Self {
            agent: Agent::new(settings, snapshot),
            now: Duration::ZERO,
            session: 0,
            hello: None,
            heartbeats: Vec::new(),
            probes: Vec::new(),
            loads_asked: 0,
        }
    }

    fn step(&mut self, event: Event) {
        let now = Now {
            since_start: self.now,
            unix_us: 0,
        };
        let mut events = vec![event];
        while let Some(event) = events.pop() {
            for action in self.agent.step(now, event) {
                match action {
                    Action::Connect { session, hello } => {
                        (self.session, self.hello) = (session, Some(hello));
                    }
                    Action::Send { message, .. } => {
                        if let Some(Body::Heartbeat(heartbeat)) = message.body {
                            self.heartbeats.push(heartbeat);
                        }
                    }
                    Action::Apply { batch, changes } => events.push(Event::Applied {
                        batch,
                        visible_us: 0,
                        outcomes: vec![Ok(()); changes.len()],
                    }),
                    Action::Probe(probe) => self.probes.push(probe),
                    Action::ReadLoad => self.loads_asked += 1,
                    other => panic!("{other:?}"),
                }
            }
        }
    }

    fn hear(&mut self, message: FromNcm) {
        let session = self.session;
        self.step(Event::Message { session, message });
    }

    fn connect(&mut self) {
        self.step(Event::Tick);
        self.hear(FromNcm::Welcome {
            heartbeat_interval: PROBE_EVERY,
        });
    }

    /// A round of probes, of which some are answered.
    fn round(&mut self, answering: &[&str]) {
        self.now += PROBE_EVERY;
        self.step(Event::Tick);
        for probe in std::mem::take(&mut self.probes) {
            if answering.iter().any(|answering| ip(answering) == probe.to) {
                self.step(Event::ProbeAnswer {
                    from: probe.to,
                    bytes: probe.packet.to_vec().into(),
                });
            }
        }
    }

    fn unreachable(&self) -> Vec<Vec<u8>> {
        let last = self.heartbeats.last().unwrap();
        last.unreachable.iter().map(|ip| ip.to_vec()).collect()
    }
}

#[test]
fn a_gateway_says_so_and_names_who_does_not_answer() {
    let mut gateway = Gateway::new(Vec::new());
    gateway.connect();
    let hello = gateway.hello.take().unwrap();
    assert_eq!((hello.gateway, hello.gateway_set.as_str()), (true, "edge"));
    let network = named(&["192.0.2.2", "192.0.2.3"]);
    gateway.hear(FromNcm::Delta(Delta {
        sequence: 1,
        network: network_id(0),
        revision: Revision(1),
        phase: Phase::Whole,
        rows: vec![Ok((Revision(1), RowChange::Put(network)))],
    }));
    for _ in 0..MISSES_MAX {
        gateway.round(&["192.0.2.2"]);
        assert_eq!(gateway.unreachable(), Vec::<Vec<u8>>::new());
    }
    // The heartbeat of a tick says what the rounds before it have shown.
    gateway.round(&["192.0.2.2"]);
    gateway.round(&["192.0.2.2", "192.0.2.3"]);
    assert_eq!(gateway.unreachable(), [vec![192, 0, 2, 3]]);
    gateway.round(&["192.0.2.2", "192.0.2.3"]);
    assert_eq!(gateway.unreachable(), Vec::<Vec<u8>>::new());
}

#[test]
fn a_gateway_that_starts_again_probes_whom_its_data_plane_knows() {
    let mut gateway = Gateway::new(vec![named(&["192.0.2.2"])]);
    gateway.step(Event::Tick);
    let probed: Vec<IpAddr> = gateway.probes.iter().map(|probe| probe.to).collect();
    assert_eq!(probed, [ip("192.0.2.2")], "also before a session");
}

#[test]
fn a_gateway_tries_again_soon_however_long_its_ncm_is_away() {
    let mut gateway = Gateway::new(Vec::new());
    gateway.step(Event::Tick);
    for _ in 0..20 {
        let session = gateway.session;
        gateway.step(Event::Closed {
            session,
            reason: "nobody is there".to_owned(),
        });
        gateway.now += BACKOFF_MAX_GATEWAY;
        gateway.step(Event::Tick);
        assert_eq!(gateway.session, session + 1);
    }
    // An NCM that has begun waits for it for longer than a try that nobody answers, and the pause behind it, take.
    assert!(CONNECT_TIMEOUT_GATEWAY + BACKOFF_MAX_GATEWAY < GRACE);
}

#[test]
fn a_host_probes_nobody() {
    let snapshot = Snapshot {
        rows: vec![named(&["192.0.2.2"])],
        ..Snapshot::default()
    };
    let mut agent = Agent::new(settings(), snapshot);
    let actions = agent.step(Now::default(), Event::Tick);
    let [Action::Connect { hello, .. }] = actions.as_slice() else {
        panic!("{actions:?}");
    };
    assert!(!hello.gateway && hello.gateway_set.is_empty());
}

/// What a data plane tells with many routers, of which one refused connections long ago.
fn read(taken_us: u64) -> LoadRead {
    let nat = |number: u64| RouterNat {
        router: Id::from_uuid(Uuid::from_u128(number.into())),
        connections: number,
        limit: 64,
        refused: u64::from(number == 1),
    };
    let report = GatewayReport {
        devices: vec![GatewayDevice {
            device: "eth0".to_owned(),
            mode: AttachMode::Generic,
        }],
        load: GatewayLoad {
            east_west_packets: 7,
            ..GatewayLoad::default()
        },
        nat: (0..100).map(nat).collect(),
        neighbours_room: Some(10),
        layout: Some(4),
    };
    LoadRead {
        taken_us,
        report: Some(report),
        drops: Drops::from([((None, DropReason::Loop), 3)]),
    }
}

/// The words of the heartbeats so far.
fn words(gateway: &mut Gateway) -> Vec<LoadWord> {
    let heartbeats = std::mem::take(&mut gateway.heartbeats);
    let loads = heartbeats.iter().filter_map(|heartbeat| heartbeat.load.as_ref());
    loads.map(decode_load).collect()
}

#[test]
fn a_gateway_says_how_much_goes_through_once_a_second() {
    let mut gateway = Gateway::new(Vec::new());
    gateway.connect();
    for second in 1..=3 {
        for _ in 0..5 {
            gateway.round(&[]);
        }
        assert_eq!(gateway.loads_asked, second, "heartbeats come five times as often");
        assert_eq!(words(&mut gateway), [], "what was not read is not said");
        gateway.step(Event::Load(Ok(read(second as u64))));
        gateway.round(&[]);
        gateway.round(&[]);
        let said = words(&mut gateway);
        let [word] = said.as_slice() else {
            panic!("{said:?}");
        };
        assert_eq!((word.taken_us, word.load.east_west_packets), (second as u64, 7));
        assert_eq!(word.drops[&DropReason::Loop], 3);
        let nat = NatTotals {
            routers: 100,
            connections: (0..100).sum(),
            refused: 1,
        };
        assert_eq!(word.nat, nat);
        let shown: Vec<u64> = word.busiest.iter().map(|nat| nat.connections).collect();
        let busiest: Vec<u64> = [1].into_iter().chain((0..100).rev()).take(ROUTERS_MAX).collect();
        assert_eq!(shown, busiest, "who refused first, then who has most");
        assert_eq!((word.neighbours, word.neighbours_room), (0, Some(10)));
        for _ in 0..3 {
            gateway.round(&[]);
        }
    }
    // One that cannot tell says nothing, and goes on.
    gateway.step(Event::Load(Err("the kernel refuses".to_owned())));
    gateway.step(Event::Load(Ok(LoadRead {
        report: None,
        ..read(9)
    })));
    gateway.round(&[]);
    assert_eq!(words(&mut gateway), []);
}

#[test]
fn a_gateway_says_how_many_neighbours_it_has() {
    let adopted = [Key::Network(0), Key::Neighbour(0, 9)].map(|key| row(key, 1));
    let mut gateway = Gateway::new(adopted.into());
    gateway.connect();
    let neighbour = |number, revision, live| Key::Neighbour(0, number).change(revision, live);
    let network = || Key::Network(0).change(1, true);
    let deltas = [
        (vec![neighbour(1, 5, true)], Phase::Delta, 2),
        // What a snapshot does not name goes.
        (
            vec![network(), neighbour(1, 5, true), neighbour(2, 6, true)],
            Phase::Whole,
            2,
        ),
        (
            vec![neighbour(1, 7, false), neighbour(2, 8, true)],
            Phase::Delta,
            1,
        ),
        (
            vec![neighbour(1, 9, true), neighbour(3, 10, false)],
            Phase::Delta,
            2,
        ),
        (Vec::new(), Phase::Forget, 0),
    ];
    for (at, (rows, phase, wanted)) in deltas.into_iter().enumerate() {
        gateway.hear(FromNcm::Delta(Delta {
            sequence: at as u64 + 1,
            network: network_id(0),
            revision: Revision(10 + at as u64),
            phase,
            rows,
        }));
        gateway.step(Event::Load(Ok(read(1))));
        gateway.round(&[]);
        let said: Vec<u64> = words(&mut gateway).iter().map(|word| word.neighbours).collect();
        assert_eq!(said, [wanted], "after {at}");
    }
}
