//! Settings of the AWS CNI that ipamd does not follow, each with the reason: nobody shall find out from a pod that does not work.

/// A setting of the AWS CNI that has no effect here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ignored {
    pub(crate) name: &'static str,
    /// Texts that ask for what ipamd does anyway: nothing is said of them.
    pub(crate) same: &'static [&'static str],
    /// Why nothing else is done, and what to do instead.
    pub(crate) why: &'static str,
}

impl Ignored {
    /// Whether a text asks for something that will not happen.
    pub(crate) fn is_missed(&self, text: &str) -> bool {
        !text.trim().is_empty() && !self.same.iter().any(|same| same.eq_ignore_ascii_case(text.trim()))
    }
}

const fn ignored(name: &'static str, same: &'static [&'static str], why: &'static str) -> Ignored {
    Ignored { name, same, why }
}

const OFF: &[&str] = &["false", "f", "0"];
const ON: &[&str] = &["true", "t", "1"];
const ANY_FILE: &str = "the plugin has no log file: its lines are in ipamd's log, and in the runtime's when it fails";

/// The settings of amazon-vpc-cni-k8s 1.23 that are read nowhere here, by name.
pub(crate) const IGNORED: &[Ignored] = &[
    ignored("AWS_EC2_ENDPOINT", &[], "set AWS_ENDPOINT_URL_EC2, which every AWS SDK reads"),
    ignored(
        "AWS_MANAGE_ENIS_NON_SCHEDULABLE",
        ON,
        "a cordoned node keeps its pool as wanted: pods that tolerate the cordon need addresses too",
    ),
    ignored("AWS_VPC_K8S_CNI_CONFIGURE_RPFILTER", &[], "ipamd sets rp_filter on its interfaces; it was without effect"),
    ignored("AWS_VPC_K8S_CNI_CONNMARK", &["0x80", "128"], "the mark is always 0x80"),
    ignored("AWS_VPC_K8S_EGRESS_V4_PLUGIN_LOG_FILE", &[], ANY_FILE),
    ignored("AWS_VPC_K8S_EGRESS_V6_PLUGIN_LOG_FILE", &[], ANY_FILE),
    ignored("AWS_VPC_K8S_PLUGIN_LOG_FILE", &["stderr"], ANY_FILE),
    ignored("AWS_VPC_K8S_PLUGIN_LOG_LEVEL", &[], "the plugin logs at the level of ipamd: set AWS_VPC_K8S_CNI_LOGLEVEL"),
    ignored("DISABLE_LEAKED_ENI_CLEANUP", OFF, "only ENIs of this node's own instance tag are ever cleaned up"),
    ignored("DISABLE_TCP_EARLY_DEMUX", OFF, "kubelet reaches pods through a veth pair with early demux as it is"),
    ignored("ENABLE_BANDWIDTH_PLUGIN", OFF, "chain the bandwidth plugin in a CNI configuration of your own"),
    ignored("ENABLE_NFTABLES", &[], "nf_tables is always used; it was without effect"),
    ignored("HTTP_TIMEOUT", &["10"], "each kind of AWS call has a timeout of its own"),
    ignored("MANAGE_UNTAGGED_ENI", ON, "untagged ENIs are used, and never given back"),
];

/// Names that the AWS CNI's containers have and that carry no wish.
pub(crate) const SILENT: &[&str] = &["MY_POD_NAME", "VPC_CNI_VERSION", "VPC_ID"];
