//! Questions through the shell: answered on the session's own stream, in order, and bounded.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a panic is how a test says no"
)]

use std::{net::IpAddr, sync::Arc};

use alcor_model::{HostRuntime, Id, Label, Network, Resource, Revision, Vni, resource::Standard};
use alcor_ncm::{NcmHandle, Options, RegionLink, core::PortReport, service::BoxFuture};
use alcor_proto::v1::{self, agent_message::Body, ncm_message};
use alcor_southbound::{
    convert::{
        encode_ip,
        resolve::{QUESTIONS_MAX, Question, encode_questions},
    },
    server::{Accepted, Acceptor},
};

/// A region that takes everything.
struct Nowhere;

impl RegionLink for Nowhere {
    fn register_host(&self, _: String, _: IpAddr, _: String) -> BoxFuture<'_, Result<(), String>> {
        Box::pin(async { Ok(()) })
    }

    fn register_gateway(&self, _: String, _: String, _: IpAddr) -> BoxFuture<'_, Result<(), String>> {
        Box::pin(async { Ok(()) })
    }

    fn report_ports(&self, _: Vec<PortReport>) -> BoxFuture<'_, Result<(), String>> {
        Box::pin(async { Ok(()) })
    }

    fn note_hosts(&self, _: Vec<HostRuntime>) -> BoxFuture<'_, Result<(), String>> {
        Box::pin(async { Ok(()) })
    }

    fn release_labels(&self, _: Vec<(Id<Label>, Revision)>) -> BoxFuture<'_, Result<(), String>> {
        Box::pin(async { Ok(()) })
    }
}

fn network() -> Id<Network> {
    Id::from_uuid(uuid::Uuid::from_u128(1))
}

/// An NCM with a network in which nobody has ports, and a session of a host that has been welcomed.
async fn session() -> (NcmHandle, Accepted) {
    let ncm = NcmHandle::start(Options::default(), Arc::new(Nowhere));
    let network = Resource::Network(Arc::new(Network {
        id: network(),
        revision: Revision(1),
        standard: Standard {
            project_id: "p".into(),
            name: String::new(),
            description: String::new(),
            tags: Vec::new(),
            created_at: jiff::Timestamp::UNIX_EPOCH,
            updated_at: jiff::Timestamp::UNIX_EPOCH,
            revision_number: 1,
        },
        admin_state_up: true,
        mtu: 1450,
        external: false,
        is_default: false,
        availability_zone_hints: Vec::new(),
        port_security_enabled: true,
        segmentation_id: Vni::try_from(1).unwrap(),
    }));
    ncm.snapshot(Revision(1), vec![network]).await;
    let hello = v1::Hello {
        host: "h1".into(),
        incarnation: 1,
        tunnel_ip: encode_ip(IpAddr::from([192, 0, 2, 1])),
        ..v1::Hello::default()
    };
    let mut accepted = ncm.accept(hello).await.unwrap();
    let welcome = accepted.to_agent.recv().await.unwrap().unwrap();
    assert!(matches!(welcome.body, Some(ncm_message::Body::Welcome(_))));
    (ncm, accepted)
}

fn questions(id: u64, count: usize) -> Body {
    let question = Question {
        network: network(),
        ip: IpAddr::from([10, 0, 0, 1]),
        port: None,
    };
    Body::Resolve(encode_questions(id, &vec![question; count]))
}

#[tokio::test]
async fn answers_come_in_the_order_of_the_questions() {
    let (_ncm, mut accepted) = session().await;
    for id in 1..=3 {
        accepted
            .from_agent
            .send(questions(id, QUESTIONS_MAX))
            .await
            .unwrap();
    }
    for id in 1..=3 {
        let message = accepted.to_agent.recv().await.unwrap().unwrap();
        let Some(ncm_message::Body::Resolved(resolved)) = message.body else {
            panic!("{message:?}");
        };
        assert_eq!((resolved.id, resolved.answers.len()), (id, QUESTIONS_MAX));
        // It has no ports there.
        assert!(
            resolved
                .answers
                .iter()
                .all(|answer| answer.verdict() == v1::Verdict::Deny)
        );
    }
}

#[tokio::test]
async fn a_message_with_too_many_questions_ends_the_session() {
    let (ncm, mut accepted) = session().await;
    accepted
        .from_agent
        .send(questions(1, QUESTIONS_MAX + 1))
        .await
        .unwrap();
    let refused = accepted.to_agent.recv().await.unwrap().unwrap_err();
    assert_eq!(refused.code(), tonic::Code::InvalidArgument);
    assert!(accepted.to_agent.recv().await.is_none());
    accepted.from_agent.closed().await;
    let host = ncm.host("h1").await.unwrap();
    assert!(!host.summary.alive);
}

/// An agent that asks and does not read loses its session, and nobody else waits for it.
#[tokio::test]
async fn answers_that_are_not_read_end_the_session() {
    let (ncm, mut accepted) = session().await;
    while accepted.from_agent.send(questions(1, 1)).await.is_ok() {}
    let mut answers = 0;
    while let Some(Ok(_)) = accepted.to_agent.recv().await {
        answers += 1;
    }
    assert!(answers <= Options::default().window_deltas + 16, "{answers}");
    assert!(!ncm.host("h1").await.unwrap().summary.alive);
}
