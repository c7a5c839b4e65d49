//! The simulated cloud as a program.

#![forbid(unsafe_code)]

use std::{error::Error, io::Write, net::SocketAddr, process::ExitCode};

use clap::{Args, Parser, Subcommand};
use ec2_sim::{Clock, Delays, Lags, SimCloud, Weather, WorldConfig, imds};
use tokio::net::TcpListener;

/// EC2 in memory: a VPC, instances, ENIs and addresses with EC2's limits, delays and error codes.
#[derive(Debug, Parser)]
#[command(name = "ec2-sim", version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Answers the EC2 API over HTTP (any region, any credentials) until it is stopped
    Serve(Serve),
}

const EXAMPLE: &str = "\
It begins with a VPC 10.0.0.0/16 and a subnet 10.0.0.0/20, and prints one line once it answers.

Example:
  ec2-sim serve --listen 127.0.0.1:4599 --imds 127.0.0.1:1338 &
  export AWS_ENDPOINT_URL_EC2=http://127.0.0.1:4599 AWS_EC2_METADATA_SERVICE_ENDPOINT=http://127.0.0.1:1338
  export AWS_ACCESS_KEY_ID=any AWS_SECRET_ACCESS_KEY=any AWS_REGION=us-east-1
  aws ec2 describe-subnets
  aws ec2 describe-network-interfaces";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLE)]
struct Serve {
    /// Where to answer EC2 requests; port 0 takes a free port
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// Decides ids, addresses, MACs and delays: the same seed and the same calls give the same ids
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// How much of EC2's documented request budgets to grant, in percent; 0 grants any number of requests
    #[arg(long, value_name = "PERCENT", default_value_t = 100)]
    budget: u32,
    /// Change and tell as late as EC2 does: seconds for an attachment, stale descriptions and metadata
    #[arg(long)]
    late: bool,
    /// Let one call in seven go wrong: throttled, failed, lost before or after its effect, slow
    #[arg(long)]
    rough: bool,
    /// Let one answer in fifty be no answer: cut off, something else, a field that is missing or odd; metadata too
    #[arg(long)]
    garbled: bool,
    /// Also start one m5.xlarge instance and answer its metadata requests (IMDSv2) here
    #[arg(long, value_name = "ADDRESS:PORT")]
    imds: Option<SocketAddr>,
}

#[tokio::main]
async fn main() -> ExitCode {
    let Command::Serve(arguments) = Cli::parse().command;
    match serve(&arguments).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Nobody is left to hear of a failure to write this.
            drop(writeln!(std::io::stderr(), "ec2-sim: {error}"));
            ExitCode::FAILURE
        }
    }
}

async fn serve(arguments: &Serve) -> Result<(), Box<dyn Error>> {
    let budget_percent = Some(arguments.budget).filter(|percent| *percent > 0);
    let (delays, lags) = if arguments.late { (Delays::REAL, Lags::REAL) } else { (Delays::default(), Lags::NONE) };
    let weather = if arguments.rough { Weather::ROUGH } else { Weather::default() };
    let weather = Weather { spoilt: if arguments.garbled { 20 } else { 0 }, ..weather };
    let config = WorldConfig { seed: arguments.seed, budget_percent, delays, lags, weather, ..WorldConfig::default() };
    let cloud = SimCloud::new(config, Clock::wall());
    let demo = cloud.demo_vpc("10.0.0.0/16", &["10.0.0.0/20"])?;
    let subnet = demo.subnets.first().ok_or("no subnet was made")?;
    let listener = bind(arguments.listen).await?;
    let mut line = format!("ec2-sim: EC2 at http://{}, {}, {subnet}", listener.local_addr()?, demo.vpc);
    let metadata = match arguments.imds {
        Some(address) => {
            let instance = cloud.run_instance("m5.xlarge", subnet)?;
            let listener = bind(address).await?;
            line.push_str(&format!(", metadata of {instance} at http://{}", listener.local_addr()?));
            let faults = imds::MetadataFaults::default();
            if arguments.garbled {
                faults.be_rough(20, arguments.seed);
            }
            Some((listener, imds::router_with(cloud.instance(&instance), faults)))
        }
        None => None,
    };
    writeln!(std::io::stdout(), "{line}")?;
    let metadata = async {
        match metadata {
            Some((listener, router)) => imds::serve(listener, router).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        ended = axum::serve(listener, cloud.router()) => ended?,
        ended = metadata => ended?,
        () = cloud.drive() => {}
    }
    Ok(())
}

async fn bind(address: SocketAddr) -> Result<TcpListener, String> {
    TcpListener::bind(address)
        .await
        .map_err(|error| format!("cannot listen at {address}: {error}; choose another address"))
}
