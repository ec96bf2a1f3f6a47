//! The text of a manifest, from wherever it comes.

use std::io::Read;

use crate::defaults::MAX_MANIFEST_BYTES;

/// A text that is no manifest.
#[derive(Debug, thiserror::Error)]
pub enum InputError {
    /// It can't be read.
    #[error("can't be read: {0}.")]
    Unread(#[from] std::io::Error),
    /// It is not read to its end.
    #[error("has more than {MAX_MANIFEST_BYTES} bytes, which no manifest has.")]
    TooLong,
    /// It is not UTF-8: the line of the first byte that is not.
    #[error("line {0}: not UTF-8; manifests are text in UTF-8.")]
    NotUtf8(usize),
    /// It is UTF-16, which some editors write.
    #[error("is UTF-16; manifests are text in UTF-8.")]
    Utf16,
}

/// Reads a manifest's text. No more is read than a manifest may have, however much there is: the name may be that of a
/// device that never ends.
///
/// # Errors
/// It can't be read, is too long, or is not UTF-8.
pub fn read(input: impl Read) -> Result<String, InputError> {
    let most = u64::try_from(MAX_MANIFEST_BYTES).unwrap_or(u64::MAX);
    let mut bytes = Vec::new();
    input.take(most.saturating_add(1)).read_to_end(&mut bytes)?;
    if bytes.len() > MAX_MANIFEST_BYTES {
        return Err(InputError::TooLong);
    }
    if bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]) {
        return Err(InputError::Utf16);
    }
    String::from_utf8(bytes).map_err(|error| {
        let good = error.utf8_error().valid_up_to();
        let lines = error.as_bytes()[..good].iter().filter(|byte| **byte == b'\n');
        InputError::NotUtf8(lines.count() + 1)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(bytes: &[u8]) -> String {
        read(bytes).unwrap_err().to_string()
    }

    #[test]
    fn says_what_is_not_a_text() {
        assert_eq!(read("a: ü\n".as_bytes()).unwrap(), "a: ü\n");
        assert_eq!(
            refusal(b"a: 1\nb: \xff\n"),
            "line 2: not UTF-8; manifests are text in UTF-8."
        );
        assert_eq!(
            refusal(b"a: \xed\xa0\x80"),
            "line 1: not UTF-8; manifests are text in UTF-8."
        );
        assert!(refusal(b"\xff\xfea\0").contains("UTF-16"));
    }

    #[test]
    fn what_never_ends_is_not_read_to_its_end() {
        assert!(matches!(read(std::io::repeat(b' ')), Err(InputError::TooLong)));
        let whole = vec![b' '; MAX_MANIFEST_BYTES];
        assert_eq!(read(whole.as_slice()).unwrap().len(), MAX_MANIFEST_BYTES);
    }
}
