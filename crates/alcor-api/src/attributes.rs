//! The attribute table: what one attribute of a resource is, who may set it, how it is shown, filtered and sorted.
//!
//! A resource is declared once, as a table of [`Attribute`]s. Parsing of bodies, views, `fields`, filters, sort keys
//! and `OPTIONS` read that table; nothing here knows a particular resource. Checks that need the region's state are
//! the region's.

use uuid::Uuid;

use crate::{
    error::ApiError,
    field::Field,
    parse::{self, Parsed},
};

/// A type that one resource has for itself.
pub struct Custom {
    /// The word for people and for `OPTIONS`.
    pub name: &'static str,
    /// Checks a value; `Ok(None)` means "as if the client had not given it". It gets the attribute's name.
    pub parse: fn(&str, serde_json::Value) -> Result<Option<Parsed>, ApiError>,
    /// What the API document says of a value, as JSON Schema.
    pub schema: fn() -> serde_json::Value,
}

impl PartialEq for Custom {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl std::fmt::Debug for Custom {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Custom").field(&self.name).finish()
    }
}

/// The type of an attribute: which JSON it accepts and how a filter's text is read.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    /// Text of at most so many characters; `null` is refused.
    Text(usize),
    /// As `Text`, or `null`.
    TextOrNull(usize),
    /// A host name, at most [`parse::MAX_DNS_NAME`] characters.
    DnsName,
    /// True or false in any of the spellings that Neutron takes (`true`, `"True"`, 1, `"yes"`, ...).
    Bool,
    /// A number, both ends included; also as text of digits.
    Int(u64, u64),
    /// As `Int`, or `null`.
    IntOrNull(u64, u64),
    /// A UUID.
    Uuid,
    /// A UUID or `null`.
    UuidOrNull,
    /// An IP address or `null`.
    IpOrNull,
    /// A prefix with its length.
    Cidr,
    /// A MAC address.
    Mac,
    /// One of these numbers.
    OneOfInt(&'static [u64]),
    /// One of these texts; `null` means "not given".
    OneOf(&'static [&'static str]),
    /// Only `null`, because nothing else is offered.
    OnlyNull,
    /// Only false, because nothing else is offered.
    OnlyFalse,
    /// Only the empty list (or `null`), because nothing else is offered.
    OnlyEmptyList,
    /// A JSON object of at most so many bytes.
    Object(usize),
    /// Ranges of addresses.
    Pools,
    /// Addresses, no duplicates.
    Ips,
    /// Static routes.
    HostRoutes,
    /// A port's addresses.
    FixedIps,
    /// Further sources of a port.
    AddressPairs,
    /// Tags, which have routes of their own.
    Tags,
    /// A time; only shown.
    Time,
    /// A list that is only shown.
    ShownList,
    /// A list of UUIDs that is only shown.
    ShownUuids,
    /// A list of texts that is only shown.
    ShownTexts,
    /// A list that is only shown, of rows of this collection (by its singular name).
    ShownRows(&'static str),
    /// An object that is only shown.
    ShownObject,
    /// A type of the resource's own.
    Custom(&'static Custom),
}

impl Kind {
    /// The word for people and for `OPTIONS`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Text(_) | Self::TextOrNull(_) | Self::DnsName | Self::OneOf(_) => "string",
            Self::Bool | Self::OnlyFalse => "boolean",
            Self::Int(..) | Self::IntOrNull(..) | Self::OneOfInt(_) => "integer",
            Self::Uuid | Self::UuidOrNull => "uuid",
            Self::IpOrNull => "ip-address",
            Self::Cidr => "cidr",
            Self::Mac => "mac-address",
            Self::OnlyNull => "null",
            Self::Object(_) | Self::ShownObject => "object",
            Self::Time => "date-time",
            Self::Custom(custom) => custom.name,
            Self::OnlyEmptyList
            | Self::Pools
            | Self::Ips
            | Self::HostRoutes
            | Self::FixedIps
            | Self::AddressPairs
            | Self::Tags
            | Self::ShownList
            | Self::ShownUuids
            | Self::ShownTexts
            | Self::ShownRows(_) => "array",
        }
    }
}

/// One attribute of a resource whose rows are shown as `V` (a row with what is needed to show it).
pub struct Attribute<V: 'static> {
    /// Neutron's name.
    pub name: &'static str,
    /// Type.
    pub kind: Kind,
    /// A client may set it at creation.
    pub post: bool,
    /// A client may change it.
    pub put: bool,
    /// A client must set it at creation.
    pub required: bool,
    /// A list may be filtered by it.
    pub filter: bool,
    /// A list may be sorted by it.
    pub sort: bool,
    /// Shown in views; the others are only accepted.
    pub visible: bool,
    /// The value in a row.
    pub get: for<'a> fn(&'a V) -> Field<'a>,
}

impl<V> Attribute<V> {
    /// A visible attribute that nobody may set, filter or sort by.
    pub const fn new(name: &'static str, kind: Kind, get: for<'a> fn(&'a V) -> Field<'a>) -> Self {
        Self {
            name,
            kind,
            post: false,
            put: false,
            required: false,
            filter: false,
            sort: false,
            visible: true,
            get,
        }
    }

    /// May be set at creation.
    pub const fn post(mut self) -> Self {
        self.post = true;
        self
    }

    /// May be set at creation and changed later.
    pub const fn writable(mut self) -> Self {
        self.post = true;
        self.put = true;
        self
    }

    /// May be changed, but not be set at creation.
    pub const fn changeable(mut self) -> Self {
        self.put = true;
        self
    }

    /// Must be set at creation.
    pub const fn required(mut self) -> Self {
        self.post = true;
        self.required = true;
        self
    }

    /// Lists may be filtered by it.
    pub const fn filterable(mut self) -> Self {
        self.filter = true;
        self
    }

    /// Lists may be sorted by it.
    pub const fn sortable(mut self) -> Self {
        self.sort = true;
        self
    }

    /// Lists may be filtered and sorted by it.
    pub const fn listed(mut self) -> Self {
        self.filter = true;
        self.sort = true;
        self
    }

    /// Accepted, never shown.
    pub const fn hidden(mut self) -> Self {
        self.visible = false;
        self
    }
}

/// Finds an attribute by name.
pub fn find<V>(table: &'static [Attribute<V>], name: &str) -> Option<&'static Attribute<V>> {
    table.iter().find(|attribute| attribute.name == name)
}

/// What a body may set: everything, or only what may be changed later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// Creation.
    Post,
    /// Change.
    Put,
}

/// The attributes that a client gave, checked by the table. A resource takes out what it wants by name.
#[derive(Debug, Default)]
pub struct Given {
    values: Vec<(&'static str, Parsed)>,
}

impl Given {
    /// Checks one object of a request's body against the table.
    ///
    /// # Errors
    /// 400 for an attribute that is unknown, may not be set, is missing or has a wrong value.
    pub fn check<V>(
        table: &'static [Attribute<V>],
        verb: Verb,
        object: serde_json::Map<String, serde_json::Value>,
    ) -> Result<Self, ApiError> {
        let unknown: Vec<&str> = object
            .keys()
            .map(String::as_str)
            .filter(|name| find(table, name).is_none())
            .collect();
        if !unknown.is_empty() {
            return Err(ApiError::bad_request(format!(
                "Unrecognized attribute(s) '{}'",
                unknown.join(", ")
            )));
        }
        let mut given = Self {
            values: Vec::with_capacity(object.len()),
        };
        for (name, value) in object {
            let Some(attribute) = find(table, &name) else {
                continue;
            };
            match verb {
                Verb::Post if !attribute.post => {
                    return Err(ApiError::bad_request(format!(
                        "Attribute '{name}' not allowed in POST"
                    )));
                }
                Verb::Put if !attribute.put => {
                    return Err(ApiError::bad_request(format!(
                        "Cannot update read-only attribute {name}"
                    )));
                }
                _ => {}
            }
            if let Some(parsed) = parse::value(attribute.name, attribute.kind, value)? {
                given.values.push((attribute.name, parsed));
            }
        }
        if verb == Verb::Post {
            for attribute in table.iter().filter(|attribute| attribute.required) {
                if !given.values.iter().any(|(name, _)| *name == attribute.name) {
                    return Err(ApiError::bad_request(format!(
                        "Failed to parse request. Required attribute '{}' not specified",
                        attribute.name
                    )));
                }
            }
        }
        Ok(given)
    }

    /// Whether the client gave nothing.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// Looks at an attribute; `None` when the client did not give it.
    pub fn peek(&self, name: &str) -> Option<&Parsed> {
        let found = self.values.iter().find(|(given, _)| *given == name);
        found.map(|(_, value)| value)
    }

    /// Takes an attribute out; `None` when the client did not give it.
    pub fn take(&mut self, name: &str) -> Option<Parsed> {
        let index = self.values.iter().position(|(given, _)| *given == name)?;
        Some(self.values.swap_remove(index).1)
    }

    /// Takes an attribute that has a Rust type of its own (`bool`, `String`, a list, ...).
    pub fn get<T: FromParsed>(&mut self, name: &str) -> Option<T> {
        self.take(name).and_then(T::from_parsed)
    }

    /// Takes an attribute that may be `null`: `Some(None)` when it is.
    pub fn get_nullable<T: FromParsed>(&mut self, name: &str) -> Option<Option<T>> {
        match self.take(name)? {
            Parsed::Null => Some(None),
            value => Some(T::from_parsed(value)),
        }
    }

    /// The owner, which clients give by its old name (`tenant_id`) or its new one.
    ///
    /// # Errors
    /// 400 when both are there and differ.
    pub fn owner(&mut self) -> Result<Option<String>, ApiError> {
        match (self.get::<String>("project_id"), self.get::<String>("tenant_id")) {
            (Some(project), Some(tenant)) if project != tenant => {
                Err(ApiError::bad_request("'project_id' and 'tenant_id' do not match"))
            }
            (Some(project), _) | (None, Some(project)) => Ok(Some(project)),
            (None, None) => Ok(None),
        }
    }
}

/// A Rust type that a checked value can be.
pub trait FromParsed: Sized {
    /// `None` when the value is of another type, which the table excludes, or `null`.
    fn from_parsed(parsed: Parsed) -> Option<Self>;
}

macro_rules! from_parsed {
    ($($variant:ident => $type:ty),* $(,)?) => {
        $(impl FromParsed for $type {
            fn from_parsed(parsed: Parsed) -> Option<Self> {
                match parsed {
                    Parsed::$variant(value) => Some(value),
                    _ => None,
                }
            }
        })*
    };
}

from_parsed! {
    Bool => bool,
    Text => String,
    Int => u64,
    Uuid => Uuid,
    Ip => std::net::IpAddr,
    Cidr => ipnet::IpNet,
    Mac => alcor_model::MacAddr,
    Object => serde_json::Map<String, serde_json::Value>,
    Pools => Vec<alcor_model::resource::AllocationPool>,
    Ips => Vec<std::net::IpAddr>,
    HostRoutes => Vec<alcor_model::resource::HostRoute>,
    FixedIps => Vec<alcor_region::command::FixedIpRequest>,
    AddressPairs => Vec<alcor_region::command::AddressPairRequest>,
    Texts => Vec<String>,
    Json => serde_json::Value,
}
