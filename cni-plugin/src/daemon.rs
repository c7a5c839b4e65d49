//! The one call to ipamd. A daemon that is just restarting is waited for, within the caller's deadline.

use std::{future::Future, time::Duration};

use eni_proto::{
    BranchEni, InvalidNetwork, PodKey, PodNetwork,
    wire::{self, ipam_client::IpamClient},
};
use tokio::time::{Instant, sleep, timeout_at};
use tonic::{
    Code, Response, Status,
    transport::{Channel, Endpoint},
};

use crate::{
    error::{CniError, chain, code, daemon_away, daemon_silent, daemon_trouble},
    request::{Attachment, Config},
};

/// Pause before the second try while no daemon listens; it doubles up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(20);
/// A hundred waiting ADDs must not keep the node busy, and none may be late when the daemon is back.
const LONGEST_PAUSE: Duration = Duration::from_millis(160);
/// What an ADD that the daemon has taken may take beyond its wait for an address: the daemon answers at the end of that wait.
const ADD_MARGIN: Duration = Duration::from_secs(3);
/// How long a DEL, CHECK or STATUS waits for an answer. A DEL leaves a note after that.
const SHORT: Duration = Duration::from_secs(2);
/// How long a GC waits for the daemon to release what may be all of a node's leases.
const LONG: Duration = Duration::from_secs(10);

/// Why an ADD got no network.
#[derive(Debug)]
pub(crate) struct NoNetwork {
    pub(crate) error: CniError,
    /// Whether a lease may be on record all the same: the daemon was asked, and its answer is lost or makes no sense.
    pub(crate) may_be_leased: bool,
}

/// What to wire.
#[derive(Debug)]
pub(crate) struct Granted {
    /// Each interface's key and network, the attachment's own first.
    pub(crate) interfaces: Vec<(PodKey, PodNetwork)>,
    /// The branch ENI that carries the attachment's own. Absent: an ENI of the node does.
    pub(crate) branch: Option<BranchEni>,
}

/// Asks for the attachment's network, and those of the interfaces that come with it.
///
/// Repeated while the daemon is away: the same key gets the same answer.
pub(crate) async fn add(config: &Config, attachment: &Attachment, netns: &str) -> Result<Granted, NoNetwork> {
    let wait = Duration::from_secs(config.add_wait_seconds.into());
    let patience = Instant::now() + wait;
    let deadline = patience + ADD_MARGIN;
    let mut last = "nobody listens".to_owned();
    let mut asked = false;
    let mut pause = FIRST_PAUSE;
    loop {
        let left = patience.saturating_duration_since(Instant::now());
        let request = wire::AddRequest {
            key: Some((&attachment.key).into()),
            netns: netns.to_owned(),
            pod: Some(attachment.pod.clone().into()),
            wait_milliseconds: u32::try_from(left.as_millis()).unwrap_or(u32::MAX),
            multi_nic: attachment.multi_nic,
        };
        let mut listens = false;
        let attempt = async {
            let mut client = connect(config).await?;
            listens = true;
            client.add(request).await
        };
        let answer = timeout_at(deadline, attempt).await;
        asked |= listens;
        let (error, over) = match answer {
            Ok(Ok(reply)) => return granted(&attachment.key, reply.into_inner()),
            Ok(Err(status)) if may_come_back(&status) => {
                status.message().clone_into(&mut last);
                (daemon_away(&config.socket, &last), Instant::now() + pause >= patience)
            }
            Ok(Err(status)) => (daemon_trouble(status.message()), true),
            Err(_) if listens => (daemon_silent(&config.socket, wait + ADD_MARGIN), true),
            Err(_) => (daemon_away(&config.socket, &last), true),
        };
        if over {
            return Err(NoNetwork { error, may_be_leased: asked });
        }
        sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// Gives the attachment's address back, and says whether a link is left. Returns whether the daemon will remove that.
///
/// An error means that the daemon may not have heard of it.
pub(crate) async fn del(config: &Config, key: &PodKey, link_left: bool) -> Result<bool, String> {
    let request = wire::DelRequest { key: Some(key.into()), link_left };
    let asked = async { connect(config).await?.del(request).await };
    soon(SHORT, asked).await.map(|reply| reply.removes_left)
}

/// Asks what the daemon has on record for the attachment; nothing when there is no lease.
pub(crate) async fn lease(config: &Config, key: &PodKey) -> Result<Option<PodNetwork>, CniError> {
    let request = wire::CheckRequest { key: Some(key.into()) };
    let asked = async { connect(config).await?.check(request).await };
    let reply = soon(SHORT, asked).await.map_err(|reason| daemon_away(&config.socket, &reason))?;
    let network = reply.network.map(TryInto::try_into).transpose();
    network.map_err(|error: InvalidNetwork| daemon_trouble(&error.to_string()))
}

/// Has the daemon release every lease of the network that is not `valid`. An error means that it may not have done all of it.
pub(crate) async fn gc(config: &Config, valid: &[PodKey]) -> Result<u32, String> {
    let request = wire::GcRequest { network: config.name.clone(), valid: valid.iter().map(Into::into).collect() };
    let asked = async { connect(config).await?.gc(request).await };
    soon(LONG, asked).await.map(|reply| reply.released)
}

/// Asks whether an ADD could be served.
pub(crate) async fn status(config: &Config) -> Result<(), CniError> {
    let asked = async { connect(config).await?.status(wire::StatusRequest {}).await };
    match soon(SHORT, asked).await {
        Ok(reply) if reply.ready => Ok(()),
        Ok(reply) => {
            Err(CniError::new(code::NOT_AVAILABLE, format!("IPAM-205 ipamd is not ready: {}", reply.waiting_for), ""))
        }
        Err(reason) => Err(CniError { code: code::NOT_AVAILABLE, ..daemon_away(&config.socket, &reason) }),
    }
}

/// The answer, or in words why there is none within `limit`.
async fn soon<T>(limit: Duration, asked: impl Future<Output = Result<Response<T>, Status>>) -> Result<T, String> {
    match timeout_at(Instant::now() + limit, asked).await {
        Ok(answer) => answer.map(Response::into_inner).map_err(|status| status.message().to_owned()),
        Err(_) => Err(format!("no answer within {} s", limit.as_secs())),
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

fn granted(key: &PodKey, reply: wire::AddReply) -> Result<Granted, NoNetwork> {
    let senseless = |reason: &str| NoNetwork { error: daemon_trouble(reason), may_be_leased: true };
    let checked = |network: wire::PodNetwork| {
        PodNetwork::try_from(network).map_err(|error: InvalidNetwork| senseless(&error.to_string()))
    };
    match reply.outcome {
        Some(wire::add_reply::Outcome::Network(network)) => {
            let branch = reply.branch.map(BranchEni::try_from).transpose();
            let branch = branch.map_err(|error| senseless(&error.to_string()))?;
            let mut granted = vec![(key.clone(), checked(network)?)];
            for wire::FurtherInterface { interface, network } in reply.further {
                let further = PodKey::new(key.network(), key.container_id(), &interface).ok();
                match (further.filter(|further| further.came_with(key)), network) {
                    (Some(further), Some(network)) => granted.push((further, checked(network)?)),
                    _ => return Err(senseless(&format!("its answer has a further interface `{interface}`"))),
                }
            }
            Ok(Granted { interfaces: granted, branch })
        }
        Some(wire::add_reply::Outcome::Refusal(refusal)) => {
            Err(NoNetwork { error: refused(refusal), may_be_leased: false })
        }
        None => Err(senseless("its answer is empty")),
    }
}

/// A refusal keeps the daemon's words; its code is 11 when trying again can help, else the catalogue's number.
fn refused(refusal: wire::Refusal) -> CniError {
    let number = refusal.code.strip_prefix("IPAM-").and_then(|number| number.parse().ok());
    // Below 100 are the codes of the CNI specification, which runtimes act upon.
    let own = number.filter(|number| *number >= 100).unwrap_or(code::DAEMON_TROUBLE);
    let code = if refusal.try_again { code::TRY_AGAIN } else { own };
    CniError::new(code, format!("{} {}", refusal.code, refusal.message), refusal.advice)
}
