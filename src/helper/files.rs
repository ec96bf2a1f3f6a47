//! Files: making, reading, listing, opening and waiting for them.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;
use std::time::{Duration, Instant};

use nix::errno::Errno;

use crate::Outcome;
use crate::args::Args;

/// How often a file that is waited for is looked at: the program has no inotify.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// `write FILE TEXT…`: replaces the file by the words and a newline, at once (by rename) where the directory lets it.
pub(crate) fn write(mut args: Args) -> Outcome {
    let path: String = args.word("FILE")?;
    replace(&path, &(args.rest().join(" ") + "\n"))?;
    Ok(0)
}

/// Gives a file this text: by rename, so that readers see the old or the new one, except where only the kernel makes
/// files.
pub(crate) fn replace(path: &str, text: &str) -> io::Result<()> {
    if ["/dev/", "/proc/", "/sys/"]
        .iter()
        .any(|kernel| path.starts_with(kernel))
    {
        return OpenOptions::new()
            .write(true)
            .open(path)?
            .write_all(text.as_bytes());
    }
    let temporary = format!("{path}.new");
    if fs::write(&temporary, text)
        .and_then(|()| fs::rename(&temporary, path))
        .is_ok()
    {
        return Ok(());
    }
    let _ = fs::remove_file(&temporary);
    fs::write(path, text)
}

/// `fill FILE BYTES`: a file of that many bytes, all of them on disk.
pub(crate) fn fill(mut args: Args) -> Outcome {
    let path: String = args.word("FILE")?;
    let bytes: u64 = args.word("BYTES")?;
    let mut file = File::create(&path).map_err(|error| named(&path, &error))?;
    let filled = io::copy(&mut io::repeat(b'x').take(bytes), &mut file).and_then(|_| file.sync_all());
    filled.map_err(|error| named(&path, &error))?;
    Ok(0)
}

/// `alone FILE`: locks the file until the process ends, or, if another process has it locked, adds a line to it and fails.
pub(crate) fn alone(mut args: Args) -> Outcome {
    let path: String = args.word("FILE")?;
    let file = OpenOptions::new()
        .append(true)
        .create(true)
        .open(&path)
        .map_err(|error| named(&path, &error))?;
    if file.try_lock().is_err() {
        append_line(&path, "there was another one")?;
        return Err(format!("there is another process with {path}").into());
    }
    // The lock goes with the descriptor.
    std::mem::forget(file);
    Ok(0)
}

/// `append FILE TEXT…`
pub(crate) fn append(mut args: Args) -> Outcome {
    let path: String = args.word("FILE")?;
    append_line(&path, &args.rest().join(" "))?;
    Ok(0)
}

/// Adds one line by one write(2).
pub(crate) fn append_line(path: &str, line: &str) -> io::Result<()> {
    OpenOptions::new()
        .append(true)
        .create(true)
        .open(path)?
        .write_all(format!("{line}\n").as_bytes())
}

/// `cat FILE…`
pub(crate) fn cat(args: Args) -> Outcome {
    for path in args.rest() {
        let mut file = File::open(&path).map_err(|error| named(&path, &error))?;
        io::copy(&mut file, &mut io::stdout()).map_err(|error| named(&path, &error))?;
    }
    Ok(0)
}

/// `ls [PATH…]`: one line a file: type and mode, owner, group, size, device, name, where a link leads.
pub(crate) fn ls(args: Args) -> Outcome {
    let mut paths = args.rest();
    if paths.is_empty() {
        paths.push(".".into());
    }
    for path in paths {
        let metadata = fs::symlink_metadata(&path).map_err(|error| named(&path, &error))?;
        if !metadata.is_dir() {
            println!("{}", describe(Path::new(&path))?);
            continue;
        }
        let mut entries = fs::read_dir(&path)?
            .map(|entry| Ok(entry?.path()))
            .collect::<io::Result<Vec<_>>>()?;
        entries.sort();
        for entry in entries {
            println!("{}", describe(&entry)?);
        }
    }
    Ok(0)
}

fn describe(path: &Path) -> io::Result<String> {
    let metadata = fs::symlink_metadata(path)?;
    let kind = metadata.file_type();
    let letter = match () {
        () if kind.is_dir() => 'd',
        () if kind.is_symlink() => 'l',
        () if kind.is_char_device() => 'c',
        () if kind.is_block_device() => 'b',
        () if kind.is_fifo() => 'p',
        () if kind.is_socket() => 's',
        () => '-',
    };
    let device = if matches!(letter, 'c' | 'b') {
        let (major, minor) = (
            nix::sys::stat::major(metadata.rdev()),
            nix::sys::stat::minor(metadata.rdev()),
        );
        format!("{major}:{minor}")
    } else {
        metadata.len().to_string()
    };
    let target = match fs::read_link(path) {
        Ok(target) => format!(" -> {}", target.display()),
        Err(_) => String::new(),
    };
    let (mode, uid, gid) = (metadata.mode() & 0o7777, metadata.uid(), metadata.gid());
    Ok(format!(
        "{letter} {mode:04o} {uid} {gid} {device} {}{target}",
        path.display()
    ))
}

/// `exists PATH…`, also called `ready`: ends with 1 unless all are there; an exec probe.
pub(crate) fn exists(args: Args) -> Outcome {
    for path in args.rest() {
        if !Path::new(&path).exists() {
            println!("{path} does not exist");
            return Ok(1);
        }
    }
    Ok(0)
}

/// `touch FILE…`
pub(crate) fn touch(args: Args) -> Outcome {
    for path in args.rest() {
        OpenOptions::new()
            .append(true)
            .create(true)
            .open(&path)
            .map_err(|error| named(&path, &error))?;
    }
    Ok(0)
}

/// `mkdir DIR…`, with parents.
pub(crate) fn mkdir(args: Args) -> Outcome {
    for path in args.rest() {
        fs::create_dir_all(&path).map_err(|error| named(&path, &error))?;
    }
    Ok(0)
}

/// `rm FILE…`: a missing file is removed.
pub(crate) fn rm(args: Args) -> Outcome {
    for path in args.rest() {
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(named(&path, &error).into()),
            _ => {}
        }
    }
    Ok(0)
}

/// `open PATH r|w|a|c`: reads a byte, opens for writing or appending, or creates; prints `ok` or the errno's name, and
/// ends with 0 either way: it reports, the caller judges.
pub(crate) fn open(mut args: Args) -> Outcome {
    let path: String = args.word("PATH")?;
    let mode: String = args.word("MODE")?;
    let mut options = OpenOptions::new();
    match mode.as_str() {
        "r" => options.read(true),
        "w" => options.write(true),
        "a" => options.append(true),
        "c" => options.write(true).create(true),
        _ => return Err(format!("{mode:?} is not r, w, a or c").into()),
    };
    let result = options.open(&path).and_then(|mut file| {
        if mode == "r" && !file.metadata()?.is_dir() {
            let _ = file.read(&mut [0])?;
        }
        Ok(())
    });
    println!("open {path} {mode}: {}", errno_name(&result));
    Ok(0)
}

/// `ok`, or the name of the error as errno(3) has it.
pub(crate) fn errno_name<T>(result: &io::Result<T>) -> String {
    match result {
        Ok(_) => "ok".into(),
        Err(error) => match error.raw_os_error() {
            Some(number) => format!("{:?}", Errno::from_raw(number)),
            None => error.to_string(),
        },
    }
}

/// `wait-file FILE [--absent] [--timeout SECONDS]`: until it is there (or gone).
pub(crate) fn wait_file(mut args: Args) -> Outcome {
    let absent = args.switch("--absent");
    let timeout: Option<f64> = args.option("--timeout")?;
    let path: String = args.word("FILE")?;
    crate::signals::end_on_termination(143)?;
    let deadline = timeout
        .map(Duration::try_from_secs_f64)
        .transpose()?
        .map(|time| Instant::now() + time);
    while Path::new(&path).exists() == absent {
        if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            return Err(format!("{path} is still {}", if absent { "there" } else { "missing" }).into());
        }
        std::thread::sleep(LOOK_AGAIN);
    }
    Ok(0)
}

fn named(path: &str, error: &io::Error) -> String {
    format!("{path}: {error}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_have_their_kernel_names() {
        assert_eq!(errno_name(&Ok(())), "ok");
        assert_eq!(errno_name(&File::open("/no/such/file")), "ENOENT");
        assert_eq!(errno_name(&OpenOptions::new().write(true).open("/")), "EISDIR");
    }
}
