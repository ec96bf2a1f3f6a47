//! A field whose value breaks a rule.

use std::fmt;

/// A broken rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldError {
    /// The field: `spec.containers[0].name`.
    pub path: String,
    /// What is wrong with it.
    pub problem: Problem,
}

/// What is wrong with a field, in the classes that the API server has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Problem {
    /// It must be there; why, or empty.
    Required(String),
    /// Its value, and what it should be.
    Invalid(String, String),
    /// Its value, and those that there are.
    NotSupported(String, Vec<&'static str>),
    /// How many items it has, and how many it may have.
    TooMany(usize, usize),
    /// Its value is that of another, too.
    Duplicate(String),
    /// What it names is not there.
    NotFound(String),
    /// It must not be there, and why.
    Forbidden(String),
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.problem {
            Problem::Required(why) if why.is_empty() => f.write_str("Required value"),
            Problem::Required(why) => write!(f, "Required value: {why}"),
            Problem::Invalid(value, why) => write!(f, "Invalid value: {value}: {why}"),
            Problem::NotSupported(value, known) => {
                let known: Vec<String> = known.iter().map(|known| format!("{known:?}")).collect();
                write!(
                    f,
                    "Unsupported value: {value:?}: supported values: {}",
                    known.join(", ")
                )
            }
            Problem::TooMany(count, max) => {
                write!(f, "Too many: {count}: must have at most {max} items")
            }
            Problem::Duplicate(value) => write!(f, "Duplicate value: {value}"),
            Problem::NotFound(value) => write!(f, "Not found: {value:?}"),
            Problem::Forbidden(why) => write!(f, "Forbidden: {why}"),
        }
    }
}

/// Broken rules as they are found.
#[derive(Debug, Default)]
pub(super) struct Errors(pub(super) Vec<FieldError>);

impl Errors {
    fn push(&mut self, path: &str, problem: Problem) {
        self.0.push(FieldError {
            path: path.to_owned(),
            problem,
        });
    }

    pub(super) fn required(&mut self, path: &str, why: &str) {
        self.push(path, Problem::Required(why.to_owned()));
    }

    pub(super) fn invalid(&mut self, path: &str, value: &str, why: impl Into<String>) {
        self.push(path, Problem::Invalid(format!("{value:?}"), why.into()));
    }

    pub(super) fn invalid_number(&mut self, path: &str, value: impl Into<i64>, why: impl Into<String>) {
        self.push(path, Problem::Invalid(value.into().to_string(), why.into()));
    }

    pub(super) fn too_many(&mut self, path: &str, count: usize, max: usize) {
        self.push(path, Problem::TooMany(count, max));
    }

    pub(super) fn duplicate(&mut self, path: &str, value: &str) {
        self.push(path, Problem::Duplicate(format!("{value:?}")));
    }

    pub(super) fn not_found(&mut self, path: &str, value: &str) {
        self.push(path, Problem::NotFound(value.to_owned()));
    }

    pub(super) fn forbidden(&mut self, path: &str, why: impl Into<String>) {
        self.push(path, Problem::Forbidden(why.into()));
    }

    /// The value is one of those that there are. An unset one is left to defaulting.
    pub(super) fn one_of(&mut self, path: &str, value: Option<&str>, known: &[&'static str]) {
        if let Some(value) = value.filter(|value| !known.contains(value)) {
            self.push(path, Problem::NotSupported(value.to_owned(), known.to_vec()));
        }
    }

    /// The number, if it is there, is not negative.
    pub(super) fn not_negative(&mut self, path: &str, value: Option<impl Into<i64> + Copy>) {
        if let Some(value) = value.filter(|value| (*value).into() < 0) {
            self.invalid_number(path, value, "must be greater than or equal to 0");
        }
    }

    /// The rule about the value, if it is broken.
    pub(super) fn check(&mut self, path: &str, value: &str, broken: Option<&str>) {
        if let Some(why) = broken {
            self.invalid(path, value, why);
        }
    }
}
