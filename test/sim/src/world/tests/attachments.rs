use super::{Fixture, code};
use crate::{
    action::{
        AttachNetworkInterface, CreateNetworkInterface, CreateSubnet, DetachNetworkInterface, TerminateInstances,
    },
    world::model::AttachmentState,
};

#[test]
fn an_attachment_takes_its_time() {
    let mut cloud = Fixture::new("10.0.0.0/24");
    let (instance, eni) = (cloud.run("m5.large"), cloud.create(0));
    cloud.at(1000).attach(&eni, &instance, 1).unwrap();
    assert_eq!(cloud.eni(&eni).status(), "in-use");
    assert!(!cloud.at(1199).eni(&eni).is_plugged_in());
    assert!(cloud.at(1200).eni(&eni).is_plugged_in());
    assert_eq!(cloud.eni(&eni).attachment.unwrap().state, AttachmentState::Attached);
}

#[test]
fn a_pending_interface_is_attached_once_it_is_ready() {
    let mut cloud = Fixture::new("10.0.0.0/24");
    let (instance, eni) = (cloud.run("m5.large"), cloud.create(0));
    cloud.attach(&eni, &instance, 1).unwrap();
    assert!(!cloud.at(299).eni(&eni).is_plugged_in());
    assert!(cloud.at(300).eni(&eni).is_plugged_in());
}

#[test]
fn a_detachment_takes_its_time_and_frees_the_slot() {
    let mut cloud = Fixture::new("10.0.0.0/24");
    let (instance, eni) = (cloud.run("m5.large"), cloud.create(0));
    let attachment = cloud.attach(&eni, &instance, 1).unwrap().to_string();
    let detach = DetachNetworkInterface { attachment };
    cloud.at(1000).call(&detach).unwrap();
    assert_eq!(cloud.refusal(&detach), "IncorrectState");
    assert_eq!(cloud.at(1299).eni(&eni).status(), "in-use");
    assert_eq!(cloud.at(1300).eni(&eni).status(), "available");
    assert_eq!(cloud.refusal(&detach), "InvalidAttachmentID.NotFound");
    cloud.attach(&eni, &instance, 1).unwrap();
}

#[test]
fn detaching_what_is_still_attaching_wins() {
    let mut cloud = Fixture::new("10.0.0.0/24");
    let (instance, eni) = (cloud.run("m5.large"), cloud.create(0));
    let attachment = cloud.at(1000).attach(&eni, &instance, 1).unwrap().to_string();
    cloud.at(1100).call(&DetachNetworkInterface { attachment }).unwrap();
    assert_eq!(cloud.at(1250).eni(&eni).attachment.unwrap().state, AttachmentState::Detaching);
    assert_eq!(cloud.at(1400).eni(&eni).status(), "available");
}

#[test]
fn an_instance_takes_as_many_interfaces_as_its_type_allows() {
    let mut cloud = Fixture::new("10.0.0.0/24");
    let instance = cloud.run("m5.large");
    for device_index in 1..=2 {
        let eni = cloud.create(0);
        cloud.attach(&eni, &instance, device_index).unwrap();
    }
    let eni = cloud.create(0);
    assert_eq!(code(cloud.attach(&eni, &instance, 3)), "AttachmentLimitExceeded");
    assert_eq!(code(cloud.attach(&eni, &instance, 2)), "InvalidParameterValue");
}

#[test]
fn each_network_card_has_a_limit_of_its_own() {
    let mut cloud = Fixture::new("10.0.0.0/24");
    let instance = cloud.run("p5.48xlarge").to_string();
    let mut attach = |card, device_index| {
        let interface = cloud.create(0).to_string();
        cloud
            .call(&AttachNetworkInterface { interface, instance: instance.clone(), card, device_index })
            .map_err(|e| e.code().to_owned())
    };
    assert!(attach(31, 1).is_ok());
    assert!(attach(31, 2).is_ok());
    assert_eq!(attach(31, 3), Err("AttachmentLimitExceeded".to_owned()));
    assert_eq!(attach(32, 1), Err("InvalidParameterValue".to_owned()));
}

#[test]
fn an_attached_interface_cannot_be_attached_again() {
    let mut cloud = Fixture::new("10.0.0.0/24");
    let (instance, eni) = (cloud.run("m5.large"), cloud.create(0));
    cloud.attach(&eni, &instance, 1).unwrap();
    assert_eq!(code(cloud.attach(&eni, &instance, 2)), "InvalidNetworkInterface.InUse");
}

#[test]
fn the_primary_interface_stays() {
    let mut cloud = Fixture::new("10.0.0.0/24");
    let instance = cloud.run("m5.large");
    let primary = cloud.world.enis().find_map(|eni| eni.attachment.clone()).unwrap();
    assert_eq!((primary.instance, primary.delete_on_termination), (instance, true));
    let detach = DetachNetworkInterface { attachment: primary.id.to_string() };
    assert_eq!(cloud.refusal(&detach), "OperationNotPermitted");
}

#[test]
fn an_instance_must_run_and_be_in_the_same_zone() {
    let mut cloud = Fixture::new("10.0.0.0/24");
    let (instance, eni) = (cloud.run("m5.large"), cloud.create(0));
    let zone = CreateSubnet {
        vpc: cloud.vpc.clone(),
        cidr: "10.0.1.0/24".into(),
        availability_zone: Some("us-east-1b".into()),
        ..Default::default()
    };
    let subnet = cloud.call(&zone).unwrap().id.to_string();
    let elsewhere = cloud.call(&CreateNetworkInterface { subnet, ..Default::default() }).unwrap().id;
    assert_eq!(code(cloud.attach(&elsewhere, &instance, 1)), "InvalidParameterCombination");
    cloud.call(&TerminateInstances { ids: vec![instance.to_string()] }).unwrap();
    assert_eq!(code(cloud.attach(&eni, &instance, 1)), "IncorrectInstanceState");
    let nobody = "i-00000000000000000".parse().unwrap();
    assert_eq!(code(cloud.attach(&eni, &nobody, 1)), "InvalidInstanceID.NotFound");
}

#[test]
fn an_interface_with_too_many_addresses_cannot_be_attached() {
    let mut cloud = Fixture::new("10.0.0.0/24");
    let (instance, eni) = (cloud.run("m5.large"), cloud.create(10));
    assert_eq!(code(cloud.attach(&eni, &instance, 1)), "PrivateIpAddressLimitExceeded");
}

#[test]
fn the_version_grows_when_an_attachment_becomes_effective_by_time() {
    let mut cloud = Fixture::new("10.0.0.0/24");
    let (instance, eni) = (cloud.run("m5.large"), cloud.create(0));
    cloud.at(1000).attach(&eni, &instance, 1).unwrap();
    let before = cloud.world.version();
    let due = cloud.world.next_due().unwrap();
    assert_eq!(due.as_millis(), 1200);
    cloud.world.advance(due);
    assert!(cloud.world.version() > before);
    assert_eq!(cloud.world.next_due(), None);
}

#[test]
fn a_clock_that_jumps_skips_nothing_and_undoes_nothing() {
    let mut cloud = Fixture::new("10.0.0.0/24");
    let (instance, eni) = (cloud.run("m5.large"), cloud.create(0));
    cloud.attach(&eni, &instance, 1).unwrap();
    let state = |cloud: &mut Fixture, eni| cloud.eni(eni).attachment.map(|attachment| attachment.state);
    assert_eq!(state(cloud.at(10_000_000), &eni), Some(AttachmentState::Attached));
    assert_eq!(state(cloud.at(0), &eni), Some(AttachmentState::Attached));
    // What is begun while the clock is behind takes its time from the latest moment there was.
    let late = cloud.create(0);
    assert_eq!(cloud.at(10_000_099).eni(&late).status(), "pending");
    assert_eq!(cloud.at(10_000_100).eni(&late).status(), "available");
}
