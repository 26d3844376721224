//! What each host must have when all is at rest, from what people made: its own ports, all neighbours in small networks, and in large ones those
//! that it asks for. Not here: when all is at rest.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Duration,
};

use alcor_model::{Id, Network, Port};
use alcor_ncm::core::Options;
use alcor_southbound::convert::resolve::Question;
use tokio::time::{Instant, sleep};

use super::{Region, api::Api, people::few};
use crate::{
    host::light::Route,
    sockets::{Order, now_us, tunnel_ip},
};

/// How long an answer to a question may take.
const ANSWERED_WITHIN: Duration = Duration::from_secs(5);
/// How often it is looked whether it is there.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// What of a network is to be known.
#[derive(Default)]
struct Known {
    /// Whoever has an address there, and on which host.
    addresses: Vec<(IpAddr, u32)>,
    hosts: BTreeSet<u32>,
}

/// Why the region says that not all is at rest, if it does.
pub(super) async fn restless(api: &Api, hosts: u32) -> Option<String> {
    let answer = match api.get("/alcor/v1/hosts").await {
        Ok(answer) => answer,
        Err(error) => return Some(error.to_string()),
    };
    let listed = answer["hosts"].as_array().map_or(&[][..], Vec::as_slice);
    let behind = listed
        .iter()
        .find(|host| host["pending"] != 0 || host["alive"] != true);
    match behind {
        Some(host) => Some(format!("a host is behind: {host}")),
        None if listed.len() != hosts as usize => {
            Some(format!("{} hosts of {hosts} are known", listed.len()))
        }
        None => None,
    }
}

impl Region<'_> {
    /// What hosts have and should not, or the other way round.
    pub(super) fn compare(&self) -> Vec<String> {
        let mut networks: BTreeMap<usize, Known> = BTreeMap::new();
        let mut own: BTreeMap<u32, BTreeMap<usize, BTreeSet<Id<Port>>>> = BTreeMap::new();
        for port in &self.people.ports {
            let known = networks.entry(port.network).or_default();
            known.addresses.push((port.ip, port.host));
            known.hosts.insert(port.host);
            let own = own.entry(port.host).or_default();
            own.entry(port.network).or_default().insert(port.id);
        }
        let mut wrong = Vec::new();
        for host in 0..self.scenario.hosts.count {
            let own = own.remove(&host).unwrap_or_default();
            self.compare_ports(host, &own, &mut wrong);
            for network in own.keys() {
                if let Some(known) = networks.get(network) {
                    self.compare_neighbours(host, self.people.networks[*network].id, known, &mut wrong);
                }
            }
        }
        few(wrong)
    }

    fn compare_ports(&self, host: u32, own: &BTreeMap<usize, BTreeSet<Id<Port>>>, wrong: &mut Vec<String>) {
        let (has, networks) = self
            .kept
            .host(host, |light| {
                let ports: BTreeSet<_> = light.ports().into_iter().map(|(port, _)| port).collect();
                (ports, light.networks().collect::<Vec<_>>())
            })
            .unwrap_or_default();
        let must: BTreeSet<_> = own.values().flatten().copied().collect();
        if has != must {
            let missing: Vec<_> = must.difference(&has).take(3).map(ToString::to_string).collect();
            let more: Vec<_> = has
                .difference(&must)
                .take(3)
                .map(|id| self.whereabouts(*id))
                .collect();
            wrong.push(format!(
                "host {host} does not have the ports {missing:?}, and has {more:?}"
            ));
        }
        let visited = self.visited.get(&host);
        let strange = |id: &&Id<Network>| visited.is_none_or(|visited| !visited.contains(*id));
        if let Some(network) = networks.iter().find(strange) {
            wrong.push(format!(
                "host {host} knows of network {network}, where it never had a port"
            ));
        }
    }

    /// Where a port is that should not be somewhere, for people.
    fn whereabouts(&self, id: Id<Port>) -> String {
        match self.people.ports.iter().find(|port| port.id == id) {
            Some(port) => {
                let network = self.people.networks[port.network].id;
                format!("{id} of network {network}, now on host {}", port.host)
            }
            None => format!("{id}, which is deleted"),
        }
    }

    fn compare_neighbours(&self, host: u32, network: Id<Network>, known: &Known, wrong: &mut Vec<String>) {
        let now = now_us();
        let told = known.hosts.len() * known.addresses.len();
        let most = self.scenario.ncm.eager_rows_max;
        let most = most.unwrap_or(Options::default().eager_rows_max);
        let others = || known.addresses.iter().filter(|(_, of)| *of != host);
        self.kept.host(host, |light| {
            let asks = light.asks(network);
            if (asks && told <= most / 2) || (!asks && told > most) {
                let does = if asks { "asks" } else { "does not ask" };
                wrong.push(format!(
                    "host {host} {does} in network {network}, with {told} rows on all hosts for {most}"
                ));
            }
            if asks {
                // What it has is right, or it has nothing.
                let lies = |(ip, of): &&(IpAddr, u32)| {
                    let route = light.route(network, *ip, now);
                    route != Route::Ask && route != Route::To(tunnel_ip(*of).into())
                };
                if let Some((ip, of)) = others().find(lies) {
                    wrong.push(format!(
                        "host {host} is wrong about {ip} of {network}, which is on host {of}"
                    ));
                }
                return;
            }
            let lacks = |(ip, of): &&(IpAddr, u32)| {
                light.route(network, *ip, now) != Route::To(tunnel_ip(*of).into())
            };
            if let Some((ip, of)) = others().find(lacks) {
                wrong.push(format!(
                    "host {host} does not know that {ip} of {network} is on host {of}"
                ));
            }
            let (has, must) = (light.neighbours(network, now), others().count());
            if has != must {
                wrong.push(format!(
                    "host {host} has {has} neighbours for {must} in network {network}"
                ));
            }
        });
    }

    /// Some pairs of ports on different hosts must know of each other, after a question where hosts ask.
    pub(super) async fn probe(&mut self, when: &str) {
        let mut pairs = Vec::new();
        for _ in 0..self.scenario.traffic.probes {
            if self.people.ports.is_empty() {
                break;
            }
            let from = self.people.ports[self.rng.place(self.people.ports.len())];
            let near: Vec<_> = self
                .people
                .ports
                .iter()
                .filter(|port| port.network == from.network && port.host != from.host)
                .collect();
            if let Some(to) = near.get(self.rng.place(near.len().max(1))) {
                pairs.push((from, **to));
            }
        }
        let until = Instant::now() + ANSWERED_WITHIN;
        for (from, to) in &pairs {
            let network = self.people.networks[from.network].id;
            let asks = self.kept.host(from.host, |light| {
                light.route(network, to.ip, now_us()) == Route::Ask
            });
            if asks == Some(true)
                && let Some(orders) = self.orders.get(from.host as usize)
            {
                let question = Question {
                    network,
                    ip: to.ip,
                    port: Some(from.id),
                };
                // One that has too many orders already does not hear it, and is found wrong below.
                let _ = orders.try_send(Order::Ask(question));
                self.figures.add("probes_asked", 1);
            }
        }
        for (from, to) in &pairs {
            let network = self.people.networks[from.network].id;
            let right = Route::To(tunnel_ip(to.host).into());
            let knows = || {
                self.kept
                    .host(from.host, |light| light.route(network, to.ip, now_us()) == right)
            };
            let mut is_known = knows() == Some(true);
            while !is_known && Instant::now() < until {
                sleep(LOOK_EVERY).await;
                is_known = knows() == Some(true);
            }
            match is_known {
                true => self.figures.add("probes_delivered", 1),
                false => self.violate(format!(
                    "{when}: host {} does not know where {} of {network} is",
                    from.host, to.ip
                )),
            }
        }
    }
}
