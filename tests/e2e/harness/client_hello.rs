//! The first message of TLS by hand: as no library of ours says it, old, or with what nobody gave it.

use anyhow::{Context as _, Result, ensure};

/// Kinds of TLS records: a change of ciphers, an alert, a handshake, and what is encrypted.
const RECORDS: std::ops::RangeInclusive<u8> = 0x14..=0x17;
/// A record of a handshake.
pub(crate) const HANDSHAKE: u8 = 0x16;
/// A record of an alert.
pub(crate) const ALERT: u8 = 0x15;
/// A record of what is encrypted.
const ENCRYPTED: u8 = 0x17;
/// The extension by which a server takes a ticket (RFC 8446, section 4.2.11),
pub(crate) const PRE_SHARED_KEY: u16 = 41;
/// and the one by which it takes early data.
const EARLY_DATA: u16 = 42;
/// The alert for a version that is not spoken (RFC 8446, section 6).
pub(crate) const PROTOCOL_VERSION: u8 = 70;

/// A list behind its length of two bytes.
fn long(bytes: &[u8]) -> Vec<u8> {
    let len = u16::try_from(bytes.len()).expect("a short list");
    [&len.to_be_bytes()[..], bytes].concat()
}

/// A list behind its length of one byte.
fn short(bytes: &[u8]) -> Vec<u8> {
    let len = u8::try_from(bytes.len()).expect("a short list");
    [&[len][..], bytes].concat()
}

fn extension(kind: u16, body: &[u8]) -> Vec<u8> {
    [&kind.to_be_bytes()[..], &long(body)].concat()
}

fn record(kind: u8, body: &[u8]) -> Vec<u8> {
    [&[kind, 3, 1][..], &long(body)].concat()
}

/// A hello with these extensions behind those that each has. It offers frames of a mesh.
fn hello(more: &[Vec<u8>]) -> Vec<u8> {
    const X25519: [u8; 2] = [0, 0x1d];
    const ED25519: [u8; 2] = [8, 7];
    // Of TLS 1.3, then of 1.2.
    const SUITES: [u8; 6] = [0x13, 1, 0xc0, 0x2b, 0xc0, 0x2f];
    let mut extensions = vec![
        extension(10, &long(&X25519)),
        extension(13, &long(&ED25519)),
        extension(16, &long(&short(base::tls::ALPN_BUS))),
        // Raw public keys, of both sides.
        extension(19, &short(&[2])),
        extension(20, &short(&[2])),
    ];
    extensions.extend(more.iter().cloned());
    let random = [0x5a; 32];
    let body = [
        &[3, 3][..],
        &random,
        &short(&random),
        &long(&SUITES),
        &short(&[0]),
        &long(&extensions.concat()),
    ]
    .concat();
    let [_, a, b, c] = u32::try_from(body.len())
        .expect("a short hello")
        .to_be_bytes();
    record(HANDSHAKE, &[&[1, a, b, c][..], &body].concat())
}

/// The hello of a program that knows TLS 1.2 and no more.
pub(crate) fn of_tls_1_2() -> Vec<u8> {
    hello(&[])
}

/// A hello of TLS 1.3 with a ticket that nobody gave, early data announced, and early data behind it.
pub(crate) fn with_ticket_and_early_data() -> Vec<u8> {
    let share = [&[0, 0x1d][..], &long(&[9; 32])].concat();
    let ticket = [&long(&[7; 64])[..], &[0; 4]].concat();
    let keys = [long(&ticket), long(&short(&[8; 32]))].concat();
    let said = hello(&[
        extension(43, &short(&[3, 4])),
        extension(45, &short(&[1])),
        extension(51, &long(&share)),
        extension(EARLY_DATA, &[]),
        extension(PRE_SHARED_KEY, &keys),
    ]);
    [said, record(ENCRYPTED, &[6; 256])].concat()
}

/// What a server has said, as TLS: each record's kind and body.
///
/// # Errors
/// Something in it is no TLS.
pub(crate) fn records(mut said: &[u8]) -> Result<Vec<(u8, Vec<u8>)>> {
    let mut found = Vec::new();
    while let [kind, 3, _, a, b, rest @ ..] = said {
        ensure!(RECORDS.contains(kind), "no TLS: {}", said.escape_ascii());
        let len = usize::from(u16::from_be_bytes([*a, *b]));
        let (body, rest) = rest.split_at_checked(len).context("half of a record")?;
        found.push((*kind, body.to_vec()));
        said = rest;
    }
    ensure!(said.is_empty(), "no TLS: {}", said.escape_ascii());
    Ok(found)
}

/// The extensions of a server's hello.
pub(crate) fn extensions_of(server_hello: &[u8]) -> Result<Vec<u16>> {
    // Kind, three of length, version, random, the length of the session; then suite and compression.
    const BEFORE_SESSION: usize = 1 + 3 + 2 + 32;
    let session = *server_hello
        .get(BEFORE_SESSION)
        .context("a server's hello")?;
    let at = BEFORE_SESSION + 1 + usize::from(session) + 2 + 1 + 2;
    let mut rest = server_hello
        .get(at..)
        .context("a server's hello has extensions")?;
    let mut kinds = Vec::new();
    while let [a, b, c, d, more @ ..] = rest {
        kinds.push(u16::from_be_bytes([*a, *b]));
        let len = usize::from(u16::from_be_bytes([*c, *d]));
        rest = more.get(len..).context("half of an extension")?;
    }
    Ok(kinds)
}
