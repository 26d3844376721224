//! A set of rules as kernel entries. Pure.

use std::{collections::HashMap, net::IpAddr};

use alcor_dataplane::{
    compiled::{Bits, Table},
    rules::InForce,
    security::Family,
};
use alcor_dataplane_abi::{
    connection::Direction,
    layout::{
        BitsKey, IPV4, IPV6, LabelKey, PREFIX_SCOPE_BITS, PrefixKey, SERVICE_SCOPE_BITS, SERVICE_TABLE_BITS,
        ServiceKey, WORDS_PER_ROW, rule_table,
    },
};

use crate::{
    entry::{Entries, Key, Value},
    layout::address,
};

/// Bits of a point.
const POINT_BITS: u32 = 16;

/// Rows of bits, each once, numbered as they come.
struct BitRows<'a> {
    epoch: u32,
    numbers: HashMap<&'a Bits, u32>,
}

impl<'a> BitRows<'a> {
    fn number(&mut self, bits: &'a Bits, entries: &mut Entries) -> u32 {
        let next = self.numbers.len() as u32;
        if let Some(number) = self.numbers.get(bits) {
            return *number;
        }
        self.numbers.insert(bits, next);
        let words = bits.words().iter().zip(0..).filter(|(word, _)| **word != 0);
        entries.extend(words.map(|(word, at)| {
            let key = BitsKey {
                epoch: self.epoch,
                place: next * WORDS_PER_ROW + at,
            };
            (Key::Bits(key), Value::Word(*word))
        }));
        next
    }
}

/// Adds the entries of a set.
pub(crate) fn entries(in_force: &InForce, entries: &mut Entries) {
    let mut rows = BitRows {
        epoch: in_force.epoch,
        numbers: HashMap::new(),
    };
    for direction in [Direction::Ingress, Direction::Egress] {
        for (family, number) in [(Family::Ipv4, IPV4), (Family::Ipv6, IPV6)] {
            let table = in_force.set.table(direction, family);
            let of = rule_table(direction, number);
            services(in_force.epoch, of, table, entries);
            for (prefix, bits) in &table.prefixes {
                let key = PrefixKey {
                    epoch: in_force.epoch,
                    table: of,
                    ip: prefix_bytes(prefix.network()),
                };
                let len = PREFIX_SCOPE_BITS + u32::from(prefix.prefix_len());
                let row = rows.number(bits, entries);
                entries.insert(Key::Prefix(len, key), Value::Number(row));
            }
            for (label, bits) in &table.labels {
                let key = LabelKey {
                    epoch: in_force.epoch,
                    table: of as u16,
                    label: label.get(),
                };
                let row = rows.number(bits, entries);
                entries.insert(Key::Label(key), Value::Number(row));
            }
        }
    }
}

fn prefix_bytes(ip: IpAddr) -> [u8; 16] {
    address(ip).1
}

/// The classes of a table as prefixes: one for all protocols, one for each protocol that rules name (the class that most
/// of its points have), and the ranges of points that have another class, cut into blocks.
fn services(epoch: u32, table: u32, rules: &Table, entries: &mut Entries) {
    let key = |protocol, point: u16| ServiceKey {
        epoch,
        table: table as u8,
        protocol,
        point: point.to_be_bytes(),
    };
    let mut put = |bits, key, class: u16| {
        entries.insert(Key::Service(bits, key), Value::Number(u32::from(class)));
    };
    put(SERVICE_TABLE_BITS, key(0, 0), rules.other);
    for (protocol, ranges) in &rules.services {
        let behind = ranges.iter().skip(1).map(|(first, _)| u32::from(*first));
        let ends = behind.chain([1 << POINT_BITS]);
        let ranges: Vec<(u32, u32, u16)> = ranges
            .iter()
            .zip(ends)
            .map(|((first, class), end)| (u32::from(*first), end, *class))
            .collect();
        let mut points: HashMap<u16, u32> = HashMap::new();
        for (first, end, class) in &ranges {
            *points.entry(*class).or_default() += end - first;
        }
        let usual = points.into_iter().max_by_key(|(class, points)| (*points, *class));
        let usual = usual.map_or(rules.other, |(class, _)| class);
        put(SERVICE_SCOPE_BITS, key(*protocol, 0), usual);
        for (first, end, class) in ranges.into_iter().filter(|(.., class)| *class != usual) {
            for (point, len) in blocks(first, end) {
                put(SERVICE_SCOPE_BITS + len, key(*protocol, point), class);
            }
        }
    }
}

/// Cuts a range of points into aligned blocks: first point and prefix length.
fn blocks(mut first: u32, end: u32) -> Vec<(u16, u32)> {
    let mut blocks = Vec::new();
    while first < end {
        let aligned = first.trailing_zeros().min(POINT_BITS);
        let fits = (end - first).ilog2();
        let size = aligned.min(fits);
        blocks.push((first as u16, POINT_BITS - size));
        first += 1 << size;
    }
    blocks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_cover_exactly_the_range() {
        for (first, end) in [
            (0, 65_536),
            (80, 81),
            (1, 65_536),
            (0, 65_535),
            (1000, 2000),
            (7, 7),
            (65_535, 65_536),
        ] {
            let mut covered = first;
            for (point, len) in blocks(first, end) {
                assert_eq!(u32::from(point), covered);
                covered += 1 << (POINT_BITS - len);
            }
            assert_eq!(covered, end.max(first));
        }
    }
}
