//! What stands in the URLs of engines other than Redis.

use super::{InvalidUrl, Parts, Place, invalid, listed, servers};

impl Parts<'_> {
    /// Servers that are one.
    pub(super) fn cluster(&self) -> Result<(Place, String), InvalidUrl> {
        if !matches!(self.path, "" | "/") {
            return invalid(
                "leave out what stands behind the port (--mesh NAME keeps meshes apart)",
            );
        }
        let servers = servers(&self.hosts, self.form.port)?;
        let shown = format!("{}://{}", self.form.scheme, listed(&servers));
        Ok((Place::Servers(servers), shown))
    }
}
