//! Gateways of a cloud, and the outside that they lead to.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    net::{IpAddr, Ipv4Addr},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    time::Duration,
};

use alcor_lab::{Namespace, Process, eventually};
use anyhow::Context as _;
use serde_json::Value;

use super::{Cloud, Place, READY, WIRE_MTU};

/// The router of the outside: every gateway's way on.
pub const OUTSIDE_ROUTER: &str = "203.0.113.1";
/// A host behind it.
pub const FAR_HOST: &str = "198.51.100.1";
/// How long the agent of this machine may take to answer.
const ANSWER: Duration = Duration::from_secs(10);
/// Devices of a gateway.
const DEVICES: [&str; 2] = ["eth0", "eth1"];
/// Gateways of a cloud at most.
const GATEWAYS_MAX: u8 = 2;

/// The network outside: a wire, and a router on it.
pub struct Outside {
    wire: Namespace,
    /// [`OUTSIDE_ROUTER`], which is [`FAR_HOST`] too.
    pub router: Namespace,
}

/// A gateway with its process.
pub struct Gateway {
    /// Its name.
    pub name: String,
    /// Its address in the underlay.
    pub tunnel_ip: IpAddr,
    /// Its namespace.
    pub namespace: Namespace,
    /// Its process.
    pub process: Process,
}

/// Its way on; a device that goes down loses its routes.
fn add_route(namespace: &Namespace) -> anyhow::Result<()> {
    namespace.ip(&["route", "add", "default", "via", OUTSIDE_ROUTER])?;
    Ok(())
}

fn pins(name: &str) -> PathBuf {
    Path::new("/sys/fs/bpf/alcor-gateway").join(name)
}

impl Place {
    fn gateway(self, number: u8) -> String {
        format!("{}g{number}", self.prefix)
    }
}

/// Removes what gateways of a lab pinned.
///
/// # Errors
/// When something cannot be removed.
pub(super) fn clean_pins(lab: &str) -> anyhow::Result<()> {
    for number in 1..=GATEWAYS_MAX {
        let pins = pins(&Place::of(lab).gateway(number));
        if pins.exists() {
            std::fs::remove_dir_all(&pins).with_context(|| format!("removing {}", pins.display()))?;
        }
    }
    Ok(())
}

impl Cloud {
    /// Makes the outside.
    ///
    /// # Errors
    /// When a namespace cannot be made.
    pub fn outside(&self) -> anyhow::Result<Outside> {
        let wire = self.lab.wire_called("owire", WIRE_MTU)?;
        let router = self
            .lab
            .host(&wire, "outside", OUTSIDE_ROUTER.parse()?, WIRE_MTU)?;
        router.ip(&["address", "add", &format!("{FAR_HOST}/32"), "dev", "lo"])?;
        Ok(Outside { wire, router })
    }

    /// Makes a gateway and starts its process; returns when the controller knows it. `number`: 1 or 2.
    ///
    /// # Errors
    /// When it does not come up.
    pub fn gateway(&self, number: u8, outside: &Outside) -> anyhow::Result<Gateway> {
        let name = self.place.gateway(number);
        let tunnel_ip = self.place.address(20 + number);
        let external = IpAddr::V4(Ipv4Addr::new(203, 0, 113, 250 + number));
        let namespace = self.lab.gateway(
            &format!("g{number}"),
            &self.wire,
            tunnel_ip,
            (&outside.wire, external),
            WIRE_MTU,
        )?;
        add_route(&namespace)?;
        let process = self.spawn_gateway(&name, &namespace, tunnel_ip)?;
        let mut gateway = Gateway {
            name,
            tunnel_ip,
            namespace,
            process,
        };
        self.gateway_lives(&mut gateway)?;
        Ok(gateway)
    }

    /// Kills a gateway's process as a crash would and starts it again.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn restart_gateway(&self, gateway: &mut Gateway) -> anyhow::Result<()> {
        gateway.process.kill();
        gateway.process = self.spawn_gateway(&gateway.name, &gateway.namespace, gateway.tunnel_ip)?;
        self.gateway_lives(gateway)
    }

    /// Switches a gateway on again that was switched off.
    ///
    /// # Errors
    /// When it does not come up.
    pub fn power_on(&self, gateway: &mut Gateway) -> anyhow::Result<()> {
        for device in DEVICES {
            gateway.namespace.ip(&["link", "set", device, "up"])?;
        }
        add_route(&gateway.namespace)?;
        self.restart_gateway(gateway)
    }

    fn gateway_lives(&self, gateway: &mut Gateway) -> anyhow::Result<()> {
        let lives = eventually("the gateway at the controller", READY, || {
            if let Some(status) = gateway.process.ended() {
                return Err(format!("it ended ({status})"));
            }
            let path = format!("/alcor/v1/gateways?name={}", gateway.name);
            let listed = self.api.get(&path).map_err(|error| format!("{error:#}"))?;
            match listed["gateways"][0]["alive"] == true {
                true => Ok(()),
                false => Err(listed.to_string()),
            }
        });
        lives.with_context(|| format!("{} printed:\n{}", gateway.name, gateway.process.output()))
    }

    fn spawn_gateway(&self, name: &str, namespace: &Namespace, tunnel_ip: IpAddr) -> anyhow::Result<Process> {
        let arguments = [
            "gateway".to_owned(),
            format!("--name={name}"),
            format!("--tunnel-ip={tunnel_ip}"),
            "--underlay=eth0".to_owned(),
            "--external=eth1".to_owned(),
            format!("--ncm={}", self.southbound()),
            format!("--socket={}", self.socket(name).display()),
        ];
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let program = self.build.program("alcor");
        Ok(self.lab.spawn(Some(namespace), name, &program, &arguments)?)
    }

    /// What an agent's or a gateway's local socket says of its state.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn agent_state(&self, name: &str) -> anyhow::Result<Value> {
        let socket = self.socket(name);
        let mut stream =
            UnixStream::connect(&socket).with_context(|| format!("asking {}", socket.display()))?;
        stream.set_read_timeout(Some(ANSWER))?;
        stream.write_all(b"{\"state\": {}}\n")?;
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line)?;
        Ok(serde_json::from_str(&line)?)
    }

    /// The gateways that a host's packets of a network may go by now.
    ///
    /// # Errors
    /// When the host's agent does not answer.
    pub fn gateways_in_force(&self, host: &str, network: &str) -> anyhow::Result<Vec<IpAddr>> {
        let state = self.agent_state(host)?;
        let mut networks = state["networks"].as_array().into_iter().flatten();
        let found = networks.find(|line| line["id"] == network);
        let gateways = found.map(|line| serde_json::from_value(line["gateways"].clone()));
        Ok(gateways.transpose()?.unwrap_or_default())
    }
}

impl Gateway {
    /// It is gone as a machine is that lost its power: the process, and what it left in the kernel.
    ///
    /// # Errors
    /// When its devices cannot be switched off.
    pub fn power_off(&mut self) -> anyhow::Result<()> {
        self.process.kill();
        for device in DEVICES {
            self.namespace.ip(&["link", "set", device, "down"])?;
        }
        Ok(())
    }
}
