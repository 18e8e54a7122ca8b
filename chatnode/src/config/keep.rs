//! What keeps what is said besides: what stands in `--keep`.

use base::process::Failure;

use super::{Config, refuse};
use crate::carriers::broker::keeper::KeepUrl;

impl Config {
    /// The keeper, if there is one.
    pub(super) fn keep(&self) -> Result<Option<KeepUrl>, Failure> {
        let Some(text) = &self.keep else {
            return Ok(None);
        };
        let url = match text.parse::<KeepUrl>() {
            // What was written may hold a password, and is not said again.
            Err(why) => return refuse(format!("--keep: {why}")),
            Ok(url) => url,
        };
        let (shown, broker) = (url.shown(), url.broker());
        let is_sealed = self.mesh_secret.is_some();
        if !broker.is_here() && !broker.is_in_tls() && !is_sealed && !self.insecure_mesh {
            return refuse(format!(
                "--keep {shown} is not on this machine, and all on the way could read what is said: use \
                 --mesh-secret FILE, with which it is sealed; or reach it in TLS; or add --insecure-mesh if \
                 that network is trusted"
            ));
        }
        Ok(Some(url))
    }
}
