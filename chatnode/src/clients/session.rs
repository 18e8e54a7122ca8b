//! One client's session, pure: bytes and time in, commands or a close out.
//!
//! A client says lines of `chat.v1`, or bare texts in the plain form. What it says is decoded, counted
//! and checked here; who serves it ([`Desk`]) gets commands whose values are good.
//!
//! In the plain form there is no way to say no. So a client that is too fast is not read for a
//! while, and TCP tells it; a text that is too long ends the connection with 1009; an empty one is
//! nothing.

#[cfg(test)]
mod tests;

use std::ops::ControlFlow;
use std::time::Duration;

use super::pace::Pace;
use super::request::{self, Request, Say};
use super::websocket::{Close, Decoder, Message};
use crate::model::names::RoomName;
use crate::wire::protocol::{self, Refusal, TEXT_BYTES_MAX, check_text};

/// A client whose requests have to wait is looked at again after this.
const BUSY_PAUSE: Duration = Duration::from_millis(20);
/// A text longer than a message may be.
const TOO_LONG: Close = Close::new(1009, "text_too_long: a message is at most 4096 bytes");

/// The id of a request, if it has one: it comes back with the reply.
pub(crate) type RequestId = Option<serde_json::Number>;

/// What a session does with what came, in order.
#[derive(Debug)]
pub(crate) enum Command<'a> {
    /// Carry out a request.
    Serve(RequestId, Request<'a>),
    /// Tell the client that a request is refused.
    Refuse(RequestId, Refusal),
    /// Answer its empty object by one.
    Echo,
    /// Answer its ping.
    Pong(&'a [u8]),
}

/// Who serves a session.
pub(crate) trait Desk {
    /// How many rooms the client is in.
    fn rooms(&self) -> usize;
    /// Whether it is in this one.
    fn is_in(&self, room: &RoomName) -> bool;
    /// Whether its next request has to wait: it asks faster than it reads, or than the disk or other
    /// nodes answer.
    fn is_busy(&self) -> bool;
    /// Carries out a command, before the next one comes.
    fn take(&mut self, command: Command<'_>);
}

/// How it goes on.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// The client may say more.
    Read,
    /// It is not to be read for so long.
    Pause(Duration),
    /// It is closed.
    Close(Close),
    /// It has broken the protocol: it is closed, and that counts as a refusal.
    Broken(Close),
}

/// Which form a client speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// Bare texts.
    Plain,
    /// `chat.v1`.
    Chat,
}

/// A client's session.
#[derive(Debug)]
pub(crate) struct Session {
    form: Form,
    /// It has said hello, or need not.
    greeted: bool,
    /// What has come of a frame that is not whole yet.
    decoder: Decoder,
    /// Lines of its last frame that wait.
    rest: Option<Box<str>>,
    /// How fast it may say what.
    pub(super) pace: Pace,
}

/// What a client says is judged by these.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rules {
    /// Messages a second; 0 is no limit.
    pub(crate) rate_limit: u32,
    /// When it is.
    pub(crate) now: Duration,
}

impl Session {
    /// A session that begins now.
    pub(crate) fn new(form: Form, now: Duration) -> Self {
        Self {
            form,
            greeted: form == Form::Plain,
            decoder: Decoder::default(),
            rest: None,
            pace: Pace::new(now),
        }
    }

    /// Whether it has said hello, or need not.
    pub(super) fn is_greeted(&self) -> bool {
        self.greeted
    }

    /// Takes bytes, in place. What must wait is kept for the next call, which may bring none.
    pub(crate) fn feed(&mut self, bytes: &mut [u8], rules: Rules, desk: &mut impl Desk) -> Next {
        if let Some(rest) = self.rest.take() {
            let next = self.lines(&rest, rules, desk);
            if next != Next::Read {
                return next;
            }
        }
        let mut decoder = std::mem::take(&mut self.decoder);
        let mut next = Next::Read;
        let fed = decoder.feed(bytes, |message| {
            next = self.message(message, rules, desk);
            match next {
                Next::Read => ControlFlow::Continue(()),
                _ => ControlFlow::Break(()),
            }
        });
        match fed {
            Ok(()) => self.decoder = decoder,
            Err(close) => next = Next::Broken(close),
        }
        next
    }

    fn message(&mut self, message: Message<'_>, rules: Rules, desk: &mut impl Desk) -> Next {
        // A message that trickles is no sign of life until it is whole.
        if message != Message::Fragment {
            self.pace.heard(rules.now);
        }
        // Whatever comes is counted here, and nowhere else. An empty text is a line as well.
        let count = match (&message, self.form) {
            (Message::Text(text), Form::Chat) => text.lines().count().max(1),
            // It has a pace of its own.
            (Message::Text(_), Form::Plain) => 0,
            _ => 1,
        };
        let counted = self.pace.count_frames(count, rules.rate_limit, rules.now);
        if let Err(flooding) = counted {
            return Next::Close(flooding);
        }
        match message {
            Message::Text(text) if self.form == Form::Chat => return self.lines(text, rules, desk),
            Message::Text(text) => return self.plain(text, rules, desk),
            Message::Ping(payload) => desk.take(Command::Pong(payload)),
            Message::Pong | Message::Fragment => {}
            Message::Close(code) => {
                // RFC 6455 section 5.5.1: the answer carries the same code; 1005 stands for none.
                let code = if code == 1005 { 1000 } else { code };
                return Next::Close(Close::new(code, ""));
            }
        }
        Next::Read
    }

    fn plain(&mut self, text: &str, rules: Rules, desk: &mut impl Desk) -> Next {
        let wait = self.pace.pace_say(rules.rate_limit, rules.now);
        if text.len() > TEXT_BYTES_MAX {
            return Next::Close(TOO_LONG);
        }
        if check_text(text).is_ok() {
            let say = Say {
                room: None,
                mid: None,
                text: text.into(),
                copies: 0,
            };
            desk.take(Command::Serve(None, Request::Say(say)));
        }
        match wait {
            Duration::ZERO => Next::Read,
            wait => Next::Pause(wait),
        }
    }

    fn lines(&mut self, text: &str, rules: Rules, desk: &mut impl Desk) -> Next {
        let mut rest = text;
        while !rest.is_empty() {
            if desk.is_busy() {
                self.rest = Some(rest.into());
                return Next::Pause(BUSY_PAUSE);
            }
            let line;
            (line, rest) = rest.split_once('\n').unwrap_or((rest, ""));
            self.line(line.trim(), rules, desk);
        }
        Next::Read
    }

    fn line(&mut self, line: &str, rules: Rules, desk: &mut impl Desk) {
        if line.is_empty() {
            return;
        }
        if line == "{}" {
            if self.pace.answer_ping(rules.now) {
                desk.take(Command::Echo);
            }
            return;
        }
        let (id, checked) = match protocol::parse(line) {
            Ok(mut request) => (request.id.take(), self.check(request, line, rules, desk)),
            Err((id, refusal)) => (id, Err(refusal)),
        };
        desk.take(match checked {
            Ok(request) => Command::Serve(id, request),
            Err(refusal) => Command::Refuse(id, refusal),
        });
    }

    /// Checks a request, and takes from the budgets what it costs.
    fn check<'a>(
        &mut self,
        request: protocol::Request<'a>,
        line: &str,
        rules: Rules,
        desk: &impl Desk,
    ) -> Result<Request<'a>, Refusal> {
        if let Some(hello) = request.hello {
            let name = hello.name.map(|name| name.parse()).transpose()?;
            // A change of name is one of members in each room.
            self.count_asks(desk.rooms() + 1, rules)?;
            self.greeted = true;
            return Ok(Request::Hello(name));
        }
        if !self.greeted {
            return Err(Refusal::new("hello_required", "the first request is hello"));
        }
        let asks = request::asks(&request);
        if asks > 0 {
            self.count_asks(asks, rules)?;
        }
        if let Some(send) = request.send {
            let say = request::say(send)?;
            let counted = self.pace.count_say(rules.rate_limit, rules.now);
            let limit = rules.rate_limit;
            counted
                .map_err(|wait| rate_limited(format!("at most {limit} messages a second"), wait))?;
            return Ok(Request::Say(say));
        }
        let mut request = request::ask(request, line)?;
        if let Request::Leave(room) | Request::Typing(room, _) = &request
            && !desk.is_in(room)
        {
            return Err(Refusal::new("not_joined", "join the room first"));
        }
        if let Request::Typing(_, tell) = &mut request {
            *tell = self.pace.may_type(rules.now);
        }
        Ok(request)
    }

    fn count_asks(&mut self, count: usize, rules: Rules) -> Result<(), Refusal> {
        let counted = self.pace.count_asks(count, rules.rate_limit, rules.now);
        counted.map_err(|wait| rate_limited("too many requests".to_owned(), wait))
    }
}

fn rate_limited(message: String, wait: Duration) -> Refusal {
    let retry_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX) + 1;
    Refusal {
        retry_ms: Some(retry_ms),
        ..Refusal::new("rate_limited", message)
    }
}
