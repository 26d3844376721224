//! Gateways that have refused rows: a gateway tries them again by itself and tells nobody. It is asked by sending the network
//! again, after a pause that gets longer, so that it is in use again when nothing is refused any more.

use std::{collections::BTreeMap, time::Duration};

use alcor_model::{Id, Network};

use super::super::Ncm;

/// How long after a refusal a network is sent to a gateway again; doubles with each time.
pub const MEND_MIN: Duration = Duration::from_secs(10);
/// Longest pause between two times.
pub const MEND_MAX: Duration = Duration::from_secs(300);

/// When a network is sent again, and the pause before that.
#[derive(Clone, Copy, Debug)]
struct Mend {
    at: Duration,
    pause: Duration,
}

/// The networks of which a gateway refuses rows.
#[derive(Debug, Default)]
pub(in crate::core) struct Mends(BTreeMap<Id<Network>, Mend>);

impl Mends {
    /// Which of the refused networks are to be sent again now. Those that are no more refused are forgotten.
    fn due(&mut self, now: Duration, refused: &BTreeMap<Id<Network>, bool>) -> Vec<Id<Network>> {
        self.0.retain(|network, _| refused.contains_key(network));
        let mut due = Vec::new();
        for network in refused.keys() {
            let mend = self.0.entry(*network).or_insert(Mend {
                at: now + MEND_MIN,
                pause: MEND_MIN,
            });
            if mend.at <= now {
                mend.pause = (mend.pause * 2).min(MEND_MAX);
                mend.at = now + mend.pause;
                due.push(*network);
            }
        }
        due
    }
}

impl Ncm {
    /// Sends networks again of which gateways have refused rows for a while.
    pub(in crate::core) fn mend_refusals(&mut self) {
        let mut due = Vec::new();
        for (name, entry) in self.hosts.iter_mut().filter(|(_, entry)| entry.is_gateway) {
            let networks = entry.mends.due(self.clock, &entry.status.refusing);
            due.extend(networks.into_iter().map(|network| (name.clone(), network)));
        }
        for (name, network) in due {
            let view = self.networks.get(&network);
            if !view.is_some_and(|view| view.service.has(&name)) {
                continue;
            }
            if let Some(pending) = self.pend(&name, network) {
                pending.snapshot = true;
            }
        }
    }
}
