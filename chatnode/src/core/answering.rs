//! Reads of history: what clients, streams, HTTP and peers ask for that may lie on the disk, or with
//! other nodes. A question is asked once, and answered once, by [`Output::Answer`].
//!
//! Memory holds the newest entries of all, the disk holds everything, and the core waits for nothing.
//! So a question that memory alone cannot answer is kept here, and [`Output::Read`] says what of it
//! has to be read ([`super::archive`]). A page or a resume is tried again with what was read. The answer is
//! made in that last try, from both and in one cut, so nothing that came meanwhile is missing or
//! there twice. A search, or a part of a log, is answered with what was read.

use std::collections::BTreeMap;

use super::archive::{Archive, Beyond, Need};
use super::clock::Now;
use super::copies::Ticket;
use super::log::Log;
use super::named::Named;
use super::output::Output;
use super::question::{
    Found, Got, LogPage, LogPart, Question, Read, ReadError, Resume, Room, Search, Unread,
};
use super::reads::{Asked, SCANS_MAX, Waits};
use super::state::Core;
use crate::model::entry::TS_MAX;
use crate::model::page::RoomSummary;

/// A question is answered with what there is when something was read for it so often.
pub(super) const TRIES_MAX: usize = 5;

/// How a try ended.
enum Step {
    Refused(ReadError),
    Found(Found),
    Needs(Need),
    Read(Read),
}

impl From<Need> for Step {
    fn from(need: Need) -> Self {
        Self::Needs(need)
    }
}

impl Core {
    /// Somebody asks. Answered by [`Output::Answer`], now or when what it takes was read.
    pub(super) fn ask(&mut self, now: Now, ticket: Ticket, question: Question) {
        let asked = Asked {
            question,
            archive: Archive::default(),
            tries: 0,
            waits: Waits::Clients,
        };
        self.answer(now, ticket, asked);
    }

    /// What [`Output::Read`] asked for was read, or could not be.
    pub(super) fn was_read(&mut self, now: Now, ticket: Ticket, got: Result<Got, ReadError>) {
        let Some(mut asked) = self.reads.waiting.remove(&ticket) else {
            return;
        };
        let need = match &mut asked.waits {
            Waits::Read(need) => need.take(),
            Waits::Scan => {
                self.reads.scans -= 1;
                None
            }
            Waits::Roll(_) | Waits::Clients => {
                self.reads.waiting.insert(ticket, asked);
                return;
            }
        };
        let archive = &mut asked.archive;
        let found = match (need, got) {
            // What cannot be replayed is said, and is no error: the client goes on.
            (Some(Need::Beyond(spans)), Err(ReadError::Slow)) => {
                archive.read_beyond(Beyond {
                    spans,
                    entries: None,
                });
                None
            }
            (_, Err(why)) => Some(Err(unread(why, &mut asked.question))),
            (Some(Need::Place(_)), Ok(Got::Place(place))) => {
                archive.place = Some(place);
                None
            }
            (Some(Need::Page { trims, .. }), Ok(Got::Page(page))) => {
                archive.page = Some((page, trims));
                None
            }
            (Some(Need::Beyond(spans)), Ok(Got::Beyond(entries))) => {
                archive.read_beyond(Beyond { spans, entries });
                None
            }
            (None, Ok(Got::Page(mut page))) => {
                page.entries.retain(|entry| self.is_shown_on_disk(entry));
                Some(Ok(Found::Page(page)))
            }
            (None, Ok(Got::Rooms(rooms))) => Some(Ok(Found::Rooms(self.all_rooms(rooms)))),
            (None, Ok(Got::Log(page))) => Some(Ok(Found::Log(self.log_of(&asked.question, page)))),
            // Something else than was asked for.
            (_, Ok(_)) => Some(Err(unread(ReadError::Closed, &mut asked.question))),
        };
        match found {
            Some(found) => self.outputs.push(Output::Answer(ticket, Box::new(found))),
            None => self.answer(now, ticket, asked),
        }
    }

    /// Goes on with questions whose roll call is over, or that waited until the node takes clients.
    pub(super) fn go_on_answering(&mut self, now: Now) {
        loop {
            let (over, takes) = (self.rolls_over(), self.takes_clients());
            // Each input ends here: it costs nothing as long as nobody may go on.
            if std::mem::replace(&mut self.reads.looked, (over, takes)) == (over, takes) {
                return;
            }
            let goes_on = |asked: &mut Asked| match asked.waits {
                Waits::Read(_) | Waits::Scan => false,
                Waits::Roll(number) => number <= over,
                Waits::Clients => takes,
            };
            let all = self.reads.waiting.extract_if(.., |_, asked| goes_on(asked));
            let ready: Vec<(Ticket, Asked)> = all.collect();
            for (ticket, mut asked) in ready {
                asked.archive.others_asked |= matches!(asked.waits, Waits::Roll(_));
                self.answer(now, ticket, asked);
            }
        }
    }

    /// How many questions have no answer yet.
    #[cfg(test)]
    pub(crate) fn questions(&self) -> usize {
        self.reads.waiting.len()
    }

    /// Whether what clients say and ask is taken now.
    pub(crate) fn takes_clients(&self) -> bool {
        self.ready && !self.is_catching_up()
    }

    fn answer(&mut self, now: Now, ticket: Ticket, mut asked: Asked) {
        if asked.question.is_of_clients() && !self.takes_clients() {
            asked.waits = Waits::Clients;
            self.reads.waiting.insert(ticket, asked);
            return;
        }
        asked.archive.is_last = asked.tries >= TRIES_MAX;
        let step = self.try_to_answer(&mut asked);
        if let (Ok(Step::Found(Found::Resumed(resumed, _))), Question::Resume(resume)) =
            (&step, &asked.question)
        {
            self.has_resumed(resume.since.as_deref().filter(|_| resumed.recovered));
        }
        match step.unwrap_or_else(Step::from) {
            Step::Refused(why) => {
                let unread = unread(why, &mut asked.question);
                self.outputs
                    .push(Output::Answer(ticket, Box::new(Err(unread))));
            }
            Step::Found(found) => self
                .outputs
                .push(Output::Answer(ticket, Box::new(Ok(found)))),
            Step::Needs(Need::Others) => {
                asked.waits = Waits::Roll(self.next_roll());
                self.reads.waiting.insert(ticket, asked);
                self.call_roll(now);
            }
            Step::Needs(need) => {
                asked.tries += 1;
                let read = need_of(&asked.question, &need);
                asked.waits = Waits::Read(Some(need));
                self.reads.waiting.insert(ticket, asked);
                self.outputs.push(Output::Read(ticket, Box::new(read)));
            }
            Step::Read(read) => {
                asked.waits = match read {
                    Read::Scan(..) => Waits::Scan,
                    _ => Waits::Read(None),
                };
                self.reads.scans += usize::from(matches!(read, Read::Scan(..)));
                self.reads.waiting.insert(ticket, asked);
                self.outputs.push(Output::Read(ticket, Box::new(read)));
            }
        }
    }

    fn try_to_answer(&self, asked: &mut Asked) -> Result<Step, Need> {
        let archive = &asked.archive;
        let found = match &mut asked.question {
            Question::Resume(resume) => {
                let (scope, since) = (&resume.scope, resume.since.as_deref());
                let named = &mut resume.named;
                let resumed = self.resume(scope, since, named, resume.history, archive)?;
                Found::Resumed(Box::new(resumed), std::mem::take(named))
            }
            Question::Page {
                room,
                before,
                limit,
            } => match self.page_with(room, *before, *limit, archive)? {
                Some(page) => Found::Page(page),
                None => Found::Unknown,
            },
            Question::Search(search) => {
                let place = match search.before {
                    None => None,
                    Some(id) => match self.place_of(id, archive)? {
                        Some(place) => Some(place),
                        None => return Ok(Step::Found(Found::Unknown)),
                    },
                };
                return Ok(if self.is_durable() {
                    Step::Read(Read::Search(search.clone(), place))
                } else if self.reads.scans >= SCANS_MAX {
                    Step::Refused(ReadError::Busy)
                } else {
                    let entries = self.transcript(&search.room, place);
                    Step::Read(Read::Scan(entries, search.query.clone(), search.limit))
                });
            }
            Question::Rooms if self.is_durable() => return Ok(Step::Read(Read::Rooms)),
            Question::Rooms => Found::Rooms(self.all_rooms(Vec::new())),
            Question::Log(part) => {
                let archived = self.archived(part.origin, part.span);
                let archived = archived.filter(|_| part.whole || part.span.after > 0);
                match archived {
                    Some(span) => {
                        return Ok(Step::Read(Read::Log(part.origin, span, part.bytes)));
                    }
                    None => Found::Log(self.log_in_memory(part)),
                }
            }
        };
        Ok(Step::Found(found))
    }

    /// What the disk has of a log, or, if that is nothing, what memory has.
    fn log_of(&self, question: &Question, read: LogPage) -> LogPage {
        match question {
            Question::Log(part) if read.entries.is_empty() => self.log_in_memory(part),
            _ => read,
        }
    }

    fn log_in_memory(&self, part: &LogPart) -> LogPage {
        let mut page = self.log_page(part.origin, part.span, part.bytes);
        if !part.whole && part.span.after == 0 {
            // What is on the disk only counts as trimmed, and when it was said is not asked there.
            let window = self.logs.get(&part.origin).map_or(0, Log::window);
            if window > page.floor {
                page.floor = window;
                page.floor_ts = TS_MAX;
            }
        }
        page
    }

    /// The rooms in memory and on the disk, and those where somebody is.
    fn all_rooms(&self, archived: Vec<RoomSummary>) -> Vec<Room> {
        let mut rooms = BTreeMap::new();
        // The disk has all but what is on its way there, memory the newest of all.
        for room in self.rooms().into_iter().chain(archived) {
            let messages = rooms.entry(room.room).or_default();
            *messages = room.messages.max(*messages);
        }
        for room in self.members.rooms() {
            rooms.entry(room.clone()).or_default();
        }
        let row = |(room, messages)| Room {
            members: self.members.count(&room),
            room,
            messages,
        };
        rooms.into_iter().map(row).collect()
    }
}

/// A question that is not answered gives back what was named with it.
fn unread(why: ReadError, question: &mut Question) -> Unread {
    let named = match question {
        Question::Resume(resume) => std::mem::take(&mut resume.named),
        _ => Named::default(),
    };
    Unread { why, named }
}

/// What to read for a need of a question.
fn need_of(question: &Question, need: &Need) -> Read {
    let room = match question {
        Question::Resume(Resume { scope, .. }) => {
            if let Need::Beyond(spans) = need {
                return Read::Beyond(scope.clone(), spans.clone());
            }
            scope.room()
        }
        Question::Page { room, .. } | Question::Search(Search { room, .. }) => Some(room),
        Question::Rooms | Question::Log(_) => None,
    };
    match (need, room) {
        (Need::Place(id), _) => Read::Place(*id),
        (Need::Page { before, limit, .. }, Some(room)) => Read::Page(room.clone(), *before, *limit),
        // Cannot be, as these need nothing; it would be answered as closed.
        (Need::Others | Need::Page { .. } | Need::Beyond(_), _) => Read::Rooms,
    }
}
