//! Sentinels: who knows which server is the primary now.

use std::time::Duration;

use ::redis::cmd;
use base::endpoint::{Endpoint, Host, Scheme};
use tokio::time::timeout;

use super::super::Me;
use super::super::url::{Place, Watch};
use super::{commands, dial, fault};
use crate::core::links::fault::{Fault, Why};

/// A sentinel that does not answer within this time is passed over.
const ANSWER_MAX: Duration = Duration::from_millis(500);
/// How often they are asked whether the primary is another. One that nobody reaches but this node would
/// else be its own for ever.
const ASK_EVERY: Duration = Duration::from_secs(2);

/// Where the primary is: what the first says that knows.
pub(super) async fn primary(watch: &Watch, me: &Me) -> Result<Endpoint, Fault> {
    let mut last = Fault::new(Why::Unreachable, "no sentinel is named");
    for sentinel in &watch.sentinels {
        match timeout(ANSWER_MAX, ask(sentinel, watch, me)).await {
            Ok(Ok(primary)) => return Ok(primary),
            Ok(Err(why)) => last = why,
            Err(_) => last = Fault::new(Why::TimedOut, "timed out: no answer from there"),
        }
    }
    last.text = format!("no sentinel tells where {:?} is: {}", watch.name, last.text);
    Err(last)
}

async fn ask(sentinel: &Endpoint, watch: &Watch, me: &Me) -> Result<Endpoint, Fault> {
    let place = Place::Servers(vec![sentinel.clone()]);
    let stream = dial(&place, false, &watch.login, me).await?;
    let (mut connection, driver) = commands(stream).await?;
    let mut question = cmd("SENTINEL");
    question.arg("get-master-addr-by-name").arg(&watch.name);
    let told = tokio::select! {
        told = question.query_async::<Option<(String, u16)>>(&mut connection) => told,
        fault = driver => return Err(fault),
    };
    let Some((host, port)) = told.map_err(|why| fault(&why))? else {
        let text = format!(
            "sentinel {}:{} knows no such name",
            sentinel.host, sentinel.port
        );
        return Err(Fault::new(Why::NoBroker, text));
    };
    let host = host
        .parse()
        .map_or_else(|_| Host::Name(host.to_lowercase()), Host::Ip);
    Ok(Endpoint {
        scheme: Scheme::Tcp,
        host,
        port,
    })
}

/// Waits until sentinels say that another is the primary.
pub(super) async fn moves(watch: Watch, me: Me, now: Vec<Endpoint>) -> Fault {
    loop {
        tokio::time::sleep(ASK_EVERY).await;
        if let Ok(primary) = primary(&watch, &me).await
            && !now.contains(&primary)
        {
            let Endpoint { host, port, .. } = primary;
            let text = format!("the primary is at {host}:{port} now");
            return Fault::new(Why::Ended, text);
        }
    }
}
