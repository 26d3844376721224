//! Ranges of VXLAN network identifiers: which a network may be given, and which are whose.
//!
//! A project's network is given an identifier of the project's own ranges, when it has any with a free one; else of the
//! region's range and of shared ones, without what is another project's.

use std::{ops::RangeInclusive, sync::Arc};

use alcor_model::{Id, NetworkSegmentRange, Resource, ResourceKey, Vni};
use alcor_store::Tx;
use thiserror::Error;

use crate::{
    Env, ErrorClass, Refusal, RegionConfig, RegionError, RegionState,
    command::{Caller, StandardCreate, StandardUpdate},
    env::check_if_match,
    managed::Managed,
};

/// Most ranges of a region: each is looked at when a network is made.
pub const MAX_RANGES: usize = 1_000;

/// `POST /v2.0/network_segment_ranges`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentRangeCreate {
    /// Standard attributes; a shared range has no owner.
    pub standard: StandardCreate,
    /// Whether it is for every project.
    pub shared: bool,
    /// `vxlan`, or it is refused.
    pub network_type: String,
    /// The first identifier.
    pub minimum: u64,
    /// The last identifier.
    pub maximum: u64,
}

/// `PUT /v2.0/network_segment_ranges/{id}`
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SegmentRangeUpdate {
    /// Standard attributes.
    pub standard: StandardUpdate,
    /// A new first identifier.
    pub minimum: Option<u64>,
    /// A new last identifier.
    pub maximum: Option<u64>,
}

/// What the rules of ranges refuse.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum SegmentRangeError {
    /// None such.
    #[error("Network Segment Range {0} could not be found.")]
    NotFound(Id<NetworkSegmentRange>),
    /// Networks have other types nowhere.
    #[error("Network type {0} does not support network segment ranges.")]
    NetworkType(String),
    /// Not a range of identifiers.
    #[error("Invalid network tunnel range: '{minimum}:{maximum}' - {reason}.")]
    Bounds {
        /// The first.
        minimum: u64,
        /// The last.
        maximum: u64,
        /// What is wrong.
        reason: &'static str,
    },
    /// An identifier cannot be in two ranges.
    #[error("Network segment range overlaps with range(s) with id {0}")]
    Overlaps(String),
    /// Networks have identifiers of it, or would be left outside.
    #[error("Network Segment Range {0} is referenced by one or more project networks.")]
    InUse(Id<NetworkSegmentRange>),
    /// It is the configuration's.
    #[error("Network Segment Range {0} is a default segment range which could not be updated or deleted.")]
    Default(Id<NetworkSegmentRange>),
}

impl Refusal for SegmentRangeError {
    fn neutron_type(&self) -> &'static str {
        match self {
            Self::NotFound(_) => "NetworkSegmentRangeNotFound",
            Self::NetworkType(_) => "NetworkSegmentRangeNetTypeNotSupported",
            Self::Bounds { .. } => "NetworkTunnelRangeError",
            Self::Overlaps(_) => "NetworkSegmentRangeOverlaps",
            Self::InUse(_) => "NetworkSegmentRangeReferencedByProject",
            Self::Default(_) => "NetworkSegmentRangeDefaultReadOnly",
        }
    }

    fn class(&self) -> ErrorClass {
        match self {
            Self::NotFound(_) => ErrorClass::NotFound,
            Self::NetworkType(_) | Self::Bounds { .. } | Self::Default(_) => ErrorClass::BadRequest,
            Self::Overlaps(_) | Self::InUse(_) => ErrorClass::Conflict,
        }
    }
}

/// The region's range, as its configuration has it.
pub fn configured(config: &RegionConfig) -> RangeInclusive<Vni> {
    config.vni_first..=config.vni_last
}

/// Makes the row of the region's range, unless it is there.
pub fn ensure_default(tx: &mut Tx<'_, RegionState>, env: &Env) -> Result<(), RegionError> {
    let id = NetworkSegmentRange::DEFAULT;
    if !tx.state().network_segment_ranges().contains(&id) {
        let nobody = Caller {
            project_id: String::new(),
            is_admin: true,
        };
        let (minimum, maximum) = configured(&env.config).into_inner();
        let row = NetworkSegmentRange {
            id,
            revision: tx.revision(),
            standard: env.standard(&nobody, StandardCreate::default())?,
            shared: true,
            minimum,
            maximum,
        };
        tx.put(Resource::NetworkSegmentRange(Arc::new(row)));
    }
    Ok(())
}

/// A free identifier for a network of a project.
///
/// # Errors
/// [`RegionError::NoNetworkAvailable`].
pub(crate) fn allocate(
    state: &RegionState,
    config: &RegionConfig,
    project: &str,
) -> Result<Vni, RegionError> {
    let free = |ranges: &[RangeInclusive<u32>]| {
        let number = state.vnis().find_free(ranges)?;
        Vni::try_from(number).ok()
    };
    let rows = || {
        state
            .network_segment_ranges()
            .iter()
            .filter(|row| !row.is_default())
    };
    let own = rows().filter(|row| !row.shared && row.standard.project_id == project);
    let (first, last) = configured(config).into_inner();
    free(&sorted(own.map(|row| numbers(row)))).map_or_else(
        || {
            let shared = rows().filter(|row| row.shared).map(|row| numbers(row));
            let all = sorted(shared.chain([first.get()..=last.get()]));
            let taken = sorted(rows().filter(|row| !row.shared).map(|row| numbers(row)));
            free(&without(&all, &taken)).ok_or(RegionError::NoNetworkAvailable)
        },
        Ok,
    )
}

fn numbers(row: &NetworkSegmentRange) -> RangeInclusive<u32> {
    row.minimum.get()..=row.maximum.get()
}

/// Ranges in order; those that overlap become one.
fn sorted(ranges: impl Iterator<Item = RangeInclusive<u32>>) -> Vec<RangeInclusive<u32>> {
    let mut ranges: Vec<_> = ranges.collect();
    ranges.sort_unstable_by_key(|range| *range.start());
    let mut joined: Vec<RangeInclusive<u32>> = Vec::with_capacity(ranges.len());
    for range in ranges {
        match joined.last_mut() {
            Some(last) if range.start() <= last.end() => *last = *last.start()..=*last.end().max(range.end()),
            _ => joined.push(range),
        }
    }
    joined
}

/// What is in `all` and not in `taken`; both are sorted and disjoint, and so is the result.
fn without(all: &[RangeInclusive<u32>], taken: &[RangeInclusive<u32>]) -> Vec<RangeInclusive<u32>> {
    let mut left = Vec::new();
    for range in all {
        let mut first = *range.start();
        for hole in taken {
            if hole.start() > range.end() || *hole.end() < first {
                continue;
            }
            if *hole.start() > first {
                left.push(first..=*hole.start() - 1);
            }
            // Identifiers end far below the largest number.
            first = *hole.end() + 1;
        }
        if first <= *range.end() {
            left.push(first..=*range.end());
        }
    }
    left
}

fn bounds(minimum: u64, maximum: u64) -> Result<(Vni, Vni), SegmentRangeError> {
    let fail = |reason| SegmentRangeError::Bounds {
        minimum,
        maximum,
        reason,
    };
    let vni = |number: u64| {
        let number = u32::try_from(number).ok();
        number
            .and_then(|number| Vni::try_from(number).ok())
            .ok_or(fail("is not a valid vxlan identifier"))
    };
    let ends = (vni(minimum)?, vni(maximum)?);
    if ends.1 < ends.0 {
        return Err(fail("end of tunnel range is less than start of tunnel range"));
    }
    Ok(ends)
}

fn check_alone(state: &RegionState, row: &NetworkSegmentRange) -> Result<(), SegmentRangeError> {
    let others: Vec<String> = state
        .network_segment_ranges()
        .iter()
        .filter(|other| !other.is_default() && other.id != row.id)
        .filter(|other| other.minimum <= row.maximum && row.minimum <= other.maximum)
        .map(|other| other.id.to_string())
        .collect();
    if others.is_empty() {
        Ok(())
    } else {
        Err(SegmentRangeError::Overlaps(others.join(", ")))
    }
}

/// A row that may be changed.
fn changeable(
    state: &RegionState,
    caller: &Caller,
    id: Id<NetworkSegmentRange>,
) -> Result<Arc<NetworkSegmentRange>, SegmentRangeError> {
    let row = state
        .network_segment_ranges()
        .get(&id)
        .filter(|row| row.visible(caller, state))
        .ok_or(SegmentRangeError::NotFound(id))?;
    if row.is_default() {
        return Err(SegmentRangeError::Default(id));
    }
    Ok(Arc::clone(row))
}

impl Managed for NetworkSegmentRange {
    type Create = SegmentRangeCreate;
    type Update = SegmentRangeUpdate;
    const QUOTA: Option<&'static str> = None;

    fn create(
        tx: &mut Tx<'_, RegionState>,
        env: &Env,
        caller: &Caller,
        create: Self::Create,
    ) -> Result<Arc<Self>, RegionError> {
        if create.network_type != "vxlan" {
            return Err(SegmentRangeError::NetworkType(create.network_type).into());
        }
        if tx.state().network_segment_ranges().len() >= MAX_RANGES {
            return Err(RegionError::OverQuota("network_segment_range"));
        }
        let (minimum, maximum) = bounds(create.minimum, create.maximum)?;
        let mut standard = env.standard(caller, create.standard)?;
        if create.shared {
            standard.project_id = String::new();
        } else if standard.project_id.is_empty() {
            standard.project_id.clone_from(&caller.project_id);
        }
        let row = Arc::new(Self {
            id: env.new_id(),
            revision: tx.revision(),
            standard,
            shared: create.shared,
            minimum,
            maximum,
        });
        check_alone(tx.state(), &row)?;
        tx.put(Resource::NetworkSegmentRange(Arc::clone(&row)));
        Ok(row)
    }

    fn update(
        tx: &mut Tx<'_, RegionState>,
        env: &Env,
        caller: &Caller,
        id: &Id<Self>,
        update: Self::Update,
        if_match: Option<u64>,
    ) -> Result<Arc<Self>, RegionError> {
        let before = changeable(tx.state(), caller, *id)?;
        let mut row = Self::clone(&before);
        env.update_standard(&mut row.standard, update.standard, if_match)?;
        (row.minimum, row.maximum) = bounds(
            update.minimum.unwrap_or(row.minimum.get().into()),
            update.maximum.unwrap_or(row.maximum.get().into()),
        )?;
        row.revision = tx.revision();
        // What networks have of it must stay in it.
        let outside = |(vni, _)| vni < row.minimum || row.maximum < vni;
        if tx.state().vnis_in(before.minimum, before.maximum).any(outside) {
            return Err(SegmentRangeError::InUse(*id).into());
        }
        check_alone(tx.state(), &row)?;
        let row = Arc::new(row);
        tx.put(Resource::NetworkSegmentRange(Arc::clone(&row)));
        Ok(row)
    }

    fn delete(
        tx: &mut Tx<'_, RegionState>,
        _: &Env,
        caller: &Caller,
        id: &Id<Self>,
        if_match: Option<u64>,
    ) -> Result<(), RegionError> {
        let row = changeable(tx.state(), caller, *id)?;
        check_if_match(&row.standard, if_match)?;
        if tx.state().vnis_in(row.minimum, row.maximum).next().is_some() {
            return Err(SegmentRangeError::InUse(*id).into());
        }
        tx.delete(ResourceKey::NetworkSegmentRange(*id));
        Ok(())
    }

    /// Ranges are operators' business.
    fn visible(&self, caller: &Caller, _: &RegionState) -> bool {
        caller.is_admin
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_taken_is_left_out() {
        let all = sorted([20..=30, 1..=10, 8..=12].into_iter());
        assert_eq!(all, [1..=12, 20..=30]);
        assert_eq!(without(&all, &[]), all);
        assert_eq!(
            without(&all, &[3..=4, 11..=22, 30..=40]),
            [1..=2, 5..=10, 23..=29]
        );
        assert_eq!(without(&all, &[1..=30]), []);
    }
}
