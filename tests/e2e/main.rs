//! Tests on the built programs: real processes, real sockets, real signals, a real browser.
//!
//! One module for each subject. A test opens with its goal and method, is named by the fact that
//! it proves, waits for conditions and never for time, and measures from events.

mod harness;
