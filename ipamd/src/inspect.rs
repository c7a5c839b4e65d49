//! What the sources say of this node, for people who ask: database, kernel, EC2. Each is asked for itself, so that one that is
//! away hides nothing but its own word. Nothing here changes anything.

mod plans;
mod ways;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    path::Path,
    time::Duration,
};

use eni_datapath::{Difference, ExpectedEnd, ExpectedPod, PodState, WireError, Wrong};
use eni_proto::{PodKey, host_link_name};
use ipam_aws::{AwsEc2, AwsImds, AwsSettings};
use ipam_core::{
    Access, Lease,
    ports::{Imds, Interface, Scope},
};

use crate::{
    ask::{self, NoAnswer},
    errors::chain,
    metadata::Descriptions,
    migrate::{self, Legacy},
    settings::Settings,
    store::{self, StoreError},
};
pub(crate) use plans::Plans;
pub(crate) use ways::Astray;

/// How long the daemon may take to answer.
pub(crate) const PATIENCE: Duration = Duration::from_secs(3);

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
    /// The kernel: what of the node, its ENIs and pods is not as it was prepared.
    pub(crate) base: Word<Vec<Wrong>>,
    /// The kernel: what would become of pods' packets, where that is not what it should be.
    pub(crate) astray: Word<Vec<Astray>>,
    /// The kernel: chains that drop what is forwarded unless one of their rules lets it through.
    pub(crate) walls: Word<Vec<String>>,
    /// The kernel: pods' connections within the VPC that somebody translates, by sender and receiver.
    pub(crate) translated: Word<Vec<(IpAddr, IpAddr)>>,
    /// The kernel: what another CNI or an older version of us has left.
    pub(crate) leftovers: Word<Vec<String>>,
    /// How the node and its ENIs should be, by the database.
    pub(crate) plans: Plans,
    /// The daemon.
    pub(crate) daemon: Daemon,
    /// What is wrong with the database's file. Absent: nothing.
    pub(crate) file: Option<String>,
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

/// How the daemon answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Daemon {
    /// It serves pods; with the ids of the ENIs that it has prepared.
    Serves(BTreeSet<String>),
    /// It answers, but has not finished its start: why.
    Starts(String),
    /// It does not answer: why.
    Away(String),
}

/// Asks all sources. `with_ec2`: also EC2, which costs one call and may take seconds.
pub(crate) async fn sources(settings: &Settings, with_ec2: bool) -> Sources {
    let sources = local(settings, Err("EC2 was not asked (--no-ec2)".to_owned())).await;
    let interfaces = match with_ec2 {
        true => interfaces(settings.policy.access).await,
        false => return sources,
    };
    Sources { interfaces, ..sources }
}

/// Asks all sources but EC2, which has said this.
pub(crate) async fn local(settings: &Settings, interfaces: Word<Vec<Interface>>) -> Sources {
    let leases = store::leases(&settings.database).await.map_err(|error| chain(&error));
    let known = store::known(&settings.database).await;
    let daemon = daemon(settings).await;
    let file = file(&settings.database).await;
    let pods = eni_datapath::observe_pods(&settings.veth_prefix).map_err(|error| chain(&error));
    let wiring = leases.iter().flatten().map(|lease| (lease.key.clone(), wiring(lease, settings))).collect();
    let plans = match &known {
        Ok(known) => Plans::of(known, settings, |eni| {
            let leased = leases.iter().flatten().any(|lease| lease.eni.as_str() == eni);
            leased || matches!(&daemon, Daemon::Serves(prepared) if prepared.contains(eni))
        }),
        Err(_) => Plans::default(),
    };
    let legacy = Legacy::walls().map_err(|error| error.to_string());
    let walls = eni_datapath::forward_drops().map_err(|error| chain(&error));
    Sources {
        wiring,
        base: eni_datapath::verify(plans.host.as_ref(), &plans.enis(), &settings.veth_prefix)
            .map_err(|error| chain(&error)),
        astray: match (&leases, &pods) {
            (Ok(leases), Ok(pods)) => ways::astray(leases, pods, &plans),
            _ => Ok(Vec::new()),
        },
        walls: walls.and_then(|walls| Ok([walls, legacy?].concat())),
        translated: ways::translated(leases.iter().flatten(), &plans),
        leftovers: migrate::sweep::leftovers(settings),
        plans,
        daemon,
        file,
        leases,
        pods,
        interfaces,
    }
}

async fn daemon(settings: &Settings) -> Daemon {
    let socket = settings.socket.display();
    match tokio::time::timeout(PATIENCE, ask::document(&settings.socket, "pool")).await {
        Ok(Ok(pool)) => {
            let enis = pool.get("enis").and_then(serde_json::Value::as_array).into_iter().flatten();
            let text = |eni: &serde_json::Value, name| eni.get(name).and_then(|it| it.as_str()).map(str::to_owned);
            let ready = enis.filter(|eni| {
                text(eni, "phase").as_deref() == Some("ready") && eni.get("managed") == Some(&true.into())
            });
            Daemon::Serves(ready.filter_map(|eni| text(eni, "id")).collect())
        }
        Ok(Err(NoAnswer::NotReady(why))) => Daemon::Starts(why),
        Ok(Err(NoAnswer::Away(why))) => {
            // Each layer of the client says the same again.
            let mut said: Vec<&str> = Vec::new();
            why.split(": ").for_each(|part| {
                if !said.contains(&part) {
                    said.push(part)
                }
            });
            Daemon::Away(format!("no daemon answers on {socket}: {}", said.join(": ")))
        }
        Err(_) => Daemon::Away(format!("the daemon does not answer on {socket} within {} s", PATIENCE.as_secs())),
    }
}

/// What is wrong with the database's file; one that is not there is told where leases are read.
async fn file(path: &Path) -> Option<String> {
    match store::check(path).await {
        Ok(()) => {}
        Err(StoreError::Open { .. }) => return None,
        Err(error) => return Some(chain(&error)),
    }
    let written = std::fs::OpenOptions::new().append(true).open(path).err();
    written.map(|error| format!("the database {} cannot be written: {error}", path.display()))
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

impl Sources {
    /// The ENI that EC2 says owns an address.
    pub(crate) fn owner(&self, address: IpAddr) -> Option<&Interface> {
        let owns = |eni: &&Interface| eni.owns(address);
        self.interfaces.as_ref().ok()?.iter().find(owns)
    }
}
