//! RBAC policies: what they show, who may write them, and that nobody loses what it uses.

use alcor_model::{
    Id, Network, Port,
    resource::{Access, RbacPolicy, SharedType},
};

use super::{Place, admin, member, owner, port_of};
use crate::{
    RegionConfig, RegionError,
    command::{Caller, NetworkCreate, NetworkUpdate, StandardCreate},
    rbac::{RbacPolicyCreate, RbacPolicyUpdate},
};

fn place() -> Place {
    Place::new(RegionConfig::default(), 24)
}

fn grant(network: Id<Network>, target: &str) -> RbacPolicyCreate {
    RbacPolicyCreate {
        standard: StandardCreate::default(),
        object_type: SharedType::Network,
        object_id: network.uuid(),
        action: Access::AccessAsShared,
        target_project: target.to_owned(),
    }
}

impl Place {
    async fn try_grant(
        &self,
        caller: &Caller,
        create: RbacPolicyCreate,
    ) -> Result<Id<RbacPolicy>, RegionError> {
        let made = self.region.create::<RbacPolicy>(caller, vec![create]).await?;
        Ok(made[0].id)
    }

    async fn grant(&self, create: RbacPolicyCreate) -> Id<RbacPolicy> {
        self.try_grant(&owner(), create).await.unwrap()
    }

    fn sees(&self, project: &str, id: Id<Network>) -> bool {
        let state = &self.region.snapshot().state;
        let by_id = state.visible_network(&member(project), id).is_some();
        let in_list = state.networks_seen_by(project).any(|seen| seen == id);
        assert_eq!(by_id, in_list, "a list and a look at one network must agree");
        by_id
    }
}

fn refused<T: std::fmt::Debug>(result: Result<T, RegionError>, neutron_type: &str) {
    assert_eq!(result.unwrap_err().neutron_type(), neutron_type);
}

#[tokio::test]
async fn a_network_is_seen_by_whom_it_was_given_and_nobody_else() {
    let place = place();
    let id = place.network().await;
    let subnet = place.subnet(id, "10.0.0.0/24").await.id;
    assert!(place.sees("p1", id) && !place.sees("p2", id));
    let before = place
        .region
        .snapshot()
        .state
        .networks()
        .get(&id)
        .unwrap()
        .standard
        .revision_number;
    let policy = place.grant(grant(id, "p2")).await;
    assert!(place.sees("p2", id) && !place.sees("p3", id));
    let state = place.region.snapshot();
    assert!(state.state.visible_subnet(&member("p2"), subnet).is_some());
    assert!(state.state.visible_subnet(&member("p3"), subnet).is_none());
    assert!(state.state.networks().get(&id).unwrap().standard.revision_number > before);
    let update = RbacPolicyUpdate {
        target_project: Some("p3".into()),
    };
    place
        .region
        .update::<RbacPolicy>(&owner(), policy, update, None)
        .await
        .unwrap();
    assert!(!place.sees("p2", id) && place.sees("p3", id));
    place
        .region
        .delete::<RbacPolicy>(&owner(), policy, None)
        .await
        .unwrap();
    assert!(!place.sees("p3", id) && place.sees("p1", id));
}

#[tokio::test]
async fn only_owners_and_admins_share() {
    let place = place();
    let id = place.network().await;
    let (p2, p3) = (member("p2"), member("p3"));
    refused(place.try_grant(&p2, grant(id, "p3")).await, "NetworkNotFound");
    let policy = place.grant(grant(id, "p2")).await;
    refused(place.try_grant(&p2, grant(id, "p3")).await, "InvalidInput");
    refused(
        place.try_grant(&owner(), grant(id, "p2")).await,
        "DuplicateRbacPolicy",
    );
    refused(
        place.region.delete::<RbacPolicy>(&p2, policy, None).await,
        "RbacPolicyNotFound",
    );
    refused(
        place
            .region
            .update::<RbacPolicy>(&p3, policy, RbacPolicyUpdate::default(), None)
            .await,
        "RbacPolicyNotFound",
    );
    place.try_grant(&admin(), grant(id, "p3")).await.unwrap();
    assert!(place.sees("p3", id));
    let scope = RbacPolicyCreate {
        object_type: SharedType::SubnetPool,
        action: Access::AccessAsExternal,
        ..grant(id, "p2")
    };
    refused(place.try_grant(&owner(), scope).await, "InvalidActionForType");
}

#[tokio::test]
async fn nobody_loses_a_network_that_it_has_ports_in() {
    let place = place();
    let id = place.network().await;
    let policy = place.grant(grant(id, "p2")).await;
    let port = place
        .region
        .create::<Port>(&member("p2"), vec![port_of(id)])
        .await
        .unwrap()[0]
        .id;
    let region = &place.region;
    refused(
        region.delete::<RbacPolicy>(&owner(), policy, None).await,
        "RbacPolicyInUse",
    );
    let to = |target: &str| RbacPolicyUpdate {
        target_project: Some(target.into()),
    };
    refused(
        region
            .update::<RbacPolicy>(&owner(), policy, to("p3"), None)
            .await,
        "RbacPolicyInUse",
    );
    // With everybody allowed, the single grant may go; then the wildcard may not.
    let all = place.try_grant(&admin(), grant(id, "*")).await.unwrap();
    region.delete::<RbacPolicy>(&owner(), policy, None).await.unwrap();
    refused(
        region.delete::<RbacPolicy>(&admin(), all, None).await,
        "RbacPolicyInUse",
    );
    // Narrowed to exactly who uses it, it may.
    region
        .update::<RbacPolicy>(&admin(), all, to("p2"), None)
        .await
        .unwrap();
    region.delete::<Port>(&member("p2"), port, None).await.unwrap();
    region.delete::<RbacPolicy>(&admin(), all, None).await.unwrap();
    // A grant to the owner itself never holds anything.
    let own = place.grant(grant(id, "p1")).await;
    place.port(id).await;
    region.delete::<RbacPolicy>(&owner(), own, None).await.unwrap();
}

#[tokio::test]
async fn shared_is_the_wildcard_row() {
    let place = place();
    let create = NetworkCreate {
        shared: Some(true),
        ..NetworkCreate::default()
    };
    let id = place
        .region
        .create::<Network>(&admin(), vec![create])
        .await
        .unwrap()[0]
        .id;
    let state = place.region.snapshot();
    let wildcard = state
        .state
        .grant(SharedType::Network, id.uuid(), Access::AccessAsShared, "*");
    assert!(wildcard.is_some() && place.sees("anybody", id));
    let unshare = NetworkUpdate {
        shared: Some(false),
        ..NetworkUpdate::default()
    };
    place
        .region
        .update::<Network>(&admin(), id, unshare, None)
        .await
        .unwrap();
    assert!(!place.sees("anybody", id));
    assert!(place.region.snapshot().state.rbac_policies().is_empty());
}

#[tokio::test]
async fn a_network_is_external_as_long_as_somebody_may_use_it_so() {
    let place = place();
    let id = place.network().await;
    let create = RbacPolicyCreate {
        action: Access::AccessAsExternal,
        ..grant(id, "p2")
    };
    let policy = place.try_grant(&admin(), create).await.unwrap();
    let external = || {
        place
            .region
            .snapshot()
            .state
            .networks()
            .get(&id)
            .unwrap()
            .external
    };
    assert!(external() && place.sees("p2", id) && !place.sees("p3", id));
    place
        .region
        .delete::<RbacPolicy>(&admin(), policy, None)
        .await
        .unwrap();
    assert!(!external() && !place.sees("p2", id));
    let update = |external| NetworkUpdate {
        external: Some(external),
        ..NetworkUpdate::default()
    };
    place
        .region
        .update::<Network>(&admin(), id, update(true), None)
        .await
        .unwrap();
    assert!(external() && place.sees("p3", id));
    place
        .region
        .update::<Network>(&admin(), id, update(false), None)
        .await
        .unwrap();
    assert!(!external() && !place.sees("p3", id));
}

#[tokio::test]
async fn what_was_granted_goes_with_the_network() {
    let place = place();
    let id = place.network().await;
    place.subnet(id, "10.0.0.0/24").await;
    place.grant(grant(id, "p2")).await;
    place.region.delete::<Network>(&owner(), id, None).await.unwrap();
    let state = place.region.snapshot();
    assert!(state.state.rbac_policies().is_empty());
    assert_eq!(state.state.networks_seen_by("p2").count(), 0);
    assert_eq!(
        state
            .state
            .given_to(SharedType::Network, Access::AccessAsShared, "p2")
            .count(),
        0
    );
    assert!(state.state.subnets().is_empty());
}
