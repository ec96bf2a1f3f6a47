//! Container logs in the CRI format: parsing, reading across rotations, following.

mod files;
mod follow;
mod line;
mod reader;

pub use files::remove;
pub use follow::Follower;
pub use line::{LineJoiner, LogLine, Stream};
pub use reader::{LogReader, Start};
