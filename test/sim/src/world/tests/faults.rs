use std::time::Duration;

use super::Fixture;
use crate::{
    Failure, FaultRule,
    action::{DescribeNetworkInterfaces, DescribeVpcs},
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
    assert_eq!((cloud.world.log().count("DescribeNetworkInterfaces"), cloud.world.log().total()), (1, 3));
    assert!(cloud.world.log().tail(1).starts_with("1.500s DescribeNetworkInterfaces"));
}
