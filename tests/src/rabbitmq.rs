//! RabbitMQ as it is started here: in a folder of its own, on ports of its own, without plugins.

use std::fs;
use std::io;
use std::path::Path;

/// Debian's own command changes the user; this does not.
pub const SERVER: &str = "/usr/lib/rabbitmq/bin/rabbitmq-server";
/// What it logs when a start is complete: clients are let in before.
pub const COMPLETE: &str = "Server startup complete";

/// What it is told. The alarm's mark is far above what it needs to start: a lower one rings at once.
const CONF: &str = "\
vm_memory_high_watermark.absolute = 400MB
disk_free_limit.absolute = 1MB
heartbeat = 10
";

/// Writes the files that it reads, these lines among them: where clients come.
///
/// # Errors
/// They cannot be written.
pub fn write_files(folder: &Path, listeners: &str) -> io::Result<()> {
    fs::write(folder.join("rabbitmq.conf"), listeners.to_owned() + CONF)?;
    // No plugins.
    fs::write(folder.join("plugins"), "[].\n")
}

/// What the server and its tools read from their environment. The ports are those of Erlang's book of
/// names, which is to be open already, and of its nodes.
#[must_use]
pub fn variables(folder: &Path, epmd: u16, nodes: u16) -> Vec<(&'static str, String)> {
    let within = |name: &str| folder.join(name).display().to_string();
    // The server replaces its script, so that there is one process to signal.
    let in_the_front = "1".to_owned();
    // Its own nodes only from here; and one thread, which does not wait by turning.
    let erlang = "+S 1:1 +sbwt none -noinput -kernel inet_dist_use_interface {127,0,0,1}";
    vec![
        ("HOME", within("")),
        ("ERL_EPMD_PORT", epmd.to_string()),
        ("ERL_EPMD_ADDRESS", "127.0.0.1".to_owned()),
        ("RABBITMQ_NODENAME", "chatmesh@localhost".to_owned()),
        ("RABBITMQ_DIST_PORT", nodes.to_string()),
        ("RABBITMQ_MNESIA_BASE", within("mnesia")),
        ("RABBITMQ_LOG_BASE", within("logs")),
        ("RABBITMQ_LOGS", "-".to_owned()),
        ("RABBITMQ_ENABLED_PLUGINS_FILE", within("plugins")),
        ("RABBITMQ_PLUGINS_EXPAND_DIR", within("expand")),
        ("RABBITMQ_PID_FILE", within("rabbitmq.pid")),
        ("RABBITMQ_CONFIG_FILE", within("rabbitmq.conf")),
        ("RABBITMQ_CONF_ENV_FILE", "/dev/null".to_owned()),
        ("RABBITMQ_FEATURE_FLAGS_FILE", within("feature_flags")),
        ("RABBITMQ_ALLOW_INPUT", in_the_front),
        ("RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS", erlang.to_owned()),
    ]
}
