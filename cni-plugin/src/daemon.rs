//! The one call to ipamd. A daemon that is just restarting is waited for, within the caller's deadline.

use std::time::Duration;

use eni_proto::{
    PodNetwork,
    wire::{self, ipam_client::IpamClient},
};
use tokio::time::{Instant, sleep, timeout_at};
use tonic::{
    Code, Status,
    transport::{Channel, Endpoint},
};

use crate::{
    error::{CniError, chain, code, daemon_away, daemon_trouble},
    request::{Attachment, Config},
};

/// Pause between two tries while no daemon listens.
const RETRY: Duration = Duration::from_millis(20);
/// What an ADD may take beyond its wait for an address: the daemon answers at the end of that wait.
const ADD_MARGIN: Duration = Duration::from_secs(3);
/// How long a DEL or STATUS waits for an answer. A DEL leaves a note after that.
const SHORT: Duration = Duration::from_secs(2);

/// Asks for the attachment's network.
///
/// Repeated while the daemon is away: the same key gets the same answer.
pub(crate) async fn add(config: &Config, attachment: &Attachment, netns: &str) -> Result<PodNetwork, CniError> {
    let wait = Duration::from_secs(config.add_wait_seconds.into());
    let deadline = Instant::now() + wait + ADD_MARGIN;
    let mut last = "nobody listens".to_owned();
    loop {
        let left = deadline.saturating_duration_since(Instant::now()).saturating_sub(ADD_MARGIN);
        let request = wire::AddRequest {
            key: Some((&attachment.key).into()),
            netns: netns.to_owned(),
            pod: Some(attachment.pod.clone().into()),
            wait_milliseconds: u32::try_from(left.as_millis()).unwrap_or(u32::MAX),
        };
        let asked = async { Ok(connect(config).await?.add(request).await?.into_inner()) };
        match timeout_at(deadline, asked).await {
            Err(_) => return Err(daemon_away(&config.socket, &last)),
            Ok(Ok(reply)) => return network(reply),
            Ok(Err(status)) if may_come_back(&status) => status.message().clone_into(&mut last),
            Ok(Err(status)) => return Err(daemon_trouble(status.message())),
        }
        if Instant::now() + RETRY >= deadline {
            return Err(daemon_away(&config.socket, &last));
        }
        sleep(RETRY).await;
    }
}

/// Gives the attachment's address back. An error means that the daemon may not have heard of it.
pub(crate) async fn del(config: &Config, attachment: &Attachment) -> Result<(), String> {
    let request = wire::DelRequest { key: Some((&attachment.key).into()) };
    let asked = async { connect(config).await?.del(request).await.map(drop) };
    match timeout_at(Instant::now() + SHORT, asked).await {
        Ok(answer) => answer.map_err(|status: Status| status.message().to_owned()),
        Err(_) => Err(format!("no answer within {} s", SHORT.as_secs())),
    }
}

/// Asks whether an ADD could be served.
pub(crate) async fn status(config: &Config) -> Result<(), CniError> {
    let asked = async { connect(config).await?.status(wire::StatusRequest {}).await };
    let answer = match timeout_at(Instant::now() + SHORT, asked).await {
        Ok(answer) => answer.map_err(|status: Status| status.message().to_owned()),
        Err(_) => Err(format!("no answer within {} s", SHORT.as_secs())),
    };
    match answer.map(tonic::Response::into_inner) {
        Ok(reply) if reply.ready => Ok(()),
        Ok(reply) => {
            Err(CniError::new(code::NOT_AVAILABLE, format!("IPAM-205 ipamd is not ready: {}", reply.waiting_for), ""))
        }
        Err(reason) => Err(CniError { code: code::NOT_AVAILABLE, ..daemon_away(&config.socket, &reason) }),
    }
}

async fn connect(config: &Config) -> Result<IpamClient<Channel>, Status> {
    let endpoint =
        Endpoint::try_from(format!("unix:{}", config.socket)).map_err(|e| Status::invalid_argument(chain(&e)))?;
    let channel = endpoint.connect().await.map_err(|error| Status::unavailable(chain(&error)))?;
    Ok(IpamClient::new(channel))
}

/// Whether the daemon was away or went away, so that another try can succeed.
fn may_come_back(status: &Status) -> bool {
    matches!(status.code(), Code::Unavailable | Code::Cancelled | Code::Unknown | Code::Internal)
}

fn network(reply: wire::AddReply) -> Result<PodNetwork, CniError> {
    match reply.outcome {
        Some(wire::add_reply::Outcome::Network(network)) => {
            network.try_into().map_err(|error: eni_proto::InvalidNetwork| daemon_trouble(&error.to_string()))
        }
        Some(wire::add_reply::Outcome::Refusal(refusal)) => Err(refused(refusal)),
        None => Err(daemon_trouble("its answer is empty")),
    }
}

/// A refusal keeps the daemon's words; its code is 11 when trying again can help, else the catalogue's number.
fn refused(refusal: wire::Refusal) -> CniError {
    let own = refusal.code.strip_prefix("IPAM-").and_then(|number| number.parse().ok()).unwrap_or(code::WIRING);
    let code = if refusal.try_again { code::TRY_AGAIN } else { own };
    CniError::new(code, format!("{} {}", refusal.code, refusal.message), refusal.advice)
}
