//! Why the core, or the disk behind it, has no answer, as clients are told.

use super::protocol::Refusal;
use crate::core::journal::NotTaken;
use crate::core::question::ReadError;
use crate::model::names::EntryId;

/// When to try again what the disk had no room or no time for.
const RETRY_MS: u64 = 1000;

/// What could not be read.
pub(crate) fn unread(why: &ReadError) -> Refusal {
    let code = match why {
        ReadError::Busy => "overloaded",
        ReadError::Slow => "search_slow",
        ReadError::Broken(_) | ReadError::Closed => "storage_broken",
    };
    Refusal::new(code, why.to_string())
}

/// A message that was not taken.
pub(crate) fn not_taken(why: NotTaken) -> Refusal {
    let (code, message) = match why {
        NotTaken::Full => (
            "storage_full",
            "this node's disk is full: the message was not taken",
        ),
        NotTaken::Busy => (
            "overloaded",
            "this node's disk does not keep up: the message was not taken",
        ),
        NotTaken::Broken => (
            "storage_broken",
            "this node's disk failed, and the node stops: go to another",
        ),
    };
    Refusal {
        retry_ms: Some(RETRY_MS),
        ..Refusal::new(code, message)
    }
}

/// `before` names no message that is kept.
pub(crate) fn id_unknown() -> Refusal {
    Refusal::new("id_unknown", "no message of this id is held here")
}

/// The client was shown what nobody has: only it can tell the retries of that.
pub(crate) fn mids_wanted(behind: &[EntryId]) -> Refusal {
    let message = "nobody has what you were shown behind these: name its mids, and ask again";
    Refusal {
        behind: behind.iter().map(EntryId::to_string).collect(),
        ..Refusal::new("mids_wanted", message)
    }
}
