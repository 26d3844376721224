//! Simulated agents over the real protocol: they say hello, take every delta, and answer receipts, but
//! program nothing. They stand for the rest of a region when one real host is measured.
//!
//! Not here: deciders under virtual time and faults, which need no process beside their own.

mod asking;
mod keeping;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use self::asking::Asker;
pub use self::asking::{Answers, Asking};
pub(crate) use self::keeping::{Keeper, Kept, Order};
use alcor_proto::v1::{
    AgentMessage, Delta, Heartbeat, Held, Hello, NcmMessage, PortCondition, PortReport, Receipt,
    SnapshotPhase, agent_message, ncm_message, row, southbound_client::SouthboundClient,
};
use alcor_southbound::{MESSAGE_BYTES_MAX, convert::encode_ip};
use bytes::Bytes;
use thiserror::Error;
use tokio::{sync::mpsc, task::JoinSet};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint};

/// Messages that one agent may have waiting for the channel.
const SEND_QUEUE: usize = 1_024;

/// What all agents together have seen.
#[derive(Debug, Default)]
pub struct Seen {
    /// Deltas received.
    pub deltas: AtomicU64,
    /// Rows received.
    pub rows: AtomicU64,
    /// Sessions that were ever welcomed.
    pub sessions: AtomicU64,
    /// Agents that have a session now.
    pub welcomed: AtomicU64,
    /// Those of them that have been brought to date, in this session, in every network of which they had anything when it
    /// began.
    pub complete: AtomicU64,
    /// What came of questions.
    pub answers: Answers,
}

/// What the agents do.
#[derive(Clone, Debug)]
pub struct Fleet {
    /// The NCM's URL.
    pub ncm: String,
    /// Hosts are named `prefix-0`, `prefix-1`, ...
    pub prefix: String,
    /// How many.
    pub hosts: u32,
    /// Say hello again when a session ends, with what is held, instead of stopping.
    pub again: bool,
    /// What they ask for, if they do.
    pub asking: Option<Asking>,
}

/// Why a simulated agent stopped.
#[derive(Debug, Error)]
pub enum SimError {
    /// The endpoint is not a URL.
    #[error("'{0}' is not the URL of an NCM; expected for example http://127.0.0.1:9697")]
    Endpoint(String),
    /// Nobody listens, or the connection broke.
    #[error("the connection to the NCM failed")]
    Transport(#[from] tonic::transport::Error),
    /// The NCM refused or ended the session.
    #[error("the NCM ended the session of {host}: {}", status.message())]
    Ended {
        /// The simulated host.
        host: String,
        /// What it said.
        status: Box<tonic::Status>,
    },
}

/// Agents that share one HTTP/2 connection: each has a stream of its own in it, so 10,000 need 100 file descriptors.
const AGENTS_PER_CONNECTION: u32 = 100;
/// The longest time until an agent that lost its session says hello again; each waits its own part of it.
const AGAIN_MAX: Duration = Duration::from_secs(1);

/// Runs the agents until one fails (not when they say hello again) or the caller drops the future.
///
/// # Errors
/// The first failure of any of them.
pub async fn run(fleet: &Fleet, seen: Arc<Seen>) -> Result<(), SimError> {
    run_with(fleet, seen, |_| None).await
}

/// As [`run`]; the agents keep what they are sent and take orders, as many of them as have a keeper.
pub(crate) async fn run_with(
    fleet: &Fleet,
    seen: Arc<Seen>,
    mut keeper: impl FnMut(u32) -> Option<Keeper>,
) -> Result<(), SimError> {
    let endpoint = Endpoint::from_shared(fleet.ncm.clone())
        .map_err(|_| SimError::Endpoint(fleet.ncm.clone()))?
        .tcp_nodelay(true)
        .connect_timeout(Duration::from_secs(10));
    let mut agents = JoinSet::new();
    let mut channel = None;
    for index in 0..fleet.hosts {
        if index % AGENTS_PER_CONNECTION == 0 {
            channel = Some(match fleet.again {
                true => endpoint.connect_lazy(),
                false => endpoint.connect().await?,
            });
        }
        if let Some(channel) = channel.clone() {
            let asks = fleet.asking.clone().filter(|asking| index < asking.hosts);
            let agent = Agent {
                channel,
                host: format!("{}-{index}", fleet.prefix),
                tunnel_ip: tunnel_ip(index),
                // Golden-ratio steps: the agents' waits lie evenly in the longest one.
                wait: AGAIN_MAX.mul_f64((f64::from(index) * 0.618_033_988_75).fract()),
                incarnation: now_us(),
                held: BTreeMap::new(),
                asker: asks.map(|asking| Asker::new(asking, index)),
                keeper: keeper(index),
                seen: Arc::clone(&seen),
            };
            agents.spawn(agent.run(fleet.again));
        }
    }
    while let Some(ended) = agents.join_next().await {
        if let Ok(result) = ended {
            result?;
        }
    }
    Ok(())
}

/// Each of up to 65,535 simulated hosts has a tunnel address of its own in 198.19.0.0/16 (RFC 2544 benchmarking range); more
/// share them.
pub(crate) fn tunnel_ip(index: u32) -> Ipv4Addr {
    let place = index % u32::from(u16::MAX);
    Ipv4Addr::from(u32::from(Ipv4Addr::new(198, 19, 0, 1)) + place)
}

struct Agent {
    channel: Channel,
    host: String,
    tunnel_ip: Ipv4Addr,
    wait: Duration,
    incarnation: u64,
    /// Networks and the revisions to which they are complete.
    held: BTreeMap<Bytes, u64>,
    asker: Option<Asker>,
    keeper: Option<Keeper>,
    seen: Arc<Seen>,
}

/// One session's part in [`Seen`], given back when it ends however it ends.
struct Present<'a> {
    seen: &'a Seen,
    /// Networks that have not been brought to date yet; none before the welcome.
    missing: Option<BTreeSet<Bytes>>,
}

impl Present<'_> {
    fn welcome(&mut self, held: &BTreeMap<Bytes, u64>) {
        self.seen.sessions.fetch_add(1, Ordering::Relaxed);
        self.seen.welcomed.fetch_add(1, Ordering::Relaxed);
        let missing: BTreeSet<Bytes> = held.keys().cloned().collect();
        if missing.is_empty() {
            self.seen.complete.fetch_add(1, Ordering::Relaxed);
        }
        self.missing = Some(missing);
    }

    fn renewed(&mut self, network: &Bytes) {
        if let Some(missing) = &mut self.missing
            && missing.remove(network)
            && missing.is_empty()
        {
            self.seen.complete.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Drop for Present<'_> {
    fn drop(&mut self) {
        if let Some(missing) = &self.missing {
            self.seen.welcomed.fetch_sub(1, Ordering::Relaxed);
            if missing.is_empty() {
                self.seen.complete.fetch_sub(1, Ordering::Relaxed);
            }
        }
    }
}

impl Agent {
    async fn run(mut self, again: bool) -> Result<(), SimError> {
        let seen = Arc::clone(&self.seen);
        loop {
            let ended = self.session(&seen).await;
            if let Some(keeper) = &self.keeper {
                keeper.closed();
            }
            if !again {
                return ended;
            }
            tokio::time::sleep(self.wait).await;
        }
    }

    async fn session(&mut self, seen: &Seen) -> Result<(), SimError> {
        let host = self.host.clone();
        let ended = |status: tonic::Status| SimError::Ended {
            host: host.clone(),
            status: Box::new(status),
        };
        let (send, outgoing) = mpsc::channel(SEND_QUEUE);
        let gone = |_| ended(tonic::Status::cancelled("the outgoing stream is closed"));
        send.send(message(agent_message::Body::Hello(self.hello())))
            .await
            .map_err(gone)?;
        let mut client =
            SouthboundClient::new(self.channel.clone()).max_decoding_message_size(MESSAGE_BYTES_MAX);
        let mut incoming = client
            .session(ReceiverStream::new(outgoing))
            .await
            .map_err(ended)?
            .into_inner();
        let mut present = Present { seen, missing: None };
        let mut heartbeat = tokio::time::interval(Duration::from_secs(3_600));
        loop {
            let replies = tokio::select! {
                order = keeping::order(&mut self.keeper) => match order {
                    Order::Ask(question) => {
                        let asked = self.keeper.as_ref().and_then(|keeper| keeper.ask(question));
                        asked.map(|asked| message(agent_message::Body::Resolve(asked))).into_iter().collect()
                    }
                    Order::Cut => return Ok(()),
                },
                _ = heartbeat.tick() => vec![message(agent_message::Body::Heartbeat(Heartbeat::default()))],
                received = incoming.message() => {
                    let Some(received) = received.map_err(ended)? else { return Ok(()) };
                    if let Some(ncm_message::Body::Welcome(welcome)) = &received.body {
                        let period_ms = u64::from(welcome.heartbeat_interval_ms.max(100));
                        heartbeat = tokio::time::interval(Duration::from_millis(period_ms));
                    }
                    let replies = self.hear(received, &mut present);
                    replies.map_err(|what| ended(tonic::Status::aborted(what)))?
                }
            };
            for reply in replies {
                send.send(reply).await.map_err(gone)?;
            }
        }
    }

    /// Takes a message in; what is said to it.
    ///
    /// # Errors
    /// How it breaks the protocol, if somebody looks.
    fn hear(&mut self, received: NcmMessage, present: &mut Present<'_>) -> Result<Vec<AgentMessage>, String> {
        let seen = Arc::clone(&self.seen);
        match received.body {
            Some(ncm_message::Body::Welcome(_)) => {
                present.welcome(&self.held);
                let reports = self.keeper.iter().flat_map(Keeper::welcomed);
                let questions = self.asker.iter_mut().flat_map(Asker::begin);
                Ok(reports.chain(questions).collect())
            }
            Some(ncm_message::Body::Delta(delta)) => {
                seen.deltas.fetch_add(1, Ordering::Relaxed);
                seen.rows.fetch_add(delta.rows.len() as u64, Ordering::Relaxed);
                self.hold(&delta, present);
                match &self.keeper {
                    Some(keeper) => keeper.take(&delta),
                    None => Ok(answers(delta)),
                }
            }
            Some(ncm_message::Body::Resolved(resolved)) => {
                seen.answers.note(&resolved);
                if let Some(keeper) = &self.keeper {
                    keeper.answered(&resolved)?;
                }
                Ok(self.asker.as_mut().map(Asker::next).into_iter().collect())
            }
            None => Ok(Vec::new()),
        }
    }

    fn hello(&self) -> Hello {
        let held = self.held.iter().map(|(network_id, revision)| Held {
            network_id: network_id.clone(),
            revision: *revision,
        });
        let held = match &self.keeper {
            Some(keeper) => keeper.hello(),
            None => held.collect(),
        };
        Hello {
            host: self.host.clone(),
            incarnation: self.incarnation,
            tunnel_ip: encode_ip(self.tunnel_ip.into()),
            held,
            dataplane: "simulated".into(),
            version: env!("CARGO_PKG_VERSION").into(),
            filters: true,
            ..Hello::default()
        }
    }

    /// Notes to which revision a network is complete now.
    fn hold(&mut self, delta: &Delta, present: &mut Present<'_>) {
        if delta.snapshot() == SnapshotPhase::Forget {
            self.held.remove(&delta.network_id);
            present.renewed(&delta.network_id);
        } else if delta.revision > 0 {
            self.held.insert(delta.network_id.clone(), delta.revision);
            present.renewed(&delta.network_id);
        }
    }
}

/// One receipt for the delta, and one report for each port in it: a simulated device is always there.
fn answers(delta: Delta) -> Vec<AgentMessage> {
    let now_us = now_us();
    let receipt = Receipt {
        sequence: delta.sequence,
        received_us: now_us,
        visible_us: now_us,
        refused: Vec::new(),
    };
    let mut messages = vec![message(agent_message::Body::Receipt(receipt))];
    for row in delta.rows {
        if let Some(row::Body::Port(port)) = row.body {
            messages.push(wired(port.id, row.revision, now_us));
        }
    }
    messages
}

/// The report of a port that is in force and whose device is there.
fn wired(port_id: Bytes, revision: u64, visible_us: u64) -> AgentMessage {
    message(agent_message::Body::PortReport(PortReport {
        port_id,
        revision,
        condition: PortCondition::Wired.into(),
        reason: String::new(),
        visible_us,
    }))
}

fn message(body: agent_message::Body) -> AgentMessage {
    AgentMessage { body: Some(body) }
}

/// Microseconds since the Unix epoch; 0 before it.
pub(crate) fn now_us() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| u64::try_from(since.as_micros()).unwrap_or(u64::MAX))
}
