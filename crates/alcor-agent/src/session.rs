//! One session with the NCM as a task: opens the stream, passes messages in both directions, says how it ended.

use std::time::Duration;

use alcor_proto::v1;
use alcor_southbound::client::{self, Incoming};
use alcor_tls::Tls;
use tokio::sync::mpsc;

use crate::{core::Event, wire};

/// How many messages to the NCM may wait; an NCM that reads slower loses the session.
pub(crate) const SEND_QUEUE: usize = 4_096;
/// Longest time to open a session.
const OPEN_WITHIN: Duration = Duration::from_secs(10);

/// Where the NCM is, and what opens its door.
#[derive(Clone)]
pub(crate) struct Ncm {
    pub(crate) url: String,
    pub(crate) tls: Option<Tls>,
}

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
pub(crate) fn open(ncm: Ncm, number: u64, hello: v1::Hello, events: mpsc::Sender<Event>) -> Session {
    let (send, outgoing) = mpsc::channel(SEND_QUEUE);
    let task = tokio::spawn(async move {
        let reason = run(&ncm, number, hello, outgoing, &events).await;
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
    ncm: &Ncm,
    number: u64,
    hello: v1::Hello,
    outgoing: mpsc::Receiver<v1::AgentMessage>,
    events: &mpsc::Sender<Event>,
) -> String {
    let connecting = client::connect(&ncm.url, ncm.tls.as_ref(), hello);
    let client::Session { send, receive } = match tokio::time::timeout(OPEN_WITHIN, connecting).await {
        Ok(Ok(session)) => session,
        Ok(Err(error)) => return error.to_string(),
        Err(_) => return format!("the NCM did not answer within {} s", OPEN_WITHIN.as_secs()),
    };
    // Side by side: an NCM that does not read must not keep the agent from reading.
    tokio::select! {
        reason = read(number, receive, events) => reason,
        () = write(outgoing, send) => "messages to the NCM cannot be sent".to_owned(),
    }
}

async fn read(session: u64, mut receive: Incoming, events: &mpsc::Sender<Event>) -> String {
    loop {
        let message = match receive.next().await {
            Ok(Some(message)) => message,
            Ok(None) => return "the NCM ended the session".to_owned(),
            Err(error) => return error.to_string(),
        };
        let message = match wire::read(message) {
            Ok(message) => message,
            Err(error) => return format!("a message of the NCM cannot be read: {error}"),
        };
        if events.send(Event::Message { session, message }).await.is_err() {
            return "the agent stops".to_owned();
        }
    }
}

/// Passes messages on until one side is gone.
async fn write(mut outgoing: mpsc::Receiver<v1::AgentMessage>, send: mpsc::Sender<v1::AgentMessage>) {
    while let Some(message) = outgoing.recv().await {
        if send.send(message).await.is_err() {
            return;
        }
    }
}
