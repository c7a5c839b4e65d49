//! `ipamd migrate`: takes a running node over from amazon-vpc-cni-k8s, and gives it back; pods keep addresses and connections.
//!
//! Both ways each step can be repeated, and what needs a later step comes after it: the record of what will be taken away, our leases,
//! the bar that keeps the incumbent from starting, our part of the kernel, and only then its part. So whoever is killed in between is
//! finished by the next run. While neither daemon runs, pods come and go no more, and nothing here depends on EC2.

mod back;
mod checkpoint;
mod facts;
mod import;
mod judge;
mod legacy;
mod record;
mod report;
pub(crate) mod sweep;

use std::{
    io,
    path::{Path, PathBuf},
    process::ExitCode,
};

use eni_datapath::{ObserveError, incumbent::TakeOverError};
use ipam_core::ports::ImdsError;

use crate::{
    errors::{SystemError, chain, complain},
    host::KernelError,
    settings::Settings,
    store::{PlaceError, StoreError},
    table,
};
pub(crate) use legacy::Legacy;

/// What is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wish {
    Check,
    Import,
    Back,
}

/// Where the incumbent's things are.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Surroundings {
    /// The incumbent's leases; goes before `AWS_VPC_K8S_CNI_BACKING_STORE`.
    #[arg(long)]
    checkpoint: Option<PathBuf>,
    /// Where the container runtime keeps the files of network namespaces.
    #[arg(long, default_value = "/run/netns")]
    pub(crate) namespaces: PathBuf,
}

impl Surroundings {
    /// Where the incumbent's leases are.
    fn checkpoint<'a>(&'a self, settings: &'a Settings) -> &'a Path {
        self.checkpoint.as_deref().unwrap_or(&settings.incumbent)
    }
}

/// Why nothing, or not everything, was done.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MigrateError {
    /// The daemon runs, or the place of the database cannot be used.
    #[error(transparent)]
    Place(#[from] PlaceError),
    /// The system does not say which boot this is.
    #[error(transparent)]
    System(#[from] SystemError),
    /// The database refused.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// There are reasons against it. They have been shown.
    #[error("IPAM-350 {0} thing(s) stand against it; nothing was changed")]
    Obstacles(usize),
    /// The node cannot be identified.
    #[error("IPAM-307 the metadata service does not say which ENIs this node has; nothing was changed")]
    Metadata(#[from] ImdsError),
    /// The kernel could not be read.
    #[error("IPAM-358 the kernel could not be read; nothing was changed")]
    Look(#[from] ObserveError),
    /// A plan of the node could not be made.
    #[error("IPAM-358 the node's ENIs make no sense; nothing was changed")]
    Plan(#[from] KernelError),
    /// A step in the kernel failed.
    #[error(
        "IPAM-358 a step in the kernel failed; pods go on as they were. Mend the cause and run the same command again"
    )]
    Kernel(#[from] TakeOverError),
    /// A file or program failed.
    #[error("IPAM-358 {what} failed; pods go on as they were. Mend the cause and run the same command again")]
    Files {
        /// What.
        what: String,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

fn files(what: &str) -> impl Fn(io::Error) -> MigrateError + use<> {
    let what = what.to_owned();
    move |source| MigrateError::Files { what: what.clone(), source: source.into() }
}

/// Does what is asked, prints what came of it, and returns the exit code.
pub(crate) async fn run(wish: Wish, settings: &Settings, surroundings: &Surroundings, as_json: bool) -> ExitCode {
    let outcome = match wish {
        Wish::Check => import::check(settings, surroundings).await,
        Wish::Import => import::import(settings, surroundings).await,
        Wish::Back => back::back(settings, surroundings).await,
    };
    match outcome {
        Ok(report) => {
            table::show(&if as_json { report.as_json() } else { report.as_text() }, as_json);
            match report.obstacles.len() {
                0 => ExitCode::SUCCESS,
                count => {
                    if wish != Wish::Check {
                        complain(&chain(&MigrateError::Obstacles(count)));
                    }
                    ExitCode::FAILURE
                }
            }
        }
        Err(error) => {
            complain(&chain(&error));
            ExitCode::FAILURE
        }
    }
}
