//! What the network-policy agent of amazon-vpc-cni-k8s asks of its CNI when it starts: over a socket of its own, in the folder that it
//! shares with us. Pods are told to it by the plugin.

use std::path::PathBuf;

use eni_proto::policy::{
    CONFIG_SOCKET, ConfigReply, ConfigRequest, Mode,
    config_server_backend_server::{ConfigServerBackend, ConfigServerBackendServer},
};
use tokio_stream::wrappers::UnixListenerStream;
use tonic::{Request, Response, Status, transport::server::Server};

use crate::{
    reconcile::{Handle, chain},
    server,
};

/// How network policies are put into effect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PolicyAgent {
    /// `NETWORK_POLICY_ENFORCING_MODE`: what a pod may do until its policies are in place.
    pub(crate) mode: Mode,
    /// `IPAMD_POLICY_AGENT_DIR`: folder of the agent's socket and of ours for it.
    pub(crate) folder: PathBuf,
}

/// Answers the agent for as long as the daemon runs. `several_cards`: pods may have an interface on each network card.
///
/// Without it pods are served all the same: an agent that gets no answer ends, and starts again.
pub(crate) async fn serve(agent: PolicyAgent, several_cards: bool, handle: Handle) {
    let socket = agent.folder.join(CONFIG_SOCKET);
    let listener = match server::listen(&socket) {
        Ok(listener) => listener,
        Err(error) => {
            tracing::error!(error = %chain(&error), "the network-policy agent cannot ask for its configuration, and will not start");
            return;
        }
    };
    tracing::info!(socket = %socket.display(), mode = agent.mode.as_str(), "the network-policy agent is told of pods");
    let service = Service { mode: agent.mode, several_cards, handle };
    let service = ConfigServerBackendServer::with_interceptor(service, server::check_peer);
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
        Ok(Response::new(ConfigReply {
            mode: self.mode.as_str().to_owned(),
            several_cards: self.several_cards,
            node_ipv4: primary.map(|interface| interface.primary.to_string()).unwrap_or_default(),
            node_ipv6: String::new(),
            instance_id: view.node.instance.to_string(),
            region: view.node.region.clone(),
        }))
    }
}
