//! The NCM's end of the stream: takes the hello, asks the [`Acceptor`] for a session, and then only carries messages.
//! Each session has one bounded outgoing queue, which its owner fills.
//!
//! With TLS a session belongs to whom the connection's certificate names: a hello that claims to be somebody else is refused
//! here, before anybody else hears of it. Without, whoever connects is believed: loopback, or a network that only hosts reach.

use std::{convert::Infallible, future::Future, pin::Pin, sync::Arc};

use alcor_proto::v1::{AgentMessage, Hello, agent_message, southbound_server::SERVICE_NAME};
use alcor_tls::{Identity, Incoming, Peer, Role};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{
    Request, Response, Status, Streaming,
    body::Body,
    codegen::{BoxFuture, Context, Poll, http},
    server::{Grpc, NamedService, StreamingService},
};

use crate::{
    MESSAGE_BYTES_MAX,
    frame::{FrameCodec, FromNcm},
};

/// Streams that one connection may carry: agents have one each, simulators put many into one.
const STREAMS_PER_CONNECTION_MAX: u32 = 1_024;
/// The service's only method.
const SESSION: &str = "Session";

/// What an agent sends after its hello.
pub type FromAgent = agent_message::Body;

/// A session as its owner gives it to the channel.
#[derive(Debug)]
pub struct Accepted {
    /// Where the agent's messages go. Closing it ends the session.
    pub from_agent: mpsc::Sender<FromAgent>,
    /// What to send. Closing it, or an error in it, ends the session.
    pub to_agent: mpsc::Receiver<Result<FromNcm, Status>>,
}

/// Whoever owns the sessions.
pub trait Acceptor: Send + Sync + 'static {
    /// Decides about a new session.
    ///
    /// # Errors
    /// A status, which the agent is told.
    fn accept(&self, hello: Hello) -> Pin<Box<dyn Future<Output = Result<Accepted, Status>> + Send + '_>>;
}

/// The protocol's `Southbound`. Not the generated one: what goes out is bytes already ([`FrameCodec`]).
struct Southbound<A>(Arc<A>);

impl<A> Clone for Southbound<A> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<A> NamedService for Southbound<A> {
    const NAME: &'static str = SERVICE_NAME;
}

impl<A: Acceptor> tonic::codegen::Service<http::Request<Body>> for Southbound<A> {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let service = self.clone();
        Box::pin(async move {
            if request.uri().path() != format!("/{SERVICE_NAME}/{SESSION}") {
                return Ok(Status::unimplemented("there is only Session").into_http());
            }
            let mut grpc = Grpc::new(FrameCodec).max_decoding_message_size(MESSAGE_BYTES_MAX);
            Ok(grpc.streaming(service, request).await)
        })
    }
}

impl<A: Acceptor> StreamingService<AgentMessage> for Southbound<A> {
    type Response = FromNcm;
    type ResponseStream = ReceiverStream<Result<FromNcm, Status>>;
    type Future = BoxFuture<Response<Self::ResponseStream>, Status>;

    fn call(&mut self, request: Request<Streaming<AgentMessage>>) -> Self::Future {
        let service = self.clone();
        Box::pin(async move {
            let peer = Peer::of(request.extensions())?.clone();
            service.session(&peer, request.into_inner()).await
        })
    }
}

impl<A: Acceptor> Southbound<A> {
    async fn session(
        &self,
        peer: &Peer,
        mut incoming: Streaming<AgentMessage>,
    ) -> Result<Response<ReceiverStream<Result<FromNcm, Status>>>, Status> {
        let first = incoming.message().await?.and_then(|message| message.body);
        let Some(agent_message::Body::Hello(hello)) = first else {
            return Err(Status::invalid_argument(
                "the first message of a session is Hello",
            ));
        };
        admit(peer, &hello)?;
        let Accepted { from_agent, to_agent } = self.0.accept(hello).await?;
        tokio::spawn(forward(incoming, from_agent));
        Ok(Response::new(ReceiverStream::new(to_agent)))
    }
}

/// Whether the connection's certificate is that of whom the hello speaks.
fn admit(peer: &Peer, hello: &Hello) -> Result<(), Status> {
    let role = match hello.gateway {
        true => Role::Gateway,
        false => Role::Host,
    };
    let claimed =
        Identity::new(role, &hello.host).map_err(|error| Status::invalid_argument(error.to_string()))?;
    Ok(peer.must_be(&claimed)?)
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
    incoming: Incoming,
    acceptor: impl Acceptor,
    shutdown: impl Future<Output = ()>,
) -> Result<(), tonic::transport::Error> {
    if let Some(address) = incoming.exposed() {
        tracing::warn!(
            %address,
            "agents are served without TLS; only hosts may reach this address"
        );
    }
    tonic::transport::Server::builder()
        .tcp_nodelay(true)
        .max_concurrent_streams(STREAMS_PER_CONNECTION_MAX)
        .http2_keepalive_interval(Some(std::time::Duration::from_secs(10)))
        .add_service(Southbound(Arc::new(acceptor)))
        .serve_with_incoming_shutdown(incoming.connections(), shutdown)
        .await
}
