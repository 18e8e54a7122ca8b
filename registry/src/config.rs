//! The registry's configuration: a flag and a variable for each value. The text here is `--help`.

use std::path::PathBuf;
use std::time::Duration;

use base::process::{ListenAddr, LogFormat};

/// Shortest and longest lease, in seconds.
const LEASE_SECONDS: std::ops::RangeInclusive<u64> = 1..=60;

/// Keeps the list of live chat nodes and tells everyone at once when it changes.
///
/// Nodes register with PUT /v1/nodes/{id}, repeat that every third of a lease, and are dropped when
/// a lease (see --lease) passes without it. Anyone may watch with GET /v1/nodes (long poll) or GET
/// /v1/events (server-sent events). Open http://127.0.0.1:7171/ in a browser to see the nodes come
/// and go. All is held in memory: after a restart the nodes tell it again. What people say never
/// comes here.
#[derive(Debug, Clone, clap::Parser)]
#[command(name = "registry", version, after_help = AFTER_HELP)]
pub struct Config {
    /// Where to listen for HTTP: a port (on 127.0.0.1) or an IP address and a port. Port 0 takes
    /// a free one and the ready line tells which. Without --mesh-secret there is no authentication:
    /// listen beyond 127.0.0.1 only on a network where you trust every program.
    #[arg(
        long,
        env = "REGISTRY_HTTP",
        value_name = "PORT|ADDR:PORT",
        default_value = "127.0.0.1:7171"
    )]
    pub(crate) http: ListenAddr,

    /// The lease: how long a node stays listed after its last renewal, in whole seconds, 1 to 60.
    /// Nodes are told to renew every third of it. A shorter one notices a dead node sooner; a
    /// longer one bears slower networks and busier machines.
    #[arg(long, env = "REGISTRY_LEASE", value_name = "SECONDS", default_value = "6", value_parser = parse_lease)]
    pub(crate) lease: Duration,

    /// The mesh secret: with it the list is told to, and changed by, only those who have it, in TLS
    /// (URLs begin with tls://). A file of lines that `chatnode secret` prints, or `chatnode secret
    /// --registry FILE`, which makes a registry and no node; nobody but its owner may read it. The first
    /// line is presented, all are accepted; it is read again when it changes, and at SIGHUP.
    #[arg(long, env = "REGISTRY_MESH_SECRET", value_name = "FILE")]
    pub(crate) mesh_secret: Option<PathBuf>,

    /// How logs look on stderr. RUST_LOG chooses what is logged (error, warn, info, debug).
    #[arg(
        long,
        env = "REGISTRY_LOG",
        value_name = "FORMAT",
        value_enum,
        default_value = "text"
    )]
    pub(crate) log: LogFormat,
}

const AFTER_HELP: &str = "\
When it is ready it prints one line on stdout, for example
  {\"ready\":\"registry\",\"http\":\"http://127.0.0.1:7171\"}
SIGTERM, SIGINT or SIGHUP (but with --mesh-secret) ends it with exit code 0, in three seconds at the
most. Exit code 1: it broke, or something hung when it was to end; 2: bad usage, or a taken port.

Try it:
  registry &
  curl http://127.0.0.1:7171/v1/nodes
  curl -N http://127.0.0.1:7171/v1/events";

fn parse_lease(text: &str) -> Result<Duration, String> {
    match text.parse::<u64>() {
        Ok(seconds) if LEASE_SECONDS.contains(&seconds) => Ok(Duration::from_secs(seconds)),
        _ => Err("a lease is 1 to 60 whole seconds".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory as _, Parser as _};

    use super::*;

    #[test]
    fn the_defaults_are_those_of_the_contract() {
        Config::command().debug_assert();
        let config = Config::try_parse_from(["registry"]).unwrap();
        assert_eq!(config.http.to_string(), "127.0.0.1:7171");
        assert_eq!(config.lease, Duration::from_secs(6));
        assert_eq!(config.log, LogFormat::Text);
    }

    #[test]
    fn a_lease_is_one_to_sixty_seconds() {
        for bad in ["0", "61", "-1", "6.5", "six", "", "31536000000"] {
            assert!(parse_lease(bad).is_err(), "{bad:?}");
        }
        assert_eq!(parse_lease("60").unwrap(), Duration::from_secs(60));
    }
}
