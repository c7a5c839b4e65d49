//! The metadata as a tree of paths: leaves are values, everything above them is a listing.

use std::{collections::BTreeMap, fmt::Display, time::Duration};

use ipam_core::Moment;
use serde_json::json;

use super::{InstanceMetadata, InterfaceMetadata};
use crate::clock::rfc3339;

/// Role whose credentials every instance has.
const ROLE: &str = "simulated-node-role";

/// All leaves by path, without the leading `/latest/`.
#[derive(Debug)]
pub(super) struct Tree(BTreeMap<String, String>);

impl Tree {
    pub(super) fn of(metadata: &InstanceMetadata, now: Moment) -> Self {
        let mut tree = Self(BTreeMap::new());
        tree.add_instance(metadata);
        tree.add_documents(metadata, now);
        for mac in &metadata.ghosts {
            tree.add(&format!("meta-data/network/interfaces/macs/{mac}/"), "");
        }
        for interface in &metadata.interfaces {
            tree.add_interface(interface);
        }
        tree
    }

    /// The value at `path`, or the names below it, those with more below them with a `/` at the end.
    pub(super) fn get(&self, path: &str) -> Option<String> {
        let inner = path.trim_start_matches('/').split_once('/')?.1.trim_end_matches('/');
        if let Some(value) = self.0.get(inner) {
            return Some(value.clone());
        }
        let directory = if inner.is_empty() { String::new() } else { format!("{inner}/") };
        let below = self.0.range(directory.clone()..).map_while(|(path, _)| path.strip_prefix(directory.as_str()));
        let mut names: Vec<String> =
            below.map(|rest| rest.split_once('/').map_or(rest.to_owned(), |(name, _)| format!("{name}/"))).collect();
        names.retain(|name| !name.is_empty());
        names.dedup();
        (!names.is_empty()).then(|| names.join("\n"))
    }

    fn add(&mut self, path: &str, value: impl Display) {
        self.0.insert(path.to_owned(), value.to_string());
    }

    fn add_instance(&mut self, metadata: &InstanceMetadata) {
        self.add("meta-data/ami-id", &metadata.image_id);
        self.add("meta-data/instance-id", &metadata.instance_id);
        self.add("meta-data/instance-type", &metadata.instance_type);
        self.add("meta-data/local-ipv4", metadata.local_ipv4);
        self.add("meta-data/mac", metadata.mac);
        self.add("meta-data/placement/availability-zone", &metadata.availability_zone);
        self.add("meta-data/placement/region", &metadata.region);
        self.add("meta-data/services/domain", "amazonaws.com");
        self.add("meta-data/services/partition", "aws");
    }

    fn add_documents(&mut self, metadata: &InstanceMetadata, now: Moment) {
        let identity = json!({
            "accountId": metadata.account,
            "architecture": "x86_64",
            "availabilityZone": metadata.availability_zone,
            "imageId": metadata.image_id,
            "instanceId": metadata.instance_id,
            "instanceType": metadata.instance_type,
            "privateIp": metadata.local_ipv4.to_string(),
            "region": metadata.region,
            "version": "2017-09-30",
        });
        self.add("dynamic/instance-identity/document", format!("{identity:#}"));
        let credentials = json!({
            "Code": "Success",
            "LastUpdated": rfc3339(now),
            "Type": "AWS-HMAC",
            "AccessKeyId": "ASIASIMULATED0000000",
            "SecretAccessKey": "simulated-secret-access-key",
            "Token": "simulated-session-token",
            "Expiration": rfc3339(now.after(Duration::from_secs(6 * 3600))),
        });
        self.add(&format!("meta-data/iam/security-credentials/{ROLE}"), format!("{credentials:#}"));
        let info = json!({
            "Code": "Success",
            "LastUpdated": rfc3339(now),
            "InstanceProfileArn": format!("arn:aws:iam::{}:instance-profile/{ROLE}", metadata.account),
            "InstanceProfileId": "AIPASIMULATED0000000",
        });
        self.add("meta-data/iam/info", format!("{info:#}"));
    }

    fn add_interface(&mut self, interface: &InterfaceMetadata) {
        let addresses: Vec<String> = interface.local_ipv4s.iter().map(ToString::to_string).collect();
        let mut add = |name: &str, value: &dyn Display| {
            self.add(&format!("meta-data/network/interfaces/macs/{}/{name}", interface.mac), value);
        };
        add("device-number", &interface.device_number);
        add("interface-id", &interface.interface_id);
        if !addresses.is_empty() {
            add("local-ipv4s", &addresses.join("\n"));
        }
        if !interface.ipv4_prefixes.is_empty() {
            add("ipv4-prefix", &interface.ipv4_prefixes.join("\n"));
        }
        let ipv6 = &interface.ipv6;
        for (name, values) in [
            ("ipv6s", &ipv6.ipv6s),
            ("ipv6-prefix", &ipv6.prefixes),
            ("subnet-ipv6-cidr-blocks", &ipv6.subnet_cidr_blocks),
            ("vpc-ipv6-cidr-blocks", &ipv6.vpc_cidr_blocks),
        ] {
            if !values.is_empty() {
                add(name, &values.join("\n"));
            }
        }
        add("mac", &interface.mac);
        add("network-card", &interface.network_card);
        add("owner-id", &interface.owner_id);
        add("security-group-ids", &interface.security_group_ids.join("\n"));
        add("security-groups", &interface.security_groups.join("\n"));
        add("subnet-id", &interface.subnet_id);
        add("subnet-ipv4-cidr-block", &interface.subnet_ipv4_cidr_block);
        add("vpc-id", &interface.vpc_id);
        add("vpc-ipv4-cidr-block", &interface.vpc_ipv4_cidr_blocks.first().map_or("", String::as_str));
        add("vpc-ipv4-cidr-blocks", &interface.vpc_ipv4_cidr_blocks.join("\n"));
    }
}
