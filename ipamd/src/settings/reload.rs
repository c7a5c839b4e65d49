//! Follows the settings file while the daemon runs. What can be taken over at once is the level of the log; for the rest it is said that
//! a restart is needed. A file that is wrong changes nothing, loudly: the settings of the start stay.

use std::time::Duration;

use super::{Mistakes, Settings, sources::Sources, table};
use crate::{logging, metrics::METRICS};

/// How often the file is read. A ConfigMap takes about a minute to arrive anyway.
const PERIOD: Duration = Duration::from_secs(20);

/// What a new file asks for.
#[derive(Debug, PartialEq, Eq)]
enum News {
    /// Nothing.
    Same,
    /// Something that cannot be.
    Wrong(Mistakes),
    /// These settings are others than before.
    Others(Vec<&'static str>),
}

/// Reads the file again and again for as long as the runtime lives.
pub(crate) async fn follow(started_with: Sources) {
    let mut known = started_with.clone();
    let mut last_wrong = None;
    loop {
        tokio::time::sleep(PERIOD).await;
        let read = Sources::gather(started_with.command_line.clone(), started_with.environment.clone());
        match news(&known, &read) {
            News::Same => last_wrong = None,
            News::Wrong(mistakes) if last_wrong.as_ref() != Some(&mistakes) => {
                METRICS.bad_reloads.add();
                tracing::error!(%mistakes, "the settings file is wrong now; the daemon goes on with the settings that it has, and would not start with these");
                last_wrong = Some(mistakes);
            }
            News::Wrong(_) => {}
            News::Others(names) => {
                last_wrong = None;
                if let Ok(sources) = read {
                    take_over(&sources, &names);
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
    if let Err(mistakes) = Settings::of(sources) {
        return News::Wrong(mistakes);
    }
    let text = |sources: &Sources, name: &str| sources.get(name).map(|(text, _)| text.to_owned());
    let names = table::all().map(|setting| setting.name);
    let others: Vec<_> = names.filter(|name| text(known, name) != text(sources, name)).collect();
    if others.is_empty() { News::Same } else { News::Others(others) }
}

fn take_over(sources: &Sources, names: &[&'static str]) {
    const LEVEL: &str = "AWS_VPC_K8S_CNI_LOGLEVEL";
    if let Some(settings) = Settings::of(sources).ok().filter(|_| names.contains(&LEVEL))
        && let Err(why) = logging::set_level(settings.log.level)
    {
        tracing::warn!(why, "the level of the log could not be changed");
    }
    let later: Vec<_> = names.iter().filter(|name| **name != LEVEL).copied().collect();
    if !later.is_empty() {
        tracing::warn!(
            settings = later.join(", "),
            "the settings file has changed; this takes effect when ipamd is started again"
        );
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
        assert_eq!(news(&known, &Ok(changed)), News::Others(vec!["WARM_IP_TARGET", "AWS_VPC_K8S_CNI_LOGLEVEL"]));
    }
}
