//! A name server of the test's own: UDP, records of addresses and of services, that can fail in each way
//! in which name servers do.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::Result;
use tokio::net::UdpSocket;
use tokio::task::JoinHandle;

use crate::harness::spawn;

/// Of records of addresses, and of services.
const A: u16 = 1;
const SRV: u16 = 33;
/// Of the internet.
const IN: u16 = 1;

/// What it does with a question.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Mood {
    /// Answers it.
    #[default]
    Well,
    /// Says that it failed (SERVFAIL).
    Fails,
    /// Says that there is no such name (NXDOMAIN).
    KnowsNoName,
    /// Says that there is nothing under the name.
    IsEmpty,
    /// Says nothing.
    IsSilent,
}

/// A name server; ends when dropped.
#[derive(Debug)]
pub(crate) struct NameServer {
    at: SocketAddr,
    zone: Arc<Mutex<Zone>>,
    asked: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

#[derive(Debug, Default)]
struct Zone {
    mood: Mood,
    hosts: HashMap<String, Vec<Ipv4Addr>>,
    services: HashMap<String, Vec<(String, u16)>>,
}

impl NameServer {
    /// One that knows no name.
    pub(crate) async fn start() -> Result<Self> {
        Self::on("127.0.0.1").await
    }

    /// The same at this address.
    pub(crate) async fn on(ip: &str) -> Result<Self> {
        let socket = UdpSocket::bind((ip, 0)).await?;
        let at = socket.local_addr()?;
        let (zone, asked) = (Arc::<Mutex<Zone>>::default(), Arc::<AtomicUsize>::default());
        let task = spawn(serve(socket, Arc::clone(&zone), Arc::clone(&asked)));
        Ok(Self {
            at,
            zone,
            asked,
            task,
        })
    }

    /// `dns+NAME:PORT`, for nodes that ask it.
    pub(crate) fn url(&self, name: &str, port: u16) -> String {
        format!("dns+{name}:{port}?server={}", self.at)
    }

    /// `dnssrv+NAME`, for nodes that ask it.
    pub(crate) fn url_of_services(&self, name: &str) -> String {
        format!("dnssrv+{name}?server={}", self.at)
    }

    /// Under a name are these addresses.
    pub(crate) fn host(&self, name: &str, addresses: &[Ipv4Addr]) {
        let mut zone = locked(&self.zone);
        zone.hosts.insert(name.to_owned(), addresses.to_vec());
    }

    /// Under a name are these ports of hosts.
    pub(crate) fn service(&self, name: &str, places: &[(&str, u16)]) {
        let places = places
            .iter()
            .map(|(host, port)| ((*host).to_owned(), *port));
        let mut zone = locked(&self.zone);
        zone.services.insert(name.to_owned(), places.collect());
    }

    /// What it does from now on.
    pub(crate) fn is(&self, mood: Mood) {
        locked(&self.zone).mood = mood;
    }

    /// How often it was asked.
    pub(crate) fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }
}

impl Drop for NameServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn locked(zone: &Mutex<Zone>) -> MutexGuard<'_, Zone> {
    zone.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn serve(socket: UdpSocket, zone: Arc<Mutex<Zone>>, asked: Arc<AtomicUsize>) {
    let mut buffer = [0; 1500];
    while let Ok((len, from)) = socket.recv_from(&mut buffer).await {
        asked.fetch_add(1, Ordering::Relaxed);
        let answer = answer(&buffer[..len], &locked(&zone));
        if let Some(answer) = answer {
            // Who has gone hears nothing.
            let _sent = socket.send_to(&answer, from).await;
        }
    }
}

/// The answer to one question, by RFC 1035 and RFC 2782.
fn answer(question: &[u8], zone: &Zone) -> Option<Vec<u8>> {
    if zone.mood == Mood::IsSilent {
        return None;
    }
    let (name, end) = name(question)?;
    let kind = u16::from_be_bytes(question.get(end..end + 2)?.try_into().ok()?);
    let hosts = zone.hosts.get(&name).filter(|_| kind == A);
    let services = zone.services.get(&name).filter(|_| kind == SRV);
    let hosts = hosts.into_iter().flatten().map(|ip| ip.octets().to_vec());
    let services = services.into_iter().flatten().map(|(host, port)| {
        let mut data = vec![0, 0, 0, 0];
        data.extend(port.to_be_bytes());
        for label in host.split('.').filter(|label| !label.is_empty()) {
            data.push(u8::try_from(label.len()).expect("labels are short"));
            data.extend(label.as_bytes());
        }
        data.push(0);
        data
    });
    let is_known = zone.hosts.contains_key(&name) || zone.services.contains_key(&name);
    let code = match zone.mood {
        Mood::Fails => 2,
        Mood::KnowsNoName => 3,
        Mood::Well if !is_known => 3,
        Mood::Well | Mood::IsEmpty | Mood::IsSilent => 0,
    };
    let records: Vec<Vec<u8>> = match zone.mood {
        Mood::Well => hosts.chain(services).collect(),
        _ => Vec::new(),
    };
    let mut answer = question.get(..2)?.to_vec();
    // An answer, by who is responsible for the name; asked and able to look further.
    answer.extend([0b1000_0101, 0b1000_0000 | code]);
    answer.extend([0, 1]);
    answer.extend(u16::try_from(records.len()).ok()?.to_be_bytes());
    answer.extend([0; 4]);
    answer.extend(question.get(12..end + 4)?);
    for data in records {
        // The name of the question; good for no time.
        answer.extend([0xc0, 12]);
        answer.extend(kind.to_be_bytes());
        answer.extend(IN.to_be_bytes());
        answer.extend([0; 4]);
        answer.extend(u16::try_from(data.len()).ok()?.to_be_bytes());
        answer.extend(data);
    }
    Some(answer)
}

/// The name that is asked for, in lower case, and where it ends.
fn name(question: &[u8]) -> Option<(String, usize)> {
    let (mut labels, mut at) = (Vec::new(), 12);
    loop {
        let len = usize::from(*question.get(at)?);
        at += 1;
        if len == 0 {
            return Some((labels.join("."), at));
        }
        let label = question.get(at..at + len)?;
        labels.push(String::from_utf8_lossy(label).to_lowercase());
        at += len;
    }
}
