//! The agent's end of the stream: one attempt to open a session, then messages both ways. When to try again is the
//! caller's decision.

use std::time::Duration;

use alcor_proto::v1::{AgentMessage, Hello, NcmMessage, agent_message, southbound_client::SouthboundClient};
use alcor_tls::{DialError, Role, Tls};
use thiserror::Error;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Endpoint;

use crate::MESSAGE_BYTES_MAX;

/// How long opening a connection may take.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// The same for a gateway: with the pause between two tries less than an NCM that has begun waits for those that it knows. A
/// connection that is asked for while the NCM's machine is away is asked for again by TCP after 1, 3, 7 s only.
pub const CONNECT_TIMEOUT_GATEWAY: Duration = Duration::from_secs(1);
/// How often HTTP/2 asks whether the other side is still there.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(10);
/// Messages that may wait for the channel; the sender waits beyond it.
const SEND_QUEUE: usize = 1_024;

/// Why a session could not be opened, or ended.
#[derive(Debug, Error)]
pub enum ChannelError {
    /// The endpoint is not a URL.
    #[error("'{0}' is not the URL of an NCM; expected for example http://192.0.2.1:9697")]
    Endpoint(String),
    /// Nobody listens, or the connection broke.
    #[error("the NCM cannot be reached: {}", root_cause(.0))]
    Transport(#[from] DialError),
    /// The NCM refused or ended the session.
    #[error("the NCM ended the session: {} ({:?})", said(.0), .0.code())]
    Ended(#[from] Box<tonic::Status>),
}

/// The innermost cause, which for transports is the one that tells something.
fn root_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

/// What the NCM says; or, when it was the connection that broke, what broke it.
fn said(status: &tonic::Status) -> String {
    match std::error::Error::source(status) {
        Some(broken) => root_cause(broken),
        None => status.message().to_owned(),
    }
}

/// An open session.
#[derive(Debug)]
pub struct Session {
    /// To the NCM.
    pub send: mpsc::Sender<AgentMessage>,
    /// From the NCM.
    pub receive: Incoming,
}

/// The messages of the NCM.
#[derive(Debug)]
pub struct Incoming(tonic::Streaming<NcmMessage>);

impl Incoming {
    /// The next message; `None` when the NCM ended the stream in order.
    ///
    /// # Errors
    /// [`ChannelError::Ended`] when it ended otherwise.
    pub async fn next(&mut self) -> Result<Option<NcmMessage>, ChannelError> {
        self.0
            .message()
            .await
            .map_err(|status| ChannelError::Ended(Box::new(status)))
    }
}

/// Who may be at the other end: an NCM, or a controller with one inside.
const SERVERS: &[Role] = &[Role::Ncm, Role::Controller];

/// Connects, with TLS when there are certificates, and says hello. The NCM's answer (Welcome) is the first message received.
///
/// # Errors
/// When nobody is there within [`CONNECT_TIMEOUT`] ([`CONNECT_TIMEOUT_GATEWAY`] for a gateway) or the NCM refuses at once.
pub async fn connect(endpoint: &str, tls: Option<&Tls>, hello: Hello) -> Result<Session, ChannelError> {
    let endpoint = Endpoint::from_shared(endpoint.to_owned())
        .map_err(|_| ChannelError::Endpoint(endpoint.to_owned()))?
        .tcp_nodelay(true)
        .connect_timeout(match hello.gateway {
            true => CONNECT_TIMEOUT_GATEWAY,
            false => CONNECT_TIMEOUT,
        })
        .http2_keep_alive_interval(KEEP_ALIVE_INTERVAL)
        .keep_alive_while_idle(true);
    let channel = alcor_tls::connect(&endpoint, tls, SERVERS).await?;
    let (send, outgoing) = mpsc::channel(SEND_QUEUE);
    // The queue is new and has room; nobody else has its other end.
    let _ = send.try_send(AgentMessage {
        body: Some(agent_message::Body::Hello(hello)),
    });
    let mut client = SouthboundClient::new(channel).max_decoding_message_size(MESSAGE_BYTES_MAX);
    let reply = client
        .session(ReceiverStream::new(outgoing))
        .await
        .map_err(Box::new)?;
    Ok(Session {
        send,
        receive: Incoming(reply.into_inner()),
    })
}
