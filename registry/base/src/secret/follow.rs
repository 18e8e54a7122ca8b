//! The file of secrets while a program runs: it is read again when it changes, and at SIGHUP.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::Notify;

use super::{SecretError, Secrets};
use crate::process::Failure;
use crate::seal::SealRing;
use crate::tls::KeyRing;

/// How often it is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// Who reads the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reader {
    /// A node, which needs lines for nodes.
    Node,
    /// A registry, which takes both kinds.
    Registry,
}

/// A file of secrets, and the keys of what it said last. Clones are the same one.
#[derive(Debug, Clone)]
pub struct SecretFile {
    path: PathBuf,
    reader: Reader,
    /// What nodes show to each other; a registry has none.
    mesh: Option<KeyRing>,
    registry: KeyRing,
    /// What nodes seal messages on a broker with; a registry has none.
    brokers: Option<SealRing>,
    is_bad: Arc<AtomicBool>,
}

impl SecretFile {
    /// Reads the file of `--mesh-secret`.
    ///
    /// # Errors
    /// `Config`, with one line that says what is wrong with it.
    pub fn open(path: &Path, reader: Reader) -> Result<Self, Failure> {
        let secrets = read(path, reader).map_err(|why| Failure::Config(told(&why)))?;
        Ok(Self {
            path: path.to_owned(),
            reader,
            mesh: (reader == Reader::Node).then(|| KeyRing::new(&secrets.of_mesh())),
            registry: KeyRing::new(&secrets.of_registry()),
            brokers: (reader == Reader::Node).then(|| SealRing::new(&secrets.of_brokers())),
            is_bad: Arc::default(),
        })
    }

    /// The keys that nodes show to each other.
    ///
    /// # Panics
    /// If a registry asks.
    pub fn mesh(&self) -> &KeyRing {
        self.mesh.as_ref().expect("a node has keys of the mesh")
    }

    /// The keys that registries, and nodes to them, show.
    pub fn registry(&self) -> &KeyRing {
        &self.registry
    }

    /// The keys that messages on a broker are sealed with.
    ///
    /// # Panics
    /// If a registry asks.
    pub fn brokers(&self) -> &SealRing {
        self.brokers.as_ref().expect("a node has keys for brokers")
    }

    /// Whether the file could not be read when it changed last, so that what it said before holds.
    pub fn is_bad(&self) -> bool {
        self.is_bad.load(Ordering::Relaxed)
    }

    /// Follows the file until it is dropped: reads it when it has changed, and when `hangup` says so.
    pub async fn follow(self, hangup: Arc<Notify>) {
        let mut seen = self.look().await;
        loop {
            // Both are cancel safe: a signal that is not taken stays.
            let asked = tokio::select! {
                () = hangup.notified() => true,
                () = tokio::time::sleep(LOOK_EVERY) => false,
            };
            let now = self.look().await;
            if asked || now != seen {
                seen = now;
                self.read_again().await;
            }
        }
    }

    /// What tells one state of the file from another.
    async fn look(&self) -> Option<Stamp> {
        Some(Stamp::of(&tokio::fs::metadata(&self.path).await.ok()?))
    }

    async fn read_again(&self) {
        let (path, reader) = (self.path.clone(), self.reader);
        // In a thread: the file may lie on a disk that hangs.
        let read = tokio::task::spawn_blocking(move || read(&path, reader)).await;
        let secrets = match read {
            Ok(Ok(secrets)) => secrets,
            Ok(Err(why)) => {
                self.is_bad.store(true, Ordering::Relaxed);
                return tracing::error!("{}; what it said before holds", told(&why));
            }
            Err(why) => return tracing::error!("--mesh-secret was not read: {why}"),
        };
        self.is_bad.store(false, Ordering::Relaxed);
        let before = self.registry.accepted();
        if let Some(mesh) = &self.mesh {
            mesh.replace(&secrets.of_mesh());
        }
        if let Some(brokers) = &self.brokers {
            brokers.replace(&secrets.of_brokers());
        }
        self.registry.replace(&secrets.of_registry());
        if self.registry.accepted() == before {
            return;
        }
        let keys = self.mesh.as_ref().unwrap_or(&self.registry).accepted();
        let (presented, accepted) = (keys[0], keys.len());
        tracing::info!(key = %presented, accepted, "the mesh secret was read again");
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp(u64, u64, i64, i64);

impl Stamp {
    fn of(file: &Metadata) -> Self {
        Self(file.ino(), file.len(), file.mtime(), file.mtime_nsec())
    }
}

fn read(path: &Path, reader: Reader) -> Result<Secrets, SecretError> {
    match reader {
        Reader::Node => Secrets::read_of_node(path),
        Reader::Registry => Secrets::read(path),
    }
}

fn told(why: &SecretError) -> String {
    format!("--mesh-secret {why}")
}
