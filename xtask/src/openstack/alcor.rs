//! `alcor controller` with Keystone's tokens, as an operator would run it, and agents of two hosts.

use std::{fs, path::Path, time::Duration};

use serde_json::Value;

use super::{
    keystone::{Keystone, PASSWORD},
    process::{Process, free_port},
};
use crate::cloud::Build;

/// Hosts with an agent: tests look at one and change another.
const HOSTS: [&str; 2] = ["host-1", "host-2"];
/// How long it may take until it answers.
const READY: Duration = Duration::from_secs(60);

/// A running controller.
#[derive(Debug)]
pub struct Alcor {
    /// `http://127.0.0.1:PORT`
    pub url: String,
    /// Before the controller, so that they are stopped first.
    _agents: Vec<Process>,
    _process: Process,
}

impl Alcor {
    /// Builds it, starts it on a new region in a folder, and names it in the catalogue.
    ///
    /// # Errors
    /// When it cannot be built or does not answer; the message has the end of its log.
    pub fn start(build: Build, keystone: &Keystone, dir: &Path) -> anyhow::Result<Self> {
        build.packages(&["alcor"])?;
        let config = dir.join("alcor.toml");
        fs::write(&config, configuration(keystone))?;
        let port = free_port()?;
        let url = format!("http://127.0.0.1:{port}");
        let mut command = std::process::Command::new(build.program("alcor"));
        command.arg("--config").arg(&config).arg("controller");
        command.arg(format!("--api-listen=127.0.0.1:{port}"));
        let southbound = free_port()?;
        command.arg(format!("--southbound-listen=127.0.0.1:{southbound}"));
        command.arg(format!("--data-dir={}", dir.join("region").display()));
        let mut process = Process::spawn("alcor controller", &mut command, &dir.join("alcor.log"))?;
        let http = reqwest::blocking::Client::builder().no_proxy().build()?;
        // The list of versions needs no token.
        process.wait_until(READY, || {
            http.get(&url)
                .send()
                .is_ok_and(|reply| reply.status().is_success())
        })?;
        let admin = keystone.admin()?;
        admin.publish_network(&url)?;
        let agents: Vec<Process> = HOSTS
            .iter()
            .map(|host| start_agent(build, host, southbound, dir))
            .collect::<anyhow::Result<_>>()?;
        process.wait_until(READY, || {
            let agents = http.get(format!("{url}/v2.0/agents?alive=true"));
            let reply = agents.header("X-Auth-Token", &admin.token).send();
            let list = reply.and_then(|reply| reply.json::<Value>());
            list.is_ok_and(|list| {
                list["agents"]
                    .as_array()
                    .is_some_and(|all| all.len() == HOSTS.len())
            })
        })?;
        Ok(Self {
            url,
            _agents: agents,
            _process: process,
        })
    }
}

/// A host's agent, with a data plane in memory: what OpenStack's tests of the API look at, packets aside.
fn start_agent(build: Build, host: &str, southbound: u16, dir: &Path) -> anyhow::Result<Process> {
    let mut command = std::process::Command::new(build.program("alcor"));
    command.args([
        "agent",
        "--dataplane=model",
        "--tunnel-ip=127.0.0.1",
        "--host",
        host,
    ]);
    command.arg(format!("--ncm=http://127.0.0.1:{southbound}"));
    command.arg(format!("--socket={}", dir.join(format!("{host}.sock")).display()));
    Process::spawn(
        &format!("alcor agent {host}"),
        &mut command,
        &dir.join(format!("{host}.log")),
    )
}

/// Quotas are those of the Neutron project's own gate, where its tests are known to pass. Answers of Keystone may take
/// their time on a busy machine.
fn configuration(keystone: &Keystone) -> String {
    format!(
        "[controller.quotas]\n\
         floatingip = 500\n\
         router = 100\n\
         security_group = 100\n\
         security_group_rule = 1000\n\
         [controller.auth]\n\
         mode = \"keystone\"\n\
         keystone_url = \"{}\"\n\
         username = \"neutron\"\n\
         password = \"{PASSWORD}\"\n\
         timeout_ms = 30000\n",
        keystone.url.trim_end_matches("/v3")
    )
}
