//! The execution domain of a container's processes.

use crate::error::Doing;
use crate::oci::{LinuxPersonality, LinuxPersonalityDomain};
use crate::sys::set_personality;
use crate::{Error, Result};

/// `PER_LINUX` of personality(2).
const LINUX: u32 = 0;
/// `PER_LINUX32` of personality(2).
const LINUX32: u32 = 8;

/// Sets the execution domain. The specification defines no flags.
pub(crate) fn apply(personality: &LinuxPersonality) -> Result<()> {
    if let Some(flag) = personality.flags.first() {
        return Err(Error::unsupported(
            format!("The personality flag {flag:?}"),
            "the specification has none",
        ));
    }
    let domain = match personality.domain {
        LinuxPersonalityDomain::Linux => LINUX,
        LinuxPersonalityDomain::Linux32 => LINUX32,
    };
    set_personality(domain).doing(|| format!("set the personality {domain}"))
}
