//! What a kernel without VLANs cannot do is the VLAN's link alone: another link of its name stands for it, and all else is real.

use std::slice;

use super::{
    super::tests::world::{self, MAC1, World, ip, snapshot, try_run},
    orphans::{end_branch_pod, settled_branch_pods, sweep_branches},
    *,
};
use crate::ops::Selector;
use eni_proto::{EniMark, PodAddresses};
use netlink_packet_core::{NetlinkDeserializable, NetlinkHeader};
use netlink_packet_route::{
    RouteNetlinkMessage,
    link::{InfoData, InfoKind, InfoVlan, LinkAttribute, LinkInfo},
    rule::RuleAttribute,
};

const VLAN: u16 = 5;
const MAC: MacAddress = MacAddress([0x02, 0, 0, 0, 0, 0x55]);
const ADDRESS: [u8; 4] = [10, 0, 5, 7];

fn branch(enforcing: Enforcing) -> BranchEni {
    BranchEni::new(VLAN.into(), &MAC.0, &MAC1.0, Some([10, 0, 0, 1].into()), enforcing).unwrap()
}

fn wiring(netns: &Netns) -> PodWiring {
    world::wiring("c1", "web-0", ADDRESS, EniMark::PRIMARY, netns)
}

/// A node that is ready for such pods, with a link in the place of the VLAN's, behind which the subnet's router is.
fn prepared(enforcing: Enforcing) -> (World, u32) {
    let world = World::prepared();
    world.plug("vlan.eth.5", MAC, "fv");
    world.in_fabric(|| {
        ip("address add 10.0.0.1/20 dev fv");
        ip(&format!("neigh add 10.0.5.7 lladdr {MAC} dev fv"));
    });
    let index = world.on_node(|| {
        prepare_branches(Some(enforcing)).unwrap();
        index("vlan.eth.5")
    });
    (world, index)
}

fn index(link: &str) -> u32 {
    let mut socket = NetlinkSocket::open(NETLINK_ROUTE).unwrap();
    look(&mut socket, link).unwrap().unwrap().index
}

/// What [`add_branch_pod`] does once the VLAN's link is there.
fn over(wiring: &PodWiring, branch: &BranchEni, vlan: u32) -> Result<Wired, WireError> {
    over_since(wiring, branch, vlan, orphans::uptime_seconds())
}

fn over_since(wiring: &PodWiring, branch: &BranchEni, vlan: u32, since: u64) -> Result<Wired, WireError> {
    let label = BranchLabel { since, ..label(wiring, branch) };
    let mut host = NetlinkSocket::open(NETLINK_ROUTE)?;
    let labelled = host.ask(route::label_link("vlan.eth.5", &label.to_string()))?;
    assert_eq!(labelled.result, Ok(()));
    wire_over(wiring, branch, vlan, &label)
}

fn reaches(source: &str, target: &str) -> bool {
    try_run("ping", &format!("-n -c 1 -W 5 -I {source} {target}")).status.success()
}

/// The steps as text, with the names of the links instead of their indexes.
fn texts(enforcing: Enforcing, addresses: PodAddresses) -> Vec<String> {
    let netns = Netns::fresh().unwrap();
    let mut wiring = wiring(&netns);
    wiring.network.addresses = addresses;
    let (ops, rules) = plan::host_side(&wiring, &branch(enforcing), 71, 72);
    let name = plan::host_name(enforcing, &wiring.network.veth_prefix, &wiring.key, &wiring.pod);
    let lines = ops.iter().map(ToString::to_string).chain(rules.iter().map(ToString::to_string));
    let named = |line: String| line.replace("link 71", "VLAN").replace("link 72", "HOST").replace(&name, "HOST");
    lines.map(|line| named(line).replace(" (protocol 142)", "")).collect()
}

#[test]
fn in_strict_mode_everything_goes_by_the_vlans_table() {
    assert_eq!(
        texts(Enforcing::Strict, PodAddresses::V4(ADDRESS.into())),
        [
            "set up on VLAN",
            "set rp_filter=2 on VLAN",
            "set rp_filter=2 on HOST",
            "add route 10.0.0.1/32 on VLAN in table 105",
            "add route 0.0.0.0/0 via 10.0.0.1 on VLAN in table 105",
            "add route 10.0.5.7/32 on HOST in table 105",
            "rule 10: iif vlan.eth.5 lookup 105",
            "rule 10: iif HOST lookup 105",
        ]
    );
}

#[test]
fn in_standard_mode_what_leaves_goes_by_the_vlans_table_and_what_stays_by_main() {
    assert_eq!(
        texts(Enforcing::Standard, PodAddresses::V4(ADDRESS.into())),
        [
            "set up on VLAN",
            "set rp_filter=2 on VLAN",
            "add route 10.0.0.1/32 on VLAN in table 105",
            "add route 0.0.0.0/0 via 10.0.0.1 on VLAN in table 105",
            "add route 10.0.5.7/32 on HOST in table 254",
            "add rule 1536: from 10.0.5.7 lookup 105",
            "rule 513: to 10.0.5.7 lookup 254",
        ]
    );
}

#[test]
fn an_ipv6_pod_has_the_vpcs_router_and_a_neighbour_that_is_never_asked_for() {
    let steps = texts(Enforcing::Strict, PodAddresses::V6("2600:1f00::7".parse().unwrap()));
    assert!(steps.contains(&"add route ::/0 via fe80:ec2::1 on VLAN in table 105".to_owned()), "{steps:?}");
    assert!(steps.contains(&"add route 2600:1f00::7/128 on HOST in table 105".to_owned()), "{steps:?}");
    assert!(steps.iter().any(|step| step.starts_with("add neighbour 2600:1f00::7 at ")), "{steps:?}");
    assert!(steps.iter().all(|step| !step.contains("10.0.")), "{steps:?}");
}

#[test]
fn the_message_for_the_vlan_has_trunk_id_and_hardware_address() {
    let message = route::create_vlan("vlan.eth.4094", 4094, MAC, 9);
    let mut header = NetlinkHeader::default();
    header.message_type = message.kind;
    let RouteNetlinkMessage::NewLink(read) = RouteNetlinkMessage::deserialize(&header, &message.payload).unwrap()
    else {
        panic!("{}", message.kind);
    };
    assert!(read.attributes.contains(&LinkAttribute::IfName("vlan.eth.4094".to_owned())));
    assert!(read.attributes.contains(&LinkAttribute::Link(9)));
    assert!(read.attributes.contains(&LinkAttribute::Address(MAC.0.to_vec())));
    let info = vec![LinkInfo::Kind(InfoKind::Vlan), LinkInfo::Data(InfoData::Vlan(vec![InfoVlan::Id(4094)]))];
    assert!(read.attributes.contains(&LinkAttribute::LinkInfo(info)), "{read:?}");
    // As Linux reads it: IFLA_VLAN_ID (1), two bytes in the machine's order.
    let id = [&[6, 0, 1, 0][..], &4094_u16.to_ne_bytes()].concat();
    assert!(message.payload.windows(id.len()).any(|window| window == id), "{:02x?}", message.payload);
}

#[test]
fn each_rules_message_has_its_selector() {
    let read = |message: crate::socket::Message| {
        let mut header = NetlinkHeader::default();
        header.message_type = message.kind;
        let decoded = RouteNetlinkMessage::deserialize(&header, &message.payload).unwrap();
        let (RouteNetlinkMessage::NewRule(rule) | RouteNetlinkMessage::DelRule(rule)) = decoded else {
            panic!("{decoded:?}");
        };
        rule
    };
    let rule = |selector, table| BranchRule { family: Family::V4, priority: 10, selector, table, ours: true };
    let incoming = read(route::add_branch_rule(&rule(Selector::Incoming("vlan.eth.5".to_owned()), 105)));
    assert!(incoming.attributes.contains(&RuleAttribute::Iifname("vlan.eth.5".to_owned())), "{incoming:?}");
    assert!(incoming.attributes.contains(&RuleAttribute::Table(105)), "{incoming:?}");
    let to = read(route::remove_branch_rule(&rule(Selector::To(ADDRESS.into()), 254)));
    assert_eq!((to.header.dst_len, to.header.src_len), (32, 0));
    assert!(to.attributes.contains(&RuleAttribute::Destination(ADDRESS.into())), "{to:?}");
}

#[test]
fn a_strict_pod_talks_over_its_own_link_only_and_goes_without_a_trace() {
    let (world, vlan) = prepared(Enforcing::Strict);
    let before = world.on_node(snapshot);
    let pod = Netns::fresh().unwrap();
    let (wiring, branch) = (wiring(&pod), branch(Enforcing::Strict));
    let wired = world.on_node(|| over(&wiring, &branch, vlan).unwrap());
    assert!(wired.host_link.starts_with("vlan"), "{wired:?}");
    assert!(pod.inside(|| reaches("10.0.5.7", "10.0.0.1")).unwrap());
    assert!(world.in_fabric(|| reaches("10.0.0.1", "10.0.5.7")));
    world.on_node(|| {
        let link = &wired.host_link;
        let way = ip(&format!("route get 192.0.2.1 from 10.0.5.7 iif {link}"));
        assert!(way.contains("via 10.0.0.1 dev vlan.eth.5"), "{way}");
        // Even what is for the node itself, and what the node sends.
        let way = ip(&format!("route get 10.0.0.10 from 10.0.5.7 iif {link}"));
        assert!(way.contains("dev vlan.eth.5"), "{way}");
        let way = ip("route get 10.0.5.7");
        assert!(way.contains("dev eth0"), "{way}");
        assert_eq!(check_branch_pod(&wiring, &branch).unwrap(), []);
        ip("rule del priority 10 iif vlan.eth.5");
        ip("route del default table 105");
        assert_eq!(check_branch_pod(&wiring, &branch).unwrap().len(), 2);
        assert!(del_branch_pod(&wiring.network.veth_prefix, &wiring.key, &wiring.pod).unwrap());
        assert!(!del_branch_pod(&wiring.network.veth_prefix, &wiring.key, &wiring.pod).unwrap());
    });
    gone_with_the_link(&world, &before);
}

#[test]
fn a_standard_pod_is_near_for_its_node_and_leaves_over_its_own_link() {
    let (world, vlan) = prepared(Enforcing::Standard);
    let before = world.on_node(snapshot);
    let pod = Netns::fresh().unwrap();
    let (wiring, branch) = (wiring(&pod), branch(Enforcing::Standard));
    let wired = world.on_node(|| over(&wiring, &branch, vlan).unwrap());
    assert!(wired.host_link.starts_with("eni"), "{wired:?}");
    assert!(pod.inside(|| reaches("10.0.5.7", "10.0.0.1")).unwrap());
    assert!(world.in_fabric(|| reaches("10.0.0.1", "10.0.5.7")));
    world.on_node(|| {
        assert!(reaches("10.0.0.10", "10.0.5.7"), "the node to its pod");
        let way = ip("route get 10.0.5.7");
        assert!(way.contains(&format!("dev {}", wired.host_link)), "{way}");
        assert_eq!(check_branch_pod(&wiring, &branch).unwrap(), []);
        ip("rule del priority 1536 from 10.0.5.7");
        assert_eq!(check_branch_pod(&wiring, &branch).unwrap().len(), 1);
        assert!(del_branch_pod(&wiring.network.veth_prefix, &wiring.key, &wiring.pod).unwrap());
    });
    gone_with_the_link(&world, &before);
}

/// All but what is the VLAN's link's, for which another stands here.
fn gone_with_the_link(world: &World, before: &str) {
    let without_vlan = |text: &str| {
        let of_link = ["vlan.eth.5", "02:00:00:00:00:55", "    veth ", "    alias eni-cni-branch:"];
        let lines = text.lines().filter(|line| !of_link.iter().any(|part| line.contains(part)));
        lines.map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(without_vlan(&world.on_node(snapshot)), without_vlan(before));
}

#[test]
fn an_add_that_fails_in_the_pod_leaves_nothing_on_the_node() {
    for enforcing in [Enforcing::Strict, Enforcing::Standard] {
        let (world, vlan) = prepared(enforcing);
        let before = world.on_node(snapshot);
        let pod = Netns::fresh().unwrap();
        pod.inside(|| ip("link add eth0 type veth peer name taken")).unwrap();
        let error = world.on_node(|| over(&wiring(&pod), &branch(enforcing), vlan).unwrap_err());
        assert!(matches!(error, WireError::InterfaceExists { .. }), "{error:?}");
        gone_with_the_link(&world, &before);
    }
}

#[test]
fn what_a_pod_leaves_that_ended_without_a_del_is_swept_and_no_living_pods() {
    for enforcing in [Enforcing::Strict, Enforcing::Standard] {
        let (world, vlan) = prepared(enforcing);
        let before = world.on_node(snapshot);
        let pod = Netns::fresh().unwrap();
        let (wiring, branch) = (wiring(&pod), branch(enforcing));
        world.on_node(|| {
            let wired = over_since(&wiring, &branch, vlan, 0).unwrap();
            assert_eq!(sweep_branches().unwrap(), [], "it lives");
            // As its namespace does when it goes.
            ip(&format!("link del {}", wired.host_link));
            assert_ne!(ip("rule").lines().filter(|rule| rule.contains(" lookup 105")).count(), 0);
            assert_eq!(sweep_branches().unwrap(), slice::from_ref(&wiring.key));
            assert_eq!(sweep_branches().unwrap(), []);
        });
        gone_with_the_link(&world, &before);
    }
}

#[test]
fn what_an_add_is_at_work_on_is_neither_swept_nor_listed() {
    let (world, vlan) = prepared(Enforcing::Strict);
    let pod = Netns::fresh().unwrap();
    let (wiring, branch) = (wiring(&pod), branch(Enforcing::Strict));
    world.on_node(|| {
        let wired = over(&wiring, &branch, vlan).unwrap();
        assert_eq!(settled_branch_pods().unwrap(), []);
        ip(&format!("link del {}", wired.host_link));
        assert_eq!(sweep_branches().unwrap(), []);
        assert!(ip("rule").contains("iif vlan.eth.5"), "{}", ip("rule"));
    });
}

#[test]
fn a_pod_that_nobody_asks_for_is_listed_and_ended_whatever_its_links_are_called() {
    let (world, vlan) = prepared(Enforcing::Standard);
    let before = world.on_node(snapshot);
    let pod = Netns::fresh().unwrap();
    let (wiring, branch) = (wiring(&pod), branch(Enforcing::Standard));
    world.on_node(|| {
        let wired = over_since(&wiring, &branch, vlan, 0).unwrap();
        ip(&format!("link set {} name docker7", wired.host_link));
        assert_eq!(settled_branch_pods().unwrap(), slice::from_ref(&wiring.key));
        assert!(end_branch_pod(&wiring.key).unwrap());
        assert!(!end_branch_pod(&wiring.key).unwrap());
        assert_eq!(settled_branch_pods().unwrap(), []);
    });
    gone_with_the_link(&world, &before);
}

/// The controller gives a branch to the next pod when the last one's is gone.
#[test]
fn a_late_del_leaves_a_vlan_alone_that_another_pod_has() {
    let (world, vlan) = prepared(Enforcing::Strict);
    let pods = [(); 2].map(|()| Netns::fresh().unwrap());
    let old = wiring(&pods[0]);
    let new = world::wiring("c2", "web-0", [10, 0, 5, 8], EniMark::PRIMARY, &pods[1]);
    let branch = branch(Enforcing::Strict);
    world.on_node(|| {
        let wired = over_since(&old, &branch, vlan, 0).unwrap();
        ip(&format!("link set {} name docker7", wired.host_link));
        // As it goes with the link of the VLAN, which the next ADD makes anew.
        ip("route flush table 105");
        over_since(&new, &branch, vlan, 0).unwrap();
        let right = ip("rule");
        assert!(end_branch_pod(&old.key).unwrap());
        assert_eq!(ip("rule"), right);
        assert!(!ip("link").contains("docker7"));
        assert_eq!(check_branch_pod(&new, &branch).unwrap(), []);
    });
}

#[test]
fn the_table_local_moves_behind_the_pods_rules_and_back() {
    let world = World::prepared();
    world.on_node(|| {
        let before = (ip("rule"), ip("-6 rule"));
        for _ in 0..2 {
            prepare_branches(Some(Enforcing::Strict)).unwrap();
        }
        let rules = ip("rule");
        assert!(rules.starts_with("20:\tfrom all lookup local"), "{rules}");
        assert!(!rules.contains("\n0:") && ip("-6 rule").starts_with("20:\tfrom all lookup local"), "{rules}");
        assert!(reaches("10.0.0.10", "10.0.0.10"), "the node still knows itself");
        // Cleaning up after us leaves it alone: without it the node would be cut off.
        crate::clean_host().unwrap();
        assert!(ip("rule").starts_with("20:\tfrom all lookup local"));
        eni_datapath::prepare_host(&world::host_plan()).unwrap();
        eni_datapath::prepare_eni(&world::eni_plan()).unwrap();
        prepare_branches(None).unwrap();
        assert_eq!((ip("rule"), ip("-6 rule")), before);
    });
}

/// With VLANs the whole way; without, the error that says so.
#[test]
fn the_vlan_itself_as_far_as_this_kernel_has_it() {
    let world = World::prepared();
    let before = world.on_node(snapshot);
    let pod = Netns::fresh().unwrap();
    let (wiring, branch) = (wiring(&pod), branch(Enforcing::Strict));
    world.on_node(|| prepare_branches(Some(Enforcing::Strict)).unwrap());
    let prepared = world.on_node(snapshot);
    match world.on_node(|| add_branch_pod(&wiring, &branch)) {
        Err(WireError::NoVlan) => {
            println!("NOT RUN: this kernel has no VLAN (CONFIG_VLAN_8021Q); the link of a branch ENI was not tested");
            assert_eq!(world.on_node(snapshot), prepared, "nothing is left");
            world.on_node(|| prepare_branches(None).unwrap());
            assert_eq!(world.on_node(snapshot), before);
        }
        Ok(_) => {
            world.in_fabric(|| {
                ip("link add link f1 name f1.5 type vlan id 5");
                ip("link set f1.5 up");
                ip("address add 10.0.0.1/20 dev f1.5");
                ip(&format!("neigh add 10.0.5.7 lladdr {MAC} dev f1.5"));
            });
            assert!(pod.inside(|| reaches("10.0.5.7", "10.0.0.1")).unwrap());
            world.on_node(|| del_branch_pod(&wiring.network.veth_prefix, &wiring.key, &wiring.pod).unwrap());
            assert_eq!(world.on_node(snapshot), prepared);
        }
        Err(other) => panic!("{other:?}"),
    }
}

#[test]
fn a_label_reads_back_as_written_and_is_no_other_pods() {
    let key = PodKey::new("pods", "c1", "eth0").unwrap();
    let (v4, v6) = (ADDRESS.into(), "2600:1f00::7".parse().unwrap());
    for addresses in [PodAddresses::V4(v4), PodAddresses::V6(v6), PodAddresses::Dual(v4, v6)] {
        let label = BranchLabel { key: key.clone(), vlan: 4094, since: 77, addresses };
        assert_eq!(label.to_string().parse(), Ok(label.clone()));
        assert!(label.to_string().parse::<eni_proto::LinkAlias>().is_err());
    }
    for bad in [
        "",
        "eni-cni-branch:1:a/b:5+10.0.0.1",
        "eni-cni-branch:1:a/b/c:5",
        "eni-cni-branch:1:a/b/c:x+10.0.0.1",
        "eni-cni-branch:1:a/b/c:5:x+10.0.0.1",
        "eni-cni-branch:1:a/b/c:5:6:7+10.0.0.1",
    ] {
        assert!(bad.parse::<BranchLabel>().is_err(), "{bad}");
    }
}
