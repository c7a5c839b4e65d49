//! What somebody breaks on a prepared node is mended, and nothing else is touched.

#![allow(clippy::unwrap_used, reason = "a test fails by it")]

mod world;

use std::time::Instant;

use eni_datapath::{Guard, Netns, Outcome, add_pod, del_pod, observe_pods};
use eni_proto::{EniMark, VethPrefix};
use world::{
    MARK, eni_plan,
    guarded::{Guarded, PATIENCE, settled, until_gate_is_free},
    host_plan, ip, ruleset, run, tables, try_run, wiring,
};

fn breakages(primary: &str, secondary: &str) -> Vec<String> {
    [
        "ip route flush table 20000",
        "ip route flush table 2",
        "ip route replace default via 10.0.0.1 dev eth0 onlink table 2",
        "ip rule del priority 512",
        "ip rule del priority 1536",
        "ip rule del priority 32765",
        "ip address del 10.0.0.11/32 dev eth1",
        "ip link set eth1 down",
        "ip link set eth1 address 02:00:00:00:99:99",
        "ip link set eth1 mtu 1400",
        "ip link set SECONDARY down",
        "ip link set SECONDARY group 0",
        "ip link set eth1 group 0",
        "ip link set SECONDARY address 02:00:00:00:99:98",
        "ip link set PRIMARY address 02:00:00:00:99:97",
        "sysctl -q -w net.ipv4.conf.eth1.rp_filter=1",
        "sysctl -q -w net.ipv4.conf.SECONDARY.rp_filter=0",
        "sysctl -q -w net.ipv4.ip_forward=0",
        "nft flush map ip eni_cni pod_eni",
        "nft flush set ip eni_cni direct",
        "nft flush chain ip eni_cni from_pod",
        "nft flush chain ip eni_cni eni_2",
        "nft add rule ip eni_cni from_pod drop",
        "nft chain ip eni_cni prerouting { policy drop ; }",
        "nft delete table ip eni_cni",
        "nft flush ruleset",
    ]
    .map(|line| line.replace("PRIMARY", primary).replace("SECONDARY", secondary))
    .to_vec()
}

fn carry_out(line: &str) {
    let (program, arguments) = line.split_once(' ').unwrap();
    run(program, arguments);
}

/// The handles of rules show whether somebody made them anew.
#[test]
fn an_eni_that_is_right_already_is_left_alone_and_one_that_is_not_is_made_right() {
    let node = Guarded::new();
    node.world.on_node(|| {
        let chain = || run("nft", "-a list chain ip eni_cni eni_2");
        let right = chain();
        node.guard.prepare_eni(&eni_plan()).unwrap();
        assert_eq!(chain(), right);
    });
    drop(node.guard);
    node.world.on_node(|| {
        let rule = || run("nft", "list chain ip eni_cni eni_2");
        let right = rule();
        for wrong in [
            "flush chain ip eni_cni eni_2",
            "add rule ip eni_cni eni_2 accept",
            "insert rule ip eni_cni eni_2 counter",
            "flush chain ip eni_cni eni_2; add rule ip eni_cni eni_2 meta mark set mark and 0xffffff80 xor 0x3",
        ] {
            run("nft", wrong);
            assert_ne!(rule(), right, "{wrong}");
            let guard = Guard::start(&VethPrefix::default(), |_| {}).unwrap();
            guard.prepare_host(&host_plan()).unwrap();
            guard.prepare_eni(&eni_plan()).unwrap();
            assert_eq!(rule(), right, "{wrong}");
        }
    });
}

#[test]
fn whatever_somebody_breaks_is_as_before_soon_after() {
    let node = Guarded::new();
    let links: Vec<String> = node.world.on_node(|| {
        let links = observe_pods(&VethPrefix::default()).unwrap().links;
        links.into_iter().map(|link| link.name).collect()
    });
    let right = node.world.on_node(settled);
    for line in breakages(&links[0], &links[1]) {
        let before = node.repairs().len();
        node.world.on_node(|| carry_out(&line));
        node.wait_for(&right, &line);
        // It is told right after it is done.
        let deadline = Instant::now() + PATIENCE;
        while node.repairs().len() == before {
            assert!(Instant::now() < deadline, "nothing was told of `{line}`");
        }
        let repairs = node.repairs();
        assert!(repairs.iter().all(|repair| repair.outcome == Outcome::Mended), "`{line}`: {repairs:#?}");
    }
}

/// What keeps a pod's packets from a wrong ENI while everything else is gone.
#[test]
fn the_last_gate_is_nobody_elses_to_open_and_outlives_the_guard() {
    let node = Guarded::new();
    let gate = || tables("list table ip eni_cni_stay");
    let world = &node.world;
    world.on_node(|| {
        let right = gate();
        assert!(right.contains("oifname \"eth0\" iifname \"eni*\""), "{right}");
        for line in ["delete table ip eni_cni_stay", "flush chain ip eni_cni_stay outbound", "flush ruleset"] {
            try_run("nft", line);
            assert_eq!(gate(), right, "{line}");
        }
        drop(node.guard);
        until_gate_is_free();
        assert!(gate().contains("oifname \"eth0\""));
        // Another life of the daemon takes it over; without any daemon it goes with the rest.
        let guard = Guard::start(&VethPrefix::default(), |_| {}).unwrap();
        guard.prepare_host(&host_plan()).unwrap();
        try_run("nft", "delete table ip eni_cni_stay");
        assert!(gate().contains("oifname \"eth0\""));
        drop(guard);
        eni_datapath::clean_host().unwrap();
        assert!(!ruleset().contains("eni_cni"), "{}", ruleset());
    });
}

#[test]
fn a_setting_of_which_the_kernel_tells_nobody_is_heard_of_also_on_a_link_that_came_back() {
    let node = Guarded::new();
    let mend = |setting: &str, wanted: &str| {
        // Earlier than the look that comes every ten seconds whatever is heard.
        let deadline = Instant::now() + PATIENCE / 4;
        node.world.on_node(|| {
            run("sysctl", &format!("-q -w net.ipv4.conf.eth1.{setting}=0"));
            while run("sysctl", &format!("-n net.ipv4.conf.eth1.{setting}")).trim() != wanted {
                assert!(Instant::now() < deadline, "{setting}: {:#?}", node.repairs());
            }
        });
    };
    for _ in 0..3 {
        mend("arp_ignore", "1");
        mend("arp_announce", "2");
    }
    let table = || node.world.on_node(|| ip("route show table 2"));
    let right = table();
    node.world.on_node(|| ip("link del eth1"));
    node.world.plug("eth1", world::MAC1, "f1");
    let deadline = Instant::now() + PATIENCE;
    while table() != right {
        assert!(Instant::now() < deadline, "{}: {:#?}", table(), node.repairs());
    }
    mend("arp_ignore", "1");
}

#[test]
fn the_check_on_pods_links_stays_strict() {
    let node = Guarded::new();
    node.world.on_node(|| {
        run("sysctl", "-q -w net.ipv4.conf.all.rp_filter=2");
        let deadline = Instant::now() + PATIENCE;
        while run("sysctl", "-n net.ipv4.conf.all.rp_filter").trim() != "0" {
            assert!(Instant::now() < deadline, "{:#?}", node.repairs());
        }
    });
}

#[test]
fn new_settings_are_kept_instead_of_the_old_ones_and_a_forgotten_eni_is_left_alone() {
    let node = Guarded::new();
    node.world.on_node(|| {
        let mut plan = host_plan();
        plan.direct = vec!["10.0.0.0/8".parse().unwrap()];
        node.guard.prepare_host(&plan).unwrap();
        del_pod(&VethPrefix::default(), &node.pods[1].key, &node.pods[1].pod, None).unwrap();
        // Where the DEL was slow the guard has put the element back; it takes that back.
        node.look_again();
        let deadline = Instant::now() + PATIENCE;
        while ruleset().contains("jump eni_2") {
            assert!(Instant::now() < deadline, "{:#?}", node.repairs());
        }
        node.guard.forget_eni(0, 1, MARK).unwrap();
    });
    let right = node.world.on_node(settled);
    assert!(right.contains("elements = { 10.0.0.0/8 }"), "{right}");
    node.world.on_node(|| run("nft", "flush set ip eni_cni direct"));
    node.wait_for(&right, "flush");
    assert!(node.repairs().iter().all(|repair| !repair.what.contains("10.0.0.11")), "{:#?}", node.repairs());
}

#[test]
fn pods_that_come_and_go_do_so_undisturbed() {
    let node = Guarded::new();
    let right = node.world.on_node(settled);
    let netns = Netns::fresh().unwrap();
    node.world.on_node(|| {
        for round in 0..150_u8 {
            let mark = if round % 2 == 0 { MARK } else { EniMark::PRIMARY };
            let pod = wiring(&format!("n{round}"), "churn", [10, 0, 2, 9], mark, &netns);
            add_pod(&pod).unwrap();
            del_pod(&VethPrefix::default(), &pod.key, &pod.pod, None).unwrap();
        }
    });
    node.wait_for(&right, "churn");
    // On a busy machine an ADD or DEL may take so long that the guard helps, but nothing else is touched, and all succeed.
    let told = node.repairs();
    assert!(told.iter().all(|repair| repair.what.contains("map element 10.0.2.9")), "{told:#?}");
}

#[test]
fn what_others_do_is_none_of_our_business() {
    let node = Guarded::new();
    node.world.on_node(|| {
        run("nft", "add table ip others");
        ip("route add 192.168.0.0/24 dev eth0 table 77");
        ip("rule add priority 700 from 192.168.0.1 lookup 77");
        ip("link add other type veth peer name other2");
        ip("link set other up");
        let before = settled();
        // A breakage of ours makes the guard look at everything.
        ip("rule del priority 512");
        node.wait_for(&before, "rule");
    });
    // It is told right after it is done.
    node.look_again();
    let told = node.repairs();
    assert_eq!(told.len(), 1, "{told:#?}");
}

#[test]
fn a_fight_is_given_up_for_a_while_and_told() {
    let node = Guarded::new();
    let given_up = || node.repairs().iter().any(|repair| matches!(repair.outcome, Outcome::LeftAlone(_)));
    let deadline = Instant::now() + PATIENCE * 3;
    node.world.on_node(|| {
        while !given_up() {
            assert!(Instant::now() < deadline, "{:#?}", node.repairs());
            // It fails while the rule is still missing.
            try_run("ip", "rule del priority 512");
        }
        // Everything else is mended meanwhile.
        ip("route flush table 2");
        while !ip("route show table 2").contains("default") {
            assert!(Instant::now() < deadline, "{:#?}", node.repairs());
        }
    });
    let mended = node.repairs().iter().filter(|repair| repair.outcome == Outcome::Mended).count();
    assert!(mended < 60, "{mended}");
    assert!(node.world.on_node(ruleset).contains("eni_2"));
}
