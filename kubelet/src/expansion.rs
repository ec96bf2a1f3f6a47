//! `$(VAR)` in commands, arguments and environment values.

/// The longest argument or variable that the kernel takes (`MAX_ARG_STRLEN`, execve(2)).
pub(crate) const LONGEST: usize = 131_072;
/// The most that it takes of all of them together.
const MOST: usize = 6 << 20;

/// Why texts can't be given to a program: each variable may name the one before ten times, so that a page of them is more than
/// any memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TooLong {
    /// One of them.
    #[error("becomes longer than the {LONGEST} bytes that the kernel takes")]
    One,
    /// All of them.
    #[error("takes, with what is before it, more than the {MOST} bytes that the kernel takes")]
    All,
}

/// Expands the texts that a program is given together.
#[derive(Debug)]
pub struct Expansion {
    left: usize,
}

impl Default for Expansion {
    fn default() -> Self {
        Expansion { left: MOST }
    }
}

impl Expansion {
    /// Expands one more text.
    ///
    /// # Errors
    /// No program could be given that.
    pub fn of<'a>(
        &mut self,
        input: &str,
        lookup: impl Fn(&str) -> Option<&'a str>,
    ) -> Result<String, TooLong> {
        let output = expand(input, lookup).ok_or(TooLong::One)?;
        self.left = self.left.checked_sub(output.len() + 1).ok_or(TooLong::All)?;
        Ok(output)
    }
}

/// Replaces each `$(NAME)` by what `lookup` finds; an unknown name stays as it stands. `$$` is a `$`, so `$$(NAME)` is
/// the text `$(NAME)`. `None` if it becomes longer than
/// any program may be given.
fn expand<'a>(input: &str, lookup: impl Fn(&str) -> Option<&'a str>) -> Option<String> {
    let mut output = String::with_capacity(input.len());
    let mut rest = input;
    while let Some(at) = rest.find('$') {
        output.push_str(&rest[..at]);
        let after = &rest[at + 1..];
        let (text, used) = match after.chars().next() {
            None => ("$", 0),
            Some('$') => ("$", 1),
            Some('(') => match after.find(')') {
                Some(end) => {
                    match lookup(&after[1..end]) {
                        Some(value) => output.push_str(value),
                        None => output.push_str(&rest[at..=at + 1 + end]),
                    }
                    ("", end + 1)
                }
                None => ("$(", 1),
            },
            Some(_) => ("$", 0),
        };
        output.push_str(text);
        if output.len() > LONGEST {
            return None;
        }
        rest = &after[used..];
    }
    output.push_str(rest);
    (output.len() <= LONGEST).then_some(output)
}

/// The first `$(NAME)` that `lookup` does not find, if there is one. `subPathExpr` must not have any.
pub fn first_unknown<'i, 'a>(input: &'i str, lookup: impl Fn(&str) -> Option<&'a str>) -> Option<&'i str> {
    let mut rest = input;
    while let Some(at) = rest.find('$') {
        let after = &rest[at + 1..];
        if let Some(tail) = after.strip_prefix('$') {
            rest = tail;
            continue;
        }
        rest = after;
        if after.starts_with('(')
            && let Some(end) = after.find(')')
        {
            let name = &after[1..end];
            if lookup(name).is_none() {
                return Some(name);
            }
            rest = &after[end + 1..];
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lookup(name: &str) -> Option<&'static str> {
        match name {
            "A" => Some("a"),
            "B" => Some("$(A)"),
            "" => Some("empty"),
            _ => None,
        }
    }

    #[test]
    fn expands_as_upstream_does() {
        for (input, output) in [
            ("", ""),
            ("plain", "plain"),
            ("$(A)", "a"),
            ("x$(A)y$(A)", "xaya"),
            ("$$(A)", "$(A)"),
            ("$$$(A)", "$a"),
            ("$$$$(A)", "$$(A)"),
            ("$(NONE)", "$(NONE)"),
            ("$(B)", "$(A)"),
            ("$()", "empty"),
            ("$(A", "$(A"),
            ("$", "$"),
            ("a$", "a$"),
            ("$A", "$A"),
            ("$$", "$"),
            ("$ü$(A)", "$üa"),
            ("$(A))", "a)"),
            ("$($(A))", "$($(A))"),
            ("${A}", "${A}"),
        ] {
            assert_eq!(expand(input, lookup).as_deref(), Some(output), "{input}");
        }
    }

    #[test]
    fn what_no_program_could_be_given_is_not_made() {
        let long = "x".repeat(LONGEST / 10);
        let lookup = |_: &str| Some(long.as_str());
        let mut expansion = Expansion::default();
        assert_eq!(
            expansion.of(&"$(A)".repeat(10), lookup).unwrap().len(),
            LONGEST / 10 * 10
        );
        assert_eq!(expansion.of(&"$(A)".repeat(11), lookup), Err(TooLong::One));
        assert_eq!(expansion.of(&"x".repeat(LONGEST + 1), lookup), Err(TooLong::One));
        let all = (0..100)
            .map(|_| expansion.of(&"$(A)".repeat(10), lookup))
            .find(Result::is_err);
        assert_eq!(all, Some(Err(TooLong::All)));
    }

    #[test]
    fn finds_unknown_names() {
        assert_eq!(first_unknown("a/$(A)/$(NONE)", lookup), Some("NONE"));
        assert_eq!(first_unknown("a/$(A)/$$(NONE)", lookup), None);
        assert_eq!(first_unknown("$", lookup), None);
    }

    proptest::proptest! {
        #[test]
        fn never_panics_and_keeps_plain_text(input in "[a$()ü]{0,24}") {
            let output = expand(&input, |_| None).unwrap();
            if !input.contains("$$") {
                proptest::prop_assert_eq!(output, input);
            }
        }
    }
}
