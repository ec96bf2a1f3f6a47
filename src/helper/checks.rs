//! Assertions about the surroundings, many in one container: `checks uid=1000 readonly=/ absent=/proc/kcore`.

use std::fs::{self, OpenOptions};
use std::io;
use std::path::Path;

use crate::Outcome;
use crate::args::Args;
use crate::files::errno_name;
use crate::show;

/// `checks WHAT=VALUE…`: prints `ok` or `FAIL` for each and ends with 1 if one failed.
///
/// `uid=N gid=N groups=N,N hostname=H cwd=D` compare; `env=NAME:VALUE` and `file=PATH:TEXT` (trimmed) too;
/// `cap=N` and `nocap=N` look for a capability's number in the effective set; `exists= absent= writable= readonly=
/// unreadable=` take a path; `status=FIELD:VALUE` is of `/proc/self/status`; `fds=N` counts open descriptors;
/// `mount=PATH:OPTION` looks for a mount point with an option.
pub(crate) fn checks(args: Args) -> Outcome {
    let mut failed = 0;
    for check in args.rest() {
        let (what, value) = check
            .split_once('=')
            .ok_or_else(|| format!("{check:?} is not WHAT=VALUE"))?;
        match run(what, value)? {
            None => println!("ok {check}"),
            Some(found) => {
                failed += 1;
                println!("FAIL {check}: {found}");
            }
        }
    }
    Ok(u8::from(failed > 0))
}

/// `None` if it holds, else what was found instead.
fn run(what: &str, value: &str) -> Result<Option<String>, Box<dyn std::error::Error>> {
    let (name, expected) = value.split_once(':').unwrap_or((value, ""));
    Ok(match what {
        "uid" => differs(&nix::unistd::geteuid().to_string(), value),
        "gid" => differs(&nix::unistd::getegid().to_string(), value),
        "groups" => differs(show::id_line()?.rsplit('=').next().unwrap_or(""), value),
        "hostname" => differs(&nix::unistd::gethostname()?.to_string_lossy(), value),
        "cwd" => differs(&std::env::current_dir()?.to_string_lossy(), value),
        "env" => differs(
            &std::env::var(name).unwrap_or_else(|_| "not set".into()),
            expected,
        ),
        // The kernel ends labels with a zero byte.
        "file" => differs(fs::read_to_string(name)?.trim_end_matches('\0').trim(), expected),
        "status" => differs(&show::status_field(name)?, expected),
        "cap" => (!has_capability(value)?).then(|| "not in the effective set".into()),
        "nocap" => has_capability(value)?.then(|| "in the effective set".into()),
        "fds" => {
            let open = show::open_descriptors()?;
            (open.len().to_string() != value).then(|| open.join(", "))
        }
        "exists" => (!Path::new(value).exists()).then(|| "missing".into()),
        "absent" => Path::new(value).exists().then(|| "there".into()),
        "writable" => refused(&try_write(value)).map(|error| format!("can't be written: {error}")),
        "readonly" => refused(&try_write(value))
            .is_none()
            .then(|| "could be written".into()),
        "unreadable" => refused(&try_read(value))
            .is_none()
            .then(|| "could be read".into()),
        "mount" => mount_lacks(name, expected)?,
        _ => return Err(format!("there is no check {what:?}").into()),
    })
}

fn differs(found: &str, expected: &str) -> Option<String> {
    (found != expected).then(|| format!("it is {found:?}"))
}

fn refused(result: &io::Result<()>) -> Option<String> {
    result.is_err().then(|| errno_name(result))
}

fn has_capability(number: &str) -> Result<bool, Box<dyn std::error::Error>> {
    let set = u64::from_str_radix(&show::status_field("CapEff")?, 16)?;
    Ok(set >> number.parse::<u32>()? & 1 == 1)
}

/// Makes and removes a file in a directory, or opens a file for writing.
fn try_write(path: &str) -> io::Result<()> {
    if Path::new(path).is_dir() {
        let probe = Path::new(path).join(format!(".berth-checks-{}", std::process::id()));
        fs::write(&probe, "")?;
        return fs::remove_file(probe);
    }
    OpenOptions::new().write(true).open(path).map(drop)
}

/// Something to be seen: bytes in a file, entries in a directory.
fn try_read(path: &str) -> io::Result<()> {
    let nothing = io::ErrorKind::NotFound.into();
    if Path::new(path).is_dir() {
        return if fs::read_dir(path)?.next().is_some() {
            Ok(())
        } else {
            Err(nothing)
        };
    }
    let mut byte = [0];
    if io::Read::read(&mut fs::File::open(path)?, &mut byte)? == 1 {
        Ok(())
    } else {
        Err(nothing)
    }
}

/// mountinfo(5): the fifth field is the mount point, the sixth its options; the topmost mount comes last.
fn mount_lacks(point: &str, option: &str) -> io::Result<Option<String>> {
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    let options = mounts.lines().rev().find_map(|line| {
        let mut fields = line.split(' ').skip(4);
        (fields.next() == Some(point)).then(|| fields.next().unwrap_or("").to_owned())
    });
    Ok(match options {
        None => Some("not a mount point".into()),
        Some(options) if option.is_empty() || options.split(',').any(|one| one == option) => None,
        Some(options) => Some(format!("mounted {options}")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checks_hold_or_say_what_they_found() {
        assert!(run("exists", "/proc").unwrap().is_none());
        assert!(run("absent", "/proc").unwrap().is_some());
        assert!(run("mount", "/proc").unwrap().is_none());
        assert!(run("mount", "/no/such").unwrap().is_some());
        assert!(run("unreadable", "/proc/self/comm").unwrap().is_some());
        assert!(
            run("env", "NO_SUCH_VARIABLE:x")
                .unwrap()
                .unwrap()
                .contains("not set")
        );
        assert!(run("nonsense", "").is_err());
    }
}
