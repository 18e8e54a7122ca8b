//! The command line: words, and `--name value` in any order, a name perhaps several times.

use std::str::FromStr;

use anyhow::{Context as _, Result, bail};

/// What was given and not yet taken.
#[derive(Debug, Clone, Default)]
pub(crate) struct Options {
    words: Vec<String>,
    named: Vec<(String, String)>,
}

/// Options that stand alone.
const FLAGS: [&str; 4] = ["quick", "publish", "batch", "help"];

impl Options {
    /// From the command line.
    pub(crate) fn of(args: impl IntoIterator<Item = String>) -> Result<Self> {
        let mut options = Self::default();
        let mut args = args.into_iter();
        while let Some(arg) = args.next() {
            match arg.strip_prefix("--") {
                None => options.words.push(arg),
                Some(name) if FLAGS.contains(&name) => {
                    options.named.push((name.to_owned(), String::new()))
                }
                Some(name) => {
                    let value = args
                        .next()
                        .with_context(|| format!("--{name} needs a value"))?;
                    options.named.push((name.to_owned(), value));
                }
            }
        }
        Ok(options)
    }

    /// The next word.
    pub(crate) fn free(&mut self, what: &str) -> Result<String> {
        if self.words.is_empty() {
            bail!("{what}");
        }
        Ok(self.words.remove(0))
    }

    /// All values of a name.
    pub(crate) fn all(&self, name: &str) -> Vec<String> {
        let of_name = self.named.iter().filter(|(given, _)| given == name);
        of_name.map(|(_, value)| value.clone()).collect()
    }

    /// The last value of a name.
    pub(crate) fn text(&self, name: &str) -> Option<String> {
        self.all(name).pop()
    }

    /// Whether a flag was given.
    pub(crate) fn flag(&self, name: &str) -> bool {
        self.text(name).is_some()
    }

    /// The values of a name that takes a list with commas.
    pub(crate) fn list(&self, name: &str) -> Option<Vec<String>> {
        self.text(name)
            .map(|text| text.split(',').map(str::to_owned).collect())
    }

    /// A number.
    pub(crate) fn number(&self, name: &str) -> Result<Option<usize>> {
        self.parsed(name)
    }

    /// A number that may have a fraction.
    pub(crate) fn number_f64(&self, name: &str) -> Result<Option<f64>> {
        self.parsed(name)
    }

    fn parsed<T: FromStr>(&self, name: &str) -> Result<Option<T>> {
        let Some(text) = self.text(name) else {
            return Ok(None);
        };
        let value = text.parse().ok();
        value
            .map(Some)
            .with_context(|| format!("--{name} {text}: not a number that fits"))
    }
}
