//! The rules on which it rests what clients are told, in the form of [`crate::core::rules`]: for each a way in
//! which it could be wrong, which the simulator must see.

use crate::core::rules::rules;

rules! {
    // Writing.

    /// Whether what is for a client alone waits: its socket did not take all of it.
    fn waits_for_room(length: usize, taken: usize) -> bool { taken < length } bugs {
        /// A reply of which a full socket took nothing is dropped.
        ReplyDropped => (1..length).contains(&taken);
    }

    /// Where it goes on what is for a room, when a socket took so much of it.
    fn goes_on_at(before: usize, taken: usize) -> usize { before + taken } bugs {
        /// What a socket took of a turn is written to it again.
        WrittenTwice => before;
    }

    /// How much of what a turn has for a room was before one that enters.
    fn was_before(length: usize) -> usize { length } bugs {
        /// Who enters a room is told again what was in the reply.
        TurnHeardTwice => 0;
    }

    // Who hears what.

    /// Whether the patterns that a room is of are those of now.
    fn is_current(looked: u64, now: u64) -> bool { looked == now } bugs {
        /// A room that was there before a pattern is not of it.
        LaterPatternHasNoRooms => looked <= now;
    }

    /// Whether what a client watches is heard by a wider pattern of it.
    fn is_heard_by_wider(wider: bool) -> bool { wider } bugs {
        /// A client that watches two patterns of a room hears it twice.
        OverlapHeardTwice => false;
    }

    /// Whether what is said in a room that a client has joined is heard by a pattern of it.
    fn is_heard_by_pattern(watched: bool) -> bool { watched } bugs {
        /// A client that has joined a room and watches it hears it twice.
        JoinedHeardTwice => false;
    }

    // Who is closed.

    /// What a client that is closed as slow reads in place of what waited for it.
    fn last_words(frame: Vec<u8>) -> Vec<u8> { frame } bugs {
        /// A client that is closed as slow is not told.
        SlowNotTold => Vec::new();
    }

    /// Who leaves its rooms when it is closed as slow.
    fn leaves<T>(slow: T) -> Option<T> { Some(slow) } bugs {
        /// A client that is closed as slow stays in its rooms.
        SlowStays => None;
    }

    /// Whether a client that has said all has still to be answered.
    fn is_owed(waits: bool, awaits: u32) -> bool { waits || awaits > 0 } bugs {
        /// A client that ends its side is closed before it has its replies.
        EndedUnanswered => false;
    }

    // Clients that come back.

    /// What a client has named before, to which it adds.
    fn named_before<T: Default>(named: T) -> T { named } bugs {
        /// Of what a client names in several lines the last counts alone.
        SeenLineForgotten => T::default();
    }
}
