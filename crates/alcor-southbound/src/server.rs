//! The NCM's end of the stream: takes the hello, asks the [`Acceptor`] for a session, and then only carries messages.
//! Each session has one bounded outgoing queue, which its owner fills.
//!
//! Plain HTTP/2 without TLS for now: run it on loopback or a network that only hosts reach.

use std::{future::Future, net::SocketAddr, pin::Pin};

use alcor_proto::v1::{
    AgentMessage, Hello, NcmMessage, agent_message,
    southbound_server::{Southbound, SouthboundServer},
};
use tokio::{net::TcpListener, sync::mpsc};
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::{Request, Response, Status, Streaming};

use crate::MESSAGE_BYTES_MAX;

/// Streams that one connection may carry: agents have one each, simulators put many into one.
const STREAMS_PER_CONNECTION_MAX: u32 = 1_024;

/// What an agent sends after its hello.
pub type FromAgent = agent_message::Body;

/// A session as its owner gives it to the channel.
#[derive(Debug)]
pub struct Accepted {
    /// Where the agent's messages go. Closing it ends the session.
    pub from_agent: mpsc::Sender<FromAgent>,
    /// What to send. Closing it, or an error in it, ends the session.
    pub to_agent: mpsc::Receiver<Result<NcmMessage, Status>>,
}

/// Whoever owns the sessions.
pub trait Acceptor: Send + Sync + 'static {
    /// Decides about a new session.
    ///
    /// # Errors
    /// A status, which the agent is told.
    fn accept(&self, hello: Hello) -> Pin<Box<dyn Future<Output = Result<Accepted, Status>> + Send + '_>>;
}

struct Service<A>(A);

#[tonic::async_trait]
impl<A: Acceptor> Southbound for Service<A> {
    type SessionStream = ReceiverStream<Result<NcmMessage, Status>>;

    async fn session(
        &self,
        request: Request<Streaming<AgentMessage>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let mut incoming = request.into_inner();
        let first = incoming.message().await?.and_then(|message| message.body);
        let Some(agent_message::Body::Hello(hello)) = first else {
            return Err(Status::invalid_argument(
                "the first message of a session is Hello",
            ));
        };
        let Accepted { from_agent, to_agent } = self.0.accept(hello).await?;
        tokio::spawn(forward(incoming, from_agent));
        Ok(Response::new(ReceiverStream::new(to_agent)))
    }
}

/// Carries the agent's messages until either side is done. A slow owner slows this agent only.
async fn forward(mut incoming: Streaming<AgentMessage>, from_agent: mpsc::Sender<FromAgent>) {
    loop {
        let message = tokio::select! {
            message = incoming.message() => message,
            () = from_agent.closed() => return,
        };
        match message {
            Ok(Some(AgentMessage { body: Some(body) })) => {
                if from_agent.send(body).await.is_err() {
                    return;
                }
            }
            // A message without a body is from a newer agent: nothing that this NCM could use.
            Ok(Some(AgentMessage { body: None })) => {}
            Ok(None) => return,
            Err(status) => {
                tracing::debug!(%status, "an agent's stream ended");
                return;
            }
        }
    }
}

/// Serves agents until `shutdown` is done.
///
/// # Errors
/// When the listener fails.
pub async fn serve(
    listener: TcpListener,
    acceptor: impl Acceptor,
    shutdown: impl Future<Output = ()>,
) -> Result<(), tonic::transport::Error> {
    let address: Option<SocketAddr> = listener.local_addr().ok();
    if address.is_some_and(|address| !address.ip().is_loopback()) {
        tracing::warn!(
            ?address,
            "agents are served without TLS; only hosts may reach this address"
        );
    }
    let service = SouthboundServer::new(Service(acceptor)).max_decoding_message_size(MESSAGE_BYTES_MAX);
    tonic::transport::Server::builder()
        .tcp_nodelay(true)
        .max_concurrent_streams(STREAMS_PER_CONNECTION_MAX)
        .http2_keepalive_interval(Some(std::time::Duration::from_secs(10)))
        .add_service(service)
        .serve_with_incoming_shutdown(TcpListenerStream::new(listener), shutdown)
        .await
}
