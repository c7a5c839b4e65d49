//! Pods of one node that come and go through the real plugin, as many as tides want.

use std::{
    collections::BTreeMap,
    net::Ipv4Addr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use e2e::{Sandbox, Verb, Worker, storm::Storm};
use tokio::task::JoinSet;

use crate::Dice;

/// Pods at high tide; an m5.xlarge carries 56 beside what rests.
const MOST: u64 = 40;
/// How long a tide lasts on average.
const TIDE: Duration = Duration::from_secs(15);
/// Between two pods that come or go.
const STEP: Duration = Duration::from_millis(150);
/// Plugins at the same time.
const AT_ONCE: usize = 8;

#[derive(Default)]
struct State {
    live: Vec<(Sandbox, Ipv4Addr)>,
    idle: Vec<Sandbox>,
    made: usize,
    added: u64,
    deleted: u64,
    /// Refused ADDs by the first word of the refusal, which is its code.
    refused: BTreeMap<String, u64>,
    failures: Vec<String>,
}

pub(crate) struct Pods {
    worker: Arc<Worker>,
    storm: Storm,
    seed: u64,
    state: Mutex<State>,
}

impl Pods {
    pub(crate) fn new(worker: Arc<Worker>, storm: Storm, seed: u64) -> Self {
        Self { worker, storm, seed, state: Mutex::default() }
    }

    /// Until the storm is over, and what was begun has ended.
    pub(crate) async fn come_and_go(self: &Arc<Self>, over: &AtomicBool) {
        let mut dice = Dice(self.seed);
        let (mut wanted, mut turns_at) = (0, Instant::now());
        let mut running = JoinSet::new();
        while !over.load(Ordering::Relaxed) {
            if turns_at <= Instant::now() {
                wanted = usize::try_from(dice.below(MOST)).unwrap();
                turns_at = Instant::now() + dice.about(TIDE);
            }
            let live = self.state.lock().unwrap().live.len();
            let pods = Arc::clone(self);
            // A few go at every tide.
            let comes = live + running.len() < wanted && dice.below(5) > 0;
            if running.len() < AT_ONCE {
                running.spawn(async move { if comes { pods.comes().await } else { pods.goes().await } });
            }
            tokio::time::sleep(dice.about(STEP)).await;
            while running.try_join_next().is_some() {}
        }
        running.join_all().await;
    }

    async fn comes(&self) {
        let sandbox = {
            let mut state = self.state.lock().unwrap();
            state.made += 1;
            let number = state.made;
            let mut sandbox = state.idle.pop().unwrap_or_else(|| Sandbox::new("pod", number).unwrap());
            sandbox.name = format!("pod-{number}");
            sandbox.container_id = format!("{number:064x}");
            sandbox
        };
        let run = self.worker.plugin(Verb::Add, &sandbox).await.unwrap();
        if let Some(address) = run.address() {
            let twice = self.storm.hold(self.worker.node().instance(), address);
            let mut state = self.state.lock().unwrap();
            state.added += 1;
            if twice {
                state.failures.push(format!("{address} was given to {} although another pod has it", sandbox.name));
            }
            state.live.push((sandbox, address));
            return;
        }
        let words = run.failure().map(|failure| failure.message.clone()).unwrap_or_default();
        let code = words.split_whitespace().find(|word| word.starts_with("IPAM-")).unwrap_or("other").to_owned();
        *self.state.lock().unwrap().refused.entry(code).or_default() += 1;
        self.ends(sandbox).await;
    }

    async fn goes(&self) {
        let oldest = {
            let mut state = self.state.lock().unwrap();
            if state.live.is_empty() { None } else { Some(state.live.remove(0)) }
        };
        let Some((sandbox, address)) = oldest else { return };
        self.storm.release(self.worker.node().instance(), address);
        self.ends(sandbox).await;
    }

    async fn ends(&self, sandbox: Sandbox) {
        let run = self.worker.plugin(Verb::Del, &sandbox).await.unwrap();
        let mut state = self.state.lock().unwrap();
        state.deleted += 1;
        if let Some(failure) = run.failure() {
            state.failures.push(format!("DEL of {}: {failure:?}", sandbox.name));
        }
        state.idle.push(sandbox);
    }

    /// The last ones go.
    pub(crate) async fn all_go(&self) {
        while !self.state.lock().unwrap().live.is_empty() {
            self.goes().await;
        }
    }

    pub(crate) fn failures(&self) -> Vec<String> {
        self.state.lock().unwrap().failures.clone()
    }

    pub(crate) fn in_words(&self) -> String {
        let state = self.state.lock().unwrap();
        format!("{} pods came, {} DELs, refused {:?}", state.added, state.deleted, state.refused)
    }
}
