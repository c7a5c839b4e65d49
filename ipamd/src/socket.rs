//! Sockets in the file system, for root and our own user.

use std::{os::unix::fs::PermissionsExt, path::Path};

use tokio::net::UnixListener;
use tonic::{Request, Status, transport::server::UdsConnectInfo};

/// Why the socket could not be opened.
#[derive(Debug, thiserror::Error)]
#[error(
    "IPAM-302 the socket {path} cannot be opened; check that its folder can be written and that the path has at most 106 bytes"
)]
pub(crate) struct SocketError {
    path: String,
    source: std::io::Error,
}

/// Opens the socket for root and our own user only, in one step for whoever looks at the path: it takes the place of the
/// socket of an earlier daemon, of which the lock on the database, which the caller holds, shows that it is dead.
pub(crate) fn listen(path: &Path) -> Result<UnixListener, SocketError> {
    let failed = |source| SocketError { path: path.display().to_string(), source };
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(failed)?;
    }
    let mut unfinished = path.as_os_str().to_owned();
    unfinished.push("~");
    match std::fs::remove_file(&unfinished) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(failed(error)),
        Ok(()) | Err(_) => {}
    }
    let listener = UnixListener::bind(&unfinished).map_err(failed)?;
    std::fs::set_permissions(&unfinished, std::fs::Permissions::from_mode(0o600)).map_err(failed)?;
    std::fs::rename(&unfinished, path).map_err(failed)?;
    Ok(listener)
}

/// Lets only root and our own user in.
#[allow(clippy::result_large_err, reason = "the signature is tonic's")]
pub(crate) fn check_peer(request: Request<()>) -> Result<Request<()>, Status> {
    let uid = request.extensions().get::<UdsConnectInfo>().and_then(|info| info.peer_cred).map(|peer| peer.uid());
    let own = nix::unistd::geteuid().as_raw();
    match uid {
        Some(uid) if uid == 0 || uid == own => Ok(request),
        _ => Err(Status::permission_denied(format!(
            "IPAM-303 only uid 0 and uid {own} may use this socket; you are {uid:?}"
        ))),
    }
}
