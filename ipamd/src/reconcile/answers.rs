//! What callers of ADD and DEL hear, once it is stored.

use std::{net::IpAddr, time::Duration};

use eni_proto::{Pod, PodKey, Refusal, RefusalCode};
use ipam_core::{CoolDown, Event, Lease, Ticket, ports::Ec2};
use tokio::{sync::oneshot, time::Instant};

use super::Reconciler;
use crate::{
    clock,
    errors::chain,
    handle::AddAnswer,
    journal::{Flight, JOURNAL},
    kube::News,
    metrics::METRICS,
    tenure::Ended,
};

/// Somebody who waits for the answer to an ADD.
pub(super) struct Asker {
    pub(super) key: PodKey,
    pub(super) pod: Pod,
    pub(super) since: Instant,
    pub(super) reply: oneshot::Sender<AddAnswer>,
}

impl<E: Ec2> Reconciler<E> {
    /// Stores the lease, then answers (I2). Also for a lease that is not fresh: its first write may still be on its way.
    pub(super) fn grant(&mut self, ticket: Ticket, lease: Lease, fresh: bool) {
        let asker = self.adds.remove(&ticket);
        if fresh {
            // Nobody listens only when lost namespaces cannot be watched.
            let _ = self.outside.granted.send(lease.netns.clone());
            let Lease { key, pod, addresses, .. } = &lease;
            let given = || News::Given { key: key.clone(), pod: pod.clone(), address: addresses.to_string() };
            self.outside.newsroom.tell(given);
        }
        let stored = self.outside.store.put(lease.clone());
        let handle = self.handle.clone();
        let chosen = Instant::now();
        tokio::spawn(async move {
            let answer = match stored.await {
                Ok(()) => {
                    tracing::info!(key = %lease.key, pod = %lease.pod, address = %lease.addresses, eni = %lease.eni, fresh, "address given to pod");
                    Ok(lease)
                }
                Err(error) => {
                    tracing::error!(key = %lease.key, address = %lease.addresses, error = %chain(&error), "lease could not be stored");
                    if fresh {
                        handle.tell(Event::StoreFailed { key: lease.key });
                    }
                    Err(store_refusal(&error))
                }
            };
            // The caller may have gone; then the runtime's DEL, which follows every failed ADD, releases the lease.
            if let Some(asker) = asker {
                let times = (chosen.duration_since(asker.since), chosen.elapsed());
                asker.answer(answer, fresh, times);
            }
        });
    }

    pub(super) fn refuse(&mut self, ticket: Ticket, refusal: Refusal) {
        tracing::warn!(code = refusal.code.as_str(), reason = refusal.message, "address refused");
        if let Some(asker) = self.adds.remove(&ticket) {
            let (queue, pod) = (asker.since.elapsed(), asker.pod.clone());
            self.outside.newsroom.tell(|| News::Refused { pod, message: refusal.to_string() });
            asker.answer(Err(refusal), false, (queue, Duration::ZERO));
        }
    }

    /// Stores the release, then answers. What the kernel may still have of the address is cleared beside that: it takes the kernel 10 ms
    /// and more, the address rests anyway, and a start clears what we did not get to.
    pub(super) fn release(&mut self, ticket: Option<Ticket>, key: PodKey, released: Vec<CoolDown>) {
        let (why, reply) = ticket.and_then(|ticket| self.ends.remove(&ticket)).unzip();
        let why = why.unwrap_or(Ended::Del);
        if released.is_empty() {
            if let Some(reply) = reply {
                let _ = reply.send(Ok(released));
            }
            return;
        }
        self.outside.newsroom.tell(|| News::Ended { key: key.clone() });
        let stored = self.outside.store.release(key.clone(), released.clone(), clock::now(), why);
        let (host, freed) = (self.outside.host.clone(), self.outside.released.clone());
        let addresses: Vec<IpAddr> = released.iter().map(|cooling| cooling.address).collect();
        let begun = Instant::now();
        tokio::spawn(async move {
            for address in addresses {
                if let Err(error) = host.forget_address(address).await {
                    tracing::warn!(%address, error = %chain(&error), "released address could not be cleared from the kernel");
                }
                // Nobody listens only when the daemon stops; the next one does it for all that rest.
                let _ = freed.send(address);
            }
        });
        tokio::spawn(async move {
            let outcome = stored.await;
            let address = released.iter().map(|cooling| cooling.address.to_string()).collect::<Vec<_>>().join(", ");
            match &outcome {
                Ok(()) => {
                    METRICS.ends.add(why.as_str());
                    METRICS.del_seconds.add("lease", begun.elapsed());
                    tracing::info!(key = %key, address, why = why.as_str(), "address released");
                }
                Err(error) => {
                    tracing::error!(key = %key, address, error = %chain(error), "release could not be stored");
                }
            }
            if let Some(reply) = reply {
                let _ = reply.send(outcome.map(|()| released).map_err(|error| store_refusal(&error)));
            }
        });
    }
}

impl Asker {
    /// Answers, after counting how it ended and what it took: until an address was chosen, and until that was stored.
    fn answer(self, answer: AddAnswer, fresh: bool, (queue, lease): (Duration, Duration)) {
        let (given, outcome) = match &answer {
            Ok(lease) => {
                let outcome = if fresh { "given" } else { "repeated" };
                METRICS.add_results.add(outcome);
                (Some((lease.addresses.to_string(), lease.eni.to_string())), outcome)
            }
            Err(refusal) => {
                let stored = refusal.code != RefusalCode::StoreFailed;
                METRICS.add_results.add(if stored { "refused" } else { "unstored" });
                METRICS.refusals.add(refusal.code.as_str());
                (None, refusal.code.as_str())
            }
        };
        METRICS.add_seconds.add("queue", queue);
        METRICS.add_seconds.add("lease", lease);
        let pod = self.pod.to_string();
        JOURNAL.answered(Flight { at: clock::now(), key: self.key, pod, given, outcome, queue, lease, plugin: None });
        let _ = self.reply.send(answer);
    }
}

fn store_refusal(error: &dyn std::error::Error) -> Refusal {
    Refusal {
        code: RefusalCode::StoreFailed,
        message: format!("the lease could not be stored: {}", chain(error)),
        advice:
            "Nothing was given. Look at the space and health of the disk under the database; Kubernetes will try again."
                .to_owned(),
        try_again: true,
    }
}
