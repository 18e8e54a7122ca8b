//! By which carriers nodes meet: what stands in `--bus`, in its variable, or in its file.

use base::process::Failure;

use super::{Config, lines, refuse};
use crate::carriers::broker::url::BrokerUrl;

/// Brokers of one node.
const BROKERS_MAX: usize = 8;

/// By which carriers nodes meet.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Buses {
    /// From node to node.
    pub(crate) direct: bool,
    /// By these brokers.
    pub(crate) brokers: Vec<BrokerUrl>,
}

impl Config {
    /// By which carriers nodes meet, and which flags go with them.
    pub(super) fn buses(&self) -> Result<Buses, Failure> {
        let mut buses = Buses::default();
        for url in &self.bus {
            buses.add("--bus", url, self.mesh_secret.is_some())?;
        }
        for line in lines::of_file("--bus-file", "--bus", self.bus_file.as_deref())? {
            buses.add("--bus-file", &line, self.mesh_secret.is_some())?;
        }
        if buses == Buses::default() {
            buses.direct = true;
        }
        if buses.direct {
            return Ok(buses);
        }
        for (flag, is_given) in [
            ("--pub", self.publisher.is_some()),
            ("--peer", !self.peer.is_empty()),
            ("--sub", !self.sub.is_empty()),
        ] {
            if is_given {
                return refuse(format!(
                    "{flag} is for links without a broker: add --bus zmq, or leave {flag} out"
                ));
            }
        }
        Ok(buses)
    }
}

impl Buses {
    fn add(&mut self, flag: &str, text: &str, is_sealed: bool) -> Result<(), Failure> {
        match text {
            "zmq" => self.direct = true,
            "tls" if is_sealed => self.direct = true,
            "tls" => return refuse(format!("{flag} tls goes with --mesh-secret FILE")),
            url => match url.parse::<BrokerUrl>() {
                // What was written may hold a password, and is not said again.
                Err(why) => return refuse(format!("{flag}: {why}")),
                Ok(url) if self.brokers.iter().any(|it| it.shown() == url.shown()) => {
                    return refuse(format!("{flag} {url} is there twice"));
                }
                Ok(_) if self.brokers.len() >= BROKERS_MAX => {
                    return refuse(format!("{flag}: at most {BROKERS_MAX} brokers"));
                }
                Ok(url) => self.brokers.push(url),
            },
        }
        Ok(())
    }
}
