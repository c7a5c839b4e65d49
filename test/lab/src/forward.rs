//! TCP from inside a namespace to an address outside of it.

use std::net::{SocketAddr, TcpListener as StdListener};

use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinSet,
};

/// Passes every connection to `listener` on to `target`, which is dialled from the process's own namespace. Never ends.
pub(crate) async fn forward(listener: StdListener, target: SocketAddr) -> std::io::Result<()> {
    let listener = TcpListener::from_std(listener)?;
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            incoming = listener.accept() => {
                let (stream, _) = incoming?;
                connections.spawn(pass(stream, target));
            }
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
        }
    }
}

/// A connection that breaks looks to both ends as a broken connection does.
async fn pass(mut inner: TcpStream, target: SocketAddr) {
    let _ = inner.set_nodelay(true);
    if let Ok(mut outer) = TcpStream::connect(target).await {
        let _ = outer.set_nodelay(true);
        let _ = tokio::io::copy_bidirectional(&mut inner, &mut outer).await;
    }
}
