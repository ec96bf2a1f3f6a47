//! Ranges of addresses, and which address is next.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use serde::Deserialize;

use crate::result::{PluginError, code};

/// A range as the configuration has it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RangeConf {
    #[serde(default)]
    pub(super) subnet: Option<String>,
    #[serde(default)]
    pub(super) range_start: Option<IpAddr>,
    #[serde(default)]
    pub(super) range_end: Option<IpAddr>,
    #[serde(default)]
    pub(super) gateway: Option<IpAddr>,
}

/// A range, complete: both ends are in the subnet and can be handed out.
#[derive(Clone, Debug)]
pub(super) struct Range {
    subnet: IpNet,
    start: IpAddr,
    end: IpAddr,
    pub(super) gateway: Option<IpAddr>,
}

/// Ranges of one family, of which a container gets one address.
#[derive(Clone, Debug)]
pub(super) struct RangeSet(Vec<Range>);

impl Range {
    fn new(conf: &RangeConf, at: &str) -> Result<Range, PluginError> {
        let wrong = |field: &str, problem: String| PluginError::config(&format!("{at}.{field}"), problem);
        let text = conf
            .subnet
            .as_deref()
            .ok_or_else(|| wrong("subnet", "is missing".into()))?;
        let subnet: IpNet = text
            .parse()
            .map_err(|_| wrong("subnet", format!("{text:?} is no subnet")))?;
        if subnet.addr() != subnet.network() {
            return Err(wrong(
                "subnet",
                format!("{text} has host bits set; the subnet is {}", subnet.trunc()),
            ));
        }
        if subnet.max_prefix_len() - subnet.prefix_len() < 2 {
            return Err(wrong(
                "subnet",
                format!("{text} is too small to hand out addresses"),
            ));
        }
        let first = from_number(to_number(subnet.network()) + 1, subnet);
        let last = match subnet {
            IpNet::V4(_) => from_number(to_number(subnet.broadcast()) - 1, subnet),
            IpNet::V6(_) => subnet.broadcast(),
        };
        let inside = |field: &str, ip: Option<IpAddr>, default: IpAddr| match ip {
            Some(ip) if !subnet.contains(&ip) => Err(wrong(field, format!("{ip} is not in {subnet}"))),
            ip => Ok(ip.unwrap_or(default)),
        };
        let start = inside("rangeStart", conf.range_start, first)?.max(first);
        let end = inside("rangeEnd", conf.range_end, last)?.min(last);
        if start > end {
            return Err(wrong(
                "rangeEnd",
                format!("{end} is before the start of the range, {start}"),
            ));
        }
        let gateway = Some(conf.gateway.unwrap_or(first));
        Ok(Range {
            subnet,
            start,
            end,
            gateway,
        })
    }

    fn contains(&self, ip: IpAddr) -> bool {
        self.start.is_ipv4() == ip.is_ipv4() && (self.start..=self.end).contains(&ip)
    }

    /// The address as a result shows it: with the subnet's prefix length.
    pub(super) fn with_prefix(&self, ip: IpAddr) -> Result<IpNet, PluginError> {
        IpNet::new(ip, self.subnet.prefix_len())
            .map_err(|e| PluginError::new(code::NO_ADDRESS, format!("{ip} is not of {}: {e}", self.subnet)))
    }
}

impl RangeSet {
    pub(super) fn new(ranges: &[RangeConf], at: &str) -> Result<RangeSet, PluginError> {
        let ranges = ranges
            .iter()
            .map(|r| Range::new(r, at))
            .collect::<Result<Vec<_>, _>>()?;
        let Some(first) = ranges.first() else {
            return Err(PluginError::config(at, "must name at least one range"));
        };
        if ranges.iter().any(|r| r.start.is_ipv4() != first.start.is_ipv4()) {
            return Err(PluginError::config(
                at,
                "must not mix IPv4 and IPv6; give each its own list",
            ));
        }
        for (i, a) in ranges.iter().enumerate() {
            if let Some(b) = ranges[i + 1..]
                .iter()
                .find(|b| a.contains(b.start) || b.contains(a.start))
            {
                return Err(PluginError::config(at, format!("{a} overlaps {b}")));
            }
        }
        Ok(RangeSet(ranges))
    }

    /// The range that holds the address.
    pub(super) fn find(&self, ip: IpAddr) -> Option<&Range> {
        self.0.iter().find(|range| range.contains(ip))
    }

    pub(super) fn overlaps(&self, other: &RangeSet) -> bool {
        self.0
            .iter()
            .any(|a| other.0.iter().any(|b| a.contains(b.start) || b.contains(a.start)))
    }

    /// The given address, if it can be handed out.
    pub(super) fn take(&self, ip: IpAddr, used: impl Fn(IpAddr) -> bool) -> Result<IpAddr, PluginError> {
        let problem = match self.find(ip) {
            Some(range) if range.gateway == Some(ip) => "is the gateway's",
            _ if used(ip) => "is taken by another container",
            _ => return Ok(ip),
        };
        Err(PluginError::new(
            code::NO_ADDRESS,
            format!("the address {ip} that was asked for {problem}"),
        ))
    }

    /// The first free address after the last one that was handed out, going round, so that an address rests as long
    /// as possible before it is used again.
    pub(super) fn next_free(&self, last: Option<IpAddr>, used: impl Fn(IpAddr) -> bool) -> Option<IpAddr> {
        let position = last.and_then(|ip| self.0.iter().position(|range| range.contains(ip)));
        let after = position.and_then(|i| {
            let range = &self.0[i];
            let next = to_number(last?).checked_add(1)?;
            first_free(range, next, to_number(range.end), &used)
        });
        let rest = || {
            let from = position.map_or(0, |i| i + 1);
            (0..self.0.len()).map(move |i| (from + i) % self.0.len())
        };
        // The last step goes through the whole of the range that the first one started in the middle of.
        let whole = |i: usize| {
            first_free(
                &self.0[i],
                to_number(self.0[i].start),
                to_number(self.0[i].end),
                &used,
            )
        };
        after.or_else(|| rest().find_map(whole))
    }
}

fn first_free(range: &Range, from: u128, to: u128, used: impl Fn(IpAddr) -> bool) -> Option<IpAddr> {
    let mut number = from;
    while number <= to {
        let ip = from_number(number, range.subnet);
        if range.gateway != Some(ip) && !used(ip) {
            return Some(ip);
        }
        number = number.checked_add(1)?;
    }
    None
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} to {}", self.start, self.end)
    }
}

impl fmt::Display for RangeSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, range) in self.0.iter().enumerate() {
            write!(f, "{}{range}", if i == 0 { "" } else { ", " })?;
        }
        Ok(())
    }
}

fn to_number(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(ip) => u128::from(u32::from(ip)),
        IpAddr::V6(ip) => u128::from(ip),
    }
}

fn from_number(number: u128, family: IpNet) -> IpAddr {
    match family {
        // Numbers come from addresses of the same family, so that the upper bits are empty.
        IpNet::V4(_) => IpAddr::V4(Ipv4Addr::from(u32::try_from(number).unwrap_or(u32::MAX))),
        IpNet::V6(_) => IpAddr::V6(Ipv6Addr::from(number)),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use proptest::prelude::*;

    type Text = (&'static str, Option<&'static str>, Option<&'static str>);

    fn set(ranges: &[Text]) -> Result<RangeSet, PluginError> {
        let conf = |(subnet, start, end): &Text| RangeConf {
            subnet: Some((*subnet).to_owned()),
            range_start: start.map(|ip| ip.parse().unwrap()),
            range_end: end.map(|ip| ip.parse().unwrap()),
            gateway: None,
        };
        RangeSet::new(&ranges.iter().map(conf).collect::<Vec<_>>(), "ipam.ranges[0]")
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn next_free_goes_round_and_skips_gateway_and_used() {
        let table = [
            ("10.0.0.0/29", None, vec![], Some("10.0.0.2")),
            (
                "10.0.0.0/29",
                Some("10.0.0.2"),
                vec!["10.0.0.2"],
                Some("10.0.0.3"),
            ),
            (
                "10.0.0.0/29",
                Some("10.0.0.6"),
                vec!["10.0.0.6"],
                Some("10.0.0.2"),
            ),
            (
                "10.0.0.0/29",
                Some("10.0.0.4"),
                vec!["10.0.0.5", "10.0.0.6", "10.0.0.2"],
                Some("10.0.0.3"),
            ),
            ("10.0.0.0/30", Some("10.0.0.2"), vec!["10.0.0.2"], None),
            ("10.0.0.0/30", Some("10.9.9.9"), vec![], Some("10.0.0.2")),
            ("fd00::/64", None, vec![], Some("fd00::2")),
            (
                "ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffc/126",
                Some("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
                vec![],
                Some("ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffe"),
            ),
        ];
        for (subnet, last, used, expected) in table {
            let used: HashSet<IpAddr> = used.into_iter().map(ip).collect();
            let next = set(&[(subnet, None, None)])
                .unwrap()
                .next_free(last.map(ip), |ip| used.contains(&ip));
            assert_eq!(next, expected.map(ip), "{subnet} after {last:?}");
        }
    }

    #[test]
    fn bad_ranges_name_the_field() {
        let table: [(&[Text], &str); 7] = [
            (&[("10.0.0.0/31", None, None)], "too small"),
            (&[("10.0.0.5/24", None, None)], "host bits"),
            (&[("10.0.0.0", None, None)], "no subnet"),
            (&[("10.0.0.0/24", Some("10.0.1.1"), None)], "rangeStart"),
            (
                &[("10.0.0.0/24", Some("10.0.0.9"), Some("10.0.0.3"))],
                "before the start",
            ),
            (&[("10.0.0.0/24", None, None), ("fd00::/64", None, None)], "mix"),
            (
                &[("10.0.0.0/24", None, None), ("10.0.0.0/25", None, None)],
                "overlaps",
            ),
        ];
        for (ranges, expected) in table {
            let error = set(ranges).unwrap_err();
            assert!(error.msg.contains(expected), "{ranges:?}: {}", error.msg);
            assert!(error.msg.contains("ipam.ranges[0]"), "{}", error.msg);
        }
    }

    proptest! {
        /// Whatever is taken and given back in between, no address is handed out twice, none is outside of the
        /// ranges, and "full" is said only when it is.
        #[test]
        fn never_hands_out_an_address_twice(steps in prop::collection::vec(any::<Option<u8>>(), 1..80)) {
            let set = set(&[
                ("10.0.0.0/28", Some("10.0.0.3"), Some("10.0.0.9")),
                ("10.0.1.0/29", None, None),
            ]).unwrap();
            let (mut used, mut last) = (HashSet::new(), None);
            for step in steps {
                match step {
                    None => match set.next_free(last, |ip| used.contains(&ip)) {
                        Some(ip) => {
                            prop_assert!(set.find(ip).is_some() && ip != "10.0.1.1".parse::<IpAddr>().unwrap());
                            prop_assert!(used.insert(ip), "{} twice", ip);
                            last = Some(ip);
                        }
                        None => prop_assert_eq!(used.len(), 7 + 5),
                    },
                    Some(which) => {
                        let mut sorted: Vec<IpAddr> = used.iter().copied().collect();
                        sorted.sort();
                        if let Some(ip) = sorted.get(usize::from(which) % sorted.len().max(1)) {
                            used.remove(ip);
                        }
                    }
                }
            }
        }
    }
}
