//! The built program as its users meet it: ready line, exit codes, signals.

#![expect(
    clippy::unwrap_used,
    reason = "a test's helpers fail like the test itself"
)]

use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use registry::client::{Client, Listed};
use rustix::process::{Pid, Signal, kill_process};

/// A child that does not outlive its test.
struct Program(Child);

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Program {
    fn start(args: &[&str]) -> (Self, serde_json::Value) {
        let mut child = command(args).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap())
            .read_line(&mut line)
            .unwrap();
        (Self(child), serde_json::from_str(&line).unwrap())
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.0), signal).unwrap();
    }
}

fn command(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_registry"));
    for variable in [
        "REGISTRY_HTTP",
        "REGISTRY_LEASE",
        "REGISTRY_LOG",
        "RUST_LOG",
    ] {
        command.env_remove(variable);
    }
    command.args(args);
    command
}

/// A run that ends by itself.
fn output(args: &[&str], variable: Option<(&str, &str)>) -> Output {
    command(args).envs(variable).output().unwrap()
}

#[test]
fn the_ready_line_is_one_json_object_with_the_real_address() {
    let (mut program, ready) = Program::start(&["--http", "0"]);
    assert_eq!(ready["ready"], "registry");
    let url = ready["http"].as_str().unwrap();
    assert!(
        url.starts_with("http://127.0.0.1:") && !url.ends_with(":0"),
        "{url}"
    );
    program.signal(Signal::TERM);
    assert_eq!(program.0.wait().unwrap().code(), Some(0));
    let mut rest = String::new();
    program
        .0
        .stdout
        .take()
        .unwrap()
        .read_to_string(&mut rest)
        .unwrap();
    assert_eq!(rest, "", "nothing else on stdout");
}

#[test]
fn bad_usage_and_a_taken_port_exit_2_with_one_line() {
    let (_holder, ready) = Program::start(&["--http", "0"]);
    let taken = ready["http"]
        .as_str()
        .unwrap()
        .trim_start_matches("http://")
        .to_owned();
    for (args, variable, says) in [
        (&["--lease", "0"][..], None, "1 to 60"),
        (&["--http", "1.2.3.4"], None, "port is missing"),
        (&["--no-such-flag"], None, "--help"),
        (&["--log", "xml"], None, "text, json"),
        (&[], Some(("REGISTRY_LEASE", "61")), "REGISTRY_LEASE"),
        (&["--http", &taken], None, "--http"),
    ] {
        let output = output(args, variable);
        let stderr = String::from_utf8(output.stderr).unwrap();
        let said: Vec<_> = stderr
            .lines()
            .filter(|line| line.starts_with("registry: "))
            .collect();
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert!(
            said.len() == 1 && said[0].contains(says),
            "{args:?}: {stderr}"
        );
        assert_eq!(stderr.lines().count(), 1, "{stderr}");
        assert!(output.stdout.is_empty());
    }
    let help = output(&["--help"], None);
    assert_eq!(help.status.code(), Some(0));
    assert!(
        String::from_utf8(help.stdout)
            .unwrap()
            .contains("REGISTRY_HTTP")
    );
}

#[tokio::test]
async fn a_signal_ends_parked_polls_and_the_program_and_frees_the_port() {
    for signal in [Signal::TERM, Signal::INT] {
        let (mut program, ready) = Program::start(&["--http", "0"]);
        let url = ready["http"].as_str().unwrap();
        let client = Client::new(url).unwrap();
        let Listed::Changed(listing) = client.list(None, None).await.unwrap() else {
            panic!("no list")
        };
        let poll = client.list(Some(&listing.token), Some(Duration::from_secs(50)));
        let stop = async {
            // The poll's request is on its way first; whether it is parked yet does not matter.
            client.list(None, None).await.unwrap();
            program.signal(signal);
        };
        let (poll, ()) = tokio::join!(poll, stop);
        assert!(matches!(poll, Ok(Listed::Unchanged) | Err(_)), "{poll:?}");
        assert_eq!(program.0.wait().unwrap().code(), Some(0));
        let (_again, _) = Program::start(&["--http", url.trim_start_matches("http://")]);
        let gone = client
            .list(Some(&listing.token), Some(Duration::from_secs(50)))
            .await
            .unwrap();
        let Listed::Changed(again) = gone else {
            panic!("a foreign token must not wait")
        };
        assert_ne!(again.epoch, listing.epoch);
    }
}

#[tokio::test]
async fn a_stopped_registry_drops_nobody_when_it_goes_on() {
    let (program, ready) = Program::start(&["--http", "0", "--lease", "1"]);
    let client = Client::new(ready["http"].as_str().unwrap()).unwrap();
    let said = registry::api::Registration {
        name: "ada".to_owned(),
        endpoints: [("pub".to_owned(), "tcp://127.0.0.1:9".to_owned())].into(),
        meta: Default::default(),
    };
    client.put("a", &said).await.unwrap();
    program.signal(Signal::STOP);
    // Longer than the lease; nothing can be observed of a stopped process but time.
    tokio::time::sleep(Duration::from_millis(1500)).await;
    program.signal(Signal::CONT);
    let Listed::Changed(listing) = client.list(None, None).await.unwrap() else {
        panic!("no list")
    };
    assert_eq!(
        listing.nodes.len(),
        1,
        "its time stood still for the lease too"
    );
    let wait = Some(Duration::from_secs(10));
    let Listed::Changed(after) = client.list(Some(&listing.token), wait).await.unwrap() else {
        panic!("a silent node must go")
    };
    assert!(after.nodes.is_empty());
}
