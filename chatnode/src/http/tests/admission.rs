//! Who may come in, and how many: probes, and a crowd that comes before the node is ready.

use super::*;

/// Sends a request as it is; the first line of the answer.
async fn status_line(f: &Fixture, request: &str) -> String {
    let mut stream = TcpStream::connect(f.addr).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    while !answer.windows(2).any(|end| end == b"\r\n") {
        let read = tokio::time::timeout(PATIENCE, stream.read_buf(&mut answer)).await;
        assert_ne!(read.expect("an answer").unwrap(), 0, "{request}");
    }
    let answer = String::from_utf8_lossy(&answer).into_owned();
    answer.lines().next().unwrap().to_owned()
}

/// Plain checks of load balancers name no host, as HTTP/1.0 has none; browsers always do, and one
/// that was led here by another name is sent away.
#[tokio::test]
async fn a_probe_names_no_host_and_a_page_of_another_site_a_wrong_one() {
    let f = Fixture::new(&PLAIN);
    for (head, status) in [
        ("GET /healthz HTTP/1.0\r\n", 200),
        ("HEAD /healthz HTTP/1.0\r\n", 200),
        ("GET /readyz HTTP/1.0\r\n", 200),
        ("GET /healthz HTTP/1.1\r\n", 200),
        ("GET /healthz HTTP/1.1\r\nHost:\r\n", 200),
        ("GET /healthz HTTP/1.0\r\nHost: localhost\r\n", 200),
        ("GET /metrics HTTP/1.1\r\n", 200),
        ("GET /api/rooms HTTP/1.1\r\n", 400),
        ("GET /api/rooms HTTP/1.0\r\n", 200),
        ("GET /metrics HTTP/1.0\r\n", 200),
        ("GET http://localhost/healthz HTTP/1.1\r\n", 200),
        ("GET http://evil.example/healthz HTTP/1.1\r\n", 421),
        ("GET /healthz HTTP/1.0\r\nHost: evil.example\r\n", 421),
        ("GET /healthz HTTP/1.1\r\nHost: evil.example\r\n", 421),
        ("GET /healthz HTTP/1.1\r\nHost: \u{e9}\r\n", 400),
        (
            "GET /healthz HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n",
            400,
        ),
    ] {
        let line = status_line(&f, &format!("{head}\r\n")).await;
        assert_eq!(
            line.split(' ').nth(1),
            Some(&*status.to_string()),
            "{head}: {line}"
        );
    }
}

/// Clients are counted from the handshake on: who comes while the node joins does not get in on top
/// of those who fill it when it is ready.
#[tokio::test]
async fn who_waits_for_the_node_to_be_ready_has_a_place_already() {
    let f = Fixture::new(&Options {
        clients_max: 3,
        ready: false,
        ..PLAIN
    });
    let answers = [f.upgrade("/ws", "").await, f.upgrade("/", "").await];
    assert!(
        answers
            .iter()
            .all(|answer| answer.starts_with("HTTP/1.1 101 "))
    );
    let stream = f.request(Method::GET, "/api/rooms/tea/events").send();
    let mut stream = std::pin::pin!(stream);
    let taken = async {
        while f.node.status().clients.stream_seats == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::select! {
        _ = &mut stream => panic!("it waits until the node is ready"),
        () = taken => {}
    }
    for path in ["/ws", "/"] {
        let answer = f.upgrade(path, "").await;
        assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    }
    let next = f.get("/api/rooms/tea/events").await;
    assert_eq!(next.headers()["retry-after"], "2");
    assert_eq!(f.get("/healthz").await.status(), 200);
    f.node.send(Input::Listed(settled()));
    let stream = stream.await.unwrap();
    assert_eq!(stream.status(), 200);
    // What is given back can be taken again.
    drop((stream, answers));
    let again = async {
        while !f.upgrade("/ws", "").await.starts_with("HTTP/1.1 101 ") {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, again)
        .await
        .expect("a place is free again");
}
