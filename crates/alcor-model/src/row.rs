//! The kinds of rows that a region stores: one line each in the table at the end, everything else follows from it.
//! What is in a row is said in [`crate::resource`].

use std::{fmt::Debug, sync::Arc};

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{
    Id, Revision,
    resource::{
        AddressGroup, AddressScope, AutoAllocatedTopology, DefaultSecurityGroupRule, FloatingIp, GatewayNode,
        Host, HostRuntime, KeptReply, Label, Network, NetworkSegmentRange, Port, PortForwarding, PortRuntime,
        Quota, RbacPolicy, Router, SecurityGroup, SecurityGroupRule, Segment, Subnet, SubnetPool,
    },
};

/// A type of rows.
pub trait Row: Clone + PartialEq + Debug + Serialize + DeserializeOwned + Send + Sync + 'static {
    /// The primary key.
    type Key: Ord + Clone + Debug + Send + Sync + 'static;
    /// The kind.
    const KIND: Kind;

    /// The row's primary key.
    fn key(&self) -> Self::Key;
    /// A primary key among those of all kinds.
    fn resource_key(key: Self::Key) -> ResourceKey;
    /// The row among those of all kinds.
    fn into_resource(row: Arc<Self>) -> Resource;
    /// The revision that last changed the row.
    fn revision(&self) -> Revision;
    /// Writes the revision into the row.
    fn set_revision(&mut self, revision: Revision);
    /// The owning project; empty for rows that belong to the platform.
    fn project_id(&self) -> &str;
}

/// How a key is written in the database.
trait KeyText: Sized {
    fn text(&self) -> String;
    fn read(text: &str) -> Result<Self, uuid::Error>;
}

impl KeyText for String {
    fn text(&self) -> String {
        self.clone()
    }
    fn read(text: &str) -> Result<Self, uuid::Error> {
        Ok(text.to_owned())
    }
}

impl<T> KeyText for Id<T> {
    fn text(&self) -> String {
        self.to_string()
    }
    fn read(text: &str) -> Result<Self, uuid::Error> {
        text.parse()
    }
}

/// `Type { key type, field of the key, text in the database, field of the owning project or nothing }`, in the order in
/// which rows must be loaded: what is referred to comes first.
macro_rules! rows {
    ($($row:ident { $key:ty, $field:ident, $text:literal $(, $($project:ident).+)? })*) => {
        /// The kinds of rows. The text is what the database has.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        pub enum Kind {
            $(
                #[doc = concat!("[`", stringify!($row), "`]")]
                $row,
            )*
        }

        impl Kind {
            /// Every kind, in the order in which rows must be loaded (what is referred to comes first).
            pub const ALL: &'static [Self] = &[$(Self::$row),*];

            /// The text in the database.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$row => $text,)*
                }
            }

            /// Reads the text in the database.
            pub fn parse(text: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|kind| kind.as_str() == text)
            }
        }

        /// The primary key of a row.
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        pub enum ResourceKey {
            $(
                #[doc = concat!("Of a [`", stringify!($row), "`].")]
                $row($key),
            )*
        }

        impl ResourceKey {
            /// The kind of the row.
            pub const fn kind(&self) -> Kind {
                match self {
                    $(Self::$row(_) => Kind::$row,)*
                }
            }

            /// The key's text in the database.
            pub fn id_text(&self) -> String {
                match self {
                    $(Self::$row(key) => key.text(),)*
                }
            }

            /// Reads a key from its kind and text.
            ///
            /// # Errors
            /// When the text is not a UUID and the kind wants one.
            pub fn parse(kind: Kind, text: &str) -> Result<Self, uuid::Error> {
                Ok(match kind {
                    $(Kind::$row => Self::$row(KeyText::read(text)?),)*
                })
            }
        }

        /// A row of any kind. Cheap to clone.
        #[derive(Clone, Debug, PartialEq)]
        pub enum Resource {
            $(
                #[doc = concat!("See [`", stringify!($row), "`].")]
                $row(Arc<$row>),
            )*
        }

        impl Resource {
            /// The row's primary key.
            pub fn key(&self) -> ResourceKey {
                match self {
                    $(Self::$row(row) => ResourceKey::$row(row.$field.clone()),)*
                }
            }

            /// The revision that last changed the row.
            pub fn revision(&self) -> Revision {
                match self {
                    $(Self::$row(row) => row.revision,)*
                }
            }

            /// Writes the revision into the row.
            pub fn set_revision(&mut self, revision: Revision) {
                match self {
                    $(Self::$row(row) => Arc::make_mut(row).revision = revision,)*
                }
            }

            /// The owning project; empty for rows that belong to the platform.
            pub fn project_id(&self) -> &str {
                match self {
                    $(Self::$row(row) => Row::project_id(&**row),)*
                }
            }

            /// The row's body as JSON.
            ///
            /// # Errors
            /// When a value cannot be written as JSON, which no value of these types can cause.
            pub fn to_json(&self) -> Result<String, serde_json::Error> {
                match self {
                    $(Self::$row(row) => serde_json::to_string(row),)*
                }
            }

            /// Reads a row's body.
            ///
            /// # Errors
            /// When the text is not the body of a row of this kind.
            pub fn from_json(kind: Kind, body: &str) -> Result<Self, serde_json::Error> {
                Ok(match kind {
                    $(Kind::$row => Self::$row(Arc::new(serde_json::from_str(body)?)),)*
                })
            }
        }

        $(
            impl Row for $row {
                type Key = $key;
                const KIND: Kind = Kind::$row;

                fn key(&self) -> $key {
                    self.$field.clone()
                }
                fn resource_key(key: $key) -> ResourceKey {
                    ResourceKey::$row(key)
                }
                fn into_resource(row: Arc<Self>) -> Resource {
                    Resource::$row(row)
                }
                fn revision(&self) -> Revision {
                    self.revision
                }
                fn set_revision(&mut self, revision: Revision) {
                    self.revision = revision;
                }
                fn project_id(&self) -> &str {
                    rows!(@project self $($($project).+)?)
                }
            }
        )*
    };
    (@project $row:ident) => {{ let _ = $row; "" }};
    (@project $row:ident $($project:ident).+) => { &$row.$($project).+ };
}

rows! {
    Quota { String, project_id, "quota" }
    KeptReply { String, name, "kept_reply" }
    Host { String, name, "host" }
    HostRuntime { String, name, "host_runtime" }
    GatewayNode { Id<GatewayNode>, id, "gateway_node" }
    AddressScope { Id<AddressScope>, id, "address_scope", standard.project_id }
    SubnetPool { Id<SubnetPool>, id, "subnetpool", standard.project_id }
    Network { Id<Network>, id, "network", standard.project_id }
    Segment { Id<Segment>, id, "segment" }
    Subnet { Id<Subnet>, id, "subnet", standard.project_id }
    AddressGroup { Id<AddressGroup>, id, "address_group", standard.project_id }
    SecurityGroup { Id<SecurityGroup>, id, "security_group", standard.project_id }
    SecurityGroupRule { Id<SecurityGroupRule>, id, "security_group_rule", standard.project_id }
    DefaultSecurityGroupRule { Id<DefaultSecurityGroupRule>, id, "default_security_group_rule" }
    Label { Id<Label>, id, "label" }
    Port { Id<Port>, id, "port", standard.project_id }
    PortRuntime { Id<Port>, port_id, "port_runtime", project_id }
    RbacPolicy { Id<RbacPolicy>, id, "rbac_policy", standard.project_id }
    Router { Id<Router>, id, "router", standard.project_id }
    FloatingIp { Id<FloatingIp>, id, "floating_ip", standard.project_id }
    NetworkSegmentRange { Id<NetworkSegmentRange>, id, "network_segment_range", standard.project_id }
    AutoAllocatedTopology { String, project_id, "auto_allocated_topology" }
    PortForwarding { Id<PortForwarding>, id, "port_forwarding", standard.project_id }
}

/// One entry of a shard's change feed.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// The row is now this; its revision is inside.
    Put(Resource),
    /// The row is gone since this revision.
    Delete {
        /// Which row.
        key: ResourceKey,
        /// The commit that deleted it.
        revision: Revision,
    },
}

impl Change {
    /// Which row changed.
    pub fn key(&self) -> ResourceKey {
        match self {
            Self::Put(resource) => resource.key(),
            Self::Delete { key, .. } => key.clone(),
        }
    }

    /// The commit that made the change.
    pub fn revision(&self) -> Revision {
        match self {
            Self::Put(resource) => resource.revision(),
            Self::Delete { revision, .. } => *revision,
        }
    }
}
