//! Who may follow, report and ask: real sockets, certificates of a real authority, a region with nothing in it.
#![allow(clippy::unwrap_used, reason = "a panic is how a test says no")]

use std::{future::pending, net::IpAddr, sync::Arc};

use alcor_link::{
    directory::{self, RemoteNcm},
    follow::{BadEndpoint, Controller, channel, follow},
    serve::{Options, serve},
    source::{Changes, Rows, Source},
};
use alcor_model::{
    HostRuntime, Id, Label, Resource, Revision,
    resource::{FloatingIpWord, HostWord},
};
use alcor_ncm::{
    NcmHandle, RegionLink,
    core::PortReport,
    service::{BoxFuture, NotTaken},
};
use alcor_store::{FeedBatch, Lagged};
use alcor_tls::{
    Identity, Incoming, Role, Tls,
    issue::{Folder, Subject, from_now},
};
use tokio::{net::TcpListener, sync::watch};
use tokio_util::sync::CancellationToken;

/// A region that has nothing, changes never and takes everything.
struct Empty;

impl Source for Empty {
    fn region(&self) -> u64 {
        7
    }
    fn snapshot(&self) -> Box<dyn Rows> {
        Box::new(Self)
    }
    fn changes(&self, _: Revision) -> Box<dyn Changes> {
        Box::new(Self)
    }
}

impl Rows for Empty {
    fn revision(&self) -> Revision {
        Revision(1)
    }
    fn rows(&self) -> Box<dyn Iterator<Item = Resource> + Send + '_> {
        Box::new(std::iter::empty())
    }
}

impl Changes for Empty {
    fn next(&mut self) -> BoxFuture<'_, Option<Result<FeedBatch, Lagged>>> {
        Box::pin(pending())
    }
    fn restart_from(&mut self, _: Revision) {}
}

impl RegionLink for Empty {
    fn register_host(&self, _: String, _: HostWord) -> BoxFuture<'_, Result<(), NotTaken>> {
        Box::pin(async { Ok(()) })
    }
    fn register_gateway(&self, _: String, _: String, _: IpAddr) -> BoxFuture<'_, Result<(), NotTaken>> {
        Box::pin(async { Ok(()) })
    }
    fn report_ports(&self, _: Vec<PortReport>) -> BoxFuture<'_, Result<(), NotTaken>> {
        Box::pin(async { Ok(()) })
    }
    fn note_hosts(&self, _: Vec<HostRuntime>) -> BoxFuture<'_, Result<(), NotTaken>> {
        Box::pin(async { Ok(()) })
    }
    fn release_labels(&self, _: Vec<(Id<Label>, Revision)>) -> BoxFuture<'_, Result<(), NotTaken>> {
        Box::pin(async { Ok(()) })
    }
    fn note_floating_ips(&self, _: Vec<FloatingIpWord>) -> BoxFuture<'_, Result<(), NotTaken>> {
        Box::pin(async { Ok(()) })
    }
}

/// One of each role, of one authority.
struct Certificates {
    controller: Tls,
    ncm: Tls,
    host: Tls,
    gateway: Tls,
}

fn certificates() -> Certificates {
    let dir = tempfile::tempdir().unwrap();
    let folder = Folder::new(dir.path());
    folder.create(from_now(1), false).unwrap();
    let issue = |role| {
        let subject = Subject {
            identities: vec![Identity::new(role, "x").unwrap()],
            dns: Vec::new(),
            ips: vec!["127.0.0.1".parse().unwrap()],
        };
        Tls::load(&folder.issue(&subject, from_now(1), false).unwrap()).unwrap()
    };
    Certificates {
        controller: issue(Role::Controller),
        ncm: issue(Role::Ncm),
        host: issue(Role::Host),
        gateway: issue(Role::Gateway),
    }
}

async fn listen(tls: &Tls) -> (Incoming, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}", listener.local_addr().unwrap());
    (Incoming::new(listener, Some(tls.clone())), url)
}

#[tokio::test]
async fn only_an_ncm_follows_and_reports() {
    let certificates = certificates();
    let (incoming, url) = listen(&certificates.controller).await;
    let stop = CancellationToken::new();
    let (source, back) = (Arc::new(Empty), Arc::new(Empty));
    tokio::spawn(serve(incoming, source, back, Options::default(), stop.clone()));

    let link = |tls: &Tls, server| Controller::new(channel(&url, Some(tls), server).unwrap());
    let labels = || vec![(Id::generate(), Revision(1))];
    for (who, tls) in [
        ("a host", &certificates.host),
        ("a gateway", &certificates.gateway),
        ("a controller", &certificates.controller),
    ] {
        let outcome = link(tls, &[Role::Controller]).release_labels(labels()).await;
        let Err(NotTaken::Later(why)) = outcome else {
            panic!("{who}: {outcome:?}");
        };
        assert!(why.contains("alcor://ncm/NAME is needed"), "{who}: {why}");
    }
    let outcome = link(&certificates.ncm, &[Role::Controller])
        .release_labels(labels())
        .await;
    assert_eq!(outcome, Ok(()));
    // The other way round: what the NCM is connected to must be what it looks for.
    let outcome = link(&certificates.ncm, &[Role::Ncm])
        .release_labels(labels())
        .await;
    assert!(matches!(outcome, Err(NotTaken::Later(_))), "{outcome:?}");

    let ncm = NcmHandle::start(alcor_ncm::Options::default(), Arc::new(Empty));
    let (loaded, mut ready) = watch::channel(false);
    let feed = channel(&url, Some(&certificates.ncm), &[Role::Controller]).unwrap();
    tokio::spawn(follow(feed, ncm, loaded, stop.clone()));
    ready.wait_for(|loaded| *loaded).await.unwrap();

    for (url, tls) in [
        (url.replace("https", "http"), Some(&certificates.ncm)),
        (url, None),
    ] {
        let refused = channel(&url, tls, &[Role::Controller]).unwrap_err();
        assert!(matches!(refused, BadEndpoint::Dial(_)), "{refused}");
    }
    stop.cancel();
}

#[tokio::test]
async fn only_a_controller_asks() {
    let certificates = certificates();
    let (incoming, url) = listen(&certificates.ncm).await;
    let ncm = NcmHandle::start(alcor_ncm::Options::default(), Arc::new(Empty));
    tokio::spawn(directory::serve(incoming, ncm, pending()));
    let ask = |tls: &Tls| RemoteNcm::new(channel(&url, Some(tls), &[Role::Ncm]).unwrap());
    for (who, tls) in [("a host", &certificates.host), ("an NCM", &certificates.ncm)] {
        let why = ask(tls).hosts().await.unwrap_err().to_string();
        assert!(why.contains("alcor://controller/NAME is needed"), "{who}: {why}");
    }
    assert!(ask(&certificates.controller).hosts().await.unwrap().is_empty());
    let plain = channel(&url.replace("https", "http"), None, &[]).unwrap();
    RemoteNcm::new(plain).hosts().await.unwrap_err();
}
