//! Waiting for a condition, never for a time.

use std::fmt::Display;

use anyhow::{Result, bail};
use tokio::time::{Duration, Instant, sleep, timeout_at};

/// Pause between two looks. Short beside every time that a test asserts.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// Looks until `condition` gives `Ok`, and gives that. When the deadline passes, the error says
/// what was awaited and what the last look saw.
pub(crate) async fn eventually<T, E: Display>(
    within: Duration,
    what: &str,
    mut condition: impl AsyncFnMut() -> Result<T, E>,
) -> Result<T> {
    let deadline = Instant::now() + within;
    let mut last = "nothing was seen yet".to_owned();
    loop {
        match timeout_at(deadline, condition()).await {
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(seen)) => last = format!("{seen:#}"),
            Err(_) => last.push_str(" (and the last look did not end)"),
        }
        if Instant::now() >= deadline {
            bail!("after {within:?} still not: {what}; last seen: {last}");
        }
        sleep(LOOK_EVERY).await;
    }
}

/// Fails with a text unless the condition holds: for use inside [`eventually`].
pub(crate) fn holds(condition: bool, seen: impl Display) -> Result<(), String> {
    if condition {
        Ok(())
    } else {
        Err(seen.to_string())
    }
}
