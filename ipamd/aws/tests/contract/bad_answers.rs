//! What the ports make of answers that cannot be right: they report them, with what was expected. Nothing panics.

use std::fmt::Debug;

use ec2_sim::{
    FaultRule, Spoil,
    action::{CreateNetworkInterface, CreateSubnet, CreateVpc},
    imds::{self, MetadataEffect, MetadataFault, MetadataFaults},
};
use ipam_aws::{AwsEc2, AwsImds};
use ipam_core::{
    EniId,
    ports::{Amount, Change, Ec2, Ec2Error, Ec2Result, Holdings, Imds, NewInterface, Scope},
};
use tokio::net::TcpListener;

use crate::clouds::{World, settings};

const DESCRIBE: &str = "DescribeNetworkInterfaces";

fn new_interface(world: &World, token: &str) -> NewInterface {
    NewInterface {
        prefix6: false,
        token: token.to_owned(),
        subnet: world.subnet.clone(),
        security_groups: vec![world.group.clone()],
        amount: Amount::Addresses(2),
        description: String::new(),
        tags: [("node.k8s.amazonaws.com/instance_id".to_owned(), world.instance.to_string())].into(),
    }
}

/// The next call of `action` is answered so.
fn spoil(world: &World, action: &str, spoil: Spoil) {
    world.sim.as_ref().unwrap().with(|cloud, _| cloud.inject(FaultRule::spoil(action, 1, spoil)));
}

/// What is said of a call whose outcome must be unknown.
fn report<T: Debug>(outcome: Ec2Result<T>) -> String {
    match outcome {
        Err(Ec2Error::Unknown { reason, .. }) => reason,
        other => panic!("{other:?}"),
    }
}

fn without(name: &str) -> Spoil {
    Spoil::Without(name.to_owned())
}

fn with(name: &str, value: &str) -> Spoil {
    Spoil::With(name.to_owned(), value.to_owned())
}

#[tokio::test]
async fn a_description_that_cannot_be_right_is_reported_with_what_was_expected() {
    let world = World::simulated().await.unwrap();
    #[rustfmt::skip]
    let table = [
        (without("networkInterfaceId"),        "NetworkInterfaceId of something without id is absent; expected an id as eni-0123abcd"),
        (without("macAddress"),                "is absent; expected six bytes as 02:00:00:00:00:01"),
        (without("subnetId"),                  "is absent; expected an id as subnet-0123abcd"),
        (without("privateIpAddress"),          "is absent; expected an IPv4 address"),
        (without("privateIpAddressesSet"),     "is `[]`; expected IPv4 addresses, the primary among them"),
        (without("attachmentId"),              "is absent; expected an id as eni-attach-0123abcd"),
        (without("deviceIndex"),               "is absent; expected a number in 0..=255"),
        (without("status"),                    "is absent; expected attaching, attached, detaching or detached"),
        (with("status", "levitating"),         "is `levitating`; expected attaching, attached, detaching or detached"),
        (with("deviceIndex", "-7"),            "is `-7`; expected a number in 0..=255"),
        (with("privateIpAddress", "10.0.0.256"), "is `10.0.0.256`; expected an IPv4 address"),
        (with("macAddress", "many"),           "is `many`; expected six bytes"),
        // Where the SDK itself finds the mistake, it says what it looked for.
        (with("deviceIndex", "many"),          "expected (integer: `com.amazonaws.ec2#Integer`)"),
        (with("deleteOnTermination", "maybe"), "expected (boolean: `com.amazonaws.ec2#Boolean`)"),
        (Spoil::Body("<html></html>".into()),  "expected DescribeNetworkInterfacesResponse"),
        (Spoil::Body("{\"no\":1}".into()),     "XML"),
        (Spoil::Body(String::new()),           "XML"),
    ];
    for (how, wanted) in table {
        spoil(&world, DESCRIBE, how.clone());
        let said = report(world.ec2.interfaces(&world.instance, Scope::Attached).await);
        assert!(said.contains(wanted), "{how:?}: {said}");
    }
    world.ec2.interfaces(&world.instance, Scope::Attached).await.unwrap();
}

#[tokio::test]
async fn an_answer_that_ends_early_is_never_taken_for_all() {
    let world = World::simulated().await.unwrap();
    for share in (0..1000).step_by(11) {
        // One of its own, with all of its budget.
        let ec2 = AwsEc2::new(settings(&world.endpoint, "AKIA"));
        spoil(&world, DESCRIBE, Spoil::Cut(share));
        report(ec2.interfaces(&world.instance, Scope::Attached).await);
    }
    for body in ["", "<html></html>", "<DeleteNetworkInterfaceResponse><return>tr"] {
        let eni = world.ec2.create_interface(&new_interface(&world, &format!("token-{body}"))).await.unwrap().id;
        spoil(&world, "DeleteNetworkInterface", Spoil::Body(body.to_owned()));
        let said = report(world.ec2.delete_interface(&eni).await);
        assert!(said.contains("expected a whole XML answer, got "), "{body}: {said}");
    }
}

#[tokio::test]
async fn an_address_that_two_interfaces_claim_is_reported() {
    let world = World::simulated().await.unwrap();
    for token in ["one", "other"] {
        world.ec2.create_interface(&new_interface(&world, token)).await.unwrap();
    }
    spoil(&world, DESCRIBE, with("privateIpAddress", "10.0.1.77"));
    let said = report(world.ec2.interfaces(&world.instance, Scope::Tagged).await);
    assert!(said.contains("the place of 10.0.1.77 is on eni-"), "{said}");
    assert!(said.ends_with("; expected one ENI for each address"), "{said}");
}

#[tokio::test]
async fn an_interface_that_we_do_not_know_is_told_as_it_is() {
    let world = World::simulated().await.unwrap();
    let made = world.ec2.create_interface(&new_interface(&world, "one")).await.unwrap();
    let stranger: EniId = "eni-0123456789abcdef0".parse().unwrap();
    spoil(&world, DESCRIBE, with("networkInterfaceId", stranger.as_str()));
    let told = world.ec2.interfaces(&world.instance, Scope::Tagged).await.unwrap();
    assert_eq!((told[0].id.clone(), told[0].mac), (stranger, made.mac));
}

#[tokio::test]
async fn an_answer_to_a_change_that_cannot_be_right_leaves_its_outcome_unknown() {
    let world = World::simulated().await.unwrap();
    spoil(&world, "CreateNetworkInterface", without("networkInterface"));
    let new = new_interface(&world, "one");
    assert_eq!(report(world.ec2.create_interface(&new).await), "the answer is empty");
    let eni = world.ec2.create_interface(&new).await.unwrap().id;

    spoil(&world, "AssignPrivateIpAddresses", without("assignedPrivateIpAddressesSet"));
    let said = report(world.ec2.assign(&eni, Amount::Addresses(3)).await);
    assert_eq!(said, "asked for 3 and told of 0; expected all or none");
    spoil(&world, "AssignPrivateIpAddresses", with("privateIpAddress", "ten"));
    let said = report(world.ec2.assign(&eni, Amount::Addresses(1)).await);
    assert!(said.contains("is `ten`; expected IPv4 addresses"), "{said}");

    spoil(&world, "AttachNetworkInterface", with("attachmentId", "?"));
    let said = report(world.ec2.attach_interface(&eni, &world.instance, 0, 1).await);
    assert!(said.contains("`?` is not an id of the form `eni-attach-"), "{said}");

    spoil(&world, "DescribeInstanceTypes", with("maximumNetworkInterfaces", "0"));
    let said = report(world.ec2.limits("m5.xlarge").await);
    assert!(said.contains("MaximumNetworkInterfaces of m5.xlarge is `0`; expected a number in 1..=255"), "{said}");
    spoil(&world, "DescribeSubnets", with("cidrBlock", "10.0.1.1/24"));
    let said = report(world.ec2.subnets(&world.vpc.parse().unwrap(), "us-east-1a").await);
    assert!(said.contains("is `10.0.1.1/24`; expected a network as 10.0.0.0/16 without host bits"), "{said}");
}

#[tokio::test]
async fn a_description_is_read_page_by_page_to_its_end() {
    let world = World::simulated().await.unwrap();
    let sim = world.sim.as_ref().unwrap();
    let vpc = sim.arrange(&CreateVpc { cidr: "10.9.0.0/16".into(), ..Default::default() }).unwrap().id.to_string();
    let subnet = CreateSubnet { vpc, cidr: "10.9.0.0/20".into(), ..Default::default() };
    let subnet = sim.arrange(&subnet).unwrap().id.to_string();
    let tags = new_interface(&world, "").tags;
    for _ in 0..1001 {
        let (subnet, tags) = (subnet.clone(), tags.clone());
        sim.arrange(&CreateNetworkInterface { subnet, tags, ..Default::default() }).unwrap();
    }
    let asked = || sim.with(|cloud, _| cloud.log().count(DESCRIBE));
    let before = asked();
    let found = world.ec2.interfaces(&world.instance, Scope::Tagged).await.unwrap();
    assert_eq!((found.len(), asked() - before), (1001, 2));
}

/// How many ways to spoil each answer are tried.
const SEEDS: u64 = 30;

#[tokio::test]
async fn no_answer_whatever_makes_a_port_panic() {
    let world = World::simulated().await.unwrap();
    let sim = world.sim.as_ref().unwrap();
    let (mut good, mut unknown, mut refused) = (0, 0, 0);
    let mut count = |outcome: Ec2Result<()>| match outcome {
        Ok(()) => good += 1,
        Err(Ec2Error::Unknown { .. }) => unknown += 1,
        Err(Ec2Error::Refused { .. }) => refused += 1,
    };
    for seed in 0..SEEDS {
        // One of its own for each seed, with all of its budget.
        let ec2 = &AwsEc2::new(settings(&world.endpoint, "AKIA"));
        let eni = ec2.create_interface(&new_interface(&world, &format!("sound-{seed}"))).await.unwrap();
        sim.with(|cloud, _| cloud.inject(FaultRule::spoil("*", 10, Spoil::Any(seed))));
        for scope in [Scope::Attached, Scope::Tagged] {
            count(ec2.interfaces(&world.instance, scope).await.map(drop));
        }
        count(ec2.subnets(&world.vpc.parse().unwrap(), "us-east-1a").await.map(drop));
        count(ec2.limits("m5.xlarge").await.map(drop));
        count(ec2.create_interface(&new_interface(&world, &format!("token-{seed}"))).await.map(drop));
        count(ec2.modify_interface(&eni.id, &Change::SecurityGroups(vec![world.group.clone()])).await);
        count(ec2.assign(&eni.id, Amount::Addresses(1)).await.map(drop));
        count(ec2.unassign(&eni.id, &Holdings { addresses: eni.secondary, ..Holdings::default() }).await);
        count(ec2.delete_interface(&eni.id).await);
        sim.with(|cloud, _| cloud.clear_faults());
    }
    // What was refused would have been refused by a misreading: nothing was wrong with any request.
    assert!(good > 0 && unknown > 0 && refused == 0, "{good} good, {unknown} unknown, {refused} refused");
    eprintln!("{SEEDS} seeds: {good} good, {unknown} unknown");
}

/// Leaf keys that a node reads.
const KEYS: [&str; 11] = [
    "/mac",
    "/instance-id",
    "/instance-type",
    "/placement/region",
    "/placement/availability-zone",
    "/interface-id",
    "/subnet-id",
    "/subnet-ipv4-cidr-block",
    "/vpc-id",
    "/vpc-ipv4-cidr-blocks",
    "/security-group-ids",
];

#[tokio::test]
async fn metadata_that_is_missing_odd_or_cut_short_is_named_by_its_path() {
    let (world, faults) = (World::simulated().await.unwrap(), MetadataFaults::default());
    let imds = metadata(&world, &faults).await;
    let right = imds.identity().await.unwrap();
    let effects = [
        MetadataEffect::Status(404),
        MetadataEffect::Status(418),
        MetadataEffect::Text("<html>".to_owned()),
        MetadataEffect::Text(" \n".to_owned()),
        MetadataEffect::Half,
        MetadataEffect::BrokenOff,
    ];
    for key in KEYS {
        for effect in &effects {
            // Any short name of lower case letters is a good name for an instance type, as far as we know.
            if (key, effect) == ("/instance-type", &MetadataEffect::Half) {
                continue;
            }
            faults.inject(MetadataFault::new(key, 9, effect.clone()));
            let said = imds.identity().await.expect_err(key).to_string();
            let names = |key: &str| said.contains(&format!("{key}: "));
            // Half a region does not match the zone, which is asked for afterwards.
            let cut_region = key == "/placement/region" && names("/placement/availability-zone");
            let cut_vpc = key == "/vpc-ipv4-cidr-blocks" && names("/subnet-ipv4-cidr-block");
            assert!(names(key) || cut_region || cut_vpc, "{effect:?} of {key}: {said}");
            faults.clear();
        }
    }
    assert_eq!(imds.identity().await, Ok(right));
}

#[tokio::test]
async fn an_interface_does_not_vanish_with_one_of_its_keys() {
    let (world, faults) = (World::simulated().await.unwrap(), MetadataFaults::default());
    let imds = metadata(&world, &faults).await;
    let node = imds.identity().await.unwrap();
    assert_eq!(imds.interfaces(&node).await.unwrap().len(), 1);
    let keys = ["/interface-id", "/device-number", "/local-ipv4s", "/subnet-id", "/security-group-ids"];
    for key in keys {
        faults.inject(MetadataFault::new(key, 9, MetadataEffect::Status(404)));
        let said = imds.interfaces(&node).await.expect_err(key).to_string();
        assert!(said.ends_with(&format!("{key}: HTTP status 404")), "{said}");
        faults.clear();
    }
}

async fn metadata(world: &World, faults: &MetadataFaults) -> AwsImds {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let source = world.sim.as_ref().unwrap().instance(&world.instance);
    tokio::spawn(imds::serve(listener, imds::router_with(source, faults.clone())));
    AwsImds::at(&endpoint).unwrap()
}

#[tokio::test]
async fn a_service_that_gives_no_token_is_reported() {
    let (world, faults) = (World::simulated().await.unwrap(), MetadataFaults::default());
    for effect in [MetadataEffect::Status(404), MetadataEffect::Status(403), MetadataEffect::BrokenOff] {
        faults.inject(MetadataFault::new("/api/token", 99, effect.clone()));
        let said = metadata(&world, &faults).await.identity().await.unwrap_err().to_string();
        assert!(said.contains("/latest/meta-data/mac: "), "{effect:?}: {said}");
        faults.clear();
    }
}

#[tokio::test]
async fn a_rough_service_is_right_or_reported_but_never_believed() {
    let (world, faults) = (World::simulated().await.unwrap(), MetadataFaults::default());
    let right = metadata(&world, &faults).await.identity().await.unwrap();
    faults.be_rough(100, 1);
    let (mut good, mut bad) = (0, 0);
    for _ in 0..30 {
        match metadata(&world, &faults).await.identity().await {
            Ok(read) => {
                good += 1;
                // Half of the type's name is a name too; EC2 refuses it.
                assert_eq!(read.instance, right.instance);
                assert_eq!(
                    (read.vpc_cidrs, read.security_groups),
                    (right.vpc_cidrs.clone(), right.security_groups.clone())
                );
            }
            Err(_) => bad += 1,
        }
    }
    assert!(good > 0 && bad > 0, "{good} good, {bad} bad");
}
