//! Many random calls: the invariants hold after each (the world panics otherwise), and a seed decides everything.

use rand_chacha::{
    ChaCha8Rng,
    rand_core::{RngCore, SeedableRng},
};

use super::Fixture;
use crate::{
    Delays, Lags, Meddler, Weather, WorldConfig,
    action::{
        AssignIpv6Addresses, AssignPrivateIpAddresses, AttachNetworkInterface, CreateNetworkInterface,
        DeleteNetworkInterface, DetachNetworkInterface, RunInstances, TerminateInstances, UnassignIpv6Addresses,
        UnassignPrivateIpAddresses,
    },
    world::Wanted6,
};

/// Makes one random call, often one that must be refused.
fn step(cloud: &mut Fixture, rng: &mut ChaCha8Rng) {
    let mut pick = |things: Vec<String>| match things.len() {
        0 => String::new(),
        len => things[usize::try_from(rng.next_u32()).unwrap() % len].clone(),
    };
    let interface = pick(cloud.world.enis().map(|eni| eni.id.to_string()).collect());
    let instance = pick(cloud.world.instances().map(|instance| instance.id.to_string()).collect());
    let attachments = cloud.world.enis().filter_map(|eni| eni.attachment.as_ref());
    let attachment = pick(attachments.map(|attachment| attachment.id.to_string()).collect());
    let secondary = cloud.world.enis().filter(|eni| eni.id.as_str() == interface).flat_map(|eni| &eni.secondary);
    let addresses = secondary.take(2).copied().collect();
    let prefixes = cloud.world.enis().filter(|eni| eni.id.as_str() == interface).flat_map(|eni| &eni.prefixes);
    let prefixes = prefixes.take(1).copied().collect();
    let count = u16::try_from(rng.next_u32() % 6).unwrap();
    let device_index = u8::try_from(rng.next_u32() % 5).unwrap();
    let wanted = match rng.next_u32() % 3 {
        0 => Wanted6 { count: Some(count), ..Wanted6::default() },
        1 => Wanted6 { prefix_count: Some(count / 2), ..Wanted6::default() },
        _ => Wanted6::default(),
    };
    let held = cloud.world.enis().find(|eni| eni.id.as_str() == interface).map(|eni| eni.ipv6.clone());
    let refused = match rng.next_u32() % 22 {
        0..3 => {
            cloud.call(&CreateNetworkInterface { secondary_count: Some(count), ipv6: wanted, ..cloud.new_eni() }).err()
        }
        3..7 => cloud.call(&AttachNetworkInterface { interface, instance, card: 0, device_index }).err(),
        7..10 => cloud.call(&AssignPrivateIpAddresses { interface, count: Some(count), ..Default::default() }).err(),
        10..12 => cloud.call(&UnassignPrivateIpAddresses { interface, addresses, prefixes: vec![] }).err(),
        15 => cloud.call(&CreateNetworkInterface { prefix_count: Some(count / 2), ..cloud.new_eni() }).err(),
        16..18 => {
            let assign = AssignPrivateIpAddresses { interface, prefix_count: Some(count / 2), ..Default::default() };
            cloud.call(&assign).err()
        }
        18 => cloud.call(&UnassignPrivateIpAddresses { interface, addresses: vec![], prefixes }).err(),
        20 => cloud.call(&AssignIpv6Addresses { interface, wanted }).err(),
        21 => cloud.call(&UnassignIpv6Addresses { interface, held: held.unwrap_or_default() }).err(),
        12 => cloud.call(&DetachNetworkInterface { attachment }).err(),
        13..15 => cloud.call(&DeleteNetworkInterface { interface }).err(),
        _ if device_index == 0 => cloud.call(&TerminateInstances { ids: vec![instance] }).err(),
        _ => cloud.call(&RunInstances { instance_type: "m5.large".into(), ..Default::default() }).err(),
    };
    // Refusals are part of the game; what matters is what the world looks like afterwards.
    drop(refused);
    let later = cloud.now.as_millis() + u64::from(rng.next_u32() % 500);
    cloud.at(later);
}

/// What has become of a world after `steps` random calls, with a meddler among them.
pub(super) fn run(config: WorldConfig, seed: u64, steps: usize) -> Fixture {
    let mut cloud = Fixture::with(config, "10.0.0.0/25");
    let mut meddler = Meddler::new(seed);
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    for nth in 0..steps {
        step(&mut cloud, &mut rng);
        if nth % 7 == 0 {
            meddler.act(&mut cloud.world, cloud.now);
        }
        if nth % 10 == 0 {
            cloud.world.assert_invariants_of_all();
        }
    }
    cloud
}

fn story(config: WorldConfig, seed: u64, steps: usize) -> String {
    let cloud = run(WorldConfig { seed, ..config }, seed, steps);
    let enis: Vec<_> = cloud.world.enis().collect();
    format!("{enis:#?}\n{}", cloud.world.log().tail(usize::MAX))
}

fn unkind() -> WorldConfig {
    let weather = Weather { spoilt: 20, ..Weather::ROUGH };
    let reuse_after = std::time::Duration::from_secs(5);
    WorldConfig { delays: Delays::REAL, lags: Lags::REAL, weather, reuse_after, ..WorldConfig::default() }
}

#[test]
fn the_invariants_hold_whatever_is_asked() {
    for seed in 0..20 {
        story(WorldConfig::default(), seed, 300);
        story(unkind(), seed, 300);
    }
}

#[test]
fn the_same_seed_tells_the_same_story() {
    for config in [WorldConfig::default(), unkind()] {
        assert_eq!(story(config.clone(), 7, 200), story(config.clone(), 7, 200));
        assert_ne!(story(config.clone(), 7, 200), story(config, 8, 200));
    }
}
