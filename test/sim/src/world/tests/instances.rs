use super::Fixture;
use crate::{
    action::{
        Change, DescribeInstanceTypes, DescribeInstances, ModifyNetworkInterfaceAttribute, RunInstances,
        TerminateInstances,
    },
    world::{Filter, Paging, model::InstanceState},
};

#[test]
fn a_terminated_instance_takes_only_what_shall_go_with_it() {
    let mut cloud = Fixture::new("10.0.0.0/24");
    let instance = cloud.run("m5.xlarge");
    let (stays, goes) = (cloud.create(2), cloud.create(2));
    cloud.attach(&stays, &instance, 1).unwrap();
    let attachment = cloud.attach(&goes, &instance, 2).unwrap().to_string();
    let change = Change::DeleteOnTermination { attachment, value: true };
    cloud.call(&ModifyNetworkInterfaceAttribute { interface: goes.to_string(), change }).unwrap();

    let changes = cloud.at(1000).call(&TerminateInstances { ids: vec![instance.to_string()] }).unwrap();
    assert_eq!((changes[0].previous, changes[0].current), (InstanceState::Running, InstanceState::ShuttingDown));
    assert_eq!(cloud.at(1399).eni(&goes).status(), "in-use");
    assert_eq!(cloud.at(1400).eni(&stays).status(), "available");
    assert_eq!(cloud.world.enis().count(), 1);
    assert_eq!(cloud.free_addresses(), 251 - 3);
}

#[test]
fn a_launch_makes_a_primary_interface_or_nothing() {
    let mut cloud = Fixture::new("10.0.0.0/28");
    let run = RunInstances { subnet: Some(cloud.subnet.to_string()), ..Default::default() };
    let made = cloud.call(&RunInstances { count: 2, secondary_count: 1, ..run.clone() }).unwrap();
    assert_eq!(made.iter().map(|one| one.interfaces.len()).collect::<Vec<_>>(), [1, 1]);
    assert_eq!(cloud.free_addresses(), 7);
    assert_eq!(cloud.refusal(&RunInstances { count: 8, ..run.clone() }), "InsufficientFreeAddressesInSubnet");
    assert_eq!(cloud.world.instances().count(), 2);
    assert_eq!(
        cloud.refusal(&RunInstances { instance_type: "m5.huge".into(), ..run.clone() }),
        "InvalidParameterValue"
    );
    let many = RunInstances { secondary_count: 15, ..run };
    assert_eq!(cloud.refusal(&many), "InvalidInterface.IpAddressLimitExceeded");
}

#[test]
fn the_same_client_token_gives_the_same_instances() {
    let mut cloud = Fixture::new("10.0.0.0/24");
    let run = RunInstances { client_token: Some("t".into()), ..Default::default() };
    let first = cloud.call(&run).unwrap()[0].instance.id.clone();
    assert_eq!(cloud.call(&run).unwrap()[0].instance.id, first);
    assert_eq!(cloud.refusal(&RunInstances { count: 2, ..run }), "IdempotentParameterMismatch");
}

#[test]
fn instances_are_found_by_state_and_address() {
    let mut cloud = Fixture::new("10.0.0.0/24");
    let (one, two) = (cloud.run("m5.large"), cloud.run("m5.xlarge"));
    cloud.call(&TerminateInstances { ids: vec![one.to_string()] }).unwrap();
    let running =
        DescribeInstances { filters: vec![Filter::new("instance-state-name", "running")], ..Default::default() };
    let found = cloud.call(&running).unwrap().items;
    assert_eq!(found.iter().map(|one| &one.instance.id).collect::<Vec<_>>(), [&two]);
    let address = found[0].interfaces[0].primary.unwrap().to_string();
    let by_address =
        DescribeInstances { filters: vec![Filter::new("private-ip-address", &address)], ..Default::default() };
    assert_eq!(cloud.call(&by_address).unwrap().items[0].instance.id, two);
}

#[test]
fn instance_types_come_in_pages_of_at_most_a_hundred() {
    let mut cloud = Fixture::new("10.0.0.0/24");
    let mut describe = DescribeInstanceTypes::default();
    let mut count = 0;
    loop {
        let page = cloud.call(&describe).unwrap();
        assert!(page.items.len() <= 100);
        count += page.items.len();
        let Some(token) = page.next_token else { break };
        describe.paging = Paging { max_results: None, next_token: Some(token) };
    }
    assert_eq!(count, crate::world::catalogue::all().len());
    let unknown = DescribeInstanceTypes { names: vec!["m5.huge".into()], ..Default::default() };
    assert_eq!(cloud.refusal(&unknown), "InvalidInstanceType");
}
