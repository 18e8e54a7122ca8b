//! What only DevTools can do: screens and schemes, no network, a look at the heap and at all that
//! the page asks of the network, and what the browser complains of.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use super::super::process::target;
use super::super::variable;
use super::Browser;

/// A screen, and what its owner prefers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Screen {
    pub(crate) width: u32,
    pub(crate) height: u32,
    pub(crate) dark: bool,
    /// Prefers reduced motion.
    pub(crate) still: bool,
}

impl Screen {
    /// A light screen of this size.
    pub(crate) const fn of(width: u32, height: u32) -> Self {
        Self {
            width,
            height,
            dark: false,
            still: false,
        }
    }

    /// The same in the dark.
    pub(crate) const fn in_the_dark(self) -> Self {
        Self { dark: true, ..self }
    }

    /// The same without motion.
    pub(crate) const fn without_motion(self) -> Self {
        Self {
            still: true,
            ..self
        }
    }
}

impl Browser {
    /// A command of the DevTools protocol, to the window in use.
    pub(crate) async fn devtools(&self, command: &str, parameters: Value) -> Result<Value> {
        let done = self.driver.cdp().send_raw(command, parameters).await;
        done.with_context(|| format!("DevTools: {command}"))
    }

    /// Gives the window this screen.
    pub(crate) async fn on(&self, screen: Screen) -> Result<()> {
        let size = json!({
            "width": screen.width, "height": screen.height, "deviceScaleFactor": 1,
            // Only then a phone's rules of layout hold, such as the viewport of the page.
            "mobile": screen.width < 600,
        });
        self.devtools("Emulation.setDeviceMetricsOverride", size)
            .await?;
        let scheme = if screen.dark { "dark" } else { "light" };
        let motion = if screen.still {
            "reduce"
        } else {
            "no-preference"
        };
        let features = json!({ "features": [
            { "name": "prefers-color-scheme", "value": scheme },
            { "name": "prefers-reduced-motion", "value": motion },
        ] });
        self.devtools("Emulation.setEmulatedMedia", features)
            .await?;
        Ok(())
    }

    /// Takes the network from the window in use, or gives it back; sockets excepted, which
    /// DevTools leaves alone.
    pub(super) async fn offline(&self, offline: bool) -> Result<()> {
        self.devtools("Network.enable", json!({})).await?;
        let conditions = json!({
            "offline": offline, "latency": 0, "downloadThroughput": -1, "uploadThroughput": -1,
        });
        self.devtools("Network.emulateNetworkConditions", conditions)
            .await?;
        Ok(())
    }

    /// The bytes that the page's scripts and document hold, after the garbage was collected.
    pub(crate) async fn heap(&self) -> Result<u64> {
        self.devtools("HeapProfiler.collectGarbage", json!({}))
            .await?;
        let usage = self.devtools("Runtime.getHeapUsage", json!({})).await?;
        let part = |name: &str| usage[name].as_f64().context("no size of the heap");
        // What the page's scripts hold, and what of the document hangs on it.
        let used = part("usedSize")? + part("embedderHeapUsedSize")?;
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a count of bytes, given as a number of JavaScript"
        )]
        Ok(used as u64)
    }

    /// Writes what is to be seen to the folder that CI keeps, under this name.
    pub(crate) async fn picture(&self, name: &str) -> Result<()> {
        let folder = match variable("CARGO_TARGET_DIR") {
            Some(folder) => folder.into(),
            None => target()?.join(".."),
        };
        let folder = folder.join("screenshots");
        std::fs::create_dir_all(&folder)?;
        let picture = self.driver.screenshot_as_png().await?;
        let path = folder.join(format!("{name}.png"));
        std::fs::write(&path, picture)?;
        Ok(())
    }

    /// Fails if the browser complained since the last look: errors of scripts, violations of the
    /// page's policy, warnings, files that are missing. `expected` are parts of the complaints
    /// that the test itself provoked, such as a socket to a node that it killed.
    pub(crate) async fn no_complaints(&self, expected: &[&str]) -> Result<()> {
        let log = self.driver.get_log("browser").await?;
        let complaints: Vec<String> = log
            .iter()
            .filter(|entry| ["SEVERE", "WARNING"].contains(&entry.level.as_str()))
            .map(|entry| format!("{} {}", entry.level, entry.message))
            .filter(|complaint| !expected.iter().any(|part| complaint.contains(part)))
            .collect();
        ensure!(
            complaints.is_empty(),
            "the browser complains:\n{}",
            complaints.join("\n")
        );
        Ok(())
    }

    /// The hosts that the page asked anything of since the last look, sockets included, as
    /// `scheme://host:port`.
    pub(crate) async fn asked(&self) -> Result<BTreeSet<String>> {
        let mut hosts = BTreeSet::new();
        for entry in self.driver.get_log("performance").await? {
            let event: Value = serde_json::from_str(&entry.message)?;
            let event = &event["message"];
            let url = match event["method"].as_str().unwrap_or_default() {
                "Network.requestWillBeSent" => &event["params"]["request"]["url"],
                "Network.webSocketCreated" => &event["params"]["url"],
                _ => continue,
            };
            let url = url.as_str().unwrap_or_default();
            // What is in the page itself asks nobody.
            if url.starts_with("data:") || url.starts_with("about:") {
                continue;
            }
            hosts.insert(url.splitn(4, '/').take(3).collect::<Vec<_>>().join("/"));
        }
        Ok(hosts)
    }
}
