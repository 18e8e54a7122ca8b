//! Certificates of brokers, and the authorities that sign them.

use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::harness::tools::run;

/// An authority, and the certificate of a server that it has signed.
#[derive(Debug, Clone)]
pub(crate) struct Certificates {
    /// The authority's own, for `SSL_CERT_FILE`.
    pub(crate) authority: PathBuf,
    /// The server's.
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
}

impl Certificates {
    /// The file of the authority's own.
    pub(crate) const AUTHORITY: &str = "authority.pem";

    /// A new authority in this folder, and a server that is called `localhost` and nothing else, not even
    /// by its address.
    pub(crate) fn new(folder: &Path) -> Result<Self> {
        let path = |name: &str| folder.join(name).display().to_string();
        let openssl = |args: &str| {
            let args: Vec<_> = args
                .split(' ')
                .map(|arg| match arg.strip_prefix('@') {
                    Some(name) => path(name),
                    None => arg.to_owned(),
                })
                .collect();
            let args: Vec<_> = args.iter().map(String::as_str).collect();
            run("openssl", &args)
        };
        // Of another name than all others: whose signature it is, is told by it.
        let name = rand::random::<u32>();
        let key = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2";
        openssl(&format!(
            "req -x509 {key} -subj /CN=authority-{name} -keyout @authority.key -out @authority.pem"
        ))?;
        openssl(&format!(
            "req -x509 {key} -subj /CN=server -addext subjectAltName=DNS:localhost \
             -addext basicConstraints=critical,CA:FALSE -CA @authority.pem -CAkey @authority.key \
             -keyout @server.key -out @server.pem"
        ))?;
        Ok(Self {
            authority: folder.join(Self::AUTHORITY),
            certificate: folder.join("server.pem"),
            key: folder.join("server.key"),
        })
    }
}
