//! The daemon is killed in the middle of every kind of change at EC2. The next one finishes or undoes it: no ENI and no
//! address is lost or given away.

#![allow(clippy::unwrap_used, reason = "a test says by a panic what is not as it should be")]

use std::time::Duration;

use e2e::{Cluster, Worker};
use ec2_sim::world::FaultRule;
use lab::wait;
use tokio::task::JoinSet;

mod pool;
mod stage;

use pool::steady;
use stage::{PATIENCE, cluster};

/// Addresses to keep: more than the primary ENI of an m5.xlarge holds.
const MANY: &str = "20";
/// Addresses to keep when the second ENI is to go.
const FEW: &str = "4";
/// How late EC2's answers come: long enough to kill somebody who waits for them.
const LATE: Duration = Duration::from_secs(2);
/// Above the pause before the pool shrinks, and what follows.
const SHRINKING: Duration = Duration::from_secs(120);

/// What EC2 makes of the call in whose middle the daemon dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// It is carried out, and nobody hears of it.
    Done,
    /// It never arrives.
    Lost,
}

impl Fate {
    fn rule(self, action: &str, times: u32) -> FaultRule {
        match self {
            Self::Done => FaultRule::slow(action, times, LATE),
            Self::Lost => FaultRule::drop_before(action, times).after(LATE),
        }
    }
}

/// Kills the worker's daemon as soon as it has asked for `action`, and starts the next one.
async fn kill_at(worker: &Worker, action: &str, patience: Duration) {
    let before = worker.ec2_calls().get(action).copied().unwrap_or(0);
    let asked = || async {
        let calls = worker.ec2_calls();
        if calls.get(action).copied().unwrap_or(0) > before { Ok(()) } else { Err(format!("{calls:?}")) }
    };
    wait::until(patience, action, asked).await.unwrap_or_else(|late| panic!("{late}\n{}", worker.daemon_log()));
    worker.kill_daemon().unwrap();
    worker.start_daemon().unwrap();
}

/// All is as if nothing had happened: what EC2 has given to the node is what the daemon counts, and as many as wanted are free.
async fn nothing_is_lost(cluster: &Cluster, worker: &Worker, free: &str, patience: Duration) {
    let free = free.parse().unwrap();
    let state = || async { steady(cluster, worker, free).await };
    wait::until(patience, "a steady pool", state)
        .await
        .unwrap_or_else(|late| panic!("{}: {late}\n{}", worker.node().name(), worker.daemon_log()));
}

async fn growth_survives(fate: Fate) {
    let actions = [
        "AssignPrivateIpAddresses",
        "CreateNetworkInterface",
        "AttachNetworkInterface",
        "ModifyNetworkInterfaceAttribute",
    ];
    let cluster = cluster(actions.len(), &[("WARM_IP_TARGET", MANY)]).await;
    for (worker, action) in cluster.workers.iter().zip(actions) {
        cluster.cloud.sim().unwrap().with(|world, _| world.inject(fate.rule(action, 1)));
        worker.start_daemon().unwrap();
        kill_at(worker, action, PATIENCE).await;
        nothing_is_lost(&cluster, worker, MANY, SHRINKING).await;
    }
}

async fn shrinking_survives(fate: Fate, action: &'static str) {
    let cluster = cluster(1, &[("WARM_IP_TARGET", MANY)]).await;
    let worker = &cluster.workers[0];
    worker.start_daemon().unwrap();
    nothing_is_lost(&cluster, worker, MANY, PATIENCE).await;
    worker.set("WARM_IP_TARGET", FEW);
    worker.start_daemon().unwrap();

    cluster.cloud.sim().unwrap().with(|world, _| world.inject(fate.rule(action, 1)));
    kill_at(worker, action, SHRINKING).await;
    nothing_is_lost(&cluster, worker, FEW, SHRINKING).await;
}

/// All at the same time, because each spends most of its time waiting for the pool to shrink.
#[tokio::test(flavor = "multi_thread")]
async fn a_crash_in_the_middle_of_any_change_loses_nothing() {
    let mut cases = JoinSet::new();
    for fate in [Fate::Done, Fate::Lost] {
        cases.spawn(growth_survives(fate));
        for action in ["UnassignPrivateIpAddresses", "DetachNetworkInterface", "DeleteNetworkInterface"] {
            cases.spawn(shrinking_survives(fate, action));
        }
    }
    cases.join_all().await;
}
