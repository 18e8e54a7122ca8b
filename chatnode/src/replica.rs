//! The replicated log, pure: input and time in, effects out. No socket, no clock, no tokio.

pub mod entry;
pub mod names;
