//! Requests to the Kubernetes API server. Each has an end, whatever the server does: a deadline, a bound on what is read.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, RETRY_AFTER, USER_AGENT},
};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use rustls::{
    ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, pem::PemObject},
};
use serde_json::Value;

use super::place::Place;
use crate::errors::chain;

const CONNECT: Duration = Duration::from_secs(5);
/// How long a server may take for a whole answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// No answer that we ask for is larger: a Node with all its images and a hundred pods are far below.
const LARGEST: usize = 8 << 20;
/// No line of a watch is longer.
const LONGEST_LINE: usize = 4 << 20;
/// What a server says is cut to this many characters for people.
const LONGEST_MESSAGE: usize = 300;

/// Why the API server gave nothing usable.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ApiError {
    /// There was no answer.
    #[error("the API server does not answer: {0}")]
    Away(String),
    /// It said no.
    #[error("the API server answered {code}: {message}")]
    Refused {
        /// HTTP status.
        code: u16,
        /// What it said, cut to a readable length.
        message: String,
        /// How long it wants to be left alone. Absent: it did not say.
        retry_after: Option<Duration>,
    },
    /// It said something that no API server says.
    #[error("the API server's answer is not understood: {0}")]
    Illegible(String),
}

impl ApiError {
    /// The HTTP status of a refusal.
    pub(crate) const fn code(&self) -> Option<u16> {
        match self {
            Self::Refused { code, .. } => Some(*code),
            Self::Away(_) | Self::Illegible(_) => None,
        }
    }
}

/// How a patch is meant. Source: Kubernetes API concepts, "Patch".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Patch {
    /// RFC 7386.
    Merge,
    /// Lists with a key are merged by it, such as conditions by their type.
    Strategic,
}

type Http = Client<HttpsConnector<HttpConnector>, Full<Bytes>>;

/// The way to the API server.
#[derive(Debug)]
pub(crate) struct Api {
    trust: Mutex<Trust>,
    /// Read anew for each request: a cluster's authority may change. Absent: the way is without TLS.
    authority: Option<PathBuf>,
    /// As `https://10.100.0.1:443`, without a slash at the end.
    server: String,
    /// Read anew for each request: kubelet renews it.
    token: PathBuf,
}

/// Whom we believe to be the server.
#[derive(Debug)]
struct Trust {
    /// The file of the cluster's authority as it was read last. What is not usable is kept too, so that it is told once.
    read: Vec<u8>,
    http: Http,
}

impl Trust {
    /// Believes servers that these certificates vouch for, of which there has to be one unless the way is `plain`.
    fn new(read: Vec<u8>, plain: bool) -> Result<Self, String> {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(&read) {
            let certificate = certificate.map_err(|error| chain(&error))?;
            roots.add(certificate).map_err(|error| chain(&error))?;
        }
        if roots.is_empty() && !plain {
            return Err("it has no certificate".to_owned());
        }
        let tls = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| chain(&error))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_connect_timeout(Some(CONNECT));
        tcp.set_keepalive(Some(Duration::from_secs(30)));
        let connector = HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_http1();
        let http = Client::builder(TokioExecutor::new()).pool_max_idle_per_host(1).build(connector.wrap_connector(tcp));
        Ok(Self { read, http })
    }
}

impl Api {
    /// Gets ready to ask; asks nothing yet.
    ///
    /// # Errors
    /// When no certificate of the cluster's authority can be read.
    pub(crate) fn at(place: &Place) -> Result<Self, String> {
        let authority = place.server.starts_with("https:").then(|| place.authority.clone());
        let read = authority.as_ref().map_or_else(|| Ok(Vec::new()), std::fs::read).map_err(|error| chain(&error));
        let trust = read.and_then(|read| Trust::new(read, authority.is_none()));
        let trust = trust.map_err(|why| format!("{}: {why}", place.authority.display()))?;
        Ok(Self { trust: Mutex::new(trust), authority, server: place.server.clone(), token: place.token.clone() })
    }

    /// The way to whom the cluster's authority vouches for now. A file that is gone or makes no sense changes nothing.
    async fn http(&self) -> Http {
        let read = match &self.authority {
            Some(file) => tokio::fs::read(file).await.ok().filter(|read| !read.is_empty()),
            None => None,
        };
        let mut trust = self.trust.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(read) = read.filter(|read| *read != trust.read) {
            match Trust::new(read.clone(), false) {
                Ok(new) => {
                    tracing::info!("the cluster's authority has changed; its new certificates count from now on");
                    *trust = new;
                }
                Err(why) => {
                    tracing::warn!(why, "IPAM-330 the cluster's authority has become illegible; the former one stands");
                    trust.read = read;
                }
            }
        }
        trust.http.clone()
    }

    /// Gets an object, or a list of them.
    ///
    /// # Errors
    /// Any [`ApiError`].
    pub(crate) async fn get(&self, path: &str) -> Result<Value, ApiError> {
        self.ask(Method::GET, path, None).await
    }

    /// Changes an object and returns what it is then.
    ///
    /// # Errors
    /// Any [`ApiError`]; 409 when the patch names another version or uid than the object has.
    pub(crate) async fn patch(&self, path: &str, kind: Patch, patch: &Value) -> Result<Value, ApiError> {
        let content = match kind {
            Patch::Merge => "application/merge-patch+json",
            Patch::Strategic => "application/strategic-merge-patch+json",
        };
        self.ask(Method::PATCH, path, Some((content, patch))).await
    }

    /// Makes an object in a collection.
    ///
    /// # Errors
    /// Any [`ApiError`].
    pub(crate) async fn create(&self, collection: &str, object: &Value) -> Result<Value, ApiError> {
        self.ask(Method::POST, collection, Some(("application/json", object))).await
    }

    async fn ask(&self, method: Method, path: &str, body: Option<(&str, &Value)>) -> Result<Value, ApiError> {
        let answer = async {
            let response = self.send(method, path, body).await?;
            let body = read(response.into_body()).await?;
            serde_json::from_slice(&body).map_err(|error| ApiError::Illegible(error.to_string()))
        };
        tokio::time::timeout(PATIENCE, answer).await.unwrap_or_else(|_| Err(too_late()))
    }

    /// Watches a collection; `path` with its query.
    ///
    /// # Errors
    /// Any [`ApiError`].
    pub(crate) async fn watch(&self, path: &str) -> Result<Lines, ApiError> {
        let response = tokio::time::timeout(PATIENCE, self.send(Method::GET, path, None)).await;
        let response = response.unwrap_or_else(|_| Err(too_late()))?;
        Ok(Lines { body: response.into_body(), buffer: Vec::new() })
    }

    /// Sends a request and returns an answer that is no refusal; its body has yet to be read.
    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<(&str, &Value)>,
    ) -> Result<Response<Incoming>, ApiError> {
        let token = tokio::fs::read_to_string(&self.token).await.unwrap_or_default();
        let mut request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.server))
            .header(ACCEPT, "application/json")
            .header(USER_AGENT, concat!("eni-cni/", env!("CARGO_PKG_VERSION")));
        if !token.trim().is_empty() {
            request = request.header(AUTHORIZATION, format!("Bearer {}", token.trim()));
        }
        if let Some((content, _)) = body {
            request = request.header(CONTENT_TYPE, content);
        }
        let bytes = body.map(|(_, body)| Bytes::from(body.to_string())).unwrap_or_default();
        // The error of a bad header would show the token.
        let request = request.body(Full::new(bytes)).map_err(|_| ApiError::Away("no such request".to_owned()))?;
        let response = self.http().await.request(request).await.map_err(|error| ApiError::Away(chain(&error)))?;
        if response.status().is_success() { Ok(response) } else { Err(refusal(response).await) }
    }
}

fn too_late() -> ApiError {
    ApiError::Away(format!("nothing came within {} s", PATIENCE.as_secs()))
}

async fn refusal(response: Response<Incoming>) -> ApiError {
    let (status, headers) = (response.status(), response.headers());
    let retry_after = headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
    let retry_after = retry_after.map(|seconds: u64| Duration::from_secs(seconds.min(600)));
    let said: Option<Value> = read(response.into_body()).await.ok().and_then(|body| serde_json::from_slice(&body).ok());
    let message = said.as_ref().and_then(|said| said.get("message")?.as_str());
    let message = readable(message.or(status.canonical_reason()).unwrap_or_default());
    ApiError::Refused { code: status.as_u16(), message, retry_after }
}

/// What somebody else wrote, fit for one line of a log.
pub(super) fn readable(text: &str) -> String {
    let plain = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    plain.take(LONGEST_MESSAGE).collect()
}

async fn read(body: Incoming) -> Result<Bytes, ApiError> {
    match Limited::new(body, LARGEST).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => {
            Err(ApiError::Illegible(format!("it is larger than {} MiB", LARGEST >> 20)))
        }
        Err(error) => Err(ApiError::Away(chain(&*error))),
    }
}

/// The lines of a watch.
#[derive(Debug)]
pub(crate) struct Lines {
    body: Incoming,
    buffer: Vec<u8>,
}

impl Lines {
    /// Returns the next event, however long it takes. Absent: the server has ended the watch. Cancel-safe.
    ///
    /// # Errors
    /// [`ApiError::Away`] when the connection broke, [`ApiError::Illegible`] for what is no event.
    pub(crate) async fn next(&mut self) -> Result<Option<Value>, ApiError> {
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=end).collect();
                let event = serde_json::from_slice(&line).map_err(|error| ApiError::Illegible(error.to_string()))?;
                return Ok(Some(event));
            }
            if self.buffer.len() > LONGEST_LINE {
                return Err(ApiError::Illegible(format!("a line is longer than {} MiB", LONGEST_LINE >> 20)));
            }
            match self.body.frame().await {
                None => return Ok(None),
                Some(Ok(frame)) => self.buffer.extend(frame.into_data().unwrap_or_default()),
                Some(Err(error)) => return Err(ApiError::Away(chain(&error))),
            }
        }
    }
}

/// Whether a status asks for the whole list anew.
pub(super) const fn is_gone(code: u16) -> bool {
    code == StatusCode::GONE.as_u16()
}
