//! What the data plane hands up: DHCP, router solicitations, packets whose time is exceeded or that are too big. And the router
//! advertisements that nobody asked for.

use std::time::Duration;

use alcor_dataplane::{Event, PortRow, PuntReason};
use alcor_model::{Id, Network, Port};
use bytes::Bytes;

use super::{Action, Agent, Now, QUESTION_BURST, QUESTIONS_PER_S};
use crate::responder::{Context, Refusal, dhcp, icmp, ra};

/// Time between two unsolicited router advertisements, before jitter (RFC 4861, section 6.2.1: at least a third
/// of the router lifetime of 1800 s would do).
const ADVERTISE_EVERY: Duration = Duration::from_secs(200);
/// ICMP errors that a port may get at once.
const ERROR_BURST: f64 = 20.0;
/// ICMP errors that a port may get per second in the long run (RFC 4443, section 2.4 (f) wants a limit).
const ERRORS_PER_S: f64 = 10.0;

/// A token bucket.
#[derive(Debug)]
pub(super) struct Bucket {
    burst: f64,
    per_s: f64,
    tokens: f64,
    filled_at: Duration,
}

impl Bucket {
    /// A full one: `burst` at once, `per_s` in the long run.
    const fn new(burst: f64, per_s: f64) -> Self {
        Self {
            burst,
            per_s,
            tokens: burst,
            filled_at: Duration::ZERO,
        }
    }

    /// For the ICMP errors of one port.
    pub(super) const fn errors() -> Self {
        Self::new(ERROR_BURST, ERRORS_PER_S)
    }

    /// For what one port makes the agent ask.
    pub(super) const fn questions() -> Self {
        Self::new(QUESTION_BURST, QUESTIONS_PER_S)
    }

    pub(super) fn take(&mut self, now: Duration) -> bool {
        let passed = now.saturating_sub(self.filled_at).as_secs_f64();
        self.tokens = (self.tokens + passed * self.per_s).min(self.burst);
        self.filled_at = now;
        let full = self.tokens >= 1.0;
        if full {
            self.tokens -= 1.0;
        }
        full
    }
}

impl Agent {
    pub(super) fn punt(&mut self, now: Now, event: Event, out: &mut Vec<Action>) {
        let (port, answer) = match event {
            Event::Punt { port, reason, frame } => (port, self.answer_punt(now, port, reason, &frame)),
            Event::TooBig { port, mtu, frame } => (port, self.too_big(now, port, mtu, &frame)),
            Event::Unresolved {
                port,
                network,
                address,
                frame,
            } => return self.unresolved(now, port, (network, address), frame, out),
            Event::TooLong {
                port,
                network,
                address,
            } => return self.too_long(now.since_start, port, (network, address)),
        };
        match answer {
            Ok(Some(frame)) => {
                self.answered += 1;
                out.push(Action::Inject {
                    port,
                    frame: Bytes::from(frame),
                });
            }
            Ok(None) => self.answered += 1,
            Err(refusal) => self.refuse(refusal),
        }
    }

    fn answer_punt(
        &mut self,
        now: Now,
        port: Id<Port>,
        reason: PuntReason,
        frame: &[u8],
    ) -> Result<Option<Vec<u8>>, Refusal> {
        if reason == PuntReason::TtlExceeded {
            self.admit_error(now, port)?;
        }
        let row = self.table.port(port).ok_or(Refusal::UnknownPort)?;
        let context = self.context(row).ok_or(Refusal::UnknownPort)?;
        match reason {
            PuntReason::Dhcp4 => dhcp::answer(&context, frame),
            PuntReason::RouterSolicitation => ra::answer(&context, frame).map(Some),
            PuntReason::TtlExceeded => icmp::error(&context, icmp::Cause::TimeExceeded, frame).map(Some),
            // Those come as events of their own.
            PuntReason::Unresolved | PuntReason::TooBig => Err(Refusal::NotForUs),
        }
    }

    /// Tells the sender of a packet that is too long what is taken.
    fn too_big(
        &mut self,
        now: Now,
        port: Id<Port>,
        mtu: u16,
        frame: &[u8],
    ) -> Result<Option<Vec<u8>>, Refusal> {
        self.admit_error(now, port)?;
        let row = self.table.port(port).ok_or(Refusal::UnknownPort)?;
        let context = self.context(row).ok_or(Refusal::UnknownPort)?;
        icmp::error(&context, icmp::Cause::TooBig { mtu }, frame).map(Some)
    }

    /// Takes one of the ICMP errors that a port may get.
    fn admit_error(&mut self, now: Now, port: Id<Port>) -> Result<(), Refusal> {
        let state = self.ports.get_mut(&port).ok_or(Refusal::UnknownPort)?;
        match state.errors.take(now.since_start) {
            true => Ok(()),
            false => Err(Refusal::RateLimited),
        }
    }

    fn context<'a>(&'a self, port: &'a PortRow) -> Option<Context<'a>> {
        let network = self.table.network(port.network_id)?;
        let subnets = self.table.subnets(port.network_id);
        Some(Context {
            port,
            network,
            subnets,
            lease: self.settings.lease,
        })
    }

    /// Sends the router advertisements that are due.
    pub(super) fn advertise_due(&mut self, now: Now, out: &mut Vec<Action>) {
        let due = self.ports.iter().filter(|(_, state)| {
            state
                .advertise_at
                .is_some_and(|advertise_at| advertise_at <= now.since_start)
        });
        for port in due.map(|(port, _)| *port).collect::<Vec<_>>() {
            let pause = self.jitter(ADVERTISE_EVERY * 3 / 4, ADVERTISE_EVERY * 5 / 4);
            if let Some(state) = self.ports.get_mut(&port) {
                state.advertise_at = Some(now.since_start + pause);
            }
            let context = self.table.port(port).and_then(|row| self.context(row));
            if let Some(frame) = context.and_then(|context| ra::unsolicited(&context)) {
                out.push(Action::Inject {
                    port,
                    frame: Bytes::from(frame),
                });
            }
        }
    }

    /// What is advertised in a network changed: its wired ports hear of it with the next tick.
    pub(super) fn advertise_soon(&mut self, now: Now, network: Id<Network>) {
        for (port, state) in &mut self.ports {
            if state.advertise_at.is_some()
                && self
                    .table
                    .port(*port)
                    .is_some_and(|row| row.network_id == network)
            {
                state.advertise_at = Some(now.since_start);
            }
        }
    }
}
