//! Which annotations a runtime handler is told. Patterns are those of containerd's `pod_annotations` and
//! `container_annotations`: shell patterns in which only a `/` matches a `/`.

use std::collections::BTreeMap;

use super::Handler;

type Annotations = BTreeMap<String, String>;

/// The annotations that go into a container's configuration. One of the container's wins over the pod's of that name.
pub(in super::super) fn passed(handler: &Handler, pod: &Annotations, container: &Annotations) -> Annotations {
    let matching = |annotations: &Annotations, patterns: &[String]| -> Annotations {
        let wanted = |name: &str| patterns.iter().any(|pattern| matches(pattern, name));
        let passed = annotations.iter().filter(|(name, _)| wanted(name));
        passed
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect()
    };
    let mut passed = matching(pod, &handler.config.pod_annotations);
    passed.extend(matching(container, &handler.config.container_annotations));
    passed
}

/// Whether a pattern is one.
pub(super) fn check(pattern: &str) -> Result<(), String> {
    let mut rest: &[char] = &pattern.chars().collect::<Vec<_>>();
    while !rest.is_empty() {
        let piece = Piece::first(rest);
        let (_, left) = piece
            .ok_or_else(|| format!("{pattern:?} is no pattern: a [ lacks its ], or a \\ what follows it"))?;
        rest = left;
    }
    Ok(())
}

fn matches(pattern: &str, name: &str) -> bool {
    let (pattern, name): (Vec<char>, Vec<char>) = (pattern.chars().collect(), name.chars().collect());
    matches_all(&pattern, &name)
}

/// With one place to go back to: the last `*` takes ever more. A `/` ends that, so that the time is bounded by the product of
/// the lengths.
fn matches_all(mut pattern: &[char], mut name: &[char]) -> bool {
    let mut back: Option<(&[char], &[char])> = None;
    loop {
        let step = match Piece::first(pattern) {
            Some((Piece::Any, rest)) => {
                back = Some((rest, name));
                Some((rest, name))
            }
            Some((piece, rest)) => match name.split_first() {
                Some((first, left)) if piece.takes(*first) => Some((rest, left)),
                _ => None,
            },
            None if pattern.is_empty() && name.is_empty() => return true,
            None => None,
        };
        let next = step.or_else(|| {
            let (rest, from) = back?;
            let (skipped, left) = from.split_first()?;
            if *skipped == '/' {
                return None;
            }
            back = Some((rest, left));
            Some((rest, left))
        });
        match next {
            Some((rest, left)) => (pattern, name) = (rest, left),
            None => return false,
        }
    }
}

/// What a pattern is made of.
enum Piece {
    /// `*`
    Any,
    /// `?`
    One,
    /// `[a-z]` or `[^a-z]`: ranges, and whether they are what is not taken.
    Class(Vec<(char, char)>, bool),
    /// A character, or `\` and one.
    Literal(char),
}

impl Piece {
    /// The first piece of a pattern, and the rest; `None` at the end, and for what is no pattern.
    fn first(pattern: &[char]) -> Option<(Self, &[char])> {
        let (first, rest) = pattern.split_first()?;
        match first {
            '*' => Some((Self::Any, rest)),
            '?' => Some((Self::One, rest)),
            '\\' => rest
                .split_first()
                .map(|(literal, rest)| (Self::Literal(*literal), rest)),
            '[' => Self::class(rest),
            literal => Some((Self::Literal(*literal), rest)),
        }
    }

    fn class(mut rest: &[char]) -> Option<(Self, &[char])> {
        let negated = rest.first() == Some(&'^');
        if negated {
            rest = &rest[1..];
        }
        let mut ranges = Vec::new();
        loop {
            if rest.first() == Some(&']') && !ranges.is_empty() {
                return Some((Self::Class(ranges, negated), &rest[1..]));
            }
            let (low, left) = class_character(rest)?;
            let (high, left) = match left.split_first() {
                Some(('-', left)) => class_character(left)?,
                _ => (low, left),
            };
            ranges.push((low, high));
            rest = left;
        }
    }

    fn takes(&self, character: char) -> bool {
        match self {
            Self::Any => false,
            Self::One => character != '/',
            Self::Class(ranges, negated) => {
                let within = ranges
                    .iter()
                    .any(|(low, high)| (*low..=*high).contains(&character));
                within != *negated
            }
            Self::Literal(literal) => *literal == character,
        }
    }
}

fn class_character(rest: &[char]) -> Option<(char, &[char])> {
    match rest.split_first()? {
        ('\\', rest) => rest.split_first().map(|(character, rest)| (*character, rest)),
        ('-' | ']', _) => None,
        (character, rest) => Some((*character, rest)),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn patterns_are_those_of_containerd() {
        for (pattern, name, expected) in [
            ("a", "a", true),
            ("a", "b", false),
            ("a", "ab", false),
            ("", "", true),
            ("", "a", false),
            ("*", "", true),
            ("*", "abc", true),
            ("*", "a/b", false),
            ("*/*", "a/b", true),
            ("io.katacontainers.*", "io.katacontainers.config", true),
            ("io.katacontainers.*", "io.katacontainers.config/x", false),
            ("*.example.com/*", "my.example.com/a", true),
            ("*.example.com/*", "example.com/a", false),
            ("a*b*c", "axxbyyc", true),
            ("a*b*c", "axxbyy", false),
            ("a*ab", "aaaab", true),
            ("?", "a", true),
            ("?", "/", false),
            ("[a-c]x", "bx", true),
            ("[a-c]x", "dx", false),
            ("[^a-c]x", "dx", true),
            ("[\\]]", "]", true),
            ("\\*", "*", true),
            ("\\*", "a", false),
        ] {
            assert_eq!(matches(pattern, name), expected, "{pattern:?} {name:?}");
            assert_eq!(check(pattern), Ok(()), "{pattern:?}");
        }
        for pattern in ["[", "a[b", "[]", "[a-", "\\", "[-]"] {
            assert!(check(pattern).unwrap_err().contains("pattern"), "{pattern}");
        }
    }

    proptest! {
        /// Against the definition: a `*` is nothing, or one character and a `*` again.
        #[test]
        fn going_back_finds_what_trying_everything_finds(pattern in "[ab*?/]{0,8}", name in "[ab/]{0,10}") {
            fn by_definition(pattern: &[char], name: &[char]) -> bool {
                match pattern.split_first() {
                    None => name.is_empty(),
                    Some(('*', rest)) => {
                        by_definition(rest, name)
                            || name.split_first().is_some_and(|(c, left)| *c != '/' && by_definition(pattern, left))
                    }
                    Some((p, rest)) => name.split_first().is_some_and(|(c, left)| {
                        (*p == '?' && *c != '/' || p == c) && by_definition(rest, left)
                    }),
                }
            }
            let (p, n): (Vec<char>, Vec<char>) = (pattern.chars().collect(), name.chars().collect());
            prop_assert_eq!(matches(&pattern, &name), by_definition(&p, &n));
        }
    }
}
