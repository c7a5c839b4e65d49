//! Every setting of the daemon, in this one file: name, meaning, range, default, and what absent means.
//!
//! Names are the AWS CNI's wherever the meaning is the same, so that a values file carries over. All mistakes are
//! collected and reported together, so that one start shows them all.

use std::{net::Ipv4Addr, path::PathBuf, str::FromStr, time::Duration};

use eni_proto::{VethPrefix, numbers};
use ipam_core::{Placement, Policy, ports::Cidr4};

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
    /// `ADD_WAIT_SECONDS`: how long an ADD waits for an address; goes into the CNI configuration.
    pub(crate) add_wait_seconds: u32,
    /// Pool targets: `WARM_ENI_TARGET`, `WARM_IP_TARGET`, `MINIMUM_IP_TARGET`, `MAX_ENI`, `IP_COOLDOWN_PERIOD`.
    pub(crate) policy: Policy,
    /// `AWS_VPC_K8S_CNI_VETHPREFIX`: first characters of host interfaces' names.
    pub(crate) veth_prefix: VethPrefix,
    /// `AWS_VPC_ENI_MTU`: MTU of ENIs and pods, in bytes.
    pub(crate) mtu: u16,
    /// `AWS_VPC_K8S_CNI_EXTERNALSNAT`: somebody else translates what leaves the VPC, so we do not.
    pub(crate) external_snat: bool,
    /// `AWS_VPC_K8S_CNI_EXCLUDE_SNAT_CIDRS`: destinations outside the VPC that pods reach with their own address.
    pub(crate) exclude_snat: Vec<Cidr4>,
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
    ("WARM_ENI_TARGET", "1", "whole ENIs to keep free, 0 to 15; ignored when an address target is set"),
    ("WARM_IP_TARGET", "0", "free addresses to keep, 0 to 1000; 0: not set"),
    ("MINIMUM_IP_TARGET", "0", "addresses to hold at least, 0 to 1000; 0: not set"),
    ("MAX_ENI", "", "most ENIs, 1 to 24; absent: what the instance type allows"),
    ("IP_COOLDOWN_PERIOD", "30", "seconds before a released address is reused, 5 to 3600"),
    ("AWS_VPC_K8S_CNI_VETHPREFIX", "eni", "first 1 to 4 characters of host interface names"),
    ("AWS_VPC_ENI_MTU", "9001", "MTU of ENIs and pods in bytes, 576 to 9001"),
    ("AWS_VPC_K8S_CNI_EXTERNALSNAT", "false", "true: somebody else translates traffic that leaves the VPC"),
    ("AWS_VPC_K8S_CNI_EXCLUDE_SNAT_CIDRS", "", "comma-separated networks that pods reach untranslated"),
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
            add_wait_seconds: reader.number("ADD_WAIT_SECONDS", numbers::DEFAULT_ADD_WAIT_SECONDS, 0, 200),
            policy: Policy {
                warm_enis: reader.number("WARM_ENI_TARGET", 1, 0, 15),
                warm_addresses: reader.number("WARM_IP_TARGET", 0, 0, 1000),
                minimum_addresses: reader.number("MINIMUM_IP_TARGET", 0, 0, 1000),
                max_enis: reader.maximum_enis(),
                cool_down: Duration::from_secs(
                    reader.number("IP_COOLDOWN_PERIOD", numbers::DEFAULT_COOL_DOWN_SECONDS, 5, 3600).into(),
                ),
                // Not a setting yet.
                placement: Placement::NodeSubnet,
                ..Policy::default()
            },
            veth_prefix: reader.parsed("AWS_VPC_K8S_CNI_VETHPREFIX", VethPrefix::default()),
            mtu: reader.number("AWS_VPC_ENI_MTU", numbers::DEFAULT_MTU, numbers::MIN_MTU, numbers::DEFAULT_MTU),
            external_snat: reader.switch("AWS_VPC_K8S_CNI_EXTERNALSNAT"),
            exclude_snat: reader.cidrs("AWS_VPC_K8S_CNI_EXCLUDE_SNAT_CIDRS"),
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

    fn maximum_enis(&mut self) -> Option<u8> {
        self.text("MAX_ENI").map(|_| self.number("MAX_ENI", 1, 1, 24))
    }

    fn parsed<T: FromStr<Err = String>>(&mut self, name: &str, default: T) -> T {
        let Some(text) = self.text(name) else { return default };
        text.parse().unwrap_or_else(|why| {
            self.wrong(name, &text, why);
            default
        })
    }

    fn switch(&mut self, name: &str) -> bool {
        match self.text(name).map(|text| text.to_ascii_lowercase()).as_deref() {
            None | Some("false" | "0") => false,
            Some("true" | "1") => true,
            Some(other) => {
                self.wrong(name, other, "give true or false");
                false
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
            ("AWS_VPC_K8S_CNI_LOGLEVEL", "loud"),
            ("IPAMD_SOCKET", "here.sock"),
        ])
        .unwrap_err();
        assert_eq!(wrong.0.len(), 8, "{wrong}");
        assert!(wrong.to_string().contains("WARM_ENI_TARGET=\"many\": give a whole number in 0..=15"), "{wrong}");
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
