//! Rows of security and their messages.

use std::num::NonZeroU16;

use alcor_dataplane::{
    LabelRow, PolicyRow,
    security::{Family, Remote, Rule, Service},
};
use alcor_model::{Id, Network};
use alcor_proto::v1;
use bytes::Bytes;

use super::{DecodeError, decode_id, decode_prefixes, decode_u16, encode_id, encode_prefixes};

pub(super) fn encode_label(row: &LabelRow) -> v1::Label {
    v1::Label {
        label: u32::from(row.label.get()),
        group_ids: row.groups.iter().copied().map(encode_id).collect(),
    }
}

pub(super) fn decode_label(network_id: Id<Network>, message: &v1::Label) -> Result<LabelRow, DecodeError> {
    let groups = message.group_ids.iter();
    Ok(LabelRow {
        network_id,
        label: decode_label_number(message.label)?,
        groups: groups
            .map(|id| decode_id("a label's group", id))
            .collect::<Result<_, _>>()?,
    })
}

/// The label of a row; 0 has none.
pub(super) fn decode_label_number(label: u32) -> Result<NonZeroU16, DecodeError> {
    let range = DecodeError::Range {
        what: "label",
        got: 0,
    };
    NonZeroU16::new(decode_u16("label", label)?).ok_or(range)
}

pub(super) fn encode_policy(row: &PolicyRow) -> v1::Policy {
    v1::Policy {
        group_id: encode_id(row.group_id),
        stateful: row.stateful,
        ingress: row.ingress.iter().map(encode_rule).collect(),
        egress: row.egress.iter().map(encode_rule).collect(),
    }
}

pub(super) fn decode_policy(network_id: Id<Network>, message: &v1::Policy) -> Result<PolicyRow, DecodeError> {
    Ok(PolicyRow {
        network_id,
        group_id: decode_id("the policy's group", &message.group_id)?,
        stateful: message.stateful,
        ingress: message
            .ingress
            .iter()
            .map(decode_rule)
            .collect::<Result<_, _>>()?,
        egress: message.egress.iter().map(decode_rule).collect::<Result<_, _>>()?,
    })
}

fn encode_rule(rule: &Rule) -> v1::Rule {
    let family = match rule.family {
        Family::Ipv4 => v1::Family::Ipv4,
        Family::Ipv6 => v1::Family::Ipv6,
    };
    let (remote, prefixes, group_id) = match &rule.remote {
        Remote::Any => (v1::Remote::Any, None, Bytes::new()),
        Remote::Prefixes(blocks) => (v1::Remote::Prefixes, Some(encode_prefixes(blocks)), Bytes::new()),
        Remote::Group(group) => (v1::Remote::Group, None, encode_id(*group)),
    };
    v1::Rule {
        family: family.into(),
        service: rule.service.map(|service| v1::Service {
            protocol: u32::from(service.protocol),
            first: u32::from(service.first),
            last: u32::from(service.last),
        }),
        remote: remote.into(),
        prefixes,
        group_id,
    }
}

fn decode_rule(message: &v1::Rule) -> Result<Rule, DecodeError> {
    let family = match message.family() {
        v1::Family::Unspecified => return Err(DecodeError::Missing("a rule's family")),
        v1::Family::Ipv4 => Family::Ipv4,
        v1::Family::Ipv6 => Family::Ipv6,
    };
    Ok(Rule {
        family,
        service: message.service.as_ref().map(decode_service).transpose()?,
        remote: match message.remote() {
            v1::Remote::Unspecified => return Err(DecodeError::Missing("a rule's other side")),
            v1::Remote::Any => Remote::Any,
            v1::Remote::Prefixes => {
                let blocks = message.prefixes.as_ref();
                let blocks = blocks.ok_or(DecodeError::Missing("a rule's prefixes"))?;
                Remote::Prefixes(decode_prefixes("a rule's prefix", blocks)?)
            }
            v1::Remote::Group => Remote::Group(decode_id("a rule's group", &message.group_id)?),
        },
    })
}

fn decode_service(message: &v1::Service) -> Result<Service, DecodeError> {
    let protocol = u8::try_from(message.protocol).map_err(|_| DecodeError::Range {
        what: "a rule's protocol",
        got: u64::from(message.protocol),
    })?;
    Ok(Service {
        protocol,
        first: decode_u16("a rule's first port", message.first)?,
        last: decode_u16("a rule's last port", message.last)?,
    })
}

#[cfg(test)]
mod tests {
    use alcor_dataplane::{Row, RowChange};
    use alcor_model::Revision;

    use super::*;
    use crate::convert::{decode_row, encode_row, encode_tombstone};

    fn id<T>(number: u128) -> Id<T> {
        Id::from_uuid(uuid::Uuid::from_u128(number))
    }

    fn rows() -> Vec<Row> {
        let rule = |family, service, remote| Rule {
            family,
            service,
            remote,
        };
        let blocks = vec!["10.0.0.0/8".parse().unwrap(), "192.0.2.1/32".parse().unwrap()];
        let policy = PolicyRow {
            network_id: id(1),
            group_id: id(2),
            stateful: true,
            ingress: vec![
                rule(
                    Family::Ipv4,
                    Some(Service::ports(6, 0, 65_535)),
                    Remote::Prefixes(blocks),
                ),
                rule(
                    Family::Ipv6,
                    Some(Service::icmp(58, 128, Some(0))),
                    Remote::Group(id(9)),
                ),
                rule(Family::Ipv4, None, Remote::Prefixes(Vec::new())),
            ],
            egress: vec![rule(Family::Ipv6, None, Remote::Any)],
        };
        let label = LabelRow {
            network_id: id(1),
            label: NonZeroU16::MAX,
            groups: vec![id(2), id(3)],
        };
        let stateless = PolicyRow {
            stateful: false,
            ingress: Vec::new(),
            egress: Vec::new(),
            ..policy.clone()
        };
        vec![Row::Policy(policy), Row::Policy(stateless), Row::Label(label)]
    }

    #[test]
    fn rows_of_security_travel() {
        for row in rows() {
            let key = row.key();
            let sent = encode_tombstone(Revision(7), &key);
            assert_eq!(
                decode_row(id(1), &sent),
                Ok((Revision(7), RowChange::Remove(key)))
            );
            let sent = encode_row(Revision(7), &row);
            assert_eq!(decode_row(id(1), &sent), Ok((Revision(7), RowChange::Put(row))));
        }
    }

    #[test]
    fn what_is_no_label_and_no_rule_is_refused() {
        for label in [0, 65_536] {
            let message = v1::Label {
                label,
                group_ids: Vec::new(),
            };
            assert!(matches!(
                decode_label(id(1), &message),
                Err(DecodeError::Range { .. })
            ));
        }
        let mut rule = v1::Rule::default();
        assert_eq!(decode_rule(&rule), Err(DecodeError::Missing("a rule's family")));
        rule.set_family(v1::Family::Ipv4);
        assert_eq!(
            decode_rule(&rule),
            Err(DecodeError::Missing("a rule's other side"))
        );
        rule.set_remote(v1::Remote::Prefixes);
        assert_eq!(decode_rule(&rule), Err(DecodeError::Missing("a rule's prefixes")));
        rule.set_remote(v1::Remote::Group);
        assert!(decode_rule(&rule).is_err(), "no group");
        rule.set_remote(v1::Remote::Any);
        rule.service = Some(v1::Service {
            protocol: 256,
            first: 0,
            last: 0,
        });
        assert!(matches!(
            decode_rule(&rule),
            Err(DecodeError::Range { got: 256, .. })
        ));
    }
}
