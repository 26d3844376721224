//! Random goal states and frames through the model of a gateway and through its kernel program: same verdicts, bytes, counters and
//! rows. Needs root and the kernel programs.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::{
    collections::{BTreeMap, VecDeque},
    thread,
    time::Duration,
};

use alcor_dataplane::{
    Dataplane, DropReason, RowChange,
    gateway::{GatewayModel, GatewayVerdict, NatLimits},
    testing::gateway::{GatewayScenario, Step, TUNNEL_IP, answer},
};
use alcor_dataplane_abi::gateway_layout::{
    GATEWAY_LAYOUT, ICMP_ERROR_BURST, ICMP_ERRORS_PER_S, NAT_CONNECTIONS_PER_ROUTER, NAT_SHARE,
};
use alcor_dataplane_ebpf::{GatewayConfig, XdpGateway};
use aya::maps::{HashMap, Map, MapData};
use nix::sched::{CloneFlags, unshare};

const SEEDS: u64 = 300;
/// Room for all connections of a scenario.
const ROOMY: NatLimits = NatLimits {
    connections: 4096,
    connections_per_router: NAT_CONNECTIONS_PER_ROUTER,
    last_port: u16::MAX,
};

/// Runs a test on a thread with a network namespace of its own, which goes with the thread.
fn in_namespace(instance: &str, limits: NatLimits, test: impl FnOnce(&GatewayConfig) + Send) {
    let mut config = GatewayConfig::new(instance, TUNNEL_IP, "lo");
    config.trace = true;
    config.nat = limits;
    config.max_neighbours = 4096;
    let body = || {
        unshare(CloneFlags::CLONE_NEWNET).expect("needs root: a network namespace of its own");
        XdpGateway::purge(&config).unwrap();
        test(&config);
        XdpGateway::purge(&config).unwrap();
    };
    thread::scope(|scope| scope.spawn(body).join().unwrap());
}

/// How often each kind of verdict came.
type Tally = BTreeMap<String, usize>;

fn kind(verdict: &GatewayVerdict) -> String {
    match verdict {
        GatewayVerdict::Underlay(_) => "underlay".to_owned(),
        GatewayVerdict::Outside(_) => "outside".to_owned(),
        GatewayVerdict::Reply(_) => "reply".to_owned(),
        GatewayVerdict::Pass => "pass".to_owned(),
        GatewayVerdict::Drop(reason) => reason.as_str().to_owned(),
    }
}

/// What is rare and must not be missing.
fn notable(frame: &[u8], verdict: &GatewayVerdict) -> Vec<&'static str> {
    const INNER: usize = 20 + 8 + 8 + 14;
    let (packet, came, way) = match verdict {
        GatewayVerdict::Outside(packet) => (packet.as_ref(), 14 + INNER, "later fragment north"),
        GatewayVerdict::Underlay(packet) => (
            packet.get(INNER..).unwrap_or_default(),
            14,
            "later fragment south",
        ),
        _ => return Vec::new(),
    };
    let hidden = [1u8, 2, 3, 4, 5, 6].map(|last| [203, 0, 113, last]);
    let mut notable = Vec::new();
    let is_later = packet
        .get(6..8)
        .is_some_and(|word| (word[0] & 0x1f, word[1]) != (0, 0));
    // To or from a router's address: a floating IP's would be notable too, and there are few.
    if is_later && way.ends_with("north") && hidden.iter().any(|ip| packet.get(12..16) == Some(&ip[..])) {
        notable.push(way);
    }
    let is_destined = frame.get(came + 16..came + 20);
    if is_later && way.ends_with("south") && hidden.iter().any(|ip| is_destined == Some(&ip[..])) {
        notable.push(way);
    }
    let is_error = matches!(verdict, GatewayVerdict::Underlay(_)) && packet.get(9) == Some(&1);
    if is_error && packet.get(20..22) == Some(&[3, 4]) && packet.get(15) == Some(&254) {
        notable.push("told a tenant");
    }
    notable
}

/// Takes both through a scenario.
fn compare(
    gateway: &mut XdpGateway,
    limits: NatLimits,
    seed: u64,
    scenario: &GatewayScenario,
    tally: &mut Tally,
) {
    let mut model = GatewayModel::new(TUNNEL_IP, true);
    model.set_nat_limits(limits);
    for row in gateway.snapshot().unwrap().rows {
        assert!(gateway.apply(&[RowChange::Remove(row.key())])[0].is_ok());
    }
    // What the scenario before it left of the meter of ICMP errors.
    gateway.advance(Duration::from_secs(2)).unwrap();
    gateway.set_way_mtu(u16::MAX).unwrap();
    let before = gateway.drops().unwrap();
    let mut sent: VecDeque<GatewayVerdict> = VecDeque::new();
    for (number, step) in scenario.steps.iter().enumerate() {
        let answered;
        let (side, frame) = match step {
            Step::Apply(changes) => {
                let outcomes = |dataplane: &mut dyn Dataplane| -> Vec<bool> {
                    dataplane.apply(changes).iter().map(Result::is_ok).collect()
                };
                assert_eq!(
                    outcomes(gateway),
                    outcomes(&mut model),
                    "seed {seed} step {number}"
                );
                continue;
            }
            Step::Advance(by) => {
                gateway.advance(*by).unwrap();
                // The kernel's clock goes on between scenarios.
                model.advance(*by);
                continue;
            }
            Step::Sweep => {
                gateway.sweep().unwrap();
                model.sweep();
                continue;
            }
            Step::WayMtu(mtu) => {
                gateway.set_way_mtu(*mtu).unwrap();
                model.set_way_mtu(*mtu);
                continue;
            }
            Step::Answer(seed) => {
                let verdict = sent.get(*seed as usize % sent.len().max(1));
                answered = verdict.and_then(|verdict| answer(*seed, verdict));
                match &answered {
                    Some((side, frame)) => (side, frame),
                    None => continue,
                }
            }
            Step::Frame(side, frame) => (side, frame),
        };
        if frame.len() < 15 {
            continue;
        }
        let (seen, wanted) = (gateway.trace(side, frame).unwrap(), model.process(side, frame));
        assert_eq!(seen, wanted, "seed {seed} step {number}: {side:?} {frame:02x?}");
        *tally.entry(kind(&wanted)).or_default() += 1;
        for what in notable(frame, &wanted) {
            *tally.entry(what.to_owned()).or_default() += 1;
        }
        if matches!(wanted, GatewayVerdict::Outside(_) | GatewayVerdict::Underlay(_)) {
            sent.push_front(wanted);
            sent.truncate(4);
        }
    }
    assert_eq!(
        gateway.snapshot().unwrap(),
        model.snapshot().unwrap(),
        "seed {seed}"
    );
    let mut connections = BTreeMap::new();
    for nat in gateway.nat().unwrap().iter().filter(|nat| nat.connections > 0) {
        connections.insert(nat.router, nat.connections);
    }
    assert_eq!(connections, model.nat_connections(), "seed {seed}");
    let mut drops = gateway.drops().unwrap();
    for (key, count) in before {
        *drops.get_mut(&key).unwrap() -= count;
    }
    drops.retain(|_, count| *count > 0);
    assert_eq!(drops, model.drops().unwrap(), "seed {seed}");
}

/// Compares many scenarios; says how often each verdict came.
fn compare_all(
    config: &GatewayConfig,
    scenario: fn(u64) -> GatewayScenario,
) -> impl Fn(&str) -> usize + use<> {
    let mut gateway = XdpGateway::open(config).unwrap();
    let mut tally = Tally::new();
    for seed in 0..SEEDS {
        if seed % 50 == 49 {
            // A process that starts again finds everything.
            let rows = gateway.snapshot().unwrap();
            drop(gateway);
            gateway = XdpGateway::open(config).unwrap();
            assert_eq!(gateway.snapshot().unwrap(), rows);
        }
        compare(&mut gateway, config.nat, seed, &scenario(seed), &mut tally);
    }
    println!("{tally:?}");
    move |kind| tally.get(kind).copied().unwrap_or_default()
}

#[test]
fn between_hosts_it_does_what_the_model_does() {
    in_namespace("test-gateway-east-west", ROOMY, |config| {
        let count = compare_all(config, GatewayScenario::east_west);
        for kind in ["underlay", "reply", "pass"] {
            assert!(count(kind) > 500, "{kind}");
        }
        for reason in [
            DropReason::Malformed,
            DropReason::UnknownVni,
            DropReason::UnknownUnderlay,
            DropReason::UnknownDestination,
            DropReason::Loop,
            DropReason::NoFlood,
            DropReason::PortDown,
            DropReason::UnknownFragment,
            DropReason::UnsupportedEtherType,
        ] {
            assert!(count(reason.as_str()) > 20, "{}", reason.as_str());
        }
    });
}

#[test]
fn to_and_from_the_outside_it_does_what_the_model_does() {
    in_namespace("test-gateway-north-south", ROOMY, |config| {
        let count = compare_all(config, GatewayScenario::north_south);
        for kind in ["underlay", "outside", "reply", "pass"] {
            assert!(count(kind) > 500, "{kind}");
        }
        for kind in ["later fragment north", "later fragment south", "told a tenant"] {
            assert!(count(kind) > 25, "{kind}: {}", count(kind));
        }
        for reason in [
            DropReason::NoTranslation,
            DropReason::NotOwner,
            DropReason::NoRoute,
            DropReason::Oversize,
            DropReason::Loop,
            DropReason::Malformed,
            DropReason::UnknownFragment,
            DropReason::UnknownDestination,
            DropReason::OutsideDenied,
            DropReason::UnsupportedEtherType,
        ] {
            assert!(count(reason.as_str()) > 20, "{}", reason.as_str());
        }
    });
}

#[test]
fn want_of_ports_and_of_room_is_what_the_model_says() {
    let limits = NatLimits {
        connections: 4096,
        connections_per_router: 6,
        last_port: 1024,
    };
    in_namespace("test-gateway-limits", limits, |config| {
        let count = compare_all(config, GatewayScenario::north_south);
        for reason in [DropReason::NatConnectionLimit, DropReason::NatPortsExhausted] {
            assert!(count(reason.as_str()) > 10, "{}", reason.as_str());
        }
    });
}

#[test]
fn icmp_errors_are_as_many_as_the_meter_says() {
    in_namespace("test-gateway-icmp", ROOMY, |config| {
        let mut gateway = XdpGateway::open(config).unwrap();
        let mut tally = Tally::new();
        let scenario = GatewayScenario::expiring(ICMP_ERROR_BURST + 100);
        compare(&mut gateway, ROOMY, 0, &scenario, &mut tally);
        // At first the burst; half a second later what half a second gives back.
        let sent = ICMP_ERROR_BURST + ICMP_ERRORS_PER_S / 2;
        assert_eq!(tally["reply"] as u64, sent);
        assert_eq!(tally["icmp_limit"] as u64, 2 * (ICMP_ERROR_BURST + 100) - sent);
    });
}

#[test]
fn a_router_leaves_connections_to_others() {
    const ROOM: u16 = 1000;
    // So many that a share of what is left has room for no more.
    const TAKEN: u16 = ROOM / (NAT_SHARE as u16 + 1);
    let limits = NatLimits {
        connections: u32::from(ROOM),
        ..ROOMY
    };
    in_namespace("test-gateway-share", limits, |config| {
        let mut gateway = XdpGateway::open(config).unwrap();
        let mut tally = Tally::new();
        let scenario = GatewayScenario::crowd(TAKEN + 50, 10);
        compare(&mut gateway, limits, 0, &scenario, &mut tally);
        let count = |kind: &str| tally.get(kind).copied().unwrap_or_default();
        assert_eq!(count(DropReason::NatConnectionLimit.as_str()), 50);
        assert_eq!(count("outside"), usize::from(TAKEN) + 10);
        // What is gone is free again.
        let rows = gateway.snapshot().unwrap().rows;
        for row in &rows {
            assert!(gateway.apply(&[RowChange::Remove(row.key())])[0].is_ok());
        }
        compare(&mut gateway, limits, 1, &scenario, &mut tally);
    });
}

/// The outsides of an instance's translations, as bytes.
fn outsides(config: &GatewayConfig) -> HashMap<MapData, [u8; 20], [u8; 12]> {
    let folder = config.bpffs.join("alcor-gateway").join(&config.instance);
    let path = folder
        .join(format!("layout-{GATEWAY_LAYOUT}"))
        .join("maps/gw_nat_back");
    assert!(path.exists(), "{}", path.display());
    HashMap::try_from(Map::HashMap(MapData::from_pin(path).unwrap())).unwrap()
}

#[test]
fn a_port_that_nothing_uses_is_free_again_and_no_other() {
    in_namespace("test-gateway-halves", ROOMY, |config| {
        let mut gateway = XdpGateway::open(config).unwrap();
        compare(
            &mut gateway,
            ROOMY,
            0,
            &GatewayScenario::crowd(3, 2),
            &mut Tally::new(),
        );
        let mut outsides = outsides(config);
        outsides.insert([7; 20], [7; 12], 0).unwrap();
        let used = outsides.keys().next().unwrap().unwrap();
        assert_eq!(outsides.keys().count(), 6);
        // The program may be about to make the other half.
        gateway.remove_halves().unwrap();
        assert_eq!(outsides.keys().count(), 6);
        gateway.remove_halves().unwrap();
        assert_eq!(outsides.keys().count(), 5);
        assert!(outsides.get(&[7; 20], 0).is_err());
        let count = |gateway: &XdpGateway| -> u64 {
            let nat = gateway.nat().unwrap();
            nat.iter().map(|nat| nat.connections).sum()
        };
        assert_eq!(count(&gateway), 5);
        // An inside that has lost its outside goes too.
        let used = if used == [7; 20] {
            outsides.keys().next().unwrap().unwrap()
        } else {
            used
        };
        outsides.remove(&used).unwrap();
        gateway.remove_halves().unwrap();
        gateway.remove_halves().unwrap();
        assert_eq!((count(&gateway), outsides.keys().count()), (4, 4));
    });
}
