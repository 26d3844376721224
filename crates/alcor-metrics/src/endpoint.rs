//! `GET /metrics` in Prometheus's text format, on a listener of its own: what is there is no secret of tenants, but the
//! API's callers have no business with it.

use std::{future::Future, time::Duration};

use axum::{Router, extract::State, routing::get};
use http::header::CONTENT_TYPE;
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use thiserror::Error;
use tokio::net::TcpListener;

use crate::{BUILD_INFO, Info, PROCESS_RESIDENT_BYTES, Type, table};

/// Prometheus's text format.
const FORMAT: &str = "text/plain; version=0.0.4; charset=utf-8";
/// How often values of histograms are moved into their buckets when nobody scrapes: this bounds what waits.
const UPKEEP: Duration = Duration::from_secs(5);

/// Metrics cannot be counted.
#[derive(Debug, Error)]
#[error("metrics cannot be counted: {0}")]
pub struct InstallError(String);

/// What has been counted; cheap to clone.
#[derive(Clone)]
pub struct Metrics(PrometheusHandle);

/// Counts from now on, in the whole process. `version` is the program's.
///
/// # Errors
/// When something in the process counts already.
pub fn install(version: &str) -> Result<Metrics, InstallError> {
    let mut builder = PrometheusBuilder::new();
    for info in table::ALL {
        if let Type::Histogram(bounds) = info.kind {
            builder = builder
                .set_buckets_for_metric(Matcher::Full(info.name.to_owned()), bounds)
                .map_err(|error| InstallError(error.to_string()))?;
        }
    }
    let handle = builder
        .install_recorder()
        .map_err(|error| InstallError(error.to_string()))?;
    table::ALL.iter().for_each(|info| begin(info));
    BUILD_INFO.set([version], 1);
    Ok(Metrics(handle))
}

/// Says what a metric is. Without labels it is there from the start: "none yet" and "not there" are different answers.
fn begin(info: &Info) {
    let alone = info.labels.is_empty();
    match info.kind {
        Type::Counter => {
            metrics::describe_counter!(info.name, info.help);
            if alone {
                metrics::counter!(info.name).increment(0);
            }
        }
        Type::Gauge => {
            metrics::describe_gauge!(info.name, info.help);
            if alone {
                metrics::gauge!(info.name).set(0.0);
            }
        }
        Type::Histogram(_) => {
            metrics::describe_histogram!(info.name, info.help);
            if alone {
                drop(metrics::histogram!(info.name));
            }
        }
    }
}

impl Metrics {
    /// Everything as Prometheus reads it.
    pub fn render(&self) -> String {
        if let Some(bytes) = resident_bytes() {
            PROCESS_RESIDENT_BYTES.set([], bytes);
        }
        self.0.render()
    }

    /// Serves until `shutdown`.
    ///
    /// # Errors
    /// When the listener cannot be used.
    pub async fn serve(
        self,
        listener: TcpListener,
        shutdown: impl Future<Output = ()> + Send + 'static,
    ) -> std::io::Result<()> {
        let handle = self.0.clone();
        let upkeep = tokio::spawn(async move {
            let mut tick = tokio::time::interval(UPKEEP);
            loop {
                tick.tick().await;
                handle.run_upkeep();
            }
        });
        let router = Router::new()
            .route(
                "/metrics",
                get(
                    |State(metrics): State<Self>| async move { ([(CONTENT_TYPE, FORMAT)], metrics.render()) },
                ),
            )
            .with_state(self);
        let served = axum::serve(listener, router)
            .with_graceful_shutdown(shutdown)
            .await;
        upkeep.abort();
        served
    }
}

/// `VmRSS` of `/proc/self/status`, which is in KiB.
fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kib * 1_024)
}
