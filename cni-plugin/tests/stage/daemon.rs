//! A small daemon on a real socket: it keeps a book of leases, and misbehaves where a test says so.

use std::{
    collections::BTreeMap,
    net::Ipv4Addr,
    path::Path,
    sync::{Arc, Mutex, MutexGuard},
};

use eni_datapath::{Netns, delete_ended, forget_address};
use eni_proto::{
    BranchEni, Enforcing,
    wire::{
        self,
        ipam_server::{Ipam, IpamServer},
    },
};
use tokio::{net::UnixListener, runtime::Runtime, sync::watch};
use tokio_stream::wrappers::UnixListenerStream;
use tonic::{Request, Response, Status};

/// The VLAN of [`Manner::Branch`].
pub const VLAN: u16 = 5;

/// How the daemon answers an ADD.
#[derive(Debug, Clone, Default)]
pub enum Manner {
    /// Properly, with an address of the primary interface.
    #[default]
    Proper,
    /// With an address of a secondary interface, for which only [`super::Node::prepared`] is prepared.
    Secondary,
    /// With an address of each family, of the primary interface.
    Both,
    /// With an address that is none.
    Senseless,
    /// With a branch ENI of the secondary interface as its trunk.
    Branch,
    /// With a refusal.
    Refuse(wire::Refusal),
    /// It stores the lease, and its answer never comes.
    Silent,
}

/// What the daemon knows and heard.
#[derive(Debug, Default)]
pub struct Book {
    pub manner: Manner,
    /// Whether all calls but ADD find a daemon that is still starting.
    pub starting: bool,
    /// Addresses by key.
    pub leases: BTreeMap<String, Ipv4Addr>,
    /// Every call, as `ADD pods/c1/eth0`.
    pub calls: Vec<String>,
    /// How many interfaces of the secondary ENI come with that of a pod that asks for several.
    pub further: u8,
    /// A key that a GC keeps although it is not listed, because its ADD came while the runtime made the list.
    pub given_meanwhile: Option<String>,
    /// Where the daemon deletes the links of ended pods. Absent: it leaves that to the plugin, as one of an older version does.
    pub host: Option<Arc<Netns>>,
    given: u32,
}

impl Book {
    /// The address of a key: the same as before, or the next.
    fn lease(&mut self, key: &str) -> Ipv4Addr {
        let next = Ipv4Addr::from_bits(Ipv4Addr::new(10, 0, 0, 1).to_bits() + self.given % 60_000);
        let address = *self.leases.entry(key.to_owned()).or_insert(next);
        self.given += u32::from(address == next);
        address
    }

    fn is_up(&self) -> Result<(), Status> {
        if self.starting { Err(Status::unavailable("IPAM-205 the daemon is starting")) } else { Ok(()) }
    }

    fn network(&self, key: &str, address: Ipv4Addr) -> wire::PodNetwork {
        let ipv4 = match self.manner {
            Manner::Senseless => "nowhere".to_owned(),
            Manner::Proper | Manner::Both | Manner::Branch | Manner::Refuse(_) | Manner::Secondary | Manner::Silent => {
                address.to_string()
            }
        };
        let ipv6 = matches!(self.manner, Manner::Both).then(|| format!("2600:1f00::{}", address.octets()[3]));
        let secondary = matches!(self.manner, Manner::Secondary) || !key.ends_with("/eth0") && self.further > 0;
        let eni_mark = if secondary { 2 } else { 0 };
        wire::PodNetwork {
            ipv4,
            ipv6: ipv6.unwrap_or_default(),
            eni: "eni-1".to_owned(),
            eni_mark,
            mtu: 9001,
            veth_prefix: "eni".to_owned(),
        }
    }
}

/// A daemon that listens until it is dropped.
pub struct Daemon {
    book: Arc<Mutex<Book>>,
    heard: watch::Receiver<usize>,
    runtime: Option<Runtime>,
}

impl Daemon {
    pub fn start(socket: &Path) -> Self {
        Self::start_as(socket, Manner::Proper)
    }

    pub fn start_as(socket: &Path, manner: Manner) -> Self {
        let _ = std::fs::remove_file(socket);
        let book = Arc::new(Mutex::new(Book { manner, ..Book::default() }));
        let (tell, heard) = watch::channel(0);
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let service = IpamServer::new(Service { book: Arc::clone(&book), tell });
        let listener = runtime.block_on(async { UnixListener::bind(socket).unwrap() });
        let server = tonic::transport::Server::builder().add_service(service);
        runtime.spawn(server.serve_with_incoming(UnixListenerStream::new(listener)));
        Self { book, heard, runtime: Some(runtime) }
    }

    /// From now on the daemon deletes the links of ended pods of this node.
    pub fn deletes_links_on(&self, node: &super::Node) {
        self.book().host = Some(Arc::new(Netns::open(&node.netns.path()).unwrap()));
    }

    pub fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap()
    }

    /// The keys that have a lease.
    pub fn leased(&self) -> Vec<String> {
        self.book().leases.keys().cloned().collect()
    }

    /// Waits until the daemon has heard `count` calls.
    pub fn until_heard(&self, count: usize) {
        let mut heard = self.heard.clone();
        let patience = std::time::Duration::from_secs(20);
        let runtime = self.runtime.as_ref().unwrap();
        let waited =
            runtime.block_on(async { tokio::time::timeout(patience, heard.wait_for(|n| *n >= count)).await.is_ok() });
        assert!(waited, "heard only {:?}", self.book().calls);
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // As a process that ends: nobody waits for calls that are under way.
            runtime.shutdown_background();
        }
    }
}

fn checked(key: Option<wire::PodKey>) -> eni_proto::PodKey {
    key.unwrap().try_into().unwrap()
}

struct Service {
    book: Arc<Mutex<Book>>,
    tell: watch::Sender<usize>,
}

impl Service {
    fn hear(&self, verb: &str, key: Option<wire::PodKey>) -> (String, MutexGuard<'_, Book>) {
        let key = checked(key).to_string();
        let mut book = self.book.lock().unwrap();
        book.calls.push(format!("{verb} {key}"));
        self.tell.send_replace(book.calls.len());
        (key, book)
    }

    /// The answer to an ADD; nothing when none is to come.
    fn add(&self, request: wire::AddRequest) -> Option<wire::AddReply> {
        assert!(!request.netns.is_empty());
        let first = checked(request.key.clone());
        let (key, mut book) = self.hear("ADD", request.key);
        if let Manner::Refuse(refusal) = &book.manner {
            let outcome = Some(wire::add_reply::Outcome::Refusal(refusal.clone()));
            return Some(wire::AddReply { outcome, ..Default::default() });
        }
        let address = book.lease(&key);
        let outcome = Some(wire::add_reply::Outcome::Network(book.network(&key, address)));
        let count = if request.multi_nic { book.further } else { 0 };
        let further = (1..=count).map(|number| {
            let key = first.further(number);
            let address = book.lease(&key.to_string());
            let network = Some(book.network(&key.to_string(), address));
            wire::FurtherInterface { interface: key.interface().to_owned(), network }
        });
        let further = further.collect();
        let branch = matches!(book.manner, Manner::Branch).then(branch);
        let reply = wire::AddReply { further, outcome, branch };
        Some(reply).filter(|_| !matches!(book.manner, Manner::Silent))
    }
}

/// In standard mode.
fn branch() -> wire::BranchEni {
    let router = Some(Ipv4Addr::new(10, 0, 0, 1));
    BranchEni::new(VLAN.into(), &[2, 0, 0, 0, 0, 0x55], &super::SECONDARY.0, router, Enforcing::Standard)
        .unwrap()
        .into()
}

#[tonic::async_trait]
impl Ipam for Service {
    async fn add(&self, request: Request<wire::AddRequest>) -> Result<Response<wire::AddReply>, Status> {
        match self.add(request.into_inner()) {
            Some(reply) => Ok(Response::new(reply)),
            None => std::future::pending().await,
        }
    }

    async fn del(&self, request: Request<wire::DelRequest>) -> Result<Response<wire::DelReply>, Status> {
        let request = request.into_inner();
        let first = checked(request.key.clone());
        let (key, mut book) = self.hear("DEL", request.key);
        book.is_up()?;
        for key in (1..=book.further).map(|number| first.further(number)).filter(|key| key.came_with(&first)) {
            book.leases.remove(&key.to_string());
        }
        let host = book.host.clone().filter(|_| request.link_left);
        let removes_left = host.is_some();
        let released = book.leases.remove(&key);
        if let Some(host) = host {
            // After the answer, as far as the plugin can tell.
            tokio::task::spawn_blocking(move || {
                let finish = || {
                    released.map(|address| forget_address(address).unwrap());
                    delete_ended().unwrap();
                };
                host.inside(finish).unwrap();
            });
        }
        let released_ipv4 = released.map_or_else(String::new, |address| address.to_string());
        Ok(Response::new(wire::DelReply { released_ipv4, removes_left, ..Default::default() }))
    }

    async fn check(&self, request: Request<wire::CheckRequest>) -> Result<Response<wire::CheckReply>, Status> {
        let (key, book) = self.hear("CHECK", request.into_inner().key);
        book.is_up()?;
        let network = book.leases.get(&key).map(|address| book.network(&key, *address));
        Ok(Response::new(wire::CheckReply { network }))
    }

    async fn gc(&self, request: Request<wire::GcRequest>) -> Result<Response<wire::GcReply>, Status> {
        let request = request.into_inner();
        let key = |key: wire::PodKey| checked(Some(key)).to_string();
        let mut valid: Vec<_> = request.valid.into_iter().map(key).collect();
        let mut book = self.book.lock().unwrap();
        book.calls.push(format!("GC {} {}", request.network, valid.join(" ")));
        book.is_up()?;
        valid.extend(book.given_meanwhile.take());
        let before = book.leases.len();
        let network = format!("{}/", request.network);
        book.leases.retain(|key, _| !key.starts_with(&network) || valid.contains(key));
        let released = u32::try_from(before - book.leases.len()).unwrap();
        Ok(Response::new(wire::GcReply { released }))
    }

    async fn status(&self, _: Request<wire::StatusRequest>) -> Result<Response<wire::StatusReply>, Status> {
        let ready = !self.book.lock().unwrap().starting;
        let waiting_for = if ready { String::new() } else { "EC2 to answer".to_owned() };
        Ok(Response::new(wire::StatusReply { ready, waiting_for, ..Default::default() }))
    }

    async fn show(
        &self,
        _: tonic::Request<eni_proto::wire::ShowRequest>,
    ) -> Result<tonic::Response<eni_proto::wire::ShowReply>, tonic::Status> {
        Err(tonic::Status::unimplemented("the plugin never asks for it"))
    }

    async fn set_log_level(
        &self,
        _: tonic::Request<eni_proto::wire::SetLogLevelRequest>,
    ) -> Result<tonic::Response<eni_proto::wire::SetLogLevelReply>, tonic::Status> {
        Err(tonic::Status::unimplemented("the plugin never asks for it"))
    }
}
