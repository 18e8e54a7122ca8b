//! What only real sockets and keys can get wrong.

use base::process::Tasks;
use tokio::net::TcpStream;

use super::*;
use crate::carriers::tests::{
    DEADLINE, closed, connected, frame, keys, listen_at, meet, next, number, numbered, origin,
    secrets,
};

const A: &str = "aaaaaaaaaa";
const B: &str = "bbbbbbbbbb";

fn bind(me: &str, keys: &KeyRing) -> (TlsCarrier, String, Tasks) {
    listen_at("127.0.0.1:0".parse().unwrap(), origin(me), keys).unwrap()
}

#[tokio::test]
async fn who_has_another_secret_or_none_is_told_apart() {
    let (_a, at, _tasks) = bind(A, &keys(1));
    let (mut b, _, tasks) = bind(B, &keys(2));
    b.dial(LinkId(1), &at, Speech::Mesh);
    let why = next(&mut b).await;
    let CarrierEvent::Closed(LinkId(1), fault) = why else {
        panic!("{why:?}")
    };
    assert_eq!(fault.why, Why::OtherKey, "{}", fault.text);
    let plain = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let there = format!("tls://{}", plain.local_addr().unwrap());
    tasks.spawn(async move {
        let (mut stream, _) = plain.accept().await.unwrap();
        stream.read_u8().await.unwrap();
        stream
            .write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            .await
            .unwrap();
        stream.shutdown().await.unwrap();
    });
    b.dial(LinkId(2), &there, Speech::Mesh);
    let CarrierEvent::Closed(_, fault) = next(&mut b).await else {
        panic!()
    };
    assert_eq!(fault.why, Why::NotSealed, "{}", fault.text);
}

#[tokio::test]
async fn a_node_that_dials_itself_finds_itself() {
    let (mut a, at, _tasks) = bind(A, &keys(1));
    a.dial(LinkId(1), &at, Speech::Mesh);
    let CarrierEvent::Closed(_, fault) = next(&mut a).await else {
        panic!()
    };
    assert_eq!(fault.why, Why::OtherNode, "{}", fault.text);
}

/// Goal: a secret is changed under load, and nothing is lost by links whose key stays; those whose key
/// was removed end, on both sides, within two seconds.
#[tokio::test]
async fn a_link_ends_with_its_key_and_not_before() {
    let (here, there) = (keys(1), keys(1));
    let (mut a, at, _tasks) = bind(A, &here);
    let (mut b, _, _more) = bind(B, &there);
    meet(&mut a, &mut b, LinkId(1), &at).await;
    for ring in [&here, &there] {
        ring.replace(&secrets(&[2, 1]).of_mesh());
    }
    a.publish(Topic::Live, numbered(1));
    assert_eq!(number(&frame(&mut b).await.2), 1);
    let begun = tokio::time::Instant::now();
    there.replace(&secrets(&[2]).of_mesh());
    let why = closed(&mut b, LinkId(1)).await;
    assert!(begun.elapsed() < hear::REMOVED_WITHIN + Duration::from_secs(1));
    assert!(why.contains("removed"), "{why}");
    // Both have the new one, which is presented by now.
    b.dial(LinkId(2), &at, Speech::Mesh);
    connected(&mut b, LinkId(2)).await;
    here.replace(&secrets(&[3]).of_mesh());
    closed(&mut b, LinkId(2)).await;
}

/// Goal: a peer that is stopped costs no more than its bound, and is cut off; others go on.
#[tokio::test]
async fn a_peer_that_takes_nothing_is_cut_off_when_its_bound_is_reached() {
    let (mut a, at, _tasks) = bind(A, &keys(1));
    let (mut b, _, _more) = bind(B, &keys(1));
    let (mut c, _, _most) = bind("cccccccccc", &keys(1));
    meet(&mut a, &mut b, LinkId(1), &at).await;
    meet(&mut a, &mut c, LinkId(1), &at).await;
    let frame_len = 1 << 16;
    let mut heard = 0;
    let mut sent = 0;
    // b is asked for nothing any more, so that its link stops to read.
    while a.shared.subscribers().len() == 2 {
        a.publish(Topic::Live, vec![7; frame_len].into());
        sent += frame_len;
        assert!(
            sent < 4 * speak::WAITING_BYTES_MAX,
            "the one that takes nothing is still there"
        );
        while let Ok(CarrierEvent::Frame(..)) = timeout(Duration::from_millis(1), c.event()).await {
            heard += 1;
        }
    }
    assert!(sent > speak::WAITING_BYTES_MAX);
    assert_eq!(a.shared.subscribers()[0].origin, origin("cccccccccc"));
    assert!(heard > 0);
    let ended = async { while !matches!(b.event().await, CarrierEvent::Closed(LinkId(1), _)) {} };
    timeout(DEADLINE, ended)
        .await
        .expect("it notices, dials again, and repairs");
}

/// Goal: what no node says ends the link and nothing else. Method: an authenticated peer that lies.
#[tokio::test]
async fn nonsense_of_one_who_has_the_secret_ends_its_link_only() {
    let (mut a, at, _tasks) = bind(A, &keys(1));
    let (mut b, _, _more) = bind(B, &keys(1));
    meet(&mut a, &mut b, LinkId(1), &at).await;
    let connector = tokio_rustls::TlsConnector::from(Arc::new(keys(1).client(ALPN_BUS)));
    for nonsense in [
        &b"GET / HTTP/1.1\r\n\r\n"[..],
        &[0xff; 64],
        &[0, 0, 0, 3, 0, b'{', b'}'],
        &[0, 0, 0, 2, 1, b'x'],
    ] {
        let socket = TcpStream::connect(at.strip_prefix("tls://").unwrap())
            .await
            .unwrap();
        let name = "chatmesh.invalid".try_into().unwrap();
        let mut stream = connector.connect(name, socket).await.unwrap();
        stream.write_all(nonsense).await.unwrap();
        let mut rest = Vec::new();
        let read = timeout(DEADLINE, stream.read_to_end(&mut rest)).await;
        let _ = read.expect("the link ends");
        assert!(rest.is_empty(), "{rest:?}");
    }
    a.publish(Topic::Live, numbered(9));
    assert_eq!(number(&frame(&mut b).await.2), 9);
}
