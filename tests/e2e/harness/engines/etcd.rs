//! etcd: one server, asked by its JSON gateway.

use std::fs;

use anyhow::{Context as _, Result};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::ANSWERS_WITHIN;
use super::certificates::Certificates;
use super::server::{Server, folder};
use crate::harness::cluster::http;
use crate::harness::eventually::eventually;
use crate::harness::tools::free_port;

/// Where its data lies in its folder.
const DATA: &str = "data";

/// An etcd server.
#[derive(Debug)]
pub(crate) struct Etcd {
    server: Server,
    port: u16,
    /// Where it is in TLS, if it is.
    sealed: Option<u16>,
}

impl Etcd {
    /// A new one, which knows nothing.
    pub(crate) async fn start() -> Result<Self> {
        Self::with(None).await
    }

    /// A new one that is in TLS too, with this certificate.
    pub(crate) async fn in_tls(certificates: &Certificates) -> Result<Self> {
        Self::with(Some(certificates)).await
    }

    async fn with(certificates: Option<&Certificates>) -> Result<Self> {
        let (port, peers) = (free_port()?, free_port()?);
        let folder = folder("etcd")?;
        let (mut client, peer) = (
            format!("http://127.0.0.1:{port}"),
            format!("http://127.0.0.1:{peers}"),
        );
        let mut sealed = None;
        if certificates.is_some() {
            let port = free_port()?;
            client.push_str(&format!(",https://127.0.0.1:{port}"));
            sealed = Some(port);
        }
        let cluster = format!("t={peer}");
        let args = [
            ("--name", "t"),
            ("--data-dir", DATA),
            ("--listen-client-urls", &client),
            ("--advertise-client-urls", &client),
            ("--listen-peer-urls", &peer),
            ("--initial-advertise-peer-urls", &peer),
            ("--initial-cluster", &cluster),
        ];
        let args = args.map(|(flag, value)| [flag.to_owned(), value.to_owned()]);
        let mut args = args.concat();
        // What is killed is the process, not the machine.
        args.push("--unsafe-no-fsync".to_owned());
        if let Some(Certificates {
            certificate, key, ..
        }) = certificates
        {
            for (flag, file) in [("--cert-file", certificate), ("--key-file", key)] {
                args.extend([flag.to_owned(), file.display().to_string()]);
            }
        }
        let server = Server::own("etcd", &args, folder);
        let mut etcd = Self {
            server,
            port,
            sealed,
        };
        etcd.again().await?;
        Ok(etcd)
    }

    /// The URL by which a node finds it, for these keys.
    pub(crate) fn url(&self, prefix: &str) -> String {
        format!("etcd://127.0.0.1:{}/{prefix}", self.port)
    }

    /// The URL by which a node finds it in TLS.
    pub(crate) fn url_in_tls(&self, prefix: &str) -> String {
        let port = self.sealed.unwrap_or_default();
        format!("etcd+https://localhost:{port}/{prefix}")
    }

    /// `HOST:PORT`.
    pub(crate) fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Starts it again on its port, with its data.
    pub(crate) async fn again(&mut self) -> Result<()> {
        self.server.launch()?;
        let url = format!("http://127.0.0.1:{}/health", self.port);
        eventually(ANSWERS_WITHIN, "etcd answers", async || {
            if !self.server.lives() {
                return Ok(Err(self.server.ended()));
            }
            let health: Value = http()?.get(&url).send().await?.json().await?;
            anyhow::ensure!(health["health"] == "true", "{health}");
            anyhow::Ok(Ok(()))
        })
        .await?
    }

    /// Starts it again on its port, without anything that it had kept.
    pub(crate) async fn again_empty(&mut self) -> Result<()> {
        fs::remove_dir_all(self.server.folder().join(DATA))?;
        self.again().await
    }

    /// `kill -9`, and waits until it is gone.
    pub(crate) async fn kill(&mut self) -> Result<()> {
        self.server.kill().await
    }

    /// Asks it for something.
    pub(crate) async fn ask(&self, what: &str, body: Value) -> Result<Value> {
        let url = format!("http://127.0.0.1:{}/v3/{what}", self.port);
        let answer = http()?.post(&url).json(&body).send().await?;
        let answer = answer.error_for_status()?;
        Ok(answer.json().await?)
    }

    /// All keys with this prefix: each, with its value and the lease that it has.
    pub(crate) async fn keys(&self, prefix: &str) -> Result<Vec<(String, Value, String)>> {
        let end = format!("{prefix}\u{7f}");
        let body = json!({ "key": STANDARD.encode(prefix), "range_end": STANDARD.encode(end) });
        let found = self.ask("kv/range", body).await?;
        let found = found["kvs"].as_array().cloned().unwrap_or_default();
        let key = |kv: &Value| {
            let text = |name: &str| STANDARD.decode(kv[name].as_str().unwrap_or_default());
            let value = serde_json::from_slice(&text("value")?)?;
            let lease = kv["lease"].as_str().unwrap_or_default().to_owned();
            Ok((String::from_utf8(text("key")?)?, value, lease))
        };
        found.iter().map(key).collect()
    }

    /// Puts a value under a key.
    pub(crate) async fn put(&self, key: &str, value: &str) -> Result<()> {
        let body = json!({ "key": STANDARD.encode(key), "value": STANDARD.encode(value) });
        self.ask("kv/put", body).await.map(drop)
    }

    /// Takes a key away.
    pub(crate) async fn delete(&self, key: &str) -> Result<()> {
        let body = json!({ "key": STANDARD.encode(key) });
        self.ask("kv/deleterange", body).await.map(drop)
    }

    /// Forgets all changes until now.
    pub(crate) async fn compact(&self) -> Result<()> {
        let now = self
            .ask("kv/range", json!({ "key": STANDARD.encode("x") }))
            .await?;
        let revision = now["header"]["revision"].as_str().context("no revision")?;
        let body = json!({ "revision": revision, "physical": true });
        self.ask("kv/compaction", body).await.map(drop)
    }

    /// Lets in only whom it knows: `root`, and a user who may do everything with keys of this prefix.
    pub(crate) async fn lock(&self, user: &str, password: &str, prefix: &str) -> Result<()> {
        for (name, password) in [("root", "root"), (user, password)] {
            let body = json!({ "name": name, "password": password });
            self.ask("auth/user/add", body).await?;
        }
        self.ask("auth/role/add", json!({ "name": "nodes" }))
            .await?;
        let (key, end) = (
            STANDARD.encode(prefix),
            STANDARD.encode(format!("{prefix}\u{7f}")),
        );
        let grant = json!({ "name": "nodes", "perm": {
            "permType": "READWRITE", "key": key, "range_end": end,
        } });
        self.ask("auth/role/grant", grant).await?;
        for (user, role) in [("root", "root"), (user, "nodes")] {
            let body = json!({ "user": user, "role": role });
            self.ask("auth/user/grant", body).await?;
        }
        self.ask("auth/enable", json!({})).await.map(drop)
    }
}
