//! The extensions of the Neutron API that are truly there: clients and test suites decide by this list what to use.

use serde::Serialize;
use serde_json::Value;

/// When the list of extensions last changed.
const UPDATED: &str = "2026-11-21T00:00:00-00:00";

/// One extension of the Neutron API.
#[derive(Serialize)]
pub struct Extension {
    /// Neutron's alias.
    pub alias: &'static str,
    /// Neutron's name.
    pub name: &'static str,
    /// What it gives, for people.
    pub description: &'static str,
    /// When it was last changed.
    pub updated: &'static str,
    /// Always empty, as Neutron's.
    pub links: [Value; 0],
}

const fn extension(alias: &'static str, name: &'static str, description: &'static str) -> Extension {
    Extension {
        alias,
        name,
        description,
        updated: UPDATED,
        links: [],
    }
}

/// The extensions, by alias.
pub const EXTENSIONS: &[Extension] = &[
    extension(
        "allowed-address-pairs",
        "Allowed Address Pairs",
        "Further addresses that a port may send from",
    ),
    extension("binding", "Port Binding", "Where a port is plugged"),
    extension(
        "empty-string-filtering",
        "Empty String Filtering",
        "Filters match the empty text",
    ),
    extension(
        "filter-validation",
        "Filter parameters validation",
        "Unknown filters are refused",
    ),
    extension("net-mtu", "Network MTU", "A network's MTU is shown"),
    extension(
        "net-mtu-writable",
        "Network MTU (writable)",
        "A network's MTU can be set",
    ),
    extension(
        "pagination",
        "Pagination support",
        "limit, marker and page_reverse",
    ),
    extension(
        "port-security",
        "Port Security",
        "Source addresses of a port are checked, or not",
    ),
    extension(
        "project-id",
        "project_id field enabled",
        "project_id beside tenant_id",
    ),
    extension(
        "provider",
        "Provider Network",
        "The VXLAN identifier of a network",
    ),
    extension(
        "quota-check-limit",
        "Quota engine limit check",
        "A limit below what there is already is refused",
    ),
    extension(
        "quota_details",
        "Quota details management support",
        "What a project owns, beside its limits",
    ),
    extension(
        "quotas",
        "Quota management support",
        "Limits by project, and their defaults",
    ),
    extension(
        "rbac-policies",
        "RBAC Policies",
        "Networks shared with single projects",
    ),
    extension(
        "revision-if-match",
        "If-Match constraints based on revision_number",
        "If-Match: revision_number=N",
    ),
    extension("sorting", "Sorting support", "sort_key and sort_dir"),
    extension(
        "standard-attr-description",
        "standard-attr-description",
        "A description on every resource",
    ),
    extension(
        "standard-attr-revisions",
        "Resource revision numbers",
        "revision_number counts changes",
    ),
    extension(
        "standard-attr-tag",
        "Tag support for resources",
        "Tags on networks, subnets and ports",
    ),
    extension(
        "standard-attr-timestamp",
        "Resource timestamps",
        "created_at and updated_at",
    ),
];
