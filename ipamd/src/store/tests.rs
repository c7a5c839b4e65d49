use super::*;

fn lease(container: &str, last: u8) -> Lease {
    Lease {
        key: PodKey::new("pods", container, "eth0").unwrap(),
        pod: Pod { namespace: "default".into(), name: "web-0".into(), uid: "u".into() },
        netns: "/run/netns/x".into(),
        address: [10, 0, 0, last].into(),
        eni: "eni-1".parse().unwrap(),
        eni_mark: EniMark::of_device(1),
        since: Moment::from_millis(1_000),
    }
}

fn cool(last: u8) -> CoolDown {
    CoolDown { address: [10, 0, 0, last].into(), until: Moment::from_millis(31_000) }
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
        Store::open(&self.file(), boot, Moment::from_millis(60_000)).await.unwrap()
    }
}

#[tokio::test]
async fn a_lease_is_there_after_reopening_and_gone_after_its_release() {
    let folder = Folder::new();
    let (store, recorded) = folder.open("boot-1").await;
    assert!(recorded.leases.is_empty());
    store.put(lease("a", 5)).await.unwrap();
    store.put(lease("b", 6)).await.unwrap();
    store.release(lease("b", 6).key, cool(6)).await.unwrap();

    let (_store, recorded) = folder.open("boot-1").await;

    assert_eq!(recorded.leases, [lease("a", 5)]);
    assert_eq!(recorded.cooling, [cool(6)]);
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

#[tokio::test]
async fn an_intent_is_open_until_it_is_settled() {
    let folder = Folder::new();
    let (store, _) = folder.open("boot-1").await;
    let [first, second] = ["one", "two"].map(|id| IntentId(id.to_owned()));
    let action = Action::Delete { eni: "eni-1".parse().unwrap() };
    store.begin(&first, &action, Moment::from_millis(1)).await.unwrap();
    store.begin(&second, &action, Moment::from_millis(2)).await.unwrap();
    store.settle(&first, "done".to_owned(), Moment::from_millis(3)).await.unwrap();

    let (_store, recorded) = folder.open("boot-1").await;

    assert_eq!(recorded.open_intents, [(second, format!("{action:?}"))]);
}

#[tokio::test]
async fn cool_downs_that_are_over_are_forgotten() {
    let folder = Folder::new();
    let (store, _) = folder.open("boot-1").await;
    store.release(lease("a", 5).key, cool(5)).await.unwrap();
    store.forget_cooled(Moment::from_millis(30_999)).await.unwrap();
    assert_eq!(folder.open("boot-1").await.1.cooling.len(), 1);
    store.forget_cooled(Moment::from_millis(31_000)).await.unwrap();
    assert_eq!(folder.open("boot-1").await.1.cooling.len(), 0);
}

#[tokio::test]
async fn a_file_that_is_no_database_is_damaged_and_a_folder_cannot_be_opened() {
    let folder = Folder::new();
    std::fs::write(folder.file(), "this is not SQLite, and long enough to be looked at as a header").unwrap();
    let error = Store::open(&folder.file(), "boot", Moment::default()).await.err().unwrap();
    assert!(matches!(error, StoreError::Damaged { .. }), "{error:?}");
    assert!(error.calls_for_a_new_file());

    let error = Store::open(folder.0.path(), "boot", Moment::default()).await.err().unwrap();
    assert!(matches!(error, StoreError::Open { .. }), "{error:?}");
    assert!(error.to_string().starts_with("IPAM-304"), "{error}");
}

#[tokio::test]
async fn a_database_of_a_newer_version_is_recognised() {
    let folder = Folder::new();
    drop(folder.open("boot").await);
    let mut connection = connect(&folder.file(), SqliteSynchronous::Normal).await.unwrap();
    sqlx::query("INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) VALUES (999, 'later', 1, x'00', 0)")
        .execute(&mut connection)
        .await
        .unwrap();
    let error = Store::open(&folder.file(), "boot", Moment::default()).await.err().unwrap();
    assert!(matches!(error, StoreError::Newer { .. }), "{error:?}");
}
