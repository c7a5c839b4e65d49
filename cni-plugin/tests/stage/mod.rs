//! The plugin's world in a test: a node and sandboxes in network namespaces of their own, and a daemon that speaks real gRPC.

#![allow(dead_code, unreachable_pub, clippy::unwrap_used, reason = "each test file uses its part, and fails here")]

pub mod corpus;
pub mod daemon;
pub mod fault;
pub mod generate;

use std::{
    collections::BTreeMap,
    ffi::OsString,
    io::Write,
    os::fd::{AsFd, AsRawFd},
    path::PathBuf,
    process::{Child, Command, Stdio},
};

use eni_datapath::{EniPlan, HostPlan, MacAddress, Netns, prepare_eni, prepare_host};
use serde_json::{Value, json};

/// What the plugin answered.
#[derive(Debug, PartialEq, Eq)]
pub struct Answer {
    pub success: bool,
    pub stdout: String,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: `{}`", self.stdout))
    }

    /// The error object, checked for its fixed parts.
    pub fn error(&self) -> Value {
        let error = self.json();
        assert!(!self.success, "{error}");
        assert!(error["cniVersion"].is_string() && error["code"].is_u64() && error["msg"].is_string(), "{error}");
        error
    }

    /// The result object of an ADD that succeeded.
    pub fn result(&self) -> Value {
        assert!(self.success, "{}", self.stdout);
        self.json()
    }

    /// The address in the result, as `10.0.0.2/32`.
    pub fn address(&self) -> String {
        self.result()["ips"][0]["address"].as_str().unwrap().to_owned()
    }

    /// Succeeded and said nothing, as a DEL must.
    #[track_caller]
    pub fn is_silent_success(&self) {
        assert_eq!(*self, Self { success: true, stdout: String::new() });
    }
}

/// Starts the plugin on `node` and gives it its input.
pub fn start(node: &Netns, environment: &[(String, String)], stdin: &str) -> Child {
    let mut child = start_waiting(node, environment);
    // It may end before it has read everything.
    let _ = child.stdin.take().unwrap().write_all(stdin.as_bytes());
    child
}

/// Starts the plugin on `node`; it waits for its input.
pub fn start_waiting(node: &Netns, environment: &[(String, String)]) -> Child {
    start_with(node, &environment.iter().map(|(name, value)| (name.clone(), value.into())).collect())
}

/// The same with an environment that may be no text.
pub fn start_with(node: &Netns, environment: &BTreeMap<String, OsString>) -> Child {
    let started = node.inside(|| {
        Command::new(env!("CARGO_BIN_EXE_eni-cni"))
            .env_clear()
            .envs(environment)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap()
    });
    started.unwrap()
}

/// Waits for the plugin's answer.
pub fn end(child: Child) -> Answer {
    let output = child.wait_with_output().unwrap();
    Answer { success: output.status.success(), stdout: String::from_utf8(output.stdout).unwrap() }
}

/// Runs the plugin on `node`.
pub fn run(node: &Netns, environment: &[(String, String)], stdin: &str) -> Answer {
    end(start(node, environment, stdin))
}

/// A path by which other processes can open the namespace while this one lives.
pub fn path(netns: &Netns) -> String {
    format!("/proc/{}/fd/{}", std::process::id(), netns.as_fd().as_raw_fd())
}

const PRIMARY: MacAddress = MacAddress([0x02, 0, 0, 0, 0, 0x10]);
const SECONDARY: MacAddress = MacAddress([0x02, 0, 0, 0, 0, 0x11]);

fn host_plan() -> HostPlan {
    HostPlan {
        primary_mac: PRIMARY,
        primary_address: [10, 0, 255, 10].into(),
        direct: vec!["10.0.0.0/16".parse().unwrap()],
        external_snat: false,
        node_ports: true,
        source_ports: eni_datapath::SourcePorts::default(),
        by_main: vec![],
        veth_prefix: eni_proto::VethPrefix::default(),
        mtu: 9001,
        ipv6: false,
    }
}

fn eni_plan() -> EniPlan {
    EniPlan {
        mac: SECONDARY,
        primary: [10, 0, 255, 11].into(),
        subnet: "10.0.0.0/16".parse().unwrap(),
        device_index: 1,
        card: 0,
        mark: eni_proto::EniMark::of_device(1),
        mtu: 9001,
        ipv6: false,
        primary_v6: None,
    }
}

/// A node: its network, and the folder with the daemon's socket and the release notes.
pub struct Node {
    pub netns: Netns,
    pub folder: tempfile::TempDir,
}

impl Node {
    pub fn new() -> Self {
        Self { netns: Netns::fresh().unwrap(), folder: tempfile::tempdir().unwrap() }
    }

    /// A node with a primary and a secondary interface on which ipamd has prepared everything.
    pub fn prepared() -> Self {
        let node = Self::new();
        for (name, mac) in [("eth0", PRIMARY), ("eth1", SECONDARY)] {
            ip(&node.netns, &format!("link add {name} address {mac} type veth peer name far-{name}"));
            ip(&node.netns, &format!("link set {name} up"));
        }
        ip(&node.netns, "address add 10.0.255.10/16 dev eth0");
        ip(&node.netns, "route add default via 10.0.0.1");
        let prepare = || {
            prepare_host(&host_plan()).unwrap();
            prepare_eni(&eni_plan()).unwrap();
        };
        node.netns.inside(prepare).unwrap();
        node
    }

    pub fn socket(&self) -> PathBuf {
        self.folder.path().join("ipamd.sock")
    }

    /// A configuration as the runtime passes it.
    pub fn config(&self) -> Value {
        json!({
            "cniVersion": "1.0.0", "name": "pods", "type": "eni-cni",
            "socket": self.socket(), "releasedDir": self.released_dir(),
        })
    }

    fn released_dir(&self) -> PathBuf {
        self.folder.path().join("released")
    }

    /// The notes that wait for the daemon, as their keys; sorted.
    pub fn notes(&self) -> Vec<String> {
        let Ok(entries) = std::fs::read_dir(self.released_dir()) else { return Vec::new() };
        let read = |path: PathBuf| std::fs::read_to_string(path).unwrap().parse::<eni_proto::ReleaseNote>().unwrap();
        let mut keys: Vec<_> = entries.map(|entry| read(entry.unwrap().path()).key.to_string()).collect();
        keys.sort();
        keys
    }

    pub fn add(&self, sandbox: &Sandbox) -> Answer {
        self.run("ADD", sandbox, &self.config())
    }

    pub fn del(&self, sandbox: &Sandbox) -> Answer {
        self.run("DEL", sandbox, &self.config())
    }

    pub fn run(&self, verb: &str, sandbox: &Sandbox, config: &Value) -> Answer {
        run(&self.netns, &sandbox.environment(verb), &config.to_string())
    }

    pub fn start(&self, verb: &str, sandbox: &Sandbox, config: &Value) -> Child {
        start(&self.netns, &sandbox.environment(verb), &config.to_string())
    }

    /// Runs the plugin and kills it before its step `nth`.
    pub fn run_killed(&self, verb: &str, sandbox: &Sandbox, config: &Value, nth: usize) -> fault::Outcome {
        fault::run_killed(start_waiting(&self.netns, &sandbox.environment(verb)), &config.to_string(), nth)
    }

    /// Fails unless the node looks like this, at once or when the daemon has removed what DEL leaves to it.
    #[track_caller]
    pub fn comes_to(&self, wanted: &str, after: &str) {
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
        while self.snapshot() != wanted && std::time::Instant::now() < deadline {}
        assert_eq!(self.snapshot(), wanted, "{after}");
    }

    /// Names of all files in the folder of notes, whole or not.
    pub fn files_of_notes(&self) -> Vec<std::ffi::OsString> {
        let entries = std::fs::read_dir(self.released_dir()).into_iter().flatten();
        entries.map(|entry| entry.unwrap().file_name()).collect()
    }

    /// Everything about pods in the node's network.
    pub fn snapshot(&self) -> String {
        snapshot(&self.netns)
    }
}

/// What a runtime says of one interface of one sandbox.
#[derive(Debug, Clone)]
pub struct Sandbox {
    pub container: String,
    pub interface: String,
    pub netns: String,
    /// Name of the pod. Empty: the runtime does not say.
    pub pod: String,
}

impl Sandbox {
    pub fn new(container: &str, pod: &str, netns: &Netns) -> Self {
        Self { container: container.into(), interface: "eth0".into(), netns: path(netns), pod: pod.into() }
    }

    pub fn interface(&self, interface: &str) -> Self {
        Self { interface: interface.into(), ..self.clone() }
    }

    pub fn netns(&self, netns: &str) -> Self {
        Self { netns: netns.into(), ..self.clone() }
    }

    pub fn key(&self) -> String {
        format!("pods/{}/{}", self.container, self.interface)
    }

    pub fn environment(&self, verb: &str) -> Vec<(String, String)> {
        let arguments = match self.pod.as_str() {
            "" => "IgnoreUnknown=1".to_owned(),
            pod => format!("K8S_POD_NAME={pod};IgnoreUnknown=1;K8S_POD_NAMESPACE=default"),
        };
        [
            ("CNI_COMMAND", verb),
            ("CNI_CONTAINERID", &self.container),
            ("CNI_NETNS", &self.netns),
            ("CNI_IFNAME", &self.interface),
            ("CNI_ARGS", &arguments),
            ("CNI_PATH", "/opt/cni/bin"),
        ]
        .map(|(name, text)| (name.to_owned(), text.to_owned()))
        .into()
    }
}

/// What `ip -json` sees in the namespace.
pub fn ip_json(netns: &Netns, arguments: &str) -> Value {
    let text = ip(netns, &format!("-json -details {arguments}"));
    if text.trim().is_empty() { json!([]) } else { serde_json::from_str(&text).unwrap() }
}

/// Runs `ip` in the namespace; fails the test when `ip` fails.
pub fn ip(netns: &Netns, arguments: &str) -> String {
    output(netns, "ip", arguments)
}

/// Runs a program in the namespace; fails the test when the program fails.
pub fn run_in(netns: &Netns, program: &str, arguments: &str) {
    output(netns, program, arguments);
}

fn output(netns: &Netns, program: &str, arguments: &str) -> String {
    let output = netns.inside(|| Command::new(program).args(arguments.split_whitespace()).output().unwrap()).unwrap();
    assert!(output.status.success(), "{program} {arguments}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Links, addresses, routes, neighbours, rules and map elements of the namespace, without the operational state, which settles after each change.
pub fn snapshot(netns: &Netns) -> String {
    let (links, addresses) = (ip_json(netns, "link"), ip_json(netns, "-4 address"));
    let links = links.as_array().unwrap().iter().map(|link| {
        let fields = ["ifname", "ifindex", "address", "mtu", "ifalias"].map(|field| link[field].to_string());
        fields.join(" ")
    });
    let addresses =
        addresses.as_array().unwrap().iter().map(|link| format!("{} {}", link["ifname"], link["addr_info"]));
    let others =
        ["-4 route show table all", "-4 neighbour", "-4 rule"].map(|list| ip(netns, list).replace("linkdown ", ""));
    let elements = netns.inside(|| eni_datapath::pod_leftovers().unwrap()).unwrap();
    links.chain(addresses).chain(others).chain(elements).collect::<Vec<_>>().join("\n")
}
