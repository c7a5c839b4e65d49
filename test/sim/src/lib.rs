//! EC2 and its metadata service in memory: for tests, demonstrations and development without an account.
//!
//! [`World`] is the cloud itself: pure, synchronous, under the caller's time. [`SimCloud`] shares one between threads,
//! gives it a clock, and speaks for it: through the ports of `ipam-core`, over HTTP ([`SimCloud::router`]) and as a metadata
//! service ([`imds`]).
//!
//! What it promises is what AWS documents: limits, codes, subnets that run out, delays. Where AWS is silent, the choice is named beside the code.
//! Of IPv6 there are addresses and prefixes of ENIs, not their reservations, nor any at launch.

#![forbid(unsafe_code)]

pub mod action;
mod clock;
mod cloud;
mod error;
mod http;
pub mod imds;
mod meddler;
pub mod world;

pub use action::Action;
pub use clock::{Clock, ClockHand};
pub use cloud::{DemoVpc, SimCloud, SimInstance};
pub use error::{ApiError, Failure};
pub use meddler::Meddler;
pub use world::{DelayRange, Delays, FaultRule, Lags, Order, Quotas, Spoil, Weather, World, WorldConfig};

/// The account that everything belongs to.
pub const ACCOUNT: &str = "123456789012";
