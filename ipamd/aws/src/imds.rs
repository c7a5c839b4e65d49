//! The instance metadata service, version 2, through the SDK's client.

use std::time::Duration;

use aws_config::{
    imds::{Client, client::error::ImdsError as SdkError},
    provider_config::ProviderConfig,
};
use ipam_core::ports::{Cidr4, Imds, ImdsError, NodeIdentity};

use crate::{convert, http_client, outcome::chain};

/// How long one step of one request may take. The service is on the same machine: what takes longer does not come.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(500);
const READ_TIMEOUT: Duration = Duration::from_secs(1);
/// How long one value may take, its token and one repetition (after 401 or 5xx) included.
const VALUE_TIMEOUT: Duration = Duration::from_secs(2);
/// How long all values together may take. The daemon tries again by itself, and says so while it does.
const IDENTITY_TIMEOUT: Duration = Duration::from_secs(5);
const ROOT: &str = "/latest/meta-data";

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

    async fn text(&self, path: &str) -> Result<String, ImdsError> {
        let path = format!("{ROOT}/{path}");
        let reason = match self.client.get(&path).await {
            Ok(value) if value.as_ref().trim().is_empty() => "is empty".to_owned(),
            Ok(value) => return Ok(value.as_ref().trim().to_owned()),
            Err(SdkError::ErrorResponse(answer)) => format!("HTTP status {}", answer.response().status().as_u16()),
            Err(error) => chain(&error),
        };
        Err(ImdsError { path, reason })
    }

    async fn value<T>(&self, path: &str) -> Result<T, ImdsError>
    where
        T: std::str::FromStr<Err: std::fmt::Display>,
    {
        let text = self.text(path).await?;
        text.parse().map_err(|error: T::Err| ImdsError { path: format!("{ROOT}/{path}"), reason: error.to_string() })
    }

    /// A value that is a name: a region, an instance type.
    async fn name(&self, path: &str) -> Result<String, ImdsError> {
        let text = self.text(path).await?;
        if text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'.') {
            return Ok(text);
        }
        Err(ImdsError { path: format!("{ROOT}/{path}"), reason: format!("`{text}` is not a name") })
    }

    async fn network(&self, path: &str) -> Result<Cidr4, ImdsError> {
        let text = self.text(path).await?;
        let bad = || ImdsError { path: format!("{ROOT}/{path}"), reason: format!("`{text}` cannot be right") };
        convert::cidr(&text).ok_or_else(bad)
    }

    /// A list with one value on each line, sorted.
    async fn list<T: Ord>(&self, path: &str, read: impl Fn(&str) -> Option<T>) -> Result<Vec<T>, ImdsError> {
        let text = self.text(path).await?;
        let read = |line: &str| {
            let bad = || ImdsError { path: format!("{ROOT}/{path}"), reason: format!("`{line}` cannot be right") };
            read(line).ok_or_else(bad)
        };
        let mut values = text.lines().map(str::trim).map(read).collect::<Result<Vec<T>, _>>()?;
        values.sort_unstable();
        Ok(values)
    }

    async fn read_identity(&self) -> Result<NodeIdentity, ImdsError> {
        let primary_mac = self.value("mac").await?;
        let own = format!("network/interfaces/macs/{primary_mac}");
        Ok(NodeIdentity {
            instance: self.value("instance-id").await?,
            instance_type: self.name("instance-type").await?,
            region: self.name("placement/region").await?,
            primary_mac,
            primary_eni: self.value(&format!("{own}/interface-id")).await?,
            subnet: self.value(&format!("{own}/subnet-id")).await?,
            subnet_cidr: self.network(&format!("{own}/subnet-ipv4-cidr-block")).await?,
            zone: self.name("placement/availability-zone").await?,
            vpc: self.value(&format!("{own}/vpc-id")).await?,
            vpc_cidrs: self.list(&format!("{own}/vpc-ipv4-cidr-blocks"), convert::cidr).await?,
            security_groups: self.list(&format!("{own}/security-group-ids"), |line| line.parse().ok()).await?,
        })
    }
}

fn builder() -> aws_config::imds::client::Builder {
    Client::builder()
        .configure(&ProviderConfig::default().with_http_client(http_client()))
        .connect_timeout(CONNECT_TIMEOUT)
        .read_timeout(READ_TIMEOUT)
        .operation_timeout(VALUE_TIMEOUT)
        .max_attempts(2)
}

impl Default for AwsImds {
    fn default() -> Self {
        Self::new()
    }
}

impl Imds for AwsImds {
    async fn identity(&self) -> Result<NodeIdentity, ImdsError> {
        let late = |_| ImdsError {
            path: ROOT.to_owned(),
            reason: format!("did not tell all that is needed within {} s", IDENTITY_TIMEOUT.as_secs()),
        };
        tokio::time::timeout(IDENTITY_TIMEOUT, self.read_identity()).await.map_err(late)?
    }
}
