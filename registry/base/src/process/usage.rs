//! Usage errors as one line.

use clap::error::{ContextKind, ContextValue, ErrorKind};

/// Names the variable of the flag that a line is about, the first that stands in it.
pub(super) fn with_variable<C: clap::Parser>(line: &str) -> String {
    let command = C::command();
    let place = |arg: &clap::Arg| {
        let flag = format!("--{}", arg.get_long()?);
        let ends = |at: &usize| {
            let next = line[at + flag.len()..].chars().next();
            next.is_none_or(|c| !(c.is_ascii_alphanumeric() || c == '-'))
        };
        line.match_indices(&flag).map(|(at, _)| at).find(ends)
    };
    let named = command
        .get_arguments()
        .filter_map(|arg| Some((place(arg)?, arg.get_env()?)));
    match named.min_by_key(|(at, _)| *at) {
        Some((_, variable)) if !line.contains(&*variable.to_string_lossy()) => {
            format!("{line}; its variable is {}", variable.to_string_lossy())
        }
        _ => line.to_owned(),
    }
}

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
