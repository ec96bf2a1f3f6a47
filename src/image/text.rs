//! Numbers and ids as people read them.

use std::time::{SystemTime, UNIX_EPOCH};

/// The first 12 digits of a digest, as docker shows ids.
pub(super) fn short_id(digest: &str) -> String {
    let hex = digest.split_once(':').map_or(digest, |(_, hex)| hex);
    hex.chars().take(12).collect()
}

/// A number of bytes with three digits: `13.5MB`.
pub(super) fn bytes(n: u64) -> String {
    let units = ["kB", "MB", "GB", "TB", "PB", "EB"];
    if n < 1000 {
        return format!("{n}B");
    }
    let mut tenths = n / 100;
    let mut unit = 0;
    while tenths >= 10_000 && unit + 1 < units.len() {
        tenths /= 1000;
        unit += 1;
    }
    match tenths {
        0..=999 => format!("{}.{}{}", tenths / 10, tenths % 10, units[unit]),
        _ => format!("{}{}", tenths / 10, units[unit]),
    }
}

/// How long ago a time (seconds since the Unix epoch) was: `5m`, `3h`, `12d`.
pub(super) fn ago(time: u64) -> String {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs());
    let seconds = now.saturating_sub(time);
    match seconds {
        0..=119 => format!("{seconds}s"),
        120..=7199 => format!("{}m", seconds / 60),
        7200..=172_799 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_have_three_digits() {
        let table = [
            (0, "0B"),
            (999, "999B"),
            (1000, "1.0kB"),
            (13_540_000, "13.5MB"),
            (123_456_789, "123MB"),
            (1_500_000_000, "1.5GB"),
            (u64::MAX, "18.4EB"),
        ];
        for (n, text) in table {
            assert_eq!(bytes(n), text);
        }
    }
}
