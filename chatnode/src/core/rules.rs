//! The rules on which the promises rest, each a function with a name; and for each a way in which it
//! could be wrong.
//!
//! A rule reads as what the core does. What stands below it, behind the name of a bug, is what it
//! would do with that bug. Bugs are in no build but that of this crate's own tests, where a thread
//! chooses one at a time (`choose`): the simulator must see each of them.

use std::time::Duration;

macro_rules! rules {
    ($(
        $(#[$doc:meta])*
        fn $name:ident $(<$of:ident $(: $bound:ident)?>)? ($($arg:ident: $ty:ty),*) -> $out:ty $body:block
        bugs { $($(#[$about:meta])* $bug:ident => $wrong:expr;)+ }
    )*) => {
        $(
            $(#[$doc])*
            pub(super) fn $name $(<$of $(: $bound)?>)? ($($arg: $ty),*) -> $out {
                #[cfg(test)]
                match CHOSEN.get() {
                    $(Some(Mutant::$bug) => return $wrong,)+
                    _ => {}
                }
                $body
            }
        )*

        /// A rule that is broken.
        #[cfg(test)]
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(crate) enum Mutant { $($($(#[$about])* $bug,)+)* }

        #[cfg(test)]
        impl Mutant {
            /// All there are.
            pub(crate) const ALL: &[Self] = &[$($(Self::$bug,)+)*];
        }

        #[cfg(test)]
        thread_local! {
            static CHOSEN: std::cell::Cell<Option<Mutant>> = const { std::cell::Cell::new(None) };
        }

        /// Switches a bug on, or all off, for this thread.
        #[cfg(test)]
        pub(crate) fn choose(mutant: Option<Mutant>) {
            CHOSEN.set(mutant);
        }
    };
}

pub(crate) use rules;

rules! {
    // Brokers.

    /// Whether a beat that came in a hall proves it: only what comes back of what this node says there.
    fn proves_hall(own: bool) -> bool { own } bugs {
        /// A broker that takes nothing of this node is kept, since others' beats come from there.
        AnyBeatProvesHall => true;
    }

    // Logs.

    /// Whether a number is the next of a log.
    fn is_next(seq: u64, held: u64) -> bool { seq == held + 1 } bugs {
        /// An entry above a hole is accepted, and what is before it never missed.
        HoleNotNoticed => seq > held;
        /// A duplicate is accepted again.
        DuplicateAccepted => seq <= held + 1;
    }

    /// Whether what was held back waits on.
    fn waits_on(first: u64, held: u64) -> bool { first > held + 1 } bugs {
        /// What waited for a hole to be filled goes on waiting.
        HeldBackForEver => true;
    }

    /// Whether a log has entries, so that it does not begin behind what others have trimmed.
    fn has_begun(held: u64) -> bool { held > 0 } bugs {
        /// A log that has entries goes on behind what a peer has trimmed, without a word.
        StartedBehindLate => false;
    }

    /// The hole before which acknowledgements end.
    fn first_open<T>(hole: Option<T>) -> Option<T> { hole } bugs {
        /// Acknowledgements go beyond holes.
        HolesAcknowledged => None;
    }

    /// Whether others have more of a log than is here.
    fn is_behind(held: u64, claimed: u64) -> bool { held < claimed } bugs {
        /// What beats say of logs is not compared: a lost tail is not noticed.
        HeadNotCompared => false;
    }

    /// What clients are told of numbers that were passed.
    fn announced<T>(gap: T) -> Option<T> { Some(gap) } bugs {
        /// A hole that was passed is not announced.
        GapNotAnnounced => None;
    }

    /// Whether what was said until then is owed to clients.
    fn is_owed(since: u64, until: u64) -> bool { until >= since } bugs {
        /// A log of which the front is trimmed everywhere begins behind that without a word.
        FrontSkippedInSilence => false;
    }

    // Repair.

    /// Whether missing numbers are asked for already.
    fn is_asked_for(under_way: bool) -> bool { under_way } bugs {
        /// The same numbers are asked for twice at a time.
        AskedTwiceAtOnce => false;
    }

    /// Whether a peer may be asked for more at a time.
    fn may_ask_more(under_way: usize, most: usize) -> bool { under_way < most } bugs {
        /// One peer is asked as much at a time as all together.
        PeerNotSpared => true;
    }

    /// Whether a peer may have what is missing: when nobody else can be asked, anybody may.
    fn may_have(gone: bool, position: u64, after: u64) -> bool { gone || position > after } bugs {
        /// What others hold of a node that is not heard is not asked for as long as it may come back.
        DeadOriginNotFetched => gone;
    }

    /// Whether a peer that has not said that it lacks something is asked.
    fn is_left_to_ask(lacks: bool) -> bool { !lacks } bugs {
        /// A hole is passed when its origin alone was asked.
        OnePeerAsked => false;
    }

    /// Whether the origin cannot give what is missing.
    fn cannot_give(gone: bool, heard: bool, lacks: bool) -> bool { gone || (heard && lacks) } bugs {
        /// A hole is passed while its origin is heard.
        HeardOriginPassed => gone || heard;
    }

    /// Whether a peer has failed so often that it is not waited for.
    fn is_hopeless(failures: u32, most: u32) -> bool { failures >= most } bugs {
        /// A peer that does not answer once counts as one that never will.
        FailureIsLack => failures > 0;
    }

    /// Whether one more hole is remembered, to be asked for again.
    fn has_room_for_hole(count: usize, most: usize) -> bool { count < most } bugs {
        /// What was passed is not asked for again.
        HolesNotAskedFor => false;
    }

    /// Whether an entry is of the log that was asked for.
    fn is_of_log<T: PartialEq>(origin: T, asked: T) -> bool { origin == asked } bugs {
        /// A page of another origin than asked for is taken.
        ForeignPageTaken => true;
    }

    // Who is there.

    /// Whether those that hear an origin have passed what it said, and had time to get it.
    fn have_given_up(passed: bool) -> bool { passed } bugs {
        /// An origin that others hear counts as gone.
        OthersHearingIgnored => true;
    }

    /// Whether a node that nobody hears is gone.
    fn is_gone(settled: bool, absent: bool, unlisted: bool, over: bool) -> bool {
        settled && (absent || unlisted || over)
    } bugs {
        /// A node that nobody hears for a moment counts as gone.
        SilenceIsDeath => settled;
    }

    /// Whether others that may come back may have what is missing.
    fn is_awaited(somebody: bool) -> bool { somebody } bugs {
        /// What a node that may come back may have is not waited for.
        OthersNotAwaited => false;
    }

    /// Whether members that a silent node told of leave.
    fn leave_with_their_node(known: bool) -> bool { known } bugs {
        /// Members of a dead node stay.
        DeadMembersStay => false;
    }

    /// Whether a change of members was lost.
    fn lacks_changes(newest: u64, version: u64) -> bool { newest > version } bugs {
        /// A lost change of members is not noticed.
        MembersNotCompared => false;
    }

    /// Whether a node that joins waits for what others hold.
    fn waits_for_history(lacks: bool) -> bool { lacks } bugs {
        /// A node takes clients before it has the history.
        ReadyBeforeHistory => false;
    }

    /// Whether a node that joins has waited long enough.
    fn takes_clients_anyhow(now: Duration, until: Duration) -> bool { now >= until } bugs {
        /// A node that lacks a peer never takes clients.
        JoiningForEver => false;
    }

    /// Whether a node was stopped for so long that it has to learn what was said meanwhile.
    fn has_to_catch_up(stopped: Duration, after: Duration) -> bool { stopped >= after } bugs {
        /// A node that was stopped takes what clients say before it knows what was said meanwhile.
        StopNotNoticed => false;
    }

    // Time.

    /// How far the time of another pulls.
    fn observed(ts: u64, most: u64) -> u64 { ts.min(most) } bugs {
        /// The clock takes no notice of others.
        ClockNotObserving => 0;
        /// A clock that is far ahead drags all others along.
        ClockDragged => ts;
    }

    /// Whether a node goes by its own clock, when that is near enough to those of the others, or not.
    fn goes_by_own_clock(near: bool) -> bool { near } bugs {
        /// A clock that is hours from those of the others is followed.
        WildClockFollowed => true;
    }

    // What is said.

    /// What was said before under a mid.
    fn said_before<T>(known: Option<T>) -> Option<T> { known } bugs {
        /// A mid is not looked up when something is said.
        MidNotLookedUp => None;
    }

    /// The mid under which something may wait for the disk.
    fn mid_of_staged<T>(mid: Option<T>) -> Option<T> { mid } bugs {
        /// A retry of what waits for the disk is another message.
        StagedMidForgotten => None;
    }

    /// Whether what is said waits until it is on the disk.
    fn waits_for_disk(durable: bool) -> bool { durable } bugs {
        /// With a disk, what clients say is said before it is there.
        SaidBeforeStored => false;
    }

    /// Whether the entry that is known stands before another with its mid.
    fn stands_before<T: PartialOrd>(known: T, other: T) -> bool { known <= other } bugs {
        /// Of two entries with one mid the later one is shown.
        LaterShown => known > other;
    }

    /// What is remembered of an entry in whose place another is shown.
    fn remembered<T>(replaced: T) -> Option<T> { Some(replaced) } bugs {
        /// An entry that was replaced leaves no trace of its mid.
        ReplacedForgotten => None;
    }

    /// What is shown in the place of an entry that was trimmed.
    fn shown_instead<T>(other: Option<T>) -> Option<T> { other } bugs {
        /// When the entry that is shown is trimmed, no other with its mid takes its place.
        NoneShownInstead => None;
    }

    /// Until when the mid of a trimmed entry is known.
    fn known_until(until: Duration) -> Duration { until } bugs {
        /// A mid is forgotten with its entry, not minutes later.
        MidTrimmed => Duration::ZERO;
        /// A mid is forgotten a minute too early.
        MidForgottenEarly => until.saturating_sub(Duration::from_secs(60));
        /// A mid is known for ever.
        MidKeptForEver => until.saturating_mul(2);
    }

    // Copies.

    /// Whether a peer that holds an entry counts as a copy.
    fn counts_as_copy(heard: bool) -> bool { heard } bugs {
        /// Peers that are not heard count as copies.
        UnheardCounted => true;
    }

    /// When to acknowledge, so long after the last time at the earliest.
    fn acknowledged_at(earliest: Duration, now: Duration) -> Duration { earliest.max(now) } bugs {
        /// An acknowledgement that comes too soon after another is not sent later.
        SoonAckDropped => if earliest > now { Duration::MAX } else { now };
    }

    /// Whether a send has waited long enough for its copies.
    fn is_over(now: Duration, until: Duration) -> bool { now >= until } bugs {
        /// A send waits for its copies without end.
        WaitsForEver => false;
    }

    // Keepers.

    /// Whether the keeper has an entry: it has said so.
    fn is_kept(confirmed: bool) -> bool { confirmed } bugs {
        /// A keeper has what it was given, though it has not confirmed it.
        KeptUnconfirmed => true;
    }

    /// Whether an archive may tell its keeper that it has something.
    fn may_acknowledge_to_keeper(stored: bool) -> bool { stored } bugs {
        /// An archive acknowledges what its disk does not have yet.
        AcknowledgedBeforeStored => true;
    }

    // Clients that come back.

    /// Whether a client has seen more than this node.
    fn is_ahead(seen: u64, here: u64) -> bool { seen > here } bugs {
        /// Clients are brought what they saw at another node.
        AheadNotFiltered => false;
    }

    /// Whether a client that is ahead may be answered.
    fn may_answer(others_asked: bool, is_last: bool) -> bool { others_asked || is_last } bugs {
        /// A client that is ahead of its node is taken in before anybody was asked for what it saw.
        OthersNotAsked => true;
    }

    /// Whether a client has named what an entry says as seen.
    fn is_named(has: bool) -> bool { has } bugs {
        /// Clients are brought a retry of what they saw at a node that is gone.
        SeenMidsIgnored => false;
    }

    /// Whether a client has all of some rooms by what it heard of them otherwise.
    fn is_left_out(has_all: bool) -> bool { has_all } bugs {
        /// What a client that hears a room and watches it has missed comes by both.
        ReplayedTwice => false;
    }

    /// Where that begins of an origin which a client has not seen that does not name it.
    fn unnamed_begins(gone: u64) -> u64 { gone } bugs {
        /// A resume has nothing of origins that the client's position does not name.
        UnnamedOriginForgotten => if gone > 0 { gone } else { u64::MAX / 2 };
    }

    /// Whether a client has missed what cannot be brought to it any more.
    fn has_missed(trimmed: bool) -> bool { trimmed } bugs {
        /// A resume that lacks what was trimmed says that it is complete.
        TrimmedNotTold => false;
    }

    /// Whether what was trimmed then was gone when a position was made.
    fn was_gone(trimmed: u64, made: u64) -> bool { trimmed <= made } bugs {
        /// What was trimmed of an origin that a client does not name counts as seen.
        SpentOriginExcused => true;
    }

    // The disk.

    /// Whether memory may let go of an entry.
    fn may_let_go(unwritten: bool) -> bool { !unwritten } bugs {
        /// Memory lets go what the disk has not got yet.
        UnwrittenLetGo => true;
    }

    /// What of a batch waits on when the disk is full.
    fn goes_on_waiting<T>(batch: Option<T>) -> Option<T> { batch } bugs {
        /// What others said is forgotten when the disk is full.
        FullForgets => None;
    }

    /// Whether an entry that was on the disk is shown again after a restart.
    fn is_shown_again(shown: bool, repeats: bool) -> bool { shown && !repeats } bugs {
        /// A node that restarts shows repeats that it had hidden.
        RestoredShowsAll => true;
    }
}
