//! The status page in a browser, as a person sees it, with pods whose names try to be more than names.

#![allow(clippy::unwrap_used, reason = "a test says by a panic what is not as it should be")]

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
};

use e2e::{Cluster, Worker, flight, plugin::NETWORK};
use eni_proto::wire;

mod look;
mod stage;

use stage::{client, ready_cluster};

/// Names that a runtime could pass on, and what the page must make of them.
const HOSTILE: [&str; 4] = [
    "<img src=x onerror=document.title='taken'>",
    "\u{1b}[2J\u{1b}]0;taken\u{7}",
    "\u{202e}gnp.live",
    "</script><script>document.title='taken'</script>",
];

/// Gives pods of such names an address each, as a plugin would.
pub(crate) async fn add_hostile(worker: &Worker) {
    let mut client = client(worker).await;
    let long = "l".repeat(5000);
    for (nth, name) in HOSTILE.into_iter().chain([long.as_str()]).enumerate() {
        let request = wire::AddRequest {
            key: Some(wire::PodKey {
                network: NETWORK.to_owned(),
                container_id: format!("hostile{nth}"),
                interface: "eth0".to_owned(),
            }),
            netns: "/proc/self/ns/net".to_owned(),
            pod: Some(wire::Pod { namespace: "web".to_owned(), name: name.to_owned(), uid: String::new() }),
            wait_milliseconds: 20_000,
            ..Default::default()
        };
        let reply = client.add(request).await.unwrap().into_inner();
        assert!(matches!(reply.outcome, Some(wire::add_reply::Outcome::Network(_))), "{reply:?}");
    }
}

/// Opens the page in the node's network and returns what the browser made of it; a screenshot is left at `picture`.
fn open(worker: &Worker, home: &Path, picture: &Path, options: &[&str]) -> String {
    let run = |what: &str| {
        let mut command = Command::new("chromium");
        command.args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"]);
        command.args(["--hide-scrollbars", "--window-size=1280,1500", "--virtual-time-budget=3000"]);
        command.arg(format!("--user-data-dir={}", home.display())).args(options).arg(what);
        command.arg("http://127.0.0.1:61679/");
        let output = worker.node().namespace().output(&mut command, &[]).unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    run(&format!("--screenshot={}", picture.display()));
    run("--dump-dom")
}

/// Where screenshots go: they are looked at by people, and those in the documentation are copies.
fn pictures() -> PathBuf {
    let folder = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/pictures"));
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

/// A node with 19 pods, which live as long as the second value, and 5 that have ended.
async fn busy_cluster() -> (Cluster, Vec<Arc<flight::Placed>>) {
    let cluster = ready_cluster(1, 1, &[("IP_COOLDOWN_PERIOD", "600")]).await;
    let mut pods = flight::add(&cluster, &flight::sandboxes(24).unwrap()).await.unwrap();
    let gone = pods.split_off(19);
    flight::delete(&cluster, &gone).await.unwrap();
    (cluster, pods)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_shows_the_node_in_light_and_dark() {
    let (cluster, _pods) = busy_cluster().await;
    let worker = &cluster.workers[0];
    let home = tempfile::tempdir().unwrap();
    let folder = pictures();
    for (name, options) in [
        ("page-light.png", &["--blink-settings=preferredColorScheme=1"][..]),
        ("page-dark.png", &["--blink-settings=preferredColorScheme=0"][..]),
    ] {
        let page = open(worker, home.path(), &folder.join(name), options);
        assert!(page.contains("data-drawn=\"yes\""), "the page did not draw:\n{page}");
        assert_eq!(page.matches("class=\"cell leased\" data-says").count(), 19, "{page}");
        assert!(page.contains("class=\"cell cooling\" data-says"), "{page}");
        assert!(page.contains("by demo/"), "{page}");
        let picture = std::fs::metadata(folder.join(name)).unwrap();
        assert!(picture.len() > 20_000, "{name} has {} bytes", picture.len());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pods_name_is_text_on_the_page_in_the_log_and_in_json() {
    let cluster = ready_cluster(1, 5, &[]).await;
    let worker = &cluster.workers[0];
    add_hostile(worker).await;
    let home = tempfile::tempdir().unwrap();
    let page = open(worker, home.path(), &pictures().join("page-hostile.png"), &[]);
    assert!(page.contains("<title>ipamd: 5 leased"), "a name took the title:\n{page}");
    assert!(page.contains("&lt;img src=x onerror"), "{page}");
    assert!(!page.contains("<img"), "a name became an element");
    assert!(!page.contains('\u{202e}') && page.contains("\\u{202e}"), "a name turned the direction of writing");
    assert!(!page.contains(&"l".repeat(100)), "a name takes the whole page");
    let log = worker.daemon_log();
    assert!(!log.contains('\u{1b}'), "a name commands the terminal that shows the log");
    let metrics = look::get(worker, "http://127.0.0.1:61678/metrics");
    assert!(!metrics.contains("onerror") && look::lint(&metrics).is_empty(), "{metrics}");
    for arguments in [&["status"][..], &["pods"], &["pods", "--output", "wide"], &["plan"]] {
        let (code, said) = look::ipamd(worker, arguments);
        assert_eq!(code, Some(0), "{said}");
        assert!(!said.contains('\u{1b}') && !said.contains('\u{202e}'), "{arguments:?} prints what a terminal obeys");
    }
    let leases = look::json(worker, "/v2/leases");
    let names: Vec<&str> = leases["leases"].as_array().unwrap().iter().map(|it| it["pod"].as_str().unwrap()).collect();
    assert!(HOSTILE.iter().all(|name| names.contains(name)), "{names:?}");
}
