//! Between the page and its socket: what a node says or refuses too rarely to wait for.
//!
//! The page runs as it is, on a socket that really is connected. The tap only says more to it than
//! the node does, and answers in the node's place what it is told to refuse.

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use super::super::tools::free_port;
use super::Browser;

/// Runs before the page does; the page's own `WebSocket` then is this one.
const TAP: &str = r"
window.WebSocket = class extends WebSocket {
  constructor(url, ...how) {
    super(window.unplugged ?? url, ...how);
    window.tapped = this;
    this.addEventListener('message', (event) => window.deaf && event.stopImmediatePropagation());
  }
  send(data) {
    const kept = String(data).split('\n').filter((line) => {
      const request = line === '' ? {} : JSON.parse(line);
      if (!window.refusing || !request.send) return true;
      const reply = JSON.stringify({ id: request.id, error: window.refusing });
      setTimeout(() => this.dispatchEvent(new MessageEvent('message', { data: reply })));
      return false;
    });
    if (kept.length > 0) super.send(kept.join('\n'));
  }
};";

impl Browser {
    /// Puts the tap into every page that is loaded from now on.
    pub(crate) async fn tap(&self) -> Result<()> {
        let source = json!({ "source": TAP });
        self.devtools("Page.addScriptToEvaluateOnNewDocument", source)
            .await?;
        Ok(())
    }

    /// Takes the network from the window in use, or gives it back. DevTools does not take it from
    /// sockets: the one that is open ends here as a lost one does, and new ones find nobody.
    pub(crate) async fn plugged(&self, plugged: bool) -> Result<()> {
        if plugged {
            // Before the browser says so: the page tries at once when it hears that.
            self.script("window.unplugged = undefined").await?;
            return self.offline(false).await;
        }
        self.offline(true).await?;
        let script = format!(
            "window.unplugged = 'ws://127.0.0.1:{}/ws'; \
             window.tapped.dispatchEvent(new CloseEvent('close', {{ code: 1006 }}))",
            free_port()?
        );
        self.script(&script).await?;
        Ok(())
    }

    /// Says this to the page, as if its node did.
    pub(crate) async fn told(&self, push: &Value) -> Result<()> {
        let data = serde_json::to_string(&push.to_string())?;
        let script = format!(
            "if (window.tapped?.readyState !== 1) return false; \
             window.tapped.dispatchEvent(new MessageEvent('message', {{ data: {data} }})); \
             return true"
        );
        ensure!(self.script(&script).await? == true, "no tapped socket");
        Ok(())
    }

    /// Keeps from the page whatever its node says, until the page is on another: replies that a
    /// dying node did not get out.
    pub(crate) async fn deafen(&self) -> Result<()> {
        let script = "window.tapped.addEventListener('close', () => { window.deaf = false; }); \
                      window.deaf = true";
        self.script(script).await?;
        Ok(())
    }

    /// Refuses what the page sends with this error from now on; `null` ends that.
    pub(crate) async fn refuse(&self, error: &Value) -> Result<()> {
        self.script(&format!("window.refusing = {error}")).await?;
        Ok(())
    }
}
