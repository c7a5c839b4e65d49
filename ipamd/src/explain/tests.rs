use ipam_core::{
    Moment,
    ports::{Interface, InterfaceKind},
};
use serde_json::json;

use super::{nobody::text, *};
use crate::tenure::Tenure;

fn known() -> Known {
    let eni = Interface {
        id: "eni-2".parse().unwrap(),
        mac: "02:00:00:00:00:01".parse().unwrap(),
        subnet: "subnet-1".parse().unwrap(),
        primary: [10, 0, 3, 4].into(),
        secondary: vec![[10, 0, 3, 7].into(), [10, 0, 3, 8].into()],
        prefixes: vec![],
        prefixes6: vec!["2600:1f00::/80".parse().unwrap()],
        kind: InterfaceKind::Plain,
        security_groups: vec![],
        attachment: None,
        tags: std::collections::BTreeMap::new(),
    };
    let cooling = json!({ "address": "10.0.3.7", "state": "cooling", "until": "2026-11-21T14:22:07Z" });
    let free = json!({ "address": "10.0.3.8", "state": "free", "until": null });
    let cidr = |text: &str| crate::settings::parse_cidr(text).unwrap();
    Known {
        leases: 3,
        interfaces: vec![eni],
        vpc: vec![cidr("10.0.0.0/16")],
        pool: Some(json!({ "enis": [{ "addresses": [cooling, free] }] })),
        excluded: vec![cidr("192.168.0.0/16")],
        external_services: vec![cidr("10.0.77.0/24")],
        ..Known::default()
    }
}

#[test]
fn an_address_that_no_pod_has_is_told_by_what_it_is() {
    for (address, what) in [
        ("10.0.3.4", "it is the node's own address on eni-2, and never a pod's"),
        ("10.0.3.7", "it is of eni-2, and rests until 2026-11-21T14:22:07Z after its last pod"),
        ("10.0.3.8", "it is of eni-2, and no pod holds it: it is free"),
        ("2600:1f00::7", "it is of eni-2, and no pod holds it: it is free"),
        ("2600:1f00:9::7", "it is of none of this node's ENIs"),
        ("10.0.9.9", "it is in the VPC (10.0.0.0/16), on none of this node's ENIs"),
        ("10.0.77.1", "it is in 10.0.77.0/24 (AWS_EXTERNAL_SERVICE_CIDRS)"),
        (
            "192.168.1.1",
            "it is outside the VPC (10.0.0.0/16): pods reach it by their own ENI with their own address, because",
        ),
        ("9.9.9.9", "it is outside the VPC (10.0.0.0/16): pods reach it by the primary ENI, as the node"),
        ("169.254.172.5", "such an address leads a pod out of its node as the node"),
    ] {
        let said = text(address, &known());
        assert!(said.contains(what), "{address}: {said}");
        assert!(said.starts_with(&format!("{address} has no lease on this node (3 have)")), "{said}");
    }
    let silent = Known { pool: None, ..known() };
    assert!(text("10.0.3.7", &silent).contains("the daemon does not say more"));
}

#[test]
fn a_pod_that_has_ended_is_told_with_what_it_had() {
    let tenure = Tenure {
        address: "10.0.3.7".to_owned(),
        eni: "eni-2".to_owned(),
        namespace: "web".to_owned(),
        pod: "shop".to_owned(),
        uid: String::new(),
        network: "pods".to_owned(),
        container_id: "c1".to_owned(),
        interface: "eth0".to_owned(),
        since: Moment::from_millis(1_795_270_920_000),
        ended: Some((Moment::from_millis(1_795_270_927_000), "del".to_owned())),
    };
    let said = text("web/shop", &Known { tenures: vec![tenure], with_branches: true, ..known() });
    let ended = "pod web/shop held 10.0.3.7 of eni-2 from 2026-11-21T14:22:00Z to 2026-11-21T14:22:07Z (ended by: del)";
    assert!(said.contains(ended), "{said}");
    assert!(said.contains("vpc.amazonaws.com/pod-eni"), "{said}");
    assert!(text("shop", &known()).contains("give NAMESPACE/NAME"));
}
