//! Which name was meant.

/// The known name that is nearest to a wrong one, if one is near.
pub(crate) fn nearest(name: &str, known: &[&str]) -> Option<String> {
    let allowed = (name.chars().count() / 3).clamp(1, 3);
    let lower = name.to_ascii_lowercase();
    let best = known
        .iter()
        .map(|candidate| (distance(&lower, &candidate.to_ascii_lowercase()), *candidate))
        .min()?;
    (best.0 <= allowed).then(|| best.1.to_owned())
}

/// How many letters must be added, taken, replaced or swapped (restricted Damerau-Levenshtein).
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut rows = vec![vec![0; b.len() + 1]; a.len() + 1];
    for (i, row) in rows.iter_mut().enumerate() {
        row[0] = i;
    }
    for (j, cell) in rows[0].iter_mut().enumerate() {
        *cell = j;
    }
    for i in 1..=a.len() {
        for j in 1..=b.len() {
            let replace = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut best = replace.min(rows[i - 1][j] + 1).min(rows[i][j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            rows[i][j] = best;
        }
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_what_was_meant() {
        let known = [
            "image",
            "imagePullPolicy",
            "command",
            "args",
            "env",
            "envFrom",
            "livenessProbe",
        ];
        for (name, meant) in [
            ("imagee", Some("image")),
            ("Image", Some("image")),
            ("imgae", Some("image")),
            ("imagepullpolicy", Some("imagePullPolicy")),
            ("livenesProbes", Some("livenessProbe")),
            ("arg", Some("args")),
            ("envs", Some("env")),
            ("entrypoint", None),
            ("x", None),
            ("", None),
        ] {
            assert_eq!(nearest(name, &known).as_deref(), meant, "{name}");
        }
    }
}
