//! What only real sockets can get wrong.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::timeout;
use zeromq::RepSocket;

use super::*;
use crate::carriers::dial::DIAL_TIMEOUT;
use crate::carriers::tests::{
    DEADLINE, closed, connected, frame, heard, meet, next, number, numbered, origin, some_beat,
};
use crate::wire::frame::encode;

const A: &str = "aaaaaaaaaa";
const B: &str = "bbbbbbbbbb";

async fn bind(me: &str) -> (ZmqCarrier, String, TaskTracker) {
    bind_in("main", me).await
}

async fn bind_in(mesh: &str, me: &str) -> (ZmqCarrier, String, TaskTracker) {
    let listener = listen("127.0.0.1:0".parse().unwrap()).unwrap();
    let tasks = TaskTracker::new();
    let stop = CancellationToken::new();
    let mesh = mesh.parse().unwrap();
    let (carrier, endpoint) = ZmqCarrier::bind(listener, origin(me), &mesh, tasks.clone(), stop)
        .await
        .unwrap();
    (carrier, endpoint, tasks)
}

#[tokio::test]
async fn accepted_sockets_end_by_themselves() {
    let listener = listen("127.0.0.1:0".parse().unwrap()).unwrap();
    let client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (accepted, _) = listener.accept().unwrap();
    let accepted = socket2::SockRef::from(&accepted);
    assert_eq!(
        accepted.tcp_user_timeout().unwrap(),
        Some(Duration::from_secs(5))
    );
    assert!(accepted.keepalive().unwrap() && accepted.tcp_nodelay().unwrap());
    assert_eq!(accepted.tcp_keepalive_retries().unwrap(), 3);
    drop(client);
}

#[test]
fn a_taken_port_is_an_error() {
    let listener = listen("127.0.0.1:0".parse().unwrap()).unwrap();
    let addr = listener.local_addr().unwrap();
    assert_eq!(listen(addr).unwrap_err().kind(), io::ErrorKind::AddrInUse);
}

/// The crate drops what finds 100 000 messages before it; it must not stop, or stop us.
#[tokio::test]
async fn a_burst_of_half_a_million_neither_blocks_nor_breaks_the_link() {
    let (mut a, at, _) = bind(A).await;
    let (mut b, _, _) = bind(B).await;
    meet(&mut a, &mut b, LinkId(1), &at).await;
    for number in 1..=500_000 {
        a.publish(Topic::Live, numbered(number));
    }
    let mut last = 0;
    while last < 50_000 {
        let now = number(&frame(&mut b).await.2);
        assert!(now > last);
        last = now;
    }
    heard(&mut a, &mut b, LinkId(1), numbered(600_000)).await;
}

/// As the node does it: between its turns it waits for events.
#[tokio::test]
async fn nothing_is_lost_when_the_publisher_takes_turns() {
    let (mut a, at, _) = bind(A).await;
    let (mut b, _, _) = bind(B).await;
    meet(&mut a, &mut b, LinkId(1), &at).await;
    let publish = async {
        for number in 1..=200_000 {
            a.publish(Topic::Live, numbered(number));
            if number % 2000 == 0 {
                let _ = a.event().now_or_never_after_yield().await;
            }
        }
        a
    };
    let receive = async {
        for expected in 1..=200_000 {
            assert_eq!(number(&frame(&mut b).await.2), expected);
        }
    };
    let (_a, ()) = tokio::join!(publish, receive);
}

trait NowOrNeverAfterYield: Future + Sized {
    /// Polls once, lets everyone else run, polls again, and gives up.
    async fn now_or_never_after_yield(self) -> Option<Self::Output> {
        tokio::select! {
            biased;
            output = self => Some(output),
            () = tokio::task::yield_now() => None,
        }
    }
}

impl<T: Future> NowOrNeverAfterYield for T {}

/// The link stops reading, and what it has not read waits on the way.
#[tokio::test]
async fn a_node_that_is_late_for_its_events_loses_none() {
    let (mut a, at, _) = bind(A).await;
    let (mut b, _, _) = bind(B).await;
    meet(&mut a, &mut b, LinkId(1), &at).await;
    for number in 1..=2000 {
        a.publish(Topic::Live, numbered(number));
    }
    for expected in 1..=2000 {
        assert_eq!(
            number(&frame(&mut b).await.2),
            expected,
            "the rest waits on the way"
        );
    }
}

/// Hanging up a link whose task waits for room in the queue ends it too.
#[tokio::test]
async fn hanging_up_ends_the_task_whatever_it_does() {
    let (mut a, at, _) = bind(A).await;
    let (mut b, _, tasks) = bind(B).await;
    meet(&mut a, &mut b, LinkId(1), &at).await;
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    b.dial(
        LinkId(2),
        &format!("tcp://{}", silent.local_addr().unwrap()),
        Speech::Mesh,
    );
    for number in 1..=2000 {
        a.publish(Topic::Live, numbered(number));
    }
    assert_eq!(number(&frame(&mut b).await.2), 1);
    assert_eq!(tasks.len(), 2);
    b.hang_up(LinkId(1));
    b.hang_up(LinkId(2));
    tasks.close();
    timeout(DEADLINE, tasks.wait())
        .await
        .expect("all tasks end");
}

/// The crate would reconnect for ever; a link must not, and must leave nothing behind.
#[tokio::test]
async fn a_closed_link_does_not_connect_again() {
    let (mut b, _, tasks) = bind(B).await;
    let (mut a, at, _) = bind(A).await;
    meet(&mut a, &mut b, LinkId(1), &at).await;
    drop(a);
    closed(&mut b, LinkId(1)).await;
    tasks.close();
    timeout(DEADLINE, tasks.wait())
        .await
        .expect("the link's task ends");
    let addr: SocketAddr = at.strip_prefix("tcp://").unwrap().parse().unwrap();
    let listener = timeout(DEADLINE, async {
        loop {
            match tokio::net::TcpListener::bind(addr).await {
                Ok(listener) => return listener,
                Err(_) => tokio::task::yield_now().await,
            }
        }
    })
    .await
    .unwrap();
    // Its first attempt would come 100 ms after the end.
    let again = timeout(Duration::from_millis(400), listener.accept()).await;
    assert!(again.is_err(), "{again:?}");
}

#[tokio::test]
async fn a_port_that_is_no_publisher_closes_the_link() {
    let (mut b, _, _) = bind(B).await;
    let mut rep = RepSocket::new();
    let at = rep.bind("tcp://127.0.0.1:0").await.unwrap().to_string();
    b.dial(LinkId(1), &at, Speech::Mesh);
    assert!(closed(&mut b, LinkId(1)).await.contains("not compatible"));

    let http = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    b.dial(
        LinkId(2),
        &format!("tcp://{}", http.local_addr().unwrap()),
        Speech::Mesh,
    );
    let (mut socket, _) = http.accept().await.unwrap();
    let answer = [
        &b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\n\r\n"[..],
        &[b' '; 64],
    ];
    socket.write_all(&answer.concat()).await.unwrap();
    let reason = closed(&mut b, LinkId(2)).await;
    assert!(reason.contains("greeting"), "{reason}");

    b.dial(
        LinkId(3),
        &format!("tcp://{}", http.local_addr().unwrap()),
        Speech::Mesh,
    );
    let (mut silent, _) = http.accept().await.unwrap();
    let _ = silent.read(&mut [0; 64]).await.unwrap();
    let reason = timeout(DIAL_TIMEOUT * 2, closed(&mut b, LinkId(3)))
        .await
        .unwrap();
    assert!(reason.contains("timed out"), "{reason}");
}

#[tokio::test]
async fn a_port_where_nobody_listens_is_said_to_refuse() {
    let (mut b, _, _) = bind(B).await;
    let nobody = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = format!("tcp://{}", nobody.local_addr().unwrap());
    drop(nobody);
    for (link, speech) in [(1, Speech::Mesh), (2, Speech::Plain)] {
        b.dial(LinkId(link), &at, speech);
        match next(&mut b).await {
            CarrierEvent::Closed(LinkId(got), fault) if got == link => {
                assert_eq!(fault, Fault::refused())
            }
            other => panic!("{other:?}"),
        }
    }
}

/// A port changes hands: who is there now is told by its first beat, and nothing else of it comes.
#[tokio::test]
async fn a_node_of_another_mesh_is_known_by_its_beat() {
    for (mine, other) in [("main", "blue"), ("blue", "main"), ("blue", "blue-2")] {
        let (mut a, at, _) = bind_in(other, A).await;
        let (mut b, _, _) = bind_in(mine, B).await;
        b.dial(LinkId(1), &at, Speech::Mesh);
        connected(&mut b, LinkId(1)).await;
        let event = loop {
            a.publish(Topic::Live, numbered(1));
            a.publish(Topic::Beat, encode(&some_beat(origin(A))));
            if let Ok(event) = timeout(Duration::from_millis(5), b.event()).await {
                break event;
            }
            let _ = timeout(Duration::from_millis(1), a.event()).await;
        };
        match event {
            CarrierEvent::Stranger(LinkId(1), mesh) => assert_eq!(mesh.as_str(), other),
            event => panic!("{mine} {other}: {event:?}"),
        }
    }
}

/// A node may be given its own endpoint by hand; its first beat tells, and [`links`] hangs up.
///
/// [`links`]: crate::core::links
#[tokio::test]
async fn a_node_can_hear_itself() {
    let (mut a, at, _) = bind(A).await;
    a.dial(LinkId(1), &at, Speech::Mesh);
    connected(&mut a, LinkId(1)).await;
    let own = async {
        loop {
            a.publish(Topic::Beat, encode(&some_beat(origin(A))));
            let soon = timeout(Duration::from_millis(5), a.event()).await;
            if matches!(soon, Ok(CarrierEvent::Frame(LinkId(1), Topic::Beat, _))) {
                return;
            }
        }
    };
    timeout(DEADLINE, own).await.unwrap();
    a.hang_up(LinkId(1));
}

/// Messages that no node of ours would publish are dropped and counted.
#[tokio::test]
async fn malformed_messages_are_counted_and_the_link_lives() {
    let (mut b, _, _) = bind(B).await;
    let mut stranger = PubSocket::new();
    let at = stranger
        .bind("tcp://127.0.0.1:0")
        .await
        .unwrap()
        .to_string();
    b.dial(LinkId(1), &at, Speech::Mesh);
    connected(&mut b, LinkId(1)).await;
    b.dial(LinkId(2), &at, Speech::Plain);
    connected(&mut b, LinkId(2)).await;
    let message = |parts: &[&[u8]]| -> ZmqMessage {
        let parts: Vec<Bytes> = parts
            .iter()
            .map(|part| Bytes::copy_from_slice(part))
            .collect();
        parts.try_into().unwrap()
    };
    let header = [1; 19];
    let both = async {
        let (mut mesh, mut plain) = (false, false);
        while !(mesh && plain) {
            stranger
                .send(message(&[b"m1.log", &header, b"hello"]))
                .await
                .unwrap();
            stranger.send(message(&[b"chat hello"])).await.unwrap();
            match timeout(Duration::from_millis(5), b.event()).await {
                Ok(CarrierEvent::Frame(LinkId(1), ..)) => mesh = true,
                Ok(CarrierEvent::Plain(LinkId(2), _)) => plain = true,
                Ok(other) => panic!("{other:?}"),
                Err(_) => {}
            }
        }
    };
    timeout(DEADLINE, both).await.unwrap();
    assert_eq!(b.refused(), 0);
    let long = vec![1; FRAME_LEN_MAX];
    let bad: [&[&[u8]]; 9] = [
        &[b"m1.log"],
        &[b"m1.log", &header],
        &[b"m1.logs", &header, b"hello"],
        &[b"m1.log", &header[..18], b"hello"],
        &[b"m1.log", &header, b"hello", b""],
        &[b"m1.log", &header, &long],
        &[b"chat \xff"],
        &[b"chat", b"hello"],
        &[b"chatter"],
    ];
    for parts in bad {
        stranger.send(message(parts)).await.unwrap();
    }
    stranger
        .send(message(&[b"m1.live", &header, b"end"]))
        .await
        .unwrap();
    stranger.send(message(&[b"chat end"])).await.unwrap();
    let (mut mesh, mut plain) = (false, false);
    while !(mesh && plain) {
        match next(&mut b).await {
            CarrierEvent::Frame(_, Topic::Live, frame) => mesh = frame.ends_with(b"end"),
            CarrierEvent::Frame(_, Topic::Log, frame) => assert!(frame.ends_with(b"hello")),
            CarrierEvent::Plain(_, text) if text == "end" => plain = true,
            CarrierEvent::Plain(_, text) => assert_eq!(text, "hello"),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(b.refused(), bad.len() as u64);
}

/// A subscriber that does not read delays the closing by the grace and no longer.
#[tokio::test]
async fn closing_waits_no_longer_than_told() {
    let (mut a, at, _) = bind(A).await;
    let (mut b, _, _) = bind(B).await;
    meet(&mut a, &mut b, LinkId(1), &at).await;
    // More than the events' queue, the read buffers and the kernel hold.
    let body = Bytes::from(vec![1; 512 << 10]);
    for _ in 0..200 {
        a.publish(Topic::Live, body.clone());
        tokio::task::yield_now().await;
    }
    for _ in 0..300 {
        a.publish(Topic::Live, body.clone());
    }
    let before = tokio::time::Instant::now();
    a.close(Duration::from_millis(300)).await;
    assert!(
        before.elapsed() < Duration::from_secs(3),
        "{:?}",
        before.elapsed()
    );
}

/// A raw subscriber of everything, which then never reads again.
async fn stalled_subscriber(endpoint: &str) -> TcpStream {
    let addr = endpoint.strip_prefix("tcp://").unwrap();
    let mut socket = TcpStream::connect(addr).await.unwrap();
    let mut greeting = [0; 64];
    greeting[0] = 0xff;
    greeting[9] = 0x7f;
    greeting[10] = 3;
    greeting[12..16].copy_from_slice(b"NULL");
    socket.write_all(&greeting).await.unwrap();
    let ready = b"\x04\x19\x05READY\x0bSocket-Type\x00\x00\x00\x03SUB";
    let subscribe_all = [0, 1, 1];
    socket
        .write_all(&[&ready[..], &subscribe_all].concat())
        .await
        .unwrap();
    socket
}

/// Without the listener's timeout the crate would keep all of it for as long as the peer likes.
#[tokio::test]
async fn what_a_stopped_subscriber_holds_is_let_go() {
    let (mut a, at, _) = bind(A).await;
    let (mut b, _, _) = bind(B).await;
    let _stalled = stalled_subscriber(&at).await;
    meet(&mut a, &mut b, LinkId(1), &at).await;
    struct Held(Vec<u8>, #[expect(dead_code, reason = "counted")] Arc<()>);
    impl AsRef<[u8]> for Held {
        fn as_ref(&self) -> &[u8] {
            &self.0
        }
    }
    let count = Arc::new(());
    let body = Bytes::from_owner(Held(vec![1; 1 << 19], Arc::clone(&count)));
    for _ in 0..100 {
        a.publish(Topic::Log, body.clone());
    }
    drop(body);
    for _ in 0..100 {
        assert_eq!(
            frame(&mut b).await.1,
            Topic::Log,
            "the others are not delayed"
        );
    }
    let before = tokio::time::Instant::now();
    let let_go = async {
        while Arc::strong_count(&count) > 1 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(2 * DEADLINE, let_go)
        .await
        .expect("the kernel cuts the connection");
    assert!(
        before.elapsed() > Duration::from_secs(2),
        "it was stalled: {:?}",
        before.elapsed()
    );
}

#[tokio::test]
async fn version_6_addresses_work_too() {
    let Ok(listener) = listen("[::1]:0".parse().unwrap()) else {
        println!("this machine has no IPv6");
        return;
    };
    let stop = CancellationToken::new();
    let (mut a, at) = ZmqCarrier::bind(
        listener,
        origin(A),
        &MeshName::default(),
        TaskTracker::new(),
        stop,
    )
    .await
    .unwrap();
    assert!(at.starts_with("tcp://[::1]:"), "{at}");
    let (mut b, _, _) = bind(B).await;
    meet(&mut a, &mut b, LinkId(1), &at).await;
}
