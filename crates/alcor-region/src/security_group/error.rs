//! Why the region refuses what concerns security groups and their rules, in Neutron's words.

use alcor_model::{DefaultSecurityGroupRule, Id, SecurityGroup, SecurityGroupRule, resource::Ethertype};
use ipnet::IpNet;
use thiserror::Error;

use crate::{ErrorClass, Refusal};

/// A refusal.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum SecurityGroupError {
    /// No such group, or the caller may not see it; several, when a port names several.
    #[error("Security group {0} does not exist")]
    NotFound(String),
    /// Ports are under it.
    #[error("Security Group {0} in use.")]
    InUse(Id<SecurityGroup>),
    /// The default group stays.
    #[error("Insufficient rights for removing default security group.")]
    CannotRemoveDefault,
    /// The default group keeps its name.
    #[error("Updating default security group not allowed.")]
    CannotUpdateDefault,
    /// Only one group of a project is called `default`.
    #[error("Default security group already exists.")]
    DefaultAlreadyExists,
    /// Things that exclude each other.
    #[error("Error {0} while attempting the operation.")]
    Conflict(&'static str),
    /// A port has more groups than the limit.
    #[error("Invalid input for operation: a port has at most {0} security groups.")]
    TooManyOnPort(usize),
    /// Security groups need port security.
    #[error(
        "Port security must be enabled and port must have an IP address in order to use security groups."
    )]
    PortSecurityRequired,
    /// Port security cannot go while groups are there.
    #[error(
        "Port has security group associated. Cannot disable port security or IP address until security group is removed."
    )]
    PortHasSecurityGroup,
    /// No such rule, or the caller may not see it.
    #[error("Security group rule {0} does not exist")]
    RuleNotFound(Id<SecurityGroupRule>),
    /// The group has a rule that matches the same.
    #[error("Security group rule already exists. Rule id is {0}.")]
    RuleExists(Id<SecurityGroupRule>),
    /// Two rules of one request match the same.
    #[error("Duplicate Security Group Rule in POST.")]
    DuplicateInPost,
    /// The rules of one request are of several groups.
    #[error("Only allowed to update rules for one security profile at a time")]
    NotSingleGroup,
    /// The rules of one request are of several projects.
    #[error("Multiple project_ids in bulk security group rule create not allowed")]
    NotSingleProject,
    /// A range without a protocol.
    #[error("Must also specify protocol if port range is given.")]
    ProtocolRequiredWithPorts,
    /// A port that no packet can have.
    #[error("Invalid value for port {0}")]
    InvalidPortValue(u16),
    /// A range of ports that is open or upside down.
    #[error("For TCP/UDP protocols, port_range_min must be <= port_range_max")]
    InvalidPortRange,
    /// A type or code that does not fit.
    #[error("Invalid value for ICMP {field} ({attribute}) {value}. It must be 0 to 255.")]
    InvalidIcmpValue {
        /// `type` or `code`.
        field: &'static str,
        /// Neutron's name of the attribute.
        attribute: &'static str,
        /// What was given.
        value: u16,
    },
    /// A code without a type.
    #[error("ICMP code (port-range-max) {0} is provided but ICMP type (port-range-min) is missing.")]
    MissingIcmpType(u16),
    /// A range for a protocol without ports.
    #[error(
        "Ports cannot be specified for protocol {0}. Ports are only supported for DCCP, SCTP, TCP, UDP, UDPLITE."
    )]
    InvalidProtocolForPort(u8),
    /// A prefix of the other family.
    #[error("Conflicting value ethertype {ethertype} for CIDR {cidr}")]
    ParameterConflict {
        /// The rule's family.
        ethertype: Ethertype,
        /// The prefix.
        cidr: IpNet,
    },
    /// A protocol of IPv6 in a rule of IPv4.
    #[error("Invalid ethertype {ethertype} for protocol {protocol}.")]
    EthertypeConflict {
        /// The rule's family.
        ethertype: Ethertype,
        /// The protocol.
        protocol: String,
    },
    /// More than one remote.
    #[error("Only one of remote_ip_prefix or remote_group_id or remote_address_group_id may be provided.")]
    MultipleRemotes,
    /// No such template.
    #[error("Default Security Group rule {0} does not exist")]
    TemplateNotFound(Id<DefaultSecurityGroupRule>),
    /// A template that gives groups the same rule is there.
    #[error("Default Security group rule already exists. Rule id is {0}.")]
    TemplateExists(Id<DefaultSecurityGroupRule>),
}

impl Refusal for SecurityGroupError {
    fn neutron_type(&self) -> &'static str {
        match self {
            Self::NotFound(_) => "SecurityGroupNotFound",
            Self::InUse(_) => "SecurityGroupInUse",
            Self::CannotRemoveDefault => "SecurityGroupCannotRemoveDefault",
            Self::CannotUpdateDefault => "SecurityGroupCannotUpdateDefault",
            Self::DefaultAlreadyExists => "SecurityGroupDefaultAlreadyExists",
            Self::Conflict(_) => "SecurityGroupConflict",
            Self::TooManyOnPort(_) => "InvalidInput",
            Self::PortSecurityRequired => "PortSecurityAndIPRequiredForSecurityGroups",
            Self::PortHasSecurityGroup => "PortSecurityPortHasSecurityGroup",
            Self::RuleNotFound(_) => "SecurityGroupRuleNotFound",
            Self::RuleExists(_) => "SecurityGroupRuleExists",
            Self::DuplicateInPost => "DuplicateSecurityGroupRuleInPost",
            Self::NotSingleGroup => "SecurityGroupNotSingleGroupRules",
            Self::NotSingleProject => "SecurityGroupRulesNotSingleProject",
            Self::ProtocolRequiredWithPorts => "SecurityGroupProtocolRequiredWithPorts",
            Self::InvalidPortValue(_) => "SecurityGroupInvalidPortValue",
            Self::InvalidPortRange => "SecurityGroupInvalidPortRange",
            Self::InvalidIcmpValue { .. } => "SecurityGroupInvalidIcmpValue",
            Self::MissingIcmpType(_) => "SecurityGroupMissingIcmpType",
            Self::InvalidProtocolForPort(_) => "SecurityGroupInvalidProtocolForPort",
            Self::ParameterConflict { .. } => "SecurityGroupRuleParameterConflict",
            Self::EthertypeConflict { .. } => "SecurityGroupEthertypeConflictWithProtocol",
            Self::MultipleRemotes => "SecurityGroupMultipleRemoteEntites",
            Self::TemplateNotFound(_) => "DefaultSecurityGroupRuleNotFound",
            Self::TemplateExists(_) => "DefaultSecurityGroupRuleExists",
        }
    }

    fn class(&self) -> ErrorClass {
        match self {
            Self::NotFound(_) | Self::RuleNotFound(_) | Self::TemplateNotFound(_) => ErrorClass::NotFound,
            Self::InUse(_)
            | Self::CannotRemoveDefault
            | Self::CannotUpdateDefault
            | Self::DefaultAlreadyExists
            | Self::Conflict(_)
            | Self::PortHasSecurityGroup
            | Self::RuleExists(_)
            | Self::DuplicateInPost
            | Self::TemplateExists(_) => ErrorClass::Conflict,
            Self::TooManyOnPort(_)
            | Self::PortSecurityRequired
            | Self::NotSingleGroup
            | Self::NotSingleProject
            | Self::ProtocolRequiredWithPorts
            | Self::InvalidPortValue(_)
            | Self::InvalidPortRange
            | Self::InvalidIcmpValue { .. }
            | Self::MissingIcmpType(_)
            | Self::InvalidProtocolForPort(_)
            | Self::ParameterConflict { .. }
            | Self::EthertypeConflict { .. }
            | Self::MultipleRemotes => ErrorClass::BadRequest,
        }
    }
}
