//! The mesh secret: which flags go with it, and the subcommand that makes one.

use std::io::Write as _;

use anyhow::Context as _;
use base::process::Failure;
use base::secret::{Secrets, new_line};

use super::{Command, Config, refuse};

impl Config {
    /// Which flags go with a mesh secret.
    pub(super) fn check_secret(&self) -> Result<(), Failure> {
        if self.mesh_secret.is_none() {
            return Ok(());
        }
        if self.insecure_mesh {
            return refuse(
                "--insecure-mesh goes with no --mesh-secret: with a secret nothing between nodes is \
                 plain; leave --insecure-mesh out",
            );
        }
        if self.publisher.is_some() && self.sub.is_empty() {
            return refuse(
                "--pub goes with no --mesh-secret, but for foreign programs on this machine (--sub): \
                 nodes use the port of --http; leave --pub out",
            );
        }
        Ok(())
    }
}

impl Command {
    /// Does it.
    ///
    /// # Errors
    /// `Config` for a file that cannot be read, `Runtime` when stdout takes nothing.
    pub(crate) fn run(&self) -> Result<(), Failure> {
        let Self::Secret { registry } = self;
        let lines = match registry {
            None => new_line() + "\n",
            Some(path) => {
                let secrets = Secrets::read_of_node(path);
                let secrets =
                    secrets.map_err(|why| Failure::Config(format!("--registry {why}")))?;
                secrets.lines_for_registries()
            }
        };
        let mut stdout = std::io::stdout().lock();
        let written = stdout
            .write_all(lines.as_bytes())
            .and_then(|()| stdout.flush());
        Ok(written.context("stdout takes nothing")?)
    }
}
