//! A request's JSON body, read with bounds: in type, in size, in time. For both programs.

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
    let read = async {
        let mut kept = BytesMut::new();
        let mut too_large = announced > bytes_max as u64;
        let mut count = 0;
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|_| Problem::bad_request("the body ended early"))?;
            let Ok(data) = frame.into_data() else {
                continue;
            };
            count += data.len();
            too_large |= count > bytes_max;
            if count > DISCARD_BYTES_MAX {
                break;
            }
            if !too_large {
                kept.extend_from_slice(&data);
            }
        }
        if too_large {
            Err(Problem::too_large(bytes_max))
        } else {
            Ok(kept.freeze())
        }
    };
    match tokio::time::timeout(BODY_TIMEOUT, read).await {
        Ok(outcome) => outcome,
        Err(_) => Err(Problem::timeout(BODY_TIMEOUT)),
    }
}
