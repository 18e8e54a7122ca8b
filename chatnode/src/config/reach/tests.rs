//! What a node tells that is started with certain flags.

use clap::Parser as _;

use super::*;
use crate::config::Config;

/// What a node tells that is started with these words.
async fn told(args: &str) -> Result<(String, String), String> {
    let words = std::iter::once("chatnode").chain(args.split_whitespace());
    let config = Config::try_parse_from(words).map_err(|why| why.to_string())?;
    let checked = config.check().map_err(|why| why.to_string())?;
    let told = checked.told().await.map_err(|why| why.to_string())?;
    Ok((told.http.to_string(), told.publisher.to_string()))
}

#[tokio::test]
async fn one_address_is_told_of_http_and_publisher() {
    let far = "--insecure-mesh --http 0.0.0.0:80 --advertise 192.0.2.7";
    for (args, host) in [
        // On one machine it is loopback.
        ("", "127.0.0.1"),
        ("--http 0.0.0.0:8080", "127.0.0.1"),
        ("--registry none", "127.0.0.1"),
        (
            "--registry http://localhost:7171 --peer tcp://127.0.0.9:1",
            "127.0.0.1",
        ),
        ("--sub 5001", "127.0.0.1"),
        ("--http 0.0.0.0:80 --discover dns+localhost:80", "127.0.0.1"),
        ("--discover dns+127.0.0.7:80", "127.0.0.1"),
        // A name may have no address before the first node runs.
        ("--discover dns+no.such.host.invalid:80", "127.0.0.1"),
        (
            "--discover dnssrv+_http._tcp.x?server=127.0.0.1:9",
            "127.0.0.1",
        ),
        (
            "--http 0.0.0.0:80 --discover etcd://127.0.0.1/chat",
            "127.0.0.1",
        ),
        ("--insecure-mesh", "127.0.0.1"),
        ("--http [::1]:0", "[::1]"),
        // An open mesh tells where it is.
        (
            &*format!("{far} --registry http://192.0.2.1:7171"),
            "192.0.2.7",
        ),
        (
            &*format!("{far} --discover dns+192.0.2.1:80 --discover consul://192.0.2.1/chat"),
            "192.0.2.7",
        ),
        (
            &*format!("{far} --registry http://no.such.host.invalid:1"),
            "192.0.2.7",
        ),
        (
            "--insecure-mesh --http 0.0.0.0:80 --pub 192.0.2.8:5000",
            "192.0.2.8",
        ),
    ] {
        let both = (host.to_owned(), host.to_owned());
        assert_eq!(told(args).await, Ok(both), "{args}");
    }
}

#[tokio::test]
async fn a_name_that_nobody_knows_excuses_no_other() {
    let (unknown, far) = ("http://reg.invalid:7171", "http://192.0.2.1:7171");
    for [one, other] in [[unknown, far], [far, unknown]] {
        let args = format!("--insecure-mesh --registry {one} --registry {other}");
        let why = told(&args).await.unwrap_err();
        assert!(why.contains("192.0.2.1"), "{why}");
    }
}

/// 192.0.2.0/24 is nobody's: for documents.
#[tokio::test]
async fn what_leads_nobody_here_is_refused_with_the_way_out() {
    for (args, words) in [
        (
            "--registry http://192.0.2.1:7171",
            &["--registry", "192.0.2.1", "--insecure-mesh", "--http"][..],
        ),
        (
            "--http 0.0.0.0:8080 --registry http://192.0.2.1:7171",
            &["--registry", "--insecure-mesh"],
        ),
        (
            "--http 0.0.0.0:0 --registry http://127.0.0.1:1 --registry http://192.0.2.1:7171",
            &["192.0.2.1", "--insecure-mesh"],
        ),
        (
            "--http 0.0.0.0:0 --registry http://192.0.2.1:7171 --advertise 192.0.2.7",
            &["--insecure-mesh"],
        ),
        (
            "--registry none --peer tcp://192.0.2.1:5000",
            &["--peer", "--insecure-mesh"],
        ),
        ("--sub tcp://192.0.2.1:5000", &["--sub", "--insecure-mesh"]),
        (
            "--discover dns+192.0.2.1:80",
            &["--discover dns+192.0.2.1:80", "--insecure-mesh", "--http"],
        ),
        (
            "--discover etcd://u:s3cret@127.0.0.1,192.0.2.1/chat",
            &[
                "--discover etcd://127.0.0.1:2379,192.0.2.1:2379/chat",
                "secret",
            ],
        ),
        (
            "--http 0.0.0.0:0 --discover dns+no.such.host.invalid:80",
            &["--discover dns+no.such.host.invalid:80", "--insecure-mesh"],
        ),
        (
            "--discover consul://no.such.host.invalid/chat",
            &["--discover", "resolved", "--advertise"],
        ),
        (
            "--insecure-mesh --registry http://192.0.2.1:7171",
            &["--http", "0.0.0.0"],
        ),
        (
            "--insecure-mesh --http 0.0.0.0:80 --pub 127.0.0.1:5000 \
             --registry http://192.0.2.1:7171 --advertise 192.0.2.7",
            &["bind --pub", "0.0.0.0:5000"],
        ),
        (
            "--insecure-mesh --http 0.0.0.0:80 --registry http://192.0.2.1:7171 \
             --advertise localhost",
            &["--advertise"],
        ),
        (
            "--registry http://no.such.host.invalid:7171",
            &["--registry", "resolved", "--advertise"],
        ),
        (
            "--http 169.254.1.1:80 --insecure-mesh",
            &["--http", "link-local"],
        ),
    ] {
        let why = told(args).await.unwrap_err();
        for word in words {
            assert!(why.contains(word), "{args}: {word} is not in: {why}");
        }
        assert!(!why.contains('\n'), "{why}");
    }
}

/// A name that has no address yet tells no way: then the way out of this machine counts, if it has one.
#[tokio::test]
async fn a_name_without_an_address_yet_is_told_the_address_of_the_way_out() {
    let args = "--insecure-mesh --http 0.0.0.0:80 --discover dns+no.such.host.invalid:80";
    match told(args).await {
        Ok((http, publisher)) => {
            let ip: IpAddr = http.parse().unwrap();
            assert!(is_beyond(&ip) && http == publisher, "{http} {publisher}");
        }
        Err(why) => assert!(why.contains("--advertise"), "{why}"),
    }
}

#[tokio::test]
async fn the_way_to_this_machine_is_from_here() {
    let here = SocketAddr::from(([127, 0, 0, 1], 7171));
    assert_eq!(local_address_towards(here).await, Some(here.ip()));
}
