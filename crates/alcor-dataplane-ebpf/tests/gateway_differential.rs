//! Random goal states and frames through the model of a gateway and through its kernel program: same verdicts, bytes, counters and
//! rows. Needs root and the kernel programs.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::{collections::BTreeMap, thread};

use alcor_dataplane::{
    Dataplane, DropReason,
    gateway::{GatewayModel, GatewayVerdict},
    testing::gateway::{GatewayScenario, Step, TUNNEL_IP},
};
use alcor_dataplane_ebpf::{GatewayConfig, XdpGateway};
use nix::sched::{CloneFlags, unshare};

const SEEDS: u64 = 300;

/// Runs a test on a thread with a network namespace of its own, which goes with the thread.
fn in_namespace(instance: &str, test: impl FnOnce(&GatewayConfig) + Send) {
    let mut config = GatewayConfig::new(instance, TUNNEL_IP, "lo");
    config.trace = true;
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

/// Takes both through a scenario.
fn compare(gateway: &mut XdpGateway, seed: u64, scenario: &GatewayScenario, tally: &mut Tally) {
    let mut model = GatewayModel::new(TUNNEL_IP, true);
    let networks: Vec<_> = gateway.snapshot().unwrap().rows;
    for row in networks {
        let gone = alcor_dataplane::RowChange::Remove(row.key());
        assert!(gateway.apply(&[gone])[0].is_ok());
    }
    let before = gateway.drops().unwrap();
    for (number, step) in scenario.steps.iter().enumerate() {
        match step {
            Step::Apply(changes) => {
                let outcomes = |dataplane: &mut dyn Dataplane| -> Vec<bool> {
                    dataplane.apply(changes).iter().map(Result::is_ok).collect()
                };
                assert_eq!(
                    outcomes(gateway),
                    outcomes(&mut model),
                    "seed {seed} step {number}"
                );
            }
            Step::Frame(side, frame) if frame.len() >= 15 => {
                let (seen, wanted) = (gateway.trace(side, frame).unwrap(), model.process(side, frame));
                assert_eq!(seen, wanted, "seed {seed} step {number}: {side:?} {frame:02x?}");
                *tally.entry(kind(&wanted)).or_default() += 1;
            }
            Step::Frame(..) => {}
        }
    }
    assert_eq!(
        gateway.snapshot().unwrap(),
        model.snapshot().unwrap(),
        "seed {seed}"
    );
    let mut drops = gateway.drops().unwrap();
    for (key, count) in before {
        *drops.get_mut(&key).unwrap() -= count;
    }
    drops.retain(|_, count| *count > 0);
    assert_eq!(drops, model.drops().unwrap(), "seed {seed}");
}

#[test]
fn between_hosts_it_does_what_the_model_does() {
    in_namespace("test-gateway-east-west", |config| {
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
            compare(&mut gateway, seed, &GatewayScenario::east_west(seed), &mut tally);
        }
        println!("{tally:?}");
        let count = |kind: &str| tally.get(kind).copied().unwrap_or_default();
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
