//! The socket that a gateway's probes go out of and their answers come to. It decides nothing.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use bytes::Bytes;
use tokio::{net::UdpSocket, sync::mpsc, task::JoinHandle};

use crate::{
    core::Event,
    probe::{MEMBERS_MAX, PROBE_BYTES, PROBE_PORT, Probe},
    run::AgentError,
};

/// The sending side. Dropping it ends the receiving one.
pub(crate) struct Probes {
    socket: Arc<UdpSocket>,
    receiver: JoinHandle<()>,
}

impl Drop for Probes {
    fn drop(&mut self) {
        self.receiver.abort();
    }
}

/// Opens the socket at the tunnel address, where the answers come to.
///
/// # Errors
/// When the machine does not have the address.
pub(crate) async fn open(address: IpAddr) -> Result<(Probes, mpsc::Receiver<Event>), AgentError> {
    let socket = UdpSocket::bind(SocketAddr::new(address, 0))
        .await
        .map_err(|source| AgentError::Probes { address, source })?;
    let socket = Arc::new(socket);
    // As many as one round has.
    let (answers, receive) = mpsc::channel(MEMBERS_MAX);
    let receiver = tokio::spawn(receive_all(Arc::clone(&socket), answers));
    Ok((Probes { socket, receiver }, receive))
}

async fn receive_all(socket: Arc<UdpSocket>, answers: mpsc::Sender<Event>) {
    // One more byte than an answer has: what is longer is seen to be none.
    let mut buffer = [0; PROBE_BYTES + 1];
    loop {
        match socket.recv_from(&mut buffer).await {
            Ok((length, from)) => {
                let answer = Event::ProbeAnswer {
                    from: from.ip(),
                    bytes: Bytes::copy_from_slice(&buffer[..length]),
                };
                if answers.send(answer).await.is_err() {
                    return;
                }
            }
            // The kernel tells so of probes that nobody takes (ICMP): they stay unanswered.
            Err(error) => tracing::trace!(%error, "a probe did not arrive"),
        }
    }
}

impl Probes {
    /// Sends a probe; one that cannot be sent stays unanswered.
    pub(crate) fn send(&self, probe: Probe) {
        let to = SocketAddr::new(probe.to, PROBE_PORT);
        if let Err(error) = self.socket.try_send_to(&probe.packet, to) {
            tracing::trace!(%error, %to, "a probe was not sent");
        }
    }
}
