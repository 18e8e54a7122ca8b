//! The transport in process: to come.
