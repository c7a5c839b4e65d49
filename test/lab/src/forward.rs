//! TCP from inside a namespace to an address outside of it, with an ear for EC2 calls.

use std::{
    collections::BTreeMap,
    net::{SocketAddr, TcpListener as StdListener},
    sync::{Arc, Mutex, PoisonError},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    task::{JoinHandle, JoinSet},
};

/// How a request of EC2's query protocol names its action.
const MARKER: &[u8] = b"Action=";
/// No action has a longer name.
const LONGEST: usize = 128;

/// The way from a node to the EC2 API. Dropping it cuts the way and every connection on it.
#[derive(Debug)]
pub struct Ec2Gate {
    calls: Arc<Mutex<BTreeMap<String, u64>>>,
    task: JoinHandle<std::io::Result<()>>,
}

impl Ec2Gate {
    /// Passes every connection to `listener` on to `target`, which is dialled from the process's own namespace.
    pub(crate) fn open(listener: StdListener, target: SocketAddr) -> Self {
        let calls = Arc::new(Mutex::new(BTreeMap::new()));
        let task = tokio::spawn(forward(listener, target, Arc::clone(&calls)));
        Self { calls, task }
    }

    /// How often the node asked for each action, whether it got an answer or not.
    #[must_use]
    pub fn calls(&self) -> BTreeMap<String, u64> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Ec2Gate {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn forward(
    listener: StdListener,
    target: SocketAddr,
    calls: Arc<Mutex<BTreeMap<String, u64>>>,
) -> std::io::Result<()> {
    let listener = TcpListener::from_std(listener)?;
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            incoming = listener.accept() => {
                let (stream, _) = incoming?;
                connections.spawn(pass(stream, target, Arc::clone(&calls)));
            }
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
        }
    }
}

/// A connection that breaks looks to both ends as a broken connection does.
async fn pass(inner: TcpStream, target: SocketAddr, calls: Arc<Mutex<BTreeMap<String, u64>>>) {
    let Ok(outer) = TcpStream::connect(target).await else { return };
    let _ = inner.set_nodelay(true);
    let _ = outer.set_nodelay(true);
    let (inner_reads, mut inner_writes) = inner.into_split();
    let (mut outer_reads, outer_writes) = outer.into_split();
    tokio::select! {
        _ = requests(inner_reads, outer_writes, &calls) => {}
        _ = copy(&mut outer_reads, &mut inner_writes) => {}
    }
}

async fn requests(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    calls: &Mutex<BTreeMap<String, u64>>,
) -> std::io::Result<()> {
    let mut chunk = vec![0; 16 * 1024];
    let mut heard = Vec::new();
    loop {
        let length = from.read(&mut chunk).await?;
        let Some(bytes) = chunk.get(..length).filter(|bytes| !bytes.is_empty()) else {
            // The client said all; its answer may still be on the way.
            to.shutdown().await?;
            return std::future::pending().await;
        };
        heard.extend_from_slice(bytes);
        for action in take_actions(&mut heard) {
            *calls.lock().unwrap_or_else(PoisonError::into_inner).entry(action).or_default() += 1;
        }
        to.write_all(bytes).await?;
    }
}

/// Takes the actions that are complete in what was heard, and keeps what may be the beginning of one.
fn take_actions(heard: &mut Vec<u8>) -> Vec<String> {
    let mut actions = Vec::new();
    let mut rest = heard.as_slice();
    while let Some(start) = rest.windows(MARKER.len()).position(|window| window == MARKER) {
        let name = rest.get(start + MARKER.len()..).unwrap_or_default();
        let Some(length) = name.iter().position(|byte| !byte.is_ascii_alphanumeric()) else {
            rest = rest.get(start..).unwrap_or_default();
            break;
        };
        let (name, after) = name.split_at(length);
        actions.push(String::from_utf8_lossy(name).into_owned());
        rest = after;
    }
    *heard = rest.get(rest.len().saturating_sub(LONGEST)..).unwrap_or_default().to_vec();
    actions
}

#[cfg(test)]
mod tests {
    use super::take_actions;

    #[test]
    fn an_action_is_heard_once_even_in_two_pieces() {
        let mut heard = b"POST / HTTP/1.1\r\n\r\nAction=Describe".to_vec();
        assert_eq!(take_actions(&mut heard), [""; 0]);
        heard.extend_from_slice(b"Vpcs&Version=2016-11-15POST / HTTP/1.1\r\n\r\nAction=CreateTags&");
        assert_eq!(take_actions(&mut heard), ["DescribeVpcs", "CreateTags"]);
        assert_eq!(take_actions(&mut heard), [""; 0]);
    }
}
