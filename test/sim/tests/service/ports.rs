use std::time::Duration;

use ec2_sim::{Clock, Delays, FaultRule, SimCloud, WorldConfig, action::TerminateInstances};
use ipam_core::ports::{Amount, Change, Ec2, Ec2Error, Holdings, Imds, NewInterface, RefusalClass, Scope};

use super::cloud;

fn new_interface(subnet: &ipam_core::SubnetId, instance: &ipam_core::InstanceId) -> NewInterface {
    NewInterface {
        prefix6: false,
        token: "t".into(),
        subnet: subnet.clone(),
        security_groups: vec![],
        amount: Amount::Addresses(3),
        description: "of a test".into(),
        tags: [("node.k8s.amazonaws.com/instance_id".to_owned(), instance.to_string())].into(),
    }
}

#[tokio::test]
async fn an_interface_lives_its_life_under_virtual_time() {
    let (cloud, hand, subnet) = cloud(Delays::default());
    let instance = cloud.run_instance("m5.large", &subnet).unwrap();
    let made = cloud.create_interface(&new_interface(&subnet, &instance)).await.unwrap();
    assert_eq!((made.secondary.len(), &made.attachment), (3, &None));
    assert!(made.secondary.is_sorted());
    assert_eq!(cloud.create_interface(&new_interface(&subnet, &instance)).await.unwrap().id, made.id);

    let attachment = cloud.attach_interface(&made.id, &instance, 0, 1).await.unwrap();
    let state = async || {
        let mut found = cloud.interfaces(&instance, Scope::Tagged).await.unwrap();
        assert!(found.len() == 1, "{found:?}");
        found.remove(0)
    };
    assert_eq!(cloud.interfaces(&instance, Scope::Attached).await.unwrap().len(), 2);
    assert!(!state().await.attachment.unwrap().attached);
    hand.advance(Duration::from_secs(2));
    assert!(state().await.attachment.unwrap().attached);

    cloud.modify_interface(&made.id, &Change::DeleteOnTermination(attachment.clone())).await.unwrap();
    let assigned = cloud.assign(&made.id, Amount::Addresses(2)).await.unwrap();
    assert_eq!(assigned.addresses.len(), 2);
    let all = Holdings { addresses: made.secondary.clone(), ..Holdings::default() };
    cloud.unassign(&made.id, &all).await.unwrap();
    let now = state().await;
    assert!(now.attachment.unwrap().delete_on_termination);
    assert_eq!(now.secondary.len(), 2);
    let node = cloud.instance(&instance).identity().await.unwrap();
    let subnets = cloud.subnets(&node.vpc, &node.zone).await.unwrap();
    assert_eq!(
        subnets.iter().map(|found| (&found.id, found.available_addresses)).collect::<Vec<_>>(),
        [(&subnet, 251 - 4)]
    );

    cloud.detach_interface(&attachment).await.unwrap();
    hand.advance(Duration::from_secs(2));
    // Detached, but tagged as made for the instance: it is still found.
    assert_eq!(state().await.attachment, None);
    cloud.delete_interface(&made.id).await.unwrap();
    assert_eq!(cloud.interfaces(&instance, Scope::Tagged).await.unwrap(), []);
}

#[tokio::test]
async fn prefixes_come_and_go() {
    let (cloud, _, subnet) = cloud(Delays::NONE);
    let instance = cloud.run_instance("t3.small", &subnet).unwrap();
    let new = NewInterface { amount: Amount::Prefixes(2), ..new_interface(&subnet, &instance) };
    let made = cloud.create_interface(&new).await.unwrap();
    assert_eq!((made.secondary.len(), made.prefixes.len(), made.addresses().count()), (0, 2, 32));
    cloud.attach_interface(&made.id, &instance, 0, 1).await.unwrap();
    let more = cloud.assign(&made.id, Amount::Prefixes(1)).await.unwrap();
    assert_eq!((more.addresses.len(), more.prefixes.len()), (0, 1));
    let over = cloud.assign(&made.id, Amount::Prefixes(1)).await;
    assert!(matches!(over, Err(Ec2Error::Refused { class: RefusalClass::LimitReached, .. })), "{over:?}");
    cloud.unassign(&made.id, &Holdings { prefixes: made.prefixes.clone(), ..Holdings::default() }).await.unwrap();
    let now = cloud.interfaces(&instance, Scope::Tagged).await.unwrap().remove(0);
    assert_eq!(now.prefixes, more.prefixes);
}

#[tokio::test]
async fn a_refusal_comes_with_its_class_and_a_lost_reply_as_unknown() {
    let (cloud, _, subnet) = cloud(Delays::NONE);
    let instance = cloud.run_instance("m5.large", &subnet).unwrap();
    let made = cloud.create_interface(&new_interface(&subnet, &instance)).await.unwrap();
    cloud.attach_interface(&made.id, &instance, 0, 1).await.unwrap();
    let refused = cloud.assign(&made.id, Amount::Addresses(7)).await;
    assert!(
        matches!(
            &refused,
            Err(Ec2Error::Refused { action: "AssignPrivateIpAddresses", class: RefusalClass::LimitReached, .. })
        ),
        "{refused:?}"
    );
    cloud.with(|world, _| world.inject(FaultRule::drop_after("AssignPrivateIpAddresses", 1)));
    let lost = cloud.assign(&made.id, Amount::Addresses(1)).await;
    assert!(matches!(lost, Err(Ec2Error::Unknown { action: "AssignPrivateIpAddresses", .. })), "{lost:?}");
    let secondary: usize =
        cloud.interfaces(&instance, Scope::Attached).await.unwrap().iter().map(|eni| eni.secondary.len()).sum();
    assert_eq!(secondary, 4);
}

#[tokio::test]
async fn an_instance_knows_itself_while_it_runs() {
    let (cloud, _, subnet) = cloud(Delays::NONE);
    let id = cloud.run_instance("m5.large", &subnet).unwrap();
    let identity = cloud.instance(&id).identity().await.unwrap();
    assert_eq!((&identity.instance, &identity.subnet, identity.region.as_str()), (&id, &subnet, "us-east-1"));
    let primary = cloud.interfaces(&id, Scope::Attached).await.unwrap().remove(0);
    assert_eq!((identity.primary_eni, identity.primary_mac), (primary.id, primary.mac));
    assert_eq!((identity.vpc_cidrs.len(), identity.security_groups.len()), (1, 1));
    cloud.call(&TerminateInstances { ids: vec![id.to_string()] }).unwrap();
    assert!(cloud.instance(&id).identity().await.is_err());
}

#[tokio::test]
async fn a_host_is_told_when_an_attachment_becomes_effective() {
    let cloud = SimCloud::new(WorldConfig::default(), Clock::wall());
    let subnet = cloud.demo_vpc("10.0.0.0/16", &["10.0.0.0/24"]).unwrap().subnets.remove(0);
    let instance = cloud.run_instance("m5.large", &subnet).unwrap();
    let driver = cloud.clone();
    let driver = tokio::spawn(async move { driver.drive().await });
    let mut changes = cloud.changes();
    let made = cloud.create_interface(&new_interface(&subnet, &instance)).await.unwrap();
    cloud.attach_interface(&made.id, &instance, 0, 1).await.unwrap();
    let plugged_in = || cloud.with(|world, _| world.enis().any(|eni| eni.id == made.id && eni.is_plugged_in()));
    assert!(!plugged_in());
    let told = async {
        while !plugged_in() {
            changes.changed().await.unwrap();
        }
    };
    tokio::time::timeout(Duration::from_secs(10), told).await.unwrap();
    driver.abort();
}
