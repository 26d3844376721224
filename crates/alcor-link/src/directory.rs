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
use tonic::{Request, Response, Status, service::interceptor::InterceptedService, transport::Channel};

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

/// The NCM has not answered.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("the NCM does not answer: {0}")]
pub struct Away(String);

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
    pub async fn hosts(&self) -> Result<Vec<HostSummary>, Away> {
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
    pub async fn host(&self, name: &str) -> Result<Option<HostState>, Away> {
        let (mut client, name) = (self.0.clone(), name.to_owned());
        in_time(async move { read(client.host(link::HostQuestion { name }).await?.get_ref()) }).await
    }

    /// One line a gateway.
    ///
    /// # Errors
    /// When there is no answer in time.
    pub async fn gateways(&self) -> Result<Vec<GatewayLine>, Away> {
        let mut client = self.0.clone();
        in_time(async move { read(client.gateways(link::GatewaysQuestion {}).await?.get_ref()) }).await
    }

    /// How a port's last change travelled.
    ///
    /// # Errors
    /// When there is no answer in time.
    pub async fn port(&self, id: Id<Port>) -> Result<Option<PortState>, Away> {
        let (mut client, id) = (self.0.clone(), encode_id(id));
        in_time(async move { read(client.port(link::PortQuestion { id }).await?.get_ref()) }).await
    }

    /// What would become of a packet.
    ///
    /// # Errors
    /// When there is no answer in time; inside, what the NCM says.
    pub async fn trace(&self, question: TraceQuestion) -> Result<Result<Trace, TraceError>, Away> {
        let mut client = self.0.clone();
        let json = serde_json::to_vec(&question).map_err(|error| Away(error.to_string()))?;
        let question = link::PacketQuestion { json: json.into() };
        in_time(async move { read(client.trace(question).await?.get_ref()) }).await
    }
}

fn read<T: serde::de::DeserializeOwned>(answer: &link::Answer) -> Result<T, Status> {
    serde_json::from_slice(&answer.json).map_err(|error| Status::internal(error.to_string()))
}

async fn in_time<T>(call: impl Future<Output = Result<T, Status>>) -> Result<T, Away> {
    match tokio::time::timeout(ANSWER_TIMEOUT, call).await {
        Ok(answer) => answer.map_err(|status| Away(status.message().to_owned())),
        Err(_) => Err(Away(format!("nothing came within {ANSWER_TIMEOUT:?}"))),
    }
}
