//! A node that amazon-vpc-cni-k8s has set up, with running pods, is taken over and given back: no packet is lost, no address changes.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test says by a panic what is not as it should be, and what it measured"
)]

mod killed;
mod layout;
mod refused;
mod round;
#[path = "../stage/mod.rs"]
mod stage;
#[path = "../steps/mod.rs"]
mod steps;
mod traffic;
mod verbs;
