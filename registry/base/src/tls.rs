//! TLS 1.3 between the programs of a mesh: both sides show a raw public key (RFC 7250), which comes of
//! the mesh secret, and take no other. There are no names, no dates, no authority, no tickets and no
//! early data: with tickets a key that was removed would go on being let in.

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use aws_lc_rs::digest;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ResolvesClientCert, Resumption};
use rustls::crypto::{CryptoProvider, verify_tls13_signature_with_raw_key};
use rustls::pki_types::{
    CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, SubjectPublicKeyInfoDer,
    UnixTime,
};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{
    AlertDescription, CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName,
    Error, RootCertStore, ServerConfig, SignatureScheme,
};

use tokio::sync::watch;

use crate::secret::Seed;

mod authorities;
mod http;
#[cfg(test)]
mod tests;

pub use self::authorities::{by_authorities, http_by_authorities};
pub use self::http::Http;

/// Why there was no handshake, as far as TLS tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// The other side has another secret.
    OtherKey,
    /// The other side speaks no TLS, or not with programs of a mesh.
    NotSealed,
}

impl Refusal {
    /// What that is and how to mend it, for people, behind the name of what refuses.
    pub fn what(self) -> &'static str {
        match self {
            Self::OtherKey => "has another mesh secret: give both the same --mesh-secret file",
            Self::NotSealed => {
                "speaks no TLS with programs of a mesh: start it with the same --mesh-secret file"
            }
        }
    }
}

/// Whether an error, or what caused it, is a refusal.
pub fn refusal(error: &(dyn std::error::Error + 'static)) -> Option<Refusal> {
    // An error of input and output hides what it was made of from those who ask for its source.
    if let Some(io) = error.downcast_ref::<std::io::Error>() {
        return refusal(io.get_ref()?);
    }
    match error.downcast_ref::<Error>() {
        Some(
            Error::InvalidCertificate(_)
            | Error::AlertReceived(
                AlertDescription::AccessDenied | AlertDescription::CertificateUnknown,
            ),
        ) => Some(Refusal::OtherKey),
        Some(
            Error::InvalidMessage(_)
            | Error::AlertReceived(AlertDescription::NoApplicationProtocol),
        ) => Some(Refusal::NotSealed),
        Some(_) => None,
        None => refusal(error.source()?),
    }
}

/// A client of HTTP, to be built: in TLS with these keys, or for plain HTTP only. By itself the library
/// would read the system's certificates for each client, and end the process where no cryptography is
/// chosen for all of it.
pub fn http_client(keys: Option<&KeyRing>) -> reqwest::ClientBuilder {
    let config = match keys {
        Some(keys) => keys.client(ALPN_HTTP),
        None => ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .expect("the provider has the suites of TLS 1.3")
            .with_root_certificates(RootCertStore::empty())
            .with_no_client_auth(),
    };
    reqwest::Client::builder().tls_backend_preconfigured(config)
}

/// The cryptography of all that is in TLS here.
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

/// What is spoken behind the handshake: requests between nodes, and to registries.
pub const ALPN_HTTP: &[u8] = b"chatmesh-http/1";
/// What is spoken behind the handshake: frames between nodes.
pub const ALPN_BUS: &[u8] = b"chatmesh-bus/1";
/// What stands before the seed in the form in which a key is loaded (RFC 8410, section 7).
const PKCS8_ED25519: [u8; 16] = [
    0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20,
];

/// Names a key where people read: the first 8 hexadecimal digits of its public half's SHA-256.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId(pub(crate) [u8; 4]);

impl KeyId {
    pub(crate) fn of(public: &[u8]) -> Self {
        let sum = digest::digest(&digest::SHA256, public);
        let mut id = [0; 4];
        id.copy_from_slice(&sum.as_ref()[..4]);
        Self(id)
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The keys of a mesh, or of its registries, as they are now: which one is presented, which are
/// accepted. Clones are the same keys; a change holds for each handshake that begins after it.
#[derive(Clone)]
pub struct KeyRing {
    keys: Arc<RwLock<Arc<Keys>>>,
    changed: watch::Sender<()>,
    provider: Arc<CryptoProvider>,
}

struct Keys {
    presented: Arc<CertifiedKey>,
    /// The public halves, the presented one first.
    accepted: Vec<(CertificateDer<'static>, KeyId)>,
}

impl fmt::Debug for KeyRing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.accepted()).finish()
    }
}

impl KeyRing {
    /// Keys of these seeds; the first is presented.
    ///
    /// # Panics
    /// If there is no seed.
    pub fn new(seeds: &[Seed]) -> Self {
        let provider = provider();
        Self {
            keys: Arc::new(RwLock::new(Arc::new(Keys::of(seeds, &provider)))),
            changed: watch::Sender::new(()),
            provider,
        }
    }

    /// From now on the keys of these seeds; as [`Self::new`].
    pub fn replace(&self, seeds: &[Seed]) {
        let keys = Arc::new(Keys::of(seeds, &self.provider));
        *self.keys.write().unwrap_or_else(PoisonError::into_inner) = keys;
        self.changed.send_replace(());
    }

    /// Tells of each [`Self::replace`], and at once: one may have been made just before.
    pub fn changes(&self) -> watch::Receiver<()> {
        let mut changes = self.changed.subscribe();
        changes.mark_changed();
        changes
    }

    /// Resolves when a change has made that a connection's key, as `shown` finds it, is accepted no
    /// more: a connection that stands survives its key. Cancel safe.
    pub async fn is_removed(
        &self,
        changes: &mut watch::Receiver<()>,
        shown: impl Fn() -> Option<KeyId>,
    ) {
        loop {
            // Ends only with this very ring.
            if changes.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
            if shown().is_none() {
                return;
            }
        }
    }

    fn now(&self) -> Arc<Keys> {
        Arc::clone(&self.keys.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// All that are accepted, the presented one first.
    pub fn accepted(&self) -> Vec<KeyId> {
        self.now().accepted.iter().map(|(_, id)| *id).collect()
    }

    /// Whose key the other side of a connection has shown, if it is accepted still.
    pub fn accepts(&self, shown: Option<&[CertificateDer<'_>]>) -> Option<KeyId> {
        let [public] = shown? else { return None };
        let keys = self.now();
        let known = keys.accepted.iter().find(|(known, _)| known == public);
        known.map(|(_, id)| *id)
    }

    /// For those who accept connections, in the order in which a protocol is chosen.
    pub fn server(&self, protocols: &[&[u8]]) -> Arc<ServerConfig> {
        let mut config = ServerConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .expect("the provider has the suites of TLS 1.3")
            .with_client_cert_verifier(Arc::new(self.clone()))
            .with_cert_resolver(Arc::new(self.clone()));
        config.send_tls13_tickets = 0;
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.max_early_data_size = 0;
        config.alpn_protocols = protocols.iter().map(|it| it.to_vec()).collect();
        Arc::new(config)
    }

    /// For those who connect.
    pub fn client(&self, protocol: &[u8]) -> ClientConfig {
        let mut config = ClientConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .expect("the provider has the suites of TLS 1.3")
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(self.clone()))
            .with_client_cert_resolver(Arc::new(self.clone()));
        config.resumption = Resumption::disabled();
        config.enable_sni = false;
        config.alpn_protocols = vec![protocol.to_vec()];
        config
    }

    /// What is shown is one key, and one of ours.
    fn check(&self, shown: &CertificateDer<'_>, more: &[CertificateDer<'_>]) -> Result<(), Error> {
        if more.is_empty() && self.accepts(Some(std::slice::from_ref(shown))).is_some() {
            return Ok(());
        }
        Err(Error::InvalidCertificate(
            CertificateError::ApplicationVerificationFailure,
        ))
    }

    fn verify(
        &self,
        message: &[u8],
        shown: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let public = SubjectPublicKeyInfoDer::from(shown.as_ref());
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature_with_raw_key(message, &public, signed, algorithms)
    }
}

impl Keys {
    fn of(seeds: &[Seed], provider: &CryptoProvider) -> Self {
        let certified: Vec<_> = seeds.iter().map(|seed| certified(seed, provider)).collect();
        let accepted = certified.iter().map(|key| {
            let public = key.cert[0].clone();
            let id = KeyId::of(&public);
            (public, id)
        });
        Self {
            accepted: accepted.collect(),
            presented: Arc::clone(certified.first().expect("a file of secrets has a line")),
        }
    }
}

fn certified(seed: &Seed, provider: &CryptoProvider) -> Arc<CertifiedKey> {
    let der = [&PKCS8_ED25519[..], &seed.0].concat();
    let private = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(der));
    let key = provider.key_provider.load_private_key(private);
    let key = key.expect("32 bytes of any value are a seed");
    let public = key.public_key().expect("an Ed25519 key has a public half");
    let public = CertificateDer::from(public.as_ref().to_vec());
    Arc::new(CertifiedKey::new(vec![public], key))
}

impl ServerCertVerifier for KeyRing {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.check(end_entity, intermediates)
            .map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::General("TLS 1.3 only".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verify(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

impl ClientCertVerifier for KeyRing {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.check(end_entity, intermediates)
            .map(|()| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::General("TLS 1.3 only".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verify(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

impl ResolvesServerCert for KeyRing {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.now().presented))
    }

    fn only_raw_public_keys(&self) -> bool {
        true
    }
}

impl ResolvesClientCert for KeyRing {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.now().presented))
    }

    fn only_raw_public_keys(&self) -> bool {
        true
    }

    fn has_certs(&self) -> bool {
        true
    }
}
