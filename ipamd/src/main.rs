//! ipamd: keeps VPC addresses ready on this node and answers the CNI plugin.

#![forbid(unsafe_code)]

mod admin;
mod arguments;
mod ask;
mod branches;
mod bundle;
mod cards;
mod clock;
mod config;
mod conflist;
mod connections;
mod doctor;
mod ended;
mod errors;
mod explain;
mod folders;
mod gc;
mod handle;
mod history;
mod host;
mod incumbent;
mod inspect;
mod install;
mod journal;
mod kube;
mod live;
mod logging;
mod metadata;
mod metrics;
mod migrate;
mod orphans;
mod policy_agent;
mod reconcile;
mod released;
mod reports;
mod sandboxes;
mod server;
mod settings;
mod socket;
mod start;
mod status;
mod store;
mod table;
mod tenure;
mod view;
mod waits;

use std::process::ExitCode;

use arguments::{Arguments, ConfigVerb, Look, MigrateArguments, Output, Places, Verb};
use ask::Subject;
use clap::{CommandFactory, Parser};
use errors::{chain, complain};
use logging::LogPlan;
use settings::Settings;

// What takes long has threads of its own. A worker for each core would be 96 on the largest nodes, most of them idle memory.
#[tokio::main(worker_threads = 2)]
async fn main() -> ExitCode {
    match Arguments::parse().verb {
        Verb::Serve(places) => Box::pin(serve(&places)).await,
        Verb::Install { plugin } => with_settings(|settings| {
            let plugin = plugin.unwrap_or_else(install::shipped_plugin);
            let versions = install::install(&plugin, settings)?;
            Ok(vec![format!("{} is in {}: {versions}", plugin.display(), settings.plugin_dir.display())])
        }),
        Verb::Uninstall { force } => with_settings(|settings| install::uninstall(settings, force)),
        Verb::Status { places, look } => looked(&places, Subject::Status, &look).await,
        Verb::Pods { places, look } => looked(&places, Subject::Pods, &look).await,
        Verb::Plan { places, look } => looked(&places, Subject::Plan, &look).await,
        Verb::LogLevel { places, level } => match places.settings() {
            Ok(settings) => ask::set_log_level(&settings.socket, &level).await,
            Err(code) => code,
        },
        Verb::SupportBundle { places, path } => match (places.sources(), places.settings()) {
            (Ok(sources), Ok(settings)) => {
                let settings = Settings::beside_daemon(&sources).await.unwrap_or(settings);
                Box::pin(bundle::write(&sources, &settings, &path)).await
            }
            (Err(code), _) | (_, Err(code)) => code,
        },
        Verb::Completions { shell } => {
            clap_complete::generate(shell, &mut Arguments::command(), "ipamd", &mut std::io::stdout());
            ExitCode::SUCCESS
        }
        Verb::Doctor { places, no_ec2, repair, output } => match places.settings_beside_daemon().await {
            Ok(settings) => Box::pin(doctor::show(&settings, !no_ec2, repair, output == Output::Json)).await,
            Err(code) => code,
        },
        Verb::Explain { places, subject, output } => match places.settings_beside_daemon().await {
            Ok(settings) => Box::pin(explain::show(&settings, &subject, output == Output::Json)).await,
            Err(code) => code,
        },
        Verb::Config { verb: ConfigVerb::Check { places, values: Some(file), output } } => {
            config::check_values(&places, &file, output == Output::Json)
        }
        Verb::Config { verb: ConfigVerb::Check { places, values: None, output } } => match places.sources() {
            Ok(sources) => config::check(&sources, None, output == Output::Json),
            Err(code) => code,
        },
        Verb::Config { verb: ConfigVerb::Reference { output } } => config::reference(output == Output::Json),
        Verb::Migrate { verb } => {
            let (wish, MigrateArguments { places, surroundings, output }) = verb.parts();
            match places.settings() {
                Ok(settings) => Box::pin(migrate::run(wish, &settings, &surroundings, output == Output::Json)).await,
                Err(code) => code,
            }
        }
        Verb::History { places, question, output } => match places.settings() {
            Ok(settings) => history::show(&settings.database, &question, output == Output::Json).await,
            Err(code) => code,
        },
    }
}

async fn looked(places: &Places, subject: Subject, look: &Look) -> ExitCode {
    match places.settings() {
        Ok(settings) => ask::show(&settings.socket, subject, look).await,
        Err(code) => code,
    }
}

async fn serve(places: &Places) -> ExitCode {
    let sources = match places.sources() {
        Ok(sources) => sources,
        Err(code) => return code,
    };
    let settings = match Settings::of(&sources) {
        Ok(settings) => settings,
        Err(mistakes) => return arguments::wrong(&mistakes),
    };
    if let Err(code) = begin_log(&settings.log) {
        return code;
    }
    for warning in sources.warnings() {
        tracing::warn!(warning, "a setting has no effect, or a bad one");
    }
    let given = sources.given();
    let (changes, policy) = tokio::sync::watch::channel(settings.policy.clone());
    if sources.config_file().is_some() {
        tokio::spawn(settings::reload::follow(sources, changes));
    }
    match Box::pin(start::serve(settings, given, policy)).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&chain(&error));
            ExitCode::FAILURE
        }
    }
}

/// Begins to log. A file that cannot be opened costs no pod its network: the log goes to stderr then, and says so.
fn begin_log(plan: &LogPlan) -> Result<(), ExitCode> {
    let Err(error) = logging::begin(plan) else { return Ok(()) };
    if let Err(error) = logging::begin(&LogPlan { file: None, ..plan.clone() }) {
        complain(&format!("the log cannot begin: {error}"));
        return Err(ExitCode::FAILURE);
    }
    tracing::error!(file = ?plan.file, %error, "IPAM-315 the log file cannot be opened; the log goes to stderr");
    Ok(())
}

/// Runs a command that tells what it did, one thing a line.
#[allow(clippy::print_stdout, reason = "a command for people")]
fn with_settings(command: impl FnOnce(&Settings) -> Result<Vec<String>, install::InstallError>) -> ExitCode {
    let settings = match Places::default().settings() {
        Ok(settings) => settings,
        Err(code) => return code,
    };
    match command(&settings) {
        Ok(lines) => {
            lines.iter().for_each(|line| println!("{line}"));
            ExitCode::SUCCESS
        }
        Err(error) => {
            complain(&chain(&error));
            ExitCode::FAILURE
        }
    }
}
