//! `$(VAR)` in commands, arguments and environment values.

/// Replaces each `$(NAME)` by what `lookup` finds; an unknown name stays as it stands. `$$` is a `$`, so `$$(NAME)` is
/// the text `$(NAME)`.
pub fn expand<'a>(input: &str, lookup: impl Fn(&str) -> Option<&'a str>) -> String {
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
        rest = &after[used..];
    }
    output.push_str(rest);
    output
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
            assert_eq!(expand(input, lookup), output, "{input}");
        }
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
            let output = expand(&input, |_| None);
            if !input.contains("$$") {
                proptest::prop_assert_eq!(output, input);
            }
        }
    }
}
