//! The resources: each is one declaration ([`Resource`]), and the handlers in [`handlers`] are written once for all.

pub mod address_group;
pub mod address_scope;
pub(crate) mod agent;
pub(crate) mod auto_topology;
pub(crate) mod availability_zone;
pub(crate) mod create;
pub mod default_security_group_rule;
pub mod floating_ip;
pub(crate) mod gateway;
pub mod handlers;
mod lookup;
pub mod network;
pub(crate) mod network_ip_availability;
mod plain;
pub mod port;
mod port_attributes;
mod port_binding;
pub mod port_forwarding;
pub(crate) mod quota;
pub mod rbac;
pub mod router;
pub mod security_group;
pub mod security_group_rule;
mod segment;
mod segment_range;
pub(crate) mod service_provider;
pub mod subnet;
pub mod subnet_pool;
pub mod tags;

use std::sync::Arc;

use alcor_model::{
    Id, Port, Revision,
    resource::{SharedType, Standard},
};
use alcor_region::{
    Managed, Region, RegionConfig, RegionState,
    command::{Caller, StandardCreate, StandardUpdate},
};
use alcor_store::Snapshot;
pub use lookup::{Rows, Walk};
use serde::{Serialize, Serializer, ser::SerializeMap};
use uuid::Uuid;

use crate::{
    attributes::{Attribute, Given},
    authorize::Shown,
    error::ApiError,
    query::{Fields, ListQuery},
    router::Route,
};

/// A row with what else is needed to show it. Cheap to make and to clone.
pub struct View<R> {
    /// The row.
    pub row: Arc<R>,
    /// The state it was found in.
    pub snapshot: Arc<Snapshot<RegionState>>,
    /// Who looks: what is `shared` depends on it.
    pub caller: Arc<Caller>,
    /// The region's settings: names of ports lie in its domain.
    pub config: Arc<RegionConfig>,
}

impl<R> Clone for View<R> {
    fn clone(&self) -> Self {
        Self {
            row: Arc::clone(&self.row),
            snapshot: Arc::clone(&self.snapshot),
            caller: Arc::clone(&self.caller),
            config: Arc::clone(&self.config),
        }
    }
}

impl<R> View<R> {
    /// Whether an object is shared with the project of who looks, by name or with everybody.
    pub fn is_shared(&self, object_type: SharedType, id: Uuid) -> bool {
        let state = &self.snapshot.state;
        state.shared_with(object_type, id, &self.caller.project_id)
    }

    /// A row of the state as a caller sees it.
    pub fn new(
        row: Arc<R>,
        snapshot: &Arc<Snapshot<RegionState>>,
        caller: &Arc<Caller>,
        config: &Arc<RegionConfig>,
    ) -> Self {
        Self {
            row,
            snapshot: Arc::clone(snapshot),
            caller: Arc::clone(caller),
            config: Arc::clone(config),
        }
    }
}

/// One kind of resource of the Neutron API. What it does is the region's ([`Managed`]); what it looks like is said here.
pub trait Resource: Managed<Key = Id<Self>> {
    /// `network`
    const SINGULAR: &'static str;
    /// `networks`
    const PLURAL: &'static str;
    /// The last part of its collection's path: the plural, unless Neutron writes it with hyphens there.
    const PATH: &'static str = Self::PLURAL;
    /// Its name in the policy's rules.
    const RULE: &'static str = Self::SINGULAR;
    /// Whether clients may tag it.
    const TAGGED: bool = true;
    /// The declaration.
    const ATTRIBUTES: &'static [Attribute<View<Self>>];

    /// The row's id.
    fn uuid(&self) -> Uuid {
        self.key().uuid()
    }
    /// The standard attributes.
    fn standard(&self) -> &Standard;
    /// Rows among which are all that a query can match: from an index when a filter has one, else all. In the order
    /// of ids, or in the reverse order; `from` is the first id that matters.
    fn candidates<'a>(
        state: &'a RegionState,
        query: &ListQuery<View<Self>>,
        from: Option<Uuid>,
        caller: &Caller,
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
            None => Self::indexed(state, query, walk)
                .or_else(|| Self::seen_by(state, caller, walk))
                .unwrap_or_else(|| walk.table(Self::table(state))),
        }
    }
    /// Rows from the best index that a filter can use (other than the id); `None` when there is none.
    fn indexed<'a>(_: &'a RegionState, _: &ListQuery<View<Self>>, _: Walk) -> Option<Rows<'a, Self>> {
        None
    }
    /// All rows that a caller sees, when an index has them: a project's list must not cost a look at everybody's rows.
    fn seen_by<'a>(_: &'a RegionState, _: &Caller, _: Walk) -> Option<Rows<'a, Self>> {
        None
    }

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
    /// A change of nothing but the tags; only for what is [`Resource::TAGGED`].
    fn update_of_tags(tags: Vec<String>) -> Self::Update;

    /// What must be there before a list of a project's rows is given: rows that the region makes on the first look at
    /// them.
    ///
    /// # Errors
    /// When they cannot be made.
    fn before_list(_: &Region, _project_id: String) -> impl Future<Output = Result<(), ApiError>> + Send {
        async { Ok(()) }
    }

    /// What `Prefer: wait=N` waits for once the row is committed: the port that a host must report, and from which
    /// revision on. `None` for rows that no host reports.
    fn awaited(&self) -> Option<(Id<Port>, Revision)> {
        None
    }

    /// Routes besides those that every resource has: actions and what lies below a row.
    fn extra_routes() -> Vec<Route> {
        Vec::new()
    }
}

/// A row as JSON: the chosen attributes in the table's order, whatever the policy says of them.
pub struct ViewJson<'a, R: 'static> {
    /// The row.
    pub view: &'a View<R>,
    /// What to show.
    pub fields: &'a Fields<View<R>>,
}

impl<R> Serialize for ViewJson<'_, R> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serialize(self.view, self.fields.iter(), serializer)
    }
}

/// A row as JSON: those of the chosen attributes that the policy shows to the caller, in the table's order.
pub struct ShownJson<'a, R: 'static> {
    /// The row.
    pub view: &'a View<R>,
    /// What to show.
    pub shown: &'a Shown<'a, R>,
}

impl<R: Resource> Serialize for ShownJson<'_, R> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serialize(self.view, self.shown.attributes(self.view), serializer)
    }
}

fn serialize<R: 'static, S: Serializer>(
    view: &View<R>,
    attributes: impl Iterator<Item = &'static Attribute<View<R>>>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    let mut map = serializer.serialize_map(None)?;
    for attribute in attributes {
        map.serialize_entry(attribute.name, &(attribute.get)(view))?;
    }
    map.end()
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
        tags: given.get("tags").unwrap_or_default(),
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

/// A resource's table: what every resource has, and its own. `unnamed` leaves out the name; `bare` leaves out what a few
/// resources do not have: name, description, tags, times, revision number; `own` leaves out everything but the id.
macro_rules! attribute_table {
    (own $row:ty, [$($own:expr),* $(,)?]) => {
        crate::resources::attribute_table!(@all $row, [$($own),*])
    };
    (bare $row:ty, [$($own:expr),* $(,)?]) => {
        crate::resources::attribute_table!(@all $row, [
            $($own,)*
            Attribute::new("project_id", Kind::Text(MAX_TEXT), |v: &V| Field::Text(&v.row.standard.project_id)).post().listed(),
            Attribute::new("tenant_id", Kind::Text(MAX_TEXT), |v: &V| Field::Text(&v.row.standard.project_id)).post().listed()
        ])
    };
    (unnamed $row:ty, [$($own:expr),* $(,)?]) => {
        crate::resources::attribute_table!(
            @full $row,
            Attribute::new("tags", Kind::Tags, |v: &V| Field::Texts(&v.row.standard.tags)),
            [$($own),*]
        )
    };
    ($row:ty, [$($own:expr),* $(,)?]) => {
        crate::resources::attribute_table!(unnamed $row, [
            Attribute::new("name", Kind::Text(MAX_TEXT), |v: &V| Field::Text(&v.row.standard.name)).writable().listed(),
            $($own),*
        ])
    };
    // With tags that may be given at creation.
    (tags in POST $row:ty, [$($own:expr),* $(,)?]) => {
        crate::resources::attribute_table!(
            @full $row,
            Attribute::new("tags", Kind::Tags, |v: &V| Field::Texts(&v.row.standard.tags)).post(),
            [
                Attribute::new("name", Kind::Text(MAX_TEXT), |v: &V| Field::Text(&v.row.standard.name)).writable().listed(),
                $($own),*
            ]
        )
    };
    (@full $row:ty, $tags:expr, [$($own:expr),*]) => {
        crate::resources::attribute_table!(@all $row, [
            $($own,)*
            Attribute::new("project_id", Kind::Text(MAX_TEXT), |v: &V| Field::Text(&v.row.standard.project_id)).post().listed(),
            Attribute::new("tenant_id", Kind::Text(MAX_TEXT), |v: &V| Field::Text(&v.row.standard.project_id)).post().listed(),
            Attribute::new("description", Kind::Text(MAX_TEXT), |v: &V| Field::Text(&v.row.standard.description))
                .writable()
                .listed(),
            $tags,
            Attribute::new("created_at", Kind::Time, |v: &V| Field::Time(v.row.standard.created_at)).sortable(),
            Attribute::new("updated_at", Kind::Time, |v: &V| Field::Time(v.row.standard.updated_at)).sortable(),
            Attribute::new("revision_number", Kind::Int(0, u64::MAX), |v: &V| Field::Int(v.row.standard.revision_number))
                .listed()
        ])
    };
    (@all $row:ty, [$($attribute:expr),*]) => {{
        #[allow(unused_imports, reason = "not every table has every type")]
        use crate::{attributes::{Attribute, Kind}, field::Field, resources::{MAX_TEXT, View}};
        type V = View<$row>;
        const TABLE: &[Attribute<V>] = &[
            Attribute::new("id", Kind::Uuid, |v: &V| Field::Uuid(v.row.id.uuid())).listed(),
            $($attribute),*
        ];
        TABLE
    }};
}
pub(crate) use attribute_table;
