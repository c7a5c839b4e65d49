//! Holds `ipam-aws` to the ports' promises over HTTP, and the stand-ins of EC2 to EC2's.
//!
//! [`checks`] is one list, run against the simulator, where all must pass, and against LocalStack, where the list says what it gets wrong
//! and why; `LOCALSTACK.md` is that list for people. [`faults`], [`bad_answers`] and [`metadata`] need a cloud that fails on demand, which is
//! the simulator.

#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "a test")]

mod bad_answers;
mod checks;
mod clouds;
mod faults;
mod metadata;
mod table;

use std::{
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Instant,
};

use checks::{CHECKS, Check, OnLocalStack};
use clouds::{Checked, LocalStack, World};

/// How many checks are made at a time: each has a cloud, or an account, of its own.
const AT_A_TIME: usize = 4;

/// Makes all checks and returns what `judge` has to say about them.
fn check_all(
    cloud: impl AsyncFn(usize) -> Checked<World> + Sync,
    judge: impl Fn(&Check, Checked) -> Option<String> + Sync,
) -> Vec<String> {
    let (next, failed) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let work = || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        while let number = next.fetch_add(1, Ordering::SeqCst)
            && let Some(check) = CHECKS.get(number)
        {
            let outcome = runtime.block_on(async { (check.run)(&cloud(number).await.unwrap()).await });
            failed.lock().unwrap().extend(judge(check, outcome));
        }
    };
    std::thread::scope(|scope| (0..AT_A_TIME).for_each(|_| drop(scope.spawn(work))));
    failed.into_inner().unwrap()
}

#[test]
fn the_simulator_behaves_as_ec2_is_documented() {
    let judge = |check: &Check, outcome: Checked| outcome.err().map(|error| format!("{}: {error}", check.name));
    let failed = check_all(async |_| World::simulated().await, judge);
    assert!(failed.is_empty(), "\n{}", failed.join("\n"));
    eprintln!("{} of {} checks passed", CHECKS.len(), CHECKS.len());
}

#[test]
fn localstack_behaves_as_ec2_except_where_the_list_says() {
    let began = Instant::now();
    let localstack = LocalStack::start();
    eprintln!("LocalStack is ready after {:.1} s", began.elapsed().as_secs_f32());
    let judge = |check: &Check, outcome: Checked| match (check.on_localstack, outcome) {
        (OnLocalStack::Same, Ok(())) => None,
        (OnLocalStack::Wrong(why), Err(error)) => {
            eprintln!("{}: {why} ({:.160})", check.name, error.to_string());
            None
        }
        (OnLocalStack::Same, Err(error)) => Some(format!("{}: {error}", check.name)),
        (OnLocalStack::Wrong(why), Ok(())) => {
            Some(format!("{}: is right after all; take `{why}` from the list", check.name))
        }
    };
    let failed = check_all(async |account| World::on_localstack(&localstack, account).await, judge);
    assert!(failed.is_empty(), "\n{}", failed.join("\n"));
    eprintln!("{} of {} checks passed, as listed", table::same().count(), CHECKS.len());
}
