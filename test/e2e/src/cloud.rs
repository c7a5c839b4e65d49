//! The cloud behind a cluster: the simulator in this process, or LocalStack.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Weak},
    time::Duration,
};

use ec2_sim::{
    Clock, SimCloud, WorldConfig,
    imds::{self, InstanceMetadata, InterfaceMetadata, MetadataSource},
};
use ipam_core::{InstanceId, Moment, SubnetId, VpcId, ports::Cidr4};
use lab::{Element, Follower, Lab, LabError, ec2::Endpoint};
use tokio::{net::TcpListener, task::JoinSet};

use crate::{Trouble, localstack::LocalStack, storm::Storm};

/// How often a cloud that tells of no changes is asked.
const POLL: Duration = Duration::from_millis(200);
/// The simulator tells of its changes; this is only a net below that.
const POLL_SIM: Duration = Duration::from_secs(5);
/// Region of every cloud here.
pub const REGION: &str = "us-east-1";

/// Which cloud.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CloudKind {
    /// The project's own simulator.
    Sim,
    /// LocalStack, somebody else's idea of EC2.
    LocalStack,
}

/// A running cloud. It ends with this value.
#[derive(Debug)]
pub struct Cloud {
    endpoint: Endpoint,
    /// As nodes reach it, when that differs.
    in_storm: Option<(Storm, Endpoint)>,
    backend: Backend,
    /// Server tasks and whatever else lives as long as the cloud.
    tasks: JoinSet<()>,
}

#[derive(Debug)]
enum Backend {
    Sim(SimCloud),
    /// With a LocalStack of our own, or one that somebody else started.
    LocalStack {
        _guard: Option<LocalStack>,
    },
}

/// A VPC with one subnet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Network {
    /// The VPC.
    pub vpc: VpcId,
    /// Network of the VPC.
    pub vpc_cidr: String,
    /// The subnet.
    pub subnet: SubnetId,
    /// Network of the subnet.
    pub subnet_cidr: Cidr4,
    /// Default security group of the VPC.
    pub security_group: String,
}

impl Cloud {
    /// Starts a cloud of the given kind with default behaviour.
    ///
    /// # Errors
    /// [`Trouble::LocalStack`], [`Trouble::Os`].
    pub async fn start(kind: CloudKind) -> Result<Self, Trouble> {
        match kind {
            CloudKind::Sim => Self::simulate(WorldConfig::default()).await,
            CloudKind::LocalStack => {
                let localstack = LocalStack::start().await?;
                let endpoint = endpoint(localstack.address(), localstack.account());
                let backend = Backend::LocalStack { _guard: Some(localstack) };
                Ok(Self { endpoint, in_storm: None, backend, tasks: JoinSet::new() })
            }
        }
    }

    /// A LocalStack that runs already, and is left running.
    #[must_use]
    pub fn running_localstack(address: SocketAddr, account: &str) -> Self {
        let backend = Backend::LocalStack { _guard: None };
        Self { endpoint: endpoint(address, account), in_storm: None, backend, tasks: JoinSet::new() }
    }

    /// Starts the simulator with a world of one's own.
    ///
    /// # Errors
    /// [`Trouble::Os`] when it cannot listen on loopback.
    pub async fn simulate(config: WorldConfig) -> Result<Self, Trouble> {
        let config = WorldConfig { region: REGION.to_owned(), ..config };
        let sim = SimCloud::new(config, Clock::wall());
        let mut tasks = JoinSet::new();
        let address = serve(sim.router(), &mut tasks).await?;
        let driven = sim.clone();
        tasks.spawn(async move { driven.drive().await });
        let endpoint = endpoint(address, ec2_sim::ACCOUNT);
        Ok(Self { endpoint, in_storm: None, backend: Backend::Sim(sim), tasks })
    }

    /// The same, but what its nodes ask goes through `storm`.
    ///
    /// # Errors
    /// [`Trouble::Os`] when it cannot listen on loopback.
    pub async fn simulate_in(storm: Storm, config: WorldConfig) -> Result<Self, Trouble> {
        let mut cloud = Self::simulate(config).await?;
        if let Backend::Sim(sim) = &cloud.backend {
            let address = serve(storm.before_ec2(sim), &mut cloud.tasks).await?;
            cloud.in_storm = Some((storm, endpoint(address, ec2_sim::ACCOUNT)));
        }
        Ok(cloud)
    }

    /// Where its API answers on loopback.
    #[must_use]
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// The same for its nodes.
    pub(crate) fn endpoint_for_nodes(&self) -> &Endpoint {
        self.in_storm.as_ref().map_or(&self.endpoint, |(_, endpoint)| endpoint)
    }

    /// The simulator itself. Absent: this is another cloud.
    #[must_use]
    pub fn sim(&self) -> Option<&SimCloud> {
        match &self.backend {
            Backend::Sim(sim) => Some(sim),
            Backend::LocalStack { .. } => None,
        }
    }

    /// Makes a VPC with one subnet, which in the simulator has IPv6 too.
    ///
    /// # Errors
    /// EC2's refusal.
    pub async fn make_network(&self, vpc_cidr: &str, subnet_cidr: &str) -> Result<Network, Trouble> {
        let ipv6 = if self.sim().is_some() { "true" } else { "false" };
        let answer = self.call("CreateVpc", &[("CidrBlock", vpc_cidr), ("AmazonProvidedIpv6CidrBlock", ipv6)]).await?;
        let vpc = answer.text_at("vpc/vpcId").to_owned();
        let block = answer.list_at("vpc/ipv6CidrBlockAssociationSet").first().map(|one| one.text_at("ipv6CidrBlock"));
        // The first /64 of the VPC's /56.
        let block = block.map(|block| block.replace("/56", "/64")).filter(|_| self.sim().is_some());
        let mut subnet = vec![("VpcId", vpc.as_str()), ("CidrBlock", subnet_cidr)];
        subnet.extend(block.as_deref().map(|block| ("Ipv6CidrBlock", block)));
        let answer = self.call("CreateSubnet", &subnet).await?;
        Ok(Network {
            security_group: self.default_group(&vpc).await?,
            vpc: parse(&vpc)?,
            vpc_cidr: vpc_cidr.to_owned(),
            subnet: parse(answer.text_at("subnet/subnetId"))?,
            subnet_cidr: cidr(subnet_cidr)?,
        })
    }

    /// A network that is there already, from its ids and networks as text.
    ///
    /// # Errors
    /// EC2's refusal, or what is not an id or a network.
    pub async fn network(&self, vpc: [&str; 2], subnet: [&str; 2]) -> Result<Network, Trouble> {
        Ok(Network {
            security_group: self.default_group(vpc[0]).await?,
            vpc: parse(vpc[0])?,
            vpc_cidr: vpc[1].to_owned(),
            subnet: parse(subnet[0])?,
            subnet_cidr: cidr(subnet[1])?,
        })
    }

    async fn default_group(&self, vpc: &str) -> Result<String, Trouble> {
        let filters = [
            ("Filter.1.Name", "vpc-id"),
            ("Filter.1.Value.1", vpc),
            ("Filter.2.Name", "group-name"),
            ("Filter.2.Value.1", "default"),
        ];
        let groups = self.call("DescribeSecurityGroups", &filters).await?;
        let security_group = groups.list_at("securityGroupInfo").first().map_or("", |group| group.text_at("groupId"));
        Ok(security_group.to_owned())
    }

    /// Starts an instance with its primary ENI in `network`; `more`: further parameters.
    ///
    /// # Errors
    /// EC2's refusal.
    pub async fn run_instance(
        &self,
        instance_type: &str,
        more: &[(&str, &str)],
        network: &Network,
    ) -> Result<InstanceId, Trouble> {
        let parameters = [
            ("ImageId", "ami-0123456789abcdef0"),
            ("InstanceType", instance_type),
            ("MinCount", "1"),
            ("MaxCount", "1"),
            ("SubnetId", network.subnet.as_str()),
        ];
        let answer = self.call("RunInstances", &[&parameters, more].concat()).await?;
        let instance = answer.list_at("instancesSet").first().map_or("", |item| item.text_at("instanceId"));
        parse(instance)
    }

    /// Keeps `lab` as this cloud describes itself. Returns after the first look.
    ///
    /// # Errors
    /// As the first look.
    pub async fn follow(&mut self, lab: &Arc<Lab>) -> Result<Follower, Trouble> {
        let (lab, endpoint) = (Arc::clone(lab), self.endpoint.clone());
        let interval = if self.sim().is_some() { POLL_SIM } else { POLL };
        let follower = blocking(move || Follower::start(&lab, endpoint, interval)).await??;
        if let Backend::Sim(sim) = &self.backend {
            let (mut changes, nudge) = (sim.changes(), follower.nudge());
            self.tasks.spawn(async move {
                while changes.changed().await.is_ok() {
                    nudge.look();
                }
            });
        }
        Ok(follower)
    }

    /// Serves an instance's metadata on `listener` for as long as the cloud lives.
    ///
    /// # Errors
    /// [`Trouble::Os`]; EC2's refusal when the cloud has no metadata service and has to be asked.
    pub async fn serve_metadata(
        &mut self,
        listener: std::net::TcpListener,
        instance: &InstanceId,
        network: &Network,
        lab: &Arc<Lab>,
    ) -> Result<(), Trouble> {
        let listener = TcpListener::from_std(listener).map_err(Trouble::os("serve metadata"))?;
        let router = match &self.backend {
            Backend::Sim(sim) => imds::router(sim.instance(instance)),
            Backend::LocalStack { .. } => imds::router(self.described_instance(instance, network, lab).await?),
        };
        let router = match &self.in_storm {
            Some((storm, _)) => storm.before_metadata(router),
            None => router,
        };
        self.tasks.spawn(async move { drop(imds::serve(listener, router).await) });
        Ok(())
    }

    async fn described_instance(
        &self,
        instance: &InstanceId,
        network: &Network,
        lab: &Arc<Lab>,
    ) -> Result<DescribedInstance, Trouble> {
        let answer = self.call("DescribeInstances", &[("InstanceId.1", instance.as_str())]).await?;
        let item = answer.list_at("reservationSet").first().and_then(|item| item.list_at("instancesSet").first());
        let item = item.ok_or_else(|| Trouble::Answer { what: "DescribeInstances", answer: format!("{answer:?}") })?;
        Ok(DescribedInstance {
            instance: instance.clone(),
            instance_type: item.text_at("instanceType").to_owned(),
            zone: item.text_at("placement/availabilityZone").to_owned(),
            account: self.endpoint.access_key.clone(),
            network: network.clone(),
            lab: Arc::downgrade(lab),
        })
    }

    /// Sends one call.
    ///
    /// # Errors
    /// EC2's refusal.
    pub async fn call(&self, action: &str, parameters: &[(&str, &str)]) -> Result<Element, Trouble> {
        let (endpoint, action) = (self.endpoint.clone(), action.to_owned());
        let parameters: Vec<(String, String)> =
            parameters.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let answer: Result<Element, LabError> = blocking(move || {
            let borrowed: Vec<(&str, &str)> = parameters.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect();
            endpoint.call(&action, &borrowed)
        })
        .await?;
        Ok(answer?)
    }
}

/// Metadata of an instance in a cloud without a metadata service, from what the lab last heard of it.
#[derive(Debug)]
struct DescribedInstance {
    instance: InstanceId,
    instance_type: String,
    zone: String,
    account: String,
    network: Network,
    /// Not to keep the lab alive: the server that shows this ends a moment after the cloud.
    lab: Weak<Lab>,
}

impl MetadataSource for DescribedInstance {
    fn metadata(&self, _now: Moment) -> Option<InstanceMetadata> {
        let interfaces: Vec<InterfaceMetadata> = self.interfaces();
        let primary = interfaces.iter().find(|interface| interface.device_number == 0)?;
        Some(InstanceMetadata {
            instance_id: self.instance.to_string(),
            instance_type: self.instance_type.clone(),
            image_id: "ami-0123456789abcdef0".to_owned(),
            account: self.account.clone(),
            region: REGION.to_owned(),
            availability_zone: self.zone.clone(),
            local_ipv4: *primary.local_ipv4s.first()?,
            mac: primary.mac,
            interfaces,
            ghosts: vec![],
        })
    }
}

impl DescribedInstance {
    fn interfaces(&self) -> Vec<InterfaceMetadata> {
        let described = self.lab.upgrade().map(|lab| lab.described()).unwrap_or_default().into_iter();
        let attached = described.filter_map(|interface| {
            let attachment = interface.attachment.clone().filter(|a| a.attached && a.instance == self.instance)?;
            Some((interface, attachment))
        });
        let Cidr4 { network, prefix } = self.network.subnet_cidr;
        attached
            .map(|(interface, attachment)| InterfaceMetadata {
                mac: interface.mac,
                interface_id: interface.id.to_string(),
                device_number: attachment.device_index,
                network_card: attachment.card,
                subnet_id: interface.subnet.to_string(),
                vpc_id: self.network.vpc.to_string(),
                owner_id: self.account.clone(),
                // What EC2 gives an instance that names none; LocalStack gives it none.
                security_group_ids: vec![self.network.security_group.clone()],
                security_groups: vec!["default".to_owned()],
                local_ipv4s: [interface.primary].into_iter().chain(interface.secondary).collect(),
                ipv4_prefixes: interface.prefixes.iter().map(ToString::to_string).collect(),
                subnet_ipv4_cidr_block: format!("{network}/{prefix}"),
                vpc_ipv4_cidr_blocks: vec![self.network.vpc_cidr.clone()],
                ipv6: Default::default(),
            })
            .collect()
    }
}

/// Serves on a free port of loopback. Returns where.
async fn serve(router: axum::Router, tasks: &mut JoinSet<()>) -> Result<SocketAddr, Trouble> {
    let listener = TcpListener::bind("127.0.0.1:0").await.map_err(Trouble::os("listen on loopback"))?;
    let address = listener.local_addr().map_err(Trouble::os("listen on loopback"))?;
    tasks.spawn(async move { drop(imds::serve(listener, router).await) });
    Ok(address)
}

fn endpoint(address: SocketAddr, account: &str) -> Endpoint {
    Endpoint { address, access_key: account.to_owned(), region: REGION.to_owned() }
}

/// Runs something that blocks on a thread where it may.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Trouble> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|failed| Trouble::Os { what: "finish a blocking step".to_owned(), source: failed.into() })
}

fn parse<T: std::str::FromStr>(text: &str) -> Result<T, Trouble> {
    text.parse().map_err(|_| Trouble::Answer { what: "an id of the cloud", answer: text.to_owned() })
}

fn cidr(text: &str) -> Result<Cidr4, Trouble> {
    let (network, prefix) = text.split_once('/').unwrap_or((text, "32"));
    Ok(Cidr4 { network: parse::<Ipv4Addr>(network)?, prefix: parse(prefix)? })
}
