//! A real browser without a screen, and the page as a person uses it.
//!
//! Each has a profile of its own. Beside what WebDriver can do, `devtools.rs` emulates screens,
//! schemes and networks and collects what the browser complains of, `tap.rs` stands between the
//! page and its socket, and `axe.rs` runs the rules of accessibility.

mod axe;
mod devtools;
mod tap;

use std::path::Path;
use std::process::Stdio;

use anyhow::{Context as _, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use thirtyfour::{
    By, ChromiumLikeCapabilities as _, DesiredCapabilities, Key, LoggingPrefsLogLevel, TypingData,
    WebDriver, WebElement,
};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio::time::{Duration, timeout};

pub(crate) use devtools::Screen;

use super::PATIENCE;
use super::cluster::Node;
use super::eventually::eventually;
use super::tools::{free_port, installed};

/// The states of `#status` in which the page is connected.
pub(crate) const CONNECTED: &[&str] = &["connected", "resumed"];

/// A message as the page shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Shown {
    pub(crate) id: String,
    pub(crate) from: String,
    pub(crate) text: String,
    pub(crate) state: String,
}

/// A browser with one page.
#[derive(Debug)]
pub(crate) struct Browser {
    pub(crate) driver: WebDriver,
    _chromedriver: Child,
    profile: TempDir,
}

impl Browser {
    /// Starts a browser of its own and opens this address.
    pub(crate) async fn open(url: &str) -> Result<Self> {
        let browser = Self::start().await?;
        browser.driver.goto(url).await?;
        Ok(browser)
    }

    /// Starts a browser of its own, and the page of this node in it under this name, connected.
    pub(crate) async fn person(node: &Node, name: &str) -> Result<Self> {
        let browser = Self::open(&node.http).await?;
        browser.status(CONNECTED, PATIENCE).await?;
        browser.take_name(name).await?;
        Ok(browser)
    }

    /// Starts a browser of its own, with an empty page.
    pub(crate) async fn start() -> Result<Self> {
        let chromium = installed("chromium")?;
        // Asked for any port, it takes one that may be taken in the other family of addresses, and
        // ends.
        let port = free_port()?;
        let mut chromedriver = Command::new(installed("chromedriver")?)
            .arg(format!("--port={port}"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()?;
        let output = chromedriver.stdout.take().context("the output is a pipe")?;
        let mut lines = BufReader::new(output).lines();
        timeout(PATIENCE, async {
            let mut said = Vec::new();
            while let Some(line) = lines.next_line().await? {
                if line.contains("started successfully on port") {
                    return Ok(());
                }
                said.push(line);
            }
            anyhow::bail!("chromedriver ended: {said:?}")
        })
        .await
        .context("chromedriver does not start")??;
        let profile = tempfile::tempdir()?;
        let mut wishes = DesiredCapabilities::chrome();
        wishes.set_binary(chromium.to_str().context("a path of text")?)?;
        for flag in [
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--disable-dev-shm-usage",
            "--window-size=1280,900",
            &format!("--user-data-dir={}", profile.path().display()),
        ] {
            wishes.add_arg(flag)?;
        }
        // What the browser complains of, and what it asks of the network: see `devtools.rs`.
        for kind in ["browser", "performance"] {
            wishes.set_logging_prefs(kind, LoggingPrefsLogLevel::All)?;
        }
        // Its own client wants one for all; another test may have been quicker.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let driver = WebDriver::new(format!("http://127.0.0.1:{port}"), wishes).await?;
        Ok(Self {
            driver,
            _chromedriver: chromedriver,
            profile,
        })
    }

    /// The element with this id.
    pub(crate) async fn element(&self, id: &str) -> Result<WebElement> {
        self.driver
            .find(By::Id(id))
            .await
            .with_context(|| format!("no element #{id}"))
    }

    /// Types into the element with this id.
    pub(crate) async fn type_in(&self, id: &str, keys: impl Into<TypingData>) -> Result<()> {
        Ok(self.element(id).await?.send_keys(keys).await?)
    }

    /// Waits until the page says that it is in one of these states.
    pub(crate) async fn status(&self, states: &[&str], within: Duration) -> Result<String> {
        eventually(
            within,
            &format!("the page is one of {states:?}"),
            async || {
                let status = self.element("status").await?;
                let state = status.attr("data-state").await?.unwrap_or_default();
                ensure!(states.contains(&state.as_str()), "the state is {state:?}");
                Ok(state)
            },
        )
        .await
    }

    /// Gives the person this name, as one types it.
    pub(crate) async fn take_name(&self, name: &str) -> Result<()> {
        let field = self.element("name").await?;
        field.clear().await?;
        field.send_keys(format!("{name}\u{E007}")).await?;
        Ok(())
    }

    /// Types a message and sends it by the button.
    pub(crate) async fn say(&self, text: &str) -> Result<()> {
        self.type_in("compose", text).await?;
        self.element("send").await?.click().await?;
        Ok(())
    }

    /// Presses these keys, one after the other, wherever the focus is.
    pub(crate) async fn keys(&self, keys: impl Into<TypingData>) -> Result<()> {
        let chain = self.driver.action_chain();
        Ok(chain.send_keys(keys).perform().await?)
    }

    /// Goes backwards in the order of focus.
    pub(crate) async fn back_tab(&self) -> Result<()> {
        self.chord(Key::Shift, Key::Tab).await
    }

    /// Presses a key while another is held.
    pub(crate) async fn chord(&self, held: Key, key: impl Into<TypingData>) -> Result<()> {
        let chain = self.driver.action_chain();
        let chain = chain.key_down(held.clone()).send_keys(key);
        Ok(chain.key_up(held).perform().await?)
    }

    /// Waits until an expression of JavaScript is true in the page.
    pub(crate) async fn holds(&self, expression: &str) -> Result<()> {
        self.holds_within(PATIENCE, expression).await
    }

    /// The same, for so long; the text of an error has the last value.
    pub(crate) async fn holds_within(&self, within: Duration, expression: &str) -> Result<()> {
        eventually(within, &format!("in the page {expression}"), async || {
            let value = self.script(&format!("return {expression}")).await?;
            ensure!(value == true, "it is {value}");
            Ok(())
        })
        .await
    }

    /// The messages that the page shows, in order.
    pub(crate) async fn transcript(&self) -> Result<Vec<Shown>> {
        // One script, so that all is of one moment; as a browser would read it to a person.
        let script = "return [...document.querySelectorAll('#transcript li.message')].map(li => \
            [li.dataset.id ?? '', li.querySelector('.from')?.textContent ?? '', \
             li.querySelector('.text')?.textContent ?? '', li.dataset.state ?? ''])";
        let rows = self.driver.execute(script, Vec::new()).await?;
        let rows: Vec<[String; 4]> = rows.convert()?;
        let shown = rows.into_iter().map(|[id, from, text, state]| Shown {
            id,
            from,
            text,
            state,
        });
        Ok(shown.collect())
    }

    /// Waits until the page shows this text, and gives the whole transcript.
    pub(crate) async fn shows(&self, text: &str) -> Result<Vec<Shown>> {
        eventually(PATIENCE, &format!("the page shows {text:?}"), async || {
            let transcript = self.transcript().await?;
            ensure!(
                transcript.iter().any(|shown| shown.text == text),
                "it shows {transcript:?}"
            );
            Ok(transcript)
        })
        .await
    }

    /// What a script gives back.
    pub(crate) async fn script(&self, script: &str) -> Result<serde_json::Value> {
        Ok(self
            .driver
            .execute(script, Vec::new())
            .await?
            .json()
            .clone())
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Dropped as it is, the session would wait for an orderly end that is not to come.
        let _ended = self.driver.clone().leak();
        // A browser outlives its driver: end the processes that carry this very profile.
        for pid in holders(self.profile.path()) {
            let _gone = kill_process(pid, Signal::KILL);
        }
    }
}

fn holders(profile: &Path) -> Vec<Pid> {
    let profile = profile.display().to_string();
    let Ok(processes) = std::fs::read_dir("/proc") else {
        return Vec::new();
    };
    processes
        .flatten()
        .filter_map(|entry| {
            let id: i32 = entry.file_name().to_str()?.parse().ok()?;
            let command = std::fs::read(entry.path().join("cmdline")).ok()?;
            let carries = String::from_utf8_lossy(&command).contains(&profile);
            if carries { Pid::from_raw(id) } else { None }
        })
        .collect()
}
