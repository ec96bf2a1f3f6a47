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

/// `cpu.weight` of v2 for v1's shares: `10^((x² + 125·x) / 612 − 7/34)`, rounded up, where `x` is the shares' binary
/// logarithm. It maps the least to 1, the default of 1024 to the default of 100 and the most to 10000, as runc 1.3.2 and crun 1.23 do. The linear map that was usual before
/// made 39 of 1024, less than half of what a neighbour that is no container has. Pods' and containers' groups use the same one.
pub fn weight(shares: u64) -> u64 {
    match shares {
        ..=MIN_SHARES => 1,
        MAX_SHARES.. => 10_000,
        shares => {
            // At most 18 bits: nothing is lost.
            let x = f64::from(u32::try_from(shares).unwrap_or(u32::MAX)).log2();
            let weight = 10_f64.powf((x * x + 125.0 * x) / 612.0 - 7.0 / 34.0);
            // The smallest whole number that is not below it.
            (1..=10_000_u32)
                .find(|n| f64::from(*n) >= weight)
                .map_or(10_000, u64::from)
        }
    }
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
            (3, 2),
            (102, 17),
            (512, 59),
            (1024, 100),
            (2048, 174),
            (262_143, 10_000),
            (262_144, 10_000),
            (u64::MAX, 10_000),
        ] {
            assert_eq!(weight(shares), expected, "{shares} shares");
        }
        for shares in 2..5000 {
            assert!(weight(shares) <= weight(shares + 1), "{shares} shares");
        }
    }
}
