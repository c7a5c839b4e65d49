//! containerd as the plugin's client: pods come and go as a kubelet asks, whatever fails, and nothing stays.

#![allow(clippy::unwrap_used, reason = "a test says by a panic what is not as it should be")]

mod failures;
mod forgotten;
mod image;
mod names;
mod node;
mod pods;
#[path = "../stage/mod.rs"]
mod stage;
