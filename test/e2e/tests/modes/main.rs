//! Every mode of the daemon, with its real binary: against the simulated EC2 over HTTP and on a real kernel.

#![allow(clippy::unwrap_used, reason = "a test says by a panic what is not as it should be")]

#[path = "../stage/mod.rs"]
mod stage;

mod others;
mod pool;
mod prefixes;
mod scene;
mod subnets;
