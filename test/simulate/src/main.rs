//! The simulation as a program.

#![forbid(unsafe_code)]

use std::{error::Error, io::Write, path::PathBuf, process::ExitCode};

use clap::{Parser, ValueEnum};
use simulate::{managers::CHOICES, plot, report::Comparison, run::Common};

/// A cluster in virtual time: the real engine of N nodes on one account's EC2 budget, beside the AWS CNI's policies
#[derive(Debug, Parser)]
#[command(name = "simulate", version, after_help = managers_help())]
struct Cli {
    /// What is asked of the cluster
    #[arg(long, value_enum, default_value_t = Demand::Start)]
    trace: Demand,
    /// How many nodes
    #[arg(long, default_value_t = 150)]
    nodes: usize,
    /// How many pods on each node, where all start at once
    #[arg(long, default_value_t = 10)]
    pods: usize,
    /// Decides all chance: the same seed gives the same report
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Instance type of all nodes
    #[arg(long, default_value = "m5.xlarge", value_name = "TYPE")]
    instance: String,
    /// Who manages the addresses, separated by commas. Absent: all of them; from 1,001 nodes on only ours
    #[arg(long, value_delimiter = ',', value_name = "NAMES")]
    manager: Vec<String>,
    /// How to print the report
    #[arg(long, value_enum, default_value_t = Output::Text)]
    output: Output,
    /// Also draw it here, as SVG
    #[arg(long, value_name = "FILE")]
    plot: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Demand {
    /// All nodes and all their pods at once
    Start,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    /// A table
    Text,
    /// For programs; times in milliseconds
    Json,
}

fn managers_help() -> String {
    let lines = CHOICES.map(|choice| format!("  {:<11} {}", choice.name, choice.about));
    format!("Managers:\n{}", lines.join("\n"))
}

fn main() -> ExitCode {
    match run(&Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Nobody is left to hear of a failure to write this.
            drop(writeln!(std::io::stderr(), "simulate: {error}"));
            ExitCode::FAILURE
        }
    }
}

fn run(cli: &Cli) -> Result<(), Box<dyn Error>> {
    let common = Common::new(cli.seed, &cli.instance)
        .ok_or_else(|| format!("instance type `{}` is not known; give one as m5.xlarge", cli.instance))?;
    let managers = managers(cli)?;
    let comparison = match cli.trace {
        Demand::Start => common.compare_starts(&managers, cli.nodes, cli.pods),
    };
    print(cli, &comparison)
}

fn managers(cli: &Cli) -> Result<Vec<String>, String> {
    if cli.manager.is_empty() {
        let wanted = CHOICES.iter().filter(|choice| choice.ours || cli.nodes <= 1000);
        return Ok(wanted.map(|choice| choice.name.to_owned()).collect());
    }
    match cli.manager.iter().find(|name| CHOICES.iter().all(|choice| choice.name != name.as_str())) {
        Some(unknown) => Err(format!("there is no manager `{unknown}`; `simulate --help` lists them")),
        None => Ok(cli.manager.clone()),
    }
}

fn print(cli: &Cli, comparison: &Comparison) -> Result<(), Box<dyn Error>> {
    if let Some(path) = &cli.plot {
        std::fs::write(path, plot::svg(comparison)).map_err(|error| format!("{}: {error}", path.display()))?;
    }
    let text = match cli.output {
        Output::Text => comparison.table(),
        Output::Json => format!("{:#}\n", comparison.json()),
    };
    Ok(std::io::stdout().write_all(text.as_bytes())?)
}
