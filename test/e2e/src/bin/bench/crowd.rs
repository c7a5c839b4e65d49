//! One change of nf_tables on a node where somebody else has ten thousand rules, beside the same change without them, and beside one
//! rule of iptables.

use std::{fmt::Write as _, process::Stdio, time::Instant};

use e2e::Trouble;
use eni_datapath::{Cidr, prepare_host};
use lab::Namespace;

use crate::{
    report::{Good, Row, Samples},
    stage,
};

/// Rules of somebody else, as kube-proxy has with a few thousand services.
const FOREIGN: usize = 10_000;

/// Times `runs` changes of the settings on each node in turn.
pub(crate) fn measure(runs: usize) -> Result<Vec<Row>, Trouble> {
    println!("one change of nf_tables beside {FOREIGN} rules of somebody else: {runs} runs each");
    let ((quiet, _one), (crowded, _other)) = (stage::bare_node()?, stage::bare_node()?);
    let iptables = Namespace::fresh("iptables")?;
    crowded.nft(&foreign())?;
    fill(&iptables)?;
    let (mut alone, mut beside, mut theirs) = (Samples::default(), Samples::default(), Samples::default());
    for run in 0..runs {
        alone.add(change(&quiet, run)?);
        beside.add(change(&crowded, run)?);
        theirs.add(rule(&iptables, run)?);
    }
    let row = |name: &str, against, reference: &Samples, goal| Row {
        name: name.to_owned(),
        unit: "ms",
        measured: beside.clone(),
        against,
        reference: reference.clone(),
        goal,
        good: Good::Low,
        paired: true,
        detail: false,
    };
    Ok(vec![
        row("nft_change_10000", "no foreign rules", &alone, None),
        row("nft_change_vs_iptables", "one iptables rule", &theirs, None),
    ])
}

fn foreign() -> String {
    let mut rules = "add table ip services\nadd chain ip services every\n".to_owned();
    for n in 0..FOREIGN {
        // Writing to a string cannot fail.
        let _ =
            writeln!(rules, "add rule ip services every ip daddr 172.20.{}.{} tcp dport 443 counter", n / 250, n % 250);
    }
    rules
}

/// The same rules for iptables.
fn fill(node: &Namespace) -> Result<(), Trouble> {
    let mut rules = "*filter\n:SERVICES - [0:0]\n".to_owned();
    for n in 0..FOREIGN {
        let _ = writeln!(rules, "-A SERVICES -d 172.20.{}.{}/32 -p tcp --dport 443", n / 250, n % 250);
    }
    rules.push_str("COMMIT\n");
    let mut restore = std::process::Command::new("iptables-legacy-restore");
    restore.stdin(Stdio::piped());
    let done = node.inside(|| {
        let mut child = restore.spawn()?;
        if let Some(mut stdin) = child.stdin.take() {
            std::io::Write::write_all(&mut stdin, rules.as_bytes())?;
        }
        child.wait()
    })?;
    let status = done.map_err(Trouble::os("run iptables-legacy-restore"))?;
    if status.success() { Ok(()) } else { Err(Trouble::Broken(format!("iptables-legacy-restore: {status}"))) }
}

/// The networks that pods reach directly become others, in milliseconds: one transaction for each family, and the look before it.
fn change(node: &Namespace, run: usize) -> Result<f64, Trouble> {
    let broken = |error: &dyn std::error::Error| Trouble::Broken(error.to_string());
    let mut plan = stage::host_plan()?;
    let other = if run.is_multiple_of(2) { "10.1.0.0/16" } else { "10.2.0.0/16" };
    plan.direct.push(other.parse::<Cidr>().map_err(|error| broken(&error))?);
    let changed = node.inside(|| {
        let started = Instant::now();
        prepare_host(&plan).map(|_| started.elapsed())
    })?;
    Ok(changed.map_err(|error| broken(&error))?.as_secs_f64() * 1e3)
}

/// One rule comes or goes, in milliseconds.
fn rule(node: &Namespace, run: usize) -> Result<f64, Trouble> {
    let verb = if run.is_multiple_of(2) { "-A" } else { "-D" };
    let line = ["iptables-legacy", "-w", verb, "FORWARD", "-d", "10.1.0.0/16", "-j", "ACCEPT"];
    let started = Instant::now();
    node.run(&line)?;
    Ok(started.elapsed().as_secs_f64() * 1e3)
}
