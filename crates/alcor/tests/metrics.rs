//! A region in one process, scraped: counters move by exactly what was done, and no series has an id in it.
#![allow(clippy::unwrap_used, reason = "a panic is how a test says no")]

use std::{
    collections::BTreeMap,
    net::TcpListener,
    process::{Child, Command, Stdio},
    time::Duration,
};

use alcor_lab::eventually;
use reqwest::blocking::Client;
use serde_json::{Value, json};

/// How long anything may take to come true; it is asserted that it does, not when.
const PATIENCE: Duration = Duration::from_secs(60);

/// `alcor all` with a data plane in memory, until dropped.
struct Region {
    process: Child,
    client: Client,
    api: String,
    metrics: String,
    _files: tempfile::TempDir,
}

impl Drop for Region {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn free() -> String {
    TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .to_string()
}

impl Region {
    fn start() -> Self {
        let files = tempfile::tempdir().unwrap();
        let [api, southbound, metrics] = [free(), free(), free()];
        let process = Command::new(env!("CARGO_BIN_EXE_alcor"))
            .args(["all", "--noauth", "--host=h1", "--dataplane=model", "--log=warn"])
            .arg(format!("--api-listen={api}"))
            .arg(format!("--southbound-listen={southbound}"))
            .arg(format!("--ncm=http://{southbound}"))
            .arg(format!("--data-dir={}", files.path().display()))
            .arg(format!("--socket={}", files.path().join("agent.sock").display()))
            .env("ALCOR_METRICS__LISTEN", &metrics)
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let region = Self {
            process,
            client: Client::builder().no_proxy().build().unwrap(),
            api: format!("http://{api}"),
            metrics: format!("http://{metrics}/metrics"),
            _files: files,
        };
        eventually("the host is alive", PATIENCE, || {
            let hosts = region.client.get(format!("{}/alcor/v1/hosts", region.api)).send();
            let hosts: Value = hosts
                .and_then(|reply| reply.json())
                .map_err(|error| error.to_string())?;
            match hosts["hosts"][0]["alive"] == json!(true) && hosts["hosts"][0]["tunnel_ip"].is_string() {
                true => Ok(()),
                false => Err(hosts.to_string()),
            }
        })
        .unwrap();
        region
    }

    /// Makes a resource; ports wait for their host.
    fn make(&self, singular: &str, attributes: Value) -> Value {
        let request = self.client.post(format!("{}/v2.0/{singular}s", self.api));
        let request = request
            .header("Prefer", "wait=20")
            .json(&json!({ singular: attributes }));
        let reply = request.send().unwrap();
        let granted = reply.headers().contains_key("preference-applied");
        assert_eq!(granted, singular == "port");
        assert_eq!(reply.status().as_u16(), 201);
        reply.json::<Value>().unwrap()[singular].clone()
    }

    /// Every series with its value.
    fn scrape(&self) -> BTreeMap<String, f64> {
        let text = self.client.get(&self.metrics).send().unwrap().text().unwrap();
        let lines = text
            .lines()
            .filter(|line| !line.is_empty() && !line.starts_with('#'));
        lines
            .map(|line| {
                let (series, value) = line.rsplit_once(' ').unwrap();
                (series.to_owned(), value.parse().unwrap())
            })
            .collect()
    }
}

#[test]
fn counters_move_by_exactly_what_was_done() {
    let region = Region::start();
    let network = region.make("network", json!({}))["id"].clone();
    region.make(
        "subnet",
        json!({"network_id": network, "cidr": "10.0.0.0/24", "ip_version": 4}),
    );
    let port = json!({"network_id": network, "binding:host_id": "h1"});
    region.make("port", port.clone());

    // The host has the network. One more port there is one row in one delta, and one row for the data plane.
    let before = region.scrape();
    region.make("port", port);
    let missing = region
        .client
        .get(format!("{}/nothing/{network}", region.api))
        .send()
        .unwrap();
    assert_eq!(missing.status().as_u16(), 404);
    let after = region.scrape();
    let moved = |series: &str| {
        let value = |scrape: &BTreeMap<String, f64>| scrape.get(series).copied().unwrap_or_default();
        value(&after) - value(&before)
    };
    for (series, times) in [
        (
            r#"alcor_api_request_seconds_count{method="POST",route="/v2.0/ports",status="2xx"}"#,
            1.0,
        ),
        (
            r#"alcor_api_request_seconds_count{method="GET",route="none",status="4xx"}"#,
            1.0,
        ),
        (r#"alcor_api_waits_total{outcome="reported"}"#, 1.0),
        (r#"alcor_api_waits_total{outcome="late"}"#, 0.0),
        ("alcor_ncm_deltas_total", 1.0),
        ("alcor_ncm_rows_sent_total", 1.0),
        ("alcor_ncm_hosts_touched_total", 1.0),
        ("alcor_ncm_rows_looked_at_total", 0.0),
        ("alcor_ncm_resyncs_total", 0.0),
        ("alcor_ncm_receipts_total", 1.0),
        ("alcor_ncm_rows_refused_total", 0.0),
        ("alcor_ncm_commit_to_sent_seconds_count", 1.0),
        ("alcor_ncm_sent_to_received_seconds_count", 1.0),
        ("alcor_ncm_received_to_visible_seconds_count", 1.0),
        ("alcor_ncm_commit_to_visible_seconds_count", 1.0),
        ("alcor_agent_apply_seconds_count", 1.0),
        (r#"alcor_agent_rows_total{outcome="applied"}"#, 1.0),
        (r#"alcor_agent_rows_total{outcome="refused"}"#, 0.0),
    ] {
        assert!(
            (moved(series) - times).abs() < 0.5,
            "{series} moved by {}",
            moved(series)
        );
    }
    assert!(
        (30.0..=400.0).contains(&moved("alcor_ncm_delta_bytes_total")),
        "the bytes of one row"
    );
    // The port and what its host said of it, and what else was reported meanwhile.
    assert!(moved("alcor_store_changes_total") >= 2.0);
    let done = after[r#"alcor_store_commits_total{outcome="done"}"#];
    assert!((after["alcor_store_commit_seconds_count"] - done).abs() < 0.5);
    assert!((after["alcor_store_batch_changes_sum"] - after["alcor_store_changes_total"]).abs() < 0.5);
    assert!(after["alcor_process_resident_bytes"] > 0.0);

    for series in after.keys() {
        let name = series.split('{').next().unwrap();
        let known = alcor_metrics::ALL.iter().any(|info| name.starts_with(info.name));
        assert!(known, "{series} is not in the table");
        assert!(!series.contains(network.as_str().unwrap()), "{series} has an id");
    }
}
