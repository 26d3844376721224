//! Tunnel packets through a gateway: from a source that has no stack, over a veth pair in native mode, all on one core. What the
//! source and a drop cost is measured too, and taken off both sides.
//!
//! The gateway's packets end in a sink at the other end of the pair; the kernel's already where it would give them to its device, which is
//! to its favour.

use std::{fs, io::Write, process::Stdio, time::Instant};

use alcor_dataplane::{
    Dataplane,
    testing::wire::{Ip, ethernet},
};
use alcor_dataplane_abi::gateway_layout::VXLAN_PORT;
use alcor_dataplane_ebpf::{Attachment, GatewayConfig, XdpGateway};
use alcor_model::MacAddr;
use aya::{
    Ebpf, EbpfLoader, TestRunAttrs, TestRunOptions,
    maps::{Array, MapData, PerCpuArray},
    programs::{LinkOrder, SchedClassifier, TcAttachType, TestRun, Xdp, XdpMode, tc::TcAttachOptions},
};
use nix::{
    net::if_::if_nametoindex,
    sched::{CpuSet, sched_setaffinity},
    unistd::Pid,
};

use crate::scene::{GATEWAY, Namespace, RECEIVER, SENDER, VNI, apply, neighbour, network_row, run};

/// Tenants that packets go to.
const DESTINATIONS: u32 = 1024;
/// Bytes of a packet.
const LEN: usize = 96;
/// Frames that the kernel makes at once.
const BATCH: u32 = 64;
/// Of so many rounds the fastest counts: others use the machine too.
const ROUNDS: usize = 7;
const GATEWAY_MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 0xaa]);
const SOURCE_MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 0xbb]);
const UDP: u8 = 17;

/// The programs, aligned as the loader wants them.
#[cfg(kernel_programs)]
static OBJECT: &[u8] = aya::include_bytes_aligned!(env!("ALCOR_BENCH_PROGRAMS"));
#[cfg(not(kernel_programs))]
static OBJECT: &[u8] = &[];

/// What one way took.
pub struct Rate {
    pub ns: f64,
    /// The part of the packets that did not come out.
    pub lost: f64,
}

pub struct Rates {
    /// The gateway drops all packets at once.
    pub dropped: Rate,
    pub gateway: Rate,
    pub kernel: Rate,
}

/// A packet as a host sends it.
fn packet(vni: u32) -> [u8; LEN] {
    let [_, a, b, c] = vni.to_be_bytes();
    let inner = Ip::new([10, 1, 0, 1].into(), [10, 0, 0, 0].into(), 64);
    let (ethertype, upper) = inner.packet(UDP, &inner.udp((1000, 2000), &[7; 4]));
    let mut payload = vec![0x88, 0, 0, 9, a, b, c, 0];
    let (from, to) = (
        MacAddr([0xfa, 0x16, 0x3e, 1, 0, 1]),
        MacAddr([0xfa, 0x16, 0x3e, 0, 0, 0]),
    );
    payload.extend(ethernet(from, to, ethertype, &upper));
    let outer = Ip::new(SENDER.into(), GATEWAY.into(), 64);
    let mut datagram = outer.udp((50_000, VXLAN_PORT), &payload);
    datagram[6..8].fill(0);
    let frame = outer.frame(SOURCE_MAC, GATEWAY_MAC, UDP, &datagram);
    frame.try_into().expect("packets of this length")
}

/// The source's side of the pair.
struct Source {
    object: Ebpf,
}

impl Source {
    /// Call it in the source's namespace.
    fn new(device: &str) -> Self {
        let (egress, last) = (if_nametoindex(device).unwrap(), DESTINATIONS - 1);
        let mut object = EbpfLoader::new()
            .override_global("EGRESS", &egress, true)
            .override_global("DESTINATIONS", &last, true)
            .load(OBJECT)
            .expect("needs the kernel programs: run `cargo xtask setup`, then build again");
        for name in ["source", "sink"] {
            let program: &mut Xdp = object.program_mut(name).unwrap().try_into().unwrap();
            program.load().unwrap();
        }
        let sink: &mut Xdp = object.program_mut("sink").unwrap().try_into().unwrap();
        sink.attach(device, XdpMode::Driver).unwrap();
        Self { object }
    }

    /// What the stack sends by a device ends there, counted.
    fn end_stack(&mut self, device: &str) {
        let program: &mut SchedClassifier =
            self.object.program_mut("stack_sink").unwrap().try_into().unwrap();
        program.load().unwrap();
        let order = TcAttachOptions::TcxOrder(LinkOrder::default());
        program
            .attach_with_options(device, TcAttachType::Egress, order)
            .unwrap();
    }

    /// How many packets the stack has sent so.
    fn sunk(&mut self) -> PerCpuArray<MapData, u64> {
        self.object.take_map("sunk").unwrap().try_into().unwrap()
    }

    /// Nanoseconds a packet of sending so many.
    fn send(&mut self, packet: &[u8; LEN], packets: u32) -> f64 {
        let mut template: Array<_, [u8; LEN]> = self.object.map_mut("template").unwrap().try_into().unwrap();
        template.set(0, *packet, 0).unwrap();
        let program: &mut Xdp = self.object.program_mut("source").unwrap().try_into().unwrap();
        let options = TestRunOptions {
            data_in: Some(packet),
            repeat: packets,
            attrs: TestRunAttrs::new().xdp_live_frames(BATCH),
            ..TestRunOptions::new()
        };
        let began = Instant::now();
        program.test_run(options).unwrap();
        began.elapsed().as_secs_f64() * 1e9 / f64::from(packets)
    }

    /// The fastest of some rounds; `arrived` counts what came out so far.
    fn measure(&mut self, packet: &[u8; LEN], packets: u32, mut arrived: impl FnMut() -> u64) -> Rate {
        // Tables and caches get warm.
        self.send(packet, packets / 8);
        let before = arrived();
        let rounds = (0..ROUNDS).map(|_| self.send(packet, packets));
        let ns = rounds.fold(f64::INFINITY, f64::min);
        let came = (arrived() - before) as f64;
        Rate {
            ns,
            lost: 1.0 - came / (ROUNDS as f64 * f64::from(packets)),
        }
    }
}

/// Runs lines of `bridge`.
fn bridge(lines: &str) {
    let mut command = std::process::Command::new("bridge");
    let mut child = command
        .args(["-batch", "-"])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(lines.as_bytes()).unwrap();
    assert!(child.wait().unwrap().success(), "bridge -batch");
}

/// The kernel's own way: a vxlan device as the only port of a bridge, which sends back where it came from.
fn use_kernel() {
    // Where the bridge would ask the packet filter, it does not: that would be to its disfavour. Without that module there is no
    // such setting.
    for setting in ["iptables", "ip6tables", "arptables"] {
        drop(fs::write(
            format!("/proc/sys/net/bridge/bridge-nf-call-{setting}"),
            "0",
        ));
    }
    for command in [
        &format!("ip link add vx0 type vxlan id {VNI} local {GATEWAY} dstport {VXLAN_PORT} nolearning gbp"),
        "ip link add br0 type bridge",
        "ip link set vx0 master br0 up",
        "ip link set br0 up",
        "bridge link set dev vx0 hairpin on learning off",
        // The other end's driver takes frames only from a device that polls.
        "ethtool -K gw0 gro on",
    ] {
        run(command);
    }
    let lines = (0..DESTINATIONS).map(|number| {
        let [_, a, b, c] = number.to_be_bytes();
        let mac = MacAddr([0xfa, 0x16, 0x3e, a, b, c]);
        format!("fdb add {mac} dev vx0 dst {RECEIVER} self static\nfdb add {mac} dev vx0 master static\n")
    });
    bridge(&lines.collect::<String>());
}

pub fn measure(packets: u32) -> Rates {
    let (from, to) = (Namespace::new("gwrate-src"), Namespace::new("gwrate-gw"));
    run(&format!(
        "ip link add src0 netns {} type veth peer name gw0 netns {}",
        from.0, to.0
    ));
    from.inside(|| {
        run(&format!("ip link set src0 address {SOURCE_MAC}"));
        run(&format!("ip address add {SENDER}/24 dev src0"));
        run("ip link set src0 up");
    });
    to.inside(|| {
        run(&format!("ip link set gw0 address {GATEWAY_MAC}"));
        run(&format!("ip address add {GATEWAY}/24 dev gw0"));
        run("ip link set gw0 up");
        for host in [SENDER, RECEIVER] {
            run(&format!(
                "ip neighbour add {host} lladdr {SOURCE_MAC} dev gw0 nud permanent"
            ));
        }
    });
    let mut config = GatewayConfig::new("gateway-rate", GATEWAY, "gw0");
    config.attachment = Some(Attachment::Native);
    to.inside(|| XdpGateway::purge(&config).unwrap());
    let mut gateway = to.inside(|| XdpGateway::open(&config).unwrap());
    apply(&mut gateway, &[network_row()]);
    apply(
        &mut gateway,
        &(0..DESTINATIONS).map(neighbour).collect::<Vec<_>>(),
    );
    from.inside(|| {
        let mut one = CpuSet::new();
        one.set(0).unwrap();
        sched_setaffinity(Pid::from_raw(0), &one).unwrap();
        let mut source = Source::new("src0");
        let drops = || gateway.drops().unwrap().values().sum();
        let dropped = source.measure(&packet(VNI + 1), packets, drops);
        let forwarded = || gateway.load().unwrap().east_west_packets;
        let through = source.measure(&packet(VNI), packets, forwarded);
        to.inside(|| {
            drop(gateway);
            XdpGateway::purge(&config).unwrap();
            use_kernel();
        });
        to.inside(|| source.end_stack("gw0"));
        let sunk = source.sunk();
        let kernel = source.measure(&packet(VNI), packets, || sunk.get(&0, 0).unwrap().iter().sum());
        Rates {
            dropped,
            gateway: through,
            kernel,
        }
    })
}
