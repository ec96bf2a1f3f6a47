//! Enough descriptors for a container with many mounts: each bind mount is one until it is attached.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Beyond so many mounts the limit is looked at: the usual one, 1024, leaves room for that many and everything else.
const MANY: usize = 256;

/// A raised limit of open files, which goes back to what it was when this is dropped.
#[derive(Debug)]
pub(crate) struct MoreDescriptors {
    before: Option<Rlimit>,
}

impl MoreDescriptors {
    /// Raises the soft limit to the hard one if there are many mounts. If that is not enough, opening one more says so.
    pub(crate) fn for_mounts(mounts: usize) -> MoreDescriptors {
        let before = (mounts > MANY).then(|| getrlimit(Resource::Nofile));
        if let Some(limit) = before {
            let raised = Rlimit {
                current: limit.maximum,
                ..limit
            };
            // A soft limit may always be raised to the hard one.
            let _ = setrlimit(Resource::Nofile, raised);
        }
        MoreDescriptors { before }
    }

    /// What a copy of this process has to go back to before its program.
    pub(crate) fn before(&self) -> Option<Rlimit> {
        self.before
    }
}

impl Drop for MoreDescriptors {
    fn drop(&mut self) {
        if let Some(limit) = self.before {
            restore(limit);
        }
    }
}

/// Goes back to the limit. Lowering it is always allowed.
pub(crate) fn restore(limit: Rlimit) {
    let _ = setrlimit(Resource::Nofile, limit);
}
