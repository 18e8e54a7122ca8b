//! The replicated log, pure: input and time in, effects out. No socket, no clock, no runtime.
//!
//! Each node keeps one append-only log of what its own clients said, numbered 1, 2, 3, …, and a
//! copy of every other node's. Order, duplicates, gaps, repair, resume and acknowledgement are
//! statements about positions in logs:
//!
//! - an entry whose number is the next is **accepted**: kept, shown in its room's transcript at its
//!   place `(ts, origin)`, and delivered to the room's clients here;
//! - one below is a **duplicate**; one above is **held back**, and what is between is **repaired**
//!   ([`repair`]);
//! - a **beat** says how far a node's log reaches and what it holds of all others, so a lost tail
//!   is noticed without another entry, and what a dead node said is found at whoever has it;
//! - a client that comes back names the position it has seen, and gets what is beyond ([`resume`]).
//!
//! The caller reads the clocks, moves the bytes and carries out the [`Effect`]s in order.

#[macro_use]
mod mutants;

// What comes and what is done.
pub(crate) mod input;
pub(crate) mod output;

// What a node is made of.
pub(crate) mod archive;
pub(crate) mod bounds;
pub(crate) mod clock;
pub(crate) mod copies;
pub(crate) mod durable;
pub(crate) mod links;
pub(crate) mod log;
pub(crate) mod members;
pub(crate) mod memory;
pub(crate) mod mids;
pub(crate) mod named;
pub(crate) mod news;
mod peers;
pub(crate) mod position;
pub(crate) mod presence;
pub(crate) mod question;
mod reads;
pub(crate) mod repair;
pub(crate) mod resumed;
mod rolls;
mod state;
mod time;

// What becomes of what comes.
mod accepting;
mod answering;
mod clocks;
mod hearing;
mod joining;
mod mending;
mod naming;
mod neighbours;
mod paging;
pub(crate) mod resume;
mod roll_call;
mod saying;
mod stored;
mod ticking;
mod views;

#[cfg(test)]
mod properties;
#[cfg(test)]
mod sim;
#[cfg(test)]
mod tests;

pub(crate) use self::bounds::ORIGINS_MAX;
pub(crate) use self::clock::Now;
pub(crate) use self::input::{LogPage, Say, Source};
pub(crate) use self::output::Effect;
pub(crate) use self::state::{Core, Identity};
