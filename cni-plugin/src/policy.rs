//! Tells the network-policy agent of a pod that comes or goes, where the node's settings say that there is one.
//!
//! The agent puts filters onto the pod's host interface. It may be slow or away at any time, so each call has an end. What a call that
//! did not end well means depends on what was promised: in standard mode a pod may do everything until its policies are in place, and
//! the agent finds it by itself later, so its ADD goes on; in strict mode it may do nothing, which only the agent can enforce, so its
//! ADD is refused and tried again.

use std::{
    future::Future,
    time::{Duration, Instant},
};

use eni_proto::{
    Pod,
    policy::{self, EnforceRequest, Mode, Outcome, Trouble},
};
use tokio::time::{sleep, timeout};

use crate::{
    error::{CniError, no_policy},
    report,
    request::PolicyAgent,
};

/// How long an ADD waits for the agent when the pod may start without it.
const WHILE_OPEN: Duration = Duration::from_secs(2);
/// The same when it may not: an agent that is just restarting costs no ADD.
const WHILE_SHUT: Duration = Duration::from_secs(10);
/// How long a DEL waits.
const AT_THE_END: Duration = Duration::from_secs(1);
/// Pause before an agent that is away is looked for again.
const PAUSE: Duration = Duration::from_millis(100);

/// Has the agent put its filters onto the pod's interfaces, which are there already.
///
/// # Errors
/// That the agent has not, in strict mode.
pub(crate) async fn enforce(agent: &PolicyAgent, pod: &Pod, interfaces: usize) -> Result<(), CniError> {
    let request = EnforceRequest {
        pod_name: pod.name.clone(),
        pod_namespace: pod.namespace.clone(),
        mode: agent.mode.as_str().to_owned(),
        interfaces: i32::try_from(interfaces).unwrap_or(i32::MAX),
    };
    let limit = match agent.mode {
        Mode::Standard => WHILE_OPEN,
        Mode::Strict => WHILE_SHUT,
    };
    let patient = async {
        loop {
            match policy::enforce(&agent.socket, request.clone()).await {
                Err((Outcome::Away, _)) if agent.mode == Mode::Strict => sleep(PAUSE).await,
                outcome => return outcome,
            }
        }
    };
    match (told(agent, limit, patient).await, agent.mode) {
        (Err(trouble), Mode::Strict) => Err(no_policy(pod, &trouble)),
        (Ok(()) | Err(_), _) => Ok(()),
    }
}

/// Has the agent forget the pod, whose interfaces are gone. What it does not hear it finds out by itself.
pub(crate) async fn forget(agent: &PolicyAgent, pod: &Pod) {
    // Nothing is left that it could protect.
    let _ = told(agent, AT_THE_END, policy::forget(&agent.socket, pod)).await;
}

/// Waits for the outcome, not longer than `limit`, and has it reported.
async fn told(
    agent: &PolicyAgent,
    limit: Duration,
    asked: impl Future<Output = Result<(), Trouble>>,
) -> Result<(), String> {
    let begun = Instant::now();
    let outcome = timeout(limit, asked).await;
    let late = || (Outcome::Late, format!("no answer from {} within {} s", agent.socket, limit.as_secs()));
    let (outcome, trouble) = match outcome.unwrap_or_else(|_| Err(late())) {
        Ok(()) => (Outcome::Done, String::new()),
        Err(trouble) => trouble,
    };
    report::policy(outcome, &trouble, begun.elapsed());
    if outcome == Outcome::Done { Ok(()) } else { Err(trouble) }
}
