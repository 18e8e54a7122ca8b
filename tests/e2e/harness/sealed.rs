//! Registries and nodes with a mesh secret.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use tempfile::TempDir;

use super::process::{Launch, Process};
use super::{Node, secs};

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
    let file = files.write("mesh", &secret(&[]).await?)?;
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
