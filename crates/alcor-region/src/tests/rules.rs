//! Neutron's rules, one test each: defaults, refusals, and what follows a change.

use std::net::IpAddr;

use alcor_model::{
    Port,
    resource::{AllocationPool, HostRoute, HostWord, PortStatus},
};
use alcor_store::{
    SqliteEngine,
    testing::{Fault, FaultSwitch, FaultyEngine},
};

use super::*;
use crate::{
    ErrorClass,
    command::{AddressPairRequest, FixedIpRequest, NetworkUpdate, PortReport, PortUpdate, SubnetUpdate},
};

fn place() -> Place {
    Place::new(RegionConfig::default(), 24)
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn addresses(port: &Port) -> Vec<String> {
    port.fixed_ips
        .iter()
        .map(|fixed| fixed.ip_address.to_string())
        .collect()
}

fn pool(start: &str, end: &str) -> AllocationPool {
    AllocationPool {
        start: ip(start),
        end: ip(end),
    }
}

/// A port that asks for addresses.
fn asking(network: Id<Network>, asked: &[(Option<Id<Subnet>>, Option<&str>)]) -> PortCreate {
    let asked = asked
        .iter()
        .map(|(subnet_id, address)| FixedIpRequest {
            subnet_id: *subnet_id,
            ip_address: address.map(ip),
        })
        .collect();
    PortCreate {
        fixed_ips: Some(asked),
        ..port_of(network)
    }
}

fn refused<T: std::fmt::Debug>(outcome: Result<T, RegionError>, kind: &str) -> String {
    let error = outcome.unwrap_err();
    assert_eq!(error.neutron_type(), kind, "{error}");
    error.to_string()
}

#[tokio::test]
async fn a_network_has_neutrons_defaults() {
    let place = place();
    let id = place.network().await;
    let network = place
        .region
        .snapshot()
        .state
        .networks()
        .get(&id)
        .cloned()
        .unwrap();
    assert!(network.admin_state_up && network.port_security_enabled);
    assert_eq!(network.mtu, 1450);
    assert_eq!(network.standard.project_id, "p1");
    assert_eq!(network.standard.revision_number, 1);
    assert_eq!(network.standard.created_at, network.standard.updated_at);
}

#[tokio::test]
async fn mtus_fit_the_underlay_and_ipv6() {
    let place = place();
    let create = |mtu| NetworkCreate {
        mtu: Some(mtu),
        ..NetworkCreate::default()
    };
    for bad in [1451, 9000] {
        refused(
            place.region.create::<Network>(&owner(), vec![create(bad)]).await,
            "InvalidInput",
        );
    }
    let small = place
        .region
        .create::<Network>(&owner(), vec![create(1279)])
        .await
        .unwrap()[0]
        .id;
    refused(
        place.try_subnet(subnet_of(small, "fd00::/64")).await,
        "NetworkMTUSubnetConflict",
    );
    place.subnet(small, "10.0.0.0/24").await;
    let tiny = place
        .region
        .create::<Network>(&owner(), vec![create(67)])
        .await
        .unwrap()[0]
        .id;
    refused(
        place.try_subnet(subnet_of(tiny, "10.0.0.0/24")).await,
        "NetworkMTUSubnetConflict",
    );
    let id = place.network().await;
    place.subnet(id, "fd00::/64").await;
    let update = |mtu| NetworkUpdate {
        mtu: Some(mtu),
        ..NetworkUpdate::default()
    };
    refused(
        place
            .region
            .update::<Network>(&owner(), id, update(1279), None)
            .await,
        "NetworkMTUSubnetConflict",
    );
    place
        .region
        .update::<Network>(&owner(), id, update(1280), None)
        .await
        .unwrap();
}

#[tokio::test]
async fn bulk_is_all_or_nothing() {
    let place = place();
    let id = place.network().await;
    place.subnet(id, "10.0.0.0/29").await;
    let before = place.region.snapshot();
    // Five addresses are free.
    refused(
        place.region.create::<Port>(&owner(), vec![port_of(id); 6]).await,
        "IpAddressGenerationFailure",
    );
    assert_eq!(place.region.snapshot().revision, before.revision);
    let ports = place
        .region
        .create::<Port>(&owner(), vec![port_of(id); 5])
        .await
        .unwrap();
    let revision = place.region.snapshot().revision;
    assert!(ports.iter().all(|port| port.revision == revision));
}

#[tokio::test]
async fn subnets_of_one_network_do_not_overlap() {
    let place = place();
    let (a, b) = (place.network().await, place.network().await);
    place.subnet(a, "10.0.0.0/24").await;
    for cidr in ["10.0.0.0/24", "10.0.0.128/25", "10.0.0.0/16"] {
        let message = refused(place.try_subnet(subnet_of(a, cidr)).await, "InvalidInput");
        assert_eq!(
            message,
            format!(
                "Invalid input for operation: Requested subnet with cidr: {cidr} for network: {a} overlaps with another subnet."
            )
        );
    }
    place.subnet(a, "10.0.1.0/24").await;
    place.subnet(b, "10.0.0.0/24").await;
}

#[tokio::test]
async fn a_subnet_has_neutrons_defaults_and_no_host_bits() {
    let place = place();
    let id = place.network().await;
    let subnet = place.subnet(id, "10.1.2.3/24").await;
    assert_eq!(subnet.cidr.to_string(), "10.1.2.0/24");
    assert_eq!(subnet.gateway_ip, Some(ip("10.1.2.1")));
    assert_eq!(subnet.allocation_pools, [pool("10.1.2.2", "10.1.2.254")]);
    assert!(subnet.enable_dhcp);
    let none = SubnetCreate {
        gateway_ip: Some(None),
        ..subnet_of(id, "10.1.3.0/24")
    };
    let none = place.try_subnet(none).await.unwrap();
    assert_eq!(
        (none.gateway_ip, none.allocation_pools[0]),
        (None, pool("10.1.3.1", "10.1.3.254"))
    );
}

#[tokio::test]
async fn gateways_and_pools_are_checked() {
    let place = place();
    let id = place.network().await;
    let with = |gateway: Option<&str>, pools: &[(&str, &str)]| SubnetCreate {
        gateway_ip: gateway.map(|gateway| Some(ip(gateway))),
        allocation_pools: Some(pools.iter().map(|(start, end)| pool(start, end)).collect()),
        ..subnet_of(id, "10.0.0.0/24")
    };
    for (create, kind) in [
        (with(Some("10.0.1.1"), &[]), "InvalidInput"),
        (with(Some("10.0.0.0"), &[]), "InvalidInput"),
        (
            with(Some("10.0.0.9"), &[("10.0.0.5", "10.0.0.10")]),
            "GatewayConflictWithAllocationPools",
        ),
        (
            with(None, &[("10.0.0.5", "10.0.1.5")]),
            "OutOfBoundsAllocationPool",
        ),
        (with(None, &[("10.0.0.9", "10.0.0.5")]), "InvalidAllocationPool"),
        (with(None, &[("10.0.0.2", "fd00::1")]), "InvalidAllocationPool"),
        (
            with(None, &[("10.0.0.2", "10.0.0.9"), ("10.0.0.9", "10.0.0.12")]),
            "OverlappingAllocationPools",
        ),
    ] {
        refused(place.try_subnet(create).await, kind);
    }
    let sorted = place
        .try_subnet(with(None, &[("10.0.0.9", "10.0.0.9"), ("10.0.0.4", "10.0.0.5")]))
        .await
        .unwrap();
    assert_eq!(
        sorted.allocation_pools,
        [pool("10.0.0.4", "10.0.0.5"), pool("10.0.0.9", "10.0.0.9")]
    );
    for expected in ["10.0.0.4", "10.0.0.5", "10.0.0.9"] {
        assert_eq!(addresses(&*place.port(id).await), [expected]);
    }
    refused(place.try_port(port_of(id)).await, "IpAddressGenerationFailure");
}

#[tokio::test]
async fn lists_of_a_subnet_are_bounded_and_of_its_family() {
    let place = place();
    let id = place.network().await;
    let servers = |servers: Vec<&str>| SubnetCreate {
        dns_nameservers: servers.into_iter().map(ip).collect(),
        ..subnet_of(id, "10.0.0.0/24")
    };
    refused(
        place.try_subnet(servers(vec!["9.9.9.9"; 6])).await,
        "InvalidInput",
    );
    refused(place.try_subnet(servers(vec!["fd00::1"])).await, "InvalidInput");
    let route = HostRoute {
        destination: "10.9.0.0/16".parse().unwrap(),
        nexthop: ip("10.0.0.2"),
    };
    let routes = SubnetCreate {
        host_routes: vec![route; 21],
        ..subnet_of(id, "10.0.0.0/24")
    };
    refused(place.try_subnet(routes).await, "InvalidInput");
}

#[tokio::test]
async fn ipv6_modes_are_checked() {
    let place = place();
    let id = place.network().await;
    let mode = |cidr: &str, address, ra| SubnetCreate {
        ipv6_address_mode: address,
        ipv6_ra_mode: ra,
        ..subnet_of(id, cidr)
    };
    use Ipv6Mode::{Dhcpv6Stateful, Dhcpv6Stateless, Slaac};
    for create in [
        mode("10.0.0.0/24", Some(Slaac), None),
        mode("fd00::/80", Some(Slaac), Some(Slaac)),
        mode("fd00::/64", Some(Slaac), Some(Dhcpv6Stateless)),
        mode("fd00::/64", Some(Dhcpv6Stateful), Some(Slaac)),
        SubnetCreate {
            enable_dhcp: Some(false),
            ..mode("fd00::/64", Some(Slaac), Some(Slaac))
        },
    ] {
        refused(place.try_subnet(create).await, "InvalidInput");
    }
}

#[tokio::test]
async fn a_port_gets_one_ipv4_address_and_all_automatic_ones() {
    let place = place();
    let id = place.network().await;
    place.subnet(id, "10.0.0.0/24").await;
    place.subnet(id, "10.0.1.0/24").await;
    place.try_subnet(slaac_of(id, "fd00:0:0:1::/64")).await.unwrap();
    place.try_subnet(slaac_of(id, "fd00:0:0:2::/64")).await.unwrap();
    let mac = "fa:16:3e:00:00:07".parse().unwrap();
    let port = place
        .try_port(PortCreate {
            mac_address: Some(mac),
            ..port_of(id)
        })
        .await
        .unwrap();
    let mut found = addresses(&port);
    found.sort();
    assert_eq!(found[0], "10.0.0.2");
    assert_eq!(
        found[1..],
        ["fd00::1:f816:3eff:fe00:7", "fd00::2:f816:3eff:fe00:7"]
    );
}

#[tokio::test]
async fn automatic_addresses_follow_the_mac_and_the_subnet() {
    let place = place();
    let id = place.network().await;
    let mac = "fa:16:3e:00:00:07".parse().unwrap();
    let port = place
        .try_port(PortCreate {
            mac_address: Some(mac),
            ..port_of(id)
        })
        .await
        .unwrap();
    assert!(port.fixed_ips.is_empty());
    let subnet = place.try_subnet(slaac_of(id, "fd00::/64")).await.unwrap();
    let row = |id| place.region.snapshot().state.ports().get(&id).cloned().unwrap();
    assert_eq!(addresses(&row(port.id)), ["fd00::f816:3eff:fe00:7"]);
    assert!(row(port.id).standard.updated_at > port.standard.updated_at);

    let update = PortUpdate {
        mac_address: Some(Some("fa:16:3e:00:00:08".parse().unwrap())),
        ..PortUpdate::default()
    };
    place
        .region
        .update::<Port>(&owner(), port.id, update, None)
        .await
        .unwrap();
    assert_eq!(addresses(&row(port.id)), ["fd00::f816:3eff:fe00:8"]);

    place
        .region
        .delete::<Subnet>(&owner(), subnet.id, None)
        .await
        .unwrap();
    assert!(row(port.id).fixed_ips.is_empty());
}

#[tokio::test]
async fn asked_addresses_are_checked() {
    let place = place();
    let (id, other) = (place.network().await, place.network().await);
    let v4 = place.subnet(id, "10.0.0.0/24").await;
    let auto = place.try_subnet(slaac_of(id, "fd00::/64")).await.unwrap();
    let foreign = place.subnet(other, "10.9.0.0/24").await;
    let taken = place
        .try_port(asking(id, &[(None, Some("10.0.0.77"))]))
        .await
        .unwrap();
    assert_eq!(taken.fixed_ips[0].subnet_id, v4.id);
    for (asked, kind) in [
        (
            vec![(Some(v4.id), Some("10.0.0.77"))],
            "IpAddressAlreadyAllocated",
        ),
        (
            vec![(None, Some("10.0.0.5")), (None, Some("10.0.0.5"))],
            "IpAddressAlreadyAllocated",
        ),
        (vec![(Some(v4.id), Some("10.0.0.1"))], "IpAddressAlreadyAllocated"),
        (vec![(Some(v4.id), Some("10.0.1.5"))], "InvalidIpForSubnet"),
        (vec![(Some(v4.id), Some("10.0.0.255"))], "InvalidIpForSubnet"),
        (vec![(None, Some("192.0.2.1"))], "InvalidIpForNetwork"),
        (vec![(Some(foreign.id), None)], "InvalidInput"),
        (vec![(Some(auto.id), Some("fd00::5"))], "InvalidInput"),
        (vec![(Some(Id::generate()), None)], "SubnetNotFound"),
        (vec![(Some(v4.id), None); Port::MAX_FIXED_IPS + 1], "InvalidInput"),
    ] {
        refused(place.try_port(asking(id, &asked)).await, kind);
    }
    let several = place
        .try_port(asking(id, &[(Some(v4.id), None); 3]))
        .await
        .unwrap();
    // Addresses that are formed by EUI-64 come in addition.
    assert_eq!(several.fixed_ips.len(), 3 + 1);
    let nothing = place.try_port(asking(id, &[])).await.unwrap();
    assert_eq!(nothing.fixed_ips.len(), 1);
    assert_eq!(nothing.fixed_ips[0].subnet_id, auto.id);
}

#[tokio::test]
async fn an_update_keeps_what_the_port_has_and_frees_the_rest() {
    let place = place();
    let id = place.network().await;
    let subnet = place.subnet(id, "10.0.0.0/24").await;
    let port = place
        .try_port(asking(
            id,
            &[(None, Some("10.0.0.50")), (None, Some("10.0.0.51"))],
        ))
        .await
        .unwrap();
    let request = FixedIpRequest {
        subnet_id: Some(subnet.id),
        ip_address: None,
    };
    let update = PortUpdate {
        fixed_ips: Some(vec![request]),
        ..PortUpdate::default()
    };
    let after = place
        .region
        .update::<Port>(&owner(), port.id, update, None)
        .await
        .unwrap();
    assert_eq!(addresses(&after), ["10.0.0.50"]);
    assert_eq!(after.standard.revision_number, 2);
    place
        .try_port(asking(id, &[(None, Some("10.0.0.51"))]))
        .await
        .unwrap();
}

#[tokio::test]
async fn address_pairs_are_bounded_and_need_port_security() {
    let place = place();
    let id = place.network().await;
    let pair = |last: u8| AddressPairRequest {
        ip_address: format!("192.0.2.{last}/32").parse().unwrap(),
        mac_address: None,
    };
    let with = |pairs, security| PortCreate {
        allowed_address_pairs: pairs,
        port_security_enabled: Some(security),
        ..port_of(id)
    };
    let many = (0..11).map(pair).collect();
    refused(
        place.try_port(with(many, true)).await,
        "AllowedAddressPairExhausted",
    );
    refused(
        place.try_port(with(vec![pair(1), pair(1)], true)).await,
        "InvalidInput",
    );
    refused(
        place.try_port(with(vec![pair(1)], false)).await,
        "AddressPairAndPortSecurityRequired",
    );
    let port = place.try_port(with(vec![pair(1)], true)).await.unwrap();
    assert_eq!(port.allowed_address_pairs[0].mac_address, port.mac_address);
}

#[tokio::test]
async fn what_is_in_use_is_not_deleted() {
    let place = place();
    let id = place.network().await;
    let subnet = place.subnet(id, "10.0.0.0/24").await;
    let port = place.port(id).await;
    refused(
        place.region.delete::<Subnet>(&owner(), subnet.id, None).await,
        "SubnetInUse",
    );
    refused(
        place.region.delete::<Network>(&owner(), id, None).await,
        "NetworkInUse",
    );
    place
        .region
        .delete::<Port>(&owner(), port.id, None)
        .await
        .unwrap();
    place.region.delete::<Network>(&owner(), id, None).await.unwrap();
    let state = place.region.snapshot();
    assert!(
        state.state.subnets().is_empty(),
        "a network takes its subnets along"
    );
    refused(
        place.region.delete::<Network>(&owner(), id, None).await,
        "NetworkNotFound",
    );
}

#[tokio::test]
async fn another_projects_things_are_not_there() {
    let place = place();
    let id = place.network().await;
    let subnet = place.subnet(id, "10.0.0.0/24").await;
    let port = place.port(id).await;
    let region = &place.region;
    let stranger = member("p2");
    refused(
        region.delete::<Network>(&stranger, id, None).await,
        "NetworkNotFound",
    );
    refused(
        region.delete::<Subnet>(&stranger, subnet.id, None).await,
        "SubnetNotFound",
    );
    refused(
        region.delete::<Port>(&stranger, port.id, None).await,
        "PortNotFound",
    );
    refused(
        region.create::<Port>(&stranger, vec![port_of(id)]).await,
        "NetworkNotFound",
    );
    let state = &region.snapshot().state;
    assert!(state.visible_network(&stranger, id).is_none());
    assert!(state.visible_port(&stranger, port.id).is_none());
    assert!(state.visible_network(&admin(), id).is_some());
}

#[tokio::test]
async fn shared_networks_serve_everybody_and_stay_the_owners() {
    let place = place();
    let id = place.network().await;
    place.subnet(id, "10.0.0.0/24").await;
    let region = &place.region;
    let share = |shared| NetworkUpdate {
        shared: Some(shared),
        ..NetworkUpdate::default()
    };
    region
        .update::<Network>(&admin(), id, share(true), None)
        .await
        .unwrap();
    let stranger = member("p2");
    let port = region
        .create::<Port>(&stranger, vec![port_of(id)])
        .await
        .unwrap()
        .remove(0);
    assert_eq!(port.standard.project_id, "p2");
    refused(
        region.update::<Network>(&admin(), id, share(false), None).await,
        "InvalidSharedSetting",
    );
    region.delete::<Port>(&owner(), port.id, None).await.unwrap();
    region
        .update::<Network>(&admin(), id, share(false), None)
        .await
        .unwrap();
}

#[tokio::test]
async fn if_match_guards_changes() {
    let place = place();
    let id = place.network().await;
    let update = || NetworkUpdate {
        admin_state_up: Some(false),
        ..NetworkUpdate::default()
    };
    let error = place
        .region
        .update::<Network>(&owner(), id, update(), Some(7))
        .await
        .unwrap_err();
    assert_eq!(error.class(), ErrorClass::PreconditionFailed);
    let changed = place
        .region
        .update::<Network>(&owner(), id, update(), Some(1))
        .await
        .unwrap();
    assert_eq!(changed.standard.revision_number, 2);
    assert!(changed.standard.updated_at > changed.standard.created_at);
    refused(
        place.region.delete::<Network>(&owner(), id, Some(1)).await,
        "RevisionNumberConstraintFailed",
    );
    place
        .region
        .delete::<Network>(&owner(), id, Some(2))
        .await
        .unwrap();
}

#[tokio::test]
async fn provider_numbers_are_the_admins() {
    let place = place();
    let vni = 4711.try_into().unwrap();
    let create = || NetworkCreate {
        segmentation_id: Some(vni),
        ..NetworkCreate::default()
    };
    place
        .region
        .create::<Network>(&admin(), vec![create()])
        .await
        .unwrap();
    refused(
        place.region.create::<Network>(&admin(), vec![create()]).await,
        "TunnelIdInUse",
    );
}

#[tokio::test]
async fn macs_are_unique_in_a_network_only() {
    let place = place();
    let (a, b) = (place.network().await, place.network().await);
    let mac = "fa:16:3e:00:00:07".parse().unwrap();
    let with = |network| PortCreate {
        mac_address: Some(mac),
        ..port_of(network)
    };
    place.try_port(with(a)).await.unwrap();
    refused(place.try_port(with(a)).await, "MacAddressInUse");
    place.try_port(with(b)).await.unwrap();
    // A group of stations; what hosts answer with for gateways and for what gateways know.
    for nobodys in ["01:00:5e:00:00:01", "0e:a1:c0:00:00:01", "0e:a1:c0:00:00:02"] {
        let port = PortCreate {
            mac_address: Some(nobodys.parse().unwrap()),
            ..port_of(a)
        };
        refused(place.try_port(port).await, "InvalidInput");
    }
}

#[tokio::test]
async fn a_gateway_that_a_port_has_is_refused() {
    let place = place();
    let id = place.network().await;
    let subnet = place.subnet(id, "10.0.0.0/24").await;
    let keep_free = SubnetUpdate {
        allocation_pools: Some(vec![pool("10.0.0.10", "10.0.0.20")]),
        ..SubnetUpdate::default()
    };
    place
        .region
        .update::<Subnet>(&owner(), subnet.id, keep_free, None)
        .await
        .unwrap();
    place
        .try_port(asking(id, &[(None, Some("10.0.0.99"))]))
        .await
        .unwrap();
    let gateway = |text| SubnetUpdate {
        gateway_ip: Some(Some(ip(text))),
        ..SubnetUpdate::default()
    };
    let caller = owner();
    let update = |text| {
        place
            .region
            .update::<Subnet>(&caller, subnet.id, gateway(text), None)
    };
    refused(update("10.0.0.99").await, "IpAddressAlreadyAllocated");
    refused(update("10.0.0.15").await, "GatewayConflictWithAllocationPools");
    update("10.0.0.98").await.unwrap();
}

/// The pool's end is taken: addresses come from elsewhere in the pool, without a walk over all that are taken.
#[tokio::test]
async fn ipv6_addresses_are_found_when_the_last_is_taken() {
    let place = place();
    let id = place.network().await;
    let subnet = place.subnet(id, "fd00::/64").await;
    let last = subnet.allocation_pools[0].end.to_string();
    assert_eq!(addresses(&*place.port(id).await), ["fd00::1"]);
    place.try_port(asking(id, &[(None, Some(&last))])).await.unwrap();
    let found = place
        .region
        .create::<Port>(&owner(), vec![port_of(id); 100])
        .await
        .unwrap();
    let different: std::collections::HashSet<_> = found.iter().map(|port| addresses(port)).collect();
    assert_eq!(different.len(), 100);
}

async fn status(place: &Place, id: Id<Port>) -> (PortStatus, Option<String>) {
    let snapshot = place.region.snapshot();
    snapshot
        .state
        .port_status(snapshot.state.ports().get(&id).unwrap())
}

#[tokio::test]
async fn a_ports_status_is_what_its_host_said() {
    let place = place();
    let id = place.network().await;
    let port = place.port(id).await;
    assert_eq!(status(&place, port.id).await.0, PortStatus::Down, "unbound");
    let bind = |host: &str| PortUpdate {
        binding_host_id: Some(host.into()),
        ..PortUpdate::default()
    };
    let bound = place
        .region
        .update::<Port>(&admin(), port.id, bind("h1"), None)
        .await
        .unwrap();
    assert_eq!(status(&place, port.id).await.0, PortStatus::Build);
    let report = |host: &str, port: &Port, status, reason: Option<&str>| {
        place.region.report_ports(vec![PortReport {
            port_id: port.id,
            host_id: host.into(),
            applied_revision: port.revision,
            status,
            reason: reason.map(str::to_owned),
        }])
    };
    assert_eq!(
        report("h2", &bound, PortStatus::Active, None).await.unwrap(),
        0,
        "not its host"
    );
    assert_eq!(report("h1", &bound, PortStatus::Active, None).await.unwrap(), 1);
    let revision = place.region.snapshot().revision;
    assert_eq!(
        report("h1", &bound, PortStatus::Active, None).await.unwrap(),
        0,
        "nothing new"
    );
    assert_eq!(place.region.snapshot().revision, revision);
    assert_eq!(status(&place, port.id).await, (PortStatus::Active, None));
    // A change of the port keeps what is known; an older report changes nothing.
    let renamed = PortUpdate {
        device_id: Some("vm".into()),
        ..PortUpdate::default()
    };
    let newer = place
        .region
        .update::<Port>(&owner(), port.id, renamed, None)
        .await
        .unwrap();
    assert_eq!(status(&place, port.id).await.0, PortStatus::Active);
    assert_eq!(
        report("h1", &newer, PortStatus::Error, Some("no room"))
            .await
            .unwrap(),
        1
    );
    assert_eq!(
        report("h1", &bound, PortStatus::Active, None).await.unwrap(),
        0,
        "older"
    );
    assert_eq!(
        status(&place, port.id).await,
        (PortStatus::Error, Some("no room".into()))
    );
    // It moves: nobody has reported yet. It is unbound: DOWN.
    place
        .region
        .update::<Port>(&admin(), port.id, bind("h2"), None)
        .await
        .unwrap();
    assert_eq!(status(&place, port.id).await, (PortStatus::Build, None));
    assert_eq!(report("h1", &newer, PortStatus::Active, None).await.unwrap(), 0);
    // Back again: what its host said of the earlier binding does not count.
    let back = place
        .region
        .update::<Port>(&admin(), port.id, bind("h1"), None)
        .await
        .unwrap();
    assert_eq!(report("h1", &newer, PortStatus::Active, None).await.unwrap(), 0);
    assert_eq!(status(&place, port.id).await, (PortStatus::Build, None));
    assert_eq!(report("h1", &back, PortStatus::Active, None).await.unwrap(), 1);
    place
        .region
        .update::<Port>(&admin(), port.id, bind(""), None)
        .await
        .unwrap();
    assert_eq!(status(&place, port.id).await.0, PortStatus::Down);
    place
        .region
        .delete::<Port>(&owner(), port.id, None)
        .await
        .unwrap();
    assert!(place.region.snapshot().state.runtimes().is_empty());
    assert_eq!(
        report("h2", &newer, PortStatus::Active, None).await.unwrap(),
        0,
        "gone"
    );
}

#[tokio::test]
async fn hosts_register_once_and_move() {
    let place = place();
    let first = place
        .region
        .register_host("h1", HostWord::new(ip("192.0.2.1"), "nova"))
        .await
        .unwrap();
    let same = place
        .region
        .register_host("h1", HostWord::new(ip("192.0.2.1"), "nova"))
        .await
        .unwrap();
    assert_eq!(first, same);
    let moved = place
        .region
        .register_host("h1", HostWord::new(ip("192.0.2.2"), "nova"))
        .await
        .unwrap();
    assert!(moved.revision > first.revision);
    assert_eq!(moved.created_at, first.created_at);
    let word = |networks| HostWord {
        external_networks: std::iter::repeat_with(Id::generate).take(networks).collect(),
        ..HostWord::new(ip("192.0.2.2"), "nova")
    };
    let outfitted = place.region.register_host("h1", word(64)).await.unwrap();
    assert!(outfitted.revision > moved.revision);
    assert_eq!(outfitted.external_networks.len(), 64);
    refused(place.region.register_host("h1", word(65)).await, "InvalidInput");
    refused(
        place
            .region
            .register_host("", HostWord::new(ip("192.0.2.1"), "nova"))
            .await,
        "InvalidInput",
    );
    refused(
        place
            .region
            .register_host("h2", HostWord::new(ip("0.0.0.0"), "nova"))
            .await,
        "InvalidInput",
    );
}

#[tokio::test]
async fn a_full_disk_is_told_and_reads_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let switch = FaultSwitch::default();
    let engine = SqliteEngine::open(&dir.path().join("region.sqlite")).unwrap();
    let engine = FaultyEngine::new(Box::new(engine), switch.clone());
    let region = Region::open(Box::new(engine), RegionConfig::default()).unwrap();
    let create = || vec![NetworkCreate::default()];
    let id = region.create::<Network>(&owner(), create()).await.unwrap()[0].id;
    switch.set(Fault::DiskFull);
    let message = refused(
        region.create::<Network>(&owner(), create()).await,
        "ServiceUnavailable",
    );
    assert!(message.contains("disk is full"), "{message}");
    assert!(region.snapshot().state.visible_network(&owner(), id).is_some());
    switch.set(Fault::None);
    region.create::<Network>(&owner(), create()).await.unwrap();
    assert_eq!(region.snapshot().state.networks().len(), 2);
}
