//! Whether floating IPs are in force: when who translates them has said so by a receipt. The region keeps it in the floating IP's row,
//! and is told where it keeps something else.

use alcor_dataplane::RowKey;
use alcor_model::{FloatingIp, Id, Network, Revision, Router, resource::FloatingIpWord};

use super::{Ncm, external::Told};

/// Words in one tick; the others follow in the next.
pub(super) const WORDS_AT_ONCE: usize = 1_000;

impl Ncm {
    /// The rows of floating IPs are among what somebody has taken, or refused.
    pub(super) fn heard_of_floating_ips(&mut self, keys: impl Iterator<Item = RowKey>) {
        let ids = keys.filter_map(|key| match key {
            RowKey::FloatingIp(_, id) => Some(id),
            _ => None,
        });
        self.floating.unjudged.extend(ids);
    }

    /// Other gateways lead a router out.
    pub(super) fn judge_floating_ips_of(&mut self, router: Id<Router>) {
        for network in self.routing.networks(router) {
            self.judge_floating_ips_in(network);
        }
    }

    fn judge_floating_ips_in(&mut self, network: Id<Network>) {
        let floating = &mut self.floating;
        let ids = floating.by_network.get(&network).into_iter().flatten();
        floating.unjudged.extend(ids);
    }

    /// Whether who translates a floating IP has it as it is told; none where that is not known since a state was loaded, after which
    /// everybody is told again what he may have.
    fn is_in_force(&self, told: &Told) -> Option<bool> {
        let names: Vec<&String> = match &told.host {
            Some(host) => vec![host],
            None => {
                let ways = self.routing.ways(told.row.router_id).iter();
                ways.filter_map(|ip| self.fleet.at(*ip)).collect()
            }
        };
        let mut is_known = true;
        for name in &names {
            let entry = self.hosts.get(*name);
            let applied = entry.and_then(|entry| entry.status.applied.get(&told.key()));
            match applied {
                Some(applied) if applied.error.is_some() => return Some(false),
                Some(applied) if applied.revision >= Some(told.revision) => {}
                _ if told.revision > self.floating.loaded_at => return Some(false),
                _ => is_known = false,
            }
        }
        is_known.then_some(!names.is_empty())
    }

    /// What the region is to be told: until it keeps the same. Who was told of takes his turn after all others, so that words which the
    /// region does not take hold up nobody's.
    pub(super) fn floating_ip_words(&mut self) -> Vec<FloatingIpWord> {
        if self.floating.unjudged.is_empty() {
            std::mem::swap(&mut self.floating.unjudged, &mut self.floating.untaken);
        }
        let mut words = Vec::new();
        while words.len() < WORDS_AT_ONCE
            && let Some(id) = self.floating.unjudged.pop_first()
        {
            words.extend(self.word_of(id));
        }
        self.floating.untaken.extend(words.iter().map(|word| word.id));
        words
    }

    fn word_of(&self, id: Id<FloatingIp>) -> Option<FloatingIpWord> {
        let known = self.floating.known.get(&id)?;
        let in_force = match &known.told {
            Some(told) => self.is_in_force(told)?,
            None => false,
        };
        let revision: Revision = known.row.revision;
        let word = FloatingIpWord {
            id,
            revision,
            in_force,
        };
        (known.row.in_force != in_force).then_some(word)
    }
}
