//! From the API call to "visible to packets": a port is bound to a real host (agent, kernel programs, device) while its
//! network has 10, 1,000 and 100,000 ports on simulated hosts, whose agents hold real sessions in one process.
//!
//! What grows with the network here is what eager neighbours force: the measured host holds a row for every other
//! port, and every host with ports in the network is told of the new one.

use std::time::Duration;

use alcor_lab::eventually;
use anyhow::Context as _;
use serde_json::{Value, json};

use super::{Figures, percentile, print_table, rounded};
use crate::{
    cloud::{Build, Cloud, Host, PROGRAMS, clean, device, now_us, text},
    setup::{For, setup},
};

const LAB: &str = "bench";
/// Hosts that the other ports are spread over.
const SIMULATED_HOSTS: usize = 20;
/// Ports made by one API call.
const BULK: usize = 500;
/// How long the hosts may take to have everything before the measurement starts.
const SETTLE: Duration = Duration::from_secs(120);

pub(super) fn bench(quick: bool) -> anyhow::Result<Figures> {
    setup(For::Demo)?;
    Build::Release.packages(PROGRAMS)?;
    let samples = if quick { 20 } else { 200 };
    let mut figures = Figures::new();
    let mut rows = vec![vec![
        "ports in the network".into(),
        "p50".into(),
        "p99".into(),
        "samples".into(),
    ]];
    for (index, ports) in [10usize, 1_000, 100_000].into_iter().enumerate() {
        clean(LAB)?;
        let mut times = measure(ports, samples, index).with_context(|| format!("with {ports} ports"))?;
        times.sort_by(f64::total_cmp);
        let (p50, p99) = (percentile(&times, 0.5), percentile(&times, 0.99));
        figures.insert(format!("p50_ms_{ports}"), rounded(p50));
        figures.insert(format!("p99_ms_{ports}"), rounded(p99));
        rows.push(vec![
            ports.to_string(),
            format!("{p50:.2} ms"),
            format!("{p99:.2} ms"),
            times.len().to_string(),
        ]);
    }
    clean(LAB)?;
    print_table(rows);
    eprintln!(
        "{SIMULATED_HOSTS} simulated hosts share the machine's cores with the controller and the measured host; each is told of every new port (eager neighbours)."
    );
    figures.insert("simulated_hosts".into(), json!(SIMULATED_HOSTS));
    Ok(figures)
}

/// Milliseconds from the API call that binds a port until its host says that packets see it, for each sample.
fn measure(ports: usize, samples: usize, index: usize) -> anyhow::Result<Vec<f64>> {
    let cloud = Cloud::start(LAB, Build::Release)?;
    let network = network(&cloud, index)?;
    let url = cloud.southbound();
    let hosts = SIMULATED_HOSTS.to_string();
    let args = [
        "sockets",
        "--ncm",
        url.as_str(),
        "--hosts",
        hosts.as_str(),
        "--prefix",
        "sim",
    ];
    cloud
        .lab
        .spawn(None, "sim", &Build::Release.program("alcor-sim"), &args)?;
    let host = cloud.host(1)?;
    fill(&cloud, &network, ports)?;
    let mut times = Vec::with_capacity(samples);
    // The first port brings the whole network to the host; it is not one of the samples.
    sample(&cloud, &host, &network)?;
    settle(&cloud)?;
    let progress = indicatif::ProgressBar::new(samples as u64)
        .with_prefix(format!("{ports} ports"))
        .with_style(indicatif::ProgressStyle::with_template(
            "{prefix:>14} {bar:40} {pos}/{len}",
        )?);
    for _ in 0..samples {
        times.push(sample(&cloud, &host, &network)?);
        progress.inc(1);
    }
    progress.finish();
    Ok(times)
}

fn network(cloud: &Cloud, index: usize) -> anyhow::Result<String> {
    let body = json!({"network": {"name": format!("bench-{index}")}});
    let network = text(&cloud.api.post("/v2.0/networks", &body)?["network"]["id"])?.to_owned();
    let body = json!({"subnet": {"network_id": network, "ip_version": 4, "cidr": "10.0.0.0/8"}});
    cloud.api.post("/v2.0/subnets", &body)?;
    Ok(network)
}

/// Makes the network's other ports, spread over the simulated hosts.
fn fill(cloud: &Cloud, network: &str, ports: usize) -> anyhow::Result<()> {
    let progress = indicatif::ProgressBar::new(ports as u64)
        .with_prefix("making ports")
        .with_style(indicatif::ProgressStyle::with_template(
            "{prefix:>14} {bar:40} {pos}/{len}",
        )?);
    let mut made = 0;
    while made < ports {
        let count = BULK.min(ports - made);
        let port = |index: usize| {
            let host = format!("sim-{}", index % SIMULATED_HOSTS);
            json!({"network_id": network, "binding:host_id": host})
        };
        let body: Vec<Value> = (made..made + count).map(port).collect();
        cloud.api.post("/v2.0/ports", &json!({ "ports": body }))?;
        made += count;
        progress.set_position(made as u64);
    }
    progress.finish();
    settle(cloud)
}

/// Waits until every host has applied everything.
fn settle(cloud: &Cloud) -> anyhow::Result<()> {
    eventually("all hosts to be up to date", SETTLE, || {
        let body = cloud
            .api
            .get("/alcor/v1/hosts")
            .map_err(|error| format!("{error:#}"))?;
        let hosts = body["hosts"].as_array().cloned().unwrap_or_default();
        let behind: Vec<_> = hosts
            .iter()
            .filter(|host| host["pending"] != 0 || host["alive"] != true)
            .collect();
        if hosts.len() == SIMULATED_HOSTS + 1 && behind.is_empty() {
            Ok(())
        } else {
            Err(format!("{} hosts, {} behind", hosts.len(), behind.len()))
        }
    })?;
    Ok(())
}

/// Makes a port and its device, then measures its binding.
fn sample(cloud: &Cloud, host: &Host, network: &str) -> anyhow::Result<f64> {
    let port = cloud
        .api
        .post("/v2.0/ports", &json!({"port": {"network_id": network}}))?["port"]
        .take();
    let id = text(&port["id"])?;
    let device = device(id);
    host.namespace.ip(&[
        "link",
        "add",
        &device,
        "type",
        "veth",
        "peer",
        "name",
        &device.replace("tap", "vm-"),
    ])?;
    host.namespace.ip(&["link", "set", &device, "up"])?;
    let called_us = now_us();
    cloud.api.put(
        &format!("/v2.0/ports/{id}"),
        &json!({"port": {"binding:host_id": host.name}}),
    )?;
    cloud.wait_active(id)?;
    let status = cloud.api.get(&format!("/alcor/v1/ports/{id}/status"))?;
    let visible_us = status["timing"]["visible_us"]
        .as_u64()
        .context("the status has no time")?;
    anyhow::ensure!(
        visible_us > called_us,
        "the port was visible before it was bound: {status}"
    );
    Ok((visible_us - called_us) as f64 / 1e3)
}
