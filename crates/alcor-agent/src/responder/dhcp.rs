//! DHCPv4 (RFC 2131) without a lease database: a port's address is what its goal state says, for ever, so
//! every client is answered from the rows alone and a restart forgets nothing.
//!
//! Requests are read here, by hand: the decoder of the library that writes the answers asserts the lengths of
//! some options (version 0.15), so that a tenant could stop the agent with one packet.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr},
};

use alcor_dataplane::SubnetRow;
use alcor_model::{MacAddr, net::GATEWAY_MAC};
use dhcproto::{
    Encodable, Encoder,
    v4::{DhcpOption, Flags, HType, MAGIC, Message, MessageType, Opcode, OptionCode},
};
use ipnet::{IpNet, Ipv4Net};

use super::{
    Context, Refusal,
    frame::{IPV4, UDP, ethernet, ipv4, split_ethernet, split_ipv4, udp4},
};

/// The server's address in subnets without a gateway (link-local, as clouds use for their services).
pub const SERVER_WITHOUT_GATEWAY: Ipv4Addr = Ipv4Addr::new(169, 254, 169, 254);
/// Shortest BOOTP message (RFC 1542, section 2.1).
pub const MIN_MESSAGE: usize = 300;
const SERVER_PORT: u16 = 67;
const CLIENT_PORT: u16 = 68;
/// Options start behind 236 bytes of header and 4 of magic cookie.
const OPTIONS_AT: usize = 240;

/// What the port is given.
struct Offer<'a> {
    address: Ipv4Addr,
    prefix: Ipv4Net,
    gateway: Option<Ipv4Addr>,
    subnet: &'a SubnetRow,
}

impl Offer<'_> {
    /// The port's first IPv4 address in a subnet with DHCP.
    fn find<'a>(context: &Context<'a>) -> Option<Offer<'a>> {
        context
            .addresses()
            .find_map(|(address, subnet)| match (address, subnet.cidr) {
                (IpAddr::V4(address), IpNet::V4(prefix)) if subnet.enable_dhcp => {
                    let gateway = match subnet.gateway_ip {
                        Some(IpAddr::V4(gateway)) => Some(gateway),
                        _ => None,
                    };
                    Some(Offer {
                        address,
                        prefix,
                        gateway,
                        subnet,
                    })
                }
                _ => None,
            })
    }

    fn server(&self) -> Ipv4Addr {
        self.gateway.unwrap_or(SERVER_WITHOUT_GATEWAY)
    }
}

/// The answer to a frame with a DHCP message, as a whole frame; `None` when the message needs none.
///
/// # Errors
/// [`Refusal::Malformed`] when it is no DHCP request, [`Refusal::NoAddress`] when the port has no IPv4 address
/// in a subnet with DHCP, [`Refusal::NotForUs`] when another server is meant or the MAC is not the port's.
pub fn answer(context: &Context<'_>, frame: &[u8]) -> Result<Option<Vec<u8>>, Refusal> {
    let request = parse(frame)?;
    let offer = Offer::find(context).ok_or(Refusal::NoAddress)?;
    // There is nobody else behind a port.
    if request.mac != context.port.mac {
        return Err(Refusal::NotForUs);
    }
    let other_server = request.server.is_some_and(|server| server != offer.server());
    let reply = match request.kind {
        MessageType::Discover => Some(MessageType::Offer),
        MessageType::Request if other_server => return Err(Refusal::NotForUs),
        MessageType::Request => Some(judge_request(&request, &offer)),
        MessageType::Inform => Some(MessageType::Ack),
        // The address stays the port's: nothing to give back, nothing else to offer.
        MessageType::Release | MessageType::Decline => None,
        _ => return Err(Refusal::NotForUs),
    };
    Ok(reply.map(|kind| write(context, &request, &offer, kind)))
}

/// What is read of a request.
struct Request {
    kind: MessageType,
    xid: u32,
    broadcast: bool,
    /// The address that the client has, unspecified when none.
    ciaddr: Ipv4Addr,
    giaddr: Ipv4Addr,
    mac: MacAddr,
    requested: Option<Ipv4Addr>,
    server: Option<Ipv4Addr>,
    client: Option<Vec<u8>>,
    /// The codes of the parameter request list, in the client's order.
    wanted: Vec<OptionCode>,
}

fn parse(frame: &[u8]) -> Result<Request, Refusal> {
    let (_, ethertype, packet) = split_ethernet(frame)?;
    if ethertype != IPV4 {
        return Err(Refusal::Malformed);
    }
    let ip = split_ipv4(packet)?;
    let udp = ip.payload;
    if ip.protocol != UDP || !ip.first_fragment || udp.len() < 8 {
        return Err(Refusal::Malformed);
    }
    let length = usize::from(u16::from_be_bytes([udp[4], udp[5]]));
    let message = udp.get(8..length).ok_or(Refusal::Malformed)?;
    let (header, options) = message.split_at_checked(OPTIONS_AT).ok_or(Refusal::Malformed)?;
    // BOOTREQUEST, hardware type Ethernet, address length 6, magic cookie.
    if header[..3] != [1, 1, 6] || header[236..] != MAGIC {
        return Err(Refusal::Malformed);
    }
    let mut mac = [0; 6];
    mac.copy_from_slice(&header[28..34]);
    let options = parse_options(options)?;
    let option = |code: u8| options.get(&code).copied();
    let address_option = |code| {
        option(code)
            .map(|v| address(v).ok_or(Refusal::Malformed))
            .transpose()
    };
    let Some([kind]) = option(53) else {
        return Err(Refusal::Malformed);
    };
    Ok(Request {
        kind: MessageType::from(*kind),
        xid: u32::from_be_bytes([header[4], header[5], header[6], header[7]]),
        broadcast: header[10] & 0x80 != 0,
        ciaddr: address(&header[12..16]).unwrap_or(Ipv4Addr::UNSPECIFIED),
        giaddr: address(&header[24..28]).unwrap_or(Ipv4Addr::UNSPECIFIED),
        mac: MacAddr(mac),
        requested: address_option(50)?,
        server: address_option(54)?,
        client: option(61).map(<[u8]>::to_vec),
        wanted: option(55)
            .unwrap_or_default()
            .iter()
            .copied()
            .map(OptionCode::from)
            .collect(),
    })
}

/// Options by code up to the end option (or the end of the message); the first of a code counts.
fn parse_options(mut rest: &[u8]) -> Result<BTreeMap<u8, &[u8]>, Refusal> {
    let mut options = BTreeMap::new();
    while let [code, after @ ..] = rest {
        match (code, after) {
            (0, _) => rest = after,
            (255, _) => break,
            (_, [length, after @ ..]) => {
                let (value, after) = after
                    .split_at_checked(usize::from(*length))
                    .ok_or(Refusal::Malformed)?;
                options.entry(*code).or_insert(value);
                rest = after;
            }
            _ => return Err(Refusal::Malformed),
        }
    }
    Ok(options)
}

fn address(bytes: &[u8]) -> Option<Ipv4Addr> {
    <[u8; 4]>::try_from(bytes).ok().map(Ipv4Addr::from)
}

/// RFC 2131, section 4.3.2: selecting and init-reboot name the address in an option, renewing and rebinding in
/// `ciaddr`. Right address: ACK. Anything else: NAK, because this server knows all addresses of the port.
fn judge_request(request: &Request, offer: &Offer<'_>) -> MessageType {
    let asked = request.requested.unwrap_or(request.ciaddr);
    if asked == offer.address {
        MessageType::Ack
    } else {
        MessageType::Nak
    }
}

fn write(context: &Context<'_>, request: &Request, offer: &Offer<'_>, kind: MessageType) -> Vec<u8> {
    let inform = request.kind == MessageType::Inform;
    let nak = kind == MessageType::Nak;
    // As in RFC 2131, table 3: INFORM is answered without an address, NAK with none at all.
    let yours = if nak || inform {
        Ipv4Addr::UNSPECIFIED
    } else {
        offer.address
    };
    let client = if kind == MessageType::Ack {
        request.ciaddr
    } else {
        Ipv4Addr::UNSPECIFIED
    };
    let flags = if request.broadcast {
        Flags::default().set_broadcast()
    } else {
        Flags::default()
    };
    let mut reply = Message::default();
    reply
        .set_opcode(Opcode::BootReply)
        .set_htype(HType::Eth)
        .set_xid(request.xid)
        .set_flags(flags)
        .set_ciaddr(client)
        .set_yiaddr(yours)
        .set_giaddr(request.giaddr)
        .set_chaddr(&request.mac.0);
    let mut options = vec![
        DhcpOption::MessageType(kind),
        DhcpOption::ServerIdentifier(offer.server()),
    ];
    // Client identifiers go back as they came (RFC 6842).
    options.extend(request.client.clone().map(DhcpOption::ClientIdentifier));
    if !nak {
        options.extend(settings(context, offer, !inform, &request.wanted));
    }
    let message = encode(&reply, &options);
    let (mac, address) = destination(context, request, offer, kind);
    let datagram = udp4((offer.server(), SERVER_PORT), (address, CLIENT_PORT), &message);
    ethernet(
        mac,
        GATEWAY_MAC,
        IPV4,
        &ipv4(offer.server(), address, UDP, &datagram),
    )
}

/// All that a port may want to know; what the client asked for comes first, in its order.
fn settings(
    context: &Context<'_>,
    offer: &Offer<'_>,
    with_lease: bool,
    wanted: &[OptionCode],
) -> Vec<DhcpOption> {
    let mut options = vec![
        DhcpOption::SubnetMask(offer.prefix.netmask()),
        DhcpOption::BroadcastAddr(offer.prefix.broadcast()),
        DhcpOption::InterfaceMtu(context.network.mtu),
        DhcpOption::Hostname(host_name(context, offer)),
    ];
    if with_lease {
        let lease = u32::try_from(context.lease.as_secs()).unwrap_or(u32::MAX);
        let rebind = u32::try_from(u64::from(lease) * 7 / 8).unwrap_or(lease);
        options.push(DhcpOption::AddressLeaseTime(lease));
        options.push(DhcpOption::Renewal(lease / 2));
        options.push(DhcpOption::Rebinding(rebind));
    }
    options.extend(offer.gateway.map(|gateway| DhcpOption::Router(vec![gateway])));
    let servers: Vec<Ipv4Addr> = offer
        .subnet
        .dns_nameservers
        .iter()
        .filter_map(ipv4_only)
        .collect();
    if !servers.is_empty() {
        options.push(DhcpOption::DomainNameServer(servers));
    }
    let routes = routes(offer);
    if !routes.is_empty() {
        options.push(DhcpOption::ClasslessStaticRoute(routes));
    }
    let place = |option: &DhcpOption| {
        let code = OptionCode::from(option);
        wanted
            .iter()
            .position(|wanted| *wanted == code)
            .unwrap_or(usize::MAX)
    };
    options.sort_by_key(place);
    options
}

/// RFC 3442: a client that reads this option ignores the router option, so the default route is in it too.
fn routes(offer: &Offer<'_>) -> Vec<(Ipv4Net, Ipv4Addr)> {
    let mut routes: Vec<(Ipv4Net, Ipv4Addr)> = offer
        .subnet
        .host_routes
        .iter()
        .filter_map(|route| match (route.destination, route.nexthop) {
            (IpNet::V4(destination), IpAddr::V4(nexthop)) => Some((destination, nexthop)),
            _ => None,
        })
        .collect();
    let default = routes
        .iter()
        .any(|(destination, _)| destination.prefix_len() == 0);
    if let (Some(gateway), false) = (offer.gateway, default) {
        routes.push((Ipv4Net::default(), gateway));
    }
    routes
}

fn host_name(context: &Context<'_>, offer: &Offer<'_>) -> String {
    match context.port.dns_name.as_str() {
        "" => format!("host-{}", offer.address.to_string().replace('.', "-")),
        name => name.to_owned(),
    }
}

const fn ipv4_only(address: &IpAddr) -> Option<Ipv4Addr> {
    match address {
        IpAddr::V4(address) => Some(*address),
        IpAddr::V6(_) => None,
    }
}

/// Header, options in this order, end, padding. Writing into memory does not fail; if it did, what is there is
/// still a message that clients refuse.
fn encode(header: &Message, options: &[DhcpOption]) -> Vec<u8> {
    let mut message = Vec::with_capacity(MIN_MESSAGE);
    let mut encoder = Encoder::new(&mut message);
    let written = header
        .encode(&mut encoder)
        .and_then(|()| options.iter().try_for_each(|option| option.encode(&mut encoder)))
        .and_then(|()| DhcpOption::End.encode(&mut encoder));
    if let Err(error) = written {
        tracing::error!(%error, "a DHCP answer could not be written");
    }
    message.resize(message.len().max(MIN_MESSAGE), 0);
    message
}

/// RFC 2131, section 4.1: to `ciaddr` when the client has it; else broadcast when it asked for that or is told no;
/// else to the address that it is about to get.
fn destination(
    context: &Context<'_>,
    request: &Request,
    offer: &Offer<'_>,
    kind: MessageType,
) -> (MacAddr, Ipv4Addr) {
    let port = context.port.mac;
    if kind == MessageType::Nak {
        (MacAddr::BROADCAST, Ipv4Addr::BROADCAST)
    } else if !request.ciaddr.is_unspecified() {
        (port, request.ciaddr)
    } else if request.broadcast {
        (MacAddr::BROADCAST, Ipv4Addr::BROADCAST)
    } else {
        (port, offer.address)
    }
}
