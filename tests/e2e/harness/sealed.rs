//! Registries and nodes with a mesh secret, and tests that are run with one and without.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use base::secret::Secrets;
use base::tls::KeyRing;
use tempfile::TempDir;

use super::process::{Launch, Process};
use super::{Node, secs};

/// What nodes speak to each other and to registries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Over {
    /// Plain ZeroMQ and HTTP, where there is no mesh secret.
    Zmq,
    /// TLS, where there is one.
    Tls,
}

impl Over {
    /// A mesh secret, where one is needed.
    pub(crate) async fn seal(self) -> Result<Option<Seal>> {
        match self {
            Self::Zmq => Ok(None),
            Self::Tls => Seal::new().await.map(Some),
        }
    }
}

/// Runs a test, `async fn(Over) -> Outcome`, over all that nodes speak.
macro_rules! over_each {
    ($($test:ident),+ $(,)?) => {$(
        mod $test {
            use crate::harness::Outcome;
            use crate::harness::sealed::Over;

            #[tokio::test]
            async fn over_zmq() -> Outcome {
                super::$test(Over::Zmq).await
            }

            #[tokio::test]
            async fn over_tls() -> Outcome {
                super::$test(Over::Tls).await
            }
        }
    )+};
}
pub(crate) use over_each;

/// A mesh secret: its file, and the keys that come of it.
#[derive(Debug)]
pub(crate) struct Seal {
    files: SecretFiles,
    of_nodes: KeyRing,
    of_registries: KeyRing,
}

impl Seal {
    /// A new one.
    pub(crate) async fn new() -> Result<Self> {
        let files = SecretFiles::new()?;
        let secrets = Secrets::read(&files.write(MESH, &secret(&[]).await?)?)?;
        Ok(Self {
            files,
            of_nodes: KeyRing::new(&secrets.of_mesh()),
            of_registries: KeyRing::new(&secrets.of_registry()),
        })
    }

    /// The path of its file.
    pub(crate) fn file(&self) -> String {
        self.files.path(MESH).display().to_string()
    }

    /// Its folder, for other secrets beside it.
    pub(crate) fn files(&self) -> &SecretFiles {
        &self.files
    }

    /// What nodes show to each other.
    pub(crate) fn keys_of_nodes(&self) -> &KeyRing {
        &self.of_nodes
    }

    /// What registries show, and nodes to them.
    pub(crate) fn keys_of_registries(&self) -> &KeyRing {
        &self.of_registries
    }
}

/// The file of what all of a mesh have.
const MESH: &str = "mesh";

/// Files of secrets, in a folder of their own.
#[derive(Debug)]
pub(crate) struct SecretFiles(TempDir);

impl SecretFiles {
    /// None yet.
    pub(crate) fn new() -> Result<Self> {
        Ok(Self(tempfile::tempdir()?))
    }

    /// Where the file of this name is.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// A file of this name with these lines.
    pub(crate) fn write(&self, name: &str, lines: &str) -> Result<PathBuf> {
        let path = self.0.path().join(name);
        // Another file in its place, at once: who reads it sees the one or the other.
        let new = self.0.path().join(format!("{name}.new"));
        std::fs::write(&new, lines)?;
        std::fs::set_permissions(&new, std::fs::Permissions::from_mode(0o600))?;
        std::fs::rename(new, &path)?;
        Ok(path)
    }
}

/// What `chatnode secret` prints with these flags more.
pub(crate) async fn secret(more: &[&str]) -> Result<String> {
    let args = ["secret"].iter().chain(more).copied();
    let ended = Launch::new("chatnode", args).to_end(secs(10)).await?;
    ensure!(ended.code == Some(0), "{ended:?}");
    Ok(ended.stdout)
}

/// A registry with this file, and its URL.
pub(crate) async fn sealed_registry(address: &str, file: &Path) -> Result<(Process, String)> {
    let file = file.display().to_string();
    let launch = Launch::new("registry", ["--http", address, "--mesh-secret", &file]);
    let process = Process::start(&launch).await?;
    let url = process.ready_text("http")?;
    ensure!(url.starts_with("tls://"), "{url}");
    Ok((process, url))
}

/// How a node with this file is started, at this registry.
pub(crate) fn sealed_node(registry: &str, file: &Path, more: &[&str]) -> Launch {
    let file = file.display().to_string();
    let args = ["--registry", registry, "--mesh-secret", &file];
    Launch::new("chatnode", args.iter().chain(more).copied())
}

/// A registry, and nodes that hear each other, with one secret.
pub(crate) async fn sealed_cluster(
    files: &SecretFiles,
    count: usize,
) -> Result<(Process, String, Vec<Node>)> {
    let file = files.write(MESH, &secret(&[]).await?)?;
    let (registry, url) = sealed_registry("127.0.0.1:0", &file).await?;
    let mut nodes = Vec::new();
    for _ in 0..count {
        nodes.push(Node::launch(sealed_node(&url, &file, &["--rate-limit", "0"])).await?);
    }
    super::linked(&nodes.iter().collect::<Vec<_>>(), super::PATIENCE).await?;
    for node in &nodes {
        node.takes_clients(super::PATIENCE).await?;
    }
    Ok((registry, url, nodes))
}
