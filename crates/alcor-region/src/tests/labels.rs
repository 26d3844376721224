//! Labels: one number for one set, from the first port to the last host's forgetting.

use std::{collections::BTreeMap, num::NonZeroU16};

use alcor_model::{Label, SecurityGroup};
use alcor_store::Tx;
use proptest::prelude::*;

use super::*;
use crate::{Env, RegionState, command::PortUpdate, label, security_group::SecurityGroupCreate};

pub(super) async fn group(place: &Place, name: &str) -> Id<SecurityGroup> {
    let create = SecurityGroupCreate {
        standard: StandardCreate {
            name: name.into(),
            ..StandardCreate::default()
        },
        stateful: None,
    };
    place
        .region
        .create::<SecurityGroup>(&owner(), vec![create])
        .await
        .unwrap()[0]
        .id
}

pub(super) async fn port_under(
    place: &Place,
    network: Id<Network>,
    groups: &[Id<SecurityGroup>],
) -> Arc<Port> {
    let create = PortCreate {
        security_groups: Some(groups.to_vec()),
        ..port_of(network)
    };
    place.try_port(create).await.unwrap()
}

pub(super) async fn put_under(place: &Place, port: Id<Port>, groups: &[Id<SecurityGroup>]) -> Arc<Port> {
    let update = PortUpdate {
        security_groups: Some(groups.to_vec()),
        ..PortUpdate::default()
    };
    place
        .region
        .update::<Port>(&owner(), port, update, None)
        .await
        .unwrap()
}

fn labels(place: &Place, network: Id<Network>) -> Vec<Arc<Label>> {
    place
        .region
        .snapshot()
        .state
        .labels_of(network)
        .cloned()
        .collect()
}

#[tokio::test]
async fn a_known_set_costs_nothing_but_the_port() {
    let place = Place::new(RegionConfig::default(), 24);
    let (network, a, b) = (
        place.network().await,
        group(&place, "a").await,
        group(&place, "b").await,
    );
    let first = port_under(&place, network, &[a, b]).await;
    let before = place.region.snapshot().revision;
    let second = port_under(&place, network, &[b, a]).await;
    assert_eq!(first.label, second.label);
    let changes = place
        .region
        .subscribe(before)
        .next()
        .await
        .unwrap()
        .unwrap()
        .changes;
    assert_eq!(changes.len(), 1, "the port and nothing else: {changes:?}");
    assert_ne!(port_under(&place, network, &[a]).await.label, first.label);
}

#[tokio::test]
async fn no_groups_is_zero_and_no_port_security_is_no_label() {
    let place = Place::new(RegionConfig::default(), 24);
    let network = place.network().await;
    assert_eq!(port_under(&place, network, &[]).await.label, Some(0));
    let open = PortCreate {
        port_security_enabled: Some(false),
        ..port_of(network)
    };
    assert_eq!(place.try_port(open).await.unwrap().label, None);
    assert!(labels(&place, network).is_empty());
}

#[tokio::test]
async fn a_label_rests_until_every_host_has_forgotten_it() {
    let place = Place::new(RegionConfig::default(), 24);
    let (network, a, b) = (
        place.network().await,
        group(&place, "a").await,
        group(&place, "b").await,
    );
    let port = port_under(&place, network, &[a]).await;
    let moved = put_under(&place, port.id, &[b]).await;
    assert_ne!(moved.label, port.label);
    let old = labels(&place, network).remove(0);
    assert!(old.retired && Some(old.number.get()) == port.label);

    // The set comes back before it was forgotten: the same number, and a late release does nothing.
    let back = put_under(&place, port.id, &[a]).await;
    assert_eq!(back.label, port.label);
    let late = vec![(old.id, old.revision)];
    let released = place
        .region
        .write(move |tx, _| Ok(label::release(tx, &late)))
        .await
        .unwrap();
    assert_eq!(released, 0);

    // Forgotten by all: the number is free.
    place
        .region
        .delete::<Port>(&owner(), port.id, None)
        .await
        .unwrap();
    let retired: Vec<_> = labels(&place, network)
        .iter()
        .map(|label| (label.id, label.revision))
        .collect();
    assert_eq!(retired.len(), 2);
    let released = place
        .region
        .write(move |tx, _| Ok(label::release(tx, &retired)))
        .await
        .unwrap();
    assert_eq!(released, 2);
    assert!(labels(&place, network).is_empty());
}

#[tokio::test]
async fn a_network_takes_its_labels_along() {
    let place = Place::new(RegionConfig::default(), 24);
    let network = place.network().await;
    let port = place.port(network).await;
    place
        .region
        .delete::<Port>(&owner(), port.id, None)
        .await
        .unwrap();
    assert_eq!(labels(&place, network).len(), 1);
    place
        .region
        .delete::<Network>(&owner(), network, None)
        .await
        .unwrap();
    assert!(place.region.snapshot().state.labels().is_empty());
}

fn env() -> Env {
    Env {
        config: Arc::new(RegionConfig::default()),
        source: Replay::new(24),
    }
}

fn groups_of(bits: u32) -> Vec<Id<SecurityGroup>> {
    (0..17)
        .filter(|bit| bits >> bit & 1 == 1)
        .map(|bit| Id::from_uuid(Uuid::from_u128(bit + 1)))
        .collect()
}

/// 16 groups have 65,535 sets that are not empty, which is as many as a network can have; the next one is refused in
/// words that say what to do, and leaves nothing.
#[test]
fn the_set_after_the_last_is_refused() {
    let (env, mut state) = (env(), RegionState::default());
    let network = Id::from_uuid(Uuid::from_u128(99));
    let take = |state: &mut RegionState, bits: u32| {
        let mut tx = Tx::new(state, alcor_model::Revision(u64::from(bits)));
        label::of_groups(&mut tx, &env, network, true, &groups_of(bits))
    };
    for bits in 1..=u32::from(u16::MAX) {
        assert_eq!(take(&mut state, bits), Ok(u16::try_from(bits).ok()));
    }
    let refused = take(&mut state, 1 << 16).unwrap_err();
    assert_eq!(refused, label::LabelError::Exhausted(network));
    assert_eq!(state.labels().len(), usize::from(u16::MAX));
    // A set that is there is still given, and other networks have numbers of their own.
    assert_eq!(take(&mut state, 77), Ok(Some(77)));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// Ports come, change their groups and go, releases come late or never: a number has one meaning until it is
    /// released, equal sets have equal numbers, and a label without ports is retired.
    #[test]
    fn a_number_has_one_meaning(steps in prop::collection::vec((0u8..6, 0u8..4, 0u32..8), 1..80)) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async move {
            let place = Place::new(RegionConfig::default(), 24);
            let network = place.network().await;
            let all = [group(&place, "a").await, group(&place, "b").await, group(&place, "c").await];
            let mut ports: BTreeMap<u8, Id<Port>> = BTreeMap::new();
            let mut meaning: BTreeMap<NonZeroU16, Vec<Id<SecurityGroup>>> = BTreeMap::new();
            for (which, what, bits) in steps {
                let groups: Vec<_> = (0..3).filter(|bit| bits >> bit & 1 == 1).map(|bit| all[bit]).collect();
                match (what, ports.get(&which).copied()) {
                    (0 | 1, None) => {
                        ports.insert(which, port_under(&place, network, &groups).await.id);
                    }
                    (0 | 1, Some(port)) => {
                        put_under(&place, port, &groups).await;
                    }
                    (2, Some(port)) => {
                        place.region.delete::<Port>(&owner(), port, None).await.unwrap();
                        ports.remove(&which);
                    }
                    (3, _) => {
                        let retired: Vec<_> = labels(&place, network).into_iter().filter(|label| label.retired).collect();
                        let what: Vec<_> = retired.iter().map(|label| (label.id, label.revision)).collect();
                        let count = what.len();
                        let released = place.region.write(move |tx, _| Ok(label::release(tx, &what))).await.unwrap();
                        assert_eq!(released, count);
                        meaning.retain(|number, _| !retired.iter().any(|label| label.number == *number));
                    }
                    _ => {}
                }
                let state = &place.region.snapshot().state;
                for label in state.labels_of(network) {
                    let known = meaning.entry(label.number).or_insert_with(|| label.security_groups.clone());
                    assert_eq!(*known, label.security_groups);
                    let users = state.ports_of(network).filter(|port| port.label == Some(label.number.get())).count();
                    assert_eq!(users == 0, label.retired);
                }
                for port in state.ports_of(network) {
                    let number = NonZeroU16::new(port.label.unwrap());
                    let set = number.and_then(|number| state.label_of_number(network, number));
                    assert_eq!(set.map_or(Vec::new(), |label| label.security_groups.clone()), port.security_groups);
                }
            }
        });
    }
}
