//! Against a server whose words the test writes.

use base::endpoint::{Host, Scheme};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::*;

const INFO: &str = "INFO {\"max_payload\":1048576}\r\n";

/// A server that says this when it is connected to, and then the next whenever something is said to it.
async fn server(words: &[&str]) -> BrokerUrl {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let words: Vec<String> = words.iter().map(|&word| word.to_owned()).collect();
    #[expect(clippy::disallowed_methods, reason = "it ends with the test")]
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        for word in words {
            stream.write_all(word.as_bytes()).await.unwrap();
            if !hears(&mut stream).await {
                return;
            }
        }
        while hears(&mut stream).await {}
    });
    let url: BrokerUrl = format!("nats://ann:pw@127.0.0.1:{port}").parse().unwrap();
    assert_eq!(url.servers()[0].scheme, Scheme::Tcp);
    assert!(matches!(url.servers()[0].host, Host::Ip(_)));
    url
}

async fn hears(stream: &mut TcpStream) -> bool {
    stream.read(&mut [0; 4096]).await.is_ok_and(|len| len > 0)
}

fn me() -> Me {
    Me {
        origin: "k3f7q2m7xa".parse().unwrap(),
        name: "ann's".to_owned(),
        mesh: "main".parse().unwrap(),
        seals: None,
    }
}

async fn connect_to(words: &[&str]) -> Result<Connected<Publisher, Subscriber, Heard>, Fault> {
    connect(&server(words).await, &me(), &Arc::default()).await
}

#[tokio::test]
async fn whatever_a_server_says_is_an_end_with_a_reason_and_no_panic() {
    for (words, why, part) in [
        (&["-ERR\r\n"][..], Why::NoBroker, "another word"),
        (&["HTTP/1.1 400 Bad\r\n"], Why::NoBroker, "HTTP/1.1 400 Bad"),
        (&["INFO {}\r\n"], Why::NoBroker, "max_payload is 0"),
        (&["INFO {\"max_payload\":-1}\r\n"], Why::NoBroker, "no NATS"),
        (
            &["INFO {\"max_payload\":99999,\"ldm\":true}\r\n", "PONG\r\n"],
            Why::Ended,
            "lame duck",
        ),
        (&[INFO, "-ERR\r\n"], Why::Ended, "ended it"),
        (
            &[INFO, "-ERR 'Authorization Violation'\r\n"],
            Why::NotLetIn,
            "Authorization",
        ),
    ] {
        let fault = connect_to(words).await.err().expect("it is no broker");
        assert_eq!(fault.why, why, "{words:?}: {}", fault.text);
        assert!(fault.text.contains(part), "{words:?}: {}", fault.text);
    }
    for (word, why) in [
        ("-ERR\r\n", Why::Ended),
        ("-ERR 'Slow Consumer'\r\n", Why::Ended),
        (
            "-ERR 'Permissions Violation for Publish'\r\n",
            Why::NotLetIn,
        ),
        ("MSG a 1 18446744073709551615\r\n", Why::NoBroker),
        ("INFO {\"ldm\":true}\r\n", Why::Ended),
    ] {
        let pong = format!("PONG\r\n{word}");
        let connected = connect_to(&[INFO, &pong]).await;
        let mut messages = connected.expect("it lets this node in").messages;
        let fault = messages.next().await.unwrap_err();
        assert_eq!(fault.why, why, "{word:?}: {}", fault.text);
    }
}

#[tokio::test]
async fn a_subscription_is_confirmed_by_the_answer_to_what_was_said_after_it() {
    let words = [INFO, "PONG\r\n", "MSG a 1 1\r\nx\r\n", "PONG\r\n"];
    let connected = connect_to(&words).await.unwrap();
    let Connected {
        publisher: mut other,
        mut subscriber,
        mut messages,
        driver,
    } = connected;
    let names = ["chatmesh.main.beat".to_owned()];
    let running = async {
        let subscribed = subscriber.subscribe(&names);
        let mut subscribed = std::pin::pin!(subscribed);
        tokio::select! {
            biased;
            message = messages.next() => assert_eq!(message, Ok(("a".into(), "x".into()))),
            _ = &mut subscribed => panic!("nothing has confirmed it"),
        }
        other
            .publish(&[("a".to_owned(), "x".into())])
            .await
            .unwrap();
        tokio::select! {
            message = messages.next() => panic!("none comes: {message:?}"),
            confirmed = subscribed => assert_eq!(confirmed, Ok(())),
        }
    };
    tokio::select! {
        fault = driver => panic!("{fault:?}"),
        () = running => {}
    }
}

#[tokio::test]
async fn how_long_a_frame_may_be_goes_by_what_the_server_says_last() {
    let gauges = Arc::default();
    let words = [
        "INFO {\"max_payload\":100000}\r\n",
        "PONG\r\nINFO {\"max_payload\":90000}\r\nMSG a 1 0\r\n\r\n",
    ];
    let connected = connect(&server(&words).await, &me(), &gauges).await;
    assert_eq!(gauges.frame_len_max(), 100_000 - AROUND_LEN);
    let message = connected.unwrap().messages.next().await;
    assert_eq!(message, Ok(("a".into(), Bytes::new())));
    assert_eq!(gauges.frame_len_max(), 90_000 - AROUND_LEN);
}

#[test]
fn a_login_is_a_user_or_a_token() {
    let hello = |user: Option<&str>, password: Option<&str>| {
        let login = Login {
            user: user.map(str::to_owned),
            password: password.map(str::to_owned),
        };
        hello(&login, false, &me(), Wants::Messages)
    };
    let both = hello(Some("ann"), Some("p\"w"));
    assert!(both.contains(r#""pass":"p\"w""#) && both.contains(r#""user":"ann""#));
    let token = hello(Some("t"), None);
    assert!(token.contains(r#""auth_token":"t""#) && !token.contains("\"user\""));
    assert!(token.contains(r#""name":"chatmesh/main/ann's/k3f7q2m7xa""#));
    assert!(!hello(None, None).contains("auth_token"));
}
