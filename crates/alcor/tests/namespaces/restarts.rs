//! Processes die; packets and answered calls do not.

use alcor_lab::{Process, eventually};
use serde_json::json;

use crate::region::{PATIENCE, Region, answered, interrupt, more_answers};

/// Intervals of a running iperf3 client that carried bytes.
fn intervals(client: &Process) -> usize {
    let printed = client.output();
    let lines = printed.lines().filter(|line| line.contains("bits/sec"));
    lines.filter(|line| !line.contains(" 0.00 bits/sec")).count()
}

fn more_intervals(client: &mut Process, more: usize) {
    let before = intervals(client);
    eventually("the TCP stream to go on", PATIENCE, || {
        match (intervals(client), client.ended()) {
            (now, None) if now >= before + more => Ok(()),
            (now, ended) => Err(format!("{now} intervals, ended: {ended:?}")),
        }
    })
    .unwrap();
}

#[test]
fn an_agent_that_is_killed_and_started_again_loses_no_packet() {
    let mut region = Region::start("tagent");
    let network = region.network();
    let subnet = region.subnet(&network, "10.0.0.0/24");
    let [from, to] = [("from", 0), ("to", 1)].map(|(name, host)| region.vm(name, host, &[&subnet]));
    let ip = to.ip(&subnet);
    from.reaches(&ip);
    let mut server = region.spawn(&to, "iperf-server", "iperf3", &["-s", "--forceflush"]);
    eventually("iperf3 to listen", PATIENCE, || {
        match server.output().contains("listening") {
            true => Ok(()),
            false => Err(server.output()),
        }
    })
    .unwrap();
    let stream = ["-c", &ip, "-t", "600", "-b", "20M", "-i", "0.2", "--forceflush"];
    let mut stream = region.spawn(&from, "iperf-client", "iperf3", &stream);
    let mut ping = region.spawn(&from, "ping", "ping", &["-n", "-i", "0.01", &ip]);
    more_answers(&mut ping, 20);
    more_intervals(&mut stream, 2);

    let runs = [0, 1].map(|host| region.host_in_step(host, 0));
    for (host, run) in runs.into_iter().enumerate() {
        region.crash_agent(host);
        region.host_in_step(host, run);
        more_answers(&mut ping, 20);
    }
    more_intervals(&mut stream, 2);
    interrupt(&mut ping);
    let numbers = answered(&ping);
    let expected: Vec<u64> = (1..=numbers.len() as u64).collect();
    assert_eq!(numbers, expected, "an answer is missing");
    stream.stop();
    server.stop();
    // What the agent took over still is the goal state, and it goes on working.
    region.status_becomes(&from, "ACTIVE");
    let late = region.vm("late", 0, &[&subnet]);
    late.reaches(&ip);
}

#[test]
fn a_controller_that_is_killed_keeps_what_it_answered() {
    let mut region = Region::start("tcontrol");
    let network = region.network();
    let subnet = region.subnet(&network, "10.0.0.0/16");
    let [from, to] = [("from", 0), ("to", 1)].map(|(name, host)| region.vm(name, host, &[&subnet]));
    let ip = to.ip(&subnet);
    from.reaches(&ip);
    let runs = [0, 1].map(|host| region.host_in_step(host, 0));
    let mut ping = region.spawn(&from, "ping", "ping", &["-n", "-i", "0.01", &ip]);
    more_answers(&mut ping, 5);

    // Killed between two calls at one time, within one at another: what was answered must be there.
    let mut ports = Vec::new();
    let pid = region.controller.pid();
    let killer = std::thread::spawn(move || {
        std::thread::sleep(std::time::Duration::from_millis(300));
        let pid = nix::unistd::Pid::from_raw(i32::try_from(pid).unwrap());
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
    });
    while let Some(port) = region.try_post("port", json!({"network_id": network})) {
        ports.push(port);
    }
    killer.join().unwrap();
    region.controller.kill();
    assert!(!ports.is_empty());
    more_answers(&mut ping, 20);
    region.restart_controller();
    for port in &ports {
        let found = region.get(&format!("/v2.0/ports/{}", port["id"].as_str().unwrap()));
        assert_eq!(found["port"]["fixed_ips"], port["fixed_ips"]);
    }
    // The same runs of the agents come back, are in step, and take new ports.
    for (host, run) in runs.into_iter().enumerate() {
        assert_eq!(region.host_in_step(host, 0), run);
    }
    region.status_becomes(&from, "ACTIVE");
    let late = region.vm("late", 1, &[&subnet]);
    late.reaches(&from.ip(&subnet));
    interrupt(&mut ping);
    let numbers = answered(&ping);
    let expected: Vec<u64> = (1..=numbers.len() as u64).collect();
    assert_eq!(numbers, expected, "an answer is missing");
}
