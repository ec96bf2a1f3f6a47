//! Making files as another user, where root of the host can't.
//!
//! An id-mapped mount (mount_setattr(2)) of a pod with users of its own knows that pod's ids only: who has none of them
//! can make no file there, root included.

use nix::unistd::{Gid, Uid, setfsgid, setfsuid};
use rustix::io::Errno;
use rustix::thread::{capabilities, set_capabilities};

/// Makes something; as the owner that it is to have where this thread's own user can't be an owner.
pub(super) fn make<T>(
    owner: Option<(u32, u32)>,
    make: impl Fn() -> rustix::io::Result<T>,
) -> rustix::io::Result<T> {
    match (make(), owner) {
        (Err(Errno::OVERFLOW), Some(owner)) => {
            let _user = FileUser::become_one(owner)?;
            make()
        }
        (made, _) => made,
    }
}

/// As long as this lives, the thread's files belong to somebody else (setfsuid(2)).
struct FileUser;

impl FileUser {
    fn become_one((uid, gid): (u32, u32)) -> rustix::io::Result<Self> {
        setfsgid(Gid::from_raw(gid));
        setfsuid(Uid::from_raw(uid));
        let user = FileUser;
        // A change from root takes away what root may do with files, and only the owner's rights would be left.
        let mut sets = capabilities(None)?;
        sets.effective = sets.permitted;
        set_capabilities(None, sets)?;
        Ok(user)
    }
}

impl Drop for FileUser {
    fn drop(&mut self) {
        setfsuid(nix::unistd::geteuid());
        setfsgid(nix::unistd::getegid());
    }
}
