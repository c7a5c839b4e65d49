//! The calls to the agent, for both of our programs. The caller sets the limit: an agent may take any time, or be away.

use tonic::{
    Code, Response, Status,
    transport::{Channel, Endpoint},
};

use super::{DeleteRequest, EnforceRequest, Outcome, Reply, np_backend_client::NpBackendClient};
use crate::{Pod, chain};

/// A call that did not end well, and why.
pub type Trouble = (Outcome, String);

/// Has the agent that listens on the Unix socket at path `socket` put its filters onto a pod's interfaces. Repeatable.
///
/// # Errors
/// That it is away, or refused. It may have done it all the same when the connection broke.
pub async fn enforce(socket: &str, request: EnforceRequest) -> Result<(), Trouble> {
    ended(async { connect(socket).await?.enforce_np_to_pod(request).await }.await)
}

/// Has the agent that listens on the Unix socket at path `socket` forget a pod. Repeatable.
///
/// # Errors
/// As for [`enforce`].
pub async fn forget(socket: &str, pod: &Pod) -> Result<(), Trouble> {
    let request = DeleteRequest { pod_name: pod.name.clone(), pod_namespace: pod.namespace.clone() };
    ended(async { connect(socket).await?.delete_pod_np(request).await }.await)
}

async fn connect(socket: &str) -> Result<NpBackendClient<Channel>, Status> {
    let endpoint = Endpoint::try_from(format!("unix:{socket}"));
    let endpoint = endpoint.map_err(|error| Status::invalid_argument(chain(&error)))?;
    let channel = endpoint.connect().await.map_err(|error| Status::unavailable(chain(&error)))?;
    Ok(NpBackendClient::new(channel))
}

fn ended(answer: Result<Response<Reply>, Status>) -> Result<(), Trouble> {
    match answer {
        Ok(reply) if reply.get_ref().success => Ok(()),
        Ok(_) => Err((Outcome::Refused, "it says that it did not succeed".to_owned())),
        Err(status) if status.code() == Code::Unavailable => Err((Outcome::Away, status.message().to_owned())),
        Err(status) => Err((Outcome::Refused, status.message().to_owned())),
    }
}
