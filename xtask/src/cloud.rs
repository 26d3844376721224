//! A small cloud on one machine: a controller, hosts with agents, VMs; and its API as a client sees it. The demo and the
//! benchmarks are made of it.

mod gateway;

use std::{
    net::{IpAddr, Ipv4Addr},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use alcor_lab::{Lab, LabError, Namespace, Process, eventually};
use anyhow::Context as _;
use serde_json::{Value, json};

pub use gateway::{FAR_HOST, Gateway, OUTSIDE_ROUTER, Outside};

use crate::shell::{cargo, root, run};

/// MTU of the wire between hosts.
pub const WIRE_MTU: u16 = 1500;
/// Where Neutron's clients look first.
const API_PORT: u16 = 9696;
const SOUTHBOUND_PORT: u16 = 9697;
/// How long a process may take to be ready, a port to be in force.
const READY: Duration = Duration::from_secs(20);

/// Where programs of a build are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Build {
    /// Fast to build.
    Debug,
    /// Fast to run.
    Release,
}

impl Build {
    /// Builds packages of the workspace.
    ///
    /// # Errors
    /// When the build fails.
    pub fn packages(self, packages: &[&str]) -> anyhow::Result<()> {
        let mut args = vec!["build"];
        if self == Self::Release {
            args.push("--release");
        }
        for package in packages {
            args.extend(["--package", package]);
        }
        run(&mut cargo(&args))
    }

    /// The path of a program.
    pub fn program(self, name: &str) -> PathBuf {
        root()
            .join("target")
            .join(if self == Self::Release { "release" } else { "debug" })
            .join(name)
    }
}

/// The programs that benchmarks and simulations run. Built at once, so that what one needs is not built again for the other.
pub const PROGRAMS: &[&str] = &["alcor", "alcor-sim"];

/// A controller and its wire.
pub struct Cloud {
    /// Where everything lies.
    pub lab: Lab,
    /// The API.
    pub api: Api,
    /// The wire that hosts are plugged into.
    pub wire: Namespace,
    build: Build,
    controller: Process,
    arguments: Vec<String>,
    southbound: String,
    place: Place,
}

/// A host with its agent.
pub struct Host {
    /// Its name, as in `binding:host_id`.
    pub name: String,
    /// Its namespace.
    pub namespace: Namespace,
    /// Its agent.
    pub agent: Process,
    tunnel_ip: IpAddr,
}

/// A VM: a namespace that has a port.
pub struct Vm {
    /// Its name.
    pub name: String,
    /// Its namespace.
    pub namespace: Namespace,
    /// Its port as the API gave it.
    pub port: Value,
    /// How long the API took to answer the port's creation.
    pub answered: Duration,
    /// From the API call until packets see the port on its host; known once it is ACTIVE.
    pub programmed: Option<Duration>,
}

/// What keeps two clouds on one machine apart, besides the lab's name: addresses of the wire, and names of hosts, after
/// which their pinned maps are called.
#[derive(Clone, Copy, Debug)]
struct Place {
    block: u8,
    prefix: &'static str,
}

impl Place {
    /// The demo's, the simulator's and a benchmark's. Tests of `crates/alcor` use block 1.
    fn of(lab: &str) -> Self {
        match lab {
            "sim" => Self {
                block: 3,
                prefix: "sim-",
            },
            "demo" => Self { block: 0, prefix: "" },
            _ => Self {
                block: 2,
                prefix: "bench-",
            },
        }
    }

    fn address(self, last: u8) -> IpAddr {
        IpAddr::V4(Ipv4Addr::new(198, 18, self.block, last))
    }

    fn host(self, number: u8) -> String {
        format!("{}h{number}", self.prefix)
    }
}

impl Cloud {
    /// Makes the wire and starts a controller in the machine's own namespace: API on loopback, agents over the wire.
    ///
    /// # Errors
    /// When a namespace cannot be made or the controller does not answer.
    pub fn start(name: &str, build: Build) -> anyhow::Result<Self> {
        Self::start_with(name, build, "")
    }

    /// As [`Cloud::start`], with a configuration file (TOML).
    ///
    /// # Errors
    /// As [`Cloud::start`], and when the file cannot be written.
    pub fn start_with(name: &str, build: Build, configuration: &str) -> anyhow::Result<Self> {
        let lab = Lab::new(name)?;
        let wire = lab.wire(WIRE_MTU)?;
        let place = Place::of(name);
        let address = place.address(1);
        lab.plug_root(&wire, address)?;
        let port = free_port(IpAddr::V4(Ipv4Addr::LOCALHOST), API_PORT)?;
        let southbound = format!("{address}:{}", free_port(address, SOUTHBOUND_PORT)?);
        let api = Api::new(&format!("http://127.0.0.1:{port}"))?;
        let (data, file) = (lab.dir().join("data"), lab.dir().join("alcor.toml"));
        std::fs::write(&file, configuration).with_context(|| format!("writing {}", file.display()))?;
        let arguments = vec![
            format!("--config={}", file.display()),
            "controller".to_owned(),
            "--noauth".to_owned(),
            format!("--api-listen=127.0.0.1:{port}"),
            format!("--southbound-listen={southbound}"),
            format!("--data-dir={}", data.display()),
            "--quota-defaults=unlimited".to_owned(),
        ];
        let controller = spawn_controller(&lab, build, &arguments)?;
        let mut cloud = Self {
            lab,
            api,
            wire,
            build,
            controller,
            arguments,
            southbound,
            place,
        };
        cloud.wait_for_api()?;
        Ok(cloud)
    }

    /// Kills the controller as a crash would and starts it again; returns when its API answers.
    ///
    /// # Errors
    /// When it does not come up.
    pub fn restart_controller(&mut self) -> anyhow::Result<()> {
        self.kill_controller();
        self.controller = spawn_controller(&self.lab, self.build, &self.arguments)?;
        self.wait_for_api()
    }

    fn wait_for_api(&mut self) -> anyhow::Result<()> {
        let Self { api, controller, .. } = self;
        let ready = eventually("the controller's API", READY, || match controller.ended() {
            Some(status) => Err(format!("it ended ({status})")),
            None => api.get("/v2.0/networks").map_err(|error| format!("{error:#}")),
        });
        ready.with_context(|| format!("the controller printed:\n{}", self.controller.output()))?;
        Ok(())
    }

    /// Where agents connect to.
    pub fn southbound(&self) -> String {
        format!("http://{}", self.southbound)
    }

    /// Makes a host and starts its agent; returns when the controller knows it.
    ///
    /// # Errors
    /// When it does not come up.
    pub fn host(&self, number: u8) -> anyhow::Result<Host> {
        let name = self.place.host(number);
        let tunnel_ip = self.place.address(10 + number);
        let namespace = self
            .lab
            .host(&self.wire, &format!("h{number}"), tunnel_ip, WIRE_MTU)?;
        let agent = self.agent(&name, &namespace, tunnel_ip)?;
        let mut host = Host {
            name,
            namespace,
            agent,
            tunnel_ip,
        };
        let known = eventually("the agent at the controller", READY, || {
            if let Some(status) = host.agent.ended() {
                return Err(format!("it ended ({status})"));
            }
            let state = self
                .api
                .get(&format!("/alcor/v1/hosts/{}", host.name))
                .map_err(|e| format!("{e:#}"))?;
            if state["alive"] == true && !state["tunnel_ip"].is_null() {
                Ok(())
            } else {
                Err(state.to_string())
            }
        });
        known.with_context(|| format!("the agent of {} printed:\n{}", host.name, host.agent.output()))?;
        Ok(host)
    }

    /// Kills a host's agent as a crash would and starts it again.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn restart_agent(&self, host: &mut Host) -> anyhow::Result<()> {
        host.agent.kill();
        host.agent = self.agent(&host.name, &host.namespace, host.tunnel_ip)?;
        Ok(())
    }

    fn agent(&self, name: &str, namespace: &Namespace, tunnel_ip: IpAddr) -> Result<Process, LabError> {
        let args = [
            "agent".to_owned(),
            format!("--host={name}"),
            format!("--tunnel-ip={tunnel_ip}"),
            format!("--ncm={}", self.southbound()),
            "--dataplane=ebpf".to_owned(),
            format!("--socket={}", self.socket(name).display()),
        ];
        let args: Vec<_> = args.iter().map(String::as_str).collect();
        self.lab
            .spawn(Some(namespace), name, &self.build.program("alcor"), &args)
    }

    /// The local socket of an agent or a gateway.
    fn socket(&self, name: &str) -> PathBuf {
        self.lab.dir().join(format!("{name}.sock"))
    }

    /// Kills the controller as a crash would.
    pub fn kill_controller(&mut self) {
        self.controller.kill();
    }

    /// Makes a port bound to a host, plugs a VM into it and waits until it is ACTIVE.
    ///
    /// # Errors
    /// When the API refuses, or the port is not ACTIVE in time (with what the host says).
    pub fn vm(&self, host: &Host, name: &str, network: &str) -> anyhow::Result<Vm> {
        let called_us = now_us();
        let start = Instant::now();
        let body = json!({"port": {"network_id": network, "name": name, "dns_name": name, "binding:host_id": host.name}});
        let port = self.api.post("/v2.0/ports", &body)?["port"].take();
        let answered = start.elapsed();
        let id = text(&port["id"])?;
        let namespace = self.plug(host, name, &port)?;
        let status = self.api.get(&format!("/alcor/v1/ports/{id}/status"))?;
        let visible_us = status["timing"]["visible_us"].as_u64();
        let programmed =
            visible_us.map(|visible_us| Duration::from_micros(visible_us.saturating_sub(called_us)));
        Ok(Vm {
            name: name.to_owned(),
            namespace,
            port,
            answered,
            programmed,
        })
    }

    /// Plugs a VM into a port that is there and waits until it is ACTIVE.
    ///
    /// # Errors
    /// When the port is not ACTIVE in time (with what the host says).
    pub fn plug(&self, host: &Host, name: &str, port: &Value) -> anyhow::Result<Namespace> {
        let (id, mac) = (text(&port["id"])?, text(&port["mac_address"])?);
        let namespace = self.lab.vm(&host.namespace, name, &device(id), mac)?;
        self.wait_active(id)?;
        Ok(namespace)
    }

    /// Waits until a port is ACTIVE.
    ///
    /// # Errors
    /// When it is not in time, with what the host says.
    pub fn wait_active(&self, id: &str) -> anyhow::Result<()> {
        eventually(&format!("port {id} to be ACTIVE"), READY, || {
            let state = self
                .api
                .get(&format!("/alcor/v1/ports/{id}/status"))
                .map_err(|e| format!("{e:#}"))?;
            if state["status"] == "ACTIVE" {
                Ok(())
            } else {
                Err(state.to_string())
            }
        })?;
        Ok(())
    }
}

fn spawn_controller(lab: &Lab, build: Build, arguments: &[String]) -> Result<Process, LabError> {
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    lab.spawn(None, "controller", &build.program("alcor"), &arguments)
}

/// Removes a lab and what its agents pinned.
///
/// # Errors
/// When something cannot be removed.
pub fn clean(name: &str) -> anyhow::Result<()> {
    clean_hosts(name, 3)
}

/// As [`clean`], for a lab of so many hosts.
///
/// # Errors
/// When something cannot be removed.
pub fn clean_hosts(name: &str, hosts: u8) -> anyhow::Result<()> {
    Lab::clean(name)?;
    gateway::clean_pins(name)?;
    for number in 1..=hosts {
        let pins = Path::new("/sys/fs/bpf/alcor").join(Place::of(name).host(number));
        if pins.exists() {
            std::fs::remove_dir_all(&pins).with_context(|| format!("removing {}", pins.display()))?;
        }
    }
    Ok(())
}

/// Runs iperf3 between two namespaces; gives its report.
///
/// # Errors
/// When no test succeeds within [`READY`].
pub fn iperf(client: &Namespace, server: &Namespace, ip: &str, args: &[&str]) -> anyhow::Result<Value> {
    let net = format!("--net=/run/netns/{}", server.name());
    let mut listening = Command::new("nsenter")
        .args([net.as_str(), "--", "iperf3", "-s"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .context("starting iperf3")?;
    // The server needs a moment to listen. A client that is refused says so in its report and exits with 0.
    let report = eventually("iperf3", READY, || {
        let printed = client
            .run(&[&["iperf3", "-J", "-c", ip], args].concat())
            .map_err(|e| e.to_string())?;
        let report: Value = serde_json::from_str(&printed).map_err(|e| format!("{e}: {printed}"))?;
        match report["error"].as_str() {
            Some(error) => Err(error.to_owned()),
            None => Ok(report),
        }
    });
    // It would wait for further clients for ever; it may have ended by itself.
    let _ = listening.kill();
    let _ = listening.wait();
    Ok(report?)
}

/// The name of a port's device.
pub fn device(port_id: &str) -> String {
    format!("tap{}", port_id.get(..11).unwrap_or(port_id))
}

/// A text of an answer.
///
/// # Errors
/// When there is none.
pub fn text(value: &Value) -> anyhow::Result<&str> {
    value
        .as_str()
        .with_context(|| format!("expected a text in the API's answer, got {value}"))
}

/// Microseconds since the Unix epoch.
pub fn now_us() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |d| u64::try_from(d.as_micros()).unwrap_or(u64::MAX))
}

/// The usual TCP port, or another one that nobody listens on at the moment.
fn free_port(address: IpAddr, usual: u16) -> anyhow::Result<u16> {
    let listener = std::net::TcpListener::bind((address, usual));
    let listener = listener.or_else(|_| std::net::TcpListener::bind((address, 0)))?;
    Ok(listener.local_addr()?.port())
}

/// The HTTP API.
pub struct Api {
    /// `http://address:port`
    pub endpoint: String,
    http: reqwest::blocking::Client,
}

impl Api {
    /// For an endpoint.
    ///
    /// # Errors
    /// When no HTTP client can be made.
    pub fn new(endpoint: &str) -> anyhow::Result<Self> {
        let http = reqwest::blocking::Client::builder()
            .timeout(Duration::from_secs(60))
            .no_proxy()
            .tcp_nodelay(true)
            .build()?;
        Ok(Self {
            endpoint: endpoint.to_owned(),
            http,
        })
    }

    /// `GET`
    ///
    /// # Errors
    /// When nobody answers, or with an error.
    pub fn get(&self, path: &str) -> anyhow::Result<Value> {
        Self::read(path, self.http.get(format!("{}{path}", self.endpoint)))
    }

    /// `POST`
    ///
    /// # Errors
    /// When nobody answers, or with an error.
    pub fn post(&self, path: &str, body: &Value) -> anyhow::Result<Value> {
        Self::read(
            path,
            self.http.post(format!("{}{path}", self.endpoint)).json(body),
        )
    }

    /// `PUT`
    ///
    /// # Errors
    /// When nobody answers, or with an error.
    pub fn put(&self, path: &str, body: &Value) -> anyhow::Result<Value> {
        Self::read(path, self.http.put(format!("{}{path}", self.endpoint)).json(body))
    }

    /// `DELETE`
    ///
    /// # Errors
    /// When nobody answers, or with an error.
    pub fn delete(&self, path: &str) -> anyhow::Result<()> {
        let reply = self.http.delete(format!("{}{path}", self.endpoint)).send();
        let reply = reply.with_context(|| format!("nobody answers {path}"))?;
        let status = reply.status();
        anyhow::ensure!(
            status.is_success(),
            "{path} was refused ({status}): {}",
            reply.text()?
        );
        Ok(())
    }

    fn read(path: &str, request: reqwest::blocking::RequestBuilder) -> anyhow::Result<Value> {
        let reply = request.send().with_context(|| format!("nobody answers {path}"))?;
        let status = reply.status();
        let body = reply.text()?;
        anyhow::ensure!(status.is_success(), "{path} was refused ({status}): {body}");
        serde_json::from_str(&body).with_context(|| format!("{path} answered no JSON: {body}"))
    }
}
