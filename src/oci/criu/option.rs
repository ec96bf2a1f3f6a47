//! Fields of `criu_opts`.
#![allow(missing_docs)] // they are criu's

pub(crate) const IMAGES_DIR_FD: u64 = 1;
pub(crate) const PID: u64 = 2;
pub(crate) const LEAVE_RUNNING: u64 = 3;
pub(crate) const EXT_UNIX_SK: u64 = 4;
pub(crate) const TCP_ESTABLISHED: u64 = 5;
pub(crate) const EVASIVE_DEVICES: u64 = 6;
pub(crate) const SHELL_JOB: u64 = 7;
pub(crate) const FILE_LOCKS: u64 = 8;
pub(crate) const LOG_LEVEL: u64 = 9;
pub(crate) const LOG_FILE: u64 = 10;
pub(crate) const PAGE_SERVER: u64 = 11;
pub(crate) const NOTIFY_SCRIPTS: u64 = 12;
pub(crate) const ROOT: u64 = 13;
pub(crate) const PARENT_IMG: u64 = 14;
pub(crate) const TRACK_MEM: u64 = 15;
pub(crate) const AUTO_DEDUP: u64 = 16;
pub(crate) const WORK_DIR_FD: u64 = 17;
pub(crate) const LINK_REMAP: u64 = 18;
pub(crate) const EXT_MNT: u64 = 23;
pub(crate) const MANAGE_CGROUPS: u64 = 24;
pub(crate) const CG_ROOT: u64 = 25;
pub(crate) const RST_SIBLING: u64 = 26;
pub(crate) const INHERIT_FD: u64 = 27;
pub(crate) const MANAGE_CGROUPS_MODE: u64 = 34;
pub(crate) const EXTERNAL: u64 = 37;
pub(crate) const EMPTY_NS: u64 = 38;
pub(crate) const JOIN_NS: u64 = 39;
pub(crate) const FREEZE_CGROUP: u64 = 44;
pub(crate) const TCP_SKIP_IN_FLIGHT: u64 = 46;
pub(crate) const LAZY_PAGES: u64 = 48;
pub(crate) const ORPHAN_PTS_MASTER: u64 = 50;
pub(crate) const CONFIG_FILE: u64 = 51;
pub(crate) const LSM_PROFILE: u64 = 53;
pub(crate) const LSM_MOUNT_CONTEXT: u64 = 63;
