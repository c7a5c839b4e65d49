//! The instance metadata service, version 2, over any source of metadata.
//!
//! The source decides what is shown: the simulated cloud ([`crate::SimInstance`]), or a description of another cloud that has no
//! metadata service of its own. The host decides where it listens: [`router`] is plain axum, and [`serve`] takes a
//! listener that may have been bound in another network namespace.

mod faults;
mod token;
mod tree;

use std::{net::Ipv4Addr, sync::Arc};

use axum::{
    Router,
    body::Body,
    extract::State,
    http::{HeaderMap, Method, StatusCode, Uri, header},
    response::{IntoResponse, Response},
};
use ipam_core::{MacAddress, Moment};

pub use self::faults::{MetadataEffect, MetadataFault, MetadataFaults};
use self::token::Tokens;
use crate::clock;

/// What a metadata service shows of one instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InstanceMetadata {
    /// `instance-id`.
    pub instance_id: String,
    /// `instance-type`.
    pub instance_type: String,
    /// `ami-id`.
    pub image_id: String,
    /// `accountId` of the identity document.
    pub account: String,
    /// `placement/region`.
    pub region: String,
    /// `placement/availability-zone`.
    pub availability_zone: String,
    /// `local-ipv4`: primary address of the primary ENI.
    pub local_ipv4: Ipv4Addr,
    /// `mac`: that of the primary ENI.
    pub mac: MacAddress,
    /// `network/interfaces/macs/`: the ENIs that the instance sees, the primary included.
    pub interfaces: Vec<InterfaceMetadata>,
    /// MACs of ENIs that have left but are still listed: their keys are not there.
    pub ghosts: Vec<MacAddress>,
}

/// What a metadata service shows of one ENI.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InterfaceMetadata {
    /// The name of its directory.
    pub mac: MacAddress,
    /// `interface-id`.
    pub interface_id: String,
    /// `device-number`.
    pub device_number: u8,
    /// `network-card`.
    pub network_card: u8,
    /// `subnet-id`.
    pub subnet_id: String,
    /// `vpc-id`.
    pub vpc_id: String,
    /// `owner-id`.
    pub owner_id: String,
    /// `security-group-ids`.
    pub security_group_ids: Vec<String>,
    /// `security-groups`: names.
    pub security_groups: Vec<String>,
    /// `local-ipv4s`: the primary first.
    pub local_ipv4s: Vec<Ipv4Addr>,
    /// `ipv4-prefix`, which is not there when it is empty.
    pub ipv4_prefixes: Vec<String>,
    /// `subnet-ipv4-cidr-block`.
    pub subnet_ipv4_cidr_block: String,
    /// `vpc-ipv4-cidr-block` (the first) and `vpc-ipv4-cidr-blocks`.
    pub vpc_ipv4_cidr_blocks: Vec<String>,
    /// What there is of IPv6.
    pub ipv6: Ipv6Metadata,
}

/// What a metadata service shows of an ENI's IPv6. What is empty is not there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ipv6Metadata {
    /// `ipv6s`.
    pub ipv6s: Vec<String>,
    /// `ipv6-prefix`.
    pub prefixes: Vec<String>,
    /// `subnet-ipv6-cidr-blocks`.
    pub subnet_cidr_blocks: Vec<String>,
    /// `vpc-ipv6-cidr-blocks`.
    pub vpc_cidr_blocks: Vec<String>,
}

/// Where a metadata service takes its answers from.
pub trait MetadataSource: Send + Sync + 'static {
    /// What it shows at `now`, the wall clock's time; a source with a clock of its own ignores it. Absent: nothing yet.
    fn metadata(&self, now: Moment) -> Option<InstanceMetadata>;
}

impl<S: MetadataSource + ?Sized> MetadataSource for Arc<S> {
    fn metadata(&self, now: Moment) -> Option<InstanceMetadata> {
        (**self).metadata(now)
    }
}

struct Service<S> {
    source: S,
    tokens: Tokens,
    faults: MetadataFaults,
}

/// Returns the service as a router that answers every path.
pub fn router(source: impl MetadataSource) -> Router {
    router_with(source, MetadataFaults::default())
}

/// The same for a service that can be made to fail, also while it is asked.
pub fn router_with(source: impl MetadataSource, faults: MetadataFaults) -> Router {
    Router::new().fallback(answer).with_state(Arc::new(Service { source, tokens: Tokens::default(), faults }))
}

/// Serves until the listener fails; dropping the future ends it.
///
/// # Errors
/// When the listener cannot be used.
pub async fn serve(listener: tokio::net::TcpListener, router: Router) -> std::io::Result<()> {
    axum::serve(listener, router).await
}

const TOKEN_HEADER: &str = "x-aws-ec2-metadata-token";
const TTL_HEADER: &str = "x-aws-ec2-metadata-token-ttl-seconds";

async fn answer<S: MetadataSource>(
    State(service): State<Arc<Service<S>>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
) -> Response {
    let (path, right) = (uri.path(), service.right_answer(&method, uri.path(), &headers));
    match service.faults.strike(path) {
        None => right,
        Some(MetadataEffect::Status(status)) => {
            StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR).into_response()
        }
        Some(MetadataEffect::Text(text)) => (right.status(), text).into_response(),
        Some(MetadataEffect::Half) => half(right, false).await,
        Some(MetadataEffect::BrokenOff) => half(right, true).await,
        Some(MetadataEffect::Silent) => std::future::pending().await,
    }
}

/// The first half of an answer, which says of itself whether it is whole.
async fn half(answer: Response, broken: bool) -> Response {
    let status = answer.status();
    let text = axum::body::to_bytes(answer.into_body(), usize::MAX).await.unwrap_or_default();
    let half = text.slice(..text.len() / 2);
    if !broken {
        return (status, half).into_response();
    }
    let cut = std::io::Error::new(std::io::ErrorKind::ConnectionReset, "cut on demand");
    Response::new(Body::from_stream(tokio_stream::iter([Ok(half), Err(cut)])))
}

impl<S: MetadataSource> Service<S> {
    fn right_answer(&self, method: &Method, path: &str, headers: &HeaderMap) -> Response {
        let now = clock::wall_now();
        if path == "/latest/api/token" {
            return if *method == Method::PUT {
                self.give_token(headers, now)
            } else {
                StatusCode::METHOD_NOT_ALLOWED.into_response()
            };
        }
        if *method != Method::GET && *method != Method::HEAD {
            return StatusCode::METHOD_NOT_ALLOWED.into_response();
        }
        let token = headers.get(TOKEN_HEADER).and_then(|value| value.to_str().ok());
        if !token.is_some_and(|token| self.tokens.is_valid(token, now)) {
            return StatusCode::UNAUTHORIZED.into_response();
        }
        match self.source.metadata(now).and_then(|metadata| tree::Tree::of(&metadata, now).get(path)) {
            Some(text) => ([(header::CONTENT_TYPE, "text/plain")], text).into_response(),
            None => StatusCode::NOT_FOUND.into_response(),
        }
    }
}

impl<S> Service<S> {
    fn give_token(&self, headers: &HeaderMap, now: Moment) -> Response {
        // A request that came through a proxy gets no token: that is half of what version 2 is for.
        if headers.contains_key("x-forwarded-for") {
            return StatusCode::FORBIDDEN.into_response();
        }
        let ttl = headers.get(TTL_HEADER).and_then(|value| value.to_str().ok()?.parse().ok());
        match ttl.and_then(|seconds| self.tokens.give(seconds, now).map(|token| (seconds, token))) {
            Some((seconds, token)) => ([(TTL_HEADER, seconds.to_string())], token).into_response(),
            None => StatusCode::BAD_REQUEST.into_response(),
        }
    }
}
