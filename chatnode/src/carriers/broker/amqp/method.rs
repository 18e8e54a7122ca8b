//! The methods of AMQP 0-9-1 that are spoken here: their class, and their number in it.

/// Class and number.
pub(super) type Id = (u16, u16);

pub(super) const START: Id = (10, 10);
pub(super) const START_OK: Id = (10, 11);
pub(super) const TUNE: Id = (10, 30);
pub(super) const TUNE_OK: Id = (10, 31);
pub(super) const OPEN: Id = (10, 40);
pub(super) const OPEN_OK: Id = (10, 41);
pub(super) const CLOSE: Id = (10, 50);
pub(super) const BLOCKED: Id = (10, 60);
pub(super) const UNBLOCKED: Id = (10, 61);
pub(super) const CHANNEL_OPEN: Id = (20, 10);
pub(super) const CHANNEL_OPEN_OK: Id = (20, 11);
pub(super) const CHANNEL_CLOSE: Id = (20, 40);
pub(super) const EXCHANGE_DECLARE: Id = (40, 10);
pub(super) const EXCHANGE_OK: Id = (40, 11);
pub(super) const QUEUE_DECLARE: Id = (50, 10);
pub(super) const QUEUE_OK: Id = (50, 11);
pub(super) const BIND: Id = (50, 20);
pub(super) const BIND_OK: Id = (50, 21);
pub(super) const UNBIND: Id = (50, 50);
pub(super) const UNBIND_OK: Id = (50, 51);
pub(super) const QOS: Id = (60, 10);
pub(super) const QOS_OK: Id = (60, 11);
pub(super) const CONSUME: Id = (60, 20);
pub(super) const CONSUME_OK: Id = (60, 21);
pub(super) const CANCEL: Id = (60, 30);
pub(super) const PUBLISH: Id = (60, 40);
pub(super) const RETURN: Id = (60, 50);
pub(super) const DELIVER: Id = (60, 60);
pub(super) const ACK: Id = (60, 80);
pub(super) const NACK: Id = (60, 120);
pub(super) const CONFIRM_SELECT: Id = (85, 10);
pub(super) const CONFIRM_OK: Id = (85, 11);
