//! Gateways: first packets go by one of them, then directly; one that dies or starts again is not missed.

mod bgp;
mod load;
pub(crate) mod north;

use std::{
    fs,
    net::{IpAddr, Ipv4Addr},
    os::unix::net::UnixStream,
    path::Path,
};

use alcor_dataplane_abi::gateway::{choose, flow_key, key};
use alcor_lab::{Namespace, Process, eventually};
use serde_json::{Value, json};

use crate::region::{PATIENCE, Region, Vm, answered, interrupt, more_answers};

/// Every network is on demand.
const CONFIG: &str = "[ncm]\neager_rows_max = 0\n";
const MTU: u16 = 1500;
/// The router of the outside.
pub(crate) const OUTSIDE: &str = "203.0.113.1";
/// A host behind it.
pub(crate) const FAR: &str = "198.51.100.1";

/// A gateway: its namespace and its process.
struct Gateway {
    name: String,
    tunnel_ip: IpAddr,
    namespace: Namespace,
    process: Process,
}

/// Three hosts, two gateways, an outside.
pub(crate) struct Cloud {
    pub(crate) region: Region,
    gateways: Vec<Gateway>,
    pub(crate) outside: Namespace,
    /// Where the outside is plugged in.
    pub(crate) beyond: Namespace,
    /// The router on that wire, which is every gateway's way on.
    way_on: Ipv4Addr,
}

fn words(namespace: &Namespace, arguments: &str) -> String {
    namespace.ip(&arguments.split(' ').collect::<Vec<_>>()).unwrap()
}

/// An address as keys are made of it.
fn sixteen(ip: IpAddr) -> [u8; 16] {
    let mut bytes = [0; 16];
    match ip {
        IpAddr::V4(ip) => bytes[..4].copy_from_slice(&ip.octets()),
        IpAddr::V6(ip) => bytes = ip.octets(),
    }
    bytes
}

/// What a gateway pins outlives it, and this test.
fn remove_pins(name: &str) {
    match fs::remove_dir_all(Path::new("/sys/fs/bpf/alcor-gateway").join(name)) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => panic!("{error}"),
        _ => {}
    }
}

impl Cloud {
    fn start(name: &'static str) -> Self {
        Self::start_with(name, Some(CONFIG))
    }

    fn start_with(name: &'static str, config: Option<&str>) -> Self {
        let mut cloud = Self::bare(name, config);
        cloud.add_gateways(name);
        cloud
    }

    /// The same without gateways.
    pub(crate) fn bare(name: &'static str, config: Option<&str>) -> Self {
        let cloud = Self::behind(name, config, OUTSIDE);
        words(&cloud.outside, &format!("address add {FAR}/32 dev lo"));
        cloud
    }

    /// No gateways, and nothing behind the router of the outside, which has this address.
    fn behind(name: &'static str, config: Option<&str>, way_on: &str) -> Self {
        let way_on: Ipv4Addr = way_on.parse().unwrap();
        let region = Region::start_with(name, 3, config);
        let beyond = region.lab.wire_called("owire", MTU).unwrap();
        let outside = region.lab.host(&beyond, "outside", way_on.into(), MTU).unwrap();
        Self {
            region,
            gateways: Vec::new(),
            outside,
            beyond,
            way_on,
        }
    }

    /// A gateway's address outside.
    fn external_ip(&self, tunnel_ip: IpAddr) -> IpAddr {
        let [first, second, third, _] = self.way_on.octets();
        [first, second, third, 230 + sixteen(tunnel_ip)[3]].into()
    }

    /// Starts two gateways.
    pub(crate) fn add_gateways(&mut self, name: &'static str) {
        for number in 1..=2 {
            let gateway = self.gateway(name, number, &self.beyond);
            self.gateways.push(gateway);
        }
        for gateway in 0..self.gateways.len() {
            self.gateway_lives(gateway);
            // What is the node's own passes.
            let external = self.external_ip(self.gateways[gateway].tunnel_ip).to_string();
            let ping = ["ping", "-n", "-c1", "-W2", &external];
            self.outside.run(&ping).unwrap();
        }
    }

    fn gateway(&self, lab: &str, number: u8, outside: &Namespace) -> Gateway {
        let name = format!("{lab}-g{number}");
        remove_pins(&name);
        let tunnel_ip: IpAddr = [198, 18, 1, 20 + number].into();
        let external = self.external_ip(tunnel_ip);
        let wire = &self.region.wire;
        let namespace = self
            .region
            .lab
            .gateway(&format!("g{number}"), wire, tunnel_ip, (outside, external), MTU)
            .unwrap();
        words(&namespace, &format!("route add default via {}", self.way_on));
        let process = self.start_gateway(&name, tunnel_ip, &namespace);
        Gateway {
            name,
            tunnel_ip,
            namespace,
            process,
        }
    }

    fn start_gateway(&self, name: &str, tunnel_ip: IpAddr, namespace: &Namespace) -> Process {
        let socket = self.region.lab.dir().join(format!("{name}.sock"));
        let arguments = [
            "gateway".to_owned(),
            format!("--name={name}"),
            format!("--tunnel-ip={tunnel_ip}"),
            "--underlay=eth0".to_owned(),
            "--external=eth1".to_owned(),
            format!("--ncm=http://{}", self.region.southbound()),
            format!("--socket={}", socket.display()),
        ];
        self.region.spawn_alcor(Some(namespace), name, &arguments)
    }

    /// Waits until the API says that a gateway is alive.
    fn gateway_lives(&mut self, gateway: usize) {
        let name = self.gateways[gateway].name.clone();
        let lives = eventually(&format!("gateway {name} to live"), PATIENCE, || {
            if let Some(status) = self.gateways[gateway].process.ended() {
                return Err(format!("it ended: {status}"));
            }
            let path = format!("/alcor/v1/gateways?name={name}");
            let listed = self.region.try_get(&path)?;
            match listed["gateways"][0]["alive"] == true {
                true => Ok(()),
                false => Err(listed.to_string()),
            }
        });
        let log = self.gateways[gateway].process.output();
        lives.unwrap_or_else(|error| panic!("{error}\n{log}\n{}", self.region.controller.output()));
    }

    /// Waits until a host has been told that these gateways forward in a network.
    fn forwarded_by(&self, host: usize, network: &Value, gateways: &[usize]) {
        let mut wanted: Vec<String> = gateways
            .iter()
            .map(|gateway| self.gateways[*gateway].tunnel_ip.to_string())
            .collect();
        wanted.sort();
        let name = &self.region.hosts[host].name;
        eventually(&format!("{name} to use {wanted:?}"), PATIENCE, || {
            let state = self.region.ask_agent(name, "{\"state\": {}}");
            let mut networks = state["networks"].as_array().into_iter().flatten();
            let found = networks.find(|line| line["id"] == *network);
            match found.map(|line| line["gateways"] == json!(wanted)) {
                Some(true) => Ok(()),
                _ => Err(state["networks"].to_string()),
            }
        })
        .unwrap_or_else(|error| panic!("{error}\n{}", self.logs()));
    }

    pub(crate) fn logs(&self) -> String {
        let processes = self.gateways.iter().map(|gateway| &gateway.process);
        let processes = processes.chain(self.region.hosts.iter().map(|host| &host.agent));
        let logs: Vec<String> = processes
            .chain([&self.region.controller])
            .map(Process::output)
            .collect();
        logs.join("\n---\n")
    }

    /// Which of the gateways in use takes what one address sends to another.
    fn taker(&self, from: &str, to: &str) -> usize {
        let [from, to] = [from, to].map(|ip| sixteen(ip.parse().unwrap()));
        self.chosen(flow_key(&from, &to))
    }

    fn chosen(&self, wanted: u64) -> usize {
        let members = self.gateways.iter();
        let members = members.map(|gateway| key(&sixteen(gateway.tunnel_ip)));
        choose(wanted, members).unwrap()
    }

    /// A gateway is gone as a machine is that lost its power: the process, and what it left in the kernel.
    fn power_off(&mut self, gateway: usize) {
        let gateway = &mut self.gateways[gateway];
        gateway.process.kill();
        words(&gateway.namespace, "link set eth0 down");
        words(&gateway.namespace, "link set eth1 down");
    }

    /// Kills a gateway's process as a crash would, and starts it again.
    fn restart(&mut self, gateway: usize) {
        let Gateway {
            name,
            tunnel_ip,
            namespace,
            process,
        } = &mut self.gateways[gateway];
        process.kill();
        let (name, tunnel_ip, namespace) = (name.clone(), *tunnel_ip, namespace.clone());
        self.gateways[gateway].process = self.start_gateway(&name, tunnel_ip, &namespace);
        let socket = self.region.lab.dir().join(format!("{name}.sock"));
        eventually(&format!("{name} to be there again"), PATIENCE, || {
            UnixStream::connect(&socket).map_err(|error| error.to_string())
        })
        .unwrap_or_else(|error| panic!("{error}\n{}", self.logs()));
    }

    /// What a host has learned so far, and how.
    fn learning(&self, host: usize) -> Value {
        let name = &self.region.hosts[host].name;
        self.region.ask_agent(name, "{\"state\": {}}")["learning"].take()
    }

    fn learned(&self, host: usize, addresses: u64) {
        eventually("the direct paths", PATIENCE, || match self.learning(host) {
            learning if learning["learned"].as_u64() >= Some(addresses) => Ok(()),
            learning => Err(learning.to_string()),
        })
        .unwrap();
    }

    /// A network that both gateways forward for, with two VMs on each host (VM `n` on host `n % 3`), and their addresses.
    fn six_vms(&self) -> (Value, Vec<Vm>, Vec<String>) {
        let network = self.region.network();
        let subnet = self.region.subnet(&network, "10.0.0.0/24");
        let vms: Vec<Vm> = (0..6)
            .map(|n| self.region.vm(&format!("vm{n}"), n % 3, &[&subnet]))
            .collect();
        for host in 0..3 {
            self.forwarded_by(host, &network, &[0, 1]);
        }
        let ips = vms.iter().map(|vm| vm.ip(&subnet)).collect();
        (network, vms, ips)
    }
}

impl Drop for Cloud {
    fn drop(&mut self) {
        for gateway in &mut self.gateways {
            gateway.process.stop();
            remove_pins(&gateway.name);
        }
    }
}

/// Every ping up to the last that was answered was answered.
pub(crate) fn assert_none_missing(ping: &Process) {
    let numbers = answered(ping);
    let expected: Vec<u64> = (1..=numbers.len() as u64).collect();
    assert_eq!(numbers, expected, "an answer is missing");
}

/// One packet and its answer, without a second chance.
fn first_packet(from: &Vm, to: &str) {
    let ping = from.namespace.run(&["ping", "-n", "-c1", "-W5", to]);
    ping.unwrap_or_else(|error| panic!("the first packet to {to}: {error}"));
}

#[test]
fn first_packets_go_by_a_gateway_and_later_ones_directly() {
    let mut cloud = Cloud::start("tgwfirst");
    let (_, vms, ips) = cloud.six_vms();
    first_packet(&vms[0], &ips[1]);
    first_packet(&vms[0], &ips[2]);
    let learning = cloud.learning(0);
    assert_eq!(
        (&learning["released"], &learning["held"]),
        (&json!(0), &json!(0)),
        "nothing was held: {learning}"
    );
    // The NCM is asked for the direct path meanwhile.
    cloud.learned(0, 2);
    cloud.learned(1, 1);
    // Without the controller nobody learns anything, and first packets go all the same.
    cloud.region.controller.kill();
    for (from, to) in [(3, 4), (3, 5), (4, 5), (1, 5)] {
        first_packet(&vms[from], &ips[to]);
    }
    // Without gateways what was learned goes on: it goes directly.
    for gateway in 0..2 {
        cloud.power_off(gateway);
    }
    vms[0].reaches(&ips[1]);
    vms[0].reaches(&ips[2]);
}

#[test]
fn a_gateway_that_dies_under_traffic_is_not_missed() {
    let mut cloud = Cloud::start("tgwdies");
    let (network, vms, ips) = cloud.six_vms();
    vms[0].reaches(&ips[1]);
    cloud.learned(0, 1);
    let mut direct = cloud
        .region
        .spawn(&vms[0], "direct", "ping", &["-n", "-i", "0.01", &ips[1]]);
    more_answers(&mut direct, 20);
    let dead = cloud.taker(&ips[0], &ips[2]);
    cloud.power_off(dead);
    // At once: what it would have taken is sent to the other one as soon as it is missed.
    let mut first = cloud
        .region
        .spawn(&vms[0], "first", "ping", &["-n", "-i", "0.05", &ips[2]]);
    more_answers(&mut first, 10);
    for host in 0..3 {
        cloud.forwarded_by(host, &network, &[1 - dead]);
    }
    for (from, to) in [(3, 4), (3, 5), (4, 5), (4, 3), (5, 0)] {
        first_packet(&vms[from], &ips[to]);
    }
    interrupt(&mut first);
    interrupt(&mut direct);
    // What goes directly does not notice.
    assert_none_missing(&direct);
}

#[test]
fn a_port_that_moves_under_traffic_is_found_again() {
    let cloud = Cloud::start("tgwmoves");
    let network = cloud.region.network();
    let subnet = cloud.region.subnet(&network, "10.0.0.0/24");
    let [from, other] = ["from", "other"].map(|name| cloud.region.vm(name, 0, &[&subnet]));
    let mut to = cloud.region.vm("to", 1, &[&subnet]);
    let ip = to.ip(&subnet);
    for host in 0..2 {
        cloud.forwarded_by(host, &network, &[0, 1]);
    }
    let mut ping = cloud
        .region
        .spawn(&from, "ping", "ping", &["-n", "-i", "0.02", &ip]);
    more_answers(&mut ping, 20);
    cloud.learned(0, 1);
    to.unplug();
    cloud.region.put(
        "port",
        &to.port["id"],
        json!({"binding:host_id": cloud.region.hosts[2].name}),
    );
    cloud.region.moved(&mut to, 2);
    to.plug();
    to.configure(&subnet);
    more_answers(&mut ping, 50);
    interrupt(&mut ping);
    // Who did not know it before finds it where it is now.
    first_packet(&other, &ip);
}

/// The controller is away, so that nobody learns anything and every packet goes by a gateway.
#[test]
fn a_gateway_whose_process_starts_again_loses_no_packet() {
    let mut cloud = Cloud::start("tgwagain");
    let network = cloud.region.network();
    let subnet = cloud.region.subnet(&network, "10.0.0.0/24");
    let [from, to] = [("from", 0), ("to", 1)].map(|(name, host)| cloud.region.vm(name, host, &[&subnet]));
    for host in 0..2 {
        cloud.forwarded_by(host, &network, &[0, 1]);
    }
    cloud.region.controller.kill();
    let mut ping = cloud
        .region
        .spawn(&from, "ping", "ping", &["-n", "-i", "0.01", &to.ip(&subnet)]);
    more_answers(&mut ping, 20);
    for gateway in 0..2 {
        cloud.restart(gateway);
        more_answers(&mut ping, 20);
    }
    assert_eq!(cloud.learning(0)["learned"], 0, "nobody answers questions");
    interrupt(&mut ping);
    assert_none_missing(&ping);
}

#[test]
fn a_gateway_that_is_drained_is_used_no_more_until_it_is_again() {
    let cloud = Cloud::start("tgwdrain");
    let network = cloud.region.network();
    let subnet = cloud.region.subnet(&network, "10.0.0.0/24");
    let [from, to] = [("from", 0), ("to", 1)].map(|(name, host)| cloud.region.vm(name, host, &[&subnet]));
    cloud.forwarded_by(0, &network, &[0, 1]);
    for (word, in_use) in [("drain", &[1][..]), ("undrain", &[0, 1][..])] {
        let said = cloud
            .region
            .alcor(&["gateway", word, &cloud.gateways[0].name, "--json"]);
        assert_eq!(said["draining"], json!(word == "drain"));
        cloud.forwarded_by(0, &network, in_use);
    }
    first_packet(&from, &to.ip(&subnet));
    let listed = cloud.region.alcor(&["gateway", "list", "--json"]);
    let names: Vec<&Value> = listed
        .as_array()
        .unwrap()
        .iter()
        .map(|row| &row["name"])
        .collect();
    assert_eq!(names.len(), 2, "{names:?}");
    let state = cloud
        .region
        .alcor(&["gateway", "state", &cloud.gateways[0].name, "--json"]);
    let networks = state["networks"].as_array().unwrap();
    let line = networks.iter().find(|line| line["network_id"] == network);
    assert_eq!(line.unwrap_or_else(|| panic!("{state}"))["intended"], 2);
}
