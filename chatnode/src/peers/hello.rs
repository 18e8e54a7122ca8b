//! What becomes of a hello: taken, and by whom, or why not.

use base::problem::ProblemBody;
use base::resolver;
use base::tls::{self, Refusal};
use registry::api::{ENDPOINT_HTTP, ENDPOINT_PUB, check_endpoint};

use super::Introduction;
use crate::core::Identity;
use crate::core::links::fault::{Fault, Why};
use crate::model::mesh_name::MeshName;
use crate::model::names::{Origin, UserName};

/// An answer is at most so long.
const ANSWER_BYTES_MAX: usize = 8 << 10;

/// Says hello; the answer, or why it was not taken.
pub(super) async fn said(
    url: &str,
    request: reqwest::RequestBuilder,
) -> Result<reqwest::Response, Fault> {
    let answer = match request.send().await {
        Ok(answer) if answer.status().is_success() => return Ok(answer),
        Ok(answer) => answer,
        Err(why) => return Err(not_said(url, &why)),
    };
    let status = answer.status().as_u16();
    let problem = problem(answer).await;
    let (code, detail) = problem
        .as_ref()
        .map_or(("", "no reason given"), |it| (&*it.code, &*it.detail));
    let why = match code {
        "other_node" => Why::OtherNode,
        "other_mesh" => Why::OtherMesh,
        _ => Why::NotLetIn,
    };
    let detail = detail.replace(char::is_control, " ");
    let text = format!("{url} does not take this node's hello: {detail} ({status})");
    Err(Fault::new(why, text))
}

/// Who has answered a hello to an address. An answer is a stranger's word, like all that is listed.
pub(super) async fn met(
    address: &str,
    answer: reqwest::Response,
    mesh: &MeshName,
) -> Result<Identity, Fault> {
    let no_node = || {
        let text = format!("what answers at {address} is no node of this kind");
        Fault::new(Why::NoPublisher, text)
    };
    let body = match base::body::of_answer(answer, ANSWER_BYTES_MAX).await {
        Ok(body) => body.ok_or_else(no_node)?,
        Err(why) => return Err(not_said(address, &why)),
    };
    let its: Introduction = serde_json::from_slice(&body).map_err(|_| no_node())?;
    if its.mesh.as_deref() != Some(mesh.as_str()) {
        let text = format!("a node of another mesh is at {address}");
        return Err(Fault::new(Why::OtherMesh, text));
    }
    let origin: Origin = its.origin.parse().map_err(|_| no_node())?;
    let checked = |name, text: &str| {
        let endpoint = check_endpoint(name, text);
        endpoint.map(|it| it.to_string()).map_err(|_| no_node())
    };
    let name = its.name.and_then(|name| name.parse::<UserName>().ok());
    Ok(Identity {
        origin,
        name: name.map_or_else(|| origin.to_string(), |name| name.to_string()),
        http: checked(ENDPOINT_HTTP, &its.http)?,
        // Who is heard by brokers only has none.
        publisher: match its.publisher.as_str() {
            "" => String::new(),
            told => checked(ENDPOINT_PUB, told)?,
        },
    })
}

fn not_said(url: &str, why: &reqwest::Error) -> Fault {
    let mut cause: &dyn std::error::Error = why;
    while let Some(next) = cause.source() {
        cause = next;
    }
    if let Some(refusal) = tls::refusal(why) {
        let word = match refusal {
            Refusal::OtherKey => Why::OtherKey,
            Refusal::NotSealed => Why::NotSealed,
        };
        return Fault::new(word, format!("{url} {}", refusal.what()));
    }
    let io = cause.downcast_ref::<std::io::Error>();
    let refused = io.is_some_and(|io| io.kind() == std::io::ErrorKind::ConnectionRefused);
    if refused {
        Fault::new(Why::Refused, format!("refused: nobody listens at {url}"))
    } else if why.is_connect() && !why.is_timeout() && !resolver::is_undecided(why) {
        Fault::new(Why::Unreachable, format!("no way to {url}: {cause}"))
    } else {
        Fault::new(Why::TimedOut, format!("no answer from {url}: {cause}"))
    }
}

/// What an answer says went wrong, if it is short and has that form.
async fn problem(answer: reqwest::Response) -> Option<ProblemBody> {
    let body = base::body::of_answer(answer, ANSWER_BYTES_MAX)
        .await
        .ok()??;
    serde_json::from_slice(&body).ok()
}
