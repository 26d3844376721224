//! `/v2.0/network_segment_ranges`: which VXLAN network identifiers are whose.

use alcor_model::{NetworkSegmentRange, Vni, resource::Standard};
use alcor_region::{
    Region,
    command::StandardUpdate,
    segment_range::{SegmentRangeCreate, SegmentRangeUpdate, configured, ensure_default},
};
use serde_json::{Map, Value, json};

use super::{MAX_TEXT, Resource, View, standard_create, standard_update};
use crate::{
    attributes::{Attribute, Given, Kind},
    error::ApiError,
    field::Field,
};

/// Identifiers of a range that are shown one by one at most, as `used` and as `available` each: a range may have
/// millions.
pub const MAX_SHOWN: usize = 1_000;

/// The largest identifier that Neutron takes for any type of networks.
const MAX_ID: u64 = u32::MAX as u64;

type V = View<NetworkSegmentRange>;

/// The bounds: the region's own range has those of the configuration.
fn bounds(view: &V) -> (Vni, Vni) {
    if view.row.is_default() {
        configured(&view.config).into_inner()
    } else {
        (view.row.minimum, view.row.maximum)
    }
}

fn owner(view: &V) -> Field<'_> {
    let owner = &view.row.standard.project_id;
    Field::from((!owner.is_empty()).then_some(owner.as_str()))
}

/// Who has which of its identifiers, the lowest first.
fn used(view: &V) -> Field<'_> {
    let (minimum, maximum) = bounds(view);
    let state = &view.snapshot.state;
    let used: Map<String, Value> = state
        .vnis_in(minimum, maximum)
        .take(MAX_SHOWN)
        .filter_map(|(vni, network)| Some((vni.get(), state.networks().get(&network)?)))
        .map(|(vni, network)| (vni.to_string(), json!(network.standard.project_id)))
        .collect();
    Field::Json(Value::Object(used))
}

/// Its free identifiers, the lowest first.
fn available(view: &V) -> Field<'_> {
    let (minimum, maximum) = bounds(view);
    let taken = view.snapshot.state.vnis();
    let free: Vec<u32> = (minimum.get()..=maximum.get())
        .filter(|vni| !taken.is_taken(*vni))
        .take(MAX_SHOWN)
        .collect();
    Field::Json(json!(free))
}

const TABLE: &[Attribute<V>] = &[
    Attribute::new("id", Kind::Uuid, |v: &V| Field::Uuid(v.row.id.uuid())).listed(),
    Attribute::new("name", Kind::Text(MAX_TEXT), |v: &V| {
        Field::Text(&v.row.standard.name)
    })
    .writable()
    .listed(),
    Attribute::new("description", Kind::Text(MAX_TEXT), |v: &V| {
        Field::Text(&v.row.standard.description)
    })
    .writable()
    .filterable(),
    Attribute::new("default", Kind::Bool, |v: &V| Field::Bool(v.row.is_default())),
    Attribute::new("shared", Kind::Bool, |v: &V| Field::Bool(v.row.shared)).post(),
    Attribute::new("project_id", Kind::TextOrNull(MAX_TEXT), owner)
        .post()
        .listed(),
    Attribute::new("tenant_id", Kind::TextOrNull(MAX_TEXT), owner)
        .post()
        .listed(),
    Attribute::new(
        "network_type",
        Kind::OneOf(&["vlan", "vxlan", "gre", "geneve"]),
        |_: &V| Field::Text("vxlan"),
    )
    .required()
    .filterable(),
    Attribute::new("physical_network", Kind::TextOrNull(MAX_TEXT), |_: &V| {
        Field::Text("")
    })
    .post()
    .filterable(),
    Attribute::new("minimum", Kind::Int(1, MAX_ID), |v: &V| {
        Field::Int(bounds(v).0.get().into())
    })
    .required()
    .changeable(),
    Attribute::new("maximum", Kind::Int(1, MAX_ID), |v: &V| {
        Field::Int(bounds(v).1.get().into())
    })
    .required()
    .changeable(),
    Attribute::new("used", Kind::ShownObject, used),
    Attribute::new("available", Kind::ShownList, available),
    Attribute::new("tags", Kind::Tags, |v: &V| Field::Texts(&v.row.standard.tags)),
    Attribute::new("created_at", Kind::Time, |v: &V| {
        Field::Time(v.row.standard.created_at)
    })
    .sortable(),
    Attribute::new("updated_at", Kind::Time, |v: &V| {
        Field::Time(v.row.standard.updated_at)
    })
    .sortable(),
    Attribute::new("revision_number", Kind::Int(0, u64::MAX), |v: &V| {
        Field::Int(v.row.standard.revision_number)
    })
    .listed(),
];

impl Resource for NetworkSegmentRange {
    const SINGULAR: &'static str = "network_segment_range";
    const PLURAL: &'static str = "network_segment_ranges";
    const ATTRIBUTES: &'static [Attribute<View<Self>>] = TABLE;

    fn standard(&self) -> &Standard {
        &self.standard
    }

    /// The region's own range is there from the first look at ranges on.
    async fn before_list(region: &Region, _: String) -> Result<(), ApiError> {
        let there = region.snapshot();
        if !there.state.network_segment_ranges().contains(&Self::DEFAULT) {
            region.write(ensure_default).await?;
        }
        Ok(())
    }

    fn create_from(mut given: Given) -> Result<Self::Create, ApiError> {
        let given = &mut given;
        Ok(SegmentRangeCreate {
            standard: standard_create(given)?,
            shared: given.get("shared").unwrap_or(true),
            network_type: given.get("network_type").unwrap_or_default(),
            minimum: given.get("minimum").unwrap_or_default(),
            maximum: given.get("maximum").unwrap_or_default(),
        })
    }

    fn update_from(mut given: Given) -> Result<Self::Update, ApiError> {
        let given = &mut given;
        Ok(SegmentRangeUpdate {
            standard: standard_update(given),
            minimum: given.get("minimum"),
            maximum: given.get("maximum"),
        })
    }

    fn update_of_tags(tags: Vec<String>) -> Self::Update {
        SegmentRangeUpdate {
            standard: StandardUpdate {
                tags: Some(tags),
                ..Default::default()
            },
            ..Default::default()
        }
    }
}
