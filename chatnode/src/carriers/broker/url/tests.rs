//! What is a broker's URL, how it is shown, and what is refused.

use super::*;

fn url(text: &str) -> BrokerUrl {
    text.parse().unwrap_or_else(|why| panic!("{text}: {why}"))
}

#[test]
fn a_url_is_shown_without_its_secrets() {
    for (text, shown, user, password) in [
        ("redis://127.0.0.1", "redis://127.0.0.1:6379", None, None),
        ("redis://LocalHost:1/", "redis://localhost:1", None, None),
        ("valkey://[::1]:7/0", "valkey://[::1]:7", None, None),
        ("redis://:p%40+w@h", "redis://h:6379", None, Some("p@+w")),
        (
            "rediss://ann:pw@h:1",
            "rediss://h:1",
            Some("ann"),
            Some("pw"),
        ),
        (
            "redis+unix:///run/r%20s",
            "redis+unix:///run/r s",
            None,
            None,
        ),
        (
            "redis+unix:///run/s?user=u&pass=pw",
            "redis+unix:///run/s",
            Some("u"),
            Some("pw"),
        ),
        (
            "redis+sentinel://:pw@h?sentinel_master_name=m&addr=i:1",
            "redis+sentinel://h:26379,i:1/m",
            None,
            Some("pw"),
        ),
        (
            "redis+sentinel://h:1,i/m",
            "redis+sentinel://h:1,i:26379/m",
            None,
            None,
        ),
        ("nats://h", "nats://h:4222", None, None),
        (
            "tls+nats://ann:pw@h1,h2:7/",
            "tls+nats://h1:4222,h2:7",
            Some("ann"),
            Some("pw"),
        ),
        ("amqp://h", "amqp://h:5672", None, None),
        ("amqp://h/", "amqp://h:5672", None, None),
        ("amqp://h/%2f?heartbeat=0", "amqp://h:5672", None, None),
        (
            "amqps://ann:p%2fw@h:1/chat?heartbeat=30",
            "amqps://h:1/chat",
            Some("ann"),
            Some("p/w"),
        ),
        (
            "zmq+proxy://h:5557,5558",
            "zmq+proxy://h:5557,5558",
            None,
            None,
        ),
        (
            "zmq+proxy://[::1]:1,2/",
            "zmq+proxy://[::1]:1,2",
            None,
            None,
        ),
        ("nats://to-ken@h", "nats://h:4222", Some("to-ken"), None),
    ] {
        let url = url(text);
        assert_eq!(url.shown(), shown);
        assert_eq!(format!("{url:?} {url}"), format!("{shown} {shown}"));
        assert_eq!(url.login.user.as_deref(), user, "{text}");
        assert_eq!(url.login.password.as_deref(), password, "{text}");
    }
    assert!(url("rediss://h").tls && url("valkeys://h").tls && !url("redis://h").tls);
}

#[test]
fn what_is_refused_says_why_and_tells_no_secret() {
    for (text, word) in [
        ("kafka://h", "expected zmq"),
        ("h:6379", "expected zmq"),
        ("redis://:hush@h/3", "numbered databases"),
        ("redis://:hush@h,i", "--bus of its own"),
        ("redis://:hush@h:0", "1 to 65535"),
        ("redis://:hush@", "no URL"),
        ("redis://:hush@h:port", "no URL"),
        ("redis://:hush@0.0.0.0", "tcp://"),
        ("redis://:hush@h#insecure", "'#'"),
        ("redis://:hush@h?protocol=resp3", "\"protocol\""),
        ("redis+unix://run/s", "three slashes"),
        ("redis+sentinel://h", "which primary"),
        ("redis://:hush@h /", "space"),
        ("tls://hush@h", "expected zmq"),
        ("amqp://a:hush@h,i", "--bus of its own"),
        ("amqp://a:hush@h/a/b", "%2f"),
        ("amqp://a:hush@h/%00", "no vhost"),
        ("amqp://a:hush@h?heartbeat=never", "heartbeat: 0 to 3600"),
        ("amqp://a:hush@h?frame_max=1", "\"frame_max\""),
        ("zmq+proxy://h:5557", "XPUB"),
        ("zmq+proxy://h,5558", "XPUB"),
        ("zmq+proxy://h:1,i:2", "XPUB"),
        ("zmq+proxy://h:1,2,3", "XPUB"),
        ("zmq+proxy://h:0,2", "1 to 65535"),
        ("zmq+proxy://a:hush@h:1,2", "no password"),
        ("nats://hush@h/main", "--mesh NAME"),
        ("nats://hush@h?creds=f", "\"creds\""),
        ("nats://hush@h,,i", ""),
    ] {
        let why = text.parse::<BrokerUrl>().unwrap_err().to_string();
        assert!(!why.contains("hush") && !why.contains('\n'), "{why}");
        if word != "tcp://" {
            assert!(why.contains(word), "{text}: {why}");
        }
    }
}
