//! The plain form: a text frame is a message, a message is a text frame.
//!
//! There is no way to say no in it. So a client that is too fast is not read for a while, and TCP
//! tells it; a text that is too long ends the connection with 1009; an empty one is nothing.

use std::ops::ControlFlow;

use crate::clients::ConnId;
use crate::clients::websocket::Close;
use crate::core::resume::Ahead;
use crate::core::{Input, Now, Source};
use crate::model::names::RoomName;
use crate::shell::{Answer, Node};
use crate::wire::protocol::{TEXT_BYTES_MAX, check_text};

/// A text longer than a message may be.
const TOO_LONG: Close = Close::new(1009, "text_too_long: a message is at most 4096 bytes");

impl Node {
    /// A plain client enters its room under a guest's name.
    pub(crate) fn plain_open(&mut self, id: ConnId, room: &RoomName, now: Now) {
        let Some(name) = self.session_name(id) else {
            return;
        };
        self.core.handle(Input::Enter(room, &name), now);
        self.carry_out(now);
        self.clients.subscribe(id, room, Ahead::default());
    }

    /// A plain client says something. Breaks if it must not be read for a while.
    pub(crate) fn plain_text(&mut self, id: ConnId, text: &str, now: Now) -> ControlFlow<()> {
        let rate_limit = self.settings.rate_limit;
        let Some(conn) = self.clients.get_mut(id) else {
            return ControlFlow::Break(());
        };
        let wait = conn.session.pace_say(rate_limit, now.mono);
        let name = conn.session.name.clone();
        let (Some(name), Some(room)) = (name, self.clients.rooms_of(id).next().cloned()) else {
            return ControlFlow::Break(());
        };
        if text.len() > TEXT_BYTES_MAX {
            self.close(id, &TOO_LONG, now);
            return ControlFlow::Break(());
        }
        if check_text(text).is_ok() {
            let answer = match self.disk {
                Some(_) => Answer::Plain(id),
                None => Answer::Nobody,
            };
            self.say(&room, &name, None, text, 0, answer, Source::Client, now);
        }
        if wait.is_zero() {
            return ControlFlow::Continue(());
        }
        self.pause = Some(wait);
        ControlFlow::Break(())
    }
}
