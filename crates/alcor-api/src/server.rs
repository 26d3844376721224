//! The HTTP/1.1 server around the router: bounded connections, timeouts, graceful end.

use std::{future::Future, net::SocketAddr, sync::Arc, time::Duration};

use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use thiserror::Error;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Semaphore, watch},
    task::JoinSet,
};

use crate::{router::router, state::ApiState};

/// Longest time that a connection may be silent before the head of a request is complete.
const HEAD_TIMEOUT: Duration = Duration::from_secs(60);
/// Largest head of a request, and the read buffer of a connection, in bytes.
const MAX_HEAD_BYTES: usize = 64 << 10;
/// Time that requests in progress have at the end.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(10);
/// Pause after a failed accept, which mostly means that no file descriptor is left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// An address that would let strangers in.
#[derive(Debug, Error, PartialEq, Eq)]
#[error(
    "an API without authentication only listens on loopback, not on {0}; set api_listen to 127.0.0.1:{port} or [::1]:{port}, or have tokens checked (controller.auth)",
    port = .0.port()
)]
pub struct NotLoopback(pub SocketAddr);

/// Refuses addresses that are not loopback: without authentication, whoever reaches the port is admin.
///
/// # Errors
/// For every address that is not loopback.
pub fn check_bind(address: SocketAddr) -> Result<(), NotLoopback> {
    if address.ip().to_canonical().is_loopback() {
        Ok(())
    } else {
        Err(NotLoopback(address))
    }
}

/// Serves until `shutdown` resolves, then lets requests in progress end (at most 10 s).
///
/// # Errors
/// When the listener's address cannot be read, or is not loopback and there is no authentication.
pub async fn serve(
    listener: TcpListener,
    state: ApiState,
    shutdown: impl Future<Output = ()> + Send,
) -> std::io::Result<()> {
    let address = listener.local_addr()?;
    if state.config().authentication.is_noauth() {
        check_bind(address)
            .map_err(|error| std::io::Error::new(std::io::ErrorKind::PermissionDenied, error))?;
        tracing::warn!(%address, "API without authentication: whoever reaches this address is admin");
    }
    let slots = Arc::new(Semaphore::new(state.config().max_connections));
    let service = TowerToHyperService::new(router(state));
    let (stop, stopping) = watch::channel(false);
    let mut connections = JoinSet::new();
    tokio::pin!(shutdown);
    loop {
        let accepted = tokio::select! {
            () = &mut shutdown => break,
            Some(_) = connections.join_next(), if !connections.is_empty() => continue,
            accepted = accept(&listener, &slots) => accepted,
        };
        match accepted {
            Some((stream, slot)) => {
                let connection = serve_connection(stream, service.clone(), stopping.clone());
                connections.spawn(async move {
                    connection.await;
                    drop(slot);
                });
            }
            None => tokio::time::sleep(ACCEPT_PAUSE).await,
        }
    }
    drop(listener);
    stop.send_replace(true);
    let all_done = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(SHUTDOWN_GRACE, all_done).await.is_err() {
        tracing::warn!("requests were still in progress at the end and are cut off");
    }
    Ok(())
}

async fn accept(
    listener: &TcpListener,
    slots: &Arc<Semaphore>,
) -> Option<(TcpStream, tokio::sync::OwnedSemaphorePermit)> {
    let slot = Arc::clone(slots).acquire_owned().await.ok()?;
    match listener.accept().await {
        Ok((stream, _)) => Some((stream, slot)),
        Err(error) => {
            tracing::warn!(%error, "a connection could not be accepted");
            None
        }
    }
}

async fn serve_connection(
    stream: TcpStream,
    service: TowerToHyperService<axum::Router>,
    mut stopping: watch::Receiver<bool>,
) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "TCP_NODELAY could not be set");
    }
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(MAX_HEAD_BYTES)
        .serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let result = tokio::select! {
        result = connection.as_mut() => result,
        () = async { drop(stopping.wait_for(|stop| *stop).await) } => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = result {
        tracing::debug!(%error, "a connection ended early");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_is_served_without_authentication() {
        for good in [
            "127.0.0.1:9696",
            "[::1]:9696",
            "127.8.0.1:1",
            "[::ffff:127.0.0.1]:1",
        ] {
            assert_eq!(check_bind(good.parse().unwrap()), Ok(()));
        }
        for bad in ["0.0.0.0:9696", "[::]:9696", "192.0.2.1:9696", "[2001:db8::1]:1"] {
            let error = check_bind(bad.parse().unwrap()).unwrap_err();
            assert!(error.to_string().contains("only listens on loopback"), "{error}");
        }
    }
}
