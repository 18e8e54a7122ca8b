//! What is asked of peers by HTTP.

use super::repair::Fetch;
use crate::model::names::Origin;

/// Something that a peer is to be asked.
#[derive(Debug, Clone, Copy)]
pub(super) enum Request {
    /// Entries.
    Entries(Fetch),
    /// Its members.
    Members(Origin),
    /// Its position.
    Position(Origin),
}
