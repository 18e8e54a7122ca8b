//! Which peers to hear: to come.
