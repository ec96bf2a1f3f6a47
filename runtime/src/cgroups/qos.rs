//! The kernel's numbers for Kubernetes' processor amounts, as upstream's kubelet computes them.

/// Length of a CFS period, in microseconds, unless the node says otherwise.
pub const DEFAULT_PERIOD_US: u64 = 100_000;
/// The kernel refuses a shorter quota, in microseconds.
pub const MIN_QUOTA_US: i64 = 1_000;
/// The fewest shares the kernel takes; what no request becomes.
pub const MIN_SHARES: u64 = 2;
/// The most shares the kernel takes.
pub const MAX_SHARES: u64 = 262_144;
/// Shares of one whole processor.
const SHARES_PER_CPU: u64 = 1024;

/// CPU shares for a request in thousandths of a processor: `request × 1024 / 1000`, from 2 to 262144.
pub fn shares(milli_cpu: u64) -> u64 {
    (milli_cpu.saturating_mul(SHARES_PER_CPU) / 1000).clamp(MIN_SHARES, MAX_SHARES)
}

/// CFS quota in microseconds for a limit in thousandths of a processor; `None`, no quota, for a limit of 0.
pub fn quota(milli_cpu: u64, period_us: u64) -> Option<i64> {
    if milli_cpu == 0 {
        return None;
    }
    let quota = milli_cpu.saturating_mul(period_us) / 1000;
    Some(i64::try_from(quota).unwrap_or(i64::MAX).max(MIN_QUOTA_US))
}

/// `cpu.weight` of v2 for v1's shares: `1 + (shares − 2) · 9999 / 262142`, the kubelet's linear map of 2…262144 to
/// 1…10000. The pod's group (made by the kubelet) and the container's (made by the runtime) must use the same one.
pub fn weight(shares: u64) -> u64 {
    1 + (shares.clamp(MIN_SHARES, MAX_SHARES) - MIN_SHARES) * 9999 / 262_142
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn upstream_numbers() {
        for (milli, expected) in [
            (0, 2),
            (1, 2),
            (2, 2),
            (3, 3),
            (100, 102),
            (500, 512),
            (1000, 1024),
        ] {
            assert_eq!(shares(milli), expected, "{milli}m");
        }
        assert_eq!(shares(u64::MAX), 262_144);
        for (milli, expected) in [(0, None), (1, Some(1000)), (10, Some(1000)), (100, Some(10_000))] {
            assert_eq!(quota(milli, DEFAULT_PERIOD_US), expected, "{milli}m");
        }
        assert_eq!(quota(1500, DEFAULT_PERIOD_US), Some(150_000));
        for (shares, expected) in [
            (0, 1),
            (2, 1),
            (102, 4),
            (1024, 39),
            (262_144, 10_000),
            (u64::MAX, 10_000),
        ] {
            assert_eq!(weight(shares), expected, "{shares} shares");
        }
    }
}
