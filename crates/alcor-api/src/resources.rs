//! The resources: each is one declaration ([`Resource`]), and the handlers in [`handlers`] are written once for all.

pub mod handlers;
mod lookup;
pub mod network;
pub mod port;
pub mod subnet;
pub mod tags;

use std::{future::Future, sync::Arc};

use alcor_model::{Id, resource::Standard};
use alcor_region::{
    Region, RegionError, RegionState,
    command::{Caller, StandardCreate, StandardUpdate},
};
use alcor_store::{Snapshot, Table};
pub use lookup::{Rows, Walk};
use serde::{Serialize, Serializer, ser::SerializeMap};
use uuid::Uuid;

use crate::{
    attributes::{Attribute, Given},
    error::ApiError,
    query::{Fields, ListQuery},
};

/// A row with what else is needed to show it. Cheap to make and to clone.
pub struct View<R> {
    /// The row.
    pub row: Arc<R>,
    /// The state it was found in.
    pub snapshot: Arc<Snapshot<RegionState>>,
}

impl<R> Clone for View<R> {
    fn clone(&self) -> Self {
        Self {
            row: Arc::clone(&self.row),
            snapshot: Arc::clone(&self.snapshot),
        }
    }
}

/// One kind of resource of the Neutron API.
pub trait Resource: Sized + Send + Sync + 'static {
    /// What the region wants for a creation.
    type Create: Send;
    /// What the region wants for a change.
    type Update: Send;

    /// `network`
    const SINGULAR: &'static str;
    /// `networks`
    const PLURAL: &'static str;
    /// The declaration.
    const ATTRIBUTES: &'static [Attribute<View<Self>>];

    /// The row's id.
    fn uuid(&self) -> Uuid;
    /// The standard attributes.
    fn standard(&self) -> &Standard;
    /// Whether the caller sees a row.
    fn visible(row: &Self, caller: &Caller, state: &RegionState) -> bool;
    /// Rows among which are all that a query can match: from an index when a filter has one, else all. In the order
    /// of ids, or in the reverse order; `from` is the first id that matters.
    fn candidates<'a>(
        state: &'a RegionState,
        query: &ListQuery<View<Self>>,
        from: Option<Uuid>,
    ) -> Box<dyn Iterator<Item = Arc<Self>> + 'a> {
        let walk = Walk {
            from,
            reverse: query.page_reverse,
        };
        match query.uuids("id") {
            Some(ids) => walk.sorted(
                ids.into_iter()
                    .filter_map(|id| Self::table(state).get(&Id::from_uuid(id)).cloned())
                    .collect(),
            ),
            None => Self::indexed(state, query, walk).unwrap_or_else(|| walk.table(Self::table(state))),
        }
    }
    /// Rows from the best index that a filter can use (other than the id); `None` when there is none.
    fn indexed<'a>(
        state: &'a RegionState,
        query: &ListQuery<View<Self>>,
        walk: Walk,
    ) -> Option<Rows<'a, Self>>;
    /// All rows.
    fn table(state: &RegionState) -> &Table<Id<Self>, Self>;

    /// Builds the region's command from what the client gave.
    ///
    /// # Errors
    /// 400 when attributes do not fit together.
    fn create_from(given: Given) -> Result<Self::Create, ApiError>;
    /// Builds the region's command from what the client gave.
    ///
    /// # Errors
    /// 400 when attributes do not fit together.
    fn update_from(given: Given) -> Result<Self::Update, ApiError>;
    /// A change of nothing but the tags.
    fn update_of_tags(tags: Vec<String>) -> Self::Update;

    /// Creates all or nothing.
    fn create(
        region: &Region,
        caller: &Caller,
        commands: Vec<Self::Create>,
    ) -> impl Future<Output = Result<Vec<Arc<Self>>, RegionError>> + Send;
    /// Changes one.
    fn update(
        region: &Region,
        caller: &Caller,
        id: Uuid,
        command: Self::Update,
        if_match: Option<u64>,
    ) -> impl Future<Output = Result<Arc<Self>, RegionError>> + Send;
    /// Deletes one.
    fn delete(
        region: &Region,
        caller: &Caller,
        id: Uuid,
        if_match: Option<u64>,
    ) -> impl Future<Output = Result<(), RegionError>> + Send;
}

/// A row as JSON: the chosen attributes in the table's order.
pub struct ViewJson<'a, R: 'static> {
    /// The row.
    pub view: &'a View<R>,
    /// What to show.
    pub fields: &'a Fields<View<R>>,
}

impl<R> Serialize for ViewJson<'_, R> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for attribute in self.fields.iter() {
            map.serialize_entry(attribute.name, &(attribute.get)(self.view))?;
        }
        map.end()
    }
}

/// Takes the standard attributes of a creation.
///
/// # Errors
/// 400 when the owner is given twice and differs.
pub fn standard_create(given: &mut Given) -> Result<StandardCreate, ApiError> {
    Ok(StandardCreate {
        project_id: given.owner()?,
        name: given.get("name").unwrap_or_default(),
        description: given.get("description").unwrap_or_default(),
    })
}

/// Takes the standard attributes of a change.
pub fn standard_update(given: &mut Given) -> StandardUpdate {
    StandardUpdate {
        name: given.get("name"),
        description: given.get("description"),
        tags: None,
    }
}

/// Longest name, description, project and the like, in characters (Neutron's limit).
pub const MAX_TEXT: usize = 255;

/// Longest tag in characters (Neutron's limit).
pub const MAX_TAG: usize = 255;

/// A resource's table: what every resource has, and its own.
macro_rules! attribute_table {
    ($row:ty, [$($own:expr),* $(,)?]) => {{
        use crate::{attributes::{Attribute, Kind}, field::Field, resources::{MAX_TEXT, View}};
        type V = View<$row>;
        const TABLE: &[Attribute<V>] = &[
            Attribute::new("id", Kind::Uuid, |v: &V| Field::Uuid(v.row.id.uuid())).listed(),
            Attribute::new("name", Kind::Text(MAX_TEXT), |v: &V| Field::Text(&v.row.standard.name)).writable().listed(),
            $($own,)*
            Attribute::new("project_id", Kind::Text(MAX_TEXT), |v: &V| Field::Text(&v.row.standard.project_id)).post().listed(),
            Attribute::new("tenant_id", Kind::Text(MAX_TEXT), |v: &V| Field::Text(&v.row.standard.project_id)).post().listed(),
            Attribute::new("description", Kind::Text(MAX_TEXT), |v: &V| Field::Text(&v.row.standard.description))
                .writable()
                .listed(),
            Attribute::new("tags", Kind::Tags, |v: &V| Field::Texts(&v.row.standard.tags)),
            Attribute::new("created_at", Kind::Time, |v: &V| Field::Time(v.row.standard.created_at)).sortable(),
            Attribute::new("updated_at", Kind::Time, |v: &V| Field::Time(v.row.standard.updated_at)).sortable(),
            Attribute::new("revision_number", Kind::Int(0, u64::MAX), |v: &V| Field::Int(v.row.standard.revision_number))
                .listed(),
        ];
        TABLE
    }};
}
pub(crate) use attribute_table;
