//! The settings as the daemon uses them. Which there are, and what each accepts, is in `settings/table.rs`.
//!
//! All mistakes are collected and reported together, so that one start shows them all.

mod cloud;
mod ignored;
mod kubernetes;
mod others;
mod reader;
pub(crate) mod reference;
pub(crate) mod reload;
pub(crate) mod sources;
pub(crate) mod table;
pub(crate) mod values;

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use eni_datapath::SourcePorts;
use eni_proto::{Enforcing, VethPrefix, policy::Mode};
use ipam_core::{Policy, ports::Cidr4};
use reader::Reader;
use sources::Sources;

pub(crate) use self::others::{PolicyAgent, Runtime};
use crate::{kube::KubeSettings, logging::LogPlan, store};

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
    /// `AWS_VPC_K8S_CNI_BACKING_STORE`: where amazon-vpc-cni-k8s keeps its leases; its socket lies beside them.
    pub(crate) incumbent: PathBuf,
    /// How Kubernetes is reached, and what of it is used. Absent: it is not.
    pub(crate) kube: Option<KubeSettings>,
    /// Who puts network policies into effect. Absent: nobody is told of pods.
    pub(crate) policy_agent: Option<PolicyAgent>,
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
    /// `ENABLE_POD_ENI`, `POD_SECURITY_GROUP_ENFORCING_MODE`: how far the security groups of pods on branch ENIs reach. Absent: there
    /// are no such pods.
    pub(crate) branches: Option<Enforcing>,
    /// `AWS_VPC_ENI_MTU`: MTU of ENIs, in bytes.
    pub(crate) mtu: u16,
    /// `POD_MTU`: MTU of pods, in bytes.
    pub(crate) pod_mtu: u16,
    /// `AWS_VPC_CNI_NODE_PORT_SUPPORT`: whether replies of NodePorts leave by the primary ENI.
    pub(crate) node_ports: bool,
    /// `DISABLE_POD_V6`: whether IPv6 is switched off in pods.
    pub(crate) pods_without_ipv6: bool,
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
    /// `DISABLE_METRICS`, `IPAMD_METRICS_ADDRESS`: where metrics are served. Absent: nowhere.
    pub(crate) metrics: Option<SocketAddr>,
    /// `DISABLE_INTROSPECTION`, `INTROSPECTION_BIND_ADDRESS`: where introspection is served. Absent: nowhere.
    pub(crate) introspection: Option<Place>,
    /// `AWS_VPC_K8S_CNI_LOGLEVEL`, `AWS_VPC_K8S_CNI_LOG_FILE`, `IPAMD_LOG_FORMAT`: how the log is written.
    pub(crate) log: LogPlan,
}

/// Where something is served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Place {
    Tcp(SocketAddr),
    Unix(PathBuf),
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

impl Settings {
    /// Reads all settings from where they were set.
    ///
    /// # Errors
    /// As for [`Settings::read`].
    pub(crate) fn of(sources: &Sources) -> Result<Self, Mistakes> {
        Self::read(|name| sources.get(name).map(|(text, _)| text.to_owned()))
    }

    /// The same, and where nobody set anything, as the daemon of this node was told, which wrote it into its database: who is called to
    /// a node has not the daemon's environment.
    ///
    /// # Errors
    /// As for [`Settings::read`]; what the daemon was told is not at fault.
    pub(crate) async fn beside_daemon(sources: &Sources) -> Result<Self, Mistakes> {
        let own = Self::of(sources)?;
        let told = store::known(&own.database).await.map(|known| known.given).unwrap_or_default();
        let both = |name: &str| sources.get(name).map(|(text, _)| text.to_owned()).or_else(|| told.get(name).cloned());
        Ok(Self::read(both).unwrap_or(own))
    }

    /// Reads all settings through `lookup`, which returns the text set for a name, if any. Empty text counts as absent.
    ///
    /// # Errors
    /// Every mistake at once, each with the name, the text, and what would be right.
    pub(crate) fn read(lookup: impl Fn(&str) -> Option<String>) -> Result<Self, Mistakes> {
        let mut reader = Reader { lookup, mistakes: Vec::new() };
        reader.optional_path("IPAMD_CONFIG");
        let (mtu, pod_mtu) = reader.mtus();
        let settings = Self {
            socket: reader.path("IPAMD_SOCKET"),
            database: reader.path("IPAMD_DATABASE"),
            released_dir: reader.path("IPAMD_RELEASED_DIR"),
            conf_dir: reader.optional_path("HOST_CNI_CONFDIR_PATH"),
            plugin_dir: reader.path("HOST_CNI_BIN_PATH"),
            runtime: reader.runtime(),
            incumbent: reader.path("AWS_VPC_K8S_CNI_BACKING_STORE"),
            kube: reader.kubernetes(),
            policy_agent: reader.policy_agent(),
            add_wait_seconds: reader.number("ADD_WAIT_SECONDS"),
            policy: reader.policy(),
            metadata_period: Duration::from_secs(reader.number("IPAMD_METADATA_SECONDS")),
            start_jitter: Duration::from_secs(reader.number("IPAMD_START_JITTER_SECONDS")),
            eni_tags: reader.tags(),
            veth_prefix: reader.parsed("AWS_VPC_K8S_CNI_VETHPREFIX"),
            branches: reader.branches(),
            mtu,
            pod_mtu,
            node_ports: reader.switch("AWS_VPC_CNI_NODE_PORT_SUPPORT"),
            pods_without_ipv6: reader.pods_without_ipv6(),
            external_snat: reader.switch("AWS_VPC_K8S_CNI_EXTERNALSNAT"),
            exclude_snat: reader.cidrs("AWS_VPC_K8S_CNI_EXCLUDE_SNAT_CIDRS"),
            external_services: reader.cidrs("AWS_EXTERNAL_SERVICE_CIDRS"),
            source_ports: reader.source_ports(),
            cluster: reader.text("CLUSTER_NAME"),
            history: HistoryBounds {
                days: reader.number("IPAMD_HISTORY_DAYS"),
                rows: reader.number("IPAMD_HISTORY_ROWS"),
            },
            metrics: reader.metrics(),
            introspection: reader.introspection(),
            log: reader.log(),
        };
        if reader.mistakes.is_empty() { Ok(settings) } else { Err(Mistakes(reader.mistakes)) }
    }
}

impl<F: Fn(&str) -> Option<String>> Reader<F> {
    fn runtime(&mut self) -> Option<Runtime> {
        let patience = Duration::from_secs(self.number("UNLISTED_SANDBOX_SECONDS"));
        self.optional_path("CRI_SOCKET").map(|socket| Runtime { socket, patience })
    }

    fn policy_agent(&mut self) -> Option<PolicyAgent> {
        let folder = self.path("IPAMD_POLICY_AGENT_DIR");
        let mode = self.word("NETWORK_POLICY_ENFORCING_MODE").and_then(Mode::read);
        mode.map(|mode| PolicyAgent { mode, folder })
    }

    fn branches(&mut self) -> Option<Enforcing> {
        let standard = self.word("POD_SECURITY_GROUP_ENFORCING_MODE") == Some("standard");
        let enforcing = if standard { Enforcing::Standard } else { Enforcing::Strict };
        self.switch("ENABLE_POD_ENI").then_some(enforcing)
    }

    fn source_ports(&mut self) -> SourcePorts {
        match self.word("AWS_VPC_K8S_CNI_RANDOMIZESNAT") {
            Some("hashrandom") => SourcePorts::Hashed,
            Some("none") => SourcePorts::Kept,
            _ => SourcePorts::Random,
        }
    }

    fn metrics(&mut self) -> Option<SocketAddr> {
        const NAME: &str = "IPAMD_METRICS_ADDRESS";
        let text = self.text(NAME).unwrap_or_default();
        let address = text.parse().ok();
        if address.is_none() {
            self.wrong(NAME, &text, "give ADDRESS:PORT like 10.0.0.5:61678 or [::]:61678");
        }
        address.filter(|_| !self.switch("DISABLE_METRICS"))
    }

    fn introspection(&mut self) -> Option<Place> {
        const NAME: &str = "INTROSPECTION_BIND_ADDRESS";
        let text = self.text(NAME).unwrap_or_default();
        let place = match text.strip_prefix("unix:") {
            Some(path) => Some(PathBuf::from(path)).filter(|path| path.is_absolute()).map(Place::Unix),
            None => text.parse().ok().map(Place::Tcp),
        };
        if place.is_none() {
            self.wrong(NAME, &text, "give ADDRESS:PORT like 127.0.0.1:61679, or unix: and an absolute path");
        }
        place.filter(|_| !self.switch("DISABLE_INTROSPECTION"))
    }

    fn log(&mut self) -> LogPlan {
        const FILE: &str = "AWS_VPC_K8S_CNI_LOG_FILE";
        let level = match self.word("AWS_VPC_K8S_CNI_LOGLEVEL") {
            // The AWS CNI's word for what cannot be survived; ipamd has no such level.
            Some("fatal") => "error",
            Some(level) => level,
            None => "info",
        };
        let file = self.text(FILE).filter(|text| text != "stderr" && text != "stdout").map(PathBuf::from);
        if let Some(path) = file.as_ref().filter(|path| !path.is_absolute()) {
            self.wrong(FILE, &path.display().to_string(), "give an absolute path, or stderr");
        }
        LogPlan { level, json: self.word("IPAMD_LOG_FORMAT") == Some("json"), file }
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
mod tests;
