//! From which memory nodes a container's memory is taken.

use crate::error::Doing;
use crate::number_list;
use crate::oci::{LinuxMemoryPolicy, MemoryPolicyFlagType, MemoryPolicyModeType};
use crate::sys::set_memory_policy;
use crate::{Error, Result};

/// A memory policy as set_mempolicy(2) takes it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct MemoryPolicy {
    mode: i32,
    nodes: Vec<u64>,
}

impl MemoryPolicy {
    /// Reads `linux.memoryPolicy`.
    pub(crate) fn new(policy: &LinuxMemoryPolicy) -> Result<MemoryPolicy> {
        let mode = match policy.mode {
            MemoryPolicyModeType::Default => 0,
            MemoryPolicyModeType::Preferred => 1,
            MemoryPolicyModeType::Bind => 2,
            MemoryPolicyModeType::Interleave => 3,
            MemoryPolicyModeType::Local => 4,
            MemoryPolicyModeType::PreferredMany => 5,
            MemoryPolicyModeType::WeightedInterleave => 6,
        };
        let flags = policy.flags.iter().fold(0, |flags, flag| {
            flags
                | match flag {
                    MemoryPolicyFlagType::StaticNodes => 1 << 15,
                    MemoryPolicyFlagType::RelativeNodes => 1 << 14,
                    MemoryPolicyFlagType::NumaBalancing => 1 << 13,
                }
        });
        let nodes = if policy.nodes.is_empty() {
            Vec::new()
        } else {
            number_list::parse(&policy.nodes)
                .map_err(|reason| Error::invalid("linux.memoryPolicy.nodes", reason))?
        };
        Ok(MemoryPolicy {
            mode: mode | flags,
            nodes,
        })
    }

    /// Takes this process's memory, and that of what it executes, from there.
    pub(crate) fn apply(&self) -> Result<()> {
        match set_memory_policy(self.mode, &self.nodes) {
            Err(error) if error.raw_os_error() == Some(libc::ENOSYS) => Err(Error::unsupported(
                "linux.memoryPolicy",
                "this kernel is built without NUMA",
            )),
            other => other.doing(|| {
                format!(
                    "apply linux.memoryPolicy (mode {:#x}, nodes {:x?})",
                    self.mode, self.nodes
                )
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_and_flags_have_the_kernels_numbers() {
        for (mode, number) in [
            ("DEFAULT", 0),
            ("PREFERRED", 1),
            ("BIND", 2),
            ("INTERLEAVE", 3),
            ("LOCAL", 4),
            ("PREFERRED_MANY", 5),
            ("WEIGHTED_INTERLEAVE", 6),
        ] {
            let json = format!(
                r#"{{"mode":"MPOL_{mode}","nodes":"0,2","flags":["MPOL_F_STATIC_NODES","MPOL_F_RELATIVE_NODES","MPOL_F_NUMA_BALANCING"]}}"#
            );
            let policy = MemoryPolicy::new(&crate::oci::from_slice(json.as_bytes()).unwrap()).unwrap();
            assert_eq!(policy.mode, number | 0xe000, "{mode}");
            assert_eq!(policy.nodes, [5]);
        }
    }
}
