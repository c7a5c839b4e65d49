//! The simulated cloud from outside: over HTTP, as a metadata service, and through the ports.

#![allow(clippy::unwrap_used, reason = "what fails here fails its test")]

mod client;
mod http;
mod imds;
mod ports;

use ec2_sim::{Clock, ClockHand, Delays, SimCloud, WorldConfig};
use ipam_core::{Moment, SubnetId};

/// A cloud without delays, with one subnet, and the hand of its clock.
fn cloud(delays: Delays) -> (SimCloud, ClockHand, SubnetId) {
    let (clock, hand) = Clock::by_hand(Moment::from_millis(1_000_000));
    let cloud = SimCloud::new(WorldConfig { delays, ..WorldConfig::default() }, clock);
    let subnet = cloud.demo_vpc("10.0.0.0/16", &["10.0.0.0/24"]).unwrap().subnets.remove(0);
    (cloud, hand, subnet)
}
