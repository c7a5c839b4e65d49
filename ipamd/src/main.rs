//! ipamd: keeps VPC addresses ready on this node and answers the CNI plugin.

#![forbid(unsafe_code)]

mod clock;
mod conflist;
mod connections;
mod doctor;
mod ended;
mod explain;
mod folders;
mod gc;
mod history;
mod host;
mod inspect;
mod install;
mod metadata;
mod orphans;
mod reconcile;
mod released;
mod sandboxes;
mod server;
mod settings;
mod start;
mod status;
mod store;

use std::{collections::BTreeMap, fmt::Write as _, path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand, ValueEnum};
use settings::Settings;

/// Keeps VPC addresses ready on this node and answers the CNI plugin.
#[derive(Parser)]
#[command(
    version,
    after_help = "Examples:\n  ipamd serve\n  WARM_IP_TARGET=8 ipamd serve --socket /tmp/ipamd.sock --database /tmp/ipamd.db\n  ipamd status --output json\n\nExit codes: 0 done; 1 could not do it, the text on stderr says why; 2 wrong arguments or settings."
)]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Runs the daemon until SIGTERM or SIGINT.
    #[command(after_help = settings_help())]
    Serve(Places),
    /// Puts the CNI plugin where the container runtime looks for it (HOST_CNI_BIN_PATH).
    #[command(after_help = INSTALL_HELP)]
    Install {
        /// The plugin; absent: the `eni-cni` beside this program.
        #[arg(long)]
        plugin: Option<PathBuf>,
    },
    /// Takes plugin, CNI configuration, rules, routes and nf_tables table off this node. The daemon must not run.
    Uninstall {
        /// Also when pods are still there; they lose their network.
        #[arg(long)]
        force: bool,
    },
    /// Shows how the pool of the running daemon stands.
    Status {
        #[command(flatten)]
        places: Places,
        /// For people or for machines.
        #[arg(long, value_enum, default_value_t = Output::Table)]
        output: Output,
    },
    /// Holds every lease against database, kernel and EC2; says what is wrong, why it matters and how to mend it.
    #[command(after_help = DOCTOR_HELP)]
    Doctor {
        #[command(flatten)]
        places: Places,
        /// Leaves EC2 out: one call less, and quick where EC2 is away.
        #[arg(long)]
        no_ec2: bool,
        /// For people, or one JSON object.
        #[arg(long, value_enum, default_value_t = Output::Table)]
        output: Output,
    },
    /// Shows the way of a pod's packets, and everything that leads to it.
    #[command(after_help = EXPLAIN_HELP)]
    Explain {
        #[command(flatten)]
        places: Places,
        /// NAMESPACE/NAME of a pod, or its address.
        subject: String,
        /// For people, or one JSON object for each interface.
        #[arg(long, value_enum, default_value_t = Output::Table)]
        output: Output,
    },
    /// Tells which pod held an address when, from the database; needs no running daemon.
    #[command(after_help = HISTORY_HELP)]
    History {
        #[command(flatten)]
        places: Places,
        #[command(flatten)]
        question: history::Question,
        /// For people, or one JSON object a line.
        #[arg(long, value_enum, default_value_t = Output::Table)]
        output: Output,
    },
}

const INSTALL_HELP: &str = "Example:
  HOST_CNI_BIN_PATH=/host/opt/cni/bin ipamd install

The plugin is run once before it is put in place. The former one stays beside it as eni-cni.previous.
The CNI configuration is written later, by the daemon, once it can serve.";

const DOCTOR_HELP: &str = "Examples:
  ipamd doctor
  ipamd doctor --no-ec2 --output json

Changes nothing. Exit codes: 0 all is well; 1 something is wrong; 3 nothing wrong was found, but not everything could be checked.";

const EXPLAIN_HELP: &str = "Examples:
  ipamd explain web/shop-7d9f
  ipamd explain 10.0.3.7 --output json";

const HISTORY_HELP: &str = "Examples:
  ipamd history --ip 10.0.3.7 --at 2026-11-20T14:02Z
  ipamd history --pod web/shop-7d9f
  ipamd history --output json

A record of a VPC flow log belongs to the JSON line with the same interface-id and pkt-srcaddr whose time from start to end
(seconds since 1970; end is null while the pod lives) overlaps the record's. IPAMD_HISTORY_DAYS and IPAMD_HISTORY_ROWS bound what is kept.";

#[derive(clap::Args, Default)]
struct Places {
    /// Socket that the plugin talks to; goes before IPAMD_SOCKET.
    #[arg(long)]
    socket: Option<PathBuf>,
    /// Lease database; goes before IPAMD_DATABASE.
    #[arg(long)]
    database: Option<PathBuf>,
    /// Folder of release notes; goes before IPAMD_RELEASED_DIR.
    #[arg(long)]
    released_dir: Option<PathBuf>,
}

/// Form of what is printed.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    /// Lines for people.
    Table,
    /// JSON.
    Json,
}

#[tokio::main]
async fn main() -> ExitCode {
    match Arguments::parse().verb {
        Verb::Serve(places) => Box::pin(serve(&places)).await,
        Verb::Install { plugin } => with_settings(|settings| {
            let plugin = plugin.unwrap_or_else(install::shipped_plugin);
            let versions = install::install(&plugin, settings)?;
            Ok(vec![format!("{} is in {}: {versions}", plugin.display(), settings.plugin_dir.display())])
        }),
        Verb::Uninstall { force } => with_settings(|settings| install::uninstall(settings, force)),
        Verb::Status { places, output } => match read_settings(&places) {
            Ok(settings) => status::show(&settings.socket, output == Output::Json).await,
            Err(code) => code,
        },
        Verb::Doctor { places, no_ec2, output } => match read_settings(&places) {
            Ok(settings) => Box::pin(doctor::show(&settings, !no_ec2, output == Output::Json)).await,
            Err(code) => code,
        },
        Verb::Explain { places, subject, output } => match read_settings(&places) {
            Ok(settings) => Box::pin(explain::show(&settings, &subject, output == Output::Json)).await,
            Err(code) => code,
        },
        Verb::History { places, question, output } => match read_settings(&places) {
            Ok(settings) => history::show(&settings.database, &question, output == Output::Json).await,
            Err(code) => code,
        },
    }
}

async fn serve(places: &Places) -> ExitCode {
    let settings = match read_settings(places) {
        Ok(settings) => settings,
        Err(code) => return code,
    };
    begin_logging(&settings.log_level);
    match Box::pin(start::serve(settings)).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&reconcile::chain(&error));
            ExitCode::FAILURE
        }
    }
}

/// Runs a command that tells what it did, one thing a line.
#[allow(clippy::print_stdout, reason = "a command for people")]
fn with_settings(command: impl FnOnce(&Settings) -> Result<Vec<String>, install::InstallError>) -> ExitCode {
    let settings = match read_settings(&Places::default()) {
        Ok(settings) => settings,
        Err(code) => return code,
    };
    match command(&settings) {
        Ok(lines) => {
            lines.iter().for_each(|line| println!("{line}"));
            ExitCode::SUCCESS
        }
        Err(error) => {
            complain(&reconcile::chain(&error));
            ExitCode::FAILURE
        }
    }
}

fn read_settings(places: &Places) -> Result<Settings, ExitCode> {
    let given: BTreeMap<_, _> = [
        ("IPAMD_SOCKET", &places.socket),
        ("IPAMD_DATABASE", &places.database),
        ("IPAMD_RELEASED_DIR", &places.released_dir),
    ]
    .into_iter()
    .filter_map(|(name, path)| Some((name, path.as_ref()?.to_string_lossy().into_owned())))
    .collect();
    Settings::read(|name| given.get(name).cloned().or_else(|| std::env::var(name).ok())).map_err(|mistakes| {
        complain(&mistakes.to_string());
        ExitCode::from(2)
    })
}

/// Says on stderr why nothing was done.
#[allow(clippy::print_stderr, reason = "the program's last words go where people look")]
fn complain(text: &str) {
    eprintln!("ipamd: {text}");
}

fn begin_logging(level: &str) {
    // Only our own crates at the chosen level: the SDK's and the server's details help nobody at `info`.
    let filter = format!("warn,ipamd={level},ipam_aws={level},ipam_core={level}");
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(false).init();
}

fn settings_help() -> String {
    let mut text = "Settings, from the environment:\n".to_owned();
    for (name, default, meaning) in settings::REFERENCE {
        let default = if default.is_empty() { "not set" } else { default };
        // Writing to a string cannot fail.
        let _ = writeln!(text, "  {name:<36} {meaning} [{default}]");
    }
    text
}
