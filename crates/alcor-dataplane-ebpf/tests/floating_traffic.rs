//! Floating IPs that a host translates itself, with real packets: VMs, and an external network behind a device of their host. Needs root
//! and the kernel programs.

#![allow(clippy::unwrap_used, clippy::expect_used)]
#![allow(dead_code, reason = "the common module has more than one test needs")]

#[path = "common/mod.rs"]
mod common;

use std::{
    io::{Read, Write},
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    os::fd::{AsRawFd, OwnedFd},
    process::Command,
    thread,
    time::Duration,
};

use alcor_dataplane::{
    Dataplane, DropReason, FloatingIpRow, InterfaceRow, RouterRow, Row, RowChange, RowKey, Uplinks,
};
use alcor_dataplane_abi::gateway_layout::ICMP_ERROR_BURST;
use alcor_model::{FloatingIp, Id, Network, Router};
use common::{Lab, Namespace, host_ip, ipv4, network_id, run};
use nix::sys::{
    socket::{AddressFamily, SockFlag, SockProtocol, SockType, recv, setsockopt, socket, sockopt},
    time::TimeVal,
};
use uuid::Uuid;

/// The gateway of the external network, and a station behind it.
const NEXT_HOP: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 254);
const FAR: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 7);
/// Long enough for any packet that comes.
const PATIENCE: i64 = 10;
/// What goes through each connection: more than fits into any buffer, so that packets are cut and put together.
const STREAM: usize = 4 << 20;

const fn external() -> Id<Network> {
    Id::from_uuid(Uuid::from_u128(900))
}

const fn router() -> Id<Router> {
    Id::from_uuid(Uuid::from_u128(800))
}

/// The floating IP of a VM.
const fn floating_ip(vm: usize) -> Ipv4Addr {
    Ipv4Addr::new(203, 0, 113, 10 + vm as u8)
}

fn floating(vm: usize) -> Row {
    let IpAddr::V4(fixed_ip) = ipv4(vm) else {
        unreachable!("an IPv4 address")
    };
    Row::FloatingIp(FloatingIpRow {
        id: Id::<FloatingIp>::from_uuid(Uuid::from_u128(700 + vm as u128)),
        network_id: network_id(),
        router_id: router(),
        floating_ip: floating_ip(vm),
        fixed_ip,
        external_network_id: external(),
        host: Some(host_ip(0)),
        cidr: Some("203.0.113.0/24".parse().unwrap()),
        nexthop: Some(NEXT_HOP),
    })
}

/// A lab whose first host has a device to an external network.
struct Scene {
    lab: Lab,
    outside: Namespace,
}

impl Scene {
    fn new(name: &str) -> Self {
        let mut lab = Lab::new(name);
        let outside = Namespace::new(format!("{name}-out"));
        let host = &lab.hosts[0];
        run(&[
            "ip", "link", "add", "ext0", "netns", &host.0, "type", "veth", "peer", "name", "out0", "netns",
            &outside.0,
        ]);
        host.run(&["ip", "link", "set", "ext0", "up"]);
        outside.run(&["ip", "address", "add", &format!("{NEXT_HOP}/24"), "dev", "out0"]);
        outside.run(&["ip", "address", "add", &format!("{FAR}/32"), "dev", "lo"]);
        outside.run(&["ip", "link", "set", "out0", "mtu", "1450", "up"]);
        lab.configs[0].uplinks = Uplinks {
            tunnel_ip: Some(host_ip(0)),
            devices: [(external(), "ext0".to_owned())].into(),
        };
        lab.program();
        Self { lab, outside }
    }

    fn apply(&mut self, rows: impl IntoIterator<Item = RowChange>) {
        let changes: Vec<_> = rows.into_iter().collect();
        let (host, dataplane) = (&self.lab.hosts[0], self.lab.dataplanes[0].as_mut().unwrap());
        let outcomes = host.inside(|| dataplane.apply(&changes));
        assert!(outcomes.iter().all(Result::is_ok), "{outcomes:?}");
    }

    /// Gives both VMs of the first host a floating IP.
    fn float(&mut self) {
        let router = RouterRow {
            id: router(),
            network_id: network_id(),
            admin_state_up: true,
            interfaces: vec![InterfaceRow {
                network_id: network_id(),
                cidr: "10.0.0.0/24".parse().unwrap(),
                address: [10, 0, 0, 1].into(),
            }],
            routes: Vec::new(),
            external: None,
        };
        let rows = [Row::Router(router), floating(0), floating(1)];
        self.apply(rows.map(RowChange::Put));
    }

    /// Pings from outside; true when every packet is answered.
    fn ping(&self, to: Ipv4Addr, more: &[&str]) -> bool {
        let to = to.to_string();
        let command = [&["ping", "-n", "-q", "-i", "0.01", "-W", "2"], more, &[&to]].concat();
        let (program, args) = command.split_first().unwrap();
        let output = self
            .outside
            .inside(|| Command::new(program).args(args).output().unwrap());
        String::from_utf8_lossy(&output.stdout).contains(" 0% packet loss")
    }
}

/// Hears every frame of a device's namespace.
fn listen(namespace: &Namespace) -> OwnedFd {
    let flags = SockFlag::SOCK_CLOEXEC;
    let open = || socket(AddressFamily::Packet, SockType::Raw, flags, SockProtocol::EthAll).unwrap();
    let ear = namespace.inside(open);
    setsockopt(&ear, sockopt::ReceiveTimeout, &TimeVal::new(PATIENCE, 0)).unwrap();
    ear
}

/// Waits for so many announcements of an address.
fn hear_announcements(ear: &OwnedFd, address: Ipv4Addr, count: usize) {
    let mut frame = [0; 2000];
    let mut heard = 0;
    while heard < count {
        let len = recv(ear.as_raw_fd(), &mut frame, nix::sys::socket::MsgFlags::empty()).unwrap();
        let arp = frame[..len].get(14..42).filter(|_| frame[12..14] == [8, 6]);
        let is_it = |arp: &[u8]| arp[14..18] == address.octets() && arp[24..28] == address.octets();
        heard += usize::from(arp.is_some_and(is_it));
    }
}

/// Sends a stream each way between two namespaces; `seen` is the address that the server sees.
fn stream(server: &Namespace, client: &Namespace, to: SocketAddr, seen: IpAddr) {
    let listener = server.inside(|| TcpListener::bind(("0.0.0.0", to.port())).unwrap());
    let pattern: Vec<u8> = (0..STREAM).map(|at| (at % 251) as u8).collect();
    thread::scope(|scope| {
        let served = scope.spawn(|| {
            let (mut connection, from) = listener.accept().unwrap();
            assert_eq!(from.ip(), seen);
            let mut got = vec![0; STREAM];
            connection.read_exact(&mut got).unwrap();
            assert!(got == pattern, "what arrives is what was sent");
            connection.write_all(&got).unwrap();
        });
        let timeout = Duration::from_secs(PATIENCE as u64);
        let connect = || TcpStream::connect_timeout(&to, timeout).unwrap();
        let mut connection = client.inside(connect);
        connection.set_read_timeout(Some(timeout)).unwrap();
        connection.write_all(&pattern).unwrap();
        let mut got = vec![0; STREAM];
        connection.read_exact(&mut got).unwrap();
        assert!(got == pattern, "and comes back");
        served.join().unwrap();
    });
}

#[test]
fn a_vm_and_the_outside_reach_each_other() {
    let mut scene = Scene::new("float");
    let ear = listen(&scene.outside);
    scene.float();
    for vm in [0, 1] {
        hear_announcements(&ear, floating_ip(vm), 1);
    }
    hear_announcements(&ear, floating_ip(0), 2);
    // Fragments too.
    for size in ["56", "4000"] {
        assert!(scene.ping(floating_ip(0), &["-c", "5", "-s", size]), "{size}");
        for to in [NEXT_HOP, FAR] {
            scene.lab.ping(0, to.into(), &["-s", size]);
        }
    }
    // To the other VM of the host, and to itself, by way of the floating IPs.
    for vm in [0, 1] {
        scene.lab.ping(0, floating_ip(vm).into(), &[]);
    }
    let vm = &scene.lab.vms[0];
    stream(&scene.outside, vm, (FAR, 8000).into(), floating_ip(0).into());
    stream(vm, &scene.outside, (floating_ip(0), 8001).into(), NEXT_HOP.into());
    // Nobody of the external network would answer there: an error comes back to who sent.
    let socket = vm.inside(|| UdpSocket::bind(("0.0.0.0", 0)).unwrap());
    socket
        .set_read_timeout(Some(Duration::from_secs(PATIENCE as u64)))
        .unwrap();
    socket.connect((FAR, 9)).unwrap();
    socket.send(b"anybody?").unwrap();
    let refused = socket.recv(&mut [0; 10]).unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
    let drops = scene.lab.dataplanes[0].as_mut().unwrap().drops().unwrap();
    let mut reasons = drops.keys().map(|(_, reason)| *reason);
    let lost = [
        DropReason::NoTranslation,
        DropReason::Malformed,
        DropReason::Loop,
        DropReason::Oversize,
        DropReason::NoRoute,
        DropReason::NoGateway,
        DropReason::UnknownDestination,
        DropReason::PortDown,
    ];
    assert!(!reasons.any(|reason| lost.contains(&reason)), "{drops:?}");
}

/// Sends as much one way: the answer is one byte.
fn upload(server: &Namespace, client: &Namespace, to: SocketAddr) {
    let listener = server.inside(|| TcpListener::bind(("0.0.0.0", to.port())).unwrap());
    let timeout = Duration::from_secs(PATIENCE as u64);
    thread::scope(|scope| {
        let served = scope.spawn(|| {
            let (mut connection, _) = listener.accept().unwrap();
            connection.set_read_timeout(Some(timeout)).unwrap();
            connection.read_exact(&mut vec![0; STREAM]).unwrap();
            connection.write_all(&[1]).unwrap();
        });
        let mut connection = client.inside(|| TcpStream::connect_timeout(&to, timeout).unwrap());
        connection.set_read_timeout(Some(timeout)).unwrap();
        connection.set_write_timeout(Some(timeout)).unwrap();
        connection.write_all(&vec![7; STREAM]).unwrap();
        connection.read_exact(&mut [0]).unwrap();
        served.join().unwrap();
    });
}

#[test]
fn the_outside_learns_what_the_network_takes() {
    let mut scene = Scene::new("floatmtu");
    scene.float();
    let (outside, vm) = (&scene.outside, &scene.lab.vms[0]);
    outside.run(&["ip", "link", "set", "out0", "mtu", "1500"]);
    // The VM says that it takes more than its network does: so the size of segments does not hide what is to be learnt. They come in one
    // piece, without a checksum; and the device makes none, so that the kernel would do it where it believes that one is owed.
    scene.lab.hosts[0].run(&["ethtool", "-K", "ext0", "tx", "off"]);
    vm.run(&["ip", "link", "set", "eth0", "mtu", "1500"]);
    upload(vm, outside, (floating_ip(0), 8000).into());
    let learnt = || outside.run(&["ip", "route", "get", &floating_ip(0).to_string()]);
    assert!(learnt().contains("mtu 1450"), "{}", learnt());
    // And a packet that came as it was sent.
    outside.run(&["ip", "route", "flush", "cache"]);
    assert!(!learnt().contains("mtu"), "{}", learnt());
    assert!(!scene.ping(floating_ip(0), &["-c", "1", "-M", "do", "-s", "1472"]));
    assert!(learnt().contains("mtu 1450"), "{}", learnt());
    assert!(scene.ping(floating_ip(0), &["-c", "3", "-M", "do", "-s", "1422"]));
}

#[test]
fn the_outside_is_told_of_time_exceeded_so_many_times() {
    let mut scene = Scene::new("floatttl");
    scene.float();
    let outside = &scene.outside;
    // `ping` says who told it.
    let to = floating_ip(0).to_string();
    let said = outside.inside(|| {
        Command::new("ping")
            .args(["-n", "-c", "1", "-t", "1", &to])
            .output()
            .unwrap()
    });
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    assert!(
        said.contains(&format!("From {to}")) && said.contains("Time to live exceeded"),
        "{said}"
    );
    let socket = outside.inside(|| UdpSocket::bind(("0.0.0.0", 0)).unwrap());
    socket.set_ttl(1).unwrap();
    socket.connect((floating_ip(0), 9)).unwrap();
    // Far more than are answered at once; each send may say what was told of one before.
    let limited = |scene: &mut Scene| {
        let drops = scene.lab.dataplanes[0].as_mut().unwrap().drops().unwrap();
        drops
            .get(&(None, DropReason::IcmpLimit))
            .copied()
            .unwrap_or_default()
    };
    for _ in 0..100 {
        for _ in 0..2 * ICMP_ERROR_BURST {
            drop(socket.send(b"anybody?"));
        }
        if limited(&mut scene) > 0 {
            return;
        }
    }
    panic!("there is no limit");
}

#[test]
fn a_restart_loses_no_packet_and_what_is_gone_is_answered_no_more() {
    let mut scene = Scene::new("floatkept");
    scene.float();
    assert!(scene.ping(floating_ip(0), &["-c", "3"]));
    let (outside, lab) = (&scene.outside, &mut scene.lab);
    let mut pings = outside.start(&[
        "ping",
        "-n",
        "-q",
        "-i",
        "0.005",
        "-c",
        "400",
        "-W",
        "2",
        &floating_ip(0).to_string(),
    ]);
    for _ in 0..3 {
        lab.open(0);
    }
    let mut said = String::new();
    pings.stdout.take().unwrap().read_to_string(&mut said).unwrap();
    pings.wait().unwrap();
    assert!(said.contains(" 0% packet loss"), "{said}");
    scene.apply([RowChange::Remove(floating(0).key())]);
    assert!(!scene.ping(floating_ip(0), &["-c", "2", "-W", "1"]));
    assert!(scene.ping(floating_ip(1), &["-c", "2"]), "the other one stays");
    // Without the device in the configuration nothing is the host's any more.
    scene.lab.configs[0].uplinks = Uplinks::default();
    scene.lab.open(0);
    assert!(!scene.ping(floating_ip(1), &["-c", "2", "-W", "1"]));
    scene.apply([RowChange::Remove(RowKey::Network(network_id()))]);
}

#[test]
fn a_device_that_is_not_there_is_named() {
    let mut scene = Scene::new("floatnone");
    scene.lab.configs[0]
        .uplinks
        .devices
        .insert(external(), "ext7".to_owned());
    scene.lab.dataplanes[0] = None;
    let (host, config) = (&scene.lab.hosts[0], &scene.lab.configs[0]);
    let opened = host.inside(|| alcor_dataplane_ebpf::EbpfDataplane::open(config).map(drop));
    assert_eq!(
        opened.unwrap_err().to_string(),
        "device ext7 cannot be used: there is no such device"
    );
}
