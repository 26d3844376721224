//! The shell around the state machine: clocks, the NCM's stream, the data plane's thread, netlink, the local
//! socket. It decides nothing.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    future::Future,
    net::{IpAddr, Ipv4Addr},
    path::PathBuf,
    pin::pin,
    time::Duration,
};

use alcor_dataplane::{Dataplane, DataplaneError};
use alcor_metrics::{
    AGENT_ANSWERS, AGENT_BACKLOG, AGENT_EVICTED, AGENT_HELD, AGENT_LEARNED, AGENT_QUESTIONS, AGENT_RELEASED,
    AGENT_RESOLVE_SECONDS, AGENT_SESSION_OPEN, AGENT_SESSIONS, AGENT_UNRESOLVED_DROPS,
};
use alcor_model::{
    Id, Network,
    resource::{DEFAULT_ZONE, EXTERNAL_NETWORKS_MAX},
};
use alcor_tls::Tls;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use thiserror::Error;
use tokio::{
    net::UnixListener,
    sync::{mpsc, oneshot},
    time::Instant,
};

use crate::{
    core::{Action, Agent, Event, MAX_PORTS, Now, Settings},
    devices,
    driver::{self, Driver, Work, unix_us},
    incarnation,
    prober::{self, Probes},
    session::{self, Session},
    socket::{self, Ask},
};

/// How many events of the NCM's stream, and of netlink, may wait each; more wait where they come from.
const EVENT_QUEUE: usize = 64;
/// With this much work waiting for the data plane, nothing that makes more is taken.
const BACKLOG: usize = 256;
/// How often what is counted elsewhere is taken over into metrics.
const COUNT_EVERY: Duration = Duration::from_secs(10);

/// `[agent]` of the configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AgentConfig {
    /// This host's name, as in `binding:host_id`; 1 to 255 bytes.
    pub host: String,
    /// This host's address in the underlay, where other hosts send tunnel packets.
    pub tunnel_ip: IpAddr,
    /// The availability zone that this host is in; 1 to 255 bytes.
    pub availability_zone: String,
    /// The NCM to connect to, as `http://address:port`; with `tls`, as `https://`.
    pub ncm: String,
    /// The certificates of this host or gateway; none: what the NCM is told is not protected, nor is who tells it.
    #[serde(skip)]
    pub tls: Option<Tls>,
    /// The local socket for attaching devices.
    pub socket: PathBuf,
    /// DHCP lease time in seconds, at least 60.
    pub dhcp_lease_s: u32,
    /// Find the devices of ports by their names. Off: devices are only attached through the local socket.
    pub watch_links: bool,
    /// This is a gateway of this set, 1 to 255 bytes; none: this is a host.
    pub gateway_set: Option<String>,
    /// The external networks that the data plane has devices for, at most 64: there it answers for floating IPs of this host's ports.
    pub external_networks: BTreeSet<Id<Network>>,
}

impl Default for AgentConfig {
    fn default() -> Self {
        Self {
            host: "localhost".to_owned(),
            tunnel_ip: IpAddr::V4(Ipv4Addr::LOCALHOST),
            availability_zone: DEFAULT_ZONE.to_owned(),
            ncm: "http://127.0.0.1:9697".to_owned(),
            tls: None,
            socket: PathBuf::from("/run/alcor/agent.sock"),
            dhcp_lease_s: 86_400,
            watch_links: true,
            gateway_set: None,
            external_networks: BTreeSet::new(),
        }
    }
}

/// Why the agent cannot start, or stopped.
#[derive(Debug, Error)]
pub enum AgentError {
    /// A setting is out of its range.
    #[error("agent.{key}: {reason}")]
    Config {
        /// Which.
        key: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// The local socket cannot be made.
    #[error("the local socket {path} cannot be made; is another agent running, is the folder writable?")]
    Socket {
        /// Its path.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: std::io::Error,
    },
    /// The socket of probes cannot be made.
    #[error("no socket for probes can be made at {address}; has this machine the address?")]
    Probes {
        /// The tunnel address.
        address: IpAddr,
        /// What the kernel said.
        #[source]
        source: std::io::Error,
    },
    /// The data plane's thread cannot be started.
    #[error("the data plane's thread cannot be started")]
    Thread(#[source] std::io::Error),
    /// The data plane's state cannot be read.
    #[error("the data plane's state cannot be read")]
    Snapshot(#[source] DataplaneError),
    /// The data plane's thread ended.
    #[error("the data plane stopped; its error is in the log above")]
    DataplaneStopped,
}

impl AgentConfig {
    fn check(&self) -> Result<(), AgentError> {
        let fail = |key, reason: String| AgentError::Config { key, reason };
        if !(1..=255).contains(&self.host.len()) {
            return Err(fail("host", "must have 1 to 255 bytes".to_owned()));
        }
        if !(1..=255).contains(&self.availability_zone.len()) {
            return Err(fail("availability_zone", "must have 1 to 255 bytes".to_owned()));
        }
        if self
            .gateway_set
            .as_ref()
            .is_some_and(|set| !(1..=255).contains(&set.len()))
        {
            return Err(fail("gateway_set", "must have 1 to 255 bytes".to_owned()));
        }
        if self.external_networks.len() > EXTERNAL_NETWORKS_MAX {
            return Err(fail(
                "external",
                format!("a host has at most {EXTERNAL_NETWORKS_MAX} external networks"),
            ));
        }
        if self.tunnel_ip.is_unspecified() || self.tunnel_ip.is_multicast() {
            return Err(fail(
                "tunnel_ip",
                format!("{} is not the address of a host", self.tunnel_ip),
            ));
        }
        if self.dhcp_lease_s < 60 {
            return Err(fail("dhcp_lease_s", "must be at least 60".to_owned()));
        }
        let uri: Result<http::Uri, _> = self.ncm.parse();
        if !uri.is_ok_and(|uri| uri.scheme().is_some() && uri.authority().is_some()) {
            return Err(fail(
                "ncm",
                format!("'{}' is not as http://192.0.2.1:9697", self.ncm),
            ));
        }
        Ok(())
    }
}

/// Runs the agent until `shutdown` ends. The data plane stays in force afterwards: packets flow on, and the next
/// start adopts what it finds.
///
/// # Errors
/// When the configuration is wrong, the local socket or the data plane cannot be used, or the data plane stops. A
/// missing NCM is no error: the agent tries again.
pub async fn run(
    config: AgentConfig,
    mut dataplane: Box<dyn Dataplane>,
    shutdown: impl Future<Output = ()>,
) -> Result<(), AgentError> {
    config.check()?;
    let listener = socket::bind(&config.socket)
        .await
        .map_err(|source| AgentError::Socket {
            path: config.socket.clone(),
            source,
        })?;
    let settings = Settings {
        host: config.host.clone(),
        incarnation: incarnation::take(&config.socket, unix_us()),
        tunnel_ip: config.tunnel_ip,
        availability_zone: config.availability_zone.clone(),
        dataplane: dataplane.name().to_owned(),
        filters: dataplane.filters(),
        lease: Duration::from_secs(u64::from(config.dhcp_lease_s)),
        gateway_set: config.gateway_set.clone(),
        external_networks: config.external_networks.clone(),
    };
    let packets = dataplane.events();
    let Driver {
        work,
        results,
        snapshot,
        thread,
    } = driver::start(dataplane).map_err(AgentError::Thread)?;
    let snapshot = snapshot
        .await
        .map_err(|_| AgentError::DataplaneStopped)?
        .map_err(AgentError::Snapshot)?;
    tracing::info!(
        host = config.host,
        rows = snapshot.rows.len(),
        devices = snapshot.devices.len(),
        "agent started"
    );
    let (stream_sender, stream) = mpsc::channel(EVENT_QUEUE);
    let (probes, answers) = match config.gateway_set {
        None => (None, None),
        Some(_) => {
            let (probes, answers) = prober::open(config.tunnel_ip).await?;
            (Some(probes), Some(answers))
        }
    };
    let shell = Shell {
        agent: Agent::new(settings, snapshot),
        started: Instant::now(),
        ncm: session::Ncm {
            url: config.ncm.clone(),
            tls: config.tls.clone(),
        },
        stream_sender,
        session: None,
        backlog: VecDeque::new(),
        asks: 0,
        replies: BTreeMap::new(),
        link_up: None,
        probes,
    };
    let inputs = Inputs {
        packets,
        results,
        stream,
        answers,
    };
    let outcome = shell.serve(&config, listener, inputs, &work, shutdown).await;
    let _ = std::fs::remove_file(&config.socket);
    // The thread ends when it has done what it was given.
    drop(work);
    let joined = tokio::task::spawn_blocking(move || thread.join()).await;
    match joined {
        Ok(Ok(())) => outcome,
        _ => Err(AgentError::DataplaneStopped),
    }
}

/// Where events come from, besides the local socket and netlink.
struct Inputs {
    packets: Option<mpsc::Receiver<alcor_dataplane::Event>>,
    results: mpsc::Receiver<Event>,
    stream: mpsc::Receiver<Event>,
    /// Of a gateway: answers to its probes.
    answers: Option<mpsc::Receiver<Event>>,
}

struct Shell {
    agent: Agent,
    started: Instant,
    ncm: session::Ncm,
    stream_sender: mpsc::Sender<Event>,
    session: Option<Session>,
    /// Work that the data plane's queue has no room for yet. The loop never waits for room alone: the data plane
    /// waits for the loop to take its results.
    backlog: VecDeque<Work>,
    asks: u64,
    replies: BTreeMap<u64, oneshot::Sender<Value>>,
    link_up: Option<mpsc::Sender<(u32, String)>>,
    /// Of a gateway.
    probes: Option<Probes>,
}

impl Shell {
    async fn serve(
        mut self,
        config: &AgentConfig,
        listener: UnixListener,
        mut inputs: Inputs,
        work: &mpsc::Sender<Work>,
        shutdown: impl Future<Output = ()>,
    ) -> Result<(), AgentError> {
        let (ask_sender, mut asks) = mpsc::channel(socket::MAX_CLIENTS);
        let socket = tokio::spawn(socket::serve(listener, ask_sender));
        let (link_sender, mut links) = mpsc::channel(EVENT_QUEUE);
        let mut watcher = None;
        if config.watch_links {
            let (up_sender, up) = mpsc::channel(MAX_PORTS);
            self.link_up = Some(up_sender);
            watcher = Some(tokio::spawn(devices::watch(link_sender, up)));
        }
        let mut shutdown = pin!(shutdown);
        let mut count = tokio::time::interval(COUNT_EVERY);
        self.step(Event::Tick);
        let outcome = loop {
            let room = self.backlog.len() < BACKLOG;
            let tick = self.tick_at();
            tokio::select! {
                // Results first: they make room.
                biased;
                () = &mut shutdown => break Ok(()),
                result = inputs.results.recv() => match result {
                    Some(event) => self.step(event),
                    None => break Err(AgentError::DataplaneStopped),
                },
                permit = work.reserve(), if !self.backlog.is_empty() => match (permit, self.backlog.pop_front()) {
                    (Ok(permit), Some(work)) => permit.send(work),
                    _ => break Err(AgentError::DataplaneStopped),
                },
                // Only when the data plane has nothing else to do.
                _ = count.tick(), if self.backlog.is_empty() => {
                    self.backlog.push_back(Work::Count);
                    self.count_learning();
                }
                Some(answer) = next(&mut inputs.answers) => self.step(answer),
                () = tokio::time::sleep_until(tick) => self.step(Event::Tick),
                Some(event) = links.recv(), if room => self.step(event),
                Some(ask) = asks.recv(), if room => self.ask(ask),
                Some(event) = inputs.stream.recv(), if room => self.step(event),
                Some(event) = next(&mut inputs.packets), if room => self.step(Event::Dataplane(event)),
            }
        };
        socket.abort();
        if let Some(watcher) = watcher {
            watcher.abort();
        }
        outcome
    }

    fn now(&self) -> Now {
        Now {
            since_start: self.started.elapsed(),
            unix_us: unix_us(),
        }
    }

    /// The state machine's deadline; when it wants none, soon enough to be of use.
    fn tick_at(&self) -> Instant {
        let deadline = self.agent.deadline().map(|at| self.started + at);
        deadline.unwrap_or_else(|| Instant::now() + Duration::from_secs(1))
    }

    /// What the state machine has counted, for metrics.
    fn count_learning(&self) {
        let (counts, sizes) = (self.agent.learning(), self.agent.learning_sizes());
        AGENT_LEARNED.set([], sizes.learned as u64);
        AGENT_HELD.set([], sizes.held as u64);
        AGENT_QUESTIONS.at_least(["packet"], counts.questions);
        AGENT_QUESTIONS.at_least(["renewal"], counts.renewals);
        for (verdict, count) in &counts.answers {
            AGENT_ANSWERS.at_least([verdict], *count);
        }
        AGENT_RELEASED.at_least([], counts.released);
        for (reason, count) in &counts.dropped {
            AGENT_UNRESOLVED_DROPS.at_least([reason.as_str()], *count);
        }
        AGENT_EVICTED.at_least([], counts.evicted);
    }

    fn ask(&mut self, ask: Ask) {
        self.asks += 1;
        self.replies.insert(self.asks, ask.reply);
        self.step(Event::Request {
            client: self.asks,
            request: ask.request,
        });
    }

    fn step(&mut self, event: Event) {
        let mut events = VecDeque::from([event]);
        while let Some(event) = events.pop_front() {
            let now = self.now();
            for action in self.agent.step(now, event) {
                events.extend(self.perform(action));
            }
        }
        for wait in self.agent.take_waits() {
            AGENT_RESOLVE_SECONDS.seconds([], wait);
        }
        AGENT_BACKLOG.set([], self.backlog.len() as u64);
        AGENT_SESSION_OPEN.set([], u64::from(self.agent.has_session()));
    }

    /// Does what the state machine says; what fails at once comes back as an event.
    fn perform(&mut self, action: Action) -> Option<Event> {
        match action {
            Action::Connect { session, hello } => {
                AGENT_SESSIONS.add([], 1);
                let events = self.stream_sender.clone();
                self.session = Some(session::open(self.ncm.clone(), session, hello, events));
            }
            Action::Close { session } => drop(self.session.take_if(|open| open.number == session)),
            Action::Send { session, message } => {
                let open = self.session.as_ref().filter(|open| open.number == session)?;
                if open.send.try_send(message).is_err() {
                    self.session = None;
                    let reason = "messages to the NCM cannot be sent".to_owned();
                    return Some(Event::Closed { session, reason });
                }
            }
            Action::Apply { batch, changes } => self.backlog.push_back(Work::Apply { batch, changes }),
            Action::Attach { port, token, device } => {
                self.backlog.push_back(Work::Attach { port, token, device });
            }
            Action::Detach { port, token } => self.backlog.push_back(Work::Detach { port, token }),
            Action::Inject { port, frame } => self.backlog.push_back(Work::Inject { port, frame }),
            Action::Release { frames } => self.backlog.push_back(Work::Release { frames }),
            Action::TakeUsed { keys } => self.backlog.push_back(Work::TakeUsed { keys }),
            Action::Read { client, reading } => self.backlog.push_back(Work::Read { client, reading }),
            Action::ReadLoad => self.backlog.push_back(Work::ReadLoad),
            Action::Probe(probe) => {
                if let Some(probes) = &self.probes {
                    probes.send(probe);
                }
            }
            Action::LinkUp { index, name } => {
                let sent = self
                    .link_up
                    .as_ref()
                    .is_some_and(|up| up.try_send((index, name.clone())).is_ok());
                if !sent {
                    let reason = "too many devices wait to be set up".to_owned();
                    return Some(Event::LinkRefused(name, reason));
                }
            }
            Action::Answer { client, body } => {
                if let Some(reply) = self.replies.remove(&client) {
                    // A client that went needs no answer.
                    let _ = reply.send(body);
                }
            }
        }
        None
    }
}

/// The next one; never, where none come.
async fn next<T>(source: &mut Option<mpsc::Receiver<T>>) -> Option<T> {
    match source {
        Some(source) => source.recv().await,
        None => std::future::pending().await,
    }
}
