//! The last gate: a second table, for when the first, a route or a rule is gone.
//!
//! ```text
//! table ip eni_cni_stay
//!   outbound  postrouting last (300)  oifname PRIMARY iifname "eni*" iifgroup != 0 fib saddr type != local  drop
//!                                     oifgroup ENI iifgroup ENI fib saddr type != local  drop
//! ```
//!
//! A packet of a secondary ENI's pod leaves by the primary ENI only as the node; and what came in by an ENI for a pod, whose route is
//! gone, leaves by no ENI again in its sender's name. The VPC would drop both, or take them for somebody else's.
//!
//! Where the kernel can (since 6.9) the table belongs to the guard's socket: `nft flush ruleset` passes it by, nobody else can delete
//! it, and it outlives the daemon. Elsewhere it is as breakable as any other, and mended as such.

use eni_proto::numbers::ENI_LINK_GROUP;
use nix::errno::Errno;

use super::{
    Nft, NftError,
    encode::{Change, Expression, Field, Hook, Step},
    table::{HOOK_POSTROUTING, Shape, came_from_pod, is_not_local, name},
};
use crate::Family;

/// Its name, in both families.
pub(crate) const TABLE: &str = "eni_cni_stay";
pub(super) const CHAIN: &str = "outbound";
const PRIORITY_LAST: i32 = 300;

/// Who may change the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Owner {
    /// Anybody with the right to change nf_tables.
    Anybody,
    /// The socket that makes it, where the kernel can do that.
    Socket,
}

/// Makes the table, unless it is there as it shall be, or another socket owns it, which made it so. Returns whether it made it.
pub(crate) fn ensure(nft: &mut Nft, shape: &Shape<'_>, owner: Owner) -> Result<bool, NftError> {
    let there = nft.table(shape.family, TABLE)?;
    let owned = there.as_ref().is_some_and(|there| there.owned);
    let enough = owned || owner == Owner::Anybody;
    if enough && nft.rules_are(shape.family, TABLE, CHAIN, &rules(shape))? {
        return Ok(false);
    }
    let outcome = nft.commit(&write(shape, there.is_some(), owner));
    let refused = |errno| matches!(&outcome, Err(NftError::Refused { source, .. }) if source.errno == errno);
    match owner {
        Owner::Socket if refused(Errno::EOPNOTSUPP) || refused(Errno::EINVAL) => ensure(nft, shape, Owner::Anybody),
        Owner::Socket | Owner::Anybody if refused(Errno::EPERM) => Ok(false),
        Owner::Socket | Owner::Anybody => outcome.map(|()| true),
    }
}

/// Tells whether the table is as it shall be.
pub(crate) fn is_right(nft: &mut Nft, shape: &Shape<'_>) -> Result<bool, NftError> {
    nft.rules_are(shape.family, TABLE, CHAIN, &rules(shape))
}

/// Takes the table away, if it is there.
pub(crate) fn remove(nft: &mut Nft, family: Family) -> Result<(), NftError> {
    nft.commit_removal(&[(family, in_table(Change::RemoveTable))]).map(drop)
}

fn write(shape: &Shape<'_>, there: bool, owner: Owner) -> Vec<Step> {
    let hook = Hook { kind: "filter", number: HOOK_POSTROUTING, priority: PRIORITY_LAST };
    let mut changes = if there { vec![Change::RemoveTable] } else { vec![] };
    changes.push(if owner == Owner::Socket { Change::AddOwnTable } else { Change::AddTable });
    changes.push(Change::AddChain { name: CHAIN.to_owned(), hook: Some(hook) });
    let add = |expressions| Change::AddRule { chain: CHAIN.to_owned(), expressions };
    changes.extend(rules(shape).into_iter().map(add));
    changes.into_iter().map(|change| (shape.family, in_table(change))).collect()
}

fn in_table(change: Change) -> Change {
    Change::In(TABLE, Box::new(change))
}

fn rules(shape: &Shape<'_>) -> Vec<Vec<Expression>> {
    let mut of_pod = vec![Expression::Load(Field::OutgoingName), Expression::Equal(name(shape.primary_link))];
    of_pod.extend(came_from_pod(shape));
    of_pod.extend([Expression::Load(Field::IncomingGroup), Expression::NotEqual(vec![0; 4])]);
    let eni = || Expression::Equal(ENI_LINK_GROUP.to_ne_bytes().to_vec());
    let through = vec![Expression::Load(Field::OutgoingGroup), eni(), Expression::Load(Field::IncomingGroup), eni()];
    [of_pod, through].map(|rule| [rule, is_not_local().to_vec(), vec![Expression::Drop]].concat()).into()
}
