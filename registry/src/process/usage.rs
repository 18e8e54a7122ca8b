//! Usage errors as one line.

use clap::error::{ContextKind, ContextValue, ErrorKind};

/// clap explains over several lines, and names the flag only: here it is one, with the variable.
pub(super) fn one_line<C: clap::Parser>(error: &clap::Error) -> String {
    let command = C::command();
    let text = error.to_string();
    let what: Vec<&str> = text
        .lines()
        .map(str::trim)
        .take_while(|line| !line.starts_with("Usage:") && !line.starts_with("For more"))
        .filter(|line| !line.is_empty())
        .collect();
    let what = what.join(" ");
    let what = what.strip_prefix("error: ").unwrap_or(&what);
    let variable = match (error.kind(), error.get(ContextKind::InvalidArg)) {
        (ErrorKind::UnknownArgument, _) => None,
        (_, Some(ContextValue::String(flag))) => command
            .get_arguments()
            .find(|arg| {
                arg.get_long()
                    .is_some_and(|l| flag.split(' ').next() == Some(&format!("--{l}")))
            })
            .and_then(clap::Arg::get_env)
            .map(|name| format!("; its variable is {}", name.to_string_lossy())),
        _ => None,
    };
    format!(
        "{what}{}; see {} --help",
        variable.unwrap_or_default(),
        command.get_name()
    )
}
