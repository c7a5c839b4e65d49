use std::{collections::BTreeMap, time::Duration};

use ipam_core::Moment;

use super::Fixture;
use crate::{
    Failure, FaultRule, Weather, World, WorldConfig,
    action::{CreateNetworkInterface, DescribeNetworkInterfaces, DescribeVpcs, DryRun},
    world::Filter,
};

#[test]
fn a_refusal_on_demand_changes_nothing_and_is_used_up() {
    let mut cloud = Fixture::new("10.0.0.0/24");
    cloud.world.inject(FaultRule::refuse("CreateNetworkInterface", 2, "RequestLimitExceeded", 503));
    for _ in 0..2 {
        assert_eq!(cloud.refusal(&cloud.new_eni()), "RequestLimitExceeded");
    }
    assert_eq!(cloud.world.enis().count(), 0);
    assert!(cloud.call(&cloud.new_eni()).is_ok());
}

#[test]
fn a_lost_reply_may_or_may_not_have_had_its_effect() {
    let mut cloud = Fixture::new("10.0.0.0/24");
    cloud.world.inject(FaultRule::drop_before("CreateNetworkInterface", 1));
    cloud.world.inject(FaultRule::drop_after("CreateNetworkInterface", 1));
    assert_eq!(cloud.call(&cloud.new_eni()), Err(Failure::NoReply));
    assert_eq!(cloud.world.enis().count(), 0);
    assert_eq!(cloud.call(&cloud.new_eni()), Err(Failure::NoReply));
    assert_eq!(cloud.world.enis().count(), 1);
}

#[test]
fn a_slow_reply_says_how_slow() {
    let mut cloud = Fixture::new("10.0.0.0/24");
    cloud.world.inject(FaultRule::slow("*", 1, Duration::from_secs(2)));
    let (slow, quick) = (
        cloud.world.reply(&DescribeVpcs::default(), cloud.now),
        cloud.world.reply(&DescribeVpcs::default(), cloud.now),
    );
    assert!(slow.outcome.is_ok());
    assert_eq!((slow.delay, quick.delay), (Duration::from_secs(2), Duration::ZERO));
}

#[test]
fn the_log_tells_who_asked_what_when_and_how_it_ended() {
    let mut cloud = Fixture::new("10.0.0.0/24");
    cloud.world.inject(FaultRule::refuse("DescribeNetworkInterfaces", 1, "InternalError", 500));
    assert!(cloud.at(1500).call(&DescribeNetworkInterfaces::default()).is_err());
    let last = cloud.world.log().entries().next_back().unwrap();
    assert_eq!(
        (last.at.as_millis(), last.action, last.error.as_deref()),
        (1500, "DescribeNetworkInterfaces", Some("InternalError"))
    );
    assert_eq!((cloud.world.log().count("DescribeNetworkInterfaces"), cloud.world.log().total()), (1, 1));
    assert!(cloud.world.log().tail(1).starts_with("1.500s DescribeNetworkInterfaces"));
}

#[test]
fn an_account_that_asks_too_often_is_refused_until_it_has_waited() {
    let mut cloud = Fixture::new("10.0.0.0/20");
    let (new, mut passed) = (cloud.new_eni(), 0);
    while cloud.call(&new).is_ok() {
        passed += 1;
    }
    assert_eq!((passed, cloud.refusal(&new)), (100, "RequestLimitExceeded".to_owned()));
    assert_eq!(cloud.world.enis().count(), 100);
    assert_eq!(cloud.at(199).refusal(&new), "RequestLimitExceeded");
    assert!(cloud.at(200).call(&new).is_ok());
    // A clock that goes backwards brings no tokens.
    assert_eq!(cloud.at(0).refusal(&new), "RequestLimitExceeded");
    let last = cloud.world.log().entries().rev().nth(1).unwrap();
    assert_eq!((last.tokens_left, last.error.as_deref()), (Some(0), None));
}

#[test]
fn a_description_of_everything_has_a_smaller_budget() {
    let mut cloud = Fixture::new("10.0.0.0/24");
    let all = DescribeNetworkInterfaces::default();
    let filtered = DescribeNetworkInterfaces { filters: vec![Filter::new("status", "available")], ..all.clone() };
    let passed = |cloud: &mut Fixture, describe| (0..200).filter(|_| cloud.call(describe).is_ok()).count();
    assert_eq!((passed(&mut cloud, &all), passed(&mut cloud, &filtered)), (50, 100));
}

#[test]
fn whoever_arranges_the_scene_has_no_budget() {
    let mut cloud = Fixture::new("10.0.0.0/20");
    for _ in 0..300 {
        cloud.world.arrange(&cloud.new_eni(), cloud.now).unwrap();
    }
    assert_eq!(cloud.world.log().count("CreateNetworkInterface"), 0);
}

#[test]
fn an_action_without_permission_is_not_done() {
    let mut cloud = Fixture::new("10.0.0.0/24");
    cloud.world.deny("CreateNetworkInterface");
    assert_eq!(cloud.refusal(&cloud.new_eni()), "UnauthorizedOperation");
    assert_eq!(cloud.refusal(&DryRun(cloud.new_eni())), "UnauthorizedOperation");
    cloud.world.allow("CreateNetworkInterface");
    assert!(cloud.call(&cloud.new_eni()).is_ok());
}

#[test]
fn a_dry_run_says_what_would_have_happened_and_does_nothing() {
    let mut cloud = Fixture::new("10.0.0.0/28");
    assert_eq!(cloud.refusal(&DryRun(cloud.new_eni())), "DryRunOperation");
    let nowhere = CreateNetworkInterface { subnet: "subnet-00000000000000000".into(), ..Default::default() };
    assert_eq!(cloud.refusal(&DryRun(nowhere)), "InvalidSubnetID.NotFound");
    let many = CreateNetworkInterface { secondary_count: Some(11), ..cloud.new_eni() };
    assert_eq!(cloud.refusal(&DryRun(many)), "InsufficientFreeAddressesInSubnet");
    assert_eq!((cloud.free_addresses(), cloud.world.enis().count()), (11, 0));
}

#[test]
fn an_error_may_come_after_the_change_was_made() {
    let mut cloud = Fixture::new("10.0.0.0/24");
    cloud.world.inject(FaultRule::fail_after("CreateNetworkInterface", 1, "InternalError", 500));
    assert_eq!(cloud.refusal(&cloud.new_eni()), "InternalError");
    assert_eq!(cloud.world.enis().count(), 1);
}

#[test]
fn bad_weather_hits_as_many_calls_as_it_says_until_it_is_over() {
    let config = WorldConfig { weather: Weather::ROUGH, budget_percent: None, ..WorldConfig::default() };
    let mut world = World::new(config, Moment::from_millis(0));
    let mut ends: BTreeMap<String, u32> = BTreeMap::new();
    let mut slow = 0;
    for _ in 0..10_000 {
        let reply = world.reply(&DescribeVpcs::default(), Moment::from_millis(0));
        *ends.entry(reply.outcome.err().map_or("ok".to_owned(), |failure| failure.code().to_owned())).or_default() += 1;
        slow += u32::from(reply.delay > Duration::ZERO);
        assert!(reply.delay <= Weather::ROUGH.slowest);
    }
    let near = |count: u32, permille: u32| count.abs_diff(permille * 10) < 100;
    assert!(near(ends["RequestLimitExceeded"], 50) && near(ends["InternalError"], 30), "{ends:?}");
    assert!(near(ends["NoReply"], 40) && near(slow, 30), "{ends:?} {slow}");
    world.clear_faults();
    assert!((0..1000).all(|_| world.call(&DescribeVpcs::default(), Moment::from_millis(0)).is_ok()));
}
