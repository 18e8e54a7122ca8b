//! The client against a real registry, and against things that are none.

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::*;
use base::process::Tasks;
use base::secret::{Secrets, new_line};
use base::serve::listen;

const LEASE: Duration = Duration::from_secs(6);

fn node(port: u16) -> Registration {
    Registration {
        name: "ada".to_owned(),
        endpoints: [("pub".to_owned(), format!("tcp://127.0.0.1:{port}"))].into(),
        meta: [("zone".to_owned(), "a".to_owned())].into(),
    }
}

fn registry() -> (Client, Tasks, SocketAddr) {
    let tasks = Tasks::new();
    let listener = listen("127.0.0.1:0".parse().unwrap()).unwrap();
    let addr = listener.local_addr().unwrap();
    crate::run(LEASE, listener, None, &tasks);
    (
        Client::new(&format!("http://{addr}/")).unwrap(),
        tasks,
        addr,
    )
}

fn changed(listed: Listed) -> Listing {
    match listed {
        Listed::Changed(listing) => listing,
        Listed::Unchanged => panic!("unchanged"),
    }
}

#[tokio::test]
async fn a_registration_is_in_the_next_list_and_gone_after_leaving() {
    let (client, _tasks, _) = registry();
    let before = changed(client.list(None, None).await.unwrap());
    assert!(before.nodes.is_empty());
    let registered = client.put("a", &node(1)).await.unwrap();
    assert_eq!((registered.lease_ms, registered.renew_ms), (6000, 2000));
    assert_eq!(registered.observed, "127.0.0.1");
    let listing = changed(client.list(Some(&before.token), None).await.unwrap());
    assert_eq!(
        (&listing.epoch, listing.version),
        (&registered.epoch, registered.version)
    );
    assert_eq!(listing.nodes[0].meta, node(1).meta);
    assert_eq!(
        client.put("a", &node(1)).await.unwrap(),
        registered,
        "a renewal is no change"
    );
    assert_eq!(
        client.list(Some(&listing.token), None).await.unwrap(),
        Listed::Unchanged
    );
    client.delete("a").await.unwrap();
    client.delete("a").await.unwrap();
    let after = changed(client.list(Some(&listing.token), None).await.unwrap());
    assert!(after.nodes.is_empty());
}

#[tokio::test]
async fn a_long_poll_returns_at_the_change() {
    let (client, _tasks, _) = registry();
    let token = changed(client.list(None, None).await.unwrap()).token;
    let wait = Some(Duration::from_secs(50));
    let said = node(1);
    let (listed, registered) =
        tokio::join!(client.list(Some(&token), wait), client.put("a", &said));
    registered.unwrap();
    assert_eq!(changed(listed.unwrap()).nodes[0].id, "a");
}

#[tokio::test]
async fn refusals_keep_their_code() {
    let (client, _tasks, _) = registry();
    let refused = client.put("a", &node(0)).await.unwrap_err();
    let ClientError::Refused { problem, .. } = refused else {
        panic!("{refused}")
    };
    assert_eq!(
        (problem.status, problem.code.as_str()),
        (422, "invalid_endpoint")
    );
    for id in ["", "..", "a/b", "a b"] {
        assert!(
            matches!(client.put(id, &node(1)).await, Err(ClientError::Id(_))),
            "{id:?}"
        );
    }
}

#[tokio::test]
async fn nothing_there_is_unreachable_and_a_stop_ends_a_long_poll() {
    let (client, tasks, _) = registry();
    let token = changed(client.list(None, None).await.unwrap()).token;
    let poll = client.list(Some(&token), Some(Duration::from_secs(50)));
    let (listed, left) = tokio::join!(poll, async {
        client.put("a", &node(1)).await.unwrap();
        tasks.drain(Duration::from_secs(5)).await
    });
    listed.unwrap();
    assert_eq!(left, 0);
    let gone = client.list(None, None).await.unwrap_err();
    assert!(matches!(gone, ClientError::Unreachable(_)), "{gone:?}");
}

/// Answers every connection with these bytes.
async fn impostor(tasks: &Tasks, answer: impl AsRef<[u8]> + Send + Sync + 'static) -> Client {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = Client::new(&format!("http://{}", listener.local_addr().unwrap())).unwrap();
    tasks.spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut head = [0; 1024];
            let _ = stream.read(&mut head).await;
            let _ = stream.write_all(answer.as_ref()).await;
        }
    });
    client
}

#[tokio::test]
async fn what_is_no_registry_is_seen_through() {
    let tasks = Tasks::new();
    for answer in [
        "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n<html>",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}",
        "HTTP/1.1 302 Found\r\nLocation: http://169.254.169.254/\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 404 Not Found\r\nContent-Length: 4\r\n\r\nnope",
        "HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{",
        "SSH-2.0-OpenSSH_9.2\r\n",
        "",
    ] {
        let client = impostor(&tasks, answer).await;
        let error = client.list(None, None).await.unwrap_err();
        let nobody = matches!(error, ClientError::Unreachable(_));
        assert!(!nobody, "{answer:?}: {error:?}");
        assert!(client.put("a", &node(1)).await.is_err());
    }
    let endless = [
        b"HTTP/1.1 200 OK\r\n\r\n".to_vec(),
        vec![b' '; LISTING_BYTES_MAX + 1],
    ]
    .concat();
    let client = impostor(&tasks, endless).await;
    let error = client.list(None, None).await.unwrap_err();
    assert!(error.to_string().contains("bytes"), "{error}");
}

#[test]
fn a_url_is_that_of_a_host_over_plain_http() {
    for bad in [
        "",
        "127.0.0.1:7171",
        "https://a",
        "http://",
        "http://a:0",
        "http://u:p@a",
        "http://a?b",
    ] {
        let error = Client::new(bad).unwrap_err();
        assert!(matches!(error, ClientError::Url { .. }), "{bad}");
    }
    assert_eq!(
        Client::new("http://a:7171/").unwrap().url(),
        "http://a:7171"
    );
}

/// Goal: a registry that shows only a key which was removed here is asked no more, though a connection to it is
/// kept. Method: a client whose key was accepted, and then is not.
#[tokio::test]
async fn a_kept_connection_ends_with_its_key() {
    let folder = tempfile::tempdir().unwrap();
    let seeds = |lines: &str| {
        let path = folder.path().join("secret");
        std::fs::write(&path, lines).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        Secrets::read(&path).unwrap().of_registry()
    };
    let (old, new) = (new_line(), new_line());
    let both = format!("{new}\n{old}");
    let there = KeyRing::new(&seeds(&format!("{old}\n{new}")));
    let tasks = Tasks::new();
    let listener = listen("127.0.0.1:0".parse().unwrap()).unwrap();
    let url = format!("tls://{}", listener.local_addr().unwrap());
    crate::run(LEASE, listener, Some(there.clone()), &tasks);
    let here = KeyRing::new(&seeds(&both));
    let client = Client::sealed(&url, &here).unwrap();
    client.list(None, None).await.unwrap();
    here.replace(&seeds(&new));
    let refused = client.list(None, None).await.unwrap_err();
    assert!(matches!(refused, ClientError::NotOurs(_)), "{refused}");
    there.replace(&seeds(&both));
    client.list(None, None).await.unwrap();
}
