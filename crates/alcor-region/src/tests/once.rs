//! Requests with a key: carried out once, whoever repeats them and whenever.

use alcor_model::Network;
use alcor_store::SqliteEngine;

use super::{Place, Replay, owner};
use crate::{
    Region, RegionConfig, RegionError,
    command::NetworkCreate,
    managed::Managed,
    once::{MAX_BYTES, MAX_REPLIES, MAX_REPLY_BYTES, Once, Reply, once},
};

fn asked(key: &str, request: &str) -> Once {
    Once {
        project_id: "p1".to_owned(),
        key: key.to_owned(),
        request: request.to_owned(),
    }
}

/// Makes a network whose id is the reply.
async fn make(region: &Region, asked: Once) -> Result<Reply, RegionError> {
    region
        .write(move |tx, env| {
            once(tx, env, asked, |tx, env| {
                let row = Network::create(tx, env, &owner(), NetworkCreate::default())?;
                Ok((201, row.id.to_string()))
            })
        })
        .await
}

/// Keeps a reply of so many bytes.
async fn keep(region: &Region, key: String, bytes: usize) -> Result<Reply, RegionError> {
    let asked = asked(&key, "r");
    region
        .write(move |tx, env| once(tx, env, asked, |_, _| Ok((201, "x".repeat(bytes)))))
        .await
}

#[tokio::test]
async fn a_repeat_gives_the_reply_and_makes_nothing_also_after_a_restart() {
    let place = Place::new(RegionConfig::default(), 24);
    let first = make(&place.region, asked("k", "r")).await.unwrap();
    assert!(!first.repeated);
    let again = make(&place.region, asked("k", "r")).await.unwrap();
    assert_eq!((again.repeated, &again.body), (true, &first.body));
    let other = make(&place.region, asked("k", "s")).await.unwrap_err();
    assert_eq!(other.neutron_type(), "IdempotencyKeyConflict");
    let theirs = Once {
        project_id: "p2".to_owned(),
        ..asked("k", "s")
    };
    assert!(!make(&place.region, theirs).await.unwrap().repeated);
    let path = place.dir.path().join("region.sqlite");
    let engine = Box::new(SqliteEngine::open(&path).unwrap());
    let restarted = Region::open_with(engine, RegionConfig::default(), Replay::new(24)).unwrap();
    let late = make(&restarted, asked("k", "r")).await.unwrap();
    assert_eq!((late.repeated, &late.body), (true, &first.body));
    assert_eq!(restarted.snapshot().state.networks().len(), 2);
}

#[tokio::test]
async fn repeats_at_the_same_time_are_one() {
    let place = Place::new(RegionConfig::default(), 24);
    let mut clients = tokio::task::JoinSet::new();
    for _ in 0..16 {
        let region = place.region.clone();
        clients.spawn(async move { make(&region, asked("k", "r")).await.unwrap() });
    }
    let replies = clients.join_all().await;
    assert_eq!(replies.iter().filter(|reply| !reply.repeated).count(), 1);
    assert!(replies.iter().all(|reply| reply.body == replies[0].body));
    assert_eq!(place.region.snapshot().state.networks().len(), 1);
}

#[tokio::test]
async fn a_refused_request_is_not_kept() {
    let config = RegionConfig {
        quotas: [("network", 0)].into(),
        ..RegionConfig::default()
    };
    let place = Place::new(config, 24);
    let refused = place
        .region
        .write(|tx, env| {
            once(tx, env, asked("k", "r"), |_, _| {
                Err(RegionError::OverQuota("network"))
            })
        })
        .await;
    assert!(refused.is_err());
    assert!(!make(&place.region, asked("k", "other")).await.unwrap().repeated);
}

#[tokio::test]
async fn the_number_and_the_size_of_replies_are_bounded() {
    let place = Place::new(RegionConfig::default(), 24);
    let kept = || place.region.snapshot().state.kept_of("p1");
    for number in 0..=MAX_REPLIES {
        keep(&place.region, format!("n{number}"), 1).await.unwrap();
    }
    assert_eq!(kept(), (MAX_REPLIES, MAX_REPLIES));
    assert!(
        !keep(&place.region, "n0".to_owned(), 1).await.unwrap().repeated,
        "the oldest went"
    );
    for number in 0..6 {
        keep(&place.region, format!("large{number}"), MAX_REPLY_BYTES)
            .await
            .unwrap();
    }
    assert_eq!(kept(), (MAX_BYTES / MAX_REPLY_BYTES, MAX_BYTES));
    let too_large = keep(&place.region, "x".to_owned(), MAX_REPLY_BYTES + 1)
        .await
        .unwrap_err();
    assert_eq!(too_large.neutron_type(), "IdempotencyReplyTooLarge");
}
