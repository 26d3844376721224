//! The NCM's end: follows a controller's feed for as long as the process lives, and calls back.
//!
//! While the controller is away the NCM goes on with what it has: sessions are served, and what must be told waits in the
//! NCM's outbox, which has the newest word about each port and host and so is bounded by them.

use std::{net::IpAddr, time::Duration};

use alcor_model::{
    HostRuntime, Id, Label, Revision,
    resource::{FloatingIpWord, HostWord},
};
use alcor_ncm::{
    NcmHandle, RegionLink,
    core::PortReport,
    service::{BoxFuture, NotTaken},
};
use alcor_proto::link::{self, feed_client::FeedClient};
use alcor_tls::{DialError, Role, Tls};
use thiserror::Error;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tonic::{
    Code,
    transport::{Channel, Endpoint},
};

use crate::{
    CALL_BYTES_MAX, FEED_MESSAGE_BYTES_MAX, PART_BYTES,
    convert::{
        encode_floating_ip_word, encode_gateway, encode_note, encode_registration, encode_release,
        encode_report,
    },
    intake::{Intake, IntakeError, Taken},
};

/// How long opening a connection may take.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a call back may take.
pub const CALL_TIMEOUT: Duration = Duration::from_secs(10);
/// How often HTTP/2 asks whether the other side is still there, and how long it waits for the answer.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(10);
/// Bytes of the feed that may be on their way.
const WINDOW_BYTES: u32 = 1024 * 1024;
/// The first and the longest time until the feed is asked for again.
const AGAIN: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));
/// Words in one call.
const WORDS_MAX: usize = 10_000;

/// The address is none.
#[derive(Debug, Error)]
pub enum BadEndpoint {
    /// It is no URL.
    #[error("'{0}' is no URL; expected for example http://127.0.0.1:9695")]
    NoUrl(String),
    /// It has the scheme of a connection without certificates where there are some, or the other way round.
    #[error(transparent)]
    Dial(#[from] DialError),
}

/// A connection that is opened when it is needed, and again when it broke; with TLS when there are certificates, and then only
/// to a server that has this role.
///
/// # Errors
/// When the URL is none, or not one for this.
pub fn channel(url: &str, tls: Option<&Tls>, server: &'static [Role]) -> Result<Channel, BadEndpoint> {
    let bad = |_| BadEndpoint::NoUrl(url.to_owned());
    let endpoint = Endpoint::from_shared(url.to_owned())
        .map_err(bad)?
        .tcp_nodelay(true)
        .connect_timeout(CONNECT_TIMEOUT)
        .http2_keep_alive_interval(KEEP_ALIVE_INTERVAL)
        .keep_alive_timeout(KEEP_ALIVE_INTERVAL)
        .keep_alive_while_idle(true)
        .initial_stream_window_size(WINDOW_BYTES);
    Ok(alcor_tls::connect_lazy(&endpoint, tls, server)?)
}

/// Why a feed ended; the NCM asks for it again.
#[derive(Debug, Error)]
enum Ended {
    #[error("the controller cannot be reached, or ended the feed: {}", .0.message())]
    Status(Box<tonic::Status>),
    #[error("the controller ended the feed")]
    Closed,
    #[error(transparent)]
    Intake(#[from] IntakeError),
}

/// Carries a controller's feed into an NCM until told to stop. `loaded` becomes true with the first snapshot: before that the
/// NCM knows nothing, and must not tell hosts that they need nothing.
pub async fn follow(channel: Channel, ncm: NcmHandle, loaded: watch::Sender<bool>, stop: CancellationToken) {
    let mut intake = Intake::default();
    let mut wait = AGAIN.0;
    let mut told = false;
    loop {
        let mut progress = false;
        let ended = tokio::select! {
            ended = session(&channel, &mut intake, &ncm, &loaded, &mut progress) => ended,
            () = stop.cancelled() => return,
        };
        // One that has sent nonsense after a snapshot would do so again: it is not asked for the next one at once.
        if progress && !matches!(ended, Ended::Intake(_)) {
            (wait, told) = (AGAIN.0, false);
        }
        if matches!(ended, Ended::Intake(_)) {
            tracing::error!(%ended, "the feed is not what it must be; asking for a snapshot");
            intake.start_over();
        } else if told {
            tracing::debug!(%ended, ?wait, "no feed yet");
        } else {
            tracing::warn!(%ended, "no feed; this NCM goes on with what it has and asks again");
            told = true;
        }
        if stop.run_until_cancelled(tokio::time::sleep(wait)).await.is_none() {
            return;
        }
        wait = (wait * 2).min(AGAIN.1);
    }
}

/// One stream, until it ends.
async fn session(
    channel: &Channel,
    intake: &mut Intake,
    ncm: &NcmHandle,
    loaded: &watch::Sender<bool>,
    progress: &mut bool,
) -> Ended {
    let status = |status| Ended::Status(Box::new(status));
    let mut client = FeedClient::new(channel.clone()).max_decoding_message_size(FEED_MESSAGE_BYTES_MAX);
    let mut stream = match client.subscribe(intake.subscription()).await {
        Ok(reply) => reply.into_inner(),
        Err(error) => return status(error),
    };
    loop {
        let message = match stream.message().await {
            Ok(Some(message)) => message,
            Ok(None) => return Ended::Closed,
            Err(error) => return status(error),
        };
        let taken = match intake.step(message) {
            Ok(taken) => taken,
            Err(error) => return error.into(),
        };
        *progress |= taken != Taken::Nothing;
        match taken {
            Taken::Nothing => {}
            Taken::Resumed => tracing::info!("the feed goes on from where it was"),
            Taken::Snapshot { revision, rows } => {
                tracing::info!(%revision, rows = rows.len(), "a snapshot of the region");
                ncm.snapshot(revision, rows).await;
                loaded.send_replace(true);
            }
            Taken::Changes {
                changes,
                revision,
                committed_us,
            } => apply(ncm, changes, revision, committed_us).await,
        }
    }
}

async fn apply(ncm: &NcmHandle, changes: Vec<alcor_model::Change>, revision: Revision, committed_us: u64) {
    if !changes.is_empty() {
        ncm.changes(changes, committed_us).await;
    }
    ncm.reached(revision).await;
}

/// The NCM's way back to the region.
#[derive(Clone, Debug)]
pub struct Controller(FeedClient<Channel>);

impl Controller {
    /// Calls over this connection.
    pub fn new(channel: Channel) -> Self {
        Self(FeedClient::new(channel).max_encoding_message_size(CALL_BYTES_MAX))
    }
}

/// Waits for a call's answer, not longer than [`CALL_TIMEOUT`].
async fn answered<T>(
    call: impl Future<Output = Result<tonic::Response<T>, tonic::Status>>,
) -> Result<(), NotTaken> {
    match tokio::time::timeout(CALL_TIMEOUT, call).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(status)) if status.code() == Code::InvalidArgument => {
            Err(NotTaken::Never(status.message().to_owned()))
        }
        Ok(Err(status)) => Err(NotTaken::Later(format!(
            "{} ({:?})",
            status.message(),
            status.code()
        ))),
        Err(_) => Err(NotTaken::Later(format!(
            "the controller did not answer within {CALL_TIMEOUT:?}"
        ))),
    }
}

impl RegionLink for Controller {
    fn register_host(&self, name: String, word: HostWord) -> BoxFuture<'_, Result<(), NotTaken>> {
        let mut client = self.0.clone();
        let registration = encode_registration(name, word);
        Box::pin(async move { answered(client.register_host(registration)).await })
    }

    fn register_gateway(
        &self,
        name: String,
        set: String,
        tunnel_ip: IpAddr,
    ) -> BoxFuture<'_, Result<(), NotTaken>> {
        let mut client = self.0.clone();
        let registration = encode_gateway(name, set, tunnel_ip);
        Box::pin(async move { answered(client.register_gateway(registration)).await })
    }

    fn report_ports(&self, reports: Vec<PortReport>) -> BoxFuture<'_, Result<(), NotTaken>> {
        let mut client = self.0.clone();
        Box::pin(async move {
            for reports in reports.chunks(WORDS_MAX) {
                let words = reports.iter().cloned().map(encode_report).collect();
                answered(client.report_ports(link::PortReports { words })).await?;
            }
            Ok(())
        })
    }

    fn note_hosts(&self, hosts: Vec<HostRuntime>) -> BoxFuture<'_, Result<(), NotTaken>> {
        let mut client = self.0.clone();
        Box::pin(async move {
            let (mut bytes, mut rows) = (0, Vec::new());
            for host in &hosts {
                let row = encode_note(host).map_err(|error| NotTaken::Never(error.to_string()))?;
                bytes += row.len();
                rows.push(row);
                if bytes >= PART_BYTES {
                    bytes = 0;
                    let rows = std::mem::take(&mut rows);
                    answered(client.note_hosts(link::HostNotes { rows })).await?;
                }
            }
            match rows.is_empty() {
                true => Ok(()),
                false => answered(client.note_hosts(link::HostNotes { rows })).await,
            }
        })
    }

    fn release_labels(&self, labels: Vec<(Id<Label>, Revision)>) -> BoxFuture<'_, Result<(), NotTaken>> {
        let mut client = self.0.clone();
        Box::pin(async move {
            for labels in labels.chunks(WORDS_MAX) {
                let labels = labels.iter().copied().map(encode_release).collect();
                answered(client.release_labels(link::LabelReleases { labels })).await?;
            }
            Ok(())
        })
    }

    fn note_floating_ips(&self, words: Vec<FloatingIpWord>) -> BoxFuture<'_, Result<(), NotTaken>> {
        let mut client = self.0.clone();
        Box::pin(async move {
            for words in words.chunks(WORDS_MAX) {
                let words = words.iter().map(encode_floating_ip_word).collect();
                answered(client.note_floating_ips(link::FloatingIpWords { words })).await?;
            }
            Ok(())
        })
    }
}
