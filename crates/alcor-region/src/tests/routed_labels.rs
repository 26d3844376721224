//! Labels of networks that share a router: each has a label for every set of the others, as long as somebody needs it.

use std::collections::BTreeSet;

use alcor_model::{Router, SecurityGroup, Subnet};
use proptest::prelude::*;

use super::{
    labels::{group, port_under, put_under},
    *,
};
use crate::router::{self, InterfaceRequest, RouterCreate};

struct Cloud {
    place: Place,
    /// Each with a subnet for each router.
    networks: Vec<(Id<Network>, [Id<Subnet>; 2])>,
    routers: Vec<Id<Router>>,
    groups: Vec<Id<SecurityGroup>>,
}

impl Cloud {
    async fn new() -> Self {
        let place = Place::new(RegionConfig::default(), 24);
        let mut networks = Vec::new();
        for number in 0..3 {
            let network = place.network().await;
            let first = place.subnet(network, &format!("10.0.{number}.0/24")).await;
            let second = place.subnet(network, &format!("10.1.{number}.0/24")).await;
            networks.push((network, [first.id, second.id]));
        }
        let routers = vec![RouterCreate::default(); 2];
        let routers = place.region.create::<Router>(&owner(), routers).await.unwrap();
        let groups = vec![group(&place, "a").await, group(&place, "b").await];
        Self {
            networks,
            routers: routers.iter().map(|router| router.id).collect(),
            groups,
            place,
        }
    }

    /// Adds the interface of a router in a network, or removes the one that is there.
    async fn turn(&self, router: usize, network: usize) {
        let (id, (network, subnets)) = (self.routers[router], self.networks[network]);
        let has = |router: &Router| router.interfaces.iter().any(|place| place.network_id == network);
        let state = &self.place.region.snapshot().state;
        let there = state.routers().get(&id).is_some_and(|router| has(router));
        let request = InterfaceRequest {
            port_id: None,
            subnet_id: Some(subnets[router]),
        };
        let turned = self.place.region.write(move |tx, env| match there {
            true => router::remove_interface(tx, env, &owner(), id, request),
            false => router::add_interface(tx, env, &owner(), id, request),
        });
        turned.await.unwrap();
    }

    fn check(&self) {
        let state = &self.place.region.snapshot().state;
        let sets = |network: Id<Network>| -> BTreeSet<Vec<Id<SecurityGroup>>> {
            let ports = state
                .ports_of(network)
                .filter(|port| !port.security_groups.is_empty());
            ports.map(|port| port.security_groups.clone()).collect()
        };
        for (network, _) in &self.networks {
            let mut needed = sets(*network);
            for router in state.routers_in(*network) {
                let places = router.interfaces.iter();
                needed.extend(places.flat_map(|place| sets(place.network_id)));
            }
            let live = state.labels_of(*network).filter(|label| !label.retired);
            let live: BTreeSet<_> = live.map(|label| label.security_groups.clone()).collect();
            assert_eq!(live, needed, "of network {network}");
        }
    }
}

#[tokio::test]
async fn networks_of_a_router_have_labels_for_each_others_sets() {
    let cloud = Cloud::new().await;
    let [first, second, _] = [0, 1, 2].map(|number| cloud.networks[number].0);
    let port = port_under(&cloud.place, first, &cloud.groups[..1]).await;
    let labels = |network| cloud.place.region.snapshot().state.labels_of(network).count();
    cloud.turn(0, 0).await;
    assert_eq!(labels(second), 0, "they do not share a router yet");
    cloud.turn(0, 1).await;
    cloud.check();
    assert_eq!(labels(second), 1);
    put_under(&cloud.place, port.id, &cloud.groups).await;
    cloud.check();
    cloud.turn(0, 0).await;
    cloud.check();
    let state = &cloud.place.region.snapshot().state;
    assert!(
        state.labels_of(second).all(|label| label.retired),
        "they rest until every host has forgotten them"
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// Ports come, change and go while routers connect networks and let them go: what has a label is exactly what is needed.
    #[test]
    fn what_has_a_label_is_what_is_needed(steps in prop::collection::vec((0u8..4, 0usize..3, 0usize..2, 0usize..4), 1..60)) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async move {
            let cloud = Cloud::new().await;
            let mut ports: Vec<Id<Port>> = Vec::new();
            for (what, network, router, bits) in steps {
                let groups: Vec<_> = (0..2).filter(|bit| bits >> bit & 1 == 1).map(|bit| cloud.groups[bit]).collect();
                match (what, ports.pop()) {
                    (1, Some(port)) => {
                        put_under(&cloud.place, port, &groups).await;
                        ports.insert(0, port);
                    }
                    (2, Some(port)) => cloud.place.region.delete::<Port>(&owner(), port, None).await.unwrap(),
                    (3, port) => {
                        ports.extend(port);
                        cloud.turn(router, network).await;
                    }
                    (_, port) => {
                        ports.extend(port);
                        ports.push(port_under(&cloud.place, cloud.networks[network].0, &groups).await.id);
                    }
                }
                cloud.check();
            }
        });
    }
}
