//! TLS to servers that are not of the mesh: brokers, and where nodes find each other.

use std::sync::{Arc, OnceLock};

use rustls::{ClientConfig, RootCertStore};

use super::provider;

/// TLS 1.2 or 1.3 by the authorities that this machine trusts; they are read until something is found.
/// `SSL_CERT_FILE` and `SSL_CERT_DIR` name others, as for all that uses OpenSSL.
///
/// # Errors
/// This machine names none, in one line for people.
pub fn by_authorities() -> Result<Arc<ClientConfig>, String> {
    static CONFIG: OnceLock<Arc<ClientConfig>> = OnceLock::new();
    if let Some(config) = CONFIG.get() {
        return Ok(Arc::clone(config));
    }
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    let (added, _) = roots.add_parsable_certificates(found.certs);
    if added == 0 {
        let why = found.errors.first();
        let why = why.map_or_else(|| "none found".to_owned(), ToString::to_string);
        return Err(format!(
            "this machine names no authorities to trust ({why}); SSL_CERT_FILE does"
        ));
    }
    if let Some(why) = found.errors.first() {
        tracing::warn!("of the authorities to trust some cannot be read: {why}");
    }
    let config = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|why| why.to_string())?;
    let config = config.with_root_certificates(roots).with_no_client_auth();
    Ok(Arc::clone(CONFIG.get_or_init(|| Arc::new(config))))
}

/// A client of HTTP for such servers, to be built.
///
/// # Errors
/// As [`by_authorities`] has them.
pub fn http_by_authorities() -> Result<reqwest::ClientBuilder, String> {
    let config = ClientConfig::clone(&*by_authorities()?);
    Ok(reqwest::Client::builder().tls_backend_preconfigured(config))
}
