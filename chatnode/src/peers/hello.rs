//! What becomes of a hello: taken, or why not.

use base::problem::ProblemBody;
use base::resolver;
use base::tls::{self, Refusal};

use crate::core::links::fault::{Fault, Why};

/// An answer that says what went wrong is at most so long.
const PROBLEM_BYTES_MAX: usize = 8 << 10;

/// Says hello; why it was not taken, if it was not.
pub(super) async fn said(url: &str, request: reqwest::RequestBuilder) -> Option<Fault> {
    let answer = match request.send().await {
        Ok(answer) if answer.status().is_success() => return None,
        Ok(answer) => answer,
        Err(why) => return Some(not_said(url, &why)),
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
    Some(Fault::new(why, text))
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
    let body = base::body::of_answer(answer, PROBLEM_BYTES_MAX)
        .await
        .ok()??;
    serde_json::from_slice(&body).ok()
}
