//! Every setting of the daemon, in this one file: name, meaning, range, default, and what absent means.
//!
//! Names are the AWS CNI's wherever the meaning is the same, so that a values file carries over. All mistakes are
//! collected and reported together, so that one start shows them all.

mod cloud;

use std::{collections::BTreeMap, net::Ipv4Addr, path::PathBuf, str::FromStr, time::Duration};

use eni_datapath::SourcePorts;
use eni_proto::{VethPrefix, numbers};
use ipam_core::{Policy, ports::Cidr4};

use crate::sandboxes::Runtime;

/// What the daemon runs with. Built only by [`Settings::read`], so it is always consistent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Settings {
    /// `IPAMD_SOCKET`: where the plugin finds us.
    pub(crate) socket: PathBuf,
    /// `IPAMD_DATABASE`: the lease database.
    pub(crate) database: PathBuf,
    /// `IPAMD_RELEASED_DIR`: where the plugin leaves release notes while we are away.
    pub(crate) released_dir: PathBuf,
    /// `HOST_CNI_CONFDIR_PATH`: where the runtime looks for the CNI configuration. Absent: none is written.
    pub(crate) conf_dir: Option<PathBuf>,
    /// `HOST_CNI_BIN_PATH`: where the runtime looks for CNI plugins.
    pub(crate) plugin_dir: PathBuf,
    /// `CRI_SOCKET` and `UNLISTED_SANDBOX_SECONDS`: whom to ask for sandboxes that are lost. Absent: nobody.
    pub(crate) runtime: Option<Runtime>,
    /// `ADD_WAIT_SECONDS`: how long an ADD waits for an address; goes into the CNI configuration.
    pub(crate) add_wait_seconds: u32,
    /// How large the pool is, where it lives, what may be changed: see `settings/cloud.rs`.
    pub(crate) policy: Policy,
    /// `IPAMD_METADATA_SECONDS`: how often the metadata service is asked for what can change.
    pub(crate) metadata_period: Duration,
    /// `IPAMD_START_JITTER_SECONDS`: how much later at most a restarted daemon asks EC2.
    pub(crate) start_jitter: Duration,
    /// `ADDITIONAL_ENI_TAGS`: further tags of ENIs that we make.
    pub(crate) eni_tags: BTreeMap<String, String>,
    /// `AWS_VPC_K8S_CNI_VETHPREFIX`: first characters of host interfaces' names.
    pub(crate) veth_prefix: VethPrefix,
    /// `AWS_VPC_ENI_MTU`: MTU of ENIs and pods, in bytes.
    pub(crate) mtu: u16,
    /// `AWS_VPC_K8S_CNI_EXTERNALSNAT`: somebody else translates what leaves the VPC, so we do not.
    pub(crate) external_snat: bool,
    /// `AWS_VPC_K8S_CNI_EXCLUDE_SNAT_CIDRS`: destinations outside the VPC that pods reach with their own address.
    pub(crate) exclude_snat: Vec<Cidr4>,
    /// `AWS_EXTERNAL_SERVICE_CIDRS`: destinations that pods reach by the node's main routes only.
    pub(crate) external_services: Vec<Cidr4>,
    /// `AWS_VPC_K8S_CNI_RANDOMIZESNAT`: how the source ports of translated connections are chosen.
    pub(crate) source_ports: SourcePorts,
    /// `CLUSTER_NAME`: value of the cluster tag on ENIs. Absent: no such tag.
    pub(crate) cluster: Option<String>,
    /// `IPAMD_HISTORY_DAYS`, `IPAMD_HISTORY_ROWS`: how much of the history of leases is kept.
    pub(crate) history: HistoryBounds,
    /// `AWS_VPC_K8S_CNI_LOGLEVEL`: least severe level that is logged.
    pub(crate) log_level: String,
}

/// How much is kept of leases that have ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct HistoryBounds {
    /// How long, in days.
    pub(crate) days: u16,
    /// How many at most.
    pub(crate) rows: u32,
}

impl HistoryBounds {
    /// How long, in milliseconds.
    pub(crate) fn age_milliseconds(self) -> u64 {
        u64::from(self.days) * 24 * 60 * 60 * 1000
    }
}

/// All that is wrong with the settings.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("IPAM-301 {} setting(s) are wrong; mend them and start ipamd again:\n{}", .0.len(), .0.join("\n"))]
pub(crate) struct Mistakes(pub(crate) Vec<String>);

/// The settings as `--help` shows them: name, default, meaning.
pub(crate) const REFERENCE: &[(&str, &str, &str)] = &[
    ("IPAMD_SOCKET", numbers::DEFAULT_SOCKET, "socket that the CNI plugin talks to"),
    ("IPAMD_DATABASE", numbers::DEFAULT_DATABASE, "lease database (SQLite)"),
    ("IPAMD_RELEASED_DIR", numbers::DEFAULT_RELEASED_DIR, "release notes of a plugin that found no daemon"),
    ("HOST_CNI_CONFDIR_PATH", "", "folder for the CNI configuration; absent: none is written"),
    ("HOST_CNI_BIN_PATH", "/opt/cni/bin", "folder of the CNI plugins"),
    ("ADD_WAIT_SECONDS", "20", "seconds that an ADD waits for an address that is on its way, 0 to 200"),
    ("CRI_SOCKET", "", "socket of the container runtime, to find lost sandboxes; absent: it is not asked"),
    ("UNLISTED_SANDBOX_SECONDS", "300", "seconds that it must not know a sandbox before that is lost, 2 to 86400"),
    ("WARM_ENI_TARGET", "1", "whole ENIs to keep free, 0 to 15; ignored when an address target is set"),
    ("WARM_IP_TARGET", "0", "free addresses to keep, 0 to 1000; 0: not set"),
    ("MINIMUM_IP_TARGET", "0", "addresses to hold at least, 0 to 1000; 0: not set"),
    ("MAX_ENI", "", "most ENIs, 1 to 24; absent: what the instance type allows"),
    ("MAX_PODS", "", "the node's max pods, 1 to 2000: never more addresses than they can use; absent: no such bound"),
    ("WARM_PREFIX_TARGET", "1", "whole /28 prefixes to keep free, 0 to 60; only with prefix delegation"),
    ("WARM_TARGET", "", "auto: as many free addresses as recent demand needed, instead of the other warm targets"),
    (
        "ENABLE_PREFIX_DELEGATION",
        "false",
        "true: hold addresses as /28 prefixes, singly where a subnet has no free /28",
    ),
    ("ENABLE_SUBNET_DISCOVERY", "true", "true: use subnets tagged kubernetes.io/role/cni beside the node's own"),
    (
        "AWS_VPC_K8S_CNI_CUSTOM_NETWORK_CFG",
        "false",
        "true: pods live in ENI_CONFIG_SUBNET instead of the node's subnet",
    ),
    ("ENI_CONFIG_SUBNET", "", "subnet of custom networking"),
    (
        "ENI_CONFIG_SECURITY_GROUPS",
        "",
        "comma-separated security groups of custom networking; absent: the primary ENI's",
    ),
    ("DISABLE_NETWORK_RESOURCE_PROVISIONING", "false", "true: change nothing at EC2; somebody else attaches ENIs"),
    ("ENABLE_IMDS_ONLY_MODE", "false", "true: never call EC2; ENIs are read from the metadata service"),
    ("ADDITIONAL_ENI_TAGS", "", "JSON object of tags for ENIs; keys with k8s.amazonaws.com are left out"),
    (
        "IPAMD_METADATA_SECONDS",
        "60",
        "seconds between looks at the metadata service for new groups and networks, 1 to 3600",
    ),
    (
        "IPAMD_START_JITTER_SECONDS",
        "0",
        "a restarted daemon asks EC2 up to so much later, so that not all nodes do at once; pods are served meanwhile; 0 to 300",
    ),
    ("IP_COOLDOWN_PERIOD", "30", "seconds before a released address is reused, 5 to 3600"),
    ("AWS_VPC_K8S_CNI_VETHPREFIX", "eni", "first 1 to 4 characters of host interface names"),
    ("AWS_VPC_ENI_MTU", "9001", "MTU of ENIs and pods in bytes, 576 to 9001"),
    ("AWS_VPC_K8S_CNI_EXTERNALSNAT", "false", "true: somebody else translates traffic that leaves the VPC"),
    ("AWS_VPC_K8S_CNI_EXCLUDE_SNAT_CIDRS", "", "comma-separated networks that pods reach untranslated"),
    ("AWS_EXTERNAL_SERVICE_CIDRS", "", "comma-separated networks that pods reach by the node's main routes"),
    ("AWS_VPC_K8S_CNI_RANDOMIZESNAT", "prng", "source ports of translated connections: prng, hashrandom or none"),
    ("CLUSTER_NAME", "", "value of the cluster tag on ENIs; absent: no tag"),
    ("IPAMD_HISTORY_DAYS", "30", "days for which ended leases can be looked up, 1 to 3650"),
    ("IPAMD_HISTORY_ROWS", "100000", "most ended leases that are kept, 0 to 10000000"),
    ("AWS_VPC_K8S_CNI_LOGLEVEL", "info", "error, warn, info, debug or trace"),
];

impl Settings {
    /// Reads all settings through `lookup`, which returns the text set for a name, if any. Empty text counts as absent.
    ///
    /// # Errors
    /// Every mistake at once, each with the name, the text, and what would be right.
    pub(crate) fn read(lookup: impl Fn(&str) -> Option<String>) -> Result<Self, Mistakes> {
        let mut reader = Reader { lookup, mistakes: Vec::new() };
        let settings = Self {
            socket: reader.path("IPAMD_SOCKET", numbers::DEFAULT_SOCKET),
            database: reader.path("IPAMD_DATABASE", numbers::DEFAULT_DATABASE),
            released_dir: reader.path("IPAMD_RELEASED_DIR", numbers::DEFAULT_RELEASED_DIR),
            conf_dir: reader.folder("HOST_CNI_CONFDIR_PATH"),
            plugin_dir: reader.path("HOST_CNI_BIN_PATH", "/opt/cni/bin"),
            runtime: reader.runtime(),
            add_wait_seconds: reader.number("ADD_WAIT_SECONDS", numbers::DEFAULT_ADD_WAIT_SECONDS, 0, 200),
            policy: reader.policy(),
            metadata_period: Duration::from_secs(reader.number("IPAMD_METADATA_SECONDS", 60, 1, 3600)),
            start_jitter: Duration::from_secs(reader.number("IPAMD_START_JITTER_SECONDS", 0, 0, 300)),
            eni_tags: reader.tags(),
            veth_prefix: reader.parsed("AWS_VPC_K8S_CNI_VETHPREFIX", VethPrefix::default()),
            mtu: reader.number("AWS_VPC_ENI_MTU", numbers::DEFAULT_MTU, numbers::MIN_MTU, numbers::DEFAULT_MTU),
            external_snat: reader.switch("AWS_VPC_K8S_CNI_EXTERNALSNAT"),
            exclude_snat: reader.cidrs("AWS_VPC_K8S_CNI_EXCLUDE_SNAT_CIDRS"),
            external_services: reader.cidrs("AWS_EXTERNAL_SERVICE_CIDRS"),
            source_ports: reader.source_ports(),
            cluster: reader.text("CLUSTER_NAME"),
            history: HistoryBounds {
                days: reader.number("IPAMD_HISTORY_DAYS", 30, 1, 3650),
                rows: reader.number("IPAMD_HISTORY_ROWS", 100_000, 0, 10_000_000),
            },
            log_level: reader.level("AWS_VPC_K8S_CNI_LOGLEVEL"),
        };
        if reader.mistakes.is_empty() { Ok(settings) } else { Err(Mistakes(reader.mistakes)) }
    }
}

struct Reader<F> {
    lookup: F,
    mistakes: Vec<String>,
}

impl<F: Fn(&str) -> Option<String>> Reader<F> {
    fn text(&self, name: &str) -> Option<String> {
        (self.lookup)(name).map(|text| text.trim().to_owned()).filter(|text| !text.is_empty())
    }

    fn wrong(&mut self, name: &str, text: &str, advice: impl std::fmt::Display) {
        self.mistakes.push(format!("  - {name}=\"{text}\": {advice}"));
    }

    fn path(&mut self, name: &str, default: &str) -> PathBuf {
        let path = PathBuf::from(self.text(name).unwrap_or_else(|| default.to_owned()));
        if !path.is_absolute() {
            self.wrong(name, &path.display().to_string(), "give an absolute path");
        }
        path
    }

    fn folder(&mut self, name: &str) -> Option<PathBuf> {
        self.text(name).map(|_| self.path(name, "/"))
    }

    fn runtime(&mut self) -> Option<Runtime> {
        let patience = std::time::Duration::from_secs(self.number("UNLISTED_SANDBOX_SECONDS", 300, 2, 86_400));
        self.folder("CRI_SOCKET").map(|socket| Runtime { socket, patience })
    }

    fn number<N>(&mut self, name: &str, default: N, least: N, most: N) -> N
    where
        N: FromStr + PartialOrd + std::fmt::Display + Copy,
    {
        let Some(text) = self.text(name) else { return default };
        match text.parse() {
            Ok(number) if number >= least && number <= most => number,
            _ => {
                self.wrong(name, &text, format_args!("give a whole number in {least}..={most}"));
                default
            }
        }
    }

    fn optional<N>(&mut self, name: &str, least: N, most: N) -> Option<N>
    where
        N: FromStr + PartialOrd + std::fmt::Display + Copy,
    {
        self.text(name).map(|_| self.number(name, least, least, most))
    }

    fn parsed<T: FromStr<Err = String>>(&mut self, name: &str, default: T) -> T {
        let Some(text) = self.text(name) else { return default };
        text.parse().unwrap_or_else(|why| {
            self.wrong(name, &text, why);
            default
        })
    }

    fn switch(&mut self, name: &str) -> bool {
        self.switch_or(name, false)
    }

    fn switch_or(&mut self, name: &str, default: bool) -> bool {
        match self.text(name).map(|text| text.to_ascii_lowercase()).as_deref() {
            None => default,
            Some("false" | "0") => false,
            Some("true" | "1") => true,
            Some(other) => {
                self.wrong(name, other, "give true or false");
                default
            }
        }
    }

    fn source_ports(&mut self) -> SourcePorts {
        let name = "AWS_VPC_K8S_CNI_RANDOMIZESNAT";
        match self.text(name).as_deref() {
            None | Some("prng") => SourcePorts::Random,
            Some("hashrandom") => SourcePorts::Hashed,
            Some("none") => SourcePorts::Kept,
            Some(other) => {
                self.wrong(name, other, "give prng, hashrandom or none");
                SourcePorts::default()
            }
        }
    }

    fn level(&mut self, name: &str) -> String {
        let text = self.text(name).map_or_else(|| "info".to_owned(), |text| text.to_ascii_lowercase());
        if !["error", "warn", "info", "debug", "trace"].contains(&text.as_str()) {
            self.wrong(name, &text, "give error, warn, info, debug or trace");
        }
        text
    }

    fn cidrs(&mut self, name: &str) -> Vec<Cidr4> {
        let text = self.text(name).unwrap_or_default();
        let mut cidrs = Vec::new();
        for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            match parse_cidr(part) {
                Some(cidr) => cidrs.push(cidr),
                None => self.wrong(name, part, "give IPv4 networks like 192.168.0.0/16, separated by commas"),
            }
        }
        cidrs.sort();
        cidrs.dedup();
        cidrs
    }
}

/// Reads `a.b.c.d/n`; host bits must be zero.
pub(crate) fn parse_cidr(text: &str) -> Option<Cidr4> {
    let (network, prefix) = text.split_once('/')?;
    let network: Ipv4Addr = network.parse().ok()?;
    let prefix: u8 = prefix.parse().ok().filter(|prefix| *prefix <= 32)?;
    let host_bits = u32::MAX.checked_shr(prefix.into()).unwrap_or(0);
    (network.to_bits() & host_bits == 0).then_some(Cidr4 { network, prefix })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pairs: &[(&str, &str)]) -> Result<Settings, Mistakes> {
        Settings::read(|name| pairs.iter().find(|(n, _)| *n == name).map(|(_, text)| (*text).to_owned()))
    }

    #[test]
    fn nothing_set_is_a_working_configuration() {
        let settings = read(&[]).unwrap();
        assert_eq!(settings.policy.warm_enis, 1);
        assert_eq!(settings.policy.max_enis, None);
        assert_eq!(settings.socket, PathBuf::from(numbers::DEFAULT_SOCKET));
    }

    #[test]
    fn all_mistakes_come_back_together() {
        let wrong = read(&[
            ("WARM_ENI_TARGET", "many"),
            ("IP_COOLDOWN_PERIOD", "0"),
            ("MAX_ENI", "0"),
            ("AWS_VPC_K8S_CNI_VETHPREFIX", "vlan"),
            ("AWS_VPC_K8S_CNI_EXTERNALSNAT", "perhaps"),
            ("AWS_VPC_K8S_CNI_EXCLUDE_SNAT_CIDRS", "192.168.0.0/16, 10.0.0.1/8"),
            ("AWS_EXTERNAL_SERVICE_CIDRS", "everything"),
            ("AWS_VPC_K8S_CNI_RANDOMIZESNAT", "always"),
            ("AWS_VPC_K8S_CNI_LOGLEVEL", "loud"),
            ("IPAMD_SOCKET", "here.sock"),
        ])
        .unwrap_err();
        assert_eq!(wrong.0.len(), 10, "{wrong}");
        assert!(wrong.to_string().contains("WARM_ENI_TARGET=\"many\": give a whole number in 0..=15"), "{wrong}");
    }

    #[test]
    fn modes_have_the_names_of_the_aws_cni() {
        use ipam_core::{Access, CustomNetwork, Mode, Placement};

        let policy = |pairs: &[(&str, &str)]| read(pairs).unwrap().policy;
        assert_eq!(policy(&[]), Policy::default());
        assert_eq!(policy(&[("ENABLE_PREFIX_DELEGATION", "true")]).mode, Mode::Prefixes);
        assert_eq!(policy(&[("ENABLE_SUBNET_DISCOVERY", "false")]).placement, Placement::NodeSubnet);
        assert_eq!(policy(&[("DISABLE_NETWORK_RESOURCE_PROVISIONING", "true")]).access, Access::ReadOnly);
        assert_eq!(policy(&[("ENABLE_IMDS_ONLY_MODE", "TRUE")]).access, Access::MetadataOnly);
        assert!(policy(&[("WARM_TARGET", "auto")]).warm_auto);
        assert_eq!(policy(&[("MAX_PODS", "110")]).max_pods, Some(110));
        let custom = [
            ("AWS_VPC_K8S_CNI_CUSTOM_NETWORK_CFG", "true"),
            ("ENI_CONFIG_SUBNET", "subnet-1"),
            ("ENI_CONFIG_SECURITY_GROUPS", "sg-2, sg-1"),
        ];
        let security_groups = vec!["sg-1".parse().unwrap(), "sg-2".parse().unwrap()];
        let wanted = CustomNetwork { subnet: "subnet-1".parse().unwrap(), security_groups };
        assert_eq!(policy(&custom).placement, Placement::Custom(wanted));
    }

    #[test]
    fn mistakes_in_modes_are_told() {
        let wrong = read(&[
            ("AWS_VPC_K8S_CNI_CUSTOM_NETWORK_CFG", "true"),
            ("ENI_CONFIG_SECURITY_GROUPS", "default"),
            ("WARM_TARGET", "5"),
            ("MAX_PODS", "0"),
            ("WARM_PREFIX_TARGET", "-1"),
            ("ADDITIONAL_ENI_TAGS", "team=shop"),
        ])
        .unwrap_err();
        assert_eq!(wrong.0.len(), 6, "{wrong}");
    }

    #[test]
    fn tags_are_taken_over_but_for_those_of_controllers() {
        let tags = r#"{"team":"shop","node.k8s.amazonaws.com/instance_id":"i-2"}"#;
        let settings = read(&[("ADDITIONAL_ENI_TAGS", tags)]).unwrap();
        assert_eq!(settings.eni_tags, BTreeMap::from([("team".to_owned(), "shop".to_owned())]));
        assert!(read(&[("ADDITIONAL_ENI_TAGS", r#"{"aws:team":"shop"}"#)]).is_err());
    }

    #[test]
    fn empty_text_means_absent() {
        assert_eq!(read(&[("MAX_ENI", ""), ("WARM_IP_TARGET", " ")]), read(&[]));
    }

    #[test]
    fn every_setting_that_is_read_is_in_the_reference() {
        let asked = std::cell::RefCell::new(Vec::new());
        let _ = Settings::read(|name| {
            asked.borrow_mut().push(name.to_owned());
            None
        });
        for name in asked.into_inner() {
            assert!(REFERENCE.iter().any(|(known, ..)| *known == name), "{name} is missing from REFERENCE");
        }
    }
}
