//! Lines: printing them once, in time, in floods, and from standard input.

use std::fmt::Write as _;
use std::io::{self, BufRead, BufWriter, Write};
use std::time::Duration;

use crate::Outcome;
use crate::args::Args;

/// `echo [--stderr] WORD…`
pub(crate) fn echo(mut args: Args) -> Outcome {
    let text = if args.switch("--stderr") {
        eprintln!("{}", args.rest().join(" "));
        return Ok(0);
    } else {
        args.rest().join(" ")
    };
    println!("{text}");
    Ok(0)
}

/// `exit CODE [WORD…]`: prints the words to standard error first.
pub(crate) fn exit(mut args: Args) -> Outcome {
    let code = args.word("CODE")?;
    let words = args.rest();
    if !words.is_empty() {
        eprintln!("{}", words.join(" "));
    }
    Ok(code)
}

/// `tick [--every MS] [--count N] [--file F [--replace]] TEXT…`: prints the text and a number again and again (or appends
/// them to the file, or replaces it), once a second unless told; ends with 0 on SIGTERM.
pub(crate) fn tick(mut args: Args) -> Outcome {
    let every = Duration::from_millis(args.option("--every")?.unwrap_or(1000));
    let count: u64 = args.option("--count")?.unwrap_or(u64::MAX);
    let file: Option<String> = args.option("--file")?;
    let replace = args.switch("--replace");
    let text = args.rest().join(" ");
    crate::signals::end_on_termination(0)?;
    for number in 1..=count {
        match &file {
            Some(file) if replace => crate::files::replace(file, &format!("{text} {number}\n"))?,
            Some(file) => crate::files::append_line(file, &format!("{text} {number}"))?,
            None => println!("{text} {number}"),
        }
        std::thread::sleep(every);
    }
    Ok(0)
}

/// `lines N LENGTH [--stderr]`: N numbered lines of LENGTH bytes (at least 18) with a checksum each.
pub(crate) fn lines(mut args: Args) -> Outcome {
    let stderr = args.switch("--stderr");
    let count: u64 = args.word("N")?;
    let length: usize = args.word("LENGTH")?;
    let output: Box<dyn Write> = if stderr {
        Box::new(io::stderr())
    } else {
        Box::new(io::stdout().lock())
    };
    let mut output = BufWriter::with_capacity(1 << 16, output);
    let mut line = String::new();
    for number in 0..count {
        numbered_line(number, length, &mut line);
        output.write_all(line.as_bytes())?;
    }
    output.flush()?;
    Ok(0)
}

/// `<number, 8 digits> <checksum, 8 hex digits> xxxx…\n`: the checksum (FNV-1a) is of the number and the padding.
fn numbered_line(number: u64, length: usize, line: &mut String) {
    let padding = "x".repeat(length.saturating_sub(18));
    let mut sum = 0x811c_9dc5_u32;
    for byte in format!("{number:08}{padding}").bytes() {
        sum = (sum ^ u32::from(byte)).wrapping_mul(0x0100_0193);
    }
    line.clear();
    let _ = writeln!(line, "{number:08} {sum:08x} {padding}");
}

/// `stdin-echo`: each line of standard input, with `got `.
pub(crate) fn stdin_echo(_: Args) -> Outcome {
    crate::signals::end_on_termination(143)?;
    for line in io::stdin().lock().lines() {
        println!("got {}", line?);
    }
    println!("end of input");
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbered_lines_have_the_asked_length() {
        let mut line = String::new();
        for length in [18, 80, 5000] {
            numbered_line(7, length, &mut line);
            assert_eq!(line.len(), length + 1);
            assert!(line.starts_with("00000007 ") && line.ends_with('\n'));
        }
    }
}
