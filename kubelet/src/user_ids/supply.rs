//! Which ids a node can give to pods.

use super::IDS_PER_POD;

/// The user whose subordinate ids are the pods', if there is one of that name. It can't be called otherwise upstream.
const KUBELET_USER: &str = "kubelet";

/// Without that user: ids end here, because many programs keep them in signed 32 bits.
const DEFAULT_END: u64 = 1 << 31;

/// Ranges of [`IDS_PER_POD`] ids each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Supply {
    /// The first id of the first range.
    first: u64,
    /// How many ranges there are.
    count: u64,
    /// Ids that are somebody else's: the first, and the one after the last.
    taken: Vec<(u64, u64)>,
}

impl Supply {
    /// What the node's passwd(5), subuid(5) and subgid(5) leave to pods.
    ///
    /// # Errors
    /// There is a user `kubelet`, and what is said of its subordinate ids is not one range for users and groups alike
    /// that begins and ends with whole ranges of pods.
    pub(super) fn new(passwd: &str, subuid: &str, subgid: &str) -> Result<Self, String> {
        let Some(number) = kubelet_user(passwd) else {
            let mut taken = ranges(subuid, |_| true);
            taken.extend(ranges(subgid, |_| true));
            return Ok(Supply {
                first: u64::from(IDS_PER_POD),
                count: DEFAULT_END / u64::from(IDS_PER_POD) - 1,
                taken,
            });
        };
        let own = |owner: &str| owner == KUBELET_USER || owner == number;
        let one = |file: &str, text: &str| match ranges(text, own).as_slice() {
            [range] => Ok(*range),
            all => Err(format!(
                "{file} must have one line for the user {KUBELET_USER}, and has {}",
                all.len()
            )),
        };
        let (users, groups) = (one("/etc/subuid", subuid)?, one("/etc/subgid", subgid)?);
        if users != groups {
            return Err(format!(
                "the user {KUBELET_USER} has other ids in /etc/subuid than in /etc/subgid"
            ));
        }
        let (first, end) = users;
        let unit = u64::from(IDS_PER_POD);
        if first < unit || first % unit != 0 || end % unit != 0 || end <= first || end >= 1 << 32 {
            return Err(format!(
                "the subordinate ids of the user {KUBELET_USER} must begin with a multiple of {unit} above 0, be a multiple \
                 of {unit} many, and end below 4294967295; they are {first} to {}",
                end.saturating_sub(1)
            ));
        }
        Ok(Supply {
            first,
            count: (end - first) / unit,
            taken: Vec::new(),
        })
    }

    /// The first ids of all ranges, beginning with the one that `start` says, so that pods of several nodes on a machine
    /// seldom meet, and a range is seldom used again soon.
    pub(super) fn from(&self, start: u64) -> impl Iterator<Item = u32> {
        let unit = u64::from(IDS_PER_POD);
        let all = (0..self.count).map(move |n| self.first + (start % self.count + n) % self.count * unit);
        all.filter(move |first| {
            let end = first + unit;
            !self.taken.iter().any(|taken| *first < taken.1 && taken.0 < end)
        })
        .filter_map(|first| u32::try_from(first).ok())
    }
}

/// The number of the user, if there is one.
fn kubelet_user(passwd: &str) -> Option<&str> {
    let mut users = passwd.lines().map(|line| line.split(':'));
    users.find_map(|mut fields| {
        let found = fields.next() == Some(KUBELET_USER);
        fields.nth(1).filter(|_| found)
    })
}

/// The ranges that a file has for some owners: the first id, and the one after the last. A line that is none says nothing,
/// as for newuidmap(1).
fn ranges(text: &str, of: impl Fn(&str) -> bool) -> Vec<(u64, u64)> {
    let lines = text.lines().filter_map(|line| {
        let mut fields = line.trim().split(':');
        let owner = fields.next()?;
        let first: u32 = fields.next()?.parse().ok()?;
        let count: u32 = fields.next()?.parse().ok()?;
        let wanted = of(owner) && count > 0 && fields.next().is_none();
        wanted.then(|| (u64::from(first), u64::from(first) + u64::from(count)))
    });
    lines.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/bash\n";
    const WITH_KUBELET: &str = "root:x:0:0::/:/bin/sh\nkubelet:x:990:990::/:/usr/sbin/nologin\n";

    #[test]
    fn without_a_kubelet_user_pods_have_what_nobody_else_has() {
        let supply = Supply::new(PASSWD, "", "").unwrap();
        let all: Vec<u32> = supply.from(0).collect();
        assert_eq!(all.len(), 32_767);
        assert_eq!(all[..2], [65_536, 131_072]);
        assert_eq!(all.last(), Some(&((1 << 31) - 65_536)));
        let around: Vec<u32> = supply.from(32_766).take(2).collect();
        assert_eq!(around, [(1 << 31) - 65_536, 65_536]);
        // 100000 to 165535 are parts of two ranges.
        let supply = Supply::new(PASSWD, "me:100000:65536\nbad\nx:1:2:3\n", "them:262144:1\n").unwrap();
        assert_eq!(supply.from(0).take(2).collect::<Vec<_>>(), [196_608, 327_680]);
    }

    #[test]
    fn a_kubelet_user_s_ids_are_the_pods() {
        let file = "me:65536:65536\nkubelet:131072:131072\n";
        let supply = Supply::new(WITH_KUBELET, file, file).unwrap();
        assert_eq!(supply.from(7).collect::<Vec<_>>(), [196_608, 131_072]);
        let by_number = Supply::new(WITH_KUBELET, "990:131072:131072", file).unwrap();
        assert_eq!(by_number, supply);
        for (users, groups, why) in [
            ("", file, "/etc/subuid must have one line"),
            (file, "", "/etc/subgid must have one line"),
            (
                "kubelet:65536:65536\nkubelet:131072:65536",
                file,
                "one line for the user kubelet, and has 2",
            ),
            ("kubelet:131072:65536", file, "other ids"),
        ] {
            let found = Supply::new(WITH_KUBELET, users, groups).unwrap_err();
            assert!(found.contains(why), "{found}");
        }
        for bad in ["0:65536", "65537:65536", "65536:65537", "4294901760:65536"] {
            let file = format!("kubelet:{bad}");
            let found = Supply::new(WITH_KUBELET, &file, &file).unwrap_err();
            assert!(found.contains("multiple of 65536"), "{found}");
        }
    }
}
