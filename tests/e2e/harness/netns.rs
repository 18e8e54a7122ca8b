//! Network namespaces that a test makes for itself, so that packets between two nodes can be
//! dropped in the kernel: a half-open connection as it really is.
//!
//! The test moves its own thread into the near namespace; what it starts is there as well. The
//! far namespace is reached by two wires: `mesh`, which can be cut, and `control`, which cannot
//! and over which the registry and the test speak to the far node. Nothing leaves the machine:
//! neither namespace has another wire.

use std::fs::File;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Result, ensure};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::tools::{installed, limited, run};

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
    /// the machine does not let it: then a line says so and what is done `instead`, and it is
    /// counted.
    ///
    /// # Errors
    /// Something failed half-way, which is not a missing right.
    pub(crate) fn enter(instead: &str) -> Result<Option<Self>> {
        static COUNT: AtomicU32 = AtomicU32::new(1);
        let what = "network namespaces";
        if !rustix::process::geteuid().is_root() {
            limited(what, instead, "not root")?;
            return Ok(None);
        }
        installed("ip")?;
        installed("iptables")?;
        // Two tests may be threads of one process.
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let id = format!("{}-{count}", std::process::id());
        let pair = Self {
            near: format!("chatmesh-{id}-a"),
            far: format!("chatmesh-{id}-b"),
        };
        if let Err(error) = ip(&["netns", "add", &pair.near]) {
            limited(what, instead, &format!("{error:#}"))?;
            return Ok(None);
        }
        pair.wire()?;
        if let Err(error) = pair.iptables(&["-L", "-n"]) {
            limited("iptables", instead, &format!("{error:#}"))?;
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
    pub(crate) fn cut(&self) -> Result<()> {
        self.iptables(&["-I", "INPUT", "-i", "mesh", "-j", "DROP"])?;
        self.iptables(&["-I", "OUTPUT", "-o", "mesh", "-j", "DROP"])
    }

    /// Drops only what comes from the far side.
    pub(crate) fn deafen_near(&self) -> Result<()> {
        self.iptables(&["-I", "INPUT", "-i", "mesh", "-j", "DROP"])
    }

    /// Drops this share of all packets on the mesh wire, each way by itself, by chance.
    pub(crate) fn lose(&self, share: f64) -> Result<()> {
        let share = share.to_string();
        for (chain, way) in [("INPUT", "-i"), ("OUTPUT", "-o")] {
            let by_chance = ["-m", "statistic", "--mode", "random"];
            let rule = ["-I", chain, way, "mesh"];
            let rest = ["--probability", &share, "-j", "DROP"];
            self.iptables(&[&rule[..], &by_chance, &rest].concat())?;
        }
        Ok(())
    }

    /// How many packets were dropped since the wire was cut or made to lose some.
    pub(crate) fn dropped(&self) -> Result<u64> {
        let near = ["netns", "exec", &self.near];
        let listed = ip(&[&near[..], &["iptables", "-w", "-nvxL"]].concat())?;
        let rules = listed.lines().filter(|line| line.contains("DROP "));
        let packets = rules.filter_map(|line| line.split_whitespace().next()?.parse::<u64>().ok());
        Ok(packets.sum())
    }

    /// Ends every TCP connection over the mesh wire by a reset, at both its ends; how many.
    pub(crate) fn reset(&self) -> Result<usize> {
        let mut ended = 0;
        for (namespace, other) in [(&self.near, FAR_MESH), (&self.far, NEAR_MESH)] {
            // Without a header, so that each line is a connection that was ended.
            let listed = ip(&[
                "netns", "exec", namespace, "ss", "-H", "-t", "-K", "dst", other,
            ])?;
            ended += listed.lines().count();
        }
        ensure!(ended > 0, "ss -K ended no connection");
        Ok(ended)
    }

    /// Lets so many kilobits a second pass on the mesh wire, each way.
    pub(crate) fn squeeze(&self, kilobits: u32) -> Result<()> {
        let rate = format!("{kilobits}kbit");
        for namespace in [&self.near, &self.far] {
            let head = ["netns", "exec", namespace, "tc", "qdisc"];
            let how = ["replace", "dev", "mesh", "root", "tbf", "rate", &rate];
            let queue = ["burst", "8kb", "latency", "500ms"];
            ip(&[&head[..], &how, &queue].concat())?;
        }
        Ok(())
    }

    /// Lets as much pass as there is, after [`Self::squeeze`].
    pub(crate) fn widen(&self) -> Result<()> {
        for namespace in [&self.near, &self.far] {
            let head = ["netns", "exec", namespace, "tc", "qdisc"];
            ip(&[&head[..], &["del", "dev", "mesh", "root"]].concat())?;
        }
        Ok(())
    }

    /// Lets every packet pass again.
    pub(crate) fn heal(&self) -> Result<()> {
        self.iptables(&["-F"])
    }

    fn iptables(&self, args: &[&str]) -> Result<()> {
        let mut all = vec!["netns", "exec", &self.near, "iptables", "-w"];
        all.extend(args);
        ip(&all).map(drop)
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

/// Runs `ip`; what it printed.
fn ip(args: &[&str]) -> Result<String> {
    run("ip", args)
}
