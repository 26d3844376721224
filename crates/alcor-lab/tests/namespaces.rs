//! Labs on the real kernel. Built only with the feature `root-tests`, so that a missing right is a failure and not a skip.
#![allow(clippy::unwrap_used, reason = "a panic is how a test says no")]

use std::{path::Path, time::Duration};

use alcor_lab::{Lab, LabError, Namespace, Process, eventually, plug};

const BOUND: Duration = Duration::from_secs(20);

fn namespaces(lab: &str) -> usize {
    let prefix = format!("alc-{lab}-");
    let entries = std::fs::read_dir("/run/netns").into_iter().flatten().flatten();
    entries
        .filter(|entry| entry.file_name().to_string_lossy().starts_with(&prefix))
        .count()
}

fn spawn(lab: &Lab, namespace: Option<&Namespace>, label: &str, line: &str) -> Process {
    let mut words = line.split(' ');
    let program = Path::new(words.next().unwrap());
    lab.spawn(namespace, label, program, &words.collect::<Vec<_>>())
        .unwrap()
}

/// Whether a process still runs. One that was stopped may be a zombie here, which has no command line.
fn runs(pid: u32) -> bool {
    std::fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| !line.is_empty())
}

#[test]
fn two_labs_side_by_side_reach_their_own_hosts_only() {
    let (a, b) = (Lab::new("lsidea").unwrap(), Lab::new("lsideb").unwrap());
    let host = |lab: &Lab, wire: &Namespace, name: &str, address: &str| {
        lab.host(wire, name, address.parse().unwrap(), 1500).unwrap()
    };
    let (wire_a, wire_b) = (a.wire(1500).unwrap(), b.wire(1500).unwrap());
    let a1 = host(&a, &wire_a, "h1", "198.18.2.11");
    let a2 = host(&a, &wire_a, "h2", "198.18.2.12");
    let b1 = host(&b, &wire_b, "h1", "198.18.2.11");
    a.plug_root(&wire_a, "198.18.2.1".parse().unwrap()).unwrap();
    let pings = |from: &Namespace, to: &str| from.run(&["ping", "-n", "-c1", "-W1", to]).is_ok();
    assert!(pings(&a1, "198.18.2.12") && pings(&a2, "198.18.2.11") && pings(&a1, "198.18.2.1"));
    assert!(!pings(&b1, "198.18.2.12"), "labs must not see each other");
    drop(a);
    assert_eq!((namespaces("lsidea"), namespaces("lsideb")), (0, 2));
    assert!(!Path::new("/sys/class/net/alc-lsidea").exists());
}

#[test]
fn a_vm_is_unplugged_and_plugged_again() {
    let lab = Lab::new("lplug").unwrap();
    let host = lab.namespace("h1").unwrap();
    let vm = lab
        .vm(&host, "vm1", "tap0123abcd-ef", "fa:16:3e:00:00:01")
        .unwrap();
    let there = || host.ip(&["link", "show", "tap0123abcd-ef"]);
    there().unwrap();
    assert!(
        vm.ip(&["link", "show", "eth0"])
            .unwrap()
            .contains("fa:16:3e:00:00:01")
    );
    vm.ip(&["link", "delete", "eth0"]).unwrap();
    eventually("the other end to go", BOUND, || match there() {
        Err(_) => Ok(()),
        Ok(shown) => Err(shown),
    })
    .unwrap();
    plug(&vm, &host, "tap0123abcd-ef", "fa:16:3e:00:00:01").unwrap();
    there().unwrap();
}

#[test]
fn processes_run_in_their_namespace_print_to_files_and_are_stopped() {
    let lab = Lab::new("lproc").unwrap();
    let namespace = lab.namespace("h1").unwrap();
    namespace.ip(&["link", "add", "mark", "type", "veth"]).unwrap();
    let mut shown = spawn(&lab, Some(&namespace), "links", "ip -br link");
    assert!(shown.wait(BOUND).unwrap().success());
    assert!(shown.output().contains("mark"));
    let mut sleeper = spawn(&lab, Some(&namespace), "sleeper", "sleep 1000");
    assert!(sleeper.ended().is_none());
    sleeper.stop();
    assert!(sleeper.ended().is_some());
    let left = spawn(&lab, None, "left", "sleep 1000");
    drop(lab);
    assert!(!runs(left.pid()));
}

#[test]
fn what_a_crashed_run_left_is_removed_by_the_next() {
    let mut lab = Lab::new("lcrash").unwrap();
    let wire = lab.wire(1500).unwrap();
    lab.plug_root(&wire, "198.18.3.1".parse().unwrap()).unwrap();
    let (inside, outside) = (
        spawn(&lab, Some(&wire), "inside", "sleep 1000"),
        spawn(&lab, None, "outside", "sleep 1000"),
    );
    let folder = lab.dir();
    lab.keep();
    drop(lab);
    // While a process becomes the program, which nsenter is only on the way to, the kernel shows no command line of it.
    let both = || {
        (runs(inside.pid()) && runs(outside.pid()))
            .then_some(())
            .ok_or("one of them does not run")
    };
    eventually("both processes", BOUND, || both().map_err(str::to_owned)).unwrap();
    assert_eq!(namespaces("lcrash"), 1);
    drop(Lab::new("lcrash").unwrap());
    assert!(!runs(inside.pid()) && !runs(outside.pid()));
    assert_eq!(namespaces("lcrash"), 0);
    assert!(!folder.exists() && !Path::new("/sys/class/net/alc-lcrash").exists());
}

#[test]
fn a_command_that_fails_says_why_and_bad_names_are_refused() {
    let lab = Lab::new("lfail").unwrap();
    let namespace = lab.namespace("h1").unwrap();
    let error = namespace.ip(&["link", "set", "nothing", "up"]).unwrap_err();
    assert!(
        matches!(&error, LabError::Command { stderr, .. } if stderr.contains("nothing")),
        "{error}"
    );
    for bad in ["", "../x", "a b", "toolongname", "Upper"] {
        assert!(matches!(Lab::new(bad), Err(LabError::Name(_))), "{bad}");
    }
}

#[test]
fn a_gateway_is_on_the_wire_of_hosts_and_on_that_of_the_outside() {
    let lab = Lab::new("lgate").unwrap();
    let ip = |text: &str| text.parse().unwrap();
    let (hosts, outside) = (lab.wire(1500).unwrap(), lab.wire_called("owire", 1500).unwrap());
    let host = lab.host(&hosts, "h1", ip("198.18.3.11"), 1500).unwrap();
    let far = lab.host(&outside, "far", ip("203.0.113.1"), 1500).unwrap();
    lab.gateway(
        "g1",
        &hosts,
        ip("198.18.3.21"),
        (&outside, ip("203.0.113.251")),
        1500,
    )
    .unwrap();
    let pings = |from: &alcor_lab::Namespace, to: &str| from.run(&["ping", "-c1", "-W2", to]).is_ok();
    assert!(pings(&host, "198.18.3.21") && pings(&far, "203.0.113.251"));
    assert!(!pings(&host, "203.0.113.1"), "they are two wires");
}
