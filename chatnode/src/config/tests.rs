//! What is refused, and what is not.

use super::*;
use clap::Parser as _;

fn config(args: &[&str]) -> Result<Config, String> {
    Config::try_parse_from(std::iter::once(&"chatnode").chain(args)).map_err(|why| why.to_string())
}

fn check(args: &[&str]) -> Result<Checked, String> {
    config(args)?.check().map_err(|why| why.to_string())
}

#[test]
fn the_defaults_are_loopback_and_the_local_registry() {
    let checked = check(&[]).unwrap();
    assert!(checked.http.ip().is_loopback() && checked.publisher.ip().is_loopback());
    let registries: Vec<_> = checked.registries.iter().map(ToString::to_string).collect();
    assert_eq!(registries, ["http://127.0.0.1:7171"]);
    assert!(config(&[]).unwrap().mesh.is_default());
}

#[test]
fn the_advertised_host_stands_as_in_a_url() {
    for (given, told) in [
        ("Chat.Example.", "chat.example"),
        ("10.0.0.7", "10.0.0.7"),
        ("2001:DB8::1", "[2001:db8::1]"),
        ("[2001:db8::1]", "[2001:db8::1]"),
    ] {
        let checked = check(&["--advertise", given]).unwrap();
        assert_eq!(
            checked.advertise.map(|host| host.to_string()).as_deref(),
            Some(told)
        );
    }
    let mapped = check(&["--http", "[::ffff:127.0.0.1]:0"]).unwrap();
    assert_eq!(mapped.http, "127.0.0.1:0".parse().unwrap());
}

#[test]
fn static_mode_takes_bare_ports() {
    let args = [
        "--http", "8080", "--pub", "5000", "--sub", "5001", "--sub", "5002",
    ];
    let checked = check(&args).unwrap();
    assert_eq!(checked.publisher, "127.0.0.1:5000".parse().unwrap());
    let subs: Vec<_> = checked.subs.iter().map(ToString::to_string).collect();
    assert_eq!(subs, ["tcp://127.0.0.1:5001", "tcp://127.0.0.1:5002"]);
    assert!(checked.registries.is_empty());
}

#[test]
fn what_cannot_work_is_refused_with_one_line() {
    for (args, word) in [
        (&["--data-messages", "5000"][..], "--data DIR"),
        (&["--data", "x", "--data-messages", "5"], "--data-messages"),
        (&["--data", "x", "--data-bytes", "5"], "--data-bytes"),
        (&["--pub", "0.0.0.0:5000"], "--insecure-mesh"),
        (&["--registry", "none", "--registry", "http://a"], "none"),
        (&["--registry", "ftp://a"], "--registry"),
        (
            &["--registry", "https://127.0.0.1:7171"],
            "http://HOST:PORT",
        ),
        (&["--registry", "http://0.0.0.0:7171"], "--registry"),
        (&["--registry", "http://a/b"], "--registry"),
        (&["--http", "7000", "--pub", "7000"], "--pub"),
        (&["--retain-bytes", "1"], "--retain-bytes"),
        (&["--peer", "5000"], "--peer"),
        (&["--sub", "ipc:///tmp/x"], "--sub"),
        (&["--name", "a\u{200B}"], "--name"),
        (&["--retain-messages", "1"], "--retain-messages"),
        (&["--www", "/no/such/folder"], "--www"),
        (&["--allow-origin", "chat.example.com"], "--allow-origin"),
        (&["--allow-origin", "http://a/b"], "--allow-origin"),
        (&["--registry", "http://ada:secret@a"], "--registry"),
        (&["--advertise", ""], "--advertise"),
        (&["--advertise", "a b"], "--advertise"),
        (&["--advertise", "a:80"], "--advertise"),
        (&["--advertise", "http://a"], "--advertise"),
        (&["--advertise", "a/"], "--advertise"),
        (&["--advertise", "a\nb"], "--advertise"),
        (&["--advertise", "0.0.0.0"], "--advertise"),
        (&["--advertise", "[::]"], "--advertise"),
        (&["--advertise", "[::1]:80"], "--advertise"),
    ] {
        let why = check(args).unwrap_err();
        assert!(why.contains(word) && !why.contains('\n'), "{args:?}: {why}");
    }
    let open = check(&["--http", "0.0.0.0:8080"]).unwrap();
    assert!(
        open.publisher.ip().is_loopback(),
        "HTTP may be open, the mesh stays inside"
    );
}

#[test]
fn other_sources_take_the_place_of_the_default_registry_and_no_other() {
    let sources = |args: &[&str]| {
        let checked = check(args)?;
        let registries = checked.registries.iter().map(ToString::to_string);
        let others = checked.discover.iter().map(ToString::to_string);
        Ok::<Vec<String>, String>(registries.chain(others).collect())
    };
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(
        &file,
        "# ours\n\n  consul://s3cret@127.0.0.1/chat\ndns+chat:80\n",
    )
    .unwrap();
    let path = file.path().to_str().unwrap();
    let (dns, at) = (["--discover", "dns+chat:80"], "http://127.0.0.1:1");
    for (args, wanted) in [
        (&dns[..], &["dns+chat:80"][..]),
        (
            &[&dns[..], &["--registry", at]].concat(),
            &[at, "dns+chat:80"],
        ),
        (
            &[&dns[..], &["--registry", "none"]].concat(),
            &["dns+chat:80"],
        ),
        (&["--discover", "registry+http://127.0.0.1:1"], &[at]),
        (
            &["--discover-file", path],
            &["consul://127.0.0.1:8500/chat", "dns+chat:80"],
        ),
    ] {
        assert_eq!(sources(args).unwrap(), wanted, "{args:?}");
    }
    let many: Vec<String> = (1..=9)
        .map(|port| format!("--discover=dns+chat:{port}"))
        .collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    for (args, word) in [
        (
            &[&dns[..], &["--discover-file", path]].concat()[..],
            "there twice",
        ),
        (&many, "at most 8"),
        (&["--discover", "registry+tls://127.0.0.1:1"], "mesh secret"),
        (&["--discover", "registry+none"], "--discover"),
        (&["--discover", "etcd://u:s3cret@127.0.0.1"], "PREFIX"),
        (&["--discover-file", "/dev/null"], "--discover-file"),
    ] {
        let why = sources(args).unwrap_err();
        let is_line = why.contains(word) && !why.contains('\n');
        assert!(is_line && !why.contains("s3cret"), "{args:?}: {why}");
    }
}

#[test]
fn a_bridge_is_one_of_each_kind_at_a_broker_that_strangers_do_not_reach() {
    let bridges = |args: &[&str]| Ok::<_, String>(check(args)?.bridges.len());
    let (redis, amqp) = ("redis://127.0.0.1/chat_messages", "amqp://u:p@[::1]/chat");
    assert_eq!(bridges(&["--bridge", redis, "--bridge", amqp]), Ok(2));
    assert_eq!(bridges(&["--bridge", "rediss://10.0.0.1/chat"]), Ok(1));
    let far = ["--bridge", "amqp://u:secret@10.0.0.1/chat"];
    assert_eq!(bridges(&[&far[..], &["--insecure-mesh"]].concat()), Ok(1));
    for (bad, why) in [
        (
            &far[..],
            "--bridge amqp://10.0.0.1:5672/chat is not on this machine",
        ),
        (&["--bridge", redis, "--bridge", redis], "one of each kind"),
        (
            &["--bridge", "redis://127.0.0.1"],
            "expected redis://HOST[:PORT]/CHANNEL",
        ),
        (&["--bridge", "nats://127.0.0.1/chat"], "expected redis://"),
        (&["--bridge", "amqp://127.0.0.1/"], "expected redis://"),
    ] {
        let told = bridges(bad).unwrap_err();
        assert!(told.contains(why) && !told.contains("secret"), "{told}");
    }
}
