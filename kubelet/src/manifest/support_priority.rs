//! What `berth run` does with the fields of PriorityClasses that it does not act on.

use super::support::{EXPORTED, Rule, generate_name, present};

const DELETED: &str = "the class of this manifest was being deleted";

/// Fields of a PriorityClass that are refused.
pub(super) const CLASS_REFUSED: &[Rule] = &[
    generate_name("give it a metadata.name"),
    present("metadata.deletionTimestamp", DELETED),
    present("metadata.deletionGracePeriodSeconds", DELETED),
];

/// Fields of a PriorityClass that are taken without effect.
pub(super) const CLASS_WITHOUT_EFFECT: &[Rule] = &[
    present("description", "it is for people"),
    present(
        "metadata.finalizers",
        "a class is there as long as the manifests are read",
    ),
    present("metadata.uid", EXPORTED),
];
