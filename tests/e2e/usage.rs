//! Configuration that cannot work: every flag and variable of both programs, refused at the start.

use crate::harness::process::{Ended, Launch};
use crate::harness::{Outcome, PATIENCE};

/// A flag, and values that it cannot have.
type Row = (&'static str, &'static [&'static str]);

const LISTENS: &[&str] = &["", "nowhere", "70000", "1.2.3.4", "host:80", "192.0.2.9:0"];
/// 192.0.2.0/24 is nobody's: for documents.
const REGISTRIES: &[&str] = &[
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
    "http://192.0.2.1:7171",
    "http://127.0.0.1:7171,http://192.0.2.1:7171",
    "http://no.such.host.invalid:7171",
];
const SOURCES: &[&str] = &[
    "",
    "chat:8080",
    "dns+chat",
    "dns+192.0.2.1:80",
    "dnssrv+_http._tcp.chat:80",
    "etcd://127.0.0.1",
    "consul://127.0.0.1:0/chat",
    "registry+ftp://127.0.0.1:1",
];
const PEERS: &[&str] = &[
    "",
    "5000",
    "ipc:///tmp/x",
    "http://127.0.0.1:1",
    "tcp://127.0.0.1:0",
    "tcp://192.0.2.1:5000",
];
const HOSTS: &[&str] = &[
    "",
    "a b",
    "a:80",
    "http://a",
    "0.0.0.0",
    "[::]",
    "224.0.0.1",
];
const LONG: &str = "a-name-of-thirty-three-characters";

/// Each program with its flags. All but `--http` are tried beside an `--http` that is taken.
const FLAGS: [(&str, &[Row]); 2] = [
    (
        "chatnode",
        &[
            ("--http", LISTENS),
            ("--pub", &["", "x", "70000", "0.0.0.0:0", "10.0.0.1"]),
            ("--registry", REGISTRIES),
            ("--discover", SOURCES),
            ("--discover-file", &["", "/no/such/file", "/dev/null"]),
            ("--mesh", &["", "a b", "a.b", "*", LONG]),
            ("--peer", PEERS),
            (
                "--sub",
                &["", "0", "70000", "ipc:///tmp/x", "tcp://192.0.2.1:5000"],
            ),
            ("--advertise", HOSTS),
            ("--www", &["", "/no/such/folder", "/dev/null"]),
            ("--name", &["", "a\u{200B}b", " a", LONG]),
            ("--data", &["/dev/null"]),
            ("--data-messages", &["", "-1", "5", "many", "5000"]),
            ("--data-bytes", &["", "-1", "5", "1e9", "99999999"]),
            ("--data-days", &["", "-1", "soon", "4294967296", "7"]),
            ("--rate-limit", &["", "-1", "1.5", "4294967296"]),
            ("--retain-messages", &["", "-1", "0", "999", "many"]),
            ("--retain-bytes", &["", "-1", "0", "1048575"]),
            (
                "--allow-origin",
                &["", "evil", "http://a/b", "http://u@a", "null"],
            ),
            (
                "--keep",
                &[
                    "",
                    "zmq",
                    "http://h",
                    "zmq+proxy://127.0.0.1:1,2",
                    "amqp://127.0.0.1?archive=a.b",
                    "amqp://127.0.0.1?archive=kept",
                    "nats://192.0.2.1",
                ],
            ),
            ("--insecure-mesh", &[]),
            ("--log", &["", "xml"]),
        ],
    ),
    (
        "registry",
        &[
            ("--http", LISTENS),
            ("--lease", &["", "0", "61", "-1", "6.5", "soon"]),
            ("--log", &["", "xml"]),
        ],
    ),
];

/// The variable of a flag.
fn variable(program: &str, flag: &str) -> String {
    let name = flag.trim_start_matches('-').replace('-', "_");
    format!("{program}_{name}").to_uppercase()
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
    for (program, rows) in FLAGS {
        for (flag, values) in rows {
            let variable = variable(program, flag);
            let beside: &[&str] = if *flag == "--http" {
                &[]
            } else {
                &["--http", &port]
            };
            for value in *values {
                let given = format!("{flag}={value}");
                let args = beside.iter().copied().chain([&*given]);
                let ended = Launch::new(program, args).to_end(PATIENCE).await?;
                refused(&format!("{program} {given:?}"), &ended, &[flag, &variable]);
                let launch = Launch::new(program, beside.iter().copied());
                let ended = launch.with(&variable, *value).to_end(PATIENCE).await?;
                let what = format!("{variable}={value:?} {program}");
                refused(&what, &ended, &[flag, &variable]);
            }
        }
        for (args, word) in [(["--colour"], "--help"), (["extra"], "extra")] {
            let args = ["--http", &port].into_iter().chain(args);
            let ended = Launch::new(program, args).to_end(PATIENCE).await?;
            refused(program, &ended, &[word]);
        }
    }
    for (given, remedy) in [
        ("--lease=0", "1 to 60"),
        ("--http=1.2.3.4", "port is missing"),
        ("--log=xml", "text, json"),
    ] {
        let ended = Launch::new("registry", [given]).to_end(PATIENCE).await?;
        refused(given, &ended, &[remedy]);
    }
    Ok(())
}

/// Goal: `--help` is a reference: every flag and variable of the contract, on stdout, exit 0.
#[tokio::test]
async fn help_names_every_flag_and_variable() -> Outcome {
    for (program, rows) in FLAGS {
        let help = Launch::new(program, ["--help"]).to_end(PATIENCE).await?;
        assert_eq!(help.code, Some(0));
        for name in rows
            .iter()
            .flat_map(|row| [row.0.to_owned(), variable(program, row.0)])
        {
            assert!(
                help.stdout.contains(&name),
                "{program} --help does not name {name}"
            );
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
        let launch = Launch::new(program, ["--http", &port]);
        launch.with(name, value).to_end(PATIENCE).await
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
