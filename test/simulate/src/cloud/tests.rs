use ipam_core::ports::PREFIX_SIZE;

use super::*;

fn at(second: u64) -> Moment {
    Moment::from_millis(second * 1000)
}

fn cloud() -> (Cloud, NodeIdentity) {
    let limits = Limits { max_enis: 3, addresses_per_eni: 4, ..Limits::default() };
    let mut cloud = Cloud::new(1, limits, at(0));
    let (_, identity) = cloud.launch("t3.small");
    (cloud, identity)
}

fn create(cloud: &mut Cloud, amount: Amount) -> Interface {
    let action = Action::Create { subnet: cloud.subnet(), security_groups: vec![], amount, prefix6: false };
    match cloud.carry_out(0, &action, at(0)).outcome {
        Ok(Done::Created(interface)) => interface,
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_eni_carries_no_more_than_its_instance_type_allows() {
    let (mut cloud, node) = cloud();
    let assign = |amount| Action::Assign { eni: node.primary_eni.clone(), amount };
    assert!(cloud.carry_out(0, &assign(Amount::Addresses(2)), at(0)).outcome.is_ok());
    assert!(cloud.carry_out(0, &assign(Amount::Prefixes(2)), at(0)).outcome.is_err());
    assert!(cloud.carry_out(0, &assign(Amount::Prefixes(1)), at(0)).outcome.is_ok());
    assert_eq!(cloud.held.value(), 2 + i64::try_from(PREFIX_SIZE).unwrap());
}

#[test]
fn an_eni_is_attached_after_a_while_and_gone_a_while_after_detaching() {
    let (mut cloud, _) = cloud();
    let eni = create(&mut cloud, Amount::Addresses(3)).id;
    let attach = Action::Attach { eni: eni.clone(), card: 0, device_index: 1 };
    let Ok(Done::Attached(attachment)) = cloud.carry_out(0, &attach, at(1)).outcome else { panic!() };
    let attached = cloud.attached_at(0, &eni).unwrap();
    let mut shows = |now: Moment| {
        let described = cloud.describe(0, Scope::Attached, now).outcome.unwrap();
        described.into_iter().find(|interface| interface.id == eni).map(|found| found.attachment.unwrap().attached)
    };
    assert!(attached > at(1));
    assert_eq!(shows(at(1)), Some(false));
    assert_eq!(shows(attached), Some(true));
    let detach = Action::Detach { eni: eni.clone(), attachment };
    assert!(cloud.carry_out(0, &detach, at(100)).outcome.is_ok());
    let delete = Action::Delete { eni };
    assert!(cloud.carry_out(0, &delete, at(100)).outcome.is_err());
    assert!(cloud.carry_out(0, &delete, at(160)).outcome.is_ok());
    assert_eq!(cloud.held.value(), 0);
}

#[test]
fn a_taken_slot_and_one_eni_too_many_are_refused() {
    let (mut cloud, _) = cloud();
    let mut attach = |device_index| {
        let eni = create(&mut cloud, Amount::Addresses(0)).id;
        cloud.carry_out(0, &Action::Attach { eni, card: 0, device_index }, at(0)).outcome.is_ok()
    };
    assert_eq!([0, 1, 1, 2, 3].map(&mut attach), [false, true, false, true, false]);
}

#[test]
fn what_the_budget_does_not_cover_changes_nothing() {
    let (mut cloud, node) = cloud();
    while cloud.account.take(Api::AssignPrivateIpAddresses, at(0)) {}
    let assign = Action::Assign { eni: node.primary_eni, amount: Amount::Addresses(1) };
    let Err(error) = cloud.carry_out(0, &assign, at(0)).outcome else { panic!() };
    assert_eq!(ipam_core::retry::class(&error), Some(RefusalClass::SlowDown));
    assert_eq!(cloud.held.value(), 0);
}
