//! Deliberate bugs, to prove that the simulator sees them.
//!
//! Each breaks one rule of the core, by one line at the place of that rule. `mutated!(…)` is
//! `false`, and nothing is left of it, in any build but that of this crate's own tests; there a
//! thread chooses one bug at a time (`choose`), so that one build serves all.

/// Whether this thread has chosen a bug.
#[cfg(not(test))]
macro_rules! mutated {
    ($mutant:ident) => {
        false
    };
}

#[cfg(test)]
macro_rules! mutated {
    ($mutant:ident) => {
        $crate::core::mutants::is_chosen($crate::core::mutants::Mutant::$mutant)
    };
}

#[cfg(test)]
pub(super) use chosen::{Mutant, choose, is_chosen};

#[cfg(test)]
mod chosen {
    use std::cell::Cell;

    macro_rules! mutants {
        ($($(#[$doc:meta])* $name:ident,)*) => {
            /// A rule that is broken.
            #[derive(Debug, Clone, Copy, PartialEq, Eq)]
            pub(in crate::core) enum Mutant { $($(#[$doc])* $name,)* }

            impl Mutant {
                /// All there are.
                pub(in crate::core) const ALL: &[Self] = &[$(Self::$name,)*];
            }
        };
    }

    mutants! {
        /// What was trimmed of an origin that a client does not name counts as seen.
        SpentOriginExcused,
        /// A clock that is hours from those of the others is followed.
        WildClockFollowed,
        /// With a disk, what clients say is said before it is there.
        SaidBeforeStored,
        /// Memory lets go what the disk has not got yet.
        UnwrittenLetGo,
        /// What others said is forgotten when the disk is full.
        FullForgets,
        /// A retry of what waits for the disk is another message.
        StagedMidForgotten,
        /// A node that restarts shows repeats that it had hidden.
        RestoredShowsAll,
        /// A duplicate is accepted again.
        DuplicateAccepted,
        /// An entry above a hole is accepted, and what is before it never missed.
        HoleNotNoticed,
        /// What waited for a hole to be filled goes on waiting.
        HeldBackForEver,
        /// A beat's head is not compared: a lost tail is not noticed.
        HeadNotCompared,
        /// What others hold of nodes that are not heard here is not fetched.
        DeadOriginNotFetched,
        /// A page of another origin than asked for is taken.
        ForeignPageTaken,
        /// A hole is passed when one peer has said that it lacks it.
        OnePeerAsked,
        /// A hole is passed while its origin is heard.
        HeardOriginPassed,
        /// An origin that others hear counts as gone.
        OthersHearingIgnored,
        /// A node that nobody hears for a moment counts as gone.
        SilenceIsDeath,
        /// What a node that may come back may have is not waited for.
        OthersNotAwaited,
        /// A peer that does not answer counts as one that lacks what it was asked for.
        FailureIsLack,
        /// The same numbers are asked for twice at a time.
        AskedTwiceAtOnce,
        /// One peer is asked as much at a time as all together.
        PeerNotSpared,
        /// What was passed is not asked for again.
        HolesNotAskedFor,
        /// A hole that was passed is not announced.
        GapNotAnnounced,
        /// A log that has entries goes on behind what a peer has trimmed, without a word.
        StartedBehindLate,
        /// A mid is not looked up when something is said.
        MidNotLookedUp,
        /// Of two entries with one mid the later one is shown.
        LaterShown,
        /// An entry that was replaced leaves no trace of its mid.
        ReplacedForgotten,
        /// When the entry that is shown is trimmed, no other with its mid takes its place.
        NoneShownInstead,
        /// A mid is forgotten with its entry, not minutes later.
        MidTrimmed,
        /// Acknowledgements go beyond holes.
        HolesAcknowledged,
        /// Peers that are not heard count as copies.
        UnheardCounted,
        /// An acknowledgement that comes too soon after another is not sent later.
        SoonAckDropped,
        /// A send waits for its copies without end.
        WaitsForEver,
        /// Clients are brought what they saw at another node.
        AheadNotFiltered,
        /// A node that was stopped takes what clients say before it knows what was said meanwhile.
        StopNotNoticed,
        /// A client that is ahead of its node is taken in before anybody was asked for what it saw.
        OthersNotAsked,
        /// Clients are brought a retry of what they saw at a node that is gone.
        SeenMidsIgnored,
        /// A resume has nothing of origins that the client's position does not name.
        UnnamedOriginForgotten,
        /// A resume that lacks what was trimmed says that it is complete.
        TrimmedNotTold,
        /// The clock takes no notice of others.
        ClockNotObserving,
        /// A clock that is far ahead drags all others along.
        ClockDragged,
        /// Members of a dead node stay.
        DeadMembersStay,
        /// A lost change of members is not noticed.
        MembersNotCompared,
        /// A node takes clients before it has the history.
        ReadyBeforeHistory,
        /// A node that lacks a peer never takes clients.
        JoiningForEver,
    }

    thread_local! {
        static CHOSEN: Cell<Option<Mutant>> = const { Cell::new(None) };
    }

    /// Switches a bug on, or all off, for this thread.
    pub(in crate::core) fn choose(mutant: Option<Mutant>) {
        CHOSEN.set(mutant);
    }

    pub(in crate::core) fn is_chosen(mutant: Mutant) -> bool {
        CHOSEN.get() == Some(mutant)
    }
}
