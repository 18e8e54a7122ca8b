//! For tests of other rooms: what a node hears without a link.

use super::clock::Now;
use super::log::Span;
use super::news::News;
use super::output::Output;
use super::state::Core;
use crate::model::names::Origin;

impl Core {
    /// A node is heard, says something, and is heard no more.
    pub(crate) fn speaks_and_goes(&mut self, now: Now, origin: Origin, news: News) {
        self.linked(now, origin);
        self.news(now, origin, news);
        self.unlinked(now, origin);
    }

    /// A node was seen alive there.
    pub(crate) fn remember(&mut self, http: &str) {
        self.nodes.remember(http);
    }

    /// Beats now.
    pub(crate) fn beat_now(&mut self, now: Now) {
        self.beat_at_once(now);
    }

    /// Tells of numbers as if nobody had them.
    pub(crate) fn give_up(&mut self, origin: Origin, span: Span) {
        self.outputs.push(Output::Gap(origin, span));
    }
}
