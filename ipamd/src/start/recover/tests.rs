use std::{collections::BTreeMap, net::Ipv4Addr};

use eni_proto::{EniMark, LinkAlias, PodKey};
use ipam_core::{
    Moment,
    ports::{Attachment, InterfaceKind},
};

use super::*;

fn address(last: u8) -> Ipv4Addr {
    [10, 0, 0, last].into()
}

fn last(address: IpAddr) -> u8 {
    if let IpAddr::V4(address) = address { address.octets()[3] } else { 0 }
}

fn key(last: u8) -> PodKey {
    PodKey::new("pods", &format!("c{last}"), "eth0").unwrap()
}

fn lease(last: u8) -> Lease {
    Lease {
        key: key(last),
        pod: eni_proto::Pod::default(),
        netns: format!("/run/netns/{last}"),
        addresses: address(last).into(),
        eni: "eni-1".parse().unwrap(),
        eni_mark: EniMark::of_device(1),
        since: Moment::from_millis(0),
    }
}

fn pod(last: u8) -> KernelPod {
    let alias = LinkAlias {
        key: key(last),
        addresses: address(last).into(),
        eni_mark: EniMark::of_device(1),
        adopted_mac: None,
        name: None,
    };
    KernelPod { link: format!("eni{last}"), alias }
}

fn eni(device_index: u8, last: &[u8]) -> Interface {
    Interface {
        id: format!("eni-{device_index}").parse().unwrap(),
        mac: "02:00:00:00:00:01".parse().unwrap(),
        subnet: "subnet-1".parse().unwrap(),
        primary: address(200 + device_index),
        secondary: last.iter().map(|last| address(*last)).collect(),
        prefixes: vec![],
        prefixes6: vec![],
        kind: InterfaceKind::Plain,
        security_groups: vec![],
        attachment: Some(Attachment {
            id: "eni-attach-1".parse().unwrap(),
            instance: "i-1".parse().unwrap(),
            device_index,
            card: 0,
            attached: true,
            delete_on_termination: true,
        }),
        tags: BTreeMap::new(),
    }
}

/// The table of recovery, from what each source really says.
#[test]
fn each_address_is_judged_by_what_all_sources_say() {
    let leases = [lease(1), lease(2), lease(3), lease(4), lease(8)];
    let kernel = KernelState {
        pods: vec![pod(1), pod(4), pod(5), pod(6)],
        loose: [address(7).into(), address(8).into()].into(),
    };
    let enis = [eni(1, &[1, 2, 3, 5, 7, 8])];
    let gone = |lease: &Lease| lease.addresses.has(address(3));
    let decisions = |fresh| -> Vec<_> {
        judge(&leases, &kernel, &enis, fresh, gone)
            .iter()
            .map(|judged| (last(judged.address), judged.decision))
            .collect()
    };
    #[rustfmt::skip]
    let fresh = [
        (1, Decision::Adopt),           // all agree
        (2, Decision::KeepImpaired),    // the kernel lost it
        (3, Decision::ReleaseAndCool),  // the sandbox is gone
        (4, Decision::KeepAskEc2),      // EC2 does not list it
        (5, Decision::AdoptFromKernel), // the record is lost
        (6, Decision::KeepAskEc2),      // neither record nor EC2
        (7, Decision::RemoveLeftovers), // nobody is behind it
        (8, Decision::KeepImpaired),    // the kernel lost its interface only
    ];
    assert_eq!(decisions(true), fresh);
    let remembered = decisions(false);
    assert_eq!((remembered[3], remembered[5]), ((4, Decision::Nothing), (6, Decision::Nothing)));
}

#[test]
fn a_pod_belongs_to_the_interface_that_has_its_address_or_else_to_the_one_that_its_mark_names() {
    let enis = [eni(0, &[1]), eni(1, &[2])];
    let by = |last| owner(&pod(last), &enis).map(|eni| eni.to_string());
    assert_eq!((by(1), by(2), by(3)), (Some("eni-0".into()), Some("eni-1".into()), Some("eni-1".into())));
    assert_eq!(owner(&pod(3), &[eni(0, &[])]), None);
}
