//! Every setting of the daemon, in this one file: name, form with unit and range, default, what its absence means, whose name it is.
//!
//! All else is derived from here: what [`super::Settings`] accepts, `--help`, `ipamd config reference` (SETTINGS.md, and the chart's
//! schema from its JSON). A name that the AWS CNI has too means the same, so that a values file carries over.
//!
//! To add a setting: a row here, a field in [`super::Settings`], and
//! `cargo run -p ipamd -- config reference > ipamd/SETTINGS.md`. One of the AWS CNI's that was ignored leaves `ignored.rs`.

use eni_proto::numbers;

/// One setting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Setting {
    /// Its name, in the environment, in the file and on the command line.
    pub(crate) name: &'static str,
    /// What it accepts.
    pub(crate) form: Form,
    /// What counts when it is not set.
    pub(crate) unset: Unset,
    /// Whether the AWS CNI has it too, by this name and with this meaning.
    pub(crate) of_aws_cni: bool,
    /// What it does, for people.
    pub(crate) meaning: &'static str,
}

/// What a setting accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// true or false.
    Switch,
    /// A whole number from `least` to `most`.
    Number {
        least: u64,
        most: u64,
        /// What is counted. Empty: things that the meaning names.
        unit: &'static str,
    },
    /// One of these words.
    Word(&'static [&'static str]),
    /// An absolute path.
    Path,
    /// Something else, for people: what it looks like.
    Text(&'static str),
}

/// What counts when a setting is not set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unset {
    /// This text.
    Default(&'static str),
    /// Nothing is assumed; what then happens, for people.
    Means(&'static str),
}

const fn aws(name: &'static str, form: Form, unset: Unset, meaning: &'static str) -> Setting {
    Setting { name, form, unset, of_aws_cni: true, meaning }
}

const fn ours(name: &'static str, form: Form, unset: Unset, meaning: &'static str) -> Setting {
    Setting { name, form, unset, of_aws_cni: false, meaning }
}

const fn number(least: u64, most: u64, unit: &'static str) -> Form {
    Form::Number { least, most, unit }
}

use Form::{Path, Switch, Text, Word};
use Unset::{Default, Means};

const CIDRS: Form = Text("IPv4 networks like 192.168.0.0/16, separated by commas");

/// The settings by topic, as the reference shows them.
pub(crate) const TOPICS: &[(&str, &[Setting])] = &[
    ("How large the pool is", POOL),
    ("Where addresses come from", PLACEMENT),
    ("What may be asked of EC2", EC2),
    ("The way of packets", PACKETS),
    ("The container runtime", RUNTIME),
    ("Kubernetes", KUBERNETES),
    ("Files of the daemon", FILES),
    ("Looking inside", LOOKING),
    ("Logs", LOGS),
];

const POOL: &[Setting] = &[
    aws(
        "WARM_ENI_TARGET",
        number(0, 15, "ENIs"),
        Default("1"),
        "whole ENIs to keep free; ignored when an address target is set, and with prefix delegation",
    ),
    aws("WARM_IP_TARGET", number(0, 1000, "addresses"), Default("0"), "free addresses to keep; 0: not set"),
    aws(
        "MINIMUM_IP_TARGET",
        number(0, 1000, "addresses"),
        Default("0"),
        "addresses to hold at least, free or not; 0: not set",
    ),
    aws(
        "WARM_PREFIX_TARGET",
        number(0, 60, "prefixes"),
        Default("1"),
        "whole /28 prefixes to keep free; only with prefix delegation, and ignored when an address target is set",
    ),
    ours(
        "WARM_TARGET",
        Word(&["auto"]),
        Means("the warm targets above hold"),
        "auto: as many free addresses as recent demand needed, instead of the other warm targets",
    ),
    aws("MAX_ENI", number(1, 24, "ENIs"), Means("what the instance type allows"), "most ENIs, the primary included"),
    ours(
        "MAX_PODS",
        number(1, 2000, "pods"),
        Means("what the Node says, or no such bound"),
        "the node's max pods: never more addresses than they can use",
    ),
    aws(
        "IP_COOLDOWN_PERIOD",
        number(5, 3600, "seconds"),
        Default("30"),
        "how long a released address rests before it is given to another pod",
    ),
    ours(
        "ADD_WAIT_SECONDS",
        number(0, 200, "seconds"),
        Default("20"),
        "how long an ADD waits for an address that is on its way",
    ),
];

const PLACEMENT: &[Setting] = &[
    aws("ENABLE_IPv4", Switch, Default("true"), "true: pods have IPv4 addresses"),
    aws(
        "ENABLE_IPv6",
        Switch,
        Default("false"),
        "true: pods have IPv6 addresses, of a /80 prefix for each interface; with ENABLE_IPv4 they have both",
    ),
    aws(
        "ENABLE_V4_EGRESS",
        Switch,
        Default("true"),
        "true: pods that have IPv6 addresses only reach IPv4 outside of the node, as the node",
    ),
    aws(
        "ENABLE_V6_EGRESS",
        Switch,
        Default("false"),
        "true: pods that have IPv4 addresses only reach IPv6 outside of the node, as the node, which needs an IPv6 address",
    ),
    aws(
        "ENABLE_PREFIX_DELEGATION",
        Switch,
        Default("false"),
        "true: hold addresses as /28 prefixes, singly where a subnet has no free /28",
    ),
    aws(
        "ENABLE_SUBNET_DISCOVERY",
        Switch,
        Default("true"),
        "true: use subnets of the zone tagged kubernetes.io/role/cni beside the node's own",
    ),
    aws(
        "ENABLE_MULTI_NIC",
        Switch,
        Default("false"),
        "true: use all network cards; a pod annotated k8s.amazonaws.com/nicConfig=multi-nic-attachment gets an interface on each",
    ),
    aws(
        "ENABLE_POD_ENI",
        Switch,
        Default("false"),
        "true: pods with security groups of their own live on branch ENIs; needs the API server, a trunk, for which one ENI's place is kept, and VLANs in the kernel",
    ),
    aws(
        "POD_SECURITY_GROUP_ENFORCING_MODE",
        Word(&["strict", "standard"]),
        Default("strict"),
        "strict: all traffic of such a pod goes over its branch ENI; standard: what stays on the node stays on it",
    ),
    aws(
        "AWS_VPC_K8S_CNI_CUSTOM_NETWORK_CFG",
        Switch,
        Default("false"),
        "true: pods live in the subnet of the node's ENIConfig, or in ENI_CONFIG_SUBNET, instead of the node's",
    ),
    ours(
        "ENI_CONFIG_SUBNET",
        Text("a subnet's id"),
        Means("the node's ENIConfig says it"),
        "subnet of custom networking, without an ENIConfig",
    ),
    ours(
        "ENI_CONFIG_SECURITY_GROUPS",
        Text("security groups' ids, separated by commas"),
        Means("the primary ENI's security groups"),
        "security groups of custom networking",
    ),
    aws("CLUSTER_NAME", Text("a name"), Means("no such tag"), "value of the cluster tag on ENIs"),
    aws(
        "ADDITIONAL_ENI_TAGS",
        Text("a JSON object of texts"),
        Means("no further tags"),
        "tags for new ENIs; keys with k8s.amazonaws.com are left out",
    ),
];

const EC2: &[Setting] = &[
    aws(
        "DISABLE_NETWORK_RESOURCE_PROVISIONING",
        Switch,
        Default("false"),
        "true: change nothing at EC2; somebody else attaches ENIs and gives them addresses",
    ),
    aws(
        "ENABLE_IMDS_ONLY_MODE",
        Switch,
        Default("false"),
        "true: never call EC2; ENIs are read from the metadata service",
    ),
    ours(
        "IPAMD_METADATA_SECONDS",
        number(1, 3600, "seconds"),
        Default("60"),
        "time between looks at the metadata service for new security groups and networks",
    ),
    ours(
        "IPAMD_START_JITTER_SECONDS",
        number(0, 300, "seconds"),
        Default("0"),
        "a restarted daemon asks EC2 up to so much later, so that not all nodes do at once; pods are served meanwhile",
    ),
];

const PACKETS: &[Setting] = &[
    aws(
        "AWS_VPC_K8S_CNI_VETHPREFIX",
        Text("1 to 4 characters, not eth, lo or vlan"),
        Default("eni"),
        "first characters of host interfaces' names",
    ),
    aws(
        "AWS_VPC_CNI_NODE_PORT_SUPPORT",
        Switch,
        Default("true"),
        "true: a reply to what came in for the node by the primary ENI (NodePort) leaves by it, whichever ENI the pod is on",
    ),
    aws(
        "DISABLE_POD_V6",
        Switch,
        Default("false"),
        "true: pods have no IPv6 at all, no link-local address either (the reference plugin tuning is chained, which has to be on the node)",
    ),
    aws("AWS_VPC_ENI_MTU", number(576, 9001, "bytes"), Default("9001"), "MTU of ENIs; with IPv6 1280 or more"),
    aws(
        "POD_MTU",
        number(576, 9001, "bytes"),
        Means("pods have the MTU of ENIs"),
        "MTU of pods; with IPv6 1280 or more",
    ),
    aws(
        "AWS_VPC_K8S_CNI_EXTERNALSNAT",
        Switch,
        Default("false"),
        "true: somebody else translates traffic that leaves the VPC",
    ),
    aws("AWS_VPC_K8S_CNI_EXCLUDE_SNAT_CIDRS", CIDRS, Means("none"), "networks that pods reach untranslated"),
    aws("AWS_EXTERNAL_SERVICE_CIDRS", CIDRS, Means("none"), "networks that pods reach by the node's main routes"),
    aws(
        "AWS_VPC_K8S_CNI_RANDOMIZESNAT",
        Word(&["prng", "hashrandom", "none"]),
        Default("prng"),
        "how the source ports of translated connections are chosen",
    ),
];

const RUNTIME: &[Setting] = &[
    aws("HOST_CNI_BIN_PATH", Path, Default("/opt/cni/bin"), "folder of the CNI plugins"),
    aws("HOST_CNI_CONFDIR_PATH", Path, Means("no CNI configuration is written"), "folder for the CNI configuration"),
    aws(
        "AWS_VPC_K8S_CNI_BACKING_STORE",
        Path,
        Default("/var/run/aws-node/ipam.json"),
        "leases of amazon-vpc-cni-k8s, which are only read to take a node over; its socket beside them tells whether it runs",
    ),
    ours(
        "CRI_SOCKET",
        Path,
        Means("the runtime is not asked"),
        "socket of the container runtime, to find lost sandboxes",
    ),
    ours(
        "UNLISTED_SANDBOX_SECONDS",
        number(2, 86_400, "seconds"),
        Default("300"),
        "how long the runtime must not know a sandbox before that is lost",
    ),
];

const KUBERNETES: &[Setting] = &[
    aws(
        "MY_NODE_NAME",
        Text("a node's name"),
        Means("Kubernetes is not used"),
        "this node's name in Kubernetes: its condition, startup taint, events, max pods and ENIConfig",
    ),
    aws(
        "CLUSTER_ENDPOINT",
        Text("a URL like https://10.0.0.1:443"),
        Means("KUBERNETES_SERVICE_HOST and its port, which kubelet sets"),
        "API server to use instead, without kube-proxy on the way",
    ),
    ours(
        "IPAMD_SERVICE_ACCOUNT_DIR",
        Path,
        Default("/var/run/secrets/kubernetes.io/serviceaccount"),
        "folder with the token and ca.crt for the API server",
    ),
    aws(
        "ANNOTATE_POD_IP",
        Switch,
        Default("false"),
        "true: pods get their address as the annotation vpc.amazonaws.com/pod-ips",
    ),
    aws(
        "ENI_CONFIG_ANNOTATION_DEF",
        Text("an annotation's key"),
        Default("k8s.amazonaws.com/eniConfig"),
        "annotation of the node that names its ENIConfig",
    ),
    aws(
        "ENI_CONFIG_LABEL_DEF",
        Text("a label's key"),
        Default("k8s.amazonaws.com/eniConfig"),
        "label of the node that names its ENIConfig, if no annotation does; else it is default",
    ),
    aws(
        "NETWORK_POLICY_ENFORCING_MODE",
        Word(&["none", "standard", "strict"]),
        Default("none"),
        "standard, strict: the network-policy agent is told of pods; until it has answered, a pod may do everything, or does not start",
    ),
    ours(
        "IPAMD_POLICY_AGENT_DIR",
        Path,
        Default(numbers::DEFAULT_POLICY_AGENT_DIR),
        "folder that the network-policy agent shares with the CNI: npa.sock is its socket, ipamd.sock ours for it",
    ),
];

const FILES: &[Setting] = &[
    ours("IPAMD_CONFIG", Path, Means("no file is read"), "TOML file with further settings; not in that file itself"),
    ours("IPAMD_SOCKET", Path, Default(numbers::DEFAULT_SOCKET), "socket that the CNI plugin talks to"),
    ours("IPAMD_DATABASE", Path, Default(numbers::DEFAULT_DATABASE), "lease database (SQLite)"),
    ours(
        "IPAMD_RELEASED_DIR",
        Path,
        Default(numbers::DEFAULT_RELEASED_DIR),
        "release notes of a plugin that found no daemon",
    ),
    ours("IPAMD_HISTORY_DAYS", number(1, 3650, "days"), Default("30"), "how long ended leases can be looked up"),
    ours("IPAMD_HISTORY_ROWS", number(0, 10_000_000, "leases"), Default("100000"), "most ended leases that are kept"),
];

const LOOKING: &[Setting] = &[
    aws("DISABLE_METRICS", Switch, Default("false"), "true: no metrics are served"),
    ours(
        "IPAMD_METRICS_ADDRESS",
        Text("ADDRESS:PORT"),
        Default("[::]:61678"),
        "where /metrics is served; [::] is every address of the node, those of IPv4 too",
    ),
    aws("DISABLE_INTROSPECTION", Switch, Default("false"), "true: no introspection and no status page"),
    aws(
        "INTROSPECTION_BIND_ADDRESS",
        Text("ADDRESS:PORT, or unix: and a path"),
        Default("127.0.0.1:61679"),
        "where introspection and the status page are served; they show names of pods, so keep it on the node",
    ),
];

const LOGS: &[Setting] = &[
    aws(
        "AWS_VPC_K8S_CNI_LOGLEVEL",
        Word(&["error", "warn", "info", "debug", "trace", "fatal"]),
        Default("info"),
        "least severe level that is logged; fatal is taken for error; `ipamd log-level` changes it while the daemon runs",
    ),
    aws(
        "AWS_VPC_K8S_CNI_LOG_FILE",
        Text("an absolute path, or stderr"),
        Default("stderr"),
        "where the log goes; a file is set aside at 20 MiB, and four of those are kept; stdout is taken for stderr",
    ),
    ours("IPAMD_LOG_FORMAT", Word(&["text", "json"]), Default("text"), "json: each line of the log is a JSON object"),
];

/// The level of the log.
pub(crate) const LOG_LEVEL: &str = "AWS_VPC_K8S_CNI_LOGLEVEL";

/// The settings that are taken over while the daemon runs, when they change in the settings file. All others wait for its next start.
pub(crate) const LIVE: &[&str] = &[
    "WARM_ENI_TARGET",
    "WARM_IP_TARGET",
    "MINIMUM_IP_TARGET",
    "WARM_PREFIX_TARGET",
    "WARM_TARGET",
    "MAX_ENI",
    "MAX_PODS",
    "IP_COOLDOWN_PERIOD",
    LOG_LEVEL,
];

/// Whether a setting is taken over while the daemon runs.
pub(crate) fn is_live(name: &str) -> bool {
    LIVE.contains(&name)
}

/// All settings, in the order of the reference.
pub(crate) fn all() -> impl Iterator<Item = &'static Setting> {
    TOPICS.iter().flat_map(|(_, settings)| settings.iter())
}

/// The setting of a name.
pub(crate) fn find(name: &str) -> Option<&'static Setting> {
    all().find(|setting| setting.name == name)
}
