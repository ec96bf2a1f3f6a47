//! References, registry client, content store, unpacking and snapshots.
//!
//! [`Store`] is the way in: it pulls or imports an image once, keeps each layer unpacked as a plain directory that
//! overlayfs can stack, and answers what a container needs to start ([`Store::find`], [`Store::lower_dirs`]).
//! Several processes may share one store.

pub mod build;
mod digest;
mod error;
mod image;
mod reference;
mod store;

pub use digest::Digest;
pub use error::ImageError;
pub use image::{Image, LayerState, PullProgress};
pub use reference::Reference;
pub use store::Store;
