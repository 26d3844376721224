//! TCP connections that are made and closed one after the other, between two namespaces.

use std::{
    fs::File,
    io::Read as _,
    net::{SocketAddr, TcpListener, TcpStream},
    os::fd::AsRawFd as _,
    thread,
    time::{Duration, Instant},
};

use alcor_lab::Namespace;
use nix::{
    sched::{CloneFlags, setns},
    sys::socket::{Shutdown, shutdown},
};

/// How long a connection may take to be made.
const PATIENCE: Duration = Duration::from_secs(10);

/// Connections per second, by each client one after the other. The server closes first, so that the clients' ports are free
/// again.
///
/// # Errors
/// When one is not made.
pub(super) fn per_second(
    clients: &[&Namespace],
    server: &Namespace,
    address: SocketAddr,
    time: Duration,
) -> anyhow::Result<f64> {
    let listener = inside(server, || TcpListener::bind(address))??;
    thread::scope(|scope| {
        // It ends with the first connection that cannot be accepted: the listener is shut below.
        let server = scope.spawn(|| {
            let mut count = 0u64;
            while let Ok((stream, _)) = listener.accept() {
                drop(stream);
                count += 1;
            }
            count
        });
        let counting: Vec<_> = clients
            .iter()
            .map(|client| scope.spawn(move || inside(client, || count(address, time))))
            .collect();
        let counted: Vec<_> = counting.into_iter().map(|thread| thread.join()).collect();
        shutdown(listener.as_raw_fd(), Shutdown::Both)?;
        let accepted = server.join().unwrap_or_default();
        let (mut connections, mut rate) = (0, 0.0);
        for counted in counted {
            let (made, elapsed) =
                counted.map_err(|_| anyhow::anyhow!("a thread of the benchmark panicked"))???;
            connections += made;
            rate += made as f64 / elapsed.as_secs_f64();
        }
        anyhow::ensure!(
            accepted >= connections,
            "{connections} connections, {accepted} accepted"
        );
        Ok(rate)
    })
}

fn count(address: SocketAddr, time: Duration) -> anyhow::Result<(u64, Duration)> {
    let start = Instant::now();
    let mut connections = 0;
    while start.elapsed() < time {
        let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
        // Its end: the server has closed.
        stream.read_to_end(&mut Vec::new())?;
        connections += 1;
    }
    Ok((connections, start.elapsed()))
}

/// Does something on a thread inside a namespace; sockets made there stay there.
fn inside<T: Send>(namespace: &Namespace, what: impl FnOnce() -> T + Send) -> anyhow::Result<T> {
    let file = File::open(format!("/run/netns/{}", namespace.name()))?;
    let body = || {
        setns(&file, CloneFlags::CLONE_NEWNET)?;
        anyhow::Ok(what())
    };
    thread::scope(|scope| scope.spawn(body).join())
        .unwrap_or_else(|_| Err(anyhow::anyhow!("a thread of the benchmark panicked")))
}
