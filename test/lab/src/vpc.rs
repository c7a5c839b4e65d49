//! The lab as a whole: fabric, nodes, subnets.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use ipam_core::{
    EniId, InstanceId, SubnetId,
    ports::{Cidr4, Interface},
};
use tempfile::TempDir;

use crate::{
    Carried, Drops, LabError, Namespace, Node,
    fabric::{Fabric, Surroundings},
};

/// A VPC on the real kernel. Everything in it goes away with this value.
///
/// All calls block for the few milliseconds that the kernel takes; they may come from any thread.
#[derive(Debug)]
pub struct Lab {
    /// The fabric's network, also at hand without the lock.
    network: Arc<Namespace>,
    internet: Arc<Namespace>,
    inner: Mutex<Inner>,
    directory: TempDir,
}

#[derive(Debug)]
struct Inner {
    fabric: Fabric,
    nodes: BTreeMap<InstanceId, Arc<Node>>,
    surroundings: Surroundings,
    odd: Vec<String>,
    described: Vec<Interface>,
}

impl Lab {
    /// Makes an empty VPC with the internet behind it.
    ///
    /// # Errors
    /// [`LabError::NoNamespaces`] where the kernel does not allow it; [`LabError::Tool`] without `ip` or `nft`.
    pub fn new() -> Result<Self, LabError> {
        let directory =
            tempfile::Builder::new().prefix("eni-lab-").tempdir().map_err(LabError::os("make a directory"))?;
        let fabric = Fabric::new()?;
        let network = Arc::clone(fabric.namespace());
        let internet = Arc::clone(fabric.internet().namespace());
        let inner = Inner {
            fabric,
            nodes: BTreeMap::new(),
            surroundings: Surroundings::default(),
            odd: Vec::new(),
            described: Vec::new(),
        };
        Ok(Self { network, internet, inner: Mutex::new(inner), directory })
    }

    /// Tells the lab of a subnet; ENIs in other subnets are ignored.
    pub fn add_subnet(&self, id: SubnetId, cidr: Cidr4) {
        self.lock().surroundings.subnets.insert(id, cidr);
    }

    /// Gives an ENI IPv6 networks, each as its first address and the length of its prefix, from the next [`Lab::sync`] on.
    ///
    /// The first of length 128 is the ENI's own: on a node's first ENI the operating system has it from the start. The other end of the
    /// link is the VPC's router, which sends no advertisements.
    pub fn give_ipv6(&self, eni: EniId, networks: impl IntoIterator<Item = (Ipv6Addr, u8)>) {
        self.lock().surroundings.ipv6.insert(eni, networks.into_iter().collect());
    }

    /// Adds an instance. Its ENIs appear with the next [`Lab::sync`].
    ///
    /// # Errors
    /// [`LabError::Os`], [`LabError::Tool`].
    pub fn add_node(&self, instance: InstanceId, name: &str) -> Result<Arc<Node>, LabError> {
        let node = Arc::new(Node::new(instance.clone(), name, self.directory.path().join(name))?);
        let mut inner = self.lock();
        inner.surroundings.nodes.insert(instance.clone());
        inner.nodes.insert(instance, Arc::clone(&node));
        Ok(node)
    }

    /// Makes the VPC as EC2 describes it: links appear and vanish in nodes, addresses find their owners.
    ///
    /// ENIs of unknown instances or subnets, and those that are not (or no longer) attached, have no place in the lab.
    /// Repeatable; does nothing when nothing changed.
    ///
    /// # Errors
    /// [`LabError::Tool`]; the lab may be half changed then.
    pub fn sync(&self, described: &[Interface]) -> Result<(), LabError> {
        let mut inner = self.lock();
        let Inner { fabric, nodes, surroundings, odd, described: last } = &mut *inner;
        let namespaces = nodes.iter().map(|(id, node)| (id.clone(), &**node.namespace())).collect();
        *odd = fabric.sync(described, surroundings, &namespaces)?;
        *last = described.to_vec();
        Ok(())
    }

    /// What was odd in the last description, in people's words: an address with two owners, a slot taken twice.
    #[must_use]
    pub fn oddities(&self) -> Vec<String> {
        self.lock().odd.clone()
    }

    /// The ENIs as the last [`Lab::sync`] got them, in no particular order.
    #[must_use]
    pub fn described(&self) -> Vec<Interface> {
        self.lock().described.clone()
    }

    /// The ENI that owns an address. Absent: the fabric would not deliver it.
    #[must_use]
    pub fn owner(&self, address: Ipv4Addr) -> Option<EniId> {
        self.lock().fabric.owner(address)
    }

    /// What the fabric dropped since the lab began.
    ///
    /// # Errors
    /// [`LabError::Tool`], [`LabError::Answer`].
    pub fn drops(&self) -> Result<Drops, LabError> {
        self.lock().fabric.drops()
    }

    /// Source addresses that reached the internet host, with the number of packets of each.
    ///
    /// # Errors
    /// [`LabError::Tool`], [`LabError::Answer`].
    pub fn internet_saw(&self) -> Result<BTreeMap<Ipv4Addr, u64>, LabError> {
        self.lock().fabric.internet().seen()
    }

    /// The fabric's network: links `pN`, one for each attached ENI (its alias), and `igw`.
    #[must_use]
    pub fn fabric(&self) -> &Namespace {
        &self.network
    }

    /// The internet host's network, whose only link is `igw`.
    #[must_use]
    pub fn internet(&self) -> &Namespace {
        &self.internet
    }

    /// Hangs a host on the VPC that is no ENI of it, as in a peered VPC or behind a VPN. The source check does not apply to it.
    ///
    /// `link` is the name of its link at both ends, `network` its network, whose first address is its router.
    ///
    /// # Errors
    /// [`LabError::Tool`], as when the link's name is taken; [`LabError::Os`].
    pub fn add_outside_host(&self, link: &str, address: Ipv4Addr, network: Cidr4) -> Result<Namespace, LabError> {
        self.lock().fabric.add_outside_host(link, address, network)
    }

    /// Gives a host of [`Lab::add_outside_host`] an IPv6 address too; its network is the /64 around it.
    ///
    /// # Errors
    /// [`LabError::Tool`], [`LabError::Os`].
    pub fn give_outside_host_ipv6(&self, host: &Namespace, link: &str, address: Ipv6Addr) -> Result<(), LabError> {
        self.lock().fabric.give_outside_host_ipv6(host, link, address)
    }

    /// Lets the internet reach `target` at `public` as through a load balancer that keeps the client's address.
    ///
    /// # Errors
    /// [`LabError::Tool`].
    pub fn balance(&self, public: SocketAddr, target: SocketAddr) -> Result<(), LabError> {
        self.lock().fabric.balance(public, target)
    }

    /// Lets ENIs' addresses without a public one reach the internet as [`crate::NAT_GATEWAY`], as from a private subnet; or not any more.
    ///
    /// # Errors
    /// [`LabError::Tool`].
    pub fn set_nat_gateway(&self, there: bool) -> Result<(), LabError> {
        self.lock().fabric.set_nat_gateway(there)
    }

    /// From now on the fabric counts what each ENI carries; what it counted before is forgotten.
    ///
    /// # Errors
    /// [`LabError::Tool`].
    pub fn count_ways(&self) -> Result<(), LabError> {
        self.lock().fabric.count_ways()
    }

    /// What each ENI has carried since [`Lab::count_ways`], without what was dropped.
    ///
    /// # Errors
    /// [`LabError::Tool`], as when nothing is counted; [`LabError::Answer`].
    pub fn ways(&self) -> Result<Vec<Carried>, LabError> {
        self.lock().fabric.ways()
    }

    /// The lab's directory; each node has one inside.
    #[must_use]
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// How a person enters each namespace, as (name, command line), while the lab lives.
    #[must_use]
    pub fn enter_hints(&self) -> Vec<(String, String)> {
        let inner = self.lock();
        let nodes = inner.nodes.values().map(|node| &**node.namespace());
        [&*self.network, inner.fabric.internet().namespace()]
            .into_iter()
            .chain(nodes)
            .map(|namespace| (namespace.name().to_owned(), namespace.enter_hint()))
            .collect()
    }

    /// A panic elsewhere leaves the kernel's state as it is, and so this.
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
