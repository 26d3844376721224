//! Networks on demand with real packets: addresses that no row tells are asked for, what is held goes on unharmed, what comes
//! for a port that has left is passed on. Needs root, iproute2, ping and the kernel programs.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::{
    io::{Read, Write},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    thread,
};

use alcor_dataplane::{Dataplane, DropReason, Event, NeighbourRow, NetworkRow, Row, RowChange, RowKey};
use common::{Lab, VNI, host_ip, host_of, ipv4, ipv6, mac, network_id, port_id, rows};
use nix::sys::socket::{setsockopt, sockopt};
use tokio::sync::mpsc;

/// Nobody has it; a test that is over asks for it.
const END: [u8; 4] = [10, 0, 0, 200];

fn apply(lab: &mut Lab, host: usize, changes: &[RowChange]) {
    for outcome in lab.dataplanes[host].as_mut().unwrap().apply(changes) {
        outcome.unwrap();
    }
}

/// Makes a host's network on demand, without any neighbour.
fn forget(lab: &mut Lab, host: usize) {
    let changes: Vec<RowChange> = rows(host)
        .into_iter()
        .filter_map(|row| match row {
            Row::Network(row) => Some(RowChange::Put(Row::Network(NetworkRow {
                on_demand: true,
                ..row
            }))),
            Row::Neighbour(row) => Some(RowChange::Remove(RowKey::Neighbour(row.network_id, row.ip))),
            _ => None,
        })
        .collect();
    apply(lab, host, &changes);
}

/// Does what an agent does on a host: puts the row of each address that is asked for and releases the frame, until
/// [`END`] is asked for. Returns the addresses asked for.
fn learn(lab: &mut Lab, host: usize, events: &mut mpsc::Receiver<Event>) -> Vec<IpAddr> {
    let mut asked = Vec::new();
    loop {
        let Event::Unresolved {
            port,
            network,
            address,
            frame,
        } = events.blocking_recv().unwrap()
        else {
            continue;
        };
        assert_eq!((host_of_port(port), network), (host, network_id()));
        if address == IpAddr::from(END) {
            return asked;
        }
        asked.push(address);
        let known = rows(host).into_iter().find(|row| match row {
            Row::Neighbour(row) => row.ip == address,
            _ => false,
        });
        if let Some(row) = known {
            apply(lab, host, &[RowChange::Put(row)]);
        }
        let (namespace, dataplane) = (&lab.hosts[host], lab.dataplanes[host].as_mut().unwrap());
        namespace.inside(|| dataplane.release(port, &frame).unwrap());
    }
}

fn host_of_port(port: alcor_model::Id<alcor_model::Port>) -> usize {
    host_of((0..common::VMS).find(|vm| port_id(*vm) == port).unwrap())
}

/// Runs `traffic` of VM 0 while its host learns; returns its result and what was asked for.
fn while_learning<T: Send>(lab: &mut Lab, traffic: impl FnOnce() -> T + Send) -> (T, Vec<IpAddr>) {
    let mut events = lab.dataplanes[0].as_mut().unwrap().events().unwrap();
    let end = std::fs::File::open(format!("/run/netns/{}", lab.vms[0].0)).unwrap();
    thread::scope(|scope| {
        let traffic = scope.spawn(move || {
            let result = traffic();
            nix::sched::setns(&end, nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
            let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
            socket.send_to(b"end", (IpAddr::from(END), 9)).unwrap();
            result
        });
        let asked = learn(lab, 0, &mut events);
        (traffic.join().unwrap(), asked)
    })
}

#[test]
fn pings_to_unknown_peers_are_held_and_none_is_lost() {
    let mut lab = Lab::new("aoh");
    lab.program();
    forget(&mut lab, 0);
    let targets = [ipv4(2), ipv6(2), ipv4(3), ipv6(3)];
    let pings = targets.map(|target| {
        let target = target.to_string();
        lab.vms[0].start(&["ping", "-n", "-i", "0.01", "-c", "20", "-W", "5", &target])
    });
    let (outputs, asked) = while_learning(&mut lab, move || {
        pings.map(|ping| ping.wait_with_output().unwrap())
    });
    for (output, target) in outputs.into_iter().zip(targets) {
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(text.contains("20 received, 0% packet loss"), "{text}");
        assert!(asked.contains(&target), "{target} of {asked:?}");
    }
    for target in targets {
        lab.ping(0, target, &[]);
    }
    let drops = lab.dataplanes[0].as_mut().unwrap().drops().unwrap();
    for reason in [DropReason::UnknownDestination, DropReason::PuntLimit] {
        assert!(!drops.contains_key(&(Some(port_id(0)), reason)), "{drops:?}");
    }
}

/// Tells VM 0 the MAC of VM 2, so that it need not ask.
fn tell_mac(lab: &Lab, ip: IpAddr) {
    let (ip, mac) = (ip.to_string(), mac(2).to_string());
    lab.vms[0].run(&["ip", "neigh", "replace", &ip, "lladdr", &mac, "dev", "eth0"]);
}

/// TCP segments that VM 0 has sent again, which it does when nobody answers.
fn retransmitted(lab: &Lab) -> String {
    let text = lab.vms[0].run(&["nstat", "-asz", "TcpRetransSegs"]);
    let line = text.lines().find(|line| line.starts_with("TcpRetransSegs"));
    line.unwrap().split_whitespace().nth(1).unwrap().to_owned()
}

#[test]
fn held_tcp_and_udp_arrive_with_right_checksums() {
    let mut lab = Lab::new("aoc");
    lab.program();
    forget(&mut lab, 0);
    // Their MACs are known to the VM, so the first packets themselves are held.
    for ip in [ipv4(2), ipv6(2)] {
        tell_mac(&lab, ip);
    }
    let targets = [ipv4(2), ipv6(2), ipv4(3), ipv6(3)];
    let receivers = targets.map(|ip| {
        let vm = if [ipv4(2), ipv6(2)].contains(&ip) { 2 } else { 3 };
        lab.vms[vm].inside(|| {
            let socket = UdpSocket::bind((ip, 7001)).unwrap();
            (TcpListener::bind((ip, 7000)).unwrap(), socket)
        })
    });
    let vm = std::fs::File::open(format!("/run/netns/{}", lab.vms[0].0)).unwrap();
    let (_, asked) = while_learning(&mut lab, move || {
        nix::sched::setns(&vm, nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
        for (ip, (listener, socket)) in targets.into_iter().zip(&receivers) {
            let any: SocketAddr = if ip.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" }.parse().unwrap();
            let sender = UdpSocket::bind(any).unwrap();
            sender.send_to(b"first", (ip, 7001)).unwrap();
            let mut text = [0; 16];
            let (len, _) = socket.recv_from(&mut text).unwrap();
            assert_eq!(&text[..len], b"first");
            let mut stream = TcpStream::connect((ip, 7000)).unwrap();
            let (mut accepted, _) = listener.accept().unwrap();
            stream.write_all(b"hello").unwrap();
            drop(stream);
            let mut text = String::new();
            accepted.read_to_string(&mut text).unwrap();
            assert_eq!(text, "hello");
        }
    });
    let [first, _, third, fourth] = targets;
    assert_eq!(
        asked,
        [first, third, fourth],
        "the second has a MAC that is known then"
    );
    assert_eq!(retransmitted(&lab), "0", "nothing was sent twice");
}

#[test]
fn a_syn_that_was_held_is_not_sent_again() {
    let mut lab = Lab::new("aos");
    lab.program();
    forget(&mut lab, 0);
    tell_mac(&lab, ipv4(2));
    let listener = lab.vms[2].inside(|| TcpListener::bind((ipv4(2), 7000)).unwrap());
    let vm = std::fs::File::open(format!("/run/netns/{}", lab.vms[0].0)).unwrap();
    let (_, asked) = while_learning(&mut lab, move || {
        nix::sched::setns(&vm, nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
        TcpStream::connect((ipv4(2), 7000)).unwrap();
        listener.accept().unwrap();
    });
    assert_eq!(asked, [ipv4(2)]);
    assert_eq!(retransmitted(&lab), "0");
}

#[test]
fn what_stays_unknown_is_dropped_when_it_is_released() {
    let mut lab = Lab::new("aou");
    lab.program();
    forget(&mut lab, 0);
    let nobody: IpAddr = [10, 0, 0, 99].into();
    let vm = std::fs::File::open(format!("/run/netns/{}", lab.vms[0].0)).unwrap();
    let (_, asked) = while_learning(&mut lab, move || {
        nix::sched::setns(&vm, nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        socket.send_to(b"anybody?", (nobody, 9)).unwrap();
    });
    assert!(asked.iter().all(|address| *address == nobody), "{asked:?}");
    let drops = lab.dataplanes[0].as_mut().unwrap().drops().unwrap();
    let dropped = drops[&(Some(port_id(0)), DropReason::UnknownDestination)];
    assert_eq!(dropped, asked.len() as u64, "once each: {drops:?}");
}

#[test]
fn what_is_too_long_to_be_held_is_told_as_lost() {
    let mut lab = Lab::new("aol");
    lab.program();
    forget(&mut lab, 0);
    tell_mac(&lab, ipv4(2));
    let mut events = lab.dataplanes[0].as_mut().unwrap().events().unwrap();
    lab.vms[0].inside(|| {
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        // One packet until it leaves for the wire, with more bytes than are handed up.
        setsockopt(&socket, sockopt::UdpGsoSegment, &1000).unwrap();
        socket.send_to(&[7; 4000], (ipv4(2), 7001)).unwrap();
    });
    loop {
        match events.blocking_recv().unwrap() {
            Event::TooLong {
                port,
                network,
                address,
            } => {
                assert_eq!((port, network, address), (port_id(0), network_id(), ipv4(2)));
                break;
            }
            Event::Unresolved { address, .. } => assert_ne!(address, ipv4(2), "nothing is held"),
            Event::Punt { .. } | Event::TooBig { .. } => {}
        }
    }
}

#[test]
fn in_other_networks_what_no_row_knows_is_dropped_and_nobody_is_told() {
    let mut lab = Lab::new("aod");
    lab.program();
    apply(
        &mut lab,
        0,
        &[RowChange::Remove(RowKey::Neighbour(network_id(), ipv4(2)))],
    );
    let mut events = lab.dataplanes[0].as_mut().unwrap().events().unwrap();
    let target = ipv4(2).to_string();
    let mut pinging = lab.vms[0].start(&["ping", "-n", "-c", "1", "-W", "1", &target]);
    pinging.wait().unwrap();
    let drops = lab.dataplanes[0].as_mut().unwrap().drops().unwrap();
    assert!(
        drops[&(Some(port_id(0)), DropReason::UnknownDestination)] >= 1,
        "{drops:?}"
    );
    // The VM looks for routers too, which is told.
    while let Ok(event) = events.try_recv() {
        assert!(!matches!(event, Event::Unresolved { .. }), "{event:?}");
    }
}

/// A VXLAN packet with a group policy (draft-smith-vxlan-group-policy): flags, label, VNI, inner frame.
fn vxlan(flags: [u8; 2], label: u16, frame: &[u8]) -> Vec<u8> {
    let vni = (VNI << 8).to_be_bytes();
    [&flags[..], &label.to_be_bytes(), &vni, frame].concat()
}

#[test]
fn what_comes_for_a_port_that_has_left_is_passed_on_once() {
    const LABEL: u16 = 77;
    let mut lab = Lab::new("aop");
    lab.program();
    // The other host is a socket here.
    lab.dataplanes[1] = None;
    lab.hosts[1].run(&["ip", "link", "delete", "dev", "alcor0"]);
    let other = lab.hosts[1].inside(|| UdpSocket::bind((host_ip(1), 4789)).unwrap());
    let moved = NeighbourRow {
        network_id: network_id(),
        ip: [10, 0, 0, 77].into(),
        mac: mac(77),
        host: host_ip(1),
        label: LABEL,
        forward: true,
    };
    apply(&mut lab, 0, &[RowChange::Put(Row::Neighbour(moved))]);
    let frame = [
        &mac(77).0[..],
        &mac(2).0,
        &[0x88, 0xb5],
        b"for somebody who has left",
    ]
    .concat();
    let to = (host_ip(0), 4789);
    other.send_to(&vxlan([0x88, 0], LABEL, &frame), to).unwrap();
    let mut packet = [0; 2000];
    let (len, from) = other.recv_from(&mut packet).unwrap();
    assert_eq!(from.ip(), host_ip(0));
    assert_eq!(
        packet[..len],
        vxlan([0x88, 0x40], LABEL, &frame),
        "with the bit, the label and nothing else"
    );
    // It comes back: they do not play ball. The one behind it shows that it is gone.
    other.send_to(&packet[..len], to).unwrap();
    let second = [&frame[..], b", the second"].concat();
    other.send_to(&vxlan([0x08, 0], 0, &second), to).unwrap();
    let (len, _) = other.recv_from(&mut packet).unwrap();
    assert_eq!(packet[..len], vxlan([0x88, 0x40], 0, &second));
    let drops = lab.dataplanes[0].as_mut().unwrap().drops().unwrap();
    assert_eq!(drops.get(&(None, DropReason::NoLocalPort)), Some(&1), "{drops:?}");
}
