//! What is measured of a server, one phase after the other. The same for Alcor and for the server beside it.

use std::{net::SocketAddr, time::Duration};

use serde_json::{Value, json};

use super::{
    Result,
    http::{Client, request},
    load::{Figures, drive},
};

/// Ports in one bulk request.
pub const BULK: usize = 50;
/// Addresses in the subnet: more than any run takes.
const SUBNET: &str = "10.0.0.0/8";
/// Ports of which single ones are shown and updated in turn.
const TURN: usize = 500;

/// A server, and the network in which it makes ports.
pub struct Bench {
    name: &'static str,
    address: SocketAddr,
    network: String,
    time: Duration,
}

impl Bench {
    /// Makes the network.
    pub async fn begin(name: &'static str, address: SocketAddr, time: Duration) -> Result<Self> {
        let network = network(address, SUBNET).await?;
        Ok(Self {
            name,
            address,
            network,
            time,
        })
    }

    async fn phase(&self, what: &str, clients: usize, per: usize, requests: Vec<Vec<u8>>) -> Result<Figures> {
        let figures = drive(self.address, clients, requests, self.time).await?;
        let rate = figures.requests_per_s * per as f64;
        eprintln!(
            "{:<10}{what:<28}{clients:>8}{rate:>12.1}{:>12.2}{:>12.2}",
            self.name, figures.p50_ms, figures.p99_ms
        );
        Ok(figures)
    }

    /// One port a request.
    pub async fn create(&self, clients: usize) -> Result<Figures> {
        let body = json!({"port": port(&self.network, "vm")}).to_string();
        self.phase(
            "create, ports/s",
            clients,
            1,
            vec![request("POST", "/v2.0/ports", &body)],
        )
        .await
    }

    /// [`BULK`] ports a request.
    pub async fn bulk(&self, clients: usize) -> Result<Figures> {
        let requests = vec![bulk(&self.network, BULK, "vm")];
        self.phase(&format!("bulk of {BULK}, ports/s"), clients, BULK, requests)
            .await
    }

    /// Fills a network of its own with so many ports of one device, beside `among` others; gives their ids.
    pub async fn fill(&self, listed: usize, among: usize) -> Result<Vec<String>> {
        let network = network(self.address, "11.0.0.0/8").await?;
        let mut client = Client::connect(self.address).await?;
        let mut ids = Vec::new();
        for (count, device) in [(listed, "listed"), (among.saturating_sub(listed), "other")] {
            for left in (1..=count.div_ceil(BULK)).rev() {
                let number = if left == 1 {
                    count - (count.div_ceil(BULK) - 1) * BULK
                } else {
                    BULK
                };
                let answer = client.ask(&bulk(&network, number, device)).await?;
                if device == "listed" {
                    let ports = answer["ports"]
                        .as_array()
                        .ok_or("a bulk creation answers no ports")?;
                    ids.extend(
                        ports
                            .iter()
                            .filter_map(|port| Some(port["id"].as_str()?.to_owned())),
                    );
                }
            }
        }
        Ok(ids)
    }

    /// The ports that [`Self::fill`] made for the one device, by a filter.
    pub async fn list(&self, listed: usize) -> Result<Figures> {
        let list = request("GET", &format!("/v2.0/ports?device_id=listed&limit={listed}"), "");
        let answer = Client::connect(self.address).await?.ask(&list).await?;
        let got = answer["ports"].as_array().map_or(0, Vec::len);
        if got != listed {
            return Err(format!("{}: listed {got} ports, not {listed}", self.name).into());
        }
        self.phase(&format!("list of {listed}, lists/s"), 1, 1, vec![list])
            .await
    }

    /// One port after the other.
    pub async fn show(&self, ids: &[String]) -> Result<Figures> {
        let paths = ids.iter().take(TURN).map(|id| format!("/v2.0/ports/{id}"));
        self.phase(
            "show, ports/s",
            1,
            1,
            paths.map(|path| request("GET", &path, "")).collect(),
        )
        .await
    }

    /// One port after the other.
    pub async fn update(&self, ids: &[String]) -> Result<Figures> {
        let paths = ids.iter().take(TURN).map(|id| format!("/v2.0/ports/{id}"));
        let body = r#"{"port":{"description":"updated"}}"#;
        self.phase(
            "update, ports/s",
            1,
            1,
            paths.map(|path| request("PUT", &path, body)).collect(),
        )
        .await
    }
}

fn port(network: &str, device: &str) -> Value {
    json!({"network_id": network, "name": "bench", "device_id": device})
}

fn bulk(network: &str, count: usize, device: &str) -> Vec<u8> {
    let ports = vec![port(network, device); count];
    request("POST", "/v2.0/ports", &json!({"ports": ports}).to_string())
}

async fn network(address: SocketAddr, cidr: &str) -> Result<String> {
    let mut client = Client::connect(address).await?;
    let network = r#"{"network":{"name":"bench"}}"#;
    let answer = client.ask(&request("POST", "/v2.0/networks", network)).await?;
    let id = answer["network"]["id"].as_str().ok_or("no id")?.to_owned();
    let subnet = json!({"subnet": {"network_id": id, "cidr": cidr, "ip_version": 4}});
    client
        .send(&request("POST", "/v2.0/subnets", &subnet.to_string()))
        .await?;
    Ok(id)
}
