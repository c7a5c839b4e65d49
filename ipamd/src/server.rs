//! The gRPC service on the Unix socket: checks each request, hands it to the loop, turns the answer into the wire's words.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use eni_proto::{PodKey, PodNetwork, Refusal, RefusalCode, wire};
use ipam_core::{Lease, Moment};
use tokio::{
    net::UnixListener,
    sync::{Notify, watch},
};
use tokio_stream::wrappers::UnixListenerStream;
use tonic::{Request, Response, Status, transport::server::Server};
use wire::ipam_server::{Ipam, IpamServer};

use crate::{
    admin::documents,
    branches,
    cards::{self, Wish},
    clock, gc,
    handle::{Handle, Stage, Stopped},
    logging, metrics,
    settings::Settings,
    socket::check_peer,
};

/// Longest wait that a caller may ask for: the runtime gives up before that.
const LONGEST_WAIT: Duration = Duration::from_secs(240);

/// Serves until the future `stop` resolves; calls under way are finished first.
///
/// ADDs that wait for an address are sent away once `hurry` is true: the plugin asks the next daemon then.
pub(crate) async fn serve(
    listener: UnixListener,
    settings: Settings,
    stage: watch::Receiver<Stage>,
    hurry: watch::Receiver<bool>,
    links_left: Arc<Notify>,
    stop: impl Future<Output = ()>,
) -> Result<(), tonic::transport::Error> {
    let service = IpamServer::with_interceptor(Service { settings, stage, hurry, links_left }, check_peer);
    Server::builder().add_service(service).serve_with_incoming_shutdown(UnixListenerStream::new(listener), stop).await
}

struct Service {
    settings: Settings,
    stage: watch::Receiver<Stage>,
    hurry: watch::Receiver<bool>,
    /// Told when a DEL has left an interface to us.
    links_left: Arc<Notify>,
}

impl Service {
    /// Resolves once nobody may be waited for any more.
    async fn must_hurry(&self) {
        // Whoever could say so is gone: then so are we, in a moment.
        drop(self.hurry.clone().wait_for(|hurry| *hurry).await);
    }

    /// Waits until the start is complete, at most until `deadline`.
    async fn handle(&self, deadline: Moment) -> Result<Handle, Refusal> {
        let mut stage = self.stage.clone();
        let serving = async {
            match stage.wait_for(|stage| matches!(stage, Stage::Serving(_))).await.as_deref() {
                Ok(Stage::Serving(handle)) => Some(handle.clone()),
                Ok(Stage::Starting(_)) | Err(_) => None,
            }
        };
        let served = served(serving, clock::sleep_until(Some(deadline))).await;
        served.ok_or_else(|| not_ready(&self.waiting_for()))
    }

    fn waiting_for(&self) -> String {
        match &*self.stage.borrow() {
            Stage::Starting(what) => what.clone(),
            Stage::Serving(_) => String::new(),
        }
    }

    fn network(&self, lease: &Lease) -> PodNetwork {
        PodNetwork {
            addresses: lease.addresses,
            eni: lease.eni.to_string(),
            eni_mark: lease.eni_mark,
            mtu: self.settings.pod_mtu,
            veth_prefix: self.settings.veth_prefix.clone(),
        }
    }

    async fn add(&self, request: wire::AddRequest) -> Result<Result<wire::AddReply, Refusal>, Status> {
        let key = checked(request.key)?;
        if request.netns.is_empty() {
            return Err(Status::invalid_argument("netns is empty"));
        }
        let wait = Duration::from_millis(request.wait_milliseconds.into()).min(LONGEST_WAIT);
        let deadline = clock::now().after(wait);
        let handle = match self.handle(deadline).await {
            Ok(handle) => handle,
            Err(refusal) => return Ok(Err(refusal)),
        };
        let wish = Wish { key, pod: request.pod.unwrap_or_default().into(), netns: request.netns, deadline };
        // As with the AWS CNI, a pod on a branch ENI has one interface.
        if let Some(enforcing) = self.settings.branches.filter(|_| wish.key.is_first()) {
            match branches::add(&handle, &self.settings, enforcing, &wish.pod).await.map_err(stopping)? {
                Ok(None) => {}
                Ok(Some(reply)) => return Ok(Ok(reply)),
                Err(refusal) => return Ok(Err(refusal)),
            }
        }
        let leases = match request.multi_nic && wish.key.is_first() {
            true if !self.settings.policy.further_cards => Err(cards::not_used(&wish.pod)),
            true => cards::add(&handle, &wish).await.map_err(stopping)?,
            false => wish.ask(&handle, wish.key.clone(), 0).await.map_err(stopping)?.map(|lease| vec![lease]),
        };
        Ok(leases.map(|leases| self.granted(&leases)))
    }

    /// The answer for these interfaces of one pod, its first one first.
    fn granted(&self, leases: &[Lease]) -> wire::AddReply {
        let mut networks = leases.iter().map(|lease| (lease.key.interface(), self.network(lease).into()));
        let outcome = networks.next().map(|(_, network)| wire::add_reply::Outcome::Network(network));
        let further = networks.map(|(interface, network)| wire::FurtherInterface {
            interface: interface.to_owned(),
            network: Some(network),
        });
        wire::AddReply { further: further.collect(), outcome, branch: None }
    }
}

/// What `serving` says, unless it is too `late`. A deadline that has just passed refuses nobody whom the daemon can serve.
async fn served<T>(serving: impl Future<Output = Option<T>>, late: impl Future<Output = ()>) -> Option<T> {
    tokio::select! {
        biased;
        served = serving => served,
        () = late => None,
    }
}

#[tonic::async_trait]
impl Ipam for Service {
    async fn add(&self, request: Request<wire::AddRequest>) -> Result<Response<wire::AddReply>, Status> {
        let answer = tokio::select! {
            answer = self.add(request.into_inner()) => answer?,
            () = self.must_hurry() => return Err(stopping(Stopped)),
        };
        Ok(Response::new(answer.unwrap_or_else(|refusal| {
            let outcome = Some(wire::add_reply::Outcome::Refusal(refusal.into()));
            wire::AddReply { outcome, ..Default::default() }
        })))
    }

    async fn del(&self, request: Request<wire::DelRequest>) -> Result<Response<wire::DelReply>, Status> {
        let wire::DelRequest { key, link_left } = request.into_inner();
        let key = checked(key)?;
        // A DEL does not wait for a start: the plugin leaves a note instead, which the start will read.
        let handle = self.handle(clock::now()).await.map_err(refused)?;
        let released = handle.del(key).await.map_err(stopping)?.map_err(refused)?;
        let of = |ipv4: bool| {
            let address = released.iter().map(|cooling| cooling.address).find(|address| address.is_ipv4() == ipv4);
            wire::text(address)
        };
        let (released_ipv4, released_ipv6) = (of(true), of(false));
        if link_left {
            self.links_left.notify_one();
        }
        Ok(Response::new(wire::DelReply { released_ipv4, released_ipv6, removes_left: link_left }))
    }

    async fn check(&self, request: Request<wire::CheckRequest>) -> Result<Response<wire::CheckReply>, Status> {
        let key = checked(request.into_inner().key)?;
        let handle = self.handle(clock::now()).await.map_err(refused)?;
        let lease = handle.lease(key).await.map_err(stopping)?;
        Ok(Response::new(wire::CheckReply { network: lease.map(|lease| self.network(&lease).into()) }))
    }

    async fn gc(&self, request: Request<wire::GcRequest>) -> Result<Response<wire::GcReply>, Status> {
        let begun = clock::now();
        let (network, valid) = checked_gc(request.into_inner())?;
        let handle = self.handle(begun).await.map_err(refused)?;
        let released = gc::collect(&handle, &network, &valid, begun).await.map_err(stopping)?.map_err(refused)?;
        // A DEL may have been killed before it told of the interface that it left.
        self.links_left.notify_one();
        Ok(Response::new(wire::GcReply { released }))
    }

    async fn show(&self, request: Request<wire::ShowRequest>) -> Result<Response<wire::ShowReply>, Status> {
        let name = request.into_inner().document;
        let handle = self.handle(clock::now()).await.map_err(refused)?;
        let view = handle.view().await.map_err(stopping)?;
        if name == "metrics" {
            return Ok(Response::new(wire::ShowReply { json: metrics::render(Some(&view)) }));
        }
        let document = documents::document(&name, &view)
            .ok_or_else(|| Status::invalid_argument(format!("give metrics, {}", documents::NAMES.join(", "))))?;
        Ok(Response::new(wire::ShowReply { json: document.to_string() }))
    }

    async fn set_log_level(
        &self,
        request: Request<wire::SetLogLevelRequest>,
    ) -> Result<Response<wire::SetLogLevelReply>, Status> {
        logging::set_level(&request.into_inner().level).map_err(Status::invalid_argument)?;
        Ok(Response::new(wire::SetLogLevelReply {}))
    }

    async fn status(&self, _: Request<wire::StatusRequest>) -> Result<Response<wire::StatusReply>, Status> {
        let handle = match self.handle(clock::now()).await {
            Ok(handle) => handle,
            Err(refusal) => {
                let waiting_for = refusal.message;
                return Ok(Response::new(wire::StatusReply { waiting_for, ..Default::default() }));
            }
        };
        let status = handle.status().await.map_err(stopping)?;
        Ok(Response::new(crate::status::reply(&status)))
    }
}

#[allow(clippy::result_large_err, reason = "the error type is tonic's")]
fn checked(key: Option<wire::PodKey>) -> Result<PodKey, Status> {
    let key = key.ok_or_else(|| Status::invalid_argument("key is absent"))?;
    key.try_into().map_err(|error: eni_proto::InvalidKey| Status::invalid_argument(error.to_string()))
}

#[allow(clippy::result_large_err, reason = "the error type is tonic's")]
fn checked_gc(request: wire::GcRequest) -> Result<(String, BTreeSet<PodKey>), Status> {
    if request.network.is_empty() {
        return Err(Status::invalid_argument("network is empty"));
    }
    // One that is not well-formed can have no lease, but the caller means something that we do not understand.
    let valid = request.valid.into_iter().map(|key| checked(Some(key))).collect::<Result<_, _>>()?;
    Ok((request.network, valid))
}

#[allow(clippy::needless_pass_by_value, reason = "used with map_err")]
fn stopping(error: Stopped) -> Status {
    Status::unavailable(error.to_string())
}

#[allow(clippy::needless_pass_by_value, reason = "used with map_err")]
fn refused(refusal: Refusal) -> Status {
    Status::unavailable(refusal.to_string())
}

fn not_ready(waiting_for: &str) -> Refusal {
    Refusal {
        code: RefusalCode::NotReady,
        message: format!("ipamd has not finished its start: {waiting_for}"),
        advice: "Nothing was given. Kubernetes will try again; if this lasts, look at the log of ipamd on this node."
            .to_owned(),
        try_again: true,
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use super::*;

    #[tokio::test]
    async fn whom_the_daemon_can_serve_is_not_refused_by_chance_for_a_deadline_that_has_just_passed() {
        // Left to chance it would be refused every other time.
        for _ in 0..100 {
            assert_eq!(served(ready(Some("handle")), ready(())).await, Some("handle"));
        }
        assert_eq!(served(pending::<Option<&str>>(), ready(())).await, None, "a start is not waited for any longer");
    }
}
