//! Names that the administrator has written down: /etc/hosts.

use std::net::IpAddr;

const FILE: &str = "/etc/hosts";

/// The addresses that the file gives a name, in its order. What it says is complete, as with the C library: a name that
/// has an IPv4 address there is not asked for an IPv6 one elsewhere. No file is an empty one.
pub(super) fn addresses(name: &str) -> Vec<IpAddr> {
    let text = std::fs::read(FILE).unwrap_or_default();
    find(&String::from_utf8_lossy(&text), name)
}

/// hosts(5): an address and its names on a line, comments from `#`. A name's letters may be small or large.
fn find(text: &str, name: &str) -> Vec<IpAddr> {
    let name = name.trim_end_matches('.');
    let mut found = Vec::new();
    for line in text.lines() {
        let mut words = line.split('#').next().unwrap_or_default().split_whitespace();
        let Some(Ok(address)) = words.next().map(str::parse::<IpAddr>) else {
            continue;
        };
        let named = words.any(|word| word.trim_end_matches('.').eq_ignore_ascii_case(name));
        if named && !found.contains(&address) {
            found.push(address);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOSTS: &str = "\
# registry.example.com in a comment
127.0.0.1\tlocalhost
10.0.0.7  registry.example.com registry # mirror.example.com
10.0.0.8 Registry.Example.Com.
fd00::7 mirror.example.com
10.0.0.7 registry.example.com
not-an-address registry.example.com
";

    #[test]
    fn a_name_has_the_addresses_that_stand_before_it() {
        for (name, addresses) in [
            ("registry.example.com", &["10.0.0.7", "10.0.0.8"][..]),
            ("REGISTRY.example.com.", &["10.0.0.7", "10.0.0.8"]),
            ("registry", &["10.0.0.7"]),
            ("mirror.example.com", &["fd00::7"]),
            ("example.com", &[]),
            ("10.0.0.7", &[]),
        ] {
            let found: Vec<String> = find(HOSTS, name).iter().map(ToString::to_string).collect();
            assert_eq!(found, addresses, "{name}");
        }
        assert!(find("", "registry").is_empty());
    }
}
