//! One question to the kernel about links or routes, one answer (rtnetlink(7)): what attaching a port or owning an address needs, on the
//! thread that applies rows. Watching links is the agent's, which has an asynchronous connection of its own.

use std::io;

use netlink_packet_core::{NLM_F_ACK, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage, link::LinkMessage, route::RouteMessage};
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
    match send(message, flags)?.answer()? {
        None => Ok(None),
        Some(RouteNetlinkMessage::NewLink(link)) => Ok(Some(link)),
        Some(_) => Err(unexpected()),
    }
}

/// Adds a route, or removes it. One that is there already, or not there any more, is as good.
///
/// # Errors
/// What the kernel says.
pub(crate) fn set_route(route: RouteMessage, is_there: bool) -> io::Result<()> {
    let (message, flags, fine) = if is_there {
        let flags = netlink_packet_core::NLM_F_CREATE | netlink_packet_core::NLM_F_EXCL;
        (RouteNetlinkMessage::NewRoute(route), flags, libc::EEXIST)
    } else {
        (RouteNetlinkMessage::DelRoute(route), 0, libc::ESRCH)
    };
    match send(message, flags | NLM_F_ACK)?.answer() {
        Err(error) if error.raw_os_error() == Some(fine) => Ok(()),
        done => done.map(drop),
    }
}

/// All IPv4 routes.
///
/// # Errors
/// What the kernel says.
pub(crate) fn routes() -> io::Result<Vec<RouteMessage>> {
    let mut question = RouteMessage::default();
    question.header.address_family = AddressFamily::Inet;
    let flags = netlink_packet_core::NLM_F_DUMP;
    let mut exchange = send(RouteNetlinkMessage::GetRoute(question), flags)?;
    let mut routes = Vec::new();
    loop {
        for payload in exchange.receive()? {
            match payload {
                NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewRoute(route)) => routes.push(route),
                NetlinkPayload::Done(_) => return Ok(routes),
                NetlinkPayload::Error(error) => return Err(error.to_io()),
                _ => return Err(unexpected()),
            }
        }
    }
}

fn unexpected() -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        "the kernel answered something else than was asked",
    )
}

/// A question that was asked.
struct Exchange(Socket);

fn send(message: RouteNetlinkMessage, flags: u16) -> io::Result<Exchange> {
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
    Ok(Exchange(socket))
}

impl Exchange {
    /// The messages that come next.
    fn receive(&mut self) -> io::Result<Vec<NetlinkPayload<RouteNetlinkMessage>>> {
        let mut answer = vec![0; ANSWER_BYTES];
        let received = self.0.recv(&mut &mut answer[..], 0)?;
        let mut rest = answer.get(..received).unwrap_or_default();
        let mut payloads = Vec::new();
        while !rest.is_empty() {
            let message = NetlinkMessage::<RouteNetlinkMessage>::deserialize(rest)
                .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
            // Messages are aligned to four bytes.
            let len = (message.header.length as usize).next_multiple_of(4).max(4);
            rest = rest.get(len..).unwrap_or_default();
            payloads.push(message.payload);
        }
        Ok(payloads)
    }

    /// The only answer; `None`: it is done.
    fn answer(mut self) -> io::Result<Option<RouteNetlinkMessage>> {
        match self.receive()?.into_iter().next() {
            Some(NetlinkPayload::Error(error)) if error.code.is_none() => Ok(None),
            Some(NetlinkPayload::Error(error)) => Err(error.to_io()),
            Some(NetlinkPayload::InnerMessage(message)) => Ok(Some(message)),
            _ => Err(unexpected()),
        }
    }
}
