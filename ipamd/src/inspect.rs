//! What the sources say of this node, for people who ask: database, kernel, EC2. Each is asked for itself, so that one that is
//! away hides nothing but its own word. Nothing here changes anything.

use std::{collections::BTreeMap, fs, net::IpAddr, path::Path};

use eni_datapath::{Difference, ExpectedEnd, ExpectedPod, PodState, WireError};
use eni_proto::{PodKey, host_link_name};
use ipam_aws::{AwsEc2, AwsImds, AwsSettings};
use ipam_core::{
    Access, Lease,
    ports::{Imds, Interface, Scope},
};

use crate::{errors::chain, metadata::Descriptions, migrate, settings::Settings, store};

/// What one source says, or why it says nothing.
pub(crate) type Word<T> = Result<T, String>;

/// What the sources say.
#[derive(Debug)]
pub(crate) struct Sources {
    /// The database.
    pub(crate) leases: Word<Vec<Lease>>,
    /// The kernel: everything of pods.
    pub(crate) pods: Word<PodState>,
    /// The kernel, lease by lease: what differs.
    pub(crate) wiring: BTreeMap<PodKey, Word<Wiring>>,
    /// The kernel: by what all pods are cut off.
    pub(crate) impairment: Word<Option<String>>,
    /// The kernel: what another CNI or an older version of us has left.
    pub(crate) leftovers: Word<Vec<String>>,
    /// Kernel settings that are not as they ought to be.
    pub(crate) settings: Vec<Setting>,
    /// EC2: the attached ENIs.
    pub(crate) interfaces: Word<Vec<Interface>>,
}

/// How a pod's interface stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Wiring {
    /// Its network namespace is gone.
    NoSandbox,
    /// It is there; what differs from the lease.
    Differs(Vec<Difference>),
}

/// A kernel setting under /proc/sys/net that is not as it ought to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Setting {
    pub(crate) name: String,
    pub(crate) wanted: u32,
    pub(crate) found: u32,
    pub(crate) why: &'static str,
}

/// Asks all sources. `with_ec2`: also EC2, which costs one call and may take seconds.
pub(crate) async fn sources(settings: &Settings, with_ec2: bool) -> Sources {
    let leases = store::leases(&settings.database).await.map_err(|error| chain(&error));
    let pods = eni_datapath::observe_pods(&settings.veth_prefix).map_err(|error| chain(&error));
    let wiring = leases.iter().flatten().map(|lease| (lease.key.clone(), wiring(lease, settings))).collect();
    let interfaces = match with_ec2 {
        true => interfaces(settings.policy.access).await,
        false => Err("EC2 was not asked (--no-ec2)".to_owned()),
    };
    Sources {
        wiring,
        impairment: eni_datapath::impairment().map_err(|error| chain(&error)),
        leftovers: migrate::sweep::leftovers(settings),
        settings: kernel_settings(pods.as_ref().ok()),
        leases,
        pods,
        interfaces,
    }
}

async fn interfaces(access: Access) -> Word<Vec<Interface>> {
    let imds = AwsImds::new();
    let node = imds.identity().await.map_err(|error| chain(&error))?;
    let ec2 = AwsEc2::new(AwsSettings::for_region(&node.region));
    let enis = Descriptions { access, ec2: &ec2, imds: &imds, node: &node };
    let found = enis.interfaces(Scope::Attached).await.map_err(|error| chain(&error))?;
    Ok(found.into_iter().map(|(interface, _)| interface).collect())
}

/// Holds a pod's interface against its lease.
fn wiring(lease: &Lease, settings: &Settings) -> Word<Wiring> {
    let name = host_link_name(&settings.veth_prefix, &lease.key, &lease.pod);
    let expected = ExpectedPod {
        key: &lease.key,
        netns: Path::new(&lease.netns),
        addresses: lease.addresses,
        eni_mark: Some(lease.eni_mark),
        // Only the runtime's first interface has it, and a lease does not say which that was.
        default_route: lease.key.interface() == "eth0",
        pod: ExpectedEnd::default(),
        // An adopted lease does not know its pod, whose name is in the link's.
        host: ExpectedEnd {
            name: Some(name.as_str()).filter(|_| !lease.pod.name.is_empty()),
            ..ExpectedEnd::default()
        },
    };
    match eni_datapath::check_pod(&expected) {
        Ok(differences) => Ok(Wiring::Differs(differences)),
        Err(WireError::Netns(eni_datapath::NetnsError::Missing { .. })) => Ok(Wiring::NoSandbox),
        Err(error) => Err(chain(&error)),
    }
}

/// Reads the settings that the data path relies on.
fn kernel_settings(pods: Option<&PodState>) -> Vec<Setting> {
    let mut wanted = vec![("ipv4/ip_forward".to_owned(), 1, "without it nothing gets from or to a pod")];
    let links = pods.iter().flat_map(|pods| &pods.links).filter(|link| link.alias.is_some());
    for link in links {
        let name = format!("ipv4/conf/{}/rp_filter", link.name);
        wanted.push((name, 1, "without it the pod could send with another's address"));
    }
    let read = |name: &str| -> Option<u32> {
        fs::read_to_string(Path::new("/proc/sys/net").join(name)).ok()?.trim().parse().ok()
    };
    let differs = |(name, wanted, why): (String, u32, &'static str)| {
        let found = read(&name).filter(|found| *found != wanted)?;
        Some(Setting { name, wanted, found, why })
    };
    wanted.into_iter().filter_map(differs).collect()
}

impl Sources {
    /// The ENI that EC2 says owns an address.
    pub(crate) fn owner(&self, address: IpAddr) -> Option<&Interface> {
        let owns = |eni: &&Interface| eni.owns(address);
        self.interfaces.as_ref().ok()?.iter().find(owns)
    }
}
