//! The kernel as the daemon uses it: one thread owns all netlink work, because the kernel does it inside the system call.

use std::{io, net::Ipv4Addr, sync::mpsc};

use eni_datapath as datapath;
use eni_proto::{LinkAlias, VethPrefix};
use ipam_core::{
    EniId,
    ports::{Cidr4, Interface, NodeIdentity},
};
use tokio::sync::oneshot;

use crate::settings::Settings;

type Job = Box<dyn FnOnce() + Send>;

/// The way to the thread. Cheap to clone; the thread ends with the last clone.
#[derive(Clone)]
pub(crate) struct HostNet {
    jobs: mpsc::Sender<Job>,
}

/// A pod that the kernel has, by what its host interface says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct KernelPod {
    pub(crate) link: String,
    pub(crate) alias: LinkAlias,
}
