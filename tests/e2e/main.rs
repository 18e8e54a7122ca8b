//! Tests on the built programs: real processes, real sockets, real signals, a real browser.
//!
//! One module for each subject. A test opens with its goal and method, is named by the fact that
//! it proves, waits for conditions and never for time, and measures from events.

mod harness;

mod api;
mod browser;
mod drain;
mod frozen;
mod half_open;
mod hostile;
mod hostile_chat;
mod hostile_registry;
mod hostile_ws;
mod limits;
mod members;
mod peers;
mod registry_down;
mod restart;
mod resume;
mod start;
mod statics;
mod tidy;
mod twenty;
