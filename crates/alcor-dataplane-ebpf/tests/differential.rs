//! Random goal states and frames through the model and through the kernel programs: same verdicts, bytes,
//! counters and rows. Needs root and the kernel programs.

#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "common/traced.rs"]
mod traced;

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use alcor_dataplane::{
    ConnectionEntry, Dataplane, DropReason, Event, Ingress, Model, NetworkRow, PuntReason, Row, RowChange,
    RowKey, Verdict,
    testing::{
        Scenario,
        floating::{EXTERNAL_DEVICES, EXTERNAL_MTUS},
        rng::Rng,
    },
};
use alcor_dataplane_abi::layout::PUNT_BYTES;
use alcor_dataplane_ebpf::{EbpfConfig, EbpfDataplane};
use alcor_model::{
    Id, Port,
    net::{GATEWAY_MAC, ON_DEMAND_MAC},
};
use tokio::{
    runtime::{Builder, Runtime},
    sync::mpsc::Receiver,
};
use traced::{in_namespace, ip};

const SEEDS: u64 = 300;
/// How long an event of the kernel may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Frames that can be put through `BPF_PROG_TEST_RUN`: it wants a device, and a whole IP header where the
/// EtherType promises one.
fn can_run(devices: &BTreeMap<Id<Port>, String>, ingress: &Ingress, frame: &[u8]) -> bool {
    let has_device = match ingress {
        Ingress::Port(port) => devices.contains_key(port),
        Ingress::Tunnel { .. } | Ingress::External { .. } => true,
    };
    let least = match frame.get(12..14) {
        Some([0x08, 0x00]) => 14 + 20,
        Some([0x86, 0xdd]) => 14 + 40,
        _ => 15,
    };
    has_device && frame.len() >= least
}

/// What was compared.
#[derive(Default)]
struct Tally {
    frames: usize,
    released: usize,
    /// Of these, those that went on.
    resolved: usize,
    passed_on: usize,
    used: usize,
    /// Into another network.
    crossed: usize,
    /// To a gateway, switched and routed.
    by_gateway: [usize; 2],
    /// Questions answered for what gateways know.
    answered: usize,
    /// Out, and not out for want of a gateway.
    outside: [usize; 2],
    /// Held where there are gateways, for what rules say.
    held: usize,
    /// Too long for where routers lead, and told so.
    too_big: usize,
    /// Events compared.
    told: usize,
    /// Of floating IPs: out, into ports of this host, answered, left to the host's own stack, told "fragmentation needed" and "time exceeded",
    /// and too long for the device.
    floating: [usize; 7],
}

impl Tally {
    /// Counts what a port's frame became by gateways.
    fn note_gateways(&mut self, ingress: &Ingress, verdict: &Verdict, event: Option<&Event>, gateways: bool) {
        if !matches!(ingress, Ingress::Port(_)) {
            return;
        }
        match verdict {
            Verdict::Tunnel { frame, .. } if frame.starts_with(&ON_DEMAND_MAC.0) => {
                let routed = frame[6..].starts_with(&GATEWAY_MAC.0);
                self.by_gateway[usize::from(routed)] += 1;
            }
            Verdict::Tunnel { frame, .. } if frame.starts_with(&GATEWAY_MAC.0) => self.outside[0] += 1,
            Verdict::Drop(DropReason::NoGateway) => self.outside[1] += 1,
            Verdict::Reply { frame } if frame[6..].starts_with(&ON_DEMAND_MAC.0) => self.answered += 1,
            Verdict::Punt(PuntReason::Unresolved) if gateways => {
                let is_ip = |frame: &[u8]| !matches!(frame.get(12..14), Some([8, 6]));
                self.held +=
                    usize::from(matches!(event, Some(Event::Unresolved { frame, .. }) if is_ip(frame)));
            }
            _ => {}
        }
    }
}

impl Tally {
    /// Counts what became of a packet from or to a floating IP.
    fn note_floating(&mut self, ingress: &Ingress, verdict: &Verdict, event: Option<&Event>) {
        let place = match (ingress, verdict) {
            (_, Verdict::External { .. }) => 0,
            (Ingress::External { .. }, Verdict::Deliver { .. }) => 1,
            (Ingress::External { .. }, Verdict::Reply { frame }) => match frame.get(34..36) {
                Some([3, 4]) => 4,
                Some([11, 0]) => 5,
                _ => 2,
            },
            (_, Verdict::Pass) => 3,
            _ if matches!(event, Some(Event::TooBig { mtu, .. }) if EXTERNAL_MTUS.contains(mtu)) => 6,
            _ => return,
        };
        self.floating[place] += 1;
    }
}

impl std::iter::Sum for Tally {
    fn sum<I: Iterator<Item = Self>>(tallies: I) -> Self {
        tallies.fold(Self::default(), |sum, other| Self {
            frames: sum.frames + other.frames,
            released: sum.released + other.released,
            resolved: sum.resolved + other.resolved,
            passed_on: sum.passed_on + other.passed_on,
            used: sum.used + other.used,
            crossed: sum.crossed + other.crossed,
            by_gateway: [0, 1].map(|at| sum.by_gateway[at] + other.by_gateway[at]),
            answered: sum.answered + other.answered,
            outside: [0, 1].map(|at| sum.outside[at] + other.outside[at]),
            held: sum.held + other.held,
            too_big: sum.too_big + other.too_big,
            told: sum.told + other.told,
            floating: std::array::from_fn(|at| sum.floating[at] + other.floating[at]),
        })
    }
}

/// Both data planes, and what they tell of.
struct Both {
    ebpf: EbpfDataplane,
    events: Receiver<Event>,
    runtime: Runtime,
}

impl Both {
    fn open(config: &EbpfConfig) -> Self {
        let mut ebpf = EbpfDataplane::open(config).unwrap();
        let events = ebpf.events().unwrap();
        let runtime = Builder::new_current_thread().enable_time().build().unwrap();
        Self {
            ebpf,
            events,
            runtime,
        }
    }

    /// The kernel tells what the model told, and nothing else before it.
    fn compare_event(&mut self, told: &mut Receiver<Event>, at: &str) -> Option<Event> {
        let expected = told.try_recv().ok()?;
        let next = async { tokio::time::timeout(PATIENCE, self.events.recv()).await };
        let got = self.runtime.block_on(next);
        let got = got.unwrap_or_else(|_| panic!("{at}: the kernel does not tell {expected:?}"));
        assert_eq!(got.as_ref(), Some(&expected), "{at}");
        Some(expected)
    }
}

/// One scenario through both; leaves the kernel's tables empty again. With `news`, time goes on and security rows change
/// between frames.
fn compare(both: &mut Both, scenario: &Scenario, news: bool) -> Tally {
    let seed = scenario.seed;
    let mut rng = Rng::new(seed);
    let mut model = scenario.model();
    let mut told = model.events().unwrap();
    let ebpf = &mut both.ebpf;
    for outcome in ebpf.apply(&scenario.changes()) {
        outcome.unwrap_or_else(|error| panic!("seed {seed}: {error}"));
    }
    for (port, device) in &scenario.devices {
        ip(&["link", "add", "dev", device, "type", "veth"]);
        ebpf.attach(*port, device).unwrap();
    }
    let expected = model.snapshot().unwrap();
    assert_eq!(ebpf.snapshot().unwrap(), expected, "seed {seed}: snapshot");

    let before = ebpf.drops().unwrap();
    let mut tally = Tally::default();
    let gateways = has_gateways(scenario);
    let floats = !scenario.uplinks.devices.is_empty();
    let mut frames = VecDeque::from(scenario.frames.clone());
    let mut number = 0;
    while let Some((ingress, frame)) = frames.pop_front() {
        let (ingress, frame) = (&ingress, frame.as_slice());
        number += 1;
        let ebpf = &mut both.ebpf;
        if news {
            tell_news(ebpf, &mut model, scenario, &mut rng);
            if rng.chance(10) {
                reroute(ebpf, &mut model, scenario, &mut rng);
            }
            if rng.chance(10) {
                learn(ebpf, &mut model, scenario, &mut rng);
            }
            if floats && rng.chance(20) {
                refloat(ebpf, &mut model, scenario, &mut rng);
            }
            if gateways && rng.chance(20) {
                regroup(ebpf, &mut model, scenario, &mut rng);
            }
        }
        if !can_run(&scenario.devices, ingress, frame) {
            continue;
        }
        let expected = model.process(ingress.clone(), frame);
        let got = ebpf
            .trace(ingress, frame)
            .unwrap_or_else(|error| panic!("seed {seed}, frame {number} ({} bytes): {error:?}", frame.len()));
        assert_eq!(
            got,
            expected,
            "seed {seed}, frame {number}, {ingress:?}: {}",
            hex(frame)
        );
        let event = both.compare_event(&mut told, &format!("seed {seed}, frame {number}"));
        tally.told += usize::from(event.is_some());
        tally.note_gateways(ingress, &got, event.as_ref(), gateways);
        tally.note_floating(ingress, &got, event.as_ref());
        if floats && rng.chance(40) {
            let answer = scenario.floating_answer(&mut rng, &got);
            answer.into_iter().for_each(|answer| frames.push_front(answer));
        }
        let ebpf = &mut both.ebpf;
        tally.frames += 1;
        tally.too_big += usize::from(got == Verdict::Punt(PuntReason::TooBig));
        tally.crossed += usize::from(crosses(scenario, ingress, &got));
        tally.passed_on += usize::from(matches!(&got, Verdict::Tunnel { forwarded: true, .. }));
        if let (Verdict::Punt(PuntReason::Unresolved), Ingress::Port(port)) = (&got, ingress)
            && rng.chance(60)
        {
            let verdict = release(ebpf, &mut model, scenario, &mut rng, (*port, frame));
            tally.released += 1;
            tally.resolved += usize::from(verdict != Verdict::Drop(DropReason::UnknownDestination));
            let event = both.compare_event(&mut told, &format!("seed {seed}, frame {number} released"));
            tally.told += usize::from(event.is_some());
        }
        let ebpf = &mut both.ebpf;
        if rng.chance(10) {
            tally.used += compare_uses(ebpf, &mut model, scenario, &mut rng);
        }
    }
    let ebpf = &mut both.ebpf;
    tally.used += compare_uses(ebpf, &mut model, scenario, &mut rng);
    for port in scenario.devices.keys() {
        let (got, expected) = (connections(ebpf, *port), connections(&mut model, *port));
        assert_eq!(got, expected, "seed {seed}: connections of {port}");
    }
    let mut drops = ebpf.drops().unwrap();
    for (key, count) in before {
        if let Some(now) = drops.get_mut(&key) {
            *now -= count;
        }
    }
    drops.retain(|_, count| *count > 0);
    assert_eq!(drops, model.drops().unwrap(), "seed {seed}: drop counters");
    clear(ebpf, scenario);
    tally
}

/// A frame that was held goes on.
fn release(
    ebpf: &mut EbpfDataplane,
    model: &mut Model,
    scenario: &Scenario,
    rng: &mut Rng,
    (port, frame): (Id<Port>, &[u8]),
) -> Verdict {
    // Mostly all that had gone has come by then.
    let neighbours = scenario
        .rows
        .iter()
        .filter(|row| matches!(row, Row::Neighbour(_)));
    let changes: Vec<RowChange> = neighbours.cloned().map(RowChange::Put).collect();
    if rng.chance(50) {
        for (got, expected) in ebpf.apply(&changes).iter().zip(model.apply(&changes)) {
            assert_eq!(got.is_ok(), expected.is_ok(), "seed {}", scenario.seed);
        }
    }
    let got = ebpf.trace_release(port, frame).unwrap();
    model.release(port, frame).unwrap();
    let expected = model.take_released();
    assert_eq!(
        expected,
        [(port, got.clone())],
        "seed {}: released {}",
        scenario.seed,
        hex(frame)
    );
    got
}

/// Compares which of some neighbours were used since the last time; returns how many were.
fn compare_uses(ebpf: &mut EbpfDataplane, model: &mut Model, scenario: &Scenario, rng: &mut Rng) -> usize {
    let keys: Vec<_> = scenario
        .rows
        .iter()
        .filter_map(|row| match row {
            Row::Neighbour(row) if rng.chance(70) => Some((row.network_id, row.ip)),
            _ => None,
        })
        .collect();
    let (got, expected) = (ebpf.take_used(&keys).unwrap(), model.take_used(&keys).unwrap());
    assert_eq!(got, expected, "seed {}: uses of {keys:?}", scenario.seed);
    got.into_iter().filter(|used| *used).count()
}

/// Takes all rows and devices away.
fn clear(ebpf: &mut EbpfDataplane, scenario: &Scenario) {
    let seed = scenario.seed;
    let networks = scenario
        .rows
        .iter()
        .map(|row| RowKey::Network(row.key().network_id()));
    let removals: Vec<RowChange> = networks.map(RowChange::Remove).collect();
    for outcome in ebpf.apply(&removals) {
        outcome.unwrap_or_else(|error| panic!("seed {seed}: {error}"));
    }
    for (port, device) in &scenario.devices {
        ebpf.detach(*port).unwrap();
        ip(&["link", "delete", "dev", device]);
    }
    assert_eq!(
        ebpf.snapshot().unwrap(),
        Default::default(),
        "seed {seed}: nothing is left"
    );
}

/// What is tracked, without the numbers of the sets of rules: each data plane has its own.
fn connections(dataplane: &mut dyn Dataplane, port: Id<Port>) -> Vec<ConnectionEntry> {
    let mut entries = dataplane.connections(port).unwrap();
    for entry in &mut entries {
        entry.epoch = 0;
    }
    entries
}

/// Whether any network's row names gateways.
fn has_gateways(scenario: &Scenario) -> bool {
    let mut rows = scenario.rows.iter();
    rows.any(|row| matches!(row, Row::Network(row) if !row.gateways.is_empty()))
}

/// Neighbours go, one or all, and networks cease to be on demand.
fn learn(ebpf: &mut EbpfDataplane, model: &mut Model, scenario: &Scenario, rng: &mut Rng) {
    let mut changes = Vec::new();
    match scenario.rows.get(rng.below(scenario.rows.len())) {
        Some(row @ Row::Neighbour(_)) if rng.chance(50) => changes.push(RowChange::Remove(row.key())),
        Some(Row::Network(row)) => changes.push(RowChange::Put(Row::Network(NetworkRow {
            on_demand: rng.chance(80),
            ..row.clone()
        }))),
        _ => {
            let neighbours = scenario
                .rows
                .iter()
                .filter(|row| matches!(row, Row::Neighbour(_)));
            changes.extend(neighbours.map(|row| RowChange::Remove(row.key())));
        }
    }
    for outcome in model.apply(&changes).into_iter().chain(ebpf.apply(&changes)) {
        outcome.unwrap();
    }
}

fn tell_news(ebpf: &mut EbpfDataplane, model: &mut Model, scenario: &Scenario, rng: &mut Rng) {
    if rng.chance(20) {
        let by = Duration::from_secs(rng.one([1, 11, 31, 61, 181, 601]));
        model.advance(by);
        ebpf.advance(by);
    }
    if let Some(change) = scenario.security_change(rng).filter(|_| rng.chance(15)) {
        model.apply(std::slice::from_ref(&change)).remove(0).unwrap();
        ebpf.apply(&[change]).remove(0).unwrap();
        assert_eq!(ebpf.snapshot().unwrap(), model.snapshot().unwrap());
    }
}

/// A router, or a network that routers lead to, changes, goes or comes again.
fn reroute(ebpf: &mut EbpfDataplane, model: &mut Model, scenario: &Scenario, rng: &mut Rng) {
    let rows = scenario.rows.iter();
    let rows: Vec<&Row> = rows.filter(|row| matches!(row, Row::Router(_))).collect();
    let Some(Row::Router(row)) = rng.pick(&rows) else {
        return;
    };
    let mut row = row.clone();
    let change = match rng.below(4) {
        0 => RowChange::Remove(Row::Router(row).key()),
        1 => {
            row.admin_state_up = !row.admin_state_up;
            RowChange::Put(Row::Router(row))
        }
        2 => {
            row.interfaces.truncate(1);
            RowChange::Put(Row::Router(row))
        }
        _ => RowChange::Put(Row::Router(row)),
    };
    model.apply(std::slice::from_ref(&change)).remove(0).unwrap();
    ebpf.apply(&[change]).remove(0).unwrap();
    assert_eq!(ebpf.snapshot().unwrap(), model.snapshot().unwrap());
}

/// Other gateways.
fn regroup(ebpf: &mut EbpfDataplane, model: &mut Model, scenario: &Scenario, rng: &mut Rng) {
    let Some(change) = scenario.gateway_change(rng) else {
        return;
    };
    model.apply(std::slice::from_ref(&change)).remove(0).unwrap();
    ebpf.apply(&[change]).remove(0).unwrap();
    assert_eq!(ebpf.snapshot().unwrap(), model.snapshot().unwrap());
}

/// A floating IP goes, or becomes another one.
fn refloat(ebpf: &mut EbpfDataplane, model: &mut Model, scenario: &Scenario, rng: &mut Rng) {
    let Some(change) = scenario.floating_change(rng) else {
        return;
    };
    model.apply(std::slice::from_ref(&change)).remove(0).unwrap();
    ebpf.apply(&[change]).remove(0).unwrap();
    assert_eq!(ebpf.snapshot().unwrap(), model.snapshot().unwrap());
}

/// Whether a port's packet went into another network.
fn crosses(scenario: &Scenario, ingress: &Ingress, verdict: &Verdict) -> bool {
    let home = |id: &Id<Port>| {
        scenario.rows.iter().find_map(|row| match row {
            Row::Port(row) if row.id == *id => Some(row.network_id),
            _ => None,
        })
    };
    let Ingress::Port(from) = ingress else {
        return false;
    };
    match verdict {
        Verdict::Deliver { port, .. } => home(port) != home(from),
        Verdict::Tunnel { vni, .. } => scenario
            .rows
            .iter()
            .any(|row| matches!(row, Row::Network(row) if row.vni == *vni && Some(row.id) != home(from))),
        _ => false,
    }
}

fn hex(frame: &[u8]) -> String {
    frame.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn kernel_programs_do_what_the_model_does() {
    in_namespace("test-differential", |config| {
        let mut both = Both::open(config);
        let compared: Tally = (0..SEEDS)
            .map(|seed| compare(&mut both, &Scenario::from_seed(seed), false))
            .sum();
        println!("{} frames compared", compared.frames);
        assert!(compared.frames > SEEDS as usize * 10, "most frames can be run");
    });
}

#[test]
fn an_unknown_vni_is_dropped_and_counted_for_no_port() {
    in_namespace("test-unknown-vni", |config| {
        let mut ebpf = EbpfDataplane::open(config).unwrap();
        let ingress = Ingress::Tunnel {
            source: [192, 0, 2, 1].into(),
            vni: 77,
            label: 0,
            forwarded: false,
        };
        // The longest that is held can be run, and so released.
        for len in [60, PUNT_BYTES] {
            let verdict = ebpf.trace(&ingress, &vec![2; len]).unwrap();
            assert_eq!(verdict, Verdict::Drop(DropReason::UnknownVni));
        }
        assert_eq!(
            ebpf.drops().unwrap(),
            BTreeMap::from([((None, DropReason::UnknownVni), 2)])
        );
    });
}

#[test]
fn filters_do_what_the_model_does() {
    in_namespace("test-filters", |config| {
        let mut both = Both::open(config);
        let compared: Tally = (0..SEEDS)
            .map(|seed| compare(&mut both, &Scenario::secured(seed), seed % 2 == 0))
            .sum();
        println!("{} frames compared", compared.frames);
        assert!(compared.frames > SEEDS as usize * 10, "most frames can be run");
    });
}

#[test]
fn networks_on_demand_do_what_the_model_does() {
    in_namespace("test-on-demand", |config| {
        let mut both = Both::open(config);
        let compared: Tally = (0..SEEDS)
            .map(|seed| compare(&mut both, &Scenario::learning(seed), true))
            .sum();
        println!("{} frames compared", compared.frames);
        assert!(compared.frames > SEEDS as usize * 10, "most frames can be run");
        println!(
            "{} released, {} of them resolved, {} passed on, {} uses",
            compared.released, compared.resolved, compared.passed_on, compared.used
        );
        assert!(
            compared.released > 50 && compared.resolved > 5,
            "frames are held and go on"
        );
        assert!(compared.passed_on > 50 && compared.used > 50);
    });
}

#[test]
fn routers_lead_where_the_model_says() {
    in_namespace("test-routers", |config| {
        let mut both = Both::open(config);
        let compared: Tally = (0..SEEDS)
            .map(|seed| compare(&mut both, &Scenario::routed(seed), seed % 2 == 0))
            .sum();
        println!(
            "{} frames compared, {} crossed, {} too big",
            compared.frames, compared.crossed, compared.too_big
        );
        assert!(compared.too_big > 20, "and some are told what fits");
        assert!(compared.crossed > 100, "packets go into other networks");
        assert!(compared.released > 50, "and are held on their way there");
    });
}

#[test]
fn gateways_take_what_the_model_says() {
    in_namespace("test-gateways", |config| {
        let mut both = Both::open(config);
        let compared: Tally = (0..SEEDS)
            .map(|seed| compare(&mut both, &Scenario::with_gateways(seed), seed % 2 == 0))
            .sum();
        println!(
            "{} frames compared: by a gateway {:?} (switched, routed), {} answered, {} held, out {:?} (sent, no gateway); {} events",
            compared.frames,
            compared.by_gateway,
            compared.answered,
            compared.held,
            compared.outside,
            compared.told
        );
        assert!(
            compared.by_gateway.iter().all(|frames| *frames > 50),
            "both ways to a gateway"
        );
        assert!(
            compared.answered > 50 && compared.held > 50,
            "questions, and what rules hold"
        );
        assert!(compared.outside.iter().all(|frames| *frames > 20), "out, and not");
    });
}

#[test]
fn gateways_outlive_the_process() {
    in_namespace("test-gateways-kept", |config| {
        let mut by_gateway = 0;
        for seed in 0..SEEDS / 20 {
            let scenario = Scenario::with_gateways(seed);
            let mut before = EbpfDataplane::open(config).unwrap();
            for outcome in before.apply(&scenario.changes()) {
                outcome.unwrap();
            }
            drop(before);
            let tally = compare(&mut Both::open(config), &scenario, true);
            by_gateway += tally.by_gateway.iter().sum::<usize>();
        }
        assert!(by_gateway > 0);
    });
}

/// With devices that lead to external networks.
fn with_uplinks(config: &EbpfConfig) -> EbpfConfig {
    for ((device, mac), mtu) in EXTERNAL_DEVICES.into_iter().zip(EXTERNAL_MTUS) {
        let (address, mtu) = (mac.to_string(), mtu.to_string());
        ip(&[
            "link", "add", "dev", device, "address", &address, "mtu", &mtu, "type", "veth",
        ]);
    }
    EbpfConfig {
        uplinks: Scenario::floating(0).uplinks,
        ..config.clone()
    }
}

#[test]
fn floating_ips_are_translated_as_the_model_says() {
    in_namespace("test-floating", |config| {
        let mut both = Both::open(&with_uplinks(config));
        let compared: Tally = (0..SEEDS)
            .map(|seed| compare(&mut both, &Scenario::floating(seed), seed % 2 == 0))
            .sum();
        println!(
            "{} frames compared: {:?} (out, in, answered, passed, told too long, told expired, too long for the device)",
            compared.frames, compared.floating
        );
        let (ways, limits) = compared.floating.split_at(4);
        assert!(ways.iter().all(|frames| *frames > 100), "all ways");
        assert!(limits.iter().all(|frames| *frames > 20), "and who is told");
    });
}

#[test]
fn floating_ips_outlive_the_process() {
    in_namespace("test-floating-kept", |config| {
        let config = &with_uplinks(config);
        let mut floating = [0; 7];
        for seed in 0..SEEDS / 20 {
            let scenario = Scenario::floating(seed);
            let mut before = EbpfDataplane::open(config).unwrap();
            for outcome in before.apply(&scenario.changes()) {
                outcome.unwrap();
            }
            drop(before);
            let tally = compare(&mut Both::open(config), &scenario, true);
            floating = std::array::from_fn(|at| floating[at] + tally.floating[at]);
        }
        assert!(floating.iter().all(|frames| *frames > 0), "{floating:?}");
    });
}
