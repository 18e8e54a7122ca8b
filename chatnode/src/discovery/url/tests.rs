//! URLs of sources, good ones and bad ones.

use super::*;

fn parsed(text: &str) -> DiscoverUrl {
    text.parse().unwrap_or_else(|why| panic!("{text}: {why}"))
}

#[test]
fn each_kind_of_url_is_understood_and_shown_without_secrets() {
    for (text, shown) in [
        ("dns+chat:8080", "dns+chat:8080"),
        (
            "dns+chat.ns.svc.cluster.local.:8080",
            "dns+chat.ns.svc.cluster.local.:8080",
        ),
        ("dns+10.0.0.5:8080", "dns+10.0.0.5:8080"),
        (
            "dns+chat:8080?server=10.0.0.1",
            "dns+chat:8080?server=10.0.0.1:53",
        ),
        (
            "dnssrv+_http._tcp.chat.ns.svc",
            "dnssrv+_http._tcp.chat.ns.svc",
        ),
        (
            "dnssrv+_http._tcp.chat?server=[::1]:5353",
            "dnssrv+_http._tcp.chat?server=[::1]:5353",
        ),
        ("consul://127.0.0.1/chat", "consul://127.0.0.1:8500/chat"),
        (
            "consul+https://s3cret@c:8501/chat",
            "consul+https://c:8501/chat",
        ),
        ("etcd://a,b:1234/chat/", "etcd://a:2379,b:1234/chat/"),
        (
            "etcd+https://root:s3c%40ret@a/x//y",
            "etcd+https://a:2379/x//y",
        ),
    ] {
        let url = parsed(text);
        assert_eq!(url.shown(), shown);
        assert!(!format!("{url:?} {url}").contains("s3c"), "{url:?}");
    }
    let DiscoverUrl::Etcd(keys) = parsed("etcd+https://root:s3c%40r%2Bet+@a/x//y/") else {
        panic!()
    };
    assert_eq!(
        keys.login,
        Some(("root".to_owned(), "s3c@r+et+".to_owned()))
    );
    assert_eq!((keys.prefix.as_str(), keys.servers.tls), ("x//y", true));
    let DiscoverUrl::Consul(service) = parsed("consul://s3cret@c/chat") else {
        panic!()
    };
    assert_eq!(service.token.as_deref(), Some("s3cret"));
}

#[test]
fn a_bad_url_is_refused_with_what_is_expected_and_no_secret() {
    for (text, word) in [
        ("", "dns+"),
        ("chat:8080", "dns+"),
        ("http://127.0.0.1:7171", "registry+http"),
        ("zk://a/b", "etcd://"),
        ("dns+chat", "HOST:PORT"),
        ("dns+chat:0", "HOST:PORT"),
        ("dns+chat:http", "HOST:PORT"),
        ("dns+//chat:80", "HOST:PORT"),
        ("dns+chat:80?port=1", "server=IP:PORT"),
        ("dns+chat:80?server=name", "server=IP:PORT"),
        ("dnssrv+_http._tcp.chat:80", "_tcp.HOST"),
        ("dnssrv+", "_tcp.HOST"),
        ("consul://127.0.0.1", "NAME"),
        ("consul://127.0.0.1/", "NAME"),
        ("consul://127.0.0.1/a/b", "NAME"),
        ("consul://a,b/chat", "one agent"),
        ("consul://s3cret:more@a/chat", "TOKEN@"),
        ("consul://s3c%0Aret@a/chat", "token"),
        ("consul://a/chat?token=s3cret", "'?'"),
        ("etcd://127.0.0.1", "PREFIX"),
        ("etcd://127.0.0.1/", "PREFIX"),
        ("etcd://s3cret@a/chat", "USER:PASSWORD@"),
        ("etcd://a:0/chat", "port"),
        ("etcd://a/ch at", "space"),
        ("etcd:///chat", "host"),
    ] {
        let why = text.parse::<DiscoverUrl>().unwrap_err().to_string();
        assert!(why.contains(word), "{text}: {why}");
        assert!(!why.contains("s3c") && !why.contains('\n'), "{text}: {why}");
    }
}
