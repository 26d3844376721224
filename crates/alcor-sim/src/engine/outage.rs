//! A long time without a controller, and every other time without an NCM: hosts fail static. What could reach each other
//! before goes on doing so, whatever agents do meanwhile.
//!
//! With the NCM there, leases go on being renewed from what it has. Without it they do not expire. New agents are not told
//! anything, and go by what they find in their data planes.

use super::{Kind, Sim, traffic::Pair};
use crate::{clock::Us, outcome::Progress, rng::to_us};

/// How often virtual machines speak to each other meanwhile.
const SPEAK_EVERY_US: Us = 20_000_000;
/// Share of agents that are started again meanwhile.
const AGENTS_RESTARTED: f64 = 0.3;

impl Sim {
    /// The controller goes and comes back, from rest to rest.
    pub(super) fn outage(&mut self, tell: &mut dyn FnMut(Progress)) {
        let away = self.scenario.faults.outage_s.saturating_mul(1_000_000);
        if away == 0 || self.is_over() {
            return;
        }
        let pairs: Vec<_> = (0..self.scenario.traffic.probes)
            .filter_map(|_| self.some_pair())
            .collect();
        // Whoever must ask for the other does so while there is somebody to be asked.
        self.probe_pairs("before the outage", &pairs, tell);
        let end = self.now + away;
        self.controller_dies(away);
        if self.rng.chance(0.5) {
            self.ncm_dies();
            self.figures.add("outages_of_ncm", 1);
        }
        for actor in 0..self.scenario.hosts.count {
            if matches!(self.actor(actor).kind, Kind::Full(_)) && self.rng.chance(AGENTS_RESTARTED) {
                self.agent_dies(actor);
            }
        }
        self.figures.add("outages", 1);
        // Probes take their time, and the controller must not be back before they are over.
        let last = end.saturating_sub(to_us(10.0));
        while self.now < last && !self.is_over() {
            self.speak(&pairs);
            let next = (self.now + SPEAK_EVERY_US).min(last);
            self.advance(next, tell);
        }
        self.probe_pairs("in the outage", &pairs, tell);
        self.advance(end, tell);
        self.settle("after the outage", tell);
    }

    fn speak(&mut self, pairs: &[Pair]) {
        for pair in pairs {
            self.send(*pair, false);
        }
    }
}
