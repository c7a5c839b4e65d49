//! The EC2 port on the real SDK.

use std::collections::BTreeMap;

use aws_config::{
    BehaviorVersion, Region, retry::RetryConfig, stalled_stream_protection::StalledStreamProtectionConfig,
    timeout::TimeoutConfig,
};
use aws_credential_types::Credentials;
use aws_sdk_ec2::{
    Client,
    error::{ProvideErrorMetadata, SdkError},
    types::{Filter, NetworkInterface, NetworkInterfaceAttachmentChanges, ResourceType, Tag, TagSpecification},
};
use eni_proto::numbers::TAG_INSTANCE;
use ipam_core::{
    AttachmentId, EniId, InstanceId, Limits, VpcId,
    ports::{Amount, Change, Ec2, Ec2Error, Ec2Result, Holdings, Interface, NewInterface, RefusalClass, Scope, Subnet},
};
use tokio::{runtime::Handle, sync::OnceCell, task::spawn_blocking};

use crate::{
    AwsSettings, convert, http_client,
    outcome::{failed, unusable},
    throttle::{Throttle, Use},
    whole::WholeAnswers,
};

const DESCRIBE: &str = "DescribeNetworkInterfaces";
/// ENIs in one answer: the most that EC2 gives.
const PAGE: i32 = 1000;
/// Many times the ENIs that one node can have; a token that leads in a circle must not hold us for ever.
const MOST_PAGES: u8 = 20;
const EMPTY: &str = "the answer is empty";

/// EC2 through the AWS SDK. Cheap to share behind an `Arc`.
#[derive(Debug)]
pub struct AwsEc2 {
    settings: AwsSettings,
    client: OnceCell<Client>,
    throttle: Throttle,
}

impl AwsEc2 {
    /// Nothing is read or sent yet: the client is made at the first call, and that looks for credentials too.
    ///
    /// What the settings leave open comes from where every AWS tool takes it. Endpoint: `AWS_ENDPOINT_URL_EC2`,
    /// `AWS_ENDPOINT_URL`, the profile. Credentials: the environment, the profile (a process included), the web identity token
    /// (IRSA), the container's endpoint (ECS, EKS Pod Identity), the metadata service; not SSO, which needs a person.
    #[must_use]
    pub fn new(settings: AwsSettings) -> Self {
        Self { settings, client: OnceCell::new(), throttle: Throttle::new() }
    }

    async fn client(&self) -> &Client {
        let make = || async {
            let (settings, runtime) = (self.settings.clone(), Handle::current());
            // All the system's certificates are read and checked for it: tens of milliseconds in which pods are served.
            let made = spawn_blocking(move || runtime.block_on(connect(settings))).await;
            match made {
                Ok(client) => client,
                // The runtime ends; or it panicked, and will here too.
                Err(_) => Box::pin(connect(self.settings.clone())).await,
            }
        };
        self.client.get_or_init(make).await
    }

    /// How this node's share of EC2's budget was used so far, by action.
    #[must_use]
    pub fn uses(&self) -> Vec<Use> {
        self.throttle.uses()
    }

    fn failed<E>(&self, action: &'static str, error: &SdkError<E>) -> Ec2Error
    where
        E: ProvideErrorMetadata + std::error::Error + 'static,
    {
        let error = failed(action, error);
        if matches!(error, Ec2Error::Refused { class: RefusalClass::SlowDown, .. }) {
            self.throttle.too_many(action);
        }
        error
    }

    async fn described(&self, filter: &str, value: &str) -> Ec2Result<Vec<NetworkInterface>> {
        let filter = Filter::builder().name(filter).values(value).build();
        let (mut found, mut next) = (Vec::new(), None);
        for _ in 0..MOST_PAGES {
            self.throttle.wait(DESCRIBE).await;
            let request = self.client().await.describe_network_interfaces().filters(filter.clone()).max_results(PAGE);
            let answer = request.set_next_token(next).send().await.map_err(|error| self.failed(DESCRIBE, &error))?;
            next = answer.next_token.filter(|token| !token.is_empty());
            found.extend(answer.network_interfaces.unwrap_or_default());
            if next.is_none() {
                return Ok(found);
            }
        }
        Err(unusable(DESCRIBE, format!("the answer goes on after {MOST_PAGES} pages")))
    }
}

async fn connect(settings: AwsSettings) -> Client {
    let timeouts = TimeoutConfig::builder()
        .connect_timeout(settings.connect_timeout)
        .operation_timeout(settings.call_timeout)
        .build();
    let mut config = aws_config::defaults(BehaviorVersion::latest())
        .region(Region::new(settings.region))
        .http_client(http_client())
        .timeout_config(timeouts)
        .retry_config(RetryConfig::disabled())
        // It would wait for 20 seconds, long after the call's own time is over.
        .stalled_stream_protection(StalledStreamProtectionConfig::disabled());
    if let Some(endpoint) = settings.endpoint {
        config = config.endpoint_url(endpoint);
    }
    if let Some(key) = settings.access_key {
        config = config.credentials_provider(Credentials::new(key.id, key.secret, None, None, "settings"));
    }
    let config = aws_sdk_ec2::config::Builder::from(&config.load().await).interceptor(WholeAnswers);
    Client::from_conf(config.build())
}

/// Reads what EC2 says of this node's ENIs, each once.
///
/// One of ours that cannot be read fails the whole description: without it, its addresses would look free. Any other
/// one must not cost us our own, so it is left out; an EFA-only ENI, which has no address, is the usual case.
fn own_interfaces(instance: &InstanceId, described: &[NetworkInterface]) -> Ec2Result<Vec<Interface>> {
    let mut found = BTreeMap::new();
    for eni in described {
        let tagged =
            eni.tag_set().iter().any(|tag| tag.key() == Some(TAG_INSTANCE) && tag.value() == Some(instance.as_str()));
        let attachment = eni.attachment().filter(|attachment| attachment.instance_id() == Some(instance.as_str()));
        let half_attached = eni.attachment().is_some_and(|one| one.instance_id().is_none());
        if !tagged && attachment.is_none() && !half_attached {
            continue;
        }
        match convert::interface(eni) {
            // To a load balancer, say.
            Ok(interface) if !tagged && interface.attachment.is_none() => {}
            Ok(interface) => drop(found.entry(interface.id.clone()).or_insert(interface)),
            // Without an index it may be the primary one.
            Err(error) if tagged || attachment.and_then(|one| one.device_index()).is_none_or(|index| index <= 0) => {
                return Err(unusable(DESCRIBE, error));
            }
            Err(error) => tracing::warn!(%error, "an interface of somebody else is left out"),
        }
    }
    convert::check_claims(found.values()).map_err(|error| unusable(DESCRIBE, error))?;
    Ok(found.into_values().collect())
}

impl AwsEc2 {
    async fn assign_prefix6(&self, eni: &EniId) -> Ec2Result<Holdings> {
        const ACTION: &str = "AssignIpv6Addresses";
        self.throttle.wait(ACTION).await;
        let request =
            self.client().await.assign_ipv6_addresses().network_interface_id(eni.as_str()).ipv6_prefix_count(1);
        let answer = request.send().await.map_err(|error| self.failed(ACTION, &error))?;
        let given = convert::assigned6(&answer).map_err(|error| unusable(ACTION, error))?;
        match given.prefixes6.len() {
            1 => Ok(given),
            told => Err(unusable(ACTION, format!("asked for 1 prefix and told of {told}; expected 1"))),
        }
    }
}

impl Ec2 for AwsEc2 {
    async fn interfaces(&self, instance: &InstanceId, scope: Scope) -> Ec2Result<Vec<Interface>> {
        let tag = format!("tag:{TAG_INSTANCE}");
        let filter = match scope {
            Scope::Attached => "attachment.instance-id",
            Scope::Tagged => &tag,
        };
        own_interfaces(instance, &self.described(filter, instance.as_str()).await?)
    }

    async fn subnets(&self, vpc: &VpcId, zone: &str) -> Ec2Result<Vec<Subnet>> {
        const ACTION: &str = "DescribeSubnets";
        let filter = |name, value: &str| Filter::builder().name(name).values(value).build();
        let filters = vec![filter("vpc-id", vpc.as_str()), filter("availability-zone", zone)];
        let (mut found, mut next) = (Vec::new(), None);
        for _ in 0..MOST_PAGES {
            self.throttle.wait(ACTION).await;
            let request = self.client().await.describe_subnets().set_filters(Some(filters.clone())).max_results(PAGE);
            let answer = request.set_next_token(next).send().await.map_err(|error| self.failed(ACTION, &error))?;
            next = answer.next_token.filter(|token| !token.is_empty());
            for subnet in answer.subnets.unwrap_or_default() {
                found.push(convert::subnet(&subnet).map_err(|error| unusable(ACTION, error))?);
            }
            if next.is_none() {
                return Ok(found);
            }
        }
        Err(unusable(ACTION, format!("the answer goes on after {MOST_PAGES} pages")))
    }

    async fn limits(&self, instance_type: &str) -> Ec2Result<Limits> {
        const ACTION: &str = "DescribeInstanceTypes";
        self.throttle.wait(ACTION).await;
        let request = self.client().await.describe_instance_types().instance_types(instance_type.into());
        let answer = request.send().await.map_err(|error| self.failed(ACTION, &error))?;
        let found = answer.instance_types().first().ok_or_else(|| unusable(ACTION, EMPTY))?;
        convert::limits(found).map_err(|error| unusable(ACTION, error))
    }

    async fn create_interface(&self, new: &NewInterface) -> Ec2Result<Interface> {
        const ACTION: &str = "CreateNetworkInterface";
        self.throttle.wait(ACTION).await;
        let tags = new.tags.iter().map(|(key, value)| Tag::builder().key(key).value(value).build()).collect();
        let groups =
            (!new.security_groups.is_empty()).then(|| new.security_groups.iter().map(ToString::to_string).collect());
        let (addresses, prefixes) = match new.amount {
            Amount::Addresses(count) => (Some(count.into()).filter(|count| *count > 0), None),
            Amount::Prefixes(count) => (None, Some(count.into()).filter(|count| *count > 0)),
            Amount::Prefix6 => (None, None),
        };
        let prefix6 = new.prefix6 || new.amount == Amount::Prefix6;
        let answer = self
            .client()
            .await
            .create_network_interface()
            .client_token(&new.token)
            .subnet_id(new.subnet.as_str())
            .set_groups(groups)
            .set_secondary_private_ip_address_count(addresses)
            .set_ipv4_prefix_count(prefixes)
            .set_ipv6_prefix_count(prefix6.then_some(1))
            .description(&new.description)
            .tag_specifications(
                TagSpecification::builder().resource_type(ResourceType::NetworkInterface).set_tags(Some(tags)).build(),
            )
            .send()
            .await;
        let answer = answer.map_err(|error| self.failed(ACTION, &error))?;
        let eni = answer.network_interface().ok_or_else(|| unusable(ACTION, EMPTY))?;
        convert::interface(eni).map_err(|error| unusable(ACTION, error))
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
            .client()
            .await
            .attach_network_interface()
            .network_interface_id(eni.as_str())
            .instance_id(instance.as_str())
            .device_index(device_index.into())
            // Older instance types refuse the parameter even where it says the default.
            .set_network_card_index((card > 0).then(|| card.into()));
        let answer = request.send().await.map_err(|error| self.failed(ACTION, &error))?;
        let id = answer.attachment_id().ok_or_else(|| unusable(ACTION, EMPTY))?;
        id.parse().map_err(|error| unusable(ACTION, error))
    }

    async fn modify_interface(&self, eni: &EniId, change: &Change) -> Ec2Result<()> {
        const ACTION: &str = "ModifyNetworkInterfaceAttribute";
        self.throttle.wait(ACTION).await;
        let request = self.client().await.modify_network_interface_attribute().network_interface_id(eni.as_str());
        let request = match change {
            Change::DeleteOnTermination(attachment) => {
                let change = NetworkInterfaceAttachmentChanges::builder().attachment_id(attachment.as_str());
                request.attachment(change.delete_on_termination(true).build())
            }
            Change::SecurityGroups(groups) => {
                request.set_groups(Some(groups.iter().map(ToString::to_string).collect()))
            }
        };
        request.send().await.map(drop).map_err(|error| self.failed(ACTION, &error))
    }

    async fn assign(&self, eni: &EniId, amount: Amount) -> Ec2Result<Holdings> {
        const ACTION: &str = "AssignPrivateIpAddresses";
        if amount == Amount::Prefix6 {
            return self.assign_prefix6(eni).await;
        }
        self.throttle.wait(ACTION).await;
        let request = self.client().await.assign_private_ip_addresses().network_interface_id(eni.as_str());
        let request = match amount {
            Amount::Addresses(count) => request.secondary_private_ip_address_count(count.into()),
            Amount::Prefixes(count) => request.ipv4_prefix_count(count.into()),
            Amount::Prefix6 => request,
        };
        let answer = request.send().await.map_err(|error| self.failed(ACTION, &error))?;
        let given = convert::assigned(&answer).map_err(|error| unusable(ACTION, error))?;
        let (told, asked) = match amount {
            Amount::Addresses(count) => (given.addresses.len(), count),
            Amount::Prefixes(count) => (given.prefixes.len(), count),
            Amount::Prefix6 => (given.prefixes6.len(), 1),
        };
        if told < usize::from(asked) {
            return Err(unusable(ACTION, format!("asked for {asked} and told of {told}; expected all or none")));
        }
        Ok(given)
    }

    async fn unassign(&self, eni: &EniId, holdings: &Holdings) -> Ec2Result<()> {
        const ACTION: &str = "UnassignPrivateIpAddresses";
        self.throttle.wait(ACTION).await;
        let texts = |things: Vec<String>| Some(things).filter(|things| !things.is_empty());
        let answer = self
            .client()
            .await
            .unassign_private_ip_addresses()
            .network_interface_id(eni.as_str())
            .set_private_ip_addresses(texts(holdings.addresses.iter().map(ToString::to_string).collect()))
            .set_ipv4_prefixes(texts(holdings.prefixes.iter().map(ToString::to_string).collect()))
            .send()
            .await;
        answer.map(drop).map_err(|error| self.failed(ACTION, &error))
    }

    async fn detach_interface(&self, attachment: &AttachmentId) -> Ec2Result<()> {
        const ACTION: &str = "DetachNetworkInterface";
        self.throttle.wait(ACTION).await;
        let answer = self.client().await.detach_network_interface().attachment_id(attachment.as_str()).send().await;
        answer.map(drop).map_err(|error| self.failed(ACTION, &error))
    }

    async fn delete_interface(&self, eni: &EniId) -> Ec2Result<()> {
        const ACTION: &str = "DeleteNetworkInterface";
        self.throttle.wait(ACTION).await;
        let answer = self.client().await.delete_network_interface().network_interface_id(eni.as_str()).send().await;
        answer.map(drop).map_err(|error| self.failed(ACTION, &error))
    }
}

#[cfg(test)]
mod tests;
