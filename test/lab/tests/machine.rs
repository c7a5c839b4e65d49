//! A node's own processes and mounts: nothing of them is seen outside, and nothing of them stays.

#![allow(clippy::unwrap_used, reason = "a test says by a panic what is not as it should be")]

use std::{fs, path::Path};

use lab::{Lab, Namespace};

fn run(namespace: &Namespace, script: &str) -> String {
    namespace.run(&["sh", "-ec", script]).unwrap()
}

/// Whether a process of this machine was started with `argument`.
fn runs(argument: &str) -> bool {
    let lines = fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.path().join("cmdline"));
    lines.filter_map(|path| fs::read_to_string(path).ok()).any(|line| line.split('\0').any(|word| word == argument))
}

#[tokio::test]
async fn what_is_written_to_run_and_var_lib_stays_inside() {
    let lab = Lab::new().unwrap();
    let node = lab.add_node("i-1".parse().unwrap(), "node-1").unwrap();
    let inside = node.boot().await.unwrap().namespace();
    let name = format!("lab-test-{}", std::process::id());

    run(inside, &format!("touch /run/{name} /var/lib/{name} /run/netns/{name}"));
    assert_eq!(run(inside, &format!("ls -d /run/{name} /var/lib/{name}")).lines().count(), 2);
    for folder in ["/run", "/var/lib", "/run/netns"] {
        assert!(!Path::new(folder).join(&name).exists(), "{folder}");
    }
}

#[tokio::test]
async fn its_network_is_the_nodes() {
    let lab = Lab::new().unwrap();
    let node = lab.add_node("i-1".parse().unwrap(), "node-1").unwrap();
    let inside = node.boot().await.unwrap().namespace();

    inside.ip("link add here type veth peer name there\n").unwrap();
    assert!(node.namespace().run(&["ip", "link", "show", "here"]).is_ok());
}

#[tokio::test]
async fn all_its_processes_and_control_groups_end_with_it() {
    let lab = Lab::new().unwrap();
    let node = lab.add_node("i-1".parse().unwrap(), "node-1").unwrap();
    let machine = node.boot().await.unwrap();
    let (seconds, cgroup) = (format!("9{}", std::process::id()), machine.cgroup());
    let script = format!(
        "for folder in /sys/fs/cgroup/pids /sys/fs/cgroup; do if [ -e $folder/cgroup.procs ]; then break; fi; done
         mkdir -p $folder{cgroup}/inner; echo $folder{cgroup}
         setsid sleep {seconds} >&- 2>&- & echo $! > $folder{cgroup}/inner/cgroup.procs"
    );
    let folder = run(machine.namespace(), &script).trim().to_owned();
    assert!(runs(&seconds) && Path::new(&folder).exists());

    drop(node);
    drop(lab);
    assert!(!runs(&seconds));
    assert!(!Path::new(&folder).exists(), "{folder}");
}
