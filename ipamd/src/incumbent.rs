//! By what one knows amazon-vpc-cni-k8s on a node.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr, TcpStream},
    os::unix::{fs::MetadataExt, net::UnixStream},
    path::Path,
    time::Duration,
};

/// CNI configuration of the AWS CNI.
pub(crate) const AWS_CNI: &str = "10-aws.conflist";
/// Where the incumbent listened before version 1.23.
const FORMER_PORT: u16 = 50051;
/// Name of its daemon's process.
const PROCESS: &str = "aws-k8s-agent";
const PATIENCE: Duration = Duration::from_millis(500);

/// By what one can see that the incumbent runs on this node; nothing when it does not.
pub(crate) fn running(checkpoint: &Path) -> Option<String> {
    let socket = checkpoint.with_file_name("ipamd.sock");
    if UnixStream::connect(&socket).is_ok() {
        return Some(format!("it answers on {}", socket.display()));
    }
    let former = SocketAddr::from((Ipv4Addr::LOCALHOST, FORMER_PORT));
    if TcpStream::connect_timeout(&former, PATIENCE).is_ok() {
        return Some(format!("it answers on {former}"));
    }
    process().map(|id| format!("process {id} is {PROCESS}"))
}

/// A process of its name in this network namespace; the container may not see the host's.
fn process() -> Option<String> {
    let network = |id: &str| fs::metadata(format!("/proc/{id}/ns/net")).map(|it| (it.dev(), it.ino())).ok();
    let own = network("self")?;
    let ids = fs::read_dir("/proc").ok()?.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let mut ids = ids.filter(|name| name.bytes().all(|byte| byte.is_ascii_digit()));
    ids.find(|id| {
        let name = fs::read_to_string(format!("/proc/{id}/comm")).unwrap_or_default();
        name.trim() == PROCESS && network(id) == Some(own)
    })
}
