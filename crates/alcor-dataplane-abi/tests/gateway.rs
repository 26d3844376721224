//! What a member takes: everything has an owner, owners have about as much each, and who goes moves only its own.

use alcor_dataplane_abi::gateway::{choose, flow_key, key};

fn member(number: u8) -> u64 {
    let mut address = [0; 16];
    address[..4].copy_from_slice(&[10, 0, 0, number]);
    key(&address)
}

fn flows() -> impl Iterator<Item = u64> {
    (0..20_000u32).map(|number| {
        let (mut source, mut destination) = ([0; 16], [0; 16]);
        source[..4].copy_from_slice(&[172, 16, 0, (number % 251) as u8]);
        destination[..4].copy_from_slice(&number.to_be_bytes());
        flow_key(&source, &destination)
    })
}

#[test]
fn nobody_takes_what_there_are_no_members_for() {
    assert_eq!(choose(7, []), None);
    assert_eq!(choose(7, [member(1)]), Some(0));
}

#[test]
fn members_take_about_as_much_each() {
    let members: Vec<u64> = (1..=10).map(member).collect();
    let mut taken = [0; 10];
    for flow in flows() {
        taken[choose(flow, members.iter().copied()).unwrap()] += 1;
    }
    for count in taken {
        assert!((1_700..=2_300).contains(&count), "{taken:?}");
    }
}

#[test]
fn who_goes_moves_only_its_own() {
    let members: Vec<u64> = (1..=10).map(member).collect();
    for gone in 0..10 {
        let mut fewer = members.clone();
        let lost = fewer.remove(gone);
        for flow in flows() {
            let before = members[choose(flow, members.iter().copied()).unwrap()];
            let after = fewer[choose(flow, fewer.iter().copied()).unwrap()];
            assert!(before == after || before == lost);
        }
    }
}
