//! Bodies read with bounds: a request's JSON in type, in size, in time; an answer's in size.

use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderMap, header};
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;
use serde::de::DeserializeOwned;

use crate::problem::Problem;

/// Time for a request's body to arrive.
pub const BODY_TIMEOUT: Duration = Duration::from_secs(10);
/// How much of a body that is too large is read away, so that its sender gets to read the answer.
const DISCARD_BYTES_MAX: usize = 16 << 20;
/// And for how long.
const DISCARD_TIMEOUT: Duration = Duration::from_secs(1);

/// Reads a body of JSON.
///
/// # Errors
/// 415 for another type, 413 for more than `bytes_max`, 408 for one slower than [`BODY_TIMEOUT`],
/// 400 for what is not JSON of this shape.
pub async fn json<T: DeserializeOwned>(
    headers: &HeaderMap,
    body: Body,
    bytes_max: usize,
) -> Result<T, Problem> {
    if !is_json(headers) {
        return Err(Problem::unsupported_media_type());
    }
    let body = read(headers, body, bytes_max).await?;
    serde_json::from_slice(&body).map_err(|error| Problem::bad_request(error.to_string()))
}

fn is_json(headers: &HeaderMap) -> bool {
    headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split(';').next())
        .is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/json"))
}

async fn read(headers: &HeaderMap, mut body: Body, bytes_max: usize) -> Result<Bytes, Problem> {
    let announced = headers
        .get(header::CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.parse::<u64>().ok())
        .unwrap_or(0);
    let mut kept = BytesMut::new();
    let keep = async {
        let mut too_large = announced > bytes_max as u64;
        while !too_large {
            let Some(data) = next(&mut body).await? else {
                return Ok(false);
            };
            too_large = kept.len() + data.len() > bytes_max;
            kept.extend_from_slice(&data[..data.len() * usize::from(!too_large)]);
        }
        Ok(true)
    };
    match tokio::time::timeout(BODY_TIMEOUT, keep).await {
        Ok(Ok(false)) => Ok(kept.freeze()),
        Ok(Ok(true)) => {
            // Whatever comes of it, the answer is the same.
            let _ = tokio::time::timeout(DISCARD_TIMEOUT, discard(&mut body)).await;
            Err(Problem::too_large(bytes_max))
        }
        Ok(Err(problem)) => Err(problem),
        Err(_) => Err(Problem::timeout(BODY_TIMEOUT)),
    }
}

async fn next(body: &mut Body) -> Result<Option<Bytes>, Problem> {
    match body.frame().await {
        None => Ok(None),
        Some(Ok(frame)) => Ok(Some(frame.into_data().unwrap_or_default())),
        Some(Err(_)) => Err(Problem::bad_request("the body ended early")),
    }
}

async fn discard(body: &mut Body) {
    let mut count = 0;
    while let Ok(Some(data)) = next(body).await
        && count < DISCARD_BYTES_MAX
    {
        count += data.len();
    }
}

/// The body of an answer, unless it is longer than `bytes_max`.
///
/// # Errors
/// The connection broke, or the answer did not come in time.
pub async fn of_answer(
    mut answer: reqwest::Response,
    bytes_max: usize,
) -> Result<Option<Bytes>, reqwest::Error> {
    let mut body = BytesMut::new();
    while let Some(chunk) = answer.chunk().await? {
        if body.len() + chunk.len() > bytes_max {
            return Ok(None);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(Some(body.freeze()))
}
