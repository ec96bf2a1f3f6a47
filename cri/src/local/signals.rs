//! The names of signals, as images and pods write them.

use std::str::FromStr;

use nix::sys::signal::Signal;

use crate::engine::EngineError;

/// The number of a signal: `SIGTERM`, `term`, `15`, `SIGRTMIN+3`.
pub(crate) fn parse(name: &str) -> Result<i32, EngineError> {
    let upper = name.trim().to_ascii_uppercase();
    let short = upper.strip_prefix("SIG").unwrap_or(&upper);
    // Older names of the same signals.
    let short = match short {
        "IOT" => "ABRT",
        "CLD" => "CHLD",
        "POLL" => "IO",
        other => other,
    };
    let number = short.parse().ok().or_else(|| real_time(short)).or_else(|| {
        Signal::from_str(&format!("SIG{short}"))
            .ok()
            .map(|signal| signal as i32)
    });
    number.filter(|number| (1..=64).contains(number)).ok_or_else(|| {
        EngineError::InvalidArgument(format!("There is no signal {name:?}; signal(7) lists them."))
    })
}

/// signal(7): containers see the kernel's real-time signals from 34 on, as libc leaves them.
fn real_time(short: &str) -> Option<i32> {
    const MIN: i32 = 34;
    const MAX: i32 = 64;
    let offset = |text: &str, sign: char| match text.strip_prefix(sign) {
        Some(digits) => digits.parse::<i32>().ok(),
        None => text.is_empty().then_some(0),
    };
    if let Some(rest) = short.strip_prefix("RTMIN") {
        return offset(rest, '+').and_then(|more| MIN.checked_add(more));
    }
    let rest = short.strip_prefix("RTMAX")?;
    offset(rest, '-').and_then(|less| MAX.checked_sub(less))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers() {
        let table = [
            ("SIGTERM", 15),
            ("term", 15),
            ("9", 9),
            ("SIGQUIT", 3),
            ("SIGRTMIN+3", 37),
            ("RTMAX-1", 63),
            ("RTMIN", 34),
            ("SIGIOT", 6),
            ("SIGCLD", 17),
            ("SIGPOLL", 29),
        ];
        for (name, number) in table {
            assert_eq!(parse(name).unwrap(), number, "{name}");
        }
        for name in ["", "SIGNOTHING", "0", "65", "-1", "RTMIN+99", "RTMAX+1"] {
            assert!(
                parse(name)
                    .unwrap_err()
                    .to_string()
                    .contains("There is no signal"),
                "{name}"
            );
        }
    }
}
