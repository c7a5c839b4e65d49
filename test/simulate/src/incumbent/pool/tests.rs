use std::net::Ipv4Addr;

use ipam_core::ports::Cidr4;

use super::*;

fn at(second: u64) -> Moment {
    Moment::from_millis(second * 1000)
}

fn pool(warm: Warm) -> Pool {
    let limits = Limits { max_enis: 4, addresses_per_eni: 15, ..Limits::default() };
    Pool::new("eni-1".parse().unwrap(), warm, limits, at(0))
}

fn addresses(first: u8, count: u8) -> Holdings {
    Holdings {
        addresses: (first..first + count).map(|last| Ipv4Addr::new(10, 0, 0, last)).collect(),
        prefixes: vec![],
        prefixes6: vec![],
    }
}

fn eni(number: u8) -> EniId {
    format!("eni-{number}").parse().unwrap()
}

/// Source: the worked default of its documentation.
#[test]
fn a_fresh_node_fills_its_primary_eni_and_adds_one_when_the_first_pod_comes() {
    let mut pool = pool(Warm::Enis(1));
    assert_eq!(pool.wants(at(0)), Change::Assign(eni(1), Amount::Addresses(14)));
    pool.extend(&eni(1), &addresses(1, 14));
    assert_eq!(pool.wants(at(5)), Change::Nothing);
    assert!(pool.give(7, at(6), &mut Random::new(1)));
    assert_eq!(pool.wants(at(10)), Change::Create(Amount::Addresses(14)));
    pool.join(eni(2), "eni-attach-2".parse().unwrap(), &addresses(101, 14), at(15));
    assert_eq!(pool.wants(at(20)), Change::Nothing);
    // Available again: two whole ENIs, one of them too many; it must be a minute old.
    pool.take_back(7, at(21));
    assert_eq!(pool.wants(at(60)), Change::Nothing);
    assert_eq!(pool.wants(at(80)), Change::Free(eni(2), "eni-attach-2".parse().unwrap()));
}

#[test]
fn address_targets_are_met_exactly_and_resting_addresses_count_as_available() {
    let mut pool = pool(Warm::Addresses { warm: 2, minimum: 10 });
    assert_eq!(pool.wants(at(0)), Change::Assign(eni(1), Amount::Addresses(10)));
    pool.extend(&eni(1), &addresses(1, 10));
    for pod in 0..9 {
        assert!(pool.give(pod, at(1), &mut Random::new(2)));
    }
    assert_eq!(pool.wants(at(5)), Change::Assign(eni(1), Amount::Addresses(1)));
    pool.take_back(3, at(6));
    assert_eq!(pool.wants(at(10)), Change::Nothing);
    assert!(pool.give(10, at(11), &mut Random::new(3)));
    assert!(!pool.give(11, at(11), &mut Random::new(3)), "the other free address rests");
}

#[test]
fn what_is_over_the_address_targets_goes_back() {
    let mut pool = pool(Warm::Addresses { warm: 2, minimum: 0 });
    pool.extend(&eni(1), &addresses(1, 5));
    assert_eq!(pool.wants(at(100)), Change::Unassign(eni(1), addresses(1, 3)));
    pool.remove(&eni(1), &addresses(1, 3), at(100));
    assert_eq!(pool.wants(at(200)), Change::Nothing);
}

#[test]
fn one_spare_prefix_is_kept() {
    let mut pool = pool(Warm::Prefixes(1));
    assert_eq!(pool.wants(at(0)), Change::Assign(eni(1), Amount::Prefixes(1)));
    let prefix = |third| Cidr4 { network: Ipv4Addr::new(10, 0, third, 0), prefix: 28 };
    let holdings = |third| Holdings { addresses: vec![], prefixes: vec![prefix(third)], prefixes6: vec![] };
    pool.extend(&eni(1), &holdings(1));
    assert_eq!(pool.wants(at(5)), Change::Nothing);
    assert!(pool.give(1, at(6), &mut Random::new(1)));
    assert_eq!(pool.wants(at(10)), Change::Assign(eni(1), Amount::Prefixes(1)));
}
