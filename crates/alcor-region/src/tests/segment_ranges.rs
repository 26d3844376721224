//! Which identifiers networks are given, and what ranges refuse.

use alcor_model::{NetworkSegmentRange, Vni};

use super::*;
use crate::segment_range::{SegmentRangeCreate, SegmentRangeUpdate};

fn small() -> Place {
    let config = RegionConfig {
        vni_first: Vni::try_from(1).unwrap(),
        vni_last: Vni::try_from(10).unwrap(),
        ..RegionConfig::default()
    };
    Place::new(config, 24)
}

fn range(project: Option<&str>, minimum: u64, maximum: u64) -> SegmentRangeCreate {
    SegmentRangeCreate {
        standard: StandardCreate {
            project_id: project.map(str::to_owned),
            ..StandardCreate::default()
        },
        shared: project.is_none(),
        network_type: "vxlan".into(),
        minimum,
        maximum,
    }
}

async fn make(place: &Place, create: SegmentRangeCreate) -> Result<Arc<NetworkSegmentRange>, RegionError> {
    let caller = admin();
    let made = place.region.create::<NetworkSegmentRange>(&caller, vec![create]);
    Ok(made.await?.remove(0))
}

async fn network_of(place: &Place, project: &str) -> Result<(Id<Network>, u32), RegionError> {
    let made = place
        .region
        .create::<Network>(&member(project), vec![NetworkCreate::default()])
        .await?;
    Ok((made[0].id, made[0].segmentation_id.get()))
}

fn refused<T: std::fmt::Debug>(result: Result<T, RegionError>, kind: &str) {
    assert_eq!(result.unwrap_err().neutron_type(), kind);
}

#[tokio::test]
async fn a_projects_networks_are_in_its_ranges_first_and_those_of_others_never() {
    let place = small();
    make(&place, range(Some("a"), 5, 6)).await.unwrap();
    make(&place, range(Some("b"), 100, 100)).await.unwrap();
    make(&place, range(None, 20, 21)).await.unwrap();
    let mut of_a = Vec::new();
    for _ in 0..3 {
        of_a.push(network_of(&place, "a").await.unwrap().1);
    }
    assert_eq!(&of_a[..2], [5, 6]);
    assert!(![5, 6, 100].contains(&of_a[2]), "its own are given out: {of_a:?}");
    // Nine are left to all: 1 to 4, 7 to 10 and the two shared ones, of which one is given.
    let mut of_c = std::collections::BTreeSet::from([of_a[2]]);
    for _ in 0..9 {
        of_c.insert(network_of(&place, "c").await.unwrap().1);
    }
    assert_eq!(
        of_c.into_iter().collect::<Vec<_>>(),
        [1, 2, 3, 4, 7, 8, 9, 10, 20, 21]
    );
    refused(network_of(&place, "c").await, "NoNetworkAvailable");
    assert_eq!(network_of(&place, "b").await.unwrap().1, 100);
}

#[tokio::test]
async fn ranges_do_not_overlap_and_are_not_taken_from_networks() {
    let (place, admin) = (small(), admin());
    let row = make(&place, range(Some("a"), 100, 110)).await.unwrap();
    refused(
        make(&place, range(None, 110, 120)).await,
        "NetworkSegmentRangeOverlaps",
    );
    // The region's own range is there for all and does not count.
    make(&place, range(Some("b"), 1, 5)).await.unwrap();
    for (minimum, maximum) in [(0, 5), (7, 6), (1, 1 << 24), (1, u64::MAX)] {
        refused(
            make(&place, range(None, minimum, maximum)).await,
            "NetworkTunnelRangeError",
        );
    }
    let vlan = SegmentRangeCreate {
        network_type: "vlan".into(),
        ..range(None, 200, 201)
    };
    refused(make(&place, vlan).await, "NetworkSegmentRangeNetTypeNotSupported");

    let (network, vni) = network_of(&place, "a").await.unwrap();
    assert_eq!(vni, 100);
    let change = |minimum, maximum| {
        let update = SegmentRangeUpdate {
            minimum,
            maximum,
            ..SegmentRangeUpdate::default()
        };
        place
            .region
            .update::<NetworkSegmentRange>(&admin, row.id, update, None)
    };
    refused(
        change(Some(101), None).await,
        "NetworkSegmentRangeReferencedByProject",
    );
    refused(change(Some(3), None).await, "NetworkSegmentRangeOverlaps");
    let changed = change(Some(50), Some(100)).await.unwrap();
    assert_eq!((changed.minimum.get(), changed.maximum.get()), (50, 100));
    let delete = || place.region.delete::<NetworkSegmentRange>(&admin, row.id, None);
    refused(delete().await, "NetworkSegmentRangeReferencedByProject");
    place
        .region
        .delete::<Network>(&admin, network, None)
        .await
        .unwrap();
    delete().await.unwrap();
    refused(delete().await, "NetworkSegmentRangeNotFound");
}

#[tokio::test]
async fn the_regions_own_range_stays() {
    let (place, admin) = (small(), admin());
    let ensure = || place.region.write(crate::segment_range::ensure_default);
    ensure().await.unwrap();
    let revision = place.region.snapshot().revision;
    ensure().await.unwrap();
    assert_eq!(place.region.snapshot().revision, revision, "it is made once");
    let id = NetworkSegmentRange::DEFAULT;
    let update = SegmentRangeUpdate::default();
    let update = place
        .region
        .update::<NetworkSegmentRange>(&admin, id, update, None);
    refused(update.await, "NetworkSegmentRangeDefaultReadOnly");
    let delete = place.region.delete::<NetworkSegmentRange>(&admin, id, None);
    refused(delete.await, "NetworkSegmentRangeDefaultReadOnly");
    let stranger = member("a");
    let delete = place.region.delete::<NetworkSegmentRange>(&stranger, id, None);
    refused(delete.await, "NetworkSegmentRangeNotFound");
}
