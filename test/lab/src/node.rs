//! A node: an instance's network, with the metadata service and the EC2 API in reach.

use std::{
    net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener},
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
};

use ipam_core::InstanceId;

use crate::{Daemon, Ec2Gate, LabError, Machine, Namespace};

/// Where the metadata service answers inside a node.
pub const IMDS_ADDRESS: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(169, 254, 169, 254), 80);
/// Where the EC2 API answers inside a node.
pub const EC2_ADDRESS: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(169, 254, 170, 100), 4566);

/// As an EKS node's image leaves them.
const SYSCTLS: &[(&str, &str)] =
    &[("net/ipv4/ip_forward", "1"), ("net/ipv4/conf/all/rp_filter", "0"), ("net/ipv4/conf/default/rp_filter", "2")];

/// An instance of the lab. Its links come and go as the cloud attaches and detaches ENIs.
#[derive(Debug)]
pub struct Node {
    instance: InstanceId,
    name: String,
    namespace: Arc<Namespace>,
    directory: PathBuf,
    machine: OnceLock<Machine>,
}

impl Node {
    pub(crate) fn new(instance: InstanceId, name: &str, directory: PathBuf) -> Result<Self, LabError> {
        std::fs::create_dir_all(&directory).map_err(LabError::os(format!("make {}", directory.display())))?;
        let namespace = Namespace::fresh(name)?;
        namespace.sysctl(SYSCTLS)?;
        // Scope `host`, so that the kernel never picks one of them as the source of what leaves the node.
        namespace.ip(&format!(
            "addr add {}/32 dev lo scope host\naddr add {}/32 dev lo scope host\n",
            IMDS_ADDRESS.ip(),
            EC2_ADDRESS.ip()
        ))?;
        let (name, namespace) = (name.to_owned(), Arc::new(namespace));
        Ok(Self { instance, name, namespace, directory, machine: OnceLock::new() })
    }

    /// The instance that it is.
    #[must_use]
    pub fn instance(&self) -> &InstanceId {
        &self.instance
    }

    /// Its name, for people.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its network.
    #[must_use]
    pub fn namespace(&self) -> &Arc<Namespace> {
        &self.namespace
    }

    /// A directory of its own, for sockets, databases and logs. Goes away with the lab.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Opens the listener on which the metadata service is to answer.
    ///
    /// # Errors
    /// [`LabError::Os`] when it is open already.
    pub fn listen_imds(&self) -> Result<TcpListener, LabError> {
        self.namespace.listen(IMDS_ADDRESS.into())
    }

    /// Passes [`EC2_ADDRESS`] inside the node on to `endpoint` outside. Needs a tokio runtime.
    ///
    /// # Errors
    /// [`LabError::Os`] when it is passed on already.
    pub fn forward_ec2(&self, endpoint: SocketAddr) -> Result<Ec2Gate, LabError> {
        let listener = self.namespace.listen(EC2_ADDRESS.into())?;
        Ok(Ec2Gate::open(listener, endpoint))
    }

    /// Gives the node processes and mounts of its own, for a container runtime. Daemons that run already stay outside.
    /// Repeatable.
    ///
    /// # Errors
    /// [`LabError::NoMachine`] with what this machine does not allow or have.
    pub async fn boot(&self) -> Result<&Machine, LabError> {
        if let Some(machine) = self.machine.get() {
            return Ok(machine);
        }
        let machine = Machine::boot(&self.namespace, &self.directory).await?;
        Ok(self.machine.get_or_init(|| machine))
    }

    /// The node's own processes and mounts. Absent: it has not been booted.
    #[must_use]
    pub fn machine(&self) -> Option<&Machine> {
        self.machine.get()
    }

    /// Starts a program on the node that cannot outlive the lab; it writes to `NAME.log` in the node's directory.
    /// On a node that was booted it sees the node's processes and mounts. It sees `environment` and PATH and nothing else.
    ///
    /// # Errors
    /// [`LabError::Os`] when it cannot be started.
    pub fn daemon(
        &self,
        name: &str,
        command_line: &[String],
        environment: &[(String, String)],
    ) -> Result<Daemon, LabError> {
        let namespace = self.machine.get().map_or(&self.namespace, Machine::namespace);
        Daemon::start(namespace, command_line, environment, &self.directory.join(format!("{name}.log")))
    }
}
