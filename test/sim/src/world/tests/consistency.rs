use ipam_core::EniId;

use super::{Fixture, code};
use crate::{
    DelayRange, Delays, Lags, WorldConfig,
    action::{
        AssignPrivateIpAddresses, CreateTags, DeleteNetworkInterface, DescribeNetworkInterfaces, DescribeSubnets,
        DetachNetworkInterface,
    },
    world::{Filter, Paging},
};

/// Everything happens at once, and is told late.
fn late(lags: Lags) -> Fixture {
    Fixture::with(WorldConfig { delays: Delays::NONE, lags, ..WorldConfig::default() }, "10.0.0.0/24")
}

const SECOND: DelayRange = DelayRange::millis(1000, 1000);

impl Fixture {
    fn described(&mut self, eni: &EniId) -> Result<crate::world::model::Eni, crate::Failure> {
        let describe = DescribeNetworkInterfaces { ids: vec![eni.to_string()], ..Default::default() };
        self.call(&describe).map(|mut page| page.items.remove(0))
    }

    fn found(&mut self, filter: Filter) -> usize {
        self.call(&DescribeNetworkInterfaces { filters: vec![filter], ..Default::default() }).unwrap().items.len()
    }
}

#[test]
fn a_new_interface_is_not_found_at_first() {
    let mut cloud = late(Lags { describe: SECOND, ..Lags::NONE });
    let instance = cloud.run("m5.large");
    let eni = cloud.create(1);
    assert_eq!(code(cloud.described(&eni)), "InvalidNetworkInterfaceID.NotFound");
    assert_eq!(cloud.found(Filter::new("network-interface-id", eni.as_str())), 0);
    assert_eq!(code(cloud.attach(&eni, &instance, 1)), "InvalidNetworkInterfaceID.NotFound");
    assert_eq!(cloud.at(1000).described(&eni).unwrap().secondary.len(), 1);
    cloud.attach(&eni, &instance, 1).unwrap();
}

#[test]
fn a_change_is_told_late() {
    let mut cloud = late(Lags { describe: SECOND, ..Lags::NONE });
    let eni = cloud.create(1);
    let interface = eni.to_string();
    cloud.at(1000).call(&AssignPrivateIpAddresses { interface, count: Some(2), ..Default::default() }).unwrap();
    assert_eq!(cloud.at(1999).described(&eni).unwrap().secondary.len(), 1);
    assert_eq!(cloud.at(2000).described(&eni).unwrap().secondary.len(), 3);
    let instance = cloud.run("m5.large");
    let attachment = cloud.attach(&eni, &instance, 1).unwrap().to_string();
    let detach = DetachNetworkInterface { attachment };
    assert_eq!(cloud.refusal(&detach), "InvalidAttachmentID.NotFound");
    assert_eq!(cloud.described(&eni).unwrap().attachment, None);
    cloud.at(3000).call(&detach).unwrap();
}

#[test]
fn a_deleted_interface_is_still_told_of() {
    let mut cloud = late(Lags { describe: SECOND, ..Lags::NONE });
    let eni = cloud.create(0);
    let delete = DeleteNetworkInterface { interface: eni.to_string() };
    cloud.at(1000).call(&delete).unwrap();
    assert!(cloud.described(&eni).is_ok());
    assert_eq!(cloud.refusal(&delete), "InvalidNetworkInterfaceID.NotFound");
    assert_eq!(cloud.free_addresses(), 251);
    assert_eq!(code(cloud.at(2000).described(&eni)), "InvalidNetworkInterfaceID.NotFound");
}

#[test]
fn a_deletion_takes_its_time() {
    let exactly = |millis| DelayRange::millis(millis, millis);
    let delays = Delays { delete: exactly(500), ..Delays::NONE };
    let mut cloud = Fixture::with(WorldConfig { delays, ..WorldConfig::default() }, "10.0.0.0/24");
    let (eni, instance) = (cloud.create(0), cloud.run("m5.large"));
    let delete = DeleteNetworkInterface { interface: eni.to_string() };
    cloud.call(&delete).unwrap();
    assert_eq!((cloud.described(&eni).unwrap().status(), cloud.free_addresses()), ("available", 249));
    assert_eq!(code(cloud.attach(&eni, &instance, 1)), "InvalidNetworkInterfaceID.NotFound");
    assert_eq!(
        (code(cloud.at(500).described(&eni)), cloud.free_addresses()),
        ("InvalidNetworkInterfaceID.NotFound".into(), 250)
    );
}

#[test]
fn filters_know_of_tags_later_than_the_interface_does() {
    let mut cloud = late(Lags { filters: SECOND, ..Lags::NONE });
    let eni = cloud.create(0);
    let tags = [("colour".to_owned(), "red".to_owned())].into();
    cloud.at(1000).call(&CreateTags { resources: vec![eni.to_string()], tags }).unwrap();
    assert_eq!(cloud.described(&eni).unwrap().tags.len(), 1);
    assert_eq!(cloud.found(Filter::new("tag:colour", "red")), 0);
    assert_eq!(cloud.at(2000).found(Filter::new("tag:colour", "red")), 1);
    assert_eq!(cloud.found(Filter::new("tag:colour", "r*")), 1);
}

#[test]
fn pages_may_be_of_different_times() {
    let mut cloud = late(Lags::NONE);
    for _ in 0..8 {
        cloud.create(0);
    }
    let page = |next_token| DescribeNetworkInterfaces {
        paging: Paging { max_results: Some(5), next_token },
        ..Default::default()
    };
    let first = cloud.call(&page(None)).unwrap();
    for eni in cloud.call(&page(first.next_token.clone())).unwrap().items {
        cloud.call(&DeleteNetworkInterface { interface: eni.id.to_string() }).unwrap();
    }
    let second = cloud.call(&page(first.next_token)).unwrap();
    assert_eq!((first.items.len(), second.items.len(), second.next_token), (5, 0, None));
}

#[test]
fn the_count_of_free_addresses_is_told_late() {
    let mut cloud = late(Lags { available: SECOND, ..Lags::NONE });
    let told = |cloud: &mut Fixture| cloud.call(&DescribeSubnets::default()).unwrap().items[0].available;
    cloud.create(9);
    assert_eq!(told(cloud.at(999)), 251);
    assert_eq!(told(cloud.at(1000)), 241);
}

#[test]
fn the_metadata_service_is_late_and_remembers_what_has_left() {
    let ghost = DelayRange::millis(300_000, 300_000);
    let mut cloud = late(Lags { metadata: SECOND, ghost, ..Lags::NONE });
    let (instance, eni) = (cloud.run("m5.large"), cloud.create(1));
    let attachment = cloud.attach(&eni, &instance, 1).unwrap().to_string();
    let mac = cloud.eni(&eni).mac;
    let seen = |cloud: &mut Fixture, at| {
        let now = cloud.at(at).now;
        cloud.world.advance(now);
        let metadata = cloud.world.metadata(&instance).unwrap();
        (metadata.interfaces.len(), metadata.ghosts)
    };
    assert_eq!(seen(&mut cloud, 999), (1, vec![]));
    assert_eq!(seen(&mut cloud, 1000), (2, vec![]));
    cloud.call(&DetachNetworkInterface { attachment }).unwrap();
    assert_eq!(seen(&mut cloud, 1999), (2, vec![mac]));
    assert_eq!(seen(&mut cloud, 2000), (1, vec![mac]));
    assert_eq!(seen(&mut cloud, 301_000), (1, vec![]));
}

#[test]
fn in_the_end_what_is_told_is_what_is() {
    for seed in 0..5 {
        let config = WorldConfig { seed, delays: Delays::REAL, lags: Lags::REAL, ..WorldConfig::default() };
        let mut cloud = super::random::run(config, seed, 300);
        let later = cloud.now.as_millis() + 600_000;
        let told = cloud.at(later).call(&DescribeNetworkInterfaces::default()).unwrap().items;
        let all: Vec<_> = cloud.world.enis().cloned().collect();
        assert_eq!(told, all);
        let subnet = cloud.call(&DescribeSubnets::default()).unwrap().items.remove(0);
        let used: usize = all.iter().map(|eni| eni.addresses().count() + 16 * eni.prefixes.len()).sum();
        assert_eq!(subnet.available, 123 - used);
    }
}

#[test]
fn one_delay_in_a_hundred_is_long() {
    let mut cloud = late(Lags::NONE);
    let range = DelayRange::millis(10, 20).up_to(1000);
    let draws: Vec<_> = (0..10_000).map(|_| cloud.world.state.draw(range).as_millis()).collect();
    let long = draws.iter().filter(|millis| **millis > 20).count();
    assert!((50..200).contains(&long), "{long}");
    assert!(draws.iter().all(|millis| (10..=1000).contains(millis)));
}
