//! Parse, run, map to an exit code.
fn main() {}
