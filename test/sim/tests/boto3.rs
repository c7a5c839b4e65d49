//! The program, as boto3 sees it.

#![allow(clippy::unwrap_used, reason = "what fails here fails its test")]

use std::{
    env,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

/// Ends the program with the test.
struct Program(Child);

impl Drop for Program {
    fn drop(&mut self) {
        // Both fail only when it has ended by itself, which the test has noticed by then.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// A Python that has boto3: `E2E_PYTHON`, or the one of LocalStack's virtual environment.
fn python() -> PathBuf {
    let python = env::var_os("E2E_PYTHON").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/venv-localstack/bin/python"),
        PathBuf::from,
    );
    let found = Command::new(&python).args(["-c", "import boto3"]).output();
    assert!(
        found.is_ok_and(|output| output.status.success()),
        "{} cannot import boto3: run `make setup`, or set E2E_PYTHON to a Python that can",
        python.display()
    );
    python
}

#[test]
fn boto3_finds_what_it_expects() {
    let python = python();
    let mut child = Command::new(env!("CARGO_BIN_EXE_ec2-sim"))
        .args(["serve", "--listen", "127.0.0.1:0", "--imds", "127.0.0.1:0"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    let _program = Program(child);
    let mut line = String::new();
    stdout.read_line(&mut line).unwrap();
    let endpoints: Vec<&str> = line.split([' ', ',', '\n']).filter(|word| word.starts_with("http://")).collect();
    assert_eq!(endpoints.len(), 2, "{line}");

    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("boto3_check.py");
    let output = Command::new(python).arg(script).args(endpoints).output().unwrap();
    let said = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{}\n{}", said.0, said.1);
}

#[test]
fn a_port_in_use_is_named() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let output = Command::new(env!("CARGO_BIN_EXE_ec2-sim")).args(["serve", "--listen", &address]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1));
    assert!(said.starts_with(&format!("ec2-sim: cannot listen at {address}: ")), "{said}");
}
