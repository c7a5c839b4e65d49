//! Pods with an interface on each network card: one lease for each, all or none.

use eni_proto::{Pod, PodKey, Refusal, RefusalCode};
use ipam_core::{Lease, Moment};
use tokio::task::JoinSet;

use crate::handle::{AddAnswer, Handle, Stopped};

/// What an ADD asks for.
#[derive(Debug, Clone)]
pub(crate) struct Wish {
    /// Key of the pod's first interface.
    pub(crate) key: PodKey,
    pub(crate) pod: Pod,
    /// Path of the sandbox's network namespace.
    pub(crate) netns: String,
    /// When to give up.
    pub(crate) deadline: Moment,
}

impl Wish {
    /// Asks for an address of one card for one of the pod's interfaces.
    pub(crate) async fn ask(&self, handle: &Handle, key: PodKey, card: u8) -> Result<AddAnswer, Stopped> {
        handle.add(key, self.pod.clone(), self.netns.clone(), card, self.deadline).await
    }
}

/// Asks for an address of each network card, for all at once, so that their waits are one.
///
/// Returns the leases in the order of the cards, or the first refusal; then those that this call was given have ended again. The same
/// key gets the same answer.
pub(crate) async fn add(handle: &Handle, wish: &Wish) -> Result<Result<Vec<Lease>, Refusal>, Stopped> {
    let had_before = handle.lease(wish.key.clone()).await?.is_some();
    let mut asked = JoinSet::new();
    for (number, card) in (0..).zip(handle.cards().await?) {
        let key = if number == 0 { wish.key.clone() } else { wish.key.further(number) };
        let (handle, wish) = (handle.clone(), wish.clone());
        asked.spawn(async move { (number, wish.ask(&handle, key, card).await) });
    }
    let mut answers = asked.join_all().await;
    answers.sort_by_key(|(number, _)| *number);
    let (mut leases, mut refused) = (Vec::new(), None);
    for (_, answer) in answers {
        match answer? {
            Ok(lease) => leases.push(lease),
            Err(refusal) => drop(refused.get_or_insert(refusal)),
        }
    }
    let Some(refusal) = refused else { return Ok(Ok(leases)) };
    // What an earlier ADD was given is in use: it ends by the pod's DEL, and all else with it.
    if !had_before && let Err(error) = handle.del(wish.key.clone()).await? {
        tracing::error!(key = %wish.key, refusal = %error, "the addresses of a pod that lacks one could not be taken back");
    }
    Ok(Err(refusal))
}

/// The answer to a pod that wants what the node does not do.
pub(crate) fn not_used(pod: &Pod) -> Refusal {
    Refusal {
        code: RefusalCode::OneCardOnly,
        message: format!("pod {pod} wants an interface on each network card, but ENABLE_MULTI_NIC is not true on this node"),
        advice: "Nothing was given. Set ENABLE_MULTI_NIC=true for ipamd, or take the annotation k8s.amazonaws.com/nicConfig from the pod."
            .to_owned(),
        try_again: true,
    }
}
