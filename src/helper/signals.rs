//! Signals: ending on them, catching them, sending them.

use std::time::{Duration, Instant};

use nix::sys::signal::{self, SigSet, Signal};
use nix::unistd::Pid;

use crate::Outcome;
use crate::args::Args;

/// From now on SIGTERM and SIGINT end the process with `code`. Call before starting threads: they inherit the mask
/// that leaves the signals to the thread started here.
pub(crate) fn end_on_termination(code: u8) -> Result<(), nix::Error> {
    let mut set = SigSet::empty();
    set.add(Signal::SIGTERM);
    set.add(Signal::SIGINT);
    set.thread_block()?;
    std::thread::spawn(move || {
        if let Ok(signal) = set.wait() {
            eprintln!("{signal}: ending");
            std::process::exit(i32::from(code));
        }
    });
    Ok(())
}

/// `sleep SECONDS|inf [--stubborn]`: ends with 143 on SIGTERM; `--stubborn` does not end before SIGKILL.
pub(crate) fn sleep(mut args: Args) -> Outcome {
    let stubborn = args.switch("--stubborn");
    let time: String = args.word("SECONDS")?;
    if stubborn {
        let mut set = SigSet::empty();
        set.add(Signal::SIGTERM);
        set.add(Signal::SIGINT);
        set.thread_block()?;
    } else {
        end_on_termination(143)?;
    }
    if time == "inf" || time == "infinity" {
        loop {
            std::thread::park();
        }
    }
    std::thread::sleep(Duration::try_from_secs_f64(time.parse()?)?);
    Ok(0)
}

/// `trap [--exit CODE] [--count N] [--file F] SIGNAL…`: prints each of the signals as it comes; ends with CODE (0) after
/// N of them, without `--count` never.
pub(crate) fn trap(mut args: Args) -> Outcome {
    let code = args.option("--exit")?.unwrap_or(0);
    let count: Option<u64> = args.option("--count")?;
    let file: Option<String> = args.option("--file")?;
    let mut set = SigSet::empty();
    for name in args.rest() {
        set.add(parse(&name)?);
    }
    set.thread_block()?;
    println!("trapping");
    let start = Instant::now();
    let mut seen = 0;
    while count.is_none_or(|count| seen < count) {
        let signal = set.wait()?;
        seen += 1;
        let line = format!("caught {signal} after {} ms", start.elapsed().as_millis());
        println!("{line}");
        if let Some(file) = &file {
            crate::files::append_line(file, &line)?;
        }
    }
    Ok(code)
}

/// `kill SIGNAL PID…|self`
pub(crate) fn kill(mut args: Args) -> Outcome {
    let signal = parse(&args.word::<String>("SIGNAL")?)?;
    for pid in args.rest() {
        let pid = if pid == "self" {
            Pid::this()
        } else {
            Pid::from_raw(pid.parse()?)
        };
        signal::kill(pid, signal)?;
    }
    Ok(0)
}

/// A signal by name, with or without `SIG`, or by number.
fn parse(name: &str) -> Result<Signal, String> {
    let unknown = |_| format!("{name} is no signal");
    if let Ok(number) = name.parse::<i32>() {
        return Signal::try_from(number).map_err(unknown);
    }
    let full = if name.starts_with("SIG") {
        name.to_owned()
    } else {
        format!("SIG{name}")
    };
    full.parse().map_err(unknown)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_have_three_spellings() {
        for name in ["TERM", "SIGTERM", "15"] {
            assert_eq!(parse(name), Ok(Signal::SIGTERM));
        }
        assert_eq!(parse("TERMINATE"), Err("TERMINATE is no signal".into()));
    }
}
