//! Seeds of small scenarios: whatever happens, the invariants hold. A seed that ever failed has a test with a name.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::ops::Range;

use alcor_sim::{
    engine::Sim,
    outcome::Outcome,
    report::{Machine, Report},
    scenario::Scenario,
};

fn scenario(name: &str, seed: u64) -> Scenario {
    let path = format!("{}/../../scenarios/{name}.toml", env!("CARGO_MANIFEST_DIR"));
    let mut scenario = Scenario::read(path.as_ref()).unwrap();
    scenario.seed = seed;
    scenario
}

fn run(scenario: Scenario) -> Outcome {
    Sim::new(scenario).run(&mut |_| {})
}

fn hold(name: &str, seeds: Range<u64>) {
    for seed in seeds {
        hold_with(name, seed, |_| {});
    }
}

/// Nothing was violated, and every threshold is kept: a run in which nothing happened does not pass.
fn hold_with(name: &str, seed: u64, change: impl FnOnce(&mut Scenario)) {
    let mut scenario = scenario(name, seed);
    change(&mut scenario);
    let outcome = run(scenario.clone());
    let path = format!("scenarios/{name}.toml");
    let report = Report::new(&path, &scenario, &outcome, &Machine::default());
    let missed: Vec<_> = report.thresholds.iter().filter(|judged| !judged.passed).collect();
    assert!(
        report.passed(),
        "{}\nmissed: {missed:#?}\n{:#?}",
        report.repeat,
        report.violations
    );
}

#[test]
fn a_region_without_faults() {
    hold("small", 0..10);
}

#[test]
fn a_region_with_faults_seeds_0_to_69() {
    hold("faults", 0..70);
}

#[test]
fn a_region_with_faults_seeds_70_to_139() {
    hold("faults", 70..140);
}

#[test]
fn a_region_with_faults_seeds_140_to_209() {
    hold("faults", 140..210);
}

/// As often as before, with leases that are over many times while things go wrong.
#[test]
fn a_region_with_faults_and_short_leases() {
    for seed in 0..40 {
        hold_with("faults", seed, |scenario| scenario.ncm.lease_ms = Some(8_000));
    }
}

/// After a restart of the NCM answers had older revisions than what it had told before, so a host that had given a row up never took
/// it again; when answers had newer ones, it did not take the row of a snapshot. With the seeds that found it.
#[test]
fn a_host_takes_the_word_of_an_ncm_that_was_started_again() {
    for seed in [23, 37] {
        hold_with("faults", seed, |scenario| scenario.ncm.lease_ms = Some(8_000));
    }
}

/// What is on its way to where a port was is passed on, and not lost.
#[test]
fn ports_that_move_while_many_speak_to_them() {
    hold("migrations", 0..20);
}

#[test]
fn networks_that_routers_join_and_part() {
    hold("routers", 0..15);
}

#[test]
fn gateways_that_die_and_are_drained() {
    hold("gateways", 0..16);
}

/// Words that a partition held up, sets of which everybody is drained, heartbeats on their way whenever it is looked: none is wrong.
#[test]
fn gateways_that_were_judged_wrongly() {
    for seed in [32, 67, 69, 109] {
        hold("gateways", seed..seed + 1);
    }
}

#[test]
fn networks_that_are_learned() {
    hold("learned", 0..3);
}

/// A host came back into a network, was told to forget it and then all of it; of the ports that had left it before it was told no
/// more, though it passed on by what it was told.
#[test]
fn a_host_is_told_of_changes_of_all_that_a_snapshot_named() {
    hold_with("learned", 3, |scenario| {
        // As it was then: some ports came before the NCM, and waited for it.
        scenario.hosts.ramp_s = 0.5;
        scenario.thresholds.remove("programmed_us_p99");
    });
}

/// A host was told to forget a network that a port of its had left, and had said so; rows for it waited, made before the port left its
/// next place. It was not told of that, as if it had nothing.
#[test]
fn a_host_is_told_of_changes_of_what_still_waits_for_it() {
    hold_with("faults", 21, |_| {});
}

/// A host's clock was set back, and its agent started again: it was refused as long as the NCM lived.
#[test]
fn an_agent_that_starts_in_the_past_is_taken() {
    hold_with("faults", 1, |scenario| {
        scenario.faults.clock_jump_per_s = 0.1;
        scenario.faults.impersonating_share = 0.0;
    });
}

/// Two said hello under one name, and the region kept the address of the one that had gone.
#[test]
fn the_address_of_who_stays_is_kept() {
    hold_with("faults", 19, |scenario| {
        scenario.faults.clock_jump_per_s = 0.0;
        scenario.faults.impersonating_share = 0.3;
    });
}

#[test]
fn a_seed_gives_the_same_run_again() {
    let once = || {
        let outcome = run(scenario("faults", 5));
        let totals = outcome.figures.totals().clone();
        (outcome.events, outcome.last_events, totals)
    };
    assert_eq!(once(), once());
}
