//! Which attachment of which sandbox a lease belongs to.

use std::fmt;

/// Key of a lease: network name, container id and interface name, each checked as the CNI specification demands.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PodKey {
    network: String,
    container_id: String,
    interface: String,
}

/// What is wrong with one part of a key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidKey {
    /// The network name is empty or has a character outside `[A-Za-z0-9_.-]`.
    #[error("network name `{0}` must match [A-Za-z0-9][A-Za-z0-9_.-]*")]
    Network(String),
    /// The container id is empty or has a character outside `[A-Za-z0-9_.-]`.
    #[error("container id `{0}` must match [A-Za-z0-9][A-Za-z0-9_.-]*")]
    ContainerId(String),
    /// The interface name is one that the kernel would refuse.
    #[error(
        "interface name `{0}` must have 1 to 15 bytes, must not be `.` or `..`, and must be free of `/`, `:` and white space"
    )]
    Interface(String),
}

impl PodKey {
    /// Returns the key when all three parts are well-formed.
    ///
    /// # Errors
    /// The first part that is not, by name.
    pub fn new(network: &str, container_id: &str, interface: &str) -> Result<Self, InvalidKey> {
        if !is_identifier(network) {
            return Err(InvalidKey::Network(network.to_owned()));
        }
        if !is_identifier(container_id) {
            return Err(InvalidKey::ContainerId(container_id.to_owned()));
        }
        if !is_interface_name(interface) {
            return Err(InvalidKey::Interface(interface.to_owned()));
        }
        Ok(Self { network: network.to_owned(), container_id: container_id.to_owned(), interface: interface.to_owned() })
    }

    /// Name of the CNI network.
    #[must_use]
    pub fn network(&self) -> &str {
        &self.network
    }

    /// Id of the sandbox.
    #[must_use]
    pub fn container_id(&self) -> &str {
        &self.container_id
    }

    /// Interface name inside the sandbox.
    #[must_use]
    pub fn interface(&self) -> &str {
        &self.interface
    }
}

/// What the names of a pod's interfaces on further network cards begin with; the AWS CNI's.
const FURTHER: &str = "mNicIf";
/// Name of a pod's first interface, in Kubernetes.
const FIRST: &str = "eth0";

impl PodKey {
    /// Key of the pod's `number`th interface beside this one, each on a network card of its own, counted from 1.
    #[must_use]
    pub fn further(&self, number: u8) -> Self {
        Self { interface: format!("{FURTHER}{number}"), ..self.clone() }
    }

    /// Whether this is the key of an interface that came with `first`, and ends with it.
    #[must_use]
    pub fn came_with(&self, first: &Self) -> bool {
        let number = self.interface.strip_prefix(FURTHER);
        number.is_some_and(|number| number.parse::<u8>().is_ok())
            && first.is_first()
            && (&self.network, &self.container_id) == (&first.network, &first.container_id)
    }

    /// Whether it is that of a pod's first interface, the only one that others can come with.
    #[must_use]
    pub fn is_first(&self) -> bool {
        self.interface == FIRST
    }

    /// Key of the first interface of the same sandbox.
    #[must_use]
    pub fn first(&self) -> Self {
        Self { interface: FIRST.to_owned(), ..self.clone() }
    }
}

impl fmt::Display for PodKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.network, self.container_id, self.interface)
    }
}

/// Tells whether `text` matches `[A-Za-z0-9][A-Za-z0-9_.-]*`. Source: CNI specification 1.1.0, parameters.
fn is_identifier(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'))
}

/// Tells whether the kernel accepts `text` as a link name. Source: `dev_valid_name` in net/core/dev.c.
fn is_interface_name(text: &str) -> bool {
    (1..=15).contains(&text.len())
        && text != "."
        && text != ".."
        && !text.contains(|c: char| c == '/' || c == ':' || c.is_whitespace())
}

/// Who a pod is, for people and for the name of its host interface. Any part may be empty: the runtime did not say.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Pod {
    /// Kubernetes namespace.
    pub namespace: String,
    /// Pod name.
    pub name: String,
    /// Pod UID.
    pub uid: String,
}

impl fmt::Display for Pod {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn further_interfaces_come_with_the_first_of_their_sandbox() {
        let key = |container, interface| PodKey::new("n", container, interface).unwrap();
        let first = key("c", "eth0");
        assert_eq!(first.further(2), key("c", "mNicIf2"));
        assert!(first.further(31).came_with(&first));
        for other in [key("d", "mNicIf1"), key("c", "net1"), key("c", "mNicIf"), key("c", "mNicIfx"), first.clone()] {
            assert!(!other.came_with(&first), "{other}");
        }
        assert!(!first.further(1).came_with(&key("c", "net1")));
    }

    #[test]
    fn a_key_is_checked_part_by_part() {
        assert!(PodKey::new("pods", "abc-1_2.3", "eth0").is_ok());
        for bad in ["", "-a", "a b", "a/b", "é"] {
            assert_eq!(PodKey::new(bad, "c", "eth0"), Err(InvalidKey::Network(bad.into())));
            assert_eq!(PodKey::new("n", bad, "eth0"), Err(InvalidKey::ContainerId(bad.into())));
        }
        for bad in ["", ".", "..", "a/b", "a:b", "a b", "sixteen-bytes-xx"] {
            assert_eq!(PodKey::new("n", "c", bad), Err(InvalidKey::Interface(bad.into())));
        }
    }
}
