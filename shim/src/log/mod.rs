//! A container's log in the CRI format: cut into lines, stamped, written in batches, rotated at the byte.

mod file;
mod format;
mod place;
mod rotate;
mod writer;

pub(crate) use format::Stream;
pub(crate) use writer::{LogLimits, LogWriter};
