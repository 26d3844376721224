//! One session with the NCM: opens the stream, says hello, passes messages in both directions.

use std::time::Duration;

use alcor_proto::v1::{self, southbound_client::SouthboundClient};
use tokio::sync::mpsc;
use tokio_stream::{StreamExt, wrappers::ReceiverStream};
use tonic::transport::Endpoint;

use crate::{core::Event, wire};

/// How many messages to the NCM may wait; an NCM that reads slower loses the session.
pub(crate) const SEND_QUEUE: usize = 4_096;
/// Largest message of the NCM, in bytes.
pub const MAX_MESSAGE: usize = 16 << 20;
/// Longest time to open a session.
const OPEN_WITHIN: Duration = Duration::from_secs(10);
/// How often an idle connection is tried, and how long an answer may take.
const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// The sending side of a running session. Dropping it ends the session.
pub(crate) struct Session {
    pub(crate) number: u64,
    pub(crate) send: mpsc::Sender<v1::AgentMessage>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Session {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Opens a session; everything about it, its end too, comes as events.
pub(crate) fn open(
    endpoint: Endpoint,
    number: u64,
    hello: v1::Hello,
    events: mpsc::Sender<Event>,
) -> Session {
    let (send, outgoing) = mpsc::channel(SEND_QUEUE);
    let hello = v1::AgentMessage {
        body: Some(v1::agent_message::Body::Hello(hello)),
    };
    let task = tokio::spawn(async move {
        let reason = run(endpoint, number, hello, outgoing, &events).await;
        // Nobody listens: the agent stops.
        let _ = events
            .send(Event::Closed {
                session: number,
                reason,
            })
            .await;
    });
    Session { number, send, task }
}

/// Runs the session and says why it ended.
async fn run(
    endpoint: Endpoint,
    session: u64,
    hello: v1::AgentMessage,
    outgoing: mpsc::Receiver<v1::AgentMessage>,
    events: &mpsc::Sender<Event>,
) -> String {
    let opened = tokio::time::timeout(OPEN_WITHIN, async {
        let channel = endpoint.connect().await.map_err(|error| describe(&error))?;
        let mut client = SouthboundClient::new(channel).max_decoding_message_size(MAX_MESSAGE);
        let stream = tokio_stream::once(hello).chain(ReceiverStream::new(outgoing));
        client.session(stream).await.map_err(|status| describe(&status))
    });
    let mut incoming = match opened.await {
        Ok(Ok(response)) => response.into_inner(),
        Ok(Err(reason)) => return reason,
        Err(_) => return format!("the NCM did not answer within {} s", OPEN_WITHIN.as_secs()),
    };
    loop {
        match incoming.message().await {
            Ok(Some(message)) => match wire::read(message) {
                Ok(message) => {
                    if events.send(Event::Message { session, message }).await.is_err() {
                        return "the agent stops".to_owned();
                    }
                }
                Err(error) => return format!("a message of the NCM cannot be read: {error}"),
            },
            Ok(None) => return "the NCM ended the session".to_owned(),
            Err(status) => return describe(&status),
        }
    }
}

/// Where and how to connect.
pub(crate) fn endpoint(uri: &str) -> Result<Endpoint, tonic::transport::Error> {
    Ok(Endpoint::from_shared(uri.to_owned())?
        .connect_timeout(OPEN_WITHIN)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE)
        .keep_alive_while_idle(true))
}

/// The error with its causes, in one line.
fn describe(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
