//! Rules: what one may say, what it means, and when two of them mean the same.

use std::sync::Arc;

use alcor_model::{
    AddressGroup, Id, Resource, ResourceKey, SecurityGroup, SecurityGroupRule,
    resource::{Direction, Ethertype, Protocol, Remote, RuleMatch},
};
use alcor_store::Tx;
use ipnet::IpNet;

use super::{SecurityGroupError, put_rule, rules_changed, visible};
use crate::{
    Env, RegionError, RegionState,
    address_group::AddressGroupError,
    command::{Caller, StandardCreate, StandardUpdate},
    env::check_if_match,
    managed::Managed,
};

/// The range of all ports; who names it means any port.
const ALL_PORTS: (u16, u16) = (1, 65_535);
/// Largest type and code of ICMP.
const ICMP_MAX: u16 = 255;

/// What a client says that a rule, or a template of one, matches. `G` is how it names a security group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleRequest<G> {
    /// Which way.
    pub direction: Direction,
    /// Which family.
    pub ethertype: Ethertype,
    /// Any when `None`.
    pub protocol: Option<Protocol>,
    /// First port, or ICMP type.
    pub port_range_min: Option<u16>,
    /// Last port, or ICMP code.
    pub port_range_max: Option<u16>,
    /// Remote addresses.
    pub remote_ip_prefix: Option<IpNet>,
    /// Remote ports under a group.
    pub remote_group_id: Option<G>,
    /// Remote addresses of a group.
    pub remote_address_group_id: Option<Id<AddressGroup>>,
}

/// `POST /v2.0/security-group-rules`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleCreate {
    /// Standard attributes.
    pub standard: StandardCreate,
    /// The group.
    pub security_group_id: Id<SecurityGroup>,
    /// What it matches.
    pub request: RuleRequest<Id<SecurityGroup>>,
}

/// What two rules of one group that match the same packets have in common.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RuleKey {
    direction: Direction,
    ethertype: Ethertype,
    protocol: Option<u8>,
    ports: (Option<u16>, Option<u16>),
    remote: Remote,
}

impl RuleKey {
    /// The key of a rule. Neither how a protocol is spelled nor whether "everybody" is said or implied makes a
    /// difference.
    pub fn of(matches: &RuleMatch<Remote>) -> Self {
        Self {
            direction: matches.direction,
            ethertype: matches.ethertype,
            protocol: matches.protocol.as_ref().map(|protocol| protocol.number),
            ports: (matches.port_range_min, matches.port_range_max),
            remote: match matches.remote {
                Remote::Prefix(prefix) if prefix.prefix_len() == 0 => Remote::Any,
                remote => remote,
            },
        }
    }
}

impl<G> RuleRequest<G> {
    /// Checks what the client says and brings it into one form: legacy names of ICMPv6 become the name that counts,
    /// the range of all ports becomes none. The remote is given back as what `group` makes of a group.
    ///
    /// # Errors
    /// 400 for parts that do not fit together.
    pub(crate) fn normalised<R>(
        self,
        fixed: impl FnOnce(Remote) -> R,
        group: impl FnOnce(G) -> R,
    ) -> Result<RuleMatch<R>, SecurityGroupError> {
        let protocol = self
            .protocol
            .map(|protocol| canonical_protocol(protocol, self.ethertype));
        let range = match (self.port_range_min, self.port_range_max) {
            (Some(min), Some(max)) if (min, max) == ALL_PORTS => (None, None),
            range => range,
        };
        check_range(protocol.as_ref(), range)?;
        if let Some(cidr) = self.remote_ip_prefix
            && Ethertype::of(&cidr) != self.ethertype
        {
            return Err(SecurityGroupError::ParameterConflict {
                ethertype: self.ethertype,
                cidr,
            });
        }
        if let Some(protocol) = &protocol
            && protocol.is_ipv6_only()
            && self.ethertype == Ethertype::Ipv4
        {
            return Err(SecurityGroupError::EthertypeConflict {
                ethertype: self.ethertype,
                protocol: protocol.spelled.clone(),
            });
        }
        let remote = match (
            self.remote_ip_prefix,
            self.remote_group_id,
            self.remote_address_group_id,
        ) {
            (None, None, None) => fixed(Remote::Any),
            (Some(prefix), None, None) => fixed(Remote::Prefix(prefix)),
            (None, Some(remote), None) => group(remote),
            (None, None, Some(addresses)) => fixed(Remote::AddressGroup(addresses)),
            _ => return Err(SecurityGroupError::MultipleRemotes),
        };
        Ok(RuleMatch {
            direction: self.direction,
            ethertype: self.ethertype,
            protocol,
            port_range_min: range.0,
            port_range_max: range.1,
            remote,
        })
    }
}

/// `icmp` and `icmpv6`, by name or number, are `ipv6-icmp` in a rule of IPv6.
fn canonical_protocol(protocol: Protocol, ethertype: Ethertype) -> Protocol {
    if ethertype == Ethertype::Ipv4 || !protocol.is_icmp() {
        return protocol;
    }
    let by_number = protocol.spelled.parse::<u8>().is_ok();
    Protocol {
        number: Protocol::ICMPV6,
        spelled: if by_number {
            Protocol::ICMPV6.to_string()
        } else {
            Protocol::NAME_ICMPV6.to_owned()
        },
    }
}

fn check_range(
    protocol: Option<&Protocol>,
    (min, max): (Option<u16>, Option<u16>),
) -> Result<(), SecurityGroupError> {
    if min.is_none() && max.is_none() {
        return Ok(());
    }
    let Some(protocol) = protocol else {
        return Err(SecurityGroupError::ProtocolRequiredWithPorts);
    };
    if protocol.has_ports() {
        return match (min, max) {
            (Some(0), _) | (_, Some(0)) => Err(SecurityGroupError::InvalidPortValue(0)),
            (Some(min), Some(max)) if min <= max => Ok(()),
            _ => Err(SecurityGroupError::InvalidPortRange),
        };
    }
    if !protocol.is_icmp() {
        return Err(SecurityGroupError::InvalidProtocolForPort(protocol.number));
    }
    for (field, attribute, value) in [("type", "port_range_min", min), ("code", "port_range_max", max)] {
        if let Some(value) = value.filter(|value| *value > ICMP_MAX) {
            return Err(SecurityGroupError::InvalidIcmpValue {
                field,
                attribute,
                value,
            });
        }
    }
    match (min, max) {
        (None, Some(code)) => Err(SecurityGroupError::MissingIcmpType(code)),
        _ => Ok(()),
    }
}

/// Whether the caller sees what a remote names.
pub(super) fn check_remote(state: &RegionState, caller: &Caller, remote: Remote) -> Result<(), RegionError> {
    match remote {
        Remote::Group(id) => {
            visible(state, caller, id)?;
        }
        Remote::AddressGroup(id) if state.visible_address_group(caller, id).is_none() => {
            return Err(AddressGroupError::NotFound(id).into());
        }
        Remote::AddressGroup(_) | Remote::Any | Remote::Prefix(_) => {}
    }
    Ok(())
}

impl Managed for SecurityGroupRule {
    type Create = RuleCreate;
    type Update = StandardUpdate;
    const QUOTA: Option<&'static str> = Some("security_group_rule");

    /// Rules of one request are of one group and one project, and differ.
    fn check_together(creates: &[Self::Create]) -> Result<(), RegionError> {
        let Some(first) = creates.first() else {
            return Ok(());
        };
        let mut keys = std::collections::BTreeSet::new();
        for create in creates {
            if create.security_group_id != first.security_group_id {
                return Err(SecurityGroupError::NotSingleGroup.into());
            }
            if create.standard.project_id != first.standard.project_id {
                return Err(SecurityGroupError::NotSingleProject.into());
            }
            let matches = create
                .request
                .clone()
                .normalised(|remote| remote, Remote::Group)?;
            if !keys.insert(RuleKey::of(&matches)) {
                return Err(SecurityGroupError::DuplicateInPost.into());
            }
        }
        Ok(())
    }

    fn create(
        tx: &mut Tx<'_, RegionState>,
        env: &Env,
        caller: &Caller,
        create: Self::Create,
    ) -> Result<Arc<Self>, RegionError> {
        let matches = create.request.normalised(|remote| remote, Remote::Group)?;
        check_remote(tx.state(), caller, matches.remote)?;
        let group = visible(tx.state(), caller, create.security_group_id)?.id;
        if let Some(rule) = tx.state().rule_like(group, &matches) {
            return Err(SecurityGroupError::RuleExists(rule).into());
        }
        let standard = env.standard(caller, create.standard)?;
        let id = put_rule(tx, env, group, matches, standard);
        rules_changed(tx, env, group);
        written(tx, id)
    }

    /// Only the description changes; what a rule matches never does.
    fn update(
        tx: &mut Tx<'_, RegionState>,
        env: &Env,
        caller: &Caller,
        id: &Id<Self>,
        update: Self::Update,
        if_match: Option<u64>,
    ) -> Result<Arc<Self>, RegionError> {
        let mut rule = Self::clone(visible_rule(tx.state(), caller, *id)?);
        env.update_standard(&mut rule.standard, update, if_match)?;
        tx.put(Resource::SecurityGroupRule(Arc::new(rule)));
        written(tx, *id)
    }

    fn delete(
        tx: &mut Tx<'_, RegionState>,
        env: &Env,
        caller: &Caller,
        id: &Id<Self>,
        if_match: Option<u64>,
    ) -> Result<(), RegionError> {
        let rule = Arc::clone(visible_rule(tx.state(), caller, *id)?);
        check_if_match(&rule.standard, if_match)?;
        tx.delete(ResourceKey::SecurityGroupRule(*id));
        rules_changed(tx, env, rule.security_group_id);
        Ok(())
    }

    fn visible(&self, caller: &Caller, state: &RegionState) -> bool {
        state.sees_rule(caller, self)
    }
}

fn visible_rule<'a>(
    state: &'a RegionState,
    caller: &Caller,
    id: Id<SecurityGroupRule>,
) -> Result<&'a Arc<SecurityGroupRule>, SecurityGroupError> {
    state
        .security_group_rules()
        .get(&id)
        .filter(|rule| state.sees_rule(caller, rule))
        .ok_or(SecurityGroupError::RuleNotFound(id))
}

fn written(
    tx: &Tx<'_, RegionState>,
    id: Id<SecurityGroupRule>,
) -> Result<Arc<SecurityGroupRule>, RegionError> {
    tx.state()
        .security_group_rules()
        .get(&id)
        .cloned()
        .ok_or_else(|| SecurityGroupError::RuleNotFound(id).into())
}
