//! The EC2 port on the real SDK.

use std::{collections::BTreeMap, net::Ipv4Addr};

use aws_config::{BehaviorVersion, Region, retry::RetryConfig, timeout::TimeoutConfig};
use aws_sdk_ec2::{
    Client,
    error::{ProvideErrorMetadata, SdkError},
    types::{Filter, NetworkInterface, NetworkInterfaceAttachmentChanges, ResourceType, Tag, TagSpecification},
};
use eni_proto::numbers::TAG_INSTANCE;
use ipam_core::{
    AttachmentId, EniId, InstanceId, SubnetId,
    ports::{Ec2, Ec2Error, Ec2Result, Interface, NewInterface, RefusalClass, Subnet},
};

use crate::{AwsSettings, class, convert, http_client, throttle::Throttle};

/// EC2 through the AWS SDK. Cheap to share behind an `Arc`.
#[derive(Debug)]
pub struct AwsEc2 {
    client: Client,
    throttle: Throttle,
}

impl AwsEc2 {
    /// Prepares the client; nothing is sent yet, and credentials are looked for at the first call.
    ///
    /// Endpoint and credentials come from where every AWS tool takes them: `AWS_ENDPOINT_URL_EC2`, `AWS_ENDPOINT_URL`, the
    /// environment, the profile, the web identity token, the container's credentials, the metadata service.
    pub async fn connect(settings: AwsSettings) -> Self {
        let timeouts = TimeoutConfig::builder()
            .connect_timeout(settings.connect_timeout)
            .operation_timeout(settings.call_timeout)
            .build();
        let config = aws_config::defaults(BehaviorVersion::latest())
            .region(Region::new(settings.region))
            .http_client(http_client())
            .timeout_config(timeouts)
            .retry_config(RetryConfig::disabled())
            .load()
            .await;
        Self { client: Client::new(&config), throttle: Throttle::new() }
    }

    async fn described(&self, filter: &str, value: &str) -> Ec2Result<Vec<NetworkInterface>> {
        const ACTION: &str = "DescribeNetworkInterfaces";
        self.throttle.wait(ACTION).await;
        let filter = Filter::builder().name(filter).values(value).build();
        let mut pages = self.client.describe_network_interfaces().filters(filter).into_paginator().items().send();
        let mut found = Vec::new();
        while let Some(eni) = pages.next().await {
            found.push(eni.map_err(|error| failed(ACTION, &error))?);
        }
        Ok(found)
    }
}

impl Ec2 for AwsEc2 {
    async fn interfaces(&self, instance: &InstanceId) -> Ec2Result<Vec<Interface>> {
        let attached = self.described("attachment.instance-id", instance.as_str()).await?;
        let tagged = self.described(&format!("tag:{TAG_INSTANCE}"), instance.as_str()).await?;
        let mut found = BTreeMap::new();
        for eni in attached.iter().chain(&tagged) {
            match convert::interface(eni) {
                Ok(interface) => drop(found.insert(interface.id.clone(), interface)),
                // One that cannot be read must not hide the others; what is not listed is never taken for gone at once.
                Err(error) => tracing::warn!(eni = eni.network_interface_id(), %error, "interface cannot be used"),
            }
        }
        Ok(found.into_values().collect())
    }

    async fn subnet(&self, subnet: &SubnetId) -> Ec2Result<Subnet> {
        const ACTION: &str = "DescribeSubnets";
        self.throttle.wait(ACTION).await;
        let answer = self.client.describe_subnets().subnet_ids(subnet.as_str()).send().await;
        let answer = answer.map_err(|error| failed(ACTION, &error))?;
        let found = answer.subnets().first().ok_or_else(|| empty(ACTION))?;
        convert::subnet(found).map_err(|error| unreadable(ACTION, &error))
    }

    async fn create_interface(&self, new: &NewInterface) -> Ec2Result<Interface> {
        const ACTION: &str = "CreateNetworkInterface";
        self.throttle.wait(ACTION).await;
        let tags = new.tags.iter().map(|(key, value)| Tag::builder().key(key).value(value).build()).collect();
        let groups =
            (!new.security_groups.is_empty()).then(|| new.security_groups.iter().map(ToString::to_string).collect());
        let answer = self
            .client
            .create_network_interface()
            .client_token(&new.token)
            .subnet_id(new.subnet.as_str())
            .set_groups(groups)
            .set_secondary_private_ip_address_count((new.secondary_count > 0).then(|| new.secondary_count.into()))
            .description(&new.description)
            .tag_specifications(
                TagSpecification::builder().resource_type(ResourceType::NetworkInterface).set_tags(Some(tags)).build(),
            )
            .send()
            .await;
        let answer = answer.map_err(|error| failed(ACTION, &error))?;
        let eni = answer.network_interface().ok_or_else(|| empty(ACTION))?;
        convert::interface(eni).map_err(|error| unreadable(ACTION, &error))
    }

    async fn attach_interface(
        &self,
        eni: &EniId,
        instance: &InstanceId,
        card: u8,
        device_index: u8,
    ) -> Ec2Result<AttachmentId> {
        const ACTION: &str = "AttachNetworkInterface";
        self.throttle.wait(ACTION).await;
        let request = self
            .client
            .attach_network_interface()
            .network_interface_id(eni.as_str())
            .instance_id(instance.as_str())
            .device_index(device_index.into())
            // Older instance types refuse the parameter even where it says the default.
            .set_network_card_index((card > 0).then(|| card.into()));
        let answer = request.send().await.map_err(|error| failed(ACTION, &error))?;
        let id = answer.attachment_id().ok_or_else(|| empty(ACTION))?;
        id.parse().map_err(|error| unreadable(ACTION, &error))
    }

    async fn delete_on_termination(&self, eni: &EniId, attachment: &AttachmentId) -> Ec2Result<()> {
        const ACTION: &str = "ModifyNetworkInterfaceAttribute";
        self.throttle.wait(ACTION).await;
        let change =
            NetworkInterfaceAttachmentChanges::builder().attachment_id(attachment.as_str()).delete_on_termination(true);
        let request = self.client.modify_network_interface_attribute().network_interface_id(eni.as_str());
        let answer = request.attachment(change.build()).send().await;
        answer.map(drop).map_err(|error| failed(ACTION, &error))
    }

    async fn assign_addresses(&self, eni: &EniId, count: u16) -> Ec2Result<()> {
        const ACTION: &str = "AssignPrivateIpAddresses";
        self.throttle.wait(ACTION).await;
        let request = self.client.assign_private_ip_addresses().network_interface_id(eni.as_str());
        let answer = request.secondary_private_ip_address_count(count.into()).send().await;
        answer.map(drop).map_err(|error| failed(ACTION, &error))
    }

    async fn unassign_addresses(&self, eni: &EniId, addresses: &[Ipv4Addr]) -> Ec2Result<()> {
        const ACTION: &str = "UnassignPrivateIpAddresses";
        self.throttle.wait(ACTION).await;
        let addresses = addresses.iter().map(ToString::to_string).collect();
        let request = self.client.unassign_private_ip_addresses().network_interface_id(eni.as_str());
        let answer = request.set_private_ip_addresses(Some(addresses)).send().await;
        answer.map(drop).map_err(|error| failed(ACTION, &error))
    }

    async fn detach_interface(&self, attachment: &AttachmentId) -> Ec2Result<()> {
        const ACTION: &str = "DetachNetworkInterface";
        self.throttle.wait(ACTION).await;
        let answer = self.client.detach_network_interface().attachment_id(attachment.as_str()).send().await;
        answer.map(drop).map_err(|error| failed(ACTION, &error))
    }

    async fn delete_interface(&self, eni: &EniId) -> Ec2Result<()> {
        const ACTION: &str = "DeleteNetworkInterface";
        self.throttle.wait(ACTION).await;
        let answer = self.client.delete_network_interface().network_interface_id(eni.as_str()).send().await;
        answer.map(drop).map_err(|error| failed(ACTION, &error))
    }
}

/// What a failed call means: refused, or nobody knows.
fn failed<E, R>(action: &'static str, error: &SdkError<E, R>) -> Ec2Error
where
    E: ProvideErrorMetadata + std::error::Error + 'static,
    R: std::fmt::Debug + 'static,
{
    if let Some(code) = error.code().filter(|code| !class::leaves_the_outcome_open(code)) {
        let message = error.message().unwrap_or("no message").to_owned();
        return Ec2Error::Refused { action, class: class::class(code), code: code.to_owned(), message };
    }
    let reason = chain(error);
    if never_sent(error) {
        return Ec2Error::Refused {
            action,
            class: RefusalClass::TryLater,
            code: "NotSent".to_owned(),
            message: reason,
        };
    }
    Ec2Error::Unknown { action, reason }
}

/// Whether the request cannot have reached EC2: it could not be built (no credentials), or nobody was connected to.
fn never_sent<E, R>(error: &SdkError<E, R>) -> bool {
    let SdkError::DispatchFailure(failure) = error else {
        return matches!(error, SdkError::ConstructionFailure(_));
    };
    let refused = failure.as_connector_error().is_some_and(|error| {
        std::iter::successors(std::error::Error::source(error), |error| error.source())
            .filter_map(|error| error.downcast_ref::<std::io::Error>())
            .any(|error| error.kind() == std::io::ErrorKind::ConnectionRefused)
    });
    failure.is_user() || refused
}

fn empty(action: &'static str) -> Ec2Error {
    Ec2Error::Unknown { action, reason: "the answer is empty".to_owned() }
}

fn unreadable(action: &'static str, error: &dyn std::error::Error) -> Ec2Error {
    Ec2Error::Unknown { action, reason: error.to_string() }
}

fn chain(error: &dyn std::error::Error) -> String {
    let texts: Vec<_> = std::iter::successors(Some(error), |error| error.source()).map(ToString::to_string).collect();
    texts.join(": ")
}
