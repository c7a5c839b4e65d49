//! The status page in a browser, as a person sees it, with pods whose names try to be more than names.

#![allow(clippy::unwrap_used, reason = "a test says by a panic what is not as it should be")]

use std::sync::Arc;

use e2e::{Cluster, Worker, flight, plugin::NETWORK};
use eni_proto::wire;

mod look;
mod stage;

use look::browser::Browser;
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

/// Where the page is, seen from the node.
const PAGE: &str = "http://127.0.0.1:61679/";
const DESK: (u32, u32) = (1280, 1500);

fn browser(worker: &Worker) -> Browser {
    Browser::start(&worker.node().namespace().enter_hint())
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
async fn the_page_can_be_read_in_light_and_dark_and_on_a_narrow_screen() {
    let (cluster, _pods) = busy_cluster().await;
    let browser = browser(&cluster.workers[0]);
    for (theme, size) in [("light", DESK), ("dark", DESK), ("light", (360, 800)), ("dark", (360, 800))] {
        browser.open(PAGE, size, theme);
        assert_eq!(browser.value("document.querySelectorAll('.cells .cell.leased').length"), 19);
        assert!(browser.value("document.querySelectorAll('.cells .cell.cooling').length").as_u64().unwrap() > 0);
        let none = serde_json::json!([]);
        assert_eq!(browser.value("pale()"), none, "text that is hard to read in {theme} at {size:?}");
        assert_eq!(browser.value("paleCells()"), none, "cells that are hard to see in {theme} at {size:?}");
        assert_eq!(browser.value("document.documentElement.scrollWidth"), size.0, "the page is wider than its window");
        browser.value("document.getElementById('node').style.color = behind(document.body)");
        assert_eq!(browser.value("pale().length"), 1, "what the test itself made pale is found");
        let shapes = browser.value("shapes()");
        let shapes: Vec<&str> = shapes.as_array().unwrap().iter().map(|shape| shape.as_str().unwrap()).collect();
        let different: std::collections::BTreeSet<&&str> = shapes.iter().collect();
        assert!(shapes.len() == 6 && different.len() == 6, "states differ by colour alone: {shapes:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_address_can_be_reached_and_is_told_by_keyboard() {
    let (cluster, _pods) = busy_cluster().await;
    let browser = browser(&cluster.workers[0]);
    browser.open(PAGE, DESK, "light");
    let at = |wanted: &str| {
        assert_eq!(browser.value("here()"), wanted);
        let ring = browser.value("ring()");
        assert!(
            ring[0] != "none" && ring[1].as_f64() >= Some(2.0) && ring[2].as_f64() >= Some(3.0),
            "{wanted}: {ring}"
        );
    };
    browser.press("Tab");
    at("out skip");
    assert!(
        browser.value("document.activeElement.getBoundingClientRect().width > 40") == true,
        "the skip link is not seen"
    );
    browser.press("Tab");
    at("pause");
    browser.press("Enter");
    assert_eq!(browser.value("document.activeElement.getAttribute('aria-pressed')"), "true");
    browser.press("Enter");
    let rows = browser.value("document.querySelectorAll('.cells').length").as_u64().unwrap();
    assert!(rows >= 2, "{rows} ENIs");
    for row in 0..rows {
        browser.press("Tab");
        assert_eq!(browser.value("row()"), row, "Tab goes from ENI to ENI");
        let cells = browser.value("document.activeElement.parentElement.children.length").as_u64().unwrap();
        let mut told = std::collections::BTreeSet::new();
        for _ in 0..cells {
            let says = browser.value("document.activeElement.getAttribute('aria-label')");
            assert_eq!(browser.value("document.getElementById('detail').textContent"), says);
            told.insert(says.as_str().unwrap().to_owned());
            browser.press("ArrowRight");
        }
        assert_eq!(told.len() as u64, cells, "arrow keys reach every address of the ENI: {told:?}");
        browser.press("Home");
        let first = browser.value("document.activeElement === document.activeElement.parentElement.firstChild");
        browser.press("ArrowDown");
        browser.press("End");
        let last = browser.value("document.activeElement === document.activeElement.parentElement.lastChild");
        assert!(first == true && last == true, "Home and End go to the ends of the row");
    }
    // The page draws itself anew every two seconds; whoever stands somewhere stays there.
    let stands = browser.value("window.stood = document.activeElement, at('clock').textContent");
    browser.until(&format!("at('clock').textContent !== {stands}"));
    assert_eq!(browser.value("window.stood === document.activeElement"), true);
    for _ in 0..2 {
        browser.press("Tab");
        at("scroll");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_screen_reader_is_told_everything_by_name() {
    let (cluster, pods) = busy_cluster().await;
    let browser = browser(&cluster.workers[0]);
    browser.open(PAGE, DESK, "light");
    let spoken = browser.spoken();
    let of = |role: &str| -> Vec<&str> {
        spoken.iter().filter(|(one, _)| one == role).map(|(_, name)| name.as_str()).collect()
    };
    for role in ["button", "link", "group", "region", "image", "heading", "columnheader"] {
        assert!(!of(role).is_empty() && of(role).iter().all(|name| !name.is_empty()), "{role}: {:?}", of(role));
    }
    assert_eq!(of("main").len(), 1);
    let cells = of("button");
    for pod in &pods {
        let says = format!("{}, leased, by demo/{} since ", pod.place.address, pod.sandbox.name);
        assert!(cells.iter().any(|name| name.starts_with(&says)), "{says} is not in {cells:?}");
    }
    assert!(cells.iter().any(|name| name.contains(", cooling, until ")), "{cells:?}");
    assert!(cells.iter().any(|name| name.ends_with(", primary")) && cells.iter().any(|name| name.ends_with(", free")));
    let enis = of("group");
    assert!(enis.iter().filter(|name| name.starts_with("eni-") && name.ends_with(" leased")).count() >= 2, "{enis:?}");
    let plot = of("image").into_iter().find(|name| name.starts_with("Pool (line) now ")).unwrap();
    assert!(plot.contains("demand (dashed) now 19"), "{plot}");
    assert!(of("image").iter().any(|name| name.starts_with("queue ")), "timelines of ADDs: {:?}", of("image"));
    assert!(spoken.iter().any(|(role, name)| role == "StaticText" && name == "ready"), "{spoken:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pods_name_is_text_on_the_page_in_the_log_and_in_json() {
    let cluster = ready_cluster(1, 5, &[]).await;
    let worker = &cluster.workers[0];
    add_hostile(worker).await;
    let browser = browser(worker);
    browser.open(PAGE, DESK, "light");
    let page = browser.value("document.documentElement.outerHTML").as_str().unwrap().to_owned();
    let spoken = format!("{:?}", browser.spoken());
    assert!(!spoken.contains('\u{202e}') && !spoken.contains(&"l".repeat(100)), "{spoken}");
    assert_eq!(browser.value("document.documentElement.scrollWidth"), DESK.0);
    assert!(page.contains("<title>ipamd: 5 leased"), "a name took the title:\n{page}");
    assert!(page.contains("&lt;img src=x onerror"), "{page}");
    assert!(!page.contains("<img"), "a name became an element");
    assert!(!page.contains('\u{202e}') && page.contains("\\u{202e}"), "a name turned the direction of writing");
    assert!(!page.contains(&"l".repeat(100)), "a name takes the whole page");
    let log = worker.daemon_log();
    assert!(!log.contains('\u{1b}'), "a name commands the terminal that shows the log");
    let metrics = look::get(worker, "http://127.0.0.1:61678/metrics");
    assert!(!metrics.contains("onerror") && look::lint(&metrics).is_empty(), "{metrics}");
    let leases = look::json(worker, "/v2/leases");
    let addresses = leases["leases"]
        .as_array()
        .unwrap()
        .iter()
        .map(|lease| format!("explain {}", lease["address"].as_str().unwrap()));
    let commands = ["status", "pods", "plan", "history", "doctor", "config check"].map(str::to_owned);
    for command in commands.into_iter().chain(addresses) {
        for form in ["", " --output json", " --output wide"] {
            let line = format!("{command}{form}");
            let (code, said) = look::ipamd(worker, &line.split(' ').collect::<Vec<_>>());
            // 2: it has no such form. The pods of this test have no network, which doctor finds.
            assert!(
                code == Some(0) || code == Some(2) && form.ends_with("wide") || command == "doctor",
                "{line}: {said}"
            );
            let obeyed = said.chars().find(|c| {
                c.is_control() && *c != '\n' || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}')
            });
            assert_eq!(obeyed, None, "{line} prints what a terminal obeys:\n{said}");
        }
    }
    let names: Vec<&str> = leases["leases"].as_array().unwrap().iter().map(|it| it["pod"].as_str().unwrap()).collect();
    assert!(HOSTILE.iter().all(|name| names.contains(name)), "{names:?}");
}
