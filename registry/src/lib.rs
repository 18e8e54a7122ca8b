//! Who is alive, and where: the service registry of a chatmesh. It never sees a message.
//!
//! Nodes tell it where they are and repeat that every third of a lease; whoever watches gets the
//! whole list as soon as it changes. All is soft state: no disk, no consensus, no recovery. A
//! registry that comes back empty is told everything again within a renewal.
//!
//! - `directory` is the list, pure; `http` its door; `state` ties both to time and tasks.
//! - [`api`] is the wire, [`client`] its other end, for any program.

pub mod api;
pub mod client;
mod config;
mod directory;
mod http;
mod metrics;
mod state;

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use base::process::{self, Failure, Tasks};
use base::secret::{Reader, SecretFile};
use base::serve::{self, door::Door};
use base::tls::KeyRing;
use serde::Serialize;
use tokio::net::TcpListener;
use tokio::sync::Notify;

use crate::config::Config;

/// The ready line.
#[derive(Debug, Serialize)]
struct Ready {
    ready: &'static str,
    http: String,
}

/// The program: listens, says that it is ready, and serves until a signal.
///
/// # Errors
/// `Config` when the address cannot be bound, `Runtime` when a critical task died.
pub fn main(config: &Config) -> Result<(), Failure> {
    process::init_logging(config.log)?;
    let open_files = process::raise_open_files_limit();
    let secret = config.mesh_secret.as_deref();
    let secret = secret
        .map(|path| SecretFile::open(path, Reader::Registry))
        .transpose()?;
    let reread = Arc::new(Notify::new());
    let stop = process::stop_signal(secret.is_some().then(|| Arc::clone(&reread)))?;
    let runtime = process::runtime()?;
    let outcome = runtime.block_on(async {
            let listener = serve::listen(config.http.socket_addr()).map_err(|error| {
                let addr = config.http;
                Failure::Config(format!(
                    "cannot listen on {addr}: {error}; end the program that holds it, or choose \
                     another address with --http (or variable REGISTRY_HTTP), port 0 is any free one"
                ))
            })?;
            let addr = listener.local_addr().context("the listener has no address")?;
            let tasks = Tasks::new();
            tracing::info!(http = %addr, lease_s = config.lease.as_secs(), open_files, "serving");
            if secret.is_none() && !addr.ip().is_loopback() {
                tracing::warn!(http = %addr, "anyone who reaches this address can change the list");
            }
            let keys = secret.as_ref().map(|secret| secret.registry().clone());
            run(config.lease, listener, keys, &tasks);
            let scheme = if secret.is_some() { "tls" } else { "http" };
            process::announce(&Ready { ready: "registry", http: format!("{scheme}://{addr}") });
            if let Some(secret) = secret {
                let stopping = tasks.stopping();
                tasks.spawn(async move {
                    stopping.run_until_cancelled(secret.follow(reread)).await;
                });
            }
            let stopping = tasks.stopping();
            tokio::select! {
                () = stop => {}
                () = stopping.cancelled() => {}
            }
            match tasks.drain(process::STOP_ORDERLY).await {
                0 => tracing::info!("stopped"),
                left => tracing::warn!(left, "stopped before all requests had ended"),
            }
            if tasks.failed() {
                return Err(anyhow::anyhow!("a critical task ended early").into());
            }
            Ok(())
        });
    // What hangs in a thread is not waited for.
    runtime.shutdown_background();
    outcome
}

/// Starts a registry on this listener, to live until `tasks` stop; with these keys it tells its list to
/// those only that have them too. Needs a running tokio runtime.
pub fn run(lease: Duration, listener: TcpListener, keys: Option<KeyRing>, tasks: &Tasks) {
    let registry = state::Registry::start(lease, tasks);
    let serving = serve::serve(
        listener,
        http::router(registry, keys.is_some()),
        tasks.clone(),
        serve::Limits::default(),
        keys.map(|keys| Door::new(keys, None)),
    );
    tasks.spawn_critical("http", serving);
}
