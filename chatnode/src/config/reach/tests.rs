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
        ("--insecure-mesh", "127.0.0.1"),
        ("--http [::1]:0", "[::1]"),
        // An open mesh tells where it is.
        (
            &*format!("{far} --registry http://192.0.2.1:7171"),
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

#[tokio::test]
async fn the_way_to_this_machine_is_from_here() {
    let here = SocketAddr::from(([127, 0, 0, 1], 7171));
    assert_eq!(local_address_towards(here).await, Some(here.ip()));
}
