//! Namespaces, commands in them, rows.

use std::{
    fs::File,
    net::Ipv4Addr,
    process::{Command, Stdio},
    thread,
};

use alcor_dataplane::{Dataplane, NeighbourRow, NetworkRow, Row, RowChange};
use alcor_dataplane_ebpf::XdpGateway;
use alcor_model::{Id, MacAddr, Network};
use nix::sched::{CloneFlags, setns};
use uuid::Uuid;

pub const GATEWAY: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 200);
pub const SENDER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
pub const RECEIVER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
pub const VNI: u32 = 4711;

/// Runs a command to its end.
pub fn run(command: &str) {
    let mut words = command.split(' ');
    let output = Command::new(words.next().unwrap()).args(words).output().unwrap();
    let problem = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{command}: {problem}");
}

/// A network namespace that goes with the value.
pub struct Namespace(pub &'static str);

impl Namespace {
    pub fn new(name: &'static str) -> Self {
        // What a run that was killed left behind.
        let mut old = Command::new("ip");
        drop(old.args(["netns", "delete", name]).stderr(Stdio::null()).status());
        run(&format!("ip netns add {name}"));
        let namespace = Self(name);
        namespace.inside(|| run("ip link set lo up"));
        namespace
    }

    /// Does something on a thread inside.
    pub fn inside<T: Send>(&self, what: impl FnOnce() -> T + Send) -> T {
        let file = File::open(format!("/run/netns/{}", self.0)).unwrap();
        let body = || {
            setns(&file, CloneFlags::CLONE_NEWNET).expect("needs root: enter a network namespace");
            what()
        };
        thread::scope(|scope| scope.spawn(body).join().unwrap())
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        drop(Command::new("ip").args(["netns", "delete", self.0]).status());
    }
}

fn network() -> Id<Network> {
    Id::from_uuid(Uuid::from_u128(1))
}

pub fn network_row() -> RowChange {
    RowChange::Put(Row::Network(NetworkRow {
        id: network(),
        vni: VNI.try_into().unwrap(),
        mtu: 1450,
        admin_state_up: true,
        underlay: Some(vec!["192.0.2.0/24".parse().unwrap()]),
        on_demand: true,
        gateways: vec![GATEWAY.into()],
    }))
}

/// The tenant with this number, on the receiver's host.
pub fn neighbour(number: u32) -> RowChange {
    let [_, a, b, c] = number.to_be_bytes();
    RowChange::Put(Row::Neighbour(NeighbourRow {
        network_id: network(),
        ip: [10, a, b, c].into(),
        mac: MacAddr([0xfa, 0x16, 0x3e, a, b, c]),
        host: RECEIVER.into(),
        label: (number % 100) as u16,
        forward: false,
    }))
}

pub fn apply(gateway: &mut XdpGateway, changes: &[RowChange]) {
    for outcome in gateway.apply(changes) {
        outcome.unwrap();
    }
}
