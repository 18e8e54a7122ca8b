//! By which names a node may be asked for, and whose pages may use it: the forms in which browsers
//! and people write the same place.

use std::net::{IpAddr, SocketAddr};

/// The name in `NAME[:PORT]`.
pub(super) fn host_name(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) && !name.ends_with(':') => {
            name
        }
        _ => host,
    }
}

/// Whether a name cannot be rebound by a name server: an address, or `localhost`.
pub(super) fn is_fixed(name: &str) -> bool {
    name.eq_ignore_ascii_case("localhost")
        || name.trim_matches(['[', ']']).parse::<IpAddr>().is_ok()
}

/// Whether a URL `http://NAME[:PORT]` is at this name.
pub(super) fn is_at(url: &str, name: &str) -> bool {
    let host = url.split_once("://").map(|(_, host)| host_name(host));
    host.is_some_and(|host| host.eq_ignore_ascii_case(name))
}

/// How a node that listens here may be asked for.
pub(super) fn own_origins(local: SocketAddr) -> [String; 2] {
    // An IPv4 client of a socket for both families, and without the scope of a link-local address.
    let local = SocketAddr::new(local.ip().to_canonical(), local.port());
    [
        format!("http://{local}"),
        format!("http://localhost:{}", local.port()),
    ]
}

/// `http://HOST[:PORT]` or `https://…` and nothing more, as browsers write an origin: in lower
/// case, without the port that the scheme has anyway.
pub(crate) fn parse_web_origin(text: &str) -> Option<String> {
    let url = reqwest::Url::parse(text).ok()?;
    let bare = matches!(url.scheme(), "http" | "https")
        && url.path() == "/"
        && url.username().is_empty()
        && url.password().is_none()
        && url.query().is_none()
        && url.fragment().is_none();
    bare.then(|| url.origin().ascii_serialization())
}

/// A browser's `Origin`, in each form in which a node or a person may have written it.
#[derive(Debug)]
pub(super) struct WebOrigin(Vec<String>);

impl WebOrigin {
    /// `None` for what is no origin of the web, `null` for one.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let origin = parse_web_origin(text)?;
        let url = reqwest::Url::parse(&origin).ok()?;
        let (scheme, port) = (url.scheme(), url.port_or_known_default()?);
        let host = url.host_str()?;
        let aliases: &[&str] = match host {
            "localhost" => &["127.0.0.1", "[::1]"],
            _ => &[],
        };
        let hosts = aliases.iter().copied().chain([host]);
        let forms = hosts.map(|host| format!("{scheme}://{host}:{port}"));
        // Without the port where it is the scheme's own, as browsers write it.
        Some(Self(forms.chain([origin.clone()]).collect()))
    }

    /// Whether this is it, in whatever form it is written.
    pub(super) fn is(&self, url: &str) -> bool {
        self.0.iter().any(|form| form.eq_ignore_ascii_case(url))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_known_in_every_form() {
        for (origin, node, same) in [
            ("http://127.0.0.1:8080", "http://127.0.0.1:8080", true),
            ("http://localhost:8080", "http://127.0.0.1:8080", true),
            ("http://localhost:8080", "http://[::1]:8080", true),
            ("http://chat.example", "http://chat.example:80", true),
            ("http://chat.example", "http://Chat.Example", true),
            ("https://chat.example", "https://chat.example:443", true),
            ("http://chat.example:80", "http://chat.example", true),
            ("http://chat.example:8080", "http://chat.example", false),
            ("https://chat.example", "http://chat.example:443", false),
            ("http://127.0.0.1:8080", "http://127.0.0.1:8081", false),
            ("http://[2001:db8:0::1]:80", "http://[2001:db8::1]:80", true),
        ] {
            let parsed = WebOrigin::parse(origin).unwrap();
            assert_eq!(parsed.is(node), same, "{origin} {node}");
        }
        for text in [
            "null",
            "",
            "file://",
            "chat.example",
            "http://a/b",
            "http://u@a",
        ] {
            assert!(WebOrigin::parse(text).is_none(), "{text}");
        }
    }

    #[test]
    fn a_socket_for_both_families_knows_its_ipv4_address() {
        let local = "[::ffff:127.0.0.1]:8080".parse().unwrap();
        let own = own_origins(local);
        assert_eq!(own, ["http://127.0.0.1:8080", "http://localhost:8080"]);
    }

    #[test]
    fn a_host_has_a_name_and_perhaps_a_port() {
        for (host, name) in [
            ("chat.example:80", "chat.example"),
            ("chat.example", "chat.example"),
            ("[::1]:80", "[::1]"),
            ("[::1]", "[::1]"),
        ] {
            assert_eq!(host_name(host), name);
        }
        assert!(is_fixed("[::1]") && is_fixed("LocalHost") && !is_fixed("evil.example"));
        assert!(is_at("http://chat.example:80", "CHAT.example"));
    }
}
