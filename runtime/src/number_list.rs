//! Lists of processors and memory nodes as the kernel writes them: `0-3,7`.

/// Numbers that a list may hold are below this: the kernel's largest `NR_CPUS`.
pub(crate) const LIMIT: u32 = 8192;

/// A set of numbers as bits, the first word's lowest bit for 0. There are no more words than needed.
///
/// # Errors
/// A phrase about what is wrong with the list.
pub(crate) fn parse(list: &str) -> Result<Vec<u64>, String> {
    let mut words = Vec::new();
    for part in list.trim().split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (number(first, list)?, number(last, list)?);
        if first > last {
            return Err(format!("{part:?} runs backwards"));
        }
        for n in first..=last {
            let word = (n / u64::BITS) as usize;
            if words.len() <= word {
                words.resize(word + 1, 0);
            }
            words[word] |= 1 << (n % u64::BITS);
        }
    }
    Ok(words)
}

fn number(text: &str, list: &str) -> Result<u32, String> {
    let text = text.trim();
    // What parses as a number in Rust may have a sign.
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let number = digits.then(|| text.parse::<u32>().ok()).flatten();
    match number {
        Some(number) if number < LIMIT => Ok(number),
        Some(_) => Err(format!("{text} is not below {LIMIT}")),
        None => Err(format!("{list:?} is not a list of numbers such as 0-3,7")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn numbers_and_ranges() {
        for (list, words) in [
            ("0", vec![1]),
            ("0-3,7", vec![0x8f]),
            (" 1 , 3 - 4 ", vec![0x1a]),
            ("7,0-3,2", vec![0x8f]),
            ("63-64", vec![1 << 63, 1]),
            ("8191", [vec![0; 127], vec![1 << 63]].concat()),
        ] {
            assert_eq!(parse(list), Ok(words), "{list}");
        }
    }

    #[test]
    fn anything_else_is_refused() {
        for list in [
            "",
            ",",
            "1,",
            "a",
            "1-",
            "-1",
            "+1",
            "3-1",
            "0x1",
            "8192",
            "0-4294967296",
            "1-2-3",
            "1 2",
        ] {
            assert!(parse(list).is_err(), "{list:?}");
        }
    }

    proptest! {
        #[test]
        fn a_list_is_the_set_of_its_numbers(numbers in prop::collection::btree_set(0..LIMIT, 1..40)) {
            let list = numbers.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
            let words = parse(&list).unwrap();
            for n in 0..LIMIT {
                let bit = words.get((n / 64) as usize).is_some_and(|word| word & (1 << (n % 64)) != 0);
                prop_assert_eq!(bit, numbers.contains(&n));
            }
        }

        #[test]
        fn no_text_makes_it_panic(list in ".{0,40}") {
            let _ = parse(&list);
        }
    }
}
