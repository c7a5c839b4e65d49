//! What `ipamd doctor` and `ipamd explain` say of a real node, well and hurt.

#![allow(clippy::unwrap_used, reason = "a test says by a panic what is not as it should be")]

use std::sync::Arc;

use e2e::{Cluster, Verb, Worker, flight, flight::Placed};
use nix::sys::signal::Signal;
use serde_json::Value;

mod stage;

use stage::{ipamd, ipamd_with, ready_cluster};

#[tokio::test(flavor = "multi_thread")]
async fn a_doctor_finds_what_somebody_broke_and_only_that() {
    let cluster = ready_cluster(1, 1, &[]).await;
    let pods = flight::add(&cluster, &flight::sandboxes(3).unwrap()).await.unwrap();
    let worker = &cluster.workers[0];
    let node = worker.node().namespace();
    let (code, said) = ipamd(worker, &["doctor"]);
    assert_eq!((code, said.as_str()), (Some(0), "3 leases checked: 0 errors, 0 warnings, 0 not checked\n"));

    // A daemon that runs would mend this at once.
    worker.signal_daemon(Signal::SIGSTOP).unwrap();
    let address = pods[0].place.address;
    node.run(&["ip", "route", "del", &address.to_string(), "table", "20000"]).unwrap();
    node.run(&["sysctl", "-qw", "net.ipv4.ip_forward=0"]).unwrap();
    let (code, said) = ipamd(worker, &["doctor", "--output", "json"]);
    assert_eq!(code, Some(1), "{said}");
    let report: Value = serde_json::from_str(&said).unwrap();
    let found: Vec<&str> =
        report["findings"].as_array().unwrap().iter().map(|it| it["what"].as_str().unwrap()).collect();
    assert_eq!(found.len(), 3, "{found:?}");
    assert!(found.iter().any(|what| what.starts_with("the daemon does not answer")), "{found:?}");
    assert!(found.iter().any(|what| what.contains("ip_forward is 0 instead of 1")), "{found:?}");
    let route = format!("{address} of pod demo/{}: route to {address} in table 20000", pods[0].sandbox.name);
    assert!(found.iter().any(|what| what.starts_with(&route)), "{found:?}");

    worker.cut_ec2();
    node.run(&["sysctl", "-qw", "net.ipv4.ip_forward=1"]).unwrap();
    worker.signal_daemon(Signal::SIGCONT).unwrap();
    flight::delete(&cluster, &pods).await.unwrap();
    let (code, said) = ipamd(worker, &["doctor"]);
    assert_eq!(code, Some(3), "{said}");
    assert!(said.starts_with("not checked: EC2"), "{said}");
    assert_eq!(ipamd(worker, &["doctor", "--no-ec2"]).0, Some(3), "what was not asked was not checked");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pods_way_is_explained_by_name_and_by_address() {
    let cluster = ready_cluster(1, 1, &[]).await;
    // More than the primary interface holds.
    let pods = flight::add(&cluster, &flight::sandboxes(20).unwrap()).await.unwrap();
    let worker = &cluster.workers[0];
    let mut marks = Vec::new();
    for pod in &pods {
        let (code, said) = ipamd(worker, &["explain", &pod.place.address.to_string(), "--output", "json"]);
        assert_eq!(code, Some(0), "{said}");
        let way: Value = serde_json::from_str(&said).unwrap();
        assert_eq!(
            (&way["pod"], &way["eni-confirmed-by-ec2"]),
            (&pod.sandbox.name.as_str().into(), &true.into()),
            "{way}"
        );
        assert_eq!(way["trouble"], Value::Array(vec![]));
        marks.push(way["mark"].as_u64().unwrap());
    }
    // A mark is the owning device's table: 0 for the primary interface, device + 1 for the others. Which of the others
    // had an address first is a matter of timing.
    let last = marks.iter().position(|mark| *mark >= 2).unwrap_or_else(|| panic!("{marks:?}"));
    assert!(marks.contains(&0), "{marks:?}");
    let table = marks[last];
    let (code, said) = ipamd(worker, &["explain", &format!("demo/{}", pods[last].sandbox.name)]);
    assert_eq!(code, Some(0), "{said}");
    for expected in [
        format!("eth0 {}/32", pods[last].place.address),
        format!("marks {table:#x}, rule 1536 leads to table {table}"),
        format!("device {}", table - 1),
    ] {
        assert!(said.contains(&expected), "{expected} is not in:\n{said}");
    }
    let wired =
        said.lines().find(|line| line.starts_with("its ADD was answered at")).unwrap_or_else(|| panic!("{said}"));
    assert!(wired.contains("address +") && wired.contains("wired +"), "{said}");
    let (code, said) = ipamd(worker, &["explain", "demo/nobody"]);
    assert!(code == Some(1) && said.contains("20 have"), "{said}");

    flight::delete(&cluster, &pods[..1]).await.unwrap();
    let ended = format!("demo/{}", pods[0].sandbox.name);
    let own = worker.node().namespace().run(&["ip", "-4", "-o", "address", "show", "eth1"]).unwrap();
    let own = own.split_whitespace().nth(3).unwrap().trim_end_matches("/32").to_owned();
    let address = pods[0].place.address.to_string();
    for (subject, what) in [
        (ended.as_str(), format!("held {address} of")),
        (address.as_str(), "rests until".to_owned()),
        (own.as_str(), "it is the node's own address".to_owned()),
        ("10.0.77.77", "it is in the VPC".to_owned()),
        ("9.9.9.9", "pods reach it by the primary ENI, as the node".to_owned()),
    ] {
        let (code, said) = ipamd(worker, &["explain", subject]);
        assert!(code == Some(1) && said.contains(&what), "{subject}: {said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_way_of_a_pod_with_both_families_is_told_for_each() {
    let dual = ready_cluster(1, 0, &[("ENABLE_IPv6", "true")]).await;
    let with_egress = ready_cluster(1, 0, &[("ENABLE_IPv4", "false"), ("ENABLE_IPv6", "true")]).await;
    let translated = "source translated to the node's address";
    for (cluster, gateways, out) in [
        (&dual, "default by 169.254.1.1 and fe80::1", translated),
        (&with_egress, "default by ", "translated to the node's address"),
    ] {
        let worker = &cluster.workers[0];
        let pod = flight::sandboxes(1).unwrap().remove(0);
        worker.plugin(Verb::Add, &pod).await.unwrap().result.unwrap();
        let (code, said) = ipamd(worker, &["explain", &pod.name]);
        assert_eq!(code, Some(0), "{said}");
        for expected in [gateways, "fe80::1", "never translated", out] {
            assert!(said.contains(expected), "{expected} is not in:\n{said}");
        }
        assert!(!said.contains("not as it should be"), "{said}");
    }
}

/// What a doctor says of everything but the daemon, whose absence is not the matter here.
fn found(worker: &Worker, arguments: &[&str]) -> (Vec<String>, Vec<String>) {
    let (_, said) = ipamd(worker, &[&["doctor", "--output", "json"], arguments].concat());
    let report: Value = serde_json::from_str(&said).unwrap_or_else(|why| panic!("{why}: {said}"));
    let texts = |list: &Value, name: Option<&str>| -> Vec<String> {
        let all = list.as_array().unwrap().iter().map(|one| name.map_or(one, |name| &one[name]));
        all.map(|text| text.as_str().unwrap().to_owned()).collect()
    };
    let mut findings = texts(&report["findings"], Some("what"));
    findings.retain(|what| !what.starts_with("no daemon answers"));
    (findings, texts(&report["mended"], None))
}

#[track_caller]
fn assert_told(told: &[String], wanted: &[&str]) {
    for want in wanted {
        assert!(told.iter().any(|one| one.contains(want)), "`{want}` is not in {told:#?}");
    }
    assert_eq!(told.len(), wanted.len(), "{told:#?}");
}

/// Of what concerns packets nothing as by default.
const OUT_OF_THE_WAY: [(&str, &str); 7] = [
    ("AWS_VPC_ENI_MTU", "1500"),
    ("AWS_VPC_K8S_CNI_VETHPREFIX", "veth"),
    ("AWS_VPC_CNI_NODE_PORT_SUPPORT", "false"),
    ("AWS_VPC_K8S_CNI_RANDOMIZESNAT", "none"),
    ("AWS_VPC_K8S_CNI_EXCLUDE_SNAT_CIDRS", "192.168.0.0/16,172.16.0.0/12"),
    ("AWS_EXTERNAL_SERVICE_CIDRS", "10.55.0.0/16"),
    ("ENABLE_PREFIX_DELEGATION", "true"),
];

/// A node without a daemon, and pods on more than two of its interfaces.
struct Hurt {
    cluster: Cluster,
    pods: Vec<Arc<Placed>>,
}

impl Hurt {
    async fn new() -> Self {
        let cluster = ready_cluster(1, 1, &[]).await;
        let pods = flight::add(&cluster, &flight::sandboxes(30).unwrap()).await.unwrap();
        cluster.workers[0].kill_daemon().unwrap();
        Self { cluster, pods }
    }

    fn run(&self, line: &str) -> String {
        self.worker().node().namespace().run(&["sh", "-c", line]).unwrap()
    }

    fn worker(&self) -> &Worker {
        &self.cluster.workers[0]
    }

    /// Address and host interface of a pod whose packets leave by the ENI.
    fn pod_on(&self, eni: &str) -> (String, String) {
        let marks = self.run("nft list map ip eni_cni pod_eni");
        let is_there = |pod: &&Arc<Placed>| marks.contains(&format!("{} : jump {eni}", pod.place.address));
        let address = self.pods.iter().find(is_there).unwrap().place.address.to_string();
        let route = self.run(&format!("ip route show table 20000 {address}"));
        let link = route.split_whitespace().skip_while(|word| *word != "dev").nth(1).unwrap().to_owned();
        (address, link)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_broken_in_each_layer_is_named_and_what_is_ours_is_mended_without_a_daemon() {
    let node = Hurt::new().await;
    let ((first, first_link), (second, second_link)) = (node.pod_on("eni_2"), node.pod_on("eni_3"));
    assert_told(&found(node.worker(), &[]).0, &[]);
    for line in [
        "ip rule del pref 512",
        "sysctl -qw net.ipv4.conf.eth1.rp_filter=1 net.ipv4.ip_forward=0",
        "ip link set eth2 mtu 1500",
        &format!("ip link set {first_link} address 02:00:00:00:77:77"),
        &format!("ip route replace {second} dev {first_link} table 20000 proto 142"),
        &format!("nft delete element ip eni_cni pod_eni {{ {first} }}"),
        &format!("nft add element ip eni_cni pod_eni {{ {first} : jump eni_3 }}"),
        "ip route add 10.0.200.200 dev eth2 table 20000 proto 142",
        "nft add element ip eni_cni pod_eni { 10.0.200.201 : jump eni_2 }",
        "nft flush chain ip eni_cni postrouting",
        "iptables-nft -P FORWARD DROP",
        "ip rule add pref 1024 fwmark 0x1 lookup 77",
    ] {
        node.run(line);
    }
    let (wall, taken) = ("the chain ip filter FORWARD drops all packets", "a rule of priority 1024 to table 77");
    let misled = format!("route to {second} in table 20000: wanted over {second_link}");
    let ours = [
        "add rule 512: lookup 20000",
        "kernel setting net/ipv4/conf/eth1/rp_filter is 1 instead of 2",
        "kernel setting net/ipv4/ip_forward is 0 instead of 1",
        "set mtu 9001 on link eth2",
        "neighbour 169.254.1.1 on eth0: wanted 02:00:00:00:77:77",
        &misled,
        &format!("map element of {first}: wanted eni_2, found eni_3"),
        "a route to 10.0.200.200, but no lease",
        "an element for 10.0.200.201, but no lease",
        "nf_tables tables ip eni_cni",
    ];
    assert_told(&found(node.worker(), &[]).0, &[&ours[..], &[wall, taken]].concat());
    let (left, mended) = found(node.worker(), &["--repair"]);
    assert!(mended.len() >= 8 && mended.iter().all(|what| what.starts_with("mended: ")), "{mended:#?}");
    assert_told(&left, &[wall, taken]);
    node.run("iptables-nft -P FORWARD ACCEPT; ip rule del pref 1024 fwmark 0x1");
    assert_told(&found(node.worker(), &[]).0, &[]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_others_put_before_ours_is_named_by_what_it_does_and_left() {
    let node = Hurt::new().await;
    node.run("iptables-legacy -P FORWARD DROP");
    node.run("ip route add default via 10.0.0.1 dev eth0 table 77; ip rule add pref 100 from 10.0.0.0/8 lookup 77");
    let (left, mended) = found(node.worker(), &["--repair"]);
    assert_told(&left, &["chain iptables-legacy FORWARD", "a packet for 10.0.", "a packet from 10.0."]);
    assert_told(&mended, &[]);
    node.run("iptables-legacy -P FORWARD ACCEPT; ip rule del pref 100");
    node.run("ip link set eth1 down; ip link set eth2 address 02:00:00:00:99:99");
    let (left, mended) = found(node.worker(), &["--repair"]);
    assert_told(&left, &["no link has the hardware address"]);
    assert!(mended.contains(&"mended: set up on link eth1".to_owned()), "{mended:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn somebody_who_translates_pods_connections_is_noticed_by_what_he_did() {
    let cluster = ready_cluster(2, 1, &[]).await;
    let pods = flight::add(&cluster, &flight::sandboxes(2).unwrap()).await.unwrap();
    let (worker, other) = (&cluster.workers[0], pods[1].place.address.to_string());
    let node = worker.node().namespace();
    let ping = || pods[0].sandbox.pod.namespace().run(&["ping", "-n", "-c", "1", "-W", "5", &other]).unwrap();
    ping();
    assert_told(&found(worker, &[]).0, &[]);
    node.run(&["iptables-nft", "-t", "nat", "-A", "POSTROUTING", "-o", "eth+", "-j", "MASQUERADE"]).unwrap();
    ping();
    let own = pods[0].place.address;
    assert_told(
        &found(worker, &[]).0,
        &[&format!("somebody translates pods' connections within the VPC: {own} to {other}")],
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_is_damaged_is_an_error_with_its_code() {
    let cluster = ready_cluster(1, 1, &[]).await;
    let pods = flight::add(&cluster, &flight::sandboxes(3).unwrap()).await.unwrap();
    let worker = &cluster.workers[0];
    assert_eq!(pods.len(), 3);
    assert!(worker.stop_daemon(stage::PATIENCE).await.unwrap());
    std::fs::write(worker.database(), [0x5a; 8192]).unwrap();
    let log = worker.database().with_extension("db-wal");
    std::fs::remove_file(log).unwrap_or_default();
    let (code, said) = ipamd(worker, &["doctor"]);
    assert!(code == Some(1) && said.contains("error: IPAM-305 the database"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_healthy_node_of_every_kind_is_well_also_for_who_comes_without_its_settings() {
    let kinds: [&[(&str, &str)]; 4] = [
        &[("ENABLE_IPv4", "false"), ("ENABLE_IPv6", "true")],
        &[("ENABLE_IPv6", "true")],
        &OUT_OF_THE_WAY,
        &[("AWS_VPC_K8S_CNI_EXTERNALSNAT", "true"), ("ENABLE_V6_EGRESS", "true")],
    ];
    for settings in kinds {
        let cluster = ready_cluster(1, 0, settings).await;
        let worker = &cluster.workers[0];
        let pods = flight::sandboxes(4).unwrap();
        for pod in &pods {
            worker.plugin(Verb::Add, pod).await.unwrap().result.unwrap();
        }
        let well = (Some(0), "4 leases checked: 0 errors, 0 warnings, 0 not checked\n".to_owned());
        assert_eq!(ipamd(worker, &["doctor"]), well, "{settings:?}");
        let mut poor = worker.daemon_environment();
        poor.retain(|(name, _)| !settings.iter().any(|(setting, _)| setting == name));
        assert_eq!(ipamd_with(worker, poor, &["doctor", "--repair"]), well, "{settings:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_that_change_with_a_restart_hold_for_pods_that_run() {
    let cluster = ready_cluster(1, 1, &[]).await;
    // More than the primary interface holds.
    let pods = flight::add(&cluster, &flight::sandboxes(16).unwrap()).await.unwrap();
    let worker = &cluster.workers[0];
    assert!(worker.stop_daemon(stage::PATIENCE).await.unwrap());
    for (name, value) in OUT_OF_THE_WAY {
        worker.set(name, value);
    }
    worker.start_daemon().unwrap();
    worker.until_ready(0, stage::PATIENCE).await.unwrap();
    let well = "16 leases checked: 0 errors, 0 warnings, 0 not checked\n";
    let settled = || async {
        let (_, said) = ipamd(worker, &["doctor"]);
        if said == well { Ok(()) } else { Err(said) }
    };
    lab::wait::until(stage::PATIENCE, "a node that is well", settled).await.unwrap();
    let links = worker.node().namespace().run(&["ip", "-br", "link", "show", "type", "veth"]).unwrap();
    assert_eq!(links.lines().filter(|line| line.starts_with("veth")).count(), 16, "{links}");
    for pod in [&pods[0], &pods[15]] {
        let host = lab::INTERNET_HOST.to_string();
        pod.sandbox.pod.namespace().run(&["ping", "-n", "-c", "1", "-W", "5", &host]).unwrap();
    }
    flight::delete(&cluster, &pods).await.unwrap();
    flight::check_nothing_left(&cluster).await.unwrap();
}
