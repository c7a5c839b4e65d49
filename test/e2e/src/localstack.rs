//! LocalStack, started and stopped by the project's own script.

use std::{net::SocketAddr, path::Path, process::Command};

use crate::{Trouble, cloud::blocking};

/// A LocalStack of our own on a free port. It is stopped with this value.
#[derive(Debug)]
pub(crate) struct LocalStack {
    address: SocketAddr,
    account: String,
}

impl LocalStack {
    pub(crate) async fn start() -> Result<Self, Trouble> {
        let printed = blocking(|| script(&["start", "--port", "0"])).await??;
        let address = printed.trim().rsplit('/').next().and_then(|address| address.parse().ok());
        let address = address.ok_or(Trouble::Answer { what: "localstack.sh start", answer: printed })?;
        // Any twelve digits as access key are an account.
        Ok(Self { address, account: "100000000001".to_owned() })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn account(&self) -> &str {
        &self.account
    }
}

impl Drop for LocalStack {
    fn drop(&mut self) {
        let _ = script(&["stop", "--port", &self.address.port().to_string()]);
    }
}

/// Runs the script and returns what it printed.
fn script(arguments: &[&str]) -> Result<String, Trouble> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../localstack/localstack.sh");
    let run = Command::new(&path).args(arguments).output();
    let output = run.map_err(|error| Trouble::LocalStack { why: format!("{}: {error}", path.display()) })?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(Trouble::LocalStack { why: String::from_utf8_lossy(&output.stderr).trim().to_owned() })
}
