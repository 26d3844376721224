//! Quotas: limits, defaults, and that nobody gets past them.

use alcor_model::{Network, SecurityGroup, Subnet};

use super::{Place, owner};
use crate::{
    RegionConfig, RegionError,
    command::{NetworkCreate, SubnetUpdate},
    quota,
    security_group::SecurityGroupCreate,
};

fn two_networks() -> RegionConfig {
    RegionConfig {
        quotas: [("network", 2)].into(),
        ..RegionConfig::default()
    }
}

async fn make(place: &Place, number: usize) -> Result<usize, String> {
    place
        .region
        .create::<Network>(&owner(), vec![NetworkCreate::default(); number])
        .await
        .map(|rows| rows.len())
        .map_err(|error| error.to_string())
}

async fn set(place: &Place, limit: i64, force: bool) -> Result<(), RegionError> {
    place
        .region
        .write(move |tx, _| quota::update(tx, "p1", vec![("network", limit)], force))
        .await
}

fn used(place: &Place) -> quota::Usage {
    let snapshot = place.region.snapshot();
    quota::usages(&snapshot.state, place.region.config(), "p1")
        .find(|usage| usage.name == "network")
        .unwrap()
}

const OVER: &str = "Quota exceeded for resources: ['network'].";

#[tokio::test]
async fn a_bulk_over_the_default_limit_leaves_nothing() {
    let place = Place::new(two_networks(), 24);
    assert_eq!(make(&place, 3).await, Err(OVER.to_owned()));
    assert_eq!(used(&place).used, 0);
    assert_eq!(make(&place, 2).await, Ok(2));
    assert_eq!(make(&place, 1).await, Err(OVER.to_owned()));
    assert_eq!((used(&place).limit, used(&place).used), (2, 2));
}

#[tokio::test]
async fn a_project_has_limits_of_its_own_until_they_are_reset() {
    let place = Place::new(two_networks(), 24);
    set(&place, 3, false).await.unwrap();
    assert_eq!(make(&place, 3).await, Ok(3));
    let refusal = set(&place, 1, false).await.unwrap_err();
    assert_eq!(refusal.neutron_type(), "HTTPBadRequest");
    assert_eq!(
        refusal.to_string(),
        "Quota limit 1 for network must be greater than or equal to already used 3"
    );
    set(&place, 1, true).await.unwrap();
    assert_eq!(make(&place, 1).await, Err(OVER.to_owned()));
    set(&place, quota::UNLIMITED, false).await.unwrap();
    assert_eq!(make(&place, 20).await, Ok(20));
    place.region.write(|tx, _| quota::reset(tx, "p1")).await.unwrap();
    assert_eq!((used(&place).limit, used(&place).used), (2, 23));
    assert_eq!(make(&place, 1).await, Err(OVER.to_owned()));
    let gone = place
        .region
        .write(|tx, _| quota::reset(tx, "p1"))
        .await
        .unwrap_err();
    assert_eq!(gone.neutron_type(), "TenantQuotaNotFound");
}

#[tokio::test]
async fn a_deleted_network_makes_room() {
    let place = Place::new(two_networks(), 24);
    let (first, _) = (place.network().await, place.network().await);
    assert_eq!(make(&place, 1).await, Err(OVER.to_owned()));
    place
        .region
        .delete::<Network>(&owner(), first, None)
        .await
        .unwrap();
    assert_eq!(make(&place, 1).await, Ok(1));
}

#[tokio::test]
async fn clients_at_the_same_time_do_not_get_past_a_limit() {
    let place = Place::new(
        RegionConfig {
            quotas: [("network", 5)].into(),
            ..RegionConfig::default()
        },
        24,
    );
    let mut clients = tokio::task::JoinSet::new();
    for _ in 0..20 {
        let region = place.region.clone();
        clients.spawn(async move {
            region
                .create::<Network>(&owner(), vec![NetworkCreate::default()])
                .await
        });
    }
    let made = clients.join_all().await;
    assert_eq!(made.iter().filter(|outcome| outcome.is_ok()).count(), 5);
    assert_eq!(used(&place).used, 5);
}

/// The default group comes with a project's first group; nobody asked for it.
#[tokio::test]
async fn what_comes_along_is_counted_and_does_not_stand_in_the_way() {
    let config = RegionConfig {
        quotas: [("security_group", 1)].into(),
        ..RegionConfig::default()
    };
    let place = Place::new(config, 24);
    let group = async || {
        let groups = vec![SecurityGroupCreate::default()];
        place.region.create::<SecurityGroup>(&owner(), groups).await
    };
    group().await.unwrap();
    assert_eq!(place.region.snapshot().state.count::<SecurityGroup>("p1"), 2);
    let refusal = group().await.unwrap_err();
    assert_eq!(
        refusal.to_string(),
        "Quota exceeded for resources: ['security_group']."
    );
}

#[tokio::test]
async fn a_network_is_revised_by_its_subnets() {
    let place = Place::new(RegionConfig::default(), 24);
    let id = place.network().await;
    let revision = || {
        place
            .region
            .snapshot()
            .state
            .networks()
            .get(&id)
            .unwrap()
            .standard
            .revision_number
    };
    let before = revision();
    let subnet = place.subnet(id, "10.0.0.0/24").await;
    assert_eq!(revision(), before + 1);
    let region = &place.region;
    region
        .update::<Subnet>(&owner(), subnet.id, SubnetUpdate::default(), None)
        .await
        .unwrap();
    assert_eq!(revision(), before + 2);
    region.delete::<Subnet>(&owner(), subnet.id, None).await.unwrap();
    assert_eq!(revision(), before + 3);
}
