//! Who says hello: whether he may, and what he misses of each network.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use alcor_dataplane::RowKey;
use alcor_model::{
    Id, Network, Revision,
    resource::{DEFAULT_ZONE, HostWord, NAME_BYTES_MAX, WordError, is_name, is_tunnel_ip},
};
use alcor_proto::v1;
use alcor_southbound::{
    convert::{decode_id, decode_ip},
    frame::FromNcm,
};

use super::{
    Action, HostEntry, Ncm, Now, Options, SessionId,
    gateways::{DEFAULT_SET, HEARTBEAT_INTERVAL},
    session::{Opened, Outgoing, Session},
    status::{Applied, HostStatus},
    strangers::STRANGERS_MAX,
    view::NetworkView,
};

/// What an agent says of its host.
fn read_word(hello: &v1::Hello, tunnel_ip: IpAddr) -> Result<HostWord, String> {
    let zone = &hello.availability_zone;
    let networks = hello.external_networks.iter();
    let networks = networks.map(|id| decode_id("an external network", id));
    let word = HostWord {
        tunnel_ip,
        availability_zone: if zone.is_empty() { DEFAULT_ZONE } else { zone }.to_owned(),
        external_networks: networks
            .collect::<Result<_, _>>()
            .map_err(|error| error.to_string())?,
    };
    word.check(&hello.host).map_err(|error| error.to_string())?;
    Ok(word)
}

/// What an agent still has, and to which revision. What is no network is nothing.
fn read_held(held: &[v1::Held]) -> BTreeMap<Id<Network>, Revision> {
    let network = |held: &v1::Held| decode_id("held network", &held.network_id).ok();
    let held = held.iter();
    held.filter_map(|held| Some((network(held)?, Revision(held.revision))))
        .collect()
}

/// Who says hello, checked.
enum Role {
    Host(HostWord),
    Gateway { set: String, tunnel_ip: IpAddr },
}

fn read_set(set: String) -> Result<String, String> {
    match set {
        set if set.is_empty() => Ok(DEFAULT_SET.to_owned()),
        set if is_name(&set) => Ok(set),
        _ => Err(format!(
            "the name of a set of gateways has at most {NAME_BYTES_MAX} printable bytes"
        )),
    }
}

impl Ncm {
    pub(super) fn hello(&mut self, now: Now, id: SessionId, hello: v1::Hello, actions: &mut Vec<Action>) {
        let refuse = |reason: String| Action::Close { session: id, reason };
        let opened = Opened {
            incarnation: hello.incarnation,
            session: hello.session,
        };
        let role = match self.admitted(&hello, opened) {
            Ok(role) => role,
            Err(reason) => return actions.push(refuse(reason)),
        };
        let v1::Hello { host: name, held, .. } = hello;
        let holds = read_held(&held);
        let to_forget = match role {
            Role::Host(_) => self.of_any_time(&name, &holds),
            Role::Gateway { .. } => BTreeSet::new(),
        };
        let word = match &role {
            Role::Host(word) => Some(word.clone()),
            Role::Gateway { .. } => None,
        };
        let is_gateway = word.is_none();
        let entry = self.host_entry(&name);
        if is_gateway && !entry.is_gateway {
            entry.status = HostStatus::default();
        }
        entry.is_gateway = is_gateway;
        entry.status.to_forget = to_forget;
        entry.status.incarnation = hello.incarnation;
        entry.status.dataplane = Some(hello.dataplane);
        entry.status.filters = hello.filters;
        entry.status.has_outside = word
            .as_ref()
            .is_some_and(|word| !word.external_networks.is_empty());
        entry.status.last_seen_us = now.unix_us;
        entry.status.changed = true;
        let session = Session::new(id, now.since_start, opened, word, &held);
        let previous = entry.session.replace(session).map(|session| session.id);
        if let Some(previous) = previous {
            self.admission.close(previous);
            self.sessions.remove(&previous);
            actions.push(Action::Close {
                session: previous,
                reason: "a newer session took over".to_owned(),
            });
        }
        self.sessions.insert(id, name.clone());
        let heartbeat_interval = match is_gateway {
            true => HEARTBEAT_INTERVAL,
            false => self.options.heartbeat_interval,
        };
        actions.push(Action::Send {
            session: id,
            message: FromNcm::Welcome(v1::Welcome {
                session_id: id,
                heartbeat_interval_ms: u32::try_from(heartbeat_interval.as_millis()).unwrap_or(u32::MAX),
            }),
        });
        actions.extend(self.introduce(id, &name, role));
        self.catch_up(now, &name, &holds);
        self.begin_anew(now, &name);
        // From now on the host's own words count.
        if let Some(entry) = self.hosts.get_mut(&name) {
            entry.status.remembered = None;
        }
        self.pump(now, &name, actions);
    }

    /// Whether somebody may have a session, or why not. A name is that of a host or of a gateway, never of both, and nobody's
    /// packets come from a gateway's address but its own.
    fn admitted(&self, hello: &v1::Hello, opened: Opened) -> Result<Role, String> {
        let name = &hello.host;
        if !is_name(name) {
            return Err(WordError::Name.to_string());
        }
        let tunnel_ip =
            decode_ip("the tunnel address", &hello.tunnel_ip).map_err(|error| error.to_string())?;
        let entry = self.hosts.get(name);
        if entry.is_none() && self.strangers.is_full() && !self.is_registered(name) {
            return Err(format!(
                "{STRANGERS_MAX} hosts and gateways that the region has not registered are known here already"
            ));
        }
        if let Some(gateway) = self.fleet.at(tunnel_ip).filter(|gateway| *gateway != name) {
            return Err(format!("{tunnel_ip} is the tunnel address of gateway {gateway}"));
        }
        let role = if hello.gateway {
            let is_host = |entry: &&HostEntry| entry.row.is_some() || entry.session.is_some();
            if entry.filter(is_host).is_some_and(|entry| !entry.is_gateway) {
                return Err(format!("{name} is the name of a host"));
            }
            let mut rows = self.hosts.values().filter_map(|entry| entry.row.as_ref());
            if let Some(host) = rows.find(|row| row.tunnel_ip == tunnel_ip) {
                return Err(format!("{tunnel_ip} is the tunnel address of host {}", host.name));
            }
            let set = read_set(hello.gateway_set.clone())?;
            if !is_tunnel_ip(tunnel_ip) {
                return Err(WordError::Tunnel(tunnel_ip).to_string());
            }
            Role::Gateway { set, tunnel_ip }
        } else {
            if self.fleet.has(name) {
                return Err(format!("{name} is the name of a gateway"));
            }
            Role::Host(read_word(hello, tunnel_ip)?)
        };
        // Only what lives is worth being kept: without a session any hello is better than none, whatever the host's clock showed
        // when its agent started.
        let lives = entry.and_then(|entry| entry.session.as_ref());
        if let Some(lives) = lives
            .map(|lives| lives.opened)
            .filter(|lives| !opened.follows(*lives))
        {
            return Err(format!(
                "session {} of incarnation {} of {name} is older than session {} of {}, which is here; is another agent running \
                 under this name?",
                opened.session, opened.incarnation, lives.session, lives.incarnation
            ));
        }
        Ok(role)
    }

    /// Makes a session known to whom it concerns; gives what is to be registered.
    fn introduce(&mut self, session: SessionId, name: &str, role: Role) -> Option<Action> {
        match role {
            Role::Host(word) => {
                self.unheard.remove(name);
                let index = self.directory.host(name);
                self.directory.open(index, session);
                let entry = self.hosts.get(name);
                let same = entry
                    .and_then(|entry| entry.row.as_ref())
                    .is_some_and(|row| word.is_in(row));
                let waits = entry.is_some_and(|entry| !entry.status.to_forget.is_empty());
                (!same && !waits).then(|| Action::RegisterHost {
                    name: name.to_owned(),
                    word,
                })
            }
            Role::Gateway { set, tunnel_ip } => {
                let news = self.fleet.said(name, self.clock, &set, tunnel_ip);
                news.then(|| Action::RegisterGateway {
                    name: name.to_owned(),
                    set,
                    tunnel_ip,
                })
            }
        }
    }

    /// Queues what the host misses of each network: from what it holds where that is possible, else a snapshot; and
    /// what it holds and has no business with, to forget.
    fn catch_up(&mut self, now: Now, host: &str, held: &BTreeMap<Id<Network>, Revision>) {
        let interest = self.networks_of(host);
        match self.is_gateway(host) {
            true => self.note_gateway(host, held),
            false => self.note_known(host, held),
        }
        for view in held.keys().filter_map(|id| self.networks.get(id)) {
            self.learn_left(host, view);
        }
        for (network, revision) in held.iter().filter(|(id, _)| !interest.contains(id)) {
            let goes_on = |view: &&NetworkView| view.left.lingers(host) && !self.has_outside(host);
            let view = self.networks.get(network).filter(goes_on);
            let lingering = view.map(|view| self.lingering_rows(host, view, *revision));
            let (forgets, rows) = lingering.unwrap_or((true, Vec::new()));
            self.sends_unasked(host, *network, &rows);
            self.with_session(host, |session, options| {
                if forgets {
                    session.forget(*network, now.unix_us);
                }
                // It is not complete to anything by that.
                let rows = Outgoing::delta(*network, Revision::ZERO, rows, now.unix_us);
                session.push(options, rows);
            });
            self.has_all_no_more(host, *network);
        }
        // What asks for labels of neighbours, after those of all networks.
        let mut asking = Vec::new();
        for network in interest {
            let complete = held
                .get(&network)
                .copied()
                .filter(|revision| *revision > Revision::ZERO);
            let rows = complete.and_then(|revision| self.since(host, network, revision));
            let newest = self
                .networks
                .get(&network)
                .map_or(Revision::ZERO, |view| view.revision);
            if let Some(revision) = complete.filter(|_| rows.is_some()) {
                self.note_held(host, network, revision);
            }
            let learned = self.is_learned(network) && !self.is_gateway(host);
            if learned {
                self.sends_unasked(host, network, rows.as_deref().unwrap_or_default());
            }
            let after = self.routing.peers(network);
            self.with_session(host, |session, options| match rows {
                Some(missed) => {
                    if !learned {
                        session.settled(network);
                    }
                    let rows = options.message_rows;
                    let mut deltas = Outgoing::deltas(network, newest, missed, &after, rows, now.unix_us);
                    let asks = deltas.iter().position(Outgoing::asks).unwrap_or(deltas.len());
                    asking.extend(deltas.split_off(asks));
                    for delta in deltas {
                        session.push(options, delta);
                    }
                }
                None => session.resync(network, learned),
            });
        }
        self.with_session(host, |session, options| {
            for delta in asking {
                session.push(options, delta);
            }
        });
    }

    /// What a host that the region has no row of holds and was not counted for, of networks in which others will reach it: that may be of any
    /// time. One whose registration is under way holds what it was told here.
    fn of_any_time(&self, host: &str, held: &BTreeMap<Id<Network>, Revision>) -> BTreeSet<Id<Network>> {
        if self.is_registered(host) {
            return BTreeSet::new();
        }
        let status = self.hosts.get(host).map(|entry| &entry.status);
        let is_counted = |network: &Id<Network>| {
            status.is_some_and(|status| {
                status.complete.contains_key(network) && !status.to_forget.contains(network)
            })
        };
        let mut networks = self.networks_of(host);
        networks.retain(|network| held.contains_key(network) && !is_counted(network));
        networks
    }

    /// A host is to forget networks before others can reach it, whatever else it would be told of them.
    fn begin_anew(&mut self, now: Now, host: &str) {
        let to_forget = match self.hosts.get_mut(host) {
            Some(entry) => entry.status.to_forget.clone(),
            None => return,
        };
        for network in to_forget {
            self.with_session(host, |session, _| {
                session.forget(network, now.unix_us);
                // After the word to forget.
                session.resync(network, true);
            });
            if let Some(entry) = self.hosts.get_mut(host) {
                entry.status.complete.insert(network, Revision::ZERO);
            }
        }
    }

    /// A host knows labels of exactly the networks that it holds something of, whether or not it can go on from there: its
    /// hello comes after all that it took before, and what was sent to an earlier session and is not held never came.
    fn note_known(&mut self, host: &str, held: &BTreeMap<Id<Network>, Revision>) {
        let Some(entry) = self.hosts.get_mut(host) else {
            return;
        };
        let known = held.keys().map(|network| (*network, Revision::ZERO)).collect();
        let before = std::mem::replace(&mut entry.status.complete, known);
        entry
            .status
            .refusing
            .retain(|network, _| held.contains_key(network));
        let forgotten = before.keys().filter(|network| !held.contains_key(network));
        for network in held.keys().chain(forgotten) {
            self.completed(host, *network);
        }
    }

    /// A gateway forwards what it was complete to, also while it does not know any more how new that is: what its run before has
    /// left in the kernel is in force.
    fn note_gateway(&mut self, name: &str, held: &BTreeMap<Id<Network>, Revision>) {
        let Some(entry) = self.hosts.get_mut(name) else {
            return;
        };
        let before = std::mem::take(&mut entry.status.complete);
        let complete = |(network, revision): (&Id<Network>, &Revision)| {
            let known = before.get(network).copied().unwrap_or_default();
            let revision = match *revision {
                Revision::ZERO => known,
                revision => revision,
            };
            (*network, revision)
        };
        entry.status.complete = held.iter().map(complete).collect();
        entry
            .status
            .refusing
            .retain(|network, _| held.contains_key(network));
        self.judge_gateways();
        // It is not only expected any more.
        self.refresh(self.fleet.networks(name));
    }

    /// What a host holds is in force there, though this NCM may not have seen it applied.
    fn note_held(&mut self, host: &str, network: Id<Network>, held: Revision) {
        // Neighbours and labels are not among what is known of a host row by row.
        let view = self.networks.get(&network);
        let rows = match self.is_gateway(host) {
            true => self.rows_of_gateway(host, network),
            false => view
                .map(|view| self.intended_with(host, network, view, Vec::new()))
                .unwrap_or_default(),
        };
        let Some(entry) = self.hosts.get_mut(host) else {
            return;
        };
        let keys: Vec<RowKey> = rows.iter().map(|row| row.key).collect();
        entry.status.complete.insert(network, held);
        if let Some(timing) = entry.status.kept_timing(network, held) {
            entry.status.last_delta.insert(network, timing);
        }
        for row in rows.into_iter().filter(|row| {
            row.revision <= held && !matches!(row.key, RowKey::Neighbour(..) | RowKey::Label(..))
        }) {
            let timing = entry
                .status
                .kept_timing(network, row.revision)
                .unwrap_or_default();
            entry.status.applied.entry(row.key).or_insert(Applied {
                revision: Some(row.revision),
                error: None,
                timing,
            });
        }
        self.heard_of_floating_ips(keys.into_iter());
        self.completed(host, network);
    }

    pub(super) fn with_session(&mut self, host: &str, f: impl FnOnce(&mut Session, &Options)) {
        let options = self.options;
        if let Some(session) = self.hosts.get_mut(host).and_then(|entry| entry.session.as_mut()) {
            f(session, &options);
        }
    }
}
