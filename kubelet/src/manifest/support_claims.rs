//! What `berth run` does with the fields of PersistentVolumeClaims and PersistentVolumes that it does not act on.

use super::support::{EXPORTED, Rule, generate_name, is_not, present};

const NO_SOURCE: &str = "a claim begins as an empty directory, or as its PersistentVolume is";
const NO_DRIVER: &str = "there is no storage driver that could act on it";
const OTHER_SOURCE: &str = "PersistentVolumes that work have hostPath, local or nfs";
const NO_DELETION: &str = "what a PersistentVolume leads to is never deleted by berth";
const PROTECTED: &str = "a claim is not removed while a pod uses it";
const NO_NAME: &str = "give it a metadata.name";

/// Fields of a PersistentVolumeClaim that are refused.
pub(super) const CLAIM_REFUSED: &[Rule] = &[
    generate_name(NO_NAME),
    present(
        "metadata.deletionTimestamp",
        "the claim of this manifest was being deleted",
    ),
    present(
        "metadata.deletionGracePeriodSeconds",
        "the claim of this manifest was being deleted",
    ),
    present("spec.dataSource", NO_SOURCE),
    present("spec.dataSourceRef", NO_SOURCE),
    present("spec.resources.limits", "a directory has no limit of its own"),
    present("spec.volumeAttributesClassName", NO_DRIVER),
];

/// Fields of a PersistentVolumeClaim that are taken without effect.
pub(super) const CLAIM_WITHOUT_EFFECT: &[Rule] = &[
    present("status", "berth computes it"),
    present("metadata.finalizers", PROTECTED),
    present("metadata.uid", EXPORTED),
];

/// Fields of a PersistentVolume that are refused.
pub(super) const VOLUME_REFUSED: &[Rule] = &[
    generate_name(NO_NAME),
    present(
        "metadata.deletionTimestamp",
        "the volume of this manifest was being deleted",
    ),
    present(
        "metadata.deletionGracePeriodSeconds",
        "the volume of this manifest was being deleted",
    ),
    is_not("spec.persistentVolumeReclaimPolicy", "Retain", NO_DELETION),
    present("spec.local.fsType", "berth makes no file systems"),
    present("spec.volumeAttributesClassName", NO_DRIVER),
    present("spec.awsElasticBlockStore", OTHER_SOURCE),
    present("spec.azureDisk", OTHER_SOURCE),
    present("spec.azureFile", OTHER_SOURCE),
    present("spec.cephfs", OTHER_SOURCE),
    present("spec.cinder", OTHER_SOURCE),
    present("spec.csi", OTHER_SOURCE),
    present("spec.fc", OTHER_SOURCE),
    present("spec.flexVolume", OTHER_SOURCE),
    present("spec.flocker", OTHER_SOURCE),
    present("spec.gcePersistentDisk", OTHER_SOURCE),
    present("spec.glusterfs", OTHER_SOURCE),
    present("spec.iscsi", OTHER_SOURCE),
    present("spec.photonPersistentDisk", OTHER_SOURCE),
    present("spec.portworxVolume", OTHER_SOURCE),
    present("spec.quobyte", OTHER_SOURCE),
    present("spec.rbd", OTHER_SOURCE),
    present("spec.scaleIO", OTHER_SOURCE),
    present("spec.storageos", OTHER_SOURCE),
    present("spec.vsphereVolume", OTHER_SOURCE),
];

/// Fields of a PersistentVolume that are taken without effect.
pub(super) const VOLUME_WITHOUT_EFFECT: &[Rule] = &[
    present("status", "berth computes it"),
    present("metadata.finalizers", PROTECTED),
    present("metadata.uid", EXPORTED),
];
