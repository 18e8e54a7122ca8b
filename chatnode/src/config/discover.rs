//! Where nodes find each other: registries, and what stands in `--discover`, its variable, or its file.

use base::endpoint::Endpoint;
use base::process::Failure;

use super::{Config, lines, parse, refuse};
use crate::discovery::url::DiscoverUrl;

/// Where the default registry is.
const REGISTRY_DEFAULT: &str = "http://127.0.0.1:7171";
/// And with a mesh secret.
const REGISTRY_SEALED: &str = "tls://127.0.0.1:7171";
/// What makes a registry of a URL for `--discover`.
const REGISTRY: &str = "registry+";
/// Sources of one node, beside registries.
const SOURCES_MAX: usize = 8;

impl Config {
    /// Registries, and where else nodes are found.
    pub(super) fn sources(
        &self,
        is_direct: bool,
    ) -> Result<(Vec<Endpoint>, Vec<DiscoverUrl>), Failure> {
        let of_file = lines::of_file(
            "--discover-file",
            "--discover",
            self.discover_file.as_deref(),
        )?;
        let given = self.discover.iter().map(|text| ("--discover", text));
        let given: Vec<_> = given
            .chain(of_file.iter().map(|text| ("--discover-file", text)))
            .collect();
        let mut registries = self.registries(is_direct && given.is_empty())?;
        let mut discover: Vec<DiscoverUrl> = Vec::new();
        for (flag, text) in given {
            if let Some(url) = text.strip_prefix(REGISTRY) {
                registries.push(parse::registry(flag, url, self.mesh_secret.is_some())?);
                continue;
            }
            match text.parse::<DiscoverUrl>() {
                // What was written may hold a password, and is not said again.
                Err(why) => return refuse(format!("{flag}: {why}")),
                Ok(url) if discover.iter().any(|it| it.shown() == url.shown()) => {
                    return refuse(format!("{flag} {url} is there twice"));
                }
                Ok(_) if discover.len() >= SOURCES_MAX => {
                    return refuse(format!("{flag}: at most {SOURCES_MAX} sources"));
                }
                Ok(url) => discover.push(url),
            }
        }
        Ok((registries, discover))
    }

    fn registries(&self, has_default: bool) -> Result<Vec<Endpoint>, Failure> {
        let is_sealed = self.mesh_secret.is_some();
        let parse = |url| parse::registry("--registry", url, is_sealed);
        if self.registry.is_empty() {
            let default = if is_sealed {
                REGISTRY_SEALED
            } else {
                REGISTRY_DEFAULT
            };
            let default = (self.sub.is_empty() && has_default).then_some(default);
            return default.into_iter().map(parse).collect();
        }
        if self.registry.iter().any(|url| url == "none") {
            if self.registry.len() > 1 {
                return refuse("--registry none goes with no other --registry");
            }
            return Ok(Vec::new());
        }
        self.registry.iter().map(|url| parse(url)).collect()
    }
}
