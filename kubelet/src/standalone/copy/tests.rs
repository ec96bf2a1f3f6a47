use std::fs::{self, File};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

use super::tree::{DEEPEST, stays_inside};
use super::*;

struct Bench {
    dir: tempfile::TempDir,
    root: OwnedFd,
}

impl Bench {
    /// A container's root `c`, and a directory `h` of the host.
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        for name in ["c", "h"] {
            fs::create_dir(dir.path().join(name)).unwrap();
        }
        fs::write(dir.path().join("secret"), "of the host").unwrap();
        let root = File::open(dir.path().join("c")).unwrap().into();
        Self { dir, root }
    }

    fn path(&self, path: &str) -> PathBuf {
        self.dir.path().join(path)
    }

    fn inside<'a>(&'a self, path: &'a str) -> Side<'a> {
        Side::Container {
            root: self.root.as_fd(),
            owner: (0, 0),
            path: Path::new(path),
        }
    }

    fn out(&self, from: &str, to: &str) -> Result<Vec<String>, CopyError> {
        let mut warnings = Vec::new();
        copy(self.inside(from), Side::Host(&self.path(to)), &mut |text| {
            warnings.push(text.to_owned());
        })?;
        Ok(warnings)
    }

    fn bring(&self, from: &str, to: &str) -> Result<(), CopyError> {
        copy(Side::Host(&self.path(from)), self.inside(to), &mut |_| {})
    }
}

#[test]
fn trees_go_both_ways() {
    let bench = Bench::new();
    fs::create_dir_all(bench.path("c/data/sub")).unwrap();
    fs::write(bench.path("c/data/sub/file"), "content").unwrap();
    fs::set_permissions(bench.path("c/data/sub/file"), fs::Permissions::from_mode(0o4754)).unwrap();
    symlink("sub/file", bench.path("c/data/link")).unwrap();
    assert_eq!(bench.out("/data", "h").unwrap(), [""; 0]);
    assert_eq!(bench.out("data", "h/renamed").unwrap(), [""; 0]);
    for place in ["h/data", "h/renamed"] {
        let file = bench.path(place).join("sub/file");
        assert_eq!(fs::read(&file).unwrap(), b"content");
        assert_eq!(fs::metadata(&file).unwrap().mode() & 0o7777, 0o754);
        assert_eq!(fs::read(bench.path(place).join("link")).unwrap(), b"content");
    }
    bench.bring("h/data/.", "/").unwrap();
    assert_eq!(fs::read(bench.path("c/sub/file")).unwrap(), b"content");
    bench.bring("h/data/sub/file", "/sub/other").unwrap();
    assert_eq!(fs::read(bench.path("c/sub/other")).unwrap(), b"content");
    fs::write(bench.path("h/short"), "x").unwrap();
    bench.bring("h/short", "/sub/other").unwrap();
    assert_eq!(fs::read(bench.path("c/sub/other")).unwrap(), b"x");
    assert!(bench.bring("h/data", "/sub/other").is_err());
    assert!(bench.bring("h/none", "/").is_err());
    assert!(bench.bring("h/short", "/none/x").is_err());
}

#[test]
fn links_in_the_container_lead_nowhere_else() {
    let bench = Bench::new();
    let secret = bench.path("secret");
    // Followed as in the container, where there is no such file.
    symlink(&secret, bench.path("c/file")).unwrap();
    symlink("../../../..", bench.path("c/up")).unwrap();
    assert!(bench.out("/file", "h/got").is_err());
    fs::create_dir(bench.path("c/tree")).unwrap();
    for (name, target) in [
        ("absolute", secret.as_path()),
        ("above", Path::new("../secret")),
        ("through", Path::new("a/../../secret")),
    ] {
        symlink(target, bench.path("c/tree").join(name)).unwrap();
    }
    assert_eq!(bench.out("/tree", "h").unwrap().len(), 3);
    assert_eq!(fs::read_dir(bench.path("h/tree")).unwrap().count(), 0);
    // Writing goes through no link that leads out of the root.
    fs::write(bench.path("h/new"), "new").unwrap();
    bench.bring("h/new", "/up/new").unwrap();
    assert_eq!(fs::read(bench.path("c/new")).unwrap(), b"new");
    bench.bring("h/new", "/file").unwrap();
    assert!(fs::symlink_metadata(bench.path("c/file")).unwrap().is_file());
    assert_eq!(fs::read(&secret).unwrap(), b"of the host");
}

#[test]
fn what_lies_in_the_way_is_replaced_and_not_followed() {
    let bench = Bench::new();
    fs::create_dir_all(bench.path("c/tree/d")).unwrap();
    fs::write(bench.path("c/tree/f"), "f").unwrap();
    fs::create_dir(bench.path("h/tree")).unwrap();
    symlink(bench.path("secret"), bench.path("h/tree/f")).unwrap();
    bench.out("/tree", "h").unwrap();
    assert_eq!(fs::read(bench.path("secret")).unwrap(), b"of the host");
    assert_eq!(fs::read(bench.path("h/tree/f")).unwrap(), b"f");
    fs::remove_dir(bench.path("h/tree/d")).unwrap();
    symlink(bench.path("c"), bench.path("h/tree/d")).unwrap();
    assert!(
        bench.out("/tree", "h").is_err(),
        "a directory is not made through a link"
    );
}

#[test]
fn pipes_and_depths_do_not_hold_it_up() {
    let bench = Bench::new();
    fs::create_dir(bench.path("c/tree")).unwrap();
    nix::unistd::mkfifo(&bench.path("c/tree/pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    assert_eq!(bench.out("/tree", "h").unwrap().len(), 1);
    assert!(bench.out("/tree/pipe", "h/x").unwrap().len() == 1);
    let mut deep = bench.path("c/deep");
    for _ in 0..DEEPEST + 2 {
        fs::create_dir(&deep).unwrap();
        deep.push("d");
    }
    assert!(bench.out("/deep", "h").is_err());
}

#[test]
fn links_are_judged_by_where_they_are() {
    for (target, depth, inside) in [
        ("file", 0, true),
        ("./a/b", 0, true),
        ("../a", 0, false),
        ("../a", 1, true),
        ("../../a", 1, false),
        ("/etc/passwd", 9, false),
        ("a/../b", 9, false),
        ("..", 1, true),
    ] {
        assert_eq!(stays_inside(Path::new(target), depth), inside, "{target} {depth}");
    }
}
