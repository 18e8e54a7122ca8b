//! The generator against a server that makes mistakes on purpose.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};

use crate::clock::{SECOND, now};
use crate::marks::tag;
use crate::proto::{Protocol, Shape};
use crate::swarm::{Crowd, Swarm};
use crate::wire::{TEXT, frame, head_end, mask, put_head};

/// A client that came in, and what was read of it.
fn accepted(listener: &TcpListener) -> TcpStream {
    let (mut socket, _) = listener.accept().unwrap();
    let mut head = Vec::new();
    while head_end(&head).is_none() {
        let mut byte = [0];
        socket.read_exact(&mut byte).unwrap();
        head.extend_from_slice(&byte);
    }
    socket
        .write_all(b"HTTP/1.1 101 Switching Protocols\r\n\r\n")
        .unwrap();
    socket
}

/// Brings what the first client says to both, but for these numbers: the second client does not get
/// 3, gets 5 twice, and gets 7 after 8. All of it stands in frames that are cut at odd places.
fn serve(listener: &TcpListener, messages: usize) {
    let mut clients = [accepted(listener), accepted(listener)];
    let mut bytes = Vec::new();
    let mut texts = Vec::new();
    let mut from = 0;
    while texts.len() < messages {
        let mut some = [0; 4096];
        let got = clients[0].read(&mut some).unwrap();
        assert!(got > 0, "the first client is gone");
        bytes.extend_from_slice(&some[..got]);
        while let Some(found) = frame(&bytes, from) {
            let mut text = bytes[found.start..found.end].to_vec();
            mask(&mut text);
            texts.push(text);
            from = found.end;
        }
    }
    let in_order: Vec<usize> = (0..messages).collect();
    let faulty = [0, 1, 2, 4, 5, 5, 6, 8, 7, 9];
    for (client, order) in clients.iter_mut().zip([&in_order[..], &faulty]) {
        let mut out = Vec::new();
        for number in order {
            put_head(&mut out, TEXT, texts[*number].len(), false);
            out.extend_from_slice(&texts[*number]);
        }
        client.set_nodelay(true).unwrap();
        for piece in out.chunks(61) {
            client.write_all(piece).unwrap();
        }
    }
    // Until the clients go: a connection that ends is an error to them.
    let _gone = clients[0].read(&mut [0; 16]);
}

/// Goal: the generator notices what a server loses, doubles and puts in another order.
/// Method: a server that does each of it once, on real sockets.
#[test]
fn a_lost_a_doubled_and_a_late_message_are_noticed() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let server = std::thread::spawn(move || serve(&listener, 10));
    let crowd = Crowd {
        urls: vec![url],
        clients: 2,
        senders: vec![0],
        rooms: 1,
        rooms_each: 1,
    };
    let shape = Shape::new(Protocol::Plain, tag(1234), 100, 0);
    let mut swarm = Swarm::new(crowd, shape).unwrap();
    swarm.enter(5 * SECOND).unwrap();
    swarm.timed_from = 0;
    swarm.say(0, 10, now()).unwrap();
    let end = now() + 5 * SECOND;
    while (swarm.counts.deliveries < 19 || swarm.ledger.doubled == 0) && now() < end {
        swarm.pump(end, true).unwrap();
    }
    let ledger = &swarm.ledger;
    assert_eq!((ledger.doubled, ledger.reordered, ledger.astray), (1, 1, 0));
    assert_eq!(
        (swarm.lost(), swarm.counts.deliveries, swarm.latency.count),
        (1, 19, 19)
    );
    drop(swarm);
    server.join().unwrap();
}
