//! Follows the settings file while the daemon runs. How large the pool is and the level of the log are taken over at once; for the rest it
//! is said that a restart is needed. A file that is wrong changes nothing, loudly: the settings that hold stay.

use std::time::Duration;

use ipam_core::Policy;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
};

use super::{Mistakes, Settings, sources::Sources, table};
use crate::{logging, metrics::METRICS};

/// How often the file is read. A ConfigMap takes about a minute to arrive anyway; SIGHUP is heard at once.
const PERIOD: Duration = Duration::from_secs(20);

/// What a new file asks for.
#[derive(Debug, PartialEq, Eq)]
enum News {
    /// Nothing.
    Same,
    /// Something that cannot be.
    Wrong(Mistakes),
    /// These settings are others than before.
    Others(Vec<&'static str>, Box<Settings>),
}

/// Reads the file again and again for as long as the runtime lives, and tells `policies` of each change of the pool's.
pub(crate) async fn follow(started_with: Sources, policies: watch::Sender<Policy>) {
    let mut known = started_with.clone();
    let mut last_wrong = None;
    let mut hangups = signal(SignalKind::hangup()).ok();
    loop {
        let asked = async {
            match &mut hangups {
                Some(hangups) => drop(hangups.recv().await),
                None => std::future::pending().await,
            }
        };
        tokio::select! { () = tokio::time::sleep(PERIOD) => {}, () = asked => last_wrong = None }
        let read = Sources::gather(started_with.command_line.clone(), started_with.environment.clone());
        match news(&known, &read) {
            News::Same => last_wrong = None,
            News::Wrong(mistakes) if last_wrong.as_ref() != Some(&mistakes) => {
                METRICS.bad_reloads.add();
                tracing::error!(%mistakes, "the settings file is wrong now; the daemon goes on with the settings that it has, and would not start with these");
                last_wrong = Some(mistakes);
            }
            News::Wrong(_) => {}
            News::Others(names, settings) => {
                last_wrong = None;
                take_over(&settings, &names, &policies);
                if let Ok(sources) = read {
                    known = sources;
                }
            }
        }
    }
}

fn news(known: &Sources, read: &Result<Sources, Mistakes>) -> News {
    let sources = match read {
        Ok(sources) => sources,
        Err(mistakes) => return News::Wrong(mistakes.clone()),
    };
    let settings = match Settings::of(sources) {
        Ok(settings) => settings,
        Err(mistakes) => return News::Wrong(mistakes),
    };
    let text = |sources: &Sources, name: &str| sources.get(name).map(|(text, _)| text.to_owned());
    let names = table::all().map(|setting| setting.name);
    let others: Vec<_> = names.filter(|name| text(known, name) != text(sources, name)).collect();
    if others.is_empty() { News::Same } else { News::Others(others, Box::new(settings)) }
}

fn take_over(settings: &Settings, names: &[&'static str], policies: &watch::Sender<Policy>) {
    if names.contains(&table::LOG_LEVEL)
        && let Err(why) = logging::set_level(settings.log.level)
    {
        tracing::warn!(why, "the level of the log could not be changed");
    }
    policies.send_if_modified(|policy| {
        let new = resized(policy, &settings.policy);
        let differs = *policy != new;
        *policy = new;
        differs
    });
    let (now, later): (Vec<_>, Vec<_>) = names.iter().copied().partition(|name| table::is_live(name));
    if !now.is_empty() {
        tracing::info!(settings = now.join(", "), "the settings file has changed; this holds from now on");
    }
    if !later.is_empty() {
        tracing::warn!(
            settings = later.join(", "),
            "the settings file has changed; this takes effect when ipamd is started again"
        );
    }
}

/// The policy that the daemon runs with, as large as the new one wants it: [`table::LIVE`].
fn resized(running: &Policy, new: &Policy) -> Policy {
    let kept = running.clone();
    Policy {
        warm_enis: new.warm_enis,
        warm_prefixes: new.warm_prefixes,
        warm_addresses: new.warm_addresses,
        minimum_addresses: new.minimum_addresses,
        warm_auto: new.warm_auto,
        max_enis: new.max_enis,
        max_pods: new.max_pods,
        cool_down: new.cool_down,
        // What was made by them is there, or would be somewhere else.
        mode: kept.mode,
        families: kept.families,
        egress: kept.egress,
        placement: kept.placement,
        cluster: kept.cluster,
        further_cards: kept.further_cards,
        trunk: kept.trunk,
        access: kept.access,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(pairs: &[(&str, &str)]) -> Sources {
        let file = pairs.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect();
        Sources { file, ..Sources::default() }
    }

    #[test]
    fn a_file_that_becomes_nonsense_changes_nothing_and_one_that_is_right_is_told_by_name() {
        let known = file(&[("WARM_IP_TARGET", "3")]);
        assert_eq!(news(&known, &Ok(known.clone())), News::Same);
        assert_eq!(news(&known, &Ok(file(&[("WARM_IP_TARGET", "3"), ("MAX_ENI", "")]))), News::Same);
        assert!(matches!(news(&known, &Ok(file(&[("WARM_IP_TARGET", "many")]))), News::Wrong(_)));
        assert!(matches!(news(&known, &Err(Mistakes(vec!["no TOML".to_owned()]))), News::Wrong(_)));
        let changed = file(&[("WARM_IP_TARGET", "4"), ("AWS_VPC_K8S_CNI_LOGLEVEL", "debug")]);
        let News::Others(names, settings) = news(&known, &Ok(changed)) else { panic!("nothing is new") };
        assert_eq!(names, ["WARM_IP_TARGET", "AWS_VPC_K8S_CNI_LOGLEVEL"]);
        assert_eq!((settings.policy.warm_addresses, settings.log.level), (4, "debug"));
    }

    #[test]
    fn exactly_the_settings_that_are_called_live_change_the_policy() {
        let running = Settings::of(&file(&[])).unwrap().policy;
        let others = [
            ("WARM_ENI_TARGET", "3"),
            ("WARM_IP_TARGET", "3"),
            ("MINIMUM_IP_TARGET", "3"),
            ("WARM_PREFIX_TARGET", "3"),
            ("WARM_TARGET", "auto"),
            ("MAX_ENI", "2"),
            ("MAX_PODS", "20"),
            ("IP_COOLDOWN_PERIOD", "60"),
            ("ENABLE_PREFIX_DELEGATION", "true"),
            ("ENABLE_SUBNET_DISCOVERY", "false"),
            ("CLUSTER_NAME", "shop"),
            ("ENABLE_MULTI_NIC", "true"),
            ("ENABLE_POD_ENI", "true"),
            ("ENABLE_IMDS_ONLY_MODE", "true"),
        ];
        for (name, text) in others {
            let new = Settings::of(&file(&[(name, text)])).unwrap().policy;
            assert_ne!(new, running, "{name} is none of the pool's");
            assert_eq!(resized(&running, &new) != running, table::is_live(name), "{name}");
        }
        let known: Vec<_> = others.map(|(name, _)| name).into_iter().chain([table::LOG_LEVEL]).collect();
        assert!(table::LIVE.iter().all(|name| known.contains(name)), "one is not looked at here");
    }
}
