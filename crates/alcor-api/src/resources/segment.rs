//! `/v2.0/segments`: the one VXLAN segment of each network.

use alcor_model::{Id, Segment, resource::Standard};
use alcor_region::{
    RegionState,
    command::StandardUpdate,
    segment::{SegmentCreate, SegmentUpdate},
};
use uuid::Uuid;

use super::{MAX_TEXT, Resource, Rows, View, Walk, lookup, standard_create, standard_update};
use crate::{
    attributes::{Attribute, Given, Kind},
    error::ApiError,
    field::Field,
    query::ListQuery,
};

type V = View<Segment>;

/// The largest identifier that Neutron takes for any type of networks.
const MAX_ID: u64 = u32::MAX as u64;

fn segmentation_id(view: &V) -> Field<'_> {
    let network = view.snapshot.state.networks().get(&view.row.network_id);
    network.map_or(Field::Null, |network| {
        Field::Int(network.segmentation_id.get().into())
    })
}

const TABLE: &[Attribute<V>] = &[
    Attribute::new("id", Kind::Uuid, |v: &V| Field::Uuid(v.row.id.uuid())).listed(),
    Attribute::new("network_id", Kind::Uuid, |v: &V| {
        Field::Uuid(v.row.network_id.uuid())
    })
    .required()
    .listed(),
    Attribute::new("network_type", Kind::OneOf(&["vxlan"]), |_: &V| {
        Field::Text("vxlan")
    })
    .required()
    .listed(),
    Attribute::new("physical_network", Kind::OnlyNull, |_: &V| Field::Null)
        .post()
        .listed(),
    Attribute::new("segmentation_id", Kind::Int(0, MAX_ID), segmentation_id)
        .post()
        .sortable(),
    Attribute::new("name", Kind::TextOrNull(MAX_TEXT), |v: &V| {
        Field::Text(&v.row.standard.name)
    })
    .writable()
    .listed(),
    Attribute::new("description", Kind::TextOrNull(MAX_TEXT), |v: &V| {
        Field::Text(&v.row.standard.description)
    })
    .writable()
    .filterable(),
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

impl Resource for Segment {
    const SINGULAR: &'static str = "segment";
    const PLURAL: &'static str = "segments";
    const TAGGED: bool = false;
    const ATTRIBUTES: &'static [Attribute<View<Self>>] = TABLE;

    fn standard(&self) -> &Standard {
        &self.standard
    }

    fn indexed<'a>(
        state: &'a RegionState,
        query: &ListQuery<View<Self>>,
        walk: Walk,
    ) -> Option<Rows<'a, Self>> {
        lookup::segments(state, query, walk)
    }

    fn create_from(mut given: Given) -> Result<Self::Create, ApiError> {
        let given = &mut given;
        Ok(SegmentCreate {
            network_id: Id::from_uuid(given.get::<Uuid>("network_id").unwrap_or_default()),
            standard: standard_create(given)?,
        })
    }

    fn update_from(mut given: Given) -> Result<Self::Update, ApiError> {
        Ok(SegmentUpdate {
            standard: standard_update(&mut given),
        })
    }

    fn update_of_tags(tags: Vec<String>) -> Self::Update {
        SegmentUpdate {
            standard: StandardUpdate {
                tags: Some(tags),
                ..Default::default()
            },
        }
    }
}
