//! The controller's end: the feed for NCMs, and their calls back.
//!
//! A stream has [`PARTS_WAITING_MAX`] parts in its queue, HTTP/2's window beyond that, and nothing else: an NCM that reads
//! slowly is behind in the region's own feed, which is shared, and gets a snapshot when that no longer reaches back to it.
//! One that reads nothing for [`Options::stall`] is cut, so that it holds no old snapshot either.

use std::{sync::Arc, time::Duration};

use alcor_metrics::{LINK_FEEDS, LINK_LAGGED, LINK_ROWS, LINK_SUBSCRIPTIONS};
use alcor_model::Revision;
use alcor_ncm::{RegionLink, service::NotTaken};
use alcor_proto::link::{
    self, FeedMessage,
    feed_message::Body,
    feed_server::{Feed, FeedServer},
};
use alcor_store::{FEED_BATCH, FeedBatch, Lagged};
use alcor_tls::{Incoming, Peer, Role};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, service::interceptor::InterceptedService};

use crate::{
    CALL_BYTES_MAX, PART_BYTES,
    convert::{
        ConvertError, decode_floating_ip_word, decode_gateway, decode_note, decode_registration,
        decode_release, decode_report, encode_change, encode_row, size_of,
    },
    meanwhile::Meanwhile,
    source::{Changes, Source},
};

/// Parts of one feed that may wait for the channel.
pub const PARTS_WAITING_MAX: usize = 4;
/// NCMs that may follow at once.
pub const FEEDS_MAX: usize = 64;
/// With so many changed rows left or fewer a snapshot is at its end: what is committed while they are sent is in the feed.
const LAST_ROWS_MAX: usize = FEED_BATCH;
/// Streams and calls that one connection may carry.
const STREAMS_PER_CONNECTION_MAX: u32 = 128;
/// How often HTTP/2 asks whether the other side is still there.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(10);

/// Bounds.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// How long a part may wait for an NCM that reads nothing.
    pub stall: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            stall: Duration::from_secs(60),
        }
    }
}

struct Service {
    source: Arc<dyn Source>,
    region: Arc<dyn RegionLink>,
    options: Options,
    feeds: Arc<Semaphore>,
    stop: CancellationToken,
}

/// Serves NCMs until told to stop: the feed of `source`, and their calls to `region`.
///
/// # Errors
/// When the listener fails.
pub async fn serve(
    incoming: Incoming,
    source: Arc<dyn Source>,
    region: Arc<dyn RegionLink>,
    options: Options,
    stop: CancellationToken,
) -> Result<(), tonic::transport::Error> {
    let service = Service {
        source,
        region,
        options,
        feeds: Arc::new(Semaphore::new(FEEDS_MAX)),
        stop: stop.clone(),
    };
    let service = FeedServer::new(service).max_decoding_message_size(CALL_BYTES_MAX);
    let service = InterceptedService::new(service, |request| only(&[Role::Ncm], request));
    tonic::transport::Server::builder()
        .tcp_nodelay(true)
        .max_concurrent_streams(STREAMS_PER_CONNECTION_MAX)
        .http2_keepalive_interval(Some(KEEP_ALIVE_INTERVAL))
        .add_service(service)
        .serve_with_incoming_shutdown(incoming.connections(), stop.cancelled_owned())
        .await
}

/// Lets requests pass that come from one of these.
pub(crate) fn only(roles: &[Role], request: Request<()>) -> Result<Request<()>, Status> {
    Peer::of(request.extensions())?.must_have_role(roles)?;
    Ok(request)
}

type Part = Result<FeedMessage, Status>;

#[tonic::async_trait]
impl Feed for Service {
    type SubscribeStream = ReceiverStream<Part>;

    async fn subscribe(
        &self,
        request: Request<link::Subscription>,
    ) -> Result<Response<Self::SubscribeStream>, Status> {
        let from = Peer::of(request.extensions())?.to_string();
        let busy = |_| Status::resource_exhausted(format!("{FEEDS_MAX} NCMs follow this controller already"));
        let permit = Arc::clone(&self.feeds).try_acquire_owned().map_err(busy)?;
        let subscription = request.into_inner();
        let (parts, queue) = mpsc::channel(PARTS_WAITING_MAX);
        let stream = Stream {
            source: Arc::clone(&self.source),
            parts,
            options: self.options,
            at: Revision(subscription.from_revision),
            amends: subscription.amends,
            permit,
        };
        // A server that stops waits for its streams: they end by themselves.
        let stop = self.stop.clone();
        tokio::spawn(async move {
            let feeds = Arc::clone(stream.permit.semaphore());
            LINK_FEEDS.set([], (FEEDS_MAX - feeds.available_permits()) as u64);
            tracing::info!(from, at = %stream.at, "an NCM follows");
            let reason = stream.run(subscription.region, stop).await;
            LINK_FEEDS.set([], (FEEDS_MAX - feeds.available_permits()) as u64);
            tracing::info!(from, %reason, "an NCM follows no longer");
        });
        Ok(Response::new(ReceiverStream::new(queue)))
    }

    async fn register_host(
        &self,
        request: Request<link::HostRegistration>,
    ) -> Result<Response<link::Taken>, Status> {
        let (name, word) = decode_registration(request.into_inner()).map_err(invalid)?;
        taken(self.region.register_host(name, word).await)
    }

    async fn register_gateway(
        &self,
        request: Request<link::GatewayRegistration>,
    ) -> Result<Response<link::Taken>, Status> {
        let (name, set, tunnel_ip) = decode_gateway(request.into_inner()).map_err(invalid)?;
        taken(self.region.register_gateway(name, set, tunnel_ip).await)
    }

    async fn report_ports(
        &self,
        request: Request<link::PortReports>,
    ) -> Result<Response<link::Taken>, Status> {
        let words = request.into_inner().words.into_iter();
        let reports: Result<Vec<_>, _> = words.map(decode_report).collect();
        taken(self.region.report_ports(reports.map_err(invalid)?).await)
    }

    async fn note_hosts(&self, request: Request<link::HostNotes>) -> Result<Response<link::Taken>, Status> {
        let rows = request.into_inner().rows;
        let notes: Result<Vec<_>, _> = rows.iter().map(|row| decode_note(row)).collect();
        taken(self.region.note_hosts(notes.map_err(invalid)?).await)
    }

    async fn release_labels(
        &self,
        request: Request<link::LabelReleases>,
    ) -> Result<Response<link::Taken>, Status> {
        let labels = request.into_inner().labels;
        let labels: Result<Vec<_>, _> = labels.iter().map(decode_release).collect();
        taken(self.region.release_labels(labels.map_err(invalid)?).await)
    }

    async fn note_floating_ips(
        &self,
        request: Request<link::FloatingIpWords>,
    ) -> Result<Response<link::Taken>, Status> {
        let words = request.into_inner().words;
        let words: Result<Vec<_>, _> = words.iter().map(decode_floating_ip_word).collect();
        taken(self.region.note_floating_ips(words.map_err(invalid)?).await)
    }
}

#[expect(clippy::needless_pass_by_value, reason = "as map_err wants it")]
fn invalid(error: ConvertError) -> Status {
    Status::invalid_argument(error.to_string())
}

fn taken(outcome: Result<(), NotTaken>) -> Result<Response<link::Taken>, Status> {
    outcome
        .map(|()| Response::new(link::Taken {}))
        .map_err(|error| match error {
            NotTaken::Never(reason) => Status::invalid_argument(reason),
            NotTaken::Later(reason) => Status::unavailable(reason),
        })
}

/// One NCM's feed.
struct Stream {
    source: Arc<dyn Source>,
    parts: mpsc::Sender<Part>,
    options: Options,
    at: Revision,
    /// The NCM takes changes in a snapshot.
    amends: bool,
    /// One of [`FEEDS_MAX`], given back when the feed ends.
    permit: OwnedSemaphorePermit,
}

/// Why a feed ended.
#[derive(Debug, thiserror::Error)]
enum Ended {
    #[error("it went away")]
    Gone,
    #[error("it read nothing for {0:?}")]
    Stalled(Duration),
    #[error("the region is closed")]
    Closed,
    #[error("this controller stops")]
    Stopping,
    #[error(transparent)]
    Convert(#[from] ConvertError),
    /// A snapshot is of no use: it is made again.
    #[error(transparent)]
    Lagged(#[from] Lagged),
}

impl Stream {
    async fn run(mut self, region: u64, stop: CancellationToken) -> Ended {
        let ended = match stop.run_until_cancelled(self.follow(region)).await {
            Some(Ok(never)) => match never {},
            Some(Err(ended)) => ended,
            None => Ended::Stopping,
        };
        // A full queue loses the reason only: dropping the sender ends the stream.
        let _ = self.parts.try_send(Err(Status::unavailable(ended.to_string())));
        ended
    }

    async fn follow(&mut self, region: u64) -> Result<std::convert::Infallible, Ended> {
        let newest = self.source.snapshot().revision();
        let comparable = region == self.source.region() && (Revision(1)..=newest).contains(&self.at);
        let mut changes = self.source.changes(if comparable { self.at } else { newest });
        // Said when the region's feed has shown that it reaches back.
        let mut resuming = comparable;
        if !comparable {
            LINK_SUBSCRIPTIONS.add(["snapshot"], 1);
            self.snapshots(changes.as_mut()).await?;
        }
        loop {
            let next = tokio::select! {
                biased;
                next = changes.next() => Some(next.ok_or(Ended::Closed)?),
                () = std::future::ready(()), if resuming => None,
                () = self.parts.closed() => return Err(Ended::Gone),
            };
            if std::mem::take(&mut resuming) {
                match next {
                    Some(Err(_)) => LINK_SUBSCRIPTIONS.add(["snapshot"], 1),
                    _ => self.resumed().await?,
                }
            } else if let Some(Err(_)) = next {
                LINK_LAGGED.add([], 1);
            }
            match next {
                Some(Ok(batch)) => self.batch(&mut None, batch).await?,
                Some(Err(lagged)) => {
                    tracing::warn!(%lagged, "an NCM takes a snapshot of the region");
                    self.snapshots(changes.as_mut()).await?;
                }
                None => {}
            }
        }
    }

    async fn resumed(&self) -> Result<(), Ended> {
        LINK_SUBSCRIPTIONS.add(["resumed"], 1);
        let revision = self.at.0;
        self.send(Body::Resumed(link::Resumed { revision })).await
    }

    /// A snapshot; another one when the feed was lost while it was sent.
    async fn snapshots(&mut self, changes: &mut dyn Changes) -> Result<(), Ended> {
        loop {
            match self.snapshot(changes).await {
                Err(Ended::Lagged(lagged)) => {
                    LINK_LAGGED.add([], 1);
                    tracing::warn!(%lagged, "a snapshot of the region for an NCM is of no use, and begins again");
                }
                ended => return ended,
            }
        }
    }

    async fn snapshot(&mut self, changes: &mut dyn Changes) -> Result<(), Ended> {
        let snapshot = self.source.snapshot();
        let revision = snapshot.revision();
        let region = self.source.region();
        self.at = revision;
        let mut meanwhile = Meanwhile::since(changes, revision);
        let mut collecting = self.amends.then_some(&mut meanwhile);
        self.send_while(
            &mut collecting,
            Body::SnapshotBegin(link::SnapshotBegin {
                region,
                revision: revision.0,
            }),
        )
        .await?;
        let (mut sent, mut bytes, mut rows) = (0, 0, Vec::new());
        for row in snapshot.rows() {
            let row = encode_row(&row)?;
            sent += 1;
            bytes += row.body.len();
            rows.push(row);
            if bytes >= PART_BYTES {
                let rows = std::mem::take(&mut rows);
                bytes = 0;
                self.send_while(&mut collecting, Body::SnapshotRows(link::SnapshotRows { rows }))
                    .await?;
            }
        }
        self.send_while(&mut collecting, Body::SnapshotRows(link::SnapshotRows { rows }))
            .await?;
        if self.amends {
            self.amend(&mut meanwhile).await?;
        }
        self.send(Body::SnapshotEnd(link::SnapshotEnd { rows: sent }))
            .await?;
        LINK_ROWS.add(["snapshot"], sent);
        changes.restart_from(self.at);
        Ok(())
    }

    /// What has changed while a snapshot was sent, and while that was sent, until little is left.
    async fn amend(&mut self, meanwhile: &mut Meanwhile<'_>) -> Result<(), Ended> {
        while meanwhile.rows() > LAST_ROWS_MAX {
            let batch = meanwhile.take()?;
            self.batch(&mut Some(&mut *meanwhile), batch).await?;
        }
        let batch = meanwhile.take()?;
        if batch.revision > self.at {
            self.batch(&mut None, batch).await?;
        }
        Ok(())
    }

    /// Sends changes, and collects what is committed meanwhile if that is wanted.
    async fn batch(
        &mut self,
        collecting: &mut Option<&mut Meanwhile<'_>>,
        batch: FeedBatch,
    ) -> Result<(), Ended> {
        let mut part = link::Changes {
            after: self.at.0,
            revision: batch.revision.0,
            committed_us: batch.committed_us,
            changes: Vec::new(),
            more: true,
        };
        let mut bytes = 0;
        let mut sent = 0;
        for change in &batch.changes {
            let Some(change) = encode_change(change)? else {
                continue;
            };
            bytes += size_of(&change);
            sent += 1;
            part.changes.push(change);
            if bytes >= PART_BYTES {
                let full = link::Changes {
                    changes: std::mem::take(&mut part.changes),
                    ..part.clone()
                };
                bytes = 0;
                self.send_while(collecting, Body::Changes(full)).await?;
            }
        }
        part.more = false;
        self.send_while(collecting, Body::Changes(part)).await?;
        LINK_ROWS.add(["change"], sent);
        self.at = batch.revision;
        Ok(())
    }

    async fn send_while(&self, collecting: &mut Option<&mut Meanwhile<'_>>, body: Body) -> Result<(), Ended> {
        let Some(meanwhile) = collecting else {
            return self.send(body).await;
        };
        let sent = self.send(body);
        tokio::select! {
            biased;
            () = meanwhile.collect() => Err(Ended::Closed),
            sent = sent => sent,
        }
    }

    async fn send(&self, body: Body) -> Result<(), Ended> {
        let message = FeedMessage { body: Some(body) };
        match tokio::time::timeout(self.options.stall, self.parts.send(Ok(message))).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(Ended::Gone),
            Err(_) => Err(Ended::Stalled(self.options.stall)),
        }
    }
}
