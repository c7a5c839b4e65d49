//! The image that ships, run by containerd with the mounts and rights that the chart gives it.

use std::{fs, net::SocketAddrV4, path::Path, sync::Arc};

use e2e::{
    Worker,
    product::{self, About},
    runtime::{
        Containerd,
        site::{NETWORKS, PLUGINS},
    },
};
use lab::wait;
use tokio::{sync::Semaphore, task::JoinSet};

use crate::{
    names::Names,
    node::{Stage, assert_reachable, end, start},
    stage::PATIENCE,
};

const NAME: &str = "example.test/eni-cni:test";
/// What a container gets that says nothing. Source: containerd 1.6, oci/spec.go, defaultUnixCaps.
const USUAL_CAPABILITIES: [&str; 14] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "FSETID",
    "FOWNER",
    "MKNOD",
    "NET_RAW",
    "SETGID",
    "SETUID",
    "SETFCAP",
    "SETPCAP",
    "NET_BIND_SERVICE",
    "SYS_CHROOT",
    "KILL",
    "AUDIT_WRITE",
];
/// An image of debug programs is large, and a busy machine takes its time to unpack and load them.
const LONG: std::time::Duration = PATIENCE.saturating_mul(4);
/// The daemon's only capability in the chart.
const NET_ADMIN: &[&str] = &["--cap-add", "CAP_NET_ADMIN"];

/// Makes the image of the programs under test and gives it to containerd. Without static programs it holds their libraries too.
fn import(stage: &Stage) {
    let worker = stage.worker();
    let archive = worker.node().directory().join("eni-cni.tar");
    let about = About { name: NAME.to_owned(), version: "test".to_owned(), ..About::default() };
    product::image(worker.binaries(), &about).unwrap().write(&archive).unwrap();
    stage.containerd().import(&archive).unwrap();
}

/// `ctr run` for one container of the chart's DaemonSet.
fn container(worker: &Worker, name: &str, more: &[&str], arguments: &[&str]) -> Vec<String> {
    let mut line: Vec<String> =
        ["run", "--net-host", "--read-only", "--seccomp", "--cgroup", ""].map(str::to_owned).into();
    for capability in USUAL_CAPABILITIES {
        line.extend(["--cap-drop".to_owned(), format!("CAP_{capability}")]);
    }
    let node = worker.node().directory().display().to_string();
    let mounts = [
        (PLUGINS, "/host/opt/cni/bin"),
        (NETWORKS, "/host/etc/cni/net.d"),
        (node.as_str(), node.as_str()),
        ("/run/netns", "/run/netns"),
        ("/proc/sys/net", "/host/proc/sys/net"),
    ];
    for (source, target) in mounts {
        line.extend(["--mount".to_owned(), format!("type=bind,src={source},dst={target},options=rbind:rslave:rw")]);
    }
    let settings = [
        ("HOST_CNI_BIN_PATH", "/host/opt/cni/bin".to_owned()),
        ("HOST_CNI_CONFDIR_PATH", "/host/etc/cni/net.d".to_owned()),
        ("IPAMD_SOCKET", worker.socket().display().to_string()),
        ("IPAMD_DATABASE", worker.database().display().to_string()),
        ("IPAMD_RELEASED_DIR", worker.released_directory().display().to_string()),
    ];
    let settings = settings.into_iter().map(|(key, value)| (key.to_owned(), value));
    let theirs = worker.daemon_environment().into_iter().filter(|(key, _)| !key.starts_with("HOST_CNI"));
    for (key, value) in theirs.chain(settings) {
        line.extend(["--env".to_owned(), format!("{key}={value}")]);
    }
    let command = [&[NAME, name, "/bin/ipamd"], arguments].concat();
    line.extend(more.iter().copied().chain(command).map(str::to_owned));
    line
}

fn run(
    containerd: &Containerd,
    worker: &Worker,
    name: &str,
    more: &[&str],
    arguments: &[&str],
) -> Result<String, String> {
    let line = container(worker, name, more, arguments);
    containerd.ctr(&line.iter().map(String::as_str).collect::<Vec<_>>()).map_err(|trouble| trouble.chain())
}

fn files(stage: &Stage, folder: &str) -> Vec<String> {
    let listing = stage.containerd().site().run(&["ls", folder]).unwrap();
    listing.lines().map(str::to_owned).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_image_installs_serves_twenty_pods_and_leaves_nothing() {
    let stage = Stage::without_daemons(1, "m5.xlarge").await;
    let (containerd, worker) = (stage.containerd(), stage.worker());
    import(&stage);
    containerd.site().run(&["rm", &format!("{PLUGINS}/eni-cni")]).unwrap();
    containerd.site().run(&["mkdir", "-p", "/run/netns"]).unwrap();
    // As on a node whose image does not forward: then the daemon has to, although /proc/sys is read-only in its container.
    worker.node().namespace().sysctl(&[("net/ipv4/ip_forward", "0")]).unwrap();

    let said = run(containerd, worker, "install", &["--rm"], &["install"]).unwrap();
    assert!(said.contains("1.1.0"), "{said}");
    assert_eq!(files(&stage, PLUGINS), ["eni-cni", "loopback", "portmap", "tuning"]);
    assert_powerless_without_net_admin(&stage).await;
    assert_legacy_chains_are_for_the_node_itself(&stage).await;
    let log = worker.node().directory().join("container.log");
    let log_uri = format!("file://{}", log.display());
    let names = names_of_ec2(&stage);
    run(containerd, worker, "ipamd", &[NET_ADMIN, &["--detach", "--log-uri", &log_uri]].concat(), &["serve"]).unwrap();
    if let Err(late) = containerd.until_network_ready(LONG).await {
        panic!("{}\n{}", late.chain(), fs::read_to_string(&log).unwrap_or_default());
    }

    // Without this the image, which has no libraries, could not know where EC2 is.
    assert!(names.asked() > 0, "EC2's name was never looked up");

    let gate = Arc::new(Semaphore::new(5));
    let mut starting = JoinSet::new();
    for number in 0..20 {
        let (containerd, gate) = (Arc::clone(containerd), Arc::clone(&gate));
        starting.spawn(async move {
            let _turn = gate.acquire_owned().await;
            start(&containerd, &format!("pod-{number}")).await
        });
    }
    let pods = starting.join_all().await;
    pods.iter().for_each(|pod| assert_reachable(&stage, pod));
    assert_rights(&stage);
    assert_repairs(&stage).await;
    pods.iter().for_each(|pod| assert_reachable(&stage, pod));
    let status = run(containerd, worker, "status", &["--rm"], &["status"]).unwrap();
    assert!(status.contains("20"), "{status}");
    stage.until_only(&pods.iter().collect::<Vec<_>>()).await;

    for pod in &pods {
        end(containerd, pod).await;
    }
    stop(containerd, "ipamd").await;
    let said = run(containerd, worker, "uninstall", &[NET_ADMIN, &["--rm"]].concat(), &["uninstall"]).unwrap();
    assert!(said.contains("10-eni-cni.conflist") && said.contains("nf_tables table"), "{said}");
    assert_eq!(files(&stage, PLUGINS), ["loopback", "portmap", "tuning"]);
    assert_eq!(files(&stage, NETWORKS), [""; 0]);
    assert_eq!(files(&stage, "/run/netns"), [""; 0]);
}

/// The daemon has what the chart gives it and nothing more: one capability, in each of its sets, under the runtime's seccomp profile.
fn assert_rights(stage: &Stage) {
    let tasks = stage.containerd().ctr(&["tasks", "list"]).unwrap();
    let line = tasks.lines().find(|line| line.starts_with("ipamd ")).unwrap();
    let pid = line.split_whitespace().nth(1).unwrap();
    let status = stage.containerd().site().run(&["cat", &format!("/proc/{pid}/status")]).unwrap();
    let of = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.unwrap_or_else(|| panic!("no {name} in {status}")).trim().to_owned()
    };
    // Bit 12 is NET_ADMIN. Source: the kernel's include/uapi/linux/capability.h.
    for set in ["CapPrm", "CapEff", "CapBnd"] {
        assert_eq!(of(set), "0000000000001000", "{set}");
    }
    assert_eq!((of("Seccomp"), of("NoNewPrivs")), ("2".to_owned(), "1".to_owned()), "{status}");
}

/// With these rights it mends what somebody else breaks.
async fn assert_repairs(stage: &Stage) {
    let node = stage.worker().node().namespace();
    let rules = || node.run(&["ip", "rule", "list", "priority", "512"]).unwrap();
    // The pods' part of the table: a further ENI that comes meanwhile adds to the rest.
    let pods = || node.run(&["nft", "-s", "list", "map", "ip", "eni_cni", "pod_eni"]);
    let (rule, leading) = (rules(), pods().unwrap());
    assert!(!rule.is_empty(), "there is a rule to break");
    node.ip("rule del priority 512\n").unwrap();
    node.nft("delete table ip eni_cni\n").unwrap();
    let mended = || async {
        match pods() {
            Ok(now) if rules() == rule && now.len() == leading.len() => Ok(()),
            now => Err(format!("{}{now:?}", rules())),
        }
    };
    wait::until(LONG, "the daemon to mend rule and table", mended).await.unwrap();
}

/// The image has no programs of iptables-legacy, so where the node has their tables the migration says what is missing.
async fn assert_legacy_chains_are_for_the_node_itself(stage: &Stage) {
    let (containerd, worker) = (stage.containerd(), stage.worker());
    let chain =
        |option: &str| worker.node().namespace().run(&["iptables-legacy", "-t", "nat", option, "AWS-SNAT-CHAIN-0"]);
    chain("-N").unwrap();
    let log = worker.node().directory().join("migrate.log");
    let log_uri = format!("file://{}", log.display());
    let options = [NET_ADMIN, &["--detach", "--log-uri", &log_uri]].concat();
    run(containerd, worker, "migrate", &options, &["migrate", "check"]).unwrap();
    let told = || async { says(&log, &["IPAM-357", "iptables-legacy-save"]) };
    wait::until(LONG, "the migration to say what it lacks", told).await.unwrap();
    stop(containerd, "migrate").await;
    chain("-X").unwrap();
}

/// From now on daemons know EC2 by its name only, and a name server on the node knows where that is.
fn names_of_ec2(stage: &Stage) -> Names {
    let worker = stage.worker();
    let environment = worker.daemon_environment();
    let (_, endpoint) = environment.iter().find(|(key, _)| key == "AWS_ENDPOINT_URL_EC2").unwrap();
    let address: SocketAddrV4 = endpoint.trim_start_matches("http://").parse().unwrap();
    worker.set("AWS_ENDPOINT_URL_EC2", &format!("http://ec2.example.test:{}", address.port()));
    Names::serve(stage, *address.ip())
}

/// Without its only capability the daemon says what it may not, and the node does not look ready.
async fn assert_powerless_without_net_admin(stage: &Stage) {
    let (containerd, worker) = (stage.containerd(), stage.worker());
    let log = worker.node().directory().join("powerless.log");
    let log_uri = format!("file://{}", log.display());
    run(containerd, worker, "powerless", &["--detach", "--log-uri", &log_uri], &["serve"]).unwrap();
    wait::until(LONG, "the daemon to say what it may not", || async {
        says(&log, &["IPAM-", "Operation not permitted"])
    })
    .await
    .unwrap();
    assert_eq!(files(stage, NETWORKS), [""; 0]);
    stop(containerd, "powerless").await;
}

/// Stops a container as a kubelet does, and waits for its end.
async fn stop(containerd: &Containerd, name: &str) {
    // It may have ended by itself.
    let _ = containerd.ctr(&["tasks", "kill", "--signal", "SIGTERM", name]);
    let ended = || async {
        let tasks = containerd.ctr(&["tasks", "list"]).map_err(|trouble| trouble.chain())?;
        let line = tasks.lines().find(|line| line.starts_with(&format!("{name} "))).unwrap_or("STOPPED").to_owned();
        if line.contains("STOPPED") { Ok(()) } else { Err(line) }
    };
    wait::until(LONG, "the container to end", ended).await.unwrap();
}

fn says(log: &Path, words: &[&str]) -> Result<(), String> {
    let said = fs::read_to_string(log).map_err(|error| error.to_string())?;
    if words.iter().all(|word| said.contains(word)) { Ok(()) } else { Err(said) }
}
