//! Flags of seccomp(2).

use super::SeccompError;
use crate::oci::{LinuxSeccomp, LinuxSeccompFilterFlag};

const TSYNC: u32 = 1;
const LOG: u32 = 2;
const SPEC_ALLOW: u32 = 4;
const NEW_LISTENER: u32 = 8;
const TSYNC_ESRCH: u32 = 16;
const WAIT_KILLABLE_RECV: u32 = 32;

const fn bit(flag: LinuxSeccompFilterFlag) -> u32 {
    match flag {
        LinuxSeccompFilterFlag::Log => LOG,
        LinuxSeccompFilterFlag::Tsync => TSYNC,
        LinuxSeccompFilterFlag::SpecAllow => SPEC_ALLOW,
        LinuxSeccompFilterFlag::WaitKillableRecv => WAIT_KILLABLE_RECV,
    }
}

/// The flags for a profile; `notifies` says that a rule asks a listener.
pub(super) fn of(profile: &LinuxSeccomp, notifies: bool) -> Result<u32, SeccompError> {
    // As in every other runtime: the mitigation costs more than it is worth to almost everybody.
    let asked = profile.flags.as_ref().map_or(SPEC_ALLOW, |flags| {
        flags.iter().fold(0, |all, flag| all | bit(*flag))
    });
    match (notifies, asked & WAIT_KILLABLE_RECV != 0, asked & TSYNC != 0) {
        (false, true, _) => Err(SeccompError::KillableWithoutListener),
        (false, false, _) => Ok(asked),
        (true, _, false) => Ok(asked | NEW_LISTENER),
        // Both results would have to come back in the same number.
        (true, _, true) => Ok(asked | NEW_LISTENER | TSYNC_ESRCH),
    }
}

/// The flags that this kernel has.
pub fn supported_flags() -> Vec<LinuxSeccompFilterFlag> {
    let has = |flag: &LinuxSeccompFilterFlag| {
        // Alone it is refused.
        let beside = if *flag == LinuxSeccompFilterFlag::WaitKillableRecv {
            NEW_LISTENER
        } else {
            0
        };
        crate::sys::seccomp::has_flags(bit(*flag) | beside)
    };
    LinuxSeccompFilterFlag::ALL.iter().copied().filter(has).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flags(json: &str, notifies: bool) -> Option<u32> {
        let profile = format!(r#"{{"defaultAction":"SCMP_ACT_ALLOW"{json}}}"#);
        of(&serde_json::from_str(&profile).unwrap(), notifies).ok()
    }

    #[test]
    fn flags_of_profiles() {
        assert_eq!(flags("", false), Some(4));
        assert_eq!(flags("", true), Some(4 | 8));
        assert_eq!(flags(r#","flags":[]"#, false), Some(0));
        let log = r#","flags":["SECCOMP_FILTER_FLAG_LOG","SECCOMP_FILTER_FLAG_SPEC_ALLOW"]"#;
        assert_eq!(flags(log, false), Some(2 | 4));
        let tsync = r#","flags":["SECCOMP_FILTER_FLAG_TSYNC"]"#;
        assert_eq!(flags(tsync, false), Some(1));
        assert_eq!(flags(tsync, true), Some(1 | 8 | 16));
        let killable = r#","flags":["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"]"#;
        assert_eq!(flags(killable, false), None);
        assert_eq!(flags(killable, true), Some(8 | 32));
    }

    #[test]
    fn this_kernel_has_flags() {
        assert!(supported_flags().contains(&LinuxSeccompFilterFlag::SpecAllow));
        assert!(!crate::sys::seccomp::has_flags(1 << 20));
    }
}
