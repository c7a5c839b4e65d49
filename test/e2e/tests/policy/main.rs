//! The network-policy agent of amazon-vpc-cni-k8s beside real programs: one that answers, one that hangs, one that refuses, none.

#![allow(clippy::unwrap_used, reason = "a test says by a panic what is not as it should be")]

mod agent;
#[path = "../look/mod.rs"]
mod look;
#[path = "../stage/mod.rs"]
mod stage;

use std::{collections::BTreeMap, fs, net::Ipv6Addr, os::unix::fs::symlink, path::Path, process::Command, sync::Arc};

use agent::{Agent, Manner, Told};
use e2e::{CniFailure, Sandbox, Verb, Worker, flight};
use lab::wait;
use serde_json::{Value, json};
use stage::PATIENCE;

/// The node's, of its operating system.
const OWN_IPV6: Ipv6Addr = Ipv6Addr::new(0x2600, 0x1f00, 0xffff, 0, 0, 0, 0, 0x10);

/// A node whose daemon writes the CNI configuration and is told that there is an agent.
struct Scene {
    folder: tempfile::TempDir,
    worker: Arc<Worker>,
    configuration: Value,
    /// Dropped last: the node is in it.
    cluster: e2e::Cluster,
}

impl Scene {
    async fn begin(mode: &str) -> Self {
        Self::begin_with(mode, &[], 5).await
    }

    /// The same with more settings and at least `free` addresses; the operating system has given the node an IPv6 address.
    async fn begin_with(mode: &str, more: &[(&str, &str)], free: u32) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name).display().to_string();
        let settings = [
            ("NETWORK_POLICY_ENFORCING_MODE", mode.to_owned()),
            ("IPAMD_POLICY_AGENT_DIR", path("agent")),
            ("HOST_CNI_CONFDIR_PATH", path("net.d")),
        ];
        fs::create_dir(folder.path().join("net.d")).unwrap();
        fs::create_dir(folder.path().join("agent")).unwrap();
        let settings: Vec<_> =
            settings.iter().map(|(name, value)| (*name, value.as_str())).chain(more.iter().copied()).collect();
        let cluster = stage::cluster(1, &settings).await;
        let worker = Arc::clone(&cluster.workers[0]);
        for interface in cluster.lab.described() {
            cluster.lab.give_ipv6(interface.id, [(OWN_IPV6, 128)]);
        }
        cluster.lab.sync(&cluster.lab.described()).unwrap();
        worker.start_daemon().unwrap();
        worker.until_ready(free, PATIENCE).await.unwrap();
        let list = folder.path().join("net.d/10-eni-cni.conflist");
        let written = || async { fs::read_to_string(&list).map_err(|error| error.to_string()) };
        let list: Value = serde_json::from_str(&wait::until(PATIENCE, "the conflist", written).await.unwrap()).unwrap();
        // As a runtime makes a plugin's configuration of the list.
        let mut configuration = list["plugins"][0].clone();
        (configuration["name"], configuration["cniVersion"]) = (list["name"].clone(), list["cniVersion"].clone());
        Self { folder, worker, configuration, cluster }
    }

    fn agent_folder(&self) -> std::path::PathBuf {
        self.folder.path().join("agent")
    }

    fn agent(&self, manner: Manner) -> Agent {
        let node = Arc::clone(self.worker.node());
        Agent::start(&self.agent_folder(), manner, move || {
            let output = node.namespace().output(Command::new("ip").args(["-o", "link"]), &[]).unwrap();
            String::from_utf8(output.stdout).unwrap()
        })
    }

    /// What the agent is told when it starts. The socket for that comes at any time beside the configuration of the CNI.
    async fn asked_for(&self) -> agent::Configuration {
        let folder = self.agent_folder();
        wait::until(PATIENCE, "the agent's configuration", || agent::ask_for_configuration(&folder)).await.unwrap()
    }

    async fn run(&self, verb: Verb, sandbox: &Sandbox) -> Result<Value, CniFailure> {
        self.worker.plugin_given(verb, sandbox, &self.configuration).await.unwrap().result
    }

    /// Has the plugin end all attachments but these.
    async fn gc(&self, valid: &[&Sandbox]) -> Result<Value, CniFailure> {
        let valid = valid.iter().map(|pod| json!({"containerID": pod.container_id, "ifname": pod.interface}));
        let mut configuration = self.configuration.clone();
        configuration["cniVersion"] = "1.1.0".into();
        configuration["cni.dev/valid-attachments"] = valid.collect();
        let anybody = Sandbox::new("gc", 99).unwrap();
        self.worker.plugin_given(Verb::Gc, &anybody, &configuration).await.unwrap().result
    }

    /// Waits until so many calls to the agent are counted, and returns how they ended. The plugin's report comes after its answer.
    ///
    /// On a slow machine an agent that answers may be late all the same.
    async fn until_counted(&self, verb: &str, calls: u64) -> Outcomes {
        let counted = || async {
            let page = look::get(&self.worker, "http://127.0.0.1:61678/metrics");
            let beginning = format!("ipamd_policy_agent_calls_total{{verb=\"{verb}\",outcome=\"");
            let ours = page.lines().filter_map(|line| line.strip_prefix(&beginning)?.split_once("\"} "));
            let outcomes: Outcomes =
                ours.map(|(outcome, count)| (outcome.to_owned(), count.parse().unwrap())).collect();
            if outcomes.values().sum::<u64>() == calls { Ok(outcomes) } else { Err(format!("{outcomes:?}")) }
        };
        wait::until(PATIENCE, &format!("{calls} calls in {verb}s"), counted).await.unwrap()
    }

    /// Waits for a line of the page of metrics.
    async fn until_shown(&self, line: &str) {
        let shown = || async {
            let page = look::get(&self.worker, "http://127.0.0.1:61678/metrics");
            if page.lines().any(|one| one == line) { Ok(()) } else { Err(page) }
        };
        wait::until(PATIENCE, line, shown).await.unwrap();
    }

    /// Fails unless no pod has an address or an interface.
    async fn is_empty(&self) {
        let status = self.worker.status().await.unwrap();
        assert_eq!(status.leased, 0, "{status:?}");
        let links = self.worker.node().namespace().output(Command::new("ip").args(["-o", "link"]), &[]).unwrap();
        let links = String::from_utf8(links.stdout).unwrap();
        assert!(!links.contains(": eni"), "{links}");
    }
}

/// How many calls ended in which way.
type Outcomes = BTreeMap<String, u64>;

fn told(pod: &Sandbox, mode: &str, interfaces: i32) -> Told {
    Told {
        pod_name: pod.name.clone(),
        pod_namespace: "demo".to_owned(),
        mode: mode.to_owned(),
        interface_count: interfaces,
    }
}

/// The calls without what there was.
fn calls(agent: &Agent) -> Vec<(String, Told)> {
    agent.heard().into_iter().map(|(method, told, _)| (method, told)).collect()
}

/// The same once there are so many: on a slow machine the plugin goes on before the agent has looked around.
async fn until_calls(agent: &Agent, count: usize) -> Vec<(String, Told)> {
    let heard = || async {
        let heard = calls(agent);
        if heard.len() < count { Err(format!("{heard:?}")) } else { Ok(heard) }
    };
    wait::until(PATIENCE, &format!("{count} calls"), heard).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_hears_of_each_pod_that_comes_and_goes_and_who_the_node_is() {
    let scene = Scene::begin("standard").await;
    let agent = scene.agent(Manner::Answers);
    let known = scene.asked_for().await;
    assert_eq!((known.network_policy_mode.as_str(), known.multi_nic_enabled), ("standard", false));
    assert!(known.instance_id.starts_with("i-") && known.node_ipv4.starts_with("10."), "{known:?}");
    assert_eq!((known.region.as_str(), known.node_ipv6.as_str()), ("us-east-1", ""));

    let sandboxes = flight::sandboxes(2).unwrap();
    for sandbox in &sandboxes {
        scene.run(Verb::Add, sandbox).await.unwrap();
    }
    let enforce = |pod| ("EnforceNpToPod".to_owned(), told(pod, "standard", 1));
    assert_eq!(until_calls(&agent, 2).await, [enforce(&sandboxes[0]), enforce(&sandboxes[1])]);
    let links = |(_, _, links): (String, Told, String)| links.matches(": eni").count();
    assert_eq!(agent.heard().into_iter().map(links).collect::<Vec<_>>(), [1, 2], "the interface is there first");

    // A newer sandbox of the same pod; then the DEL of the older one, late.
    let mut newer = Sandbox::new("newer", 7).unwrap();
    newer.name.clone_from(&sandboxes[0].name);
    scene.run(Verb::Add, &newer).await.unwrap();
    scene.run(Verb::Del, &sandboxes[0]).await.unwrap();
    assert_eq!(until_calls(&agent, 3).await[2..], [enforce(&newer)], "the agent would have forgotten the newer one");
    scene.run(Verb::Del, &newer).await.unwrap();
    scene.run(Verb::Del, &sandboxes[1]).await.unwrap();
    let forget = |pod| ("DeletePodNp".to_owned(), told(pod, "", 0));
    assert_eq!(until_calls(&agent, 5).await[3..], [forget(&newer), forget(&sandboxes[1])]);
    for (verb, calls) in [("ADD", 3), ("DEL", 2)] {
        let outcomes = scene.until_counted(verb, calls).await;
        assert_eq!(outcomes["done"] + outcomes["late"], calls, "{verb}: {outcomes:?}");
    }
    scene.until_shown("ipamd_add_duration_seconds_count{phase=\"policy\"} 3").await;
    let page = look::get(&scene.worker, "http://127.0.0.1:61678/metrics");
    assert_eq!(look::lint(&page), Vec::<String>::new());
    drop(scene.cluster);
}

#[tokio::test(flavor = "multi_thread")]
async fn where_pods_have_ipv6_an_agent_hears_of_the_nodes_own_address() {
    for ipv4 in ["false", "true"] {
        let settings = [("ENABLE_IPv4", ipv4), ("ENABLE_IPv6", "true")];
        let scene = Scene::begin_with("standard", &settings, 1).await;
        let known = scene.asked_for().await;
        assert_eq!(known.node_ipv6, OWN_IPV6.to_string(), "ENABLE_IPv4={ipv4}: {known:?}");
        assert!(known.node_ipv4.starts_with("10."), "{known:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_hears_of_pods_that_end_without_a_del_and_a_gc_never_waits_for_it() {
    let scene = Scene::begin("standard").await;
    let agent = scene.agent(Manner::Answers);
    let mut sandboxes: Vec<_> = (1..=3).map(|n| Sandbox::new(&format!("pod-{n}"), n).unwrap()).collect();
    let mut newer = Sandbox::new("newer", 7).unwrap();
    newer.name.clone_from(&sandboxes[0].name);
    sandboxes.push(newer);
    // Runtimes give a namespace a name; this one will go without a DEL.
    let name = scene.folder.path().join("netns");
    symlink(&sandboxes[3].netns, &name).unwrap();
    sandboxes[3].netns = name.display().to_string();
    for sandbox in &sandboxes {
        scene.run(Verb::Add, sandbox).await.unwrap();
    }
    let forgotten =
        || agent.heard().into_iter().filter(|(method, ..)| method == "DeletePodNp").map(|(_, told, _)| told);
    let until_forgotten = async |wanted: &[&Sandbox]| {
        let wanted: Vec<_> = wanted.iter().map(|pod| told(pod, "", 0)).collect();
        let heard = || async {
            let heard: Vec<_> = forgotten().collect();
            if heard.len() < wanted.len() { Err(format!("{heard:?}")) } else { Ok(heard) }
        };
        assert_eq!(wait::until(PATIENCE, "pods to be forgotten", heard).await.unwrap(), wanted);
    };

    // In turn, so that the second tells that the first is through: of the pod that has a newer sandbox nothing is said.
    scene.gc(&[&sandboxes[2], &sandboxes[3]]).await.unwrap();
    until_forgotten(&[&sandboxes[1]]).await;
    scene.gc(&[&sandboxes[3]]).await.unwrap();
    until_forgotten(&[&sandboxes[1], &sandboxes[2]]).await;
    let lost = sandboxes.pop().unwrap();
    fs::remove_file(&name).unwrap();
    let pod = told(&lost, "", 0);
    drop(lost);
    let heard =
        || async { if forgotten().any(|told| told == pod) { Ok(()) } else { Err(format!("{:?}", calls(&agent))) } };
    wait::until(PATIENCE, "the lost pod to be forgotten", heard).await.unwrap();
    let before = scene.until_counted("GC", 3).await;
    assert_eq!(before["done"] + before["late"], 3, "{before:?}");

    drop(agent);
    let _agent = scene.agent(Manner::Hangs);
    scene.run(Verb::Add, &sandboxes[1]).await.unwrap();
    scene.gc(&[]).await.unwrap();
    scene.is_empty().await;
    assert_eq!(scene.until_counted("GC", 4).await["late"], before["late"] + 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn in_standard_mode_no_agent_fails_an_add_or_a_del() {
    let scene = Scene::begin("standard").await;
    let sandboxes = flight::sandboxes(1).unwrap();
    for manner in [None, Some(Manner::Hangs), Some(Manner::Fails), Some(Manner::Refuses)] {
        let _agent = manner.map(|manner| scene.agent(manner));
        scene.run(Verb::Add, &sandboxes[0]).await.unwrap_or_else(|failure| panic!("{manner:?}: {failure:?}"));
        scene.run(Verb::Del, &sandboxes[0]).await.unwrap_or_else(|failure| panic!("{manner:?}: {failure:?}"));
    }
    for verb in ["ADD", "DEL"] {
        let outcomes = scene.until_counted(verb, 4).await;
        let ended = |outcome: &str| outcomes[outcome];
        assert_eq!((ended("done"), ended("away"), ended("late") + ended("refused")), (0, 1, 3), "{verb}: {outcomes:?}");
        assert!(ended("late") > 0, "{verb}: {outcomes:?}");
    }
    scene.until_shown("ipamd_plugin_failures_total{verb=\"ADD\"} 0").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn in_strict_mode_no_pod_starts_without_the_agent_and_nothing_is_left_of_it() {
    let scene = Scene::begin("strict").await;
    let sandboxes = flight::sandboxes(1).unwrap();
    for manner in [Manner::Hangs, Manner::Fails, Manner::Refuses] {
        let agent = scene.agent(manner);
        let failure = scene.run(Verb::Add, &sandboxes[0]).await.unwrap_err();
        assert_eq!(failure.code, 11, "{failure:?}");
        assert!(failure.message.starts_with("IPAM-110 "), "{failure:?}");
        assert_eq!(calls(&agent), [("EnforceNpToPod".to_owned(), told(&sandboxes[0], "strict", 1))]);
        scene.is_empty().await;
    }
    // An agent that is just restarting is waited for.
    fs::remove_file(scene.agent_folder().join("npa.sock")).unwrap();
    let back = async {
        let added = || async { if leased(&scene.worker).await == 1 { Ok(()) } else { Err("no lease".to_owned()) } };
        wait::until(PATIENCE, "an ADD under way", added).await.unwrap();
        scene.agent(Manner::Answers)
    };
    let (added, agent) = tokio::join!(scene.run(Verb::Add, &sandboxes[0]), back);
    let first = added.unwrap();
    drop(agent);
    // The same ADD again while the agent is in trouble: the pod that lives loses nothing.
    let _agent = scene.agent(Manner::Refuses);
    assert_eq!(scene.run(Verb::Add, &sandboxes[0]).await.unwrap_err().code, 11);
    assert_eq!(leased(&scene.worker).await, 1);
    let links = scene.worker.node().namespace().output(Command::new("ip").args(["-o", "link"]), &[]).unwrap();
    let name = first["interfaces"].as_array().unwrap().iter().find_map(|link| link["name"].as_str()).unwrap();
    assert!(String::from_utf8(links.stdout).unwrap().contains(name), "{name} is gone");
    scene.run(Verb::Del, &sandboxes[0]).await.unwrap();
}

async fn leased(worker: &Worker) -> u32 {
    worker.status().await.unwrap().leased
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_setting_nobody_is_called_and_no_socket_is_made() {
    let scene = Scene::begin("none").await;
    let agent = scene.agent(Manner::Answers);
    let sandboxes = flight::sandboxes(1).unwrap();
    scene.run(Verb::Add, &sandboxes[0]).await.unwrap();
    scene.run(Verb::Del, &sandboxes[0]).await.unwrap();
    assert_eq!(agent.heard().len(), 0);
    assert!(!Path::new(&scene.agent_folder().join("ipamd.sock")).exists());
    assert_eq!(scene.configuration["policyAgent"], Value::Null);
}
