//! The incumbent's rules and chains, written by the system's own tools, are found, replaced and put back.

use std::{process::Command, str::FromStr};

use eni_proto::{EniMark, PodKey, VethPrefix};

use super::*;
use crate::{Netns, SourcePorts};

const ETH0: MacAddress = MacAddress([2, 0, 0, 0, 0, 1]);
const ETH1: MacAddress = MacAddress([2, 0, 0, 0, 0, 2]);

/// A node with two ENIs and a pod on each, as the incumbent leaves it.
const NODE: &str = "
ip link set lo up
ip link add eth0 address 02:00:00:00:00:01 type veth peer name f0
ip link add eth1 address 02:00:00:00:00:02 type veth peer name f1
for link in eth0 eth1 f0 f1; do ip link set $link up; done
ip addr add 10.0.0.10/20 dev eth0
ip addr add 10.0.0.11/20 dev eth1 noprefixroute
ip route add 10.0.0.1 dev eth1 scope link table 2
ip route add default via 10.0.0.1 dev eth1 table 2
ip rule add pref 1024 fwmark 0x80/0x80 lookup main
ip rule add pref 32765 from 10.0.0.11 lookup 2
for n in 1 2; do
  ip link add eni0000000000$n address 06:00:00:00:00:0$n type veth peer name pod$n
  ip link set eni0000000000$n up; ip link set pod$n up
  ip route add 10.0.1.$n dev eni0000000000$n scope link
  ip rule add pref 512 to 10.0.1.$n lookup main
done
ip rule add pref 1536 from 10.0.1.2 lookup 2
iptables-nft -t nat -N AWS-CONNMARK-CHAIN-0
iptables-nft -t nat -N AWS-SNAT-CHAIN-0
iptables-nft -t nat -A PREROUTING -p tcp --dport 80 -m comment --comment 'somebody else' -j ACCEPT
iptables-nft -t nat -A PREROUTING -i eni+ -m comment --comment 'AWS, outbound connections' -j AWS-CONNMARK-CHAIN-0
iptables-nft -t nat -A PREROUTING -m comment --comment 'AWS, CONNMARK' -j CONNMARK --restore-mark --mask 0x80
iptables-nft -t nat -A AWS-CONNMARK-CHAIN-0 -d 10.0.0.0/16 -m comment --comment 'AWS CONNMARK CHAIN, VPC CIDR' -j RETURN
iptables-nft -t nat -A AWS-CONNMARK-CHAIN-0 -m comment --comment 'AWS, CONNMARK' -j CONNMARK --set-xmark 0x80/0x80
iptables-nft -t nat -A POSTROUTING -m comment --comment 'AWS SNAT CHAIN' -j AWS-SNAT-CHAIN-0
iptables-nft -t nat -A AWS-SNAT-CHAIN-0 ! -o vlan+ -m comment --comment 'AWS, SNAT' -m addrtype ! --dst-type LOCAL -j SNAT --to-source 10.0.0.10 --random-fully
iptables-nft -t mangle -A PREROUTING -i eth0 -m comment --comment 'AWS, primary ENI' -m addrtype --dst-type LOCAL --limit-iface-in -j CONNMARK --set-xmark 0x80/0x80
iptables-nft -t mangle -A PREROUTING -i eni+ -m comment --comment 'AWS, primary ENI' -j CONNMARK --restore-mark --mask 0x80
nft add table ip aws-cni
nft 'add chain ip aws-cni snat-mark'
nft 'add chain ip aws-cni nat-prerouting { type nat hook prerouting priority -90; policy accept; }'
nft 'add rule ip aws-cni nat-prerouting fib daddr type local return'
nft 'add rule ip aws-cni nat-prerouting iifname \"eni*\" counter jump snat-mark'
nft 'add rule ip aws-cni snat-mark ct mark set ct mark or 0x80'
";

fn shell(script: &str) -> String {
    let output = Command::new("sh").args(["-ec", script]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// All that tools show of rules, routes and chains, without counters and handles.
fn shown() -> Vec<String> {
    let text = shell(
        "ip rule; ip -6 rule; ip route show table 2; ip -6 route show table 2 2>/dev/null || true; ip -6 -o address show dev eth1 scope global; ip route show table main | grep '^10.0.1' || true; ip route show table 20000 2>/dev/null || true; nft -s list ruleset | sed 's/handle [0-9]*//'; ip -o link | sed -n 's/.*\\(eni0[0-9]*\\).*alias \\(.*\\)/\\1 \\2/p'",
    );
    text.lines().map(|line| line.trim().to_owned()).collect()
}

fn host() -> HostPlan {
    HostPlan {
        primary_mac: ETH0,
        primary_address: Ipv4Addr::new(10, 0, 0, 10),
        direct: vec!["10.0.0.0/16".parse().unwrap()],
        external_snat: false,
        node_ports: true,
        source_ports: SourcePorts::default(),
        by_main: vec![],
        veth_prefix: VethPrefix::default(),
        mtu: 1500,
        ipv6: true,
    }
}

fn enis() -> Vec<EniPlan> {
    vec![EniPlan {
        mac: ETH1,
        primary: Ipv4Addr::new(10, 0, 0, 11),
        subnet: "10.0.0.0/20".parse().unwrap(),
        device_index: 1,
        card: 0,
        mark: EniMark::of_device(1),
        mtu: 1500,
        ipv6: true,
        primary_v6: "2600:1f00::b:0:0:0".parse().ok(),
    }]
}

fn look() -> Incumbent {
    Incumbent::observe(&VethPrefix::default()).unwrap()
}

fn adoptions(seen: &Incumbent) -> Vec<Adoption> {
    let one = |pod: FoundPod| {
        let last = pod.address.octets()[3];
        Adoption {
            key: PodKey::new("eni-cni", &format!("c{last}"), "eth0").unwrap(),
            link: pod.index,
            name: pod.name,
            mac: pod.mac,
            address: pod.address,
            eni_mark: EniMark::of_device(last - 1),
        }
    };
    seen.pods().into_iter().map(one).collect()
}

fn on_a_node(work: impl FnOnce() + Send) {
    let work = || {
        shell(NODE);
        work();
    };
    Netns::fresh().unwrap().inside(work).unwrap();
}

#[test]
fn a_node_is_taken_over_and_given_back_as_it_was() {
    on_a_node(|| {
        let before = shown();
        let seen = look();
        assert_eq!(seen.pods().len(), 2);
        assert_eq!(seen.leftovers().len(), 7, "chains only: {:?}", seen.leftovers());
        let saved = Chains::from_str(&seen.chains().to_records()).unwrap();

        let pods = adoptions(&seen);
        for _ in 0..2 {
            adopt(&seen, &host(), &enis(), &pods).unwrap();
        }
        remove(&look()).unwrap();
        let ours = shown();
        assert_eq!(look().leftovers(), [""; 0], "{ours:#?}");
        assert!(ours.iter().all(|line| !line.contains("AWS") && !line.contains("aws-cni")), "{ours:#?}");
        assert!(ours.iter().any(|line| line.contains("dport 80")), "others' rules stay: {ours:#?}");
        assert!(ours.contains(&"default via 10.0.0.1 dev eth1 proto 142".to_owned()), "{ours:#?}");
        assert_eq!(ours.iter().filter(|line| line.contains("eni-cni:1:eni-cni/c")).count(), 2, "{ours:#?}");
        assert_eq!(remove(&look()).unwrap(), [""; 0]);

        for _ in 0..2 {
            restore(&look(), &enis(), &saved).unwrap();
        }
        for _ in 0..2 {
            withdraw(&look(), &enis()).unwrap();
        }
        let after = shown();
        let sorted = |mut lines: Vec<String>| {
            lines.sort();
            lines
        };
        assert_eq!(sorted(after), sorted(before));
        assert_eq!(crate::leftovers().unwrap(), [""; 0]);
    });
}

#[test]
fn what_a_pod_of_the_incumbents_needs_is_no_leftover() {
    on_a_node(|| {
        let pods = adoptions(&look());
        adopt(&look(), &host(), &enis(), &pods[..1]).unwrap();
        let left = look().leftovers();
        assert!(left.iter().any(|line| line == "rule 512: to 10.0.1.1/32 lookup 254"), "{left:#?}");
        assert!(left.iter().all(|line| !line.contains("10.0.1.2")), "{left:#?}");
        shell("ip link del eni00000000002");
        let left = look().leftovers();
        assert!(left.iter().any(|line| line == "rule 1536: from 10.0.1.2 lookup 2"), "{left:#?}");
        shell("ip rule add pref 700 lookup 9 protocol 142; ip rule add pref 1536 fwmark 9/0x7f lookup 9 protocol 142");
        let left = look().leftovers();
        assert_eq!(left.iter().filter(|line| line.ends_with("an older version made")).count(), 2, "{left:#?}");
    });
}

#[test]
fn what_our_pods_on_branch_enis_need_is_not_of_an_older_version() {
    on_a_node(|| {
        adopt(&look(), &host(), &enis(), &adoptions(&look())).unwrap();
        shell(
            "ip rule add pref 10 iif vlan.eth.3 lookup 103 protocol 142; ip rule add pref 10 iif vlan00000000003 lookup 103 protocol 142
            ip rule add pref 513 to 10.0.1.4 lookup main protocol 142
            ip route add 10.0.1.4 dev eth0 table 104 protocol 142; ip rule add pref 1536 from 10.0.1.4 lookup 104 protocol 142",
        );
        let before = shell("ip rule | grep -E '^(10|513):|lookup 104'");
        remove(&look()).unwrap();
        assert_eq!(shell("ip rule | grep -E '^(10|513):|lookup 104' || true"), before);
    });
}

/// A rule that leads to a pod that is gone would lead the next one with its address astray.
#[test]
fn what_is_left_of_its_ipv6_pods_is_removed_and_what_living_ones_need_stays() {
    on_a_node(|| {
        shell(
            "for n in 1 3; do ip -6 rule add pref 512 to 2600:1f00::$n lookup main; ip -6 rule add pref 1536 from 2600:1f00::$n lookup 2; done
            ip -6 route add 2600:1f00::1 dev eni00000000001
            ip -6 rule add pref 512 to 2600:1f00::9 lookup 7
            ip -6 rule add pref 700 lookup 9 protocol 142",
        );
        remove(&look()).unwrap();
        let kept = shell("ip -6 rule; ip -6 route show table main");
        for gone in ["2600:1f00::3", "lookup 9"] {
            assert!(!kept.contains(gone), "{kept}");
        }
        for line in ["512:\tfrom all to 2600:1f00::1 lookup main", "1536:\tfrom 2600:1f00::1 lookup 2", "lookup 7"] {
            assert!(kept.contains(line), "{kept}");
        }
        assert!(kept.contains("2600:1f00::1 dev eni00000000001"), "{kept}");
        // The pod ends.
        shell("ip link del eni00000000001");
        remove(&look()).unwrap();
        let kept = shell("ip -6 rule");
        assert!(!kept.contains("2600:1f00::1"), "{kept}");
    });
}

#[test]
fn records_that_say_nothing_are_refused() {
    for line in ["chain nat", "rule nat PREROUTING zz 00", "table nat x"] {
        assert!(Chains::from_str(line).is_err(), "{line}");
    }
    assert!(Chains::from_str("").unwrap().is_empty());
}
