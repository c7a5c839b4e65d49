//! A long-running program inside a namespace that cannot outlive the lab.

use std::{
    fs::File,
    io,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, mpsc},
    thread,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::{LabError, Namespace};

/// A running program. Dropping it kills it and waits for its end; the kernel kills it when this process dies.
#[derive(Debug)]
pub struct Daemon {
    child: Child,
    log: PathBuf,
    /// Closed when the daemon is dropped, which lets the thread that stands behind the child end.
    _parent: mpsc::Sender<()>,
}

impl Daemon {
    /// Starts a command line inside `namespace`; both its outputs are appended to `log`.
    ///
    /// It sees `environment` and PATH and nothing else, so that what is set where the lab runs changes nothing.
    ///
    /// # Errors
    /// [`LabError::Os`] when it cannot be started.
    pub fn start(
        namespace: &Arc<Namespace>,
        command_line: &[String],
        environment: &[(String, String)],
        log: &Path,
    ) -> Result<Self, LabError> {
        let what = || format!("start {} in namespace {}", command_line.join(" "), namespace.name());
        let output = File::options().create(true).append(true).open(log).map_err(LabError::os(what()))?;
        let errors = output.try_clone().map_err(LabError::os(what()))?;
        // The kernel sends this signal when the *thread* that started the child ends, so that thread has to stay.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--"]).args(command_line);
        command.env_clear().envs(std::env::var_os("PATH").map(|path| ("PATH", path)));
        command.envs(environment.iter().cloned()).stdin(Stdio::null()).stdout(output).stderr(errors);
        // A Ctrl-C at the terminal is for whoever runs the lab, which then ends the daemon in its own time.
        command.process_group(0);
        let (parent, until_dropped) = mpsc::channel();
        let (started, child) = mpsc::channel();
        let namespace = Arc::clone(namespace);
        thread::spawn(move || {
            let outcome = namespace.enter().map(|()| command.spawn());
            drop(namespace);
            let _ = started.send(outcome);
            let _: Result<(), _> = until_dropped.recv();
        });
        let died = || io::Error::other("the thread that starts it died");
        let child = child.recv().map_err(|_| died()).map_err(LabError::os(what()))??.map_err(LabError::os(what()))?;
        Ok(Self { child, log: log.to_owned(), _parent: parent })
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Everything that it and its predecessors with the same log wrote.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// How it ended. Absent: it still runs.
    ///
    /// # Errors
    /// As the operating system's `wait`.
    pub fn ended(&mut self) -> io::Result<Option<ExitStatus>> {
        self.child.try_wait()
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// As the operating system's `wait`.
    pub fn wait(&mut self) -> io::Result<ExitStatus> {
        self.child.wait()
    }

    /// Sends it a signal, as SIGTERM. Does not wait.
    ///
    /// # Errors
    /// When it has ended already.
    pub fn signal(&self, signal: Signal) -> io::Result<()> {
        let pid = i32::try_from(self.child.id()).map_err(io::Error::other)?;
        kill(Pid::from_raw(pid), signal).map_err(Into::into)
    }

    /// Kills it as `kill -9` does and waits for its end.
    ///
    /// # Errors
    /// As the operating system's `kill` and `wait`.
    pub fn kill(&mut self) -> io::Result<ExitStatus> {
        self.child.kill()?;
        self.child.wait()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.kill();
    }
}
