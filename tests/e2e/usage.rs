//! Configuration that cannot work: every flag and variable of both programs, refused at the start.

use crate::harness::process::{Ended, Launch};
use crate::harness::{Outcome, PATIENCE};

/// An address of a network that is nobody's: for documents.
const FAR: &str = "192.0.2.1";

/// Program, flag, and values that it cannot have. `--http` comes first: the others are tried on a
/// port that is taken.
#[expect(clippy::too_many_lines, reason = "a table")]
fn table() -> Vec<(&'static str, &'static str, Vec<String>)> {
    let far_registry = format!("http://{FAR}:7171");
    let both = format!("http://127.0.0.1:7171,{far_registry}");
    let far_peer = format!("tcp://{FAR}:5000");
    let unresolved = "http://no.such.host.invalid:7171";
    let rows: &[(&str, &str, &[&str])] = &[
        (
            "chatnode",
            "--http",
            &["", "nowhere", "70000", "1.2.3.4", "host:80", "192.0.2.9:0"],
        ),
        (
            "chatnode",
            "--pub",
            &["", "x", "70000", "0.0.0.0:0", "10.0.0.1"],
        ),
        (
            "chatnode",
            "--registry",
            &[
                "",
                "127.0.0.1:7171",
                "ftp://127.0.0.1:1",
                "https://127.0.0.1:7171",
                "http://127.0.0.1:0",
                "http://127.0.0.1:70000",
                "http://0.0.0.0:7171",
                "http://u:p@127.0.0.1:7171",
                "http://127.0.0.1:7171/v1",
                "none,http://127.0.0.1:7171",
                "http://127.0.0.1:7171,",
                &far_registry,
                &both,
                unresolved,
            ],
        ),
        (
            "chatnode",
            "--mesh",
            &["", "a b", "a.b", "*", &"x".repeat(33)],
        ),
        (
            "chatnode",
            "--peer",
            &[
                "",
                "5000",
                "ipc:///tmp/x",
                "http://127.0.0.1:1",
                "tcp://127.0.0.1:0",
                &far_peer,
            ],
        ),
        (
            "chatnode",
            "--sub",
            &["", "0", "70000", "ipc:///tmp/x", &far_peer],
        ),
        (
            "chatnode",
            "--advertise",
            &[
                "",
                "a b",
                "a:80",
                "http://a",
                "0.0.0.0",
                "[::]",
                "224.0.0.1",
            ],
        ),
        ("chatnode", "--www", &["", "/no/such/folder", "/dev/null"]),
        (
            "chatnode",
            "--name",
            &["", "a\u{200B}b", " a", &"x".repeat(33)],
        ),
        ("chatnode", "--data", &["/dev/null"]),
        (
            "chatnode",
            "--data-messages",
            &["", "-1", "5", "many", "5000"],
        ),
        (
            "chatnode",
            "--data-bytes",
            &["", "-1", "5", "1e9", "99999999"],
        ),
        (
            "chatnode",
            "--data-days",
            &["", "-1", "soon", "4294967296", "7"],
        ),
        ("chatnode", "--rate-limit", &["", "-1", "1.5", "4294967296"]),
        ("chatnode", "--retain-messages", &["", "-1", "0", "999"]),
        ("chatnode", "--retain-bytes", &["", "-1", "0", "1048575"]),
        (
            "chatnode",
            "--allow-origin",
            &["", "evil", "http://a/b", "http://u@a", "null"],
        ),
        ("chatnode", "--log", &["", "xml"]),
        (
            "registry",
            "--http",
            &["", "nowhere", "70000", "1.2.3.4", "host:80", "192.0.2.9:0"],
        ),
        ("registry", "--lease", &["", "0", "61", "-1", "6.5", "soon"]),
        ("registry", "--log", &["", "xml"]),
    ];
    let owned = |values: &[&str]| values.iter().map(|&value| value.to_owned()).collect();
    rows.iter()
        .map(|(program, flag, values)| (*program, *flag, owned(values)))
        .collect()
}

fn refused(what: &str, ended: &Ended, named: &[&str]) {
    assert_eq!(ended.code, Some(2), "{what}: {ended:?}");
    assert_eq!(ended.stdout, "", "{what}");
    let lines = ended.stderr.trim_end().lines().count();
    assert_eq!(lines, 1, "{what}: {ended:?}");
    for name in named {
        assert!(
            ended.stderr.contains(name),
            "{what}: {name} is not in {ended:?}"
        );
    }
    for bad in ["panic", "in use"] {
        assert!(!ended.stderr.contains(bad), "{what}: {ended:?}");
    }
}

/// Goal: a value that cannot work ends the program with 2 and one line that names flag and variable,
/// before any port is bound. Method: each bad value of each flag, given by the flag and by the
/// variable, beside a port that is taken: a program that bound first would complain about that.
#[tokio::test]
async fn every_bad_value_is_refused_by_flag_and_by_variable() -> Outcome {
    let held = std::net::TcpListener::bind("127.0.0.1:0")?;
    let port = held.local_addr()?.port().to_string();
    for (program, flag, values) in table() {
        let variable = format!("{program}_{}", flag.trim_start_matches('-'))
            .to_uppercase()
            .replace('-', "_");
        let beside = ["--http", &port];
        let beside: &[&str] = if flag == "--http" { &[] } else { &beside };
        for value in &values {
            let given = format!("{flag}={value}");
            let args = beside.iter().copied().chain([&*given]);
            let ended = Launch::new(program, args).to_end(PATIENCE).await?;
            let named: &[&str] = &[flag, &variable];
            refused(&format!("{program} {given:?}"), &ended, named);
            let mut launch = Launch::new(program, beside.iter().copied());
            launch.variables.push((variable.clone(), value.clone()));
            let ended = launch.to_end(PATIENCE).await?;
            refused(&format!("{variable}={value:?} {program}"), &ended, named);
        }
    }
    Ok(())
}

/// Goal: what people write for yes and no is understood, anything else is refused, and so is a
/// `RUST_LOG` that cannot be read. Method: with a port that is taken: the complaint is about the port
/// where the variable was understood.
#[tokio::test]
async fn yes_and_no_are_understood_and_a_bad_log_filter_is_not() -> Outcome {
    let held = std::net::TcpListener::bind("127.0.0.1:0")?;
    let port = held.local_addr()?.port().to_string();
    let with = async |program, name: &str, value: &str| {
        let mut launch = Launch::new(program, ["--http", &port]);
        launch.variables.push((name.to_owned(), value.to_owned()));
        launch.to_end(PATIENCE).await
    };
    let flag = "CHATNODE_INSECURE_MESH";
    for value in ["1", "true", "yes", "on", "TRUE", "0", "false", "no", "off"] {
        let ended = with("chatnode", flag, value).await?;
        assert_eq!(ended.code, Some(2), "{value}: {ended:?}");
        assert!(ended.stderr.contains("in use"), "{value}: {ended:?}");
    }
    for value in ["", "2", "perhaps"] {
        let ended = with("chatnode", flag, value).await?;
        refused(value, &ended, &["--insecure-mesh", flag]);
    }
    for program in ["chatnode", "registry"] {
        for value in ["chatnode=loud", "a=b=c"] {
            let ended = with(program, "RUST_LOG", value).await?;
            refused(value, &ended, &["RUST_LOG", "info"]);
        }
    }
    Ok(())
}

/// Goal: a node that would tell other machines an address on loopback does not start, and its one
/// line has the ways out. Method: the commands that people type, towards an address of nobody.
#[tokio::test]
async fn a_node_that_would_split_the_mesh_does_not_start() -> Outcome {
    let registry = format!("http://{FAR}:7171");
    let peer = format!("tcp://{FAR}:5000");
    let near = "http://127.0.0.1:7171";
    let open = "0.0.0.0:0";
    let cases: &[(&[&str], &[&str])] = &[
        (
            &["--http", open, "--registry", &registry],
            &["--insecure-mesh"],
        ),
        (
            &["--http", open, "--registry", near, "--registry", &registry],
            &[FAR, "--insecure-mesh"],
        ),
        (
            &["--http", open, "--registry", "none", "--peer", &peer],
            &["--peer", "--insecure-mesh"],
        ),
        (
            &[
                "--http",
                open,
                "--registry",
                &registry,
                "--advertise",
                "192.0.2.7",
            ],
            &["--insecure-mesh"],
        ),
        (
            &[
                "--http",
                "127.0.0.1:0",
                "--registry",
                &registry,
                "--insecure-mesh",
            ],
            &["--http", "0.0.0.0"],
        ),
        (
            &[
                "--http",
                open,
                "--registry",
                &registry,
                "--insecure-mesh",
                "--advertise",
                "127.0.0.1",
            ],
            &["--advertise"],
        ),
    ];
    for (args, ways_out) in cases {
        let ended = Launch::new("chatnode", args.iter().copied())
            .to_end(PATIENCE)
            .await?;
        refused(&format!("{args:?}"), &ended, ways_out);
    }
    Ok(())
}
