//! Who is let in and who is not, over real sockets: each case, as the one that dials and as the one that
//! accepts sees it.

use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, HandshakeKind, ServerConfig};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::*;
use crate::secret::Seed;

const PATIENCE: Duration = Duration::from_secs(10);

fn seed(number: u8) -> Seed {
    Seed([number; 32])
}

fn ring(numbers: &[u8]) -> KeyRing {
    KeyRing::new(&numbers.iter().map(|it| seed(*it)).collect::<Vec<_>>())
}

/// What both sides have seen: who dials, after it has read the first byte; who accepts, after its
/// handshake. What went well is the other's key, and which kind of handshake it was.
type Seen = (
    Result<Option<KeyId>, String>,
    Result<(Option<KeyId>, HandshakeKind), String>,
);

async fn meet(client: (ClientConfig, &KeyRing), server: (Arc<ServerConfig>, &KeyRing)) -> Seen {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let accept = async {
        let (stream, _) = listener.accept().await.unwrap();
        let mut stream = match TlsAcceptor::from(server.0).accept(stream).await {
            Ok(stream) => stream,
            Err(why) => return Err(why.to_string()),
        };
        let _ = stream.write_all(b"!").await;
        let (_, state) = stream.get_ref();
        let shown = server.1.accepts(state.peer_certificates());
        let kind = state.handshake_kind().unwrap();
        let _ = stream.read_u8().await;
        Ok((shown, kind))
    };
    let dial = async {
        let stream = TcpStream::connect(addr).await.unwrap();
        let name = ServerName::try_from("chatmesh.invalid").unwrap();
        let connector = TlsConnector::from(Arc::new(client.0));
        let mut stream = connector
            .connect(name, stream)
            .await
            .map_err(|it| it.to_string())?;
        stream.read_u8().await.map_err(|it| it.to_string())?;
        let (_, state) = stream.get_ref();
        Ok(client.1.accepts(state.peer_certificates()))
    };
    let both = async { tokio::join!(dial, accept) };
    timeout(PATIENCE, both)
        .await
        .expect("both sides see an end")
}

async fn between(client: &KeyRing, server: &KeyRing) -> Seen {
    let protocols = [ALPN_BUS, ALPN_HTTP];
    meet(
        (client.client(ALPN_BUS), client),
        (server.server(&protocols), server),
    )
    .await
}

#[tokio::test]
async fn who_has_the_secret_is_let_in_and_known_by_its_key() {
    let (here, there) = (ring(&[1]), ring(&[1]));
    let key = here.accepted()[0];
    let (dialled, accepted) = between(&here, &there).await;
    assert_eq!(dialled, Ok(Some(key)));
    assert_eq!(accepted, Ok((Some(key), HandshakeKind::Full)));
    assert_eq!(key.to_string().len(), 8);
}

/// Goal: a secret is changed without a moment in which two that belong together refuse each other.
/// Method: all pairs of files of two neighbouring steps.
#[tokio::test]
async fn each_step_of_a_change_understands_its_neighbours() {
    let steps = [ring(&[1]), ring(&[1, 2]), ring(&[2, 1]), ring(&[2])];
    for pair in steps.windows(2) {
        for (client, server) in [(&pair[0], &pair[1]), (&pair[1], &pair[0])] {
            let (dialled, accepted) = between(client, server).await;
            assert_eq!(dialled, Ok(Some(server.accepted()[0])));
            assert_eq!(accepted.unwrap().0, Some(client.accepted()[0]));
        }
    }
}

#[tokio::test]
async fn a_key_that_is_unknown_or_was_removed_is_refused_by_both_sides() {
    let (old, new) = (ring(&[1]), ring(&[2]));
    let (dialled, accepted) = between(&old, &new).await;
    assert!(
        dialled.is_err() && accepted.is_err(),
        "{dialled:?} {accepted:?}"
    );
    // Who accepts any server is refused all the same, after its own handshake.
    let lax = ring(&[1, 2]);
    let (dialled, accepted) = between(&lax, &new).await;
    assert!(dialled.unwrap_err().contains("AccessDenied"));
    assert!(
        accepted
            .unwrap_err()
            .contains("ApplicationVerificationFailure")
    );
    // A change holds from the next handshake on, whichever side made it; nothing is resumed.
    let (here, there) = (ring(&[1]), ring(&[1]));
    let config = here.client(ALPN_BUS);
    let server = there.server(&[ALPN_BUS]);
    let first = meet((config.clone(), &here), (Arc::clone(&server), &there)).await;
    assert!(first.0.is_ok() && first.1.is_ok());
    there.replace(&[seed(2)]);
    let again = meet((config, &here), (server, &there)).await;
    assert!(again.0.is_err() && again.1.is_err(), "{again:?}");
}

#[tokio::test]
async fn who_shows_no_key_or_another_kind_or_version_is_refused() {
    let there = ring(&[1]);
    let provider = || Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let anonymous = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(there.clone()))
        .with_no_client_auth();
    let mut garbage = there.client(ALPN_BUS);
    garbage.alpn_protocols = vec![b"h2".to_vec(), b"\x00\xff".to_vec()];
    for (config, said) in [
        (anonymous, "IncorrectCertificateTypeExtension"),
        (garbage, "known protocol"),
    ] {
        let server = there.server(&[ALPN_BUS, ALPN_HTTP]);
        let (dialled, accepted) = meet((config, &there), (server, &there)).await;
        let why = accepted.unwrap_err();
        assert!(why.contains(said) && dialled.is_err(), "{why}");
    }
}

#[tokio::test]
async fn keys_of_registries_open_no_mesh() {
    let line = crate::secret::new_line();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("secret");
    std::fs::write(&path, line).unwrap();
    let owners = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    std::fs::set_permissions(&path, owners).unwrap();
    let secrets = crate::secret::Secrets::read(&path).unwrap();
    let mesh = KeyRing::new(&secrets.of_mesh());
    let registries = KeyRing::new(&secrets.of_registry());
    let (dialled, accepted) = between(&registries, &mesh).await;
    assert!(dialled.is_err() && accepted.is_err());
    let (dialled, accepted) = between(&mesh, &registries).await;
    assert!(dialled.is_err() && accepted.is_err());
}
