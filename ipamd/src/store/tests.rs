use eni_proto::{EniMark, Pod, PodAddresses};
use ipam_core::ports::{Attachment, Cidr4, InterfaceKind};
use sqlx::{
    Connection, SqlSafeStr,
    migrate::{Migration, MigrationType, Migrator},
};

use super::{schema::MIGRATIONS, *};
use crate::tenure::{Question, Span};

const NOW: Moment = Moment::from_millis(30_000);

fn lease(container: &str, last: u8) -> Lease {
    Lease {
        key: PodKey::new("pods", container, "eth0").unwrap(),
        pod: Pod { namespace: "default".into(), name: "web-0".into(), uid: "u".into() },
        netns: "/run/netns/x".into(),
        addresses: std::net::Ipv4Addr::new(10, 0, 0, last).into(),
        eni: "eni-1".parse().unwrap(),
        eni_mark: EniMark::of_device(1),
        since: Moment::from_millis(1_000),
    }
}

fn cool(last: u8) -> Vec<CoolDown> {
    vec![CoolDown { address: [10, 0, 0, last].into(), until: Moment::from_millis(31_000) }]
}

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn file(&self) -> std::path::PathBuf {
        self.0.path().join("ipamd.db")
    }

    async fn open(&self, boot: &str) -> (Store, Recorded) {
        Store::open(&self.file(), boot, NOW, Moment::from_millis(60_000)).await.unwrap()
    }
}

#[tokio::test]
async fn a_lease_is_there_after_reopening_and_gone_after_its_release() {
    let folder = Folder::new();
    let (store, recorded) = folder.open("boot-1").await;
    assert!(recorded.leases.is_empty());
    store.put(lease("a", 5)).await.unwrap();
    store.put(lease("b", 6)).await.unwrap();
    store.release(lease("b", 6).key, cool(6), NOW, Ended::Del).await.unwrap();

    let (_store, recorded) = folder.open("boot-1").await;

    assert_eq!(recorded.leases, [lease("a", 5)]);
    assert_eq!(recorded.cooling, cool(6));
}

#[tokio::test]
async fn a_start_that_finds_all_in_order_waits_for_no_write() {
    let folder = Folder::new();
    let (_store, _) = folder.open("boot-1").await;
    let mut looker = SqliteConnectOptions::new().filename(folder.file()).connect().await.unwrap();
    // Changes with every commit of somebody else.
    let commits = "PRAGMA data_version";
    let before: i64 = sqlx::query_scalar(commits).fetch_one(&mut looker).await.unwrap();
    folder.open("boot-1").await;
    let after: i64 = sqlx::query_scalar(commits).fetch_one(&mut looker).await.unwrap();
    assert_eq!(after, before);
    folder.open("boot-2").await;
    let other_boot: i64 = sqlx::query_scalar(commits).fetch_one(&mut looker).await.unwrap();
    assert_ne!(other_boot, before, "what was to be written is seen");
}

#[tokio::test]
async fn one_address_cannot_belong_to_two_keys() {
    let folder = Folder::new();
    let (store, _) = folder.open("boot-1").await;
    // Queued together, so that they share a commit: the good ones must not fall with the bad one.
    let writes = [store.put(lease("a", 5)), store.put(lease("b", 5)), store.put(lease("c", 7))];
    let mut outcomes = Vec::new();
    for write in writes {
        outcomes.push(write.await.is_ok());
    }
    assert_eq!(outcomes, [true, false, true]);
    assert_eq!(folder.open("boot-1").await.1.leases, [lease("a", 5), lease("c", 7)]);
}

#[tokio::test]
async fn storing_the_same_lease_again_changes_nothing() {
    let folder = Folder::new();
    let (store, _) = folder.open("boot-1").await;
    store.put(lease("a", 5)).await.unwrap();
    store.put(lease("a", 5)).await.unwrap();
    assert_eq!(folder.open("boot-1").await.1.leases, [lease("a", 5)]);
}

#[tokio::test]
async fn after_a_reboot_leases_are_void_and_their_addresses_rest() {
    let folder = Folder::new();
    let (store, _) = folder.open("boot-1").await;
    store.put(lease("a", 5)).await.unwrap();

    let (_store, recorded) = folder.open("boot-2").await;

    assert!(recorded.leases.is_empty());
    let until = Moment::from_millis(60_000);
    assert_eq!(recorded.cooling, [CoolDown { address: [10, 0, 0, 5].into(), until }]);
}

fn eni(name: &str) -> Interface {
    Interface {
        id: name.parse().unwrap(),
        mac: "02:00:00:00:00:01".parse().unwrap(),
        subnet: "subnet-1".parse().unwrap(),
        primary: [10, 0, 0, 4].into(),
        secondary: vec![[10, 0, 0, 5].into()],
        prefixes: vec![Cidr4 { network: [10, 0, 0, 16].into(), prefix: 28 }],
        prefixes6: vec!["2600:1f00:0:1::/80".parse().unwrap()],
        kind: InterfaceKind::Plain,
        security_groups: vec!["sg-1".parse().unwrap()],
        attachment: Some(Attachment {
            id: "eni-attach-1".parse().unwrap(),
            instance: "i-1".parse().unwrap(),
            device_index: 1,
            card: 0,
            attached: true,
            delete_on_termination: true,
        }),
        tags: [("a".to_owned(), "b".to_owned())].into(),
    }
}

fn node() -> NodeIdentity {
    NodeIdentity {
        instance: "i-1".parse().unwrap(),
        instance_type: "m5.large".to_owned(),
        region: "eu-central-1".to_owned(),
        primary_mac: "02:00:00:00:00:01".parse().unwrap(),
        primary_eni: "eni-1".parse().unwrap(),
        subnet: "subnet-1".parse().unwrap(),
        subnet_cidr: Cidr4 { network: [10, 0, 0, 0].into(), prefix: 20 },
        zone: "eu-central-1a".to_owned(),
        vpc: "vpc-1".parse().unwrap(),
        vpc_cidrs: vec![Cidr4 { network: [10, 0, 0, 0].into(), prefix: 16 }],
        security_groups: vec!["sg-1".parse().unwrap()],
    }
}

#[tokio::test]
async fn an_intent_is_open_until_it_is_settled_together_with_what_it_brought() {
    let folder = Folder::new();
    let (store, _) = folder.open("boot-1").await;
    let [first, second] = ["one", "two"].map(|id| IntentId(id.to_owned()));
    let action = Action::Delete { eni: "eni-1".parse().unwrap() };
    store.begin(&first, &action, Moment::from_millis(1)).await.unwrap();
    store.begin(&second, &action, Moment::from_millis(2)).await.unwrap();
    store.settle(&first, "done".to_owned(), Moment::from_millis(3), vec![eni("eni-2")]).await.unwrap();

    let (_store, recorded) = folder.open("boot-1").await;

    assert_eq!(recorded.cloud.open, [(second, action)]);
    assert_eq!(recorded.cloud.interfaces, [eni("eni-2")]);
}

#[tokio::test]
async fn what_is_known_of_the_cloud_outlives_a_reboot_but_not_a_move_to_another_instance() {
    let folder = Folder::new();
    let (store, _) = folder.open("boot-1").await;
    let limits = Limits { max_enis: 4, addresses_per_eni: 15, ..Limits::default() };
    store.remember(vec![eni("eni-1"), eni("eni-2")]).await.unwrap();
    store.remember_node(&node()).await.unwrap();
    store.remember_limits(limits).await.unwrap();

    let known = folder.open("boot-1").await.1.cloud;
    assert_eq!((known.interfaces.len(), known.node, known.limits), (2, Some(node()), Some(limits)));
    let rebooted = folder.open("boot-2").await.1;
    assert_eq!((rebooted.cloud.interfaces.len(), rebooted.same_boot), (2, false));
    assert_eq!(rebooted.cloud.limits, None, "an instance can have another type after a stop");
    store.forget_cloud().await.unwrap();
    let known = folder.open("boot-2").await.1.cloud;
    assert_eq!((known.interfaces.len(), known.node), (0, None));
}

#[tokio::test]
async fn a_record_that_cannot_be_understood_is_left_out() {
    let folder = Folder::new();
    let (store, _) = folder.open("boot-1").await;
    store.remember(vec![eni("eni-1")]).await.unwrap();
    let mut raw = connect(&folder.file(), SqliteSynchronous::Normal).await.unwrap();
    sqlx::raw_sql("INSERT INTO interfaces VALUES ('eni-9', 'Interface {}'); INSERT INTO intents VALUES ('x', 'Delete', 1, NULL, NULL)")
        .execute(&mut raw)
        .await
        .unwrap();

    let known = folder.open("boot-1").await.1.cloud;

    assert_eq!((known.interfaces, known.open, known.illegible), (vec![eni("eni-1")], vec![], true));
}

#[tokio::test]
async fn cool_downs_that_are_over_are_forgotten() {
    let folder = Folder::new();
    let (store, _) = folder.open("boot-1").await;
    store.release(lease("a", 5).key, cool(5), NOW, Ended::Del).await.unwrap();
    store.forget_cooled(Moment::from_millis(30_999)).await.unwrap();
    assert_eq!(folder.open("boot-1").await.1.cooling.len(), 1);
    store.forget_cooled(Moment::from_millis(31_000)).await.unwrap();
    assert_eq!(folder.open("boot-1").await.1.cooling.len(), 0);
}

#[tokio::test]
async fn a_file_that_is_no_database_is_damaged_and_a_folder_cannot_be_opened() {
    let folder = Folder::new();
    std::fs::write(folder.file(), "this is not SQLite, and long enough to be looked at as a header").unwrap();
    let error = Store::open(&folder.file(), "boot", Moment::default(), Moment::default()).await.err().unwrap();
    assert!(matches!(error, StoreError::Damaged { .. }), "{error:?}");
    assert!(error.calls_for_a_new_file());

    let error = Store::open(folder.0.path(), "boot", Moment::default(), Moment::default()).await.err().unwrap();
    assert!(matches!(error, StoreError::Open { .. }), "{error:?}");
    assert!(error.to_string().starts_with("IPAM-304"), "{error}");
}

#[tokio::test]
async fn a_database_of_a_newer_version_is_recognised() {
    let folder = Folder::new();
    drop(folder.open("boot").await);
    let mut connection = connect(&folder.file(), SqliteSynchronous::Normal).await.unwrap();
    let newer = "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) \
                 VALUES (999, 'later', 1, x'00', 0); \
                 UPDATE facts SET value = '999' WHERE name = 'oldest_reader'";
    sqlx::raw_sql(newer).execute(&mut connection).await.unwrap();
    let error = Store::open(&folder.file(), "boot", Moment::default(), Moment::default()).await.err().unwrap();
    assert!(matches!(error, StoreError::Newer { .. }), "{error:?}");
}

/// The next version's migrations: one more than ours, which only adds.
fn next_version() -> Migrator {
    let adds = "ALTER TABLE leases ADD COLUMN more TEXT; CREATE TABLE later (what TEXT NOT NULL) STRICT;";
    let latest = MIGRATIONS.iter().last().unwrap().version;
    let next = Migration::new(latest + 1, "next".into(), MigrationType::Simple, adds.into_sql_str(), false);
    Migrator { migrations: MIGRATIONS.iter().cloned().chain([next]).collect(), ..Migrator::DEFAULT }
}

#[tokio::test]
async fn after_a_downgrade_leases_cool_downs_and_history_go_on_and_the_next_upgrade_finds_them() {
    let folder = Folder::new();
    let (store, _) = folder.open("boot-1").await;
    store.put(lease("a", 5)).await.unwrap();
    store.put(lease("b", 6)).await.unwrap();
    store.release(lease("b", 6).key, cool(6), NOW, Ended::Del).await.unwrap();
    drop(store);
    let mut connection = connect(&folder.file(), SqliteSynchronous::Full).await.unwrap();
    next_version().run(&mut connection).await.unwrap();
    connection.close().await.unwrap();

    let (store, recorded) = folder.open("boot-1").await;
    assert_eq!((recorded.leases, recorded.cooling), (vec![lease("a", 5)], cool(6)));
    store.put(lease("c", 7)).await.unwrap();
    store.release(lease("a", 5).key, cool(5), NOW, Ended::Del).await.unwrap();
    drop(store);
    let ended = told(&folder, &Question::default()).await.into_iter().filter(|(.., ended)| ended.is_some()).count();
    assert_eq!(ended, 2);

    let mut connection = connect(&folder.file(), SqliteSynchronous::Full).await.unwrap();
    next_version().run(&mut connection).await.unwrap();
    connection.close().await.unwrap();
    let mut recorded = folder.open("boot-1").await.1;
    recorded.cooling.sort_by_key(|cooling| cooling.address);
    assert_eq!((recorded.leases, recorded.cooling), (vec![lease("c", 7)], [cool(5), cool(6)].concat()));
}

/// Address, sandbox, and when and why it ended.
async fn told(folder: &Folder, question: &Question) -> Vec<(String, String, Option<(u64, String)>)> {
    let tenures = tenures(&folder.file(), question).await.unwrap();
    let told = tenures
        .into_iter()
        .map(|tenure| (tenure.address, tenure.container_id, tenure.ended.map(|(at, why)| (at.as_millis(), why))));
    told.collect()
}

fn held(last: u8, container: &str, ended: Option<(u64, &str)>) -> (String, String, Option<(u64, String)>) {
    (format!("10.0.0.{last}"), container.to_owned(), ended.map(|(at, why)| (at, why.to_owned())))
}

#[tokio::test]
async fn the_history_tells_who_held_an_address_when() {
    let folder = Folder::new();
    let (store, _) = folder.open("boot-1").await;
    store.put(lease("a", 5)).await.unwrap();
    store.release(lease("a", 5).key, cool(5), Moment::from_millis(20_000), Ended::Gc).await.unwrap();
    store.release(lease("a", 5).key, cool(5), Moment::from_millis(21_000), Ended::Del).await.unwrap();
    store.put(Lease { since: Moment::from_millis(40_000), ..lease("b", 5) }).await.unwrap();
    store.put(Lease { pod: Pod { name: "web-1".into(), ..lease("c", 6).pod }, ..lease("c", 6) }).await.unwrap();
    let (a, b, c) = (held(5, "a", Some((20_000, "gc"))), held(5, "b", None), held(6, "c", None));

    assert_eq!(told(&folder, &Question::default()).await, [a.clone(), c.clone(), b.clone()]);
    let ip = Some([10, 0, 0, 5].into());
    assert_eq!(told(&folder, &Question { ip, ..Question::default() }).await, [a.clone(), b.clone()]);
    let at = |first, last| Some(Span { first: Moment::from_millis(first), last: Moment::from_millis(last) });
    for (span, wanted) in [
        (at(0, 999), vec![]),
        (at(0, 1_000), vec![a.clone()]),
        (at(19_999, 19_999), vec![a.clone()]),
        (at(20_000, 39_999), vec![]),
        (at(19_000, 41_000), vec![a.clone(), b.clone()]),
        (at(90_000, 91_000), vec![b.clone()]),
    ] {
        assert_eq!(told(&folder, &Question { ip, at: span, pod: None }).await, wanted, "{span:?}");
    }
    let pod = Some(("default".to_owned(), "web-1".to_owned()));
    assert_eq!(told(&folder, &Question { pod, ..Question::default() }).await, [c]);
}

#[tokio::test]
async fn the_history_is_bounded_by_age_and_by_rows() {
    let folder = Folder::new();
    let (store, _) = folder.open("boot-1").await;
    for n in 1..=9 {
        store.put(lease("a", n)).await.unwrap();
        let ended = Moment::from_millis(u64::from(n) * 1000);
        store.release(lease("a", n).key, cool(n), ended, Ended::Del).await.unwrap();
    }
    let left =
        || async { told(&folder, &Question::default()).await.iter().map(|row| row.0.clone()).collect::<Vec<_>>() };
    store.prune(Moment::from_millis(3_000), 100).await.unwrap();
    assert_eq!(left().await, [3, 4, 5, 6, 7, 8, 9].map(|n| format!("10.0.0.{n}")));
    store.prune(Moment::from_millis(3_000), 2).await.unwrap();
    assert_eq!(left().await, [8, 9].map(|n| format!("10.0.0.{n}")));
    store.prune(Moment::from_millis(3_000), 0).await.unwrap();
    store.prune(Moment::from_millis(3_000), 0).await.unwrap();
    assert_eq!(left().await, [""; 0]);
}

#[tokio::test]
async fn a_reboot_ends_every_lease_in_the_history_too() {
    let folder = Folder::new();
    let (store, _) = folder.open("boot-1").await;
    store.put(lease("a", 5)).await.unwrap();
    folder.open("boot-2").await;
    assert_eq!(told(&folder, &Question::default()).await, [held(5, "a", Some((30_000, "reboot")))]);
}

/// What a daemon of the version before wrote is taken over as it stands.
#[tokio::test]
async fn a_database_of_each_former_version_is_taken_over() {
    let migrations = MIGRATIONS.migrations.len();
    for former in 1..migrations {
        let folder = Folder::new();
        let mut connection = connect(&folder.file(), SqliteSynchronous::Full).await.unwrap();
        let first = MIGRATIONS.migrations[..former].to_vec();
        Migrator { migrations: first.into(), ..Migrator::DEFAULT }.run(&mut connection).await.unwrap();
        let written = "INSERT INTO facts VALUES ('boot_id', 'boot-1'); \
                       INSERT INTO leases (network, container_id, interface, namespace, pod, uid, netns, address, eni, eni_mark, since_ms) \
                       VALUES ('pods', 'a', 'eth0', 'default', 'web-0', 'u', '/run/netns/x', '10.0.0.5', \
                       'eni-1', 2, 1000); \
                       INSERT INTO cooling VALUES ('10.0.0.6', 31000); \
                       INSERT INTO intents VALUES ('one', 'Create', 1, NULL, NULL)";
        sqlx::raw_sql(written).execute(&mut connection).await.unwrap();
        connection.close().await.unwrap();

        let (store, recorded) = folder.open("boot-1").await;

        assert_eq!(recorded.leases, [lease("a", 5)], "version {former}");
        assert_eq!(recorded.cooling, cool(6), "version {former}");
        assert!(recorded.cloud.illegible, "version {former} wrote intents in a form of its own");
        assert!(!folder.open("boot-1").await.1.cloud.illegible, "version {former}");
        store.release(lease("a", 5).key, cool(5), NOW, Ended::Del).await.unwrap();
        assert_eq!(told(&folder, &Question::default()).await, [held(5, "a", Some((30_000, "del")))]);
    }
    assert!(migrations > 1);
}

#[tokio::test]
async fn without_a_database_the_history_says_so_and_makes_none() {
    let folder = Folder::new();
    let error = tenures(&folder.file(), &Question::default()).await.err().unwrap();
    assert!(error.to_string().starts_with("IPAM-304"), "{error}");
    assert!(!folder.file().exists());
}

#[tokio::test]
async fn a_lease_of_both_families_is_kept_and_both_addresses_rest() {
    let folder = Folder::new();
    let (store, _) = folder.open("boot-1").await;
    let ipv6: std::net::Ipv6Addr = "2600:1f00::7".parse().unwrap();
    let dual = Lease { addresses: PodAddresses::Dual([10, 0, 0, 5].into(), ipv6), ..lease("a", 5) };
    let only = Lease { addresses: "2600:1f00::8".parse::<std::net::Ipv6Addr>().unwrap().into(), ..lease("b", 6) };
    store.put(dual.clone()).await.unwrap();
    store.put(only.clone()).await.unwrap();
    // I1 in IPv6 too.
    let twice = Lease { addresses: PodAddresses::Dual([10, 0, 0, 9].into(), ipv6), ..lease("c", 9) };
    assert!(store.put(twice).await.is_err());
    assert_eq!(folder.open("boot-1").await.1.leases, [dual, only]);
    let resting: Vec<_> = folder.open("boot-2").await.1.cooling.iter().map(|one| one.address.to_string()).collect();
    assert_eq!(resting.len(), 3, "{resting:?}");
}
