//! Security groups with real packets: who may talk to whom, on one host and across two, in IPv4 and IPv6.

use std::{
    fs::File,
    io::{ErrorKind, Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    thread,
    time::Duration,
};

use alcor_lab::{Namespace, eventually};
use nix::sched::{CloneFlags, setns};
use serde_json::{Value, json};

use crate::region::{PATIENCE, Region, Vm};

const WEB: u16 = 8080;
/// How long what is not to arrive is waited for.
const SILENCE: Duration = Duration::from_secs(1);

/// Does something on a thread inside a namespace; sockets made there stay there.
fn inside<T: Send>(namespace: &Namespace, what: impl FnOnce() -> T + Send) -> T {
    let file = File::open(format!("/run/netns/{}", namespace.name())).unwrap();
    let body = || {
        setns(&file, CloneFlags::CLONE_NEWNET).unwrap();
        what()
    };
    thread::scope(|scope| scope.spawn(body).join().unwrap())
}

/// A TCP connection between two VMs, both ends in hand.
struct Connection {
    client: TcpStream,
    server: TcpStream,
    name: String,
}

impl Connection {
    fn open(client: &Vm, server: &Vm, ip: &str) -> Self {
        let address = SocketAddr::new(ip.parse().unwrap(), WEB);
        let listener = inside(&server.namespace, || TcpListener::bind(address)).unwrap();
        let connect = || TcpStream::connect_timeout(&address, SILENCE).map_err(|error| error.to_string());
        let client = eventually(&format!("a connection to {address}"), PATIENCE, || {
            inside(&client.namespace, connect)
        })
        .unwrap();
        let (server, _) = listener.accept().unwrap();
        for stream in [&client, &server] {
            stream.set_nodelay(true).unwrap();
            stream.set_read_timeout(Some(SILENCE)).unwrap();
        }
        Self {
            client,
            server,
            name: format!("to {ip}"),
        }
    }

    /// Sends a byte each way; whether both arrived.
    fn talks(&mut self) -> bool {
        pass(&mut self.client, &mut self.server) && pass(&mut self.server, &mut self.client)
    }
}

fn pass(from: &mut TcpStream, to: &mut TcpStream) -> bool {
    from.write_all(b"x").unwrap();
    let mut byte = [0];
    match to.read(&mut byte) {
        Ok(count) => count == 1,
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => false,
        Err(error) => panic!("{error}"),
    }
}

/// True when a connection to the VM can be made; somebody listens.
fn connects(client: &Vm, server: &Vm, ip: &str) -> bool {
    let address = SocketAddr::new(ip.parse().unwrap(), WEB);
    let _listener = inside(&server.namespace, || TcpListener::bind(address)).unwrap();
    inside(&client.namespace, || {
        TcpStream::connect_timeout(&address, SILENCE)
    })
    .is_ok()
}

/// A network with both families, and a VM under these groups.
struct Scene {
    region: Region,
    network: Value,
    subnets: [Value; 2],
}

impl Scene {
    fn start(name: &'static str) -> Self {
        let region = Region::start(name);
        let network = region.network();
        let subnets = ["10.0.0.0/24", "fd00:a::/64"].map(|cidr| region.subnet(&network, cidr));
        Self {
            region,
            network,
            subnets,
        }
    }

    /// A VM; `None` is the default group.
    fn vm(&self, name: &str, host: usize, groups: Option<&[&Value]>) -> Vm {
        let fixed_ips = self
            .subnets
            .each_ref()
            .map(|subnet| json!({"subnet_id": subnet["id"]}));
        let mut port = json!({
            "network_id": self.network,
            "binding:host_id": self.region.hosts[host].name,
            "fixed_ips": fixed_ips,
        });
        if let Some(groups) = groups {
            port["security_groups"] = json!(groups);
        }
        let vm = self.region.vm_of(name, host, self.region.post("port", port));
        for subnet in &self.subnets {
            vm.configure(subnet);
        }
        vm
    }

    fn group(&self, name: &str) -> Value {
        self.region.post("security_group", json!({"name": name}))["id"].take()
    }

    /// A rule for incoming TCP to the server's port in both families; ids of the two.
    fn web_rules(&self, group: &Value, remote_group: Option<&Value>) -> Vec<Value> {
        let rule = |ethertype: &str| {
            let rule = json!({
                "security_group_id": group,
                "direction": "ingress",
                "ethertype": ethertype,
                "protocol": "tcp",
                "port_range_min": WEB,
                "port_range_max": WEB,
                "remote_group_id": remote_group,
            });
            self.region.post("security_group_rule", rule)["id"].take()
        };
        ["IPv4", "IPv6"].map(rule).into()
    }

    fn ips(&self, vm: &Vm) -> [String; 2] {
        self.subnets.each_ref().map(|subnet| vm.ip(subnet))
    }

    /// Waits until the host has dropped something of the VM for this reason more often than `before`.
    fn drops_more(&self, host: usize, vm: &Vm, reason: &str, before: u64) {
        let dropped = eventually(&format!("a drop for {reason}"), PATIENCE, || {
            match self.region.drops(host, vm, reason) {
                now if now > before => Ok(()),
                now => Err(now.to_string()),
            }
        });
        dropped.unwrap();
    }
}

#[test]
fn members_of_the_default_group_reach_each_other_and_nobody_else_does() {
    let scene = Scene::start("tdefault");
    let outsiders = scene.group("outsiders");
    let vm1 = scene.vm("vm1", 0, None);
    let vm2 = scene.vm("vm2", 0, None);
    let vm3 = scene.vm("vm3", 1, None);
    let outside = [
        scene.vm("out0", 0, Some(&[&outsiders])),
        scene.vm("out1", 1, Some(&[&outsiders])),
    ];
    for peer in [&vm2, &vm3] {
        for ip in scene.ips(peer) {
            vm1.reaches(&ip);
            assert!(connects(&vm1, peer, &ip));
        }
    }
    for outsider in &outside {
        for ip in scene.ips(&vm1) {
            let before = scene.region.drops(0, &vm1, "ingress_denied");
            assert!(!outsider.pings(&ip), "{ip} answers a stranger");
            scene.drops_more(0, &vm1, "ingress_denied", before);
        }
        // Answers come back to who may ask.
        for ip in scene.ips(outsider) {
            assert!(
                !vm1.pings(&ip),
                "a group without rules for it let {ip} be reached"
            );
        }
    }
    // A stranger that becomes a member is believed at once.
    let port = &outside[1].port["id"];
    let groups = &vm1.port["security_groups"];
    scene.region.put("port", port, json!({"security_groups": groups}));
    for ip in scene.ips(&vm1) {
        outside[1].reaches(&ip);
    }
}

#[test]
fn a_rule_that_goes_stops_an_open_connection_and_no_other() {
    let scene = Scene::start("ttighten");
    let (servers, clients) = (scene.group("servers"), scene.group("clients"));
    let server = scene.vm("server", 0, Some(&[&servers]));
    let near = scene.vm("near", 0, Some(&[&clients]));
    let far = scene.vm("far", 1, Some(&[&clients]));
    for ip in scene.ips(&server) {
        assert!(!connects(&far, &server, &ip), "nothing is allowed yet");
    }
    let rules = scene.web_rules(&servers, None);
    let mut connections: Vec<Connection> = scene
        .ips(&server)
        .iter()
        .flat_map(|ip| [&near, &far].map(|client| Connection::open(client, &server, ip)))
        .collect();
    for connection in &mut connections {
        assert!(connection.talks(), "{}", connection.name);
    }
    // News about other things changes nothing for what is allowed.
    let other = json!({"security_group_id": servers, "direction": "ingress", "protocol": "udp"});
    let other = scene.region.post("security_group_rule", other);
    scene.region.delete("security_group_rule", &other["id"]);
    for connection in &mut connections {
        assert!(connection.talks(), "{}", connection.name);
    }
    for rule in &rules {
        scene.region.delete("security_group_rule", rule);
    }
    for connection in &mut connections {
        let name = connection.name.clone();
        eventually(&format!("silence {name}"), PATIENCE, || {
            match connection.talks() {
                true => Err("bytes still arrive".to_owned()),
                false => Ok(()),
            }
        })
        .unwrap();
    }
    scene.drops_more(0, &server, "ingress_denied", 0);
    // The stations go on trying: when it is allowed again, the connections go on too.
    scene.web_rules(&servers, None);
    for connection in &mut connections {
        let name = connection.name.clone();
        let talks = || match connection.talks() {
            true => Ok(()),
            false => Err("nothing arrives".to_owned()),
        };
        eventually(&format!("bytes {name}"), PATIENCE, talks).unwrap();
    }
}

#[test]
fn a_remote_group_is_who_is_under_it_wherever_that_is() {
    let scene = Scene::start("tremote");
    let (servers, clients, strangers) = (
        scene.group("servers"),
        scene.group("clients"),
        scene.group("strangers"),
    );
    scene.web_rules(&servers, Some(&clients));
    let server = scene.vm("server", 0, Some(&[&servers]));
    let members = [
        scene.vm("near", 0, Some(&[&clients])),
        scene.vm("far", 1, Some(&[&strangers, &clients])),
    ];
    let stranger = scene.vm("stranger", 1, Some(&[&strangers]));
    for ip in scene.ips(&server) {
        for member in &members {
            let mut connection = Connection::open(member, &server, &ip);
            assert!(connection.talks());
            assert!(!member.pings(&ip), "the rule is about TCP only");
        }
        assert!(!connects(&stranger, &server, &ip));
    }
    // Who leaves the group loses what is open.
    let ip = &scene.ips(&server)[0];
    let mut connection = Connection::open(&members[1], &server, ip);
    assert!(connection.talks());
    scene.region.put(
        "port",
        &members[1].port["id"],
        json!({"security_groups": [strangers]}),
    );
    eventually("silence", PATIENCE, || match connection.talks() {
        true => Err("bytes still arrive".to_owned()),
        false => Ok(()),
    })
    .unwrap();
}

#[test]
fn connections_survive_an_agent_that_is_killed() {
    let mut scene = Scene::start("tkeep");
    let servers = scene.group("servers");
    scene.web_rules(&servers, None);
    let server = scene.vm("server", 0, Some(&[&servers]));
    let client = scene.vm("client", 1, None);
    let mut connections: Vec<Connection> = scene
        .ips(&server)
        .iter()
        .map(|ip| Connection::open(&client, &server, ip))
        .collect();
    for host in 0..2 {
        let run = scene.region.host_in_step(host, 0);
        scene.region.crash_agent(host);
        for connection in &mut connections {
            assert!(connection.talks(), "{}", connection.name);
        }
        scene.region.host_in_step(host, run);
        for connection in &mut connections {
            assert!(connection.talks(), "{}", connection.name);
        }
    }
    assert_eq!(scene.region.drops(0, &server, "ingress_denied"), 0);
    assert_eq!(scene.region.drops(1, &client, "ingress_denied"), 0);
}
