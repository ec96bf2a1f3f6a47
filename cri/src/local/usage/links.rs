//! What went over a pod's network interfaces, from its namespace's `/proc/<pid>/net/dev` (proc(5)): one file for all
//! interfaces, read without entering the namespace.

use std::fs;
use std::io;

/// The interface that CNI makes, and that the kubelet's figures are of.
const DEFAULT: &str = "eth0";

/// Counters of one interface, since it was made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Link {
    pub(super) name: String,
    pub(super) received: Counters,
    pub(super) sent: Counters,
}

/// Counters of one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counters {
    pub(super) bytes: u64,
    pub(super) packets: u64,
    pub(super) errors: u64,
    pub(super) dropped: u64,
}

/// The interfaces in a process's network namespace but the loopback, the default one first.
pub(super) fn of(pid: i32) -> io::Result<Vec<Link>> {
    let text = fs::read_to_string(format!("/proc/{pid}/net/dev"))?;
    Ok(parse(&text))
}

fn parse(text: &str) -> Vec<Link> {
    let mut links: Vec<Link> = text.lines().filter_map(link).collect();
    // A stable sort: the others stay in the kernel's order.
    links.sort_by_key(|link| link.name != DEFAULT);
    links
}

/// `name: bytes packets errs drop fifo frame compressed multicast`, then as many numbers of what was sent. The two lines
/// of titles have no colon.
fn link(line: &str) -> Option<Link> {
    let (name, numbers) = line.split_once(':')?;
    let name = name.trim();
    let numbers: Vec<u64> = numbers
        .split_ascii_whitespace()
        .map_while(|number| number.parse().ok())
        .collect();
    let (received, sent) = numbers.split_at_checked(8)?;
    (name != "lo").then_some(Link {
        name: name.to_owned(),
        received: counters(received)?,
        sent: counters(sent)?,
    })
}

fn counters(numbers: &[u64]) -> Option<Counters> {
    let [bytes, packets, errors, dropped, ..] = *numbers else {
        return None;
    };
    Some(Counters {
        bytes,
        packets,
        errors,
        dropped,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed
    lo:     100       1    0    0    0     0          0         0      100       1    0    0    0     0       0          0
  net1:       5       6    7    8    0     0          0         0        9      10   11   12    0     0       0          0
  eth0:1234567890123       2    3    4    5     6          7         8       21      22   23   24   25    26      27         28
";

    #[test]
    fn all_but_the_loopback_with_the_default_one_first() {
        let counters = |[bytes, packets, errors, dropped]: [u64; 4]| Counters {
            bytes,
            packets,
            errors,
            dropped,
        };
        let link = |name: &str, received, sent| Link {
            name: name.into(),
            received: counters(received),
            sent: counters(sent),
        };
        let expected = [
            link("eth0", [1_234_567_890_123, 2, 3, 4], [21, 22, 23, 24]),
            link("net1", [5, 6, 7, 8], [9, 10, 11, 12]),
        ];
        assert_eq!(parse(TEXT), expected);
        assert_eq!(parse(""), []);
        assert_eq!(parse("eth0: 1 2 3\n"), [], "a line that is cut off");
    }
}
