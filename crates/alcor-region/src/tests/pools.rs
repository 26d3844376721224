//! Subnet pools and address scopes: what subnets get from them, what is refused, who sees them.

use alcor_model::{
    AddressScope, Id, Network, Port, RbacPolicy, Subnet, SubnetPool,
    resource::{Access, SharedType},
};

use super::{Place, admin, member, owner, port_of, slaac_of, subnet_of};
use crate::{
    RegionConfig, RegionError,
    address_scope::{AddressScopeCreate, AddressScopeUpdate},
    command::{Caller, PortCreate, StandardCreate, SubnetCreate, SubnetUpdate},
    rbac::RbacPolicyCreate,
    subnet_pool::{self, SubnetPoolCreate, SubnetPoolUpdate},
};

fn place() -> Place {
    Place::new(RegionConfig::default(), 24)
}

fn refused<T: std::fmt::Debug>(result: Result<T, RegionError>, neutron_type: &str) {
    assert_eq!(result.unwrap_err().neutron_type(), neutron_type);
}

fn pool_of(prefixes: &[&str]) -> SubnetPoolCreate {
    SubnetPoolCreate {
        prefixes: prefixes.iter().map(|text| text.parse().unwrap()).collect(),
        ..SubnetPoolCreate::default()
    }
}

/// A subnet from a pool, of this length.
fn from_pool(network: Id<Network>, pool: Id<SubnetPool>, prefixlen: Option<u64>) -> SubnetCreate {
    SubnetCreate {
        cidr: None,
        prefixlen,
        subnetpool_id: Some(pool),
        ..subnet_of(network, "10.0.0.0/8")
    }
}

impl Place {
    async fn try_pool(
        &self,
        caller: &Caller,
        create: SubnetPoolCreate,
    ) -> Result<Id<SubnetPool>, RegionError> {
        Ok(self.region.create::<SubnetPool>(caller, vec![create]).await?[0].id)
    }

    async fn pool(&self, create: SubnetPoolCreate) -> Id<SubnetPool> {
        self.try_pool(&owner(), create).await.unwrap()
    }

    async fn update_pool(&self, id: Id<SubnetPool>, update: SubnetPoolUpdate) -> Result<(), RegionError> {
        self.region
            .update::<SubnetPool>(&owner(), id, update, None)
            .await
            .map(drop)
    }

    async fn scope(&self, caller: &Caller, shared: bool) -> Id<AddressScope> {
        let create = AddressScopeCreate {
            standard: StandardCreate::default(),
            ip_version: 4,
            shared,
        };
        self.region
            .create::<AddressScope>(caller, vec![create])
            .await
            .unwrap()[0]
            .id
    }

    fn prefixes(&self, id: Id<SubnetPool>) -> Vec<String> {
        let state = &self.region.snapshot().state;
        let pool = state.subnet_pools().get(&id).unwrap();
        pool.prefixes.iter().map(ToString::to_string).collect()
    }
}

#[tokio::test]
async fn a_pool_has_neutrons_defaults_and_compact_prefixes() {
    let place = place();
    let id = place
        .pool(pool_of(&["10.11.12.0/24", "10.11.13.0/24", "10.11.12.0/26"]))
        .await;
    let state = place.region.snapshot();
    let pool = state.state.subnet_pools().get(&id).unwrap();
    assert_eq!(
        (pool.min_prefixlen, pool.max_prefixlen, pool.default_prefixlen),
        (8, 32, 8)
    );
    assert_eq!(place.prefixes(id), ["10.11.12.0/23"]);
    let id = place.pool(pool_of(&["fd00::/48"])).await;
    let state = place.region.snapshot();
    let pool = state.state.subnet_pools().get(&id).unwrap();
    assert_eq!(
        (pool.min_prefixlen, pool.max_prefixlen, pool.default_prefixlen),
        (64, 128, 64)
    );
}

#[tokio::test]
async fn bounds_and_prefixes_are_checked() {
    let place = place();
    let lengths = |min, max, default| SubnetPoolCreate {
        min_prefixlen: min,
        max_prefixlen: max,
        default_prefixlen: default,
        ..pool_of(&["10.0.0.0/16"])
    };
    for (create, kind) in [
        (pool_of(&[]), "EmptySubnetPoolPrefixList"),
        (pool_of(&["10.0.0.0/16", "fd00::/48"]), "PrefixVersionMismatch"),
        (lengths(Some(24), Some(20), None), "IllegalSubnetPoolPrefixBounds"),
        (lengths(None, Some(33), None), "IllegalSubnetPoolPrefixBounds"),
        (lengths(Some(20), None, Some(19)), "IllegalSubnetPoolPrefixBounds"),
        (lengths(None, Some(24), Some(25)), "IllegalSubnetPoolPrefixBounds"),
    ] {
        refused(place.try_pool(&owner(), create).await, kind);
    }
    let id = place.pool(pool_of(&["10.0.0.0/16"])).await;
    let shrink = SubnetPoolUpdate {
        prefixes: Some(vec!["10.0.0.0/17".parse().unwrap()]),
        ..SubnetPoolUpdate::default()
    };
    refused(
        place.update_pool(id, shrink).await,
        "IllegalSubnetPoolPrefixUpdate",
    );
    assert_eq!(place.prefixes(id), ["10.0.0.0/16"]);
}

#[tokio::test]
async fn subnets_come_from_the_smallest_gap_that_fits() {
    let place = place();
    let network = place.network().await;
    let pool = place
        .pool(SubnetPoolCreate {
            min_prefixlen: Some(20),
            max_prefixlen: Some(28),
            default_prefixlen: Some(24),
            ..pool_of(&["10.0.0.0/16"])
        })
        .await;
    let mut given = Vec::new();
    for length in [None, Some(26), Some(26), Some(24), Some(25)] {
        let subnet = place.try_subnet(from_pool(network, pool, length)).await.unwrap();
        assert_eq!(subnet.subnetpool_id, Some(pool));
        given.push((subnet.cidr.to_string(), subnet.gateway_ip.unwrap().to_string()));
    }
    let expected = [
        ("10.0.0.0/24", "10.0.0.1"),
        ("10.0.1.0/26", "10.0.1.1"),
        ("10.0.1.64/26", "10.0.1.65"),
        ("10.0.2.0/24", "10.0.2.1"),
        ("10.0.1.128/25", "10.0.1.129"),
    ];
    assert_eq!(
        given,
        expected.map(|(cidr, gateway)| (cidr.to_owned(), gateway.to_owned()))
    );
    refused(
        place.try_subnet(from_pool(network, pool, Some(19))).await,
        "MinPrefixSubnetAllocationError",
    );
    refused(
        place.try_subnet(from_pool(network, pool, Some(29))).await,
        "MaxPrefixSubnetAllocationError",
    );
    let block = |cidr: &str| SubnetCreate {
        subnetpool_id: Some(pool),
        ..subnet_of(network, cidr)
    };
    place.try_subnet(block("10.0.7.0/24")).await.unwrap();
    refused(
        place.try_subnet(block("10.0.2.0/25")).await,
        "SubnetAllocationError",
    );
    refused(
        place.try_subnet(block("10.1.0.0/24")).await,
        "SubnetAllocationError",
    );
    refused(
        place.region.delete::<SubnetPool>(&owner(), pool, None).await,
        "SubnetPoolDeleteError",
    );
    place
        .region
        .delete::<Network>(&owner(), network, None)
        .await
        .unwrap();
    place
        .region
        .delete::<SubnetPool>(&owner(), pool, None)
        .await
        .unwrap();
}

#[tokio::test]
async fn a_block_is_free_again_when_its_subnet_is_gone() {
    let place = place();
    let network = place.network().await;
    let pool = place.pool(pool_of(&["10.0.0.0/24"])).await;
    let first = place
        .try_subnet(from_pool(network, pool, Some(24)))
        .await
        .unwrap();
    refused(
        place.try_subnet(from_pool(network, pool, Some(25))).await,
        "SubnetAllocationError",
    );
    place
        .region
        .delete::<Subnet>(&owner(), first.id, None)
        .await
        .unwrap();
    let again = place
        .try_subnet(from_pool(network, pool, Some(25)))
        .await
        .unwrap();
    assert_eq!(again.cidr.to_string(), "10.0.0.0/25");
}

#[tokio::test]
async fn requests_that_contradict_themselves_are_refused() {
    let place = place();
    let network = place.network().await;
    let pool = place.pool(pool_of(&["10.0.0.0/16"])).await;
    let plain = || subnet_of(network, "10.0.0.0/24");
    for create in [
        SubnetCreate {
            prefixlen: Some(24),
            ..plain()
        },
        SubnetCreate {
            cidr: None,
            ..plain()
        },
        SubnetCreate {
            use_default_subnetpool: true,
            ..plain()
        },
        SubnetCreate {
            use_default_subnetpool: true,
            subnetpool_id: Some(pool),
            ..plain()
        },
        SubnetCreate {
            ip_version: 6,
            ..from_pool(network, pool, None)
        },
        SubnetCreate {
            allocation_pools: Some(Vec::new()),
            ..from_pool(network, pool, Some(24))
        },
    ] {
        refused(place.try_subnet(create).await, "BadRequest");
    }
    let wrong = SubnetCreate {
        ip_version: 6,
        ..plain()
    };
    refused(place.try_subnet(wrong).await, "InvalidInput");
    let unknown = from_pool(network, Id::generate(), None);
    refused(place.try_subnet(unknown).await, "SubnetPoolNotFound");
}

#[tokio::test]
async fn one_default_pool_a_family() {
    let place = place();
    let network = place.network().await;
    let default = |prefix: &str| SubnetPoolCreate {
        is_default: true,
        shared: true,
        default_prefixlen: Some(if prefix.contains(':') { 64 } else { 24 }),
        ..pool_of(&[prefix])
    };
    let pool = place.try_pool(&admin(), default("10.0.0.0/16")).await.unwrap();
    refused(
        place.try_pool(&admin(), default("10.1.0.0/16")).await,
        "InvalidInput",
    );
    place.try_pool(&admin(), default("fd00::/48")).await.unwrap();
    let create = SubnetCreate {
        cidr: None,
        use_default_subnetpool: true,
        ..subnet_of(network, "10.0.0.0/8")
    };
    let subnet = place.try_subnet(create).await.unwrap();
    assert_eq!(
        (subnet.subnetpool_id, subnet.cidr.to_string()),
        (Some(pool), "10.0.0.0/24".into())
    );
}

#[tokio::test]
async fn a_projects_share_of_a_pool_is_bounded() {
    let place = place();
    let network = place.network().await;
    let pool = place
        .pool(SubnetPoolCreate {
            default_quota: Some(512),
            ..pool_of(&["10.0.0.0/16"])
        })
        .await;
    place
        .try_subnet(from_pool(network, pool, Some(24)))
        .await
        .unwrap();
    refused(
        place.try_subnet(from_pool(network, pool, Some(23))).await,
        "SubnetPoolQuotaExceeded",
    );
    place
        .try_subnet(from_pool(network, pool, Some(24)))
        .await
        .unwrap();
    refused(
        place.try_subnet(from_pool(network, pool, Some(32))).await,
        "SubnetPoolQuotaExceeded",
    );
}

#[tokio::test]
async fn subnets_of_one_network_and_family_come_from_one_pool_or_scope() {
    let place = place();
    let network = place.network().await;
    let scope = place.scope(&owner(), false).await;
    let scoped = |prefix: &str, scope| SubnetPoolCreate {
        address_scope_id: scope,
        ..pool_of(&[prefix])
    };
    let a = place.pool(scoped("10.0.0.0/16", Some(scope))).await;
    let b = place.pool(scoped("10.1.0.0/16", Some(scope))).await;
    let c = place.pool(scoped("10.2.0.0/16", None)).await;
    let other = place.scope(&owner(), false).await;
    let d = place.pool(scoped("10.3.0.0/16", Some(other))).await;
    place.try_subnet(from_pool(network, a, Some(24))).await.unwrap();
    place.try_subnet(from_pool(network, b, Some(24))).await.unwrap();
    refused(
        place.try_subnet(from_pool(network, c, Some(24))).await,
        "NetworkAddressScopeAffinityError",
    );
    refused(
        place.try_subnet(from_pool(network, d, Some(24))).await,
        "NetworkAddressScopeAffinityError",
    );
    refused(
        place.try_subnet(subnet_of(network, "192.0.2.0/24")).await,
        "NetworkSubnetPoolAffinityError",
    );
    // The other family is another matter.
    place.subnet(network, "fd00::/64").await;
    // A pool whose subnets share a network with another pool's cannot leave the scope that holds them together.
    let moved = SubnetPoolUpdate {
        address_scope_id: Some(Some(other)),
        ..SubnetPoolUpdate::default()
    };
    refused(
        place.update_pool(a, moved).await,
        "NetworkAddressScopeAffinityError",
    );
}

#[tokio::test]
async fn addresses_are_unique_in_a_scope() {
    let place = place();
    let scope = place.scope(&owner(), false).await;
    let scoped = |prefix: &str| SubnetPoolCreate {
        address_scope_id: Some(scope),
        ..pool_of(&[prefix])
    };
    let pool = place.pool(scoped("10.0.0.0/16")).await;
    refused(
        place.try_pool(&owner(), scoped("10.0.128.0/17")).await,
        "AddressScopePrefixConflict",
    );
    refused(
        place.try_pool(&owner(), scoped("fd00::/48")).await,
        "IllegalSubnetPoolIpVersionAssociationToAddressScope",
    );
    let next = place.pool(scoped("10.1.0.0/16")).await;
    let grow = SubnetPoolUpdate {
        prefixes: Some(vec!["10.0.0.0/15".parse().unwrap()]),
        ..SubnetPoolUpdate::default()
    };
    refused(place.update_pool(pool, grow).await, "AddressScopePrefixConflict");
    let region = &place.region;
    refused(
        region.delete::<AddressScope>(&owner(), scope, None).await,
        "AddressScopeInUse",
    );
    for pool in [pool, next] {
        region.delete::<SubnetPool>(&owner(), pool, None).await.unwrap();
    }
    region
        .delete::<AddressScope>(&owner(), scope, None)
        .await
        .unwrap();
}

#[tokio::test]
async fn scopes_and_pools_are_seen_by_whom_they_are_shared_with() {
    let place = place();
    let stranger = member("p2");
    let private = place.scope(&owner(), false).await;
    let in_scope = |scope| SubnetPoolCreate {
        address_scope_id: Some(scope),
        ..pool_of(&["10.0.0.0/16"])
    };
    refused(
        place.try_pool(&stranger, in_scope(private)).await,
        "AddressScopeNotFound",
    );
    let shared = place.scope(&admin(), true).await;
    let pool = place.try_pool(&stranger, in_scope(shared)).await.unwrap();
    let rename = |caller: Caller| {
        let region = place.region.clone();
        async move {
            region
                .update::<SubnetPool>(&caller, pool, SubnetPoolUpdate::default(), None)
                .await
        }
    };
    refused(rename(stranger.clone()).await, "IllegalSubnetPoolUpdate");
    rename(admin()).await.unwrap();
    refused(rename(owner()).await, "SubnetPoolNotFound");
    let unshare = AddressScopeUpdate {
        shared: Some(false),
        ..AddressScopeUpdate::default()
    };
    refused(
        place
            .region
            .update::<AddressScope>(&admin(), shared, unshare, None)
            .await,
        "AddressScopeUpdateError",
    );
    let policy = |object_type, object_id| RbacPolicyCreate {
        standard: StandardCreate::default(),
        object_type,
        object_id,
        action: Access::AccessAsShared,
        target_project: "p2".into(),
    };
    let region = &place.region;
    // A pool in a private scope is given only to who has the scope.
    let scoped = place.pool(in_scope(private)).await;
    let give = policy(SharedType::SubnetPool, scoped.uuid());
    refused(
        region.create::<RbacPolicy>(&owner(), vec![give.clone()]).await,
        "RbacPolicyInitError",
    );
    let scope = policy(SharedType::AddressScope, private.uuid());
    region
        .create::<RbacPolicy>(&owner(), vec![scope, give])
        .await
        .unwrap();
    let state = region.snapshot();
    assert!(state.state.pools_seen_by("p2").any(|seen| seen == scoped));
    assert!(state.state.scopes_seen_by("p2").any(|seen| seen == private));
    assert!(!state.state.pools_seen_by("p3").any(|seen| seen == scoped));
}

#[tokio::test]
async fn prefixes_come_and_go_and_networks_come_in() {
    let place = place();
    let network = place.network().await;
    place.subnet(network, "10.0.0.0/24").await;
    let pool = place.pool(pool_of(&["10.9.0.0/16"])).await;
    let region = &place.region;
    let blocks = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect::<Vec<_>>();
    let (add, remove) = (blocks(&["10.8.0.0/16"]), blocks(&["10.9.0.0/24"]));
    region
        .write(move |tx, env| subnet_pool::add_prefixes(tx, env, &owner(), pool, add))
        .await
        .unwrap();
    assert_eq!(place.prefixes(pool), ["10.8.0.0/15"]);
    region
        .write(move |tx, env| subnet_pool::onboard(tx, env, &owner(), pool, network))
        .await
        .unwrap();
    assert_eq!(place.prefixes(pool), ["10.0.0.0/24", "10.8.0.0/15"]);
    let used = blocks(&["10.0.0.0/25"]);
    refused(
        region
            .write(move |tx, env| subnet_pool::remove_prefixes(tx, env, &owner(), pool, used))
            .await,
        "IllegalSubnetPoolPrefixUpdate",
    );
    region
        .write(move |tx, env| subnet_pool::remove_prefixes(tx, env, &owner(), pool, remove))
        .await
        .unwrap();
    assert_eq!(place.prefixes(pool)[0], "10.0.0.0/24");
    assert!(!place.prefixes(pool).contains(&"10.8.0.0/15".to_owned()));
    refused(
        region
            .write(move |tx, env| subnet_pool::onboard(tx, env, &owner(), pool, network))
            .await,
        "IllegalSubnetPoolUpdate",
    );
    refused(
        region
            .write(move |tx, env| subnet_pool::onboard(tx, env, &member("p2"), pool, network))
            .await,
        "NetworkNotFound",
    );
}

#[tokio::test]
async fn subnets_for_a_kind_of_port_serve_only_that_kind() {
    let place = place();
    let network = place.network().await;
    let for_compute = SubnetCreate {
        service_types: vec!["compute:nova".into()],
        ..subnet_of(network, "10.0.1.0/24")
    };
    let special = place.try_subnet(for_compute).await.unwrap().id;
    let owned_by = |device_owner: &str| PortCreate {
        device_owner: device_owner.into(),
        ..port_of(network)
    };
    refused(
        place.try_port(owned_by("network:dns")).await,
        "IpAddressGenerationFailureNoMatchingSubnet",
    );
    let plain = place.subnet(network, "10.0.0.0/24").await.id;
    let subnet_of_port = |port: &Port| port.fixed_ips[0].subnet_id;
    let port = place.try_port(owned_by("compute:nova")).await.unwrap();
    assert_eq!(subnet_of_port(&port), special);
    let port = place.try_port(owned_by("")).await.unwrap();
    assert_eq!(subnet_of_port(&port), plain);
    let port = place.try_port(owned_by("network:dhcp")).await.unwrap();
    assert_eq!(subnet_of_port(&port), special);
    let nobody = SubnetUpdate {
        service_types: Some(Vec::new()),
        ..SubnetUpdate::default()
    };
    place
        .region
        .update::<Subnet>(&owner(), special, nobody, None)
        .await
        .unwrap();
    // A subnet that forms addresses from MACs for another kind of port gives none to this one.
    let auto = SubnetCreate {
        service_types: vec!["compute:nova".into()],
        ..slaac_of(network, "fd00::/64")
    };
    place.try_subnet(auto).await.unwrap();
    let port = place.try_port(owned_by("network:dns")).await.unwrap();
    assert_eq!(port.fixed_ips.len(), 1);
}
