//! Questions and answers.

use std::{fmt, sync::Arc, time::Duration};

use alcor_dataplane::NeighbourRow;
use alcor_southbound::convert::resolve::{Answer, Question, Verdict};

use super::{
    Directory, Key, Moment,
    hosts::{Host, HostState},
};
use crate::core::SessionId;

/// The shortest time after which a host that was refused for asking too much asks again.
const RETRY_MIN: Duration = Duration::from_millis(50);
/// The longest.
const RETRY_MAX: Duration = Duration::from_secs(2);
/// Questions of one host that are answered while the core waits for what the host may ask.
const AT_ONCE: usize = 16;

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
        let mut answers = Vec::with_capacity(questions.len());
        for questions in questions.chunks(AT_ONCE) {
            let mut state = asker.host.state.lock();
            for question in questions {
                let answer = self.answer(now, asker, &mut state, question, &mut asked);
                asked.count(&answer.verdict);
                answers.push(answer);
            }
        }
        (answers, asked)
    }

    fn answer(
        &self,
        now: Duration,
        asker: &Asker,
        state: &mut HostState,
        question: &Question,
        asked: &mut Asked,
    ) -> Answer {
        let limits = &self.limits;
        let key = match self.admitted(now, asker, question, state) {
            Ok(key) => key,
            Err(refused) => return refused,
        };
        asked.rows_looked_at += 1;
        let unknown = Answer {
            verdict: Verdict::Unknown,
            lease: limits.negative_lease,
        };
        // The host is noted and gets the row in one step. Its own ports are none of its neighbours.
        let Some(stored) = self.place(key).ask(asker.host.index) else {
            return unknown;
        };
        state.learn(key, Moment::of(now + limits.kept()));
        let Some((host, host_revision)) = self.hosts.tunnel(stored.host) else {
            return unknown;
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

    /// Whether the question may be asked, and about what.
    fn admitted(
        &self,
        now: Duration,
        asker: &Asker,
        question: &Question,
        state: &mut HostState,
    ) -> Result<Key, Answer> {
        let limits = &self.limits;
        let busy = |wait: Duration| Answer {
            verdict: Verdict::Busy,
            lease: wait.clamp(RETRY_MIN, RETRY_MAX),
        };
        if self.is_loading() || state.session != Some(asker.session) {
            return Err(busy(limits.negative_lease));
        }
        let of_host = state.meter.take(now, limits.host_questions, limits.host_burst);
        of_host.map_err(busy)?;
        let own = state.own(question.network);
        let own = own.filter(|own| question.port.is_none_or(|port| state.may_ask(own, port)));
        let key = own.map(|own| Key::new(own.index, question.ip)).ok_or(Answer {
            verdict: Verdict::Deny,
            lease: limits.negative_lease,
        })?;
        let known = state.learned.contains_key(&key);
        if let Some(port) = question.port {
            let meters = state.port_meters.entry(port).or_default();
            let burst = limits.port_questions.saturating_mul(2);
            let questions = meters.questions.take(now, limits.port_questions, burst);
            questions.map_err(busy)?;
            if !known {
                let (rate, burst) = limits.port_new();
                meters.new.take(now, rate, burst).map_err(busy)?;
            }
        }
        match known || state.learned.len() < limits.learned_max {
            true => Ok(key),
            false => Err(busy(RETRY_MAX)),
        }
    }
}
