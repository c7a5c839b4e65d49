//! A node as the incumbent leaves it: its rules, tables, chains, veths and files, written by the system's own tools.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs,
    net::Ipv4Addr,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
};

use e2e::{Cluster, Sandbox, Worker};
use eni_proto::{Pod, PodKey, VethPrefix, host_link_name};
use ipam_core::ports::Interface;
use lab::{Namespace, wait};
use serde_json::{Value, json};

use crate::stage::{PATIENCE, cluster};

/// A pod with an address.
pub(crate) struct Placed {
    pub(crate) sandbox: Sandbox,
    pub(crate) address: Ipv4Addr,
    /// Slot of the ENI that owns the address.
    pub(crate) device: u8,
}

/// A worker with pods, another one in the same VPC, and the internet.
pub(crate) struct World {
    pub(crate) worker: Arc<Worker>,
    pub(crate) pods: Vec<Placed>,
    pub(crate) cluster: Cluster,
    pub(crate) primary: Ipv4Addr,
    /// Which iptables the node has.
    pub(crate) flavour: &'static str,
}

impl World {
    /// Waits until the daemon's log has these words.
    pub(crate) async fn until_said(&self, words: &str) {
        let said = || async {
            let log = self.worker.daemon_log();
            if log.contains(words) { Ok(()) } else { Err(log) }
        };
        wait::until(PATIENCE, words, said).await.unwrap();
    }

    /// A node with `pods` pods, `flavour`: `iptables-nft` or `iptables-legacy`.
    pub(crate) async fn new(pods: usize, flavour: &'static str) -> Self {
        let most = pods.to_string();
        let settings = [("MINIMUM_IP_TARGET", most.as_str()), ("WARM_IP_TARGET", "1"), ("IP_COOLDOWN_PERIOD", "5")];
        let cluster = cluster(2, &settings).await;
        let worker = Arc::clone(&cluster.workers[0]);
        // The ENIs and addresses are the same ones, with the same tags, whoever asks for them.
        worker.start_daemon().unwrap();
        worker.until_ready(u32::try_from(pods).unwrap(), PATIENCE).await.unwrap();
        assert!(worker.stop_daemon(PATIENCE).await.unwrap());
        cluster.settle().await.unwrap();
        for companion in ["", "-wal", "-shm"] {
            let _ = fs::remove_file(format!("{}{companion}", worker.database().display()));
        }
        worker.node().namespace().inside(eni_datapath::clean_host).unwrap().unwrap();
        worker.set("HOST_CNI_CONFDIR_PATH", &folder(&worker, "net.d"));
        worker.set("HOST_CNI_BIN_PATH", &folder(&worker, "bin"));
        folder(&worker, "netns");
        fs::write(worker.node().directory().join("net.d/10-aws.conflist"), "{}").unwrap();
        let enis = enis(&cluster, &worker);
        let primary = enis[&0].primary;
        let mut world = Self { worker, pods: Vec::new(), cluster, primary, flavour };
        world.base(&enis);
        world.fill(pods, &enis);
        world.write_checkpoint();
        world
    }

    pub(crate) fn node(&self) -> &Namespace {
        self.worker.node().namespace()
    }

    pub(crate) fn checkpoint(&self) -> PathBuf {
        self.worker.node().directory().join("aws-node/ipam.json")
    }

    /// Runs `ipamd migrate VERB` on the node; whether it succeeded, what it printed and what it complained of.
    pub(crate) fn migrate(&self, verb: &str) -> (bool, String, String) {
        self.ipamd(&["migrate", verb, "--output", "json"])
    }

    pub(crate) fn command(&self, verb: &str) -> Vec<String> {
        let path = |path: PathBuf| path.display().to_string();
        let mut line = vec![path(self.worker.binaries().ipamd.clone())];
        line.extend(["migrate", verb, "--output", "json"].map(str::to_owned));
        line.extend(self.places());
        line
    }

    fn places(&self) -> Vec<String> {
        let of = |option: &str, path: PathBuf| [option.to_owned(), path.display().to_string()];
        let namespaces = self.worker.node().directory().join("netns");
        [
            of("--database", self.worker.database()),
            of("--socket", self.worker.socket()),
            of("--checkpoint", self.checkpoint()),
            of("--namespaces", namespaces),
        ]
        .concat()
    }

    fn ipamd(&self, arguments: &[&str]) -> (bool, String, String) {
        let mut command = Command::new(&self.worker.binaries().ipamd);
        command.args(arguments).args(self.places());
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.envs(self.worker.daemon_environment());
        let output = self.node().output(&mut command, &[]).unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.success(), text(&output.stdout), text(&output.stderr))
    }

    /// What `ipamd doctor` says of kernel and database.
    pub(crate) fn doctor(&self) -> String {
        let mut command = Command::new(&self.worker.binaries().ipamd);
        command.args(["doctor", "--no-ec2", "--database"]).arg(self.worker.database());
        command.arg("--socket").arg(self.worker.socket());
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.envs(self.worker.daemon_environment());
        let output = self.node().output(&mut command, &[]).unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Rules, routes and chains as the system's own tools show them, sorted, without what changes by itself.
    pub(crate) fn shown(&self) -> Vec<String> {
        let script = format!(
            "ip rule; ip route show table all | grep -v '^local\\|^broadcast\\|^multicast\\|^ff00\\|^fe80\\|proto kernel'; \
             nft -s list ruleset | grep -v '^#'; {}-save | grep '^-A\\|^:AWS'; ip -o link | grep -o 'alias .*'; true",
            self.flavour
        );
        let text = self.node().run(&["sh", "-c", &script]).unwrap();
        let mut lines: Vec<String> = text.lines().map(|line| line.trim().to_owned()).collect();
        lines.sort();
        lines
    }

    /// Base of the node and its secondary ENIs.
    fn base(&self, enis: &BTreeMap<u8, Interface>) {
        let mut ip = "rule add pref 1024 fwmark 0x80/0x80 lookup main\n".to_owned();
        for (index, eni) in enis.iter().filter(|(index, _)| **index > 0) {
            let (link, table, own) = (self.link_of(eni), index + 1, eni.primary);
            let router = "10.0.0.1";
            let _ = write!(
                ip,
                "link set {link} mtu 9001 up\naddr add {own}/22 dev {link} noprefixroute\n\
                 route add {router}/32 dev {link} scope link table {table}\n\
                 route add default via {router} dev {link} table {table}\n\
                 rule add pref 32765 from {own} lookup {table}\n"
            );
        }
        self.node().ip(&ip).unwrap();
        let chains = chains(self.flavour, self.primary, &self.link_of(&enis[&0]));
        self.node().run(&["sh", "-ec", &chains]).unwrap();
    }

    fn link_of(&self, eni: &Interface) -> String {
        let links = self.node().run(&["ip", "-o", "link"]).unwrap();
        let mac = eni.mac.to_string();
        let line = links.lines().find(|line| line.contains(&mac)).unwrap_or_else(|| panic!("{mac} in {links}"));
        line.split(": ").nth(1).unwrap().split('@').next().unwrap().to_owned()
    }

    /// Pods turn by turn on the ENIs.
    fn fill(&mut self, pods: usize, enis: &BTreeMap<u8, Interface>) {
        let mut free: BTreeMap<u8, Vec<Ipv4Addr>> =
            enis.iter().map(|(index, eni)| (*index, eni.addresses().collect())).collect();
        let mut number = 0;
        while self.pods.len() < pods {
            assert!(free.values().any(|left| !left.is_empty()), "too few addresses: {enis:?}");
            for (device, left) in &mut free {
                if self.pods.len() == pods {
                    break;
                }
                if let Some(address) = left.pop() {
                    number += 1;
                    let sandbox = Sandbox::new(&format!("pod-{number:02}"), number).unwrap();
                    self.pods.push(Placed { sandbox, address, device: *device });
                }
            }
        }
        let node = self.node().path().display().to_string();
        let mut ip = String::new();
        for (number, pod) in self.pods.iter().enumerate() {
            let (link, address, mac) = (link(&pod.sandbox), pod.address, format!("06:00:00:00:00:{number:02x}"));
            let inside = pod.sandbox.pod.namespace();
            inside
                .ip(&format!(
                    "link add eth0 mtu 9001 type veth peer name {link} address {mac} mtu 9001 netns {node}\nlink set eth0 up\n"
                ))
                .unwrap();
            let _ = write!(
                ip,
                "link set {link} up\nroute add {address}/32 dev {link} scope link\nrule add pref 512 to {address} lookup main\n"
            );
            if pod.device > 0 {
                let _ = writeln!(ip, "rule add pref 1536 from {address} lookup {}", pod.device + 1);
            }
            let file = self.worker.node().directory().join("netns").join(&pod.sandbox.name);
            symlink(&pod.sandbox.netns, file).unwrap();
            inside
                .ip(&format!(
                    "route add 169.254.1.1/32 dev eth0 scope link\nroute add default via 169.254.1.1 dev eth0\n\
                     addr add {address}/32 dev eth0\nneigh add 169.254.1.1 lladdr {mac} dev eth0 nud permanent\n"
                ))
                .unwrap();
        }
        self.node().ip(&ip).unwrap();
    }

    pub(crate) fn write_checkpoint(&self) {
        let allocations: Vec<Value> = self.pods.iter().map(|pod| allocation(&pod.sandbox, pod.address)).collect();
        self.write(&json!({ "version": "vpc-cni-ipam/1", "allocations": allocations }));
    }

    pub(crate) fn write(&self, checkpoint: &Value) {
        fs::create_dir_all(self.checkpoint().parent().unwrap()).unwrap();
        fs::write(self.checkpoint(), checkpoint.to_string()).unwrap();
    }
}

fn allocation(sandbox: &Sandbox, address: Ipv4Addr) -> Value {
    json!({
        "networkName": "aws-cni", "containerID": sandbox.container_id, "ifName": "eth0", "ipv4": address,
        "allocationTimestamp": 1_760_000_000_000_000_000_u64,
        "metadata": { "k8sPodNamespace": "demo", "k8sPodName": sandbox.name, "interfacesCount": 1 },
    })
}

fn folder(worker: &Worker, name: &str) -> String {
    let path = worker.node().directory().join(name);
    fs::create_dir_all(&path).unwrap();
    path.display().to_string()
}

fn enis(cluster: &Cluster, worker: &Worker) -> BTreeMap<u8, Interface> {
    let own = |eni: Interface| {
        let attachment = eni.attachment.clone().filter(|it| it.instance == *worker.node().instance())?;
        Some((attachment.device_index, eni))
    };
    cluster.lab.described().into_iter().filter_map(own).collect()
}

/// Name of the pod's link on the host.
pub(crate) fn link(sandbox: &Sandbox) -> String {
    let pod = Pod { namespace: "demo".to_owned(), name: sandbox.name.clone(), uid: String::new() };
    let key = PodKey::new("aws-cni", &sandbox.container_id, "eth0").unwrap();
    host_link_name(&VethPrefix::default(), &key, &pod)
}

/// A file under this folder exists.
pub(crate) fn exists(world: &World, name: &str) -> bool {
    Path::new(&world.worker.node().directory().join(name)).exists()
}

/// What the incumbent writes with iptables, and a port of the node that leads to a pod, as kube-proxy writes it.
fn chains(iptables: &str, primary: Ipv4Addr, eth0: &str) -> String {
    format!(
        "
run() {{ {iptables} -t \"$@\"; }}
run nat -N AWS-SNAT-CHAIN-0
run nat -N AWS-CONNMARK-CHAIN-0
run nat -A PREROUTING -m comment --comment 'somebody else' -p tcp --dport 9 -j ACCEPT
run nat -A POSTROUTING -m comment --comment 'AWS SNAT CHAIN' -j AWS-SNAT-CHAIN-0
run nat -A AWS-SNAT-CHAIN-0 -d 10.0.0.0/16 -m comment --comment 'AWS SNAT CHAIN' -j RETURN
run nat -A AWS-SNAT-CHAIN-0 ! -o vlan+ -m comment --comment 'AWS, SNAT' -m addrtype ! --dst-type LOCAL -j SNAT --to-source {primary} --random-fully
run nat -A PREROUTING -i eni+ -m comment --comment 'AWS, outbound connections' -j AWS-CONNMARK-CHAIN-0
run nat -A AWS-CONNMARK-CHAIN-0 -d 10.0.0.0/16 -m comment --comment 'AWS CONNMARK CHAIN, VPC CIDR' -j RETURN
run nat -A AWS-CONNMARK-CHAIN-0 -m comment --comment 'AWS, CONNMARK' -j CONNMARK --set-xmark 0x80/0x80
run nat -A PREROUTING -m comment --comment 'AWS, CONNMARK' -j CONNMARK --restore-mark --mask 0x80
run mangle -A PREROUTING -i {eth0} -m comment --comment 'AWS, primary ENI' -m addrtype --dst-type LOCAL --limit-iface-in -j CONNMARK --set-xmark 0x80/0x80
run mangle -A PREROUTING -i eni+ -m comment --comment 'AWS, primary ENI' -j CONNMARK --restore-mark --mask 0x80
run mangle -A PREROUTING -i vlan+ -m comment --comment 'AWS, primary ENI' -j CONNMARK --restore-mark --mask 0x80
"
    )
}
