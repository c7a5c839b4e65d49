//! EC2 and the instance metadata service through the AWS SDK: the only crate that sees the SDK's types.
//!
//! Each method of the ports is one API call, sent once: the SDK's retries are off, because repeating an assignment after a
//! lost reply would leak addresses. What an error means is in one table ([`class`]), and whatever is not certain is unknown; how
//! often we call is in another ([`throttle`]).

#![forbid(unsafe_code)]

pub mod class;
mod convert;
mod ec2;
mod imds;
mod outcome;
pub mod throttle;
mod whole;

use std::{fmt, time::Duration};

use aws_smithy_http_client::{Builder, tls};
use aws_smithy_runtime_api::client::http::SharedHttpClient;
pub use ec2::AwsEc2;
pub use imds::AwsImds;

/// How to reach EC2. Plain values: the daemon owns its settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AwsSettings {
    /// Region, as `eu-central-1`.
    pub region: String,
    /// How long a connection may take.
    pub connect_timeout: Duration,
    /// How long a whole call may take, credentials included; after that its outcome is unknown.
    pub call_timeout: Duration,
    /// URL of the API. Absent: `AWS_ENDPOINT_URL_EC2`, `AWS_ENDPOINT_URL`, the profile, else the region's own.
    pub endpoint: Option<String>,
    /// Who signs. Absent: whoever the SDK's chain finds.
    pub access_key: Option<AccessKey>,
}

impl AwsSettings {
    /// The settings for a region with the usual limits.
    #[must_use]
    pub fn for_region(region: &str) -> Self {
        Self {
            region: region.to_owned(),
            connect_timeout: Duration::from_secs(3),
            call_timeout: Duration::from_secs(10),
            endpoint: None,
            access_key: None,
        }
    }
}

/// A fixed access key, as emulators of EC2 take it.
#[derive(Clone, PartialEq, Eq)]
pub struct AccessKey {
    /// Its id.
    pub id: String,
    /// Its secret.
    pub secret: String,
}

impl fmt::Debug for AccessKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AccessKey").field("id", &self.id).finish_non_exhaustive()
    }
}

/// The HTTP client for EC2: TLS by rustls with ring, trusting what the system trusts; plain HTTP where the endpoint says so.
fn http_client() -> SharedHttpClient {
    Builder::new().tls_provider(tls::Provider::Rustls(tls::rustls_provider::CryptoMode::Ring)).build_https()
}
