//! Network namespaces that a test makes for itself, so that packets between two nodes can be
//! dropped in the kernel: a half-open connection as it really is.
//!
//! The test moves its own thread into the near namespace; what it starts is there as well. The
//! far namespace is reached by two wires: `mesh`, which can be cut, and `control`, which cannot
//! and over which the registry and the test speak to the far node. Nothing leaves the machine:
//! neither namespace has another wire.

use std::fs::File;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::tools::{installed, limited};

/// Addresses of the two ends of the two wires.
pub(crate) const NEAR_MESH: &str = "10.77.0.1";
pub(crate) const FAR_MESH: &str = "10.77.0.2";
pub(crate) const NEAR_CONTROL: &str = "10.78.0.1";
pub(crate) const FAR_CONTROL: &str = "10.78.0.2";

/// The two namespaces; removed when dropped.
#[derive(Debug)]
pub(crate) struct Namespaces {
    near: String,
    far: String,
}

impl Namespaces {
    /// Makes both, and moves this thread (and so what it starts) into the near one. `None` where
    /// the machine does not let it: then a line says so, and it is counted.
    ///
    /// # Errors
    /// Something failed half-way, which is not a missing right.
    pub(crate) fn enter() -> Result<Option<Self>> {
        let what = "network namespaces";
        if !rustix::process::geteuid().is_root() {
            limited(what, "a TCP proxy", "not root")?;
            return Ok(None);
        }
        installed("ip")?;
        installed("iptables")?;
        let id = std::process::id();
        let pair = Self {
            near: format!("chatmesh-{id}-a"),
            far: format!("chatmesh-{id}-b"),
        };
        if let Err(error) = ip(&["netns", "add", &pair.near]) {
            limited(what, "a TCP proxy", &format!("{error:#}"))?;
            return Ok(None);
        }
        pair.wire()?;
        if let Err(error) = pair.iptables(&["-L", "-n"]) {
            limited("iptables", "a TCP proxy", &format!("{error:#}"))?;
            return Ok(None);
        }
        let namespace = File::open(format!("/run/netns/{}", pair.near))?;
        move_into_link_name_space(
            std::os::fd::AsFd::as_fd(&namespace),
            Some(LinkNameSpaceType::Network),
        )?;
        Ok(Some(pair))
    }

    fn wire(&self) -> Result<()> {
        ip(&["netns", "add", &self.far])?;
        for (wire, near, far) in [
            ("mesh", NEAR_MESH, FAR_MESH),
            ("control", NEAR_CONTROL, FAR_CONTROL),
        ] {
            ip(&[
                "-n", &self.near, "link", "add", wire, "type", "veth", "peer", "name", wire,
                "netns", &self.far,
            ])?;
            for (namespace, address) in [(&self.near, near), (&self.far, far)] {
                let address = format!("{address}/24");
                ip(&["-n", namespace, "address", "add", &address, "dev", wire])?;
                ip(&["-n", namespace, "link", "set", wire, "up"])?;
            }
        }
        for namespace in [&self.near, &self.far] {
            ip(&["-n", namespace, "link", "set", "lo", "up"])?;
        }
        Ok(())
    }

    /// The words before a command that is to run in the far namespace.
    pub(crate) fn far(&self) -> Vec<String> {
        ["ip", "netns", "exec", &self.far]
            .map(str::to_owned)
            .to_vec()
    }

    /// Drops every packet on the mesh wire, both ways: no FIN, no reset, no ICMP.
    ///
    /// # Errors
    /// The kernel refuses.
    pub(crate) fn cut(&self) -> Result<()> {
        self.iptables(&["-I", "INPUT", "-i", "mesh", "-j", "DROP"])?;
        self.iptables(&["-I", "OUTPUT", "-o", "mesh", "-j", "DROP"])
    }

    /// Drops only what comes from the far side.
    ///
    /// # Errors
    /// The kernel refuses.
    pub(crate) fn deafen_near(&self) -> Result<()> {
        self.iptables(&["-I", "INPUT", "-i", "mesh", "-j", "DROP"])
    }

    /// Lets everything pass again.
    ///
    /// # Errors
    /// The kernel refuses.
    pub(crate) fn heal(&self) -> Result<()> {
        self.iptables(&["-F"])
    }

    fn iptables(&self, args: &[&str]) -> Result<()> {
        let mut all = vec!["netns", "exec", &self.near, "iptables", "-w"];
        all.extend(args);
        ip(&all)
    }
}

impl Drop for Namespaces {
    fn drop(&mut self) {
        for namespace in [&self.near, &self.far] {
            // It may not have been made; processes in it keep it until they end.
            let _gone = ip(&["netns", "del", namespace]);
        }
    }
}

fn ip(args: &[&str]) -> Result<()> {
    let output = Command::new(installed("ip")?)
        .args(args)
        .output()
        .context("running ip")?;
    ensure!(
        output.status.success(),
        "ip {}: {}",
        args.join(" "),
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(())
}
