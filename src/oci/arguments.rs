//! A command's arguments: parsed once by a table, then asked for by name.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

use lexopt::Arg;

use crate::failure::{Failure, usage};

/// What a command takes besides its flags.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operands {
    /// Nothing.
    None,
    /// One: a container's id.
    One,
    /// An id, and one more that may be left out. What follows the id is no flag, whatever it looks like.
    OneOrTwo,
    /// An id, and what is meant for another program.
    OneAndRest,
}

/// What a command understands.
#[derive(Debug)]
pub(crate) struct Syntax {
    /// The command's name.
    pub(crate) name: &'static str,
    /// Its flags, as its help shows them: `long`, `long,s` for one with a short form, and with `=VALUE` if it takes one.
    pub(crate) flags: &'static [&'static str],
    /// What it takes besides, and how the help calls that.
    pub(crate) operands: (Operands, &'static str),
}

/// A command's arguments.
#[derive(Debug, Default)]
pub(crate) struct Arguments {
    flags: Vec<(&'static str, OsString)>,
    operands: Vec<OsString>,
}

/// A flag of a table: long form, short form, name of the value.
fn split(flag: &'static str) -> (&'static str, Option<char>, Option<&'static str>) {
    let (names, value) = match flag.split_once('=') {
        Some((names, value)) => (names, Some(value)),
        None => (flag, None),
    };
    let (long, short) = names.split_once(',').unwrap_or((names, ""));
    (long, short.chars().next(), value)
}

impl Syntax {
    /// Parses what is left of the command line. `None` when it only asks for help.
    pub(crate) fn parse(&self, mut parser: lexopt::Parser) -> Result<Option<Arguments>, Failure> {
        let mut arguments = Arguments::default();
        while let Some(argument) = parser.next().map_err(|e| self.wrong(&e.to_string()))? {
            let (long, short) = match argument {
                Arg::Value(value) => {
                    arguments.operands.push(value);
                    if matches!(self.operands.0, Operands::OneOrTwo | Operands::OneAndRest) {
                        let rest = parser.raw_args().map_err(|e| self.wrong(&e.to_string()))?;
                        arguments.operands.extend(rest);
                    }
                    continue;
                }
                Arg::Long(long) => (Some(long), None),
                Arg::Short(short) => (None, Some(short)),
            };
            if long == Some("help") || short == Some('h') {
                return Ok(None);
            }
            let known = self.flags.iter().map(|flag| split(flag)).find(|known| {
                long.map_or_else(|| known.1.is_some() && known.1 == short, |long| known.0 == long)
            });
            let Some((name, _, value)) = known else {
                return Err(self.wrong(&argument.unexpected().to_string()));
            };
            let value = match value {
                Some(_) => parser.value().map_err(|e| self.wrong(&e.to_string()))?,
                None => parser.optional_value().unwrap_or_else(|| "true".into()),
            };
            arguments.flags.push((name, value));
        }
        self.check_count(arguments.operands.len())?;
        Ok(Some(arguments))
    }

    fn check_count(&self, count: usize) -> Result<(), Failure> {
        let (least, most) = match self.operands.0 {
            Operands::None => (0, 0),
            Operands::One => (1, 1),
            Operands::OneOrTwo => (1, 2),
            Operands::OneAndRest => (1, usize::MAX),
        };
        if count < least {
            return Err(self.wrong("the container's id is missing"));
        }
        if count > most {
            return Err(self.wrong("there is an argument too many"));
        }
        Ok(())
    }

    fn wrong(&self, reason: &str) -> Failure {
        let name = self.name;
        usage(format!(
            "The command line of {name} is not understood: {reason}; see berth-oci {name} --help."
        ))
    }

    /// How the command is called, in lines that fit a terminal, each after the first indented.
    pub(crate) fn help(&self) -> String {
        const WIDTH: usize = 110;
        const INDENT: usize = 13;
        let mut text = format!("  {:<10}", self.name);
        let mut column = text.len();
        let flags = self.flags.iter().map(|flag| match split(flag) {
            (long, None, None) => format!("[--{long}]"),
            (long, None, Some(value)) => format!("[--{long} {value}]"),
            (long, Some(short), None) => format!("[-{short}|--{long}]"),
            (long, Some(short), Some(value)) => format!("[-{short}|--{long} {value}]"),
        });
        for word in flags.chain((!self.operands.1.is_empty()).then(|| self.operands.1.to_owned())) {
            if column + 1 + word.len() > WIDTH {
                text.push('\n');
                text.extend(std::iter::repeat_n(' ', INDENT - 1));
                column = INDENT - 1;
            }
            text.push(' ');
            column += 1 + word.len();
            text.push_str(&word);
        }
        text
    }
}

impl Arguments {
    /// The value of a flag, the last one if it is repeated. An empty one is as good as none.
    pub(crate) fn value(&self, name: &str) -> Option<&OsStr> {
        let mut values = self.flags.iter().rev().filter(|(known, _)| *known == name);
        values
            .next()
            .map(|(_, value)| value.as_os_str())
            .filter(|value| !value.is_empty())
    }

    /// The value of a flag as a path.
    pub(crate) fn path(&self, name: &str) -> Option<PathBuf> {
        self.value(name).map(PathBuf::from)
    }

    /// The value of a flag as text.
    pub(crate) fn text(&self, name: &str) -> Result<Option<&str>, Failure> {
        self.value(name).map(as_text).transpose()
    }

    /// The values of a flag that can be repeated.
    pub(crate) fn all(&self, name: &str) -> Result<Vec<String>, Failure> {
        let values = self.flags.iter().filter(|(known, _)| *known == name);
        values
            .map(|(_, value)| as_text(value).map(str::to_owned))
            .collect()
    }

    /// Whether a switch is given, and not as `--name=false`.
    pub(crate) fn switch(&self, name: &str) -> Result<bool, Failure> {
        self.text(name)?.map_or(Ok(false), |value| boolean(name, value))
    }

    /// The value of a flag as a number.
    pub(crate) fn number<T: std::str::FromStr>(&self, name: &str) -> Result<Option<T>, Failure> {
        self.text(name)?.map(|value| number(name, value)).transpose()
    }

    /// The first operand.
    pub(crate) fn id(&self) -> Result<&str, Failure> {
        self.operands.first().map_or(Ok(""), |id| as_text(id))
    }

    /// The operands after the first.
    pub(crate) fn rest(&self) -> Result<Vec<String>, Failure> {
        let rest = self.operands.iter().skip(1);
        rest.map(|operand| as_text(operand).map(str::to_owned)).collect()
    }
}

/// A number that a flag was given.
pub(crate) fn number<T: std::str::FromStr>(flag: &str, value: &str) -> Result<T, Failure> {
    value
        .parse()
        .map_err(|_| usage(format!("--{flag} is {value:?}, which is not a number in range.")))
}

/// The state of a switch.
pub(crate) fn boolean(flag: &str, value: &str) -> Result<bool, Failure> {
    match value {
        "true" | "True" | "TRUE" | "t" | "T" | "1" => Ok(true),
        "false" | "False" | "FALSE" | "f" | "F" | "0" => Ok(false),
        other => Err(usage(format!("--{flag} is true or false, not {other:?}."))),
    }
}

/// An argument that must be UTF-8.
pub(crate) fn as_text(value: &OsStr) -> Result<&str, Failure> {
    value
        .to_str()
        .ok_or_else(|| usage(format!("The argument {value:?} is not UTF-8.")))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SYNTAX: Syntax = Syntax {
        name: "x",
        flags: &["bundle,b=DIR", "detach,d", "env,e=NAME=VALUE", "preserve-fds=N"],
        operands: (Operands::One, "ID"),
    };
    const REST: Syntax = Syntax {
        operands: (Operands::OneAndRest, "ID [COMMAND ...]"),
        ..SYNTAX
    };

    fn parse(syntax: &Syntax, words: &[&str]) -> Result<Arguments, String> {
        let parsed = syntax.parse(lexopt::Parser::from_args(words));
        parsed.map(Option::unwrap_or_default).map_err(|f| f.message)
    }

    #[test]
    fn flags_come_in_all_forms() {
        for words in [
            &["--bundle", "/b", "id", "-d", "-eA=1", "--env=B=2"][..],
            &["-b", "/b", "-d", "-e", "A=1", "id", "-e", "B=2"],
            &[
                "--bundle=/a",
                "--bundle=/b",
                "--detach=true",
                "-e=A=1",
                "-eB=2",
                "id",
            ],
        ] {
            let arguments = parse(&SYNTAX, words).unwrap();
            assert_eq!(arguments.path("bundle"), Some("/b".into()), "{words:?}");
            assert!(arguments.switch("detach").unwrap());
            assert_eq!(arguments.all("env").unwrap(), ["A=1", "B=2"]);
            assert_eq!(arguments.id().unwrap(), "id");
            assert_eq!(arguments.number::<u32>("preserve-fds").unwrap(), None);
        }
        assert!(
            !parse(&SYNTAX, &["-d", "--detach=false", "id"])
                .unwrap()
                .switch("detach")
                .unwrap()
        );
        assert_eq!(
            parse(&SYNTAX, &["--bundle", "", "id"]).unwrap().path("bundle"),
            None
        );
    }

    #[test]
    fn what_follows_the_id_is_not_touched() {
        let arguments = parse(&REST, &["-d", "id", "ls", "-l", "--", "--env"]).unwrap();
        assert_eq!(arguments.rest().unwrap(), ["ls", "-l", "--", "--env"]);
        assert_eq!(arguments.all("env").unwrap(), Vec::<String>::new());
    }

    #[test]
    fn nonsense_is_refused() {
        for (words, expected) in [
            (&["--nosuch", "id"][..], "--nosuch"),
            (&["-x", "id"], "-x"),
            (&[], "missing"),
            (&["id", "more"], "too many"),
            (&["id", "--bundle"], "--bundle"),
        ] {
            let said = parse(&SYNTAX, words).unwrap_err();
            assert!(
                said.contains(expected) && said.contains("berth-oci x --help"),
                "{said}"
            );
        }
        let number = parse(&SYNTAX, &["--preserve-fds", "-1", "id"])
            .unwrap()
            .number::<u32>("preserve-fds");
        assert!(number.unwrap_err().message.contains("not a number"));
        let switch = parse(&SYNTAX, &["--detach=maybe", "id"])
            .unwrap()
            .switch("detach");
        assert!(switch.unwrap_err().message.contains("maybe"));
        assert!(
            SYNTAX
                .parse(lexopt::Parser::from_args(["--help"]))
                .unwrap()
                .is_none()
        );
    }

    #[test]
    fn help_names_every_flag() {
        assert_eq!(
            SYNTAX.help(),
            "  x          [-b|--bundle DIR] [-d|--detach] [-e|--env NAME=VALUE] [--preserve-fds N] ID"
        );
    }
}
