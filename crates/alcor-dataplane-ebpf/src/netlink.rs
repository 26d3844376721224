//! One question to the kernel about links, one answer (rtnetlink(7)): what attaching a port needs, on the thread that
//! applies rows. Watching links is the agent's, which has an asynchronous connection of its own.

use std::io;

use netlink_packet_core::{NLM_F_ACK, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::{RouteNetlinkMessage, link::LinkMessage};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};

/// Longest answer: the attributes of one link, with much room.
const ANSWER_BYTES: usize = 64 << 10;

/// What is wanted of a link.
pub(crate) enum Ask {
    /// Look at it.
    Get(LinkMessage),
    /// Make it; `NLM_F_EXCL`: it must not be there.
    New(LinkMessage),
    /// Change it.
    Set(LinkMessage),
    /// Remove it.
    Delete(LinkMessage),
}

/// Asks and waits for the answer. A link comes back from [`Ask::Get`] only.
///
/// # Errors
/// What the kernel says, `ENODEV` among it.
pub(crate) fn ask(ask: Ask) -> io::Result<Option<LinkMessage>> {
    let (message, flags) = match ask {
        Ask::Get(link) => (RouteNetlinkMessage::GetLink(link), 0),
        Ask::New(link) => {
            let flags = netlink_packet_core::NLM_F_CREATE | netlink_packet_core::NLM_F_EXCL | NLM_F_ACK;
            (RouteNetlinkMessage::NewLink(link), flags)
        }
        Ask::Set(link) => (RouteNetlinkMessage::SetLink(link), NLM_F_ACK),
        Ask::Delete(link) => (RouteNetlinkMessage::DelLink(link), NLM_F_ACK),
    };
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | flags;
    let mut request = NetlinkMessage::new(header, NetlinkPayload::from(message));
    request.finalize();
    let mut bytes = vec![0; request.buffer_len()];
    request.serialize(&mut bytes);

    let mut socket = Socket::new(NETLINK_ROUTE)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    socket.send(&bytes, 0)?;
    let mut answer = vec![0; ANSWER_BYTES];
    let received = socket.recv(&mut &mut answer[..], 0)?;
    let answer = NetlinkMessage::<RouteNetlinkMessage>::deserialize(&answer[..received])
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
    match answer.payload {
        NetlinkPayload::Error(error) if error.code.is_none() => Ok(None),
        NetlinkPayload::Error(error) => Err(error.to_io()),
        NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewLink(link)) => Ok(Some(link)),
        _ => Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "the kernel answered something else than a link",
        )),
    }
}
