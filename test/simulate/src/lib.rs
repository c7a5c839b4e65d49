//! A cluster in virtual time: the real engine of N nodes on one account's EC2 budget, and the AWS CNI's policies on the same
//! demand.
//!
//! The engine is [`ipam_core::engine::Engine`], unchanged; this crate is its shell (calls, delays, link set-up), the
//! kubelet of each node, and the account. Chance is by seed: the same arguments give the same report.

#![forbid(unsafe_code)]

pub mod account;
pub mod agenda;
pub mod bound;
pub mod cloud;
pub mod cluster;
pub mod incumbent;
mod kubelet;
pub mod managers;
pub mod measure;
mod ours;
pub mod plot;
pub mod random;
pub mod report;
pub mod run;
pub mod trace;
