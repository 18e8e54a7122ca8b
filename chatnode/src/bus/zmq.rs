//! The ZeroMQ transport: to come.
