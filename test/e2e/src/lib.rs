//! Real binaries on a real kernel: what the demo, the end-to-end tests and the benchmarks share.
//!
//! A [`Cluster`] is a [`Cloud`] (the simulator or LocalStack), a [`lab::Lab`] that follows it, and [`Worker`]s with the real
//! ipamd and the real plugin. Everything that is claimed is read from the kernel and from SQLite ([`WorkerState`]), with
//! tools that share no code with what is tested.

#![forbid(unsafe_code)]

pub mod binaries;
pub mod cloud;
pub mod cluster;
pub mod flight;
pub mod image;
mod localstack;
pub mod observe;
pub mod pings;
pub mod plugin;
pub mod product;
pub mod runtime;
pub mod storm;
mod tar;
pub mod trouble;
pub mod worker;

pub use binaries::Binaries;
pub use cloud::{Cloud, CloudKind, Network};
pub use cluster::{Cluster, ClusterPlan};
pub use observe::WorkerState;
pub use plugin::{CniFailure, PluginRun, Sandbox, Verb};
pub use trouble::Trouble;
pub use worker::Worker;
