//! Counts calls to EC2 on their way: how they ended and how long they took.

use std::{future::Future, sync::Arc, time::Instant};

use ipam_core::{
    AttachmentId, EniId, InstanceId, Limits, VpcId,
    ports::{Amount, Change, Ec2, Ec2Error, Ec2Result, Holdings, Interface, NewInterface, RefusalClass, Scope, Subnet},
};

use super::{METRICS, open};

/// EC2, with every call counted.
#[derive(Debug)]
pub(crate) struct Counted<E>(pub(crate) Arc<E>);

/// How a call ended, in one of few words.
pub(super) const OUTCOMES: [&str; 11] = [
    "done",
    "unknown",
    "slow_down",
    "subnet_full",
    "no_prefix",
    "limit_reached",
    "not_found",
    "wrong_state",
    "not_allowed",
    "bad_request",
    "try_later",
];

const fn outcome<T>(answer: &Ec2Result<T>) -> &'static str {
    match answer {
        Ok(_) => "done",
        Err(Ec2Error::Unknown { .. }) => "unknown",
        Err(Ec2Error::Refused { class, .. }) => match class {
            RefusalClass::SlowDown => "slow_down",
            RefusalClass::SubnetFull => "subnet_full",
            RefusalClass::NoPrefix => "no_prefix",
            RefusalClass::LimitReached => "limit_reached",
            RefusalClass::NotFound => "not_found",
            RefusalClass::WrongState => "wrong_state",
            RefusalClass::NotAllowed => "not_allowed",
            RefusalClass::BadRequest => "bad_request",
            RefusalClass::TryLater => "try_later",
        },
    }
}

async fn counted<T>(action: &'static str, call: impl Future<Output = Ec2Result<T>>) -> Ec2Result<T> {
    let begun = Instant::now();
    let answer = call.await;
    let now = Instant::now();
    open(&METRICS.ec2).entry(action).or_default().count(outcome(&answer), now.duration_since(begun), now);
    answer
}

impl<E: Ec2> Ec2 for Counted<E> {
    async fn interfaces(&self, instance: &InstanceId, scope: Scope) -> Ec2Result<Vec<Interface>> {
        counted("DescribeNetworkInterfaces", self.0.interfaces(instance, scope)).await
    }

    async fn subnets(&self, vpc: &VpcId, zone: &str) -> Ec2Result<Vec<Subnet>> {
        counted("DescribeSubnets", self.0.subnets(vpc, zone)).await
    }

    async fn limits(&self, instance_type: &str) -> Ec2Result<Limits> {
        counted("DescribeInstanceTypes", self.0.limits(instance_type)).await
    }

    async fn create_interface(&self, new: &NewInterface) -> Ec2Result<Interface> {
        counted("CreateNetworkInterface", self.0.create_interface(new)).await
    }

    async fn attach_interface(
        &self,
        eni: &EniId,
        instance: &InstanceId,
        card: u8,
        device_index: u8,
    ) -> Ec2Result<AttachmentId> {
        counted("AttachNetworkInterface", self.0.attach_interface(eni, instance, card, device_index)).await
    }

    async fn modify_interface(&self, eni: &EniId, change: &Change) -> Ec2Result<()> {
        counted("ModifyNetworkInterfaceAttribute", self.0.modify_interface(eni, change)).await
    }

    async fn assign(&self, eni: &EniId, amount: Amount) -> Ec2Result<Holdings> {
        counted(amount.action(), self.0.assign(eni, amount)).await
    }

    async fn unassign(&self, eni: &EniId, holdings: &Holdings) -> Ec2Result<()> {
        counted("UnassignPrivateIpAddresses", self.0.unassign(eni, holdings)).await
    }

    async fn detach_interface(&self, attachment: &AttachmentId) -> Ec2Result<()> {
        counted("DetachNetworkInterface", self.0.detach_interface(attachment)).await
    }

    async fn delete_interface(&self, eni: &EniId) -> Ec2Result<()> {
        counted("DeleteNetworkInterface", self.0.delete_interface(eni)).await
    }
}
