//! The instance metadata service, version 2, through the SDK's client.

use std::time::Duration;

use aws_config::{imds::Client, provider_config::ProviderConfig};
use ipam_core::ports::{Imds, ImdsError, NodeIdentity};

use crate::{convert, http_client};

/// How long one request may take. The service is on the same machine: what takes longer does not come.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(500);
const READ_TIMEOUT: Duration = Duration::from_secs(1);

/// The metadata service. Its address can be changed with `AWS_EC2_METADATA_SERVICE_ENDPOINT`.
#[derive(Debug)]
pub struct AwsImds {
    client: Client,
}

impl AwsImds {
    /// Prepares the client; nothing is sent yet.
    #[must_use]
    pub fn new() -> Self {
        let config = ProviderConfig::default().with_http_client(http_client());
        let client = Client::builder()
            .configure(&config)
            .connect_timeout(CONNECT_TIMEOUT)
            .read_timeout(READ_TIMEOUT)
            // The daemon tries again by itself, and says so while it does.
            .max_attempts(1)
            .build();
        Self { client }
    }

    async fn text(&self, path: &str) -> Result<String, ImdsError> {
        let full = format!("/latest/{path}");
        match self.client.get(&full).await {
            Ok(value) => Ok(value.as_ref().trim().to_owned()),
            Err(error) => {
                let texts: Vec<_> =
                    std::iter::successors(Some(&error as &dyn std::error::Error), |error| error.source())
                        .map(ToString::to_string)
                        .collect();
                Err(ImdsError { path: full, reason: texts.join(": ") })
            }
        }
    }

    async fn value<T>(&self, path: &str) -> Result<T, ImdsError>
    where
        T: std::str::FromStr<Err: std::fmt::Display>,
    {
        let text = self.text(path).await?;
        text.parse().map_err(|error: T::Err| ImdsError { path: format!("/latest/{path}"), reason: error.to_string() })
    }

    async fn lines<T>(&self, path: &str, read: impl Fn(&str) -> Option<T>) -> Result<Vec<T>, ImdsError> {
        let text = self.text(path).await?;
        let values: Option<Vec<T>> = text.lines().map(str::trim).filter(|line| !line.is_empty()).map(read).collect();
        values
            .filter(|values| !values.is_empty())
            .ok_or_else(|| ImdsError { path: format!("/latest/{path}"), reason: format!("cannot be right: `{text}`") })
    }
}

impl Default for AwsImds {
    fn default() -> Self {
        Self::new()
    }
}

impl Imds for AwsImds {
    async fn identity(&self) -> Result<NodeIdentity, ImdsError> {
        let primary_mac = self.value("meta-data/mac").await?;
        let own = format!("meta-data/network/interfaces/macs/{primary_mac}");
        let mut vpc_cidrs = self.lines(&format!("{own}/vpc-ipv4-cidr-blocks"), convert::cidr).await?;
        let mut security_groups = self.lines(&format!("{own}/security-group-ids"), |line| line.parse().ok()).await?;
        vpc_cidrs.sort_unstable();
        security_groups.sort_unstable();
        Ok(NodeIdentity {
            instance: self.value("meta-data/instance-id").await?,
            instance_type: self.text("meta-data/instance-type").await?,
            region: self.text("meta-data/placement/region").await?,
            primary_mac,
            primary_eni: self.value(&format!("{own}/interface-id")).await?,
            subnet: self.value(&format!("{own}/subnet-id")).await?,
            vpc: self.value(&format!("{own}/vpc-id")).await?,
            vpc_cidrs,
            security_groups,
        })
    }
}
