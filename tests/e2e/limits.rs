//! Limits and verbs of `chat.v1`: each with its reply or its error code.

use serde_json::json;
use tokio_tungstenite::tungstenite::Message;

use crate::harness::raw::Raw;
use crate::harness::wire::{Msg, Refused};
use crate::harness::{Client, Cluster, Node, Outcome, PATIENCE, eventually, ms, say};

/// Goal: hello tells the limits of the contract. Method: read them.
#[tokio::test]
async fn hello_tells_the_limits_and_the_nodes() -> Outcome {
    let cluster = Cluster::start(2).await?;
    let node = &cluster.nodes[0];
    let client = Client::hello(node, "ada").await?;
    assert_eq!(client.welcome["origin"], node.origin);
    assert_eq!(client.welcome["name"], "ada");
    let other = serde_json::Value::from(cluster.nodes[1].http.clone());
    let names_other = |nodes: &serde_json::Value| nodes.as_array().unwrap().contains(&other);
    if !names_other(&client.welcome["nodes"]) {
        client.push(PATIENCE, "nodes", names_other).await?;
    }
    // The tests of the page read the same file: it knows the limits by these names.
    let page: serde_json::Value = serde_json::from_str(include_str!("../www/hello.json"))?;
    assert_eq!(client.welcome["limits"], page["limits"]);
    let slow = Node::start(["--registry", "none", "--rate-limit", "3"]).await?;
    let client = Client::hello(&slow, "ada").await?;
    assert_eq!(client.welcome["limits"]["messages_per_second"], 3);
    Ok(())
}

/// Goal: each verb is refused with its own code when its body is wrong, and the connection goes
/// on. Method: a table of requests on one connection; then it chats.
#[tokio::test]
async fn each_error_has_its_code_and_the_connection_goes_on() -> Outcome {
    let node = Node::start(["--registry", "none"]).await?;
    let client = Client::joined(&node, "ada", "tea").await?;
    let long = "x".repeat(4097);
    let cases = [
        (
            "send",
            json!({ "room": "tea", "text": long }),
            "text_too_long",
        ),
        ("send", json!({ "room": "tea", "text": "" }), "text_empty"),
        ("send", json!({ "room": "tea" }), "bad_request"),
        ("send", json!({ "room": "tea", "text": 7 }), "bad_request"),
        (
            "send",
            json!({ "room": "tea", "text": "x", "mid": "" }),
            "mid_invalid",
        ),
        (
            "send",
            json!({ "room": "tea", "text": "x", "mid": "m".repeat(65) }),
            "mid_invalid",
        ),
        (
            "send",
            json!({ "room": "tea", "text": "x", "mid": 7 }),
            "bad_request",
        ),
        (
            "send",
            json!({ "room": "a/b", "text": "x" }),
            "room_invalid",
        ),
        ("join", json!({ "room": "" }), "room_invalid"),
        ("join", json!({ "room": "r".repeat(65) }), "room_invalid"),
        ("join", json!({}), "bad_request"),
        ("join", json!("tea"), "bad_request"),
        (
            "join",
            json!({ "room": "tea", "since": ["nonsense"] }),
            "id_invalid",
        ),
        ("leave", json!({ "room": "elsewhere" }), "not_joined"),
        ("typing", json!({ "room": "elsewhere" }), "not_joined"),
        (
            "history",
            json!({ "room": "tea", "before": "nonsense" }),
            "id_invalid",
        ),
        ("who", json!({ "room": ".." }), "room_invalid"),
        ("dance", json!({}), "unknown_verb"),
    ];
    for (verb, body, code) in cases {
        let refused = client.refusal(verb, body.clone()).await?;
        assert_eq!(refused.code, code, "{verb} {body}: {refused}");
        assert!(!refused.message.is_empty());
    }
    client.send("tea", "still here").await?;
    client.message(PATIENCE, "still here").await?;
    Ok(())
}

/// Goal: names are refused by the rules of the contract, and good ones are taken: afterwards on the
/// same connection, and such as look like another's, since a name is no proof of a person.
/// Method: one hello for each name.
#[tokio::test]
async fn a_bad_name_is_refused_and_a_good_one_taken_after_it() -> Outcome {
    let node = Node::start(["--registry", "none"]).await?;
    let client = Client::silent(&node).await?;
    let marks = format!("a{}", "\u{301}".repeat(60));
    let names = [
        "",
        " ",
        &"x".repeat(33),
        "a\u{200B}b",
        "\u{202E}ada",
        "\u{FEFF}ada",
        "\u{3164}",
        "\u{2800}",
        "\u{115F}",
        "\u{E0041}",
        "\u{2066}x\u{2069}",
        "a\nb",
        "a\0",
        "x\u{1}",
        &marks,
    ];
    for name in names {
        let refused = client.refusal("hello", json!({ "name": name })).await?;
        assert_eq!(refused.code, "name_invalid", "{name:?}");
    }
    client.ask("hello", json!({ "name": "ада" })).await?;
    for name in [
        "admin",
        "аdmin",
        "ADMIN",
        "ａｄｍｉｎ",
        "אבג abc",
        "e\u{301}",
    ] {
        Client::hello(&node, name).await?;
    }
    Ok(())
}

/// Goal: the rate limit refuses with a time to wait, and only what was accepted is seen; by
/// default 20 a second, burst twice that. Method: 100 sends at once, then one after the wait.
#[tokio::test]
async fn sends_over_the_rate_are_refused_with_the_time_to_wait() -> Outcome {
    let node = Node::start(["--registry", "none"]).await?;
    let client = Client::joined(&node, "ada", "tea").await?;
    let waiting: Vec<_> = (0..100)
        .map(|count| client.start("send", json!({ "room": "tea", "text": count.to_string() })))
        .collect();
    let (mut accepted, mut wait) = (0, 0);
    for reply in waiting {
        match client.reply("send", reply).await {
            Ok(_) => accepted += 1,
            Err(error) => {
                let refused = error.downcast::<Refused>()?;
                assert_eq!(refused.code, "rate_limited");
                wait = refused
                    .retry_ms
                    .expect("rate_limited says when to try again");
            }
        }
    }
    assert!(
        (40..60).contains(&accepted),
        "{accepted} of 100 at once were accepted, burst is 40"
    );
    assert!((1..=1000).contains(&wait), "retry after {wait} ms");
    eventually(
        ms(wait) + PATIENCE,
        "a send is accepted after the wait",
        async || client.send("tea", "after the wait").await,
    )
    .await?;
    client.message(PATIENCE, "after the wait").await?;
    assert_eq!(
        client.messages().len(),
        accepted + 1,
        "refused messages were shown"
    );
    let free = Node::start(["--registry", "none", "--rate-limit", "0"]).await?;
    let client = Client::joined(&free, "ada", "tea").await?;
    let waiting: Vec<_> = (0..500)
        .map(|count| client.start("send", json!({ "room": "tea", "text": count.to_string() })))
        .collect();
    for reply in waiting {
        client.reply("send", reply).await?;
    }
    Ok(())
}

/// Goal: 50 rooms a connection, the 51st is refused; a room left makes place for another.
#[tokio::test]
async fn the_51st_room_is_refused_until_one_is_left() -> Outcome {
    let node = Node::start(["--registry", "none"]).await?;
    let client = Client::hello(&node, "ada").await?;
    for count in 0..50 {
        client.join(&format!("room{count}")).await?;
    }
    let refused = client.refusal("join", json!({ "room": "room50" })).await?;
    assert_eq!(refused.code, "room_limit");
    client.ask("leave", json!({ "room": "room7" })).await?;
    client.join("room50").await?;
    Ok(())
}

/// Goal: `copies` waits for that many nodes and says how many hold the message; alone it says 0
/// after 2 s and is no error.
#[tokio::test]
async fn copies_says_how_many_other_nodes_hold_the_message() -> Outcome {
    let cluster = Cluster::start(3).await?;
    let ada = Client::joined(&cluster.nodes[0], "ada", "tea").await?;
    let sent = ada
        .send_with(json!({ "room": "tea", "text": "kept", "copies": 2 }))
        .await?;
    assert_eq!(sent.copies, 2);
    let alone = Node::start(["--registry", "none"]).await?;
    let bob = Client::joined(&alone, "bob", "tea").await?;
    let start = crate::harness::Instant::now();
    let sent = bob
        .send_with(json!({ "room": "tea", "text": "alone", "copies": 1 }))
        .await?;
    let took = start.elapsed();
    assert_eq!(sent.copies, 0);
    assert!(
        (ms(1900)..ms(3000)).contains(&took),
        "the wait for copies took {took:?}, not 2 s"
    );
    Ok(())
}

/// Goal: history pages backwards without a hole or an overlap, over the socket as over HTTP, at
/// the size asked for and never more than 200; what is no size is refused.
/// Method: 450 messages; page by both; compare; then a table of sizes.
#[tokio::test]
async fn history_pages_join_without_hole_or_overlap() -> Outcome {
    let cluster = Cluster::with(2, &["--rate-limit", "0"]).await?;
    let ada = Client::hello(&cluster.nodes[0], "ada").await?;
    let bob = Client::hello(&cluster.nodes[1], "bob").await?;
    for count in 0..225 {
        ada.send("tea", &format!("a{count}")).await?;
        bob.send("tea", &format!("b{count}")).await?;
    }
    let all = crate::harness::histories(&cluster.nodes, "tea", PATIENCE).await?;
    assert_eq!(all.len(), 450);
    let mut paged: Vec<Msg> = Vec::new();
    let mut before = None;
    loop {
        let mut body = json!({ "room": "tea", "limit": 100 });
        if let Some(before) = &before {
            body["before"] = json!(before);
        }
        let reply = ada.ask("history", body).await?;
        let page: Vec<Msg> = serde_json::from_value(reply["messages"].clone())?;
        assert!(page.len() <= 100 && !page.is_empty());
        before = Some(page[0].id.clone());
        paged.splice(0..0, page);
        if reply["more"] == false {
            break;
        }
    }
    assert_eq!(paged, all);
    let joined = bob
        .join_with(json!({ "room": "tea", "history": 50 }))
        .await?;
    assert_eq!(joined.messages, all[400..]);
    for (limit, count) in [
        (json!(200), Some(200)),
        (json!(201), Some(200)),
        (json!(1_000_000_000), Some(200)),
        (json!(0), Some(0)),
        (json!(-1), None),
        (json!(1e9), None),
        (json!("10"), None),
    ] {
        let body = json!({ "room": "tea", "limit": limit });
        match (ada.ask("history", body).await, count) {
            (Ok(page), Some(count)) => {
                assert_eq!(
                    page["messages"].as_array().map(Vec::len),
                    Some(count),
                    "{limit}"
                );
            }
            (Err(error), None) => {
                let refused = error.downcast::<Refused>()?;
                assert_eq!(refused.code, "bad_request", "{limit}");
            }
            (answer, _) => panic!("{limit}: {answer:?}"),
        }
    }
    let none = ada
        .ask("history", json!({ "room": "empty", "limit": 10 }))
        .await?;
    assert_eq!(
        (&none["messages"], &none["more"]),
        (&json!([]), &json!(false))
    );
    Ok(())
}

/// Goal: several objects in one frame are several requests, `{}` is a ping, unknown fields are
/// ignored. Method: one frame with two sends of odd
/// fields, and one with a send and a ping.
#[tokio::test]
async fn a_frame_may_hold_several_objects() -> Outcome {
    let node = Node::start(["--registry", "none"]).await?;
    let client = Client::joined(&node, "ada", "tea").await?;
    client.say(Message::text(
        "{\"send\":{\"room\":\"tea\",\"text\":\"one\",\"colour\":\"red\"}}\n\
         {\"future\":1,\"send\":{\"room\":\"tea\",\"text\":\"two\"}}",
    ));
    client.message(PATIENCE, "one").await?;
    client.message(PATIENCE, "two").await?;
    client
        .ping(
            "{\"send\":{\"room\":\"tea\",\"text\":\"three\"}}\n",
            PATIENCE,
        )
        .await?;
    client.message(PATIENCE, "three").await?;
    Ok(())
}

/// Goal: an idle client costs a node next to nothing: a slot in a table, no task and no buffer.
/// Method: some thousand WebSockets that have said hello; what the process has grown by for each,
/// after a first one has paid for what is made once.
#[tokio::test]
async fn an_idle_client_takes_less_than_a_kilobyte_and_a_half() -> Outcome {
    const CLIENTS: usize = 2000;
    const BYTES_MAX: u64 = 1536;
    let node = Node::start(["--registry", "none"]).await?;
    let mut held = vec![Raw::websocket(&node, Some("first")).await?];
    let before = node.process.usage()?.rss;
    for number in 0..CLIENTS {
        held.push(Raw::websocket(&node, Some(&format!("client-{number}"))).await?);
    }
    let grown = node.process.usage()?.rss.saturating_sub(before);
    let each = grown / CLIENTS as u64;
    say!("{each} bytes for each of {CLIENTS} idle clients");
    assert!(each <= BYTES_MAX, "{each} bytes each");
    Ok(())
}
