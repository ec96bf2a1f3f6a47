//! Label selectors: kubectl's `-l`.

use std::collections::BTreeMap;
use std::str::FromStr;

/// What labels have to be. The empty one fits everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selector(Vec<Requirement>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Requirement {
    key: String,
    wants: Wants,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Wants {
    Present,
    Absent,
    In(Vec<String>),
    NotIn(Vec<String>),
}

impl Selector {
    /// Whether labels are as is wanted. What is not there is not among any values, as in Kubernetes.
    pub fn fits(&self, labels: Option<&BTreeMap<String, String>>) -> bool {
        self.0.iter().all(|requirement| {
            let value = labels.and_then(|labels| labels.get(&requirement.key));
            match &requirement.wants {
                Wants::Present => value.is_some(),
                Wants::Absent => value.is_none(),
                Wants::In(values) => value.is_some_and(|value| values.contains(value)),
                Wants::NotIn(values) => value.is_none_or(|value| !values.contains(value)),
            }
        })
    }
}

impl FromStr for Selector {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parts = apart(text)?;
        let parts = parts
            .iter()
            .map(|part| part.trim())
            .filter(|part| !part.is_empty());
        parts.map(requirement).collect::<Result<_, _>>().map(Self)
    }
}

/// At the commas that are not in parentheses.
fn apart(text: &str) -> Result<Vec<&str>, String> {
    let (mut parts, mut begin, mut inside) = (Vec::new(), 0, false);
    for (at, letter) in text.char_indices() {
        match letter {
            '(' if !inside => inside = true,
            ')' if inside => inside = false,
            '(' | ')' => return Err(format!("the parentheses of {text:?} don't match")),
            ',' if !inside => {
                parts.push(&text[begin..at]);
                begin = at + 1;
            }
            _ => {}
        }
    }
    if inside {
        return Err(format!("the parentheses of {text:?} don't match"));
    }
    parts.push(&text[begin..]);
    Ok(parts)
}

fn requirement(text: &str) -> Result<Requirement, String> {
    let (key, wants) =
        if let Some((key, values)) = text.strip_suffix(')').and_then(|text| text.split_once('(')) {
            let values = values.split(',').map(|value| value.trim().to_owned()).collect();
            match key.split_whitespace().collect::<Vec<_>>()[..] {
                [key, "in"] => (key, Wants::In(values)),
                [key, "notin"] => (key, Wants::NotIn(values)),
                _ => {
                    return Err(format!(
                        "{text:?} is not like KEY in (VALUE,…) or KEY notin (VALUE,…)"
                    ));
                }
            }
        } else if let Some((key, value)) = text.split_once("!=") {
            (key.trim(), Wants::NotIn(vec![value.trim().to_owned()]))
        } else if let Some((key, value)) = text.split_once("==").or_else(|| text.split_once('=')) {
            (key.trim(), Wants::In(vec![value.trim().to_owned()]))
        } else if let Some(key) = text.strip_prefix('!') {
            (key.trim(), Wants::Absent)
        } else {
            (text, Wants::Present)
        };
    if key.is_empty() || key.contains(char::is_whitespace) {
        return Err(format!(
            "{text:?} names no label; write KEY=VALUE, KEY!=VALUE, KEY, !KEY or KEY in (VALUE,…)"
        ));
    }
    Ok(Requirement {
        key: key.to_owned(),
        wants,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_selected_as_kubectl_does() {
        let labels: BTreeMap<String, String> = [("app", "web"), ("tier", "front")]
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .into();
        for (text, fits, fits_none) in [
            ("", true, true),
            ("app=web", true, false),
            ("app==web,tier=front", true, false),
            ("app=web,tier=back", false, false),
            ("app!=web", false, true),
            ("app!=db", true, true),
            ("app", true, false),
            ("!app", false, true),
            ("app in (db, web),tier", true, false),
            ("app notin (db,web)", false, true),
            ("zone notin (a)", true, true),
        ] {
            let selector: Selector = text.parse().unwrap();
            assert_eq!(selector.fits(Some(&labels)), fits, "{text}");
            assert_eq!(selector.fits(None), fits_none, "{text}");
        }
        for text in ["=x", "app in (a", "app within (a)", "a b", "app)", "!"] {
            assert!(text.parse::<Selector>().is_err(), "{text}");
        }
    }
}
