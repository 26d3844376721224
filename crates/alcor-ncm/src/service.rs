//! The shell: one task around the core, channels into it, and the two things that go back to the region.

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
    effective::{HostState, HostSummary, PortState},
    trace::{Trace, TraceError, TraceQuestion},
};
use alcor_proto::v1;
use alcor_southbound::{
    convert::resolve::{decode_questions, encode_answers},
    server::{Accepted, Acceptor, FromAgent},
};
use prost::Message as _;
use tokio::{
    sync::{Mutex, Notify, mpsc, oneshot},
    task::JoinSet,
};
use tonic::Status;

use crate::{
    core::{Action, Event, Ncm, Now, Options, PortReport, SessionId, TraceInputs},
    counts,
    directory::Directory,
};

/// Requests that may wait for the core; a caller beyond it waits for room.
const QUEUE: usize = 1_024;
/// Messages of one agent that may wait for the core.
const FROM_AGENT_QUEUE: usize = 64;
/// Messages to one agent beyond the window of deltas: welcome, the end of the session, and answers to as many messages of
/// questions as an agent has on their way.
const TO_AGENT_SPARE: usize = 16;
/// Hosts that are registered at the same time, so that their commits are one.
const REGISTRATIONS_AT_ONCE: usize = 256;
/// Reports written by one command.
const REPORTS_AT_ONCE: usize = 1_000;
/// How often the core is told that time has passed.
const TICK: Duration = Duration::from_secs(1);
/// When a report that could not be stored is tried again, at first and at the longest.
const REPORT_RETRY: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(5));

/// A boxed future, as traits without generics need.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// What goes back to the region.
pub trait RegionLink: Send + Sync + 'static {
    /// Registers a host. An error is tried again later.
    fn register_host(
        &self,
        name: String,
        tunnel_ip: IpAddr,
        zone: String,
    ) -> BoxFuture<'_, Result<(), String>>;
    /// Takes port reports. An error is tried again later.
    fn report_ports(&self, reports: Vec<PortReport>) -> BoxFuture<'_, Result<(), String>>;
    /// Keeps what is known of hosts. An error is tried again later.
    fn note_hosts(&self, hosts: Vec<HostRuntime>) -> BoxFuture<'_, Result<(), String>>;
    /// Lets labels have new meanings, each if it was last changed at its revision. It is told again as long as they rest.
    fn release_labels(&self, labels: Vec<(Id<Label>, Revision)>) -> BoxFuture<'_, Result<(), String>>;
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
    Hosts(oneshot::Sender<Vec<HostSummary>>),
    Host(String, oneshot::Sender<Option<HostState>>),
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
        tokio::spawn(deliver(Arc::clone(&outbox), region));
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

    /// One line a host.
    pub async fn hosts(&self) -> Vec<HostSummary> {
        self.ask(Request::Hosts).await.unwrap_or_default()
    }

    /// Everything known of a host.
    pub async fn host(&self, name: &str) -> Option<HostState> {
        self.ask(|reply| Request::Host(name.to_owned(), reply))
            .await
            .flatten()
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

/// What waits for the region: the newest report of each port, so it is bounded by the ports there are.
#[derive(Default)]
struct Outbox {
    waiting: Mutex<Waiting>,
    filled: Notify,
}

#[derive(Default)]
struct Waiting {
    hosts: BTreeMap<String, (IpAddr, String)>,
    reports: BTreeMap<Id<Port>, PortReport>,
    labels: BTreeMap<Id<Label>, Revision>,
    known: BTreeMap<String, HostRuntime>,
}

async fn deliver(outbox: Arc<Outbox>, region: Arc<dyn RegionLink>) {
    let mut retry = REPORT_RETRY.0;
    loop {
        let (hosts, reports, labels, known) = {
            let mut waiting = outbox.waiting.lock().await;
            let hosts = std::mem::take(&mut waiting.hosts);
            let labels = std::mem::take(&mut waiting.labels);
            let known = std::mem::take(&mut waiting.known);
            let rest = match waiting.reports.keys().nth(REPORTS_AT_ONCE).copied() {
                Some(key) => waiting.reports.split_off(&key),
                None => BTreeMap::new(),
            };
            (
                hosts,
                std::mem::replace(&mut waiting.reports, rest),
                labels,
                known,
            )
        };
        if hosts.is_empty() && reports.is_empty() && labels.is_empty() && known.is_empty() {
            if Arc::strong_count(&outbox) == 1 {
                return;
            }
            outbox.filled.notified().await;
            continue;
        }
        let mut failed = !register(&outbox, &region, hosts).await;
        if !reports.is_empty()
            && let Err(error) = region.report_ports(reports.values().cloned().collect()).await
        {
            tracing::warn!(
                reports = reports.len(),
                error,
                "reports could not be stored; trying again"
            );
            let mut waiting = outbox.waiting.lock().await;
            for (id, report) in reports {
                waiting.reports.entry(id).or_insert(report);
            }
            failed = true;
        }
        if !labels.is_empty()
            && let Err(error) = region.release_labels(labels.into_iter().collect()).await
        {
            tracing::warn!(error, "labels could not be released; they are told again");
            failed = true;
        }
        failed |= !note_hosts(&outbox, region.as_ref(), known).await;
        retry = match failed {
            true => {
                tokio::time::sleep(retry).await;
                (retry * 2).min(REPORT_RETRY.1)
            }
            false => REPORT_RETRY.0,
        };
    }
}

/// Has the region register hosts, several at a time. False when it could not register all of them.
async fn register(
    outbox: &Outbox,
    region: &Arc<dyn RegionLink>,
    mut hosts: BTreeMap<String, (IpAddr, String)>,
) -> bool {
    let mut calls = JoinSet::new();
    let mut failures = Vec::new();
    loop {
        // Once one has failed the others would too: they wait for the next time.
        while failures.is_empty()
            && calls.len() < REGISTRATIONS_AT_ONCE
            && let Some((name, (tunnel_ip, zone))) = hosts.pop_first()
        {
            let region = Arc::clone(region);
            calls.spawn(async move {
                let registered = region.register_host(name.clone(), tunnel_ip, zone.clone()).await;
                registered.map_err(|error| (name, (tunnel_ip, zone), error))
            });
        }
        match calls.join_next().await {
            Some(Ok(Err(failure))) => failures.push(failure),
            Some(_) => {}
            None => break,
        }
    }
    let Some((host, _, error)) = failures.first() else {
        return true;
    };
    let waiting = failures.len() + hosts.len();
    tracing::warn!(
        host,
        error,
        waiting,
        "hosts could not be registered; trying again"
    );
    hosts.extend(failures.into_iter().map(|(name, host, _)| (name, host)));
    let mut waiting = outbox.waiting.lock().await;
    for (name, host) in hosts {
        waiting.hosts.entry(name).or_insert(host);
    }
    false
}

/// Has the region keep what is known of hosts. False when it could not; newer words about a host are not overwritten.
async fn note_hosts(outbox: &Outbox, region: &dyn RegionLink, known: BTreeMap<String, HostRuntime>) -> bool {
    if known.is_empty() {
        return true;
    }
    let Err(error) = region.note_hosts(known.values().cloned().collect()).await else {
        return true;
    };
    tracing::warn!(
        hosts = known.len(),
        error,
        "what is known of hosts could not be stored; trying again"
    );
    let mut waiting = outbox.waiting.lock().await;
    for (name, host) in known {
        waiting.known.entry(name).or_insert(host);
    }
    false
}

struct Shell {
    core: Ncm,
    options: Options,
    started: Instant,
    next_session: SessionId,
    sessions: BTreeMap<SessionId, mpsc::Sender<Result<v1::NcmMessage, Status>>>,
    outbox: Arc<Outbox>,
    requests: mpsc::WeakSender<Request>,
}

impl Shell {
    async fn run(mut self, mut queue: mpsc::Receiver<Request>) {
        let mut tick = tokio::time::interval(TICK);
        loop {
            tokio::select! {
                request = queue.recv() => match request {
                    Some(request) => self.handle(request).await,
                    None => break,
                },
                _ = tick.tick() => {
                    self.step(Event::Tick).await;
                    counts::depths(&self.core);
                    NCM_QUEUE_REQUESTS.set([], queue.len() as u64);
                    NCM_QUEUE_REPORTS.set([], self.outbox.waiting.lock().await.reports.len() as u64);
                }
            }
        }
        let outbox = Arc::clone(&self.outbox);
        drop(self);
        outbox.filled.notify_one();
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
            Request::Hosts(reply) => drop(reply.send(self.core.host_summaries())),
            Request::Host(name, reply) => drop(reply.send(self.core.host_state(&name))),
            Request::Port(id, reply) => drop(reply.send(self.core.port_state(id))),
            Request::Trace(question, reply) => drop(reply.send(self.core.trace_inputs(&question))),
        }
    }

    async fn accept(&mut self, hello: v1::Hello, reply: oneshot::Sender<Result<Accepted, Status>>) {
        let session = self.next_session;
        self.next_session += 1;
        let (to_agent, outgoing) = mpsc::channel(self.options.window_deltas + TO_AGENT_SPARE);
        let (from_agent, incoming) = mpsc::channel(FROM_AGENT_QUEUE);
        let Some(requests) = self.requests.upgrade() else {
            return;
        };
        tracing::info!(
            host = hello.host,
            incarnation = hello.incarnation,
            session,
            "an agent says hello"
        );
        NCM_HELLOS.add([], 1);
        let relay = Relay {
            session,
            host: hello.host.clone(),
            directory: Arc::clone(self.core.directory()),
            started: self.started,
            to_agent: to_agent.downgrade(),
        };
        self.sessions.insert(session, to_agent);
        tokio::spawn(relay.run(incoming, requests));
        // If the caller is gone, the relay's queue closes and the session with it.
        let _ = reply.send(Ok(Accepted {
            from_agent,
            to_agent: outgoing,
        }));
        self.step(Event::Hello { session, hello }).await;
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
                Action::RegisterHost {
                    name,
                    tunnel_ip,
                    zone,
                } => {
                    let mut waiting = self.outbox.waiting.lock().await;
                    waiting.hosts.insert(name, (tunnel_ip, zone));
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
                Action::ReleaseLabels(labels) => {
                    self.outbox.waiting.lock().await.labels.extend(labels);
                    filled = true;
                }
            }
        }
        if filled {
            self.outbox.filled.notify_one();
        }
    }

    /// The window keeps the queue from filling; when it is full or closed all the same, the session is over.
    fn send(&mut self, session: SessionId, message: v1::NcmMessage) {
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
    host: String,
    directory: Arc<Directory>,
    started: Instant,
    /// The core ends the session by dropping its sender.
    to_agent: mpsc::WeakSender<Result<v1::NcmMessage, Status>>,
}

impl Relay {
    async fn run(self, mut incoming: mpsc::Receiver<FromAgent>, requests: mpsc::Sender<Request>) {
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
            if requests.send(Request::FromAgent { session, body }).await.is_err() {
                return;
            }
        }
        let _ = requests.send(Request::Gone { session }).await;
    }

    /// An agent has few messages of questions on their way, and there is room for so many answers. One that does not read
    /// them, asks more at once than it may, or not what can be read, loses its session.
    fn answer(&self, message: &v1::Resolve) -> Result<(), Status> {
        let questions =
            decode_questions(message).map_err(|error| Status::invalid_argument(error.to_string()))?;
        let Some(asker) = self.directory.asker(&self.host, self.session) else {
            return Err(Status::unavailable("the host is not known yet"));
        };
        let (answers, mut asked) = self.directory.resolve(self.started.elapsed(), &asker, &questions);
        let resolved = encode_answers(message.id, &answers);
        asked.bytes = resolved.encoded_len() as u64;
        counts::asked(&asked);
        let message = v1::NcmMessage {
            body: Some(v1::ncm_message::Body::Resolved(resolved)),
        };
        match self.to_agent.upgrade() {
            Some(to_agent) => to_agent
                .try_send(Ok(message))
                .map_err(|_| Status::resource_exhausted("answers are not read")),
            None => Err(Status::cancelled("the session is over")),
        }
    }
}
