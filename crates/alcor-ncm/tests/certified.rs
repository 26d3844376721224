//! Sessions belong to whom the certificate of their connection names: real sockets, certificates of a real authority.
#![allow(clippy::unwrap_used, reason = "a panic is how a test says no")]

mod common;

use std::net::SocketAddr;

use alcor_ncm::NcmHandle;
use alcor_proto::v1::{self, ncm_message};
use alcor_southbound::{
    client::{ChannelError, Session, connect},
    server,
};
use alcor_tls::{
    Identity, Incoming, Role, Tls,
    issue::{Folder, Subject, from_now},
};
use tokio::net::TcpListener;
use tonic::Code;

/// A certificate for each of these.
fn certificates<const N: usize>(holders: [&[(Role, &str)]; N]) -> [Tls; N] {
    let dir = tempfile::tempdir().unwrap();
    let folder = Folder::new(dir.path());
    folder.create(from_now(1), false).unwrap();
    holders.map(|names| {
        let name = |(role, name): &(Role, &str)| Identity::new(*role, name).unwrap();
        let subject = Subject {
            identities: names.iter().map(name).collect(),
            dns: Vec::new(),
            ips: vec!["127.0.0.1".parse().unwrap()],
        };
        Tls::load(&folder.issue(&subject, from_now(1), false).unwrap()).unwrap()
    })
}

async fn serve(tls: Tls) -> (NcmHandle, SocketAddr) {
    let ncm = common::start().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let incoming = Incoming::new(listener, Some(tls));
    tokio::spawn(server::serve(incoming, ncm.clone(), std::future::pending()));
    (ncm, address)
}

/// A session that was welcomed.
async fn welcomed(at: SocketAddr, tls: &Tls, hello: v1::Hello) -> Session {
    let mut session = connect(&format!("https://{at}"), Some(tls), hello).await.unwrap();
    let first = session.receive.next().await.unwrap().unwrap();
    assert!(
        matches!(first.body, Some(ncm_message::Body::Welcome(_))),
        "{first:?}"
    );
    session
}

/// A session that is refused; why.
async fn refused(at: SocketAddr, tls: &Tls, hello: v1::Hello) -> String {
    match connect(&format!("https://{at}"), Some(tls), hello).await {
        Err(ChannelError::Ended(status)) => {
            assert_eq!(status.code(), Code::PermissionDenied, "{status}");
            status.message().to_owned()
        }
        other => panic!("{other:?}"),
    }
}

fn gateway(name: &str, number: u8) -> v1::Hello {
    v1::Hello {
        gateway: true,
        gateway_set: "s".into(),
        ..common::hello(name, number)
    }
}

#[tokio::test]
async fn nobody_takes_the_session_of_another() {
    let [server, h1, h2, g1, other_ncm] = certificates([
        &[(Role::Ncm, "n1")],
        &[(Role::Host, "h1")],
        &[(Role::Host, "h2")],
        &[(Role::Gateway, "h1")],
        &[(Role::Ncm, "h1")],
    ]);
    let (ncm, at) = serve(server).await;
    let mut held = welcomed(at, &h1, common::hello("h1", 1)).await;
    // All of them would be newer than the session that there is.
    let claim = || v1::Hello {
        incarnation: 9,
        ..common::hello("h1", 2)
    };
    for (whose, tls) in [("h2", &h2), ("gateway h1", &g1), ("NCM h1", &other_ncm)] {
        let why = refused(at, tls, claim()).await;
        assert!(why.contains("alcor://host/h1 is needed"), "{whose}: {why}");
    }
    assert_eq!(
        refused(at, &h2, claim()).await,
        "the certificate of this connection names alcor://host/h2; alcor://host/h1 is needed here"
    );
    assert!(
        refused(at, &h1, gateway("h1", 1))
            .await
            .contains("alcor://gateway/h1 is needed")
    );
    // It is answered as before.
    let question = v1::AgentMessage {
        body: Some(common::questions(7, 1)),
    };
    held.send.send(question).await.unwrap();
    let answer = held.receive.next().await.unwrap().unwrap();
    assert!(matches!(answer.body, Some(ncm_message::Body::Resolved(answers)) if answers.id == 7));
    let hosts = ncm.hosts().await;
    assert_eq!(hosts.len(), 1, "nobody else has become known: {hosts:?}");

    let _other = welcomed(at, &h2, common::hello("h2", 2)).await;
    assert!(ncm.host("h2").await.unwrap().summary.alive);
    // The host itself may come back: its newer session replaces the old one.
    let _again = welcomed(
        at,
        &h1,
        v1::Hello {
            incarnation: 2,
            ..common::hello("h1", 1)
        },
    )
    .await;
    held.receive.next().await.unwrap_err();
}

#[tokio::test]
async fn a_gateway_has_a_certificate_of_its_own_and_one_may_name_several() {
    let [server, g1, all] = certificates([
        &[(Role::Controller, "c1"), (Role::Host, "c1")],
        &[(Role::Gateway, "g1")],
        &[(Role::Host, "h1"), (Role::Gateway, "g2")],
    ]);
    let (_ncm, at) = serve(server.clone()).await;
    let _g1 = welcomed(at, &g1, gateway("g1", 1)).await;
    let _g2 = welcomed(at, &all, gateway("g2", 2)).await;
    let _h1 = welcomed(at, &all, common::hello("h1", 3)).await;
    let _own = welcomed(at, &server, common::hello("c1", 4)).await;
    assert!(
        refused(at, &g1, common::hello("g1", 1))
            .await
            .contains("alcor://host/g1 is needed")
    );
    assert!(
        refused(at, &all, gateway("g1", 1))
            .await
            .contains("alcor://host/h1 and alcor://gateway/g2")
    );
}

#[tokio::test]
async fn nothing_is_had_without_a_certificate() {
    let [server, h1] = certificates([&[(Role::Ncm, "n1")], &[(Role::Host, "h1")]]);
    let (ncm, at) = serve(server).await;
    let (plain, secured) = (format!("http://{at}"), format!("https://{at}"));
    connect(&plain, None, common::hello("h1", 1)).await.unwrap_err();
    for (url, tls) in [(&plain, Some(&h1)), (&secured, None)] {
        let error = connect(url, tls, common::hello("h1", 1)).await.unwrap_err();
        assert!(error.to_string().contains("must begin with http"), "{error}");
    }
    let [stranger] = certificates([&[(Role::Host, "h1")]]);
    connect(&secured, Some(&stranger), common::hello("h1", 1))
        .await
        .unwrap_err();
    assert!(ncm.hosts().await.is_empty());
}
