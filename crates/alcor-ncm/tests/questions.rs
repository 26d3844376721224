//! Questions through the shell: answered on the session's own stream, in order, and bounded.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a panic is how a test says no"
)]

mod common;

use std::{task::Poll, time::Duration};

use alcor_model::Change;
use alcor_ncm::{NcmHandle, Options, service::TO_AGENT_SPARE};
use alcor_proto::v1;
use alcor_southbound::{
    convert::resolve::QUESTIONS_MAX,
    frame::FromNcm,
    server::{Accepted, Acceptor},
};
use common::questions;

/// An NCM with a network in which nobody has ports, and a session of a host that has been welcomed.
async fn session() -> (NcmHandle, Accepted) {
    let ncm = common::start().await;
    let hello = common::hello("h1", 1);
    let mut accepted = ncm.accept(hello).await.unwrap();
    let welcome = accepted.to_agent.recv().await.unwrap().unwrap();
    assert!(matches!(welcome, FromNcm::Welcome(_)));
    (ncm, accepted)
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
        let FromNcm::Resolved(resolved) = message else {
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
    assert!(
        answers <= Options::default().window_deltas + TO_AGENT_SPARE,
        "{answers}"
    );
    assert!(!ncm.host("h1").await.unwrap().summary.alive);
}

#[tokio::test]
async fn others_are_answered_while_a_long_list_of_hosts_is_made() {
    const HOSTS: usize = 1_201;
    let ncm = common::start().await;
    let hosts = (0..HOSTS).map(|number| Change::Put(common::host(&format!("h{number:04}"))));
    ncm.changes(hosts.collect(), 1).await;
    let mut list = std::pin::pin!(ncm.hosts());
    let mut is_there = std::future::poll_fn(|cx| Poll::Ready(list.as_mut().poll(cx).is_ready()));
    assert!(!(&mut is_there).await);
    // It was asked after the list, and it is answered after the first part of it.
    assert!(ncm.host("h0001").await.is_some());
    assert!(!is_there.await);
    let names: Vec<String> = list.await.into_iter().map(|host| host.name).collect();
    assert_eq!(
        names,
        (0..HOSTS)
            .map(|number| format!("h{number:04}"))
            .collect::<Vec<_>>()
    );
}

#[tokio::test]
async fn an_ncm_ends_with_its_handles_though_a_session_lives() {
    let (ncm, mut accepted) = session().await;
    drop(ncm);
    let end = tokio::time::timeout(Duration::from_secs(30), accepted.to_agent.recv());
    assert!(end.await.expect("the session ends with it").is_none());
}
