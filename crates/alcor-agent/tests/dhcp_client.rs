//! A real DHCP client takes what the responder says. The frames go over a veth pair, without a data plane.
#![allow(clippy::unwrap_used, reason = "a panic is how a test says no")]

use std::{
    fs,
    os::{fd::AsRawFd, unix::fs::PermissionsExt},
    process::Command,
    time::Duration,
};

use alcor_agent::responder::{Context, dhcp};
use alcor_dataplane::{NetworkRow, PortRow, SubnetRow};
use alcor_model::{
    Id, MacAddr, Vni,
    net::GATEWAY_MAC,
    resource::{FixedIp, HostRoute},
};
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, bind, recv, send, socket};

const MAC: MacAddr = MacAddr([0xfa, 0x16, 0x3e, 0, 0, 9]);

fn ip(arguments: &str) {
    let status = Command::new("ip").args(arguments.split(' ')).status().unwrap();
    assert!(status.success(), "ip {arguments}");
}

/// Answers what arrives on the device until the namespace goes.
fn serve(device: &str, port: &PortRow, network: &NetworkRow, subnet: &SubnetRow) {
    let address = nix::ifaddrs::getifaddrs()
        .unwrap()
        .find(|found| {
            found.interface_name == device && found.address.is_some_and(|a| a.as_link_addr().is_some())
        })
        .and_then(|found| found.address.unwrap().as_link_addr().copied())
        .unwrap();
    let raw = socket(
        AddressFamily::Packet,
        SockType::Raw,
        SockFlag::empty(),
        SockProtocol::EthAll,
    )
    .unwrap();
    bind(raw.as_raw_fd(), &address).unwrap();
    let mut buffer = [0; 2048];
    while let Ok(length) = recv(raw.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
        let context = Context {
            port,
            network,
            subnets: vec![subnet],
            lease: Duration::from_secs(3_600),
        };
        if let Ok(Some(answer)) = dhcp::answer(&context, &buffer[..length]) {
            send(raw.as_raw_fd(), &answer, MsgFlags::empty()).unwrap();
        }
    }
}

#[test]
#[cfg_attr(
    not(feature = "root-tests"),
    ignore = "needs root and udhcpc: makes a network namespace and a veth pair in it"
)]
fn udhcpc_takes_the_lease() {
    let (network_id, subnet_id) = (Id::generate(), Id::generate());
    let network = NetworkRow {
        id: network_id,
        vni: Vni::try_from(7).unwrap(),
        mtu: 1450,
        admin_state_up: true,
        underlay: None,
        on_demand: false,
        gateways: Vec::new(),
    };
    let subnet = SubnetRow {
        id: subnet_id,
        network_id,
        cidr: "10.0.0.0/24".parse().unwrap(),
        gateway_ip: Some("10.0.0.1".parse().unwrap()),
        gateway_mac: GATEWAY_MAC,
        enable_dhcp: true,
        slaac: false,
        dns_nameservers: vec!["9.9.9.9".parse().unwrap(), "1.1.1.1".parse().unwrap()],
        host_routes: vec![HostRoute {
            destination: "192.168.0.0/16".parse().unwrap(),
            nexthop: "10.0.0.254".parse().unwrap(),
        }],
    };
    let port = PortRow {
        id: Id::generate(),
        network_id,
        mac: MAC,
        fixed_ips: vec![FixedIp {
            subnet_id,
            ip_address: "10.0.0.9".parse().unwrap(),
        }],
        allowed_address_pairs: Vec::new(),
        admin_state_up: true,
        port_security_enabled: true,
        dns_name: "web".to_owned(),
        label: None,
    };
    let folder = tempfile::tempdir().unwrap();
    let (script, told) = (folder.path().join("script"), folder.path().join("told"));
    let text = format!(
        "#!/bin/sh\n[ \"$1\" = bound ] && echo \"$ip $mask $router $mtu $hostname $lease $serverid|$dns|$staticroutes\" > {}\nexit 0\n",
        told.display()
    );
    fs::write(&script, text).unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    let client = std::thread::spawn(move || {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
        ip(&format!("link add host type veth peer name vm address {MAC}"));
        ip("link set host up");
        ip("link set vm up");
        // A thread takes over the namespace of the one that starts it; it ends with the test.
        std::thread::spawn(move || serve("host", &port, &network, &subnet));
        let options = [
            "-i", "vm", "-f", "-q", "-n", "-t", "10", "-T", "1", "-O", "121", "-O", "mtu", "-s",
        ];
        Command::new("udhcpc")
            .args(options)
            .arg(&script)
            .output()
            .unwrap()
    });
    let output = client.join().unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert_eq!(
        fs::read_to_string(told).unwrap().trim(),
        "10.0.0.9 24 10.0.0.1 1450 web 3600 10.0.0.1|9.9.9.9 1.1.1.1|192.168.0.0/16 10.0.0.254 0.0.0.0/0 10.0.0.1"
    );
}
