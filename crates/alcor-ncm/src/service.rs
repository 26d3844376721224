//! The shell: one task around the core, channels into it, and what goes back to the region.

mod outbox;

use std::{
    collections::BTreeMap,
    future::Future,
    net::IpAddr,
    pin::Pin,
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use alcor_metrics::{NCM_HELLOS, NCM_QUEUE_REPORTS, NCM_QUEUE_REQUESTS, NCM_SESSIONS_ENDED};
use alcor_model::{
    Change, HostRuntime, Id, Label, Port, Resource, Revision,
    effective::{GatewayLine, HostState, HostSummary, PortState},
    resource::{FloatingIpWord, HostWord},
    trace::{Trace, TraceError, TraceQuestion},
};
use alcor_proto::v1;
use alcor_southbound::{
    convert::resolve::{ANSWERS_MAX, decode_questions, encode_answers},
    frame::FromNcm,
    server::{Accepted, Acceptor, FromAgent},
};
use prost::Message as _;
use tokio::{
    sync::{mpsc, oneshot},
    time::MissedTickBehavior,
};
use tonic::Status;

use self::outbox::{Outbox, RETRY, deliver};
use crate::{
    core::{Action, Event, Ncm, Now, Options, PULSE, PortReport, SessionId, TraceInputs},
    counts,
    directory::{Asker, Directory},
};

/// Requests that may wait for the core; a caller beyond it waits for room.
const QUEUE: usize = 1_024;
/// Messages of one agent that may wait for the core.
const FROM_AGENT_QUEUE: usize = 64;
/// Messages to one agent beyond the window of deltas: answers, the welcome and the end of the session.
pub const TO_AGENT_SPARE: usize = ANSWERS_MAX + 2;
/// Lines of a list of hosts that are made in one go.
const HOSTS_AT_ONCE: usize = 500;
/// How often the core is told that time has passed.
const TICK: Duration = Duration::from_secs(1);

/// A boxed future, as traits without generics need.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Why the region has not taken what it was told.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotTaken {
    /// It never will: it refuses what was said.
    #[error("{0}")]
    Never(String),
    /// It could not now.
    #[error("{0}")]
    Later(String),
}

/// What goes back to the region. What it refuses for ever is not told again, until there is something new to be said; anything else
/// is tried again later.
pub trait RegionLink: Send + Sync + 'static {
    /// Registers a host.
    fn register_host(&self, name: String, word: HostWord) -> BoxFuture<'_, Result<(), NotTaken>>;
    /// Registers a gateway. It is told again as long as the gateway is here and the region has another word of it.
    fn register_gateway(
        &self,
        name: String,
        set: String,
        tunnel_ip: IpAddr,
    ) -> BoxFuture<'_, Result<(), NotTaken>>;
    /// Takes port reports, all or none.
    fn report_ports(&self, reports: Vec<PortReport>) -> BoxFuture<'_, Result<(), NotTaken>>;
    /// Keeps what is known of hosts, all or nothing.
    fn note_hosts(&self, hosts: Vec<HostRuntime>) -> BoxFuture<'_, Result<(), NotTaken>>;
    /// Lets labels have new meanings, each if it was last changed at its revision. It is told again as long as they rest.
    fn release_labels(&self, labels: Vec<(Id<Label>, Revision)>) -> BoxFuture<'_, Result<(), NotTaken>>;
    /// Keeps what is known of floating IPs. It is told again as long as the region has another word of it.
    fn note_floating_ips(&self, words: Vec<FloatingIpWord>) -> BoxFuture<'_, Result<(), NotTaken>>;
}

enum Request {
    Accept {
        hello: v1::Hello,
        reply: oneshot::Sender<Result<Accepted, Status>>,
    },
    FromAgent {
        session: SessionId,
        body: FromAgent,
    },
    Gone {
        session: SessionId,
    },
    Changes {
        changes: Vec<Change>,
        committed_us: u64,
    },
    Snapshot {
        revision: Revision,
        rows: Vec<Resource>,
    },
    Reached(Revision),
    /// Some hosts after a name.
    Hosts(Option<String>, oneshot::Sender<Vec<HostSummary>>),
    Host(String, oneshot::Sender<Option<HostState>>),
    Gateways(oneshot::Sender<Vec<GatewayLine>>),
    Port(Id<Port>, oneshot::Sender<Option<PortState>>),
    Trace(TraceQuestion, oneshot::Sender<Result<TraceInputs, TraceError>>),
}

/// A handle to a running NCM; cheap to clone. The NCM ends when all handles are gone.
#[derive(Clone, Debug)]
pub struct NcmHandle {
    requests: mpsc::Sender<Request>,
}

impl NcmHandle {
    /// Starts an NCM.
    pub fn start(options: Options, region: Arc<dyn RegionLink>) -> Self {
        let (requests, queue) = mpsc::channel(QUEUE);
        let outbox = Arc::new(Outbox::default());
        tokio::spawn(deliver(Arc::clone(&outbox), region, RETRY));
        let shell = Shell {
            core: Ncm::new(options),
            options,
            started: Instant::now(),
            next_session: 1,
            sessions: BTreeMap::new(),
            outbox,
            requests: requests.downgrade(),
        };
        tokio::spawn(shell.run(queue));
        Self { requests }
    }

    /// The region changed. Waits while the NCM is behind.
    pub async fn changes(&self, changes: Vec<Change>, committed_us: u64) {
        self.send(Request::Changes {
            changes,
            committed_us,
        })
        .await;
    }

    /// All of the region.
    pub async fn snapshot(&self, revision: Revision, rows: Vec<Resource>) {
        self.send(Request::Snapshot { revision, rows }).await;
    }

    /// The region is at this commit, which says nothing that hosts must have.
    pub async fn reached(&self, revision: Revision) {
        self.send(Request::Reached(revision)).await;
    }

    /// One line a host. Asked for in parts, so that what else is asked of the NCM comes in between.
    pub async fn hosts(&self) -> Vec<HostSummary> {
        let mut hosts: Vec<HostSummary> = Vec::new();
        loop {
            let after = hosts.last().map(|host| host.name.clone());
            let part = self.ask(|reply| Request::Hosts(after, reply)).await;
            let part = part.unwrap_or_default();
            let is_last = part.len() < HOSTS_AT_ONCE;
            hosts.extend(part);
            if is_last {
                return hosts;
            }
        }
    }

    /// Everything known of a host.
    pub async fn host(&self, name: &str) -> Option<HostState> {
        self.ask(|reply| Request::Host(name.to_owned(), reply))
            .await
            .flatten()
    }

    /// One line a gateway.
    pub async fn gateways(&self) -> Vec<GatewayLine> {
        self.ask(Request::Gateways).await.unwrap_or_default()
    }

    /// How a port's last change travelled.
    pub async fn port(&self, id: Id<Port>) -> Option<PortState> {
        self.ask(|reply| Request::Port(id, reply)).await.flatten()
    }

    /// What would become of a packet, from the rows that hosts have been sent. The NCM only collects them; the rest is the
    /// caller's time.
    ///
    /// # Errors
    /// When there is no such port, or it is bound to no host.
    pub async fn trace(&self, question: TraceQuestion) -> Result<Trace, TraceError> {
        let inputs = self.ask(|reply| Request::Trace(question, reply)).await;
        let inputs = inputs.unwrap_or(Err(TraceError::UnknownPort(question.from)))?;
        Ok(inputs.run())
    }

    async fn send(&self, request: Request) {
        // The core ends only when all handles are gone.
        let _ = self.requests.send(request).await;
    }

    async fn ask<T>(&self, request: impl FnOnce(oneshot::Sender<T>) -> Request) -> Option<T> {
        let (reply, answer) = oneshot::channel();
        self.send(request(reply)).await;
        answer.await.ok()
    }
}

impl Acceptor for NcmHandle {
    fn accept(&self, hello: v1::Hello) -> BoxFuture<'_, Result<Accepted, Status>> {
        Box::pin(async move {
            self.ask(|reply| Request::Accept { hello, reply })
                .await
                .unwrap_or_else(|| Err(Status::unavailable("the NCM is stopping")))
        })
    }
}

struct Shell {
    core: Ncm,
    options: Options,
    started: Instant,
    next_session: SessionId,
    sessions: BTreeMap<SessionId, mpsc::Sender<Result<FromNcm, Status>>>,
    outbox: Arc<Outbox>,
    requests: mpsc::WeakSender<Request>,
}

impl Shell {
    async fn run(mut self, mut queue: mpsc::Receiver<Request>) {
        let mut tick = tokio::time::interval(TICK);
        let mut pulse = tokio::time::interval(PULSE);
        pulse.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                request = queue.recv() => match request {
                    Some(request) => self.handle(request).await,
                    None => break,
                },
                _ = pulse.tick() => {
                    if self.core.has_gateways() {
                        self.step(Event::Pulse).await;
                    }
                }
                _ = tick.tick() => {
                    self.step(Event::Tick).await;
                    counts::depths(&self.core);
                    NCM_QUEUE_REQUESTS.set([], queue.len() as u64);
                    NCM_QUEUE_REPORTS.set([], self.outbox.waiting.lock().await.reports.len() as u64);
                }
            }
        }
        self.outbox.close();
    }

    fn now(&self) -> Now {
        let unix_us = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| u64::try_from(since.as_micros()).unwrap_or(u64::MAX));
        Now {
            since_start: self.started.elapsed(),
            unix_us,
        }
    }

    async fn handle(&mut self, request: Request) {
        match request {
            Request::Accept { hello, reply } => self.accept(hello, reply).await,
            Request::FromAgent { session, body } => self.step(Event::Message { session, body }).await,
            Request::Gone { session } => {
                if self.sessions.remove(&session).is_some() {
                    NCM_SESSIONS_ENDED.add(["agent"], 1);
                }
                self.step(Event::Closed { session }).await;
            }
            Request::Changes {
                changes,
                committed_us,
            } => {
                self.step(Event::Changes {
                    changes,
                    committed_us,
                })
                .await;
            }
            Request::Snapshot { revision, rows } => self.step(Event::Snapshot { revision, rows }).await,
            Request::Reached(revision) => self.core.reached(revision),
            // Who asked may be gone; then nobody wants the answer.
            Request::Hosts(after, reply) => {
                let hosts = self.core.host_summaries_after(after.as_deref(), HOSTS_AT_ONCE);
                drop(reply.send(hosts));
            }
            Request::Host(name, reply) => drop(reply.send(self.core.host_state(&name))),
            Request::Gateways(reply) => drop(reply.send(self.core.gateway_lines())),
            Request::Port(id, reply) => drop(reply.send(self.core.port_state(id))),
            Request::Trace(question, reply) => drop(reply.send(self.core.trace_inputs(&question))),
        }
    }

    async fn accept(&mut self, hello: v1::Hello, reply: oneshot::Sender<Result<Accepted, Status>>) {
        let session = self.next_session;
        self.next_session += 1;
        let (to_agent, outgoing) = mpsc::channel(self.options.window_deltas + TO_AGENT_SPARE);
        let (from_agent, incoming) = mpsc::channel(FROM_AGENT_QUEUE);
        tracing::info!(
            host = hello.host,
            incarnation = hello.incarnation,
            session,
            "an agent says hello"
        );
        NCM_HELLOS.add([], 1);
        self.sessions.insert(session, to_agent.clone());
        let host = hello.host.clone();
        // If the caller is gone, the relay's queue closes and the session with it.
        let _ = reply.send(Ok(Accepted {
            from_agent,
            to_agent: outgoing,
        }));
        self.step(Event::Hello { session, hello }).await;
        // Who may ask is known with the hello, so nothing that the agent says is looked at before.
        if self.sessions.contains_key(&session) {
            let relay = Relay {
                session,
                asker: self.core.directory().asker(&host, session),
                directory: Arc::clone(self.core.directory()),
                started: self.started,
                to_agent: to_agent.downgrade(),
                requests: self.requests.clone(),
            };
            tokio::spawn(relay.run(incoming));
        }
    }

    async fn step(&mut self, event: Event) {
        let (actions, work) = self.core.step(self.now(), event);
        counts::step(&work);
        let mut filled = false;
        for action in actions {
            match action {
                Action::Send { session, message } => self.send(session, message),
                Action::Close { session, reason } => {
                    tracing::info!(session, reason, "session closed");
                    if let Some(to_agent) = self.sessions.remove(&session) {
                        NCM_SESSIONS_ENDED.add(["ncm"], 1);
                        // A full queue loses the reason only: dropping the sender ends the stream.
                        let _ = to_agent.try_send(Err(Status::failed_precondition(reason)));
                    }
                }
                Action::RegisterHost { name, word } => {
                    let mut waiting = self.outbox.waiting.lock().await;
                    waiting.hosts.insert(name, word);
                    filled = true;
                }
                Action::RegisterGateway { name, set, tunnel_ip } => {
                    let mut waiting = self.outbox.waiting.lock().await;
                    waiting.gateways.insert(name, (set, tunnel_ip));
                    filled = true;
                }
                Action::ReportPort(report) => {
                    self.outbox
                        .waiting
                        .lock()
                        .await
                        .reports
                        .insert(report.port_id, report);
                    filled = true;
                }
                Action::NoteHosts(hosts) => {
                    let known = hosts.into_iter().map(|host| (host.name.clone(), host));
                    self.outbox.waiting.lock().await.known.extend(known);
                    filled = true;
                }
                Action::NoteFloatingIps(words) => {
                    let words = words.into_iter().map(|word| (word.id, word));
                    self.outbox.waiting.lock().await.floating_ips.extend(words);
                    filled = true;
                }
                Action::ReleaseLabels(labels) => {
                    self.outbox.waiting.lock().await.labels.extend(labels);
                    filled = true;
                }
            }
        }
        if filled {
            self.outbox.wake();
        }
    }

    /// The window keeps the queue from filling; when it is full or closed all the same, the session is over.
    fn send(&mut self, session: SessionId, message: FromNcm) {
        let Some(to_agent) = self.sessions.get(&session) else {
            return;
        };
        if to_agent.try_send(Ok(message)).is_err() {
            self.sessions.remove(&session);
            NCM_SESSIONS_ENDED.add(["ncm"], 1);
        }
    }
}

/// Carries an agent's messages into the core, and the end of its session. Answers its questions by itself, from the
/// directory: they do not wait for the core, nor the core for them.
struct Relay {
    session: SessionId,
    /// Gateways do not ask.
    asker: Option<Asker>,
    directory: Arc<Directory>,
    started: Instant,
    /// The core ends the session by dropping its sender.
    to_agent: mpsc::WeakSender<Result<FromNcm, Status>>,
    /// A session does not keep the NCM running.
    requests: mpsc::WeakSender<Request>,
}

impl Relay {
    async fn run(self, mut incoming: mpsc::Receiver<FromAgent>) {
        let session = self.session;
        while let Some(body) = incoming.recv().await {
            if let v1::agent_message::Body::Resolve(message) = &body {
                let Err(status) = self.answer(message) else {
                    continue;
                };
                tracing::info!(session, %status, "session closed");
                if let Some(to_agent) = self.to_agent.upgrade() {
                    // A full queue loses the reason only.
                    let _ = to_agent.try_send(Err(status));
                }
                break;
            }
            if !self.tell(Request::FromAgent { session, body }).await {
                return;
            }
        }
        self.tell(Request::Gone { session }).await;
    }

    /// Gives whether the NCM is still there.
    async fn tell(&self, request: Request) -> bool {
        match self.requests.upgrade() {
            Some(requests) => requests.send(request).await.is_ok(),
            None => false,
        }
    }

    /// An agent has few messages of questions on their way, and there is room for so many answers. One that does not read
    /// them, asks more at once than it may, or not what can be read, loses its session.
    fn answer(&self, message: &v1::Resolve) -> Result<(), Status> {
        let questions =
            decode_questions(message).map_err(|error| Status::invalid_argument(error.to_string()))?;
        let asker = self.asker.as_ref();
        let asker = asker.ok_or_else(|| Status::failed_precondition("gateways do not ask"))?;
        let (answers, mut asked) = self.directory.resolve(self.started.elapsed(), asker, &questions);
        let resolved = encode_answers(message.id, &answers);
        asked.bytes = resolved.encoded_len() as u64;
        counts::asked(&asked);
        let message = FromNcm::Resolved(resolved);
        match self.to_agent.upgrade() {
            Some(to_agent) => to_agent
                .try_send(Ok(message))
                .map_err(|_| Status::resource_exhausted("answers are not read")),
            None => Err(Status::cancelled("the session is over")),
        }
    }
}
