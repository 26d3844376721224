//! What must hold of gateways after every step, whatever happens.

use std::collections::{BTreeMap, BTreeSet};

use alcor_dataplane::{Row, RowKey};
use alcor_proto::v1;
use alcor_southbound::convert::encode_ip;

use super::{
    super::*,
    agent::SimAgent,
    sim::Sim,
    world::{GATEWAYS, id, name, tunnel_ip},
};

/// When gateways were heard last by the NCM that is there.
pub(super) struct Watch {
    /// When it looked first.
    started: Option<Duration>,
    pulsed_at: Duration,
    /// The NCM looks who is there, and not so late that it must have been busy.
    looks: bool,
    heard: BTreeMap<u8, Duration>,
}

impl Watch {
    pub(super) const fn since(started: Duration) -> Self {
        Self {
            started: None,
            pulsed_at: started,
            looks: false,
            heard: BTreeMap::new(),
        }
    }

    pub(super) fn hears(&mut self, now: Duration, agents: &BTreeMap<u8, SimAgent>, event: &Event) {
        self.looks = matches!(event, Event::Pulse | Event::Tick);
        if self.looks {
            self.looks = now - self.pulsed_at <= PULSE * 3;
            self.pulsed_at = now;
            self.started.get_or_insert(now);
        }
        if let Event::Hello { session, .. } | Event::Message { session, .. } = event {
            let says = |(_, agent): &(&u8, &SimAgent)| agent.session == Some(*session);
            if let Some((number, _)) = agents.range(GATEWAYS..).find(says) {
                self.heard.insert(*number, now);
            }
        }
    }

    /// Who is in a row has all of the network, as far as it lives; and when it was looked who lives, nobody in any row has been
    /// silent for longer than he may.
    pub(super) fn check(&self, sim: &Sim) {
        let now = sim.now.since_start;
        for (network, ip) in sim.ways() {
            let gateway = sim
                .agents
                .range(GATEWAYS..)
                .find(|(number, _)| tunnel_ip(**number) == ip);
            let (number, agent) = gateway.unwrap();
            assert!(
                agent.session.is_none() || agent.complete.contains(&network),
                "{} does not have all of {network}",
                name(*number)
            );
            if !self.looks {
                continue;
            }
            match self.heard.get(number) {
                Some(heard) => assert!(now - *heard <= SILENCE_MAX, "{} is silent", name(*number)),
                None => assert!(
                    self.started.is_none_or(|started| now < started + GRACE),
                    "{} never came back",
                    name(*number)
                ),
            }
        }
    }
}

impl Sim {
    /// Which gateway is in rows of which network.
    fn ways(&self) -> BTreeSet<(Id<Network>, IpAddr)> {
        let mut ways = BTreeSet::new();
        for (id, view) in &self.ncm.networks {
            ways.extend(view.service.ways.iter().map(|ip| (*id, *ip)));
            for router in self.ncm.routing.with_ways_out(*id) {
                ways.extend(self.ncm.routing.ways(router).iter().map(|ip| (*id, *ip)));
            }
        }
        ways
    }

    /// A gateway says that it is there, and whom it cannot reach.
    pub(super) fn beats(&mut self, number: u8, unreachable: &[u8]) {
        let unreachable = unreachable
            .iter()
            .map(|number| encode_ip(tunnel_ip(*number)))
            .collect();
        self.says(
            number,
            v1::Heartbeat {
                unreachable,
                load: None,
            },
        );
    }

    /// A gateway's sign of life.
    pub(super) fn says(&mut self, number: u8, heartbeat: v1::Heartbeat) {
        if let Some(session) = self.agents[&number].session {
            let body = v1::agent_message::Body::Heartbeat(heartbeat);
            self.step(Event::Message { session, body });
        }
    }

    /// Gateways that are watched say often enough that they are there, and that they reach everybody.
    pub(super) fn beat_in_time(&mut self) {
        let Some(watch) = &self.watch else { return };
        let due = |number: &u8| {
            let heard = watch.heard.get(number);
            heard.is_none_or(|heard| self.now.since_start - *heard >= HEARTBEAT_INTERVAL)
        };
        let gateways = self.agents.range(GATEWAYS..).map(|(number, _)| *number);
        for number in gateways.filter(due).collect::<Vec<_>>() {
            self.beats(number, &[]);
        }
    }

    /// The networks that a set is to serve.
    fn served_by(&self, set: &str) -> BTreeSet<Id<Network>> {
        let fleet = &self.ncm.fleet;
        let learned = self.ncm.networks.iter().filter(|(id, view)| {
            view.learned && view.network.is_some() && fleet.set_of_network(**id) == Some(set)
        });
        let out = self.world.routers.values();
        let out = out.filter(|row| row.gateway.is_some() && fleet.set_of_router(row.id) == Some(set));
        let out = out.flat_map(|row| row.interfaces.iter().map(|place| place.network_id));
        learned.map(|(id, _)| *id).chain(out).collect()
    }

    /// The addresses that rows are to name: of all members of a set that are not being drained.
    fn members_in_use(&self, set: Option<&str>) -> Vec<IpAddr> {
        let rows = self.world.gateways.values();
        let members = rows.filter(|row| Some(&*row.set) == set && !row.draining);
        let mut addresses: Vec<_> = members.map(|row| row.tunnel_ip).collect();
        addresses.sort_unstable();
        addresses
    }

    /// Everybody is there: gateways have exactly what they are to have, and all rows name all that may be used. While some keep
    /// what they are not to have any more, only of what they are to have.
    pub(super) fn compare_gateways(&self, is_over: bool) {
        for (number, agent) in self.agents.range(GATEWAYS..) {
            let name = name(*number);
            let networks = match self.world.gateways.contains_key(&name) {
                true => self.served_by(agent.set.unwrap()),
                // It was deleted while it was here, and is asked for again.
                false => BTreeSet::new(),
            };
            let expected = self.world.expected_of_gateway(&networks);
            let mut has = agent.has(&name, &self.world);
            has.retain(|key, _| is_over || networks.contains(&key.network_id()));
            for network in &networks {
                let blocks = self.ncm.networks[network].underlay.blocks();
                let blocks: BTreeSet<String> = blocks.iter().map(ToString::to_string).collect();
                assert!(blocks.contains(&format!("{}/32", tunnel_ip(*number))));
                let row = has.insert(RowKey::Network(*network), String::new());
                assert_eq!(row, Some(format!("{:?}", Some(blocks))), "{name}");
            }
            assert_eq!(has, expected, "{name} has what it must have");
        }
        if is_over {
            self.compare_ways();
        }
    }

    fn compare_ways(&self) {
        let fleet = &self.ncm.fleet;
        for (number, agent) in &self.agents {
            for (_, row) in agent.rows.values() {
                match row {
                    Some(Row::Network(row)) => {
                        let learned = self.ncm.networks[&row.id].learned;
                        let set = fleet.set_of_network(row.id).filter(|_| learned);
                        let expected = self.members_in_use(set);
                        assert_eq!(row.gateways, expected, "{}: {}", name(*number), row.id);
                    }
                    Some(Row::Router(row)) => {
                        let out = self.world.routers[&row.id].gateway;
                        assert_eq!(row.external.is_some(), out.is_some());
                        let Some(external) = &row.external else {
                            continue;
                        };
                        let expected = self.members_in_use(fleet.set_of_router(row.id));
                        assert_eq!(external.gateways, expected, "{}: {}", name(*number), row.id);
                        assert_eq!(external.network_id, id(2000));
                    }
                    _ => {}
                }
            }
        }
    }
}
