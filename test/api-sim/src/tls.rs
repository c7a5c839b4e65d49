//! The server behind TLS: authorities that vouch for it, and a door whose certificate can change.

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
};

use axum::serve::Listener;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::{
    ServerConfig,
    crypto::ring,
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

/// An authority of a cluster, made for one test.
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

impl std::fmt::Debug for Authority {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Authority")
    }
}

impl Authority {
    /// A new one, which nobody knows yet.
    ///
    /// # Errors
    /// When no certificate can be made.
    pub fn new() -> Result<Self, rcgen::Error> {
        let mut parameters = CertificateParams::new(vec![])?;
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Ok(Self(CertifiedIssuer::self_signed(parameters, KeyPair::generate()?)?))
    }

    /// Its certificate, as `ca.crt` has it.
    #[must_use]
    pub fn pem(&self) -> String {
        self.0.pem()
    }

    /// What a server shows that this authority vouches for by `name`, a host's name or address.
    ///
    /// # Errors
    /// When no certificate can be made.
    pub fn vouch(&self, name: &str) -> Result<Identity, Box<dyn std::error::Error>> {
        let key = KeyPair::generate()?;
        let certificate = CertificateParams::new(vec![name.to_owned()])?.signed_by(&key, &self.0)?;
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let settings = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key)?;
        Ok(Identity(TlsAcceptor::from(Arc::new(settings))))
    }
}

/// A certificate with its key.
#[derive(Clone)]
pub struct Identity(TlsAcceptor);

impl std::fmt::Debug for Identity {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Identity")
    }
}

/// Where the server listens; whoever comes is shown the identity of then.
#[derive(Debug)]
pub struct Door {
    listener: TcpListener,
    identity: Badge,
}

/// The identity that a door shows from now on. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Badge(Arc<Mutex<Identity>>);

impl Badge {
    /// Shows this one from now on.
    pub fn change(&self, identity: Identity) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = identity;
    }

    fn acceptor(&self) -> TlsAcceptor {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).0.clone()
    }
}

impl Door {
    /// A door on a listener of one's own.
    #[must_use]
    pub fn new(listener: TcpListener, identity: Identity) -> (Self, Badge) {
        let badge = Badge(Arc::new(Mutex::new(identity)));
        (Self { listener, identity: badge.clone() }, badge)
    }
}

impl Listener for Door {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            let Ok((stream, address)) = self.listener.accept().await else { continue };
            // Who does not trust us goes away.
            if let Ok(stream) = self.identity.acceptor().accept(stream).await {
                return (stream, address);
            }
        }
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        self.listener.local_addr()
    }
}
