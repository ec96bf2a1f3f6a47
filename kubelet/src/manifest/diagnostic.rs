//! What is wrong with a manifest, and where.

use std::fmt;

/// One thing that is wrong, or that is left out of account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// The file's name as it was given.
    pub file: String,
    /// From 1; 0 where there is no line.
    pub line: usize,
    /// The field: `spec.containers[0].image`, or empty.
    pub path: String,
    /// What is wrong.
    pub message: String,
    /// What to do, or empty.
    pub hint: String,
}

/// Characters of a text that are shown, and as many of the errors of one call: a screen or two.
const LONGEST: usize = 400;
const MOST_SHOWN: usize = 100;

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        if self.line != 0 {
            write!(f, ":{}", self.line)?;
        }
        f.write_str(": ")?;
        if !self.path.is_empty() {
            write!(f, "{}: ", printable(&self.path))?;
        }
        f.write_str(&printable(&self.message))?;
        if !self.hint.is_empty() {
            write!(f, " ({})", printable(&self.hint))?;
        }
        Ok(())
    }
}

/// A text as it may stand on a terminal: what a manifest says is not trusted to move the cursor, or to turn the direction
/// in which a line is read.
fn printable(text: &str) -> String {
    let count = text.chars().count();
    if count > LONGEST + 3 {
        // What is wrong with a long value stands at the end.
        let begin: String = text.chars().take(LONGEST / 2).collect();
        let end: String = text.chars().skip(count - LONGEST / 2).collect();
        return printable(&format!("{begin} … {end}"));
    }
    crate::harmless::line(text)
}

/// Everything that is wrong with the manifests, in the order of the files and lines.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct ManifestErrors(pub Vec<Diagnostic>);

impl fmt::Display for ManifestErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, diagnostic) in self.0.iter().take(MOST_SHOWN).enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            diagnostic.fmt(f)?;
        }
        if self.0.len() > MOST_SHOWN {
            write!(f, "\nand {} more", self.0.len() - MOST_SHOWN)?;
        }
        Ok(())
    }
}
