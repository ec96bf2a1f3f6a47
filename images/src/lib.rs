//! References, registry client, content store, unpacking and snapshots.
//!
//! [`Store`] is the way in: it pulls or imports an image once, keeps each layer unpacked as a plain directory that
//! overlayfs can stack, and answers what a container needs to start ([`Store::find`], [`Store::lower_dirs`]).
//! Several processes may share one store.

pub mod build;
mod credentials;
mod delete;
mod digest;
mod error;
mod hosts;
mod image;
mod import;
mod manifest;
pub mod pack;
mod platform;
mod pull;
mod reference;
mod registry;
mod store;
mod unpack;
mod user_namespace;

pub use credentials::{AuthEntry, Credentials};
pub use delete::delete_tree;
pub use digest::Digest;
pub use error::ImageError;
pub use image::{Image, LayerState, PullProgress};
pub use import::ImportSource;
pub use reference::Reference;
pub use store::{Collected, Removed, Store, StoreOptions, Unwanted, fits};
pub use unpack::{Limits, apply};
