#![allow(clippy::type_complexity, reason = "a table of a test")]

use std::{collections::BTreeMap, net::Ipv4Addr};

use eni_datapath::{Difference, Kind, PodLink, PodState, Wrong};
use eni_proto::{EniMark, LinkAlias, Pod, PodKey};
use ipam_core::{
    Moment,
    ports::{Interface, InterfaceKind},
};

use super::*;
use crate::inspect::{Astray, Daemon, Plans};

const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 0, 3, 7);

fn key() -> PodKey {
    PodKey::new("eni-cni", "c1", "eth0").unwrap()
}

fn lease() -> Lease {
    Lease {
        key: key(),
        pod: Pod { namespace: "web".into(), name: "shop".into(), uid: String::new() },
        netns: "/run/netns/c1".into(),
        addresses: ADDRESS.into(),
        eni: "eni-2".parse().unwrap(),
        eni_mark: EniMark::of_device(1),
        since: Moment::default(),
    }
}

fn eni(id: &str, secondary: &[Ipv4Addr]) -> Interface {
    Interface {
        id: id.parse().unwrap(),
        mac: "02:00:00:00:00:01".parse().unwrap(),
        subnet: "subnet-1".parse().unwrap(),
        primary: Ipv4Addr::new(10, 0, 3, 4),
        secondary: secondary.to_vec(),
        prefixes: vec![],
        prefixes6: vec![],
        kind: InterfaceKind::Plain,
        security_groups: vec![],
        attachment: None,
        tags: BTreeMap::new(),
    }
}

/// One pod, and everything as it should be.
fn well() -> Sources {
    let eni_mark = EniMark::of_device(1);
    let alias = LinkAlias { key: key(), addresses: ADDRESS.into(), eni_mark, adopted_mac: None, name: None };
    let link = PodLink { name: "eni1".into(), index: 7, mac: None, alias: Some(alias) };
    Sources {
        leases: Ok(vec![lease()]),
        pods: Ok(PodState {
            links: vec![link],
            routes: BTreeMap::from([(ADDRESS.into(), 7)]),
            marks: BTreeMap::from([(ADDRESS.into(), EniMark::of_device(1))]),
        }),
        wiring: BTreeMap::from([(key(), Ok(Wiring::Differs(vec![])))]),
        base: Ok(vec![]),
        astray: Ok(vec![]),
        walls: Ok(vec![]),
        translated: Ok(vec![]),
        leftovers: Ok(vec![]),
        plans: Plans::default(),
        daemon: Daemon::Serves(BTreeSet::new()),
        file: None,
        interfaces: Ok(vec![eni("eni-1", &[]), eni("eni-2", &[ADDRESS])]),
    }
}

fn wrong(kind: Kind, what: &str, pod: Option<PodKey>) -> Wrong {
    Wrong { kind, what: what.into(), pod, taken: false }
}

fn astray() -> Astray {
    Astray {
        pod: key(),
        address: ADDRESS.into(),
        outbound: false,
        enters_by: "eth1".into(),
        wanted: "eni1".into(),
        found: Ok("eth0".into()),
    }
}

/// The findings' first words after something was changed.
fn found(change: impl FnOnce(&mut Sources)) -> Vec<(Severity, String)> {
    let mut sources = well();
    change(&mut sources);
    judge(&sources).into_iter().map(|finding| (finding.severity, finding.what)).collect()
}

#[test]
fn when_all_is_well_nothing_is_found() {
    assert_eq!(found(|_| {}), []);
}

#[test]
fn each_thing_that_can_be_wrong_is_named_once() {
    use Severity::{Error, NotChecked, Warning};
    let other = Ipv4Addr::new(10, 0, 3, 8);
    #[rustfmt::skip]
    let table: [(Severity, &str, Box<dyn Fn(&mut Sources)>); 19] = [
        (NotChecked, "database: gone", Box::new(|it| { it.leases = Err("gone".into()); it.pods = Ok(PodState::default()); })),
        (NotChecked, "EC2: away", Box::new(|it| it.interfaces = Err("away".into()))),
        (NotChecked, "10.0.3.7 of pod web/shop: no right", Box::new(|it| drop(it.wiring.insert(key(), Err("no right".into()))))),
        (Error, "no daemon answers", Box::new(|it| it.daemon = Daemon::Away("no daemon answers".into()))),
        (Error, "IPAM-307 nobody says which node this is", Box::new(|it| it.daemon = Daemon::Starts("IPAM-307 nobody says which node this is".into()))),
        (Error, "IPAM-305 the database is damaged", Box::new(|it| it.file = Some("IPAM-305 the database is damaged".into()))),
        (Error, "not as it was prepared; it needs: add rule 512: lookup 20000", Box::new(|it| it.base = Ok(vec![wrong(Kind::Rule, "add rule 512: lookup 20000", None)]))),
        (Error, "a rule of priority 512 to table 77", Box::new(|it| it.base = Ok(vec![Wrong { taken: true, ..wrong(Kind::Rule, "a rule of priority 512 to table 77", None) }]))),
        (Error, "kernel setting net/ipv4/ip_forward is 0 instead of 1", Box::new(|it| it.base = Ok(vec![wrong(Kind::Setting, "kernel setting net/ipv4/ip_forward is 0 instead of 1", None)]))),
        (Error, "a packet for 10.0.3.7 (and of 1 more) that comes in by eth1 would leave by eth0 instead of eni1", Box::new(|it| it.astray = Ok(vec![astray(), astray()]))),
        (Warning, "the chain ip filter FORWARD drops all packets that none of its rules accepts", Box::new(|it| it.walls = Ok(vec!["ip filter FORWARD".into()]))),
        (Warning, "somebody translates pods' connections within the VPC: 10.0.3.7 to 10.0.9.9", Box::new(|it| it.translated = Ok(vec![(ADDRESS.into(), [10, 0, 9, 9].into())]))),
        (Warning, "left on this node: chain AWS-SNAT-CHAIN-0", Box::new(|it| it.leftovers = Ok(vec!["chain AWS-SNAT-CHAIN-0".into()]))),
        (Warning, "10.0.3.7 of pod web/shop: its network namespace /run/netns/c1 is gone", Box::new(|it| drop(it.wiring.insert(key(), Ok(Wiring::NoSandbox))))),
        (Error, "10.0.3.7 of pod web/shop: map element: wanted eni_2, found none", Box::new(|it| drop(it.wiring.insert(key(), Ok(Wiring::Differs(vec![Difference::new("map element", "eni_2", "none")])))))),
        (Error, "10.0.3.7 of pod web/shop: EC2 says that eni-1 owns the address", Box::new(|it| it.interfaces = Ok(vec![eni("eni-1", &[ADDRESS])]))),
        (Error, "10.0.3.7 of pod web/shop: EC2 lists the address on no interface of this node", Box::new(|it| it.interfaces = Ok(vec![eni("eni-2", &[])]))),
        (Warning, "the pods' table has a route to 10.0.3.8, but no lease is on record", Box::new(move |it| drop(it.pods.as_mut().map(|pods| pods.routes.insert(other.into(), 9))))),
        (Warning, "the nf_tables map has an element for 10.0.3.8, but no lease is on record", Box::new(move |it| drop(it.pods.as_mut().map(|pods| pods.marks.insert(other.into(), EniMark::of_device(1)))))),
    ];
    for (severity, what, change) in table {
        assert_eq!(found(|sources| change(sources)), [(severity, what.to_owned())]);
    }
}

#[test]
fn a_pod_of_the_kernel_without_a_lease_is_named_with_all_that_it_has() {
    let found = found(|sources| sources.leases = Ok(vec![]));
    assert_eq!(found.len(), 3, "{found:?}");
    assert!(found[0].1.starts_with("link eni1 of"), "{found:?}");
}

#[test]
fn one_cause_is_told_once() {
    let differs =
        || Ok(Wiring::Differs(vec![Difference::new("route to 10.0.3.7 in table 20000", "over eni1", "none")]));
    let found = found(|it| {
        it.wiring.insert(key(), differs());
        it.base = Ok(vec![wrong(Kind::Route, "add route 10.0.3.7/32 on link eni1", Some(key()))]);
        it.astray = Ok(vec![astray()]);
    });
    assert_eq!(found.len(), 1, "{found:?}");
    let found = self::found(|it| {
        it.base = Ok(vec![wrong(Kind::Rule, "add rule 512: lookup 20000", None)]);
        it.astray = Ok(vec![astray()]);
    });
    assert_eq!(found.len(), 1, "{found:?}");
}

#[test]
fn a_report_has_each_finding_with_reason_and_remedy() {
    let mut sources = well();
    sources.walls = Ok(vec!["ip filter FORWARD".into()]);
    let report = Report { leases: 1, mended: vec!["mended: add rule 512".into()], findings: judge(&sources) };
    let text = report.text(false);
    assert!(text.starts_with("mended: add rule 512\nwarning: the chain ip filter FORWARD drops"), "{text}");
    assert!(
        text.contains("\n  matters because every packet") && text.contains("\n  to mend it: set the policy back"),
        "{text}"
    );
    assert!(text.ends_with("1 leases checked: 0 errors, 1 warnings, 0 not checked\n"), "{text}");
    let json: serde_json::Value = serde_json::from_str(&report.object()).unwrap();
    assert_eq!((&json["leases"], &json["findings"][0]["severity"]), (&json!(1), &json!("warning")));
    assert_eq!(json["mended"], json!(["mended: add rule 512"]));
}
