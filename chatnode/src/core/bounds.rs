//! How often a node does what it does of itself, and how much of each it keeps.

use std::time::Duration;

/// How often a node beats.
pub(super) const BEAT_EVERY: Duration = Duration::from_secs(1);
/// A beat that was asked for, or that a new link deserves, comes so much later at the most.
pub(super) const BEAT_SOON: Duration = Duration::from_millis(5);
/// Everyone who hears a beat has work with it. So what others ask for, or what new links deserve, comes
/// after the last beat no sooner than this for each link that is up: the beats of nodes that all meet at
/// once are so many a second, however many nodes they are.
pub(super) const BEAT_REST: Duration = Duration::from_millis(5);
/// A node that says nothing for so long is silent: its link is torn down, its members leave. Whether it is
/// gone is another question.
pub(crate) const SILENCE_MAX: Duration = Duration::from_secs(3);
/// How often time alone is looked at.
pub(super) const TICK_EVERY: Duration = Duration::from_millis(100);
/// A node takes clients after so long, though it may lack some peers.
pub(super) const JOIN_MAX: Duration = Duration::from_secs(5);
/// Acknowledgements to one origin are so far apart at the least.
pub(super) const ACK_EVERY: Duration = Duration::from_millis(5);
/// Logs of which numbers are kept at the most; beyond, those of dead origins that are trimmed
/// whole are forgotten, those that were trimmed first before others.
pub(crate) const ORIGINS_MAX: usize = 8192;
/// A list of accepted entries that has grown longer is given back.
pub(super) const ACCEPTED_KEPT_MAX: usize = 4096;
