//! Simulated agents over the real protocol: they say hello, take every delta, and answer receipts, but
//! program nothing. They stand for the rest of a region when one real host is measured.
//!
//! Not here: deciders under virtual time and faults, which need no process beside their own.

use std::{
    net::{IpAddr, Ipv4Addr},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use alcor_proto::v1::{
    AgentMessage, Delta, Heartbeat, Hello, PortCondition, PortReport, Receipt, agent_message, ncm_message,
    row, southbound_client::SouthboundClient,
};
use bytes::Bytes;
use thiserror::Error;
use tokio::{sync::mpsc, task::JoinSet};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint};

/// Messages that one agent may have waiting for the channel.
const SEND_QUEUE: usize = 1_024;
/// A snapshot part may be large; the same bound as the real agent's.
const MESSAGE_BYTES_MAX: usize = 16 * 1024 * 1024;

/// What all agents together have seen.
#[derive(Debug, Default)]
pub struct Seen {
    /// Deltas received.
    pub deltas: AtomicU64,
    /// Rows received.
    pub rows: AtomicU64,
    /// Agents whose session was welcomed.
    pub welcomed: AtomicU64,
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

/// Runs `count` agents named `prefix-0`, `prefix-1`, ... until one fails or the caller drops the future.
/// Agents share a few connections, as HTTP/2 allows; each has a session of its own.
///
/// # Errors
/// The first failure of any of them.
pub async fn run(endpoint: &str, prefix: &str, count: u32, seen: Arc<Seen>) -> Result<(), SimError> {
    let endpoint = Endpoint::from_shared(endpoint.to_owned())
        .map_err(|_| SimError::Endpoint(endpoint.to_owned()))?
        .tcp_nodelay(true)
        .connect_timeout(Duration::from_secs(10));
    let mut agents = JoinSet::new();
    let mut channel = None;
    for index in 0..count {
        // One HTTP/2 connection carries 100 streams by default at both ends.
        if index % 100 == 0 {
            channel = Some(endpoint.connect().await?);
        }
        if let Some(channel) = channel.clone() {
            agents.spawn(agent(
                channel,
                format!("{prefix}-{index}"),
                tunnel_ip(index),
                Arc::clone(&seen),
            ));
        }
    }
    while let Some(ended) = agents.join_next().await {
        if let Ok(result) = ended {
            result?;
        }
    }
    Ok(())
}

/// Each simulated host has a tunnel address of its own in 198.19.0.0/16 (RFC 2544 benchmarking range).
fn tunnel_ip(index: u32) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(Ipv4Addr::new(198, 19, 0, 1)).wrapping_add(index & 0xffff))
}

async fn agent(channel: Channel, host: String, tunnel_ip: Ipv4Addr, seen: Arc<Seen>) -> Result<(), SimError> {
    let ended = |status: tonic::Status| SimError::Ended {
        host: host.clone(),
        status: Box::new(status),
    };
    let (send, outgoing) = mpsc::channel(SEND_QUEUE);
    let hello = Hello {
        host: host.clone(),
        incarnation: now_us(),
        tunnel_ip: address_bytes(IpAddr::V4(tunnel_ip)),
        held: Vec::new(),
        dataplane: "simulated".into(),
        version: env!("CARGO_PKG_VERSION").into(),
        filters: true,
        availability_zone: String::new(),
    };
    let gone = |_| ended(tonic::Status::cancelled("the outgoing stream is closed"));
    send.send(message(agent_message::Body::Hello(hello)))
        .await
        .map_err(gone)?;
    let mut client = SouthboundClient::new(channel).max_decoding_message_size(MESSAGE_BYTES_MAX);
    let mut incoming = client
        .session(ReceiverStream::new(outgoing))
        .await
        .map_err(ended)?
        .into_inner();
    let mut heartbeat = tokio::time::interval(Duration::from_secs(3_600));
    loop {
        tokio::select! {
            _ = heartbeat.tick() => send.send(message(agent_message::Body::Heartbeat(Heartbeat {}))).await.map_err(gone)?,
            received = incoming.message() => {
                let Some(received) = received.map_err(ended)? else { return Ok(()) };
                match received.body {
                    Some(ncm_message::Body::Welcome(welcome)) => {
                        seen.welcomed.fetch_add(1, Ordering::Relaxed);
                        let period_ms = u64::from(welcome.heartbeat_interval_ms.max(100));
                        heartbeat = tokio::time::interval(Duration::from_millis(period_ms));
                    }
                    Some(ncm_message::Body::Delta(delta)) => {
                        seen.deltas.fetch_add(1, Ordering::Relaxed);
                        seen.rows.fetch_add(delta.rows.len() as u64, Ordering::Relaxed);
                        for answer in answers(delta) {
                            send.send(answer).await.map_err(gone)?;
                        }
                    }
                    // These hosts ask nothing.
                    Some(ncm_message::Body::Resolved(_)) | None => {}
                }
            }
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
            messages.push(message(agent_message::Body::PortReport(PortReport {
                port_id: port.id,
                revision: row.revision,
                condition: PortCondition::Wired.into(),
                reason: String::new(),
                visible_us: now_us,
            })));
        }
    }
    messages
}

fn message(body: agent_message::Body) -> AgentMessage {
    AgentMessage { body: Some(body) }
}

fn address_bytes(address: IpAddr) -> Bytes {
    match address {
        IpAddr::V4(v4) => Bytes::copy_from_slice(&v4.octets()),
        IpAddr::V6(v6) => Bytes::copy_from_slice(&v6.octets()),
    }
}

/// Microseconds since the Unix epoch; 0 before it.
fn now_us() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| u64::try_from(since.as_micros()).unwrap_or(u64::MAX))
}
