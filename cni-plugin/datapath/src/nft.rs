//! Our nf_tables table over netlink: what it says ([`table`]), how it is written ([`encode`]), and the transactions on it.
//!
//! A transaction is taken as a whole or not at all, so packets never meet half of a change.

pub(crate) mod encode;
pub(crate) mod others;
mod picture;
pub(crate) mod stay;
pub(crate) mod table;

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    io,
    net::IpAddr,
};

use eni_proto::{
    EniMark,
    numbers::{NFT_POD_MAP, NFT_TABLE},
};
use netlink_sys::protocols::NETLINK_NETFILTER;
use nix::errno::Errno;

use crate::{
    Family, Netns,
    netns::NetnsId,
    nft::encode::{Change, Expression, Step},
    socket::{Message, NetlinkSocket, Refusal},
};

/// Why nf_tables could not be read or changed. Nothing of the transaction was done.
#[derive(Debug, thiserror::Error)]
pub enum NftError {
    /// The kernel refused the transaction.
    #[error("cannot {step} in nf_tables table ip eni_cni")]
    Refused {
        /// The step that it did not like.
        step: String,
        /// Why.
        source: Refusal,
    },
    /// The table, its map or the ENI's chain is not there: ipamd has not prepared this node.
    #[error("nf_tables table ip eni_cni is not prepared: {step} found no such thing")]
    NotPrepared {
        /// What was being done.
        step: String,
    },
    /// The kernel was built without nf_tables, or its module is missing.
    #[error("this kernel has no nf_tables (CONFIG_NF_TABLES), which pods' packets need")]
    Unsupported,
    /// There is no talking to the kernel.
    #[error("nf_tables socket failed")]
    Socket(#[from] io::Error),
}

pub(crate) use picture::Picture;

thread_local! {
    static KEPT: RefCell<Option<(NetnsId, Nft)>> = const { RefCell::new(None) };
}

/// Changes in one transaction: the answers must fit into the socket's receive buffer.
const BATCH: usize = 64;

/// Which pod address leaves by which ENI.
pub(crate) type PodMap = BTreeMap<IpAddr, EniMark>;

/// A connection to nf_tables of the calling thread's namespace.
#[derive(Debug)]
pub(crate) struct Nft(NetlinkSocket);

impl Nft {
    pub(crate) fn open() -> Result<Self, NftError> {
        match NetlinkSocket::open(NETLINK_NETFILTER) {
            Err(error) if error.raw_os_error() == Some(Errno::EPROTONOSUPPORT as i32) => Err(NftError::Unsupported),
            opened => Ok(Self(opened?)),
        }
    }

    /// Works with a connection that this thread keeps.
    ///
    /// For removals: when a connection closes while something removed is not freed yet, the kernel first waits until nobody can be
    /// using it, some 10 ms (`nft_rcv_nl_event`).
    pub(crate) fn with_kept<T>(work: impl FnOnce(&mut Self) -> Result<T, NftError>) -> Result<T, NftError> {
        let here = Netns::current().map_err(io::Error::other)?.id();
        let kept = KEPT.take().filter(|(netns, _)| *netns == here);
        let mut nft = kept.map_or_else(Self::open, |(_, nft)| Ok(nft))?;
        let outcome = work(&mut nft);
        if !matches!(outcome, Err(NftError::Socket(_))) {
            KEPT.set(Some((here, nft)));
        }
        outcome
    }

    /// Does all changes or none.
    pub(crate) fn commit(&mut self, changes: &[Step]) -> Result<(), NftError> {
        self.send(encode::transaction(changes, None), names(changes))
    }

    /// Does all changes or none; returns false, and has done none, when anything has changed since `generation`.
    pub(crate) fn commit_since(&mut self, generation: u32, changes: &[Step]) -> Result<bool, NftError> {
        match self.send(encode::transaction(changes, Some(generation)), names(changes)) {
            Ok(()) => Ok(true),
            Err(NftError::Refused { source, .. }) if source.errno == Errno::ERESTART => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Returns the number that grows with every transaction in this namespace.
    pub(crate) fn generation(&mut self) -> Result<u32, NftError> {
        let reply = self.0.ask(encode::generation_request())?;
        if reply.result.as_ref().is_err_and(is_unknown) {
            return Err(NftError::Unsupported);
        }
        let number = reply.data.iter().find_map(|(kind, payload)| encode::read_generation(*kind, payload));
        number.ok_or_else(|| NftError::Socket(io::Error::other("nf_tables told no generation")))
    }

    fn send(&mut self, messages: Vec<Message>, changes: impl Iterator<Item = String>) -> Result<(), NftError> {
        let replies = self.0.exchange(&messages)?;
        if replies.first().is_some_and(|border| border.result.as_ref().is_err_and(is_unknown)) {
            return Err(NftError::Unsupported);
        }
        // The first message opens the transaction; the kernel answers it only to refuse everything.
        let steps = std::iter::once("commit".to_owned()).chain(changes);
        let refused: Vec<_> =
            steps.zip(replies).filter_map(|(step, reply)| Some((step, reply.result.err()?))).collect();
        // A refused transaction leaves other messages unanswered: what was refused says more than what was ignored.
        let silent = |refusal: &Refusal| refusal.errno == Errno::ENODATA;
        let first = refused.iter().find(|(_, refusal)| !silent(refusal)).or(refused.first());
        match first.cloned() {
            None => Ok(()),
            Some((step, source)) if source.errno == Errno::ENOENT => Err(NftError::NotPrepared { step }),
            Some((step, source)) => Err(NftError::Refused { step, source }),
        }
    }

    /// As [`Nft::commit`], but it is fine when the thing to remove, or the whole table, is not there.
    pub(crate) fn commit_removal(&mut self, changes: &[Step]) -> Result<bool, NftError> {
        match self.commit(changes) {
            Ok(()) => Ok(true),
            Err(NftError::NotPrepared { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Removes our table of this family; returns false when there is none.
    ///
    /// Its hooked chains are emptied first. A packet that is on its way through them when the table goes would find the map without
    /// elements a moment before it finds the chains without rules, and be dropped. A socket that is closed waits until no packet uses
    /// what was removed over it any more (`nft_rcv_nl_event`).
    pub(crate) fn remove_table(family: Family) -> Result<bool, NftError> {
        Self::open()?.commit_removal(&table::unhook(family))?;
        Self::open()?.commit_removal(&[(family, Change::RemoveTable)])
    }

    /// Sends the pod's packets to its ENI's chain, of all its addresses in one transaction. Repeatable; replaces what an unfinished
    /// removal left behind.
    pub(crate) fn add_pod(
        &mut self,
        addresses: impl IntoIterator<Item = IpAddr>,
        mark: EniMark,
    ) -> Result<(), NftError> {
        let add = |address| (Family::of(address), Change::AddPod { address, mark });
        let adds: Vec<Step> = addresses.into_iter().map(add).collect();
        match self.commit(&adds) {
            Err(NftError::Refused { source, .. }) if matches!(source.errno, Errno::EBUSY | Errno::EEXIST) => {
                adds.into_iter().try_for_each(|add| self.replace_pod(add))
            }
            outcome => outcome,
        }
    }

    /// Removes what the address has first.
    fn replace_pod(&mut self, add: Step) -> Result<(), NftError> {
        let (family, Change::AddPod { address, .. }) = add else { return self.commit(&[add]) };
        match self.commit(&[(family, Change::RemovePod { address }), add.clone()]) {
            Err(NftError::NotPrepared { .. }) => self.commit(&[add]),
            outcome => outcome,
        }
    }

    /// Forgets the pod's address. Returns false when it was not known.
    pub(crate) fn remove_pod(&mut self, address: impl Into<IpAddr>) -> Result<bool, NftError> {
        let address = address.into();
        self.commit_removal(&[(Family::of(address), Change::RemovePod { address })])
    }

    /// Forgets the pods' addresses, 64 in one transaction unless somebody else forgets one meanwhile. Returns which were known.
    pub(crate) fn remove_pods(&mut self, addresses: &BTreeSet<IpAddr>) -> Result<BTreeSet<IpAddr>, NftError> {
        let removal = |address: &IpAddr| (Family::of(*address), Change::RemovePod { address: *address });
        let map = if addresses.len() > 1 { self.pods()? } else { None };
        let there = |address: &IpAddr| map.as_ref().is_none_or(|map| map.contains_key(address));
        let listed: Vec<IpAddr> = addresses.iter().copied().filter(there).collect();
        let mut known = BTreeSet::new();
        for part in listed.chunks(BATCH) {
            if self.commit_removal(&part.iter().map(removal).collect::<Vec<_>>())? {
                known.extend(part);
                continue;
            }
            for address in part {
                if self.remove_pod(*address)? {
                    known.insert(*address);
                }
            }
        }
        Ok(known)
    }

    /// Returns the elements of both families' maps; nothing when there is no map.
    pub(crate) fn pods(&mut self) -> Result<Option<PodMap>, NftError> {
        let mut all: Option<PodMap> = None;
        for family in Family::ALL {
            let (kind, payload) = encode::elements_request(family, NFT_TABLE, NFT_POD_MAP);
            let reply = self.0.dump(kind, &payload)?;
            match reply.result {
                Ok(()) => {
                    let found = reply.data.iter().flat_map(|(_, payload)| encode::read_elements(payload));
                    all.get_or_insert_default().extend(found);
                }
                Err(refusal) if refusal.errno == Errno::ENOENT => {}
                Err(source) => return Err(NftError::Refused { step: "list the pods' map".to_owned(), source }),
            }
        }
        Ok(all)
    }

    /// Tells whether an ENI's chain is as [`table::add_eni`] makes it.
    pub(crate) fn has_eni(&mut self, family: Family, mark: EniMark) -> Result<bool, NftError> {
        self.rules_are(family, NFT_TABLE, &encode::eni_chain(mark), &[table::set_mark(mark).to_vec()])
    }

    /// Tells whether a chain has these rules and no others.
    fn rules_are(
        &mut self,
        family: Family,
        table: &str,
        chain: &str,
        wanted: &[Vec<Expression>],
    ) -> Result<bool, NftError> {
        let (kind, payload) = encode::chain_rules_request(family, table, chain);
        let reply = self.0.dump(kind, &payload)?;
        match reply.result {
            Ok(()) => Ok(reply.data.len() == wanted.len()
                && reply
                    .data
                    .iter()
                    .zip(wanted)
                    .all(|((_, rule), wanted)| encode::has_expressions(family, rule, wanted))),
            Err(refusal) if refusal.errno == Errno::ENOENT => Ok(false),
            Err(source) => Err(NftError::Refused { step: "look at a chain".to_owned(), source }),
        }
    }

    /// Tells whether a set of networks of our table has these ranges and no others.
    fn ranges_are(&mut self, family: Family, set: &str, wanted: &[(IpAddr, IpAddr)]) -> Result<bool, NftError> {
        let (kind, payload) = encode::elements_request(family, NFT_TABLE, set);
        let reply = self.0.dump(kind, &payload)?;
        match reply.result {
            Ok(()) => {
                let borders = reply.data.iter().flat_map(|(_, payload)| encode::read_borders(payload));
                Ok(borders.collect::<BTreeSet<_>>() == encode::borders(wanted).collect())
            }
            Err(refusal) if refusal.errno == Errno::ENOENT => Ok(false),
            Err(source) => Err(NftError::Refused { step: "look at a set".to_owned(), source }),
        }
    }

    /// Tells whether our table of this family is there.
    pub(crate) fn has_table(&mut self, family: Family) -> Result<bool, NftError> {
        Ok(self.table(family, NFT_TABLE)?.is_some())
    }

    /// Looks at a table; nothing when there is none.
    pub(crate) fn table(&mut self, family: Family, table: &str) -> Result<Option<Table>, NftError> {
        let reply = self.0.ask(encode::table_request(family, table))?;
        match reply.result {
            Ok(()) => Ok(Some(Table { owned: reply.data.iter().any(|(_, payload)| encode::is_owned(payload)) })),
            Err(refusal) if refusal.errno == Errno::ENOENT => Ok(None),
            Err(source) => Err(NftError::Refused { step: "look at the table".to_owned(), source }),
        }
    }
}

fn names(changes: &[Step]) -> impl Iterator<Item = String> {
    changes.iter().map(|(_, change)| change.to_string())
}

/// What we want to know of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Table {
    /// Whether only one socket can change it.
    owned: bool,
}

/// Whether the kernel knows nobody who understands a message. Source: net/netfilter/nfnetlink.c, which says so by the first code to a
/// single message and by the second to the first one of a transaction.
fn is_unknown(refusal: &Refusal) -> bool {
    matches!(refusal.errno, Errno::EINVAL | Errno::EOPNOTSUPP)
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    /// nf_tables is subsystem 10; of 15 no kernel has heard.
    #[test]
    fn a_kernel_without_nf_tables_is_told_apart() {
        let mut socket = NetlinkSocket::open(NETLINK_NETFILTER).unwrap();
        let strange = |mut message: Message| {
            message.kind = 15 << 8;
            message
        };
        let reply = socket.ask(strange(encode::generation_request())).unwrap();
        assert!(is_unknown(&reply.result.unwrap_err()));
        let mut batch = encode::transaction(&[(Family::V4, Change::AddTable)], None);
        let subsystem_at = 2;
        batch[0].payload[subsystem_at..subsystem_at + 2].copy_from_slice(&15_u16.to_be_bytes());
        let border = socket.exchange(&batch).unwrap().remove(0);
        assert!(is_unknown(&border.result.unwrap_err()));
        assert!(Nft::open().unwrap().generation().is_ok(), "this one has it");
    }

    #[test]
    fn a_transaction_on_a_stale_view_is_not_done() {
        crate::Netns::fresh()
            .unwrap()
            .inside(|| {
                let mut nft = Nft::open().unwrap();
                let before = nft.generation().unwrap();
                assert!(nft.commit_since(before, &[(Family::V4, Change::AddTable)]).unwrap());
                assert!(!nft.commit_since(before, &[(Family::V4, Change::RemoveTable)]).unwrap());
                assert!(nft.has_table(Family::V4).unwrap());
            })
            .unwrap();
    }

    #[test]
    fn a_transaction_with_one_bad_change_is_not_done_at_all() {
        crate::Netns::fresh()
            .unwrap()
            .inside(|| {
                let mut nft = Nft::open().unwrap();
                let error = nft
                    .commit(
                        &[Change::AddTable, Change::RemoveChain { name: "none".into() }]
                            .map(|change| (Family::V4, change)),
                    )
                    .unwrap_err();
                assert_eq!(
                    error.to_string(),
                    "nf_tables table ip eni_cni is not prepared: remove chain none found no such thing"
                );
                assert!(!nft.has_table(Family::V4).unwrap());
            })
            .unwrap();
    }

    /// As many as a full node has pods, with both families.
    #[test]
    fn a_transaction_may_be_as_large_as_a_full_node_and_says_what_was_refused() {
        crate::Netns::fresh()
            .unwrap()
            .inside(|| {
                let mark = EniMark::of_device(1);
                let mut nft = Nft::open().unwrap();
                let mut changes = vec![(Family::V4, Change::AddTable), (Family::V4, Change::AddPodMap)];
                changes.extend(table::add_eni(Family::V4, mark));
                let add = |n: u32| Change::AddPod { address: Ipv4Addr::from_bits(0x0a00_0000 + n).into(), mark };
                changes.extend((0..1474).map(|n| (Family::V4, add(n))));
                nft.commit(&changes).unwrap();
                assert_eq!(nft.pods().unwrap().unwrap().len(), 1474);

                changes.insert(700, (Family::V4, Change::RemoveChain { name: "none".to_owned() }));
                let error = nft.commit(&changes).unwrap_err();
                assert!(error.to_string().contains("remove chain none"), "{error}");
                assert_eq!(nft.pods().unwrap().unwrap().len(), 1474);
            })
            .unwrap();
    }

    #[test]
    fn an_element_that_an_unfinished_removal_left_is_replaced() {
        crate::Netns::fresh()
            .unwrap()
            .inside(|| {
                let (first, second) = (EniMark::of_device(1), EniMark::of_device(2));
                let mut nft = Nft::open().unwrap();
                let mut changes = vec![(Family::V4, Change::AddTable), (Family::V4, Change::AddPodMap)];
                changes.extend([first, second].into_iter().flat_map(|mark| table::add_eni(Family::V4, mark)));
                nft.commit(&changes).unwrap();
                let address = IpAddr::from([10, 0, 1, 7]);
                for mark in [first, first, second] {
                    nft.add_pod([address], mark).unwrap();
                    assert_eq!(nft.pods().unwrap(), Some(PodMap::from([(address, mark)])));
                }
                assert!(nft.remove_pod(address).unwrap());
                assert!(!nft.remove_pod(address).unwrap());
            })
            .unwrap();
    }
}
