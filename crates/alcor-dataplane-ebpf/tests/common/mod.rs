//! Two hosts and three VMs in network namespaces, with a data plane on each host.

use std::{
    fs::File,
    net::IpAddr,
    process::{Child, Command, Stdio},
    thread,
};

use alcor_dataplane::{Dataplane, NeighbourRow, NetworkRow, PortRow, Row, RowChange, SubnetRow};
use alcor_dataplane_ebpf::{EbpfConfig, EbpfDataplane};
use alcor_model::{Id, MacAddr, Network, Port, Subnet, Vni, net::GATEWAY_MAC, resource::FixedIp};
use nix::sched::{CloneFlags, setns};
use uuid::Uuid;

/// Runs a command to its end; panics when it fails.
pub fn run(command: &[&str]) -> String {
    let (program, args) = command.split_first().unwrap();
    let output = Command::new(program).args(args).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let problem = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{command:?}: {problem}{text}");
    text
}

/// A network namespace that goes with the value.
pub struct Namespace(pub String);

impl Namespace {
    pub fn new(name: String) -> Self {
        // What a run that was killed left behind.
        drop(
            Command::new("ip")
                .args(["netns", "delete", &name])
                .stderr(Stdio::null())
                .status(),
        );
        run(&["ip", "netns", "add", &name]);
        let namespace = Self(name);
        namespace.run(&["ip", "link", "set", "lo", "up"]);
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

    /// Runs a command inside.
    pub fn run(&self, command: &[&str]) -> String {
        self.inside(|| run(command))
    }

    /// Starts a command inside.
    pub fn start(&self, command: &[&str]) -> Child {
        let (program, args) = command.split_first().unwrap();
        self.inside(|| {
            Command::new(program)
                .args(args)
                .stdout(Stdio::piped())
                .spawn()
                .unwrap()
        })
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        drop(Command::new("ip").args(["netns", "delete", &self.0]).status());
    }
}

pub const VNI: u32 = 4711;
pub const VMS: usize = 4;

/// The host of each VM: 0, 0, 1 and 1.
pub const fn host_of(vm: usize) -> usize {
    vm / 2
}

pub fn port_id(vm: usize) -> Id<Port> {
    Id::from_uuid(Uuid::from_u128((vm as u128 + 1) << 100))
}

pub fn network_id() -> Id<Network> {
    Id::from_uuid(Uuid::from_u128(1))
}

fn subnet_id(subnet: usize) -> Id<Subnet> {
    Id::from_uuid(Uuid::from_u128(subnet as u128 + 10))
}

pub fn mac(vm: usize) -> MacAddr {
    MacAddr([0xfa, 0x16, 0x3e, 0, 0, vm as u8 + 1])
}

/// VM 3 lies in a subnet of its own.
const fn subnet_of(vm: usize) -> u8 {
    if vm == 3 { 1 } else { 0 }
}

pub fn ipv4(vm: usize) -> IpAddr {
    [10, 0, subnet_of(vm), vm as u8 + 10].into()
}

pub fn ipv6(vm: usize) -> IpAddr {
    [0xfd00, 0, 0, u16::from(subnet_of(vm)), 0, 0, 0, vm as u16 + 0x10].into()
}

pub fn host_ip(host: usize) -> IpAddr {
    [192, 0, 2, host as u8 + 1].into()
}

/// The rows that a host needs.
pub fn rows(host: usize) -> Vec<Row> {
    let mut rows = vec![Row::Network(NetworkRow {
        id: network_id(),
        vni: Vni::try_from(VNI).unwrap(),
        mtu: 1450,
        admin_state_up: true,
        underlay: None,
        on_demand: false,
        gateways: Vec::new(),
    })];
    for (index, (cidr, gateway)) in [
        ("10.0.0.0/24", "10.0.0.1"),
        ("10.0.1.0/24", "10.0.1.1"),
        ("fd00::/64", "fd00::1"),
        ("fd00:0:0:1::/64", "fd00:0:0:1::1"),
    ]
    .into_iter()
    .enumerate()
    {
        rows.push(Row::Subnet(SubnetRow {
            id: subnet_id(index),
            network_id: network_id(),
            cidr: cidr.parse().unwrap(),
            gateway_ip: Some(gateway.parse().unwrap()),
            gateway_mac: GATEWAY_MAC,
            enable_dhcp: true,
            slaac: false,
            dns_nameservers: Vec::new(),
            host_routes: Vec::new(),
        }));
    }
    for vm in 0..VMS {
        let subnet = usize::from(subnet_of(vm));
        if host_of(vm) == host {
            rows.push(Row::Port(PortRow {
                id: port_id(vm),
                network_id: network_id(),
                mac: mac(vm),
                fixed_ips: vec![
                    FixedIp {
                        subnet_id: subnet_id(subnet),
                        ip_address: ipv4(vm),
                    },
                    FixedIp {
                        subnet_id: subnet_id(subnet + 2),
                        ip_address: ipv6(vm),
                    },
                ],
                allowed_address_pairs: Vec::new(),
                admin_state_up: true,
                port_security_enabled: true,
                dns_name: String::new(),
                label: None,
            }));
        } else {
            rows.extend([ipv4(vm), ipv6(vm)].map(|ip| {
                let host = host_ip(host_of(vm));
                Row::Neighbour(NeighbourRow {
                    network_id: network_id(),
                    ip,
                    mac: mac(vm),
                    host,
                    label: 0,
                    forward: false,
                })
            }));
        }
    }
    rows
}

/// The whole scene.
pub struct Lab {
    pub hosts: Vec<Namespace>,
    pub vms: Vec<Namespace>,
    pub configs: Vec<EbpfConfig>,
    pub dataplanes: Vec<Option<EbpfDataplane>>,
}

impl Lab {
    /// Hosts, an underlay link of MTU 1500 between them, VMs; data planes are not open yet.
    pub fn new(name: &str) -> Self {
        let hosts: Vec<_> = (0..2)
            .map(|host| Namespace::new(format!("{name}-h{host}")))
            .collect();
        let vms: Vec<_> = (0..VMS)
            .map(|vm| Namespace::new(format!("{name}-v{vm}")))
            .collect();
        let (left, right) = (&hosts[0].0, &hosts[1].0);
        run(&[
            "ip", "link", "add", "under0", "netns", left, "type", "veth", "peer", "name", "under0", "netns",
            right,
        ]);
        for (index, host) in hosts.iter().enumerate() {
            host.run(&[
                "ip",
                "address",
                "add",
                &format!("{}/24", host_ip(index)),
                "dev",
                "under0",
            ]);
            host.run(&["ip", "link", "set", "under0", "up"]);
        }
        for (vm, namespace) in vms.iter().enumerate() {
            let (host, device) = (&hosts[host_of(vm)].0, Port::device_name(port_id(vm)));
            run(&[
                "ip",
                "link",
                "add",
                &device,
                "netns",
                host,
                "type",
                "veth",
                "peer",
                "name",
                "eth0",
                "netns",
                &namespace.0,
            ]);
            let mac = mac(vm).to_string();
            namespace.run(&[
                "sysctl",
                "-qw",
                "net.ipv6.conf.default.accept_dad=0",
                "net.ipv6.conf.eth0.accept_dad=0",
            ]);
            namespace.run(&["ip", "link", "set", "eth0", "address", &mac, "mtu", "1450", "up"]);
            namespace.run(&["ip", "address", "add", &format!("{}/24", ipv4(vm)), "dev", "eth0"]);
            namespace.run(&[
                "ip",
                "address",
                "add",
                &format!("{}/64", ipv6(vm)),
                "dev",
                "eth0",
                "nodad",
            ]);
            let subnet = subnet_of(vm);
            namespace.run(&[
                "ip",
                "route",
                "add",
                "default",
                "via",
                &format!("10.0.{subnet}.1"),
            ]);
            namespace.run(&[
                "ip",
                "-6",
                "route",
                "add",
                "default",
                "via",
                &format!("fd00:0:0:{subnet}::1"),
            ]);
        }
        let configs: Vec<_> = (0..2)
            .map(|host| EbpfConfig::new(format!("{name}-h{host}")))
            .collect();
        for (host, config) in hosts.iter().zip(&configs) {
            host.inside(|| EbpfDataplane::purge(config).unwrap());
        }
        Self {
            hosts,
            vms,
            configs,
            dataplanes: vec![None, None],
        }
    }

    /// Opens the data plane of a host; an open one is closed first, as when its process ends.
    pub fn open(&mut self, host: usize) -> &mut EbpfDataplane {
        self.dataplanes[host] = None;
        let config = &self.configs[host];
        let dataplane = self.hosts[host].inside(|| EbpfDataplane::open(config).unwrap());
        self.dataplanes[host].insert(dataplane)
    }

    /// Opens both data planes and brings everything into force.
    pub fn program(&mut self) {
        for host in 0..2 {
            self.open(host);
            let (namespace, dataplane) = (&self.hosts[host], self.dataplanes[host].as_mut().unwrap());
            namespace.inside(|| {
                let changes: Vec<RowChange> = rows(host).into_iter().map(RowChange::Put).collect();
                for outcome in dataplane.apply(&changes) {
                    outcome.unwrap();
                }
                for vm in (0..VMS).filter(|vm| host_of(*vm) == host) {
                    dataplane
                        .attach(port_id(vm), &Port::device_name(port_id(vm)))
                        .unwrap();
                }
            });
        }
    }

    /// Pings from one VM; panics unless every packet is answered.
    pub fn ping(&self, from: usize, to: IpAddr, more: &[&str]) -> String {
        let to = to.to_string();
        let command = [&["ping", "-n", "-i", "0.01", "-c", "5", "-W", "2"], more, &[&to]].concat();
        self.vms[from].run(&command)
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        self.dataplanes.clear();
        for (host, config) in self.hosts.iter().zip(&self.configs) {
            host.inside(|| EbpfDataplane::purge(config).unwrap());
        }
    }
}
