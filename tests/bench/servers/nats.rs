//! NATS servers: one, or a full-mesh cluster, whose routes are plain or in mutual TLS.

use std::fs;
use std::net::TcpStream;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail, ensure};

use super::{STARTS_WITHIN, Servers, find, folder, free_ports, get, run};
use crate::clock::eventually;

/// What `openssl` is to put into the certificate of a server, which is that of a client too.
const EXTENSIONS: &str = "\
basicConstraints = CA:FALSE
keyUsage = digitalSignature
extendedKeyUsage = serverAuth, clientAuth
subjectAltName = IP:127.0.0.1
";

impl Servers {
    /// Starts so many, and waits until they have found each other. With `tls` all that goes between
    /// them is encrypted, and each shows the others a certificate. Where clients of the first come that
    /// speak NATS without WebSocket.
    pub(super) fn nats(&mut self, nodes: usize, tls: bool) -> Result<u16> {
        let binary = find("nats-server").context("nats-server is missing")?;
        let ports = free_ports(nodes * 4)?;
        let routes: Vec<_> = ports
            .chunks(4)
            .map(|own| format!("nats-route://127.0.0.1:{}", own[3]))
            .collect();
        let tls = if tls { certificates()? } else { String::new() };
        for (node, own) in ports.chunks(4).enumerate() {
            let [client, monitor, websocket, cluster] = own else {
                bail!("four ports a node")
            };
            let mut conf = format!(
                "listen: 127.0.0.1:{client}\nhttp: 127.0.0.1:{monitor}\nserver_name: n{node}\n\
                 websocket {{ listen: \"127.0.0.1:{websocket}\", no_tls: true }}\n"
            );
            if nodes > 1 {
                let routes = routes.join(", ");
                conf += &format!(
                    "cluster {{ name: bench, listen: 127.0.0.1:{cluster}, routes: [{routes}]{tls} }}\n"
                );
            }
            let path = folder().join(format!("nats-{node}.conf"));
            fs::write(&path, conf)?;
            let mut command = Command::new(&binary);
            command.stdout(Stdio::null()).arg("-c").arg(&path);
            self.spawn(&format!("nats-{node}"), &mut command)?;
            self.urls.push(format!("http://127.0.0.1:{websocket}"));
        }
        self.protocol = "nats";
        for own in ports.chunks(4) {
            let monitor = format!("http://127.0.0.1:{}", own[1]);
            let linked = eventually(STARTS_WITHIN, || {
                TcpStream::connect(("127.0.0.1", own[2])).ok()?;
                let routes = get(&monitor, "/routez").ok()?;
                let names = routes["routes"].as_array()?.iter();
                let mut ids: Vec<_> = names
                    .filter_map(|route| route["remote_id"].as_str())
                    .collect();
                ids.sort_unstable();
                ids.dedup();
                (ids.len() == nodes - 1).then_some(())
            });
            linked.context("the NATS servers did not find each other")?;
            let cluster = &get(&monitor, "/varz")?["cluster"];
            ensure!(
                tls.is_empty() || nodes == 1 || cluster["tls_verify"] == true,
                "the routes of NATS are not in mutual TLS"
            );
        }
        Ok(ports[0])
    }
}

/// Makes an authority and a certificate of it, and says how a cluster uses them.
fn certificates() -> Result<String> {
    let folder = folder().join("nats-tls");
    fs::create_dir_all(&folder)?;
    let path = |name: &str| folder.join(name).to_string_lossy().into_owned();
    let openssl = |args: &str| {
        let args: Vec<String> = args
            .split(' ')
            .map(|arg| match arg.strip_prefix('@') {
                Some(name) => path(name),
                None => arg.to_owned(),
            })
            .collect();
        run(
            "openssl",
            &args.iter().map(String::as_str).collect::<Vec<_>>(),
        )
    };
    let key = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes";
    fs::write(path("extensions"), EXTENSIONS)?;
    openssl(&format!(
        "req -x509 {key} -days 30 -subj /CN=bench -keyout @ca.key -out @ca.pem"
    ))?;
    openssl(&format!(
        "req {key} -subj /CN=node -keyout @node.key -out @node.request"
    ))?;
    openssl(
        "x509 -req -in @node.request -CA @ca.pem -CAkey @ca.key -CAcreateserial -days 30 \
         -extfile @extensions -out @node.pem",
    )?;
    Ok(format!(
        ", tls {{ cert_file: \"{}\", key_file: \"{}\", ca_file: \"{}\", verify: true, timeout: 5 }}",
        path("node.pem"),
        path("node.key"),
        path("ca.pem")
    ))
}
