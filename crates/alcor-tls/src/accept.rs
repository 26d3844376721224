//! The listening end: connections that are ready for requests, each with what is known of who is there.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use alcor_metrics::TLS_REFUSED;
use futures::{Stream, StreamExt as _};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_stream::wrappers::TcpListenerStream;
use tokio_util::either::Either;
use tonic::transport::server::Connected;

use crate::{
    files::Tls,
    identity::{Names, Peer},
};

/// Connections that may be in the middle of their handshake; the next ones wait to be accepted.
pub const HANDSHAKES_MAX: usize = 1_024;
/// How long a handshake may take.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);

/// A listener, and how its connections begin.
#[derive(Debug)]
pub struct Incoming {
    listener: TcpListener,
    tls: Option<Tls>,
}

impl Incoming {
    /// With TLS: nobody gets in without a certificate. Without: everybody does.
    pub fn new(listener: TcpListener, tls: Option<Tls>) -> Self {
        Self { listener, tls }
    }

    /// Where strangers may get in: the address, when it is not of loopback and there is no TLS.
    pub fn exposed(&self) -> Option<SocketAddr> {
        let address = self.listener.local_addr().ok()?;
        (self.tls.is_none() && !address.ip().is_loopback()).then_some(address)
    }

    /// The connections, as they become ready. Those that are refused do not appear; they are counted.
    pub fn connections(self) -> impl Stream<Item = io::Result<Connection>> {
        let Self { listener, tls } = self;
        TcpListenerStream::new(listener)
            .map(move |accepted| ready(accepted, tls.clone()))
            .buffer_unordered(HANDSHAKES_MAX)
            .filter_map(async |connection| connection)
    }
}

/// Makes a connection ready; nothing when it is refused.
async fn ready(accepted: io::Result<TcpStream>, tls: Option<Tls>) -> Option<io::Result<Connection>> {
    let stream = match accepted {
        Ok(stream) => stream,
        Err(error) => return Some(Err(error)),
    };
    let address = stream.peer_addr().ok();
    let Some(tls) = tls else {
        let peer = Peer { address, names: None };
        let stream = Either::Left(stream);
        return Some(Ok(Connection { stream, peer }));
    };
    // A task of its own: handshakes are work, and there may be many at once.
    let shaken = tokio::spawn(async move {
        let acceptor = TlsAcceptor::from(tls.current().server);
        tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await
    });
    let reason = match shaken.await {
        Ok(Ok(Ok(stream))) => {
            let chain = stream.get_ref().1.peer_certificates().unwrap_or_default();
            let peer = Peer {
                address,
                names: Some(Names::of(chain)),
            };
            let stream = Either::Right(Box::new(stream));
            return Some(Ok(Connection { stream, peer }));
        }
        Ok(Ok(Err(error))) => error.to_string(),
        Ok(Err(_)) => format!("it took longer than {HANDSHAKE_TIMEOUT:?}"),
        Err(error) => error.to_string(),
    };
    TLS_REFUSED.add(["handshake"], 1);
    tracing::info!(?address, reason, "a connection is refused");
    None
}

/// A connection that was accepted.
#[derive(Debug)]
pub struct Connection {
    stream: Either<TcpStream, Box<TlsStream<TcpStream>>>,
    peer: Peer,
}

impl Connected for Connection {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
