//! `/proc/self/mountinfo`, see proc(5).

/// One mount of this process's mount namespace.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct MountLine<'a> {
    /// `major:minor` of the superblock.
    pub(crate) device: &'a str,
    /// Which part of the file system is mounted.
    pub(crate) root: String,
    /// Where, from this process's root directory.
    pub(crate) point: String,
    /// The file system's type.
    pub(crate) kind: &'a str,
    /// The superblock's options.
    pub(crate) options: &'a str,
}

/// The mounts in the text of a mountinfo file, later ones on top of earlier ones.
pub(crate) fn parse(mountinfo: &str) -> impl Iterator<Item = MountLine<'_>> {
    mountinfo.lines().filter_map(|line| {
        let (before, after) = line.split_once(" - ")?;
        let mut fields = before.split(' ').skip(2);
        let (device, root, point) = (fields.next()?, fields.next()?, fields.next()?);
        let mut rest = after.split(' ');
        let (kind, _, options) = (rest.next()?, rest.next()?, rest.next()?);
        Some(MountLine {
            device,
            root: unescape(root),
            point: unescape(point),
            kind,
            options,
        })
    })
}

/// Undoes mountinfo's octal escapes (`\040` for a space).
fn unescape(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let octal = tail
            .get(..3)
            .and_then(|d| std::str::from_utf8(d).ok())
            .filter(|_| *first == b'\\');
        match octal.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &tail[3..];
            }
            None => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_with_and_without_optional_fields() {
        let text = "25 1 254:0 / / rw,relatime shared:1 master:2 - ext4 /dev/vda rw\n\
                    30 25 0:26 /a\\040b /mnt/x\\134y rw - tmpfs none rw,size=64k\n\
                    broken line\n";
        let lines: Vec<_> = parse(text).collect();
        assert_eq!(lines.len(), 2);
        assert_eq!(
            (lines[0].device, lines[0].kind, lines[0].options),
            ("254:0", "ext4", "rw")
        );
        assert_eq!(
            (lines[1].root.as_str(), lines[1].point.as_str()),
            ("/a b", "/mnt/x\\y")
        );
    }
}
