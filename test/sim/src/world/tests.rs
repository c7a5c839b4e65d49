//! The rules of the cloud, each a test. Time is in milliseconds since the world began.

mod addresses;
mod attachments;
mod consistency;
mod describe;
mod faults;
mod instances;
mod interfaces;
mod ipv6;
mod kinds;
mod networks;
mod prefixes;
mod quotas;
mod random;
mod tags;

use std::net::Ipv4Addr;

use ipam_core::{AttachmentId, EniId, InstanceId, Moment, SubnetId};

use crate::{
    Action, Delays, Failure, World, WorldConfig,
    action::{
        AttachNetworkInterface, CreateNetworkInterface, CreateSubnet, CreateVpc, DescribeNetworkInterfaces,
        RunInstances,
    },
    world::{Cidr6, DelayRange, model::Eni},
};

/// A world with one VPC, one subnet and a clock.
struct Fixture {
    world: World,
    now: Moment,
    vpc: String,
    subnet: SubnetId,
}

impl Fixture {
    /// Creating takes 100 ms, attaching 200 ms, detaching 300 ms, terminating 400 ms.
    fn new(subnet: &str) -> Self {
        let exactly = |millis| DelayRange::millis(millis, millis);
        let delays = Delays {
            create: exactly(100),
            attach: exactly(200),
            detach: exactly(300),
            terminate: exactly(400),
            ..Delays::NONE
        };
        Self::with(WorldConfig { delays, ..WorldConfig::default() }, subnet)
    }

    fn with(config: WorldConfig, subnet: &str) -> Self {
        let now = Moment::from_millis(0);
        let mut world = World::new(config, now);
        let vpc = CreateVpc { cidr: "10.0.0.0/16".into(), ipv6: true, ..Default::default() };
        let vpc = world.arrange(&vpc, now).unwrap();
        let cidr6 = vpc.cidr6.map(|block| Cidr6 { prefix: 64, ..block });
        let vpc = vpc.id;
        let subnet = CreateSubnet { vpc: vpc.to_string(), cidr: subnet.into(), cidr6, ..Default::default() };
        let subnet = world.arrange(&subnet, now).unwrap().id;
        Self { world, now, vpc: vpc.to_string(), subnet }
    }

    fn at(&mut self, millis: u64) -> &mut Self {
        self.now = Moment::from_millis(millis);
        self
    }

    fn call<A: Action>(&mut self, action: &A) -> Result<A::Answer, Failure> {
        self.world.call(action, self.now)
    }

    /// The code with which `action` is refused.
    fn refusal<A: Action<Answer: std::fmt::Debug>>(&mut self, action: &A) -> String {
        self.call(action).unwrap_err().code().to_owned()
    }

    fn run(&mut self, instance_type: &str) -> InstanceId {
        let subnet = Some(self.subnet.to_string());
        let run = RunInstances { instance_type: instance_type.into(), subnet, ..Default::default() };
        self.call(&run).unwrap().remove(0).instance.id
    }

    fn new_eni(&self) -> CreateNetworkInterface {
        CreateNetworkInterface { subnet: self.subnet.to_string(), ..Default::default() }
    }

    fn create(&mut self, secondary: u16) -> EniId {
        let new = CreateNetworkInterface { secondary_count: Some(secondary), ..self.new_eni() };
        self.call(&new).unwrap().id
    }

    fn attach(&mut self, eni: &EniId, instance: &InstanceId, device_index: u8) -> Result<AttachmentId, Failure> {
        let (interface, instance) = (eni.to_string(), instance.to_string());
        self.call(&AttachNetworkInterface { interface, instance, device_index, card: 0 })
    }

    fn eni(&mut self, id: &EniId) -> Eni {
        let describe = DescribeNetworkInterfaces { ids: vec![id.to_string()], ..Default::default() };
        self.call(&describe).unwrap().items.remove(0)
    }

    fn free_addresses(&mut self) -> usize {
        let id = self.subnet.clone();
        self.world.subnets().find(|subnet| subnet.id == id).map(|subnet| subnet.available).unwrap()
    }
}

fn code<T: std::fmt::Debug>(outcome: Result<T, Failure>) -> String {
    outcome.unwrap_err().code().to_owned()
}

fn ip(text: &str) -> Ipv4Addr {
    text.parse().unwrap()
}
