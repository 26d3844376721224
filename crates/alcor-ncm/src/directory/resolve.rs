//! Questions and answers.

use std::{fmt, sync::Arc, time::Duration};

use alcor_dataplane::NeighbourRow;
use alcor_southbound::convert::resolve::{Answer, Question, Verdict};

use super::{Directory, Key, Moment, hosts::Host};
use crate::core::SessionId;

/// The shortest time after which a host that was refused for asking too much asks again.
const RETRY_MIN: Duration = Duration::from_millis(50);
/// The longest.
const RETRY_MAX: Duration = Duration::from_secs(2);

/// A session that may ask.
#[derive(Clone)]
pub struct Asker {
    host: Arc<Host>,
    session: SessionId,
}

impl fmt::Debug for Asker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut asker = f.debug_struct("Asker");
        asker
            .field("host", &self.host.name)
            .field("session", &self.session);
        asker.finish()
    }
}

/// What answers cost and were, so that tests can assert work instead of time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Asked {
    /// Questions answered.
    pub questions: u64,
    /// Rows looked at.
    pub rows_looked_at: u64,
    /// Answered with a row.
    pub routes: u64,
    /// Answered that nobody has the address.
    pub unknown: u64,
    /// Refused because the host may not ask.
    pub denied: u64,
    /// Refused because the host or its port asks too much.
    pub busy: u64,
    /// Encoded bytes of the answers.
    pub bytes: u64,
}

impl Asked {
    fn count(&mut self, verdict: &Verdict) {
        self.questions += 1;
        *match verdict {
            Verdict::Route(..) => &mut self.routes,
            Verdict::Unknown => &mut self.unknown,
            Verdict::Deny => &mut self.denied,
            Verdict::Busy => &mut self.busy,
        } += 1;
    }
}

impl Directory {
    /// Lets a host ask, by the name that it said hello with. Its questions are answered while this is its session.
    pub fn asker(&self, host: &str, session: SessionId) -> Option<Asker> {
        let host = Arc::clone(self.hosts.by_name.read().get(host)?);
        Some(Asker { host, session })
    }

    /// Answers questions, in their order, at a moment since the NCM's start. The host is noted as a learner of what it is
    /// given.
    pub fn resolve(&self, now: Duration, asker: &Asker, questions: &[Question]) -> (Vec<Answer>, Asked) {
        let mut asked = Asked::default();
        let answer = |question: &Question| {
            let answer = self.answer(now, asker, question, &mut asked);
            asked.count(&answer.verdict);
            answer
        };
        (questions.iter().map(answer).collect(), asked)
    }

    fn answer(&self, now: Duration, asker: &Asker, question: &Question, asked: &mut Asked) -> Answer {
        let limits = &self.limits;
        let short = |verdict| Answer {
            verdict,
            lease: limits.negative_lease,
        };
        let busy = |wait: Duration| Answer {
            verdict: Verdict::Busy,
            lease: wait.clamp(RETRY_MIN, RETRY_MAX),
        };
        if self.is_loading() {
            return busy(limits.negative_lease);
        }
        let mut state = asker.host.state.lock();
        if state.session != Some(asker.session) {
            return busy(limits.negative_lease);
        }
        if let Err(wait) = state.meter.take(now, limits.host_questions, limits.host_burst) {
            return busy(wait);
        }
        let own = state.own(question.network);
        let Some(own) = own.filter(|own| question.port.is_none_or(|port| own.has(port))) else {
            return short(Verdict::Deny);
        };
        let key = Key::new(own.index, question.ip);
        if let Some(port) = question.port {
            let meter = state.port_meters.entry(port).or_default();
            let burst = limits.port_questions.saturating_mul(2);
            if let Err(wait) = meter.take(now, limits.port_questions, burst) {
                return busy(wait);
            }
        }
        let is_known = state.learned.contains_key(&key);
        if !is_known && state.learned.len() >= limits.learned_max {
            return busy(RETRY_MAX);
        }
        asked.rows_looked_at += 1;
        let stored = {
            let mut shard = self.shard(&key);
            let row = shard.rows.get(&key).copied();
            // The host's own ports are none of its neighbours.
            let row = row.filter(|row| row.host != asker.host.index);
            if row.is_some() {
                shard.learners.entry(key).or_default().insert(asker.host.index);
            }
            row
        };
        let Some(stored) = stored else {
            return short(Verdict::Unknown);
        };
        state.learn(key, Moment::of(now + limits.kept()));
        let Some((host, host_revision)) = self.hosts.tunnel(stored.host) else {
            return short(Verdict::Unknown);
        };
        let row = NeighbourRow {
            network_id: question.network,
            ip: question.ip,
            mac: stored.mac,
            host,
            label: stored.label,
            forward: false,
        };
        Answer {
            verdict: Verdict::Route(stored.revision().max(host_revision), row),
            lease: limits.lease,
        }
    }
}
