//! The wall clock, and the two ways in which log files spell it.

use std::time::{SystemTime, UNIX_EPOCH};

/// Nanoseconds since the Unix epoch; 0 for a clock set before it.
pub(crate) fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
}

/// How long [`rfc3339`]'s text is.
pub(crate) const RFC3339_LEN: usize = 30;

/// `2026-01-02T03:04:05.000000006Z`: RFC 3339 in UTC with nine digits, whatever they are, so that lines sort.
pub fn rfc3339(nanos: u64) -> [u8; RFC3339_LEN] {
    let mut text = *b"0000-00-00T00:00:00.000000000Z";
    let time = Civil::of(nanos);
    put(&mut text[0..4], time.year);
    put(&mut text[5..7], time.month);
    put(&mut text[8..10], time.day);
    put(&mut text[11..13], time.hour);
    put(&mut text[14..16], time.minute);
    put(&mut text[17..19], time.second);
    put(&mut text[20..29], nanos % 1_000_000_000);
    text
}

/// `20260102-030405`: what kubelet appends to the name of a rotated log.
pub(crate) fn rotation_stamp(nanos: u64) -> String {
    let t = Civil::of(nanos);
    format!(
        "{:04}{:02}{:02}-{:02}{:02}{:02}",
        t.year, t.month, t.day, t.hour, t.minute, t.second
    )
}

struct Civil {
    year: u64,
    month: u64,
    day: u64,
    hour: u64,
    minute: u64,
    second: u64,
}

impl Civil {
    /// The proleptic Gregorian date, counted in 400-year eras that begin on 1 March so that the leap day is last.
    fn of(nanos: u64) -> Self {
        let seconds = nanos / 1_000_000_000;
        let of_day = seconds % 86_400;
        let days = seconds / 86_400 + 719_468;
        let (era, day_of_era) = (days / 146_097, days % 146_097);
        let year_of_era =
            (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let shifted_month = (5 * day_of_year + 2) / 153;
        let month = if shifted_month < 10 {
            shifted_month + 3
        } else {
            shifted_month - 9
        };
        Self {
            year: year_of_era + era * 400 + u64::from(month <= 2),
            month,
            day: day_of_year - (153 * shifted_month + 2) / 5 + 1,
            hour: of_day / 3_600,
            minute: of_day / 60 % 60,
            second: of_day % 60,
        }
    }
}

/// Writes a number right-aligned over `0`s.
fn put(digits: &mut [u8], mut value: u64) {
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + u8::try_from(value % 10).unwrap_or(0);
        value /= 10;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(nanos: u64) -> String {
        String::from_utf8(rfc3339(nanos).to_vec()).unwrap()
    }

    #[test]
    fn known_instants() {
        assert_eq!(text(0), "1970-01-01T00:00:00.000000000Z");
        assert_eq!(text(951_782_400_000_000_001), "2000-02-29T00:00:00.000000001Z");
        assert_eq!(text(1_709_251_199_999_999_999), "2024-02-29T23:59:59.999999999Z");
        assert_eq!(text(1_709_251_200_000_000_000), "2024-03-01T00:00:00.000000000Z");
        assert_eq!(text(4_102_444_799_123_456_789), "2099-12-31T23:59:59.123456789Z");
        assert_eq!(rotation_stamp(1_709_251_199_000_000_000), "20240229-235959");
    }
}
