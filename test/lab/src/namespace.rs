//! Network namespaces without a name: made, entered by a thread of their own, gone with the last that holds them.

use std::{
    fs::{self, File},
    io::Write,
    net::{SocketAddr, TcpListener},
    os::fd::{AsFd, AsRawFd},
    panic,
    path::PathBuf,
    process::{Command, Output, Stdio},
    thread,
};

use nix::sched::{CloneFlags, setns, unshare};

use crate::LabError;

/// A network namespace of the lab. It lives at least as long as this value.
#[derive(Debug)]
pub struct Namespace {
    name: String,
    file: File,
    machine: Option<MachineFiles>,
}

/// The mounts and processes that go with a network.
#[derive(Debug)]
struct MachineFiles {
    mounts: File,
    processes: File,
}

impl Namespace {
    /// Makes an empty namespace with its loopback link up. `name` is for messages only.
    ///
    /// # Errors
    /// [`LabError::NoNamespaces`] where the kernel does not allow it, [`LabError::Os`].
    pub fn fresh(name: &str) -> Result<Self, LabError> {
        let file = on_own_thread(|| {
            unshare(CloneFlags::CLONE_NEWNET)
                .map_err(|errno| LabError::NoNamespaces { what: "unshare", source: errno.into() })?;
            File::open("/proc/thread-self/ns/net").map_err(LabError::os("open /proc/thread-self/ns/net"))
        })?;
        let namespace = Self { name: name.to_owned(), file, machine: None };
        namespace.ip("link set lo up\n")?;
        Ok(namespace)
    }

    /// The same network together with other mounts and a process table, given as opened files of `/proc/PID/ns`.
    pub(crate) fn within(&self, mounts: File, processes: File) -> Result<Self, LabError> {
        let file = self.file.try_clone().map_err(LabError::os(format!("keep namespace {} open", self.name)))?;
        Ok(Self { name: self.name.clone(), file, machine: Some(MachineFiles { mounts, processes }) })
    }

    /// Its name in messages.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A path by which any process of this user can open it while this value lives.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}/fd/{}", std::process::id(), self.file.as_raw_fd()))
    }

    /// A command line by which a person enters it while this value lives.
    #[must_use]
    pub fn enter_hint(&self) -> String {
        let net = self.path().display().to_string();
        if crate::entry::in_user_namespace() {
            let user = std::process::id();
            return format!("nsenter --user=/proc/{user}/ns/user --preserve-credentials --net={net}");
        }
        format!("nsenter --net={net}")
    }

    /// Runs `work` inside the namespace. A panic in `work` reaches the caller.
    ///
    /// # Errors
    /// [`LabError::Os`] when the namespace cannot be entered; then `work` has not run.
    pub fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T, LabError> {
        on_own_thread(|| {
            self.enter()?;
            Ok(work())
        })
    }

    /// Moves the calling thread, and what it starts from now on, into the namespace. There is no way back.
    pub(crate) fn enter(&self) -> Result<(), LabError> {
        let failed = || LabError::os(format!("enter namespace {}", self.name));
        if let Some(machine) = &self.machine {
            // Until then a thread shares its root directory with the others, and the kernel refuses it other mounts.
            unshare(CloneFlags::CLONE_FS).map_err(failed())?;
            setns(machine.mounts.as_fd(), CloneFlags::CLONE_NEWNS).map_err(failed())?;
            setns(machine.processes.as_fd(), CloneFlags::CLONE_NEWPID).map_err(failed())?;
        }
        setns(self.file.as_fd(), CloneFlags::CLONE_NEWNET).map_err(failed())
    }

    /// Opens a TCP listener inside the namespace, usable from everywhere in this process.
    ///
    /// # Errors
    /// [`LabError::Os`] when the address is not there or taken.
    pub fn listen(&self, address: SocketAddr) -> Result<TcpListener, LabError> {
        self.inside(|| TcpListener::bind(address))?
            .and_then(|listener| listener.set_nonblocking(true).map(|()| listener))
            .map_err(LabError::os(format!("listen on {address} in namespace {}", self.name)))
    }

    /// Sets kernel parameters, each as (`net/ipv4/ip_forward`, `1`).
    ///
    /// # Errors
    /// [`LabError::Os`] names the parameter that could not be set.
    pub fn sysctl(&self, settings: &[(&str, &str)]) -> Result<(), LabError> {
        self.inside(|| {
            settings.iter().try_for_each(|(key, value)| {
                fs::write(format!("/proc/sys/{key}"), value).map_err(LabError::os(format!("set {key} to {value}")))
            })
        })?
    }

    /// Carries out the lines of `batch` as `ip -batch` does.
    ///
    /// # Errors
    /// [`LabError::Tool`] names the line that failed; the lines before it are done.
    pub fn ip(&self, batch: &str) -> Result<String, LabError> {
        if batch.is_empty() {
            return Ok(String::new());
        }
        self.tool(&["ip", "-batch", "-"], batch)
    }

    /// Carries out `ruleset` as one nf_tables transaction.
    ///
    /// # Errors
    /// [`LabError::Tool`]; then nothing was changed.
    pub fn nft(&self, ruleset: &str) -> Result<String, LabError> {
        if ruleset.is_empty() {
            return Ok(String::new());
        }
        self.tool(&["nft", "-f", "-"], ruleset)
    }

    /// Runs a command line inside the namespace and returns its standard output.
    ///
    /// # Errors
    /// [`LabError::Tool`] when it does not end well, [`LabError::Os`] when it cannot be started.
    pub fn run(&self, command_line: &[&str]) -> Result<String, LabError> {
        self.tool(command_line, "")
    }

    /// Runs `command` inside the namespace, waits for its end and returns what it wrote.
    ///
    /// # Errors
    /// [`LabError::Os`] when it cannot be started.
    pub fn output(&self, command: &mut Command, stdin: &[u8]) -> Result<Output, LabError> {
        let program = command.get_program().display().to_string();
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let run = || {
            let mut child = command.spawn()?;
            if let Some(mut pipe) = child.stdin.take() {
                // A program that does not read its input closes the pipe: its exit code tells what it thought of it.
                let _ = pipe.write_all(stdin);
            }
            child.wait_with_output()
        };
        self.inside(run)?.map_err(LabError::os(format!("run {program} in namespace {}", self.name)))
    }

    /// Starts `command` inside the namespace. It is killed when the child is dropped. Needs a tokio runtime.
    ///
    /// # Errors
    /// [`LabError::Os`] when it cannot be started.
    pub fn spawn(&self, command: &mut tokio::process::Command) -> Result<tokio::process::Child, LabError> {
        let program = command.as_std().get_program().display().to_string();
        let runtime = tokio::runtime::Handle::current();
        command.kill_on_drop(true);
        // The child is born in the namespace of the thread that starts it.
        self.inside(|| {
            let _context = runtime.enter();
            command.spawn()
        })?
        .map_err(LabError::os(format!("start {program} in namespace {}", self.name)))
    }

    fn tool(&self, command_line: &[&str], stdin: &str) -> Result<String, LabError> {
        let [program, arguments @ ..] = command_line else {
            return Ok(String::new());
        };
        let output = self.output(Command::new(program).args(arguments), stdin.as_bytes())?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        Err(LabError::Tool {
            tool: command_line.join(" "),
            namespace: self.name.clone(),
            complaint: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
            script: stdin.to_owned(),
        })
    }
}

/// A thread that changed its namespace ends with its work: there is no way back, so no way to get back wrong.
fn on_own_thread<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| match scope.spawn(work).join() {
        Ok(result) => result,
        Err(panic) => panic::resume_unwind(panic),
    })
}
