//! A region to test: processes, API, VMs.

use std::{
    fs,
    io::{BufRead as _, BufReader, Write as _},
    net::TcpListener,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use alcor_lab::{Lab, Namespace, Process, eventually, plug};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::{Value, json};

/// How long anything may take to come true; tests assert that it does, not when.
pub const PATIENCE: Duration = Duration::from_secs(30);
const MTU: u16 = 1500;

/// Regions are tested one after the other: a machine of two cores has enough to do with one.
static ONE: Mutex<()> = Mutex::new(());

/// A controller and hosts.
pub struct Region {
    pub hosts: Vec<Host>,
    pub controller: Process,
    name: &'static str,
    endpoint: String,
    southbound: String,
    http: reqwest::blocking::Client,
    pub lab: Lab,
    pub wire: Namespace,
    config: Option<PathBuf>,
    _one: MutexGuard<'static, ()>,
}

/// A host: its namespace and its agent.
pub struct Host {
    pub name: String,
    pub agent: Process,
    pub namespace: Namespace,
    address: String,
    /// What its agent is told besides what all are.
    flags: Vec<String>,
}

/// A VM: its namespace and its port.
pub struct Vm {
    pub namespace: Namespace,
    pub port: Value,
    pub device: String,
    host: Namespace,
}

impl Region {
    /// Starts a controller and two hosts, and waits until the controller knows them.
    pub fn start(name: &'static str) -> Self {
        Self::start_with(name, 2, None)
    }

    /// Starts a controller and hosts, all with this configuration file's content, and waits until the controller knows the hosts.
    pub fn start_with(name: &'static str, hosts: usize, config: Option<&str>) -> Self {
        let one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
        let lab = Lab::new(name).unwrap();
        let wire = lab.wire(MTU).unwrap();
        lab.plug_root(&wire, "198.18.1.1".parse().unwrap()).unwrap();
        let free = || {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            listener.local_addr().unwrap().port()
        };
        let endpoint = format!("http://127.0.0.1:{}", free());
        let southbound = format!("198.18.1.1:{}", free());
        let http = reqwest::blocking::Client::builder().no_proxy().build().unwrap();
        let config = config.map(|text| {
            let path = lab.dir().join("alcor.toml");
            fs::write(&path, text).unwrap();
            path
        });
        let mut region = Self {
            hosts: Vec::new(),
            controller: start_controller(&lab, config.as_deref(), &endpoint, &southbound),
            name,
            endpoint,
            southbound,
            http,
            lab,
            wire,
            config,
            _one: one,
        };
        region.api_answers();
        for number in 1..=hosts {
            let name = format!("{}-h{number}", region.name);
            remove_pins(&name);
            let address = format!("198.18.1.1{number}");
            let namespace = region
                .lab
                .host(&region.wire, &format!("h{number}"), address.parse().unwrap(), MTU)
                .unwrap();
            let agent = region.start_agent(&name, &namespace, &address, &[]);
            region.hosts.push(Host {
                name,
                agent,
                namespace,
                address,
                flags: Vec::new(),
            });
        }
        for host in 0..region.hosts.len() {
            region.host_in_step(host, 0);
        }
        region
    }

    fn start_agent(&self, name: &str, namespace: &Namespace, address: &str, flags: &[String]) -> Process {
        let folder = self.lab.dir();
        let mut arguments = vec![
            "agent".to_owned(),
            format!("--host={name}"),
            format!("--tunnel-ip={address}"),
            format!("--ncm=http://{}", self.southbound),
            "--dataplane=ebpf".to_owned(),
            format!("--socket={}", folder.join(format!("{name}.sock")).display()),
        ];
        arguments.extend_from_slice(flags);
        self.spawn_alcor(Some(namespace), name, &arguments)
    }

    /// Starts one of the region's processes.
    pub fn spawn_alcor(&self, namespace: Option<&Namespace>, label: &str, arguments: &[String]) -> Process {
        spawn(&self.lab, self.config.as_deref(), namespace, label, arguments)
    }

    /// Kills the agent of a host as a crash would, and starts it again.
    pub fn crash_agent(&mut self, host: usize) {
        self.hosts[host].agent.kill();
        let Host {
            name,
            namespace,
            address,
            flags,
            ..
        } = &self.hosts[host];
        let agent = self.start_agent(name, namespace, address, flags);
        self.hosts[host].agent = agent;
    }

    /// Gives a host a device in an external network: its agent starts again and says so. Gives the device's MAC.
    pub fn outfit(&mut self, host: usize, external: &Value, wire: &Namespace, address: &str) -> String {
        let namespace = self.hosts[host].namespace.clone();
        self.lab
            .uplink(&namespace, wire, address.parse().unwrap(), MTU)
            .unwrap();
        let before = self.host_in_step(host, 0);
        self.hosts[host].flags = vec![format!("--external={}=eth1", external.as_str().unwrap())];
        self.crash_agent(host);
        self.host_in_step(host, before);
        let line = namespace.ip(&["-o", "link", "show", "eth1"]).unwrap();
        let (_, rest) = line.split_once("link/ether ").unwrap();
        rest.split(' ').next().unwrap().to_owned()
    }

    /// Starts the controller again after it was killed.
    pub fn restart_controller(&mut self) {
        self.controller = start_controller(
            &self.lab,
            self.config.as_deref(),
            &self.endpoint,
            &self.southbound,
        );
        self.api_answers();
    }

    fn api_answers(&mut self) {
        let answered = eventually("the controller's API", PATIENCE, || {
            if let Some(status) = self.controller.ended() {
                return Err(format!("the controller ended: {status}"));
            }
            let url = format!("{}/v2.0/networks", self.endpoint);
            self.http.get(url).send().map_err(|error| error.to_string())
        });
        assert!(answered.is_ok(), "{answered:?}\n{}", self.controller.output());
    }

    /// Waits until a host's agent is of another run than `before`, alive, and has applied all it must have. Gives its run.
    pub fn host_in_step(&mut self, host: usize, before: u64) -> u64 {
        let path = format!("/alcor/v1/hosts/{}", self.hosts[host].name);
        let in_step = eventually("the host to be in step", PATIENCE, || {
            if let Some(status) = self.hosts[host].agent.ended() {
                return Err(format!("the agent ended: {status}"));
            }
            let state = self.try_get(&path)?;
            match state["incarnation"].as_u64() {
                Some(run) if run != before && state["alive"] == true && state["pending"] == 0 => Ok(run),
                _ => Err(state.to_string()),
            }
        });
        let log = self.hosts[host].agent.output();
        in_step.unwrap_or_else(|error| panic!("{error}\n{log}"))
    }

    /// Where agents and gateways connect to.
    pub fn southbound(&self) -> &str {
        &self.southbound
    }

    pub fn try_get(&self, path: &str) -> Result<Value, String> {
        let url = format!("{}{path}", self.endpoint);
        let reply = self.http.get(url).send().map_err(|error| error.to_string())?;
        let status = reply.status();
        let body = reply.text().map_err(|error| error.to_string())?;
        if !status.is_success() {
            return Err(format!("{path}: {status}: {body}"));
        }
        serde_json::from_str(&body).map_err(|error| error.to_string())
    }

    pub fn get(&self, path: &str) -> Value {
        self.try_get(path).unwrap()
    }

    /// Creates a resource; nothing when nobody answers.
    pub fn try_post(&self, kind: &str, attributes: Value) -> Option<Value> {
        let path = kind.replace('_', "-");
        let url = format!("{}/v2.0/{path}s", self.endpoint);
        let reply = self.http.post(url).json(&json!({kind: attributes})).send().ok()?;
        let status = reply.status();
        let mut body: Value = reply.json().ok()?;
        assert!(status.is_success(), "{kind} {attributes}: {status}: {body}");
        Some(body[kind].take())
    }

    pub fn post(&self, kind: &str, attributes: Value) -> Value {
        self.try_post(kind, attributes).unwrap()
    }

    /// Deletes a resource.
    pub fn delete(&self, kind: &str, id: &Value) {
        let path = kind.replace('_', "-");
        let url = format!("{}/v2.0/{path}s/{}", self.endpoint, id.as_str().unwrap());
        let reply = self.http.delete(url).send().unwrap();
        assert!(reply.status().is_success(), "{kind} {id}: {}", reply.status());
    }

    pub fn put(&self, kind: &str, id: &Value, attributes: Value) -> Value {
        let url = format!("{}/v2.0/{kind}s/{}", self.endpoint, id.as_str().unwrap());
        let reply = self
            .http
            .put(url)
            .json(&json!({kind: attributes}))
            .send()
            .unwrap();
        let status = reply.status();
        let mut body: Value = reply.json().unwrap();
        assert!(status.is_success(), "{kind} {attributes}: {status}: {body}");
        body[kind].take()
    }

    /// Does something with a resource that is no change of its attributes.
    pub fn act(&self, kind: &str, path: &str, body: Value) -> Value {
        let url = format!("{}/v2.0/{kind}s/{path}", self.endpoint);
        let reply = self.http.put(url).json(&body).send().unwrap();
        let status = reply.status();
        let answer: Value = reply.json().unwrap();
        assert!(status.is_success(), "{path} {body}: {status}: {answer}");
        answer
    }

    /// Creates a network.
    pub fn network(&self) -> Value {
        self.post("network", json!({"name": "n"}))["id"].take()
    }

    /// Creates a subnet.
    pub fn subnet(&self, network: &Value, cidr: &str) -> Value {
        let version = if cidr.contains(':') { 6 } else { 4 };
        let subnet = json!({"network_id": network, "ip_version": version, "cidr": cidr});
        self.post("subnet", subnet)
    }

    /// Creates a port bound to a host.
    pub fn port(&self, host: usize, network: &Value, fixed_ips: Value) -> Value {
        let port =
            json!({"network_id": network, "binding:host_id": self.hosts[host].name, "fixed_ips": fixed_ips});
        self.post("port", port)
    }

    /// Makes a VM with a port bound to a host, an address in each subnet, and waits until the port is ACTIVE. Addresses
    /// and routes are set as an image with a static configuration would.
    pub fn vm(&self, name: &str, host: usize, subnets: &[&Value]) -> Vm {
        let fixed_ips: Vec<Value> = subnets
            .iter()
            .map(|subnet| json!({"subnet_id": subnet["id"]}))
            .collect();
        let port = self.port(host, &subnets[0]["network_id"], json!(fixed_ips));
        let vm = self.vm_of(name, host, port);
        for subnet in subnets {
            vm.configure(subnet);
        }
        vm
    }

    /// Makes a VM for a port and waits until that is ACTIVE.
    pub fn vm_of(&self, name: &str, host: usize, port: Value) -> Vm {
        let id = port["id"].as_str().unwrap();
        let device = format!("tap{}", &id[..11]);
        let host = self.hosts[host].namespace.clone();
        let namespace = self
            .lab
            .vm(&host, name, &device, port["mac_address"].as_str().unwrap())
            .unwrap();
        let vm = Vm {
            namespace,
            port,
            device,
            host,
        };
        self.status_becomes(&vm, "ACTIVE");
        vm
    }

    /// Waits until a port has a status, in the Neutron API and in the status of its own.
    pub fn status_becomes(&self, vm: &Vm, status: &str) {
        let id = vm.port["id"].as_str().unwrap();
        eventually(&format!("port {id} to be {status}"), PATIENCE, || {
            let state = self.try_get(&format!("/alcor/v1/ports/{id}/status"))?;
            let port = self.try_get(&format!("/v2.0/ports/{id}"))?;
            match state["status"] == status && port["port"]["status"] == status {
                true => Ok(()),
                false => Err(state.to_string()),
            }
        })
        .unwrap_or_else(|error| {
            let logs: Vec<String> = self.hosts.iter().map(|host| host.agent.output()).collect();
            panic!("{error}\n{}", logs.join("\n---\n"))
        });
    }

    /// What an agent's local socket answers.
    pub fn ask_agent(&self, name: &str, question: &str) -> Value {
        let socket = self.lab.dir().join(format!("{name}.sock"));
        let mut stream = UnixStream::connect(socket).unwrap();
        stream.write_all(format!("{question}\n").as_bytes()).unwrap();
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap()
    }

    /// Packets of a port that its host dropped for a reason.
    pub fn drops(&self, host: usize, vm: &Vm, reason: &str) -> u64 {
        let answer = self.ask_agent(&self.hosts[host].name, "{\"drops\": {}}");
        let lines = answer["drops"].as_array().unwrap_or_else(|| panic!("{answer}"));
        let found = lines
            .iter()
            .find(|line| line["port_id"] == vm.port["id"] && line["reason"] == reason);
        found.map_or(0, |line| line["packets"].as_u64().unwrap())
    }

    /// A VM has moved: it is plugged into another host from now on.
    pub fn moved(&self, vm: &mut Vm, host: usize) {
        vm.host = self.hosts[host].namespace.clone();
    }

    /// Runs the program as a client of the API; what it prints.
    pub fn printed(&self, arguments: &[&str]) -> String {
        let program = env!("CARGO_BIN_EXE_alcor");
        let api = format!("--api={}", self.endpoint);
        let output = alcor_lab::run(program, &[arguments, &[api.as_str()]].concat()).unwrap();
        String::from_utf8(output.stdout).unwrap()
    }

    /// The same where it prints JSON.
    pub fn alcor(&self, arguments: &[&str]) -> Value {
        serde_json::from_str(&self.printed(arguments)).unwrap()
    }

    /// Starts a command in a VM that goes on.
    pub fn spawn(&self, vm: &Vm, label: &str, program: &str, arguments: &[&str]) -> Process {
        self.lab
            .spawn(Some(&vm.namespace), label, Path::new(program), arguments)
            .unwrap()
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        for host in &mut self.hosts {
            host.agent.stop();
            remove_pins(&host.name);
        }
    }
}

impl Vm {
    /// The address in a subnet.
    pub fn ip(&self, subnet: &Value) -> String {
        let fixed_ips = self.port["fixed_ips"].as_array().unwrap();
        let fixed = fixed_ips.iter().find(|fixed| fixed["subnet_id"] == subnet["id"]);
        fixed.unwrap_or_else(|| panic!("{}", self.port))["ip_address"]
            .as_str()
            .unwrap()
            .to_owned()
    }

    /// Sets address and default route by hand.
    pub fn configure(&self, subnet: &Value) {
        let (_, length) = subnet["cidr"].as_str().unwrap().split_once('/').unwrap();
        let (address, gateway) = (self.ip(subnet), subnet["gateway_ip"].as_str().unwrap());
        let ip = |arguments: &str| {
            let words: Vec<&str> = arguments.split(' ').collect();
            self.namespace.ip(&words).unwrap();
        };
        ip("link set eth0 mtu 1450 up");
        match address.contains(':') {
            true => ip(&format!("address replace {address}/{length} dev eth0 nodad")),
            false => ip(&format!("address replace {address}/{length} dev eth0")),
        }
        ip(&format!("route replace default via {gateway} dev eth0"));
    }

    /// Takes the device away, as when the hypervisor stops the VM.
    pub fn unplug(&self) {
        self.namespace.ip(&["link", "delete", "eth0"]).unwrap();
    }

    /// Gives the device again.
    pub fn plug(&self) {
        let mac = self.port["mac_address"].as_str().unwrap();
        plug(&self.namespace, &self.host, &self.device, mac).unwrap();
    }

    /// One ping; true when it was answered.
    pub fn pings(&self, to: &str) -> bool {
        self.namespace.run(&["ping", "-n", "-c1", "-W1", to]).is_ok()
    }

    /// Waits until one ping is answered: another host may not have the neighbour yet. Then all of five must be.
    pub fn reaches(&self, to: &str) {
        eventually(&format!("an answer of {to}"), PATIENCE, || {
            self.namespace
                .run(&["ping", "-n", "-c1", "-W1", to])
                .map_err(|error| error.to_string())
        })
        .unwrap();
        let printed = self
            .namespace
            .run(&["ping", "-n", "-c5", "-i0.05", "-W2", to])
            .unwrap();
        assert!(printed.contains(" 0% packet loss"), "{printed}");
    }
}

/// The sequence numbers of answers that a ping has printed.
pub fn answered(ping: &Process) -> Vec<u64> {
    let printed = ping.output();
    let numbers = printed.lines().filter_map(|line| {
        let (_, rest) = line.split_once("icmp_seq=")?;
        line.contains(" time=")
            .then(|| rest.split(' ').next()?.parse().ok())
            .flatten()
    });
    numbers.collect()
}

/// Waits for so many more answers.
pub fn more_answers(ping: &mut Process, more: usize) {
    let before = answered(ping).len();
    eventually("more answers", PATIENCE, || {
        match (answered(ping).len(), ping.ended()) {
            (now, _) if now >= before + more => Ok(()),
            (now, ended) => Err(format!("{now} answers, ended: {ended:?}")),
        }
    })
    .unwrap();
}

/// Asks a process to end as Ctrl-C does.
pub fn interrupt(process: &mut Process) {
    let pid = Pid::from_raw(i32::try_from(process.pid()).unwrap());
    kill(pid, Signal::SIGINT).unwrap();
    process.wait(PATIENCE).unwrap();
}

fn start_controller(lab: &Lab, config: Option<&Path>, endpoint: &str, southbound: &str) -> Process {
    let arguments = [
        "controller".to_owned(),
        "--noauth".to_owned(),
        format!("--api-listen={}", endpoint.trim_start_matches("http://")),
        format!("--southbound-listen={southbound}"),
        format!("--data-dir={}", lab.dir().join("data").display()),
    ];
    spawn(lab, config, None, "controller", &arguments)
}

fn spawn(
    lab: &Lab,
    config: Option<&Path>,
    namespace: Option<&Namespace>,
    label: &str,
    arguments: &[String],
) -> Process {
    let config = config.map(|path| format!("--config={}", path.display()));
    let words: Vec<&str> = config.iter().chain(arguments).map(String::as_str).collect();
    let program = PathBuf::from(env!("CARGO_BIN_EXE_alcor"));
    lab.spawn(namespace, label, &program, &words).unwrap()
}

/// What an agent pins outlives it, and this test.
fn remove_pins(host: &str) {
    match fs::remove_dir_all(Path::new("/sys/fs/bpf/alcor").join(host)) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => panic!("{error}"),
        _ => {}
    }
}
