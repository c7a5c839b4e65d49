//! One world, shared, with a clock: what a host holds while others talk to it.

mod ec2_port;
mod imds_port;
mod refusal;

use std::{
    future::pending,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use ipam_core::{InstanceId, Moment, SecurityGroupId, SubnetId, VpcId};
use tokio::sync::watch;

pub use self::imds_port::SimInstance;
use crate::{
    Action, ApiError, Clock, Failure, World, WorldConfig,
    action::{CreateSubnet, CreateVpc, RunInstances},
    world::Reply,
};

/// A cloud that can be shared between threads; cheap to clone. Implements [`ipam_core::ports::Ec2`].
#[derive(Debug, Clone)]
pub struct SimCloud {
    world: Arc<Mutex<World>>,
    clock: Clock,
    changes: Arc<watch::Sender<u64>>,
}

/// What [`SimCloud::demo_vpc`] has made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DemoVpc {
    /// The VPC.
    pub vpc: VpcId,
    /// Its subnets, in the order of their networks.
    pub subnets: Vec<SubnetId>,
    /// Its default security group.
    pub security_group: SecurityGroupId,
}

impl SimCloud {
    /// Returns an empty cloud.
    #[must_use]
    pub fn new(config: WorldConfig, clock: Clock) -> Self {
        let world = World::new(config, clock.now());
        Self { world: Arc::new(Mutex::new(world)), clock, changes: Arc::new(watch::Sender::new(0)) }
    }

    /// The cloud's time.
    #[must_use]
    pub fn now(&self) -> Moment {
        self.clock.now()
    }

    /// Looks at the world, or changes it, as of now.
    pub fn with<T>(&self, work: impl FnOnce(&mut World, Moment) -> T) -> T {
        let now = self.now();
        let mut world = self.lock();
        world.advance(now);
        let answer = work(&mut world, now);
        let version = world.version();
        drop(world);
        self.changes.send_if_modified(|seen| std::mem::replace(seen, version.max(*seen)) < version);
        answer
    }

    fn lock(&self) -> MutexGuard<'_, World> {
        // A broken invariant panics under the lock; whoever comes next sees the world as it is.
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does what `action` says. A fault's delay is in the reply and has not been waited for.
    pub fn reply<A: Action>(&self, action: &A) -> Reply<A::Answer> {
        self.with(|world, now| world.reply(action, now))
    }

    /// Does what `action` says, at once.
    ///
    /// # Errors
    /// EC2's refusal, or a lost reply if a fault says so.
    pub fn call<A: Action>(&self, action: &A) -> Result<A::Answer, Failure> {
        self.reply(action).heard()
    }

    /// Does what `action` says for whoever arranges the scene: see [`World::arrange`].
    ///
    /// # Errors
    /// EC2's refusal.
    pub fn arrange<A: Action>(&self, action: &A) -> Result<A::Answer, ApiError> {
        self.with(|world, now| world.arrange(action, now))
    }

    /// Carries [`World::version`]: changes whenever an ENI or an instance has. While [`SimCloud::drive`] runs, also when time alone
    /// has changed it.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Lets time act by itself (an attachment becomes effective without anybody asking), until it is dropped.
    ///
    /// Sleeps on tokio's clock: for [`Clock::wall`] and [`Clock::tokio`].
    pub async fn drive(&self) {
        let mut changes = self.changes();
        loop {
            // Marked before the look, so that what happens in between is not missed.
            changes.borrow_and_update();
            let wait = self.with(|world, now| world.next_due().map(|at| at.since(now)));
            let due = async {
                match wait {
                    Some(wait) => tokio::time::sleep(wait).await,
                    None => pending().await,
                }
            };
            tokio::select! {
                () = due => {}
                _ = changes.changed() => {}
            }
        }
    }

    /// The EC2 API over HTTP: form POST or GET to any path, any region, any credentials; `GET /healthz`.
    pub fn router(&self) -> axum::Router {
        crate::http::router(self.clone())
    }

    /// One instance, as its metadata service sees it.
    #[must_use]
    pub fn instance(&self, id: &InstanceId) -> SimInstance {
        SimInstance::new(self.clone(), id.clone())
    }

    /// Makes a VPC and its subnets, all in the region's first zone.
    ///
    /// # Errors
    /// EC2's refusal, as of networks that overlap.
    pub fn demo_vpc(&self, vpc: &str, subnets: &[&str]) -> Result<DemoVpc, Failure> {
        let vpc = self.arrange(&CreateVpc { cidr: vpc.to_owned(), ..CreateVpc::default() })?;
        let make = |cidr: &&str| {
            let subnet = CreateSubnet { vpc: vpc.id.to_string(), cidr: (*cidr).to_owned(), ..CreateSubnet::default() };
            Ok(self.arrange(&subnet)?.id)
        };
        let subnets = subnets.iter().map(make).collect::<Result<_, Failure>>()?;
        Ok(DemoVpc { vpc: vpc.id, subnets, security_group: vpc.default_group })
    }

    /// Starts one instance with a primary ENI in `subnet`.
    ///
    /// # Errors
    /// EC2's refusal, as of a type that does not exist or a subnet that is full.
    pub fn run_instance(&self, instance_type: &str, subnet: &SubnetId) -> Result<InstanceId, Failure> {
        let run = RunInstances {
            instance_type: instance_type.to_owned(),
            subnet: Some(subnet.to_string()),
            ..RunInstances::default()
        };
        self.arrange(&run)?.pop().map(|description| description.instance.id).ok_or(Failure::NoReply)
    }
}
