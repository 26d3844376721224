//! Questions about hosts: the NCM's end answers from what it knows, the controller's end asks.

use std::time::Duration;

use alcor_model::{
    Id, Port,
    effective::{GatewayLine, HostState, HostSummary, PortState},
    trace::{Trace, TraceError, TraceQuestion},
};
use alcor_ncm::NcmHandle;
use alcor_proto::link::{
    self,
    directory_client::DirectoryClient,
    directory_server::{Directory, DirectoryServer},
};
use alcor_southbound::convert::{decode_id, encode_id};
use alcor_tls::{Incoming, Role};
use thiserror::Error;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request, Response, Status, service::interceptor::InterceptedService, transport::Channel};

use crate::{CALL_BYTES_MAX, serve::only};

/// How long a controller waits for an answer before it goes on without.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);
/// Hosts in one part of the list.
const HOSTS_PER_PART: usize = 500;
/// Parts of a list that may wait for the channel.
const PARTS_WAITING_MAX: usize = 4;

struct Service(NcmHandle);

/// Answers controllers until `shutdown` is done.
///
/// # Errors
/// When the listener fails.
pub async fn serve(
    incoming: Incoming,
    ncm: NcmHandle,
    shutdown: impl Future<Output = ()>,
) -> Result<(), tonic::transport::Error> {
    let service = DirectoryServer::new(Service(ncm));
    let service = InterceptedService::new(service, |request| only(&[Role::Controller], request));
    tonic::transport::Server::builder()
        .tcp_nodelay(true)
        .add_service(service)
        .serve_with_incoming_shutdown(incoming.connections(), shutdown)
        .await
}

fn answer(value: &impl serde::Serialize) -> Result<link::Answer, Status> {
    let json = serde_json::to_vec(value).map_err(|error| Status::internal(error.to_string()))?;
    Ok(link::Answer { json: json.into() })
}

#[tonic::async_trait]
impl Directory for Service {
    type HostsStream = ReceiverStream<Result<link::Answer, Status>>;

    async fn hosts(&self, _: Request<link::HostsQuestion>) -> Result<Response<Self::HostsStream>, Status> {
        let hosts = self.0.hosts().await;
        let (parts, queue) = mpsc::channel(PARTS_WAITING_MAX);
        tokio::spawn(async move {
            for part in hosts.chunks(HOSTS_PER_PART) {
                if parts.send(answer(&part)).await.is_err() {
                    return;
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(queue)))
    }

    async fn host(&self, request: Request<link::HostQuestion>) -> Result<Response<link::Answer>, Status> {
        let host = self.0.host(&request.get_ref().name).await;
        answer(&host).map(Response::new)
    }

    async fn gateways(&self, _: Request<link::GatewaysQuestion>) -> Result<Response<link::Answer>, Status> {
        answer(&self.0.gateways().await).map(Response::new)
    }

    async fn port(&self, request: Request<link::PortQuestion>) -> Result<Response<link::Answer>, Status> {
        let id = decode_id("port id", &request.get_ref().id)
            .map_err(|error| Status::invalid_argument(error.to_string()))?;
        answer(&self.0.port(id).await).map(Response::new)
    }

    async fn trace(&self, request: Request<link::PacketQuestion>) -> Result<Response<link::Answer>, Status> {
        let question = serde_json::from_slice(&request.get_ref().json)
            .map_err(|error| Status::invalid_argument(error.to_string()))?;
        answer(&self.0.trace(question).await).map(Response::new)
    }
}

/// There is no answer of the NCM.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum NoAnswer {
    /// It is away, or busy for too long.
    #[error("the NCM does not answer: {0}")]
    Away(String),
    /// It refuses the question, or answers what cannot be read: it is of another version, or one of the two is wrong.
    #[error("the NCM is there and does not answer: {0}")]
    Refused(String),
}

impl From<Status> for NoAnswer {
    fn from(status: Status) -> Self {
        let reason = status.message().to_owned();
        match status.code() {
            Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled => Self::Away(reason),
            _ => Self::Refused(reason),
        }
    }
}

/// An NCM in another process.
#[derive(Clone, Debug)]
pub struct RemoteNcm(DirectoryClient<Channel>);

impl RemoteNcm {
    /// Asks over this connection.
    pub fn new(channel: Channel) -> Self {
        Self(DirectoryClient::new(channel).max_decoding_message_size(CALL_BYTES_MAX))
    }

    /// One line a host.
    ///
    /// # Errors
    /// When there is no answer in time.
    pub async fn hosts(&self) -> Result<Vec<HostSummary>, NoAnswer> {
        let mut client = self.0.clone();
        in_time(async move {
            let mut parts = client.hosts(link::HostsQuestion {}).await?.into_inner();
            let mut hosts = Vec::new();
            while let Some(part) = parts.message().await? {
                hosts.append(&mut read::<Vec<HostSummary>>(&part)?);
            }
            Ok(hosts)
        })
        .await
    }

    /// Everything known of a host.
    ///
    /// # Errors
    /// When there is no answer in time.
    pub async fn host(&self, name: &str) -> Result<Option<HostState>, NoAnswer> {
        let (mut client, name) = (self.0.clone(), name.to_owned());
        in_time(async move { read(client.host(link::HostQuestion { name }).await?.get_ref()) }).await
    }

    /// One line a gateway.
    ///
    /// # Errors
    /// When there is no answer in time.
    pub async fn gateways(&self) -> Result<Vec<GatewayLine>, NoAnswer> {
        let mut client = self.0.clone();
        in_time(async move { read(client.gateways(link::GatewaysQuestion {}).await?.get_ref()) }).await
    }

    /// How a port's last change travelled.
    ///
    /// # Errors
    /// When there is no answer in time.
    pub async fn port(&self, id: Id<Port>) -> Result<Option<PortState>, NoAnswer> {
        let (mut client, id) = (self.0.clone(), encode_id(id));
        in_time(async move { read(client.port(link::PortQuestion { id }).await?.get_ref()) }).await
    }

    /// What would become of a packet.
    ///
    /// # Errors
    /// When there is no answer in time; inside, what the NCM says.
    pub async fn trace(&self, question: TraceQuestion) -> Result<Result<Trace, TraceError>, NoAnswer> {
        let mut client = self.0.clone();
        let json = serde_json::to_vec(&question).map_err(|error| NoAnswer::Refused(error.to_string()))?;
        let question = link::PacketQuestion { json: json.into() };
        in_time(async move { read(client.trace(question).await?.get_ref()) }).await
    }
}

fn read<T: serde::de::DeserializeOwned>(answer: &link::Answer) -> Result<T, Status> {
    serde_json::from_slice(&answer.json).map_err(|error| Status::internal(error.to_string()))
}

async fn in_time<T>(call: impl Future<Output = Result<T, Status>>) -> Result<T, NoAnswer> {
    match tokio::time::timeout(ANSWER_TIMEOUT, call).await {
        Ok(answer) => answer.map_err(NoAnswer::from),
        Err(_) => Err(NoAnswer::Away(format!("nothing came within {ANSWER_TIMEOUT:?}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_an_ncm_that_is_not_there_is_away() {
        let gone = in_time(async { Err::<(), _>(Status::unavailable("no route")) }).await;
        assert_eq!(gone, Err(NoAnswer::Away("no route".to_owned())));
        let refused = in_time(async { Err::<(), _>(Status::invalid_argument("which port?")) }).await;
        assert_eq!(refused, Err(NoAnswer::Refused("which port?".to_owned())));
        let other = link::Answer {
            json: "{\"of\": \"another version\"}".into(),
        };
        let read = in_time(async move { read::<Vec<HostSummary>>(&other) }).await;
        assert!(matches!(read, Err(NoAnswer::Refused(_))), "{read:?}");
    }
}
