//! What a good process does.

use super::usage::one_line;
use super::*;

#[test]
fn a_listen_address_is_a_port_or_an_address_and_a_port() {
    for (text, addr) in [
        ("0", "127.0.0.1:0"),
        ("7171", "127.0.0.1:7171"),
        ("0.0.0.0:80", "0.0.0.0:80"),
        ("[::1]:0", "[::1]:0"),
        ("localhost:9", "127.0.0.1:9"),
    ] {
        let parsed: ListenAddr = text.parse().unwrap();
        assert_eq!(parsed.to_string(), addr);
        assert_eq!(parsed.socket_addr(), addr.parse().unwrap());
    }
    for bad in [
        "",
        "x",
        "65536",
        "-1",
        "127.0.0.1",
        "::1",
        "[::1]",
        "host:80",
        ":80",
        "1.2.3.4:",
    ] {
        assert!(bad.parse::<ListenAddr>().is_err(), "{bad:?}");
    }
    let no_port = "10.0.0.1".parse::<ListenAddr>().unwrap_err();
    assert!(
        no_port.contains("port is missing") && no_port.contains("10.0.0.1:"),
        "{no_port}"
    );
}

#[tokio::test]
async fn a_stop_ends_well_behaved_tasks() {
    let tasks = Tasks::new();
    for _ in 0..3 {
        let stopping = tasks.stopping();
        tasks.spawn(async move { stopping.cancelled().await });
    }
    let stopping = tasks.stopping();
    tasks.spawn_critical("listener", async move {
        stopping.cancelled().await;
        Ok(())
    });
    assert_eq!(tasks.drain(Duration::from_secs(5)).await, 0);
    assert!(!tasks.failed());
}

#[tokio::test(start_paused = true)]
async fn a_drain_counts_what_is_left_after_its_grace() {
    let tasks = Tasks::new();
    tasks.spawn(std::future::pending());
    tasks.spawn(async {});
    assert_eq!(tasks.drain(Duration::from_secs(5)).await, 1);
}

#[tokio::test]
async fn a_critical_task_that_ends_early_fails_or_panics_stops_all() {
    type Ending = fn() -> anyhow::Result<()>;
    let endings: [Ending; 3] = [
        || Ok(()),
        || Err(anyhow::anyhow!("broken")),
        || panic!("expected in this test"),
    ];
    for ending in endings {
        let tasks = Tasks::new();
        tasks.spawn_critical("heart", async move { ending() });
        tasks.stopping().cancelled().await;
        assert!(tasks.failed());
    }
}

#[test]
fn usage_errors_are_one_line_with_flag_variable_and_remedy() {
    use clap::Parser as _;
    /// One lease.
    #[derive(Debug, clap::Parser)]
    #[command(name = "registry")]
    struct Config {
        #[arg(long, env = "REGISTRY_HTTP")]
        http: Option<std::net::SocketAddr>,
        #[arg(long, env = "REGISTRY_LEASE", value_parser = lease)]
        lease: Option<u64>,
        #[arg(long, value_enum)]
        log: Option<LogFormat>,
    }
    fn lease(text: &str) -> Result<u64, String> {
        let seconds = text.parse().ok().filter(|it| (1..=60).contains(it));
        seconds.ok_or_else(|| "a lease is 1 to 60 whole seconds".to_owned())
    }
    for args in [
        &["registry", "--lease", "0"][..],
        &["registry", "--http", "127.0.0.1"],
        &["registry", "--log", "xml"],
        &["registry", "--lese", "6"],
        &["registry", "stray"],
        &["registry", "--http"],
    ] {
        let error = Config::try_parse_from(args).unwrap_err();
        let line = one_line::<Config>(&error);
        assert!(
            !line.contains('\n') && line.ends_with("; see registry --help"),
            "{line}"
        );
    }
    let error = Config::try_parse_from(["registry", "--lease", "0"]).unwrap_err();
    let line = one_line::<Config>(&error);
    assert!(
        line.contains("REGISTRY_LEASE") && line.contains("1 to 60"),
        "{line}"
    );
}

#[test]
fn the_limit_of_open_files_is_the_hard_one() {
    let hard = rustix::process::getrlimit(rustix::process::Resource::Nofile).maximum;
    assert_eq!(raise_open_files_limit(), hard.unwrap_or(u64::MAX));
}
