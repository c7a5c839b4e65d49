//! Holds `ipam-aws` to the ports' promises over HTTP, and the stand-ins of EC2 to EC2's.
//!
//! [`checks`] is one list, run against the simulator, where all must pass, and against LocalStack, where the list says what it gets wrong
//! and why. [`faults`] and [`metadata`] need a cloud that fails on demand, which is the simulator.

#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "a test")]

mod checks;
mod clouds;
mod faults;
mod metadata;

use std::time::Instant;

use checks::{CHECKS, OnLocalStack};
use clouds::{LocalStack, World};

#[tokio::test(flavor = "multi_thread")]
async fn the_simulator_behaves_as_ec2_is_documented() {
    let mut failed = Vec::new();
    for check in CHECKS {
        let world = World::simulated().await.unwrap();
        if let Err(error) = (check.run)(&world).await {
            failed.push(format!("{}: {error}", check.name));
        }
    }
    assert!(failed.is_empty(), "\n{}", failed.join("\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn localstack_behaves_as_ec2_except_where_the_list_says() {
    let began = Instant::now();
    let localstack = LocalStack::start();
    eprintln!("LocalStack is ready after {:.1} s", began.elapsed().as_secs_f32());
    let mut failed = Vec::new();
    for (account, check) in CHECKS.iter().enumerate() {
        let world = World::on_localstack(&localstack, account).await.unwrap();
        match (check.on_localstack, (check.run)(&world).await) {
            (OnLocalStack::Same, Ok(())) => {}
            (OnLocalStack::Wrong(why), Err(error)) => eprintln!("{}: {why} ({error})", check.name),
            (OnLocalStack::Same, Err(error)) => failed.push(format!("{}: {error}", check.name)),
            (OnLocalStack::Wrong(why), Ok(())) => {
                failed.push(format!("{}: is right after all; take `{why}` from the list", check.name));
            }
        }
    }
    assert!(failed.is_empty(), "\n{}", failed.join("\n"));
}
