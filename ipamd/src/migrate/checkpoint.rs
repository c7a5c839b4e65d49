//! The file in which amazon-vpc-cni-k8s keeps who has which address: read, written, and barred while the node is ours.

use std::{
    fs, io,
    net::{IpAddr, Ipv4Addr},
    path::Path,
};

use ipam_core::{Lease, Moment};
use serde::{Deserialize, Serialize};

use crate::conflist;

/// The only version that there has been.
const VERSION: &str = "vpc-cni-ipam/1";
/// Stands in the version's place while the node is ours: it starts with no other version than its own, and says this one.
const BARRED: &str = "taken over by eni-cni; run `ipamd migrate back` before amazon-vpc-cni-k8s is started here again";
/// Name of its network in its leases.
const NETWORK: &str = "aws-cni";
const NANOSECONDS: u64 = 1_000_000;

/// Why the file cannot be understood.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CheckpointError {
    /// The system's reason.
    #[error("{path} cannot be read or written")]
    File {
        /// The file.
        path: String,
        /// The reason.
        source: io::Error,
    },
    /// It is no JSON of the known form.
    #[error("{path} does not have the known form")]
    Form {
        /// The file.
        path: String,
        /// Where and why.
        source: serde_json::Error,
    },
    /// A newer incumbent has written it, or somebody else.
    #[error("{path} has version `{version}`, and only `{VERSION}` is known")]
    Version {
        /// The file.
        path: String,
        /// What it says.
        version: String,
    },
}

/// What the file says.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Checkpoint {
    version: String,
    /// Absent or null: none.
    #[serde(default, deserialize_with = "null_is_none")]
    pub(crate) allocations: Vec<Allocation>,
}

/// One address that a pod has.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Allocation {
    pub(crate) network_name: String,
    #[serde(rename = "containerID")]
    pub(crate) container_id: String,
    pub(crate) if_name: String,
    /// Absent or empty: the pod has an IPv6 address.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) ipv4: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) ipv6: String,
    /// In nanoseconds since the epoch.
    #[serde(default)]
    pub(crate) allocation_timestamp: u64,
    #[serde(default)]
    pub(crate) metadata: Metadata,
}

/// Who the pod is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Metadata {
    #[serde(default)]
    pub(crate) k8s_pod_namespace: String,
    #[serde(default)]
    pub(crate) k8s_pod_name: String,
    /// 0: an old version has written it, and it is 1.
    #[serde(default)]
    pub(crate) interfaces_count: u32,
}

fn null_is_none<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Vec<Allocation>, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or_default())
}

/// What is at the file's place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Found {
    /// No file: the node was just booted, or never was the incumbent's.
    Nothing,
    /// Its own, as text and as values.
    Its(String, Checkpoint),
    /// The one that keeps it from starting.
    Barred,
}

/// Reads the file.
///
/// # Errors
/// [`CheckpointError`].
pub(crate) fn read(path: &Path) -> Result<Found, CheckpointError> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Found::Nothing),
        Err(error) => return Err(failed(path, error)),
    };
    let checkpoint = parse(path, &text)?;
    Ok(if checkpoint.version == BARRED { Found::Barred } else { Found::Its(text, checkpoint) })
}

/// Understands the text of such a file.
///
/// # Errors
/// [`CheckpointError::Form`] and [`CheckpointError::Version`].
pub(crate) fn parse(path: &Path, text: &str) -> Result<Checkpoint, CheckpointError> {
    let form = |source| CheckpointError::Form { path: path.display().to_string(), source };
    // The version first: another one may have another form.
    let all: serde_json::Value = serde_json::from_str(text).map_err(form)?;
    match all["version"].as_str().unwrap_or_default() {
        VERSION | BARRED => serde_json::from_value(all).map_err(form),
        other => Err(CheckpointError::Version { path: path.display().to_string(), version: other.to_owned() }),
    }
}

/// Keeps the incumbent from starting, in one step.
///
/// # Errors
/// [`CheckpointError::File`].
pub(crate) fn bar(path: &Path) -> Result<(), CheckpointError> {
    write(path, &Checkpoint { version: BARRED.to_owned(), allocations: Vec::new() })
}

/// Gives it these leases, in one step.
///
/// # Errors
/// [`CheckpointError::File`].
pub(crate) fn give(path: &Path, leases: &[Lease]) -> Result<(), CheckpointError> {
    write(path, &Checkpoint { version: VERSION.to_owned(), allocations: leases.iter().map(allocation).collect() })
}

fn allocation(lease: &Lease) -> Allocation {
    let Lease { key, pod, addresses, since, .. } = lease;
    let text = |address: Option<IpAddr>| address.map_or_else(String::new, |address| address.to_string());
    Allocation {
        network_name: NETWORK.to_owned(),
        container_id: key.container_id().to_owned(),
        if_name: key.interface().to_owned(),
        ipv4: text(addresses.v4().map(IpAddr::V4)),
        ipv6: text(addresses.v6().map(IpAddr::V6)),
        allocation_timestamp: since.as_millis().saturating_mul(NANOSECONDS),
        metadata: Metadata {
            k8s_pod_namespace: pod.namespace.clone(),
            k8s_pod_name: pod.name.clone(),
            interfaces_count: 1,
        },
    }
}

impl Allocation {
    /// When it was made.
    pub(crate) const fn since(&self) -> Moment {
        Moment::from_millis(self.allocation_timestamp / NANOSECONDS)
    }

    /// Its IPv4 address, if that is what it has.
    pub(crate) fn address(&self) -> Option<Ipv4Addr> {
        self.ipv4.parse().ok()
    }

    /// Who it is, for people.
    pub(crate) fn who(&self) -> String {
        let Metadata { k8s_pod_namespace, k8s_pod_name, .. } = &self.metadata;
        match k8s_pod_name.as_str() {
            "" => format!("container {}", self.container_id),
            _ => format!("pod {k8s_pod_namespace}/{k8s_pod_name}"),
        }
    }
}

fn write(path: &Path, checkpoint: &Checkpoint) -> Result<(), CheckpointError> {
    let written = serde_json::to_vec(checkpoint).map_err(io::Error::other);
    let made = path.parent().map_or(Ok(()), fs::create_dir_all);
    made.and(written).and_then(|text| conflist::replace(path, &text, 0o600)).map_err(|error| failed(path, error))
}

fn failed(path: &Path, source: io::Error) -> CheckpointError {
    CheckpointError::File { path: path.display().to_string(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_incumbent_writes_is_read() {
        let text = r#"{"version":"vpc-cni-ipam/1","allocations":[
            {"networkName":"aws-cni","containerID":"9f3c","ifName":"eth0","ipv4":"10.20.33.7","allocationTimestamp":1760000000000000000,
             "metadata":{"k8sPodNamespace":"shop","k8sPodName":"cart-6d5f","interfacesCount":1}},
            {"networkName":"_migrated-from-cri","containerID":"77","ifName":"unknown","ipv4":"10.20.33.8","metadata":{}}]}"#;
        let checkpoint = parse(Path::new("ipam.json"), text).unwrap();
        let [first, old] = &checkpoint.allocations[..] else { panic!("{checkpoint:?}") };
        assert_eq!((first.who(), first.address()), ("pod shop/cart-6d5f".to_owned(), "10.20.33.7".parse().ok()));
        assert_eq!(first.since(), Moment::from_millis(1_760_000_000_000));
        assert_eq!((old.who(), old.metadata.interfaces_count), ("container 77".to_owned(), 0));
        for none in [r#"{"version":"vpc-cni-ipam/1","allocations":null}"#, r#"{"version":"vpc-cni-ipam/1"}"#] {
            assert_eq!(parse(Path::new("ipam.json"), none).unwrap().allocations, []);
        }
    }

    #[test]
    fn another_version_is_told_before_its_form_is_looked_at() {
        let other = parse(Path::new("ipam.json"), r#"{"version":"vpc-cni-ipam/2","allocations":7}"#).unwrap_err();
        assert_eq!(other.to_string(), "ipam.json has version `vpc-cni-ipam/2`, and only `vpc-cni-ipam/1` is known");
        assert!(matches!(parse(Path::new("ipam.json"), "{"), Err(CheckpointError::Form { .. })));
    }

    #[test]
    fn a_barred_file_is_known_and_a_given_one_reads_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("aws-node/ipam.json");
        assert_eq!(read(&path).unwrap(), Found::Nothing);
        bar(&path).unwrap();
        assert_eq!(read(&path).unwrap(), Found::Barred);
        give(&path, &[]).unwrap();
        assert!(matches!(read(&path).unwrap(), Found::Its(_, checkpoint) if checkpoint.allocations.is_empty()));
    }
}
