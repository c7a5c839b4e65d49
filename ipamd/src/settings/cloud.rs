//! The settings about EC2: how large the pool is, where it lives, what may be changed.

use std::{collections::BTreeMap, time::Duration};

use eni_proto::numbers::MIN_MTU_V6;
use ipam_core::{Access, CustomNetwork, Families, Mode, Placement, Policy, SecurityGroupId};

use super::Reader;

/// What EC2 accepts for the tags of one thing, less those that ipamd sets itself. Source: EC2 user guide, tag restrictions.
const MOST_TAGS: usize = 45;
const LONGEST_KEY: usize = 128;
const LONGEST_VALUE: usize = 256;
/// Tags with this in their key have a meaning for controllers; as with the AWS CNI they cannot be set by hand.
const RESERVED: &str = "k8s.amazonaws.com";

impl<F: Fn(&str) -> Option<String>> Reader<F> {
    pub(super) fn policy(&mut self) -> Policy {
        let families = self.families();
        Policy {
            warm_enis: self.number("WARM_ENI_TARGET"),
            warm_prefixes: self.number("WARM_PREFIX_TARGET"),
            warm_addresses: self.number("WARM_IP_TARGET"),
            minimum_addresses: self.number("MINIMUM_IP_TARGET"),
            warm_auto: self.word("WARM_TARGET").is_some(),
            max_enis: self.optional("MAX_ENI"),
            max_pods: self.optional("MAX_PODS"),
            mode: if self.switch("ENABLE_PREFIX_DELEGATION") { Mode::Prefixes } else { Mode::Addresses },
            families,
            egress: self.egress(families),
            placement: self.placement(),
            cluster: self.text("CLUSTER_NAME").unwrap_or_default(),
            further_cards: self.switch("ENABLE_MULTI_NIC"),
            trunk: self.switch("ENABLE_POD_ENI"),
            access: self.access(),
            cool_down: Duration::from_secs(self.number("IP_COOLDOWN_PERIOD")),
        }
    }

    /// Both together are dual stack, which the AWS CNI does not have.
    fn families(&mut self) -> Families {
        match (self.switch("ENABLE_IPv4"), self.switch("ENABLE_IPv6")) {
            (true, false) => Families::V4,
            (true, true) => Families::Dual,
            (false, true) if !self.switch("AWS_VPC_K8S_CNI_CUSTOM_NETWORK_CFG") => Families::V6,
            (false, true) => {
                let advice = "IPv6 pods live on the primary interface, which carries none with custom networking; set it to false";
                self.wrong("AWS_VPC_K8S_CNI_CUSTOM_NETWORK_CFG", "true", advice);
                Families::V6
            }
            (false, false) => {
                self.wrong("ENABLE_IPv4", "false", "pods need an address: set this or ENABLE_IPv6 to true");
                Families::V4
            }
        }
    }

    /// Together with an IPv6 address, which then could not be set, every ADD would fail.
    pub(super) fn pods_without_ipv6(&mut self) -> bool {
        let off = self.switch("DISABLE_POD_V6");
        for name in ["ENABLE_IPv6", "ENABLE_V6_EGRESS"] {
            if off && self.switch(name) {
                let advice = format!("{name} gives pods IPv6 addresses; set one of the two to false");
                self.wrong("DISABLE_POD_V6", "true", &advice);
            }
        }
        off
    }

    /// The MTU of ENIs and of pods. With less than IPv6 needs the kernel takes it away from a link: every ADD would fail, and the node lose
    /// its own.
    pub(super) fn mtus(&mut self) -> (u16, u16) {
        const NAMES: [&str; 2] = ["AWS_VPC_ENI_MTU", "POD_MTU"];
        let [enis, pods] = NAMES;
        let (enis, pods): (u16, Option<u16>) = (self.number(enis), self.optional(pods));
        let ipv6 = ["ENABLE_IPv6", "ENABLE_V6_EGRESS"].into_iter().find(|name| self.switch(name));
        for (name, mtu) in NAMES.into_iter().zip([Some(enis), pods]) {
            if let (Some(ipv6), Some(mtu)) = (ipv6, mtu.filter(|mtu| *mtu < MIN_MTU_V6)) {
                self.wrong(name, &mtu.to_string(), format!("with {ipv6} links need {MIN_MTU_V6} bytes or more"));
            }
        }
        (enis, pods.unwrap_or(enis))
    }

    fn egress(&mut self, families: Families) -> bool {
        let (v4, v6) = (self.switch("ENABLE_V4_EGRESS"), self.switch("ENABLE_V6_EGRESS"));
        match families {
            Families::V4 => v6,
            Families::V6 => v4,
            Families::Dual => false,
        }
    }

    fn placement(&mut self) -> Placement {
        let custom = self.switch("AWS_VPC_K8S_CNI_CUSTOM_NETWORK_CFG");
        let discover = self.switch("ENABLE_SUBNET_DISCOVERY");
        let subnet = self.text("ENI_CONFIG_SUBNET");
        let security_groups = self.security_groups();
        if !custom {
            return if discover { Placement::Discover } else { Placement::NodeSubnet };
        }
        if subnet.is_none() && self.text("MY_NODE_NAME").is_some() {
            // The ENIConfig says where, before anything is made.
            return Placement::NodeSubnet;
        }
        match subnet.as_deref().unwrap_or_default().parse() {
            Ok(subnet) => Placement::Custom(CustomNetwork { subnet, security_groups }),
            Err(_) => {
                let text = subnet.unwrap_or_default();
                self.wrong(
                    "ENI_CONFIG_SUBNET",
                    &text,
                    "custom networking needs a subnet like subnet-0123abcd, or MY_NODE_NAME for an ENIConfig",
                );
                Placement::NodeSubnet
            }
        }
    }

    fn security_groups(&mut self) -> Vec<SecurityGroupId> {
        let text = self.text("ENI_CONFIG_SECURITY_GROUPS").unwrap_or_default();
        let mut groups = Vec::new();
        for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            match part.parse() {
                Ok(group) => groups.push(group),
                Err(error) => self.wrong("ENI_CONFIG_SECURITY_GROUPS", part, error),
            }
        }
        groups.sort();
        groups.dedup();
        groups
    }

    fn access(&mut self) -> Access {
        let frozen = self.switch("DISABLE_NETWORK_RESOURCE_PROVISIONING");
        if self.switch("ENABLE_IMDS_ONLY_MODE") {
            Access::MetadataOnly
        } else if frozen {
            Access::ReadOnly
        } else {
            Access::Full
        }
    }

    /// Tags for new ENIs, from a JSON object of texts.
    pub(super) fn tags(&mut self) -> BTreeMap<String, String> {
        const NAME: &str = "ADDITIONAL_ENI_TAGS";
        let Some(text) = self.text(NAME) else { return BTreeMap::new() };
        let mut tags: BTreeMap<String, String> = match serde_json::from_str(&text) {
            Ok(tags) => tags,
            Err(error) => {
                let advice = format!("give a JSON object like {{\"team\":\"shop\"}}: {error}");
                self.wrong(NAME, &text, advice);
                return BTreeMap::new();
            }
        };
        tags.retain(|key, _| !key.contains(RESERVED));
        let fits = |(key, value): (&String, &String)| {
            (1..=LONGEST_KEY).contains(&key.chars().count())
                && value.chars().count() <= LONGEST_VALUE
                && !key.starts_with("aws:")
        };
        if tags.len() > MOST_TAGS || !tags.iter().all(fits) {
            let advice = format!(
                "EC2 takes {MOST_TAGS} tags here, keys of 1 to {LONGEST_KEY} characters not beginning with aws:, values of up to {LONGEST_VALUE}"
            );
            self.wrong(NAME, &text, advice);
        }
        tags
    }
}
