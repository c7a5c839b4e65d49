//! A network-policy agent that speaks the real one's protocol over a real socket. It shares nothing with the programs under test: paths
//! and field numbers stand here once more, as the agent has them.

use std::{
    convert::Infallible,
    future::{Ready, pending, ready},
    path::Path,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll},
};

use prost::Message;
use tokio::{net::UnixListener, task::JoinHandle};
use tokio_stream::wrappers::UnixListenerStream;
use tonic::{
    Request, Response, Status,
    body::Body,
    codegen::{Service, http},
    server::{Grpc, NamedService, UnaryService},
    transport::{Endpoint, Server},
};
use tonic_prost::ProstCodec;

/// `EnforceNpRequest`, and `DeleteNpRequest`, which has the first two.
#[derive(Clone, PartialEq, Eq, Message)]
pub(crate) struct Told {
    #[prost(string, tag = "1")]
    pub(crate) pod_name: String,
    #[prost(string, tag = "2")]
    pub(crate) pod_namespace: String,
    #[prost(string, tag = "3")]
    pub(crate) mode: String,
    #[prost(int32, tag = "4")]
    pub(crate) interface_count: i32,
}

/// `EnforceNpReply` and `DeleteNpReply`.
#[derive(Clone, PartialEq, Eq, Message)]
struct Reply {
    #[prost(bool, tag = "1")]
    success: bool,
}

/// `NetworkPolicyAgentConfigReply`.
#[derive(Clone, PartialEq, Eq, Message)]
pub(crate) struct Configuration {
    #[prost(string, tag = "1")]
    pub(crate) network_policy_mode: String,
    #[prost(bool, tag = "2")]
    pub(crate) multi_nic_enabled: bool,
    #[prost(string, tag = "3")]
    pub(crate) node_ipv4: String,
    #[prost(string, tag = "4")]
    pub(crate) node_ipv6: String,
    #[prost(string, tag = "5")]
    pub(crate) instance_id: String,
    #[prost(string, tag = "6")]
    pub(crate) region: String,
}

/// How the agent takes calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Manner {
    Answers,
    /// For ever.
    Hangs,
    /// It says that it did not succeed.
    Fails,
    /// With a gRPC error.
    Refuses,
}

/// What the agent looks at when it is told of a pod.
type Look = Arc<dyn Fn() -> String + Send + Sync>;

/// An agent that runs until it is dropped.
pub(crate) struct Agent {
    heard: Arc<Mutex<Vec<(String, Told, String)>>>,
    task: JoinHandle<()>,
}

impl Agent {
    /// Starts one with its socket in `folder`; `look` says what there is when it is told of a pod.
    pub(crate) fn start(folder: &Path, manner: Manner, look: impl Fn() -> String + Send + Sync + 'static) -> Self {
        let socket = folder.join("npa.sock");
        let _ = std::fs::remove_file(&socket);
        let listener = UnixListenerStream::new(UnixListener::bind(&socket).unwrap());
        let heard = Arc::default();
        let calls = Calls { manner, look: Arc::new(look), heard: Arc::clone(&heard) };
        let serving = Server::builder().add_service(calls).serve_with_incoming(listener);
        Self { heard, task: tokio::spawn(async { serving.await.unwrap() }) }
    }

    /// Each call: its method, what it said, and what there was then.
    pub(crate) fn heard(&self) -> Vec<(String, Told, String)> {
        self.heard.lock().unwrap().clone()
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Asks the CNI as the agent does when it starts.
pub(crate) async fn ask_for_configuration(folder: &Path) -> Result<Configuration, String> {
    let uri = format!("unix:{}", folder.join("ipamd.sock").display());
    let channel = Endpoint::try_from(uri).unwrap().connect().await.map_err(|error| format!("{error:?}"))?;
    let mut client = tonic::client::Grpc::new(channel);
    client.ready().await.map_err(|error| error.to_string())?;
    let path = http::uri::PathAndQuery::from_static("/rpc.ConfigServerBackend/GetNetworkPolicyConfigs");
    let codec: ProstCodec<(), Configuration> = ProstCodec::default();
    let reply = client.unary(Request::new(()), path, codec).await;
    reply.map(Response::into_inner).map_err(|status| status.to_string())
}

#[derive(Clone)]
struct Calls {
    manner: Manner,
    look: Look,
    heard: Arc<Mutex<Vec<(String, Told, String)>>>,
}

impl NamedService for Calls {
    const NAME: &'static str = "rpc.NPBackend";
}

type Answered<T, E> = Pin<Box<dyn Future<Output = Result<T, E>> + Send>>;

impl Service<http::Request<Body>> for Calls {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Answered<Self::Response, Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let method = request.uri().path().rsplit('/').next().unwrap_or_default().to_owned();
        let call = Call { method, calls: self.clone() };
        Box::pin(async move { Ok(Grpc::new(ProstCodec::<Reply, Told>::default()).unary(call, request).await) })
    }
}

struct Call {
    method: String,
    calls: Calls,
}

impl UnaryService<Told> for Call {
    type Response = Reply;
    type Future = Answered<Response<Reply>, Status>;

    fn call(&mut self, request: Request<Told>) -> Self::Future {
        let known = ["EnforceNpToPod", "DeletePodNp"].contains(&self.method.as_str());
        let there = (self.calls.look)();
        self.calls.heard.lock().unwrap().push((self.method.clone(), request.into_inner(), there));
        let answer = |answer| -> Ready<Result<Response<Reply>, Status>> { ready(answer) };
        match self.calls.manner {
            _ if !known => Box::pin(answer(Err(Status::unimplemented("no such method")))),
            Manner::Answers => Box::pin(answer(Ok(Response::new(Reply { success: true })))),
            Manner::Fails => Box::pin(answer(Ok(Response::new(Reply { success: false })))),
            Manner::Refuses => Box::pin(answer(Err(Status::unknown("no filter could be attached")))),
            Manner::Hangs => Box::pin(pending()),
        }
    }
}
