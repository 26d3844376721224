//! Both ends of the link over real sockets, with a region that does whatever a test needs.
#![allow(clippy::unwrap_used, reason = "a panic is how a test says no")]

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use alcor_link::{
    follow::{Controller, channel, follow},
    serve::{Options, serve},
    source::{Changes, Rows, Source},
};
use alcor_model::{
    Change, Host, HostRuntime, Id, Label, Port, Resource, Revision,
    resource::{FloatingIpWord, HostWord, PortStatus},
};
use alcor_ncm::{
    NcmHandle, RegionLink,
    core::PortReport,
    service::{BoxFuture, NotTaken},
};
use alcor_proto::link::{self, feed_client::FeedClient, feed_server::Feed, feed_server::FeedServer};
use alcor_store::{FeedBatch, Lagged};
use alcor_tls::Incoming;
use tokio::{
    net::TcpListener,
    sync::{Notify, mpsc, watch},
};
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

const REGION: u64 = 7;
/// How long a test waits for what must come.
const PATIENCE: Duration = Duration::from_secs(60);

fn host(number: u64, description: String) -> Resource {
    Resource::Host(Arc::new(Host {
        name: format!("h{number}"),
        revision: Revision(number),
        tunnel_ip: IpAddr::V4(Ipv4Addr::LOCALHOST),
        created_at: "2026-01-01T00:00:00Z".parse().unwrap(),
        admin_state_up: true,
        description,
        availability_zone: "nova".into(),
        external_networks: BTreeSet::new(),
    }))
}

/// A region whose commits each register one host.
#[derive(Clone)]
struct Fake(Arc<Inner>);

struct Inner {
    newest: watch::Sender<u64>,
    /// The feed reaches back to this commit.
    oldest: AtomicU64,
    /// The feed keeps so many commits.
    ring: AtomicU64,
    /// While a row of a snapshot is read so many commits are made.
    busy: AtomicU64,
    /// How long each host's description is.
    bytes: usize,
    snapshots: AtomicUsize,
    batches: AtomicUsize,
    dropped: Notify,
    reported: Mutex<Vec<String>>,
    /// Calls are refused.
    refuses: Mutex<bool>,
}

impl Fake {
    fn new(newest: u64, bytes: usize) -> Self {
        Self(Arc::new(Inner {
            newest: watch::Sender::new(newest),
            oldest: AtomicU64::new(0),
            ring: AtomicU64::new(u64::MAX),
            busy: AtomicU64::new(0),
            bytes,
            snapshots: AtomicUsize::new(0),
            batches: AtomicUsize::new(0),
            dropped: Notify::new(),
            reported: Mutex::default(),
            refuses: Mutex::default(),
        }))
    }

    fn commit(&self) {
        self.0.newest.send_modify(|newest| *newest += 1);
    }

    fn snapshots(&self) -> usize {
        self.0.snapshots.load(Ordering::SeqCst)
    }

    fn note(&self, what: String) -> BoxFuture<'_, Result<(), NotTaken>> {
        let refused = *self.0.refuses.lock().unwrap();
        if !refused {
            self.0.reported.lock().unwrap().push(what);
        }
        Box::pin(async move {
            match refused {
                true => Err(NotTaken::Later("not now".to_owned())),
                false => Ok(()),
            }
        })
    }
}

impl Source for Fake {
    fn region(&self) -> u64 {
        REGION
    }
    fn snapshot(&self) -> Box<dyn Rows> {
        Box::new(FakeRows(self.clone(), *self.0.newest.borrow()))
    }
    fn changes(&self, from: Revision) -> Box<dyn Changes> {
        Box::new(FakeChanges {
            fake: self.clone(),
            newest: self.0.newest.subscribe(),
            from: from.0,
        })
    }
}

struct FakeRows(Fake, u64);

impl Rows for FakeRows {
    fn revision(&self) -> Revision {
        Revision(self.1)
    }
    fn rows(&self) -> Box<dyn Iterator<Item = Resource> + Send + '_> {
        self.0.0.snapshots.fetch_add(1, Ordering::SeqCst);
        Box::new((1..=self.1).map(|number| {
            (0..self.0.0.busy.load(Ordering::SeqCst)).for_each(|_| self.0.commit());
            host(number, "x".repeat(self.0.0.bytes))
        }))
    }
}

struct FakeChanges {
    fake: Fake,
    newest: watch::Receiver<u64>,
    from: u64,
}

impl Changes for FakeChanges {
    fn next(&mut self) -> BoxFuture<'_, Option<Result<FeedBatch, Lagged>>> {
        Box::pin(async move {
            let from = self.from;
            self.newest.wait_for(|newest| *newest > from).await.ok()?;
            let kept = self.fake.0.ring.load(Ordering::SeqCst);
            let oldest = self.fake.0.oldest.load(Ordering::SeqCst);
            let oldest = oldest.max(self.newest.borrow().saturating_sub(kept));
            if from < oldest {
                let (from, oldest) = (Revision(from), Revision(oldest));
                return Some(Err(Lagged { from, oldest }));
            }
            self.from += 1;
            self.fake.0.batches.fetch_add(1, Ordering::SeqCst);
            let row = host(self.from, "x".repeat(self.fake.0.bytes));
            Some(Ok(FeedBatch {
                changes: vec![Change::Put(row)],
                revision: Revision(self.from),
                committed_us: 1,
            }))
        })
    }
    fn restart_from(&mut self, revision: Revision) {
        self.from = revision.0;
    }
}

impl Drop for FakeChanges {
    fn drop(&mut self) {
        self.fake.0.dropped.notify_one();
    }
}

impl RegionLink for Fake {
    fn register_host(&self, name: String, word: HostWord) -> BoxFuture<'_, Result<(), NotTaken>> {
        self.note(format!("{name} {word:?}"))
    }
    fn register_gateway(&self, name: String, set: String, ip: IpAddr) -> BoxFuture<'_, Result<(), NotTaken>> {
        self.note(format!("{name} {set} {ip}"))
    }
    fn report_ports(&self, reports: Vec<PortReport>) -> BoxFuture<'_, Result<(), NotTaken>> {
        self.note(format!("{reports:?}"))
    }
    fn note_hosts(&self, hosts: Vec<HostRuntime>) -> BoxFuture<'_, Result<(), NotTaken>> {
        self.note(format!("{hosts:?}"))
    }
    fn release_labels(&self, labels: Vec<(Id<Label>, Revision)>) -> BoxFuture<'_, Result<(), NotTaken>> {
        self.note(format!("{labels:?}"))
    }
    fn note_floating_ips(&self, words: Vec<FloatingIpWord>) -> BoxFuture<'_, Result<(), NotTaken>> {
        self.note(format!("{words:?}"))
    }
}

/// A controller with this region, until the token says stop. Gives its URL.
async fn controller(fake: &Fake, at: &str, options: Options, stop: &CancellationToken) -> String {
    let listener = TcpListener::bind(at).await.unwrap();
    let address = listener.local_addr().unwrap();
    let (source, back, stop) = (Arc::new(fake.clone()), Arc::new(fake.clone()), stop.clone());
    let incoming = Incoming::new(listener, None);
    tokio::spawn(serve(incoming, source, back, options, stop));
    format!("http://{address}")
}

/// An NCM that follows a controller.
fn ncm(url: &str, fake: &Fake, stop: &CancellationToken) -> (NcmHandle, watch::Receiver<bool>) {
    let ncm = NcmHandle::start(alcor_ncm::Options::default(), Arc::new(fake.clone()));
    let (loaded, ready) = watch::channel(false);
    tokio::spawn(follow(
        channel(url, None, &[]).unwrap(),
        ncm.clone(),
        loaded,
        stop.clone(),
    ));
    (ncm, ready)
}

/// Waits until an NCM has so many hosts: what it has taken of the feed is not to be seen from outside otherwise.
async fn until_hosts(ncm: &NcmHandle, wanted: usize) {
    let there = async {
        while ncm.hosts().await.len() != wanted {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, there).await.unwrap();
}

#[tokio::test]
async fn an_ncm_gets_a_snapshot_then_changes_and_goes_on_after_a_break() {
    let (fake, stop) = (Fake::new(3, 10), CancellationToken::new());
    let first = CancellationToken::new();
    let url = controller(&fake, "127.0.0.1:0", Options::default(), &first).await;
    let (ncm, mut ready) = ncm(&url, &fake, &stop);
    ready.wait_for(|ready| *ready).await.unwrap();
    until_hosts(&ncm, 3).await;
    fake.commit();
    until_hosts(&ncm, 4).await;
    assert_eq!(fake.snapshots(), 1);

    // The controller is away while the region goes on: nothing is lost, and nothing is read twice.
    let batches = fake.0.batches.load(Ordering::SeqCst);
    first.cancel();
    fake.0.dropped.notified().await;
    fake.commit();
    fake.commit();
    let at = url.strip_prefix("http://").unwrap();
    controller(&fake, at, Options::default(), &stop).await;
    until_hosts(&ncm, 6).await;
    assert_eq!(fake.snapshots(), 1, "resumed");
    assert_eq!(fake.0.batches.load(Ordering::SeqCst), batches + 2);
    stop.cancel();
}

#[tokio::test]
async fn an_ncm_that_the_feed_does_not_reach_back_to_gets_a_snapshot() {
    let (fake, stop) = (Fake::new(3, 10), CancellationToken::new());
    let first = CancellationToken::new();
    let url = controller(&fake, "127.0.0.1:0", Options::default(), &first).await;
    let (ncm, _ready) = ncm(&url, &fake, &stop);
    until_hosts(&ncm, 3).await;
    first.cancel();
    fake.0.dropped.notified().await;
    (0..5).for_each(|_| fake.commit());
    fake.0.oldest.store(6, Ordering::SeqCst);
    let at = url.strip_prefix("http://").unwrap();
    controller(&fake, at, Options::default(), &stop).await;
    until_hosts(&ncm, 8).await;
    assert_eq!(fake.snapshots(), 2);
    stop.cancel();
}

/// More is committed while a snapshot is sent than the feed keeps, however often it would be sent.
#[tokio::test]
async fn a_snapshot_ends_though_more_is_committed_meanwhile_than_the_feed_keeps() {
    let (fake, stop) = (Fake::new(40, alcor_link::PART_BYTES), CancellationToken::new());
    fake.0.busy.store(2, Ordering::SeqCst);
    fake.0.ring.store(20, Ordering::SeqCst);
    let url = controller(&fake, "127.0.0.1:0", Options::default(), &stop).await;
    let (ncm, mut ready) = ncm(&url, &fake, &stop);
    ready.wait_for(|ready| *ready).await.unwrap();
    assert_eq!(
        ncm.hosts().await.len(),
        120,
        "it is of the commit at which it ended"
    );
    assert_eq!(fake.snapshots(), 1);
    fake.commit();
    until_hosts(&ncm, 121).await;
    assert_eq!(fake.snapshots(), 1);
    stop.cancel();
}

#[tokio::test]
async fn a_client_that_reads_nothing_costs_a_window_and_is_cut() {
    let bytes = 200_000;
    let (fake, stop) = (Fake::new(1, bytes), CancellationToken::new());
    let options = Options {
        stall: Duration::from_millis(300),
    };
    let url = controller(&fake, "127.0.0.1:0", options, &stop).await;
    let mut client = FeedClient::connect(url).await.unwrap();
    let silent = client.subscribe(link::Subscription::default()).await.unwrap();
    (0..10_000).for_each(|_| fake.commit());
    fake.0.dropped.notified().await;
    let taken = fake.0.batches.load(Ordering::SeqCst);
    // What is in the queue, in the window of HTTP/2 and in the sockets: a few megabytes at most, of two gigabytes.
    assert!(taken * bytes <= 16 << 20, "{taken} batches for nobody");
    drop(silent);
    stop.cancel();
}

/// A controller whose feed has a hole the first time.
struct Holed(mpsc::UnboundedSender<link::Subscription>);

#[tonic::async_trait]
impl Feed for Holed {
    type SubscribeStream = ReceiverStream<Result<link::FeedMessage, Status>>;
    async fn subscribe(
        &self,
        request: Request<link::Subscription>,
    ) -> Result<Response<Self::SubscribeStream>, Status> {
        use link::feed_message::Body;
        self.0.send(*request.get_ref()).unwrap();
        let (send, receive) = mpsc::channel(8);
        let snapshot = link::SnapshotBegin {
            region: REGION,
            revision: 5,
        };
        let changes = link::Changes {
            after: 6,
            revision: 7,
            ..link::Changes::default()
        };
        for body in [
            Body::SnapshotBegin(snapshot),
            Body::SnapshotEnd(link::SnapshotEnd { rows: 0 }),
            Body::Changes(changes),
        ] {
            send.send(Ok(link::FeedMessage { body: Some(body) }))
                .await
                .unwrap();
        }
        // The stream stays open: it is the NCM that must not go on with it.
        tokio::spawn(async move { send.closed().await });
        Ok(Response::new(ReceiverStream::new(receive)))
    }
    async fn register_host(
        &self,
        _: Request<link::HostRegistration>,
    ) -> Result<Response<link::Taken>, Status> {
        Err(Status::unimplemented("none"))
    }
    async fn register_gateway(
        &self,
        _: Request<link::GatewayRegistration>,
    ) -> Result<Response<link::Taken>, Status> {
        Err(Status::unimplemented("none"))
    }
    async fn report_ports(&self, _: Request<link::PortReports>) -> Result<Response<link::Taken>, Status> {
        Err(Status::unimplemented("none"))
    }
    async fn note_hosts(&self, _: Request<link::HostNotes>) -> Result<Response<link::Taken>, Status> {
        Err(Status::unimplemented("none"))
    }
    async fn release_labels(&self, _: Request<link::LabelReleases>) -> Result<Response<link::Taken>, Status> {
        Err(Status::unimplemented("none"))
    }
    async fn note_floating_ips(
        &self,
        _: Request<link::FloatingIpWords>,
    ) -> Result<Response<link::Taken>, Status> {
        Err(Status::unimplemented("none"))
    }
}

#[tokio::test]
async fn a_gap_in_the_feed_makes_the_ncm_ask_for_all() {
    let (asked, mut subscriptions) = mpsc::unbounded_channel();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let server = tonic::transport::Server::builder().add_service(FeedServer::new(Holed(asked)));
    tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
    let stop = CancellationToken::new();
    let (_ncm, _ready) = ncm(&url, &Fake::new(0, 0), &stop);
    let nothing = link::Subscription {
        amends: true,
        ..link::Subscription::default()
    };
    assert_eq!(subscriptions.recv().await, Some(nothing));
    assert_eq!(subscriptions.recv().await, Some(nothing), "not from commit 5");
    stop.cancel();
}

#[tokio::test]
async fn words_go_back_whole_and_refusals_are_told() {
    let (fake, stop) = (Fake::new(0, 0), CancellationToken::new());
    let url = controller(&fake, "127.0.0.1:0", Options::default(), &stop).await;
    let link = Controller::new(channel(&url, None, &[]).unwrap());
    let ip: IpAddr = "2001:db8::1".parse().unwrap();
    let mut word = HostWord::new(ip, "z1");
    word.external_networks = [Id::generate(), Id::generate()].into();
    link.register_host("h1".into(), word.clone()).await.unwrap();
    link.register_gateway("g1".into(), "s1".into(), ip).await.unwrap();
    let report = PortReport {
        port_id: Id::<Port>::generate(),
        host: "h1".into(),
        applied_revision: Revision(9),
        status: PortStatus::Error,
        reason: Some("no room".into()),
    };
    link.report_ports(vec![report.clone()]).await.unwrap();
    let known = HostRuntime {
        name: "h1".into(),
        revision: Revision::ZERO,
        incarnation: 1,
        dataplane: Some("model".into()),
        last_seen_us: 2,
        resyncs: 3,
        networks: Vec::new(),
    };
    link.note_hosts(vec![known.clone(); 3]).await.unwrap();
    let label = (Id::<Label>::generate(), Revision(4));
    link.release_labels(vec![label]).await.unwrap();
    let floating = FloatingIpWord {
        id: Id::generate(),
        revision: Revision(5),
        in_force: true,
    };
    link.note_floating_ips(vec![floating]).await.unwrap();
    assert_eq!(
        *fake.0.reported.lock().unwrap(),
        [
            format!("h1 {word:?}"),
            "g1 s1 2001:db8::1".to_owned(),
            format!("{:?}", [report]),
            format!("{:?}", vec![known; 3]),
            format!("{:?}", [label]),
            format!("{:?}", [floating]),
        ]
    );
    // What cannot be a host's name is refused at the edge.
    let refused = link.register_host(String::new(), word.clone()).await;
    assert!(matches!(refused, Err(NotTaken::Never(_))), "{refused:?}");
    let mut many = word.clone();
    many.external_networks = std::iter::repeat_with(Id::generate).take(65).collect();
    let refused = link.register_host("h1".into(), many).await;
    assert!(matches!(refused, Err(NotTaken::Never(_))), "{refused:?}");
    let refused = link.register_gateway("g1".into(), String::new(), ip).await;
    assert!(matches!(refused, Err(NotTaken::Never(_))), "{refused:?}");
    *fake.0.refuses.lock().unwrap() = true;
    let refused = link.register_host("h1".into(), word.clone()).await;
    assert!(
        matches!(&refused, Err(NotTaken::Later(reason)) if reason.contains("not now")),
        "{refused:?}"
    );
    stop.cancel();
}
