//! Using things up: memory, processors, processes, descriptors; and processes that outlive their parents.

use std::fs::File;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::Outcome;
use crate::args::Args;

/// The program itself, whatever its file is called in this root.
const SELF: &str = "/proc/self/exe";
const PAGE: usize = 4096;
const CHUNK: usize = 1 << 20;

/// `allocate BYTES [--hold]`: takes memory and touches each page, a MiB at a time; `--hold` keeps it until SIGTERM.
pub(crate) fn allocate(mut args: Args) -> Outcome {
    let hold = args.switch("--hold");
    let bytes: usize = args.word("BYTES")?;
    let mut chunks = Vec::new();
    while chunks.len() * CHUNK < bytes {
        let mut chunk = vec![0_u8; CHUNK.min(bytes - chunks.len() * CHUNK)];
        chunk.iter_mut().step_by(PAGE).for_each(|byte| *byte = 1);
        chunks.push(std::hint::black_box(chunk));
    }
    println!("allocated {bytes}");
    if hold {
        crate::signals::sleep(Args::new(vec!["inf".into()]))
    } else {
        Ok(0)
    }
}

/// `forkbomb [--most N]`: starts sleeping children until the kernel refuses, prints how many it got, and sleeps.
pub(crate) fn forkbomb(mut args: Args) -> Outcome {
    let most = args.option("--most")?.unwrap_or(usize::MAX);
    let mut children = Vec::new();
    while children.len() < most {
        match Command::new(SELF).args(["sleep", "inf"]).spawn() {
            Ok(child) => children.push(child),
            Err(error) => {
                println!("refused after {} children: {error}", children.len());
                break;
            }
        }
    }
    println!("{} children", children.len());
    crate::signals::sleep(Args::new(vec!["inf".into()]))
}

/// `spin [SECONDS]`: keeps one processor busy.
pub(crate) fn spin(mut args: Args) -> Outcome {
    let seconds = args.optional("SECONDS")?.unwrap_or(f64::INFINITY);
    let start = Instant::now();
    crate::signals::end_on_termination(143)?;
    while start.elapsed().as_secs_f64() < seconds {
        std::hint::black_box((0..1000_u32).sum::<u32>());
    }
    Ok(0)
}

/// `grandchild [SECONDS]`: leaves a process in a session of its own that keeps standard output open, and ends.
pub(crate) fn grandchild(mut args: Args) -> Outcome {
    let seconds: String = args.optional("SECONDS")?.unwrap_or_else(|| "inf".into());
    if args.switch("--inner") {
        nix::unistd::setsid()?;
        return crate::signals::sleep(Args::new(vec![seconds, "--stubborn".into()]));
    }
    let child = Command::new(SELF)
        .args(["grandchild", &seconds, "--inner"])
        .stdin(Stdio::null())
        .spawn()?;
    println!("left {}", child.id());
    Ok(0)
}

/// `hold PATH…`: keeps these files open until SIGTERM.
pub(crate) fn hold(args: Args) -> Outcome {
    let files: Vec<File> = args.rest().iter().map(File::open).collect::<Result<_, _>>()?;
    println!("holding {}", files.len());
    crate::signals::end_on_termination(143)?;
    loop {
        std::thread::park_timeout(Duration::from_secs(3600));
    }
}
