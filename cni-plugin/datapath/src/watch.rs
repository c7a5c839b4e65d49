//! Waits for hot-plugged links with the kernel's notifications; asks only once.

use std::{io, time::Duration};

use netlink_packet_core::NetlinkPayload;
use netlink_packet_route::{
    RouteNetlinkMessage,
    link::{LinkAttribute, LinkMessage},
};
use rtnetlink::{MulticastGroup, new_multicast_connection};
use tokio_stream::StreamExt;

use crate::MacAddress;

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
    #[error("cannot list the links")]
    List(#[source] Box<rtnetlink::Error>),
}

/// Waits until a link with this hardware address is there, and returns its index.
///
/// Needs a tokio runtime with I/O and time. Cancel-safe. Works on the namespace of the thread that first polls it.
///
/// # Errors
/// [`WatchError`].
pub async fn wait_for_link(mac: MacAddress, at_most: Duration) -> Result<u32, WatchError> {
    let late = |_| WatchError::Late { mac, waited_seconds: at_most.as_secs() };
    tokio::time::timeout(at_most, find_link(mac)).await.map_err(late)?
}

async fn find_link(mac: MacAddress) -> Result<u32, WatchError> {
    // First listen, then look: what appears in between is heard.
    let (connection, handle, mut news) =
        new_multicast_connection(&[MulticastGroup::Link]).map_err(WatchError::Listen)?;
    let connection = AbortOnDrop(tokio::spawn(connection));
    let mut links = handle.link().get().execute();
    while let Some(link) = links.next().await {
        let link = link.map_err(|error| WatchError::List(Box::new(error)))?;
        if has_address(&link, mac) {
            return Ok(link.header.index);
        }
    }
    while let Some((message, _)) = news.next().await {
        if let NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewLink(link)) = message.payload
            && has_address(&link, mac)
        {
            return Ok(link.header.index);
        }
    }
    drop(connection);
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
