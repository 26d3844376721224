//! Who is in use: decided set by set, from who is heard and what gateways say of each other.
//!
//! What gateways say of each other takes out those that most cannot reach, one after another, and never the last: a path that is
//! broken between gateways only must not take a set away from hosts that reach all of it. Who falls out of use again and again
//! is held down before it comes back, as each turn is a row for every host of its networks.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Duration,
};

use super::{Fitness, Fleet, Member};

/// How long a gateway that has fallen out of use twice must be well before it is used again; doubles with each further time. The
/// first time it comes back at once.
pub const HOLD_DOWN_MIN: Duration = Duration::from_secs(2);
/// Longest hold-down. A gateway that was well for so much longer than it was held down starts anew.
pub const HOLD_DOWN_MAX: Duration = Duration::from_secs(60);

/// How often a gateway fell out of use lately.
#[derive(Debug, Default)]
pub(super) struct Falls {
    count: u32,
    /// Since when it is heard and reached; none while it is not.
    well_since: Option<Duration>,
}

impl Falls {
    fn hold_down(&self) -> Duration {
        let doublings = self.count.saturating_sub(2).min(16);
        match self.count {
            0 | 1 => Duration::ZERO,
            _ => (HOLD_DOWN_MIN * (1 << doublings)).min(HOLD_DOWN_MAX),
        }
    }

    /// Takes note of how a gateway is; gives whether it is to be held down if it was not in use.
    fn note(&mut self, now: Duration, is_well: bool, was_in_use: bool) -> bool {
        if !is_well {
            self.well_since = None;
            self.count = self.count.saturating_add(u32::from(was_in_use));
            return false;
        }
        let well_for = now.saturating_sub(*self.well_since.get_or_insert(now));
        if well_for >= self.hold_down() + HOLD_DOWN_MAX {
            self.count = 0;
        }
        well_for < self.hold_down()
    }
}

impl Member {
    /// How it is, whatever others say of it.
    fn own_fitness(&self, now: Duration) -> Fitness {
        match (self.is_heard(now), &self.row) {
            (false, _) => Fitness::Silent,
            (true, None) => Fitness::Unregistered,
            // It forwards at the address that it says, and rows would name another one.
            (true, Some(_)) if !self.is_registered() => Fitness::Unregistered,
            (true, Some(row)) if row.draining => Fitness::Draining,
            (true, Some(_)) => Fitness::InUse,
        }
    }
}

impl Fleet {
    /// Decides who is in use; gives those of whom that is another now.
    pub(in crate::core) fn judge(&mut self) -> Vec<String> {
        let now = self.looked_at;
        let sets = self.sets.values();
        let mut verdicts: BTreeMap<String, Fitness> =
            sets.flat_map(|names| self.verdicts(names, now)).collect();
        for (name, verdict) in &mut verdicts {
            let Some(member) = self.members.get_mut(name) else {
                continue;
            };
            let is_well = !matches!(verdict, Fitness::Silent | Fitness::Unreachable);
            let was_in_use = member.fitness == Fitness::InUse;
            let is_held = member.falls.note(now, is_well, was_in_use);
            if *verdict == Fitness::InUse && is_held && !was_in_use {
                *verdict = Fitness::HeldDown;
            }
        }
        for names in self.sets.values() {
            self.use_somebody(names, &mut verdicts);
        }
        let mut changed = Vec::new();
        for (name, member) in &mut self.members {
            let fitness = verdicts.get(name).copied().unwrap_or(Fitness::Unregistered);
            let was = std::mem::replace(&mut member.fitness, fitness);
            if (was == Fitness::InUse) != (fitness == Fitness::InUse) {
                changed.push(name.clone());
            }
        }
        changed
    }

    /// How the members of a set are, and what they say of each other. Those that are out say nothing any more: of two halves that
    /// do not reach each other, one stays.
    fn verdicts(&self, names: &BTreeSet<String>, now: Duration) -> BTreeMap<String, Fitness> {
        let members = names
            .iter()
            .filter_map(|name| Some((name, self.members.get(name)?)));
        let mut verdicts: BTreeMap<String, Fitness> = members
            .map(|(name, member)| (name.clone(), member.own_fitness(now)))
            .collect();
        let mut voters: BTreeMap<IpAddr, &Member> = BTreeMap::new();
        let mut votes: BTreeMap<IpAddr, usize> = BTreeMap::new();
        for member in names.iter().filter_map(|name| self.members.get(name)) {
            let row = member
                .row
                .as_ref()
                .filter(|_| member.is_heard(now) && member.is_registered());
            if let Some(row) = row {
                voters.insert(row.tunnel_ip, member);
                member.accused().for_each(|ip| *votes.entry(ip).or_default() += 1);
            }
        }
        let mut usable: BTreeMap<IpAddr, &String> = verdicts
            .iter()
            .filter(|(_, fitness)| **fitness == Fitness::InUse)
            .filter_map(|(name, _)| self.row(name).map(|row| (row.tunnel_ip, name)))
            .collect();
        let mut out = Vec::new();
        while usable.len() > 1 {
            let against = |ip: &IpAddr| votes.get(ip).copied().unwrap_or_default();
            // Of several with as many against them, the one with the highest address.
            let worst = usable.keys().max_by_key(|ip| against(ip)).copied();
            let others = voters.len() - 1;
            let Some(worst) = worst.filter(|ip| against(ip) * 2 > others) else {
                break;
            };
            out.extend(usable.remove(&worst).cloned());
            let silenced = voters.remove(&worst);
            for ip in silenced.into_iter().flat_map(Member::accused) {
                votes.entry(ip).and_modify(|votes| *votes -= 1);
            }
        }
        verdicts.extend(out.into_iter().map(|name| (name, Fitness::Unreachable)));
        verdicts
    }

    /// Where nobody else is in use, nobody is held down for the sake of the others.
    fn use_somebody(&self, names: &BTreeSet<String>, verdicts: &mut BTreeMap<String, Fitness>) {
        let are = |fitness| {
            let verdicts = &*verdicts;
            names
                .iter()
                .filter(move |name| verdicts.get(*name) == Some(&fitness))
        };
        if are(Fitness::InUse).next().is_some() {
            return;
        }
        let lowest = are(Fitness::HeldDown).min_by_key(|name| self.row(name).map(|row| row.tunnel_ip));
        if let Some(name) = lowest.cloned() {
            verdicts.insert(name, Fitness::InUse);
        }
    }
}
