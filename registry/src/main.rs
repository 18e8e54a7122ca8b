//! Parse, run, map to an exit code.

use std::process::ExitCode;

fn main() -> ExitCode {
    registry::process::run(registry::main)
}
