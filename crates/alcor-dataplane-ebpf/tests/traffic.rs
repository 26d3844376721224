//! Real packets between VMs of two hosts in network namespaces, also while data planes are opened again.
//! Needs root, iproute2, ping and the kernel programs.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    num::NonZeroU16,
    os::fd::AsRawFd,
    process::{Command, Stdio},
    thread,
};

use alcor_dataplane::{
    Dataplane, DropReason, LabelRow, NeighbourRow, NetworkRow, PolicyRow, PortRow, Row, RowChange,
    security::{Family, Remote, Rule, Service},
};
use alcor_dataplane_ebpf::{EbpfConfig, EbpfDataplane};
use alcor_model::Id;
use common::{Lab, VMS, ipv4, ipv6, network_id, port_id, rows};
use nix::{
    ifaddrs::getifaddrs,
    sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, sendto, socket},
};
use uuid::Uuid;

#[test]
fn every_vm_reaches_every_other_and_the_gateway() {
    let mut lab = Lab::new("atr");
    lab.program();
    for from in 0..VMS {
        for to in (0..VMS).filter(|to| *to != from) {
            lab.ping(from, ipv4(to), &[]);
            lab.ping(from, ipv6(to), &[]);
            // The largest packet that the MTU lets through in one piece.
            lab.ping(from, ipv4(to), &["-M", "do", "-s", "1422"]);
        }
    }
    lab.ping(0, "10.0.0.1".parse().unwrap(), &[]);
    lab.ping(0, "fd00::1".parse().unwrap(), &[]);
    let routed = lab.ping(0, ipv4(3), &[]);
    assert!(routed.contains("ttl=63"), "one hop between subnets: {routed}");
}

/// Sends `len` bytes from one VM to another over TCP; returns what arrived.
fn transfer(lab: &Lab, from: usize, to: usize, ip: std::net::IpAddr, len: usize) -> Vec<u8> {
    let listener = lab.vms[to].inside(|| TcpListener::bind((ip, 7000)).unwrap());
    thread::scope(|scope| {
        let receiver = scope.spawn(move || {
            let mut received = Vec::new();
            listener.accept().unwrap().0.read_to_end(&mut received).unwrap();
            received
        });
        let data = pattern(len);
        let mut stream = lab.vms[from].inside(|| TcpStream::connect((ip, 7000)).unwrap());
        stream.write_all(&data).unwrap();
        drop(stream);
        receiver.join().unwrap()
    })
}

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at / 7 + at * 31) as u8).collect()
}

#[test]
fn tcp_carries_large_segments_unharmed() {
    const LEN: usize = 16 << 20;
    let mut lab = Lab::new("atc");
    lab.program();
    for (from, to) in [(0, 1), (0, 2), (3, 0)] {
        for ip in [ipv4(to), ipv6(to)] {
            assert!(
                transfer(&lab, from, to, ip, LEN) == pattern(LEN),
                "from {from} to {ip}"
            );
        }
    }
}

#[test]
fn opening_again_loses_no_packet_and_finds_everything() {
    let mut lab = Lab::new("atk");
    lab.program();
    let expected: Vec<_> = lab
        .dataplanes
        .iter_mut()
        .map(|dataplane| dataplane.as_mut().unwrap().snapshot().unwrap())
        .collect();
    lab.ping(0, ipv4(2), &[]);
    let target = ipv4(2).to_string();
    let mut pinging = lab.vms[0].start(&["ping", "-n", "-i", "0.01", "-c", "800", &target]);
    for _ in 0..4 {
        for (host, expected) in expected.iter().enumerate() {
            let snapshot = lab.open(host).snapshot().unwrap();
            assert_eq!(snapshot, *expected);
            let mut found = rows(host);
            found.sort_by_key(alcor_dataplane::Row::key);
            assert_eq!(snapshot.rows, found);
        }
    }
    assert!(
        pinging.try_wait().unwrap().is_none(),
        "the ping must outlast the restarts"
    );
    let output = pinging.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        text.contains("800 packets transmitted, 800 received, 0% packet loss"),
        "{text}"
    );
}

/// Rows that put every port of a host under one group.
fn secured(host: usize, policy: PolicyRow) -> Vec<RowChange> {
    let label = LabelRow {
        network_id: network_id(),
        label: NonZeroU16::MIN,
        groups: vec![policy.group_id],
    };
    let labelled = rows(host).into_iter().filter_map(|row| match row {
        Row::Port(row) => Some(Row::Port(PortRow {
            label: Some(1),
            ..row
        })),
        Row::Neighbour(row) => Some(Row::Neighbour(NeighbourRow { label: 1, ..row })),
        _ => None,
    });
    let security = [Row::Policy(policy), Row::Label(label)];
    security.into_iter().chain(labelled).map(RowChange::Put).collect()
}

/// Pings may come from members, and what else is allowed differs from version to version.
fn changing_policy(stateful: bool, version: u16) -> PolicyRow {
    let group_id = Id::from_uuid(Uuid::from_u128(99));
    let ping = Rule {
        family: Family::Ipv4,
        service: Some(Service::icmp(1, 8, None)),
        remote: Remote::Group(group_id),
    };
    let answer = Rule {
        service: Some(Service::icmp(1, 0, None)),
        ..ping.clone()
    };
    let others = (0..50).map(|number| Rule {
        family: Family::Ipv4,
        service: Some(Service::ports(6, version + number, version + 2 * number)),
        remote: Remote::Prefixes(vec![
            format!("10.{}.{number}.0/24", version & 0xff).parse().unwrap(),
        ]),
    });
    let rules: Vec<Rule> = [ping, answer].into_iter().chain(others).collect();
    PolicyRow {
        network_id: network_id(),
        group_id,
        stateful,
        ingress: rules.clone(),
        egress: rules,
    }
}

#[test]
fn rules_that_change_lose_no_packet_that_old_and_new_ones_allow() {
    let mut lab = Lab::new("ats");
    lab.program();
    for stateful in [true, false] {
        let change = |lab: &mut Lab, version| {
            for host in 0..2 {
                let changes = secured(host, changing_policy(stateful, version));
                for outcome in lab.dataplanes[host].as_mut().unwrap().apply(&changes) {
                    outcome.unwrap();
                }
            }
        };
        change(&mut lab, 1);
        lab.ping(0, ipv4(2), &[]);
        let pinging: Vec<_> = [1, 2]
            .map(|to| {
                let to = ipv4(to).to_string();
                lab.vms[0].start(&["ping", "-n", "-q", "-i", "0.002", "-c", "1000", &to])
            })
            .into();
        for version in 2..100 {
            change(&mut lab, version);
        }
        for ping in pinging {
            let output = ping.wait_with_output().unwrap();
            let text = String::from_utf8_lossy(&output.stdout);
            assert!(text.contains("1000 received, 0% packet loss"), "{text}");
        }
        // And what no version allows does not pass.
        let refused = ["ping", "-n", "-c", "1", "-W", "1", &ipv6(2).to_string()];
        assert!(!lab.vms[0].start(&refused).wait().unwrap().success());
    }
    let key = (Some(port_id(0)), DropReason::EgressDenied);
    let drops = lab.dataplanes[0].as_mut().unwrap().drops().unwrap();
    assert!(drops.get(&key).is_some_and(|count| *count >= 2), "{drops:?}");
}

#[test]
fn labels_are_believed_from_the_blocks_of_hosts_only() {
    let mut lab = Lab::new("atu");
    lab.program();
    for host in 0..2 {
        let changes = secured(host, changing_policy(true, 1));
        for outcome in lab.dataplanes[host].as_mut().unwrap().apply(&changes) {
            outcome.unwrap();
        }
    }
    lab.ping(0, ipv4(2), &[]);
    let elsewhere = |row: Row| match row {
        Row::Network(row) => Some(RowChange::Put(Row::Network(NetworkRow {
            underlay: Some(vec!["198.51.100.0/24".parse().unwrap()]),
            on_demand: false,
            ..row
        }))),
        _ => None,
    };
    let change: Vec<RowChange> = rows(1).into_iter().filter_map(elsewhere).collect();
    let dataplane = lab.dataplanes[1].as_mut().unwrap();
    dataplane.apply(&change).remove(0).unwrap();
    let refused = ["ping", "-n", "-c", "1", "-W", "1", &ipv4(2).to_string()];
    assert!(!lab.vms[0].start(&refused).wait().unwrap().success());
    let drops = lab.dataplanes[1].as_mut().unwrap().drops().unwrap();
    assert!(
        drops.contains_key(&(None, DropReason::UnknownUnderlay)),
        "{drops:?}"
    );
}

/// The instance that [`holds_a_data_plane`] opens.
const INSTANCE_VARIABLE: &str = "ALCOR_TEST_INSTANCE";

#[test]
#[ignore = "not a test: the process that `killed_processes_lose_no_packet` starts and kills"]
fn holds_a_data_plane() {
    let instance = std::env::var(INSTANCE_VARIABLE).unwrap();
    let mut dataplane = EbpfDataplane::open(&EbpfConfig::new(instance)).unwrap();
    println!("open with {} rows", dataplane.snapshot().unwrap().rows.len());
    loop {
        thread::park();
    }
}

#[test]
fn killed_processes_lose_no_packet() {
    let mut lab = Lab::new("atx");
    lab.program();
    lab.dataplanes = vec![None, None];
    lab.ping(0, ipv4(2), &[]);
    let target = ipv4(2).to_string();
    let mut pinging = lab.vms[0].start(&["ping", "-n", "-i", "0.01", "-c", "400", &target]);
    for host in [0, 1, 0, 1] {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command
            .args(["--ignored", "--exact", "holds_a_data_plane", "--nocapture"])
            .env(INSTANCE_VARIABLE, format!("atx-h{host}"))
            .stdout(Stdio::piped());
        let mut agent = lab.hosts[host].inside(|| command.spawn().unwrap());
        let lines = BufReader::new(agent.stdout.take().unwrap()).lines();
        let open = format!("open with {} rows", rows(host).len());
        let found = lines.map_while(Result::ok).any(|line| line.ends_with(&open));
        // Kill is SIGKILL: nothing in the process gets to tidy up.
        agent.kill().unwrap();
        agent.wait().unwrap();
        assert!(found, "the process finds all rows: {open}");
    }
    assert!(
        pinging.try_wait().unwrap().is_none(),
        "the ping must outlast the processes"
    );
    let output = pinging.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        text.contains("400 packets transmitted, 400 received, 0% packet loss"),
        "{text}"
    );
}

#[test]
fn a_device_that_is_gone_is_not_found_again() {
    let mut lab = Lab::new("atg");
    lab.program();
    lab.dataplanes[0] = None;
    let device = alcor_model::Port::device_name(port_id(1));
    lab.hosts[0].run(&["ip", "link", "delete", &device]);
    let snapshot = lab.open(0).snapshot().unwrap();
    assert_eq!(snapshot.devices.keys().copied().collect::<Vec<_>>(), [port_id(0)]);
    lab.ping(0, ipv4(2), &[]);
}

#[test]
fn an_injected_frame_arrives_in_the_vm() {
    let mut lab = Lab::new("ati");
    lab.program();
    let received = |lab: &Lab| {
        let text = lab.vms[0].run(&["cat", "/proc/net/dev"]);
        let line = text
            .lines()
            .find(|line| line.trim_start().starts_with("eth0:"))
            .unwrap();
        line.split_whitespace().nth(2).unwrap().parse::<u64>().unwrap()
    };
    let before = received(&lab);
    let mut frame = vec![0; 64];
    frame[..6].copy_from_slice(&common::mac(0).0);
    lab.dataplanes[0]
        .as_mut()
        .unwrap()
        .inject(port_id(0), &frame)
        .unwrap();
    assert!(received(&lab) > before);
}

/// Sends a frame as it is out of a device of this namespace.
fn send_frame(device: &str, frame: &[u8]) {
    let mut addresses = getifaddrs()
        .unwrap()
        .filter(|address| address.interface_name == device);
    let to = addresses
        .find_map(|address| address.address?.as_link_addr().copied())
        .unwrap();
    let socket = socket(AddressFamily::Packet, SockType::Raw, SockFlag::empty(), None).unwrap();
    sendto(socket.as_raw_fd(), frame, &to, MsgFlags::empty()).unwrap();
}

#[test]
fn frames_with_a_vlan_tag_go_nowhere() {
    let mut lab = Lab::new("atv");
    lab.program();
    let mut frame = [0; 60];
    frame[..6].copy_from_slice(&common::mac(1).0);
    frame[6..12].copy_from_slice(&common::mac(0).0);
    frame[12..18].copy_from_slice(&[0x81, 0x00, 0, 5, 0x08, 0x00]);
    lab.vms[0].inside(|| send_frame("eth0", &frame));
    let drops = lab.dataplanes[0].as_mut().unwrap().drops().unwrap();
    assert_eq!(
        drops[&(Some(port_id(0)), DropReason::UnsupportedEtherType)],
        1,
        "{drops:?}"
    );
}

#[test]
fn a_vm_that_takes_another_address_is_not_heard() {
    let mut lab = Lab::new("ats");
    lab.program();
    lab.vms[0].run(&["ip", "address", "add", "10.0.0.99/24", "dev", "eth0"]);
    let peer = common::mac(2).to_string();
    let target = ipv4(2).to_string();
    lab.vms[0].run(&["ip", "neigh", "replace", &target, "lladdr", &peer, "dev", "eth0"]);
    // A station whose link-local address is not ready yet reports its multicast groups from `::`, which counts too.
    lab.vms[0].run(&["sysctl", "-q", "-w", "net.ipv6.conf.eth0.disable_ipv6=1"]);
    let spoofed = |lab: &mut Lab| {
        let drops = lab.dataplanes[0].as_mut().unwrap().drops().unwrap();
        let key = (Some(port_id(0)), DropReason::SpoofedIp);
        drops.get(&key).copied().unwrap_or_default()
    };
    let before = spoofed(&mut lab);
    let mut pinging = lab.vms[0].start(&["ping", "-n", "-c", "1", "-W", "1", "-I", "10.0.0.99", &target]);
    assert!(!pinging.wait().unwrap().success());
    assert_eq!(spoofed(&mut lab) - before, 1);
}
