//! The forms of names. Each rule says what is wrong, or nothing.

/// A lowercase RFC 1123 label.
pub(super) fn dns_label(name: &str) -> Option<&'static str> {
    if name.len() > 63 {
        return Some("must be no more than 63 characters");
    }
    (!is_label(name)).then_some(
        "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end \
         with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is \
         '[a-z0-9]([-a-z0-9]*[a-z0-9])?')",
    )
}

/// A lowercase RFC 1123 subdomain.
pub(super) fn dns_subdomain(name: &str) -> Option<&'static str> {
    if name.len() > 253 {
        return Some("must be no more than 253 characters");
    }
    (!name.split('.').all(is_label)).then_some(
        "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start \
         and end with an alphanumeric character (e.g. 'example.com', regex used for validation is \
         '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')",
    )
}

fn is_label(name: &str) -> bool {
    let alphanumeric = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit();
    let bytes = name.as_bytes();
    matches!((bytes.first(), bytes.last()), (Some(first), Some(last)) if alphanumeric(*first) && alphanumeric(*last))
        && bytes.iter().all(|c| alphanumeric(*c) || *c == b'-')
}

/// A label's key: `name` or `prefix/name`.
pub(crate) fn qualified_name(name: &str) -> Option<&'static str> {
    let (prefix, name) = match name.split_once('/') {
        Some((prefix, name)) => (Some(prefix), name),
        None => (None, name),
    };
    if prefix.is_some_and(|prefix| prefix.is_empty() || dns_subdomain(prefix).is_some()) {
        return Some(
            "prefix part a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.'",
        );
    }
    let fits = !name.is_empty() && name.len() <= 63 && is_label_text(name);
    (!fits).then_some(
        "name part must be no more than 63 characters and must consist of alphanumeric characters, '-', '_' or '.', and \
         must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc')",
    )
}

/// A resource that is none of Kubernetes' own: `domain/name` (IsExtendedResourceName).
pub(crate) fn extended_resource(name: &str) -> Option<&'static str> {
    if !name.contains('/') {
        return Some(
            "must be a standard resource for containers (cpu, memory, ephemeral-storage, hugepages-<size>) or fully qualified",
        );
    }
    let reserved = name.contains("kubernetes.io/") || name.starts_with("requests.");
    let reserved = reserved.then_some("doesn't follow extended resource name standard");
    reserved.or_else(|| qualified_name(name))
}

/// A label's value.
pub(crate) fn label_value(value: &str) -> Option<&'static str> {
    let fits = value.is_empty() || value.len() <= 63 && is_label_text(value);
    (!fits).then_some(
        "a valid label must be no more than 63 characters, an empty string or consist of alphanumeric characters, '-', \
         '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345')",
    )
}

fn is_label_text(text: &str) -> bool {
    let bytes = text.as_bytes();
    matches!((bytes.first(), bytes.last()), (Some(a), Some(b)) if a.is_ascii_alphanumeric() && b.is_ascii_alphanumeric())
        && bytes
            .iter()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_' | b'.'))
}

/// A port's name (RFC 6335).
pub(super) fn port_name(name: &str) -> Option<&'static str> {
    let fits = name.len() <= 15
        && is_label(name)
        && !name.contains("--")
        && name.bytes().any(|c| c.is_ascii_lowercase());
    (!fits).then_some(
        "must be no more than 15 characters, contain only alphanumeric characters (a-z, 0-9), and hyphens ('-') that do \
         not follow one another, and at least one letter (a-z)",
    )
}

/// A key of a ConfigMap or Secret.
pub(super) fn data_key(key: &str) -> Option<&'static str> {
    match key {
        "." | ".." => return Some("must not be '.' or '..'"),
        _ if key.starts_with("..") => return Some("must not start with '..'"),
        _ => {}
    }
    let fits = (1..=253).contains(&key.len())
        && key
            .bytes()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_' | b'.'));
    (!fits).then_some(
        "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  \
         or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')",
    )
}

/// An HTTP header's name.
pub(super) fn header_name(name: &str) -> Option<&'static str> {
    let fits = !name.is_empty() && name.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'-');
    (!fits).then_some(
        "a valid HTTP header must consist of alphanumeric characters or '-' (e.g. 'X-Header-Name')",
    )
}

/// A name of an environment variable.
pub(super) fn env_name(name: &str) -> Option<&'static str> {
    (!crate::env::is_env_name(name)).then_some(
        "a valid environment variable name must consist only of printable ASCII characters other than '='",
    )
}

/// A sysctl's name.
pub(crate) fn sysctl(name: &str) -> Option<&'static str> {
    let segment = |part: &str| {
        let edge = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit();
        let bytes = part.as_bytes();
        matches!((bytes.first(), bytes.last()), (Some(a), Some(b)) if edge(*a) && edge(*b))
            && bytes.iter().all(|c| edge(*c) || matches!(c, b'-' | b'_'))
    };
    let fits = name.len() <= 253 && name.replace('/', ".").split('.').all(segment);
    (!fits).then_some("must have at most 253 characters and match regex [a-z0-9]([-_a-z0-9]*[a-z0-9])?([./][a-z0-9]([-_a-z0-9]*[a-z0-9])?)*")
}

/// A path that stays where it is: relative, without `..`.
pub(super) fn local_path(path: &str) -> Option<&'static str> {
    if path.starts_with('/') {
        return Some("must be a relative path");
    }
    path.split('/')
        .any(|part| part == "..")
        .then_some("must not contain '..'")
        .or_else(|| path_length(path))
}

/// A path that the kernel takes (`PATH_MAX`), of names that a file can have (`NAME_MAX`).
pub(super) fn path_length(path: &str) -> Option<&'static str> {
    if path.len() > 4095 {
        return Some("must be no more than 4095 bytes, as the kernel takes no longer path");
    }
    let has_long_name = path.split('/').any(|name| name.len() > 255);
    has_long_name.then_some("must have no name of more than 255 bytes in it, as no file has a longer one")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms() {
        let long = "a".repeat(64);
        type Rule = fn(&str) -> Option<&'static str>;
        let check: [(Rule, &[&str], &[&str]); 8] = [
            (
                dns_label,
                &["a", "0", "a-b"],
                &["", "-a", "a-", "A", "a.b", "a_b", &long],
            ),
            (dns_subdomain, &["a.b", "a"], &["", ".a", "a..b", "a.-b"]),
            (
                qualified_name,
                &["a", "A.b_c", "x.io/a"],
                &["", "/a", "x/", "a b", "X/a", "-a", "a/b/c"],
            ),
            (label_value, &["", "a", "A_1"], &["-", "a b", &long]),
            (
                port_name,
                &["http", "a-1"],
                &["", "1", "a--b", "HTTP", "a-very-long-name"],
            ),
            (data_key, &["a.b", "_"], &["", ".", "..", "..a", "a/b"]),
            (env_name, &["A", "a.b", "1"], &["", "a=b", "ü", "\n"]),
            (
                sysctl,
                &["net.core.somaxconn", "net/ipv4/ip_forward"],
                &["", "a..b", "A.b", "a+b", "a\nb"],
            ),
        ];
        for (rule, good, bad) in check {
            good.iter()
                .for_each(|name| assert_eq!(rule(name), None, "{name:?}"));
            bad.iter()
                .for_each(|name| assert!(rule(name).is_some(), "{name:?}"));
        }
    }
}
