//! Waits for hot-plugged links with the kernel's notifications; asks once, and again when some were lost.

use std::{io, time::Duration};

use netlink_packet_core::{NetlinkMessage, NetlinkPayload};
use netlink_packet_route::{
    RouteNetlinkMessage,
    link::{LinkAttribute, LinkMessage},
};
use netlink_sys::{SocketAddr, protocols::NETLINK_ROUTE};
use rtnetlink::{MulticastGroup, new_multicast_connection};
use tokio_stream::{Stream, StreamExt};

use crate::{MacAddress, ObserveError, observe, socket::NetlinkSocket};

/// A notification, and who sent it.
type News = (NetlinkMessage<RouteNetlinkMessage>, SocketAddr);

/// Why waiting for a link ended without one.
#[derive(Debug, thiserror::Error)]
pub enum WatchError {
    /// It did not appear in time.
    #[error("no link with hardware address {mac} appeared within {waited_seconds} s")]
    Late {
        /// The address.
        mac: MacAddress,
        /// How long it was waited for.
        waited_seconds: u64,
    },
    /// The kernel's notifications cannot be heard.
    #[error("cannot listen to the kernel's notifications of links")]
    Listen(#[source] io::Error),
    /// The kernel's links cannot be listed.
    #[error(transparent)]
    List(#[from] ObserveError),
}

/// Waits until a link with this hardware address is there, and returns its index.
///
/// Needs a tokio runtime with I/O and time. Cancel-safe. Works on the namespace of the threads that poll it.
///
/// # Errors
/// [`WatchError`].
pub async fn wait_for_link(mac: MacAddress, at_most: Duration) -> Result<u32, WatchError> {
    let late = |_| WatchError::Late { mac, waited_seconds: at_most.as_secs() };
    tokio::time::timeout(at_most, find_link(mac)).await.map_err(late)?
}

async fn find_link(mac: MacAddress) -> Result<u32, WatchError> {
    // First listen, then look: what appears in between is heard.
    let (connection, _handle, mut news) =
        new_multicast_connection(&[MulticastGroup::Link]).map_err(WatchError::Listen)?;
    let _connection = AbortOnDrop(tokio::spawn(connection));
    loop {
        if let Some(link) = listed(mac)? {
            return Ok(link);
        }
        if let Some(link) = heard(&mut news, mac).await? {
            return Ok(link);
        }
    }
}

/// A list is a matter of milliseconds, and is begun anew when it changes meanwhile.
fn listed(mac: MacAddress) -> Result<Option<u32>, WatchError> {
    let mut socket = NetlinkSocket::open(NETLINK_ROUTE).map_err(ObserveError::from)?;
    Ok(observe::links(&mut socket)?.iter().find(|link| link.mac == Some(mac)).map(|link| link.index))
}

/// Nothing: notifications were lost, and that of the link may have been among them.
async fn heard(news: &mut (impl Stream<Item = News> + Unpin), mac: MacAddress) -> Result<Option<u32>, WatchError> {
    while let Some((message, _)) = news.next().await {
        if let NetlinkPayload::Overrun(_) = message.payload {
            return Ok(None);
        }
        if let NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewLink(link)) = message.payload
            && has_address(&link, mac)
        {
            return Ok(Some(link.header.index));
        }
    }
    Err(WatchError::Listen(io::ErrorKind::UnexpectedEof.into()))
}

fn has_address(link: &LinkMessage, mac: MacAddress) -> bool {
    link.attributes.iter().any(|attribute| matches!(attribute, LinkAttribute::Address(bytes) if *bytes == mac.0))
}

/// Ends the task that owns the socket when nobody waits any more.
struct AbortOnDrop(tokio::task::JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}
