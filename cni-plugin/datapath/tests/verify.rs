//! What a look for people finds wrong with a node, and what is mended where nobody keeps it right.

#![allow(clippy::unwrap_used, reason = "a test says by a panic what is not as it should be")]

mod world;

use eni_datapath::{
    EniPlan, HostPlan, Netns, Outcome, Packet, SourcePorts, add_pod, forward_drops, observe_pods, prepare_eni,
    prepare_host, repair, verify, ways,
};
use eni_proto::{EniMark, VethPrefix};
use world::{MARK, World, eni_plan, host_plan, ip, wiring};

/// Runs lines of `ip`, `nft` and `sysctl`; the first word says which.
fn run(line: &str) {
    let mut words = line.split(' ');
    let status = std::process::Command::new(words.next().unwrap()).args(words).status().unwrap();
    assert!(status.success(), "{line}");
}

fn found(host: &HostPlan, enis: &[EniPlan]) -> Vec<String> {
    verify(Some(host), enis, &VethPrefix::default()).unwrap().into_iter().map(|wrong| wrong.what).collect()
}

/// On a node with a pod on each ENI; of both families.
fn on_a_node(test: impl FnOnce(&HostPlan, &[EniPlan]) + Send) {
    let (world, netns) = (World::new(), [(); 2].map(|()| Netns::fresh().unwrap()));
    let pods = [
        wiring("c1", "web-1", [10, 0, 1, 1], EniMark::PRIMARY, &netns[0]),
        wiring("c2", "web-2", [10, 0, 1, 2], MARK, &netns[1]),
    ];
    let host = HostPlan {
        ipv6: true,
        direct: vec!["10.0.0.0/16".parse().unwrap(), "10.9.0.0/24".parse().unwrap()],
        ..host_plan()
    };
    let enis = [EniPlan { ipv6: true, ..eni_plan() }];
    world.on_node(|| {
        prepare_host(&host).unwrap();
        enis.iter().for_each(|eni| drop(prepare_eni(eni).unwrap()));
        pods.iter().for_each(|pod| drop(add_pod(pod).unwrap()));
        test(&host, &enis);
    });
}

#[test]
fn each_thing_that_somebody_breaks_is_found_by_name_and_mended_once() {
    on_a_node(|host, enis| {
        assert_eq!(found(host, enis), [""; 0]);
        for (line, what) in [
            ("ip rule del priority 512", "add rule 512: lookup 20000"),
            ("ip -6 rule del priority 1536", "add IPv6 rule 1536: fwmark 0x2/0x7f lookup 2"),
            ("ip route del default table 2", "add route 0.0.0.0/0 via 10.0.0.1 on link eth1 in table 2"),
            ("ip link set eth1 mtu 1400", "set mtu 9001 on link eth1"),
            (
                "sysctl -qw net.ipv4.conf.eth1.rp_filter=1",
                "kernel setting net/ipv4/conf/eth1/rp_filter is 1 instead of 2",
            ),
            ("sysctl -qw net.ipv4.ip_forward=0", "kernel setting net/ipv4/ip_forward is 0 instead of 1"),
            (
                "sysctl -qw net.ipv6.conf.eth0.accept_ra=1",
                "kernel setting net/ipv6/conf/eth0/accept_ra is 1 instead of 2",
            ),
            ("ip route del 10.0.1.2 table 20000", "add route 10.0.1.2/32 on link "),
            ("nft delete element ip eni_cni pod_eni { 10.0.1.2 }", "set map element 10.0.1.2 to ENI 2"),
            ("nft flush chain ip eni_cni eni_2", "the nf_tables tables ip eni_cni"),
            ("nft flush chain ip6 eni_cni prerouting", "the nf_tables tables ip6 eni_cni"),
            ("nft delete element ip eni_cni direct { 10.9.0.0/24 }", "the nf_tables tables ip eni_cni"),
            ("nft delete table ip eni_cni_stay", "the nf_tables tables ip eni_cni"),
            ("nft flush ruleset", "the nf_tables tables ip eni_cni"),
        ] {
            run(line);
            let found = found(host, enis);
            assert!(found.iter().any(|one| one.starts_with(what)), "after {line}: {found:#?}");
            let done = repair(Some(host), enis, &VethPrefix::default()).unwrap();
            assert!(
                !done.is_empty() && done.iter().all(|one| one.outcome == Outcome::Mended),
                "after {line}: {done:#?}"
            );
            assert_eq!(self::found(host, enis), [""; 0], "after {line} and {done:#?}");
        }
        assert_eq!(repair(Some(host), enis, &VethPrefix::default()).unwrap(), []);
    });
}

#[test]
fn on_a_node_as_prepared_nothing_is_found_whatever_the_settings() {
    on_a_node(|host, enis| {
        let by_main = vec!["192.168.7.0/24".parse().unwrap()];
        for source_ports in [SourcePorts::Random, SourcePorts::Hashed, SourcePorts::Kept] {
            for (external_snat, node_ports, ipv6) in [(false, true, true), (true, true, true), (false, false, false)] {
                let by_main = if node_ports { vec![] } else { by_main.clone() };
                let host = HostPlan { source_ports, external_snat, node_ports, ipv6, by_main, ..host.clone() };
                prepare_host(&host).unwrap();
                let enis = [EniPlan { ipv6, ..enis[0].clone() }];
                prepare_eni(&enis[0]).unwrap();
                assert_eq!(found(&host, &enis), [""; 0], "{host:?}");
            }
        }
    });
}

#[test]
fn what_is_not_ours_to_mend_is_found_and_left() {
    on_a_node(|host, enis| {
        ip("rule add priority 512 fwmark 0x1 lookup 77");
        ip("link set eth1 address 02:00:00:00:0f:0f");
        let found = found(host, enis);
        assert_eq!(found.len(), 2, "{found:#?}");
        assert!(found.iter().any(|one| one.contains("no link has the hardware address")), "{found:#?}");
        assert!(found.iter().any(|one| one.contains("priority 512 to table 77")), "{found:#?}");
        assert_eq!(repair(Some(host), enis, &VethPrefix::default()).unwrap(), []);
        assert!(world::ip_json("rule show priority 512").as_array().unwrap().len() == 2);
    });
}

#[test]
fn the_kernel_tells_which_way_a_packet_takes_and_why_not() {
    on_a_node(|_, _| {
        ip("link set lo up");
        let pods = observe_pods(&VethPrefix::default()).unwrap();
        let pod = [10, 0, 1, 2].into();
        let own = pods.links.iter().find(|link| link.index == pods.routes[&pod]).unwrap();
        let eth1 = world::ip_json("link show eth1")[0]["ifindex"].as_u64().unwrap().try_into().unwrap();
        let router = [10, 0, 0, 1].into();
        let to_pod = Packet { from: router, to: pod, enters_by: eth1, mark: 0 };
        let from_pod = Packet { from: pod, to: router, enters_by: own.index, mark: MARK.value() };
        let asked = || ways(&[to_pod, from_pod]).unwrap();
        assert_eq!(asked(), [Ok(own.name.clone()), Ok("eth1".to_owned())]);
        ip("route add default via 10.0.0.1 dev eth0 table 77");
        ip("rule add priority 100 lookup 77");
        // The pod's own packet looks as if it came in by the wrong link.
        assert!(asked()[0] == Ok("eth0".to_owned()) && asked()[1].is_err(), "{:?}", asked());
        ip("rule del priority 100");
        run("sysctl -qw net.ipv4.conf.eth1.rp_filter=1");
        assert!(asked()[0].is_err(), "{:?}", asked());
        run("sysctl -qw net.ipv4.conf.eth1.rp_filter=2");
        run("sysctl -qw net.ipv4.ip_forward=0");
        assert!(asked().iter().all(Result::is_err), "{:?}", asked());
    });
}

#[test]
fn a_chain_that_drops_what_is_forwarded_is_named() {
    on_a_node(|_, _| {
        assert_eq!(forward_drops().unwrap(), [""; 0]);
        run("nft add table inet wall");
        run("nft add chain inet wall forward { type filter hook forward priority 0 ; policy drop ; }");
        run("nft add chain inet wall input { type filter hook input priority 0 ; policy drop ; }");
        run("nft add chain inet wall later { type filter hook forward priority 1 ; policy accept ; }");
        run("iptables-nft -P FORWARD DROP");
        assert_eq!(forward_drops().unwrap(), ["inet wall forward", "ip filter FORWARD"]);
    });
}
