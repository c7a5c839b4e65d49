//! What the port makes of a cloud that fails.

use std::time::Duration;

use ec2_sim::FaultRule;
use ipam_aws::{AwsEc2, AwsSettings};
use ipam_core::{
    EniId,
    ports::{Amount, Ec2, Ec2Error, Ec2Result, Scope},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use crate::clouds::{World, settings};

const ASSIGN: &str = "AssignPrivateIpAddresses";

fn eni() -> EniId {
    "eni-0123456789abcdef0".parse().unwrap()
}

/// `unknown`, or class and code of the refusal.
fn outcome<T>(outcome: Ec2Result<T>) -> String {
    match outcome {
        Ok(_) => "done".to_owned(),
        Err(Ec2Error::Unknown { .. }) => "unknown".to_owned(),
        Err(Ec2Error::Refused { class, code, .. }) => format!("{class:?} {code}"),
    }
}

async fn primary(world: &World) -> EniId {
    world.ec2.interfaces(&world.instance, Scope::Attached).await.unwrap().remove(0).id
}

#[tokio::test]
async fn each_answer_has_its_meaning_and_nothing_is_sent_twice() {
    let world = World::simulated().await.unwrap();
    let sim = world.sim.as_ref().unwrap();
    let eni = primary(&world).await;
    #[rustfmt::skip]
    let table = [
        ("RequestLimitExceeded",               503, "SlowDown RequestLimitExceeded"),
        ("Throttling",                         400, "SlowDown Throttling"),
        ("UnauthorizedOperation",              403, "NotAllowed UnauthorizedOperation"),
        ("InsufficientFreeAddressesInSubnet",  400, "SubnetFull InsufficientFreeAddressesInSubnet"),
        ("Unavailable",                        503, "TryLater Unavailable"),
        ("SomethingNewIn2031",                 400, "TryLater SomethingNewIn2031"),
        ("SomethingNewIn2031",                 500, "unknown"),
        ("InternalError",                      500, "unknown"),
    ];
    for (number, (code, status, wanted)) in table.into_iter().enumerate() {
        sim.with(|cloud, _| cloud.inject(FaultRule::refuse(ASSIGN, 1, code, status)));
        assert_eq!(outcome(world.ec2.assign(&eni, Amount::Addresses(1)).await), wanted, "{code} with status {status}");
        let sent = sim.with(|cloud, _| cloud.log().count(ASSIGN));
        assert_eq!(sent, u64::try_from(number).unwrap() + 1, "{code} was sent again");
    }
}

#[tokio::test]
async fn both_ports_tell_the_same_story_of_each_code() {
    let world = World::simulated().await.unwrap();
    let sim = world.sim.as_ref().unwrap();
    let eni = primary(&world).await;
    for (code, status) in [
        ("RequestLimitExceeded", 503),
        ("InsufficientFreeAddressesInSubnet", 400),
        ("InsufficientCidrBlocks", 400),
        ("PrivateIpAddressLimitExceeded", 400),
        ("AttachmentLimitExceeded", 400),
        ("NetworkInterfaceLimitExceeded", 400),
        ("InvalidNetworkInterfaceID.NotFound", 400),
        ("InvalidNetworkInterfaceId.Malformed", 400),
        ("InvalidNetworkInterface.InUse", 400),
        ("InvalidParameterValue", 400),
        ("InvalidInstanceType", 400),
        ("UnsupportedOperation", 400),
        ("IncorrectInstanceState", 400),
        ("OperationNotPermitted", 400),
        ("IdempotentParameterMismatch", 400),
        ("Resource.AlreadyAssigned", 400),
        ("DryRunOperation", 412),
        ("UnauthorizedOperation", 403),
        ("InternalError", 500),
        ("ServiceUnavailable", 503),
        ("Unavailable", 503),
        ("SomethingNewIn2031", 400),
        ("SomethingNewIn2031", 500),
    ] {
        sim.with(|cloud, _| cloud.inject(FaultRule::refuse(ASSIGN, 2, code, status)));
        let amount = Amount::Addresses(1);
        let (over_http, in_process) = (world.ec2.assign(&eni, amount).await, sim.assign(&eni, amount).await);
        assert_eq!(outcome(over_http), outcome(in_process), "{code} with status {status}");
    }
}

#[tokio::test]
async fn a_lost_reply_is_unknown_whether_or_not_it_was_done() {
    for (rule, done) in [(FaultRule::drop_after(ASSIGN, 1), 2), (FaultRule::drop_before(ASSIGN, 1), 0)] {
        let world = World::simulated().await.unwrap();
        let sim = world.sim.as_ref().unwrap();
        let eni = primary(&world).await;
        sim.with(|cloud, _| cloud.inject(rule.clone()));
        assert_eq!(outcome(world.ec2.assign(&eni, Amount::Addresses(2)).await), "unknown", "{rule:?}");
        let seen = world.ec2.interfaces(&world.instance, Scope::Attached).await.unwrap().remove(0);
        assert_eq!(seen.secondary.len(), done, "{rule:?}");
        assert_eq!(sim.with(|cloud, _| cloud.log().count(ASSIGN)), 1, "{rule:?}");
    }
}

#[tokio::test]
async fn a_late_reply_is_unknown() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let call_timeout = Duration::from_millis(300);
    let ec2 = AwsEc2::new(AwsSettings { call_timeout, ..settings(&endpoint, "AKIA") });
    assert_eq!(outcome(ec2.assign(&eni(), Amount::Addresses(1)).await), "unknown");
    drop(listener);
}

#[tokio::test]
async fn an_answer_that_cannot_be_read_is_unknown() {
    for answer in [
        "HTTP/1.1 502 Bad Gateway\r\ncontent-length: 13\r\n\r\n<html></html>",
        "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 7\r\n\r\nnot xml",
        "HTTP/1.1 200 OK\r\ncontent-length: 70\r\n\r\n<AttachNetworkInterfaceResponse>",
        "HTTP/1.1 200 OK\r\ncontent-length: 67\r\n\r\n<AttachNetworkInterfaceResponse></AttachNetworkInterfaceResponse>\r\n",
        "not even HTTP\r\n\r\n",
        "",
    ] {
        let ec2 = AwsEc2::new(settings(&answering(answer).await, "AKIA"));
        let attached = ec2.attach_interface(&eni(), &"i-1".parse().unwrap(), 0, 1).await;
        assert_eq!(outcome(attached), "unknown", "{answer:?}");
    }
}

/// A server that reads one request and gives one answer, whatever was asked.
async fn answering(answer: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = [0; 4096];
        let _ = stream.read(&mut request).await;
        let _ = stream.write_all(answer.as_bytes()).await;
    });
    endpoint
}

#[tokio::test]
async fn what_was_not_sent_was_not_done() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let nobody = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    // Longer than a label may be, so that the resolver answers without asking anybody.
    let no_such_name = format!("http://{}.invalid", "a".repeat(64));
    for endpoint in [nobody, no_such_name] {
        let ec2 = AwsEc2::new(settings(&endpoint, "AKIA"));
        assert_eq!(outcome(ec2.assign(&eni(), Amount::Addresses(1)).await), "TryLater NotSent", "{endpoint}");
    }
}
