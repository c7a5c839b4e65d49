//! Hears what anybody changes in the kernel, and tells what may concern us. What exactly changed is not asked: the comparison finds it.

use std::{
    collections::BTreeSet,
    io::{self, PipeReader, PipeWriter},
    os::fd::AsFd,
    sync::{Arc, Mutex, PoisonError, mpsc},
    thread,
    time::Instant,
};

use eni_proto::numbers::{NFT_TABLE, ROUTE_PROTOCOL};
use netlink_sys::{
    Socket, SocketAddr,
    protocols::{NETLINK_NETFILTER, NETLINK_ROUTE},
};
use nix::{
    errno::Errno,
    libc::MSG_DONTWAIT,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::inotify::Inotify,
};

use super::{Drift, Kick};
use crate::{MacAddress, attributes, nft::stay};

// Groups and kinds of messages. Source: linux/rtnetlink.h and linux/netfilter/nfnetlink.h.
/// Links, neighbours; and of both families addresses, routes, rules, settings.
const GROUPS_ROUTE: [u32; 10] = [1, 3, 5, 7, 8, 24, 9, 11, 19, 25];
const GROUPS_NFTABLES: [u32; 1] = [7];
const LINK: [u16; 2] = [16, 17];
const ADDRESS: [u16; 2] = [20, 21];
const ROUTE: [u16; 2] = [24, 25];
const NEIGHBOUR: [u16; 2] = [28, 29];
const RULE: [u16; 2] = [32, 33];
const NETCONF: [u16; 2] = [80, 81];
const NFTABLES: u16 = 10;
const AF_INET6: u8 = 10;
const HEADER: usize = 16;
const LINK_HEADER: usize = 16;
const NFT_HEADER: usize = 4;
/// Protocol of a route, in its header.
const ROUTE_PROTOCOL_AT: usize = 5;
/// Table of a route, in its header.
const ROUTE_TABLE_AT: usize = 4;
const TABLES_OF_OTHERS: [u8; 3] = [253, 254, 255];
/// Some thousand messages. More than the kernel's default, so that a burst of others' changes seldom hides ours.
const RECEIVE_BUFFER: u32 = 1 << 20;

/// Which links' changes concern us.
#[derive(Debug, Default)]
pub(super) struct Interest {
    /// First characters of the names of pods' links.
    pub(super) prefix: String,
    /// Indexes of the links that were looked at.
    pub(super) links: BTreeSet<u32>,
    /// Those of pods among them.
    pub(super) pods: BTreeSet<u32>,
    /// Hardware addresses of the ENIs, whose links may come back.
    pub(super) enis: BTreeSet<MacAddress>,
}

/// What is listened to, on one thread that sleeps until there is something to hear.
pub(super) struct Ears {
    route: Socket,
    nftables: Socket,
    /// Kernel settings of which netlink does not tell. Absent: they cannot be listened to.
    settings: Option<Arc<Inotify>>,
    interest: Arc<Mutex<Interest>>,
    drift: Arc<Mutex<Drift>>,
}

impl Ears {
    /// Opens the sockets, in the network namespace of the calling thread.
    pub(super) fn open(
        settings: Option<&Arc<Inotify>>,
        interest: &Arc<Mutex<Interest>>,
        drift: &Arc<Mutex<Drift>>,
    ) -> io::Result<Self> {
        Ok(Self {
            route: open(NETLINK_ROUTE, &GROUPS_ROUTE)?,
            nftables: open(NETLINK_NETFILTER, &GROUPS_NFTABLES)?,
            settings: settings.cloned(),
            interest: Arc::clone(interest),
            drift: Arc::clone(drift),
        })
    }

    /// Starts to listen until the value that is returned is dropped.
    pub(super) fn start(self, kicks: mpsc::Sender<Kick>) -> io::Result<PipeWriter> {
        let (end, wanted) = io::pipe()?;
        thread::Builder::new().name("listen".to_owned()).spawn(move || self.listen(&end, &kicks))?;
        Ok(wanted)
    }

    fn listen(&self, end: &PipeReader, kicks: &mpsc::Sender<Kick>) {
        let mut buffer = Vec::with_capacity(64 * 1024);
        loop {
            let settings = self.settings.as_ref().map_or(end.as_fd(), |settings| settings.as_fd());
            let mut heard = [end.as_fd(), self.route.as_fd(), self.nftables.as_fd(), settings]
                .map(|source| PollFd::new(source, PollFlags::POLLIN));
            if poll(&mut heard, PollTimeout::NONE).is_err_and(|errno| errno != Errno::EINTR) {
                return;
            }
            let [ended, route, nftables, settings] = heard.map(|source| source.any().unwrap_or_default());
            if ended {
                return;
            }
            let changed = self.settings.as_ref().filter(|_| settings);
            let mut concerned = changed.is_some_and(|settings| settings.read_events().is_ok());
            if route {
                let interest = |kind, payload: &[u8]| {
                    concerns(&self.interest.lock().unwrap_or_else(PoisonError::into_inner), kind, payload)
                };
                concerned |= self.hears(&self.route, &interest, &mut buffer);
            }
            if nftables {
                concerned |= self.hears(&self.nftables, &concerns_table, &mut buffer);
            }
            if concerned && kicks.send(Kick::Look(Instant::now())).is_err() {
                return;
            }
        }
    }

    /// Reads one datagram; tells whether anything in it concerns us.
    fn hears(&self, socket: &Socket, concerns: &dyn Fn(u16, &[u8]) -> bool, buffer: &mut Vec<u8>) -> bool {
        buffer.clear();
        match socket.recv(buffer, MSG_DONTWAIT) {
            Ok(_) => messages(buffer).any(|(kind, payload)| concerns(kind, payload)),
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => false,
            // Messages were lost (ENOBUFS): any of them may have concerned us.
            Err(_) => {
                self.drift.lock().unwrap_or_else(PoisonError::into_inner).overruns += 1;
                true
            }
        }
    }
}

fn open(protocol: isize, groups: &[u32]) -> io::Result<Socket> {
    let mut socket = Socket::new(protocol)?;
    socket.bind(&SocketAddr::new(0, 0))?;
    groups.iter().try_for_each(|group| socket.add_membership(*group))?;
    socket.set_rx_buf_sz(RECEIVE_BUFFER)?;
    Ok(socket)
}

fn messages(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let [l0, l1, l2, l3, k0, k1, ..] = *bytes.first_chunk::<HEADER>()?;
        let length = u32::from_ne_bytes([l0, l1, l2, l3]) as usize;
        let payload = bytes.get(HEADER..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((u16::from_ne_bytes([k0, k1]), payload))
    })
}

/// What cannot be read is taken to concern us.
fn concerns(interest: &Interest, kind: u16, payload: &[u8]) -> bool {
    let known = |link: Option<u32>| link.is_none_or(|link| interest.links.contains(&link));
    let word = |at: usize| payload.get(at..).and_then(attributes::as_ne32);
    if LINK.contains(&kind) {
        let attribute = |kind| payload.get(LINK_HEADER..).and_then(|rest| attributes::find(rest, kind));
        let is_pods = attribute(3).map(attributes::as_text).is_none_or(|name| name.starts_with(&interest.prefix));
        let mac = attribute(1).and_then(|bytes| bytes.try_into().ok()).map(MacAddress);
        return known(word(4)) || is_pods || mac.is_some_and(|mac| interest.enis.contains(&mac));
    }
    if ADDRESS.contains(&kind) {
        return known(word(4));
    }
    if ROUTE.contains(&kind) {
        let is_ours = payload.get(ROUTE_PROTOCOL_AT) == Some(&ROUTE_PROTOCOL);
        return is_ours || payload.get(ROUTE_TABLE_AT).is_none_or(|table| !TABLES_OF_OTHERS.contains(table));
    }
    if NEIGHBOUR.contains(&kind) {
        // Of IPv4 the kernel learns and forgets all the time, and of ENIs too; what it knows of pods' IPv6 addresses is ours alone.
        return payload.first() == Some(&AF_INET6) && word(4).is_none_or(|link| interest.pods.contains(&link));
    }
    if NETCONF.contains(&kind) {
        // `all` and `default` have the indexes -1 and -2.
        let index = payload.get(4..).and_then(|rest| attributes::find(rest, 1)).and_then(attributes::as_ne32);
        return known(index) || index.is_some_and(|index| index >= u32::MAX - 1);
    }
    RULE.contains(&kind)
}

fn concerns_table(kind: u16, payload: &[u8]) -> bool {
    // Every message of nf_tables names its table in the first attribute, but the one that only counts transactions.
    let table = payload.get(NFT_HEADER..).and_then(|rest| attributes::find(rest, 1));
    kind >> 8 == NFTABLES && table.is_some_and(|table| [NFT_TABLE, stay::TABLE].contains(&&*attributes::as_text(table)))
}

#[cfg(test)]
mod tests {
    use nix::sys::inotify::InitFlags;

    use super::*;

    fn link(index: u32, name: &str) -> Vec<u8> {
        let mut payload = vec![0; LINK_HEADER];
        payload[4..8].copy_from_slice(&index.to_ne_bytes());
        payload.extend(attributes::Attributes::new().text(3, name).into_bytes());
        payload
    }

    fn route(table: u8, protocol: u8) -> Vec<u8> {
        let mut payload = vec![0; 12];
        (payload[ROUTE_TABLE_AT], payload[ROUTE_PROTOCOL_AT]) = (table, protocol);
        payload
    }

    fn neighbour(link: u32, family: u8) -> Vec<u8> {
        let mut payload = vec![0; 12];
        payload[0] = family;
        payload[4..8].copy_from_slice(&link.to_ne_bytes());
        payload
    }

    /// The socket has room for a few messages, and nobody reads them while links come and go.
    #[test]
    fn lost_notifications_are_counted_and_everything_is_looked_at() {
        let (drift, (kicks, inbox)) = (Arc::default(), mpsc::channel());
        let shared = Arc::clone(&drift);
        let netns = crate::Netns::fresh().unwrap();
        netns
            .inside(move || {
                let settings = Arc::new(Inotify::init(InitFlags::IN_CLOEXEC).unwrap());
                let ears = Ears::open(Some(&settings), &Arc::default(), &shared).unwrap();
                ears.route.set_rx_buf_sz(1_u32).unwrap();
                for _ in 0..10 {
                    for line in ["link add one type veth peer name two", "link del one"] {
                        assert!(std::process::Command::new("ip").args(line.split(' ')).status().unwrap().success());
                    }
                }
                let (end, wanted) = io::pipe().unwrap();
                let listener = thread::spawn(move || ears.listen(&end, &kicks));
                let kick = inbox.recv_timeout(std::time::Duration::from_secs(20));
                drop(wanted);
                listener.join().unwrap();
                assert!(matches!(kick, Ok(Kick::Look(_))), "{kick:?}");
            })
            .unwrap();
        assert!(drift.lock().unwrap().overruns > 0);
    }

    #[test]
    fn only_what_may_be_ours_is_looked_at() {
        let eni = MacAddress([2, 0, 0, 0, 0, 9]);
        let (links, enis) = (BTreeSet::from([2, 3]), BTreeSet::from([eni]));
        let interest = Interest { prefix: "eni".to_owned(), links, pods: BTreeSet::from([3]), enis };
        let back = [link(9, "ens7"), attributes::Attributes::new().bytes(1, &eni.0).into_bytes()].concat();
        for (kind, payload, wanted) in [
            (LINK[0], link(2, "eth0"), true),
            (LINK[1], link(9, "eni0123"), true),
            (LINK[0], link(9, "docker0"), false),
            (LINK[0], back, true),
            (ADDRESS[1], link(3, ""), true),
            (ADDRESS[1], link(9, ""), false),
            (ROUTE[1], route(2, 4), true),
            (ROUTE[1], route(254, ROUTE_PROTOCOL), true),
            (ROUTE[1], route(254, 3), false),
            (RULE[1], vec![], true),
            (NEIGHBOUR[1], neighbour(3, 10), true),
            (NEIGHBOUR[0], neighbour(3, 2), false),
            (NEIGHBOUR[0], neighbour(2, 10), false),
        ] {
            assert_eq!(concerns(&interest, kind, &payload), wanted, "{kind} {payload:?}");
        }
        let table = |name| [vec![0; NFT_HEADER], attributes::Attributes::new().text(1, name).into_bytes()].concat();
        assert!(concerns_table(NFTABLES << 8 | 6, &table(NFT_TABLE)));
        assert!(!concerns_table(NFTABLES << 8 | 6, &table("kube-proxy")));
    }
}
