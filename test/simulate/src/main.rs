//! The simulation as a program.

#![forbid(unsafe_code)]

use std::{error::Error, io::Write, path::PathBuf, process::ExitCode, time::Duration};

use clap::{Parser, ValueEnum};
use serde_json::Value;
use simulate::{
    managers::CHOICES,
    plot,
    report::Comparison,
    run::Common,
    trace::{Shape, Trace},
};

/// A cluster in virtual time: the real engine of N nodes on one account's EC2 budget, beside the AWS CNI's policies
#[derive(Debug, Parser)]
#[command(name = "simulate", version, after_help = managers_help())]
struct Cli {
    /// What is asked of the cluster
    #[arg(long, value_enum, default_value_t = Demand::Start)]
    trace: Demand,
    /// How many nodes. Absent: 150 that start at once, 20 otherwise
    #[arg(long)]
    nodes: Option<usize>,
    /// How many pods on each node, where all start at once
    #[arg(long, default_value_t = 10)]
    pods: usize,
    /// Decides all chance: the same seed gives the same report
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Instance type of all nodes
    #[arg(long, default_value = "m5.xlarge", value_name = "TYPE")]
    instance: String,
    /// Who manages the addresses, separated by commas. Absent: all of them; from 1,001 nodes on only eni
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
    /// Services and now and then a batch of pods
    Batch,
    /// Services and their deployments
    Steady,
    /// Services and pods at even times
    Cron,
    /// A tide of pods under an autoscaler
    Churn,
    /// Services that come and go as a whole
    Zero,
    /// The five before, one after the other
    All,
    /// One node that is filled with 110 pods, all at once and one each second, and then idles for 24 hours
    Node,
}

impl Demand {
    /// The shapes that are run to their end. Empty: all nodes start at once.
    fn shapes(self) -> Vec<Shape> {
        match self {
            Self::Start | Self::Node => vec![],
            Self::Batch => vec![Shape::Batch],
            Self::Steady => vec![Shape::Steady],
            Self::Cron => vec![Shape::Cron],
            Self::Churn => vec![Shape::Churn],
            Self::Zero => vec![Shape::Zero],
            Self::All => Shape::ALL.to_vec(),
        }
    }
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
    let shapes = cli.trace.shapes();
    let comparisons = if cli.trace == Demand::Node {
        let (minute, day) = (Duration::from_secs(60), Duration::from_secs(24 * 3600));
        let (at_once, slowly) = (Duration::ZERO, Duration::from_secs(1));
        let traces = [(at_once, minute * 10), (at_once, day), (slowly, minute * 10), (slowly, day)];
        traces.map(|(gap, idle)| common.compare_on(&managers, &Trace::fill(110, gap, idle))).to_vec()
    } else if shapes.is_empty() {
        vec![common.compare_starts(&managers, cli.nodes.unwrap_or(150), cli.pods)]
    } else {
        let nodes = cli.nodes.unwrap_or(20);
        let room = common.room();
        shapes.into_iter().map(|shape| common.compare_on(&managers, &shape.trace(nodes, room, cli.seed))).collect()
    };
    print(cli, &comparisons)
}

fn managers(cli: &Cli) -> Result<Vec<String>, String> {
    if cli.manager.is_empty() {
        let few = cli.nodes.is_none_or(|nodes| nodes <= 1000);
        let wanted = CHOICES.iter().filter(|choice| few || choice.name == "eni");
        return Ok(wanted.map(|choice| choice.name.to_owned()).collect());
    }
    match cli.manager.iter().find(|name| CHOICES.iter().all(|choice| choice.name != name.as_str())) {
        Some(unknown) => Err(format!("there is no manager `{unknown}`; `simulate --help` lists them")),
        None => Ok(cli.manager.clone()),
    }
}

fn print(cli: &Cli, comparisons: &[Comparison]) -> Result<(), Box<dyn Error>> {
    if let Some(path) = &cli.plot {
        std::fs::write(path, plot::svg(comparisons)).map_err(|error| format!("{}: {error}", path.display()))?;
    }
    let text = match cli.output {
        Output::Text => comparisons.iter().map(Comparison::table).collect::<Vec<_>>().join("\n"),
        Output::Json => format!("{:#}\n", comparisons.iter().map(Comparison::json).collect::<Value>()),
    };
    Ok(std::io::stdout().write_all(text.as_bytes())?)
}
