//! The daemon's part beside the network-policy agent of amazon-vpc-cni-k8s: what it asks of its CNI when it starts, over a socket of its
//! own in the folder that it shares with us, and the pods that ended without a DEL. Of all others the plugin tells it.

mod gone;

use std::net::{IpAddr, Ipv6Addr, UdpSocket};

use eni_proto::policy::{
    AGENT_SOCKET, CONFIG_SOCKET, ConfigReply, ConfigRequest, Mode,
    config_server_backend_server::{ConfigServerBackend, ConfigServerBackendServer},
};
pub(crate) use gone::gone;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::{Request, Response, Status, transport::server::Server};

use crate::{errors::chain, handle::Handle, settings::PolicyAgent, socket};

/// An address of the internet, to ask the kernel as whom the node goes there; nothing is sent to it.
const FAR_AWAY: Ipv6Addr = Ipv6Addr::new(0x2000, 0, 0, 0, 0, 0, 0, 1);

/// Answers the agent, and tells it of pods, for as long as the daemon runs. `several_cards`: pods may have an interface on each network card.
///
/// Without it pods are served all the same: an agent that gets no answer ends, and starts again.
pub(crate) async fn serve(agent: PolicyAgent, several_cards: bool, handle: Handle) {
    tokio::spawn(gone::follow(agent.folder.join(AGENT_SOCKET), handle.clone()));
    let socket = agent.folder.join(CONFIG_SOCKET);
    let listener = match socket::listen(&socket) {
        Ok(listener) => listener,
        Err(error) => {
            tracing::error!(error = %chain(&error), "the network-policy agent cannot ask for its configuration, and will not start");
            return;
        }
    };
    tracing::info!(socket = %socket.display(), mode = agent.mode.as_str(), "the network-policy agent is told of pods");
    let service = Service { mode: agent.mode, several_cards, handle };
    let service = ConfigServerBackendServer::with_interceptor(service, socket::check_peer);
    let served = Server::builder().add_service(service).serve_with_incoming(UnixListenerStream::new(listener)).await;
    if let Err(error) = served {
        tracing::error!(error = %chain(&error), "the network-policy agent gets no answers any more");
    }
}

struct Service {
    mode: Mode,
    several_cards: bool,
    handle: Handle,
}

#[tonic::async_trait]
impl ConfigServerBackend for Service {
    async fn get_network_policy_configs(&self, _: Request<ConfigRequest>) -> Result<Response<ConfigReply>, Status> {
        let view = self.handle.view().await.map_err(|error| Status::unavailable(error.to_string()))?;
        let primary = view.interfaces.iter().find(|interface| interface.id == view.node.primary_eni);
        let node_ipv6 = view.policy.families.v6().then(own_ipv6).flatten();
        if view.policy.families.v6() && node_ipv6.is_none() {
            tracing::warn!(
                "the node has no IPv6 address of its own: the network-policy agent cannot let its probes through to pods"
            );
        }
        Ok(Response::new(ConfigReply {
            mode: self.mode.as_str().to_owned(),
            several_cards: self.several_cards,
            node_ipv4: primary.map(|interface| interface.primary.to_string()).unwrap_or_default(),
            node_ipv6: node_ipv6.map(|address| address.to_string()).unwrap_or_default(),
            instance_id: view.node.instance.to_string(),
            region: view.node.region.clone(),
        }))
    }
}

/// The node's own IPv6 address, by the kernel's choice among those of its primary link, which the operating system configures: the
/// metadata service does not know which of them are in use. Absent: it has none, or no route.
fn own_ipv6() -> Option<Ipv6Addr> {
    let socket = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0)).ok()?;
    socket.connect((FAR_AWAY, 9)).ok()?;
    match socket.local_addr().ok()?.ip() {
        IpAddr::V6(address) => Some(address).filter(|address| !address.is_unicast_link_local()),
        IpAddr::V4(_) => None,
    }
}
