//! How the pool stands: for the Status call, and for people who ask `ipamd status`.

use std::{path::Path, process::ExitCode};

use eni_proto::wire::{self, ipam_client::IpamClient};
use ipam_core::engine::EngineStatus;

/// Whether the pool works. A full node is ready: it works, and telling the runtime otherwise would make Kubernetes move its pods away.
pub(crate) const fn is_ready(status: &EngineStatus) -> bool {
    status.free + status.in_flight + status.leased + status.cooling > 0
}

/// The answer to a Status call.
pub(crate) fn reply(status: &EngineStatus) -> wire::StatusReply {
    wire::StatusReply {
        ready: is_ready(status),
        waiting_for: status.waiting.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "),
        free: status.free,
        leased: status.leased,
        cooling: status.cooling,
    }
}

/// Asks the daemon behind `socket` and prints its answer.
#[allow(clippy::print_stdout, clippy::print_stderr, reason = "a command for people")]
pub(crate) async fn show(socket: &Path, json: bool) -> ExitCode {
    let status = match ask(socket).await {
        Ok(status) => status,
        Err(reason) => {
            eprintln!("ipamd: no daemon answers on {}: {reason}. Is `ipamd serve` running?", socket.display());
            return ExitCode::FAILURE;
        }
    };
    if json {
        let object = serde_json::json!({
            "ready": status.ready, "waiting_for": status.waiting_for,
            "free": status.free, "leased": status.leased, "cooling": status.cooling,
        });
        println!("{object}");
    } else {
        println!("ready    {}", if status.ready { "yes" } else { "no" });
        println!("free     {}\nleased   {}\ncooling  {}", status.free, status.leased, status.cooling);
        if !status.waiting_for.is_empty() {
            println!("waiting  {}", status.waiting_for);
        }
    }
    ExitCode::SUCCESS
}

async fn ask(socket: &Path) -> Result<wire::StatusReply, String> {
    let endpoint = tonic::transport::Endpoint::try_from(format!("unix:{}", socket.display()));
    let channel =
        endpoint.map_err(|error| error.to_string())?.connect().await.map_err(|e| crate::reconcile::chain(&e))?;
    let reply = IpamClient::new(channel).status(wire::StatusRequest {}).await.map_err(|status| status.to_string())?;
    Ok(reply.into_inner())
}
