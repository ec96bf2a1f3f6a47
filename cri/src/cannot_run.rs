//! What other runtimes say of a program that is not there or can't be executed: CRI has no code for that, only words.

/// What a shell ends with if there is no such program.
pub(crate) const NOT_FOUND: u8 = 127;
/// What a shell ends with if a program can't be executed.
pub(crate) const NOT_EXECUTABLE: u8 = 126;

/// What a shell would end with, by the words of runc, crun and berth-oci; `None` if the words are about something else.
pub(crate) fn exit_code(words: &str) -> Option<u8> {
    let words = words.to_ascii_lowercase();
    if words.contains("executable file") && words.contains("not found in $path") {
        return Some(NOT_FOUND);
    }
    // Both name the program after `exec`, and end with the kernel's reason.
    let (_, why) = words.split_once("exec: \"").or_else(|| {
        let begins = ["exec \"", "exec container process `"];
        begins.iter().find_map(|begin| words.split_once(begin))
    })?;
    if why.contains("no such file or directory") || why.contains("not a directory") {
        return Some(NOT_FOUND);
    }
    let reasons = ["permission denied", "is a directory", "exec format error"];
    reasons
        .iter()
        .any(|reason| why.contains(reason))
        .then_some(NOT_EXECUTABLE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_of_three_runtimes_are_known() {
        let runc = "OCI runtime exec failed: exec failed: unable to start container process: exec:";
        for (words, code) in [
            (
                format!("{runc} \"x\": executable file not found in $PATH: unknown"),
                Some(127),
            ),
            (
                format!("{runc} \"/x\": stat /x: no such file or directory: unknown"),
                Some(127),
            ),
            (
                format!("{runc} \"/etc/passwd\": permission denied: unknown"),
                Some(126),
            ),
            (
                "executable file `x` not found in $PATH: No such file or directory".to_owned(),
                Some(127),
            ),
            (
                "exec container process `/x`: Permission denied".to_owned(),
                Some(126),
            ),
            ("exec \"/x\": no such file or directory.".to_owned(), Some(127)),
            (
                "exec \"/x\": exec format error: not a program for this machine.".to_owned(),
                Some(126),
            ),
            ("open /run/x: permission denied".to_owned(), None),
            (
                "failed to exec in container: container not running".to_owned(),
                None,
            ),
        ] {
            assert_eq!(exit_code(&words), code, "{words}");
        }
    }
}
