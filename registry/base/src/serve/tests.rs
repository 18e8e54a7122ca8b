//! The accept loop met by clients that mean no good, over real sockets.

use axum::Router;
use axum::routing::get;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::Notify;

use super::*;

const PATIENCE: Duration = Duration::from_secs(10);

fn start(router: Router, limits: Limits) -> (SocketAddr, Tasks) {
    let tasks = Tasks::new();
    let listener = listen("127.0.0.1:0".parse().unwrap()).unwrap();
    let addr = listener.local_addr().unwrap();
    tasks.spawn_critical("http", serve(listener, router, tasks.clone(), limits, None));
    (addr, tasks)
}

fn hello() -> Router {
    Router::new().route("/", get(|| async { "hello" }))
}

async fn send(stream: &mut TcpStream, bytes: impl AsRef<[u8]>) {
    stream.write_all(bytes.as_ref()).await.unwrap();
}

/// All that the server sends until it closes.
async fn rest(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    // A reset is a close too.
    let _ = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut bytes))
        .await
        .expect("no close");
    String::from_utf8_lossy(&bytes).into_owned()
}

#[tokio::test]
async fn half_a_head_nothing_at_all_and_idle_connections_are_closed() {
    let limits = Limits {
        head_timeout: Duration::from_millis(200),
        ..Limits::default()
    };
    let (addr, tasks) = start(hello(), limits);
    for head in [
        "",
        "GET / HT",
        "GET / HTTP/1.1\r\nHost: a\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    ] {
        let mut stream = TcpStream::connect(addr).await.unwrap();
        send(&mut stream, head).await;
        let answer = rest(&mut stream).await;
        assert_eq!(
            answer.contains("200 OK"),
            head.ends_with("\r\n\r\n"),
            "{head:?}: {answer}"
        );
    }
    assert_eq!(tasks.drain(PATIENCE).await, 0);
}

#[test]
fn a_head_has_ten_seconds() {
    assert_eq!(Limits::default().head_timeout, Duration::from_secs(10));
}

#[tokio::test]
async fn too_many_and_too_large_headers_are_431_and_garbage_is_400() {
    let (addr, tasks) = start(hello(), Limits::default());
    let many = "a: b\r\n".repeat(200);
    let large = format!("a: {}\r\n", "b".repeat(500_000));
    for (request, status) in [
        (format!("GET / HTTP/1.1\r\n{many}\r\n"), "431"),
        (format!("GET / HTTP/1.1\r\n{large}\r\n"), "431"),
        ("\x16\x03\x01\x02garbage\r\n\r\n".to_owned(), "400"),
        ("GET / HTTP/9.9\r\n\r\n".to_owned(), "400"),
    ] {
        let mut stream = TcpStream::connect(addr).await.unwrap();
        let (mut reader, mut writer) = stream.split();
        // The server stops reading early: the write may fail.
        let mut answer = vec![0; 12];
        let (_, read) = tokio::join!(
            writer.write_all(request.as_bytes()),
            reader.read_exact(&mut answer)
        );
        read.unwrap();
        let answer = String::from_utf8(answer).unwrap();
        assert!(answer.ends_with(status), "{answer}");
    }
    assert_eq!(tasks.drain(PATIENCE).await, 0);
}

#[tokio::test]
async fn a_stop_finishes_the_request_in_flight_and_closes_the_rest() {
    let (began, go) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let slow = {
        let (began, go) = (Arc::clone(&began), Arc::clone(&go));
        move || async move {
            began.notify_one();
            go.notified().await;
            "finished"
        }
    };
    let (addr, tasks) = start(hello().route("/slow", get(slow)), Limits::default());
    let mut idle = TcpStream::connect(addr).await.unwrap();
    send(&mut idle, "GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    idle.readable().await.unwrap();
    let mut busy = TcpStream::connect(addr).await.unwrap();
    send(&mut busy, "GET /slow HTTP/1.1\r\nHost: a\r\n\r\n").await;
    began.notified().await;
    tasks.stop();
    assert!(rest(&mut idle).await.contains("hello"));
    go.notify_one();
    assert!(rest(&mut busy).await.contains("finished"));
    assert_eq!(tasks.drain(PATIENCE).await, 0);
    assert!(!tasks.failed());
    // The port can be taken again at once.
    listen(addr).unwrap();
}

#[tokio::test]
async fn connections_beyond_the_cap_wait_for_a_place() {
    let (addr, tasks) = start(
        hello(),
        Limits {
            connections_max: 1,
            ..Limits::default()
        },
    );
    let mut first = TcpStream::connect(addr).await.unwrap();
    send(&mut first, "GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    first.readable().await.unwrap();
    let mut second = TcpStream::connect(addr).await.unwrap();
    send(
        &mut second,
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
    )
    .await;
    let early = tokio::time::timeout(Duration::from_millis(100), second.readable()).await;
    assert!(early.is_err(), "served beyond the cap");
    drop(first);
    assert!(rest(&mut second).await.contains("hello"));
    assert_eq!(tasks.drain(PATIENCE).await, 0);
}

#[tokio::test]
async fn a_service_can_take_the_very_socket_and_its_place() {
    let (sent, mut taken) = tokio::sync::mpsc::channel(1);
    let upgrade = move |request: axum::extract::Request| async move {
        let connection = request.extensions().get::<Connection>().cloned().unwrap();
        let (remote, local) = (connection.remote, connection.local);
        connection.take_over(move |stream, begun, admission| async move {
            let taken = (stream, begun, admission, remote, local);
            sent.send(taken).await.unwrap();
        });
        let headers = [("connection", "upgrade"), ("upgrade", "test")];
        (axum::http::StatusCode::SWITCHING_PROTOCOLS, headers)
    };
    let router = hello().route("/up", get(upgrade));
    let (addr, tasks) = start(
        router,
        Limits {
            connections_max: 1,
            ..Limits::default()
        },
    );
    let mut client = TcpStream::connect(addr).await.unwrap();
    send(
        &mut client,
        "GET /up HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: test\r\n\r\nmore",
    )
    .await;
    let (mut socket, begun, admission, remote, local) = taken.recv().await.unwrap();
    assert_eq!(remote, client.local_addr().unwrap());
    assert_eq!(local, addr);
    let mut came = begun.to_vec();
    while came.len() < 4 {
        socket.read_buf(&mut came).await.unwrap();
    }
    assert_eq!(came, b"more", "what came with the request is not lost");
    assert!(socket.nodelay().unwrap(), "inherited from the listener");
    let mut next = TcpStream::connect(addr).await.unwrap();
    send(
        &mut next,
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
    )
    .await;
    let early = tokio::time::timeout(Duration::from_millis(100), next.readable()).await;
    assert!(early.is_err(), "the taken socket keeps its place");
    send(&mut socket, "raw").await;
    drop((socket, admission));
    assert!(rest(&mut client).await.ends_with("raw"));
    assert!(rest(&mut next).await.contains("hello"));
    assert_eq!(tasks.drain(PATIENCE).await, 0);
}
