//! References, registry client, content store, unpacking and snapshots.
