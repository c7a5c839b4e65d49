//! The clouds that are asked: each check gets a network and an instance of its own.

use std::{
    error::Error,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    process::{Command, Output},
    time::Duration,
};

use aws_sdk_ec2::{
    Client, Config,
    config::{BehaviorVersion, Credentials, Region, StalledStreamProtectionConfig, retry::RetryConfig},
    error::ProvideErrorMetadata,
    types::{Filter, InstanceType},
};
use aws_smithy_http_client::{
    Builder,
    tls::{Provider, rustls_provider::CryptoMode},
};
use ec2_sim::{Clock, DelayRange, Delays, SimCloud, WorldConfig, imds};
use ipam_aws::{AccessKey, AwsEc2, AwsSettings};
use ipam_core::{InstanceId, SecurityGroupId, SubnetId};
use tokio::{net::TcpListener, time::Instant};

pub(crate) type Checked<T = ()> = Result<T, Box<dyn Error + Send + Sync>>;

pub(crate) const REGION: &str = "us-east-1";
/// Zone of all subnets: a stand-in that is not told takes any.
pub(crate) const ZONE: &str = "us-east-1a";
/// 4 ENIs with 15 addresses each.
pub(crate) const INSTANCE_TYPE: InstanceType = InstanceType::M5Xlarge;

/// One cloud with one subnet and one instance in it.
pub(crate) struct World {
    /// What is tested.
    pub(crate) ec2: AwsEc2,
    /// The SDK itself, for what the port cannot do.
    pub(crate) raw: Client,
    /// The simulator behind it. Absent: it is LocalStack.
    pub(crate) sim: Option<SimCloud>,
    pub(crate) subnet: SubnetId,
    pub(crate) group: SecurityGroupId,
    pub(crate) instance: InstanceId,
    pub(crate) vpc: String,
    pub(crate) endpoint: String,
    /// Second part of all addresses: LocalStack remembers what it gave in a network across accounts.
    octet: u8,
}

impl World {
    pub(crate) async fn simulated() -> Checked<Self> {
        let brief = DelayRange::millis(10, 50);
        let delays = Delays { create: brief, attach: brief, detach: brief, ..Delays::NONE };
        let sim =
            SimCloud::new(WorldConfig { delays, region: REGION.to_owned(), ..WorldConfig::default() }, Clock::wall());
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let endpoint = format!("http://{}", listener.local_addr()?);
        tokio::spawn(imds::serve(listener, sim.router()));
        Self::furnished(&endpoint, "AKIASIMULATED", Some(sim), 0).await
    }

    /// An account of its own, because LocalStack cannot be reset: a key of 12 digits is the account's number.
    pub(crate) async fn on_localstack(localstack: &LocalStack, account: usize) -> Checked<Self> {
        let key = format!("{:012}", 100_000_000_000 + account);
        Self::furnished(&localstack.endpoint, &key, None, u8::try_from(account)?).await
    }

    async fn furnished(endpoint: &str, key: &str, sim: Option<SimCloud>, octet: u8) -> Checked<Self> {
        let raw = raw_client(endpoint, key);
        let vpc = raw.create_vpc().cidr_block(format!("10.{octet}.0.0/16")).send().await?;
        let vpc = vpc.vpc().and_then(|vpc| vpc.vpc_id()).ok_or("no VPC")?.to_owned();
        let subnet = make_subnet(&raw, &vpc, &format!("10.{octet}.1.0/24")).await?;
        let filter = Filter::builder().name("vpc-id").values(&vpc).build();
        let groups = raw.describe_security_groups().filters(filter).send().await?;
        let group = groups.security_groups().first().and_then(|group| group.group_id()).ok_or("no group")?.parse()?;
        let instance = run_instance(&raw, &subnet).await?;
        let ec2 = AwsEc2::new(settings(endpoint, key));
        let endpoint = endpoint.to_owned();
        Ok(Self { ec2, raw, sim, subnet, group, instance, vpc, endpoint, octet })
    }

    /// An address or a range of the VPC, of which `rest` are the last two parts. The subnet's begin with `1.`.
    pub(crate) fn at(&self, rest: &str) -> String {
        format!("10.{}.{rest}", self.octet)
    }

    /// Whether the address is in the subnet.
    pub(crate) fn is_ours(&self, address: Ipv4Addr) -> bool {
        address.octets()[..3] == [10, self.octet, 1]
    }
}

/// How the port reaches a stand-in.
pub(crate) fn settings(endpoint: &str, key: &str) -> AwsSettings {
    AwsSettings {
        endpoint: Some(endpoint.to_owned()),
        access_key: Some(AccessKey { id: key.to_owned(), secret: "secret".to_owned() }),
        call_timeout: Duration::from_secs(120),
        ..AwsSettings::for_region(REGION)
    }
}

fn raw_client(endpoint: &str, key: &str) -> Client {
    let config = Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new(REGION))
        // LocalStack on a busy machine is silent for half a minute at times, and a request that is sent again is done twice.
        .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
        .retry_config(RetryConfig::disabled())
        .endpoint_url(endpoint)
        .credentials_provider(Credentials::new(key, "secret", None, None, "test"))
        .http_client(Builder::new().tls_provider(Provider::Rustls(CryptoMode::Ring)).build_https());
    Client::from_conf(config.build())
}

pub(crate) async fn make_subnet(raw: &Client, vpc: &str, cidr: &str) -> Checked<SubnetId> {
    let subnet = raw.create_subnet().vpc_id(vpc).cidr_block(cidr).availability_zone(ZONE).send().await?;
    Ok(subnet.subnet().and_then(|subnet| subnet.subnet_id()).ok_or("no subnet")?.parse()?)
}

pub(crate) async fn make_subnet_in(raw: &Client, vpc: &str, cidr: &str, zone: &str) -> Checked<SubnetId> {
    let subnet = raw.create_subnet().vpc_id(vpc).cidr_block(cidr).availability_zone(zone).send().await?;
    Ok(subnet.subnet().and_then(|subnet| subnet.subnet_id()).ok_or("no subnet")?.parse()?)
}

pub(crate) async fn run_instance(raw: &Client, subnet: &SubnetId) -> Checked<InstanceId> {
    run_instance_of(raw, subnet, INSTANCE_TYPE).await
}

pub(crate) async fn run_instance_of(raw: &Client, subnet: &SubnetId, kind: InstanceType) -> Checked<InstanceId> {
    let run = raw.run_instances().image_id("ami-12345678").instance_type(kind).min_count(1).max_count(1);
    // Five may be launched at once, then two a second.
    let run = until("launched", async || match run.clone().subnet_id(subnet.as_str()).send().await {
        Err(error) if error.code() == Some("RequestLimitExceeded") => Ok(None),
        outcome => Ok(Some(outcome?)),
    })
    .await?;
    Ok(run.instances().first().and_then(|instance| instance.instance_id()).ok_or("no instance")?.parse()?)
}

/// Waits until `look` finds something, at most 10 seconds.
pub(crate) async fn until<T>(what: &str, mut look: impl AsyncFnMut() -> Checked<Option<T>>) -> Checked<T> {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        if let Some(found) = look().await? {
            return Ok(found);
        }
        if Instant::now() >= deadline {
            return Err(format!("after 10 s still not: {what}").into());
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// A LocalStack of our own on a free port; it ends with this value.
pub(crate) struct LocalStack {
    endpoint: String,
    states: PathBuf,
}

impl LocalStack {
    /// Fails the test, with the script's own words, when it is not installed (`make setup`) or does not start.
    pub(crate) fn start() -> Self {
        // Where no LocalStack ever ran, as after a fresh clone.
        let states = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("localstack-{}", std::process::id()));
        let started = script(&states, &["start", "--port", "0"]);
        assert!(started.status.success(), "{started:?}");
        Self { endpoint: String::from_utf8_lossy(&started.stdout).trim().to_owned(), states }
    }
}

impl Drop for LocalStack {
    fn drop(&mut self) {
        let port = self.endpoint.rsplit(':').next().unwrap_or_default().to_owned();
        script(&self.states, &["stop", "--port", &port]);
        // Left behind where this fails: a folder in the build's own temporary one.
        std::fs::remove_dir_all(&self.states).ok();
    }
}

fn script(states: &Path, arguments: &[&str]) -> Output {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../test/localstack/localstack.sh");
    Command::new(script).env("LOCALSTACK_STATES", states).args(arguments).output().unwrap()
}
