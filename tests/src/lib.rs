//! Tests on the built programs live in `e2e/`; this library is empty on purpose.
