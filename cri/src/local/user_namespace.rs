//! A pod's user namespace: whose ids on the host its own are.

use crate::types::IdMapping;

/// What user_namespaces(7) shows an id as that it has no mapping for.
const OVERFLOW: u32 = 65534;

/// The host's id for one of the pod's.
pub(super) fn on_host(ranges: &[IdMapping], id: u32) -> u32 {
    ranges
        .iter()
        .find(|range| id >= range.container && id - range.container < range.size)
        .map_or(OVERFLOW, |range| range.host + (id - range.container))
}

/// The pod's id for one of the host's.
pub(super) fn in_pod(ranges: &[IdMapping], id: u32) -> u32 {
    ranges
        .iter()
        .find(|range| id >= range.host && id - range.host < range.size)
        .map_or(OVERFLOW, |range| range.container + (id - range.host))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_found_in_their_range() {
        let range = |container, host, size| IdMapping {
            container,
            host,
            size,
        };
        let ranges = [range(0, 65_536, 1000), range(5000, 10, 1)];
        for (inside, outside) in [
            (0, 65_536),
            (999, 66_535),
            (5000, 10),
            (1000, OVERFLOW),
            (5001, OVERFLOW),
        ] {
            assert_eq!(on_host(&ranges, inside), outside, "{inside}");
            if outside != OVERFLOW {
                assert_eq!(in_pod(&ranges, outside), inside, "{outside}");
            }
        }
        assert_eq!(in_pod(&ranges, 9), OVERFLOW);
    }
}
