//! Agents that send what no agent should, over real sockets: it costs them their session, and nobody else anything.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a panic is how a test says no"
)]

mod common;

use alcor_ncm::NcmHandle;
use alcor_proto::v1::{
    self, AgentMessage, NcmMessage, agent_message::Body, ncm_message, southbound_client::SouthboundClient,
};
use alcor_southbound::{MESSAGE_BYTES_MAX, server};
use alcor_tls::Incoming;
use tokio::{net::TcpListener, sync::mpsc, task::JoinHandle};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Streaming, transport::Channel};

/// An agent's two ends.
struct Agent {
    send: mpsc::Sender<AgentMessage>,
    receive: Streaming<NcmMessage>,
}

impl Agent {
    async fn connect(channel: &Channel, host: &str, number: u8) -> Self {
        let (send, outgoing) = mpsc::channel(4);
        let body = Some(Body::Hello(common::hello(host, number)));
        send.send(AgentMessage { body }).await.unwrap();
        let mut client = SouthboundClient::new(channel.clone());
        let reply = client.session(ReceiverStream::new(outgoing)).await.unwrap();
        let receive = reply.into_inner();
        let mut agent = Self { send, receive };
        let welcome = agent.hear().await.expect("a welcome");
        assert!(matches!(welcome, ncm_message::Body::Welcome(_)));
        agent
    }

    async fn say(&self, body: Body) {
        // The stream may be over already.
        let _ = self.send.send(AgentMessage { body: Some(body) }).await;
    }

    /// The next message; nothing when the session is over.
    async fn hear(&mut self) -> Option<ncm_message::Body> {
        self.receive.message().await.ok()??.body
    }

    /// It says that it is there, asks and is answered.
    async fn is_served(&mut self, id: u64) -> bool {
        self.say(Body::Heartbeat(v1::Heartbeat::default())).await;
        self.say(common::questions(id, 1)).await;
        matches!(self.hear().await, Some(ncm_message::Body::Resolved(answers)) if answers.id == id)
    }
}

/// An NCM behind a socket, and a connection to it, which many sessions may share.
async fn serve() -> (NcmHandle, Channel, JoinHandle<()>) {
    let ncm = common::start().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let acceptor = ncm.clone();
    let server = tokio::spawn(async move {
        let served = server::serve(Incoming::new(listener, None), acceptor, std::future::pending()).await;
        served.unwrap();
    });
    let endpoint = Channel::from_shared(format!("http://{address}")).unwrap();
    (ncm, endpoint.connect().await.unwrap(), server)
}

fn report_of(bytes: usize) -> Body {
    Body::PortReport(v1::PortReport {
        port_id: vec![1; bytes].into(),
        ..v1::PortReport::default()
    })
}

#[tokio::test]
async fn a_message_that_is_too_large_ends_its_session_only() {
    let (ncm, channel, server) = serve().await;
    let mut other = Agent::connect(&channel, "h2", 2).await;
    for (number, bytes) in [(1, MESSAGE_BYTES_MAX + 1), (2, 100_000_000)] {
        let mut hostile = Agent::connect(&channel, "h1", 1).await;
        assert!(hostile.is_served(1).await);
        hostile.say(report_of(bytes)).await;
        assert!(hostile.hear().await.is_none(), "{bytes} bytes");
        assert!(!ncm.host("h1").await.unwrap().summary.alive, "{bytes} bytes");
        assert!(other.is_served(number).await, "on the same connection");
        assert!(ncm.host("h2").await.unwrap().summary.alive);
    }
    // Who comes back with what can be read is welcome.
    let mut again = Agent::connect(&channel, "h1", 1).await;
    again.say(report_of(MESSAGE_BYTES_MAX - 1_024)).await;
    assert!(
        again.is_served(3).await,
        "a large message about nothing is ignored"
    );
    server.abort();
}

/// A queue of the session's own is full, then the connection's; nobody waits for that.
#[tokio::test]
async fn who_does_not_read_delays_nobody() {
    let (ncm, channel, server) = serve().await;
    let mut other = Agent::connect(&channel, "h2", 2).await;
    let deaf = Agent::connect(&channel, "h1", 1).await;
    let question = || AgentMessage {
        body: Some(common::questions(1, 1_024)),
    };
    let mut served = 0;
    while ncm.host("h1").await.unwrap().summary.alive {
        // What finds no room is of no use: enough is on its way.
        let _ = deaf.send.try_send(question());
        // Its silence is not what ends its session.
        deaf.say(Body::Heartbeat(v1::Heartbeat::default())).await;
        served += 1;
        assert!(other.is_served(served).await);
    }
    eprintln!("served {served}");
    eprintln!("served {served}");
    server.abort();
}
