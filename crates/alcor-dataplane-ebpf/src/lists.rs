//! Lists of gateways, each once: networks whose rows have equal lists share one set in the kernel. Pure.

use std::{collections::BTreeMap, net::IpAddr};

use alcor_dataplane_abi::{
    gateway::{MAX_GATEWAYS, key},
    layout::{GatewayMember, GatewaySet},
};

use crate::layout::{address, ip};

/// A list as rows have it.
pub(crate) type List = Vec<IpAddr>;

#[derive(Clone, Copy)]
struct Shared {
    number: u32,
    users: usize,
}

/// The lists that networks have, with their numbers in the kernel.
#[derive(Default)]
pub(crate) struct Lists {
    by_list: BTreeMap<List, Shared>,
    by_number: BTreeMap<u32, List>,
    /// The last number that was given out: one that goes is not soon given to another list.
    last: u32,
}

impl Lists {
    /// A list that is in the kernel already keeps its number, if a network has it by the time of [`Self::settle`].
    pub(crate) fn adopt(&mut self, number: u32, list: List) {
        if number != 0 && !list.is_empty() && !self.by_list.contains_key(&list) {
            self.last = self.last.max(number);
            self.insert(number, list);
        }
    }

    fn insert(&mut self, number: u32, list: List) {
        self.by_number.insert(number, list.clone());
        self.by_list.insert(list, Shared { number, users: 0 });
    }

    /// Forgets what was adopted and no network has.
    pub(crate) fn settle(&mut self) {
        self.by_list.retain(|_, shared| shared.users > 0);
        self.by_number.retain(|_, list| self.by_list.contains_key(list));
    }

    /// One more network has the list.
    pub(crate) fn take(&mut self, list: &[IpAddr]) {
        if list.is_empty() {
            return;
        }
        if !self.by_list.contains_key(list) {
            let number = self.next();
            self.insert(number, list.to_vec());
        }
        if let Some(shared) = self.by_list.get_mut(list) {
            shared.users += 1;
        }
    }

    /// One network less has the list.
    pub(crate) fn release(&mut self, list: &[IpAddr]) {
        let Some(shared) = self.by_list.get_mut(list) else {
            return;
        };
        shared.users = shared.users.saturating_sub(1);
        if shared.users == 0 {
            let number = shared.number;
            self.by_list.remove(list);
            self.by_number.remove(&number);
        }
    }

    fn next(&mut self) -> u32 {
        loop {
            self.last = self.last.wrapping_add(1);
            if self.last != 0 && !self.by_number.contains_key(&self.last) {
                return self.last;
            }
        }
    }

    /// The number of a list that a network has; 0 for one that is empty.
    pub(crate) fn number(&self, list: &[IpAddr]) -> u32 {
        self.by_list.get(list).map_or(0, |shared| shared.number)
    }
}

/// A list as the kernel has it.
pub(crate) fn encode(list: &[IpAddr]) -> GatewaySet {
    let none = GatewayMember {
        key: 0,
        host: [0; 16],
        family: 0,
        pad: 0,
    };
    let mut set = GatewaySet {
        members: [none; MAX_GATEWAYS],
        count: list.len().min(MAX_GATEWAYS) as u32,
        pad: 0,
    };
    for (place, gateway) in set.members.iter_mut().zip(list) {
        let (family, host) = address(*gateway);
        *place = GatewayMember {
            key: key(&host),
            host,
            family,
            pad: 0,
        };
    }
    set
}

/// The opposite of [`encode`].
pub(crate) fn decode(set: &GatewaySet) -> List {
    let members = set.members.iter().take(set.count as usize);
    members.map(|member| ip(member.family, member.host)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(lasts: &[u8]) -> List {
        lasts
            .iter()
            .map(|last| IpAddr::from([192, 0, 2, *last]))
            .collect()
    }

    #[test]
    fn equal_lists_share_a_number_as_long_as_anybody_has_them() {
        let mut lists = Lists::default();
        let (one, two) = (list(&[1, 2]), list(&[1]));
        lists.take(&one);
        lists.take(&two);
        lists.take(&one);
        let number = lists.number(&one);
        assert_ne!(number, 0);
        assert_ne!(number, lists.number(&two));
        lists.release(&one);
        assert_eq!(lists.number(&one), number);
        lists.release(&one);
        assert_eq!(lists.number(&one), 0, "nobody has it");
        lists.take(&one);
        assert_ne!(lists.number(&one), number, "not soon again");
        lists.take(&[]);
        assert_eq!(lists.number(&[]), 0);
    }

    #[test]
    fn what_is_adopted_keeps_its_number_and_what_nobody_has_goes() {
        let mut lists = Lists::default();
        let (one, two) = (list(&[1, 2]), list(&[3]));
        for list in [&one, &two] {
            assert_eq!(decode(&encode(list)), *list);
        }
        lists.adopt(7, one.clone());
        lists.adopt(9, two.clone());
        lists.take(&one);
        lists.settle();
        assert_eq!((lists.number(&one), lists.number(&two)), (7, 0));
        lists.take(&two);
        assert_eq!(lists.number(&two), 10);
    }
}
