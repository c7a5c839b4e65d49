//! Pods with addresses of both families: real IPv6 packets, by which ENI, as whom, and how soon.

#![allow(clippy::unwrap_used, reason = "a test fails by it")]

mod world;

use std::{
    fs,
    net::{Ipv6Addr, SocketAddr, UdpSocket},
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

use eni_datapath::{
    EniPlan, Guard, HostPlan, Netns, Outcome, PodWiring, Repair, add_pod,
    apply::{Already, apply},
    clean_host, del_pod, leftovers,
    ops::{Address, Object, Op},
    prepare_eni, prepare_host,
};
use eni_proto::{EniMark, PodAddresses, VethPrefix};
use world::{MAC0, MAC1, MARK, World, eni_plan, host_plan, ip, ruleset, run, snapshot, wiring};

const REMOTE: &str = "2600:1f00:0:9::9";
const NODE: &str = "2600:1f00::10";
/// In the prefix of the primary ENI, and in that of the secondary.
const ON_PRIMARY: &str = "2600:1f00::a:0:0:1";
const ON_SECONDARY: &str = "2600:1f00::b:0:0:1";
const ALSO_ON_SECONDARY: &str = "2600:1f00::b:0:0:2";
/// The first of the secondary's prefix, which is its own.
const OWN: &str = "2600:1f00:0:0:b::";
const PORT: u16 = 7;
const PATIENCE: Duration = Duration::from_secs(20);
const SILENCE: Duration = Duration::from_millis(300);

struct Pods {
    world: World,
    netns: [Netns; 3],
    wiring: [PodWiring; 3],
}

fn plans() -> (HostPlan, EniPlan) {
    (HostPlan { ipv6: true, ..host_plan() }, EniPlan { ipv6: true, primary_v6: OWN.parse().ok(), ..eni_plan() })
}

impl Pods {
    fn new() -> Self {
        let world = World::new();
        let mac = |link: &str| world::ip_json(&format!("link show {link}"))[0]["address"].as_str().unwrap().to_owned();
        let routers = world.in_fabric(|| {
            fabric();
            ["f0", "f1"].map(mac)
        });
        world.on_node(|| {
            fs::write("/proc/sys/net/ipv6/conf/all/accept_dad", "0").unwrap();
            ip("link set eth1 up");
            ip(&format!("address add {NODE}/64 dev eth0 nodad"));
            for (link, mac) in ["eth0", "eth1"].iter().zip(&routers) {
                ip(&format!("neighbour replace fe80:ec2::1 lladdr {mac} dev {link} nud permanent"));
            }
            ip("-6 route add default via fe80:ec2::1 dev eth0");
            prepare_host(&plans().0).unwrap();
            prepare_eni(&plans().1).unwrap();
        });
        world.activate();
        let netns = [(); 3].map(|()| Netns::fresh().unwrap());
        let pod = |n: usize, v6: &str, mark| {
            let last = u8::try_from(n).unwrap() + 1;
            let mut pod = wiring(&format!("c{n}"), &format!("web-{n}"), [10, 0, 1, last], mark, &netns[n]);
            pod.network.addresses = PodAddresses::new(pod.network.addresses.v4(), v6.parse().ok()).unwrap();
            pod
        };
        let wiring =
            [pod(0, ON_PRIMARY, EniMark::PRIMARY), pod(1, ON_SECONDARY, MARK), pod(2, ALSO_ON_SECONDARY, MARK)];
        world.on_node(|| wiring.iter().for_each(|pod| drop(add_pod(pod).unwrap())));
        Self { world, netns, wiring }
    }

    fn ask(&self, pod: usize, to: &str) -> Option<String> {
        self.netns[pod].inside(|| ask_from("::", to, PATIENCE)).unwrap()
    }

    /// By which links of the fabric packets from this source came, as `f0` or `f1`.
    fn seen(&self, source: &str) -> String {
        let sets = self.world.in_fabric(ruleset);
        ["f0", "f1"].into_iter().filter(|link| sets.contains(&format!("\"{link}\" . {source}"))).collect()
    }
}

/// Delivers each prefix to its ENI, answers for the outside, and notes what came by which link.
fn fabric() {
    ip("link set lo up");
    fs::write("/proc/sys/net/ipv6/conf/all/forwarding", "1").unwrap();
    ip(&format!("address add {REMOTE}/128 dev lo nodad"));
    for (link, mac, owned) in
        [("f0", MAC0, [NODE, "2600:1f00::a:0:0:0/80"]), ("f1", MAC1, ["2600:1f00::c", "2600:1f00::b:0:0:0/80"])]
    {
        ip(&format!("address add fe80:ec2::1/64 dev {link} nodad"));
        ip(&format!("neighbour replace fe80::e lladdr {mac} dev {link} nud permanent"));
        for network in owned {
            ip(&format!("-6 route add {network} via fe80::e dev {link} onlink src {REMOTE}"));
        }
    }
    run("nft", "add table ip6 seen");
    run("nft", "add set ip6 seen pairs { type ifname . ipv6_addr ; flags dynamic ; }");
    run("nft", "add chain ip6 seen note { type filter hook prerouting priority raw ; }");
    run("nft", "add rule ip6 seen note ip6 nexthdr udp add @pairs { iifname . ip6 saddr }");
    serve(REMOTE);
}

/// Tells each asker as whom it was seen, from this thread's namespace, until the test is over.
fn serve(address: &str) {
    let socket = UdpSocket::bind((address.parse::<Ipv6Addr>().unwrap(), PORT)).unwrap();
    thread::spawn(move || {
        let mut buffer = [0; 64];
        // A process that was stopped for a moment has its waiting interrupted.
        let interrupted = |error: &std::io::Error| error.kind() == std::io::ErrorKind::Interrupted;
        loop {
            match socket.recv_from(&mut buffer) {
                Ok((_, from)) => drop(socket.send_to(from.ip().to_string().as_bytes(), from).unwrap()),
                Err(error) if interrupted(&error) => {}
                Err(_) => break,
            }
        }
    });
}

fn ask_from(source: &str, to: &str, patience: Duration) -> Option<String> {
    let to = SocketAddr::new(to.parse().unwrap(), PORT);
    let socket = UdpSocket::bind((source.parse::<Ipv6Addr>().unwrap(), 0)).unwrap();
    socket.set_read_timeout(Some(patience)).unwrap();
    socket.send_to(b"who am I", to).unwrap();
    let mut buffer = [0; 64];
    let (length, from) = loop {
        match socket.recv_from(&mut buffer) {
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            outcome => break outcome.ok()?,
        }
    };
    assert_eq!(from, to, "the answer comes from where the question went");
    Some(String::from_utf8_lossy(&buffer[..length]).into_owned())
}

#[test]
fn a_pods_first_packet_leaves_at_once_by_the_eni_that_owns_its_prefix() {
    let pods = Pods::new();
    // No wait for a look whether somebody else has the address: it can be used when the ADD is over.
    let addresses = pods.netns[1].inside(|| ip("-6 address show dev eth0 scope global")).unwrap();
    assert!(addresses.contains(&format!("{ON_SECONDARY}/128")), "{addresses}");
    assert!(!addresses.contains("tentative"), "{addresses}");
    // What comes for it is taken when the ADD is over, not when the kernel has caught up in the background.
    let own = pods.netns[1].inside(|| ip("-6 route show table local proto 142")).unwrap();
    assert!(own.contains(&format!("local {ON_SECONDARY} dev eth0")), "{own}");
    assert_eq!(pods.ask(1, REMOTE).as_deref(), Some(ON_SECONDARY));
    assert_eq!(pods.ask(0, REMOTE).as_deref(), Some(ON_PRIMARY));
    assert_eq!((pods.seen(ON_PRIMARY).as_str(), pods.seen(ON_SECONDARY).as_str()), ("f0", "f1"));
}

#[test]
fn an_eni_that_has_just_come_can_ask_for_its_router_and_has_an_address_of_its_own() {
    let world = World::new();
    world.on_node(|| {
        prepare_host(&plans().0).unwrap();
        let plan = plans().1;
        prepare_eni(&plan).unwrap();
        let addresses = ip("-6 address show dev eth1");
        assert!(addresses.contains("fe80::") && addresses.contains(OWN), "{addresses}");
        assert_eq!(run("sysctl", "-n net.ipv6.conf.eth1.accept_dad").trim(), "0", "the address is used without a look");
        assert!(ip("-6 rule").contains(&format!("32765:\tfrom {OWN} lookup 2")), "{}", ip("-6 rule"));
        let before = snapshot();
        prepare_eni(&plan).unwrap();
        assert_eq!(snapshot(), before);
        eni_datapath::forget_eni(0, 1, MARK).unwrap();
        assert!(!ip("-6 address").contains(OWN));
        assert!(!ip("-6 rule").contains(OWN));
    });
}

#[test]
fn an_enis_address_that_an_older_version_left_is_no_longer_one_that_the_node_sends_from() {
    let world = World::new();
    world.on_node(|| {
        prepare_host(&plans().0).unwrap();
        prepare_eni(&EniPlan { primary_v6: None, ..plans().1 }).unwrap();
        let link = u32::try_from(world::ip_json("link show eth1")[0]["ifindex"].as_u64().unwrap()).unwrap();
        let address = Address { link, address: OWN.parse().unwrap(), deprecated: false };
        apply(&[Op::Add(Object::Address(address))], Already::Refused).unwrap();
        run("sysctl", "-q -w net.ipv6.conf.eth1.use_oif_addrs_only=0");
        prepare_eni(&plans().1).unwrap();
        let addresses = ip("-6 address show dev eth1 scope global");
        assert_eq!(addresses.matches("inet6").count(), 1, "{addresses}");
        assert!(addresses.contains("valid_lft forever preferred_lft 0sec"), "{addresses}");
        assert_eq!(run("sysctl", "-n net.ipv6.conf.eth1.use_oif_addrs_only").trim(), "1");
        let ours = leftovers().unwrap();
        assert!(ours.contains(&format!("address {OWN}/128 on link {link} (deprecated)")), "{ours:?}");
    });
}

#[test]
fn pods_and_their_node_meet_without_the_vpc() {
    let pods = Pods::new();
    pods.netns[0].inside(|| serve(ON_PRIMARY)).unwrap();
    pods.netns[2].inside(|| serve(ALSO_ON_SECONDARY)).unwrap();
    pods.world.on_node(|| serve(NODE));
    for target in [ON_PRIMARY, ALSO_ON_SECONDARY, NODE] {
        assert_eq!(pods.ask(1, target).as_deref(), Some(ON_SECONDARY), "{target}");
    }
    for target in [ON_PRIMARY, ALSO_ON_SECONDARY] {
        assert_eq!(pods.world.on_node(|| ask_from("::", target, PATIENCE)).as_deref(), Some(NODE), "{target}");
    }
    assert_eq!(pods.seen(ON_SECONDARY), "");
}

#[test]
fn the_vpc_reaches_a_pod_and_a_port_of_the_node() {
    let pods = Pods::new();
    pods.netns[1].inside(|| serve(ON_SECONDARY)).unwrap();
    pods.world.on_node(|| {
        run("nft", "add table ip6 kube");
        run("nft", "add chain ip6 kube nodeports { type nat hook prerouting priority dstnat ; }");
        run("nft", &format!("add rule ip6 kube nodeports ip6 daddr {NODE} udp dport 7 dnat to {ON_SECONDARY}"));
    });
    for target in [ON_SECONDARY, NODE] {
        assert_eq!(pods.world.in_fabric(|| ask_from("::", target, PATIENCE)).as_deref(), Some(REMOTE), "{target}");
    }
    assert_eq!((pods.seen(ON_SECONDARY).as_str(), pods.seen(NODE).as_str()), ("f1", "f0"));
}

#[test]
fn a_pod_cannot_use_an_address_that_is_not_its_own() {
    let pods = Pods::new();
    for stolen in [ALSO_ON_SECONDARY, ON_PRIMARY, NODE, "2600:1f00::dead"] {
        let answer = pods.netns[1].inside(|| {
            ip(&format!("address add {stolen}/128 dev lo nodad"));
            ask_from(stolen, REMOTE, SILENCE)
        });
        assert_eq!((answer.unwrap(), pods.seen(stolen).as_str()), (None, ""), "{stolen}");
    }
}

#[test]
fn what_a_pod_says_of_others_by_neighbour_discovery_is_not_heard() {
    let pods = Pods::new();
    pods.netns[2].inside(|| serve(ALSO_ON_SECONDARY)).unwrap();
    pods.netns[1]
        .inside(|| {
            for claimed in [ALSO_ON_SECONDARY, "fe80::1", "fe80:ec2::1"] {
                ip(&format!("address add {claimed}/128 dev eth0 nodad"));
            }
            // It asks in the name of its neighbour, and answers whoever asks.
            ip(&format!("-6 route add 2600:1f00::77 dev eth0 src {ALSO_ON_SECONDARY}"));
            ask_from(ALSO_ON_SECONDARY, "2600:1f00::77", SILENCE);
        })
        .unwrap();
    assert_eq!(pods.world.on_node(|| ask_from("::", ALSO_ON_SECONDARY, PATIENCE)).as_deref(), Some(NODE));
    assert_eq!(pods.ask(2, REMOTE).as_deref(), Some(ALSO_ON_SECONDARY));
    let learnt = pods.world.on_node(|| ip("-6 neighbour"));
    assert!(learnt.lines().all(|line| !line.contains("dev eni") || line.contains("PERMANENT")), "{learnt}");
}

#[test]
fn an_add_again_changes_nothing_and_a_del_takes_both_families_away() {
    let pods = Pods::new();
    pods.world.on_node(|| {
        let before = (snapshot(), ip("-6 route show table all proto 142"), ip("-6 rule"));
        add_pod(&pods.wiring[1]).unwrap();
        assert_eq!((snapshot(), ip("-6 route show table all proto 142"), ip("-6 rule")), before);
        for pod in &pods.wiring {
            del_pod(&VethPrefix::default(), &pod.key, &pod.pod, None).unwrap();
        }
        assert_eq!(ip("-6 route show table 20000"), "");
        assert!(!ruleset().contains("jump eni_2"), "{}", ruleset());
        clean_host().unwrap();
        assert_eq!(leftovers().unwrap(), Vec::<String>::new());
    });
}

#[test]
fn whatever_somebody_breaks_of_ipv6_is_as_before_soon_after() {
    let pods = Pods::new();
    let repairs: Arc<Mutex<Vec<Repair>>> = Arc::default();
    let told = Arc::clone(&repairs);
    pods.world.on_node(|| {
        let guard =
            Guard::start(&VethPrefix::default(), move |repair| told.lock().unwrap().push(repair.clone())).unwrap();
        guard.prepare_host(&plans().0).unwrap();
        guard.prepare_eni(&plans().1).unwrap();
        let state = || {
            let mut lines: Vec<String> = [
                ip("-6 route show table all proto 142"),
                ip("-6 rule"),
                ruleset(),
                ip("-6 neighbour show nud permanent"),
                ip("-6 address show dev eth1 scope global"),
                run("sysctl", "net.ipv6.conf.all.forwarding net.ipv6.conf.eth1.use_oif_addrs_only"),
            ]
            .iter()
            .flat_map(|text| text.lines().map(|line| line.trim().to_owned()).collect::<Vec<_>>())
            .collect();
            lines.sort();
            lines
        };
        let right = state();
        for line in [
            "ip -6 route flush table 20000",
            "ip -6 route flush table 2",
            "ip -6 rule del priority 512",
            "ip -6 rule del priority 1536",
            "nft flush map ip6 eni_cni pod_eni",
            "nft flush chain ip6 eni_cni inbound",
            "nft delete table ip6 eni_cni",
            "sysctl -q -w net.ipv6.conf.all.forwarding=0",
            "sysctl -q -w net.ipv6.conf.eth1.use_oif_addrs_only=0",
            &format!("ip -6 address change {OWN}/128 dev eth1 preferred_lft forever valid_lft forever"),
            &format!("ip -6 address del {OWN}/128 dev eth1"),
        ] {
            let (program, arguments) = line.split_once(' ').unwrap();
            run(program, arguments);
            let deadline = Instant::now() + PATIENCE;
            while state() != right {
                assert!(Instant::now() < deadline, "`{line}`: {:#?}\n{:#?}", state(), repairs.lock().unwrap());
            }
        }
        let repairs = repairs.lock().unwrap();
        assert!(repairs.iter().all(|repair| repair.outcome == Outcome::Mended), "{repairs:#?}");
    });
}
