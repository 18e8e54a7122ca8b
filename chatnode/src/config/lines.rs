//! Files of URLs, one a line: what is secret in a URL does not stand in a command line.

use std::fs;
use std::path::Path;

use base::process::Failure;

use super::refuse;

/// A longer file holds something else.
const FILE_BYTES_MAX: u64 = 16 << 10;

/// The lines of the file that `flag` names, each for `of`; none without a file.
pub(super) fn of_file(flag: &str, of: &str, path: Option<&Path>) -> Result<Vec<String>, Failure> {
    let Some(path) = path else {
        return Ok(Vec::new());
    };
    let text = read(flag, of, path)?;
    let lines = text.lines().map(str::trim);
    let lines = lines.filter(|line| !line.is_empty() && !line.starts_with('#'));
    Ok(lines.map(str::to_owned).collect())
}

fn read(flag: &str, of: &str, path: &Path) -> Result<String, Failure> {
    let refused = |why: &str| refuse(format!("{flag} {}: {why}", path.display()));
    match fs::metadata(path) {
        Err(why) => refused(&why.to_string()),
        Ok(file) if !file.is_file() => refused("it is no file"),
        Ok(file) if file.len() > FILE_BYTES_MAX => refused("it is too long for URLs, one a line"),
        Ok(_) => match fs::read_to_string(path) {
            Err(why) => refused(&why.to_string()),
            Ok(text) if text.trim().is_empty() => {
                refused(&format!("it has no line; each is a URL, as for {of}"))
            }
            Ok(text) => Ok(text),
        },
    }
}
