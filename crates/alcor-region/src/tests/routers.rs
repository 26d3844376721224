//! Routers and floating IPs between projects: what strangers cannot see they cannot use, and a refusal leaves nothing.

use std::sync::Arc;

use alcor_model::{
    FloatingIp, Id, Network, Port, Router, Subnet,
    resource::{ROUTER_INTERFACE, RbacPolicy},
};

use super::{Place, admin, member, owner, port_of, subnet_of};
use crate::{
    RegionConfig, RegionError,
    command::{Caller, NetworkCreate, NetworkUpdate},
    floating_ip::{AssociationRequest, FloatingIpCreate, FloatingIpUpdate},
    router::{self, GatewayRequest, InterfaceInfo, InterfaceRequest, RouterCreate, RouterUpdate},
};

struct Cloud {
    place: Place,
    external: Id<Network>,
    network: Id<Network>,
    subnet: Id<Subnet>,
}

impl Cloud {
    async fn new(config: RegionConfig) -> Self {
        let place = Place::new(config, 24);
        let create = NetworkCreate {
            external: Some(true),
            ..NetworkCreate::default()
        };
        let external = place
            .region
            .create::<Network>(&admin(), vec![create])
            .await
            .unwrap()[0]
            .id;
        place
            .region
            .create::<Subnet>(&admin(), vec![subnet_of(external, "203.0.113.0/24")])
            .await
            .unwrap();
        let network = place.network().await;
        let subnet = place.subnet(network, "10.0.0.0/24").await.id;
        Self {
            place,
            external,
            network,
            subnet,
        }
    }

    fn gateway(&self) -> GatewayRequest {
        GatewayRequest {
            network_id: self.external,
            enable_snat: None,
            external_fixed_ips: Vec::new(),
        }
    }

    async fn router(&self, caller: &Caller) -> Id<Router> {
        let create = RouterCreate {
            gateway: Some(self.gateway()),
            ..RouterCreate::default()
        };
        let made = self.place.region.create::<Router>(caller, vec![create]).await;
        made.unwrap()[0].id
    }

    async fn add(
        &self,
        caller: &Caller,
        id: Id<Router>,
        request: InterfaceRequest,
    ) -> Result<InterfaceInfo, RegionError> {
        let caller = caller.clone();
        self.place
            .region
            .write(move |tx, env| router::add_interface(tx, env, &caller, id, request))
            .await
    }

    async fn add_subnet(&self, caller: &Caller, id: Id<Router>) -> Result<InterfaceInfo, RegionError> {
        let request = InterfaceRequest {
            port_id: None,
            subnet_id: Some(self.subnet),
        };
        self.add(caller, id, request).await
    }

    async fn floating_ip(
        &self,
        caller: &Caller,
        port: Option<Id<Port>>,
    ) -> Result<Arc<FloatingIp>, RegionError> {
        let create = FloatingIpCreate {
            standard: crate::command::StandardCreate::default(),
            floating_network_id: self.external,
            subnet_id: None,
            floating_ip_address: None,
            association: AssociationRequest {
                port_id: Some(port),
                ..AssociationRequest::default()
            },
            dns_name: String::new(),
            dns_domain: String::new(),
        };
        Ok(self
            .place
            .region
            .create::<FloatingIp>(caller, vec![create])
            .await?
            .remove(0))
    }

    /// How many ports there are.
    fn ports(&self) -> usize {
        self.place.region.snapshot().state.ports().len()
    }
}

fn kind<T: std::fmt::Debug>(result: Result<T, RegionError>) -> &'static str {
    result.unwrap_err().neutron_type()
}

#[tokio::test]
async fn strangers_see_neither_routers_nor_what_they_would_connect() {
    let cloud = Cloud::new(RegionConfig::default()).await;
    let stranger = member("p2");
    let mine = cloud.router(&owner()).await;
    let theirs = cloud.router(&stranger).await;
    let region = &cloud.place.region;
    assert_eq!(kind(cloud.add_subnet(&stranger, mine).await), "RouterNotFound");
    assert_eq!(kind(cloud.add_subnet(&stranger, theirs).await), "SubnetNotFound");
    let port = cloud.place.port(cloud.network).await.id;
    let by_port = InterfaceRequest {
        port_id: Some(port),
        subnet_id: None,
    };
    assert_eq!(kind(cloud.add(&stranger, theirs, by_port).await), "PortNotFound");
    assert_eq!(
        kind(region.delete::<Router>(&stranger, mine, None).await),
        "RouterNotFound"
    );
    cloud.add_subnet(&owner(), mine).await.unwrap();
    let floating_ip = cloud.floating_ip(&stranger, None).await.unwrap().id;
    let update = FloatingIpUpdate {
        association: AssociationRequest {
            port_id: Some(Some(port)),
            ..AssociationRequest::default()
        },
        ..FloatingIpUpdate::default()
    };
    let stolen = region
        .update::<FloatingIp>(&stranger, floating_ip, update.clone(), None)
        .await;
    assert_eq!(kind(stolen), "PortNotFound");
    let foreign = region
        .update::<FloatingIp>(&owner(), floating_ip, update, None)
        .await;
    assert_eq!(kind(foreign), "FloatingIPNotFound");
}

#[tokio::test]
async fn a_network_shared_with_everybody_gives_no_gateway_address_away() {
    let cloud = Cloud::new(RegionConfig::default()).await;
    let stranger = member("p2");
    let theirs = cloud.router(&stranger).await;
    let share = NetworkUpdate {
        shared: Some(true),
        ..NetworkUpdate::default()
    };
    cloud
        .place
        .region
        .update::<Network>(&admin(), cloud.network, share, None)
        .await
        .unwrap();
    assert_eq!(kind(cloud.add_subnet(&stranger, theirs).await), "BadRequest");
    let policy = crate::rbac::RbacPolicyCreate {
        standard: crate::command::StandardCreate::default(),
        object_type: alcor_model::resource::SharedType::Network,
        object_id: cloud.network.uuid(),
        action: alcor_model::resource::Access::AccessAsShared,
        target_project: "p2".into(),
    };
    cloud
        .place
        .region
        .create::<RbacPolicy>(&owner(), vec![policy])
        .await
        .unwrap();
    let info = cloud.add_subnet(&stranger, theirs).await.unwrap();
    assert_eq!(info.port.standard.project_id, "p2");
}

#[tokio::test]
async fn what_a_client_writes_into_device_id_makes_no_interface() {
    let cloud = Cloud::new(RegionConfig::default()).await;
    let id = cloud.router(&owner()).await;
    let mut forged = port_of(cloud.network);
    forged.device_id = id.to_string();
    forged.device_owner = ROUTER_INTERFACE.to_owned();
    let forged = cloud.place.try_port(forged).await.unwrap().id;
    let port = cloud.place.port(cloud.network).await.id;
    assert_eq!(
        kind(cloud.floating_ip(&owner(), Some(port)).await),
        "ExternalGatewayForFloatingIPNotFound"
    );
    let region = &cloud.place.region;
    region.delete::<Port>(&owner(), forged, None).await.unwrap();
    region.delete::<Router>(&owner(), id, None).await.unwrap();
}

#[tokio::test]
async fn a_refused_change_leaves_nothing() {
    let quotas = [("router", 1), ("floatingip", 1)].into();
    let config = RegionConfig {
        quotas,
        ..RegionConfig::default()
    };
    let cloud = Cloud::new(config).await;
    let id = cloud.router(&owner()).await;
    let before = cloud.ports();
    let create = RouterCreate {
        gateway: Some(cloud.gateway()),
        ..RouterCreate::default()
    };
    let region = &cloud.place.region;
    assert_eq!(
        kind(region.create::<Router>(&owner(), vec![create]).await),
        "OverQuota"
    );
    let lonely = cloud.place.port(cloud.network).await.id;
    assert_eq!(
        kind(cloud.floating_ip(&owner(), Some(lonely)).await),
        "ExternalGatewayForFloatingIPNotFound"
    );
    assert_eq!(cloud.ports(), before + 1, "only the port that was asked for");
    cloud.add_subnet(&owner(), id).await.unwrap();
    cloud.floating_ip(&owner(), Some(lonely)).await.unwrap();
    let before = cloud.ports();
    assert_eq!(kind(cloud.floating_ip(&owner(), None).await), "OverQuota");
    let clear = RouterUpdate {
        gateway: Some(None),
        ..RouterUpdate::default()
    };
    assert_eq!(
        kind(region.update::<Router>(&owner(), id, clear, None).await),
        "RouterExternalGatewayInUseByFloatingIp"
    );
    assert_eq!(
        kind(region.delete::<Router>(&owner(), id, None).await),
        "RouterInUse"
    );
    assert_eq!(cloud.ports(), before);
}

#[tokio::test]
async fn rows_and_indexes_survive_a_restart() {
    let cloud = Cloud::new(RegionConfig::default()).await;
    let id = cloud.router(&owner()).await;
    cloud.add_subnet(&owner(), id).await.unwrap();
    let port = cloud.place.port(cloud.network).await.id;
    let floating_ip = cloud.floating_ip(&owner(), Some(port)).await.unwrap();
    let dir = cloud.place.dir;
    drop(cloud.place.region);
    let engine = alcor_store::SqliteEngine::open(&dir.path().join("region.sqlite")).unwrap();
    let region = crate::Region::open(Box::new(engine), RegionConfig::default()).unwrap();
    let snapshot = region.snapshot();
    let state = &snapshot.state;
    let found: Vec<_> = state.floating_ips_to(port).cloned().collect();
    assert_eq!(found, [Arc::clone(&floating_ip)]);
    assert_eq!(state.floating_ips_of_router(id).count(), 1);
    assert_eq!(
        state.routers_in(cloud.network).map(|router| router.id).next(),
        Some(id)
    );
}
