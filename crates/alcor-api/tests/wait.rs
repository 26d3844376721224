//! `Prefer: wait=N`: replies that come when hosts have reported.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a panic is how a test says no"
)]

mod common;

use std::time::Duration;

use alcor_model::{
    Change, Port, Resource, Revision,
    resource::{HostWord, PortStatus},
};
use alcor_region::command::PortReport;
use alcor_store::FeedReader;
use common::Api;
use reqwest::Method;
use serde_json::{Value, json};

/// Status, `Preference-Applied`, body.
type Reply = (u16, Option<String>, Value);

/// Starts a request that would like to wait; what it answers comes later.
fn ask(
    api: &Api,
    method: Method,
    path: &str,
    wait: &str,
    key: Option<&str>,
    body: &Value,
) -> tokio::task::JoinHandle<Reply> {
    let mut request = api
        .client
        .request(method, api.url(path))
        .header("Prefer", wait)
        .json(body);
    if let Some(key) = key {
        request = request.header("Idempotency-Key", key);
    }
    tokio::spawn(async move {
        let response = request.send().await.unwrap();
        let status = response.status().as_u16();
        let applied = response.headers().get("preference-applied");
        let applied = applied.map(|value| value.to_str().unwrap().to_owned());
        (status, applied, response.json().await.unwrap())
    })
}

/// Ports as they were committed, so many of them.
async fn committed(feed: &mut FeedReader, count: usize) -> Vec<Port> {
    let mut ports = Vec::new();
    while ports.len() < count {
        let batch = feed.next().await.unwrap().unwrap();
        ports.extend(batch.changes.into_iter().filter_map(|change| match change {
            Change::Put(Resource::Port(port)) => Some(Port::clone(&port)),
            _ => None,
        }));
    }
    ports
}

/// A host says so of a port, at a revision.
async fn report(api: &Api, port: &Port, host: &str, revision: Revision, status: PortStatus) {
    let report = PortReport {
        port_id: port.id,
        host_id: host.to_owned(),
        applied_revision: revision,
        status,
        reason: None,
    };
    api.region.report_ports(vec![report]).await.unwrap();
}

async fn bound(api: &Api) -> Value {
    let tunnel_ip = "192.0.2.1".parse().unwrap();
    api.region
        .register_host("host-1", HostWord::new(tunnel_ip, "nova"))
        .await
        .unwrap();
    let (network, _) = api.network_with_subnet("10.0.0.0/24").await;
    json!({"network_id": network, "binding:host_id": "host-1"})
}

#[tokio::test]
async fn the_reply_comes_when_the_host_has_reported() {
    let api = Api::start().await;
    let port = bound(&api).await;
    let mut feed = api.region.subscribe(api.region.snapshot().revision);
    let asked = ask(
        &api,
        Method::POST,
        "/v2.0/ports",
        "wait=20",
        None,
        &json!({"port": port}),
    );
    let made = committed(&mut feed, 1).await.remove(0);
    report(&api, &made, "host-1", made.revision, PortStatus::Active).await;
    let (status, applied, body) = asked.await.unwrap();
    assert_eq!((status, applied.as_deref()), (201, Some("wait=20")), "{body}");
    assert_eq!(
        body["port"]["status"], "ACTIVE",
        "without waiting it would be BUILD"
    );

    // A change: what was in force before it does not count.
    let path = format!("/v2.0/ports/{}", made.id);
    let asked = ask(
        &api,
        Method::PUT,
        &path,
        "respond-async, wait=19",
        None,
        &json!({"port": {"name": "x"}}),
    );
    let changed = committed(&mut feed, 1).await.remove(0);
    assert!(changed.revision > made.revision);
    report(&api, &changed, "host-1", made.revision, PortStatus::Down).await;
    report(&api, &changed, "host-1", changed.revision, PortStatus::Error).await;
    let (status, applied, body) = asked.await.unwrap();
    assert_eq!((status, applied.as_deref()), (200, Some("wait=19")));
    assert_eq!(body["port"]["status"], "ERROR", "a refusal is a report too");
}

#[tokio::test]
async fn many_are_waited_for_together() {
    let api = Api::start().await;
    let port = bound(&api).await;
    let unbound = json!({"network_id": port["network_id"]});
    let mut feed = api.region.subscribe(api.region.snapshot().revision);
    let body = json!({"ports": [port, unbound, port]});
    let asked = ask(&api, Method::POST, "/v2.0/ports", "wait=20", None, &body);
    for made in committed(&mut feed, 3).await {
        report(&api, &made, "host-1", made.revision, PortStatus::Active).await;
    }
    let (status, applied, body) = asked.await.unwrap();
    assert_eq!((status, applied.as_deref()), (201, Some("wait=20")));
    let shown: Vec<_> = body["ports"]
        .as_array()
        .unwrap()
        .iter()
        .map(|port| &port["status"])
        .collect();
    assert_eq!(shown, ["ACTIVE", "DOWN", "ACTIVE"]);
}

#[tokio::test]
async fn a_reply_says_when_the_host_has_not_reported() {
    let api = Api::start_with(|config| config.max_wait = Duration::from_millis(20)).await;
    let port = bound(&api).await;
    // 0 seconds, and more than the server lets anybody wait.
    for wait in ["wait=0", "wait=3600"] {
        let body = json!({"port": port});
        let (status, applied, body) = ask(&api, Method::POST, "/v2.0/ports", wait, None, &body)
            .await
            .unwrap();
        assert_eq!((status, applied), (201, None), "{wait}");
        assert_eq!(body["port"]["status"], "BUILD");
    }
}

#[tokio::test]
async fn nobody_waits_for_what_no_host_has() {
    let api = Api::start().await;
    let port = bound(&api).await;
    let unbound = json!({"port": {"network_id": port["network_id"]}});
    // Each would wait 20 seconds, and longer than the test may take, if it waited at all.
    let answers = [
        ask(&api, Method::POST, "/v2.0/ports", "wait=20", None, &unbound),
        ask(
            &api,
            Method::POST,
            "/v2.0/networks",
            "wait=20",
            None,
            &json!({"network": {}}),
        ),
    ];
    for answer in answers {
        let (status, applied, _) = answer.await.unwrap();
        assert_eq!((status, applied), (201, None));
    }
    let mut feed = api.region.subscribe(api.region.snapshot().revision);
    let asked = ask(
        &api,
        Method::POST,
        "/v2.0/ports",
        "wait=20",
        None,
        &json!({"port": port}),
    );
    let made = committed(&mut feed, 1).await.remove(0);
    assert_eq!(api.delete(&format!("/v2.0/ports/{}", made.id)).await.0, 204);
    let (status, applied, _) = asked.await.unwrap();
    assert_eq!(
        (status, applied),
        (201, None),
        "the port went while its client waited"
    );
}

#[tokio::test]
async fn a_repeat_waits_too_and_gets_the_kept_reply() {
    let api = Api::start().await;
    let body = json!({"port": bound(&api).await});
    let mut feed = api.region.subscribe(api.region.snapshot().revision);
    let first = ask(&api, Method::POST, "/v2.0/ports", "wait=0", Some("k"), &body)
        .await
        .unwrap();
    assert_eq!((first.0, &first.1), (201, &None));
    let made = committed(&mut feed, 1).await.remove(0);
    let asked = ask(&api, Method::POST, "/v2.0/ports", "wait=20", Some("k"), &body);
    report(&api, &made, "host-1", made.revision, PortStatus::Active).await;
    let repeat = asked.await.unwrap();
    assert_eq!((repeat.0, repeat.1.as_deref()), (201, Some("wait=20")));
    assert_eq!(repeat.2, first.2);
}
