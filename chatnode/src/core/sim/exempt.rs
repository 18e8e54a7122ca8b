//! Where the judges let something pass, and the sentence of the documents on which each of these
//! rests: what is not in this table is not let pass.

use super::world::World;

/// Where a sentence stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum File {
    Readme,
    Protocol,
}

macro_rules! exemptions {
    ($($(#[$doc:meta])* $name:ident: $file:ident $quote:literal,)*) => {
        /// Something that a judge lets pass.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(super) enum Exempt { $($(#[$doc])* $name,)* }

        impl Exempt {
            /// All there are: what each is called when it is counted, and what it rests on.
            const ALL: &[(Self, &'static str, File, &'static str)] = &[
                $((Self::$name, concat!("let pass: ", stringify!($name)), File::$file, $quote),)*
            ];
        }
    };
}

exemptions! {
    /// A client need not have seen what was said before it came.
    SaidBefore: Protocol "`at` is the position from which live messages go on",
    /// A retry of what was said before a client came is not said again to all.
    SaidAgain: Protocol "makes no second message, and the reply is the first one's",
    /// A client need not have seen what it was told to be lost.
    ToldOfGap: Protocol "`gap` says that entries of an origin, perhaps some of this room, are lost",
    /// A client that was told so may go on without all that lies beyond its position.
    ToldNotRecovered: Readme "If something cannot be replayed the client is told.",
    /// Of an origin that a client's position does not name it has not missed what was gone before.
    TrimmedBefore: Protocol "what was trimmed before is nothing that it has missed",
    /// Of such an origin a node does not know what of it went when.
    TrimmedSince: Protocol "if that was trimmed since, `recovered` is false",
    /// What a disk does not find in time is not waited for.
    TooSlow: Protocol "or takes a disk longer than two seconds",
    /// A client that names no mids may be shown again what it saw at a node that died.
    DropsByMid: Readme "Any other client has to drop it by its `mid`.",
    /// Of what retention has removed, nothing is expected where it was removed.
    LetGo: Readme "A node keeps 100 000 messages or 64 MiB in memory, and with `--data` as much as its flags say.",
    /// A retry of what a node has never had is new there.
    NeverSeen: Protocol "A node that never had the first, and keeps nothing any more of when that was said, does not know it",
    /// A retry that comes too late is another message, where the first is kept no more.
    SaidAgainLater: Readme "What is said again more than five minutes later is another message.",
    /// Of two entries with one mid none is shown where the first was trimmed from the disk.
    HidesRepeats: Protocol "by a node with a disk when it is started again",
    /// How old something is means nothing where clocks were hours apart.
    ClocksApart: Readme "**Times from clocks that nobody can compare.**",
    /// Who entered a room anew, and then watches it from a position, is brought what it had there.
    HeardAnew: Protocol "is brought again what it was shown there since",
    /// Who lives no more, and nobody else had it: then an acknowledged message is gone too.
    NobodyLeft: Readme "If it says `copies: 1`, no kill -9 of any one node loses the message.",
    /// What was on a disk that failed.
    LostWithDisk: Readme "With `--data`, what was lost with the disk before other nodes had it is lost.",
    /// A reply may say fewer copies than were asked for, when the time is over.
    FewerCopies: Protocol "says how many do; fewer is not an error",
    /// What a peer may have that fails again and again is given up.
    PeerFails: Protocol "Lost entries may still turn up.",
    /// A node that does not hear all that it should may lack what they have, when it takes clients.
    SaysWhomItLacks: Readme "It then says which nodes it does not hear and which messages it lacks",
    /// What a client said that was closed before it had a reply it says again.
    ClosedBefore: Readme "A send without a reply may have been taken or not.",
    /// A node that is stopped has taken something before, which its disk has not got yet.
    TakenBefore: Readme "A node that was stopped for two seconds takes no send and no join before it holds what the others hold",
    /// What nobody keeps any more is passed when it is missed, and told.
    TrimmedElsewhere: Readme "What nobody has is announced to the room and counted",
}

impl World {
    /// A judge lets something pass.
    pub(super) fn passes(&self, why: Exempt) -> bool {
        let bit = 1 << why as u32;
        self.passed.set(self.passed.get() | bit);
        true
    }

    /// Counts what was let pass.
    pub(super) fn count_passed(&mut self) {
        let passed = self.passed.get();
        for (exempt, name, ..) in Exempt::ALL {
            let was = passed & (1 << *exempt as u32) != 0;
            self.outcome.counters.add(name, u64::from(was));
        }
    }
}

/// Goal: the judges forgive nothing but what people are told. Method: each sentence is looked for in
/// the document that has it, whatever the line breaks.
#[test]
fn what_is_let_pass_is_in_the_documents() {
    let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let readme = words(include_str!("../../../../README.md"));
    let protocol = words(include_str!("../../../../PROTOCOL.md"));
    for (exempt, _, file, quote) in Exempt::ALL {
        let text = match file {
            File::Readme => &readme,
            File::Protocol => &protocol,
        };
        assert!(
            text.contains(quote),
            "{exempt:?}: {file:?} has no {quote:?}"
        );
    }
}
