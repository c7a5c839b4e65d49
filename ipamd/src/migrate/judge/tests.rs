//! A node with two ENIs and two pods of the incumbent's.

use std::collections::BTreeMap;

use eni_datapath::MacAddress;
use ipam_core::ports::{Attachment, InterfaceKind};

use super::*;
use crate::migrate::checkpoint::parse;

const NOW: Moment = Moment::from_millis(1_000_000);
const COOL_DOWN: Duration = Duration::from_secs(30);

fn address(last: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 0, 0, last)
}

/// ENI `index` owns the addresses 10*index+1 to 10*index+3.
fn eni(index: u8) -> Interface {
    let attachment = Attachment {
        id: "eni-attach-0123abcd".parse().unwrap(),
        instance: "i-0123abcd".parse().unwrap(),
        device_index: index,
        card: 0,
        attached: true,
        delete_on_termination: true,
    };
    Interface {
        id: format!("eni-{index}").parse().unwrap(),
        mac: ipam_core::MacAddress([2, 0, 0, 0, 0, index]),
        subnet: "subnet-0123abcd".parse().unwrap(),
        primary: address(200 + index),
        secondary: (1..=3).map(|n| address(10 * index + n)).collect(),
        prefixes: vec![],
        prefixes6: vec![],
        kind: InterfaceKind::Plain,
        security_groups: vec![],
        attachment: Some(attachment),
        tags: BTreeMap::new(),
    }
}

fn pod(last: u8) -> FoundPod {
    let mac = MacAddress([6, 0, 0, 0, 0, last]);
    FoundPod { link: format!("eni{last}"), name: None, index: last.into(), mac, address: address(last), peer: 2 }
}

fn allocation(last: u8) -> String {
    format!(
        r#"{{"networkName":"aws-cni","containerID":"c{last}","ifName":"eth0","ipv4":"10.0.0.{last}","allocationTimestamp":7000000,"metadata":{{"k8sPodNamespace":"web","k8sPodName":"p{last}","interfacesCount":1}}}}"#
    )
}

fn checkpoint(allocations: &[String]) -> Option<Result<Checkpoint, String>> {
    let text = format!(r#"{{"version":"vpc-cni-ipam/1","allocations":[{}]}}"#, allocations.join(","));
    Some(Ok(parse(std::path::Path::new("ipam.json"), &text).unwrap()))
}

fn facts() -> Facts {
    Facts {
        checkpoint: checkpoint(&[allocation(1), allocation(11)]),
        pods: vec![pod(1), pod(11)],
        enis: vec![eni(0), eni(1)],
        namespaces: BTreeMap::from([(1, "/run/netns/a".into()), (11, "/run/netns/b".into())]),
        ..Facts::default()
    }
}

fn verdict(facts: &Facts) -> Verdict {
    judge(facts, "eni-cni", NOW, COOL_DOWN)
}

fn codes(facts: &Facts) -> Vec<&'static str> {
    verdict(facts).obstacles.iter().map(|obstacle| obstacle.code).collect()
}

#[test]
fn each_pod_gets_a_lease_with_its_address_and_eni() {
    let verdict = verdict(&facts());
    assert_eq!((verdict.obstacles, verdict.notes, verdict.cooling), (vec![], vec![], vec![]));
    let told: Vec<String> = verdict
        .adoptions
        .iter()
        .map(|(adoption, lease)| {
            format!(
                "{} {} {} {} {} link {}",
                lease.key,
                lease.pod,
                lease.netns,
                lease.eni,
                lease.eni_mark.value(),
                adoption.link
            )
        })
        .collect();
    let wanted =
        ["eni-cni/c1/eth0 web/p1 /run/netns/a eni-0 0 link 1", "eni-cni/c11/eth0 web/p11 /run/netns/b eni-1 2 link 11"];
    assert_eq!(told, wanted);
}

#[test]
fn a_pod_that_went_leaves_an_address_that_rests() {
    let facts = Facts { pods: vec![pod(1)], ..facts() };
    let verdict = verdict(&facts);
    assert_eq!(verdict.adoptions.len(), 1);
    assert_eq!(verdict.cooling, [CoolDown { address: address(11).into(), until: NOW.after(COOL_DOWN) }]);
}

#[test]
fn what_may_have_been_freed_a_moment_ago_rests_too() {
    let written = Some(Moment::from_millis(990_000));
    let resting = |facts: &Facts| verdict(facts).cooling.into_iter().map(|it| it.address).collect::<Vec<_>>();
    assert_eq!(resting(&Facts { written, ..facts() }), [2, 3, 12, 13].map(|last| IpAddr::from(address(last))));
    let long_ago = Some(Moment::from_millis(900_000));
    assert_eq!(resting(&Facts { written: long_ago, ..facts() }), [] as [IpAddr; 0]);
}

#[test]
fn an_import_that_was_begun_goes_on_and_later_pods_keep_their_addresses() {
    let alias = "eni-cni:1:eni-cni/c1/eth0:10.0.0.1:0@060000000001".parse().unwrap();
    let facts = Facts { pods: vec![pod(11)], ours: BTreeMap::from([(1, alias)]), ..facts() };
    let (again, lease) = (verdict(&facts), verdict(&self::facts()).adoptions[0].1.clone());
    assert_eq!((again.adoptions.len(), again.done, again.cooling.len()), (1, 1, 0));
    let newer = PodKey::new("eni-cni", "newer", "eth0").unwrap();
    let later = Facts { leases: vec![Lease { key: newer, ..lease }], pods: vec![pod(11)], ..self::facts() };
    assert_eq!(verdict(&later).cooling, []);
}

#[test]
fn each_thing_that_cannot_be_taken_over_has_its_code() {
    let multi = allocation(11).replace("\"interfacesCount\":1", "\"interfacesCount\":2");
    let six = allocation(11).replace("\"ipv4\":\"10.0.0.11\"", "\"ipv6\":\"2600::1\"");
    #[rustfmt::skip]
    let table = [
        ("it runs",             "IPAM-351", Facts { running: Some("it answers".into()), ..facts() }),
        ("unknown version",     "IPAM-352", Facts { checkpoint: Some(Err("version".into())), ..facts() }),
        ("branch ENI",          "IPAM-353", Facts { branches: vec!["link vlan.eth.1".into()], ..facts() }),
        ("several cards",       "IPAM-354", Facts { checkpoint: checkpoint(&[allocation(1), multi]), ..facts() }),
        ("IPv6",                "IPAM-355", Facts { checkpoint: checkpoint(&[allocation(1), six]), pods: vec![pod(1)], ..facts() }),
        ("nobody's address",    "IPAM-356", Facts { enis: vec![eni(0)], ..facts() }),
        ("not in the file",     "IPAM-356", Facts { checkpoint: checkpoint(&[allocation(1)]), ..facts() }),
        ("no file, but a pod",  "IPAM-356", Facts { checkpoint: None, pods: vec![pod(1)], ..facts() }),
        ("chains unseen",       "IPAM-357", Facts { unseen_chains: Some("no program".into()), ..facts() }),
    ];
    for (why, code, facts) in table {
        assert_eq!(codes(&facts), [code], "{why}");
    }
}
