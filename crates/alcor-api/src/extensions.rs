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
        "address-group",
        "Address group",
        "Named lists of prefixes for security group rules",
    ),
    extension(
        "address-scope",
        "Address scope",
        "Subnet pools whose addresses do not overlap",
    ),
    extension("agent", "agent", "The hosts, as agents"),
    extension("agent_sort_key", "Agents Sort Key", "Agents in a chosen order"),
    extension(
        "allowed-address-pairs",
        "Allowed Address Pairs",
        "Further addresses that a port may send from",
    ),
    extension(
        "auto-allocated-topology",
        "Auto Allocated Topology Services",
        "A network, subnets and a router for who wants no more than a network",
    ),
    extension(
        "availability_zone",
        "Availability Zone",
        "The availability zones of hosts",
    ),
    extension(
        "availability_zone_filter",
        "Availability Zone Filter Extension",
        "Availability zones by name, resource and state",
    ),
    extension("binding", "Port Binding", "Where a port is plugged"),
    extension(
        "binding-extended",
        "Port Bindings Extended",
        "Several bindings of one port, for live migration",
    ),
    extension(
        "data-plane-status",
        "Port data plane status extension",
        "What an operator says of the data plane below a port",
    ),
    extension(
        "default-subnetpools",
        "Default Subnetpools",
        "A pool that is meant when nobody names one",
    ),
    extension(
        "dns-domain-ports",
        "dns_domain for ports",
        "The domain in which the name of a port is published",
    ),
    extension(
        "dvr",
        "Distributed Virtual Router",
        "distributed of a router, kept and shown",
    ),
    extension(
        "empty-string-filtering",
        "Empty String Filtering",
        "Filters match the empty text",
    ),
    extension(
        "expose-port-forwarding-in-fip",
        "Expose Floating IP port forwardings",
        "port_forwardings of a floating IP",
    ),
    extension(
        "ext-gw-mode",
        "Neutron L3 Configurable external gateway mode",
        "enable_snat of a router's external gateway",
    ),
    extension(
        "external-net",
        "Neutron external network",
        "Networks that routers may have their way out through",
    ),
    extension(
        "extra_dhcp_opt",
        "Neutron Extra DHCP options",
        "Further DHCP options of a port",
    ),
    extension("extraroute", "Neutron Extra Route", "Static routes of a router"),
    extension(
        "extraroute-atomic",
        "Atomically add/remove extra routes",
        "add_extraroutes and remove_extraroutes",
    ),
    extension(
        "filter-validation",
        "Filter parameters validation",
        "Unknown filters are refused",
    ),
    extension(
        "fip-port-details",
        "Floating IP Port Details Extension",
        "port_details of a floating IP",
    ),
    extension(
        "floating-ip-port-forwarding",
        "Floating IP Port Forwarding",
        "Ports of a floating IP that lead to several places",
    ),
    extension(
        "floating-ip-port-forwarding-description",
        "Floating IP Port Forwarding new attribute description",
        "A description on every port forwarding",
    ),
    extension(
        "floating-ip-port-forwarding-detail",
        "Floating IP port forwarding detail",
        "Port forwardings are shown one by one",
    ),
    extension(
        "floating-ip-port-forwarding-port-ranges",
        "Floating IP Port Forwarding support port ranges",
        "Ranges of ports in port forwardings",
    ),
    extension(
        "floating-ip-router-writable",
        "Floating IP Router (writable)",
        "The router of a floating IP can be chosen",
    ),
    extension(
        "floatingip-pools",
        "Floating IP Pools Extension",
        "The subnets that floating IPs come from",
    ),
    extension(
        "ip-substring-filtering",
        "IP address substring filtering",
        "Ports by a part of an address",
    ),
    extension("ip_allocation", "IP Allocation", "Whether a port has addresses"),
    extension(
        "l2_adjacency",
        "L2 Adjacency",
        "Whether the ports of a network are in one segment: always",
    ),
    extension("l3-ha", "HA Router extension", "ha of a router, kept and shown"),
    extension("net-mtu", "Network MTU", "A network's MTU is shown"),
    extension(
        "net-mtu-writable",
        "Network MTU (writable)",
        "A network's MTU can be set",
    ),
    extension(
        "network_availability_zone",
        "Network Availability Zone",
        "The availability zones of networks",
    ),
    extension(
        "network-ip-availability",
        "Network IP Availability",
        "How many addresses of a network are given out",
    ),
    extension(
        "network-ip-availability-details",
        "IP Availability Details",
        "The same, of the subnets and of their ranges",
    ),
    extension(
        "network-segment-range",
        "Neutron Network Segment Range",
        "Which VXLAN network identifiers are whose",
    ),
    extension(
        "pagination",
        "Pagination support",
        "limit, marker and page_reverse",
    ),
    extension(
        "port-mac-address-regenerate",
        "Neutron Port MAC address regenerate",
        "Another MAC address for a port",
    ),
    extension(
        "port-security",
        "Port Security",
        "Source addresses of a port are checked, or not",
    ),
    extension(
        "port-security-groups-filtering",
        "Port filtering on security groups",
        "Ports can be filtered by their security groups",
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
        "quota-check-limit-default",
        "Quota engine limit check by default",
        "A limit below what there is already is refused unless forced",
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
        "rbac-address-group",
        "Add address_group type to RBAC",
        "Address groups shared with single projects",
    ),
    extension(
        "rbac-address-scope",
        "Add address_scope type to RBAC",
        "Address scopes shared with single projects",
    ),
    extension(
        "rbac-policies",
        "RBAC Policies",
        "Networks shared with single projects",
    ),
    extension(
        "rbac-security-groups",
        "Add security_group type to RBAC",
        "Security groups shared with single projects",
    ),
    extension(
        "rbac-subnetpool",
        "Add subnetpool type to RBAC",
        "Subnet pools shared with single projects",
    ),
    extension(
        "revision-if-match",
        "If-Match constraints based on revision_number",
        "If-Match: revision_number=N",
    ),
    extension("router", "Neutron L3 Router", "Routers and floating IPs"),
    extension(
        "router-admin-state-down-before-update",
        "Enforce Router's Admin State Down Before Update Extension",
        "distributed and ha change while the router is down",
    ),
    extension(
        "router_availability_zone",
        "Router Availability Zone",
        "The availability zones of routers",
    ),
    extension(
        "security-group",
        "security-group",
        "Security groups and their rules",
    ),
    extension("segment", "Segment", "The segment of each network"),
    extension(
        "security-groups-default-rules",
        "Default rules for security groups",
        "Templates of the rules that new security groups begin with",
    ),
    extension(
        "security-groups-normalized-cidr",
        "Normalized CIDR field for security group rules",
        "normalized_cidr of a rule's remote prefix",
    ),
    extension(
        "security-groups-remote-address-group",
        "Remote address group id field for security group rules",
        "Rules about the addresses of an address group",
    ),
    extension(
        "security-groups-rules-belongs-to-default-sg",
        "Security group rule belongs to the project's default security group",
        "belongs_to_default_sg of a rule",
    ),
    extension(
        "security-groups-shared-filtering",
        "Security group filtering on the shared field",
        "Security groups can be filtered by shared",
    ),
    extension(
        "service-type",
        "Neutron Service Type Management",
        "Who provides services: Alcor",
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
        "standard-attr-segment",
        "Standard Attribute Segment Extension",
        "Descriptions, times and revision numbers of segments",
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
    extension(
        "stateful-security-group",
        "Stateful security group",
        "Security groups with and without connection tracking",
    ),
    extension(
        "subnet-dns-publish-fixed-ip",
        "Subnet DNS publish fixed IP",
        "Whether names of a subnet's ports may be made known",
    ),
    extension(
        "subnet-external-network",
        "Subnet belongs to external network",
        "A subnet shows whether its network is external",
    ),
    extension(
        "subnet-service-types",
        "Subnet service types",
        "Subnets for ports of some kinds only",
    ),
    extension(
        "subnet_allocation",
        "Subnet Allocation",
        "Subnets are taken from pools",
    ),
    extension(
        "subnet_onboard",
        "Subnet Onboard",
        "Subnets come into a pool with their blocks",
    ),
    extension(
        "subnetpool-prefix-ops",
        "Subnet Pool Prefix Operations",
        "Prefixes are added to pools and taken out",
    ),
    extension(
        "tag-creation",
        "Tag creation extension",
        "Several tags are added to a resource at once",
    ),
    extension(
        "tag-ports-during-bulk-creation",
        "Tag Ports During Bulk Creation",
        "Ports are made with their tags",
    ),
];
