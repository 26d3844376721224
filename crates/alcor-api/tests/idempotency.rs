//! A client may repeat a creation: with one `Idempotency-Key`, it happens once.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a panic is how a test says no"
)]

mod common;

use common::{Answer, Api, assert_refused, text};
use reqwest::Method;
use serde_json::{Value, json};

async fn post(api: &Api, path: &str, key: &str, body: &Value) -> Answer {
    api.send(Method::POST, path, |request| {
        request.header("Idempotency-Key", key).json(body)
    })
    .await
}

async fn networks(api: &Api) -> usize {
    api.get("/v2.0/networks").await.1["networks"]
        .as_array()
        .unwrap()
        .len()
}

#[tokio::test]
async fn a_repeat_gets_the_same_reply_even_when_the_row_has_changed() {
    let api = Api::start().await;
    let body = json!({"network": {"name": "a"}});
    let first = post(&api, "/v2.0/networks", "key-1", &body).await;
    assert_eq!(first.0, 201);
    let path = format!("/v2.0/networks/{}", text(&first.1["network"]["id"]));
    assert_eq!(api.put(&path, json!({"network": {"name": "b"}})).await.0, 200);
    assert_eq!(post(&api, "/v2.0/networks", "key-1", &body).await, first);
    assert_eq!(api.delete(&path).await.0, 204);
    assert_eq!(post(&api, "/v2.0/networks", "key-1", &body).await, first);
    assert_eq!(networks(&api).await, 0, "nothing was made again");
    let response = api
        .client
        .post(api.url("/v2.0/networks"))
        .header("Idempotency-Key", "key-1")
        .json(&body)
        .send()
        .await
        .unwrap();
    assert_eq!(response.headers()["idempotency-replayed"], "true");
}

#[tokio::test]
async fn a_key_belongs_to_one_request() {
    let api = Api::start().await;
    let many = json!({"networks": [{"name": "a"}, {"name": "b"}]});
    let first = post(&api, "/v2.0/networks", "k", &many).await;
    assert_eq!((first.0, first.1["networks"].as_array().unwrap().len()), (201, 2));
    assert_eq!(post(&api, "/v2.0/networks", "k", &many).await, first);
    let network = text(&first.1["networks"][0]["id"]);
    for (path, body) in [
        ("/v2.0/networks", json!({"network": {"name": "a"}})),
        ("/v2.0/ports", json!({"port": {"network_id": network}})),
    ] {
        assert_refused(
            &post(&api, path, "k", &body).await,
            409,
            "IdempotencyKeyConflict",
            "The idempotency key k was already used for another request",
        );
    }
    assert_eq!(post(&api, "/v2.0/networks", "k2", &many).await.0, 201);
    assert_eq!(networks(&api).await, 4);
}

#[tokio::test]
async fn repeats_at_the_same_time_make_one() {
    let api = Api::start().await;
    let body = json!({"network": {"name": "a"}});
    let repeats = (0..16).map(|_| post(&api, "/v2.0/networks", "k", &body));
    let replies = futures::future::join_all(repeats).await;
    assert!(replies.iter().all(|reply| *reply == replies[0]), "{replies:?}");
    assert_eq!(replies[0].0, 201);
    assert_eq!(networks(&api).await, 1);
}

#[tokio::test]
async fn a_refused_request_may_be_tried_again_with_its_key() {
    let api = Api::start().await;
    let unknown = "00000000-0000-0000-0000-000000000000";
    let body = json!({"subnet": {"network_id": unknown, "cidr": "10.0.0.0/24", "ip_version": 4}});
    assert_eq!(post(&api, "/v2.0/subnets", "k", &body).await.0, 404);
    let made = post(&api, "/v2.0/networks", "k", &json!({"network": {}})).await;
    assert_eq!(made.0, 201);
}

#[tokio::test]
async fn a_key_that_is_none_is_refused_by_name() {
    let api = Api::start().await;
    let body = json!({"network": {}});
    for key in ["", "a b", "é", &"k".repeat(256)] {
        assert_refused(
            &post(&api, "/v2.0/networks", key, &body).await,
            400,
            "BadRequest",
            "Bad idempotency-key request: The key must be given once and have 1 to 255 characters",
        );
    }
    let twice = |request: reqwest::RequestBuilder| {
        request
            .header("Idempotency-Key", "a")
            .header("Idempotency-Key", "b")
            .json(&body)
    };
    assert_eq!(api.send(Method::POST, "/v2.0/networks", twice).await.0, 400);
    let network = text(&api.make("network", json!({})).await["id"]);
    assert_refused(
        &post(
            &api,
            &format!("/v2.0/networks/{network}/tags"),
            "k",
            &json!({"tags": ["a"]}),
        )
        .await,
        400,
        "BadRequest",
        "replies of this request are not kept",
    );
    assert_eq!(networks(&api).await, 1);
}
