//! What people make and change through the API, and what therefore must be so: networks, and ports with their addresses and hosts, as the
//! API has answered. Not here: whether hosts know of it.

use std::{collections::HashMap, net::IpAddr};

use alcor_model::{Id, Network, Port};
use serde_json::{Value, json};

use super::{PREFIX, RegionError, api::Api};
use crate::rng::Rng;

/// Ports in one page of a list.
const PAGE: usize = 10_000;
/// Differences that are told.
const TOLD: usize = 5;

/// One thing that happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum What {
    Create,
    Delete,
    Update,
    Migrate,
    Cut,
    KillNcm,
    KillController,
}

impl What {
    /// The figure that counts it.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Create => "created",
            Self::Delete => "deleted",
            Self::Update => "updated",
            Self::Migrate => "migrated",
            Self::Cut => "sessions_cut",
            Self::KillNcm => "ncm_restarts",
            Self::KillController => "controller_restarts",
        }
    }
}

/// A network.
pub(super) struct Its {
    pub(super) id: Id<Network>,
    pub(super) project: String,
    /// Ports in it.
    pub(super) size: u64,
}

/// A port that is bound to a host.
#[derive(Clone, Copy)]
pub(super) struct Bound {
    pub(super) id: Id<Port>,
    pub(super) network: usize,
    pub(super) ip: IpAddr,
    pub(super) host: u32,
}

/// Everything there is.
#[derive(Default)]
pub(super) struct People {
    pub(super) networks: Vec<Its>,
    pub(super) ports: Vec<Bound>,
}

fn name(host: u32) -> String {
    format!("{PREFIX}-{host}")
}

fn parsed<T: std::str::FromStr>(value: &Value, path: &str, what: &'static str) -> Result<T, RegionError> {
    let parsed = value.as_str().and_then(|text| text.parse().ok());
    parsed.ok_or_else(|| RegionError::Answer(path.to_owned(), what))
}

impl People {
    /// Makes a network with a block of addresses that all networks have; gives its place.
    pub(super) async fn network(
        &mut self,
        api: &Api,
        number: usize,
        project: String,
    ) -> Result<usize, RegionError> {
        let path = "/v2.0/networks";
        let body = json!({"network": {"name": format!("n{number}"), "project_id": project}});
        let made = api.post(path, &body).await?;
        let id: Id<Network> = parsed(&made["network"]["id"], path, "id")?;
        let subnet = json!({"network_id": id.to_string(), "project_id": project, "ip_version": 4, "cidr": "10.0.0.0/8"});
        api.post("/v2.0/subnets", &json!({ "subnet": subnet })).await?;
        self.networks.push(Its { id, project, size: 0 });
        Ok(self.networks.len() - 1)
    }

    /// Makes a port on each of these hosts by one call; gives their places.
    pub(super) async fn ports(
        &mut self,
        api: &Api,
        network: usize,
        hosts: &[u32],
    ) -> Result<Vec<usize>, RegionError> {
        let path = "/v2.0/ports";
        let its = &mut self.networks[network];
        let port = |host: &u32| json!({"network_id": its.id.to_string(), "project_id": its.project, "binding:host_id": name(*host)});
        let body = match hosts {
            [host] => json!({"port": port(host)}),
            hosts => json!({"ports": hosts.iter().map(port).collect::<Vec<_>>()}),
        };
        let made = api.post(path, &body).await?;
        let made = match &made["ports"] {
            Value::Array(made) => made.clone(),
            _ => vec![made["port"].clone()],
        };
        if made.len() != hosts.len() {
            return Err(RegionError::Answer(
                path.to_owned(),
                "port for each that was asked for",
            ));
        }
        its.size += made.len() as u64;
        let first = self.ports.len();
        for (made, host) in made.iter().zip(hosts) {
            self.ports.push(Bound {
                id: parsed(&made["id"], path, "id")?,
                network,
                ip: parsed(&made["fixed_ips"][0]["ip_address"], path, "address")?,
                host: *host,
            });
        }
        Ok((first..self.ports.len()).collect())
    }

    /// The network of some port: large ones are more often somebody's.
    pub(super) fn some_network(&self, rng: &mut Rng) -> usize {
        match self.ports.len() {
            0 => rng.place(self.networks.len()),
            ports => self.ports[rng.place(ports)].network,
        }
    }

    pub(super) async fn delete(&mut self, api: &Api, rng: &mut Rng) -> Result<(), RegionError> {
        if self.ports.is_empty() {
            return Ok(());
        }
        let port = self.ports.swap_remove(rng.place(self.ports.len()));
        self.networks[port.network].size -= 1;
        api.delete(&format!("/v2.0/ports/{}", port.id)).await
    }

    pub(super) async fn update(&self, api: &Api, rng: &mut Rng) -> Result<(), RegionError> {
        if self.ports.is_empty() {
            return Ok(());
        }
        let port = &self.ports[rng.place(self.ports.len())];
        let body = json!({"port": {"name": format!("n{}", rng.below(1_000))}});
        api.put(&format!("/v2.0/ports/{}", port.id), &body)
            .await
            .map(drop)
    }

    /// Binds some port to a host, if it is not there already; `before` hears which before it is done. Gives its place.
    pub(super) async fn migrate(
        &mut self,
        api: &Api,
        rng: &mut Rng,
        host: u32,
        before: impl FnOnce(Id<Port>),
    ) -> Result<Option<usize>, RegionError> {
        if self.ports.is_empty() {
            return Ok(None);
        }
        let place = rng.place(self.ports.len());
        let port = &mut self.ports[place];
        if port.host == host {
            return Ok(None);
        }
        before(port.id);
        let body = json!({"port": {"binding:host_id": name(host)}});
        api.put(&format!("/v2.0/ports/{}", port.id), &body).await?;
        port.host = host;
        Ok(Some(place))
    }

    /// What the API shows of ports and is not so: those that it has forgotten or made up, on another host, not `ACTIVE`.
    pub(super) async fn compare_with_api(&self, api: &Api) -> Result<Vec<String>, RegionError> {
        let mut expected: HashMap<String, u32> = self
            .ports
            .iter()
            .map(|port| (port.id.to_string(), port.host))
            .collect();
        let fields = "fields=id&fields=status&fields=binding:host_id";
        let (mut wrong, mut marker) = (Vec::new(), String::new());
        loop {
            let path = format!("/v2.0/ports?{fields}&limit={PAGE}{marker}");
            let page = api.get(&path).await?;
            let ports = page["ports"].as_array().cloned().unwrap_or_default();
            for port in &ports {
                let id: String = parsed(&port["id"], &path, "id")?;
                match expected.remove(&id) {
                    Some(host) if port["binding:host_id"] == name(host) && port["status"] == "ACTIVE" => {}
                    Some(host) => wrong.push(format!("the API shows {port}, which is on {}", name(host))),
                    None => wrong.push(format!("the API shows {port}, which was not made")),
                }
            }
            match ports.last() {
                Some(last) if ports.len() == PAGE => {
                    marker = format!("&marker={}", last["id"].as_str().unwrap_or_default());
                }
                _ => break,
            }
        }
        let lost = expected
            .keys()
            .map(|id| format!("the API does not show port {id}, which was made"));
        wrong.extend(lost);
        Ok(few(wrong))
    }
}

/// The first of what is wrong, and how much it is.
pub(super) fn few(mut wrong: Vec<String>) -> Vec<String> {
    let count = wrong.len();
    if count > TOLD {
        wrong.truncate(TOLD);
        wrong.push(format!("and {} more", count - TOLD));
    }
    wrong
}
