//! A command's arguments: `--name value` pairs, `--switch`es and words.

use std::str::FromStr;

/// What is left of a command line.
pub(crate) struct Args(Vec<String>);

impl Args {
    pub(crate) fn new(words: Vec<String>) -> Self {
        Self(words)
    }

    /// Takes `--name value` out and parses the value.
    pub(crate) fn option<T: FromStr>(&mut self, name: &str) -> Result<Option<T>, String> {
        let Some(at) = self.0.iter().position(|word| word == name) else {
            return Ok(None);
        };
        if at + 1 >= self.0.len() {
            return Err(format!("{name} needs a value"));
        }
        let value = self.0.remove(at + 1);
        self.0.remove(at);
        value
            .parse()
            .map(Some)
            .map_err(|_| format!("{name} can't be {value:?}"))
    }

    /// Takes `--name` out; whether it was there.
    pub(crate) fn switch(&mut self, name: &str) -> bool {
        let before = self.0.len();
        self.0.retain(|word| word != name);
        self.0.len() < before
    }

    /// Takes the next word and parses it.
    pub(crate) fn word<T: FromStr>(&mut self, what: &str) -> Result<T, String> {
        self.optional(what)?.ok_or_else(|| format!("{what} is missing"))
    }

    /// Takes the next word, if there is one, and parses it.
    pub(crate) fn optional<T: FromStr>(&mut self, what: &str) -> Result<Option<T>, String> {
        if self.0.is_empty() {
            return Ok(None);
        }
        let value = self.0.remove(0);
        value
            .parse()
            .map(Some)
            .map_err(|_| format!("{what} can't be {value:?}"))
    }

    /// The words that are left.
    pub(crate) fn rest(self) -> Vec<String> {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_switches_and_words_come_in_any_order() {
        let mut args = Args::new(["a", "--n", "3", "--quick", "b"].map(str::to_owned).to_vec());
        assert_eq!(args.option::<u32>("--n"), Ok(Some(3)));
        assert_eq!(args.option::<u32>("--m"), Ok(None));
        assert!(args.switch("--quick"));
        assert_eq!(args.word::<String>("NAME").as_deref(), Ok("a"));
        assert_eq!(args.rest(), ["b"]);
    }

    #[test]
    fn what_is_missing_or_wrong_is_named() {
        let mut args = Args::new(vec!["--n".into(), "x".into(), "--m".into()]);
        assert_eq!(args.option::<u32>("--n"), Err("--n can't be \"x\"".into()));
        let mut args = Args::new(vec!["--m".into()]);
        assert_eq!(args.option::<u32>("--m"), Err("--m needs a value".into()));
        assert_eq!(
            Args::new(Vec::new()).word::<u32>("PORT"),
            Err("PORT is missing".into())
        );
    }
}
