//! What is understood of a broker's bytes, and that none of them do harm.

use proptest::prelude::*;

use super::*;

const LEN_MAX: usize = 8;

/// All that is understood of what comes in such pieces, and how it ends.
fn read<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> (Vec<Said>, Option<Odd>) {
    speech::understood(Unread::new(LEN_MAX), pieces)
}

/// What a broker would say to bring this.
fn deliver(frames: Frames, tag: u64, key: &str, size: usize) -> Frames {
    let place = [
        Arg::Short("tag"),
        Arg::U64(tag),
        Arg::U8(0),
        Arg::Short("chatmesh.main"),
        Arg::Short(key),
    ];
    let mut frames = frames.method(1, method::DELIVER, &place);
    frames.frame(HEADER, 1, |out| {
        out.extend([0, 60, 0, 0]);
        out.extend((size as u64).to_be_bytes());
        // Headers that nest, said by whoever published it.
        out.extend([0x20, 0]);
        for _ in 0..1000 {
            out.extend([0, 0, 0, 9, 0, b'F']);
        }
    });
    for _ in 0..size {
        frames.frame(BODY, 1, |out| out.push(b'x'));
    }
    frames
}

fn message(tag: u64, key: &'static str, body: &'static [u8]) -> Said {
    Said::Message {
        tag,
        again: false,
        exchange: Bytes::from_static(b"chatmesh.main"),
        key: Bytes::from_static(key.as_bytes()),
        body: Bytes::from_static(body),
    }
}

#[test]
fn what_a_broker_says_is_understood_in_whatever_pieces_it_comes() {
    let nested = Arg::Table(&[("a", Arg::Table(&[("b", Arg::Flag(true))]))]);
    let start = [Arg::U8(0), Arg::U8(9), nested, Arg::Long(b"PLAIN X")];
    let tune = [Arg::U16(7), Arg::U32(131_072), Arg::U16(60)];
    let close = [Arg::U16(403), Arg::Short("ACCESS\nREFUSED"), Arg::U32(0)];
    let mut frames = Frames::default()
        .method(0, method::START, &start)
        .method(0, method::TUNE, &tune)
        .method(0, method::OPEN_OK, &[])
        .method(
            1,
            method::QUEUE_OK,
            &[Arg::Short("amq.gen-x"), Arg::U64(7 << 32)],
        )
        .method(1, method::ACK, &[Arg::U64(7), Arg::U8(1)])
        .method(0, method::BLOCKED, &[Arg::Short("low on memory")]);
    frames.0.extend_from_slice(SIGN);
    frames = deliver(frames, 1, "beat", 3);
    frames = deliver(frames, 2, "o.k3f7q2m7xa", 0);
    frames = deliver(frames, 3, "long", LEN_MAX + 1);
    let bytes = frames.method(0, method::CLOSE, &close).into_bytes();
    let all = [
        Said::Start {
            mechanisms: "PLAIN X".to_owned(),
        },
        Said::Tune { frame_max: 131_072 },
        Said::Done(method::OPEN_OK),
        Said::Queue("amq.gen-x".to_owned(), 7),
        Said::Taken {
            tag: 7,
            multiple: true,
        },
        Said::Blocked("low on memory".to_owned()),
        Said::Sign,
        message(1, "beat", b"xxx"),
        message(2, "o.k3f7q2m7xa", b""),
        message(3, "long", b""),
        Said::Close {
            code: 403,
            text: "ACCESS REFUSED".to_owned(),
        },
    ];
    for len in [1, 2, 7, 8, 100, 1000, bytes.len()] {
        let (said, odd) = read(bytes.chunks(len));
        assert_eq!((&said[..], odd), (&all[..], None));
    }
}

#[test]
fn what_is_said_is_cut_into_frames_and_understood() {
    let body = vec![7; 2 * FRAME_LEN_MAX];
    let said = Frames::default().message(1, ("chatmesh.main", "beat"), &body, true);
    let (mut sizes, mut rest) = (Vec::new(), &said.0[..]);
    while let Some((head, more)) = rest.split_first_chunk::<7>() {
        let len = u32::from_be_bytes([head[3], head[4], head[5], head[6]]) as usize;
        sizes.push((head[0], len + AROUND_LEN));
        assert_eq!(more[len], END);
        rest = &more[len + 1..];
    }
    let kinds: Vec<u8> = sizes.iter().map(|(kind, _)| *kind).collect();
    assert_eq!(kinds, [METHOD, HEADER, BODY, BODY, BODY]);
    assert!(sizes.iter().all(|(_, len)| *len <= FRAME_LEN_MAX));
    let long = "k".repeat(300);
    let frames = Frames::default().method(1, method::BLOCKED, &[Arg::Short(&long)]);
    let (said, odd) = read(std::iter::once(&frames.0[..]));
    assert_eq!(
        (&said[..], odd),
        (&[Said::Blocked(long[..255].to_owned())][..], None)
    );
}

/// What belongs to no queue comes back with its body, which is of no interest, and what follows is understood.
#[test]
fn what_comes_back_is_known_as_that() {
    let place = [
        Arg::U16(312),
        Arg::Short("NO_ROUTE"),
        Arg::Short("chatmesh.main.kept"),
        Arg::Short(""),
    ];
    let mut frames = Frames::default().method(1, method::RETURN, &place);
    frames.frame(HEADER, 1, |out| {
        out.extend([0, 60, 0, 0]);
        out.extend(3_u64.to_be_bytes());
        out.extend([HAS_DELIVERY_MODE, 0, PERSISTENT]);
    });
    frames.frame(BODY, 1, |out| out.extend(b"xxx"));
    let bytes = frames
        .method(1, method::ACK, &[Arg::U64(1), Arg::U8(0)])
        .into_bytes();
    let taken = Said::Taken {
        tag: 1,
        multiple: false,
    };
    for len in [1, 9, bytes.len()] {
        let (said, odd) = read(bytes.chunks(len));
        assert_eq!(
            (&said[..], odd),
            (&[Said::Returned, taken.clone()][..], None)
        );
    }
}

#[test]
fn what_is_no_amqp_is_shown() {
    for odd in [
        "HTTP/1.1 400 Bad Request\r\n",
        "AMQP\0\0\x09\x01",
        "INFO {}",
    ] {
        let (all, why) = read(std::iter::once(odd.as_bytes()));
        assert_eq!(why, Some(Odd::bytes(odd.as_bytes())), "{all:?}");
    }
    let mut cut = Frames::default().method(0, method::OPEN_OK, &[]).0;
    cut.pop();
    cut.push(0);
    let long = [METHOD, 0, 0, 0xff, 0xff, 0xff, 0xff];
    let early = Frames::default().method(1, method::ACK, &[Arg::U32(0)]).0;
    let stray = [HEADER, 0, 1, 0, 0, 0, 0, END];
    for odd in [&cut[..], &long, &early, &stray] {
        assert!(read(std::iter::once(odd)).1.is_some(), "{odd:?}");
    }
}

#[test]
fn what_is_taken_is_known_in_whatever_order_it_is_said() {
    let mut taken = Taken::default();
    let up_to: Vec<_> = [
        (2, false),
        (1, false),
        (5, false),
        (4, true),
        (4, false),
        (9, true),
        (8, false),
    ]
    .into_iter()
    .map(|(tag, multiple)| taken.take(tag, multiple))
    .collect();
    assert_eq!(up_to, [0, 2, 2, 5, 5, 9, 9].map(Some));
    assert_eq!(taken.take(u64::MAX, true), Some(u64::MAX));
    let mut endless = Taken::default();
    assert!((2..2000).any(|tag| endless.take(tag, false).is_none()));
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(
        frames in prop::collection::vec(
            (
                prop::sample::select(vec![METHOD, HEADER, BODY, HEARTBEAT, 9]),
                prop::sample::select(vec![
                    method::START, method::TUNE, method::CLOSE, method::DELIVER, method::ACK,
                    method::QUEUE_OK, method::BIND_OK, method::RETURN,
                ]),
                prop::collection::vec(any::<u8>(), 0..40),
            ),
            0..20,
        ),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut all = Frames::default();
        for (kind, id, bytes) in &frames {
            all.frame(*kind, 1, |out| {
                if *kind == METHOD {
                    out.extend(id.0.to_be_bytes());
                    out.extend(id.1.to_be_bytes());
                }
                out.extend_from_slice(bytes);
            });
        }
        let end = cut.index(all.0.len() + 1);
        read(all.0[..end].chunks(5));
    }
}
