//! Tests on the built programs.
