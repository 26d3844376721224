//! The load: so many clients, each with a kept connection and waiting for every answer.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use super::{Result, http::Client};

/// What one phase gave.
#[derive(Clone, Copy, Debug)]
pub struct Figures {
    /// Requests answered in a second.
    pub requests_per_s: f64,
    /// Half of all answers took no longer, in milliseconds.
    pub p50_ms: f64,
    /// 99 of 100 answers took no longer, in milliseconds.
    pub p99_ms: f64,
}

/// Drives a server for so long. Each client sends the requests in turn, beginning at another one.
pub async fn drive(
    address: SocketAddr,
    clients: usize,
    requests: Vec<Vec<u8>>,
    time: Duration,
) -> Result<Figures> {
    let requests: Arc<[Vec<u8>]> = requests.into();
    let mut connections = Vec::with_capacity(clients);
    for _ in 0..clients {
        connections.push(Client::connect(address).await?);
    }
    let begin = Instant::now();
    let tasks: Vec<_> = connections
        .into_iter()
        .enumerate()
        .map(|(number, mut client)| {
            let requests = Arc::clone(&requests);
            let first = number * requests.len() / clients;
            tokio::spawn(async move {
                let mut times_us = Vec::new();
                for request in requests.iter().cycle().skip(first) {
                    if begin.elapsed() >= time {
                        break;
                    }
                    let sent = Instant::now();
                    client.send(request).await?;
                    times_us.push(sent.elapsed().as_micros());
                }
                Result::Ok(times_us)
            })
        })
        .collect();
    let mut times_us = Vec::new();
    for task in tasks {
        times_us.extend(task.await??);
    }
    let requests_per_s = times_us.len() as f64 / begin.elapsed().as_secs_f64();
    times_us.sort_unstable();
    let quantile = |q: f64| {
        let index = ((times_us.len().max(1) - 1) as f64 * q).round() as usize;
        times_us.get(index).map_or(0.0, |us| *us as f64 / 1000.0)
    };
    Ok(Figures {
        requests_per_s,
        p50_ms: quantile(0.5),
        p99_ms: quantile(0.99),
    })
}
