//! The time as RFC 3339 writes it.

use std::time::Duration;

/// The current time in UTC.
pub(crate) fn now() -> String {
    format(berth_runtime::since_epoch())
}

/// A span of time: numbers with units, as in `1m30s`, `1.5s` or `300ms`; at most some 68 years.
pub(crate) fn parse_duration(text: &str) -> Option<Duration> {
    const UNITS: [(&str, u64); 7] = [
        ("ns", 1),
        ("us", 1_000),
        ("\u{b5}s", 1_000),
        ("ms", 1_000_000),
        ("s", 1_000_000_000),
        ("m", 60_000_000_000),
        ("h", 3_600_000_000_000),
    ];
    const LONGEST: Duration = Duration::from_secs(u32::MAX as u64 / 2);
    let mut total = Duration::ZERO;
    let mut rest = text;
    while !rest.is_empty() || total.is_zero() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, after) = rest.split_at(end);
        let end = after.find(|c: char| c.is_ascii_digit()).unwrap_or(after.len());
        let (unit, after) = after.split_at(end);
        let nanos = UNITS.iter().find(|(name, _)| *name == unit)?.1;
        let part = billionths(number)?.checked_mul(u128::from(nanos))?;
        let part = u64::try_from(part / 1_000_000_000).ok()?;
        total = total
            .checked_add(Duration::from_nanos(part))
            .filter(|sum| *sum <= LONGEST)?;
        rest = after;
        if rest.is_empty() {
            break;
        }
    }
    Some(total)
}

/// A decimal number in billionths, the digits after those left out. Floating point would bring tables that are larger than all
/// else here.
fn billionths(number: &str) -> Option<u128> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let digits = [whole, &format!("{fraction:0<9.9}")].concat();
    if whole.len() + fraction.len() == 0 || fraction.contains('.') {
        return None;
    }
    digits.parse().ok()
}

fn format(since_epoch: Duration) -> String {
    let seconds = since_epoch.as_secs();
    let (days, time) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = date(days);
    let (hour, minute, second) = (time / 3600, time / 60 % 60, time % 60);
    let nanos = since_epoch.subsec_nanos();
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{nanos:09}Z")
}

/// The Gregorian date of a day since the epoch, counted in 400-year cycles of years that begin in March.
fn date(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let (cycle, day_of_cycle) = (shifted / 146_097, shifted % 146_097);
    let year_of_cycle =
        (day_of_cycle - day_of_cycle / 1460 + day_of_cycle / 36_524 - day_of_cycle / 146_096) / 365;
    let day_of_year = day_of_cycle - (365 * year_of_cycle + year_of_cycle / 4 - year_of_cycle / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 {
        shifted_month + 3
    } else {
        shifted_month - 9
    };
    let year = year_of_cycle + cycle * 400 + u64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_moments() {
        for (seconds, expected) in [
            (0, "1970-01-01T00:00:00.000000000Z"),
            (951_782_400, "2000-02-29T00:00:00.000000000Z"),
            (1_704_067_199, "2023-12-31T23:59:59.000000000Z"),
            (4_107_542_400, "2100-03-01T00:00:00.000000000Z"),
        ] {
            assert_eq!(format(Duration::from_secs(seconds)), expected);
        }
    }

    #[test]
    fn durations_have_units() {
        for (text, nanos) in [
            ("5s", 5_000_000_000),
            ("1m30s", 90_000_000_000),
            ("1.5s", 1_500_000_000),
            ("300ms", 300_000_000),
            ("2us", 2_000),
            ("0s", 0),
            ("1h", 3_600_000_000_000),
        ] {
            assert_eq!(parse_duration(text), Some(Duration::from_nanos(nanos)), "{text}");
        }
        for text in [
            "",
            "5",
            "s",
            "5x",
            "-5s",
            "1..5s",
            "5s5",
            "99999999999h",
            "inf",
            "1e9s",
        ] {
            assert_eq!(parse_duration(text), None, "{text}");
        }
    }
}
