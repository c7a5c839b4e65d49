//! A way to the cloud on which things go wrong, with an ear for what must never be asked.
//!
//! It stands between the nodes and the simulator, so that the lab itself hears of the cloud undisturbed. Requests are lost
//! or refused, replies are lost, late or garbled, by a seed. Whatever gives an address back that a pod holds is noted,
//! and so is every call.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::{Request, State},
    http::{StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
};
use ec2_sim::{SimCloud, world::model::Eni};
use eni_proto::numbers::TAG_INSTANCE;
use ipam_core::InstanceId;

/// No request or reply is larger.
const LARGEST: usize = 16 << 20;
/// Later than any client of the daemon's waits.
const TOO_LATE: Duration = Duration::from_secs(12);

/// What goes wrong, out of a thousand requests each; one in six in all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// Refused because of too many requests.
    Throttled,
    /// Answered with an internal error; nothing was done.
    Failed,
    /// Answered with an internal error; it was done.
    FailedAfter,
    /// The request never arrives.
    LostRequest,
    /// The reply never arrives.
    LostReply,
    /// The reply comes up to three seconds late.
    Slow,
    /// The reply comes when nobody waits any more.
    TooLate,
    /// The reply cannot be right.
    Garbled,
}

const CHANCES: [(Fault, u64); 8] = [
    (Fault::Throttled, 40),
    (Fault::Failed, 15),
    (Fault::FailedAfter, 15),
    (Fault::LostRequest, 20),
    (Fault::LostReply, 25),
    (Fault::Slow, 20),
    (Fault::TooLate, 3),
    (Fault::Garbled, 30),
];

/// Replaces in an answer: what, by what. Each makes it one that EC2 never gives.
const GARBLES: [(&str, &str); 7] = [
    ("<networkInterfaceId>", "<networkInterfaceId>x"),
    ("<macAddress>", "<macAddress>many:"),
    ("<deviceIndex>", "<deviceIndex>one"),
    ("<status>attached</status>", "<status>levitating</status>"),
    ("<privateIpAddress>", "<privateIpAddress>999."),
    ("<subnetId>", "<!-- "),
    ("<attachmentId>eni-attach-", "<attachmentId>"),
];

/// What went on so far.
#[derive(Debug, Default)]
struct Record {
    always: Option<Fault>,
    calls: BTreeMap<String, u64>,
    faults: BTreeMap<Fault, u64>,
    metadata_faults: u64,
    held: BTreeMap<InstanceId, BTreeSet<Ipv4Addr>>,
    broken: Vec<String>,
}

/// The weather between the nodes and their cloud. Cheap to clone; it is calm until [`Storm::rage`].
#[derive(Debug, Clone)]
pub struct Storm {
    record: Arc<Mutex<Record>>,
    /// State of the random numbers. 0: calm.
    rage: Arc<AtomicU64>,
}

impl Storm {
    /// Calm weather.
    #[must_use]
    pub fn new() -> Self {
        Self { record: Arc::default(), rage: Arc::default() }
    }

    /// From now on things go wrong, by this seed.
    pub fn rage(&self, seed: u64) {
        self.rage.store(seed | 1, Ordering::Relaxed);
    }

    /// From now on every request at EC2 goes wrong in this way.
    pub fn outage(&self, fault: Fault) {
        self.record().always = Some(fault);
    }

    /// From now on all goes well.
    pub fn calm(&self) {
        self.record().always = None;
        self.rage.store(0, Ordering::Relaxed);
    }

    /// How often each action was asked for.
    #[must_use]
    pub fn calls(&self) -> BTreeMap<String, u64> {
        self.record().calls.clone()
    }

    /// How often each thing went wrong at EC2, and how often something did at the metadata service.
    #[must_use]
    pub fn faults(&self) -> (BTreeMap<Fault, u64>, u64) {
        let record = self.record();
        (record.faults.clone(), record.metadata_faults)
    }

    /// What was asked for that must never be, in people's words.
    #[must_use]
    pub fn broken(&self) -> Vec<String> {
        self.record().broken.clone()
    }

    /// A pod of this instance has the address. Returns whether another one has it already.
    pub fn hold(&self, instance: &InstanceId, address: Ipv4Addr) -> bool {
        !self.record().held.entry(instance.clone()).or_default().insert(address)
    }

    /// The pod is about to go.
    pub fn release(&self, instance: &InstanceId, address: Ipv4Addr) {
        self.record().held.entry(instance.clone()).or_default().remove(&address);
    }

    /// The cloud's API as the nodes reach it.
    pub fn before_ec2(&self, cloud: &SimCloud) -> Router {
        cloud.router().layer(middleware::from_fn_with_state((self.clone(), cloud.clone()), ec2))
    }

    /// A metadata service as a node reaches it.
    pub fn before_metadata(&self, service: Router) -> Router {
        service.layer(middleware::from_fn_with_state(self.clone(), metadata))
    }

    fn record(&self) -> MutexGuard<'_, Record> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A random number below `below`. Absent: it is calm.
    fn draw(&self, below: u64) -> Option<u64> {
        // SplitMix64; two at the same time may see the same number, which harms nothing.
        let state = self.rage.load(Ordering::Relaxed);
        if state == 0 {
            return None;
        }
        let next = state.wrapping_add(0x9e37_79b9_7f4a_7c15) | 1;
        let _ = self.rage.compare_exchange(state, next, Ordering::Relaxed, Ordering::Relaxed);
        let x = (next ^ (next >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (x ^ (x >> 31)).checked_rem(below)
    }

    fn strike(&self) -> Option<Fault> {
        let always = self.record().always;
        if always.is_some() {
            return always;
        }
        let mut roll = self.draw(1000)?;
        let fault = CHANCES.into_iter().find(|(_, share)| {
            let hit = roll < *share;
            roll = roll.saturating_sub(*share);
            hit
        });
        fault.map(|(fault, _)| fault)
    }

    /// Notes the call, and what it would take away from a pod.
    fn listen(&self, cloud: &SimCloud, form: &str) {
        let value = |name: &str| {
            let pairs = form.split('&').filter_map(|pair| pair.split_once('='));
            pairs
                .filter(|(key, _)| key.split('.').next() == Some(name))
                .map(|(_, value)| value.replace("%2F", "/"))
                .collect()
        };
        let (action, eni): (Vec<String>, Vec<String>) = (value("Action"), value("NetworkInterfaceId"));
        let action = action.into_iter().next().unwrap_or_default();
        *self.record().calls.entry(action.clone()).or_default() += 1;
        let attachment: Vec<String> = value("AttachmentId");
        let meant = |found: &&Eni| match action.as_str() {
            "UnassignPrivateIpAddresses" | "DeleteNetworkInterface" => eni.contains(&found.id.to_string()),
            "DetachNetworkInterface" => {
                found.attachment.as_ref().is_some_and(|at| attachment.contains(&at.id.to_string()))
            }
            _ => false,
        };
        let Some(found) = cloud.with(|world, _| world.enis().find(meant).cloned()) else { return };
        let (singles, prefixes): (Vec<String>, Vec<String>) = (value("PrivateIpAddress"), value("Ipv4Prefix"));
        let all = action != "UnassignPrivateIpAddresses";
        let named = |address: Ipv4Addr| {
            let block = Ipv4Addr::from_bits(address.to_bits() & !15);
            all || singles.contains(&address.to_string()) || prefixes.contains(&format!("{block}/28"))
        };
        self.judge(&action, &found, named);
    }

    fn judge(&self, action: &str, eni: &Eni, named: impl Fn(Ipv4Addr) -> bool) {
        let attached = eni.attachment.as_ref().map(|attachment| attachment.instance.to_string());
        let Some(instance) = attached.or_else(|| eni.tags.get(TAG_INSTANCE).cloned()) else { return };
        let has = |address: &Ipv4Addr| {
            eni.secondary.contains(address) || eni.prefixes.iter().any(|prefix| prefix.contains(*address))
        };
        let mut record = self.record();
        let held = record.held.iter().filter(|(id, _)| id.as_str() == instance).flat_map(|(_, held)| held);
        let taken: Vec<_> = held.filter(|address| has(address) && named(**address)).copied().collect();
        if !taken.is_empty() {
            record.broken.push(format!("{action} of {} takes {taken:?} from pods of {instance}", eni.id));
        }
    }
}

impl Default for Storm {
    fn default() -> Self {
        Self::new()
    }
}

async fn ec2(State((storm, cloud)): State<(Storm, SimCloud)>, request: Request, next: Next) -> Response {
    let (parts, body) = request.into_parts();
    let Ok(body) = axum::body::to_bytes(body, LARGEST).await else { return StatusCode::BAD_REQUEST.into_response() };
    storm.listen(&cloud, &String::from_utf8_lossy(&body));
    let request = Request::from_parts(parts, Body::from(body));
    let Some(fault) = storm.strike() else { return next.run(request).await };
    *storm.record().faults.entry(fault).or_default() += 1;
    match fault {
        Fault::Throttled => refusal("RequestLimitExceeded"),
        Fault::Failed => refusal("InternalError"),
        Fault::LostRequest => broken_off(),
        Fault::FailedAfter => {
            next.run(request).await;
            refusal("InternalError")
        }
        Fault::LostReply => {
            next.run(request).await;
            broken_off()
        }
        Fault::Slow => {
            tokio::time::sleep(Duration::from_millis(storm.draw(3000).unwrap_or(0))).await;
            next.run(request).await
        }
        Fault::TooLate => {
            let response = next.run(request).await;
            tokio::time::sleep(TOO_LATE).await;
            response
        }
        Fault::Garbled => storm.garbled(next.run(request).await).await,
    }
}

impl Storm {
    async fn garbled(&self, response: Response) -> Response {
        let body = axum::body::to_bytes(response.into_body(), LARGEST).await.unwrap_or_default();
        let text = String::from_utf8_lossy(&body).into_owned();
        let choice = usize::try_from(self.draw(10).unwrap_or(0)).unwrap_or(0);
        let text = match (choice, GARBLES.get(choice)) {
            (_, Some((right, wrong))) if text.contains(right) => text.replacen(right, wrong, 1),
            (8, _) => "<html><body>Service is being upgraded</body></html>".to_owned(),
            (9, _) => String::new(),
            _ => text.get(..text.len() / 2).unwrap_or_default().to_owned(),
        };
        ([(header::CONTENT_TYPE, "text/xml;charset=UTF-8")], text).into_response()
    }
}

/// One request in twelve goes wrong.
async fn metadata(State(storm): State<Storm>, request: Request, next: Next) -> Response {
    let Some(fault @ 0..=3) = storm.draw(48) else { return next.run(request).await };
    storm.record().metadata_faults += 1;
    match fault {
        0 => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
        1 => StatusCode::NOT_FOUND.into_response(),
        2 => "<html>gateway</html>".into_response(),
        _ => broken_off(),
    }
}

fn refusal(code: &str) -> Response {
    let text = format!(
        "<Response><Errors><Error><Code>{code}</Code><Message>in the storm</Message></Error></Errors>\
         <RequestID>00000000-0000-4000-8000-000000000000</RequestID></Response>"
    );
    (StatusCode::SERVICE_UNAVAILABLE, [(header::CONTENT_TYPE, "text/xml;charset=UTF-8")], text).into_response()
}

/// A reply that breaks off, so that the client cannot know what became of its request.
fn broken_off() -> Response {
    let lost = std::io::Error::new(std::io::ErrorKind::ConnectionReset, "lost in the storm");
    Response::new(Body::from_stream(tokio_stream::once(Err::<Bytes, _>(lost))))
}

#[cfg(test)]
mod tests {
    use ec2_sim::{
        Clock, WorldConfig,
        action::{AssignPrivateIpAddresses, AttachNetworkInterface, CreateNetworkInterface},
    };

    use super::*;

    /// A cloud with an instance that has one more ENI.
    fn scene() -> (SimCloud, InstanceId, Eni) {
        let cloud = SimCloud::new(WorldConfig::default(), Clock::wall());
        let demo = cloud.demo_vpc("10.0.0.0/16", &["10.0.0.0/20"]).unwrap();
        let instance = cloud.run_instance("m5.xlarge", &demo.subnets[0]).unwrap();
        let subnet = demo.subnets[0].to_string();
        let create = CreateNetworkInterface { subnet, prefix_count: Some(1), ..CreateNetworkInterface::default() };
        let interface = cloud.arrange(&create).unwrap().id.to_string();
        let assign = AssignPrivateIpAddresses { interface: interface.clone(), count: Some(2), ..Default::default() };
        cloud.arrange(&assign).unwrap();
        let attach = AttachNetworkInterface {
            interface: interface.clone(),
            instance: instance.to_string(),
            device_index: 1,
            ..AttachNetworkInterface::default()
        };
        cloud.arrange(&attach).unwrap();
        let eni = cloud.with(|world, _| world.enis().find(|eni| eni.id.as_str() == interface).cloned()).unwrap();
        (cloud, instance, eni)
    }

    #[test]
    fn whatever_takes_an_address_from_a_pod_is_noted_and_nothing_else_is() {
        let (cloud, instance, eni) = scene();
        let (prefix, attachment) = (eni.prefixes[0], &eni.attachment.as_ref().unwrap().id);
        let in_prefix = prefix.addresses().nth(5).unwrap();
        let (id, block) = (&eni.id, prefix.to_string().replace('/', "%2F"));
        let unassign = format!("Action=UnassignPrivateIpAddresses&NetworkInterfaceId={id}");
        let calls = [
            format!("{unassign}&PrivateIpAddress.1={}&PrivateIpAddress.2={}", eni.secondary[1], eni.secondary[0]),
            format!("{unassign}&Ipv4Prefix.1={block}"),
            format!("Action=DetachNetworkInterface&AttachmentId={attachment}"),
            format!("Action=DeleteNetworkInterface&NetworkInterfaceId={id}"),
            format!("Action=AssignPrivateIpAddresses&NetworkInterfaceId={id}"),
        ];
        for (held, taken_by) in
            [(Some(eni.secondary[0]), [0, 2, 3].as_slice()), (Some(in_prefix), &[1, 2, 3]), (None, &[])]
        {
            let storm = Storm::new();
            assert!(!held.is_some_and(|address| storm.hold(&instance, address)));
            for (number, call) in calls.iter().enumerate() {
                let before = storm.broken().len();
                storm.listen(&cloud, call);
                assert_eq!(storm.broken().len() > before, taken_by.contains(&number), "{call} with {held:?}");
            }
        }
    }
}
