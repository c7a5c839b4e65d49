//! The command line: what can be asked of `ipamd`, and with what help.

use std::{collections::BTreeMap, ffi::OsString, path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand, ValueEnum};

use crate::{
    errors::complain,
    migrate,
    settings::{self, Mistakes, Settings, sources::Sources},
    tenure,
};

/// Keeps VPC addresses ready on this node and answers the CNI plugin.
#[derive(Parser)]
#[command(
    version,
    after_help = "Examples:\n  ipamd serve\n  WARM_IP_TARGET=8 ipamd serve --socket /tmp/ipamd.sock --database /tmp/ipamd.db\n  ipamd status --output json\n\nExit codes: 0 done; 1 could not do it, the text on stderr says why, or something is wrong (doctor); 2 wrong arguments or settings; 3 the daemon is not ready, or not everything could be checked (doctor). Each command's help has its own."
)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

#[derive(Subcommand)]
pub(crate) enum Verb {
    /// Runs the daemon until SIGTERM or SIGINT.
    #[command(after_help = format!("{SERVE_HELP}\n\n{}", settings::reference::as_help()))]
    Serve(Places),
    /// Puts the CNI plugin where the container runtime looks for it (HOST_CNI_BIN_PATH).
    #[command(after_help = INSTALL_HELP)]
    Install {
        /// The plugin; absent: the `eni-cni` beside this program.
        #[arg(long)]
        plugin: Option<PathBuf>,
    },
    /// Takes plugin, CNI configuration, rules, routes and nf_tables table off this node. The daemon must not run.
    #[command(after_help = UNINSTALL_HELP)]
    Uninstall {
        /// Also when pods are still there; they lose their network.
        #[arg(long)]
        force: bool,
    },
    /// Shows how the pool of the running daemon stands: ENIs, addresses, what is waited for.
    #[command(after_help = STATUS_HELP)]
    Status {
        #[command(flatten)]
        places: Places,
        #[command(flatten)]
        look: Look,
    },
    /// Shows which pod has which address.
    #[command(after_help = PODS_HELP)]
    Pods {
        #[command(flatten)]
        places: Places,
        #[command(flatten)]
        look: Look,
    },
    /// Shows what the daemon does at EC2, would do next, and waits for; and how its share of EC2's budget is used.
    #[command(after_help = PLAN_HELP)]
    Plan {
        #[command(flatten)]
        places: Places,
        #[command(flatten)]
        look: Look,
    },
    /// Changes the level of the running daemon's log until it ends: error, warn, info, debug or trace.
    #[command(after_help = LEVEL_HELP)]
    LogLevel {
        #[command(flatten)]
        places: Places,
        level: String,
    },
    /// Writes all that helps to find out what is wrong into one tar archive: bounded, without secrets, with or without a daemon.
    #[command(after_help = BUNDLE_HELP)]
    SupportBundle {
        #[command(flatten)]
        places: Places,
        /// The archive; it must not be there yet.
        #[arg(default_value = "ipamd-support.tar")]
        path: PathBuf,
    },
    /// Prints the completion script of a shell.
    #[command(
        after_help = "Example:\n  ipamd completions bash > /etc/bash_completion.d/ipamd\n\nExit codes: 0 printed; 2 there is no such shell."
    )]
    Completions { shell: clap_complete::Shell },
    /// Holds the node and every lease against database, kernel and EC2; says what is wrong, why it matters and how to mend it.
    #[command(after_help = DOCTOR_HELP)]
    Doctor {
        #[command(flatten)]
        places: Places,
        /// Leaves EC2 out: one call less, and quick where EC2 is away.
        #[arg(long)]
        no_ec2: bool,
        /// Mends what is ours on this node, says what was done, and looks again. Nothing is changed at EC2, and no pod is touched that works.
        #[arg(long)]
        repair: bool,
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
    /// Checks the settings, or shows all that there are.
    Config {
        #[command(subcommand)]
        verb: ConfigVerb,
    },
    /// Takes a node over from amazon-vpc-cni-k8s under running pods, or gives it back.
    #[command(after_help = MIGRATE_HELP)]
    Migrate {
        #[command(subcommand)]
        verb: MigrateVerb,
    },
    /// Tells which pod held an address when, from the database; needs no running daemon.
    #[command(after_help = HISTORY_HELP)]
    History {
        #[command(flatten)]
        places: Places,
        #[command(flatten)]
        question: tenure::Question,
        /// For people, or one JSON object a line.
        #[arg(long, value_enum, default_value_t = Output::Table)]
        output: Output,
    },
}

/// What can be done about the incumbent.
#[derive(Subcommand)]
pub(crate) enum MigrateVerb {
    /// Says what is there, what can be taken over and what not. Changes nothing.
    #[command(after_help = MIGRATE_HELP)]
    Check(MigrateArguments),
    /// Takes leases, pods and ENIs over, and removes the incumbent's rules and chains. Neither daemon may run.
    #[command(after_help = MIGRATE_HELP)]
    Import(MigrateArguments),
    /// Gives everything back, and removes all that is ours. Neither daemon may run.
    #[command(after_help = MIGRATE_HELP)]
    Back(MigrateArguments),
}

/// Arguments of each.
#[derive(clap::Args)]
pub(crate) struct MigrateArguments {
    #[command(flatten)]
    pub(crate) places: Places,
    #[command(flatten)]
    pub(crate) surroundings: migrate::Surroundings,
    /// For people, or one JSON object.
    #[arg(long, value_enum, default_value_t = Output::Table)]
    pub(crate) output: Output,
}

impl MigrateVerb {
    /// What is wished, and with which arguments.
    pub(crate) fn parts(self) -> (migrate::Wish, MigrateArguments) {
        match self {
            Self::Check(arguments) => (migrate::Wish::Check, arguments),
            Self::Import(arguments) => (migrate::Wish::Import, arguments),
            Self::Back(arguments) => (migrate::Wish::Back, arguments),
        }
    }
}

/// What can be done with settings.
#[derive(Subcommand)]
pub(crate) enum ConfigVerb {
    /// Reads the settings as `serve` would, and shows each with who set it; mistakes and names without effect on stderr.
    #[command(after_help = CHECK_HELP)]
    Check {
        #[command(flatten)]
        places: Places,
        /// A values file of the chart of amazon-vpc-cni-k8s, instead of the environment.
        #[arg(long)]
        values: Option<PathBuf>,
        /// For people, or one JSON object.
        #[arg(long, value_enum, default_value_t = Output::Table)]
        output: Output,
    },
    /// Shows every setting there is: name, what it accepts, default, meaning.
    #[command(after_help = REFERENCE_HELP)]
    Reference {
        /// A Markdown page, or one JSON object with a schema for each setting.
        #[arg(long, value_enum, default_value_t = Output::Table)]
        output: Output,
    },
}

const SERVE_HELP: &str = "Examples:
  ipamd serve
  ipamd serve --config /etc/eni-cni/ipamd.toml --set WARM_IP_TARGET=8

Exit codes: 0 ended by SIGTERM or SIGINT; 1 could not start or go on, the text on stderr says why; 2 wrong arguments or settings.";

const UNINSTALL_HELP: &str = "Examples:
  ipamd uninstall
  HOST_CNI_BIN_PATH=/host/opt/cni/bin ipamd uninstall --force

Exit codes: 0 nothing of it is left; 1 pods are still there, the daemon runs, or something could not be removed.";

const LEVEL_HELP: &str = "Example:
  ipamd log-level debug

The setting AWS_VPC_K8S_CNI_LOGLEVEL counts again at the next start. Exit codes: 0 changed; 1 not.";

const STATUS_HELP: &str = "Examples:
  ipamd status
  ipamd status --watch
  ipamd status --output json | jq .addresses

Exit codes: 0 ready; 1 no daemon answers; 3 the daemon answers, but is not ready.";

const PODS_HELP: &str = "Examples:
  ipamd pods
  ipamd pods --output wide
  ipamd pods --output json | jq -r '.leases[] | .pod + \" \" + .address'

Exit codes: 0 shown; 1 no daemon answers; 3 the daemon has not finished its start.";

const PLAN_HELP: &str = "Examples:
  ipamd plan
  ipamd plan --watch --output wide

Changes nothing. Exit codes: 0 shown; 1 no daemon answers; 3 the daemon has not finished its start.";

const BUNDLE_HELP: &str = "Example:
  ipamd support-bundle /tmp/node-7.tar

In it: settings, the daemon's documents and metrics, doctor, history, links, rules, routes, nf_tables, CNI configuration. Names of pods and
addresses are in it; lines that look like secrets are cut. Exit codes: 0 written; 1 not.";

const CHECK_HELP: &str = "Examples:
  ipamd config check
  ipamd config check --config /etc/eni-cni/ipamd.toml --set WARM_IP_TARGET=8 --output json
  ipamd config check --values aws-vpc-cni.yaml
  ipamd config check --values aws-vpc-cni.yaml --output json | jq .values > eni-cni.json   # helm install --values eni-cni.json

With --values each value is carried over (the settings shown, and `values` of the JSON for our chart), or named in a warning with the reason.
Starts and changes nothing. Exit codes: 0 the daemon would start with them, with warnings perhaps; 2 something is wrong.";

const REFERENCE_HELP: &str = "Examples:
  ipamd config reference > SETTINGS.md
  ipamd config reference --output json | jq '.settings[] | {(.name): .schema}'

Exit code: 0.";

const MIGRATE_HELP: &str = "Examples:
  ipamd migrate check --output json
  ipamd migrate import
  ipamd migrate back

Needs the metadata service, but not EC2. A command that was interrupted is finished by the same command again.
Exit codes: 0 done, or nothing stands against it; 1 something does, or a step failed: the text says what. See MIGRATION.md.";

const INSTALL_HELP: &str = "Example:
  HOST_CNI_BIN_PATH=/host/opt/cni/bin ipamd install

The plugin is run once before it is put in place. The former one stays beside it as eni-cni.previous.
The CNI configuration is written later, by the daemon, once it can serve.
Exit codes: 0 done; 1 not, the node is as it was; 2 wrong settings.";

const DOCTOR_HELP: &str = "Examples:
  ipamd doctor
  ipamd doctor --no-ec2 --output json
  ipamd doctor --repair

What is wrong is looked at twice, half a second apart, so that a pod that is just being made is no finding. Settings that are not given are
those of the daemon of this node. Changes nothing without --repair. Exit codes: 0 all is well; 1 something is wrong; 3 nothing wrong was found, but not everything could be checked.";

const EXPLAIN_HELP: &str = "Examples:
  ipamd explain web/shop-7d9f
  ipamd explain 10.0.3.7 --output json

Of an address or a name that no pod here has it says on stderr what it is and who had it last.
Exit codes: 0 shown; 1 nobody here has it, or the leases cannot be read.";

const HISTORY_HELP: &str = "Examples:
  ipamd history --ip 10.0.3.7 --at 2026-11-20T14:02Z
  ipamd history --pod web/shop-7d9f
  ipamd history --output json

A record of a VPC flow log belongs to the JSON line with the same interface-id and pkt-srcaddr whose time from start to end
(seconds since 1970; end is null while the pod lives) overlaps the record's. IPAMD_HISTORY_DAYS and IPAMD_HISTORY_ROWS bound what is kept.
Exit codes: 0 answered, also when nobody held it; 1 there is no history to read.";

#[derive(clap::Args, Default)]
pub(crate) struct Places {
    /// TOML file with settings; goes before IPAMD_CONFIG.
    #[arg(long)]
    config: Option<PathBuf>,
    /// A setting; goes before the environment and the file. May be given again.
    #[arg(long = "set", value_name = "NAME=VALUE", value_parser = pair)]
    set: Vec<(String, String)>,
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

/// How something of the running daemon is shown.
#[derive(clap::Args)]
pub(crate) struct Look {
    /// For people, for people with room, or JSON.
    #[arg(long = "output", value_enum, default_value_t = Form::Table)]
    pub(crate) form: Form,
    /// Shows it again every 2 seconds until it is ended.
    #[arg(long)]
    pub(crate) watch: bool,
}

/// Form of what is shown of the running daemon.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Form {
    /// Lines for people.
    Table,
    /// The same with everything in full.
    Wide,
    /// JSON.
    Json,
}

/// Form of what is printed.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// Lines for people.
    Table,
    /// JSON.
    Json,
}

impl Places {
    /// Everything that is set, wherever it is; else the exit code, after saying why.
    pub(crate) fn sources(&self) -> Result<Sources, ExitCode> {
        let text = |text: OsString| text.into_string().ok();
        let environment = std::env::vars_os().filter_map(|(name, value)| Some((text(name)?, text(value)?))).collect();
        self.sources_beside(environment)
    }

    /// The same with another environment.
    pub(crate) fn sources_beside(&self, environment: BTreeMap<String, String>) -> Result<Sources, ExitCode> {
        let paths = [
            ("IPAMD_CONFIG", &self.config),
            ("IPAMD_SOCKET", &self.socket),
            ("IPAMD_DATABASE", &self.database),
            ("IPAMD_RELEASED_DIR", &self.released_dir),
        ];
        let paths =
            paths.into_iter().filter_map(|(name, path)| Some((name.to_owned(), path.as_ref()?.display().to_string())));
        let command_line = self.set.iter().cloned().chain(paths).collect();
        Sources::gather(command_line, environment).map_err(|mistakes| wrong(&mistakes))
    }

    /// The settings, with the running daemon's where nothing else is said; else the exit code, after saying why.
    pub(crate) async fn settings_beside_daemon(&self) -> Result<Settings, ExitCode> {
        Settings::beside_daemon(&self.sources()?).await.map_err(|mistakes| wrong(&mistakes))
    }

    /// The settings; else the exit code, after saying why.
    pub(crate) fn settings(&self) -> Result<Settings, ExitCode> {
        Settings::of(&self.sources()?).map_err(|mistakes| wrong(&mistakes))
    }
}

/// Tells of mistakes.
pub(crate) fn wrong(mistakes: &Mistakes) -> ExitCode {
    complain(&mistakes.to_string());
    ExitCode::from(WRONG_SETTINGS)
}

/// Exit code of wrong arguments and settings.
pub(crate) const WRONG_SETTINGS: u8 = 2;

fn pair(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("give NAME=VALUE, as WARM_IP_TARGET=8")?;
    Ok((name.trim().to_owned(), value.to_owned()))
}

#[cfg(test)]
mod tests {
    use clap::{Command, CommandFactory};

    use super::Arguments;

    /// Every command that does something, with its whole name.
    fn doers(command: &Command, name: &str) -> Vec<(String, Command)> {
        let below = command.get_subcommands().filter(|one| one.get_name() != "help");
        let found: Vec<_> = below.flat_map(|one| doers(one, &format!("{name} {}", one.get_name()))).collect();
        if found.is_empty() { vec![(name.to_owned(), command.clone())] } else { found }
    }

    #[test]
    fn every_commands_help_has_an_example_of_it_and_its_exit_codes() {
        let all = doers(&Arguments::command(), "ipamd");
        assert!(all.len() > 15, "{}", all.len());
        for (name, command) in all {
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(help.contains("Example") && help.contains(&name), "`{name}` has no example:\n{help}");
            assert!(help.contains("Exit code"), "`{name}` does not say its exit codes:\n{help}");
            assert!(command.get_about().is_some(), "`{name}` does not say what it does");
        }
    }
}
