//! One blocking netlink socket: many messages in one send, one answer for each.
//!
//! The kernel works on a request inside `sendmsg`, so all answers lie in the socket when it returns. They are fetched without
//! waiting, and a message that got none is reported as such: nothing here can hang.

use std::{cell::Cell, fmt, io};

use netlink_packet_core::{NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NLMSG_DONE, NLMSG_ERROR};
use netlink_sys::{Socket, SocketAddr};
use nix::{errno::Errno, libc};

use crate::attributes;

const HEADER: usize = 16;
/// Source: linux/netlink.h.
const NLM_F_DUMP_INTERRUPTED: u16 = 0x10;
/// Text by which the kernel explains a refusal. Source: `NLMSGERR_ATTR_MSG` in linux/netlink.h.
const ATTR_MESSAGE: u16 = 1;
/// The kernel fills at most 32 KiB at once into a dump.
const RECEIVE_BYTES: usize = 64 * 1024;
/// How often a dump that the kernel calls inconsistent is begun anew.
const DUMP_ATTEMPTS: usize = 16;

thread_local! {
    static LISTS: Cell<u64> = const { Cell::new(0) };
}

/// How often the calling thread has asked the kernel for a whole list, such as all links. An ADD never does.
#[must_use]
pub fn lists_asked() -> u64 {
    LISTS.get()
}

/// Why the kernel refused one message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The error number.
    pub errno: Errno,
    /// What the kernel says about it. Empty: nothing.
    pub hint: String,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.hint.as_str() {
            "" => write!(f, "{}", self.errno),
            hint => write!(f, "{}: {hint}", self.errno),
        }
    }
}

impl std::error::Error for Refusal {}

/// A message without its header.
#[derive(Debug, Clone)]
pub(crate) struct Message {
    pub(crate) kind: u16,
    pub(crate) flags: u16,
    pub(crate) payload: Vec<u8>,
}

/// What came back for one message.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) result: Result<(), Refusal>,
    /// Kind and payload of each message of data, in the kernel's order.
    pub(crate) data: Vec<(u16, Vec<u8>)>,
    answered: bool,
    interrupted: bool,
}

#[derive(Debug)]
pub(crate) struct NetlinkSocket {
    socket: Socket,
    sequence: u32,
    received: Vec<u8>,
}

impl NetlinkSocket {
    /// Opens a socket in the network namespace of this thread.
    pub(crate) fn open(protocol: isize) -> io::Result<Self> {
        let socket = Socket::new(protocol)?;
        socket.connect(&SocketAddr::new(0, 0))?;
        socket.set_cap_ack(true)?;
        socket.set_ext_ack(true)?;
        if protocol == netlink_sys::protocols::NETLINK_ROUTE {
            // Without this the kernel ignores every filter of a dump.
            socket.set_netlink_get_strict_chk(true)?;
        }
        Ok(Self { socket, sequence: 0, received: Vec::with_capacity(RECEIVE_BYTES) })
    }

    /// Sends all messages at once and returns one reply for each, in order.
    ///
    /// A message that asks for no acknowledgement counts as done unless the kernel refuses it.
    pub(crate) fn exchange(&mut self, messages: &[Message]) -> io::Result<Vec<Reply>> {
        let first = self.sequence.wrapping_add(1);
        let mut bytes = Vec::with_capacity(messages.iter().map(|message| message.payload.len() + HEADER + 4).sum());
        for message in messages {
            self.sequence = self.sequence.wrapping_add(1);
            encode(message, self.sequence, &mut bytes);
        }
        self.socket.send(&bytes, 0)?;

        let mut replies: Vec<Reply> = messages.iter().map(Reply::awaited).collect();
        let mut lost = None;
        while replies.iter().any(|reply| !reply.answered) {
            self.received.clear();
            match self.socket.recv(&mut self.received, libc::MSG_DONTWAIT) {
                Ok(_) => sort_answers(&self.received, first, &mut replies),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                // Answers that lie in the socket leave no room for those to the next messages.
                Err(error) if error.raw_os_error() == Some(Errno::ENOBUFS as i32) => lost = Some(error),
                Err(error) => return Err(error),
            }
        }
        lost.map_or(Ok(replies), Err)
    }

    /// Sends one message and returns its reply.
    pub(crate) fn ask(&mut self, message: Message) -> io::Result<Reply> {
        let unanswered = || io::Error::other("netlink gave no reply");
        self.exchange(&[message])?.pop().ok_or_else(unanswered)
    }

    /// Dumps, again from the start while the kernel says that the list changed meanwhile.
    pub(crate) fn dump(&mut self, kind: u16, payload: &[u8]) -> io::Result<Reply> {
        LISTS.set(LISTS.get() + 1);
        for _ in 0..DUMP_ATTEMPTS {
            let reply = self.ask(Message { kind, flags: NLM_F_DUMP, payload: payload.to_vec() })?;
            if !reply.interrupted {
                return Ok(reply);
            }
        }
        Err(io::Error::other("the list changed during each of 16 dumps"))
    }
}

impl Reply {
    fn awaited(message: &Message) -> Self {
        let answered = message.flags & (NLM_F_ACK | NLM_F_DUMP) == 0;
        let silence = Refusal { errno: Errno::ENODATA, hint: "the kernel did not answer".to_owned() };
        Self { result: if answered { Ok(()) } else { Err(silence) }, data: Vec::new(), answered, interrupted: false }
    }
}

fn encode(message: &Message, sequence: u32, bytes: &mut Vec<u8>) {
    let length = u32::try_from(HEADER + message.payload.len()).unwrap_or(u32::MAX);
    bytes.extend_from_slice(&length.to_ne_bytes());
    bytes.extend_from_slice(&message.kind.to_ne_bytes());
    bytes.extend_from_slice(&(message.flags | NLM_F_REQUEST).to_ne_bytes());
    bytes.extend_from_slice(&sequence.to_ne_bytes());
    bytes.extend_from_slice(&[0; 4]);
    bytes.extend_from_slice(&message.payload);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
}

/// Files each message of a datagram under the request that it answers; answers to earlier requests are dropped.
fn sort_answers(mut bytes: &[u8], first: u32, replies: &mut [Reply]) {
    while let Some(header) = bytes.first_chunk::<HEADER>() {
        let [l0, l1, l2, l3, k0, k1, f0, f1, s0, s1, s2, s3, ..] = *header;
        let length = u32::from_ne_bytes([l0, l1, l2, l3]) as usize;
        let Some(payload) = bytes.get(HEADER..length) else { return };
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();

        let offset = u32::from_ne_bytes([s0, s1, s2, s3]).wrapping_sub(first);
        let Some(reply) = replies.get_mut(offset as usize) else { continue };
        let flags = u16::from_ne_bytes([f0, f1]);
        reply.interrupted |= flags & NLM_F_DUMP_INTERRUPTED != 0;
        match u16::from_ne_bytes([k0, k1]) {
            NLMSG_ERROR => {
                reply.answered = true;
                // After the code comes the header of the refused message, and then the explanation.
                reply.result = outcome(payload, 4 + HEADER);
            }
            NLMSG_DONE => {
                reply.answered = true;
                reply.result = outcome(payload, 4);
            }
            kind => reply.data.push((kind, payload.to_vec())),
        }
    }
}

fn outcome(payload: &[u8], attributes_at: usize) -> Result<(), Refusal> {
    match payload.first_chunk().copied().map(i32::from_ne_bytes) {
        None | Some(0) => Ok(()),
        Some(code) => {
            let explanation = payload.get(attributes_at..).unwrap_or_default();
            let hint = attributes::find(explanation, ATTR_MESSAGE).map(attributes::as_text).unwrap_or_default();
            Err(Refusal { errno: Errno::from_raw(-code), hint })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route;

    #[test]
    fn what_is_asked_after_more_answers_than_the_socket_holds_is_answered() {
        let ask = || route::get_link("lo");
        crate::Netns::fresh()
            .unwrap()
            .inside(|| {
                let mut socket = NetlinkSocket::open(netlink_sys::protocols::NETLINK_ROUTE).unwrap();
                let error = socket.exchange(&vec![ask(); 2000]).unwrap_err();
                assert_eq!(error.raw_os_error(), Some(Errno::ENOBUFS as i32));
                assert_eq!(socket.ask(ask()).unwrap().result, Ok(()));
            })
            .unwrap();
    }
}
