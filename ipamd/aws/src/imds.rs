//! The instance metadata service, version 2, through the SDK's client.

mod values;

use std::{collections::BTreeMap, time::Duration};

use aws_config::{imds::Client, provider_config::ProviderConfig};
use ipam_core::{
    AttachmentId, MacAddress, SecurityGroupId,
    ports::{Attachment, Cidr4, Imds, ImdsError, Interface, InterfaceKind, NodeIdentity},
};

use self::values::{ID, NETWORK, bad, check, is_whole};
use crate::{convert, outcome::chain};

/// How long one step of one request may take. The service is on the same machine: what takes longer does not come.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(500);
const READ_TIMEOUT: Duration = Duration::from_secs(1);
/// How long one value may take, its token and one repetition (after 401 or 5xx) included.
const VALUE_TIMEOUT: Duration = Duration::from_secs(2);
/// How long all values together may take. The daemon tries again by itself, and says so while it does.
const IDENTITY_TIMEOUT: Duration = Duration::from_secs(5);
const MACS: &str = "network/interfaces/macs";

/// The metadata service. Its address can be changed with `AWS_EC2_METADATA_SERVICE_ENDPOINT`.
#[derive(Debug)]
pub struct AwsImds {
    client: Client,
}

impl AwsImds {
    /// Prepares the client; nothing is sent yet.
    #[must_use]
    pub fn new() -> Self {
        Self { client: builder().build() }
    }

    /// The same for a service at `endpoint`, as `http://127.0.0.1:1338`, whatever the environment says.
    ///
    /// # Errors
    /// When that is no URL.
    pub fn at(endpoint: &str) -> Result<Self, ImdsError> {
        let builder = builder().endpoint(endpoint);
        builder
            .map(|builder| Self { client: builder.build() })
            .map_err(|error| ImdsError { path: endpoint.to_owned(), reason: chain(&*error) })
    }

    /// Reads this node's ENIs, each with the network of its subnet: for a node that must not ask EC2.
    ///
    /// The service shows neither tags nor the kind of an ENI, so `no_manage` has no effect and every ENI with an address is
    /// taken for an ordinary one. One without an address (EFA only) and one that has left but is still listed are left out.
    ///
    /// # Errors
    /// [`ImdsError`]; also when one ENI cannot be read: without it, its addresses would look free.
    pub async fn interfaces(&self, node: &NodeIdentity) -> Result<Vec<(Interface, Cidr4)>, ImdsError> {
        tokio::time::timeout(IDENTITY_TIMEOUT, self.read_interfaces(node)).await.map_err(late)?
    }

    /// Returns the network of the subnet of an attached ENI.
    ///
    /// # Errors
    /// [`ImdsError`]; also when the ENI is not shown (yet).
    pub async fn network_of(&self, mac: MacAddress) -> Result<Cidr4, ImdsError> {
        self.network(&format!("{MACS}/{mac}/subnet-ipv4-cidr-block")).await
    }

    async fn read_interfaces(&self, node: &NodeIdentity) -> Result<Vec<(Interface, Cidr4)>, ImdsError> {
        let macs =
            self.list(&format!("{MACS}/"), "MAC addresses", |line| line.trim_end_matches('/').parse().ok()).await?;
        let mut found = Vec::new();
        for mac in macs {
            found.extend(self.read_interface(node, mac).await?);
        }
        convert::check_claims(found.iter().map(|(interface, _)| interface))
            .map_err(|error| bad(&format!("{MACS}/"), error.to_string()))?;
        Ok(found)
    }

    async fn read_interface(
        &self,
        node: &NodeIdentity,
        mac: MacAddress,
    ) -> Result<Option<(Interface, Cidr4)>, ImdsError> {
        let own = format!("{MACS}/{mac}");
        let known = self.optional(&format!("{own}/interface-id")).await?.is_some();
        if !known && self.optional(&format!("{own}/device-number")).await?.is_none() {
            // It has left, and is still listed.
            return Ok(None);
        }
        let has_address = self.optional(&format!("{own}/local-ipv4s")).await?.is_some();
        if known && !has_address && mac != node.primary_mac {
            return Ok(None);
        }
        // In EC2's order: the primary address first.
        let addresses = self.lines(&format!("{own}/local-ipv4s"), "IPv4 addresses", |line| line.parse().ok()).await?;
        let (primary, mut secondary) = (addresses.first().copied(), addresses);
        let primary = primary.ok_or_else(|| bad(&own, "no address".to_owned()))?;
        secondary.retain(|address| *address != primary);
        secondary.sort_unstable();
        let prefix = |line: &str| convert::cidr(line).filter(|cidr| cidr.prefix == 28);
        let prefixes = match self.optional(&format!("{own}/ipv4-prefix")).await? {
            Some(_) => self.list(&format!("{own}/ipv4-prefix"), "networks of /28", prefix).await?,
            None => Vec::new(),
        };
        let prefixes6 = match self.optional(&format!("{own}/ipv6-prefix")).await? {
            Some(_) => self.list(&format!("{own}/ipv6-prefix"), "networks of /80", |line| line.parse().ok()).await?,
            None => Vec::new(),
        };
        let card = self.optional(&format!("{own}/network-card")).await?;
        let attachment = Attachment {
            id: unseen_attachment(&own)?,
            instance: node.instance.clone(),
            device_index: self.value(&format!("{own}/device-number")).await?,
            // Not there where the type has but one.
            card: if card.is_some() { self.value(&format!("{own}/network-card")).await? } else { 0 },
            attached: true,
            delete_on_termination: true,
        };
        let interface = Interface {
            id: self.id(&format!("{own}/interface-id")).await?,
            mac,
            subnet: self.id(&format!("{own}/subnet-id")).await?,
            primary,
            secondary,
            prefixes,
            prefixes6,
            kind: InterfaceKind::Plain,
            security_groups: self.list(&format!("{own}/security-group-ids"), ID, group).await?,
            attachment: Some(attachment),
            tags: BTreeMap::new(),
        };
        Ok(Some((interface, self.network(&format!("{own}/subnet-ipv4-cidr-block")).await?)))
    }

    async fn read_identity(&self) -> Result<NodeIdentity, ImdsError> {
        let primary_mac = self.value("mac").await?;
        let own = format!("{MACS}/{primary_mac}");
        let identity = NodeIdentity {
            instance: self.id("instance-id").await?,
            instance_type: self.name("instance-type").await?,
            region: self.name("placement/region").await?,
            primary_mac,
            primary_eni: self.id(&format!("{own}/interface-id")).await?,
            subnet: self.id(&format!("{own}/subnet-id")).await?,
            subnet_cidr: self.network(&format!("{own}/subnet-ipv4-cidr-block")).await?,
            zone: self.name("placement/availability-zone").await?,
            vpc: self.id(&format!("{own}/vpc-id")).await?,
            vpc_cidrs: self.list(&format!("{own}/vpc-ipv4-cidr-blocks"), NETWORK, convert::cidr).await?,
            security_groups: self.list(&format!("{own}/security-group-ids"), ID, group).await?,
        };
        check(&identity, &own)?;
        Ok(identity)
    }
}

fn builder() -> aws_config::imds::client::Builder {
    // The service has no TLS, and the system's certificates would take a start tens of milliseconds.
    let http_client = aws_smithy_http_client::Builder::new().build_http();
    Client::builder()
        .configure(&ProviderConfig::default().with_http_client(http_client))
        .connect_timeout(CONNECT_TIMEOUT)
        .read_timeout(READ_TIMEOUT)
        .operation_timeout(VALUE_TIMEOUT)
        .max_attempts(2)
}

fn group(line: &str) -> Option<SecurityGroupId> {
    line.parse().ok().filter(is_whole)
}

fn late(_: tokio::time::error::Elapsed) -> ImdsError {
    let reason = format!("did not tell all that is needed within {} s", IDENTITY_TIMEOUT.as_secs());
    bad("", reason)
}

/// Stands for an attachment's id, which the service does not show; who may not ask EC2 cannot detach either.
fn unseen_attachment(path: &str) -> Result<AttachmentId, ImdsError> {
    "eni-attach-unseen"
        .parse()
        .map_err(|error: ipam_core::ids::InvalidId| ImdsError { path: path.to_owned(), reason: error.to_string() })
}

impl Default for AwsImds {
    fn default() -> Self {
        Self::new()
    }
}

impl Imds for AwsImds {
    async fn identity(&self) -> Result<NodeIdentity, ImdsError> {
        tokio::time::timeout(IDENTITY_TIMEOUT, self.read_identity()).await.map_err(late)?
    }
}
