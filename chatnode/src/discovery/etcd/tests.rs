//! Tests to be.
