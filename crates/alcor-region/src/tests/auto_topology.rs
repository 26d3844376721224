//! A network for who wants no more than a network: all of it or nothing.

use alcor_model::{Router, SubnetPool};

use super::*;
use crate::{
    auto_topology,
    router::{self, InterfaceRequest},
    subnet_pool::SubnetPoolCreate,
};

/// A region with a default external network and default pools of both families that everybody sees.
async fn prepared(config: RegionConfig) -> Place {
    let place = Place::new(config, 24);
    let admin = admin();
    let network = NetworkCreate {
        external: Some(true),
        is_default: Some(true),
        ..NetworkCreate::default()
    };
    let network = place
        .region
        .create::<Network>(&admin, vec![network])
        .await
        .unwrap();
    let subnet = subnet_of(network[0].id, "203.0.113.0/24");
    place.region.create::<Subnet>(&admin, vec![subnet]).await.unwrap();
    for prefix in ["10.8.0.0/22", "fd00:8::/60"] {
        let pool = pool(prefix);
        place
            .region
            .create::<SubnetPool>(&admin, vec![pool])
            .await
            .unwrap();
    }
    place
}

fn pool(prefix: &str) -> SubnetPoolCreate {
    SubnetPoolCreate {
        shared: true,
        is_default: true,
        default_prefixlen: Some(if prefix.contains(':') { 64 } else { 24 }),
        prefixes: vec![prefix.parse().unwrap()],
        ..SubnetPoolCreate::default()
    }
}

async fn get(place: &Place, project: &str) -> Result<Id<Network>, RegionError> {
    let (caller, project) = (member(project), project.to_owned());
    place
        .region
        .write(move |tx, env| auto_topology::get(tx, env, &caller, &project))
        .await
}

async fn delete(place: &Place, project: &str) -> Result<(), RegionError> {
    let (caller, project) = (member(project), project.to_owned());
    place
        .region
        .write(move |tx, env| auto_topology::delete(tx, env, &caller, &project))
        .await
}

/// Networks, subnets, routers and ports of a project.
fn owned(place: &Place, project: &str) -> [u64; 4] {
    let snapshot = place.region.snapshot();
    let state = &snapshot.state;
    [
        state.count::<Network>(project),
        state.count::<Subnet>(project),
        state.count::<Router>(project),
        state.count::<Port>(project),
    ]
}

#[tokio::test]
async fn a_network_is_made_once_and_taken_away_whole() {
    let place = prepared(RegionConfig::default()).await;
    let network = get(&place, "a").await.unwrap();
    assert_eq!(get(&place, "a").await.unwrap(), network);
    // The port of the way out has no owner.
    assert_eq!(owned(&place, "a"), [1, 2, 1, 2]);
    let snapshot = place.region.snapshot();
    let names: Vec<&str> = snapshot
        .state
        .subnets_of(network)
        .map(|subnet| subnet.standard.name.as_str())
        .collect();
    assert_eq!(names.len(), 2);
    assert!(names.contains(&"auto_allocated_subnet_v4") && names.contains(&"auto_allocated_subnet_v6"));
    let router = snapshot.state.routers().iter().next().unwrap();
    assert!(router.gateway.is_some());
    assert_ne!(get(&place, "b").await.unwrap(), network);

    // Somebody's port is in it: it stays as a whole.
    let port = place
        .region
        .create::<Port>(&member("a"), vec![port_of(network)])
        .await
        .unwrap();
    assert_eq!(
        delete(&place, "a").await.unwrap_err().neutron_type(),
        "NetworkInUse"
    );
    assert_eq!(owned(&place, "a"), [1, 2, 1, 3]);
    place
        .region
        .delete::<Port>(&member("a"), port[0].id, None)
        .await
        .unwrap();
    delete(&place, "a").await.unwrap();
    assert_eq!(owned(&place, "a"), [0; 4]);
    delete(&place, "a").await.unwrap();
    assert_eq!(owned(&place, "b"), [1, 2, 1, 2]);
}

/// Takes the router off all subnets of a network.
async fn unplug(place: &Place, project: &str, network: Id<Network>) -> Id<Router> {
    let snapshot = place.region.snapshot();
    let router = snapshot.state.routers().iter().next().unwrap().id;
    for subnet in snapshot.state.subnets_of(network) {
        let request = InterfaceRequest {
            subnet_id: Some(subnet.id),
            port_id: None,
        };
        let caller = member(project);
        let removed = place
            .region
            .write(move |tx, env| router::remove_interface(tx, env, &caller, router, request));
        removed.await.unwrap();
    }
    router
}

#[tokio::test]
async fn what_a_project_deleted_of_it_is_no_matter() {
    let place = prepared(RegionConfig::default()).await;
    let network = get(&place, "a").await.unwrap();
    let router = unplug(&place, "a", network).await;
    let caller = member("a");
    place
        .region
        .delete::<Router>(&caller, router, None)
        .await
        .unwrap();
    delete(&place, "a").await.unwrap();
    assert_eq!(owned(&place, "a"), [0; 4]);

    let again = get(&place, "a").await.unwrap();
    assert_ne!(again, network);
    // A network that is deleted by hand is made anew.
    unplug(&place, "a", again).await;
    place
        .region
        .delete::<Network>(&caller, again, None)
        .await
        .unwrap();
    assert_ne!(get(&place, "a").await.unwrap(), again);
}

#[tokio::test]
async fn what_is_missing_is_said_and_nothing_is_left() {
    let failed = |result: Result<Id<Network>, RegionError>, words: &str| {
        let error = result.unwrap_err();
        assert_eq!(error.neutron_type(), "AutoAllocationFailure");
        assert!(error.to_string().contains(words), "{error}");
    };
    let bare = Place::new(RegionConfig::default(), 24);
    failed(get(&bare, "a").await, "No default router:external network");
    let network = NetworkCreate {
        external: Some(true),
        is_default: Some(true),
        ..NetworkCreate::default()
    };
    bare.region
        .create::<Network>(&admin(), vec![network])
        .await
        .unwrap();
    failed(get(&bare, "a").await, "No default subnetpools defined");
    let pools = vec![pool("10.0.0.0/24")];
    bare.region.create::<SubnetPool>(&admin(), pools).await.unwrap();
    // The external network has no subnet: the router's way out has no address, which is no fault.
    get(&bare, "a").await.unwrap();
    // The pool has one block, and it is given.
    failed(get(&bare, "b").await, "Unable to provide project private network");
    assert_eq!(owned(&bare, "b"), [0; 4]);

    let config = RegionConfig {
        quotas: [("router", 0)].into(),
        ..RegionConfig::default()
    };
    let poor = prepared(config).await;
    assert_eq!(get(&poor, "a").await.unwrap_err().neutron_type(), "OverQuota");
    assert_eq!(owned(&poor, "a"), [0; 4]);
}
