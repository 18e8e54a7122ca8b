//! With which foreign programs a mesh is joined: what stands in `--bridge`.

use base::process::Failure;

use super::{Config, refuse};
use crate::carriers::broker::bridge::BridgeUrl;

impl Config {
    /// The bridges, one of each kind at the most.
    pub(super) fn bridges(&self) -> Result<Vec<BridgeUrl>, Failure> {
        let mut bridges: Vec<BridgeUrl> = Vec::new();
        for text in &self.bridge {
            let url = match text.parse::<BridgeUrl>() {
                // What was written may hold a password, and is not said again.
                Err(why) => return refuse(format!("--bridge: {why}")),
                Ok(url) => url,
            };
            let shown = url.shown();
            if bridges.iter().any(|it| it.engine() == url.engine()) {
                return refuse(format!(
                    "--bridge {shown}: one of each kind, and there is one already"
                ));
            }
            let broker = url.broker();
            if !broker.is_here() && !broker.is_in_tls() && !self.insecure_mesh {
                return refuse(format!(
                    "--bridge {shown} is not on this machine, and all on the way could read what is said, \
                     and forge it: reach it in TLS, by rediss:// or amqps://; or add --insecure-mesh if \
                     that network is trusted"
                ));
            }
            bridges.push(url);
        }
        Ok(bridges)
    }
}
