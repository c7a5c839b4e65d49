//! What people who run a node see of it: metrics, introspection, tools.

#![allow(clippy::unwrap_used, reason = "a test says by a panic what is not as it should be")]

use std::{collections::BTreeSet, path::Path};

use serde_json::Value;

mod look;
mod stage;

use e2e::flight;
use look::{expressions, get, json, lint};
use stage::ready_cluster;

#[tokio::test(flavor = "multi_thread")]
async fn metrics_have_the_names_of_the_aws_cni_and_pass_promtool() {
    let cluster = ready_cluster(1, 1, &[]).await;
    let worker = &cluster.workers[0];
    let pods = flight::add(&cluster, &flight::sandboxes(3).unwrap()).await.unwrap();
    let page = get(worker, "http://127.0.0.1:61678/metrics");
    assert_eq!(lint(&page), Vec::<String>::new());
    for line in [
        "awscni_assigned_ip_addresses 3",
        "awscni_add_ip_req_count 3",
        "awscni_del_ip_req_count{reason=\"PodDeleted\"} 0",
        "awscni_eni_max 4",
        "awscni_ip_max 56",
        "awscni_no_available_ip_addresses 0",
        "ipamd_adds_total{result=\"given\"} 3",
        "ipamd_add_duration_seconds_count{phase=\"queue\"} 3",
        "ipamd_addresses{state=\"leased\"} 3",
        "ipamd_eni_addresses{card=\"0\",device=\"0\",state=\"leased\"} 3",
        "ipamd_ec2_calls_total{action=\"DescribeNetworkInterfaces\",outcome=\"done\"} 1",
        "ipamd_waiting{reason=\"pods\"} 0",
        "ipamd_serving 1",
    ] {
        assert!(page.lines().any(|one| one == line), "{line} is not in:\n{page}");
    }
    assert!(!page.contains(&pods[0].sandbox.name), "a pod's name is a label");
    flight::delete(&cluster, &pods).await.unwrap();
    let page = get(worker, "http://127.0.0.1:61678/metrics");
    assert!(page.contains("ipamd_leases_ended_total{why=\"del\"} 3\n"), "{page}");
}

#[tokio::test(flavor = "multi_thread")]
async fn introspection_has_the_shape_of_the_aws_cni_and_more() {
    let cluster = ready_cluster(1, 1, &[("WARM_IP_TARGET", "3"), ("IP_COOLDOWN_PERIOD", "600")]).await;
    let worker = &cluster.workers[0];
    let mut pods = flight::add(&cluster, &flight::sandboxes(2).unwrap()).await.unwrap();
    let gone = pods.split_off(1);
    flight::delete(&cluster, &gone).await.unwrap();
    let (pod, address) = (&pods[0].sandbox.name, pods[0].place.address.to_string());

    let enis = json(worker, "/v1/enis");
    let card = &enis["0"];
    assert_eq!(card["AssignedIPs"], 1, "{enis}");
    let (_, eni) = card["ENIs"].as_object().unwrap().iter().find(|(_, eni)| eni["IsPrimary"] == true).unwrap();
    let cidr = &eni["AvailableIPv4Cidrs"][format!("{address}/32")];
    assert_eq!(cidr["IPAddresses"][&address]["IPAMMetadata"]["k8sPodName"], pod.as_str(), "{enis}");
    assert_eq!(json(worker, "/v1/ipamd-env-settings")["WARM_IP_TARGET"], 3);
    assert_eq!(json(worker, "/v1/networkutils-env-settings")["AWS_VPC_K8S_CNI_VETHPREFIX"], "eni");
    assert_eq!(json(worker, "/v1/eni-configs"), "default");

    let pool = json(worker, "/v2/pool");
    let cells: Vec<&Value> =
        pool["enis"].as_array().unwrap().iter().flat_map(|eni| eni["addresses"].as_array().unwrap()).collect();
    let of = |state: &str| cells.iter().filter(|cell| cell["state"] == state).count();
    assert_eq!((of("leased"), of("cooling")), (1, 1), "{pool}");
    assert!(cells.iter().any(|cell| cell["pod"] == format!("demo/{pod}").as_str()), "{pool}");
    assert_eq!(json(worker, "/v2/leases")["leases"][0]["address"], address.as_str());
    let overview = json(worker, "/v2/overview");
    assert_eq!(overview["adds"].as_array().unwrap().len(), 2, "{overview}");
    assert!(!overview["samples"].as_array().unwrap().is_empty(), "{overview}");
    assert_eq!(overview["plan"]["demand"], 0, "{overview}");
    assert_eq!(json(worker, "/readyz")["ready"], true);
    assert_eq!(json(worker, "/healthz")["alive"], true);
    assert!(json(worker, "/v1/pods")["AvailableCommands"].as_array().unwrap().contains(&"/v1/enis".into()));

    let rebound = look::curl(worker, &["-H", "Host: evil.example", "http://127.0.0.1:61679/v2/leases"]);
    assert!(!rebound.contains(&address), "{rebound}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_that_waits_is_alive_but_not_ready_and_says_for_what() {
    let cluster = stage::cluster(1, &[]).await;
    let worker = &cluster.workers[0];
    worker.cut_ec2();
    worker.start_daemon().unwrap();
    stage::until_waiting_for(worker, "").await;
    let ready = json(worker, "/readyz");
    assert_eq!(ready["ready"], false, "{ready}");
    assert_eq!(json(worker, "/healthz")["alive"], true);
    let shut: Vec<&Value> = ready["gates"].as_array().unwrap().iter().filter(|gate| gate["open"] == false).collect();
    assert!(shut.iter().all(|gate| gate["missing"].as_str().is_some_and(|why| !why.is_empty())), "{ready}");
    assert!(!shut.is_empty(), "{ready}");
}

#[tokio::test(flavor = "multi_thread")]
async fn people_can_ask_for_everything_and_each_answer_has_its_exit_code() {
    let cluster = ready_cluster(1, 1, &[]).await;
    let worker = &cluster.workers[0];
    let pods = flight::add(&cluster, &flight::sandboxes(2).unwrap()).await.unwrap();
    let (code, said) = look::ipamd(worker, &["status"]);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("ready      yes") && said.contains("2 leased"), "{said}");
    let (code, said) = look::ipamd(worker, &["pods"]);
    assert_eq!(code, Some(0), "{said}");
    for pod in &pods {
        let line = said.lines().find(|line| line.contains(&format!("demo/{}", pod.sandbox.name)));
        assert!(line.is_some_and(|line| line.contains(&pod.place.address.to_string())), "{said}");
    }
    let (code, said) = look::ipamd(worker, &["plan", "--output", "json"]);
    assert_eq!(code, Some(0), "{said}");
    assert!(serde_json::from_str::<Value>(&said).unwrap()["ec2"].as_array().is_some_and(|ec2| !ec2.is_empty()));

    assert_eq!(look::ipamd(worker, &["log-level", "loud"]).0, Some(1));
    assert_eq!(look::ipamd(worker, &["log-level", "debug"]).0, Some(0));
    flight::delete(&cluster, &pods).await.unwrap();

    let folder = tempfile::tempdir().unwrap();
    let bundle = folder.path().join("bundle.tar");
    let (code, said) = look::ipamd(worker, &["support-bundle", bundle.to_str().unwrap()]);
    assert_eq!(code, Some(0), "{said}");
    let listed = std::process::Command::new("tar").arg("-tf").arg(&bundle).output().unwrap();
    let listed = String::from_utf8(listed.stdout).unwrap();
    for file in
        ["settings.json", "daemon/pool.json", "daemon/metrics.txt", "doctor.json", "history.json", "node/ip-rules.txt"]
    {
        assert!(listed.contains(file), "{file} is not in:\n{listed}");
    }

    worker.kill_daemon().unwrap();
    let (code, said) = look::ipamd(worker, &["status"]);
    assert!(code == Some(1) && said.contains("no daemon answers"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_expression_of_dashboard_and_alerts_parses_and_names_metrics_that_exist() {
    let cluster = ready_cluster(1, 1, &[]).await;
    let page = get(&cluster.workers[0], "http://127.0.0.1:61678/metrics");
    let names = expressions::names(&page);
    let chart = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../charts/eni-cni"));
    let read = |file: &str| std::fs::read_to_string(chart.join(file)).unwrap();

    let dashboard: Value = serde_json::from_str(&read("dashboards/eni-cni.json")).unwrap();
    let texts = expressions::of_dashboard(&dashboard);
    expressions::parse(&texts);
    for text in &texts {
        assert_eq!(expressions::unknown(text, &names), Vec::<&str>::new(), "{text}");
    }
    let panels = dashboard["panels"].as_array().unwrap();
    let ids: BTreeSet<u64> = panels.iter().map(|panel| panel["id"].as_u64().unwrap()).collect();
    assert_eq!(ids.len(), panels.len(), "a panel's id stands twice");
    for panel in panels {
        assert_eq!(panel["datasource"]["uid"], "${datasource}", "{panel}");
    }
    let alerts = read("alerts/eni-cni.yaml");
    for line in alerts.lines().filter_map(|line| line.trim().strip_prefix("expr: ")) {
        assert_eq!(expressions::unknown(line, &names), Vec::<&str>::new(), "{line}");
    }
    expressions::promtool(&["check", "rules"], &chart.join("alerts/eni-cni.yaml"));
    expressions::promtool(&["test", "rules"], &chart.join("alerts/eni-cni.test.yaml"));
}
