//! Answers to ports: what they hold, that checksums are right, that no bytes make them panic.
#![allow(clippy::unwrap_used, reason = "a panic is how a test says no")]

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::Duration,
};

use alcor_agent::responder::{
    Context, Refusal, dhcp, frame,
    icmp::{self, Cause},
    ra,
};
use alcor_dataplane::{NetworkRow, PortRow, SubnetRow};
use alcor_model::{
    Id, MacAddr, Vni,
    net::GATEWAY_MAC,
    resource::{FixedIp, HostRoute},
};
use dhcproto::{
    Decodable, Decoder, Encodable, Encoder,
    v4::{DhcpOption, Flags, Message, MessageType, Opcode, OptionCode},
};
use etherparse::{NetSlice, SlicedPacket, TransportSlice};
use proptest::prelude::*;

const MAC: MacAddr = MacAddr([0xfa, 0x16, 0x3e, 0, 0, 9]);
const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 9);
const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);

struct World {
    network: NetworkRow,
    subnets: Vec<SubnetRow>,
    port: PortRow,
}

impl World {
    fn new() -> Self {
        let network_id = Id::generate();
        let network = NetworkRow {
            id: network_id,
            vni: Vni::try_from(7).unwrap(),
            mtu: 1450,
            admin_state_up: true,
            underlay: None,
            on_demand: false,
            gateways: Vec::new(),
        };
        let subnet = |cidr: &str, gateway: &str, dns: &[&str], slaac| SubnetRow {
            id: Id::generate(),
            network_id,
            cidr: cidr.parse().unwrap(),
            gateway_ip: Some(gateway.parse().unwrap()),
            gateway_mac: GATEWAY_MAC,
            enable_dhcp: true,
            slaac,
            dns_nameservers: dns.iter().map(|dns| dns.parse().unwrap()).collect(),
            host_routes: Vec::new(),
        };
        let mut v4 = subnet("10.0.0.0/24", "10.0.0.1", &["9.9.9.9", "1.1.1.1"], false);
        v4.host_routes = vec![HostRoute {
            destination: "192.168.0.0/16".parse().unwrap(),
            nexthop: "10.0.0.254".parse().unwrap(),
        }];
        let v6 = subnet("fd00::/64", "fd00::1", &["2620:fe::fe"], true);
        let fixed_ips = vec![
            FixedIp {
                subnet_id: v6.id,
                ip_address: "fd00::9".parse().unwrap(),
            },
            FixedIp {
                subnet_id: v4.id,
                ip_address: ADDRESS.into(),
            },
        ];
        let port = PortRow {
            id: Id::generate(),
            network_id,
            mac: MAC,
            fixed_ips,
            allowed_address_pairs: Vec::new(),
            admin_state_up: true,
            port_security_enabled: true,
            dns_name: String::new(),
            label: None,
        };
        Self {
            network,
            subnets: vec![v4, v6],
            port,
        }
    }

    fn context(&self) -> Context<'_> {
        Context {
            port: &self.port,
            network: &self.network,
            subnets: self.subnets.iter().collect(),
            lease: Duration::from_secs(86_400),
        }
    }

    fn ask(&self, request: &Message) -> Reply {
        let answer = dhcp::answer(&self.context(), &wrap(request)).unwrap().unwrap();
        Reply::read(&answer)
    }
}

fn request(kind: MessageType) -> Message {
    let mut message = Message::default();
    message
        .set_opcode(Opcode::BootRequest)
        .set_xid(0x1234_5678)
        .set_chaddr(&MAC.0);
    message.opts_mut().insert(DhcpOption::MessageType(kind));
    message
}

fn wrap(message: &Message) -> Vec<u8> {
    let mut bytes = Vec::new();
    message.encode(&mut Encoder::new(&mut bytes)).unwrap();
    let udp = frame::udp4((Ipv4Addr::UNSPECIFIED, 68), (Ipv4Addr::BROADCAST, 67), &bytes);
    let packet = frame::ipv4(Ipv4Addr::UNSPECIFIED, Ipv4Addr::BROADCAST, frame::UDP, &udp);
    frame::ethernet(MacAddr::BROADCAST, MAC, frame::IPV4, &packet)
}

struct Reply {
    mac: [u8; 6],
    source: Ipv4Addr,
    destination: Ipv4Addr,
    message: Message,
    bytes: Vec<u8>,
}

impl Reply {
    /// Reads a whole frame and checks every checksum.
    fn read(frame: &[u8]) -> Self {
        let packet = SlicedPacket::from_ethernet(frame).unwrap();
        let ethernet = packet.link.unwrap().to_header().unwrap().ethernet2().unwrap();
        assert_eq!(ethernet.source, GATEWAY_MAC.0);
        let Some(NetSlice::Ipv4(ip)) = packet.net else {
            panic!("not IPv4")
        };
        let header = ip.header();
        assert_eq!(
            header.header_checksum(),
            header.to_header().calc_header_checksum()
        );
        let Some(TransportSlice::Udp(udp)) = packet.transport else {
            panic!("not UDP")
        };
        assert_eq!((udp.source_port(), udp.destination_port()), (67, 68));
        let sum = udp
            .to_header()
            .calc_checksum_ipv4(&header.to_header(), udp.payload())
            .unwrap();
        assert_eq!(udp.checksum(), sum);
        assert!(udp.payload().len() >= dhcp::MIN_MESSAGE);
        Self {
            mac: ethernet.destination,
            source: header.source_addr(),
            destination: header.destination_addr(),
            message: Message::decode(&mut Decoder::new(udp.payload())).unwrap(),
            bytes: udp.payload().to_vec(),
        }
    }

    fn option(&self, code: OptionCode) -> Option<&DhcpOption> {
        self.message.opts().get(code)
    }

    fn kind(&self) -> MessageType {
        self.message.opts().msg_type().unwrap()
    }
}

#[test]
fn discover_is_offered_the_goal_state() {
    let world = World::new();
    let reply = world.ask(&request(MessageType::Discover));
    assert_eq!(reply.kind(), MessageType::Offer);
    assert_eq!(reply.message.yiaddr(), ADDRESS);
    assert_eq!(reply.message.xid(), 0x1234_5678);
    assert_eq!(
        (reply.mac, reply.source, reply.destination),
        (MAC.0, GATEWAY, ADDRESS)
    );
    let expected = [
        DhcpOption::ServerIdentifier(GATEWAY),
        DhcpOption::SubnetMask(Ipv4Addr::new(255, 255, 255, 0)),
        DhcpOption::BroadcastAddr(Ipv4Addr::new(10, 0, 0, 255)),
        DhcpOption::Router(vec![GATEWAY]),
        DhcpOption::DomainNameServer(vec![Ipv4Addr::new(9, 9, 9, 9), Ipv4Addr::new(1, 1, 1, 1)]),
        DhcpOption::InterfaceMtu(1450),
        DhcpOption::Hostname("host-10-0-0-9".to_owned()),
        DhcpOption::AddressLeaseTime(86_400),
        DhcpOption::Renewal(43_200),
        DhcpOption::Rebinding(75_600),
        DhcpOption::ClasslessStaticRoute(vec![
            ("192.168.0.0/16".parse().unwrap(), Ipv4Addr::new(10, 0, 0, 254)),
            ("0.0.0.0/0".parse().unwrap(), GATEWAY),
        ]),
    ];
    for option in expected {
        assert_eq!(reply.option(OptionCode::from(&option)), Some(&option));
    }
}

#[test]
fn options_come_in_the_order_the_client_asked_for() {
    let mut discover = request(MessageType::Discover);
    discover.opts_mut().insert(DhcpOption::ParameterRequestList(vec![
        OptionCode::ClasslessStaticRoute,
        OptionCode::InterfaceMtu,
        OptionCode::SubnetMask,
    ]));
    let bytes = World::new().ask(&discover).bytes;
    let mut codes = Vec::new();
    let mut at = 240;
    while bytes[at] != 255 {
        codes.push(bytes[at]);
        at += 2 + usize::from(bytes[at + 1]);
    }
    assert_eq!(codes[..5], [53, 54, 121, 26, 1]);
}

#[test]
fn requests_in_every_state() {
    let world = World::new();
    let ask = |requested: Option<Ipv4Addr>, server: Option<Ipv4Addr>, ciaddr: Option<Ipv4Addr>| {
        let mut message = request(MessageType::Request);
        let options = message.opts_mut();
        requested.map(|address| options.insert(DhcpOption::RequestedIpAddress(address)));
        server.map(|address| options.insert(DhcpOption::ServerIdentifier(address)));
        ciaddr.map(|address| message.set_ciaddr(address));
        world.ask(&message)
    };
    let wrong = Some(Ipv4Addr::new(10, 0, 0, 77));
    for (state, right, mistaken) in [
        (
            "selecting",
            ask(Some(ADDRESS), Some(GATEWAY), None),
            ask(wrong, Some(GATEWAY), None),
        ),
        (
            "init-reboot",
            ask(Some(ADDRESS), None, None),
            ask(wrong, None, None),
        ),
        (
            "renewing and rebinding",
            ask(None, None, Some(ADDRESS)),
            ask(None, None, wrong),
        ),
    ] {
        assert_eq!(
            (right.kind(), right.message.yiaddr()),
            (MessageType::Ack, ADDRESS),
            "{state}"
        );
        assert_eq!((right.mac, right.destination), (MAC.0, ADDRESS), "{state}");
        assert_eq!(mistaken.kind(), MessageType::Nak, "{state}");
        assert_eq!(mistaken.destination, Ipv4Addr::BROADCAST, "{state}");
        assert!(mistaken.message.yiaddr().is_unspecified(), "{state}");
        assert_eq!(mistaken.option(OptionCode::SubnetMask), None, "{state}");
    }
}

#[test]
fn inform_gets_settings_and_no_lease() {
    let mut inform = request(MessageType::Inform);
    inform.set_ciaddr(ADDRESS);
    let reply = World::new().ask(&inform);
    assert_eq!(reply.kind(), MessageType::Ack);
    assert!(reply.message.yiaddr().is_unspecified());
    assert_eq!(reply.message.ciaddr(), ADDRESS);
    assert_eq!(reply.option(OptionCode::AddressLeaseTime), None);
    assert_eq!(
        reply.option(OptionCode::InterfaceMtu),
        Some(&DhcpOption::InterfaceMtu(1450))
    );
}

#[test]
fn release_and_decline_need_no_answer_and_others_are_refused() {
    let world = World::new();
    for kind in [MessageType::Release, MessageType::Decline] {
        assert_eq!(dhcp::answer(&world.context(), &wrap(&request(kind))), Ok(None));
    }
    let mut elsewhere = request(MessageType::Request);
    elsewhere
        .opts_mut()
        .insert(DhcpOption::ServerIdentifier(Ipv4Addr::new(10, 0, 0, 2)));
    let mut stranger = request(MessageType::Discover);
    stranger.set_chaddr(&[2, 0, 0, 0, 0, 1]);
    for message in [elsewhere, stranger, request(MessageType::Offer)] {
        assert_eq!(
            dhcp::answer(&world.context(), &wrap(&message)),
            Err(Refusal::NotForUs)
        );
    }
    let mut silent = World::new();
    silent.subnets[0].enable_dhcp = false;
    let discover = wrap(&request(MessageType::Discover));
    assert_eq!(
        dhcp::answer(&silent.context(), &discover),
        Err(Refusal::NoAddress)
    );
}

#[test]
fn the_broadcast_flag_is_honoured() {
    let mut discover = request(MessageType::Discover);
    discover.set_flags(Flags::default().set_broadcast());
    let reply = World::new().ask(&discover);
    assert_eq!(
        (reply.mac, reply.destination),
        (MacAddr::BROADCAST.0, Ipv4Addr::BROADCAST)
    );
    assert!(reply.message.flags().broadcast());
}

#[test]
fn without_a_gateway_there_is_no_router_and_the_server_is_link_local() {
    let mut world = World::new();
    world.subnets[0].gateway_ip = None;
    world.subnets[0].host_routes.clear();
    world.port.dns_name = "web".to_owned();
    let reply = world.ask(&request(MessageType::Discover));
    assert_eq!(reply.source, dhcp::SERVER_WITHOUT_GATEWAY);
    assert_eq!(reply.option(OptionCode::Router), None);
    assert_eq!(reply.option(OptionCode::ClasslessStaticRoute), None);
    assert_eq!(
        reply.option(OptionCode::Hostname),
        Some(&DhcpOption::Hostname("web".to_owned()))
    );
}

fn solicitation(source: Ipv6Addr) -> Vec<u8> {
    let packet = frame::icmpv6(
        source,
        "ff02::2".parse().unwrap(),
        255,
        vec![133, 0, 0, 0, 0, 0, 0, 0],
    );
    frame::ethernet(MacAddr([0x33, 0x33, 0, 0, 0, 2]), MAC, frame::IPV6, &packet)
}

/// The ICMPv6 message of a frame, its checksum checked; with the IPv6 source and destination.
fn icmpv6_of(frame: &[u8]) -> (Ipv6Addr, Ipv6Addr, Vec<u8>) {
    let packet = SlicedPacket::from_ethernet(frame).unwrap();
    let Some(NetSlice::Ipv6(ip)) = packet.net else {
        panic!("not IPv6")
    };
    let Some(TransportSlice::Icmpv6(icmp)) = packet.transport else {
        panic!("not ICMPv6")
    };
    let header = ip.header();
    assert!(icmp.is_checksum_valid(header.source(), header.destination()));
    (
        header.source_addr(),
        header.destination_addr(),
        icmp.slice().to_vec(),
    )
}

#[test]
fn a_solicitation_is_answered_with_everything_a_host_needs() {
    let world = World::new();
    let asker = MAC.link_local();
    let answer = ra::answer(&world.context(), &solicitation(asker)).unwrap();
    assert_eq!(answer[..6], MAC.0);
    let (source, destination, message) = icmpv6_of(&answer);
    assert_eq!((source, destination), (GATEWAY_MAC.link_local(), asker));
    assert_eq!(message[..2], [134, 0]);
    assert_eq!(message[6..8], 1_800u16.to_be_bytes());
    let mut options = Vec::new();
    let mut rest = &message[16..];
    while !rest.is_empty() {
        let (option, after) = rest.split_at(usize::from(rest[1]) * 8);
        options.push(option.to_vec());
        rest = after;
    }
    assert_eq!(
        options.iter().map(|option| option[0]).collect::<Vec<_>>(),
        [1, 5, 3, 25]
    );
    assert_eq!(options[0][2..], GATEWAY_MAC.0);
    assert_eq!(options[1][4..], 1450u32.to_be_bytes());
    assert_eq!(options[2][2..4], [64, 0xc0]);
    assert_eq!(options[2][16..], "fd00::".parse::<Ipv6Addr>().unwrap().octets());
    assert_eq!(
        options[3][8..],
        "2620:fe::fe".parse::<Ipv6Addr>().unwrap().octets()
    );
}

#[test]
fn who_has_no_address_yet_is_answered_by_multicast() {
    let mut world = World::new();
    let answer = ra::answer(&world.context(), &solicitation(Ipv6Addr::UNSPECIFIED)).unwrap();
    assert_eq!(icmpv6_of(&answer).1, "ff02::1".parse::<Ipv6Addr>().unwrap());
    assert_eq!(answer[..6], [0x33, 0x33, 0, 0, 0, 1]);
    world.subnets[1].gateway_ip = None;
    world.subnets[1].slaac = false;
    let message = icmpv6_of(&ra::unsolicited(&world.context()).unwrap()).2;
    assert_eq!(message[6..8], [0, 0], "no gateway: no default router");
    assert_eq!(message[16 + 8 + 8 + 3], 0x80, "on-link, not autonomous");
    world.subnets[1].enable_dhcp = false;
    assert_eq!(ra::unsolicited(&world.context()), None);
}

#[test]
fn time_exceeded_quotes_the_packet() {
    let world = World::new();
    let udp = frame::udp4((ADDRESS, 40_000), (Ipv4Addr::new(8, 8, 8, 8), 33_434), &[7; 1000]);
    let packet = frame::ipv4(ADDRESS, Ipv4Addr::new(8, 8, 8, 8), frame::UDP, &udp);
    let sent = frame::ethernet(GATEWAY_MAC, MAC, frame::IPV4, &packet);
    let answer = icmp::error(&world.context(), Cause::TimeExceeded, &sent).unwrap();
    let parsed = SlicedPacket::from_ethernet(&answer).unwrap();
    let Some(NetSlice::Ipv4(ip)) = parsed.net else {
        panic!("not IPv4")
    };
    assert_eq!(
        (ip.header().source_addr(), ip.header().destination_addr()),
        (GATEWAY, ADDRESS)
    );
    assert_eq!(ip.header().total_len(), 576);
    let Some(TransportSlice::Icmpv4(message)) = parsed.transport else {
        panic!("not ICMP")
    };
    assert_eq!((message.type_u8(), message.code_u8()), (11, 0));
    assert_eq!(frame::checksum(&[message.slice()]), 0);
    assert_eq!(message.payload(), &packet[..576 - 28]);
}

#[test]
fn time_exceeded_for_ipv6() {
    let world = World::new();
    let asker: Ipv6Addr = "fd00::9".parse().unwrap();
    let mut echo = vec![128, 0, 0, 0, 0, 1, 0, 1];
    echo.resize(1400, 3);
    let packet = frame::icmpv6(asker, "fd01::1".parse().unwrap(), 1, echo);
    let sent = frame::ethernet(GATEWAY_MAC, MAC, frame::IPV6, &packet);
    let answer = icmp::error(&world.context(), Cause::TimeExceeded, &sent).unwrap();
    let (source, destination, message) = icmpv6_of(&answer);
    assert_eq!((source, destination), ("fd00::1".parse().unwrap(), asker));
    assert_eq!(message[..2], [3, 0]);
    assert_eq!((answer.len(), &message[8..]), (14 + 1_280, &packet[..1_232]));
}

#[test]
fn too_big_tells_the_mtu_even_where_only_the_beginning_is_there() {
    let world = World::new();
    let too_big = Cause::TooBig { mtu: 1_400 };
    let far = Ipv4Addr::new(8, 8, 8, 8);
    let udp = frame::udp4((ADDRESS, 40_000), (far, 443), &[7; 30_000]);
    let packet = frame::ipv4(ADDRESS, far, frame::UDP, &udp);
    let sent = frame::ethernet(GATEWAY_MAC, MAC, frame::IPV4, &packet);
    let answer = icmp::error(&world.context(), too_big, &sent[..3_072]).unwrap();
    let parsed = SlicedPacket::from_ethernet(&answer).unwrap();
    let Some(TransportSlice::Icmpv4(message)) = parsed.transport else {
        panic!("not ICMP")
    };
    assert_eq!(message.slice()[..2], [3, 4]);
    assert_eq!(message.slice()[4..8], [0, 0, 5, 120]);
    assert_eq!(message.payload(), &packet[..576 - 28]);

    let asker: Ipv6Addr = "fd00::9".parse().unwrap();
    let mut echo = vec![128, 0, 0, 0, 0, 1, 0, 1];
    echo.resize(5_000, 3);
    let packet = frame::icmpv6(asker, "fd01::1".parse().unwrap(), 64, echo);
    let sent = frame::ethernet(GATEWAY_MAC, MAC, frame::IPV6, &packet);
    let answer = icmp::error(&world.context(), too_big, &sent[..3_072]).unwrap();
    let (source, destination, message) = icmpv6_of(&answer);
    assert_eq!((source, destination), ("fd00::1".parse().unwrap(), asker));
    assert_eq!(
        (&message[..2], &message[4..8]),
        (&[2, 0][..], &[0, 0, 5, 120][..])
    );
    assert_eq!(message[8..], packet[..1_232]);
}

#[test]
fn errors_are_not_answered_with_errors() {
    let world = World::new();
    let error = frame::ipv4(
        ADDRESS,
        Ipv4Addr::new(8, 8, 8, 8),
        frame::ICMP,
        &[11, 0, 0, 0, 0, 0, 0, 0],
    );
    let sent = frame::ethernet(GATEWAY_MAC, MAC, frame::IPV4, &error);
    assert_eq!(
        icmp::error(&world.context(), Cause::TimeExceeded, &sent),
        Err(Refusal::NotForUs)
    );
    let error = frame::icmpv6(
        "fd00::9".parse().unwrap(),
        "fd01::1".parse().unwrap(),
        1,
        vec![1; 8],
    );
    let sent = frame::ethernet(GATEWAY_MAC, MAC, frame::IPV6, &error);
    assert_eq!(
        icmp::error(&world.context(), Cause::TimeExceeded, &sent),
        Err(Refusal::NotForUs)
    );
}

/// A valid frame with some bytes changed, then cut or prolonged: gets further into the parsers than noise does.
fn damaged() -> impl Strategy<Value = Vec<u8>> {
    let mut discover = request(MessageType::Discover);
    discover
        .opts_mut()
        .insert(DhcpOption::ParameterRequestList(vec![OptionCode::Router]));
    discover
        .opts_mut()
        .insert(DhcpOption::ClientIdentifier(vec![1, 2, 3]));
    let bases = vec![wrap(&discover), solicitation(MAC.link_local())];
    let edits = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6);
    (
        prop::sample::select(bases),
        edits,
        any::<prop::sample::Index>(),
        any::<bool>(),
    )
        .prop_map(|(mut frame, edits, cut, whole)| {
            for (at, byte) in edits {
                let at = at.index(frame.len());
                frame[at] = byte;
            }
            if !whole {
                frame.truncate(cut.index(frame.len()));
            }
            frame
        })
}

/// Noise behind valid headers, so that the DHCP parser itself sees it.
fn dhcp_noise() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(any::<u8>(), 0..600).prop_map(|options| {
        let mut bytes = Vec::new();
        request(MessageType::Discover)
            .encode(&mut Encoder::new(&mut bytes))
            .unwrap();
        bytes.truncate(243);
        bytes.extend(options);
        let udp = frame::udp4((ADDRESS, 68), (GATEWAY, 67), &bytes);
        let packet = frame::ipv4(ADDRESS, GATEWAY, frame::UDP, &udp);
        frame::ethernet(GATEWAY_MAC, MAC, frame::IPV4, &packet)
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn no_bytes_make_a_responder_panic(
        frame in prop_oneof![prop::collection::vec(any::<u8>(), 0..400), damaged(), dhcp_noise()],
    ) {
        let world = World::new();
        let context = world.context();
        if let Ok(Some(answer)) = dhcp::answer(&context, &frame) {
            Reply::read(&answer);
        }
        if let Ok(answer) = ra::answer(&context, &frame) {
            icmpv6_of(&answer);
        }
        if let Ok(answer) = icmp::error(&context, Cause::TooBig { mtu: 1450 }, &frame) {
            prop_assert!(SlicedPacket::from_ethernet(&answer).is_ok());
        }
    }

    #[test]
    fn any_goal_state_gives_a_readable_offer(
        last in 2u8..250,
        gateway in any::<bool>(),
        dns in prop::collection::vec(any::<u32>(), 0..70),
        routes in prop::collection::vec((any::<u32>(), 0u8..=32, any::<u32>()), 0..40),
        name in "[a-z]{0,63}",
    ) {
        let mut world = World::new();
        let address = Ipv4Addr::new(10, 0, 0, last);
        world.port.fixed_ips[1].ip_address = address.into();
        world.port.dns_name = name;
        let subnet = &mut world.subnets[0];
        subnet.gateway_ip = gateway.then_some(GATEWAY.into());
        subnet.dns_nameservers = dns.iter().map(|dns| IpAddr::from(Ipv4Addr::from(*dns))).collect();
        subnet.host_routes = routes.iter().map(|(net, length, hop)| HostRoute {
            destination: ipnet::Ipv4Net::new(Ipv4Addr::from(*net), *length).unwrap().trunc().into(),
            nexthop: Ipv4Addr::from(*hop).into(),
        }).collect();
        let reply = world.ask(&request(MessageType::Discover));
        prop_assert_eq!(reply.message.yiaddr(), address);
        let expected: Vec<Ipv4Addr> = dns.iter().map(|dns| Ipv4Addr::from(*dns)).collect();
        let told = match reply.option(OptionCode::DomainNameServer) {
            Some(DhcpOption::DomainNameServer(told)) => told.clone(),
            _ => Vec::new(),
        };
        prop_assert_eq!(told, expected);
    }
}
