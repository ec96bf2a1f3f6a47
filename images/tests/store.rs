//! The store: importing, finding, leasing, removing, sweeping.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that can not go on panics"
)]

mod support;

use std::fs;
use std::io::Cursor;
use std::time::Duration;

use berth_images::build::{Content, File, single_layer};
use berth_images::{Collected, ImageError, ImportSource, Reference, Store, StoreOptions, Unwanted};
use oci_spec::image::ConfigBuilder;
use serde_json::json;
use support::{Header, Tar, TestImage, TestStore, architecture, digest, gzip, leftovers, pack};

fn simple() -> TestImage {
    TestImage::gzipped(vec![
        Tar::new().file("a", "1").bytes(),
        Tar::new().file("b", "2").bytes(),
    ])
}

fn stream(bytes: Vec<u8>) -> ImportSource {
    ImportSource::Stream(Box::new(Cursor::new(bytes)))
}

#[test]
fn layouts_are_imported_from_anywhere() {
    let image = simple();
    let scratch = tempfile::tempdir().unwrap();
    let directory = scratch.path().join("layout");
    image.directory("test.local/x:1", &directory);
    let archive = scratch.path().join("x.tar");
    fs::write(&archive, image.archive("test.local/x:1")).unwrap();
    let packed = scratch.path().join("x.tar.gz");
    fs::write(&packed, gzip(&image.archive("test.local/x:1"))).unwrap();
    let sources = [
        ImportSource::Path(directory),
        ImportSource::Path(archive),
        ImportSource::Path(packed),
        stream(image.archive("test.local/x:1")),
    ];
    for source in sources {
        let shown = source.to_string();
        let store = TestStore::new();
        let imported = store.store.import(source, None, &|_| {}).unwrap();
        assert_eq!(imported.len(), 1, "{shown}");
        assert_eq!(imported[0].id, image.config);
        assert_eq!(imported[0].names, ["test.local/x:1"]);
        assert_eq!(imported[0].digests, [format!("test.local/x@{}", image.manifest)]);
        assert_eq!(store.store.lower_dirs(&imported[0]).unwrap().len(), 2);
        assert_eq!(
            imported[0]
                .config
                .config()
                .as_ref()
                .unwrap()
                .env()
                .as_ref()
                .unwrap(),
            &["A=b"]
        );
        assert!(
            fs::read_dir(store.root().join("ingest"))
                .unwrap()
                .next()
                .is_none(),
            "{shown}"
        );
    }
}

#[test]
fn docker_archives_are_imported() {
    let tar = Tar::new().file("a", "1").bytes();
    let config = json!({
        "architecture": architecture(), "os": "linux", "config": {"Cmd": ["x"]},
        "rootfs": {"type": "layers", "diff_ids": [digest(&tar), digest(&tar)]},
        "docker_version": "1", "container_config": {"Hostname": "x"},
    })
    .to_string()
    .into_bytes();
    let config_name = format!("{}.json", &digest(&config)[7..]);
    let manifest = json!([{
        "Config": config_name, "RepoTags": ["one:1", "test.local/two:2"], "Layers": ["l1/layer.tar", "l2/layer.tar"],
    }]);
    let archive = Tar::new()
        .entry(Header::new(&config_name, b'0'), &config)
        .dir("l1", 0o755)
        .entry(Header::new("l1/layer.tar", b'0'), &tar)
        .symlink("l2/layer.tar", "../l1/layer.tar")
        .entry(
            Header::new("manifest.json", b'0'),
            manifest.to_string().as_bytes(),
        )
        .bytes();
    let store = TestStore::new();
    let image = store.import(archive).unwrap().remove(0);
    assert_eq!(image.id, digest(&config));
    assert_eq!(image.names, ["docker.io/library/one:1", "test.local/two:2"]);
    assert_eq!(store.store.lower_dirs(&image).unwrap().len(), 1);
    assert_eq!(store.store.find("one:1").unwrap().unwrap(), image);
}

#[test]
fn the_platform_is_chosen() {
    let (ours, other) = (
        simple(),
        TestImage::gzipped(vec![Tar::new().file("other", "").bytes()]),
    );
    let entry = |image: &TestImage, architecture: &str| {
        json!({
            "mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": image.manifest,
            "size": image.blob(&image.manifest).len(), "platform": {"os": "linux", "architecture": architecture},
        })
    };
    let index =
        json!({"schemaVersion": 2, "manifests": [entry(&other, "riscv64"), entry(&ours, architecture())]});
    let index = index.to_string().into_bytes();
    let mut files = ours.layout("x");
    files.extend(other.layout("x"));
    files.retain(|(path, _)| path != "index.json");
    files.push((
        format!("blobs/{}", digest(&index).replace(':', "/")),
        index.clone(),
    ));
    let top = json!({"schemaVersion": 2, "manifests": [{
        "mediaType": "application/vnd.oci.image.index.v1+json", "digest": digest(&index), "size": index.len(),
        "annotations": {"org.opencontainers.image.ref.name": "test.local/multi:1"},
    }]});
    files.push(("index.json".to_owned(), top.to_string().into_bytes()));
    let store = TestStore::new();
    let image = store.import(pack(&files)).unwrap().remove(0);
    assert_eq!(image.id, ours.config);
    assert_eq!(image.names, ["test.local/multi:1"]);
}

#[test]
fn what_is_no_image_is_refused() {
    let store = TestStore::new();
    let image = simple();
    let without = |gone: &str| {
        pack(
            &image
                .layout("x:1")
                .into_iter()
                .filter(|(p, _)| !p.contains(gone))
                .collect::<Vec<_>>(),
        )
    };
    let is_unsupported = |e: &ImageError| matches!(e, ImageError::Unsupported(_));
    let is_corrupt = |e: &ImageError| matches!(e, ImageError::Corrupt(_));
    type Check<'a> = &'a dyn Fn(&ImageError) -> bool;
    let table: [(Vec<u8>, Check); 7] = [
        (b"not an archive".to_vec(), &is_corrupt),
        (Vec::new(), &is_unsupported),
        (pack(&[("x".to_owned(), b"y".to_vec())]), &is_unsupported),
        (without(&image.layers[1][7..]), &is_corrupt),
        (without(&image.config[7..]), &is_corrupt),
        (without(&image.manifest[7..]), &is_corrupt),
        (image.archive("Not A Name"), &|e| {
            matches!(e, ImageError::InvalidName(_))
        }),
    ];
    for (bytes, expected) in table {
        let error = store.import(bytes).unwrap_err();
        assert!(expected(&error), "{error:?}");
    }
    let error = store
        .store
        .import(ImportSource::Path("/does/not/exist".into()), None, &|_| {})
        .unwrap_err();
    assert!(matches!(error, ImageError::NotFound(_)), "{error:?}");
    store.store.sweep().unwrap();
    assert!(store.leftovers().is_empty());
}

#[test]
fn archives_do_not_lead_out() {
    let image = simple();
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("index.json"), image.index("x:1").to_string()).unwrap();
    let store = TestStore::new();
    let target = outside.path().join("index.json");
    let archive = Tar::new()
        .symlink("index.json", target.to_str().unwrap())
        .file("oci-layout", "{}")
        .bytes();
    assert!(matches!(store.import(archive), Err(ImageError::Unsupported(_))));
    let looping = Tar::new()
        .symlink("index.json", "b")
        .symlink("b", "index.json")
        .bytes();
    assert!(matches!(store.import(looping), Err(ImageError::Refused(_))));
    let directory = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink(&target, directory.path().join("index.json")).unwrap();
    let source = ImportSource::Path(directory.path().to_owned());
    assert!(matches!(
        store.store.import(source, None, &|_| {}),
        Err(ImageError::Refused(_))
    ));
}

#[test]
fn images_are_found_by_all_their_names() {
    let store = TestStore::new();
    let image = simple();
    store.import(image.archive("docker.io/library/x:1")).unwrap();
    let find = |text: &str| store.store.find(text).unwrap().map(|image| image.id);
    for text in [
        "x:1",
        "docker.io/x:1",
        "docker.io/library/x:1",
        &image.config,
        &image.config[7..],
        &image.config[7..12],
        &image.config[..20],
        &image.manifest,
        &format!("x@{}", image.manifest),
        &format!("x:1@{}", image.manifest),
    ] {
        assert_eq!(find(text).as_deref(), Some(&image.config[..]), "{text}");
    }
    for text in [
        "x",
        "x:2",
        "y:1",
        "abcdefabcdef",
        &digest(b""),
        &format!("y@{}", image.manifest),
    ] {
        assert_eq!(find(text), None, "{text}");
    }
    assert!(matches!(store.store.find("X:1"), Err(ImageError::InvalidName(_))));
    assert!(matches!(store.store.find(""), Err(ImageError::InvalidName(_))));
}

#[test]
fn a_tag_moves_and_the_old_image_stays_by_id() {
    let store = TestStore::new();
    let (old, new) = (
        simple(),
        TestImage::gzipped(vec![Tar::new().file("new", "").bytes()]),
    );
    store.import(old.archive("x:1")).unwrap();
    store.import(new.archive("x:1")).unwrap();
    assert_eq!(store.store.find("x:1").unwrap().unwrap().id, new.config);
    assert!(store.store.find(&old.config).unwrap().unwrap().names.is_empty());
    assert_eq!(store.store.list().unwrap().len(), 2);
}

#[test]
fn a_name_can_be_given() {
    let store = TestStore::new();
    let name: Reference = "mine:2".parse().unwrap();
    let image = store
        .store
        .import(stream(simple().archive("x:1")), Some(&name), &|_| {})
        .unwrap()
        .remove(0);
    assert_eq!(image.names, ["docker.io/library/mine:2"]);
}

#[test]
fn removing_takes_what_nobody_else_uses() {
    let store = TestStore::new();
    let shared = Tar::new().file("shared", "bytes").bytes();
    let one = TestImage::gzipped(vec![shared.clone(), Tar::new().file("one", "bytes").bytes()]);
    let two = TestImage::gzipped(vec![shared, Tar::new().file("two", "bytes").bytes()]);
    store.import(one.archive("one:1")).unwrap();
    store.import(one.archive("one:2")).unwrap();
    store.import(two.archive("two:1")).unwrap();
    let snapshots = || fs::read_dir(store.root().join("snapshots")).unwrap().count();
    assert_eq!(store.store.disk_usage().unwrap(), 3 * 5);
    assert_eq!(snapshots(), 3);
    let removed = store.store.remove("one:1", false).unwrap();
    assert_eq!((removed.untagged.len(), removed.deleted), (1, None));
    assert_eq!(snapshots(), 3);
    let removed = store.store.remove("one:2", false).unwrap();
    assert_eq!(removed.deleted, Some(one.config));
    assert_eq!(snapshots(), 2);
    assert!(
        store
            .store
            .lower_dirs(&store.store.find("two:1").unwrap().unwrap())
            .is_ok()
    );
    assert!(matches!(
        store.store.remove("one:2", false),
        Err(ImageError::NotFound(_))
    ));
    store.store.remove(&two.config, false).unwrap();
    assert!(store.leftovers().is_empty());
}

#[test]
fn leased_images_stay() {
    let store = TestStore::new();
    let image = store.layers(vec![Tar::new().file("a", "").bytes()]).unwrap();
    store.store.lease(&image, "container-1").unwrap();
    store.store.lease(&image, "container-1").unwrap();
    store.store.lease(&image, "container-2").unwrap();
    let error = store.store.remove(&image.id, false).unwrap_err();
    assert!(
        matches!(error, ImageError::InUse(_)) && error.to_string().contains("container-1, container-2"),
        "{error}"
    );
    store.store.release("container-1").unwrap();
    store.store.release("container-1").unwrap();
    // Another process sees the other lease.
    let other = Store::open(&store.root()).unwrap();
    assert_eq!(
        other.leases().unwrap().into_iter().collect::<Vec<_>>(),
        [("container-2".to_owned(), vec![image.id.clone()])]
    );
    assert!(matches!(
        other.remove(&image.id, false),
        Err(ImageError::InUse(_))
    ));
    // By force the name goes, but not the files under a running container.
    let directories = store.store.lower_dirs(&image).unwrap();
    other.remove(&image.id, true).unwrap();
    assert!(directories[0].join("a").exists());
    assert!(matches!(
        store.store.lease(&image, "late"),
        Err(ImageError::NotFound(_))
    ));
    store.store.release("container-2").unwrap();
    store.store.sweep().unwrap();
    assert!(store.leftovers().is_empty());
    assert!(store.store.lease(&image, "../x").is_err() && store.store.release(".new").is_err());
}

#[test]
fn images_are_made_in_memory() {
    let store = TestStore::new();
    let name: Reference = "berth.local/helper:1".parse().unwrap();
    let long = format!("deep/{}", "x".repeat(150));
    let files = [
        File::directory("tmp", 0o1777),
        File::regular("bin/helper", 0o755, "#!"),
        File::regular(&long, 0o600, "long").owned_by(7, 8),
        File::symlink("link", "bin/helper"),
        File {
            path: "hard".into(),
            mode: 0,
            uid: 0,
            gid: 0,
            content: Content::HardLink("bin/helper".into()),
        },
    ];
    let config = ConfigBuilder::default()
        .entrypoint(vec!["/bin/helper".to_owned()])
        .build()
        .unwrap();
    let image = single_layer(&store.store, &name, &files, &config).unwrap();
    assert_eq!(single_layer(&store.store, &name, &files, &config).unwrap(), image);
    let root = store.store.lower_dirs(&image).unwrap().remove(0);
    assert_eq!(fs::read_to_string(root.join("hard")).unwrap(), "#!");
    assert_eq!(fs::read_to_string(root.join(long)).unwrap(), "long");
    assert_eq!(
        image
            .config
            .config()
            .as_ref()
            .unwrap()
            .entrypoint()
            .as_ref()
            .unwrap(),
        &["/bin/helper"]
    );
    let other = single_layer(&store.store, &name, &files[..1], &config).unwrap();
    assert_ne!(other.id, image.id);
    assert_eq!(
        store.store.find("berth.local/helper:1").unwrap().unwrap().id,
        other.id
    );
}

#[test]
fn leftovers_of_a_killed_process_are_swept() {
    let store = TestStore::new();
    let image = store.layers(vec![Tar::new().file("a", "").bytes()]).unwrap();
    let root = store.root();
    // The first process's store is settled and closed.
    let TestStore {
        store,
        directory: _directory,
    } = store;
    drop(store);
    fs::create_dir_all(root.join("ingest/123-4-5/0/fs/deep")).unwrap();
    fs::create_dir_all(root.join("snapshots/0123/fs")).unwrap();
    fs::write(root.join("blobs/sha256/0123"), "x").unwrap();
    fs::write(root.join("locks/layer-0123"), "").unwrap();
    fs::write(root.join("images.json.new"), "{").unwrap();
    let none = StoreOptions {
        grace: Duration::ZERO,
        ..StoreOptions::default()
    };
    let store = Store::open_with(&root, none).unwrap();
    assert_eq!(store.list().unwrap(), std::slice::from_ref(&image));
    store.remove(&image.id, false).unwrap();
    assert!(leftovers(&root).is_empty(), "{:?}", leftovers(&root));
    assert_eq!(fs::read_dir(root.join("locks")).unwrap().count(), 2);
}

#[test]
fn a_damaged_index_is_told() {
    let store = TestStore::new();
    for text in ["", "{", r#"{"version":99,"images":{}}"#] {
        fs::write(store.root().join("images.json"), text).unwrap();
        let error = store.store.list().unwrap_err();
        assert!(
            matches!(error, ImageError::Io(_)) && error.to_string().contains("images.json"),
            "{error}"
        );
    }
}

#[test]
fn images_are_settled_and_unsettled_ones_do_not_outlive_the_machine() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("images");
    let index = root.join("images.json");
    let store = Store::open(&root).unwrap();
    let image = store
        .import(stream(simple().archive("x:1")), None, &|_| {})
        .unwrap()
        .remove(0);
    drop(store);
    let settled = fs::read_to_string(&index).unwrap();
    assert!(!settled.contains("unsettled"), "{settled}");
    // As if power was lost before the files were on the disk.
    let mut value: serde_json::Value = serde_json::from_str(&settled).unwrap();
    value["images"][&image.id]["unsettled"] = json!("another start of the machine");
    fs::write(&index, value.to_string()).unwrap();
    for key in fs::read_dir(root.join("snapshots")).unwrap() {
        let record = key.unwrap().path().join("layer.json");
        let mut layer: serde_json::Value = serde_json::from_slice(&fs::read(&record).unwrap()).unwrap();
        layer["boot_id"] = json!("another start of the machine");
        fs::write(&record, layer.to_string()).unwrap();
    }
    let store = Store::open(&root).unwrap();
    assert!(store.list().unwrap().is_empty());
    assert!(fs::read_dir(root.join("snapshots")).unwrap().next().is_none());
    store
        .import(stream(simple().archive("x:1")), None, &|_| {})
        .unwrap();
    assert!(store.find("x:1").unwrap().is_some());
}

/// Three images that have a layer in common and one of their own each, `old`, `middle` and `new`, in the order of their coming.
fn three(store: &TestStore) -> Vec<berth_images::Image> {
    let shared = Tar::new().file("shared", &"s".repeat(1000)).bytes();
    let image = |name: &str| {
        let own = Tar::new().file(name, &"o".repeat(100)).bytes();
        let archive = TestImage::gzipped(vec![shared.clone(), own]).archive(&format!("test.local/{name}:1"));
        store.import(archive).unwrap().remove(0)
    };
    ["old", "middle", "new"].map(image).into()
}

fn names(collected: &[Collected]) -> Vec<&str> {
    collected
        .iter()
        .map(|image| image.names[0].trim_start_matches("test.local/"))
        .collect()
}

#[test]
fn images_that_nobody_uses_go_and_the_longest_unused_ones_first() {
    let store = TestStore::new();
    let images = three(&store);
    let all = Unwanted {
        named: true,
        ..Unwanted::default()
    };
    // A container used the oldest one later than the others came.
    store.store.lease(&images[0], "c").unwrap();
    let unused = store.store.unwanted(&all).unwrap();
    assert_eq!(names(&unused), ["middle:1", "new:1"]);
    store.store.release("c").unwrap();
    let unused = store.store.unwanted(&all).unwrap();
    assert_eq!(names(&unused), ["middle:1", "new:1", "old:1"]);
    // The layer that all have goes with the last of them.
    let own = |image: &Collected| image.freed;
    assert!(
        own(&unused[0]) < 1000 + own(&unused[1]) && own(&unused[2]) > 1000,
        "{unused:?}"
    );
    let one = Unwanted {
        bytes: Some(1),
        ..all.clone()
    };
    let before = store.store.disk_usage().unwrap();
    let gone = store.store.collect(&one).unwrap();
    assert_eq!(names(&gone), ["middle:1"]);
    assert_eq!(store.store.disk_usage().unwrap(), before - 100);
    assert!(store.store.find("test.local/middle:1").unwrap().is_none());
    let rest = store.store.find("test.local/new:1").unwrap().unwrap();
    assert_eq!(store.store.lower_dirs(&rest).unwrap().len(), 2);
    assert_eq!(names(&store.store.collect(&all).unwrap()), ["new:1", "old:1"]);
    assert!(store.leftovers().is_empty(), "{:?}", store.leftovers());
}

#[test]
fn what_is_in_use_pinned_young_or_named_stays() {
    let store = TestStore::new();
    let images = three(&store);
    let all = Unwanted {
        named: true,
        ..Unwanted::default()
    };
    let unwanted = |which: Unwanted| store.store.unwanted(&which).unwrap();
    let hour = Duration::from_secs(3600);
    assert!(unwanted(Unwanted::default()).is_empty(), "all have names");
    assert!(
        unwanted(Unwanted {
            min_age: hour,
            ..all.clone()
        })
        .is_empty()
    );
    assert!(
        unwanted(Unwanted {
            unused_for: hour,
            ..all.clone()
        })
        .is_empty()
    );
    let pinned = |name: &str| Unwanted {
        pinned: vec![name.to_owned()],
        ..all.clone()
    };
    assert_eq!(names(&unwanted(pinned("test.local/m*"))), ["old:1", "new:1"]);
    assert_eq!(
        names(&unwanted(pinned("test.local/old:1"))),
        ["middle:1", "new:1"]
    );
    assert_eq!(names(&unwanted(pinned("test.local/old"))).len(), 3);
    // An image whose name another one has taken.
    let taken = TestImage::gzipped(vec![Tar::new().file("other", "").bytes()]);
    store.import(taken.archive("test.local/old:1")).unwrap();
    let dangling = unwanted(Unwanted::default());
    assert_eq!(dangling.len(), 1);
    assert_eq!(dangling[0].id, images[0].id);
    store.store.lease(&images[0], "c").unwrap();
    assert!(store.store.collect(&Unwanted::default()).unwrap().is_empty());
}
