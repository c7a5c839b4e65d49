//! Whom we take for the API server, and when that changes.

use api_sim::tls::{Authority, Badge, Door};

use super::*;

/// A stand-in behind TLS, whose certificate is for `name`; the daemon believes `trusted`.
async fn stage(
    server: &Authority,
    name: &str,
    trusted: &Authority,
) -> (ApiSim, KubeSettings, tempfile::TempDir, Badge) {
    let sim = ApiSim::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("https://{}", listener.local_addr().unwrap());
    let (door, badge) = Door::new(listener, server.vouch(name).unwrap());
    let router = sim.router();
    tokio::spawn(async move { axum::serve(door, router).await });
    let account = tempfile::tempdir().unwrap();
    std::fs::write(account.path().join("token"), "secret-1").unwrap();
    std::fs::write(account.path().join("ca.crt"), trusted.pem()).unwrap();
    sim.demand_token("secret-1");
    let settings = KubeSettings {
        node: "node-1".to_owned(),
        endpoint: Some(endpoint),
        account: account.path().to_owned(),
        annotate: false,
        eni_config: None,
        branches: false,
    };
    (sim, settings, account, badge)
}

#[tokio::test]
async fn only_whom_the_clusters_authority_vouches_for_by_its_name_hears_of_us() {
    let (cluster, stranger) = (Authority::new().unwrap(), Authority::new().unwrap());
    let (sim, settings, _account, _badge) = stage(&cluster, "127.0.0.1", &cluster).await;
    put_pods(&sim, 58);
    let object = kube(&settings).node.api.get(NODE).await.unwrap();
    assert_eq!(object["metadata"]["name"], "node-1");

    for (server, name) in [(&stranger, "127.0.0.1"), (&cluster, "kubernetes.default.svc")] {
        let (sim, settings, _account, _badge) = stage(server, name, &cluster).await;
        let error = kube(&settings).node.api.get(NODE).await.unwrap_err();
        assert!(matches!(&error, ApiError::Away(why) if why.contains("certificate")), "{error}");
        assert_eq!(sim.asked(), [], "it has our token");
    }
}

#[tokio::test]
async fn a_new_authority_counts_once_its_file_says_so_and_an_illegible_file_changes_nothing() {
    let (former, next) = (Authority::new().unwrap(), Authority::new().unwrap());
    let (sim, settings, account, badge) = stage(&former, "127.0.0.1", &former).await;
    put_pods(&sim, 58);
    let kube = kube(&settings);
    until("the node", || max_pods(&kube) == Some(58)).await;
    until("the watch", || sim.watchers() > 0).await;
    let file = account.path().join("ca.crt");
    for nonsense in ["", "no certificate", "-----BEGIN CERTIFICATE-----\nnot base64\n-----END CERTIFICATE-----\n"] {
        std::fs::write(&file, nonsense).unwrap();
        kube.node.api.get(NODE).await.unwrap_or_else(|error| panic!("{nonsense:?}: {error}"));
    }
    std::fs::remove_file(&file).unwrap();
    kube.node.api.get(NODE).await.unwrap();

    badge.change(next.vouch("127.0.0.1").unwrap());
    put_pods(&sim, 7);
    std::fs::write(&file, format!("{}{}", former.pem(), next.pem())).unwrap();
    sim.cut();
    until("the change", || max_pods(&kube) == Some(7)).await;
}

#[tokio::test]
async fn without_a_certificate_of_the_authority_kubernetes_is_not_used() {
    let cluster = Authority::new().unwrap();
    let (_sim, settings, account, _badge) = stage(&cluster, "127.0.0.1", &cluster).await;
    for nonsense in ["", "-----BEGIN CERTIFICATE-----\nnot base64\n-----END CERTIFICATE-----\n"] {
        std::fs::write(account.path().join("ca.crt"), nonsense).unwrap();
        assert!(start(Some(&settings)).0.is_none(), "{nonsense:?}");
    }
}
