//! Who comes in through a load balancer, and who does not.

use crate::harness::balancer::{Balancer, Make, SILENCE};
use crate::harness::process::workspace;
use crate::harness::raw::Raw;
use crate::harness::tools::free_port;
use crate::harness::{Cluster, Node, Outcome, PATIENCE};

/// How one may try to get under `/mesh/` past rules on paths.
const SPELLINGS: [&str; 7] = [
    "/mesh/",
    "//mesh/",
    "/mesh//",
    "/%6desh/",
    "/x/../mesh/",
    "/mesh%2f",
    "/./mesh/",
];

/// Goal: through HAProxy nobody reaches what is for nodes only, and pages of strangers no node.
/// Method: `keeps_out`.
#[tokio::test]
async fn strangers_stay_out_behind_haproxy() -> Outcome {
    keeps_out(Make::HaProxy).await
}

/// Goal: through nginx nobody reaches what is for nodes only, and pages of strangers no node.
/// Method: `keeps_out`.
#[tokio::test]
async fn strangers_stay_out_behind_nginx() -> Outcome {
    keeps_out(Make::Nginx).await
}

/// The nodes behind the balancer let whoever reaches them into the mesh (`--insecure-mesh`), and
/// know the balancer's name by `--allow-origin`. What PROTOCOL.md calls internal is asked for in
/// many spellings, and handshakes come under right and wrong names.
async fn keeps_out(make: Make) -> Outcome {
    let port = free_port()?;
    let own = format!("http://127.0.0.1:{port}");
    let flags = [
        "--insecure-mesh",
        "--allow-origin",
        "https://chat.example.org",
        "--allow-origin",
        &own,
    ];
    let cluster = Cluster::with(2, &flags).await?;
    let balancer = Balancer::with(make, &cluster.nodes, port, SILENCE).await?;
    let address = balancer.http.trim_start_matches("http://");
    let node = &cluster.nodes[0];
    nobody_asks_what_nodes_ask(address, node).await?;
    for page in [
        "/mesh",
        "/mesh/main.js",
        "/",
        "/main.js",
        "/api/mesh",
        "/readyz",
    ] {
        assert_eq!(asked(address, "GET", page, "").await?, 200, "GET {page}");
    }

    let by_name = "Host: chat.example.org\r\nOrigin: https://chat.example.org\r\n";
    let by_number = format!("Host: {address}\r\nOrigin: {own}\r\n");
    let of_a_stranger = format!("Host: {address}\r\nOrigin: https://evil.example\r\n");
    let no_browser = format!("Host: {address}\r\n");
    let unknown = "Host: evil.example\r\n";
    for (names, status) in [
        (by_name, 101),
        (&by_number, 101),
        (&no_browser, 101),
        (&of_a_stranger, 403),
        (unknown, 421),
    ] {
        for path in ["/ws", "/"] {
            let answer = asked(address, "GET", path, &upgrade(names)).await?;
            assert_eq!(answer, status, "{path} {names}");
        }
    }
    let untold = Cluster::start(1).await?;
    let balancer = Balancer::start(make, &untold.nodes).await?;
    let address = balancer.http.trim_start_matches("http://");
    let by_number = format!("Host: {address}\r\nOrigin: {}\r\n", balancer.http);
    for (names, status) in [(by_name, 421), (&by_number, 403)] {
        let answer = asked(address, "GET", "/ws", &upgrade(names)).await?;
        assert_eq!(answer, status, "without --allow-origin: {names}");
    }
    Ok(())
}

/// What is there at the node does not come through, however it is spelled; what PROTOCOL.md
/// names ends at the balancer.
async fn nobody_asks_what_nodes_ask(address: &str, node: &Node) -> Outcome {
    let log = format!("log/{}?after=0&through=1", node.origin);
    for internal in ["members", &log] {
        let direct = node.get(&format!("/mesh/{internal}")).await?;
        assert_eq!(direct.status(), 200, "/mesh/{internal} is there");
    }
    let protocol = std::fs::read_to_string(workspace().join("PROTOCOL.md"))?;
    let named = protocol.split("/mesh/").skip(1).filter_map(|rest| {
        let end = rest.find(|it: char| !it.is_ascii_alphanumeric())?;
        rest.get(..end).filter(|word| !word.is_empty())
    });
    let named: Vec<_> = named.collect();
    assert!(named.len() >= 3, "{named:?}");
    for method in ["GET", "POST"] {
        for internal in &named {
            let answer = asked(address, method, &format!("/mesh/{internal}"), "").await?;
            assert_eq!(answer, 403, "{method} /mesh/{internal}");
        }
        for internal in [
            "members",
            "members?",
            "members/",
            "hello",
            "hello/x.js",
            &log,
            "",
        ] {
            for mesh in SPELLINGS {
                let path = format!("{mesh}{internal}");
                let encoded = path.replace("mem", "%6Dem").replace("hel", "%68el");
                for path in [path, encoded] {
                    let answer = asked(address, method, &path, "").await?;
                    let refused = (400..500).contains(&answer);
                    assert!(refused, "{method} {path} is answered with {answer}");
                }
            }
        }
    }
    Ok(())
}

fn upgrade(names: &str) -> String {
    format!(
        "{names}Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    )
}

/// The status of the answer to a request with these lines in its head.
async fn asked(address: &str, method: &str, path: &str, head: &str) -> anyhow::Result<u16> {
    let host = if head.is_empty() {
        "Host: localhost\r\n"
    } else {
        ""
    };
    let request = format!("{method} {path} HTTP/1.1\r\n{host}{head}\r\n");
    Ok(Raw::ask(address, request.as_bytes(), PATIENCE)
        .await?
        .status)
}
