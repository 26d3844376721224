//! The local socket for attaching devices: one JSON object a line in, one out; see `docs/agent.md`.
//!
//! Reads and writes lines; what they mean is decided in [`crate::core`].

use std::{io, os::unix::fs::PermissionsExt, path::Path, sync::Arc};

use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{UnixListener, UnixStream},
    sync::{Semaphore, mpsc, oneshot},
};

use crate::request::Request;

/// Most clients at one time; more wait to be accepted.
pub const MAX_CLIENTS: usize = 64;
/// Longest line of a client in bytes, the line feed included.
pub const MAX_LINE: u64 = 4_096;

/// A request and where its answer goes.
#[derive(Debug)]
pub(crate) struct Ask {
    pub(crate) request: Request,
    pub(crate) reply: oneshot::Sender<Value>,
}

/// Makes the socket, for the owner only. A socket that nobody listens on any more is replaced.
pub(crate) async fn bind(path: &Path) -> io::Result<UnixListener> {
    if UnixStream::connect(path).await.is_ok() {
        return Err(io::Error::new(
            io::ErrorKind::AddrInUse,
            "another agent listens on it",
        ));
    }
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    // Under another name until the permissions are right.
    let fresh = path.with_extension("new");
    match std::fs::remove_file(&fresh) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(&fresh)?;
    std::fs::set_permissions(&fresh, std::fs::Permissions::from_mode(0o600))?;
    std::fs::rename(&fresh, path)?;
    Ok(listener)
}

/// Serves clients until the receiver of the requests is gone.
pub(crate) async fn serve(listener: UnixListener, asks: mpsc::Sender<Ask>) {
    let places = Arc::new(Semaphore::new(MAX_CLIENTS));
    while let Ok(place) = Arc::clone(&places).acquire_owned().await {
        let stream = tokio::select! {
            accepted = listener.accept() => accepted,
            () = asks.closed() => return,
        };
        match stream {
            Ok((stream, _)) => {
                let asks = asks.clone();
                tokio::spawn(async move {
                    if let Err(error) = client(stream, asks).await {
                        tracing::debug!(%error, "client of the local socket went");
                    }
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "the local socket did not accept a client");
                // Out of file descriptors, most likely: do not spin.
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            }
        }
    }
}

async fn client(stream: UnixStream, asks: mpsc::Sender<Ask>) -> io::Result<()> {
    let (reader, mut writer) = stream.into_split();
    let mut reader = BufReader::new(reader);
    loop {
        let mut line = Vec::new();
        let mut limited = (&mut reader).take(MAX_LINE);
        tokio::select! {
            read = limited.read_until(b'\n', &mut line) => { read?; }
            () = asks.closed() => return Ok(()),
        }
        if line.is_empty() {
            return Ok(());
        }
        let whole = line.last() == Some(&b'\n');
        let answer = match whole {
            true => answer(&line, &asks).await,
            false => {
                json!({"error": format!("a line must end with a line feed after at most {MAX_LINE} bytes")})
            }
        };
        let mut text = answer.to_string();
        text.push('\n');
        writer.write_all(text.as_bytes()).await?;
        if !whole {
            return Ok(());
        }
    }
}

async fn answer(line: &[u8], asks: &mpsc::Sender<Ask>) -> Value {
    let request = match serde_json::from_slice(line) {
        Ok(request) => request,
        Err(error) => return json!({"error": format!("not a request: {error}")}),
    };
    let (reply, answer) = oneshot::channel();
    let gone = || json!({"error": "the agent is stopping"});
    if asks.send(Ask { request, reply }).await.is_err() {
        return gone();
    }
    answer.await.unwrap_or_else(|_| gone())
}
