//! LocalStack, started and stopped by the project's own script.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::Command,
};

use crate::{Trouble, cloud::blocking};

/// Where the script lets it listen.
const ADDRESS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 4566);

/// A running LocalStack. It is stopped with this value, unless it ran before.
#[derive(Debug)]
pub(crate) struct LocalStack {
    account: String,
    stop: bool,
}

impl LocalStack {
    pub(crate) async fn start() -> Result<Self, Trouble> {
        let running = blocking(|| script("status")).await?.is_ok();
        if !running {
            blocking(|| script("start")).await??;
        }
        // It cannot be reset; but twelve digits as access key are an account, and accounts don't see each other.
        let account = format!("{:012}", 100_000_000_000 + u64::from(std::process::id()));
        Ok(Self { account, stop: !running })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        ADDRESS
    }

    pub(crate) fn account(&self) -> &str {
        &self.account
    }
}

impl Drop for LocalStack {
    fn drop(&mut self) {
        if self.stop {
            let _ = script("stop");
        }
    }
}

fn script(verb: &str) -> Result<(), Trouble> {
    let path: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join("../localstack/localstack.sh");
    let run = Command::new(&path).arg(verb).output();
    let output = run.map_err(|error| Trouble::LocalStack { why: format!("{}: {error}", path.display()) })?;
    if output.status.success() {
        return Ok(());
    }
    let why = [output.stdout, output.stderr].concat();
    Err(Trouble::LocalStack { why: String::from_utf8_lossy(&why).trim().to_owned() })
}
