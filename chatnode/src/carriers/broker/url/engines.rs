//! What stands in the URLs of engines other than Redis.

use super::{InvalidUrl, Login, Parts, Place, Vhost, decoded, invalid, listed, servers};

/// Seconds after which a silent node is taken to be gone, and the most that may be said. With less than
/// five, says RabbitMQ, they are taken to be gone that are not.
const HEARTBEAT: u16 = 10;
const HEARTBEAT_MAX: u16 = 3600;
/// Longest name of a vhost.
const VHOST_LEN_MAX: usize = 127;

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

    /// Two ports of one host: where publishers come, and where subscribers do.
    pub(super) fn proxy(&self) -> Result<(Place, String), InvalidUrl> {
        let expected = "expected zmq+proxy://HOST:PORT,PORT: the port where it takes what is published \
                        (XSUB), and the one where it gives that (XPUB)";
        if self.login != Login::default() || !matches!(self.path, "" | "/") {
            return invalid(format!("a proxy has no password and no parts: {expected}"));
        }
        let [publishers, subscribers] = self.hosts[..] else {
            return invalid(expected);
        };
        let host = match publishers.rsplit_once(':') {
            Some((host, port)) if port.parse::<u16>().is_ok() => host,
            _ => return invalid(expected),
        };
        if subscribers.parse::<u16>().is_err() {
            return invalid(expected);
        }
        let both = [publishers, &format!("{host}:{subscribers}")];
        let servers = servers(&both, 0)?;
        let first = listed(&servers[..1]);
        let shown = format!("{}://{first},{}", self.form.scheme, servers[1].port);
        Ok((Place::Servers(servers), shown))
    }

    /// A part of a server.
    pub(super) fn vhost(&mut self) -> Result<(Place, String), InvalidUrl> {
        if self.hosts.len() > 1 {
            return invalid("one server; of several independent ones each has a --bus of its own");
        }
        let path = self.path.strip_prefix('/').unwrap_or_default();
        if path.contains('/') {
            return invalid("write '/' in the name of a vhost as %2f");
        }
        let name = match path {
            "" => "/".to_owned(),
            path => decoded(path)?,
        };
        if name.len() > VHOST_LEN_MAX || name.chars().any(char::is_control) {
            return invalid("no vhost is called so");
        }
        let heartbeat = match self.query.take("heartbeat") {
            None => HEARTBEAT,
            Some(text) => match text.parse() {
                Ok(seconds) if seconds <= HEARTBEAT_MAX => seconds,
                _ => return invalid(format!("heartbeat: 0 to {HEARTBEAT_MAX} seconds")),
            },
        };
        let servers = servers(&self.hosts, self.form.port)?;
        let part = if name == "/" { "" } else { &format!("/{name}") };
        let shown = format!("{}://{}{part}", self.form.scheme, listed(&servers));
        let vhost = Vhost {
            servers,
            name,
            heartbeat,
        };
        Ok((Place::Vhost(vhost), shown))
    }
}
