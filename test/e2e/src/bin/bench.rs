//! `make bench`: what an ADD and a forwarded packet cost, beside the floor and a peer in the same run.
//!
//! Machines differ and are noisy, so only ratios count: what is compared is measured in turn, and medians are divided.

#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, reason = "a program that shows a table")]

#[path = "bench/add.rs"]
mod add;
#[path = "bench/crowd.rs"]
mod crowd;
#[path = "bench/daemon.rs"]
mod daemon;
#[path = "bench/floor.rs"]
mod floor;
#[path = "bench/forward.rs"]
mod forward;
#[path = "bench/report.rs"]
mod report;
#[path = "bench/stage.rs"]
mod stage;
#[path = "bench/traffic.rs"]
mod traffic;
#[path = "bench/wire.rs"]
mod wire;

use std::{path::PathBuf, process::ExitCode};

use clap::Parser;
use e2e::{Binaries, Trouble};
use report::Row;

/// Measures a warm ADD and a forwarded packet against the floor, and writes the figures down.
#[derive(Debug, Parser)]
#[command(
    after_help = "Exit code 0: all was measured, also when a goal was missed. 1: something could not be measured."
)]
struct Arguments {
    /// The daemon, best built with --release.
    #[arg(long)]
    ipamd: Option<PathBuf>,
    /// The plugin.
    #[arg(long)]
    plugin: Option<PathBuf>,
    /// Where the figures go, as JSON.
    #[arg(long, default_value = "target/bench/report.json")]
    report: PathBuf,
    /// Where the picture of forwarding goes, as SVG.
    #[arg(long, default_value = "target/bench/forward.svg")]
    plot: PathBuf,
    /// Measure only this.
    #[arg(long, value_enum)]
    only: Option<Part>,
    /// A tenth of the runs: to see that it works, not to measure.
    #[arg(long)]
    quick: bool,
    /// Serves nothing, and makes this file once it listens: what the daemon's start is held against.
    #[arg(long, hide = true)]
    empty_server: Option<PathBuf>,
}

/// What can be measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    /// A whole ADD, which needs the daemon.
    Add,
    /// The wiring alone.
    Wire,
    /// A change of nf_tables beside others' rules.
    Crowd,
    /// A forwarded packet.
    Forward,
    /// An idle daemon and its start.
    Daemon,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if let Some(started) = &arguments.empty_server {
        return daemon::serve_nothing(started).map_or(ExitCode::FAILURE, |()| ExitCode::SUCCESS);
    }
    match measure(&arguments) {
        Ok(rows) => {
            report::show(&rows);
            println!("\nwritten to {}", arguments.report.display());
            ExitCode::SUCCESS
        }
        Err(trouble) => {
            println!("bench: {}", trouble.chain());
            ExitCode::FAILURE
        }
    }
}

fn measure(arguments: &Arguments) -> Result<Vec<Row>, Trouble> {
    lab::enter_user_namespace_if_not_root()?;
    let share = if arguments.quick { 10 } else { 1 };
    let wants = |part| arguments.only.is_none_or(|only| only == part);
    let mut rows = Vec::new();
    if wants(Part::Add) {
        rows.extend(with_binaries(arguments, |binaries| add::measure(binaries, 200 / share))?);
    }
    if wants(Part::Wire) {
        rows.extend(wire::measure(150 / share)?);
    }
    if wants(Part::Crowd) {
        rows.extend(crowd::measure(100 / share)?);
    }
    if wants(Part::Forward) {
        let (measured, panels) = forward::measure(40 / share)?;
        rows.extend(measured);
        let title = "What a pod's packets cost, by the number of pods on the node".to_owned();
        let picture = simulate::plot::picture(&[(title, panels)]);
        report::save(&arguments.plot, &picture).map_err(Trouble::os("write the picture"))?;
    }
    if wants(Part::Daemon) {
        daemon::own_mounts()?;
        let part = if arguments.quick { 10 } else { 1 };
        rows.extend(with_binaries(arguments, |binaries| daemon::measure(binaries, part, 20 / share))?);
    }
    report::write(&arguments.report, &rows).map_err(Trouble::os("write the report"))?;
    Ok(rows)
}

/// Runs what needs the real binaries.
fn with_binaries<F>(arguments: &Arguments, measure: impl FnOnce(Binaries) -> F) -> Result<Vec<Row>, Trouble>
where
    F: Future<Output = Result<Vec<Row>, Trouble>>,
{
    let binaries = Binaries::find(arguments.ipamd.clone(), arguments.plugin.clone())?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.map_err(Trouble::os("start a runtime"))?;
    runtime.block_on(measure(binaries))
}
