//! Our nf_tables table over netlink: what it says ([`table`]), how it is written ([`encode`]), and the transactions on it.
//!
//! A transaction is taken as a whole or not at all, so packets never meet half of a change.

pub(crate) mod encode;
pub(crate) mod table;

use std::{collections::BTreeMap, io, net::Ipv4Addr};

use eni_proto::{
    EniMark,
    numbers::{NFT_POD_MAP, NFT_TABLE},
};
use netlink_sys::protocols::NETLINK_NETFILTER;
use nix::errno::Errno;

use crate::{
    nft::encode::Change,
    socket::{NetlinkSocket, Refusal},
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
    /// There is no talking to the kernel.
    #[error("nf_tables socket failed")]
    Socket(#[from] io::Error),
}

/// Which pod address leaves by which ENI.
pub(crate) type PodMap = BTreeMap<Ipv4Addr, EniMark>;

/// A connection to nf_tables of the calling thread's namespace.
#[derive(Debug)]
pub(crate) struct Nft(NetlinkSocket);

impl Nft {
    pub(crate) fn open() -> Result<Self, NftError> {
        Ok(Self(NetlinkSocket::open(NETLINK_NETFILTER)?))
    }

    /// Does all changes or none.
    pub(crate) fn commit(&mut self, changes: &[Change]) -> Result<(), NftError> {
        let replies = self.0.exchange(&encode::transaction(changes))?;
        // The first message opens the transaction; the kernel answers it only to refuse everything.
        let steps = std::iter::once("commit".to_owned()).chain(changes.iter().map(Change::to_string));
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
    pub(crate) fn commit_removal(&mut self, changes: &[Change]) -> Result<bool, NftError> {
        match self.commit(changes) {
            Ok(()) => Ok(true),
            Err(NftError::NotPrepared { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Sends the pod's packets to its ENI's chain. Repeatable; replaces what an unfinished removal left behind.
    pub(crate) fn add_pod(&mut self, address: Ipv4Addr, mark: EniMark) -> Result<(), NftError> {
        let add = Change::AddPod { address, mark };
        match self.commit(std::slice::from_ref(&add)) {
            Err(NftError::Refused { source, .. }) if matches!(source.errno, Errno::EBUSY | Errno::EEXIST) => {
                self.commit(&[Change::RemovePod { address }, add])
            }
            outcome => outcome,
        }
    }

    /// Forgets the pod's address. Returns false when it was not known.
    pub(crate) fn remove_pod(&mut self, address: Ipv4Addr) -> Result<bool, NftError> {
        self.commit_removal(&[Change::RemovePod { address }])
    }

    /// Returns the map's elements; nothing when there is no map.
    pub(crate) fn pods(&mut self) -> Result<Option<PodMap>, NftError> {
        let (kind, payload) = encode::elements_request(NFT_TABLE, NFT_POD_MAP);
        let reply = self.0.dump(kind, &payload)?;
        match reply.result {
            Ok(()) => Ok(Some(reply.data.iter().flat_map(|(_, payload)| encode::read_elements(payload)).collect())),
            Err(refusal) if refusal.errno == Errno::ENOENT => Ok(None),
            Err(source) => Err(NftError::Refused { step: "list the pods' map".to_owned(), source }),
        }
    }

    /// Tells whether our table is there.
    pub(crate) fn has_table(&mut self) -> Result<bool, NftError> {
        let reply = self.0.ask(encode::table_request(NFT_TABLE))?;
        match reply.result {
            Ok(()) => Ok(true),
            Err(refusal) if refusal.errno == Errno::ENOENT => Ok(false),
            Err(source) => Err(NftError::Refused { step: "look at the table".to_owned(), source }),
        }
    }
}
